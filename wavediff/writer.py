"""Sound out: files that are written beside their place and renamed when they are whole."""

import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from wavediff.audio import MAX_CHANNELS, ForwardFile, probe
from wavediff.audio import RATES as LIMITS
from wavediff.errors import AudioError

CONTAINERS = {
    ".wav": "WAV",
    ".flac": "FLAC",
    ".ogg": "OGG",
    ".oga": "OGG",
    ".opus": "OGG",
    ".mp3": "MP3",
    ".aiff": "AIFF",
    ".aif": "AIFF",
}
LADDER = ("PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE")
BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32}
BYTES = {**{name: bits // 8 for name, bits in BITS.items()}, "FLOAT": 4, "DOUBLE": 8}
RATES = {  # Hz that an encoder takes; libvorbis crashes above 200 kHz
    "OPUS": (8000, 12000, 16000, 24000, 48000),
    "MPEG_LAYER_III": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "VORBIS": range(8000, 192001),
}
ANY_RATE = range(LIMITS[0], LIMITS[1] + 1)
FOUR_GB = 2**32 - 4096  # bytes of sound in a wav or aiff, headers taken off
BLOCK = 4096  # samples a call: one large write overflows the stack inside libvorbis


def choose_subtype(path: str | Path, wanted: str = "PCM_16") -> str:
    """What a file of this name is written as, given the subtype of the input.

    The wanted subtype if the container holds it, else the nearest better, else its best.
    Lossy and rare subtypes become 16 bits in wav, flac and aiff.
    Raises `AudioError` for an extension that is not known.
    """
    container = _container(path)
    if container == "MP3":
        return "MPEG_LAYER_III"
    if container == "OGG":
        return "OPUS" if wanted == "OPUS" or Path(path).suffix.lower() == ".opus" else "VORBIS"
    possible = [name for name in LADDER if sf.check_format(container, name)]
    rung = LADDER.index(wanted if wanted in LADDER else "PCM_16")
    return next((name for name in LADDER[rung:] if name in possible), possible[-1])


class Writer:
    """Writes a sound file block by block; a context manager.

    The sound goes to a hidden file in the folder of `path`, which takes its place at the end of
    the `with` block; after any exception it is removed and an older file at `path` stays as it
    was. A `path` of "-" sends a wav to standard output at the end.
    Samples beyond full scale are limited, save in float files; `limited` counts them and `peak`
    is the largest magnitude. A wav that grows beyond 4 GB becomes RF64. Ogg takes the last of six
    or more channels for a subwoofer and keeps only its lowest band.

    Raises `AudioError` for what the container cannot hold, a place that cannot be written, NaN.
    """

    def __init__(self, path: str | Path, rate: int, channels: int, subtype: str = "PCM_16") -> None:
        self.limited, self.peak, self.samples = 0, 0.0, 0
        self.rate, self.channels = rate, channels
        self._stdout = str(path) == "-"
        self._name = "standard output" if self._stdout else str(path)
        if self._stdout:
            if sys.stdout.isatty():
                raise AudioError("standard output is a terminal", "Pipe it on, or name a file.")
            path = Path(tempfile.gettempdir(), "stdout.wav")
        self.subtype = choose_subtype(path, subtype)
        self._target = Path(os.path.realpath(path))  # a link stays, the file behind it changes
        self._container = _container(path)
        self._check()
        self._files: list[Path] = []
        self._sound: ForwardFile | None = None
        try:
            self._open(self._container)
        except BaseException:
            self.abort()
            raise

    def write(self, block: Tensor) -> None:
        """Append float (channels, n)."""
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"({self.channels}, n) expected, not {tuple(block.shape)}")
        if not block.shape[1]:
            return
        block = block.detach().cpu()
        finite = block.isfinite().all(0)
        if not finite.all():
            second = (self.samples + int(finite.int().argmin())) / self.rate
            raise AudioError(
                f"{self._name}: NaN or infinite samples to write at {second:.3f} s",
                "This is a fault of the model or of its settings; nothing was written.",
            )
        magnitude = block.abs()
        self.peak = max(self.peak, float(magnitude.max()))
        if self.subtype not in ("FLOAT", "DOUBLE"):
            self.limited += int((magnitude > 1).sum())
        self.samples += block.shape[1]
        size = self.samples * self.channels * BYTES.get(self.subtype, 0)
        if size > FOUR_GB and self._container == "WAV":
            self._widen()
        if size > FOUR_GB and self._container == "AIFF":
            raise AudioError(f"{self._name}: an aiff holds at most 4 GB", "Write .wav or .flac.")
        self._append(_encoded(block, self.subtype))

    def close(self) -> None:
        """Put the file in its place."""
        try:
            if not self.samples:
                raise AudioError(f"{self._name}: there are no samples to write")
            self._finish()
            if self._stdout:
                self._send()
            else:
                os.replace(self._files[-1], self._target)
        except OSError as error:
            raise self._failed(error) from error
        finally:
            self.abort()

    def abort(self) -> None:
        """Remove everything that is not finished."""
        try:
            if self._sound is not None:
                self._sound.close()
        except sf.SoundFileError:
            pass  # a full disk: the file is removed anyway
        for file in self._files:
            file.unlink(missing_ok=True)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def _check(self) -> None:
        most = 2 if self._container == "MP3" else MAX_CHANNELS
        if not 1 <= self.channels <= most:
            raise AudioError(
                f"{self._name}: {self.channels} channels do not fit, the most is {most}",
                "Write .wav or .flac." if self.channels <= MAX_CHANNELS else "",
            )
        if self.rate not in RATES.get(self.subtype, ANY_RATE):
            raise AudioError(
                f"{self._name}: {self.subtype} does not take {self.rate} Hz",
                "Write .wav or .flac, which take any rate.",
            )
        if self._target.exists() and not self._target.is_file():
            raise AudioError(f"{self._name} exists and is not a file", "Name a file.")

    def _open(self, container: str) -> None:
        file = self._target.with_name(f".{secrets.token_hex(8)}{self._target.suffix}")
        try:
            file.open("xb").close()  # says why it cannot be made, where libsndfile does not
            self._files.append(file)
            self._sound = ForwardFile(
                str(file), "w", self.rate, self.channels, self.subtype, format=container
            )
        except OSError as error:
            raise AudioError(
                f"{self._name} cannot be written: {error.strerror}",
                f"Check that the folder {self._target.parent} exists and that you may write there.",
            ) from error
        except sf.SoundFileError as error:
            raise AudioError(
                f"{self._name}: {container} takes no {self.subtype} with {self.channels} channels "
                f"at {self.rate} Hz",
                "Write .wav.",
            ) from error

    def _append(self, frames: np.ndarray) -> None:
        assert self._sound is not None
        try:
            for start in range(0, len(frames), BLOCK):
                self._sound.write(frames[start : start + BLOCK])
        except (sf.SoundFileError, OSError, AssertionError) as error:  # soundfile asserts the count
            raise self._failed(error) from error

    def _widen(self) -> None:
        """Go on in an RF64 file, the wav for more than 4 GB."""
        assert self._sound is not None
        self._sound.close()
        self._container = "RF64"
        self._open("RF64")
        with ForwardFile(str(self._files[0])) as written:
            dtype = "int32" if self.subtype in BITS else "float32"
            while len(frames := written.read(1 << 16, dtype=dtype, always_2d=True)):
                self._append(frames)
        self._files.pop(0).unlink()

    def _finish(self) -> None:
        """Close the file and see that all of it is there: encoders keep quiet about a full disk."""
        assert self._sound is not None
        try:
            self._sound.close()
            complete = probe(self._files[-1]).samples == self.samples
        except (sf.SoundFileError, AudioError) as error:
            raise self._failed(error) from error
        if not complete:
            raise self._failed(None)

    def _send(self) -> None:
        try:
            with self._files[-1].open("rb") as file:
                shutil.copyfileobj(file, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        except BrokenPipeError as error:
            # Python flushes standard output once more when it ends: that must not fail too.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise AudioError("standard output was closed before all was written") from error

    def _failed(self, error: BaseException | None) -> AudioError:
        free = shutil.disk_usage(self._target.parent).free / 1e6
        reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        return AudioError(
            f"{self._name} could not be written to its end{reason}",
            f"Is the disk full? {free:.0f} MB are free in {self._target.parent}. Nothing was left.",
        )


def _container(path: str | Path) -> str:
    suffix = Path(path).suffix.lower()
    if suffix not in CONTAINERS:
        raise AudioError(
            f"{path}: {'no extension' if not suffix else f'{suffix} is not known'}",
            f"The extension chooses the format: {', '.join(CONTAINERS)}.",
        )
    return CONTAINERS[suffix]


def _encoded(block: Tensor, subtype: str) -> np.ndarray:
    """(channels, n) as the (n, channels) that libsndfile is given.

    Integers are made here: libsndfile scales by 2^15 - 1 and would not give back what it read.
    """
    if subtype in BITS:
        full = 2.0 ** (BITS[subtype] - 1)
        levels = (block.double() * full).round().clamp(-full, full - 1).to(torch.int64)
        frames = (levels << (32 - BITS[subtype])).to(torch.int32)
    else:
        frames = block.float() if subtype in ("FLOAT", "DOUBLE") else block.float().clamp(-1, 1)
    return np.ascontiguousarray(frames.T.numpy())
