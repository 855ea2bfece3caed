"""Objectives: what a training makes of a batch, and the loss of it, task by task."""

import abc
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from wavediff.checkpoint import Checkpoint
from wavediff.denoiser import Denoiser
from wavediff.fullband import HIGH, LOW, Bands
from wavediff.level import LEVEL
from wavediff.losses import denoise_loss, heard_band, spectral_loss, upper_loss
from wavediff.mel import MelPreset, mel
from wavediff.model import Model, partner
from wavediff.noise import spectral_tilt
from wavediff.path import Diffusion, Path
from wavediff.prior import PriorNet
from wavediff.published import PublishedNet, training_loss
from wavediff.recipe import Recipe
from wavediff.resample import resample
from wavediff.samplers import SAMPLERS, zero_draw
from wavediff.tasks import Trained
from wavediff.upper import UpperNet
from wavediff.vocoding import framed, lead, phased, start_magnitudes, transform_of

AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}
FAINT = -78.0  # dB of the strongest frequency, which voices have above 12 kHz, 16 bits do not
SILENCE = 1e-9  # power below which a clean sound is none
NARROWER = (22_050, 24_000, 32_000, 44_100)  # Hz, rates of recordings that a network above learns
SILENT_SPREAD = 0.1  # of a band in a mel, in which there is nothing to hear
Batch = tuple[Tensor, ...]  # of a task: each (batch, …)


@dataclass(frozen=True)
class Draw:
    """The random numbers of a step, a row for each item."""

    t: Tensor  # (batch,) how far along the path, 0 clean to 1 corrupted
    noise: Tensor  # (batch, …), white; a vocoder's first phases
    chance: Tensor  # (batch,), even in [0, 1)
    calls: int = 1  # of the sampler, whose states before the last one are trained on

    def part(self, items: slice) -> "Draw":
        """The rows of some items."""
        return replace(self, t=self.t[items], noise=self.noise[items], chance=self.chance[items])

    def to(self, device: torch.device) -> "Draw":
        """The same on a device."""
        moved = {name: getattr(self, name).to(device) for name in ("t", "noise", "chance")}
        return replace(self, **moved)


