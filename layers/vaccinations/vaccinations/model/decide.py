"""What becomes of a row of an upload: one decision from the row, what is known of its record, and the upload.

=============  ===============================================  =======================================================
The row        What is known of its record                      The decision
=============  ===============================================  =======================================================
`Faulty`       anything                                         reject: all that is wrong with it
`Nobody`       anything                                       skip: it is about no record
any other      another organisation's, since before the upload  reject, whatever the row says
`Vaccinated`   anything, and of a code not to be stated for     reject: the code, and what else is wrong
               anything, and given later than the upload        reject: the time, and what else is wrong
               stated by a newer upload                         overtaken
               stated under another programme                   reject: withdraw it there first
               nothing                                          queue as ``new``
               the same digest                                  unchanged
               last stated of another child                     reject: a UUID of its own
               another digest, on file at DPS                   queue as ``update``
               another digest, not on file at DPS               queue as ``new``
`Withdrawn`    anything, and of a code not to be stated for     reject: the code
               stated by a newer upload                         overtaken
               nothing, or withdrawn before it was ever stated  skip: DPS never had it
               withdrawn                                        unchanged
               its last statement is no longer kept             reject: state it once more first
               last stated of another child                     reject: the UUID of this one
               anything else                                    queue its last statement as ``delete``
`Vaccinated`   already sent by another system, and known here   unchanged, or reject: upload it as any other
               already sent, and not known here                 register it, with its list; nothing is sent
`Withdrawn`    in a list of what was already sent               reject
`SendAgain`    nothing                                          reject
               stated or named by this upload already           unchanged
               not refused by DPS                               reject
               refused, its last statement is no longer kept    reject: state it once more
               refused, withdrawn                               queue its last statement as ``delete``
               refused, on file at DPS                          queue its last statement as ``update``
               refused, not on file at DPS                      queue its last statement as ``new``
`Lost`         nothing                                          reject
               a newer statement; it was not the last ``new``   unchanged: DPS is told the newer one
               withdrawn since, and the last ``new`` is lost    absent: it is not on file at DPS, nothing is sent
               its last statement is no longer kept             reject: state it once more
               withdrawn                                        queue its last statement as ``delete``
               the last ``new`` is lost, or it is not on file   queue its last statement as ``new``
               anything else                                    queue its last statement as ``update``
=============  ===============================================  =======================================================

DPS is told of a withdrawal, and again, even where the record is not known to be on file there: that does no harm. Where
several rows of the table fit, the first counts.

A record is the organisation's in whose folder it first arrived, by the time of the upload: an older upload than that,
from another folder, makes it that one's. What others stated, who may not change its records, counts no more then.

A statement is as old as its upload (`vaccinations.model.entry.age_of`); within one upload the later row counts. What is
unchanged or skipped is a statement, too: no older upload changes it. To send a record again states nothing new, whoever
owns it. What may be on file at DPS or not, since DPS said so, goes out as ``new``.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vaccinations.model.entry import WITHDRAWN, Entry, Person
from vaccinations.model.london import in_london
from vaccinations.model.outcome import Action, OnFile
from vaccinations.model.problems import Problem
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.row import Faulty, Lost, Nobody, SendAgain, Vaccinated, Withdrawn, person_in

if TYPE_CHECKING:
    from datetime import datetime

    from vaccinations.model.row import Row
    from vaccinations.model.uploaders import Uploaders

__all__ = [
    "Absent",
    "Columns",
    "Decision",
    "Known",
    "Overtaken",
    "Queue",
    "Reject",
    "Skip",
    "Unchanged",
    "UploadFacts",
    "decide",
]


@dataclass(frozen=True, slots=True)
class Columns:
    """What an uploader calls the columns that decisions are about, and how a withdrawal is written there."""

    record: str
    organisation: str
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
    stated_at
        How old its statements are (`vaccinations.model.entry.age_of`).
    folder
        ODS code of the folder that it is in.
    uploaders
        What this folder may do beyond its own organisation's records.
    already_sent
        Whether it lists what another system has sent to DPS already.
    """

    batch_id: str
    uploaded_at: datetime
    stated_at: str
    folder: str
    uploaders: Uploaders
    columns: Columns
    already_sent: bool = False


@dataclass(frozen=True, slots=True)
class Known:
    """What the register, and the upload so far, know of a record.

    Attributes
    ----------
    kept
        Whether the columns of its last statement are still kept, so that it can be sent once more.
    person
        Whom that statement is about; None where it is no longer kept, or nobody asked.
    """

    entry: Entry
    kept: bool
    person: Person | None = None


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
    """The row says what was known already.

    Attributes
    ----------
    entry
        What is known of the record from now on: the same, stated as lately as this.
    """

    entry: Entry


@dataclass(frozen=True, slots=True)
class Skip:
    """The row withdraws what was never stated.

    Attributes
    ----------
    entry
        What is known of the record from now on: that no older upload states it. None where no record is named.
    """

    entry: Entry | None


