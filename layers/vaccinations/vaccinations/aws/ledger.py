"""The ledger: each DPSExport and the state it is in, in the DynamoDB table DpsExports.

An export is one DPS file of one programme. While it is *open* it gathers batches of records; at night it is
sealed and from then on its records never change. Its life is the table `TRANSITIONS`; every transition is one
conditional write, so that a transition which is not in the table, or which somebody else has made already, cannot
happen.

::

    open ─▶ pending ─▶ accepted ─▶ acknowledged
              │ ▲ └─▶ unclear (─▶ a person decides)
              ▼ │          │
            failed      undelivered ◀─ accepted
              └─────▶ pending ◀──┘        (next nightly run, attempt + 1)

That is MESH's delivery. What DPS makes of the file is a fact of its own beside it, `Processing`, with transitions of
its own, `PROCESSING`; both belong to the attempt, and are kept with it in ``earlier`` once there is another.

Key: programme (S) and number (N), counted from 1. Item ``number = 0`` is the programme's cursor: which export is
open and which file names of the day are used up. An item ``file#{name}`` tells which attempt at which export bore a
file name, so that what DPS answers is found with one read. Only the holder of an export's lease may send it.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any, Self
from zoneinfo import ZoneInfo

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mypy_boto3_dynamodb import DynamoDBClient

    type Item = dict[str, Any]

__all__ = [
    "MAX_ATTEMPTS",
    "PROCESSING",
    "TRANSITIONS",
    "DPSExport",
    "ImpossibleTransition",
    "Lease",
    "LeaseLost",
    "Ledger",
    "LedgerConflict",
    "Processing",
    "Status",
]

_LONDON = ZoneInfo("Europe/London")

#: An export is tried at most this many times by itself; after that a person decides.
MAX_ATTEMPTS = 5
#: MESH takes no longer file names.
_LONGEST_NAME = 300
_MOMENTS = (
    *("created_at", "updated_at", "sealed_at", "pending_since", "sending_at", "accepted_at", "sent_at"),
    *("acknowledged_at", "received_at", "processed_at"),
)
#: What is known of one attempt, and of the next not yet.
_OF_AN_ATTEMPT = (
    *("message_id", "sending_at", "sent_at", "acknowledged_at"),
    *("processing", "received_at", "processed_at", "taken", "refused", "refusal"),
)
#: An export takes in at most this many batches, so that its item stays far below DynamoDB's 400 KB.
MAX_BATCHES = 2_000


class Status(StrEnum):
    """What has become of an export's delivery."""

    OPEN = "open"
    """Gathers batches."""
    PENDING = "pending"
    """Sealed; being sent, or to be sent by the next run."""
    ACCEPTED = "accepted"
    """MESH has taken every part."""
    ACKNOWLEDGED = "acknowledged"
    """DPS has picked the file up."""
    FAILED = "failed"
    """MESH refused it."""
    UNDELIVERED = "undelivered"
    """MESH took it, but DPS did not pick it up, or MESH reported an error later."""
    UNCLEAR = "unclear"
    """MESH knows several messages by this attempt's local id: a person has to look."""


#: Every transition there is (design, "Export").
TRANSITIONS: frozenset[tuple[Status, Status]] = frozenset(
    {
        (Status.OPEN, Status.PENDING),
        (Status.PENDING, Status.ACCEPTED),
        (Status.PENDING, Status.FAILED),
        (Status.PENDING, Status.UNCLEAR),
        (Status.FAILED, Status.PENDING),
        (Status.UNDELIVERED, Status.PENDING),
        (Status.UNCLEAR, Status.PENDING),  # only by a person: mesh export resend
        (Status.ACCEPTED, Status.ACKNOWLEDGED),
        (Status.ACCEPTED, Status.UNDELIVERED),
        # Only where DPS has refused the file as a whole, and only by a person: mesh export resend
        (Status.ACCEPTED, Status.PENDING),
        (Status.ACKNOWLEDGED, Status.PENDING),
    }
)


class Processing(StrEnum):
    """What DPS has made of an attempt's file; nothing where it has not answered."""

    RECEIVED = "received"
    """It has taken the file, and not yet said anything of its rows."""
    REFUSED = "refused"
    """It has refused the file as a whole."""
    PROCESSED = "processed"
    """It has said which rows it did not take."""


