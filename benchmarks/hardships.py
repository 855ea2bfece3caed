"""A denoiser on clean speech, on noise alone, and on rooms, clipping, narrow bands and a codec.

python benchmarks/hardships.py CLEAN NOISE ROOMS --model denoise-16k

Every recording of CLEAN (at most --files of them) meets each hardship once, with a noise of NOISE
drawn by its place, 10 dB below the speech unless the row says otherwise. The table gives the means
of what goes in and of what comes out. In rooms the target is the voice with its first 30 ms, as in
the training. What is coded is MP3 at about 32 kbit/s.
"""

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import wavediff
from wavediff import degrade
from wavediff.audio import read
from wavediff.data import find
from wavediff.metrics import estoi, pesq_wb, si_sdr
from wavediff.resample import resample

MP3 = ("MP3", "MPEG_LAYER_III", 0.85)
SNR = 10.0
Pair = tuple[np.ndarray, np.ndarray]  # what goes in, what should come out


def main() -> None:
    """Print a row for each hardship."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clean", type=Path)
    parser.add_argument("noise", type=Path)
    parser.add_argument("rooms", type=Path)
    parser.add_argument("--model", default="denoise-16k")
    parser.add_argument("--files", type=int, default=20)
    given = parser.parse_args()
    model = wavediff.load(given.model, "cpu")
    rate = model.rate
    voices, noises, rooms = (
        [mono(path, rate) for path in find([folder])]
        for folder in (given.clean, given.noise, given.rooms)
    )
    voices = voices[: given.files]

    def noisy(voice: np.ndarray, number: int, snr: float = SNR) -> np.ndarray:
        noise = np.resize(noises[number * 7 % len(noises)], len(voice))
        level = degrade.active_level(voice, rate) / (degrade.rms(noise) + 1e-9)
        return voice + noise * level * 10 ** (-snr / 20)

    def in_room(voice: np.ndarray, number: int) -> Pair:
        response = degrade.from_direct(rooms[number % len(rooms)])
        both = np.stack((response, degrade.early_part(response, rate)))
        wet, target = degrade.convolve(voice, both)
        return noisy(wet, number), target

    def clipped(voice: np.ndarray, number: int) -> Pair:
        return degrade.clip_peaks(noisy(voice, number), 0.1), voice

    def narrow(voice: np.ndarray, number: int) -> Pair:
        given = noisy(voice, number)
        response = degrade.low_pass(len(given) // 2 + 1, rate, 3400)
        return degrade.apply_response(given[: len(given) // 2 * 2], response), voice

    def coded(voice: np.ndarray, number: int) -> Pair:
        given = noisy(voice, number)
        peak = max(1.0, float(np.abs(given).max()))
        delay = degrade.codec_delay(MP3, rate) or 0
        return degrade.encode(given / peak, rate, MP3)[delay:] * peak, voice

    hardships: dict[str, Callable[[np.ndarray, int], Pair]] = {
        "clean": lambda voice, _: (voice, voice),
        "noise at 30 dB": lambda voice, n: (noisy(voice, n, 30), voice),
        "noise at 20 dB": lambda voice, n: (noisy(voice, n, 20), voice),
        "noise at 10 dB": lambda voice, n: (noisy(voice, n), voice),
        "rooms": in_room,
        "clipped at 10 %": clipped,
        "up to 3.4 kHz": narrow,
        "MP3": coded,
    }
    print(f"{len(voices)} recordings\n{'':16} {'PESQ-WB':>15} {'ESTOI':>15} {'SI-SDR':>15}  worse")
    for name, hardship in hardships.items():
        rows = []
        for number, voice in enumerate(voices):
            before, target = hardship(voice, number)
            after = np.asarray(model.denoise(before.astype(np.float32), rate))
            size = min(len(before), len(target))
            rows.append([scores(target[:size], x[:size], rate) for x in (before, after)])
        cells = []
        for metric in range(3):
            pairs = [(b[metric], a[metric]) for b, a in rows if np.isfinite(b[metric])]
            mean_in, mean_out = (statistics.fmean(column) for column in zip(*pairs, strict=True))
            cells.append(f"{mean_in:7.3f} {mean_out:7.3f}")
        worse = sum(a[1] < b[1] for b, a in rows)
        print(f"{name:16} {' '.join(cells)}  {worse} by ESTOI", flush=True)
    quieter = []
    for noise in noises[:: max(1, len(noises) // given.files)]:
        sound = (0.05 * noise / (degrade.rms(noise) + 1e-9)).astype(np.float32)
        after = np.asarray(model.denoise(sound, rate))
        quieter.append(20 * np.log10(degrade.rms(sound) / (degrade.rms(after) + 1e-9)))
    print(f"noise alone: {np.median(quieter):.1f} dB quieter (median), {min(quieter):.1f} at least")


def mono(path: Path, rate: int) -> np.ndarray:
    """A recording at a rate, (samples,)."""
    sound, own = read(path)
    return resample(sound.mean(0, keepdim=True), own, rate)[0].numpy()


def scores(target: np.ndarray, estimate: np.ndarray, rate: int) -> tuple[float, float, float]:
    """PESQ-WB, ESTOI, SI-SDR."""
    both: list[Tensor] = [torch.from_numpy(x.astype(np.float32)) for x in (target, estimate)]
    return pesq_wb(*both, rate), estoi(*both, rate), si_sdr(*both)


if __name__ == "__main__":
    main()
