"""Paths: how a clean sound becomes a corrupted one, and how a guess leads back along the way.

A path knows nothing of networks. All of them share one small interface, so that the training and
the samplers work with any: `corrupt`, `precondition`, `start`, `times` and `advance`.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Precondition(NamedTuple):
    """Factors at a time: the guess is `skip * x + out * network(scale * x, code)`."""

    skip: Tensor
    out: Tensor
    scale: Tensor
    code: Tensor


class Path(Protocol):
    """What leads from a clean sound to a corrupted one. Sounds are (batch, samples)."""

    @property
    def reach(self) -> int:
        """Samples to either side that `advance` looks at; 0 where it goes sample by sample."""

    def finish(self, guess: Tensor, *known: Tensor) -> Tensor:
        """The guess, made to fit what is known for sure; itself where nothing is."""

    def corrupt(self, clean: Tensor, observation: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        """The state at times `t` (batch,)."""

    def precondition(self, t: Tensor) -> Precondition:
        """The factors around the network at times `t` (batch,), each (batch,)."""

    def start(self, observation: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        """The state from which sampling begins; `draw` makes its noise, where there is some."""

    def times(self, steps: int) -> list[float]:
        """`steps + 1` times from the start of sampling to the clean sound at 0."""

    def advance(
        self,
        x: Tensor,
        guess: Tensor,
        observation: Tensor,
        t: float,
        t_next: float,
        noise: Tensor | None,
    ) -> Tensor:
        """The state at `t_next`, given a guess of the clean sound at `t`.

        Deterministic without `noise`, stochastic with it.
        """


class FromObservation:
    """What paths have in common that begin at the observation itself, in even steps."""

    def precondition(self, t: Tensor) -> Precondition:
        zero, one = torch.zeros_like(t), torch.ones_like(t)
        return Precondition(skip=zero, out=one, scale=one, code=t)

    def start(self, observation: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        return observation

    def times(self, steps: int) -> list[float]:
        return [1 - step / steps for step in range(steps + 1)]


@dataclass(frozen=True)
class Bridge(FromObservation):
    """A bridge between the observation at t = 1 and the clean sound at t = 0, exact at both.

    The state is Gaussian about `(1 - v) clean + v observation` with the standard deviation
    `scale * sqrt(v (1 - v))`. Brownian: v = t. Variance exploding, growth k: v = (k^2t - 1) /
    (k^2 - 1) (Jukić et al. 2024, "Schrödinger bridge for generative speech enhancement").
    """

    scale: float = 0.03  # of the noise; sounds stand at an RMS level of about 0.05
    growth: float = 1.0  # k of the variance-exploding bridge; 1 is the Brownian one
    reach = 0

    def finish(self, guess: Tensor, *known: Tensor) -> Tensor:
        return guess

    def share(self, t: Tensor) -> Tensor:
        """v: how much of the observation is in the mean at t."""
        if self.growth == 1.0:
            return t
        rate = 2 * math.log(self.growth)
        v = torch.expm1(rate * t) / math.expm1(rate)
        # Rounding must not move the end: beyond 1 the noise would be NaN, below it not zero.
        return torch.where(t < 1, v.clamp(max=1.0), 1.0)

    def corrupt(self, clean: Tensor, observation: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        v = self.share(t)[:, None]
        return torch.lerp(clean, observation, v) + self.scale * (v * (1 - v)).sqrt() * noise

    def advance(
        self,
        x: Tensor,
        guess: Tensor,
        observation: Tensor,
        t: float,
        t_next: float,
        noise: Tensor | None,
    ) -> Tensor:
        v, v_next = (float(self.share(torch.tensor(u, dtype=torch.float64))) for u in (t, t_next))
        if noise is not None:
            kept = v_next / v
            spread = self.scale * math.sqrt(v_next * (1 - kept))
            return kept * x + (1 - kept) * guess + spread * noise
        ahead = (1 - v_next) * guess + v_next * observation
        if v == 1.0:  # the state is the observation itself, nothing is left over
            return ahead
        behind = (1 - v) * guess + v * observation
        return ahead + math.sqrt(v_next * (1 - v_next) / (v * (1 - v))) * (x - behind)


@dataclass(frozen=True)
class Diffusion:
    """Clean sound plus sigma times noise; the time is sigma itself (Karras et al. 2022, "EDM")."""

    sigma_data: float = 0.05  # standard deviation of the clean sounds
    sigma_min: float = 1e-4
    sigma_max: float = 5.0
    rho: float = 7.0  # curvature of the grid; infinite for one uniform in log sigma
    reach = 0

    def finish(self, guess: Tensor, *known: Tensor) -> Tensor:
        return guess

    def corrupt(self, clean: Tensor, observation: Tensor, t: Tensor, noise: Tensor) -> Tensor:
        return clean + t.view(-1, *(1,) * (clean.ndim - 1)) * noise

    def precondition(self, t: Tensor) -> Precondition:
        total = t**2 + self.sigma_data**2
        return Precondition(
            skip=self.sigma_data**2 / total,
            out=t * self.sigma_data / total.sqrt(),
            scale=1 / total.sqrt(),
            code=t.log() / 4,
        )

    def loss_weight(self, t: Tensor) -> Tensor:
        """Weight of the squared error of the guess, so that the network's own error counts 1."""
        return (t**2 + self.sigma_data**2) / (t * self.sigma_data) ** 2

    def start(self, observation: Tensor, draw: Callable[[], Tensor]) -> Tensor:
        return self.sigma_max * draw()

    def times(self, steps: int) -> list[float]:
        if math.isinf(self.rho):
            return [*log_grid(steps, self.sigma_min, self.sigma_max), 0.0]
        return [*karras_grid(steps, self.sigma_min, self.sigma_max, self.rho), 0.0]

    def advance(
        self,
        x: Tensor,
        guess: Tensor,
        observation: Tensor,
        t: float,
        t_next: float,
        noise: Tensor | None,
    ) -> Tensor:
        if noise is None:
            return guess + (t_next / t) * (x - guess)
        # Ancestral: step further down, then add what brings the variance back to t_next.
        up = math.sqrt(t_next**2 * (t**2 - t_next**2) / t**2)
        down = math.sqrt(t_next**2 - up**2)
        return guess + (down / t) * (x - guess) + up * noise


def karras_grid(steps: int, sigma_min: float, sigma_max: float, rho: float) -> list[float]:
    """`steps` values of sigma, falling, evenly spaced in sigma^(1/rho) (Karras et al., eq. 5)."""
    if steps == 1:
        return [sigma_max]
    high, low = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return [(high + n / (steps - 1) * (low - high)) ** rho for n in range(steps)]


def log_grid(steps: int, sigma_min: float, sigma_max: float) -> list[float]:
    """`steps` values of sigma, falling, evenly spaced in log sigma."""
    if steps == 1:
        return [sigma_max]
    ratio = math.log(sigma_min / sigma_max)
    return [sigma_max * math.exp(ratio * n / (steps - 1)) for n in range(steps)]
