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
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from uuid import NAMESPACE_URL, UUID, uuid5

from pydantic import ValidationError

from vaccinations.formats.batches import digest_of
from vaccinations.formats.upload_lines import MAX_LINE_BYTES, lines_of
from vaccinations.model.assumed import Assumed, assumed_of, fill_in
from vaccinations.model.problems import Problem, UnreadableUpload
from vaccinations.model.programmes import (
    GENDERS,
    ODS_CODE_FIX,
    PROGRAMMES,
    SITES,
    URIS,
    VACCINES,
    by_brand,
    by_upload_name,
    is_ods_code,
)
from vaccinations.model.record import VaccinationRecord, problems_of
from vaccinations.model.row import Faulty, Nobody, Row, Vaccinated, Withdrawn, person_in
from vaccinations.model.text import is_plain, plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vaccinations.formats.upload_lines import Line
    from vaccinations.model.programmes import Programme

__all__ = ["read_csv"]

#: A row may go on over several lines, inside quotes, but not over more than this: else an unclosed quote would
#: swallow the rest of the file.
MAX_ROW_LINES = 32

_ROW = "(row)"

#: What is read of a row: the field of a record that it is about, and what teams call its column. Where a header has
#: several of the names, the first listed counts.
COLUMNS = {
    "uuid": ("UUID",),
    "organisation_code": ("ORGANISATION_CODE",),
    "school_urn": ("SCHOOL_URN", "School code"),
    "nhs_number": ("NHS_NUMBER",),
    "forename": ("PERSON_FORENAME", "First name"),
    "surname": ("PERSON_SURNAME", "Surname"),
    "date_of_birth": ("PERSON_DOB", "Date of birth", "PERSON_DATE_OF_BIRTH"),
    "gender": ("PERSON_GENDER_CODE", "PERSON_GENDER", "Sex"),
    "postcode": ("PERSON_POSTCODE", "Postcode"),
    "vaccinated": ("VACCINATED",),
    "reason": ("REASON_NOT_VACCINATED",),
    "vaccinated_at": ("DATE_OF_VACCINATION", "Event date"),
    "time": ("TIME_OF_VACCINATION", "Event time"),
    "programme": ("PROGRAMME", "PROGRAMME_NAME"),
    "vaccine": ("VACCINE_GIVEN",),
    "type": ("Vaccination type",),
    "batch_number": ("BATCH_NUMBER", "Vaccination batch number"),
    "expiry": ("BATCH_EXPIRY_DATE",),
    "site": ("ANATOMICAL_SITE",),
    "dose_sequence": ("DOSE_SEQUENCE",),
    "professional_forename": ("PERFORMING_PROFESSIONAL_FORENAME",),
    "professional_surname": ("PERFORMING_PROFESSIONAL_SURNAME",),
}
_FIELDS = tuple(COLUMNS)
_REQUIRED = (
    ("forename",),
    ("surname",),
    ("date_of_birth",),
    ("gender",),
    ("postcode", "nhs_number"),
    ("vaccinated_at",),
    ("programme", "vaccine", "type"),
    ("vaccinated", "vaccine", "type"),
)


def _header_name(text: str) -> str:
    """Return a column's name as all ways of writing it have it: ``Person - Forename`` is ``PERSON___FORENAME``."""
    return plain(text).upper().replace("-", "_").replace(" ", "_")


#: The field of each name, and the name as we write it.
_NAMES = {_header_name(name): (field, name) for field, names in COLUMNS.items() for name in names}


def _names(things: Mapping[str, Any]) -> str:
    return "one of: " + ", ".join(name for thing in things.values() for name in thing.upload_names)


