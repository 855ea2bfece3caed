"""Tasks: what a model is for, how a sound is made ready for it, and how it comes out."""

from dataclasses import dataclass

import torch

from wavediff.audio import Remembered, Source
from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.fullband import HOP, FullBand
from wavediff.generating import GenerateSettings
from wavediff.level import gain, gated_rms
from wavediff.mel import MelPreset
from wavediff.network import BandNet
from wavediff.noise import derive_seed
from wavediff.path import Bridge, Diffusion
from wavediff.prior import PriorNet
from wavediff.published import PublishedNet
from wavediff.published_sound import BLOCK_SECONDS as PUBLISHED_BLOCK
from wavediff.published_sound import PublishedSound
from wavediff.recipe import Recipe
from wavediff.render import BLOCK_SECONDS, Rendered, Request
from wavediff.resample import resampled
from wavediff.samplers import DIFFUSION_ONLY, SAMPLERS, Walk
from wavediff.spin import Spun
from wavediff.upper import UpperGains, UpperNet
from wavediff.vocoding import Mels, Refinement, VocodeSettings

AHEAD = 10.0  # seconds, by which readers of a recording are apart, beside a block
MOST_SPINS = 16  # more hearings are hardly other ones


@dataclass(frozen=True)
class DenoiseSettings:
    """What the user of a denoiser may choose."""

    steps: int = 1  # network calls
    sampler: str = "ddim"  # of `SAMPLERS`
    seed: int = 0
    mix: float = 1.0  # share of the denoised sound in the result, 0 to 1
    max_attenuation: float | None = None  # dB; noise is never taken down further
    block_seconds: float = BLOCK_SECONDS
    spins: int = 2  # hearings, at other frames and speeds, whose results are averaged

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise TaskError(f"{self.steps} steps are not possible", "--steps takes 1 and more")
        if not 1 <= self.spins <= MOST_SPINS:
            raise TaskError(
                f"{self.spins} spins are not possible", f"--spins takes 1 to {MOST_SPINS}"
            )
        if not 0 <= self.mix <= 1:
            raise TaskError(f"a mix of {self.mix} is not possible", "--mix takes 0 to 1")
        if self.max_attenuation is not None and not self.max_attenuation >= 0:
            raise TaskError(
                f"an attenuation of {self.max_attenuation} dB is not possible",
                "--max-attenuation takes 0 dB and more",
            )
        if self.sampler not in SAMPLERS:
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
        return Walk(self.sampler, self.steps)

    @property
    def dry(self) -> float:
        """The share of the recording itself in the result."""
        floor = 0.0 if self.max_attenuation is None else 10 ** (-self.max_attenuation / 20)
        return max(1 - self.mix, floor)


class Upper(torch.nn.Module):
    """The network above another denoiser's band, where a denoiser of ours would be."""

    def __init__(self, network: UpperNet, rate: int) -> None:
        super().__init__()
        self.network = network
        self.rate = rate  # Hz

    @property
    def receptive_field(self) -> int:
        """Samples to either side that a gain can depend on."""
        return round((self.network.reach + 1) * HOP * self.rate)


class Published(torch.nn.Module):
    """The published network where a denoiser of ours would be: it walks a way of its own."""

    def __init__(self, network: PublishedNet) -> None:
        super().__init__()
        self.network = network

    @property
    def receptive_field(self) -> int:
        """Samples to either side that one sample of an answer can depend on."""
        return self.network.receptive_field

    @property
    def reach(self) -> int:
        """The same of a step."""
        return self.network.receptive_field


Trained = Denoiser | Published | Upper


def build(recipe: Recipe) -> Trained:
    """What a recipe trains, untrained."""
    preset = recipe.preset
    if recipe.task == "upper":
        return Upper(UpperNet(recipe.upper), recipe.rate)
    if recipe.task == "diffwave":
        return Published(PublishedNet(recipe.diffwave))
    if recipe.task == "vocode" and preset is not None:
        network = BandNet(recipe.network, preset.bands)
        return Denoiser(network, Refinement(preset, recipe.vocode.passes))
    if recipe.task == "generate" and preset is not None:
        settings = recipe.generate
        prior = PriorNet(recipe.prior, preset.bands, settings.frames)
        return Denoiser(prior, Diffusion(1.0, settings.sigma_min, settings.sigma_max))
    return Denoiser(BandNet(recipe.network), Bridge(recipe.path.scale, recipe.path.growth))


def denoise(
    source: Source,
    denoiser: Denoiser,
    rate: int,
    settings: DenoiseSettings,
    device: torch.device,
    upper: UpperNet | None = None,
) -> Source:
    """The recording without its noise: the same rate, channels, length and level.

    `rate` is the model's; what the recording has above that is cleaned by the network `upper`, or
    follows the band below. The result is computed as it is read, in increasing order.
    """
    observed = resampled(source, rate)
    if observed is not source:  # it has several readers, and is made once for all of them
        halo = settings.walk.calls * denoiser.reach / rate
        observed = Remembered(observed, settings.block_seconds + 2 * halo + AHEAD)
    request = Request(settings.walk, settings.seed, settings.block_seconds)
    level = gain(gated_rms(observed))
    denoised = Spun(
        observed,
        denoiser.hop,
        settings.spins,
        lambda shifted: Rendered(shifted, denoiser, level, request, device),
    )
    gains = None if upper is None else UpperGains(upper, level)
    return FullBand(source, observed, denoised, settings.dry, gains)


def published_vocode(
    mels: Mels,
    network: PublishedNet,
    preset: MelPreset,
    settings: VocodeSettings,
    dtype: torch.dtype,
) -> Source:
    """The sound of a mel by the published network."""
    mel = mels.read(0, mels.frames)[0]
    return PublishedSound(
        network,
        preset.rate,
        mel,
        mels.frames * preset.hop,
        settings.seed,
        _fast(network, settings.steps),
        min(settings.block_seconds, PUBLISHED_BLOCK),
        dtype,
    )


def published_sound(
    network: PublishedNet, rate: int, settings: GenerateSettings, number: int, dtype: torch.dtype
) -> Source:
    """A sound by the published network without a condition."""
    if settings.labels:
        raise TaskError("the model knows no labels", "leave out --label")
    samples = round((settings.seconds or 5.0) * rate)
    seed = derive_seed(settings.seed, number)
    fast = _fast(network, settings.render_steps)
    return PublishedSound(network, rate, None, samples, seed, fast, dtype=dtype)


def _fast(network: PublishedNet, steps: int | None) -> bool:
    """Whether the schedule of few steps is meant."""
    few, whole = len(network.config.inference_schedule), network.config.steps
    if steps not in (None, few, whole):
        raise TaskError(
            f"{steps} steps are not possible", f"a published model has --steps {few} and {whole}"
        )
    return steps != whole
