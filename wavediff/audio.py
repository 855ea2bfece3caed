"""Sound in: files of any length as sources that are read in blocks."""

import io
import shlex
import shutil
import stat
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from wavediff.errors import AudioError

CONTAINERS = ("WAV", "WAVEX", "RF64", "W64", "FLAC", "OGG", "MP3", "AIFF")
MAX_CHANNELS = 8
RATES = (1_000, 1_000_000)  # Hz; outside of these a header is damaged
BLOCK = 4096  # samples decoded at a time; damage is located to so many
TAIL_SECONDS = 10  # how far back a read may go before a compressed file is decoded anew
MAX_SAMPLES_PER_BYTE = 10_000  # no codec packs more; a header that claims more is not believed

KINDS = (  # offset, bytes found there, what the file is
    (4, b"ftyp", "an MP4 or M4A file"),
    (0, b"\x1aE\xdf\xa3", "a Matroska or WebM file"),
    (0, b"0&\xb2u", "a WMA file"),
    (8, b"AVI ", "an AVI video"),
    (0, b"#!AMR", "an AMR file"),
    (0, b"\xff\xf1", "an AAC file"),
    (0, b"\xff\xf9", "an AAC file"),
    (0, b"RIFF", "a damaged wav file, or one with a codec that is not supported"),
    (0, b"fLaC", "a damaged flac file"),
    (0, b"OggS", "a damaged ogg file, or one with a codec that is not supported"),
    (0, b"FORM", "a damaged aiff file"),
)


class Source(Protocol):
    """Sound that is pulled: consumers read ranges in increasing order with small overlaps."""

    rate: int
    channels: int
    samples: int

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        ...


@dataclass(frozen=True)
class Info:
    """What a file holds: rate in Hz, samples per channel, and the names soundfile uses."""

    rate: int
    channels: int
    samples: int
    container: str  # "WAV", "FLAC", ...
    subtype: str  # "PCM_24", "VORBIS", ...

    @property
    def seconds(self) -> float:
        return self.samples / self.rate


class ArraySource:
    """A tensor (channels, samples) at `rate` Hz as a source."""

    def __init__(self, audio: Tensor, rate: int) -> None:
        self.audio, self.rate = audio, rate
        self.channels, self.samples = audio.shape

    def read(self, start: int, stop: int) -> Tensor:
        out = self.audio.new_zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low < high:
            out[:, low - start : high - start] = self.audio[:, low:high]
        return out


class ForwardFile(sf.SoundFile):
    """A sound file without soundfile's own seek after every block.

    That seek fails in a flac of unknown length and is not exact in every mp3.
    """

    def seekable(self) -> bool:
        return False


