"""Other denoisers on your recordings, and their scores beside ours from one run.

    python benchmarks/peers.py NOISY_DIR OUT_DIR --clean CLEAN_DIR --weights WEIGHTS_DIR

renders NOISY_DIR through each system into OUT_DIR/<system>/ (wav files of floats). With --clean it
also prints a table of scores, the untouched recordings first. Scored is what the system gives;
rounded to 16 bits, GTCRN and UL-UNAS reach 0.001 to 0.002 more PESQ.

gtcrn, ulunas  trained on DNS3, 16 kHz; gtcrn.onnx (github.com/Xiaobin-Rong/gtcrn, the file
               stream/onnx_models/gtcrn.onnx) and ulunas.onnx (github.com/Xiaobin-Rong/ul-unas,
               ulunas_onnx/onnx_models/ulunas_stream_simple.onnx) in WEIGHTS_DIR;
               pip install onnxruntime
rnnoise        48 kHz; pip install --no-deps pyrnnoise
noisereduce    spectral gating, no training; pip install --no-deps noisereduce tqdm
MODEL-stepsN   a model of wavediff (--model NAME_OR_PATH) with N steps (--steps 1,4)

A system whose package or weights are not there is said and left out.
"""

import argparse
import ctypes
import importlib.util
import itertools
import json
import platform
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavediff.audio import read
from wavediff.data import find
from wavediff.errors import WavediffError
from wavediff.evaluation import Denoise, Evaluation, evaluate_model, save_estimate
from wavediff.metrics import METRICS
from wavediff.resample import resample

WEIGHTS = Path(__file__).resolve().parents[2] / "shared" / "reference"
FFT, HOP = 512, 256
RNNOISE_DELAY = 960  # samples at 48 kHz: where its output correlates best with its input


class Missing(Exception):
    """A system cannot run here; says what it needs."""


def by_channel(denoise: Callable[[Tensor], Tensor], rate: int) -> Denoise:
    """A denoiser of (samples,) at one rate, for any rate and number of channels."""

    def run(audio: Tensor, given_rate: int) -> Tensor:
        channels = resample(audio, given_rate, rate)
        denoised = torch.stack([denoise(channel) for channel in channels])
        return resample(denoised, rate, given_rate)[:, : audio.shape[1]]

    return run


def streamed(weights: Path, window: Tensor) -> Callable[[Tensor], Tensor]:
    """An ONNX network that takes one STFT frame and its own states a call."""
    try:
        import onnxruntime
    except ImportError as error:
        raise Missing("pip install onnxruntime") from error
    if not weights.is_file():
        raise Missing(f"{weights} is not there; --weights names its folder")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        str(weights), options, providers=["CPUExecutionProvider"]
    )
    shapes = {given.name: given.shape for given in session.get_inputs() if given.name != "mix"}
    outputs = ["enh", *(f"{name}_out" for name in shapes)]

    def denoise(audio: Tensor) -> Tensor:
        samples = len(audio)
        padded = torch.nn.functional.pad(audio, (0, max(-samples % HOP, FFT - samples)))
        spectrum = torch.stft(padded, FFT, HOP, FFT, window, return_complex=True)
        states = {name: torch.zeros(shape).numpy() for name, shape in shapes.items()}
        frames = []
        for frame in torch.view_as_real(spectrum).split(1, dim=1):
            given = {"mix": frame[None].contiguous().numpy(), **states}
            enhanced, *after = session.run(outputs, given)
            states = dict(zip(shapes, after, strict=True))
            frames.append(torch.from_numpy(enhanced[0]))
        enhanced_spectrum = torch.view_as_complex(torch.cat(frames, dim=1).contiguous())
        return torch.istft(enhanced_spectrum, FFT, HOP, FFT, window, length=len(padded))[:samples]

    return denoise


def gtcrn(weights: Path) -> Denoise:
    return by_channel(streamed(weights / "gtcrn.onnx", torch.hann_window(FFT).sqrt()), 16000)


def ulunas(weights: Path) -> Denoise:
    return by_channel(streamed(weights / "ulunas.onnx", torch.hann_window(FFT)), 16000)


def rnnoise(weights: Path) -> Denoise:
    # The package's own face needs more packages, and rounds to 16 bits; its library does neither.
    package = importlib.util.find_spec("pyrnnoise")
    if package is None or package.origin is None:
        raise Missing("pip install --no-deps pyrnnoise")
    name = {"Darwin": "librnnoise.dylib", "Windows": "rnnoise.dll"}.get(platform.system())
    library: Any = ctypes.CDLL(str(Path(package.origin).with_name(name or "librnnoise.so")))
    library.rnnoise_create.argtypes = [ctypes.c_void_p]
    library.rnnoise_create.restype = ctypes.c_void_p
    library.rnnoise_destroy.argtypes = [ctypes.c_void_p]
    library.rnnoise_process_frame.argtypes = [ctypes.c_void_p] * 3
    library.rnnoise_process_frame.restype = ctypes.c_float
    frame = library.rnnoise_get_frame_size()

    def denoise(audio: Tensor) -> Tensor:
        samples = len(audio)
        end = samples + RNNOISE_DELAY
        scaled = torch.nn.functional.pad(audio * 32768, (0, RNNOISE_DELAY + -end % frame))
        state = library.rnnoise_create(None)
        for start in range(0, len(scaled), frame):
            place = scaled.data_ptr() + start * scaled.element_size()
            library.rnnoise_process_frame(state, place, place)
        library.rnnoise_destroy(state)
        return scaled[RNNOISE_DELAY:end] / 32768

    return by_channel(denoise, 48000)


