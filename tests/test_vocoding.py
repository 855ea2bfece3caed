"""Vocoding: blocks are the whole, levels and frames come out where they were."""

import itertools
import math
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.denoiser import Denoiser
from wavediff.errors import MelError, TaskError
from wavediff.mel import PRESETS, MelOf, MelPreset, compress, magnitudes, mel
from wavediff.model import Model
from wavediff.network import MASK_UNIT
from wavediff.recipe import Recipe
from wavediff.tasks import build
from wavediff.vocoding import (
    ArrayMels,
    Start,
    VocodeSettings,
    framed,
    lead,
    padding,
    rms,
    transform_of,
)

CPU = torch.device("cpu")
NARROW, HIFIGAN, TACOTRON = PRESETS["narrow8k"], PRESETS["hifigan"], PRESETS["tacotron2"]
SMALL = {"bands": 4, "channels": 8, "layers": 2, "cycle": 2, "mixing": 2, "summary": 4}
ITERATIONS = 4


@lru_cache
def denoiser(preset: MelPreset, loud: bool = True) -> Denoiser:
    """A small network: random, so that the far end of its reach can be heard, or untrained."""
    torch.manual_seed(1)
    network = {**SMALL, "window": 4 * preset.hop, "hop": preset.hop}
    made = build(recipe(preset, network))
    assert isinstance(made, Denoiser)
    for name, parameter in made.named_parameters():
        if loud:
            wide = "leave" in name
            torch.nn.init.normal_(parameter, std=0.1 / MASK_UNIT if wide else 0.3)
    return made.eval().requires_grad_(False)


def recipe(preset: MelPreset, network: dict[str, Any]) -> Recipe:
    settings = {"iterations": ITERATIONS, "passes": 2}
    return Recipe.model_validate(
        {
            "task": "vocode",
            "rate": preset.rate,
            "mel": preset.name,
            "network": network,
            "vocode": settings,
        }
    )


def model(preset: MelPreset, loud: bool = True) -> Model:
    network = {**SMALL, "window": 4 * preset.hop, "hop": preset.hop}
    return Model("tiny", recipe(preset, network), {}, denoiser(preset, loud), CPU)


def sound(samples: int, rate: int, channels: int = 1, top: float = math.inf) -> Tensor:
    """Bursts of noise, with nothing above `top` Hz."""
    generator = torch.Generator().manual_seed(samples)
    spectrum = torch.fft.rfft(torch.randn(channels, samples, generator=generator))
    spectrum[:, torch.fft.rfftfreq(samples, 1 / rate) > top] = 0
    bursts = torch.sin(torch.arange(samples) / rate * 5).abs()
    return 0.1 * bursts * torch.fft.irfft(spectrum, samples)


def tones(samples: int, rate: int) -> Tensor:
    time = torch.arange(samples) / rate
    return sum(
        (0.05 * torch.sin(math.tau * pitch * time + pitch) for pitch in (317, 700, 1500, 2600)),
        torch.zeros(1, samples),
    )


def vocoded(
    values: Tensor, preset: MelPreset = NARROW, loud: bool = True, **settings: Any
) -> Tensor:
    mels = ArrayMels(values, preset)
    source = model(preset, loud).vocode_source(mels, VocodeSettings(**settings))
    assert (source.rate, source.samples) == (preset.rate, preset.samples(values.shape[-1]))
    return source.read(0, source.samples)


def through(
    audio: Tensor, rate: int, preset: MelPreset = NARROW, loud: bool = True, **settings: Any
) -> Tensor:
    """A sound by way of its mel."""
    given = ArraySource(audio, rate)
    source = model(preset, loud).resynthesise_source(given, VocodeSettings(**settings))
    assert (source.rate, source.channels, source.samples) == (rate, *audio.shape)
    return source.read(0, source.samples)


def level(audio: Tensor) -> float:
    """RMS in dB."""
    return 10 * math.log10(max(float(audio.square().mean()), 1e-20))


HEARD = mel(sound(8000, 8000) + 0.01 * sound(16_000, 8000)[:, :8000], NARROW)  # above the floor


@pytest.mark.parametrize("steps", [1, 2, 4])
@pytest.mark.parametrize(
    ("preset", "seconds", "blocks"), [(NARROW, 7.1, (1, 7)), (TACOTRON, 1.2, (0.5,))]
)
def test_blocks_are_the_whole(
    preset: MelPreset, seconds: float, blocks: tuple[float, ...], steps: int
) -> None:
    values = mel(sound(int(seconds * preset.rate), preset.rate), preset)
    whole = vocoded(values, preset, steps=steps, block_seconds=1e6)
    assert level(whole) > -40
    for block in blocks:
        made = vocoded(values, preset, steps=steps, block_seconds=block)
        torch.testing.assert_close(made, whole, rtol=0, atol=1e-4)


