"""What DPS finds wrong with a file's name and with a row, in DPS's words: the rules of its stand-in on this machine.

They are the national Immunisation API's, as far as a sender can tell (docs/dps-file.md).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta, timezone
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PERMISSIONS", "SUPPLIERS", "TYPES", "crashes_at", "faults_of", "type_and_supplier"]

#: The vaccine types that a file's name may say.
TYPES = frozenset(
    {
        *("3IN1", "4IN1", "6IN1", "BCG", "COVID", "FLU", "HEPB", "HIB", "HIBMENC", "HPV", "MENACWY", "MENB", "MMR"),
        *("MMRV", "PERTUSSIS", "PNEUMOCOCCAL", "ROTAVIRUS", "RSV", "SHINGLES"),
    }
)
#: The suppliers of systems, by the ODS codes that DPS has registered for them.
SUPPLIERS = {
    "V0V8L": "MAVIS",
    "YGM41": "EMIS",
    "YGJ": "EMIS",
    "YGA": "TPP",
    "X26": "RAVS",
    "X8E5B": "RAVS",
    "YGMYW": "MEDICUS",
    "8HK48": "SONAR",
    "8HA94": "EVA",
    "0DE": "AGEM-NIVS",
    "0DF": "NIMS",
    "8J1100001": "PINNACLE",
}
#: What a supplier may do with a type: Create, Read, Update, Delete, Search.
PERMISSIONS: Mapping[str, Mapping[str, str]] = {
    "MAVIS": dict.fromkeys(("3IN1", "FLU", "HPV", "MENACWY", "MMR", "MMRV"), "CRUDS")
}

_DAY = re.compile(r"[0-9]{8}|[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
_STAMP = re.compile(r"([0-9]{8}T[0-9]{6})(00|01)?")
_ISO = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?\+0[01]:00")
_ZONES = {"00": UTC, "01": timezone(timedelta(hours=1))}
_PATIENT = "contained[?(@.resourceType=='Patient')]"
_SNOMED = "coding[?(@.system=='http://snomed.info/sct')].code"
_PROCEDURE = f"extension[0].valueCodeableConcept.{_SNOMED}"
_ORGANISATION = "performer[?(@.actor.type=='Organization')].actor.identifier"
_MOMENT = 'must be a valid datetime in one of the following formats: "YYYYMMDDThhmmss00", "YYYYMMDDThhmmss01"'
_DATE = 'must be a valid date string in the format "YYYY-MM-DD"'

#: Columns that must not be empty.
_MANDATORY = {
    "PERSON_FORENAME": f"{_PATIENT}.name[0].given",
    "PERSON_SURNAME": f"{_PATIENT}.name[0].family",
    "PERSON_DOB": f"{_PATIENT}.birthDate",
    "PERSON_GENDER_CODE": f"{_PATIENT}.gender",
    "PERSON_POSTCODE": f"{_PATIENT}.address[0].postalCode",
    "SITE_CODE": f"{_ORGANISATION}.value",
    "SITE_CODE_TYPE_URI": f"{_ORGANISATION}.system",
    "RECORDED_DATE": "recorded",
    "PRIMARY_SOURCE": "primarySource",
    "VACCINATION_PROCEDURE_CODE": _PROCEDURE,
    "LOCATION_CODE": "location.identifier.value",
    "LOCATION_CODE_TYPE_URI": "location.identifier.system",
}
#: Columns that may be empty, but not blank.
_OPTIONAL = {
    "PERFORMING_PROFESSIONAL_FORENAME": "contained[?(@.resourceType=='Practitioner')].name[0].given",
    "PERFORMING_PROFESSIONAL_SURNAME": "contained[?(@.resourceType=='Practitioner')].name[0].family",
    "VACCINATION_PROCEDURE_TERM": "extension[0].valueCodeableConcept.coding[0].display",
    "VACCINE_PRODUCT_TERM": "vaccineCode.coding[0].display",
    "VACCINE_MANUFACTURER": "manufacturer.display",
    "BATCH_NUMBER": "lotNumber",
    "SITE_OF_VACCINATION_TERM": "site.coding[0].display",
    "ROUTE_OF_VACCINATION_TERM": "route.coding[0].display",
    "DOSE_UNIT_TERM": "doseQuantity.unit",
}
#: Codes that the FHIR library reads: without blanks around them, or two together.
_CODES = {
    "SITE_OF_VACCINATION_CODE": "site -> coding -> 0 -> code",
    "ROUTE_OF_VACCINATION_CODE": "route -> coding -> 0 -> code",
    "DOSE_UNIT_CODE": "doseQuantity -> code",
    "INDICATION_CODE": "reasonCode -> 0 -> coding -> 0 -> code",
}
_GENDERS = ("0", "1", "2", "9", "male", "female", "other", "unknown")


def type_and_supplier(name: str) -> tuple[str, str] | None:
    """Read a file's name: which vaccine type it is of, and which supplier sends it; None where DPS refuses it.

    It is ``{type}_Vaccinations_v5_{ODS code}_{YYYYMMDDThhmmss}{00|01}.{csv|dat}``, in any case. After the time further
    parts may follow.
    """
    stem, dot, extension = name.upper().rpartition(".")
    parts = stem.split("_")
    if not dot or "." in stem or extension not in {"CSV", "DAT"} or len(parts) < 5:
        return None
    vaccine_type, vaccinations, version, ods_code, stamp, *_ = parts
    if vaccine_type not in TYPES or (vaccinations, version) != ("VACCINATIONS", "V5") or not _is_stamp(stamp):
        return None
    supplier = SUPPLIERS.get(ods_code)
    return (vaccine_type, supplier) if supplier else None


def crashes_at(row: Mapping[str, str]) -> bool:
    """Tell whether DPS crashes at a row, and with it at the whole file."""
    return row["DOSE_AMOUNT"].strip().lower().lstrip("+-") in {"nan", "inf", "infinity"}


def faults_of(row: Mapping[str, str], now: datetime) -> str:
    """Tell what is wrong with a `new` or `update` row, as DPS says it; nothing where it keeps to the rules.

    DPS looks in stages, and at the next one only where nothing is wrong so far.
    """
    wrong = _formats(row, now)
    if not wrong:
        library = [path for column, path in _CODES.items() if row[column] != " ".join(row[column].split())]
        if not row["DATE_AND_TIME"]:
            library.insert(0, "occurrenceDateTime")
        if library:
            said = " ".join(f"{path} field is missing or malformed (type=value_error)" for path in library)
            return f"{len(library)} validation error{'s' * (len(library) > 1)} for Immunization {said}"
        wrong = [f"{path} is a mandatory field" for column, path in _MANDATORY.items() if not row[column]]
    return f"Validation errors: {'; '.join(wrong)}" if wrong else ""


def _formats(row: Mapping[str, str], now: datetime) -> list[str]:
    """Look at the form of what is there."""
    today = now.astimezone(UTC).date()
    born, recorded, given_at = _date(row["PERSON_DOB"]), _date(row["RECORDED_DATE"]), _moment(row["DATE_AND_TIME"])
    blank = {
        f"{path} must be a non-empty string": row[column] and not row[column].strip()
        for column, path in (_MANDATORY | _OPTIONAL).items()
    }
    wrong = {
        f"{_PATIENT}.identifier[0].value is not a valid NHS number": not _is_nhs_number(row["NHS_NUMBER"]),
        f"{_PATIENT}.name[0].given must be 180 or fewer characters": len(row["PERSON_FORENAME"]) > 180,
        f"{_PATIENT}.name[0].family must be 35 or fewer characters": len(row["PERSON_SURNAME"]) > 35,
        f"{_PATIENT}.birthDate {_DATE}": row["PERSON_DOB"] and not born,
        f"{_PATIENT}.birthDate must not be in the future": born and born > today,
        f"{_PATIENT}.gender must be one of the following: {', '.join(_GENDERS[4:])}": row["PERSON_GENDER_CODE"]
        not in {"", *_GENDERS},
        f"occurrenceDateTime {_MOMENT}": row["DATE_AND_TIME"] and not (given_at and given_at <= now),
        f"recorded {_MOMENT}": row["RECORDED_DATE"] and not (recorded and recorded <= today),
        "primarySource must be a boolean": row["PRIMARY_SOURCE"].lower() not in {"", "true", "false"},
        f"{_PROCEDURE} is not a valid snomed code": not _is_snomed(row["VACCINATION_PROCEDURE_CODE"]),
        f"vaccineCode.{_SNOMED} is not a valid snomed code": not _is_snomed(row["VACCINE_PRODUCT_CODE"]),
        "protocolApplied[0].doseNumberPositiveInt must be an integer in the range 1 to 9": not re.fullmatch(
            "[1-9]?", row["DOSE_SEQUENCE"]
        ),
        f"expirationDate {_DATE}": row["EXPIRY_DATE"] and not _date(row["EXPIRY_DATE"]),
        "doseQuantity.value must be a number": not re.fullmatch(r"(-?[0-9]+(\.[0-9]+)?)?", row["DOSE_AMOUNT"]),
    }
    return [text for text, holds in (blank | wrong).items() if holds]


def _is_stamp(text: str) -> bool:
    return re.fullmatch("[0-9]{8}T[0-9]{6}(00|01)", text) is not None and _moment(text) is not None


def _date(text: str) -> date | None:
    """Read ``YYYYMMDD`` or ``YYYY-MM-DD``."""
    try:
        return date.fromisoformat(text) if _DAY.fullmatch(text) else None
    except ValueError:
        return None


def _moment(text: str) -> datetime | None:
    """Read ``YYYYMMDDThhmmss``, and 00 (UTC) or 01 (BST) or nothing; a day; or ISO 8601 at one of these offsets."""
    found = _STAMP.fullmatch(text)
    if not found and not _ISO.fullmatch(text) and not (_DAY.fullmatch(text) and "-" in text):
        return None
    try:
        moment = datetime.fromisoformat(found[1] if found else text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=_ZONES[(found and found[2]) or "00"])


def _is_nhs_number(text: str) -> bool:
    if not re.fullmatch("[0-9]{10}", text):
        return not text
    return (
        sum(int(digit) * weight for digit, weight in zip(text, [10, 9, 8, 7, 6, 5, 4, 3, 2, 1], strict=True)) % 11 == 0
    )


_DIHEDRAL = (
    *("0123456789", "1234067895", "2340178956", "3401289567", "4012395678"),
    *("5987604321", "6598710432", "7659821043", "8765932104", "9876543210"),
)
_PERMUTED = (
    *("0123456789", "1576283094", "5803796142", "8916043527"),
    *("9453126870", "4286573901", "2793806415", "7046913258"),
)


def _is_snomed(code: str) -> bool:
    """Check an identifier of SNOMED CT: its length, its kind (a concept), and its last digit (Verhoeff)."""
    if not code:
        return True
    if not re.fullmatch("[1-9][0-9]{5,17}", code) or code[-3:-1] not in {"00", "10"}:
        return False
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = int(_DIHEDRAL[check][int(_PERMUTED[place % 8][int(digit)])])
    return check == 0
