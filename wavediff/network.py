"""The network: dilated convolutions along time, their weights shared by all bands of frequency."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor, nn

from wavediff.transform import Transform

COMPRESSION = 0.3  # magnitudes enter the network to this power
FLOOR = 1e-4  # of a magnitude, below which its phase and logarithm mean nothing
MASK_UNIT = 1 / 32  # of the last layer: its weights come out at a size that Adam's steps suit
FEATURES = 5  # of a bin: x and y, real and imaginary; the logarithm of y


class NetworkConfig(BaseModel):
    """The size of a `BandNet`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: int = Field(512, gt=0, description="samples of a frame")
    hop: int = Field(256, gt=0, description="samples between frames")
    bands: int = Field(24, gt=0, description="bands of frequency that share their weights")
    channels: int = Field(64, gt=0, description="channels of a band")
    layers: int = Field(8, gt=0, description="residual blocks")
    cycle: int = Field(6, gt=0, description="blocks after which the dilations 1, 2, 4 … repeat")
    mixing: int = Field(8, ge=0, description="channels a band gives to the mixing; 0 for none")
    summary: int = Field(64, ge=0, description="numbers that tell each band of the whole frame")
    taps: int = Field(3, gt=0, description="frames that the filter on the observation spans (odd)")

    @model_validator(mode="after")
    def _fits(self) -> "NetworkConfig":
        Transform(self.window, self.hop)
        if self.bands > self.window // 2 + 1:
            raise ValueError(f"{self.bands} bands do not fit into {self.window // 2 + 1} bins")
        if self.taps % 2 == 0:
            raise ValueError(f"{self.taps} taps have no middle: an odd number is needed")
        return self

    @property
    def dilations(self) -> list[int]:
        """Of each block, in frames."""
        return [2 ** (layer % self.cycle) for layer in range(self.layers)]


@dataclass(frozen=True)
class Bands:
    """Which bins make up which band: narrow at low frequencies, wider above, as hearing has it."""

    edges: tuple[int, ...]  # bands + 1 bins, from 0 to the number of bins

    @classmethod
    def split(cls, bins: int, bands: int, linear: float = 0.25) -> "Bands":
        """Cut `bins` into `bands`, linear below the fraction `linear` of them, then logarithmic."""
        if bands > bins:
            raise ValueError(f"{bands} bands do not fit into {bins} bins")
        scale = [math.log1p(b / (linear * bins)) for b in range(bins + 1)]
        edges = [0]
        for band in range(1, bands + 1):
            goal = scale[-1] * band / bands
            nearest = min(range(bins + 1), key=lambda b: abs(scale[b] - goal))
            edges.append(min(max(nearest, edges[-1] + 1), bins - (bands - band)))
        return cls(tuple(edges))

    @property
    def width(self) -> int:
        """Bins of the widest band."""
        return max(b - a for a, b in zip(self.edges, self.edges[1:], strict=False))

    def gather_index(self) -> Tensor:
        """(bands, width): the bins of each band, short bands filled up with a bin that is none."""
        none = self.edges[-1]
        rows = [
            list(range(a, b)) + [none] * (self.width - (b - a))
            for a, b in zip(self.edges, self.edges[1:], strict=False)
        ]
        return torch.tensor(rows)


