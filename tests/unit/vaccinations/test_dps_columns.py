"""What the rows of a DPS file promise: the 34 columns as DPS wants them."""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
from datetime import UTC, date, datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.entries import entry_for
from vaccinations.formats.batches import batch_line
from vaccinations.formats.dps_columns import COLUMNS, HEADER, ROWS_VERSION, local_id_of, render_row
from vaccinations.model.london import in_london, uk_time
from vaccinations.model.programmes import GENDERS, PROGRAMMES, ROUTES, SITES, VACCINES
from vaccinations.model.record import VaccinationRecord

#: The record behind the MESH guide's own sample row.
SAMPLE: dict[str, Any] = {
    "uuid": "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "organisation_code": "U1",
    "nhs_number": "9992686766",
    "forename": "Brenton",
    "surname": "Waters",
    "date_of_birth": "2012-08-18",
    "gender": "not_known",
    "postcode": "UC0W 0JL",
    "vaccinated_at": "2023-06-09T00:00:00+00:00",
    "recorded_on": "2024-08-21",
    "programme": "hpv",
    "vaccine": "gardasil_9",
    "batch_number": "CD5472",
    "expiry": "2024-09-30",
    "site": "left_arm_upper_position",
    "dose_sequence": 1,
    "school_urn": "123456",
}
SAMPLE_ROW = (
    '"9992686766"|"Brenton"|"Waters"|"20120818"|"0"|"UC0W 0JL"|"20230609T00000000"|"U1"|'
    '"https://fhir.nhs.uk/Id/ods-organization-code"|"496e37d8-d1ab-4e12-a3a3-9c2e136a0504"|'
    '"https://manage-vaccinations-in-schools.nhs.uk/vaccination-records"|"new"|""|""|"20240821"|"TRUE"|"761841000"|'
    '"Administration of vaccine product containing only Human papillomavirus antigen (procedure)"|"1"|'
    '"33493111000001108"|"Gardasil 9 vaccine suspension for injection 0.5ml pre-filled syringes '
    '(Merck Sharp & Dohme (UK) Ltd) (product)"|"Merck Sharp & Dohme"|"CD5472"|"20240930"|"368208006"|'
    '"Structure of left upper arm (body structure)"|"78421000"|"Intramuscular route (qualifier value)"|"0.5"|'
    '"258773002"|"Milliliter (qualifier value)"|""|"123456"|"https://fhir.hl7.org.uk/Id/urn-school-number"\n'
)


def record(**changes: Any) -> VaccinationRecord:
    return VaccinationRecord.model_validate(SAMPLE | changes, context={"today": date(2026, 3, 10)})


def line(action: str = "new", **changes: Any) -> bytes:
    stated = record(**changes)
    return batch_line(stated, entry_for(stated, action), today=date(2024, 8, 22))


def cells(row: str) -> dict[str, str]:
    (found,) = csv.reader(io.StringIO(row, newline=""), delimiter="|", strict=True)
    return dict(zip(COLUMNS, found, strict=True))


def rendered(**changes: Any) -> dict[str, str]:
    return cells(render_row(line(**changes)))


# -- rows


def test_the_sample_row_is_reproduced_byte_for_byte() -> None:
    assert render_row(line()) == SAMPLE_ROW


def test_dpss_answers_name_a_record_by_its_identifier_and_namespace() -> None:
    row = rendered()
    assert local_id_of(SAMPLE["uuid"]) == f"{row['UNIQUE_ID']}^{row['UNIQUE_ID_URI']}"


def test_the_header_names_34_columns() -> None:
    assert len(COLUMNS) == 34
    assert HEADER.startswith(b'"NHS_NUMBER"|"PERSON_FORENAME"|')
    assert HEADER.endswith(b'|"LOCATION_CODE"|"LOCATION_CODE_TYPE_URI"\n')
    (names,) = csv.reader(io.StringIO(HEADER.decode(), newline=""), delimiter="|", strict=True)
    assert tuple(names) == COLUMNS


