"""The register: which vaccination record was ingested, at which statement, in the table VaccinationRecords.

Nothing personal is in it: identifiers, digests and counts only. Four kinds of items share the table:

- a **record**, keyed by its UUID: the digest of what was last stated about it, the batch and line that hold it, the
  action that it has there, whose the record is and since when, and how old that statement is (`Entry`), and DPS's
  refusal where it refused it (`Refusal`). ``on_file`` is there only where the record is not on file at DPS, or that is
  not known; ``programme`` is not there where the record was withdrawn before it was ever stated. The index by-refusal
  (programme, refused_at) holds the ids of those that DPS refused;
- an **intake**, ``batch#{batch id}``: written once every batch object of an upload is in S3, and before the first
  record is registered. From then on the upload's batch objects are a write-ahead log: whoever finds an intake that
  is not finished finishes it (`Intake`);
- ``unfinished``: the ids of such intakes, and how many were ever begun. ``parked``: the ids of those that were given up
  and wait for a person, and for good the batches of theirs (``{programme}/{batch id}``) that were not attached and are
  never sent.
"""

from __future__ import annotations

import uuid
from functools import reduce
from itertools import batched
from typing import TYPE_CHECKING, Any

from vaccinations.aws.backoff import tries
from vaccinations.aws.expressions import (
    CONDITION_FAILED,
    above,
    all_of,
    any_of,
    below,
    deserialise,
    equals,
    exists,
    not_exists,
    put,
    serialise,
    transact,
    update,
)
from vaccinations.formats.batches import entry_document, entry_from
from vaccinations.model.entry import Entry, Intake, Place, Refusal
from vaccinations.model.outcome import Action, OnFile, Outcome
from vaccinations.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    from vaccinations.aws.expressions import Attribute, Condition, Item

__all__ = ["Register", "attaching"]

#: BatchGetItem's and BatchWriteItem's own limits.
_READ, _WRITE = 100, 25
#: TransactWriteItems' own limit.
_TRANSACTED = 100
#: So many of these are under way at once.
_AT_ONCE = 8
#: How often DynamoDB may leave items unprocessed, or a transaction be in another's way.
_TRIES = 12
_UNFINISHED = {"record_id": "unfinished"}
_PARKED = {"record_id": "parked"}
#: What tells whose a record is and how old what is known of it is.
_WHOSE = ("owner", "owned_since", "stated_at")


