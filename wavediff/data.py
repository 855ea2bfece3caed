"""Folders of audio as clips that training cuts its crops from."""

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavediff.audio import FileSource, Info, probe
from wavediff.errors import DataError, WavediffError
from wavediff.resample import resampled

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif")
READABLE = " ".join(EXTENSIONS)
LOUDEST = 1e5  # of a sample; programs that forget to scale write 32768, beyond that is damage
BLOCK = 1 << 20  # samples decoded at a time


def find(folders: tuple[Path, ...] | list[Path]) -> list[Path]:
    """Every audio file below `folders`, once, in a fixed order. A file stands for itself.

    Raises DataError for a folder that is not there.
    """
    found: list[Path] = []
    for folder in map(Path, folders):
        if folder.is_file():
            found.append(folder)
        elif folder.is_dir():
            found += sorted(
                path
                for path in folder.rglob("*")
                if path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")
            )
        else:
            raise DataError(f"{folder} is not there", "name folders of audio files")
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Skipped:
    """A file that could not be used, and why."""

    path: Path
    reason: str


@dataclass
class Clips:
    """Recordings at one rate, mono, from which crops are cut.

    Small corpora are held in memory as 16-bit samples; of larger ones only the list is, and each
    crop is read from its file.
    """

    rate: int
    paths: list[Path]
    lengths: np.ndarray  # samples of each clip, at `rate`
    groups: np.ndarray  # the folder of each clip, numbered
    infos: list[Info]  # what the file of each clip holds
    skipped: list[Skipped] = field(default_factory=list)
    store: "Store | None" = None

    def __post_init__(self) -> None:
        self._chances: dict[float, np.ndarray] = {}

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def seconds(self) -> float:
        """The length of all clips together."""
        return float(self.lengths.sum()) / self.rate

    def draw(self, rng: np.random.Generator, balance: float) -> int:
        """A clip, its chance its length times its folder's total length to `balance - 1`: with 1
        every second counts alike, with 0 every folder does."""
        if balance not in self._chances:
            totals = np.bincount(self.groups, self.lengths)
            self._chances[balance] = np.cumsum(
                self.lengths * totals[self.groups] ** (balance - 1.0)
            )
        chances = self._chances[balance]
        return int(np.searchsorted(chances, rng.random() * chances[-1]))

    def crop(self, clip: int, start: int, samples: int) -> Tensor:
        """(samples,) float32 from `start` of a clip on; silence where the clip is over.

        Raises DataError for a file that has become unreadable, or is damaged further in.
        """
        stop = max(start, min(start + samples, int(self.lengths[clip])))
        if self.store is not None:
            first = int(self.store.starts[clip])
            piece = self.store.steps[first + start : first + stop] * float(self.store.scales[clip])
        else:
            path = self.paths[clip]
            try:
                with FileSource(path, info=self.infos[clip]) as source:
                    piece = resampled(_Mono(source, path), self.rate).read(start, stop)[0]
            except WavediffError as error:
                raise DataError(error.message, "take that file out and start again") from error
        return torch.nn.functional.pad(piece, (0, samples - piece.shape[-1]))


@dataclass(frozen=True)
class Store:
    """Recordings in memory as 16-bit steps, their size fitted to each: none is clipped."""

    steps: Tensor  # (samples of all files,) int16
    starts: np.ndarray  # of each clip, in the steps
    scales: np.ndarray  # of each clip: the size of a step


def load(folders: list[Path], rate: int, memory_limit: float = 4e9) -> Clips:
    """Read every sound below `folders`; broken files are skipped and listed.

    Corpora of up to `memory_limit` bytes at `rate` are held in memory. Raises DataError when
    nothing is left to learn from.
    """
    clips = load_files(find(folders), rate, memory_limit)
    if not len(clips):
        names = ", ".join(str(folder) for folder in folders) or "no folder"
        first = clips.skipped[0] if clips.skipped else None
        cause = f"; {len(clips.skipped)} broken, {first.path.name}: {first.reason}" if first else ""
        raise DataError(f"no usable audio in {names}{cause}", "wavediff reads " + READABLE)
    return clips


