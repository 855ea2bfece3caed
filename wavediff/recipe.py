"""Recipes: everything that decides a training, as frozen settings read from commented TOML."""

import difflib
import json
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from wavediff.errors import RecipeError
from wavediff.generating import GenerateConfig
from wavediff.losses import LossConfig, SpectralConfig
from wavediff.mel import PRESETS, MelPreset
from wavediff.mixtures import MixtureConfig
from wavediff.network import NetworkConfig
from wavediff.prior import PriorConfig
from wavediff.published import HOP, PublishedConfig
from wavediff.upper import UpperConfig
from wavediff.vocoding import VocodeConfig

ALL_SETTINGS = "wavediff train --dry-run shows all settings"


def _listed(given: Any) -> Any:
    return [given] if isinstance(given, str | Path) else given


def _text(given: Any) -> Any:
    if isinstance(given, str | Path):
        if not str(given):
            raise ValueError("the name is empty; leave it out")
        try:
            str(given).encode()
        except UnicodeEncodeError:  # a recipe that could not be written down again
            raise ValueError("the name is not valid UTF-8; rename the folder") from None
    return given


Folder = Annotated[Path, BeforeValidator(_text)]
Folders = Annotated[tuple[Folder, ...], BeforeValidator(_listed)]


class _Settings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PathConfig(_Settings):
    """Which path, and how training draws its times."""

    kind: Literal["bridge"] = Field("bridge", description="what leads from corruption to sound")
    scale: float = Field(0.03, ge=0, description="standard deviation of the bridge's noise")
    growth: float = Field(1.0, ge=1, description="1: Brownian; above: variance exploding")
    at_start: float = Field(0.6, ge=0, le=1, description="share of training at t = 1 exactly")
    rollout: float = Field(
        0.0, ge=0, le=1, description="share of steps on the sampler's own states"
    )


def _known_preset(name: str) -> str:
    if name and name not in PRESETS:
        raise ValueError(f"no mel preset is called {name}; there are {', '.join(PRESETS)}")
    return name


Preset = Annotated[str, AfterValidator(_known_preset)]


class DataConfig(_Settings):
    """Where the sounds are. Folders hold any mixture of rates, lengths and formats."""

    sounds: Folders = Field((), description="folders of recordings to learn from, clean ones")
    noise: Folders = Field((), description="folders of noise to mix in")
    rooms: Folder | None = Field(None, description="folder of room responses")
    noisy: Folder | None = Field(None, description="ready-made pairs: the noisy side")
    clean: Folder | None = Field(None, description="ready-made pairs: the clean side, same names")
    validation_noisy: Folder | None = Field(None, description="pairs to measure on: the noisy side")
    validation_clean: Folder | None = Field(None, description="pairs to measure on: the clean side")
    balance: float = Field(0.5, ge=0, le=1, description="1: every second counts; 0: every folder")
    memory_limit: float = Field(4e9, gt=0, description="bytes up to which sounds stay in memory")
    workers: int = Field(0, ge=0, description="processes that prepare batches; 0 for none")

    @model_validator(mode="after")
    def _two_sides(self) -> "DataConfig":
        if (self.noisy is None) != (self.clean is None):
            raise ValueError("pairs have two sides, noisy and clean")
        return self


class TrainingConfig(_Settings):
    """How long and how fast."""

    crop: float = Field(2.0, gt=0, le=600, description="seconds of a training item")
    batch: int = Field(16, gt=0, description="items of a step, over all processes")
    accumulate: int = Field(1, gt=0, description="parts that a step is split into to save memory")
    steps: int = Field(100_000, gt=0, le=10**9, description="steps of the whole training")
    max_minutes: float | None = Field(
        None, gt=0, description="of training, all sessions together, at which it ends"
    )
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="of the matrices in the residual blocks; the rest has adamw"
    )
    learning_rate: float = Field(1e-3, gt=0, description="the peak")
    warmup: int = Field(200, ge=0, description="steps to reach the peak")
    decay: float = Field(1.0, ge=0, le=1, description="last share of the training, falling to zero")
    weight_decay: float = Field(0.01, ge=0, description="of the weights, at every step")
    clip: float = Field(1.0, gt=0, description="norm to which gradients are clipped")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights")
    precision: Literal["fp32", "bf16", "fp16"] = Field("bf16", description="of the network")
    seed: int = Field(0, ge=0, lt=2**63, description="of the first weights and all that is drawn")
    validate_every: int = Field(1000, gt=0, description="steps between validations")
    save_every: int = Field(500, gt=0, description="steps between checkpoints")


