"""Records on their way to DPS: lines of batch objects, and DPS files in gzipped parts.

A *batch line* is one JSON object: what is to become of a record at DPS, and the record as its uploader stated it.
A *row* is that record in the 34 columns of the DPS file, where all that follows from the statement is filled in: the
procedure, the route, the place. Rows differ in little but what is personal, so everything that comes from reference
data is quoted once and kept as ready segments.

Nothing is validated here; `dps.records` did that when the record was taken in.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any, BinaryIO
from zoneinfo import ZoneInfo

import orjson
from isal import igzip, isal_zlib

from dps.programmes import (
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
    from collections.abc import Callable, Iterable, Iterator
    from datetime import date

    from dps.records import VaccinationRecord

__all__ = [
    "COLUMNS",
    "HEADER",
    "PartFacts",
    "batch_line",
    "read_batch",
    "render_row",
    "uk_time",
    "write_parts",
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

#: Rows are compressed in blocks of about this many bytes; what one comes to is known before the next is begun.
_BLOCK = 256 * 1024
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


def write_parts(
    lines: Iterable[bytes], open_part: Callable[[int], BinaryIO], *, part_bytes: int = 80_000_000
) -> Iterator[PartFacts]:
    """Render batch lines as a DPS file, gzipped and cut into parts, each of them a gzip file of its own.

    The parts, uncompressed and put together, are the DPS file: the header is in the first part only.

    Parameters
    ----------
    open_part
        Opens the file that part ``number`` is written to; it is closed here, before the part's facts are yielded, so
        that the caller can do away with one part before the next is begun.
    part_bytes
        How large a part may become, compressed. A part holds at least one row, even if that alone is larger.

    Yields
    ------
    PartFacts
        Of each part, as soon as it is complete.
    """
    blocks = _blocks(lines, min(_BLOCK, part_bytes // 8))
    block = next(blocks, None)
    number = 0
    while block is not None or number == 0:
        number += 1
        with open_part(number) as file:
            part = _Part(file)
            if number == 1:
                part.write(HEADER, 0)
            while block is not None and (not part.rows or part.has_room(block[0], part_bytes)):
                part.write(*block)
                block = next(blocks, None)
            facts = part.close(number)
        yield facts


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


class _Part:
    """A part being written. The compressor is flushed after every block, so that the size is always known."""

    def __init__(self, file: BinaryIO) -> None:
        self.rows = 0
        self._file = file
        self._size = 0
        self._sha256 = hashlib.sha256()
        self._gzip = isal_zlib.compressobj(_LEVEL, wbits=31)

    def has_room(self, data: bytes, limit: int) -> bool:
        """Tell whether some more data will surely fit: it never grows by more than this in compression."""
        return self._size + len(data) + len(data) // 1000 + 128 <= limit

    def write(self, data: bytes, rows: int) -> None:
        self._put(self._gzip.compress(data) + self._gzip.flush(isal_zlib.Z_SYNC_FLUSH))
        self.rows += rows

    def close(self, number: int) -> PartFacts:
        self._put(self._gzip.flush())
        return PartFacts(number, self.rows, self._size, self._sha256.hexdigest())

    def _put(self, compressed: bytes) -> None:
        self._file.write(compressed)
        self._sha256.update(compressed)
        self._size += len(compressed)


def _blocks(lines: Iterable[bytes], size: int) -> Iterator[tuple[bytes, int]]:
    """Gather rendered rows to blocks of about a size; yield each with the number of its rows."""
    rows: list[bytes] = []
    length = 0
    for line in lines:
        row = render_row(line).encode()
        rows.append(row)
        length += len(row)
        if length >= size:
            yield b"".join(rows), len(rows)
            rows.clear()
            length = 0
    if rows:
        yield b"".join(rows), len(rows)


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
