"""A report: one page of HTML on which systems can be compared by figures, eyes and ears.

The page holds all of its sounds, pictures, styles and code, and asks no network for anything.
"""

import json
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import wavediff
from wavediff.audio import ArraySource
from wavediff.data import Skipped
from wavediff.errors import AudioError, DataError, TaskError
from wavediff.evaluation import Evaluation, Row, pairs, score
from wavediff.exhibit import NOISY, REFERENCE, Recording, Walked, exhibit, legend, sounds
from wavediff.metrics import METRICS, available
from wavediff.plot import RANGE_DB, require
from wavediff.resample import resample

TEMPLATE = "pages/report.html"
MOST = 20  # recordings that are shown
LARGE = 50e6  # bytes of a page, above which a browser is slow with it

Progress = Callable[[int, int], None]  # recordings done, recordings in all


@dataclass(frozen=True)
class Request:
    """What is to be reported."""

    reference: Path | None  # a folder or a file; None for a page of figures alone
    systems: Mapping[str, Path] = field(default_factory=dict)  # their estimates, by name
    noisy: Path | None = None
    figures: Mapping[str, Path] = field(default_factory=dict)  # `wavediff evaluate --json`, by name
    walked: Walked | None = None
    title: str = ""
    most: int = MOST  # recordings shown; the figures are of all


@dataclass(frozen=True)
class Report:
    """A page, and what there is to say about how it came to be."""

    html: str
    shown: int  # recordings
    left_out: tuple[Skipped, ...]
    missing: tuple[str, ...]  # metrics whose packages are not installed

    @property
    def bytes(self) -> int:
        return len(self.html.encode())


def named(words: Iterable[str]) -> dict[str, Path]:
    """NAME=FOLDER … as names and folders. Raises TaskError for anything else."""
    found: dict[str, Path] = {}
    for word in words:
        name, sign, folder = word.partition("=")
        if not (name.strip() and sign and folder):
            raise TaskError(f"{word} names no system", "write NAME=FOLDER, as ours=denoised/")
        if name in found or name in (REFERENCE, NOISY):
            raise TaskError(f"there are two systems {name}", "give each a name of its own")
        found[name] = Path(folder)
    return found


def build(request: Request, progress: Progress | None = None) -> Report:
    """Make the page.

    Only recordings that the reference and all systems have are on it; what is left out is said.
    Raises DataError where nothing is left, TaskError for a request that cannot be carried out.
    """
    require()
    template = _template()
    _check(request)
    metrics = available()
    recordings: list[Recording] = []
    rows: dict[str, list[Row]] = {}
    files, left_out = _common(request)
    for number, (name, paths) in enumerate(files.items(), 1):
        try:
            heard, path = sounds(paths, request.walked)
            scores = _scores(heard, metrics)
        except (AudioError, DataError, TaskError) as error:
            left_out.append(Skipped(Path(name), error.message))
            continue
        seconds = heard[REFERENCE].samples / heard[REFERENCE].rate
        for label, figures in scores.items():
            rows.setdefault(label, []).append(Row(name, seconds, figures))
        if len(recordings) < request.most:
            recordings.append(exhibit(name, heard, _words(scores), path))
        if progress:
            progress(number, len(files))
    if request.reference and not recordings:
        last = left_out[-1]
        raise DataError(
            f"no recording can be shown; {last.path}: {last.reason}",
            "the folders have to hold the same recordings, of the same length",
        )
    evaluations = {label: Evaluation(metrics, tuple(of)) for label, of in rows.items()}
    evaluations |= {name: read_figures(path) for name, path in request.figures.items()}
    missing = tuple(key for key in METRICS if key not in metrics) if rows else ()
    scored = max(rows.values(), key=len, default=[])
    html = template.render(
        title=request.title or "How they sound",
        summary=_summary(scored, evaluations),
        table=_table(evaluations),
        recordings=recordings,
        data={"recordings": [_data(recording) for recording in recordings]},
        total=len(scored),
        left_out=left_out,
        missing=[METRICS[key].name for key in missing],
        walked=request.walked,
        legend=legend(),
        decibels=round(RANGE_DB),
        version=wavediff.__version__,
    )
    return Report(html, len(recordings), tuple(left_out), missing)


def read_figures(path: Path) -> Evaluation:
    """What `wavediff evaluate --json` has written. Raises DataError for anything else."""
    try:
        content = json.loads(path.read_text("utf-8"))
        metrics = tuple(key for key in METRICS if key in content["metrics"])
        rows = tuple(
            Row(
                str(file["name"]),
                float(file["seconds"]),
                {key: math.nan if file[key] is None else float(file[key]) for key in metrics},
            )
            for file in content["files"]
        )
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}", "check the name") from None
    except (ValueError, KeyError, TypeError):
        raise DataError(
            f"{path} does not hold the figures of an evaluation",
            f"make it with: wavediff evaluate … --json > {path}",
        ) from None
    return Evaluation(metrics, rows)


def _check(request: Request) -> None:
    walked = request.walked
    if request.reference is None and (request.systems or request.noisy or walked):
        raise TaskError("there is no reference to compare with", "give REFERENCE first")
    if request.reference is None and not request.figures:
        raise TaskError("there is nothing to report", "give REFERENCE and NAME=FOLDER …")
    if request.reference and not (request.systems or request.noisy or walked):
        raise TaskError("there is nothing beside the reference", "give NAME=FOLDER, or -m MODEL")
    if walked and walked.denoises and not request.noisy:
        raise TaskError(f"{walked.name} has nothing to denoise", "give --noisy FOLDER")
    if walked and walked.name in request.systems:
        raise TaskError(f"there are two systems {walked.name}", "give the folder another name")


