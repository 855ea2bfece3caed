"""Threads that share a batch: all of it is done, once, and comes back in its order."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from corpus import recipe
from torch import Tensor

from wavediff import shares
from wavediff.trainer import Trainer

CPU = torch.device("cpu")


@pytest.fixture
def several() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, for the test alone."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("items", "threads", "expected"),
    [
        (8, 1, [(0, 8)]),
        (5, 2, [(0, 2), (2, 5)]),
        (2, 8, [(0, 1), (1, 2)]),
        (1, 8, [(0, 1)]),
        (9, 8, [(0, 2), (2, 4), (4, 6), (6, 9)]),
    ],
)
def test_each_item_is_in_one_share(
    items: int, threads: int, expected: list[tuple[int, int]], several: Callable[[int], None]
) -> None:
    several(threads)

    def work(share: slice) -> tuple[tuple[int, int], int]:
        return (share.start, share.stop), torch.get_num_threads()

    for _ in range(2):  # the same workers again
        done = shares.each(work, items)
        assert [bounds for bounds, _ in done] == expected
        assert [own for _, own in done] == [threads // len(expected)] * len(expected)
        assert torch.get_num_threads() == threads
    begun: list[int] = []
    later = threading.Thread(target=lambda: begun.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert begun == [threads]


def test_shares_are_done_at_once(several: Callable[[int], None]) -> None:
    several(3)
    meeting = threading.Barrier(3, timeout=30)
    shares.each(lambda share: meeting.wait(), 3)


def test_an_error_comes_out(several: Callable[[int], None]) -> None:
    several(2)

    def fail(share: slice) -> None:
        if share.start:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        shares.each(fail, 2)
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("settings", [{}, {"path__rollout": 1.0}, {"accumulate": 2}])
def test_how_many_threads_share_a_batch_changes_nothing_but_rounding(
    settings: dict[str, Any], several: Callable[[int], None]
) -> None:
    def run(threads: int) -> tuple[list[float], Tensor]:
        several(threads)
        made = Trainer(recipe(Path("nowhere"), **settings), CPU)
        generator = torch.Generator().manual_seed(1)
        losses = []
        for _ in range(3):
            clean, noise = 0.05 * torch.randn(2, 4, 1600, generator=generator)
            losses.append(made.advance((clean + noise, clean)).loss)
        return losses, torch.cat([p.detach().flatten() for p in made.denoiser.parameters()])

    (losses, weights), (shared, others), (again, same) = run(1), run(3), run(3)
    assert shared == pytest.approx(losses, rel=1e-5)
    torch.testing.assert_close(others, weights, atol=1e-4, rtol=1e-3)
    assert again == shared
    assert torch.equal(same, others)
