"""Denoising from end to end, with denoisers whose answer is known."""

import math

import pytest
import torch
from torch import Tensor, nn

from wavediff.audio import ArraySource
from wavediff.denoiser import Denoiser
from wavediff.errors import TaskError
from wavediff.level import LEVEL, gain, gated_rms
from wavediff.network import NetworkConfig
from wavediff.path import Bridge
from wavediff.recipe import Recipe
from wavediff.samplers import SAMPLERS, Walk
from wavediff.tasks import DenoiseSettings, build, denoise

RATE = 16_000
CPU = torch.device("cpu")
TINY = NetworkConfig(window=64, hop=32, bands=4, channels=8, layers=2, cycle=2, mixing=2, summary=4)


class Times(nn.Module):
    """A network that answers with the observation, multiplied."""

    receptive_field, hop = 0, 32

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor, self.heard = factor, list[Tensor]()

    def forward(self, x: Tensor, y: Tensor, time: Tensor) -> Tensor:
        self.heard.append(y)
        return self.factor * y


def times(factor: float) -> Denoiser:
    return Denoiser(Times(factor), Bridge(0.03))  # type: ignore[arg-type]


def sound(samples: int, channels: int = 2, level: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(samples)
    return level * torch.randn(channels, samples, generator=generator)


def cleaned(
    audio: Tensor, denoiser: Denoiser, settings: DenoiseSettings | None = None, rate: int = RATE
) -> Tensor:
    source = denoise(ArraySource(audio, rate), denoiser, RATE, settings or DenoiseSettings(), CPU)
    assert (source.rate, source.channels, source.samples) == (rate, *audio.shape)
    return source.read(0, source.samples)


@pytest.mark.parametrize("rate", [8000, 16_000, 44_100, 48_000])
@pytest.mark.parametrize("steps", [1, 2])
@pytest.mark.parametrize("samples", [1, 50, 7013])
def test_a_model_that_changes_nothing(samples: int, steps: int, rate: int) -> None:
    audio = sound(samples) + 0.01
    back = cleaned(audio, times(1.0), DenoiseSettings(steps), rate)
    torch.testing.assert_close(back, audio, rtol=0, atol=1e-5)


@pytest.mark.parametrize("level", [1e-4, 0.1, 5.0])
def test_the_network_hears_every_recording_at_its_own_level(level: float) -> None:
    model = times(1.0)
    cleaned(sound(4000, level=level), model, DenoiseSettings(spins=1))
    heard = torch.cat(model.network.heard)  # type: ignore[arg-type]
    assert float(heard.square().mean().sqrt()) == pytest.approx(LEVEL, rel=0.02)


def test_silence_is_not_raised() -> None:
    assert math.isfinite(gain(0.0))
    silent = cleaned(torch.zeros(2, 5000), build(Recipe(network=TINY)))
    assert torch.equal(silent, torch.zeros(2, 5000))


@pytest.mark.parametrize("factor", [10.0, 1e-3])
def test_a_louder_recording_is_denoised_the_same_and_louder(factor: float) -> None:
    torch.manual_seed(0)
    model, audio = build(Recipe(network=TINY)).requires_grad_(False), sound(5000)
    for settings in (DenoiseSettings(1), DenoiseSettings(4)):
        quiet, loud = cleaned(audio, model, settings), cleaned(factor * audio, model, settings)
        assert (quiet - audio).abs().max() > 0.01
        torch.testing.assert_close(loud / factor, quiet, rtol=0, atol=2e-6)


@pytest.mark.parametrize("mix", [0.0, 0.3, 1.0])
def test_mix_is_the_share_of_the_denoised_sound(mix: float) -> None:
    audio = sound(5000)
    out = cleaned(audio, times(0.5), DenoiseSettings(mix=mix))
    torch.testing.assert_close(out, (1 - mix) * audio + mix * 0.5 * audio, rtol=0, atol=1e-6)
    if mix == 0:
        assert torch.equal(out, audio)


@pytest.mark.parametrize("decibels", [0.0, 6.0, 20.0, 200.0])
def test_nothing_is_taken_down_further_than_the_greatest_attenuation(decibels: float) -> None:
    audio = sound(5000)
    out = cleaned(audio, times(0.0), DenoiseSettings(max_attenuation=decibels))
    torch.testing.assert_close(out, 10 ** (-decibels / 20) * audio, rtol=0, atol=1e-6)


def test_the_greater_share_of_the_recording_wins() -> None:
    assert DenoiseSettings(mix=0.5, max_attenuation=20).dry == pytest.approx(0.5)
    assert DenoiseSettings(mix=0.95, max_attenuation=20).dry == pytest.approx(0.1)
    assert DenoiseSettings(max_attenuation=math.inf).dry == 0
    assert DenoiseSettings().dry == 0


def test_the_sampler_asks_as_often_as_there_are_steps() -> None:
    assert DenoiseSettings(8).walk == Walk("ddim", 8)
    assert DenoiseSettings(8, sampler="ancestral").walk == Walk("ancestral", 8)
    model = times(1.0)
    cleaned(sound(100, 1), model, DenoiseSettings(5, spins=3))
    assert len(model.network.heard) == 15  # type: ignore[arg-type]


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
@pytest.mark.parametrize("rate", [RATE, 44_100])
def test_blocks_are_the_whole(sampler: str, rate: int) -> None:
    torch.manual_seed(0)
    model, audio = build(Recipe(network=TINY)).requires_grad_(False), sound(rate, 2)
    whole, blocks = (
        cleaned(audio, model, DenoiseSettings(2, sampler, block_seconds=seconds), rate)
        for seconds in (30, 0.21)
    )
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-5)


def test_the_level_of_a_recording_comes_back() -> None:
    audio = sound(20_000, level=0.002)
    out = cleaned(audio, times(1.0), rate=48_000)
    before, after = (gated_rms(ArraySource(x, 48_000)) for x in (audio, out))
    assert after == pytest.approx(before, rel=1e-4)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 0}, "0 steps"),
        ({"steps": -3}, "-3 steps"),
        ({"mix": 1.1}, "mix of 1.1"),
        ({"mix": -0.1}, "mix of -0.1"),
        ({"mix": math.nan}, "mix of nan"),
        ({"max_attenuation": -1.0}, "-1.0 dB"),
        ({"max_attenuation": math.nan}, "nan dB"),
        ({"sampler": "euler"}, "no sampler is called euler"),
        ({"spins": 0}, "0 spins are not possible"),
        ({"spins": 17}, "17 spins are not possible"),
        *(({"sampler": name}, "is for diffusions") for name in SAMPLERS if "2" in name),
        ({"sampler": "heun"}, "is for diffusions"),
    ],
)
def test_what_is_not_possible_is_refused_with_a_hint(wrong: dict, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        DenoiseSettings(**wrong)
    assert caught.value.hint