class Register:
    """Reading and writing the register (`vaccinations.ports.Register`).

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

    # -- records

    def get(self, record_ids: Iterable[str]) -> dict[str, Entry]:
        """Return what is known of the records, by record id; those never ingested are left out."""
        reads = prefetch(self._read, batched(sorted(set(record_ids)), _READ), depth=_AT_ONCE)
        return {entry.record_id: entry for entries in reads for entry in entries}

    def put(self, entries: Iterable[Entry]) -> None:
        """Write entries; where a record comes twice, the later one counts. On return, all of them are written."""
        latest = {entry.record_id: entry for entry in entries}
        _each(self._write, batched(latest.values(), _WRITE))

    def renew(self, entries: Iterable[Entry]) -> None:
        """Note that newer uploads say the same again, or older ones whose a record is: each entry's owner and ages.

        They are noted where the record still is at that statement, and what is known of it gives way
        (`Entry.gives_way`). One that was withdrawn before it was ever stated is written where nothing else is known of
        it. Where another statement has come since, they are noted of what was known before that, which counts again
        where the newer one is never sent. No record may come twice.
        """
        _each(self._renew, batched(entries, _TRANSACTED))

    def restate(self, entries: Iterable[Entry]) -> None:
        """Write entries of records of which nothing newer is known: after the table was put back to an earlier moment.

        Of statements as old as each other, the one that is written last counts: an upload that was parked is as old as
        the same upload ingested afresh. What is known already costs no write, so that a run which is
        begun again is soon where the last one stopped.
        """
        for chunk in batched(entries, _READ * _AT_ONCE):
            latest = {entry.record_id: entry for entry in chunk}
            known = self.get(latest)
            old = (entry for i, entry in latest.items() if i not in known or _is_overdue(known[i], entry))
            _each(self._restate, batched(old, _TRANSACTED))

    def hear(self, entries: Iterable[Entry]) -> None:
        """Note DPS's refusals, and what is lost: what `Entry.hearing` says of each entry.

        What is noted already costs no write, so that a run which is begun again soon is where the last one stopped.
        """
        _each(self._hear, batched(entries, _TRANSACTED))

    def refused(self, programme: str, since: str = "") -> Iterator[Entry]:
        """Iterate over a programme's records whose last statement DPS refused, longest ago first.

        They are found in an index, which may be a moment behind. A statement that is never sent does not count.

        Parameters
        ----------
        since
            Only those whose answer was collected then or later (ISO 8601, UTC, or the beginning of it).
        """
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            IndexName="by-refusal",
            KeyConditionExpression="programme = :programme AND refused_at >= :since",
            ExpressionAttributeValues=serialise({":programme": programme, ":since": since or "0"}),
        )
        unsent = self.unsent()
        for page in pages:
            ids = [item["record_id"]["S"] for item in page["Items"]]
            known = self.get(ids)
            counts = (known[i].counting(unsent) for i in ids if i in known)
            yield from (entry for entry in counts if entry and entry.refusal)

    def _read(self, record_ids: Sequence[str]) -> list[Entry]:
        return [*map(_entry, self._items(record_ids))]

    def _items(self, record_ids: Sequence[str]) -> list[Mapping[str, Any]]:
        items: list[Mapping[str, Any]] = []
        keys = [{"record_id": {"S": record_id}} for record_id in record_ids]
        request: Item = {self._table: {"Keys": keys, "ConsistentRead": True}}
        for _ in tries(_TRIES):
            answer = self._dynamodb.batch_get_item(RequestItems=request)
            items += answer["Responses"].get(self._table, ())
            request = dict(answer.get("UnprocessedKeys", {}))
            if not request:
                return items
        raise _throttled()

    def _write(self, entries: Sequence[Entry]) -> None:
        request: Item = {self._table: [{"PutRequest": {"Item": _item(entry)}} for entry in entries]}
        for _ in tries(_TRIES):
            request = dict(self._dynamodb.batch_write_item(RequestItems=request).get("UnprocessedItems", {}))
            if not request:
                return
        raise _throttled()

    def _hear(self, answered: Sequence[Entry]) -> None:
        waiting: dict[str, list[Entry]] = {}
        for entry in answered:
            waiting.setdefault(entry.record_id, []).append(entry)
        for _ in tries(_TRIES):
            before = self._read([*waiting])
            heard = ((known, reduce(Entry.hearing, waiting[known.record_id], known)) for known in before)
            changed = [(known, now) for known, now in heard if now != known]
            others = self._transact_each([self._hearing(known, now) for known, now in changed])
            waiting = {changed[n][0].record_id: waiting[changed[n][0].record_id] for n in others}
            if not waiting:
                return
        raise _throttled()

    def _hearing(self, known: Entry, now: Entry) -> Item:
        """Write what was heard of a record where it still is at the statement, and was at the one before."""
        sets: dict[Attribute, Any] = {}
        removes: list[Attribute] = []
        conditions = _is_at(known)
        if now.on_file is OnFile.YES is not known.on_file:
            removes = ["on_file"]
        elif now.on_file is not known.on_file:
            sets["on_file"] = now.on_file
        if now.refusal and not known.refusal:
            sets |= {"refusal": _refusal_document(now.refusal), "refused_at": now.refusal.at}
        if known.before and now.before and now.before != known.before:
            place = known.before.statement
            conditions += equals(("before", "batch_id"), place.batch_id), equals(("before", "line"), place.line)
            sets["before", "on_file"] = now.before.on_file
            if refusal := now.before.refusal:
                sets |= {("before", "refusal"): _refusal_document(refusal), "refused_at": refusal.at}
        key = {"record_id": known.record_id}
        return {"Update": update(self._table, key, sets=sets, removes=removes, conditions=conditions)}

    def _restate(self, entries: Sequence[Entry]) -> None:
        self._transact_each([{"Put": self._restating(entry)} for entry in entries])

    def _restating(self, entry: Entry) -> Item:
        conditions = (any_of(not_exists("stated_at"), _gives_way(entry), _is_as_old(entry)),)
        written: Item = put(self._table, deserialise(_item(entry)), conditions=conditions)
        return written

    def _transact_each(self, items: Sequence[Item]) -> list[int]:
        """Write each item whose condition holds; return which ones' do not. A hundred cost a tenth of single ones."""
        waiting = dict(enumerate(items))
        failed: list[int] = []
        for _ in tries(_TRIES):
            reasons = transact(self._dynamodb, [*waiting.values()]) if waiting else []
            if not reasons:
                return failed
            failed += [n for n, reason in zip(waiting, reasons, strict=True) if reason == CONDITION_FAILED]
            waiting = {n: item for n, item in waiting.items() if n not in failed}
        raise _throttled()

    def _renew(self, entries: Sequence[Entry]) -> None:
        others = self._transact_each([*map(self._renewing, entries)])
        self._transact_each([self._renewing_before(entries[n]) for n in others])

    def _renewing(self, entry: Entry) -> Item:
        if entry.unstated:
            conditions = (not_exists("programme"), any_of(not_exists("stated_at"), _gives_way(entry)))
            return {"Put": put(self._table, deserialise(_item(entry)), conditions=conditions)}
        sets: dict[Attribute, Any] = {name: getattr(entry, name) for name in _WHOSE}
        key = {"record_id": entry.record_id}
        return {"Update": update(self._table, key, sets=sets, conditions=(*_is_at(entry), _gives_way(entry)))}

    def _renewing_before(self, entry: Entry) -> Item:
        """Renew what was known before the statement that a record is at: it counts where that one is never sent."""
        gives_way = _gives_way(entry, "before")
        sets: dict[Attribute, Any] = {("before", name): getattr(entry, name) for name in _WHOSE}
        conditions = (equals(("before", "batch_id"), entry.batch_id), equals(("before", "line"), entry.line), gives_way)
        if entry.unstated:
            sets = {"before": entry_document(entry)}
            nothing = any_of(not_exists("before"), equals(("before", "programme"), ""))
            conditions = (exists("programme"), nothing, any_of(not_exists("before"), gives_way))
        return {"Update": update(self._table, {"record_id": entry.record_id}, sets=sets, conditions=conditions)}

    # -- intakes

    def intake(self, batch_id: str) -> Intake | None:
        """Return how far an upload has got; None where its batches are not complete yet."""
        found = self._get(_intake_key(batch_id))
        if "batches" not in found:
            return None
        return Intake(
            batch_id,
            found["batches"],
            found["attached"],
            found["finished"],
            len(found.get("tries", ())),
            "parked" in found,
            found["sends"],
        )

    def unfinished(self) -> list[str]:
        """Return the batch ids of the intakes that are not finished, without those that are parked."""
        return sorted(self._get(_UNFINISHED).get("batch_ids", ()))

    def parked(self) -> list[str]:
        """Return the batch ids of the intakes that are parked and wait for a person."""
        return sorted(self._get(_PARKED).get("batch_ids", ()))

    def unsent(self) -> frozenset[tuple[str, str]]:
        """Return the batches, by programme and id, of intakes that were parked before these were attached."""
        pairs = (batch.split("/", 1) for batch in self._get(_PARKED).get("unsent", ()))
        return frozenset((programme, batch_id) for programme, batch_id in pairs)

    def with_intake(self, batch_ids: Iterable[str]) -> set[str]:
        """Return those of the batch ids whose uploads have an intake."""
        keys = (f"batch#{batch_id}" for batch_id in batch_ids)
        reads = prefetch(self._items, batched(keys, _READ), depth=_AT_ONCE)
        return {item["record_id"]["S"].removeprefix("batch#") for items in reads for item in items}

    def begun(self) -> int:
        """Tell how many intakes were ever begun."""
        return int(self._get(_UNFINISHED).get("begun", 0))

    def begin(self, batch_id: str, batches: Mapping[str, int], begun: int, *, sends: bool = True) -> Intake:
        """Note that an upload's batch objects are complete; they will now be registered and attached.

        Parameters
        ----------
        begun
            How many intakes had been begun before the register was asked about the upload's records.
        sends
            Whether they are to be attached.

        Raises
        ------
        RuntimeError
            Another was begun since, this upload's own perhaps: what is known of the records may have changed.
        """
        intake = Intake(batch_id, dict(batches), {}, finished=False, sends=sends)
        before = equals("begun", begun) if begun else not_exists("begun")
        counting = update(
            self._table, _UNFINISHED, sets={"begun": begun + 1}, adds={"batch_ids": {batch_id}}, conditions=(before,)
        )
        item = {"batches": intake.batches, "attached": intake.attached, "finished": False, "sends": sends}
        self._transact(
            {"Put": put(self._table, _intake_key(batch_id) | item, conditions=(not_exists("batches"),))},
            {"Update": counting},
            failed=f"another intake was begun while {batch_id} was read; it has to be read anew",
        )
        return intake

    def put_back(self, batch_id: str, batches: Mapping[str, int], attached: Mapping[str, int]) -> None:
        """Note the intake of an upload that is no longer known, though exports have batches of it. It is parked.

        So the upload is ingested afresh, as another intake that finds registered what was sent, and no batch object
        that an export refers to is written anew.

        Parameters
        ----------
        attached
            The number of the export that each programme's batch is in.
        """
        intake = Intake(batch_id, batches, attached, finished=False)
        item = {"batches": dict(batches), "attached": dict(attached), "finished": False, "sends": True}
        absent = (not_exists("batches"),)
        self._transact(
            {"Put": put(self._table, _intake_key(batch_id) | item | {"parked": True}, conditions=absent)},
            {"Update": self._listing_parked(batch_id, intake)},
            failed=f"the intake of {batch_id} was begun meanwhile",
        )

    def mark_attached(self, batch_id: str, programme: str, number: int) -> None:
        """Mark in an intake in which export a programme's batch is."""
        marking = update(
            self._table,
            _intake_key(batch_id),
            sets={("attached", programme): number},
            conditions=(exists("batches"),),
        )
        self._dynamodb.update_item(**marking)

    def count_try(self, batch_id: str) -> int:
        """Note that an intake is about to be completed; return how often that was noted.

        It is noted of one that is not there, too: such a one has to be parked as well. Each try is an element of a set,
        so that it counts once where the answer is lost and boto3 makes the write again.
        """
        counting = update(self._table, _intake_key(batch_id), adds={"tries": {uuid.uuid4().hex}})
        answer = self._dynamodb.update_item(**counting, ReturnValues="ALL_NEW")
        return len(answer["Attributes"]["tries"]["SS"])

    def park(self, batch_id: str) -> None:
        """Give an intake up: it is no longer unfinished, and what it has not attached is never sent.

        Raises
        ------
        RuntimeError
            Another run is completing it.
        """
        intake = self.intake(batch_id)
        # What is attached meanwhile is sent, and must not count as unsent.
        unchanged = (equals("attached", dict(intake.attached)), equals("finished", False)) if intake else ()
        conditions = (*unchanged, not_exists("parked"))
        parking = update(self._table, _intake_key(batch_id), sets={"parked": True}, conditions=conditions)
        self._transact(
            {"Update": parking},
            {"Update": update(self._table, _UNFINISHED, deletes={"batch_ids": {batch_id}})},
            {"Update": self._listing_parked(batch_id, intake)},
            failed=f"the intake of {batch_id} is being completed by another run",
        )

    def _listing_parked(self, batch_id: str, intake: Intake | None) -> Item:
        """Make what lists an intake as parked, and the batches of it that are never sent."""
        adds: dict[Attribute, Any] = {"batch_ids": {batch_id}}
        if intake and intake.unattached:
            adds["unsent"] = {f"{programme}/{batch_id}" for programme in intake.unattached}
        listing: Item = update(self._table, _PARKED, adds=adds)
        return listing

    def finish(self, batch_id: str, *, parked: bool = False) -> None:
        """Note that everything about an upload is done, its receipt included; or about a parked one, by a person.

        Raises
        ------
        RuntimeError
            There is no such intake, or it is parked by now.
        """
        conditions = (exists("record_id"), *(() if parked else (not_exists("parked"),)))
        finishing = update(self._table, _intake_key(batch_id), sets={"finished": True}, conditions=conditions)
        self._transact(
            {"Update": finishing},
            {"Update": update(self._table, _UNFINISHED, deletes={"batch_ids": {batch_id}})},
            {"Update": update(self._table, _PARKED, deletes={"batch_ids": {batch_id}})},
            failed=f"there is no intake of {batch_id} to finish",
        )

    def _get(self, key: Mapping[str, Any]) -> Item:
        answer = self._dynamodb.get_item(TableName=self._table, Key=serialise(key), ConsistentRead=True)
        return deserialise(answer.get("Item", {}))

    def _transact(self, *items: Item, failed: str) -> None:
        """Write all items or none, again while other transactions are in the way."""
        for _ in tries(_TRIES):
            reasons = transact(self._dynamodb, items)
            if not reasons:
                return
            if CONDITION_FAILED in reasons:
                raise RuntimeError(failed)
        raise _throttled()


