"""Which inputs go to which outputs: files, folders with their tree, patterns, pipes."""

import glob
import os
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from wavediff.data import EXTENSIONS
from wavediff.errors import DataError, TaskError
from wavediff.melfile import SUFFIXES
from wavediff.writer import CONTAINERS

PIPE = "-"  # standard input or output

Parts = Callable[[str], list[str]]  # the names of the mels in a file


@dataclass(frozen=True)
class Job:
    """A sound to read and the place for what is made of it; either may be `PIPE`."""

    source: str
    target: str
    part: str = ""  # the name of one of several mels in the source

    @property
    def picture(self) -> Path:
        """Where a picture of it goes."""
        return Path(self.target).with_suffix(".png")


@dataclass(frozen=True)
class Invention(Job):
    """A sound to invent and the place for it; its source is what its labels are called."""

    labels: tuple[tuple[str, float], ...] = ()  # with their shares
    number: int = 0  # which of all those that a seed can give


AnyJob = TypeVar("AnyJob", bound=Job)


def plan(
    inputs: Sequence[str], output: str | None, label: str, parts: Parts | None = None
) -> list[Job]:
    """The jobs for what a command line names.

    Without `output` results go beside their inputs as NAME.label.EXT. One file goes to exactly
    `output`; several go into that folder, the tree below each input folder kept. Results of
    earlier runs, beside their recordings or in a folder among them, are no inputs.

    `parts` is for a task that takes mels too: NAME.npy becomes NAME.wav, and of a file with several
    mels each becomes NAME-PART.wav.

    Raises DataError for folders without audio, TaskError when two inputs would go to one place.
    """
    extensions = EXTENSIONS if parts is None else (*EXTENSIONS, *SUFFIXES)
    found: dict[str, tuple[Path, Path]] = {}  # by absolute path: the file and the root of its tree
    for given in inputs:
        for file, root in _files(given, extensions):
            found.setdefault(_key(file), (file, root))
    sources = [
        (file, root)
        for file, root in found.values()
        if not file.stem.endswith(f".{label}") or _key(_recording(file)) not in found
    ]
    several = len(sources) > 1 or len(inputs) > 1 or str(sources[0][0]) != inputs[0]
    if several and any(str(file) == PIPE for file, _ in sources):
        raise TaskError("standard input is one input", "give - alone, or files alone")
    folder = None
    if output is None:
        jobs = [Job(str(file), _beside(file, label)) for file, _ in sources]
    elif not several and (output == PIPE or not _is_folder(output)):
        jobs = [Job(str(sources[0][0]), output)]
    else:
        folder = _folder(output)
        jobs = [Job(str(file), str(folder / _within(file, root))) for file, root in sources]
    if parts is not None:
        jobs = [each for job in jobs for each in _split(job, parts(job.source))]
    made = {_key(job.target) for job in jobs}

    def is_result(job: Job) -> bool:
        key = _key(job.source)
        if job.source == PIPE or key not in made:
            return False
        return output is None or (folder is not None and _below(folder, found[key][1]))

    jobs = [job for job in jobs if not is_result(job)]
    _refuse_collisions(jobs)
    return jobs


def inventions(
    output: str | None,
    mixtures: Sequence[dict[str, float]],
    seed: int,
    count: int,
    name: str,
    folders: bool = False,
) -> list[Invention]:
    """The sounds to invent: `count` of each mixture of labels, by their shares.

    They are NAME-SEED-0000.wav … in the folder `output` or here, in a folder NAME below that if
    there shall be `folders`; NAME is the labels, or `name` without any. A single sound may go to
    exactly the file `output`, or to a pipe. Raises TaskError where several would.
    """
    several = count > 1 or len(mixtures) > 1
    if output and not several and not folders and _is_sound(output):
        labels = mixtures[0]
        return [Invention(_called(labels) or name, output, labels=tuple(labels.items()))]
    folder = _folder(output or ".")
    items = []
    for labels in mixtures:
        called = _plain(_called(labels) or name)
        within = folder / called if folders else folder
        for number in range(count):
            target = str(within / f"{called}-{seed}-{number:04d}.wav")
            source = _called(labels) or name
            items.append(Invention(source, target, "", tuple(labels.items()), number))
    _refuse_collisions(items)
    return items


def within(output: str | None, name: str) -> str:
    """The file that `output` names, else `name` in that folder or here."""
    return output if output and _is_sound(output) else str(Path(output or ".", name))


def share(jobs: Sequence[AnyJob], shard: str | None) -> list[AnyJob]:
    """Every n-th of the jobs from the i-th on, for the `shard` "i/n": one of n processes or hosts.

    Without one, the rank of a process that torchrun started decides. All of them have to be given
    the same inputs; which is whose does not depend on what is done already. Raises TaskError.
    """
    rank, world = os.environ.get("RANK"), os.environ.get("WORLD_SIZE")
    if shard is None:
        return list(jobs) if rank is None or world is None else list(jobs[int(rank) :: int(world)])
    found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", shard)
    if not found or not 1 <= int(found[1]) <= int(found[2]):
        raise TaskError(f"{shard} is no share of the work", "--shard 2/8 is the second of eight")
    return list(jobs[int(found[1]) - 1 :: int(found[2])])


