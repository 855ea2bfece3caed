"""What a training leaves in its folder."""

import importlib.util
from pathlib import Path

import pytest
from corpus import NETWORK, make, recipe
from test_train import train

from wavediff import checkpoint as checkpoints
from wavediff import training as trainings
from wavediff.errors import DataError, TrainingError
from wavediff.training import CHECKPOINT

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"))


def test_a_folder_that_cannot_be_written_is_refused(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingError, match="cannot be written") as caught:
        next(train(recipe(corpus), tmp_path / "file"))
    assert caught.value.hint
    with pytest.raises(DataError):
        next(train(recipe(corpus, data__sounds=[tmp_path / "nowhere"]), tmp_path / "new"))
    assert not (tmp_path / "new").exists()


def test_tensorboard_has_scalars_pictures_and_sounds(corpus: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboard") is None:
        pytest.skip("tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = recipe(corpus, validate_every=4, steps=6, save_every=4)
    training = train(made, tmp_path)
    for _ in range(5):
        next(training)
    del training  # as if it were killed after step 5 …
    trainings.checkpoints.save(
        tmp_path / CHECKPOINT, checkpoints.load(checkpoints.previous(tmp_path / CHECKPOINT))
    )
    list(train(made, tmp_path))  # … and resumed from step 4
    board = EventAccumulator(str(tmp_path / "tensorboard"), {"scalars": 0, "images": 0, "audio": 0})
    board.Reload()
    tags = board.Tags()
    assert {"loss", "learning_rate", "norm", "si_sdr", "loss/quarter_4"} <= set(tags["scalars"])
    assert [event.step for event in board.Scalars("loss")] == [1, 2, 3, 4, 5, 6]
    assert [event.step for event in board.Scalars("si_sdr")] == [4, 6]
    assert set(tags["images"]) == set(tags["audio"]) == {"noisy", "clean", "denoised"}
    assert [event.step for event in board.Audio("noisy")] == [4, 6]


def test_the_recipe_of_the_tests_is_the_smallest() -> None:
    assert recipe(Path("nowhere")).network.model_dump(include=set(NETWORK)) == NETWORK