def attaching(table: str, batch_id: str, programme: str, number: int) -> Item:
    """Make a transaction's item that marks a programme's batch as attached to an export, where it is not yet.

    Parameters
    ----------
    table
        Name of the VaccinationRecords table.
    number
        The export's.
    """
    path = ("attached", programme)
    marking = update(
        table,
        _intake_key(batch_id),
        sets={path: number},
        conditions=(exists("record_id"), not_exists(path), not_exists("parked")),
    )
    return {"Update": marking}


def _each[T](work: Callable[[T], None], items: Iterable[T]) -> None:
    """Do some work on each item, several at once."""
    for _ in prefetch(work, items, depth=_AT_ONCE):
        pass


def _throttled() -> TimeoutError:
    return TimeoutError("DynamoDB leaves requests to the register undone; the run goes on with them later")


def _is_at(entry: Entry) -> tuple[Condition, ...]:
    """Make the condition that a record still is at a statement."""
    return equals("batch_id", entry.batch_id), equals("line", entry.line)


def _gives_way(entry: Entry, *within: str) -> Condition:
    """Make the condition that what is known of a record gives way to an entry (`Entry.gives_way`)."""
    since, stated_at = (*within, "owned_since"), (*within, "stated_at")
    newer = all_of(equals(since, entry.owned_since), below(stated_at, entry.stated_at))
    return any_of(above(since, entry.owned_since), newer)