def test_every_call_changes_the_sound() -> None:
    """Else the test above would say little."""
    values = mel(sound(8000, 8000), NARROW)
    begun = Start(ArrayMels(values, NARROW), NARROW, ITERATIONS, 0)
    sounds = [begun.read(lead(NARROW), begun.samples)]
    sounds += [vocoded(values, steps=steps) for steps in (1, 2, 4)]
    for one, other in itertools.pairwise(sounds):
        assert level(other - one) > level(one) - 20
    default = vocoded(values)
    assert torch.equal(default, vocoded(values, steps=model(NARROW).recipe.vocode.steps))


def test_the_start_by_any_ranges_is_the_whole() -> None:
    values = mel(sound(3 * 8000, 8000, 2), NARROW)
    start = Start(ArrayMels(values, NARROW), NARROW, ITERATIONS, 0)
    whole = torch.nn.functional.pad(start.read(0, start.samples), (300, 700))
    assert level(whole) > -40
    for low in range(-300, start.samples, 1777):
        high = min(low + 2100, start.samples + 700)
        part = start.read(low, high)
        torch.testing.assert_close(part, whole[:, low + 300 : high + 300], rtol=0, atol=1e-4)
    assert start.read(start.samples, start.samples + 9).abs().max() == 0


def test_mels_of_any_kind_are_read_by_frames() -> None:
    values = torch.randn(2, 64, 7)
    mels = ArrayMels(values, NARROW)
    assert (mels.channels, mels.frames) == (2, 7)
    expected = torch.cat((values[..., :1],) * 3 + (values,) + (values[..., -1:],) * 2, -1)
    assert torch.equal(mels.read(-3, 9), expected)
    assert torch.equal(mels.read(20, 22), values[..., -1:].expand(2, 64, 2))
    flipped = ArrayMels(values[0].T.contiguous().double().numpy().T, NARROW)
    torch.testing.assert_close(flipped.read(0, 7), values[:1])


