"""Which way a network is computed on a device, and why."""

import copy
import functools
import importlib.metadata
import importlib.util

import torch
from torch import Tensor, nn

from wavediff.kernels.graph import Call, Graphed
from wavediff.network import BandNet, Block, NetworkConfig

OLDEST = (8, 0)  # compute capability: bf16 on tensor cores
FAR = 0.02  # of the plain answer, up to where that in bf16 may differ: ten times what rounding does


def fast(network: nn.Module) -> Call | None:
    """The fast twin of a network that stands on a card, or None where there is none.

    Called as the network is, it answers the same but for the rounding to bf16. It has weights of
    its own: later changes of the network's do not reach it.
    """
    if not isinstance(network, BandNet) or unfit(next(network.parameters()).device):
        return None
    from wavediff.kernels.block import FusedBlocks, fits

    if not fits(network.config):
        return None
    twin = copy.deepcopy(network).requires_grad_(False)
    blocks = [block for block in twin.blocks if isinstance(block, Block)]
    twin.add_module("blocks", FusedBlocks(blocks))
    return Graphed(twin)


def describe(device: torch.device) -> str:
    """Which way the networks of denoisers and vocoders are computed on a device, and why."""
    if reason := unfit(device):
        return f"plain PyTorch: {reason}"
    name, version = torch.cuda.get_device_name(device), importlib.metadata.version("triton")
    return f"blocks fused by Triton {version} in bf16, CUDA graphs, on {name}"


@functools.cache
def unfit(device: torch.device) -> str:
    """Why there is no fast twin on a device; empty where there is one."""
    if device.type != "cuda" or torch.version.cuda is None:
        return f"the kernels are for NVIDIA cards, the device is {device.type}"
    if torch.cuda.get_device_capability(device) < OLDEST:
        return f"{torch.cuda.get_device_name(device)} has no tensor cores for bf16"
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    try:
        with torch.cuda.device(device):
            error = trial(device)
    except Exception as failure:  # of a compiler that is missing, of a driver: whatever it is
        return f"the kernels do not run here ({type(failure).__name__}: {failure!s:.80})"
    return "" if error < FAR else f"the kernels are wrong here, by {error:.0%}"


@torch.inference_mode()
def trial(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float:
    """By how much of its RMS a fused block of usual size is beside the plain one."""
    from wavediff.kernels.block import FusedBlocks

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(device)

    block = Block(NetworkConfig(), 4).to(device)
    for parameter in block.parameters():
        parameter.copy_(0.2 * noise(*parameter.shape))
    h, time = noise(24, 2, 70, 64), noise(2, 64)
    plain, fused = block(h, time), FusedBlocks([block], dtype)(h, time)
    return float((fused - plain).norm() / (plain - h).norm())