Task = Literal["denoise", "upper", "vocode", "generate", "diffwave"]
SECTIONS: dict[str, tuple[str, ...]] = {
    "denoise": ("network", "path", "loss", "mixture"),
    "upper": ("upper", "mixture"),
    "vocode": ("network", "vocode", "spectral"),
    "generate": ("prior", "generate"),
    "diffwave": ("diffwave",),
}


TAKES_MEL = ("vocode", "generate")


class Recipe(_Settings):
    """All that decides a training; saved in the run's folder and in every checkpoint."""

    task: Task = Field("denoise", description="what the model is for")
    rate: int = Field(16_000, ge=4000, le=192_000, description="samples per second, Hz")
    mel: Preset = Field("", description="kind of mel that is taken or invented; empty for none")
    network: NetworkConfig = NetworkConfig()
    path: PathConfig = PathConfig()
    loss: LossConfig = LossConfig()
    mixture: MixtureConfig = MixtureConfig()
    upper: UpperConfig = UpperConfig()
    vocode: VocodeConfig = VocodeConfig()
    spectral: SpectralConfig = SpectralConfig()
    generate: GenerateConfig = GenerateConfig()
    prior: PriorConfig = PriorConfig()
    diffwave: PublishedConfig = PublishedConfig()
    data: DataConfig = DataConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _belongs(self) -> "Recipe":
        """A setting without effect is a mistake."""
        for name in set().union(*SECTIONS.values()) - set(SECTIONS[self.task]):
            if getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"the task {self.task} has no section {name}")
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Recipe":
        has_network = "network" in SECTIONS[self.task]
        if has_network and round(self.training.crop * self.rate) < self.network.window:
            raise ValueError("training.crop is shorter than network.window")
        sides = (self.data.validation_noisy is None, self.data.validation_clean is None)
        if self.command == "denoise" and sides[0] != sides[1]:
            raise ValueError("pairs have two sides, data.validation_noisy and .validation_clean")
        preset = self.preset
        if self.task == "diffwave" and self.diffwave.bands != (preset.bands if preset else 0):
            raise ValueError("diffwave.bands is not the number of bands of the mel")
        if (preset is None) != (self.task not in TAKES_MEL) and self.task != "diffwave":
            takes = "takes no mel" if preset else f"needs a mel: {', '.join(PRESETS)}"
            raise ValueError(f"the task {self.task} {takes}")
        if preset is not None and preset.rate != self.rate:
            raise ValueError(f"the mel {preset.name} is for a rate of {preset.rate} Hz")
        hops = {"vocode": self.network.hop, "diffwave": HOP}
        if preset is not None and preset.hop != hops.get(self.task, preset.hop):
            raise ValueError(
                f"the mel {preset.name} has a hop of {preset.hop}, the network has not"
            )
        return self

    @property
    def preset(self) -> MelPreset | None:
        """The kind of mel that the model is conditioned on or invents."""
        return PRESETS[self.mel] if self.mel else None

    @property
    def command(self) -> str:
        """What its models are used for: denoise, vocode or generate."""
        if self.task == "diffwave":
            return "vocode" if self.mel else "generate"
        return "denoise" if self.task == "upper" else self.task

    @property
    def partner(self) -> str:
        """The model that its models work with: what renders mels, or what denoises below."""
        partners = {"generate": self.generate.renderer, "upper": self.upper.below}
        return partners.get(self.task, "")

    def sections(self) -> dict[str, BaseModel]:
        """The sections that mean something to this task."""
        return {name: getattr(self, name) for name in (*SECTIONS[self.task], "data", "training")}

    def to_json(self) -> str:
        """All settings as JSON, defaults included."""
        return self.model_dump_json(include={"task", "rate", "mel", *self.sections()})


def names() -> list[str]:
    """The recipes that come with the package."""
    folder = resources.files("wavediff.recipes")
    return sorted(f.name[:-5] for f in folder.iterdir() if f.name.endswith(".toml"))


