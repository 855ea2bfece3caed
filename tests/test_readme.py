"""What the README and the documentation tell people to type works.

Every command `wavediff …` of a block of sh or bash runs in a folder of its own, where the files
and folders that it reads are made from the clips of tests/data. A training only shows what it would
do. Of make, pip and python it is checked that the target, the extra and the script exist.
"""

import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import typer
from typer.testing import CliRunner

from wavediff import model as models
from wavediff import recipe as recipes
from wavediff.audio import read
from wavediff.cli.main import app
from wavediff.cli.options import DEFAULT_MODEL
from wavediff.mel import PRESETS, mel
from wavediff.resample import resample

ROOT = Path(__file__).resolve().parents[1]
CLIPS = ROOT / "tests" / "data"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
READ_BY_OPTION = {"noise", "noisy", "clean", "rooms", "recipe", "init", "model"}
SECONDS = 2  # of a clip
NO_MODEL = "no model is in wavediff/models"


def blocks(page: Path, *languages: str) -> Iterator[str]:
    for language, text in FENCE.findall(page.read_text("utf-8")):
        if language in languages:
            yield text


def commands(block: str) -> Iterator[list[str]]:
    """The simple commands of a block, pipes and lists taken apart, as words."""
    for line in block.replace("\\\n", " ").splitlines():
        split = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        split.whitespace_split = True
        words: list[str] = []
        for word in [*split, ";"]:
            if set(word) <= set("|&;"):
                if words:
                    yield words
                words = []
            else:
                words.append(word)


def found(program: str) -> list[object]:
    """Every different command of that program in all pages, as parameters of a test."""
    lines: dict[str, list[str]] = {}
    for page in PAGES:
        for block in blocks(page, "sh", "bash"):
            for words in commands(block):
                if words[0] == "torchrun" and "wavediff" in words:
                    words = words[words.index("wavediff") :]
                if Path(words[0]).name == program:
                    lines.setdefault(shlex.join(words), words[1:])
    return [pytest.param(words, id=line) for line, words in lines.items()]


def test_the_readme_names_the_two_commands() -> None:
    named = [words for block in blocks(PAGES[0], "sh", "bash") for words in commands(block)]
    assert ["make", "demo"] in named
    assert ["make", "test"] in named


@pytest.mark.parametrize("words", found("make"))
def test_make_has_the_target(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([\w-]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^(\w+) \?=", makefile, re.MULTILINE))
    for word in words:
        name, equals, _ = word.partition("=")
        assert name in (variables if equals else targets)


@pytest.mark.parametrize("words", found("pip"))
def test_pip_finds_the_extra(words: list[str]) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    for word in words:
        for named in re.findall(r"^(?:wavediff|\.)\[(.*)\]$", word):
            assert set(named.split(",")) <= set(extras["optional-dependencies"])


@pytest.mark.parametrize("words", found("python"))
def test_the_script_is_there(words: list[str]) -> None:
    scripts = [word for word in words if word.endswith(".py")]
    assert all((ROOT / script).is_file() for script in scripts[:1])


@pytest.mark.parametrize("words", found("wavediff"))
def test_the_command_works(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = [word for word in words if word != "…"]
    if "<" in words or ">" in words:  # the shell's business
        words = words[: min(words.index(sign) for sign in "<>" if sign in words)]
    if words[:1] == ["train"]:
        words = [*words, "--dry-run"]
    if words[:1] == ["check"] and "--help" not in words:
        words = [*words, "--no-cost"]
    provide(words)
    result = CliRunner().invoke(app, words, input=sound() if "-" in words else None)
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize(
    "code",
    [pytest.param(code, id=f"block {n}") for n, code in enumerate(blocks(PAGES[0], "python"))],
)
def test_the_python_of_the_readme_works(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in re.findall(r"""["']([^"'\n]+)["']""", code):
        if name == DEFAULT_MODEL:
            make(name, model=True)
        elif name.endswith((".wav", ".flac", ".npy", ".toml", ".safetensors", "/")):
            make(name)
    audio, rate = read(CLIPS / "noisy" / "italian-man.flac")
    recipe = recipes.parse(
        {
            "network": {"window": 64, "hop": 32, "bands": 4, "channels": 8, "layers": 2},
            "data": {"sounds": [str(CLIPS / "clean")]},
            "training": {"steps": 2, "batch": 2, "crop": 0.5},
        },
        "here",
    )
    exec(code, {"__name__": "readme", "audio": audio, "rate": rate, "recipe": recipe})


def provide(words: list[str]) -> None:
    """Make what a command reads, under the names that it is given."""
    command, names = typer.main.get_command(app), list(words)
    while hasattr(command, "commands"):
        if not names or names[0].startswith("-"):
            return
        assert names[0] in command.commands, f"no command is called {names[0]}"
        command = command.commands[names.pop(0)]
    parser = command.make_parser(command.context_class(command))
    options, _, order = parser.parse_args(names)
    for parameter in dict.fromkeys(order):
        value = options.get(parameter.name or "")
        reads = parameter.param_type_name == "argument" or parameter.name in READ_BY_OPTION
        for name in value if isinstance(value, list | tuple) else [value]:
            if reads and isinstance(name, str) and name != "-":
                make(name.rpartition("=")[2], model=parameter.name in ("model", "init"))
    if words[0] in ("denoise", "trace") and "model" not in options:
        make(DEFAULT_MODEL, model=True)


def make(name: str, model: bool = False) -> None:
    """A recipe, a model, a recording or a folder of them, by the look of its name."""
    path = Path(name)
    if name in models.names() or (name in recipes.names() and not model):
        return
    if model or path.suffix == ".safetensors" or path.parts[:1] == ("runs",):
        if not models.names():
            pytest.skip(NO_MODEL)
        path = path if path.suffix == ".safetensors" else path / "checkpoint.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(models.locate(models.names()[0]), path)
    elif path.suffix == ".toml":
        path.write_text(recipes.to_toml(recipes.load(recipes.names()[0], ["data.sounds=[]"])))
    elif path.suffix == ".npy":
        clip, rate = read(CLIPS / "clean" / "italian-man.flac")
        preset = PRESETS["hifigan"]
        np.save(path, mel(resample(clip[:, : SECONDS * rate], rate, preset.rate), preset)[0])
    elif path.suffix:
        record(Path(name.replace("**", "one").replace("*", "take")), "italian-man")
    else:
        for clip in ("italian-man", "dutch-woman"):
            record(path / f"{clip}.wav", clip)


def record(path: Path, clip: str) -> None:
    side = "clean" if "clean" in str(path) else "noisy"
    sound, rate = sf.read(CLIPS / side / f"{clip}.flac", stop=SECONDS * 16000)
    path.parent.mkdir(parents=True, exist_ok=True)
    sf.write(path, sound, rate)


def sound() -> bytes:
    record(Path("piped.wav"), "italian-man")
    return Path("piped.wav").read_bytes()
