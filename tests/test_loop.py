"""Patterns and loops: hits lie where the grid says, and a seamless loop is one."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from wavediff import loop
from wavediff.errors import TaskError

RATE = 8000
CLICK = torch.tensor([0.5])
BAR = RATE * 2  # at 120 beats per minute


def places(sound: torch.Tensor) -> list[int]:
    return sound.nonzero()[:, 0].tolist()


def test_a_pattern_says_what_it_means() -> None:
    found = loop.parse("kick:x---x--- hat:-x*4 rim:X. bass:drum:x")
    assert found.labels == ("kick", "hat", "rim", "bass:drum")
    assert found.rows[0].gains == (1, 0, 0, 0, 1, 0, 0, 0)
    assert found.rows[1].gains == (0, 1) * 4
    assert found.rows[2].gains == pytest.approx((10 ** (3 / 20), 0))
    assert [row.hits for row in found.rows] == [2, 4, 1, 1]
    assert [row.takes(1) for row in found.rows] == [2, 3, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no hit"),
        ("kick:----", "no hit"),
        ("x---", "no label"),
        (":x---", "no label"),
        ("kick:x-o-", "o is no step"),
        ("kick:", "0 steps"),
        ("kick:x*0", "0 steps"),
        ("kick:x*999", "999 steps"),
        ("kick:x-*b", "not a number"),
        ("kick:x- kick:-x", "kick has two rows"),
        ("kick:x--- hat:x--", "3 steps, which do not divide the bar of 4"),
    ],
)
def test_what_is_wrong_with_a_pattern_is_said(text: str, message: str) -> None:
    with pytest.raises(TaskError, match=message) as caught:
        loop.parse(text)
    assert caught.value.hint


@pytest.mark.parametrize(("bpm", "bars"), [(0, 1), (math.nan, 1), (1e9, 1), (120, 0), (120, 999)])
def test_a_tempo_or_length_that_cannot_be_is_refused(bpm: float, bars: int) -> None:
    with pytest.raises(TaskError):
        loop.render(loop.parse("kick:x"), bpm, {"kick": CLICK}, RATE, bars)
    with pytest.raises(TaskError, match="no sound for kick"):
        loop.render(loop.parse("kick:x"), 120, {"hat": CLICK}, RATE)


def test_hits_lie_on_the_grid() -> None:
    pattern = loop.parse("kick:x---x-x- hat:-x-X")
    shots = {"kick": CLICK, "hat": 0.1 * CLICK}
    sound = loop.render(pattern, 120, shots, RATE, bars=2)
    assert sound.shape == (2 * BAR,)
    bar = [0, BAR // 4, BAR // 2, 3 * BAR // 4]
    assert places(sound) == bar + [place + BAR for place in bar]
    heights = [0.5, 0.05, 0.5, 0.5 + 0.05 * 10 ** (3 / 20)]
    assert sound[bar].tolist() == pytest.approx(heights)


@settings(max_examples=25, deadline=None)
@given(st.floats(*loop.BPM), st.integers(1, 4), st.integers(1, 16))
def test_the_grid_does_not_drift(bpm: float, bars: int, steps: int) -> None:
    sound = loop.render(loop.parse(f"k:x*{steps}"), bpm, {"k": CLICK}, 1000, bars)
    beat = 60_000 / bpm
    expected = [round(n * 4 * beat / steps) for n in range(bars * steps)]
    assert abs(len(sound) - bars * 4 * beat) <= 0.5
    assert all(abs(a - b) <= 1 for a, b in zip(places(sound), expected, strict=True))


@pytest.mark.parametrize("seconds", [0.1, 1.9, 5.3])
def test_a_wrapped_loop_equals_the_middle_of_an_endless_one(seconds: float) -> None:
    pattern = loop.parse("kick:x--x hat:-x-x*2")
    generator = torch.manual_seed(0)
    shots = {
        label: 0.02 * torch.randn(int(seconds * RATE), generator=generator)
        for label in pattern.labels
    }
    once = loop.render(pattern, 120, shots, RATE)
    often = loop.render(pattern, 120, shots, RATE, bars=6, wrap=False)
    assert len(often) > 6 * BAR
    assert torch.allclose(once, often[4 * BAR : 5 * BAR], atol=1e-6)


def test_the_end_rings_out_without_wrapping() -> None:
    pattern, shot = loop.parse("kick:---x"), 0.1 * torch.ones(RATE)
    sound = loop.render(pattern, 120, {"kick": shot}, RATE, wrap=False)
    start = 3 * BAR // 4
    assert torch.equal(sound[start : start + RATE], shot)
    assert not sound[:start].any()
    assert not sound[start + RATE :].any()


def test_takes_come_in_turns() -> None:
    shots = {"kick": torch.tensor([[0.1], [0.2], [0.3]])}
    sound = loop.render(loop.parse("kick:x*4"), 120, shots, RATE, bars=2)
    assert sound[places(sound)].tolist() == pytest.approx([0.1, 0.2, 0.3, 0.1, 0.2, 0.3, 0.1, 0.2])


def test_one_gain_keeps_the_peak_below_full_scale() -> None:
    quiet = loop.render(loop.parse("kick:x-X-"), 120, {"kick": 0.1 * CLICK}, RATE)
    loud = loop.render(loop.parse("kick:x-X-"), 120, {"kick": 10 * CLICK}, RATE)
    assert float(loud.abs().max()) == pytest.approx(10 ** (-1 / 20))
    assert torch.allclose(loud / loud.max(), quiet / quiet.max())
    assert float(quiet[0]) == pytest.approx(0.05)
    assert not loop.render(loop.parse("kick:x"), 120, {"kick": torch.zeros(9)}, RATE).any()
