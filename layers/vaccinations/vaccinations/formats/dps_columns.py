"""Records on their way to DPS: lines of batch objects, and DPS files in gzipped parts.

A *batch line* is one JSON object: what is to become of a record at DPS, and the record as its uploader stated it.
A *row* is that record in the 34 columns of the DPS file, where all that follows from the statement is filled in: the
procedure, the route, the place. Rows differ in little but what is personal, so everything that comes from reference
data is quoted once and kept as ready segments.

Rows are rendered and compressed once, when a batch is written, into *members* of a gzip file. An export joins the
members of its batches to parts as they are, so that its cost is that of copying (`Member`).

Nothing is validated here; `vaccinations.model.record` did that when the record was taken in.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from zoneinfo import ZoneInfo

import orjson
from isal import igzip, isal_zlib
from isal.igzip_lib import IsalError

from vaccinations.model.programmes import (
    DOSE_UNIT,
    GENDERS,
    PROGRAMMES,
    ROUTES,
    SITES,
    URIS,
    VACCINES,
    Concept,
    method_of,
    route_of,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import date

    from vaccinations.model.record import VaccinationRecord

__all__ = [
    "COLUMNS",
    "HEADER",
    "Member",
    "Members",
    "PartFacts",
    "RowsWriter",
    "batch_line",
    "local_id_of",
    "read_batch",
    "read_members",
    "render_row",
    "uk_time",
    "write_part",
]

COLUMNS = (
    "NHS_NUMBER",
    "PERSON_FORENAME",
    "PERSON_SURNAME",
    "PERSON_DOB",
    "PERSON_GENDER_CODE",
    "PERSON_POSTCODE",
    "DATE_AND_TIME",
    "SITE_CODE",
    "SITE_CODE_TYPE_URI",
    "UNIQUE_ID",
    "UNIQUE_ID_URI",
    "ACTION_FLAG",
    "PERFORMING_PROFESSIONAL_FORENAME",
    "PERFORMING_PROFESSIONAL_SURNAME",
    "RECORDED_DATE",
    "PRIMARY_SOURCE",
    "VACCINATION_PROCEDURE_CODE",
    "VACCINATION_PROCEDURE_TERM",
    "DOSE_SEQUENCE",
    "VACCINE_PRODUCT_CODE",
    "VACCINE_PRODUCT_TERM",
    "VACCINE_MANUFACTURER",
    "BATCH_NUMBER",
    "EXPIRY_DATE",
    "SITE_OF_VACCINATION_CODE",
    "SITE_OF_VACCINATION_TERM",
    "ROUTE_OF_VACCINATION_CODE",
    "ROUTE_OF_VACCINATION_TERM",
    "DOSE_AMOUNT",
    "DOSE_UNIT_CODE",
    "DOSE_UNIT_TERM",
    "INDICATION_CODE",
    "LOCATION_CODE",
    "LOCATION_CODE_TYPE_URI",
)
HEADER = ("|".join(f'"{column}"' for column in COLUMNS) + "\n").encode()

_LONDON = ZoneInfo("Europe/London")
#: The offsets that DPS knows, and how it writes them.
_ZONES: dict[timedelta | None, str] = {timedelta(0): "00", timedelta(hours=1): "01"}

#: How large a part may become, compressed: MESH takes 100 MB at a time.
PART_BYTES = 80_000_000
#: So many characters of rows are compressed to a member; parts are cut between members.
MEMBER_CHARACTERS = 2**20
_BLOCK = 256 * 1024
#: How a gzip stream begins here: deflate, no name, no time, system unknown (RFC 1952).
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_TAIL = 10
#: isal's fastest level: a tenth more bytes than zlib's default in a tenth of the time.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part of a DPS file.

    Attributes
    ----------
    number
        Counted from 1.
    rows
        Records in it; the header is not counted.
    size
        Compressed size in bytes.
    sha256
        Of the compressed bytes, in hex.
    """

    number: int
    rows: int
    size: int
    sha256: str