@pytest.mark.parametrize(
    ("stated", "sent"),
    [
        ("2023-06-09T00:00:00+00:00", "20230609T00000000"),
        ("2023-06-09T00:00:00+01:00", "20230609T00000001"),
        ("2023-06-09T00:00:00", "20230609T00000001"),
        ("2023-12-09T00:00:00", "20231209T00000000"),
        ("2023-12-09T09:30:15+01:00", "20231209T09301501"),
        ("2023-06-09T12:00:00+05:30", "20230609T07300001"),
        ("2023-12-09T12:00:00-05:00", "20231209T17000000"),
        ("2023-06-09T23:30:00-00:30", "20230610T01000001"),
        ("2023-06-09T12:00:00Z", "20230609T12000000"),
        ("2023-06-09", "20230609T00000001"),
        ("2023-03-26T00:59:59", "20230326T00595900"),
        ("2023-03-26T02:00:00", "20230326T02000001"),
        ("2023-10-29T00:59:59", "20231029T00595901"),
        ("2023-10-29T01:30:00", "20231029T01300001"),  # the clock shows this hour twice; the first is BST
        ("2023-10-29T02:00:00", "20231029T02000000"),
        ("2023-06-09T10:15:30.999", "20230609T10153001"),
        ("1943-07-01T12:00:00", "19430701T10000000"),  # double summer time
    ],
)
def test_dps_is_told_the_uk_time_of_the_vaccination(stated: str, sent: str) -> None:
    assert rendered(date_of_birth="1930-01-01", vaccinated_at=stated)["DATE_AND_TIME"] == sent


@given(st.datetimes(datetime(1950, 1, 1), datetime(2035, 1, 1)), st.sampled_from([None, -300, -1, 0, 60, 120, 330]))  # noqa: DTZ001
def test_no_moment_is_moved_by_telling_it(clock: datetime, offset: int | None) -> None:
    zone = None if offset is None else datetime.strptime(f"{offset // 60:+03}{offset % 60:02}", "%z").tzinfo
    stated = clock.replace(microsecond=0, tzinfo=zone)
    told = render_row({**orjson.loads(line()), "vaccinated_at": stated.isoformat()})
    sent = cells(told)["DATE_AND_TIME"]
    moment = datetime.strptime(sent[:-2] + {"00": "+0000", "01": "+0100"}[sent[-2:]], "%Y%m%dT%H%M%S%z")
    # As timestamps: Python holds two moments in an hour that the clock shows twice to be unequal (PEP 495).
    assert moment.timestamp() == uk_time(stated).timestamp()
    assert moment.astimezone(UTC) == in_london(stated).astimezone(UTC)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"programme": "flu", "vaccine": "fluenz", "site": "nose"}, "884861000000100"),
        ({"programme": "flu", "vaccine": "fluenz", "site": None, "dose_sequence": 2}, "884881000000109"),
        ({"programme": "flu", "vaccine": None, "site": "nose", "dose_sequence": 2}, "884881000000109"),
        ({"programme": "flu", "vaccine": None, "site": None, "route": "nasal_spray"}, "884861000000100"),
        ({"programme": "flu", "vaccine": None, "site": None}, "985151000000100"),
        ({"programme": "flu", "vaccine": "vaxigrip", "dose_sequence": 2}, "985171000000109"),
        ({"programme": "hpv", "dose_sequence": 3}, "761841000"),
        ({"programme": "mmr", "vaccine": "priorix", "dose_sequence": None}, "38598009"),
        ({"programme": "mmr", "vaccine": "priorix", "dose_sequence": 2}, "170433008"),
        ({"programme": "mmr", "vaccine": "pro_quad", "dose_sequence": 2}, "433733003"),
    ],
)
def test_the_procedure_follows_from_programme_method_and_dose(changes: dict[str, Any], code: str) -> None:
    assert rendered(**changes)["VACCINATION_PROCEDURE_CODE"] == code


@pytest.mark.parametrize(
    ("programme", "vaccine", "stated", "sent"),
    [
        ("flu", "vaxigrip", None, "1"),
        ("hpv", "gardasil_9", None, "1"),
        ("hpv", "gardasil_9", 2, "2"),
        ("mmr", "priorix", None, ""),
        ("td_ipv", "revaxis", 5, "5"),
    ],
)
def test_an_unknown_dose_is_left_empty_but_for_flu_and_hpv(
    programme: str, vaccine: str, stated: int | None, sent: str
) -> None:
    assert rendered(programme=programme, vaccine=vaccine, dose_sequence=stated)["DOSE_SEQUENCE"] == sent


