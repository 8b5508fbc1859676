"""The table of `vaccinations.model.decide`, row by row, and what holds whatever is uploaded."""

from __future__ import annotations

import itertools
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.model.decide import (
    Absent,
    Columns,
    Decision,
    Known,
    Overtaken,
    Queue,
    Reject,
    Skip,
    Unchanged,
    UploadFacts,
    decide,
)
from vaccinations.model.entry import ALREADY_SENT, WITHDRAWN, Entry, Person, Place, Refusal
from vaccinations.model.outcome import Action, OnFile, Outcome
from vaccinations.model.problems import Problem
from vaccinations.model.row import Faulty, Lost, Nobody, Row, SendAgain, Vaccinated, Withdrawn, person_in
from vaccinations.model.uploaders import Uploaders

UUID = "496e37d8-d1ab-4e12-a3a3-9c2e136a0504"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
COLUMNS = Columns("UUID", "ORGANISATION_CODE", "TIME_OF_VACCINATION", "PROGRAMME", "VACCINATED", "VACCINATED = No")
#: How old statements are: of an earlier upload, of this one, and of a later one.
EARLIER, NOW, LATER = "2026-11-23", "2026-11-24", "2026-11-25"
UPLOAD = UploadFacts("this", NOON, NOW, "R1L", Uploaders(), COLUMNS)
REFUSAL = Refusal(Outcome.UNKNOWN, "2026-11-23T12:00:00+00:00", "hpv-1", 3, "inbox/answer")
STATED = Entry(UUID, "hpv", "d1", Action.NEW, "earlier", 7, "R1L", EARLIER, EARLIER)
NOT_ON_FILE = replace(STATED, on_file=OnFile.NO)
GONE = replace(STATED, digest=WITHDRAWN, action=Action.DELETE, batch_id="last", new_in=STATED.statement)
UNSTATED = replace(GONE, programme="", on_file=OnFile.NO, new_in=None)
UPDATED = replace(STATED, digest="d2", action=Action.UPDATE, batch_id="last", new_in=STATED.statement)
MAYBE = replace(STATED, on_file=OnFile.UNKNOWN)

STATED_ANEW = "upload the vaccination once more with something corrected (the same changes nothing)"


def vaccinated(
    digest: str = "d1", programme: str = "hpv", at: datetime = NOON, line: int = 9, code: str = "R1L"
) -> Vaccinated:
    record: Any = SimpleNamespace(
        uuid=UUID,
        programme=programme,
        vaccinated_at=at,
        organisation_code=code,
        nhs_number="9990000018",
        surname="Zephyrson",
        date_of_birth=date(2012, 8, 18),
    )
    return Vaccinated(line, record, digest)


def queued(digest: str, action: Action, *, repeats: bool, stated_at: str = NOW, **changes: Any) -> Queue:
    """Make what is queued: an `update` or `delete` follows the `new` of `STATED`, where nothing else is said."""
    facts = {
        "owner": "R1L",
        "owned_since": EARLIER,
        "new_in": None if action is Action.NEW else STATED.statement,
    } | changes
    return Queue(Entry(UUID, "hpv", digest, action, "this", 9, stated_at=stated_at, **facts), repeats=repeats)


def again(digest: str, action: Action, **changes: Any) -> Queue:
    """Make what is queued where a request repeats `STATED`."""
    return queued(digest, action, repeats=True, **{"stated_at": EARLIER, "origin": STATED.statement} | changes)


def unchanged(entry: Entry, stated_at: str = NOW) -> Unchanged:
    return Unchanged(replace(entry, stated_at=stated_at))


def refused(entry: Entry) -> Entry:
    return replace(entry, refusal=REFUSAL)


