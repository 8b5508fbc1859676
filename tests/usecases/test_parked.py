"""An upload that cannot be completed is parked: it stops nobody, nothing of it is taken for sent, a person decides."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from typer.testing import CliRunner

from mesh_cli.main import app
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_every_database
from vaccinations.jobs import ingest
from vaccinations.jobs.ingest import MOST_TRIES, Ingest, OlderParked
from vaccinations.model.entry import Refusal
from vaccinations.model.outcome import OnFile, Outcome
from vaccinations.model.uploaders import Uploaders
from vaccinations.ports import IntakeGone, UploadGone
from vaccinations.results import ParkedUpload, Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.usecases.stores import Stores

MONDAY = "incoming/R1L/monday.csv"


class Broken(Exception):
    """Stands for whatever makes it impossible to complete an upload."""


class Died(BaseException):
    """Stands for the end of the process."""


@pytest.fixture
def breaks(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Give the batches, as programme/id or id of all of an upload, that cannot be attached."""
    broken: set[str] = set()
    attach = stores.ledger.attach

    def failing(programme: str, batch_id: str, records: int) -> int | None:
        if broken & {batch_id, f"{programme}/{batch_id}"}:
            raise Broken
        return attach(programme, batch_id, records)

    monkeypatch.setattr(stores.ledger, "attach", failing)
    return broken


def park(stores: Stores, breaks: set[str], *rows: str, name: str = "monday.csv", programme: str = "") -> str:
    """Upload rows that cannot be completed (of one programme), until they are parked; return the batch id."""
    return park_uploaded(stores, breaks, stores.uploaded(upload_of(*rows), name), programme)


def park_uploaded(stores: Stores, breaks: set[str], uploaded: tuple[str, str], programme: str = "") -> str:
    """Try to ingest an upload that cannot be completed, until it is parked; return the batch id."""
    batch_id = stores.bucket.batch_id(*uploaded)
    breaks.add(f"{programme}/{batch_id}" if programme else batch_id)
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(Broken):
            stores.handle(uploaded)
    receipt = stores.handle(uploaded)
    assert receipt.status == "parked"
    assert receipt == stores.bucket.intake(batch_id).parked
    breaks.clear()
    return batch_id


def told(stores: Stores, programme: str = "hpv") -> list[tuple[str, str, str]]:
    """Tell what DPS will hear of a programme."""
    return [(r["UNIQUE_ID"], r["ACTION_FLAG"], r["BATCH_NUMBER"]) for r in stores.queued(programme)]


@on_every_database
def test_an_upload_that_cannot_be_completed_is_parked_and_its_event_is_done_with(
    stores: Stores, breaks: set[str], logged: Callable[[], str]
) -> None:
    logged()
    batch_id = park(stores, breaks, row(1))
    text = logged()
    assert text.count('"UploadsParked":[1.0]') == 1
    assert "monday.csv" not in text
    [line] = [line for line in map(json.loads, text.splitlines()) if line.get("message") == "upload parked"]
    assert (line["level"], line["parked"]) == ("ERROR", batch_id)
    assert stores.register.parked() == [batch_id]
    again = stores.handle((MONDAY, stores.bucket.intake(batch_id).version))
    assert again == ParkedUpload(
        batch_id=batch_id,
        upload=MONDAY,
        version=stores.bucket.intake(batch_id).version,
        parked_at=f"{stores.clock():%Y-%m-%dT%H:%M:%S+00:00}",
        exports={},
    )
    assert stores.receipt_file((MONDAY, again.version))["status"] == "parked"
    assert "UploadsParked" not in logged()


@on_every_database
def test_everybody_else_goes_on(stores: Stores, breaks: set[str]) -> None:
    """The event of the stuck upload itself never comes again, as when it is a dead letter."""
    stuck = stores.uploaded(upload_of(row(1)), "monday.csv")
    breaks.add(stores.bucket.batch_id(*stuck))
    with pytest.raises(Broken):
        stores.handle(stuck)
    other = stores.uploaded(upload_of(row(2)), "tuesday.csv", "V0V8L")
    with pytest.raises(Broken):
        stores.handle(other)
    assert stores.handle(other).status == "ingested"
    assert stores.accept(row(3), name="wednesday.csv").accepted == {"hpv": {"new": 1}}
    assert told(stores) == [(uuid_of(n), "new", "AB1234") for n in (2, 3)]


