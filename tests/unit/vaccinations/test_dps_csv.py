"""What DPS files promise: the 34 columns as the receiver wants them, in parts that put together are the file."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import itertools
import random
import zlib
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaccinations.formats.dps_columns
from local.sample import make_batch_lines
from vaccinations.formats.dps_columns import (
    COLUMNS,
    HEADER,
    Members,
    PartFacts,
    RowsWriter,
    batch_line,
    read_batch,
    read_members,
    render_row,
    uk_time,
    write_part,
)
from vaccinations.model.programmes import GENDERS, PROGRAMMES, ROUTES, SITES, VACCINES
from vaccinations.model.record import VaccinationRecord

if TYPE_CHECKING:
    from collections.abc import Iterable

LONDON = ZoneInfo("Europe/London")

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
    return batch_line(record(**changes), action=action, line=2, recorded_on=date(2024, 8, 22))


def cells(row: str) -> dict[str, str]:
    (found,) = csv.reader(io.StringIO(row, newline=""), delimiter="|", strict=True)
    return dict(zip(COLUMNS, found, strict=True))


def rendered(**changes: Any) -> dict[str, str]:
    return cells(render_row(line(**changes)))


# -- rows


def test_the_sample_row_is_reproduced_byte_for_byte() -> None:
    assert render_row(line()) == SAMPLE_ROW


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
    assert moment.astimezone(UTC) == (stated if stated.tzinfo else stated.replace(tzinfo=LONDON)).astimezone(UTC)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"programme": "flu", "vaccine": "fluenz", "site": "nose"}, "884861000000100"),
        ({"programme": "flu", "vaccine": "fluenz", "site": None, "dose_sequence": 2}, "884881000000109"),
        ({"programme": "flu", "vaccine": None, "site": "nose", "dose_sequence": 7}, "884881000000109"),
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
    held = dict(zip((*names, "professional_forename", "professional_surname"), texts, strict=True))
    stated = orjson.loads(line()) | held
    stated |= {"vaccine": vaccine, "programme": programme, "gender": gender, "dose_sequence": dose}
    stated |= {"site": "nose" if nasal else site, "route": None if nasal else route}
    row = render_row(orjson.dumps(stated) if as_bytes else stated)

    known_dose = PROGRAMMES[programme].dose(dose)
    procedure = PROGRAMMES[programme].procedure("nasal" if nasal else "injection", known_dose)
    place = SITES["nose"].concept if nasal else SITES[site].concept if site else None
    way = ROUTES["nasal_spray"] if nasal else ROUTES[route or "intramuscular"] if route or site else None
    school = held["school_urn"] not in {"", "888888", "999999"}
    values = [
        held["nhs_number"],
        held["forename"],
        held["surname"],
        "20120818",
        GENDERS[gender].code,
        held["postcode"],
        "20230609T00000000",
        held["organisation_code"],
        "https://fhir.nhs.uk/Id/ods-organization-code",
        "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
        "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records",
        "new",
        held["professional_forename"],
        held["professional_surname"],
        "20240821",
        "TRUE",
        procedure.code,
        procedure.term,
        known_dose or "",
        product.product.code if product else "",
        product.product.term if product else "",
        product.manufacturer if product else "",
        held["batch_number"],
        "20240930",
        place.code if place else "",
        place.term if place else "",
        way.code if way else "",
        way.term if way else "",
        product.dose_volume_ml if product else "",
        "258773002",
        "Milliliter (qualifier value)",
        "",
        held["school_urn"] if school else "X99999",
        "https://fhir.hl7.org.uk/Id/urn-school-number" if school else "https://fhir.nhs.uk/Id/ods-organization-code",
    ]
    written = io.StringIO(newline="")
    csv.writer(written, delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(values)
    assert row == written.getvalue()


# -- batch lines


def test_a_batch_line_is_the_record_and_what_is_to_become_of_it() -> None:
    stated = record(recorded_on=None)
    held = orjson.loads(batch_line(stated, action="update", line=7, recorded_on=date(2024, 8, 22), digest="d1"))
    assert (held.pop("action"), held.pop("line"), held.pop("digest")) == ("update", 7, "d1")
    assert held.pop("recorded_on") == "2024-08-22"
    assert VaccinationRecord.model_validate(held) == stated


def test_a_batch_line_is_one_line() -> None:
    text = batch_line(record(surname='a"b\\c|d'), action="new", line=1, recorded_on=date(2024, 8, 22))
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1


def test_a_batch_is_read_back_line_by_line_also_from_several_gzip_members() -> None:
    lines = list(make_batch_lines(300))
    body = gzip.compress(b"".join(lines[:100])) + gzip.compress(b"".join(lines[100:]))
    assert list(read_batch(io.BytesIO(body))) == lines


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_a_cut_off_batch_is_never_taken_for_a_whole_one(cut: int) -> None:
    body = gzip.compress(b"".join(make_batch_lines(300)))
    with pytest.raises(EOFError):
        list(read_batch(io.BytesIO(body[:-cut])))


def test_a_damaged_batch_is_noticed() -> None:
    body = bytearray(gzip.compress(b"".join(make_batch_lines(300))))
    body[-6] ^= 1  # in the checksum
    with pytest.raises(OSError, match="CRC"):
        list(read_batch(io.BytesIO(bytes(body))))


# -- parts


def rows_file(lines: Iterable[bytes]) -> io.BytesIO:
    """Write the rows of a batch, as they are stored."""
    file = io.BytesIO()
    writer = RowsWriter(file)
    for text in lines:
        writer.write(render_row(text))
    writer.finish()
    file.seek(0)
    return file


def written(*batches: Iterable[bytes], **options: int) -> tuple[list[PartFacts], list[bytes]]:
    """Make a DPS file of batches; return its parts, and what is known of each."""
    members = Members(map(read_members, map(rows_file, batches)))
    facts: list[PartFacts] = []
    bodies: list[bytes] = []
    while members.next or not facts:
        body = io.BytesIO()
        facts.append(write_part(len(facts) + 1, members, body, **options))
        bodies.append(body.getvalue())
    return facts, bodies


@pytest.fixture
def small_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a member hold few rows."""
    monkeypatch.setattr(vaccinations.formats.dps_columns, "MEMBER_CHARACTERS", 3_000)


