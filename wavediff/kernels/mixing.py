"""The second kernel of a residual block: what all bands told is added to every band."""

import triton
import triton.language as tl

TILE = tl.constexpr(64)  # frames that are worked on at a time
CHUNK = tl.constexpr(64)  # mixed channels that are summed over at a time
WIDE = tl.constexpr(32)  # mixed channels that are made at a time, those of a few bands


@triton.jit
def gated(both: tl.tensor, ROWS: tl.constexpr, PAIRS: tl.constexpr) -> tl.tensor:
    """tanh of each pair's second through the sigmoid of its first: (rows, pairs).

    Gates and values take turns, so that a thread has both of a pair and moves nothing.
    """
    gate, value = tl.split(tl.reshape(both, (ROWS, PAIRS, 2)))
    return tl.sigmoid(gate) * (2 * tl.sigmoid(2 * value) - 1)


@triton.jit(do_not_specialize=["bands", "frames"])
def mix(
    h: tl.tensor, told: tl.tensor,
    weights: tl.tensor, bias: tl.tensor, expand: tl.tensor, expand_bias: tl.tensor,
    bands: tl.int32, frames: tl.int32, CHANNELS: tl.constexpr, PADDED: tl.constexpr,
    MIXING: tl.constexpr, GROUP: tl.constexpr, MIXED: tl.constexpr,
) -> None:  # fmt: skip
    """Change `h` (bands, frames, channels) by `told` (frames, MIXED), for GROUP bands a program.

    `weights` (2 MIXED, MIXED) and `expand` (channels, MIXING) are those of the plain block.
    """
    c, k, n = tl.arange(0, PADDED), tl.arange(0, CHUNK), tl.arange(0, 2 * WIDE)
    t = (tl.program_id(0) * TILE + tl.arange(0, TILE)).to(tl.int64)
    known, inside, first = t < frames, c < CHANNELS, tl.program_id(1) * GROUP
    column = first * MIXING + n // 2
    made, row = (n // 2 < GROUP * MIXING) & (column < MIXED), column + n % 2 * MIXED
    both = tl.zeros((TILE, 2 * WIDE), tl.float32)
    both += tl.load(bias + row, made, 0.0).to(tl.float32)[None, :]
    for begin in tl.static_range(0, MIXED, CHUNK):
        at = begin + k
        mask = known[:, None] & (at < MIXED)[None, :]
        s = tl.load(told + t[:, None] * MIXED + at[None, :], mask, 0.0)
        mask = (at < MIXED)[:, None] & made[None, :]
        weight = tl.load(weights + row[None, :] * MIXED + at[:, None], mask, 0.0)
        both = tl.dot(s, weight, both, input_precision="ieee")
    both = gated(both, TILE, WIDE).to(h.dtype.element_ty)
    own = tl.arange(0, WIDE)
    start = tl.load(expand_bias + c, inside, 0.0).to(tl.float32)[None, :]
    for one in tl.static_range(GROUP):
        # Rows of other bands are zero: that is less work than to cut the tile into its bands.
        mask = (own // MIXING == one)[:, None] & inside[None, :]
        weight = tl.load(expand + c[None, :] * MIXING + own[:, None] % MIXING, mask, 0.0)
        mask = (known & (first + one < bands))[:, None] & inside[None, :]
        at = h + ((first + one) * frames + t)[:, None] * CHANNELS + c[None, :]
        y = tl.load(at, mask, 0.0).to(tl.float32) + start
        tl.store(at, tl.dot(both, weight, y, input_precision="ieee").to(h.dtype.element_ty), mask)