WITHDRAWAL, AGAIN = Withdrawn(9, UUID), SendAgain(9, UUID)
#: The `new` of STATED, and whatever came last, in a file that DPS never got.
LOST_NEW, LOST = Lost(9, UUID, STATED.statement, Action.NEW), Lost(9, UUID, UPDATED.statement, Action.UPDATE)
TABLE: dict[str, tuple[Row, Entry | None, Decision]] = {
    "stated, never ingested": (vaccinated("d2"), None, queued("d2", Action.NEW, repeats=False, owned_since=NOW)),
    "stated as before": (vaccinated("d1"), STATED, unchanged(STATED)),
    "stated as before, not on file": (vaccinated("d1"), refused(NOT_ON_FILE), unchanged(refused(NOT_ON_FILE))),
    "corrected": (vaccinated("d2"), STATED, queued("d2", Action.UPDATE, repeats=False)),
    "corrected after a refusal": (vaccinated("d2"), refused(STATED), queued("d2", Action.UPDATE, repeats=False)),
    "corrected, not on file": (vaccinated("d2"), NOT_ON_FILE, queued("d2", Action.NEW, repeats=False)),
    "stated again after a withdrawal": (vaccinated("d1"), GONE, queued("d1", Action.UPDATE, repeats=False)),
    "stated again after a withdrawal, not on file": (
        vaccinated("d1"),
        replace(GONE, on_file=OnFile.NO),
        queued("d1", Action.NEW, repeats=False),
    ),
    "withdrawn, never ingested": (
        WITHDRAWAL,
        None,
        Skip(replace(UNSTATED, batch_id="this", line=9, owned_since=NOW, stated_at=NOW)),
    ),
    "withdrawn twice": (WITHDRAWAL, GONE, unchanged(GONE)),
    "withdrawn": (WITHDRAWAL, STATED, queued(WITHDRAWN, Action.DELETE, repeats=True)),
    "withdrawn after a refusal": (WITHDRAWAL, refused(STATED), queued(WITHDRAWN, Action.DELETE, repeats=True)),
    "withdrawn, not on file": (
        WITHDRAWAL,
        NOT_ON_FILE,
        queued(WITHDRAWN, Action.DELETE, on_file=OnFile.NO, repeats=True),
    ),
    "to be sent again, named before": (
        AGAIN,
        replace(refused(STATED), batch_id="this"),
        Unchanged(replace(refused(STATED), batch_id="this")),
    ),
    "to be sent again, withdrawn": (
        AGAIN,
        refused(GONE),
        again(WITHDRAWN, Action.DELETE, origin=GONE.statement),
    ),
    "to be sent again, on file": (AGAIN, refused(STATED), again("d1", Action.UPDATE)),
    "to be sent again, not on file": (
        AGAIN,
        refused(NOT_ON_FILE),
        again("d1", Action.NEW),
    ),
    "stated after it was withdrawn and never stated": (
        vaccinated("d1"),
        UNSTATED,
        queued("d1", Action.NEW, repeats=False),
    ),
    "withdrawn again, never stated": (WITHDRAWAL, UNSTATED, Skip(replace(UNSTATED, stated_at=NOW))),
    "older than what is known": (
        vaccinated("d2"),
        replace(STATED, stated_at=LATER),
        Overtaken(replace(STATED, stated_at=LATER)),
    ),
    "older and the same": (
        vaccinated("d1"),
        replace(STATED, stated_at=LATER),
        Overtaken(replace(STATED, stated_at=LATER)),
    ),
    "older, and under another programme": (
        vaccinated("d2", "flu"),
        replace(STATED, stated_at=LATER),
        Overtaken(replace(STATED, stated_at=LATER)),
    ),
    "older than a withdrawal": (
        vaccinated("d1"),
        replace(GONE, stated_at=LATER),
        Overtaken(replace(GONE, stated_at=LATER)),
    ),
    "older than the withdrawal of what was never stated": (
        vaccinated("d1"),
        replace(UNSTATED, stated_at=LATER),
        Overtaken(replace(UNSTATED, stated_at=LATER)),
    ),
    "a withdrawal older than what is known": (
        WITHDRAWAL,
        replace(STATED, stated_at=LATER),
        Overtaken(replace(STATED, stated_at=LATER)),
    ),
    "to be sent again by an upload older than the statement": (
        AGAIN,
        replace(refused(STATED), stated_at=LATER),
        again("d1", Action.UPDATE, stated_at=LATER),
    ),
    "to be sent again, maybe on file": (AGAIN, refused(MAYBE), again("d1", Action.NEW)),
    "to be sent again, another organisation's": (
        AGAIN,
        refused(replace(STATED, owner="RX1")),
        again("d1", Action.UPDATE, owner="RX1"),
    ),
    "to be sent again, for the second time": (
        AGAIN,
        refused(replace(STATED, batch_id="request", origin=STATED.statement)),
        again("d1", Action.UPDATE, new_in=Place("request", 7)),
    ),
    "to be sent again, withdrawn and not on file": (
        AGAIN,
        refused(replace(GONE, on_file=OnFile.NO)),
        again(WITHDRAWN, Action.DELETE, origin=GONE.statement),
    ),
    "withdrawn, sent again before": (
        WITHDRAWAL,
        replace(STATED, origin=Place("upload", 3)),
        queued(WITHDRAWN, Action.DELETE, repeats=True),
    ),
    "withdrawn, and only a parked upload states it": (
        WITHDRAWAL,
        replace(STATED, owner="R1L").waiting(),
        Skip(replace(UNSTATED, batch_id="this", line=9, stated_at=NOW)),
    ),
    "stated, as only a parked upload does": (
        vaccinated("d1"),
        STATED.waiting(),
        queued("d1", Action.NEW, repeats=False),
    ),
    "corrected, maybe on file": (vaccinated("d2"), MAYBE, queued("d2", Action.NEW, repeats=False)),
    "corrected for the second time": (vaccinated("d3"), UPDATED, queued("d3", Action.UPDATE, repeats=False)),
    "withdrawn, maybe on file": (
        WITHDRAWAL,
        MAYBE,
        queued(WITHDRAWN, Action.DELETE, on_file=OnFile.UNKNOWN, repeats=True),
    ),
    "lost new, nothing newer": (LOST_NEW, STATED, again("d1", Action.NEW)),
    "lost new, updated since": (LOST_NEW, UPDATED, again("d2", Action.NEW, origin=UPDATED.statement)),
    "lost new, updated since and refused": (
        LOST_NEW,
        refused(replace(UPDATED, on_file=OnFile.NO)),
        again("d2", Action.NEW, origin=UPDATED.statement),
    ),
    "lost new, a newer new": (
        LOST_NEW,
        replace(STATED, batch_id="last"),
        Unchanged(replace(STATED, batch_id="last")),
    ),
    "lost new, a newer new, and updated since": (
        LOST_NEW,
        replace(UPDATED, new_in=Place("middle", 7)),
        Unchanged(replace(UPDATED, new_in=Place("middle", 7))),
    ),
    "lost new, withdrawn since": (LOST_NEW, GONE, Absent(replace(GONE, on_file=OnFile.NO))),
    "lost update, nothing newer": (LOST, UPDATED, again("d2", Action.UPDATE, origin=UPDATED.statement)),
    "lost update, nothing newer, not on file": (
        LOST,
        replace(UPDATED, on_file=OnFile.NO),
        again("d2", Action.NEW, origin=UPDATED.statement),
    ),
    "lost update, nothing newer, maybe on file": (
        LOST,
        replace(UPDATED, on_file=OnFile.UNKNOWN),
        again("d2", Action.NEW, origin=UPDATED.statement),
    ),
    "lost update, newer": (
        LOST,
        replace(UPDATED, batch_id="newest"),
        Unchanged(replace(UPDATED, batch_id="newest")),
    ),
    "lost delete, nothing newer": (LOST, GONE, again(WITHDRAWN, Action.DELETE, origin=GONE.statement)),
    "lost delete, nothing newer, not on file": (
        LOST,
        replace(GONE, on_file=OnFile.NO),
        again(WITHDRAWN, Action.DELETE, origin=GONE.statement),
    ),
    "lost delete, stated since": (
        replace(LOST, action=Action.DELETE),
        replace(UPDATED, batch_id="newest"),
        Unchanged(replace(UPDATED, batch_id="newest")),
    ),
}


