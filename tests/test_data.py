"""Folders of audio: any mixture is read, what is broken is told, memory does not change crops."""

import functools
import math
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from corpus import RATE, hiss, put, voice
from hypothesis import given, settings
from hypothesis import strategies as st

from wavediff import data
from wavediff.data import Clips
from wavediff.errors import DataError

FREQUENCY = 440.0
FORMATS = [  # name, rate, channels, subtype
    ("a.wav", 8000, 1, "PCM_16"),
    ("b.wav", 44_100, 2, "FLOAT"),
    ("c.flac", 16_000, 1, "PCM_24"),
    ("d.flac", 11_025, 5, "PCM_16"),
    ("e.ogg", 22_050, 1, "VORBIS"),
    ("f.mp3", 48_000, 2, "MPEG_LAYER_III"),
    ("g.aiff", 6000, 1, "PCM_16"),
    ("deep/h.WAV", 8000, 1, "PCM_U8"),
]


def sine(rate: int, channels: int = 1, seconds: float = 0.7, level: float = 0.3) -> np.ndarray:
    """(samples, channels), of which the first is twice as loud as the others."""
    tone = np.sin(2 * np.pi * FREQUENCY * np.arange(int(seconds * rate)) / rate)
    gains = np.array([2.0] + [1.0] * (channels - 1))
    return (level * tone[:, None] * gains / gains.mean()).astype(np.float32)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixed")
    for name, rate, channels, subtype in FORMATS:
        put(folder / name, sine(rate, channels), rate, subtype)
    return folder


def amplitude(sound: torch.Tensor, start: int, rate: int) -> complex:
    """Of the sine at FREQUENCY in (samples,), its phase counted from `start` samples before."""
    time = (start + torch.arange(len(sound))) / rate
    return complex((sound * torch.exp(-2j * math.pi * FREQUENCY * time)).mean() * 2)


def test_any_mixture_of_rates_formats_and_channels_is_one_corpus(mixed: Path) -> None:
    clips = data.load([mixed], RATE)
    assert [str(path.relative_to(mixed)) for path in clips.paths] == [
        name for name, *_ in sorted(FORMATS, key=lambda kind: mixed / kind[0])
    ]
    assert not clips.skipped
    for clip, path in enumerate(clips.paths):
        assert abs(int(clips.lengths[clip]) - 0.7 * RATE) < (1200 if path.suffix == ".mp3" else 2)
        crop = clips.crop(clip, 1600, 1600)  # whole periods, away from the ends
        size = abs(amplitude(crop, 0, RATE))
        assert size == pytest.approx(0.3, rel=0.05)
        rest = crop.square().mean() - size**2 / 2
        assert rest < 1e-3 * size**2


def test_in_time_the_crops_are_where_they_belong(mixed: Path) -> None:
    clips = data.load([mixed], RATE)
    for clip, path in enumerate(clips.paths):
        if path.suffix == ".mp3":  # its encoder shifts by an unknown delay
            continue
        for start in (1600, 2337):
            found = amplitude(clips.crop(clip, start, 1600), start, RATE)
            assert found == pytest.approx(-0.3j, abs=0.01)


@settings(max_examples=25, deadline=None)
@given(where=st.data())
def test_a_corpus_beyond_the_limit_is_read_from_its_files(
    mixed: Path, where: st.DataObject
) -> None:
    here, there = loaded(mixed)
    assert here.store is not None
    assert there.store is None
    assert here.paths == there.paths
    assert (here.lengths == there.lengths).all()
    clip = where.draw(st.integers(0, len(here) - 1))
    start = where.draw(st.integers(0, int(here.lengths[clip])))
    samples = where.draw(st.integers(1, 8000))
    difference = here.crop(clip, start, samples) - there.crop(clip, start, samples)
    assert float(difference.abs().max()) < 2e-5


@functools.cache
def loaded(folder: Path) -> tuple[Clips, Clips]:
    """A corpus in memory, and the same read from its files."""
    return data.load([folder], RATE), data.load([folder], RATE, memory_limit=100)


