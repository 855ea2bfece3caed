"""Writing: what goes in comes back, nothing wraps, and nothing half-written survives."""

import errno
import io
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from wavediff import writer
from wavediff.audio import probe, read
from wavediff.errors import AudioError
from wavediff.writer import BITS, Writer, choose_subtype

RATE = 48000
KINDS = [
    ("a.wav", "PCM_U8"),
    ("a.wav", "PCM_16"),
    ("a.wav", "PCM_24"),
    ("a.wav", "PCM_32"),
    ("a.wav", "FLOAT"),
    ("a.wav", "DOUBLE"),
    ("a.flac", "PCM_S8"),
    ("a.flac", "PCM_16"),
    ("a.flac", "PCM_24"),
    ("a.aiff", "PCM_16"),
    ("a.aif", "PCM_24"),
    ("a.ogg", "VORBIS"),
    ("a.opus", "OPUS"),
    ("a.mp3", "MPEG_LAYER_III"),
]
CONTAINERS = [("a.wav", "PCM_16")] + [kind for kind in KINDS if kind[0] not in ("a.wav", "a.aif")]
posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals and limits")


def tone(samples: int, channels: int = 1, peak: float = 0.5) -> torch.Tensor:
    time = torch.arange(samples, dtype=torch.float64) / RATE
    hertz = 440.0 * torch.arange(1, channels + 1)[:, None]
    return (peak * torch.sin(2 * torch.pi * hertz * time)).float()


def write(path: Path, audio: torch.Tensor, subtype: str = "PCM_16", size: int = 7001) -> Writer:
    with Writer(path, RATE, audio.shape[0], subtype) as out:
        for start in range(0, audio.shape[1], size):
            out.write(audio[:, start : start + size])
    return out


@pytest.mark.parametrize("channels", [1, 2, 6, 8])
@pytest.mark.parametrize(("name", "subtype"), KINDS)
def test_round_trips(tmp_path: Path, name: str, subtype: str, channels: int) -> None:
    if name == "a.mp3" and channels > 2:
        pytest.skip("an mp3 holds two channels")
    audio = tone(20000, channels)
    write(tmp_path / name, audio, subtype)
    info = probe(tmp_path / name)
    assert (info.rate, info.channels, info.samples) == (RATE, channels, 20000)
    assert info.subtype == subtype
    back = read(tmp_path / name)[0]
    lossy = name in ("a.ogg", "a.opus", "a.mp3")
    step = 0.5 / 2 ** (BITS.get(subtype, 25) - 1)
    difference = back - audio
    if lossy and channels > 5:
        difference = difference[:-1]  # encoders keep only the bass of a subwoofer's channel
    error = difference.square().mean().sqrt() if lossy else difference.abs().max()
    assert error <= (0.02 if lossy else step + 1e-8)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff"])
@pytest.mark.parametrize("bits", [16, 24])
def test_integers_come_back_bit_for_bit(tmp_path: Path, name: str, bits: int) -> None:
    full = 2 ** (bits - 1)
    levels = arrays.arrays("int32", (2, 50), elements=st.integers(-full, full - 1))

    @settings(max_examples=25, deadline=None)
    @given(levels)
    def check(values: np.ndarray) -> None:
        write(tmp_path / name, torch.from_numpy(values / full).float(), f"PCM_{bits}")
        assert np.array_equal(sf.read(tmp_path / name, dtype="int32")[0].T >> (32 - bits), values)
        again = tmp_path / f"again-{name}"
        write(again, read(tmp_path / name)[0], f"PCM_{bits}")
        assert torch.equal(read(again)[0], read(tmp_path / name)[0])

    check()


