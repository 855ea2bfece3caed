"""Mel spectrograms out of files, as other programs leave them. Nothing in them is executed."""

import math
import pickle
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from wavediff.errors import MelError

DEPTH = 4  # of tables and lists within each other
BLOCK = 1 << 22  # values looked at at a time
AGAIN = "Save it again, as numpy.save('mel.npy', mel) with a float32 array of (bands, frames)."

Arrays = dict[str, np.ndarray | Tensor]


def read(path: str | Path, bands: int | None = None) -> list[tuple[str, Tensor]]:
    """The mels of a file with their names, each float32 (bands, frames) and finite.

    Reads .npy (mapped into memory if it is float32), .npz, .pt and .pth (weights only) and
    .safetensors. Leading axes are a batch, whose items are numbered. Of several arrays each is
    named by its key; what cannot be a mel beside one (lengths, pitch, attention) is passed over.

    `bands` says which of the two axes they are; (bands, frames) where both are. Without it, and
    where neither is, the axes stay as they are stored. Raises MelError.
    """
    path = Path(path)
    arrays = _load(path)
    mels = {key: array for key, array in arrays.items() if array.ndim >= 2 and _real(array)}
    fitting = {key: mel for key, mel in mels.items() if bands in mel.shape[-2:]}
    mels = fitting or mels
    if not mels:
        raise _refused(path, arrays)
    found: list[tuple[str, Tensor]] = []
    for key, array in mels.items():
        tensor = _tensor(array)
        if not tensor.numel():
            raise MelError(f"{path} holds an empty array of shape {tuple(tensor.shape)}", AGAIN)
        batch = tensor.reshape(-1, *tensor.shape[-2:])
        name = path.stem if len(mels) == 1 else _plain(key)
        for number, item in enumerate(batch):
            rows, columns = item.shape
            mel = item.T if columns == bands != rows else item
            numbered = f"{name}-{number:0{len(str(len(batch) - 1))}}" if len(batch) > 1 else name
            _check(mel, f"{path}: {numbered}" if len(mels) > 1 or len(batch) > 1 else str(path))
            found.append((numbered, mel))
    return _distinct(found)


def _load(path: Path) -> Arrays:
    """Every array of a file by its key."""
    if path.suffix.lower() not in READERS:
        raise MelError(
            f"{path} does not end with {', '.join(SUFFIXES)}",
            "A mel comes in one of those; name the file for what it is.",
        )
    try:
        if path.is_dir():
            raise MelError(f"{path} is a folder, not a mel", "Name a file in it.")
        with path.open("rb") as file:
            head = file.read(512)
        size = path.stat().st_size
    except FileNotFoundError:
        raise MelError(f"{path} does not exist", "Check the name and the folder.") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise MelError(f"{path} cannot be opened: {reason}", "Check name and rights.") from None
    if not size:
        raise MelError(f"{path} is empty (0 bytes)", "The program that wrote it did not finish.")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            return READERS[path.suffix.lower()](path)
    except MelError:
        raise
    except Exception as error:  # readers of damaged files raise anything at all
        raise _broken(path, head, error) from None


def _npy(path: Path) -> Arrays:
    # Copy on write: torch wants memory that could be written to.
    return {path.stem: np.lib.format.open_memmap(path, mode="c")}


def _npz(path: Path) -> Arrays:
    found: Arrays = {}
    objects = None
    with np.load(path, allow_pickle=False) as file:
        for key in file.files:
            try:
                value = file[key]
            except ValueError as error:
                if "allow_pickle" not in str(error):
                    raise
                objects = error  # beside a mel they do not matter
            else:
                found |= {key: value} if isinstance(value, np.ndarray) else {}
    if objects and not found:
        raise objects
    return found


def _pt(path: Path) -> Arrays:
    size = path.stat().st_size
    found = dict(_tensors(torch.load(path, map_location="cpu", weights_only=True), ""))
    for key, tensor in found.items():
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise MelError(f"{path}: {key} is no plain tensor", AGAIN)
        if tensor.numel() > size:  # a few bytes that are repeated would fill the memory
            raise MelError(f"{path}: {key} claims more values than the file has bytes", AGAIN)
    return {key: tensor.detach() for key, tensor in found.items()}


