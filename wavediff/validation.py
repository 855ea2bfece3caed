"""How good a model in training is: measured on pairs by the same sampler as in use."""

import importlib.util
import math
from dataclasses import dataclass

from torch import Tensor

from wavediff.data import Clips
from wavediff.metrics import estoi, si_sdr
from wavediff.model import Model

MOST_PAIRS = 64


@dataclass(frozen=True)
class Validation:
    """Means over the pairs, and the first pair's sounds to look at and listen to."""

    si_sdr: float  # dB
    estoi: float  # nan where pystoi is not installed
    rate: int
    examples: dict[str, Tensor]  # noisy, clean and denoised, (samples,) each


def validate(model: Model, pairs: tuple[Clips, Clips]) -> Validation:
    """Denoise the first pairs whole, with one step, and compare."""
    with_estoi = importlib.util.find_spec("pystoi") is not None
    scores: dict[str, list[float]] = {"si_sdr": [], "estoi": []}
    examples: dict[str, Tensor] = {}
    rate = pairs[0].rate
    for clip in range(min(len(pairs[0]), MOST_PAIRS)):
        samples = int(min(side.lengths[clip] for side in pairs))
        noisy, clean = (side.crop(clip, 0, samples) for side in pairs)
        denoised = model.denoise(noisy, rate)
        assert isinstance(denoised, Tensor)
        scores["si_sdr"].append(si_sdr(clean, denoised))
        if with_estoi:
            scores["estoi"].append(estoi(clean, denoised, rate))
        examples = examples or {"noisy": noisy, "clean": clean, "denoised": denoised}
    means = {name: sum(v) / len(v) if v else math.nan for name, v in scores.items()}
    return Validation(means["si_sdr"], means["estoi"], rate, examples)
