"""wavediff: diffusion models for audio.

import wavediff
model = wavediff.load("denoise-16k")
clean = model.denoise(audio, rate)
"""

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("wavediff")
except PackageNotFoundError:  # a checkout that is not installed
    __version__ = "0"

if TYPE_CHECKING:
    from wavediff.model import Model, load
    from wavediff.recipe import Recipe
    from wavediff.tasks import DenoiseSettings
    from wavediff.training import train

__all__ = ["DenoiseSettings", "Model", "Recipe", "load", "train"]
_HOMES = {
    "Model": "model",
    "load": "model",
    "Recipe": "recipe",
    "DenoiseSettings": "tasks",
    "train": "training",
}


def __getattr__(name: str) -> Any:
    # torch is imported when it is needed and not before, so that `wavediff --help` is instant.
    if name not in _HOMES:
        raise AttributeError(f"module 'wavediff' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"wavediff.{_HOMES[name]}"), name)