def outstanding(
    jobs: Sequence[AnyJob], force: bool, skip_existing: bool, pictures: bool = False
) -> list[AnyJob]:
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


def _files(given: str, extensions: Sequence[str]) -> list[tuple[Path, Path]]:
    """The files that an argument names, each with the root of its tree."""
    if not given:
        raise DataError("an input has no name", "is a variable of the shell empty?")
    path = Path(given)
    if given == PIPE:
        return [(path, path)]
    if path.is_dir():
        return [(file, path) for file in _inside(path, extensions)]
    if path.exists() or not glob.has_magic(given):
        return [(path, path.parent)]  # one that is missing is an error of that file alone
    root = Path(*_leading(path.parts))
    matches = [Path(match) for match in sorted(glob.glob(given, recursive=True))]
    files = [m for m in matches if m.is_file() and m.suffix.lower() in extensions]
    if not files:
        raise _nothing("matches", given, extensions)
    return [(file, root) for file in files]


def _leading(parts: Iterable[str]) -> list[str]:
    """The parts of a pattern before its first star."""
    plain: list[str] = []
    for part in parts:
        if glob.has_magic(part):
            break
        plain.append(part)
    return plain


def _inside(folder: Path, extensions: Sequence[str]) -> list[Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in extensions and not path.name.startswith(".")
    )
    if not files:
        raise _nothing("in", folder, extensions)
    return files


def _nothing(where: str, place: str | Path, extensions: Sequence[str]) -> DataError:
    kind = "audio file" if extensions == EXTENSIONS else "mel or audio file"
    return DataError(f"no {kind} {where} {place}", f"this reads {' '.join(extensions)}")


def _is_mel(source: str) -> bool:
    return Path(source).suffix.lower() in SUFFIXES


def _split(job: Job, parts: Sequence[str]) -> list[Job]:
    """One job for each mel of a file."""
    if len(parts) < 2:
        return [job]
    if job.target == PIPE:
        raise TaskError(
            f"{len(parts)} mels do not fit into one pipe", "name a folder or a file with -o"
        )
    target, stem = Path(job.target), Path(job.source).stem
    target = target if target.suffix else target / f"{stem}.wav"
    jobs = []
    for part in parts:
        tail = part.removeprefix(stem) if part.startswith(f"{stem}-") else f"-{part}"
        jobs.append(Job(job.source, str(target.with_stem(target.stem + tail)), part))
    return jobs


def _called(labels: dict[str, float]) -> str:
    """Labels in a word, with the shares that are not 1: kick, or kick0.7+snare0.3."""
    return "+".join(f"{label}{share:g}" if share != 1 else label for label, share in labels.items())


def _plain(name: str) -> str:
    """A name for a file, without what could lead elsewhere."""
    return re.sub(r"[^\w.+\- ]", "_", name).lstrip(".") or "sound"


def _recording(result: Path) -> Path:
    """The recording that NAME.label.EXT was made of."""
    return result.with_name(Path(result.stem).stem + result.suffix)


def _beside(file: Path, label: str) -> str:
    if str(file) == PIPE:
        return PIPE
    name = f"{file.stem}.wav" if _is_mel(str(file)) else f"{file.stem}.{label}{_suffix(file)}"
    return str(file.with_name(name))


def _within(file: Path, root: Path) -> Path:
    """Where in an output folder the result of a file goes."""
    if str(file) == PIPE:
        return Path("stdin.wav")
    return file.relative_to(root).with_suffix(_suffix(file))


def _suffix(file: Path) -> str:
    return file.suffix if file.suffix.lower() in CONTAINERS else ".wav"


def _is_sound(output: str) -> bool:
    """Whether an output is meant as a file, or a pipe."""
    named = output == PIPE or Path(output).suffix.lower() in CONTAINERS
    return named and not _is_folder(output)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or Path(output).is_dir()


def _folder(output: str) -> Path:
    path = Path(output)
    if output == PIPE or path.is_file() or (not path.exists() and path.suffix in CONTAINERS):
        raise TaskError(
            f"several sounds do not fit into {'one pipe' if output == PIPE else output}",
            "name a folder with -o",
        )
    return path


def _refuse_collisions(jobs: Sequence[Job]) -> None:
    sources = {_key(job.source): job.source for job in jobs if job.source != PIPE}
    taken: dict[str, Job] = {}
    for job in jobs:
        key = _key(job.target)
        other = taken.setdefault(key, job)
        if other is not job:
            raise TaskError(
                f"{other.part or other.source} and {job.part or job.source} would both go to "
                f"{job.target}",
                "run them one by one",
            )
        if key in sources and key != _key(job.source):
            raise TaskError(
                f"the result of {job.source} would overwrite {sources[key]}", "name another -o"
            )


def _below(folder: Path, root: Path) -> bool:
    return Path(_key(root)) in Path(_key(folder)).parents


def _key(path: str | Path) -> str:
    return os.path.normcase(os.path.realpath(path))
