"""CUDA graphs: what is computed again for the same shapes is launched by the card itself."""

from collections.abc import Callable

import torch
from torch import Tensor

Call = Callable[..., Tensor]
KEPT = 8  # shapes; each recording keeps the memory that its call needs


class Recording:
    """A call of a function of tensors on a card, to be replayed with other values in them.

    Raises RuntimeError for a function that waits for the card, or copies from memory of the host.
    """

    @torch.inference_mode(False)  # else its tensors could not be filled outside of that mode
    @torch.no_grad()
    def __init__(self, call: Call, given: tuple[Tensor | None, ...]) -> None:
        self._given = [None if tensor is None else tensor.clone() for tensor in given]
        aside, now = torch.cuda.Stream(), torch.cuda.current_stream()
        aside.wait_stream(now)
        with torch.cuda.stream(aside):  # what is made once, such as plans of FFTs, is made here
            call(*self._given)
        now.wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._answer = call(*self._given)

    def __call__(self, *given: Tensor | None) -> Tensor:
        for own, tensor in zip(self._given, given, strict=True):
            if own is not None and tensor is not None:
                own.copy_(tensor)
        self._graph.replay()
        return self._answer.clone()


class Graphed:
    """A function of tensors that is recorded when shapes come for the second time.

    It is called as it is off a card, where a gradient is asked for, where it is itself part of a
    recording, and where it cannot be recorded. It must depend on nothing but what it is given.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._known: dict[
            object, Call | None
        ] = {}  # by shapes, the last at the end; None: seen once

    def __call__(self, *given: Tensor | None) -> Tensor:
        tensors = [tensor for tensor in given if tensor is not None]
        if not recordable(tensors):
            return self._call(*given)
        key = tuple(None if g is None else (g.shape, g.dtype, g.device) for g in given)
        seen, call = key in self._known, self._known.pop(key, None)
        with torch.cuda.device(tensors[0].device):
            if seen and call is None:
                call = self._recorded(given)
            self._known[key] = call
            while len(self._known) > KEPT:
                del self._known[next(iter(self._known))]
            return (call or self._call)(*given)

    def _recorded(self, given: tuple[Tensor | None, ...]) -> Call:
        try:
            return Recording(self._call, given)
        except RuntimeError:
            torch.cuda.synchronize()
            return self._call


def recordable(tensors: list[Tensor]) -> bool:
    """Whether a call with these may be recorded at all."""
    if not tensors or not all(tensor.is_cuda for tensor in tensors):
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors):
        return False
    return not torch.cuda.is_current_stream_capturing()