#: Every transition of `Processing` there is. Answers come in any order and more than once; one that would lead
#: anywhere else says again what is known, or contradicts it, and changes nothing.
PROCESSING: frozenset[tuple[Processing | None, Processing]] = frozenset(
    {
        (None, Processing.RECEIVED),
        (None, Processing.REFUSED),
        (None, Processing.PROCESSED),
        (Processing.RECEIVED, Processing.PROCESSED),
    }
)


#: MESH has brought it to DPS, or will.
_DELIVERED = {Status.ACCEPTED, Status.ACKNOWLEDGED}


class LedgerConflict(Exception):
    """Somebody else changed the export first; read it again."""


class LeaseLost(LedgerConflict):
    """Another run has taken the export over, or may by now; this one must not touch it any more."""


class ImpossibleTransition(Exception):
    """A transition that `TRANSITIONS` does not have was asked for."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send an export until a point in time."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True)
class DPSExport:
    """One DPS file of one programme, as the ledger knows it.

    Attributes
    ----------
    programme, number
        The key. ``export_id`` joins them: ``hpv-17``.
    status
        Its state.
    records
        How many rows the file has.
    batches
        Ids of the batches in it, in the order of its rows. Read only for one export at a time.
    filename
        The file's name in the ledger; each attempt has its own. ``mesh_filename`` is its name on MESH.
    attempt
        1 for the first; MESH knows an attempt by its local id ``{export_id}-{attempt}``.
    parts, parts_sent
        How many parts the file has (0 until rendered), how many of them MESH has taken.
    sealed_at, pending_since
        When the export was sealed, and when this attempt began.
    sending_at
        When this attempt was about to be sent: from then on MESH may have it.
    message_id
        MESH's id of this attempt's message; empty until known.
    accepted_at
        When MESH had first taken it whole, at whichever attempt. Later exports of the programme wait for this.
    sent_at, acknowledged_at
        When this attempt was accepted, and acknowledged.
    error
        What was last wrong: ``{"code", "description"}``, both MESH's own where MESH said it.
    processing
        What DPS has made of this attempt's file; None where it has not answered.
    received_at, processed_at
        When it was heard that DPS had received the file, or refused it, and that it had processed it.
    taken, refused
        How many rows DPS took, and how many it refused; None until it has processed the file. A row that was refused
        because DPS holds the record already counts as taken.
    refusal
        DPS's codes where it refused the file as a whole.
    earlier
        Earlier attempts: ``{"attempt", "filename", "message_id", "error"}`` each, and ``processing`` where DPS
        answered it.
    lease
        Who may send it now.
    """

    programme: str
    number: int
    status: Status
    records: int
    created_at: datetime
    updated_at: datetime
    batches: tuple[str, ...] = ()
    filename: str = ""
    mesh_filename: str = ""
    attempt: int = 0
    parts: int = 0
    parts_sent: int = 0
    sealed_at: datetime | None = None
    pending_since: datetime | None = None
    sending_at: datetime | None = None
    message_id: str = ""
    accepted_at: datetime | None = None
    sent_at: datetime | None = None
    acknowledged_at: datetime | None = None
    error: Mapping[str, str] | None = None
    processing: Processing | None = None
    received_at: datetime | None = None
    processed_at: datetime | None = None
    taken: int | None = None
    refused: int | None = None
    refusal: str = ""
    earlier: tuple[Mapping[str, Any], ...] = ()
    lease: Lease | None = field(default=None, repr=False)

    @property
    def export_id(self) -> str:
        """The export's name for people: ``hpv-17``."""
        return f"{self.programme}-{self.number}"

    @property
    def local_id(self) -> str:
        """``Mex-LocalID`` of this attempt: ``hpv-17-1``."""
        return f"{self.export_id}-{self.attempt}"

    @classmethod
    def from_item(cls, item: Item) -> Self:
        """Read an export from a DynamoDB item."""
        plain = _plain(item)
        for name in _MOMENTS:
            plain[name] = _moment(plain.get(name))
        plain["processing"] = Processing(plain["processing"]) if plain.get("processing") else None
        lease = plain.get("lease")
        plain["lease"] = Lease(lease["holder"], datetime.fromisoformat(lease["until"])) if lease else None
        plain["status"] = Status(plain["status"])
        plain["batches"] = tuple(plain.get("batches", ()))
        plain["earlier"] = tuple(plain.get("earlier", ()))
        return cls(**{f.name: plain[f.name] for f in fields(cls) if f.name in plain})


