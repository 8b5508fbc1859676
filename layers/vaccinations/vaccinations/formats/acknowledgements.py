"""What DPS answers to a file: an InfAck about the file as a whole, a BusAck about its rows (docs/dps-answers.md).

Answers come from outside and may be of any size, so both are read as streams. What a BusAck says of a row
(OPERATION_OUTCOME) may be personal: keep it with the answer only.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

__all__ = ["AnswerName", "InfAck", "Kind", "RefusedRow", "UnreadableAnswer", "read_bus_ack", "read_inf_ack"]

#: No line of an answer is longer than this.
_MOST_BYTES = 1 << 20
_NAME = re.compile(
    r"(?P<stem>.+)_(?P<kind>infack|busack)_[0-9t]+\.(?P<format>csv|json)",
    re.IGNORECASE,
)
_INF_ACK_HEADER = "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|"
_INF_ACK_COLUMNS = 12
_BUS_ACK_COLUMNS = 14
#: A row's number, as such or as ``{DPS's id of the file}^{row number}``.
_ROW = re.compile(r"(?:.*\^)?([0-9]{1,9})")
#: RESPONSE_CODE of a row that was processed, should one ever be listed.
_PROCESSED = "30001"


class UnreadableAnswer(ValueError):
    """An answer is not what DPS's answers look like. The message says where and why, and repeats nothing of it."""


class Kind(StrEnum):
    """What an answer is about."""

    INF_ACK = "InfAck"
    """The file as a whole."""
    BUS_ACK = "BusAck"
    """Its rows."""


@dataclass(frozen=True, slots=True)
class AnswerName:
    """What the name of an answer tells.

    Attributes
    ----------
    stem
        The name of the file that it answers, without its extension, in lower case.
    is_json
        It says as JSON what another answer says as CSV: there is nothing to read in it.
    """

    stem: str
    kind: Kind
    is_json: bool

    @classmethod
    def of(cls, filename: str | None) -> AnswerName | None:
        """Read a file name; None where it is not that of an answer."""
        if not (match := _NAME.fullmatch(filename or "")):
            return None
        kind = Kind.INF_ACK if match["kind"].lower() == "infack" else Kind.BUS_ACK
        return cls(match["stem"].lower(), kind, is_json=match["format"].lower() == "json")


@dataclass(frozen=True, slots=True)
class InfAck:
    """Whether DPS has received a file, or refused it as a whole.

    Attributes
    ----------
    code
        DPS's codes where it refused it (ISSUE_DETAILS_CODE/RESPONSE_CODE), letters and digits only.
    """

    received: bool
    code: str = ""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that DPS refused.

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
    lines = [line for line in _lines(body) if line]
    if len(lines) != 2 or not lines[0].startswith(_INF_ACK_HEADER):
        raise UnreadableAnswer("an InfAck has a header and one row")
    cells = [cell.strip().strip('"') for cell in lines[1].split("|")]
    if len(cells) != _INF_ACK_COLUMNS:
        raise UnreadableAnswer(f"the row has {len(cells)} columns, not {_INF_ACK_COLUMNS}")
    match cells[1].lower():
        case "success":
            return InfAck(received=True)
        case "failure":
            codes = (re.sub(r"[^0-9A-Za-z]", "", cells[n])[:20] for n in (4, 6))
            return InfAck(received=False, code="/".join(codes))
    raise UnreadableAnswer("HEADER_RESPONSE_CODE is neither Success nor Failure")


def read_bus_ack(body: BinaryIO) -> Iterator[RefusedRow]:
    """Read the rows that a BusAck, as CSV, says were refused, in a stream.

    Nothing in it is quoted, and the outcome may hold a bar: it lies between columns whose number is fixed.

    Raises
    ------
    UnreadableAnswer
        It is no BusAck, or not a whole one. What was read before that does not count.
    """
    number = 0
    for number, line in enumerate(_lines(body, whole=True), start=1):
        cells = line.split("|")
        if len(cells) < _BUS_ACK_COLUMNS:
            raise UnreadableAnswer(f"line {number} has {len(cells)} columns, not {_BUS_ACK_COLUMNS}")
        if number == 1:
            if cells[0] != "MESSAGE_HEADER_ID" or cells[-1] != "MESSAGE_DELIVERY":
                raise UnreadableAnswer("it begins with another header than a BusAck's")
        elif not (match := _ROW.fullmatch(cells[0])):
            raise UnreadableAnswer(f"line {number} does not say which row it is about")
        elif cells[6] != _PROCESSED:
            yield RefusedRow(int(match[1]), cells[10], "|".join(cells[12:-1]))
    if number == 0:
        raise UnreadableAnswer("it is empty")


def _lines(body: BinaryIO, *, whole: bool = False) -> Iterator[str]:
    """Read lines without their ends; a file that has to be whole ends with a line end."""
    buffered = BufferedReader(cast("RawIOBase", body))
    number = 0
    while line := buffered.readline(_MOST_BYTES):
        number += 1
        if len(line) == _MOST_BYTES:
            raise UnreadableAnswer(f"line {number} is longer than {_MOST_BYTES} bytes")
        if whole and not line.endswith(b"\n"):
            raise UnreadableAnswer("it is cut off")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").rstrip("\r\n")
