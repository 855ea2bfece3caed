"""What a training is going to do: its recipe out of names and options, and its data, in words."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavediff import checkpoint as checkpoints
from wavediff import data
from wavediff import recipe as recipes
from wavediff.data import Skipped
from wavediff.errors import RecipeError
from wavediff.model import locate
from wavediff.recipe import Recipe

# Of a model that training begins from; the labels are those of the data.
INHERITED = (
    *("task", "rate", "mel", "network", "path", "loss"),
    *("upper", "vocode", "spectral", "generate"),
)
TUNING_RATE = 3e-4  # learning rate then: a third of the usual, so that little is forgotten


@dataclass(frozen=True)
class Contents:
    """What one part of the data holds."""

    role: str  # as in the recipe: sounds, noise, rooms, noisy, clean
    files: int
    seconds: float
    skipped: tuple[Skipped, ...]


def resolve(
    source: str | None,
    init: str | None,
    options: Mapping[str, Any],
    overrides: Iterable[str] = (),
) -> Recipe:
    """The recipe of a training.

    It begins as the recipe `source`, else as what the model `init` was made by, else as the
    defaults. On top come `options`, by `section.key`, those that are None or empty left out, and
    last the `overrides`, `section.key=value` each. Raises RecipeError, CheckpointError.
    """
    base = Recipe()
    if source is not None:
        base = recipes.load(source)
    elif init is not None:
        made_by = checkpoints.load(locate(init)).recipe
        prior = made_by.prior.model_copy(update={"labels": ()})
        base = Recipe(**{key: getattr(made_by, key) for key in INHERITED}, prior=prior)
    settings = base.model_dump(mode="json")
    if source is None and init is not None:
        settings["training"]["learning_rate"] = TUNING_RATE
    for key, value in options.items():
        if value is not None and value != []:
            section, _, name = key.rpartition(".")
            (settings[section] if section else settings)[name] = value
    recipe = recipes.parse(settings, source or "the settings", overrides)
    if recipe.data.noisy and recipe.data.sounds:
        raise RecipeError(
            "folders of clean recordings and ready-made pairs at once",
            "give FOLDERS, whose noise is mixed in, or --noisy and --clean",
        )
    return recipe


def contents(recipe: Recipe) -> list[Contents]:
    """What the folders of a recipe hold; nothing is decoded. Raises DataError for missing ones."""
    found = []
    for role in ("sounds", "noise", "rooms", "noisy", "clean"):
        named = getattr(recipe.data, role)
        if folders := [named] if isinstance(named, Path) else list(named or ()):
            clips = data.load_files(data.find(folders), recipe.rate, 0)
            found.append(Contents(role, len(clips), clips.seconds, tuple(clips.skipped)))
    return found


def run_folder(recipe: Recipe) -> Path:
    """Where a training goes that names no folder: runs/, and its first folder's name."""
    first = recipe.data.noisy or next(iter(recipe.data.sounds), None)
    return Path("runs", first.resolve().name if first else recipe.task)