def _is_as_old(entry: Entry) -> Condition:
    """Make the condition that what is known of a record is of the same owner, and as old as an entry."""
    return all_of(equals("owned_since", entry.owned_since), equals("stated_at", entry.stated_at))


def _is_overdue(known: Entry, entry: Entry) -> bool:
    """Whether what is known of a record is another statement, and none to which this one gives way."""
    return known.statement != entry.statement and not entry.gives_way(known)


def _intake_key(batch_id: str) -> Item:
    return {"record_id": f"batch#{batch_id}"}


# An upload may have a million records: their items are made and read by hand, which takes a fraction of the time.


def _entry(item: Mapping[str, Any]) -> Entry:
    return Entry(
        record_id=item["record_id"]["S"],
        programme=item["programme"]["S"] if "programme" in item else "",
        digest=item["digest"]["S"],
        action=Action(item["action"]["S"]),
        batch_id=item["batch_id"]["S"],
        line=int(item["line"]["N"]),
        owner=item["owner"]["S"],
        owned_since=item["owned_since"]["S"],
        stated_at=item["stated_at"]["S"],
        on_file=OnFile(item["on_file"]["S"]) if "on_file" in item else OnFile.YES,
        refusal=_refusal(deserialise(item["refusal"]["M"])) if "refusal" in item else None,
        before=_before(item) if "before" in item else None,
        new_in=_place(item["new_in"]) if "new_in" in item else None,
        origin=_place(item["origin"]) if "origin" in item else None,
    )


