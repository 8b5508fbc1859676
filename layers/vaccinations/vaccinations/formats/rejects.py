"""The file that tells an uploader which rows did not get through: rejected by us, or refused by DPS.

Both kinds have the same form, so that a team learns it once (docs/teams.md). It opens in Excel as it is: UTF-8 with a
byte-order mark. Its first line says what to do, its second names the columns; then each faulty row has one row: where
it stands in the upload, and beside that all its faults, one a line of the cell. What Excel would take for a formula has
an apostrophe before it.
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

from vaccinations.model.london import in_london
from vaccinations.model.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import TextIO

__all__ = ["HEADER", "RejectsWriter", "read_rejects", "to_do_about_refused", "to_do_about_rejected"]

HEADER = ("line", "column", "what is wrong", "what would be right")
_BYTE_ORDER_MARK = "\ufeff"


def to_do_about_rejected(uploaded_at: datetime) -> str:
    """Say what a team does about rows that we rejected."""
    return (
        f"What to do: put these rows of your upload of {_moment(uploaded_at)} right in your own file and upload it "
        "again. Rows that are not listed here are not sent twice."
    )


def to_do_about_refused(uploaded_at: datetime) -> str:
    """Say what a team does about rows that DPS refused."""
    return (
        f"What to do: DPS refused these rows of your upload of {_moment(uploaded_at)}. The last column says what to do "
        "about each. Rows that are not listed here need nothing."
    )


def _moment(moment: datetime) -> str:
    return f"{in_london(moment):%-d %B %Y at %H:%M}"


class RejectsWriter:
    """Writes a rejects file.

    Parameters
    ----------
    file
        Where to, opened as UTF-8 text with ``newline=""``; it is the caller's to close.
    to_do
        What its first line says; None where the file has begun already.
    columns
        What the upload calls columns, where that is not as the problems do.
    """

    def __init__(self, file: TextIO, to_do: str | None, columns: Mapping[str, str]) -> None:
        self._csv = csv.writer(file)
        self._columns = columns
        if to_do is not None:
            file.write(_BYTE_ORDER_MARK)
            self._csv.writerow((to_do,))
            self._csv.writerow(HEADER)

    def write(self, line: int, problems: Iterable[Problem]) -> None:
        """Add a row, and all that is wrong with it.

        Parameters
        ----------
        line
            The line of the upload where the row begins, from 1.
        problems
            At least one. Those about the row as a whole may name no column.
        """
        faults = [
            (", ".join(self._columns.get(name, name) for name in each.column.split(", ")), each.what, each.fix)
            for each in problems
        ]
        cells = ("\n".join(_no_formula(" ".join(text.split())) for text in each) for each in zip(*faults, strict=True))
        self._csv.writerow((line, *cells))


def _no_formula(text: str) -> str:
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text


def read_rejects(file: TextIO) -> Iterator[tuple[int, list[Problem]]]:
    """Read a rejects file: each row's line in the upload, and what is wrong with it.

    Parameters
    ----------
    file
        Opened as UTF-8 text with ``newline=""``.
    """
    rows = csv.reader(file)
    for _ in zip(("what to do", HEADER), rows, strict=False):
        pass
    for line, *cells in rows:
        yield int(line), [Problem(*fault) for fault in zip(*(cell.split("\n") for cell in cells), strict=True)]
