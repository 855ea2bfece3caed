"""The optimizer of a training: Muon for the matrices of the residual blocks, AdamW for the rest."""

from typing import Any

import torch
from torch import Tensor, nn

from wavediff.checkpoint import Checkpoint

SMALLEST = 16  # rows and columns from which a matrix has directions worth making equal
MOMENTS = {"exp_avg": "first", "exp_avg_sq": "second", "momentum_buffer": "first"}


class Optimizers:
    """One or two optimizers that take their steps together.

    Muon (Jordan et al. 2024) makes all directions of a matrix's step equally long; with the factor
    of Liu et al. 2025 it takes AdamW's learning rates.
    """

    def __init__(self, network: nn.Module, muon: bool, decay: float) -> None:
        self.names = {name: p for name, p in network.named_parameters() if p.requires_grad}
        matrices = [p for name, p in self.names.items() if muon and _is_matrix(name, p)]
        chosen = {id(p) for p in matrices}
        others = [p for p in self.names.values() if id(p) not in chosen]
        adamw = torch.optim.AdamW(others, 1.0, (0.9, 0.98), weight_decay=decay, fused=True)
        self.each: list[torch.optim.Optimizer] = [adamw]
        if matrices:
            made = torch.optim.Muon(
                matrices, 1.0, decay, momentum=0.95, adjust_lr_fn="match_rms_adamw"
            )
            self.each.append(made)

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for optimizer in self.each:
            optimizer.zero_grad(set_to_none=True)

    def step(self, rate: float) -> None:
        """A step of this learning rate."""
        for optimizer in self.each:
            for group in optimizer.param_groups:
                group["lr"] = rate
            optimizer.step()

    @property
    def updates(self) -> int:
        """Steps that changed the weights."""
        moments = next(iter(self.each[0].state.values()), None)
        return int(moments["step"]) if moments else 0

    def tensors(self) -> dict[str, Tensor]:
        """What it remembers of each parameter, as first.NAME and second.NAME."""
        return {
            f"{MOMENTS[kind]}.{name}": moment
            for name, parameter in self.names.items()
            for optimizer in self.each
            for kind, moment in optimizer.state.get(parameter, {}).items()
            if kind in MOMENTS
        }

    def restore(self, saved: Checkpoint, updates: int) -> None:
        """Go on with what `tensors` gave."""
        first, second = saved.part("first"), saved.part("second")
        for name, parameter in self.names.items():
            if name not in first:
                continue
            device = parameter.device
            kept: dict[str, Any] = {"momentum_buffer": first[name].to(device, copy=True)}
            if name in second:
                kept = {
                    "step": torch.tensor(float(updates), device=device),
                    "exp_avg": kept["momentum_buffer"],
                    "exp_avg_sq": second[name].to(device, copy=True),
                }
            owner = self.each[0 if name in second else -1]
            owner.state[parameter] = kept


def _is_matrix(name: str, parameter: Tensor) -> bool:
    return "blocks." in name and parameter.ndim == 2 and min(parameter.shape) >= SMALLEST
