"""Folders of audio as clips that training cuts its crops from."""

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from wavediff.audio import FileSource, probe
from wavediff.errors import DataError, WavediffError
from wavediff.resample import resample, resampled

EXTENSIONS = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aiff", ".aif")
READABLE = " ".join(EXTENSIONS)


def find(folders: tuple[Path, ...] | list[Path]) -> list[Path]:
    """Every audio file below `folders`, in a fixed order. A file stands for itself.

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
    return found


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
    store: Tensor | None = None  # (samples of all clips,) int16
    skipped: list[Skipped] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._starts = np.concatenate(([0], np.cumsum(self.lengths)))
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
        """(samples,) float32 from `start` of a clip on; silence where the clip is over."""
        length = int(self.lengths[clip])
        stop = min(start + samples, length)
        if self.store is not None:
            first = int(self._starts[clip])
            piece = self.store[first + start : first + stop].to(torch.float32) / 32768
        else:
            with FileSource(self.paths[clip]) as source:
                piece = resampled(source, self.rate).read(start, stop).mean(0)
        return torch.nn.functional.pad(piece, (0, samples - piece.shape[-1]))


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
    parents = {parent: n for n, parent in enumerate(sorted({path.parent for path in paths}))}
    skipped: list[Skipped] = []
    kept: list[tuple[Path, int]] = []
    sounds: list[Tensor] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        expected = list(pool.map(lambda path: _length(path, rate), paths))
        total = sum(length for length in expected if isinstance(length, int))
        whole = 2 * total <= memory_limit
        found = pool.map(lambda path: _decode(path, rate), paths) if whole else expected
        for path, sound in zip(paths, found, strict=True):
            if isinstance(sound, Skipped):
                skipped.append(sound)
            elif isinstance(sound, Tensor):
                sounds.append(sound)
                kept.append((path, sound.numel()))
            else:
                kept.append((path, sound))
    return Clips(
        rate,
        [path for path, _ in kept],
        np.array([length for _, length in kept], dtype=np.int64),
        np.array([parents[path.parent] for path, _ in kept], dtype=np.int64),
        torch.cat(sounds) if sounds else None,
        skipped,
    )


def _length(path: Path, rate: int) -> int | Skipped:
    try:
        info = probe(path)
    except WavediffError as error:
        return Skipped(path, error.message)
    return -(-info.samples * rate // info.rate)


def _decode(path: Path, rate: int) -> Tensor | Skipped:
    try:
        with FileSource(path) as source:
            audio = source.read(0, source.samples).mean(0)
            audio = resample(audio, source.rate, rate)
    except WavediffError as error:
        return Skipped(path, error.message)
    gain = min(1.0, 1 / max(1e-9, float(audio.abs().max())))  # lossy files decode beyond 1
    return (audio * (32767 * gain)).round().to(torch.int16)


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
