"""The last statement wins whatever comes together: lost files, parked uploads, restores, and rows DPS failed at."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.restored import Scene, make_scene
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import in_memory

if TYPE_CHECKING:
    from tests.usecases.stores import Stores

pytestmark = in_memory

#: Batches of the vaccine: what is said first, then, and last.
A, B, C = "AA0001", "BB0002", "CC0003"
UNHANDLED = "An unhandled error occurred during batch processing"
INVALID = "Validation errors: lotNumber must be a non-empty string"


@pytest.fixture
def scene(stores: Stores) -> Scene:
    return make_scene(stores)


class Broken(Exception):
    """Stands for whatever makes it impossible to complete an upload."""


@pytest.fixture
def stuck(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give the ids of batches that cannot be attached."""
    broken: set[str] = set()
    attach = scene.world.ledger.attach

    def failing(programme: str, batch_id: str, records: int) -> int | None:
        if batch_id in broken:
            raise Broken
        return attach(programme, batch_id, records)

    monkeypatch.setattr(scene.world.ledger, "attach", failing)
    return broken


def say(scene: Scene, batch: str, n: int = 1, name: str = "") -> Any:
    """Have the owner upload what counts from now on; nothing as a batch withdraws the record."""
    stated = row(n, batch=batch or A, vaccinated="Y" if batch else "N")
    return scene.world.upload(upload_of(stated), name or f"{len(scene.world.uploads)}.csv")


def begin_stuck(scene: Scene, stuck: set[str], *rows: str) -> tuple[str, str]:
    """Upload what cannot be completed; its first try fails."""
    uploaded = scene.world.stores.uploaded(upload_of(*rows), "stuck.csv")
    stuck.add(scene.world.bucket.batch_id(*uploaded))
    with pytest.raises(Broken):
        scene.world.stores.handle(uploaded)
    return uploaded


def park(scene: Scene, stuck: set[str], *rows: str) -> str:
    """Upload what cannot be completed, until it is parked; return its batch id."""
    uploaded = begin_stuck(scene, stuck, *rows)
    with pytest.raises(Broken):
        scene.world.stores.handle(uploaded)
    assert scene.world.stores.handle(uploaded).status == "parked"
    return scene.world.bucket.batch_id(*uploaded)


def lost(scene: Scene, leave: set[str]) -> None:
    """Send what waits; DPS never fetches it, and MESH gives it up."""
    before = {e.export_id for e in scene.exports() if e.message_id}
    scene.world.next_night()
    for export in scene.exports():
        if export.message_id and export.export_id not in before:
            leave.add(export.message_id)
            scene.world.report(export.message_id)
    scene.world.track()
    scene.world.do_requests()


def night(scene: Scene, leave: set[str] = frozenset(), *, answers: bool = True) -> None:  # type: ignore[assignment]
    scene.world.next_night()
    files = scene.dps.pick_up(leave)
    scene.world.track()
    if answers:
        for file in files:
            scene.dps.answer(file, ("csv",))
        scene.world.collect()
    scene.world.do_requests()


def has(scene: Scene, n: int = 1) -> str:
    return scene.on_file().get(uuid_of(n), "")


def fail_at(scene: Scene, batch: str, *, taken: bool) -> None:
    scene.dps._unhandled = lambda judged: taken if judged["BATCH_NUMBER"] == batch else None


def test_an_upload_that_was_under_way_at_the_restored_moment_and_was_abandoned_since_stays_so(
    scene: Scene, stuck: set[str]
) -> None:
    """Whatever is ingested first completes it, before anybody looks at what a person has decided."""
    say(scene, A)
    night(scene)
    uploaded = begin_stuck(scene, stuck, row(2, batch=B))
    scene.remember()
    with pytest.raises(Broken):
        scene.world.stores.handle(uploaded)
    assert scene.world.stores.handle(uploaded).status == "parked"
    scene.world.stores.ingesting.abandon(scene.world.bucket.batch_id(*uploaded), "the wrong file")
    stuck.clear()
    say(scene, C, 3)
    scene.put_back()
    scene.restore()
    assert (has(scene, 1), has(scene, 2), has(scene, 3)) == (A, "", C)


def test_a_record_of_the_old_system_that_was_withdrawn_stays_withdrawn_after_a_restore(scene: Scene) -> None:
    scene.remember()
    scene.dps.take({"UNIQUE_ID": uuid_of(1), "UNIQUE_ID_URI": _uri(), "BATCH_NUMBER": A})
    scene.world.request("already-sent/R1L/old.csv", upload_of(row(1, batch=A)))
    assert say(scene, "").accepted == {"hpv": {"delete": 1}}
    scene.put_back()
    scene.restore()
    assert has(scene) == ""


def _uri() -> str:
    from vaccinations.model.programmes import URIS

    return URIS["vaccination_record"]