def _place(attribute: Mapping[str, Any]) -> Place:
    batch_id, line = attribute["L"]
    return Place(batch_id["S"], int(line["N"]))


def _place_item(place: Place) -> Item:
    return {"L": [{"S": place.batch_id}, {"N": str(place.line)}]}


def _item(entry: Entry) -> Item:
    item: Item = {
        "record_id": {"S": entry.record_id},
        "digest": {"S": entry.digest},
        "action": {"S": entry.action.value},
        "batch_id": {"S": entry.batch_id},
        "line": {"N": str(entry.line)},
        "owner": {"S": entry.owner},
        "owned_since": {"S": entry.owned_since},
        "stated_at": {"S": entry.stated_at},
    }
    if entry.programme:
        item["programme"] = {"S": entry.programme}
    if entry.on_file is not OnFile.YES:
        item["on_file"] = {"S": entry.on_file.value}
    if entry.new_in:
        item["new_in"] = _place_item(entry.new_in)
    if entry.origin:
        item["origin"] = _place_item(entry.origin)
    if entry.before:
        item |= serialise({"before": entry_document(entry.before)})
        if entry.before.refusal:  # it counts again where this statement is never sent
            item["refused_at"] = {"S": entry.before.refusal.at}
    return item


def _before(item: Mapping[str, Any]) -> Entry:
    return entry_from(deserialise(item["before"]["M"]), item["record_id"]["S"])


def _refusal(found: Mapping[str, Any]) -> Refusal:
    return Refusal(Outcome(found["outcome"]), found["at"], found["export_id"], found["row"], found["answer"])


def _refusal_document(refusal: Refusal) -> Item:
    return {
        "outcome": refusal.outcome,
        "at": refusal.at,
        "export_id": refusal.export_id,
        "row": refusal.row,
        "answer": refusal.answer,
    }