#: Fields that hold a key of the reference data, which uploads give by name.
_NAMED: dict[str, dict[str, Any]] = {
    "gender": by_upload_name(GENDERS.values()),
    "vaccine": by_upload_name(VACCINES.values()),
    "programme": by_upload_name(PROGRAMMES.values()),
    "site": by_upload_name(SITES.values()),
}
_BRANDS = by_brand()
_DATES = ("date_of_birth", "vaccinated_at", "expiry")
_DATE_FORMS = "a date of the calendar as YYYYMMDD, YYYY-MM-DD or DD/MM/YYYY, with all four digits of its year"
_FIXES = {
    "organisation_code": f"{ODS_CODE_FIX}, or nothing for the uploader's own",
    "date_of_birth": _DATE_FORMS,
    "vaccinated_at": _DATE_FORMS,
    "expiry": _DATE_FORMS,
    "gender": _names(GENDERS),
    "vaccine": _names(VACCINES),
    "programme": _names(PROGRAMMES) + "; or a vaccine that tells it",
    "site": _names(SITES),
    "time": "a time as HH:MM:SS, HH:MM or HHMM, or nothing",
    "vaccinated": "Yes or No; or nothing, with the vaccine in VACCINE_GIVEN",
    "reason": "nothing where somebody was vaccinated; where nobody was, No in VACCINATED",
    "type": "a programme or a vaccine, and after a space the dose, such as MenACWY 1",
}

#: A date, and what may stand behind it: a time.
_DATE = re.compile(
    r"(?:([0-9]{4})([0-9]{2})([0-9]{2})|([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})|([0-9]{1,2})/([0-9]{1,2})/([0-9]{4}))"
    r"(?:[T ](.+))?"
)
_TIME = re.compile(r"([0-9]{1,2})(?::([0-9]{1,2})(?::([0-9]{1,2})(?:\.0+)?)?)?|([0-9]{2})([0-9]{2})([0-9]{2})?")
_DOSES = {form.format(dose): dose for dose in range(1, 10) for form in ("{}", "0{}")}
_INSTRUCTIONS = re.compile(r"(required|optional)\b", re.IGNORECASE)
#: What Excel reads, and writes, as the first line of a file: what separates its cells.
_SEPARATOR = re.compile(r'"?sep=([,;\t|])"?[,;\t|]*', re.IGNORECASE)
#: Space that some programs put between the quote that closes a cell and what separates it from the next.
_SPACE_BEHIND_QUOTE = re.compile(r'(?<=") +(?=[,;\t|\r\n]|\Z)')
_GUESSES = {",": (), ";": (Assumed.SEMICOLONS,), "\t": (Assumed.TABS,)}

#: Stands in until a record without a UUID gets its own.
_NO_UUID = UUID(int=0)
_NAMESPACE = uuid5(NAMESPACE_URL, URIS["vaccination_record"])


