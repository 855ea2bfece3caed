"""The denoiser: a network made to fit a path."""

import torch
from torch import Tensor, nn

from wavediff.network import BandNet
from wavediff.path import Path


class Denoiser(nn.Module):
    """Answers with its best guess of the clean sound, given a state of a path."""

    def __init__(self, network: BandNet, path: Path) -> None:
        super().__init__()
        self.network = network
        self.path = path

    @property
    def receptive_field(self) -> int:
        """Samples to either side that one sample of a guess can depend on."""
        return self.network.receptive_field

    @property
    def hop(self) -> int:
        """Samples on whose multiples a block must begin."""
        return self.network.hop

    def forward(self, x: Tensor, observation: Tensor, t: Tensor) -> Tensor:
        """State and observation (batch, samples) at times t (batch,): a guess (batch, samples)."""
        skip, out, scale, code = (factor[:, None] for factor in self.path.precondition(t))
        answer = self.network(scale * x, observation, code[:, 0])
        return skip * x + out * answer.to(torch.float32)
