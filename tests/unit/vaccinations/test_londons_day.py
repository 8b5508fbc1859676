"""Days and times are London's, read at moments at which London's day is not the day in UTC."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from tests.clocks import MOMENTS, Clock
from tests.entries import entry_for
from vaccinations.formats.batches import batch_line
from vaccinations.formats.dps_columns import COLUMNS, render_row
from vaccinations.formats.dps_names import FilenameStyle, file_names, next_place
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.model.london import uk_time
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.record import VaccinationRecord
from vaccinations.model.row import Faulty, Row, Vaccinated

#: What London's calendar and clock show at each of the moments, and the two digits that DPS has for its offset.
LONDON = {
    "noon": (date(2027, 1, 13), "12:00", "00"),
    "00:30 BST": (date(2027, 7, 1), "00:30", "01"),
    "23:30 GMT": (date(2027, 12, 31), "23:30", "00"),
    "29 February": (date(2028, 2, 29), "12:00", "00"),
}
at_each_moment = pytest.mark.parametrize("moment", MOMENTS)

STATED = {
    "uuid": "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "organisation_code": "R1L",
    "forename": "Quintessa",
    "surname": "Zephyrson",
    "date_of_birth": "2012-08-18",
    "gender": "female",
    "postcode": "SW1A 1AA",
    "programme": "hpv",
    "vaccine": "gardasil_9",
}
HEADER = (
    "UUID,PERSON_FORENAME,PERSON_SURNAME,PERSON_DOB,PERSON_GENDER_CODE,PERSON_POSTCODE,VACCINATED,"
    "DATE_OF_VACCINATION,TIME_OF_VACCINATION,PROGRAMME,VACCINE_GIVEN,BATCH_NUMBER,BATCH_EXPIRY_DATE,"
    "ANATOMICAL_SITE,DOSE_SEQUENCE,NHS_NUMBER,SCHOOL_URN"
)


def of_csv(day: date, time: str, today: date) -> Row:
    cells = (
        f"{STATED['uuid']},Quintessa,Zephyrson,2012-08-18,female,SW1A 1AA,Y,{day},{time},HPV,Gardasil9,AB1234,,"
        "left upper arm,1,,"
    )
    (row,) = read_csv(io.BytesIO(f"{HEADER}\n{cells}\n".encode()), organisation_code="R1L", today=today)
    return row


def of_jsonl(day: date, time: str, today: date) -> Row:
    line = json.dumps(STATED | {"vaccinated_at": f"{day}T{time}:00"}).encode()
    (row,) = read_jsonl(io.BytesIO(line), organisation_code="R1L", today=today)
    return row


def abroad(moment: datetime) -> list[datetime]:
    """Tell a moment in New York, Tokyo and Auckland, at offsets that DPS does not know."""
    return [moment.astimezone(timezone(timedelta(hours=hours))) for hours in (-5, 9, 13)]


def sent(record: VaccinationRecord, recorded_on: date) -> dict[str, str]:
    """Return a record's row as DPS reads it, by column."""
    text = render_row(batch_line(record, entry_for(record), today=recorded_on))
    (cells,) = csv.reader(io.StringIO(text, newline=""), delimiter="|", strict=True)
    return dict(zip(COLUMNS, cells, strict=True))


def names(style: FilenameStyle, moment: datetime) -> tuple[str, str]:
    """Return the names that the first HPV file of a day has here and on MESH."""
    return file_names(PROGRAMMES["hpv"], style, "R1L")(moment, 1)


def test_the_clocks_show_what_the_tests_say_they_do(clock: Clock) -> None:
    assert clock.today in {day for day, _, _ in LONDON.values()}
    assert MOMENTS["00:30 BST"].date() == date(2027, 6, 30), "London and UTC have the same day there"


@at_each_moment
@pytest.mark.parametrize("read", [of_csv, of_jsonl])
def test_a_time_without_an_offset_is_londons(read: Any, moment: str) -> None:
    day, time, offset = LONDON[moment]
    row = read(day, time, day)
    assert isinstance(row, Vaccinated)
    record = row.record
    assert sent(record, day)["DATE_AND_TIME"] == f"{day:%Y%m%d}T{time.replace(':', '')}00{offset}"
    assert uk_time(record.vaccinated_at) == MOMENTS[moment]


