"""How clean a recording is above the model's band: voices of 44.1 kHz and more in wide noise.

    python benchmarks/above.py VOICES NOISES --model denoise-48k

The first 8 s of every voice that has content above 10 kHz meet a noise of NOISES drawn by its
place, every fourth one a hiss that is made here, at 0, 5, 10, 20, 30 and 60 dB in turn. Of the band
above 8 kHz the table gives the mean ratio of the voice to what else is there, and the distance of
logarithmic spectra up to 16 kHz, in dB both: as recorded; where that band follows the suppression
below it; and by the network that the model has for it.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import torch

import wavediff
from wavediff import degrade, tasks
from wavediff.audio import ArraySource, read
from wavediff.data import find
from wavediff.resample import resample

RATE = 44_100
SECONDS = 8
SNRS = (0, 5, 10, 20, 30, 60)
MOST = 40.0  # dB that count
FRAME = 882  # samples, of spectra that are compared
QUIET = 1e-8  # power of a bin that counts as none
WAYS = ("as recorded", "following", "network")


def main() -> None:
    """Print a row for each ratio."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("voices", type=Path)
    parser.add_argument("noises", type=Path)
    parser.add_argument("--model", default="denoise-48k")
    given = parser.parse_args()
    model = wavediff.load(given.model, "cpu")
    rng = np.random.default_rng(0)
    noises = [noise for path in find([given.noises]) if len(noise := mono(path))]
    voices = [voice for path in find([given.voices]) if wide(voice := mono(path))]
    found: dict[int, list[list[tuple[float, float]]]] = {snr: [] for snr in SNRS}
    for number, voice in enumerate(voices):
        noise = noises[5 * number % len(noises)]
        if number % 4 == 0:
            noise = degrade.coloured_noise(rng, len(voice))
        noise = np.resize(noise, len(voice))
        snr = SNRS[number % len(SNRS)]
        scale = np.sqrt(np.square(voice).mean() / (np.square(noise).mean() + 1e-12))
        noisy = (voice + noise * scale * 10 ** (-snr / 20)).astype(np.float32)
        sounds = (noisy, *denoised(model, noisy))
        found[snr].append([(ratio(voice, sound), distance(voice, sound)) for sound in sounds])
    print(f"{len(voices)} voices above 8 kHz: ratio and distance, dB")
    print(f"{'':8}" + "".join(f"{way:>16}" for way in WAYS))
    for snr, rows in found.items():
        columns = [
            [statistics.fmean(x) for x in zip(*way, strict=True)] for way in zip(*rows, strict=True)
        ]
        figures = "".join(f"{r:10.1f}{d:6.1f}" for r, d in columns)
        print(f"{snr:5} dB{figures}  of {len(rows)}")


def denoised(model: wavediff.Model, noisy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """With the band above following the one below, and by the model's network."""
    source = ArraySource(torch.from_numpy(noisy)[None], RATE)
    settings = tasks.DenoiseSettings()
    ways = (None, model.above(RATE))
    sounds = [
        tasks.denoise(source, model.fast, model.rate, settings, model.device, upper)
        for upper in ways
    ]
    following, network = (sound.read(0, sound.samples)[0].numpy() for sound in sounds)
    return following, network


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


def distance(clean: np.ndarray, sound: np.ndarray) -> float:
    """Of the logarithmic spectra from 8 to 16 kHz, dB."""
    ours, theirs = (logarithms(each) for each in (clean, sound))
    return float(np.sqrt(np.square(ours - theirs).mean(1)).mean())


def logarithms(sound: np.ndarray) -> np.ndarray:
    """The power of each bin from 8 to 16 kHz, frame by frame, dB."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, FRAME)[:: FRAME // 2]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(FRAME)))) / FRAME
    bins = slice(8000 * FRAME // RATE + 1, 16_000 * FRAME // RATE)
    return 10 * np.log10(power[:, bins] + QUIET)


if __name__ == "__main__":
    main()
