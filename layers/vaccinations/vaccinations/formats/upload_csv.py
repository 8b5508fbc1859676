"""Read an upload of vaccination records as the teams' own systems write it: a CSV file, one vaccination a row.

docs/upload-format.md says what the columns mean, and what is forgiven. A row that cannot even be split into cells (an
unclosed quote, say) costs that row only: reading goes on with the line after its first.
"""

from __future__ import annotations

import csv
import re
from collections import deque
from datetime import date, datetime, time
from functools import lru_cache
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import ValidationError

from vaccinations.formats.batches import digest_of
from vaccinations.formats.upload_lines import MAX_LINE_BYTES, lines_of
from vaccinations.model.problems import Problem, UnreadableUpload
from vaccinations.model.programmes import (
    GENDERS,
    ODS_CODE_FIX,
    PROGRAMMES,
    SITES,
    URIS,
    VACCINES,
    by_upload_name,
    is_ods_code,
)
from vaccinations.model.record import VaccinationRecord, problems_of
from vaccinations.model.row import Faulty, Row, Vaccinated, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaccinations.formats.upload_lines import Line

__all__ = ["read_csv"]

#: A row may go on over several lines, inside quotes, but not over more than this: else an unclosed quote would
#: swallow the rest of the file.
MAX_ROW_LINES = 32

_ROW = "(row)"

#: The columns that are read, and the field of a record that each is about.
_COLUMNS = {
    "UUID": "uuid",
    "ORGANISATION_CODE": "organisation_code",
    "SCHOOL_URN": "school_urn",
    "NHS_NUMBER": "nhs_number",
    "PERSON_FORENAME": "forename",
    "PERSON_SURNAME": "surname",
    "PERSON_DOB": "date_of_birth",
    "PERSON_GENDER_CODE": "gender",
    "PERSON_POSTCODE": "postcode",
    "VACCINATED": "vaccinated",
    "DATE_OF_VACCINATION": "vaccinated_at",
    "TIME_OF_VACCINATION": "time",
    "PROGRAMME": "programme",
    "VACCINE_GIVEN": "vaccine",
    "BATCH_NUMBER": "batch_number",
    "BATCH_EXPIRY_DATE": "expiry",
    "ANATOMICAL_SITE": "site",
    "DOSE_SEQUENCE": "dose_sequence",
    "PERFORMING_PROFESSIONAL_FORENAME": "professional_forename",
    "PERFORMING_PROFESSIONAL_SURNAME": "professional_surname",
}
_FIELDS = tuple(_COLUMNS.values())
_REQUIRED_COLUMNS = (
    ("PERSON_FORENAME",),
    ("PERSON_SURNAME",),
    ("PERSON_DOB",),
    ("PERSON_GENDER_CODE", "PERSON_GENDER"),
    ("PERSON_POSTCODE",),
    ("DATE_OF_VACCINATION",),
    ("PROGRAMME", "VACCINE_GIVEN"),
    ("VACCINATED", "VACCINE_GIVEN"),
)


def _names(things: Mapping[str, Any]) -> str:
    return "one of: " + ", ".join(name for thing in things.values() for name in thing.upload_names)


#: Fields that hold a key of the reference data, which uploads give by name.
_NAMED: dict[str, dict[str, Any]] = {
    "gender": by_upload_name(GENDERS.values()),
    "vaccine": by_upload_name(VACCINES.values()),
    "programme": by_upload_name(PROGRAMMES.values()),
    "site": by_upload_name(SITES.values()),
}
_DATES = ("date_of_birth", "vaccinated_at", "expiry")
_DATE_FORMS = "a date of the calendar as YYYYMMDD, YYYY-MM-DD or DD/MM/YYYY"
_FIXES = {
    "organisation_code": f"{ODS_CODE_FIX}, or nothing for the uploader's own",
    "date_of_birth": _DATE_FORMS,
    "vaccinated_at": _DATE_FORMS,
    "expiry": _DATE_FORMS,
    "gender": _names(GENDERS),
    "vaccine": _names(VACCINES),
    "programme": _names(PROGRAMMES) + "; or a vaccine that tells it",
    "site": _names(SITES),
    "time": "a time as HH:MM:SS or HH:MM, or nothing",
    "vaccinated": "Yes or No; or nothing, with the vaccine in VACCINE_GIVEN",
}

