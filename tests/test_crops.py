"""Crops and labelled mels: each item is a pure function of seed, step and place."""

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import RATE, put, voice

from wavediff import data
from wavediff.crops import LEVEL, Crops, LabelledMels
from wavediff.labelled import load_labelled
from wavediff.mel import PRESETS, mel

PRESET = PRESETS["narrow8k"]
SAMPLES = 32 * PRESET.hop


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three labels with one, two and six sounds, the short ones shorter than a crop."""
    root = tmp_path_factory.mktemp("labelled")
    for label, count, seconds in (("deep", 1, 2.0), ("high", 2, 1.0), ("click", 6, 0.1)):
        for n in range(count):
            put(root / label / f"{n}.wav", voice(hash_of(label, n), seconds) + 0.01, RATE)
    return root


def hash_of(label: str, number: int) -> int:
    return sum(map(ord, label)) * 10 + number


def crops(folder: Path, seed: int = 0, samples: int = SAMPLES) -> Crops:
    return Crops(data.load([folder], RATE), samples, seed)


def mels(folder: Path, whole: bool = True, seed: int = 0, level: float = 3.0) -> LabelledMels:
    found = load_labelled(folder, RATE, flat=True)
    return LabelledMels(found, PRESET, SAMPLES, whole, seed, level)


@pytest.mark.parametrize("whole", [True, False, None])
def test_an_item_depends_on_seed_step_and_place_alone(folder: Path, whole: bool | None) -> None:
    def source(seed: int) -> Crops | LabelledMels:
        return crops(folder, seed) if whole is None else mels(folder, whole, seed)

    batch = source(0).batch(5, range(6))
    other = source(0)
    other.batch(1, range(9))
    parts = [other.batch(5, range(4, 6)), other.batch(5, range(4))]
    for n, tensor in enumerate(batch):
        assert torch.equal(tensor, torch.cat((parts[1][n], parts[0][n])))
        assert not torch.equal(tensor, source(1).batch(5, range(6))[n])
        assert not torch.equal(tensor, source(0).batch(6, range(6))[n])


def test_crops_are_brought_to_levels(folder: Path) -> None:
    (sounds,) = crops(folder).batch(0, range(100))
    assert sounds.shape == (100, SAMPLES)
    levels = 20 * sounds.square().mean(-1).sqrt().log10()
    assert LEVEL[0] - 0.01 <= float(levels.min()) < LEVEL[0] + 2
    assert LEVEL[1] - 2 < float(levels.max()) <= LEVEL[1] + 0.01


def test_crops_come_from_anywhere_in_a_sound(tmp_path: Path) -> None:
    ramp = np.linspace(0.1, 0.9, 2 * RATE, dtype=np.float32)
    put(tmp_path / "ramp.wav", ramp, subtype="FLOAT")
    (sounds,) = crops(tmp_path).batch(0, range(200))
    # In a ramp the last and the first value of a crop tell where it was cut.
    ratio = sounds[:, -1] / sounds[:, 0]
    rise = 0.8 * (SAMPLES - 1) / (2 * RATE - 1)
    first = rise / (ratio - 1)
    assert 0.1 - 1e-3 <= float(first.min()) < 0.12
    assert 0.88 < float(first.max()) + rise <= 0.9 + 1e-2
    assert torch.allclose(sounds.diff(dim=-1).std(-1), torch.zeros(200), atol=1e-5)


def test_a_short_sound_lies_whole_somewhere_in_its_crop(tmp_path: Path) -> None:
    samples = RATE // 10
    put(tmp_path / "short.wav", np.linspace(0.5, 1, samples, dtype=np.float32), subtype="FLOAT")
    (sounds,) = crops(tmp_path).batch(0, range(100))
    begins = []
    for sound in sounds:
        where = sound.nonzero()[:, 0]
        assert len(where) == samples == int(where[-1] - where[0]) + 1
        assert float(sound[where[-1]] / sound[where[0]]) == pytest.approx(2, rel=1e-3)
        begins.append(int(where[0]))
    assert min(begins) < 0.1 * SAMPLES
    assert max(begins) > 0.9 * (SAMPLES - samples)


def test_silence_is_no_sound_to_be_raised(tmp_path: Path) -> None:
    put(tmp_path / "silent.wav", np.zeros(RATE, np.float32))
    (sounds,) = crops(tmp_path).batch(0, range(2))
    assert sounds.abs().max() == 0


def test_every_label_comes_alike_often(folder: Path) -> None:
    source = mels(folder)
    assert source.count == 3
    assert source.labelled.counts == {"click": 6, "deep": 1, "high": 2}
    _, shares = source.batch(0, range(300))
    assert torch.equal(shares.sum(1), torch.ones(300))
    assert set(shares.unique().tolist()) == {0, 1}
    assert all(70 < int(count) < 130 for count in shares.sum(0))


def test_a_mel_is_of_a_sound_of_its_label(folder: Path) -> None:
    source = mels(folder, level=0.0)
    drawn, shares = source.batch(0, range(120))
    assert drawn.shape == (120, PRESET.bands, 32)
    found: set[int] = set()
    for item, share in zip(drawn, shares, strict=True):
        label = int(share.argmax())
        clips = np.flatnonzero(source.labelled.label_of == label)
        whole = [source.labelled.clips.crop(int(clip), 0, SAMPLES) for clip in clips]
        near = (mel(torch.stack(whole), PRESET) - item).abs().mean((1, 2))
        assert float(near.min()) < 1e-4
        found.add(int(clips[int(near.argmin())]))
    assert found == set(range(9))


def test_the_level_of_a_sound_is_moved_a_little(folder: Path) -> None:
    still, moved = (mels(folder, level=level).batch(0, range(80))[0] for level in (0.0, 3.0))
    loud = still > PRESET.silence + 3
    by = torch.stack(
        [(m - s)[here].median() for m, s, here in zip(moved, still, loud, strict=True)]
    ) * (20 / np.log(10))
    assert -3.01 <= float(by.min()) < -2
    assert 2 < float(by.max()) <= 3.01


def test_one_shots_begin_at_their_beginning_and_crops_anywhere(folder: Path) -> None:
    def different(whole: bool) -> int:
        drawn, shares = mels(folder, whole, level=0.0).batch(0, range(40))
        deep = drawn[shares[:, 1] == 1]  # a single clip, longer than a crop
        assert len(deep) > 5
        return len({round(float(item.sum()), 2) for item in deep})

    assert different(True) == 1
    assert different(False) > 5


def test_a_folder_without_labels_is_one_kind(tmp_path: Path) -> None:
    for n in range(2):
        put(tmp_path / f"{n}.wav", voice(n, 0.5))
    source = mels(tmp_path)
    assert (source.count, source.labelled.labels) == (1, ("",))
    drawn, shares = source.batch(0, range(20))
    assert torch.equal(shares, torch.ones(20, 1))
    assert len({round(float(item.std()), 3) for item in drawn}) >= 2
