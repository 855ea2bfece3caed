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
SMOOTH = 3  # frames
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
        first, last = int(start * scale) // FRAMES.hop - 1, int(stop * scale) // FRAMES.hop + 3
        known = FRAMES.bins * min(1.0, 1 / scale)
        bins = slice(int(known * UPPER), int(known))
        # Powers are smoothed, not gains: frames of silence, as before the start, say nothing.
        before, after = (
            F.avg_pool1d(_power(sound, first, last, bins), SMOOTH, 1) + QUIET
            for sound in (self._observed, self._denoised)
        )
        gain = (after / before).sqrt().clamp(max=1.0)
        position = torch.arange(start, stop, dtype=torch.float64) * scale / FRAMES.hop
        position -= first + SMOOTH // 2
        index = position.long()
        part = (position - index).to(torch.float32)
        return torch.lerp(gain[:, index], gain[:, index + 1], part)


def _power(sound: Source, first: int, last: int, bins: slice) -> Tensor:
    """(channels, last - first): what the frames have in these bins."""
    half = FRAMES.window // 2
    audio = sound.read(first * FRAMES.hop - half, (last - 1) * FRAMES.hop + half)
    frames = audio.unfold(-1, FRAMES.window, FRAMES.hop) * torch.hann_window(FRAMES.window)
    return torch.fft.rfft(frames)[..., bins].abs().square().sum(-1)
