"""What DPS answers to a file: an InfAck says whether it was taken as a whole, a BusAck which rows were refused.

Answers come from outside and may be of any size, so both are read as streams. What a BusAck says of a row
(OPERATION_OUTCOME) may be personal: it is given on as it is, and to be kept with the answer only.

Source: the public code of the national Immunisation API's batch service, May 2026.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader, TextIOWrapper
from typing import TYPE_CHECKING, Any, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

__all__ = [
    "AnswerName",
    "InfAck",
    "Kind",
    "Outcome",
    "Refusal",
    "UnreadableAnswer",
    "holds_after",
    "read_bus_ack",
    "read_inf_ack",
]

#: No line of an answer, and nothing in a JSON answer, is longer than this.
_MOST_CHARACTERS = 1 << 20
_BLOCK = 1 << 16
_NAME = r"(?P<stem>.+)_(?P<kind>infack|busack)_[0-9t]+\.(?P<format>csv|json)"
_INF_ACK_HEADER = "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|"
_INF_ACK_COLUMNS = 12
_BUS_ACK_COLUMNS = 14
_ROW = r"(?:.*\^)?([0-9]{1,9})"
#: RESPONSE_CODE of a row that was taken, should one ever be listed.
_ROW_TAKEN = "30001"


class UnreadableAnswer(ValueError):
    """An answer is not what DPS's answers look like. The message says where and why, and repeats nothing of it."""


class Kind(StrEnum):
    """What an answer is about."""

    INF_ACK = "InfAck"
    """The file as a whole."""
    BUS_ACK = "BusAck"
    """Its rows."""


class Outcome(StrEnum):
    """Why DPS did not take a row, as far as anything follows from it."""

    DUPLICATE = "duplicate"
    """DPS holds the record already: as good as taken."""
    UNKNOWN = "unknown"
    """An update or a delete of something that DPS does not hold."""
    NOT_PERMITTED = "not-permitted"
    """The sender may not do this."""
    INVALID = "invalid"
    """The row breaks DPS's rules."""
    OTHER = "other"

    @classmethod
    def of(cls, text: str) -> Outcome:
        """Tell the class of an OPERATION_OUTCOME."""
        return next((outcome for pattern, outcome in OUTCOMES if re.match(pattern, text, re.IGNORECASE)), cls.OTHER)

    @property
    def mend(self) -> str:
        """What would be right, for those who uploaded the record."""
        return _MENDS[self]


#: What OPERATION_OUTCOME looks like for each class; the first that fits counts. An outcome of several faults may quote
#: what the row holds, so those that DPS states alone are looked for from the beginning.
OUTCOMES: tuple[tuple[str, Outcome], ...] = (
    (r"\W*the provided identifier: .* is duplicated", Outcome.DUPLICATE),
    (r"\W*immunization resource does not exist", Outcome.UNKNOWN),
    (r"\W*no permissions? for requested operation", Outcome.NOT_PERMITTED),
    (r"\W*validation errors?\b", Outcome.INVALID),
    (r"\W*invalid action_flag\b", Outcome.INVALID),
)

_AS_IT_IS = "the record can be sent again as it is: ask for that where you ask about uploads"
_MENDS = {
    Outcome.DUPLICATE: "nothing: DPS holds the record",
    Outcome.UNKNOWN: _AS_IT_IS,
    Outcome.NOT_PERMITTED: f"a permission that NHS England gives; then {_AS_IT_IS}",
    Outcome.INVALID: "correct the record and upload it again",
    Outcome.OTHER: f"correct the record and upload it again; if nothing is wrong with it, {_AS_IT_IS}",
}


def holds_after(action: str, outcome: Outcome) -> bool:
    """Tell whether DPS holds a record after it has refused a row about it.

    A record that it does not hold must go out as `new`, one that it holds as `update`.
    """
    if action == "new":
        return outcome is Outcome.DUPLICATE
    return outcome is not Outcome.UNKNOWN


