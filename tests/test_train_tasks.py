"""Trainings of vocoders and priors: resumed is never stopped, and begun from other models."""

from collections.abc import Generator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import RATE, put, voice
from test_objective import CPU, recipe, sounds
from torch import Tensor

from wavediff import batches
from wavediff import checkpoint as checkpoints
from wavediff.model import export, from_checkpoint
from wavediff.recipe import Recipe
from wavediff.training import CHECKPOINT, Event, train

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two labels with two sounds each."""
    folder = tmp_path_factory.mktemp("corpus")
    for n in range(4):
        put(folder / ("high" if n % 2 else "low") / f"{n}.wav", voice(n, 0.6))
    return folder


def trained(made: Recipe, folder: Path, **options: Any) -> Generator[Event, None, None]:
    yield from train(made, folder, device="cpu", log=False, **options)


def saved(folder: Path) -> checkpoints.Checkpoint:
    return checkpoints.load(folder / CHECKPOINT)


@pytest.mark.parametrize("task", ["vocode", "generate"])
def test_stopped_and_resumed_is_never_stopped(task: str, corpus: Path, tmp_path: Path) -> None:
    made = recipe(task, corpus, validate_every=4, save_every=2)
    whole = list(trained(made, tmp_path / "whole"))
    assert [event.step for event in whole] == list(range(1, 7))
    assert [event.step for event in whole if event.validation] == [4, 6]
    closed = trained(made, tmp_path / "parts")
    first = [next(closed) for _ in range(3)]
    closed.close()
    rest = list(trained(made, tmp_path / "parts"))
    assert [event.step for event in rest] == [4, 5, 6]
    assert [e.loss for e in first + rest] == [e.loss for e in whole]
    one, other = saved(tmp_path / "whole").tensors, saved(tmp_path / "parts").tensors
    assert one.keys() == other.keys()
    assert all(torch.equal(tensor, other[key]) for key, tensor in one.items())
    model = from_checkpoint(saved(tmp_path / "parts"), "it", CPU)
    if task == "vocode":
        sound = model.resynthesise(sounds(1)[0], RATE)
        assert isinstance(sound, Tensor)
        assert sound.abs().max() > 1e-3
    else:
        assert model.recipe.prior.labels == ("high", "low")


def test_killed_between_checkpoints_it_does_its_steps_again(corpus: Path, tmp_path: Path) -> None:
    made = recipe("generate", corpus, save_every=2)
    whole = list(trained(made, tmp_path / "whole"))
    training = trained(made, tmp_path / "parts")
    for _ in range(3):
        next(training)
    (tmp_path / "kept").write_bytes((tmp_path / "parts" / CHECKPOINT).read_bytes())
    training.close()  # which saves: a kill would not
    (tmp_path / "parts" / CHECKPOINT).write_bytes((tmp_path / "kept").read_bytes())
    rest = list(trained(made, tmp_path / "parts"))
    assert [event.step for event in rest] == [3, 4, 5, 6]
    assert [event.loss for event in rest] == [event.loss for event in whole[2:]]


def test_a_training_begins_with_what_it_measures(corpus: Path, tmp_path: Path) -> None:
    training = trained(recipe("generate", corpus), tmp_path)
    next(training)
    training.close()
    prepared = batches.prepare(batches.completed(recipe("generate", corpus)))
    mels = prepared.source.batch(0, range(64))[0]
    torch.testing.assert_close(saved(tmp_path).part("network")["centre"], mels.mean((0, 2)))


@pytest.fixture(scope="module")
def teacher(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished generator of two labels."""
    folder = tmp_path_factory.mktemp("teacher")
    list(trained(recipe("generate", corpus, steps=2), folder))
    path = folder / "it.safetensors"
    checkpoints.save(path, export(saved(folder), {}))
    return path


def begun(made: Recipe, folder: Path, init: Path) -> checkpoints.Checkpoint:
    training = trained(made, folder, init=init)
    next(training)
    training.close()
    return saved(folder)


slow = partial(recipe, "generate", learning_rate=1e-9)


def test_beginning_from_a_model_with_other_labels(teacher: Path, tmp_path: Path) -> None:
    for n, label in enumerate(("kick", "snare", "tom")):
        put(tmp_path / "own" / label / "0.wav", voice(n, 0.3))
    found = begun(slow(tmp_path / "own"), tmp_path / "run", teacher)
    assert found.recipe.prior.labels == ("kick", "snare", "tom")
    before = checkpoints.load(teacher).weights()
    network = found.part("network")
    assert network["label.weight"].shape == (16, 3)
    for key in before.keys() - {"label.weight"}:
        torch.testing.assert_close(network[key], before[key], rtol=0, atol=1e-6)


def test_beginning_without_labels_from_a_model_with_some(teacher: Path, tmp_path: Path) -> None:
    put(tmp_path / "own" / "0.wav", voice(1, 0.3))
    found = begun(slow(tmp_path / "own"), tmp_path / "run", teacher)
    assert "label.weight" not in found.part("network")
    torch.testing.assert_close(
        found.part("network")["enter.weight"], checkpoints.load(teacher).weights()["enter.weight"]
    )


def test_beginning_from_a_model_with_the_same_labels(
    corpus: Path, teacher: Path, tmp_path: Path
) -> None:
    network = begun(slow(corpus, seed=5), tmp_path, teacher).part("network")
    before = checkpoints.load(teacher).weights()
    torch.testing.assert_close(network["label.weight"], before["label.weight"], rtol=0, atol=1e-6)