class Objective(nn.Module, abc.ABC):
    """A denoiser and how its task trains it. Called, it answers with each item's loss, (batch,)."""

    def __init__(self, recipe: Recipe, denoiser: Trained) -> None:
        super().__init__()
        self.recipe, self.denoiser = recipe, denoiser

    def measure(self, batch: Batch) -> None:
        """Fit to the data, before the first step, what is no weight."""

    def example(self, items: int) -> Batch:
        """A batch of noise, to see what a step costs."""
        samples = round(self.recipe.training.crop * self.recipe.rate)
        if (preset := self.recipe.preset) is not None:
            samples = samples // preset.hop * preset.hop
        return (LEVEL * torch.randn(items, samples),)

    @abc.abstractmethod
    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        """The numbers of a step for all `items` of all processes, of whose `batch` is a share."""

    @property
    def path(self) -> Path:
        """The path of the task."""
        assert isinstance(self.denoiser, Denoiser)
        return self.denoiser.path

    def guess(self, x: Tensor, observation: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        """The denoiser's, in the precision of the training."""
        with self.precision(x.device):
            return self.denoiser(x, observation, t, *known)

    def precision(self, device: torch.device) -> torch.autocast:
        """The context in which the network computes."""
        wanted = self.recipe.training.precision
        return torch.autocast(device.type, AUTOCAST.get(wanted), enabled=wanted in AUTOCAST)

    @torch.no_grad()
    def rolled_out(self, observation: Tensor, calls: int, *known: Tensor) -> Tensor:
        """The sampler's own state before the last of its calls."""

        def denoise(x: Tensor, t: float) -> Tensor:
            return self.guess(x, observation, torch.full_like(x[:, 0], t), *known)

        path = self.path
        draw = zero_draw(observation)
        times = path.times(calls)[:-1]
        return SAMPLERS["ddim"](path, denoise, observation, observation, times, draw)


class DenoiseObjective(Objective):
    """Batches of (noisy, clean), each (batch, samples), along a bridge."""

    kernel: Tensor  # (taps,) of the bridge's noise

    def example(self, items: int) -> Batch:
        (noisy,) = super().example(items)
        return noisy, noisy / 2

    def __init__(self, recipe: Recipe, denoiser: Trained) -> None:
        super().__init__(recipe, denoiser)
        self.register_buffer("kernel", spectral_tilt(recipe.rate), persistent=False)

    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        path = self.recipe.path
        t = torch.rand(items, generator=generator)
        chance = torch.rand(items, generator=generator)
        t = torch.where(chance < path.at_start, 1.0, t.clamp(min=1e-3))
        calls = _calls(path.rollout, generator)
        if calls > 1:
            t = torch.full_like(t, self.path.times(calls)[-2])
        samples = batch[0].shape[-1] + self.kernel.shape[0] - 1
        return Draw(t, torch.randn(items, samples, generator=generator), chance, calls)

    def forward(self, batch: Batch, draw: Draw) -> Tensor:
        noisy, clean = batch
        if draw.calls > 1:
            x = self.rolled_out(noisy, draw.calls)
        else:
            noise = F.conv1d(draw.noise[:, None], self.kernel[None, None])[:, 0]
            x = self.path.corrupt(clean, noisy, draw.t, noise)
        guess = self.guess(x, noisy, draw.t)
        return denoise_loss(guess, clean, self.recipe.loss, self.recipe.rate)


class UpperObjective(Objective):
    """Batches of (noisy, clean), each (batch, samples), above the band of another denoiser."""

    def __init__(self, recipe: Recipe, denoiser: Trained) -> None:
        super().__init__(recipe, denoiser)
        self._below: Model | None = None

    def example(self, items: int) -> Batch:
        (noisy,) = super().example(items)
        return noisy, noisy / 2

    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        chance = torch.rand(items, generator=generator)
        return Draw(torch.ones(items), torch.zeros(items, 0), chance)

    def forward(self, batch: Batch, draw: Draw) -> Tensor:
        noisy, clean = batch
        rate, settings, network = self.recipe.rate, self.recipe.upper, self.denoiser.network
        assert isinstance(network, UpperNet)
        with torch.no_grad():
            below = self._denoiser(noisy.device)
            band = below.rate / 2
            high, low = Bands(rate, band, HIGH), Bands(below.rate, band, LOW)
            bins = torch.linspace(0, rate / 2, high.transform.bins, device=noisy.device)
            observed = resample(noisy, rate, below.rate)
            denoised = below.fast(observed, observed, torch.ones_like(observed[:, 0])).clone()
            before, after = (low.power(low.whole(sound)) for sound in (observed, denoised))
            there = (bins >= band) & (bins <= self._top(draw.chance)[:, None, None])
            noisy_spectra, clean_spectra = (there * high.whole(sound) for sound in batch)
            silent = clean.square().mean(-1) < SILENCE
            edge = torch.where(silent, 1.0, heard_band(clean, FAINT)) * rate / 2
            heard = there & (bins <= edge[:, None, None])
        frames = min(before.shape[1], noisy_spectra.shape[1])  # of odd rates one has a frame more
        told = high.power(noisy_spectra), before, after
        gains = network(*(power[:, :frames] for power in told))[..., high.band_of]
        kept = gains * noisy_spectra[:, :frames]
        weights = settings.magnitude, settings.snr
        return upper_loss(kept, clean_spectra[:, :frames], heard.float(), *weights)

    def _top(self, chance: Tensor) -> Tensor:
        """Up to which frequency each item is recorded, (batch,), Hz: half of them narrower."""
        rate = self.recipe.rate
        tops = [*NARROWER, *(rate for _ in NARROWER)]
        return torch.tensor(tops, device=chance.device)[(chance * len(tops)).long()] / 2

    def _denoiser(self, device: torch.device) -> Model:
        """The model of the band below."""
        if self._below is None:
            here = Checkpoint(self.recipe, {}, {})
            self._below = partner(here, "this training", device)
        return self._below


class VocodeObjective(Objective):
    """Batches of (clean,), (batch, samples), whose mel and start are made here."""

    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        calls = _calls(self.recipe.vocode.rollout, generator)
        t = torch.full((items,), self.path.times(calls)[-2])
        noise = torch.rand(items, self._preset.bins, generator=generator)  # the first phases
        return Draw(t, noise, torch.rand(items, generator=generator), calls)

    def forward(self, batch: Batch, draw: Draw) -> Tensor:
        (clean,) = batch
        preset = self._preset
        sound = F.pad(clean, (lead(preset), 0))
        with torch.no_grad():
            known = framed(mel(clean, preset), preset)
            start = phased(
                start_magnitudes(known, preset),
                transform_of(preset),
                sound.shape[-1],
                draw.noise,
                self.recipe.vocode.iterations,
            )
        x = self.rolled_out(start, draw.calls, known)
        guess = self.guess(x, start, draw.t, known)
        return spectral_loss(guess, sound, self.recipe.spectral, self.recipe.rate)

    @property
    def _preset(self) -> MelPreset:
        preset = self.recipe.preset
        assert preset is not None
        return preset


class PriorObjective(Objective):
    """Batches of mels (batch, bands, frames) and labels (batch, labels), along a diffusion."""

    def example(self, items: int) -> Batch:
        preset, settings = self.recipe.preset, self.recipe.generate
        assert preset is not None
        frames = settings.frames or round(self.recipe.training.crop * preset.rate / preset.hop)
        mels = torch.randn(items, preset.bands, frames)
        return mels, torch.zeros(items, len(self.recipe.prior.labels))

    @torch.no_grad()
    def measure(self, batch: Batch) -> None:
        network, mels = self.denoiser.network, batch[0]
        assert isinstance(network, PriorNet)
        network.centre.copy_(mels.mean((0, 2)))
        network.spread.copy_(mels.std((0, 2)).clamp(min=SILENT_SPREAD))

    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        t = torch.rand(items, generator=generator).clamp(1e-4, 1 - 1e-4)
        noise = torch.randn(items, *batch[0].shape[1:], generator=generator)
        return Draw(t, noise, torch.rand(items, generator=generator))

    def forward(self, batch: Batch, draw: Draw) -> Tensor:
        mels, labels = batch
        network, path, settings = self.denoiser.network, self.path, self.recipe.generate
        assert isinstance(network, PriorNet)
        assert isinstance(path, Diffusion)
        clean = network.normalised(mels)
        # The time is the rank of sigma, which is log-normal (Karras et al. 2022, table 1).
        sigma = (settings.mean + settings.spread * torch.special.ndtri(draw.t)).exp()
        named = labels * (draw.chance >= settings.unlabelled)[:, None]
        guess = self.guess(path.corrupt(clean, clean, sigma, draw.noise), named, sigma)
        return (path.loss_weight(sigma)[:, None, None] * (guess - clean).square()).mean((1, 2))


class PublishedObjective(Objective):
    """Batches of (clean,), (batch, samples), for the published network, as it was published."""

    def draw(self, batch: Batch, items: int, generator: torch.Generator) -> Draw:
        t, chance = (torch.rand(items, generator=generator) for _ in range(2))
        return Draw(t, torch.randn(items, batch[0].shape[-1], generator=generator), chance)

    def forward(self, batch: Batch, draw: Draw) -> Tensor:
        (clean,), preset, network = batch, self.recipe.preset, self.denoiser.network
        assert isinstance(network, PublishedNet)
        known = None
        if preset is not None:
            known = mel(clean, preset)[..., : clean.shape[-1] // preset.hop]
        step = (draw.t * network.config.steps).long()
        with self.precision(clean.device):
            return training_loss(network, clean, known, step, draw.noise)


OBJECTIVES: dict[str, Callable[[Recipe, Trained], Objective]] = {
    "denoise": DenoiseObjective,
    "upper": UpperObjective,
    "vocode": VocodeObjective,
    "generate": PriorObjective,
    "diffwave": PublishedObjective,
}


def _calls(rollout: float, generator: torch.Generator) -> int:
    """How many calls the sampler makes whose last is trained: 1, or by chance 2 or 4."""
    calls = int(torch.tensor((2, 4))[torch.randint(2, (1,), generator=generator)])
    return calls if torch.rand(1, generator=generator) < rollout else 1
