"""Folders of sound scored against their references: rows, means, the worst files, tables."""

import csv
import io
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavediff.audio import read
from wavediff.data import READABLE, Skipped, find
from wavediff.errors import AudioError, DataError, TaskError
from wavediff.metrics import METRICS, available
from wavediff.resample import resample
from wavediff.writer import Writer

TOLERANCE = 0.05  # seconds by which lengths may differ before a pair counts as no pair
WORST = 5
BATCH = 4  # estimates a worker, made before they are scored, which would slow what is timed

Denoise = Callable[[Tensor, int], Tensor]  # (channels, samples) and its rate to the same shape
Progress = Callable[[int, int], None]  # files done, files in all


@dataclass(frozen=True)
class Pair:
    """Two files to compare; `name` is their common path below the folders, without extension."""

    name: str
    reference: Path
    estimate: Path


@dataclass(frozen=True)
class Row:
    """One file's scores, nan where a metric is not defined for it."""

    name: str
    seconds: float  # of sound
    scores: dict[str, float]  # by the keys of METRICS
    work: float | None = None  # seconds that making the estimate took, where that happened here


@dataclass(frozen=True)
class Speed:
    """Seconds of work per second of sound."""

    median: float  # over the files
    total: float  # all work over all sound


@dataclass(frozen=True)
class Evaluation:
    """The scores of a set of files."""

    metrics: tuple[str, ...]  # keys of METRICS
    rows: tuple[Row, ...]
    skipped: tuple[Skipped, ...] = ()
    missing: tuple[str, ...] = ()  # metrics left out because their packages are not installed

    def defined(self, metric: str) -> list[Row]:
        """The files for which the metric is defined; means and the worst are taken over these."""
        return [row for row in self.rows if not math.isnan(row.scores[metric])]

    @property
    def mean(self) -> dict[str, float]:
        return self._over_files(statistics.fmean)

    @property
    def spread(self) -> dict[str, float]:
        """The standard deviation over the files."""
        return self._over_files(statistics.pstdev)

    def worst(self, metric: str, count: int = WORST) -> list[Row]:
        """The files with the worst scores, the very worst first."""
        sign = 1 if METRICS[metric].higher_is_better else -1
        return sorted(self.defined(metric), key=lambda row: sign * row.scores[metric])[:count]

    @property
    def speed(self) -> Speed | None:
        """How fast the estimates were made, where that was measured."""
        timed = [(row.work, row.seconds) for row in self.rows if row.work is not None]
        if not timed:
            return None
        work, seconds = (sum(column) for column in zip(*timed, strict=True))
        return Speed(statistics.median(w / s for w, s in timed), work / seconds)

    def to_json(self) -> str:
        """Everything as one JSON object; null where a number is not defined."""
        summary = {
            key: {
                "name": METRICS[key].name,
                "unit": METRICS[key].unit,
                "higher_is_better": METRICS[key].higher_is_better,
                "mean": _or_none(self.mean[key]),
                "spread": _or_none(self.spread[key]),
                "undefined": len(self.rows) - len(self.defined(key)),
                "worst": [row.name for row in self.worst(key)],
            }
            for key in self.metrics
        }
        files = [
            {
                "name": row.name,
                "seconds": row.seconds,
                "work": row.work,
                **{key: _or_none(score) for key, score in row.scores.items()},
            }
            for row in self.rows
        ]
        content = {
            "metrics": summary,
            "real_time_factor": self.speed and asdict(self.speed),
            "files": files,
            "skipped": [{"path": str(s.path), "reason": s.reason} for s in self.skipped],
            "missing": list(self.missing),
        }
        return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)

    def to_csv(self) -> str:
        """One line a file; an empty cell where a number is not defined."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["name", "seconds", "work", *self.metrics])
        for row in self.rows:
            numbers = [_or_none(row.scores[key]) for key in self.metrics]
            writer.writerow([row.name, row.seconds, row.work, *numbers])
        return text.getvalue()

    def table(self) -> list[str]:
        """Mean, spread and the worst files as lines of plain text."""
        heads = [METRICS[key].head for key in self.metrics]
        lines = [f"{len(self.rows)} files".ljust(12) + "".join(f"{head:>12}" for head in heads)]
        for name, values in (("mean", self.mean), ("spread", self.spread)):
            cells = "".join(f"{METRICS[key].show(values[key]):>12}" for key in self.metrics)
            lines.append(name.ljust(12) + cells)
        if self.speed is not None:
            lines.append(
                f"real-time factor {self.speed.median:.4f} (median of the files), "
                f"{self.speed.total:.4f} (all together)"
            )
        for key in self.metrics:
            lines += ["", f"worst by {METRICS[key].name}"]
            lines += [
                f"{METRICS[key].show(row.scores[key]):>10}  {row.name}" for row in self.worst(key)
            ]
            if undefined := len(self.rows) - len(self.defined(key)):
                lines.append(f"not defined for {undefined} files")
        lines += [f"skipped {skip.path}: {skip.reason}" for skip in self.skipped]
        for key in self.missing:
            lines.append(f'{METRICS[key].name} left out: pip install "wavediff[eval]"')
        return lines

    def _over_files(self, function: Callable[[list[float]], float]) -> dict[str, float]:
        columns = {key: [row.scores[key] for row in self.defined(key)] for key in self.metrics}
        return {key: function(scores) if scores else math.nan for key, scores in columns.items()}


def pairs(reference: str | Path, estimate: str | Path) -> tuple[list[Pair], list[Skipped]]:
    """Match the files of two folders by their path without extension, or take two files.

    What has no counterpart, or more than one, comes back as skipped. Raises DataError when nothing
    matches.
    """
    reference, estimate = Path(reference), Path(estimate)
    if reference.is_file() and estimate.is_file():
        return [Pair(reference.stem, reference, estimate)], []
    if reference.is_file() or estimate.is_file():
        raise DataError(
            f"one of {reference} and {estimate} is a file, the other is not",
            "give two files or two folders",
        )
    references, estimates = _by_name(reference), _by_name(estimate)
    matched: list[Pair] = []
    skipped: list[Skipped] = []
    for name in sorted(references | estimates):
        ours, theirs = references.get(name, []), estimates.get(name, [])
        if len(ours) == 1 and len(theirs) == 1:
            matched.append(Pair(name, ours[0], theirs[0]))
        elif not theirs:
            skipped += [Skipped(path, f"nothing in {estimate} is called so") for path in ours]
        elif not ours:
            skipped += [Skipped(path, f"nothing in {reference} is called so") for path in theirs]
        else:
            reason = "several files are called so, with different extensions"
            skipped += [Skipped(path, reason) for path in (ours if len(ours) > 1 else theirs)]
    if not matched:
        raise DataError(
            f"no file in {estimate} is called like one in {reference}",
            "folders are matched by path without extension: a/b.flac with a/b.wav",
        )
    return matched, skipped


def score(
    reference: Tensor, estimate: Tensor, rate: int, metrics: Sequence[str]
) -> dict[str, float]:
    """The mean of each metric over the channels of two sounds (channels, samples) at one rate.

    Cut to the shorter. Raises DataError for a difference of channels, or of over 50 ms in length.
    """
    if len(reference) != len(estimate):
        raise DataError(
            f"{len(estimate)} channels, its reference has {len(reference)}",
            "give both the same channels",
        )
    longer = (estimate.shape[1] - reference.shape[1]) / rate
    if abs(longer) > TOLERANCE:
        raise DataError(
            f"{abs(longer):.3f} s {'longer' if longer > 0 else 'shorter'} than its reference",
            f"at most {TOLERANCE} s are cut off: are these the same recording?",
        )
    samples = min(reference.shape[1], estimate.shape[1])
    return {
        key: _mean_defined(
            METRICS[key].function(ours[:samples], theirs[:samples], rate)
            for ours, theirs in zip(reference, estimate, strict=True)
        )
        for key in metrics
    }


def evaluate(
    reference: str | Path,
    estimate: str | Path,
    metrics: Sequence[str] | None = None,
    workers: int = 1,
    progress: Progress | None = None,
) -> Evaluation:
    """Score a folder (or file) of estimates against the folder (or file) of references.

    `metrics` are keys of METRICS; None takes all that can be computed here. An estimate at another
    rate is resampled to its reference's. Files that cannot be scored are skipped with the reason.
    Several `workers` are processes: a script that asks for them needs its `__main__` guard.
    Raises DataError when none can, TaskError for a metric that is not there.
    """
    keys, missing = _chosen(metrics)
    matched, skipped = pairs(reference, estimate)
    jobs = [_Job(pair, keys) for pair in matched]
    results: list[Row | Skipped] = []
    with _mapper(workers) as mapped:
        for result in mapped(_scored, jobs):
            results.append(result)
            if progress:
                progress(len(results), len(matched))
    return _evaluation(keys, results, skipped, missing)


def evaluate_model(
    denoise: Denoise,
    noisy: str | Path,
    clean: str | Path,
    metrics: Sequence[str] | None = None,
    workers: int = 1,
    save: str | Path | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Let `denoise` make the estimates from `noisy`, and score and time them; see `evaluate`.

    `save` is a folder that keeps them as wav files of floats, under the names of the noisy files.
    """
    keys, missing = _chosen(metrics)
    matched, skipped = pairs(clean, noisy)
    results: list[Row | Skipped] = []
    with _mapper(workers) as mapped:
        while batch := matched[len(results) : len(results) + BATCH * max(workers, 1)]:
            for result in mapped(_scored, [_made(denoise, pair, keys, save) for pair in batch]):
                results.append(result)
                if progress:
                    progress(len(results), len(matched))
    return _evaluation(keys, results, skipped, missing)


