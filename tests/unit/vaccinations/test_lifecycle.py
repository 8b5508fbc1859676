"""Promises of an export's life: what may happen to it, what it remembers, and who has to act."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vaccinations.model import lifecycle
from vaccinations.model.export import (
    Arrival,
    Attempt,
    DPSExport,
    Failure,
    FileNames,
    Lease,
    Manifest,
    PartFacts,
    Phase,
    Processing,
    Status,
)
from vaccinations.model.lifecycle import (
    ANSWERS,
    MAX_ATTEMPTS,
    MOVES,
    Attention,
    Event,
    ImpossibleMove,
    LeaseLost,
    LeaseTaken,
    Step,
    Which,
    Who,
)

if TYPE_CHECKING:
    from vaccinations.model.lifecycle import Move

ARCHITECTURE = Path(__file__).parents[3] / "docs" / "architecture.md"
CREATED = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
BEGUN = datetime(2026, 11, 23, 19, 0, tzinfo=UTC)
NOW = datetime(2026, 11, 23, 19, 5, tzinfo=UTC)
NAMES = FileNames("next.csv", "next-on-mesh.csv")
ERROR = Failure("12", "Unregistered to address")
STATES: tuple[Status | Phase, ...] = (*(s for s in Status if s is not Status.PENDING), *Phase)

type Change = Callable[[DPSExport], DPSExport]

MAKE: dict[Event, Change] = {
    Event.SEAL: lambda export: lifecycle.seal(export, NAMES, NOW),
    Event.RENDER: lambda export: lifecycle.render(export, "run-1", 3, NOW),
    Event.BEGIN_SENDING: lambda export: lifecycle.begin_sending(export, "run-1", NOW),
    Event.NAME_MESSAGE: lambda export: lifecycle.name_message(export, "run-1", "M1", NOW),
    Event.LOSE_ANSWER: lambda export: lifecycle.lose_answer(export, "run-1", ERROR, NOW),
    Event.FIND_MESSAGE: lambda export: lifecycle.find_message(export, "run-1", "M1", 2, NOW),
    Event.FIND_NOTHING: lambda export: lifecycle.find_nothing(export, "run-1", NOW),
    Event.MARK_UNCLEAR: lambda export: lifecycle.mark_unclear(export, "run-1", ERROR, NOW),
    Event.ACCEPT: lambda export: lifecycle.accept(export, "run-1", "M1", NOW),
    Event.REFUSE: lambda export: lifecycle.refuse(export, "run-1", ERROR, NOW),
    Event.RESEND: lambda export: lifecycle.resend(export, NAMES, NOW),
    Event.RETRY: lambda export: lifecycle.retry(export, NAMES, NOW),
    Event.ACKNOWLEDGE: lambda export: lifecycle.acknowledge(export, "M0", NOW),
    Event.UNDELIVER: lambda export: lifecycle.undeliver(export, "M0", ERROR, NOW),
    Event.REQUEUE: lambda export: lifecycle.requeue(export, "requests/hpv-17.requeue", NOW),
    Event.RESTORE: lambda export: lifecycle.restore(export, manifest_of(export, attempts=2), NOW),
}
#: The moves that only the holder of the lease makes.
WITH_LEASE = [
    event
    for event in MAKE
    if event is not Event.RESTORE and any(isinstance(m.origin, Phase) for m in MOVES if m.event is event)
]


def export_in(state: Status | Phase, *, attempts: int = 1, processing: Processing | None = None) -> DPSExport:
    """Make an export in a state, leased by run-1 where it is pending."""
    made = DPSExport(
        programme="hpv", number=17, status=Status.OPEN, records=3, created_at=CREATED, updated_at=CREATED, parts=3
    )
    if state is Status.OPEN:
        return made
    pending = isinstance(state, Phase)
    sent = state in {Status.ACCEPTED, Status.ACKNOWLEDGED, Status.UNDELIVERED, Status.REQUEUED}
    current = Attempt(
        number=attempts,
        filename=f"{attempts}.csv",
        mesh_filename=f"{attempts}-on-mesh.csv",
        begun_at=BEGUN,
        phase=state if isinstance(state, Phase) else Phase.UPLOADING,
        message_id="M0" if sent else "",
        sent_at=BEGUN + timedelta(minutes=1) if sent else None,
        processing=processing,
    )
    earlier = tuple(replace(current, number=n, filename=f"{n}.csv") for n in range(1, attempts))
    return replace(
        made,
        status=Status.PENDING if pending else Status(state),
        attempts=(*earlier, current),
        lease=Lease("run-1", NOW + timedelta(minutes=15)) if pending else None,
        accepted_at=current.sent_at,
        sealed_at=BEGUN,
    )


def manifest_of(export: DPSExport, attempts: int, *, complete: bool = True) -> Manifest:
    """Make the manifest of an export that was rendered, with the names of so many attempts."""
    names = (*export.names, *(FileNames(f"{n}.csv", f"{n}-on-mesh.csv") for n in range(1, 9)))[:attempts]
    parts = (PartFacts(1, 2, 10, "digest"), PartFacts(2, 3, 10, "digest"))
    return Manifest("hpv-17", 1, ("b1", "b2"), names, 5, parts, None if complete else (1, 0))


def fitting(move: Move) -> DPSExport:
    """Make an export of which a move's guard holds."""
    refused = move.guard is not None and "DPS refused" in move.guard.text
    return export_in(move.origin, processing=Processing.REFUSED if refused else None)


