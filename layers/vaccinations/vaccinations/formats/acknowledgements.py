"""What DPS answers to a file: an InfAck about the file as a whole, a BusAck about its rows (docs/dps-answers.md).

Answers come from outside and may be of any size, so both are read as streams. What a BusAck says of a row
(OPERATION_OUTCOME) may be personal: keep it with the answer only.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from io import BufferedReader, TextIOWrapper
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from vaccinations.model.export import Arrival

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

__all__ = [
    "PATHS",
    "AnswerName",
    "InfAck",
    "Kind",
    "RefusedRow",
    "UnreadableAnswer",
    "fields_at_fault",
    "read_bus_ack",
    "read_inf_ack",
]

#: No line of an answer, and no value of one as JSON, is longer than this.
_MOST_BYTES = 1 << 20
#: So many characters of JSON are read at a time.
_BLOCK = 1 << 16
_NAME = re.compile(
    r"(?P<stem>.+)_(?P<kind>infack(?=_[0-9t]+\.csv)|busack)_[0-9t]+\.(csv|json)",
    re.IGNORECASE,
)
_INF_ACK_HEADER = "MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|"
_INF_ACK_COLUMNS = 12
_BUS_ACK_COLUMNS = 14
#: A row's number, as such or as ``{DPS's id of the file}^{row number}``.
_ROW = re.compile(r"(?:.*\^)?([0-9]{1,9})")
#: DPS's id of a file that has arrived.
_ID = re.compile(r"[0-9A-Za-z-]{1,64}")
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
    """

    stem: str
    kind: Kind

    @classmethod
    def of(cls, filename: str | None) -> AnswerName | None:
        """Read a file name; None where it is not that of an answer.

        DPS keeps answers in folders (``ack/``, ``forwardedFile/``), which may stand before the name.
        """
        if not (match := _NAME.fullmatch((filename or "").replace("\\", "/").rpartition("/")[2])):
            return None
        return cls(match["stem"].lower(), Kind.INF_ACK if match["kind"].lower() == "infack" else Kind.BUS_ACK)


@dataclass(frozen=True, slots=True)
class InfAck:
    """Whether DPS has received a file, or refused it as a whole.

    Attributes
    ----------
    arrival
        Which arrival of the file it is about.
    code
        DPS's codes where it refused it (ISSUE_DETAILS_CODE/RESPONSE_CODE), letters and digits only.
    """

    received: bool
    arrival: Arrival
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
    # A crash has words in place of the id: "Unable to ascertain message_id".
    arrival = Arrival(cells[0] if _ID.fullmatch(cells[0]) else "", re.sub(r"[^0-9T]", "", cells[8])[:20])
    match cells[1].lower():
        case "success":
            return InfAck(received=True, arrival=arrival)
        case "failure":
            codes = (re.sub(r"[^0-9A-Za-z]", "", cells[n])[:20] for n in (4, 6))
            return InfAck(received=False, arrival=arrival, code="/".join(codes))
    raise UnreadableAnswer("HEADER_RESPONSE_CODE is neither Success nor Failure")


def read_bus_ack(body: BinaryIO) -> Iterator[RefusedRow]:
    """Read the rows that a BusAck, as CSV or as JSON, says were refused, in a stream. A row may be listed twice.

    Raises
    ------
    UnreadableAnswer
        It is no BusAck, or not a whole one. What was read before that does not count.
    """
    buffered = BufferedReader(cast("RawIOBase", body))
    start = buffered.peek(1)[:4].removeprefix(b"\xef\xbb\xbf").lstrip()
    return _read_json(buffered) if start.startswith(b"{") else _read_csv(buffered)


def _read_csv(body: BufferedReader[Any]) -> Iterator[RefusedRow]:
    """Read the CSV. Nothing in it is quoted, and the outcome may hold a bar: it lies between fixed columns."""
    number = 0
    for number, line in enumerate(_lines(body, whole=True), start=1):
        cells = line.split("|")
        if len(cells) < _BUS_ACK_COLUMNS:
            raise UnreadableAnswer(f"line {number} has {len(cells)} columns, not {_BUS_ACK_COLUMNS}")
        if number == 1:
            if cells[0] != "MESSAGE_HEADER_ID" or cells[-1] != "MESSAGE_DELIVERY":
                raise UnreadableAnswer("it begins with another header than a BusAck's")
        else:
            row = _row(cells[0], f"line {number}")
            if cells[6] != _PROCESSED:
                yield RefusedRow(row, cells[10], "|".join(cells[12:-1]))
    if number == 0:
        raise UnreadableAnswer("it is empty")


def _read_json(body: BufferedReader[Any]) -> Iterator[RefusedRow]:
    """Read the JSON, whose summary may stand before or after the rows.

    The rows count. What the summary counts as failed may be more, since DPS may count a row several times; it is never
    less, and where some have failed, some are listed.
    """
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
                if not isinstance(failure, dict):
                    raise UnreadableAnswer(f"failure {listed} is no object")
                row = _row(str(failure.get("rowId", "")), f"failure {listed}")
                if str(failure.get("responseCode")) != _PROCESSED:
                    # JSON can say halves of characters, which nothing else can.
                    local_id, text = (str(failure.get(name, "")) for name in ("localId", "operationOutcome"))
                    yield RefusedRow(row, *(said.encode(errors="replace").decode() for said in (local_id, text)))
        else:
            value = reader.value()
            if name == "summary" and isinstance(value, dict):
                failed = value.get("failed")
        if reader.peek() != "}":
            reader.expect(",")
    if listed is None:
        raise UnreadableAnswer("it does not list failures")
    if isinstance(failed, int) and (failed < listed or failed > 0 == listed):
        raise UnreadableAnswer(f"it lists {listed} failures and counts {failed}")


