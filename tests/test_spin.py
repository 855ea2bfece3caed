"""Spinning: what hangs on frames and on speed averages out, and nothing else changes."""

import itertools

import pytest
import torch
from torch import Tensor

from wavediff import spin
from wavediff.audio import ArraySource, Source
from wavediff.spin import SPEEDS, Later, Spun, played

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


@pytest.fixture
def one_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin, "SPEEDS", ((1, 1),))


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


def test_later_undoes_itself() -> None:
    audio = sound()
    back = Later(Later(ArraySource(audio, RATE), 5), -5)
    assert back.samples == audio.shape[1]
    expected = torch.nn.functional.pad(audio, (7, 4))
    assert torch.equal(back.read(-7, back.samples + 4), expected)


@pytest.mark.parametrize(("new", "old"), SPEEDS[1:])
def test_a_sound_played_faster_is_shorter_and_higher(new: int, old: int) -> None:
    def tone(hz: float, samples: int) -> Tensor:
        return torch.sin(2 * torch.pi * hz * torch.arange(samples) / RATE)[None]

    faster = played(ArraySource(tone(1000, 8000), RATE), new, old)
    assert (faster.rate, faster.samples) == (RATE, 8000 * new // old)
    inside = slice(500, faster.samples - 500)
    expected = tone(1000 * old / new, faster.samples)
    found = faster.read(0, faster.samples)
    torch.testing.assert_close(found[:, inside], expected[:, inside], rtol=0, atol=1e-3)


def test_one_spin_is_the_result_itself() -> None:
    source = ArraySource(sound(), RATE)
    once = Spun(source, HOP, 1, Framed)
    assert torch.equal(once.read(0, source.samples), Framed(source).read(0, source.samples))


@pytest.mark.parametrize("spins", [1, 2, 3, 4])
def test_what_does_not_hang_on_frames_stays(spins: int) -> None:
    audio = sound()
    spun = Spun(ArraySource(audio, RATE), HOP, spins, lambda source: source)
    torch.testing.assert_close(spun.read(0, spun.samples), audio, rtol=0, atol=1e-5)


def test_spins_hear_the_sound_at_other_speeds() -> None:
    lengths = []

    def make(source: Source) -> Source:
        lengths.append(source.samples)
        return source

    Spun(ArraySource(sound(1120), RATE), HOP, 4, make)
    shifts = [HOP * number // 4 for number in range(4)]
    assert lengths == [1120, 980 + shifts[1], 1050 + shifts[2], 910 + shifts[3]]


def test_what_a_faster_spin_does_not_hear_is_told_by_the_first() -> None:
    """A maker of nothing but its first answer: the top of the band is whole, the rest is halved."""
    audio, made = sound(8000, 1), iter((1.0, 0.0))

    def make(source: Source) -> Source:
        factor = next(made)
        return ArraySource(factor * source.read(0, source.samples), RATE)

    found = Spun(ArraySource(audio, RATE), HOP, 2, make).read(0, 8000)
    before, after = (torch.fft.rfft(x * torch.hann_window(8000))[0] for x in (audio, found))
    low, high = slice(50, 3000), slice(3600, 3950)  # halves of a Hz; 7/8 of the band is 3500
    torch.testing.assert_close(after[low], before[low] / 2, rtol=0, atol=0.05)
    torch.testing.assert_close(after[high], before[high], rtol=0, atol=0.05)


@pytest.mark.usefixtures("one_speed")
@pytest.mark.parametrize("spins", [2, 4])
def test_it_is_the_mean_over_shifted_frames(spins: int) -> None:
    audio = sound()
    found = Spun(ArraySource(audio, RATE), HOP, spins, Framed).read(0, audio.shape[1])
    place = torch.arange(audio.shape[1])
    shares = [(place + HOP * spin // spins) // HOP % 2 == 0 for spin in range(spins)]
    torch.testing.assert_close(found, audio * torch.stack(shares).float().mean(0))


@pytest.mark.usefixtures("one_speed")
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