def save_estimate(folder: str | Path, name: str, audio: Tensor, rate: int) -> Path:
    """Write (channels, samples) as a wav of floats, below `folder`; raises AudioError."""
    path = Path(folder, f"{name}.wav")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(f"{path.parent} cannot be made: {error.strerror}", "check it") from error
    with Writer(path, rate, len(audio), "FLOAT") as writer:
        writer.write(audio)
    return path


@dataclass(frozen=True)
class _Job:
    """A pair to score, in the form that goes to another process."""

    pair: Pair
    metrics: tuple[str, ...]
    made: tuple[np.ndarray, int] | None = None  # the estimate and its rate, if it is no file
    work: float | None = None


def _made(
    denoise: Denoise, pair: Pair, metrics: tuple[str, ...], save: str | Path | None
) -> _Job | Skipped:
    try:
        noisy, rate = read(pair.estimate)
        start = time.perf_counter()
        estimate = torch.as_tensor(denoise(noisy, rate)).cpu()
        work = time.perf_counter() - start
    except (AudioError, DataError) as error:
        return Skipped(pair.estimate, error.message)
    if save is not None:
        save_estimate(save, pair.name, estimate, rate)
    return _Job(pair, metrics, (estimate.numpy(), rate), work)


def _scored(job: _Job | Skipped) -> Row | Skipped:
    if isinstance(job, Skipped):
        return job
    try:
        reference, rate = read(job.pair.reference)
        sound, sound_rate = job.made or read(job.pair.estimate)
        estimate = resample(torch.as_tensor(sound), sound_rate, rate)
        scores = score(reference, estimate, rate, job.metrics)
    except (AudioError, DataError) as error:
        return Skipped(job.pair.estimate, error.message)
    return Row(job.pair.name, reference.shape[1] / rate, scores, job.work)


