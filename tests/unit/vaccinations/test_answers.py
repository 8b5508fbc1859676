"""Promises of reading DPS's answers: InfAck and BusAck, as CSV and as JSON, whatever they hold."""

from __future__ import annotations

import contextlib
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.formats.acknowledgements import (
    AnswerName,
    Kind,
    Outcome,
    Refusal,
    UnreadableAnswer,
    holds_after,
    read_bus_ack,
    read_inf_ack,
)

STEM = "Vaccinations-Td-IPV-2026-05-03-2"
INF_HEADER = (
    "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|"
    "RESPONSE_CODE|RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|MESSAGE_DELIVERY\r\n"
)
BUS_HEADER = (
    "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|RESPONSE_CODE|"
    "RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|IMMS_ID|OPERATION_OUTCOME|MESSAGE_DELIVERY\n"
)
TAKEN = "id|Success|Information|OK|20013|Technical|20013|Success|20260504T03020100|||True\r\n"
FAILED = "id|Failure|Fatal|Fatal Error|10001|Technical|10002|Infrastructure Level|20260504T03020100|||False\r\n"


def as_csv(*refusals: Refusal) -> bytes:
    lines = [
        f"file^{r.row}|Fatal Error|Fatal|Fatal Error|30002|Business|30002|Processing Error|20260504T03020100|"
        f"|{r.local_id}||{r.text}|False\n"
        for r in refusals
    ]
    return (BUS_HEADER + "".join(lines)).encode()


def as_json(*refusals: Refusal, **changes: Any) -> bytes:
    document = {
        "system": "Immunisation FHIR API Batch Report",
        "version": 1,
        "filename": STEM,
        "summary": {"totalRecords": 300, "succeeded": 300 - len(refusals), "failed": len(refusals)},
        "failures": [
            {"rowId": r.row, "responseCode": "30002", "localId": r.local_id, "operationOutcome": r.text}
            for r in refusals
        ],
    }
    return json.dumps(document | changes).encode()


def read(body: bytes, *, is_json: bool = False) -> list[Refusal]:
    return list(read_bus_ack(io.BytesIO(body), is_json=is_json))


# --- names


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        (f"{STEM}_InfAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.INF_ACK, is_json=False)),
        (f"{STEM}_BusAck_20260504T03020100.csv", AnswerName(STEM.lower(), Kind.BUS_ACK, is_json=False)),
        (f"{STEM}_BusAck_20260504T03020100.json", AnswerName(STEM.lower(), Kind.BUS_ACK, is_json=True)),
        (
            "3IN1_VACCINATIONS_V5_R1L_20260503T19000001_busack_20260504T03020100.CSV",
            AnswerName("3in1_vaccinations_v5_r1l_20260503t19000001", Kind.BUS_ACK, is_json=False),
        ),
    ],
)
def test_an_answers_name_tells_what_it_answers_in_either_style_and_any_case(
    filename: str, expected: AnswerName
) -> None:
    assert AnswerName.of(filename) == expected


@pytest.mark.parametrize("filename", [None, "", "letter.txt", f"{STEM}.csv", f"{STEM}_BusAck.csv", "_InfAck_1.csv"])
def test_any_other_name_is_no_answers(filename: str | None) -> None:
    assert AnswerName.of(filename) is None


# --- InfAck


def test_an_infack_says_that_the_file_was_taken() -> None:
    assert read_inf_ack(io.BytesIO((INF_HEADER + TAKEN).encode())).taken


def test_an_infack_says_that_the_file_was_refused_with_dpss_codes() -> None:
    answer = read_inf_ack(io.BytesIO((INF_HEADER + FAILED).encode()))
    assert (answer.taken, answer.code) == (False, "10001/10002")


@pytest.mark.parametrize(
    "text",
    [
        "",
        INF_HEADER,
        TAKEN,
        INF_HEADER + TAKEN + FAILED,
        INF_HEADER + TAKEN.replace("|||", "|"),
        INF_HEADER + TAKEN.replace("|Success|", "|Perhaps|", 1),
        "\0" * 100,
    ],
)
def test_what_is_no_infack_is_not_taken_for_one(text: str) -> None:
    with pytest.raises(UnreadableAnswer):
        read_inf_ack(io.BytesIO(text.encode()))


# --- BusAck

TWO = (
    Refusal(2, "a^https://uri", "Validation errors: contained[?(@.resourceType=='Patient')] | of two | parts"),
    Refusal(17, "b^https://uri", "No permissions for requested operation"),
)


@pytest.mark.parametrize("is_json", [False, True])
def test_a_busack_lists_the_rows_that_were_refused(is_json: bool) -> None:
    assert read(as_json(*TWO) if is_json else as_csv(*TWO), is_json=is_json) == list(TWO)


