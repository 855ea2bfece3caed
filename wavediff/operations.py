"""What a network has to compute and to move, counted from its layers."""

from dataclasses import dataclass

from torch import nn

from wavediff.network import FEATURES, BandNet, Block
from wavediff.prior import PriorNet
from wavediff.published import PublishedNet


@dataclass(frozen=True)
class Work:
    """Of one network call, per second of sound."""

    multiply_adds: float
    numbers: float  # that at least go through memory: each block reads its channels and writes them

    def __mul__(self, times: float) -> "Work":
        return Work(times * self.multiply_adds, times * self.numbers)


def work(network: nn.Module, rate: int) -> Work:
    """Of one call; `rate` is the sound's, or for a prior that of its frames.

    Products of matrices and convolutions count, transforms and what goes number by number do not.
    """
    if isinstance(network, BandNet):
        return _of_frame(network) * (rate / network.hop)
    if isinstance(network, PriorNet):
        channels, bands = network.config.channels, network.bands
        blocks = sum(_of_row(block) for block in network.blocks if isinstance(block, Block))
        numbers = 2 * bands + 2 * channels * len(network.blocks)
        return Work(blocks + 2 * bands * channels, numbers) * rate
    if isinstance(network, PublishedNet):
        return _of_sample(network) * rate
    raise ValueError(f"the operations of a {type(network).__name__} are not known")


def _of_row(block: Block) -> int:
    """Multiply-adds of a block for a frame of one band, but for the mixing of bands."""
    layers = (block.dilated, block.out, block.squeeze, block.expand)
    return sum(layer.weight.numel() for layer in layers if layer is not None)


def _of_frame(network: BandNet) -> Work:
    config, bins = network.config, network.transform.bins
    blocks = [block for block in network.blocks if isinstance(block, Block)]
    rows = config.bands * sum(_of_row(block) for block in blocks)
    mixing = sum(block.mix.weight.numel() for block in blocks if block.mix is not None)
    ends = bins * config.channels * (FEATURES + network.parts)
    told = [layer.weight.numel() for layer in (network.describe, network.tell) if layer is not None]
    pools = bins * config.bands  # of the energy; that of the level is there only without a mel
    pools *= 2 if network.describe is None or network.describe.in_features == config.bands else 1
    moved = 2 * len(blocks) * config.bands * config.channels + bins * (FEATURES + 2)
    return Work(rows + mixing + ends + sum(told) + pools, moved)


def _of_sample(network: PublishedNet) -> Work:
    """As published: the mel is brought to the rate of samples and projected at each call."""
    config = network.config
    layers = [
        module for module in network.residual_layers.modules() if isinstance(module, nn.Conv1d)
    ]
    ends = (network.input_projection, network.skip_projection, network.output_projection)
    products: float = sum(conv.weight.numel() for conv in (*layers, *ends))
    if network.spectrogram_upsampler is not None:
        # Of each transposed convolution's kernel, a sixteenth reaches a given output.
        products += config.bands * (3 * 32 // 16) * (1 + 1 / 16)
    return Work(products, 4 * config.channels * config.layers)