# --- the table


@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move.event}-from-{move.origin}")
def test_each_move_of_the_table_leads_where_the_table_says(move: Move) -> None:
    assert MAKE[move.event](fitting(move)).state is move.to


IMPOSSIBLE = [
    (state, event)
    for state in STATES
    for event in Event
    if not any(move.origin is state and move.event is event for move in MOVES)
]


@pytest.mark.parametrize(("state", "event"), IMPOSSIBLE)
def test_a_move_that_is_not_in_the_table_is_impossible(state: Status | Phase, event: Event) -> None:
    # What belongs to the run that holds the lease is not asked of others at all.
    with pytest.raises((ImpossibleMove, LeaseLost)):
        MAKE[event](replace(export_in(state), lease=Lease("run-1", NOW)))


@pytest.mark.parametrize(
    ("export", "event"),
    [
        (replace(export_in(Status.OPEN), records=0), Event.SEAL),
        (export_in(Status.FAILED, attempts=MAX_ATTEMPTS), Event.RETRY),
        (export_in(Status.ACCEPTED), Event.REQUEUE),
        (export_in(Status.ACCEPTED, processing=Processing.RECEIVED), Event.REQUEUE),
        (export_in(Status.ACKNOWLEDGED, processing=Processing.PROCESSED), Event.REQUEUE),
    ],
    ids=["no records", "failed five times", "not answered", "received", "processed"],
)
def test_a_move_whose_guard_does_not_hold_is_impossible(export: DPSExport, event: Event) -> None:
    with pytest.raises(ImpossibleMove, match=f"hpv-17: {event} is not possible, it is {export.state}"):
        MAKE[event](export)


def test_the_page_shows_the_table_as_it_is() -> None:
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \| (.+?) \| (.*?) ?\|$", ARCHITECTURE.read_text(), re.MULTILINE)
    shown = {row for row in rows if row[0] in set(Event)}
    assert shown == {(m.event, m.origin, m.to, m.who, m.guard.text if m.guard else "") for m in MOVES}


# --- after the ledger was put back to an earlier moment


@pytest.mark.parametrize(
    ("state", "attempts", "further"),
    [
        (Status.OPEN, 1, True),
        (Phase.TO_RENDER, 1, True),
        (Phase.RENDERED, 1, True),
        (Phase.RENDERED, 2, True),
        # MESH is asked about these two anyway.
        (Phase.SENDING, 1, False),
        (Phase.OUTCOME_UNKNOWN, 1, False),
        (Phase.SENDING, 2, True),
        (Phase.UPLOADING, 1, True),
        (Status.FAILED, 1, False),
        (Status.FAILED, 2, True),
        (Status.UNCLEAR, 1, False),
    ],
)
def test_an_export_went_further_where_its_manifest_names_an_attempt_that_may_have_been_sent_unknown_to_the_ledger(
    state: Status | Phase, attempts: int, further: bool
) -> None:
    export = export_in(state)
    assert lifecycle.went_further(export, manifest_of(export, attempts)) is further
    assert not lifecycle.went_further(export, manifest_of(export, attempts, complete=False))