@at_each_moment
def test_a_moment_told_in_another_zone_becomes_londons(moment: str) -> None:
    day, time, offset = LONDON[moment]
    for there in abroad(MOMENTS[moment]):
        record = VaccinationRecord.model_validate(STATED | {"vaccinated_at": there.isoformat()}, context={"today": day})
        assert sent(record, day)["DATE_AND_TIME"] == f"{day:%Y%m%d}T{time.replace(':', '')}00{offset}"


@at_each_moment
@pytest.mark.parametrize("read", [of_csv, of_jsonl])
def test_what_was_given_today_is_accepted_and_what_is_given_tomorrow_is_not(read: Any, moment: str) -> None:
    day, _, _ = LONDON[moment]
    assert isinstance(read(day, "00:10", day), Vaccinated)
    tomorrow = read(day + timedelta(days=1), "00:00", day)
    assert isinstance(tomorrow, Faulty)
    assert [problem.column for problem in tomorrow.problems] in (["DATE_OF_VACCINATION"], ["vaccinated_at"])


@at_each_moment
def test_the_day_in_which_a_moment_of_another_zone_falls_is_londons(moment: str) -> None:
    day, _, _ = LONDON[moment]
    for there in abroad(MOMENTS[moment]):
        given = STATED | {"vaccinated_at": there.isoformat()}
        assert VaccinationRecord.model_validate(given, context={"today": day})
        with pytest.raises(ValueError, match="vaccinated_at"):
            VaccinationRecord.model_validate(given, context={"today": day - timedelta(days=1)})


@at_each_moment
@pytest.mark.parametrize("style", FilenameStyle)
def test_a_file_bears_londons_day_in_its_name(moment: str, style: FilenameStyle) -> None:
    day, time, offset = LONDON[moment]
    ours, at_mesh = names(style, MOMENTS[moment])
    assert ours == f"Vaccinations-HPV-{day}.csv"
    stamp = f"{day:%Y%m%d}T{time.replace(':', '')}00{offset}"
    assert at_mesh == (ours if style is FilenameStyle.GUIDE else f"HPV_Vaccinations_v5_R1L_{stamp}.csv")


@pytest.mark.parametrize(
    ("utc", "told"),
    [
        (datetime(2027, 10, 31, 0, 59, 50, tzinfo=UTC), "20271031T01595001"),
        (datetime(2027, 10, 31, 1, 0, 0, tzinfo=UTC), "20271031T01000000"),
        (datetime(2027, 3, 28, 0, 59, 59, tzinfo=UTC), "20270328T00595900"),
        (datetime(2027, 3, 28, 1, 0, 0, tzinfo=UTC), "20270328T02000001"),
    ],
)
def test_the_nights_on_which_the_clocks_change_are_told_apart_by_their_offset(utc: datetime, told: str) -> None:
    assert names(FilenameStyle.BATCH_V5, utc)[1] == f"HPV_Vaccinations_v5_R1L_{told}.csv"


@pytest.mark.parametrize(
    ("last", "now", "sequence"),
    [
        (None, datetime(2027, 6, 30, 23, 30, tzinfo=UTC), 1),
        (datetime(2027, 6, 30, 22, 50, tzinfo=UTC), datetime(2027, 6, 30, 23, 10, tzinfo=UTC), 1),  # London's midnight
        (datetime(2027, 6, 30, 23, 10, tzinfo=UTC), datetime(2027, 7, 1, 0, 10, tzinfo=UTC), 5),  # UTC's midnight
        (datetime(2027, 12, 31, 23, 30, tzinfo=UTC), datetime(2028, 1, 1, 0, 10, tzinfo=UTC), 1),
    ],
)
def test_the_files_of_a_day_are_counted_from_londons_midnight(
    last: datetime | None, now: datetime, sequence: int
) -> None:
    assert next_place(now, last, 4 if last else 0) == (now, sequence)


def test_no_two_files_of_a_programme_are_named_after_the_same_second_even_if_the_clock_goes_back() -> None:
    last = datetime(2027, 6, 30, 22, 59, 59, tzinfo=UTC)
    for now in (last, last - timedelta(hours=1)):
        assert next_place(now, last, 4) == (last + timedelta(seconds=1), 1)  # which is the next day in London
