"""Metrics: known answers, order under rising noise, and what is not defined."""

import importlib.util
import math
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff import metrics
from wavediff.errors import AudioError, TaskError
from wavediff.metrics import METRICS, available, estoi, mr_stft, pesq_wb, si_sdr
from wavediff.resample import resample

RATE = 16000


def needs(package: str) -> pytest.MarkDecorator:
    absent = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(absent, reason=f"{package} is not installed")


def noise(samples: int, seed: int = 0) -> Tensor:
    return torch.randn(samples, generator=torch.Generator().manual_seed(seed))


def voice(seconds: float = 3.0, rate: int = RATE) -> Tensor:
    """Syllables of a gliding harmonic tone: enough like speech for PESQ and ESTOI."""
    t = torch.arange(int(seconds * rate)) / rate
    phase = 2 * math.pi * (140 * t + 8 * torch.sin(2 * math.pi * 0.7 * t))
    tone = sum(torch.sin(k * phase) / k for k in range(1, 20))
    syllables = torch.sin(2 * math.pi * 1.6 * t).clamp(min=0) * (1 + 0.5 * torch.sin(9 * t))
    return 0.1 * tone * syllables


def in_noise(clean: Tensor, snr_db: float, seed: int = 1) -> Tensor:
    other = noise(len(clean), seed)
    return clean + other * clean.norm() / other.norm() * 10 ** (-snr_db / 20)


@settings(max_examples=30, deadline=None)
@given(ratio=st.floats(-60, 80), seed=st.integers(0, 1000))
def test_si_sdr_of_orthogonal_noise_is_its_ratio(ratio: float, seed: int) -> None:
    reference, other = noise(4000, seed).double(), noise(4000, seed + 1).double()
    reference, other = reference - reference.mean(), other - other.mean()
    other -= (other @ reference) / (reference @ reference) * reference
    other *= reference.norm() / other.norm() * 10 ** (-ratio / 20)
    assert si_sdr(reference, reference + other) == pytest.approx(ratio, abs=1e-6)


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3),
    sign=st.sampled_from([-1, 1]),
    offset=st.floats(-1, 1),
)
def test_si_sdr_sees_neither_scale_nor_offset(scale: float, sign: int, offset: float) -> None:
    reference = noise(2000).double()
    estimate = in_noise(reference, 7.0)
    moved = sign * scale * (estimate + offset)
    assert si_sdr(reference, moved) == pytest.approx(si_sdr(reference, estimate), abs=1e-6)
    assert si_sdr(scale * reference, estimate) == pytest.approx(
        si_sdr(reference, estimate), abs=1e-6
    )


def test_si_sdr_ends_at_100_db_both_ways() -> None:
    reference = noise(1000)
    assert si_sdr(reference, reference) == 100
    assert si_sdr(reference, torch.zeros(1000)) == -100
    orthogonal = torch.tensor([1.0, -1.0, 1.0, -1.0])
    assert si_sdr(torch.tensor([1.0, 1.0, -1.0, -1.0]), orthogonal) == -100


def test_mr_stft_is_the_published_formula() -> None:
    """Against numpy frame by frame: centred, reflected, a Hann window in the middle."""
    reference, estimate = noise(4000).double(), noise(4000, 1).double() * 0.3
    expected = 0.0
    for fft, hop, window in ((512, 50, 240), (1024, 120, 600), (2048, 240, 1200)):
        shape = np.zeros(fft)
        shape[(fft - window) // 2 :][:window] = np.hanning(window + 1)[:-1]
        spectra = []
        for sound in (reference, estimate):
            padded = np.pad(sound.numpy(), fft // 2, mode="reflect")
            starts = range(0, len(padded) - fft + 1, hop)
            frames = np.stack([padded[start : start + fft] * shape for start in starts])
            spectra.append(np.sqrt(np.maximum(np.abs(np.fft.rfft(frames)) ** 2, 1e-8)))
        true, ours = spectra
        expected += float(np.linalg.norm(true - ours) / np.linalg.norm(true))
        expected += float(np.abs(np.log(true) - np.log(ours)).mean())
    assert mr_stft(reference, estimate, RATE) == pytest.approx(expected / 3, rel=1e-9)


def test_mr_stft_ignores_a_sign_and_rises_with_noise() -> None:
    clean = voice(1.0)
    assert mr_stft(clean, clean, RATE) == 0
    assert mr_stft(clean, -clean, RATE) == 0
    rising = [mr_stft(clean, in_noise(clean, snr), RATE) for snr in (40, 20, 10, 0, -10)]
    assert rising == sorted(rising)
    assert rising[0] > 0


@settings(max_examples=15, deadline=None)
@given(samples=st.integers(1, 3000), gain=st.floats(0.1, 10))
def test_mr_stft_of_a_gain_is_its_size_in_both_terms(samples: int, gain: float) -> None:
    """|1 - g| and |ln g|, at any length: where the logarithm's floor is out of reach."""
    reference = 1000 * noise(samples, samples).double()
    distance = mr_stft(reference, gain * reference, RATE)
    assert distance <= abs(1 - gain) + abs(math.log(gain)) + 1e-9
    if samples >= 2048:
        assert distance == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-2)


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=needs(metric.package or "torch")) for key, metric in METRICS.items()],
)
def test_more_noise_is_worse(key: str) -> None:
    metric, clean = METRICS[key], voice()
    scores = [metric.function(clean, in_noise(clean, snr), RATE) for snr in (30, 15, 5, -5)]
    assert scores == sorted(scores, reverse=metric.higher_is_better)
    assert abs(scores[0] - scores[-1]) > 0.3
    best = metric.function(clean, clean, RATE)
    assert best > scores[0] if metric.higher_is_better else best < scores[0]


