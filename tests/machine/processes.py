"""A stage on servers, where each invocation is a process: moto or DynamoDB Local, and NHS England's MESH sandbox."""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.faults.victim import Death
from tests.machine.dps import MoodyDps
from tests.machine.interruptions import Invocation
from tests.machine.stage import names
from tests.machine.truth import UPLOADERS
from vaccinations.formats.requests import REQUESTS
from vaccinations.jobs.ingest import OlderParked
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable

    from nhs_mesh import MeshClient
    from tests.faults.stage import Stage
    from tests.faults.victim import Run
    from tests.machine.interruptions import Interruption
    from tests.machine.stage import Message
    from vaccinations.model.export import DPSExport

__all__ = ["ProcessStage"]


class ProcessStage:
    """The world of the tests of faults, for an interleaving.

    A process dies, freezes or loses an answer at a request to AWS or MESH. Where it is to fail before one, it dies.
    """

    def __init__(self, world: Stage, receiver: MeshClient) -> None:
        self._world = world
        self._receiver = receiver
        self._settings = world.settings_with(
            UPLOADERS=json.dumps(
                {
                    **{folder: {"states_for": "*"} for folder in UPLOADERS.states_for},
                    **{folder: {"succeeds": sorted(codes)} for folder, codes in UPLOADERS.succeeds.items()},
                }
            )
        )
        self._known: set[Message] = set()
        self._told: list[Message] = []
        self.bucket, self.register, self.ledger = world.bucket, world.register, world.ledger
        self.clock, self.lost = world.clock, world.lost
        self.dps = MoodyDps(receiver, world.clock)
        self._dynamodb: Any = world.tables

    def store(self, key: str, body: bytes) -> str:
        answer = self._world.s3.put_object(Bucket=self._settings.bucket, Key=key, Body=body)
        version = str(answer["VersionId"])
        if not key.startswith(REQUESTS):
            self._told.append(("ingest", key, version))
        return version

    def announced(self) -> list[Message]:
        found = self._world.s3.list_object_versions(Bucket=self._settings.bucket, Prefix=REQUESTS).get("Versions", [])
        requests = [("ingest", each["Key"], each["VersionId"]) for each in found]
        told = [*self._told, *(request for request in requests if request not in self._known)]
        self._known.update(requests)
        self._told.clear()
        return told

    def run(self, use_case: str, interruption: Interruption | None = None, **options: Any) -> Invocation:
        settings = self._settings
        if recipient := options.pop("recipient", None):
            settings = self._world.settings_with(DPS_MAILBOX=recipient)
        if use_case == "reconcile":
            options["queue"] = self._world.queue
        death = _death(interruption)
        ran = self._world.victim.run(
            use_case,
            settings,
            dynamodb=self._world.dynamodb,
            now=self.clock(),
            death=death,
            part_bytes=self._world.part_bytes,
            **options,
        )
        invocation = _Process(self._world, ran, death)
        if use_case == "reconcile":
            self._take_what_was_queued()
        return invocation

    def _take_what_was_queued(self) -> None:
        sqs, queue = self._world.sqs, self._world.queue
        while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10).get("Messages"):
            for message in messages:
                self._told.append(_message(json.loads(message["Body"])))
                sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    def snapshot(self) -> object:
        return {table: self._items(table) for table in (self._settings.exports_table, self._settings.records_table)}

    def restore(self, snapshot: Any) -> None:
        for table, items in snapshot.items():
            keys = ("record_id",) if table == self._settings.records_table else ("programme", "number")
            for item in self._items(table):
                self._dynamodb.delete_item(TableName=table, Key={name: item[name] for name in keys})
            for item in items:
                self._dynamodb.put_item(TableName=table, Item=item)

    def _items(self, table: str) -> list[Any]:
        pages = self._dynamodb.get_paginator("scan").paginate(TableName=table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def under_way(self) -> list[str]:
        return list(self._receiver.inbox())

    def lose(self, message_id: str) -> None:
        self._world.lose(message_id)

    def left_in_inbox(self) -> int:
        with self._world.sandbox.client("X26ABC1") as client:
            return len(list(client.inbox()))

    def retry_export(self, export: DPSExport, begin: Callable[..., DPSExport]) -> None:
        self.ledger.begin_attempt(export, partial(begin, now=self.clock()), names(PROGRAMMES[export.programme]))


class _Process(Invocation):
    """An invocation that was or is a process."""

    def __init__(self, world: Stage, ran: Run, death: Death | None) -> None:
        super().__init__(lambda _: None)
        self._world, self._frozen = world, ran.frozen
        self.calls.done = death is not None and (death.side == "lost" or ran.killed or bool(ran.frozen))
        self._look(ran)

    def thaw(self) -> None:
        self._look(self._world.victim.thaw(self._frozen, self._world.clock()))

    def kill(self) -> None:
        self._world.victim.kill(self._frozen)

    def _look(self, ran: Run) -> None:
        self.answer = ran.answer
        self.how = "frozen" if ran.frozen else "died" if ran.killed else "raised" if ran.error else "ended"
        if "OlderParked" in ran.error:
            self.error = OlderParked(ran.error)
        elif ran.error:
            self.error = RuntimeError(ran.error)


def _message(body: dict[str, Any]) -> Message:
    """Return what a message of the queue asks for."""
    for what in ("retry", "abandon"):
        if what in body:
            return what, body[what]["batch_id"]
    uploaded = body["detail"]["object"]
    return "ingest", uploaded["key"], uploaded["version-id"]


def _death(interruption: Interruption | None) -> Death | None:
    if interruption is None:
        return None
    among = "mesh" if interruption.among.startswith("mesh") else ""
    if interruption.how == "loses the answer" and among:
        return Death(interruption.call, "lost", among)
    if interruption.how == "loses the answer":
        return Death(interruption.call, "lost")
    if interruption.how == "freezes":
        return Death(interruption.call, "frozen")
    return Death(interruption.call, "after" if interruption.after else "before", among)
