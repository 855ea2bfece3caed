"""Cycle spinning: the mean of what is made of a sound on several grids of frames."""

from collections.abc import Callable

import torch
from torch import Tensor

from wavediff.audio import Source


class Later:
    """A source that begins some samples later, after silence."""

    def __init__(self, source: Source, by: int) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples + by
        self._source, self._by = source, by

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        return self._source.read(start - self._by, stop - self._by)


class Spun:
    """The mean of what `make` makes of a source, which it meets on evenly shifted frames.

    What depends on where frames begin is no property of the sound, and averages out (Coifman and
    Donoho 1995, "Translation-invariant de-noising"). One spin is the result itself.
    """

    def __init__(
        self, source: Source, hop: int, spins: int, make: Callable[[Source], Source]
    ) -> None:
        """`hop` is the number of samples between frames."""
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        shifts = [hop * spin // spins for spin in range(spins)]
        self._made = [(by, make(Later(source, by) if by else source)) for by in shifts]

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        out = torch.zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low < high:
            inside = out[:, low - start : high - start]
            for by, made in self._made:
                inside += made.read(low + by, high + by)
            inside /= len(self._made)
        return out
