"""How good a model in training is: measured on pairs by the same sampler as in use."""

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from torch import Tensor

from wavediff import data
from wavediff.batches import Batches
from wavediff.metrics import estoi, si_sdr
from wavediff.model import Model
from wavediff.recipe import Recipe

MOST_PAIRS = 64
LONGEST = 30  # seconds of a pair that are used
OWN_PAIRS = 8  # drawn from the training's own sounds where no pairs are named

Examples = Sequence[tuple[Tensor, Tensor]]  # noisy and clean, (samples,) each


@dataclass(frozen=True)
class Validation:
    """Means over the pairs, and the first pair's sounds to look at and listen to."""

    si_sdr: float  # dB
    estoi: float  # nan where pystoi is not installed
    rate: int
    examples: dict[str, Tensor]  # noisy, clean and denoised, (samples,) each


def examples(recipe: Recipe, prepared: Batches) -> Examples:
    """The pairs that the recipe names to measure on, else some like those it trains on.

    The latter show progress, not how the model does on sounds it never heard. Raises DataError.
    """
    settings = recipe.data
    if settings.validation_noisy is None or settings.validation_clean is None:
        source = replace(prepared.source, seed=recipe.training.seed + 1)
        return list(zip(*source.batch(0, range(OWN_PAIRS)), strict=True))
    sides = data.twins(
        settings.validation_noisy, settings.validation_clean, recipe.rate, settings.memory_limit
    )
    pairs = []
    for clip in range(min(len(sides[0]), MOST_PAIRS)):
        samples = min(LONGEST * recipe.rate, *(int(side.lengths[clip]) for side in sides))
        noisy, clean = (side.crop(clip, 0, samples) for side in sides)
        pairs.append((noisy, clean))
    return pairs


def validate(model: Model, pairs: Examples) -> Validation:
    """Denoise the pairs with one step, and compare. Pairs for which a figure is not defined, such
    as those without speech, do not count."""
    with_estoi = importlib.util.find_spec("pystoi") is not None
    scores: dict[str, list[float]] = {"si_sdr": [], "estoi": []}
    heard: dict[str, Tensor] = {}
    rate = model.recipe.rate
    for noisy, clean in pairs:
        denoised = model.denoise(noisy, rate)
        assert isinstance(denoised, Tensor)
        scores["si_sdr"].append(si_sdr(clean, denoised))
        if with_estoi:
            scores["estoi"].append(estoi(clean, denoised, rate))
        heard = heard or {"noisy": noisy, "clean": clean, "denoised": denoised}
    return Validation(_mean(scores["si_sdr"]), _mean(scores["estoi"]), rate, heard)


def _mean(scores: list[float]) -> float:
    defined = [score for score in scores if not math.isnan(score)]
    return sum(defined) / len(defined) if defined else math.nan
