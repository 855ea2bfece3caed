"""Recipes: everything that decides a training, as frozen settings read from commented TOML."""

import difflib
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wavediff.errors import RecipeError
from wavediff.losses import LossConfig
from wavediff.mixtures import MixtureConfig
from wavediff.network import NetworkConfig


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PathConfig(_Settings):
    """Which path, and how training draws its times."""

    kind: Literal["bridge"] = Field("bridge", description="what leads from corruption to sound")
    scale: float = Field(0.03, ge=0, description="standard deviation of the bridge's noise")
    growth: float = Field(1.0, ge=1, description="1: Brownian; above: variance exploding")
    at_start: float = Field(0.6, ge=0, le=1, description="share of training at t = 1 exactly")
    rollout: float = Field(
        0.0, ge=0, le=1, description="share of steps on the sampler's own states"
    )


class DataConfig(_Settings):
    """Where the sounds are. Folders hold any mixture of rates, lengths and formats."""

    speech: tuple[Path, ...] = Field((), description="folders of clean recordings")
    noise: tuple[Path, ...] = Field((), description="folders of noise to mix in")
    rooms: Path | None = Field(None, description="folder of room responses")
    noisy: Path | None = Field(None, description="ready-made pairs: the noisy side")
    clean: Path | None = Field(None, description="ready-made pairs: the clean side, same names")
    validation_noisy: Path | None = Field(None, description="pairs to measure on: the noisy side")
    validation_clean: Path | None = Field(None, description="pairs to measure on: the clean side")
    balance: float = Field(0.5, ge=0, le=1, description="1: every second counts; 0: every folder")
    memory_limit: float = Field(4e9, gt=0, description="bytes up to which sounds stay in memory")
    workers: int = Field(0, ge=0, description="processes that prepare batches; 0 for none")


class TrainingConfig(_Settings):
    """How long and how fast."""

    crop: float = Field(2.0, gt=0, description="seconds of a training item")
    batch: int = Field(16, gt=0, description="items of a step, over all processes")
    accumulate: int = Field(1, gt=0, description="parts that a step is split into to save memory")
    steps: int = Field(100_000, gt=0, description="steps of the whole training")
    max_minutes: float | None = Field(None, gt=0, description="ends the training at this time")
    learning_rate: float = Field(1e-3, gt=0, description="the peak")
    warmup: int = Field(200, ge=0, description="steps to reach the peak")
    decay: float = Field(1.0, ge=0, le=1, description="last share of the training, falling to zero")
    weight_decay: float = Field(0.01, ge=0)
    clip: float = Field(1.0, gt=0, description="norm to which gradients are clipped")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights")
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="of the network")
    seed: int = Field(0, ge=0)
    validate_every: int = Field(1000, gt=0, description="steps between validations")
    save_every: int = Field(500, gt=0, description="steps between checkpoints")


class Recipe(_Settings):
    """All that decides a training; saved in the run's folder and in every checkpoint."""

    task: Literal["denoise"] = Field("denoise", description="what the model is for")
    rate: int = Field(16_000, ge=4000, le=192_000, description="samples per second, Hz")
    network: NetworkConfig = NetworkConfig()
    path: PathConfig = PathConfig()
    loss: LossConfig = LossConfig()
    mixture: MixtureConfig = MixtureConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    def to_json(self) -> str:
        """All settings as JSON, defaults included."""
        return self.model_dump_json()


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("wavediff.recipes")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name or from a TOML file, with `section.key=value` set on top.

    Raises RecipeError for what is not understood, naming the nearest right key.
    """
    settings = _read(source)
    for override in overrides:
        _override(settings, override)
    return parse(settings, str(source))


def parse(settings: dict[str, Any], where: str) -> Recipe:
    """A recipe from nested dictionaries. Raises RecipeError, which names `where`."""
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: no setting is called {key}", _nearest(key)) from None
        raise RecipeError(
            f"{where}: {key}: {first['msg']}", "wavediff train --dry-run shows all settings"
        ) from None


def from_json(text: str, where: str) -> Recipe:
    """A recipe from the JSON that `to_json` writes. Raises RecipeError."""
    try:
        settings = json.loads(text)
    except ValueError as error:
        raise RecipeError(
            f"{where}: its recipe is damaged ({error})", "the file is damaged"
        ) from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{where}: its recipe is damaged", "the file is damaged")
    return parse(settings, where)


def keys(model: type[BaseModel] = Recipe, prefix: str = "") -> list[str]:
    """Every setting as `section.key`."""
    found = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            found += keys(kind, f"{prefix}{name}.")
        else:
            found.append(prefix + name)
    return found


def _nearest(key: str) -> str:
    close = difflib.get_close_matches(key, keys(), 1, 0.4)
    if not close:
        last = {known.rpartition(".")[2]: known for known in keys()}
        close = [last[k] for k in difflib.get_close_matches(key.rpartition(".")[2], last, 1, 0.4)]
    return f"did you mean {close[0]}?" if close else "wavediff train --dry-run shows all settings"


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if str(source) in names():
        text = resources.files("wavediff.recipes").joinpath(f"{source}.toml").read_text("utf-8")
    elif path.suffix == ".toml":
        try:
            text = path.read_text("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"{path} cannot be read: {error}", "give a TOML file") from None
    else:
        raise RecipeError(f"no recipe is called {source}", "there are " + ", ".join(names()))
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{source} is not valid TOML: {error}", "mend that line") from None


def _override(settings: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals:
        raise RecipeError(f"--set {override} has no value", "write --set training.batch=8")
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value  # a word or a path needs no quotes
    *sections, last = key.strip().split(".")
    for section in sections:
        settings = settings.setdefault(section, {})
        if not isinstance(settings, dict):
            raise RecipeError(
                f"--set {override}: {section} has no settings of its own", _nearest(key)
            )
    settings[last] = parsed


PRECISIONS = get_args(TrainingConfig.model_fields["precision"].annotation)