def _safetensors(path: Path) -> Arrays:
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118


READERS: dict[str, Callable[[Path], Arrays]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".pt": _pt,
    ".pth": _pt,
    ".safetensors": _safetensors,
}
SUFFIXES = tuple(READERS)


def _tensors(value: Any, key: str, depth: int = 0) -> Iterator[tuple[str, Tensor]]:
    """The tensors in tables and lists, by their way there."""
    if isinstance(value, Tensor):
        yield key or "mel", value
    elif isinstance(value, dict | list | tuple) and depth < DEPTH:
        pairs = value.items() if isinstance(value, dict) else enumerate(value)
        for name, inner in pairs:
            yield from _tensors(inner, f"{key}.{name}" if key else str(name), depth + 1)


def _real(array: np.ndarray | Tensor) -> bool:
    if isinstance(array, Tensor):
        return array.is_floating_point()
    return array.dtype.kind == "f"


def _tensor(array: np.ndarray | Tensor) -> Tensor:
    if isinstance(array, Tensor):
        return array.float()
    with np.errstate(over="ignore"):  # what becomes infinite is refused as that
        return torch.from_numpy(np.asarray(array, dtype=np.float32))


def _check(mel: Tensor, name: str) -> None:
    rows = max(1, BLOCK // mel.shape[1])
    for start in range(0, mel.shape[0], rows):
        finite = mel[start : start + rows].isfinite()
        if bool(finite.all()):
            continue
        row, column = (int(index) for index in (~finite).nonzero()[0])
        value = float(mel[start + row, column])
        hint = "The program that made it failed there: look for a division by 0 in it."
        if value == -math.inf:
            hint = "That is the logarithm of 0: clamp first, numpy.log(numpy.maximum(mel, 1e-5))."
        raise MelError(f"{name} holds {value} at ({start + row}, {column})", hint)


def _refused(path: Path, arrays: Arrays) -> MelError:
    """Says why nothing of what is there can be a mel."""
    if not arrays:
        return MelError(f"{path} holds no array", AGAIN)
    key, array = max(arrays.items(), key=lambda item: item[1].ndim)
    shape, kind = tuple(array.shape), str(array.dtype).removeprefix("torch.")
    if array.ndim < 2:
        hint = "A mel has two axes, bands and frames. Is this a sound, or was the mel flattened?"
        return MelError(f"{path} holds no mel: {key} is {kind} of shape {shape}", hint)
    hint = "A mel is of floating-point numbers."
    if kind.startswith("complex"):
        hint = "That is a spectrum: take its magnitudes and sum them over mel bands."
    return MelError(f"{path} holds {kind} values of shape {shape}, which are no mel", hint)


def _broken(path: Path, head: bytes, error: Exception) -> MelError:
    """Says what a file is that could not be read."""
    if isinstance(error, MemoryError):
        return MelError(f"{path} does not fit into memory, or is damaged", AGAIN)
    objects = isinstance(error, pickle.UnpicklingError) or re.search(
        "allow_pickle|Python", str(error)
    )
    if head.startswith(b"\x80") or (objects and head.startswith((b"\x93NUMPY", b"PK"))):
        return MelError(
            f"{path} is damaged, or holds Python objects, which can run programs: they stay shut",
            AGAIN,
        )
    if all(byte >= 32 or byte in b"\t\n\r\f" for byte in head):
        return MelError(
            f"{path} is text, not a mel",
            "Look at it with a text editor: it may be the error page of a download.",
        )
    kind = "npz" if path.suffix.lower() == ".npz" else path.suffix[1:].lower()
    return MelError(
        f"{path} is damaged or cut off, or no {kind} file", "Fetch it again, or make it anew."
    )


def _plain(key: str) -> str:
    """A key without what could lead a file's name elsewhere."""
    return re.sub(r"[^\w.\- ]", "_", key).lstrip(".")[:100] or "mel"


def _distinct(found: list[tuple[str, Tensor]]) -> list[tuple[str, Tensor]]:
    """The same with a number after names that come again."""
    taken: set[str] = set()
    named = []
    for name, mel in found:
        count, unique = 1, name
        while unique in taken:
            count += 1
            unique = f"{name}-{count}"
        taken.add(unique)
        named.append((unique, mel))
    return named
