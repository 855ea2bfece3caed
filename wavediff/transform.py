"""Lapped transforms: a sound as complex frames, and back with nothing lost."""

import functools
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # else a window first made while rendering could not be trained with
def _window(length: int, power: float, device: torch.device) -> Tensor:
    return torch.hann_window(length, periodic=True, device=device) ** power


@dataclass(frozen=True)
class Transform:
    """A short-time Fourier transform with a power of the Hann window on both sides.

    The root is the window of lapped transforms, the Hann window itself that of mels and of phases
    made for them. Frame `f` is centred on sample `f * hop`; beyond its ends a sound counts as
    silence. The sum is divided by that of the squared windows, so that `synthesise(analyse(x))` is
    `x` to rounding (Griffin and Lim 1984).
    """

    window: int  # samples
    hop: int  # samples
    power: float = 0.5  # of the Hann window; 1 is the window itself

    def __post_init__(self) -> None:
        if self.hop < 1 or self.window % (2 * self.hop):
            raise ValueError(f"window {self.window} is not a multiple of twice the hop {self.hop}")

    @property
    def bins(self) -> int:
        """How many frequencies a frame has, from 0 Hz to half the rate."""
        return self.window // 2 + 1

    def frames(self, samples: int) -> int:
        """How many frames it takes to hold `samples`."""
        return -(-samples // self.hop) + 1

    def analyse(self, audio: Tensor) -> Tensor:
        """(batch, samples) to complex (batch, frames, bins)."""
        spectrum: Tensor = _Analysis.apply(audio, self)
        return spectrum

    def synthesise(self, spectrum: Tensor, samples: int) -> Tensor:
        """Complex (batch, frames, bins) to (batch, samples)."""
        window = self.taper(spectrum.device)
        framed = torch.fft.irfft(spectrum, self.window) * window
        sound = self.overlap_add(framed)
        weight = self.overlap_add(window.square().expand(1, framed.shape[1], -1))
        inside = slice(self.window // 2, self.window // 2 + samples)
        return sound[:, inside] / weight[:, inside]

    def taper(self, device: torch.device) -> Tensor:
        """The window, float32 (window,)."""
        return _window(self.window, self.power, device)

    def overlap_add(self, framed: Tensor, out: Tensor | None = None) -> Tensor:
        """(batch, frames, window) to (batch, window + hop * (frames - 1)), or into `out`."""
        batch, frames, _ = framed.shape
        overlap = self.window // self.hop
        # Every frame is cut into pieces of one hop; piece p of frame f lands on hop f + p.
        pieces = framed.view(batch, frames, overlap, self.hop)
        length = (frames + overlap - 1) * self.hop
        sound = framed.new_zeros(batch, length) if out is None else out.zero_()
        hops = sound.view(batch, -1, self.hop)
        for piece in range(overlap):
            hops[:, piece : piece + frames] += pieces[:, :, piece]
        return sound


class _Analysis(torch.autograd.Function):
    """`Transform.analyse`, whose way back is an inverse transform of real sounds too.

    Torch's own is one of complex numbers, of twice the length.
    """

    @staticmethod
    def forward(ctx: Any, audio: Tensor, transform: Transform) -> Tensor:
        samples = audio.shape[-1]
        half = transform.window // 2
        right = (transform.frames(samples) - 1) * transform.hop + half - samples
        framed = F.pad(audio, (half, right)).unfold(-1, transform.window, transform.hop)
        ctx.transform, ctx.inside = transform, slice(half, half + samples)
        return torch.fft.rfft(framed * transform.taper(audio.device))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        transform = ctx.transform
        # The inverse counts every bin twice but for the first and the last.
        twice = gradient.clone()
        twice[..., :: transform.bins - 1] *= 2
        framed = torch.fft.irfft(twice, transform.window, norm="forward")
        framed *= transform.taper(gradient.device) / 2
        return transform.overlap_add(framed)[:, ctx.inside], None


def squared(spectrum: Tensor) -> Tensor:
    """The squared magnitudes of complex numbers."""
    magnitudes: Tensor = _Squared.apply(spectrum)
    return magnitudes


class _Squared(torch.autograd.Function):
    """`squared`, whose way back makes no complex numbers of real ones."""

    @staticmethod
    def forward(ctx: Any, spectrum: Tensor) -> Tensor:
        ctx.save_for_backward(spectrum)
        return (spectrum * spectrum.conj()).real.contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (spectrum,) = ctx.saved_tensors
        doubled: Tensor = spectrum * (2 * gradient)
        return doubled
