"""The published DiffWave: its network, its schedules and its way of sampling, beside our own.

Kong et al. 2021, "DiffWave: A Versatile Diffusion Model for Audio Synthesis", in the form whose
checkpoints people have (lmnt-com/diffwave); `published_import` reads those.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from wavediff.errors import MelError

HOP = 256  # samples of a mel frame: two up-samplers by 16
SLOPE = 0.4  # of the leaky ReLU behind each of them
MEL_REACH = 391  # samples to either side from which frames reach a sample, through both of them
CODE = 512  # numbers that tell the layers the step


class PublishedConfig(BaseModel):
    """The size of a `PublishedNet`, and the variances of the noise it was made for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(64, gt=0, le=4096, description="channels of a residual layer")
    layers: int = Field(30, gt=0, le=1000, description="residual layers")
    cycle: int = Field(10, gt=0, le=20, description="layers after which dilations 1, 2, 4 … repeat")
    bands: int = Field(80, ge=0, le=4096, description="bands of the mel; 0 for unconditional")
    training_schedule: tuple[float, ...] = Field(
        tuple(np.linspace(1e-4, 0.05, 50).tolist()),
        min_length=2,
        max_length=1000,
        description="variance of the noise that each training step adds",
    )
    inference_schedule: tuple[float, ...] = Field(
        (1e-4, 1e-3, 0.01, 0.05, 0.2, 0.5),
        min_length=1,
        max_length=1000,
        description="the same for the few steps of fast sampling",
    )

    @model_validator(mode="after")
    def _fits(self) -> "PublishedConfig":
        for schedule in (self.training_schedule, self.inference_schedule):
            if not all(a > b > 0 for a, b in pairwise([1.0, *_cumulated(schedule)])):
                raise ValueError("a schedule has to be of variances between 0 and 1")
        Schedule.of(self, fast=True)
        return self

    @property
    def dilations(self) -> list[int]:
        """Of each layer, in samples."""
        return [2 ** (layer % self.cycle) for layer in range(self.layers)]

    @property
    def steps(self) -> int:
        """Of the training, and of sampling with the full schedule."""
        return len(self.training_schedule)


@dataclass(frozen=True)
class Schedule:
    """A walk from noise to sound, its steps numbered from the sound's end (Ho et al. 2020)."""

    beta: list[float]  # the variance that a step adds
    alpha_cum: list[float]  # what is left of the sound's power
    steps: list[float]  # what the network is told: places between training steps

    @classmethod
    def of(cls, config: PublishedConfig, fast: bool) -> "Schedule":
        """The few steps of fast sampling, or all steps of the training."""
        known = _cumulated(config.training_schedule)
        beta = config.inference_schedule if fast else config.training_schedule
        alpha_cum = _cumulated(beta)
        return cls(list(beta), alpha_cum, [_place(level, known) for level in alpha_cum])

    def advance(self, x: Tensor, eps: Tensor, number: int, noise: Tensor | None) -> Tensor:
        """The state after step `number`, within [-1, 1], given the network's answer at it."""
        beta, lost = self.beta[number], 1 - self.alpha_cum[number]
        x = (x - beta / math.sqrt(lost) * eps) / math.sqrt(1 - beta)
        if noise is not None:
            x = x + math.sqrt((1 - self.alpha_cum[number - 1]) / lost * beta) * noise
        return x.clamp(-1, 1)


def _cumulated(schedule: tuple[float, ...]) -> list[float]:
    """What is left of the sound's power after each step, in float64."""
    return np.cumprod(1 - np.array(schedule, np.float64)).tolist()


def _place(level: float, known: list[float]) -> float:
    """The training step with so much of the sound left; between two, linear in amplitude."""
    for step, (before, after) in enumerate(pairwise(known)):
        if after <= level <= before:
            root, high, low = math.sqrt(level), math.sqrt(before), math.sqrt(after)
            return step + (high - root) / (high - low)
    raise ValueError("the inference schedule leaves the range of the training schedule")


def step_table(steps: int) -> Tensor:
    """(steps, 128): sines, then cosines of each step at 64 frequencies from 1 to 10,000.

    Their arguments are rounded to float32 as the published table's are: at 490,000 that moves an
    angle by up to 0.03, which trained weights know. The rest is exact, the same on every machine.
    """
    exponent = torch.arange(64) * 4.0 / 63.0
    frequency = (10.0 ** exponent.double()).float()
    angle = (torch.arange(steps)[:, None] * frequency).double()
    return torch.cat((angle.sin(), angle.cos()), 1).float()


class StepCode(nn.Module):
    """What tells the layers the step; between two whole steps it interpolates their table rows."""

    table: Tensor  # (steps, 128)

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.register_buffer("table", step_table(steps), persistent=False)
        self.projection1 = nn.Linear(128, CODE)
        self.projection2 = nn.Linear(CODE, CODE)

    def forward(self, step: Tensor) -> Tensor:
        """(batch,) integers or floats to (batch, 512)."""
        low, high = step.floor().long(), step.ceil().long()
        share = (step - low).to(self.table)[:, None]
        row = torch.lerp(self.table[low], self.table[high], share)
        return F.silu(self.projection2(F.silu(self.projection1(row))))


