"""Mels: as published, exact by frames, and back to magnitudes."""

from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from corpus import hiss, voice
from torch import Tensor

from wavediff.audio import ArraySource
from wavediff.errors import MelError
from wavediff.mel import (
    PRESETS,
    MelOf,
    MelPreset,
    Scaling,
    compress,
    convert,
    convertible,
    filterbank,
    linear,
    magnitudes,
    mel,
    preset,
    rescale,
)

VECTORS = Path(__file__).resolve().parents[1].parent / "shared" / "reference" / "mel-vectors.npz"
TOLERANCE = {  # largest and mean difference
    "lmnt": (1e-4, 1e-5),
    "hifigan": (3e-3, 1e-5),
    "bigvgan24k": (2e-4, 1e-5),
    "tacotron2": (1e-3, 1e-5),
    "vocos24k": (1e-4, 1e-5),
}
EVERY = pytest.mark.parametrize("kind", PRESETS.values(), ids=list(PRESETS))


def sound(kind: MelPreset, seconds: float = 0.7, seed: int = 0) -> Tensor:
    """(1, samples) of voice and hiss."""
    mixed = voice(seed, seconds, kind.rate) + 0.1 * hiss(seed, seconds, kind.rate)
    return torch.from_numpy(mixed)[None]


@pytest.mark.skipif(not VECTORS.exists(), reason="mel-vectors.npz is not here")
@pytest.mark.parametrize("name", TOLERANCE)
def test_published_mels_come_out(name: str) -> None:
    with np.load(VECTORS) as vectors:
        audio = vectors["audio24k" if name.endswith("24k") else "audio"]
        known = torch.from_numpy(vectors[name])
        bank = vectors.get(f"fb_{name}")
    ours = mel(torch.from_numpy(audio)[None], PRESETS[name])[0]
    assert ours.shape == known.shape
    difference = (ours - known).abs()
    assert difference.max() < TOLERANCE[name][0]
    assert difference.mean() < TOLERANCE[name][1]
    if bank is not None:
        np.testing.assert_allclose(filterbank(PRESETS[name]).numpy(), bank, rtol=0, atol=1e-7)


@EVERY
def test_bands_are_those_of_librosa_and_torchaudio(kind: MelPreset) -> None:
    import librosa
    import torchaudio

    norm = "slaney" if kind.equal_area else None
    theirs = librosa.filters.mel(
        sr=kind.rate,
        n_fft=kind.window,
        n_mels=kind.bands,
        fmin=kind.low,
        fmax=kind.high,
        htk=kind.scale == "htk",
        norm=norm,
    )
    ours = filterbank(kind)
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=0, atol=1e-6)
    others = torchaudio.functional.melscale_fbanks(
        kind.bins, kind.low, kind.high, kind.bands, kind.rate, norm, kind.scale
    )
    torch.testing.assert_close(ours, others.T, rtol=0, atol=1e-4)  # theirs in float32


@EVERY
def test_a_mel_is_that_of_librosa(kind: MelPreset) -> None:
    """librosa with the preset's numbers: what a user without wavediff has."""
    import librosa

    audio = sound(kind)
    padded = np.pad(audio[0].numpy(), kind.lead, mode="reflect")
    power = np.abs(librosa.stft(padded, n_fft=kind.window, hop_length=kind.hop, center=False)) ** 2
    if kind.normalised:
        power = power / np.sum(np.hanning(kind.window + 1)[:-1] ** 2)
    bands = filterbank(kind).numpy() @ np.sqrt(power + kind.addend)
    if kind.logarithm == "ln":
        theirs = np.log(np.maximum(bands, kind.floor))
    else:
        theirs = np.clip((20 * np.log10(np.maximum(bands, 1e-5)) - 20 + 100) / 100, 0, 1)
    np.testing.assert_allclose(mel(audio, kind)[0].numpy(), theirs, rtol=0, atol=2e-3)


@EVERY
def test_reads_of_any_frames_are_the_whole(kind: MelPreset) -> None:
    audio = sound(kind).repeat(2, 1)
    audio[1] = audio[1].flip(0)
    whole = mel(audio, kind)
    part = MelOf(ArraySource(audio, kind.rate), kind)
    assert (part.channels, part.bands, part.frames) == whole.shape
    last = part.frames
    for first, stop in ((0, 1), (0, 7), (5, 21), (last - 3, last), (0, last), (last - 1, last)):
        torch.testing.assert_close(
            part.read(first, stop), whole[..., first:stop], rtol=0, atol=5e-4
        )
    around = part.read(-3, last + 2)
    torch.testing.assert_close(around[..., 3:-2], whole, rtol=0, atol=5e-4)
    assert (around[..., :3] == kind.silence).all()
    assert (around[..., -2:] == kind.silence).all()
    assert part.read(-9, -4).shape == (2, kind.bands, 5)


