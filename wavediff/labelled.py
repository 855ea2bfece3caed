"""Folders of sound whose sub-folders are labels: what a generator and its judge learn from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import Tensor

from wavediff.data import READABLE, Clips, Skipped, Store, find, load_files
from wavediff.errors import DataError

LAYOUT = "sort the files into one sub-folder for each label: FOLDER/kick, FOLDER/snare"


@dataclass(frozen=True)
class Labelled:
    """Clips, mono at one rate, each with a label."""

    clips: Clips
    labels: tuple[str, ...]  # sorted; one that is empty where the folders have no sub-folders
    label_of: np.ndarray  # (clips,), the place of each clip's label in `labels`
    names: tuple[str, ...]  # of each file below its folder

    def __len__(self) -> int:
        return len(self.clips)

    @property
    def files(self) -> tuple[Path, ...]:
        """The file of each clip."""
        return tuple(self.clips.paths)

    @property
    def counts(self) -> dict[str, int]:
        """How many clips each label has."""
        totals = np.bincount(self.label_of, minlength=len(self.labels))
        return dict(zip(self.labels, totals.tolist(), strict=True))

    def sound(self, clip: int) -> Tensor:
        """A whole clip, (samples,) float32. Raises DataError for a file that has gone bad."""
        return self.clips.crop(clip, 0, int(self.clips.lengths[clip]))

    def split(self, share: float, seed: int = 0) -> tuple["Labelled", "Labelled"]:
        """The clips for training, and about `share` of them for validation.

        A hash of its name decides where a file goes: files that are added later move no other.
        The labels of both are those of the whole, also where one of them gets no clip.
        """
        held = np.array([_chance(name, seed) < share for name in self.names], dtype=bool)
        return self.part(np.flatnonzero(~held)), self.part(np.flatnonzero(held))

    def part(self, index: np.ndarray) -> "Labelled":
        """Some of the clips, in the order of `index`."""
        clips, store = self.clips, self.clips.store
        chosen = replace(
            clips,
            paths=[clips.paths[n] for n in index],
            lengths=clips.lengths[index],
            groups=clips.groups[index],
            infos=[clips.infos[n] for n in index],
            store=store and Store(store.steps, store.starts[index], store.scales[index]),
        )
        names = tuple(self.names[n] for n in index)
        return Labelled(chosen, self.labels, self.label_of[index], names)


def load_labelled(
    folders: str | Path | Sequence[str | Path], rate: int, limit: float = 4e9, flat: bool = False
) -> Labelled:
    """Read folders with one sub-folder a label, at `rate` Hz, channels averaged.

    A label may come from several of the folders, and have sub-folders itself. Files in no label's
    folder and broken ones are listed in `clips.skipped`. Corpora of up to `limit` bytes are held
    in memory. `flat` also takes folders with a single label, or with none, whose label is empty.

    Raises DataError for folders that are not there, labels without a usable sound, and, unless
    `flat`, for fewer than two labels.
    """
    given = [Path(folders)] if isinstance(folders, str | Path) else [Path(f) for f in folders]
    where = ", ".join(map(str, given)) or "no folder"
    label, name = dict[Path, str](), dict[Path, str]()
    for folder in given:
        if folder.is_file():
            raise DataError(f"{folder} is a file", "name a folder with one sub-folder a label")
        for path in find([folder]):
            parts = path.relative_to(folder).parts
            label[path], name[path] = parts[0] if parts[1:] else "", "/".join(parts)
    expected = {sub.name for folder in given for sub in folder.iterdir() if _is_label(sub)}
    stray = []
    if expected or not flat:
        stray = [Skipped(path, "in no label's folder") for path in label if not label[path]]
        if len(expected) < 2 and not flat:
            count = f"one label, {expected.pop()}" if expected else "no labels"
            raise DataError(f"{where} has {count}; it takes two", LAYOUT)
    else:
        expected = {""}
    wanted = [path for path in label if label[path] in expected]
    clips = load_files(wanted, rate, limit)
    clips.skipped += stray
    found = {label[path] for path in clips.paths}
    if missing := sorted(expected - found):
        what = f"the label {missing[0]} of {where}" if missing[0] else where
        broken = [skip for skip in clips.skipped if label[skip.path] == missing[0]]
        cause = f"; {broken[0].path.name}: {broken[0].reason}" if broken else ""
        hint = f"fill that folder or take it out; wavediff reads {READABLE}"
        raise DataError(f"{what} has no usable sound{cause}", hint)
    labels = tuple(sorted(expected))
    place = {label: n for n, label in enumerate(labels)}
    label_of = np.array([place[label[path]] for path in clips.paths], dtype=np.int64)
    return Labelled(clips, labels, label_of, tuple(name[path] for path in clips.paths))


def _is_label(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")


def _chance(name: str, seed: int) -> float:
    """A number of [0, 1) that is always the same for a name."""
    digest = hashlib.blake2b(f"{seed},{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64


def labels_in(folders: Sequence[Path]) -> tuple[str, ...]:
    """The labels that `load_labelled` finds, sorted, without reading a file."""
    subs = (sub for folder in folders if folder.is_dir() for sub in folder.iterdir())
    return tuple(sorted({sub.name for sub in subs if _is_label(sub)}))
