"""A full-band recording out of one that was denoised at a lower rate."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import Remembered, Source
from wavediff.resample import resampled
from wavediff.transform import Transform

HOP = 0.01  # seconds between frames, which are of twice the length whatever the rate
UNIT = 16_000  # Hz at which the power of a frame's bin is that of its samples
PIECE = 8  # seconds at a time: long reads ask for the denoised sound once, in rising order

# Edges of bands as shares of the band that the model hears; beyond the last its own gain goes on.
LOW = (*(n / 32 for n in range(8)), *(n / 16 for n in range(4, 8)), *(n / 8 for n in range(4, 9)))
HIGH = (*(n / 8 for n in range(8, 17)), 2.25, 2.5, 3.0)

UPPER = 0.5  # of the band that both know: the suppression above this is carried on beyond it
QUIET = 1e-12  # power that counts as none
SMOOTH = 5  # frames


class Gains(Protocol):
    """Says how much of the amplitude stays in each band above the model's."""

    @property
    def reach(self) -> int:
        """Frames to either side that a gain depends on."""
        ...

    def __call__(self, high: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """From the power (channels, frames, bands) in the bands of `HIGH`, and in those of `LOW`
        before and after the model: (channels, frames, bands), or one gain for all bands."""
        ...


class Following:
    """Gains that carry on the suppression of what lies just below."""

    reach = SMOOTH // 2

    def __init__(self, known: float = 1.0) -> None:
        """`known` is the share of the model's band that the recording has."""
        inside = [UPPER * known <= a and b <= known for a, b in pairwise(LOW)]
        self._bands = torch.tensor(inside)

    def __call__(self, high: Tensor, before: Tensor, after: Tensor) -> Tensor:
        """See `Gains`."""
        # Powers are smoothed, not shares: frames of silence, as before the start, say nothing.
        old, new = (
            F.avg_pool1d(power[..., self._bands].sum(-1), SMOOTH, 1, SMOOTH // 2) + QUIET
            for power in (before, after)
        )
        return (new / old).clamp(max=1.0).sqrt()[..., None]


class Bands:
    """The power of a sound's bands, frame by frame, on one scale for all rates."""

    def __init__(self, rate: int, band: float, edges: Sequence[float]) -> None:
        """Of a sound at `rate` Hz; `edges` are shares of `band` Hz."""
        self.rate, self.hop = rate, max(1, round(HOP * rate))
        self.transform = Transform(2 * self.hop, self.hop)
        frequency = torch.arange(self.transform.bins) * rate / (2 * self.hop) / band
        self.band_of = torch.bucketize(frequency, torch.tensor(edges[1:-1]), right=True)
        self._count, self._scale = len(edges) - 1, math.sqrt(UNIT / rate / self.hop)

    def spectra(self, audio: Tensor) -> Tensor:
        """(channels, samples), whole hops, to complex (channels, hops - 1, bins)."""
        taper = self._scale * self.transform.taper(audio.device)
        return torch.fft.rfft(audio.unfold(-1, 2 * self.hop, self.hop) * taper)

    def whole(self, audio: Tensor) -> Tensor:
        """The same of a sound with silence around it: a frame more than it has hops."""
        return self.spectra(F.pad(audio, (self.hop, self.hop)))

    def sound(self, spectra: Tensor) -> Tensor:
        """From `spectra` to (channels, samples), of which the first and last hop fade."""
        taper = self.transform.taper(spectra.device) / self._scale
        return self.transform.overlap_add(torch.fft.irfft(spectra, 2 * self.hop) * taper)

    def power(self, spectra: Tensor) -> Tensor:
        """Of each band, (channels, frames, bands)."""
        power = spectra.abs().square()
        pooled = power.new_zeros(*power.shape[:-1], self._count)
        return pooled.index_add_(-1, self.band_of.to(power.device), power)


class FullBand:
    """The denoised sound at the recording's own rate, its content above the model's band kept.

    How much of that is voice is for `Gains` to say, frame by frame. What a change of rate takes
    from the top of a narrower recording is treated likewise. Without other gains, the band above
    follows the suppression below it, so that where the model changes nothing, the recording comes
    back as it was.
    """

    def __init__(
        self,
        source: Source,
        observed: Source,
        denoised: Source,
        dry: float,
        gains: Gains | None = None,
    ) -> None:
        """`observed` and `denoised` are at the model's rate, before and after; `dry` is the share
        of the recording itself in the result."""
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._observed, self._denoised, self._dry = source, observed, denoised, dry
        self._gains = gains or Following(min(1.0, self.rate / observed.rate))
        self._wet = resampled(denoised, self.rate)
        again = 4 * (self._gains.reach + 2) * HOP
        self._band = Remembered(resampled(observed, self.rate), again)
        self._high = Bands(self.rate, observed.rate / 2, HIGH)
        self._low = Bands(observed.rate, observed.rate / 2, LOW)

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        out = torch.zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        for begin in range(low, high, PIECE * self.rate):
            end = min(begin + PIECE * self.rate, high)
            out[:, begin - start : end - start] = self._piece(begin, end)
        return out

    def _piece(self, start: int, stop: int) -> Tensor:
        recording = self._source.read(start, stop)
        out = self._wet.read(start, stop)
        if self.rate != self._observed.rate:
            out = out + self._above(start, stop)
        return torch.lerp(out, recording, self._dry)

    def _above(self, start: int, stop: int) -> Tensor:
        """What lies above the model's band, cleaned; (channels, stop - start)."""
        hop, around = self._high.hop, self._gains.reach
        first, last = start // hop - around, -(-stop // hop) + 1 + around  # frames
        span = ((first - 1) * hop, last * hop)
        spectra = self._high.spectra(self._source.read(*span) - self._band.read(*span))
        below = (self._below(sound, first, last) for sound in (self._observed, self._denoised))
        gains = self._gains(self._high.power(spectra), *below)
        gains = gains.expand(*gains.shape[:-1], len(HIGH) - 1)[..., self._high.band_of]
        kept = slice(around, last - first - around)
        sound = self._high.sound(spectra[:, kept] * gains[:, kept])
        return sound[:, hop + start % hop :][:, : stop - start]

    def _below(self, sound: Source, first: int, last: int) -> Tensor:
        """The power of a sound at the model's rate, at the centres of the upper band's frames from
        `first` to `last`; (channels, last - first, bands)."""
        hop = self._low.hop
        scale = self._high.hop / self.rate * sound.rate / hop
        low, high = math.floor(first * scale), math.floor((last - 1) * scale) + 2
        power = self._low.power(self._low.spectra(sound.read((low - 1) * hop, high * hop)))
        position = torch.arange(first, last, dtype=torch.float64) * scale - low
        index = position.long()
        share = (position - index).float()[:, None]
        return torch.lerp(power[:, index], power[:, index + 1], share)
