"""Whatever an upload holds, DPS's receiver takes the file's name and each row that we accept."""

from __future__ import annotations

import csv
import io
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from tests.receiver import disease_of, faults_of, faults_of_file
from vaccinations.formats.batches import batch_line
from vaccinations.formats.dps_columns import COLUMNS, HEADER, render_row
from vaccinations.formats.dps_names import FilenameStyle, file_names
from vaccinations.formats.upload_csv import read_csv
from vaccinations.model.decide import Columns, Queue, UploadFacts, decide
from vaccinations.model.london import day_in_london
from vaccinations.model.programmes import GENDERS, PROGRAMMES, SITES, VACCINES, Programme
from vaccinations.model.row import Vaccinated
from vaccinations.model.uploaders import Uploaders

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)
UPLOAD = UploadFacts(
    "b" * 32, NOW, "2026-03-10T12:00:00+00:00 01234567 0000", "R1L", Uploaders(), Columns("", "", "", "", "", "")
)
TEXT = st.text(st.characters(categories=("L", "M", "P", "Zs")), min_size=1, max_size=30)
NAME = TEXT | st.sampled_from(["Zoë", 'Ann "Annie"', "Smith|Jones", " x ", "a  b", "Anne\u00a0Marie", "Chy\u200dna"])
CELLS = {
    "UUID": st.sampled_from(["", "496e37d8-d1ab-4e12-a3a3-9c2e136a0504"]),
    "ORGANISATION_CODE": st.sampled_from(["", "r1l"]),
    "SCHOOL_URN": st.sampled_from(["", "123456", "110158A", "888888", "999999"]),
    "NHS_NUMBER": st.sampled_from(["9992686766", "999 268 6766", "9434765919"]),
    "PERSON_FORENAME": NAME,
    "PERSON_SURNAME": NAME,
    "PERSON_DOB": st.sampled_from(["20120818", "1/2/2012", "19000101"]),
    "PERSON_GENDER_CODE": st.sampled_from([name for gender in GENDERS.values() for name in gender.upload_names]),
    "PERSON_POSTCODE": st.sampled_from(["", "sw1a1aa", "ZZ99 3WZ"]),
    "VACCINATED": st.just("Y"),
    "DATE_OF_VACCINATION": st.sampled_from(["10/3/2026", "20260310", "2025-06-09", "30/03/2025", "26/10/2025"]),
    "TIME_OF_VACCINATION": st.sampled_from(["", "9", "12:00", "12:01", "0130", "23:59:59"]),
    "BATCH_NUMBER": st.sampled_from(["", "AB12"]),
    "BATCH_EXPIRY_DATE": st.sampled_from(["", "30/9/2026", "20110101"]),
    "PERFORMING_PROFESSIONAL_FORENAME": NAME | st.just(""),
    "PERFORMING_PROFESSIONAL_SURNAME": NAME | st.just(""),
}


@st.composite
def vaccinations(draw: st.DrawFn) -> dict[str, str]:
    """Draw the cells that say what was given: a vaccine, a programme, or both, and what suits them."""
    vaccine = draw(st.sampled_from([*VACCINES.values()]))
    programme = PROGRAMMES[vaccine.programme]
    places = [name for site in SITES.values() if site.method == vaccine.method for name in site.upload_names]
    name = draw(st.sampled_from(programme.upload_names))
    given_as = draw(st.sampled_from([*vaccine.upload_names, vaccine.brand]))
    return {
        **draw(st.sampled_from([{"PROGRAMME": name}, {"PROGRAMME": "", "VACCINE_GIVEN": given_as}])),
        "ANATOMICAL_SITE": draw(st.sampled_from(["", *places])),
        "DOSE_SEQUENCE": draw(st.sampled_from(["", "1", "2", *programme.dose_codes])),
    }


