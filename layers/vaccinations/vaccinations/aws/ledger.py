"""The ledger: each DPSExport and the state that it is in, in the DynamoDB table DpsExports.

Key: programme (S) and number (N), counted from 1. Item ``number = 0`` is the programme's cursor: which export is open
and which file names of the day are used up. An item ``file#{name}`` tells which attempt at which export bore a file
name, so that what DPS answers is found with one read.

An export changes only through `vaccinations.model.lifecycle`. Each write takes place only where nobody else has written
since the export was read, which its revision tells, and bears a token of its own: where DynamoDB's answer is lost and
boto3 repeats the write, the failed condition of the second finds the token of the first, and that is success.
"""

from __future__ import annotations

import uuid
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from vaccinations.aws.backoff import tries
from vaccinations.aws.expressions import (
    CONDITION_FAILED,
    deserialise,
    equals,
    not_exists,
    put,
    serialise,
    shorter,
    transact,
    update,
)
from vaccinations.aws.register import attaching
from vaccinations.formats.dps_names import next_place
from vaccinations.model.export import (
    Arrival,
    Asked,
    Attempt,
    DPSExport,
    Failure,
    FileNames,
    Lease,
    Phase,
    Processing,
    Status,
)
from vaccinations.ports import LedgerConflict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    type Item = dict[str, Any]
    type Name = Callable[[datetime, int], FileNames]

__all__ = ["Ledger"]

#: MESH takes no longer file names.
_LONGEST_NAME = 300
#: An export gathers at most this many batches, so that its item stays far below DynamoDB's 400 KB.
MAX_BATCHES = 2_000
_TRIES = partial(tries, 50, first=0.02, longest=1.0)


