"""The Python face: a trained model by name or file, and what it can do."""

from dataclasses import dataclass, replace
from functools import cache, cached_property
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
from wavediff.generating import GenerateSettings, Invented
from wavediff.mel import MelPreset
from wavediff.network import BandNet
from wavediff.noise import derive_seed
from wavediff.prepared import number_type
from wavediff.published_import import read_published
from wavediff.recipe import DataConfig, Recipe, from_json
from wavediff.tasks import DenoiseSettings, Published, Upper, published_sound, published_vocode
from wavediff.upper import UpperNet
from wavediff.vocoding import (
    ArrayMels,
    Mels,
    Part,
    Start,
    VocodeSettings,
    lead,
    resynthesised,
    vocode,
)

SUFFIX = ".safetensors"
LOUDEST = 0.99  # of a one-shot, of full scale
# Thirty layers in bf16 are further from what was published than one can promise to all.
PUBLISHED_TYPES = {"auto": torch.float32, "fp32": torch.float32, "bf16": torch.bfloat16}
PUBLISHED_MEL = "lmnt"  # the preset of all published conditional models
ABOVE = "denoise-48k"  # what cleans the band above a denoiser of the rate BELOW
BELOW = 16_000
PARTNERS = {"generate": "renderer", "upper": "below"}  # what they are called in a model's file


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
    denoiser: Denoiser | Published
    device: torch.device
    renderer: "Model | None" = None  # of a generator: the vocoder that makes sound of its mels
    precision: str = "fp32"  # of `PRECISIONS`, in which its network works
    upper: UpperNet | None = None  # of a denoiser: what cleans the band above its own

    @cached_property
    def fast(self) -> Denoiser:
        """The denoiser made ready for use; the weights must not change any more."""
        assert isinstance(self.denoiser, Denoiser)
        return self.denoiser.prepared(self.precision)

    @property
    def rate(self) -> int:
        """Samples per second of what it makes, Hz."""
        return self.recipe.rate

    @property
    def preset(self) -> MelPreset:
        """The kind of mel that it takes or invents. Raises TaskError where there is none."""
        if self.recipe.preset is None:
            raise TaskError(f"{self.name} has nothing to do with mels", "choose another -m")
        return self.recipe.preset

    def denoise(
        self, audio: Tensor | np.ndarray, rate: int, settings: DenoiseSettings | None = None
    ) -> Tensor | np.ndarray:
        """A recording without its noise.

        `audio` is (samples,) or (channels, samples), floats with full scale at 1, at `rate` Hz.
        The same kind, shape and level come back. Raises AudioError for what cannot be cleaned.
        """
        given = ArraySource(_sound(audio), _whole(rate))
        return _like(self.denoise_source(given, settings or DenoiseSettings()), audio)

    def denoise_source(self, source: Source, settings: DenoiseSettings) -> Source:
        """The same for a sound of any length, computed as the result is read, in rising order."""
        self._must("denoise")
        upper = self.above(source.rate)
        return tasks.denoise(source, self.fast, self.recipe.rate, settings, self.device, upper)

    def above(self, rate: int) -> UpperNet | None:
        """What cleans the band above the model's in a recording at `rate` Hz; None for nothing."""
        if rate <= self.rate:
            return None
        return _upper() if self.upper is None and self.rate == BELOW else self.upper

    def vocode(
        self, mel: Tensor | np.ndarray, settings: VocodeSettings | None = None
    ) -> Tensor | np.ndarray:
        """The sound of a mel spectrogram of the model's preset.

        `mel` is (bands, frames) or (batch, bands, frames); (samples,) or (batch, samples) come
        back, of the same kind, at `rate`. Raises MelError for what is no such mel.
        """
        mels = ArrayMels(mel, self.preset)
        sounds = [
            source.read(0, source.samples)[0]
            for item in mels.items()
            for source in [self.vocode_source(item, settings or VocodeSettings())]
        ]
        sound = torch.stack(sounds) if mel.ndim == 3 else sounds[0]
        return sound.numpy().astype(mel.dtype) if isinstance(mel, np.ndarray) else sound.to(mel)

    def vocode_source(self, mels: Mels, settings: VocodeSettings) -> Source:
        """The same for a mel of any length, computed as the result is read, in rising order."""
        self._must("vocode")
        if isinstance(self.denoiser, Published):
            network, dtype = self.denoiser.network, PUBLISHED_TYPES[self.precision]
            return published_vocode(mels, network, self.preset, settings, dtype)
        made = self.recipe.vocode
        return vocode(mels, self.fast, self.preset, made, settings, self.device)

    def resynthesise(
        self, audio: Tensor | np.ndarray, rate: int, settings: VocodeSettings | None = None
    ) -> Tensor | np.ndarray:
        """What becomes of a recording by way of its mel: the same kind, shape and level."""
        given = ArraySource(_sound(audio), _whole(rate))
        return _like(self.resynthesise_source(given, settings or VocodeSettings()), audio)

    def resynthesise_source(self, source: Source, settings: VocodeSettings) -> Source:
        """The same for a sound of any length, computed as the result is read, in rising order."""
        return resynthesised(source, self.preset, lambda mels: self.vocode_source(mels, settings))

    def generate(self, count: int = 1, settings: GenerateSettings | None = None) -> Tensor:
        """Sounds that nobody recorded: (count, samples) at `rate`."""
        chosen = settings or GenerateSettings()
        sources = [self.generate_source(chosen, number) for number in range(count)]
        return torch.stack([source.read(0, source.samples)[0] for source in sources])

    def generate_source(self, settings: GenerateSettings, number: int = 0) -> Source:
        """One of them: the `number` decides which, beside the seed.

        What has any length is computed as it is read; a one-shot at once, within full scale.
        """
        self._must("generate")
        if isinstance(self.denoiser, Published):
            network, dtype = self.denoiser.network, PUBLISHED_TYPES[self.precision]
            return published_sound(network, self.rate, settings, number, dtype)
        invented = Invented(
            self.denoiser, self.preset, self.recipe.generate, settings, self.device, number
        )
        seed = derive_seed(settings.seed, number)
        if self.renderer is None:  # phases that fit the mel's magnitudes have to do
            start = Start(invented, self.preset, 0, seed)
            made: Source = Part(start, lead(self.preset), start.samples - lead(self.preset))
        else:
            chosen = VocodeSettings(settings.render_steps, seed)
            made = self.renderer.vocode_source(invented, chosen)
        if not self.recipe.generate.frames:
            return made
        shot = made.read(0, made.samples)  # no level is right for it, but what is clipped is wrong
        return ArraySource(shot / max(1.0, float(shot.abs().max()) / LOUDEST), made.rate)

    def _must(self, task: str) -> None:
        if self.recipe.command != task:
            raise TaskError(
                f"{self.name} is a model to {self.recipe.command}, not to {task}",
                "choose another -m; wavediff models list shows them",
            )