def noisereduce(weights: Path) -> Denoise:
    try:
        from noisereduce import reduce_noise
    except ImportError as error:
        raise Missing("pip install --no-deps noisereduce tqdm") from error

    def denoise(audio: Tensor, rate: int) -> Tensor:
        return torch.from_numpy(reduce_noise(audio.numpy(), rate)).to(audio.dtype)

    return denoise


SYSTEMS = {"gtcrn": gtcrn, "ulunas": ulunas, "rnnoise": rnnoise, "noisereduce": noisereduce}


def ours(model: str, steps: int, spins: int) -> Denoise:
    from wavediff import DenoiseSettings, load

    loaded = load(model)

    def denoise(audio: Tensor, rate: int) -> Tensor:
        return torch.as_tensor(loaded.denoise(audio, rate, DenoiseSettings(steps, spins=spins)))

    return denoise


def render(denoise: Denoise, noisy: Path, out: Path) -> None:
    for path in find([noisy]):
        audio, rate = read(path)
        name = path.relative_to(noisy).with_suffix("").as_posix()
        save_estimate(out, name, denoise(audio, rate), rate)


def table(scores: dict[str, Evaluation]) -> list[str]:
    """A line a system."""
    metrics = next(iter(scores.values())).metrics
    width = max(map(len, scores)) + 2
    heads = [METRICS[key].head for key in metrics]
    lines = [" " * width + "".join(f"{head:>11}" for head in [*heads, "RTF", "files"])]
    for system, evaluation in scores.items():
        cells = [METRICS[key].show(evaluation.mean[key]) for key in metrics]
        speed = evaluation.speed
        cells += [f"{speed.total:.4f}" if speed else "-", str(len(evaluation.rows))]
        lines.append(system.ljust(width) + "".join(f"{cell:>11}" for cell in cells))
    return lines


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("noisy", type=Path, metavar="NOISY_DIR")
    parser.add_argument("out", type=Path, metavar="OUT_DIR")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help="default: %(default)s")
    parser.add_argument("--clean", type=Path, metavar="DIR", help="references; scores follow")
    parser.add_argument("--weights", type=Path, metavar="DIR", default=WEIGHTS)
    parser.add_argument("--model", metavar="NAME_OR_PATH", help="a model of wavediff as well")
    parser.add_argument("--steps", default="1", help="its steps, as 1,4")
    parser.add_argument("--spins", default="2", help="and its spins")
    parser.add_argument("--workers", type=int, default=1, help="processes that score")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all scores")
    options = parser.parse_args()
    options.systems = [system for system in options.systems.split(",") if system]
    for system in options.systems:
        if system not in SYSTEMS:
            parser.error(f"no system is called {system}; there are {', '.join(SYSTEMS)}")
    try:
        options.steps = [int(steps) for steps in options.steps.split(",")]
        options.spins = [int(spins) for spins in options.spins.split(",")]
    except ValueError:
        parser.error("--steps and --spins take numbers, as 1,4")
    if options.json and not options.clean:
        parser.error("--json needs --clean to score against")
    return options


def main() -> None:
    options = arguments()
    chosen: dict[str, Denoise] = {}
    for system in options.systems:
        try:
            chosen[system] = SYSTEMS[system](options.weights)
        except Missing as missing:
            print(f"{system} left out: {missing}", file=sys.stderr)
    if options.model:
        for steps, spins in itertools.product(options.steps, options.spins):
            name = f"{Path(options.model).stem}-steps{steps}-spins{spins}"
            chosen[name] = ours(options.model, steps, spins)
    if not options.clean:
        for system, denoise in chosen.items():
            render(denoise, options.noisy, options.out / system)
        return
    scores: dict[str, Evaluation] = {}
    for system, denoise in {"untouched": lambda audio, rate: audio, **chosen}.items():
        print(f"{system} ...", file=sys.stderr)
        scores[system] = evaluate_model(
            denoise,
            options.noisy,
            options.clean,
            workers=options.workers,
            save=None if system == "untouched" else options.out / system,
        )
        for skipped in scores[system].skipped:
            print(f"skipped {skipped.path}: {skipped.reason}", file=sys.stderr)
    print("\n".join(table(scores)))
    if options.json:
        content = {system: json.loads(scored.to_json()) for system, scored in scores.items()}
        options.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    try:
        main()
    except WavediffError as error:
        sys.exit(f"peers: {error}")
