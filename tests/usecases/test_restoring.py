"""Promises about a restore: the tables are put back to an earlier moment, and nothing is lost or sent twice.

Bucket and MESH are as they are. What DPS has on file in the end is what each record's owner uploaded last, and DPS
hears no `new` twice. Each story is judged by local/'s DPS.
"""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Self

import pytest

from local.dps import Dps
from nhs_mesh import Refused
from tests.clocks import Clock
from tests.usecases.conftest import memory_stores
from tests.usecases.memory import MemoryMesh, MemoryQueue, MemoryRegister
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_every_database
from tests.usecases.world import DPS, OURS, World
from vaccinations.formats.dps_names import FilenameStyle
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.model.export import Status

if TYPE_CHECKING:
    from collections.abc import Callable

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
    """

    world: World
    mesh: MemoryMesh
    dps: Dps
    refuse: dict[str, str] = field(default_factory=dict)
    queue: MemoryQueue = field(default_factory=MemoryQueue)
    backup: Any = None

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

    def night(self) -> list[VaccinationFile]:
        """A night's export, what DPS makes of it, and its answers; return the files that reached DPS."""
        self.world.next_night()
        files = self.dps.work()
        self.world.track()
        self.world.collect()
        return files

    def reconcile(self, **asked: Any) -> ReconcileRun:
        stores = self.world.stores
        job = Reconcile(stores.bucket, stores.register, stores.ledger, self.queue, lambda: 900, stores.clock)
        return job.run(ReconcileRequest(restored=True, **asked))

    def hear_again(self) -> CollectRun:
        ports = (self.world.bucket, self.world.ledger, self.world.register, self.world.client)
        return Collect(*ports, seconds_left=lambda: 900, clock=self.world.clock).again()

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
        for _ in range(2):
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
        assert {export.status for export in self.exports()} == {Status.ACKNOWLEDGED}
        assert not self.world.register.unfinished()
        assert not self.world.register.parked()

    def exports(self, programme: str = "hpv") -> list[DPSExport]:
        return list(self.world.ledger.exports(programme))


@pytest.fixture
def scene(stores: Stores) -> Scene:
    return make_scene(stores)


def make_scene(stores: Stores) -> Scene:
    mesh = MemoryMesh(OURS, DPS)
    world = World(stores, mesh.mailbox(OURS), mesh.mailbox(DPS), mesh.report)
    refuse: dict[str, str] = {}
    receiver: Any = world.receiver
    dps = Dps(receiver, refuse=lambda row: refuse.get(row["BATCH_NUMBER"]), clock=stores.clock)
    return Scene(world, mesh, dps, refuse)


# -- helpers of stories


