"""The network above a denoiser's band: how much of each band is voice, told by the band below."""

from dataclasses import dataclass

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from wavediff.fullband import HIGH, LOW

FLOOR = 1e-7  # power that counts as none, at the level of training
BEGIN = 2.0  # of the last layer: untrained, most of everything stays
INPUTS = (len(HIGH) - 1) + 2 * (len(LOW) - 1)


class UpperConfig(BaseModel):
    """The size of an `UpperNet`, and the denoiser whose upper band it cleans."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    below: str = Field("denoise-16k", description="the denoiser of the band below")
    channels: int = Field(48, gt=0, le=4096, description="channels of a residual block")
    layers: int = Field(7, gt=0, le=16, description="residual blocks, of dilations 1, 2, 4 …")
    magnitude: float = Field(150.0, ge=0, description="weight of compressed magnitudes")
    snr: float = Field(0.03, ge=0, description="weight of the ratio of voice to the rest, per dB")


class Block(nn.Module):
    """A dilated convolution along time, a gate, and a residual."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.dilation = dilation
        self.norm = nn.LayerNorm(channels)  # over channels alone, never over time
        self.dilated = nn.Conv1d(channels, 2 * channels, 3, dilation=dilation, padding=dilation)
        self.out = nn.Linear(channels, channels)

    def forward(self, h: Tensor) -> Tensor:
        """(batch, frames, channels)."""
        gate, value = self.dilated(self.norm(h).mT).mT.chunk(2, -1)
        return h + self.out(gate.sigmoid() * value.tanh())


class UpperNet(nn.Module):
    """Answers with gains, given the power of the bands before and after the denoiser below."""

    def __init__(self, config: UpperConfig) -> None:
        super().__init__()
        self.config = config
        self.enter = nn.Linear(INPUTS, config.channels)
        self.blocks = nn.ModuleList(Block(config.channels, 2**n) for n in range(config.layers))
        self.norm = nn.LayerNorm(config.channels)
        self.leave = nn.Linear(config.channels, len(HIGH) - 1)
        nn.init.zeros_(self.leave.weight)
        nn.init.constant_(self.leave.bias, BEGIN)

    @property
    def reach(self) -> int:
        """Frames to either side that a gain can depend on."""
        return 2**self.config.layers - 1

    def forward(self, high: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """Power (batch, frames, bands) at the level of training: of the bands of `HIGH`, and of
        those of `LOW` before and after denoising. Gains of the former, between 0 and 1."""
        told = torch.log10(torch.cat((high, before, after), -1) + FLOOR) / 2 + 2
        h = self.enter(told)
        for block in self.blocks:
            h = block(h)
        return self.leave(self.norm(h)).sigmoid()


@dataclass(frozen=True)
class UpperGains:
    """The `Gains` of a network, for a recording that `level` brings to the level of training."""

    network: UpperNet
    level: float

    @property
    def reach(self) -> int:
        """Frames to either side that a gain depends on."""
        return self.network.reach

    @torch.inference_mode()
    def __call__(self, high: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """See `fullband.Gains`."""
        return self.network(*(self.level**2 * power for power in (high, before, after)))
