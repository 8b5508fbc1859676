"""What use cases promise of days holds across London's midnight, in summer too, when UTC's is an hour later."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from tests.usecases.rows import HEADER, row, upload_of, uuid_of
from vaccinations.jobs.status import StatusPage

if TYPE_CHECKING:
    from datetime import date

    from tests.usecases.world import World

#: It is 1 July 2027 in London then, and 30 June in UTC.
pytestmark = pytest.mark.parametrize("clock", ["00:30 BST"], indirect=True)


def given_on(day: date, time: str, n: int = 1) -> str:
    """Write an upload of one vaccination, with its day and time as London's clock shows them."""
    return f"{HEADER},TIME_OF_VACCINATION\n{row(n).replace('2026-10-01', str(day))},{time}\n"


def test_a_vaccination_of_londons_day_is_accepted_half_an_hour_into_it(world: World) -> None:
    receipt = world.upload(given_on(world.clock.today, "00:10"))
    assert (receipt.accepted, receipt.rejected) == ({"hpv": {"new": 1}}, 0)


def test_a_vaccination_without_a_time_is_of_londons_day_too(world: World) -> None:
    receipt = world.upload(given_on(world.clock.today, ""))
    assert (receipt.accepted, receipt.rejected) == ({"hpv": {"new": 1}}, 0)


def test_a_vaccination_that_is_yet_to_be_given_is_rejected(world: World) -> None:
    for day, time in ((world.clock.today, "00:40"), (world.clock.today + timedelta(days=1), "00:00")):
        receipt = world.upload(given_on(day, time))
        assert (receipt.accepted, receipt.rejected) == ({}, 1)


def test_the_time_of_a_vaccination_is_londons_when_it_is_compared_with_the_uploads(world: World) -> None:
    world.clock.now = datetime(2027, 7, 1, 10, 30, tzinfo=UTC)  # 11:30 in London
    assert world.upload(given_on(world.clock.today, "11:20")).rejected == 0
    assert world.upload(given_on(world.clock.today, "11:40", 2), "later.csv").rejected == 1


def test_a_file_is_named_on_londons_day_and_its_records_are_recorded_on_one_that_has_come_for_dps(world: World) -> None:
    """DPS goes by UTC, and refuses a date that is in the future for it."""
    world.upload(upload_of(row(1)))
    world.export()
    ((filename, rows),) = world.inbox()
    assert re.fullmatch("HPV_Vaccinations_v5_V0V8L_20270701T0030[0-9]{2}01.csv", filename)
    assert world.attempt().filename == "Vaccinations-HPV-2027-07-01.csv"
    assert [(sent["UNIQUE_ID"], sent["RECORDED_DATE"]) for sent in rows] == [(uuid_of(1), "20270630")]


def test_the_files_of_a_day_are_counted_from_londons_midnight(world: World) -> None:
    moments = (
        datetime(2027, 6, 30, 22, 50, tzinfo=UTC),  # 23:50 on the 30th
        datetime(2027, 6, 30, 23, 10, tzinfo=UTC),  # 00:10 on the 1st
        datetime(2027, 7, 1, 0, 10, tzinfo=UTC),  # 01:10
    )
    for n, moment in enumerate(moments):
        world.clock.now = moment
        world.upload(upload_of(row(n)), f"{n}.csv")
        world.export()
    assert [e.names[0].filename for e in world.ledger.exports("hpv")] == [
        "Vaccinations-HPV-2027-06-30.csv",
        "Vaccinations-HPV-2027-07-01.csv",
        "Vaccinations-HPV-2027-07-01-2.csv",
    ]


def test_exports_are_shown_with_londons_time(world: World) -> None:
    world.upload(upload_of(row(1)))
    world.export()
    assert "<td>Thu 01 Jul 00:30</td>" in StatusPage(world.ledger, clock=world.clock).show({})