def noise(count: int, seed: int) -> list[bytes]:
    """Make batch lines that hardly compress."""
    chance = random.Random(seed)
    lines = []
    for held in map(orjson.loads, itertools.islice(make_batch_lines(count), count)):
        held["forename"] = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(chance.randrange(180)))
        held["batch_number"] = f"{chance.getrandbits(400):x}"
        lines.append(orjson.dumps(held) + b"\n")
    return lines


@pytest.mark.usefixtures("small_members")
@pytest.mark.parametrize("part_bytes", [6_000, 12_000, 30_000, 200_000, 80_000_000])
@pytest.mark.parametrize("kind", ["alike", "noise"])
def test_parts_put_together_are_the_file_and_none_is_too_large(part_bytes: int, kind: str) -> None:
    lines = list(make_batch_lines(1500)) if kind == "alike" else noise(400, 7)
    facts, bodies = written(lines[:100], lines[100:], part_bytes=part_bytes)
    assert [fact.number for fact in facts] == list(range(1, len(facts) + 1))
    assert max(map(len, bodies)) <= part_bytes
    assert b"".join(map(gzip.decompress, bodies)) == HEADER + "".join(map(render_row, lines)).encode()
    assert sum(fact.rows for fact in facts) == len(lines)
    assert [fact.size for fact in facts] == [len(body) for body in bodies]
    assert [fact.sha256 for fact in facts] == [hashlib.sha256(body).hexdigest() for body in bodies]
    if part_bytes <= 30_000:
        assert len(facts) > 1


@pytest.mark.usefixtures("small_members")
def test_a_part_is_one_gzip_stream_since_some_receivers_read_no_further_than_the_first() -> None:
    _, bodies = written(make_batch_lines(400), make_batch_lines(300), part_bytes=20_000)
    for body in bodies:
        stream = zlib.decompressobj(wbits=31)
        assert stream.decompress(body)
        assert (stream.eof, stream.unused_data) == (True, b"")


