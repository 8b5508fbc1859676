"""What an interleaving is played on: stores, MESH, DPS and invocations; here all of it in memory."""

from __future__ import annotations

import logging
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from unittest.mock import patch

import vaccinations.formats.dps_parts
import vaccinations.jobs.ingest
import vaccinations.jobs.render
from nhs_mesh import TrackingStatus
from tests.clocks import Clock
from tests.machine.dps import MoodyDps
from tests.machine.interruptions import Invocation
from tests.machine.truth import UPLOADERS
from tests.usecases.memory import MemoryBucket, MemoryLedger, MemoryMesh, MemoryQueue, MemoryRegister
from tests.usecases.world import DPS, OURS, WORKFLOW
from vaccinations import telemetry
from vaccinations.formats.dps_names import FilenameStyle, file_names
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.export import Export, ExportRequest
from vaccinations.jobs.ingest import Ingest
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.jobs.track import Track
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tests.machine.interruptions import Calls, Interruption
    from vaccinations.model.export import DPSExport
    from vaccinations.model.programmes import Programme
    from vaccinations.ports import Bucket, Ledger, Register

__all__ = ["MemoryStage", "Message", "Stage", "in_small_pieces"]

type Message = tuple[str, ...]
"""What a message of the queue asks for: ``ingest`` a key's version, or ``retry`` or ``abandon`` a batch id."""

#: Where nobody freezes, since too little time passes there for a run to be given up and others to do its work: between
#: a look at the lease and the request to MESH; between asking how far an intake is and registering a chunk.
SPARES = {
    "export": frozenset({"<mesh.send", "<mesh.send_chunk", "<bucket.open_part", ">bucket.open_part"}),
    "ingest": frozenset({">register.intake", "<register.put"}),
}


class Stage(Protocol):
    """What an interleaving is played on."""

    clock: Clock
    dps: MoodyDps
    lost: set[str]
    """Messages that DPS never gets."""

    @property
    def bucket(self) -> Bucket: ...
    @property
    def register(self) -> Register: ...
    @property
    def ledger(self) -> Ledger: ...

    def store(self, key: str, body: bytes) -> str:
        """Store an object as somebody outside does; return its version."""

    def announced(self) -> list[Message]:
        """Return what came for the queue since this was last asked."""

    def run(self, use_case: str, interruption: Interruption | None = None, **options: Any) -> Invocation:
        """Do one invocation."""

    def under_way(self) -> list[str]:
        """Return the ids of the messages that wait for DPS, in order."""

    def lose(self, message_id: str) -> None:
        """Let MESH report that a message was not collected."""

    def left_in_inbox(self) -> int:
        """Count the messages that wait in our own mailbox."""

    def retry_export(self, export: DPSExport, begin: Callable[..., DPSExport]) -> None:
        """Begin another attempt at an export, as a person asks for it."""


