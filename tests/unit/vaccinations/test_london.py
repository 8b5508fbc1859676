"""What London's time promises: the day that it is there, and moments as DPS takes them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from vaccinations.model.london import day_in_london, in_london, uk_time


@pytest.mark.parametrize(
    ("moment", "day"),
    [
        (datetime(2026, 3, 10, 12, tzinfo=UTC), date(2026, 3, 10)),
        (datetime(2026, 3, 10, 23, 30, tzinfo=UTC), date(2026, 3, 10)),  # 23:30 GMT
        (datetime(2026, 7, 9, 23, 30, tzinfo=UTC), date(2026, 7, 10)),  # 00:30 BST
        (datetime(2028, 2, 29, 0, 0, tzinfo=UTC), date(2028, 2, 29)),
        (datetime(2026, 7, 10, 0, 30, tzinfo=timezone(timedelta(hours=9))), date(2026, 7, 9)),
        (datetime(2026, 7, 10, 0, 30), date(2026, 7, 10)),  # noqa: DTZ001 - London's clock
    ],
)
def test_a_day_is_londons_whatever_the_moments_offset(moment: datetime, day: date) -> None:
    assert day_in_london(moment) == day


def test_a_moment_without_an_offset_is_on_londons_clock() -> None:
    assert in_london(datetime(2026, 7, 10, 0, 30)).utcoffset() == timedelta(hours=1)  # noqa: DTZ001
    assert in_london(datetime(2026, 1, 10, 0, 30)).utcoffset() == timedelta(0)  # noqa: DTZ001


@pytest.mark.parametrize(
    ("moment", "told"),
    [
        ("2023-06-09T00:00:00+00:00", "2023-06-09T00:00:00+00:00"),  # keeps its clock time
        ("2023-12-09T00:00:00+01:00", "2023-12-09T00:00:00+01:00"),
        ("2023-06-09T12:00:00+05:30", "2023-06-09T07:30:00+01:00"),
        ("2023-06-09T12:00:00", "2023-06-09T12:00:00+01:00"),
        ("2023-10-29T01:30:00", "2023-10-29T01:30:00+01:00"),  # the clock shows this hour twice: the first
        ("1943-07-01T12:00:00", "1943-07-01T10:00:00+00:00"),  # double summer time
        ("1943-07-01T12:00:00+03:00", "1943-07-01T09:00:00+00:00"),
    ],
)
def test_dps_gets_moments_at_gmt_or_bst_only(moment: str, told: str) -> None:
    assert uk_time(datetime.fromisoformat(moment)).isoformat() == told


@pytest.mark.usefixtures("far_away")
def test_what_dps_is_told_is_the_same_wherever_the_machine_is() -> None:
    assert uk_time(datetime(1943, 7, 1, 12)).isoformat() == "1943-07-01T10:00:00+00:00"  # noqa: DTZ001