def test_an_attempt_that_the_manifest_does_not_name_was_not_sent() -> None:
    export = export_in(Phase.RENDERED, attempts=2)
    assert not lifecycle.went_further(export, manifest_of(export, 1))


def test_an_export_is_put_back_as_its_manifest_shows_it() -> None:
    export = replace(export_in(Status.OPEN), batches=("b1", "b3"))
    put_back = lifecycle.restore(export, manifest_of(export, 2), NOW)
    assert (put_back.batches, put_back.records, put_back.parts) == (("b1", "b2"), 5, 2)
    assert put_back.names == (FileNames("1.csv", "1-on-mesh.csv"), FileNames("2.csv", "2-on-mesh.csv"))
    assert [attempt.number for attempt in put_back.attempts] == [1, 2]
    assert (put_back.sealed_at, put_back.local_id, put_back.lease) == (NOW, "hpv-17-2", None)
    assert (put_back.attempts[0].phase, put_back.attempts[1].begun_at) == (Phase.TO_RENDER, NOW)


def test_what_is_known_of_an_attempt_stays_known_where_its_export_is_put_back() -> None:
    export = export_in(Phase.UPLOADING)
    put_back = lifecycle.restore(export, manifest_of(export, 1), NOW)
    assert put_back.attempts == (replace(export.attempts[0], phase=Phase.OUTCOME_UNKNOWN),)
    assert (put_back.sealed_at, put_back.lease) == (BEGUN, None)


def test_what_is_requeued_says_by_which_request() -> None:
    assert lifecycle.requeue(export_in(Status.UNDELIVERED), "requests/hpv-17.requeue", NOW).request == (
        "requests/hpv-17.requeue"
    )


# --- leases


@pytest.mark.parametrize("event", WITH_LEASE)
def test_only_the_run_that_holds_the_lease_moves_a_pending_export(event: Event) -> None:
    move = next(move for move in MOVES if move.event is event)
    for lease in (None, Lease("run-2", NOW + timedelta(minutes=15))):
        with pytest.raises(LeaseLost, match="hpv-17"):
            MAKE[event](replace(export_in(move.origin), lease=lease))


def test_a_lease_is_given_while_nobody_else_has_one() -> None:
    until = NOW + timedelta(minutes=15)
    free = replace(export_in(Phase.RENDERED), lease=None)
    assert lifecycle.take_lease(free, "run-2", until, NOW).lease == Lease("run-2", until)
    taken = replace(free, lease=Lease("run-1", NOW))
    for holder in ("run-2", "run-1"):
        with pytest.raises(LeaseTaken, match="hpv-17"):
            lifecycle.take_lease(taken, holder, until, NOW)
    later = NOW + timedelta(milliseconds=1)
    assert lifecycle.take_lease(taken, "run-2", until, later).lease == Lease("run-2", until)


@pytest.mark.parametrize("state", [s for s in STATES if isinstance(s, Status)])
def test_what_is_not_pending_is_not_leased(state: Status) -> None:
    with pytest.raises(ImpossibleMove, match=f"hpv-17: {state} cannot be sent"):
        lifecycle.take_lease(export_in(state), "run-1", NOW, NOW)


