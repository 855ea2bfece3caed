"""Validation: what is measured, task by task, and on which sounds."""

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import NETWORK, RATE, hiss, make, put, voice

from wavediff import batches
from wavediff import recipe as recipes
from wavediff.errors import DataError, RecipeError
from wavediff.metrics import mr_stft
from wavediff.model import Model
from wavediff.recipe import Recipe
from wavediff.tasks import build
from wavediff.training import train
from wavediff.validation import LONGEST, MOST, OWN, examples, validate

CPU = torch.device("cpu")
VOCODER = {**NETWORK, "window": 512, "hop": 128}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"), files=2, seconds=1.5)


@pytest.fixture(scope="module")
def held_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three voices, and the same in noise."""
    folder = tmp_path_factory.mktemp("held")
    for n in range(3):
        put(folder / "clean" / f"{n}.wav", voice(50 + n, 0.8 + n / 10))
        put(folder / "noisy" / f"{n}.wav", voice(50 + n, 0.8 + n / 10) + hiss(n, 0.8 + n / 10))
    return folder


def recipe(task: str, corpus: Path, renderer: str = "", **data: Any) -> Recipe:
    sections: dict[str, dict[str, Any]] = {
        "denoise": {"network": NETWORK},
        "vocode": {"network": VOCODER, "vocode": {"iterations": 4, "steps": 1}},
        "generate": {
            "prior": {"channels": 8, "layers": 2},
            "generate": {"frames": 12, "renderer": renderer},
        },
    }
    settings: dict[str, Any] = {
        "task": task,
        "rate": RATE,
        "mel": "" if task == "denoise" else "narrow8k",
        "data": {"sounds": [corpus / "speech"], **data},
        "training": {"crop": 0.5, "batch": 2, "steps": 1, "precision": "fp32"},
    }
    return recipes.parse(settings | sections[task], "the test")


def untrained(made: Recipe) -> Model:
    torch.manual_seed(0)
    return Model("tiny", made, {}, build(made).eval().requires_grad_(False), CPU)


def test_a_vocoder_is_measured_by_spectra_and_ears(corpus: Path, held_out: Path) -> None:
    made = recipe("vocode", corpus, validation_clean=held_out / "clean")
    given = examples(made, batches.prepare(made))
    assert [len(sounds) for sounds in given] == [1, 1, 1]
    model = untrained(made)
    found = validate(model, given)
    with_pesq = importlib.util.find_spec("pesq") is not None
    assert list(found.scores) == ["mr_stft", "pesq"] if with_pesq else ["mr_stft"]
    own = []
    for (clean,) in given:
        sound = model.resynthesise(clean, RATE)
        own.append(mr_stft(clean, sound, RATE))
    assert found.scores["mr_stft"] == pytest.approx(sum(own) / 3, rel=1e-3)
    assert 0.1 < found.scores["mr_stft"] < 5
    if with_pesq:
        assert 1 < found.scores["pesq"] < 4.7
    assert "MR-STFT" in found.table()
    assert torch.equal(found.examples["clean"], given[0][0])
    others = [sound for key, sound in found.examples.items() if key not in ("clean", "noisy")]
    assert [sound.shape for sound in others] == [given[0][0].shape]
    assert (others[0] - given[0][0]).abs().max() > 1e-3


def test_a_prior_is_listened_to(corpus: Path) -> None:
    made = recipe("generate", corpus)
    found = validate(untrained(made), examples(made, batches.prepare(made)))
    assert found.scores == {}
    assert found.table() == ""
    (sound,) = found.examples.values()
    assert (found.rate, sound.shape[0] // 128) == (RATE, 12)
    assert sound.isfinite().all()
    assert sound.abs().max() > 1e-3


def test_a_prior_is_trained_before_its_renderer_is_there(corpus: Path, tmp_path: Path) -> None:
    made = recipe("generate", corpus, renderer="not-yet-trained")
    (event,) = train(made, tmp_path, device="cpu", log=False)
    assert event.saved


def test_a_denoiser_is_measured_on_pairs(corpus: Path, held_out: Path) -> None:
    sides: dict[str, Any] = {f"validation_{side}": held_out / side for side in ("noisy", "clean")}
    made = recipe("denoise", corpus, **sides)
    given = examples(made, batches.prepare(made))
    found = validate(untrained(made), given)
    assert math.isfinite(found.scores["si_sdr"])
    assert set(found.examples) == {"noisy", "clean", "denoised"}
    assert torch.equal(found.examples["noisy"], given[0][0])
    assert torch.equal(found.examples["clean"], given[0][1])


def test_clean_sounds_are_enough_for_a_vocoder_alone(corpus: Path, held_out: Path) -> None:
    clean = held_out / "clean"
    assert recipe("vocode", corpus, validation_clean=clean).data.validation_clean == clean
    for side in ("clean", "noisy"):
        half: dict[str, Any] = {f"validation_{side}": clean}
        with pytest.raises(RecipeError, match="two sides"):
            recipe("denoise", corpus, **half)


@pytest.mark.parametrize("task", ["denoise", "vocode", "generate"])
def test_without_examples_some_are_drawn_that_training_does_not_see(
    task: str, corpus: Path
) -> None:
    made = recipe(task, corpus)
    prepared = batches.prepare(made)
    given = examples(made, prepared)
    assert len(given) == OWN
    training = prepared.source.batch(0, range(OWN))
    for n, item in enumerate(given):
        assert len(item) == len(training)
        assert item[0].shape == training[0].shape[1:]
        assert not torch.equal(item[0], training[0][n])
    again = examples(made, prepared)
    for one, other in zip(given, again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_long_and_many_examples_are_cut(tmp_path: Path, corpus: Path) -> None:
    put(tmp_path / "0.wav", hiss(0, LONGEST + 2.0))
    for n in range(MOST + 2):
        put(tmp_path / f"1-{n}.wav", hiss(n, 0.01))
    made = recipe("vocode", corpus, validation_clean=tmp_path)
    given = examples(made, batches.prepare(made))
    assert len(given) == MOST
    assert max(sounds[0].shape[0] for sounds in given) == LONGEST * RATE
    assert min(sounds[0].shape[0] for sounds in given) == RATE // 100


def test_examples_that_are_not_there_are_missed(corpus: Path, tmp_path: Path) -> None:
    made = recipe("vocode", corpus, validation_clean=tmp_path / "none")
    with pytest.raises(DataError, match="not there"):
        examples(made, batches.prepare(made))


def test_silent_examples_do_not_count(corpus: Path) -> None:
    made = recipe("vocode", corpus)
    model, sound = untrained(made), torch.as_tensor(voice(1, 0.5))
    alone = validate(model, [(sound,)]).scores["mr_stft"]
    both = validate(model, [(sound,), (torch.zeros(4000),)]).scores["mr_stft"]
    assert both == alone
    none = validate(model, [(torch.zeros(4000),)])
    assert math.isnan(none.scores["mr_stft"])
    assert "MR-STFT" not in none.table()
