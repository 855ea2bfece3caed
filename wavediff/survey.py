"""What is in recordings: measured file by file, and what that means for a training."""

import hashlib
import math
import os
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from wavediff.audio import FileSource
from wavediff.data import Skipped
from wavediff.errors import WavediffError
from wavediff.level import GATE
from wavediff.model import choose_device
from wavediff.recipe import Recipe
from wavediff.trainer import Trainer

FRAME = 0.02  # seconds, of levels
BLOCK = 10.0  # seconds read at a time
SILENCE = 1e-8  # power of a frame, -80 dB, below which it holds nothing
QUIETEST = 0.1  # share of the sounding frames that shows the noise
ABOVE_NOISE = 1.5  # power of a frame that is more than that noise
LEAST = 1e-2  # ratio, -20 dB
FLAT = 1e-5  # difference of neighbours within a clipped peak
FULL_SCALE = 0.999
EMPTY_DB = 70.0  # below the strongest frequency: lower than any room's or recorder's own noise
ABOVE_EMPTY = 0.25  # of the way up from there to the strongest, in dB: what stands out of it

TIMED = 4  # items of a timed step on a CPU

CLIPPED = 1e-4  # share of samples
SILENT = 0.9  # share of the time
NOISY = 20.0  # dB
DULL = 0.75  # of the model's band
LITTLE = 600.0  # seconds


@dataclass(frozen=True)
class Measured:
    """What one recording is like."""

    path: Path
    rate: int
    channels: int
    seconds: float
    level: float  # dB RMS of what sounds, pauses left out; nan for silence
    clipped: float  # share of samples in flat peaks
    silent: float  # share of the time below -80 dB
    speech_to_noise: float  # dB: what sounds against its quietest tenth; nan for silence
    bandwidth: float  # Hz up to which there is anything
    digest: str  # the same for the same sound, whatever the container


@dataclass(frozen=True)
class Survey:
    """A set of recordings."""

    files: tuple[Measured, ...]
    broken: tuple[Skipped, ...]

    @property
    def seconds(self) -> float:
        return sum(file.seconds for file in self.files)

    @property
    def duplicates(self) -> list[list[Path]]:
        """Groups of files with the same sound."""
        same: dict[str, list[Path]] = defaultdict(list)
        for file in self.files:
            same[file.digest].append(file.path)
        return [paths for paths in same.values() if len(paths) > 1]


