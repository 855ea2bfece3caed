"""An exhibit: one recording by all systems, as sounds and pictures that a page can hold."""

import base64
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile as sf
import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import ArraySource, Source, probe, read
from wavediff.model import Model
from wavediff.plot import RANGE_DB, SILENT, Drawn, spectrogram
from wavediff.trace import Trace, check_length, fitted, remaining, trace

REFERENCE, NOISY = "reference", "noisy"  # what these two are called
SIZE = (128, 400)  # rows and columns of a spectrogram
SHADES = 40  # of its colours: few, so that it is small
STOPS = 9  # of the colours' legend


@dataclass(frozen=True)
class Walked:
    """The model that makes sounds for the page itself, and shows its path."""

    model: Model
    steps: int | None = None
    seed: int = 0

    @property
    def name(self) -> str:
        return Path(self.model.name).name

    @property
    def denoises(self) -> bool:
        """Whether it takes the noisy recordings; else the references, by way of their mels."""
        return self.model.recipe.command == "denoise"


@dataclass(frozen=True)
class Sound:
    """A sound of a recording."""

    label: str
    audio: str  # FLAC, base64
    picture: str  # PNG, base64
    scores: Sequence[str] = ()  # in words


@dataclass(frozen=True)
class Stop:
    """A place of the step slider."""

    sound: int  # of the recording's
    text: str


@dataclass(frozen=True)
class Recording:
    """One recording by all systems: first the sounds to switch between, then those of the path."""

    name: str
    seconds: float
    ceiling: float  # kHz up to which spectrograms are drawn
    sounds: tuple[Sound, ...]
    shown: int  # how many of the sounds are no steps
    path: tuple[Stop, ...]


def sounds(
    paths: Mapping[str, Path], walked: Walked | None
) -> tuple[dict[str, ArraySource], Trace | None]:
    """All sounds of a recording, what the model makes of it among them, and its trace.

    Raises AudioError for files that cannot be read, TaskError for those that are too long.
    """
    for path in paths.values():
        check_length(path, probe(path).seconds)
    heard = {label: ArraySource(*read(path)) for label, path in paths.items()}
    if walked is None:
        return heard, None
    given = heard[NOISY if walked.denoises else REFERENCE]
    traced = trace(walked.model, given, walked.steps, None, walked.seed)
    heard[walked.name] = _kept(traced.sounds[-1])
    return heard, traced


def exhibit(
    name: str,
    heard: Mapping[str, ArraySource],
    scores: Mapping[str, Sequence[str]],
    path: Trace | None,
) -> Recording:
    """Make sounds and spectrograms ready, all spectrograms in the same colours and scales."""
    reference, labels = heard[REFERENCE], list(heard)
    every, stops = dict(heard), list[Stop]()
    if path is not None:
        left = remaining(path, fitted(path, reference.audio, reference.rate))
        text = "the noisy recording"
        if path.task == "vocode":
            text, every["start"] = "guessed phases for the mel", _kept(path.start)
        start = "start" if path.task == "vocode" else NOISY
        stops.append(Stop(list(every).index(start), text))
        for number, (step, source, share) in enumerate(
            zip(path.steps, path.sounds, left, strict=True), 1
        ):
            place = len(labels) - 1  # the last guess is the model's own sound
            if number < len(path.steps):
                place = len(every)
                every[f"guess {number}"] = _kept(source)
            text = f"guess {number} of {len(path.steps)}, at t = {step.t:.2f}"
            stops.append(Stop(place, text + _error(share[1].whole)))
    drawn = {
        label: Drawn(spectrogram(each, SIZE[1]), each.samples / each.rate, each.rate / 2000)
        for label, each in every.items()
    }
    top = max(each.top for each in drawn.values())
    ceiling = max(each.ceiling(top) for each in drawn.values())
    ready = tuple(
        Sound(
            label,
            _base64(flac(each.audio, each.rate)),
            _base64(picture(drawn[label], top, ceiling)),
            scores.get(label, ()),
        )
        for label, each in every.items()
    )
    seconds = reference.samples / reference.rate
    return Recording(name, seconds, ceiling, ready, len(labels), tuple(stops))


def flac(sound: Tensor, rate: int) -> bytes:
    """(channels, samples) as a FLAC file of 16 bits, limited at full scale."""
    levels = (sound.double() * 2**15).round().clamp(-(2**15), 2**15 - 1)
    file = io.BytesIO()
    frames = np.ascontiguousarray(levels.to(torch.int16).T.numpy())
    sf.write(file, frames, rate, format="FLAC", subtype="PCM_16")
    return file.getvalue()


def picture(drawn: Drawn, top: float, ceiling: float) -> bytes:
    """A spectrogram from 0 to `ceiling` kHz as a small PNG; `top` dB are its loudest colour."""
    from PIL import Image

    bins = max(1, round(ceiling / drawn.highest * len(drawn.level)))
    above = max(0, bins - len(drawn.level))  # a lower rate has nothing there
    level = F.pad(drawn.level[:bins], (0, 0, 0, above), value=10 * math.log10(SILENT))
    shades = F.adaptive_avg_pool2d(level[None], SIZE)[0].flip(0)
    shades = ((shades - top) / RANGE_DB + 1).clamp(0, 1) * (SHADES - 1)
    image = Image.fromarray(shades.round().to(torch.uint8).numpy()).convert("P")
    image.putpalette([round(255 * part) for colour in _colours(SHADES) for part in colour])
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True, bits=6)
    return file.getvalue()


def legend() -> list[str]:
    """The colours of the spectrograms, from quiet to loud, as CSS has them."""
    return ["#" + bytes(round(255 * part) for part in colour).hex() for colour in _colours(STOPS)]


def _colours(count: int) -> list[tuple[float, ...]]:
    from matplotlib import colormaps

    return [colormaps["magma"](n / (count - 1))[:3] for n in range(count)]


def _error(share: float) -> str:
    return "" if math.isnan(share) else f", {100 * share:.0f} % of the error left"


def _kept(source: Source) -> ArraySource:
    return ArraySource(source.read(0, source.samples), source.rate)


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")