@pytest.mark.parametrize(("row", "entry", "decision"), TABLE.values(), ids=TABLE)
def test_a_row_is_accepted_or_changes_nothing_as_the_table_says(
    row: Row, entry: Entry | None, decision: Decision
) -> None:
    decided = decide(row, Known(entry, kept=True) if entry else None, UPLOAD)
    if isinstance(decided, Queue):
        # What was lost is not on file, whatever becomes of the request.
        lost = isinstance(row, Lost) and row.action is Action.NEW and entry
        before = entry if entry and entry.batch_id else None  # what waits in a parked upload does not count
        assert decided.entry.before == (replace(entry, on_file=OnFile.NO) if lost and entry else before)
        decided = replace(decided, entry=replace(decided.entry, before=None))
    assert decided == decision


def test_what_was_known_before_an_upload_is_kept_with_the_last_statement_of_it() -> None:
    """However often it speaks of the record, and not what was known before the upload before."""
    before: Entry = replace(refused(STATED), before=GONE)
    known = Known(before, kept=True)
    for row in (vaccinated("d2"), WITHDRAWAL, vaccinated("d3")):
        decision = decide(row, known, UPLOAD)
        assert isinstance(decision, Queue)
        assert decision.entry.before == refused(STATED)
        known = Known(decision.entry, kept=True)


