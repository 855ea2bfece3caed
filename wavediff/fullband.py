"""A full-band recording out of one that was denoised at a lower rate."""

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import Source
from wavediff.resample import resampled
from wavediff.transform import Transform

FRAMES = Transform(512, 256)  # at the model's rate
UPPER = 0.5  # of the band that both know: the suppression above this is carried on beyond it
QUIET = 1e-12  # power that counts as none
PIECE = 5  # seconds at a time: long reads ask for the denoised sound once, in rising order


class FullBand:
    """The denoised sound at the recording's own rate, its content above the model's band kept.

    What the model cannot see follows the suppression that it found in the upper half of its band,
    frame by frame, so that an open recording stays open and its hiss goes with the rest. So does
    what a change of rate takes from the top of a narrower recording. Where the model changes
    nothing, the recording comes back as it was.
    """

    def __init__(self, source: Source, observed: Source, denoised: Source, dry: float) -> None:
        """`observed` and `denoised` are at the model's rate, before and after; `dry` is the share
        of the recording itself in the result."""
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._observed, self._denoised, self._dry = source, observed, denoised, dry
        self._wet = resampled(denoised, source.rate)
        self._band = resampled(observed, source.rate)

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
            above = recording - self._band.read(start, stop)
            out = out + above * self._suppression(start, stop)
        return torch.lerp(out, recording, self._dry)

    def _suppression(self, start: int, stop: int) -> Tensor:
        """The gain that the model gave its upper band, at each sample; (channels, stop - start)."""
        scale = self._observed.rate / self.rate
        hop = FRAMES.hop
        first, last = int(start * scale) // hop - 1, int(stop * scale) // hop + 3
        begin, end = first * hop - FRAMES.window // 2, (last - 1) * hop + FRAMES.window // 2
        known = FRAMES.bins * min(1.0, 1 / scale)
        bins = slice(int(known * UPPER), int(known))
        before, after = (
            sound.read(begin, end).unfold(-1, FRAMES.window, hop)
            for sound in (self._observed, self._denoised)
        )
        window = torch.hann_window(FRAMES.window)
        power = [
            torch.fft.rfft(frames * window)[..., bins].abs().pow(2).sum(-1)
            for frames in (before, after)
        ]
        gain = ((power[1] + QUIET) / (power[0] + QUIET)).sqrt().clamp(max=1.0)
        smooth = F.avg_pool1d(F.pad(gain[:, None], (1, 1), mode="replicate"), 3, 1)[:, 0]
        position = torch.arange(start, stop, dtype=torch.float64) * scale / hop - first
        index = position.long().clamp(0, gain.shape[-1] - 2)
        part = (position - index).to(torch.float32)
        return torch.lerp(smooth[:, index], smooth[:, index + 1], part)
