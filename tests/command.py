"""The command line as the tests use it, and a model whose effect is known."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from corpus import NETWORK, RATE
from typer.testing import CliRunner

from wavediff import checkpoint, recipe, tasks
from wavediff.checkpoint import Checkpoint
from wavediff.cli.main import app

REDUCTION = 20.0  # dB that the model of these tests takes off everything
PROGRAM = [sys.executable, "-c", "from wavediff.cli.main import run; run()"]


def attenuator(path: Path) -> Path:
    """Save a model that makes everything quieter by REDUCTION."""
    settings = recipe.parse({"rate": RATE, "network": NETWORK}, "the test")
    network = tasks.build(settings).network
    weights = network.state_dict()
    weights["leave"].zero_()
    centre = network.config.taps // 2  # the real part of the tap on the frame itself
    weights["rest"].zero_()[centre] = 10 ** (-REDUCTION / 20) - 1  # added to the observation
    tensors = {f"network.{name}": tensor for name, tensor in weights.items()}
    facts = {"name": "attenuator", "summary": "makes all quieter", "licence": "CC0-1.0"}
    checkpoint.save(path, Checkpoint(settings, tensors, facts))
    return path


def wavediff(*words: str | Path, code: int = 0, **settings: Any) -> Any:
    """Run a command here; its result has stdout, stderr and stdout_bytes."""
    result = CliRunner().invoke(app, [str(word) for word in words], **settings)
    assert result.exit_code == code, (result.stdout, result.stderr, result.exception)
    return result


def process(*words: str | Path, **settings: Any) -> "subprocess.Popen[bytes]":
    """Start a command as a process of its own."""
    command = [*PROGRAM, *map(str, words)]
    pipes = {name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")}
    # A shell's background job ignores Ctrl-C, and so would its children.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(command, **{**pipes, **settings})
    finally:
        signal.signal(signal.SIGINT, before)


def refusal(*words: str | Path, code: int = 1) -> tuple[str, str]:
    """The message and the hint of a command that fails with those two lines and nothing else."""
    result = wavediff(*words, code=code)
    assert result.stdout == ""
    message, hint = result.stderr.splitlines()
    assert message.startswith("wavediff: ")
    assert hint.startswith("hint: ")
    return message, hint


def tree(folder: Path) -> set[str]:
    """Everything in a folder, hidden files too."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}
