"""Samplers: published vectors, orders and end states on Gaussians, whose denoiser is a formula."""

import math
from pathlib import Path as File

import numpy as np
import pytest
import torch
from torch import Tensor

from wavediff.path import Bridge, Diffusion, Path
from wavediff.samplers import DIFFUSION_ONLY, SAMPLERS, Walk, zero_draw

VECTORS = File(__file__).resolve().parents[1].parent / "shared" / "reference" / "edm-vectors.npz"
PUBLISHED = {"euler": "ddim", "heun": "heun", "dpmpp_2m": "dpmpp_2m"}

MEAN = torch.tensor([[0.4, -1.0, 0.0]], dtype=torch.float64)
DEVIATION = torch.tensor([[0.5, 0.1, 1.5]], dtype=torch.float64)


class Gaussian:
    """The exact denoiser of N(mean, deviation²), with a count of its calls."""

    def __init__(self, mean: Tensor = MEAN, deviation: Tensor = DEVIATION) -> None:
        self.mean, self.deviation, self.calls = mean, deviation, 0

    def __call__(self, x: Tensor, sigma: float) -> Tensor:
        self.calls += 1
        ours, theirs = self.deviation**2, sigma**2
        return (theirs * self.mean + ours * x) / (ours + theirs)

    def flow(self, x: Tensor, start: float, end: float) -> Tensor:
        """Where the probability flow takes a state from the sigma `start` to `end`."""
        ratio = (self.deviation**2 + end**2) / (self.deviation**2 + start**2)
        return self.mean + (x - self.mean) * ratio.sqrt()


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@pytest.mark.skipif(not VECTORS.is_file(), reason="edm-vectors.npz is not here")
@pytest.mark.parametrize("grid", [0, 3])
@pytest.mark.parametrize("name", PUBLISHED)
def test_every_state_equals_the_published_sampler(name: str, grid: int) -> None:
    vectors = np.load(VECTORS)
    denoise = Gaussian(torch.from_numpy(vectors["toy_m"]), torch.from_numpy(vectors["toy_s"]))
    steps, low, high, rho = vectors["karras_params"][grid]
    path = Diffusion(sigma_min=low, sigma_max=high, rho=rho)
    times, start = path.times(int(steps)), torch.from_numpy(vectors["toy_start"])[None]
    for row, expected in enumerate(vectors[f"toy_{grid}_{name}"]):
        state = SAMPLERS[PUBLISHED[name]](
            path, denoise, start, start, times[: row + 1], zero_draw(start)
        )
        np.testing.assert_allclose(state[0], expected, rtol=0, atol=1e-11)


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2), ("dpmpp_2m", 2)])
def test_the_error_falls_with_the_order_of_the_sampler(name: str, order: int) -> None:
    denoise, path = Gaussian(), Diffusion(sigma_min=0.01, sigma_max=20)
    start = MEAN + 20 * torch.tensor([[1.0, -0.5, 0.3]], dtype=torch.float64)
    errors = []
    for steps in (40, 80, 160):
        times = path.times(steps)[:-1]  # the last step, to 0, is of first order in all of them
        end = SAMPLERS[name](path, denoise, start, start, times, zero_draw(start))
        exact = denoise.flow(start, times[0], times[-1])
        errors.append(float((end - exact).abs().max()))
    assert math.log2(errors[1] / errors[2]) == pytest.approx(order, abs=0.15)
    assert errors[2] < 0.02


@pytest.mark.parametrize(("name", "order"), [("ancestral", 1), ("dpmpp_2m_sde", 2)])
def test_stochastic_samplers_end_in_the_distribution(name: str, order: int) -> None:
    """All is linear, so the variance of the end is the sum of its squared answers to each draw."""
    denoise, path = Gaussian(), Diffusion(sigma_min=0.01, sigma_max=20)
    errors = []
    for steps in (100, 200, 400):
        # Row 0 of the batch has no noise, row 1 that of the start alone, row n + 2 draw n alone.
        impulses = torch.eye(steps + 2, dtype=torch.float64)[:, 1:, None].expand(-1, -1, 3)
        times = path.times(steps)[:-1]
        start = MEAN + (times[0] ** 2 + DEVIATION**2).sqrt() * impulses[:, 0]
        end = SAMPLERS[name](path, denoise, start, start, times, lambda n, i=impulses: i[:, n + 1])
        torch.testing.assert_close(end[:1], MEAN)
        deviation = (end - end[:1]).square().sum(0).sqrt()
        expected = (times[-1] ** 2 + DEVIATION**2).sqrt()
        errors.append(float((deviation / expected - 1).abs().max()))
    assert errors[-1] < 0.02
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.parametrize("name", ["ancestral", "dpmpp_2m_sde"])
def test_stochastic_samplers_draw_as_their_moments_say(name: str) -> None:
    count, path = 4000, Diffusion(sigma_min=0.02, sigma_max=20)
    x = MEAN + path.start(MEAN, lambda: normal(count, 3, seed=1))
    draws = normal(60, count, 3, seed=2)
    end = SAMPLERS[name](path, Gaussian(), x, x, path.times(60), draws.__getitem__)
    assert float(((end.mean(0) - MEAN) / DEVIATION).abs().max()) < 4 / math.sqrt(count)
    assert float((end.std(0) / DEVIATION - 1).abs().max()) < 0.1


@pytest.mark.parametrize("name", SAMPLERS)
@pytest.mark.parametrize("steps", [1, 2, 4, 9])
def test_each_call_is_counted_and_each_draw_has_its_own_number(name: str, steps: int) -> None:
    paths: list[Path] = [Diffusion()] if name in DIFFUSION_ONLY else [Diffusion(), Bridge()]
    for path in paths:
        denoise, drawn = Gaussian(), list[int]()

        def draw(number: int, drawn: list[int] = drawn) -> Tensor:
            drawn.append(number)
            return normal(1, 3, seed=number)

        SAMPLERS[name](path, denoise, MEAN, MEAN, path.times(steps), draw)
        assert denoise.calls == Walk(name, steps).calls
        assert len(set(drawn)) == len(drawn)
        stochastic = name in ("ancestral", "dpmpp_2m_sde")
        assert len(drawn) == (steps - 1 if stochastic else 0)  # no noise into the last step
        assert all(number >= 0 for number in drawn)  # -1 is the start's


@pytest.mark.parametrize("name", SAMPLERS)
def test_one_step_is_the_guess(name: str) -> None:
    path, start = Diffusion(), normal(1, 3)
    end = SAMPLERS[name](path, Gaussian(), start, start, path.times(1), lambda n: normal(1, 3))
    torch.testing.assert_close(end, Gaussian()(start, path.sigma_max))


@pytest.mark.parametrize("name", SAMPLERS)
def test_an_item_of_a_batch_is_the_item_alone(name: str) -> None:
    path, batch = Diffusion(), normal(4, 3)
    noise = [normal(4, 3, seed=n) for n in range(6)]
    together = SAMPLERS[name](path, Gaussian(), batch, batch, path.times(6), noise.__getitem__)
    for item in range(4):
        one = slice(item, item + 1)
        alone = SAMPLERS[name](
            path,
            Gaussian(),
            batch[one],
            batch[one],
            path.times(6),
            lambda n, one=one: noise[n][one],
        )
        torch.testing.assert_close(alone, together[one])
