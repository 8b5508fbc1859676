"""What a command prints: data to stdout, talk to stderr; a table for people, one JSON document for scripts."""

from __future__ import annotations

import itertools
import json
import os
import sys
import textwrap
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import typer
from rich.cells import cell_len
from rich.console import Console, Group
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
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rich.console import ConsoleOptions, RenderableType, RenderResult

    type Lines = Iterator[Text]

__all__ = ["Table", "age", "counted", "data", "fraction", "print_json", "raw", "talk", "transfer", "watch"]


class _Lines(Console):
    """A console whose reader may leave early, as head does: the command goes on and ends as if it had been read."""

    def print(self, *objects: Any, crop: bool = False, **how: Any) -> None:
        """Print, and cut nothing off at the edge."""
        super().print(*objects, crop=crop, **how)

    def on_broken_pipe(self) -> None:
        """Write to nowhere from now on."""
        del self._buffer[:]
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


class Table:
    """A table that breaks no id, no file name and no UUID, whatever the terminal's width.

    Where all of it has room it is shown as it is; else prose is wrapped at its spaces; else columns are left out, those
    of the lowest rank first; and where the rest has no room either, each row becomes a card, with every column. In a
    pipe, in a file, and where everything is wanted (``wide``), there is no width: a line for each row.

    Parameters
    ----------
    columns
        Their names.
    rows
        The cells. A `Text` keeps its colour; numbers stand to the right.
    prose
        The columns that may be wrapped.
    rank
        The columns that may be left out, the first to go first.
    wide
        Whether all of it is wanted, however wide.
    """

    def __init__(
        self,
        title: str,
        columns: Sequence[str],
        rows: Iterable[Sequence[Any]],
        *,
        prose: Iterable[str] = (),
        rank: Sequence[str] = (),
        wide: bool = False,
    ) -> None:
        self._title = title
        self._prose = frozenset(prose)
        self._rank = [column for column in rank if column in columns]
        self._wide = wide
        cells = [["" if cell is None else cell for cell in row] for row in rows]
        self._numbers = {
            column
            for position, column in enumerate(columns)
            if {type(row[position]) for row in cells if row[position] != ""} == {int}
        }
        self._rows = [dict(zip(columns, map(_cell, row), strict=True)) for row in cells]
        self._columns = list(columns)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Show it on a terminal, or in a pipe."""
        if self._wide or not console.is_terminal:
            columns = self._columns
            rows = [{name: _in_one_line(cell) for name, cell in row.items()} for row in self._rows]
            yield from self._table(columns, {c: _width(c, rows) for c in columns}, rows)
            return
        kept = set(self._columns) - set(self._rank)
        for column in reversed(self._rank):
            if self._fit(kept | {column}, options.max_width):
                kept.add(column)
        if widths := self._fit(kept, options.max_width):
            yield from self._table([column for column in self._columns if column in kept], widths, self._rows)
        else:
            yield from self._cards()

    def _fit(self, columns: Collection[str], room: int) -> dict[str, int] | None:
        """Give each column its width, where all have room."""
        natural = {column: _width(column, self._rows) for column in columns}
        least = {c: min(width, _PROSE) if c in self._prose else width for c, width in natural.items()}
        spare = room - sum(least.values()) - len(_GAP) * (len(columns) - 1)
        if spare < 0:
            return None
        for column in sorted(columns, key=lambda c: natural[c] - least[c]):
            more = min(spare, natural[column] - least[column])
            least[column] += more
            spare -= more
        return least

    def _table(self, columns: Sequence[str], widths: Mapping[str, int], rows: Sequence[Mapping[str, Text]]) -> Lines:
        if self._title:
            yield Text(self._title, style="bold")
        header = {column: Text(column, style="bold") for column in columns}
        rule = {column: Text("\u2500" * widths[column]) for column in columns}
        for row in (header, rule, *rows):
            cells = [list(_wrapped(row[column], widths[column], column in self._prose)) for column in columns]
            for line in itertools.zip_longest(*cells, fillvalue=Text()):
                yield self._line(columns, widths, line)

    def _line(self, columns: Sequence[str], widths: Mapping[str, int], cells: Sequence[Text]) -> Text:
        line = Text(no_wrap=True, overflow="ignore")
        for column, cell in zip(columns, cells, strict=True):
            space = " " * (widths[column] - cell.cell_len)
            line.append_text(
                Text.assemble(space, cell, _GAP) if column in self._numbers else Text.assemble(cell, space, _GAP)
            )
        line.rstrip()
        return line

    def _cards(self) -> Lines:
        if self._title:
            yield Text(self._title, style="bold")
        label = max(map(len, self._columns))
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            for column in self._columns:
                for position, value in enumerate(row[column].split("\n")):
                    if value:
                        name = Text(("" if position else column).ljust(label + len(_GAP)), style="dim")
                        yield Text.assemble(name, value, no_wrap=True, overflow="ignore")


#: Between two columns.
_GAP = "  "
#: Prose is wrapped no narrower than this.
_PROSE = 24


def _cell(value: Any) -> Text:
    # Text, not markup: a file name may hold square brackets.
    return value if isinstance(value, Text) else Text(_harmless(str(value)))


def _in_one_line(cell: Text) -> Text:
    return Text(" ").join(cell.split("\n"))


def _width(column: str, rows: Sequence[Mapping[str, Text]]) -> int:
    lines = (line for row in rows for line in row[column].split("\n"))
    return max([cell_len(column), *(line.cell_len for line in lines)])


def _wrapped(cell: Text, width: int, prose: bool) -> Iterable[Text]:
    if not prose or cell.cell_len <= width:
        return cell.split("\n")
    words = textwrap.wrap(cell.plain, width, break_long_words=False, break_on_hyphens=False)
    return [Text(line, style=cell.style) for line in words]


def counted(number: int, thing: str) -> str:
    """Say how many there are of something: ``1 record``, ``2 records``."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def watch(view: Callable[[], Iterable[RenderableType]], seconds: int = 5) -> NoReturn:
    """Show something anew every few seconds, until Ctrl-C."""
    while True:
        shown = Group(*view())
        if data.is_terminal:
            data.clear()
        data.print(shown)
        time.sleep(seconds)


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
