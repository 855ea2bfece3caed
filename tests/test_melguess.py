"""What a mel is, told from its values: wrong ones are found, right ones never refused."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from wavediff.audio import FileSource
from wavediff.errors import MelError
from wavediff.mel import PRESETS, MelPreset, compress, filterbank, mel
from wavediff.melguess import describe, guess, matches
from wavediff.resample import resample

SPEECH = Path(__file__).resolve().parents[1].parent / "shared" / "audio" / "dev" / "speech"
EVERY = pytest.mark.parametrize("kind", PRESETS.values(), ids=list(PRESETS))


def speech(rate: int, seed: int = 0, seconds: float = 2.0) -> Tensor:
    """(1, samples): a gliding pulse train and hiss under moving formants, in a quiet room."""
    rng = np.random.default_rng(seed)
    length = int(seconds * rate)
    time = np.arange(length) / rate
    pitch = 130 * 2 ** (0.4 * np.sin(2 * np.pi * 0.7 * time + seed))
    pulses = np.diff(np.floor(np.cumsum(pitch) / rate), prepend=0.0)
    syllable = np.clip(np.sin(2 * np.pi * 3.1 * time), 0, 1) ** 0.5
    fricative = np.clip(np.sin(2 * np.pi * 3.1 * time + 2.5), 0, 1) ** 4
    excitation = 2 * pulses * syllable + 0.03 * fricative * rng.standard_normal(length)
    spectrum = np.fft.rfft(excitation)
    frequency = np.fft.rfftfreq(length, 1 / rate)
    envelope = sum(
        gain / (1 + ((frequency - centre) / width) ** 2)
        for centre, width, gain in (
            (600, 80, 1),
            (1500, 120, 0.5),
            (2700, 200, 0.3),
            (5e3, 2e3, 0.1),
        )
    )
    sound = np.fft.irfft(spectrum * envelope, length)
    sound = 0.5 * sound / np.abs(sound).max() + 1e-4 * rng.standard_normal(length)
    return torch.from_numpy(sound.astype(np.float32))[None]


def noise(rate: int, level: float) -> Tensor:
    return level * torch.randn(1, rate, generator=torch.Generator().manual_seed(2))


def tone(rate: int, frequency: float) -> Tensor:
    return torch.sin(2 * math.pi * frequency / rate * torch.arange(rate))[None]


def click(rate: int) -> Tensor:
    return torch.nn.functional.one_hot(torch.tensor([rate // 2]), rate).float()


SOUNDS: dict[str, Callable[[int], Tensor]] = {
    "speech": speech,
    "loud speech": lambda rate: (4 * speech(rate)).clamp(-1, 1),
    "quiet speech": lambda rate: 0.003 * speech(rate),
    "speech, then digital silence": lambda rate: torch.cat((speech(rate), 0 * speech(rate)), 1),
    "silence": lambda rate: torch.zeros(1, rate),
    "the least noise": lambda rate: noise(rate, 1e-5),
    "quiet noise": lambda rate: noise(rate, 1e-3),
    "loud noise": lambda rate: noise(rate, 0.25),
    "noise of full scale": lambda rate: noise(rate, 1.0).sign(),
    "a low tone": lambda rate: tone(rate, 100),
    "a loud square wave": lambda rate: tone(rate, 441).sign(),
    "a steady chord in noise": lambda rate: 0.2 * tone(rate, 300) + noise(rate, 0.05),
    "a click": click,
    "a constant": lambda rate: torch.ones(1, rate),
    "a fifth of a second": lambda rate: speech(rate)[:, rate // 8 : rate // 3],
}


def variants(audio: Tensor, kind: MelPreset) -> dict[str, Tensor]:
    """What other programs make of a sound with the preset's bands."""
    padded = torch.nn.functional.pad(audio, (kind.lead, kind.lead), mode="reflect")
    window = torch.hann_window(kind.window)
    if kind.normalised:
        window = window / window.square().sum().sqrt()
    spectrum = torch.fft.rfft(padded.unfold(-1, kind.window, kind.hop) * window).abs()[0]
    magnitude = (spectrum @ filterbank(kind).T).T
    power = (spectrum.square() @ filterbank(kind).T).T
    decibels = 10 * power.clamp(min=1e-10).log10()
    decibels = decibels.clamp(min=float(decibels.max()) - 80)
    whisper = power.clamp(min=1e-10).log10()
    own = magnitude.clamp(min=1e-5).log()
    stretched = (own - own.min()) / (own.max() - own.min())
    return {
        "log10": magnitude.clamp(min=1e-5).log10(),
        "db": 20 * magnitude.clamp(min=1e-5).log10(),
        "magnitude": magnitude,
        "power": power,
        "power-db": decibels,
        "peak-db": decibels - decibels.max(),
        "ln-power": power.clamp(min=1e-10).log(),
        "whisper": (whisper.clamp(min=float(whisper.max()) - 8) + 4) / 4,
        "standardised": (own - own.mean()) / own.std(),
        "0..1": stretched,
        "-1..1": 2 * stretched - 1,
        "-4..4": 8 * stretched - 4,
        "int16": compress(32768 * magnitude, kind),
    }


