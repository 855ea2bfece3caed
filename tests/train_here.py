"""A training in a process of its own, to be killed or run by torchrun: FOLDER RECIPE [FALLS].

The second of its processes is killed after step FALLS, where torchrun has not started it again.
"""

import os
import signal
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
        falls = sys.argv[3:] == [str(event.step)] and os.environ["RANK"] == "1"
        if falls and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
    patience = time.monotonic() + 20
    while threads() > before and time.monotonic() < patience:
        time.sleep(0.1)
    # Threads of a process group that end with the interpreter may abort it.
    assert threads() <= before, "threads of the training are left"
