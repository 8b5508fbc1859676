"""The register: which vaccination record was taken in, at which version, in the table VaccinationRecords.

Nothing personal is in it: identifiers, digests and counts only. Three kinds of items share the table:

- a **record**, keyed by its UUID: the digest of what was last stated about it, the batch and line that holds it,
  the action it has there (`Entry`), and what DPS made of it where it refused it (`Refused`). The index by-refusal
  (programme, refused_at) holds the ids of those it refused;
- an **intake**, ``batch#{batch id}``: written once every batch object of an upload is in S3, and before the first
  record is registered. From then on the upload's batch objects are a write-ahead log: whoever finds an intake that
  is not finished finishes it (`Intake`);
- ``unfinished``: the ids of such intakes.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from itertools import batched
from typing import TYPE_CHECKING, Any, Self

import orjson
from boto3.dynamodb.types import TypeDeserializer

from vaccinations.prefetch import ahead

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    from vaccinations.formats.acknowledgements import Outcome

    type Item = dict[str, Any]

__all__ = ["WITHDRAWN", "Entry", "Intake", "Refused", "Register"]

#: Stands for the digest of a record that was withdrawn.
WITHDRAWN = "withdrawn"

#: BatchGetItem's and BatchWriteItem's own limits.
_READ, _WRITE = 100, 25
#: TransactWriteItems' own limit.
_TRANSACTED = 100
#: So many of these are under way at once.
_AT_ONCE = 8
_UNFINISHED = {"record_id": {"S": "unfinished"}}


@dataclass(frozen=True, slots=True)
class Refused:
    """What DPS made of a version of a record that it did not take. Why in words is in the answer only.

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
        Key of the programme it was taken in under.
    digest
        Of what was last stated about it, or `WITHDRAWN`.
    action
        ``new``, ``update`` or ``delete``: how it went, or will go, to DPS last.
    batch_id, line
        The batch that holds this version, and the upload's line it came from.
    held
        Whether DPS holds the record, in whichever version, as far as is known: it is taken to hold what was sent,
        until it says otherwise.
    refused
        What DPS made of this version where it did not take it.
    """

    record_id: str
    programme: str
    digest: str
    action: str
    batch_id: str
    line: int
    held: bool = True
    refused: Refused | None = None

    @classmethod
    def of_line(cls, line: bytes, batch_id: str) -> Self:
        """Make the entry of the version that a line of a batch holds."""
        record = orjson.loads(line)
        return cls(
            record_id=record["uuid"],
            programme=record["programme"],
            digest=record["digest"],
            action=record["action"],
            batch_id=batch_id,
            line=record["line"],
            held=record.get("held", True),
        )

    @property
    def version(self) -> tuple[str, int]:
        """What tells this version from others of the record."""
        return self.batch_id, self.line

    @property
    def withdrawn(self) -> bool:
        """Whether the record was last withdrawn."""
        return self.digest == WITHDRAWN


@dataclass(frozen=True, slots=True)
class Intake:
    """How far an upload has got.

    Attributes
    ----------
    batches
        How many rows each programme's batch holds.
    attached
        The number of the export each programme's batch is in.
    """

    batch_id: str
    batches: Mapping[str, int]
    attached: Mapping[str, int]
    finished: bool


class Register:
    """Reading and writing the register.

    Parameters
    ----------
    dynamodb
        A boto3 client.
    table
        Name of the VaccinationRecords table.
    """

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def get(self, record_ids: Iterable[str]) -> dict[str, Entry]:
        """Return what is known of the records, by record id; those never taken in are left out."""
        reads = ahead(self._read, _chunks(sorted(set(record_ids)), _READ), depth=_AT_ONCE)
        return {entry.record_id: entry for entries in reads for entry in entries}

    def put(self, entries: Iterable[Entry]) -> None:
        """Write entries; where a record comes twice, the later one counts. On return, all of them are written."""
        latest = {entry.record_id: entry for entry in entries}
        for _ in ahead(self._write, _chunks(list(latest.values()), _WRITE), depth=_AT_ONCE):
            pass

    def refuse(self, entries: Iterable[Entry]) -> None:
        """Note what DPS made of versions that it did not take: ``held`` and ``refused`` of each entry.

        Only where the record still is at that version; one that was corrected since is left alone. What is noted
        already costs no write, so that a run which is begun again soon is where the last one stopped.
        """
        for _ in ahead(self._refuse, batched(entries, _TRANSACTED), depth=_AT_ONCE):
            pass

    def _refuse(self, entries: Sequence[Entry]) -> None:
        known = {entry.record_id: entry for entry in self._read(sorted({entry.record_id for entry in entries}))}
        updates = [
            self._refusing(entry, entry.refused)
            for entry in entries
            if entry.refused
            and entry.record_id in known
            and known[entry.record_id].version == entry.version
            and known[entry.record_id].refused is None
        ]
        for again in _until_done():
            if not updates:
                break
            # A hundred at once cost a tenth of the time that single ones do. Where one record has moved on meanwhile
            # it is left out.
            try:
                self._dynamodb.transact_write_items(TransactItems=updates)
                break
            except self._dynamodb.exceptions.TransactionCanceledException as error:
                reasons = [reason.get("Code") for reason in error.response["CancellationReasons"]]
            updates = [
                update for update, reason in zip(updates, reasons, strict=True) if reason != "ConditionalCheckFailed"
            ]
            _pause(again)

    def _refusing(self, entry: Entry, refused: Refused) -> Any:
        values = {
            ":refused": {"M": _refused_item(refused)},
            ":at": {"S": refused.at},
            ":held": {"BOOL": entry.held},
            ":batch_id": {"S": entry.batch_id},
            ":line": {"N": str(entry.line)},
        }
        return {
            "Update": {
                "TableName": self._table,
                "Key": {"record_id": {"S": entry.record_id}},
                "UpdateExpression": "SET refused = :refused, refused_at = :at, held = :held",
                "ConditionExpression": "batch_id = :batch_id AND line = :line",
                "ExpressionAttributeValues": values,
            }
        }

    def refused(self, programme: str, since: str = "") -> Iterator[Entry]:
        """Iterate over a programme's records whose last version DPS did not take, longest ago first.

        They are found in an index, which may be a moment behind.

        Parameters
        ----------
        since
            Only those whose answer was collected then or later (ISO 8601, UTC, or the beginning of it).
        """
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="by-refusal",
            KeyConditionExpression="programme = :programme AND refused_at >= :since",
            ExpressionAttributeValues={":programme": {"S": programme}, ":since": {"S": since or "0"}},
        )
        for page in pages:
            ids = [item["record_id"]["S"] for item in page["Items"]]
            known = self.get(ids)
            yield from (known[i] for i in ids if i in known and known[i].refused)

    def _read(self, record_ids: Sequence[str]) -> list[Entry]:
        entries: list[Entry] = []
        keys = [{"record_id": {"S": record_id}} for record_id in record_ids]
        request: Item = {self._table: {"Keys": keys, "ConsistentRead": True}}
        for again in _until_done():
            answer = self._dynamodb.batch_get_item(RequestItems=request)
            entries += map(_entry, answer["Responses"].get(self._table, ()))
            request = dict(answer.get("UnprocessedKeys", {}))
            if not request:
                break
            _pause(again)
        return entries

    def _write(self, entries: Sequence[Entry]) -> None:
        request: Item = {self._table: [{"PutRequest": {"Item": _item(entry)}} for entry in entries]}
        for again in _until_done():
            request = dict(self._dynamodb.batch_write_item(RequestItems=request).get("UnprocessedItems", {}))
            if not request:
                break
            _pause(again)

    # -- intakes

    def intake(self, batch_id: str) -> Intake | None:
        """Return how far an upload has got; None where its batches are not complete yet."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=_intake_key(batch_id), ConsistentRead=True)
        return _intake(batch_id, answer["Item"]) if "Item" in answer else None

    def unfinished(self) -> list[str]:
        """Return the batch ids of the intakes that are not finished."""
        answer = self._dynamodb.get_item(TableName=self._table, Key=_UNFINISHED, ConsistentRead=True)
        return sorted(answer.get("Item", {}).get("batch_ids", {}).get("SS", ()))

    def begin(self, batch_id: str, batches: Mapping[str, int]) -> Intake:
        """Write down that an upload's batch objects are complete; they will now be registered and attached."""
        item = {
            **_intake_key(batch_id),
            "batches": {"M": {programme: {"N": str(rows)} for programme, rows in batches.items()}},
            "attached": {"M": {}},
            "finished": {"BOOL": False},
        }
        self._dynamodb.transact_write_items(
            TransactItems=[
                {
                    "Put": {
                        "TableName": self._table,
                        "Item": item,
                        "ConditionExpression": "attribute_not_exists(record_id)",
                    }
                },
                self._unfinished("ADD", batch_id),
            ]
        )
        return _intake(batch_id, item)

    def attaching(self, batch_id: str, programme: str, number: int) -> Item:
        """Make the transaction's item that marks a programme's batch as attached, only where it is not yet."""
        return {
            "Update": {
                "TableName": self._table,
                "Key": _intake_key(batch_id),
                "UpdateExpression": "SET attached.#programme = :number",
                "ConditionExpression": "attribute_exists(record_id) AND attribute_not_exists(attached.#programme)",
                "ExpressionAttributeNames": {"#programme": programme},
                "ExpressionAttributeValues": {":number": {"N": str(number)}},
            }
        }

    def finish(self, batch_id: str) -> None:
        """Write down that everything about an upload is done, its receipt included."""
        self._dynamodb.transact_write_items(
            TransactItems=[
                {
                    "Update": {
                        "TableName": self._table,
                        "Key": _intake_key(batch_id),
                        "UpdateExpression": "SET finished = :yes",
                        "ConditionExpression": "attribute_exists(record_id)",
                        "ExpressionAttributeValues": {":yes": {"BOOL": True}},
                    }
                },
                self._unfinished("DELETE", batch_id),
            ]
        )

    def _unfinished(self, verb: str, batch_id: str) -> Any:
        return {
            "Update": {
                "TableName": self._table,
                "Key": _UNFINISHED,
                "UpdateExpression": f"{verb} batch_ids :batch_id",
                "ExpressionAttributeValues": {":batch_id": {"SS": [batch_id]}},
            }
        }