def load_files(paths: list[Path], rate: int, memory_limit: float) -> Clips:
    """The same from a list of files; it may come out empty."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        probed = list(pool.map(_probe, paths))
        skipped = [file for file in probed if isinstance(file, Skipped)]
        files = [file for file in probed if isinstance(file, _File)]
        lengths = [file.length(rate) for file in files]
        store = None
        if 2 * sum(lengths) <= memory_limit:
            steps = torch.zeros(sum(lengths), dtype=torch.int16)
            scales = list(pool.map(_decode, files, itertools.repeat(rate), steps.split(lengths)))
            skipped += [scale for scale in scales if isinstance(scale, Skipped)]
            good = [n for n, scale in enumerate(scales) if isinstance(scale, float)]
            starts = np.cumsum(lengths) - lengths
            store = Store(steps, starts[good], np.array([scales[n] for n in good], dtype=float))
            files, lengths = [files[n] for n in good], [lengths[n] for n in good]
    parents = {parent: n for n, parent in enumerate(sorted({file.path.parent for file in files}))}
    return Clips(
        rate,
        [file.path for file in files],
        np.array(lengths, dtype=np.int64),
        np.array([parents[file.path.parent] for file in files], dtype=np.int64),
        [file.info for file in files],
        skipped,
        store,
    )


@dataclass(frozen=True)
class _File:
    path: Path
    info: Info

    def length(self, rate: int) -> int:
        """Samples at `rate`."""
        return -(-self.info.samples * rate // self.info.rate)


def _probe(path: Path) -> _File | Skipped:
    try:
        return _File(path, probe(path))
    except WavediffError as error:
        return Skipped(path, error.message)


class _Mono:
    """A file's channels averaged, as a source."""

    channels = 1

    def __init__(self, file: FileSource, path: Path) -> None:
        self.file, self.path, self.rate, self.samples = file, path, file.rate, file.samples

    def read(self, start: int, stop: int) -> Tensor:
        """(1, stop - start). Raises DataError for numbers that are no sound."""
        sound = self.file.read(start, stop).mean(0, keepdim=True)
        if sound.numel() and not float(sound.abs().max()) < LOUDEST:
            raise DataError(f"{self.path} has samples beyond {LOUDEST:g}", "export it again")
        return sound


def _decode(file: _File, rate: int, steps: Tensor) -> float | Skipped:
    """Fill in the steps (samples,), and answer with their size."""
    try:
        with FileSource(file.path, info=file.info) as source:
            mono = resampled(_Mono(source, file.path), rate)
            starts = range(0, len(steps), BLOCK)
            pieces = [mono.read(start, min(start + BLOCK, len(steps)))[0] for start in starts]
    except WavediffError as error:
        return Skipped(file.path, error.message)
    sound = torch.cat(pieces)
    size = max(1e-9, float(sound.abs().max())) / 32767
    steps.copy_((sound / size).round())
    return size


def twins(noisy: Path, clean: Path, rate: int, memory_limit: float) -> tuple[Clips, Clips]:
    """Recordings that exist in both folders under the same relative name, extensions aside.

    Raises DataError when there are none, or when two of them differ in length.
    """
    theirs = {path.relative_to(clean).with_suffix(""): path for path in find([clean])}
    ours = {path.relative_to(noisy).with_suffix(""): path for path in find([noisy])}
    shared = [name for name in ours if name in theirs]
    if not shared:
        raise DataError(f"no file of {noisy} has its twin in {clean}", "twins have the same name")
    first = load_files([ours[name] for name in shared], rate, memory_limit)
    second = load_files([theirs[name] for name in shared], rate, memory_limit)
    for broken in (*first.skipped, *second.skipped):
        raise DataError(f"{broken.path}: {broken.reason}", "mend it, or take out both twins")
    for path, mine, other in zip(first.paths, first.lengths, second.lengths, strict=True):
        if abs(int(mine) - int(other)) > rate // 100:
            raise DataError(f"{path} and its clean twin differ in length", "twins are aligned")
    return first, second
