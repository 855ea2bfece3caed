"""Gaussian noise as a function of its position, the same for every block, batch and device."""

import hashlib
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TILE = 1 << 15  # samples that one generator makes


def derive_seed(*parts: int) -> int:
    """One 63-bit seed from several whole numbers, such as (seed, draw, channel, tile)."""
    digest = hashlib.blake2b(",".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


@dataclass(frozen=True)
class Noise:
    """White Gaussian noise of variance 1, numbered by draw and channel.

    Sample `n` of a draw is always the same number, whatever range is asked for: tiles of fixed
    size come each from a generator of their own, on the CPU.
    """

    seed: int

    def read(self, draw: int, channel: int, start: int, stop: int) -> Tensor:
        """Samples `start` to `stop` as (stop - start,) float32; `start` may be negative."""
        if start >= stop:
            return torch.zeros(0)
        first, last = start // TILE, -(-stop // TILE)
        tiles = [self._tile(draw, channel, tile) for tile in range(first, last)]
        return torch.cat(tiles)[start - first * TILE : stop - first * TILE]

    def shaped(self, draw: int, channel: int, start: int, stop: int, kernel: Tensor) -> Tensor:
        """The same noise through a filter of odd length, `kernel` (taps,)."""
        if start >= stop:
            return torch.zeros(0)
        reach = kernel.shape[0] // 2
        white = self.read(draw, channel, start - reach, stop + reach)
        return F.conv1d(white[None, None], kernel[None, None])[0, 0]

    def _tile(self, draw: int, channel: int, tile: int) -> Tensor:
        generator = torch.Generator().manual_seed(derive_seed(self.seed, draw, channel, tile))
        return torch.randn(TILE, generator=generator)


def spectral_tilt(rate: int, corner: float = 500.0, taps: int = 65) -> Tensor:
    """A zero-phase filter (taps,) that gives white noise the slope of speech, at unit power.

    Flat to `corner` Hz, then 6 dB an octave down: speech falls by about as much, and noise of
    its own shape corrupts all of its bands alike.
    """
    frequency = torch.linspace(0, rate / 2, 513)
    response = 1 / torch.sqrt(1 + (frequency / corner) ** 2)
    kernel = torch.fft.irfft(response.to(torch.complex64)).roll(taps // 2)[:taps]
    kernel = kernel * torch.hann_window(taps + 2, periodic=False)[1:-1]
    return kernel / kernel.pow(2).sum().sqrt()
