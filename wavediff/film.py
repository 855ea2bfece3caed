"""A film: a trace as files, for eyes and ears.

Pictures of the states and the guesses, as a strip and as an animation, the mask that they come to,
the guesses as sounds, and the numbers.
"""

import io
import json
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavediff.audio import ArraySource, probe, read
from wavediff.errors import TaskError
from wavediff.model import Model
from wavediff.plot import SILENT, UNIT, Drawn, require, spectrogram
from wavediff.trace import Share, Trace, bands, check_length, fitted, remaining, trace
from wavediff.writer import Writer

COLUMNS = 600  # of a spectrogram
MOST = 8  # steps of a strip; of more some are left out, evenly
SECONDS = 0.8  # that a step of an animation stays
HELD = 3  # times as long that the last one does
GREYS = 64  # of the 256 colours of a picture: a palette makes it a third as large
MASK = (-40.0, 0.0)  # dB of the colours of a mask
NOTHING = 10 * torch.tensor(SILENT).log10().item() + 20  # dB, below which there is nothing to mask


@dataclass(frozen=True)
class Film:
    """A trace of a file, with what is to be said of it."""

    trace: Trace
    title: str
    facts: dict[str, Any]  # for JSON


def film(
    model: Model,
    path: str | Path,
    reference: str | Path | None = None,
    steps: int | None = None,
    sampler: str | None = None,
    seed: int = 0,
) -> Film:
    """Trace what a model does to a file; `steps` None are as many as suit it.

    Errors are counted against `reference`, for a vocoder else against the file itself, else against
    the last guess. Raises AudioError, TaskError, DataError for files that cannot be used.
    """
    check_length(path, probe(path).seconds)
    sound, rate = read(path)
    walked = trace(model, ArraySource(sound, rate), steps, sampler, seed)
    clean, against = None, "the last guess"
    if reference is not None:
        check_length(reference, probe(reference).seconds)
        clean, against = fitted(walked, *read(reference)), str(reference)
    elif walked.task == "vocode":
        clean, against = fitted(walked, sound, rate), "the recording itself"
    short, number = Path(model.name).name, len(walked.steps)
    verb = {"denoise": "denoised", "vocode": "vocoded"}[walked.task]
    facts = {
        "file": str(path),
        "model": model.name,
        "seed": seed,
        **described(walked, remaining(walked, clean), against),
    }
    title = f"{Path(path).name}, {verb} by {short} in {number} step{'s' * (number > 1)}"
    return Film(walked, title, facts)


def described(traced: Trace, shares: Sequence[tuple[Share, Share]], against: str) -> dict[str, Any]:
    """A trace and what is left of its errors (see `trace.remaining`) as what goes to JSON."""
    measure = "waveforms" if traced.task == "denoise" else "magnitudes of spectra"
    return {
        "task": traced.task,
        "rate": traced.rate,
        "channels": len(traced.steps[0].state),
        "seconds": traced.steps[0].state.shape[1] / traced.rate,
        "error": f"share of the start's error that is left, of {measure}, against {against}",
        "bands": bands(traced.rate),
        "steps": [
            {
                "step": number,
                "t": step.t,
                "sound": f"step-{number}.flac",
                "state": _left(state),
                "guess": _left(guess),
            }
            for number, (step, (state, guess)) in enumerate(
                zip(traced.steps, shares, strict=True), 1
            )
        ],
    }


def write(shown: Film, folder: Path, force: bool) -> list[Path]:
    """Write everything into a folder; nothing is there unless all went well. Returns the files.

    Raises TaskError for a folder that holds something, without `force`, and where there is nothing
    to draw with.
    """
    check_folder(folder, force)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise _unwritable(folder, error) from None
    try:
        _fill(shown, beside)
        names = sorted(path.name for path in beside.iterdir())
        folder.mkdir(exist_ok=True)
        for name in names:
            os.replace(beside / name, folder / name)
    except OSError as error:
        raise _unwritable(folder, error) from None
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return [folder / name for name in names]


def check_folder(folder: Path, force: bool) -> None:
    """Raises TaskError for one that cannot take a film, also where there is nothing to draw with.

    One that holds something takes it with `force`.
    """
    require()
    if folder.exists() and not folder.is_dir():
        raise TaskError(f"{folder} is a file", "name a folder with -o")
    if folder.is_dir() and any(folder.iterdir()) and not force:
        raise TaskError(f"{folder} exists and is not empty", "-f overwrites, -o names another")


def _fill(shown: Film, folder: Path) -> None:
    """Write a film's files."""
    traced = shown.trace
    save_strip(traced, shown.title, folder / "strip.png")
    save_animation(traced, shown.title, folder / "trace.gif")
    if traced.task == "denoise":
        before, after = traced.steps[0].state, traced.steps[-1].guess
        save_mask(before, after, traced.rate, shown.title, folder / "mask.png")
    for number, sound in enumerate(traced.sounds, 1):
        path = folder / f"step-{number}.flac"
        with Writer(path, sound.rate, sound.channels) as writer:
            writer.write(sound.read(0, sound.samples))
    text = json.dumps(shown.facts, indent=2, ensure_ascii=False, allow_nan=False)
    (folder / "trace.json").write_text(text + "\n", "utf-8")


