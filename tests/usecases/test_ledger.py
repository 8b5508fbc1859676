"""Promises of the ledger, in memory, on moto's server, on tables in memory, and on DynamoDB Local, AWS's own."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.stores import STORES
from vaccinations.aws.ledger import Ledger
from vaccinations.model import lifecycle
from vaccinations.model.export import Failure, FileNames, Manifest, PartFacts, Phase, Processing, Status
from vaccinations.model.lifecycle import ImpossibleMove, LeaseLost, LeaseTaken
from vaccinations.ports import LedgerConflict

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from tests.usecases.stores import Stores
    from vaccinations.model.export import DPSExport

on_every_database = pytest.mark.parametrize("stores", [*STORES, "tables", "DynamoDB Local"], indirect=True)
on_tables = pytest.mark.parametrize("stores", ["moto", "tables", "DynamoDB Local"], indirect=True)
ERROR = Failure("12", "Unregistered to address")


def name(moment: datetime, sequence: int) -> FileNames:
    return FileNames(f"file-{moment:%Y-%m-%d}-{sequence}.csv", f"Mesh-{moment:%Y%m%d%H%M%S}.csv")


def attach(stores: Stores, batch_id: str, programme: str = "hpv", records: int = 3) -> int | None:
    if stores.register.intake(batch_id) is None:
        stores.register.begin(batch_id, {programme: records}, stores.register.begun())
    return stores.ledger.attach(programme, batch_id, records)


def begin(stores: Stores, export: DPSExport, how: Callable[..., DPSExport]) -> DPSExport:
    return stores.ledger.begin_attempt(export, partial(how, now=stores.clock()), name)


def sealed(stores: Stores, batch_id: str = "a") -> DPSExport:
    number = attach(stores, batch_id)
    assert number
    return begin(stores, stores.ledger.get("hpv", number), lifecycle.seal)


def leased(stores: Stores, batch_id: str = "a", holder: str = "run-1") -> DPSExport:
    return lease(stores, sealed(stores, batch_id), holder)


def lease(stores: Stores, export: DPSExport, holder: str = "run-1") -> DPSExport:
    now = stores.clock()
    until = now + timedelta(minutes=15)
    return stores.ledger.change(export, lambda current: lifecycle.take_lease(current, holder, until, now))


def move(stores: Stores, export: DPSExport, how: Callable[..., DPSExport], *facts: Any) -> DPSExport:
    now = stores.clock()
    return stores.ledger.change(export, lambda current: how(current, *facts, now))


def sending(stores: Stores, export: DPSExport, holder: str = "run-1") -> DPSExport:
    return move(stores, move(stores, export, lifecycle.render, holder, 1), lifecycle.begin_sending, holder)


def accepted(stores: Stores, batch_id: str = "a") -> DPSExport:
    return move(stores, sending(stores, leased(stores, batch_id)), lifecycle.accept, "run-1", f"MESSAGE-{batch_id}")


# --- gathering


@on_every_database
def test_batches_gather_in_one_open_export_in_the_order_they_came(stores: Stores) -> None:
    assert [attach(stores, batch) for batch in ("c", "a", "b")] == [1, 1, 1]
    export = stores.ledger.get("hpv", 1)
    assert (export.export_id, export.status, export.records) == ("hpv-1", Status.OPEN, 9)
    assert export.batches == ("c", "a", "b")
    for batch in export.batches:
        intake = stores.register.intake(batch)
        assert intake
        assert intake.attached == {"hpv": 1}


def meanwhile(stores: Stores, monkeypatch: pytest.MonkeyPatch, what: Callable[[], object]) -> None:
    """Let something happen once an export is about to be opened."""
    assert isinstance(stores.ledger, Ledger)
    opening = stores.ledger._opening

    def prepared(*facts: Any) -> Any:
        monkeypatch.undo()
        items = opening(*facts)
        what()
        return items

    monkeypatch.setattr(stores.ledger, "_opening", prepared)


@on_tables
def test_two_uploads_that_open_an_export_at_the_same_time_are_both_in_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(stores, monkeypatch, lambda: attach(stores, "b"))
    assert attach(stores, "a") == 1
    assert stores.ledger.get("hpv", 1).batches == ("b", "a")


@on_tables
def test_a_batch_that_another_run_attaches_at_the_same_time_is_in_one_export(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    meanwhile(stores, monkeypatch, lambda: attach(stores, "a"))
    assert attach(stores, "a") is None
    assert [export.records for export in stores.ledger.exports("hpv")] == [3]


@pytest.mark.parametrize("sealed_before", [0, 1], ids=["the first", "a later one"])
@on_tables
def test_no_export_is_opened_below_one_that_a_reset_has_opened_meanwhile(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, sealed_before: int
) -> None:
    for number in range(sealed_before):
        sealed(stores, f"before-{number}")

    def reset() -> None:
        attach(stores, "b")
        assert isinstance(stores.ledger, Ledger)
        stores.ledger.reset("hpv")

    meanwhile(stores, monkeypatch, reset)
    number = attach(stores, "a")
    assert number == sealed_before + 2
    assert [export.number for export in stores.ledger.exports("hpv")] == [number]


@on_tables
def test_an_upload_that_others_always_outrun_is_a_conflict(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaccinations.aws.backoff.sleep", lambda _: None)
    monkeypatch.setattr(stores.ledger, "_transact", lambda *_: ["None", "TransactionConflict"])
    with pytest.raises(LedgerConflict, match=r"^no open export of hpv could be had; try again$"):
        attach(stores, "a")
    assert list(stores.ledger.exports("hpv")) == []


@on_every_database
def test_a_batch_changes_its_export_so_that_everybody_who_read_it_before_notices(stores: Stores) -> None:
    attach(stores, "a")
    before = stores.ledger.get("hpv", 1)
    stores.clock.forward(hours=1)
    attach(stores, "b")
    after = stores.ledger.get("hpv", 1)
    assert (after.created_at, after.updated_at) == (before.created_at, stores.clock())
    assert after.revision == before.revision + 1


@on_every_database
def test_a_batch_is_attached_once_however_often_it_is_tried(stores: Stores) -> None:
    assert attach(stores, "a") == 1
    assert attach(stores, "a") is None
    assert stores.ledger.get("hpv", 1).records == 3
    intake = stores.register.intake("a")
    assert intake
    assert intake.attached == {"hpv": 1}


@on_every_database
def test_a_batch_of_a_sealed_export_is_not_attached_again_to_the_next(stores: Stores) -> None:
    sealed(stores)
    assert attach(stores, "a") is None
    assert [export.number for export in stores.ledger.exports("hpv")] == [1]


@on_every_database
def test_a_batch_that_comes_after_the_sealing_goes_into_the_next_export(stores: Stores) -> None:
    sealed(stores)
    assert attach(stores, "b") == 2
    assert stores.ledger.get("hpv", 1).batches == ("a",)
    assert stores.ledger.get("hpv", 2).batches == ("b",)


@on_tables
def test_a_full_export_lets_the_next_one_open(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaccinations.aws.ledger.MAX_BATCHES", 2)
    assert [attach(stores, batch) for batch in "abc"] == [1, 1, 2]


@on_every_database
def test_programmes_have_exports_of_their_own(stores: Stores) -> None:
    attach(stores, "a", "hpv")
    attach(stores, "b", "flu")
    assert [export.export_id for export in stores.ledger.exports("hpv")] == ["hpv-1"]
    assert [export.export_id for export in stores.ledger.exports("flu")] == ["flu-1"]


@on_every_database
def test_an_unknown_export_is_a_key_error(stores: Stores) -> None:
    with pytest.raises(KeyError, match="hpv-7"):
        stores.ledger.get("hpv", 7)
    attach(stores, "a")
    with pytest.raises(KeyError, match="hpv-0"):
        stores.ledger.get("hpv", 0)


# --- reading


@on_every_database
def test_exports_are_listed_oldest_first_or_the_latest_first_without_their_batches(stores: Stores) -> None:
    for batch in "abc":
        sealed(stores, batch)
    listed = list(stores.ledger.exports("hpv"))
    assert [(export.number, export.batches) for export in listed] == [(1, ()), (2, ()), (3, ())]
    assert [export.number for export in stores.ledger.latest("hpv", 2)] == [3, 2]
    assert [export.number for export in stores.ledger.latest("hpv", 10)] == [3, 2, 1]
    assert [replace(export, batches=(batch,)) for export, batch in zip(listed, "abc", strict=True)] == [
        stores.ledger.get("hpv", number) for number in (1, 2, 3)
    ]


@pytest.mark.parametrize("stores", ["tables"], indirect=True)
def test_the_latest_exports_are_read_at_once_and_no_others(stores: Stores) -> None:
    for batch in "abcdef":
        sealed(stores, batch)
    before = len(stores.dynamodb.pages)
    assert [export.number for export in stores.ledger.latest("hpv", 4)] == [6, 5, 4, 3]
    assert stores.dynamodb.pages[before:] == [4]


@on_every_database
def test_by_status_finds_the_exports_of_every_programme_longest_in_it_first(stores: Stores) -> None:
    attach(stores, "a", "hpv")
    stores.clock.forward(hours=1)
    later = stores.clock()
    attach(stores, "b", "flu")
    assert [export.export_id for export in stores.ledger.by_status(Status.OPEN)] == ["hpv-1", "flu-1"]
    assert [export.export_id for export in stores.ledger.by_status(Status.OPEN, later)] == ["flu-1"]
    assert list(stores.ledger.by_status(Status.ACCEPTED)) == []


# --- names


@on_every_database
def test_exports_of_one_day_bear_numbered_names(stores: Stores) -> None:
    today = stores.clock.today
    assert sealed(stores, "a").attempts[-1].filename.endswith("-1.csv")
    assert sealed(stores, "b").attempts[-1].filename.endswith("-2.csv")
    stores.clock.forward(days=1)
    assert stores.clock.today != today
    assert sealed(stores, "c").attempts[-1].filename.endswith("-1.csv")


@on_every_database
def test_no_two_names_of_a_programme_share_a_second(stores: Stores) -> None:
    names = [sealed(stores, batch).attempts[-1].mesh_filename for batch in "abc"]
    assert names == [name(stores.clock() + timedelta(seconds=n), 1).mesh_filename for n in range(3)]


@pytest.mark.parametrize("stores", ["tables"], indirect=True)
def test_a_name_is_used_up_at_the_first_try(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    transactions: list[Any] = []
    whole = stores.dynamodb.transact_write_items

    def watched(**given: Any) -> Any:
        transactions.append(given)
        return whole(**given)

    for number, batch in enumerate("abc", start=1):
        attach(stores, batch)
        export = stores.ledger.get("hpv", number)
        with monkeypatch.context() as patch:
            patch.setattr(stores.dynamodb, "transact_write_items", watched)
            begin(stores, export, lifecycle.seal)
        assert len(transactions) == number


@pytest.mark.parametrize("first", [False, True], ids=["later", "the first of all"])
@on_tables
def test_two_attempts_that_are_named_at_the_same_time_bear_two_names(stores: Stores, *, first: bool) -> None:
    failed = move(stores, sending(stores, leased(stores, "a")), lifecycle.refuse, "run-1", ERROR)
    attach(stores, "b")
    if first:
        lose_cursor(stores)
        stores.clock.forward(minutes=1)  # past the names that the cursor has forgotten
    others: list[DPSExport] = []

    def meanwhile(export: DPSExport, names: FileNames) -> DPSExport:
        if not others:
            stores.clock.forward(seconds=5)
            others.append(begin(stores, stores.ledger.get("hpv", 2), lifecycle.seal))
        return lifecycle.retry(export, names, stores.clock())

    again = stores.ledger.begin_attempt(failed, meanwhile, name)
    assert len({export.attempts[-1].filename for export in (*others, again)}) == 2


def lose_cursor(stores: Stores) -> None:
    """Let the programme's cursor forget its names."""
    stores.dynamodb.update_item(
        TableName=stores.tables[0],
        Key={"programme": {"S": "hpv"}, "number": {"N": "0"}},
        UpdateExpression="REMOVE named_on, named, named_at",
    )


