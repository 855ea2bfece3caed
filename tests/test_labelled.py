"""Labelled folders: the right label for every file, whatever its rate, and splits that stay."""

from pathlib import Path

import numpy as np
import pytest
import torch
from corpus import RATE, hiss, put, voice

from wavediff.errors import DataError
from wavediff.labelled import load_labelled


def test_files_have_the_label_of_their_first_folder(tmp_path: Path) -> None:
    put(tmp_path / "snare" / "kit" / "soft" / "a.wav", voice(0, 0.1))
    put(tmp_path / "kick" / "z.flac", voice(1, 0.1))
    put(tmp_path / "snare" / "b.ogg", voice(2, 0.1))
    put(tmp_path / "loose.wav", voice(3, 0.1))
    put(tmp_path / ".trash" / "old.wav", voice(4, 0.1))
    found = load_labelled(tmp_path, RATE)
    assert found.labels == ("kick", "snare")
    labels = {
        path.name: found.labels[n] for path, n in zip(found.files, found.label_of, strict=True)
    }
    assert labels == {"a.wav": "snare", "b.ogg": "snare", "z.flac": "kick"}
    assert found.counts == {"kick": 1, "snare": 2}
    assert "loose.wav" in {skip.path.name for skip in found.clips.skipped}


def test_labels_of_several_folders_are_joined(tmp_path: Path) -> None:
    for folder, labels in (("a", ("x", "y")), ("b", ("y", "z"))):
        for label in labels:
            put(tmp_path / folder / label / "1.wav", voice(0, 0.1))
    found = load_labelled([tmp_path / "a", tmp_path / "b"], RATE)
    assert found.counts == {"x": 1, "y": 2, "z": 1}


def test_sounds_are_whole_mono_and_of_one_rate(tmp_path: Path) -> None:
    long, short = voice(0, 0.5), voice(1, 0.2, 2 * RATE)
    put(tmp_path / "a" / "long.wav", long, subtype="FLOAT")
    put(tmp_path / "b" / "stereo.wav", np.stack((short, 0 * short), 1), 2 * RATE, "FLOAT")
    for limit in (4e9, 0):  # from memory, and from the files
        found = load_labelled(tmp_path, RATE, limit)
        sounds = {path.name: found.sound(n) for n, path in enumerate(found.files)}
        assert torch.allclose(sounds["long.wav"], torch.from_numpy(long), atol=1e-4)
        assert len(sounds["stereo.wav"]) == len(short) // 2
        middle = slice(200, -200)  # the filter rings where a sound begins and ends
        half = torch.from_numpy(short[::2] / 2)
        assert torch.allclose(sounds["stereo.wav"][middle], half[middle], atol=2e-3)


def test_a_split_is_of_the_names_alone(tmp_path: Path) -> None:
    names = [f"{label}/{n}.wav" for label in "ab" for n in range(25)]
    for name in names:
        put(tmp_path / name, hiss(0, 0.01))
    train, held = load_labelled(tmp_path, RATE).split(0.25)
    assert {*train.names, *held.names} == set(names)
    assert not {*train.names} & {*held.names}
    assert 5 < len(held) < 21
    assert {*load_labelled(tmp_path, RATE).split(0.25, seed=1)[1].names} != {*held.names}
    for name in names[:20]:
        (tmp_path / name).unlink()
    left, held_left = load_labelled(tmp_path, RATE).split(0.25)
    assert {*left.names} == {*train.names} - {*names[:20]}
    assert {*held_left.names} == {*held.names} - {*names[:20]}


@pytest.mark.parametrize("limit", [4e9, 0])
def test_parts_hold_the_sounds_of_their_files(tmp_path: Path, limit: float) -> None:
    for n in range(6):
        put(tmp_path / "ab"[n % 2] / f"{n}.wav", voice(n, 0.1 + 0.01 * n))
    whole = load_labelled(tmp_path, RATE, limit)
    part = whole.part(np.array([4, 0, 3]))
    for n, origin in enumerate((4, 0, 3)):
        assert part.files[n] == whole.files[origin]
        assert part.names[n] == whole.names[origin]
        assert part.label_of[n] == whole.label_of[origin]
        assert torch.equal(part.sound(n), whole.sound(origin))


def test_flat_folders_are_one_label_when_that_is_wanted(tmp_path: Path) -> None:
    put(tmp_path / "1.wav", voice(0, 0.1))
    found = load_labelled(tmp_path, RATE, flat=True)
    assert found.labels == ("",)
    assert found.label_of.tolist() == [0]
    with pytest.raises(DataError, match="no labels") as refused:
        load_labelled(tmp_path, RATE)
    assert "sub-folder" in refused.value.hint
    put(tmp_path / "only" / "2.wav", voice(1, 0.1))
    assert load_labelled(tmp_path, RATE, flat=True).names == ("only/2.wav",)
    with pytest.raises(DataError, match="one label, only"):
        load_labelled(tmp_path, RATE)


@pytest.mark.parametrize("content", [None, b"no sound at all"])
def test_labels_without_sound_are_refused_by_name(tmp_path: Path, content: bytes | None) -> None:
    put(tmp_path / "a" / "1.wav", voice(0, 0.1))
    put(tmp_path / "b" / "1.wav", voice(0, 0.1))
    (tmp_path / "hollow").mkdir()
    if content:
        (tmp_path / "hollow" / "x.wav").write_bytes(content)
    with pytest.raises(DataError, match="hollow") as refused:
        load_labelled(tmp_path, RATE)
    assert refused.value.hint
    assert ("x.wav" in refused.value.message) == bool(content)


@pytest.mark.parametrize("flat", [False, True])
def test_folders_that_are_none_are_refused(tmp_path: Path, flat: bool) -> None:
    file = put(tmp_path / "a.wav", voice(0, 0.1))
    (tmp_path / "empty").mkdir()
    for given in (file, tmp_path / "nowhere", tmp_path / "empty", []):
        with pytest.raises(DataError) as refused:
            load_labelled(given, RATE, flat=flat)
        assert refused.value.hint
