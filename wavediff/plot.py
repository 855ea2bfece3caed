"""Pictures of what a model did: spectrograms before and after, of a mel, or of many sounds."""

import contextlib
import importlib.util
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavediff.audio import FileSource, Source
from wavediff.errors import AudioError, TaskError
from wavediff.mel import MelPreset

WINDOW_SECONDS = 0.04
COLUMNS = 1200  # of a picture
SMALL = 200  # columns of one of many
FRAMES = 4  # at most so many are averaged in a column
RANGE_DB = 75.0  # between the loudest colour and the darkest
LOUDEST = 0.999  # share of the picture below its loudest colour: a click does not darken the rest
LOWEST_CEILING = 4.0  # kHz
SILENT = 1e-12  # power
UNIT = "dB of a full-scale sine"


def require() -> None:
    """Raises TaskError when there is nothing here to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TaskError("drawing needs matplotlib", 'pip install "wavediff[report]"')


def spectrogram(source: Source, most: int = COLUMNS) -> Tensor:
    """Level in dB, (bins, columns), low frequencies first; a full-scale sine has 0 dB.

    Evenly spaced windows over the whole sound, its channels averaged. Read block by block.
    """
    window = 2 ** round(torch.tensor(WINDOW_SECONDS * source.rate).log2().item())
    hop = max(window // 4, source.samples // (most * FRAMES))
    frames = max(1, source.samples // hop)
    each = -(-frames // most)  # frames of a column
    shape = torch.hann_window(window)
    scale = 2 / shape.sum()
    columns = []
    for first in range(0, frames, each * 16):
        count = min(each * 16, frames - first)
        start = first * hop - window // 2
        sound = source.read(start, start + (count - 1) * hop + window)
        spectra = torch.fft.rfft(sound.unfold(-1, window, hop) * shape) * scale
        power = spectra.abs().pow(2).mean(0)
        columns += [part.mean(0) for part in power.split(each)]
    return 10 * torch.stack(columns, 1).clamp(min=SILENT).log10()


def save_comparison(
    before: str | Path, after: str | Path, picture: Path, model: str, verb: str = "denoised"
) -> None:
    """Draw two files below each other into a PNG, in the same colours; written beside, renamed.

    Raises TaskError without matplotlib, AudioError for sounds and places that cannot be used.
    """
    drawn = [Drawn.of(path) for path in (before, after)]
    top = drawn[0].top
    figure = _figure(11, 6.2)
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for axis, sound, name in zip(axes, drawn, ("before", "after"), strict=True):
        image = sound.draw(axis, top)
        axis.set_ylim(0, drawn[0].ceiling(top))
        axis.set_ylabel("kHz")
        axis.set_title(name, loc="left", fontsize=10)
    axes[1].set_xlabel("s")
    figure.colorbar(image, ax=axes, pad=0.01, aspect=40).set_label(UNIT)
    _save(figure, f"{Path(before).name}, {verb} by {model}", picture)


def save_mel(
    mel: Tensor, preset: MelPreset, sound: str | Path, picture: Path, model: str, name: str
) -> None:
    """Draw a mel (bands, frames) of the preset and below it the sound that was made of it.

    Raises TaskError without matplotlib, AudioError for sounds and places that cannot be used.
    """
    made = Drawn.of(sound)
    shown = torch.nn.functional.adaptive_avg_pool1d(mel, min(mel.shape[1], COLUMNS))
    # A frame lasts a hop, half of it before its centre.
    first = (preset.offset - preset.hop / 2) / preset.rate
    last = first + mel.shape[1] * preset.hop / preset.rate
    figure = _figure(11, 6.2)
    above, below = figure.subplots(2, 1, sharex=True)
    image = above.imshow(
        shown.numpy(),
        origin="lower",
        aspect="auto",
        extent=(first, last, 0, len(mel)),
        cmap="magma",
        interpolation="nearest",
    )
    above.set_title(f"mel, {preset.name}", loc="left", fontsize=10)
    above.set_ylabel("band")
    unit = "natural logarithm" if preset.logarithm == "ln" else "scaled decibels"
    figure.colorbar(image, ax=above, pad=0.01, aspect=20).set_label(unit)
    image = made.draw(below, made.top)
    below.set_title("sound", loc="left", fontsize=10)
    below.set_ylabel("kHz")
    below.set_xlabel("s")
    below.set_xlim(0, made.seconds)
    figure.colorbar(image, ax=below, pad=0.01, aspect=20).set_label(UNIT)
    _save(figure, f"{name}, vocoded by {model}", picture)


def save_sheet(sounds: Sequence[str | Path], columns: int, picture: Path, title: str) -> None:
    """Draw many sounds as a contact sheet, row by row, in the same colours and scales.

    Raises TaskError without matplotlib, AudioError for sounds and places that cannot be used.
    """
    drawn = [Drawn.of(path, SMALL if len(sounds) > 1 else COLUMNS) for path in sounds]
    top = max(each.top for each in drawn)
    columns = min(columns, len(drawn))
    rows = -(-len(drawn) // columns)
    size = (0.8 + max(1.7 * columns, 4.2), 0.8 + 1.5 * rows)
    figure = _figure(*size) if len(drawn) > 1 else _figure(11, 3.5)
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for number, axis in enumerate(axes.flat):
        if number >= len(drawn):
            axis.set_visible(False)
            continue
        drawn[number].draw(axis, top, "antialiased")
        axis.set_title(Path(sounds[number]).stem, fontsize=7, parse_math=False)
        axis.tick_params(labelsize=7)
        below = number + columns >= len(drawn)
        axis.tick_params(labelbottom=below)
        if below:
            axis.set_xlabel("s", fontsize=8)
        if number % columns == 0:
            axis.set_ylabel("kHz", fontsize=8)
    axes[0, 0].set_xlim(0, max(each.seconds for each in drawn))
    axes[0, 0].set_ylim(0, max(each.ceiling(top) for each in drawn))
    _save(figure, title, picture)


@dataclass(frozen=True)
class Drawn:
    """The spectrogram of a file, ready to be drawn."""

    level: Tensor  # dB, (bins, columns)
    seconds: float  # length of the sound
    highest: float  # kHz, half the rate

    @classmethod
    def of(cls, path: str | Path, columns: int = COLUMNS) -> "Drawn":
        """Raises AudioError for a sound that cannot be read, TaskError without matplotlib."""
        require()
        with FileSource(path) as source:
            return cls(
                spectrogram(source, columns), source.samples / source.rate, source.rate / 2000
            )

    @property
    def top(self) -> float:
        """The loudest colour, dB."""
        return float(np.quantile(self.level.numpy(), LOUDEST))

    def ceiling(self, top: float) -> float:
        """Up to where there is anything to see, kHz, where `top` dB are the loudest colour."""
        heard = (self.level > top - RANGE_DB).any(1).nonzero()  # bins that are not all dark
        share = (float(heard[-1]) + 1 if len(heard) else 0) / len(self.level)
        return min(max(1.05 * share * self.highest, LOWEST_CEILING), self.highest)

    def draw(self, axis: Any, top: float, interpolation: str = "nearest") -> Any:
        """Show it in an axis of matplotlib, in kHz over seconds; returns the image."""
        return axis.imshow(
            self.level.numpy(),
            origin="lower",
            aspect="auto",
            extent=(0.0, self.seconds, 0.0, self.highest),
            cmap="magma",
            vmin=top - RANGE_DB,
            vmax=top,
            interpolation=interpolation,
        )


def _figure(width: float, height: float) -> Any:
    require()
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=110, layout="constrained")


def _save(figure: Any, title: str, picture: Path) -> None:
    """Write beside and rename."""
    figure.suptitle(title, fontsize=12).set_parse_math(False)  # names may hold dollar signs
    beside = picture.with_name(f".{picture.name}.{os.getpid()}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # letters that the font lacks
            figure.savefig(beside, format="png")
        os.replace(beside, picture)
    except OSError as error:
        raise AudioError(
            f"{picture} cannot be written: {error.strerror}",
            "is the disk full, or the folder read-only?",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
