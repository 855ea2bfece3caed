"""The examples run, and show what they say."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def test_the_minimal_example_learns_to_denoise() -> None:
    scores = runpy.run_path(str(EXAMPLES / "minimal.py"))["main"](steps=150)
    assert abs(scores["noisy"]) < 0.5
    assert scores["1 steps"] > scores["noisy"] + 4
    assert scores["4 steps"] > scores["noisy"] + 2.5


def test_the_minimal_example_stays_on_one_page() -> None:
    assert len((EXAMPLES / "minimal.py").read_text("utf-8").splitlines()) < 90
