"""The command line: what it writes, what it says where, and how it ends."""

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
import typer
from command import REDUCTION, attenuator, process, refusal, tree, wavediff
from corpus import RATE, hiss, put, voice

from wavediff.cli import check, denoise, evaluate, models, train
from wavediff.cli.main import app
from wavediff.cli.status import ExitCode
from wavediff.errors import CheckpointError

EXAMPLES = [
    shlex.split(line.split("|")[0])
    for text in (*(c.EXAMPLES for c in (check, denoise, evaluate, train)), models.EXAMPLES)
    for line in text.splitlines()
    if line.strip().startswith("wavediff ")
]
COMMANDS = ["denoise", "train", "check", "evaluate", "models list", "models show", "models", ""]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return attenuator(tmp_path_factory.mktemp("model") / "attenuator.safetensors")


@pytest.fixture
def noisy(tmp_path: Path) -> Path:
    return put(tmp_path / "noisy.wav", voice(0, 1.0) + hiss(0, 1.0))


def test_exit_codes_are_the_promised_ones() -> None:
    assert {code.name: int(code) for code in ExitCode} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "INTERRUPTED": 130,
    }


def test_help_imports_nothing_slow() -> None:
    script = (
        "import sys; from typer.testing import CliRunner; from wavediff.cli.main import app\n"
        "for words in (['--help'], ['denoise', '--help'], ['--version']):\n"
        "    assert CliRunner().invoke(app, words).exit_code == 0\n"
        "slow = {'torch', 'numpy', 'rich', 'soundfile', 'matplotlib'}\n"
        "sys.exit(', '.join(slow & set(sys.modules)) or None)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_80_columns_and_shows_examples(command: str) -> None:
    text = wavediff(*command.split(), "--help", env={"COLUMNS": "80"}).stdout
    assert max(map(len, text.splitlines())) <= 80
    assert "Examples:" in text or command == ""
    assert "..." not in text.partition("Commands:")[2]  # no sentence is cut off


@pytest.mark.parametrize("words", EXAMPLES, ids=" ".join)
def test_examples_of_the_help_are_understood(words: list[str]) -> None:
    command, rest = typer.main.get_command(app), words[1:]
    context = command.make_context("wavediff", list(rest))
    while hasattr(command, "resolve_command"):
        _, command, rest = command.resolve_command(context, rest)
        context = command.make_context(command.name, list(rest), parent=context)
    assert context.params["debug"] is False


@pytest.mark.parametrize(
    "words", [[], ["denoise"], ["denoise", "a.wav", "--stepps", "2"], ["evaluate", "a.wav"], ["no"]]
)
def test_a_wrong_command_line_ends_with_code_2(words: list[str]) -> None:
    assert wavediff(*words, code=ExitCode.USAGE).stdout == ""


@pytest.mark.parametrize(
    ("name", "rate", "channels", "subtype"),
    [("a.wav", 44_100, 2, "PCM_24"), ("b.flac", 16_000, 1, "PCM_16"), ("c.wav", 8000, 5, "FLOAT")],
)
def test_the_form_of_a_recording_comes_back(
    name: str, rate: int, channels: int, subtype: str, model: Path, tmp_path: Path
) -> None:
    sound = np.stack([hiss(n, 0.77, rate) for n in range(channels)], 1)
    given = put(tmp_path / name, sound, rate, subtype)
    result = wavediff("denoise", given, "-m", model, "-d", "cpu")
    assert result.stdout == ""
    assert f"background {REDUCTION:.0f} dB quieter" in result.stderr
    before, after = sf.info(given), sf.info(tmp_path / f"{given.stem}.denoised{given.suffix}")
    for fact in ("samplerate", "channels", "frames", "format", "subtype"):
        assert getattr(before, fact) == getattr(after, fact)


def test_options_reach_the_model(model: Path, noisy: Path, tmp_path: Path) -> None:
    clean = tmp_path / "clean.flac"
    wavediff("denoise", noisy, "-m", model, "-o", clean, "--mix", "0")
    assert np.array_equal(sf.read(clean)[0], sf.read(noisy)[0])
    floor = 10 ** (-6 / 20)
    left = floor + (1 - floor) * 10 ** (-REDUCTION / 20)
    words = ("denoise", noisy, "-m", model, "-o", clean, "-f", "--json", "--max-attenuation", "6")
    for more in ((), ("--block", "1"), ("--seed", "3", "--sampler", "ancestral")):
        facts = json.loads(wavediff(*words, *more).stdout)
        assert facts["reduction"] == pytest.approx(-20 * np.log10(left), abs=0.05)
        assert facts["target"] == str(clean)
    before = clean.read_bytes()
    wavediff(*words, "--steps", "2")
    assert clean.read_bytes() != before
    assert "--mix takes" in refusal("denoise", noisy, "-m", model, "--mix", "1.5")[1]


def test_folders_keep_their_tree_and_a_bad_file_stops_no_other(model: Path, tmp_path: Path) -> None:
    given, out = tmp_path / "in", tmp_path / "out"
    put(given / "a.wav", hiss(0, 0.2))
    put(given / "deep" / "b.flac", hiss(1, 0.2))
    (given / "bad.wav").write_text("this is no sound")
    result = wavediff("denoise", given, "-m", model, "-o", out, "--json", code=ExitCode.FAILED)
    assert tree(out) == {"a.wav", "deep", "deep/b.flac"}
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [("error" in line, Path(line["source"]).name) for line in lines] == [
        (False, "a.wav"),
        (True, "bad.wav"),
        (False, "b.flac"),
    ]
    assert "bad.wav is text, not sound" in result.stderr
    assert "1 of 3" in result.stderr


def test_nothing_is_overwritten_unasked(model: Path, tmp_path: Path) -> None:
    put(tmp_path / "a.wav", hiss(0, 0.2))
    words = ("denoise", tmp_path, "-m", model)
    wavediff(*words)
    assert tree(tmp_path) == {"a.wav", "a.denoised.wav"}
    (tmp_path / "a.denoised.wav").write_text("mine")
    message, hint = refusal(*words)
    assert "a.denoised.wav exists" in message
    assert "-f" in hint
    put(tmp_path / "b.wav", hiss(0, 0.2))
    assert "1 result there already" in wavediff(*words, "--skip-existing").stderr
    assert tree(tmp_path) == {"a.wav", "a.denoised.wav", "b.wav", "b.denoised.wav"}
    assert (tmp_path / "a.denoised.wav").read_text() == "mine"
    wavediff(*words, "-f")
    assert sf.info(tmp_path / "a.denoised.wav").frames == RATE // 5
    own = refusal("denoise", tmp_path / "a.wav", "-m", model, "-o", tmp_path / "a.wav")
    assert "overwritten by its result" in own[0]


def test_what_is_said(model: Path, noisy: Path, tmp_path: Path) -> None:
    words = ("denoise", noisy, "-m", model, "-f")
    assert wavediff(*words, "-q").stderr == ""
    said = wavediff(*words).stderr.splitlines()
    assert len(said) == 1
    assert len(wavediff(*words, "-v").stderr.splitlines()) > 1
    sound = 40 * voice(1, 0.5)
    loud = put(tmp_path / "loud.wav", sound, subtype="FLOAT")
    result = wavediff("denoise", loud, "-m", model, "-o", tmp_path / "loud.flac")
    beyond = int((np.abs(sound) > 10 ** (REDUCTION / 20)).sum())
    assert beyond > 100
    assert 0.9 * beyond < int(result.stderr.splitlines()[1].split()[0]) < 1.1 * beyond


def test_errors_show_a_traceback_only_with_debug(tmp_path: Path) -> None:
    words = ("models", "show", tmp_path / "none")
    assert "no model is called" in refusal(*words)[0]
    result = wavediff(*words, "--debug", code=ExitCode.FAILED)
    assert isinstance(result.exception, CheckpointError)  # Python prints its traceback


def test_pipes_carry_sound_and_nothing_else(model: Path, noisy: Path, tmp_path: Path) -> None:
    wavediff("denoise", noisy, "-m", model, "-o", tmp_path / "file.wav")
    with process("denoise", "-", "-o", "-", "-m", model) as running:
        sound, words = running.communicate(noisy.read_bytes())
    assert running.returncode == 0, words
    assert sound == (tmp_path / "file.wav").read_bytes()
    assert b"20 dB quieter" in words
    wavediff("denoise", noisy, "-o", "-", "--json", "-m", model, code=ExitCode.USAGE)
    assert "pipes" in refusal("denoise", "-", "--plot", "-m", model)[0]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_nothing_half_written(
    number: int, code: int, model: Path, tmp_path: Path
) -> None:
    given = put(tmp_path / "long.wav", hiss(0, 20.0))
    with process("denoise", given, "-m", model, "--steps", "3000", "--block", "5") as running:
        deadline = time.monotonic() + 60
        while len(tree(tmp_path)) == 1 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(tree(tmp_path)) == 2  # the hidden file that is being written
        running.send_signal(number)
        words = running.communicate()[1]
    assert running.returncode == code
    assert b"Traceback" not in words
    assert tree(tmp_path) == {"long.wav"}


def test_models_and_check_say_what_a_file_is(model: Path) -> None:
    assert "makes all quieter" in wavediff("models", "show", model).stdout
    assert "CC0-1.0 (of the weights)" in wavediff("check", model).stdout
    facts = json.loads(wavediff("models", "show", model, "--json").stdout)
    assert facts["name"] == "attenuator"
    assert facts["rate"] == facts["recipe"]["rate"] == RATE
    listed = json.loads(wavediff("models", "list", "--json").stdout)
    assert all(fact["licence"] for fact in listed)


def test_evaluate_scores_files_and_models(model: Path, tmp_path: Path) -> None:
    clean, noise = torch.tensor(voice(0, 1.0)), torch.tensor(hiss(0, 1.0))
    noise -= (noise @ clean) / (clean @ clean) * clean
    noise -= noise.mean()
    noisy = clean + noise * clean.norm() / noise.norm() / 10  # an SI-SDR of 20 dB
    for name, sound in (("clean", clean), ("noisy", noisy)):
        put(tmp_path / name / "a.wav", 0.5 * sound.numpy(), subtype="FLOAT")
    table = tmp_path / "figures.csv"
    words = ("evaluate", "--metrics", "si_sdr", "--json")
    files = wavediff(*words, tmp_path / "clean", tmp_path / "noisy", "--csv", table)
    ours = ("-m", model, "--noisy", tmp_path / "noisy", "--clean", tmp_path / "clean")
    made = wavediff(*words, *ours, "--save", tmp_path / "made")
    for result in (files, made):  # a model that changes the level alone changes no SI-SDR
        mean = json.loads(result.stdout)["metrics"]["si_sdr"]["mean"]
        assert mean == pytest.approx(20, abs=0.2)
    assert table.read_text().splitlines()[1].startswith("a,1.0,")
    assert tree(tmp_path / "made") == {"a.wav"}
    assert "exists" in refusal(*words, *ours, "--csv", table)[0]
