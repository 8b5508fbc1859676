"""What reading a CSV upload promises: good rows are accepted whatever is beside them, bad ones are told apart."""

from __future__ import annotations

import contextlib
import csv
import io
import tracemalloc
from collections import Counter
from dataclasses import replace
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from local.sample import corrected_upload, sample_upload
from tests.unit.vaccinations import bad_inputs
from vaccinations.formats import upload_lines
from vaccinations.formats.batches import digest_of
from vaccinations.formats.upload_csv import COLUMNS, read_csv
from vaccinations.model.assumed import Assumed
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.programmes import GENDERS, PROGRAMMES, SITES, VACCINES
from vaccinations.model.row import Faulty, Nobody, Row, Vaccinated, Withdrawn

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

    from vaccinations.model.record import VaccinationRecord

CORPUS = Path(__file__).parent / "corpus"
TODAY = date(2026, 3, 10)

GOOD = {
    "UUID": "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "ORGANISATION_CODE": "RX1",
    "SCHOOL_URN": "123456",
    "NHS_NUMBER": "9992686766",
    "PERSON_FORENAME": "Brenton",
    "PERSON_SURNAME": "Waters",
    "PERSON_DOB": "20120818",
    "PERSON_GENDER_CODE": "not known",
    "PERSON_POSTCODE": "UC0W 0JL",
    "VACCINATED": "Y",
    "DATE_OF_VACCINATION": "20250609",
    "TIME_OF_VACCINATION": "10:15:30",
    "PROGRAMME": "HPV",
    "VACCINE_GIVEN": "Gardasil9",
    "BATCH_NUMBER": "CD5472",
    "BATCH_EXPIRY_DATE": "20260930",
    "ANATOMICAL_SITE": "left upper arm",
    "DOSE_SEQUENCE": "1",
    "PERFORMING_PROFESSIONAL_FORENAME": "Florence",
    "PERFORMING_PROFESSIONAL_SURNAME": "Gale",
    "NOTES": "",
}


def read(data: bytes | str, organisation_code: str = "R1L") -> list[Row]:
    body = data.encode() if isinstance(data, str) else data
    bad_inputs.count()
    return list(read_csv(io.BytesIO(body), organisation_code=organisation_code, today=TODAY))


def upload(*rows: Mapping[str, str | None]) -> str:
    """Write rows as a CSV file; each is the good one but for some cells, and without the columns that are None."""
    columns = [column for column in GOOD if not any(row.get(column, "") is None for row in rows)]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**GOOD, **row} for row in rows)
    return text.getvalue()


def accepted(**cells: str | None) -> Vaccinated:
    (row,) = read(upload(cells))
    assert isinstance(row, Vaccinated)
    return row


def withdrawn(**cells: str | None) -> Withdrawn:
    (row,) = read(upload(cells))
    assert isinstance(row, Withdrawn)
    return row


def stated(**cells: str | None) -> dict[str, Any]:
    return accepted(**cells).record.model_dump()


def faults(**cells: str | None) -> dict[str, str]:
    (row,) = read(upload(cells))
    assert isinstance(row, Faulty)
    return {problem.column: f"{problem.what}: {problem.fix}" for problem in row.problems}


def lines_of(kind: type[Row], rows: list[Row]) -> list[int]:
    return [row.line for row in rows if isinstance(row, kind)]


def summary(rows: list[Row]) -> tuple[list[int], list[int], dict[int, list[str]]]:
    """Return the lines of vaccinations and of withdrawals, and the columns of faults by line."""
    bad = {row.line: [problem.column for problem in row.problems] for row in rows if isinstance(row, Faulty)}
    return lines_of(Vaccinated, rows), lines_of(Withdrawn, rows), bad


def records(rows: list[Row]) -> list[VaccinationRecord]:
    return [row.record for row in rows if isinstance(row, Vaccinated)]


# -- what the columns mean


def test_a_good_row_becomes_a_record() -> None:
    row = accepted()
    assert (row.line, row.record_id, row.digest) == (2, GOOD["UUID"], digest_of(row.record))
    assert row.record.model_dump() == {
        "uuid": UUID("496e37d8-d1ab-4e12-a3a3-9c2e136a0504"),
        "organisation_code": "RX1",
        "nhs_number": "9992686766",
        "forename": "Brenton",
        "surname": "Waters",
        "date_of_birth": date(2012, 8, 18),
        "gender": "not_known",
        "postcode": "UC0W 0JL",
        "vaccine": "gardasil_9",
        "programme": "hpv",
        "dose_sequence": 1,
        "site": "left_arm_upper_position",
        "route": None,
        "vaccinated_at": datetime(2025, 6, 9, 10, 15, 30),  # noqa: DTZ001 - London time, as stated
        "recorded_on": None,
        "professional_forename": "Florence",
        "professional_surname": "Gale",
        "batch_number": "CD5472",
        "expiry": date(2026, 9, 30),
        "school_urn": "123456",
    }


@pytest.mark.parametrize("column", [column for column in GOOD if column != "DATE_OF_VACCINATION"])
def test_an_optional_column_may_be_empty_or_absent(column: str) -> None:
    required = {"PERSON_FORENAME", "PERSON_SURNAME", "PERSON_DOB", "PERSON_GENDER_CODE"}
    if column in required:
        assert list(faults(**{column: "  "})) == [column]
        assert "is missing" in faults(**{column: ""})[column]
    else:
        assert accepted(**{column: ""})
        assert accepted(**{column: None})


def test_a_row_without_an_organisation_is_the_uploaders() -> None:
    assert stated(ORGANISATION_CODE="")["organisation_code"] == "R1L"
    assert stated(ORGANISATION_CODE="rx1")["organisation_code"] == "RX1"


@pytest.mark.parametrize("code", ["R", "RX-1", "R" * 11, "Ŕ1L"])
def test_an_organisation_code_is_two_to_ten_letters_and_digits(code: str) -> None:
    assert list(faults(ORGANISATION_CODE=code)) == ["ORGANISATION_CODE"]


@pytest.mark.parametrize(
    "written",
    [
        *("20120818", "2012-08-18", "18/08/2012", "18/8/2012", "2012-8-18"),
        *("18/08/2012 00:00", "2012-08-18 00:00:00", "2012-08-18T00:00:00.000", "20120818T00"),
    ],
)
def test_dates_are_read_in_three_forms_and_a_time_may_stand_behind_them(written: str) -> None:
    assert stated(PERSON_DOB=written)["date_of_birth"] == date(2012, 8, 18)
    assert stated(DATE_OF_VACCINATION=written)["vaccinated_at"].date() == date(2012, 8, 18)
    assert stated(BATCH_EXPIRY_DATE=written)["expiry"] == date(2012, 8, 18)


@pytest.mark.parametrize(
    "written",
    [
        "18/8/12",
        "18-08-2012",
        "2012/08/18",
        "2012-0818",
        "20120230",
        "18.08.2012",
        "180812",
        "٢٠١٢٠٨١٨",
        "2012818",
        "1/18/2012",
        "18/08/2012 25:00",
        "18/08/2012 Z",
        "+2012-08-18",
    ],
)
def test_other_forms_of_dates_are_rejected(written: str) -> None:
    for column in ("PERSON_DOB", "DATE_OF_VACCINATION", "BATCH_EXPIRY_DATE"):
        assert list(faults(**{column: written})) == [column]
        assert "YYYYMMDD" in faults(**{column: written})[column]
        assert "all four digits of its year" in faults(**{column: written})[column]


@pytest.mark.parametrize(
    ("cells", "moment"),
    [
        ({"DATE_OF_VACCINATION": "09/06/2025 14:30", "TIME_OF_VACCINATION": ""}, "2025-06-09T14:30:00"),
        ({"DATE_OF_VACCINATION": "09/06/2025 14:30", "TIME_OF_VACCINATION": None}, "2025-06-09T14:30:00"),
        ({"DATE_OF_VACCINATION": "09/06/2025 00:00", "TIME_OF_VACCINATION": "9:30"}, "2025-06-09T09:30:00"),
    ],
)
def test_a_time_behind_the_date_counts_where_no_other_is_stated(cells: dict[str, str | None], moment: str) -> None:
    assert stated(**cells)["vaccinated_at"].isoformat() == moment


