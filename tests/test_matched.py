"""The start of a vocoder, and how a sound is brought to its mel."""

import math

import pytest
import torch
from test_vocoding import HIFIGAN, level, mel_of, sound, tones

from wavediff.audio import ArraySource
from wavediff.level import gated_rms
from wavediff.mel import PRESETS, mel
from wavediff.vocoding import (
    ArrayMels,
    framed,
    lead,
    matched,
    rms,
    start_magnitudes,
)


def test_what_no_band_tells_of_is_filled_up() -> None:
    values = mel(sound(22_050, 22_050), HIFIGAN)
    found, edge = start_magnitudes(values, HIFIGAN), int(8000 / 22_050 * 1024)
    assert found.shape == (1, values.shape[-1], 513)
    below, above = found[..., edge - 50 : edge].mean(-1, keepdim=True), found[..., edge:]
    assert above.min() > 0
    assert (above < below).float().mean() > 0.9
    assert (above > 0.1 * below).float().mean() > 0.9


@pytest.mark.parametrize("name", PRESETS)
def test_the_start_has_the_magnitudes_of_its_mel(name: str) -> None:
    preset = PRESETS[name]
    values = mel(sound(8000, preset.rate) + tones(8000, preset.rate), preset)
    made = mel_of(start_magnitudes(values, preset).to(torch.complex64), preset)
    heard = values > values.max() - (0.4 if preset.logarithm == "unit-db" else 5)
    unit = 100 if preset.logarithm == "unit-db" else 20 / math.log(10)  # dB
    assert float((made - values)[heard].abs().mean()) * unit < 0.5


@pytest.mark.parametrize("name", PRESETS)
def test_a_sound_of_that_mel_stays_as_it_is(name: str) -> None:
    preset = PRESETS[name]
    audio = sound(30 * preset.hop, preset.rate) + tones(30 * preset.hop, preset.rate)
    time = torch.nn.functional.pad(audio, (lead(preset), 0))
    made = matched(time, framed(mel(audio, preset), preset), preset, 2)
    inner = slice(2 * preset.window, -2 * preset.window)
    assert level((made - time)[:, inner]) < level(time[:, inner]) - 25


@pytest.mark.parametrize("name", ["hifigan", "tacotron2", "vocos24k"])
def test_a_sound_is_brought_to_its_mel(name: str) -> None:
    preset = PRESETS[name]
    audio = sound(30 * preset.hop, preset.rate)
    given = mel(audio, preset)
    spectrum = torch.fft.rfft(torch.nn.functional.pad(audio, (lead(preset), 0)))
    wrong = torch.fft.irfft(spectrum * torch.linspace(3, 0.3, spectrum.shape[1]))

    def distance(passes: int) -> float:
        made = matched(wrong, framed(given, preset), preset, passes)[:, lead(preset) :]
        again = mel(made, preset)
        return float((again - given[..., : again.shape[-1]])[..., 4:-4].abs().mean())

    far, once, twice = (distance(passes) for passes in (0, 1, 2))
    assert far > 0.3
    assert twice < once < 0.3 * far
    assert matched(torch.zeros(1, 3000), given[..., :13], preset, 2).isfinite().all()


@pytest.mark.parametrize("name", PRESETS)
def test_a_mel_tells_the_level_of_its_sound(name: str) -> None:
    preset = PRESETS[name]
    samples = 2 * preset.rate
    noise = sound(samples, preset.rate, top=preset.high)
    kinds = {"noise": noise, "half a pause": noise * (torch.arange(samples) < preset.rate)}
    if name != "narrow8k":  # whose long windows hold more of a tone than its bands tell
        kinds["tones"] = tones(samples, preset.rate)
    for kind, audio in kinds.items():
        found = rms(ArrayMels(mel(audio, preset), preset), preset)
        true = gated_rms(ArraySource(audio, preset.rate))
        assert abs(20 * math.log10(found / true)) < 1.5, kind
