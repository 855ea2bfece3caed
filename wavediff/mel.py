"""Mel spectrograms as the field's systems define them, from sound and back to magnitudes."""

import difflib
import functools
import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff.audio import Source
from wavediff.errors import MelError

# What a number in a mel may be. "unit-db" is the published DiffWave's clipped decibels, 0 to 1;
# those of power are sums of squared magnitudes, the others sums of magnitudes.
Scaling = Literal[
    "ln", "unit-db", "log10", "db", "magnitude", "power", "ln-power", "log10-power", "power-db"
]
UNIT_DB = (-80.0, 20.0)  # dB of a magnitude at 0 and at 1 of "unit-db"
LOG_POWER = {"ln-power": math.e, "log10-power": 10.0, "power-db": 10**0.1}  # bases
LOG_MAGNITUDE = {"ln": math.e, "log10": 10.0, "db": 10**0.05}


@dataclass(frozen=True)
class MelPreset:
    """What a mel spectrogram's numbers mean: one system's front end.

    Frames are windows of `window` samples under a periodic Hann window, `hop` apart, on a sound
    that is reflected at its ends. The magnitudes of their spectra are summed over triangular
    bands, and those sums are put on a logarithmic scale.
    """

    name: str
    rate: int  # Hz
    window: int  # samples, also of the Fourier transform
    hop: int  # samples
    bands: int
    low: float  # Hz, where the first band begins
    high: float  # Hz, where the last one ends
    scale: Literal["slaney", "htk"] = "slaney"
    equal_area: bool = True  # bands weighted by 2 / their width in Hz; else their peaks are 1
    centred: bool = False  # frame 0 on sample 0; else on hop / 2, as HiFi-GAN has it
    addend: float = 0.0  # under the root of the magnitudes
    normalised: bool = False  # spectra divided by the root of the window's energy
    logarithm: Literal["ln", "unit-db"] = "ln"
    floor: float = 1e-5  # magnitudes below it count as it

    @property
    def bins(self) -> int:
        """How many frequencies a frame has, from 0 Hz to half the rate."""
        return self.window // 2 + 1

    @property
    def lead(self) -> int:
        """How many reflected samples the first frame has before sample 0."""
        return self.window // 2 if self.centred else (self.window - self.hop) // 2

    @property
    def offset(self) -> int:
        """The sample on which frame 0 is centred; frame f is on `offset + f * hop`."""
        return self.window // 2 - self.lead

    @property
    def silence(self) -> float:
        """The value of no sound: no value is lower."""
        return float(compress(torch.zeros(()), self))

    def frames(self, samples: int) -> int:
        """How many frames a sound of `samples` has."""
        return samples // self.hop + (1 if self.centred and samples else 0)

    def samples(self, frames: int) -> int:
        """How many samples a mel of `frames` stands for."""
        return max(frames - 1 if self.centred else frames, 0) * self.hop


PRESETS = {
    preset.name: preset
    for preset in (
        MelPreset("hifigan", 22050, 1024, 256, 80, 0, 8000, addend=1e-9),
        MelPreset("tacotron2", 22050, 1024, 256, 80, 0, 8000, centred=True),
        MelPreset("bigvgan24k", 24000, 1024, 256, 100, 0, 12000, addend=1e-9),
        MelPreset(
            "vocos24k", 24000, 1024, 256, 100, 0, 12000, "htk", False, centred=True, floor=1e-7
        ),
        MelPreset(
            "lmnt", 22050, 1024, 256, 80, 20, 11025, "htk", False, centred=True, normalised=True,
            logarithm="unit-db", floor=1e-4,
        ),
        MelPreset("narrow8k", 8000, 512, 128, 64, 0, 4000, addend=1e-9),
        MelPreset("full44k", 44100, 2048, 512, 128, 0, 22050, addend=1e-9),
    )
}  # fmt: skip


