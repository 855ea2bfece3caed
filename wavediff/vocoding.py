"""Vocoding: from a mel spectrogram to the sound that it may be of.

The mel's pseudo-inverse gives magnitudes and Griffin and Lim's iterations phases to them: that is
what the network observes. The network's frames are the mel's frames, so its time begins `lead`
samples before the sound does.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from wavediff.audio import Source
from wavediff.denoiser import Denoiser
from wavediff.errors import MelError, TaskError
from wavediff.level import GATE, gain
from wavediff.mel import MelOf, MelPreset, compress, filterbank, linear, magnitudes, plain
from wavediff.path import FromObservation
from wavediff.phase import Phased, griffin_lim, locked_phase, with_phase
from wavediff.render import BLOCK_SECONDS, Rendered, Request
from wavediff.resample import resampled
from wavediff.samplers import Walk
from wavediff.transform import Transform

HEARD = 0.05  # of a band's peak, up to where the highest band is taken to reach
FARTHEST = 10.0  # times that a band is raised or lowered in a pass
PIECE = 4096  # frames that are measured at a time
SHARPENING = 10  # steps towards magnitudes that have a mel
TINY = 1e-9
TOP = 0.85  # of the highest band, from where on the mel says how loud the band above it may be
ABOVE = 0.5  # of that, is what the start has there


class Mels(Protocol):
    """A mel spectrogram that is read by frames, like a source by samples."""

    @property
    def channels(self) -> int: ...
    @property
    def frames(self) -> int: ...
    def read(self, first: int, last: int) -> Tensor:
        """(channels, bands, last - first), the frames at its ends repeated beyond them."""


def transform_of(preset: MelPreset) -> Transform:
    """The frames under a mel: plain Hann windows."""
    return Transform(preset.window, preset.hop, 1.0)


def lead(preset: MelPreset) -> int:
    """Samples by which the network's time begins earlier than the sound: then frames coincide."""
    return (preset.hop - preset.offset) % preset.hop


def padding(preset: MelPreset) -> int:
    """Frames by which the network's time begins before the mel's first."""
    return 1 if preset.offset else 0


def framed(mel: Tensor, preset: MelPreset) -> Tensor:
    """A whole mel (batch, bands, frames) for all frames of the network, its ends repeated."""
    reach = padding(preset)
    return F.pad(mel, (reach, reach), mode="replicate") if reach else mel


def phased(
    magnitude: Tensor, transform: Transform, samples: int, first: Tensor, iterations: int
) -> Tensor:
    """A sound (batch, samples) for magnitudes (batch, frames, bins).

    `first` (batch, bins) are the phases of the first frame, in cycles.
    """
    spectrum = with_phase(magnitude, locked_phase(magnitude, transform, first))
    return griffin_lim(magnitude, transform, samples, spectrum, iterations)


def start_magnitudes(mel: Tensor, preset: MelPreset) -> Tensor:
    """(batch, bands, frames) to (batch, frames, bins), the band that no mel tells of filled up.

    Magnitudes that have this mel and are nowhere negative, found by multiplicative steps (Lee and
    Seung 2001) from bands spread over their bins: sharper than a pseudo-inverse cut off at zero.
    """
    bands, wanted = filterbank(preset, mel.device), _summed(mel, preset)
    spread = bands / (bands.sum(0) + TINY)
    with torch.autocast(mel.device.type, enabled=False):
        magnitude = wanted @ (bands / bands.sum(1, keepdim=True).square()) + TINY
        for _ in range(SHARPENING):
            magnitude = magnitude * (wanted / (magnitude @ bands.T + TINY) @ spread)
    edge = int(preset.high / preset.rate * preset.window)
    if edge < preset.bins - 1:
        level = ABOVE * magnitude[..., int(TOP * edge) : edge].mean(-1, keepdim=True)
        above = level.expand(*level.shape[:-1], preset.bins - edge)
        magnitude = torch.cat((magnitude[..., :edge], above), -1)
    return magnitude