@pytest.mark.parametrize(("name", "subtype"), KINDS)
def test_too_loud_is_limited_and_never_wraps(tmp_path: Path, name: str, subtype: str) -> None:
    audio = tone(20000, peak=1.5)
    out = write(tmp_path / name, audio, subtype)
    back = read(tmp_path / name)[0]
    assert out.peak == pytest.approx(1.5, abs=1e-3)
    loud = audio.abs() > 1
    if subtype in ("FLOAT", "DOUBLE"):
        assert torch.equal(back, audio)
        assert out.limited == 0
    else:
        assert out.limited == int(loud.sum()) > 0
        assert (back[loud].sign() == audio[loud].sign()).all()
        assert back[loud].abs().min() > 0.5


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, AudioError("x")])
@pytest.mark.parametrize(("name", "subtype"), CONTAINERS)
def test_an_interrupted_file_leaves_the_old_one(
    tmp_path: Path, name: str, subtype: str, error: BaseException
) -> None:
    (tmp_path / name).write_bytes(b"the old file")
    with (  # noqa: PT012
        pytest.raises((KeyboardInterrupt, RuntimeError, AudioError)),
        Writer(tmp_path / name, RATE, 1, subtype) as out,
    ):
        out.write(tone(5000))
        assert len(list(tmp_path.iterdir())) == 2
        raise error
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the old file"]


@posix
def test_a_killed_process_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.wav"
    target.write_bytes(b"the old file")
    child = os.fork()
    if child == 0:
        with Writer(target, RATE, 1) as out:
            out.write(tone(50000))
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL
    assert target.read_bytes() == b"the old file"


@posix
@pytest.mark.parametrize(("name", "subtype"), CONTAINERS)
def test_a_full_disk_at_any_point(tmp_path: Path, name: str, subtype: str) -> None:
    import resource

    target = tmp_path / name
    audio = tone(30000) + 0.05 * torch.randn(1, 30000, generator=torch.manual_seed(0))
    write(target, audio, subtype)
    size = target.stat().st_size
    target.write_bytes(b"the old file")
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    for limit in (0, 20, size // 2, size - 3000, size - 500, size - 20, size - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, old[1]))
        try:
            with pytest.raises(AudioError) as caught:
                write(target, audio, subtype)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, old)
        assert str(target) in caught.value.message
        assert caught.value.hint
        assert [file.read_bytes() for file in tmp_path.iterdir()] == [b"the old file"]


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writer.ForwardFile, "write", full)
    with pytest.raises(AudioError, match=r"No space left[\s\S]*MB are free"):
        write(tmp_path / "a.wav", tone(10))
    assert not list(tmp_path.iterdir())


@posix
def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"cannot be written: No such file[\s\S]*exists"):
        Writer(tmp_path / "no" / "a.wav", RATE, 1)
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(AudioError, match="exists and is not a file"):
        Writer(tmp_path / "a.wav", RATE, 1)
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    user = os.geteuid()
    if user == 0:  # whom no mode stops
        for parent in (tmp_path, *tmp_path.parents[:2]):
            parent.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(AudioError, match=r"cannot be written: Permission denied"):
            Writer(locked / "a.wav", RATE, 1)
    finally:
        os.seteuid(user)
    assert not list(locked.iterdir())


@pytest.mark.parametrize(
    ("name", "rate", "channels", "message"),
    [
        ("a.xyz", RATE, 1, r"\.xyz is not known[\s\S]*\.wav, \.flac"),
        ("a", RATE, 1, "no extension"),
        ("a.wav", RATE, 9, "9 channels do not fit, the most is 8"),
        ("a.mp3", RATE, 3, "3 channels do not fit, the most is 2"),
        ("a.mp3", 96000, 1, r"does not take 96000 Hz[\s\S]*Write \.wav"),
        ("a.opus", 44100, 1, "OPUS does not take 44100 Hz"),
        ("a.ogg", 384000, 1, "VORBIS does not take 384000 Hz"),
        ("a.flac", 700000, 1, "FLAC takes no PCM_16"),
    ],
)
def test_what_a_container_cannot_hold(
    tmp_path: Path, name: str, rate: int, channels: int, message: str
) -> None:
    with pytest.raises(AudioError, match=message):
        Writer(tmp_path / name, rate, channels)
    assert not list(tmp_path.iterdir())


