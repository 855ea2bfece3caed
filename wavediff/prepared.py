"""The network's fast twin on a processor, without gradient: `BandNet` is the plain one.

Bands share their weights, so a few of them at a time go through a block, which keeps what is made
in between small. The dilated convolution needs no copies of its neighbours, the time comes with the
norm's bias, tanh is a sigmoid (which is several times as fast), and bins are read and written where
they stand.
"""

from itertools import pairwise
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavediff.errors import TaskError
from wavediff.network import COMPRESSION, FEATURES, FLOOR, MASK_UNIT, BandNet, Block, fourier
from wavediff.packed import Packed

ROWS = 1 << 13  # frames of one band, or of several together, that are worked on at a time
PRECISIONS = ("fp32", "bf16", "auto")


def number_type(precision: str, device: torch.device) -> torch.dtype:
    """Of which products are made; auto is bf16 on a processor that has instructions for it."""
    if precision not in PRECISIONS:
        raise TaskError(f"the precision {precision} is not known", f"use {', '.join(PRECISIONS)}")
    able = torch.cpu.get_capabilities() if precision == "auto" and device.type == "cpu" else {}
    native = any(able.get(name) for name in ("avx512_bf16", "amx_bf16", "sve_bf16"))
    return torch.bfloat16 if precision == "bf16" or native else torch.float32


class PreparedNet:
    """Answers as the network does that it is made of, whose weights must not change any more."""

    @torch.inference_mode()
    def __init__(self, network: BandNet, dtype: torch.dtype = torch.float32) -> None:
        self._network, self._dtype = network, dtype
        self._blocks = [PreparedBlock(cast(Block, block), dtype) for block in network.blocks]
        self._bands = [
            PreparedBand(network, band, edges) for band, edges in enumerate(pairwise(network.edges))
        ]
        self._place, tell = torch.stack([band.place for band in self._bands]), network.tell
        if tell is not None:
            self._tell = Packed(tell.weight, tell.bias + self._place.flatten(), torch.float32)

    @torch.inference_mode()
    def __call__(self, x: Tensor, y: Tensor, time: Tensor, mel: Tensor | None = None) -> Tensor:
        """What `BandNet.forward` answers, item by item."""
        mels = [None] * len(x) if mel is None else mel.split(1)
        items = zip(x.split(1), y.split(1), time.split(1), mels, strict=True)
        return torch.cat([self._answer(*item) for item in items])

    def _answer(self, x: Tensor, y: Tensor, time: Tensor, mel: Tensor | None) -> Tensor:
        network = self._network
        both = network.transform.analyse(torch.cat((x, y)))
        magnitude = both.real.square().addcmul_(both.imag, both.imag).sqrt_()
        compressed = torch.view_as_real(both * (magnitude + FLOOR) ** (COMPRESSION - 1))
        level = torch.log10(magnitude[1] + FLOOR)
        told = self._told(level @ network.pool if mel is None else mel[0].T / 4)
        features = *compressed.flatten(2), level
        h = level.new_empty(len(self._bands), *told.shape[::2])
        for band, into, near in zip(self._bands, h, told.unbind(1), strict=True):
            band.enter(features, near, into)
        h = h.to(self._dtype)
        embedded = network.time(fourier(time))
        for block in self._blocks:
            block(h, embedded)
        reach = network.config.taps // 2
        around = F.pad(both[1], (0, 0, reach, reach))
        energy = (magnitude[1] @ network.pool).to(both.dtype)
        guess = torch.empty_like(both[:1])
        for number, (band, out) in enumerate(zip(self._bands, h, strict=True)):
            band.leave(out, both[0], around, energy[:, number : number + 1], guess[0])
        return network.transform.synthesise(guess, y.shape[-1])

    def _told(self, whole: Tensor) -> Tensor:
        """What every band hears of a mel (frames, …): (frames, bands, channels)."""
        describe = self._network.describe
        if describe is None:
            return self._place.expand(len(whole), -1, -1)
        return self._tell(F.silu(describe(whole))).view(len(whole), *self._place.shape)