def _like(source: Source, audio: Tensor | np.ndarray) -> Tensor | np.ndarray:
    """All of a source, of the kind and shape of what was given."""
    sound = source.read(0, source.samples).reshape(audio.shape)
    if isinstance(audio, np.ndarray):
        return sound.numpy().astype(audio.dtype, copy=False)
    return sound.to(audio)


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


def load(model: str | Path, device: str | torch.device = "auto", precision: str = "fp32") -> Model:
    """A model by its name, its file, or the folder of its training; see `names`.

    The precision is that of its network: fp32, bf16, or auto for bf16 where that is native.
    Raises CheckpointError for a file that is none, TaskError for a device that is not here.
    """
    path, place = locate(model), choose_device(device)
    return from_checkpoint(checkpoints.load(path), str(model), place, precision=precision)


def from_checkpoint(
    saved: Checkpoint,
    name: str,
    device: torch.device,
    alone: bool = False,
    precision: str = "fp32",
) -> Model:
    """A model to use from a checkpoint, a generator `alone` without its renderer.

    What is learned for the band above a denoiser comes as that denoiser with it. Raises
    CheckpointError when its weights do not fit, TaskError for an unknown precision.
    """
    number_type(precision, device)
    denoiser = tasks.build(saved.recipe)
    try:
        denoiser.network.load_state_dict(saved.weights())
    except RuntimeError:
        raise CheckpointError(
            f"the weights of {name} do not fit its own recipe", "the file is damaged"
        ) from None
    denoiser.eval().requires_grad_(False)
    if isinstance(denoiser, Upper):
        below = partner(saved, name, device, precision)
        return replace(below, name=name, state=saved.state, upper=denoiser.network)
    denoiser = denoiser.to(device)
    if alone or not saved.recipe.partner:
        renderer = None
    else:
        renderer = partner(saved, name, device, precision)
    return Model(name, saved.recipe, saved.state, denoiser, device, renderer, precision)


