"""Change of rate: blocks equal the whole, the band passes, what lies above does not."""

import math
import time

import pytest
import torch
import torchaudio
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.resample import ROLLOFF, WIDTH, Resampled, resample, resampled

RATIOS = [(48000, 16000), (44100, 16000), (11025, 16000), (16000, 44100), (22255, 16000)]
ODD = [(44099, 16000), (16000, 44099), (999983, 16000)]


def sine(hertz: float, rate: int, samples: int) -> Tensor:
    return torch.sin(
        2 * math.pi * hertz * torch.arange(samples, dtype=torch.float64) / rate
    ).float()


def noise(samples: int, channels: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(samples)
    return torch.rand(channels, samples, generator=generator) * 2 - 1


def level(audio: Tensor) -> float:
    """Amplitude of a sine in dB, without the edges."""
    middle = audio[len(audio) // 4 : -len(audio) // 4].double()
    return 20 * math.log10(float(middle.square().mean().sqrt()) * math.sqrt(2) + 1e-12)


@pytest.mark.parametrize(("old", "new"), RATIOS + ODD)
def test_blocks_of_any_size_equal_the_whole(old: int, new: int) -> None:
    source = Resampled(ArraySource(noise(5000), old), new)
    whole = source.read(0, source.samples)
    assert whole.abs().max() > 0.1
    assert source.samples == whole.shape[1] == math.ceil(5000 * new / old)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(-200, source.samples + 200), st.integers(0, 3000))
    def check(start: int, length: int) -> None:
        expected = ArraySource(whole, new).read(start, start + length)
        torch.testing.assert_close(source.read(start, start + length), expected, rtol=0, atol=1e-6)

    check()


@pytest.mark.parametrize(("old", "new"), RATIOS)
def test_equals_torchaudio_on_the_whole(old: int, new: int) -> None:
    audio = noise(5000).double()
    expected = torchaudio.functional.resample(
        audio, old, new, lowpass_filter_width=WIDTH, rolloff=ROLLOFF
    )
    source = Resampled(ArraySource(audio.float(), old), new)
    torch.testing.assert_close(source.read(0, source.samples), expected.float(), rtol=0, atol=3e-6)


def test_taps_made_in_place_equal_the_table() -> None:
    source = Resampled(ArraySource(noise(20000), 44100), 16000)
    assert source._table
    table, taps = source._by_table(100, 7000), source._by_taps(100, 7000)
    torch.testing.assert_close(table, taps, rtol=0, atol=3e-6)


@pytest.mark.parametrize(("old", "new"), [(48000, 16000), (44100, 16000), (44099, 16000)])
def test_the_band_passes_and_nothing_folds_back(old: int, new: int) -> None:
    for hertz in (60, 1000, 4000, 7000, 7400):
        assert abs(level(resample(sine(hertz, old, old // 2), old, new))) < 0.01
    for hertz in (8010, 8050, 8100, 8150, 8250, 8300):
        assert level(resample(sine(hertz, old, old // 2), old, new)) < -60
    for hertz in (8400, 8600, 9500, 12000, 15999, 20000):
        assert level(resample(sine(hertz, old, old // 2), old, new)) < -80


def test_there_and_back_keeps_a_tone_and_at_least_the_length() -> None:
    audio = sine(1000, 48000, 48001)
    back = resample(resample(audio, 48000, 16000), 16000, 48000)[: len(audio)]
    assert len(back) == len(audio)
    assert (back - audio)[2000:-2000].abs().max() < 1e-3


@given(st.integers(1, 10**7), st.integers(1000, 10**6), st.integers(1000, 10**6))
def test_there_and_back_is_never_shorter(samples: int, old: int, new: int) -> None:
    class Silence(ArraySource):
        def __init__(self, samples: int, rate: int) -> None:
            self.samples, self.rate, self.channels = samples, rate, 1

    there = Resampled(Silence(samples, old), new)
    back = Resampled(there, old)
    assert samples <= back.samples <= samples + math.ceil(old / new)


def test_a_constant_and_a_single_sample() -> None:
    assert (resample(torch.ones(3000), 44100, 16000)[300:-300] - 1).abs().max() < 1e-3
    one = resample(torch.ones(1), 16000, 48000)
    assert one.shape == (3,)
    assert one[0] == pytest.approx(ROLLOFF, abs=1e-3)  # the middle of the filter


def test_the_same_rate_is_the_source_itself() -> None:
    source = ArraySource(noise(10), 16000)
    assert resampled(source, 16000) is source
    assert resample(source.audio, 16000, 16000) is source.audio
    assert resampled(source, 8000).rate == 8000


def test_leading_dimensions_are_kept() -> None:
    audio = noise(3000, 6)
    together = resample(audio.reshape(2, 3, 3000), 44100, 16000)
    alone = torch.stack([resample(row, 44100, 16000) for row in audio])
    assert together.shape[:2] == (2, 3)
    torch.testing.assert_close(together.reshape(6, -1), alone, rtol=0, atol=1e-6)


def test_long_sound_keeps_its_length() -> None:
    """torchaudio counts in float32: beyond 2^24 samples its own whole-file call is off."""
    source = Resampled(
        ArraySource(torch.zeros(1, 2**24 + 3).index_fill_(1, torch.tensor(2**24), 1), 16000), 16001
    )
    end = source.read(source.samples - 3000, source.samples + 1)
    assert source.samples == math.ceil((2**24 + 3) * 16001 / 16000)
    assert end.shape == (1, 3001)
    assert end.abs().max() > 0.5
    assert end[0, -1] == 0


def test_odd_ratios_are_faster_than_real_time() -> None:
    audio = noise(44099, 1)
    start = time.perf_counter()
    resample(audio, 44099, 16000)
    assert time.perf_counter() - start < 1.0
