"""How alike generated sounds are to real ones, by what a classifier hears in them.

The figures are those by which DiffWave and SaShiMi were judged on SC09. All of them depend on the
classifier and on how many sounds there are: they mean something beside the row of real sounds.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.classifier import Classifier, log_mels, places
from wavediff.data import Skipped
from wavediff.errors import DataError
from wavediff.labelled import load_labelled

SHIFTS = 2  # frames by which sounds are moved to find how near they come to each other
DECIBELS = 60.0  # from 0 to 1 of a log-mel


@dataclass(frozen=True)
class Moments:
    """Mean (d,) and covariance (d, d) of features."""

    mean: Tensor
    covariance: Tensor
    shrinkage: float  # the weight of a multiple of the identity in it; 0 for sounds enough


@dataclass(frozen=True)
class Row:
    """The figures of one set of sounds, nan where one is not defined."""

    name: str
    sounds: int
    accuracy: float  # share whose folder's label is the one that is heard
    frechet: float  # distance to the reference
    frechet_training: float  # distance to the training data
    inception: float
    modified: float  # inception score, over pairs
    am: float  # nats
    nearest: float  # dB, the median distance to the nearest training clip
    shrinkage: float  # of the covariance


@dataclass(frozen=True)
class Likeness:
    """Generated sounds beside real ones."""

    rows: tuple[Row, ...]  # generated, reference, and training where it is given
    features: int
    skipped: tuple[Skipped, ...] = ()

    @property
    def nearness(self) -> float:
        """How near generated sounds are to training clips, by how near the reference is.

        Well below 1 they are copies: nearer to what was learned than new real sounds are. A
        reference from elsewhere (other kits, other voices) is farther off without that.
        """
        ours, theirs = self.rows[0].nearest, self.rows[1].nearest
        return ours / theirs if theirs else math.nan

    def to_json(self) -> str:
        """Everything as one JSON object; null where a number is not defined."""
        rows = [{key: _or_none(value) for key, value in asdict(row).items()} for row in self.rows]
        content = {
            "rows": rows,
            "nearness": _or_none(self.nearness),
            "features": self.features,
            "skipped": [{"path": str(s.path), "reason": s.reason} for s in self.skipped],
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def table(self) -> list[str]:
        """One line a set of sounds, as plain text."""
        heads = ("sounds", "accuracy", "FID", "FID train", "IS", "mIS", "AM", "nearest")
        lines = [" " * 12 + "".join(f"{head:>11}" for head in heads)]
        for row in self.rows:
            cells = (
                f"{row.sounds}",
                _show(row.accuracy, ".3f"),
                _show(row.frechet, ".2f"),
                _show(row.frechet_training, ".2f"),
                _show(row.inception, ".2f"),
                _show(row.modified, ".1f"),
                _show(row.am, ".3f"),
                _show(row.nearest, ".2f", " dB"),
            )
            lines.append(row.name.ljust(12) + "".join(f"{cell:>11}" for cell in cells))
        if not math.isnan(self.nearness):
            lines.append(f"nearest generated / nearest reference {self.nearness:.2f}")
        lines += [
            f"{row.name}: {row.sounds} sounds are few for {self.features} features; their "
            f"covariance is shrunk by {row.shrinkage:.2f}, FID is not to be compared"
            for row in self.rows
            if row.shrinkage
        ]
        return lines + [f"skipped {skip.path}: {skip.reason}" for skip in self.skipped]


def moments(features: Tensor) -> Moments:
    """Mean and covariance of features (n, d), float64.

    With no more sounds than features the covariance is singular; it is then moved towards a
    multiple of the identity as Chen et al. 2010 (OAS) do.
    """
    features = features.double()
    count, size = features.shape
    mean = features.mean(0)
    centred = features - mean
    covariance = centred.T @ centred / max(count - 1, 1)
    if count > size:
        return Moments(mean, covariance, 0.0)
    trace, square = covariance.trace(), covariance.square().sum()
    above = (1 - 2 / size) * square + trace**2
    below = (count + 1 - 2 / size) * (square - trace**2 / size)
    shrinkage = min(1.0, float(above / below)) if below > 0 else 1.0
    target = torch.eye(size, dtype=torch.float64) * trace / size
    return Moments(mean, (1 - shrinkage) * covariance + shrinkage * target, shrinkage)


def frechet(first: Moments | Tensor, second: Moments | Tensor) -> float:
    """The Fréchet distance of two sets of features (n, d), as Gaussians (Heusel et al. 2017).

    |m - n|² + tr(A + B - 2 √(√A B √A)), which has only roots of symmetric matrices.
    """
    a = first if isinstance(first, Moments) else moments(first)
    b = second if isinstance(second, Moments) else moments(second)
    values, vectors = torch.linalg.eigh(a.covariance)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = root @ b.covariance @ root
    cross = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp(min=0).sqrt().sum()
    apart = (a.mean - b.mean).square().sum()
    return max(0.0, float(apart + a.covariance.trace() + b.covariance.trace() - 2 * cross))


def inception_score(probabilities: Tensor) -> float:
    """exp E KL(p(y|x) || p(y)) of (n, labels): the number of labels at best, 1 at worst.

    Salimans et al. 2016.
    """
    p = probabilities.double()
    return math.exp(float(_entropy(p.mean(0)) - _entropy(p).mean()))


def modified_inception_score(probabilities: Tensor) -> float:
    """exp E KL(p(y|x) || p(y|x')) over all pairs of (n, labels) (Gurumurthy et al. 2017).

    Also grows with variety within a label. Probabilities of zero count as the least of a double.
    """
    p = probabilities.double()
    logs = _log(p).mean(0)
    return math.exp(float(-_entropy(p).mean() - (p * logs).sum(1).mean()))


def am_score(probabilities: Tensor, training: Tensor) -> float:
    """KL(p_train(y) || p(y)) + E H(p(y|x)), nats; 0 at best (Zhou et al. 2018).

    Of probabilities (n, labels) and those of the training data (m, labels).
    """
    p, q = probabilities.double(), training.double().mean(0)
    return float((q * (_log(q) - _log(p.mean(0)))).sum() + _entropy(p).mean())


def nearest(mels: Tensor, training: Tensor) -> Tensor:
    """The distance (n,) of each log-mel to the nearest one of the training clips, RMS in dB.

    Both are of `log_mels`, (n, bands, frames) and (m, bands, frames). A copy that is moved by up
    to two frames is found too.
    """
    frames, size = mels.shape[2], math.sqrt(mels[0].numel())
    wide = F.pad(mels, (SHIFTS, SHIFTS))
    found = torch.full((len(mels),), math.inf)
    for shift in range(2 * SHIFTS + 1):
        moved = wide[:, :, shift : shift + frames].flatten(1)
        for piece in training.flatten(1).split(4096):
            found = torch.minimum(found, torch.cdist(moved, piece).amin(1))
    return found * DECIBELS / size


def judge(
    classifiers: Classifier | Sequence[Classifier],
    generated: str | Path,
    reference: str | Path,
    training: str | Path | Sequence[str | Path] | None = None,
) -> Likeness:
    """Compare a folder of generated sounds with real ones, and these with the training data.

    Sub-folders called by labels give the accuracy; folders without any are judged without it. AM
    compares labels with the training data's, or else with the reference's. Files that cannot be
    read are skipped. Of several classifiers the mean of their probabilities counts, and all their
    features; the distances are those of the first one's log-mels. Raises DataError for folders
    without sounds or with unknown labels, and for classifiers of different labels.
    """
    judges = (classifiers,) if isinstance(classifiers, Classifier) else tuple(classifiers)
    if any(one.labels != judges[0].labels for one in judges):
        raise DataError("the classifiers know different labels", "train them on the same folders")
    sets = [_heard("generated", generated, judges), _heard("reference", reference, judges)]
    if training is not None:
        sets.append(_heard("training", training, judges))
    real, learned = sets[1], sets[2] if training is not None else None
    prior = (learned or real).probabilities
    rows = tuple(
        Row(
            one.name,
            len(one.mels),
            one.accuracy,
            math.nan if one is real else frechet(one.moments, real.moments),
            frechet(one.moments, learned.moments) if learned and one is not learned else math.nan,
            inception_score(one.probabilities),
            modified_inception_score(one.probabilities),
            am_score(one.probabilities, prior),
            float(nearest(one.mels, learned.mels).median())
            if learned and one is not learned
            else math.nan,
            one.moments.shrinkage,
        )
        for one in sets
    )
    skipped = tuple(skip for one in sets for skip in one.skipped)
    return Likeness(rows, sum(one.config.features for one in judges), skipped)


@dataclass(frozen=True)
class _Heard:
    """A folder of sounds and what the classifiers hear in them."""

    name: str
    mels: Tensor
    moments: Moments
    probabilities: Tensor
    accuracy: float
    skipped: list[Skipped]


def _heard(
    name: str, folders: str | Path | Sequence[str | Path], judges: Sequence[Classifier]
) -> _Heard:
    first = judges[0]
    sounds = load_labelled(folders, first.config.rate, flat=True)
    given = [sounds.sound(n) for n in range(len(sounds))]
    mels = log_mels(given, first.config)
    judged = [first.judge_mels(mels)]
    judged += [one.judge(given, first.config.rate) for one in judges[1:]]
    features = torch.cat([features for features, _ in judged], 1)
    probabilities = torch.stack([probabilities for _, probabilities in judged]).mean(0)
    accuracy = math.nan
    if sounds.labels != ("",):
        right = probabilities.argmax(1).numpy() == places(sounds, first.labels)
        accuracy = float(right.mean())
    return _Heard(name, mels, moments(features), probabilities, accuracy, sounds.clips.skipped)


def _log(p: Tensor) -> Tensor:
    """The logarithm, of zero that of the least normal double."""
    return p.clamp(min=torch.finfo(torch.float64).tiny).log()


def _entropy(p: Tensor) -> Tensor:
    return -(p * _log(p)).sum(-1)


def _show(value: float, form: str, unit: str = "") -> str:
    return "-" if math.isnan(value) else f"{value:{form}}{unit}"


def _or_none(value: object) -> object:
    return None if isinstance(value, float) and math.isnan(value) else value
