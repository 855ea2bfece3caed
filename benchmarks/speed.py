"""How fast a model is on this machine.

    python benchmarks/speed.py [-m MODEL] [--json]

prints the seconds of work per second of audio at one and four steps, for recordings of 10 and 60 s,
mono at 16 kHz and stereo at 48 kHz; the network's parameters and its multiply-adds per second of
audio; and how long `wavediff --help` and the denoising of three seconds take as whole processes.
Every figure is a median, after a warm-up. With --random a random network of the default size
stands in for a model.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from wavediff import checkpoint as checkpoints
from wavediff import model as models
from wavediff.audio import ArraySource, Source
from wavediff.checkpoint import Checkpoint
from wavediff.model import Model
from wavediff.recipe import Recipe
from wavediff.tasks import DenoiseSettings, build
from wavediff.writer import Writer

INPUTS = ((10, 1, 16_000), (60, 1, 16_000), (10, 2, 48_000), (60, 2, 48_000))  # s, channels, Hz
STEPS = (1, 4)
COMMAND = (sys.executable, "-c", "from wavediff.cli.main import run; run()")


@dataclass(frozen=True)
class Rendering:
    """What one kind of recording costs."""

    seconds: int
    channels: int
    rate: int
    steps: int
    work_per_second: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="denoise-16k", help="name, file or run folder")
    parser.add_argument("-d", "--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--random", action="store_true", help="a random network instead")
    parser.add_argument("--runs", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        name = save_random(Path(place)) if given.random else given.model
        model = models.load(name, given.device)
        facts = {
            "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, "
            f"{torch.get_num_threads()} threads, torch {torch.__version__}, {given.device}",
            "model": "random" if given.random else given.model,
            "parameters": sum(p.numel() for p in model.denoiser.parameters()),
            "multiply_adds_per_second": multiply_adds(model),
            "rendering": [vars(row) for row in renderings(model, given.runs)],
            "help_seconds": median(lambda: command("--help"), given.runs),
            "denoise_3_seconds": whole_denoise(name, given.device, Path(place), given.runs),
        }
    print(json.dumps(facts, indent=2) if given.json else table(facts))


def save_random(folder: Path) -> str:
    """A model of the default size that was never trained."""
    torch.manual_seed(0)
    network = build(Recipe()).network
    tensors = {f"network.{key}": t.half() for key, t in network.state_dict().items()}
    checkpoints.save(folder / "random.safetensors", Checkpoint(Recipe(), tensors, {}))
    return str(folder / "random.safetensors")


def multiply_adds(model: Model) -> float:
    """Of the matrix products and convolutions, per second of audio, in one step."""
    sound = torch.zeros(1, 4 * model.recipe.rate, device=model.device)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model.denoiser(sound, sound, torch.ones(1, device=model.device))
    return counter.get_total_flops() / 2 / 4


def renderings(model: Model, runs: int) -> list[Rendering]:
    """Every kind of input at every number of steps."""
    rows = []
    for seconds, channels, rate in INPUTS:
        heard = ArraySource(0.05 * torch.randn(channels, seconds * rate), rate)
        for steps in STEPS:
            settings = DenoiseSettings(steps, spins=1)

            def work(heard: Source = heard, settings: DenoiseSettings = settings) -> None:
                model.denoise_source(heard, settings).read(0, heard.samples)

            work_seconds = median(work, runs)
            rows.append(Rendering(seconds, channels, rate, steps, work_seconds / seconds))
    return rows


def whole_denoise(model: str, device: str, folder: Path, runs: int) -> float:
    """Seconds of a process that denoises three seconds of audio."""
    with Writer(folder / "noisy.wav", 16_000, 1) as writer:
        writer.write(0.05 * torch.randn(1, 3 * 16_000))
    paths = (str(folder / "noisy.wav"), "-o", str(folder / "clean.wav"))
    return median(lambda: command("denoise", *paths, "-m", model, "-d", device, "-f"), runs)


def command(*words: str) -> None:
    """Run wavediff as a process of its own."""
    subprocess.run([*COMMAND, *words], check=True, capture_output=True)


def median(work: Callable[[], None], runs: int) -> float:
    """Seconds, after one run that does not count."""
    work()
    times = []
    for _ in range(runs):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def table(facts: dict) -> str:
    """All figures as lines of text."""
    billions = facts["multiply_adds_per_second"] / 1e9
    lines = [
        facts["machine"],
        f"{facts['model']}: {facts['parameters']:,} parameters, "
        f"{billions:.2f} G multiply-adds per second of audio and step",
        "",
        f"{'input':<24}" + "".join(f"{f'steps {steps}':>10}" for steps in STEPS),
    ]
    for seconds, channels, rate in INPUTS:
        cells = "".join(
            f"{row['work_per_second']:>10.4f}"
            for row in facts["rendering"]
            if (row["seconds"], row["channels"], row["rate"]) == (seconds, channels, rate)
        )
        lines.append(f"{seconds} s, {channels} ch, {rate} Hz".ljust(24) + cells)
    return "\n".join(
        [
            *lines,
            "seconds of work per second of audio",
            "",
            f"wavediff --help:                {facts['help_seconds']:.2f} s",
            f"wavediff denoise of 3 s:        {facts['denoise_3_seconds']:.2f} s",
        ]
    )


if __name__ == "__main__":
    main()