class Block(nn.Module):
    """A residual block: dilated convolution, gate, 1×1 convolution, then mixing across bands."""

    def __init__(self, config: NetworkConfig, dilation: int) -> None:
        super().__init__()
        channels, mixed = config.channels, config.bands * config.mixing
        self.dilation = dilation
        self.norm = nn.LayerNorm(channels)  # over channels alone, never over time
        self.time = nn.Linear(channels, channels)
        self.dilated = nn.Linear(3 * channels, 2 * channels)
        self.out = nn.Linear(channels, channels)
        self.squeeze = nn.Linear(channels, config.mixing) if mixed else None
        self.mix = nn.Linear(mixed, 2 * mixed) if mixed else None
        self.expand = nn.Linear(config.mixing, channels) if mixed else None

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(bands, batch, frames, channels) and the embedded time (batch, channels)."""
        # Without a name, the largest tensors of all are gone as soon as they are used.
        wide = self.dilated(_neighbours(self.norm(h) + self.time(time)[:, None], self.dilation))
        h = h + self.out(_gated(wide))
        if self.squeeze is None or self.mix is None or self.expand is None:
            return h
        bands, batch, frames, _ = h.shape
        s = self.squeeze(h).permute(1, 2, 0, 3).reshape(batch, frames, -1)
        s = _gated(self.mix(s)).view(batch, frames, bands, -1)
        return h + self.expand(s.permute(2, 0, 1, 3))


def _neighbours(u: Tensor, distance: int) -> Tensor:
    """Each frame between those `distance` before and after it: three times the channels."""
    padded = F.pad(u, (0, 0, distance, distance))
    return torch.cat((padded[:, :, : u.shape[2]], u, padded[:, :, 2 * distance :]), -1)


def _gated(both: Tensor) -> Tensor:
    """The second half of the channels through a gate that the first half moves."""
    gate, value = both.chunk(2, -1)
    return torch.tanh(value) * torch.sigmoid(gate)


class Blocks(nn.ModuleList):
    """Residual blocks, one after another."""

    twin: "Callable[[Blocks, Tensor, Tensor], Tensor] | None" = None  # does the same faster

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(Block(config, dilation) for dilation in config.dilations)

    def forward(self, h: Tensor, time: Tensor) -> Tensor:
        """(bands, batch, frames, channels) and the embedded time (batch, channels)."""
        if self.twin is not None:
            return self.twin(self, h, time)
        for block in self:
            h = block(h, time)
        return h


class BandNet(nn.Module):
    """Answers with a sound, given a corrupted one, what was observed, and how far the path is.

    The frames of a lapped transform are cut into bands; each band is projected to channels by its
    own weights, and from there on all bands share theirs. At the end every bin gets complex masks
    on the corrupted sound and, over a few frames, on the observation, and a part of its own.
    """

    gather: Tensor  # (bands, width) bins of each band
    pool: Tensor  # (bins, bands) averages over each band

    def __init__(self, config: NetworkConfig, mel: int = 0) -> None:
        """`mel` is how many bands a mel has that is given, 0 for none: then y tells its own."""
        super().__init__()
        self.config = config
        self.transform = Transform(config.window, config.hop)
        bins, channels, count = self.transform.bins, config.channels, config.bands
        bands = Bands.split(bins, count)
        self.edges = bands.edges
        self.register_buffer("gather", bands.gather_index(), persistent=False)
        pool = torch.zeros(bins, count)
        for band, (a, b) in enumerate(zip(bands.edges, bands.edges[1:], strict=False)):
            pool[a:b, band] = 1 / (b - a)
        self.register_buffer("pool", pool, persistent=False)

        inputs, outputs = bands.width * FEATURES, bands.width * self.parts
        self.enter = nn.Parameter(torch.randn(count, inputs, channels) / math.sqrt(inputs))
        self.place = nn.Parameter(torch.zeros(count, 1, channels))
        told = mel or count
        self.describe = nn.Linear(told, config.summary) if config.summary else None
        self.tell = nn.Linear(config.summary, count * channels) if config.summary else None
        self.time = nn.Sequential(
            nn.Linear(32, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, channels), nn.SiLU()
        )
        self.blocks = Blocks(config)
        self.norm = nn.LayerNorm(channels, elementwise_affine=False)
        self.leave = nn.Parameter(3 * torch.randn(count, channels, outputs) / math.sqrt(channels))
        self.rest = nn.Parameter(torch.zeros(self.parts, 1, 1, bins))

    @property
    def parts(self) -> int:
        """Real numbers that the network says of a bin: taps on y, a mask on x, a direct part."""
        return 2 * (self.config.taps + 2)

    @property
    def hop(self) -> int:
        """Samples between frames."""
        return self.config.hop

    @property
    def receptive_field(self) -> int:
        """Samples to either side that one sample of the answer can depend on."""
        frames = max(sum(self.config.dilations), self.config.taps // 2)
        return frames * self.config.hop + self.config.window

    def compact(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same weights without those of bins that short bands are filled up with.

        `load_state_dict` takes either, and so does this.
        """
        if weights["enter"].ndim < self.enter.ndim:
            return weights
        enter, leave = self._used()
        shorter = {"enter": weights["enter"][enter], "leave": weights["leave"].mT[leave]}
        return weights | shorter

    def _used(self) -> tuple[Tensor, Tensor]:
        """Which rows of `enter` and columns of `leave` belong to a bin, (bands, …) both."""
        real = self.gather < self.transform.bins
        enter = real[..., None].expand(-1, -1, FEATURES).flatten(1)
        return enter, real[:, None].expand(-1, self.parts, -1).flatten(1)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        enter, leave = self._used()
        for name, used in (("enter", enter), ("leave", leave)):
            key, own = prefix + name, getattr(self, name)
            found = state_dict.get(key)
            if found is not None and found.shape == (int(used.sum()), self.config.channels):
                whole = found.new_zeros(*used.shape, self.config.channels)
                whole[used.to(found.device)] = found
                state_dict[key] = whole.view_as(own) if name == "enter" else whole.mT
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def forward(self, x: Tensor, y: Tensor, time: Tensor, mel: Tensor | None = None) -> Tensor:
        """The corrupted sound and the observation (batch, samples), the time (batch,) in [0, 1].

        Where the network is made for one, the mel (batch, bands, frames) of these very frames.
        """
        both = self.transform.analyse(torch.cat((x, y)))
        spectrum_x, spectrum_y = both.chunk(2)
        magnitude = both.abs()
        compressed = both * (magnitude + FLOOR) ** (COMPRESSION - 1)
        level = torch.log10(magnitude.chunk(2)[1] + FLOOR)

        h = self._enter(compressed, level, level @ self.pool if mel is None else mel.mT / 4)
        h = self.blocks(h, self.time(fourier(time)))
        masks = self._leave(self.norm(h))

        energy = magnitude.chunk(2)[1] @ self.pool
        guess = self._filter(masks, spectrum_x, spectrum_y, energy)
        return self.transform.synthesise(guess, y.shape[-1])

    def _enter(self, compressed: Tensor, level: Tensor, whole: Tensor) -> Tensor:
        """The features of every band, projected: (bands, batch, frames, channels)."""
        x, y = torch.view_as_real(compressed).chunk(2)
        features = torch.cat((x, y, level[..., None] / 2 + 0.5), -1)
        features = F.pad(features, (0, 0, 0, 1))[:, :, self.gather]
        batch, frames, bands, _, _ = features.shape
        flat = features.permute(2, 0, 1, 3, 4).reshape(bands, batch * frames, -1)
        h = torch.baddbmm(self.place.to(flat.dtype), flat, self.enter)
        h = h.view(bands, batch, frames, -1)
        if self.describe is None or self.tell is None:
            return h
        told = self.tell(F.silu(self.describe(whole)))
        return h + told.view(batch, frames, bands, -1).permute(2, 0, 1, 3)

    def _leave(self, h: Tensor) -> Tensor:
        """Complex (batch, frames, parts / 2, bins) from the channels of every band."""
        bands, batch, frames, channels = h.shape
        # Real and imaginary part come out side by side, as complex numbers lie in memory.
        leave = self.leave.view(bands, channels, 2, self.parts // 2, -1).permute(0, 1, 3, 4, 2)
        out = torch.bmm(h.reshape(bands, -1, channels), leave.reshape(bands, channels, -1))
        out = out.view(bands, batch, frames, self.parts // 2, -1, 2)
        edges = pairwise(self.edges)
        masks = torch.cat(
            [part[..., : b - a, :] for part, (a, b) in zip(out, edges, strict=True)], 3
        )
        rest = self.rest.view(2, self.parts // 2, -1).permute(1, 2, 0).contiguous()
        return torch.view_as_complex(torch.add(rest, masks, alpha=MASK_UNIT))

    def _filter(self, masks: Tensor, x: Tensor, y: Tensor, energy: Tensor) -> Tensor:
        """The guess: (batch, frames, bins), complex."""
        *on_y, on_x, direct = masks.unbind(2)
        reach, frames = self.config.taps // 2, y.shape[1]
        around = F.pad(y, (0, 0, reach, reach))
        spread = energy @ (self.pool > 0).to(energy.dtype).T
        # Untrained, the answer is half of each: the observation itself where both are the same.
        guess = (x + y) / 2 + on_x * x + direct * spread
        for tap, mask in enumerate(on_y):
            guess = guess + mask * around[:, tap : tap + frames]
        return guess


def fourier(time: Tensor) -> Tensor:
    """(batch,) to (batch, 32): sines and cosines at octaves, of a number between -1 and 1."""
    angle = time[:, None] * (math.pi / 2) * 2.0 ** torch.arange(16, device=time.device) / 4
    return torch.cat((angle.sin(), angle.cos()), -1)
