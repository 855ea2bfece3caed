"""What training minimises."""

import functools
from typing import Annotated

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from wavediff.disturbance import opinion_lost
from wavediff.intelligibility import envelope_correlation
from wavediff.level import LEVEL
from wavediff.transform import Transform, squared

FLOOR = 1e-4  # of a magnitude, below which differences are inaudible at the training level
STRIDE = 6  # frames between the segments whose intelligibility counts
QUIET = 40.0  # dB below the training level, beyond which silence earns no more
UPPER_LIMIT = 40.0  # dB beyond which the ratio above a denoiser's band earns no more
UPPER_FLOOR = 1e-3  # power of a band above it that counts as none
BAND_DB = -65.0  # of the strongest frequency, below which there is nothing

Window = Annotated[int, Field(gt=0, multiple_of=2)]
Quartered = Annotated[int, Field(gt=0, multiple_of=4)]


class LossConfig(BaseModel):
    """The weights of the parts of the loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    windows: tuple[Window, ...] = Field((256, 512, 1024), description="samples of each resolution")
    compression: float = Field(0.3, gt=0, le=1, description="power that magnitudes are raised to")
    magnitude: float = Field(1.0, ge=0, description="weight of the magnitudes' difference")
    complex: float = Field(0.25, ge=0, description="weight of the complex difference")
    snr: float = Field(0.01, ge=0, description="weight of the signal-to-noise ratio, per dB")
    si_sdr: float = Field(0.0, ge=0, description="weight of the SI-SDR, per dB")
    intelligibility: float = Field(0.0, ge=0, description="weight of what ESTOI lacks of 1")
    quality: float = Field(0.0, ge=0, description="weight of the opinion that PESQ takes off")
    limit: float = Field(30.0, gt=0, description="dB beyond which either ratio earns no more")


class SpectralConfig(BaseModel):
    """The weights of the parts of a vocoder's loss."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    windows: tuple[Quartered, ...] = Field(
        (240, 600, 1200), description="samples of each resolution; a multiple of 4"
    )
    convergence: float = Field(1.0, ge=0, description="weight of the spectral convergence")
    logarithm: float = Field(1.0, ge=0, description="weight of the log magnitudes' difference")
    complex: float = Field(0.0, ge=0, description="weight of the compressed complex difference")
    quality: float = Field(0.0, ge=0, description="weight of the opinion that PESQ takes off")


