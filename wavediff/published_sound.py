"""Sound by the published network: its fast twin, its way of sampling, and blocks of any length."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.errors import MelError
from wavediff.noise import Noise
from wavediff.packed import Packed
from wavediff.published import HOP, PublishedNet, ResidualLayer, Schedule

BLOCK_SECONDS = 12.0
KEPT = 1 << 29  # bytes of projected mels, at most, that are kept from step to step
PERIOD = 64  # layers after which what goes on is brought back to its size
ROWS = 1 << 14  # samples that are worked on at a time


class Prepared:
    """The fast twin of a `PublishedNet` for one mel and known steps; it has no gradient.

    What no state changes is computed once: the steps' codes, the mel at the rate of samples and,
    for as many layers as memory is given to, its projection. A sample's channels lie side by side,
    for which a processor's convolutions are several times as fast.
    """

    @torch.inference_mode()
    def __init__(
        self,
        network: PublishedNet,
        mel: Tensor | None,
        steps: Tensor,
        samples: int,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        layers = cast(list[ResidualLayer], list(network.residual_layers))
        self._network, self._dtype, self._reach = network, dtype, max(network.config.dilations)
        self._layers = [PreparedLayer(layer, number, dtype) for number, layer in enumerate(layers)]
        code = network.diffusion_embedding(steps)
        self._codes = [
            layer.diffusion_projection(code) * 2 ** (number % PERIOD / 2)
            for number, layer in enumerate(layers)
        ]
        up = network.upsampled(mel, samples)
        self._mel = None if up is None else up.mT.contiguous().to(dtype)
        self._kept: list[Tensor] = []
        if self._mel is not None:
            each = 2 * network.config.channels * self._mel[..., 0].nbytes
            self._kept = [layer.condition(self._mel) for layer in self._layers[: KEPT // each]]

    @torch.inference_mode()
    def __call__(self, x: Tensor, number: int) -> Tensor:
        """What the network answers to (batch, samples) at the step of this number."""
        network, (batch, samples) = self._network, x.shape
        channels, reach = network.config.channels, self._reach
        # What goes on, not divided by the root of 2 in each layer, beside what goes to the end.
        both = x.new_zeros(batch, samples, 2 * channels)
        on, end = both.chunk(2, -1)
        on.copy_(F.relu(network.input_projection(x[:, None])).mT)
        padded = x.new_zeros(batch, samples + 2 * reach, channels, dtype=self._dtype)
        inside = padded[:, reach : reach + samples]
        size = max(1, ROWS // batch)
        for index, (layer, code) in enumerate(zip(self._layers, self._codes, strict=True)):
            if index and index % PERIOD == 0:
                on *= 2 ** (-PERIOD / 2)
            torch.add(on, code[number], out=inside)
            near = padded[:, reach - layer.dilation : reach + samples + layer.dilation]
            for start in range(0, samples, size):
                piece = slice(start, start + size)
                told = None
                if index < len(self._kept):
                    told = self._kept[index][:, piece]
                elif self._mel is not None:
                    told = layer.condition(self._mel[:, piece])
                around = near[:, start : start + size + 2 * layer.dilation]
                both[:, piece] += layer(around, told)
        return network.leave(end.mT)


class PreparedLayer:
    """The same of a `ResidualLayer`, the layer of this number from the input."""

    def __init__(self, layer: ResidualLayer, number: int, dtype: torch.dtype) -> None:
        conv, last = layer.dilated_conv, layer.output_projection
        channels, grown = conv.in_channels, 2 ** (number % PERIOD / 2)
        self.dilation = conv.dilation[0]
        # tanh(v) is 2 sigmoid(2 v) - 1; the sign is what is cheapest below.
        double = conv.weight.new_tensor((1.0, 2.0)).repeat_interleave(channels)
        image = (double[:, None, None] * conv.weight / grown)[:, :, None]
        self._taps = image.contiguous(memory_format=torch.channels_last).to(dtype)
        mel, bias = layer.conditioner_projection, cast(Tensor, conv.bias)
        if mel is not None:
            bias = bias + cast(Tensor, mel.bias)
            told = double[:, None] * mel.weight[:, :, 0]
            self._mel = Packed(told, torch.zeros_like(double), dtype)
        self._bias = (double * bias).to(dtype)
        scale = torch.ones_like(double).index_fill(0, torch.arange(channels), grown)
        onward = -scale[:, None] * last.weight[:, :, 0]
        self._last = Packed(onward, scale * cast(Tensor, last.bias), dtype)

    def condition(self, mel: Tensor) -> Tensor:
        """(batch, samples, bands) to what is added before the gate."""
        return self._mel(mel)

    def __call__(self, around: Tensor, condition: Tensor | None) -> Tensor:
        """From (batch, samples and reach, channels) to what goes on and what goes to the end."""
        image = around.mT[:, :, None]
        wide = F.conv2d(image, self._taps, self._bias, dilation=(1, self.dilation))[:, :, 0].mT
        if condition is not None:
            wide += condition
        gate, value = wide.sigmoid_().chunk(2, -1)
        gated = torch.addcmul(gate, gate, value, value=-2)
        return self._last(gated)


@torch.no_grad()
def sample(
    network: PublishedNet,
    mel: Tensor | None,
    draws: Callable[[int], Tensor],
    fast: bool = True,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """A sound (batch, samples) for mels (batch, bands, frames) or, unconditional, for none.

    `draws(number)` is Gaussian noise (batch, samples): 0 the start, then one for each step but
    the last. Products are of the type `dtype`. Raises MelError for a mel that does not fit.
    """
    schedule = Schedule.of(network.config, fast)
    x = draws(0)
    steps = torch.tensor(schedule.steps, dtype=torch.float32, device=x.device)
    prepared = Prepared(network, mel, steps, x.shape[-1], dtype)
    for draw, number in enumerate(reversed(range(len(schedule.beta))), 1):
        noise = draws(draw) if number else None
        x = schedule.advance(x, prepared(x, number), number, noise)
    return x


class PublishedSound:
    """A source whose sound is sampled from a published network as it is read.

    Blocks equal the whole for the reason that those of `Rendered` do: each is sampled with the
    reach of all its network calls on either side, on noise that depends on position alone.

    `mel` is (bands, frames) for at least `samples` samples, or None for an unconditional network.
    Raises MelError for a mel that does not fit.
    """

    channels = 1

    def __init__(
        self,
        network: PublishedNet,
        rate: int,
        mel: Tensor | None,
        samples: int,
        seed: int = 0,
        fast: bool = True,
        block_seconds: float = BLOCK_SECONDS,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.rate, self.samples = rate, samples
        self._network, self._mel, self._fast, self._noise = network, mel, fast, Noise(seed)
        self._dtype = dtype
        self._end = samples if mel is None else mel.shape[-1] * HOP
        network.check(mel if mel is None else mel[None], self._end)
        if samples > self._end:
            frames = self._end // HOP
            raise MelError(f"{frames} frames for {samples} samples", f"a frame lasts {HOP} samples")
        self._device = next(network.parameters()).device
        self._block = max(1, round(block_seconds * rate / HOP)) * HOP
        calls = len(Schedule.of(network.config, fast).beta)
        self._halo = -(-network.reach(calls) // HOP) * HOP
        self._kept: dict[int, Tensor] = {}  # by their first samples, for reads that overlap

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (1, stop - start) on the CPU; zero outside of [0, samples)."""
        out = torch.zeros(1, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return out
        for first in range(low // self._block * self._block, high, self._block):
            if first not in self._kept:
                before = {f: kept for f, kept in self._kept.items() if f == first - self._block}
                self._kept = {**before, first: self._sample(first)}
            block = self._kept[first]
            a, b = max(low, first), min(high, first + block.shape[-1])
            out[:, a - start : b - start] = block[:, a - first : b - first]
        return out

    def _sample(self, first: int) -> Tensor:
        """The block that starts at sample `first`: (1, samples)."""
        last = min(first + self._block, self._end)
        start, stop = max(0, first - self._halo), min(self._end, last + self._halo)
        mel = self._mel
        if mel is not None:
            mel = mel[None, :, start // HOP : stop // HOP].to(self._device)

        def draw(number: int) -> Tensor:
            return self._noise.read(number, 0, start, stop)[None].to(self._device)

        sound = sample(self._network, mel, draw, self._fast, self._dtype)
        return sound[:, first - start : last - start].cpu()