def load(source: str | Path, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name or from a TOML file, with `section.key=value` set on top.

    Raises RecipeError for what is not understood, naming the nearest right key.
    """
    return parse(_read(source), str(source), overrides)


def parse(settings: dict[str, Any], where: str, overrides: Iterable[str] = ()) -> Recipe:
    """A recipe from nested dictionaries. Raises RecipeError, which names `where`."""
    for override in overrides:
        _override(settings, override)
    try:
        return Recipe.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise RecipeError(f"{where}: no setting is called {key}", _nearest(key)) from None
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "model_type":
            reason = "this is a section, not a setting"
        raise RecipeError(": ".join(filter(None, (where, key, reason))), ALL_SETTINGS) from None


def from_json(text: str, where: str) -> Recipe:
    """A recipe from the JSON that `to_json` writes. Raises RecipeError."""
    try:
        settings = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(
            f"{where}: its recipe is damaged ({error})", "the file is damaged"
        ) from None
    if not isinstance(settings, dict):
        raise RecipeError(f"{where}: its recipe is damaged", "the file is damaged")
    if isinstance(kept := settings.get("data"), dict):
        kept.pop("speech", None)  # the first models call data.sounds so, and name no folders
    return parse(settings, where)


def to_toml(recipe: Recipe) -> str:
    """All settings as commented TOML, which `load` reads back to an equal recipe."""
    lines = list(_lines(recipe))
    for name, value in recipe.sections().items():
        lines += ["", f"[{name}]", *_lines(value)]
    return "\n".join(lines) + "\n"


def _lines(section: BaseModel) -> Iterable[str]:
    values = section.model_dump(mode="json")
    for name, field in type(section).model_fields.items():
        value, comment = values[name], f"  # {field.description}"
        if value is None:
            yield f"# {name} is not set{comment}"
        elif not isinstance(value, dict):
            # JSON is TOML here, but for one character that JSON leaves as it is.
            yield f"{name} = {json.dumps(value, ensure_ascii=False)}{comment}".replace(
                "\x7f", "\\u007f"
            )


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
    """A hint at the setting or section that `key` is meant to be: its last word counts most."""

    def alike(known: str) -> float:
        section, _, last = known.rpartition(".")
        return 3 * _ratio(last, key.rpartition(".")[2]) + _ratio(section, key.rpartition(".")[0])

    known = [*keys(), *(name for name in Recipe.model_fields if name != key)]
    best = max(known, key=alike)
    close = _ratio(best.rpartition(".")[2], key.rpartition(".")[2]) > 0.5
    return f"did you mean {best}?" if close else ALL_SETTINGS


def _ratio(one: str, other: str) -> float:
    return difflib.SequenceMatcher(None, one, other).ratio()


def _read(source: str | Path) -> dict[str, Any]:
    path = Path(source)
    if str(source) in names():
        text = resources.files("wavediff.recipes").joinpath(f"{source}.toml").read_text("utf-8")
    elif path.suffix == ".toml":
        try:
            text = path.read_text("utf-8-sig")
        except (OSError, ValueError) as error:
            raise RecipeError(f"{path} cannot be read: {error}", "give a TOML file") from None
    else:
        raise RecipeError(
            f"no recipe is called {source}",
            "there are " + ", ".join(names()) + "; a file's name ends with .toml",
        )
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{source} is not valid TOML: {error}", "mend that line") from None


def _override(settings: dict[str, Any], override: str) -> None:
    """Set `section.key=value` in `settings`; without a value it goes back to its default."""
    key, equals, value = (part.strip() for part in override.partition("="))
    if not equals:
        raise RecipeError(f"--set {override} has no value", "write --set training.batch=8")
    if key not in keys():
        raise RecipeError(f"--set {override}: no setting is called {key}", _nearest(key))
    try:
        parsed = tomllib.loads(f"v = {value}")["v"]
    except (ValueError, RecursionError):
        parsed = value
    if not isinstance(parsed, bool | int | float | str | list):
        parsed = value  # a path such as 2026-01-31 is no date
    section, _, name = key.rpartition(".")
    table = settings.setdefault(section, {}) if section else settings
    if not isinstance(table, dict):
        return  # `parse` says that it has to be one
    if value:
        table[name] = parsed
    else:
        table.pop(name, None)