class _JsonReader:
    """Reads a JSON document value by value, and holds no more of it than one.

    json decodes the values. ijson is not used: of its readers, the one in C ends the process at a number of five
    thousand digits, and the one in Python takes a minute over a hundred thousand brackets.
    """

    def __init__(self, body: BufferedReader[Any]) -> None:
        self._text = TextIOWrapper(body, encoding="utf-8-sig", errors="replace", newline="")
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
        while True:
            try:
                value, end = self._decode(self._ready, self._at)
            except (ValueError, RecursionError):
                value, end = None, None
            # A number at the end of what is ready may go on.
            if end is not None and end < len(self._ready):
                self._at = end
                return value
            more = self._text.read(_BLOCK)
            if not more:
                raise UnreadableAnswer("it is no JSON object, or not a whole one")
            self._ready, self._at = self._ready[self._at :] + more, 0
            if len(self._ready) > _MOST_BYTES:
                raise UnreadableAnswer(f"a value is longer than {_MOST_BYTES} characters")

    def elements(self) -> Iterator[Any]:
        """Read the elements of the array that comes next, one by one."""
        self.expect("[")
        while self.peek() != "]":
            yield self.value()
            if self.peek() != "]":
                self.expect(",")
        self.expect("]")


def _row(text: str, where: str) -> int:
    if not (match := _ROW.fullmatch(text)):
        raise UnreadableAnswer(f"{where} does not say which row it is about")
    return int(match[1])


#: How DPS names what is wrong in a row, the field of a record that it comes from, and what uploads call its column.
PATHS: tuple[tuple[str, str, str], ...] = (
    (r"contained\S*'Patient'\S*\.given", "forename", "PERSON_FORENAME"),
    (r"contained\S*'Patient'\S*\.family", "surname", "PERSON_SURNAME"),
    (r"contained\S*'Patient'\S*\.birthDate", "date_of_birth", "PERSON_DOB"),
    (r"contained\S*'Patient'\S*\.gender", "gender", "PERSON_GENDER_CODE"),
    (r"contained\S*'Patient'\S*\.address", "postcode", "PERSON_POSTCODE"),
    (r"contained\S*'Patient'\S*\.identifier", "nhs_number", "NHS_NUMBER"),
    (r"contained\S*'Practitioner'\S*\.given", "professional_forename", "PERFORMING_PROFESSIONAL_FORENAME"),
    (r"contained\S*'Practitioner'\S*\.family", "professional_surname", "PERFORMING_PROFESSIONAL_SURNAME"),
    (r"occurrenceDateTime", "vaccinated_at", "DATE_OF_VACCINATION"),
    (r"performer|There must be exactly one performer", "organisation_code", "ORGANISATION_CODE"),
    (r"location", "school_urn", "SCHOOL_URN"),
    (r"identifier", "uuid", "UUID"),
    (r"extension", "programme", "PROGRAMME"),
    (r"vaccineCode|manufacturer|doseQuantity", "vaccine", "VACCINE_GIVEN"),
    (r"lotNumber", "batch_number", "BATCH_NUMBER"),
    (r"expirationDate", "expiry", "BATCH_EXPIRY_DATE"),
    (r"site\b|route\b", "site", "ANATOMICAL_SITE"),
    (r"protocolApplied\S*doseNumber", "dose_sequence", "DOSE_SEQUENCE"),
)
#: What stands before the paths in what DPS says of a row that breaks its rules.
_BEFORE_PATHS = re.compile(r"\W*(validation errors?: |[0-9]+ validation errors? for immunization )", re.IGNORECASE)


def fields_at_fault(text: str) -> list[tuple[str, str]]:
    """Tell which fields of a record DPS finds something wrong with: each by its name, and by its column in uploads.

    Parameters
    ----------
    text
        What DPS says of the row (OPERATION_OUTCOME). Where it names nothing that an upload holds, none are returned.
    """
    found: dict[tuple[str, str], None] = {}
    for fault in _BEFORE_PATHS.sub("", text, count=1).split("; "):
        for pattern, field, column in PATHS:
            if re.match(pattern, fault):
                found[field, column] = None
                break
    return list(found)


def _lines(body: BinaryIO, *, whole: bool = False) -> Iterator[str]:
    """Read lines without their ends; a file that has to be whole ends with a line end."""
    buffered = body if isinstance(body, BufferedReader) else BufferedReader(cast("RawIOBase", body))
    number = 0
    while line := buffered.readline(_MOST_BYTES):
        number += 1
        if len(line) == _MOST_BYTES:
            raise UnreadableAnswer(f"line {number} is longer than {_MOST_BYTES} bytes")
        if whole and not line.endswith(b"\n"):
            raise UnreadableAnswer("it is cut off")
        yield line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").rstrip("\r\n")
