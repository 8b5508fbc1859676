"""Promises of the register, in memory and on DynamoDB."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from tests.entries import STATED_AT
from tests.usecases.rows import uuid_of
from tests.usecases.stores import on_every_database, on_moto
from vaccinations.aws import backoff
from vaccinations.model.entry import WITHDRAWN, Entry, Intake, Place, Refusal
from vaccinations.model.outcome import Action, OnFile, Outcome

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.usecases.stores import Stores

#: For tests of what is between a request and its answer.
on_tables = pytest.mark.parametrize("stores", ["moto", "DynamoDB Local"], indirect=True)


def entry(n: int, **changes: Any) -> Entry:
    return replace(Entry(uuid_of(n), "hpv", "d1", Action.NEW, "batch", n + 2, "R1L", STATED_AT, STATED_AT), **changes)


def refused(n: int, at: str = "2026-11-24T12:00:00+00:00", why: Outcome = Outcome.INVALID, **changes: Any) -> Entry:
    """Make a `new` that DPS refused, after which the record is not on file unless it was a duplicate."""
    facts = {"on_file": OnFile.YES if why is Outcome.DUPLICATE else OnFile.NO}
    return entry(n, refusal=Refusal(why, at, "hpv-1", n, "inbox/answer"), **facts | changes)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backoff, "sleep", lambda _: None)


@on_every_database
def test_what_was_put_is_found_and_what_was_never_ingested_is_left_out(stores: Stores) -> None:
    entries = [entry(n, on_file=[*OnFile][n % 3], action=[*Action][n % 3]) for n in range(230)]
    stores.register.put(entries)
    found = stores.register.get(uuid_of(n) for n in range(240))
    assert found == {e.record_id: e for e in entries}
    assert {type(e.action) for e in found.values()} == {Action}


@on_every_database
def test_where_a_record_comes_twice_the_later_entry_counts(stores: Stores) -> None:
    stores.register.put([entry(1), entry(2), entry(1, digest="d2"), entry(1, digest="d3")])
    stores.register.put([entry(2, digest="d4")])
    assert {e.digest for e in stores.register.get([uuid_of(1), uuid_of(2)]).values()} == {"d3", "d4"}


@on_every_database
def test_a_refusal_is_noted_at_the_statement_that_was_refused_and_only_there(stores: Stores) -> None:
    stores.register.put([entry(1), entry(2), entry(3)])
    stores.register.put([entry(2, batch_id="newer")])
    stores.register.put([entry(3, line=99)])
    stores.register.hear([refused(1), refused(2), refused(3), refused(4)])
    found = stores.register.get(map(uuid_of, range(1, 5)))
    assert found == {
        uuid_of(1): refused(1),
        uuid_of(2): entry(2, batch_id="newer"),
        uuid_of(3): entry(3, line=99),
    }


@on_every_database
def test_a_refusal_that_is_noted_stays_as_it_was_first_noted(stores: Stores) -> None:
    stores.register.put([entry(1)])
    stores.register.hear([refused(1)])
    stores.register.hear([refused(1, at="2026-12-24T12:00:00+00:00", why=Outcome.DUPLICATE)])
    assert stores.register.get([uuid_of(1)]) == {uuid_of(1): refused(1)}


@on_every_database
def test_a_refused_record_that_dps_has_after_all_is_on_file_again(stores: Stores) -> None:
    stores.register.put([entry(1, on_file=OnFile.NO)])
    stores.register.hear([refused(1, why=Outcome.DUPLICATE)])
    assert stores.register.get([uuid_of(1)])[uuid_of(1)].on_file is OnFile.YES


@on_every_database
def test_what_followed_a_new_that_dps_refused_is_not_on_file_either(stores: Stores) -> None:
    """Whichever answer comes first, and in whichever transaction: an `update` alone puts nothing on file."""

    def update(n: int, **changes: Any) -> Entry:
        facts = {"batch_id": "newer", "action": Action.UPDATE, "new_in": entry(n).statement}
        return entry(n, **facts | changes)

    def not_permitted(n: int) -> Entry:
        return update(n, refusal=Refusal(Outcome.NOT_PERMITTED, "2026-11-25", "hpv-2", n, "inbox/other"))

    stores.register.put([update(1), update(2), update(3), update(4, new_in=Place("another", 6))])
    stores.register.hear([refused(1), not_permitted(2), refused(3), not_permitted(3)])
    stores.register.hear([not_permitted(1), refused(2), refused(4)])
    found = stores.register.get(map(uuid_of, range(1, 5)))
    assert [found[uuid_of(n)].on_file for n in range(1, 5)] == [OnFile.NO] * 3 + [OnFile.YES]
    assert [bool(found[uuid_of(n)].refusal) for n in range(1, 5)] == [True] * 3 + [False]


@on_every_database
def test_a_new_statement_clears_the_refusal_of_the_old_one(stores: Stores) -> None:
    stores.register.put([entry(1)])
    stores.register.hear([refused(1)])
    stores.register.put([entry(1, digest="d2", batch_id="newer")])
    assert stores.register.get([uuid_of(1)]) == {uuid_of(1): entry(1, digest="d2", batch_id="newer")}
    assert list(stores.register.refused("hpv")) == []


@on_every_database
def test_refused_records_are_listed_by_programme_and_since_when(stores: Stores) -> None:
    stores.register.put([entry(n, programme="flu" if n == 4 else "hpv") for n in range(1, 6)])
    days = {1: "03", 2: "01", 3: "02", 4: "01"}
    stores.register.hear(
        refused(n, f"2026-11-{day}T12:00:00+00:00", programme="flu" if n == 4 else "hpv") for n, day in days.items()
    )
    assert [e.record_id for e in stores.register.refused("hpv")] == [uuid_of(2), uuid_of(3), uuid_of(1)]
    assert [e.record_id for e in stores.register.refused("hpv", "2026-11-02")] == [uuid_of(3), uuid_of(1)]
    assert [e.record_id for e in stores.register.refused("flu")] == [uuid_of(4)]


@on_every_database
def test_more_refusals_than_a_transaction_holds_are_all_noted(stores: Stores) -> None:
    stores.register.put(entry(n) for n in range(250))
    stores.register.hear(refused(n) for n in range(250))
    assert sum(1 for _ in stores.register.refused("hpv")) == 250


@on_every_database
def test_an_intake_is_unfinished_until_it_is_finished(stores: Stores) -> None:
    register = stores.register
    assert register.intake("b") is None
    assert register.unfinished() == []
    begun = register.begin("b", {"hpv": 3, "td_ipv": 1}, register.begun())
    register.begin("a", {}, register.begun())
    assert register.intake("b") == begun
    assert (begun.batches, begun.attached, begun.finished) == ({"hpv": 3, "td_ipv": 1}, {}, False)
    assert register.unfinished() == ["a", "b"]
    register.finish("b")
    finished = register.intake("b")
    assert finished == replace(begun, finished=True)
    assert register.unfinished() == ["a"]
    register.finish("a")
    assert register.unfinished() == []


@on_every_database
def test_an_intake_is_begun_once_and_only_what_was_begun_is_finished(stores: Stores) -> None:
    stores.register.begin("b", {"hpv": 3}, stores.register.begun())
    with pytest.raises(RuntimeError, match="read anew"):
        stores.register.begin("b", {"hpv": 4}, stores.register.begun())
    with pytest.raises(RuntimeError, match="no intake"):
        stores.register.finish("c")
    intake = stores.register.intake("b")
    assert intake
    assert intake.batches == {"hpv": 3}
    assert stores.register.unfinished() == ["b"]


@on_every_database
def test_what_was_known_before_an_upload_is_kept_with_an_entry(stores: Stores) -> None:
    before = refused(1, on_file=OnFile.NO, digest="d0", batch_id="older")
    stores.register.put([entry(1, before=before), entry(2)])
    found = stores.register.get([uuid_of(1), uuid_of(2)])
    assert (found[uuid_of(1)], found[uuid_of(2)]) == (entry(1, before=before), entry(2))


@on_every_database
def test_a_parked_intake_waits_for_a_person_and_what_it_has_not_attached_is_never_sent(stores: Stores) -> None:
    register = stores.register
    register.begin("b", {"hpv": 3, "td_ipv": 1}, register.begun())
    stores.ledger.attach("td_ipv", "b", 1)
    assert [register.count_try("b"), register.count_try("b")] == [1, 2]
    register.park("b")
    intake = register.intake("b")
    assert intake
    assert (intake.tries, intake.parked, intake.finished) == (2, True, False)
    assert (register.unfinished(), register.parked()) == ([], ["b"])
    assert register.unsent() == {("hpv", "b")}
    assert stores.ledger.attach("hpv", "b", 3) is None
    register.finish("b", parked=True)
    assert (register.unfinished(), register.parked()) == ([], [])
    assert register.unsent() == {("hpv", "b")}


@on_tables
@pytest.mark.parametrize("ends", [False, True])
def test_an_intake_that_another_run_goes_on_with_while_it_is_parked_is_not_parked(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, *, ends: bool
) -> None:
    """What is attached meanwhile is sent, and must not count as never sent."""
    register, read = stores.register, stores.register.intake
    register.begin("b", {"hpv": 3}, register.begun())

    def read_and_be_outrun(batch_id: str) -> Intake | None:
        found = read(batch_id)
        if ends:
            register.finish(batch_id)
        else:
            stores.ledger.attach("hpv", batch_id, 3)
        return found

    with monkeypatch.context() as outruns:
        outruns.setattr(register, "intake", read_and_be_outrun)
        with pytest.raises(RuntimeError, match="being completed by another run"):
            register.park("b")
    intake = register.intake("b")
    assert intake
    assert (intake.parked, intake.finished) == (False, ends)
    assert (register.parked(), register.unsent()) == ([], frozenset())
    assert register.unfinished() == ([] if ends else ["b"])


@on_tables
def test_a_try_whose_answer_is_lost_counts_once_however_often_boto3_repeats_the_write(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = stores.dynamodb.update_item
    stores.register.begin("b", {"hpv": 3}, stores.register.begun())
    with monkeypatch.context() as loses:
        loses.setattr(stores.dynamodb, "update_item", lambda **request: [write(**request) for _ in range(3)][-1])
        assert [stores.register.count_try(batch_id) for batch_id in ("b", "b", "not there")] == [1, 2, 1]
    assert stores.register.count_try("b") == 3
    intake = stores.register.intake("b")
    assert intake
    assert intake.tries == 3


@on_every_database
def test_uploads_with_an_intake_are_told_from_others(stores: Stores) -> None:
    for n in range(120):
        stores.register.begin(f"b{n}", {}, stores.register.begun())
    asked = [*(f"b{n}" for n in range(120)), "unknown"]
    assert stores.register.with_intake(asked) == {f"b{n}" for n in range(120)}


@on_every_database
def test_a_batch_is_marked_as_attached_with_the_ledgers_write_and_once(stores: Stores) -> None:
    stores.register.begin("b", {"hpv": 3, "td_ipv": 1}, stores.register.begun())
    assert stores.ledger.attach("td_ipv", "b", 1) == 1
    assert stores.ledger.attach("td_ipv", "b", 1) is None
    intake = stores.register.intake("b")
    assert intake
    assert intake.attached == {"td_ipv": 1}


def cancelling(stores: Stores, monkeypatch: pytest.MonkeyPatch, times: int) -> list[str]:
    """Let DynamoDB cancel transactions, since another is in their way."""
    cancelled: list[str] = []
    call = stores.dynamodb._make_api_call
    exception = stores.dynamodb.exceptions.TransactionCanceledException

    def busy(operation: str, params: dict[str, Any]) -> Any:
        if operation == "TransactWriteItems" and len(cancelled) < times:
            cancelled.append(operation)
            reasons = [{"Code": "TransactionConflict"} for _ in params["TransactItems"]]
            raise exception({"Error": {"Code": "x"}, "CancellationReasons": reasons}, operation)
        return call(operation, params)

    monkeypatch.setattr(stores.dynamodb, "_make_api_call", busy)
    return cancelled


@on_moto
def test_a_transaction_that_is_in_anothers_way_is_tried_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.register.put([entry(1)])
    cancelled = cancelling(stores, monkeypatch, times=1)
    stores.register.begin("b", {}, stores.register.begun())
    cancelled.clear()
    stores.register.hear([refused(1)])
    cancelled.clear()
    stores.register.finish("b")
    assert stores.register.unfinished() == []
    assert stores.register.get([uuid_of(1)]) == {uuid_of(1): refused(1)}


@on_moto
def test_a_register_that_stays_busy_is_given_up_and_says_so(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.register.put([entry(1)])
    cancelling(stores, monkeypatch, times=1000)
    with pytest.raises(TimeoutError, match="DynamoDB"):
        stores.register.begin("b", {}, stores.register.begun())
    with pytest.raises(TimeoutError, match="DynamoDB"):
        stores.register.hear([refused(1)])


@on_moto
def test_what_dynamodb_leaves_undone_is_asked_for_again(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    left = {"BatchGetItem": "UnprocessedKeys", "BatchWriteItem": "UnprocessedItems"}
    halved: list[str] = []
    call = stores.dynamodb._make_api_call

    def half(operation: str, params: dict[str, Any]) -> Any:
        """Do the first half of a large request, as DynamoDB does when it is busy."""
        if operation not in left:
            return call(operation, params)
        ((table, request),) = params["RequestItems"].items()
        items = request["Keys"] if operation == "BatchGetItem" else request
        some, rest = items[: -(len(items) // 2) or None], items[len(items) - len(items) // 2 :]

        def of(these: Any) -> Any:
            return {table: {**request, "Keys": these} if operation == "BatchGetItem" else these}

        answer = call(operation, {"RequestItems": of(some)})
        if rest:
            halved.append(operation)
            answer[left[operation]] = of(rest)
        return answer

    monkeypatch.setattr(stores.dynamodb, "_make_api_call", half)
    entries = [entry(n) for n in range(130)]
    stores.register.put(entries)
    assert stores.register.get(map(uuid_of, range(130))) == {e.record_id: e for e in entries}
    assert set(halved) == set(left)


@on_moto
@pytest.mark.parametrize(
    ("operation", "left"), [("BatchGetItem", "UnprocessedKeys"), ("BatchWriteItem", "UnprocessedItems")]
)
def test_a_table_that_stays_throttled_is_an_error_and_nothing_is_taken_for_done(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, operation: str, left: str
) -> None:
    call = stores.dynamodb._make_api_call

    def throttled(asked: str, params: dict[str, Any]) -> Any:
        return {"Responses": {}, left: params["RequestItems"]} if asked == operation else call(asked, params)

    monkeypatch.setattr(stores.dynamodb, "_make_api_call", throttled)
    with pytest.raises(TimeoutError, match="DynamoDB"):
        stores.register.get([uuid_of(1)]) if operation == "BatchGetItem" else stores.register.put([entry(1)])


# -- what is older changes nothing

OLDER, NEWER = ("2024-08-21T12:00:00+00:00 01234567 0000", "2024-08-23T12:00:00+00:00 01234567 0000")
#: That an older upload says the same, that a newer one does, and that an older one of another organisation's did first.
RENEWALS = {
    "older": {"stated_at": OLDER},
    "newer": {"stated_at": NEWER},
    "another's": {"owner": "RX1", "owned_since": OLDER, "stated_at": OLDER},
}


@on_every_database
@pytest.mark.parametrize("which", ["stated", "before", "withdrawn", "withdrawn before"])
def test_what_is_said_again_is_noted_only_where_it_is_newer_or_the_record_was_anothers_first(
    stores: Stores, which: str
) -> None:
    """A run that was frozen notes what it read long ago: whatever came since stays."""
    nothing = {"programme": "", "digest": WITHDRAWN} if which.startswith("withdrawn") else {}

    def said(n: int, **changes: Any) -> Entry:
        return entry(n, **nothing | changes)

    def known(n: int, **changes: Any) -> Entry:
        stated = said(n, **changes)
        return entry(n, batch_id="newer", before=stated) if "before" in which else stated

    stores.register.put(known(n) for n in range(3))
    stores.register.renew(said(n, **changes) for n, changes in enumerate(RENEWALS.values()))
    found = stores.register.get(map(uuid_of, range(3)))
    assert [found[uuid_of(n)] for n in range(3)] == [
        known(0),
        known(1, stated_at=NEWER),
        known(2, **RENEWALS["another's"]),
    ]


# -- after the table was put back to an earlier moment


@on_every_database
def test_a_statement_is_restated_where_nothing_newer_is_known(stores: Stores) -> None:
    stores.register.put([entry(1, stated_at=OLDER), entry(2, stated_at=NEWER), entry(3), entry(4)])
    stores.register.hear([refused(4)])
    stores.register.restate([entry(n, batch_id="sent") for n in range(4)] + [entry(4)])
    found = stores.register.get(map(uuid_of, range(5)))
    expected = [entry(0, batch_id="sent"), entry(1, batch_id="sent"), entry(2, stated_at=NEWER)]
    assert [*map(found.get, map(uuid_of, range(5)))] == [*expected, entry(3, batch_id="sent"), refused(4)]


@on_every_database
def test_of_a_record_that_is_restated_twice_the_later_statement_counts(stores: Stores) -> None:
    many = [entry(n, batch_id="sent") for n in range(300)]
    stores.register.restate([entry(7, batch_id="sent", line=1), *many, entry(7, batch_id="sent", line=900)])
    assert stores.register.get([uuid_of(7)]) == {uuid_of(7): entry(7, batch_id="sent", line=900)}
    assert len(stores.register.get(map(uuid_of, range(300)))) == 300


@on_moto
def test_what_is_known_is_restated_without_a_write(stores: Stores, count_writes: Callable[[], int]) -> None:
    stores.register.restate([entry(n) for n in range(5)])
    before = count_writes()
    stores.register.restate([entry(n) for n in range(5)])
    assert count_writes() == before


@on_every_database
def test_an_intake_that_is_put_back_is_parked_and_what_is_in_no_export_is_never_sent(stores: Stores) -> None:
    stores.register.put_back("b", {"hpv": 3, "flu": 2}, {"hpv": 4})
    assert stores.register.intake("b") == Intake("b", {"hpv": 3, "flu": 2}, {"hpv": 4}, finished=False, parked=True)
    assert (stores.register.parked(), stores.register.unfinished()) == (["b"], [])
    assert stores.register.unsent() == {("flu", "b")}
    with pytest.raises(RuntimeError, match="begun meanwhile"):
        stores.register.put_back("b", {}, {})
    stores.register.put_back("c", {"hpv": 1}, {"hpv": 4})
    assert stores.register.unsent() == {("flu", "b")}
    stores.register.finish("b", parked=True)
    assert stores.register.parked() == ["c"]


@on_every_database
def test_a_batch_is_marked_as_being_in_an_export_in_its_intake(stores: Stores) -> None:
    stores.register.begin("b", {"hpv": 3}, stores.register.begun())
    for number in (4, 5):
        stores.register.mark_attached("b", "hpv", number)
        intake = stores.register.intake("b")
        assert intake
        assert intake.attached == {"hpv": number}


@on_every_database
def test_what_is_known_of_the_statement_before_is_noted_with_that(stores: Stores) -> None:
    """It counts where the one that came after it is never sent."""
    stores.register.put([entry(n, digest="d2", batch_id="newer", before=entry(n)) for n in (1, 2, 3)])
    stores.register.hear([refused(1)])
    stores.register.hear([entry(2, on_file=OnFile.NO), entry(3, on_file=OnFile.NO, batch_id="another")])
    found = stores.register.get(map(uuid_of, (1, 2, 3)))
    assert [found[uuid_of(n)].before for n in (1, 2, 3)] == [
        refused(1),
        entry(2, on_file=OnFile.NO),
        entry(3),
    ]
    assert [found[uuid_of(n)].refusal for n in (1, 2, 3)] == [None] * 3
    assert list(stores.register.refused("hpv")) == []
    stores.register.begin("newer", {"hpv": 3}, stores.register.begun())
    stores.register.park("newer")
    assert list(stores.register.refused("hpv")) == [refused(1)]


@on_every_database
def test_a_record_that_never_came_to_dps_is_noted_as_not_on_file_at_that_statement_only(stores: Stores) -> None:
    stores.register.put([entry(1), entry(2, batch_id="newer")])
    stores.register.hear([entry(1, on_file=OnFile.NO), entry(2, on_file=OnFile.NO)])
    found = stores.register.get(map(uuid_of, (1, 2)))
    assert (found[uuid_of(1)].on_file, found[uuid_of(2)].on_file) == (OnFile.NO, OnFile.YES)


@on_every_database
def test_what_is_only_registered_says_so_and_a_statement_keeps_where_it_came_from(stores: Stores) -> None:
    assert not stores.register.begin("b", {"hpv": 1}, stores.register.begun(), sends=False).sends
    intake = stores.register.intake("b")
    assert intake
    assert not intake.sends
    stated = entry(1, new_in=Place("first", 7), origin=Place("upload", 8), on_file=OnFile.UNKNOWN)
    stores.register.put([stated])
    assert stores.register.get([uuid_of(1)]) == {uuid_of(1): stated}