def test_a_lease_given_back_leaves_the_export_pending_where_it_is() -> None:
    export = lifecycle.note_parts(export_in(Phase.UPLOADING), "run-1", 2, NOW)
    given_back = lifecycle.release(export, "run-1", NOW, error=ERROR)
    assert (given_back.state, given_back.lease) == (Phase.UPLOADING, None)
    assert (given_back.attempts[-1].parts_sent, given_back.attempts[-1].error) == (2, ERROR)
    without_error = lifecycle.release(export, "run-1", NOW, parts_sent=3)
    assert (without_error.attempts[-1].parts_sent, without_error.attempts[-1].error) == (3, None)
    with pytest.raises(LeaseLost):
        lifecycle.release(given_back, "run-1", NOW)


def test_a_lease_given_back_without_news_leaves_what_was_wrong_before() -> None:
    export = lifecycle.release(export_in(Phase.UPLOADING), "run-1", NOW, error=ERROR)
    again = lifecycle.take_lease(export, "run-2", NOW, NOW)
    assert lifecycle.release(again, "run-2", NOW, parts_sent=2).attempts[-1].error == ERROR


def test_an_export_that_is_taken_or_gets_further_has_changed_now() -> None:
    export = export_in(Phase.UPLOADING)
    assert lifecycle.take_lease(replace(export, lease=None), "run-1", NOW, NOW).updated_at == NOW
    assert lifecycle.note_parts(export, "run-1", 2, NOW).updated_at == NOW
    assert lifecycle.release(export, "run-1", NOW).updated_at == NOW


@pytest.mark.parametrize("event", [Event.ACCEPT, Event.REFUSE, Event.MARK_UNCLEAR])
def test_an_attempt_that_has_ended_holds_no_lease(event: Event) -> None:
    assert MAKE[event](export_in(Phase.SENDING)).lease is None


def test_a_lost_answer_keeps_the_lease_so_that_mesh_gets_time_to_finish() -> None:
    export = export_in(Phase.SENDING)
    lost = lifecycle.lose_answer(export, "run-1", ERROR, NOW)
    assert lost.lease == export.lease
    assert lost.attempts[-1].error == ERROR


# --- what an attempt remembers


def test_sealing_begins_the_first_attempt() -> None:
    sealed = lifecycle.seal(export_in(Status.OPEN), NAMES, NOW)
    assert sealed.attempts == (Attempt(number=1, filename="next.csv", mesh_filename="next-on-mesh.csv", begun_at=NOW),)
    assert (sealed.sealed_at, sealed.updated_at, sealed.local_id) == (NOW, NOW, "hpv-17-1")


@pytest.mark.parametrize("again", [lifecycle.retry, lifecycle.resend])
def test_the_next_attempt_begins_with_nothing_of_the_one_before_but_its_parts(
    again: Callable[[DPSExport, FileNames, datetime], DPSExport],
) -> None:
    before = export_in(Status.FAILED, attempts=2)
    before = replace(before, attempts=(before.attempts[0], replace(before.attempts[1], error=ERROR, parts_sent=2)))
    export = again(before, NAMES, NOW)
    assert export.attempts[:2] == before.attempts
    assert export.attempts[2] == Attempt(
        number=3, filename="next.csv", mesh_filename="next-on-mesh.csv", begun_at=NOW, phase=Phase.RENDERED
    )
    assert (export.local_id, export.parts, export.sealed_at) == ("hpv-17-3", 3, BEGUN)


def test_what_is_rendered_knows_its_parts() -> None:
    export = replace(export_in(Phase.TO_RENDER), parts=0)
    assert lifecycle.render(export, "run-1", 7, NOW).parts == 7


def test_sending_is_noted_before_it_begins() -> None:
    sending = lifecycle.begin_sending(export_in(Phase.RENDERED), "run-1", NOW).attempts[-1]
    assert (sending.sending_at, sending.message_id) == (NOW, "")


def test_a_message_that_is_named_has_its_first_part() -> None:
    named = lifecycle.name_message(export_in(Phase.SENDING), "run-1", "M1", NOW)
    assert (named.message_id, named.attempts[-1].parts_sent) == ("M1", 1)


def test_a_message_that_is_found_has_the_parts_that_it_surely_has() -> None:
    found = lifecycle.find_message(export_in(Phase.OUTCOME_UNKNOWN), "run-1", "M1", 2, NOW)
    assert (found.message_id, found.attempts[-1].parts_sent) == ("M1", 2)


