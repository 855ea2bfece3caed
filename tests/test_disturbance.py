"""The opinion that disturbances cost: what the published measure says, and a gradient."""

import pytest
import torch
from torch import Tensor

from tests.voices import RATE, voices
from wavediff.disturbance import opinion, opinion_lost
from wavediff.losses import LossConfig, SpectralConfig, denoise_loss, spectral_loss
from wavediff.metrics import pesq_wb


def noise_like(clean: Tensor, seed: int) -> Tensor:
    return torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rate", [16_000, 22_050, 44_100])
@pytest.mark.parametrize("level", [0.0005, 0.002, 0.01, 0.05])
def test_it_is_near_what_the_published_measure_says(level: float, rate: int) -> None:
    pytest.importorskip("pesq")
    clean = voices(3, 0, rate)
    noisy = clean + level * noise_like(clean, 1)
    lost, exists = opinion_lost(noisy, clean, rate)
    assert bool(exists.all())
    for ours, true, given in zip(opinion(lost), clean, noisy, strict=True):
        assert abs(float(ours) - pesq_wb(true, given, rate)) < 0.35


def test_more_noise_costs_more() -> None:
    clean = voices(4, 0)
    noise = noise_like(clean, 1)
    lost = torch.stack(
        [opinion_lost(clean + a * noise, clean, RATE)[0] for a in (0.001, 0.01, 0.1)]
    )
    assert bool((lost.diff(dim=0) > 0.3).all())


def test_the_level_and_a_mild_equaliser_are_forgiven() -> None:
    clean = voices(3, 0)
    lost, _ = opinion_lost(3 * clean, clean, RATE)
    assert bool((lost < 0.01).all())
    duller = clean + 0.3 * clean.roll(1, -1)
    lost, _ = opinion_lost(duller, clean, RATE)
    assert bool((lost < 0.3).all())


@pytest.mark.parametrize("samples", [1, 1000, 6000, 32_000])
def test_silence_has_none_and_a_finite_gradient(samples: int) -> None:
    lost, exists = opinion_lost(torch.randn(2, samples), torch.zeros(2, samples), RATE)
    assert not exists.any()
    assert bool(lost.isfinite().all())
    guess = torch.zeros(2, samples, requires_grad=True)
    for clean in (torch.zeros(2, samples), voices(2, 0)[:, :samples]):
        denoise_loss(guess, clean, LossConfig(quality=1.0), RATE).sum().backward()
        assert guess.grad is not None
        assert bool(guess.grad.isfinite().all())


def test_what_is_perfect_has_a_finite_gradient() -> None:
    clean = voices(2, 0)
    guess = clean.clone().requires_grad_()
    lost, _ = opinion_lost(guess, clean, RATE)
    assert bool((lost < 1e-3).all())
    lost.sum().backward()
    assert guess.grad is not None
    assert bool(guess.grad.isfinite().all())


def test_its_gradient_lowers_it() -> None:
    clean = voices(2, 0)
    noisy = clean + 0.01 * noise_like(clean, 1)
    guess, seen = noisy, []
    for _ in range(8):
        guess = guess.detach().requires_grad_()
        lost, _ = opinion_lost(guess, clean, RATE)
        (gradient,) = torch.autograd.grad(lost.sum(), guess)
        guess = guess - 1e-3 * gradient.sign()
        seen.append(float(lost.detach().mean()))
    assert seen[-1] < seen[0] - 0.2


def test_both_losses_weigh_it() -> None:
    clean = voices(2, 0)
    noisy = clean + 0.01 * noise_like(clean, 1)
    lost, _ = opinion_lost(noisy, clean, RATE)
    more = denoise_loss(noisy, clean, LossConfig(quality=0.5), RATE)
    torch.testing.assert_close(more - denoise_loss(noisy, clean, LossConfig(), RATE), 0.5 * lost)
    more = spectral_loss(noisy, clean, SpectralConfig(quality=0.5), RATE)
    plain = spectral_loss(noisy, clean, SpectralConfig(), RATE)
    torch.testing.assert_close(more - plain, 0.5 * lost)
