"""A training in a process of its own, to be killed or run by torchrun: FOLDER RECIPE."""

import sys

import torch

from wavediff import recipe, train

if __name__ == "__main__":
    torch.set_num_threads(1)
    for event in train(recipe.load(sys.argv[2]), sys.argv[1], device="cpu"):
        print(event.step, flush=True)
