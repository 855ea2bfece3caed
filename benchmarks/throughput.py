"""How much sound a second trainings hear, in turns: other checkouts', and this one's.

git worktree add FIRST 65c09a9
python benchmarks/throughput.py SPEECH --noise NOISE --tree FIRST \
    --recipe FIRST/recipes/denoise-16k.toml

All of them train by the same recipe, from the data to the optimizer. The first
steps do not count, in which files are opened, and neither does validation.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parents[1]
UNCOUNTED = 3  # steps


def main() -> None:
    """Print a row for each tree, this one last."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sounds", type=Path, nargs="+")
    parser.add_argument("--noise", type=Path, action="append", default=[])
    parser.add_argument("--recipe", default="denoise-16k")
    parser.add_argument("--tree", type=Path, action="append", default=[])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--alone", action="store_true", help="one training, in this process")
    given = parser.parse_args()
    if given.alone:
        print(heard(given))
        return
    rates: dict[Path, list[float]] = {tree: [] for tree in (*given.tree, HERE)}
    for _ in range(given.runs):
        for tree, found in rates.items():
            paths = {"PYTHONPATH": str(tree.resolve()), "OMP_NUM_THREADS": str(given.threads)}
            again = [sys.executable, __file__, *sys.argv[1:], "--alone"]
            run = subprocess.run(
                again, env=os.environ | paths, stdout=subprocess.PIPE, text=True, check=True
            )
            found.append(float(run.stdout))
    own = statistics.median(rates[HERE])
    for tree, found in rates.items():
        middle, each = statistics.median(found), ", ".join(f"{rate:.1f}" for rate in found)
        print(f"{tree.name}: {middle:.1f} s of sound a second ({each}); here {own / middle:.2f}")


def heard(given: argparse.Namespace) -> float:
    """Seconds of sound a second, by the `wavediff` that PYTHONPATH names."""
    from wavediff import recipe as recipes
    from wavediff.training import train

    # The name of a setting has changed since the first version.
    sounds = "sounds" if "sounds" in recipes.DataConfig.model_fields else "speech"
    settings = [
        f"data.{key}={[str(folder) for folder in folders]}"
        for key, folders in ((sounds, given.sounds), ("noise", given.noise))
    ]
    settings += [f"training.steps={UNCOUNTED + given.steps + 1}"]  # with the last comes validation
    recipe = recipes.load(given.recipe, settings)
    with tempfile.TemporaryDirectory() as folder:
        events = train(recipe, folder, device="cpu")
        for _ in range(UNCOUNTED):
            next(events)
        begin = time.monotonic()
        for _ in range(given.steps):
            next(events)
        took = time.monotonic() - begin
        events.close()
    return given.steps * recipe.training.batch * recipe.training.crop / took


if __name__ == "__main__":
    main()
