"""Fused blocks beside plain ones, by Triton's interpreter in a process of its own: prints JSON."""

import json
import os

import torch
from torch import Tensor

from wavediff.network import BandNet, Block, NetworkConfig

CASES = {  # channels, bands, batch, frames, dilation, mixing
    "as shipped, two tiles": (64, 2, 1, 70, 1, 8),
    "48 channels, a group of bands begun": (48, 5, 2, 33, 2, 8),
    "a dilation beyond the ends": (64, 3, 1, 21, 32, 8),
    "24 bands, mixed in three parts": (16, 24, 1, 3, 1, 8),
    "16 bands, several items": (16, 16, 2, 7, 4, 8),
    "no mixing": (32, 1, 2, 17, 8, 0),
    "odd sizes": (24, 9, 1, 20, 16, 5),
}
NETWORK = NetworkConfig(
    window=64, hop=32, bands=3, channels=8, layers=2, cycle=2, mixing=2, summary=4
)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def case(name: str) -> tuple[Block, Tensor, Tensor]:
    """A block all of whose parts matter, and what it is given."""
    channels, bands, batch, frames, dilation, mixing = CASES[name]
    config = NetworkConfig(bands=bands, channels=channels, mixing=mixing)
    block = Block(config, dilation).requires_grad_(False)
    for seed, parameter in enumerate(block.parameters()):
        parameter.copy_(0.2 * noise(*parameter.shape, seed=seed))
    return block, noise(bands, batch, frames, channels), noise(batch, channels)


def apart(one: Tensor, other: Tensor) -> float:
    """The largest difference, by the largest value."""
    return float((one - other).abs().max() / other.abs().max())


@torch.no_grad()
def compare() -> dict[str, float]:
    """How far apart they are, case by case, and a whole network of two blocks."""
    from wavediff.kernels.block import FusedBlocks

    found = {}
    for name in CASES:
        block, h, time = case(name)
        found[name] = apart(FusedBlocks([block], torch.float32)(h, time), block(h, time))
    net = BandNet(NETWORK)
    for seed, parameter in enumerate(net.parameters()):
        parameter.copy_(0.3 * noise(*parameter.shape, seed=seed))
    given = noise(2, 300), noise(2, 300, seed=1), torch.tensor([1.0, 0.3])
    plain = net(*given)
    net.blocks = FusedBlocks(list(net.blocks), torch.float32)
    return found | {"network": apart(net(*given), plain)}


if __name__ == "__main__":
    assert os.environ["TRITON_INTERPRET"] == "1"
    torch.set_num_threads(1)
    print(json.dumps(compare()))