def test_nan_and_nothing_are_not_written(tmp_path: Path) -> None:
    audio = tone(48000)
    audio[0, 36000] = torch.nan
    with pytest.raises(AudioError, match=r"NaN or infinite samples to write at 0\.750 s"):
        write(tmp_path / "a.wav", audio)
    with pytest.raises(AudioError, match="no samples to write"):
        write(tmp_path / "a.wav", audio[:, :0])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "wanted", "chosen"),
    [
        ("a.wav", "FLOAT", "FLOAT"),
        ("a.wav", "PCM_S8", "PCM_U8"),
        ("a.wav", "VORBIS", "PCM_16"),
        ("a.wav", "ULAW", "PCM_16"),
        ("a.WAV", "PCM_24", "PCM_24"),
        ("a.flac", "PCM_24", "PCM_24"),
        ("a.flac", "PCM_U8", "PCM_16"),
        ("a.flac", "FLOAT", "PCM_24"),
        ("a.flac", "PCM_32", "PCM_24"),
        ("a.flac", "MPEG_LAYER_III", "PCM_16"),
        ("a.aiff", "PCM_S8", "PCM_S8"),
        ("a.aiff", "DOUBLE", "DOUBLE"),
        ("a.ogg", "PCM_16", "VORBIS"),
        ("a.ogg", "OPUS", "OPUS"),
        ("a.opus", "VORBIS", "OPUS"),
        ("a.mp3", "FLOAT", "MPEG_LAYER_III"),
    ],
)
def test_the_subtype_of_the_input_or_the_nearest_better(
    name: str, wanted: str, chosen: str
) -> None:
    assert choose_subtype(name, wanted) == chosen


@pytest.mark.parametrize("subtype", ["PCM_24", "FLOAT"])
def test_a_wav_that_outgrows_its_header_becomes_rf64(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, subtype: str
) -> None:
    audio = tone(30000, 2)
    write(tmp_path / "small.wav", audio, subtype)
    monkeypatch.setattr(writer, "FOUR_GB", 100_000)
    write(tmp_path / "large.wav", audio, subtype)
    assert probe(tmp_path / "small.wav").container == "WAV"
    assert probe(tmp_path / "large.wav").container == "RF64"
    assert torch.equal(read(tmp_path / "large.wav")[0], read(tmp_path / "small.wav")[0])
    with pytest.raises(AudioError, match="an aiff holds at most 4 GB"):
        write(tmp_path / "large.aiff", audio, subtype)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["large.wav", "small.wav"]


@posix
def test_rights_and_links_are_those_of_any_other_file(tmp_path: Path) -> None:
    write(tmp_path / "a.wav", tone(10))
    (tmp_path / "b").touch()
    assert (tmp_path / "a.wav").stat().st_mode == (tmp_path / "b").stat().st_mode
    (tmp_path / "link.wav").symlink_to("a.wav")
    write(tmp_path / "link.wav", tone(20))
    assert (tmp_path / "link.wav").is_symlink()
    assert probe(tmp_path / "a.wav").samples == 20


def test_standard_output_gets_a_wav_when_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    stdout = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", stdout)
    with Writer("-", RATE, 2) as out:
        out.write(tone(1000, 2))
        assert not stdout.buffer.getvalue()
    frames, rate = sf.read(io.BytesIO(stdout.buffer.getvalue()))
    assert rate == RATE
    assert np.abs(frames.T - tone(1000, 2).numpy()).max() <= 2**-16


@posix
def test_a_reader_that_went_away(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = os.pipe()
    os.close(here)
    with os.fdopen(there, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        with pytest.raises(AudioError, match="standard output was closed"):
            write(Path("-"), tone(100_000))
        print("flushed without an error", flush=True)