def _evaluation(
    metrics: tuple[str, ...],
    results: list[Row | Skipped],
    skipped: list[Skipped],
    missing: tuple[str, ...],
) -> Evaluation:
    rows = tuple(result for result in results if isinstance(result, Row))
    skipped = skipped + [result for result in results if isinstance(result, Skipped)]
    if not rows:
        last = skipped[-1]
        raise DataError(
            f"none of {len(results)} pairs could be scored; {last.path}: {last.reason}",
            "references and estimates have to be the same recordings, of the same length",
        )
    return Evaluation(metrics, rows, tuple(skipped), missing)


def _chosen(metrics: Sequence[str] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The metrics to compute, and those that are left out for want of a package."""
    here = available()
    if metrics is None:
        return here, tuple(key for key in METRICS if key not in here)
    for key in metrics:
        if key not in METRICS:
            raise TaskError(f"no metric is called {key}", "there are " + ", ".join(METRICS))
        if key not in here:
            package = METRICS[key].package
            raise TaskError(
                f"the package {package} is not installed, {METRICS[key].name} needs it",
                'pip install "wavediff[eval]"',
            )
    return tuple(metrics), ()


@contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterable[Any]]]:
    """`map`, or the same over processes, each with one thread."""
    if workers <= 1:
        yield map
        return
    context = get_context("spawn")  # a fork of a process with threads can hang
    try:
        with ProcessPoolExecutor(workers, context, torch.set_num_threads, (1,)) as pool:
            yield pool.map
    except BrokenProcessPool as error:
        raise TaskError("a worker process died", "try one worker, or fewer metrics") from error


def _by_name(folder: Path) -> dict[str, list[Path]]:
    named: dict[str, list[Path]] = {}
    for path in find([folder]):
        named.setdefault(path.relative_to(folder).with_suffix("").as_posix(), []).append(path)
    if not named:
        raise DataError(f"{folder} holds no audio", f"looked for {READABLE}")
    return named


def _mean_defined(values: Iterable[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return statistics.fmean(defined) if defined else math.nan


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
