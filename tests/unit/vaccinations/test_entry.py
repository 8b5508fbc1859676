"""What the order of statements promises."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.model.entry import age_of

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
