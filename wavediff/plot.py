"""Pictures of what a denoiser did: two spectrograms, before and after."""

import contextlib
import importlib.util
import os
import warnings
from pathlib import Path

import torch
from torch import Tensor

from wavediff.audio import FileSource, Source
from wavediff.errors import AudioError, TaskError

WINDOW_SECONDS = 0.04
COLUMNS = 1200  # of a picture
FRAMES = 4  # at most so many are averaged in a column
RANGE_DB = 75.0  # between the loudest colour and the darkest
LOUDEST = 0.999  # share of the picture below its loudest colour: a click does not darken the rest
LOWEST_CEILING = 4.0  # kHz
SILENT = 1e-12  # power


def require() -> None:
    """Raises TaskError when there is nothing here to draw with."""
    if importlib.util.find_spec("matplotlib") is None:
        raise TaskError("drawing needs matplotlib", 'pip install "wavediff[report]"')


def spectrogram(source: Source) -> Tensor:
    """Level in dB, (bins, columns), low frequencies first; a full-scale sine has 0 dB.

    Evenly spaced windows over the whole sound, its channels averaged. Read block by block.
    """
    window = 2 ** round(torch.tensor(WINDOW_SECONDS * source.rate).log2().item())
    hop = max(window // 4, source.samples // (COLUMNS * FRAMES))
    frames = max(1, source.samples // hop)
    each = -(-frames // COLUMNS)  # frames of a column
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


def save_comparison(before: str | Path, after: str | Path, picture: Path, model: str) -> None:
    """Draw two files below each other into a PNG, in the same colours; written beside, renamed.

    Raises TaskError without matplotlib, AudioError for sounds and places that cannot be used.
    """
    require()
    from matplotlib.figure import Figure

    levels = []
    for path in (before, after):
        with FileSource(path) as source:
            levels.append(spectrogram(source))
            extent = (0.0, source.samples / source.rate, 0.0, source.rate / 2000)
    top = float(levels[0].quantile(LOUDEST))
    heard = (levels[0] > top - RANGE_DB).any(1).nonzero()  # bins that are not all dark
    ceiling = extent[3] * (float(heard[-1]) + 1 if len(heard) else 0) / len(levels[0])
    figure = Figure(figsize=(11, 6.2), dpi=110, layout="constrained")
    axes = figure.subplots(2, 1, sharex=True, sharey=True)
    for axis, level, name in zip(axes, levels, ("before", "after"), strict=True):
        image = axis.imshow(
            level.numpy(),
            origin="lower",
            aspect="auto",
            extent=extent,
            cmap="magma",
            vmin=top - RANGE_DB,
            vmax=top,
            interpolation="nearest",
        )
        axis.set_ylim(0, min(max(1.05 * ceiling, LOWEST_CEILING), extent[3]))
        axis.set_ylabel("kHz")
        axis.set_title(name, loc="left", fontsize=10)
    axes[1].set_xlabel("s")
    bar = figure.colorbar(image, ax=axes, pad=0.01, aspect=40)
    bar.set_label("dB of a full-scale sine")
    title = figure.suptitle(f"{Path(before).name}, denoised by {model}", fontsize=12)
    title.set_parse_math(False)  # a file's name may hold dollar signs
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