def batch_line(
    record: VaccinationRecord, *, action: str, line: int, recorded_on: date, digest: str | None = None
) -> bytes:
    """Write a record as a line of a batch object.

    Parameters
    ----------
    action
        ``new``, ``update`` or ``delete``.
    line
        The line of the upload that the record came from.
    recorded_on
        When the record was made, where it does not state that itself.
    digest
        Digest of what the uploader stated, where the line is to hold it.

    Returns
    -------
    bytes
        One flat JSON object and a line end: ``action``, ``line``, ``digest`` if given, and those of the record's fields
        that state something.
    """
    held: dict[str, Any] = {"action": action, "line": line, "recorded_on": recorded_on}
    if digest is not None:
        held["digest"] = digest
    held |= {name: value for name, value in vars(record).items() if value is not None}
    return orjson.dumps(held, option=orjson.OPT_APPEND_NEWLINE)


def render_row(line: bytes | dict[str, Any]) -> str:
    r"""Render a batch line, or what it holds, as a row of the DPS file, with its line end.

    The same as `csv.writer` writes with ``delimiter="|"``, ``quoting=QUOTE_ALL`` and ``lineterminator="\n"``.
    """
    # This runs once for every record of a night: hence no helper for each column.
    record: dict[str, Any] = line if isinstance(line, dict) else orjson.loads(line)
    if record is line or b"\\" in line:  # JSON writes a quote with a backslash; few lines hold any
        record = {name: _doubled(value) for name, value in record.items()}
    get = record.get
    vaccination = _vaccination(
        record["programme"],
        get("vaccine"),
        get("dose_sequence"),
        get("site"),
        get("route"),
        get("batch_number"),
        get("expiry"),
    )
    school = get("school_urn")
    return (
        f'"{get("nhs_number") or ""}"|"{record["forename"]}"|"{record["surname"]}"'
        f'|"{record["date_of_birth"].replace("-", "")}"|"{_GENDER_CODES[record["gender"]]}"|"{record["postcode"]}"'
        f'|"{_date_and_time(record["vaccinated_at"])}"|"{record["organisation_code"]}"|{_ODS_URI}'
        f'|"{record["uuid"]}"|{_RECORD_URI}|"{record["action"]}"'
        f'|"{get("professional_forename") or ""}"|"{get("professional_surname") or ""}"'
        f'|"{record["recorded_on"].replace("-", "")}"|{vaccination}'
        f"|{_PLACE_UNKNOWN if school in _NO_SCHOOL else f'"{school}"|{_SCHOOL_URI}'}\n"
    )


def local_id_of(record_id: str) -> str:
    """Return how DPS's answers name a record, ``{UNIQUE_ID}^{UNIQUE_ID_URI}`` (dps-acks, LOCAL_ID)."""
    return f"{record_id}^{URIS['vaccination_record']}"


def uk_time(moment: datetime) -> datetime:
    """Turn a moment into one that DPS takes, which knows only GMT and BST (dps-csv, DATE_AND_TIME).

    One at either offset keeps its clock time; one at another offset is turned into London time; one without an offset
    is London time, and where the clock shows the same hour twice, in autumn, the first of the two (BST).
    """
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=_LONDON)
    elif moment.utcoffset() not in _ZONES:
        moment = moment.astimezone(_LONDON)
    # London itself was at other offsets in the 1940s.
    return moment if moment.utcoffset() in _ZONES else moment.astimezone(UTC)


class Members:
    """The members of several batches, one after another, with a look at the next.

    Parameters
    ----------
    batches
        The members of each batch, from batch ``batch`` on.
    batch, member
        Where to begin, both counted from 0.

    Attributes
    ----------
    next
        The member that comes next; None at the end.
    place
        Where that is, so that another may go on there: the numbers of its batch and of itself in the batch.
    """

    next: Member | None
    place: tuple[int, int]

    def __init__(self, batches: Iterable[Iterable[Member]], batch: int = 0, member: int = 0) -> None:
        self.place = (batch, member)
        self._rest = (
            (found, (b, m))
            for b, members in enumerate(batches, batch)
            for m, found in enumerate(members)
            if (b, m) >= (batch, member)
        )
        self.advance()

    def advance(self) -> None:
        """Go on to the member after the next."""
        self.next, self.place = next(self._rest, (None, self.place))


