"""What DPS has in the end is what a record's owner uploaded last: stories that once ended otherwise, judged by DPS."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps, VaccinationFile
from tests.usecases.conftest import fresh_tables
from tests.usecases.memory import MemoryQueue
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.jobs.ingest import MOST_TRIES
from vaccinations.jobs.reconcile import Reconcile, ReconcileRequest
from vaccinations.model.export import Phase, Status
from vaccinations.model.outcome import OnFile, Outcome
from vaccinations.model.programmes import URIS
from vaccinations.ports import UploadGone

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.usecases.world import World
    from vaccinations.results import Receipt

#: Batches of the vaccine: what is said first, then, and last.
A, B, C = "AA0001", "BB0002", "CC0003"


@pytest.fixture
def dps(world: World) -> Dps:
    return Dps(world.receiver, clock=world.clock)


def say(world: World, batch: str, n: int = 1) -> Receipt:
    """Have the owner upload what counts from now on; nothing as a batch withdraws the record."""
    stated = row(n, batch=batch or A, vaccinated="Y" if batch else "N")
    return world.upload(upload_of(stated), f"{len(world.uploads)}.csv")


def has(dps: Dps, n: int = 1) -> str:
    """Tell which batch of the vaccine DPS has on file of a record; none where it was deleted or never came."""
    found = dps.on_file.get(f"{URIS['vaccination_record']}#{uuid_of(n)}")
    return "" if found is None or found.deleted else found.row["BATCH_NUMBER"]


def answered(world: World, dps: Dps, files: Iterable[VaccinationFile]) -> None:
    """Have DPS answer files, and hear it."""
    for file in files:
        dps.answer(file, ("csv",))
    assert world.collect().status == "ok"


def a_day(world: World, dps: Dps, leave: Iterable[str] = (), *, answers: bool = True) -> list[VaccinationFile]:
    """Let a night and an hour pass: everything is sent, read but for some messages, and answered."""
    world.next_night()
    files = dps.pick_up({*leave})
    world.track()
    if answers:
        answered(world, dps, files)
    world.track()
    world.do_requests()
    return files


def message_of(world: World, number: int, programme: str = "hpv") -> str:
    return world.ledger.get(programme, number).message_id


def expired(world: World, number: int) -> None:
    """Let MESH give a file up."""
    world.report(message_of(world, number))
    world.track()
    world.do_requests()


# -- 1: sent again after newer ones


@pytest.mark.parametrize("answers", [True, False])
@pytest.mark.parametrize("last", [C, ""], ids=["corrected", "withdrawn"])
def test_a_file_that_expires_after_newer_ones_were_processed_overwrites_nothing(
    world: World, dps: Dps, answers: bool, last: str
) -> None:
    say(world, A)
    world.next_night()
    lost = {message_of(world, 1)}
    for batch in (B, last):
        say(world, batch)
        a_day(world, dps, lost, answers=answers)
    expired(world, 1)
    for _ in range(2):
        a_day(world, dps, lost)
    assert has(dps) == last
    if last:
        say(world, B)
        a_day(world, dps, lost)
        assert has(dps) == B, "what comes after it is taken, too"


@pytest.mark.parametrize("lost", [2, 3])
def test_an_update_that_expires_is_said_again_only_where_nothing_newer_was(world: World, dps: Dps, lost: int) -> None:
    messages: set[str] = set()
    for number, batch in enumerate((A, B, C), start=1):
        say(world, batch)
        world.next_night()
        if number == lost:
            messages.add(message_of(world, number))
        dps.pick_up(messages)
        world.track()
    expired(world, lost)
    a_day(world, dps, messages)
    assert has(dps) == C
    assert sum(len(file.rows) for file in dps.files) == (2 if lost == 2 else 3)


def test_a_record_stated_anew_after_its_lost_new_was_withdrawn_arrives(world: World, dps: Dps) -> None:
    say(world, A)
    world.next_night()
    lost = {message_of(world, 1)}
    say(world, "")
    a_day(world, dps, lost, answers=False)
    expired(world, 1)
    assert world.register.get([uuid_of(1)])[uuid_of(1)].on_file is OnFile.NO
    say(world, B)
    [file] = a_day(world, dps, lost)
    assert [judged.row["ACTION_FLAG"] for judged in file.rows] == ["new"]
    assert has(dps) == B


@pytest.mark.parametrize("refused", [1, 2])
@pytest.mark.parametrize("answers", [True, False])
def test_a_file_that_dps_refused_whole_overwrites_nothing_when_a_person_has_it_sent_again(
    world: World, refused: int, answers: bool
) -> None:
    dps = Dps(world.receiver, clock=world.clock, refuse_file=lambda _: "its headers are wrong" if bad else None)
    bad = False
    for number, batch in enumerate((A, B, C), start=1):
        say(world, batch)
        bad = number == refused
        a_day(world, dps, answers=answers or bad)
    bad = False
    export = world.ledger.get("hpv", refused)
    assert (export.processing, export.status) == ("refused", Status.ACKNOWLEDGED)
    receipt = world.request(f"hpv-{refused}.requeue")
    assert receipt.rows == 1
    assert world.ledger.get("hpv", refused).status is Status.REQUEUED
    assert world.request(f"hpv-{refused}.requeue").rows == 0, "nothing is left to do"
    for _ in range(2):
        a_day(world, dps)
    assert has(dps) == C


def test_a_record_whose_new_expired_heals_whether_or_not_a_person_sends_it_again(world: World, dps: Dps) -> None:
    """`refused resend --class unknown` sends it as new before the file expires, and then it is requeued."""
    say(world, A)
    world.next_night()
    lost = {message_of(world, 1)}
    say(world, B)
    a_day(world, dps, lost)
    entry = world.register.get([uuid_of(1)])[uuid_of(1)]
    assert entry.refusal
    assert entry.refusal.outcome is Outcome.UNKNOWN
    world.request("unknown.resend", f"{uuid_of(1)}\n")
    a_day(world, dps, lost)
    assert has(dps) == B
    expired(world, 1)
    a_day(world, dps, lost)
    assert has(dps) == B
    assert not [judged for file in dps.files[1:] for judged in file.refused]


def test_a_duplicate_with_older_content_heals_by_itself(world: World, dps: Dps) -> None:
    """The lost file was not lost: DPS reads it after all, before the newer statement that then goes out as new."""
    say(world, A)
    world.next_night()
    lost = message_of(world, 1)
    say(world, B)
    a_day(world, dps, {lost})
    expired(world, 1)
    # DPS has it from elsewhere, say.
    dps.take({**dps.files[0].rows[0].row, "BATCH_NUMBER": A})
    a_day(world, dps, {lost})
    assert has(dps) == A
    a_day(world, dps, {lost})
    assert has(dps) == B


def test_a_row_at_which_dps_failed_arrives_once_it_is_sent_again(world: World) -> None:
    """Whether DPS has the record is unknown: here it has it, and there it has not."""
    failing = {uuid_of(1): False, uuid_of(2): True}
    dps = Dps(world.receiver, clock=world.clock, unhandled=lambda judged: failing.get(judged["UNIQUE_ID"]))
    say(world, A, 1)
    say(world, A, 2)
    a_day(world, dps)
    assert {world.register.get([uuid_of(n)])[uuid_of(n)].on_file for n in (1, 2)} == {OnFile.UNKNOWN}
    failing.clear()
    world.request("unhandled.resend", f"{uuid_of(1)}\n{uuid_of(2)}\n")
    a_day(world, dps)
    say(world, B, 1)
    say(world, B, 2)
    for _ in range(2):
        a_day(world, dps)
    assert (has(dps, 1), has(dps, 2)) == (B, B)


@pytest.mark.parametrize("newest_first", [False, True])
def test_a_record_of_which_a_new_and_its_correction_were_refused_arrives_with_the_next(
    world: World, newest_first: bool
) -> None:
    """The correction went out before the first answer came; that it is not permitted says nothing of what DPS has."""
    texts = {A: "Validation errors: lotNumber must be a string", B: "No permissions for requested operation"}
    dps = Dps(world.receiver, clock=world.clock, refuse=lambda row: texts.get(row["BATCH_NUMBER"]))
    say(world, A)
    files = a_day(world, dps, answers=False)
    say(world, B)
    files += a_day(world, dps, answers=False)
    for file in sorted(files, key=files.index, reverse=newest_first):
        answered(world, dps, [file])
    say(world, C)
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("new", "")]
    assert has(dps) == C


def test_an_upload_that_states_and_withdraws_a_record_several_times_may_be_refused_as_often(world: World) -> None:
    """DPS refuses the `new`, so that both withdrawals are of a record that is not there; one answer says all of it."""
    texts = {("new", A): "Validation errors: lotNumber must be a string"}
    dps = Dps(
        world.receiver,
        clock=world.clock,
        refuse=lambda row: texts.get((row["ACTION_FLAG"], row["BATCH_NUMBER"])),
    )
    world.upload(upload_of(*[row(1, batch=A), row(1, vaccinated="N")] * 2, row(2, batch=A)))
    [file] = a_day(world, dps)
    assert [judged.row["ACTION_FLAG"] for judged in file.rows] == ["new", "delete", "update", "delete", "new"]
    assert world.ledger.get("hpv", 1).processing == "processed"
    assert [entry.record_id for entry in world.register.refused("hpv")] == [uuid_of(2)]
    texts.clear()
    say(world, B)
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("new", "")]


# -- 2: the order of uploads counts, not that of their events


def test_events_in_any_order_and_a_redriven_dead_letter_leave_the_last_upload(world: World, dps: Dps) -> None:
    uploads = [world.stores.uploaded(upload_of(row(1, batch=batch)), f"{batch}.csv") for batch in (A, B)]
    versions = [world.stores.uploaded(upload_of(row(2, batch=batch)), "same.csv") for batch in (A, B, C)]
    uploads.append(world.stores.uploaded(upload_of(row(1, batch=C)), f"{C}.csv"))
    for event in [*reversed(uploads), *reversed(versions), uploads[0], versions[1]]:
        world.stores.handle(event)
        a_day(world, dps)
    assert (has(dps, 1), has(dps, 2)) == (C, C)


# -- 3: the owner's word counts, and nobody else's


def test_a_stranger_changes_nothing_and_no_other_child_takes_a_records_place(world: World, dps: Dps) -> None:
    say(world, A)
    stranger = [row(1, batch=B), row(1, vaccinated="N"), row(1)]
    for n, stated in enumerate(stranger):
        assert world.upload(upload_of(stated), f"stranger-{n}.csv", "RX1").rejected == 1
    other = row(1, batch=C).replace("Zephyrson,2012-08-18", "Hollow,2013-01-02").replace(",,Quint", ",9990000018,Quint")
    assert say(world, A).unchanged == 1
    assert world.upload(upload_of(other), "other-child.csv").rejected == 1
    assert world.upload(upload_of(other.replace(",Y,", ",N,")), "other-child-withdrawn.csv").rejected == 1
    a_day(world, dps)
    assert has(dps) == A
    [file] = dps.files
    assert file.rows[0].row["PERSON_SURNAME"] == "Zephyrson"


@pytest.mark.parametrize("theirs", [A, B, ""], ids=["the same", "another", "a withdrawal"])
@pytest.mark.parametrize("sent", [False, True], ids=["queued", "sent"])
def test_a_record_is_whose_it_was_first_where_a_strangers_later_upload_is_ingested_before(
    world: World, dps: Dps, theirs: str, sent: bool
) -> None:
    first = world.stores.uploaded(upload_of(row(1, batch=A)), "first.csv")
    stranger = row(1, batch=theirs or A, vaccinated="Y" if theirs else "N")
    world.upload(upload_of(stranger), "stranger.csv", "RX1")
    if sent:
        a_day(world, dps)
    world.stores.handle(first)
    a_day(world, dps)
    assert has(dps) == A
    assert world.upload(upload_of(row(1, batch=C)), "stranger-again.csv", "RX1").rejected == 1
    assert say(world, B).rejected == 0
    a_day(world, dps)
    assert has(dps) == B


@pytest.mark.parametrize("theirs", ["second", "third"])
def test_what_an_owner_says_next_is_not_rejected_where_its_first_upload_comes_late(
    world: World, dps: Dps, theirs: str
) -> None:
    """The first one is ingested before it, though its event is still to come."""
    first = world.stores.uploaded(upload_of(row(1, batch=A)), "first.csv")
    others = {"R1L": upload_of(row(1, batch=B)), "RX1": upload_of(row(1, batch=C))}
    folders = ["RX1", "R1L"] if theirs == "second" else ["R1L", "RX1"]
    stored = {folder: world.stores.uploaded(others[folder], "next.csv", folder) for folder in folders}
    for folder in ("RX1", "R1L"):
        world.stores.handle(stored[folder])
    receipts = [world.stores.receipt_file(each) for each in (first, stored["R1L"])]
    assert [receipt["rejected"] for receipt in receipts] == [0, 0]
    assert world.stores.handle(first).status == "ingested"
    a_day(world, dps)
    assert has(dps) == B


# -- 4: names


@pytest.mark.parametrize("name", ["mon+tue.csv", "a%20b.csv", "a b.csv"])
def test_an_upload_whose_name_has_signs_arrives_and_one_that_is_not_there_sounds_an_alarm(
    world: World, dps: Dps, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    world.upload(upload_of(row(1, batch=A)), name)
    a_day(world, dps)
    assert has(dps) == A
    capsys.readouterr()
    with pytest.raises(UploadGone):
        world.stores.handle((f"incoming/R1L/not+{name}", world.uploads[0][1]))
    assert '"UploadsMissing"' in capsys.readouterr().out


# -- 5: one upload that cannot be completed


def test_an_upload_that_cannot_be_completed_stops_nobody_and_is_taken_for_unsent(
    world: World, dps: Dps, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(world, A)
    stuck = world.stores.uploaded(upload_of(row(1, batch=B), row(2, batch=B)), "stuck.csv")
    attach = type(world.ledger).attach

    def failing(ledger: Any, programme: str, batch_id: str, records: int) -> int | None:
        if batch_id == world.bucket.batch_id(*stuck):
            raise TimeoutError
        number: int | None = attach(ledger, programme, batch_id, records)
        return number

    monkeypatch.setattr(type(world.ledger), "attach", failing)
    for _ in range(MOST_TRIES - 1):
        with pytest.raises(TimeoutError):
            world.stores.handle(stuck)
    assert world.stores.handle(stuck).status == "parked"
    say(world, C)
    a_day(world, dps)
    assert (has(dps, 1), has(dps, 2)) == (C, "")
    monkeypatch.undo()
    assert world.stores.ingesting.retry(world.bucket.batch_id(*stuck), "it is well again").status == "ingested"
    a_day(world, dps)
    assert (has(dps, 1), has(dps, 2)) == (C, B)


# -- 6: a frozen run


def test_a_frozen_ingest_that_wakes_up_does_not_lose_the_next_true_statement(
    world: World, dps: Dps, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = world.stores.uploaded(upload_of(row(1, batch=A)), "older.csv")
    newer = world.stores.uploaded(upload_of(row(1, batch=B)), "newer.csv")
    put = type(world.register).put

    def frozen(register: Any, entries: Any) -> None:
        entries = list(entries)
        monkeypatch.undo()
        world.stores.handle(older)
        world.stores.handle(newer)
        put(register, entries)

    monkeypatch.setattr(type(world.register), "put", frozen)
    with suppress(RuntimeError):
        world.stores.handle(older)
    a_day(world, dps)
    assert has(dps) == B


# -- 9: an event that never arrives


def test_an_upload_whose_event_never_arrives_is_found_and_arrives(world: World, dps: Dps) -> None:
    world.stores.uploaded(upload_of(row(1, batch=A)), "forgotten.csv")
    world.clock.forward(hours=2)
    queue = MemoryQueue()
    reconcile = Reconcile(world.bucket, world.register, world.ledger, queue, lambda: 900.0, clock=world.clock)
    assert reconcile.run(ReconcileRequest()).queued == 1
    for event in queue.announced:
        world.stores.handle(event)
    a_day(world, dps)
    assert has(dps) == A


def test_a_request_whose_event_never_arrives_is_found_and_done(world: World, dps: Dps) -> None:
    say(world, A)
    world.next_night()
    lost = message_of(world, 1)
    world.report(lost)
    world.track()
    world.clock.forward(hours=2)
    queue = MemoryQueue()
    Reconcile(world.bucket, world.register, world.ledger, queue, lambda: 900.0, clock=world.clock).run(
        ReconcileRequest()
    )
    assert [key for key, _ in queue.announced] == ["requests/hpv-1.requeue"]
    for event in queue.announced:
        world.stores.handle(event)
    a_day(world, dps, {lost})
    assert has(dps) == A


# -- 8: writes whose answers were lost


@pytest.fixture
def told(world: World, dynamodb_local: Any, s3: Any, resources: dict[str, Any]) -> Iterator[list[str]]:
    """Lose AWS's first answer to each call, which boto3 then makes again; return the events of the ledger.

    The tables are DynamoDB Local's, since moto does not know a transaction again by its token.
    """
    told: list[str] = []

    def lose(client: Any, request: Any, **_: Any) -> None:
        client._endpoint.http_session.send(request)
        request.reset_stream()

    with fresh_tables(dynamodb_local, resources) as tables:
        exports, records = tables
        world.stores.register = Register(dynamodb_local, records)
        world.stores.ledger = Ledger(
            dynamodb_local,
            exports,
            records_table=records,
            clock=world.clock,
            changed=lambda export: told.append(f"{export.export_id} {export.processing or export.status}"),
        )
        losing = {client: partial(lose, client) for client in (dynamodb_local, s3)}
        for client, handler in losing.items():
            client.meta.events.register("before-send", handler)
        yield told
        for client, handler in losing.items():
            client.meta.events.unregister("before-send", handler)


@pytest.mark.parametrize("world", ["moto"], indirect=True)
def test_where_every_call_loses_its_answer_all_is_sent_once_and_told_once(world: World, told: list[str]) -> None:
    dps = Dps(world.receiver, clock=world.clock, refuse=lambda row: "it is wrong" if row["BATCH_NUMBER"] == C else None)
    for first, second in ((A, C), (B, B)):
        say(world, first, 1)
        say(world, second, 2)
        a_day(world, dps)
    assert (has(dps, 1), has(dps, 2)) == (B, B)
    assert [len(file.rows) for file in dps.files] == [2, 2]
    assert told == [
        f"hpv-{number} {state}"
        for number in (1, 2)
        for state in ("pending", "accepted", "acknowledged", "received", "processed")
    ]


# -- 10: a report that comes early


def test_a_report_that_comes_while_the_export_is_still_pending_is_not_dropped(
    world: World, dps: Dps, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run has died between MESH's answer and the ledger."""
    say(world, A)
    change = type(world.ledger).change

    def dies(ledger: Any, export: Any, how: Any) -> Any:
        if how(export).status is Status.ACCEPTED:
            raise KeyboardInterrupt
        return change(ledger, export, how)

    with monkeypatch.context() as dying:
        dying.setattr(type(world.ledger), "change", dies)
        with suppress(KeyboardInterrupt):
            world.next_night()
    assert world.ledger.get("hpv", 1).state is Phase.SENDING
    [lost] = world.receiver.inbox()
    world.report(lost)
    world.track()
    world.clock.forward(hours=1)
    world.export(resume_only=True)
    world.track()
    world.do_requests()
    assert world.ledger.get("hpv", 1).status is Status.REQUEUED
    a_day(world, dps, {lost})
    assert has(dps) == A


