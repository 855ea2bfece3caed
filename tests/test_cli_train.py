"""wavediff train as it is used: settings shown, trained, stopped, gone on with, exported, used."""

import json
import os
import signal
import tomllib
from pathlib import Path

import corpus
import pytest
from command import attenuator, process, tree, wavediff

from wavediff import checkpoint, plan, recipe


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return corpus.make(tmp_path_factory.mktemp("corpus"), files=2)


@pytest.fixture
def tiny(sounds: Path, tmp_path: Path) -> Path:
    """A recipe file for a network that trains in moments."""
    path = tmp_path / "tiny.toml"
    path.write_text(recipe.to_toml(corpus.recipe(sounds, save_every=1000)), "utf-8")
    return path


def test_a_dry_run_prints_a_recipe_and_trains_nothing(sounds: Path, tmp_path: Path) -> None:
    (sounds / "speech" / "broken.wav").write_bytes(b"RIFF")
    words = ("train", sounds / "speech", "--noise", sounds / "noise", "--dry-run")
    result = wavediff(*words, "--set", "training.crop=0.25", "--steps", "7", "-o", tmp_path / "run")
    settings = tomllib.loads(result.stdout)
    assert settings["training"]["crop"] == 0.25
    assert settings["training"]["steps"] == 7
    assert settings["data"]["sounds"] == [str(sounds / "speech")]
    assert "sounds: 2 files, 4.0 s, 1 file broken" in result.stderr
    assert not tree(tmp_path)
    again = tmp_path / "again.toml"
    again.write_text(result.stdout, "utf-8")
    assert wavediff("train", "--recipe", again, "--dry-run").stdout == result.stdout
    assert recipe.load(again).to_json() == recipe.parse(settings, "the test").to_json()
    (sounds / "speech" / "broken.wav").unlink()


def test_init_brings_its_network_and_rate(sounds: Path, tmp_path: Path) -> None:
    model = attenuator(tmp_path / "model.safetensors")
    words = ("train", sounds / "speech", "--init", model, "--dry-run")
    settings = tomllib.loads(wavediff(*words, "--set", "training.warmup=3").stdout)
    made_by = checkpoint.load(model).recipe
    assert settings["rate"] == made_by.rate == corpus.RATE
    assert settings["network"] == made_by.network.model_dump()
    assert settings["training"]["learning_rate"] == plan.TUNING_RATE
    assert settings["training"]["warmup"] == 3


def test_a_model_is_trained_exported_and_used(tiny: Path, sounds: Path, tmp_path: Path) -> None:
    run, exported = tmp_path / "run", tmp_path / "mine.safetensors"
    (sounds / "speech" / "broken.wav").write_bytes(b"RIFF")
    words = ("train", "--recipe", tiny, "-d", "cpu", "-o", run)
    result = wavediff(*words, "--steps", "4", "--json")
    (sounds / "speech" / "broken.wav").unlink()
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert [event["step"] for event in events] == [1, 2, 3, 4]
    assert events[-1]["saved"] == str(run / "checkpoint.safetensors")
    assert "1 broken file left out" in result.stderr
    assert f"use it: wavediff denoise -m {run} FILE" in result.stderr

    more = wavediff(*words, "--steps", "6", "--export", exported)
    assert f"training in {run} from step 4" in more.stderr
    assert wavediff("models", "show", exported, "--json").stdout.count('"step": 6')
    assert "nothing left to do" in wavediff(*words, "--steps", "6").stderr
    noisy = corpus.put(tmp_path / "a.wav", corpus.hiss(0, 0.5))
    sound = []
    for model in (run, exported):
        wavediff("denoise", noisy, "-m", model, "-o", tmp_path / "b.wav", "-f")
        sound.append((tmp_path / "b.wav").read_bytes())
    assert sound[0] != noisy.read_bytes()
    assert len(sound[0]) == len(sound[1])


def test_without_noise_it_says_what_is_mixed_in(sounds: Path, tmp_path: Path, tiny: Path) -> None:
    words = ("train", "--recipe", tiny, "--set", "data.noise=[]", "--steps", "1", "-d", "cpu")
    assert "only synthetic noise" in wavediff(*words, "-o", tmp_path / "run").stderr
    assert wavediff(*words, "-o", tmp_path / "other", "-q").stderr == ""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_stops_after_the_step_and_the_same_command_goes_on(
    tiny: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    words = ("train", "--recipe", tiny, "-d", "cpu", "-o", run, "--steps", "1000000", "--json")
    with process(*words) as running:
        running.stdout.readline()
        running.send_signal(signal.SIGINT)
        lines, said = running.communicate()
    assert running.returncode == 130
    assert b"the same command goes on" in said
    assert b"Traceback" not in said
    last = json.loads((b'{"step": 1}\n' + lines).splitlines()[-1])["step"]
    saved = checkpoint.load(run / "checkpoint.safetensors")
    assert saved.state["step"] == last == len((run / "log.jsonl").read_text().splitlines())
    assert not [name for name in tree(run) if Path(name).name.startswith(".")]
    on = wavediff(*words[:-3], "--steps", str(last + 1), "--json")
    assert json.loads(on.stdout)["step"] == last + 1
