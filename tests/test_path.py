"""Paths, on pairs of Gaussians whose posterior is a formula."""

import itertools
import math
from pathlib import Path as File

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.denoiser import Denoiser
from wavediff.network import BandNet, NetworkConfig
from wavediff.path import Bridge, Diffusion, karras_grid, log_grid
from wavediff.samplers import SAMPLERS, Draw, zero_draw

VECTORS = File(__file__).resolve().parents[1].parent / "shared" / "reference" / "edm-vectors.npz"
needs_vectors = pytest.mark.skipif(not VECTORS.is_file(), reason="edm-vectors.npz is not here")

growths = st.one_of(st.just(1.0), st.just(2.6), st.floats(1.001, 30))
BRIDGES = [Bridge(0.5, 1.0), Bridge(0.5, 2.6)]

# A clean number is N(MEAN, CLEAN²), what is observed of it has noise of N(0, NOISE²) added.
MEAN, CLEAN, NOISE = 0.3, 0.8, 0.6
OBSERVED = -0.5
POSTERIOR_VARIANCE = 1 / (1 / CLEAN**2 + 1 / NOISE**2)
POSTERIOR_MEAN = POSTERIOR_VARIANCE * (MEAN / CLEAN**2 + OBSERVED / NOISE**2)


def normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def share(bridge: Bridge, t: float) -> float:
    k = bridge.growth
    return t if k == 1 else (k ** (2 * t) - 1) / (k**2 - 1)


def posterior_guess(bridge: Bridge, x: Tensor, t: float) -> Tensor:
    """E[clean | state x at t, OBSERVED]: the state is a second observation of the clean number."""
    v = share(bridge, t)
    precision, moment = 1 / POSTERIOR_VARIANCE, POSTERIOR_MEAN / POSTERIOR_VARIANCE
    if t == 1:
        return torch.full_like(x, POSTERIOR_MEAN)
    variance = bridge.scale**2 * v * (1 - v)
    moment = moment + (1 - v) * (x - v * OBSERVED) / variance
    return moment / (precision + (1 - v) ** 2 / variance)


def walk(
    bridge: Bridge, sampler: str, x: Tensor, times: list[float], draw: Draw | None = None
) -> Tensor:
    return SAMPLERS[sampler](
        bridge,
        lambda x, t: posterior_guess(bridge, x, t),
        x,
        torch.full_like(x, OBSERVED),
        times,
        draw or zero_draw(x),
    )


@settings(max_examples=200, deadline=None)
@given(growths, st.sampled_from([torch.float32, torch.float64]), st.integers(1, 9))
def test_both_ends_of_a_bridge_are_exact(growth: float, dtype: torch.dtype, batch: int) -> None:
    bridge = Bridge(0.5, growth)
    clean, observed, noise = normal(3, batch, 16).to(dtype)
    start, end = torch.ones(batch, dtype=dtype), torch.zeros(batch, dtype=dtype)
    assert torch.equal(bridge.corrupt(clean, observed, start, noise), observed)
    assert torch.equal(bridge.corrupt(clean, observed, end, noise), clean)
    assert torch.equal(bridge.start(observed, lambda: noise), observed)


@settings(max_examples=100, deadline=None)
@given(growths, st.integers(1, 50))
def test_the_states_of_a_bridge_are_finite_and_its_share_rises(growth: float, steps: int) -> None:
    bridge = Bridge(0.5, growth)
    times = torch.tensor(bridge.times(steps)).float()
    assert times[0] == 1
    assert times[-1] == 0
    v = bridge.share(times)
    assert bool((v.diff() < 0).all())
    clean, observed, noise = normal(3, steps + 1, 16).float()
    assert bool(bridge.corrupt(clean, observed, times, noise).isfinite().all())


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize("t", [0.05, 0.5, 0.95])
def test_a_state_has_the_mean_and_spread_of_its_formula(bridge: Bridge, t: float) -> None:
    clean, observed = torch.full((50_000, 1), 2.0), torch.full((50_000, 1), -1.0)
    x = bridge.corrupt(clean, observed, torch.full((50_000,), t), normal(50_000, 1).float())
    v = share(bridge, t)
    spread = bridge.scale * math.sqrt(v * (1 - v))
    assert float(x.mean()) == pytest.approx(2 * (1 - v) - v, abs=4 * spread / math.sqrt(50_000))
    assert float(x.std()) == pytest.approx(spread, rel=0.015)