# -- the cut-over


def test_what_another_system_has_sent_is_not_sent_again_and_is_corrected_as_an_update(world: World, dps: Dps) -> None:
    [file] = (say(world, A, 9), a_day(world, dps))[1]
    for n in (1, 2, 3):
        dps.take({**file.rows[0].row, "UNIQUE_ID": uuid_of(n)})
    listed = upload_of(row(1, batch=A), row(2, batch=A), row(3, batch=A))
    receipt = world.request("already-sent/R1L/old.csv", listed)
    assert (receipt.accepted, receipt.exports) == ({"hpv": {"new": 3}}, {})
    assert world.next_night().exports == ()
    assert world.request("already-sent/R1L/again.csv", listed).unchanged == 3
    assert world.upload(upload_of(row(1, batch=A), row(2, batch=B), row(3, vaccinated="N"))).unchanged == 1
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("update", ""), ("delete", "")]
    assert [has(dps, n) for n in (1, 2, 3)] == [A, B, ""]


def test_a_record_that_a_list_names_by_mistake_is_sent_once_it_is_withdrawn_and_uploaded_again(
    world: World, dps: Dps
) -> None:
    listed = upload_of(row(1, batch=A))
    assert world.request("already-sent/R1L/old.csv", listed).accepted == {"hpv": {"new": 1}}
    assert say(world, A).unchanged == 1
    assert world.next_night().exports == ()
    say(world, "")
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], bool(judged.refused)) for judged in file.rows] == [("delete", True)]
    say(world, A)
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("new", "")]
    assert has(dps) == A


