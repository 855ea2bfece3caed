"""Intelligibility as a number with a gradient: the correlation of envelopes that ESTOI measures."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

FRAME = 0.0256  # seconds, moved by half of it
SEGMENT = 30  # frames that are correlated
LOWEST, BANDS = 150.0, 15  # Hz, third octaves from there
RANGE = 40.0  # dB below the loudest frame, beyond which a frame counts as a pause
FLOOR = 1e-3  # of an envelope, inaudible at the training level


def envelope_correlation(
    guess: Tensor, clean: Tensor, rate: int, stride: int = 1
) -> tuple[Tensor, Tensor]:
    """ESTOI of each item, (batch,), and whether it has one: enough that is no pause.

    Sounds (batch, samples); a segment begins every `stride` frames. Jensen and Taal 2016, eq. 3 to
    8, at the sounds' own rate, where the original resamples to 10 kHz, and cuts the pauses out of
    the sound and not out of its frames.
    """
    frame = 2 * round(FRAME * rate / 2)
    short = max(0, (SEGMENT + 1) * frame // 2 - clean.shape[-1])
    framed = [F.pad(x, (0, short)).unfold(-1, frame, frame // 2) for x in (guess, clean)]
    energy = (framed[1] * torch.hann_window(frame, device=clean.device)).square().sum(-1)
    heard = energy > energy.amax(1, keepdim=True) * 10 ** (-RANGE / 10)
    # Frames that are heard come first, in their order, so that segments step over pauses.
    order = torch.argsort(~heard, dim=1, stable=True)[..., None]
    segments = []
    for frames in framed:
        envelope = (_powers(frames, rate) + FLOOR**2).sqrt()
        parts = envelope.gather(1, order.expand_as(envelope)).unfold(1, SEGMENT, stride)
        parts = _normal(_normal(parts, -1), -2)  # (batch, segments, bands, SEGMENT)
        segments.append(parts)
    each = (segments[0] * segments[1]).sum((2, 3)) / SEGMENT
    first = stride * torch.arange(each.shape[1], device=each.device)
    counted = first + SEGMENT <= heard.sum(1, keepdim=True)
    found = counted.any(1) & (energy.amax(1) > FLOOR**2)
    return (each * counted).sum(1) / counted.sum(1).clamp(min=1), found


def _powers(frames: Tensor, rate: int) -> Tensor:
    """(batch, frames, samples) to the powers of the bands, (batch, frames, BANDS)."""
    basis, bank = _third_octaves(frames.shape[-1], rate)
    real, imaginary = (frames @ basis.to(frames)).chunk(2, -1)
    return (real.square() + imaginary.square()) @ bank.to(frames)


@functools.lru_cache(maxsize=4)
def _third_octaves(frame: int, rate: int) -> tuple[Tensor, Tensor]:
    """The windowed Fourier transform of a frame in the bins of the bands, and which is in which.

    (samples, 2 bins), cosines and sines; (bins, BANDS). Products with these are faster than a fast
    transform, as most bins lie above the highest band.
    """
    width = rate / 2 / frame  # Hz between bins: half of what the frame tells apart
    edges = [round(LOWEST * 2 ** ((band - 0.5) / 3) / width) for band in range(BANDS + 1)]
    number = torch.arange(edges[0], edges[-1])
    angle = math.pi / frame * torch.outer(torch.arange(frame), number)
    basis = torch.hann_window(frame)[:, None] * torch.cat((angle.cos(), angle.sin()), 1)
    low, high = torch.tensor(edges[:-1]), torch.tensor(edges[1:])
    bank = (number[:, None] >= low) & (number[:, None] < high)
    return basis, bank.float()


def _normal(x: Tensor, axis: int) -> Tensor:
    """Mean 0 and norm 1 along an axis."""
    x = x - x.mean(axis, keepdim=True)
    return x / (x.square().sum(axis, keepdim=True) + FLOOR**2).sqrt()