@dataclass(frozen=True)
class Advice:
    """A group of files that a training would suffer from, and what to do."""

    problem: str  # broken, clipped, silent, noisy, dull, duplicate, short, little
    text: str
    files: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a training costs here, without the preparation of its batches."""

    parameters: int
    reach: float  # seconds to either side that the network hears
    step_seconds: float  # nan when it was not measured
    audio_per_step: float  # seconds

    def hours(self, steps: int) -> float:
        """What `steps` steps would take."""
        return steps * self.step_seconds / 3600


def measure(path: Path) -> Measured:
    """Read a whole file, block by block. Raises AudioError for one that cannot be used."""
    with FileSource(path) as source:
        rate = source.rate
        frame = max(1, round(FRAME * rate))
        window = 2 ** round(math.log2(2 * frame))
        block = math.ceil(BLOCK * rate / (frame * window)) * frame * window
        powers, spectrum, clipped = [], torch.zeros(window // 2 + 1, dtype=torch.float64), 0
        content = hashlib.blake2b(f"{rate} {source.channels}".encode(), digest_size=16)
        for start in range(0, source.samples, block):
            sound = source.read(start, min(start + block, source.samples))
            content.update((sound * 32767).round().to(torch.int32).numpy().tobytes())
            clipped += _clipped(sound)
            powers.append(_framed(sound, frame).pow(2).mean((0, 2)))
            shaped = _framed(sound, window) * torch.hann_window(window)
            spectrum += torch.fft.rfft(shaped).abs().double().pow(2).sum((0, 1))
        power = torch.cat(powers).double()
        level, ratio = _levels(power)
        return Measured(
            path,
            rate,
            source.channels,
            source.samples / rate,
            level,
            clipped / (source.samples * source.channels),
            float((power < SILENCE).double().mean()),
            ratio,
            _bandwidth(spectrum, rate),
            content.hexdigest(),
        )


def survey(paths: Sequence[Path], progress: Callable[[float], None]) -> Survey:
    """Measure every file; `progress` is told the share that is done."""
    files: list[Measured] = []
    broken: list[Skipped] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for number, found in enumerate(pool.map(_measured, paths)):
            if isinstance(found, Skipped):
                broken.append(found)
            else:
                files.append(found)
            progress((number + 1) / len(paths))
    return Survey(tuple(files), tuple(broken))


def advise(found: Survey, recipe: Recipe) -> list[Advice]:
    """What to do before training with `recipe` on these files."""
    crop, band = recipe.training.crop, recipe.rate / 2
    advice = []

    def add(problem: str, text: str, files: Sequence[Path]) -> None:
        if files:
            advice.append(Advice(problem, text, tuple(files)))

    def which(test: Callable[[Measured], bool]) -> list[Path]:
        return [file.path for file in found.files if test(file)]

    add(
        "broken",
        "cannot be read and are left out of a training: fetch or export them again",
        [file.path for file in found.broken],
    )
    add(
        "silent",
        "hold nothing but silence: take them out",
        which(lambda f: f.silent > SILENT),
    )
    add(
        "clipped",
        "are clipped: as clean recordings they teach distortion, take out the worst",
        which(lambda f: f.clipped > CLIPPED),
    )
    add(
        "noisy",
        f"are noise, or have it less than {NOISY:.0f} dB below the speech: as clean recordings "
        "they teach a denoiser to leave that in",
        which(lambda f: f.speech_to_noise < NOISY and f.silent <= SILENT),
    )
    add(
        "dull",
        f"hold nothing in the top of the model's band of {band / 1000:g} kHz: a model learns to "
        "sound dull from them, use a lower --set rate or better sources",
        which(lambda f: f.bandwidth < DULL * band and f.silent <= SILENT),
    )
    add(
        "duplicate",
        "are the same sound as another: each counts as often as it is there",
        [path for group in found.duplicates for path in group[1:]],
    )
    add(
        "short",
        f"are shorter than the crop of {crop:g} s: they are padded with silence; if most are, "
        "lower --set training.crop",
        which(lambda f: f.seconds < crop),
    )
    if found.seconds < LITTLE:
        text = f"{found.seconds / 60:.1f} minutes are little to learn from: begin with --init MODEL"
        advice.append(Advice("little", text))
    return advice


def cost(recipe: Recipe, device: str, timed: bool = True) -> Cost:
    """The size of a recipe's network and, if `timed`, how long a step of its training takes here.

    Two steps are made, on noise; the second is timed. On a CPU a few items stand for the batch.
    """
    settings = recipe.training
    trainer = Trainer(recipe, choose_device(device))
    seconds = math.nan
    if timed:
        items = settings.batch if trainer.device.type != "cpu" else min(settings.batch, TIMED)
        batch = trainer.objective.example(items)
        trainer.advance(batch)
        begin = time.perf_counter()
        trainer.advance(batch)
        seconds = (time.perf_counter() - begin) * settings.batch / items
    return Cost(
        sum(parameter.numel() for parameter in trainer.denoiser.parameters()),
        trainer.denoiser.receptive_field / recipe.rate,
        seconds,
        settings.batch * settings.crop,
    )


def _measured(path: Path) -> Measured | Skipped:
    try:
        return measure(path)
    except WavediffError as error:
        return Skipped(path, error.message)


def _framed(sound: Tensor, frame: int) -> Tensor:
    """(channels, samples) as (channels, frames, frame), the last one filled up with silence."""
    return torch.nn.functional.pad(sound, (0, -sound.shape[1] % frame)).unflatten(1, (-1, frame))


def _clipped(sound: Tensor) -> int:
    """Samples in runs of three or more that stand still at the top of their block."""
    height = sound.abs()
    top = (0.95 * height.amax()).clamp(min=0.05)
    flat = (sound.diff().abs() <= FLAT) | (height[:, 1:] >= FULL_SCALE) & (
        height[:, :-1] >= FULL_SCALE
    )
    still = flat & (height[:, 1:] >= top)
    middle = still[:, 1:] & still[:, :-1]  # the last of three
    within = torch.nn.functional.pad(middle, (2, 2))
    return int((within[:, 2:] | within[:, 1:-1] | within[:, :-2]).sum())


def _levels(power: Tensor) -> tuple[float, float]:
    """The RMS of what sounds, and how far the quietest tenth of that lies below; dB."""
    sounding = power[power > SILENCE]
    if not len(sounding):
        return math.nan, math.nan
    loud = sounding[sounding > GATE * sounding.mean()]
    noise = sounding.sort().values[: math.ceil(QUIETEST * len(sounding))].mean()
    speech = loud[loud > ABOVE_NOISE * noise]
    ratio = max(float(speech.mean() / noise) - 1, LEAST) if len(speech) else LEAST
    return 10 * math.log10(loud.mean()), 10 * math.log10(ratio)


def _bandwidth(spectrum: Tensor, rate: int) -> float:
    """The frequency above which a mean power spectrum (bins,) is empty, Hz."""
    smooth = torch.nn.functional.avg_pool1d(spectrum[None], 5, 1, 2, count_include_pad=False)[0]
    level = 10 * smooth.clamp(min=1e-12).log10()
    top, floor = float(level.max()), float(level[len(level) // 4 :].min())
    if top <= -100:
        return 0.0
    if top - floor < EMPTY_DB:
        return rate / 2
    above = (level > floor + ABOVE_EMPTY * (top - floor)).nonzero()
    return float(above[-1]) * rate / 2 / (len(level) - 1)
