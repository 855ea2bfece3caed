"""The judge: it learns to tell sounds apart, hears each for itself, and survives its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import RATE, hiss, put, voice
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from wavediff.checkpoint import FORMAT as CHECKPOINT_FORMAT
from wavediff.classifier import (
    Classifier,
    ClassifierConfig,
    Event,
    Network,
    load,
    log_mels,
    save,
    train_classifier,
)
from wavediff.errors import CheckpointError, DataError
from wavediff.lessons import lessons, varied

CONFIG = ClassifierConfig(rate=RATE, seconds=0.4, bands=32, channels=(8, 16), features=12)


def tone(seed: int, seconds: float = 0.3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    time = np.arange(int(seconds * RATE)) / RATE
    return (0.3 * np.sin(2 * np.pi * rng.uniform(1500, 3000) * time)).astype(np.float32)


KINDS = {"hiss": hiss, "tone": tone, "voice": voice}


def fill(folder: Path, first: int, count: int) -> Path:
    for label, make in KINDS.items():
        for n in range(first, first + count):
            put(folder / label / f"{n}.wav", make(n, 0.3 + 0.01 * (n % 5)))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Event], Path]:
    folder = tmp_path_factory.mktemp("labelled")
    fill(folder / "train", 0, 12)
    fill(folder / "held", 100, 6)
    run = train_classifier(folder / "train", CONFIG, held_out=folder / "held", steps=40)
    return list(run), folder


@pytest.fixture(scope="module")
def classifier(trained: tuple[list[Event], Path]) -> Classifier:
    found = trained[0][-1].classifier
    assert found is not None
    return found


def sounds() -> list[Tensor]:
    made = [hiss(1, 0.2), tone(2, 0.5), voice(3, 0.35), hiss(4, 1.0), tone(5, 0.05)]
    return [torch.from_numpy(sound) for sound in made]


def test_it_learns_to_tell_sounds_apart(trained: tuple[list[Event], Path]) -> None:
    events, folder = trained
    assert [event.step for event in events] == list(range(1, 41))
    assert events[-1].progress == 1
    assert events[-1].loss < 0.8 * events[0].loss  # some of it is doubt that is asked for
    assert [e.classifier is None for e in events] == [True] * 39 + [False]
    found = events[-1].classifier
    assert found is not None
    assert found.labels == ("hiss", "tone", "voice")
    assert found.facts["accuracy"] == events[-1].accuracy
    assert found.facts["accuracy"] >= 0.9
    assert found.facts["held_out"] == 18
    assert found.facts["clips"] == 36
    assert str(folder) not in json.dumps(found.facts)
    for place, label in enumerate(found.labels):
        fresh = [torch.from_numpy(KINDS[label](n, 0.3)) for n in range(200, 208)]
        answers = found.judge(fresh, RATE)[1].argmax(1)
        assert (answers == place).float().mean() >= 0.75


def test_a_training_is_decided_by_its_seed(tmp_path: Path) -> None:
    fill(tmp_path, 0, 4)

    def weights(seed: int) -> Tensor:
        torch.manual_seed(np.random.default_rng().integers(1000))  # which must not matter
        found = list(train_classifier(tmp_path, CONFIG, held_out=tmp_path, steps=3, seed=seed))
        assert found[-1].classifier is not None
        return torch.cat([p.flatten() for p in found[-1].classifier.network.parameters()])

    before = torch.get_rng_state()
    first = weights(0)
    torch.set_rng_state(before)
    assert torch.equal(first, weights(0))
    assert not torch.equal(first, weights(1))


def test_without_a_folder_a_part_of_the_clips_is_held_out(tmp_path: Path) -> None:
    fill(tmp_path, 0, 20)
    found = list(train_classifier(tmp_path, CONFIG, minutes=1e-6))[-1]
    assert found.step == 1  # the time is over
    assert found.classifier is not None
    facts = found.classifier.facts
    assert facts["clips"] + facts["held_out"] == 60
    assert 0 < facts["held_out"] < 20


def test_a_sound_is_judged_as_it_is_alone(classifier: Classifier) -> None:
    features, probabilities = classifier.judge(sounds(), RATE)
    assert torch.allclose(probabilities.sum(1), torch.ones(5).double())
    for n, sound in enumerate(sounds()):
        alone, answer = classifier.judge([sound], RATE)
        assert torch.allclose(features[n], alone[0], atol=1e-5)
        assert torch.allclose(probabilities[n], answer[0], atol=1e-5)
    assert float((features[0] - features[1]).abs().max()) > 0.1


def test_level_silence_before_and_rate_do_not_matter(classifier: Classifier) -> None:
    plain = torch.from_numpy(voice(7, 0.35))
    begin = int((plain.abs() > 0).nonzero()[0])
    late = torch.cat((torch.zeros(1000), 0.01 * plain[begin:]))
    twice = torch.from_numpy(voice(7, 0.35, 2 * RATE))
    first = classifier.judge([plain], RATE)[1]
    assert torch.allclose(classifier.judge([late], RATE)[1], first, atol=1e-4)
    assert torch.allclose(classifier.judge([twice], 2 * RATE)[1], first, atol=0.05)


def test_log_mels_show_the_sound_and_silence_as_nothing() -> None:
    low, high = (torch.sin(2 * np.pi * f * torch.arange(2400) / RATE) for f in (400.0, 3000.0))
    mels = log_mels([low, high, torch.zeros(2400), torch.zeros(0)], CONFIG)
    assert mels.shape[1] == CONFIG.bands
    assert mels.amax((1, 2))[:2] == pytest.approx([1, 1])
    assert float(mels[2:].abs().max()) == 0
    loudest = mels[:2, :, 5].argmax(1)
    edges = CONFIG.bands * torch.tensor([0.1, 0.75])
    assert loudest[0] < loudest[1]
    assert float(loudest[0]) > edges[0]
    assert float(loudest[1]) > edges[1]
    assert float(mels[0, loudest[1], 5]) < 0.4  # a pure tone is in its band alone
    after = 2400 // round(CONFIG.hop * RATE) + 4  # where no window reaches back
    assert float(mels[:2, :, after:].max()) == 0


def test_varied_sounds_are_others_of_the_same_kind() -> None:
    mels = torch.zeros(16, 32, 40)
    mels[:, 10:14, 5:25] = 0.9
    drawn = torch.Generator().manual_seed(0)
    others = varied(mels, drawn)
    assert others.shape == mels.shape
    assert 0 <= float(others.min()) <= float(others.max()) <= 1
    assert torch.equal(others, varied(mels, torch.Generator().manual_seed(0)))
    assert float((others[0] - others[1]).abs().mean()) > 0.02
    inside, outside = others[:, 11:13, 8:18].mean(), others[:, 20:, 30:].mean()
    assert inside > outside + 0.3


def test_lessons_are_of_their_items_labels_with_a_little_of_another() -> None:
    label = torch.tensor([2, 0, 2, 0, 3])
    mels = torch.zeros(5, 16, 20)
    for n in range(5):
        mels[n, 3 * n : 3 * n + 3] = 1  # each clip has bands of its own
    items = torch.arange(5).repeat(200)
    heard, answer = lessons(mels, label, 4, items, torch.Generator().manual_seed(0))
    assert torch.allclose(answer.sum(1), torch.ones(1000))
    own = answer[torch.arange(1000), label[items]]
    assert float(own.min()) >= 0.5
    assert 0.85 < float(own.mean()) < 0.97
    assert float(answer[:, 1].max()) == 0  # a label without clips

    loud = heard.mean(2)[:, 1:15:3]  # (items, clips): how much is heard of each clip
    assert bool((loud[items == 4].mean(0)[4] > 0.5).all())
    first = loud[items == 0].mean(0)
    assert first[0] > 2 * first[2] > 2.4 * max(first[1], first[3], first[4])  # 2 is of its label


def test_a_file_gives_the_same_answers(classifier: Classifier, tmp_path: Path) -> None:
    path = tmp_path / "new" / "judge.safetensors"
    save(path, classifier)
    found = load(path)
    assert found.config == classifier.config
    assert found.labels == classifier.labels
    assert found.facts == classifier.facts
    for ours, theirs in zip(
        classifier.judge(sounds(), RATE), found.judge(sounds(), RATE), strict=True
    ):
        assert torch.equal(ours, theirs)
    assert [file.name for file in path.parent.iterdir()] == ["judge.safetensors"]
    with safe_open(path, "pt") as file:
        assert file.metadata()["wavediff-classifier"] == "1"


def test_what_is_no_classifier_is_refused(classifier: Classifier, tmp_path: Path) -> None:
    good = tmp_path / "good.safetensors"
    save(good, classifier)
    with safe_open(good, "pt") as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    content = good.read_bytes()

    def stored(name: str, weights: dict[str, Tensor], **changes: str) -> Path:
        path = tmp_path / f"{name}.safetensors"
        save_file(weights, path, {**metadata, **changes})
        return path

    def written(name: str, data: bytes) -> Path:
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    foreign = tmp_path / "model.safetensors"
    save_file(tensors, foreign, {"wavediff": CHECKPOINT_FORMAT})
    fewer = {key: t for key, t in tensors.items() if key != "stem.weight"}
    cases = [
        tmp_path / "nowhere.safetensors",
        tmp_path,
        foreign,
        written("short.safetensors", content[: len(content) // 2]),
        written("text.safetensors", b"hello"),
        written("pickle.pt", b"\x80\x04K\x01."),
        stored("newer", tensors, **{"wavediff-classifier": "2"}),
        stored("config", tensors, config="{"),
        stored("unknown", tensors, config='{"rate": 8000, "colour": 1}'),
        stored("labels", tensors, labels='"abc"'),
        stored("more-labels", tensors, labels='["a", "b"]'),
        stored("facts", tensors, facts="[]"),
        stored("fewer", fewer),
    ]
    for path in cases:
        with pytest.raises(CheckpointError) as refused:
            load(path)
        assert refused.value.hint
        assert "\n" not in refused.value.message
    with pytest.raises(CheckpointError, match="written"):
        save(good / "below.safetensors", classifier)


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "train", 0, 2)
    put(tmp_path / "held" / "gong" / "1.wav", voice(0, 0.2))
    put(tmp_path / "flat" / "1.wav", voice(0, 0.2))
    with pytest.raises(DataError, match="gong"):
        next(train_classifier(tmp_path / "train", CONFIG, held_out=tmp_path / "held"))
    with pytest.raises(DataError, match="sub-folder"):
        next(train_classifier(tmp_path / "train", CONFIG, held_out=tmp_path / "flat"))
    with pytest.raises(DataError, match="no labels"):
        next(train_classifier(tmp_path / "flat", CONFIG))


def test_networks_of_other_sizes_take_what_they_are_made_for() -> None:
    config = ClassifierConfig(seconds=0.5, bands=40, channels=(4, 8, 12), features=5)
    features, logits = Network(config, 7).eval()(torch.rand(2, 40, 33))
    assert features.shape == (2, 5)
    assert logits.shape == (2, 7)
