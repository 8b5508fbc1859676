"""The rows of a DPS file: 34 columns (docs/dps-file.md).

A row is a batch line (`vaccinations.formats.batches`) in which all that follows from the statement is filled in: the
procedure, the route, the place. Rows differ in little but what is personal, so everything that comes from reference
data is quoted once and kept as ready segments.

Whoever changes what a row looks like reads docs/dps-parts.md first: rows are kept in the bucket (`ROWS_VERSION`).
"""

from __future__ import annotations

from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson

from vaccinations.model.london import uk_time
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

__all__ = ["COLUMNS", "HEADER", "ROWS_VERSION", "local_id_of", "render_row"]

#: Of what rows look like: one more whenever a record is rendered in another way than before, be it by this code or by
#: the reference data. Rows that bear another version are not sent but rendered anew (docs/dps-parts.md).
ROWS_VERSION = 1

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

#: The offsets that DPS knows, and how it writes them.
_ZONES: dict[timedelta | None, str] = {timedelta(0): "00", timedelta(hours=1): "01"}


def render_row(line: bytes | dict[str, Any]) -> str:
    r"""Render a batch line, or its fields, as a row of the DPS file, with its line end.

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
    """Return how DPS's answers name a record, ``{UNIQUE_ID}^{UNIQUE_ID_URI}`` (docs/dps-answers.md)."""
    return f"{record_id}^{URIS['vaccination_record']}"


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