class Ledger:
    """Reading and moving exports.

    Parameters
    ----------
    dynamodb
        A boto3 client.
    table
        Name of the DpsExports table.
    changed
        Is told of each export that has come into another state, or that DPS has answered, once that is written.
    clock
        Tells the time, with its offset; for tests.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        table: str,
        *,
        changed: Callable[[DPSExport], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._changed = changed
        self._clock = clock

    # -- reading

    def get(self, programme: str, number: int) -> DPSExport:
        """Return an export with its batches, as it is now.

        Raises
        ------
        KeyError
            There is none.
        """
        answer = self._dynamodb.get_item(TableName=self._table, Key=_key(programme, number), ConsistentRead=True)
        if number < 1 or "Item" not in answer:
            raise KeyError(f"{programme}-{number}")
        return DPSExport.from_item(answer["Item"])

    def exports(self, programme: str) -> Iterator[DPSExport]:
        """Iterate over a programme's exports, oldest first, without their batches, as they are now."""
        yield from self._query(
            ConsistentRead=True,
            KeyConditionExpression="programme = :programme AND #number > :cursor",
            ExpressionAttributeValues=_values({":programme": programme, ":cursor": 0}),
        )

    def latest(self, programme: str, limit: int) -> Iterator[DPSExport]:
        """Iterate over a programme's last so many exports, newest first, without their batches."""
        exports = self._query(
            ScanIndexForward=False,
            KeyConditionExpression="programme = :programme AND #number > :cursor",
            ExpressionAttributeValues=_values({":programme": programme, ":cursor": 0}),
            PaginationConfig={"MaxItems": limit, "PageSize": limit},
        )
        return islice(exports, limit)

    def by_status(self, status: Status, since: datetime | None = None) -> Iterator[DPSExport]:
        """Iterate over every programme's exports in a state, longest in it first (from the index: not the latest).

        Parameters
        ----------
        since
            Only those that have come into it, or were changed in it, since then.
        """
        yield from self._query(
            IndexName="by-status",
            KeyConditionExpression="#status = :status AND #updated_at >= :since",
            ExpressionAttributeValues=_values({":status": status, ":since": _stamp(since) if since else "0"}),
        )

    def find(self, stem: str) -> tuple[DPSExport, int] | None:
        """Find the export and the attempt that bore a file name on MESH; None where there is none.

        Parameters
        ----------
        stem
            The name without its extension, in any case.
        """
        if len(stem) > _LONGEST_NAME:
            return None
        answer = self._dynamodb.get_item(TableName=self._table, Key=_file_key(stem), ConsistentRead=True)
        if "Item" not in answer:
            return None
        file = _plain(answer["Item"])
        try:
            return self.get(file["of"], file["export"]), file["attempt"]
        except KeyError:  # it was forgotten: mesh export reset
            return None

    def _query(self, **query: Any) -> Iterator[DPSExport]:
        wanted = [f.name for f in fields(DPSExport) if f.name != "batches"]
        names = {f"#{name}": name for name in wanted}
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            **query,
        )
        for page in pages:
            yield from map(DPSExport.from_item, page["Items"])

    # -- gathering

    def attach(self, programme: str, batch_id: str, records: int, marker: Callable[[int], Item]) -> int | None:
        """Attach a batch to the programme's open export, opening one where there is none.

        Batch marker and export change in one transaction: a batch is in exactly one export, whatever dies when.

        Parameters
        ----------
        records
            How many rows the batch adds.
        marker
            Makes the transaction's item that marks the batch as attached to the export of a number, and that
            fails where it is attached already.

        Returns
        -------
        int | None
            The export's number; None where the batch was attached before.
        """
        for again in range(50):
            number = int(self._cursor(programme).get("open", 0))
            addition = self._addition(programme, number, batch_id, records) if number else None
            if addition:
                reasons = self._transact(marker(number), addition)
                if not reasons:
                    return number
                if reasons[0] == "ConditionalCheckFailed":
                    return None
                if reasons[1] != "ConditionalCheckFailed":
                    _pause(again)
                    continue
            # There is no open export, or it was sealed or filled up meanwhile: open the next.
            reasons = self._transact(marker(number + 1), *self._opening(programme, number + 1, batch_id, records))
            if not reasons:
                return number + 1
            if reasons[0] == "ConditionalCheckFailed":
                return None
            _pause(again)
        raise LedgerConflict(f"no open export of {programme} could be had; try again")

    def _addition(self, programme: str, number: int, batch_id: str, records: int) -> Item:
        return {
            "Update": {
                "TableName": self._table,
                "Key": _key(programme, number),
                "UpdateExpression": "SET batches = list_append(batches, :batch), updated_at = :now "
                "ADD records :records",
                "ConditionExpression": "#status = :open AND size(batches) < :most",
                "ExpressionAttributeNames": {"#status": "status"},
                "ExpressionAttributeValues": _values(
                    {
                        ":batch": [batch_id],
                        ":now": self._now(),
                        ":records": records,
                        ":open": Status.OPEN,
                        ":most": MAX_BATCHES,
                    }
                ),
            }
        }

    def _opening(self, programme: str, number: int, batch_id: str, records: int) -> tuple[Item, Item]:
        export = {
            "programme": programme,
            "number": number,
            "export_id": f"{programme}-{number}",
            "status": Status.OPEN,
            "records": records,
            "batches": [batch_id],
            "created_at": self._now(),
            "updated_at": self._now(),
        }
        return (
            {
                "Put": {
                    "TableName": self._table,
                    "Item": _values(export),
                    "ConditionExpression": "attribute_not_exists(programme)",
                }
            },
            {
                "Update": {
                    "TableName": self._table,
                    "Key": _key(programme, 0),
                    "UpdateExpression": "SET #open = :next",
                    "ConditionExpression": "attribute_not_exists(#open) OR #open < :next",
                    "ExpressionAttributeNames": {"#open": "open"},
                    "ExpressionAttributeValues": _values({":next": number}),
                }
            },
        )

    def reset(self, programme: str) -> int:
        """Forget a programme's exports and gather all their batches in a new open one; for tests.

        Numbers go on, so that no local id is used twice. Returns the open export's number. Dying on the way leaves
        exports behind that are also in the new one: only where sending twice does no harm.
        """
        found = [self.get(programme, export.number) for export in self.exports(programme)]
        number = int(self._cursor(programme).get("open", 0)) + 1
        put, cursor = self._opening(programme, number, "", sum(export.records for export in found))
        batches = [batch_id for export in found for batch_id in export.batches]
        put["Put"]["Item"] |= _values({"batches": batches})
        if reasons := self._transact(put, cursor):
            raise LedgerConflict(f"{programme} is being worked on ({reasons[0]}); try again")
        for export in found:
            self._dynamodb.delete_item(TableName=self._table, Key=_key(programme, export.number))
        return number

    # -- sending

    def seal(self, export: DPSExport, name: Callable[[datetime, int], tuple[str, str]]) -> DPSExport:
        """Seal an open export for its first attempt: open to pending.

        Parameters
        ----------
        name
            Makes the attempt's file name and its name on MESH from a moment and a sequence number, 1 for the
            first file of the programme on that (London) day.
        """
        return self._start_attempt(export, name, {"attempt": 1, "sealed_at": self._now()})

    def retry(self, export: DPSExport, name: Callable[[datetime, int], tuple[str, str]]) -> DPSExport:
        """Begin the next attempt of an export that did not come to DPS, or that is unclear: to pending, renamed.

        Raises
        ------
        ImpossibleTransition
            It is not in such a state. One that MESH has delivered is sent again only where DPS refused the file.
        """
        if export.status in _DELIVERED and export.processing is not Processing.REFUSED:
            raise ImpossibleTransition(f"{export.export_id}: {export.status}, and DPS did not refuse it")
        before: Item = {
            "attempt": export.attempt,
            "filename": export.filename,
            "mesh_filename": export.mesh_filename,
            "message_id": export.message_id,
            "error": dict(export.error or {}),
        }
        if export.processing:
            before |= {"processing": str(export.processing), "refusal": export.refusal}
        fresh = {"attempt": export.attempt + 1, "parts_sent": 0, "earlier": [*export.earlier, before]}
        return self._start_attempt(export, name, fresh, remove=_OF_AN_ATTEMPT)

    def _start_attempt(
        self,
        export: DPSExport,
        name: Callable[[datetime, int], tuple[str, str]],
        changes: Item,
        remove: tuple[str, ...] = (),
    ) -> DPSExport:
        """Move to pending and use up a file name, in one transaction, so that no two attempts bear the same."""
        condition = "records > :zero" if export.status is Status.OPEN else "attempt = :before"
        values: Item = {":zero": 0} if export.status is Status.OPEN else {":before": export.attempt}
        if export.status in _DELIVERED:
            condition += " AND processing = :refused"
            values |= {":refused": Processing.REFUSED}
        taken = 0
        for again in range(50):
            naming, filename, mesh_filename = self._name(export.programme, name, taken)
            names = {"filename": filename, "mesh_filename": mesh_filename, "pending_since": self._now()}
            update = self._update(export, Status.PENDING, {**changes, **names}, remove, condition, values)
            file = {
                "programme": f"file#{_stem(mesh_filename)}",
                "number": 0,
                "of": export.programme,
                "export": export.number,
                "attempt": changes["attempt"],
            }
            put = {
                "TableName": self._table,
                "Item": _values(file),
                "ConditionExpression": "attribute_not_exists(programme)",
            }
            reasons = self._transact({"Update": update}, naming, {"Put": put})
            if not reasons:
                started = self.get(export.programme, export.number)
                self._changed(started)
                return started
            if reasons[0] == "ConditionalCheckFailed":
                break
            # An upload was just being attached, or another file of the programme named; or a file of long ago bore
            # the name, which the cursor has forgotten.
            taken += reasons[2] == "ConditionalCheckFailed"
            _pause(again)
        raise LedgerConflict(export.export_id)

    def _name(
        self, programme: str, name: Callable[[datetime, int], tuple[str, str]], taken: int
    ) -> tuple[Item, str, str]:
        """Make the next file name of a programme but so many, and the transaction's item that uses it up."""
        cursor = self._cursor(programme)
        moment = self._clock() + timedelta(seconds=taken)
        used = cursor.get("named_at")
        if used:
            # File names may hold the time to the second: no two of a programme in the same one.
            moment = max(moment, datetime.fromisoformat(used) + timedelta(seconds=1))
        day = moment.astimezone(_LONDON).date().isoformat()
        sequence = (int(cursor.get("named", 0)) + 1 if cursor.get("named_on") == day else 1) + taken
        values = {":day": day, ":sequence": sequence, ":moment": moment.isoformat()}
        naming = {
            "Update": {
                "TableName": self._table,
                "Key": _key(programme, 0),
                "UpdateExpression": "SET named_on = :day, named = :sequence, named_at = :moment",
                "ConditionExpression": "named_at = :used" if used else "attribute_not_exists(named_at)",
                "ExpressionAttributeValues": _values(values | ({":used": used} if used else {})),
            }
        }
        return naming, *name(moment, sequence)

    def lease(self, export: DPSExport, holder: str, until: datetime) -> DPSExport | None:
        """Take the right to send a pending export; None where another run has it."""
        update = self._update(
            export,
            Status.PENDING,
            {"lease": {"holder": holder, "until": _stamp(until)}},
            (),
            "(attribute_not_exists(lease) OR lease.#until < :now)",
            {},
        )
        update["ExpressionAttributeNames"]["#until"] = "until"
        try:
            return self._write(update)
        except LedgerConflict:
            return None

    def release(self, export: DPSExport, *, error: Mapping[str, str] | None = None) -> DPSExport:
        """Give the lease back; the export stays pending and the next run goes on with it, where this one stopped."""
        changes: Item = {"parts_sent": export.parts_sent}
        if error:
            changes["error"] = dict(error)
        return self._held(export, Status.PENDING, changes, remove=("lease",))

    def note(self, export: DPSExport, error: Mapping[str, str]) -> DPSExport:
        """Write down what is wrong, keeping the lease until it runs out."""
        return self._held(export, Status.PENDING, {"error": dict(error)})

    def begin_sending(self, export: DPSExport, parts: int) -> DPSExport:
        """Write down that the first part is about to go: from here on MESH may have this attempt."""
        return self._held(export, Status.PENDING, {"parts": parts, "sending_at": self._now()})

    def sent(self, export: DPSExport, message_id: str, parts_sent: int) -> DPSExport:
        """Write down the message's id and how many parts MESH has taken."""
        return self._held(export, Status.PENDING, {"message_id": message_id, "parts_sent": parts_sent})

    def accept(self, export: DPSExport, message_id: str) -> DPSExport:
        """Move to accepted: MESH has taken every part."""
        now = self._now()
        changes = {"message_id": message_id, "parts_sent": export.parts, "sent_at": now}
        if not export.accepted_at:
            changes["accepted_at"] = now
        return self._held(export, Status.ACCEPTED, changes, remove=("lease", "error"))

    def fail(self, export: DPSExport, error: Mapping[str, str]) -> DPSExport:
        """Move to failed: MESH refused it."""
        return self._held(export, Status.FAILED, {"error": dict(error)}, remove=("lease",))

    def doubt(self, export: DPSExport, error: Mapping[str, str]) -> DPSExport:
        """Move to unclear: nobody but a person can tell whether it was sent."""
        return self._held(export, Status.UNCLEAR, {"error": dict(error)}, remove=("lease",))

    # -- hearing back

    def acknowledge(self, export: DPSExport) -> DPSExport:
        """Move to acknowledged: DPS has picked the file up."""
        return self._answered(export, Status.ACKNOWLEDGED, {"acknowledged_at": self._now()})

    def undeliver(self, export: DPSExport, error: Mapping[str, str]) -> DPSExport:
        """Move to undelivered: this attempt's message did not reach DPS."""
        return self._answered(export, Status.UNDELIVERED, {"error": dict(error)})

    def _answered(self, export: DPSExport, to: Status, changes: Item) -> DPSExport:
        # The answer concerns one message; another attempt may be under way by now.
        condition, values = "message_id = :about", {":about": export.message_id}
        return self._write(self._update(export, to, changes, (), condition, values), moved=True)

    # -- what DPS answers

    def receive(self, export: DPSExport) -> DPSExport:
        """Note that DPS has taken this attempt's file as a whole."""
        return self._processed(export, Processing.RECEIVED, {"received_at": self._now()})

    def refuse(self, export: DPSExport, code: str) -> DPSExport:
        """Note that DPS has refused this attempt's file as a whole."""
        return self._processed(export, Processing.REFUSED, {"received_at": self._now(), "refusal": code})

    def process(self, export: DPSExport, *, taken: int, refused: int) -> DPSExport:
        """Note that DPS has processed this attempt's file, and how many of its rows it took."""
        changes = {"processed_at": self._now(), "taken": taken, "refused": refused}
        return self._processed(export, Processing.PROCESSED, changes)

    def _processed(self, export: DPSExport, to: Processing, changes: Item) -> DPSExport:
        if (export.processing, to) not in PROCESSING:
            raise ImpossibleTransition(f"{export.export_id}: {export.processing or 'not answered'} to {to}")
        condition, values = _unchanged("processing", export.processing)
        return self._write(self._note(export, changes | {"processing": to}, condition, values), moved=True)

    def answered_earlier(self, export: DPSExport, attempt: int, to: Processing) -> None:
        """Note what DPS has answered to an earlier attempt, where that is possible and not known yet."""
        for index, earlier in enumerate(export.earlier):
            before = Processing(earlier["processing"]) if earlier.get("processing") else None
            if earlier["attempt"] == attempt and (before, to) in PROCESSING:
                path = f"earlier[{index}].processing"
                condition, values = _unchanged(path, before)
                update = self._note(export, {}, condition, values | {":to": to})
                self._write(update | {"UpdateExpression": f"SET {path} = :to"})

    def _note(self, export: DPSExport, changes: Item, condition: str, values: Item) -> Item:
        """Make an UpdateItem that notes facts of this attempt beside its state, which stays as it is."""
        return {
            "TableName": self._table,
            "Key": _key(export.programme, export.number),
            "UpdateExpression": f"SET {', '.join(f'{name} = :{name}' for name in changes)}",
            "ConditionExpression": f"attempt = :attempt AND {condition}",
            "ExpressionAttributeValues": _values(
                {f":{name}": value for name, value in changes.items()} | values | {":attempt": export.attempt}
            ),
        }

    # -- writing

    def _held(self, export: DPSExport, to: Status, changes: Item, remove: tuple[str, ...] = ()) -> DPSExport:
        """Write as the holder of the lease.

        Raises
        ------
        LeaseLost
            The lease is another's by now, or nobody's.
        """
        if export.lease is None:
            raise LeaseLost(export.export_id)
        update = self._update(export, to, changes, remove, "lease.holder = :holder", {":holder": export.lease.holder})
        try:
            return self._write(update, moved=to is not export.status)
        except LedgerConflict:
            raise LeaseLost(export.export_id) from None

    def _update(
        self,
        export: DPSExport,
        to: Status,
        changes: Item,
        remove: tuple[str, ...],
        condition: str,
        values: Item,
    ) -> Item:
        """Make an UpdateItem that moves an export to a state, only from the state it was read in.

        Raises
        ------
        ImpossibleTransition
            `TRANSITIONS` has no such transition. Staying in a state is none.
        """
        if to is not export.status and (export.status, to) not in TRANSITIONS:
            raise ImpossibleTransition(f"{export.export_id}: {export.status} to {to}")
        changes = {**changes, "status": to, "updated_at": self._now()}
        sets = ", ".join(f"#{name} = :{name}" for name in changes)
        removes = f" REMOVE {', '.join(f'#{name}' for name in remove)}" if remove else ""
        values = {
            **{f":{name}": value for name, value in changes.items()},
            **values,
            ":from": export.status,
        }
        if ":now" in condition:
            values[":now"] = self._now()
        return {
            "TableName": self._table,
            "Key": _key(export.programme, export.number),
            "UpdateExpression": f"SET {sets}{removes}",
            "ConditionExpression": f"#status = :from AND {condition}",
            "ExpressionAttributeNames": {f"#{name}": name for name in (*changes, *remove)},
            "ExpressionAttributeValues": _values(values),
        }

    def _write(self, update: Item, *, moved: bool = False) -> DPSExport:
        try:
            answer = self._dynamodb.update_item(**update, ReturnValues="ALL_NEW")
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            raise LedgerConflict("the export was changed by somebody else") from None
        written = DPSExport.from_item(answer["Attributes"])
        if moved:
            self._changed(written)
        return written

    def _transact(self, *items: Any) -> list[str]:
        """Write all or nothing; return the reasons, one an item, where it was nothing."""
        try:
            self._dynamodb.transact_write_items(TransactItems=items)
        except self._dynamodb.exceptions.TransactionCanceledException as error:
            return [reason.get("Code", "None") for reason in error.response["CancellationReasons"]]
        return []

    def _cursor(self, programme: str) -> Item:
        answer = self._dynamodb.get_item(TableName=self._table, Key=_key(programme, 0), ConsistentRead=True)
        return _plain(answer.get("Item", {}))

    def _now(self) -> str:
        return _stamp(self._clock())


