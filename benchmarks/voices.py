"""Whether invented speech has the ways of real speech: pitch, voicing, syllables, spectrum.

python benchmarks/voices.py GENERATED REAL [--json]

Of every recording: the median of its pitch and its range (10th to 90th percentile), by pYIN (Mauch
and Dixon 2014); the share of its loud frames that are voiced; its syllables per second, counted as
peaks of loudness with a dip of 2 dB between them that are voiced (de Jong and Wempe 2009); how far
its long-term spectrum in third octaves lies from the mean of the real ones. The spread of real
recordings is from their 5th to their 95th percentile; recordings are cut to equal lengths first.
"""

import json
import sys
from pathlib import Path

import librosa
import numpy as np

from wavediff.audio import read
from wavediff.data import find
from wavediff.resample import resample

RATE = 16_000
SECONDS = 4.0
PITCH = (60.0, 600.0)  # Hz
LOUD = -30.0  # dB below the loudest frames: what is softer counts as a pause
DIP = 2.0  # dB between two syllables
MEASURES = {
    "pitch": "Hz",
    "range": "semitones",
    "voiced": "of loud frames",
    "syllables": "a second",
    "spectrum": "dB from the mean of real ones",
}


def main(generated: str, real: str, *options: str) -> None:
    """Print each measure's spread and where invented sounds stand in it."""
    sets = {name: _measured(folder) for name, folder in (("new", generated), ("real", real))}
    mean = np.mean([spectrum for _, spectrum in sets["real"]], 0)
    for rows in sets.values():
        for row, spectrum in rows:
            row["spectrum"] = float(np.sqrt(np.mean((spectrum - mean) ** 2)))
    found = {}
    for key in MEASURES:
        new, old = ([row[key] for row, _ in sets[name]] for name in ("new", "real"))
        low, middle, high = np.nanpercentile(old, (5, 50, 95))
        inside = np.mean([low <= value <= high for value in new])
        median = float(np.nanmedian(new))
        found[key] = dict(low=low, real=middle, high=high, generated=median, inside=inside)
    if "--json" in options:
        print(json.dumps(found, default=float))
        return
    print(f"{len(sets['new'])} generated, {len(sets['real'])} real recordings of {SECONDS:.0f} s")
    print(f"{'':10}{'real 5 %':>10}{'median':>9}{'95 %':>9}{'generated':>11}{'within':>8}")
    for key, row in found.items():
        spread = f"{row['low']:10.2f}{row['real']:9.2f}{row['high']:9.2f}"
        print(f"{key:10}{spread}{row['generated']:11.2f}{row['inside']:8.0%}  {MEASURES[key]}")


def _measured(folder: str) -> list[tuple[dict[str, float], np.ndarray]]:
    """The measures of every piece of a folder's recordings, and its spectrum."""
    rows = []
    for path in find([Path(folder)]):
        sound, rate = read(path)
        whole = resample(sound.mean(0, keepdim=True), rate, RATE)[0].numpy()
        size = round(SECONDS * RATE)
        rows += [_voice(whole[n : n + size]) for n in range(0, len(whole) - size + 1, size)][:3]
    if not rows:
        sys.exit(f"{folder} has no recording of {SECONDS:.0f} s")
    return rows


def _voice(sound: np.ndarray) -> tuple[dict[str, float], np.ndarray]:
    hop = 256
    pitch, voiced, _ = librosa.pyin(
        sound, fmin=PITCH[0], fmax=PITCH[1], sr=RATE, frame_length=1024, hop_length=hop
    )
    power = librosa.feature.rms(y=sound, frame_length=1024, hop_length=hop)[0] ** 2
    level = 10 * np.log10(np.convolve(power, np.hanning(7) / np.hanning(7).sum(), "same") + 1e-10)
    loud = level > np.percentile(level, 98) + LOUD
    heard = pitch[voiced & loud]
    low, high = np.percentile(heard, (10, 90)) if len(heard) > 10 else (np.nan, np.nan)
    row = {
        "pitch": float(np.median(heard)) if len(heard) > 10 else np.nan,
        "range": float(12 * np.log2(high / low)),
        "voiced": float(voiced[loud].mean()),
        "syllables": len(_peaks(level, loud & voiced)) / SECONDS,
    }
    return row, _third_octaves(sound)


def _peaks(level: np.ndarray, allowed: np.ndarray) -> list[int]:
    """Frames at which syllables are loudest: DIP dB above what lies between them."""
    peaks: list[int] = []
    for n in range(1, len(level) - 1):
        if not (allowed[n] and level[n - 1] < level[n] >= level[n + 1]):
            continue
        dip = level[peaks[-1] : n].min() if peaks else -np.inf
        if min(level[n], level[peaks[-1]] if peaks else np.inf) - dip >= DIP:
            peaks.append(n)
        elif level[n] > level[peaks[-1]]:
            peaks[-1] = n
    return peaks


def _third_octaves(sound: np.ndarray) -> np.ndarray:
    """Levels of third octaves from 125 Hz to 6.3 kHz, dB, their mean taken off."""
    power = np.abs(librosa.stft(sound, n_fft=2048)) ** 2
    frequency = librosa.fft_frequencies(sr=RATE, n_fft=2048)
    centres = 1000 * 2 ** (np.arange(-9, 9) / 3)
    levels = np.array(
        [
            10
            * np.log10(
                power[(frequency >= c / 2 ** (1 / 6)) & (frequency < c * 2 ** (1 / 6))].mean()
                + 1e-12
            )
            for c in centres
        ]
    )
    return levels - levels.mean()


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
