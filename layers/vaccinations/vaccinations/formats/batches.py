"""Batches: the accepted records of one upload and programme, one JSON object a line, gzipped.

A *batch line* says what is to become of a record at DPS, and holds the record as its uploader stated it:

===============  =====================================================================================
``action``       ``new``, ``update`` or ``delete``
``line``         the line of the upload that it came from
``recorded_on``  the record's own, or the day of the upload where the record does not state one
``digest``       of what was stated (`digest_of`)
``on_file``      false where the record is not known to be on file at DPS; else left out
the others       the fields of `vaccinations.model.record.VaccinationRecord` that state something
===============  =====================================================================================

Nothing is validated here: `vaccinations.model.record` did that when the record was ingested.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
from isal import igzip

from vaccinations.model.entry import Action, Entry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

    from vaccinations.model.record import VaccinationRecord

__all__ = ["batch_line", "digest_of", "entry_of", "read_batch", "repeat_line"]


def digest_of(record: VaccinationRecord) -> str:
    """Return a digest of what an uploader stated, in hex.

    It is the same whatever the order in which fields came or are declared. A later release that adds fields keeps it:
    what was not stated is not part of it.
    """
    return hashlib.sha256(orjson.dumps(_stated(record), option=orjson.OPT_SORT_KEYS)).hexdigest()


def batch_line(
    record: VaccinationRecord,
    *,
    action: str,
    line: int,
    recorded_on: date,
    digest: str | None = None,
) -> bytes:
    """Write a record as a line of a batch.

    Parameters
    ----------
    action
        ``new``, ``update`` or ``delete``.
    line
        The line of the upload that the record came from.
    recorded_on
        When the record was made, where it does not state that itself.
    digest
        Of what the uploader stated; made here where it is not at hand.

    Returns
    -------
    bytes
        One flat JSON object and a line end.
    """
    fields: dict[str, Any] = {
        "action": action,
        "line": line,
        "recorded_on": recorded_on,
        "digest": digest or digest_of(record),
    }
    return orjson.dumps(fields | _stated(record), option=orjson.OPT_APPEND_NEWLINE)


def repeat_line(last: bytes, *, action: str, line: int, on_file: bool, digest: str | None = None) -> bytes:
    """Write a record once more, as it was last stated.

    Parameters
    ----------
    last
        The batch line of its last statement.
    action
        What is to become of it now.
    line
        The line of the upload that asks for it.
    on_file
        Whether it counts as on file at DPS from now on.
    digest
        Of what is stated now, where that has changed (`vaccinations.model.entry.WITHDRAWN`).
    """
    fields = orjson.loads(last) | {"action": action, "line": line}
    fields |= {"digest": digest} if digest else {}
    fields.pop("on_file", None)
    if not on_file:
        fields["on_file"] = False
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def entry_of(line: bytes, batch_id: str) -> Entry:
    """Return what the register is to know of a record, from the line of a batch that states it."""
    fields = orjson.loads(line)
    return Entry(
        record_id=fields["uuid"],
        programme=fields["programme"],
        digest=fields["digest"],
        action=Action(fields["action"]),
        batch_id=batch_id,
        line=fields["line"],
        on_file=fields.get("on_file", True),
    )


def read_batch(stream: BinaryIO) -> Iterator[bytes]:
    """Read the lines of a gzipped batch, in a stream.

    Raises
    ------
    EOFError
        The batch is cut off.
    OSError
        It is not a batch, or is damaged.
    """
    with igzip.IGzipFile(fileobj=stream, mode="rb") as batch:
        yield from batch


def _stated(record: VaccinationRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if value is not None}