@on_every_database
def test_tries_that_died_count_as_well(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")

    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as dies:
        dies.setattr(stores.ledger, "attach", die)
        for _ in range(MOST_TRIES):
            with pytest.raises(Died):
                stores.handle(uploaded)
    assert stores.accept(row(2), name="tuesday.csv").status == "ingested"
    assert stores.handle(uploaded).status == "parked"


def test_an_intake_that_is_unfinished_but_not_there_is_parked_too(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context:
        context.setattr(stores.register, "unfinished", lambda: ["lost"])
        for _ in range(MOST_TRIES - 1):
            with pytest.raises(LookupError, match="lost"):
                stores.accept(row(1))
        assert stores.accept(row(1)).status == "ingested"
    assert stores.register.parked() == ["lost"]
    with pytest.raises(IntakeGone):
        stores.ingesting.retry("lost", "why not")


def test_an_upload_of_which_nothing_is_stored_any_more_is_parked_under_its_own_name(
    stores: Stores, breaks: set[str]
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)
    breaks.add(batch_id)
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(Broken):
            stores.handle(uploaded)
    stores.delete(f"batches/{batch_id}.json")
    assert stores.handle(uploaded) == ParkedUpload(
        batch_id=batch_id, upload=MONDAY, version=uploaded[1], parked_at="", exports={}
    )


# -- nothing of it is taken for sent


@on_every_database
@pytest.mark.parametrize("batch", ["AB1234", "XY9999"])
def test_what_a_parked_upload_stated_first_goes_out_as_new_when_it_is_stated_again(
    stores: Stores, breaks: set[str], batch: str
) -> None:
    park(stores, breaks, row(1), row(1, batch="CD5678"))
    assert stores.accept(row(1, batch=batch), name="again.csv").accepted == {"hpv": {"new": 1}}
    assert told(stores) == [(uuid_of(1), "new", batch)]
    assert stores.accept(row(1, batch=batch), name="and again.csv").unchanged == 1


@on_every_database
def test_what_a_parked_upload_corrected_goes_out_as_an_update_when_it_is_corrected_again(
    stores: Stores, breaks: set[str]
) -> None:
    stores.accept(row(1), row(2), name="sunday.csv")
    park(stores, breaks, row(1, batch="CD5678"), row(2, batch="CD5678"), row(2, batch="EF9012"))
    receipt = stores.accept(row(1, batch="CD5678"), row(2), name="again.csv")
    assert (receipt.accepted, receipt.unchanged) == ({"hpv": {"update": 1}}, 1)
    assert told(stores)[2:] == [(uuid_of(1), "update", "CD5678")]


@on_every_database
def test_what_a_parked_upload_corrected_twice_goes_out_as_an_update_of_what_was_known_before(
    stores: Stores, breaks: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.accept(row(1), name="sunday.csv")
    monkeypatch.setattr(ingest, "_ROWS_AT_ONCE", 1)  # so that the rows are decided on one after the other
    park(stores, breaks, row(1, batch="XY9999"), row(1, batch="XY8888"))
    assert stores.accept(row(1), name="the same as on sunday.csv").unchanged == 1
    assert stores.accept(row(1, batch="XY7777"), name="tuesday.csv").accepted == {"hpv": {"update": 1}}


@on_every_database
def test_what_a_parked_upload_withdrew_is_withdrawn_when_that_is_said_again(stores: Stores, breaks: set[str]) -> None:
    stores.accept(row(1), row(2), name="sunday.csv")
    park(stores, breaks, row(1, vaccinated="N"), row(2, vaccinated="N"), row(3))
    receipt = stores.accept(row(1, vaccinated="N"), row(2), row(3, vaccinated="N"), name="again.csv")
    assert (receipt.accepted, receipt.unchanged, receipt.skipped) == ({"hpv": {"delete": 1}}, 1, 1)
    assert told(stores)[2:] == [(uuid_of(1), "delete", "AB1234")]


@on_every_database
def test_a_programme_that_was_queued_before_its_upload_was_parked_is_sent_and_known(
    stores: Stores, breaks: set[str]
) -> None:
    batch_id = park(stores, breaks, row(1), row(2, "MenACWY"), programme="menacwy")
    stored = stores.bucket.intake(batch_id).parked
    assert stored
    assert stored.exports == {"hpv": "hpv-1"}
    receipt = stores.accept(row(1), row(2, "MenACWY"), name="again.csv")
    assert (receipt.accepted, receipt.unchanged) == ({"menacwy": {"new": 1}}, 1)
    assert (len(told(stores)), len(told(stores, "menacwy"))) == (1, 1)


def test_a_record_that_dps_refused_can_still_be_sent_again_after_a_request_for_it_was_parked(
    stores: Stores, breaks: set[str]
) -> None:
    stores.accept(row(1), name="sunday.csv")
    refusal = Refusal(Outcome.UNKNOWN, "2026-11-24T12:00:00+00:00", "hpv-1", 1, "inbox/answer")
    entry = stores.register.get([uuid_of(1)])[uuid_of(1)]
    stores.register.hear([replace(entry, on_file=OnFile.NO, refusal=refusal)])
    request = stores.bucket.put_request("1.resend", uuid_of(1).encode())
    breaks.add(stores.bucket.batch_id(*request))
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(Broken):
            stores.handle(request)
    assert stores.handle(request).status == "parked"
    breaks.clear()
    receipt = stores.ingesting.retry(stores.bucket.batch_id(*request), "DynamoDB is well again")
    assert isinstance(receipt, Receipt)
    assert receipt.accepted == {"hpv": {"new": 1}}


@on_every_database
def test_an_older_upload_is_judged_by_what_was_known_before_a_parked_one(stores: Stores, breaks: set[str]) -> None:
    older = stores.uploaded(upload_of(row(1), row(2)), "older.csv")
    stores.accept(row(2, batch="CD5678"), name="sunday.csv")
    between = stores.uploaded(upload_of(row(2, batch="EF9012"), row(3)), "between.csv")
    park(stores, breaks, row(1, batch="XY9999"), row(2, batch="XY9999"), row(3, batch="XY9999"))
    found = stores.handle(older)
    assert isinstance(found, Receipt)
    assert (found.accepted, found.overtaken) == ({"hpv": {"new": 1}}, 1)
    found = stores.handle(between)
    assert isinstance(found, Receipt)
    assert (found.accepted, found.overtaken) == ({"hpv": {"update": 1, "new": 1}}, 0)
    assert told(stores)[1:] == [
        (uuid_of(1), "new", "AB1234"),
        (uuid_of(2), "update", "EF9012"),
        (uuid_of(3), "new", "AB1234"),
    ]


@on_every_database
def test_what_is_said_after_a_parked_upload_counts_when_that_is_retried(stores: Stores, breaks: set[str]) -> None:
    """Said later, and nothing to be queued: record 1 is as DPS knows it, and DPS knows neither 2 nor 3."""
    stores.accept(row(1), row(3, vaccinated="N"), name="sunday.csv")
    stores.clock.forward(seconds=1)
    batch_id = park(stores, breaks, row(1, batch="XY9999"), row(2), row(3), row(4))
    later = stores.accept(row(1), row(2, vaccinated="N"), row(3, vaccinated="N"), name="later.csv")
    assert (later.accepted, later.unchanged, later.skipped) == ({}, 1, 2)
    receipt = stores.ingesting.retry(batch_id, "the table is back")
    assert isinstance(receipt, Receipt)
    assert (receipt.accepted, receipt.overtaken) == ({"hpv": {"new": 1}}, 3)
    assert told(stores) == [(uuid_of(1), "new", "AB1234"), (uuid_of(4), "new", "AB1234")]


@on_every_database
def test_a_record_that_only_a_parked_upload_stated_is_its_owners_until_that_is_abandoned(
    stores: Stores, breaks: set[str]
) -> None:
    """What another says of it waits: the message becomes a dead letter; then it is redriven, or Reconcile queues it."""
    batch_id = park(stores, breaks, row(1))
    theirs = stores.uploaded(upload_of(row(1)), "theirs.csv", "V0V8L")
    with pytest.raises(OlderParked, match=batch_id):
        stores.handle(theirs)
    stores.ingesting.abandon(batch_id, "the wrong folder")
    receipt = stores.handle(theirs)
    assert isinstance(receipt, Receipt)
    assert receipt.accepted == {"hpv": {"new": 1}}
    assert stores.accept(row(1, batch="XY9999"), name="ours.csv").rejected == 1


@on_every_database
def test_an_owner_says_more_of_a_record_that_only_a_parked_upload_stated(stores: Stores, breaks: set[str]) -> None:
    park(stores, breaks, row(1), row(2), row(3))
    said = stores.accept(row(1, batch="XY9999"), row(2, "MenACWY"), row(3, vaccinated="N"), name="tuesday.csv")
    assert (said.accepted, said.skipped) == ({"hpv": {"new": 1}, "menacwy": {"new": 1}}, 1)
    entries = stores.register.get(map(uuid_of, (1, 2, 3)))
    assert [entries[uuid_of(n)].before for n in (1, 2)] == [None, None]
    assert {entry.owner for entry in entries.values()} == {"R1L"}


def test_whose_a_record_is_waits_for_a_person_where_an_older_upload_is_parked_and_nothing_of_it_is_known(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message becomes a dead letter; once the older upload is settled, it is redriven, or Reconcile queues it."""
    first = stores.uploaded(upload_of(row(1)), "first.csv")
    stranger = stores.uploaded(upload_of(row(1)), "a.csv", "RX1")
    batch_id = stores.bucket.batch_id(*first)

    def broken(_: object) -> None:
        raise Broken

    with monkeypatch.context() as patch:
        patch.setattr(stores.register, "put", broken)
        for _ in range(MOST_TRIES - 1):
            with pytest.raises(Broken):
                stores.handle(first)
        assert stores.handle(first).status == "parked"
    stores.handle(stranger)
    ours = stores.uploaded(upload_of(row(1, batch="BB0002")), "later.csv")
    with pytest.raises(OlderParked, match=batch_id):
        stores.handle(ours)
    assert stores.accept(row(2), name="of-another-record.csv").rejected == 0
    stores.ingesting.retry(batch_id, "it is well again")
    receipt = stores.handle(ours)
    assert isinstance(receipt, Receipt)
    assert receipt.rejected == 0
    assert [each[2] for each in told(stores) if each[0] == uuid_of(1)][-1] == "BB0002"


@pytest.mark.parametrize("abandoned", [False, True])
def test_a_parked_upload_takes_a_record_from_a_stranger_until_it_is_abandoned(
    stores: Stores, breaks: set[str], *, abandoned: bool
) -> None:
    first, stranger = (
        stores.uploaded(upload_of(row(1)), "first.csv"),
        stores.uploaded(upload_of(row(1)), "a.csv", "RX1"),
    )
    stores.handle(stranger)
    batch_id = park_uploaded(stores, breaks, first)
    if abandoned:
        stores.ingesting.abandon(batch_id, "the wrong folder")
    ours = stores.accept(row(1, batch="BB0002"), name="ours.csv")
    assert ours.rejected == (1 if abandoned else 0)
    assert [each[2] for each in told(stores)] == ["AB1234", *([] if abandoned else ["BB0002"])]


@on_every_database
def test_a_parked_upload_that_cannot_tell_whose_a_record_is_holds_nobody_up(stores: Stores, breaks: set[str]) -> None:
    stores.accept(row(1), name="first.csv")
    park(stores, breaks, row(2), name="stuck.csv")
    theirs = stores.ingest(upload_of(row(1, batch="BB0002"), row(3)), "theirs.csv", "RX1")
    assert isinstance(theirs, Receipt)
    assert (theirs.rejected, theirs.accepted) == (1, {"hpv": {"new": 1}})


def test_a_parked_upload_of_an_organisation_does_not_hold_up_the_one_that_succeeds_it(
    stores: Stores, breaks: set[str]
) -> None:
    """Whoever of the two had the record first, its successor may change it."""
    stores.uploaders = Uploaders.from_document('{"RX1": {"succeeds": ["R1L"]}}')
    park(stores, breaks, row(2), name="stuck.csv")
    stores.accept(row(1), name="first.csv")
    theirs = stores.ingest(upload_of(row(1, batch="BB0002")), "theirs.csv", "RX1")
    assert isinstance(theirs, Receipt)
    assert theirs.accepted == {"hpv": {"update": 1}}


def test_an_upload_whose_event_comes_late_is_not_held_up_by_a_parked_one_that_is_newer(
    stores: Stores, breaks: set[str]
) -> None:
    """What was uploaded later does not tell whose a record was before."""
    first = stores.uploaded(upload_of(row(1)), "first.csv")
    park(stores, breaks, row(2), name="stuck.csv")
    stores.ingest(upload_of(row(1, batch="BB0002")), "a.csv", "RX1")
    receipt = stores.handle(first)
    assert isinstance(receipt, Receipt)
    assert receipt.rejected == 0
    assert stores.register.get([uuid_of(1)])[uuid_of(1)].owner == "R1L"


@on_every_database
def test_a_refusal_that_was_known_before_is_listed_again_once_what_came_since_is_abandoned(
    stores: Stores, breaks: set[str]
) -> None:
    stores.accept(row(1), name="first.csv")
    known = stores.register.get([uuid_of(1)])[uuid_of(1)]
    refusal = Refusal(Outcome.INVALID, "2026-11-23T12:00:00+00:00", "hpv-1", 1, "inbox/a")
    stores.register.hear([replace(known, refusal=refusal, on_file=OnFile.NO)])
    assert [entry.record_id for entry in stores.register.refused("hpv")] == [uuid_of(1)]
    batch_id = park(stores, breaks, row(1, batch="BB0002"), name="stuck.csv")
    stores.ingesting.abandon(batch_id, "the wrong file")
    assert [entry.record_id for entry in stores.register.refused("hpv")] == [uuid_of(1)]


def test_an_older_upload_is_found_in_a_folder_however_its_code_is_written(stores: Stores) -> None:
    first = stores.uploaded(upload_of(row(1)), "first.csv", "rX1")
    stores.ingest(upload_of(row(1)), "stranger.csv")
    receipt = stores.ingest(upload_of(row(1, batch="BB0002")), "next.csv", "RX1")
    assert isinstance(receipt, Receipt)
    assert receipt.rejected == 0
    assert stores.handle(first).status == "ingested"


@pytest.mark.parametrize("settled", [False, True])
def test_a_run_that_wakes_up_once_its_upload_is_parked_changes_nothing(
    stores: Stores, breaks: set[str], monkeypatch: pytest.MonkeyPatch, *, settled: bool
) -> None:
    uploaded = stores.uploaded(upload_of(row(1, batch="XY9999")), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)
    breaks.add(batch_id)
    for _ in range(MOST_TRIES - 2):
        with pytest.raises(Broken):
            stores.handle(uploaded)
    register, lines = stores.register, stores.bucket.batch_lines

    def freeze(*args: Any) -> Any:
        monkeypatch.setattr(stores.bucket, "batch_lines", lines)
        assert register.count_try(batch_id) == MOST_TRIES
        register.park(batch_id)
        breaks.clear()
        if settled:
            stores.ingesting.abandon(batch_id, "never mind")
        stores.accept(row(1), name="tuesday.csv")
        return lines(*args)

    monkeypatch.setattr(stores.bucket, "batch_lines", freeze)
    with pytest.raises(RuntimeError, match=f"^another run has parked {batch_id} meanwhile$"):
        stores.handle(uploaded)
    assert stores.handle(uploaded).status == ("abandoned" if settled else "ingested")
    assert told(stores) == [(uuid_of(1), "new", "AB1234")]
    assert stores.accept(row(1), name="wednesday.csv").unchanged == 1


def test_a_run_whose_upload_is_parked_once_its_last_batch_is_queued_leaves_it_parked(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)
    attach = stores.ledger.attach

    def attach_and_be_parked(*facts: Any) -> int | None:
        number = attach(*facts)
        stores.register.park(batch_id)
        return number

    monkeypatch.setattr(stores.ledger, "attach", attach_and_be_parked)
    with pytest.raises(RuntimeError, match=f"^another run has parked {batch_id} meanwhile$"):
        stores.handle(uploaded)
    assert stores.register.parked() == [batch_id]
    assert len(told(stores)) == 1


# -- what a person does about it


@on_every_database
def test_a_parked_upload_that_is_retried_is_ingested_afresh(stores: Stores, breaks: set[str]) -> None:
    batch_id = park(stores, breaks, row(1), row(2, "MenACWY"), programme="menacwy")
    stores.accept(row(3), name="tuesday.csv")
    receipt = stores.ingesting.retry(batch_id, "the table is back")
    assert isinstance(receipt, Receipt)
    assert (receipt.accepted, receipt.unchanged) == ({"menacwy": {"new": 1}}, 1)
    assert receipt.batch_id == stores.bucket.batch_id(MONDAY, receipt.version, retry_of=batch_id) != batch_id
    uploaded = MONDAY, receipt.version
    settled = stores.receipt_file(uploaded)
    assert (settled["status"], settled["retried_as"], settled["reason"]) == (
        "retried",
        receipt.batch_id,
        "the table is back",
    )
    assert stores.register.parked() == stores.register.unfinished() == []
    assert stores.handle(uploaded).status == "retried"
    assert stores.accept(row(1), row(2, "MenACWY"), name="again.csv").unchanged == 2
    assert len(told(stores, "menacwy")) == 1


@on_every_database
@pytest.mark.parametrize("method", ["begin", "put", "finish"])
def test_a_retry_that_dies_on_the_way_is_gone_on_with_and_sends_nothing_twice(
    stores: Stores, breaks: set[str], monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    batch_id = park(stores, breaks, row(1))

    def die(*_: Any, **__: Any) -> None:
        raise Died

    with monkeypatch.context() as dies:
        dies.setattr(stores.register, method, die)
        with pytest.raises(Died):
            stores.ingesting.retry(batch_id, "once")
    assert stores.ingesting.retry(batch_id, "twice").status == "ingested"
    assert told(stores) == [(uuid_of(1), "new", "AB1234")]
    assert stores.register.parked() == stores.register.unfinished() == []


def test_a_retry_of_a_file_that_is_gone_fails_and_leaves_it_to_be_abandoned(stores: Stores, breaks: set[str]) -> None:
    batch_id = park(stores, breaks, row(1))
    stored = stores.bucket.intake(batch_id)
    stores.bucket.put_intake(batch_id, replace(stored, version="77"))
    with pytest.raises(UploadGone):
        stores.ingesting.retry(batch_id, "let us see")
    assert stores.register.parked() == [batch_id]
    assert stores.ingesting.abandon(batch_id, "its file is gone").status == "abandoned"


@on_every_database
def test_a_parked_upload_that_is_abandoned_ends_with_a_receipt_that_says_so(stores: Stores, breaks: set[str]) -> None:
    batch_id = park(stores, breaks, row(1))
    stores.clock.forward(hours=1)
    ended = stores.ingesting.abandon(batch_id, "the team uploads another file")
    assert isinstance(ended, ParkedUpload)
    assert (ended.status, ended.reason) == ("abandoned", "the team uploads another file")
    assert ended.decided_at
    assert ended.decided_at > ended.parked_at
    assert stores.receipt_file((MONDAY, ended.version))["status"] == "abandoned"
    assert stores.register.parked() == []
    assert stores.handle((MONDAY, ended.version)) == ended
    assert stores.accept(row(1), name="another.csv").accepted == {"hpv": {"new": 1}}


@pytest.mark.parametrize("act", ["retry", "abandon"])
def test_what_is_not_parked_or_was_settled_before_stays_as_it_is(stores: Stores, breaks: set[str], act: str) -> None:
    """A request may come twice."""
    receipt = stores.accept(row(1))
    assert getattr(stores.ingesting, act)(receipt.batch_id, "a mistake") == receipt
    batch_id = park(stores, breaks, row(2), name="tuesday.csv")
    ended = stores.ingesting.abandon(batch_id, "once")
    assert getattr(stores.ingesting, act)(batch_id, "twice") == ended
    assert len(told(stores)) == 1


def test_what_is_parked_and_no_longer_stored_is_abandoned_all_the_same(stores: Stores, breaks: set[str]) -> None:
    batch_id = park(stores, breaks, row(1))
    version = stores.bucket.intake(batch_id).version
    stores.delete(f"batches/{batch_id}.json")
    nothing_known = ParkedUpload(batch_id=batch_id, upload="", version="", parked_at="", exports={})
    assert stores.handle((MONDAY, version)) == replace(nothing_known, upload=MONDAY, version=version)
    assert stores.ingesting.abandon(batch_id, "somebody deleted it") == replace(
        nothing_known,
        status="abandoned",
        reason="somebody deleted it",
        decided_at=f"{stores.clock():%Y-%m-%dT%H:%M:%S+00:00}",
    )
    assert stores.register.parked() == []
    assert stores.ingesting.abandon(batch_id, "once more") == nothing_known


@pytest.mark.parametrize("how", ["park", "finish"])
def test_an_upload_that_another_run_has_ended_meanwhile_is_not_parked_once_more(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str], how: str
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    batch_id = stores.bucket.batch_id(*uploaded)

    def fail(*_: Any) -> None:
        raise Broken

    def end_and_fail(*_: Any) -> None:
        getattr(stores.register, how)(batch_id)
        raise Broken

    with monkeypatch.context() as context:
        context.setattr(stores.ledger, "attach", fail)
        for _ in range(MOST_TRIES - 1):
            with pytest.raises(Broken):
                stores.handle(uploaded)
        context.setattr(stores.ledger, "attach", end_and_fail)
        logged()
        stores.handle(uploaded)
    assert "UploadsParked" not in logged()
    assert stores.register.parked() == ([batch_id] if how == "park" else [])
    assert stores.bucket.intake(batch_id).parked is None


def test_what_dps_refuses_while_its_correction_is_parked_goes_out_as_new_when_that_is_retried(
    stores: Stores, breaks: set[str]
) -> None:
    stores.accept(row(1))
    refused = stores.register.get([uuid_of(1)])[uuid_of(1)]
    corrected = park(stores, breaks, row(1, batch="XY9999"), name="corrected.csv")
    refusal = Refusal(Outcome.INVALID, "2026-11-24T12:00:00+00:00", "hpv-1", 1, "inbox/answer")
    stores.register.hear([replace(refused, on_file=OnFile.NO, refusal=refusal)])
    stores.ingesting.retry(corrected, "its cause is put right")
    assert told(stores)[-1] == (uuid_of(1), "new", "XY9999")


# -- abandoned after a retry that has died


@pytest.mark.parametrize("dies_at", ["nothing", "register", "attach", "finish"])
def test_what_is_abandoned_after_a_retry_that_died_is_sent_only_as_far_as_its_receipt_says(
    stores: Stores, breaks: set[str], monkeypatch: pytest.MonkeyPatch, dies_at: str
) -> None:
    """Its message is a dead letter, and the next upload would complete what the retry has begun."""
    batch_id = park(stores, breaks, row(1), name="stuck.csv")
    dying = {
        "nothing": (stores.register, "begin"),
        "register": (stores.register, "put"),
        "attach": (stores.ledger, "attach"),
        "finish": (stores.register, "finish"),
    }
    target, method = dying[dies_at]
    with monkeypatch.context() as broken:
        broken.setattr(target, method, Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stores.ingesting.retry(batch_id, "all is well again")
    assert stores.register.parked() == [batch_id]
    receipt = stores.ingesting.abandon(batch_id, "it is the wrong file after all")
    stores.accept(row(2), name="next.csv")
    sent = [who for who, *_ in told(stores) if who == uuid_of(1)]
    expected = {"hpv": "hpv-1"} if dies_at == "finish" else {}
    assert isinstance(receipt, ParkedUpload)
    assert (receipt.status, receipt.exports, len(sent)) == ("abandoned", expected, len(expected))
    assert (stores.register.parked(), stores.register.unfinished()) == ([], [])


def test_what_is_abandoned_after_its_retry_was_complete_but_not_noted_counts_as_retried(
    stores: Stores, breaks: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = park(stores, breaks, row(1), name="stuck.csv")
    with monkeypatch.context() as broken:
        broken.setattr(Ingest, "_settle", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            stores.ingesting.retry(batch_id, "all is well again")
    receipt = stores.ingesting.abandon(batch_id, "it is the wrong file after all")
    assert isinstance(receipt, ParkedUpload)
    assert (receipt.status, bool(receipt.retried_as)) == ("retried", True)
    assert len(told(stores)) == 1


# -- what the command says of it


@pytest.fixture
def mesh(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Give the command, on these stores."""
    wiring = SimpleNamespace(
        bucket=lambda: stores.bucket, register=lambda: stores.register, ledger=lambda: stores.ledger
    )
    identity = SimpleNamespace(get_caller_identity=lambda: {"Arn": "arn:aws:iam::123456789012:user/jo"})
    settings, clients = SimpleNamespace(event_bus=""), SimpleNamespace(identity=identity)
    here = SimpleNamespace(wiring=wiring, settings=settings, clients=clients, where="here")
    monkeypatch.setattr("mesh_cli.options.find_deployment", lambda *_: here)
    return lambda *arguments: CliRunner().invoke(app, arguments)


def test_a_record_that_dps_refused_is_found_and_sent_again_though_an_abandoned_upload_names_it(
    stores: Stores, breaks: set[str], mesh: Callable[..., Result]
) -> None:
    stores.accept(row(1), name="first.csv")
    known = stores.register.get([uuid_of(1)])[uuid_of(1)]
    refusal = Refusal(Outcome.UNKNOWN, "2026-11-24T12:00:00+00:00", "hpv-1", 1, "inbox/answer")
    stores.register.hear([replace(known, on_file=OnFile.NO, refusal=refusal)])
    batch_id = park(stores, breaks, row(1, batch="XY9999"), name="stuck.csv")
    stores.ingesting.abandon(batch_id, "the wrong file")
    assert [each["record"] for each in json.loads(mesh("refused", "--json").stdout)] == [uuid_of(1)]
    [story] = json.loads(mesh("record", "find", uuid_of(1), "--json").stdout)
    assert [(each["upload"], each["batch_id"], each["dps"]) for each in story["statements"]] == [
        ("incoming/R1L/first.csv", known.batch_id, "refused: unknown"),
        ("incoming/R1L/stuck.csv", batch_id, "never sent: its upload was parked"),
    ]
    asked = json.loads(mesh("record", "resend", uuid_of(1), "--reason", "why", "--wait", "0", "--json").stdout)
    stores.handle((asked["request"], asked["version"]))
    assert told(stores)[-1] == (uuid_of(1), "new", "AB1234")


def test_of_a_record_that_only_a_parked_upload_stated_it_is_told_that_it_is_never_sent(
    stores: Stores, breaks: set[str], mesh: Callable[..., Result]
) -> None:
    park(stores, breaks, row(1))
    found = mesh("record", "find", uuid_of(1), "--json")
    [story] = json.loads(found.stdout)
    assert [each["dps"] for each in story["statements"]] == ["never sent: its upload was parked"]
    assert story["on_file"] == "no"
    asked = mesh("record", "resend", uuid_of(1), "--reason", "why", "--wait", "0")
    assert (asked.exit_code, asked.stdout) == (1, "")


def test_an_upload_that_is_retried_until_it_is_ingested_is_shown_as_that(
    stores: Stores, breaks: set[str], mesh: Callable[..., Result]
) -> None:
    def shown() -> list[str]:
        [listed] = json.loads(mesh("uploads", "--json").stdout)
        receipt = json.loads(mesh("receipt", "R1L/monday.csv", "--json").stdout)
        assert (listed["status"], listed["batch_id"]) == (receipt["status"], receipt["batch_id"])
        return [receipt["status"], receipt["batch_id"]]

    parked = park(stores, breaks, row(1))
    assert shown() == ["parked", parked]
    for _ in range(2):
        again = stores.bucket.batch_id(MONDAY, stores.bucket.intake(parked).version, retry_of=parked)
        breaks.add(again)
        for _ in range(MOST_TRIES):
            with suppress(Broken):
                stores.ingesting.retry(parked, "it may be well again")
        breaks.clear()
        assert shown() == ["parked", again]
        parked = again
    receipt = stores.ingesting.retry(parked, "it is well again")
    assert shown() == ["ingested", receipt.batch_id]


@pytest.mark.parametrize("name", ["{}", "R1L/{}", "incoming/R1L/{}"])
def test_a_receipt_that_is_not_there_tells_no_such_upload_from_one_that_waits_is_parked_or_was_rejected(
    stores: Stores, breaks: set[str], mesh: Callable[..., Result], name: str
) -> None:
    park(stores, breaks, row(1), name="stuck.csv")
    stores.ingest(b"\x00\x01", "monday.xlsx")
    stores.accept(row(2), name="good.csv")
    stores.uploaded(upload_of(row(3)), "new.csv")
    told = {}
    for file in ("nothing.csv", "new.csv", "stuck.csv", "monday.xlsx", "good.csv"):
        done = mesh("receipt", name.format(file))
        told[file] = (done.exit_code, " ".join(done.output.split()))
    words = ["There is no upload", "waits to be ingested", "Parked: the upload could not be ingested", "Rejected:"]
    for (file, (code, said)), word in zip(told.items(), words, strict=False):
        assert (code, word in said) == (1, True), (file, said)
        assert not [other for other in words if other != word and other in said], (file, said)
    assert "mesh uploads retry R1L/stuck.csv" in told["stuck.csv"][1]
    assert told["good.csv"][0] == 0
    assert json.loads(mesh("receipt", name.format("new.csv"), "--json").stdout)["status"] == "waiting"


def test_the_receipt_of_the_version_before_is_not_taken_for_that_of_an_upload_that_waits(
    stores: Stores, mesh: Callable[..., Result]
) -> None:
    stores.accept(row(1), name="monday.csv")
    stores.uploaded(upload_of(row(1), row(2)), "monday.csv")
    done = mesh("receipt", "monday.csv")
    assert done.exit_code == 1
    assert "waits to be ingested" in done.stderr
    assert "1 row: 1 accepted" in done.stdout


def test_a_name_that_several_organisations_gave_a_file_is_asked_for_with_its_folder(
    stores: Stores, mesh: Callable[..., Result]
) -> None:
    stores.accept(row(1), name="monday.csv")
    stores.ingest(upload_of(row(2)), "monday.csv", "RX1")
    done = mesh("receipt", "monday.csv")
    assert done.exit_code == 2
    assert "R1L/monday.csv, RX1/monday.csv" in done.stderr
    assert mesh("receipt", "RX1/monday.csv").exit_code == 0


def test_uploads_are_told_apart_by_where_they_are_and_a_parked_one_is_ended_by_its_name_alone(
    stores: Stores, breaks: set[str], mesh: Callable[..., Result]
) -> None:
    park(stores, breaks, row(1), name="stuck.csv")
    stores.ingest(b"\x00\x01", "monday.xlsx")
    stores.uploaded(upload_of(row(3)), "new.csv")
    for status, name in (("parked", "stuck.csv"), ("rejected", "monday.xlsx"), ("waiting", "new.csv")):
        [found] = json.loads(mesh("uploads", "--status", status, "--json").stdout)
        assert found["upload"] == f"incoming/R1L/{name}"
    assert len(json.loads(mesh("uploads", "--limit", "2", "--json").stdout)) == 2
    assert "no such upload is parked" in mesh("uploads", "abandon", "new.csv", "--reason", "x").stderr
    asked = mesh("uploads", "abandon", "stuck.csv", "--reason", "x", "--wait", "0")
    assert "no such upload" not in asked.stderr
