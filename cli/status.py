"""How a command ends: exit codes, and errors as one line and a hint."""

import functools
from collections.abc import Callable
from enum import IntEnum
from typing import Any

import typer

from wavediff.cli.output import complain
from wavediff.errors import WavediffError


class ExitCode(IntEnum):
    """What `wavediff` answers to the shell."""

    OK = 0
    FAILED = 1  # something could not be done, or not all of it
    USAGE = 2  # the command line was not understood
    INTERRUPTED = 130  # Ctrl-C


def reported(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose errors become words and exit codes; with `--debug` the traceback stays."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt:
            complain("interrupted")
            raise typer.Exit(ExitCode.INTERRUPTED) from None
        except (typer.Exit, typer.TyperException, BrokenPipeError):
            raise
        except Exception as error:
            if kwargs.get("debug"):
                raise
            if isinstance(error, WavediffError):
                complain(error.message, error.hint)
            elif isinstance(error, OSError) and error.strerror:
                where = f"{error.filename}: " if error.filename else ""
                complain(f"{where}{error.strerror}", "the system refused it: see the path and disk")
            else:
                complain(
                    f"unexpected {type(error).__name__}: {error}",
                    "this is a fault of wavediff: run it again with --debug and report that",
                )
            raise typer.Exit(ExitCode.FAILED) from None

    return guarded
