"""A model's card: what it is, out of its checkpoint."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wavediff import checkpoint as checkpoints
from wavediff.model import SUFFIX, locate
from wavediff.recipe import Recipe

UNKNOWN = "not stated"


@dataclass(frozen=True)
class Card:
    """The facts about a model; those that its maker left out are empty."""

    name: str
    path: Path
    recipe: Recipe
    parameters: int
    size: int  # bytes of the file
    finished: bool  # False for the checkpoint of a training, which can go on
    state: dict[str, Any]

    @property
    def summary(self) -> str:
        """One line about it."""
        return str(self.state.get("summary", ""))

    @property
    def licence(self) -> str:
        """Of the weights."""
        return str(self.state.get("licence", UNKNOWN))

    def facts(self) -> dict[str, Any]:
        """Everything, for JSON."""
        hidden = ("scaler",)
        return {
            "name": self.name,
            "path": str(self.path),
            "task": self.recipe.task,
            "rate": self.recipe.rate,
            "parameters": self.parameters,
            "size": self.size,
            "licence": self.licence,
            **{key: value for key, value in self.state.items() if key not in hidden},
            "recipe": self.recipe.model_dump(mode="json"),
        }


def read(model: str | Path) -> Card:
    """The card of a model by its name, its file, or the folder of its training.

    Raises CheckpointError for what is none.
    """
    path = locate(model)
    saved = checkpoints.load(path)
    return Card(
        str(saved.state.get("name", model)),
        path,
        saved.recipe,
        sum(tensor.numel() for tensor in saved.part("network").values()),
        path.stat().st_size,
        not saved.part("average"),
        saved.state,
    )


def is_model(path: Path) -> bool:
    """Whether a path is meant as a model: by its extension, or as a training's folder."""
    return path.suffix == SUFFIX or (path / "checkpoint.safetensors").is_file()