@on_every_database
def test_an_answer_finds_the_attempt_that_bore_the_name_in_any_case(stores: Stores) -> None:
    first = leased(stores)
    failed = move(stores, sending(stores, first), lifecycle.refuse, "run-1", ERROR)
    second = begin(stores, failed, lifecycle.retry)
    attach(stores, "b", "flu")
    for attempt in second.attempts:
        found = stores.ledger.find(attempt.mesh_filename.removesuffix(".csv").upper())
        assert found == (second, attempt.number)
    assert stores.ledger.find("Vaccinations-of-somebody-else") is None
    assert stores.ledger.find("x" * 5_000) is None


@on_every_database
def test_an_answer_to_the_longest_name_that_mesh_takes_finds_its_attempt(stores: Stores) -> None:
    attach(stores, "a")
    longest = "n" * 300
    begin = partial(lifecycle.seal, now=stores.clock())
    export = stores.ledger.begin_attempt(stores.ledger.get("hpv", 1), begin, lambda *_: FileNames("short.csv", longest))
    assert stores.ledger.find(longest) == (export, 1)
    assert stores.ledger.find("n" * 301) is None


@on_every_database
def test_a_name_is_looked_for_without_its_extension_and_no_less(stores: Stores) -> None:
    attach(stores, "a")
    begin = partial(lifecycle.seal, now=stores.clock())
    names = FileNames("a.csv", "Vaccinations.2026.csv")
    export = stores.ledger.begin_attempt(stores.ledger.get("hpv", 1), begin, lambda *_: names)
    assert stores.ledger.find("vaccinations.2026") == (export, 1)
    assert stores.ledger.find("vaccinations") is None


