"""How clean a recording is above the model's band: voices of 44.1 kHz and more in wide noise.

    python benchmarks/above.py VOICES NOISES --model denoise-16k

The first 8 s of every voice that has content above 10 kHz meet a noise of NOISES drawn by its
place, every fourth one a hiss that is made here, at 0, 5, 10, 20 and 60 dB in turn. The table
gives the mean ratio of the voice above 8 kHz to what else is there, before and after.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np

import wavediff
from wavediff import degrade
from wavediff.audio import read
from wavediff.data import find
from wavediff.resample import resample

RATE = 44_100
SECONDS = 8
SNRS = (0, 5, 10, 20, 60)
MOST = 40.0  # dB that count


def main() -> None:
    """Print a row for each ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("voices", type=Path)
    parser.add_argument("noises", type=Path)
    parser.add_argument("--model", default="denoise-16k")
    given = parser.parse_args()
    model = wavediff.load(given.model, "cpu")
    rng = np.random.default_rng(0)
    noises = [noise for path in find([given.noises]) if len(noise := mono(path))]
    voices = [voice for path in find([given.voices]) if wide(voice := mono(path))]
    found: dict[int, list[tuple[float, float]]] = {snr: [] for snr in SNRS}
    for number, voice in enumerate(voices):
        noise = noises[5 * number % len(noises)]
        if number % 4 == 0:
            noise = degrade.coloured_noise(rng, len(voice))
        noise = np.resize(noise, len(voice))
        snr = SNRS[number % len(SNRS)]
        scale = np.sqrt(np.square(voice).mean() / (np.square(noise).mean() + 1e-12))
        noisy = (voice + noise * scale * 10 ** (-snr / 20)).astype(np.float32)
        after = np.asarray(model.denoise(noisy, RATE))
        found[snr].append((ratio(voice, noisy), ratio(voice, after)))
    print(f"{len(voices)} voices\n{'':>8} {'before':>8} {'after':>8}  dB above 8 kHz")
    for given_snr, rows in found.items():
        if rows:
            mean_in, mean_out = (statistics.fmean(column) for column in zip(*rows, strict=True))
            print(f"{given_snr:5} dB {mean_in:8.1f} {mean_out:8.1f}  of {len(rows)}")


def mono(path: Path) -> np.ndarray:
    """The beginning of a recording, (samples,); empty where its rate is too low."""
    sound, rate = read(path)
    if rate < RATE:
        return np.zeros(0, np.float32)
    return resample(sound.mean(0, keepdim=True), rate, RATE)[0, : SECONDS * RATE].numpy()


def wide(voice: np.ndarray) -> bool:
    """Whether it is long enough and has content above 10 kHz."""
    if len(voice) < 2 * RATE:
        return False
    return float(np.square(above(voice, 10_000)).mean()) > 1e-5 * float(np.square(voice).mean())


def above(sound: np.ndarray, frequency: float) -> np.ndarray:
    """What (samples,) has above a frequency in Hz."""
    spectrum = np.fft.rfft(sound)
    spectrum[: int(frequency / RATE * len(sound))] = 0
    return np.fft.irfft(spectrum, len(sound))


def ratio(clean: np.ndarray, sound: np.ndarray) -> float:
    """Of the voice to everything else above 8 kHz, dB; the edge of the model's band left out."""
    voice, rest = above(clean, 8150), above(sound - clean, 8150)
    return min(MOST, 10 * float(np.log10(np.square(voice).sum() / (np.square(rest).sum() + 1e-12))))


if __name__ == "__main__":
    main()
