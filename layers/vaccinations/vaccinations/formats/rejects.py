"""The file that tells an uploader which rows did not get through: rejected by us, or refused by DPS.

Both kinds have the same form, so that a team learns it once (docs/upload-format.md).
"""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import TextIO

    from vaccinations.model.problems import Problem

__all__ = ["HEADER", "RejectsWriter"]

HEADER = ("line", "column", "what is wrong", "what would be right")


class RejectsWriter:
    """Writes a rejects file.

    Parameters
    ----------
    file
        Where to, opened as UTF-8 text with ``newline=""``; it is the caller's to close.
    header
        Whether the file begins here.
    """

    def __init__(self, file: TextIO, *, header: bool = True) -> None:
        self._csv = csv.writer(file)
        if header:
            self._csv.writerow(HEADER)

    def write(self, line: int, column: str, what: str, fix: str) -> None:
        """Add one fault.

        Parameters
        ----------
        line
            The line of the upload where the row begins, from 1.
        column
            The upload's name of the column; empty where it is about the row.
        what, fix
            What is wrong, and what would be right.
        """
        self._csv.writerow((line, column, what, fix))

    def write_problem(self, line: int, problem: Problem) -> None:
        """Add what is wrong with a row."""
        self.write(line, problem.column, problem.what, problem.fix)
