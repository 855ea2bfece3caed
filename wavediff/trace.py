"""A trace: what a model did to a recording, step by step.

The sampler is the one of every rendering: the network's calls are noted as they are made, over the
whole sound as one block and on one grid of frames. So the last guess is the result of one spin.
"""

import itertools
import math
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from wavediff.audio import ArraySource, Source
from wavediff.denoiser import Denoiser
from wavediff.errors import DataError, TaskError
from wavediff.fullband import FullBand
from wavediff.level import gain, gated_rms
from wavediff.model import Model
from wavediff.resample import resample, resampled
from wavediff.tasks import DenoiseSettings
from wavediff.transform import Transform
from wavediff.upper import UpperGains
from wavediff.vocoding import Mels, VocodeSettings, lead, resynthesised, rms

LONGEST = 60.0  # seconds; all states and guesses are held in memory
MOST_STEPS = 64
EDGES = (0.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0, 16000.0)  # Hz, of bands
FRAMES = Transform(1024, 256)  # in which errors are counted
TOLERANCE = 0.05  # seconds by which a reference may be longer or shorter


@dataclass(frozen=True)
class Step:
    """A call of the network: float32 (channels, samples) at the model's rate, as loud as heard."""

    t: float  # from 1, all of the corruption, to 0
    state: Tensor  # where the path is at t
    guess: Tensor  # what the network takes the clean sound for, seen from there


@dataclass(frozen=True)
class Trace:
    """A path that was walked."""

    task: str  # denoise or vocode
    rate: int  # of the steps, Hz
    steps: tuple[Step, ...]
    start: Source  # what the path began with, as a sound of the recording's rate
    sounds: tuple[Source, ...]  # the guesses as such sounds; the last is the task's result


class Share(NamedTuple):
    """What is left of the error that the path began with: 1 is all of it.

    nan where there was none.
    """

    whole: float
    bands: tuple[float, ...]  # see `bands`


def trace_denoise(model: Model, source: Source, settings: DenoiseSettings) -> Trace:
    """Denoise a recording, and keep what came before.

    Raises TaskError for one that is too long, for too many steps, and for a model of another task.
    """
    _limit(source.samples / source.rate, settings.steps)
    observed = resampled(source, model.rate)
    with recorded(model) as calls:
        one_block = replace(settings, block_seconds=LONGEST + 1, spins=1)
        model.denoise_source(source, one_block).read(0, source.samples)
    level = gain(gated_rms(observed))
    upper = model.above(source.rate)
    gains = None if upper is None else UpperGains(upper, level)

    def finished(guess: Tensor) -> Source:
        return FullBand(source, observed, ArraySource(guess, model.rate), settings.dry, gains)

    steps = _steps(calls, source.channels, lambda sound: sound / level)
    sounds = tuple(finished(step.guess) for step in steps)
    return Trace("denoise", model.rate, steps, source, sounds)


def trace_vocode(model: Model, source: Source, settings: VocodeSettings) -> Trace:
    """Make a recording again out of its mel, and keep what came before.

    Raises as `trace_denoise` does.
    """
    _limit(source.samples / source.rate, settings.steps or 1)
    preset, seen = model.preset, list[Mels]()

    def sound_of(mels: Mels) -> Source:
        seen.append(mels)
        return model.vocode_source(mels, replace(settings, block_seconds=LONGEST + 1))

    def finished(sound: Tensor) -> Source:
        return resynthesised(source, preset, lambda mels: ArraySource(sound, model.rate))

    with recorded(model) as calls:
        resynthesised(source, preset, sound_of).read(0, source.samples)
    factor, first = 1 / gain(rms(seen[0], preset)), lead(preset)
    samples = resampled(source, model.rate).samples
    inside = slice(first, first + samples)
    steps = _steps(calls, source.channels, lambda sound: factor * sound[:, inside])
    sounds = tuple(finished(step.guess) for step in steps)
    return Trace("vocode", model.rate, steps, finished(steps[0].state), sounds)


def trace(model: Model, source: Source, steps: int | None, sampler: str | None, seed: int) -> Trace:
    """Walk the model's path on a recording, whatever its task; see `trace_denoise`."""
    if model.recipe.command == "denoise":
        settings = DenoiseSettings(4 if steps is None else steps, sampler or "ddim", seed)
        return trace_denoise(model, source, settings)
    if model.recipe.command == "vocode":
        if sampler is not None:
            raise TaskError("a vocoder has one way and no samplers", "leave out --sampler")
        return trace_vocode(model, source, VocodeSettings(steps, seed))
    raise TaskError(
        f"{model.name} is a model to {model.recipe.command}: only models that denoise or vocode "
        "can be traced",
        "choose another -m; wavediff models list shows them",
    )


