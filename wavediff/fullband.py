"""A full-band recording out of one that was denoised at a lower rate."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import Remembered, Source
from wavediff.resample import resampled
from wavediff.transform import Transform

FRAMES = Transform(512, 256)  # at the model's rate
UPPER = 0.5  # of the band that both know: the suppression above this is carried on beyond it
QUIET = 1e-12  # power that counts as none
SMOOTH = 3  # frames
PIECE = 8  # seconds at a time: long reads ask for the denoised sound once, in rising order

# Of the upper band's own frames; docs/design.md has what they bring.
FRAME = 0.023  # seconds, to the nearest power of two of samples
BAND = 1000.0  # Hz that share a gain
NEAR = 0.5  # seconds to either side that tell how loud the noise is
SILENT = 0.25  # share of power that the model leaves, below which a frame tells it
DOUBT = 0.05  # share of such frames at which they are believed by half
OVER = 1.5  # times the noise is taken off
LEAST = 0.1  # of the amplitude stays, or what the model leaves: else it sounds like water
HEARD = 0.125  # share of power that the model leaves, above which there is voice


class FullBand:
    """The denoised sound at the recording's own rate, its content above the model's band kept.

    What the model cannot see is cleaned by what the model found. Where it left next to nothing of
    the upper half of its band, the recording above is noise, and tells how loud noise is there,
    a kHz at a time; this is taken off the frames nearby (as by Boll 1979, with a floor). Where no
    frame tells, the upper band follows the suppression below it, so that an open recording stays
    open. So does what a change of rate takes from the top of a narrower recording. Where the model
    changes nothing, the recording comes back as it was.
    """

    def __init__(self, source: Source, observed: Source, denoised: Source, dry: float) -> None:
        """`observed` and `denoised` are at the model's rate, before and after; `dry` is the share
        of the recording itself in the result."""
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._observed, self._denoised, self._dry = source, observed, denoised, dry
        self._wet = resampled(denoised, source.rate)
        self._band = Remembered(resampled(observed, source.rate), 4 * NEAR)
        window = 2 ** max(2, round(math.log2(FRAME * source.rate)))
        self._frames = Transform(window, window // 2)
        self._near = max(1, round(NEAR * source.rate / self._frames.hop))  # frames
        known = min(window // 2, window * observed.rate // (2 * source.rate))
        width = max(1, round(BAND * window / source.rate))
        bins = torch.arange(self._frames.bins)
        most = max((window // 2 - known) // width - 1, 0)
        self._band_of = ((bins - known) // width).clamp(0, most)

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
        hop, taper = self._frames.hop, self._frames.taper(torch.device("cpu"))
        around = self._near + SMOOTH // 2  # frames that a frame's gain depends on, to either side
        first, last = start // hop - around, -(-stop // hop) + 1 + around
        span = ((first - 1) * hop, last * hop)
        above = self._source.read(*span) - self._band.read(*span)
        spectra = torch.fft.rfft(above.unfold(-1, self._frames.window, hop) * taper)
        gain = self._gain(spectra.abs().square(), self._left(first, last))
        spectra = spectra[:, around:-around] * gain[..., self._band_of]
        sound = self._frames.overlap_add(torch.fft.irfft(spectra) * taper)
        return sound[:, hop + start % hop :][:, : stop - start]

    def _gain(self, power: Tensor, left: Tensor) -> Tensor:
        """Of frames (channels, frames, bins), of which the model leaves the share `left` (channels,
        frames) in the band below: (channels, frames, bands), less those around."""
        bands = int(self._band_of[-1]) + 1
        power = power.new_zeros(*power.shape[:2], bands).index_add_(2, self._band_of, power)
        tells, smooth, near = (1 - left / SILENT).clamp(min=0)[..., None], SMOOTH // 2, self._near
        told = _mean(tells, 2 * near + 1)[:, smooth:-smooth]
        noise = _mean(tells * power, 2 * near + 1)[:, smooth:-smooth] / (told + QUIET)
        power = _mean(power, SMOOTH)[:, near:-near]
        left = left[:, near + smooth : -near - smooth, None]
        cleaned = ((power - OVER * noise) / (power + QUIET)).clamp(min=0)
        cleaned = cleaned * (left / HEARD).clamp(max=1).sqrt()
        cleaned = torch.maximum(cleaned, left.sqrt().clamp(max=LEAST))
        return torch.lerp(left.sqrt(), cleaned, told / (told + DOUBT))

    def _left(self, first: int, last: int) -> Tensor:
        """The share of power that the model leaves of its upper band, at the centres of the upper
        band's frames from `first` to `last`; (channels, last - first)."""
        scale = self._observed.rate / self.rate * self._frames.hop / FRAMES.hop
        low, high = math.floor(first * scale) - 1, math.floor((last - 1) * scale) + 3
        known = FRAMES.bins * min(1.0, self.rate / self._observed.rate)
        bins = slice(int(known * UPPER), int(known))
        # Powers are smoothed, not shares: frames of silence, as before the start, say nothing.
        before, after = (
            F.avg_pool1d(_power(sound, low, high, bins), SMOOTH, 1) + QUIET
            for sound in (self._observed, self._denoised)
        )
        share = (after / before).clamp(max=1.0)
        position = torch.arange(first, last, dtype=torch.float64) * scale - (low + SMOOTH // 2)
        index = position.long()
        return torch.lerp(share[:, index], share[:, index + 1], (position - index).float())


def _power(sound: Source, first: int, last: int, bins: slice) -> Tensor:
    """(channels, last - first): what the frames have in these bins."""
    half = FRAMES.window // 2
    audio = sound.read(first * FRAMES.hop - half, (last - 1) * FRAMES.hop + half)
    frames = audio.unfold(-1, FRAMES.window, FRAMES.hop) * torch.hann_window(FRAMES.window)
    return torch.fft.rfft(frames)[..., bins].abs().square().sum(-1)


def _mean(frames: Tensor, count: int) -> Tensor:
    """(channels, frames, bands) over `count` neighbours: `count - 1` frames fewer."""
    return F.avg_pool1d(frames.mT, count, 1).mT
