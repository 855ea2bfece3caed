"""Reading: blocks equal the whole, and bad files are refused in words."""

import io
import os
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavediff import audio
from wavediff.audio import ArraySource, FileSource, open_input, probe, read
from wavediff.errors import AudioError

RATE, LENGTH = 8000, 30000
KINDS = {  # name: soundfile's container, subtype
    "pcm16.wav": ("WAV", "PCM_16"),
    "float.wav": ("WAV", "FLOAT"),
    "adpcm.wav": ("WAV", "IMA_ADPCM"),
    "pcm24.flac": ("FLAC", "PCM_24"),
    "vorbis.ogg": ("OGG", "VORBIS"),
    "opus.opus": ("OGG", "OPUS"),
    "layer3.mp3": ("MP3", "MPEG_LAYER_III"),
    "pcm16.aiff": ("AIFF", "PCM_16"),
    "long.wav": ("RF64", "PCM_16"),
}


def put(path: Path, frames: np.ndarray, container: str, subtype: str, rate: int = RATE) -> Path:
    channels = frames.shape[1]
    with sf.SoundFile(path, "w", rate, channels, subtype, format=container) as file:
        for start in range(0, len(frames), 4096):
            file.write(frames[start : start + 4096])
    return path


def sound(length: int = LENGTH, channels: int = 2) -> np.ndarray:
    noise = np.random.default_rng(length).standard_normal((length, channels)) * 0.1
    return (noise + 0.4 * np.sin(np.arange(length) / 7)[:, None]).astype("float32")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sounds")
    return {name: put(folder / name, sound(), *kind) for name, kind in KINDS.items()}


def refusal(path: Path) -> AudioError:
    """The error of a whole read: one line that names the file, and a hint."""
    with pytest.raises(AudioError) as caught:
        read(path)
    assert str(path) in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.mark.parametrize("name", KINDS)
def test_any_ranges_equal_a_whole_read(files: dict[str, Path], name: str) -> None:
    whole = read(files[name])[0]
    reference = torch.from_numpy(sf.read(files[name], dtype="float32")[0].T)
    torch.testing.assert_close(whole, reference, rtol=0, atol=1e-6)
    ranges = st.lists(
        st.tuples(st.integers(-500, LENGTH + 500), st.integers(0, 12000)), min_size=1, max_size=8
    )

    @settings(max_examples=25, deadline=None)
    @given(ranges)
    def check(pieces: list[tuple[int, int]]) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(audio, "TAIL_SECONDS", 1)  # so that some pieces lie before the tail
            with FileSource(files[name]) as source:
                assert (source.rate, source.channels) == (RATE, 2)
                expected = ArraySource(whole, RATE)
                assert source.samples == expected.samples
                for start, length in pieces:
                    piece = source.read(start, start + length)
                    assert torch.equal(piece, expected.read(start, start + length))

    check()