@pytest.mark.parametrize(
    ("written", "told"),
    [
        *(("", "00:00:00"), ("09:05", "09:05:00"), ("23:59:59", "23:59:59"), ("9:05", "09:05:00"), ("9", "09:00:00")),
        *(("09", "09:00:00"), ("0930", "09:30:00"), ("093015", "09:30:15"), ("9:5:7", "09:05:07"), ("00", "00:00:00")),
        *(("09:3", "09:03:00"), ("10:15:00.000", "10:15:00")),
    ],
)
def test_a_time_is_optional_and_read_in_many_forms(written: str, told: str) -> None:
    assert stated(TIME_OF_VACCINATION=written)["vaccinated_at"].isoformat() == f"2025-06-09T{told}"


@pytest.mark.parametrize(
    "written",
    [
        *("24", "24:00", "10:60", "10:15:61", "10:15:30.5", "10:15Z", "10:15:00+01:00", "noon", "930", "93000", "25"),
        *("9.30", "2:30 PM", "2500", "-1", "٠٩٣٠"),
    ],
)
def test_what_is_not_a_time_is_rejected(written: str) -> None:
    assert list(faults(TIME_OF_VACCINATION=written)) == ["TIME_OF_VACCINATION"]


@pytest.mark.parametrize("name", [name for gender in GENDERS.values() for name in gender.upload_names])
def test_every_name_of_a_gender_is_known_in_any_case(name: str) -> None:
    assert name in GENDERS[stated(PERSON_GENDER_CODE=name.upper())["gender"]].upload_names


def test_the_gender_column_has_two_names() -> None:
    text = upload({"PERSON_GENDER_CODE": "male"}).replace("PERSON_GENDER_CODE", "PERSON_GENDER")
    (row,) = read(text)
    assert isinstance(row, Vaccinated)
    assert row.record.gender == "male"
    (row,) = read(text.replace("male", "man"))
    assert isinstance(row, Faulty)
    assert [problem.column for problem in row.problems] == ["PERSON_GENDER"]


@pytest.mark.parametrize("vaccine", VACCINES.values(), ids=lambda vaccine: vaccine.key)
def test_every_name_of_a_vaccine_is_known_and_tells_the_programme(vaccine: Any) -> None:
    site = "nasal" if vaccine.method == "nasal" else "left thigh"
    for name in vaccine.upload_names:
        told = stated(VACCINE_GIVEN=name.lower(), PROGRAMME="", ANATOMICAL_SITE=site)
        assert (told["vaccine"], told["programme"]) == (vaccine.key, vaccine.programme)


@pytest.mark.parametrize("programme", PROGRAMMES.values(), ids=lambda programme: programme.key)
def test_every_name_of_a_programme_is_known_in_any_case(programme: Any) -> None:
    for name in programme.upload_names:
        assert stated(PROGRAMME=name.lower(), VACCINE_GIVEN="")["programme"] == programme.key


@pytest.mark.parametrize("site", SITES.values(), ids=lambda site: site.key)
def test_every_name_of_a_site_is_known_in_any_case(site: Any) -> None:
    for name in site.upload_names:
        assert stated(ANATOMICAL_SITE=name.title(), PROGRAMME="Flu", VACCINE_GIVEN="")["site"] == site.key


def test_programme_and_vaccine_must_agree_but_mmr_may_be_mmrv() -> None:
    assert list(faults(PROGRAMME="Flu")) == ["PROGRAMME"]
    assert list(faults(PROGRAMME="", VACCINE_GIVEN="")) == ["PROGRAMME"]
    assert stated(PROGRAMME="MMR", VACCINE_GIVEN="ProQuad")["programme"] == "mmrv"
    assert stated(PROGRAMME="MMRV", VACCINE_GIVEN="Priorix")["programme"] == "mmr"
    assert identifier(PROGRAMME="MMRV", VACCINE_GIVEN="Priorix") == identifier(PROGRAMME="MMR", VACCINE_GIVEN="Priorix")


def test_a_programme_that_is_not_known_does_no_harm_beside_a_vaccine_that_tells_it() -> None:
    assert stated(PROGRAMME="Human papilloma")["programme"] == "hpv"
    assert list(faults(PROGRAMME="Human papilloma", VACCINE_GIVEN="")) == ["PROGRAMME"]
    assert set(faults(PROGRAMME="Human papilloma", VACCINE_GIVEN="Calpol")) == {"PROGRAMME", "VACCINE_GIVEN"}


def test_the_site_must_suit_the_vaccine() -> None:
    assert list(faults(ANATOMICAL_SITE="nasal")) == ["ANATOMICAL_SITE"]
    assert list(faults(ANATOMICAL_SITE="nasal", VACCINE_GIVEN="")) == ["ANATOMICAL_SITE"]
    assert list(faults(PROGRAMME="Flu", VACCINE_GIVEN="AstraZeneca Fluenz")) == ["ANATOMICAL_SITE"]


@pytest.mark.parametrize(
    ("programme", "written", "dose"),
    [(p.key, code, dose) for p in PROGRAMMES.values() for code, dose in p.dose_codes.items()]
    + [("flu", "2", 2), ("flu", "", None), ("hpv", "2p", 2), ("td_ipv", "2b", 5), ("mmr", "1", 1)]
    + [("hpv", "1 P", 1), ("hpv", "01", 1), ("td_ipv", "2nd scheduled booster", 5)],
)
def test_doses_are_numbers_or_codes_of_the_programme(programme: str, written: str, dose: int | None) -> None:
    name = PROGRAMMES[programme].upload_names[0]
    assert stated(PROGRAMME=name, VACCINE_GIVEN="", DOSE_SEQUENCE=written)["dose_sequence"] == dose


MOST = {"HPV": 3, "Flu": 2, "MMR": 2}


@pytest.mark.parametrize(
    ("programme", "written"),
    [
        ("HPV", "1B"),
        ("Flu", "1P"),
        ("HPV", "0"),
        ("HPV", "10"),
        ("HPV", "1.0"),
        ("HPV", "²"),
        ("MMR", "first"),
        ("MMR", "1st Scheduled Booster"),
    ],
)
def test_other_doses_are_rejected(programme: str, written: str) -> None:
    told = faults(PROGRAMME=programme, VACCINE_GIVEN="", DOSE_SEQUENCE=written)
    assert list(told) == ["DOSE_SEQUENCE"]
    assert f"a number from 1 to {MOST[programme]}" in told["DOSE_SEQUENCE"]


def test_a_dose_past_the_last_of_its_programme_is_rejected() -> None:
    assert accepted(PROGRAMME="Td/IPV", VACCINE_GIVEN="", DOSE_SEQUENCE="6")
    assert "at most 3 for HPV" in faults(DOSE_SEQUENCE="4")["DOSE_SEQUENCE"]


@pytest.mark.parametrize("said", ["y", "Ye", "YES", "yes"])
def test_any_beginning_of_yes_means_vaccinated(said: str) -> None:
    assert accepted(VACCINATED=said)


@pytest.mark.parametrize("said", ["n", "NO", "No"])
def test_any_beginning_of_no_means_withdrawn(said: str) -> None:
    row = withdrawn(VACCINATED=said)
    assert row.person
    assert replace(row, person=None) == Withdrawn(2, GOOD["UUID"], "RX1")


def test_a_vaccine_means_yes_where_nothing_is_said() -> None:
    assert accepted(VACCINATED="")
    assert accepted(VACCINATED=None)


@pytest.mark.parametrize("said", ["", None])
def test_nothing_said_and_no_vaccine_is_a_fault_not_a_no(said: str | None) -> None:
    """A row that is silently skipped would be a vaccination lost."""
    assert list(faults(VACCINATED=said, VACCINE_GIVEN="")) == ["VACCINATED"]


@pytest.mark.parametrize("said", ["maybe", "yess", "nope", "1", "true"])
def test_what_is_neither_yes_nor_no_is_rejected(said: str) -> None:
    assert list(faults(VACCINATED=said)) == ["VACCINATED"]