@EVERY
@pytest.mark.parametrize("samples", [1, 2, 3, 200, 700, 1300])
def test_short_sounds_are_reflected_as_numpy_does(kind: MelPreset, samples: int) -> None:
    audio = sound(kind)[:, :samples]
    if not kind.frames(samples):
        with pytest.raises(MelError, match="too short"):
            mel(audio, kind)
        return
    padded = np.pad(audio[0].numpy(), kind.lead, mode="reflect")
    bare = replace(kind, centred=False, hop=kind.window)  # with no lead, one frame a window
    assert bare.lead == 0
    ours = mel(audio, kind)
    assert ours.shape[-1] == kind.frames(samples)
    for frame in range(ours.shape[-1]):
        window = torch.from_numpy(padded[frame * kind.hop :][: kind.window].copy())
        alone = mel(window[None], bare)[..., 0]
        torch.testing.assert_close(ours[..., frame], alone, rtol=0, atol=2e-4)
    part = MelOf(ArraySource(audio, kind.rate), kind)
    torch.testing.assert_close(part.read(0, part.frames), ours, rtol=0, atol=2e-4)


@EVERY
def test_frames_lie_where_the_preset_says(kind: MelPreset) -> None:
    """The loudest frame of a click on a frame's centre is that frame, its neighbours alike."""
    click = torch.zeros(1, 20 * kind.hop)
    click[0, kind.offset + 9 * kind.hop] = 1
    loud = magnitudes(mel(click, kind), kind)[0].sum(0)
    assert int(loud.argmax()) == 9
    torch.testing.assert_close(loud[8], loud[10], rtol=1e-3, atol=0)
    assert kind.samples(kind.frames(20 * kind.hop)) == 20 * kind.hop
    assert kind.frames(0) == kind.samples(0) == 0


@EVERY
def test_gradients_are_right_and_finite(kind: MelPreset) -> None:
    audio = torch.from_numpy(hiss(0, 0.2, kind.rate))[None].requires_grad_()
    values = mel(audio, kind)
    values.sum().backward()
    assert audio.grad is not None
    # A sound that is louder by a small factor has all of its logarithms higher by that.
    unit = 1 if kind.logarithm == "ln" else 20 / 100 / np.log(10)
    rise = float((audio.grad * audio.detach()).sum()) / (unit * values.numel())
    assert abs(rise - 1) < 1e-3
    silent = torch.zeros(1, 4 * kind.window, requires_grad=True)
    mel(silent, kind).sum().backward()
    assert silent.grad is not None
    assert silent.grad.isfinite().all()


@EVERY
def test_silence_is_the_lowest_value_and_magnitudes_come_back(kind: MelPreset) -> None:
    silent = mel(torch.zeros(1, 4 * kind.window), kind)
    assert (silent == kind.silence).all()
    values = mel(sound(kind), kind)
    assert values.min() >= kind.silence
    torch.testing.assert_close(compress(magnitudes(values, kind), kind), values)


@EVERY
def test_linear_magnitudes_explain_the_mel(kind: MelPreset) -> None:
    audio = sound(kind)
    values = mel(audio, kind)
    found = linear(values, kind)
    assert found.shape == (1, values.shape[-1], kind.bins)
    assert (found >= 0).all()
    frequency = torch.arange(kind.bins) * kind.rate / kind.window
    assert (found[..., frequency >= kind.high] == 0).all()
    # They are a plain Fourier transform's: its scale, whatever the preset does to it.
    window = torch.hann_window(kind.window)
    padded = torch.nn.functional.pad(audio, (kind.lead, kind.lead), mode="reflect")
    plain = torch.fft.rfft(padded.unfold(-1, kind.window, kind.hop) * window).abs()
    inside = (frequency > kind.low) & (frequency < kind.high)
    assert 0.6 < found[..., inside].norm() / plain[..., inside].norm() < 1.05
    again = found @ filterbank(kind).T
    if kind.normalised:
        again = again / window.square().sum().sqrt()
    error = compress(again.transpose(1, 2), kind) - values
    per_neper = 1 if kind.logarithm == "ln" else 20 / 100 / np.log(10)
    assert error.abs().mean() < 0.1 * per_neper


@EVERY
def test_autocast_leaves_mels_alone(kind: MelPreset) -> None:
    audio = sound(kind, 0.2)
    with torch.autocast("cpu", torch.bfloat16):
        half = mel(audio, kind)
        assert half.dtype == torch.float32
        torch.testing.assert_close(half, mel(audio, kind), rtol=0, atol=0)
        magnitude = linear(half, kind)
    torch.testing.assert_close(magnitude, linear(mel(audio, kind), kind), rtol=0, atol=0)


def test_what_is_kept_in_inference_mode_serves_training() -> None:
    kind = replace(PRESETS["hifigan"], bands=17)  # no other test has made its bands
    with torch.inference_mode():
        linear(mel(sound(kind), kind), kind)
    audio = sound(kind).requires_grad_()
    linear(mel(audio, kind), kind).sum().backward()
    assert audio.grad is not None


