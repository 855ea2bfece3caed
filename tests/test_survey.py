"""What `check` measures, on sounds whose faults are known, and what it says about them."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from command import wavediff
from corpus import hiss, put, recipe, voice

from wavediff import survey
from wavediff.recipe import Recipe
from wavediff.resample import resample

RATE = 16_000


def measured(
    tmp_path: Path, sound: np.ndarray, name: str = "a.wav", **form: str
) -> survey.Measured:
    return survey.measure(put(tmp_path / name, sound, RATE, **form))


@pytest.mark.parametrize("ratio", [0.0, 10.0, 20.0, 40.0])
def test_the_speech_to_noise_estimate_follows_the_truth(ratio: float, tmp_path: Path) -> None:
    speech, noise = voice(0, 8.0, RATE), hiss(0, 8.0, RATE)
    speech *= np.repeat(np.random.default_rng(0).random(16) < 0.7, RATE // 2)  # with pauses
    power = np.square(speech[np.abs(speech) > 0]).mean()
    noise *= np.sqrt(power / np.square(noise).mean()) * 10 ** (-ratio / 20)
    found = measured(tmp_path, 0.3 * (speech + noise))
    assert found.speech_to_noise == pytest.approx(ratio, abs=4)


@pytest.mark.parametrize("rate", [8000, 11_025, 16_000])
def test_the_bandwidth_is_that_before_resampling(rate: int, tmp_path: Path) -> None:
    sound = resample(torch.tensor(hiss(0, 4.0, rate)), rate, 48_000).numpy()
    found = survey.measure(put(tmp_path / "a.flac", sound, 48_000))
    assert found.bandwidth == pytest.approx(rate / 2, rel=0.15)
    full = survey.measure(put(tmp_path / "b.flac", hiss(0, 4.0, 48_000), 48_000))
    assert full.bandwidth == 24_000


@pytest.mark.parametrize("gain", [1.0, 0.4])
def test_clipped_samples_are_counted(gain: float, tmp_path: Path) -> None:
    whole = 2 * voice(0, 3.0, RATE)
    assert measured(tmp_path, 0.4 * whole).clipped == 0
    limit = np.quantile(np.abs(whole), 0.97)
    cut = gain * np.clip(whole, -limit, limit) / limit  # with 0.4: clipped, then turned down
    share = float((np.abs(whole) >= limit).mean())
    assert measured(tmp_path, cut).clipped == pytest.approx(share, rel=0.15)


def test_silence_is_no_noise(tmp_path: Path) -> None:
    sound = np.concatenate((np.zeros(RATE), voice(0, 1.0, RATE), np.zeros(2 * RATE)))
    assert measured(tmp_path, sound).silent > 0.74
    empty = measured(tmp_path, np.zeros(RATE))
    assert empty.silent == 1
    assert math.isnan(empty.speech_to_noise)
    assert empty.bandwidth == 0


def test_the_same_sound_is_found_in_any_container(tmp_path: Path) -> None:
    sound = (20_000 * hiss(0, 0.5, RATE)).astype(np.int16)
    first, second, other = (
        measured(tmp_path, s, name)
        for name, s in (("a.wav", sound), ("b.flac", sound), ("c.wav", sound[::-1].copy()))
    )
    assert first.digest == second.digest != other.digest
    found = survey.Survey((first, second, other), ())
    assert found.duplicates == [[first.path, second.path]]


def test_blocks_measure_what_the_whole_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(tmp_path / "a.flac", voice(0, 25.0, RATE) + hiss(0, 25.0, RATE), RATE)
    blocks = survey.measure(path)
    monkeypatch.setattr(survey, "BLOCK", 1000.0)
    whole = survey.measure(path)
    assert blocks.digest == whole.digest
    for fact in ("level", "silent", "speech_to_noise", "bandwidth", "clipped"):
        assert getattr(blocks, fact) == pytest.approx(getattr(whole, fact), rel=1e-4)


def test_the_advice_names_each_fault_once(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    clean = voice(0, 3.0, RATE) + 2e-2 * hiss(0, 3.0, RATE)
    put(folder / "good.flac", clean, RATE)
    put(folder / "twin.wav", sf.read(folder / "good.flac")[0], RATE)
    put(folder / "noisy.wav", voice(1, 3.0, RATE) + hiss(1, 3.0, RATE), RATE)
    put(folder / "silent.wav", np.zeros(3 * RATE), RATE)
    put(folder / "short.wav", clean[: RATE * 3 // 2] * 0.9, RATE)
    put(folder / "clipped.wav", np.clip(5 * clean, -1, 1), RATE)
    dull = resample(torch.tensor(clean[: 3 * 5000]), 5000, RATE).numpy()
    put(folder / "dull.flac", dull, RATE)
    (folder / "broken.wav").write_bytes(b"RIFF")
    words = ("check", folder, "--json", "--no-cost")
    facts = json.loads(wavediff(*words).stdout)
    named = {a["problem"]: {Path(path).stem for path in a["files"]} for a in facts["advice"]}
    assert named == {
        "broken": {"broken"},
        "silent": {"silent"},
        "clipped": {"clipped"},
        "noisy": {"noisy"},
        "dull": {"dull"},
        "duplicate": {"twin"},
        "short": {"short"},
        "little": set(),
    }
    text = wavediff("check", folder, "--no-cost", "-v").stdout
    assert all(problem in text for problem in named)
    assert "7 files, 19.5 s" in text


def test_all_broken_fails_with_the_reasons(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("text")
    result = wavediff("check", tmp_path, code=1)
    assert "a.wav is text, not sound" in result.stdout
    assert "hint: " in result.stderr
    assert json.loads(wavediff("check", tmp_path, "--json", "--no-cost", code=1).stdout)["broken"]


def test_the_cost_grows_with_the_batch_and_knows_the_network(tmp_path: Path) -> None:
    small, large = (recipe(tmp_path, batch=batch) for batch in (4, 64))
    few, many = (survey.cost(settings, "cpu") for settings in (small, large))
    assert few.step_seconds > 0
    assert many.step_seconds > 2 * few.step_seconds
    assert many.audio_per_step == 64 * 0.5
    assert many.hours(3600) == pytest.approx(many.step_seconds)
    untimed = survey.cost(Recipe(), "cpu", timed=False)
    assert math.isnan(untimed.step_seconds)
    assert untimed.parameters > 100 * few.parameters
