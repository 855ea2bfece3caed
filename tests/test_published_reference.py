"""The published network against numbers that the published program computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wavediff.published import PublishedConfig, PublishedNet, Schedule, training_loss
from wavediff.published_import import read_published
from wavediff.published_sound import sample

REFERENCE = Path(__file__).resolve().parents[1].parent / "shared" / "reference"
recorded = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason=f"needs the recorded vectors of {REFERENCE.name}"
)


class Recorded:
    """A published checkpoint and what its program made of it."""

    def __init__(self, name: str) -> None:
        self.config, self.weights, self.facts = read_published(REFERENCE / f"{name}.pt")
        self.arrays = dict(np.load(REFERENCE / f"{name}.npz"))
        self.conditional = "mel" in self.arrays

    def __getitem__(self, name: str) -> Tensor:
        return torch.from_numpy(np.asarray(self.arrays[name]))

    @property
    def network(self) -> PublishedNet:
        net = PublishedNet(self.config)
        net.load_state_dict(self.weights)
        return net

    @property
    def mel(self) -> Tensor | None:
        return self["mel"][None] if self.conditional else None


@pytest.fixture(scope="module", params=["lmnt-diffwave-random", "lmnt-uncond-random"])
def published(request: pytest.FixtureRequest) -> Recorded:
    return Recorded(request.param)


def close(actual: Tensor, expected: Tensor, atol: float) -> None:
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=atol)


@recorded
def test_recorded_sizes_and_names(published: Recorded) -> None:
    assert published.config == PublishedConfig(
        channels=32 if published.conditional else 16,
        layers=10 if published.conditional else 4,
        bands=80 if published.conditional else 0,
    )
    assert list(published.weights) == published.arrays["train_grad_names"].tolist()
    assert published.facts["step"] == 12345
    assert published.facts["sample_rate"] == 22050


@recorded
@torch.no_grad()
def test_recorded_answers(published: Recorded) -> None:
    net = published.network
    close(net.diffusion_embedding.table, published["embedding"], 1e-6)
    for kind in ("int", "float"):
        step = published[f"t_{kind}"][None]
        close(net.diffusion_embedding(step)[0], published[f"step_code_{kind}"], 1e-6)
        eps = net(published["x"][None], published.mel, step)
        close(eps[0], published[f"eps_{kind}"], 2e-5)
    if published.conditional:
        up = net.upsampled(published.mel, published["x"].shape[0])
        assert up is not None
        close(up[0, :, :512], published["mel_up_head"], 1e-6)
        with torch.autocast("cpu", torch.bfloat16):
            eps = net(published["x"][None], published.mel, published["t_int"][None])
        assert (eps[0].float() - published["eps_int"]).square().mean().sqrt() < 0.02


@recorded
def test_recorded_schedules(published: Recorded) -> None:
    full, fast = (Schedule.of(published.config, fast) for fast in (False, True))
    np.testing.assert_allclose(full.beta, published["beta"], rtol=1e-14)
    np.testing.assert_allclose(full.alpha_cum, published["alpha_cum"], rtol=1e-14)
    np.testing.assert_allclose(fast.beta, published["fast_beta"], rtol=1e-14)
    np.testing.assert_allclose(fast.alpha_cum, published["fast_alpha_cum"], rtol=1e-14)
    fast_t, full_t = (torch.tensor(schedule.steps) for schedule in (fast, full))
    close(fast_t, published["fast_T"], 1e-6)
    assert torch.equal(full_t, published["full_T"])


@recorded
@pytest.mark.parametrize("kind", ["fast", "full"])
def test_recorded_sounds(published: Recorded, kind: str) -> None:
    draws = published[f"{kind}_noise"]
    audio = sample(published.network, published.mel, lambda n: draws[n][None], kind == "fast")
    close(audio[0], published[f"{kind}_audio"], 2e-5)
    close(audio[0], published[f"{kind}_audio64"], 2e-5)


@recorded
def test_recorded_training_step(published: Recorded) -> None:
    net = published.network
    mel = published["train_mel"] if published.conditional else None
    audio, t, fresh = (published[f"train_{name}"] for name in ("audio", "t", "noise"))
    optimizer = torch.optim.Adam(net.parameters(), lr=2e-4)
    loss = training_loss(net, audio, mel, t, fresh).mean()
    loss.backward()
    close(loss.detach(), published["train_loss"], 1e-6)
    parameters = dict(net.named_parameters())
    norms = torch.stack([p.grad.norm() for p in parameters.values() if p.grad is not None])
    assert list(parameters) == published.arrays["train_grad_names"].tolist()
    torch.testing.assert_close(norms, published["train_grad_norms"], rtol=1e-4, atol=0)
    torch.testing.assert_close(norms.norm(), published["train_grad_norm"], rtol=1e-5, atol=0)
    optimizer.step()
    after = [name for name in published.arrays if name.startswith("train_after/")]
    assert len(after) == 3
    for name in after:
        close(parameters[name.removeprefix("train_after/")].detach(), published[name], 1e-5)


@recorded
@torch.no_grad()
def test_recorded_full_size() -> None:
    arrays = dict(np.load(REFERENCE / "lmnt-diffwave-fullsize.npz"))
    net, weights = PublishedNet(PublishedConfig()), {}
    draw = np.random.RandomState(20260703)
    for name, shape, std, total in zip(
        *(arrays[key].tolist() for key in ("names", "shapes", "std", "abs_sum")), strict=True
    ):
        sizes = [int(size) for size in shape.split(",")]
        values = (draw.standard_normal(int(np.prod(sizes))) * std).astype(np.float32)
        assert np.abs(values.astype(np.float64)).sum() == pytest.approx(total, rel=1e-9)
        weights[name] = torch.from_numpy(values.reshape(sizes))
    net.load_state_dict(weights)
    assert sum(p.numel() for p in net.parameters()) == 2_619_971
    x, mel = torch.from_numpy(arrays["x"])[None], torch.from_numpy(arrays["mel"])[None]
    for kind in ("int", "float"):
        step = torch.from_numpy(np.asarray(arrays[f"t_{kind}"]))[None]
        close(net(x, mel, step)[0], torch.from_numpy(arrays[f"eps_{kind}"]), 5e-5)
        if kind == "int":
            close(net(x, mel, step)[0], torch.from_numpy(arrays["eps_int_f64"]), 5e-5)