@on_tables
def test_a_name_that_was_used_before_the_cursor_was_lost_is_passed_over(stores: Stores) -> None:
    before = [sealed(stores, "a"), sealed(stores, "b")]
    lose_cursor(stores)
    after = sealed(stores, "c")
    assert after.attempts[-1].mesh_filename == name(stores.clock() + timedelta(seconds=2), 3).mesh_filename
    assert after.attempts[-1].filename.endswith("-3.csv")
    for export in (*before, after):
        found = stores.ledger.find(export.attempts[-1].mesh_filename.removesuffix(".csv"))
        assert found
        assert found[0].export_id == export.export_id


# --- changing


@on_every_database
def test_an_export_is_read_as_it_was_written(stores: Stores) -> None:
    export = move(stores, sending(stores, leased(stores)), lifecycle.refuse, "run-1", ERROR)
    again = begin(stores, export, lifecycle.retry)
    again = lease(stores, again)
    again = move(stores, again, lifecycle.begin_sending, "run-1")
    again = move(stores, again, lifecycle.accept, "run-1", "M")
    again = move(stores, again, lifecycle.acknowledge, "M")
    now = stores.clock()
    facts = {"rows_processed": 2, "rows_refused": 1}
    again = stores.ledger.change(again, lambda e: lifecycle.hear(e, 2, Processing.PROCESSED, now, **facts))
    assert stores.ledger.get("hpv", 1) == again
    assert [attempt.error for attempt in again.attempts] == [ERROR, None]
    assert (again.attempts[1].rows_processed, again.attempts[1].rows_refused) == (2, 1)
    assert again.attempts[1].phase is Phase.SENDING