def is_refused(values: Tensor, kind: MelPreset) -> bool:
    try:
        matches(values, kind)
    except MelError:
        return True
    return False


@EVERY
@pytest.mark.parametrize("name", SOUNDS)
def test_a_mel_of_the_preset_is_never_refused(kind: MelPreset, name: str) -> None:
    values = mel(SOUNDS[name](kind.rate), kind)[0]
    matches(values, kind)
    matches(values.half().float(), kind)
    matches(values.bfloat16().float(), kind)
    # A network's own: smoother than natural, and a little beyond the floor.
    smooth = torch.nn.functional.avg_pool1d(values[None], 3, 1, 1, count_include_pad=False)[0]
    if "speech" in name or "silence" in name:
        matches(smooth - 0.02, kind)


@EVERY
def test_speech_is_known_for_what_it_is(kind: MelPreset) -> None:
    values = mel(speech(kind.rate), kind)[0]
    for transposed in (False, True):
        guesses = guess(values.T if transposed else values)
        assert (guesses[0].scaling, guesses[0].transposed) == (kind.logarithm, transposed)
        likely = [one.preset for one in guesses if one.confidence > 0.4]
        assert likely == (
            ["hifigan", "tacotron2"] if kind.name in ("hifigan", "tacotron2") else [kind.name]
        )
        assert sum(one.confidence for one in guesses) <= 1 + 1e-6


@pytest.mark.parametrize("scaling", variants(speech(8000), PRESETS["narrow8k"]))
@pytest.mark.parametrize("name", ["hifigan", "full44k"])
def test_wrong_scalings_are_named_and_refused(name: str, scaling: str) -> None:
    kind = PRESETS[name]
    values = variants(speech(kind.rate), kind)[scaling]
    found = guess(values)[0].scaling
    assert found == scaling or {found, scaling} == {"db", "power-db"}  # 13 dB apart, no more
    with pytest.raises(MelError) as caught:
        matches(values, kind, "a.npy")
    assert f"a.npy is no mel of the preset {name}: " in caught.value.message
    assert "It looks like " in caught.value.hint


def test_the_refusal_says_what_is_seen() -> None:
    hifigan = PRESETS["hifigan"]
    wrong = variants(SOUNDS["speech, then digital silence"](hifigan.rate), hifigan)
    values = mel(speech(hifigan.rate), hifigan)[0]
    padded = torch.cat((values, torch.zeros(80, 50)), 1)
    for broken, said, hint in (
        (wrong["db"], "silence is -11.51 there", "decibels of magnitudes"),
        (wrong["log10"], "are -5, where silence should be -11.51", "log10 of magnitudes"),
        (wrong["magnitude"], "no logarithm had been taken", "without a logarithm"),
        (wrong["int16"], "dB above full scale", "±32768"),
        (padded, "50 frames are 0 in every band", "wavediff check"),
        (values.T, "has its frames first", "Transpose it"),
        (values[:, :0].new_full((80, 9), math.nan), "NaN", ""),
    ):
        with pytest.raises(MelError) as caught:
            matches(broken, hifigan)
        assert said in caught.value.message
        assert hint in caught.value.hint
        assert "tacotron2" not in caught.value.hint  # whose values are the same
    with pytest.raises(MelError, match="has 100 bands, the preset hifigan 80") as caught:
        matches(mel(speech(24000), PRESETS["bigvgan24k"])[0], hifigan, "other.npy")
    assert "of the preset bigvgan24k" in caught.value.hint
    with pytest.raises(MelError, match="has 128 bands"):
        matches(variants(speech(44100), PRESETS["full44k"])["whisper"].T, hifigan)


