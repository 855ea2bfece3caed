"""A training in a process of its own, to be killed or run by torchrun: FOLDER RECIPE."""

import sys
import time
from pathlib import Path

import torch

from wavediff import recipe, train

TASKS = Path("/proc/self/task")  # where there is one, an entry a thread


def threads() -> int:
    return len(list(TASKS.iterdir())) if TASKS.exists() else 0


if __name__ == "__main__":
    torch.set_num_threads(1)
    before = threads()
    for event in train(recipe.load(sys.argv[2]), sys.argv[1], device="cpu"):
        print(event.step, flush=True)
    patience = time.monotonic() + 5
    while threads() > before and time.monotonic() < patience:
        time.sleep(0.1)
    # Threads of a process group that end with the interpreter may abort it.
    assert threads() <= before, "threads of the training are left"
