"""Rendering: sampling a sound of any length in blocks that equal the whole, exactly."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import Source
from wavediff.denoiser import Denoiser
from wavediff.noise import Noise, spectral_tilt
from wavediff.samplers import SAMPLERS, Walk

Tensors = tuple[Tensor, ...]
Known = Callable[[int, int, int], Tensors]  # what else a denoiser is told: channel, start, stop
BLOCK_SECONDS = 24.0  # of a block: long enough that its halo costs little, small in memory


@dataclass(frozen=True)
class Request:
    """How a sound is to be rendered."""

    walk: Walk = field(default_factory=Walk)
    seed: int = 0
    block_seconds: float = BLOCK_SECONDS


class Rendered:
    """A source whose sound is another source, denoised.

    Every block is sampled together with the exact reach of all its network calls on either side,
    on noise that depends on position alone. So the result does not depend on the blocks, and no
    cross-fade is needed. Memory does not grow with the length.
    """

    def __init__(
        self,
        source: Source,
        denoiser: Denoiser,
        gain: float,
        request: Request,
        device: torch.device,
        known: Known | None = None,
    ) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._denoiser, self._gain = source, denoiser, gain
        self._request, self._device, self._known = request, device, known
        hop = self._hop = denoiser.hop
        self._noise = Noise(request.seed)
        self._kernel = spectral_tilt(source.rate)
        self._block = max(1, round(request.block_seconds * source.rate / hop)) * hop
        self._kept: dict[int, Tensor] = {}  # the last blocks, for reads that overlap

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start) on the CPU; zero outside of [0, samples)."""
        out = torch.zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return out
        for number in range(low // self._block, -(-high // self._block)):
            first = number * self._block
            block = self._rendered(number)
            a, b = max(low, first), min(high, first + block.shape[-1])
            out[:, a - start : b - start] = block[:, a - first : b - first]
        return out

    def _needed(self, first: int, last: int, calls: int) -> tuple[int, int]:
        """The range that the block from `first` to `last` depends on through so many calls."""
        halo = -(-calls * self._denoiser.reach // self._hop) * self._hop
        return max(0, first - halo), min(self.samples, last + halo)

    def _rendered(self, number: int) -> Tensor:
        if number not in self._kept:
            self._kept = {n: kept for n, kept in self._kept.items() if n == number - 1}
            self._kept[number] = self._sample(number * self._block)
        return self._kept[number]

    @torch.inference_mode()
    def _sample(self, first: int) -> Tensor:
        """The block that starts at sample `first`."""
        last = min(first + self._block, self.samples)
        start, stop = self._needed(first, last, self._request.walk.calls)
        observed = self._source.read(start, stop)
        walk, path = self._request.walk, self._denoiser.path
        blocks = []
        for channel in range(self.channels):  # one by one: memory is for one channel
            y = observed[channel : channel + 1].to(self._device) * self._gain
            known = self._known(channel, start, stop) if self._known else ()
            calls = iter(range(walk.calls, 0, -1))

            def denoise(
                x: Tensor,
                t: float,
                y: Tensor = y,
                known: Tensors = known,
                calls: Iterator[int] = calls,
            ) -> Tensor:
                a, b = self._needed(first, last, next(calls))
                inside = slice(a - start, b - start)
                frames = slice((a - start) // self._hop, -(-(b - start) // self._hop) + 1)
                told = (mel[..., frames] for mel in known)
                at = x.new_full((x.shape[0],), t)
                guess = self._denoiser(x[:, inside], y[:, inside], at, *told)
                return F.pad(guess, (a - start, stop - b))

            def draw(number: int, channel: int = channel) -> Tensor:
                noise = self._noise.shaped(number, channel, start, stop, self._kernel)
                return noise[None].to(self._device)

            x = path.start(y, lambda: draw(-1))
            x = SAMPLERS[walk.sampler](path, denoise, x, y, path.times(walk.steps), draw)
            blocks.append(x[0, first - start : last - start].cpu() / self._gain)
        return torch.stack(blocks)