@pytest.mark.parametrize("is_json", [False, True])
def test_a_busack_to_a_file_that_was_taken_lists_none(is_json: bool) -> None:
    assert read(as_json() if is_json else as_csv(), is_json=is_json) == []


texts = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\n\r"), max_size=60)
refusals = st.builds(
    Refusal, st.integers(1, 999_999_999), st.text("abcdef^:/.-", max_size=40), st.one_of(texts, st.just("a|b||c|"))
)


@given(st.lists(refusals, max_size=8))
def test_csv_and_json_agree_whatever_the_outcomes_say(listed: list[Refusal]) -> None:
    assert read(as_csv(*listed)) == read(as_json(*listed), is_json=True) == listed


@given(st.lists(refusals, max_size=4), st.integers(1, 5), st.booleans())
def test_how_a_json_answer_is_written_and_in_what_pieces_it_arrives_does_not_matter(
    listed: list[Refusal], indent: int, last: bool
) -> None:
    document = json.loads(as_json(*listed))
    if last:
        document = dict(reversed(document.items()))
    text = json.dumps(document, indent=indent, ensure_ascii=last) + "\n"

    class Drip(io.BytesIO):
        def readinto(self, buffer: Any) -> int:
            return super().readinto(memoryview(buffer)[:7])

    assert list(read_bus_ack(Drip(text.encode()), is_json=True)) == listed


def test_a_row_that_is_listed_as_taken_is_not_refused() -> None:
    assert read(as_csv(TWO[0]).replace(b"|30002|Processing", b"|30001|Processing")) == []
    assert read(as_json(TWO[0]).replace(b'"30002"', b'"30001"'), is_json=True) == []


def test_halves_of_characters_in_json_become_whole_ones() -> None:
    [refusal] = read(as_json(Refusal(1, "a", "x")).replace(b'"x"', b'"\\ud800"'), is_json=True)
    assert refusal.text == "?"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"UUID,PERSON_FORENAME\n",
        as_csv(*TWO)[:-5],
        as_csv(*TWO).replace(b"file^17|", b"file|"),
        as_csv(*TWO) + b"a|b|c\n",
        as_csv(*TWO).replace(b"^2|", b"^99999999999999999999|"),
        BUS_HEADER.encode() + b"x" * 3_000_000,
    ],
    ids=["empty", "other columns", "cut off", "no row", "short row", "row too large", "endless line"],
)
def test_a_csv_that_is_no_whole_busack_is_refused_without_repeating_it(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read(body)
    assert "FORENAME" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b"nonsense",
        as_json(*TWO)[:-30],
        as_json(*TWO, failures="none"),
        as_json(*TWO, failures=[1]),
        as_json(*TWO, failures=[{"rowId": "one"}]),
        as_json(*TWO, summary={"failed": 3}),
        b'{"failures": ' + b"[" * 200_000,
        b'{"failures": ["' + b"x" * 3_000_000,
        b'{"failures": [' + b"9" * 100_000,
    ],
    ids=lambda body: f"{body[:25]!r}-{len(body)}",
)
def test_a_json_that_is_no_whole_busack_is_refused(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer):
        read(body, is_json=True)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_either_reads_or_is_refused(body: bytes, is_json: bool) -> None:
    with contextlib.suppress(UnreadableAnswer):
        read(body, is_json=is_json)


# --- outcomes


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("The provided identifier: https://uri#496e37d8 is duplicated", Outcome.DUPLICATE),
        ("Immunization resource does not exist. ID: https://uri#496e37d8", Outcome.UNKNOWN),
        ("No permissions for requested operation", Outcome.NOT_PERMITTED),
        ("Validation errors: contained[?(@.resourceType=='Patient')].birthDate", Outcome.INVALID),
        ("Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'", Outcome.INVALID),
        ("Validation errors: 'Immunization resource does not exist' is no name", Outcome.INVALID),
        ("Unhandled error", Outcome.OTHER),
        ("", Outcome.OTHER),
    ],
)
def test_an_outcome_has_a_class(text: str, outcome: Outcome) -> None:
    assert Outcome.of(text) is outcome


def test_whether_dps_holds_a_record_follows_from_what_it_refused() -> None:
    held = {(action, outcome) for action in ("new", "update", "delete") for outcome in Outcome}
    not_held = {(action, outcome) for action, outcome in held if not holds_after(action, outcome)}
    assert not_held == {
        *(("new", outcome) for outcome in Outcome if outcome is not Outcome.DUPLICATE),
        ("update", Outcome.UNKNOWN),
        ("delete", Outcome.UNKNOWN),
    }
