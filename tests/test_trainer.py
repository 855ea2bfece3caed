"""A training's single step: its schedule, its draws, its state, and what it refuses."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import recipe
from torch import Tensor

from wavediff import checkpoint as checkpoints
from wavediff.checkpoint import Checkpoint
from wavediff.errors import CheckpointError, TrainingError
from wavediff.model import export
from wavediff.network import BandNet
from wavediff.trainer import Trainer

CPU = torch.device("cpu")
SAMPLES = 1600


pytestmark = pytest.mark.usefixtures("one_thread")


def trainer(**settings: Any) -> Trainer:
    return Trainer(recipe(Path("nowhere"), **settings), CPU)


def batch(step: int = 0, items: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(step)
    time = torch.arange(SAMPLES) / 8000
    pitch = torch.rand(items, 1, generator=draw) * 300 + 100
    clean = 0.05 * torch.sin(2 * math.pi * pitch * time)
    return clean + 0.03 * torch.randn(items, SAMPLES, generator=draw), clean


def run(made: Trainer, steps: int) -> list[float]:
    return [made.advance(batch(made.step)).loss for _ in range(steps)]


def weights(made: Trainer) -> Tensor:
    return torch.cat([p.detach().flatten() for p in made.denoiser.parameters()]).clone()


def everything(made: Trainer) -> dict[str, Tensor]:
    return made.snapshot({}).tensors


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def test_it_learns_one_batch() -> None:
    made = trainer(steps=200, learning_rate=5e-3)
    losses = [made.advance(batch(0)).loss for _ in range(60)]
    assert sum(losses[-10:]) / 10 < sum(losses[:10]) / 10 - 0.1


def test_the_same_seed_gives_the_same_training_and_leaves_the_callers_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, other = trainer(), trainer()
    assert run(one, 3) == run(other, 3)
    assert torch.equal(torch.rand(3), expected)
    assert equal(everything(one), everything(other))
    assert run(trainer(seed=1), 3) != run(trainer(), 3)


def test_a_snapshot_goes_on_as_if_nothing_had_been(tmp_path: Path) -> None:
    whole, first = trainer(steps=9), trainer(steps=9)
    run(first, 4)
    first.seconds = 12.5
    checkpoints.save(tmp_path / "it.safetensors", first.snapshot({"note": "a fact"}))
    saved = checkpoints.load(tmp_path / "it.safetensors")
    assert saved.state["note"] == "a fact"
    second = trainer(steps=9)
    second.restore(saved)
    assert (second.step, second.seconds, second.optimizers.updates) == (4, 12.5, 4)
    third = trainer(steps=9)
    third.restore(saved)
    assert run(whole, 9)[4:] == run(second, 5) == run(third, 5)
    assert equal(everything(whole), everything(second))


def test_a_fresh_snapshot_goes_on_too() -> None:
    first, second = trainer(), trainer(seed=3)
    second.restore(first.snapshot({}))
    assert not second.optimizers.tensors()
    assert equal(everything(first), everything(second))


def test_what_cannot_go_on_is_refused() -> None:
    made = trainer()
    run(made, 2)
    whole = made.snapshot({})
    without = {key: t for key, t in whole.tensors.items() if not key.startswith("average")}
    narrow = {key: t[..., :1] for key, t in whole.tensors.items()}
    for damaged in (
        export(whole, {}),
        Checkpoint(whole.recipe, without, whole.state),
        Checkpoint(whole.recipe, narrow, whole.state),
        Checkpoint(whole.recipe, whole.tensors, {**whole.state, "step": None}),
    ):
        with pytest.raises(CheckpointError, match="can go on") as caught:
            trainer().restore(damaged)
        assert "\n" not in caught.value.message
        assert "--init" in caught.value.hint


def test_beginning_from_a_models_weights() -> None:
    teacher, pupil = trainer(seed=1), trainer(seed=2)
    run(teacher, 3)
    pupil.initialise(export(teacher.snapshot({}), {}).weights(), "the teacher")
    network = pupil.denoiser.network
    assert isinstance(network, BandNet)
    halves = {key: t.half().float() for key, t in teacher.average.items()}
    expected = network.compact(halves)  # what belongs to no bin is left out of a file
    assert equal(network.compact(dict(network.named_parameters())), expected)
    assert equal(network.compact(pupil.average), expected)
    with pytest.raises(CheckpointError, match="the teacher"):
        trainer(network__channels=9).initialise(teacher.average, "the teacher")


def test_parts_of_a_step_add_up_to_the_whole() -> None:
    for parts in (2, 4, 3, 7):
        whole, split = trainer(), trainer(accumulate=parts)
        assert run(whole, 3) == pytest.approx(run(split, 3), rel=1e-5)
        torch.testing.assert_close(weights(whole), weights(split), atol=1e-5, rtol=1e-4)


def test_a_share_of_a_batch_has_the_losses_it_has_in_the_whole() -> None:
    noisy, clean = batch(0, items=4)
    means = []
    for first in (0, 2):
        share = slice(first, first + 2)
        means.append(trainer(path__at_start=0.5).advance((noisy[share], clean[share]), first).loss)
    whole = trainer(path__at_start=0.5).advance((noisy, clean)).loss
    assert sum(means) / 2 == pytest.approx(whole, rel=1e-5)


@pytest.mark.parametrize("at_start", [0.0, 0.6, 1.0])
def test_times_are_drawn_as_asked(at_start: float) -> None:
    made, generator = trainer(path__at_start=at_start), torch.Generator().manual_seed(0)
    drawn = []
    for _ in range(30):
        draw = made.objective.draw((torch.zeros(64, 100),), 64, generator)
        drawn.append(draw.t)
        assert draw.calls == 1
        assert float(draw.noise.std()) == pytest.approx(1, abs=0.1)
    times = torch.cat(drawn)
    assert float((times == 1).float().mean()) == pytest.approx(at_start, abs=0.05)
    within = times[times < 1]
    if len(within):
        assert 0 < float(within.min()) < 0.01
        assert float(within.mean()) == pytest.approx(0.5, abs=0.05)


def test_losses_are_told_by_time() -> None:
    step = trainer(path__at_start=1.0).advance(batch())
    assert all(math.isnan(part) for part in step.by_time[:3])
    assert step.by_time[3] == pytest.approx(step.loss, rel=1e-5)
    made = trainer(path__at_start=0.0, batch=64)
    clean_end, *_, corrupted_end = made.advance(batch(items=64)).by_time
    # Untrained, the answer is near the state, which is nearer to the sound at the clean end.
    assert clean_end < corrupted_end


def test_the_rate_rises_then_falls_to_zero() -> None:
    made = trainer(steps=100, warmup=10, learning_rate=2.0, decay=0.5)
    rates = []
    for made.step in range(101):
        rates.append(made.learning_rate())
    assert rates[:10] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert rates[10:51] == pytest.approx([2.0] * 41)
    assert rates[51:] == pytest.approx([2 * (100 - n) / 50 for n in range(51, 101)])
    assert rates[-1] == 0
    flat = trainer(steps=10, warmup=0, decay=0.0, learning_rate=0.5)
    assert [flat.learning_rate() for flat.step in range(10)] == [0.5] * 10
    made.step = 0
    rate = made.advance(batch()).learning_rate
    assert rate == made.optimizers.each[0].param_groups[0]["lr"] == 0.2


def test_progress_is_by_steps_or_by_time() -> None:
    made = trainer(steps=100, max_minutes=2.0, warmup=0)
    made.step, made.seconds = 50, 30.0
    assert made.progress() == 0.5
    made.seconds = 90.0
    assert made.progress() == 0.75
    assert made.learning_rate() == pytest.approx(0.25e-3)
    made.seconds = 1000.0
    assert (made.progress(), made.learning_rate()) == (1.0, 0.0)


def test_the_average_follows_the_weights() -> None:
    made = trainer(ema=0.5)
    expected = weights(made)
    for step in range(6):
        made.advance(batch(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * weights(made)
    found = torch.cat([average.flatten() for average in made.average.values()])
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert not torch.equal(found, weights(made))


def test_gradients_are_clipped() -> None:
    gentle, free = trainer(clip=1e-3, warmup=0), trainer(clip=1e9, warmup=0)
    norms = [made.advance(batch()).norm for made in (gentle, free)]
    assert norms[0] == norms[1] > 0.01  # told before the clipping
    left = [
        math.sqrt(sum(float(p.grad.square().sum()) for p in made.denoiser.parameters()))
        for made in (gentle, free)
    ]
    assert left == pytest.approx([1e-3, norms[1]], rel=1e-3)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_trains_and_goes_on(precision: str, optimizer: str) -> None:
    settings = {
        "precision": precision,
        "steps": 100,
        "learning_rate": 3e-3,
        "network__channels": 16,  # enough for the blocks to have matrices
        "optimizer": optimizer,
    }
    assert len(trainer(**settings).optimizers.each) == (2 if optimizer == "muon" else 1)
    made = trainer(**settings)
    losses = run(made, 12)
    assert all(map(math.isfinite, losses))
    assert not torch.equal(weights(made), weights(trainer(**settings)))
    assert all(tensor.dtype == torch.float32 for tensor in made.average.values())
    half = trainer(**settings)
    run(half, 6)
    other = trainer(**settings)
    other.restore(half.snapshot({}))
    assert run(other, 6) == losses[6:]
    assert other.optimizers.updates == made.optimizers.updates


@pytest.mark.parametrize("poisoned", ["noisy", "clean"])
def test_a_batch_that_is_not_finite_stops_and_changes_nothing(poisoned: str) -> None:
    made = trainer()
    run(made, 2)
    before = everything(made)
    noisy, clean = batch(2)
    (noisy if poisoned == "noisy" else clean)[1, 100] = math.nan
    with pytest.raises(TrainingError, match="step 2") as caught:
        made.advance((noisy, clean))
    assert "learning_rate" in caught.value.hint
    assert equal(everything(made), before)
    assert run(made, 1)[0] == run(trainer(), 3)[2]


def test_a_gradient_that_is_not_finite_stops_and_changes_nothing() -> None:
    made = trainer()
    before = everything(made)
    parameter = next(made.denoiser.parameters())
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="gradient"):
        made.advance(batch())
    assert equal(everything(made), before)


def test_fp16_leaves_out_steps_that_overflow_until_it_is_hopeless() -> None:
    made = trainer(precision="fp16")
    parameter = next(made.denoiser.parameters())
    hook = parameter.register_hook(lambda gradient: gradient * math.inf)
    before = weights(made)
    run(made, 3)
    assert torch.equal(weights(made), before)
    assert (made.step, made.optimizers.updates) == (3, 0)
    hook.remove()
    run(made, 2)
    assert (made.step, made.optimizers.updates) == (5, 2)
    other = trainer(precision="fp16")
    other.restore(made.snapshot({}))
    assert run(other, 2) == run(made, 2)
    assert torch.equal(weights(other), weights(made))
    parameter.register_hook(lambda gradient: gradient * math.inf)
    with pytest.raises(TrainingError, match="overflows"):
        run(made, 60)


def test_rollouts_train_on_the_samplers_own_states() -> None:
    made, plain = trainer(path__rollout=1.0), trainer(path__rollout=0.0)
    seen = []
    made.denoiser.register_forward_pre_hook(
        lambda module, inputs: seen.append((torch.is_grad_enabled(), inputs[2].clone()))
    )
    for _ in range(6):
        seen.clear()
        step = made.advance(batch(made.step))
        assert math.isfinite(step.loss)
        grads, times = zip(*seen, strict=True)
        assert len(times) in (2, 4)
        assert grads == (False,) * (len(times) - 1) + (True,)
        assert [float(t[0]) for t in times] == made.denoiser.path.times(len(times))[:-1]
        assert sum(map(math.isnan, step.by_time)) == 3  # all items at one time
    assert run(trainer(path__rollout=1.0), 2) != run(plain, 2)