LATE = Problem("TIME_OF_VACCINATION", "is later than the upload", "the time the vaccine was given")
ELSEWHERE = Problem(
    "PROGRAMME",
    "this record was ingested under HPV before",
    "withdraw it there (upload it under HPV with VACCINATED = No), then upload it with a UUID of its own",
)
FOREIGN = Problem(
    "UUID",
    "this record is another organisation's",
    "an identifier of your own; an organisation that took over from another asks whoever runs this service",
)
NOT_FOR = Problem(
    "ORGANISATION_CODE",
    "is an organisation that this folder may not state vaccinations for",
    "R1L, or nothing; or a folder of its own",
)
ANOTHER = Problem(
    "UUID",
    "this record was ingested before, of another child: NHS number, surname and date of birth all differ",
    "a UUID of its own; where it is the same child, withdraw the old record",
)
ANOTHER_WITHDRAWN = replace(ANOTHER, fix="the UUID of this child's record; or the other child as it was stated")
STRANGER = Person("9990000026", "Hollow", "2013-01-02")
THEIRS = replace(STATED, owner="RX1")
REJECTED: dict[str, tuple[Row, Known | None, list[Problem]]] = {
    "stated under another programme": (
        vaccinated("d2", "menacwy"),
        Known(STATED, kept=True),
        [ELSEWHERE],
    ),
    "given later than the upload": (
        vaccinated(at=NOON + timedelta(seconds=1)),
        None,
        [LATE],
    ),
    "both": (
        vaccinated("d1", "menacwy", NOON + timedelta(days=1)),
        Known(STATED, kept=True),
        [LATE, ELSEWHERE],
    ),
    "another organisation's, stated as they do": (vaccinated("d1"), Known(THEIRS, kept=True), [FOREIGN]),
    "another organisation's, of another programme": (vaccinated("d1", "flu"), Known(THEIRS, kept=True), [FOREIGN]),
    "another organisation's, corrected": (vaccinated("d2", code="RX1"), Known(THEIRS, kept=True), [FOREIGN]),
    "another organisation's, older": (
        vaccinated("d2"),
        Known(replace(THEIRS, stated_at=LATER), kept=True),
        [FOREIGN],
    ),
    "another organisation's, withdrawn": (WITHDRAWAL, Known(THEIRS, kept=True), [FOREIGN]),
    "another organisation's, withdrawn before it was stated": (
        vaccinated("d1"),
        Known(replace(UNSTATED, owner="RX1"), kept=False),
        [FOREIGN],
    ),
    "stated for another organisation": (vaccinated(code="RX1"), None, [NOT_FOR]),
    "stated for another organisation, and older": (
        vaccinated(code="RX1"),
        Known(replace(STATED, stated_at=LATER), kept=True),
        [NOT_FOR],
    ),
    "stated for another organisation, and too late": (
        vaccinated(at=NOON + timedelta(days=1), code="RX1"),
        None,
        [NOT_FOR, LATE],
    ),
    "withdrawn for another organisation": (Withdrawn(9, UUID, "RX1"), None, [NOT_FOR]),
    "of another child": (vaccinated("d2"), Known(STATED, kept=True, person=STRANGER), [ANOTHER]),
    "withdrawn, of another child": (
        replace(WITHDRAWAL, person=person_in(vaccinated("d1").record)),
        Known(STATED, kept=True, person=STRANGER),
        [ANOTHER_WITHDRAWN],
    ),
    "of another child, after a withdrawal": (vaccinated("d1"), Known(GONE, kept=True, person=STRANGER), [ANOTHER]),
    "withdrawn, no longer kept": (
        WITHDRAWAL,
        Known(STATED, kept=False),
        [
            Problem(
                "VACCINATED",
                "this record was ingested so long ago that it is no longer kept, so it cannot be withdrawn",
                f"{STATED_ANEW}, then withdraw it",
            )
        ],
    ),
    "to be sent again, never ingested": (
        AGAIN,
        None,
        [Problem("", "is of no record that was ingested", "the identifier of a record that DPS refused")],
    ),
    "to be sent again, not refused": (
        AGAIN,
        Known(STATED, kept=True),
        [Problem("", "DPS has not refused this record as it was sent last", "leave it out")],
    ),
    "to be sent again, no longer kept": (
        AGAIN,
        Known(refused(STATED), kept=False),
        [
            Problem(
                "",
                "what was sent is no longer kept",
                STATED_ANEW,
            )
        ],
    ),
    "lost, never ingested": (
        LOST_NEW,
        None,
        [Problem("", "is of no record that was ingested", "upload the vaccination once more")],
    ),
    "lost, no longer kept": (
        LOST_NEW,
        Known(STATED, kept=False),
        [
            Problem(
                "",
                "what was sent is no longer kept",
                STATED_ANEW,
            )
        ],
    ),
}


