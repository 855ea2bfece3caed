"""What a training leaves to look at: a line of JSON a step, and TensorBoard where installed."""

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any

import torch

from wavediff.trainer import Step
from wavediff.transform import Transform
from wavediff.validation import Validation

PICTURE = Transform(512, 128)
FLOOR_DB = 80.0  # below the loudest bin, black


class Log:
    """Writes `log.jsonl`, and TensorBoard's scalars, pictures and sounds if it can.

    A training that goes on at `step` goes on in the same files.
    """

    def __init__(self, folder: Path, step: int) -> None:
        path = folder / "log.jsonl"
        _forget_after(path, step)
        self._lines = open(path, "a", encoding="utf-8")  # noqa: SIM115
        self._board: Any = None
        with contextlib.suppress(ImportError):
            from torch.utils.tensorboard import SummaryWriter

            self._board = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, detail: Step, validation: Validation | None) -> None:
        """Everything that is known of a step."""
        facts = {
            "loss": detail.loss,
            "learning_rate": detail.learning_rate,
            "norm": detail.norm,
            **{f"loss_quarter_{n + 1}": loss for n, loss in enumerate(detail.by_time)},
        }
        if validation is not None:
            facts |= validation.scores
        known = {name: value for name, value in facts.items() if math.isfinite(value)}
        self._lines.write(json.dumps({"step": step, **known}) + "\n")
        self._lines.flush()
        if self._board is None:
            return
        for name, value in known.items():
            self._board.add_scalar(name.replace("_quarter", "/quarter"), value, step)
        if validation is not None:
            for name, sound in validation.examples.items():
                self._board.add_audio(name, sound[None].clamp(-1, 1), step, validation.rate)
                self._board.add_image(name, _picture(sound), step)

    def close(self) -> None:
        """Finish the files."""
        self._lines.close()
        if self._board is not None:
            self._board.close()


def _forget_after(path: Path, step: int) -> None:
    """Take out the lines after `step`: a training that was killed writes them again."""
    if not path.exists():
        return
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with open(path, encoding="utf-8", errors="replace") as old, open(beside, "wb") as new:
        for line in old:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a line that was cut off
                if json.loads(line)["step"] <= step:
                    new.write(line.encode())
    os.replace(beside, path)


def _picture(sound: torch.Tensor) -> torch.Tensor:
    """A spectrogram (1, bins, frames) in 0 to 1, low frequencies at the bottom."""
    level = 20 * PICTURE.analyse(sound[None])[0].abs().clamp(min=1e-6).log10()
    return ((level - level.max()) / FLOOR_DB + 1).clamp(0, 1).T.flip(0)[None]
