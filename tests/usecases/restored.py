"""A scene in which the tables are put back to an earlier moment: the world, MESH in memory, and a DPS that answers."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from local.dps import Dps
from nhs_mesh import Refused, TrackingStatus
from tests.clocks import Clock
from tests.usecases.conftest import memory_stores
from tests.usecases.memory import MemoryMesh, MemoryQueue, MemoryRegister
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.world import DPS, OURS, World
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.model.export import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import pytest

    from local.dps import VaccinationFile
    from tests.usecases.stores import Stores
    from vaccinations.model.export import DPSExport, Manifest
    from vaccinations.results import CollectRun, Receipt, ReconcileRun


@dataclass
class Scene:
    """The world, MESH in memory, a DPS that answers, and a queue that is handed over when the test says so.

    Attributes
    ----------
    backup
        What `remember` kept last.
    lost
        The messages that DPS never reads.
    """

    world: World
    mesh: MemoryMesh
    dps: Dps
    refuse: dict[str, str] = field(default_factory=dict)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    backup: Any = None
    lost: set[str] = field(default_factory=set)

    # -- the tables

    def remember(self) -> Any:
        """Take and return a backup of both tables."""
        stores = self.world.stores
        if isinstance(stores.register, MemoryRegister):
            self.backup = [store.snapshot() for store in self.memories()]
        else:
            self.backup = [stores.dynamodb.scan(TableName=table)["Items"] for table in stores.tables]
        return self.backup

    def put_back(self, backup: Any = None) -> None:
        """Put both tables back to a backup, the last one where none is given, an hour later."""
        self.backup = backup or self.backup
        self.world.clock.forward(hours=1)
        stores = self.world.stores
        if isinstance(stores.register, MemoryRegister):
            for store, snapshot in zip(self.memories(), self.backup, strict=True):
                store.restore(snapshot)
            return
        for table, items in zip(stores.tables, self.backup, strict=True):
            keys = {"record_id"} if table == stores.tables[1] else {"programme", "number"}
            for item in stores.dynamodb.scan(TableName=table)["Items"]:
                stores.dynamodb.delete_item(TableName=table, Key={k: v for k, v in item.items() if k in keys})
            for item in items:
                stores.dynamodb.put_item(TableName=table, Item=item)

    def memories(self) -> tuple[Any, Any]:
        return self.world.stores.register, self.world.stores.ledger

    def tables(self) -> Any:
        """Return what is in both tables."""
        stores = self.world.stores
        if isinstance(stores.register, MemoryRegister):
            return [store.snapshot() for store in self.memories()]
        return [sorted(map(str, stores.dynamodb.scan(TableName=table)["Items"])) for table in stores.tables]

    # -- what people and schedules do

    def upload(self, *rows: str, name: str = "monday.csv") -> Receipt:
        return self.world.upload(upload_of(*rows), name)

    def night(self, *, read: bool = True) -> list[VaccinationFile]:
        """A night's export, what DPS makes of it, and its answers; return the files that reached DPS.

        Parameters
        ----------
        read
            Whether DPS reads them at all, now or ever.
        """
        self.world.next_night()
        if not read:
            self.lost |= {*self.world.receiver.inbox()}
        files = self.dps.pick_up(self.lost)
        for file in files:
            self.dps.answer(file)
        self.world.track()
        self.world.collect()
        self.world.do_requests()
        return files

    def expire(self) -> None:
        """Let MESH give up what DPS has not read."""
        for message_id in self.lost:
            self.mesh.messages[message_id].status = TrackingStatus.UNDELIVERABLE
        self.world.track()
        self.world.do_requests()

    def reconcile(self, **asked: Any) -> ReconcileRun:
        stores = self.world.stores
        job = Reconcile(stores.bucket, stores.register, stores.ledger, self.queue, lambda: 900, stores.clock)
        return job.run(ReconcileRequest(restored=True, **asked))

    def hear_again(self, seconds_left: float = 900) -> CollectRun:
        ports = (self.world.bucket, self.world.ledger, self.world.register, self.world.client)
        return Collect(*ports, seconds_left=lambda: seconds_left, clock=self.world.clock).again()

    def drain(self) -> None:
        """Let Ingest do what waits in the queue."""
        ingest = self.world.stores.ingesting
        announced, asked = [*dict.fromkeys(self.queue.announced)], [*dict.fromkeys(self.queue.asked)]
        self.queue.announced.clear()
        self.queue.asked.clear()
        for key, version in announced:
            ingest.ingest(key, version)
        for what, batch_id, reason in asked:
            (ingest.retry if what == "retry" else ingest.abandon)(batch_id, reason)

    def restore(self) -> ReconcileRun:
        """Do what docs/operations.md says, and let the nights go on."""
        run = self.reconcile()
        self.hear_again()
        self.drain()
        self.night()
        self.expire()
        for _ in range(2 if self.lost else 1):
            self.night()
        return run

    # -- what is true in the end

    def on_file(self) -> dict[str, str]:
        """Return the vaccine batch of each record that DPS has on file and that is not deleted, by its UUID."""
        return {r.row["UNIQUE_ID"]: r.row["BATCH_NUMBER"] for r in self.dps.on_file.values() if not r.deleted}

    def new_rows(self) -> Counter[str]:
        """Count how often DPS has heard the `new` of each record."""
        rows = (judged.row for file in self.dps.files for judged in file.rows)
        return Counter(row["UNIQUE_ID"] for row in rows if row["ACTION_FLAG"].upper() == "NEW")

    def all_is_well(self, **batches: str) -> None:
        """Check that DPS has these batches on file of rows n1, n2, …, heard nothing twice, and that nothing waits."""
        assert self.on_file() == {uuid_of(int(name[1:])): batch for name, batch in batches.items()}
        assert max(self.new_rows().values()) == 1
        assert not [file for file in self.dps.files if file.problem]
        assert {export.status for export in self.exports()} <= {Status.ACKNOWLEDGED, Status.REQUEUED}
        assert not self.world.register.unfinished()
        assert not self.world.register.parked()

    def exports(self, programme: str = "hpv") -> list[DPSExport]:
        return list(self.world.ledger.exports(programme))


def make_scene(stores: Stores) -> Scene:
    mesh = MemoryMesh(OURS, DPS)
    world = World(stores, mesh.mailbox(OURS), mesh.mailbox(DPS), mesh.report)
    refuse: dict[str, str] = {}
    receiver: Any = world.receiver

    def refused(row: dict[str, str]) -> str | None:
        return (
            refuse.get(row["BATCH_NUMBER"]) if row["ACTION_FLAG"] != "delete" else None
        )  # which DPS does not validate

    dps = Dps(receiver, refuse=refused, clock=stores.clock)
    return Scene(world, mesh, dps, refuse)


def several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files of many small parts."""
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=1_000))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", 1_000)


