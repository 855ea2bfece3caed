"""Train variants of a recipe, all for the same time, and judge them on the same pairs.

python benchmarks/ablate.py benchmarks/ablations/denoise.toml OUT \\
    --minutes 6 --jobs 2 --noisy NOISY --clean CLEAN \\
    --set 'data.sounds=["speech/"]' --set 'data.noise=["noise/"]'

The file names the recipe and, variant by variant, the settings in which it differs. Each trains on
one thread, from the weights INIT where --init is given; --seeds 3 trains each from three seeds. A
variant whose folder has a finished training is not trained again. A row for each on the way, the
table at the end, and OUT/table.json.
"""

import argparse
import json
import statistics
import tomllib
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import torch

from wavediff import recipe as recipes
from wavediff.evaluation import evaluate_model
from wavediff.model import load
from wavediff.training import train

METRICS = ["pesq", "estoi", "si_sdr"]


def main() -> None:
    """Train and judge all, best first by ESTOI."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("variants", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--noisy", type=Path, required=True)
    parser.add_argument("--clean", type=Path, required=True)
    parser.add_argument("--init")
    parser.add_argument("--set", action="append", default=[])
    given = parser.parse_args()
    plan = tomllib.loads(given.variants.read_text("utf-8"))
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in plan["variants"]}
    with ProcessPoolExecutor(given.jobs, mp_context=get_context("spawn")) as pool:
        waiting = {
            pool.submit(one, plan["recipe"], name, differing, seed, given): name
            for name, differing in plan["variants"].items()
            for seed in range(given.seeds)
        }
        for done in as_completed(waiting):
            rows[waiting[done]].append(done.result())
            print(waiting[done], done.result(), flush=True)
    table = {
        name: {key: statistics.mean(row[key] for row in found) for key in found[0]}
        for name, found in rows.items()
    }
    (given.out / "table.json").write_text(json.dumps(table, indent=1), "utf-8")
    print(f"\n{'':24} {'PESQ-WB':>8} {'ESTOI':>7} {'SI-SDR':>7} {'hours':>6} {'M':>6}")
    for name, row in sorted(table.items(), key=lambda item: -item[1]["estoi"]):
        scores = f"{row['pesq']:8.3f} {row['estoi']:7.3f} {row['si_sdr']:7.2f}"
        print(f"{name:24} {scores} {row['hours']:6.1f} {row['weights']:6.2f}")


def one(
    recipe: str, name: str, differing: list[str], seed: int, given: argparse.Namespace
) -> dict[str, float]:
    """Train a variant from one seed, and judge it."""
    torch.set_num_threads(1)
    run = given.out / f"{name}-{seed}"
    never = ["training.steps=100000000", "training.validate_every=100000000"]
    time = [f"training.max_minutes={given.minutes}", f"training.seed={seed}"]
    chosen = recipes.load(recipe, [*never, *time, *given.set, *differing])
    for _ in train(chosen, run, init=given.init, device="cpu"):
        pass
    model = load(run, "cpu")
    scores = evaluate_model(model.denoise, given.noisy, given.clean, METRICS).mean
    hours = model.state["step"] * chosen.training.batch * chosen.training.crop / 3600
    weights = sum(p.numel() for p in model.denoiser.parameters()) / 1e6
    return {**scores, "hours": hours, "weights": weights}


if __name__ == "__main__":
    main()