def several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make files of many small parts."""
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=1_000))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", 1_000)


def manifest_of(scene: Scene, number: int = 1) -> Manifest:
    manifest = scene.world.bucket.manifest("hpv", number)
    assert manifest
    return manifest


# -- stories


@on_every_database
def test_an_export_that_was_open_and_has_been_sent_since_is_not_sent_again(scene: Scene) -> None:
    scene.upload(row(1))
    scene.remember()
    scene.upload(row(2), name="tuesday.csv")
    [sent] = scene.night()
    scene.put_back()
    run = scene.restore()
    [restored] = run.exports
    assert (restored.export_id, restored.was, restored.attempt, restored.moved) == ("hpv-1", "open", 1, 0)
    assert scene.dps.files == [sent]
    scene.all_is_well(n1="AB1234", n2="AB1234")
    [export] = scene.exports()
    assert (export.records, export.attempts[0].mesh_filename) == (2, sent.name)
    assert (export.attempts[0].rows_processed, export.attempts[0].rows_refused) == (2, 0)


@on_every_database
def test_exports_that_the_ledger_has_forgotten_are_not_sent_again_and_their_numbers_are_not_used(scene: Scene) -> None:
    scene.upload(row(1))
    scene.night()
    scene.remember()
    for n, batch in enumerate(("AB2222", "AB3333"), start=2):
        scene.upload(row(1, batch=batch), row(n, batch=batch), name=f"{n}.csv")
        scene.night()
    scene.put_back()
    run = scene.reconcile()
    assert [(each.export_id, each.was) for each in run.exports] == [("hpv-2", "forgotten"), ("hpv-3", "forgotten")]
    assert run.passed_over == {"hpv": 3}
    assert scene.upload(row(1, batch="AB4444"), name="later.csv").exports == {"hpv": "hpv-4"}
    scene.hear_again()
    scene.drain()
    scene.night()
    scene.all_is_well(n1="AB4444", n2="AB2222", n3="AB3333")
    assert [file.processed for file in scene.dps.files] == [1, 2, 2, 1]


@on_every_database
def test_what_was_uploaded_between_the_restore_and_the_command_is_sent_once(scene: Scene) -> None:
    scene.upload(row(1))
    scene.remember()
    scene.upload(row(2), name="tuesday.csv")
    scene.night()
    scene.put_back()
    scene.upload(row(1, batch="AB2222"), row(3), name="wednesday.csv")
    run = scene.reconcile()
    assert (run.exports[0].moved, run.passed_over) == (1, {})
    [batch_id] = scene.world.ledger.get("hpv", 2).batches
    intake = scene.world.register.intake(batch_id)
    assert intake
    assert intake.attached == {"hpv": 2}
    scene.upload(row(3, batch="AB3333"), name="thursday.csv")
    scene.hear_again()
    scene.drain()
    scene.night()
    scene.all_is_well(n1="AB2222", n2="AB1234", n3="AB3333")


@on_every_database
def test_an_upload_that_was_lost_on_the_way_is_ingested_again(scene: Scene) -> None:
    """One that waits in the open export, one whose programmes went and wait, one rejected, one that is young."""
    scene.upload(row(9))
    scene.night()
    scene.remember()
    scene.upload(row(1), row(1001, "Flu"), name="sent.csv")
    scene.world.clock.forward(days=1)
    scene.world.export(programme="hpv")
    scene.upload(row(9, batch="AB9999"), row(2), name="waits.csv")
    scene.world.try_upload("nonsense", "nonsense.csv")
    scene.put_back()
    scene.upload(row(3), name="young.csv")
    run = scene.reconcile(dry_run=True)
    names = {upload.upload.rpartition("/")[2] for upload in run.uploads}
    assert (names, scene.queue.announced, scene.queue.asked) == ({"sent.csv", "waits.csv"}, [], [])
    scene.restore()
    scene.all_is_well(n9="AB9999", n1="AB1234", n2="AB1234", n3="AB1234", n1001="AB1234")


@on_every_database
def test_an_export_that_failed_and_was_tried_again_since_is_not_sent_a_third_time(scene: Scene) -> None:
    scene.upload(row(1))
    scene.mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    assert scene.night() == []
    assert scene.exports()[0].status is Status.FAILED
    scene.remember()
    [sent] = scene.night()
    scene.put_back()
    [restored] = scene.restore().exports
    assert (restored.was, restored.attempt, scene.dps.files) == ("failed", 2, [sent])
    scene.all_is_well(n1="AB1234")


@on_every_database
def test_an_open_export_of_which_the_second_attempt_was_sent_is_asked_for_by_that(scene: Scene) -> None:
    scene.upload(row(1))
    scene.remember()
    scene.mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    scene.night()
    [sent] = scene.night()
    scene.put_back()
    [restored] = scene.restore().exports
    assert (restored.was, restored.attempt, scene.dps.files) == ("open", 2, [sent])
    scene.all_is_well(n1="AB1234")


def test_an_export_that_failed_and_was_not_tried_since_is_left_to_the_nightly_run(scene: Scene) -> None:
    scene.upload(row(1))
    scene.mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    scene.night()
    scene.remember()
    scene.put_back()
    assert scene.restore().exports == ()
    scene.all_is_well(n1="AB1234")


def test_an_export_whose_parts_were_not_complete_gathers_on_and_its_parts_are_made_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    several_parts(monkeypatch)
    rows = [row(n) for n in range(1, 30)]
    scene.upload(*rows)
    scene.remember()
    scene.upload(row(30), name="tuesday.csv")
    scene.world.clock.forward(days=1)
    with monkeypatch.context() as patch:
        patch.setattr("vaccinations.jobs.render.SECONDS_FOR_A_PART", 1_000.0)
        scene.world.export()
    manifest = scene.world.bucket.manifest("hpv", 1)
    assert manifest
    assert manifest.parts
    assert not manifest.complete
    scene.put_back()
    assert scene.restore().exports == ()
    scene.all_is_well(**{f"n{n}": "AB1234" for n in range(1, 31)})
    assert [export.number for export in scene.exports()] == [1]


def test_what_mesh_has_not_is_sent_as_the_very_bytes_that_were_made(scene: Scene) -> None:
    """It was about to go when MESH was down, and the tables are put back to when it was open."""
    scene.upload(row(1))
    scene.remember()
    scene.mesh.fail("send", ConnectionError("the process died"))
    scene.world.next_night()
    part = scene.world.object("exports/hpv/1/part-0001.csv.gz")
    [names] = manifest_of(scene).names
    scene.put_back()
    scene.upload(row(2), name="tuesday.csv")
    scene.restore()
    first = scene.dps.files[0]
    assert (first.name, first.processed) == (names.mesh_filename, 1)
    assert scene.world.object("exports/hpv/1/part-0001.csv.gz") == part
    scene.all_is_well(n1="AB1234", n2="AB1234")


@pytest.mark.parametrize("style", FilenameStyle)
def test_a_file_name_that_was_used_since_is_not_used_again(scene: Scene, style: FilenameStyle) -> None:
    scene.world.style, scene.world.ods_code = style, "R1L"
    scene.remember()
    for n in (1, 2):
        scene.upload(row(n), name=f"{n}.csv")
        scene.world.export()
        scene.dps.work()
    scene.put_back()
    scene.world.clock.forward(hours=-1)
    scene.reconcile()
    scene.hear_again()
    scene.drain()
    scene.upload(row(3), name="3.csv")
    scene.world.export()
    scene.dps.work()
    scene.night()
    scene.all_is_well(n1="AB1234", n2="AB1234", n3="AB1234")
    assert len({file.name for file in scene.dps.files}) == 3


@on_every_database
def test_what_dps_answered_since_is_heard_again(scene: Scene) -> None:
    """A row that DPS refused is corrected, and goes out as `new`: what it answered is known before that is ingested."""
    scene.refuse["AB0000"] = "Validation errors: lotNumber"
    scene.remember()
    scene.upload(row(1, batch="AB0000"), row(2))
    scene.night()
    scene.upload(row(1, batch="AB1111"), name="tuesday.csv")
    scene.put_back()
    scene.restore()
    assert scene.on_file() == {uuid_of(1): "AB1111", uuid_of(2): "AB1234"}
    export = scene.exports()[0]
    assert (export.attempts[0].rows_processed, export.attempts[0].rows_refused) == (1, 1)
    answers = scene.hear_again().messages
    assert {message.answer.outcome for message in answers if message.answer} == {"known already"}


def test_what_a_person_decided_about_parked_uploads_is_done_again(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    ingest = scene.world.stores.ingesting
    parked = {}
    for what, n in (("retry", 1), ("abandon", 2), ("wait", 3)):
        uploaded = scene.world.stores.uploaded(upload_of(row(n)), f"{what}.csv")
        with monkeypatch.context() as patch:
            patch.setattr(scene.world.ledger, "attach", _raises)
            for _ in range(2):
                with pytest.raises(ConnectionError):
                    ingest.ingest(*uploaded)
            ingest.ingest(*uploaded)
        parked[what] = scene.world.bucket.batch_id(*uploaded)
    scene.remember()
    ingest.retry(parked["retry"], "the table is well again")
    ingest.abandon(parked["abandon"], "the team has uploaded another")
    scene.night()
    scene.put_back()
    scene.restore()
    assert scene.on_file() == {uuid_of(1): "AB1234"}
    assert max(scene.new_rows().values()) == 1
    assert scene.world.register.parked() == [parked["wait"]]


def _raises(*_: object) -> Any:
    raise ConnectionError("no answer")


# -- any moment, and dying at any step


TRUTH = {"n1": "AB1111", "n3": "AB3333", "n4": "AB1234", "n5": "AB1234", "n1001": "AB1234"} | {
    f"n{n}": "AB1234" for n in range(10, 30)
}


def live(scene: Scene) -> None:
    """Some days of two programmes: a file that MESH refuses, lost answers, rows that DPS refuses, all sorts of rows."""
    scene.refuse["AB0000"] = "Validation errors: lotNumber"
    scene.upload(row(1), row(2), row(1001, "Flu"), *(row(n) for n in range(10, 30)))
    scene.mesh.fail("send", Refused(417, code="12", description="Unregistered to address"))
    scene.night()
    scene.upload(row(1, batch="AB1111"), row(3, batch="AB0000"), row(1002, "Flu"), name="tuesday.csv")
    scene.mesh.lose_answer("send")
    scene.night()
    scene.upload(row(2, vaccinated="N"), row(4), name="wednesday.csv")
    scene.night()
    scene.upload(row(3, batch="AB3333"), row(1), row(1002, "Flu", vaccinated="N"), name="thursday.csv")
    scene.upload(row(1, batch="AB1111"), row(3, batch="AB3333"), name="friday.csv")
    scene.night()
    scene.upload(row(5), name="saturday.csv")


class Watched:
    """What is written to register, ledger and queue, one after the other: something is done after one, or each.

    Parameters
    ----------
    at
        After which of them; after each where it is None.
    """

    WRITES = (
        ("ledger", ("attach", "change", "begin_attempt", "put_back")),
        ("register", ("put", "renew", "refuse", "restate", "begin", "finish", "count_try", "put_back")),
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


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, list[Any]]:
    """Give a scene in memory after its days, and a backup of its tables of the moment after each write."""
    several_parts(monkeypatch)
    scene = make_scene(memory_stores(Clock()))
    backups = []
    with Watched(scene, lambda: backups.append(scene.remember())):
        live(scene)
    assert len(backups) > 90
    return scene, backups


def test_the_tables_may_be_put_back_to_any_moment(lived: tuple[Scene, list[Any]]) -> None:
    """The moments after each write of a story of several days."""
    after, backups = lived
    for moment, backup in enumerate(backups):
        scene = deepcopy(after)
        scene.put_back(backup)
        scene.restore()
        well(scene, moment)


def well(scene: Scene, *where: object, **more: str) -> None:
    """Check that all is well; row 3 goes out as `new` twice, since DPS refuses it at first."""
    truth = TRUTH | more
    assert scene.on_file() == {uuid_of(int(name[1:])): batch for name, batch in truth.items()}, where
    assert {i: n for i, n in scene.new_rows().items() if n > 1 and i != uuid_of(3)} == {}, where
    assert not [file for file in scene.dps.files if file.problem], where
    assert {e.status for p in ("hpv", "flu") for e in scene.exports(p)} == {Status.ACKNOWLEDGED}, where
    assert not scene.world.register.unfinished(), where
    assert not scene.world.register.parked(), where


class Died(BaseException):
    """The process ends."""


def die() -> None:
    raise Died


@pytest.mark.parametrize("moment", [0, 0.4, 0.7])
def test_the_command_may_die_at_any_step_and_be_run_again(lived: tuple[Scene, list[Any]], moment: float) -> None:
    after, backups = lived
    after.put_back(backups[int(moment * len(backups))])
    after.upload(row(6), name="between.csv")
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
        well(scene, step, n6="AB1234")
    assert step > 3


def test_the_command_changes_nothing_the_second_time(lived: tuple[Scene, list[Any]]) -> None:
    scene, backups = lived
    scene.put_back(backups[0])
    scene.reconcile()
    scene.hear_again()
    scene.drain()
    before = scene.tables()
    again = scene.reconcile()
    assert (again.exports, again.passed_over, again.queued) == ((), {}, 0)
    assert (scene.queue.announced, scene.queue.asked) == ([], [])
    scene.hear_again()
    assert scene.tables() == before


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(lived: tuple[Scene, list[Any]]) -> None:
    after, backups = lived
    for moment, backup in enumerate(backups[::7]):
        scene = deepcopy(after)
        scene.put_back(backup)
        before = scene.tables()
        dry = scene.reconcile(dry_run=True)
        assert dry.dry_run
        assert (scene.tables(), scene.queue.announced, scene.queue.asked) == (before, [], [])
        wet = scene.reconcile()
        assert (dry.exports, dry.passed_over, dry.queued) == (wet.exports, wet.passed_over, wet.queued), moment
        assert {upload.batch_id for upload in dry.uploads} == {upload.batch_id for upload in wet.uploads}


def test_a_run_whose_time_is_up_says_so_and_the_next_one_goes_on(lived: tuple[Scene, list[Any]]) -> None:
    scene, backups = lived
    scene.put_back(backups[0])
    before = scene.tables()
    stores = scene.world.stores
    job = Reconcile(stores.bucket, stores.register, stores.ledger, scene.queue, lambda: 10, stores.clock)
    run = job.run(ReconcileRequest(restored=True))
    assert (run.status, scene.tables(), scene.queue.announced) == ("incomplete", before, [])
    scene.restore()
    well(scene)