def test_an_accepted_export_forgets_what_was_wrong_before_and_has_every_part() -> None:
    export = export_in(Phase.UPLOADING)
    export = replace(export, attempts=(replace(export.attempts[-1], error=ERROR, parts_sent=1),))
    accepted = lifecycle.accept(export, "run-1", "M1", NOW)
    attempt = accepted.attempts[-1]
    assert (attempt.error, attempt.parts_sent, attempt.message_id, attempt.sent_at) == (None, 3, "M1", NOW)
    assert accepted.accepted_at == NOW


@pytest.mark.parametrize("event", [Event.REFUSE, Event.MARK_UNCLEAR])
def test_an_attempt_that_went_wrong_says_why(event: Event) -> None:
    assert MAKE[event](export_in(Phase.SENDING)).attempts[-1].error == ERROR


def test_news_of_an_earlier_attempts_message_changes_nothing() -> None:
    export = export_in(Status.ACCEPTED)
    with pytest.raises(ImpossibleMove, match="earlier attempt"):
        lifecycle.acknowledge(export, "another", NOW)
    with pytest.raises(ImpossibleMove, match="earlier attempt"):
        lifecycle.undeliver(export, "another", ERROR, NOW)


def test_what_was_picked_up_or_not_delivered_says_when_and_why() -> None:
    export = export_in(Status.ACCEPTED)
    assert lifecycle.acknowledge(export, "M0", NOW).attempts[-1].acknowledged_at == NOW
    assert lifecycle.undeliver(export, "M0", ERROR, NOW).attempts[-1].error == ERROR


@pytest.mark.parametrize("move", MOVES, ids=lambda move: f"{move.event}-from-{move.origin}")
def test_each_move_is_a_change_of_the_export_now(move: Move) -> None:
    assert MAKE[move.event](fitting(move)).updated_at == NOW


# --- what DPS answers


FIRST, SECOND = Arrival("file-1", "20260504T03020100"), Arrival("file-2", "20260504T03050000")
WORDS = {None: "nothing yet"} | {state: str(state) for state in Processing}


def answered(processing: Processing | None, arrival: Arrival | None = FIRST) -> DPSExport:
    """Make an export of which DPS has said something of one arrival."""
    export = export_in(Status.ACKNOWLEDGED, processing=processing)
    return replace(export, attempts=(replace(export.attempts[0], arrival=arrival if processing else None),))


def told(before: Processing | None, to: Processing, arrival: Arrival | None) -> str:
    return lifecycle.changes_nothing(answered(before).attempts[0], to, arrival) or str(to)


def test_the_architecture_page_shows_what_each_answer_changes() -> None:
    text = ARCHITECTURE.read_text()
    for before in (None, *Processing):
        cells = [WORDS[before]]
        for to in (Processing.RECEIVED, Processing.REFUSED):
            same, another = (told(before, to, arrival) for arrival in (FIRST, SECOND))
            which = "the same" if (before, to) != (Processing.REFUSED, Processing.RECEIVED) else "another"
            one, other = (same, another) if which == "the same" else (another, same)
            cells.append(one if one == other else f"{one} if about {which} arrival, else {other}")
        cells.append(told(before, Processing.PROCESSED, None))
        assert f"| {' | '.join(cells)} |\n" in text


@pytest.mark.parametrize("arrival", [FIRST, SECOND, None])
@pytest.mark.parametrize("before", [None, *Processing])
@pytest.mark.parametrize("to", Processing)
def test_what_dps_makes_of_a_file_moves_along_its_table_and_leaves_the_delivery_alone(
    before: Processing | None, to: Processing, arrival: Arrival | None
) -> None:
    export = answered(before)
    which = ANSWERS.get((before, to))
    if which is None or (which is not Which.ANY and (arrival is SECOND) is (which is Which.SAME)):
        with pytest.raises(ImpossibleMove, match=f"hpv-17: DPS's answer {before} to {to}"):
            lifecycle.hear(export, 1, to, NOW, arrival)
        return
    heard = lifecycle.hear(export, 1, to, NOW, arrival, refusal="10001/10002")
    assert (heard.processing, heard.status, heard.updated_at) == (to, Status.ACKNOWLEDGED, export.updated_at)
    attempt = heard.attempts[-1]
    assert attempt.refusal == "10001/10002"
    assert attempt.arrival == (arrival or (FIRST if before else None))
    expected = (None, NOW) if to is Processing.PROCESSED else (NOW, None)
    assert (attempt.received_at, attempt.processed_at) == expected


