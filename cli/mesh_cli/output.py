"""What a command prints: data to stdout, talk to stderr; a table for people, one JSON document for scripts."""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import typer
from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = ["age", "data", "fraction", "print_json", "raw", "table", "talk", "transfer"]


class _Lines(Console):
    """A console whose reader may leave early, as head does: the command goes on and ends as if it had been read."""

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        _write_nowhere(self.file)


def _write_nowhere(stream: Any) -> None:
    with Path(os.devnull).open("wb") as nowhere:
        os.dup2(nowhere.fileno(), stream.fileno())


#: Results. Colour only on a terminal, which rich finds out by itself.
data = _Lines(highlight=False)
#: Progress, hints and errors.
talk = _Lines(stderr=True, highlight=False)


def print_json(document: Any) -> None:
    """Print one JSON document to stdout."""
    try:
        sys.stdout.write(json.dumps(document, indent=2, default=_plain) + "\n")
        sys.stdout.flush()
    except BrokenPipeError:
        _write_nowhere(sys.stdout)


@contextmanager
def raw() -> Iterator[BinaryIO]:
    """Give stdout for bytes, as many as there are; where its reader leaves early, there is no more to do.

    Raises
    ------
    typer.Exit
        Its reader has left.
    """
    try:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        _write_nowhere(sys.stdout)
        raise typer.Exit from None


def _plain(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Table:
    """Make a table; numbers stand to the right, and a cell that is a `Text` keeps its colour."""
    made = Table(
        title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False
    )
    cells = [["" if cell is None else cell for cell in row] for row in rows]
    for position, column in enumerate(columns):
        numbers = bool(cells) and all(isinstance(row[position], int) for row in cells)
        made.add_column(column, justify="right" if numbers else "left", overflow="fold")
    for row in cells:
        # Text, not markup: a file name may hold square brackets.
        made.add_row(*(cell if isinstance(cell, Text) else Text(_harmless(str(cell))) for cell in row))
    return made


def _harmless(text: str) -> str:
    """Write what a terminal would obey, such as an escape sequence in a file's name, as Python does."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)


def transfer(description: str, total: int | None) -> tuple[Progress, TaskID]:
    """Make a progress bar for bytes on their way; it is gone once they have arrived."""
    columns = (_description(), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, console=talk, transient=True)
    return progress, progress.add_task(description, total=total)


def fraction(description: str) -> tuple[Progress, TaskID]:
    """Make a progress bar from 0 to 1, for what does not say how many bytes it has; it is gone once that is done."""
    columns = (_description(), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    progress = Progress(*columns, console=talk, transient=True)
    return progress, progress.add_task(description, total=1)


def _description() -> TextColumn:
    """Make the column of what is on its way: text, not markup, since its name is up to its sender."""
    return TextColumn("{task.description}", markup=False)


def age(moment: datetime | None, now: datetime | None = None) -> str:
    """Say how long ago a moment was, as a person would: ``3 h ago``."""
    if moment is None:
        return ""
    seconds = int(((now or datetime.now(UTC)) - moment).total_seconds())
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size or (unit == "min" and seconds >= size):
            return f"{seconds // size} {unit} ago"
    return f"{max(seconds, 0)} s ago"
