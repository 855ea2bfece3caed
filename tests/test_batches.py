"""Batches: the same from any number of processes, and their failures in words."""

import contextlib
import os
import pickle
import signal
from pathlib import Path

import pytest
import torch
from corpus import make, put, recipe, voice

from wavediff import batches
from wavediff.errors import DataError
from wavediff.mixtures import Pairs


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"))


def drawn(corpus: Path, first: int, last: int, items: range, workers: int) -> torch.Tensor:
    prepared = batches.prepare(recipe(corpus, data__workers=workers))
    return torch.stack([torch.stack(pair) for pair in prepared.stream(first, last, items)])


def test_workers_prepare_the_same_batches(corpus: Path) -> None:
    alone = drawn(corpus, 3, 9, range(4), workers=0)
    assert alone.shape == (6, 2, 4, 4000)
    assert torch.equal(alone, drawn(corpus, 3, 9, range(4), workers=2))


def test_a_process_of_its_own_gets_the_same_source(corpus: Path) -> None:
    """As Windows and macOS start workers: with what was pickled."""
    source = batches.prepare(recipe(corpus)).source
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(torch.stack(source.batch(1, range(3))), torch.stack(copy.batch(1, range(3))))


def test_a_stream_may_begin_anywhere_and_be_shared(corpus: Path) -> None:
    whole = drawn(corpus, 0, 5, range(4), workers=0)
    assert torch.equal(whole[3:], drawn(corpus, 3, 5, range(4), workers=0))
    assert torch.equal(whole[:, :, 2:], drawn(corpus, 0, 5, range(2, 4), workers=0))
    assert list(batches.prepare(recipe(corpus)).stream(5, 5, range(4))) == []


def test_a_streamed_corpus_gives_the_same_batches(corpus: Path) -> None:
    here = drawn(corpus, 0, 2, range(4), workers=0)
    prepared = batches.prepare(recipe(corpus, data__memory_limit=10))
    there = torch.stack([torch.stack(pair) for pair in prepared.stream(0, 2, range(4))])
    assert prepared.clips[0].store is None
    torch.testing.assert_close(here, there, atol=1e-4, rtol=0)


def test_broken_files_are_counted(tmp_path: Path) -> None:
    make(tmp_path, files=2)
    (tmp_path / "noise" / "bad.wav").write_text("not a sound")
    prepared = batches.prepare(recipe(tmp_path))
    assert [skipped.path.name for skipped in prepared.skipped] == ["bad.wav"]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_lost_on_the_way_is_one_clear_error(tmp_path: Path, workers: int) -> None:
    make(tmp_path, files=1)
    prepared = batches.prepare(recipe(tmp_path, data__workers=workers, data__memory_limit=10))
    stream = prepared.stream(0, 100, range(2))
    next(stream)
    (tmp_path / "speech" / "0.wav").unlink()
    with pytest.raises(DataError, match=r"0\.wav") as caught:
        list(stream)
    assert "\n" not in caught.value.message
    assert caught.value.hint


def children() -> set[int]:
    """The processes below this one."""
    tasks = Path(f"/proc/{os.getpid()}/task")
    found: set[int] = set()
    for path in tasks.iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            found |= {int(number) for number in (path / "children").read_text().split()}
    return found


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_a_worker_that_is_killed_is_one_clear_error(corpus: Path) -> None:
    prepared = batches.prepare(recipe(corpus, data__workers=1))
    before = children()
    stream = prepared.stream(0, 10_000, range(4))
    next(stream)
    for worker in children() - before:
        os.kill(worker, signal.SIGKILL)
    with pytest.raises(DataError, match="ended from outside") as caught:
        list(stream)
    assert "workers" in caught.value.hint


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds processes in /proc")
def test_closing_a_stream_ends_its_workers(corpus: Path) -> None:
    prepared = batches.prepare(recipe(corpus, data__workers=2))
    before = children()
    stream = prepared.stream(0, 10_000, range(4))
    next(stream)
    assert len(children() - before) >= 2
    stream.close()
    assert not children() - before


def test_pairs_are_used_where_they_are_named(tmp_path: Path) -> None:
    put(tmp_path / "noisy" / "a.wav", 0.5 * voice(0, 1.0))
    put(tmp_path / "clean" / "a.wav", voice(0, 1.0))
    named = {f"data__{side}": tmp_path / side for side in ("noisy", "clean")}
    prepared = batches.prepare(recipe(tmp_path, **named, mixture__level=[-26, -26]))
    assert isinstance(prepared.source, Pairs)
    ((noisy, clean),) = prepared.stream(0, 1, range(4))
    torch.testing.assert_close(2 * noisy, clean, atol=1e-4, rtol=0)
    level = 20 * noisy.square().mean(1).sqrt().log10()
    torch.testing.assert_close(level, torch.full((4,), -26.0), atol=1e-3, rtol=0)


def test_nothing_to_learn_from_is_refused(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    with pytest.raises(DataError, match="no usable audio"):
        batches.prepare(recipe(tmp_path))
    with pytest.raises(DataError, match="no folder"):
        batches.prepare(recipe(tmp_path, data__sounds=[]))
    with pytest.raises(DataError, match="noise is not there"):
        batches.prepare(recipe(make(tmp_path), data__noise=[tmp_path / "noise" / "noise"]))