_DATE = re.compile(
    r"(?P<y>[0-9]{4})(?P<dash>-?)(?P<m>[0-9]{2})(?P=dash)(?P<d>[0-9]{2})"
    r"|(?P<D>[0-9]{2})/(?P<M>[0-9]{2})/(?P<Y>[0-9]{4})"
)
_TIME = re.compile(r"[0-9]{2}:[0-9]{2}(:[0-9]{2})?")

#: Stands in until a record without a UUID gets its own.
_NO_UUID = UUID(int=0)
_NAMESPACE = uuid5(NAMESPACE_URL, URIS["vaccination_record"])


def read_csv(stream: BinaryIO, *, organisation_code: str, today: date) -> Iterator[Row]:
    """Read a CSV upload. One with nothing but a header is read as no rows.

    Parameters
    ----------
    organisation_code
        The uploader's own, for rows that give none.
    today
        London's date on the day of the upload.

    Raises
    ------
    UnreadableUpload
        The file as a whole cannot be ingested. Rows read before that do not count.
    """
    lines = _Lines(lines_of(stream))
    rows = _split(lines)
    table = _Table(_header(rows), organisation_code, today)
    instructions_may_come = True
    for line, cells in rows:
        if isinstance(cells, Problem):
            yield Faulty(line, (cells,))
        elif not any(map(str.strip, cells)):
            continue
        elif lines.in_row > 1 and len(cells) != table.width:
            lines.step_back()
            yield Faulty(line, (_QUOTES,))
        elif not (instructions_may_come and _are_instructions(cells)):
            yield table.row(line, cells)
        instructions_may_come = False


# -- from lines to cells

_QUOTES = Problem(
    _ROW, "has quotes that do not match", 'close every quote, and double one inside quotes: "Anne ""Annie"" Lee"'
)
_LONG_LINE = Problem(_ROW, f"has a line longer than {MAX_LINE_BYTES // 1024} KB", "shorter fields; close every quote")
_LONG_ROW = Problem(
    _ROW, f"goes on over more than {MAX_ROW_LINES} lines or {MAX_LINE_BYTES // 1024} KB", "close every quote"
)
_MORE_CELLS = Problem(_ROW, "has more cells than the header", "put a text that holds a comma in double quotes")
_FEWER_CELLS = Problem(_ROW, "has fewer cells than the header", "a cell for every column")
_ENCODING = Problem(_ROW, "holds bytes that are neither UTF-8 nor Windows-1252", "save the file as text in UTF-8")


class _Broken(Exception):
    """A row cannot be split into cells."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


class _Lines:
    """Lines as text, with a way back to the second line of a row.

    Attributes
    ----------
    first
        The line where the row in hand begins, from 1.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self.first = 1
        self._lines = lines
        self._ahead: deque[Line] = deque()
        self._row: list[Line] = []
        self._row_bytes = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._ahead.popleft() if self._ahead else next(self._lines)
        self._row.append(line)
        if line is None:
            raise _Broken(_LONG_LINE if len(self._row) == 1 else _LONG_ROW)
        self._row_bytes += len(line)
        if self._row_bytes > MAX_LINE_BYTES or len(self._row) > MAX_ROW_LINES:
            raise _Broken(_LONG_ROW)
        try:
            return line.decode()
        except UnicodeDecodeError:
            pass
        try:
            return line.decode("cp1252")
        except UnicodeDecodeError:
            raise _Broken(_ENCODING) from None

    @property
    def in_row(self) -> int:
        """How many lines the row in hand has."""
        return len(self._row)

    def begin_row(self) -> None:
        """Let the row in hand go; the next line begins another."""
        self.first += len(self._row)
        self._row.clear()
        self._row_bytes = 0

    def step_back(self) -> None:
        """Give back all lines of the row in hand but its first."""
        self._ahead.extendleft(reversed(self._row[1:]))
        del self._row[1:]


def _split(lines: _Lines) -> Iterator[tuple[int, list[str] | Problem]]:
    """Yield each row's line and its cells, or why it has none."""
    reader = csv.reader(lines, strict=True, skipinitialspace=True)
    while True:
        lines.begin_row()
        try:
            cells = next(reader)
        except StopIteration:
            return
        except (_Broken, csv.Error) as error:
            lines.step_back()
            yield lines.first, error.problem if isinstance(error, _Broken) else _QUOTES
        else:
            yield lines.first, cells