@contextmanager
def recorded(model: Model) -> Iterator[list[tuple[float, Tensor, Tensor]]]:
    """The calls of a model's network while it is used: times, states and guesses, in their order.

    Raises TaskError for a published model, which walks a way of its own.
    """
    calls: list[tuple[float, Tensor, Tensor]] = []

    def note(denoiser: torch.nn.Module, given: tuple[Tensor, ...], guess: Tensor) -> None:
        calls.append((round(float(given[2][0]), 6), given[0].cpu(), guess.cpu()))

    if not isinstance(model.denoiser, Denoiser):
        raise TaskError(f"{model.name} is a published model, which cannot be traced", "choose ours")
    hook = model.fast.register_forward_hook(note)
    try:
        yield calls
    finally:
        hook.remove()


def bands(rate: int) -> list[tuple[float, float]]:
    """The bands in which errors are counted, from and to Hz, up to half of the rate."""
    edges = [edge for edge in EDGES if edge < rate / 2] + [rate / 2]
    return list(itertools.pairwise(edges))


def remaining(traced: Trace, target: Tensor | None = None) -> list[tuple[Share, Share]]:
    """The error that is left at each step, of the state and of the guess.

    `target` (channels, samples) at the trace's rate is the clean sound, else the last guess stands
    for it. Errors are energies of the difference; for a vocoder, which invents its phases, those of
    the difference of magnitudes.
    """
    target = traced.steps[-1].guess if target is None else target
    begun = _errors(traced, traced.steps[0].state, target)

    def share(sound: Tensor) -> Share:
        left = _errors(traced, sound, target)
        each = zip(left, begun, strict=True)
        return Share(_ratio(sum(left), sum(begun)), tuple(_ratio(*pair) for pair in each))

    return [(share(step.state), share(step.guess)) for step in traced.steps]


def fitted(traced: Trace, reference: Tensor, rate: int) -> Tensor:
    """A reference (channels, samples) made as long as the steps, at their rate.

    Raises DataError for one of other channels or another length.
    """
    shape = traced.steps[0].state.shape
    sound = resample(reference, rate, traced.rate)
    longer = (sound.shape[1] - shape[1]) / traced.rate
    if len(sound) != shape[0] or abs(longer) > TOLERANCE:
        raise DataError(
            f"the reference has {len(sound)} channels and {sound.shape[1] / traced.rate:.2f} s, "
            f"the recording {shape[0]} and {shape[1] / traced.rate:.2f} s",
            "give the same recording without its noise, of the same length",
        )
    return torch.nn.functional.pad(sound, (0, max(0, -round(longer * traced.rate))))[:, : shape[1]]


def check_length(path: str | Path, seconds: float) -> None:
    """Raises TaskError for a recording that is too long to be traced, and says how to cut it."""
    if seconds > LONGEST:
        name = shlex.quote(str(path))
        raise TaskError(
            f"{path} lasts {seconds:.1f} s, a trace takes at most {LONGEST:.0f} s",
            f"cut a part out of it: ffmpeg -ss 0 -t 10 -i {name} part.wav",
        )


def _limit(seconds: float, steps: int) -> None:
    check_length("the recording", seconds)
    if steps > MOST_STEPS:
        raise TaskError(f"{steps} steps are too many to be traced", f"{MOST_STEPS} are the most")


def _steps(
    calls: list[tuple[float, Tensor, Tensor]], channels: int, heard: Callable[[Tensor], Tensor]
) -> tuple[Step, ...]:
    """Calls, made channel after channel, as steps; `heard` gives a sound its level and place."""
    each = len(calls) // channels
    return tuple(
        Step(
            calls[n][0],
            heard(torch.cat([state for _, state, _ in calls[n::each]])),
            heard(torch.cat([guess for _, _, guess in calls[n::each]])),
        )
        for n in range(each)
    )


def _errors(traced: Trace, sound: Tensor, target: Tensor) -> list[float]:
    """The energy of a sound's error in each band."""
    ours, theirs = FRAMES.analyse(sound), FRAMES.analyse(target)
    off = ours - theirs if traced.task == "denoise" else ours.abs() - theirs.abs()
    energy = off.abs().double().square().sum((0, 1))
    hertz = torch.arange(FRAMES.bins) * traced.rate / FRAMES.window
    parts = bands(traced.rate)
    top = parts[-1][1]
    return [
        float(energy[(hertz >= low) & ((hertz < high) | (high == top))].sum())
        for low, high in parts
    ]


def _ratio(left: float, begun: float) -> float:
    return left / begun if begun > 0 else math.nan
