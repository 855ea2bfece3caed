"""What a vocoder is given: mels in files, recordings, or either through a pipe."""

import shlex
import shutil
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import cast, get_args

from torch import Tensor

from wavediff import melfile
from wavediff.audio import FileSource, length
from wavediff.errors import AudioError, MelError
from wavediff.mel import PRESETS, MelPreset, Scaling, convert, convertible, rescale
from wavediff.mel import preset as named
from wavediff.melguess import WORDS, guess, matches

PIPE = "-"  # standard input
NUMPY = b"\x93NUMPY"  # what a .npy begins with
EXACT = ("ln", "unit-db", "log10", "db", "magnitude")  # scalings that turn into each other exactly
CERTAIN = 0.8  # confidence from which on a guess is followed


class Given:
    """Opens what a vocoder of a preset is given, mels made fit for it; a context manager.

    Standard input goes to a temporary file first. The last mel file is remembered, for it may hold
    several mels. Several threads may ask.
    """

    def __init__(
        self, preset: MelPreset, given: str | None = None, scaling: str | None = None
    ) -> None:
        """`given` and `scaling` are what the mels are said to be: then nothing is guessed.

        Raises MelError where that cannot become a mel of the preset.
        """
        self.preset = preset
        self._source = named(given) if given else preset
        if scaling is not None and scaling not in get_args(Scaling):
            raise MelError(
                f"no scaling is called {scaling}", f"There are {', '.join(get_args(Scaling))}."
            )
        reason = convertible(self._source, preset)
        if reason:
            raise MelError(
                f"a mel of the preset {given} cannot become one of {preset.name}: {reason}",
                f"Use a model of the preset {given}; wavediff models list shows what there is.",
            )
        self._told = given is not None or scaling is not None
        self._scaling = cast("Scaling", scaling or self._source.logarithm)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._piped: Path | None = None
        self._last: tuple[str, dict[str, Tensor]] = ("", {})
        self._one_by_one = threading.Lock()

    def is_mel(self, source: str) -> bool:
        """Whether that is a mel file, by its name; a pipe, by how it begins."""
        return self._path(source).suffix.lower() in melfile.SUFFIXES

    def parts(self, source: str) -> list[str]:
        """The names of the mels in a file.

        None in a recording, and none in a file that cannot be read: `mel` says why.
        """
        try:
            return list(self._mels(source)) if self.is_mel(source) else []
        except MelError:
            return []

    def mel(self, source: str, part: str = "") -> tuple[Tensor, str]:
        """A mel of the preset, float32 (bands, frames), and how it became one, in words.

        `part` names one of several. Raises MelError for what is no such mel and cannot be made one.
        """
        with self._one_by_one:
            mels = self._mels(source)
        if part and part not in mels:
            raise MelError(f"{source} no longer holds {part}", "Run it again.")
        # How numbers lie in memory decides their last bit, which phases can hang on.
        values = (mels[part] if part else next(iter(mels.values()))).contiguous()
        name = self._name(source) + (f": {part}" if part else "")
        if not self._told:
            return self._guessed(values, name, source)
        if values.shape[0] != self._source.bands:
            matches(values, self._source, name)
        values = self._converted(values, self._scaling, self._source)
        self._check(values, name, source)
        return values, f"taken as {WORDS[self._scaling]}"

    def length(self, source: str, part: str = "") -> float:
        """Seconds of sound in a mel or a recording, 0 where that cannot be told."""
        if not self.is_mel(source):
            return length(self._path(source))
        try:
            mel, _ = self.mel(source, part)
        except MelError:
            return 0.0
        return mel.shape[1] * self.preset.hop / self.preset.rate

    def recording(self, source: str) -> FileSource:
        """A sound file, or standard input. Raises AudioError."""
        return FileSource(self._path(source), self._name(source))

    def _guessed(self, values: Tensor, name: str, source: str) -> tuple[Tensor, str]:
        """A mel as it is, or converted where there is no doubt about what it is."""
        try:
            self._check(values, name, source)
        except MelError as error:
            best, *others = guess(values)
            alike = [
                one
                for one in (best, *others)
                if (one.scaling, one.transposed) == (best.scaling, best.transposed)
                and one.preset is not None
                and convertible(PRESETS[one.preset], self.preset) is None
            ]
            own = best.scaling == self.preset.logarithm and not best.transposed
            if best not in alike or own or best.scaling not in get_args(Scaling):
                raise
            scaling = cast("Scaling", best.scaling)
            if scaling not in EXACT or sum(one.confidence for one in alike) < CERTAIN:
                hint = f"{error.hint} If you are sure, add --scaling {scaling}."
                raise MelError(error.message, hint) from None
            values = values.T if best.transposed else values
            values = self._converted(values, scaling, PRESETS[str(alike[0].preset)])
            self._check(values, name, source)
            return values, f"taken as {WORDS[scaling]}"
        return values, ""

    def _converted(self, values: Tensor, scaling: Scaling, origin: MelPreset) -> Tensor:
        return convert(rescale(values, scaling, origin), origin, self.preset)

    def _check(self, values: Tensor, name: str, source: str) -> None:
        try:
            matches(values, self.preset, name)
        except MelError as error:
            reason = error.hint.partition("wavediff check")[0]
            file = "FILE.npy" if source == PIPE else shlex.quote(source)
            raise MelError(error.message, f"{reason}wavediff check {file} tells more.") from None

    def _mels(self, source: str) -> dict[str, Tensor]:
        if self._last[0] != source:
            path = self._path(source)
            try:
                self._last = source, dict(melfile.read(path, self._source.bands))
            except MelError as error:
                message = error.message.replace(str(path), self._name(source))
                raise MelError(message, error.hint) from None
        return self._last[1]

    def _name(self, source: str) -> str:
        return "standard input" if source == PIPE else source

    def _path(self, source: str) -> Path:
        if source != PIPE:
            return Path(source)
        if self._piped is None:
            self._folder = tempfile.TemporaryDirectory(prefix="wavediff-")
            path = Path(self._folder.name, PIPE)
            try:
                with path.open("wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
                with path.open("rb") as file:
                    mel = file.read(len(NUMPY)) == NUMPY
                self._piped = path.rename(path.with_suffix(".npy")) if mel else path
            except OSError as error:
                raise AudioError(
                    f"standard input cannot be kept: {error.strerror}",
                    f"is the disk of {tempfile.gettempdir()} full?",
                ) from None
        return self._piped

    def __enter__(self) -> "Given":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._last = ("", {})  # a mapped file cannot be removed on Windows
        if self._folder is not None:
            self._folder.cleanup()
