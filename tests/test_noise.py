"""Noise by position: any way of reading it gives the same numbers, and they are white."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff.noise import TILE, Noise, derive_seed, spectral_tilt

LONG = 4 * TILE


def correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack((a, b)).double())[0, 1])


@settings(max_examples=50, deadline=None)
@given(st.integers(-2 * TILE, 2 * TILE), st.integers(0, 2 * TILE), st.integers(0, 2 * TILE))
def test_a_block_is_its_part_of_the_whole(start: int, first: int, second: int) -> None:
    noise = Noise(3)
    whole = noise.read(1, 0, start, start + first + second)
    assert torch.equal(noise.read(1, 0, start, start + first), whole[:first])
    assert torch.equal(noise.read(1, 0, start + first, start + first + second), whole[first:])


@settings(max_examples=20, deadline=None)
@given(st.integers(-TILE, TILE), st.integers(0, 3000), st.integers(0, 3000))
def test_a_shaped_block_is_its_part_of_the_whole(start: int, first: int, second: int) -> None:
    noise, kernel = Noise(3), spectral_tilt(16_000)
    stop = start + first + second
    whole = noise.shaped(1, 0, start, stop, kernel)
    assert len(whole) == first + second
    blocks = (
        noise.shaped(1, 0, start, start + first, kernel),
        noise.shaped(1, 0, start + first, stop, kernel),
    )
    torch.testing.assert_close(torch.cat(blocks), whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("start", [-TILE, -1, 0, 7, TILE])
def test_an_empty_range_is_empty(start: int) -> None:
    assert len(Noise(0).read(0, 0, start, start)) == 0
    assert len(Noise(0).shaped(0, 0, start, start - 5, spectral_tilt(16_000))) == 0


def test_it_is_white_and_gaussian() -> None:
    noise = Noise(11).read(0, 0, -LONG // 2, LONG // 2).double()
    sigma = 1 / math.sqrt(LONG)
    assert abs(float(noise.mean())) < 4 * sigma
    assert abs(float(noise.var()) - 1) < 4 * math.sqrt(2) * sigma
    assert abs(float(noise.pow(3).mean())) < 4 * math.sqrt(15) * sigma
    assert abs(float(noise.pow(4).mean()) - 3) < 4 * math.sqrt(96) * sigma
    for lag in (1, 2, 17, TILE):
        assert abs(correlation(noise[:-lag], noise[lag:])) < 4.5 / math.sqrt(LONG - lag)


@pytest.mark.parametrize(
    "other", [(Noise(0), 1, 0), (Noise(0), 0, 1), (Noise(1), 0, 0), (Noise(0), -1, 0)], ids=str
)
def test_draws_channels_and_seeds_are_strangers(other: tuple[Noise, int, int]) -> None:
    noise, draw, channel = other
    here, there = Noise(0).read(0, 0, 0, LONG), noise.read(draw, channel, 0, LONG)
    assert abs(correlation(here, there)) < 4 / math.sqrt(LONG)
    assert abs(correlation(here[:-TILE], there[TILE:])) < 4 / math.sqrt(LONG - TILE)


def test_parts_of_a_seed_are_not_run_together() -> None:
    seeds = {derive_seed(*p) for p in [(1, 23), (12, 3), (123,), (1, 2, 3), (-1, 23), (23, 1)]}
    assert len(seeds) == 6
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_the_numbers_outlive_the_process() -> None:
    assert derive_seed(1, 2, 3) == 1517167407554927345
    read = Noise(0).read(0, 0, -2, 3)
    torch.testing.assert_close(
        read, torch.tensor([-1.708343, 0.923416, -0.884872, -0.094043, 1.070075]), rtol=0, atol=1e-5
    )


def test_shaped_is_filtered_white() -> None:
    kernel = torch.tensor([0.25, -0.5, 1.0, -0.5, 0.25])
    white = Noise(5).read(2, 1, 98, 1002).numpy()
    expected = np.convolve(white, kernel.numpy(), mode="valid")
    shaped = Noise(5).shaped(2, 1, 100, 1000, kernel).numpy()
    np.testing.assert_allclose(shaped, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 16_000, 22_050])
def test_the_tilt_has_unit_power_no_delay_and_the_slope_of_speech(rate: int) -> None:
    kernel = spectral_tilt(rate)
    assert float(kernel.square().sum()) == pytest.approx(1, abs=1e-6)
    torch.testing.assert_close(kernel, kernel.flip(0), rtol=0, atol=1e-7)
    response = torch.fft.rfft(kernel, 4096).abs()
    low, one, two, three = (
        20 * math.log10(response[round(hertz / rate * 4096)]) for hertz in (50, 1000, 2000, 3000)
    )
    assert low - one == pytest.approx(7.0, abs=1.2)  # 10 log10(1 + 2²): the corner is at 500 Hz
    assert one - two == pytest.approx(5.3, abs=0.5)
    assert two - three == pytest.approx(3.4, abs=0.5)


def test_noise_of_the_slope_of_speech_has_the_power_of_white_noise() -> None:
    shaped = Noise(8).shaped(0, 0, 0, LONG, spectral_tilt(16_000))
    assert float(shaped.square().mean()) == pytest.approx(1, abs=0.03)