def test_a_mel_of_other_bands_at_the_same_count_is_told_from_its_level() -> None:
    for name, other in (("vocos24k", "bigvgan24k"), ("hifigan", "lmnt")):
        values = mel(speech(PRESETS[name].rate), PRESETS[name])[0]
        with pytest.raises(MelError, match=f"no mel of the preset {other}"):
            matches(values, PRESETS[other])


def test_the_description_owns_up_to_what_cannot_be_told() -> None:
    values = mel(speech(22050), PRESETS["hifigan"])[0]
    lines = describe(values.T)
    assert lines[0] == f"80 bands, {values.shape[1]} frames (stored frames first)"
    assert f"values {float(values.min()):.4g} to" in lines[1]
    assert "preset hifigan or tacotron2, natural logarithms" in lines[2]
    assert any("differ only in where frames lie" in line for line in lines)
    assert "rate and hop cannot be seen" in lines[-1]
    odd = describe(values[:71])
    assert odd[0].startswith("71 bands")
    assert "no preset has 71 bands" in odd[2]
    assert "natural logarithms" in odd[2]


@pytest.mark.parametrize(
    "values",
    [
        torch.zeros(80, 1),
        torch.full((80, 1), -11.512925),
        torch.zeros(1, 80),
        torch.zeros(80, 80),
        torch.full((100, 3), 1e30),
        torch.full((80, 4), -1e30),
        torch.tensor([[1.0]]),
        torch.eye(128) * 3e38,
    ],
    ids=lambda values: f"{tuple(values.shape)} {float(values.max()):.3g}",
)
def test_anything_finite_can_be_described(values: Tensor) -> None:
    guesses = guess(values)
    assert guesses
    assert all(0 <= one.confidence <= 1 for one in guesses)
    assert describe(values)
    for kind in PRESETS.values():
        if values.shape[0] != kind.bands:
            with pytest.raises(MelError, match=r"bands|frames first"):
                matches(values, kind)


def test_a_long_mel_is_judged_by_parts() -> None:
    hifigan = PRESETS["hifigan"]
    values = mel(speech(22050), hifigan)[0]
    long = values.repeat(1, 40)
    matches(long, hifigan)
    long[:, -3:] = 0  # padding at its very end
    with pytest.raises(MelError, match="3 frames are 0"):
        matches(long, hifigan)


@pytest.mark.skipif(not SPEECH.exists(), reason="the recordings of dev/speech are not here")
def test_real_speech_is_never_refused_and_mostly_known() -> None:
    files = sorted(SPEECH.glob("*/*"))
    files = files[:: max(1, len(files) // 30)][:30]
    asked = known = refused = 0
    for number, file in enumerate(files):
        with FileSource(file) as source:
            start = source.samples // 3
            clip, rate = source.read(start, start + 2 * source.rate)[:1], source.rate
        sounds = {other: resample(clip, rate, other) for other in (8000, 22050, 24000, 44100)}
        for kind in PRESETS.values():
            matches(mel(sounds[kind.rate], kind)[0], kind, str(file))
        for scaling, values in variants(sounds[22050], PRESETS["hifigan"]).items():
            if number % 10 == 0:
                asked += 1
                known += guess(values)[0].scaling == scaling
                refused += is_refused(values, PRESETS["hifigan"])
    assert known / asked > 0.85
    assert refused / asked > 0.9
