"""Objectives: what each task draws, what its loss asks for, and that whole trainings lower it."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import NETWORK, RATE, voice
from torch import Tensor

from wavediff import recipe as recipes
from wavediff.losses import SpectralConfig, spectral_loss
from wavediff.mel import PRESETS, mel
from wavediff.objective import SILENT_SPREAD, Draw
from wavediff.prior import PriorNet
from wavediff.recipe import Recipe
from wavediff.trainer import Trainer
from wavediff.vocoding import lead

pytestmark = pytest.mark.usefixtures("one_thread")

CPU = torch.device("cpu")
PRESET = PRESETS["narrow8k"]
SAMPLES = 16 * PRESET.hop
TASKS = ("denoise", "vocode", "generate")


def recipe(task: str, folder: Path = Path("nowhere"), **training: Any) -> Recipe:
    """The smallest one, with settings of the training, or of others as `section__key`."""
    own: dict[str, dict[str, Any]] = {
        "denoise": {"network": dict(NETWORK), "loss": {"windows": (64, 256)}, "path": {}},
        "vocode": {
            "network": {**NETWORK, "window": 512, "hop": 128},
            "vocode": {"iterations": 2, "passes": 1},
            "spectral": {"windows": (120, 480)},
        },
        "generate": {
            "prior": {"channels": 16, "layers": 2, "cycle": 2},
            "generate": {"frames": 16},
        },
    }
    settings: dict[str, Any] = own[task] | {
        "data": {"sounds": [folder]},
        "training": {
            "crop": SAMPLES / RATE,
            "batch": 4,
            "steps": 6,
            "warmup": 2,
            "precision": "fp32",
        },
    }
    for key, value in training.items():
        section, _, name = key.rpartition("__")
        settings[section or "training"][name] = value
    settings |= {"task": task, "rate": RATE, "mel": "" if task == "denoise" else PRESET.name}
    return recipes.parse(settings, "the test")


def sounds(items: int = 4, samples: int = SAMPLES) -> Tensor:
    return torch.stack([torch.as_tensor(voice(n, samples / RATE)) for n in range(items)]) + 0.01


def batch(task: str, items: int = 4, labels: int = 0) -> tuple[Tensor, ...]:
    clean = sounds(items)
    if task == "denoise":
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(1))
        return clean + 0.03 * noise, clean
    if task == "vocode":
        return (clean,)
    return mel(clean, PRESET), torch.eye(max(labels, 1))[torch.arange(items) % max(labels, 1)]


def drawn(made: Trainer, items: int, seed: int = 0) -> Draw:
    task = made.recipe.task
    return made.objective.draw(batch(task, 2), items, torch.Generator().manual_seed(seed))


def answers(made: Trainer, monkeypatch: pytest.MonkeyPatch, answer: Any) -> list[tuple[Any, ...]]:
    """Put an answer in the denoiser's place; returned is what it is asked."""
    asked: list[tuple[Any, ...]] = []

    def forward(x: Tensor, observation: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        asked.append((x, observation, t, *known))
        return answer(x, observation)

    monkeypatch.setattr(made.denoiser, "forward", forward)
    return asked


@pytest.mark.parametrize("task", TASKS)
def test_draws_do_not_depend_on_how_a_batch_is_shared(task: str) -> None:
    made = Trainer(recipe(task), CPU)
    one, again, other = (drawn(made, 6, seed) for seed in (1, 1, 2))
    for name in ("t", "noise", "chance"):
        assert torch.equal(getattr(one, name), getattr(again, name))
        assert len(getattr(one, name)) == 6
        part = getattr(one.part(slice(2, 5)), name)
        assert torch.equal(part, getattr(one, name)[2:5])
    assert not torch.equal(one.noise, other.noise)
    assert not torch.equal(one.noise[0], one.noise[1])
    assert one.part(slice(2, 5)).calls == one.calls == again.calls


@pytest.mark.parametrize("task", TASKS)
def test_the_parts_of_a_batch_have_the_losses_of_the_whole(task: str) -> None:
    """Whoever computes them: the draws are for the items of all processes."""
    settings: dict[str, Any] = {"vocode__rollout": 1.0} if task == "vocode" else {}
    whole = batch(task)
    losses = [
        Trainer(recipe(task, **settings), CPU)
        .advance(tuple(tensor[first : first + 2] for tensor in whole), first)
        .loss
        for first in (0, 2)
    ]
    together = Trainer(recipe(task, **settings), CPU).advance(whole).loss
    assert sum(losses) / 2 == pytest.approx(together, rel=1e-4)
    split = Trainer(recipe(task, accumulate=2, **settings), CPU).advance(whole).loss
    assert split == pytest.approx(together, rel=1e-4)


@pytest.mark.parametrize(("task", "section"), [("denoise", "path"), ("vocode", "vocode")])
@pytest.mark.parametrize("rollout", [0.0, 0.4, 1.0])
def test_calls_are_as_many_as_asked(task: str, section: str, rollout: float) -> None:
    settings: dict[str, Any] = {f"{section}__rollout": rollout}
    made = recipe(task, **settings)
    objective = Trainer(made, CPU).objective
    generator = torch.Generator().manual_seed(0)
    given = tuple(tensor[:, :1] for tensor in batch(task, 1))
    calls = []
    for _ in range(400):
        draw = objective.draw(given, 1, generator)
        calls.append(draw.calls)
        if draw.calls > 1 or task == "vocode":
            assert float(draw.t[0]) == pytest.approx(1 / draw.calls)
    shares = {n: calls.count(n) / 400 for n in set(calls)}
    assert set(shares) <= {1, 2, 4}
    for n, share in ((1, 1 - rollout), (2, rollout / 2), (4, rollout / 2)):
        assert shares.get(n, 0.0) == pytest.approx(share, abs=0.08)


@pytest.mark.parametrize("calls", [1, 2, 4])
def test_a_vocoder_is_trained_on_the_samplers_own_states(calls: int) -> None:
    made = Trainer(recipe("vocode"), CPU)
    draw = drawn(made, 4)
    draw = Draw(torch.full((4,), 1 / calls), draw.noise, draw.chance, calls)
    seen: list[tuple[bool, Tensor, Tensor, Tensor]] = []
    made.denoiser.register_forward_pre_hook(
        lambda module, inputs: seen.append(
            (torch.is_grad_enabled(), inputs[0], inputs[1], inputs[2])
        )
    )
    losses = made.objective(batch("vocode"), draw)
    losses.sum().backward()
    assert [grad for grad, *_ in seen] == [False] * (calls - 1) + [True]
    assert [float(t[0]) for *_, t in seen] == made.objective.path.times(calls)[:-1]
    start = seen[0][1]
    assert all(torch.equal(observation, start) for _, _, observation, _ in seen)
    assert all(not x.requires_grad for _, x, _, _ in seen)
    for n in range(1, calls):
        assert (seen[n][1] - seen[n - 1][1]).abs().max() > 1e-4
    assert all(p.grad is not None for p in made.denoiser.parameters())


def test_a_perfect_denoiser_has_the_least_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (noisy, clean) = Trainer(recipe("denoise"), CPU), batch("denoise")
    draw, losses = drawn(made, 4), []
    for error in (0.0, 1e-3, 1e-2):
        wrong = clean + error * torch.randn(clean.shape)
        answers(made, monkeypatch, lambda x, y, wrong=wrong: wrong)
        losses.append(made.objective((noisy, clean), draw))
    assert (losses[0] < losses[1]).all()
    assert (losses[1] < losses[2]).all()


def test_a_perfect_vocoder_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (clean,) = Trainer(recipe("vocode", vocode__rollout=0.0), CPU), batch("vocode")
    perfect = torch.nn.functional.pad(clean, (lead(PRESET), 0))
    draw, losses = drawn(made, 4), []
    for error in (0.0, 1e-3, 1e-2):
        wrong = perfect + error * torch.randn(perfect.shape)
        asked = answers(made, monkeypatch, lambda x, y, wrong=wrong: wrong)
        losses.append(made.objective((clean,), draw))
        x, observation, _, known = asked[0]
        assert x.shape == observation.shape == perfect.shape
        frames = (known[..., 1:-1] - mel(clean, PRESET)).abs().max()
        assert frames < 1e-5
    assert losses[0].max() < 1e-5
    assert (losses[0] < losses[1]).all()
    assert (losses[1] < losses[2]).all()


def test_the_start_is_a_sound_of_the_mel(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a vocoder observes in training is what it observes in use."""
    made, (clean,) = Trainer(recipe("vocode", vocode__iterations=8), CPU), batch("vocode")
    asked = answers(made, monkeypatch, lambda x, y: y)
    made.objective((clean,), drawn(made, 4))
    start = asked[0][1][:, lead(PRESET) :]
    given, inner = mel(clean, PRESET), slice(3, -3)
    near = (mel(start, PRESET) - given)[..., inner].abs().mean()
    others = [
        (mel(start.roll(s, -1), PRESET) - given)[..., inner].abs().mean()
        for s in (-PRESET.hop, PRESET.hop)
    ]
    assert near < 0.9 * min(others)
    silent = (PRESET.silence - given)[..., inner].abs().mean()
    assert near < 0.3 * silent


def test_a_perfect_prior_has_no_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    made, (mels, labels) = Trainer(recipe("generate"), CPU), batch("generate")
    made.measure((mels, labels))
    network = made.denoiser.network
    assert isinstance(network, PriorNet)
    clean = network.normalised(mels)
    draw = drawn(made, 4)
    asked = answers(made, monkeypatch, lambda x, y: clean)
    assert made.objective((mels, labels), draw).max() == 0
    x, _, sigma = asked[0]
    noise = (x - clean) / sigma[:, None, None]
    torch.testing.assert_close(noise, draw.noise, rtol=0, atol=1e-3)
    # An untrained network's answer of nothing has a loss of 1, whatever the noise (EDM, table 1).
    monkeypatch.undo()
    losses = torch.cat([made.objective((mels, labels), drawn(made, 4, seed)) for seed in range(60)])
    assert float(losses.detach().mean()) == pytest.approx(1, abs=0.1)


def test_sigmas_of_a_prior_are_log_normal(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Trainer(recipe("generate", generate__mean=-1.0, generate__spread=0.8), CPU)
    given, logs = batch("generate"), []
    asked = answers(made, monkeypatch, lambda x, y: x)
    for seed in range(80):
        made.objective(given, drawn(made, 4, seed))
        logs.append(asked[-1][2].log())
    log = torch.cat(logs)
    assert float(log.mean()) == pytest.approx(-1.0, abs=0.15)
    assert float(log.std()) == pytest.approx(0.8, abs=0.1)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_are_left_out_as_often_as_asked(
    share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"prior__labels": ("a", "b"), "generate__unlabelled": share}
    made = Trainer(recipe("generate", **settings), CPU)
    given = batch("generate", labels=2)
    asked = answers(made, monkeypatch, lambda x, y: x)
    for seed in range(60):
        made.objective(given, drawn(made, 4, seed))
    named = torch.stack([labels for _, labels, *_ in asked])
    kept = named.sum(-1) == 1
    assert torch.equal(named[kept], given[1].expand(60, 4, 2)[kept])
    assert named[~kept].abs().sum() == 0
    assert float(kept.float().mean()) == pytest.approx(1 - share, abs=0.1)


def test_a_prior_measures_its_data() -> None:
    made = Trainer(recipe("generate"), CPU)
    generator = torch.Generator().manual_seed(0)
    mels = torch.linspace(-9, -2, 64)[:, None] + torch.linspace(0.5, 3, 64)[:, None] * torch.randn(
        20, 64, 16, generator=generator
    )
    mels[:, 5] = PRESET.silence
    made.measure((mels, torch.zeros(20, 1)))
    network = made.denoiser.network
    assert isinstance(network, PriorNet)
    units = network.normalised(mels)
    torch.testing.assert_close(units.mean((0, 2)), torch.zeros(64), rtol=0, atol=1e-3)
    expected = torch.ones(64)
    expected[5] = 0  # nothing to hear, and no division by it
    torch.testing.assert_close(units.std((0, 2)), expected, rtol=0, atol=1e-3)
    assert float(network.spread[5]) == pytest.approx(SILENT_SPREAD)
    for name in ("centre", "spread"):
        assert torch.equal(made.average[name], getattr(network, name))


@pytest.mark.parametrize("task", ["vocode", "generate"])
def test_it_learns_one_batch(task: str) -> None:
    settings: dict[str, Any] = {"vocode__rollout": 0.0} if task == "vocode" else {}
    made = Trainer(recipe(task, steps=200, learning_rate=1e-2, **settings), CPU)
    given = batch(task)
    made.measure(given)
    facts = {
        name: p.clone()
        for name, p in made.denoiser.network.named_parameters()
        if not p.requires_grad
    }
    losses = [made.advance(given).loss for _ in range(40)]
    assert sum(losses[-8:]) / 8 < 0.95 * sum(losses[:4]) / 4
    assert len(facts) == (2 if task == "generate" else 0)
    for name, before in facts.items():  # measured once, never moved by steps or weight decay
        assert torch.equal(made.denoiser.network.get_parameter(name), before)
        assert torch.equal(made.average[name], before)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_every_task_trains_on_its_own_example(task: str, precision: str) -> None:
    made = Trainer(recipe(task, precision=precision), CPU)
    given = made.objective.example(4)
    steps = [made.advance(given) for _ in range(3)]
    assert all(math.isfinite(step.loss) and step.norm > 0 for step in steps)


def test_a_perfect_guess_has_a_gradient() -> None:
    clean = sounds(1)
    guess = clean.clone().requires_grad_()
    spectral_loss(guess, clean, SpectralConfig(), 16_000).sum().backward()
    assert guess.grad is not None
    assert guess.grad.isfinite().all()


def test_a_silent_item_does_not_end_a_vocoders_training() -> None:
    made = Trainer(recipe("vocode"), CPU)
    clean = sounds()
    clean[1] = 0
    clean[2, : SAMPLES // 2] = 0
    for _ in range(4):
        step = made.advance((clean,))
        assert math.isfinite(step.loss)
        assert math.isfinite(step.norm)


# Whole trainings