def test_a_row_of_somebody_not_vaccinated_needs_no_date_of_vaccination() -> None:
    assert withdrawn(VACCINATED="no", DATE_OF_VACCINATION="", VACCINE_GIVEN="")
    assert list(faults(VACCINATED="yes", DATE_OF_VACCINATION="")) == ["DATE_OF_VACCINATION"]
    assert list(faults(VACCINATED="no", DATE_OF_VACCINATION="soon")) == ["DATE_OF_VACCINATION"]


def test_a_record_is_neither_from_the_future_nor_from_before_birth() -> None:
    assert accepted(DATE_OF_VACCINATION="20260310", TIME_OF_VACCINATION="23:59")
    for date_of_vaccination in ("20260311", "20120817"):
        assert list(faults(DATE_OF_VACCINATION=date_of_vaccination)) == ["DATE_OF_VACCINATION"]
    assert list(faults(PERSON_DOB="20260310", DATE_OF_VACCINATION="20260310")) == ["PERSON_DOB"]


def test_all_faults_of_a_row_are_told_at_once() -> None:
    found = faults(
        UUID="17",
        ORGANISATION_CODE="R",
        NHS_NUMBER="9992686767",
        PERSON_FORENAME="",
        PERSON_SURNAME="W" * 36,
        PERSON_DOB="20120230",
        PERSON_GENDER_CODE="f",
        PERSON_POSTCODE="nowhere",
        VACCINATED="perhaps",
        DATE_OF_VACCINATION="20990101",
        TIME_OF_VACCINATION="25:00",
        PROGRAMME="Hepatitis",
        VACCINE_GIVEN="Calpol",
        BATCH_NUMBER="C-5",
        BATCH_EXPIRY_DATE="20500101",
        ANATOMICAL_SITE="elbow",
        DOSE_SEQUENCE="twelve",
        PERFORMING_PROFESSIONAL_FORENAME="F" * 301,
        PERFORMING_PROFESSIONAL_SURNAME="G\u202eale",
    )
    assert set(found) == set(GOOD) - {"SCHOOL_URN", "NOTES"}


def test_no_fault_repeats_what_the_row_says() -> None:
    secrets = {column: f"qzx{n}secret\x00" for n, column in enumerate(GOOD)} | {"NHS_NUMBER": "9434765910"}
    (row,) = read(upload(secrets))
    assert isinstance(row, Faulty)
    assert len(row.problems) == len(GOOD) - 2  # all but the school, which may have any code, and the notes
    assert "secret" not in repr(row)
    assert "9434765910" not in repr(row)


# -- what teams' own systems write

#: The columns of a SystmOne report, and two of its rows.
SYSTMONE = """Date of birth,NHS number,Vaccination area code,Vaccination batch number,Vaccination reason,Vaccination type,First name,Postcode,Sex,Surname,Event date,Event location type,Event time,Team ID,School,School code,Patient Count
20120818,999 268 6766,,CD5472,Routine,{type},Brenton,UC0W 0JL,Male,Waters,20250609,School,,7,A School,{school},1
"""  # noqa: E501


def systmone(type_: str, school: str = "110158A") -> Row:
    (row,) = read(SYSTMONE.replace("{type}", f'"{type_}"').replace("{school}", school))
    return row


@pytest.mark.parametrize(
    ("written", "programme", "vaccine", "dose"),
    [
        ("Cervarix 1", "hpv", "cervarix", 1),
        ("HPV", "hpv", None, None),
        ("Human Papillomavirus 1", "hpv", None, 1),
        ("MenACWY", "menacwy", None, None),
        ("Td/IPV 2nd Scheduled Booster", "td_ipv", None, 5),
        ("Meningococcal conjugate A,C, W135 + Y 1", "menacwy", None, 1),
        ("Meningococcal conjugate A,C, W135 + Y", "menacwy", None, None),
        ("Measles/Mumps/Rubella 2", "mmr", None, 2),
        ("Flu", "flu", None, None),
        ("Fluenz 1", "flu", "fluenz", 1),
        ("AstraZeneca Fluenz Tetra LAIV 2", "flu", "fluenz_tetra", 2),
        ("MMRV 1", "mmrv", None, 1),
        ("MMR VaxPro 1B", "mmr", "vaxpro", 2),
        ("Gardasil9  2P", "hpv", "gardasil_9", 2),
        ("Gardasil 9", "hpv", "gardasil_9", None),
        ("Priorix-Tetra 1", "mmrv", "priorix_tetra", 1),
        ("revaxis 1b", "td_ipv", "revaxis", 4),
    ],
)
def test_a_vaccination_type_tells_programme_vaccine_and_dose(
    written: str, programme: str, vaccine: str | None, dose: int | None
) -> None:
    row = systmone(written)
    assert isinstance(row, Vaccinated), row
    told = row.record
    assert (told.programme, told.vaccine, told.dose_sequence) == (programme, vaccine, dose)
    assert (told.organisation_code, told.nhs_number, told.forename, told.gender) == (
        "R1L",
        "9992686766",
        "Brenton",
        "male",
    )
    assert (told.postcode, told.batch_number, told.site, told.school_urn) == ("UC0W 0JL", "CD5472", None, "110158")


def with_type(written: str, **cells: str) -> Row:
    header, good = upload(cells).splitlines()
    (row,) = read(f'{header},Vaccination type\n{good},"{written}"\n')
    return row


@pytest.mark.parametrize(
    ("written", "cells", "told"),
    [
        ("MenACWY 1", {"VACCINE_GIVEN": "", "DOSE_SEQUENCE": "2"}, ("menacwy", None, 1)),
        ("MenACWY 1", {"VACCINE_GIVEN": ""}, ("menacwy", None, 1)),
        ("HPV 1", {"DOSE_SEQUENCE": "2"}, ("hpv", "gardasil_9", 1)),
        ("Cervarix 1", {}, ("hpv", "cervarix", 1)),
        ("Cervarix", {"VACCINE_GIVEN": "Calpol"}, ("hpv", "cervarix", 1)),
        ("HPV 1", {"PROGRAMME": "Papilloma", "VACCINE_GIVEN": ""}, ("hpv", None, 1)),
        ("HPV 1", {"PROGRAMME": "Papilloma"}, ("hpv", "gardasil_9", 1)),
        ("HPV 1", {"DOSE_SEQUENCE": "first"}, ("hpv", "gardasil_9", 1)),
    ],
)
def test_where_a_vaccination_type_says_something_else_than_other_columns_it_counts_and_that_is_told(
    written: str, cells: dict[str, str], told: tuple[str, str | None, int]
) -> None:
    row = with_type(written, **cells)
    assert isinstance(row, Vaccinated), row
    assert (row.record.programme, row.record.vaccine, row.record.dose_sequence) == told
    assert row.assumed == (Assumed.TYPE,)


@pytest.mark.parametrize(
    ("written", "cells"),
    [
        ("Human Papillomavirus 1P", {"DOSE_SEQUENCE": "01"}),
        ("HPV", {"DOSE_SEQUENCE": "2"}),
        ("Gardasil9 1", {"PROGRAMME": "Human  Papillomavirus", "VACCINE_GIVEN": "Gardasil 9"}),
        ("HPV 1", {"PROGRAMME": "", "VACCINE_GIVEN": "", "DOSE_SEQUENCE": ""}),
    ],
)
def test_a_vaccination_type_contradicts_nothing_that_is_the_same_in_other_words(
    written: str, cells: dict[str, str]
) -> None:
    row = with_type(written, **cells)
    assert isinstance(row, Vaccinated), row
    assert row.assumed == ()


def test_a_vaccination_type_does_not_make_up_for_a_vaccine_that_it_does_not_tell() -> None:
    for vaccine, column in (("Calpol", "VACCINE_GIVEN"), ("MenQuadfi", "PROGRAMME")):
        row = with_type("HPV 1", VACCINE_GIVEN=vaccine)
        assert isinstance(row, Faulty)
        assert [problem.column for problem in row.problems] == [column]