def matched(sound: Tensor, mel: Tensor, preset: MelPreset, passes: int) -> Tensor:
    """A sound (batch, samples) brought to the mel (batch, bands, frames) that it is to have.

    In each pass every band of every frame is raised or lowered to what the mel says; what lies
    above its bands follows the last. As frames overlap, one pass is not enough.
    """
    transform, bands = transform_of(preset), filterbank(preset, sound.device)
    shares = bands / bands.amax(1, keepdim=True)
    total = shares.sum(0)
    last = int((total > HEARD).nonzero()[-1])
    shares = shares / (total + TINY)
    shares = torch.cat((shares[:, :last], shares[:, last:][:, :1].expand(-1, len(total) - last)), 1)
    wanted = _summed(mel, preset) + preset.floor
    with torch.autocast(sound.device.type, enabled=False):
        for _ in range(passes):
            spectrum = transform.analyse(sound)
            # Several times as fast as abs(), and with a slope at zero as well.
            power = spectrum.real.square() + spectrum.imag.square()
            ratio = wanted / ((power + TINY**2).sqrt() @ bands.T + preset.floor)
            gains = ratio.clamp(1 / FARTHEST, FARTHEST) @ shares
            sound = transform.synthesise(spectrum * gains, sound.shape[-1])
    return sound


def _summed(mel: Tensor, preset: MelPreset) -> Tensor:
    """What a mel says of the magnitudes under plain windows: (batch, frames, bands)."""
    return magnitudes(mel, preset).mT * plain(preset)


