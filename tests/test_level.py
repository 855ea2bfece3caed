"""The level of what sounds in a recording."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.level import FRAME, GATE, gated_rms


def tone(samples: int, rate: int = 1000, amplitude: float = 0.1) -> Tensor:
    return amplitude * torch.sin(2 * math.pi * 100 * torch.arange(samples) / rate)[None]


def plainly(audio: Tensor, rate: int) -> float:
    """The same from the whole sound at once, in numpy."""
    frame = round(FRAME * rate)
    power = np.square(audio.double().numpy()).mean(0)
    frames = np.array([power[n : n + frame].mean() for n in range(0, len(power), frame)])
    return float(np.sqrt(frames[frames > GATE * frames.mean()].mean()))


@pytest.mark.parametrize("pause", [0, 1, 3, 12])
def test_pauses_do_not_count(pause: int) -> None:
    hiss = 1e-4 * torch.randn(1, 1000 * pause, generator=torch.Generator().manual_seed(0))
    audio = torch.cat((tone(1000), hiss, tone(1000), hiss), 1)
    assert gated_rms(ArraySource(audio, 1000)) == pytest.approx(0.1 / math.sqrt(2), rel=1e-3)


@pytest.mark.parametrize("samples", [0, 1, 1000, 50_000])
def test_silence_has_the_level_zero(samples: int) -> None:
    assert gated_rms(ArraySource(torch.zeros(2, samples), 1000)) == 0.0


@pytest.mark.parametrize("samples", [1, 7, 19, 20, 21, 1000, 20 * 1024, 20 * 1024 + 1, 50_001])
def test_a_constant_has_its_own_level_at_any_length(samples: int) -> None:
    audio = torch.full((1, samples), -0.3)
    assert gated_rms(ArraySource(audio, 1000)) == pytest.approx(0.3, rel=1e-6)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60_000), st.integers(1, 3), st.sampled_from([1000, 1111]))
def test_reading_by_blocks_makes_no_difference(samples: int, channels: int, rate: int) -> None:
    generator = torch.Generator().manual_seed(samples)
    swell = 0.01 + torch.sin(torch.arange(samples) / 700).pow(4)
    audio = swell * torch.randn(channels, samples, generator=generator)
    assert gated_rms(ArraySource(audio, rate)) == pytest.approx(plainly(audio, rate), rel=1e-6)


@pytest.mark.parametrize("factor", [1e-4, 10.0])
def test_it_follows_the_sound(factor: float) -> None:
    audio = torch.cat((tone(3000), 0.01 * tone(3000)), 1)
    expected = factor * gated_rms(ArraySource(audio, 1000))
    assert gated_rms(ArraySource(factor * audio, 1000)) == pytest.approx(expected, rel=1e-5)


def test_channels_share_one_level() -> None:
    one, other = tone(2000), torch.zeros(1, 2000)
    level = gated_rms(ArraySource(torch.cat((one, other)), 1000))
    assert level == pytest.approx(0.05, rel=1e-5)