def read_csv(
    stream: BinaryIO, *, organisation_code: str, today: date, columns: dict[str, str] | None = None
) -> Iterator[Row]:
    """Read a CSV upload. One with nothing but a header is read as no rows.

    Parameters
    ----------
    organisation_code
        The uploader's own, for rows that give none.
    today
        London's date on the day of the upload.
    columns
        Is told, before the first row comes, what the header calls columns where it is not as we write their names.

    Raises
    ------
    UnreadableUpload
        The file as a whole cannot be ingested. Rows read before that do not count.
    """
    lines = _Lines(lines_of(stream))
    delimiter, guessed = _delimiter(lines)
    rows = _split(lines, delimiter)
    header = _header(rows)
    if columns is not None:
        columns |= _own_names(header)
    table = _Table([*map(_header_name, header)], organisation_code, today)
    instructions_may_come = True
    for line, cells in rows:
        if isinstance(cells, Problem):
            yield Faulty(line, (cells,))
        elif not any(map(str.strip, cells)):
            continue
        elif not (instructions_may_come and _are_instructions(cells)):
            assumed = (*guessed, Assumed.WINDOWS) if lines.guessed else guessed
            may_be_two = len(cells) != table.width and lines.in_row > 1 and table.hold_two(cells, delimiter)
            row = table.row(line, cells, assumed, plain_line=lines.row_is_plain)
            if may_be_two and isinstance(row, Faulty):
                lines.step_back()
                row = Faulty(line, (_QUOTES,))
            yield row
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
    guessed
        Whether a line of the row in hand is not UTF-8, and so taken for Windows-1252.
    """

    def __init__(self, lines: Iterator[Line]) -> None:
        self.first = 1
        self.guessed = False
        self._lines = lines
        self._ahead: deque[Line] = deque()
        self._row: list[Line] = []
        self._text = ""
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
            self._text = text = line.decode()
        except UnicodeDecodeError:
            self._text = text = self._windows(line)
        return _SPACE_BEHIND_QUOTE.sub("", text) if '" ' in text else text

    def _windows(self, line: bytes) -> str:
        self.guessed = True
        try:
            return line.decode("cp1252")
        except UnicodeDecodeError:
            raise _Broken(_ENCODING) from None

    @property
    def in_row(self) -> int:
        """How many lines the row in hand has."""
        return len(self._row)

    @property
    def row_is_plain(self) -> bool:
        """Tell, quickly, of most rows that their cells are kept as they are, but for space around them."""
        text = self._text
        return (
            len(self._row) == 1
            and text.isascii()
            and not ("  " in text or "\t" in text or "\v" in text or "\f" in text or self.guessed)
        )

    def begin_row(self) -> None:
        """Let the row in hand go; the next line begins another."""
        self.first += len(self._row)
        self._row.clear()
        self._row_bytes = 0
        self.guessed = False

    def peek(self) -> Line:
        """Return the next line without taking it; nothing at the end."""
        if not self._ahead:
            self._ahead.extend(islice(self._lines, 1))
        return self._ahead[0] if self._ahead else b""

    def skip(self) -> None:
        """Leave out the line that `peek` has returned."""
        self._ahead.popleft()
        self.first += 1

    def step_back(self, *, keep: int = 1) -> None:
        """Give back the lines of the row in hand, all but its first or as many as are to be kept."""
        self._ahead.extendleft(reversed(self._row[keep:]))
        del self._row[keep:]


def _delimiter(lines: _Lines) -> tuple[str, tuple[Assumed, ...]]:
    """Tell what separates cells: what a first line ``sep=`` says, else what makes most columns of the header known."""
    while (line := lines.peek()) and line.isspace():
        lines.skip()
    text = (line or b"").decode(errors="replace")
    if stated := _SEPARATOR.fullmatch(text.rstrip("\r\n ")):
        lines.skip()
        return stated[1], ()
    found = max(_GUESSES, key=lambda guess: _columns_known(lines, guess))
    return found, _GUESSES[found]


def _columns_known(lines: _Lines, delimiter: str) -> int:
    """Count the columns that are known if a delimiter separates them; the lines of the header are given back."""
    _, cells = next(_split(lines, delimiter), (0, []))
    lines.step_back(keep=0)
    return 0 if isinstance(cells, Problem) else sum(_header_name(cell) in _NAMES for cell in cells)


def _split(lines: _Lines, delimiter: str) -> Iterator[tuple[int, list[str] | Problem]]:
    """Yield each row's line and its cells, or why it has none."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=True)
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
    """Return the names of the columns.

    Raises
    ------
    UnreadableUpload
        There is no header, or it lacks a column that is needed, or has one twice.
    """
    for _, cells in rows:
        if isinstance(cells, Problem):
            raise UnreadableUpload(f"the header {cells.what}", cells.fix)
        names = [_header_name(cell) for cell in cells]
        if any(names):
            break
    else:
        raise UnreadableUpload("the file is empty", "upload a file with a header and a row for each vaccination")
    there = {_NAMES[name][0] for name in names if name in _NAMES}
    missing = [" or ".join(COLUMNS[field][0] for field in either) for either in _REQUIRED if there.isdisjoint(either)]
    if missing:
        fix = "a header line with the names of the columns, separated by commas"
        raise UnreadableUpload(f"the header lacks {', '.join(missing)}", fix)
    twice = [name for form, (_, name) in _NAMES.items() if names.count(form) > 1]
    if twice:
        raise UnreadableUpload(f"the header names {', '.join(twice)} more than once", "name each column once")
    return cells


