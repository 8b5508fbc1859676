"""The receiving batch service's rules of names and rows, written from what is known of them; nothing here is ours."""

from __future__ import annotations

import csv
import io
import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["disease_of", "faults_of", "faults_of_file", "verhoeff_holds"]

#: The first line of a file, word by word.
_HEADER = (
    "NHS_NUMBER|PERSON_FORENAME|PERSON_SURNAME|PERSON_DOB|PERSON_GENDER_CODE|PERSON_POSTCODE|DATE_AND_TIME|SITE_CODE|"
    "SITE_CODE_TYPE_URI|UNIQUE_ID|UNIQUE_ID_URI|ACTION_FLAG|PERFORMING_PROFESSIONAL_FORENAME|"
    "PERFORMING_PROFESSIONAL_SURNAME|RECORDED_DATE|PRIMARY_SOURCE|VACCINATION_PROCEDURE_CODE|"
    "VACCINATION_PROCEDURE_TERM|DOSE_SEQUENCE|VACCINE_PRODUCT_CODE|VACCINE_PRODUCT_TERM|VACCINE_MANUFACTURER|"
    "BATCH_NUMBER|EXPIRY_DATE|SITE_OF_VACCINATION_CODE|SITE_OF_VACCINATION_TERM|ROUTE_OF_VACCINATION_CODE|"
    "ROUTE_OF_VACCINATION_TERM|DOSE_AMOUNT|DOSE_UNIT_CODE|DOSE_UNIT_TERM|INDICATION_CODE|LOCATION_CODE|"
    "LOCATION_CODE_TYPE_URI"
)

_DISEASES = (
    *("3IN1", "4IN1", "6IN1", "BCG", "COVID", "FLU", "HEPB", "HIB", "HIBMENC", "HPV", "MENACWY", "MENB", "MMR", "MMRV"),
    *("PERTUSSIS", "PNEUMOCOCCAL", "ROTAVIRUS", "RSV", "SHINGLES"),
)
#: Those of the suppliers; for Mavis it is V0V8L.
_ODS_CODES = ("V0V8L", "YGM41", "YGJ", "YGA", "X26", "X8E5B", "YGMYW", "8HK48", "8HA94", "0DE", "0DF", "8J1100001")

_MANDATORY = (
    *("PERSON_FORENAME", "PERSON_SURNAME", "PERSON_DOB", "PERSON_GENDER_CODE", "PERSON_POSTCODE", "DATE_AND_TIME"),
    *("SITE_CODE", "SITE_CODE_TYPE_URI", "UNIQUE_ID", "UNIQUE_ID_URI", "RECORDED_DATE", "PRIMARY_SOURCE"),
    *("VACCINATION_PROCEDURE_CODE", "LOCATION_CODE", "LOCATION_CODE_TYPE_URI"),
)
_CODED = (
    *("VACCINATION_PROCEDURE_CODE", "VACCINE_PRODUCT_CODE", "SITE_OF_VACCINATION_CODE", "ROUTE_OF_VACCINATION_CODE"),
    *("DOSE_UNIT_CODE", "INDICATION_CODE"),
)
_GENDERS = {"0", "1", "2", "9", "male", "female", "other", "unknown"}


def disease_of(name: str) -> str:
    """Return the disease that a file's name says, and that its rows are taken for; empty where the name is refused."""
    found = re.fullmatch(
        r"([A-Z0-9]+)_VACCINATIONS_V5_([A-Z0-9]+)_([0-9]{8}T[0-9]{6})0[01](_[^./]*)?\.(CSV|DAT)", name.upper()
    )
    if not found or found[1] not in _DISEASES or found[2] not in _ODS_CODES:
        return ""
    try:
        datetime.strptime(found[3], "%Y%m%dT%H%M%S")  # noqa: DTZ007
    except ValueError:
        return ""
    return found[1]


def faults_of_file(name: str | None, body: bytes, now: datetime) -> list[str]:
    """Return what the receiver would refuse of a file at a moment: its name, its header, the columns of its rows."""
    if not name or not disease_of(name):
        return ["name"]
    try:
        lines = csv.reader(io.StringIO(body.decode("utf-8"), newline=""), delimiter="|", strict=True)
        header, *rows = lines
    except (UnicodeDecodeError, ValueError, csv.Error):
        return ["file"]
    if "|".join(header) != _HEADER:
        return ["header"]
    wrong = []
    for number, cells in enumerate(rows, 1):
        row = dict(zip(header, cells, strict=False))
        if len(cells) != len(header) or any(len(cell) > 131_072 for cell in cells):
            wrong.append(f"{number}: cells")
        elif row["ACTION_FLAG"].lower() == "delete":  # of which nothing else counts
            wrong += [f"{number}: {column}" for column in ("UNIQUE_ID", "UNIQUE_ID_URI") if not row[column].strip()]
        else:
            wrong += [f"{number}: {column}" for column in faults_of(row, now)]
    return wrong if rows else ["no rows"]


