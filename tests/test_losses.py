"""The loss: nothing to gain beyond equality, more error costs more, no gradient ever breaks."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff import metrics
from wavediff.losses import (
    LossConfig,
    compressed_spectral,
    denoise_loss,
    limited_si_sdr,
    limited_snr,
)
from wavediff.transform import Transform

SAMPLES, RATE = 4000, 16_000
CONFIG = LossConfig()


def sound(seed: int, batch: int = 3, level: float = 0.05) -> Tensor:
    """Something with low and high frequencies, (batch, SAMPLES)."""
    draw = torch.Generator().manual_seed(seed)
    white = torch.randn(batch, SAMPLES, generator=draw)
    return level * (white + white.cumsum(1) / 10)


def test_at_equality_only_the_limit_is_left() -> None:
    clean = sound(0)
    expected = torch.full((3,), -(CONFIG.snr + CONFIG.si_sdr) * CONFIG.limit)
    torch.testing.assert_close(
        denoise_loss(clean, clean, CONFIG, RATE), expected, atol=1e-4, rtol=0
    )
    for window in CONFIG.windows:
        for part in compressed_spectral(clean, clean, window, CONFIG.compression):
            assert not part.any()


def test_it_rises_with_the_error() -> None:
    clean, error = sound(0), sound(1)
    losses = torch.stack(
        [denoise_loss(clean + size * error, clean, CONFIG, RATE) for size in (0, 0.01, 0.1, 0.5, 2)]
    )
    assert bool((losses.diff(dim=0) > 0).all())


def test_magnitudes_alone_do_not_hear_the_phase() -> None:
    clean = sound(0)
    magnitude, both = compressed_spectral(-clean, clean, 256, 0.3)
    assert bool((magnitude < 1e-6).all())
    assert bool((both > 0.1).all())


def test_spectra_are_compressed_as_they_are_said_to_be() -> None:
    guess, clean = sound(0), sound(1)
    magnitude, both = compressed_spectral(guess, clean, 256, 0.3)
    ours, theirs = (Transform(256, 128).analyse(x) for x in (guess, clean))
    small = ours.abs() ** 0.3 - theirs.abs() ** 0.3
    torch.testing.assert_close(magnitude, small.square().mean((1, 2)), rtol=1e-2, atol=0)
    complex_ = ours / ours.abs() ** 0.7 - theirs / theirs.abs() ** 0.7
    torch.testing.assert_close(both, complex_.abs().square().mean((1, 2)), rtol=1e-2, atol=0)


@pytest.mark.parametrize("guess_level", [0.0, 1e-9, 1.0])
@pytest.mark.parametrize("clean_level", [0.0, 1e-9, 1.0])
def test_gradients_are_finite_even_in_silence(guess_level: float, clean_level: float) -> None:
    guess = sound(0, level=guess_level).requires_grad_()
    loss = denoise_loss(guess, sound(1, level=clean_level), CONFIG, RATE)
    assert bool(loss.isfinite().all())
    loss.sum().backward()
    assert guess.grad is not None
    assert bool(guess.grad.isfinite().all())


def test_noise_left_in_silence_costs() -> None:
    silence = torch.zeros(2, SAMPLES)
    losses = [denoise_loss(sound(0, 2, level), silence, CONFIG, RATE) for level in (0, 1e-3, 1e-1)]
    torch.testing.assert_close(losses[0], torch.full((2,), -40 * CONFIG.snr))  # all of QUIET
    assert bool((losses[0] + 1e-3 < losses[1]).all())
    assert bool((losses[1] + 1e-3 < losses[2]).all())


@settings(max_examples=30, deadline=None)
@given(st.floats(-20, 12), st.integers(0, 1000))
def test_far_from_its_limit_si_sdr_is_the_metric(decibels: float, seed: int) -> None:
    clean, error = sound(seed, 1), sound(seed + 5000, 1)
    guess = 0.7 * clean + error * (10 ** (-decibels / 20) * clean.norm() / error.norm()) + 0.1
    found = float(limited_si_sdr(guess, clean, 40.0))
    assert found == pytest.approx(metrics.si_sdr(clean[0], guess[0]), abs=0.15)


def test_si_sdr_stops_at_its_limit() -> None:
    clean = sound(0)
    torch.testing.assert_close(limited_si_sdr(2 * clean, clean, 20.0), torch.full((3,), 20.0))
    nearly = limited_si_sdr(clean + 1e-3 * sound(1), clean, 20.0)
    assert bool((nearly > 19.9).all())
    assert bool((nearly <= 20).all())
    assert not limited_si_sdr(sound(1), torch.zeros(3, SAMPLES), 20.0).any()


def test_snr_holds_the_level_and_si_sdr_does_not() -> None:
    clean = sound(0)
    half = limited_snr(clean / 2, clean, 60.0)
    torch.testing.assert_close(half, torch.full((3,), 6.02), atol=0.01, rtol=0)
    assert bool((limited_si_sdr(clean / 2, clean, 60.0) > 59).all())
    noisy = clean + 0.1 * sound(1)
    error = 10 * (clean.square().sum(1) / (0.1 * sound(1)).square().sum(1)).log10()
    torch.testing.assert_close(limited_snr(noisy, clean, 60.0), error, atol=0.01, rtol=0)


def test_of_silence_the_ratio_says_how_quiet_a_guess_is() -> None:
    silence = torch.zeros(3, SAMPLES)
    guess = 0.05 * sound(1) / sound(1).square().mean(1, keepdim=True).sqrt()
    for decibels in (0, 10, 20):
        found = limited_snr(guess * 10 ** (-decibels / 20), silence, 20.0)
        torch.testing.assert_close(found, torch.full((3,), float(decibels)), atol=0.05, rtol=0)
    torch.testing.assert_close(limited_snr(silence, silence, 20.0), torch.full((3,), 40.0))


def test_weights_count() -> None:
    guess, clean = sound(0), sound(1)
    off = {"magnitude": 0.0, "complex": 0.0, "si_sdr": 0.0, "snr": 0.0}
    parts = [denoise_loss(guess, clean, LossConfig(**off | {key: 1.0}), RATE) for key in off]
    mixture = LossConfig(magnitude=0.5, complex=2, si_sdr=0.1, snr=0.3)
    mixed = denoise_loss(guess, clean, mixture, RATE)
    torch.testing.assert_close(
        mixed, 0.5 * parts[0] + 2 * parts[1] + 0.1 * parts[2] + 0.3 * parts[3]
    )
    assert not denoise_loss(guess, clean, LossConfig(**off), RATE).any()
    assert math.isclose(float(parts[2][0]), -metrics.si_sdr(clean[0], guess[0]), abs_tol=0.15)