class MelUpsampler(nn.Module):
    """From mel frames to samples, by two transposed convolutions over bands and time."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.ConvTranspose2d(1, 1, (3, 32), stride=(1, 16), padding=(1, 8))
        self.conv2 = nn.ConvTranspose2d(1, 1, (3, 32), stride=(1, 16), padding=(1, 8))

    def forward(self, mel: Tensor) -> Tensor:
        """(batch, bands, frames) to (batch, bands, frames * HOP)."""
        x = F.leaky_relu(self.conv1(mel[:, None]), SLOPE)
        return F.leaky_relu(self.conv2(x), SLOPE)[:, 0]


class ResidualLayer(nn.Module):
    """A dilated convolution and a gate; half of its answer goes on, half goes to the end."""

    def __init__(self, config: PublishedConfig, dilation: int) -> None:
        super().__init__()
        wide = 2 * config.channels
        self.dilated_conv = _conv(config.channels, wide, 3, dilation)
        self.diffusion_projection = nn.Linear(CODE, config.channels)
        self.conditioner_projection = _conv(config.bands, wide) if config.bands else None
        self.output_projection = _conv(config.channels, wide)

    def forward(self, x: Tensor, code: Tensor, mel: Tensor | None) -> tuple[Tensor, Tensor]:
        """(batch, channels, samples), (batch, 512), (batch, bands, samples): onward and skip."""
        wide = self.dilated_conv(x + self.diffusion_projection(code)[:, :, None])
        if self.conditioner_projection is not None:
            wide = wide + self.conditioner_projection(mel)
        gate, value = wide.chunk(2, 1)
        onward, skip = self.output_projection(gate.sigmoid() * value.tanh()).chunk(2, 1)
        return (x + onward) / math.sqrt(2), skip


def _conv(inputs: int, outputs: int, taps: int = 1, dilation: int = 1) -> nn.Conv1d:
    conv = nn.Conv1d(inputs, outputs, taps, padding=taps // 2 * dilation, dilation=dilation)
    nn.init.kaiming_normal_(conv.weight)
    return conv


class PublishedNet(nn.Module):
    """Answers with the noise in a sound, given the step; its weights are named as published."""

    def __init__(self, config: PublishedConfig) -> None:
        super().__init__()
        self.config = config
        self.input_projection = _conv(1, config.channels)
        self.diffusion_embedding = StepCode(config.steps)
        self.spectrogram_upsampler = MelUpsampler() if config.bands else None
        self.residual_layers = nn.ModuleList(ResidualLayer(config, d) for d in config.dilations)
        self.skip_projection = _conv(config.channels, config.channels)
        self.output_projection = _conv(config.channels, 1)
        nn.init.zeros_(self.output_projection.weight)

    @property
    def receptive_field(self) -> int:
        """Samples to either side that one sample of the answer can depend on, in x or mel."""
        return self.reach(1)

    def reach(self, calls: int) -> int:
        """The same for the result of so many calls in a row; all have the same mel."""
        dilations = self.config.dilations
        # The mel is added behind the first convolution, and so does not go through it.
        mel = MEL_REACH - dilations[0] if self.config.bands else 0
        return calls * sum(dilations) + mel

    def check(self, mel: Tensor | None, samples: int) -> None:
        """Raise MelError unless the mel is (batch, bands, frames) for just so many samples."""
        bands = self.config.bands
        if (mel is None) != (bands == 0):
            what = f"needs a mel of {bands} bands" if bands else "takes no mel"
            raise MelError(f"this DiffWave {what}", "give it what it takes, or choose another")
        if mel is not None and (mel.ndim != 3 or tuple(mel.shape[1:]) != (bands, samples / HOP)):
            raise MelError(
                f"a mel of shape {tuple(mel.shape)} for {samples} samples",
                f"this DiffWave takes (batch, {bands}, frames), {HOP} samples a frame",
            )

    def upsampled(self, mel: Tensor | None, samples: int) -> Tensor | None:
        """(batch, bands, frames) to (batch, bands, samples). Raises MelError if it does not fit."""
        self.check(mel, samples)
        return None if self.spectrogram_upsampler is None else self.spectrogram_upsampler(mel)

    def forward(self, x: Tensor, mel: Tensor | None, step: Tensor) -> Tensor:
        """Sounds (batch, samples), mels (batch, bands, frames), steps (batch,), whole or not.

        Returns the noise (batch, samples). Raises MelError for a mel that does not fit.
        """
        mel = self.upsampled(mel, x.shape[-1])
        code = self.diffusion_embedding(step)
        x = F.relu(self.input_projection(x[:, None]))
        skips = torch.zeros_like(x)
        for layer in self.residual_layers:
            x, skip = layer(x, code, mel)
            skips = skips + skip
        return self.leave(skips)

    def leave(self, skips: Tensor) -> Tensor:
        """From the sum of all layers' skips (batch, channels, samples) to (batch, samples)."""
        x = F.relu(self.skip_projection(skips / math.sqrt(self.config.layers)))
        return self.output_projection(x)[:, 0]


def training_loss(
    network: PublishedNet, audio: Tensor, mel: Tensor | None, t: Tensor, noise: Tensor
) -> Tensor:
    """The mean absolute error, by item (batch,), of the noise that is found in noisy audio.

    Audio and noise (batch, samples), mels (batch, bands, frames) or None, steps `t` (batch,).
    """
    levels = _cumulated(network.config.training_schedule)
    level = torch.tensor(levels, dtype=torch.float32, device=audio.device)[t][:, None]
    noisy = level.sqrt() * audio + (1 - level).sqrt() * noise
    return (network(noisy, mel, t) - noise).abs().mean(1)
