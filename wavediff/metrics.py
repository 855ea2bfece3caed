"""How near an estimate comes to its reference: PESQ-WB, ESTOI, SI-SDR and an STFT distance.

Every metric takes the reference first, two sounds of the same length as float (samples,), tensors
or arrays, and answers with one number: nan where it is not defined for that pair, as for a silent
reference. Sounds of other shapes or with NaN samples raise AudioError.
"""

import contextlib
import importlib
import importlib.util
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wavediff.errors import AudioError, TaskError
from wavediff.resample import resample

Sound = Tensor | np.ndarray

SI_SDR_LIMIT = 100.0  # dB; beyond what 16 bits can show, and means stay finite
SPEECH_RATE = 16000  # Hz, at which PESQ-WB and ESTOI are taken
RESOLUTIONS = ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200))  # fft, hop, window in samples
POWER_FLOOR = 1e-8  # of an STFT bin, below which its logarithm would only tell rounding
PESQ_SHORTEST = SPEECH_RATE // 4  # samples; the package refuses less
PESQ_LONGEST = SPEECH_RATE * 20  # samples; beyond, its 50 utterances can overflow and crash Python


@dataclass(frozen=True)
class Metric:
    """A row of METRICS: how it is called, read and computed."""

    name: str  # as in a table's head
    unit: str  # "" for a bare score
    higher_is_better: bool
    function: Callable[[Sound, Sound, int], float]  # reference, estimate, rate in Hz
    package: str = ""  # that it needs beside wavediff's own

    @property
    def head(self) -> str:
        """Name and unit."""
        return f"{self.name} {self.unit}".rstrip()

    def show(self, value: float) -> str:
        """A score as text, a dash where it is not defined."""
        return "-" if math.isnan(value) else f"{value:.2f}" if self.unit else f"{value:.3f}"


def si_sdr(reference: Sound, estimate: Sound) -> float:
    """Scale-invariant signal-to-distortion ratio in dB, means removed (Le Roux et al. 2019).

    Limited to ±100 dB: a perfect estimate has 100, a silent one -100. nan for a silent reference.
    """
    target, guess = _pair(reference, estimate)
    target, guess = target - target.mean(), guess - guess.mean()
    energy = float(target @ target)
    if energy == 0:
        return math.nan
    share = float(guess @ target) / energy * target
    signal, error = float(share.square().sum()), float((guess - share).square().sum())
    if signal == 0:
        return -SI_SDR_LIMIT
    if error == 0:
        return SI_SDR_LIMIT
    ratio = 10 * (math.log10(signal) - math.log10(error))
    return max(-SI_SDR_LIMIT, min(SI_SDR_LIMIT, ratio))


def mr_stft(reference: Sound, estimate: Sound, rate: int) -> float:
    """Multi-resolution STFT distance (Yamamoto et al. 2020, Parallel WaveGAN); 0 for equal sounds.

    The mean over RESOLUTIONS of the spectral convergence, |S - S'| / |S| with Frobenius norms of
    magnitudes, plus the mean absolute difference of their natural logarithms. Windows are counted
    in samples, so that figures compare at one rate only. nan for a silent reference.
    """
    target, guess = _pair(reference, estimate)
    if not target.any():
        return math.nan
    both = torch.stack((target, guess))
    both = torch.nn.functional.pad(both, (0, max(0, RESOLUTIONS[-1][0] - both.shape[1])))
    total = 0.0
    for fft, hop, window in RESOLUTIONS:
        shape = torch.hann_window(window, dtype=both.dtype)
        spectra = torch.stft(both, fft, hop, window, shape, return_complex=True)
        true, ours = spectra.abs().square().clamp(min=POWER_FLOOR).sqrt()
        total += float((true - ours).norm() / true.norm() + (true.log() - ours.log()).abs().mean())
    return total / len(RESOLUTIONS)


def estoi(reference: Sound, estimate: Sound, rate: int) -> float:
    """Extended short-time objective intelligibility (Jensen and Taal 2016), up to 1, by pystoi.

    nan for a reference that is silent or has less than 0.4 s of sound. Raises TaskError without
    the package.
    """
    target, guess = _speech(reference, estimate, rate)
    stoi = _package("pystoi").stoi
    if not target.any():
        return math.nan
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        try:
            return float(stoi(target, guess, SPEECH_RATE, extended=True))
        except (RuntimeWarning, ValueError):  # pystoi's answer to too little sound
            return math.nan


def pesq_wb(reference: Sound, estimate: Sound, rate: int) -> float:
    """Wide-band PESQ (ITU-T P.862.2), 1.02 to 4.64, by the package pesq.

    Beyond 20 s the mean over equal pieces of at most 20 s that hold speech. nan where no utterance
    is found, and for less than 0.25 s. Raises TaskError without the package.
    """
    target, guess = _speech(reference, estimate, rate)
    pesq = _package("pesq")
    count = math.ceil(len(target) / PESQ_LONGEST)
    scores = []
    for true, ours in zip(np.array_split(target, count), np.array_split(guess, count), strict=True):
        if len(true) < PESQ_SHORTEST or not true.any() or not ours.any():
            continue
        with contextlib.suppress(pesq.NoUtterancesError, pesq.BufferTooShortError):
            scores.append(float(pesq.pesq(SPEECH_RATE, true, ours, "wb")))
    return sum(scores) / len(scores) if scores else math.nan


METRICS: dict[str, Metric] = {
    "pesq": Metric("PESQ-WB", "", True, pesq_wb, package="pesq"),
    "estoi": Metric("ESTOI", "", True, estoi, package="pystoi"),
    "si_sdr": Metric("SI-SDR", "dB", True, lambda ref, est, rate: si_sdr(ref, est)),
    "mr_stft": Metric("MR-STFT", "", False, mr_stft),
}


def available() -> tuple[str, ...]:
    """The keys of METRICS that can be computed with what is installed."""
    return tuple(
        key
        for key, metric in METRICS.items()
        if not metric.package or importlib.util.find_spec(metric.package)
    )


def _package(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        compiler = ", with a C compiler installed" if name == "pesq" else ""
        raise TaskError(
            f"the package {name} is not installed",
            f'pip install "wavediff[eval]"{compiler}',
        ) from error


def _pair(reference: Sound, estimate: Sound) -> tuple[Tensor, Tensor]:
    """Both as float64 on the CPU."""
    sounds = [torch.as_tensor(sound).detach().cpu().double() for sound in (reference, estimate)]
    shapes = [tuple(sound.shape) for sound in sounds]
    if shapes[0] != shapes[1] or len(shapes[0]) != 1 or shapes[0] == (0,):
        raise AudioError(
            f"a reference of shape {shapes[0]} and an estimate of shape {shapes[1]}",
            "give two sounds of one length, (samples,) each",
        )
    if not all(bool(sound.isfinite().all()) for sound in sounds):
        raise AudioError("there are NaN or infinite samples to compare", "repair them first")
    return sounds[0], sounds[1]


def _speech(reference: Sound, estimate: Sound, rate: int) -> tuple[np.ndarray, np.ndarray]:
    """Both as arrays at SPEECH_RATE."""
    target, guess = _pair(reference, estimate)
    if rate != SPEECH_RATE:
        target, guess = resample(torch.stack((target, guess)), rate, SPEECH_RATE)
    return target.numpy(), guess.numpy()