class Ledger:
    """Reading and changing exports: `vaccinations.ports.Ledger` on DynamoDB.

    Parameters
    ----------
    dynamodb
        A boto3 client.
    table, records_table
        Names of the tables DpsExports and VaccinationRecords; the second holds the intakes that batches are of.
    changed
        Is told of each export that has come into another state, or that DPS has answered, once that is written.
    clock
        Tells the time, with its offset.
    """

    def __init__(
        self,
        dynamodb: DynamoDBClient,
        table: str,
        records_table: str = "",
        *,
        changed: Callable[[DPSExport], None] = lambda _: None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._dynamodb = dynamodb
        self._table = table
        self._records_table = records_table
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
        item = self._item(programme, number) if number > 0 else {}
        if not item:
            raise KeyError(f"{programme}-{number}")
        return _read(DPSExport, item)

    def exports(self, programme: str) -> Iterator[DPSExport]:
        """Iterate over a programme's exports, oldest first, without their batches, as they are now."""
        yield from self._query(
            ConsistentRead=True,
            KeyConditionExpression="programme = :programme AND #number > :cursor",
            ExpressionAttributeValues=serialise({":programme": programme, ":cursor": 0}),
        )

    def latest(self, programme: str, limit: int) -> Iterator[DPSExport]:
        """Iterate over a programme's last so many exports, newest first, without their batches."""
        yield from self._query(
            ScanIndexForward=False,
            KeyConditionExpression="programme = :programme AND #number > :cursor",
            ExpressionAttributeValues=serialise({":programme": programme, ":cursor": 0}),
            PaginationConfig={"MaxItems": limit, "PageSize": limit},
        )

    def by_status(self, status: Status, since: datetime | None = None) -> Iterator[DPSExport]:
        """Iterate over every programme's exports in a state, longest in it first (from the index: not the latest).

        Parameters
        ----------
        since
            Only those that came into it, or got further in it, since then.
        """
        yield from self._query(
            IndexName="by-status",
            KeyConditionExpression="#status = :status AND #updated_at >= :since",
            ExpressionAttributeValues=serialise({":status": status, ":since": _stamp(since) if since else "0"}),
        )

    def find(self, stem: str) -> tuple[DPSExport, int] | None:
        """Find the export and the number of the attempt that bore a file name on MESH; None where there is none.

        Parameters
        ----------
        stem
            The name without its extension, in any case.
        """
        if len(stem) > _LONGEST_NAME:
            return None
        file = self._item(f"file#{stem.lower()}", 0)
        if not file:
            return None
        try:
            return self.get(file["of"], file["export"]), file["attempt"]
        except KeyError:  # it was forgotten: mesh export reset
            return None

    def _query(self, **query: Any) -> Iterator[DPSExport]:
        names = {f"#{f.name}": f.name for f in fields(DPSExport) if f.name != "batches"}
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            ProjectionExpression=", ".join(names),
            ExpressionAttributeNames=names,
            **query,
        )
        for page in pages:
            yield from (_read(DPSExport, deserialise(item)) for item in page["Items"])

    def _item(self, programme: str, number: int) -> Item:
        key = serialise(_key(programme, number))
        answer = self._dynamodb.get_item(TableName=self._table, Key=key, ConsistentRead=True)
        return deserialise(answer.get("Item", {}))

    # -- gathering

    def attach(self, programme: str, batch_id: str, records: int) -> int | None:
        """Attach a batch to the programme's open export, opening one where there is none; mark that in its intake.

        Intake and export change in one transaction: a batch is in exactly one export, whatever dies when.

        Parameters
        ----------
        records
            How many rows the batch adds.

        Returns
        -------
        int | None
            The export's number; None where the batch was attached before.

        Raises
        ------
        LedgerConflict
            Others were always faster.
        """
        for _ in _TRIES():
            number = int(self._item(programme, 0).get("open", 0))
            reasons = [CONDITION_FAILED] * 2
            if number:
                addition = {"Update": self._addition(programme, number, batch_id, records)}
                reasons = self._transact(attaching(self._records_table, batch_id, programme, number), addition)
                if not reasons:
                    return number
            if number and reasons[0] == CONDITION_FAILED:
                return None
            if reasons[1] == CONDITION_FAILED:
                # There is no open export, or it was sealed or filled up meanwhile: open the next.
                number += 1
                opening = self._opening(programme, number, (batch_id,), records)
                reasons = self._transact(attaching(self._records_table, batch_id, programme, number), *opening)
                if not reasons:
                    return number
                if reasons[0] == CONDITION_FAILED:
                    return None
        raise LedgerConflict(f"no open export of {programme} could be had; try again")

    def _addition(self, programme: str, number: int, batch_id: str, records: int) -> Item:
        addition: Item = update(
            self._table,
            _key(programme, number),
            sets={"updated_at": _stamp(self._clock())},
            appends={"batches": [batch_id]},
            adds={"records": records, "revision": 1},
            conditions=[equals("status", Status.OPEN), shorter("batches", MAX_BATCHES)],
        )
        return addition

    def _opening(self, programme: str, number: int, batches: tuple[str, ...], records: int) -> tuple[Item, Item]:
        now = self._clock()
        export = DPSExport(
            programme=programme,
            number=number,
            status=Status.OPEN,
            records=records,
            created_at=now,
            updated_at=now,
            batches=batches,
        )
        cursor = self._item(programme, 0)
        before = equals("open", cursor["open"]) if "open" in cursor else not_exists("open")
        moved = update(self._table, _key(programme, 0), sets={"open": number}, conditions=[before])
        return {"Put": put(self._table, _stored(export), conditions=[not_exists("programme")])}, {"Update": moved}

    def reset(self, programme: str) -> int:
        """Forget a programme's exports and gather all their batches in a new open one; for tests.

        Numbers go on, so that no local id is used twice. Returns the open export's number. Dying on the way leaves
        exports behind that are also in the new one: only where sending twice does no harm.
        """
        found = [self.get(programme, export.number) for export in self.exports(programme)]
        number = int(self._item(programme, 0).get("open", 0)) + 1
        batches = tuple(batch_id for export in found for batch_id in export.batches)
        opening = self._opening(programme, number, batches, sum(export.records for export in found))
        if reasons := self._transact(*opening):
            raise LedgerConflict(f"{programme} is being worked on ({reasons[0]}); try again")
        for export in found:
            self._dynamodb.delete_item(TableName=self._table, Key=serialise(_key(programme, export.number)))
        return number

    # -- after the table was put back to an earlier moment

    def highest(self, programme: str) -> int:
        """Return the highest number that a programme has used, or has passed over; 0 where it has none."""
        return int(self._item(programme, 0).get("open", 0))

    def put_back(self, programme: str, changes: Sequence[tuple[DPSExport | None, DPSExport]], highest: int) -> None:
        """Write exports of a programme, and which attempts bore their file names; pass over numbers: all, or nothing.

        Parameters
        ----------
        changes
            Each export as it was read, None where it is not there, and as it is from now on.
        highest
            The next export that gathers batches has a higher number.

        Raises
        ------
        LedgerConflict
            Somebody else has written meanwhile.
        """
        cursor = self._item(programme, 0)
        items: list[Item] = []
        if highest > cursor.get("open", 0):
            before = equals("open", cursor["open"]) if "open" in cursor else not_exists("open")
            moved = update(self._table, _key(programme, 0), sets={"open": highest}, conditions=[before])
            items.append({"Update": moved})
        for known, changed in changes:
            if known:
                items.append({"Update": self._difference(known, changed)})
            else:
                items.append({"Put": put(self._table, _stored(changed), conditions=[not_exists("programme")])})
            items += [{"Put": put(self._table, self._bore(changed, *named))} for named in enumerate(changed.names, 1)]
        if items and (reasons := self._transact(*items)):
            raise LedgerConflict(f"{programme} is being worked on ({', '.join(reasons)}); try again")

    # -- changing

    def change(self, export: DPSExport, how: Callable[[DPSExport], DPSExport]) -> DPSExport:
        """Change an export, whatever others do to it meanwhile.

        Parameters
        ----------
        how
            Makes the changed export from the present one. Where somebody else has written first it is asked again, with
            what they wrote; what it raises is raised, and nothing is written.

        Raises
        ------
        LedgerConflict
            Others were always faster.
        """
        for _ in _TRIES():
            changed = how(export)
            if changed == export:
                return export
            if written := self._write(export, changed):
                self._tell(export, written)
                return written
            export = self.get(export.programme, export.number)
        raise LedgerConflict(export.export_id)

    def begin_attempt(
        self, export: DPSExport, how: Callable[[DPSExport, FileNames], DPSExport], name: Name
    ) -> DPSExport:
        """Change an export so that it has another attempt, and use up a file name for it: both, or neither.

        Parameters
        ----------
        how
            As in `change`, with the attempt's names.
        name
            Makes the names from a moment and a sequence number: 1 for the programme's first file on that day.

        Raises
        ------
        LedgerConflict
            Others were always faster.
        """
        taken = 0
        for _ in _TRIES():
            naming, names = self._name(export.programme, name, taken)
            changed = how(export, names)
            # boto3 gives each transaction a token, by which DynamoDB knows one that is repeated.
            reasons = self._transact(
                {"Update": self._difference(export, changed)}, naming, {"Put": self._file(changed, names)}
            )
            if not reasons:
                written = self.get(export.programme, export.number)
                self._tell(export, written)
                return written
            if reasons[0] == CONDITION_FAILED:  # an upload was just being attached, or another run was faster
                export = self.get(export.programme, export.number)
            # Another file of the programme was just being named; or a file of long ago bore the name, which the cursor
            # has forgotten.
            taken += reasons[2] == CONDITION_FAILED
        raise LedgerConflict(export.export_id)

    def _name(self, programme: str, name: Name, taken: int) -> tuple[Item, FileNames]:
        """Make the next file name of a programme but so many, and the transaction's item that uses it up."""
        cursor = self._item(programme, 0)
        used = cursor.get("named_at")
        last = datetime.fromisoformat(used) if used else None
        now = self._clock() + timedelta(seconds=taken)
        moment, sequence = next_place(now, last, int(cursor.get("named", 0)))
        sequence += taken
        naming = update(
            self._table,
            _key(programme, 0),
            sets={"named": sequence, "named_at": moment.isoformat()},
            conditions=[equals("named_at", used) if used else not_exists("named_at")],
        )
        return {"Update": naming}, name(moment, sequence)

    def _file(self, export: DPSExport, names: FileNames) -> Item:
        bore = self._bore(export, len(export.attempts), names)
        file: Item = put(self._table, bore, conditions=[not_exists("programme")])
        return file

    @staticmethod
    def _bore(export: DPSExport, attempt: int, names: FileNames) -> Item:
        """Make the item that tells which attempt bore a file name."""
        # The names of DPS's answers begin with the file's, without its extension.
        stem = (names.mesh_filename.rpartition(".")[0] or names.mesh_filename).lower()
        return _key(f"file#{stem}", 0) | {"of": export.programme, "export": export.number, "attempt": attempt}

    def _write(self, export: DPSExport, changed: DPSExport) -> DPSExport | None:
        """Write a change; None where somebody else has written first."""
        difference = self._difference(export, changed, token := uuid.uuid4().hex)
        try:
            answer = self._dynamodb.update_item(**difference, ReturnValues="ALL_NEW")
        except self._dynamodb.exceptions.ConditionalCheckFailedException:
            item = self._item(export.programme, export.number)
            return _read(DPSExport, item) if item.get("written_by") == token else None
        return _read(DPSExport, deserialise(answer["Attributes"]))

    def _difference(self, export: DPSExport, changed: DPSExport, token: str = "") -> Item:
        """Make the update that turns an export into another, only where nobody has written since it was read."""
        before, after = _stored(export), _stored(changed)
        sets = {name: value for name, value in after.items() if before.get(name) != value}
        difference: Item = update(
            self._table,
            _key(export.programme, export.number),
            sets=sets | {"revision": export.revision + 1, "written_by": token},
            removes=[name for name in before if name not in after],
            conditions=[equals("revision", export.revision)],
        )
        return difference

    def _tell(self, before: DPSExport, now: DPSExport) -> None:
        if (before.status, before.processing, len(before.attempts)) != (now.status, now.processing, len(now.attempts)):
            self._changed(now)

    def _transact(self, *items: Item) -> list[str]:
        return transact(self._dynamodb, items)


