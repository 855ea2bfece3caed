"""The residual blocks' fast twin in a training on a processor: `Block` is the plain one.

A few items at a time are led through all blocks, there and back, so that what is made in between
stays in the processor's caches; the dilated convolution needs no copies of its neighbours; tanh is
a sigmoid, which is several times as fast and all that the way back has to keep of the gate.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavediff.network import Block
from wavediff.prepared import folded, gated, image

ROWS = 1 << 13  # frames of a band, of as many items as are worked on together


def through(blocks: Iterable[nn.Module], h: Tensor, time: Tensor) -> Tensor:
    """(bands, batch, frames, channels) through all blocks; the embedded time (batch, channels)."""
    chosen = [cast(Block, block) for block in blocks]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else h.dtype
    with torch.autocast("cpu", enabled=False):
        time = time.float()
        shifts = torch.stack([block.norm.bias + block.time(time) for block in chosen])
        weights = [weight for block in chosen for weight in folded(block)]
        dilations = tuple(block.dilation for block in chosen)
        fixed = Fixed(dilations, chosen[0].norm.eps, dtype, torch.is_grad_enabled())
        made: Tensor = Through.apply(h, shifts, fixed, *weights)
    return made


class Fixed(NamedTuple):
    """What has no gradient."""

    dilations: tuple[int, ...]
    epsilon: float  # of the norms
    dtype: torch.dtype  # of the products
    back: bool  # whether there is to be a way back, for which to keep what it needs


class Through(torch.autograd.Function):
    """All blocks, as one operation."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, shifts: Tensor, fixed: Fixed, *weights: Tensor) -> Tensor:
        """(bands, batch, frames, channels); the shifts of the norms (blocks, batch, channels)."""
        lower = [weight.to(fixed.dtype) for weight in weights]
        each = len(weights) // len(fixed.dilations)
        steps = [
            Step(lower[number * each :][:each], dilation, fixed.epsilon)
            for number, dilation in enumerate(fixed.dilations)
        ]
        shifts = shifts.to(fixed.dtype)[:, :, None, None]
        out = torch.empty_like(h, dtype=fixed.dtype)
        kept: list[Kept] = []
        for items in _groups(h):
            x = h[:, items].to(out.dtype).transpose(0, 1).contiguous()
            for step, shift in zip(steps, shifts, strict=True):
                x, needed = step(x, shift[items])
                if fixed.back:
                    kept.append(needed)
            out[:, items] = x.transpose(0, 1)
        ctx.steps, ctx.kept, ctx.dtype, ctx.shape = steps, kept, h.dtype, shifts.shape
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """That of the answer to those of h, the shifts, and the weights."""
        of_h, of_shifts = torch.empty_like(gradient, dtype=ctx.dtype), torch.empty(ctx.shape)
        for step in ctx.steps:
            step.begin_back()
        for items in reversed(_groups(gradient)):
            d = gradient[:, items].transpose(0, 1).contiguous()
            for step, of_shift in reversed(list(zip(ctx.steps, of_shifts, strict=True))):
                d, of_shift[items] = step.back(d, ctx.kept.pop())
            of_h[:, items] = d.transpose(0, 1)
        return (
            *(of_h, of_shifts[:, :, 0, 0], None),
            *(gradient for step in ctx.steps for gradient in step.gradients),
        )


