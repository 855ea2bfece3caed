"""Checkpoints: safetensors files that carry their whole recipe. Nothing in them is executed."""

import contextlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from wavediff import recipe as recipes
from wavediff.errors import CheckpointError, RecipeError
from wavediff.recipe import Recipe

FORMAT = "1"  # of the metadata, raised when an older program could not read a newer file
HINT = "wavediff models list shows the models that are here"


@dataclass(frozen=True)
class Checkpoint:
    """A network's weights and what they were trained for.

    `state` holds plain facts: the step, the minutes trained, the data and its licences. A
    checkpoint of a training also has the optimizer's tensors, so that it can go on.
    """

    recipe: Recipe
    tensors: dict[str, Tensor]  # network.…, and of a training also average.…, first.…, second.…
    state: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors called `name.…`, without that prefix."""
        cut = len(name) + 1
        return {key[cut:]: t for key, t in self.tensors.items() if key.startswith(name + ".")}

    def weights(self) -> dict[str, Tensor]:
        """The weights to use: the averaged ones where a training keeps both; float32."""
        chosen = self.part("average") or self.part("network")
        return {key: tensor.float() for key, tensor in chosen.items()}


def save(path: Path, checkpoint: Checkpoint, keep_previous: bool = False) -> None:
    """Write beside and rename; the file that was there stays as `….previous` if wished.

    Raises CheckpointError when it cannot be written.
    """
    metadata = {
        "wavediff": FORMAT,
        "recipe": checkpoint.recipe.to_json(),
        "state": json.dumps(checkpoint.state),
    }
    write(path, checkpoint.tensors, metadata, keep_previous)


def write(
    path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], keep_previous: bool = False
) -> None:
    """A safetensors file, written beside and renamed. Raises CheckpointError where it cannot be."""
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    tensors = {key: tensor.detach().contiguous() for key, tensor in tensors.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.touch()
        mode = beside.stat().st_mode  # as the user's other files; safetensors makes them private
        save_file(tensors, beside, metadata)
        beside.chmod(mode)
        with open(beside, "rb+") as file:
            os.fsync(file.fileno())
        if keep_previous and path.exists():
            os.replace(path, previous(path))
        os.replace(beside, path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path} cannot be written: {error}", "is the disk full, or the folder read-only?"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def previous(path: Path) -> Path:
    """Where `save` keeps the checkpoint before the last."""
    return path.with_name(path.name + ".previous")


def load(path: Path) -> Checkpoint:
    """Read a checkpoint. Raises CheckpointError for anything that is not a whole one."""
    if not path.is_file():
        raise CheckpointError(f"{path} is not there", HINT)
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            version = metadata.get("wavediff")
            if version is None:
                raise CheckpointError(f"{path} is not a wavediff model", HINT)
            if version != FORMAT:
                raise CheckpointError(
                    f"{path} has format {version}, this wavediff reads {FORMAT}",
                    "install a newer wavediff",
                )
            # Copies: a file that tensors still point into cannot be replaced on Windows.
            tensors = {key: file.get_tensor(key).clone() for key in file.keys()}  # noqa: SIM118
            settings = recipes.from_json(metadata.get("recipe", ""), str(path))
            state = json.loads(metadata.get("state", ""))
    except (SafetensorError, OSError, ValueError, RecursionError, RecipeError) as error:
        reason = error.message if isinstance(error, RecipeError) else str(error)
        raise CheckpointError(
            f"{path} is damaged or no checkpoint ({reason})",
            "wavediff reads safetensors files of its own trainings",
        ) from None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is damaged: its state is no table", HINT)
    return Checkpoint(settings, tensors, state)