class PreparedBand:
    """How the bins `edges` of a band become channels, and its channels bins, in float32.

    Small products gain little from bf16, and masks that take noise away need more than its 8 bits.
    """

    def __init__(self, network: BandNet, band: int, edges: tuple[int, int]) -> None:
        (self._from, self._to), taps = edges, network.config.taps
        width = self._to - self._from
        enter = network.enter[band].view(-1, FEATURES, network.enter.shape[-1])[:width]
        level = enter[:, 4] / 2  # it comes as level / 2 + 0.5
        self.place = network.place[band, 0] + level.sum(0)
        self._enter = [w.flatten(0, -2) for w in (enter[:, :2], enter[:, 2:4], level)]
        # Masks come out as complex numbers lie in memory; half of x and half of y are part of them.
        parts = (2, network.parts // 2)
        masks = MASK_UNIT * network.leave[band].unflatten(1, (*parts, -1))[..., :width]
        rest = network.rest.view(*parts, -1)[..., self._from : self._to].permute(1, 2, 0).clone()
        rest[[taps // 2, taps], :, 0] += 0.5
        weight = masks.permute(2, 3, 1, 0).reshape(-1, len(masks))
        self._leave = Packed(weight, rest.flatten(), torch.float32)

    def enter(self, features: tuple[Tensor, ...], told: Tensor, out: Tensor) -> None:
        """From spectra (frames, 2 bins) and levels (frames, bins) to (frames, channels)."""
        x, y, level = features
        on_x, on_y, on_level = self._enter
        a, b = self._from, self._to
        torch.addmm(told, x[:, 2 * a : 2 * b], on_x, out=out)
        out.addmm_(y[:, 2 * a : 2 * b], on_y).addmm_(level[:, a:b], on_level)

    def leave(self, h: Tensor, x: Tensor, around: Tensor, energy: Tensor, out: Tensor) -> None:
        """From (frames, channels) to complex (frames, bins); `around` has more frames of y."""
        masks = self._leave(F.layer_norm(h.float(), h.shape[-1:]))
        inside = slice(self._from, self._to)
        masks = torch.view_as_complex(masks.view(len(h), -1, self._to - self._from, 2))
        *on_y, on_x, direct = masks.unbind(1)
        guess = torch.mul(direct, energy).addcmul_(on_x, x[:, inside])
        for tap, mask in enumerate(on_y):
            guess.addcmul_(mask, around[tap : tap + len(h), inside])
        out[:, inside] = guess


class PreparedBlock:
    """The same of a `Block`, in place."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        self._time, self._norm, self._dilation = block.time, block.norm, block.dilation
        scale, taps, taps_bias, out, out_bias, *mixing = folded(block)
        self._scale, self._taps, self._bias = (t.to(dtype) for t in (scale, taps, taps_bias))
        self._out = Packed(out, out_bias, dtype)
        self._mixes = bool(mixing)
        if mixing:
            squeeze, told_bias, mix, mix_bias, expand = mixing
            self._squeeze = Packed(squeeze, told_bias, dtype)
            self._mix = Packed(mix, mix_bias, dtype)
            self._expand = expand.T.to(dtype)

    def __call__(self, h: Tensor, embedded: Tensor) -> None:
        """(bands, frames, channels) and the embedded time (1, channels)."""
        bands, frames, channels = h.shape
        shift = (self._norm.bias + self._time(embedded)[0]).to(h.dtype)
        padding, dilation = (0, self._dilation), (1, self._dilation)
        told = []
        for part in h.split(max(1, ROWS // frames)):
            u = image(F.layer_norm(part, (channels,), self._scale, shift))
            wide = F.conv2d(u, self._taps, self._bias, padding=padding, dilation=dilation)
            part += self._out(gated(wide.squeeze(2).transpose(1, 2).sigmoid_()))
            if self._mixes:
                told.append(self._squeeze(part))
        if self._mixes:
            frame = torch.cat(told).transpose(0, 1).flatten(1)
            mixed = gated(self._mix(frame).sigmoid_()).view(frames, bands, -1)
            h.view(-1, channels).addmm_(mixed.transpose(0, 1).flatten(0, 1), self._expand)


def folded(block: Block) -> list[Tensor]:
    """Weights of the norm, the dilated layer, the last, and those of the mixing, with their biases.

    The values of gates come doubled, and what hears a gate's answer has its sign turned.
    """
    taps, taps_bias = _doubled(block.dilated)
    own = [block.norm.weight, image(taps.view(len(taps), 3, -1)), taps_bias, -block.out.weight]
    if block.squeeze is None or block.mix is None or block.expand is None:
        return [*own, block.out.bias]
    # The bias of `expand` comes with that of `out`, before the mixing hears of it.
    more = block.expand.bias
    heard = block.squeeze.bias - block.squeeze.weight @ more
    mixing = (block.squeeze.weight, heard, *_doubled(block.mix), -block.expand.weight)
    return [*own, block.out.bias + more, *mixing]


def _doubled(linear: nn.Linear) -> tuple[Tensor, Tensor]:
    """Weight and bias of a layer before a gate, its second half, the values, doubled."""
    half = linear.out_features // 2
    double = torch.tensor((1.0, 2.0)).repeat_interleave(half)
    return double[:, None] * linear.weight, double * linear.bias


def gated(both: Tensor) -> Tensor:
    """The negative of a gate's answer, of sigmoids: tanh(v) is 2 sigmoid(2 v) - 1."""
    gate, value = both.chunk(2, -1)
    return torch.addcmul(gate, gate, value, value=-2)


def image(x: Tensor) -> Tensor:
    """(batch, frames, channels) as a picture (batch, channels, 1, frames), its channels last."""
    return x.transpose(1, 2).unsqueeze(2)
