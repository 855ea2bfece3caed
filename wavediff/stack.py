"""The residual blocks' fast twin in a training on a processor: `Block` is the plain one.

Every thread leads a few items at a time through all blocks, there and back, so that no thread waits
for another, and what is made in between stays in the processor's caches; the dilated convolution
needs no copies of its neighbours; tanh is a sigmoid, which is several times as fast and all that
the way back has to keep of the gate.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavediff.network import Block
from wavediff.prepared import folded, gated, image

ROWS = 1 << 13  # frames of a band, of as many items as are worked on together
LEAST = 1 << 9  # of them, for which a thread is worth while


def through(blocks: Iterable[nn.Module], h: Tensor, time: Tensor) -> Tensor:
    """(bands, batch, frames, channels) through all blocks; the embedded time (batch, channels)."""
    chosen = [cast(Block, block) for block in blocks]
    dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else h.dtype
    with torch.autocast("cpu", enabled=False):
        time = time.float()
        shifts = torch.stack([block.norm.bias + block.time(time) for block in chosen])
        weights = [weight for block in chosen for weight in folded(block)]
        dilations = tuple(block.dilation for block in chosen)
        fixed = Fixed(
            dilations, chosen[0].norm.eps, dtype, torch.get_num_threads(), torch.is_grad_enabled()
        )
        made: Tensor = Through.apply(h, shifts, fixed, *weights)
    return made


class Fixed(NamedTuple):
    """What has no gradient."""

    dilations: tuple[int, ...]
    epsilon: float  # of the norms
    dtype: torch.dtype  # of the products
    threads: int
    back: bool  # whether there is to be a way back, for which to keep what it needs


class Through(torch.autograd.Function):
    """All blocks, as one operation."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, shifts: Tensor, fixed: Fixed, *weights: Tensor) -> Tensor:
        """(bands, batch, frames, channels); the shifts of the norms (blocks, batch, channels)."""
        lower = [weight.to(fixed.dtype) for weight in weights]
        shares = [Share(lower, fixed, groups) for groups in _shared(h, fixed.threads)]
        shifts = shifts.to(fixed.dtype)[:, :, None, None]
        out = torch.empty_like(h, dtype=fixed.dtype)
        _together([partial(share.there, h, shifts, out) for share in shares], fixed.threads)
        ctx.shares, ctx.fixed, ctx.dtype, ctx.shape = shares, fixed, h.dtype, shifts.shape
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """That of the answer to those of h, the shifts, and the weights."""
        of_h, of_shifts = torch.empty_like(gradient, dtype=ctx.dtype), torch.empty(ctx.shape)
        ways = [partial(share.back, gradient, of_h, of_shifts) for share in ctx.shares]
        _together(ways, ctx.fixed.threads)
        first, *others = (share.gradients() for share in ctx.shares)
        for other in others:
            torch._foreach_add_(first, other)
        return of_h, of_shifts[:, :, 0, 0], None, *first


def _shared(h: Tensor, threads: int) -> list[list[slice]]:
    """The items of each thread, in groups that it leads through the blocks one after the other."""
    bands, batch, frames, _ = h.shape
    least = min(batch, -(-LEAST // (bands * frames)))
    count = max(1, min(threads, batch // least))  # of threads that have enough to do
    size = max(1, ROWS // (bands * frames))
    bounds = [batch * number // count for number in range(count + 1)]
    return [
        [slice(begin, min(begin + size, last)) for begin in range(first, last, size)]
        for first, last in pairwise(bounds)
    ]


def _together(ways: Sequence[Callable[[], None]], threads: int) -> None:
    """Do all of it at once, each by its part of the threads."""
    if len(ways) == 1:
        ways[0]()
        return

    def alone(way: Callable[[], None]) -> None:
        torch.set_num_threads(max(1, threads // len(ways)))  # of this thread
        way()

    for done in [_pool(len(ways)).submit(alone, way) for way in ways]:
        done.result()
    torch.set_num_threads(threads)  # of those that begin later


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


class Share:
    """The way of some items through all blocks, and back."""

    def __init__(self, weights: list[Tensor], fixed: Fixed, groups: list[slice]) -> None:
        each = len(weights) // len(fixed.dilations)
        self._steps = [
            Step(weights[number * each :][:each], dilation, fixed.epsilon)
            for number, dilation in enumerate(fixed.dilations)
        ]
        self._fixed, self._groups, self._kept = fixed, groups, list[Kept]()

    @torch.no_grad()
    def there(self, h: Tensor, shifts: Tensor, out: Tensor) -> None:
        """From `h` into `out`, both (bands, batch, frames, channels)."""
        for items in self._groups:
            x = h[:, items].to(out.dtype).transpose(0, 1).contiguous()
            for step, shift in zip(self._steps, shifts, strict=True):
                x, kept = step(x, shift[items])
                if self._fixed.back:
                    self._kept.append(kept)
            out[:, items] = x.transpose(0, 1)

    @torch.no_grad()
    def back(self, gradient: Tensor, of_h: Tensor, of_shifts: Tensor) -> None:
        """From the gradient of the answer into those of `h` and of the shifts."""
        for items in reversed(self._groups):
            d = gradient[:, items].transpose(0, 1).contiguous()
            for step, of_shift in reversed(list(zip(self._steps, of_shifts, strict=True))):
                d, of_shift[items] = step.back(d, self._kept.pop())
            of_h[:, items] = d.transpose(0, 1)

    def gradients(self) -> list[Tensor]:
        """Those of the weights, which are float32."""
        return [gradient for step in self._steps for gradient in step.gradients]


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
        self.gradients = [torch.zeros(weight.shape) for weight in weights]
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