@on_every_database
@pytest.mark.parametrize(
    ("how", "facts"),
    [
        (lifecycle.accept, ("run-1", "M")),
        (lifecycle.refuse, ("run-1", ERROR)),
        (lifecycle.mark_unclear, ("run-1", ERROR)),
        (lifecycle.release, ("run-1",)),
    ],
    ids=["accepted", "refused", "unclear", "released"],
)
def test_an_export_that_a_run_has_done_with_keeps_no_lease(
    stores: Stores, how: Callable[..., DPSExport], facts: tuple[Any, ...]
) -> None:
    move(stores, sending(stores, leased(stores)), how, *facts)
    assert stores.ledger.get("hpv", 1).lease is None


@on_every_database
def test_an_accepted_export_keeps_no_error_of_before(stores: Stores) -> None:
    export = move(stores, sending(stores, leased(stores)), lifecycle.lose_answer, "run-1", ERROR)
    export = move(stores, export, lifecycle.find_message, "run-1", "M", 1)
    move(stores, export, lifecycle.accept, "run-1", "M")
    assert stores.ledger.get("hpv", 1).attempts[-1].error is None


@on_every_database
def test_each_write_is_counted_once(stores: Stores) -> None:
    export = sealed(stores)
    taken = lease(stores, export)
    assert taken.revision == export.revision + 1
    assert stores.ledger.get("hpv", 1).revision == taken.revision


