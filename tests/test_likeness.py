"""The figures of generated sounds, against formulas and against sounds that are known."""

import json
import math
from pathlib import Path

import pytest
import torch
from corpus import RATE, hiss, put, voice
from torch import Tensor

from wavediff.classifier import Classifier, ClassifierConfig, Network
from wavediff.errors import DataError
from wavediff.likeness import (
    DECIBELS,
    SHIFTS,
    Moments,
    am_score,
    frechet,
    inception_score,
    judge,
    modified_inception_score,
    moments,
    nearest,
)

CONFIG = ClassifierConfig(rate=RATE, seconds=0.3, bands=16, channels=(4, 8), features=6)


def features(seed: int, count: int = 200, size: int = 5) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    mixing = torch.randn(size, size, generator=drawn, dtype=torch.float64)
    return torch.randn(count, size, generator=drawn, dtype=torch.float64) @ mixing + seed


def answers(seed: int, count: int = 50, labels: int = 4) -> Tensor:
    drawn = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(count, labels, generator=drawn, dtype=torch.float64)).softmax(1)


def gaussian(mean: list[float], covariance: Tensor) -> Moments:
    return Moments(torch.tensor(mean, dtype=torch.float64), covariance.double(), 0.0)


def test_frechet_of_commuting_gaussians_is_the_formula() -> None:
    turn = torch.linalg.qr(features(3, 3, 3)).Q
    first, second = torch.tensor([4.0, 1.0, 0.25]).double(), torch.tensor([1.0, 9.0, 0.0]).double()
    a = gaussian([1, 2, 3], turn @ first.diag() @ turn.T)
    b = gaussian([1, 0, 6], turn @ second.diag() @ turn.T)
    expected = 13 + float((first.sqrt() - second.sqrt()).square().sum())
    assert frechet(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_two_dimensions_is_the_formula() -> None:
    """tr √(AB) of two by two matrices is √(tr AB + 2 √|AB|), also of some that do not commute."""
    a = torch.tensor([[2.0, 0.7], [0.7, 1.0]]).double()
    b = torch.tensor([[1.0, -0.4], [-0.4, 3.0]]).double()
    cross = math.sqrt(float((a @ b).trace()) + 2 * math.sqrt(float((a @ b).det())))
    expected = 5 + float(a.trace() + b.trace()) - 2 * cross
    assert frechet(gaussian([1, 2], a), gaussian([0, 0], b)) == pytest.approx(expected, rel=1e-10)


def test_frechet_does_not_mind_order_rotation_or_direction() -> None:
    a, b = features(1), features(2)
    distance = frechet(a, b)
    assert distance > 1
    assert frechet(b, a) == pytest.approx(distance, rel=1e-9)
    assert frechet(a.flip(0), b) == pytest.approx(distance, rel=1e-9)
    turn = torch.linalg.qr(features(7, 5)).Q
    assert frechet(a @ turn, b @ turn) == pytest.approx(distance, rel=1e-9)
    assert frechet(3 * a, 3 * b) == pytest.approx(9 * distance, rel=1e-9)
    assert frechet(a, a) == pytest.approx(0, abs=1e-9)


def test_moments_are_those_of_statistics() -> None:
    found = moments(features(1).float())
    assert found.shrinkage == 0
    assert torch.allclose(found.covariance, features(1).T.cov(), atol=1e-4)
    assert torch.allclose(found.mean, features(1).mean(0), atol=1e-5)


def test_few_features_have_a_shrunk_covariance_that_is_nearer_the_truth() -> None:
    few = torch.randn(20, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found, truth = moments(few), torch.eye(30).double()
    assert 0 < found.shrinkage <= 1
    assert float(torch.linalg.eigvalsh(found.covariance).min()) > 0
    assert float(found.covariance.trace()) == pytest.approx(float(few.T.cov().trace()))
    plain = (few.T.cov() - truth).norm()
    assert (found.covariance - truth).norm() < 0.5 * plain
    assert moments(few[:1]).shrinkage == 1


def test_scores_of_certain_and_of_clueless_answers() -> None:
    certain = torch.eye(5).repeat(4, 1)
    assert inception_score(certain) == pytest.approx(5)
    assert inception_score(torch.full((20, 5), 0.2)) == pytest.approx(1)
    assert inception_score(certain[:1].repeat(9, 1)) == pytest.approx(1)
    assert modified_inception_score(torch.full((20, 5), 0.2)) == pytest.approx(1)
    assert modified_inception_score(certain[:1].repeat(9, 1)) == pytest.approx(1)
    assert am_score(certain, certain) == pytest.approx(0, abs=1e-9)
    clueless = torch.full((20, 5), 0.2)
    assert am_score(clueless, certain) == pytest.approx(math.log(5))  # all of it entropy
    one_label = torch.eye(5)[:1].repeat(9, 1) * 0.96 + 0.008
    entropy = -(0.968 * math.log(0.968) + 4 * 0.008 * math.log(0.008))
    missing = -0.2 * (math.log(5 * 0.968) + 4 * math.log(5 * 0.008))
    assert am_score(one_label, certain) == pytest.approx(entropy + missing)


def test_scores_of_two_labels_are_the_formulas() -> None:
    p = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.9, 0.1]])

    def divergence(one: Tensor, other: Tensor) -> float:
        return float((one * (one / other).log()).sum())

    mean = p.mean(0)
    each = sum(divergence(row, mean) for row in p) / 3
    assert inception_score(p) == pytest.approx(math.exp(each), rel=1e-6)
    pairs = sum(divergence(one, other) for one in p for other in p) / 9
    assert modified_inception_score(p) == pytest.approx(math.exp(pairs), rel=1e-6)
    prior = torch.tensor([[0.5, 0.5], [0.25, 0.75]])
    entropy = -float((p * p.log()).sum(1).mean())
    assert am_score(p, prior) == pytest.approx(divergence(prior.mean(0), mean) + entropy, rel=1e-6)


