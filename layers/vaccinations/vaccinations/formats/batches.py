"""Batches: the accepted records of one upload and programme, one JSON object a line, gzipped.

A *batch line* says what is to become of a record at DPS, and holds the record as its uploader stated it:

===============  =====================================================================================
``action``       ``new``, ``update`` or ``delete``
``line``         the line of the upload that it came from
``recorded_on``  the record's own, or the day of the upload by UTC where the record does not state one, or a later one
``digest``       of what was stated (`digest_of`)
``on_file``      ``no`` or ``unknown`` where the record is not known to be on file at DPS; else left out
``new_in``       batch and line of the last statement that went out as `new`, where that is another; else left out
``origin``       batch and line of the upload's statement that a request repeats; else left out
``owner``        ODS code of the folder in which the record first arrived
``owned_since``  how old the statement is with which it arrived there
``stated_at``    how old the statement is (`vaccinations.model.entry.age_of`)
``before``       what was known of the record before the upload (`entry_document`); left out where that was nothing
the others       the fields of `vaccinations.model.record.VaccinationRecord` that state something
===============  =====================================================================================

Nothing is validated here: `vaccinations.model.record` did that when the record was ingested.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, BinaryIO

import orjson
from isal import igzip

from vaccinations.model.entry import Entry, Person, Place, Refusal
from vaccinations.model.outcome import Action, OnFile, Outcome

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import date

    from vaccinations.model.record import VaccinationRecord

__all__ = [
    "batch_line",
    "digest_of",
    "entry_document",
    "entry_from",
    "entry_of",
    "person_of",
    "read_batch",
    "repeat_line",
]

_PLACES = ("new_in", "origin")


def digest_of(record: VaccinationRecord) -> str:
    """Return a digest of what an uploader stated, in hex.

    It is the same whatever the order in which fields came or are declared. A later release that adds fields keeps it:
    what was not stated is not part of it.
    """
    return hashlib.sha256(orjson.dumps(_stated(record), option=orjson.OPT_SORT_KEYS)).hexdigest()


def batch_line(record: VaccinationRecord, entry: Entry, *, today: date) -> bytes:
    """Write a record as a line of a batch.

    Parameters
    ----------
    entry
        What the register is to know of it.
    today
        The day of the upload by UTC: when the record was made, where it does not state an earlier day. DPS goes by UTC,
        and for the first hour of a summer's day in London finds that day in the future.

    Returns
    -------
    bytes
        One flat JSON object and a line end.
    """
    fields: dict[str, Any] = {"recorded_on": min(record.recorded_on or today, today)}
    return orjson.dumps(_stated(record) | fields | _of_entry(entry), option=orjson.OPT_APPEND_NEWLINE)


def repeat_line(last: bytes, entry: Entry) -> bytes:
    """Write a record once more, as it was last stated.

    Parameters
    ----------
    last
        The batch line of its last statement.
    entry
        What the register is to know of it from now on.
    """
    fields = orjson.loads(last)
    for name in ("on_file", "before", "new_in", "origin"):
        fields.pop(name, None)
    return orjson.dumps(fields | _of_entry(entry), option=orjson.OPT_APPEND_NEWLINE)


def _of_entry(entry: Entry) -> dict[str, Any]:
    """Return the fields that `entry_of` reads, but for those of the record itself."""
    fields: dict[str, Any] = {
        "action": entry.action,
        "line": entry.line,
        "digest": entry.digest,
        "owner": entry.owner,
        "owned_since": entry.owned_since,
        "stated_at": entry.stated_at,
    }
    if entry.on_file is not OnFile.YES:
        fields["on_file"] = entry.on_file
    if entry.new_in:
        fields["new_in"] = [*entry.new_in]
    if entry.origin:
        fields["origin"] = [*entry.origin]
    if entry.before:
        fields["before"] = entry_document(entry.before)
    return fields


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
        owner=fields["owner"],
        owned_since=fields["owned_since"],
        stated_at=fields["stated_at"],
        on_file=OnFile(fields.get("on_file", OnFile.YES)),
        before=entry_from(fields["before"], fields["uuid"]) if "before" in fields else None,
        new_in=Place(*fields["new_in"]) if "new_in" in fields else None,
        origin=Place(*fields["origin"]) if "origin" in fields else None,
    )


def person_of(line: bytes) -> Person:
    """Return whose vaccination a line of a batch states."""
    fields = orjson.loads(line)
    return Person(fields.get("nhs_number"), fields["surname"], fields["date_of_birth"])


def entry_document(entry: Entry) -> dict[str, Any]:
    """Return what is kept of an entry with the one that takes its place: all but its record and what was before."""
    known: dict[str, Any] = {
        "programme": entry.programme,
        "digest": entry.digest,
        "action": entry.action,
        "batch_id": entry.batch_id,
        "line": entry.line,
        "owner": entry.owner,
        "owned_since": entry.owned_since,
        "stated_at": entry.stated_at,
        "on_file": entry.on_file,
    }
    known |= {name: [*place] for name in _PLACES if (place := getattr(entry, name))}
    return known | ({"refusal": asdict(entry.refusal)} if entry.refusal else {})


def entry_from(document: Mapping[str, Any], record_id: str) -> Entry:
    """Return the entry of a record that `entry_document` made a document of."""
    fields = {**document, "action": Action(document["action"]), "on_file": OnFile(document["on_file"])}
    fields |= {name: Place(*fields[name]) for name in _PLACES if name in fields}
    if why := fields.get("refusal"):
        fields["refusal"] = Refusal(**{**why, "outcome": Outcome(why["outcome"])})
    return Entry(record_id, **fields)


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
