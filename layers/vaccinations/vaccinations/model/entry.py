"""What the register knows of a record: identifiers, digests and counts, nothing personal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import TYPE_CHECKING, NamedTuple

from vaccinations.model.outcome import Action, OnFile, Outcome, on_file_after

if TYPE_CHECKING:
    from collections.abc import Container, Mapping
    from datetime import datetime

__all__ = ["ALREADY_SENT", "WITHDRAWN", "Entry", "Intake", "Person", "Place", "Refusal", "age_of"]

#: Stands for the digest of a record that was withdrawn.
WITHDRAWN = "withdrawn"
#: How old a statement is that another system sent before: older than whatever is uploaded here.
ALREADY_SENT = "0"


class Place(NamedTuple):
    """Where a statement is: the batch that holds it, and the upload's line that it came from."""

    batch_id: str
    line: int


def age_of(uploaded_at: datetime, key: str, place: int) -> str:
    """Say how old the statements of an upload are, as a text: an older upload's sorts before a newer one's.

    Uploads are ordered by the second in which S3 stored them; within a second, versions of one object by their order
    there. Of several objects in one second nobody knows which came first: there the order follows from their keys, so
    that it is the same whenever it is asked for. A key itself may name somebody, hence its digest.

    Parameters
    ----------
    uploaded_at
        When S3 stored it, with its offset.
    key
        The object's.
    place
        How many versions of the object S3 stored before it in the same second.
    """
    second = uploaded_at.astimezone(UTC).isoformat(timespec="seconds")
    return f"{second} {hashlib.sha256(key.encode()).hexdigest()[:8]} {place:04}"


@dataclass(frozen=True, slots=True)
class Refusal:
    """DPS's refusal of a statement about a record. Why in words is in the answer only.

    Attributes
    ----------
    outcome
        The class of the reason.
    at
        When its answer was collected (ISO 8601, UTC).
    export_id, row
        The export, and the row of its file.
    answer
        Key of the answer in the bucket.
    """

    outcome: Outcome
    at: str
    export_id: str
    row: int
    answer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the register knows of a record.

    Attributes
    ----------
    record_id
        The record's UUID.
    programme
        Key of the programme that it was ingested under; empty where it was withdrawn before it was ever stated.
    digest
        Of what was last stated about it, or `WITHDRAWN`.
    action
        How that went, or will go, to DPS.
    batch_id, line
        The batch that holds this statement, and the upload's line that it came from.
    owner
        ODS code of the folder in which the record first arrived, by the time of the upload.
    owned_since
        How old the statement is with which it arrived there (`age_of`).
    stated_at
        How old the last statement about it is (`age_of`). A row that says the same once more makes it newer.
    on_file
        Whether the record is on file at DPS. What was sent counts as on file until DPS says otherwise.
    refusal
        DPS's refusal of this statement, where it refused it.
    before
        What was known of the record before the upload of this statement; None where that was nothing. It counts again
        where the upload is parked, and this statement is never sent.
    new_in
        The last statement that went out as `new`, where that is an earlier one.
    origin
        Where a request repeats a statement: the statement of the upload that it came in.
    """

    record_id: str
    programme: str
    digest: str
    action: Action
    batch_id: str
    line: int
    owner: str
    owned_since: str
    stated_at: str
    on_file: OnFile = OnFile.YES
    refusal: Refusal | None = None
    before: Entry | None = None
    new_in: Place | None = None
    origin: Place | None = None

    def following(self, known: Entry | None) -> Entry:
        """Return this entry with what was known before its upload, given what was known before its row."""
        if known is None or not known.batch_id:
            return self
        before = known.before if known.batch_id == self.batch_id else replace(known, before=None)
        return replace(self, before=before)

    def counting(self, unsent: Container[tuple[str, str]]) -> Entry | None:
        """Return what counts: this, or what was known before where its batch, by programme and id, is never sent."""
        return self.before if (self.programme, self.batch_id) in unsent else self

    def gives_way(self, other: Entry) -> bool:
        """Tell whether another entry of the record counts more: its owner's is older, or it is the same and newer."""
        return (other.owned_since, self.stated_at) < (self.owned_since, other.stated_at)

    def hearing(self, answered: Entry) -> Entry:
        """Return this entry once DPS's answer to a statement about the record, or that it is lost, is noted.

        It is noted where the record is at that statement, or was before the upload of this one; a refusal stays as it
        was noted first. Where a `new` was refused, whatever followed it alone meets a record that is not on file.

        Parameters
        ----------
        answered
            The statement: with its refusal, from which follows whether the record is on file; or without, and with
            ``on_file`` as it is now.
        """
        before = self.before.hearing(answered) if self.before else None
        known = self if before == self.before else replace(self, before=before)
        refusal = answered.refusal
        on_file = on_file_after(answered.action, refusal.outcome) if refusal else answered.on_file
        if known.statement == answered.statement:
            if refusal and known.refusal:
                return known
            return replace(known, on_file=on_file or known.on_file, refusal=refusal or known.refusal)
        if refusal and known.last_new == answered.statement and known.on_file is OnFile.YES:
            return replace(known, on_file=on_file or known.on_file)
        return known

    def waiting(self) -> Entry:
        """Return what counts while the upload of this statement is parked and waits for a person.

        That is what was known before. The record is whose it was first nevertheless, this one's perhaps. Where nothing
        was known before, nothing else is known than whose it is.
        """
        nothing = Entry(self.record_id, "", "", Action.NEW, "", 0, self.owner, self.owned_since, "", OnFile.NO)
        before = self.before or nothing
        return before if before.owned_since <= self.owned_since else before.of(self.owner, self.owned_since)

    def of(self, owner: str, since: str) -> Entry:
        """Return this entry of a record that turns out to be another's: what was stated about it counts no more."""
        return replace(self, owner=owner, owned_since=since, stated_at="")

    @property
    def statement(self) -> Place:
        """What tells this statement from others about the record."""
        return Place(self.batch_id, self.line)

    @property
    def last_new(self) -> Place | None:
        """The last statement that went out as `new`; None where none did."""
        return self.statement if self.action is Action.NEW else self.new_in

    @property
    def stated_in(self) -> Place:
        """The statement of the upload that it came in, whichever request has repeated it since."""
        return self.origin or self.statement

    @property
    def unstated(self) -> bool:
        """Whether nothing states it: it was only withdrawn, which no older upload changes, or its first is parked."""
        return not self.programme

    @property
    def withdrawn(self) -> bool:
        """Whether the record was last withdrawn."""
        return self.digest == WITHDRAWN


