"""Requests: what functions and operators ask Ingest to do, as objects under ``requests/``.

==========================================  ==========================================================================
``requests/{export id}.requeue``            what DPS must be told now of each record in an export that it never got, or
                                            refused as a whole; the body is ignored
``requests/{name}.resend``                  records to be sent again as they are: one UUID a line
``requests/already-sent/{ODS}/{name}``      an upload of what another system has sent to DPS before: it is registered
                                            and not sent
==========================================  ==========================================================================

They go through the queue and have a receipt, like any upload. Uploaders may not write there.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO

from vaccinations.formats.upload_lines import lines_of, unzipped
from vaccinations.model.problems import Problem
from vaccinations.model.row import Faulty, Row, SendAgain

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ALREADY_SENT", "REQUESTS", "read_resend", "requeue_name", "requeued"]

REQUESTS = "requests/"
ALREADY_SENT = f"{REQUESTS}already-sent/"
_REQUEUE = re.compile(REQUESTS + r"([a-z0-9_]+)-([1-9][0-9]{0,8})\.requeue")
_UUID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_WRONG = Problem("", "is not a record's identifier", "a UUID such as 496e37d8-d1ab-4e12-a3a3-9c2e136a0504")


def requeue_name(export_id: str) -> str:
    """Return the name, under ``requests/``, of the request to requeue an export."""
    return f"{export_id}.requeue"


def requeued(key: str) -> tuple[str, int] | None:
    """Return the programme and number of the export that a request asks to requeue; None where it asks for another."""
    found = _REQUEUE.fullmatch(key)
    return (found[1], int(found[2])) if found else None


def read_resend(stream: BinaryIO) -> Iterator[Row]:
    """Read the rows of a request to send records again; empty lines are ignored.

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
