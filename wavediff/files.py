"""A model on files: from one to the other block by block, so that memory stays bounded."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavediff.audio import Source, open_input
from wavediff.background import Background
from wavediff.errors import AudioError
from wavediff.jobs import PIPE, Job
from wavediff.model import Model
from wavediff.tasks import DenoiseSettings
from wavediff.writer import Writer

PIECE = 4.0  # seconds that are read, measured and written at a time


@dataclass(frozen=True)
class Denoised:
    """What was done to a recording."""

    source: str
    target: str
    rate: int
    channels: int
    seconds: float  # length
    background_before: float  # dB, RMS of its quietest tenth; nan for silence
    background_after: float  # dB, at the same places
    limited: int  # samples beyond full scale
    peak: float  # the largest magnitude before that
    work_seconds: float

    @property
    def reduction(self) -> float:
        """How much quieter the background is, dB."""
        return self.background_before - self.background_after


class Remembered:
    """A source whose last stretch is kept, so that going back there decodes nothing again.

    Rendering reads a block ahead of what is written; a compressed file would start anew for each.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._keep = source, round(seconds * source.rate)
        self._start, self._kept = 0, torch.zeros(source.channels, 0)  # where it begins, and it

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return torch.zeros(self.channels, max(stop - start, 0))
        end = self._start + self._kept.shape[1]
        if not self._start <= low <= end:
            self._start, self._kept, end = low, self._kept[:, :0], low
        if high > end:
            kept = torch.cat((self._kept, self._source.read(end, high)), 1)
            drop = min(max(kept.shape[1] - self._keep, 0), low - self._start)
            self._start, self._kept = self._start + drop, kept[:, drop:].clone()
        piece = self._kept[:, low - self._start : high - self._start]
        return torch.nn.functional.pad(piece, (low - start, stop - high))


def denoise_file(
    model: Model, job: Job, settings: DenoiseSettings, progress: Callable[[float], None]
) -> Denoised:
    """Denoise one file; its rate, channels, length, level and sample format come back.

    `progress` is told the share that is done. Nothing is left at the target unless all went well.
    Raises AudioError for a sound that cannot be read or a place that cannot be written.
    """
    begin = time.monotonic()
    reach = settings.walk.calls * model.denoiser.receptive_field / model.recipe.rate
    with open_input(job.source) as file:
        source = Remembered(file, settings.block_seconds + 2 * reach + 2 * PIECE)
        result = model.denoise_source(source, settings)
        background = Background(source.rate)
        block = round(PIECE * source.rate / background.frame) * background.frame
        _make_folder(job.target)
        with Writer(job.target, source.rate, source.channels, file.info.subtype) as writer:
            for start in range(0, source.samples, block):
                stop = min(start + block, source.samples)
                clean = result.read(start, stop)
                background.add(source.read(start, stop), clean)
                writer.write(clean)
                progress(stop / source.samples)
    before, after = background.levels()
    return Denoised(
        job.source,
        job.target,
        source.rate,
        source.channels,
        source.samples / source.rate,
        before,
        after,
        writer.limited,
        writer.peak,
        time.monotonic() - begin,
    )


def _make_folder(target: str) -> None:
    if target == PIPE:
        return
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(
            f"{target} cannot be written: {error.strerror}", "choose a place where you may write"
        ) from None