class _WatchedBucket(MemoryBucket):
    """A bucket that tells of what is to be ingested."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.told: list[Message] = []

    def store(self, key: str, body: bytes) -> str:
        version = super().store(key, body)
        if key.startswith(("incoming/", "requests/")):
            self.told.append(("ingest", key, version))
        return version


def names(programme: Programme) -> Any:
    return file_names(programme, FilenameStyle.BATCH_V5, "V0V8L")


@dataclass
class MemoryStage:
    """Everything in memory, and each invocation on ports that are watched."""

    clock: Clock = field(default_factory=Clock)
    lost: set[str] = field(default_factory=set)
    bucket: _WatchedBucket = field(init=False)
    register: MemoryRegister = field(default_factory=MemoryRegister)
    ledger: MemoryLedger = field(init=False)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    mesh: MemoryMesh = field(default_factory=lambda: MemoryMesh(OURS, DPS))
    dps: MoodyDps = field(init=False)

    def __post_init__(self) -> None:
        self.bucket = _WatchedBucket(self.clock)
        self.ledger = MemoryLedger(self.register, self.clock)
        self.dps = MoodyDps(self.mesh.mailbox(DPS), self.clock)

    def store(self, key: str, body: bytes) -> str:
        return self.bucket.store(key, body)

    def announced(self) -> list[Message]:
        told = [*self.bucket.told, *self.queue.messages]
        self.bucket.told.clear()
        self.queue.messages.clear()
        return told

    def under_way(self) -> list[str]:
        return [
            posted.message_id
            for posted in self.mesh.messages.values()
            if posted.to == DPS and posted.status is TrackingStatus.ACCEPTED
        ]

    def lose(self, message_id: str) -> None:
        self.lost.add(message_id)
        self.mesh.messages[message_id].status = TrackingStatus.UNDELIVERABLE
        self.mesh.report(message_id)

    def left_in_inbox(self) -> int:
        return len(list(self.mesh.mailbox(OURS).inbox()))

    def snapshot(self) -> object:
        return self.register.snapshot(), self.ledger.snapshot()

    def restore(self, snapshot: Any) -> None:
        self.register.restore(snapshot[0])
        self.ledger.restore(snapshot[1])

    # -- invocations

    def run(self, use_case: str, interruption: Interruption | None = None, **options: Any) -> Invocation:
        work = partial(self._do, use_case, options)
        return Invocation(work, interruption, SPARES.get(use_case, frozenset())).run()

    def _do(self, use_case: str, options: dict[str, Any], calls: Calls) -> Any:
        bucket, ledger = calls.port("bucket", self.bucket), calls.port("ledger", self.ledger)
        register, mesh = calls.port("register", self.register), calls.port("mesh", self.mesh.mailbox(OURS))
        match use_case:
            case "ingest":
                ingest = Ingest(bucket, register, ledger, self.clock, UPLOADERS)
                what, *about = options["message"]
                return getattr(ingest, what)(*about, *(["a person asks for it"] if what != "ingest" else []))
            case "export":
                left = iter(options.get("seconds_left", ()))
                return Export(
                    ledger=ledger,
                    bucket=bucket,
                    connect=lambda: mesh,
                    names=names,
                    recipient=options.get("recipient", DPS),
                    workflow_id=WORKFLOW,
                    holder=str(uuid.uuid4()),
                    seconds_left=lambda: next(left, 900.0),
                    clock=self.clock,
                ).run(ExportRequest(resume_only=options.get("resume_only", False)))
            case "track":
                return Track(ledger, bucket, mesh, clock=self.clock).run()
            case "collect":
                collect = Collect(bucket, ledger, register, mesh, seconds_left=lambda: 900.0, clock=self.clock)
                return collect.again() if options.get("again") else collect.run()
            case "reconcile":
                queue = calls.port("queue", self.queue)
                return Reconcile(bucket, register, ledger, queue, lambda: 900.0, self.clock).run(
                    ReconcileRequest(restored=options.get("restored", False))
                )
        raise ValueError(use_case)

    def retry_export(self, export: DPSExport, begin: Callable[..., DPSExport]) -> None:
        self.ledger.begin_attempt(export, partial(begin, now=self.clock()), names(PROGRAMMES[export.programme]))


@contextmanager
def in_small_pieces() -> Iterator[None]:
    """Let files consist of many parts, and batches of many chunks, though they have few rows.

    There are no other threads, nothing is logged or counted, and files are in memory where that can be had.
    """
    memory = Path("/dev/shm")
    with (
        patch.object(tempfile, "tempdir", str(memory) if memory.is_dir() else None),
        patch.object(telemetry._metrics, "on", False),
        patch.object(vaccinations.formats.dps_parts, "MEMBER_CHARACTERS", 100),
        patch.object(
            vaccinations.jobs.render, "write_part", partial(vaccinations.formats.dps_parts.write_part, part_bytes=200)
        ),
        patch.object(vaccinations.jobs.ingest, "_ROWS_AT_ONCE", 2),
        patch.object(vaccinations.jobs.ingest, "prefetch", _in_turn),
        patch.object(vaccinations.jobs.render, "prefetch", _in_turn),
    ):
        logging.disable(logging.CRITICAL)
        try:
            yield
        finally:
            logging.disable(logging.NOTSET)


def _in_turn(work: Callable[[Any], Any], items: Iterable[Any], *, depth: int) -> Iterator[Any]:
    yield from map(work, items)
