"""Spinning: the mean of what is made of a sound on several grids of frames, at several speeds."""

from collections.abc import Callable

import torch
from torch import Tensor

from wavediff.audio import Source
from wavediff.resample import Resampled

# Of each spin, in turns: the sound is heard in so many of the samples that it has, and so a little
# faster and higher. By less than a tenth, errors stay too much alike; docs/design.md has figures.
SPEEDS = ((1, 1), (7, 8), (15, 16), (13, 16))


class Later:
    """A source that begins some samples later, after silence, or earlier, without its beginning."""

    def __init__(self, source: Source, by: int) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples + by
        self._source, self._by = source, by

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), max(min(stop, self.samples), 0)
        if low >= high:
            return torch.zeros(self.channels, max(stop - start, 0))
        sound = self._source.read(low - self._by, high - self._by)
        return torch.nn.functional.pad(sound, (low - start, stop - high))


class Labelled:
    """A source that is said to have another rate."""

    def __init__(self, source: Source, rate: int) -> None:
        self.rate, self.channels, self.samples = rate, source.channels, source.samples
        self.read = source.read


def played(source: Source, new: int, old: int) -> Source:
    """A source in `new` samples for `old` ones, at the rate that it had: faster where `new` is
    less."""
    return Labelled(Resampled(Labelled(source, old), new), source.rate)


class Spun:
    """The mean of what `make` makes of a source, which it meets on shifted frames, and faster.

    What depends on where frames begin, or on the pitch of a voice, is an error of the maker and
    averages out (Coifman and Donoho 1995, "Translation-invariant de-noising"). One spin is the
    result itself. What a faster one does not hear, at the top of the band, the first one tells.
    """

    def __init__(
        self, source: Source, hop: int, spins: int, make: Callable[[Source], Source]
    ) -> None:
        """`hop` is the number of samples between frames."""
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._plus: list[Source] = []
        self._minus: list[Source] = []
        for spin in range(spins):
            by, (new, old) = hop * spin // spins, SPEEDS[spin % len(SPEEDS)]
            faster = new < old
            heard = played(source, new, old) if faster else source
            made = Later(make(Later(heard, by)), -by) if by else make(heard)
            self._plus.append(played(made, old, new) if faster else made)
            if faster:
                first = self._plus[0]
                self._plus.append(first)
                self._minus.append(played(played(first, new, old), old, new))
        self._spins = spins

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        out = torch.zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low < high:
            inside = out[:, low - start : high - start]
            for made in self._plus:
                inside += made.read(low, high)
            for made in self._minus:
                inside -= made.read(low, high)
            inside /= self._spins
        return out
