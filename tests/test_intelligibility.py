"""Intelligibility: what the published measure says, and a gradient that raises it."""

import pytest
import torch

from tests.voices import RATE, voices
from wavediff.intelligibility import envelope_correlation
from wavediff.losses import LossConfig, denoise_loss
from wavediff.metrics import estoi


@pytest.mark.parametrize("rate", [16_000, 22_050])
@pytest.mark.parametrize("level", [0.0, 0.002, 0.01, 0.05])
def test_it_is_what_the_published_measure_says(level: float, rate: int) -> None:
    pytest.importorskip("pystoi")
    clean = voices(3, 0)
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    noisy = clean + level * noise
    found, exists = envelope_correlation(noisy, clean, rate)
    assert bool(exists.all())
    for ours, true, given in zip(found, clean, noisy, strict=True):
        assert abs(float(ours) - estoi(true, given, rate)) < 0.03


def test_fewer_segments_say_nearly_the_same() -> None:
    clean = voices(4, 0)
    noisy = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    all_of_them, _ = envelope_correlation(noisy, clean, RATE)
    few, _ = envelope_correlation(noisy, clean, RATE, 6)
    torch.testing.assert_close(few, all_of_them, rtol=0, atol=0.02)


def test_no_level_and_no_equaliser_changes_it_much() -> None:
    clean = voices(2, 0)
    found, _ = envelope_correlation(3 * clean, clean, RATE)
    assert bool((found > 0.99).all())


def test_pauses_do_not_count() -> None:
    clean = voices(2, 0)
    noisy = clean + 0.01 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    rest = torch.zeros(2, RATE)
    noise = 0.05 * torch.randn(rest.shape, generator=torch.Generator().manual_seed(2))
    alone, _ = envelope_correlation(noisy, clean, RATE)
    with_rest, _ = envelope_correlation(
        torch.cat((noisy, noise), 1), torch.cat((clean, rest), 1), RATE
    )
    torch.testing.assert_close(with_rest, alone, rtol=0, atol=0.02)


@pytest.mark.parametrize("samples", [1, 1000, 6000, 32_000])
def test_where_nothing_is_said_there_is_none(samples: int) -> None:
    found, exists = envelope_correlation(torch.randn(2, samples), torch.zeros(2, samples), RATE)
    assert not exists.any()
    assert bool(found.isfinite().all())
    silent = torch.zeros(2, samples, requires_grad=True)
    config = LossConfig(intelligibility=1.0)
    denoise_loss(silent, torch.zeros(2, samples), config, RATE).sum().backward()
    assert silent.grad is not None
    assert bool(silent.grad.isfinite().all())


def test_its_gradient_raises_it() -> None:
    clean = voices(2, 0)
    noisy = clean + 0.03 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
    guess = noisy.clone().requires_grad_()
    optimizer = torch.optim.Adam([guess], 1e-3)
    seen = []
    for _ in range(8):
        found, _ = envelope_correlation(guess, clean, RATE, 6)
        optimizer.zero_grad()
        (-found.sum()).backward()
        optimizer.step()
        seen.append(float(found.detach().mean()))
    assert seen[-1] > seen[0] + 0.1
    weighed = denoise_loss(noisy, clean, LossConfig(intelligibility=0.5), RATE)
    plain = denoise_loss(noisy, clean, LossConfig(), RATE)
    found, _ = envelope_correlation(noisy, clean, RATE, 6)
    torch.testing.assert_close(weighed - plain, 0.5 * (1 - found))