@pytest.mark.parametrize(
    "key", [pytest.param("estoi", marks=needs("pystoi")), pytest.param("pesq", marks=needs("pesq"))]
)
def test_speech_metrics_hardly_depend_on_the_rate(key: str) -> None:
    clean, function = voice(), METRICS[key].function
    noisy = in_noise(clean, 10)
    at_48k = function(resample(clean, RATE, 48000), resample(noisy, RATE, 48000), 48000)
    assert at_48k == pytest.approx(function(clean, noisy, RATE), abs=0.08)


@pytest.mark.parametrize(
    "key",
    [pytest.param(key, marks=needs(metric.package or "torch")) for key, metric in METRICS.items()],
)
def test_tensors_and_arrays_score_alike_and_a_silent_reference_is_not_defined(key: str) -> None:
    function, clean = METRICS[key].function, voice()
    noisy = in_noise(clean, 10)
    assert function(clean, noisy, RATE) == pytest.approx(
        function(clean.numpy(), noisy.double().numpy(), RATE), abs=1e-6
    )
    assert math.isnan(function(torch.zeros(RATE), noisy[:RATE], RATE))


@needs("pystoi")
def test_estoi_of_too_little_sound_is_not_defined() -> None:
    clean = voice()[4000:]
    assert math.isnan(estoi(clean[:5000], clean[:5000], RATE))
    assert math.isnan(estoi(clean[:10], clean[:10], RATE))
    assert estoi(clean, clean, RATE) == pytest.approx(1, abs=1e-6)


@needs("pesq")
def test_pesq_of_a_long_file_is_the_mean_of_its_pieces() -> None:
    """50 syllables and more in one call overflow the package and kill the process."""
    t = torch.arange(45 * RATE) / RATE
    clean = 0.3 * noise(len(t)) * (t % 0.42 < 0.21)
    noisy = in_noise(clean, 10)
    pieces = zip(clean.split(15 * RATE), noisy.split(15 * RATE), strict=True)
    expected = [pesq_wb(true, ours, RATE) for true, ours in pieces]
    assert pesq_wb(clean, noisy, RATE) == pytest.approx(np.mean(expected), abs=1e-9)
    half = torch.cat((clean[: 15 * RATE], torch.zeros(15 * RATE)))
    assert pesq_wb(half, in_noise(half, 10), RATE) > 1


@needs("pesq")
def test_pesq_of_too_little_or_no_estimate_is_not_defined() -> None:
    clean = voice()
    assert math.isnan(pesq_wb(clean[:3000], clean[:3000], RATE))
    assert math.isnan(pesq_wb(clean, torch.zeros_like(clean), RATE))


@pytest.mark.parametrize("key", ["si_sdr", "mr_stft"])
def test_what_is_no_pair_is_refused(key: str) -> None:
    function, sound = METRICS[key].function, noise(100)
    broken = sound.clone()
    broken[7] = math.nan
    for reference, estimate in (
        (sound, sound[:99]),
        (sound[None], sound[None]),
        (sound[:0], sound[:0]),
        (sound, broken),
        (broken, sound),
    ):
        with pytest.raises(AudioError) as refused:
            function(reference, estimate, RATE)
        assert refused.value.hint


def test_a_missing_package_is_said_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "pesq", None)
    monkeypatch.setitem(sys.modules, "pystoi", None)
    for function in (estoi, pesq_wb):
        with pytest.raises(TaskError) as refused:
            function(voice(1.0), voice(1.0), RATE)
        assert 'pip install "wavediff[eval]"' in refused.value.hint
    monkeypatch.setattr(metrics.importlib.util, "find_spec", lambda name: None)
    assert available() == ("si_sdr", "mr_stft")