@pytest.mark.parametrize("written", ["HPVX 1", "Calpol 1", "Fluvac", "1", "MenACWY1"])
def test_a_vaccination_type_is_read_by_whole_words(written: str) -> None:
    row = systmone(written)
    assert isinstance(row, Faulty)
    assert {problem.column for problem in row.problems} == {"Vaccination type"}


@pytest.mark.parametrize("written", ["MMR 3", "Flu 1st Scheduled Booster", "HPV enz", "Td/IPV 7"])
def test_a_dose_that_is_none_is_named_under_the_column_that_tells_it(written: str) -> None:
    row = systmone(written)
    assert isinstance(row, Faulty)
    assert [problem.column for problem in row.problems] == ["Vaccination type"]


@pytest.mark.parametrize(("code", "kept"), [("110158", "110158"), ("TT110158", None), ("12", None), ("", None)])
def test_a_school_code_of_another_system_is_an_unknown_school(code: str, kept: str | None) -> None:
    row = systmone("HPV 1", school=code)
    assert isinstance(row, Vaccinated)
    assert row.record.school_urn == kept
    assert (Assumed.SCHOOL in row.assumed) == (bool(code) and kept is None)
    beside_others = accepted(SCHOOL_URN=code)
    assert (beside_others.record.school_urn, Assumed.SCHOOL in beside_others.assumed) == (
        kept,
        bool(code) and kept is None,
    )


OFFLINE = (
    "PERSON_FORENAME,PERSON_SURNAME,ORGANISATION_CODE,SCHOOL_NAME,CLINIC_NAME,CARE_SETTING,PERSON_DOB,YEAR_GROUP,"
    "REGISTRATION,PERSON_GENDER_CODE,PERSON_ADDRESS_LINE_1,PERSON_POSTCODE,NHS_NUMBER,CONSENT_STATUS,CONSENT_DETAILS,"
    "HEALTH_QUESTION_ANSWERS,TRIAGE_STATUS,TRIAGED_BY,TRIAGE_DATE,TRIAGE_NOTES,GILLICK_STATUS,GILLICK_ASSESSMENT_DATE,"
    "GILLICK_ASSESSED_BY,GILLICK_ASSESSMENT_NOTES,PSD_STATUS,VACCINATED,DATE_OF_VACCINATION,TIME_OF_VACCINATION,"
    "PROGRAMME,VACCINE_GIVEN,PERFORMING_PROFESSIONAL_EMAIL,SUPPLIER_EMAIL,BATCH_NUMBER,BATCH_EXPIRY_DATE,"
    "ANATOMICAL_SITE,DOSE_SEQUENCE,REASON_NOT_VACCINATED,NOTES,SESSION_ID,UUID"
)
NATIONAL = (
    "ORGANISATION_CODE,SCHOOL_URN,SCHOOL_NAME,NHS_NUMBER,PERSON_FORENAME,PERSON_SURNAME,PERSON_DOB,PERSON_GENDER_CODE,"
    "PERSON_POSTCODE,VACCINATED,DATE_OF_VACCINATION,VACCINE_GIVEN,BATCH_NUMBER,BATCH_EXPIRY_DATE,ANATOMICAL_SITE,"
    "PERFORMING_PROFESSIONAL_FORENAME,PERFORMING_PROFESSIONAL_SURNAME,REASON_NOT_VACCINATED,DOSE_SEQUENCE,CONSENT_TYPE,"
    "LOCAL_PATIENT_ID,LOCAL_PATIENT_ID_URI,CARE_SETTING"
)


def row_of(header: str, **cells: str) -> Row:
    """Read one row under a header of a team's own system: the good row, as Excel has left it, but for some cells."""
    excel = {"PERSON_DOB": "18/08/2012", "DATE_OF_VACCINATION": "09/06/2025", "BATCH_EXPIRY_DATE": "30/09/2026"}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, header.split(","), extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerow(GOOD | excel | cells)
    (row,) = read(text.getvalue())
    return row


def test_the_offline_spreadsheet_saved_as_csv_is_read() -> None:
    answers = "Asthma: no\r\nAllergies: no\r\n" * 10
    row = row_of(OFFLINE, HEALTH_QUESTION_ANSWERS=answers, SESSION_ID="17", PERSON_POSTCODE="")
    assert isinstance(row, Vaccinated)
    lacking = {"school_urn": None, "professional_forename": None, "professional_surname": None}
    assert row.record.model_dump() == stated() | lacking | {"postcode": "ZZ99 3WZ"}
    not_yet = row_of(OFFLINE, VACCINATED="", VACCINE_GIVEN="", DATE_OF_VACCINATION="")
    assert isinstance(not_yet, Faulty)  # one row a child, also of those who are not vaccinated yet


def offline_rows(tail: str, **cells: str) -> list[Row]:
    """Read two children of the offline spreadsheet; what ends their rows stands in place of an empty UUID."""
    excel = {"PERSON_DOB": "18/08/2012", "DATE_OF_VACCINATION": "09/06/2025", "BATCH_EXPIRY_DATE": "30/09/2026"}
    answers = {"HEALTH_QUESTION_ANSWERS": "Asthma: no, never\r\nAllergies: no\r\n", "SESSION_ID": "17", "UUID": "end"}
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, OFFLINE.split(","), extrasaction="ignore", restval="")
    writer.writeheader()
    writer.writerows([GOOD | excel | answers | cells] * 2)
    return read(text.getvalue().replace(",end\r\n", f"{tail}\r\n"))


@pytest.mark.parametrize("tail", ["", ",,", ",,,"])
def test_a_row_with_line_breaks_may_have_fewer_cells_than_the_header_or_empty_ones_more(tail: str) -> None:
    """Excel leaves out the empty cells at the end of a row, sixteen rows at a time, or writes some more."""
    rows = offline_rows(tail)
    assert rows == offline_rows(",")
    assert [(type(row), row.line) for row in rows] == [(Vaccinated, 2), (Vaccinated, 5)]


@pytest.mark.parametrize("tail", ["", ",,,"])
def test_a_fault_of_such_a_row_is_told_once_and_as_what_it_is(tail: str) -> None:
    not_yet = offline_rows(tail, VACCINATED="", VACCINE_GIVEN="", DATE_OF_VACCINATION="")
    assert summary(not_yet) == ([], [], {line: ["VACCINATED", "DATE_OF_VACCINATION"] for line in (2, 5)})
    too_many = offline_rows(",,, x")
    assert [row.problems[0].what for row in too_many if isinstance(row, Faulty)] == [
        "has more cells than the header"
    ] * 2


@pytest.mark.parametrize("opened", [12, 16, 38])
@pytest.mark.parametrize("closed", [3, 15, 37])
def test_two_rows_that_an_open_quote_makes_one_are_told_apart(opened: int, closed: int) -> None:
    header = OFFLINE.split(",")
    good = [(GOOD | {"SESSION_ID": "17", "UUID": ""}).get(column, "") for column in header]
    first, second = [*good], [*good]
    first[opened] = '"never closed'
    second[closed] += 'closed"'
    rows = read("\n".join(",".join(cells) for cells in (header, good, first, second, good)))
    accepted, _, bad = summary(rows)
    assert (accepted[0], accepted[-1], bad[3]) == (2, 5, ["(row)"])
    assert len(rows) == 4


def test_a_national_reporting_file_is_read_and_its_children_not_vaccinated_are_left_out() -> None:
    row = row_of(NATIONAL, LOCAL_PATIENT_ID="1")
    assert isinstance(row, Vaccinated)
    midnight = datetime(2025, 6, 9)  # noqa: DTZ001 - London time
    assert row.record.model_dump() | {"uuid": 0} == stated() | {"uuid": 0, "vaccinated_at": midnight}
    assert row_of(NATIONAL, VACCINATED="N", VACCINE_GIVEN="", REASON_NOT_VACCINATED="unwell") == Nobody(2)


