"""The recording's own band out of a sound denoised at a lower rate."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.fullband import FullBand
from wavediff.resample import resampled

MODEL = 16_000
RATES = [8000, 11_025, 16_000, 44_100, 48_000]


def sound(samples: int, channels: int = 2) -> Tensor:
    """White noise whose level changes."""
    generator = torch.Generator().manual_seed(samples)
    swell = 0.05 + torch.sin(torch.arange(samples) / 3000).square()
    return 0.2 * swell * torch.randn(channels, samples, generator=generator)


def fullband(audio: Tensor, rate: int, factor: float, dry: float = 0.0) -> FullBand:
    """A recording after a model that multiplies everything by `factor`."""
    source = ArraySource(audio, rate)
    observed = resampled(source, MODEL)
    denoised = ArraySource(factor * observed.read(0, observed.samples), MODEL)
    return FullBand(source, observed, denoised, dry)


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("samples", [1, 2, 255, 20_011])
def test_a_model_that_changes_nothing_gives_the_recording_back(rate: int, samples: int) -> None:
    audio = sound(samples)
    back = fullband(audio, rate, 1.0).read(0, samples)
    torch.testing.assert_close(back, audio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", RATES)
def test_a_model_that_leaves_silence_leaves_nothing(rate: int) -> None:
    assert fullband(sound(20_011), rate, 0.0).read(0, 20_011).abs().max() < 1e-5


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("factor", [0.5, 0.7])
def test_the_band_above_is_taken_down_with_the_band_below(rate: int, factor: float) -> None:
    audio = sound(20_011)
    less = fullband(audio, rate, factor).read(0, 20_011)
    torch.testing.assert_close(less, factor * audio, rtol=0, atol=1e-4)


@pytest.mark.parametrize("rate", [24_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("factor", [0.1, 0.01])
def test_what_the_model_takes_for_noise_is_taken_down_as_far(rate: int, factor: float) -> None:
    audio = sound(rate // 2)
    less = fullband(audio, rate, factor).read(0, rate // 2)
    share = float(upper(less, rate).square().mean() / upper(audio, rate).square().mean())
    assert share < 2 * factor**2


def upper(audio: Tensor, rate: int) -> Tensor:
    """What lies above 8.2 kHz, (channels, samples)."""
    spectrum = torch.fft.rfft(audio)
    spectrum[:, : int(8200 / rate * audio.shape[1])] = 0
    return torch.fft.irfft(spectrum, audio.shape[1])


def test_the_band_above_is_never_raised() -> None:
    rate, audio = 48_000, sound(20_000, 1)
    loud = fullband(audio, rate, 3.0).read(0, 20_000)
    window = torch.hann_window(20_000)
    before, after = (torch.fft.rfft(x * window)[0, 9 * 20_000 // 48 :] for x in (audio, loud))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-3 * float(before.abs().mean()))


def test_suppression_follows_time() -> None:
    """Silenced in its second half, the recording is untouched before and gone after."""
    rate, samples = 48_000, 48_000
    loud = 10 ** (-2.0 * (torch.arange(samples) >= samples // 2))
    source = ArraySource(loud * (sound(samples, 1) + 0.01), rate)
    observed = resampled(source, MODEL)
    gate = (torch.arange(MODEL) < MODEL // 2).float()
    denoised = ArraySource(gate * observed.read(0, MODEL), MODEL)
    out = FullBand(source, observed, denoised, 0.0).read(0, samples)
    near = 3 * 3 * 256  # three frames of the model, at 48 kHz
    kept, gone = slice(0, samples // 2 - near), slice(samples // 2 + near, None)
    torch.testing.assert_close(out[:, kept], source.audio[:, kept], rtol=0, atol=2e-3)
    assert out[:, gone].abs().max() < 2e-3


def test_suppression_does_not_flutter_from_frame_to_frame() -> None:
    """A drop-out of one frame in the band below is no hole in the band above."""
    rate, samples = 48_000, 24_000
    generator = torch.Generator().manual_seed(0)
    source = ArraySource(0.1 * torch.randn(1, samples, generator=generator), rate)
    observed = resampled(source, MODEL)
    audio = observed.read(0, observed.samples)
    audio[:, 16 * 256 - 256 : 16 * 256 + 256] = 0
    out = FullBand(source, observed, ArraySource(audio, MODEL), 0.0).read(0, samples)
    hole = slice(3 * (16 * 256 - 40), 3 * (16 * 256 + 40))
    above = source.audio - resampled(observed, rate).read(0, samples)
    left = out[:, hole].square().sum() / above[:, hole].square().sum()
    assert 0.1 < float(left) < 0.7


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("dry", [0.0, 0.25])
def test_blocks_are_the_whole(rate: int, dry: float) -> None:
    samples = 12_011
    source = fullband(sound(samples), rate, 0.3, dry)
    whole = ArraySource(source.read(0, samples), rate)

    @settings(max_examples=15, deadline=None)
    @given(st.integers(-500, samples + 500), st.integers(-5, 5000))
    def check(start: int, length: int) -> None:
        expected = whole.read(start, start + length)
        got = source.read(start, start + length)
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)

    check()


@pytest.mark.parametrize("rate", RATES)
def test_all_dry_is_the_recording_itself(rate: int) -> None:
    audio = sound(5000)
    assert torch.equal(fullband(audio, rate, 0.0, dry=1.0).read(0, 5000), audio)


@pytest.mark.parametrize("dry", [0.1, 0.7])
def test_dry_is_the_share_of_the_recording(dry: float) -> None:
    audio = sound(5000)
    out = fullband(audio, 48_000, 0.0, dry).read(0, 5000)
    torch.testing.assert_close(out, dry * audio, rtol=0, atol=1e-5)


def test_a_long_read_asks_for_the_denoised_sound_once() -> None:
    """A model is slow: what it answers is read in rising order, with small overlaps only."""
    rate, model = 300, 100  # low, so that minutes are few samples
    source = ArraySource(sound(120 * rate), rate)
    observed = resampled(source, model)
    asked: list[tuple[int, int]] = []

    class Noted(ArraySource):
        def read(self, start: int, stop: int) -> Tensor:
            asked.append((start, stop))
            return super().read(start, stop)

    denoised = Noted(observed.read(0, observed.samples), model)
    FullBand(source, observed, denoised, 0.0).read(0, source.samples)
    reached = 0
    for start, stop in asked:
        assert start >= reached - 5 * model - 5 * 256
        reached = max(reached, stop)
    assert reached >= denoised.samples