def test_a_withdrawal_in_a_lost_file_reaches_dps_though_the_file_holds_a_new_of_the_record_too(scene: Scene) -> None:
    """DPS failed at the first row and has processed it all the same: so its correction goes out as `new`."""
    leave: set[str] = set()
    fail_at(scene, A, taken=True)
    say(scene, A)
    night(scene)
    fail_at(scene, "", taken=True)
    assert say(scene, B).accepted == {"hpv": {"new": 1}}
    assert say(scene, "").accepted == {"hpv": {"delete": 1}}
    lost(scene, leave)
    for _ in range(3):
        night(scene, leave)
    assert has(scene) == ""


def test_a_withdrawal_of_a_record_that_an_old_list_should_have_named_reaches_dps_though_its_file_is_lost(
    scene: Scene,
) -> None:
    """docs/operations.md: a list that was forgotten does no harm beyond noise."""
    leave: set[str] = set()
    scene.dps.take({"UNIQUE_ID": uuid_of(1), "UNIQUE_ID_URI": _uri(), "BATCH_NUMBER": A})
    say(scene, B)
    say(scene, "")
    lost(scene, leave)
    for _ in range(3):
        night(scene, leave)
    assert has(scene) == ""


@pytest.mark.parametrize("delete", ["lost", "unhandled"])
def test_a_withdrawal_is_sent_again_where_dps_may_have_the_record_though_it_refused_a_later_new(
    scene: Scene, delete: str
) -> None:
    """Validation comes before the look-up: an invalid `new` leaves what was there, so it is still unknown."""
    leave: set[str] = set()
    fail_at(scene, A, taken=True)
    say(scene, A)
    night(scene)
    fail_at(scene, "", taken=True)
    scene.refuse[B] = INVALID
    assert say(scene, B).accepted == {"hpv": {"new": 1}}
    night(scene)
    assert say(scene, "").accepted == {"hpv": {"delete": 1}}
    if delete == "lost":
        lost(scene, leave)
    else:
        scene.dps._unhandled = lambda judged: False if judged["ACTION_FLAG"].upper() == "DELETE" else None
        night(scene)
        fail_at(scene, "", taken=True)
        assert scene.world.request("unhandled.resend", f"{uuid_of(1)}\n").rejected == 0
    for _ in range(3):
        night(scene, leave)
    assert has(scene) == ""


def test_a_withdrawal_is_sent_again_where_an_update_met_another_change_at_dps(scene: Scene) -> None:
    """DPS says "does not exist" with its own id where a record changed at the same moment: it has the record."""
    leave: set[str] = set()
    say(scene, A)
    night(scene)
    scene.refuse[B] = "Immunization resource does not exist. ID: Immunization#8f6c1b9e"
    say(scene, B)
    night(scene)
    say(scene, "")
    lost(scene, leave)
    for _ in range(3):
        night(scene, leave)
    assert has(scene) == ""


def test_a_duplicate_heals_though_the_next_upload_of_the_record_is_parked(scene: Scene, stuck: set[str]) -> None:
    """The record is at the parked statement, so that nobody notes the refusal of the one that counts."""
    scene.dps.take({"UNIQUE_ID": uuid_of(1), "UNIQUE_ID_URI": _uri(), "BATCH_NUMBER": C})
    say(scene, A)
    scene.world.next_night()
    batch_id = park(scene, stuck, row(1, batch=B))
    files = scene.dps.pick_up()
    for file in files:
        scene.dps.answer(file, ("csv",))
    scene.world.collect()
    scene.world.do_requests()
    scene.world.stores.ingesting.abandon(batch_id, "it was a mistake")
    for _ in range(3):
        night(scene)
    assert has(scene) == A


def test_a_record_that_dps_refused_goes_out_as_new_though_the_correction_was_parked_meanwhile(
    scene: Scene, stuck: set[str]
) -> None:
    """docs/architecture.md: what comes next goes out as `new`, `update` or `delete`, as DPS needs it."""
    scene.refuse[A] = INVALID
    say(scene, A)
    scene.world.next_night()
    batch_id = park(scene, stuck, row(1, batch=B))
    for file in scene.dps.pick_up():
        scene.dps.answer(file, ("csv",))
    scene.world.collect()
    stuck.clear()
    scene.world.stores.ingesting.retry(batch_id, "it is well again")
    for _ in range(3):
        night(scene)
    assert has(scene) == B