def _own_names(header: list[str]) -> dict[str, str]:
    """Return how a header writes the names that it has, by how we do, where that differs.

    A column that goes by another name is there by its first name, too: so problems of those who see no header name it.
    """
    own = {_NAMES[form][1]: plain(cell) for cell in header if (form := _header_name(cell)) in _NAMES}
    for listed in COLUMNS.values():
        there = [own[name] for name in listed if name in own]
        own |= {listed[0]: there[0]} if there else {}
    if told_by := own.get("Vaccination type"):  # where nothing else does
        own = dict.fromkeys(("PROGRAMME", "VACCINE_GIVEN", "DOSE_SEQUENCE"), told_by) | own
    return {name: written for name, written in own.items() if name != written}


def _are_instructions(cells: list[str]) -> bool:
    """Tell whether this is the row of instructions that may come under the header."""
    first = next(filter(None, map(plain, cells)), "")
    return _INSTRUCTIONS.match(first) is not None


# -- from cells to records


class _Table:
    """What a header says: which cell of a row is about what."""

    def __init__(self, names: list[str], organisation_code: str, today: date) -> None:
        self.width = len(names)
        self.organisation_code = organisation_code
        self.today = today
        found = {field: [name for name in listed if _header_name(name) in names] for field, listed in COLUMNS.items()}
        self.column_of = {field: (found[field] or COLUMNS[field])[0] for field in COLUMNS}
        if found["type"]:  # it tells these three, too
            told = [field for field in ("programme", "vaccine", "dose_sequence") if not found[field]]
            self.column_of |= dict.fromkeys(told, self.column_of["type"])
        # A column that is not there is read from an empty cell put at the end of every row.
        places = [names.index(_header_name(found[field][0])) if found[field] else -1 for field in _FIELDS]
        self._pick = itemgetter(*places)
        self._read = max(places) + 1

    def hold_two(self, cells: list[str], delimiter: str) -> bool:
        """Tell whether the cells of a row over several lines seem to be those of two, the first with an open quote.

        What separated cells then stands inside them: together they are nearly twice as many as the header's.
        """
        return len(cells) + sum(cell.count(delimiter) for cell in cells) > 1.5 * self.width

    def row(self, line: int, cells: list[str], guessed: tuple[Assumed, ...], *, plain_line: bool) -> Row:
        """Make one row; all that is wrong with it is found at once."""
        if len(cells) > self.width and any(map(str.strip, cells[self.width :])):
            return Faulty(line, (_MORE_CELLS,))
        if len(cells) < self._read:  # what is missing at the end is empty
            cells += [""] * (self._read - len(cells))
        cells.append("")
        values = {field: text for field, cell in zip(_FIELDS, self._pick(cells), strict=True) if (text := cell.strip())}
        if not (plain_line or is_plain("|".join(values.values()))):
            values = {field: text for field, cell in values.items() if (text := plain(cell))}
        return _Statement(line, values, self, guessed).row()


