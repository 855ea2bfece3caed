"""What spins bring: the mean over frames, and over speeds at which a recording is heard.

    python benchmarks/spins.py NOISY CLEAN --model denoise-16k

A row for each choice of how many spins and of the speeds that they take in turns.
"""

import argparse
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from wavediff import spin
from wavediff.evaluation import evaluate_model
from wavediff.model import Model, load
from wavediff.tasks import DenoiseSettings

METRICS = ["pesq", "estoi", "si_sdr"]
OWN = ((1, 1),)
CHOICES = [
    (1, OWN),
    *((2, (*OWN, speed)) for speed in ((1, 1), (17, 16), (15, 16), (7, 8), (13, 16), (3, 4))),
    (3, spin.SPEEDS),
    (4, OWN),
    (4, (*OWN, (7, 8))),
    (4, spin.SPEEDS),
]


def main() -> None:
    """Print a row for each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("noisy", type=Path)
    parser.add_argument("clean", type=Path)
    parser.add_argument("--model", default="denoise-16k")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = load(given.model, "cpu")
    print(f"spins {'speeds':<24} {'PESQ-WB':>8} {'ESTOI':>7} {'SI-SDR':>7}")
    for spins, speeds in CHOICES:
        spin.SPEEDS = speeds
        way = partial(denoised, model, spins)
        mean = evaluate_model(way, given.noisy, given.clean, METRICS).mean
        named = " ".join(f"{new}/{old}" if new != old else "1" for new, old in speeds)
        scores = f"{mean['pesq']:8.3f} {mean['estoi']:7.3f} {mean['si_sdr']:7.2f}"
        print(f"{spins:5} {named:<24} {scores}", flush=True)


def denoised(model: Model, spins: int, noisy: Tensor, rate: int) -> Tensor:
    """One step."""
    return torch.as_tensor(model.denoise(noisy, rate, DenoiseSettings(spins=spins)))


if __name__ == "__main__":
    main()
