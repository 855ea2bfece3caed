"""The residual blocks of `BandNet` in two passes over memory each, on the tensor cores of a card.

Products are of the type of the weights (bf16; float32 to be compared), sums of float32. In bf16 a
frame of a band with 64 channels has 128 bytes. The first pass reads and writes them once, the
second once more, and 16 bytes go from one to the other: 544. Plain PyTorch moves about 4,600 of
them, 900 for the mixing across bands: with that left to it, twice as many would be moved as here.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor, nn

from wavediff.kernels.convolution import convolve
from wavediff.kernels.mixing import TILE, WIDE, mix
from wavediff.network import Block, NetworkConfig

TURNS = 8  # tiles for which a program keeps the weights of the first pass, 56 KB of shared memory
PROGRAMS = 3  # that share the 227 KB of a core; 1 where it has 100
WARPS = 4
MOST_CHANNELS, MOST_MIXING = 64, 16  # that tiles of this size have room for


class Weights(NamedTuple):
    """What the kernels take of a `Block`, contiguous and of one type."""

    scale: Tensor  # (channels,), of the norm
    layers: tuple[Tensor, ...]  # weight and bias of the dilated layer and of the last
    mixing: tuple[Tensor, ...]  # weight and bias of squeeze, mix, expand; or nothing
    dilation: int

    @classmethod
    def of(cls, block: Block, dtype: torch.dtype) -> "Weights":
        """A copy of those of a block."""

        def copied(*layers: nn.Linear | None) -> tuple[Tensor, ...]:
            tensors = (t for layer in layers if layer for t in (layer.weight, layer.bias))
            return tuple(t.detach().to(dtype).contiguous() for t in tensors)

        mixing = copied(block.squeeze, block.mix, block.expand)
        scale = block.norm.weight.detach().to(dtype)
        return cls(scale, copied(block.dilated, block.out), mixing, block.dilation)


def fits(config: NetworkConfig) -> bool:
    """Whether the kernels are made for blocks of this size."""
    return config.channels <= MOST_CHANNELS and config.mixing <= MOST_MIXING


def fused_block(h: Tensor, shift: Tensor, weights: Weights) -> Tensor:
    """What a `Block` makes of (bands, batch, frames, channels), contiguous, of the weights' type.

    `shift` (batch, channels) is the embedded time and the norm's bias.
    """
    bands, batch, frames, channels = h.shape
    padded = max(16, triton.next_power_of_2(channels))
    mixing = weights.mixing[0].shape[0] if weights.mixing else 0
    out = torch.empty_like(h)
    told = h.new_empty(batch * frames, bands * mixing)
    tiles = bands * batch * triton.cdiv(frames, TILE.value)
    turns = TURNS if tiles >= TURNS * PROGRAMS * _cores(h.device) else 1
    convolve[(triton.cdiv(tiles, turns),)](
        h, out, told, shift, weights.scale, *weights.layers, *(weights.mixing[:2] or (out, out)),
        tiles, bands, batch, frames, weights.dilation, channels, padded, mixing, turns,
        num_warps=WARPS, num_stages=1,
    )  # fmt: skip
    if mixing:
        group = WIDE.value // mixing
        mix[(triton.cdiv(batch * frames, TILE.value), triton.cdiv(bands, group))](
            out, told, *weights.mixing[2:], bands, batch * frames, channels, padded, mixing,
            group, bands * mixing, num_warps=WARPS, num_stages=1,
        )  # fmt: skip
    return out


class FusedBlocks(nn.Module):
    """All blocks of a network, whose weights do not change any more; plain for a gradient."""

    def __init__(self, blocks: Iterable[Block], dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__()
        self.plain = nn.ModuleList(blocks)
        self._dtype = dtype
        self._weights = [Weights.of(block, dtype) for block in blocks]
        self._time = torch.cat([block.time.weight.detach() for block in blocks])
        biases = [block.time.bias.detach() + block.norm.bias.detach() for block in blocks]
        self._bias = torch.cat(biases)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(bands, batch, frames, channels) and the embedded time (batch, channels)."""
        if torch.is_grad_enabled() and (h.requires_grad or time.requires_grad):
            for block in self.plain:
                h = block(h, time)
            return h
        shifts = F.linear(time, self._time, self._bias).to(self._dtype)
        shifts = shifts.unflatten(1, (len(self._weights), -1)).transpose(0, 1).contiguous()
        answer = h.to(self._dtype).contiguous()
        for shift, weights in zip(shifts, self._weights, strict=True):
            answer = fused_block(answer, shift, weights)
        return answer.to(h.dtype)


def _cores(device: torch.device) -> int:
    on_card = device.type == "cuda"
    return torch.cuda.get_device_properties(device).multi_processor_count if on_card else 1