@pytest.mark.parametrize("answers", [True, False])
def test_a_record_whose_new_was_lost_and_withdrawn_arrives_when_a_parked_statement_is_retried(
    scene: Scene, stuck: set[str], answers: bool
) -> None:
    leave: set[str] = set()
    say(scene, A)
    scene.world.next_night()
    message = scene.exports()[0].message_id
    leave.add(message)
    say(scene, "")
    night(scene, leave, answers=answers)
    batch_id = park(scene, stuck, row(1, batch=B))
    scene.world.report(message)
    scene.world.track()
    scene.world.do_requests()
    stuck.clear()
    scene.world.stores.ingesting.retry(batch_id, "it is well again")
    for _ in range(3):
        night(scene, leave, answers=answers)
    assert has(scene) == B


def test_a_record_stays_its_owners_where_a_stranger_has_copied_its_row_and_the_tables_are_restored(
    scene: Scene,
) -> None:
    scene.remember()
    say(scene, A)
    assert scene.world.upload(upload_of(row(1, batch=B)), "copy.csv", "A1B").rejected == 1
    scene.put_back()
    scene.restore()
    assert has(scene) == A


def test_a_file_that_waited_behind_a_refused_one_and_was_dropped_by_dps_can_be_sent_again(scene: Scene) -> None:
    """DPS drops after four days what waits behind a refused file. MESH calls it acknowledged, so that nothing moves."""
    say(scene, A)
    scene.dps._refuse_file = lambda _: "its headers are wrong"
    night(scene)
    scene.dps._refuse_file = lambda _: None
    say(scene, B, 2)
    scene.world.next_night()
    scene.world.acknowledge()  # picked up, put into the queue behind the first, dropped
    scene.world.track()
    scene.world.clock.forward(days=5)
    scene.world.request("hpv-1.requeue")
    asked = scene.world.stores.handle(scene.world.bucket.put_request("hpv-2.requeue"))
    night(scene)
    assert (has(scene, 1), has(scene, 2)) == (A, B), asked


def test_a_withdrawal_of_what_dps_does_not_have_is_done_and_nobody_is_asked_to_send_it_again(scene: Scene) -> None:
    """It is listed as refused for ever, and `mesh refused resend --class unknown` rejects it each time."""
    scene.refuse[A] = INVALID
    say(scene, A)
    night(scene)
    receipt = say(scene, "")
    night(scene)
    assert [*scene.world.register.refused("hpv")] == []
    assert [key for key in scene.world.objects() if f"{receipt.batch_id}-refused" in key] == []


def test_no_other_child_takes_a_records_place_when_the_tables_are_restored(scene: Scene) -> None:
    """Forgotten uploads are queued in the order of their keys, not of their times."""
    other = row(1, batch=C).replace("Zephyrson,2012-08-18", "Hollow,2013-01-02").replace(",,Quint", ",9990000018,Quint")
    scene.remember()
    say(scene, A, name="monday.csv")
    assert scene.world.upload(upload_of(other), "a-day-later.csv").rejected == 1
    scene.put_back()
    scene.restore()
    assert has(scene) == A


@pytest.mark.parametrize("fails", ["put_receipt", "put_intake", "intake"])
def test_an_upload_whose_receipt_or_intake_object_fails_for_good_stops_nobody(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """What keeps it from being completed keeps it from being parked, too: so every upload fails behind it."""
    uploaded = scene.world.stores.uploaded(upload_of(row(1, batch=A)), "stuck.csv")
    batch_id = scene.world.bucket.batch_id(*uploaded)
    bucket: Any = scene.world.bucket
    method = getattr(bucket, fails)
    begun = scene.world.register.intake

    def failing(*given: Any) -> Any:
        if batch_id in given and begun(batch_id):
            raise Broken
        return method(*given)

    monkeypatch.setattr(bucket, fails, failing)
    for _ in range(5):
        with suppress(Broken):
            scene.world.stores.handle(uploaded)
    for n in range(3):
        with suppress(Broken):
            scene.world.stores.uploaded(upload_of(row(2 + n, batch=B)), f"another-{n}.csv", "RX1")
            scene.world.stores.handle((f"incoming/RX1/another-{n}.csv", "1"))
    scene.world.next_night()
    scene.dps.pick_up()
    assert [has(scene, n) for n in (2, 3, 4)] == [B, B, B]


@pytest.mark.parametrize("outcome", [UNHANDLED, INVALID])
def test_a_refused_record_is_listed_and_can_be_sent_again_though_an_abandoned_upload_named_it_meanwhile(
    scene: Scene, stuck: set[str], outcome: str
) -> None:
    """The register stays at the abandoned statement for good, so no refusal of the one that counts is ever noted."""
    scene.refuse[A] = outcome
    say(scene, A)
    batch_id = park(scene, stuck, row(1, batch=B))
    scene.world.stores.ingesting.abandon(batch_id, "the wrong file")
    night(scene)
    assert [entry.record_id for entry in scene.world.register.refused("hpv")] == [uuid_of(1)]
    scene.refuse.clear()
    scene.world.request("again.resend", f"{uuid_of(1)}\n")
    night(scene)
    assert has(scene) == A
