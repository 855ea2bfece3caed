"""Which inputs go to which outputs: files, folders with their tree, patterns, pipes."""

import glob
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wavediff.data import EXTENSIONS, find
from wavediff.errors import DataError, TaskError
from wavediff.writer import CONTAINERS

PIPE = "-"  # standard input or output


@dataclass(frozen=True)
class Job:
    """A sound to read and the place for what is made of it; either may be `PIPE`."""

    source: str
    target: str

    @property
    def picture(self) -> Path:
        """Where a picture of it goes."""
        return Path(self.target).with_suffix(".png")


def plan(inputs: Sequence[str], output: str | None, label: str) -> list[Job]:
    """The jobs for what a command line names.

    Without `output` results go beside their inputs as NAME.label.EXT. One file goes to exactly
    `output`; several go into that folder, the tree below each input folder kept. Results of
    earlier runs beside their recordings are no inputs.

    Raises DataError for folders without audio, TaskError when two inputs would go to one place.
    """
    found: dict[str, tuple[Path, Path]] = {}  # by absolute path: the file and the root of its tree
    for given in inputs:
        for file, root in _files(given):
            found.setdefault(_key(file), (file, root))
    sources = [
        (file, root)
        for file, root in found.values()
        if not file.stem.endswith(f".{label}") or _key(_recording(file)) not in found
    ]
    several = len(sources) > 1 or len(inputs) > 1 or str(sources[0][0]) != inputs[0]
    if several and any(str(file) == PIPE for file, _ in sources):
        raise TaskError("standard input is one recording", "give - alone, or files alone")
    if output is None:
        jobs = [Job(str(file), _beside(file, label)) for file, _ in sources]
    elif not several and (output == PIPE or not _is_folder(output)):
        jobs = [Job(str(sources[0][0]), output)]
    else:
        folder = _folder(output)
        jobs = [Job(str(file), str(folder / _within(file, root))) for file, root in sources]
    _refuse_collisions(jobs)
    return jobs


def outstanding(
    jobs: Sequence[Job], force: bool, skip_existing: bool, pictures: bool = False
) -> list[Job]:
    """The jobs to do, given what exists. Raises TaskError rather than overwrite anything."""
    if pictures and any(PIPE in (job.source, job.target) for job in jobs):
        raise TaskError("a picture needs files on both sides, not pipes", "leave out --plot")
    if skip_existing:
        return [job for job in jobs if job.target == PIPE or not Path(job.target).exists()]
    if force:
        return list(jobs)
    own = [job.source for job in jobs if _key(job.source) == _key(job.target)]
    if own and own[0] != PIPE:
        raise TaskError(f"{own[0]} would be overwritten by its result", "name another -o")
    targets = [Path(job.target) for job in jobs if job.target != PIPE]
    targets += [job.picture for job in jobs] if pictures else []
    there = [target for target in targets if target.exists()]
    if there:
        more = f", and {len(there) - 1} more" if there[1:] else ""
        raise TaskError(
            f"{there[0]} exists{more}", "-f overwrites, --skip-existing does what is missing"
        )
    return list(jobs)


def _files(given: str) -> list[tuple[Path, Path]]:
    """The files that an argument names, each with the root of its tree."""
    path = Path(given)
    if given == PIPE:
        return [(path, path)]
    if path.is_dir():
        return [(file, path) for file in _inside(path)]
    if path.exists() or not glob.has_magic(given):
        return [(path, path.parent)]  # one that is missing is an error of that file alone
    root = Path(*_leading(path.parts))
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    files = [m for m in matches if m.is_file() and m.suffix.lower() in EXTENSIONS]
    if not files:
        raise DataError(f"no audio file matches {given}", f"wavediff reads {' '.join(EXTENSIONS)}")
    return [(file, root) for file in files]


def _leading(parts: Iterable[str]) -> list[str]:
    """The parts of a pattern before its first star."""
    plain: list[str] = []
    for part in parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    return plain


def _inside(folder: Path) -> list[Path]:
    files = find([folder])
    if not files:
        raise DataError(f"no audio file in {folder}", f"wavediff reads {' '.join(EXTENSIONS)}")
    return files


def _recording(result: Path) -> Path:
    """The recording that NAME.label.EXT was made of."""
    return result.with_name(Path(result.stem).stem + result.suffix)


def _beside(file: Path, label: str) -> str:
    return PIPE if str(file) == PIPE else str(file.with_name(f"{file.stem}.{label}{_suffix(file)}"))


def _within(file: Path, root: Path) -> Path:
    """Where in an output folder the result of a file goes."""
    if str(file) == PIPE:
        return Path("stdin.wav")
    return file.relative_to(root).with_suffix(_suffix(file))


def _suffix(file: Path) -> str:
    return file.suffix if file.suffix.lower() in CONTAINERS else ".wav"


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _folder(output: str) -> Path:
    path = Path(output)
    if output == PIPE or path.is_file() or (not path.exists() and path.suffix in CONTAINERS):
        raise TaskError(
            f"several recordings do not fit into {'one pipe' if output == PIPE else output}",
            "name a folder with -o",
        )
    return path


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {_key(job.source): job.source for job in jobs if job.source != PIPE}
    taken: dict[str, str] = {}
    for job in jobs:
        key = _key(job.target)
        other = taken.setdefault(key, job.source)
        if other != job.source:
            raise TaskError(
                f"{other} and {job.source} would both go to {job.target}", "run them one by one"
            )
        if key in sources and key != _key(job.source):
            raise TaskError(
                f"the result of {job.source} would overwrite {sources[key]}", "name another -o"
            )


def _key(path: str | Path) -> str:
    return os.path.normcase(os.path.realpath(path))
