"""How good a model in training is: measured on examples by the same sampler as in use."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from torch import Tensor

from wavediff import data
from wavediff.batches import Batches
from wavediff.generating import GenerateSettings, Invented
from wavediff.metrics import METRICS, available
from wavediff.model import Model
from wavediff.objective import Batch
from wavediff.recipe import Recipe
from wavediff.vocoding import Start

MOST = 64  # examples that are used
LONGEST = 30  # seconds of one that are used
OWN = 8  # drawn from the training's own sounds where none are named
SCORES = {"denoise": ("si_sdr", "estoi"), "vocode": ("mr_stft", "pesq"), "generate": ()}
SKETCH = 32  # iterations of Griffin-Lim that make an invented mel heard

Examples = Sequence[Batch]  # one item each, without the dimension of the batch


@dataclass(frozen=True)
class Validation:
    """Means over the examples, and the first one's sounds to look at and listen to."""

    scores: dict[str, float]  # by the keys of METRICS; nan where a package is not installed
    rate: int
    examples: dict[str, Tensor]  # by what they are, (samples,) each

    def table(self) -> str:
        """The scores in words."""
        known = {key: value for key, value in self.scores.items() if not math.isnan(value)}
        parts = (f"{METRICS[key].name} {METRICS[key].show(value)}" for key, value in known.items())
        return ", ".join(parts)


def examples(recipe: Recipe, prepared: Batches) -> Examples:
    """The pairs that the recipe names to measure on, else some like those it trains on.

    The latter show progress, not how the model does on sounds it never heard. Raises DataError.
    """
    settings = recipe.data
    if settings.validation_clean is None:
        source = cast(Any, prepared.source)
        another = replace(source, seed=recipe.training.seed + 1)
        return list(zip(*another.batch(0, range(OWN)), strict=True))
    noisy, clean, limit = (
        settings.validation_noisy,
        settings.validation_clean,
        settings.memory_limit,
    )
    if noisy is None:
        sides = [data.load([clean], recipe.rate, limit)]
    else:
        sides = list(data.twins(noisy, clean, recipe.rate, limit))
    found = []
    for clip in range(min(len(sides[0]), MOST)):
        samples = min(LONGEST * recipe.rate, *(int(side.lengths[clip]) for side in sides))
        found.append(tuple(side.crop(clip, 0, samples) for side in sides))
    return found


def validate(model: Model, given: Examples, rate: int | None = None) -> Validation:
    """What the model makes of the examples at `rate` Hz, its own where none is given, compared.

    Examples for which a figure is not defined, such as those without speech, do not count.
    """
    task, rate = model.recipe.task, rate or model.rate
    if task == "generate":
        return Validation({}, rate, {"generated": _sketch(model)})
    keys = [key for key in SCORES[task] if key in available()]
    scores: dict[str, list[float]] = {key: [] for key in keys}
    heard: dict[str, Tensor] = {}
    for noisy, *others in given:
        clean = others[0] if others else noisy
        made = model.denoise(noisy, rate) if task == "denoise" else model.resynthesise(clean, rate)
        assert isinstance(made, Tensor)
        for key in keys:
            scores[key].append(METRICS[key].function(clean, made, rate))
        given_too = {"noisy": noisy} if others else {}
        heard = heard or {**given_too, "clean": clean, f"{task}d": made}
    return Validation({key: _mean(scores[key]) for key in keys}, rate, heard)


def _sketch(model: Model) -> Tensor:
    """A sound of an invented mel, without a vocoder: (samples,)."""
    preset = model.preset
    invented = Invented(
        model.denoiser, preset, model.recipe.generate, GenerateSettings(), model.device
    )
    start = Start(invented, preset, SKETCH, 0)
    return start.read(0, start.samples)[0]


def _mean(scores: list[float]) -> float:
    defined = [score for score in scores if not math.isnan(score)]
    return sum(defined) / len(defined) if defined else math.nan
