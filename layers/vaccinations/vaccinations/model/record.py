"""The vaccination record: what it holds, and every rule that it must keep (docs/upload-format.md).

Both kinds of upload, CSV and JSON lines, share these rules: those of the upload file and those of DPS
(docs/dps-file.md). All that is wrong with a record is found at once. No message repeats a value, which may be personal.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from operator import mul
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID  # noqa: TC003 - pydantic reads annotations at run time

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from vaccinations.model.london import uk_time
from vaccinations.model.problems import Problem
from vaccinations.model.programmes import GENDERS, ODS_CODE_FIX, PROGRAMMES, ROUTES, SITES, VACCINES, is_ods_code
from vaccinations.model.text import plain

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaccinations.model.programmes import Method

__all__ = ["VaccinationRecord", "checked_nhs_number", "problems_of"]

#: No text field may be longer than this (docs/upload-format.md, "Text").
_MAX_TEXT = 300
#: A date before this year was mistyped.
_EARLIEST_YEAR = 1900
_EXPIRY_YEARS = 15
_ISO_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
#: How a date with a time behind it, or without, begins; Python reads other forms of ISO 8601, too.
_ISO_MOMENT = re.compile(rf"{_ISO_DATE.pattern}(?:[T ]|\Z)")

#: What may not go out inside a field: control characters, line and paragraph separators, what turns the direction of
#: text or cannot be seen, and halves of characters.
_UNFIT = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]"
)


def _wrong(what: str, fix: str) -> PydanticCustomError:
    return PydanticCustomError("rule", "{what}: {fix}", {"what": what, "fix": fix})


def _today(info: ValidationInfo) -> date:
    """Return London's date, which the validation's context gives."""
    today: date = (info.context or {})["today"]
    return today


# -- rules of one field


def _text(value: object) -> object:
    """Bring text into the one form in which it is kept; empty text is none."""
    if not isinstance(value, str):
        return value
    value = value.strip()
    if value.isascii() and value.isprintable() and "  " not in value and 0 < len(value) <= _MAX_TEXT:
        return value
    value = plain(value)
    if _UNFIT.search(value):
        raise _wrong("holds a control character or an invisible one", "plain text")
    if len(value) > _MAX_TEXT:
        raise PydanticCustomError("string_too_long", "too long")
    return value or None


def _date(value: object) -> object:
    if value is None or value == "":
        return None
    if isinstance(value, date) and not isinstance(value, datetime):
        return value
    try:
        if isinstance(value, str) and _ISO_DATE.fullmatch(value):
            return date.fromisoformat(value)
    except ValueError:
        pass
    raise _wrong("is not a date", "a date of the calendar as YYYY-MM-DD")


def _moment(value: object) -> object:
    if value is None or value == "":
        return None
    if isinstance(value, str):
        value = _parsed(value)
    if not isinstance(value, datetime):
        raise _wrong("is not a date and time", "a date and time as 2024-09-30T10:15:00, with or without an offset")
    offset = value.utcoffset()
    if offset is not None and offset.seconds % 60:
        raise _wrong("has an offset that no clock has", "an offset in hours and minutes, such as +01:00")
    return value.replace(microsecond=0)


def _parsed(iso: str) -> datetime | None:
    try:
        return datetime.fromisoformat(iso) if _ISO_MOMENT.match(iso) else None
    except ValueError:
        return None


def checked_nhs_number(value: str) -> str:
    """Return the ten digits of an NHS number, which may be written with spaces.

    Raises
    ------
    ValueError
        It is none. The message does not repeat it.
    """
    digits = "".join(value.split())
    if not (len(digits) == 10 and digits.isascii() and digits.isdigit()):
        raise _wrong("is not ten digits", "the ten digits of an NHS number, or nothing where it is not known")
    if digits == digits[0] * 10:
        raise _wrong("is one digit ten times", "the NHS number as issued, or nothing where it is not known")
    total = sum(map(mul, map(int, digits), range(10, 1, -1)))
    if (11 - total % 11) % 11 != int(digits[9]):
        raise _wrong("has a check digit that does not match", "the NHS number as issued, or nothing")
    return digits


def _organisation_code(value: str) -> str:
    if not is_ods_code(value):
        raise _wrong("is not an ODS code", ODS_CODE_FIX)
    return value.upper()


_POSTCODE = re.compile(r"([A-Z]{1,2}[0-9][A-Z0-9]?|GIR)([0-9][A-Z]{2})")


def _postcode(value: str) -> str:
    found = _POSTCODE.fullmatch("".join(value.split()).upper())
    if not found:
        raise _wrong("is not a UK postcode", "a postcode such as SW1A 1AA; ZZ99 3WZ where the address is not known")
    return f"{found[1]} {found[2]}"


_SCHOOL = re.compile(r"([0-9]{6})[A-Za-z]?")


def _school_urn(value: str) -> str:
    """Return the number of a school; the letter of one of its sites is left out."""
    if found := _SCHOOL.fullmatch(value):
        return found[1]
    raise _wrong("is not a school's number", _SCHOOL_FIX)


def _one_of(keys: Mapping[str, Any]) -> BeforeValidator:
    fix = "one of: " + ", ".join(keys)

    def check(value: object) -> object:
        if value is None or value == "":
            return None
        if isinstance(value, str) and value in keys:
            return value
        raise _wrong("is not known", fix)

    return BeforeValidator(check)


_SCHOOL_FIX = "six digits, and a site's letter; 888888 for an unknown school, 999999 for home education"
_AS_TEXT = BeforeValidator(_text)
_AS_DATE = BeforeValidator(_date)


class VaccinationRecord(BaseModel):
    """One vaccination, as its uploader stated it.

    What follows from the statement (the route from the site, the first dose of a flu vaccination, London time) is
    filled in where the record is rendered for DPS, not here.

    Validation needs the context ``{"today": date}``: the day in London.

    Attributes
    ----------
    programme, vaccine, site, route, gender
        Keys of the reference data.
    vaccinated_at
        With its offset where one was given; without one it is London time.
    recorded_on
        When the record was made, if the uploader states that.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    # A rule between two fields is kept at the later one, so that one bad field never hides what is wrong with another.
    uuid: UUID
    organisation_code: Annotated[str, AfterValidator(_organisation_code), _AS_TEXT]
    nhs_number: Annotated[Annotated[str, AfterValidator(checked_nhs_number)] | None, _AS_TEXT] = None
    forename: Annotated[str, StringConstraints(max_length=180), _AS_TEXT]
    surname: Annotated[str, StringConstraints(max_length=35), _AS_TEXT]
    date_of_birth: Annotated[date, _AS_DATE]
    gender: Annotated[str, _one_of(GENDERS)]
    postcode: Annotated[str, AfterValidator(_postcode), _AS_TEXT]
    vaccine: Annotated[str | None, _one_of(VACCINES)] = None
    programme: Annotated[str, _one_of(PROGRAMMES)]
    dose_sequence: Annotated[int, Field(strict=True, ge=1, le=9)] | None = None
    site: Annotated[str | None, _one_of(SITES)] = None
    route: Annotated[str | None, _one_of(ROUTES)] = None
    vaccinated_at: Annotated[datetime, BeforeValidator(_moment)]
    recorded_on: Annotated[date | None, _AS_DATE] = None
    professional_forename: Annotated[str | None, _AS_TEXT] = None
    professional_surname: Annotated[str | None, _AS_TEXT] = None
    batch_number: Annotated[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]{2,100}$")] | None, _AS_TEXT] = None
    expiry: Annotated[date | None, _AS_DATE] = None
    school_urn: Annotated[Annotated[str, AfterValidator(_school_urn)] | None, _AS_TEXT] = None

    def __repr_args__(self) -> list[tuple[str | None, Any]]:
        # A record may end up in a log or a traceback; what is personal in it may not.
        return [("uuid", str(self.uuid)), ("programme", self.programme)]

    @field_validator("date_of_birth")
    @classmethod
    def _born_in_the_past(cls, value: date, info: ValidationInfo) -> date:
        if value >= _today(info):
            raise _wrong("is not in the past", "the date of birth")
        return _not_long_ago(value)

    @field_validator("programme")
    @classmethod
    def _programme_of_the_vaccine(cls, value: str, info: ValidationInfo) -> str:
        """Let a vaccine tell MMR from MMRV; see that any other vaccine is one of the programme's."""
        vaccine = info.data.get("vaccine")
        if vaccine is None or (programme := VACCINES[vaccine].programme) == value:
            return value
        if {value, programme} == {"mmr", "mmrv"}:
            return programme
        raise _wrong(
            "does not agree with the vaccine given", f"{PROGRAMMES[programme].name}, or a vaccine of the programme"
        )

    @field_validator("dose_sequence")
    @classmethod
    def _not_past_the_last_dose(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value and (programme := PROGRAMMES.get(info.data.get("programme", ""))) and value > programme.most_doses:
            raise _wrong("is past the last dose", f"at most {programme.most_doses} for {programme.name}")
        return value

    @field_validator("site")
    @classmethod
    def _site_suits(cls, value: str | None, info: ValidationInfo) -> str | None:
        return value and _suits(value, SITES[value].method, info.data)

    @field_validator("route")
    @classmethod
    def _route_suits(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        method: Method = "nasal" if value == "nasal_spray" else "injection"
        site = info.data.get("site")
        if site is not None and SITES[site].method != method:
            raise _wrong("does not suit the site", "nasal_spray for the nose, any other route for any other site")
        return _suits(value, method, info.data)

    @field_validator("vaccinated_at")
    @classmethod
    def _given_in_a_lifetime(cls, value: datetime, info: ValidationInfo) -> datetime:
        _not_long_ago(value)
        today = _today(info)
        if value.year > today.year + 1 or (given_on := uk_time(value).date()) > today:
            raise _wrong("is in the future", "the date the vaccine was given")
        if (born := info.data.get("date_of_birth")) and given_on < born:
            raise _wrong("is before the date of birth", "a date of vaccination not before the date of birth")
        return value

    @field_validator("recorded_on")
    @classmethod
    def _recorded_already(cls, value: date | None, info: ValidationInfo) -> date | None:
        if value and value > _today(info):
            raise _wrong("is in the future", "the date the record was made")
        return value and _not_long_ago(value)

    @field_validator("expiry")
    @classmethod
    def _expires_in_our_time(cls, value: date | None, info: ValidationInfo) -> date | None:
        if value:
            year = _today(info).year
            if not date(year - _EXPIRY_YEARS, 1, 1) <= value <= date(year + _EXPIRY_YEARS, 1, 1):
                raise _wrong(f"is more than {_EXPIRY_YEARS} years away", "the expiry date as on the vaccine's package")
        return value


def _not_long_ago[T: date](value: T) -> T:
    if value.year < _EARLIEST_YEAR:
        raise _wrong(f"is before the year {_EARLIEST_YEAR}", "a date with all four digits of its year")
    return value


def _suits[T](value: T, method: Method, known: Mapping[str, Any]) -> T:
    """See that a way of giving suits the vaccine, or where none is stated the programme."""
    if vaccine := known.get("vaccine"):
        if VACCINES[vaccine].method != method:
            raise _wrong("does not suit the vaccine", "nasal for a nasal vaccine, any other for an injected one")
    elif (
        "vaccine" in known and (programme := known.get("programme")) and method not in PROGRAMMES[programme].procedures
    ):
        raise _wrong("does not suit the programme", "the place on the body where it was injected")
    return value


# -- what is wrong, in words

_FIXES = {
    "uuid": "a UUID such as 496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "organisation_code": ODS_CODE_FIX,
    "forename": "the given name, at most 180 characters",
    "surname": "the family name, at most 35 characters",
    "date_of_birth": "the date of birth",
    "gender": "one of: " + ", ".join(GENDERS),
    "postcode": "a UK postcode; ZZ99 3WZ where the address is not known; nothing only with an NHS number",
    "programme": "one of: " + ", ".join(PROGRAMMES),
    "dose_sequence": "a whole number from 1 to 9",
    "vaccinated_at": "when the vaccine was given",
    "batch_number": "2 to 100 letters and digits without spaces, or nothing",
    "school_urn": _SCHOOL_FIX,
}
#: More faults of one row are not listed: a line may hold thousands of fields that do not belong there.
_MOST_PROBLEMS = 50
_MORE = Problem("(line)", f"has more than {_MOST_PROBLEMS} faults", "put those listed right first")
_FIELD_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")


def problems_of(
    error: ValidationError, columns: Mapping[str, str] | None = None, fixes: Mapping[str, str] | None = None
) -> list[Problem]:
    """Say in words what is wrong with a record.

    Parameters
    ----------
    columns
        What the upload calls a field, where it is not the field's own name.
    fixes
        What would be right, where the upload writes it in another way than the record.
    """
    columns = columns or {}
    fixes = {**_FIXES, **(fixes or {})}
    found: list[Problem] = []
    for detail in error.errors(include_url=False):
        name = str(detail["loc"][0]) if detail["loc"] else ""
        fix = fixes.get(name, f"text of at most {_MAX_TEXT} characters")
        match detail["type"]:
            case "rule":
                what, fix = detail["ctx"]["what"], detail["ctx"]["fix"]
            case "extra_forbidden":
                # A key is the uploader's text like any other.
                name = name if _FIELD_NAME.fullmatch(name) else "(unknown)"
                what, fix = "is not a field of a vaccination record", "leave it out"
            case "string_too_long":
                what = "is too long"
            case kind:
                what = "is missing" if kind == "missing" or detail["input"] is None else "does not have the right form"
        if len(found) == _MOST_PROBLEMS:
            return [*found, _MORE]
        found.append(Problem(columns.get(name, name), what, fix))
    return found
