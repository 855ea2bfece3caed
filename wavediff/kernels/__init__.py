"""Fast twins of the network on an NVIDIA card, each beside the plain one that it is equal to.

block        all residual blocks, fused: `convolution` and `mixing` are the two kernels (Triton)
graph        a function of tensors, recorded as a CUDA graph for shapes that come again
choice       `fast(network)`, where card and system have what it takes; `describe(device)` says it

Only `block` and the kernels import Triton, and only `choice` imports them: a system without it
computes as `network` has it. Training always does.
"""

from wavediff.kernels.choice import describe, fast

__all__ = ["describe", "fast"]