def manifest_of(scene: Scene, number: int = 1) -> Manifest:
    manifest = scene.world.bucket.manifest("hpv", number)
    assert manifest
    return manifest


# -- some days, and what is true after them

#: DPS refuses a row of this vaccine batch.
BAD = "AB0000"
#: What the uploads of some days say: each record's vaccine batch, None where it is withdrawn. From 1,001 on it is flu.
UPLOADS: Mapping[str, Mapping[int, str | None]] = {
    "monday.csv": dict.fromkeys((1, 2, 1001, *range(10, 30)), "AB1234"),
    "tuesday.csv": {1: "AB1111", 3: BAD, 1002: "AB1234"},
    "wednesday.csv": {2: None, 4: "AB1234"},
    "thursday.csv": {3: "AB3333", 1: "AB1234", 1002: None},
    "friday.csv": {1: "AB1111", 3: "AB3333"},
    "saturday.csv": {5: "AB1234"},
    "between.csv": {6: "AB1234"},
}


def state(scene: Scene, *names: str) -> None:
    """Upload files as `UPLOADS` has them."""
    for name in names:
        said = UPLOADS[name].items()
        rows = [row(n, "Flu" if n > 1000 else "HPV", "Y" if batch else "N", batch or "AB1234") for n, batch in said]
        scene.upload(*rows, name=name)


def truth(scene: Scene) -> dict[str, str]:
    """Return what DPS is to have on file, by what was uploaded: each record's vaccine batch."""
    stored = [name for name in UPLOADS if f"incoming/R1L/{name}" in scene.world.objects()]
    last = {n: batch for name in stored for n, batch in UPLOADS[name].items()}
    return {uuid_of(n): batch for n, batch in last.items() if batch and batch != BAD}