@pytest.mark.parametrize("preset", [HIFIGAN, TACOTRON], ids=lambda preset: preset.name)
@pytest.mark.parametrize("iterations", [0, 8])
def test_the_starts_frames_are_those_of_the_mel(preset: MelPreset, iterations: int) -> None:
    """Its mel is the given one, and not that of a hop earlier or later."""
    audio = sound(preset.rate, preset.rate, top=7000)
    audio = (
        audio
        * (torch.rand(22, generator=torch.Generator().manual_seed(1)) < 0.5).float()[
            torch.arange(preset.rate) // 1024 % 22
        ]
    )  # which begins and ends within few frames
    given = mel(audio, preset)
    start = Start(ArrayMels(given, preset), preset, iterations, 0)
    made = start.read(lead(preset), start.samples)

    def distance(shift: int) -> float:
        moved = mel(made.roll(shift, -1), preset)
        return float((moved - given[..., : moved.shape[-1]])[..., 5:-5].abs().mean())

    near = distance(0)
    assert near < 0.85 * min(distance(-preset.hop), distance(preset.hop))
    assert near < min(distance(-preset.hop // 4), distance(preset.hop // 4))


@pytest.mark.parametrize("name", PRESETS)
def test_the_networks_frames_are_those_of_the_mel(name: str) -> None:
    """The mel of frame f is what the network's frame `f + padding` is of."""
    preset = PRESETS[name]
    audio = sound(20 * preset.hop, preset.rate, top=0.8 * preset.high)
    given = mel(audio, preset)
    padded = framed(given, preset)
    time = torch.nn.functional.pad(audio, (lead(preset), 0))
    time = time[:, : lead(preset) + preset.samples(given.shape[-1])]
    transform = transform_of(preset)
    spectrum = transform.analyse(time)
    assert padded.shape[-1] == spectrum.shape[1]
    inner = slice(padding(preset) + 3, -3 - padding(preset))
    power = magnitudes(padded, preset).square().sum(1)[:, inner]
    ours = magnitudes(mel_of(spectrum, preset), preset).square().sum(1)[:, inner]
    torch.testing.assert_close(ours, power, rtol=1e-3, atol=1e-6)


def mel_of(spectrum: Tensor, preset: MelPreset) -> Tensor:
    """The mel of frames of the preset's plain window."""
    from wavediff.mel import filterbank

    factor = math.sqrt(3 / 8 * preset.window) if preset.normalised else 1.0
    return compress((filterbank(preset) @ spectrum.abs().mT) / factor, preset)


@pytest.mark.parametrize("decibels", [20, -10])
def test_a_louder_mel_is_a_louder_sound(decibels: float) -> None:
    whole = vocoded(HEARD)
    louder = vocoded(HEARD + decibels / 20 * math.log(10))
    assert level(louder) == pytest.approx(level(whole) + decibels, abs=0.3)


@pytest.mark.parametrize("decibels", [20, -10])
@pytest.mark.parametrize("steps", [1, 2])
def test_a_louder_mel_is_the_same_sound_and_louder(steps: int, decibels: float) -> None:
    whole = vocoded(HEARD, steps=steps)
    louder = vocoded(HEARD + decibels / 20 * math.log(10), steps=steps)
    assert level(louder / 10 ** (decibels / 20) - whole) < level(whole) - 60


@pytest.mark.parametrize("steps", [1, 2])
def test_an_item_of_a_batch_is_the_item_alone(steps: int) -> None:
    values = torch.cat([mel(k * sound(3000 + k, 8000)[:, :3000], NARROW) for k in (1, 2, 3)])
    tiny, settings = model(NARROW), VocodeSettings(steps)
    together = tiny.vocode(values, settings)
    for item in range(3):
        alone = tiny.vocode(values[item], settings)
        assert isinstance(alone, Tensor)
        assert torch.equal(alone, together[item])
        assert level(alone) > -60


def test_the_python_face_answers_in_kind() -> None:
    tiny, values = model(NARROW), mel(sound(3000, 8000), NARROW)
    expected = tiny.vocode(values[0])
    array = tiny.vocode(values[0].double().numpy())
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    np.testing.assert_allclose(array, expected, atol=1e-6)
    upside_down = values[0].T.contiguous().T  # frames first in memory, as many systems save it
    assert torch.equal(tiny.vocode(upside_down), expected)  # type: ignore[arg-type]
    with pytest.raises(TaskError, match="not to denoise"):
        tiny.denoise(torch.zeros(100), 8000)


def test_the_seed_decides_the_first_phases() -> None:
    values = mel(sound(3000, 8000), NARROW)
    one, again, other = (vocoded(values, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one, again)
    assert (one - other).abs().max() > 1e-3


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100])
@pytest.mark.parametrize("samples", [1, 65, 2001])
def test_any_rate_length_and_channels_come_back(rate: int, samples: int) -> None:
    audio = sound(samples, rate, 2, top=3000) + 0.01
    whole = through(audio, rate, loud=False)
    assert whole.isfinite().all()
    if samples == 2001:
        assert level(whole) == pytest.approx(level(audio), abs=8)
    blocks = through(audio, rate, loud=False, block_seconds=0.1)
    torch.testing.assert_close(blocks, whole, rtol=0, atol=1e-4)


def test_channels_are_resynthesised_one_by_one() -> None:
    audio = sound(6000, 8000, 2)
    audio[1] *= 0.1
    both = through(audio, 8000)
    assert level(both[1]) == pytest.approx(level(both[0]) - 20, abs=3)
    quiet = audio.clone()
    quiet[1] = 0
    assert level(through(quiet, 8000)[1] + 1e-9) < -80


@pytest.mark.parametrize(
    "preset",
    [
        TACOTRON,
        HIFIGAN,
    ],
    ids=lambda preset: preset.name,
)
def test_resynthesis_is_the_vocoded_mel(preset: MelPreset) -> None:
    audio = sound(20 * preset.hop, preset.rate)
    direct = vocoded(mel(audio, preset), preset)
    back = through(audio, preset.rate, preset)
    assert level(back - direct) < level(direct) - 60


@pytest.mark.parametrize("name", PRESETS)
def test_silence_stays_silent(name: str) -> None:
    preset = PRESETS[name]
    silence = torch.full((1, preset.bands, 6), preset.silence)
    for loud in (False, True):
        made = vocoded(silence, preset, loud, steps=2)
        assert made.isfinite().all()
        assert made.abs().max() < 1e-3


def test_the_level_is_measured_by_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    values = mel(sound(20_000, 8000), NARROW)
    whole = rms(ArrayMels(values, NARROW), NARROW)
    monkeypatch.setattr("wavediff.vocoding.PIECE", 10)
    assert rms(ArrayMels(values, NARROW), NARROW) == pytest.approx(whole, rel=1e-6)
    source = MelOf(ArraySource(sound(20_000, 8000), 8000), NARROW)
    assert rms(source, NARROW) == pytest.approx(whole, rel=1e-4)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (torch.zeros(80, 5), r"shape \(80, 5\)"),
        (torch.zeros(5, 64), r"takes \(64, frames\)"),
        (torch.zeros(64), r"shape \(64,\)"),
        (torch.zeros(1, 1, 64, 5), "shape"),
        (torch.zeros(64, 0), r"\(64, 0\)"),
        (torch.zeros(0, 64, 3), r"\(0, 64, 3\)"),
        (torch.full((64, 3), math.nan), "NaN"),
        (np.full((64, 3), math.inf), "NaN or infinite"),
        (np.full((64, 3), -math.inf, np.float16), "NaN or infinite"),
    ],
)
def test_what_is_no_such_mel_is_refused_with_a_hint(values: Any, message: str) -> None:
    with pytest.raises(MelError, match=message) as caught:
        model(NARROW).vocode(values)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_arrays_of_any_layout_are_taken() -> None:
    tiny, values = model(NARROW), mel(sound(3000, 8000), NARROW)[0].numpy()
    expected = tiny.vocode(values)
    np.testing.assert_array_equal(tiny.vocode(values[:, ::-1].copy()[:, ::-1]), expected)


@pytest.mark.parametrize("steps", [0, -1])
def test_settings_that_are_not_possible_are_refused(steps: int) -> None:
    with pytest.raises(TaskError, match=f"{steps} steps") as caught:
        VocodeSettings(steps=steps)
    assert caught.value.hint