@functools.lru_cache(maxsize=8)
def _transform(window: int) -> Transform:
    return Transform(window, window // 2)


def compressed_spectral(
    guess: Tensor, clean: Tensor, window: int, power: float
) -> tuple[Tensor, Tensor]:
    """Mean absolute differences of compressed spectra: magnitudes alone, and complex.

    (batch, samples) to two of (batch,). Compression gives quiet parts their due (Ephrat et al.
    2018; Braun and Tashev 2021).
    """
    ours, our_norm = _compressed(guess, window, power)
    theirs, their_norm = _compressed(clean, window, power)
    return (our_norm - their_norm).square().mean((1, 2)), squared(ours - theirs).mean((1, 2))


def _compressed(sound: Tensor, window: int, power: float) -> tuple[Tensor, Tensor]:
    """A compressed spectrum (batch, frames, bins), complex, and its magnitudes."""
    spectrum = _transform(window).analyse(sound)
    norm = _norm(spectrum)
    scale = (norm.log() * (power - 1)).exp()
    return spectrum * scale, norm * scale


def _norm(spectrum: Tensor) -> Tensor:
    return (squared(spectrum) + FLOOR**2).sqrt()


def limited_si_sdr(guess: Tensor, clean: Tensor, limit: float) -> Tensor:
    """Scale-invariant signal-to-distortion ratio in dB, softly limited; (batch,).

    Items whose target is silent have none and count 0 (Le Roux et al. 2019; the limit as in
    Wisdom et al. 2020, so that what is clean already does not rule the training).
    """
    guess = guess - guess.mean(-1, keepdim=True)
    clean = clean - clean.mean(-1, keepdim=True)
    power = clean.pow(2).sum(-1)
    target = ((guess * clean).sum(-1) / (power + 1e-8))[:, None] * clean
    signal = target.pow(2).sum(-1) + 1e-8
    error = (guess - target).pow(2).sum(-1) + 10 ** (-limit / 10) * signal
    heard = power > 1e-6 * clean.shape[-1]
    return torch.where(heard, 10 * torch.log10(signal / error), torch.zeros_like(signal))


def limited_snr(guess: Tensor, clean: Tensor, limit: float) -> Tensor:
    """Signal-to-noise ratio in dB with the same limit; it holds the level too; (batch,).

    Where the target is silent: how far below the training level the guess is.
    """
    power = clean.pow(2).mean(-1)
    heard = power > 1e-6
    power = torch.where(heard, power, LEVEL**2)
    forgiven = power * torch.where(heard, 10 ** (-limit / 10), 10 ** (-QUIET / 10))
    return 10 * torch.log10(power / ((guess - clean).pow(2).mean(-1) + forgiven))


def denoise_loss(guess: Tensor, clean: Tensor, config: LossConfig, rate: int) -> Tensor:
    """The loss of each item, (batch,): compressed spectra at several resolutions, and the ratio.

    (batch, samples) at `rate` Hz; what is unintelligible or disturbs counts too, where it is to.
    """
    total = -config.snr * limited_snr(guess, clean, config.limit)
    if config.si_sdr:
        total = total - config.si_sdr * limited_si_sdr(guess, clean, config.limit)
    if config.intelligibility:
        found, exists = envelope_correlation(guess, clean, rate, STRIDE)
        total = total + config.intelligibility * torch.where(exists, 1 - found, 0.0)
    total = total + _disturbance(guess, clean, rate, config.quality)
    for window in config.windows:
        magnitude, both = compressed_spectral(guess, clean, window, config.compression)
        total = total + (config.magnitude * magnitude + config.complex * both) / len(config.windows)
    return total


def spectral_loss(guess: Tensor, clean: Tensor, config: SpectralConfig, rate: int) -> Tensor:
    """The loss of each item of a vocoder, (batch,): spectra at several resolutions.

    Spectral convergence and the mean difference of log magnitudes (Yamamoto et al. 2020). The
    difference of compressed complex spectra asks for the true phase, which no mel tells: where it
    cannot be known, it asks for less sound. Frequencies above the band that a
    clean sound really has do not count: a recording that ends at 8 kHz says nothing above.
    """
    band = heard_band(clean)
    total = torch.zeros_like(band)
    for window in config.windows:
        transform = Transform(window, window // 4, 1.0)
        with torch.no_grad():
            theirs = transform.analyse(clean)
            true = _norm(theirs)
        ours = transform.analyse(guess)
        made = _norm(ours)
        heard = torch.arange(transform.bins, device=band.device) <= band[:, None] * window / 2
        heard = heard[:, None].to(true.dtype)
        counted = heard.sum((1, 2)) * true.shape[1]
        distance = ((heard * (made - true).square()).sum((1, 2)) + FLOOR**2).sqrt()
        whole = (heard * true.square()).sum((1, 2)).sqrt()
        logarithms = (heard * (made.log() - true.log()).abs()).sum((1, 2)) / counted
        part = config.convergence * distance / whole + config.logarithm * logarithms
        if config.complex:
            both = squared(ours * made**-0.7 - theirs * true**-0.7)
            part = part + config.complex * (heard * both).sum((1, 2)) / counted
        total = total + part / len(config.windows)
    return total + _disturbance(guess, clean, rate, config.quality)


def upper_loss(kept: Tensor, clean: Tensor, heard: Tensor, magnitude: float, snr: float) -> Tensor:
    """The loss of each item above a denoiser's band, (batch,): magnitudes, and the ratio.

    Complex (batch, frames, bins) of what is kept of a noisy sound, and of the clean one; where
    `heard` (batch, 1, bins) is 0 the clean sound has no band, and nothing counts. `magnitude` and
    `snr` are the weights of compressed magnitudes and of the ratio, per dB.
    """
    made, true = ((part.abs() + FLOOR) ** 0.3 for part in (kept, clean))
    counted = (heard.sum((1, 2)) * kept.shape[1]).clamp(min=1)
    different = (heard * (made - true).square()).sum((1, 2)) / counted
    power, error = (
        (heard * squared(part)).sum((1, 2)) + UPPER_FLOOR for part in (clean, kept - clean)
    )
    ratio = 10 * torch.log10(power / (error + 10 ** (-UPPER_LIMIT / 10) * power))
    return magnitude * different - snr * ratio


def _disturbance(guess: Tensor, clean: Tensor, rate: int, weight: float) -> Tensor:
    """What the opinion lost adds to the loss of each item, (batch,)."""
    if not weight:
        return torch.zeros_like(guess[:, 0])
    lost, exists = opinion_lost(guess, clean, rate)
    return weight * torch.where(exists, lost, 0.0)


@torch.no_grad()
def heard_band(clean: Tensor, least: float = BAND_DB) -> Tensor:
    """(batch,): up to which share of half the rate a sound has anything, of frequencies that are
    `least` dB from the strongest."""
    # Not at the ends: where a crop is cut out of a sound, there is some of every frequency.
    power = squared(Transform(512, 256).analyse(clean)[:, 2:-2]).mean(1)
    loud = power > 10 ** (least / 10) * power.amax(1, keepdim=True)
    top = (loud * torch.arange(power.shape[1], device=power.device)).amax(1) / (power.shape[1] - 1)
    return torch.where(top > 0.9, torch.ones_like(top), top)
