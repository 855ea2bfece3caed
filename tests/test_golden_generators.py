"""Shipped generators make the sounds that they made when they were shipped.

How bright, how long and how loud what they invent is, label by label, with

    python tests/test_golden_generators.py --write

written to tests/data/golden-generators.toml, to be read in the difference before it is committed.
How good it is takes a judge and real sounds: see docs/models.md.
"""

import functools
import sys
import tomllib
from pathlib import Path

import pytest
import torch
from torch import Tensor

from wavediff import model as models
from wavediff.generating import GenerateSettings

TABLE = Path(__file__).resolve().parent / "data" / "golden-generators.toml"
GENERATORS = [name for name in models.names() if models.load(name, "cpu").recipe.task == "generate"]
COUNT, SECONDS = 2, 1.5
TOLERANCE = {"centroid": 0.06, "length": 0.03, "level": 0.7}  # of the figure; s; dB
HEAD = """\
# What shipped generators invent from seed 0: the mean centre of the spectrum (Hz), the time after
# which it stays 30 dB below its peak (s), and the RMS level (dB), over {} sounds of each label.
# Written by: python tests/test_golden_generators.py --write
"""
REFRESH = "python tests/test_golden_generators.py --write"


def cases() -> list[tuple[str, str]]:
    """Models and their labels, of those that babble without end none."""
    found = []
    for model in GENERATORS:
        recipe = models.load(model, "cpu").recipe
        one_shots = recipe.generate.frames > 0
        found += [(model, label) for label in (recipe.prior.labels if one_shots else ("",))]
    return found


@functools.cache
def made(model: str, label: str) -> Tensor:
    """(COUNT, samples)"""
    loaded = models.load(model, "cpu")
    seconds = None if loaded.recipe.generate.frames else SECONDS
    asked = {label: 1.0} if label else {}
    return loaded.generate(COUNT, GenerateSettings(labels=asked, seconds=seconds))


@functools.cache
def figures(model: str, label: str) -> dict[str, float]:
    sounds, rate = made(model, label), models.load(model, "cpu").rate
    power = torch.fft.rfft(sounds).abs().square()
    frequency = torch.fft.rfftfreq(sounds.shape[1], 1 / rate)
    centroid = (power * frequency).sum(1) / power.sum(1)
    loud = sounds.abs() > 10 ** (-30 / 20) * sounds.abs().amax(1, keepdim=True)
    last = (loud * torch.arange(sounds.shape[1])).amax(1) / rate
    level = 10 * sounds.square().mean(1).log10()
    return {
        "centroid": float(centroid.mean()),
        "length": float(last.mean()),
        "level": float(level.mean()),
    }


@pytest.mark.parametrize(("model", "label"), cases())
def test_a_shipped_generator_makes_what_it_made(model: str, label: str) -> None:
    table = tomllib.loads(TABLE.read_text("utf-8"))
    assert f"{model}/{label}" in table, f"no figures of {model}: {REFRESH}"
    expected, found = table[f"{model}/{label}"], figures(model, label)
    for key, bound in TOLERANCE.items():
        room = bound * expected[key] if key == "centroid" else bound
        assert found[key] == pytest.approx(expected[key], abs=room), key


@pytest.mark.skipif("drums-44k" not in GENERATORS, reason="the package has no drums")
def test_drums_are_as_bright_as_their_names_say() -> None:
    drums = [label for model, label in cases() if model == "drums-44k"]
    bright = {label: figures("drums-44k", label)["centroid"] for label in drums}
    assert bright["kick"] < bright["tom"] < bright["snare"] < bright["closedhat"]


def write() -> None:
    """Measure everything and write the table."""
    lines = [HEAD.format(COUNT)]
    for model, label in cases():
        row = ", ".join(f"{key} = {value:.4g}" for key, value in figures(model, label).items())
        lines.append(f'"{model}/{label}" = {{ {row} }}\n')
    TABLE.write_text("".join(lines), "utf-8")
    print(f"{len(lines) - 1} rows in {TABLE}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REFRESH}")
    write()