def _pause(again: int) -> None:
    """Let the other party of a transaction conflict finish."""
    time.sleep(random.uniform(0, min(0.02 * 2**again, 1)))  # noqa: S311 - jitter, not a secret


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _unchanged(path: str, before: StrEnum | None) -> tuple[str, Item]:
    """Make the condition that an attribute is still what it was when it was read."""
    return (f"{path} = :before", {":before": before}) if before else (f"attribute_not_exists({path})", {})


def _stem(filename: str) -> str:
    """Return what the names of the answers to a file begin with, in lower case: DPS compares names so."""
    return (filename.rpartition(".")[0] or filename).lower()


def _file_key(stem: str) -> Item:
    return _key(f"file#{stem.lower()}", 0)


def _key(programme: str, number: int) -> Item:
    return {"programme": {"S": programme}, "number": {"N": str(number)}}


_serialise = TypeSerializer().serialize
_deserialise = TypeDeserializer().deserialize


def _values(values: Mapping[str, Any]) -> Item:
    return {name: _serialise(str(value) if isinstance(value, StrEnum) else value) for name, value in values.items()}


def _plain(item: Mapping[str, Any]) -> Item:
    return {name: _integers(_deserialise(value)) for name, value in item.items()}


def _integers(value: Any) -> Any:
    """Turn the Decimals of DynamoDB, all of them whole numbers here, into ints."""
    match value:
        case Decimal():
            return int(value)
        case list():
            return [_integers(element) for element in value]
        case dict():
            return {name: _integers(element) for name, element in value.items()}
    return value
