"""What reading DPS's answers promises, whatever they hold: InfAck and BusAck."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.formats.acknowledgements import (
    AnswerName,
    InfAck,
    Kind,
    RefusedRow,
    UnreadableAnswer,
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
RECEIVED = "id|Success|Information|OK|20013|Technical|20013|Success|20260504T03020100|||True\r\n"
REFUSED = "id|Failure|Fatal|Fatal Error|10001|Technical|10002|Infrastructure Level|20260504T03020100|||False\r\n"


def as_csv(*refusals: RefusedRow) -> bytes:
    lines = [
        f"file^{r.row}|Fatal Error|Fatal|Fatal Error|30002|Business|30002|Processing Error|20260504T03020100|"
        f"|{r.local_id}||{r.text}|False\n"
        for r in refusals
    ]
    return (BUS_HEADER + "".join(lines)).encode()


def read(body: bytes) -> list[RefusedRow]:
    return list(read_bus_ack(io.BytesIO(body)))


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


@pytest.mark.parametrize("blank", ["", "\r\n"])
def test_an_infack_says_that_the_file_was_received(blank: str) -> None:
    assert read_inf_ack(io.BytesIO((INF_HEADER + blank + RECEIVED).encode("utf-8-sig"))) == InfAck(received=True)


def test_an_infack_says_that_the_file_was_refused_with_dpss_codes() -> None:
    answer = read_inf_ack(io.BytesIO((INF_HEADER + REFUSED).encode()))
    assert answer == InfAck(received=False, code="10001/10002")


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
    ],
    ids=["empty", "other columns", "another header", "cut off", "no row", "short row", "row too large", "endless line"],
)
def test_what_is_no_whole_busack_is_unreadable_and_not_repeated(body: bytes) -> None:
    with pytest.raises(UnreadableAnswer) as caught:
        read(body)
    assert "FORENAME" not in str(caught.value)


@given(st.binary(max_size=200), st.booleans())
def test_whatever_comes_either_reads_or_is_unreadable(body: bytes, begun: bool) -> None:
    with contextlib.suppress(UnreadableAnswer):
        read(BUS_HEADER.encode() * begun + body)
    with contextlib.suppress(UnreadableAnswer):
        read_inf_ack(io.BytesIO(INF_HEADER.encode() * begun + body))
