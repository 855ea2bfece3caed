"""Samplers: how a path is walked back, one guess at a time.

All have one signature, so that a dictionary of them is the command line's choice. They know the
path and a function that guesses, and neither networks nor tasks.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from wavediff.path import Path

Denoise = Callable[[Tensor, float], Tensor]  # a state and its time: a guess of the clean sound
Draw = Callable[[int], Tensor]  # the noise of a numbered draw, shaped like the state


class Sampler(Protocol):
    """Walks `path` from `x` at `times[0]` along `times` and returns the state at the last."""

    def __call__(
        self,
        path: Path,
        denoise: Denoise,
        x: Tensor,
        observation: Tensor,
        times: Sequence[float],
        draw: Draw,
    ) -> Tensor: ...


def ddim(
    path: Path,
    denoise: Denoise,
    x: Tensor,
    observation: Tensor,
    times: Sequence[float],
    draw: Draw,
) -> Tensor:
    """The path's deterministic step: DDIM (Song et al. 2021), Euler's rule on a diffusion."""
    for t, t_next in itertools.pairwise(times):
        x = path.advance(x, denoise(x, t), observation, t, t_next, None)
    return x


def ancestral(
    path: Path,
    denoise: Denoise,
    x: Tensor,
    observation: Tensor,
    times: Sequence[float],
    draw: Draw,
) -> Tensor:
    """The path's stochastic step (Ho et al. 2020; of a bridge, Jukić et al. 2024); no noise into
    the last."""
    for n, (t, t_next) in enumerate(itertools.pairwise(times)):
        noise = draw(n) if t_next > 0 else None
        x = path.advance(x, denoise(x, t), observation, t, t_next, noise)
    return x


def heun(
    path: Path,
    denoise: Denoise,
    x: Tensor,
    observation: Tensor,
    times: Sequence[float],
    draw: Draw,
) -> Tensor:
    """Second order, two guesses a step, for diffusions (Karras et al. 2022, algorithm 1)."""
    for sigma, sigma_next in itertools.pairwise(times):
        slope = (x - denoise(x, sigma)) / sigma
        ahead = x + (sigma_next - sigma) * slope
        if sigma_next > 0:
            slope = (slope + (ahead - denoise(ahead, sigma_next)) / sigma_next) / 2
            ahead = x + (sigma_next - sigma) * slope
        x = ahead
    return x


def dpmpp_2m(
    path: Path,
    denoise: Denoise,
    x: Tensor,
    observation: Tensor,
    times: Sequence[float],
    draw: Draw,
) -> Tensor:
    """Second order with one guess a step, for diffusions (Lu et al. 2022, DPM-Solver++(2M))."""
    before: Tensor | None = None
    for n, (sigma, sigma_next) in enumerate(itertools.pairwise(times)):
        guess = denoise(x, sigma)
        if sigma_next == 0:
            return guess
        step = math.log(sigma / sigma_next)
        ahead = guess
        if before is not None:
            ratio = math.log(times[n - 1] / sigma) / step
            ahead = guess + (guess - before) / (2 * ratio)
        x = (sigma_next / sigma) * x - math.expm1(-step) * ahead
        before = guess
    return x


def dpmpp_2m_sde(
    path: Path,
    denoise: Denoise,
    x: Tensor,
    observation: Tensor,
    times: Sequence[float],
    draw: Draw,
) -> Tensor:
    """The stochastic DPM-Solver++(2M), midpoint form, for diffusions (Lu et al. 2022)."""
    before: Tensor | None = None
    for n, (sigma, sigma_next) in enumerate(itertools.pairwise(times)):
        guess = denoise(x, sigma)
        if sigma_next == 0:
            return guess
        step = math.log(sigma / sigma_next)
        share = -math.expm1(-2 * step)
        x_next = (sigma_next / sigma) * math.exp(-step) * x + share * guess
        if before is not None:
            ratio = math.log(times[n - 1] / sigma) / step
            x_next = x_next + 0.5 * share * (guess - before) / ratio
        x = x_next + sigma_next * math.sqrt(share) * draw(n)
        before = guess
    return x


SAMPLERS: dict[str, Sampler] = {
    "ddim": ddim,
    "ancestral": ancestral,
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "dpmpp_2m_sde": dpmpp_2m_sde,
}
DIFFUSION_ONLY = frozenset({"heun", "dpmpp_2m", "dpmpp_2m_sde"})


def calls(sampler: str, steps: int) -> int:
    """How often a sampler asks for a guess."""
    return 2 * steps - 1 if sampler == "heun" else steps


def zero_draw(like: Tensor) -> Draw:
    """Draws of silence, for samplers that are deterministic."""
    return lambda number: torch.zeros_like(like)


@dataclass(frozen=True)
class Walk:
    """A choice of sampler and steps."""

    sampler: str = "ddim"
    steps: int = 1

    @property
    def calls(self) -> int:
        """How often it asks for a guess."""
        return calls(self.sampler, self.steps)