def _header(rows: Iterator[tuple[int, list[str] | Problem]]) -> list[str]:
    """Return the names of the columns, in upper case.

    Raises
    ------
    UnreadableUpload
        There is no header, or it lacks a column that is needed, or has one twice.
    """
    for _, cells in rows:
        if isinstance(cells, Problem):
            raise UnreadableUpload(f"the header {cells.what}", cells.fix)
        names = [cell.strip().upper() for cell in cells]
        if any(names):
            break
    else:
        raise UnreadableUpload("the file is empty", "upload a file with a header and a row for each vaccination")
    missing = [" or ".join(either) for either in _REQUIRED_COLUMNS if not any(name in names for name in either)]
    if missing:
        fix = "a header line with the names of the columns, separated by commas"
        raise UnreadableUpload(f"the header lacks {', '.join(missing)}", fix)
    twice = [name for name in (*_COLUMNS, "PERSON_GENDER") if names.count(name) > 1]
    if twice:
        raise UnreadableUpload(f"the header names {', '.join(twice)} more than once", "name each column once")
    return names


def _are_instructions(cells: list[str]) -> bool:
    """Tell whether this is the row of instructions that may come under the header."""
    first = [text for cell in cells if (text := cell.strip().casefold())][:2]
    return all(text.startswith(("required", "optional")) for text in first)


# -- from cells to records


class _Table:
    """What a header says: which cell of a row is about what."""

    def __init__(self, names: list[str], organisation_code: str, today: date) -> None:
        self.width = len(names)
        self.organisation_code = organisation_code
        self.today = today
        self.column_of = {field: column for column, field in _COLUMNS.items()}
        if "PERSON_GENDER_CODE" not in names:
            self.column_of["gender"] = "PERSON_GENDER"
        # A column that is not there is read from an empty cell put at the end of every row.
        places = [names.index(column) if column in names else -1 for column in map(self.column_of.get, _FIELDS)]
        self._pick = itemgetter(*places)
        self._read = max(places) + 1

    def row(self, line: int, cells: list[str]) -> Row:
        """Make one row; all that is wrong with it is found at once."""
        if any(map(str.strip, cells[self.width :])):
            return Faulty(line, (_MORE_CELLS,))
        if len(cells) < self._read:
            return Faulty(line, (_FEWER_CELLS,))
        cells.append("")
        values = {field: text for field, cell in zip(_FIELDS, self._pick(cells), strict=True) if (text := cell.strip())}
        return _Statement(line, values, self).row()