@pytest.mark.parametrize("header", [OFFLINE, NATIONAL])
@pytest.mark.parametrize("said", ["", "Y"])
@pytest.mark.parametrize("reason", ["refused", "vaccination contraindicated", "another text \x00"])
def test_a_row_that_says_both_that_and_why_not_somebody_was_vaccinated_is_rejected(
    header: str, said: str, reason: str
) -> None:
    row = row_of(header, VACCINATED=said, REASON_NOT_VACCINATED=reason)
    assert isinstance(row, Faulty)
    (problem,) = row.problems
    assert problem.column == "REASON_NOT_VACCINATED"
    assert "No in VACCINATED" in problem.fix
    assert isinstance(row_of(header, VACCINATED=said, REASON_NOT_VACCINATED=" "), Vaccinated)


def test_a_reason_for_not_vaccinating_is_no_fault_where_nobody_was_vaccinated() -> None:
    assert isinstance(row_of(OFFLINE, VACCINATED="No", REASON_NOT_VACCINATED="refused"), Withdrawn)
    for said in ("", "perhaps"):
        row = row_of(OFFLINE, VACCINATED=said, VACCINE_GIVEN="", REASON_NOT_VACCINATED="refused")
        assert isinstance(row, Faulty)
        assert [problem.column for problem in row.problems] == ["VACCINATED"]


def test_the_report_that_teams_download_is_read() -> None:
    text = upload({}).replace("PERSON_DOB", "PERSON_DATE_OF_BIRTH").replace("PROGRAMME", "PROGRAMME_NAME")
    assert records(read(text)) == records(read(upload({})))


@pytest.mark.parametrize(
    "written",
    [
        "Person Forename",
        "person-forename",
        " PERSON\u00a0FORENAME ",
        '"Person\nForename"',
        "Person  Forename",
        "First Name",
    ],
)
def test_a_column_is_known_however_its_name_is_written(written: str) -> None:
    assert records(read(upload({}).replace("PERSON_FORENAME", written, 1))) == records(read(upload({})))


@pytest.mark.parametrize(("field", "names"), COLUMNS.items())
def test_every_name_of_a_column_is_known_and_faults_bear_it(field: str, names: tuple[str, ...]) -> None:
    listed = [name for name in names if name in GOOD]
    for name in names if listed else ():
        text = upload({"VACCINE_GIVEN": "", listed[0]: "\x00"}).replace(listed[0], name, 1)
        (row,) = read(text)
        if field != "school_urn":  # any text may be one
            assert isinstance(row, Faulty), name
            assert [problem.column for problem in row.problems] == [name]


def test_where_a_header_has_two_names_of_a_column_the_first_listed_counts() -> None:
    header, good = upload({"PERSON_GENDER_CODE": "male"}).splitlines()
    (row,) = read(f"Sex,{header}\nfemale,{good}\n")
    assert isinstance(row, Vaccinated)
    assert row.record.gender == "male"


def test_one_column_named_twice_in_two_ways_is_named_twice() -> None:
    header, good = upload({}).splitlines()
    with pytest.raises(UnreadableUpload, match="names NHS_NUMBER more than once"):
        read(f"NHS number,{header}\n9992686766,{good}\n")


@pytest.mark.parametrize(
    ("written", "key"),
    [
        *(("not_known", "not_known"), ("NOT_SPECIFIED", "not_specified"), ("Not  known", "not_known")),
        *(("0", "not_known"), ("1", "male"), ("2", "female"), ("9", "not_specified")),
    ],
)
def test_a_gender_may_be_written_as_spreadsheets_and_dps_write_it(written: str, key: str) -> None:
    assert stated(PERSON_GENDER_CODE=written)["gender"] == key


@pytest.mark.parametrize("written", ["M", "F", "Not-known", "3", "01"])
def test_what_is_no_gender_is_rejected(written: str) -> None:
    assert list(faults(PERSON_GENDER_CODE=written)) == ["PERSON_GENDER_CODE"]


def test_pasted_space_does_no_harm() -> None:
    pasted = {
        "ANATOMICAL_SITE": "left  upper\u00a0arm",
        "PERSON_GENDER_CODE": "Not\u00a0 known",
        "NHS_NUMBER": "\u200d999\u200d 268\u200d 6766",
        "PERSON_SURNAME": "\u00a0Waters\t",
        "PERSON_FORENAME": "\r\nBrenton",
    }
    assert read(upload(pasted)) == read(upload({}))
    assert stated(PERSON_FORENAME="Anne\n Marie")["forename"] == "Anne Marie"


def test_a_brand_is_taken_for_its_vaccine() -> None:
    for brand, key in (("Gardasil 9", "gardasil_9"), ("gardasil  9", "gardasil_9")):
        row = accepted(VACCINE_GIVEN=brand)
        assert (row.record.vaccine, row.assumed) == (key, (Assumed.VACCINE,))
    assert stated(VACCINE_GIVEN="MMR VaxPro", PROGRAMME="MMR")["vaccine"] == "vaxpro"
    assert stated(VACCINE_GIVEN="Fluenz", PROGRAMME="", ANATOMICAL_SITE="nasal")["vaccine"] == "fluenz"


# -- what is left out


def test_without_a_postcode_an_nhs_number_is_needed() -> None:
    row = accepted(PERSON_POSTCODE=" ")
    assert (row.record.postcode, row.assumed) == ("ZZ99 3WZ", (Assumed.POSTCODE,))
    assert accepted(PERSON_POSTCODE=None).record == row.record
    assert list(faults(PERSON_POSTCODE="", NHS_NUMBER="")) == ["PERSON_POSTCODE"]
    assert list(faults(PERSON_POSTCODE="", NHS_NUMBER="\u200d")) == ["PERSON_POSTCODE"]


@pytest.mark.parametrize(
    ("cells", "assumed"),
    [
        ({}, []),
        ({"DOSE_SEQUENCE": ""}, [Assumed.DOSE]),
        ({"DOSE_SEQUENCE": "", "PROGRAMME": "MenACWY", "VACCINE_GIVEN": ""}, []),
        ({"TIME_OF_VACCINATION": ""}, [Assumed.TIME]),
        ({"TIME_OF_VACCINATION": "", "DATE_OF_VACCINATION": "20250609 10:15"}, []),
        ({"PROGRAMME": ""}, []),
        ({"PROGRAMME": "MMRV", "VACCINE_GIVEN": "Priorix"}, [Assumed.PROGRAMME]),
        ({"PROGRAMME": "Papilloma"}, [Assumed.PROGRAMME]),
        ({"VACCINE_GIVEN": "Gardasil 9", "PERSON_POSTCODE": ""}, [Assumed.VACCINE, Assumed.POSTCODE]),
    ],
)
def test_a_row_tells_what_was_assumed_of_it(cells: dict[str, str], assumed: list[Assumed]) -> None:
    assert list(accepted(**cells).assumed) == assumed


@pytest.mark.parametrize("uuid", ["", None])
def test_a_row_of_nobody_vaccinated_that_names_no_programme_is_left_unread(uuid: str | None) -> None:
    nobody = {"VACCINATED": "N", "PROGRAMME": "", "VACCINE_GIVEN": "", "UUID": uuid}
    assert read(upload(nobody)) == [Nobody(2)]
    unread = {"PERSON_DOB": "x", "DATE_OF_VACCINATION": "soon", "NHS_NUMBER": "1"}
    assert read(upload({**nobody, **unread})) == [Nobody(2)]
    assert list(faults(VACCINATED="N", PROGRAMME="", VACCINE_GIVEN="")) == ["PROGRAMME"]
    assert withdrawn(VACCINATED="N", PROGRAMME="", UUID="")


def test_cells_that_are_missing_at_the_end_of_a_row_are_empty() -> None:
    header, good = upload({"DOSE_SEQUENCE": "", "PERFORMING_PROFESSIONAL_SURNAME": ""}).splitlines()
    whole = good.rstrip(",").removesuffix(",Florence")
    short, empty = read(f"{header}\n{whole}\n"), read(f"{header}\n{whole},,,,\n")
    assert isinstance(short[0], Vaccinated)
    assert short == empty