def test_what_dps_refused_and_then_processed_has_no_codes_of_a_refusal() -> None:
    export = lifecycle.hear(answered(None), 1, Processing.REFUSED, NOW, FIRST, refusal="10001/10002")
    assert lifecycle.hear(export, 1, Processing.RECEIVED, NOW, SECOND).attempts[0].refusal == ""
    assert lifecycle.hear(export, 1, Processing.PROCESSED, NOW).attempts[0].refusal == ""


@pytest.mark.parametrize(
    ("one", "other", "another"),
    [
        (FIRST, FIRST, False),
        (FIRST, SECOND, True),
        (FIRST, Arrival("file-2", FIRST.received_time), True),
        (FIRST, Arrival("", FIRST.received_time), False),  # DPS has lost its id in a crash
        (FIRST, Arrival("", SECOND.received_time), True),
    ],
)
def test_arrivals_are_told_apart_by_dpss_id_or_by_their_time(one: Arrival, other: Arrival, another: bool) -> None:
    assert one.is_another(other) is other.is_another(one) is another


def test_an_arrival_is_noted_once() -> None:
    export = answered(Processing.PROCESSED, None)
    noted = lifecycle.note_arrival(export, 1, FIRST)
    assert noted.attempts[0].arrival == FIRST
    assert lifecycle.note_arrival(noted, 1, SECOND) is noted


def test_a_refused_file_may_hold_back_the_later_ones_that_dps_has_not_answered() -> None:
    refused = answered(Processing.REFUSED)
    waiting = replace(export_in(Status.ACKNOWLEDGED), number=18)
    exports = [
        replace(waiting, number=16),
        refused,
        waiting,
        replace(answered(Processing.PROCESSED), number=19),
        replace(export_in(Phase.UPLOADING), number=20),
        replace(export_in(Status.ACCEPTED), number=21),
    ]
    assert [each.number for each in lifecycle.behind(refused, exports)] == [18, 21]
    assert lifecycle.behind(answered(Processing.PROCESSED), exports) == []


def test_an_answer_to_an_earlier_attempt_is_noted_with_it() -> None:
    export = export_in(Status.ACCEPTED, attempts=3)
    heard = lifecycle.hear(export, 2, Processing.REFUSED, NOW)
    assert [attempt.processing for attempt in heard.attempts] == [None, Processing.REFUSED, None]
    assert heard.processing is None


# --- what the table tells


@pytest.mark.parametrize(
    ("state", "nightly", "hourly"),
    [
        (Status.OPEN, Step.SEAL, None),
        *((phase, Step.SEND, Step.SEND) for phase in Phase),
        (Status.FAILED, Step.RETRY, None),
        (Status.UNDELIVERED, None, None),
        (Status.REQUEUED, None, None),
        (Status.UNCLEAR, None, None),
        (Status.ACCEPTED, None, None),
        (Status.ACKNOWLEDGED, None, None),
    ],
)
def test_what_a_run_does_with_an_export(state: Status | Phase, nightly: Step | None, hourly: Step | None) -> None:
    export = export_in(state)
    assert lifecycle.next_step(export, nightly=True) is nightly
    assert lifecycle.next_step(export, nightly=False) is hourly


def test_no_run_does_anything_with_what_has_no_records_or_was_tried_five_times() -> None:
    assert lifecycle.next_step(replace(export_in(Status.OPEN), records=0), nightly=True) is None
    assert lifecycle.next_step(export_in(Status.FAILED, attempts=MAX_ATTEMPTS), nightly=True) is None
    assert lifecycle.next_step(export_in(Status.FAILED, attempts=MAX_ATTEMPTS - 1), nightly=True) is Step.RETRY


