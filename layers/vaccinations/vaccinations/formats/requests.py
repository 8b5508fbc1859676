"""Read a request to send records again as they are: ``.resend``, one record's UUID a line.

The command ``mesh`` makes requests for records that DPS refused. They go through the queue like any other upload.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from vaccinations.formats.upload_lines import lines_of, unzipped
from vaccinations.model.problems import Problem
from vaccinations.model.row import Faulty, Row, SendAgain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

__all__ = ["read_resend"]

_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_WRONG = Problem("", "is not a record's identifier", "a UUID such as 496e37d8-d1ab-4e12-a3a3-9c2e136a0504")


def read_resend(stream: BinaryIO, *, organisation_code: str, today: date) -> Iterator[Row]:  # noqa: ARG001 - as others
    """Read the rows of a request; empty lines are ignored.

    Raises
    ------
    UnreadableUpload
        It is not text, or larger than an upload may be.
    """
    for number, line in enumerate(lines_of(unzipped(stream)), start=1):
        text = b"" if line is None else line.strip()
        if _UUID.fullmatch(text):
            yield SendAgain(number, text.decode().lower())
        elif line is None or text:
            yield Faulty(number, (_WRONG,))