@settings(max_examples=100, deadline=None)
@given(growths, st.floats(0.02, 0.99), st.floats(0, 1))
def test_a_deterministic_step_with_the_truth_stays_on_its_own_path(
    growth: float, t: float, part: float
) -> None:
    bridge, t_next = Bridge(0.5, growth), t * part
    clean, observed, noise = normal(3, 1, 50)
    here, there = (
        bridge.corrupt(clean, observed, torch.tensor([u], dtype=torch.float64), noise)
        for u in (t, t_next)
    )
    step = bridge.advance(here, clean, observed, t, t_next, None)
    torch.testing.assert_close(step, there, rtol=0, atol=1e-9)


@settings(max_examples=100, deadline=None)
@given(growths, st.floats(0, 1))
def test_the_first_step_starts_from_the_observation_itself(growth: float, t_next: float) -> None:
    bridge = Bridge(0.5, growth)
    clean, observed = normal(2, 1, 50).float()
    v = share(bridge, t_next)
    step = bridge.advance(observed, clean, observed, 1.0, t_next, None)
    expected = (1 - v) * clean + v * observed
    torch.testing.assert_close(step, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_stochastic_steps_with_the_truth_keep_to_the_states_of_training(bridge: Bridge) -> None:
    clean, observed = torch.full((100_000,), 2.0), torch.full((100_000,), -1.0)
    x = observed.double()
    for number, (t, t_next) in enumerate([(1.0, 0.7), (0.7, 0.3), (0.3, 0.1)]):
        noise = normal(100_000, seed=number)
        x = bridge.advance(x, clean.double(), observed.double(), t, t_next, noise)
        v = share(bridge, t_next)
        spread = bridge.scale * math.sqrt(v * (1 - v))
        error = 4 * spread / math.sqrt(100_000)
        assert float(x.mean()) == pytest.approx(2 * (1 - v) - v, abs=error)
        assert float(x.std()) == pytest.approx(spread, rel=0.01)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_one_step_is_the_posterior_mean(bridge: Bridge, sampler: str) -> None:
    x = torch.full((1, 1), OBSERVED, dtype=torch.float64)
    assert float(walk(bridge, sampler, x, bridge.times(1))) == pytest.approx(POSTERIOR_MEAN)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_stochastic_steps_end_in_the_posterior(bridge: Bridge) -> None:
    """All is linear, so the variance of the end is the sum of its squared answers to each draw."""
    errors = []
    for steps in (64, 256, 1024):
        start = torch.full((steps, 1), OBSERVED, dtype=torch.float64)
        impulses = torch.eye(steps, dtype=torch.float64)  # row n of the batch has draw n alone
        end = walk(
            bridge, "ancestral", start, bridge.times(steps), lambda n, i=impulses: i[:, n : n + 1]
        )
        silent = end[-1]  # there is no draw into the last step
        assert float(silent) == pytest.approx(POSTERIOR_MEAN)
        variance = float((end - silent).square().sum())
        errors.append(abs(variance / POSTERIOR_VARIANCE - 1))
    assert errors[0] < 0.1
    assert errors[2] < 0.01
    assert errors[1] / errors[2] > 3  # nearly of first order


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
@pytest.mark.parametrize("steps", [2, 5, 40])
def test_deterministic_steps_from_the_observation_stay_at_the_posterior_mean(
    bridge: Bridge, steps: int
) -> None:
    x = torch.full((1, 1), OBSERVED, dtype=torch.float64)
    assert float(walk(bridge, "ddim", x, bridge.times(steps))) == pytest.approx(POSTERIOR_MEAN)


@pytest.mark.parametrize("bridge", BRIDGES, ids=str)
def test_deterministic_steps_from_within_carry_the_posterior_at_first_order(bridge: Bridge) -> None:
    """The flow of a Gaussian is known: a state one deviation off ends one deviation off."""
    t, errors = 0.9, []
    v = share(bridge, t)
    mean = (1 - v) * POSTERIOR_MEAN + v * OBSERVED
    spread = math.sqrt((1 - v) ** 2 * POSTERIOR_VARIANCE + bridge.scale**2 * v * (1 - v))
    start = torch.tensor([[mean - spread, mean, mean + spread]], dtype=torch.float64)
    deviation = math.sqrt(POSTERIOR_VARIANCE)
    expected = POSTERIOR_MEAN + torch.tensor([[-deviation, 0, deviation]], dtype=torch.float64)
    for steps in (100, 200, 400, 800):
        times = [t * (1 - n / steps) for n in range(steps + 1)]
        errors.append(float((walk(bridge, "ddim", start, times) - expected).abs().max()))
    assert errors[-1] < 1e-3
    for error, halved in itertools.pairwise(errors):
        assert 1.8 < error / halved < 2.1


def test_the_network_answers_for_itself_on_a_bridge() -> None:
    config = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, mixing=2, summary=4)
    net = BandNet(config)
    denoiser = Denoiser(net, Bridge(0.5, 2.6))
    x, y = normal(2, 3, 500).float()
    t = torch.tensor([1.0, 0.5, 0.01])
    torch.testing.assert_close(denoiser(x, y, t), net(x, y, t))
    assert denoiser.receptive_field == net.receptive_field
    assert denoiser.hop == 32


