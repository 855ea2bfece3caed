"""What commands print: data on standard output, words for people on standard error."""

import contextlib
import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from wavediff.errors import TaskError


def say(message: str, quiet: bool = False) -> None:
    """A line for people."""
    if not quiet:
        print(message, file=sys.stderr)


def complain(message: str, hint: str = "") -> None:
    """An error: one line, and what to do about it."""
    print(f"wavediff: {message}", file=sys.stderr)
    if hint:
        print(f"hint: {hint}", file=sys.stderr)


def emit(data: Any, indent: int | None = None) -> None:
    """One JSON document on standard output; numbers that JSON does not know become null."""
    print(json.dumps(_plain(data), ensure_ascii=False, indent=indent, default=str), flush=True)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Aligned columns; the last one is folded to the width of the terminal."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    left = sum(widths[:-1]) + 2 * (len(head) - 1)
    room = max(shutil.get_terminal_size().columns - left, 24)
    out = []
    for line in lines:
        start = "".join(
            cell.ljust(width + 2) for cell, width in zip(line, widths[:-1], strict=False)
        )
        folded = textwrap.wrap(line[-1], room, break_long_words=False, break_on_hyphens=False) or [
            ""
        ]
        out.append((start + folded[0]).rstrip())
        out += [" " * left + more for more in folded[1:]]
    return "\n".join(out)


def duration(seconds: float) -> str:
    """3.2 s, 4 min 05 s, 2 h 03 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes as 3.4 MB."""
    return f"{count / 1e6:.1f} MB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def count(number: int, noun: str) -> str:
    """1 file, 2 files."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def write(path: Path, text: str, force: bool) -> None:
    """A text file, written beside and renamed. Raises TaskError for one that is there."""
    if path.exists() and not force:
        raise TaskError(f"{path} exists", "-f overwrites")
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_text(text, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise TaskError(f"{path} cannot be written: {error.strerror}", "name another") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def _plain(data: Any) -> Any:
    if isinstance(data, float):
        return data if math.isfinite(data) else None
    if isinstance(data, dict):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    return data