REFUSED = Processing.REFUSED
RESEND = "mesh export resend hpv-17"


def with_rows_refused(export: DPSExport) -> DPSExport:
    attempt = replace(export.attempts[-1], processing=Processing.PROCESSED, rows_processed=2, rows_refused=1)
    return replace(export, attempts=(attempt,))


@pytest.mark.parametrize(
    ("export", "who", "attention", "todo"),
    [
        (export_in(Status.OPEN), Who.NIGHTLY, Attention.WAITING, ""),
        (replace(export_in(Status.OPEN), records=0), None, Attention.WAITING, ""),
        *((export_in(phase), Who.RUN, Attention.WAITING, "") for phase in Phase),
        (export_in(Status.FAILED), Who.NIGHTLY, Attention.WAITING, ""),
        (
            export_in(Status.FAILED, attempts=5),
            Who.PERSON,
            Attention.PERSON,
            f"tried 5 times; put the cause right, then {RESEND}",
        ),
        (export_in(Status.UNCLEAR), Who.PERSON, Attention.PERSON, f"ask MESH whether it arrived, then {RESEND}"),
        (export_in(Status.ACCEPTED), Who.DPS, Attention.WAITING, ""),
        (
            export_in(Status.ACCEPTED, processing=REFUSED),
            Who.PERSON,
            Attention.PERSON,
            f"ask DPS why, and to clear it, for later files may wait behind it; then {RESEND}",
        ),
        (export_in(Status.ACKNOWLEDGED), None, Attention.DONE, ""),
        (with_rows_refused(export_in(Status.ACKNOWLEDGED)), None, Attention.PARTLY, ""),
        (with_rows_refused(export_in(Status.ACCEPTED)), Who.DPS, Attention.PARTLY, ""),
        (with_rows_refused(export_in(Status.REQUEUED)), None, Attention.DONE, ""),
        (
            export_in(Status.ACKNOWLEDGED, processing=REFUSED),
            Who.PERSON,
            Attention.PERSON,
            f"ask DPS why, and to clear it, for later files may wait behind it; then {RESEND}",
        ),
        (export_in(Status.UNDELIVERED), Who.RUN, Attention.WAITING, ""),
        (export_in(Status.REQUEUED), None, Attention.DONE, ""),
    ],
)
def test_who_has_to_act_and_what_a_person_has_to_do(
    export: DPSExport, who: Who | None, attention: Attention, todo: str
) -> None:
    assert lifecycle.waits_for(export) is who
    assert lifecycle.attention(export, NOW) is attention
    assert lifecycle.todo(export, NOW) == todo


def test_a_file_that_nobody_has_picked_up_for_three_days_needs_a_person() -> None:
    export = export_in(Status.ACCEPTED)
    sent_at = export.attempts[-1].sent_at
    assert sent_at
    three_days = sent_at + timedelta(days=3)
    assert lifecycle.todo(export, three_days) == ""
    assert lifecycle.todo(export, three_days + timedelta(seconds=1)) == "ask DPS why nobody picks it up"
    assert lifecycle.attention(export, three_days + timedelta(seconds=1)) is Attention.PERSON


def test_an_age_is_counted_from_when_the_waiting_began() -> None:
    assert lifecycle.since(export_in(Status.OPEN)) == CREATED
    assert lifecycle.since(export_in(Phase.SENDING)) == BEGUN
    assert lifecycle.since(export_in(Status.ACCEPTED)) == BEGUN + timedelta(minutes=1)
    assert lifecycle.since(export_in(Status.UNDELIVERED)) == BEGUN


def test_later_exports_wait_until_mesh_had_this_one_whole() -> None:
    assert lifecycle.in_the_way(export_in(Status.FAILED))
    assert not lifecycle.in_the_way(export_in(Status.UNDELIVERED))
    assert not lifecycle.in_the_way(export_in(Status.REQUEUED))