@pytest.mark.parametrize(("row", "known", "problems"), REJECTED.values(), ids=REJECTED)
def test_a_row_is_rejected_with_what_is_wrong_and_what_would_be_right(
    row: Row, known: Known | None, problems: list[Problem]
) -> None:
    assert decide(row, known, UPLOAD) == Reject(tuple(problems))


# -- the cut-over: lists of what another system has sent already

LIST = replace(UPLOAD, stated_at=ALREADY_SENT, already_sent=True)


def test_what_was_already_sent_is_registered_as_older_than_whatever_is_uploaded() -> None:
    decision = decide(vaccinated("d2"), None, LIST)
    assert decision == queued("d2", Action.NEW, repeats=False, owned_since=ALREADY_SENT, stated_at=ALREADY_SENT)
    assert isinstance(decision, Queue)
    older = replace(UPLOAD, stated_at="1999", batch_id="other")
    assert decide(vaccinated("d2"), Known(decision.entry, kept=True), older) == unchanged(decision.entry, "1999")
    corrected = decide(vaccinated("d3"), Known(decision.entry, kept=True), older)
    assert isinstance(corrected, Queue)
    assert corrected.entry.action is Action.UPDATE


def test_what_is_known_here_is_not_changed_by_a_list_of_what_was_already_sent() -> None:
    assert decide(vaccinated("d1"), Known(STATED, kept=True), LIST) == Unchanged(STATED)
    for entry in (UPDATED, GONE):
        assert decide(vaccinated("d1"), Known(entry, kept=True), LIST) == Reject(
            (Problem("UUID", "this record was ingested before", "upload it as any other record"),)
        )
    withdrawn = Problem(
        "UUID", "this record was withdrawn before", "upload the vaccination once more, then withdraw it"
    )
    assert decide(vaccinated("d1"), Known(UNSTATED, kept=False), LIST) == Reject((withdrawn,))
    not_listed = Problem(
        "VACCINATED",
        "withdraws a record, but a list of what was already sent holds vaccinations only",
        "leave it out, and upload it as any other row",
    )
    for known in (None, Known(STATED, kept=True)):
        assert decide(WITHDRAWAL, known, LIST) == Reject((not_listed,))
    assert decide(vaccinated(code="RX1"), None, LIST) == Reject((NOT_FOR,))
    assert decide(vaccinated("d1"), Known(THEIRS, kept=True), LIST) == Reject((FOREIGN,))