# Diffusion


@settings(max_examples=100, deadline=None)
@given(st.floats(1e-3, 1e2), st.floats(1e-2, 10))
def test_preconditioning_gives_the_network_inputs_and_targets_of_unit_power(
    sigma: float, data: float
) -> None:
    """What Karras et al. derive it from (appendix B.6), in variances."""
    path = Diffusion(sigma_data=data)
    t = torch.tensor([sigma], dtype=torch.float64)
    skip, out, scale, code = (float(factor) for factor in path.precondition(t))
    assert scale**2 * (data**2 + sigma**2) == pytest.approx(1)
    target = ((1 - skip) ** 2 * data**2 + skip**2 * sigma**2) / out**2
    assert target == pytest.approx(1)
    assert float(path.loss_weight(t)) * out**2 == pytest.approx(1)
    assert code == pytest.approx(math.log(sigma) / 4)


def test_a_denoiser_on_a_diffusion_is_preconditioned() -> None:
    config = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, mixing=2, summary=4)
    net, path = BandNet(config), Diffusion(sigma_data=0.5)
    x, y = normal(2, 2, 500).float()
    t = torch.tensor([0.1, 3.0])
    skip, out, scale, code = (factor[:, None] for factor in path.precondition(t))
    expected = skip * x + out * net(scale * x, y, code[:, 0])
    torch.testing.assert_close(Denoiser(net, path)(x, y, t), expected)


@needs_vectors
def test_preconditioning_equals_the_published_vectors() -> None:
    vectors = np.load(VECTORS)
    sigma = torch.from_numpy(vectors["precond_sigma"])
    for column, data in enumerate(vectors["precond_sigma_data"]):
        path = Diffusion(sigma_data=float(data))
        factors = path.precondition(sigma)
        for name, factor in zip(("c_skip", "c_out", "c_in"), factors[:3], strict=True):
            np.testing.assert_allclose(factor, vectors[name][:, column], rtol=1e-12)
        np.testing.assert_allclose(factors.code, vectors["c_noise"], rtol=1e-12)
        weight = path.loss_weight(sigma)
        np.testing.assert_allclose(weight, vectors["loss_weight"][:, column], rtol=1e-12)


@needs_vectors
def test_karras_grids_equal_the_published_ones() -> None:
    vectors = np.load(VECTORS)
    for row, (steps, low, high, rho) in enumerate(vectors["karras_params"]):
        grid = Diffusion(sigma_min=low, sigma_max=high, rho=rho).times(int(steps))
        np.testing.assert_allclose(grid, vectors[f"karras_{row}"], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 60), st.floats(1e-4, 0.1), st.floats(1, 100), st.floats(1, 12))
def test_grids_fall_evenly_between_their_ends(
    steps: int, low: float, high: float, rho: float
) -> None:
    root = np.array(karras_grid(steps, low, high, rho)) ** (1 / rho)
    logs = np.log(log_grid(steps, low, high))
    for scale, ends in (
        (root, (high ** (1 / rho), low ** (1 / rho))),
        (logs, (math.log(high), math.log(low))),
    ):
        np.testing.assert_allclose(scale, np.linspace(*ends, steps), rtol=1e-9, atol=1e-12)
    assert karras_grid(1, low, high, rho) == log_grid(1, low, high) == [high]


def test_a_rho_without_end_is_the_grid_even_in_log_sigma() -> None:
    path = Diffusion(sigma_min=0.01, sigma_max=10, rho=math.inf)
    assert path.times(7) == [*log_grid(7, 0.01, 10), 0.0]
    # The Karras grid goes over to it as rho grows.
    np.testing.assert_allclose(karras_grid(7, 0.01, 10, 1e7), log_grid(7, 0.01, 10), rtol=1e-5)