@cache
def _upper() -> UpperNet:
    """The network of the package for the band above."""
    saved = checkpoints.load(locate(ABOVE))
    network = UpperNet(saved.recipe.upper)
    network.load_state_dict(saved.weights())
    return network.eval().requires_grad_(False)


def partner(saved: Checkpoint, name: str, device: torch.device, precision: str = "fp32") -> Model:
    """What a model works with: out of the same file, else the model that its recipe names.

    Raises CheckpointError for what it cannot work with.
    """
    wanted, part = saved.recipe.partner, PARTNERS[saved.recipe.task]
    if tensors := saved.part(part):
        recipe = from_json(str(saved.state.get(part, "")), name)
        network = {f"network.{key}": tensor for key, tensor in tensors.items()}
        found = from_checkpoint(
            Checkpoint(recipe, network, {}), wanted, device, precision=precision
        )
    else:
        found = load(wanted, device, precision)
    denoises = found.recipe.task == "denoise" and found.rate < saved.recipe.rate
    if part == "below" and not denoises:
        raise CheckpointError(
            f"{wanted} is no denoiser below the rate of {name}",
            f"upper.below has to be a denoiser of less than {saved.recipe.rate} Hz",
        )
    if found.recipe.preset != saved.recipe.preset:
        raise CheckpointError(
            f"the renderer {wanted} does not take the mels of {name}",
            f"generate.renderer has to be a vocoder of the preset {saved.recipe.mel}",
        )
    return found


def export(saved: Checkpoint, state: dict[str, Any]) -> Checkpoint:
    """What a finished training ships: the averaged weights as float16, and facts about it.

    The model that it works with goes with it, unless that comes with the package itself.
    """
    weights = {f"network.{key}": tensor for key, tensor in _compact(saved).items()}
    facts = {k: v for k, v in saved.state.items() if k in ("step", "seconds")}
    wanted = saved.recipe.partner
    if wanted and wanted not in names():
        other, part = checkpoints.load(locate(wanted)), PARTNERS[saved.recipe.task]
        weights |= {f"{part}.{key}": tensor for key, tensor in _compact(other).items()}
        facts[part] = other.recipe.model_copy(update={"data": DataConfig()}).to_json()
    recipe = saved.recipe.model_copy(update={"data": DataConfig()})  # folders are a private matter
    halves = {key: tensor.to(torch.float16) for key, tensor in weights.items()}
    return Checkpoint(recipe, halves, {**facts, **state})


def _compact(saved: Checkpoint) -> dict[str, Tensor]:
    """A checkpoint's weights, those of them that count."""
    network = tasks.build(saved.recipe).network
    return network.compact(saved.weights()) if isinstance(network, BandNet) else saved.weights()


def imported(path: Path) -> Checkpoint:
    """A published DiffWave checkpoint as a model of ours. Raises CheckpointError for anything else.

    Nothing in the file is executed.
    """
    config, weights, facts = read_published(path)
    recipe = Recipe(
        task="diffwave",
        rate=facts["sample_rate"],
        mel=PUBLISHED_MEL if config.bands else "",
        diffwave=config,
    )
    state = {"name": path.stem, "summary": "DiffWave as published.", "published": facts}
    return Checkpoint(recipe, {f"network.{key}": tensor for key, tensor in weights.items()}, state)
