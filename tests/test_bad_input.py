"""What a command is given by mistake: one line, one hint, a code, and nothing lost."""

import os
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from command import attenuator, process, refusal, tree, wavediff
from corpus import RATE, hiss, put, voice


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attenuator(tmp_path_factory.mktemp("model") / "attenuator.safetensors")


def truncated(path: Path) -> Path:
    path = put(path.with_suffix(".flac"), hiss(0, 3.0))
    os.truncate(path, path.stat().st_size // 2)
    return path


def with_nan(path: Path) -> Path:
    sound = hiss(0, 1.0)
    sound[RATE // 2] = np.nan
    return put(path, sound, subtype="FLOAT")


def claiming_100_gb(folder: Path) -> list[Path]:
    """A wav and a flac with a second of sound, and headers that claim far more."""
    wav, flac = folder / "claiming.wav", put(folder / "claiming.flac", hiss(0, 1.0))
    with sf.SoundFile(wav, "w", RATE, 1, "PCM_16", format="RF64") as file:
        file.write(hiss(0, 1.0))
    data = bytearray(wav.read_bytes())
    struct.pack_into("<QQQ", data, 20, 10**11, 10**11, 10**11 // 2)
    wav.write_bytes(data)
    data = bytearray(flac.read_bytes())
    data[21] |= 0x0F  # the length in samples: 36 bits
    data[22:26] = b"\xff\xff\xff\xff"
    flac.write_bytes(data)
    return [wav, flac]


def written(content: bytes) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        path.write_bytes(content)
        return path

    return write


BAD = {
    "is empty (0 bytes)": written(b""),
    "is text, not sound": written(b"<html>404 not found</html>\n"),
    "is damaged or cut off at": truncated,
    "holds NaN or infinite samples, first at 0.500 s": with_nan,
    "holds no samples": lambda path: put(path, np.zeros(0)),
    "has 9 channels": lambda path: put(path, np.zeros((RATE, 9))),
    "does not exist": lambda path: path.with_name("nowhere.wav"),
}


@pytest.mark.parametrize("cause", BAD)
def test_a_bad_recording_is_refused_in_one_line(cause: str, model: Path, tmp_path: Path) -> None:
    given = BAD[cause](tmp_path / "a.wav")
    before = tree(tmp_path)
    message, _ = refusal("denoise", given, "-m", model)
    assert given.name in message
    assert cause in message
    assert tree(tmp_path) == before


def test_what_looks_bad_and_is_not_comes_through(model: Path, tmp_path: Path) -> None:
    one = put(tmp_path / "one.wav", np.array([0.5]))
    silence = put(tmp_path / "silence.wav", np.zeros(RATE))
    given = [one, silence, *claiming_100_gb(tmp_path)]
    result = wavediff("denoise", *given, "-m", model, "-o", tmp_path / "out")
    lengths = [sf.info(tmp_path / "out" / file.name).frames for file in given]
    assert lengths == [1, RATE, RATE, RATE]
    assert "silence.wav: nothing but silence" in result.stderr
    assert not sf.read(tmp_path / "out" / "silence.wav")[0].any()


def test_places_that_cannot_be_written(model: Path, tmp_path: Path) -> None:
    given = put(tmp_path / "a.wav", hiss(0, 0.5))
    before = tree(tmp_path)
    for target in (given / "b.wav", tmp_path / "b.xyz", tmp_path / "none"):
        message, _ = refusal("denoise", given, "-m", model, "-o", target)
        assert str(target) in message
        assert tree(tmp_path) == before
    assert "terminal" not in message


@pytest.mark.skipif(os.name == "nt", reason="a limit of POSIX")
def test_a_full_disk_leaves_nothing(model: Path, tmp_path: Path) -> None:
    import resource

    given = put(tmp_path / "a.wav", hiss(0, 4.0))
    old = put(tmp_path / "a.denoised.wav", hiss(1, 0.1)).read_bytes()

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))

    with process("denoise", given, "-m", model, "-f", preexec_fn=limit) as running:
        sound, words = running.communicate()
    assert running.returncode == 1
    assert not sound
    message, hint = words.decode().splitlines()
    assert "could not be written to its end" in message
    assert "Is the disk full?" in hint
    assert tree(tmp_path) == {"a.wav", "a.denoised.wav"}
    assert (tmp_path / "a.denoised.wav").read_bytes() == old


def test_a_name_that_the_system_does_not_take(model: Path, tmp_path: Path) -> None:
    message, hint = refusal("denoise", tmp_path / f"{'a' * 300}.wav", "-m", model)
    assert "unexpected" not in message
    assert "path" in hint


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_standard_output(tmp_path: Path) -> None:
    given = put(tmp_path / "a.wav", hiss(0, 0.5))
    with open("/dev/full", "wb") as full, process("check", given, "--json", stdout=full) as running:
        words = running.communicate()[1].decode()
    assert running.returncode == 1
    assert "unexpected" not in words
    assert words.startswith("wavediff: ")


def test_folders_without_audio(model: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no sound")
    commands = (
        ("denoise", tmp_path, "-m", model),
        ("denoise", tmp_path / "*.wav", "-m", model),
        ("check", tmp_path),
        ("train", tmp_path, "-o", tmp_path / "run", "-d", "cpu"),
        ("evaluate", tmp_path, tmp_path),
    )
    for command in commands:
        message, _ = refusal(*command)
        assert "audio" in message
        assert str(tmp_path) in message
        assert tree(tmp_path) == {"notes.txt"}


def test_inputs_that_collide(model: Path, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        put(tmp_path / folder / "a.wav", voice(0, 0.2))
    both = (tmp_path / "one", tmp_path / "two", "-m", model)
    assert "would both go to" in refusal("denoise", *both, "-o", tmp_path / "out")[0]
    assert "do not fit into" in refusal("denoise", *both, "-o", tmp_path / "out.wav")[0]
    assert "would overwrite" in refusal(
        "denoise", tmp_path / "one", tmp_path / "two" / "a.wav", "-m", model, "-o",
        tmp_path / "two", "-f",
    )[0]  # fmt: skip


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.99])
def test_a_checkpoint_cut_short_is_refused(share: float, model: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    shutil.copy(model, cut)
    os.truncate(cut, int(share * cut.stat().st_size))
    given = put(tmp_path / "a.wav", hiss(0, 0.2))
    commands = (
        ("denoise", given, "-m", cut),
        ("models", "show", cut),
        ("check", cut),
        ("train", tmp_path, "--init", cut),
    )
    for command in commands:
        assert "cut.safetensors is damaged" in refusal(*command)[0]
    assert tree(tmp_path) == {"cut.safetensors", "a.wav"}


def test_recipes_with_typos(tmp_path: Path) -> None:
    put(tmp_path / "speech" / "a.wav", voice(0, 1.0))
    recipe = tmp_path / "mine.toml"
    recipe.write_text("[training]\nlearning_rat = 1e-3\n")
    before = tree(tmp_path)
    words = ("train", tmp_path / "speech", "-o", tmp_path / "run")
    message, hint = refusal(*words, "--recipe", recipe)
    assert "no setting is called training.learning_rat" in message
    assert "training.learning_rate" in hint
    recipe.write_text("[training\n")
    assert "not valid TOML" in refusal(*words, "--recipe", recipe)[0]
    assert "did you mean network.channels" in refusal(*words, "--set", "network.chanels=3")[1]
    assert "no recipe is called" in refusal(*words, "--recipe", "hugee")[0]
    assert "training.batch" in refusal(*words, "--batch", "0")[0]
    assert "two sides" in refusal("train", "--noisy", tmp_path)[0]
    assert tree(tmp_path) == before
