"""Phases for magnitudes: a first guess along spectral peaks, and Griffin and Lim's iterations."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.noise import Noise
from wavediff.transform import Transform

FLOOR = 1e-4  # of a magnitude, below which its slopes tell nothing
HANN = 0.25645  # the Gaussian nearest to a Hann window of length 1 is exp(-pi x^2 / HANN)
BLOCK = 256  # frames whose phases are found at a time, where frames are read


@torch.no_grad()  # inference mode would give sounds that cannot be trained with
def griffin_lim(
    magnitude: Tensor,
    transform: Transform,
    samples: int,
    start: Tensor,
    iterations: int = 32,
    momentum: float = 0.99,
) -> Tensor:
    """A sound (batch, samples) of about these magnitudes (batch, frames, bins), without gradient.

    It has the phases of `start`, a sound (batch, samples) or a spectrum (batch, frames, bins), made
    more consistent with the magnitudes by each iteration (Griffin and Lim 1984; with momentum
    Perraudin et al. 2013, fast Griffin-Lim). What the spectrum of the start has none of stays out.
    """
    frames, half = magnitude.shape[1], transform.window // 2
    window = transform.taper(magnitude.device)
    inside = slice(half, half + samples)
    # A sound lies in a buffer with room for half a window of silence at its ends. All buffers are
    # used again: to get memory anew takes about as long as what is done with it.
    weight = transform.overlap_add(window.square().expand(1, frames, -1))
    gain = torch.zeros_like(weight)
    gain[:, inside] = 1 / weight[:, inside]
    buffer = magnitude.new_zeros(len(magnitude), weight.shape[1])
    view = buffer.unfold(-1, transform.window, transform.hop)
    framed = torch.empty_like(view, memory_format=torch.contiguous_format)
    if not start.is_complex():
        buffer[:, inside] = start
        start = torch.fft.rfft(torch.mul(view, window, out=framed))
    spectrum = start.sgn().mul_(magnitude)
    found, before = torch.empty_like(spectrum), torch.zeros_like(spectrum)
    for remaining in range(iterations, -1, -1):
        torch.fft.irfft(spectrum, transform.window, out=framed).mul_(window)
        transform.overlap_add(framed, buffer).mul_(gain)
        if remaining:
            torch.fft.rfft(torch.mul(view, window, out=framed), out=found)
            # found + momentum * (found - before), up to a factor, which leaves phases as they are
            torch.sub(found, before, alpha=momentum / (1 + momentum), out=spectrum)
            spectrum.sgn_().mul_(magnitude)
            found, before = before, found
    return buffer[:, inside].clone()


def reach(transform: Transform, iterations: int) -> int:
    """Samples to either side that a sample from `griffin_lim` depends on."""
    edge = transform.window // 2 - 1  # how far a frame reaches; the window's first value is zero
    return 2 * edge + iterations * (2 * edge // transform.hop) * transform.hop


@torch.no_grad()
def locked_phase(magnitude: Tensor, transform: Transform, first: Tensor) -> Tensor:
    """Phases in cycles, at the middle of each frame, that magnitudes (batch, frames, bins) suggest.

    From frame to frame the phase of a peak goes on by its frequency, the top of a parabola through
    three bins (Beauregard et al. 2015, single pass spectrogram inversion). The bins around a peak
    are locked to it, turned from bin to bin by the group delay, which is how fast the level rises
    (Průša et al. 2017, phase gradient heap integration). `first` (batch, bins) are the phases of
    the first frame, any where a sound begins. The last frame is taken to be a steady one.
    """
    beside = F.pad(magnitude, (1, 1), mode="reflect")
    is_peak = (magnitude >= beside[..., :-2]) & (magnitude >= beside[..., 2:])
    peak = is_peak.flatten().nonzero()[:, 0]  # through all frames
    # Every bin belongs to the nearest peak of its frame.
    bins, count = magnitude.shape[-1], magnitude.numel()
    frame, place = peak // bins, peak % bins
    border = torch.where(frame.diff() > 0, frame[1:] * bins, (peak[1:] + peak[:-1] + 1) // 2)
    width = F.pad(border, (1, 0)).diff(append=border.new_tensor([count]))

    def spread(values: Tensor) -> Tensor:
        return values.repeat_interleave(width, output_size=count).view(magnitude.shape)

    level = (magnitude + FLOOR).log()
    padded = F.pad(level, (1, 1), mode="reflect").flatten()
    a, b, c = (padded[peak + 2 * frame + n] for n in range(3))
    frequency = place + (0.5 * (a - c) / (a - 2 * b + c).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    steps = F.pad(level.mT, (1, 1), mode="replicate").mT.diff(dim=1)
    rise = 0.5 * (steps[:, 1:] + steps[:, :-1])
    ratio = transform.window / transform.hop
    slope = -HANN / transform.power * ratio / math.tau * rise
    turned = slope.cumsum(-1) - 0.5 * slope
    turn = turned + spread(frequency / ratio - turned.flatten()[peak])
    phases = [first]
    for home, step in zip(spread(place)[:, 1:].unbind(1), turn[:, 1:].unbind(1), strict=True):
        phases.append((phases[-1].gather(-1, home) + step).frac_())
    return torch.stack(phases, 1)


def with_phase(magnitude: Tensor, phase: Tensor) -> Tensor:
    """A spectrum as of `Transform.analyse`, by phases in cycles at the middle of each frame."""
    from_begin = 0.5 * torch.arange(phase.shape[-1], device=phase.device)
    return torch.polar(magnitude, math.tau * (phase + from_begin))


class Phased:
    """A source whose sound has about the magnitudes that are given, read by frames.

    Its phases are those of `locked_phase`, then of `griffin_lim`. They follow from all frames
    before, so they are found in rising order, in blocks whose last phases are kept (a frame of
    each): what is read does not depend on what was read, and memory is bounded.
    """

    def __init__(
        self,
        magnitudes: Callable[[int, int], Tensor],  # of frames, as (channels, frames, bins)
        transform: Transform,
        rate: int,
        channels: int,
        samples: int,
        iterations: int,  # 1 or 2: magnitudes of a mel are wrong enough that more do not help
        seed: int,  # of the first frame's phases
    ) -> None:
        self.rate, self.channels, self.samples = rate, channels, samples
        self._magnitudes, self._transform, self._iterations = magnitudes, transform, iterations
        self._frames = transform.frames(samples)
        # The phases before each block; what is alike in all channels stays so.
        self._last = [Noise(seed).read(-2, 0, 0, transform.bins).expand(channels, -1)]
        self._kept: dict[int, tuple[Tensor, Tensor]] = {}  # magnitudes and phases of blocks

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return torch.zeros(self.channels, max(stop - start, 0))
        hop, halo = self._transform.hop, reach(self._transform, self._iterations)
        first = max(0, low - halo) // hop
        end = min(self.samples, high + halo)
        last = first + self._transform.frames(end - first * hop)
        end = min(self.samples, (last - 1) * hop)
        magnitude, phase = self._spectrum(first, last)
        spectrum = with_phase(magnitude, phase)
        sound = griffin_lim(
            magnitude, self._transform, end - first * hop, spectrum, self._iterations
        ).cpu()
        return F.pad(sound[:, low - first * hop : high - first * hop], (low - start, stop - high))

    def _spectrum(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """Magnitudes and phases, (channels, last - first, bins)."""
        numbers = range(first // BLOCK, (last - 1) // BLOCK + 1)
        for number in range(len(self._last) - 1, numbers[0]):  # what leads to them
            self._found(number)
        self._kept = {n: self._kept[n] if n in self._kept else self._found(n) for n in numbers}
        begin = numbers[0] * BLOCK
        both = (torch.cat(blocks, 1) for blocks in zip(*self._kept.values(), strict=True))
        magnitude, phase = (each[:, first - begin : last - begin] for each in both)
        return magnitude, phase

    def _found(self, number: int) -> tuple[Tensor, Tensor]:
        """The magnitudes and phases of a block, (channels, frames, bins)."""
        begin, end = number * BLOCK, min((number + 1) * BLOCK, self._frames)
        earlier = int(number > 0)  # the frame before is known, the one after tells the last rise
        magnitude = self._magnitudes(begin - earlier, min(end + 1, self._frames))
        found = locked_phase(magnitude, self._transform, self._last[number].to(magnitude.device))
        magnitude, phases = (
            each[:, earlier : earlier + end - begin] for each in (magnitude, found)
        )
        if number + 1 == len(self._last):
            self._last.append(phases[:, -1].clone())
        return magnitude, phases
