"""Generation: a prior invents a mel spectrogram, a vocoder makes sound of it."""

import math
from dataclasses import dataclass, field

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.mel import MelPreset
from wavediff.noise import Noise, derive_seed
from wavediff.path import Diffusion
from wavediff.prior import PriorNet
from wavediff.samplers import SAMPLERS, Walk

BLOCK = 2048  # frames of a block
GUIDED = (0.1, 5.0)  # sigmas between which guidance acts (Kynkäänniemi et al. 2024)


class GenerateConfig(BaseModel):
    """What a prior invents, one by one or without end, along which diffusion, and how."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    renderer: str = Field(
        "", description="the vocoder, or a generator that has one, by name or file; empty for none"
    )
    frames: int = Field(0, ge=0, description="length of a one-shot; 0 for sounds of any length")
    sigma_min: float = Field(0.01, gt=0, description="noise at which sampling ends")
    sigma_max: float = Field(20.0, gt=0, description="noise at which sampling begins")
    mean: float = Field(-0.6, description="of log sigma in training")
    spread: float = Field(1.2, gt=0, description="of log sigma in training")
    unlabelled: float = Field(0.1, ge=0, le=1, description="share of items without their label")
    steps: int = Field(12, gt=0, description="of the prior where none are asked for")
    guidance: float = Field(1.25, ge=0, description="of labels where none is asked for")


@dataclass(frozen=True)
class GenerateSettings:
    """What the user of a generator may choose; None leaves it to the model."""

    steps: int | None = None  # of the prior
    sampler: str = "ancestral"
    guidance: float | None = None  # above 1 labels are followed more closely, at twice the calls
    labels: dict[str, float] = field(default_factory=dict)  # shares of those that are asked for
    seconds: float | None = None  # of a sound of any length
    seed: int = 0
    render_steps: int | None = None  # network calls of the vocoder

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise TaskError(f"{self.steps} steps are not possible", "--steps takes 1 and more")
        if self.sampler not in SAMPLERS:
            raise TaskError(
                f"no sampler is called {self.sampler}", "there are " + ", ".join(SAMPLERS)
            )
        if self.guidance is not None and not 0 <= self.guidance < math.inf:
            raise TaskError(
                f"a guidance of {self.guidance} is not possible", "--guidance takes 0 and more"
            )
        if self.seconds is not None and not 0 < self.seconds < math.inf:
            raise TaskError(
                f"{self.seconds} seconds are not possible", "--seconds takes more than 0"
            )


def shares(network: PriorNet, labels: dict[str, float]) -> Tensor | None:
    """How much of each label is asked for, (1, labels). Raises TaskError for unknown ones."""
    known = network.config.labels
    for label, weight in labels.items():
        if label not in known:
            hint = "it knows " + ", ".join(known) if known else "leave out --label"
            raise TaskError(f"the model knows no label {label}", hint)
        if not (math.isfinite(weight) and weight >= 0):
            raise TaskError(f"a weight of {weight} for {label}", "weights are 0 and more")
    if not known:
        return None
    row = torch.tensor([[labels.get(label, 0.0) for label in known]])
    return row / max(float(row.sum()), 1e-9) if labels else row


class Invented:
    """A mel that does not exist yet, invented as it is read: frames of one or more channels.

    Its blocks are sampled with the reach of all calls on either side, on noise by position, so that
    a long mel does not depend on them.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        preset: MelPreset,
        made: GenerateConfig,
        settings: GenerateSettings,
        device: torch.device,
        number: int = 0,
    ) -> None:
        assert isinstance(denoiser, Denoiser)
        network, path = denoiser.network, denoiser.path
        assert isinstance(network, PriorNet)
        assert isinstance(path, Diffusion)
        self.channels = 1
        self.frames = network.frames or _frames(settings, preset)
        self._network, self._path, self._denoiser = network, path, denoiser
        self._settings, self._preset, self._device = settings, preset, device
        self._labels = shares(network, settings.labels)
        self._noise = Noise(derive_seed(settings.seed, number))
        self._walk = Walk(settings.sampler, settings.steps or made.steps)
        self._guidance = made.guidance if settings.guidance is None else settings.guidance
        self._size = max(BLOCK, network.frames)  # a one-shot knows its places, and is one block
        self._kept: dict[int, Tensor] = {}

    def read(self, first: int, last: int) -> Tensor:
        """(1, bands, last - first), the frames at its ends repeated beyond them."""
        wanted = torch.arange(first, last).clamp(0, self.frames - 1)
        low, high = int(wanted[0]), int(wanted[-1]) + 1
        blocks = [self._block(n) for n in range(low // self._size, -(-high // self._size))]
        return torch.cat(blocks, -1)[..., wanted - low // self._size * self._size]

    def _block(self, number: int) -> Tensor:
        if number not in self._kept:
            self._kept = {n: kept for n, kept in self._kept.items() if n == number - 1}
            self._kept[number] = self._sample(number * self._size)
        return self._kept[number]

    @torch.inference_mode()
    def _sample(self, first: int) -> Tensor:
        last, halo = min(first + self._size, self.frames), self._walk.calls * self._denoiser.reach
        start, stop = max(0, first - halo), min(self.frames, last + halo)

        def draw(number: int) -> Tensor:
            bands = self._preset.bands
            row = self._noise.read(number, 0, start * bands, stop * bands)
            return row.view(1, stop - start, bands).mT.to(self._device)

        times = self._path.times(self._walk.steps)
        x = self._path.start(torch.zeros(0), lambda: draw(-1))
        x = SAMPLERS[self._walk.sampler](self._path, self._guess, x, x, times, draw)
        mel = self._network.mel(x).clamp(min=self._preset.silence).cpu()
        return mel[..., first - start : last - start]

    def _guess(self, x: Tensor, sigma: float) -> Tensor:
        """The denoiser's guess, moved away from what it would be without the labels."""
        at = x.new_full((x.shape[0],), sigma)
        if self._labels is None:
            return self._denoiser(x, None, at)
        labels, weight = self._labels.to(self._device), self._guidance
        asked = bool(self._settings.labels)
        if weight == 1 or not asked or not GUIDED[0] < sigma < GUIDED[1]:
            return self._denoiser(x, labels, at)
        both = torch.cat((labels, torch.zeros_like(labels)))
        named, free = self._denoiser(x.repeat(2, 1, 1), both, at.repeat(2)).chunk(2)
        return free + weight * (named - free)


def _frames(settings: GenerateSettings, preset: MelPreset) -> int:
    seconds = 5.0 if settings.seconds is None else settings.seconds
    return max(1, math.ceil(seconds * preset.rate / preset.hop)) + int(preset.centred)