@dataclass(frozen=True)
class Refinement(FromObservation):
    """From a start with guessed phases to the clean sound, by what the network makes of it.

    Every guess is brought to the mel that it must have, which is known, and is the next state.
    There is no noise on this way.
    """

    preset: MelPreset
    passes: int  # see `matched`

    @property
    def reach(self) -> int:
        """Samples to either side that a step depends on, beside the network's."""
        return self.passes * self.preset.window

    def finish(self, guess: Tensor, *known: Tensor) -> Tensor:
        return matched(guess, known[0], self.preset, self.passes)

    def corrupt(self, clean: Tensor, observation: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return observation

    def advance(
        self,
        x: Tensor,
        guess: Tensor,
        observation: Tensor,
        t: float,
        t_next: float,
        noise: Tensor | None,
    ) -> Tensor:
        return guess


class VocodeConfig(BaseModel):
    """What happens around the calls of a vocoder's network."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    steps: int = Field(1, gt=0, description="calls where none are asked for")
    iterations: int = Field(0, ge=0, description="of Griffin-Lim, before the first call")
    passes: int = Field(2, ge=0, description="in which a guess is brought to its mel")
    rollout: float = Field(
        0.0, ge=0, le=1, description="share of steps on the states before a second or later call"
    )


@dataclass(frozen=True)
class VocodeSettings:
    """What the user of a vocoder may choose."""

    steps: int | None = None  # network calls; None for what the model is made for
    seed: int = 0
    block_seconds: float = BLOCK_SECONDS

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise TaskError(f"{self.steps} steps are not possible", "--steps takes 1 and more")


@dataclass(frozen=True)
class ArrayMels:
    """A mel in memory, (bands, frames) or (batch, bands, frames), tensor or array."""

    values: Tensor | np.ndarray
    preset: MelPreset

    def __post_init__(self) -> None:
        shape = tuple(self.values.shape)
        if len(shape) not in (2, 3) or shape[-2] != self.preset.bands or 0 in shape:
            raise MelError(
                f"a mel of shape {shape}, the model takes ({self.preset.bands}, frames)",
                f"its preset is {self.preset.name}; wavediff check FILE.npy tells what a mel is",
            )
        if not bool(self._copied().isfinite().all()):
            raise MelError("the mel has values that are NaN or infinite", "repair it first")

    @property
    def channels(self) -> int:
        """How many mels there are."""
        return 1 if self.values.ndim == 2 else int(self.values.shape[0])

    @property
    def frames(self) -> int:
        """Of each."""
        return int(self.values.shape[-1])

    def _copied(self) -> Tensor:
        """All values, float32 on the CPU."""
        if isinstance(self.values, Tensor):
            return self.values.detach().to("cpu", torch.float32).contiguous()
        # numpy makes the copy: torch takes neither reversed arrays nor another byte order
        return torch.from_numpy(np.array(self.values, np.float32, order="C"))

    def items(self) -> Iterator["ArrayMels"]:
        """Each mel of a batch by itself."""
        for n in range(self.channels):
            yield self if self.values.ndim == 2 else ArrayMels(self.values[n], self.preset)

    def read(self, first: int, last: int) -> Tensor:
        """(channels, bands, last - first), the frames at its ends repeated beyond them."""
        wanted = torch.arange(first, last).clamp(0, self.frames - 1)
        values = self._copied()
        return values.reshape(self.channels, self.preset.bands, -1)[..., wanted]


def rms(mels: Mels, preset: MelPreset) -> float:
    """The RMS level of the sound that a mel is of, pauses left out."""
    window = torch.hann_window(preset.window, dtype=torch.float64)
    whole = preset.window * float(window.square().sum())
    powers = []
    for first in range(0, mels.frames, PIECE):
        magnitude = linear(mels.read(first, min(first + PIECE, mels.frames)), preset)
        powers.append(2 * magnitude.double().square().sum(-1).mean(0) / whole)  # Parseval
    power = torch.cat(powers)
    active = power[power > GATE * power.mean()]
    return float(active.mean().sqrt()) if active.numel() else 0.0


@dataclass(frozen=True)
class _Levelled:
    """Mels brought to the level of the training, the frames at their ends repeated beyond them."""

    mels: Mels
    preset: MelPreset
    factor: float

    @property
    def channels(self) -> int:
        return self.mels.channels

    @property
    def frames(self) -> int:
        return self.mels.frames

    def read(self, first: int, last: int) -> Tensor:
        wanted = torch.arange(first, last).clamp(0, self.frames - 1)
        low, high = int(wanted[0]), int(wanted[-1]) + 1
        mel = self.mels.read(low, high)[..., wanted - low]
        return compress(self.factor * magnitudes(mel, self.preset), self.preset)


class Start:
    """What the network observes: a source in its own time, which begins `lead` samples early."""

    def __init__(self, mels: Mels, preset: MelPreset, iterations: int, seed: int) -> None:
        self.rate, self.channels = preset.rate, mels.channels
        self.samples = preset.samples(mels.frames) + lead(preset)
        self._mels, self._preset, self._transform = mels, preset, transform_of(preset)
        self._sound = Phased(
            self._magnitudes,
            self._transform,
            self.rate,
            self.channels,
            self.samples,
            iterations,
            seed,
        )

    def known(self, channel: int, start: int, stop: int) -> tuple[Tensor]:
        """The mel (1, bands, frames) of the network's frames from sample `start` on."""
        first = start // self._preset.hop
        mel = self._frames(first, first + self._transform.frames(stop - start))
        return (mel[channel : channel + 1],)

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        return self._sound.read(start, stop)

    def _frames(self, first: int, last: int) -> Tensor:
        shift = padding(self._preset)
        return _Levelled(self._mels, self._preset, 1.0).read(first - shift, last - shift)

    def _magnitudes(self, first: int, last: int) -> Tensor:
        return start_magnitudes(self._frames(first, last), self._preset)


class Part:
    """A stretch of a source, `samples` long, from sample `first` on; it may end in silence."""

    def __init__(self, source: Source, first: int, samples: int, factor: float = 1.0) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, samples
        self._source, self._first, self._factor = source, first, factor

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return torch.zeros(self.channels, max(stop - start, 0))
        sound = self._source.read(low + self._first, high + self._first)
        return F.pad(self._factor * sound, (low - start, stop - high))


def vocode(
    mels: Mels,
    denoiser: Denoiser,
    preset: MelPreset,
    made: VocodeConfig,
    settings: VocodeSettings,
    device: torch.device,
) -> Source:
    """The sound of a mel of this preset, computed as it is read, in rising order."""
    factor = gain(rms(mels, preset))
    levelled = _Levelled(mels, preset, factor)
    begun = Start(levelled, preset, made.iterations, settings.seed)
    walk = Walk("ddim", settings.steps or made.steps)
    request = Request(walk, settings.seed, settings.block_seconds)

    def known(channel: int, first: int, last: int) -> tuple[Tensor]:
        (mel,) = begun.known(channel, first, last)
        return (mel.to(device),)

    rendered = Rendered(begun, denoiser, 1.0, request, device, known)
    return Part(rendered, lead(preset), rendered.samples - lead(preset), 1 / factor)


def resynthesised(source: Source, preset: MelPreset, sound_of: Callable[[Mels], Source]) -> Source:
    """What becomes of a recording by way of its mel: the same rate, channels and length."""
    inside = resampled(source, preset.rate)
    # A mel ends with whole hops: beyond its end a recording counts as silence.
    whole = Part(inside, 0, -(-inside.samples // preset.hop) * preset.hop)
    sound = sound_of(MelOf(whole, preset))
    back = resampled(Part(sound, 0, inside.samples), source.rate)
    return Part(back, 0, source.samples)