@dataclass(frozen=True, slots=True)
class Person:
    """Whose vaccination a row or a statement is about. This is in batch lines only, never in the register.

    Attributes
    ----------
    nhs_number
        Ten digits; None where it is not stated.
    date_of_birth
        ISO 8601.
    """

    nhs_number: str | None = field(repr=False)
    surname: str = field(repr=False)
    date_of_birth: str = field(repr=False)

    def differs_wholly(self, other: Person) -> bool:
        """Tell whether nothing says that it is the same child: neither number, nor surname, nor date of birth.

        A number that is not stated says nothing. Surnames are compared without regard to case and to runs of spaces.
        """
        return (
            self.date_of_birth != other.date_of_birth
            and _plain(self.surname) != _plain(other.surname)
            and (self.nhs_number is None or self.nhs_number != other.nhs_number)
        )


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())


@dataclass(frozen=True, slots=True)
class Intake:
    """How far an upload has got.

    Attributes
    ----------
    batches
        How many rows each programme's batch holds.
    attached
        The number of the export that each programme's batch is in.
    finished
        Whether nothing is left to do about it.
    tries
        How often it was tried to complete it.
    parked
        Whether it was given up: what is not attached is never sent.
    sends
        Whether its batches go into exports. What another system has sent already is only registered.
    """

    batch_id: str
    batches: Mapping[str, int]
    attached: Mapping[str, int]
    finished: bool
    tries: int = 0
    parked: bool = False
    sends: bool = True

    @property
    def unattached(self) -> list[str]:
        """The programmes whose batches are in no export yet, in the order of their keys."""
        return sorted(self.batches.keys() - self.attached.keys())
