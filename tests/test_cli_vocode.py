"""wavediff vocode: files are what the model makes, a wrong mel is never rendered."""

import io
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from command import refusal, tree, wavediff
from corpus import hiss, put, voice
from safetensors.numpy import save_file
from tiny import generator, mel_of, vocoder

from wavediff import files, load
from wavediff.given import Given
from wavediff.mel import PRESETS
from wavediff.model import Model
from wavediff.vocoding import VocodeSettings

RATE = 22_050
CHECK = "wavediff check"
pytestmark = pytest.mark.usefixtures("one_thread")  # a model beside its command: the same last bits


def spoken(seed: int, seconds: float = 1.0) -> np.ndarray:
    """A voice over faint noise, and a silence."""
    sound = voice(seed, seconds, RATE) + 0.01 * hiss(seed, seconds, RATE)
    sound[: RATE // 4] = 0
    return sound


def saved(path: Path, mel: np.ndarray) -> Path:
    np.save(path, mel)
    return path


def sixteen_bits(sound: np.ndarray) -> np.ndarray:
    return (sound.astype(np.float64) * 32768).round().clip(-32768, 32767)


def heard(path: Path) -> np.ndarray:
    return sf.read(path, dtype="int16", always_2d=True)[0].T.astype(np.float64)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return vocoder(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load(path, "cpu")


@pytest.fixture(scope="module")
def mel() -> np.ndarray:
    return mel_of(spoken(0))


@pytest.fixture(scope="module")
def busy(mel: np.ndarray) -> np.ndarray:
    """A mel without silence, whose value would tell what it is."""
    return mel[:, 25:]


def test_a_file_is_what_the_model_makes_whatever_the_blocks(
    path: Path, model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mel = mel_of(spoken(0, 2.5))
    given = saved(tmp_path / "a.npy", mel)
    wavediff("vocode", given, "-m", path, "-d", "cpu")
    assert tree(tmp_path) == {"a.npy", "a.wav"}
    info = sf.info(tmp_path / "a.wav")
    assert (info.samplerate, info.subtype, info.frames) == (RATE, "PCM_16", mel.shape[1] * 256)
    made = heard(tmp_path / "a.wav")[0]
    assert np.array_equal(made, sixteen_bits(model.vocode(mel)))
    assert made.std() > 100
    monkeypatch.setattr(files, "PIECE", 0.3)
    wavediff("vocode", given, "-m", path, "-d", "cpu", "--block", "1", "-f")
    assert np.abs(heard(tmp_path / "a.wav")[0] - made).max() <= 1


def test_steps_and_the_seed_reach_the_model(
    path: Path, model: Model, mel: np.ndarray, tmp_path: Path
) -> None:
    given, out = saved(tmp_path / "a.npy", mel), tmp_path / "out.flac"
    words = ("vocode", given, "-m", path, "-d", "cpu", "-o", out, "-f")
    made = {}
    for seed, steps in ((0, 1), (7, 1), (0, 2)):
        wavediff(*words, "--seed", seed, "--steps", steps)
        made[seed, steps] = heard(out)[0]
        expected = model.vocode(mel, VocodeSettings(steps, seed))
        assert np.array_equal(made[seed, steps], sixteen_bits(expected))
    assert not np.array_equal(made[0, 1], made[7, 1])
    assert not np.array_equal(made[0, 1], made[0, 2])
    assert "--steps takes 1 and more" in refusal(*words, "--steps", 0)[1]


def test_every_kind_of_file_and_layout_gives_the_same_sound(
    path: Path, mel: np.ndarray, tmp_path: Path
) -> None:
    np.save(tmp_path / "a.npy", mel)
    np.save(tmp_path / "turned.npy", mel.T)
    np.savez(tmp_path / "b.npz", mel=mel, lengths=np.array([3]))
    torch.save({"mel": torch.from_numpy(mel)}, tmp_path / "deep.pt")
    save_file({"mel": mel}, tmp_path / "c.safetensors")
    out = tmp_path / "out"
    wavediff("vocode", tmp_path, "-m", path, "-d", "cpu", "-o", out)
    assert tree(out) == {"a.wav", "b.wav", "c.wav", "deep.wav", "turned.wav"}
    assert len({file.read_bytes() for file in out.iterdir()}) == 1


def test_several_mels_in_a_file_are_each_as_alone(
    path: Path, model: Model, mel: np.ndarray, tmp_path: Path
) -> None:
    other = mel_of(spoken(1))
    saved(tmp_path / "batch.npy", np.stack([mel, other]))
    np.savez(tmp_path / "keys.npz", one=mel, two=other)
    wavediff("vocode", tmp_path, "-m", path, "-d", "cpu")
    assert tree(tmp_path) == {
        *("batch.npy", "batch-0.wav", "batch-1.wav"),
        *("keys.npz", "keys-one.wav", "keys-two.wav"),
    }
    for names, alone in ((("batch-0", "keys-one"), mel), (("batch-1", "keys-two"), other)):
        expected = sixteen_bits(model.vocode(alone))
        for name in names:
            assert np.array_equal(heard(tmp_path / f"{name}.wav")[0], expected)
    again = wavediff("vocode", tmp_path, "-m", path, "--skip-existing")
    assert "4 results there already" in again.stderr  # and its own results are no inputs
    assert "batch-0.wav exists, and 3 more" in refusal("vocode", tmp_path, "-m", path)[0]


def test_a_recording_keeps_its_form(path: Path, model: Model, tmp_path: Path) -> None:
    sound = np.stack([voice(n, 0.7, 16_000) + hiss(n, 0.7, 16_000) for n in range(2)], 1)
    given = put(tmp_path / "a.wav", sound, 16_000, "PCM_24")
    wavediff("vocode", given, "-m", path, "-d", "cpu")
    before, after = sf.info(given), sf.info(tmp_path / "a.vocoded.wav")
    for fact in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(before, fact) == getattr(after, fact)
    made = sf.read(tmp_path / "a.vocoded.wav", dtype="float32")[0].T
    expected = model.resynthesise(sf.read(given, dtype="float32")[0].T.copy(), 16_000)
    assert np.abs(made - expected).max() < 1e-5
    assert 20 * math.log10(made.std() / sound.std()) == pytest.approx(0, abs=6)


def test_pipes_take_mels_and_recordings(path: Path, mel: np.ndarray, tmp_path: Path) -> None:
    words = ("vocode", "-", "-m", path, "-d", "cpu", "-o")
    recording = put(tmp_path / "b.wav", spoken(1), RATE)
    for given in (saved(tmp_path / "a.npy", mel), recording):
        wavediff("vocode", given, *words[2:], tmp_path / "out.wav", "-f")
        piped = wavediff(*words, "-", input=given.read_bytes())
        assert piped.stdout_bytes == (tmp_path / "out.wav").read_bytes()
    stream = io.BytesIO()
    np.save(stream, np.stack([mel, mel]))
    wavediff(*words, tmp_path / "two.wav", input=stream.getvalue())
    assert {"two-0.wav", "two-1.wav"} <= tree(tmp_path)
    result = wavediff(*words, "-", input=stream.getvalue(), code=1)
    assert "2 mels do not fit into one pipe" in result.stderr
    result = wavediff(*words, "-", input=b"\x93NUMPY" + bytes(9), code=1)
    assert result.stdout_bytes == b""
    assert "standard input is damaged" in result.stderr
    wavediff(*words, "-", "--json", input=recording.read_bytes(), code=2)


def with_nan(mel: np.ndarray) -> np.ndarray:
    broken = mel.copy()
    broken[3, 5] = np.nan
    return broken


WRONG = {
    "128 bands": lambda mel: np.concatenate([mel, mel[:48]]),
    "is no mel of the preset hifigan: values go down to": lambda mel: 2 * mel - 3,
    "is no mel of the preset hifigan": lambda mel: mel + np.float32(math.log(32768)),
    "no mel of the preset hifigan": lambda mel: (mel - mel.mean()) / mel.std(),
    "nan at (3, 5)": with_nan,
    "holds no mel": lambda mel: mel[0],
}


@pytest.mark.parametrize("reason", WRONG)
def test_a_wrong_mel_is_refused_in_one_line(
    reason: str, path: Path, busy: np.ndarray, tmp_path: Path
) -> None:
    given = saved(tmp_path / "a b.npy", WRONG[reason](busy))
    message, hint = refusal("vocode", given, "-m", path)
    assert str(given) in message
    assert reason in message
    if "nan" not in reason and "holds" not in reason:
        assert f"{CHECK} '{given}'" in hint
    assert tree(tmp_path) == {"a b.npy"}


def test_a_bad_file_stops_no_other(path: Path, mel: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    saved(tmp_path / "in" / "a.npy", mel)
    (tmp_path / "in" / "b.npz").write_text("no mel")
    (tmp_path / "in" / "c.wav").write_text("no sound")
    put(tmp_path / "in" / "deep" / "d.flac", spoken(0, 0.4), RATE)
    words = ("vocode", tmp_path / "in", "-m", path, "-o", tmp_path / "out", "--json")
    result = wavediff(*words, code=1)
    assert tree(tmp_path / "out") == {"a.wav", "deep", "deep/d.flac"}
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [Path(line["source"]).name for line in lines if "error" in line] == ["b.npz", "c.wav"]
    assert "2 of 4 inputs" in result.stderr


def test_a_mel_on_another_scale_is_converted_where_that_is_exact(
    path: Path, mel: np.ndarray, busy: np.ndarray, tmp_path: Path
) -> None:
    plain = saved(tmp_path / "a.npy", mel)
    ten = saved(tmp_path / "ten.npy", mel / np.float32(math.log(10)))
    power = saved(tmp_path / "power.npy", 2 * busy)
    kind = PRESETS["hifigan"]
    for given, mel_preset, scaling in (
        (plain, None, None),
        (plain, "tacotron2", None),
        (ten, None, None),
        (ten, None, "log10"),
        (ten, "tacotron2", "log10"),
    ):
        with Given(kind, mel_preset, scaling) as opened:
            values, note = opened.mel(str(given))
        assert torch.allclose(values, torch.from_numpy(mel), atol=1e-4)
        assert bool(note) == ((given, mel_preset) != (plain, None))
    words = ("-m", path, "-d", "cpu", "-o", tmp_path / "out.wav", "-f")
    assert "taken as log10 of magnitudes" in wavediff("vocode", ten, *words).stderr
    assert "--scaling ln-power" in refusal("vocode", power, *words)[1]
    wavediff("vocode", power, *words, "--scaling", "ln-power")  # not exact, but wished
    assert "no scaling is called loud" in refusal("vocode", ten, *words, "--scaling", "loud")[0]
    other = refusal("vocode", ten, *words, "--mel-preset", "bigvgan24k")
    assert "bigvgan24k rate 24000" in other[0]
    assert refusal("vocode", ten, *words, "--mel-preset", "hifi")[1].startswith(
        "hint: did you mean"
    )


def test_pictures_are_drawn_of_mels_and_recordings(
    path: Path, mel: np.ndarray, tmp_path: Path
) -> None:
    saved(tmp_path / "a.npy", mel)
    put(tmp_path / "b.wav", spoken(0), RATE)
    wavediff("vocode", tmp_path, "-m", path, "--plot", "-o", tmp_path / "out")
    assert tree(tmp_path / "out") == {"a.wav", "a.png", "b.wav", "b.png"}
    os.remove(tmp_path / "out" / "a.wav")
    words = ("vocode", tmp_path / "a.npy", "-m", path, "--plot", "-o", tmp_path / "out/")
    assert "a.png exists" in refusal(*words)[0]
    assert "pipes" in refusal("vocode", "-", "-m", path, "--plot")[0]


def test_a_model_for_something_else_is_refused(tmp_path: Path) -> None:
    given = put(tmp_path / "a.wav", spoken(0), RATE)
    made = generator(tmp_path / "g.safetensors")
    assert "is a model to generate, not to vocode" in refusal("vocode", given, "-m", made)[0]
    assert refusal("vocode", given, "-m", "denoise-16k")[1]


def test_check_says_what_a_mel_is(path: Path, mel: np.ndarray, tmp_path: Path) -> None:
    given = saved(tmp_path / "a.npy", mel.T)
    said = wavediff("check", given).stdout
    assert "80 bands" in said
    assert "hifigan" in said
    save_file({"mel": mel / np.float32(math.log(10))}, tmp_path / "b.safetensors")
    lines = wavediff("check", given, tmp_path / "b.safetensors", "--json").stdout.splitlines()
    first, second = (json.loads(line)["is"][0] for line in lines)
    assert (first["scaling"], first["transposed"]) == ("ln", True)
    assert (second["scaling"], second["transposed"]) == ("log10", False)
    assert "parameters" in wavediff("check", path).stdout  # a model is still one
    assert "others are not" in refusal("check", given, path)[0]
    (tmp_path / "bad.npy").write_bytes(b"no")
    assert "bad.npy" in refusal("check", tmp_path / "bad.npy")[0]