class _Statement:
    """One row: turned from what uploads write into what records hold, then checked as a record.

    A value that cannot be turned is removed from ``values`` and named in ``problems``.
    """

    def __init__(self, line: int, values: dict[str, Any], table: _Table) -> None:
        self.line = line
        self.values = values
        self.table = table
        self.problems: dict[str, Problem] = {}

    def row(self) -> Row:
        withdrawn = self._not_vaccinated()
        self._keys()
        self._dates()
        self._organisation()
        self._dose()
        dated = self._moment(withdrawn=withdrawn)
        record = self._record()
        if record is None or self.problems:
            return Faulty(self.line, tuple(self.problems.values()))
        if "uuid" not in self.values:
            # Nobody else has seen the record yet; pydantic's own way, a copy, takes as long as half of all its rules.
            vars(record)["uuid"] = _identity(record, dated=dated)
        if withdrawn:
            return Withdrawn(self.line, str(record.uuid), record.organisation_code)
        return Vaccinated(self.line, record, digest_of(record))

    def _wrong(self, field: str, what: str, fix: str = "") -> None:
        self.values.pop(field, None)
        self.problems[field] = Problem(self.table.column_of[field], what, fix or _FIXES[field])

    def _not_vaccinated(self) -> bool:
        values = self.values
        said = values.pop("vaccinated", "yes" if "vaccine" in values else "").casefold()
        if not said:
            self._wrong("vaccinated", "does not say whether anybody was vaccinated")
        elif "no".startswith(said):
            return True
        elif not "yes".startswith(said):
            self._wrong("vaccinated", "is neither yes nor no")
        return False

    def _keys(self) -> None:
        values = self.values
        for field, things in _NAMED.items():
            if text := values.get(field):
                if thing := things.get(text.casefold()):
                    values[field] = thing.key
                else:
                    self._wrong(field, "is not known")
        if "vaccine" in values and "programme" not in values and "programme" not in self.problems:
            values["programme"] = VACCINES[values["vaccine"]].programme

    def _dates(self) -> None:
        for field in _DATES:
            if text := self.values.get(field):
                if day := _date(text):
                    self.values[field] = day
                else:
                    self._wrong(field, "is not a date")

    def _organisation(self) -> None:
        stated = self.values.setdefault("organisation_code", self.table.organisation_code)
        if not is_ods_code(stated):
            self._wrong("organisation_code", "is not an ODS code")

    def _dose(self) -> None:
        text = self.values.get("dose_sequence")
        if not text:
            return
        programme = PROGRAMMES.get(self.values.get("programme", ""))
        codes = programme.dose_codes if programme else _DOSE_CODES
        dose = int(text) if text in _DIGITS else codes.get(text.upper())
        if dose is None:
            self._wrong("dose_sequence", "is not a dose", ", ".join(("a number from 1 to 9", *codes)))
        else:
            self.values["dose_sequence"] = dose

    def _moment(self, *, withdrawn: bool) -> bool:
        """Put date and time together; tell whether there is a date."""
        values = self.values
        clock = time()
        if text := values.pop("time", None):
            if found := _time(text):
                clock = found
            else:
                self._wrong("time", "is not a time")
        dated = "vaccinated_at" in values
        if dated:
            values["vaccinated_at"] = datetime.combine(values["vaccinated_at"], clock)
        elif withdrawn and "vaccinated_at" not in self.problems:
            # Only a vaccination needs a date; this one stands in, so that the other rules are kept.
            values["vaccinated_at"] = datetime.combine(self.table.today, time())
        return dated

    def _record(self) -> VaccinationRecord | None:
        try:
            return VaccinationRecord.model_validate(
                {"uuid": _NO_UUID, **self.values}, context={"today": self.table.today}
            )
        except ValidationError as error:
            named = {problem.column for problem in self.problems.values()}
            for problem in problems_of(error, self.table.column_of, _FIXES):
                # A value that was removed is not missing.
                if problem.column not in named:
                    self.problems[problem.column] = problem
            return None


_DIGITS = frozenset("123456789")
#: The codes of all programmes, for a row whose programme is not known: what they stand for does not matter then.
_DOSE_CODES = {code: dose for programme in PROGRAMMES.values() for code, dose in programme.dose_codes.items()}


@lru_cache(maxsize=8192)
def _date(text: str) -> date | None:
    found = _DATE.fullmatch(text)
    if not found:
        return None
    try:
        return date(int(found["y"] or found["Y"]), int(found["m"] or found["M"]), int(found["d"] or found["D"]))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _time(text: str) -> time | None:
    try:
        return time.fromisoformat(text) if _TIME.fullmatch(text) else None
    except ValueError:
        return None


def _identity(record: VaccinationRecord, *, dated: bool) -> UUID:
    """Derive the identifier of a record that states none, the same each time the row is uploaded.

    It is a UUIDv5 in the namespace ``uuid5(NAMESPACE_URL, URI of vaccination records)`` over these lines: organisation;
    NHS number, or where there is none forename, surname, date of birth and postcode; programme; date of vaccination;
    dose. Names count without regard to case and to runs of spaces, MMRV counts as MMR (which of the two it was may be
    told by the vaccine alone, which a withdrawn row need not repeat), and an unstated dose of flu and HPV as the first.
    """
    person = (
        [record.nhs_number]
        if record.nhs_number
        else [_plain(record.forename), _plain(record.surname), str(record.date_of_birth), record.postcode]
    )
    dose = PROGRAMMES[record.programme].dose(record.dose_sequence)
    parts = [
        record.organisation_code,
        *person,
        "mmr" if record.programme == "mmrv" else record.programme,
        str(record.vaccinated_at.date()) if dated else "",
        str(dose or ""),
    ]
    return uuid5(_NAMESPACE, "\n".join(parts))


def _plain(name: str) -> str:
    return " ".join(name.casefold().split())