# -- exports as items

_READERS: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "Status": Status,
    "Phase": Phase,
    "Processing": Processing,
    "Failure": lambda found: Failure(**found),
    "Lease": lambda found: _read(Lease, found),
    "Asked": lambda found: Asked(**found),
    "Arrival": lambda found: Arrival(**found),
    "tuple[str, ...]": tuple,
    "tuple[Attempt, ...]": lambda found: tuple(_read(Attempt, attempt) for attempt in found),
}


def _read[T](cls: type[T], item: Mapping[str, Any]) -> T:
    """Make a value of the model from what `_stored` made of it."""
    found = {}
    for f in fields(cls):  # type: ignore[arg-type] # a dataclass
        if f.name in item:
            reader = _READERS.get(str(f.type).removesuffix(" | None"))
            found[f.name] = reader(item[f.name]) if reader else item[f.name]
    return cls(**found)


def _stored(value: Any) -> Any:
    """Turn a value of the model into what DynamoDB holds; what is not known is left out."""
    if is_dataclass(value):
        found = {f.name: getattr(value, f.name) for f in fields(value)}
        return {name: _stored(v) for name, v in found.items() if v is not None}
    match value:
        case datetime():
            return _stamp(value)
        case tuple():
            return [_stored(element) for element in value]
    return value


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="milliseconds")


def _key(programme: str, number: int) -> dict[str, Any]:
    return {"programme": programme, "number": number}