def live(scene: Scene) -> None:
    """Some days of two programmes: MESH refuses a file and DPS a row, an answer is lost, a file expires."""
    scene.refuse[BAD] = "Validation errors: lotNumber"
    state(scene, "monday.csv")
    scene.mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    scene.night()
    state(scene, "tuesday.csv")
    scene.mesh.lose_answer("send")
    scene.night()
    state(scene, "wednesday.csv")
    scene.night(read=False)
    state(scene, "thursday.csv", "friday.csv")
    scene.night()
    scene.expire()
    scene.night()
    state(scene, "saturday.csv")


class Watched:
    """What is written to register, ledger and queue, one after the other: something is done after one, or each.

    Parameters
    ----------
    at
        After which of them; after each where it is None.
    """

    WRITES = (
        ("ledger", ("attach", "change", "begin_attempt", "put_back")),
        ("register", ("put", "renew", "hear", "restate", "begin", "finish", "count_try", "put_back")),
        ("register", ("park", "mark_attached")),
    )

    def __init__(self, scene: Scene, do: Callable[[], object], at: int | None = None) -> None:
        self._scene, self._do, self._at = scene, do, at
        self._seen = 0
        self._patched: list[tuple[Any, str]] = []

    def __enter__(self) -> Self:
        for store, names in self.WRITES:
            for name in names:
                self._watch(getattr(self._scene.world.stores, store), name)
        for name in ("announce", "ask"):
            self._watch(self._scene.queue, name)
        return self

    def __exit__(self, *_: object) -> None:
        for store, name in self._patched:
            delattr(store, name)

    def _watch(self, store: Any, name: str) -> None:
        method = getattr(store, name)

        def watched(*given: Any, **named: Any) -> Any:
            answer = method(*given, **named)
            self._seen += 1
            if self._at in {None, self._seen}:
                self._do()
            return answer

        setattr(store, name, watched)
        self._patched.append((store, name))


def well(scene: Scene, *where: object) -> None:
    """Check that all is well; row 3 goes out as `new` twice, since DPS refuses it at first."""
    assert scene.on_file() == truth(scene), where
    assert {i: n for i, n in scene.new_rows().items() if n > 1 and i != uuid_of(3)} == {}, where
    assert not [file for file in scene.dps.files if file.problem], where
    ended = {Status.ACKNOWLEDGED, Status.REQUEUED}
    assert {e.status for p in ("hpv", "flu") for e in scene.exports(p)} <= ended, where
    assert not scene.world.register.unfinished(), where
    assert not scene.world.register.parked(), where


def days(monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, list[Any]]:
    """Give a scene in memory after its days, and a backup of its tables of the moment after each write."""
    several_parts(monkeypatch)
    scene = make_scene(memory_stores(Clock()))
    backups = []
    with Watched(scene, lambda: backups.append(scene.remember())):
        live(scene)
    assert len(backups) > 90
    return scene, backups


class Died(BaseException):
    """The process ends."""


def die() -> None:
    raise Died


def put_back_to(after: Scene, backups: list[Any], every: int = 1) -> None:
    """Put the tables back to the moments after every so many writes; check that all is well afterwards."""
    for moment, backup in list(enumerate(backups))[::every]:
        scene = deepcopy(after)
        scene.put_back(backup)
        scene.restore()
        well(scene, moment)


def die_and_put_back(write: int) -> bool:
    """Let the days end after a write, and put the tables back to a moment before; tell whether it is there."""
    scene = make_scene(memory_stores(Clock()))
    backups = [scene.remember()]

    def note() -> None:
        backups.append(scene.remember())
        if len(backups) > write:
            die()

    with Watched(scene, note), suppress(Died):
        live(scene)
        return False
    put_back_to(scene, [(backups[0], backups[write // 2], backups[-1])[write % 3]])
    return True


def die_at_each_step(after: Scene, backup: Any) -> int:
    """Let the command die after each of its writes, and run it again; return how many there are."""
    after.put_back(backup)
    state(after, "between.csv")
    died = True
    step = 0
    while died:
        scene = deepcopy(after)
        step += 1
        with Watched(scene, die, step), suppress(Died):
            scene.reconcile()
            died = False
        if step % 2:  # what is in the queue already is ingested before the command is run again
            scene.drain()
        scene.restore()
        well(scene, step)
    return step - 1
