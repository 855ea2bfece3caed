"""Checkpoints: whole ones come back as they were, all others are refused and run nothing."""

import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from wavediff import checkpoint as checkpoints
from wavediff import recipe as recipes
from wavediff.checkpoint import Checkpoint
from wavediff.errors import CheckpointError
from wavediff.recipe import Recipe


def made(seed: int = 0) -> Checkpoint:
    draw = torch.Generator().manual_seed(seed)
    tensors = {
        "network.a": torch.randn(3, 4, generator=draw),
        "network.b.c": torch.randn(5, generator=draw).half(),
        "average.a": torch.randn(3, 4, generator=draw),
        "average.b.c": torch.randn(5, generator=draw),
        "first.a": torch.randn(4, 3, generator=draw).T,  # not contiguous
        "count": torch.arange(3),
    }
    recipe = recipes.parse({"rate": 8000, "data": {"sounds": "häuser"}}, "the test")
    return Checkpoint(recipe, tensors, {"step": seed, "seconds": 0.1, "licence": "CC-0 ☺"})


def same(one: Checkpoint, other: Checkpoint) -> bool:
    return (
        one.recipe == other.recipe
        and one.state == other.state
        and one.tensors.keys() == other.tensors.keys()
        and all(
            a.dtype == b.dtype and torch.equal(a, b)
            for a, b in zip(
                one.tensors.values(), (other.tensors[key] for key in one.tensors), strict=True
            )
        )
    )


def refusal(path: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        checkpoints.load(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def attempt(path: Path) -> Checkpoint | CheckpointError:
    """What is read, or its refusal; any other error fails the test."""
    try:
        return checkpoints.load(path)
    except CheckpointError as error:
        return error


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "it.safetensors"
    checkpoints.save(path, made())
    return path.read_bytes()


def test_comes_back_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "it.safetensors"
    checkpoints.save(path, made())
    assert same(checkpoints.load(path), made())
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_averaged_weights_are_the_ones_to_use() -> None:
    checkpoint = made()
    weights = checkpoint.weights()
    assert weights.keys() == {"a", "b.c"}
    assert torch.equal(weights["a"], checkpoint.tensors["average.a"])
    shipped = Checkpoint(Recipe(), {"network.b": torch.ones(2).half()}, {})
    assert shipped.weights()["b"].dtype == torch.float32


def test_the_previous_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    for seed in range(3):
        checkpoints.save(path, made(seed), keep_previous=True)
    assert checkpoints.load(path).state["step"] == 2
    assert checkpoints.load(checkpoints.previous(path)).state["step"] == 1


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_one(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.safetensors"
    checkpoints.save(path, made(1))

    def broken(tensors: object, beside: Path, metadata: object) -> None:
        beside.write_bytes(b"half a file")
        raise error

    monkeypatch.setattr(checkpoints, "save_file", broken)
    expected = CheckpointError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(expected) as caught:
        checkpoints.save(path, made(2), keep_previous=True)
    if expected is CheckpointError:
        assert "No space left" in caught.value.message
        assert caught.value.hint
    assert same(checkpoints.load(path), made(1))
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


def test_killed_between_the_two_renames_the_old_one_is_the_previous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "it.safetensors"
    checkpoints.save(path, made(1))
    rename = checkpoints.os.replace

    def killed(source: Path, target: Path) -> None:
        if target == path:
            raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(checkpoints.os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(path, made(2), keep_previous=True)
    assert same(checkpoints.load(checkpoints.previous(path)), made(1))


def test_a_folder_that_is_a_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written") as caught:
        checkpoints.save(tmp_path / "file" / "it.safetensors", made())
    assert caught.value.hint


def test_cut_anywhere_it_is_refused(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "cut.safetensors"
    for length in {*range(0, len(raw), 7), *range(16), len(raw) - 1}:
        path.write_bytes(raw[:length])
        refusal(path)


@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_flipped_bits_are_refused_or_harmless(
    raw: bytes, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    header = 8 + struct.unpack("<Q", raw[:8])[0]
    flipped = bytearray(raw)
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, header - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path = tmp_path_factory.getbasetemp() / "flipped.safetensors"
    path.write_bytes(flipped)
    found = attempt(path)
    if isinstance(found, CheckpointError):
        assert found.hint
        assert "\n" not in found.message
    else:
        assert isinstance(found.recipe, Recipe)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_random_bytes_are_refused(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, with_length: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "random.safetensors"
    path.write_bytes(struct.pack("<Q", len(noise)) + noise if with_length else noise)
    refusal(path)


def with_metadata(raw: bytes, metadata: Any) -> bytes:
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + raw[8 + size :]


GOOD = {"wavediff": "1", "recipe": "{}", "state": "{}"}
BAD = {
    "none at all": None,
    "not a table": [],
    "no version": {"recipe": "{}", "state": "{}"},
    "no recipe": {"wavediff": "1", "state": "{}"},
    "no state": {"wavediff": "1", "recipe": "{}"},
    "recipe is no JSON": GOOD | {"recipe": "rate = 1"},
    "recipe with an unknown setting": GOOD | {"recipe": '{"pitch": 3}'},
    "recipe out of range": GOOD | {"recipe": '{"rate": 3}'},
    "recipe nested without end": GOOD | {"recipe": "[" * 100_000},
    "state is no table": GOOD | {"state": "[]"},
    "state nested without end": GOOD | {"state": "[" * 100_000},
    "endless number": GOOD | {"state": "9" * 5000},
}


def test_metadata_decides(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "it.safetensors"
    path.write_bytes(with_metadata(raw, GOOD))
    assert checkpoints.load(path).recipe == Recipe()
    for metadata in BAD.values():
        path.write_bytes(with_metadata(raw, metadata))
        refusal(path)


def test_another_format_says_so(raw: bytes, tmp_path: Path) -> None:
    path = tmp_path / "future.safetensors"
    path.write_bytes(with_metadata(raw, GOOD | {"wavediff": "2"}))
    error = refusal(path)
    assert "format 2" in error.message
    assert "newer" in error.hint


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    foreign = tmp_path / "foreign.safetensors"
    save_file({"conv.weight": torch.ones(2)}, foreign, {"format": "pt"})
    assert "not a wavediff model" in refusal(foreign).message
    text = tmp_path / "text.safetensors"
    text.write_text("<html>404 not found</html>" * 100)
    refusal(text)
    refusal(tmp_path)
    assert "not there" in refusal(tmp_path / "absent.safetensors").message


class Trap:
    """Leaves a trace when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return Path.touch, (self.trace,)


def test_nothing_pickled_is_executed(tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "it.safetensors"
    path.write_bytes(pickle.dumps(Trap(trace)))
    pickle.loads(path.read_bytes())
    assert trace.exists()  # the trap works
    trace.unlink()
    refusal(path)
    torch.save({"network.a": Trap(trace)}, path)
    refusal(path)
    assert not trace.exists()


def test_file_has_the_mode_of_other_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    checkpoints.save(tmp_path / "a.safetensors", made())
    assert (tmp_path / "a.safetensors").stat().st_mode == plain.stat().st_mode
