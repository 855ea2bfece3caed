"""Mel files: whatever their form the same values, whatever is wrong one line and a hint."""

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from wavediff.errors import MelError
from wavediff.melfile import SUFFIXES, read

BANDS = 80
MEL = np.random.default_rng(0).uniform(-11, 1, (BANDS, 33)).astype(np.float32)
TENSOR = torch.from_numpy(MEL)


def array(value: Any) -> Callable[[Path], None]:
    return lambda path: np.save(path, value)


def torch_file(value: Any, **options: Any) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path, **options)


def data(value: bytes) -> Callable[[Path], None]:
    return lambda path: path.write_bytes(value) and None


def halved(write: Callable[[Path], None]) -> Callable[[Path], None]:
    def cut(path: Path) -> None:
        write(path)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return cut


class Evil:
    """What a pickled object could do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("the file was executed",)


def tensors(**named: torch.Tensor) -> Callable[[Path], None]:
    return lambda path: save_file(named, path)


def arrays(*unnamed: Any, **named: Any) -> Callable[[Path], None]:
    return lambda path: np.savez(path, *unnamed, **named)


@pytest.mark.parametrize(
    ("file", "write", "tolerance"),
    [
        ("mel.npy", array(MEL), 0),
        ("mel.NPY", lambda path: np.save(path.open("wb"), MEL), 0),
        ("mel.npy", array(MEL.T), 0),
        ("mel.npy", array(np.asfortranarray(MEL)), 0),
        ("mel.npy", array(MEL[None, None]), 0),
        ("mel.npy", array(MEL.T[None]), 0),
        ("mel.npy", array(MEL.astype(">f8")), 0),
        ("mel.npy", array(MEL.astype(np.longdouble)), 0),
        ("mel.npy", array(MEL.astype(np.float16)), 0.01),
        ("mel.npz", arrays(MEL), 0),
        ("mel.npz", lambda path: np.savez_compressed(path, a=MEL.T), 0),
        ("mel.npz", arrays(mel=MEL, lengths=np.array([33]), pitch=MEL[0], text="hm"), 0),
        ("mel.npz", arrays(mel=MEL, attention=MEL[:33], settings=np.array({}, object)), 0),
        ("mel.pt", torch_file(TENSOR), 0),
        ("mel.pth", torch_file(TENSOR.T), 0),
        ("mel.pt", torch_file(TENSOR.clone().requires_grad_()), 0),
        ("mel.pt", torch_file(TENSOR, _use_new_zipfile_serialization=False), 0),
        ("mel.pt", torch_file({"outputs": [{"mel": TENSOR, "text": "hm", "f0": TENSOR[0]}]}), 0),
        ("mel.pt", torch_file(TENSOR.bfloat16()), 0.05),
        ("mel.safetensors", tensors(mel=TENSOR.double(), durations=torch.ones(9).long()), 0),
    ],
)
def test_every_form_gives_the_same_mel(
    tmp_path: Path, file: str, write: Callable[[Path], None], tolerance: float
) -> None:
    write(tmp_path / file)
    [(name, mel)] = read(tmp_path / file, BANDS)
    assert name == "mel"
    assert mel.dtype == torch.float32
    torch.testing.assert_close(mel, TENSOR, rtol=0, atol=tolerance)


def test_batches_and_tables_become_items_of_their_own_names(tmp_path: Path) -> None:
    batch = np.stack([MEL + n for n in range(11)])
    for number, stored in enumerate((batch, batch.transpose(0, 2, 1), batch[:, None])):
        np.save(tmp_path / f"b{number}.npy", stored)
        items = read(str(tmp_path / f"b{number}.npy"), BANDS)
        assert [name for name, _ in items] == [f"b{number}-{n:02}" for n in range(11)]
        for n, (_, mel) in enumerate(items):
            torch.testing.assert_close(mel, TENSOR + n)
    keyed = {"../a": MEL, ".._a": MEL.T + 1, "pair": np.stack([MEL, MEL])}
    np.savez(tmp_path / "keyed.npz", **keyed)
    names = [name for name, _ in read(tmp_path / "keyed.npz", BANDS)]
    assert names == ["_a", "_a-2", "pair-0", "pair-1"]
    torch.save([TENSOR, TENSOR.T + 1], tmp_path / "list.pt")
    items = read(tmp_path / "list.pt", BANDS)
    assert [name for name, _ in items] == ["0", "1"]
    torch.testing.assert_close(items[1][1], TENSOR + 1)


def test_axes_are_turned_only_where_that_is_clear(tmp_path: Path) -> None:
    square = MEL[:, :BANDS].repeat(3, 1)[:, :BANDS]
    for stored, bands in ((square, BANDS), (MEL.T, None), (MEL.T, 64)):
        np.save(tmp_path / "mel.npy", stored)
        [(_, mel)] = read(tmp_path / "mel.npy", bands)
        torch.testing.assert_close(mel, torch.from_numpy(stored.copy()))


def test_a_float32_array_is_mapped_and_never_written_to(tmp_path: Path) -> None:
    path = tmp_path / "mel.npy"
    np.save(path, MEL)
    before = path.read_bytes()
    [(_, mel)] = read(path, BANDS)
    mel.zero_()
    assert path.read_bytes() == before
    # 200 GB of zeros in a sparse file: no memory is asked for before the values are looked at.
    head = io.BytesIO()
    shape = (BANDS, 1 << 30)
    np.lib.format.write_array_header_1_0(
        head, {"descr": "<f4", "fortran_order": False, "shape": shape}
    )
    beyond = tmp_path / "claims.npy"
    beyond.write_bytes(head.getvalue())
    with pytest.raises(MelError, match="cut off"):
        read(beyond, BANDS)


NAN, INFINITE = MEL.copy(), MEL.copy()
NAN[3, 12], INFINITE[4, 5] = np.nan, -np.inf


@pytest.mark.parametrize(
    ("file", "write", "said", "hint"),
    [
        ("mel.npy", lambda path: None, "does not exist", "name"),
        ("mel.npy", lambda path: path.mkdir(), "is a folder", "file in it"),
        ("mel.txt", data(b"1 2 3"), "does not end with .npy, .npz, .pt", "name the file"),
        ("mel.npy", data(b""), "is empty (0 bytes)", "did not finish"),
        ("mel.npy", data(b"-11.2 -3.4\n-2.0 1.0\n"), "is text", "text editor"),
        ("mel.npy", array(MEL[:, :0]), "empty array of shape (80, 0)", "Save it again"),
        ("mel.npy", array(MEL[None][:0]), "empty array of shape (0, 80, 33)", "Save it again"),
        ("mel.npy", array(MEL[0]), "float32 of shape (33,)", "two axes"),
        ("mel.npy", array(MEL.astype(complex)), "complex128 values", "magnitudes"),
        ("mel.npy", array(MEL.astype(int)), "int64 values", "floating-point"),
        ("mel.npy", array(MEL > 0), "bool values", "floating-point"),
        ("mel.npy", array(NAN), "holds nan at (3, 12)", "division by 0"),
        ("mel.npy", array(NAN.T), "holds nan at (3, 12)", "division by 0"),
        ("mel.npy", array(INFINITE), "holds -inf at (4, 5)", "maximum(mel, 1e-5)"),
        ("mel.npy", array(np.abs(MEL.astype(float)) * 1e300), "holds inf at", "division by 0"),
        ("mel.npy", array(np.array([Evil()], object)), "Python objects", "float32"),
        ("mel.npy", data(pickle.dumps(Evil())), "Python objects", "float32"),
        ("mel.npy", halved(array(MEL)), "damaged or cut off", "Fetch it again"),
        ("mel.npz", halved(arrays(MEL)), "damaged or cut off", "Fetch it again"),
        ("mel.npz", arrays(np.array([Evil()], object)), "Python objects", "float32"),
        ("mel.npz", arrays(), "holds no array", "Save it again"),
        ("mel.pt", torch_file(Evil()), "Python objects", "float32"),
        ("mel.pt", torch_file(MEL), "Python objects", "float32"),
        ("mel.pt", torch_file("mel"), "holds no array", "Save it again"),
        ("mel.pt", torch_file(TENSOR.to_sparse()), "no plain tensor", "Save it again"),
        ("mel.pt", torch_file(torch.zeros(1).expand(80, 10**12)), "claims more", "Save it again"),
        ("mel.pt", halved(torch_file(TENSOR)), "damaged", "again"),
        ("mel.safetensors", halved(tensors(mel=TENSOR)), "damaged or cut off", "Fetch it again"),
        ("mel.safetensors", tensors(mel=TENSOR.long()), "int64 values", "floating-point"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(
    tmp_path: Path, file: str, write: Callable[[Path], None], said: str, hint: str
) -> None:
    write(tmp_path / file)
    with pytest.raises(MelError) as caught:
        read(tmp_path / file, BANDS)
    assert said in caught.value.message
    assert "\n" not in caught.value.message
    assert hint in caught.value.hint
    assert str(tmp_path / file) in caught.value.message


def test_the_broken_item_of_a_batch_is_named(tmp_path: Path) -> None:
    np.savez(tmp_path / "two.npz", good=MEL, bad=np.stack([MEL, NAN]))
    with pytest.raises(MelError, match=r"two\.npz: bad-1 holds nan at \(3, 12\)"):
        read(tmp_path / "two.npz", BANDS)


def whole(suffix: str, folder: Path) -> bytes:
    path = folder / f"whole{suffix}"
    write = {".npy": array(MEL), ".npz": arrays(MEL), ".safetensors": tensors(mel=TENSOR)}
    write.get(suffix, torch_file(TENSOR))(path)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", sorted({*SUFFIXES} - {".pth"}))  # which is read as .pt is
def test_no_bytes_raise_anything_else(suffix: str, tmp_path: Path) -> None:
    good = whole(suffix, tmp_path)
    path = tmp_path / f"mel{suffix}"

    @settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
    @given(
        st.binary(max_size=200)
        | st.binary(max_size=60).map(lambda tail: good[:8] + tail)
        | st.tuples(
            st.integers(0, min(len(good), 400) - 1) | st.integers(-400, -1),
            st.binary(min_size=1, max_size=6),
        ).map(lambda change: good[: change[0]] + change[1] + good[change[0] + len(change[1]) :])
    )
    def check(content: bytes) -> None:
        path.write_bytes(content)
        refusal, items = None, []
        try:
            items = read(path, BANDS)
        except MelError as error:
            refusal = error
        if refusal:
            assert refusal.hint
            assert "\n" not in refusal.message
        assert all(mel.ndim == 2 and mel.isfinite().all() for _, mel in items)

    check()
