"""The first kernel of a residual block: from norm to residual, and what a band tells the others."""

import triton
import triton.language as tl

from wavediff.kernels.mixing import TILE, gated


@triton.jit(do_not_specialize=["tiles", "bands", "batch", "frames", "dilation"])
def convolve(
    h: tl.tensor, out: tl.tensor, told: tl.tensor, shift: tl.tensor, scale: tl.tensor,
    dilated: tl.tensor, dilated_bias: tl.tensor, last: tl.tensor, last_bias: tl.tensor,
    squeeze: tl.tensor, squeeze_bias: tl.tensor,
    tiles: tl.int32, bands: tl.int32, batch: tl.int32, frames: tl.int32, dilation: tl.int32,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr, MIXING: tl.constexpr, TURNS: tl.constexpr,
) -> None:  # fmt: skip
    """From `h` to `out`, both (bands, batch, frames, channels), and `told`, what the squeeze says,
    (batch, frames, bands, MIXING).

    `shift` (batch, channels) is the embedded time with the norm's bias; weights are those of the
    plain block. A program keeps them for TURNS tiles.
    """
    c, m, n = tl.arange(0, PADDED), tl.arange(0, 16), tl.arange(0, 2 * PADDED)
    inside, some = c < CHANNELS, m < MIXING
    row = n // 2 + n % 2 * CHANNELS  # of the dilated layer: a gate, its value, the next gate
    taken = inside[:, None] & (n < 2 * CHANNELS)[None, :]
    taps = dilated + row[None, :] * 3 * CHANNELS + c[:, None]
    before = tl.load(taps, taken, 0.0)
    here = tl.load(taps + CHANNELS, taken, 0.0)
    after = tl.load(taps + 2 * CHANNELS, taken, 0.0)
    bias = tl.load(dilated_bias + row, n < 2 * CHANNELS, 0.0).to(tl.float32)[None, :]
    square = inside[:, None] & inside[None, :]
    finish = tl.load(last + c[None, :] * CHANNELS + c[:, None], square, 0.0)
    finish_bias = tl.load(last_bias + c, inside, 0.0).to(tl.float32)[None, :]
    factor = tl.load(scale + c, inside, 0.0).to(tl.float32)[None, :]
    per_row = tl.cdiv(frames, TILE)
    for turn in range(TURNS):
        tile = tl.program_id(0) * TURNS + turn
        band, item = tile // per_row // batch, tile // per_row % batch
        end = tl.where(tile < tiles, frames, 0)
        t = tile % per_row * TILE + tl.arange(0, TILE)
        start = (tile // per_row).to(tl.int64) * frames * CHANNELS
        added = tl.load(shift + item * CHANNELS + c, inside & (end > 0), 0.0)[None, :]
        both = tl.zeros((TILE, 2 * PADDED), tl.float32) + bias
        u = entered(h + start, t - dilation, end, factor, added, CHANNELS, PADDED)
        both = tl.dot(u, before, both, input_precision="ieee")
        u = entered(h + start, t, end, factor, added, CHANNELS, PADDED)
        both = tl.dot(u, here, both, input_precision="ieee")
        u = entered(h + start, t + dilation, end, factor, added, CHANNELS, PADDED)
        both = tl.dot(u, after, both, input_precision="ieee")
        both = gated(both, TILE, PADDED).to(h.dtype.element_ty)
        at = start + t[:, None] * CHANNELS + c[None, :]
        mask = (t < end)[:, None] & inside[None, :]
        y = tl.load(h + at, mask, 0.0).to(tl.float32) + finish_bias
        y = tl.dot(both, finish, y, input_precision="ieee").to(h.dtype.element_ty)
        tl.store(out + at, y, mask)
        if MIXING > 0:
            mask = inside[:, None] & some[None, :]
            weight = tl.load(squeeze + m[None, :] * CHANNELS + c[:, None], mask, 0.0)
            s = tl.dot(y, weight, input_precision="ieee")
            s += tl.load(squeeze_bias + m, some, 0.0).to(tl.float32)[None, :]
            frame = item.to(tl.int64) * frames + t[:, None]
            at = told + (frame * bands + band) * MIXING + m[None, :]
            tl.store(at, s.to(h.dtype.element_ty), (t < end)[:, None] & some[None, :])


@triton.jit
def entered(
    h: tl.tensor, t: tl.tensor, end: tl.int32, factor: tl.tensor, added: tl.tensor,
    CHANNELS: tl.constexpr, PADDED: tl.constexpr,
) -> tl.tensor:  # fmt: skip
    """Frames after norm and embedding. Those that there are not are zero, as the plain block pads
    behind both."""
    c = tl.arange(0, PADDED)[None, :]
    inside, known = c < CHANNELS, ((t >= 0) & (t < end))[:, None]
    x = tl.load(h + t[:, None] * CHANNELS + c, known & inside, 0.0).to(tl.float32)
    x = tl.where(inside, x - tl.sum(x, 1)[:, None] / CHANNELS, 0.0)
    x *= tl.rsqrt(tl.sum(x * x, 1) / CHANNELS + 1e-5)[:, None]
    return tl.where(known, x * factor + added.to(tl.float32), 0.0).to(h.dtype.element_ty)
