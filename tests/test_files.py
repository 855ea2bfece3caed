"""Files as a model sees them: remembered while they stream, their background measured."""

import math
from pathlib import Path

import pytest
import torch
from command import tree
from corpus import RATE, hiss, put
from hypothesis import given
from hypothesis import strategies as st

from wavediff import files
from wavediff.audio import ArraySource, FileSource, Remembered, read
from wavediff.background import Background
from wavediff.errors import AudioError
from wavediff.files import save

ranges = st.lists(st.tuples(st.integers(-50, 1200), st.integers(0, 300)), max_size=12)


@given(ranges, st.floats(0, 0.05))
def test_remembering_changes_nothing(reads: list[tuple[int, int]], seconds: float) -> None:
    plain = ArraySource(torch.randn(2, 1000, generator=torch.manual_seed(0)), RATE)
    kept = Remembered(plain, seconds)
    for start, length in reads:
        assert torch.equal(kept.read(start, start + length), plain.read(start, start + length))


def test_going_back_decodes_nothing_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path / "a.ogg", hiss(0, 60.0))
    decoded = 0
    decode = FileSource._decode

    def counted(source: FileSource, *words: int, **more: bool) -> object:
        nonlocal decoded
        block = decode(source, *words, **more)
        decoded += len(block)
        return block

    with FileSource(path) as source:
        monkeypatch.setattr(FileSource, "_decode", counted)
        kept = Remembered(source, 25.0)
        for start in range(0, 40 * RATE, 4 * RATE):  # as a renderer does: far ahead, then back
            kept.read(start, start + 20 * RATE)
            kept.read(start, start + 4 * RATE)
        assert kept._kept.shape[1] <= 25 * RATE
    assert decoded == 56 * RATE


def test_the_background_is_the_quietest_tenth_in_blocks_or_whole() -> None:
    noise = torch.randn(2, 10 * RATE, generator=torch.manual_seed(0))
    level = torch.where(torch.arange(10 * RATE) < 2 * RATE, 0.01, 0.5)
    level[3 * RATE : 4 * RATE] = 0  # digital silence is no background
    before, after = level * noise, 0.1 * level * noise
    whole, parts = Background(RATE), Background(RATE)
    whole.add(before, after)
    for start in range(0, 10 * RATE, 50 * parts.frame):
        stop = start + 50 * parts.frame
        parts.add(before[:, start:stop], after[:, start:stop])
    assert whole.levels() == parts.levels()
    assert whole.levels() == pytest.approx((-40, -60), abs=0.6)


def test_silence_has_no_background() -> None:
    nothing = Background(RATE)
    nothing.add(torch.zeros(1, RATE), torch.zeros(1, RATE))
    assert all(map(math.isnan, nothing.levels()))
    assert all(map(math.isnan, Background(RATE).levels()))
    gone = Background(RATE)
    gone.add(torch.full((1, RATE), 0.1), torch.zeros(1, RATE))
    assert gone.levels() == pytest.approx((-20, -100))


class Failing(ArraySource):
    """A source that breaks after its first second."""

    def read(self, start: int, stop: int) -> torch.Tensor:
        if start >= RATE:
            raise AudioError("broken")
        return super().read(start, stop)


def test_a_sound_is_saved_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "PIECE", 0.37)
    sound = torch.from_numpy(hiss(0, 2.0))[None]
    told: list[float] = []
    writer = save(
        ArraySource(4 * sound, RATE), str(tmp_path / "new" / "a.wav"), "FLOAT", told.append
    )
    assert torch.equal(read(tmp_path / "new" / "a.wav")[0], 4 * sound)
    assert writer.peak == float(4 * sound.abs().max())
    assert told == sorted(told)
    assert told[-1] == 1
    with pytest.raises(AudioError, match="broken"):
        save(Failing(sound, RATE), str(tmp_path / "b.wav"), "PCM_16", told.append)
    assert tree(tmp_path) == {"new", "new/a.wav"}