@pytest.mark.usefixtures("small_members")
def test_every_part_ends_at_the_end_of_a_row_and_counts_its_rows() -> None:
    facts, bodies = written(make_batch_lines(2000), part_bytes=20_000)
    for fact, body in zip(facts, bodies, strict=True):
        text = gzip.decompress(body)
        assert text.endswith(b'"\n')
        assert text.count(b"\n") == fact.rows + (fact.number == 1)


def test_parts_are_about_as_large_as_they_may_be() -> None:
    facts, _ = written(make_batch_lines(60_000), part_bytes=1_500_000)
    assert len(facts) > 2
    assert all(fact.size > 1_300_000 for fact in facts[:-1])


def test_rendering_twice_makes_the_same_bytes() -> None:
    assert written(make_batch_lines(3000)) == written(make_batch_lines(3000))


@pytest.mark.usefixtures("small_members")
def test_going_on_at_a_place_makes_the_same_parts() -> None:
    batches = [list(make_batch_lines(n)) for n in (200, 1, 300)]
    facts, bodies = written(*batches, part_bytes=6_000)
    assert len(facts) > 4
    place, before = (0, 0), 0
    for fact, body in zip(facts, bodies, strict=True):
        members = Members((read_members(rows_file(batch)) for batch in batches[place[0] :]), *place)
        again = io.BytesIO()
        assert write_part(fact.number, members, again, part_bytes=6_000) == fact
        assert again.getvalue() == body
        place, before = members.place, before + fact.rows
    assert before == 501


def test_a_member_too_large_for_any_part_still_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaccinations.formats.dps_columns, "MEMBER_CHARACTERS", 1)
    facts, bodies = written(noise(3, 1), part_bytes=100)
    assert [fact.rows for fact in facts] == [1, 1, 1]
    assert len(bodies) == 3


def test_no_records_make_one_part_with_the_header_alone() -> None:
    (fact,), (body,) = written([])
    assert fact.rows == 0
    assert gzip.decompress(body) == HEADER


def test_rows_are_read_one_member_after_another_not_held() -> None:
    file = rows_file(make_batch_lines(20_000))
    members = Members([read_members(file)])
    write_part(1, members, io.BytesIO(), part_bytes=200_000)
    assert file.tell() < len(file.getvalue()) / 2


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_cut_off_rows_are_never_taken_for_whole_ones(cut: int) -> None:
    with pytest.raises(EOFError):
        list(read_members(io.BytesIO(rows_file(make_batch_lines(300)).getvalue()[:-cut])))


@pytest.mark.parametrize("place", [0, 5, 12, 40, 5_000, -9, -6, -1])
def test_damaged_rows_are_noticed(place: int) -> None:
    body = bytearray(rows_file(make_batch_lines(300)).getvalue())
    body[place] ^= 1
    with pytest.raises((OSError, EOFError)):
        list(read_members(io.BytesIO(bytes(body))))


def test_rows_that_another_program_has_compressed_are_not_joined() -> None:
    text = "".join(map(render_row, make_batch_lines(300))).encode()
    with pytest.raises(OSError, match="not written here"):
        list(read_members(io.BytesIO(gzip.compress(text))))


@given(st.lists(st.integers(0, 20), max_size=4), st.integers(1_500, 20_000), st.integers(0, 10**6))
def test_any_records_in_parts_of_any_size_come_out_whole(counts: list[int], part_bytes: int, seed: int) -> None:
    batches = [noise(count, seed) for count in counts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vaccinations.formats.dps_columns, "MEMBER_CHARACTERS", 2_000)
        facts, bodies = written(*batches, part_bytes=part_bytes)
    whole = b"".join(map(gzip.decompress, bodies))
    assert whole == HEADER + "".join(render_row(text) for batch in batches for text in batch).encode()
    assert all(fact.size <= part_bytes or fact.rows <= 5 for fact in facts)


def test_every_record_of_the_reference_data_is_rendered() -> None:
    for vaccine, dose in itertools.product(VACCINES.values(), [None, *range(1, 10)]):
        for site in [None, *SITES.values()]:
            if site and site.method != vaccine.method:
                continue
            row = rendered(
                programme=vaccine.programme, vaccine=vaccine.key, dose_sequence=dose, site=site.key if site else None
            )
            assert row["VACCINE_PRODUCT_CODE"] == vaccine.product.code
