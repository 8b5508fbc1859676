"""A run of Ingest that was frozen wakes up when another has done its work, and newer uploads have come since."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest

from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_every_database
from vaccinations.jobs.ingest import MOST_TRIES, Ingest
from vaccinations.ports import StoredMeanwhile
from vaccinations.results import document

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.stores import Stores
    from vaccinations.model.entry import Entry

ROWS = 4

#: After which call of a store the run is frozen: between any two chunks of records, and around everything else.
POINTS = [
    ("register", "unfinished", 0),
    ("register", "get", 0),
    ("register", "get", 3),
    ("bucket", "put_batch", 0),
    ("register", "renew", 0),
    ("bucket", "put_intake", 0),
    ("register", "begin", 0),
    *(("register", "put", n) for n in range(ROWS)),
    ("ledger", "attach", 0),
    ("bucket", "put_intake", 1),
    ("bucket", "put_receipt", 0),
    ("register", "finish", 0),
]


def after(target: Any, monkeypatch: pytest.MonkeyPatch, method: str, number: int, happens: Callable[[], None]) -> None:
    """Let something happen after the n-th call of a method, and not in any call that comes of it."""
    whole = getattr(target, method)
    calls = iter(range(1000))

    def frozen(*args: Any, **options: Any) -> Any:
        answer = whole(*args, **options)
        if next(calls) == number:
            happens()
        return answer

    monkeypatch.setattr(target, method, frozen)


def run(stores: Stores, uploaded: tuple[str, str]) -> None:
    """Handle an event as another process does."""
    Ingest(stores.bucket, stores.register, stores.ledger, stores.clock, stores.uploaders).ingest(*uploaded)


def known(stores: Stores) -> dict[str, Entry]:
    return stores.register.get(map(uuid_of, range(ROWS)))


@on_every_database
@pytest.mark.parametrize(("store", "method", "number"), POINTS)
def test_a_run_that_wakes_up_leaves_the_newest_statements_where_they_are(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, store: str, method: str, number: int
) -> None:
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 1)
    older = stores.uploaded(upload_of(*(row(n) for n in range(ROWS))), "monday.csv")
    newer = stores.uploaded(upload_of(*(row(n, batch="XY9999") for n in range(ROWS))), "tuesday.csv")
    meanwhile: list[dict[str, Entry]] = []

    def others_work() -> None:
        run(stores, older)
        run(stores, newer)
        meanwhile.append(known(stores))

    after(getattr(stores, store), monkeypatch, method, number, others_work)
    # Where another has begun the intake, the run fails; its message is then handed over again.
    with suppress(RuntimeError, StoredMeanwhile):
        run(stores, older)
    run(stores, older)
    assert known(stores) == meanwhile[0]
    assert {entry.batch_id for entry in known(stores).values()} == {stores.bucket.batch_id(*newer)}
    sent = [(queued["ACTION_FLAG"], queued["BATCH_NUMBER"]) for queued in stores.queued()]
    assert sent == [("new", "AB1234")] * ROWS + [("update", "XY9999")] * ROWS
    assert stores.register.unfinished() == []


def test_a_run_that_wakes_up_tells_nothing_twice(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    after(stores.register, monkeypatch, "put", 0, lambda: run(stores, uploaded))
    logged()
    run(stores, uploaded)
    assert logged().count("upload ingested") == 1


@on_every_database
def test_a_run_that_wakes_up_when_its_upload_was_parked_leaves_that_to_a_person(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the uploader is told for ever that it is parked, and nobody can end it."""
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)

    def others_fail() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(stores.register, "finish", Mock(side_effect=OSError("it is of no use")))
            for _ in range(MOST_TRIES - 1):
                with suppress(OSError):
                    run(stores, uploaded)

    after(stores.bucket, monkeypatch, "put_receipt", 0, others_fail)
    with pytest.raises(RuntimeError, match="to finish"):
        run(stores, uploaded)
    assert stores.register.parked() == [batch_id]
    stores.ingesting.retry(batch_id, "its cause is put right")
    assert stores.receipt_file(uploaded)["status"] == "retried"
    assert stores.register.parked() == []


@pytest.mark.parametrize(("decide", "decided"), [("retry", "retried"), ("abandon", "abandoned")])
@pytest.mark.parametrize("point", [("intake", 0), ("intake", 1), ("_put_over", 0), ("_put_over", 1)])
def test_a_run_that_wakes_up_while_it_parks_changes_nothing_of_what_a_person_decided(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, point: tuple[str, int], decide: str, decided: str
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)
    with monkeypatch.context() as broken:
        broken.setattr(stores.ledger, "attach", Mock(side_effect=OSError("it is of no use")))
        for _ in range(MOST_TRIES - 1):
            with suppress(OSError):
                run(stores, uploaded)

        def others_work() -> None:
            run(stores, uploaded)
            broken.undo()
            getattr(stores.ingesting, decide)(batch_id, "somebody decided")

        after(stores.bucket, broken, *point, others_work)
        with suppress(RuntimeError):
            run(stores, uploaded)
    parked = stores.bucket.intake(batch_id).parked
    assert parked
    assert (parked.status, parked.reason) == (decided, "somebody decided")
    assert stores.receipt_file(uploaded) == document(parked)
    assert stores.register.parked() == []


def test_a_run_that_wakes_up_before_it_stores_how_far_it_is_forgets_nothing_of_what_a_person_decided(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a restore of the tables, what was abandoned would be sent else."""
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)

    def others_work() -> None:
        with monkeypatch.context() as broken:
            broken.setattr(stores.ledger, "attach", Mock(side_effect=OSError("it is of no use")))
            for _ in range(MOST_TRIES):
                with suppress(OSError):
                    run(stores, uploaded)
        stores.ingesting.abandon(batch_id, "the wrong file")

    after(stores.register, monkeypatch, "renew", 0, others_work)
    with pytest.raises(StoredMeanwhile):
        run(stores, uploaded)
    parked = stores.bucket.intake(batch_id).parked
    assert parked
    assert parked.status == "abandoned"


@on_every_database
@pytest.mark.parametrize("point", [("bucket", "put_batch", 0), ("register", "renew", 0), ("bucket", "put_intake", 0)])
def test_a_run_that_looked_at_the_register_before_a_newer_upload_was_ingested_begins_nothing(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, point: tuple[str, str, int]
) -> None:
    """Its message is a dead letter by then, and nobody else has ingested it."""
    older = stores.uploaded(upload_of(row(1), row(2)), "monday.csv")
    newer = stores.uploaded(upload_of(row(1, batch="XY9999")), "tuesday.csv")
    store, method, number = point
    after(getattr(stores, store), monkeypatch, method, number, lambda: run(stores, newer))
    with pytest.raises(RuntimeError, match="read anew"):
        run(stores, older)
    run(stores, older)
    sent = [(queued["UNIQUE_ID"], queued["ACTION_FLAG"], queued["BATCH_NUMBER"]) for queued in stores.queued()]
    assert sent == [(uuid_of(1), "new", "XY9999"), (uuid_of(2), "new", "AB1234")]
    assert stores.register.unfinished() == []
