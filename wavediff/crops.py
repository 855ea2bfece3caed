"""Sounds as they are, for training: crops for a vocoder, mels under labels for a prior."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from wavediff.data import Clips
from wavediff.labelled import Labelled
from wavediff.mel import MelPreset, mel

LEVEL = (-32.0, -20.0)  # RMS of a crop, dB
SILENT = 1e-6  # RMS below which nothing is brought to a level


@dataclass(frozen=True)
class Crops:
    """Draws batches of (clean,) sounds."""

    clips: Clips
    samples: int
    seed: int
    balance: float = 0.5  # see `Clips.draw`

    def batch(self, step: int, items: range) -> tuple[Tensor, ...]:
        """Items of step `step` as ((len(items), samples),)."""
        return (torch.stack([self._item(step, n) for n in items]),)

    def _item(self, step: int, n: int) -> Tensor:
        rng = np.random.default_rng((self.seed, step, n))
        clip = self.clips.draw(rng, self.balance)
        spare = int(self.clips.lengths[clip]) - self.samples
        if spare >= 0:
            sound = self.clips.crop(clip, int(rng.integers(spare + 1)), self.samples)
        else:  # a short clip comes somewhere within the crop
            sound = self.clips.crop(clip, 0, self.samples).roll(int(rng.integers(-spare + 1)))
        rms = float(sound.square().mean().sqrt())
        return sound * (10 ** (rng.uniform(*LEVEL) / 20) / max(rms, SILENT))


@dataclass(frozen=True)
class LabelledMels:
    """Draws batches of mels and the shares of their labels, every label alike."""

    labelled: Labelled
    preset: MelPreset
    samples: int
    whole: bool  # one-shots from their beginning; else crops from anywhere
    seed: int
    level: float = 3.0  # dB by which a sound's level is moved, up or down
    _by_label: list[np.ndarray] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        places = [np.flatnonzero(self.labelled.label_of == n) for n in range(self.count)]
        object.__setattr__(self, "_by_label", places)

    @property
    def count(self) -> int:
        """How many labels there are; one that is empty counts."""
        return len(self.labelled.labels)

    def batch(self, step: int, items: range) -> tuple[Tensor, ...]:
        """Items of step `step`: mels (items, bands, frames) and labels (items, labels)."""
        sounds, shares = [], torch.zeros(len(items), self.count)
        for row, n in enumerate(items):
            rng = np.random.default_rng((self.seed, step, n))
            label = int(rng.integers(self.count))
            clip = int(rng.choice(self._by_label[label]))
            spare = int(self.labelled.clips.lengths[clip]) - self.samples
            start = 0 if self.whole else int(rng.integers(max(spare, 0) + 1))
            sound = self.labelled.clips.crop(clip, start, self.samples)
            sounds.append(sound * 10 ** (rng.uniform(-self.level, self.level) / 20))
            shares[row, label] = 1
        return mel(torch.stack(sounds), self.preset), shares
