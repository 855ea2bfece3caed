"""What a denoiser took off: the level of a recording's quietest parts, before and after."""

import math
from array import array

import torch
from torch import Tensor

FRAME = 0.02  # seconds
QUIET = 0.1  # share of the frames, the quietest, that counts as background
DIGITAL_SILENCE = 1e-10  # power; frames below hold no sound at all and do not count


class Background:
    """The level of the quietest tenth of a recording, measured while it streams past."""

    def __init__(self, rate: int) -> None:
        self.frame = max(1, round(FRAME * rate))  # samples; blocks are multiples of it
        # Numbers in a row: small tensors that stay would keep all the memory between them.
        self._before, self._after = array("d"), array("d")

    def add(self, before: Tensor, after: Tensor) -> None:
        """The next block of both, (channels, samples); what does not fill a frame is left out."""
        self._before.extend(self._powers(before).tolist())
        self._after.extend(self._powers(after).tolist())

    def levels(self) -> tuple[float, float]:
        """RMS in dB before and after, at the same places; nan when nothing but silence came."""
        if not self._before:
            return math.nan, math.nan
        before, after = (torch.tensor(p, dtype=torch.float64) for p in (self._before, self._after))
        sounding = before > DIGITAL_SILENCE
        before, after = before[sounding], after[sounding]
        if not len(before):
            return math.nan, math.nan
        quietest = before.argsort()[: math.ceil(QUIET * len(before))]
        first, last = (max(float(p[quietest].mean()), DIGITAL_SILENCE) for p in (before, after))
        return 10 * math.log10(first), 10 * math.log10(last)

    def _powers(self, block: Tensor) -> Tensor:
        whole = block.shape[-1] // self.frame * self.frame
        return block[:, :whole].double().pow(2).mean(0).view(-1, self.frame).mean(-1)
