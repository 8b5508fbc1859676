"""Promises about who: who uploaded a file, who asked for what, and why, is kept with what became of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.rows import row, upload_of
from vaccinations.jobs.ingest import MOST_TRIES
from vaccinations.model.export import Asked, Status
from vaccinations.results import ParkedUpload, Receipt, Uploader

if TYPE_CHECKING:
    from tests.usecases.stores import Stores
    from tests.usecases.world import World

TEAM = Uploader(requester="123456789012", source_address="192.0.2.7")
ME = "arn:aws:sts::123456789012:assumed-role/operator/jos\u00e9"
ASKED = Asked(ME, "DPS has cleared the file: 100 % — see ticket 17")


class Broken(Exception):
    """Stands for whatever makes it impossible to complete an upload."""


def park(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Leave an upload of the team's parked; return its key and batch id."""

    def failing(*_: Any) -> None:
        raise Broken

    key, version = stores.uploaded(upload_of(row(1)), "monday.csv")
    with monkeypatch.context() as broken:
        broken.setattr(stores.ledger, "attach", failing)
        for _ in range(MOST_TRIES - 1):
            with pytest.raises(Broken):
                stores.ingesting.ingest(key, version, TEAM)
        assert stores.ingesting.ingest(key, version, TEAM).status == "parked"
    return key, stores.bucket.batch_id(key, version)


def test_who_uploaded_a_file_is_in_its_receipt_and_in_what_is_stored_of_it(stores: Stores) -> None:
    receipt = stores.ingesting.ingest(*stores.uploaded(upload_of(row(1)), "monday.csv"), TEAM)
    assert isinstance(receipt, Receipt)
    assert (receipt.uploader, receipt.asked) == (TEAM, None)
    assert stores.bucket.receipt(receipt.upload, receipt.batch_id) == receipt
    assert stores.bucket.intake(receipt.batch_id).receipt.uploader == TEAM
    nonsense = stores.ingesting.ingest(*stores.uploaded("", "empty.csv"), TEAM)
    assert nonsense.uploader == TEAM
    assert stores.bucket.receipt(nonsense.upload, nonsense.batch_id) == nonsense


def test_a_parked_upload_stays_its_uploaders_and_who_had_it_ingested_afresh_is_kept(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, batch_id = park(stores, monkeypatch)
    receipt = stores.ingesting.retry(batch_id, "the table is back", ME)
    settled = stores.bucket.receipt(key, batch_id)
    assert isinstance(settled, ParkedUpload)
    assert (settled.status, settled.reason, settled.by, settled.uploader) == ("retried", "the table is back", ME, TEAM)
    assert receipt.uploader == TEAM


def test_who_abandoned_a_parked_upload_is_kept(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    key, batch_id = park(stores, monkeypatch)
    stores.ingesting.abandon(batch_id, "the wrong file", ME)
    settled = stores.bucket.receipt(key, batch_id)
    assert isinstance(settled, ParkedUpload)
    assert (settled.status, settled.reason, settled.by) == ("abandoned", "the wrong file", ME)


def test_who_had_an_export_requeued_is_kept_with_it(world: World) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    world.report(world.ledger.get("hpv", 1).message_id)
    world.track()
    request = world.bucket.put_request("hpv-1.requeue", b"", ASKED)
    receipt = world.stores.handle(request)
    assert isinstance(receipt, Receipt)
    assert receipt.asked == ASKED
    export = world.ledger.get("hpv", 1)
    assert (export.status, export.request, export.asked) == (Status.REQUEUED, "requests/hpv-1.requeue", ASKED)


def test_who_had_an_export_sent_again_is_kept_with_the_attempt(world: World) -> None:
    world.recipient = "NOSUCHBOX"
    world.upload(upload_of(row(1)))
    world.export()
    world.export(resend="hpv-1", asked={"by": ME, "reason": ASKED.reason})
    attempts = world.ledger.get("hpv", 1).attempts
    assert [attempt.asked for attempt in attempts] == [None, ASKED]


def test_an_uploader_cannot_speak_for_a_person(stores: Stores) -> None:
    body = upload_of(row(1)).encode()
    uploaded = stores.bucket._put_object("incoming/R1L/monday.csv", body, {"by": "somebody", "reason": "trust me"})
    receipt = stores.ingesting.ingest(*uploaded, TEAM)
    assert isinstance(receipt, Receipt)
    assert receipt.asked is None
