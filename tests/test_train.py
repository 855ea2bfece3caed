"""Whole trainings: they learn, and whatever ends them, they go on as if nothing had been."""

import contextlib
import itertools
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import make, put, recipe, voice

from wavediff import checkpoint as checkpoints
from wavediff import recipe as recipes
from wavediff import training as trainings
from wavediff.errors import CheckpointError, RecipeError, TrainingError
from wavediff.recipe import Recipe
from wavediff.trainer import Trainer
from wavediff.training import CHECKPOINT, RECIPE, Event, Watch

pytestmark = pytest.mark.usefixtures("one_thread")

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"))


def train(made: Recipe, folder: Path, **options: Any) -> Iterator[Event]:
    return trainings.train(made, folder, device="cpu", **options)


def saved(folder: Path) -> checkpoints.Checkpoint:
    return checkpoints.load(folder / CHECKPOINT)


def lines(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def same(one: Path, other: Path) -> bool:
    """Whether two trainings came to the same weights, averages and moments, bit for bit."""
    a, b = saved(one), saved(other)
    assert {key.partition(".")[0] for key in a.tensors} == {"network", "average", "first", "second"}
    return a.tensors.keys() == b.tensors.keys() and all(
        torch.equal(tensor, b.tensors[key]) for key, tensor in a.tensors.items()
    )


@pytest.fixture(scope="module")
def whole(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Event]]:
    """A training of 12 steps that nothing disturbed."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    return folder, list(train(recipe(corpus), folder, log=True))


def test_it_learns_to_denoise(corpus: Path, tmp_path: Path) -> None:
    for n in range(3):
        put(tmp_path / "clean" / f"{n}.wav", voice(20 + n, 1.0))
        noise = torch.randn(8000, generator=torch.Generator().manual_seed(n)).numpy()
        put(tmp_path / "noisy" / f"{n}.wav", voice(20 + n, 1.0) + 0.08 * noise)
    pairs = {f"data__validation_{side}": tmp_path / side for side in ("noisy", "clean")}
    made = recipe(
        corpus, steps=100, learning_rate=1e-2, ema=0.9, validate_every=50, mixture__room=0, **pairs
    )
    events = list(train(made, tmp_path / "run"))
    (untouched,) = train(recipe(corpus, steps=1, learning_rate=1e-9, **pairs), tmp_path / "none")
    validated = [event.validation for event in (untouched, *events) if event.validation]
    scores = [validation.scores["si_sdr"] for validation in validated]
    assert len(scores) == 3
    assert scores[2] > scores[0] + 2  # dB
    losses = [event.loss for event in events]
    assert sum(losses[-20:]) < sum(losses[:20]) - 20 * 0.1


def test_it_says_what_happens(whole: tuple[Path, list[Event]], corpus: Path) -> None:
    folder, events = whole
    assert [event.step for event in events] == list(range(1, 13))
    assert [event.progress for event in events] == [n / 12 for n in range(1, 13)]
    seconds = [event.seconds for event in events]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0
    assert all(event.loss == event.detail.loss for event in events)
    assert [event.saved for event in events] == [None] * 11 + [folder / CHECKPOINT]
    assert events[-1].validation is not None
    assert math.isfinite(events[-1].validation.scores["si_sdr"])
    assert recipes.load(folder / RECIPE) == recipe(corpus) == saved(folder).recipe
    assert [line["step"] for line in lines(folder)] == list(range(1, 13))
    assert [line["loss"] for line in lines(folder)] == [event.loss for event in events]


@pytest.mark.parametrize("steps", [1, 5, 11])
def test_closed_and_resumed_is_never_closed(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path, steps: int
) -> None:
    training = train(recipe(corpus), tmp_path)
    for _ in range(steps):
        next(training)
    training.close()
    assert saved(tmp_path).state["step"] == steps
    events = list(train(recipe(corpus), tmp_path))
    assert [event.step for event in events] == list(range(steps + 1, 13))
    assert [event.loss for event in events] == [event.loss for event in whole[1][steps:]]
    assert same(tmp_path, whole[0])
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 13))


def test_stopped_and_resumed_is_never_stopped(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    answers = iter((False, False, False, False, True))
    events = list(train(recipe(corpus), tmp_path, stop=lambda: next(answers)))
    assert saved(tmp_path).state["step"] == len(events) == 4
    list(train(recipe(corpus), tmp_path))
    assert same(tmp_path, whole[0])


def test_killed_and_resumed_is_never_killed(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    made = recipe(corpus, save_every=2)
    settings, run = tmp_path / "it.toml", tmp_path / "run"
    settings.write_text(recipes.to_toml(made))
    command = [sys.executable, HERE / "train_here.py", run, settings]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= 7:
                process.send_signal(signal.SIGKILL if hasattr(signal, "SIGKILL") else 9)
                break
    reached = saved(run).state["step"]
    assert 6 <= reached < 12
    with open(run / "log.jsonl", "a") as log:
        log.write('{"step": 9, "lo')  # as a kill while writing leaves it
    events = list(train(made, run))
    assert events[0].step == reached + 1
    assert same(run, whole[0])
    assert [line["step"] for line in lines(run)] == list(range(1, 13))
    assert [line["loss"] for line in lines(run)] == [event.loss for event in whole[1]]


def environment() -> dict[str, str]:
    """For a process of its own: without the settings that torchrun would have left."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return kept | {"PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}