def sent(cells: dict[str, str]) -> dict[str, str] | None:
    """Return what an upload of one row makes DPS get, by column; None where the row is not accepted."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(cells))
    writer.writeheader()
    writer.writerow(cells)
    body = io.BytesIO(text.getvalue().encode("utf-8", "replace"))
    for row in read_csv(body, organisation_code="R1L", today=day_in_london(NOW)):
        decision = decide(row, None, UPLOAD)
        if isinstance(row, Vaccinated) and isinstance(decision, Queue):
            rendered = render_row(batch_line(row.record, decision.entry, today=day_in_london(NOW)))
            (values,) = csv.reader(io.StringIO(rendered, newline=""), delimiter="|", strict=True)
            return dict(zip(COLUMNS, values, strict=True))
    return None


@given(st.fixed_dictionaries(CELLS), vaccinations())
def test_the_receiver_takes_every_row_that_is_accepted(cells: dict[str, str], vaccination: dict[str, str]) -> None:
    row = sent(cells | vaccination)
    event("accepted" if row else "rejected")
    if row:
        assert faults_of(row, NOW) == []


GOOD = {
    "NHS_NUMBER": "9992686766",
    "PERSON_FORENAME": "Ann",
    "PERSON_SURNAME": "Lee",
    "PERSON_DOB": "20120818",
    "PERSON_GENDER_CODE": "male",
    "PERSON_POSTCODE": "",
    "VACCINATED": "Y",
    "DATE_OF_VACCINATION": "20260310",
    "TIME_OF_VACCINATION": "12:00",
    "PROGRAMME": "HPV",
}


@given(
    st.datetimes(datetime(2000, 1, 1), datetime(2099, 12, 31)),  # noqa: DTZ001 - by London's clock and by UTC's
    st.sampled_from([*PROGRAMMES.values()]),
    st.integers(1, 99),
    st.sampled_from(["V0V8L", "v0v8l"]),
)
def test_the_receiver_takes_every_file_name_for_its_disease(
    moment: datetime, programme: Programme, sequence: int, supplier: str
) -> None:
    names = file_names(programme, FilenameStyle.BATCH_V5, supplier)(moment.replace(tzinfo=UTC), sequence)
    assert disease_of(names.mesh_filename) == programme.dps_vaccine_type
    assert disease_of(names.filename) == ""  # the guide's


@pytest.mark.parametrize("vaccine", VACCINES.values(), ids=lambda vaccine: vaccine.key)
def test_the_receiver_takes_every_vaccine(vaccine: object) -> None:
    row = sent(GOOD | {"PROGRAMME": "", "VACCINE_GIVEN": vaccine.upload_names[0]})  # type: ignore[attr-defined]
    assert row is not None
    assert faults_of(row, NOW) == []


@pytest.mark.parametrize(
    ("column", "text"),
    [
        *(("NHS_NUMBER", "999 268 6766"), ("NHS_NUMBER", "9992686767"), ("PERSON_FORENAME", " "), ("SITE_CODE", "")),
        *(
            ("PERSON_SURNAME", "x" * 36),
            ("PERSON_DOB", "20260311"),
            ("PERSON_GENDER_CODE", "3"),
            ("DOSE_SEQUENCE", "10"),
        ),
        *(("PERSON_POSTCODE", ""), ("DATE_AND_TIME", "20260310"), ("DATE_AND_TIME", "20260310T12000100")),
        *(("VACCINATION_PROCEDURE_CODE", "761841001"), ("VACCINE_PRODUCT_CODE", "1"), ("EXPIRY_DATE", "20260230")),
        *(("ACTION_FLAG", "new "), ("RECORDED_DATE", "20260311"), ("PRIMARY_SOURCE", "1"), ("BATCH_NUMBER", " ")),
        *(("ROUTE_OF_VACCINATION_CODE", "78421000 "), ("DOSE_AMOUNT", "0,5"), ("LOCATION_CODE", "")),
    ],
)
def test_these_rules_find_what_the_receiver_refuses(column: str, text: str) -> None:
    row = sent(GOOD)
    assert row is not None
    assert faults_of(row | {column: text}, NOW) == [column]


NAME = "HPV_Vaccinations_v5_V0V8L_20260310T12000000.csv"


@pytest.mark.parametrize(
    ("name", "change", "fault"),
    [
        (NAME, bytes, []),
        ("Vaccinations-HPV-2026-03-10.csv", bytes, ["name"]),
        (None, bytes, ["name"]),
        (NAME, lambda body: b"\xef\xbb\xbf" + body, ["header"]),
        (NAME, lambda body: b"\n" + body, ["header"]),
        (NAME, lambda body: body.replace(b"NHS_NUMBER", b"nhs_number"), ["header"]),
        (NAME, lambda body: body.replace(b"\n", b"|\n", 1), ["header"]),
        (NAME, lambda body: body.replace(b'"INDICATION_CODE"|', b""), ["header"]),
        (NAME, lambda _: HEADER, ["no rows"]),
        (NAME, lambda body: body + b'"1"\n', ["2: cells"]),
        (NAME, lambda body: body.replace(b"Ann", b"\xff"), ["file"]),
        (NAME, lambda body: body.replace(b'"Ann"', b'""'), ["1: PERSON_FORENAME"]),
        (NAME, lambda body: body.replace(b'"Ann"', b'""').replace(b'"new"', b'"delete"'), []),
    ],
)
def test_these_rules_find_what_the_receiver_refuses_of_a_file(
    name: str | None, change: Callable[[bytes], bytes], fault: list[str]
) -> None:
    row = sent(GOOD)
    assert row is not None
    text = io.StringIO(newline="")
    csv.writer(text, delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(row.values())
    assert faults_of_file(name, change(HEADER + text.getvalue().encode()), NOW) == fault


def test_a_row_of_a_minute_from_now_is_not_taken_and_not_accepted() -> None:
    assert sent(GOOD | {"TIME_OF_VACCINATION": "12:01"}) is None
    row = sent(GOOD)
    assert row is not None
    assert faults_of(row, NOW - timedelta(seconds=1)) == ["DATE_AND_TIME"]
