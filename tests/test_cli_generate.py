"""wavediff generate: numbered sounds that depend on nothing but their number, labels and seed."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from command import refusal, tree, wavediff
from tiny import generator

from wavediff import load
from wavediff.generating import GenerateSettings
from wavediff.loop import parse, render
from wavediff.model import Model

FEW = ("--steps", "2", "-d", "cpu")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return generator(tmp_path_factory.mktemp("model") / "drums.safetensors")


@pytest.fixture(scope="module")
def model(path: Path) -> Model:
    return load(path, "cpu")


def heard(path: Path) -> np.ndarray:
    return sf.read(path, dtype="int16")[0].astype(np.float64)


def made(model: Model, count: int = 1, **settings: object) -> np.ndarray:
    """What the model makes, as 16 bits: (count, samples)."""
    chosen = GenerateSettings(steps=2, **settings)  # type: ignore[arg-type]
    sound = model.generate(count, chosen).double().numpy()
    return (sound * 32768).round().clip(-32768, 32767)


def test_a_number_is_the_same_sound_however_many_there_are(
    path: Path, model: Model, tmp_path: Path
) -> None:
    words = ("generate", "-m", path, "--label", "kick", "--seed", "7", *FEW)
    wavediff(*words, "--count", "3", "-o", tmp_path / "three")
    wavediff(*words, "-o", tmp_path / "one")
    assert tree(tmp_path / "three") == {f"kick-7-000{n}.wav" for n in range(3)}
    assert tree(tmp_path / "one") == {"kick-7-0000.wav"}
    sounds = [heard(tmp_path / "three" / f"kick-7-000{n}.wav") for n in range(3)]
    assert np.array_equal(sounds, made(model, 3, labels={"kick": 1.0}, seed=7))
    assert not np.array_equal(sounds[0], sounds[1])
    assert np.array_equal(heard(tmp_path / "one" / "kick-7-0000.wav"), sounds[0])
    assert "kick-7-0000.wav exists" in refusal(*words, "-o", tmp_path / "one")[0]
    more = wavediff(*words, "--count", "2", "-o", tmp_path / "one", "--skip-existing")
    assert "1 sound there already" in more.stderr
    assert np.array_equal(heard(tmp_path / "one" / "kick-7-0001.wav"), sounds[1])


def test_one_sound_goes_to_exactly_its_file_or_a_pipe(
    path: Path, model: Model, tmp_path: Path
) -> None:
    words = ("generate", "-m", path, *FEW)
    wavediff(*words, "-o", tmp_path / "a.wav", "--guidance", "2", "--label", "snare")
    expected = made(model, labels={"snare": 1.0}, guidance=2.0)[0]
    assert np.array_equal(heard(tmp_path / "a.wav"), expected)
    wavediff(*words, "-o", tmp_path / "b.wav")
    assert wavediff(*words, "-o", "-").stdout_bytes == (tmp_path / "b.wav").read_bytes()
    wavediff(*words, "-o", "-", "--json", code=2)
    assert "do not fit into" in refusal(*words, "-o", tmp_path / "c.wav", "--count", "2")[0]


def test_labels_are_mixed_by_their_shares(path: Path, model: Model, tmp_path: Path) -> None:
    words = ("generate", "-m", path, *FEW, "-o", tmp_path, "--json")
    mixture = ("--label", "kick=0.7", "--label", "snare=0.3")
    facts = json.loads(wavediff(*words, *mixture).stdout)
    assert facts["labels"] == {"kick": 0.7, "snare": 0.3}
    assert Path(facts["target"]).name == "kick0.7+snare0.3-0-0000.wav"
    expected = made(model, labels={"kick": 0.7, "snare": 0.3})[0]
    assert np.array_equal(heard(Path(facts["target"])), expected)
    wavediff(*words, "--label", "kick=loud", code=2)


def test_all_labels_go_into_folders_of_their_own(path: Path, tmp_path: Path) -> None:
    words = ("generate", "-m", path, *FEW, "-o")
    wavediff(*words, tmp_path / "all", "--all-labels", "--count", "2", "--plot")
    assert tree(tmp_path / "all") == {
        *("kick", "kick/kick-0-0000.wav", "kick/kick-0-0001.wav"),
        *("snare", "snare/snare-0-0000.wav", "snare/snare-0-0001.wav"),
        "labels-0.png",
    }
    wavediff(*words, tmp_path / "snares", "--label", "snare", "--count", "2", "--plot")
    assert tree(tmp_path / "snares") == {"snare-0-0000.wav", "snare-0-0001.wav", "snare-0.png"}
    for name in ("snare-0-0000.wav", "snare-0-0001.wav"):
        alone, among = tmp_path / "snares" / name, tmp_path / "all" / "snare" / name
        assert alone.read_bytes() == among.read_bytes()
        alone.unlink()
    words = (*words, tmp_path / "snares", "--label", "snare", "--count", "2", "--plot")
    assert "snare-0.png exists" in refusal(*words)[0]


def test_sounds_of_any_length_last_as_long_as_is_asked(tmp_path: Path) -> None:
    babble = generator(tmp_path / "babble.safetensors", labels=(), frames=0)
    wavediff("generate", "-m", babble, *FEW, "--seconds", "0.7", "-o", tmp_path / "out")
    assert tree(tmp_path / "out") == {"babble-0-0000.wav"}
    length = sf.info(tmp_path / "out" / "babble-0-0000.wav").duration
    assert 0.7 <= length < 0.7 + 128 / 8000
    assert "has no labels" in refusal("generate", "-m", babble, "--all-labels")[0]
    assert "0.0 seconds" in refusal("generate", "-m", babble, "--seconds", "0")[0]


def test_what_cannot_be_is_refused(path: Path, tmp_path: Path) -> None:
    words = ("generate", "-m", path, "-o", tmp_path / "out")
    message, hint = refusal(*words, "--label", "kik")
    assert "no label kik" in message
    assert "kick, snare" in hint
    assert "last 0.51 s" in refusal(*words, "--seconds", "2")[0]
    assert "to vocode" in refusal("generate", "-m", path.with_name("renderer.safetensors"))[0]
    loop = ("--loop", "120", "kick:x---")
    for wrong in (
        ("--count", "0"),
        ("--label", "kick", "--all-labels"),
        (*loop, "--label", "kick"),
        (*loop, "--count", "2"),
        ("--bars", "2"),
        ("--loop", "fast", "kick:x---"),
    ):
        wavediff(*words, *wrong, code=2)
    assert "no label tom" in refusal(*words, "--loop", "120", "kick:x--- tom:-x--")[0]
    assert "3 steps" in refusal(*words, "--loop", "120", "kick:x--- snare:x--")[0]
    assert "beats per minute" in refusal(*words, "--loop", "0", "kick:x---")[0]
    assert tree(tmp_path) == set()


def test_a_loop_is_made_of_generated_sounds(path: Path, model: Model, tmp_path: Path) -> None:
    text = "kick:x--- snare:-x*2"
    words = ("generate", "-m", path, *FEW, "--loop", "240", text, "--bars", "2")
    wavediff(*words, "-o", tmp_path / "loop.wav", "--plot")
    assert tree(tmp_path) == {"loop.wav", "loop.png"}
    takes = {"kick": 2, "snare": 3}
    settings = (GenerateSettings(steps=2, labels={label: 1.0}) for label in takes)
    shots = {
        label: model.generate(takes[label], chosen)
        for label, chosen in zip(takes, settings, strict=True)
    }
    expected = render(parse(text), 240, shots, 8000, bars=2).double().numpy()
    assert np.array_equal(heard(tmp_path / "loop.wav"), (expected * 32768).round())
    assert sf.info(tmp_path / "loop.wav").frames == 2 * 8000
    wavediff(*words, "-o", tmp_path / "tail.wav", "--tail")
    assert sf.info(tmp_path / "tail.wav").frames > 2 * 8000