def test_presets_are_found_by_name_and_the_nearest_is_named() -> None:
    assert preset("vocos24k") is PRESETS["vocos24k"]
    with pytest.raises(MelError, match=r"Tacotron\n.*did you mean tacotron2\?"):
        preset("Tacotron")
    with pytest.raises(MelError, match=r"hint: There are hifigan, tacotron2"):
        preset("xyz")


def test_only_what_keeps_every_number_is_convertible() -> None:
    hifigan, tacotron2 = PRESETS["hifigan"], PRESETS["tacotron2"]
    assert convertible(hifigan, tacotron2) is None
    values = mel(sound(hifigan), hifigan)
    torch.testing.assert_close(convert(values, hifigan, tacotron2), values)
    # The same frame centres: a sound half a hop later.
    later = mel(sound(hifigan)[:, hifigan.offset :], tacotron2)[..., 3:-3]
    torch.testing.assert_close(values[..., 3 : 3 + later.shape[-1]], later, rtol=0, atol=0.02)
    for source, target, reason in (
        ("hifigan", "bigvgan24k", "rate"),
        ("hifigan", "lmnt", "Hz at the bottom"),
        ("bigvgan24k", "vocos24k", "slaney bands"),
    ):
        assert reason in (convertible(PRESETS[source], PRESETS[target]) or "")
        with pytest.raises(MelError, match=reason):
            convert(values, PRESETS[source], PRESETS[target])


@pytest.mark.parametrize("name", ["vocos24k", "lmnt"])
@pytest.mark.parametrize(
    "change",
    [
        {"equal_area": True},
        {"normalised": True},
        {"normalised": False},
        {"logarithm": "unit-db", "floor": 1e-4},
        {"logarithm": "ln", "floor": 1e-3},
    ],
    ids=str,
)
def test_normalisation_and_logarithm_convert_exactly(name: str, change: dict) -> None:
    source = PRESETS[name]
    target = replace(source, **change)
    audio = sound(source)
    # Above the floors of both, and below the ceiling of decibels.
    loud = 0.05 * audio + 0.05 * torch.from_numpy(hiss(3, 0.7, source.rate))[None]
    converted = convert(mel(loud, source), source, target)
    known = mel(loud, target)
    both = (known > target.silence) & (mel(loud, source) > source.silence)
    assert both.float().mean() > 0.5
    torch.testing.assert_close(converted[both], known[both], rtol=0, atol=2e-3)


@pytest.mark.parametrize("name", ["hifigan", "vocos24k", "lmnt"])
@pytest.mark.parametrize("scaling", get_args(Scaling))
def test_other_scalings_are_brought_back(name: str, scaling: Scaling) -> None:
    kind = PRESETS[name]
    audio = torch.from_numpy(hiss(0, 0.7, kind.rate))[None]
    known = mel(audio, kind)
    padded = torch.nn.functional.pad(audio, (kind.lead, kind.lead), mode="reflect")
    window = torch.hann_window(kind.window)
    if kind.normalised:
        window = window / window.square().sum().sqrt()
    spectrum = torch.fft.rfft(padded.unfold(-1, kind.window, kind.hop) * window).abs()
    magnitude = (spectrum @ filterbank(kind).T).transpose(1, 2)
    power = (spectrum.square() @ filterbank(kind).T).transpose(1, 2)
    values = {
        "ln": magnitude.log(),
        "unit-db": (20 * magnitude.log10() + 80) / 100,
        "log10": magnitude.log10(),
        "db": 20 * magnitude.log10(),
        "magnitude": magnitude,
        "power": power,
        "ln-power": power.log(),
        "log10-power": power.log10(),
        "power-db": 10 * power.log10(),
    }[scaling]
    error = rescale(values, scaling, kind) - known
    unit = 1 if kind.logarithm == "ln" else 20 / 100 / np.log(10)
    if "power" in scaling:  # of noise: a spectrum that is nearly flat within a band
        assert error.abs().mean() < 0.12 * unit
        assert error.min() > -1e-2 * unit  # an upper bound, by Cauchy and Schwarz
    else:
        assert error.abs().max() < 2e-3


@EVERY
def test_silence_survives_rescaling(kind: MelPreset) -> None:
    for scaling, silent in (("log10", -20.0), ("db", -400.0), ("power", 0.0), ("magnitude", 0.0)):
        values = torch.full((kind.bands, 3), silent)
        assert (rescale(values, scaling, kind) == kind.silence).all()  # type: ignore[arg-type]


def test_a_source_at_another_rate_is_refused() -> None:
    with pytest.raises(ValueError, match="8000 Hz"):
        MelOf(ArraySource(torch.zeros(1, 100), 8000), PRESETS["hifigan"])