def _groups(h: Tensor) -> list[slice]:
    """The items that are led through the blocks together, of (bands, batch, frames, channels)."""
    bands, batch, frames, _ = h.shape
    size = max(1, ROWS // (bands * frames))
    return [slice(begin, begin + size) for begin in range(0, batch, size)]


class Kept(NamedTuple):
    """What the way back needs of a block; (items, bands, frames, channels) or flat rows of it."""

    x: Tensor
    normed: tuple[Tensor, Tensor, Tensor]  # with the shift; mean, and one over the deviation
    gate: Tensor
    middle: Tensor
    mixing: tuple[Tensor, Tensor, Tensor] | None  # before the mixing, its gate, after it


class Step:
    """A block, and the gradients of its weights, which grow from one group of items to the next."""

    def __init__(self, weights: list[Tensor], dilation: int, epsilon: float) -> None:
        self._weights, self._epsilon = weights, epsilon
        self.gradients: list[Tensor] = []  # float32, whatever the weights are
        self._padding, self._dilation = (0, dilation), (1, dilation)

    def __call__(self, x: Tensor, shift: Tensor) -> tuple[Tensor, Kept]:
        """(items, bands, frames, channels), and (items, 1, 1, channels)."""
        norm, taps, taps_bias, out, out_bias, *more = self._weights
        u, mean, scale = torch.native_layer_norm(x, x.shape[-1:], norm, None, self._epsilon)
        u += shift
        picture = image(u.flatten(0, 1))
        wide = F.conv2d(picture, taps, taps_bias, padding=self._padding, dilation=self._dilation)
        gate = _rows(wide).sigmoid_()
        middle = torch.addmm(out_bias, gated(gate), out.T).add_(x.flatten(0, 2))
        if not more:
            return middle.view_as(x), Kept(x, (u, mean, scale), gate, middle, None)
        squeeze, told_bias, mix, mix_bias, expand = more
        told = _by_frame(torch.addmm(told_bias, middle, squeeze.T), x)
        mixed = torch.addmm(mix_bias, told, mix.T).sigmoid_()
        answer = _by_band(gated(mixed), x)
        kept = Kept(x, (u, mean, scale), gate, middle, (told, mixed, answer))
        return torch.addmm(middle, answer, expand.T).view_as(x), kept

    def begin_back(self) -> None:
        """Of no item there is a gradient yet."""
        self.gradients = [torch.zeros(weight.shape) for weight in self._weights]

    def back(self, d: Tensor, kept: Kept) -> tuple[Tensor, Tensor]:
        """The gradient of the answer to that of x, and of the shift, (items, 1, 1, channels)."""
        norm, taps, _, out, _, *more = self._weights
        x, (u, mean, scale), gate, middle, mixing = kept
        rows = d.flatten(0, 2)
        if mixing is not None:
            (squeeze, _, mix, _, expand), (told, mixed, answer) = more, mixing
            self._add(9, rows.T @ answer)
            of_mixed = _gate_back(_by_frame(rows @ expand, x), mixed)
            self._add(7, of_mixed.T @ told, of_mixed.sum(0))
            of_told = _by_band(of_mixed @ mix, x)
            self._add(5, of_told.T @ middle, of_told.sum(0))
            rows = torch.addmm(rows, of_told, squeeze)
        self._add(3, rows.T @ gated(gate), rows.sum(0))
        of_wide = _gate_back(rows @ out, gate).view(*x.shape[:3], -1)
        pictures = image(of_wide.flatten(0, 1)), image(u.flatten(0, 1))
        fixed = (1, 1), self._padding, self._dilation, False, (0, 0), 1, (True, True, True)
        of_u, *of_taps = torch.ops.aten.convolution_backward(*pictures, taps, [len(taps)], *fixed)
        self._add(1, *of_taps)
        of_u = _rows(of_u).view_as(x)
        of_x, of_norm, _ = torch.ops.aten.native_layer_norm_backward(
            of_u, x, x.shape[-1:], mean, scale, norm, None, (True, True, False)
        )
        self._add(0, of_norm)
        return of_x.add_(rows.view_as(x)), of_u.sum((1, 2), keepdim=True)

    def _add(self, first: int, *gradients: Tensor) -> None:
        """To those of the weights from the number `first` on, in the order of `folded`."""
        for number, gradient in enumerate(gradients, first):
            self.gradients[number] += gradient


def _rows(picture: Tensor) -> Tensor:
    """A picture as (items and bands and frames, channels)."""
    return picture.squeeze(2).transpose(1, 2).flatten(0, 1)


def _by_frame(told: Tensor, x: Tensor) -> Tensor:
    """Rows of `x` (items, bands, frames) to rows of (items, frames), all bands side by side."""
    return told.view(*x.shape[:3], -1).transpose(1, 2).flatten(2).flatten(0, 1)


def _by_band(mixed: Tensor, x: Tensor) -> Tensor:
    """The way back."""
    items, bands, frames, _ = x.shape
    return mixed.view(items, frames, bands, -1).transpose(1, 2).flatten(0, 2)


def _gate_back(gradient: Tensor, both: Tensor) -> Tensor:
    """The gradient of that answer to that of gates and of doubled values."""
    gate, value = both.chunk(2, -1)
    made = torch.empty_like(both)
    of_gate, of_value = made.chunk(2, -1)
    torch.addcmul(gradient, gradient, value, value=-2, out=of_gate)
    torch.mul(gradient, gate, out=of_value).mul_(-2)
    of_both: Tensor = torch.ops.aten.sigmoid_backward(made, both)
    return of_both