def test_a_record_that_a_list_leaves_out_is_told_dps_as_an_update_after_all(world: World, dps: Dps) -> None:
    [file] = (say(world, A, 9), a_day(world, dps))[1]
    dps.take({**file.rows[0].row, "UNIQUE_ID": uuid_of(1)})
    say(world, B)
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], bool(judged.refused)) for judged in file.rows] == [("new", True)]
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("update", "")]
    assert has(dps) == B


def test_a_requeue_that_is_parked_while_a_frozen_run_completes_it_leaves_the_export_undelivered(
    world: World, dps: Dps, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(world, A)
    world.next_night()
    lost = message_of(world, 1)
    world.report(lost)
    world.track()
    attach = type(world.ledger).attach

    def parked_meanwhile(ledger: Any, programme: str, batch_id: str, records: int) -> int | None:
        world.register.park(batch_id)
        number: int | None = attach(ledger, programme, batch_id, records)
        return number

    with monkeypatch.context() as frozen:
        frozen.setattr(type(world.ledger), "attach", parked_meanwhile)
        with pytest.raises(RuntimeError):
            world.do_requests()
    assert world.ledger.get("hpv", 1).status is Status.UNDELIVERED
    [parked] = world.register.parked()
    assert world.stores.ingesting.retry(parked, "it is well again").status == "ingested"
    assert world.ledger.get("hpv", 1).status is Status.REQUEUED
    a_day(world, dps, {lost})
    assert has(dps) == A