def write_part(number: int, members: Members, file: BinaryIO, *, part_bytes: int = PART_BYTES) -> PartFacts:
    """Put members together to a part of a DPS file, as many as it holds, in one gzip stream.

    The parts, uncompressed and put together, are the DPS file: the header is in part 1 only. What is compressed is
    not compressed again: the members' streams are joined, as they are, to one.

    Parameters
    ----------
    number
        The part's, from 1.
    part_bytes
        How large the part may become, compressed. It holds at least one member, even if that alone is larger.
    """
    part = _Part(file)
    if number == 1:
        part.write(_compressed(HEADER, 0))
    rows = 0
    while members.next and (not rows or part.has_room(members.next, part_bytes)):
        part.write(members.next)
        rows += members.next.rows
        members.advance()
    part.close()
    return PartFacts(number, rows, part.size, part.sha256.hexdigest())


def read_batch(stream: BinaryIO) -> Iterator[bytes]:
    """Read the lines of a gzipped batch object, in a stream.

    Raises
    ------
    EOFError
        The object is cut off.
    OSError
        It is not a batch object, or damaged.
    """
    with igzip.IGzipFile(fileobj=stream, mode="rb") as batch:
        yield from batch


class RowsWriter:
    """Writes rows, as they come, to a gzip file of members: what `read_members` reads and `write_part` joins.

    Parameters
    ----------
    file
        Where to; it is the caller's to close.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[str] = []
        self._characters = 0

    def write(self, row: str) -> None:
        """Add a row."""
        self._rows.append(row)
        self._characters += len(row)
        if self._characters >= MEMBER_CHARACTERS:
            self.finish()

    def finish(self) -> None:
        """Write what is left."""
        if self._rows:
            self._file.write(_compressed("".join(self._rows).encode(), len(self._rows)).gzip())
            self._rows.clear()
            self._characters = 0


def read_members(stream: BinaryIO) -> Iterator[Member]:
    """Read what `RowsWriter` wrote, one member at a time, each checked against its checksum.

    Raises
    ------
    EOFError
        The object is cut off.
    OSError
        It was not written by `RowsWriter`, or is damaged.
    """
    block = b""
    while block := block or stream.read(_BLOCK):
        inflate = isal_zlib.decompressobj(wbits=31)
        blocks, texts = [block], [_inflated(inflate, block)]
        while not inflate.eof:
            if not (block := stream.read(_BLOCK)):
                raise EOFError("the rows of a batch are cut off")
            blocks.append(block)
            texts.append(_inflated(inflate, block))
        block = inflate.unused_data
        gzip = b"".join(blocks)
        gzip = gzip[: len(gzip) - len(block)]
        text = b"".join(texts)
        member = Member(gzip[len(_GZIP) : -_TAIL], text, text.count(b"\n"))
        if member.gzip() != gzip:
            raise OSError("the rows of a batch are damaged, or were not written here")
        yield member


def _inflated(inflate: Any, block: bytes) -> bytes:
    try:
        text: bytes = inflate.decompress(block)
    except cast("type[Exception]", IsalError):
        raise OSError("the rows of a batch are damaged") from None
    return text


@dataclass(frozen=True, slots=True)
class Member:
    """Some rows, compressed so that they can stand anywhere in a gzip stream.

    Attributes
    ----------
    deflated
        A run of deflate blocks which refers to nothing before it, ends on a byte and does not end the stream (RFC
        1951; what zlib calls a full flush).
    text
        The rows themselves.
    rows
        How many they are.
    """

    deflated: bytes
    text: bytes
    rows: int

    def gzip(self) -> bytes:
        """Return the member as a gzip file of its own."""
        return _GZIP + self.deflated + _trailer(isal_zlib.crc32(self.text), len(self.text))


def _compressed(text: bytes, rows: int) -> Member:
    compressor = isal_zlib.compressobj(_LEVEL, wbits=-15)
    return Member(compressor.compress(text) + compressor.flush(isal_zlib.Z_FULL_FLUSH), text, rows)


def _trailer(crc: int, length: int) -> bytes:
    """End a gzip stream: with an empty last block, the checksum and the length (RFC 1952)."""
    return b"\x03\x00" + struct.pack("<II", crc, length % 2**32)


class _Part:
    """A part being written: one gzip stream, joined of members."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = file
        self._crc = 0
        self._length = 0
        self._put(_GZIP)

    def has_room(self, member: Member, limit: int) -> bool:
        return self.size + len(member.deflated) + _TAIL <= limit

    def write(self, member: Member) -> None:
        self._put(member.deflated)
        self._crc = isal_zlib.crc32(member.text, self._crc)
        self._length += len(member.text)

    def close(self) -> None:
        self._put(_trailer(self._crc, self._length))

    def _put(self, compressed: bytes) -> None:
        self._file.write(compressed)
        self.sha256.update(compressed)
        self.size += len(compressed)