def test_a_faulty_row_is_rejected_for_all_that_is_wrong_with_it() -> None:
    problems = (Problem("A", "is missing", "a letter"), Problem("B", "is missing", "a letter"))
    assert decide(Faulty(9, problems), None, UPLOAD) == Reject(problems)


def test_a_row_about_no_record_is_skipped_and_nothing_is_known_afterwards() -> None:
    assert decide(Nobody(9), None, UPLOAD) == Skip(None)


@pytest.mark.parametrize("at", [NOON, NOON.replace(tzinfo=None), NOON.replace(tzinfo=None) - timedelta(hours=1)])
def test_a_vaccination_given_up_to_the_moment_of_the_upload_is_accepted(at: datetime) -> None:
    assert isinstance(decide(vaccinated(at=at), None, UPLOAD), Queue)


@pytest.mark.parametrize(("clock", "accepted"), [("12:30", True), ("13:00", True), ("13:01", False)])
def test_a_time_without_an_offset_is_londons(clock: str, accepted: bool) -> None:
    """In summer, 13:00 in London is 12:00 UTC."""
    upload = replace(UPLOAD, uploaded_at=datetime(2026, 7, 1, 12, tzinfo=UTC))
    row = vaccinated(at=datetime.fromisoformat(f"2026-07-01T{clock}"))
    assert isinstance(decide(row, None, upload), Queue) is accepted


@pytest.mark.parametrize(
    "last",
    [
        None,  # no longer kept
        replace(STRANGER, nhs_number="9990000018"),
        replace(STRANGER, surname="ZEPHYRSON"),
        replace(STRANGER, date_of_birth="2012-08-18"),
    ],
)
def test_a_correction_that_leaves_number_surname_or_date_of_birth_is_of_the_same_child(last: Person | None) -> None:
    assert isinstance(decide(vaccinated("d2"), Known(STATED, kept=True, person=last), UPLOAD), Queue)


def test_a_number_that_is_not_stated_does_not_say_that_a_child_is_the_same() -> None:
    nobody = replace(STRANGER, nhs_number=None)
    assert nobody.differs_wholly(Person(None, "Zephyrson", "2012-08-18"))
    assert nobody.differs_wholly(Person("9990000018", "Zephyrson", "2012-08-18"))
    assert not nobody.differs_wholly(Person(None, " hollow", "2012-08-18"))
    assert "Hollow" not in repr(nobody)


def test_what_a_folder_may_do_beyond_its_own_records_is_done() -> None:
    merged = replace(UPLOAD, uploaders=Uploaders(succeeds={"R1L": frozenset({"RX1"})}))
    supplier = replace(UPLOAD, uploaders=Uploaders(states_for={"R1L": frozenset({"*"})}))
    corrected = decide(vaccinated("d2", code="RX1"), Known(THEIRS, kept=True), merged)
    changed = replace(THEIRS, digest="d2", action=Action.UPDATE, batch_id="this", line=9, stated_at=NOW)
    assert corrected == Queue(replace(changed, before=THEIRS, new_in=THEIRS.statement), repeats=False)
    assert isinstance(decide(Withdrawn(9, UUID, "RX1"), Known(THEIRS, kept=True), merged), Queue)
    skipped = decide(Withdrawn(9, UUID, "RX1"), Known(THEIRS.waiting(), kept=False), merged)
    assert skipped == Skip(replace(UNSTATED, batch_id="this", line=9, owner="RX1", stated_at=NOW))
    assert isinstance(decide(vaccinated(code="RX1"), None, supplier), Queue)
    assert isinstance(decide(vaccinated(code="RX1"), Known(THEIRS, kept=True), supplier), Reject)


# -- whose it was first

#: Of another organisation that was ingested first, and uploaded later.
LATECOMERS = replace(THEIRS, owned_since=LATER, stated_at=LATER)
OURS = LATECOMERS.of("R1L", NOW)
SUCCESSOR = replace(UPLOAD, uploaders=Uploaders(succeeds={"RX1": frozenset({"R1L"})}))
MERGED = replace(UPLOAD, uploaders=Uploaders(succeeds={"R1L": frozenset({"RX1"})}))


def our(entry: Entry, action: Action, **changes: Any) -> Entry:
    return replace(OURS, action=action, batch_id="this", line=9, stated_at=NOW, before=entry, **changes)


