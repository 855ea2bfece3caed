"""Sounds like voices, for tests of what voices are measured by."""

import torch
from torch import Tensor

RATE = 16_000
SECONDS = 3


def voices(count: int, seed: int, rate: int = RATE) -> Tensor:
    """Harmonics under moving formants, in syllables with pauses: (count, samples)."""
    draw = torch.Generator().manual_seed(seed)
    time = torch.arange(SECONDS * rate) / rate
    pitch = 90 + 120 * torch.rand(count, 1, generator=draw) + 20 * torch.sin(5 * time)
    phase = 2 * torch.pi * pitch.cumsum(-1) / rate
    total = torch.zeros(count, len(time))
    for harmonic in range(1, 25):
        place = 700 + 500 * torch.sin(2 * torch.pi * 1.3 * time + harmonic / 9)
        total += torch.sin(harmonic * phase) * (-(((harmonic * pitch - place) / 400) ** 2)).exp()
    syllables = torch.sin(2 * torch.pi * 2.1 * time).clamp(min=0) ** 0.5
    return 0.1 * total * syllables * (time % 1.5 < 1.1)
