"""Progress with the time left, on a terminal and after two seconds; silent otherwise."""

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import rich.progress

PATIENCE = 2.0  # seconds of work before anything is shown


class Progress:
    """A bar on standard error; a context manager."""

    def __init__(self, title: str, quiet: bool = False) -> None:
        self.shown = sys.stderr.isatty() and not quiet
        self._title, self._begin = title, time.monotonic()
        self._bar: rich.progress.Progress | None = None

    def update(self, done: float, title: str | None = None) -> None:
        """`done` is 0 to 1."""
        self._title = title or self._title
        if not self.shown or time.monotonic() - self._begin < PATIENCE:
            return
        if self._bar is None:
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self._title, total=1.0)
        self._bar.update(self._task, completed=done, description=self._title)

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def _bar() -> "rich.progress.Progress":
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    return Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        TaskProgressColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        redirect_stdout=False,  # data goes past the bar untouched
    )
