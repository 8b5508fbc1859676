"""Promises of Reconcile: an upload whose event never arrives is found and queued, and nothing else is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.memory import MemoryQueue
from tests.usecases.rows import row, upload_of
from vaccinations.jobs import reconcile
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.model.problems import InvalidEvent
from vaccinations.results import QueuedUpload, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.stores import Stores
    from vaccinations.results import ReconcileRun


@pytest.fixture
def queue() -> MemoryQueue:
    return MemoryQueue()


def run(stores: Stores, queue: MemoryQueue, *, seconds_left: float = 900, **asked: Any) -> ReconcileRun:
    job = Reconcile(stores.bucket, stores.register, stores.ledger, queue, lambda: seconds_left, stores.clock)
    return job.run(ReconcileRequest(**asked))


def test_an_upload_whose_event_never_arrives_is_queued_and_then_ingested(
    stores: Stores, queue: MemoryQueue, logged: Callable[[], str]
) -> None:
    stores.accept(row(1), name="monday.csv")
    lost = stores.uploaded(upload_of(row(2)), "tuesday.csv")
    uploaded_at = f"{stores.clock():%Y-%m-%dT%H:%M:%S+00:00}"
    stores.clock.forward(hours=1)
    logged()
    found = run(stores, queue)
    assert (found.status, found.dry_run, found.looked_at, found.queued) == ("ok", False, 2, 1)
    batch_id = stores.bucket.batch_id(*lost)
    assert found.uploads == (QueuedUpload(batch_id=batch_id, upload=lost[0], version=lost[1], uploaded_at=uploaded_at),)
    assert queue.announced == [lost]
    text = logged()
    assert "tuesday.csv" not in text
    assert '"UploadsQueuedAgain":[1.0]' in text
    for announced in queue.announced:
        receipt = stores.handle(announced)
        assert isinstance(receipt, Receipt)
        assert receipt.accepted == {"hpv": {"new": 1}}
    assert run(stores, queue).queued == 0


def test_each_version_of_an_upload_is_looked_for(stores: Stores, queue: MemoryQueue) -> None:
    lost = stores.uploaded(upload_of(row(1)), "monday.csv")
    stores.accept(row(1, batch="XY9999"), name="monday.csv")
    stores.clock.forward(hours=2)
    run(stores, queue)
    assert queue.announced == [lost]


def test_an_upload_that_is_known_in_whichever_way_is_left_alone(stores: Stores, queue: MemoryQueue) -> None:
    """One that was ingested, one that was rejected as a whole, one that is under way, and one that is parked."""
    stores.accept(row(1))
    assert stores.ingest("nonsense", "nonsense.csv").status == "rejected"
    for name in ("under way.csv", "parked.csv"):
        stores.register.begin(
            stores.bucket.batch_id(*stores.uploaded(upload_of(row(2)), name)), {}, stores.register.begun()
        )
    stores.register.park(stores.register.unfinished()[0])
    stores.clock.forward(days=1)
    assert (run(stores, queue).looked_at, queue.announced) == (4, [])


def test_a_young_upload_is_left_to_its_event(stores: Stores, queue: MemoryQueue) -> None:
    stores.uploaded(upload_of(row(1)), "monday.csv")
    stores.clock.forward(minutes=59)
    assert (run(stores, queue).looked_at, queue.announced) == (0, [])
    assert run(stores, queue, minutes=59).looked_at == 1


def test_a_deleted_upload_is_none(stores: Stores, queue: MemoryQueue) -> None:
    (key, _), kept = (stores.uploaded(upload_of(row(n)), f"{n}.csv") for n in (1, 2))
    stores.clock.forward(minutes=1)
    stores.delete(key)
    stores.clock.forward(days=1)
    assert (run(stores, queue).looked_at, queue.announced) == (1, [kept])


def test_what_lies_elsewhere_in_the_bucket_is_no_upload(stores: Stores, queue: MemoryQueue) -> None:
    stores.upload("receipts/incoming/1.csv", b"")
    stores.clock.forward(days=1)
    assert run(stores, queue).looked_at == 0


def test_a_dry_run_only_says_what_it_finds(stores: Stores, queue: MemoryQueue, logged: Callable[[], str]) -> None:
    stores.uploaded(upload_of(row(1)), "monday.csv")
    stores.clock.forward(days=1)
    logged()
    found = run(stores, queue, dry_run=True)
    assert (found.dry_run, found.queued, len(found.uploads), queue.announced) == (True, 1, 1, [])
    assert "UploadsQueuedAgain" not in logged()


def test_many_are_all_queued_and_the_first_are_named(
    stores: Stores, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "AT_ONCE", 3)
    monkeypatch.setattr(reconcile, "MOST_NAMED", 2)
    lost = {stores.uploaded(upload_of(row(n)), f"{n}.csv") for n in range(10)}
    stores.clock.forward(days=1)
    found = run(stores, queue)
    assert (found.looked_at, found.queued, len(found.uploads)) == (10, 10, 2)
    assert set(queue.announced) == lost


def test_a_run_whose_time_is_up_stops_and_says_so(
    stores: Stores, queue: MemoryQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "AT_ONCE", 2)
    for n in range(6):
        stores.uploaded(upload_of(row(n)), f"{n}.csv")
    stores.clock.forward(days=1)
    left = iter([900.0, 900.0, 10.0])
    job = Reconcile(stores.bucket, stores.register, stores.ledger, queue, lambda: next(left), stores.clock)
    found = job.run(ReconcileRequest())
    assert (found.status, found.looked_at, found.queued) == ("incomplete", 4, 4)
    assert run(stores, queue, seconds_left=10).looked_at == 0


def test_the_uploads_of_one_organisation_are_listed_over_as_many_pages_as_there_are(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An object's marker of deletion and its versions may be on different pages."""
    if client := getattr(stores.bucket, "_s3", None):
        paginator = client.get_paginator

        def small(name: str) -> Any:
            made = paginator(name)
            paginate = made.paginate
            monkeypatch.setattr(made, "paginate", lambda **how: paginate(**how, PaginationConfig={"PageSize": 1}))
            return made

        monkeypatch.setattr(client, "get_paginator", small)
    mine, gone = [], []
    for n in range(3):
        stores.clock.forward(minutes=1)
        mine.append(stores.uploaded(upload_of(row(n)), "same.csv", "R1L"))
        gone.append(stores.uploaded(upload_of(row(n)), "gone.csv", "R1L"))
    stores.uploaded(upload_of(row(9)), "same.csv", "R1")
    stores.clock.forward(minutes=1)
    stores.delete(gone[0][0])
    found = [(upload.key, upload.version) for upload in stores.bucket.uploads("R1L")]
    assert found == mine[::-1]
    assert len(list(stores.bucket.uploads())) == 4


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"again": True}, "may hold: dry_run, minutes, restored"),
        ({"dry_run": "yes"}, "true or false"),
        ({"minutes": -1}, "0 or more"),
        ({"minutes": True}, "whole number"),
    ],
)
def test_an_event_that_asks_for_something_unknown_is_refused(event: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidEvent, match=says):
        ReconcileRequest.from_event(event)
    assert ReconcileRequest.from_event({"dry_run": True, "minutes": 0}) == ReconcileRequest(dry_run=True, minutes=0)