ARRIVED_EARLIER: dict[str, tuple[Row, Entry, UploadFacts, Decision]] = {
    "stated otherwise": (
        vaccinated("d2"),
        LATECOMERS,
        UPLOAD,
        Queue(our(LATECOMERS, Action.UPDATE, digest="d2", new_in=LATECOMERS.statement), repeats=False),
    ),
    "stated otherwise, not on file": (
        vaccinated("d2"),
        replace(LATECOMERS, on_file=OnFile.NO),
        UPLOAD,
        Queue(our(replace(LATECOMERS, on_file=OnFile.NO), Action.NEW, digest="d2"), repeats=False),
    ),
    "stated as they did": (vaccinated("d1"), LATECOMERS, UPLOAD, Unchanged(replace(OURS, stated_at=NOW))),
    "withdrawn": (
        WITHDRAWAL,
        LATECOMERS,
        UPLOAD,
        Queue(our(LATECOMERS, Action.DELETE, digest=WITHDRAWN, new_in=LATECOMERS.statement), repeats=True),
    ),
    "withdrawn, as they did before it was stated": (
        WITHDRAWAL,
        replace(UNSTATED, owner="RX1", owned_since=LATER, stated_at=LATER),
        UPLOAD,
        Skip(replace(UNSTATED, owned_since=NOW, stated_at=NOW)),
    ),
    "stated under another programme": (
        vaccinated("d2", "flu"),
        LATECOMERS,
        UPLOAD,
        Reject((replace(ELSEWHERE, column="PROGRAMME"),)),
    ),
    "stated since by one that succeeds us": (
        vaccinated("d2"),
        LATECOMERS,
        SUCCESSOR,
        Overtaken(replace(LATECOMERS, owner="R1L", owned_since=NOW)),
    ),
    "withdrawn, and stated since by one that succeeds us": (
        WITHDRAWAL,
        LATECOMERS,
        SUCCESSOR,
        Overtaken(replace(LATECOMERS, owner="R1L", owned_since=NOW)),
    ),
    "stated since by one that we succeed": (
        vaccinated("d2"),
        LATECOMERS,
        MERGED,
        Queue(our(LATECOMERS, Action.UPDATE, digest="d2", new_in=LATECOMERS.statement), repeats=False),
    ),
    "stated since by ourselves": (
        vaccinated("d2"),
        replace(LATECOMERS, owner="R1L"),
        UPLOAD,
        Overtaken(replace(LATECOMERS, owner="R1L", owned_since=NOW)),
    ),
    "arrived there at the same time": (
        vaccinated("d2"),
        replace(LATECOMERS, owned_since=NOW),
        UPLOAD,
        Reject((FOREIGN,)),
    ),
}


@pytest.mark.parametrize(("row", "entry", "upload", "decision"), ARRIVED_EARLIER.values(), ids=ARRIVED_EARLIER)
def test_a_record_is_whose_it_was_first_by_the_time_of_the_upload(
    row: Row, entry: Entry, upload: UploadFacts, decision: Decision
) -> None:
    assert decide(row, Known(entry, kept=True, person=STRANGER), upload) == decision


def test_no_list_of_what_was_already_sent_makes_a_record_anybody_elses() -> None:
    assert decide(vaccinated("d2"), Known(LATECOMERS, kept=True), LIST) == Reject((FOREIGN,))
    known = Known(replace(LATECOMERS, owner="R1L"), kept=True)
    assert decide(vaccinated("d1"), known, LIST) == Unchanged(known.entry)


# -- whatever is uploaded