def test_two_processes_train_as_one(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    settings, run = tmp_path / "it.toml", tmp_path / "run"
    settings.write_text(recipes.to_toml(recipe(corpus)))
    subprocess.run(
        [sys.executable, *TORCHRUN, HERE / "train_here.py", run, settings],
        check=True,
        capture_output=True,
        env=environment(),
        timeout=240,
    )
    losses = [line["loss"] for line in lines(run)]
    assert losses == pytest.approx([event.loss for event in whole[1]], abs=1e-5)
    for key, tensor in saved(whole[0]).part("network").items():
        torch.testing.assert_close(saved(run).part("network")[key], tensor, atol=1e-4, rtol=1e-3)


def test_when_one_process_is_killed_torchrun_starts_all_again_and_they_go_on(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    settings, run = tmp_path / "it.toml", tmp_path / "run"
    settings.write_text(recipes.to_toml(recipe(corpus, save_every=4)))
    ended = subprocess.run(
        [sys.executable, *TORCHRUN, "--max-restarts=1", HERE / "train_here.py", run, settings, "6"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr
    assert "exitcode: -9" in ended.stderr
    assert [line["step"] for line in lines(run)] == list(range(1, 13))
    for key, tensor in saved(whole[0]).part("network").items():
        torch.testing.assert_close(saved(run).part("network")[key], tensor, atol=1e-4, rtol=1e-3)


def test_the_end_of_another_process_is_told_in_words(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise RuntimeError("[gloo/transport/tcp/pair.cc:538] Connection reset by peer")

    monkeypatch.setattr(trainings.Trainer, "advance", gone)
    with pytest.raises(TrainingError, match="another process of this training has ended"):
        next(train(recipe(corpus), tmp_path))


def test_a_batch_that_cannot_be_shared_is_refused(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainings, "_processes", lambda device: contextlib.nullcontext((0, 3)))
    with pytest.raises(RecipeError, match="3 processes"):
        next(train(recipe(corpus), tmp_path))


def test_what_is_done_is_not_done_again(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    training = train(recipe(corpus, save_every=4), tmp_path)
    list(training)
    files = [tmp_path / CHECKPOINT, checkpoints.previous(tmp_path / CHECKPOINT)]
    assert [checkpoints.load(path).state["step"] for path in files] == [12, 8]
    before = [path.read_bytes() for path in files]
    assert list(train(recipe(corpus), tmp_path)) == []
    assert [path.read_bytes() for path in files] == before
    more = list(train(recipe(corpus, steps=14), tmp_path))  # and then a little further
    assert [event.step for event in more] == [13, 14]


def test_validating_and_workers_change_nothing(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    made = recipe(corpus, validate_every=3, save_every=5, data__workers=1)
    events = list(train(made, tmp_path, log=False))
    assert [event.step for event in events if event.validation] == [3, 6, 9, 12]
    assert same(tmp_path, whole[0])
    assert not (tmp_path / "log.jsonl").exists()


def test_time_ends_a_training_over_all_its_sessions(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 10_000, 6))  # every look at it is 6 seconds later
    monkeypatch.setattr(trainings.time, "monotonic", lambda: float(next(clock)))
    made = recipe(corpus, steps=1000, max_minutes=1.0)
    training = train(made, tmp_path)
    first = [next(training) for _ in range(4)]
    training.close()
    assert [event.seconds for event in first] == [6, 12, 18, 24]
    events = list(train(made, tmp_path))
    assert [event.seconds for event in events] == [30, 36, 42, 48, 54, 60]
    assert events[-1].progress == 1
    assert events[-1].saved
    rates = [event.detail.learning_rate for event in first + events]
    assert rates == pytest.approx([1e-3 * min((n + 1) / 4, 1 - n / 10) for n in range(10)])
    assert list(train(made, tmp_path)) == []


def test_beginning_from_a_model(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    training = train(recipe(corpus, seed=9, learning_rate=1e-12), tmp_path, init=whole[0])
    next(training)
    training.close()
    average = saved(whole[0]).part("average")
    for key, tensor in saved(tmp_path).part("network").items():
        torch.testing.assert_close(tensor, average[key], atol=1e-9, rtol=0)
    # Once it has begun, it is its own checkpoint that it goes on from.
    assert next(train(recipe(corpus, seed=9), tmp_path, init=whole[0])).step == 2
    with pytest.raises(CheckpointError, match="do not fit"):
        next(train(recipe(corpus, network__channels=9), tmp_path / "new", init=whole[0]))
    with pytest.raises(CheckpointError, match="no model"):
        next(train(recipe(corpus), tmp_path / "new", init="nobody"))


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("network", {"network__channels": 9}),
        ("path", {"path__scale": 0.5}),
        ("path", {"path__growth": 2.0}),
    ],
)
def test_another_network_or_path_is_refused(
    whole: tuple[Path, list[Event]], corpus: Path, part: str, settings: dict[str, Any]
) -> None:
    before = (whole[0] / CHECKPOINT).read_bytes()
    with pytest.raises(RecipeError, match=f"another {part}") as caught:
        next(train(recipe(corpus, **settings), whole[0]))
    assert caught.value.hint
    assert (whole[0] / CHECKPOINT).read_bytes() == before


def test_all_else_may_change_on_the_way(corpus: Path, tmp_path: Path) -> None:
    training = train(recipe(corpus), tmp_path)
    next(training)
    training.close()
    changed = recipe(
        corpus,
        batch=2,
        learning_rate=1e-4,
        crop=0.25,
        steps=3,
        path__rollout=1.0,
        path__at_start=0.1,
        precision="bf16",
        data__noise=[],
        seed=4,
        ema=0.5,
    )
    events = list(train(changed, tmp_path))
    assert [event.step for event in events] == [2, 3]
    assert saved(tmp_path).recipe == recipes.load(tmp_path / RECIPE) == changed


def test_a_damaged_checkpoint_gives_way_to_the_previous(
    whole: tuple[Path, list[Event]], corpus: Path, tmp_path: Path
) -> None:
    list(train(recipe(corpus, save_every=8), tmp_path))
    raw = (tmp_path / CHECKPOINT).read_bytes()
    (tmp_path / CHECKPOINT).write_bytes(raw[: len(raw) // 2])
    events = list(train(recipe(corpus, save_every=8), tmp_path))
    assert [event.step for event in events] == [9, 10, 11, 12]
    assert same(tmp_path, whole[0])
    (tmp_path / CHECKPOINT).unlink()  # killed between the two renames
    assert next(train(recipe(corpus), tmp_path)).step == 9
    (tmp_path / CHECKPOINT).write_bytes(raw[:100])
    checkpoints.previous(tmp_path / CHECKPOINT).unlink()
    with pytest.raises(CheckpointError, match="damaged") as caught:
        next(train(recipe(corpus), tmp_path))
    assert "previous" not in caught.value.message


def poison(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    advance = Trainer.advance

    def poisoned(self: Trainer, batch: tuple[torch.Tensor, ...], *rest: Any) -> Any:
        noisy, clean = batch
        return advance(self, (noisy * (math.nan if self.step == at else 1), clean), *rest)

    monkeypatch.setattr(Trainer, "advance", poisoned)


def test_nan_stops_and_the_last_good_checkpoint_stays(
    whole: tuple[Path, list[Event]],
    corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        poison(patch, at=7)
        with pytest.raises(TrainingError, match="step 7") as caught:
            list(train(recipe(corpus, save_every=5), tmp_path))
    assert caught.value.hint
    assert saved(tmp_path).state["step"] == 5
    list(train(recipe(corpus, save_every=5), tmp_path))
    assert same(tmp_path, whole[0])


def test_weights_that_are_not_finite_are_never_saved(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(torch.optim.AdamW):
        def step(self, *args: Any, **kwargs: Any) -> None:
            super().step(*args, **kwargs)
            if next(count) == 4:
                self.param_groups[0]["params"][0].data[0] = math.inf

    count = itertools.count(1)
    monkeypatch.setattr(torch.optim, "AdamW", Broken)
    with pytest.raises(TrainingError, match="weights are not finite at step 4"):
        list(train(recipe(corpus, save_every=1), tmp_path))
    assert saved(tmp_path).state["step"] == 3


def test_a_learning_rate_that_is_far_too_high_ends_in_words(corpus: Path, tmp_path: Path) -> None:
    made = recipe(corpus, steps=100, learning_rate=100.0, warmup=20, clip=1e9, save_every=2)
    with pytest.raises(TrainingError, match=r"diverges|loss|gradient") as caught:
        list(train(made, tmp_path))
    assert "learning_rate" in caught.value.hint
    assert all(bool(t.isfinite().all()) for t in saved(tmp_path).tensors.values())


def test_the_watch_tells_divergence_from_noise() -> None:
    watch = Watch()
    for step in range(300):  # noisy, and falling through zero to negative losses
        watch.see(0.5 - step / 300 + (0.9 if step % 7 == 0 else 0), step)
    for step in range(300, 310):
        watch.see(8.0, step)
    with pytest.raises(TrainingError, match="diverges: the loss at step 310"):
        watch.see(200.0, 310)