def _doubled(value: Any) -> Any:
    return value.replace('"', '""') if isinstance(value, str) else value


def _date_and_time(iso: str) -> str:
    if len(iso) == len("2023-06-09T00:00:00"):
        hour, zone = _hour_in_london(iso[:13])
        return f"{hour}{iso[14:16]}{iso[17:]}{zone}"
    moment = uk_time(datetime.fromisoformat(iso))
    return f"{moment:%Y%m%dT%H%M%S}{_ZONES[moment.utcoffset()]}"


@lru_cache(maxsize=1024)
def _hour_in_london(iso: str) -> tuple[str, str]:
    """Return an hour as DPS writes it, and its zone: London's clocks change on the hour."""
    moment = uk_time(datetime.fromisoformat(iso))
    return f"{moment:%Y%m%dT%H}", _ZONES[moment.utcoffset()]


@lru_cache(maxsize=2048)
def _vaccination(
    programme_key: str,
    vaccine_key: str | None,
    dose: int | None,
    site_key: str | None,
    route_key: str | None,
    batch_number: str | None,
    expiry: str | None,
) -> str:
    """Quote columns 15 to 31. They differ little: a night's vaccines come from a few batches."""
    programme = PROGRAMMES[programme_key]
    dose = programme.dose(dose)
    procedure = programme.procedure(method_of(vaccine_key, site_key, route_key), dose)
    vaccine = VACCINES[vaccine_key] if vaccine_key else None
    product = vaccine.product if vaccine else _UNKNOWN
    site = SITES[site_key].concept if site_key else _UNKNOWN
    route = ROUTES[implied] if (implied := route_key or route_of(site_key)) else _UNKNOWN
    return _quoted(
        "TRUE",
        procedure.code,
        procedure.term,
        str(dose or ""),
        product.code,
        product.term,
        vaccine.manufacturer if vaccine else "",
        batch_number or "",
        (expiry or "").replace("-", ""),
        site.code,
        site.term,
        route.code,
        route.term,
        vaccine.dose_volume_ml if vaccine else "",
        DOSE_UNIT.code,
        DOSE_UNIT.term,
        "",
    )


def _quoted(*values: str) -> str:
    """Quote values in which no quote is left to be doubled."""
    return "|".join(f'"{value}"' for value in values)


_UNKNOWN = Concept("", "")
_GENDER_CODES = {key: gender.code for key, gender in GENDERS.items()}
_ODS_URI = _quoted(URIS["ods_organisation"])
_SCHOOL_URI = _quoted(URIS["school_urn"])
_RECORD_URI = _quoted(URIS["vaccination_record"])
#: School numbers that name no school: unknown school, home educated.
_NO_SCHOOL = {None, "", "888888", "999999"}
_PLACE_UNKNOWN = f'"X99999"|{_ODS_URI}'