@pytest.mark.parametrize("score", [inception_score, modified_inception_score])
def test_scores_do_not_mind_the_order_of_sounds_or_labels(score: object) -> None:
    p = answers(0)
    assert callable(score)
    assert score(p) > 1.2
    assert score(p.flip(0)) == pytest.approx(score(p))
    assert score(p.flip(1)) == pytest.approx(score(p))


def test_certain_answers_of_zeros_and_ones_are_no_infinity() -> None:
    assert math.isfinite(modified_inception_score(torch.eye(10)))
    assert math.isfinite(am_score(torch.eye(10)[:2], torch.eye(10)))


def test_nearest_is_the_distance_in_decibels_and_finds_moved_copies() -> None:
    drawn = torch.Generator().manual_seed(0)
    training = torch.rand(6, 8, 20, generator=drawn)
    training[:, :, :SHIFTS] = training[:, :, -SHIFTS:] = 0
    copies = torch.stack((training[4], training[2].roll(SHIFTS, 1), training[3].roll(-1, 1)))
    assert nearest(copies, training) == pytest.approx([0, 0, 0], abs=0.05)
    other = nearest(torch.rand(50, 8, 20, generator=drawn), training)
    assert float(other.min()) > 10
    one = training[:1] + 0.1  # six decibels everywhere
    assert float(nearest(one, training[:1])) == pytest.approx(0.1 * DECIBELS, rel=1e-3)