class _Statement:
    """One row: turned from what uploads write into what records hold, then checked as a record.

    A value that cannot be turned is removed from ``values`` and named in ``problems``.
    """

    def __init__(self, line: int, values: dict[str, Any], table: _Table, guessed: tuple[Assumed, ...]) -> None:
        self.line = line
        self.values = values
        self.table = table
        self.assumed = [*guessed]
        self.problems: dict[str, Problem] = {}

    def row(self) -> Row:
        withdrawn = self._not_vaccinated()
        if withdrawn and self.values.keys().isdisjoint(_NAMING):
            return Nobody(self.line)
        told = self._told_by_type() if "type" in self.values else None
        self._keys()
        if told:
            self.values |= told
        self._school()
        self._dates()
        self._organisation()
        self._dose()
        dated = self._moment(withdrawn=withdrawn)
        record = self._record()
        if record is None or self.problems:
            return Faulty(self.line, tuple(self.problems.values()))
        if self.values["uuid"] is _NO_UUID:
            # Nobody else has seen the record yet; pydantic's own way, a copy, takes as long as half of all its rules.
            vars(record)["uuid"] = _identity(record, dated=dated)
        if withdrawn:
            return Withdrawn(self.line, str(record.uuid), record.organisation_code, person_in(record))
        if record.dose_sequence is None or record.programme != self.values["programme"]:
            self.assumed += assumed_of(record.programme, record.dose_sequence, stated=self.values["programme"])
        return Vaccinated(self.line, record, digest_of(record), tuple(self.assumed))

    def _wrong(self, field: str, what: str, fix: str = "") -> None:
        self.values.pop(field, None)
        self.problems[field] = Problem(self.table.column_of[field], what, fix or _FIXES[field])

    def _not_vaccinated(self) -> bool:
        values = self.values
        reason = values.pop("reason", None)
        said = values.pop("vaccinated", "yes" if "vaccine" in values or "type" in values else "").casefold()
        if not said:
            self._wrong("vaccinated", "does not say whether anybody was vaccinated")
        elif "no".startswith(said):
            return True
        elif not "yes".startswith(said):
            self._wrong("vaccinated", "is neither yes nor no")
        elif reason:
            self._wrong("reason", "gives a reason, yet the row says that somebody was vaccinated")
        return False

    def _keys(self) -> None:
        values = self.values
        for field, things in _NAMED.items():
            if text := values.get(field):
                name = text.casefold()
                if thing := things.get(name):
                    values[field] = thing.key
                elif field == "vaccine" and name in _BRANDS:
                    values[field] = _BRANDS[name].key
                    self.assumed.append(Assumed.VACCINE)
                elif field == "programme" and "vaccine" in values:
                    del values[field]
                    self.assumed.append(Assumed.PROGRAMME)
                else:
                    self._wrong(field, "is not known")
        if "vaccine" in values and "programme" not in values and "programme" not in self.problems:
            values["programme"] = VACCINES[values["vaccine"]].programme

    def _told_by_type(self) -> dict[str, str]:
        """Return programme, vaccine and dose of the one text that tells them, in place of what other columns say."""
        told = _type(self.values.pop("type"))
        if not told:
            self._wrong("type", "is not known")
            return {}
        what, assumed = told
        stated = {field: self.values.pop(field) for field in what if field in self.values}
        self.assumed += assumed
        if not all(_agrees(field, text, what) for field, text in stated.items()):
            self.assumed.append(Assumed.TYPE)
        return what

    def _school(self) -> None:
        """Leave out a code that another system has given a school: nobody here knows which school that is."""
        code = self.values.get("school_urn")
        if code and not _URN.fullmatch(code):
            del self.values["school_urn"]
            self.assumed.append(Assumed.SCHOOL)

    def _dates(self) -> None:
        values = self.values
        for field in _DATES:
            if text := values.get(field):
                if found := _date(text):
                    values[field], clock = found
                    if clock and field == "vaccinated_at":
                        values.setdefault("time", clock)
                else:
                    self._wrong(field, "is not a date")

    def _organisation(self) -> None:
        stated = self.values.setdefault("organisation_code", self.table.organisation_code)
        if not is_ods_code(stated):
            self._wrong("organisation_code", "is not an ODS code")

    def _dose(self) -> None:
        if text := self.values.get("dose_sequence"):
            programme = PROGRAMMES.get(self.values.get("programme", ""))
            if dose := _dose(text, programme):
                self.values["dose_sequence"] = dose
            else:
                codes = programme.dose_codes if programme else _DOSE_CODES
                most = programme.most_doses if programme else 9
                self._wrong("dose_sequence", "is not a dose", ", ".join((f"a number from 1 to {most}", *codes)))

    def _moment(self, *, withdrawn: bool) -> bool:
        """Put date and time together; tell whether there is a date."""
        values = self.values
        clock = time()
        if text := values.pop("time", None):
            if (found := _time(text)) is not None:
                clock = found
            else:
                self._wrong("time", "is not a time")
        else:
            self.assumed.append(Assumed.TIME)
        dated = "vaccinated_at" in values
        if dated:
            values["vaccinated_at"] = datetime.combine(values["vaccinated_at"], clock)
        elif withdrawn and "vaccinated_at" not in self.problems:
            # Only a vaccination needs a date; this one stands in, so that the other rules are kept.
            values["vaccinated_at"] = datetime.combine(self.table.today, time())
        return dated

    def _record(self) -> VaccinationRecord | None:
        if "postcode" not in self.values:
            self.assumed += fill_in(self.values)
        self.values.setdefault("uuid", _NO_UUID)
        try:
            return VaccinationRecord.model_validate(self.values, context={"today": self.table.today})
        except ValidationError as error:
            named = {problem.column for problem in self.problems.values()}
            for problem in problems_of(error, self.table.column_of, _FIXES):
                # A value that was removed is not missing.
                if problem.column not in named:
                    self.problems[problem.column] = problem
            return None