@pytest.mark.parametrize(
    ("first", "instructions"),
    [("Required", True), ("OPTIONAL, a UUID", True), ("required: see the help", True), ("Requiredness", False)],
)
def test_a_row_of_instructions_is_known_by_its_first_cell(first: str, *, instructions: bool) -> None:
    cells = {**dict.fromkeys(GOOD, "x"), "UUID": first}
    assert len(read(upload(cells, {}))) == (1 if instructions else 2)
    assert len(read(upload({}, cells))) == 2


# -- how the file is written


@pytest.mark.parametrize(("delimiter", "assumed"), [(",", ()), (";", (Assumed.SEMICOLONS,)), ("\t", (Assumed.TABS,))])
def test_semicolons_and_tabs_are_known_by_the_header(delimiter: str, assumed: tuple[Assumed, ...]) -> None:
    text = upload({"PERSON_SURNAME": "Wa,te;rs"}, {})
    cells = list(csv.reader(io.StringIO(text, newline="")))
    written = io.StringIO(newline="")
    csv.writer(written, delimiter=delimiter).writerows(cells)
    rows = read(written.getvalue())
    assert [row.assumed for row in rows if isinstance(row, Vaccinated)] == [assumed, assumed]
    assert records(rows) == records(read(text))
    stated = read(f"\n sep={delimiter}\r\n".replace(" ", "") + written.getvalue())
    assert records(stated) == records(rows)
    assert [(row.line, row.assumed) for row in stated if isinstance(row, Vaccinated)] == [(4, ()), (5, ())]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("form", ["utf-8", "utf-16"])
def test_what_separates_cells_is_known_where_a_name_of_the_header_goes_over_lines(delimiter: str, form: str) -> None:
    text = upload({"NOTES": "x"}).replace(",", delimiter)
    wrapped = text.replace("UUID", '"U-U\r\nI;D,\tx"', 1).replace("NHS_NUMBER", '"NHS\nnumber"', 1)
    first = text.replace("UUID", '"Notes\r\nof a nurse"', 1).replace("NHS_NUMBER", '"NHS\r\nnumber"', 1)
    for written in (wrapped, first):
        (row,) = read(f"\n{written}".encode(form))
        assert isinstance(row, Vaccinated)
        assert (row.record.nhs_number, row.line) == ("9992686766", written.count("\n") + 1)


def test_space_between_a_closing_quote_and_the_next_cell_does_no_harm() -> None:
    text = upload({"PERSON_SURNAME": 'O"Brien, "Bo"'}, {"NOTES": "over\r\nlines"})
    cells = list(csv.reader(io.StringIO(text, newline="")))
    written = io.StringIO(newline="")
    csv.writer(written, quoting=csv.QUOTE_ALL).writerows(cells)
    spaced = written.getvalue().replace('","', '"  , "').replace('"\r\n', '" \r\n')
    assert read(spaced) == read(text)
    assert read(spaced.rstrip("\r\n")) == read(text)


@pytest.mark.bad_inputs
def test_spaces_behind_quotes_cost_no_time() -> None:
    rows = read(upload({}, {"NOTES": '" ' * 15_000 + " " * 20_000 + "x"}, {}))
    assert [isinstance(row, Vaccinated) for row in rows] == [True, True, True]


@pytest.mark.bad_inputs
def test_a_first_line_that_goes_on_after_its_separator_is_no_such_line_and_costs_no_time() -> None:
    with pytest.raises(UnreadableUpload, match="the header lacks"):
        read("sep=;" + "\t" * 60_000 + "x\n" + upload({}))


@pytest.mark.parametrize("form", ["utf-16", "utf-16-be", "utf-16-le"])
def test_text_in_utf_16_with_a_byte_order_mark_is_read(form: str) -> None:
    text = upload({"PERSON_SURNAME": "Zoë \U0001f600"}, *({"NOTES": "n" * 5000} for _ in range(100)))
    body = text.encode(form) if form == "utf-16" else f"\ufeff{text}".encode(form)
    assert read(body) == read(text)


@pytest.mark.parametrize("marks", ["\ufeff\ufeff", "ï»¿", "\ufeffï»¿"])
@pytest.mark.parametrize("written", ["UUID", '"UUID"'])
def test_byte_order_marks_that_programs_have_doubled_or_damaged_cost_no_uuids(marks: str, written: str) -> None:
    text = upload({}, {"UUID": "00000000-0000-4000-8000-000000000001"})
    marked = marks + text.replace("UUID", written, 1)
    assert read(marked) == read(text)
    assert read(marked.encode("utf-16")) == read(text)


@pytest.mark.bad_inputs
def test_damaged_utf_16_is_rejected_whole() -> None:
    body = upload({}, {}).encode("utf-16")
    for damaged in (body[:-1], body + b"\x00\xd8\x41\x00"):
        with pytest.raises(UnreadableUpload, match="UTF-16"):
            read(damaged)


def test_a_row_that_is_not_in_utf_8_tells_that_its_letters_were_guessed() -> None:
    header, good = upload({"PERSON_SURNAME": "Zoe"}).encode().splitlines()
    rows = read(b"\n".join([header, good.replace(b"Zoe", b"Zo\xeb"), good]))
    assert [row.assumed for row in rows if isinstance(row, Vaccinated)] == [(Assumed.WINDOWS,), ()]


SPELLINGS: dict[str, list[str]] = {
    "NHS_NUMBER": ["9992686766", "999 268 6766", "999\u00a0268 \u200d6766"],
    "PERSON_FORENAME": ["Brenton", " Brenton", "Brenton\u00a0"],
    "PERSON_DOB": ["20120818", "2012-8-18", "18/8/2012", "18/08/2012 00:00"],
    "PERSON_GENDER_CODE": ["not known", "NOT_KNOWN", "0", "unknown"],
    "PERSON_POSTCODE": ["UC0W 0JL", "uc0w0jl"],
    "DATE_OF_VACCINATION": ["20250609", "9/6/2025", "2025-06-09"],
    "TIME_OF_VACCINATION": ["10:15:30", "101530", "10:15:30.0"],
    "PROGRAMME": ["HPV", "hpv", "Human  Papillomavirus", ""],
    "VACCINE_GIVEN": ["Gardasil9", "GARDASIL9", "Gardasil 9"],
    "ANATOMICAL_SITE": ["left upper arm", "Left Deltoid", "left  arm (upper position)"],
    "DOSE_SEQUENCE": ["1", "01", "1P", "1 p"],
    "SCHOOL_URN": ["123456", "123456A"],
    "VACCINATED": ["Y", "yes", ""],
}


@given(st.fixed_dictionaries({column: st.sampled_from(written) for column, written in SPELLINGS.items()}))
def test_in_any_of_the_accepted_spellings_a_record_is_the_same(cells: dict[str, str]) -> None:
    assert accepted(**cells).digest == accepted().digest
    assert identifier(**cells) == identifier()


# -- identifiers


def identifier(**cells: str | None) -> str:
    (row,) = read(upload({"UUID": "", **cells}))
    assert isinstance(row, Vaccinated | Withdrawn)
    return row.record_id


def test_a_stated_uuid_is_kept_in_lower_case() -> None:
    assert accepted(UUID=GOOD["UUID"].upper()).record_id == GOOD["UUID"]


def test_without_a_uuid_the_same_row_gets_the_same_identifier_in_every_release() -> None:
    assert identifier() == "4cbfbf64-71c1-5749-9bba-9fdb48f6be52"
    row = accepted(UUID="")
    assert str(row.record.uuid) == row.record_id
    assert row.record.uuid.version == 5


def test_without_an_nhs_number_name_birth_and_postcode_identify_a_person() -> None:
    nameless = identifier(NHS_NUMBER="", PERSON_FORENAME="Zoë", PERSON_SURNAME="Ann  Smith")
    again = identifier(
        NHS_NUMBER="",
        PERSON_FORENAME="ZOE\u0308",
        PERSON_SURNAME="ann smith",
        PERSON_POSTCODE="uc0w0jl",
        PERSON_DOB="18/08/2012",
    )
    assert nameless == again
    assert nameless != identifier(NHS_NUMBER="", PERSON_FORENAME="Zoë", PERSON_SURNAME="Anne Smith")


