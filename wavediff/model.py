"""The Python face: a trained model by name or file, and what it can do."""

from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavediff import checkpoint as checkpoints
from wavediff import tasks
from wavediff.audio import MAX_CHANNELS, RATES, ArraySource, Source
from wavediff.checkpoint import Checkpoint
from wavediff.denoiser import Denoiser
from wavediff.errors import AudioError, CheckpointError, TaskError
from wavediff.recipe import DataConfig, Recipe
from wavediff.tasks import DenoiseSettings

SUFFIX = ".safetensors"


def names() -> list[str]:
    """The models that come with the package."""
    folder = resources.files("wavediff.models")
    return sorted(f.name.removesuffix(SUFFIX) for f in folder.iterdir() if f.name.endswith(SUFFIX))


def locate(model: str | Path) -> Path:
    """The file of a model that is given by its name, its file, or the folder of its training.

    Raises CheckpointError when there is none.
    """
    path = Path(model)
    if str(model) in names():
        return Path(str(resources.files("wavediff.models").joinpath(f"{model}{SUFFIX}")))
    if path.is_dir() and (path / "checkpoint.safetensors").is_file():
        return path / "checkpoint.safetensors"
    if path.is_file():
        return path
    raise CheckpointError(
        f"no model is called {model}, and no such file is here",
        "there are " + (", ".join(names()) or "none in the package"),
    )


def choose_device(device: str | torch.device = "auto") -> torch.device:
    """`auto` takes an accelerator where there is one. Raises TaskError for one that is not here."""
    if str(device) == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise TaskError(f"the device {device} cannot be used: {reason}", "use -d cpu") from None
    return chosen


@dataclass(frozen=True)
class Model:
    """A trained denoiser with its recipe."""

    name: str
    recipe: Recipe
    state: dict[str, Any]  # facts of the training: steps, data, licences
    denoiser: Denoiser
    device: torch.device

    def denoise(
        self, audio: Tensor | np.ndarray, rate: int, settings: DenoiseSettings | None = None
    ) -> Tensor | np.ndarray:
        """A recording without its noise.

        `audio` is (samples,) or (channels, samples), floats with full scale at 1, at `rate` Hz.
        The same kind, shape and level come back. Raises AudioError for what cannot be cleaned.
        """
        given = ArraySource(_sound(audio), _whole(rate))
        source = self.denoise_source(given, settings or DenoiseSettings())
        clean = source.read(0, source.samples).reshape(audio.shape)
        if isinstance(audio, np.ndarray):
            return clean.numpy().astype(audio.dtype, copy=False)
        return clean.to(audio)

    def denoise_source(self, source: Source, settings: DenoiseSettings) -> Source:
        """The same for a sound of any length, computed as the result is read, in rising order."""
        if self.recipe.task != "denoise":
            raise TaskError(f"{self.name} is a model to {self.recipe.task}", "choose another -m")
        return tasks.denoise(source, self.denoiser, self.recipe.rate, settings, self.device)


def _sound(audio: Tensor | np.ndarray) -> Tensor:
    """Float32 (channels, samples) on the CPU."""
    if not isinstance(audio, Tensor | np.ndarray):
        raise AudioError(f"audio is a {type(audio).__name__}", "give a numpy array or a tensor")
    if isinstance(audio, Tensor):
        floating = audio.is_floating_point()
    else:
        floating = np.issubdtype(audio.dtype, np.floating)
    if not floating:
        raise AudioError(f"audio of type {audio.dtype} is not float", "scale it to -1 … 1")
    if audio.ndim not in (1, 2) or 0 in audio.shape:
        raise AudioError(
            f"audio of shape {tuple(audio.shape)} is not (samples,) or (channels, samples)",
            "an array from soundfile.read needs its transpose, audio.T",
        )
    if audio.ndim == 2 and audio.shape[0] > MAX_CHANNELS:
        raise AudioError(
            f"audio of shape {tuple(audio.shape)} has {audio.shape[0]} channels, "
            f"at most {MAX_CHANNELS} are supported",
            "an array from soundfile.read needs its transpose, audio.T",
        )
    if isinstance(audio, Tensor):
        sound = audio.detach().to("cpu", torch.float32)
    else:  # numpy makes the copy: torch takes neither reversed arrays nor another byte order
        sound = torch.from_numpy(np.array(audio, np.float32, order="C"))
    sound = sound.reshape(-1, audio.shape[-1])
    if not bool(sound.isfinite().all()):
        raise AudioError("the audio has samples that are NaN or infinite", "repair them first")
    return sound


def _whole(rate: float) -> int:
    """A rate as a whole number of Hz."""
    if not RATES[0] <= rate <= RATES[1] or rate != int(rate):
        raise AudioError(
            f"a rate of {rate} Hz", f"whole numbers from {RATES[0]} to {RATES[1]} are supported"
        )
    return int(rate)


def load(model: str | Path, device: str | torch.device = "auto") -> Model:
    """A model by its name, its file, or the folder of its training; see `names`.

    Raises CheckpointError for a file that is none, TaskError for a device that is not here.
    """
    path = locate(model)
    return from_checkpoint(checkpoints.load(path), str(model), choose_device(device))


def from_checkpoint(saved: Checkpoint, name: str, device: torch.device) -> Model:
    """A model to use from a checkpoint. Raises CheckpointError when its weights do not fit."""
    denoiser = tasks.build(saved.recipe)
    try:
        denoiser.network.load_state_dict(saved.weights())
    except RuntimeError:
        raise CheckpointError(
            f"the weights of {name} do not fit its own recipe", "the file is damaged"
        ) from None
    denoiser = denoiser.to(device).eval().requires_grad_(False)
    return Model(name, saved.recipe, saved.state, denoiser, device)


def export(saved: Checkpoint, state: dict[str, Any]) -> Checkpoint:
    """What a finished training ships: the averaged weights as float16, and facts about it."""
    tensors = {f"network.{key}": t.to(torch.float16) for key, t in saved.weights().items()}
    facts = {k: v for k, v in saved.state.items() if k in ("step", "seconds")}
    recipe = saved.recipe.model_copy(update={"data": DataConfig()})  # folders are a private matter
    return Checkpoint(recipe, tensors, {**facts, **state})