@dataclass(frozen=True, slots=True)
class Absent:
    """DPS does not have the record, nor need it.

    Attributes
    ----------
    entry
        What is known of the record from now on: the same, not on file.
    """

    entry: Entry


@dataclass(frozen=True, slots=True)
class Overtaken:
    """The row is older than what is known of its record.

    Attributes
    ----------
    entry
        What is known of the record from now on: the same, but perhaps arrived earlier.
    """

    entry: Entry


@dataclass(frozen=True, slots=True)
class Reject:
    """The row cannot be used.

    Attributes
    ----------
    problems
        What is wrong with it, at least one thing.
    """

    problems: tuple[Problem, ...]


#: What helps where a record's last statement is no longer kept.
_STATED_ANEW = "upload the vaccination once more with something corrected (the same changes nothing)"

type Decision = Queue | Unchanged | Skip | Absent | Overtaken | Reject


def decide(row: Row, known: Known | None, upload: UploadFacts) -> Decision:
    """Decide what becomes of a row, by the table above.

    Parameters
    ----------
    known
        What is known of the row's record; None where it was never ingested.
    """
    if isinstance(row, Faulty):
        return Reject(row.problems)
    match row:
        case Nobody():
            return Skip(None)
        case SendAgain():
            return _send_again(row, known, upload)
        case Lost():
            return _requeue(row, known, upload)
    counts = _what_counts(known, upload) if known else None
    if known and counts is None:
        return _reject(
            upload.columns.record,
            "this record is another organisation's",
            "an identifier of your own; an organisation that took over from another asks whoever runs this service",
        )
    match row:
        case Vaccinated() if upload.already_sent:
            return _register(row, counts, upload)
        case Vaccinated():
            decision = _state(row, counts, upload)
        case Withdrawn():
            decision = _withdraw(row, counts, upload)
    if known and isinstance(decision, Queue):
        return replace(decision, entry=decision.entry.following(known.entry))
    return decision


def _what_counts(known: Known, upload: UploadFacts) -> Known | None:
    """Return what counts of what is known of a record, beside the upload; None where the record is another's."""
    entry, folder, since = known.entry, upload.folder, upload.stated_at
    may_change = upload.uploaders.may_change
    if since >= entry.owned_since or upload.already_sent:
        return known if may_change(folder, entry.owner) else None
    if may_change(entry.owner, folder):
        return replace(known, entry=replace(entry, owner=folder, owned_since=since))
    return replace(known, entry=entry.of(folder, since), person=None)


def _state(row: Vaccinated, known: Known | None, upload: UploadFacts) -> Decision:
    entry = known.entry if known else None
    overtaken = entry is not None and upload.stated_at < entry.stated_at
    problems = _not_to_be_stated(row, upload)
    if entry and not overtaken and entry.programme not in {row.record.programme, ""}:
        problems.append(_known_elsewhere(entry, upload.columns))
    if problems:
        return Reject(tuple(problems))
    if entry and overtaken:
        return Overtaken(entry)
    if entry and entry.digest == row.digest:
        return Unchanged(_as_lately(entry, upload))
    if known and known.person and known.person.differs_wholly(person_in(row.record)):
        return _of_another_child(upload, "a UUID of its own; where it is the same child, withdraw the old record")
    return Queue(_stated(row, entry, upload), repeats=False)


def _register(row: Vaccinated, known: Known | None, upload: UploadFacts) -> Decision:
    if problems := _not_to_be_stated(row, upload):
        return Reject(tuple(problems))
    if known is None:
        return Queue(_stated(row, None, upload), repeats=False)
    if known.entry.digest == row.digest:
        return Unchanged(known.entry)
    if known.entry.unstated:
        what, fix = "this record was withdrawn before", "upload the vaccination once more, then withdraw it"
        return _reject(upload.columns.record, what, fix)
    return _reject(upload.columns.record, "this record was ingested before", "upload it as any other record")


def _not_to_be_stated(row: Vaccinated, upload: UploadFacts) -> list[Problem]:
    problems = _not_to_be_stated_for(row.record.organisation_code, upload)
    if in_london(row.record.vaccinated_at) > upload.uploaded_at:
        problems.append(Problem(upload.columns.time, "is later than the upload", "the time the vaccine was given"))
    return problems


def _stated(row: Vaccinated, entry: Entry | None, upload: UploadFacts) -> Entry:
    updates = entry is not None and entry.on_file is OnFile.YES
    return Entry(
        row.record_id,
        row.record.programme,
        row.digest,
        Action.UPDATE if updates else Action.NEW,
        upload.batch_id,
        row.line,
        owner=entry.owner if entry else upload.folder,
        owned_since=entry.owned_since if entry else upload.stated_at,
        stated_at=upload.stated_at,
        new_in=entry.last_new if entry and updates else None,
    )