def preset(name: str) -> MelPreset:
    """The preset of that name. Raises MelError, with the nearest name."""
    if name in PRESETS:
        return PRESETS[name]
    near = difflib.get_close_matches(name.lower(), PRESETS, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    raise MelError(f"no mel preset is called {name}", f"{hint}There are {', '.join(PRESETS)}.")


def mel(audio: Tensor, preset: MelPreset) -> Tensor:
    """(batch, samples) at the preset's rate to float32 (batch, bands, frames); differentiable.

    A sound too short to be reflected is reflected again and again. Raises MelError for one that
    is shorter than a frame.
    """
    samples = audio.shape[-1]
    frames = preset.frames(samples)
    if not frames:
        raise MelError(
            f"a sound of {samples} samples is too short for a mel of the preset {preset.name}",
            f"It takes at least {1 if preset.centred else preset.hop} samples.",
        )
    lead = preset.lead
    if lead < samples:
        padded = F.pad(audio, (lead, lead), mode="reflect")
    else:
        padded = audio[:, _reflected(torch.arange(-lead, samples + lead), samples)]
    return _analysed(padded, preset)


class MelOf:
    """The mel of a source, read by ranges of frames: each equals that part of the whole."""

    def __init__(self, source: Source, preset: MelPreset) -> None:
        """The source has to be at the preset's rate. Raises MelError for one without a frame."""
        if source.rate != preset.rate:
            raise ValueError(f"a source at {source.rate} Hz for a mel at {preset.rate} Hz")
        self.source, self.preset = source, preset
        self.channels, self.bands = source.channels, preset.bands
        self.frames = preset.frames(source.samples)

    def read(self, first: int, last: int) -> Tensor:
        """Float32 (channels, bands, last - first); silence outside of [0, frames)."""
        low, high = max(first, 0), min(last, self.frames)
        if low >= high:
            shape = self.channels, self.bands, max(last - first, 0)
            return self.source.read(0, 0).new_full(shape, self.preset.silence)
        start = low * self.preset.hop - self.preset.lead
        stop = (high - 1) * self.preset.hop - self.preset.lead + self.preset.window
        index = _reflected(torch.arange(start, stop), self.source.samples)
        begin, end = int(index.min()), int(index.max()) + 1
        audio = self.source.read(begin, end)
        inside = _analysed(audio[:, (index - begin).to(audio.device)], self.preset)
        return F.pad(inside, (low - first, last - high), value=self.preset.silence)


def compress(magnitudes: Tensor, preset: MelPreset) -> Tensor:
    """Band magnitudes, of any shape, to the preset's values: its logarithm and its floor."""
    clamped = magnitudes.clamp(min=preset.floor)
    if preset.logarithm == "ln":
        return clamped.log()
    least, most = UNIT_DB
    return ((20 * clamped.log10() - least) / (most - least)).clamp(0, 1)


def magnitudes(mel: Tensor, preset: MelPreset) -> Tensor:
    """The preset's values, of any shape, to band magnitudes: `compress` undone."""
    if preset.logarithm == "ln":
        return mel.exp()
    least, most = UNIT_DB
    return 10 ** ((mel * (most - least) + least) / 20)


def linear(mel: Tensor, preset: MelPreset) -> Tensor:
    """(batch, bands, frames) to the least magnitudes that explain it, (batch, frames, bins).

    They are those of a plain Fourier transform under the Hann window, by the pseudo-inverse of
    the bands, none below zero; where no band reaches, above `high`, they are zero.
    """
    with torch.autocast(mel.device.type, enabled=False):
        bands = magnitudes(mel.float(), preset).transpose(1, 2)
        return (bands @ _inverse(preset, mel.device)).clamp(min=0)


def rescale(values: Tensor, scaling: Scaling, preset: MelPreset) -> Tensor:
    """Values of another scaling, (..., bands, frames), to those of the preset.

    Its bands have to be the preset's. Exact for those of magnitudes; from powers a spectrum is
    taken to be flat within a band, which a harmonic one is not.
    """
    if scaling == preset.logarithm:
        return values
    if scaling == "unit-db":
        least, most = UNIT_DB
        found = 10 ** ((values * (most - least) + least) / 20)
    elif scaling in LOG_MAGNITUDE:
        found = LOG_MAGNITUDE[scaling] ** values
    elif scaling == "magnitude":
        found = values
    else:
        power = values if scaling == "power" else LOG_POWER[scaling] ** values
        width = filterbank(preset, values.device).sum(1, keepdim=True)
        found = (power.clamp(min=0) * width).sqrt()
    return compress(found, preset)


def convertible(source: MelPreset, target: MelPreset) -> str | None:
    """Why a mel of one preset cannot become one of another exactly; None if it can.

    Bands of equal peaks and of equal areas differ by a factor, logarithms by a formula. Where
    frame 0 lies is left as it is: both say so in `offset`.
    """
    for field, unit in (
        ("rate", " Hz"), ("window", " samples"), ("hop", " samples"), ("bands", " bands"),
        ("low", " Hz at the bottom"), ("high", " Hz at the top"), ("scale", " bands"),
    ):  # fmt: skip
        ours, theirs = getattr(source, field), getattr(target, field)
        if ours != theirs:
            what = field if field in ("rate", "window", "hop") else "has"
            return f"{source.name} {what} {ours}{unit}, {target.name} {theirs}{unit}"
    return None


def convert(mel: Tensor, source: MelPreset, target: MelPreset) -> Tensor:
    """(..., bands, frames) of one preset to those of another. Raises MelError if it cannot be."""
    reason = convertible(source, target)
    if reason:
        raise MelError(
            f"a mel of the preset {source.name} is none of {target.name}: {reason}",
            f"Use a model of the preset {source.name}, or make the mel anew from the sound.",
        )
    if _values(source) == _values(target):
        return mel
    found = magnitudes(mel, source)
    if source.normalised != target.normalised:
        energy = _energy(source)
        found = found * energy if source.normalised else found / energy
    if source.equal_area != target.equal_area:
        gain = filterbank(target, mel.device).sum(1) / filterbank(source, mel.device).sum(1)
        found = found * gain[:, None]
    return compress(found, target)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)  # else one first made while rendering could not be trained with
