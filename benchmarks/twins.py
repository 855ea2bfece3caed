"""How much faster the networks' fast twins are than the plain ones that they stand beside.

    python benchmarks/twins.py [--threads 2] [--seconds 12] [--runs 5] [--cpu] [--json]

times one call of the networks of denoise-16k and vocode-22k and of the published DiffWave (random
weights), plain and prepared in fp32 and bf16, in turns, and prints medians per second of audio with
their ratios and how far each answer is from the plain one. With --cpu the processor's own time
counts, which other programs disturb less; it is only right for one thread.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from wavediff.mel import mel as mel_of
from wavediff.model import load
from wavediff.prepared import PreparedNet
from wavediff.published import HOP, PublishedConfig, PublishedNet
from wavediff.published_sound import Prepared
from wavediff.vocoding import framed

Ways = dict[str, Callable[[], Tensor]]
TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seconds", type=float, default=12.0, help="of audio; DiffWave hears one")
    parser.add_argument("--runs", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--cpu", action="store_true", help="the processor's time, not the clock's")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    clock = time.process_time if given.cpu else time.perf_counter
    rows = {}
    with torch.inference_mode():
        for name in ("denoise-16k", "vocode-22k"):
            rows[name] = compared(ours(name, given.seconds), given.seconds, given.runs, clock)
        rows["DiffWave"] = compared(published(), 86 * HOP / 22050, given.runs, clock)
    print(json.dumps(rows, indent=2) if given.json else table(rows))


def ours(name: str, seconds: float) -> Ways:
    """One call of a model's network on noise."""
    model, one = load(name, "cpu"), torch.ones(1)
    network = model.denoiser.network
    sound = 0.05 * torch.randn(1, round(seconds * model.rate))
    known = []
    if model.recipe.task == "vocode":
        known = [framed(mel_of(sound, model.preset), model.preset)]
    twins = {key: PreparedNet(network, dtype) for key, dtype in TYPES.items()}
    ways = {key: lambda twin=twin: twin(sound, sound, one, *known) for key, twin in twins.items()}
    return {"plain": lambda: network(sound, sound, one, *known), **ways}


def published() -> Ways:
    """One call of the published network, its mel projected anew, and without."""
    network = PublishedNet(PublishedConfig()).requires_grad_(False)
    torch.nn.init.normal_(network.output_projection.weight, std=0.1)
    mel, x, step = torch.rand(1, 80, 86), torch.randn(1, 86 * HOP), torch.tensor([10.0])
    twins = {key: Prepared(network, mel, step, x.shape[1], kind) for key, kind in TYPES.items()}
    ways = {key: lambda twin=twin: twin(x, 0) for key, twin in twins.items()}
    return {"plain": lambda: network(x, mel, step), **ways}


def compared(ways: Ways, seconds: float, runs: int, clock: Callable[[], float]) -> dict:
    """Seconds of work per second of audio, the ratio to the plain way, and the distance from it."""
    answers = {key: way() for key, way in ways.items()}
    times: dict[str, list[float]] = {key: [] for key in ways}
    for _ in range(runs):
        for key, way in ways.items():
            begin = clock()
            way()
            times[key].append((clock() - begin) / seconds)
    plain, took = answers["plain"], {key: statistics.median(each) for key, each in times.items()}
    return {
        key: {
            "work": took[key],
            "ratio": took["plain"] / took[key],
            "decibels": float(20 * torch.log10((answer - plain).norm() / plain.norm())),
        }
        for key, answer in answers.items()
    }


def table(rows: dict) -> str:
    """All figures as lines of text."""
    lines = [f"{'one call of':<14}{'':<7}{'work s/s':>10}{'ratio':>8}{'distance dB':>13}"]
    for name, ways in rows.items():
        for key, row in ways.items():
            figures = f"{row['work']:>10.4f}{row['ratio']:>8.2f}{row['decibels']:>13.0f}"
            lines.append(f"{name:<14}{key:<7}{figures}")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