class FileSource:
    """A sound file (wav, flac, ogg, opus, mp3, aiff) as a source; a context manager.

    Integer samples are scaled to [-1, 1). The last ten seconds are remembered, so overlapping
    forward reads decode everything once and give exactly what one whole read gives.

    `info`: of an earlier `probe`, saves looking for the end again (an mp3 is decoded for that).
    Raises `AudioError` here for a file that cannot be used, and in `read` for damage further in.
    """

    def __init__(self, path: str | Path | IO[bytes], name: str = "", info: Info | None = None):
        self._path, self._name = path, name or str(path)
        self._next, self._tail = 0, torch.zeros(0, 0)  # the next sample, and those before it
        file = _opened(Path(path), self._name) if isinstance(path, str | Path) else path
        self._head, self._size = file.read(4096), file.seek(0, io.SEEK_END)
        if file is not path:
            file.close()
        self._open()
        try:
            self.info = info or self._examine()
        except BaseException:
            self.close()
            raise
        self.rate, self.channels = self.info.rate, self.info.channels
        self.samples = self.info.samples

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        out = torch.zeros(self.channels, max(stop - start, 0))
        low, high = max(start, 0), min(stop, self.samples)
        if low < high:
            self._fill(out[:, low - start : high - start], low)
        return out

    def close(self) -> None:
        self._sound.close()
        if not isinstance(self._path, str | Path):
            self._path.close()

    def __enter__(self) -> "FileSource":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _fill(self, out: Tensor, start: int) -> None:
        if not self._next - self._tail.shape[1] <= start <= self._next:
            self._go(start)
        known = self._tail[:, self._tail.shape[1] - (self._next - start) :][:, : out.shape[1]]
        filled = known.shape[1]
        out[:, :filled] = known
        fresh = out[:, filled:]
        while filled < out.shape[1]:
            block = self._decode(out.shape[1] - filled)
            out[:, filled : filled + len(block)] = torch.from_numpy(block.T)
            filled += len(block)
        if fresh.shape[1]:
            keep = TAIL_SECONDS * self.rate
            self._tail = torch.cat((self._tail, fresh[:, -keep:]), 1)[:, -keep:].clone()

    def _go(self, start: int) -> None:
        """Make `start` the next sample: by seeking where that is exact, else by decoding."""
        self._tail = torch.zeros(self.channels, 0)
        if start < self._next:
            self._open()
        if self.info.subtype.startswith(("PCM", "FLOAT", "DOUBLE")):
            self._seek(start)
        while self._next < start:
            self._decode(start - self._next)

    def _open(self) -> None:
        """Start from the beginning."""
        if not isinstance(self._path, str | Path):
            self._path.seek(0)
        try:
            self._sound = ForwardFile(self._path)
        except (sf.SoundFileError, TypeError) as error:  # TypeError: a name that ends with .raw
            raise self._foreign() from error
        self._next = 0
        self._tail = torch.zeros(self._sound.channels, 0)

    def _seek(self, start: int) -> None:
        try:
            self._sound.seek(start)
            self._next = start
        except sf.SoundFileError:
            self._open()  # damage, or a flac of unknown length: decoding up to there tells

    def _decode(self, count: int, may_end: bool = False) -> np.ndarray:
        """The next samples (1 to `count`, channels); none at the end if it `may_end`."""
        position, self._next = self._next, sys.maxsize  # after an error, start from a fresh file
        try:
            block = self._sound.read(min(count, BLOCK), dtype="float32", always_2d=True)
        except sf.SoundFileError as error:
            raise self._broken(position) from error
        finite = np.isfinite(block).all(axis=1)
        if not finite.all():
            second = (position + int(finite.argmin())) / self._sound.samplerate
            raise AudioError(
                f"{self._name} holds NaN or infinite samples, first at {second:.3f} s",
                "Export it again from the program that made it, or cut that part out.",
            )
        if not len(block) and not may_end:
            raise self._broken(position)
        self._next = position + len(block)
        return block

    def _examine(self) -> Info:
        sound = self._sound
        if sound.format not in CONTAINERS:
            raise self._foreign()
        if not 1 <= sound.channels <= MAX_CHANNELS:
            raise AudioError(
                f"{self._name} has {sound.channels} channels, at most {MAX_CHANNELS} are supported",
                "Take the channels apart first, for example with ffmpeg's channelsplit filter.",
            )
        if not RATES[0] <= sound.samplerate <= RATES[1]:
            raise AudioError(
                f"{self._name} claims a rate of {sound.samplerate} Hz",
                f"Rates from {RATES[0]} to {RATES[1]} Hz are supported; is its header damaged?",
            )
        samples = self._count()
        if not samples:
            raise AudioError(
                f"{self._name} holds no samples",
                "Its header says so; a recording that was interrupted has to be repaired first.",
            )
        self._open()
        return Info(sound.samplerate, sound.channels, samples, sound.format, sound.subtype)

    def _count(self) -> int:
        """How many samples can be decoded, without trusting the header."""
        claimed = self._sound.frames
        if self._sound.format != "MP3" and claimed <= self._size * MAX_SAMPLES_PER_BYTE:
            if not claimed:
                return 0
            self._seek(claimed - 1)
            try:
                if self._next == claimed - 1 and len(self._decode(1)):
                    return claimed
            except AudioError:
                pass
            self._open()
            while self._next < claimed:  # finds the damage, and says where it is
                self._decode(BLOCK)
            return claimed
        while len(self._decode(BLOCK, may_end=True)):
            pass  # an mp3, whose header may be wrong, or a flac from a pipe
        return self._next

    def _broken(self, position: int) -> AudioError:
        second = f"{position / self._sound.samplerate:.2f}"
        keep = f"ffmpeg -i {shlex.quote(self._name)} -t {second} repaired.wav"
        return AudioError(
            f"{self._name} is damaged or cut off at {second} s",
            f"Fetch it again, or keep what is good: {keep}" if position else "Fetch it again.",
        )

    def _foreign(self) -> AudioError:
        """Says what a file is that cannot be read."""
        convert = f"Convert it first: ffmpeg -i {shlex.quote(self._name)} converted.wav"
        if not self._size:
            hint = "The recording or the download was interrupted."
            return AudioError(f"{self._name} is empty (0 bytes)", hint)
        for offset, magic, kind in KINDS:
            if self._head[offset:].startswith(magic):
                return AudioError(f"{self._name} is {kind}", convert)
        if all(byte >= 32 or byte in b"\t\n\r\f" for byte in self._head):
            return AudioError(
                f"{self._name} is text, not sound",
                "Look at it with a text editor: it may be the error page of a download.",
            )
        return AudioError(f"{self._name} is not a wav, flac, ogg, opus, mp3 or aiff file", convert)


