"""A batch shared by threads, each of which does all of the work on some of its items.

So no thread waits for another before the end of the work, where threads that share an operation
wait for each other at the end of each.
"""

import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import torch

MOST = 4  # shares: more would wait for each other at Python's lock
Done = TypeVar("Done")


def each(work: Callable[[slice], Done], items: int) -> list[Done]:
    """What `work` makes of every share of the items, in their order; torch's threads divide them.

    An error of any of them is raised here.
    """
    threads = torch.get_num_threads()
    count = min(threads, items, MOST)
    bounds = [items * number // count for number in range(count + 1)]
    shares = [slice(first, last) for first, last in pairwise(bounds)]
    if count == 1:
        return [work(shares[0])]

    def alone(share: slice) -> Done:
        torch.set_num_threads(threads // count)  # of this thread
        return work(share)

    try:
        return list(_pool(count).map(alone, shares))
    finally:
        torch.set_num_threads(threads)  # of those that begin later


@functools.cache
def _pool(workers: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(workers)
