"""What more steps bring a denoiser, and what random draws do: one, the mean of several, a share.

python benchmarks/draws.py NOISY CLEAN --model denoise-16k --steps 2,4

A share goes that far from the answer of one step to a draw of the stochastic sampler: all of it is
the draw, nothing is one step.
"""

import argparse
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import wavediff
from wavediff.evaluation import evaluate_model
from wavediff.model import Model
from wavediff.tasks import DenoiseSettings

DRAWS = 4
SHARES = (0.3, 0.6, 1.0)
SCORES = ("pesq", "estoi", "si_sdr", "mr_stft")


def main() -> None:
    """Print a row for each way of sampling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("noisy")
    parser.add_argument("clean")
    parser.add_argument("--model", default="denoise-16k")
    parser.add_argument("--steps", default="2,4")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = wavediff.load(given.model, "cpu")
    ways: dict[str, Callable[[Tensor, int], Tensor]] = {"one step": partial(walked, model, 1)}
    for steps in map(int, given.steps.split(",")):
        ways[f"{steps} steps"] = partial(walked, model, steps)
        for share in SHARES:
            ways[f"{steps} steps, {share:g} of a draw"] = partial(shared, model, steps, share)
        ways[f"{steps} steps, mean of {DRAWS} draws"] = partial(averaged, model, steps)
    for name, way in ways.items():
        mean = evaluate_model(way, given.noisy, given.clean, SCORES).mean
        print(f"{name}: " + " ".join(f"{key} {mean[key]:.3f}" for key in SCORES), flush=True)


def walked(model: Model, steps: int, noisy: Tensor, rate: int) -> Tensor:
    """Along the bridge without chance."""
    return torch.as_tensor(model.denoise(noisy, rate, DenoiseSettings(steps, "ddim", spins=1)))


def drawn(model: Model, steps: int, seed: int, noisy: Tensor, rate: int) -> Tensor:
    """Along the bridge by chance."""
    return torch.as_tensor(
        model.denoise(noisy, rate, DenoiseSettings(steps, "ancestral", seed, spins=1))
    )


def shared(model: Model, steps: int, share: float, noisy: Tensor, rate: int) -> Tensor:
    """From one step some of the way to a draw."""
    return torch.lerp(walked(model, 1, noisy, rate), drawn(model, steps, 0, noisy, rate), share)


def averaged(model: Model, steps: int, noisy: Tensor, rate: int) -> Tensor:
    """The mean of several draws."""
    draws = [drawn(model, steps, seed, noisy, rate) for seed in range(DRAWS)]
    return torch.stack(draws).mean(0)


if __name__ == "__main__":
    main()
