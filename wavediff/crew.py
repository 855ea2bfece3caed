"""Several short sounds at once, each by one thread; long ones one by one, by all threads."""

import contextlib
import math
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from types import TracebackType
from typing import Generic, TypeVar

import torch

from wavediff.denoiser import Denoiser
from wavediff.model import Model

SHORT = 8.0  # seconds; in less there is too little for several threads to share
TOGETHER = 24.0  # seconds at most that are in work at once, as much as a long sound's block
LEAST = 0.5  # seconds that a sound counts for, so that not too many wait

Job = TypeVar("Job")
Result = TypeVar("Result")
Tell = Callable[[float], None]  # is told the share of a job that is done


class Crew(Generic[Job, Result]):
    """Does jobs, short ones several at once; a context manager, after which nothing runs any more.

    The last bits of a sound depend on how many threads share an operation. Only its length decides
    about that, so that it comes out the same alone and beside others, bit for bit.
    """

    def __init__(
        self, work: Callable[[Job, Tell], Result], length: Callable[[Job], float], able: bool
    ) -> None:
        """`work` does a job, `length` tells how many seconds of sound it is.

        A crew that is not `able`, as on a card, does one job after the other by all threads.
        """
        self._work, self._length, self._able = work, length, able
        self._threads, self._stopped = torch.get_num_threads(), threading.Event()
        self._pool = ThreadPoolExecutor(self._threads)

    def each(self, jobs: Sequence[Job]) -> Iterator[tuple[Job, Callable[[Tell], Result]]]:
        """The jobs in their order, each with what gives its result, or raises its error.

        That either waits for a job that others do, or does it and tells how far it is.
        """
        ahead: deque[tuple[Job, float, Future[Result]]] = deque()
        several = self._able and self._threads > 1 and len(jobs) > 1
        for job in jobs:
            length = max(self._length(job), LEAST) if several else math.inf
            aside = length <= SHORT
            while ahead and not (aside and length + sum(a[1] for a in ahead) <= TOGETHER):
                yield _awaited(*ahead.popleft())
            if aside:
                ahead.append((job, length, self._pool.submit(self._work, job, self._go_on)))
            else:
                yield job, partial(self._here, job)
        while ahead:
            yield _awaited(*ahead.popleft())

    def _here(self, job: Job, tell: Tell) -> Result:
        """Do a job while nothing else is done."""
        torch.set_num_threads(self._threads)
        try:
            return self._work(job, tell)
        finally:
            self._leave_to_others()

    def _leave_to_others(self) -> None:
        if self._able:
            torch.set_num_threads(1)  # new threads take over this number

    def _go_on(self, share: float) -> None:
        if self._stopped.is_set():
            raise KeyboardInterrupt  # what is written of the file is removed on the way out

    def __enter__(self) -> "Crew[Job, Result]":
        self._leave_to_others()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stopped.set()
        self._pool.shutdown(cancel_futures=True)
        torch.set_num_threads(self._threads)


def _awaited(
    job: Job, length: float, future: Future[Result]
) -> tuple[Job, Callable[[Tell], Result]]:
    return job, lambda tell: future.result()


def able(model: Model) -> bool:
    """Whether a model does several sounds at once: on a processor, and with little memory."""
    return model.device.type == "cpu" and isinstance(model.denoiser, Denoiser)


@contextlib.contextmanager
def threads_for(model: Model, seconds: float) -> Iterator[None]:
    """Within, as many threads share an operation as a sound of that length takes."""
    before = torch.get_num_threads()
    if able(model) and seconds <= SHORT:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
