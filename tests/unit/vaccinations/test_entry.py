"""What the order of statements promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.model.entry import Entry, Refusal, age_of
from vaccinations.model.outcome import Action, OnFile, Outcome

NOON = datetime(2027, 1, 13, 12, tzinfo=UTC)
uploads = st.tuples(st.integers(0, 3), st.sampled_from(["a.csv", "b.csv", "c.csv"]), st.integers(0, 9999))


def age(upload: tuple[int, str, int]) -> str:
    seconds, key, place = upload
    return age_of(NOON + timedelta(seconds=seconds), key, place)


@given(uploads, uploads)
def test_the_time_of_the_upload_counts_first_then_for_versions_of_one_object_their_order(
    one: tuple[int, str, int], other: tuple[int, str, int]
) -> None:
    assert (age(one) == age(other)) == (one == other)
    if one[0] < other[0] or (one[:2] == other[:2] and one[2] < other[2]):
        assert age(one) < age(other)


def test_the_age_is_the_same_however_the_time_is_written_and_holds_no_name() -> None:
    elsewhere = NOON.astimezone(timezone(timedelta(hours=9)))
    assert age_of(elsewhere, "Quintessa.csv", 0) == age_of(NOON, "Quintessa.csv", 0)
    assert age_of(NOON.replace(microsecond=9), "Quintessa.csv", 0) == age_of(NOON, "Quintessa.csv", 0)
    assert "Quintessa" not in age_of(NOON, "Quintessa.csv", 0)


@pytest.mark.usefixtures("far_away")
def test_the_age_is_the_same_wherever_the_machine_is() -> None:
    assert age_of(NOON, "a.csv", 0).startswith("2027-01-13T12:00:00+00:00 ")


def test_the_age_keeps_its_form_so_that_a_later_release_can_compare_it_with_what_is_stored() -> None:
    assert age_of(NOON, "a.csv", 3) == "2027-01-13T12:00:00+00:00 32f29f33 0003"


# -- what is known of a record

STATED = Entry("uuid", "hpv", "d1", Action.NEW, "monday", 7, "R1L", "2026-11-23", "2026-11-23")
UPDATED = replace(STATED, action=Action.UPDATE, batch_id="tuesday", line=3, new_in=STATED.statement)
REFUSAL = Refusal(Outcome.OTHER, "2026-11-24T12:00:00+00:00", "hpv-1", 3, "inbox/answer")


def test_an_entry_gives_way_to_a_newer_one_and_to_one_of_an_earlier_owner_and_not_to_its_equal() -> None:
    assert STATED.gives_way(replace(STATED, stated_at="2026-11-24"))
    assert STATED.gives_way(replace(STATED, owned_since="2026-11-22", stated_at="2026-11-22"))
    assert not STATED.gives_way(replace(STATED, stated_at="2026-11-22"))
    assert not STATED.gives_way(replace(STATED, owned_since="2026-11-24", stated_at="2026-11-25"))
    assert not STATED.gives_way(STATED)


def test_what_dps_answers_to_a_statement_that_is_neither_the_last_one_nor_the_last_new_changes_nothing() -> None:
    other = replace(STATED, batch_id="sunday", refusal=REFUSAL)
    assert UPDATED.hearing(other) == UPDATED
    assert UPDATED.hearing(replace(other, refusal=None, on_file=OnFile.NO)) == UPDATED


def test_a_new_that_is_lost_changes_nothing_of_a_later_statement() -> None:
    assert UPDATED.hearing(replace(STATED, on_file=OnFile.NO)) == UPDATED


def test_a_new_that_was_refused_leaves_what_followed_it_alone_not_on_file() -> None:
    refused = replace(STATED, refusal=replace(REFUSAL, outcome=Outcome.INVALID))
    assert UPDATED.hearing(refused) == replace(UPDATED, on_file=OnFile.NO)
    unknown = replace(UPDATED, on_file=OnFile.UNKNOWN)
    assert unknown.hearing(refused) == unknown


def test_while_a_records_first_upload_is_parked_nothing_is_known_of_it_but_whose_it_is() -> None:
    nothing = Entry("uuid", "", "", Action.NEW, "", 0, "R1L", "2026-11-23", "", OnFile.NO)
    assert STATED.waiting() == nothing
    assert nothing.unstated