class Remembered:
    """A source whose last stretch is kept, so that going back there computes nothing again.

    Rendering reads a block ahead of what is written; a compressed file would start anew for each,
    and a change of rate would be made for every reader.
    """

    def __init__(self, source: Source, seconds: float) -> None:
        self.rate, self.channels, self.samples = source.rate, source.channels, source.samples
        self._source, self._keep = source, round(seconds * source.rate)
        self._start, self._kept = 0, torch.zeros(source.channels, 0)  # where it begins, and it

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (channels, stop - start); zero outside of [0, samples)."""
        low, high = max(start, 0), min(stop, self.samples)
        if low >= high:
            return torch.zeros(self.channels, max(stop - start, 0))
        end = self._start + self._kept.shape[1]
        if not self._start <= low <= end:
            self._start, self._kept, end = low, self._kept[:, :0], low
        if high > end:
            kept = torch.cat((self._kept, self._source.read(end, high)), 1)
            drop = min(max(kept.shape[1] - self._keep, 0), low - self._start)
            self._start, self._kept = self._start + drop, kept[:, drop:].clone()
        piece = self._kept[:, low - self._start : high - self._start]
        return torch.nn.functional.pad(piece, (low - start, stop - high))


class _Spool:
    """Standard input in an unnamed temporary file.

    A damaged header can ask for an impossible seek; the C library expects no exception then.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 (closed by the source)
        shutil.copyfileobj(sys.stdin.buffer, self._file)
        self.tell, self.read, self.close = self._file.tell, self._file.read, self._file.close

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        try:
            return self._file.seek(offset, whence)
        except (OSError, ValueError):
            return self._file.seek(0, io.SEEK_END)


def probe(path: str | Path) -> Info:
    """What a file holds; raises `AudioError` for one that cannot be used."""
    with FileSource(path) as source:
        return source.info


def length(file: str | Path) -> float:
    """Seconds of sound in a file by its header, 0 where that cannot be told."""
    if not Path(file).is_file():
        return 0.0
    try:
        info = sf.info(file)
    except (sf.SoundFileError, TypeError):  # TypeError: a name that ends with .raw
        return 0.0
    return info.frames / info.samplerate


def read(path: str | Path) -> tuple[Tensor, int]:
    """A whole file: float32 (channels, samples), and its rate in Hz."""
    with FileSource(path) as source:
        return source.read(0, source.samples), source.rate


def open_input(path: str | Path) -> FileSource:
    """A file, or standard input for "-": that goes to a temporary file first, never to memory."""
    if str(path) == "-":
        return FileSource(_Spool(), "standard input")  # type: ignore[arg-type]
    return FileSource(path)


def _opened(path: Path, name: str) -> IO[bytes]:
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return path.open("rb")
    except FileNotFoundError as error:
        raise AudioError(f"{name} does not exist", "Check the name and the folder.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise AudioError(f"{name} cannot be opened: {reason}", "Check name and rights.") from error
    if stat.S_ISDIR(mode):
        raise AudioError(f"{name} is a folder, not a sound file", "Name a file in it.")
    raise AudioError(f"{name} is a pipe or a device", "Pipe it in, and give - as the input.")
