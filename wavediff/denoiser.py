"""The denoiser: a network made to fit a path."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from wavediff import kernels
from wavediff.network import BandNet
from wavediff.path import Path
from wavediff.prepared import PreparedNet, number_type
from wavediff.prior import PriorNet


class Denoiser(nn.Module):
    """Answers with its best guess of the clean sound, given a state of a path."""

    def __init__(self, network: BandNet | PriorNet, path: Path) -> None:
        super().__init__()
        self.network = network
        self.path = path
        self._twin: Callable[..., Any] | None = None

    def prepared(self, precision: str = "fp32") -> "Denoiser":
        """The same denoiser with its network's fast twin, where there is one; not to train with.

        The precision is one of `PRECISIONS`. The weights must not change any more.
        """
        device, fast = next(self.parameters()).device, Denoiser(self.network, self.path)
        if isinstance(self.network, BandNet):
            if device.type == "cpu":
                fast._twin = PreparedNet(self.network, number_type(precision, device))
            elif precision != "fp32":
                fast._twin = kernels.fast(self.network)  # None where there is none
        return fast

    @property
    def receptive_field(self) -> int:
        """Samples to either side that one sample of a guess can depend on."""
        return self.network.receptive_field

    @property
    def reach(self) -> int:
        """The same of a step, with what the path does beside the call."""
        return self.network.receptive_field + self.path.reach

    @property
    def hop(self) -> int:
        """Samples on whose multiples a block must begin."""
        return self.network.hop

    def forward(self, x: Tensor, observation: Tensor | None, t: Tensor, *known: Tensor) -> Tensor:
        """The guess, shaped like the state `x` (batch, …), at times t (batch,).

        The network decides what the observation is, and what else must be known: a mel.
        """
        skip, out, scale, code = self.path.precondition(t)
        skip, out, scale = (f.view(-1, *(1,) * (x.ndim - 1)) for f in (skip, out, scale))
        network = self._twin or self.network
        answer = network(scale * x, observation, code, *known)
        return self.path.finish(skip * x + out * answer.to(torch.float32), *known)