def _withdraw(row: Withdrawn, known: Known | None, upload: UploadFacts) -> Decision:
    if problems := _not_to_be_stated_for(row.organisation_code or upload.folder, upload):
        return Reject(tuple(problems))
    if upload.already_sent:
        what = "withdraws a record, but a list of what was already sent holds vaccinations only"
        return _reject(upload.columns.withdrawn, what, "leave it out, and upload it as any other row")
    if known is None:
        return Skip(_never_stated(row, upload))
    if upload.stated_at < known.entry.stated_at:
        return Overtaken(known.entry)
    if known.entry.unstated:
        entry = known.entry if known.entry.withdrawn else _never_stated(row, upload)
        owned = replace(entry, owner=known.entry.owner, owned_since=known.entry.owned_since)
        return Skip(_as_lately(owned, upload))
    if known.entry.withdrawn:
        return Unchanged(_as_lately(known.entry, upload))
    if not known.kept:
        what = "this record was ingested so long ago that it is no longer kept, so it cannot be withdrawn"
        return _reject(upload.columns.withdrawn, what, f"{_STATED_ANEW}, then withdraw it")
    if known.person and row.person and known.person.differs_wholly(row.person):
        return _of_another_child(upload, "the UUID of this child's record; or the other child as it was stated")
    entry = replace(known.entry, digest=WITHDRAWN, stated_at=upload.stated_at, origin=None)
    return Queue(_repeated(entry, Action.DELETE, known.entry, row, upload), repeats=True)


def _never_stated(row: Withdrawn, upload: UploadFacts) -> Entry:
    return Entry(
        row.record_id,
        "",
        WITHDRAWN,
        Action.DELETE,
        upload.batch_id,
        row.line,
        owner=upload.folder,
        owned_since=upload.stated_at,
        stated_at=upload.stated_at,
        on_file=OnFile.NO,
    )


def _of_another_child(upload: UploadFacts, fix: str) -> Reject:
    what = "this record was ingested before, of another child: NHS number, surname and date of birth all differ"
    return _reject(upload.columns.record, what, fix)


def _as_lately(entry: Entry, upload: UploadFacts) -> Entry:
    return replace(entry, stated_at=upload.stated_at)


def _send_again(row: SendAgain, known: Known | None, upload: UploadFacts) -> Decision:
    if known is None:
        return _reject("", "is of no record that was ingested", "the identifier of a record that DPS refused")
    entry = known.entry
    if entry.batch_id == upload.batch_id:
        return Unchanged(entry)
    if entry.refusal is None:
        return _reject("", "DPS has not refused this record as it was sent last", "leave it out")
    if not known.kept:
        return _reject("", "what was sent is no longer kept", _STATED_ANEW)
    return _again(entry, row, upload)


def _requeue(row: Lost, known: Known | None, upload: UploadFacts) -> Decision:
    if known is None:
        return _reject("", "is of no record that was ingested", "upload the vaccination once more")
    entry = known.entry
    was_new = row.action is Action.NEW
    if entry.statement != row.statement:
        if not (was_new and entry.last_new == row.statement):
            return Unchanged(entry)
        if entry.withdrawn:
            return Absent(replace(entry, on_file=OnFile.NO))
    if not known.kept:
        return _reject("", "what was sent is no longer kept", _STATED_ANEW)
    return _again(replace(entry, on_file=OnFile.NO) if was_new else entry, row, upload)


def _again(entry: Entry, row: SendAgain | Lost, upload: UploadFacts) -> Queue:
    """Queue a record's last statement once more, as what DPS has to be told now."""
    action = Action.UPDATE if entry.on_file is OnFile.YES else Action.NEW
    repeated = replace(entry, on_file=OnFile.YES, origin=entry.stated_in)
    queued = _repeated(repeated, Action.DELETE if entry.withdrawn else action, entry, row, upload)
    return Queue(queued.following(entry), repeats=True)


def _repeated(
    entry: Entry, action: Action, known: Entry, row: Withdrawn | SendAgain | Lost, upload: UploadFacts
) -> Entry:
    return replace(
        entry,
        action=action,
        batch_id=upload.batch_id,
        line=row.line,
        refusal=None,
        new_in=None if action is Action.NEW else known.last_new,
    )


def _not_to_be_stated_for(code: str, upload: UploadFacts) -> list[Problem]:
    if upload.uploaders.may_state_for(upload.folder, code):
        return []
    what = "is an organisation that this folder may not state vaccinations for"
    return [Problem(upload.columns.organisation, what, f"{upload.folder}, or nothing; or a folder of its own")]


def _known_elsewhere(entry: Entry, columns: Columns) -> Problem:
    name = PROGRAMMES[entry.programme].name
    return Problem(
        columns.programme,
        f"this record was ingested under {name} before",
        f"withdraw it there (upload it under {name} with {columns.withdrawal}), then upload it with a UUID of its own",
    )


def _reject(column: str, what: str, fix: str) -> Reject:
    return Reject((Problem(column, what, fix),))