def plain(preset: MelPreset) -> float:
    """What brings magnitudes of the preset's spectra to those under plain windows."""
    return _energy(preset) if preset.normalised else 1.0


def filterbank(preset: MelPreset, device: torch.device | None = None) -> Tensor:
    """The weights of every frequency in every band, float32 (bands, bins)."""
    edges = torch.tensor(_edges(preset), dtype=torch.float64)[:, None]
    frequency = torch.arange(preset.bins, dtype=torch.float64) * preset.rate / preset.window
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    rise, fall = (frequency - low) / (middle - low), (high - frequency) / (high - middle)
    weights = torch.minimum(rise, fall).clamp(min=0)
    if preset.equal_area:
        weights = weights * 2 / (high - low)
    return weights.to(device, torch.float32)


def _edges(preset: MelPreset) -> list[float]:
    """The corners of the bands in Hz: each band reaches from one to the next but one."""
    step = 200 / 3  # Hz of a Slaney mel below 1 kHz; above, 27 of them make a factor of 6.4
    growth = math.log(6.4) / 27

    def to_mel(hertz: float) -> float:
        if preset.scale == "htk":
            return 2595 * math.log10(1 + hertz / 700)
        return hertz / step if hertz < 1000 else 15 + math.log(hertz / 1000) / growth

    def to_hertz(mel: float) -> float:
        if preset.scale == "htk":
            return 700 * (10 ** (mel / 2595) - 1)
        return mel * step if mel < 15 else 1000 * math.exp((mel - 15) * growth)

    low, high = to_mel(preset.low), to_mel(preset.high)
    count = preset.bands + 1
    return [to_hertz(low + (high - low) * n / count) for n in range(count + 1)]


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _window(preset: MelPreset, device: torch.device) -> Tensor:
    window = torch.hann_window(preset.window, periodic=True, dtype=torch.float64)
    return (window / _energy(preset) if preset.normalised else window).to(device, torch.float32)


@functools.lru_cache(maxsize=32)
@torch.inference_mode(False)
def _inverse(preset: MelPreset, device: torch.device) -> Tensor:
    """(bands, bins), at the scale of a plain Fourier transform; zero where no band reaches."""
    bands = filterbank(preset).double()
    reached = bands.sum(0) > 1e-9  # at half the rate rounding leaves a little more than nothing
    inverse = torch.linalg.pinv(bands).T * reached
    return (inverse * _energy(preset) if preset.normalised else inverse).to(device, torch.float32)


def _energy(preset: MelPreset) -> float:
    """The root of the sum of the squared window."""
    return math.sqrt(3 / 8 * preset.window)


def _values(preset: MelPreset) -> tuple[object, ...]:
    """What decides how loud a sound of given bands comes out."""
    return preset.equal_area, preset.normalised, preset.logarithm, preset.floor


def _analysed(padded: Tensor, preset: MelPreset) -> Tensor:
    with torch.autocast(padded.device.type, enabled=False):
        framed = padded.float().unfold(-1, preset.window, preset.hop)
        spectrum = torch.fft.rfft(framed * _window(preset, padded.device))
        if preset.addend:
            power = spectrum.real.square() + spectrum.imag.square()
            magnitude = (power + preset.addend).sqrt()
        else:
            magnitude = spectrum.abs()  # whose gradient at zero is zero, not that of a root
        bands = magnitude @ filterbank(preset, padded.device).T
        return compress(bands.transpose(1, 2), preset)


def _reflected(index: Tensor, samples: int) -> Tensor:
    """Positions on a sound that is mirrored at its first and its last sample, for ever."""
    period = max(2 * (samples - 1), 1)
    folded = index % period
    return torch.minimum(folded, period - folded) if samples > 1 else folded
