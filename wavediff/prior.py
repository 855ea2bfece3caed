"""The prior: a network over mel frames that invents mel spectrograms, under a label or none."""

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from wavediff.network import Blocks, NetworkConfig, fourier


class PriorConfig(BaseModel):
    """The size of a `PriorNet`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    channels: int = Field(160, gt=0, description="channels of a frame")
    layers: int = Field(12, gt=0, description="residual blocks")
    cycle: int = Field(6, gt=0, description="blocks after which the dilations 1, 2, 4 … repeat")
    labels: tuple[str, ...] = Field((), description="what can be asked for; found in the data")

    @property
    def stack(self) -> NetworkConfig:
        """The blocks, as those of a network with a single band."""
        return NetworkConfig(
            bands=1, mixing=0, channels=self.channels, layers=self.layers, cycle=self.cycle
        )


class PriorNet(nn.Module):
    """Answers with mel frames, given corrupted ones, how far they are corrupted, and a label.

    The bands of a frame are its channels, and dilated convolutions run along time. A one-shot's
    frames also know where they stand in it.
    """

    def __init__(self, config: PriorConfig, bands: int, frames: int) -> None:
        super().__init__()
        self.config, self.bands, self.frames = config, bands, frames
        channels, stack = config.channels, config.stack
        # Facts of the data and no weights: what brings each band to mean 0 and variance 1.
        self.centre = nn.Parameter(torch.zeros(bands), requires_grad=False)
        self.spread = nn.Parameter(torch.ones(bands), requires_grad=False)
        self.enter = nn.Linear(bands, channels)
        self.place = nn.Linear(32, channels, bias=False) if frames else None
        self.label = nn.Linear(len(config.labels), channels, bias=False) if config.labels else None
        self.time = nn.Sequential(
            nn.Linear(32, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels)
        )
        self.blocks = Blocks(stack)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.leave = nn.Linear(channels, bands)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def hop(self) -> int:
        """Blocks may begin at any frame."""
        return 1

    @property
    def receptive_field(self) -> int:
        """Frames to either side that one frame of the answer can depend on."""
        return sum(self.config.stack.dilations)

    def normalised(self, mel: Tensor) -> Tensor:
        """A mel (batch, bands, frames) in the units of the diffusion."""
        return (mel - self.centre[:, None]) / self.spread[:, None]

    def mel(self, normalised: Tensor) -> Tensor:
        """The mel of those units."""
        return normalised * self.spread[:, None] + self.centre[:, None]

    def forward(self, x: Tensor, label: Tensor | None, code: Tensor) -> Tensor:
        """Frames (batch, bands, frames), shares of each label (batch, labels), a code (batch,).

        Labels may be mixed; without any, or all of them zero, anything may come.
        """
        h = self.enter(x.transpose(1, 2))
        if self.place is not None:
            h = h + self.place(fourier(torch.arange(x.shape[-1], device=x.device) / self.frames))
        known = self.time(fourier(code))
        if self.label is not None and label is not None:
            known = known + self.label(label)
        known = torch.nn.functional.silu(known)
        h = self.blocks(h[None], known)
        return self.leave(self.norm(h[0])).transpose(1, 2)
