"""What the world does to a sound: rooms, noise, filters, levels, clipping.

Every function takes its randomness from a numpy generator, so that a batch is a pure function of
its seed, and sounds as (samples,) or (batch, samples) float32 tensors.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def change_speed(sound: Tensor, samples: int) -> Tensor:
    """Resample (n,) to (samples,) in the frequency domain, pitch and all.

    The ends wrap around; cut from a crop somewhat longer than needed.
    """
    spectrum = torch.fft.rfft(sound)
    bins = samples // 2 + 1
    if bins <= spectrum.shape[-1]:
        spectrum = spectrum[..., :bins]
    else:
        spectrum = F.pad(spectrum, (0, bins - spectrum.shape[-1]))
    return torch.fft.irfft(spectrum, samples) * (samples / sound.shape[-1])


def equaliser(rng: np.random.Generator, bins: int, depth: float) -> Tensor:
    """A gentle random response (bins,): a tilt and two broad bells, up to `depth` dB in all."""
    octave = np.log2(np.arange(bins) / bins * 64 + 1) / np.log2(65)  # 0 to 1, hearing's scale
    gain = rng.uniform(-1, 1) * depth * (octave - 0.5)
    for _ in range(2):
        centre, width = rng.uniform(0, 1), rng.uniform(0.1, 0.4)
        gain = gain + rng.uniform(-1, 1) * depth / 2 * np.exp(-(((octave - centre) / width) ** 2))
    return torch.from_numpy(10 ** (gain / 20)).to(torch.float32)


def apply_response(sound: Tensor, response: Tensor) -> Tensor:
    """Zero-phase filter (…, samples) by a response (…, samples // 2 + 1)."""
    return torch.fft.irfft(torch.fft.rfft(sound) * response, sound.shape[-1])


def low_pass(bins: int, rate: int, cutoff: float) -> Tensor:
    """A response (bins,) that falls from 1 to 0 over the tenth above `cutoff` Hz."""
    frequency = torch.linspace(0, rate / 2, bins)
    return ((1.1 * cutoff - frequency) / (0.1 * cutoff)).clamp(0, 1)


def convolve(sound: Tensor, response: Tensor) -> Tensor:
    """(…, samples) through room responses (…, taps), cut to the sound's length."""
    length = sound.shape[-1] + response.shape[-1] - 1
    size = 1 << (length - 1).bit_length()
    product = torch.fft.rfft(sound, size) * torch.fft.rfft(response, size)
    return torch.fft.irfft(product, size)[..., : sound.shape[-1]]


def simulate_room(rng: np.random.Generator, rate: int) -> Tensor:
    """A room response (taps,): direct sound, a score of early reflections, a decaying tail.

    A statistical model (Polack 1988): the tail is Gaussian noise that decays by 60 dB in 0.15 to
    1.1 s, faster at high frequencies.
    """
    decay = math.exp(rng.uniform(math.log(0.15), math.log(1.1)))
    taps = int(rate * min(decay, 0.8))
    time = np.arange(taps) / rate
    tail = rng.standard_normal(taps)
    dull = np.convolve(tail, np.ones(4) / 2, "same")
    share = np.exp(-time / (0.25 * decay))
    tail = (share * tail + (1 - share) * dull) * np.exp(-6.9 * time / decay)
    tail *= 1 - np.exp(-time / 0.01)  # the tail builds up
    response = tail / np.sqrt((tail**2).sum())
    early = np.zeros(taps)
    count = int(rng.integers(6, 30))
    arrivals = (rng.uniform(0.001, 0.05, count) * rate).astype(int)
    early[arrivals % taps] += rng.choice([-1, 1], count) * np.exp(-arrivals / rate / 0.03)
    response += early / np.sqrt((early**2).sum() + 1e-9) * 10 ** (rng.uniform(-6, 3) / 20)
    direct_to_rest = 10 ** (rng.uniform(-3, 15) / 20)
    response *= 1 / (np.sqrt((response**2).sum()) * direct_to_rest)
    response[0] += 1
    return torch.from_numpy(response).to(torch.float32)


def early_part(response: Tensor, rate: int) -> Tensor:
    """The part of a room response (…, taps) that a listener takes for the voice itself: the
    direct sound and 30 ms more, faded out over another 30 ms."""
    peak = response.abs().argmax(-1, keepdim=True)
    since = (torch.arange(response.shape[-1]) - peak) / rate
    return response * ((0.06 - since) / 0.03).clamp(0, 1)


def coloured_noise(rng: np.random.Generator, samples: int) -> Tensor:
    """Gaussian noise whose power falls or rises by up to 9 dB an octave, with broad bells."""
    bins = samples // 2 + 1
    white = rng.standard_normal(bins) + 1j * rng.standard_normal(bins)
    slope = rng.uniform(-1.5, 0.5)
    shape = (np.arange(bins) / bins + 0.003) ** slope * equaliser(rng, bins, 12).numpy()
    return torch.from_numpy(np.fft.irfft(white * shape, samples)).to(torch.float32)


def hum(rng: np.random.Generator, samples: int, rate: int) -> Tensor:
    """Mains hum or a machine's tone: a steady fundamental and its harmonics."""
    base = rng.choice([50.0, 60.0, rng.uniform(70, 900)])
    count = int(rng.integers(2, 20))
    time = torch.arange(samples) / rate
    sound = torch.zeros(samples)
    for harmonic in range(1, count + 1):
        if base * harmonic < 0.45 * rate:
            strength = 10 ** (-rng.uniform(0.2, 1.5) * harmonic / 10) * rng.uniform(0.2, 1)
            phase = rng.uniform(0, 2 * math.pi)
            sound += strength * torch.sin(2 * math.pi * base * harmonic * time + phase)
    return sound


def modulate(rng: np.random.Generator, sound: Tensor, rate: int) -> Tensor:
    """Let the level of (samples,) wander, by up to 20 dB, several times a second or slower."""
    knots = max(4, int(sound.shape[-1] / rate * rng.uniform(0.5, 8)))
    levels = torch.from_numpy(rng.uniform(-20, 0, knots)).to(torch.float32)
    curve = F.interpolate(levels[None, None], sound.shape[-1], mode="linear")[0, 0]
    return sound * 10 ** (curve / 20)


def clip_peaks(sound: Tensor, share: float) -> Tensor:
    """Cut off the loudest `share` of the samples of (samples,)."""
    limit = sound.abs().quantile(1 - share)
    return sound.clamp(-limit, limit)


def active_level(sound: Tensor, rate: int) -> Tensor:
    """RMS of the 20 ms frames of (…, samples) within 30 dB of the loudest one; (…,)."""
    frame = rate // 50
    frames = sound[..., : sound.shape[-1] // frame * frame].unflatten(-1, (-1, frame))
    power = frames.pow(2).mean(-1)
    active = power > 1e-3 * power.amax(-1, keepdim=True)
    return ((power * active).sum(-1) / active.sum(-1).clamp(min=1)).sqrt()
