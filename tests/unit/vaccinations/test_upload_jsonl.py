"""What reading an upload of JSON lines promises, plain or gzipped."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import tracemalloc
import zlib
from datetime import date
from pathlib import Path
from typing import Any
from uuid import UUID

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from local.sample import sample_upload
from tests.entries import entry_for
from tests.schemas import FOLDER, UPLOAD_LINE
from tests.unit.vaccinations import bad_inputs
from vaccinations.formats import upload_lines
from vaccinations.formats.batches import batch_line
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.model.assumed import Assumed
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.record import VaccinationRecord
from vaccinations.model.row import Faulty, Row, Vaccinated, Withdrawn

CORPUS = Path(__file__).parent / "corpus"
TODAY = date(2026, 3, 10)

GOOD: dict[str, Any] = {
    "uuid": "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "nhs_number": "9992686766",
    "forename": "Brenton",
    "surname": "Waters",
    "date_of_birth": "2012-08-18",
    "gender": "not_known",
    "postcode": "UC0W 0JL",
    "vaccinated_at": "2025-06-09T10:15:00+01:00",
    "programme": "hpv",
    "vaccine": "gardasil_9",
}


#: What a batch line says beside what the uploader stated.
OF_THE_BATCH = {"action", "line", "recorded_on", "digest", "owner", "owned_since", "stated_at"}


def read(body: bytes) -> list[Row]:
    bad_inputs.count()
    return list(read_jsonl(io.BytesIO(body), organisation_code="R1L", today=TODAY))


def lines(*records: dict[str, Any]) -> bytes:
    return b"".join(orjson.dumps(record) + b"\n" for record in records)


def the_row(**changes: Any) -> Row:
    (row,) = read(lines(GOOD | changes))
    return row


def lines_of(kind: type[Row], rows: list[Row]) -> list[int]:
    return [row.line for row in rows if isinstance(row, kind)]


def summary(rows: list[Row]) -> tuple[list[int], list[int], dict[int, list[str]]]:
    """Return the lines of vaccinations and of withdrawals, and the columns of faults by line."""
    bad = {row.line: [problem.column for problem in row.problems] for row in rows if isinstance(row, Faulty)}
    return lines_of(Vaccinated, rows), lines_of(Withdrawn, rows), bad


def test_a_line_is_a_record() -> None:
    row = the_row()
    assert isinstance(row, Vaccinated)
    assert (row.line, row.record_id) == (1, GOOD["uuid"])
    assert row.record.vaccinated_at.isoformat() == "2025-06-09T10:15:00+01:00"


def test_a_record_without_an_organisation_is_the_uploaders() -> None:
    for stated in ({}, {"organisation_code": None}, {"organisation_code": ""}):
        row = the_row(**stated)
        assert isinstance(row, Vaccinated)
        assert row.record.organisation_code == "R1L"
    row = the_row(organisation_code="rx1")
    assert isinstance(row, Vaccinated)
    assert row.record.organisation_code == "RX1"


@pytest.mark.parametrize("said", [{"vaccinated": False}, {"deleted": True}, {"vaccinated": True, "deleted": True}])
def test_a_line_may_withdraw_a_record(said: dict[str, bool]) -> None:
    assert the_row(**said) == Withdrawn(1, GOOD["uuid"])


def test_to_withdraw_a_record_its_uuid_is_enough() -> None:
    assert read(lines({"uuid": GOOD["uuid"].upper(), "deleted": True})) == [Withdrawn(1, GOOD["uuid"])]


def test_a_withdrawal_is_not_held_up_by_other_faults() -> None:
    assert the_row(deleted=True, postcode="nowhere", shoe_size=5) == Withdrawn(1, GOOD["uuid"])


@pytest.mark.parametrize("said", [{"vaccinated": "no"}, {"deleted": 1}, {"deleted": "true"}])
def test_a_doubtful_withdrawal_is_a_fault_not_a_record(said: dict[str, Any]) -> None:
    row = the_row(**said)
    assert isinstance(row, Faulty)
    assert [problem.column for problem in row.problems] == list(said)


@pytest.mark.parametrize("nothing", [None, ""])
def test_any_optional_field_may_be_null_or_empty_text(nothing: str | None) -> None:
    required = {"uuid", "forename", "surname", "date_of_birth", "gender", "programme", "vaccinated_at"}
    for field in {*VaccinationRecord.model_fields, "vaccinated", "deleted"} - required:
        without = {name: value for name, value in GOOD.items() if name != field}
        assert the_row(**{field: nothing}) == read(lines(without))[0], field


@pytest.mark.parametrize("nothing", ["", None])
def test_nothing_in_a_required_field_is_a_fault(nothing: str | None) -> None:
    for field in ("uuid", "forename", "surname", "date_of_birth", "gender", "programme", "vaccinated_at"):
        row = the_row(**{field: nothing})
        assert isinstance(row, Faulty), field
        assert [problem.column for problem in row.problems] == [field]


@pytest.mark.parametrize("written", ["2026-W10-1", "2025W101", "20250609T101500", "20250609", "2025-160", "2025-06"])
def test_a_moment_begins_with_a_date_as_all_dates_are_written(written: str) -> None:
    row = the_row(vaccinated_at=written)
    assert isinstance(row, Faulty)
    assert [problem.column for problem in row.problems] == ["vaccinated_at"]


def test_faults_are_named_by_field() -> None:
    row = the_row(nhs_number="9992686767", surname="", shoe_size=5)
    assert isinstance(row, Faulty)
    assert [problem.column for problem in row.problems] == ["nhs_number", "surname", "shoe_size"]


def test_no_fault_repeats_what_the_line_says() -> None:
    secret = dict.fromkeys(GOOD, "qzxsecret\x00") | {"qzx secret 9434765919": 1, "nhs_number": "9434765910"}
    rows = read(lines(secret) + b'{"surname": "qzxsecret"\n' + b'["qzxsecret"]\n')
    assert len(rows) == 3
    assert all(isinstance(row, Faulty) and row.problems for row in rows)
    assert "secret" not in repr(rows)
    assert "94347659" not in repr(rows)


def test_a_csv_row_and_the_same_as_json_are_one_and_the_same_record() -> None:
    of_csv = [
        row
        for row in read_csv(io.BytesIO(sample_upload(TODAY).csv), organisation_code="R1L", today=TODAY)
        if isinstance(row, Vaccinated)
    ]
    assert of_csv
    for row in of_csv:
        fields = orjson.loads(batch_line(row.record, entry_for(row.record), today=TODAY))
        stated = {name: value for name, value in fields.items() if name not in OF_THE_BATCH}
        (again,) = read(lines(stated))
        assert isinstance(again, Vaccinated)
        assert (again.record, again.digest) == (row.record, row.digest)


@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_gzipped_upload_is_read_as_the_plain_one(level: int) -> None:
    plain = lines(*(GOOD | {"uuid": f"00000000-0000-4000-8000-{n:012}"} for n in range(2000)))
    assert read(gzip.compress(plain, level)) == read(plain)


@pytest.mark.bad_inputs
def test_a_truncated_gzip_is_rejected_wherever_it_was_cut() -> None:
    whole = gzip.compress(lines(*(GOOD | {"surname": f"Waters{n}"} for n in range(20))))
    for size in range(2, len(whole)):
        with pytest.raises(UnreadableUpload, match="cut off"):
            read(whole[:size])


@pytest.mark.bad_inputs
def test_a_gzip_bomb_ends_in_an_answer_and_in_flat_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_lines, "MAX_BYTES", 64 * 2**20)
    compressor = zlib.compressobj(9, wbits=31)
    bomb = b"".join(compressor.compress(b"x" * 2**20) for _ in range(80)) + compressor.flush()
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(UnreadableUpload, match="64 MB"):
        read(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * 2**20


@pytest.mark.bad_inputs
def test_a_bomb_of_lines_ends_in_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_lines, "MAX_LINES", 200_000)
    with pytest.raises(UnreadableUpload, match="200000 lines"):
        read(gzip.compress(b"\n" * 300_000))


@pytest.mark.bad_inputs
def test_a_line_of_thousands_of_unknown_fields_is_answered_in_a_few_words() -> None:
    (row,) = read(lines(GOOD | {f"x{n}": n for n in range(4000)}))
    assert isinstance(row, Faulty)
    assert len(row.problems) == 51
    assert row.problems[-1].what == "has more than 50 faults"


@pytest.mark.bad_inputs
def test_a_line_of_300000_characters_costs_that_line_only() -> None:
    rows = read(lines(GOOD, GOOD | {"surname": "W" * 300_000}, GOOD))
    assert summary(rows) == ([1, 3], [], {2: ["(line)"]})


#: What is accepted, what is withdrawn, and what is wrong in which line; or why the file is unreadable.
JSONL_CORPUS: dict[str, tuple[list[int], list[int], dict[int, list[str]]] | str] = {
    "blank-lines-only.jsonl": "the file is empty",
    "bom-crlf.jsonl": ([1, 2], [], {}),
    "controls.jsonl": ([1, 3, 5], [], {2: ["surname"], 4: ["postcode"]}),
    "damaged.jsonl": "damaged",
    "empty.jsonl": "the file is empty",
    "gzip-header-only.jsonl": "cut off",
    "gzip.jsonl.gz": ([1, 2], [], {}),
    "huge-numbers.jsonl": ([1, 4], [], {2: ["(line)"], 3: ["(line)"]}),
    "lone-surrogate.jsonl": ([1, 3], [], {2: ["(line)"]}),
    "not-json.jsonl": ([1, 8, 12], [], {line: ["(line)"] for line in (2, 3, 4, 5, 6, 7, 9, 10, 11)}),
    "not-utf-8.jsonl": ([1, 3], [], {2: ["(line)"]}),
    "nothing-in-gzip.jsonl": "the file is empty",
    "plain.jsonl": ([1, 2, 4], [], {}),
    "rubbish-after-gzip.jsonl": "gzip",
    "rubbish.jsonl": "binary",
    "the-same-key-twice.jsonl": ([1], [], {}),
    "truncated-trailer.jsonl": "cut off",
    "truncated.jsonl": "cut off",
    "two-members.jsonl": ([1, 2], [], {}),
    "withdrawals.jsonl": ([5], [1, 2, 3], {4: ["uuid"], 6: ["deleted"], 7: ["uuid"]}),
    "workbook.jsonl": "Excel",
    "wrong-checksum.jsonl": "damaged",
    "wrong-types.jsonl": (
        [1],
        [],
        {
            2: ["nhs_number", "forename", "surname", "date_of_birth", "dose_sequence", "site", "vaccinated_at"],
            3: ["shoe_size"],
            4: ["(unknown)"],
        },
    ),
}


def test_every_file_of_the_corpus_is_tried() -> None:
    assert {path.name for path in CORPUS.glob("*.jsonl*")} == set(JSONL_CORPUS)


@pytest.mark.parametrize("name", sorted(JSONL_CORPUS))
@pytest.mark.bad_inputs
def test_a_bad_file_ends_in_an_answer_and_its_good_lines_are_accepted(name: str) -> None:
    body = (CORPUS / name).read_bytes()
    expected = JSONL_CORPUS[name]
    if isinstance(expected, str):
        with pytest.raises(UnreadableUpload) as caught:
            read(body)
        assert expected in caught.value.reason
        assert caught.value.fix
        return
    assert summary(read(body)) == expected


@pytest.mark.parametrize(
    ("changes", "assumed"),
    [
        ({}, []),
        ({"postcode": None}, [Assumed.POSTCODE]),
        ({"postcode": " "}, [Assumed.POSTCODE]),
        ({"vaccinated_at": "2025-06-09"}, [Assumed.TIME]),
        ({"vaccinated_at": "2025-06-09T00:00"}, []),
        ({"vaccinated_at": "2025-06-09 00:00:00.000"}, []),
        ({"dose_sequence": None}, [Assumed.DOSE]),
        ({"programme": "mmrv", "vaccine": "priorix"}, [Assumed.PROGRAMME]),
    ],
)
def test_the_same_is_assumed_as_of_csv_and_told(changes: dict[str, Any], assumed: list[Assumed]) -> None:
    row = the_row(**{"nhs_number": "9992686766", "dose_sequence": 1, **changes})
    assert isinstance(row, Vaccinated)
    assert list(row.assumed) == assumed
    if Assumed.POSTCODE in assumed:
        assert row.record.postcode == "ZZ99 3WZ"


@pytest.mark.parametrize("number", [None, "", " \u200d"])
def test_without_an_nhs_number_a_postcode_is_needed(number: str | None) -> None:
    row = the_row(postcode="", nhs_number=number)
    assert isinstance(row, Faulty)
    assert "postcode" in {problem.column for problem in row.problems}


# -- the schema in the docs

ABSENT = object()
#: Of each field: what has the right form and keeps to every rule; and what has not the right form.
FORMS: dict[str, tuple[list[Any], list[Any]]] = {
    "uuid": ([GOOD["uuid"], GOOD["uuid"].upper()], ["17", "", None, 5, ABSENT]),
    "organisation_code": (["R1L", "", None, ABSENT], [5]),
    "nhs_number": (["9992686766", "", None, ABSENT], [9992686766]),
    "forename": (["Brenton", "B" * 180], ["B" * 181, "", None, 5, ABSENT]),
    "surname": (["Waters", "W" * 35], ["W" * 36, "", None, ["Waters"], ABSENT]),
    "date_of_birth": (["2012-08-18"], ["18/08/2012", "20120818", "2012-02-30", "", None, 20120818, ABSENT]),
    "gender": (["male", "not_known"], ["Male", "not known", "", None, 1, ABSENT]),
    "postcode": (["UC0W 0JL", "", None, ABSENT], [5]),
    "vaccine": (["gardasil_9", "", None, ABSENT], ["Gardasil9", 9]),
    "programme": (["hpv"], ["HPV", "", None, ABSENT]),
    "dose_sequence": ([1, 3, "", None, ABSENT], [0, 10, 1.5, "1", True]),
    "site": (["left_thigh", "", None, ABSENT], ["left thigh", 5]),
    "route": (["intramuscular", "", None, ABSENT], ["oral", False]),
    "vaccinated_at": (
        ["2025-06-09T10:15:00+01:00", "2025-06-09T10:15:00Z", "2025-06-09T10:15", "2025-06-09 10:15:00", "2025-06-09"],
        ["2025-W24-1", "20250609T101500", "09/06/2025", "", None, 20250609, ABSENT],
    ),
    "recorded_on": (["2025-06-09", "", None, ABSENT], ["09/06/2025", "2025-06-09T10:15", 5]),
    "professional_forename": (["Florence", "", None, ABSENT], [5]),
    "professional_surname": (["Gale", "", None, ABSENT], [True]),
    "batch_number": (["CD5472", "", None, ABSENT], ["C", "C-5", 5472]),
    "expiry": (["2026-09-30", "", None, ABSENT], ["30/09/2026", 2026]),
    "school_urn": (["123456", "", None, ABSENT], [123456]),
    "vaccinated": ([True, "", None, ABSENT], ["yes", 1]),
    "deleted": ([False, "", None, ABSENT], ["no", 0]),
    "shoe_size": ([ABSENT], [5, "", None]),
}
SCHEMA = Draft202012Validator(
    orjson.loads((FOLDER / UPLOAD_LINE).read_bytes()), format_checker=Draft202012Validator.FORMAT_CHECKER
)


def changed(*changes: tuple[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (GOOD | dict(changes)).items() if value is not ABSENT}


@pytest.mark.parametrize("field", FORMS)
def test_the_schema_in_the_docs_says_of_each_field_what_is_read_and_what_is_not(field: str) -> None:
    right, wrong = FORMS[field]
    for value in right:
        line = changed((field, value))
        assert SCHEMA.is_valid(line), value
        assert isinstance(*read(lines(line)), Vaccinated), value
    for value in wrong:
        line = changed((field, value))
        assert not SCHEMA.is_valid(line), value
        assert isinstance(*read(lines(line)), Faulty), value


def test_every_field_of_a_line_is_in_the_schema_and_tried() -> None:
    assert {*FORMS} - {"shoe_size"} == {*SCHEMA.schema["properties"]}
    assert {*VaccinationRecord.model_fields} < {*FORMS}


@given(
    st.lists(
        st.sampled_from([(field, value) for field, forms in FORMS.items() for values in forms for value in values]),
        max_size=4,
    ),
    st.sampled_from([{}, {"vaccinated": False}, {"deleted": True}]),
)
def test_a_line_that_keeps_to_the_schema_is_read_and_a_record_that_does_not_is_rejected(
    changes: list[tuple[str, Any]], withdrawal: dict[str, bool]
) -> None:
    line = changed(*changes) | withdrawal
    (row,) = read(lines(line))
    if SCHEMA.is_valid(line):
        assert isinstance(row, Withdrawn if withdrawal else Vaccinated)
    elif not withdrawal:
        assert isinstance(row, Faulty)


def test_by_the_schema_too_a_uuid_is_enough_to_withdraw_a_record() -> None:
    for said in ({"vaccinated": False}, {"deleted": True}):
        assert SCHEMA.is_valid({"uuid": GOOD["uuid"], **said})
        assert not SCHEMA.is_valid(said)
    assert not SCHEMA.is_valid({"uuid": GOOD["uuid"]})


# -- fuzz

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.lists(JSON | st.dictionaries(st.sampled_from([*GOOD, "site", "route", "expiry", "deleted", "vaccinated"]), JSON))
)
@pytest.mark.bad_inputs
def test_whatever_lines_hold_each_is_answered_and_good_ones_are_accepted(values: list[Any]) -> None:
    tried = [GOOD | value if isinstance(value, dict) else value for value in values]
    rows = read(b"\n".join(json.dumps(value).encode() for value in [GOOD, *tried, GOOD]))
    assert len(rows) == len(tried) + 2
    assert isinstance(rows[0], Vaccinated)
    assert isinstance(rows[-1], Vaccinated)
    assert all(row.problems if isinstance(row, Faulty) else UUID(row.record_id) for row in rows)


@given(st.binary(max_size=300), st.sampled_from([b"", b"\x1f\x8b", b"\x1f\x8b\x08\0\0\0\0\0\0\x03", b"{", b'{"uuid":']))
@pytest.mark.bad_inputs
def test_whatever_bytes_an_upload_is_it_is_read_or_rejected(body: bytes, beginning: bytes) -> None:
    with contextlib.suppress(UnreadableUpload):
        read(beginning + body)


@given(st.integers(0, 10**6), st.integers(1, 255))
@pytest.mark.bad_inputs
def test_a_gzip_with_any_byte_damaged_is_read_whole_or_rejected(place: int, change: int) -> None:
    whole = lines(*(GOOD | {"surname": f"Waters{n}"} for n in range(30)))
    body = bytearray(gzip.compress(whole, mtime=0))
    body[place % len(body)] ^= change
    try:
        rows = read(bytes(body))
    except UnreadableUpload:
        return
    # Some bytes of a gzip header mean nothing; and one that does not begin as gzip is not read as gzip.
    assert rows == read(whole) or not lines_of(Vaccinated, rows)
