"""Tasks: what a model is for, how a sound is made ready for it, and how it comes out."""

from dataclasses import dataclass

import torch

from wavediff.audio import Source
from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.fullband import FullBand
from wavediff.level import gated_rms
from wavediff.network import BandNet
from wavediff.path import Bridge
from wavediff.recipe import Recipe
from wavediff.render import Rendered, Request
from wavediff.resample import resampled
from wavediff.samplers import DIFFUSION_ONLY, SAMPLERS, Walk

LEVEL = 0.05  # RMS at which sounds enter the network
SILENT = 1e-6  # RMS below which a recording is not brought to that level any more
DETERMINISTIC_STEPS = 3  # up to here the bridge's deterministic sampler is the better one


@dataclass(frozen=True)
class DenoiseSettings:
    """What the user of a denoiser may choose."""

    steps: int = 1  # network calls
    sampler: str | None = None  # of `SAMPLERS`; None chooses by the steps
    seed: int = 0
    mix: float = 1.0  # share of the denoised sound in the result, 0 to 1
    max_attenuation: float | None = None  # dB; noise is never taken down further
    block_seconds: float = 12.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TaskError(f"{self.steps} steps are not possible", "--steps takes 1 and more")
        if not 0 <= self.mix <= 1:
            raise TaskError(f"a mix of {self.mix} is not possible", "--mix takes 0 to 1")
        if self.max_attenuation is not None and not self.max_attenuation >= 0:
            raise TaskError(
                f"an attenuation of {self.max_attenuation} dB is not possible",
                "--max-attenuation takes 0 dB and more",
            )
        if self.sampler is not None and self.sampler not in SAMPLERS:
            raise TaskError(
                f"no sampler is called {self.sampler}", "there are " + ", ".join(SAMPLERS)
            )
        if self.sampler in DIFFUSION_ONLY:
            raise TaskError(
                f"the sampler {self.sampler} is for diffusions, this model walks a bridge",
                "use ddim or ancestral",
            )

    @property
    def walk(self) -> Walk:
        """The sampler and its steps."""
        by_steps = "ddim" if self.steps <= DETERMINISTIC_STEPS else "ancestral"
        return Walk(self.sampler or by_steps, self.steps)

    @property
    def dry(self) -> float:
        """The share of the recording itself in the result."""
        floor = 0.0 if self.max_attenuation is None else 10 ** (-self.max_attenuation / 20)
        return max(1 - self.mix, floor)


def build(recipe: Recipe) -> Denoiser:
    """The untrained denoiser of a recipe."""
    return Denoiser(BandNet(recipe.network), Bridge(recipe.path.scale, recipe.path.growth))


def gain(rms: float) -> float:
    """What brings a recording of this RMS to the level that the network is trained at."""
    return LEVEL / max(rms, SILENT)


def denoise(
    source: Source,
    denoiser: Denoiser,
    rate: int,
    settings: DenoiseSettings,
    device: torch.device,
) -> Source:
    """The recording without its noise: the same rate, channels, length and level.

    `rate` is the model's. The result is computed as it is read, in increasing order.
    """
    observed = resampled(source, rate)
    request = Request(settings.walk, settings.seed, settings.block_seconds)
    denoised = Rendered(observed, denoiser, gain(gated_rms(observed)), request, device)
    return FullBand(source, observed, denoised, settings.dry)