@dataclass(frozen=True, slots=True)
class AnswerName:
    """What the name of an answer tells.

    Attributes
    ----------
    stem
        The name of the file that it answers, without its extension, in lower case: DPS compares names so.
    """

    stem: str
    kind: Kind
    is_json: bool

    @classmethod
    def of(cls, filename: str | None) -> AnswerName | None:
        """Read a file name; None where it is not that of an answer."""
        if not (match := re.fullmatch(_NAME, filename or "", re.IGNORECASE)):
            return None
        kind = Kind.INF_ACK if match["kind"].lower() == "infack" else Kind.BUS_ACK
        return cls(match["stem"].lower(), kind, is_json=match["format"].lower() == "json")


@dataclass(frozen=True, slots=True)
class InfAck:
    """Whether a file was taken as a whole.

    Attributes
    ----------
    code
        DPS's codes where it was not (ISSUE_DETAILS_CODE/RESPONSE_CODE), letters and digits only.
    """

    taken: bool
    code: str = ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that was refused.

    Attributes
    ----------
    row
        Its place in the file; the first data row is 1.
    local_id
        The record that it is about, ``{UNIQUE_ID}^{UNIQUE_ID_URI}``.
    text
        Why (OPERATION_OUTCOME). It may be personal.
    """

    row: int
    local_id: str
    text: str


def read_inf_ack(body: BinaryIO) -> InfAck:
    """Read an InfAck.

    Raises
    ------
    UnreadableAnswer
        It is none.
    """
    lines = [line.rstrip("\r\n").split("|") for line in _lines(body)]
    lines = [cells for cells in lines if cells != [""]]
    if len(lines) != 2 or not "|".join(lines[0]).startswith(_INF_ACK_HEADER):
        raise UnreadableAnswer("an InfAck has a header and one row")
    cells = [cell.strip().strip('"') for cell in lines[1]]
    if len(cells) != _INF_ACK_COLUMNS:
        raise UnreadableAnswer(f"the row has {len(cells)} columns, not {_INF_ACK_COLUMNS}")
    match cells[1].lower():
        case "success":
            return InfAck(taken=True)
        case "failure":
            codes = (re.sub(r"[^0-9A-Za-z]", "", cells[n])[:20] for n in (4, 6))
            return InfAck(taken=False, code="/".join(codes))
    raise UnreadableAnswer("HEADER_RESPONSE_CODE is neither Success nor Failure")


def read_bus_ack(body: BinaryIO, *, is_json: bool) -> Iterator[Refusal]:
    """Read the rows that a BusAck refuses, in a stream.

    Raises
    ------
    UnreadableAnswer
        It is no BusAck, or not a whole one. What was read before that does not count.
    """
    return _read_json(body) if is_json else _read_csv(body)


def _lines(body: BinaryIO) -> Iterator[str]:
    buffered = BufferedReader(cast("RawIOBase", body), _BLOCK)
    number = 0
    while line := buffered.readline(_MOST_CHARACTERS):
        number += 1
        if len(line) == _MOST_CHARACTERS:
            raise UnreadableAnswer(f"line {number} is longer than {_MOST_CHARACTERS} bytes")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace")


def _read_csv(body: BinaryIO) -> Iterator[Refusal]:
    """Read the CSV form: never quoted, and the outcome may hold a bar, so it lies between what is fixed."""
    ended = False
    for number, line in enumerate(_lines(body), start=1):
        ended = line.endswith("\n")
        cells = line.rstrip("\r\n").split("|")
        if len(cells) < _BUS_ACK_COLUMNS:
            raise UnreadableAnswer(f"line {number} has {len(cells)} columns, not {_BUS_ACK_COLUMNS}")
        if number == 1:
            if cells[0] != "MESSAGE_HEADER_ID" or cells[-1] != "MESSAGE_DELIVERY":
                raise UnreadableAnswer("it begins with another header than a BusAck's")
            continue
        row = _row(cells[0], f"line {number}")
        if cells[6] != _ROW_TAKEN:
            yield Refusal(row, cells[10], "|".join(cells[12:-1]))
    if not ended:
        raise UnreadableAnswer("it is empty, or cut off")


def _read_json(body: BinaryIO) -> Iterator[Refusal]:
    reader = _JsonReader(body)
    failed = listed = None
    reader.expect("{")
    while reader.peek() != "}":
        name = reader.value()
        reader.expect(":")
        if name == "failures":
            listed = 0
            for failure in reader.elements():
                listed += 1
                if (refusal := _refusal(failure, listed)) is not None:
                    yield refusal
        else:
            value = reader.value()
            if name == "summary" and isinstance(value, dict):
                failed = value.get("failed")
        if reader.peek() != "}":
            reader.expect(",")
    if listed is None:
        raise UnreadableAnswer("it does not list failures")
    if isinstance(failed, int) and failed != listed:
        raise UnreadableAnswer(f"it lists {listed} failures and counts {failed}")


def _refusal(failure: Any, number: int) -> Refusal | None:
    if not isinstance(failure, dict):
        raise UnreadableAnswer(f"failure {number} is no object")
    row = _row(str(failure.get("rowId", "")), f"failure {number}")
    if str(failure.get("responseCode")) == _ROW_TAKEN:
        return None
    # JSON can say halves of characters, which nothing else can.
    local_id, text = (
        str(failure.get(name, "")).encode(errors="replace").decode() for name in ("localId", "operationOutcome")
    )
    return Refusal(row, local_id, text)


def _row(header_id: str, where: str) -> int:
    """Read a row's number, as such or as ``{DPS's id of the file}^{row number}``."""
    if not (match := re.fullmatch(_ROW, header_id)):
        raise UnreadableAnswer(f"{where} does not say which row it is about")
    return int(match[1])


class _JsonReader:
    """Reads a JSON document value by value, holding no more of it than one value at a time."""

    def __init__(self, body: BinaryIO) -> None:
        self._text = TextIOWrapper(
            BufferedReader(cast("RawIOBase", body), _BLOCK), encoding="utf-8-sig", errors="replace", newline=""
        )
        self._ready = ""
        self._at = 0
        self._decode = json.JSONDecoder().raw_decode

    def peek(self) -> str:
        """Return the next character that is not space; none at the end."""
        while True:
            while self._at < len(self._ready) and self._ready[self._at] in " \t\r\n":
                self._at += 1
            if self._at < len(self._ready):
                return self._ready[self._at]
            self._ready, self._at = self._text.read(_BLOCK), 0
            if not self._ready:
                return ""

    def expect(self, character: str) -> None:
        """Pass over a character that has to come next."""
        if self.peek() != character:
            raise UnreadableAnswer("it is no JSON object, or not a whole one")
        self._at += 1

    def value(self) -> Any:
        """Read the value that comes next."""
        self.peek()
        more = True
        while True:
            try:
                value, end = self._decode(self._ready, self._at)
            except (ValueError, RecursionError):
                end = len(self._ready)
                value = None
                if not more:
                    raise UnreadableAnswer("it is no JSON object, or not a whole one") from None
            # A number at the end of what is ready may go on.
            if end < len(self._ready) or not more:
                self._at = end
                return value
            self._ready = self._ready[self._at :]
            self._at = 0
            if len(self._ready) > _MOST_CHARACTERS:
                raise UnreadableAnswer(f"a value is longer than {_MOST_CHARACTERS} characters")
            block = self._text.read(_BLOCK)
            more = bool(block)
            self._ready += block

    def elements(self) -> Iterator[Any]:
        """Read the elements of the array that comes next, one by one."""
        self.expect("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.expect(",")
        self.expect("]")