@pytest.mark.parametrize(
    "cells",
    [
        {"PERSON_FORENAME": "Brent"},
        {"PERSON_POSTCODE": "SW1A 1AA"},
        {"NHS_NUMBER": "999 268 6766"},
        {"BATCH_NUMBER": "CD5473"},
        {"TIME_OF_VACCINATION": ""},
        {"DATE_OF_VACCINATION": "2025-06-09"},
        {"DOSE_SEQUENCE": "1P"},
        {"DOSE_SEQUENCE": ""},
        {"ORGANISATION_CODE": "rx1"},
        {"PROGRAMME": ""},
        {"VACCINATED": "No"},
        {"VACCINATED": "No", "VACCINE_GIVEN": ""},
    ],
)
def test_a_correction_keeps_the_identifier(cells: dict[str, str]) -> None:
    assert identifier(**cells) == identifier()


@pytest.mark.parametrize(
    "cells",
    [
        {"NHS_NUMBER": "9434765919"},
        {"NHS_NUMBER": ""},
        {"DATE_OF_VACCINATION": "20250610"},
        {"DOSE_SEQUENCE": "2"},
        {"ORGANISATION_CODE": ""},
        {"PROGRAMME": "Flu", "VACCINE_GIVEN": ""},
    ],
)
def test_another_vaccination_has_another_identifier(cells: dict[str, str]) -> None:
    assert identifier(**cells) != identifier()


def test_a_withdrawn_mmrv_row_is_recognised_without_its_vaccine() -> None:
    given_as_mmr = identifier(PROGRAMME="MMR", VACCINE_GIVEN="ProQuad")
    assert identifier(PROGRAMME="MMR", VACCINE_GIVEN="", VACCINATED="No") == given_as_mmr
    assert identifier(PROGRAMME="MMRV", VACCINE_GIVEN="") == given_as_mmr


# -- the file as a whole

#: What is wrong with a row of one cell that is none of these.
SHORT = ["VACCINATED", "UUID", "PERSON_FORENAME", "PERSON_SURNAME", "PERSON_DOB", "PERSON_GENDER_CODE"]
SHORT += ["PERSON_POSTCODE", "PROGRAMME", "DATE_OF_VACCINATION"]

#: What is accepted, what is withdrawn, and what is wrong in which line; or why the file is unreadable.
CSV_CORPUS: dict[str, tuple[list[int], list[int], dict[int, list[str]]] | str] = {
    "any-case-any-order.csv": ([2], [], {}),
    "bidirectional-controls.csv": (
        [2, 6],
        [],
        {3: ["PERSON_SURNAME"], 4: ["PERSON_FORENAME"], 5: ["PERSON_SURNAME"]},
    ),
    "blank-lines-only.csv": "the file is empty",
    "bom-crlf.csv": ([2, 3], [], {}),
    "bom-only.csv": "the file is empty",
    "column-twice.csv": "names NHS_NUMBER more than once",
    "empty.csv": "the file is empty",
    "formulas.csv": ([2, 3, 5], [], {4: ["BATCH_NUMBER"]}),
    "gzip.csv": "gzip",
    "header-and-instructions-only.csv": ([], [], {}),
    "header-injection.csv": ([6], [], {2: ["BATCH_NUMBER"], 4: ["UUID"]}),
    "header-only.csv": ([], [], {}),
    "html.csv": "the header lacks PERSON_FORENAME",
    "instructions-and-blank-rows.csv": ([8, 10], [], {}),
    "line-break-in-a-name.csv": ([2, 3, 5], [], {}),
    "lone-carriage-returns.csv": ([2, 3], [], {}),
    "many-faults.csv": (
        [2, 4],
        [],
        {
            3: [
                "VACCINATED",
                "PERSON_GENDER_CODE",
                "VACCINE_GIVEN",
                "PROGRAMME",
                "ANATOMICAL_SITE",
                "PERSON_DOB",
                "DOSE_SEQUENCE",
                "UUID",
                "NHS_NUMBER",
                "PERSON_FORENAME",
                "PERSON_SURNAME",
                "PERSON_POSTCODE",
                "DATE_OF_VACCINATION",
                "BATCH_NUMBER",
            ]
        },
    ),
    "missing-columns.csv": "the header lacks PERSON_FORENAME, PERSON_DOB, PERSON_GENDER_CODE, DATE_OF_VACCINATION",
    "mixed-encodings.csv": ([2, 3], [], {}),
    "neither-encoding.csv": ([2, 4], [], {3: ["(row)"]}),
    "no-line-end-at-the-end.csv": ([2, 3], [], {}),
    "not-vaccinated.csv": ([5], [2, 3], {4: ["VACCINATED"], 6: ["VACCINATED"], 7: ["PERSON_SURNAME"]}),
    "notes-over-lines.csv": ([2, 6, 7], [], {}),
    "notes-over-too-many-lines.csv": ([2, 44], [], {3: ["(row)"], **dict.fromkeys(range(4, 43), SHORT), 43: ["(row)"]}),
    "nul-and-controls.csv": ([2, 5, 6], [], {3: ["PERSON_SURNAME"], 4: ["PERSON_FORENAME"]}),
    "quote-out-of-place.csv": ([2, 4], [], {3: ["(row)"]}),
    "quotes-and-bars.csv": ([2, 3, 4, 5, 6], [], {}),
    "rubbish.csv": "binary",
    "semicolons.csv": ([2], [], {}),
    "too-few-and-too-many-cells.csv": ([2, 5, 6], [], {3: ["PROGRAMME"], 4: ["(row)"]}),
    "unclosed-quote.csv": ([2, 4, 5, 6], [], {3: ["(row)"]}),
    "unclosed-quote-in-many-rows.csv": ([2, 81], [], {line: ["(row)"] for line in range(3, 81)}),
    "unclosed-quote-then-quoted.csv": ([2, 4, 5, 6], [], {3: ["(row)"]}),
    "utf-16.csv": ([2], [], {}),
    "utf-16-without-bom.csv": "binary",
    "windows-1252.csv": ([2, 3], [], {}),
    "workbook.csv": "Excel",
}


def test_every_file_of_the_corpus_is_tried() -> None:
    assert {path.name for path in CORPUS.glob("*.csv")} == set(CSV_CORPUS)


@pytest.mark.parametrize("name", sorted(CSV_CORPUS))
@pytest.mark.bad_inputs
def test_a_bad_file_ends_in_an_answer_and_its_good_rows_are_accepted(name: str) -> None:
    body = (CORPUS / name).read_bytes()
    expected = CSV_CORPUS[name]
    if isinstance(expected, str):
        with pytest.raises(UnreadableUpload) as caught:
            read(body)
        assert expected in caught.value.reason
        assert caught.value.fix
        return
    assert summary(read(body)) == expected


@pytest.mark.bad_inputs
def test_an_open_quote_that_the_next_row_closes_does_not_swallow_that_row() -> None:
    header, good, *_ = upload({}).splitlines()
    opened, closing = f'{good}"never closed', f'but here",{good}'
    accepted, _, bad = summary(read("\n".join([header, good, opened, closing, good])))
    assert (accepted, list(bad), bad[3]) == ([2, 5], [3, 4], ["(row)"])


def test_windows_letters_and_quotes_come_out_right() -> None:
    rows = read((CORPUS / "windows-1252.csv").read_bytes())
    assert [(record.forename, record.surname) for record in records(rows)] == [
        ("Quintessa", "Zoë"),
        ("D\u2019Arcy", "Zephyrson"),
    ]
    rows = read((CORPUS / "quotes-and-bars.csv").read_bytes())
    assert [record.surname for record in records(rows)][::2] == ['O"Brien', "Smith|Jones", "Space, Before"]


@pytest.mark.bad_inputs
def test_a_field_of_300000_characters_costs_its_row_only() -> None:
    rows = read(upload({}, {"PERSON_SURNAME": "W" * 300_000}, {}, {"NOTES": "n" * 300_000}, {}))
    assert summary(rows) == ([2, 4, 6], [], {3: ["(row)"], 5: ["(row)"]})


