"""Change of rate, block by block with no seam, by torchaudio's windowed sinc.

The filter reaches over 64 zero crossings of the sinc to each side under a Hann window, and its
cutoff lies at 0.95 of the lower Nyquist frequency. Measured from 48 to 16 kHz (Nyquist 8 kHz):
flat within 0.01 dB to 7.4 kHz, -6 dB at 7.6 kHz, -64 dB at 8 kHz, below -80 dB from 8.4 kHz.
Half the width costs half, but leaves -44 dB just above Nyquist. torchaudio's Kaiser window of the
same width reaches -144 dB but loses 1 dB at 7.4 kHz: more than 16 bits can show, for less band.
"""

import math
from functools import lru_cache

import torch
from torch import Tensor, nn

from wavediff.audio import ArraySource, Source

WIDTH = 64  # zero crossings to each side
ROLLOFF = 0.95  # cutoff, as a share of the lower Nyquist frequency
CHUNK = 1 << 18  # output samples at a time; torchaudio counts them in float32, exact to 2^24
MAX_KERNEL = 1 << 20  # entries of torchaudio's table of phases, above which taps are made in place
MAX_TAPS = 1 << 20  # taps made in place at a time


class Resampled:
    """Another source at another rate; reads of any size give what one whole read gives.

    Sample n lies at the time of n / rate; there are ceil(source.samples * rate / source.rate).
    """

    def __init__(self, source: Source, rate: int) -> None:
        if rate < 1:
            raise ValueError(f"a rate of {rate} Hz")
        self.source, self.rate, self.channels = source, rate, source.channels
        common = math.gcd(source.rate, rate)
        # `old` input samples last as long as `new` output samples.
        self._old, self._new = source.rate // common, rate // common
        self.samples = -(-source.samples * self._new // self._old)
        self._reach = math.ceil(WIDTH * self._old / (min(self._old, self._new) * ROLLOFF))
        phases = self._new * (self._old + 2 * self._reach)
        self._table = phases <= MAX_KERNEL
        self._chunk = CHUNK if self._table else max(1, MAX_TAPS // (2 * self._reach + 1))

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return self.source.read(0, 0).new_zeros(self.channels, max(stop - start, 0))
        piece = self._by_table if self._table else self._by_taps
        pieces = [
            piece(begin, min(begin + self._chunk, high)) for begin in range(low, high, self._chunk)
        ]
        return torch.nn.functional.pad(torch.cat(pieces, 1), (low - start, stop - high))

    def _by_table(self, start: int, stop: int) -> Tensor:
        """By torchaudio, on whole periods of the ratio with their neighbours."""
        margin = -(-self._reach // self._old)
        first, last = start // self._new - margin, -(-stop // self._new) + margin
        audio = self.source.read(first * self._old, last * self._old)
        out = _filter(self._old, self._new, audio.device)(audio)
        return out[:, start - first * self._new : stop - first * self._new]

    def _by_taps(self, start: int, stop: int) -> Tensor:
        """The same filter, its taps made for each output: torchaudio's table for 44099 to 16000
        would take 3 GB, nearly all of it zeros."""
        position = torch.arange(start, stop) * self._old
        index, phase = position // self._new, (position % self._new).double() / self._new
        offset = torch.arange(-self._reach, self._reach + 1)
        cutoff = min(1.0, self._new / self._old) * ROLLOFF
        time = ((offset - phase[:, None]) * cutoff).clamp(-WIDTH, WIDTH).float()
        taps = torch.sinc(time) * torch.cos(time * (math.pi / 2 / WIDTH)).square() * cutoff
        first, last = int(index[0]), int(index[-1])
        audio = self.source.read(first - self._reach, last + self._reach + 1)
        near = audio.unfold(1, len(offset), 1)[:, (index - first).to(audio.device)]
        return torch.einsum("cnk,nk->cn", near, taps.to(audio))


def resampled(source: Source, rate: int) -> Source:
    """The source at `rate` Hz: itself where that is its rate."""
    return source if source.rate == rate else Resampled(source, rate)


def resample(audio: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Float (..., samples) at another rate: (..., ceil(samples * to_rate / from_rate))."""
    if from_rate == to_rate:
        return audio
    source = Resampled(ArraySource(audio.reshape(-1, audio.shape[-1]).float(), from_rate), to_rate)
    return source.read(0, source.samples).reshape(*audio.shape[:-1], source.samples)


@lru_cache(maxsize=16)
def _filter(old: int, new: int, device: torch.device) -> nn.Module:
    import torchaudio  # a tenth of what torch itself takes to import, where rates are alike too

    # Without a dtype torchaudio divides the phases in float32, an error of 3e-4 for odd ratios.
    kernel = torchaudio.transforms.Resample(
        old, new, lowpass_filter_width=WIDTH, rolloff=ROLLOFF, dtype=torch.float64
    )
    return kernel.to(device, torch.float32)
