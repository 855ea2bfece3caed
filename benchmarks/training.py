"""What a denoiser's training step consists of: its batch, the network, the loss, the optimizers.

python benchmarks/training.py SPEECH --noise NOISE --recipe denoise-16k

Times are the processor's own, of one thread, medians over the steps, so that other programs disturb
them less. The network counts forward and back, and so does the loss. The last row is the network
without its blocks' fast twin.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from wavediff import batches
from wavediff import recipe as recipes
from wavediff.network import Blocks
from wavediff.trainer import Trainer


def main() -> None:
    """Print a row for each part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--noise", type=Path, action="append", default=[])
    parser.add_argument("--recipe", default="denoise-16k")
    parser.add_argument("--steps", type=int, default=5)
    given = parser.parse_args()
    torch.set_num_threads(1)
    data = {"sounds": given.folders, "noise": given.noise}
    settings = [f"data.{key}={_list(folders)}" for key, folders in data.items() if folders]
    recipe = batches.completed(recipes.load(given.recipe, settings))
    source, trainer = batches.prepare(recipe).source, Trainer(recipe, torch.device("cpu"))
    items = range(recipe.training.batch)
    batch = source.batch(0, items)
    trainer.measure(batch)
    trainer.advance(batch)
    parts: dict[str, Callable[[int], object]] = {
        "batch": lambda step: source.batch(step, items),
        "whole step without it": lambda step: trainer.advance(batch),
        "network": lambda step: network(trainer, batch),
        "optimizers": lambda step: trainer.optimizers.step(1e-9),
    }
    took = {name: clock(part, given.steps) for name, part in parts.items()}
    for part in trainer.denoiser.modules():
        if isinstance(part, Blocks):
            part.twin = None
    plain = clock(parts["network"], given.steps)
    inner = took["whole step without it"] - took["network"] - took["optimizers"]
    whole = took["whole step without it"] + took["batch"]
    seconds = len(items) * recipe.training.crop
    rows = {key: took[key] for key in ("batch", "network", "optimizers")} | {"loss, rest": inner}
    for name, work in rows.items():
        print(f"{name}: {work:.3f} s, {100 * work / whole:.0f} %")
    print(f"network of plain blocks: {plain:.3f} s, {plain / took['network']:.2f} times as long")
    print(f"in all {whole:.3f} s for {seconds:.0f} s of sound: {seconds / whole:.0f} s a second")


def clock(part: Callable[[int], object], steps: int) -> float:
    """The median of the processor's seconds."""
    took = []
    for step in range(1, steps + 1):
        begin = time.process_time()
        part(step)
        took.append(time.process_time() - begin)
    return statistics.median(took)


def network(trainer: Trainer, batch: tuple[Tensor, ...]) -> None:
    """A denoiser's guess and the way back through it, as a step does them."""
    noisy = batch[0]
    guess = trainer.objective.guess(noisy, noisy, torch.ones(len(noisy)))
    guess.sum().backward()


def _list(folders: list[Path]) -> str:
    return "[" + ", ".join(f'"{folder}"' for folder in folders) + "]"


if __name__ == "__main__":
    main()
