"""Loops: one-shots laid on the grid of a bar, as a drum machine does."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from wavediff.errors import TaskError

BEATS = 4  # of a bar
ACCENT = 10 ** (3 / 20)
GAINS = {"x": 1.0, "X": ACCENT, "-": 0.0, ".": 0.0}
CEILING = 10 ** (-1 / 20)  # the highest peak, full scale at 1
BPM = (20.0, 400.0)
BARS, STEPS = 64, 256  # at most
TAKES = 3  # sounds of a label that take turns
EXAMPLE = 'a pattern is like "kick:x---x--- hat:--x---x-"'


@dataclass(frozen=True)
class Row:
    """One label's part of a bar."""

    label: str
    gains: tuple[float, ...]  # of each step, 0 for a rest

    @property
    def hits(self) -> int:
        """How often it sounds."""
        return sum(gain > 0 for gain in self.gains)

    def takes(self, bars: int) -> int:
        """How many sounds are worth having, so that hits in a row are not the same."""
        return max(1, min(TAKES, bars * self.hits))


@dataclass(frozen=True)
class Pattern:
    """A bar: its rows lie above each other, each as long as the bar."""

    rows: tuple[Row, ...]

    @property
    def labels(self) -> tuple[str, ...]:
        """What it needs sounds of."""
        return tuple(row.label for row in self.rows)


def parse(pattern: str) -> Pattern:
    """Read "kick:x---x--- hat:--x---x-": x a hit, X one 3 dB louder, - or . a rest.

    `*4` behind a row repeats it. Each row fills the bar; the number of its steps has to divide that
    of the longest row. Raises TaskError, which says what is wrong.
    """
    rows = tuple(_row(word) for word in pattern.split())
    if not any(row.hits for row in rows):
        raise TaskError("the pattern has no hit", EXAMPLE)
    labels = [row.label for row in rows]
    for label in labels:
        if labels.count(label) > 1:
            raise TaskError(f"{label} has two rows in the pattern", "put all its hits into one")
    longest = max(len(row.gains) for row in rows)
    for row in rows:
        if longest % len(row.gains):
            raise TaskError(
                f"the row {row.label} has {len(row.gains)} steps, "
                f"which do not divide the bar of {longest}",
                "fill it up with - or repeat it with *2, so that the rows fit together",
            )
    return Pattern(rows)


def render(
    pattern: Pattern,
    bpm: float,
    shots: Mapping[str, Tensor],
    rate: int,
    bars: int = 1,
    wrap: bool = True,
) -> Tensor:
    """Lay one-shots on the grid: (samples,) float32, its peak at most 1 dB below full scale.

    `shots` are (samples,) or (takes, samples) at `rate` Hz for each label; takes come in turns. A
    bar has four beats. With `wrap` what rings on at the end sounds into the beginning, so that the
    loop is seamless; without, the result is as much longer. Raises TaskError.
    """
    check(bpm, bars)
    missing = [label for label in pattern.labels if label not in shots]
    if missing:
        raise TaskError(f"there is no sound for {missing[0]}", f"there are {', '.join(shots)}")
    bar = BEATS * 60 / bpm * rate  # samples, not whole
    length = round(bars * bar)
    longest = max(shots[label].shape[-1] for label in pattern.labels)
    sound = torch.zeros(length + longest)
    for row in pattern.rows:
        takes = shots[row.label].reshape(-1, shots[row.label].shape[-1]).float()
        hits = [
            ((n + step / len(row.gains)) * bar, gain)
            for n in range(bars)
            for step, gain in enumerate(row.gains)
            if gain
        ]
        for number, (place, gain) in enumerate(hits):
            start = round(place)
            sound[start : start + takes.shape[1]] += gain * takes[number % len(takes)]
    if wrap:
        laps = -(-len(sound) // length)
        sound = torch.nn.functional.pad(sound, (0, laps * length - len(sound)))
        sound = sound.view(laps, length).sum(0)
    return sound * min(1.0, CEILING / max(float(sound.abs().max()), 1e-9))


def check(bpm: float, bars: int) -> None:
    """Raises TaskError for a tempo or a length that is not possible."""
    if not (math.isfinite(bpm) and BPM[0] <= bpm <= BPM[1]):
        raise TaskError(
            f"{bpm:g} beats per minute are not possible", f"there are {BPM[0]:g} to {BPM[1]:g}"
        )
    if not 1 <= bars <= BARS:
        raise TaskError(f"{bars} bars are not possible", f"there are 1 to {BARS}")


def _row(word: str) -> Row:
    label, colon, steps = word.rpartition(":")
    if not colon or not label:
        raise TaskError(f"{word} in the pattern has no label", EXAMPLE)
    found = re.fullmatch(r"([^*]*)(?:\*(\d{1,3}))?", steps)
    if found is None:
        raise TaskError(f"{word}: what follows * is not a number", "*4 repeats a row four times")
    once, times = found.group(1), int(found.group(2) or 1)
    wrong = next((sign for sign in once if sign not in GAINS), None)
    if wrong is not None:
        raise TaskError(
            f"{word}: {wrong} is no step", "x is a hit, X an accent, - or . a rest, *2 repeats"
        )
    if not 1 <= len(once) * times <= STEPS:
        raise TaskError(f"{word}: {len(once) * times} steps", f"a row has 1 to {STEPS}")
    return Row(label, tuple(GAINS[sign] for sign in once) * times)