#: What may name a record: without any of these, a row that says that nobody was vaccinated is about none.
_NAMING = {"uuid", "programme", "vaccine", "type"}
_URN = re.compile(r"[0-9]{6}[A-Za-z]?")
#: The codes of all programmes, for a row whose programme is not known: what they stand for does not matter then.
_DOSE_CODES = {code: dose for programme in PROGRAMMES.values() for code, dose in programme.dose_codes.items()}
#: What the text that tells programme, vaccine and dose may begin with; the longest first, for one may begin as another.
_TYPES = sorted({*_NAMED["programme"], *_NAMED["vaccine"], *_BRANDS}, key=len, reverse=True)
_TYPE = re.compile(rf"({'|'.join(map(re.escape, _TYPES))})(?: (.+))?")


@lru_cache(maxsize=1024)
def _type(text: str) -> tuple[dict[str, str], list[Assumed]] | None:
    """Tell the fields that such a text states, and what was assumed; None where it is not known."""
    found = _TYPE.fullmatch(text.casefold())
    if not found:
        return None
    name, dose = found.groups()
    what = {"dose_sequence": dose} if dose else {}
    if programme := _NAMED["programme"].get(name):
        return what | {"programme": programme.key}, []
    if vaccine := _NAMED["vaccine"].get(name):
        return what | {"programme": vaccine.programme, "vaccine": vaccine.key}, []
    vaccine = _BRANDS[name]
    return what | {"programme": vaccine.programme, "vaccine": vaccine.key}, [Assumed.VACCINE]


def _agrees(field: str, text: str, told: Mapping[str, str]) -> bool:
    """Tell whether a column states, in whichever words, what a vaccination type tells."""
    if field == "dose_sequence":
        programme = PROGRAMMES[told["programme"]]
        return _dose(text, programme) == _dose(told[field], programme)
    name = text.casefold()
    thing = _NAMED[field].get(name) or _BRANDS.get(name)
    return thing is not None and thing.key == told[field]


def _dose(text: str, programme: Programme | None) -> int | None:
    """Return the dose that a text states: a number, or a code of the programme's."""
    if dose := _DOSES.get(text):
        return dose
    codes = programme.dose_codes if programme else _DOSE_CODES
    code = text.upper()
    return codes.get(code) or codes.get(code.replace(" ", ""))


@lru_cache(maxsize=8192)
def _date(text: str) -> tuple[date, str | None] | None:
    """Return a date, and the text of a time behind it."""
    found = _DATE.fullmatch(text)
    if not found:
        return None
    y, m, d, year, month, day, dd, mm, yyyy, clock = found.groups()
    try:
        found_day = date(int(y or year or yyyy), int(m or month or mm), int(d or day or dd))
    except ValueError:
        return None
    return None if clock and _time(clock) is None else (found_day, clock)


@lru_cache(maxsize=1024)
def _time(text: str) -> time | None:
    found = _TIME.fullmatch(text)
    try:
        return time(*[int(part) for part in found.groups() if part]) if found else None  # type: ignore[arg-type]
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