@pytest.mark.parametrize("stores", ["tables"], indirect=True)
@pytest.mark.usefixtures("far_away")
def test_times_are_written_in_utc_wherever_the_machine_is(stores: Stores) -> None:
    attach(stores, "a")
    item = stores.dynamodb.get_item(
        TableName="exports", Key={"programme": {"S": "hpv"}, "number": {"N": "1"}}, ConsistentRead=True
    )["Item"]
    assert item["updated_at"]["S"] == stores.clock().isoformat(timespec="milliseconds")


@on_every_database
def test_only_one_of_two_runs_seals_an_export(stores: Stores) -> None:
    attach(stores, "a")
    export = stores.ledger.get("hpv", 1)
    begin(stores, export, lifecycle.seal)
    with pytest.raises(ImpossibleMove):
        begin(stores, export, lifecycle.seal)
    assert len(stores.ledger.get("hpv", 1).attempts) == 1


@on_every_database
def test_a_batch_that_is_attached_while_an_export_is_sealed_is_sealed_with_it(stores: Stores) -> None:
    attach(stores, "a")
    export = stores.ledger.get("hpv", 1)
    attach(stores, "b")
    assert begin(stores, export, lifecycle.seal).records == 6
    assert stores.ledger.get("hpv", 1).batches == ("a", "b")


@on_every_database
def test_only_one_run_holds_the_lease(stores: Stores) -> None:
    export = sealed(stores)
    lease(stores, export, "run-1")
    with pytest.raises(LeaseTaken):
        lease(stores, export, "run-2")


@on_every_database
def test_a_lease_that_ran_out_is_taken_over_and_its_holder_writes_no_more(stores: Stores) -> None:
    first = leased(stores)
    stores.clock.forward(minutes=16)
    second = lease(stores, first, "run-2")
    with pytest.raises(LeaseLost):
        move(stores, first, lifecycle.render, "run-1", 1)
    assert sending(stores, second, "run-2").attempts[-1].sending_at == stores.clock()


@on_every_database
def test_a_change_that_is_not_possible_writes_nothing(stores: Stores) -> None:
    export = sealed(stores)
    with pytest.raises(ImpossibleMove):
        move(stores, export, lifecycle.acknowledge, "M")
    assert stores.ledger.get("hpv", 1) == export


@on_every_database
def test_a_change_is_made_on_what_others_have_written_meanwhile(stores: Stores) -> None:
    export = accepted(stores)
    now = stores.clock()
    heard = stores.ledger.change(export, lambda e: lifecycle.hear(e, 1, Processing.RECEIVED, now))
    # With the export as it was read before that.
    both = move(stores, export, lifecycle.acknowledge, "MESSAGE-a")
    assert (both.status, both.processing) == (Status.ACKNOWLEDGED, Processing.RECEIVED)
    assert both.attempts[-1].received_at == heard.attempts[-1].received_at