rows = st.one_of(
    st.builds(
        vaccinated,
        st.sampled_from(["d1", "d2", "d3"]),
        st.sampled_from(["hpv", "flu"]),
        st.sampled_from([NOON, NOON + timedelta(hours=2), NOON - timedelta(days=9)]),
        st.just(9),
        st.sampled_from(["R1L", "R1L", "RX1"]),
    ),
    st.sampled_from([WITHDRAWAL, Withdrawn(9, UUID, "R1L"), Withdrawn(9, UUID, "RX1")]),
    st.just(AGAIN),
    st.just(Faulty(9, (Problem("A", "is missing", "a letter"),))),
)
entries = st.builds(
    Entry,
    st.just(UUID),
    st.sampled_from(["hpv", "flu"]),
    st.sampled_from(["d1", "d2", WITHDRAWN]),
    st.sampled_from(Action),
    st.sampled_from(["this", "earlier"]),
    st.integers(1, 99),
    st.sampled_from(["R1L", "R1L", "RX1"]),
    st.just(EARLIER),
    st.sampled_from([EARLIER, NOW, LATER]),
    st.sampled_from(OnFile),
    st.sampled_from([None, REFUSAL]),
    new_in=st.sampled_from([None, Place("earliest", 1)]),
)
knowns = st.one_of(st.none(), st.just(Known(UNSTATED, kept=False)), st.builds(Known, entries, st.booleans()))


@given(rows, knowns)
def test_the_same_input_gives_the_same_decision(row: Row, known: Known | None) -> None:
    assert decide(row, known, UPLOAD) == decide(row, known, UPLOAD)


@given(rows, knowns)
def test_what_is_queued_is_this_uploads_statement_and_not_refused_yet(row: Row, known: Known | None) -> None:
    decision = decide(row, known, UPLOAD)
    if isinstance(decision, Queue):
        assert (decision.entry.statement, decision.entry.refusal) == (("this", row.line), None)
        assert known is None or known.entry.unstated or decision.entry.programme == known.entry.programme
        assert decision.entry.withdrawn == (decision.entry.action is Action.DELETE)
        assert decision.repeats == (not isinstance(row, Vaccinated))
        assert known is None or known.kept or not decision.repeats


@given(rows, knowns)
def test_dps_is_told_new_exactly_of_what_is_not_on_file(row: Row, known: Known | None) -> None:
    """A withdrawn record that is not on file never goes out as an update."""
    decision = decide(row, known, UPLOAD)
    if isinstance(decision, Queue) and decision.entry.action is not Action.DELETE:
        on_file = known is not None and known.entry.on_file is OnFile.YES
        assert decision.entry.action is (Action.UPDATE if on_file else Action.NEW)
        assert decision.entry.on_file is OnFile.YES


@given(st.lists(rows, max_size=12), knowns)
def test_no_statement_goes_out_twice_in_a_row_within_an_upload(given_rows: list[Row], known: Known | None) -> None:
    said: list[str] = []
    for row in given_rows:
        decision = decide(row, known, UPLOAD)
        if isinstance(decision, Queue):
            said.append(decision.entry.digest)
        if isinstance(decision, Queue | Unchanged | Skip):
            known = Known(decision.entry, kept=True)
    assert all(before != after for before, after in itertools.pairwise(said))


@given(rows, knowns)
def test_a_row_decided_on_twice_changes_nothing_the_second_time(row: Row, known: Known | None) -> None:
    decision = decide(row, known, UPLOAD)
    if isinstance(decision, Queue):
        assert decide(row, Known(decision.entry, kept=True), UPLOAD) == Unchanged(decision.entry)
    if isinstance(decision, Unchanged | Skip):
        assert decide(row, Known(decision.entry, kept=True), UPLOAD) == decision


@given(rows, knowns)
def test_what_is_known_is_never_older_than_it_was_and_the_owner_stays(row: Row, known: Known | None) -> None:
    decision = decide(row, known, UPLOAD)
    if known and isinstance(decision, Queue | Unchanged | Skip):
        assert decision.entry.stated_at >= known.entry.stated_at
        assert decision.entry.owner == known.entry.owner
        assert known.entry.owner == "R1L" or isinstance(row, SendAgain)


@given(rows, knowns)
def test_what_is_rejected_says_why_and_never_repeats_a_value(row: Row, known: Known | None) -> None:
    decision = decide(row, known, UPLOAD)
    if isinstance(decision, Reject):
        assert decision.problems
        assert UUID not in str(decision.problems)


def test_deciding_needs_the_standard_library_only() -> None:
    code = (
        "import sys, vaccinations.model.decide; "
        "print([m for m in ('boto3', 'botocore', 'pydantic', 'requests', 'orjson', 'isal') if m in sys.modules])"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