@pytest.mark.parametrize("name", ["layer3.mp3", "vorbis.ogg", "pcm24.flac"])
def test_overlapping_forward_reads_decode_once(
    files: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FileSource(files[name]) as source:
        monkeypatch.setattr(FileSource, "_open", None)
        monkeypatch.setattr(FileSource, "_seek", None)
        for start in range(0, LENGTH, 1000):
            source.read(start - 700, start + 1000)


def test_a_known_info_saves_decoding_an_mp3(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    info = probe(files["layer3.mp3"])
    assert (info.container, info.subtype, info.samples) == ("MP3", "MPEG_LAYER_III", LENGTH)
    assert info.seconds == LENGTH / RATE
    monkeypatch.setattr(FileSource, "_count", None)
    with FileSource(files["layer3.mp3"], info=info) as source:
        assert source.read(0, LENGTH).abs().max() > 0.3


def test_integers_are_scaled_by_a_power_of_two(tmp_path: Path) -> None:
    levels = np.array([[-32768], [-1], [0], [1], [32767]], dtype="int16")
    sf.write(tmp_path / "a.wav", levels, RATE)
    assert torch.equal(read(tmp_path / "a.wav")[0] * 32768, torch.tensor(levels.T).float())


def test_one_sample_and_eight_channels_and_an_odd_rate(tmp_path: Path) -> None:
    put(tmp_path / "a.flac", np.full((1, 8), 0.25), "FLAC", "PCM_16", rate=22255)
    whole, rate = read(tmp_path / "a.flac")
    assert rate == 22255
    assert torch.equal(whole, torch.full((8, 1), 0.25))


def test_an_array_is_zero_outside() -> None:
    source = ArraySource(torch.ones(2, 3), RATE)
    assert source.read(-1, 5)[0].tolist() == [0, 1, 1, 1, 0, 0]
    assert source.read(7, 9).tolist() == [[0, 0], [0, 0]]
    assert source.read(2, 1).shape == (2, 0)


@pytest.mark.parametrize("claim", [0xFFFFFFFF, 0x7FFFF000])
def test_a_wav_from_a_pipe_or_cut_off_holds_what_is_there(
    files: dict[str, Path], tmp_path: Path, claim: int
) -> None:
    data = bytearray(files["pcm16.wav"].read_bytes())
    struct.pack_into("<I", data, data.index(b"data") + 4, claim)
    (tmp_path / "a.wav").write_bytes(data[: 44 + 4 * 1000])
    assert torch.equal(read(tmp_path / "a.wav")[0], read(files["pcm16.wav"])[0][:, :1000])


def test_headers_that_claim_100_gb_are_not_believed(files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["long.wav"].read_bytes())
    struct.pack_into("<QQQ", data, 20, 10**11, 10**11, 10**11 // 4)
    (tmp_path / "a.wav").write_bytes(data)
    assert probe(tmp_path / "a.wav").samples == LENGTH

    data = bytearray(files["pcm24.flac"].read_bytes())
    data[21] |= 0x0F  # the length in samples: 36 bits
    data[22:26] = b"\xff\xff\xff\xff"
    (tmp_path / "a.flac").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(audio, "MAX_SAMPLES_PER_BYTE", 10**9)  # the last sample is asked for, too
        assert "cut off at 3.75 s" in refusal(tmp_path / "a.flac").message


def test_a_flac_from_a_pipe_and_a_cut_mp3_are_counted(
    files: dict[str, Path], tmp_path: Path
) -> None:
    data = bytearray(files["pcm24.flac"].read_bytes())
    data[21] &= 0xF0
    data[22:26] = bytes(4)
    (tmp_path / "a.flac").write_bytes(data)
    with FileSource(tmp_path / "a.flac") as source:
        assert source.samples == LENGTH
        late, early = source.read(20000, LENGTH), source.read(0, 20000)  # it cannot seek
    assert torch.equal(torch.cat((early, late), 1), read(files["pcm24.flac"])[0])

    data = files["layer3.mp3"].read_bytes()
    (tmp_path / "a.mp3").write_bytes(data[: len(data) // 2])
    whole = read(tmp_path / "a.mp3")[0]
    assert 0.4 * LENGTH < whole.shape[1] < 0.6 * LENGTH
    assert whole[:, -100:].abs().max() > 0.1


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.wav", b"", "is empty (0 bytes)"),
        ("a.wav", b"Dear listener,\nthis is \xc3\xa9 text.\n" * 40, "is text, not sound"),
        ("a.m4a", b"\0\0\0\x20ftypM4A " + bytes(200), "is an MP4 or M4A file"),
        ("a.webm", b"\x1aE\xdf\xa3" + bytes(200), "is a Matroska or WebM file"),
        ("a.flac", b"fLaC" + bytes(200), "is a damaged flac file"),
        ("a.raw", bytes(range(256)), "is not a wav, flac"),
        ("a.au", b".snd" + struct.pack(">5I", 24, 4, 3, 8000, 1) + bytes(4), "is not a wav, flac"),
    ],
)
def test_files_that_are_not_sound(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    error = refusal(tmp_path / name)
    assert message in error.message
    if name in ("a.m4a", "a.webm"):
        assert "ffmpeg -i" in error.hint


def test_missing_files_and_folders(tmp_path: Path) -> None:
    assert "does not exist" in refusal(tmp_path / "a.wav").message
    assert "is a folder" in refusal(tmp_path).message
    assert "cannot be opened" in refusal(tmp_path / ("a" * 300)).message


def test_a_header_tells_the_length(files: dict[str, Path], tmp_path: Path) -> None:
    wav = put(tmp_path / "a.wav", sound(RATE * 5 // 4), "WAV", "PCM_16")
    assert audio.length(wav) == 1.25
    for name in ("text.wav", "a.raw"):
        (tmp_path / name).write_text("this is no sound")
        assert audio.length(tmp_path / name) == 0
    assert audio.length(tmp_path) == audio.length(tmp_path / "none.wav") == 0
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.wav")
        assert audio.length(tmp_path / "pipe.wav") == 0  # and does not wait for a writer


def test_no_samples_and_too_many_channels_and_no_rate(tmp_path: Path) -> None:
    put(tmp_path / "a.wav", np.zeros((0, 1)), "WAV", "PCM_16")
    assert "holds no samples" in refusal(tmp_path / "a.wav").message
    put(tmp_path / "b.wav", np.zeros((5, 9)), "WAV", "PCM_16")
    assert "has 9 channels, at most 8" in refusal(tmp_path / "b.wav").message
    put(tmp_path / "c.wav", np.zeros((5, 1)), "WAV", "PCM_16", rate=7)
    assert "a rate of 7 Hz" in refusal(tmp_path / "c.wav").message


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_a_number_is_found_with_its_time(tmp_path: Path, value: float) -> None:
    frames = sound(channels=1)
    frames[12000] = frames[20000] = value
    put(tmp_path / "a.wav", frames, "WAV", "FLOAT")
    assert "NaN or infinite samples, first at 1.500 s" in refusal(tmp_path / "a.wav").message
    with FileSource(tmp_path / "a.wav") as source:
        with pytest.raises(AudioError):
            source.read(0, LENGTH)
        # The source is of use after an error.
        assert torch.equal(source.read(0, 12000)[0], torch.from_numpy(frames[:12000, 0]))


def test_a_truncated_flac_says_where_it_breaks(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["pcm24.flac"].read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    with pytest.raises(AudioError, match=r"cut off at 1\.\d\d s") as caught:
        probe(tmp_path / "a.flac")
    assert "repaired.wav" in caught.value.hint


def test_damage_inside_a_flac_is_never_passed_over(files: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(files["pcm24.flac"].read_bytes())
    middle = len(data) // 2
    data[middle : middle + 200] = bytes(range(200))
    (tmp_path / "a.flac").write_bytes(data)
    assert "is damaged or cut off at 1." in refusal(tmp_path / "a.flac").message


def test_standard_input_is_read_like_a_file(
    files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pcm16.wav", "layer3.mp3"):
        stdin = io.TextIOWrapper(io.BytesIO(files[name].read_bytes()))
        monkeypatch.setattr(sys, "stdin", stdin)
        with open_input("-") as source:
            late = source.read(LENGTH - 50, LENGTH)  # and back
            assert torch.equal(
                torch.cat((source.read(0, LENGTH - 50), late), 1), read(files[name])[0]
            )
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(AudioError, match="standard input is empty"):
        open_input("-")


def harmless(path: Path, data: bytes) -> None:
    """Reading gives finite sound of a size the bytes can hold, or an `AudioError`."""
    path.write_bytes(data)
    try:
        with FileSource(path) as source:
            assert source.samples * source.channels < 10**7
            whole = source.read(0, source.samples)
    except AudioError:
        return
    assert whole.shape == (source.channels, source.samples)
    assert whole.isfinite().all()


MAGIC = [b"", b"RIFF\xff\xff\0\0WAVEfmt ", b"fLaC", b"OggS", b"\xff\xfb\x90\0", b"ID3", b"FORM"]


@settings(max_examples=200, deadline=None)
@given(magic=st.sampled_from(MAGIC), data=st.binary(max_size=2000))
def test_random_bytes_are_harmless(
    tmp_path_factory: pytest.TempPathFactory, magic: bytes, data: bytes
) -> None:
    harmless(tmp_path_factory.getbasetemp() / "random.wav", magic + data)


@pytest.mark.parametrize("name", KINDS)
def test_damaged_files_are_harmless(files: dict[str, Path], name: str) -> None:
    valid = files[name].read_bytes()
    place = st.one_of(st.integers(0, 100), st.integers(0, len(valid) - 1))
    change = st.tuples(place, st.binary(min_size=1, max_size=8))

    @settings(max_examples=30, deadline=None)
    @given(st.lists(change, max_size=8), st.integers(0, len(valid)) | st.just(len(valid)))
    def check(changes: list[tuple[int, bytes]], length: int) -> None:
        data = bytearray(valid)
        for start, new in changes:
            data[start : start + len(new)] = new
        harmless(files[name].with_name(f"damaged-{name}"), bytes(data[:length]))

    check()