def test_the_limit_is_in_bytes_of_16_bits(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", hiss(0, 1.0))
    put(tmp_path / "b.wav", hiss(1, 1.0))
    assert data.load([tmp_path], RATE, memory_limit=4 * RATE).store is not None
    assert data.load([tmp_path], RATE, memory_limit=4 * RATE - 1).store is None


@pytest.mark.parametrize("memory_limit", [4e9, 0])
def test_past_its_end_a_clip_is_silent(tmp_path: Path, memory_limit: float) -> None:
    put(tmp_path / "short.wav", hiss(0, 0.01))
    put(tmp_path / "next.wav", hiss(1, 0.5))
    clips = data.load([tmp_path], RATE, memory_limit)
    clip = clips.paths.index(tmp_path / "short.wav")
    crop = clips.crop(clip, 30, 200)
    assert crop.shape == (200,)
    assert bool(crop[:50].any())
    assert not bool(crop[50:].any())
    assert not bool(clips.crop(clip, 90, 20).any())


@pytest.mark.parametrize("peak", [3.0, 32_768.0, 1e-4])
def test_levels_beyond_full_scale_and_tiny_ones_stay(tmp_path: Path, peak: float) -> None:
    sound = hiss(0, 0.2)
    sound *= peak / np.abs(sound).max()
    put(tmp_path / "loud.wav", sound, subtype="FLOAT")
    for limit in (4e9, 0):
        crop = data.load([tmp_path], RATE, limit).crop(0, 0, len(sound)).numpy()
        np.testing.assert_allclose(crop, sound, atol=2e-5 * peak)


def broken_files(folder: Path) -> set[str]:
    (folder / "text.wav").write_text("no sound at all, " * 50)
    (folder / "empty.flac").write_bytes(b"")
    put(folder / "cut.flac", hiss(0, 1.0))
    (folder / "cut.flac").write_bytes((folder / "cut.flac").read_bytes()[:3000])
    put(folder / "nan.wav", np.full(100, np.nan, np.float32), subtype="FLOAT")
    put(folder / "damage.wav", np.array([0, 1e30, 0], np.float32), subtype="FLOAT")
    (folder / "folder.wav").mkdir()
    return {"text.wav", "empty.flac", "cut.flac", "nan.wav", "damage.wav", "folder.wav"}


def test_broken_files_are_told_and_left_out(tmp_path: Path) -> None:
    names = broken_files(tmp_path)
    put(tmp_path / "good.wav", voice(0, 0.5))
    put(tmp_path / "zz.wav", hiss(0, 0.5))
    clips = data.load([tmp_path], RATE)
    assert [path.name for path in clips.paths] == ["good.wav", "zz.wav"]
    assert {broken.path.name for broken in clips.skipped} == names
    assert all(broken.reason and "\n" not in broken.reason for broken in clips.skipped)
    # What is broken leaves no hole: the clips behind it are where they belong.
    for clip, sound in enumerate((voice(0, 0.5), hiss(0, 0.5))):
        np.testing.assert_allclose(clips.crop(clip, 0, 4000).numpy(), sound, atol=1e-4)


def test_nothing_left_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no usable audio") as caught:
        data.load([tmp_path], RATE)
    assert ".flac" in caught.value.hint
    names = broken_files(tmp_path)
    with pytest.raises(DataError, match=f"{len(names)} broken"):
        data.load([tmp_path], RATE)
    with pytest.raises(DataError, match="is not there"):
        data.load([tmp_path / "absent"], RATE)


def test_a_file_that_goes_while_it_is_needed_is_refused_in_words(tmp_path: Path) -> None:
    path = put(tmp_path / "a.wav", hiss(0, 1.0))
    clips = data.load([tmp_path], RATE, memory_limit=0)
    path.unlink()
    with pytest.raises(DataError, match=r"a\.wav") as caught:
        clips.crop(0, 0, 100)
    assert caught.value.hint


def test_files_are_found_once_and_hidden_ones_not(tmp_path: Path) -> None:
    for name in ("b.wav", "a.wav", "sub/c.flac", ".hidden.wav", "notes.txt"):
        put(tmp_path / name, hiss(0, 0.1)) if name != "notes.txt" else None
    (tmp_path / "notes.txt").write_text("")
    found = data.find([tmp_path, tmp_path / "sub", tmp_path / "a.wav"])
    assert found == [tmp_path / name for name in ("a.wav", "b.wav", "sub/c.flac")]


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_draws_follow_the_balance(tmp_path: Path, balance: float) -> None:
    lengths = {"big/1.wav": 3.0, "big/2.wav": 1.0, "small/1.wav": 0.4, "small/2.wav": 0.1}
    for name, seconds in lengths.items():
        put(tmp_path / name, hiss(0, seconds))
    clips = data.load([tmp_path], RATE)
    rng = np.random.default_rng(0)
    count = 6000
    drawn = np.bincount([clips.draw(rng, balance) for _ in range(count)], minlength=4) / count
    totals = np.array([4.0, 4.0, 0.5, 0.5])
    chances = np.array(list(lengths.values())) * totals ** (balance - 1)
    chances /= chances.sum()
    assert (np.abs(drawn - chances) < 4 * np.sqrt(chances * (1 - chances) / count)).all()
    folders = chances.reshape(2, 2).sum(1)
    if balance == 0:
        assert folders == pytest.approx([0.5, 0.5])
    if balance == 1:
        assert folders == pytest.approx([8 / 9, 1 / 9])


def test_twins_are_found_by_name(tmp_path: Path) -> None:
    for n, name in enumerate(("one.wav", "deep/two.wav", "three.wav")):
        put(tmp_path / "clean" / name, voice(n, 0.4))
        put(tmp_path / "noisy" / name.replace(".wav", ".flac"), 2 * voice(n, 0.4), subtype="PCM_24")
    put(tmp_path / "noisy" / "alone.wav", hiss(0, 0.3))
    put(tmp_path / "clean" / "two.wav", hiss(0, 0.3))
    noisy, clean = data.twins(tmp_path / "noisy", tmp_path / "clean", RATE, 4e9)
    assert len(noisy) == len(clean) == 3
    for clip in range(3):
        assert noisy.paths[clip].stem == clean.paths[clip].stem
        one, other = (side.crop(clip, 100, 2000) for side in (noisy, clean))
        torch.testing.assert_close(one, 2 * other, atol=3e-4, rtol=0)


def test_twins_that_are_none_are_refused(tmp_path: Path) -> None:
    put(tmp_path / "noisy" / "a.wav", hiss(0, 0.4))
    put(tmp_path / "clean" / "b.wav", hiss(0, 0.4))
    sides = (tmp_path / "noisy", tmp_path / "clean", RATE, 4e9)
    with pytest.raises(DataError, match="has its twin"):
        data.twins(*sides)
    put(tmp_path / "clean" / "a.wav", hiss(0, 0.5))
    with pytest.raises(DataError, match="length"):
        data.twins(*sides)
    (tmp_path / "clean" / "a.wav").write_text("no sound")
    with pytest.raises(DataError, match=r"a\.wav"):
        data.twins(*sides)


def test_seconds_count_all_clips(tmp_path: Path) -> None:
    sf.write(tmp_path / "a.wav", np.zeros(44_100), 44_100)
    sf.write(tmp_path / "b.wav", np.zeros(4000), 8000)
    assert data.load([tmp_path], RATE).seconds == pytest.approx(1.5, abs=1e-3)
