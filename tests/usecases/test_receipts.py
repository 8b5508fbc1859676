"""Promises of what `mesh receipt` shows of a retried upload, and of requests that mean nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.rows import row, upload_of
from vaccinations.jobs.ingest import MOST_TRIES

if TYPE_CHECKING:
    from tests.usecases.stores import Stores


class Broken(Exception):
    """Stands for whatever makes it impossible to complete an upload."""


def test_the_latest_receipt_of_a_retried_upload_is_that_of_the_retry(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`mesh receipt` shows neither counts nor rejects of it, nor what DPS refused of it, and exits with 1."""
    bucket: Any = stores.bucket
    put_receipt = bucket.put_receipt

    def a_second_later(*given: Any) -> Any:
        stores.clock.forward(seconds=1)
        return put_receipt(*given)

    def failing(*_: Any) -> None:
        raise Broken

    monkeypatch.setattr(bucket, "put_receipt", a_second_later)
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    with monkeypatch.context() as broken:
        broken.setattr(stores.ledger, "attach", failing)
        for _ in range(MOST_TRIES - 1):
            with pytest.raises(Broken):
                stores.handle(uploaded)
        assert stores.handle(uploaded).status == "parked"
    receipt = stores.ingesting.retry(bucket.batch_id(*uploaded), "it is well again")
    latest, _ = bucket.latest_receipt("R1L/monday.csv")
    assert (latest.status, latest.batch_id) == ("ingested", receipt.batch_id)


def test_a_request_about_an_export_that_cannot_be_is_rejected_and_does_not_hold_the_queue(stores: Stores) -> None:
    """A number that DynamoDB cannot hold fails three times, each time a minute for everybody behind it."""
    receipt = stores.handle(stores.bucket.put_request(f"hpv-{'9' * 40}.requeue"))
    assert receipt.status == "rejected"