def test_without_a_vaccine_product_and_amount_are_empty_and_the_unit_is_not() -> None:
    row = rendered(vaccine=None)
    for column in ("VACCINE_PRODUCT_CODE", "VACCINE_PRODUCT_TERM", "VACCINE_MANUFACTURER", "DOSE_AMOUNT"):
        assert row[column] == ""
    assert (row["DOSE_UNIT_CODE"], row["DOSE_UNIT_TERM"]) == ("258773002", "Milliliter (qualifier value)")


def test_the_amount_is_the_vaccines() -> None:
    assert rendered(programme="flu", vaccine="fluenz", site="nose")["DOSE_AMOUNT"] == "0.2"
    assert rendered()["DOSE_AMOUNT"] == "0.5"


@pytest.mark.parametrize(
    ("site", "stated", "route"),
    [
        ("left_thigh", None, "78421000"),
        ("left_thigh", "subcutaneous", "34206005"),
        ("nose", None, "46713006"),
        (None, None, ""),
        (None, "intramuscular", "78421000"),
    ],
)
def test_the_route_is_the_one_stated_or_follows_from_the_site(site: str | None, stated: str | None, route: str) -> None:
    row = rendered(programme="flu", vaccine=None, site=site, route=stated)
    assert row["ROUTE_OF_VACCINATION_CODE"] == route
    assert bool(row["ROUTE_OF_VACCINATION_TERM"]) is bool(route)
    assert bool(row["SITE_OF_VACCINATION_CODE"]) is bool(site)


@pytest.mark.parametrize("urn", [None, "888888", "999999"])
def test_where_no_school_is_known_the_place_is_unknown(urn: str | None) -> None:
    row = rendered(school_urn=urn)
    assert row["LOCATION_CODE"] == "X99999"
    assert row["LOCATION_CODE_TYPE_URI"] == "https://fhir.nhs.uk/Id/ods-organization-code"


@pytest.mark.parametrize(
    ("gender", "code"), [("not_known", "0"), ("male", "1"), ("female", "2"), ("not_specified", "9")]
)
def test_genders_are_sent_as_codes(gender: str, code: str) -> None:
    assert rendered(gender=gender)["PERSON_GENDER_CODE"] == code


def test_what_was_not_stated_is_empty() -> None:
    row = rendered(nhs_number=None, batch_number=None, expiry=None)
    for column in ("NHS_NUMBER", "BATCH_NUMBER", "EXPIRY_DATE", "INDICATION_CODE", "PERFORMING_PROFESSIONAL_SURNAME"):
        assert row[column] == ""


def test_a_record_that_does_not_say_when_it_was_made_was_made_on_the_day_of_the_upload() -> None:
    assert rendered(recorded_on=None)["RECORDED_DATE"] == "20240822"
    assert rendered()["RECORDED_DATE"] == "20240821"


@pytest.mark.parametrize("action", ["new", "update", "delete"])
def test_a_row_says_what_is_to_become_of_the_record(action: str) -> None:
    assert cells(render_row(line(action=action)))["ACTION_FLAG"] == action


