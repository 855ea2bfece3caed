"""Cycle spinning: what hangs on where frames begin averages out, and nothing else changes."""

import itertools

import pytest
import torch
from torch import Tensor

from wavediff.audio import ArraySource, Source
from wavediff.spin import Later, Spun

RATE, HOP = 16_000, 32


def sound(samples: int = 1003, channels: int = 2) -> Tensor:
    return torch.randn(channels, samples, generator=torch.Generator().manual_seed(samples))


class Framed:
    """A source in which every other frame is missing, by the grid that begins with the source."""

    def __init__(self, source: Source) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source = source

    def read(self, start: int, stop: int) -> Tensor:
        kept = torch.arange(start, stop) // HOP % 2 == 0
        return self._source.read(start, stop) * kept


def test_later_is_the_same_after_silence() -> None:
    audio = sound()
    later = Later(ArraySource(audio, RATE), 5)
    assert later.samples == audio.shape[1] + 5
    torch.testing.assert_close(
        later.read(-3, later.samples + 4),
        torch.nn.functional.pad(audio, (8, 4)),
        rtol=0,
        atol=0,
    )


def test_one_spin_is_the_result_itself() -> None:
    source = ArraySource(sound(), RATE)
    once = Spun(source, HOP, 1, Framed)
    assert torch.equal(once.read(0, source.samples), Framed(source).read(0, source.samples))


@pytest.mark.parametrize("spins", [1, 2, 3, 4])
def test_what_does_not_hang_on_frames_stays(spins: int) -> None:
    audio = sound()
    spun = Spun(ArraySource(audio, RATE), HOP, spins, lambda source: source)
    torch.testing.assert_close(spun.read(0, spun.samples), audio)


@pytest.mark.parametrize("spins", [2, 4])
def test_it_is_the_mean_over_shifted_frames(spins: int) -> None:
    audio = sound()
    found = Spun(ArraySource(audio, RATE), HOP, spins, Framed).read(0, audio.shape[1])
    place = torch.arange(audio.shape[1])
    shares = [(place + HOP * spin // spins) // HOP % 2 == 0 for spin in range(spins)]
    torch.testing.assert_close(found, audio * torch.stack(shares).float().mean(0))


def test_an_error_of_the_frames_becomes_smaller() -> None:
    audio = sound(40 * HOP)
    errors = []
    for spins in (1, 2, 4, 8):
        found = Spun(ArraySource(audio, RATE), HOP, spins, Framed).read(0, audio.shape[1])
        errors.append(float((found - audio / 2).square().mean()))
    assert errors[1] < 0.6 * errors[0]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("step", [1, 37, 500])
def test_any_ranges_are_the_whole(step: int) -> None:
    source = ArraySource(sound(), RATE)
    spun = Spun(source, HOP, 3, Framed)
    whole = spun.read(-10, spun.samples + 10)
    assert not whole[:, :10].any()
    assert not whole[:, -10:].any()
    edges = [*range(-10, spun.samples + 10, step), spun.samples + 10]
    pieces = [spun.read(a, b) for a, b in itertools.pairwise(edges)]
    assert torch.equal(torch.cat(pieces, 1), whole)
    assert spun.read(5, 3).shape == (2, 0)
