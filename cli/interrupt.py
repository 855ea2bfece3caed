"""Ctrl-C as a request that is met between two steps."""

import signal
from types import FrameType, TracebackType
from typing import Any

from wavediff.cli.output import say


class Interrupt:
    """Takes the first Ctrl-C (or the order to end) as a request; the second ends at once.

    A context manager. Called, it answers whether the request was made.
    """

    def __init__(self, answer: str, quiet: bool = False) -> None:
        self._answer, self._quiet, self._asked = answer, quiet, False
        self._before: dict[signal.Signals, Any] = {}

    def __call__(self) -> bool:
        return self._asked

    def __enter__(self) -> "Interrupt":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._request)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise KeyboardInterrupt
        self._asked = True
        say(self._answer, self._quiet)
