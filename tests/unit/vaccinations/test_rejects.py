"""What a rejects file promises: one form for what we reject and what DPS refuses, which opens in Excel as it is."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime

import pytest

from vaccinations.formats.rejects import (
    HEADER,
    RejectsWriter,
    read_rejects,
    to_do_about_refused,
    to_do_about_rejected,
)
from vaccinations.model.problems import Problem

#: Half past nine in London.
UPLOADED_AT = datetime(2026, 7, 3, 8, 30, tzinfo=UTC)
NO_DATE = Problem("PERSON_DOB", "is missing", "the date of birth")
NO_TIME = Problem("TIME_OF_VACCINATION", "is not a time", "a time as HH:MM")


def test_it_opens_in_excel_and_begins_with_what_to_do_even_where_it_lists_nothing() -> None:
    file = io.StringIO(newline="")
    RejectsWriter(file, "What to do: nothing, now", {})
    assert file.getvalue() == ('\ufeff"What to do: nothing, now"\r\nline,column,what is wrong,what would be right\r\n')


@pytest.mark.parametrize("to_do", [to_do_about_refused, to_do_about_rejected])
def test_its_first_line_names_the_upload_by_the_moment_in_london(to_do: object) -> None:
    text = to_do(UPLOADED_AT)  # type: ignore[operator]
    assert text.startswith("What to do: ")
    assert "your upload of 3 July 2026 at 09:30" in text


def test_a_row_with_several_faults_is_one_row_under_the_names_of_the_teams_own_columns() -> None:
    file = io.StringIO(newline="")
    rejects = RejectsWriter(file, "", {"PERSON_DOB": "Person dob", "TIME_OF_VACCINATION": "Event time"})
    rejects.write(9, (NO_DATE, NO_TIME))
    rejects.write(12, (Problem("PERSON_DOB, PERSON_POSTCODE", "DPS refused it", "other"),))
    _, header, faulty, refused = csv.reader(io.StringIO(file.getvalue(), newline=""))
    assert header == list(HEADER)
    assert faulty == [
        "9",
        "Person dob\nEvent time",
        "is missing\nis not a time",
        "the date of birth\na time as HH:MM",
    ]
    assert refused[1] == "Person dob, PERSON_POSTCODE"


def test_what_is_written_is_read_back_fault_by_fault_and_a_fault_stays_on_one_line() -> None:
    file = io.StringIO(newline="")
    rejects = RejectsWriter(file, "What to do", {})
    rejects.write(7, (Problem("", 'DPS refused it (other): "a", b', "send it\nagain"),))
    rejects.write(9, (NO_DATE, NO_TIME))
    assert list(read_rejects(io.StringIO(file.getvalue(), newline=""))) == [
        (7, [Problem("", 'DPS refused it (other): "a", b', "send it again")]),
        (9, [NO_DATE, NO_TIME]),
    ]


def test_a_file_that_goes_on_has_no_second_beginning() -> None:
    file = io.StringIO(newline="")
    RejectsWriter(file, "What to do", {}).write(7, (NO_DATE,))
    RejectsWriter(file, None, {}).write(9, (NO_TIME,))
    assert [line for line, _ in read_rejects(io.StringIO(file.getvalue(), newline=""))] == [7, 9]


@pytest.mark.parametrize("text", ["=HYPERLINK(0)", "+1", "-1", "@SUM(1)"])
def test_what_excel_would_take_for_a_formula_is_shown_as_text(text: str) -> None:
    file = io.StringIO()
    RejectsWriter(file, None, {"UUID": text}).write(2, [Problem("UUID", text, text)])
    assert next(csv.reader(io.StringIO(file.getvalue()))) == ["2", *[f"'{text}"] * 3]