def test_quotes_and_bars_in_names_survive() -> None:
    row = rendered(forename='Ann "Annie"', surname="Smith|Jones", professional_surname="\\")
    assert (row["PERSON_FORENAME"], row["PERSON_SURNAME"]) == ('Ann "Annie"', "Smith|Jones")
    assert row["PERFORMING_PROFESSIONAL_SURNAME"] == "\\"


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(
    texts=st.lists(TEXT, min_size=9, max_size=9),
    vaccine=st.sampled_from([None, *VACCINES]),
    programme=st.sampled_from(list(PROGRAMMES)),
    site=st.sampled_from([None, *(key for key in SITES if key != "nose")]),
    route=st.sampled_from([None, "subcutaneous", "intramuscular"]),
    gender=st.sampled_from(list(GENDERS)),
    dose=st.none() | st.integers(1, 9),
    as_bytes=st.booleans(),
)
def test_a_row_is_what_pythons_csv_module_writes(
    texts: list[str],
    vaccine: str | None,
    programme: str,
    site: str | None,
    route: str | None,
    gender: str,
    dose: int | None,
    *,
    as_bytes: bool,
) -> None:
    """For all text, although none of these would be let in with a line break."""
    product = VACCINES[vaccine] if vaccine else None
    if product:
        programme = product.programme
    nasal = product is not None and product.method == "nasal"
    names = ("nhs_number", "forename", "surname", "postcode", "organisation_code", "batch_number", "school_urn")
    cells_of = dict(zip((*names, "professional_forename", "professional_surname"), texts, strict=True))
    stated = orjson.loads(line()) | cells_of
    stated |= {"vaccine": vaccine, "programme": programme, "gender": gender, "dose_sequence": dose}
    stated |= {"site": "nose" if nasal else site, "route": None if nasal else route}
    row = render_row(orjson.dumps(stated) if as_bytes else stated)

    known_dose = PROGRAMMES[programme].dose(dose)
    procedure = PROGRAMMES[programme].procedure("nasal" if nasal else "injection", known_dose)
    place = SITES["nose"].concept if nasal else SITES[site].concept if site else None
    way = ROUTES["nasal_spray"] if nasal else ROUTES[route or "intramuscular"] if route or site else None
    school = cells_of["school_urn"] not in {"", "888888", "999999"}
    values = [
        cells_of["nhs_number"],
        cells_of["forename"],
        cells_of["surname"],
        "20120818",
        GENDERS[gender].code,
        cells_of["postcode"],
        "20230609T00000000",
        cells_of["organisation_code"],
        "https://fhir.nhs.uk/Id/ods-organization-code",
        "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
        "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records",
        "new",
        cells_of["professional_forename"],
        cells_of["professional_surname"],
        "20240821",
        "TRUE",
        procedure.code,
        procedure.term,
        known_dose or "",
        product.product.code if product else "",
        product.product.term if product else "",
        product.manufacturer if product else "",
        cells_of["batch_number"],
        "20240930",
        place.code if place else "",
        place.term if place else "",
        way.code if way else "",
        way.term if way else "",
        product.dose_volume_ml if product else "",
        "258773002",
        "Milliliter (qualifier value)",
        "",
        cells_of["school_urn"] if school else "X99999",
        "https://fhir.hl7.org.uk/Id/urn-school-number" if school else "https://fhir.nhs.uk/Id/ods-organization-code",
    ]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(values)
    assert row == written.getvalue()


def rows_of_all_reference_data() -> list[str]:
    vaccinations = [
        {"programme": v.programme, "vaccine": v.key, "dose_sequence": dose, "site": site and site.key, **more}
        for v in VACCINES.values()
        for dose in [None, *range(1, PROGRAMMES[v.programme].most_doses + 1)]
        for site in [None, *SITES.values()]
        if site is None or site.method == v.method
        for more in ({}, {"nhs_number": None, "school_urn": None, "vaccinated_at": "2023-06-09T10:15:00"})
    ]
    others = [
        {"programme": "flu", "vaccine": None, "site": None, "route": route, "gender": gender}
        for route, gender in itertools.product([None, *ROUTES], GENDERS)
    ]
    return [render_row(line(**changes)) for changes in vaccinations + others]


def test_every_record_of_the_reference_data_is_rendered() -> None:
    rows = [cells(row) for row in rows_of_all_reference_data()]
    assert {row["VACCINE_PRODUCT_CODE"] for row in rows} - {""} == {v.product.code for v in VACCINES.values()}
    assert {row["ROUTE_OF_VACCINATION_CODE"] for row in rows} - {""} == {route.code for route in ROUTES.values()}


def test_rows_that_look_different_bear_another_version() -> None:
    """Rows are kept in the bucket: where they change, raise `ROWS_VERSION` and note it here (docs/dps-parts.md)."""
    looks = hashlib.sha256(HEADER + "".join(rows_of_all_reference_data()).encode()).hexdigest()
    assert (ROWS_VERSION, looks) == (1, "248f30de7a2bea9e80d7a521bc62f352a3c246f441019535adf4883f2004d8dc")
