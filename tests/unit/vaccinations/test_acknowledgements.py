"""What reading DPS's answers promises, whatever they hold: InfAck and BusAck."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.formats.acknowledgements import (
    PATHS,
    AnswerName,
    InfAck,
    Kind,
    RefusedRow,
    UnreadableAnswer,
    fields_at_fault,
    read_bus_ack,
    read_inf_ack,
)
from vaccinations.formats.upload_csv import COLUMNS
from vaccinations.model.export import Arrival

STEM = "Vaccinations-Td-IPV-2026-05-03-2"
INF_HEADER = (
    "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|"
    "RESPONSE_CODE|RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|MESSAGE_DELIVERY\r\n"
)
BUS_HEADER = (
    "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|RESPONSE_CODE|"
    "RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|IMMS_ID|OPERATION_OUTCOME|MESSAGE_DELIVERY\n"
)
RECEIVED = "c1d0e2f4-aaaa|Success|Information|OK|20013|Technical|20013|Success|20260504T03020100|||True\r\n"
REFUSED = (
    "c1d0e2f4-aaaa|Failure|Fatal|Fatal Error|10001|Technical|10002|Infrastructure Level|20260504T03020100|||False\r\n"
)
ARRIVAL = Arrival("c1d0e2f4-aaaa", "20260504T03020100")


def as_csv(*refusals: RefusedRow) -> bytes:
    lines = [
        f"file^{r.row}|Fatal Error|Fatal|Fatal Error|30002|Business|30002|Processing Error|20260504T03020100|"
        f"|{r.local_id}||{r.text}|False\n"
        for r in refusals
    ]
    return (BUS_HEADER + "".join(lines)).encode()


def as_json(*refusals: RefusedRow, failed: int | None = None, summary_first: bool = True, **more: Any) -> bytes:
    failures = [
        {
            "rowId": r.row,
            "responseCode": "30002",
            "severity": "Fatal",
            "localId": r.local_id,
            "operationOutcome": r.text,
        }
        for r in refusals
    ]
    summary = {"totalRecords": 20, "failed": len(refusals) if failed is None else failed, "ingestionTime": {"start": 0}}
    parts: list[tuple[str, Any]] = [("summary", summary), ("failures", failures)]
    head = {"system": "Immunisation FHIR API Batch Report", "version": 1, "filename": STEM}
    return json.dumps(head | dict(parts if summary_first else parts[::-1]) | more, indent=2).encode()


def read(body: bytes) -> list[RefusedRow]:
    return list(read_bus_ack(io.BytesIO(body)))


# --- names


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (f"{STEM}_InfAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.INF_ACK)),
        (f"{STEM}_BusAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.BUS_ACK)),
        (f"{STEM}_BusAck_20260504T03020100.json", AnswerName(STEM.lower(), Kind.BUS_ACK)),
        (f"ack/{STEM}_InfAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.INF_ACK)),
        (f"a/forwardedFile/{STEM}_BusAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.BUS_ACK)),
        (f"C:\\ack\\{STEM}_BusAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.BUS_ACK)),
        (
            "3IN1_VACCINATIONS_V5_R1L_20260503T19000001_busack_20260504T03020100.CSV",
            AnswerName("3in1_vaccinations_v5_r1l_20260503t19000001", Kind.BUS_ACK),
        ),
    ],
)
def test_an_answers_name_tells_what_it_answers_in_either_style_any_case_and_any_folder(
    filename: str, expected: AnswerName
) -> None:
    assert AnswerName.of(filename) == expected


@pytest.mark.parametrize(
    "filename", [None, "", "letter.txt", f"{STEM}.csv", f"{STEM}_BusAck.csv", "_InfAck_1.csv", "ack/"]
)
def test_any_other_name_is_no_answers(filename: str | None) -> None:
    assert AnswerName.of(filename) is None


# --- InfAck


@pytest.mark.parametrize("blank", ["", "\r\n"])
def test_an_infack_says_that_the_file_was_received(blank: str) -> None:
    answer = read_inf_ack(io.BytesIO((INF_HEADER + blank + RECEIVED).encode("utf-8-sig")))
    assert answer == InfAck(received=True, arrival=ARRIVAL)


def test_an_infack_says_that_the_file_was_refused_with_dpss_codes() -> None:
    answer = read_inf_ack(io.BytesIO((INF_HEADER + REFUSED).encode()))
    assert answer == InfAck(received=False, arrival=ARRIVAL, code="10001/10002")


def test_an_infack_of_a_crash_does_not_know_dpss_id_of_the_file() -> None:
    body = INF_HEADER + REFUSED.replace("c1d0e2f4-aaaa", "Unable to ascertain message_id")
    assert read_inf_ack(io.BytesIO(body.encode())).arrival == replace(ARRIVAL, header_id="")


@pytest.mark.parametrize(
    "text",
    [
        "",
        INF_HEADER,
        RECEIVED,
        INF_HEADER + RECEIVED + REFUSED,
        INF_HEADER + RECEIVED.replace("|||", "|"),
        INF_HEADER + RECEIVED.replace("|Success|", "|Perhaps|", 1),
        "\0" * 100,
    ],
)
def test_what_is_no_infack_is_unreadable(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_inf_ack(io.BytesIO(text.encode()))


# --- BusAck

TWO = (
    RefusedRow(2, "a^https://uri", "Validation errors: contained[?(@.resourceType=='Patient')] | of two | parts"),
    RefusedRow(17, "b^https://uri", "No permissions for requested operation"),
)


def test_a_busack_lists_the_rows_that_were_refused() -> None:
    assert read(as_csv(*TWO)) == list(TWO)


def test_a_busack_to_a_file_that_was_processed_whole_lists_none() -> None:
    assert read(as_csv()) == []


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r"), max_size=60)
refusals = st.builds(
    RefusedRow, st.integers(1, 999_999_999), st.text("abcdef^:/.-", max_size=40), st.one_of(texts, st.just("a|b||c|"))
)


class Drip(io.BytesIO):
    """Gives seven bytes at a time."""

    def readinto(self, buffer: Any) -> int:
        return super().readinto(memoryview(buffer)[:7])


@given(st.lists(refusals, max_size=8))
def test_whatever_the_outcomes_say_and_in_what_pieces_an_answer_arrives_it_is_read(listed: list[RefusedRow]) -> None:
    assert read(as_csv(*listed)) == list(read_bus_ack(Drip(as_csv(*listed)))) == listed


def test_a_row_that_is_listed_as_processed_is_not_refused() -> None:
    assert read(as_csv(TWO[0]).replace(b"|30002|Processing", b"|30001|Processing")) == []
    assert read(as_json(TWO[0]).replace(b'"30002"', b'"30001"')) == []


@pytest.mark.parametrize("summary_first", [True, False])
def test_a_busack_as_json_says_the_same_wherever_its_summary_stands(summary_first: bool) -> None:
    assert read(as_json(*TWO, summary_first=summary_first)) == list(TWO)
    assert read(as_json(summary_first=summary_first)) == []


@given(st.lists(refusals, max_size=8), st.booleans())
def test_whatever_the_outcomes_say_json_is_read_in_whatever_pieces_it_arrives(
    listed: list[RefusedRow], summary_first: bool
) -> None:
    body = as_json(*listed, summary_first=summary_first)
    assert read(body) == list(read_bus_ack(Drip(body))) == listed


@pytest.mark.parametrize("summary_first", [True, False])
def test_a_row_that_dps_counted_twice_is_judged_by_the_list(summary_first: bool) -> None:
    assert read(as_json(*TWO, failed=4, summary_first=summary_first)) == list(TWO)
    assert read(as_json(*TWO, TWO[0], failed=3, summary_first=summary_first)) == [*TWO, TWO[0]]
    with pytest.raises(UnreadableAnswer, match="lists 2 failures and counts 1"):
        read(as_json(*TWO, failed=1, summary_first=summary_first))


def test_a_row_is_known_by_its_number_alone_too() -> None:
    assert read(as_csv(TWO[1]).replace(b"file^17|", b"17|")) == [TWO[1]]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"UUID,PERSON_FORENAME\n",
        BUS_HEADER.replace("MESSAGE_DELIVERY", "FORENAME").encode(),
        as_csv(*TWO)[:-5],
        as_csv(*TWO).replace(b"file^17|", b"file|"),
        as_csv(*TWO) + b"a|b|c\n",
        as_csv(*TWO).replace(b"^2|", b"^99999999999999999999|"),
        BUS_HEADER.encode() + b"x" * 3_000_000,
        *(as_json(*TWO)[:n] for n in (1, 40, 200, -1)),
        b'{"FORENAME": "x"}',
        b'{"failures": {}}',
        b'{"failures": ["FORENAME"]}',
        as_json(failed=10),
        as_json(*TWO).replace(b'"rowId": 17', b'"rowId": "FORENAME"'),
        b'{"failures": ["' + b"x" * 3_000_000 + b'"]}',
        b"[" * 100_000,
        b'{"failures": ' + b"[" * 100_000,
    ],
)
def test_what_is_no_whole_busack_is_unreadable_and_not_repeated(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read(body)
    assert "FORENAME" not in str(caught.value)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_either_reads_or_is_unreadable(body: bytes, begun: bool) -> None:
    for beginning in (BUS_HEADER.encode(), b'{"failures": ['):
        with contextlib.suppress(UnreadableAnswer):
            read(beginning * begun + body)
    with contextlib.suppress(UnreadableAnswer):
        read_inf_ack(io.BytesIO(INF_HEADER.encode() * begun + body))


def test_a_json_of_ten_thousand_rows_is_read_in_little_memory() -> None:
    body = as_json(*(RefusedRow(n, f"{n}^https://uri", "Validation errors: lotNumber " * 4) for n in range(1, 10_001)))
    tracemalloc.start()
    rows = sum(1 for _ in read_bus_ack(io.BytesIO(body)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (rows, len(body) > 2_000_000) == (10_000, True)
    assert peak < 700_000


# --- which columns


def patient(path: str) -> str:
    return f"contained[?(@.resourceType=='Patient')].{path}"


@pytest.mark.parametrize(
    ("fault", "column"),
    [
        (patient("name[0].given") + " must be a non-empty string", "PERSON_FORENAME"),
        (patient("name[0].family") + " must be 35 or fewer characters", "PERSON_SURNAME"),
        (patient("birthDate") + ' must be a valid date string in the format "YYYY-MM-DD"', "PERSON_DOB"),
        (patient("gender") + " must be one of the following: male, female, other, unknown", "PERSON_GENDER_CODE"),
        (patient("address[0].postalCode") + " must be a non-empty string", "PERSON_POSTCODE"),
        (patient("identifier[0].value") + " is not a valid NHS number", "NHS_NUMBER"),
        (
            "contained[?(@.resourceType=='Practitioner')].name[0].given must be an array",
            "PERFORMING_PROFESSIONAL_FORENAME",
        ),
        (
            "contained[?(@.resourceType=='Practitioner')].name[0].family must be a string",
            "PERFORMING_PROFESSIONAL_SURNAME",
        ),
        ("occurrenceDateTime must be a valid datetime in one of the following formats …", "DATE_OF_VACCINATION"),
        ("There must be exactly one performer.actor[?@.type=='Organization']", "ORGANISATION_CODE"),
        ("performer[?(@.actor.type=='Organization')].actor.identifier.value is a mandatory field", "ORGANISATION_CODE"),
        ("location.identifier.value must be a non-empty string", "SCHOOL_URN"),
        ("identifier[0].value is a mandatory field", "UUID"),
        ("extension is a mandatory field", "PROGRAMME"),
        ("vaccineCode.coding[?(@.system=='http://snomed.info/sct')].code is not a valid snomed code", "VACCINE_GIVEN"),
        ("manufacturer.display must be a non-empty string", "VACCINE_GIVEN"),
        ("doseQuantity.value must be a number", "VACCINE_GIVEN"),
        ("lotNumber must be a non-empty string", "BATCH_NUMBER"),
        ("expirationDate must be a valid date string", "BATCH_EXPIRY_DATE"),
        ("site.coding[?(@.system=='http://snomed.info/sct')].code must not contain spaces", "ANATOMICAL_SITE"),
        ("route.coding[?(@.system=='http://snomed.info/sct')].code must be a string", "ANATOMICAL_SITE"),
        ("protocolApplied[0].doseNumberPositiveInt must be an integer in the range 1 to 9", "DOSE_SEQUENCE"),
    ],
)
def test_a_fault_that_dps_finds_names_the_column_of_the_upload(fault: str, column: str) -> None:
    [(field, named)] = fields_at_fault(f"Validation errors: {fault}")
    assert named == column
    assert column in COLUMNS[field]
    assert fields_at_fault(f"1 validation error for Immunization {fault}") == [(field, column)]
    assert fields_at_fault(fault) == [(field, column)]


def test_several_faults_name_each_column_once_and_what_is_no_uploads_column_names_none() -> None:
    faults = "lotNumber must be a string; recorded must be a valid datetime; primarySource must be a boolean; "
    faults += "lotNumber is a mandatory field; contained is a mandatory field; expirationDate must be a valid date"
    named = [column for _, column in fields_at_fault(f"Validation errors: {faults}")]
    assert named == ["BATCH_NUMBER", "BATCH_EXPIRY_DATE"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "No permissions for requested operation",
        "The provided identifier: https://uri#1 is duplicated",
        "Immunization resource does not exist. ID: Immunization#1",
        "An unhandled error occurred during batch processing",
    ],
)
def test_a_refusal_for_no_fault_of_the_row_names_no_column(text: str) -> None:
    assert fields_at_fault(text) == []


def test_the_columns_are_ones_that_uploads_have() -> None:
    assert all(COLUMNS[field][0] == column for _, field, column in PATHS)
