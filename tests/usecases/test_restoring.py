"""Promises about a restore: the tables are put back to an earlier moment, and nothing is lost or sent twice.

Bucket and MESH are as they are. What DPS has on file in the end is what each record's owner uploaded last, and DPS
hears no `new` twice. Each story is judged by local/'s DPS.
"""

from __future__ import annotations

from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest

from nhs_mesh import Refused
from tests.usecases.restored import (
    Scene,
    days,
    die_at_each_step,
    make_scene,
    manifest_of,
    put_back_to,
    several_parts,
    well,
)
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_every_database
from vaccinations.formats.dps_names import FilenameStyle
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.model.export import Status

if TYPE_CHECKING:
    from tests.usecases.stores import Stores


@pytest.fixture
def scene(stores: Stores) -> Scene:
    return make_scene(stores)


@pytest.fixture
def lived(monkeypatch: pytest.MonkeyPatch) -> tuple[Scene, list[Any]]:
    return days(monkeypatch)


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
    scene.world.style = style
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
    if style is FilenameStyle.BATCH_V5:  # DPS knows no others
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


# -- any moment, and dying at any step (all of them: tests/faults/test_restoring_anywhere.py)


def test_the_tables_may_be_put_back_to_other_moments(lived: tuple[Scene, list[Any]]) -> None:
    put_back_to(*lived, every=9)


def test_the_command_may_die_and_be_run_again(lived: tuple[Scene, list[Any]]) -> None:
    after, backups = lived
    assert die_at_each_step(after, backups[int(0.7 * len(backups))]) > 3


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


def test_hearing_again_stops_where_its_time_is_up_and_leaves_what_cannot_be_heard(
    lived: tuple[Scene, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, backups = lived
    scene.put_back(backups[0])
    scene.reconcile()
    assert (scene.hear_again(seconds_left=10).status, scene.hear_again(seconds_left=10).messages) == ("incomplete", ())
    with monkeypatch.context() as patch:
        patch.setattr(scene.world.ledger, "find", _raises)
        run = scene.hear_again()
    assert (run.status, run.messages) == ("incomplete", ())
    assert run.left > 3
    assert scene.hear_again().status == "ok"


def test_only_what_came_in_the_last_weeks_is_heard_again(lived: tuple[Scene, list[Any]]) -> None:
    scene, _ = lived
    scene.world.clock.forward(days=40)
    assert scene.hear_again().messages == ()