@on_tables
def test_a_change_that_others_always_outrun_is_a_conflict(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vaccinations.aws.backoff.sleep", lambda _: None)
    export = accepted(stores)
    stranger = Ledger(stores.dynamodb, *stores.tables, clock=stores.clock)

    def outrun(current: DPSExport) -> DPSExport:
        stores.clock.forward(seconds=1)
        now = stores.clock()
        stranger.change(current, lambda e: replace(e, updated_at=now))
        return replace(current, records=7)

    with pytest.raises(LedgerConflict, match="hpv-1"):
        stores.ledger.change(export, outrun)
    assert stores.ledger.get("hpv", 1).records == 3


@on_tables
def test_an_attempt_that_others_always_outrun_is_a_conflict_and_uses_up_no_name(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaccinations.aws.backoff.sleep", lambda _: None)
    attach(stores, "a")
    stranger = Ledger(stores.dynamodb, *stores.tables, clock=stores.clock)

    def outrun(current: DPSExport, names: FileNames) -> DPSExport:
        stranger.change(current, lambda e: replace(e, records=e.records + 1))
        return lifecycle.seal(current, names, stores.clock())

    with pytest.raises(LedgerConflict, match="hpv-1"):
        stores.ledger.begin_attempt(stores.ledger.get("hpv", 1), outrun, name)
    assert stores.ledger.get("hpv", 1).status is Status.OPEN
    assert begin(stores, stores.ledger.get("hpv", 1), lifecycle.seal).attempts[0].filename.endswith("-1.csv")


@on_tables
def test_a_write_whose_answer_was_lost_and_that_is_repeated_is_success_and_is_told(stores: Stores) -> None:
    told: list[DPSExport] = []
    ledger = Ledger(stores.dynamodb, *stores.tables, clock=stores.clock, changed=told.append)
    export = accepted(stores)
    real = stores.dynamodb.update_item

    class Repeating:
        """boto3, whose first answer was lost: it makes the same write again, which meets itself."""

        exceptions = stores.dynamodb.exceptions

        def __getattr__(self, name: str) -> Any:
            return getattr(stores.dynamodb, name)

        def update_item(self, **request: Any) -> Any:
            real(**request)
            return real(**request)

    ledger._dynamodb = Repeating()  # type: ignore[assignment]
    now = stores.clock()
    written = ledger.change(export, lambda e: lifecycle.acknowledge(e, "MESSAGE-a", now))
    assert written.status is Status.ACKNOWLEDGED
    assert [heard.status for heard in told] == [Status.ACKNOWLEDGED]
    assert written == stores.ledger.get("hpv", 1)


@on_tables
def test_only_changes_of_state_and_answers_are_told(stores: Stores) -> None:
    told: list[str] = []
    stores.ledger = Ledger(
        stores.dynamodb,
        *stores.tables,
        clock=stores.clock,
        changed=lambda export: told.append(f"{export.status} {export.processing}"),
    )
    export = accepted(stores)
    now = stores.clock()
    stores.ledger.change(export, lambda e: lifecycle.hear(e, 1, Processing.RECEIVED, now))
    assert told == ["pending None", "accepted None", "accepted received"]


@on_tables
def test_a_reset_gathers_everything_in_a_new_export_and_names_go_on(stores: Stores) -> None:
    first = sealed(stores, "a")
    attach(stores, "b")
    assert isinstance(stores.ledger, Ledger)
    assert stores.ledger.reset("hpv") == 3
    [export] = stores.ledger.exports("hpv")
    assert (export.number, export.status, export.records) == (3, Status.OPEN, 6)
    assert stores.ledger.get("hpv", 3).batches == ("a", "b")
    assert stores.ledger.find(first.attempts[-1].mesh_filename.removesuffix(".csv")) is None
    assert attach(stores, "c") == 3
    assert sealed(stores, "d").attempts[-1].mesh_filename != first.attempts[-1].mesh_filename


@on_tables
def test_a_reset_of_a_programme_that_never_had_an_export_opens_its_first(stores: Stores) -> None:
    assert isinstance(stores.ledger, Ledger)
    assert stores.ledger.reset("hpv") == 1
    [export] = stores.ledger.exports("hpv")
    assert (export.number, export.status, export.records) == (1, Status.OPEN, 0)
    assert attach(stores, "a") == 1


@on_tables
def test_a_reset_gives_way_to_whoever_works_on_the_programme(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    export = sealed(stores)
    assert isinstance(stores.ledger, Ledger)
    opening = stores.ledger._opening

    def meanwhile(*facts: Any) -> Any:
        monkeypatch.undo()
        prepared = opening(*facts)
        attach(stores, "b")
        return prepared

    monkeypatch.setattr(stores.ledger, "_opening", meanwhile)
    with pytest.raises(LedgerConflict, match=r"^hpv is being worked on \(ConditionalCheckFailed\); try again$"):
        stores.ledger.reset("hpv")
    assert stores.ledger.get("hpv", 1) == export
    assert stores.ledger.get("hpv", 2).batches == ("b",)


# --- after the table was put back to an earlier moment


def manifest(names: tuple[FileNames, ...], batches: tuple[str, ...] = ("a",)) -> Manifest:
    return Manifest("hpv-1", 1, batches, names, 3, (PartFacts(1, 3, 9, "digest"),), None)


MONDAY, TUESDAY = FileNames("monday.csv", "Mesh-Monday.csv"), FileNames("tuesday.csv", "Mesh-Tuesday.csv")


@on_every_database
def test_an_export_is_put_back_with_the_names_that_its_attempts_bore(stores: Stores) -> None:
    attach(stores, "a")
    attach(stores, "b")
    known = stores.ledger.get("hpv", 1)
    put_back = lifecycle.restore(known, manifest((MONDAY, TUESDAY)), stores.clock())
    opened = replace(known, number=2, batches=("b",), records=3, revision=1)
    stores.ledger.put_back("hpv", [(known, put_back), (None, opened)], 2)
    written = stores.ledger.get("hpv", 1)
    assert (written.state, written.batches, written.names) == (Phase.OUTCOME_UNKNOWN, ("a",), (MONDAY, TUESDAY))
    assert written.revision == known.revision + 1
    for attempt, stem in enumerate(("MESH-monday", "mesh-tuesday"), start=1):
        assert stores.ledger.find(stem) == (written, attempt)
    assert stores.ledger.get("hpv", 2).batches == ("b",)
    assert attach(stores, "c") == 2


@on_every_database
def test_an_export_that_is_forgotten_is_put_back_once(stores: Stores) -> None:
    forgotten = replace(sealed(stores), number=7, batches=("z",), revision=1)
    stores.ledger.put_back("hpv", [(None, forgotten)], 0)
    assert stores.ledger.get("hpv", 7).batches == ("z",)
    with pytest.raises(LedgerConflict, match="hpv"):
        stores.ledger.put_back("hpv", [(None, forgotten)], 9)
    assert stores.ledger.highest("hpv") == 1


@on_every_database
def test_an_export_that_changed_meanwhile_is_not_put_back(stores: Stores) -> None:
    attach(stores, "a")
    known = stores.ledger.get("hpv", 1)
    attach(stores, "b")
    with pytest.raises(LedgerConflict, match="hpv"):
        stores.ledger.put_back("hpv", [(known, lifecycle.restore(known, manifest((MONDAY,)), stores.clock()))], 5)
    assert (stores.ledger.get("hpv", 1).status, stores.ledger.highest("hpv")) == (Status.OPEN, 1)
    assert stores.ledger.find("mesh-monday") is None


@on_every_database
def test_numbers_that_are_passed_over_are_not_used(stores: Stores) -> None:
    assert stores.ledger.highest("hpv") == 0
    stores.ledger.put_back("hpv", [], 4)
    stores.ledger.put_back("hpv", [], 3)
    stores.ledger.put_back("hpv", [], 0)
    assert stores.ledger.highest("hpv") == 4
    assert attach(stores, "a") == 5
    assert stores.ledger.highest("hpv") == 5
    stores.ledger.put_back("hpv", [], 9)
    assert attach(stores, "b") == 10


@on_tables
@pytest.mark.parametrize("gathering", [False, True])
def test_numbers_are_not_passed_over_where_an_export_is_opened_meanwhile(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, *, gathering: bool
) -> None:
    if gathering:
        sealed(stores)
    transact = Ledger._transact

    def slow(ledger: Ledger, *items: Any, **options: Any) -> Any:
        monkeypatch.setattr(Ledger, "_transact", transact)
        attach(stores, "b")
        return transact(ledger, *items, **options)

    monkeypatch.setattr(Ledger, "_transact", slow)
    with pytest.raises(LedgerConflict, match=r"hpv is being worked on \(ConditionalCheckFailed\)"):
        stores.ledger.put_back("hpv", [], 9)
    assert stores.ledger.highest("hpv") == (2 if gathering else 1)
