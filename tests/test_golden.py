"""Shipped models are held to the figures that they had on four clips when they were shipped.

The clips and their licences: tests/data/CREDITS.md. The figures: tests/data/golden.toml, which

    python tests/test_golden.py --write

writes anew, to be read in the difference before it is committed. It needs pesq and pystoi.
"""

import functools
import math
import sys
import tomllib
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from wavediff import model as models
from wavediff.audio import read
from wavediff.metrics import METRICS, available
from wavediff.tasks import DenoiseSettings
from wavediff.vocoding import VocodeSettings

DATA = Path(__file__).resolve().parent / "data"
TABLE = DATA / "golden.toml"
CLIPS = sorted(path.stem for path in (DATA / "clean").glob("*.flac"))
STEPS = {"denoise": (1, 4), "vocode": (1,)}
# dB, and scores; what a vocoder makes is no copy of the wave, so that SI-SDR says nothing of it.
TOLERANCE = {"si_sdr": 0.1, "estoi": 0.005, "pesq": 0.03, "mr_stft": 0.01}
METRICS_OF = {"denoise": ("si_sdr", "estoi", "pesq"), "vocode": ("pesq", "mr_stft")}
HEAD = """\
# What shipped models reach on the clips of this folder, by model, steps and clip; "untouched"
# are the noisy clips. Figures may be off by so much: {}.
# Written by: python tests/test_golden.py --write
"""
REFRESH = "python tests/test_golden.py --write"


@functools.cache
def load(model: str) -> models.Model:
    return models.load(model, "cpu")


def task(model: str) -> str:
    """What it is judged as; what works above the band of these clips: tests/test_upper.py."""
    if model == "untouched":
        return "denoise"
    return "upper" if load(model).upper else load(model).recipe.task


JUDGED = [model for model in models.names() if task(model) in STEPS]


def metric(key: str) -> Any:
    """The key as a parameter, skipped by name where its package is not installed."""
    missing = pytest.mark.skipif(
        key not in available(),
        reason=f"{METRICS[key].name} needs the package {METRICS[key].package}",
    )
    return pytest.param(key, marks=missing)


@functools.cache
def made(model: str, steps: int, clip: str) -> Tensor:
    """(samples,); the noisy clip itself of the model "untouched"."""
    noisy, rate = read(DATA / "noisy" / f"{clip}.flac")
    if model == "untouched":
        return noisy[0]
    if task(model) == "vocode":
        clean, rate = read(DATA / "clean" / f"{clip}.flac")
        return cast(Tensor, load(model).resynthesise(clean, rate, VocodeSettings(steps)))[0]
    return cast(Tensor, load(model).denoise(noisy, rate, DenoiseSettings(steps=steps)))[0]


def figure(model: str, steps: int, clip: str, key: str) -> float:
    clean, rate = read(DATA / "clean" / f"{clip}.flac")
    return METRICS[key].function(clean[0], made(model, steps, clip), rate)


def golden() -> dict[str, dict[str, float]]:
    """The table: figures by "model/steps/clip"."""
    return tomllib.loads(TABLE.read_text("utf-8"))


def name(model: str, steps: int, clip: str) -> str:
    return f"{model}/{steps}/{clip}"


@pytest.mark.parametrize("key", [metric(key) for key in METRICS_OF["denoise"]])
@pytest.mark.parametrize("clip", CLIPS)
def test_the_clips_and_metrics_are_what_they_were(clip: str, key: str) -> None:
    expected = golden()[name("untouched", 0, clip)][key]
    assert figure("untouched", 0, clip, key) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(
    ("model", "steps", "key"),
    [
        pytest.param(model, steps, key, marks=metric(key).marks)
        for model in JUDGED
        for steps in STEPS[task(model)]
        for key in METRICS_OF[task(model)]
    ],
)
def test_a_shipped_model_is_as_good_as_it_was(model: str, steps: int, key: str) -> None:
    table, worse = golden(), []
    for clip in CLIPS:
        assert name(model, steps, clip) in table, f"no figures of {model}: {REFRESH}"
        expected = table[name(model, steps, clip)][key]
        found = figure(model, steps, clip, key)
        if not math.isclose(found, expected, rel_tol=0, abs_tol=TOLERANCE[key]):
            worse.append(f"{clip}: {found:.3f}, was {expected:.3f}")
    assert not worse, f"{METRICS[key].head} of {model} at {steps} steps. " + "; ".join(worse)


@pytest.mark.parametrize("model", [model for model in JUDGED if task(model) == "denoise"])
def test_a_shipped_denoiser_helps_on_every_clip(model: str) -> None:
    for clip in CLIPS:
        gain = figure(model, 1, clip, "si_sdr") - figure("untouched", 0, clip, "si_sdr")
        assert gain > 0.5, f"{model} gains {gain:.2f} dB on {clip}"


def write() -> None:
    """Measure everything and write the table."""
    if missing := set(TOLERANCE) - set(available()):
        sys.exit(f"not installed, and needed for all figures: {', '.join(sorted(missing))}")
    torch.manual_seed(0)
    bounds = ", ".join(f"{METRICS[key].head} {bound}" for key, bound in TOLERANCE.items())
    lines = [HEAD.format(bounds)]
    for model, each in [("untouched", (0,)), *((model, STEPS[task(model)]) for model in JUDGED)]:
        for steps in each:
            for clip in CLIPS:
                keys = METRICS_OF[task(model)]
                figures = {key: figure(model, steps, clip, key) for key in keys}
                row = ", ".join(f"{key} = {value:.4f}" for key, value in figures.items())
                lines.append(f'"{name(model, steps, clip)}" = {{ {row} }}\n')
    TABLE.write_text("".join(lines), "utf-8")
    print(f"{len(lines) - 1} rows in {TABLE}")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(f"usage: {REFRESH}")
    write()