_deserialise = TypeDeserializer().deserialize


def _intake_key(batch_id: str) -> Item:
    return {"record_id": {"S": f"batch#{batch_id}"}}


def _intake(batch_id: str, item: Item) -> Intake:
    return Intake(
        batch_id=batch_id,
        batches={programme: int(rows) for programme, rows in _deserialise(item["batches"]).items()},
        attached={programme: int(number) for programme, number in _deserialise(item["attached"]).items()},
        finished=item["finished"]["BOOL"],
    )


def _entry(item: Mapping[str, Any]) -> Entry:
    return Entry(
        record_id=item["record_id"]["S"],
        programme=item["programme"]["S"],
        digest=item["digest"]["S"],
        action=item["action"]["S"],
        batch_id=item["batch_id"]["S"],
        line=int(item["line"]["N"]),
        held=item["held"]["BOOL"] if "held" in item else True,
        refused=_refused(_deserialise(item["refused"])) if "refused" in item else None,
    )


def _refused(found: Mapping[str, Any]) -> Refused:
    from vaccinations.formats.acknowledgements import (
        Outcome,  # few records are refused, and most functions never see one
    )

    return Refused(Outcome(found["outcome"]), found["at"], found["export_id"], int(found["row"]), found["answer"])


def _refused_item(refused: Refused) -> Item:
    return {
        "outcome": {"S": refused.outcome},
        "at": {"S": refused.at},
        "export_id": {"S": refused.export_id},
        "row": {"N": str(refused.row)},
        "answer": {"S": refused.answer},
    }


def _item(entry: Entry) -> Item:
    # Most are held, and take no room for saying so.
    return ({} if entry.held else {"held": {"BOOL": False}}) | {
        "record_id": {"S": entry.record_id},
        "programme": {"S": entry.programme},
        "digest": {"S": entry.digest},
        "action": {"S": entry.action},
        "batch_id": {"S": entry.batch_id},
        "line": {"N": str(entry.line)},
    }


def _chunks[T](sequence: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    for start in range(0, len(sequence), size):
        yield sequence[start : start + size]


def _until_done() -> Iterator[int]:
    """Count the rounds in which DynamoDB may leave items unprocessed.

    Raises
    ------
    TimeoutError
        Items are left after the last round: the table is throttled, and the run begins again later.
    """
    yield from range(12)
    raise TimeoutError("DynamoDB leaves items of the register unprocessed; the run goes on with them later")


def _pause(again: int) -> None:
    time.sleep(random.uniform(0, min(0.05 * 2**again, 5)))  # noqa: S311 - jitter, not a secret
