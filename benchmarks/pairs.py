"""Pairs for the other benchmarks: voices of one folder in noises of another.

    python benchmarks/pairs.py VOICES NOISES OUT

writes OUT/noisy and OUT/clean, --count files each at 16 kHz: a sub-folder drawn at random, a
recording of 2 s or more in it (its first 10 s), a noise drawn likewise, and -5, 0, 5, 10, 15 dB
of speech to noise in turn. Both may be several folders, parted by commas. With voices and noises
that a model has heard, and with others, it tells what the model lacks: voices, noises, or time.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

from wavediff import degrade
from wavediff.audio import read
from wavediff.data import find
from wavediff.evaluation import save_estimate
from wavediff.resample import resample

RATE = 16_000
LEVEL = 0.05  # of active speech
PEAK = 0.95


def main() -> None:
    """Write the pairs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("voices")
    parser.add_argument("noises")
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=48)
    parser.add_argument("--seed", type=int, default=5)
    given = parser.parse_args()
    rng = np.random.default_rng(given.seed)
    voices, noises = kinds(given.voices), kinds(given.noises)
    for number in range(given.count):
        voice = draw(rng, voices)[: 10 * RATE]
        while len(voice) < 2 * RATE:
            voice = draw(rng, voices)[: 10 * RATE]
        clean = voice * (LEVEL / degrade.active_level(voice, RATE))
        noise = np.resize(draw(rng, noises), len(clean))
        snr = (-5, 0, 5, 10, 15)[number % 5]
        noisy = clean + noise * (LEVEL * 10 ** (-snr / 20) / (degrade.rms(noise) + 1e-9))
        gain = min(1.0, PEAK / float(np.abs(noisy).max()))
        for kind, sound in (("noisy", noisy), ("clean", clean)):
            audio = torch.from_numpy((gain * sound).astype(np.float32))[None]
            save_estimate(given.out / kind, f"{number:03d}", audio, RATE)


def kinds(folders: str) -> list[list[Path]]:
    """The recordings of every sub-folder; a folder of none counts as one."""
    found = []
    for folder in map(Path, folders.split(",")):
        inside = [path for path in sorted(folder.iterdir()) if path.is_dir()] or [folder]
        found += [files for files in (find([path]) for path in inside) if files]
    return found


def draw(rng: np.random.Generator, folders: list[list[Path]]) -> np.ndarray:
    """A recording at `RATE`, (samples,)."""
    files = folders[int(rng.integers(len(folders)))]
    sound, own = read(files[int(rng.integers(len(files)))])
    return resample(sound.mean(0, keepdim=True), own, RATE)[0].numpy()


if __name__ == "__main__":
    main()
