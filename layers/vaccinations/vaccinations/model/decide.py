"""What becomes of a row of an upload: one decision from the row, what is known of its record, and the upload.

=============  ===============================================  =======================================================
The row        What is known of its record                      The decision
=============  ===============================================  =======================================================
`Faulty`       anything                                         reject: all that is wrong with it
`Vaccinated`   anything, and given later than the upload        reject: the time, and the programme if that is wrong too
               stated under another programme                   reject: withdraw it there first
               nothing                                          queue as ``new``
               the same digest                                  unchanged
               another digest, on file at DPS                   queue as ``update``
               another digest, not on file at DPS               queue as ``new``
`Withdrawn`    nothing                                          skip: DPS never had it
               withdrawn                                        unchanged
               its last statement is no longer kept             reject: state it once more first
               anything else                                    queue its last statement as ``delete``
`SendAgain`    nothing                                          reject
               stated or named by this upload already           unchanged
               not refused by DPS                               reject
               refused, withdrawn, and not on file at DPS       reject
               refused, its last statement is no longer kept    reject: state it once more
               refused, withdrawn, on file at DPS               queue its last statement as ``delete``
               refused, on file at DPS                          queue its last statement as ``update``
               refused, not on file at DPS                      queue its last statement as ``new``
=============  ===============================================  =======================================================

DPS is told of a withdrawal even where the record is not known to be on file there: that does no harm. Where several
rows of the table fit, the first counts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vaccinations.model.entry import WITHDRAWN, Action, Entry
from vaccinations.model.london import in_london
from vaccinations.model.problems import Problem
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.row import Faulty, SendAgain, Vaccinated, Withdrawn

if TYPE_CHECKING:
    from datetime import datetime

    from vaccinations.model.row import Row

__all__ = ["Columns", "Decision", "Known", "Queue", "Reject", "Skip", "Unchanged", "UploadFacts", "decide"]


@dataclass(frozen=True, slots=True)
class Columns:
    """What an uploader calls the columns that decisions are about, and how a withdrawal is written there."""

    time: str
    programme: str
    withdrawn: str
    withdrawal: str


@dataclass(frozen=True, slots=True)
class UploadFacts:
    """What decisions depend on of the upload that a row stands in.

    Attributes
    ----------
    batch_id
        Names the upload.
    uploaded_at
        When S3 stored it, with its offset.
    """

    batch_id: str
    uploaded_at: datetime
    columns: Columns


@dataclass(frozen=True, slots=True)
class Known:
    """What the register, and the upload so far, know of a record.

    Attributes
    ----------
    kept
        Whether the columns of its last statement are still kept, so that it can be sent once more.
    """

    entry: Entry
    kept: bool


@dataclass(frozen=True, slots=True)
class Queue:
    """The row is accepted: DPS is told.

    Attributes
    ----------
    entry
        What is known of the record from now on.
    repeats
        Whether DPS is told the columns of the record's last statement, since the row has none of its own.
    """

    entry: Entry
    repeats: bool


@dataclass(frozen=True, slots=True)
class Unchanged:
    """The row says what was known already."""


@dataclass(frozen=True, slots=True)
class Skip:
    """The row withdraws what was never stated."""


@dataclass(frozen=True, slots=True)
class Reject:
    """The row cannot be used.

    Attributes
    ----------
    problems
        What is wrong with it, at least one thing.
    """

    problems: tuple[Problem, ...]


type Decision = Queue | Unchanged | Skip | Reject

_UNCHANGED, _SKIP = Unchanged(), Skip()


def decide(row: Row, known: Known | None, upload: UploadFacts) -> Decision:
    """Decide what becomes of a row, by the table above.

    Parameters
    ----------
    known
        What is known of the row's record; None where it was never ingested.
    """
    match row:
        case Faulty(problems=problems):
            return Reject(problems)
        case Vaccinated():
            return _state(row, known, upload)
        case Withdrawn():
            return _withdraw(row, known, upload)
        case SendAgain():
            return _send_again(row, known, upload)


def _state(row: Vaccinated, known: Known | None, upload: UploadFacts) -> Decision:
    programme = row.record.programme
    entry = known.entry if known else None
    problems = []
    if in_london(row.record.vaccinated_at) > upload.uploaded_at:
        problems.append(Problem(upload.columns.time, "is later than the upload", "the time the vaccine was given"))
    if entry and entry.programme != programme:
        problems.append(_known_elsewhere(entry, upload.columns))
    if problems:
        return Reject(tuple(problems))
    if entry and entry.digest == row.digest:
        return _UNCHANGED
    action = Action.UPDATE if entry and entry.on_file else Action.NEW
    return Queue(Entry(row.record_id, programme, row.digest, action, upload.batch_id, row.line), repeats=False)


def _withdraw(row: Withdrawn, known: Known | None, upload: UploadFacts) -> Decision:
    if known is None:
        return _SKIP
    if known.entry.withdrawn:
        return _UNCHANGED
    if not known.kept:
        what = "this record was ingested so long ago that it is no longer kept, so it cannot be withdrawn"
        return _reject(upload.columns.withdrawn, what, "upload the vaccination once more, then withdraw it")
    entry = replace(known.entry, digest=WITHDRAWN, action=Action.DELETE)
    return _repeat(entry, row, upload)


def _send_again(row: SendAgain, known: Known | None, upload: UploadFacts) -> Decision:
    if known is None:
        return _reject("", "is of no record that was ingested", "the identifier of a record that DPS refused")
    entry = known.entry
    if entry.batch_id == upload.batch_id:
        return _UNCHANGED
    if entry.refusal is None:
        return _reject("", "DPS has not refused this record as it was sent last", "leave it out")
    if entry.withdrawn and not entry.on_file:
        return _reject("", "this record was withdrawn, and it is not on file at DPS", "leave it out")
    if not known.kept:
        return _reject("", "what was sent is no longer kept", "upload the vaccination once more")
    action = Action.DELETE if entry.withdrawn else Action.UPDATE if entry.on_file else Action.NEW
    return _repeat(replace(entry, action=action, on_file=True), row, upload)


def _repeat(entry: Entry, row: Withdrawn | SendAgain, upload: UploadFacts) -> Queue:
    return Queue(replace(entry, batch_id=upload.batch_id, line=row.line, refusal=None), repeats=True)


def _known_elsewhere(entry: Entry, columns: Columns) -> Problem:
    name = PROGRAMMES[entry.programme].name
    return Problem(
        columns.programme,
        f"this record was ingested under {name} before",
        f"withdraw it there (upload it under {name} with {columns.withdrawal}), then upload it with a UUID of its own",
    )


def _reject(column: str, what: str, fix: str) -> Reject:
    return Reject((Problem(column, what, fix),))