def test_text_that_is_read_is_at_most_300_characters_and_notes_are_not_read() -> None:
    assert list(faults(PERFORMING_PROFESSIONAL_SURNAME="W" * 301)) == ["PERFORMING_PROFESSIONAL_SURNAME"]
    assert accepted(NOTES="n" * 5000)


@pytest.mark.bad_inputs
def test_a_million_columns_end_in_an_answer() -> None:
    with pytest.raises(UnreadableUpload, match="header"):
        read("PERSON_FORENAME," + "," * 1_000_000 + "\n")
    rows = read(upload({}, {"NOTES": ",x" * 30_000}, {}).replace('"', ""))
    assert [isinstance(row, Vaccinated) for row in rows] == [True, False, True]


class Endless(io.RawIOBase):
    """A stream of many bytes that are never in memory together."""

    def __init__(self, *pieces: tuple[bytes, int]) -> None:
        self._pieces: Iterator[bytes] = (piece for piece, times in pieces for _ in range(times))
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = next(self._pieces, b"")
        data = self._left[: len(buffer)]
        self._left = self._left[len(buffer) :]
        buffer[: len(data)] = data
        return len(data)


def test_a_row_of_a_gigabyte_without_a_newline_is_skipped_in_flat_memory() -> None:
    good = upload({}).encode()
    row = good.splitlines(keepends=True)[1]
    stream = Endless((good, 1), (b"x" * 2**20, 200), (b"\r\n" + row, 1))
    tracemalloc.start()
    rows = [
        (row.line, isinstance(row, Vaccinated))
        for row in read_csv(stream, organisation_code="R1L", today=TODAY)  # type: ignore[arg-type]
    ]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == [(2, True), (3, False), (4, True)]
    assert peak < 8 * 2**20


def test_an_upload_has_a_largest_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_lines, "MAX_BYTES", 10_000_000)
    stream = Endless((upload({}).encode(), 1), (b"x" * 2**20, 10**9))
    with pytest.raises(UnreadableUpload, match="smaller files"):
        list(read_csv(stream, organisation_code="R1L", today=TODAY))  # type: ignore[arg-type]


def test_an_upload_has_a_largest_number_of_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_lines, "MAX_LINES", 100_000)
    stream = Endless((upload({}).encode(), 1), (b"\n" * 2**16, 10**9))
    with pytest.raises(UnreadableUpload, match="smaller files"):
        list(read_csv(stream, organisation_code="R1L", today=TODAY))  # type: ignore[arg-type]


def test_lines_are_found_however_the_stream_is_cut() -> None:
    class Dripping(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    body = upload({}, {"NOTES": "a\r\nb"}, {"PERSON_SURNAME": "Zoë"}).encode("utf-8-sig")
    dripping = list(read_csv(Dripping(body), organisation_code="R1L", today=TODAY))
    assert dripping == read(body)
    assert [row.line for row in dripping] == [2, 3, 5]


def test_the_sample_upload_is_what_it_says_it_is() -> None:
    sample = sample_upload(TODAY)
    found: dict[str, dict[str, str]] = {}
    duplicates = 0
    rows = read(sample.csv)
    for row in rows:
        if isinstance(row, Vaccinated):
            known = found.setdefault(row.record.programme, {})
            duplicates += row.record_id in known
            assert known.setdefault(row.record_id, row.digest) == row.digest
        elif isinstance(row, Faulty):
            assert len(row.problems) > 1
    assert {programme: len(ids) for programme, ids in found.items()} == sample.accepted
    assert duplicates == sample.duplicates
    assert (lines_of(Faulty, rows), len(lines_of(Withdrawn, rows))) == (sample.bad_lines, sample.skipped)


@pytest.mark.parametrize("place", range(3))
def test_the_samples_of_other_systems_are_read_as_they_are(place: int) -> None:
    file = sample_upload(TODAY).others[place]
    rows = read(file.csv)
    assert not [row for row in rows if isinstance(row, Faulty)]
    accepted = [row.record.programme for row in rows if isinstance(row, Vaccinated)]
    assert Counter(accepted) == file.accepted
    assert len(rows) == len(accepted) + file.skipped
    assert len({row.record_id for row in rows if isinstance(row, Vaccinated)}) == len(accepted)


def test_the_corrected_sample_differs_in_what_is_put_right_and_what_is_withdrawn() -> None:
    sample = sample_upload(TODAY)
    before = {row.line: row for row in read(sample.csv)}
    after = {row.line: row for row in read(corrected_upload(sample))}
    assert list(before) == list(after)
    changed = [line for line in before if before[line] != after[line]]
    assert sorted(row.record_id for line in changed if not isinstance(row := after[line], Faulty)) == sorted(
        [sample.to_update, sample.to_withdraw, *sample.to_refuse]
    )
    assert len(lines_of(Withdrawn, [after[line] for line in changed])) == 1


# -- fuzz

TRICKY = [
    *('"', '""', '"a\nb"', "a\x00b", "=1+1", "\u202e", "Yes", "no", "HPV", "MMR", "ProQuad", "nasal", "1P", "Male"),
    *("9992686766", "SW1A 1AA", "20120818", "18/08/2012", "30/02/2024", "99999999", "10:15", "x" * 400),
]
CELL = st.text(max_size=12) | st.sampled_from(TRICKY)


@given(st.lists(st.dictionaries(st.sampled_from(list(GOOD)), CELL), max_size=6))
@pytest.mark.bad_inputs
def test_whatever_cells_hold_each_row_is_answered_and_good_ones_are_accepted(rows: list[dict[str, str]]) -> None:
    found = read(upload({}, *rows, {}).encode("utf-8", "surrogatepass"))
    assert isinstance(found[0], Vaccinated)
    assert isinstance(found[-1], Vaccinated)
    assert all(row.problems if isinstance(row, Faulty) else UUID(row.record_id) for row in found)


HEADER = ",".join(GOOD)


@given(st.binary(max_size=400))
@example(b'"')
@example(b'\r\n"\r"')
@pytest.mark.bad_inputs
def test_whatever_bytes_follow_the_header_reading_never_fails_otherwise(body: bytes) -> None:
    for row in read(HEADER.encode() + b"\r\n" + body):
        assert not isinstance(row, Faulty) or row.problems


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@pytest.mark.bad_inputs
def test_whatever_bytes_an_upload_is_it_is_read_or_rejected(body: bytes) -> None:
    with contextlib.suppress(UnreadableUpload):
        read(body)


@given(st.randoms(use_true_random=False), st.integers(1, 8))
@pytest.mark.bad_inputs
def test_however_a_file_is_damaged_every_untouched_line_is_read(chance: random.Random, times: int) -> None:
    """Damage may cost the rows it touches and such that an opened quote runs into, never the rows before."""
    lines = (
        upload(*({"UUID": f"00000000-0000-4000-8000-{n:012}"} for n in range(30))).encode().splitlines(keepends=True)
    )
    first = 30
    for _ in range(times):
        place = chance.randrange(1, len(lines))
        first = min(first, place)
        line = bytearray(lines[place])
        line[chance.randrange(len(line))] = chance.choice(b'"\r\n,\x00\xffx')
        lines[place] = bytes(line)
    found = lines_of(Vaccinated, read(b"".join(lines)))
    assert found[: first - 1] == list(range(2, first + 1))


def test_a_file_tells_what_it_calls_columns_where_that_is_not_as_we_do() -> None:
    columns: dict[str, str] = {}
    body = SYSTMONE.replace("Date of birth", "DATE-OF-BIRTH ").encode()
    list(read_csv(io.BytesIO(body), organisation_code="R1L", today=TODAY, columns=columns))
    named = ("PERSON_DOB", "Date of birth", "PERSON_FORENAME", "DATE_OF_VACCINATION", "PROGRAMME", "DOSE_SEQUENCE")
    own = ["DATE-OF-BIRTH", "DATE-OF-BIRTH", "First name", "Event date", "Vaccination type", "Vaccination type"]
    assert [columns[name] for name in named] == own
    assert "First name" not in columns
    assert "UUID" not in columns