def _template() -> Any:
    try:
        jinja2 = import_module("jinja2")
    except ImportError:
        raise TaskError("a report needs jinja2", 'pip install "wavediff[report]"') from None
    text = resources.files("wavediff").joinpath(TEMPLATE).read_text("utf-8")
    house = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return house.from_string(text)


def _common(request: Request) -> tuple[dict[str, dict[str, Path]], list[Skipped]]:
    """The files of each recording that all have, by what made them, and what was left out."""
    if request.reference is None:
        return {}, []
    folders = ({NOISY: request.noisy} if request.noisy else {}) | dict(request.systems)
    if not folders:  # the model vocodes the reference itself
        matched, _ = pairs(request.reference, request.reference)
        return {pair.name: {REFERENCE: pair.reference} for pair in matched}, []
    found: dict[str, dict[str, Path]] = {}
    left_out: dict[Path, Skipped] = {}
    for label, folder in folders.items():
        matched, skipped = pairs(request.reference, folder)
        left_out |= {skip.path: skip for skip in skipped}
        for pair in matched:
            found.setdefault(pair.name, {REFERENCE: pair.reference})[label] = pair.estimate
    whole = {name: paths for name, paths in found.items() if len(paths) == 1 + len(folders)}
    for name, paths in found.items():
        lacking = [label for label in folders if label not in paths]
        if lacking:
            reason = f"not among those of {', '.join(lacking)}"
            left_out.setdefault(paths[REFERENCE], Skipped(Path(name), reason))
    return whole, list(left_out.values())


def _scores(
    sounds: Mapping[str, ArraySource], metrics: Sequence[str]
) -> dict[str, dict[str, float]]:
    """The scores of every sound but the reference."""
    reference = sounds[REFERENCE]
    return {
        label: score(
            reference.audio,
            resample(sound.audio, sound.rate, reference.rate),
            reference.rate,
            metrics,
        )
        for label, sound in sounds.items()
        if label != REFERENCE
    }


def _words(scores: Mapping[str, Mapping[str, float]]) -> dict[str, list[str]]:
    """Each sound's scores as text."""
    return {
        label: [
            f"{METRICS[key].name} {_shown(key, score)} {METRICS[key].unit}".rstrip()
            for key, score in of.items()
        ]
        for label, of in scores.items()
    }


def _shown(metric: str, value: float) -> str:
    """A score with the sign that a minus has in print."""
    return METRICS[metric].show(value).replace("-", "−")


def _data(recording: Recording) -> dict[str, Any]:
    """What the page's code has to know."""
    return {
        "name": recording.name,
        "seconds": recording.seconds,
        "labels": [sound.label for sound in recording.sounds],
        "shown": recording.shown,
        "path": [{"sound": stop.sound, "text": stop.text} for stop in recording.path],
    }


def _table(evaluations: Mapping[str, Evaluation]) -> dict[str, Any]:
    """Heads and rows of the figures: mean and median, the best means marked."""
    keys = [key for key in METRICS if any(key in each.metrics for each in evaluations.values())]
    best = {}
    for key in keys:
        means = [e.mean[key] for e in evaluations.values() if key in e.metrics]
        defined = [mean for mean in means if not math.isnan(mean)]
        if len(defined) > 1:
            best[key] = (max if METRICS[key].higher_is_better else min)(defined)
    rows = []
    for label, evaluation in evaluations.items():
        cells = []
        for key in keys:
            of = [row.scores[key] for row in evaluation.rows] if key in evaluation.metrics else []
            of = [score for score in of if not math.isnan(score)]
            mean, median = (
                f(of) if of else math.nan for f in (statistics.fmean, statistics.median)
            )
            cells.append(
                {
                    "mean": _shown(key, mean),
                    "median": _shown(key, median),
                    "best": mean == best.get(key),
                }
            )
        rows.append({"label": label, "count": len(evaluation.rows), "cells": cells})
    heads = [
        {"name": METRICS[key].name, "unit": METRICS[key].unit, "up": METRICS[key].higher_is_better}
        for key in keys
    ]
    counts = {row["count"] for row in rows}
    return {"heads": heads, "rows": rows, "count": counts.pop() if len(counts) == 1 else None}


def _summary(scored: Sequence[Row], evaluations: Mapping[str, Evaluation]) -> str:
    """What the page is about, in one line."""
    seconds = sum(row.seconds for row in scored)
    systems = [label for label in evaluations if label != NOISY]
    parts = [_count(len(systems), "system")]
    if scored:
        parts = [_count(len(scored), "recording"), f"{seconds:.0f} s", *parts]
    line = ", ".join(parts) + "."
    shared = [key for key in METRICS if all(key in each.metrics for each in evaluations.values())]
    means = {label: each.mean[shared[0]] for label, each in evaluations.items() if shared}
    means = {label: mean for label, mean in means.items() if not math.isnan(mean)}
    if len(means) < 2:
        return line
    metric = METRICS[shared[0]]
    best = (max if metric.higher_is_better else min)(means, key=lambda label: means[label])
    line += f" By the mean {metric.name}, {best} is ahead with {metric.show(means[best])}"
    if NOISY in means and best != NOISY:
        line += f"; {NOISY} has {metric.show(means[NOISY])}"
    return line + "."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
