"""Linear layers whose weights lie in memory as a processor's products like them best."""

import platform

import torch
import torch.nn.functional as F
from torch import Tensor

# oneDNN's products, on x86 processors of either maker. MKL's, which torch takes for float32, were
# half as fast on the one where both were measured.
ONEDNN = torch.backends.mkldnn.is_available() and platform.machine() in ("x86_64", "AMD64")


class Packed:
    """A linear layer of weight (outputs, inputs) and bias (outputs,), without gradient."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype) -> None:
        self._plain = weight.contiguous().to(dtype), bias.to(dtype)
        self._packed: Tensor | None = None
        if ONEDNN and weight.device.type == "cpu":
            self._packed = torch.ops.mkldnn._reorder_linear_weight(self._plain[0], None)

    def __call__(self, x: Tensor) -> Tensor:
        """(…, inputs) to (…, outputs)."""
        if self._packed is None:
            return F.linear(x, *self._plain)
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            x, self._packed, self._plain[1], "none", [], ""
        )
        return made