def untaught(seed: int, *labels: str) -> Classifier:
    """One that has learned nothing, which is all that the figures need."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = Network(CONFIG, len(labels))
    return Classifier(CONFIG, labels, network.eval().requires_grad_(False))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return untaught(0, "hiss", "voice")


def corpus(folder: Path, first: int, count: int = 5) -> Path:
    for n in range(first, first + count):
        put(folder / "voice" / f"{n}.wav", voice(n, 0.3))
        put(folder / "hiss" / f"{n}.wav", hiss(n, 0.3))
    return folder


def test_folders_are_judged_by_what_is_in_them(tmp_path: Path, classifier: Classifier) -> None:
    real, learned = corpus(tmp_path / "real", 0), corpus(tmp_path / "learned", 100, 8)
    made = tmp_path / "made"
    for n in (1, 2, 3):  # copied from what was learned, in other labels' folders
        put(made / "voice" / f"{n}.wav", hiss(100 + n, 0.3))
        put(made / "hiss" / f"{n}.wav", voice(100 + n, 0.3))
    found = judge(classifier, made, real, learned)
    generated, reference, training = found.rows
    assert [row.sounds for row in found.rows] == [6, 10, 16]

    sounds = [torch.from_numpy(make(100 + n, 0.3)) for make in (voice, hiss) for n in (1, 2, 3)]
    heard, answer = classifier.judge(sounds, RATE)
    share = float((answer.argmax(1) == torch.tensor([0, 0, 0, 1, 1, 1])).float().mean())
    assert generated.accuracy == pytest.approx(share)  # a voice lies in hiss/, label 0
    theirs = [torch.from_numpy(make(n, 0.3)) for make in (voice, hiss) for n in range(5)]
    assert generated.frechet == pytest.approx(
        frechet(heard, classifier.judge(theirs, RATE)[0]), rel=1e-2
    )
    assert generated.inception == pytest.approx(inception_score(answer), rel=1e-4)
    assert generated.nearest < 0.5 < reference.nearest
    assert found.nearness == pytest.approx(generated.nearest / reference.nearest)
    assert generated.shrinkage > 0
    assert reference.shrinkage == 0
    assert math.isnan(reference.frechet)
    assert math.isnan(training.nearest)

    table = "\n".join(found.table())
    assert "6 sounds are few" in table
    assert f"{generated.frechet:.2f}" in table
    assert f"{found.nearness:.2f}" in table
    content = json.loads(found.to_json())
    assert content["rows"][0]["frechet"] == generated.frechet
    assert content["rows"][1]["frechet"] is None


def test_training_data_and_labels_may_be_missing(tmp_path: Path, classifier: Classifier) -> None:
    real = corpus(tmp_path / "real", 0)
    for n in range(3):
        put(tmp_path / "made" / f"{n}.wav", voice(n, 0.3))
    (tmp_path / "made" / "broken.wav").write_bytes(b"no sound")
    found = judge(classifier, tmp_path / "made", real)
    assert [row.name for row in found.rows] == ["generated", "reference"]
    assert math.isnan(found.rows[0].accuracy)
    assert not math.isnan(found.rows[1].accuracy)
    assert math.isnan(found.nearness)
    assert [skip.path.name for skip in found.skipped] == ["broken.wav"]
    assert "broken.wav" in found.table()[-1]
    assert json.loads(found.to_json())["nearness"] is None


def test_sounds_that_equal_the_reference_are_at_no_distance(
    tmp_path: Path, classifier: Classifier
) -> None:
    real = corpus(tmp_path / "real", 0)
    found = judge(classifier, real, real, real)
    assert found.rows[0].frechet == pytest.approx(0, abs=1e-6)
    assert math.isnan(found.nearness)  # nothing is nearer than a copy


def test_labels_that_the_classifier_does_not_know_are_refused(
    tmp_path: Path, classifier: Classifier
) -> None:
    real = corpus(tmp_path / "real", 0)
    put(tmp_path / "made" / "gong" / "1.wav", voice(1, 0.3))
    with pytest.raises(DataError, match="gong") as refused:
        judge(classifier, tmp_path / "made", real)
    assert "hiss, voice" in refused.value.hint


def test_several_classifiers_answer_with_their_mean(tmp_path: Path, classifier: Classifier) -> None:
    real = corpus(tmp_path / "real", 0)
    other = untaught(1, "hiss", "voice")
    together = judge([classifier, other], real, real).rows[1]
    sounds = [torch.from_numpy(make(n, 0.3)) for make in (hiss, voice) for n in range(5)]
    mean = (classifier.judge(sounds, RATE)[1] + other.judge(sounds, RATE)[1]) / 2
    assert together.inception == pytest.approx(inception_score(mean), rel=1e-4)
    truth = torch.tensor([0] * 5 + [1] * 5)
    assert together.accuracy == float((mean.argmax(1) == truth).float().mean())
    assert judge([classifier, other], real, real).features == 2 * CONFIG.features


def test_classifiers_of_other_labels_are_refused(tmp_path: Path, classifier: Classifier) -> None:
    real = corpus(tmp_path / "real", 0)
    with pytest.raises(DataError, match="different labels"):
        judge([classifier, untaught(1, "voice", "hiss")], real, real)