def save_strip(traced: Trace, title: str, picture: Path) -> None:
    """Draw the state and the guess of each step below those of the one before, in the same colours.

    Raises TaskError without matplotlib.
    """
    steps, rate = traced.steps, traced.rate
    shown = _evenly(len(steps))
    drawn = [(_drawn(steps[n].state, rate), _drawn(steps[n].guess, rate)) for n in shown]
    top, ceiling = _scale(drawn)
    figure = _figure(11, 1.1 + 1.75 * len(shown))
    axes = figure.subplots(len(shown), 2, sharex=True, sharey=True, squeeze=False)
    for number, row, pair in zip(shown, axes, drawn, strict=True):
        names = f"state at t = {steps[number].t:.2f}", f"guess {number + 1} of {len(steps)}"
        for axis, sound, name in zip(row, pair, names, strict=True):
            image = sound.draw(axis, top, "antialiased")
            axis.set_title(name, loc="left", fontsize=10)
        row[0].set_ylabel("kHz")
    axes[0, 0].set_ylim(0, ceiling)
    for axis in axes[-1]:
        axis.set_xlabel("s")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=40).set_label(UNIT)
    figure.suptitle(title, fontsize=12).set_parse_math(False)  # names may hold dollar signs
    _painted(figure, "magma").save(picture, format="PNG", optimize=True)


def save_animation(traced: Trace, title: str, picture: Path) -> None:
    """Show the state and the guess of each step one after the other, as a GIF that repeats.

    Raises TaskError without matplotlib.
    """
    steps, rate = traced.steps, traced.rate
    drawn = [(_drawn(step.state, rate), _drawn(step.guess, rate)) for step in steps]
    top, ceiling = _scale(drawn)
    frames = []
    for number, (step, pair) in enumerate(zip(steps, drawn, strict=True), 1):
        figure = _figure(8, 5)
        axes = figure.subplots(2, 1, sharex=True, sharey=True)
        names = f"state at t = {step.t:.2f}", f"guess {number} of {len(steps)}"
        for axis, sound, name in zip(axes, pair, names, strict=True):
            image = sound.draw(axis, top, "antialiased")
            axis.set_title(name, loc="left", fontsize=10)
            axis.set_ylabel("kHz")
        axes[0].set_ylim(0, ceiling)
        axes[1].set_xlabel("s")
        figure.colorbar(image, ax=axes, pad=0.01, aspect=40).set_label(UNIT)
        figure.suptitle(title, fontsize=12).set_parse_math(False)
        frames.append(_painted(figure, "magma"))
    times = [1000 * SECONDS] * (len(frames) - 1) + [1000 * SECONDS * HELD]
    frames[0].save(
        picture,
        format="GIF",
        save_all=True,
        append_images=frames[1:],
        duration=[round(time) for time in times],
        loop=0,
    )


def save_mask(before: Tensor, after: Tensor, rate: int, title: str, picture: Path) -> None:
    """Draw by how much each bin was raised or lowered, between two sounds (channels, samples).

    Raises TaskError without matplotlib.
    """
    given, made = (spectrogram(ArraySource(sound, rate), COLUMNS) for sound in (before, after))
    change = torch.where(given > NOTHING, made - given, math.nan)
    figure = _figure(11, 3.8)
    axis = figure.subplots()
    image = axis.imshow(
        change.numpy(),
        origin="lower",
        aspect="auto",
        extent=(0.0, before.shape[1] / rate, 0.0, rate / 2000),
        cmap="viridis",
        vmin=MASK[0],
        vmax=MASK[1],
        interpolation="antialiased",
    )
    axis.set_title("what the model let through", loc="left", fontsize=10)
    axis.set_ylabel("kHz")
    axis.set_xlabel("s")
    bar = figure.colorbar(image, ax=axis, pad=0.01, aspect=20, extend="both")
    bar.set_label("dB, output over input")
    figure.suptitle(title, fontsize=12).set_parse_math(False)
    _painted(figure, "viridis").save(picture, format="PNG", optimize=True)


def _drawn(sound: Tensor, rate: int) -> Drawn:
    level = spectrogram(ArraySource(sound, rate), COLUMNS)
    return Drawn(level, sound.shape[1] / rate, rate / 2000)


def _scale(drawn: Sequence[tuple[Drawn, Drawn]]) -> tuple[float, float]:
    """The loudest colour in dB, and up to how many kHz there is anything to see."""
    top = max(each.top for pair in drawn for each in pair)
    return top, max(each.ceiling(top) for pair in drawn for each in pair)


def _evenly(count: int) -> list[int]:
    """At most MOST numbers below `count`, the first and the last among them."""
    if count <= MOST:
        return list(range(count))
    return [round(n * (count - 1) / (MOST - 1)) for n in range(MOST)]


def _figure(width: float, height: float) -> Any:
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _painted(figure: Any, colours: str) -> Any:
    """A figure in greys and one map of colours, as an image with a palette."""
    from matplotlib import colormaps
    from PIL import Image

    drawn = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # letters that the font lacks
        figure.savefig(drawn, format="png")
    map_of = colormaps[colours]
    greys = [round(255 * n / (GREYS - 1)) for n in range(GREYS) for _ in "rgb"]
    share = [n / (255 - GREYS) for n in range(256 - GREYS)]
    palette = Image.new("P", (1, 1))
    palette.putpalette(greys + [round(255 * part) for x in share for part in map_of(x)[:3]])
    return Image.open(drawn).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE)


def _left(share: Share) -> dict[str, Any]:
    return {"error": _or_none(share.whole), "bands": [*map(_or_none, share.bands)]}


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value


def _unwritable(folder: Path, error: OSError) -> TaskError:
    return TaskError(f"{folder} cannot be written: {error.strerror}", "name another place")