def faults_of(row: Mapping[str, str], now: datetime) -> list[str]:
    """Return the columns of a row that the receiver would refuse at a moment."""
    today = now.astimezone(UTC).date()
    wrong = {column for column in _MANDATORY if not row[column].strip()}
    wrong |= {column for column, text in row.items() if text and not text.strip()}
    wrong |= {
        column for column in _CODED if row[column] != " ".join(row[column].split(" ")).strip() or "  " in row[column]
    }
    checks = {
        "NHS_NUMBER": not row["NHS_NUMBER"] or _is_nhs_number(row["NHS_NUMBER"]),
        "PERSON_FORENAME": len(row["PERSON_FORENAME"]) <= 180,
        "PERSON_SURNAME": len(row["PERSON_SURNAME"]) <= 35,
        "PERSON_DOB": (born := _date(row["PERSON_DOB"])) is not None and born <= today,
        "PERSON_GENDER_CODE": row["PERSON_GENDER_CODE"] in _GENDERS,
        "DATE_AND_TIME": (given := _moment(row["DATE_AND_TIME"])) is not None and given <= now,
        "ACTION_FLAG": row["ACTION_FLAG"].lower() in {"new", "update", "delete"},
        "RECORDED_DATE": (recorded := _date(row["RECORDED_DATE"])) is not None and recorded <= today,
        "PRIMARY_SOURCE": row["PRIMARY_SOURCE"].lower() in {"true", "false"},
        "VACCINATION_PROCEDURE_CODE": _is_snomed(row["VACCINATION_PROCEDURE_CODE"]),
        "VACCINE_PRODUCT_CODE": not row["VACCINE_PRODUCT_CODE"] or _is_snomed(row["VACCINE_PRODUCT_CODE"]),
        "DOSE_SEQUENCE": re.fullmatch("[1-9]?", row["DOSE_SEQUENCE"]) is not None,
        "EXPIRY_DATE": not row["EXPIRY_DATE"] or _date(row["EXPIRY_DATE"]) is not None,
        "DOSE_AMOUNT": re.fullmatch(r"([0-9]+(\.[0-9]+)?)?", row["DOSE_AMOUNT"]) is not None,
    }
    return sorted(wrong | {column for column, right in checks.items() if not right})


def _is_nhs_number(text: str) -> bool:
    if not re.fullmatch("[0-9]{10}", text):
        return False
    check = 11 - sum(int(digit) * (10 - place) for place, digit in enumerate(text[:9])) % 11
    return check != 10 and check % 11 == int(text[9])


def _date(text: str) -> date | None:
    try:
        plain = re.fullmatch("[0-9]{8}", text) is not None
        dashed = re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text) is not None
        return datetime.strptime(text, "%Y%m%d" if plain else "%Y-%m-%d").date() if plain or dashed else None  # noqa: DTZ007
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    if re.fullmatch("[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        day = _date(text)
        return datetime(day.year, day.month, day.day, tzinfo=UTC) if day else None
    if iso := re.fullmatch(r"([0-9-]{10}T[0-9:]{8})(\.[0-9]{1,6})?\+(00|01):00", text):
        text = iso[1].replace("-", "").replace(":", "") + iso[3]
    found = re.fullmatch("([0-9]{8}T[0-9]{6})(00|01)?", text)
    try:
        bare = datetime.strptime(found[1], "%Y%m%dT%H%M%S") if found else None  # noqa: DTZ007
    except ValueError:
        return None
    return bare.replace(tzinfo=timezone(timedelta(hours=int((found and found[2]) or 0)))) if bare else None


def _is_snomed(code: str) -> bool:
    return re.fullmatch("[1-9][0-9]{5,17}", code) is not None and code[-3:-1] in {"00", "10"} and verhoeff_holds(code)


def verhoeff_holds(code: str) -> bool:
    """Check a SNOMED CT identifier's last digit (Verhoeff: the dihedral group of order ten)."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 + (0 if b < 5 else 5) if b < 5 else (a + b - 5) % 5 + 5
        return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5

    permutations = [list(range(10))]
    for _ in range(7):
        permutations.append([permutations[-1][digit] for digit in (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)])
    total = 0
    for place, digit in enumerate(reversed(code)):
        total = times(total, permutations[place % 8][int(digit)])
    return total == 0
