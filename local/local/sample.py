"""Made-up vaccinations: an upload for the demo and the tests, and batch lines by the million for measurements.

Nobody here exists: names are put together from syllables, NHS numbers come from the range that is never issued
(9990000000 upwards), postcodes from areas that are not in use. Every value that stands for something personal is
known, so that logs can be searched for all of them.
"""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import date, timedelta
from enum import StrEnum
from itertools import count, islice
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from vaccinations.formats.upload_csv import read_csv
from vaccinations.model.programmes import PROGRAMMES, SITES, VACCINES
from vaccinations.model.row import Vaccinated

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vaccinations.model.programmes import Programme, Vaccine

__all__ = [
    "LEAST_TO_CORRECT",
    "Form",
    "SampleUpload",
    "TeamFile",
    "corrected_upload",
    "make_batch_lines",
    "sample_file",
    "sample_upload",
]

#: So many good rows and bad ones are in the sample that the demo uploads.
ROWS, BAD_ROWS = 300, 5
#: A sample with fewer good rows has none that `corrected_upload` could change.
LEAST_TO_CORRECT = 12


class Form(StrEnum):
    """What a sample looks like."""

    CSV = "csv"
    JSONL = "jsonl"
    SYSTMONE = "systmone"
    OFFLINE = "offline"
    SEMICOLONS = "semicolons"


_COLUMNS = (
    "ORGANISATION_CODE",
    "SCHOOL_URN",
    "SCHOOL_NAME",
    "NHS_NUMBER",
    "PERSON_FORENAME",
    "PERSON_SURNAME",
    "PERSON_DOB",
    "PERSON_GENDER_CODE",
    "PERSON_POSTCODE",
    "VACCINATED",
    "REASON_NOT_VACCINATED",
    "DATE_OF_VACCINATION",
    "TIME_OF_VACCINATION",
    "PROGRAMME",
    "VACCINE_GIVEN",
    "BATCH_NUMBER",
    "BATCH_EXPIRY_DATE",
    "ANATOMICAL_SITE",
    "DOSE_SEQUENCE",
    "PERFORMING_PROFESSIONAL_FORENAME",
    "PERFORMING_PROFESSIONAL_SURNAME",
    "NOTES",
    "UUID",
)
#: Those of a SystmOne report, and of Mavis's offline spreadsheet.
_SYSTMONE_COLUMNS = (
    *("Date of birth", "NHS number", "Vaccination area code", "Vaccination batch number", "Vaccination reason"),
    *("Vaccination type", "First name", "Postcode", "Sex", "Surname", "Event date", "Event location type"),
    *("Event time", "Team ID", "School", "School code", "Patient Count"),
)
_OFFLINE_COLUMNS = (
    *("PERSON_FORENAME", "PERSON_SURNAME", "ORGANISATION_CODE", "SCHOOL_NAME", "CLINIC_NAME", "CARE_SETTING"),
    *("PERSON_DOB", "YEAR_GROUP", "REGISTRATION", "PERSON_GENDER_CODE", "PERSON_ADDRESS_LINE_1", "PERSON_POSTCODE"),
    *("NHS_NUMBER", "CONSENT_STATUS", "CONSENT_DETAILS", "HEALTH_QUESTION_ANSWERS", "TRIAGE_STATUS", "TRIAGED_BY"),
    *("TRIAGE_DATE", "TRIAGE_NOTES", "GILLICK_STATUS", "GILLICK_ASSESSMENT_DATE", "GILLICK_ASSESSED_BY"),
    *("GILLICK_ASSESSMENT_NOTES", "PSD_STATUS", "VACCINATED", "DATE_OF_VACCINATION", "TIME_OF_VACCINATION"),
    *("PROGRAMME", "VACCINE_GIVEN", "PERFORMING_PROFESSIONAL_EMAIL", "SUPPLIER_EMAIL", "BATCH_NUMBER"),
    *("BATCH_EXPIRY_DATE", "ANATOMICAL_SITE", "DOSE_SEQUENCE", "REASON_NOT_VACCINATED", "NOTES", "SESSION_ID", "UUID"),
)
type _Cells = dict[str, str]

#: The first NHS number that is never issued, without its last digit.
_FIRST = 999_000_000

#: What DPS finds wrong with rows in which nothing is wrong, in the form in which it says so.
_REFUSALS = (
    "Validation errors: lotNumber is not a batch of this vaccine",
    "Validation errors: expirationDate is not that of this batch",
)

# No word of any language, nor part of one that a log might hold.
_FORENAMES = (
    "Quorzel", "Vaxendra", "Zyphlin", "Thwenna", "Ozmirel", "Jaxquine", "Brimvolt", "Fyndrel", "Xanthropa", "Wexmora",
    "Zéphyrque", "Bjørnvik", "Łuszkova", "Çağrhan", "Ñanquelo", "Siobhánvey", 'Mabzel "Pipzo" Quenth', "D\u2019Arzhou",
    "Krzhanna", "Ytterzel", "Umbriquel", "Plovnik", "Grizelvane", "Hjalmquist",
)  # fmt: skip
_SURNAMES = (
    "Vorzhakken", "Quimbelthwick", "Zarnovitch", "Thrupplewyn", "Oxvandrel", "Fjelstravn", "Brackzenhof", "Wyzgorod",
    "O'Quellzhan", "MacZyphren", "von Trazmund-Kleczk", "Šťastnývek", "Gößlzwanger", "Ibáñezqui", "Zhuravkov|Bryx",
    "Dziękowzny", "Ploughzmire", "Xylanderz", "Jörmunvald", "Kvetchlund", "Umzimvubu", "Yngvarzon",
    'Quade "Zedric" Plumz', "Hrothzgarsen", "Czibulkova", "Nzwangolo", "Vlkodlakov", "Æthelzwyth",
)  # fmt: skip
_PROFESSIONALS = (("Florzence", "Nightzingel"), ("Edwyrn", "Jennzerov"), ("", ""), ("Maryzka", "Seacolvey"))
_AREAS = ("QX", "VZ", "XJ", "JQ")
_GENDERS = ("female", "male", "Not Known", "not specified", "Female", "MALE", "indeterminate", "unknown")
_DATE_FORMS = ("%Y%m%d", "%Y-%m-%d", "%d/%m/%Y")
_SCHOOLS = ("123456", "138213", "888888", "999999", "", "110345")


@dataclass(frozen=True, slots=True)
class TeamFile:
    """An upload as a team's own system writes it.

    Attributes
    ----------
    name
        Of the file.
    system
        What has written it.
    csv
        The file.
    accepted
        By programme, how many records are accepted.
    skipped
        Rows about somebody who was not vaccinated.
    """

    name: str
    system: str
    csv: bytes = field(repr=False)
    accepted: dict[str, int]
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class SampleUpload:
    """An upload, and what is to become of it.

    Attributes
    ----------
    csv
        The file.
    accepted
        By programme, how many records are accepted.
    duplicates
        Rows that say again what an earlier row said.
    bad_lines
        The lines of the rows that are rejected.
    skipped
        Rows about somebody who was not vaccinated.
    personal_values
        Every name, NHS number, postcode and date of birth in it, in each way it may be written.
    to_update, to_withdraw
        UUIDs of rows that `corrected_upload` changes.
    to_refuse
        Rows that DPS does not like, and why, by UUID; `corrected_upload` changes them, too.
    others
        Files of other vaccinations, each as another system writes them.
    """

    csv: bytes = field(repr=False)
    accepted: dict[str, int]
    duplicates: int
    bad_lines: list[int]
    skipped: int
    personal_values: frozenset[str] = field(repr=False)
    to_update: str
    to_withdraw: str
    to_refuse: dict[str, str]
    others: tuple[TeamFile, ...]


def sample_upload(today: date, *, rows: int = ROWS, bad: int = BAD_ROWS) -> SampleUpload:
    """Make an upload of vaccinations in all programmes during the four weeks before a day.

    It is always the same for the same day. Among the good rows are a few bad ones, duplicates, and one of somebody who
    was not vaccinated. It is written as Excel writes CSV: byte-order mark, CRLF, a row of instructions.

    Parameters
    ----------
    rows
        How many good rows it has, at least `LEAST_TO_CORRECT`.
    bad
        How many rows have something wrong with them.
    """
    people = _people_of(Form.CSV)
    good, faulty, absent = _good_rows(people, today, rows), _bad_rows(people, today, bad), _absent(people, today)
    with_uuid = [row for row in good if row["UUID"]]
    to_update, to_withdraw, *to_refuse = (
        next(row for row in with_uuid if row["PROGRAMME"] in PROGRAMMES[key].upload_names)
        for key in ("hpv", "menacwy", "flu", "mmr")
    )
    put_together = _put_together(good, faulty, absent)
    of_others = [_people_of(form) for form in (Form.SYSTMONE, Form.OFFLINE, Form.SEMICOLONS)]
    makers = (_systmone, _offline_spreadsheet, _semicolons)
    others = tuple(make(others, today) for make, others in zip(makers, of_others, strict=True))
    return SampleUpload(
        csv=_written(put_together),
        accepted=_by_programme(good),
        duplicates=len(put_together) - len(good) - len(faulty) - 1,
        bad_lines=[_line_of(place, put_together) for place, row in enumerate(put_together) if row in faulty],
        skipped=1,
        personal_values=frozenset().union(*(each.personal_values for each in (people, *of_others))),
        to_update=to_update["UUID"],
        to_withdraw=to_withdraw["UUID"],
        to_refuse={row["UUID"]: why for row, why in zip(to_refuse, _REFUSALS, strict=True)},
        others=others,
    )


def sample_file(form: Form, today: date, *, rows: int, bad: int) -> bytes:
    """Make a file to upload, as one of the systems that teams use writes it.

    It is always the same for the same day. The CSV has the rows of `sample_upload`; each form has one row of somebody
    who was not vaccinated where it can say so.

    Parameters
    ----------
    today
        The day it is made; the vaccinations were given in the four weeks before.
    rows, bad
        How many good rows it has, and how many rows with something wrong with them.
    """
    people = _people_of(form)
    match form:
        case Form.CSV:
            good, faulty = _good_rows(people, today, rows), _bad_rows(people, today, bad)
            return _written(_put_together(good, faulty, _absent(people, today)))
        case Form.JSONL:
            return _json_lines(_good_rows(people, today, rows + bad), today, bad)
        case Form.SYSTMONE:
            return _systmone(people, today, rows, bad).csv
        case Form.OFFLINE:
            return _offline_spreadsheet(people, today, rows, bad).csv
        case Form.SEMICOLONS:
            return _semicolons(people, today, rows, bad).csv


def corrected_upload(sample: SampleUpload) -> bytes:
    """Return the sample with rows corrected: one that was to be, those that DPS refuses, and one now withdrawn."""
    reader = csv.DictReader(io.StringIO(sample.csv.decode("utf-8-sig"), newline=""))
    next(reader)  # the instructions
    rows = list(reader)
    for row in rows:
        if row["UUID"] == sample.to_update or row["UUID"] in sample.to_refuse:
            row["BATCH_NUMBER"] += "X"
        elif row["UUID"] == sample.to_withdraw:
            row["VACCINATED"] = "No"
    return _written(rows)


def make_batch_lines(n: int, programme: str = "hpv") -> Iterator[bytes]:
    """Make ``n`` lines of a batch object, quickly, varied as a big night's are."""
    chance = random.Random(n)  # noqa: S311 - made-up data
    people = _People(chance)
    some = list(islice(people.endless(), 2003))
    some = [person for i, person in enumerate(some) if f"{person.forename}{person.surname}".isascii() or not i % 10]
    vaccines = [vaccine for vaccine in VACCINES.values() if vaccine.programme == programme]
    sites = [key for key, site in SITES.items() if site.method == "injection"]
    born = date(2008, 9, 1)
    for i in range(n):
        person = some[i % len(some)]
        vaccine = vaccines[i % len(vaccines)]
        yield orjson.dumps(
            {
                "action": "new",
                "line": i + 2,
                "digest": f"{chance.getrandbits(256):064x}",
                "owner": "R1L",
                "owned_since": "2026-01-01T12:00:00+00:00 01234567 0000",
                "stated_at": "2026-01-01T12:00:00+00:00 01234567 0000",
                "uuid": UUID(int=chance.getrandbits(128), version=4),
                "organisation_code": "R1L",
                "nhs_number": person.nhs_number,
                "forename": person.forename,
                "surname": some[i * 7 % len(some)].surname,
                "date_of_birth": born + timedelta(days=i * 31 % 2500),
                "gender": ("female", "male", "not_known", "not_specified")[i % 4],
                "postcode": person.postcode,
                "vaccine": vaccine.key,
                "programme": programme,
                "dose_sequence": 1 + i % 2,
                "site": "nose" if vaccine.method == "nasal" else sites[i % len(sites)],
                "vaccinated_at": f"2025-{1 + i % 12:02}-{1 + i % 28:02}T{9 + i % 7:02}:{i % 60:02}:{i * 17 % 60:02}",
                "recorded_on": "2026-01-01",
                "batch_number": f"AB{i % 40:04}",
                "expiry": f"2027-{1 + i % 12:02}-28",
                "school_urn": f"{100000 + i % 25000}" if i % 10 else "888888",
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )


@dataclass(frozen=True, slots=True)
class _Person:
    forename: str
    surname: str
    nhs_number: str
    date_of_birth: date
    postcode: str


class _People:
    """Makes people up, and remembers all that is personal about them."""

    def __init__(self, chance: random.Random, first: int = _FIRST) -> None:
        self.chance = chance
        self._first = first
        self.personal_values: set[str] = set()
        self._made = self.endless()

    def endless(self) -> Iterator[_Person]:
        """Make up person after person, no two of whom share an NHS number."""
        for number in _nhs_numbers(self._first):
            choice, digits = self.chance.choice, self.chance.randrange
            yield _Person(
                forename=choice(_FORENAMES),
                surname=choice(_SURNAMES),
                nhs_number=number,
                date_of_birth=date(2010, 9, 1) + timedelta(days=digits(2000)),
                postcode=f"{choice(_AREAS)}{digits(1, 99)} {digits(10)}{choice('ABDEFGH')}{choice('JLNPQRS')}",
            )

    def next(self) -> _Person:
        """Make up one person, and remember what is personal about them in each way it may be written."""
        person = next(self._made)
        born = person.date_of_birth
        number = person.nhs_number
        postcode = person.postcode
        self.remember(person.forename, person.surname)
        self.personal_values |= {number, _spaced(number), postcode, postcode.replace(" ", "")}
        self.personal_values |= {postcode.lower(), postcode.lower().replace(" ", "")}
        self.personal_values |= {born.strftime(form) for form in _DATE_FORMS}
        return person

    def remember(self, *names: str) -> None:
        """Remember names, as they are and as JSON and CSV may write them."""
        for name in filter(None, names):
            self.personal_values |= {name, json.dumps(name)[1:-1], name.replace('"', '""')}


def _people_of(form: Form) -> _People:
    """Return the people in the files of a form: each has its own, but CSV and JSON Lines, which state the same."""
    place = list(Form).index(Form.CSV if form == Form.JSONL else form)
    return _People(random.Random(20240823 + place), _FIRST + 100_000 * place)  # noqa: S311 - made-up data


def _vaccination(programme: Programme, number: int, people: _People, today: date) -> _Cells:
    """Make one good row; ``number`` chooses among all that may vary."""
    person = people.next()
    vaccines: list[Vaccine | None] = [v for v in VACCINES.values() if v.programme == programme.key]
    vaccine = [*vaccines, None][number % (len(vaccines) + 1)]
    method = vaccine.method if vaccine else "injection"
    site = _nth([s for s in SITES.values() if s.method == method], number)
    given_on = today - timedelta(days=1 + number * 5 % 28)
    professional = _nth(_PROFESSIONALS, number)
    people.remember(*professional)
    doses = ["", *programme.dose_codes, "1", "2"]
    name = _nth(programme.upload_names, number)
    if vaccine and number % 7 == 3:
        name = "MMR" if programme.key == "mmrv" else ""  # the vaccine tells it
    return {
        "ORGANISATION_CODE": _nth(("", "R1L", "r1l"), number),
        "SCHOOL_URN": _nth(_SCHOOLS, number),
        "SCHOOL_NAME": "",
        "NHS_NUMBER": _nth((person.nhs_number, _spaced(person.nhs_number), person.nhs_number, ""), number),
        "PERSON_FORENAME": person.forename,
        "PERSON_SURNAME": person.surname,
        "PERSON_DOB": person.date_of_birth.strftime(_nth(_DATE_FORMS, number)),
        "PERSON_GENDER_CODE": _nth(_GENDERS, number),
        "PERSON_POSTCODE": _nth((person.postcode, person.postcode.lower(), person.postcode.replace(" ", "")), number),
        "VACCINATED": _nth(("Yes", "Y", "yes", "") if vaccine else ("Y", "yes"), number),
        "REASON_NOT_VACCINATED": "",
        "DATE_OF_VACCINATION": given_on.strftime(_nth(_DATE_FORMS, number // 2)),
        "TIME_OF_VACCINATION": _nth(("", "09:30", "10:15:30", "14:05"), number),
        "PROGRAMME": name,
        "VACCINE_GIVEN": _nth(vaccine.upload_names, number) if vaccine else "",
        "BATCH_NUMBER": f"{programme.key[:2].upper()}{1000 + number % 3}" if number % 9 else "",
        "BATCH_EXPIRY_DATE": (today + timedelta(days=200)).strftime(_nth(_DATE_FORMS, number)) if number % 5 else "",
        "ANATOMICAL_SITE": _nth(site.upload_names, number) if number % 11 else "",
        "DOSE_SEQUENCE": _nth(doses, number),
        "PERFORMING_PROFESSIONAL_FORENAME": professional[0],
        "PERFORMING_PROFESSIONAL_SURNAME": professional[1],
        "NOTES": "two lines,\nof notes" if number == 17 else "",
        "UUID": str(UUID(int=people.chance.getrandbits(128), version=4)) if number % 2 else "",
    }


def _good_rows(people: _People, today: date, rows: int) -> list[_Cells]:
    """Make rows with nothing wrong in them, of all programmes in turn."""
    programmes = list(PROGRAMMES.values())
    return [_vaccination(_nth(programmes, n), n // len(programmes), people, today) for n in range(rows)]


def _by_programme(good: list[_Cells]) -> dict[str, int]:
    """Count good rows by programme: they take turns."""
    return dict(Counter(_nth(list(PROGRAMMES), n) for n in range(len(good))))


def _bad_rows(people: _People, today: date, number: int) -> list[_Cells]:
    """Make rows each of which has several things wrong with it."""
    future = (today + timedelta(days=40)).isoformat()
    programmes = ("hpv", "flu", "menacwy", "mmr", "td_ipv")
    faults: list[_Cells] = [
        {"DATE_OF_VACCINATION": future},
        {"PERSON_SURNAME": "", "PERSON_POSTCODE": "nowhere", "VACCINE_GIVEN": "Revaxis"},
        {"BATCH_NUMBER": "A-1", "DATE_OF_VACCINATION": "30/02/2024", "DOSE_SEQUENCE": "12"},
        {"UUID": "17", "ANATOMICAL_SITE": "nasal", "TIME_OF_VACCINATION": "25:00"},
        {"PERSON_GENDER_CODE": "", "PERSON_DOB": future, "VACCINATED": "perhaps"},
    ]
    bad = []
    for n in range(number):
        row = _vaccination(PROGRAMMES[_nth(programmes, n)], 5, people, today) | _nth(faults, n)
        if n % len(faults) == 0:
            digits = row["NHS_NUMBER"].replace(" ", "")
            row["NHS_NUMBER"] = digits[:9] + str((int(digits[9]) + 1) % 10)
            people.personal_values.add(row["NHS_NUMBER"])
        bad.append(row)
    return bad


def _absent(people: _People, today: date) -> _Cells:
    """Make a row of somebody who was not vaccinated."""
    return _vaccination(PROGRAMMES["flu"], 0, people, today) | {
        "UUID": "",
        "VACCINATED": "No",
        "REASON_NOT_VACCINATED": "absent from school",
        "DATE_OF_VACCINATION": "",
        "VACCINE_GIVEN": "",
        "BATCH_NUMBER": "",
    }


def _put_together(good: list[_Cells], bad: list[_Cells], absent: _Cells) -> list[_Cells]:
    """Put bad rows among the good ones, whoever was not vaccinated in the middle, and a few rows again at the end."""
    rows = list(good)
    apart = len(good) // (len(bad) + 1)
    for number, row in enumerate(bad, start=1):
        rows.insert(number * apart + number - 1, row)
    rows[len(rows) // 2 : len(rows) // 2] = [absent]
    return rows + good[5:60:11]


def _json_lines(rows: list[_Cells], today: date, bad: int) -> bytes:
    """Write rows as JSON Lines, the last of them with something wrong."""
    stated = read_csv(io.BytesIO(_written(rows)), organisation_code="R1L", today=today)
    lines = [row.record.model_dump(mode="json", exclude_none=True) for row in stated if isinstance(row, Vaccinated)]
    faults = ({"surname": "", "gender": "Female"}, {"vaccinated_at": (today + timedelta(days=40)).isoformat()})
    for number in range(bad):
        lines[-1 - number] |= _nth(faults, number)
    return b"".join(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE) for line in lines)


def _spoil(rows: list[_Cells], bad: int, surname: str, day: str, future: str) -> None:
    """Put something wrong into the last rows of a file of another system."""
    for number in range(bad):
        rows[-1 - number] |= _nth(({surname: ""}, {day: future}), number)


def _systmone(people: _People, today: date, good: int = 6, bad: int = 0) -> TeamFile:
    """Make a report of SystmOne: columns of its own, and programme, vaccine and dose in one of them."""
    types = {
        "Cervarix 1": "hpv",
        "HPV 2": "hpv",
        "MenACWY 1": "menacwy",
        "Td/IPV 1st Scheduled Booster": "td_ipv",
        "MMR 2": "mmr",
        "Fluenz 1": "flu",
    }
    schools = ("123456", "110158A", "TT110158")
    rows = []
    for number in range(good + bad):
        person = people.next()
        rows.append(
            {
                "Date of birth": f"{person.date_of_birth:%Y%m%d}",
                "NHS number": _spaced(person.nhs_number),
                "Vaccination batch number": f"SY{100 + number}",
                "Vaccination reason": "Routine",
                "Vaccination type": _nth(list(types), number),
                "First name": person.forename,
                "Postcode": person.postcode,
                "Sex": ("Female", "Male")[number % 2],
                "Surname": person.surname,
                "Event date": f"{today - timedelta(days=1 + number % 28):%Y%m%d}",
                "Event location type": "School",
                "School code": schools[number % len(schools)],
                "Patient Count": "1",
            }
        )
    _spoil(rows, bad, "Surname", "Event date", f"{today + timedelta(days=40):%Y%m%d}")
    accepted = Counter(_nth(list(types.values()), number) for number in range(good))
    return TeamFile("systmone.csv", "SystmOne", _table(_SYSTMONE_COLUMNS, rows), dict(accepted))


def _offline_spreadsheet(people: _People, today: date, good: int = 4, bad: int = 0) -> TeamFile:
    """Make Mavis's offline spreadsheet, saved as CSV in Excel: one row a child, vaccinated or not."""
    vaccines = (("HPV", "Gardasil9"), ("HPV", "Gardasil9"), ("MenACWY", "MenQuadfi"), ("MenACWY", "Nimenrix"))
    vaccinated = [*(_nth(vaccines, number) for number in range(good)), None]
    vaccinated += [_nth(vaccines, number) for number in range(bad)]
    rows = []
    for number, given in enumerate(vaccinated):
        person = people.next()
        rows.append(
            {
                "PERSON_FORENAME": person.forename,
                "PERSON_SURNAME": person.surname,
                "ORGANISATION_CODE": "R1L",
                "CARE_SETTING": "1",
                "PERSON_DOB": f"{person.date_of_birth:%d/%m/%Y}",
                "YEAR_GROUP": "8",
                "PERSON_GENDER_CODE": ("not_known", "not_specified", "female")[number % 3],
                "PERSON_POSTCODE": "" if number == 1 else person.postcode,
                "NHS_NUMBER": person.nhs_number,
                "CONSENT_STATUS": "Consent given",
                "HEALTH_QUESTION_ANSWERS": "Allergies: no\r\nAsthma: no",
                "PROGRAMME": given[0] if given else "HPV",
                "SESSION_ID": "17",
                "VACCINATED": "Y" if given else "N",
            }
            | (
                {
                    "DATE_OF_VACCINATION": f"{today - timedelta(days=2):%d/%m/%Y}",
                    "TIME_OF_VACCINATION": f"{9 + number % 7}:30",
                    "VACCINE_GIVEN": given[1],
                    "BATCH_NUMBER": f"OF{100 + number}",
                    "BATCH_EXPIRY_DATE": f"{today + timedelta(days=200):%d/%m/%Y}",
                    "ANATOMICAL_SITE": "left arm (upper position)",
                    "DOSE_SEQUENCE": "1",
                }
                if given
                else {"REASON_NOT_VACCINATED": "absent from session"}
            )
        )
    _spoil(rows, bad, "PERSON_SURNAME", "DATE_OF_VACCINATION", f"{today + timedelta(days=40):%d/%m/%Y}")
    body = _table(_OFFLINE_COLUMNS, rows, encoding="utf-8-sig")
    accepted = Counter(_nth(("hpv", "hpv", "menacwy", "menacwy"), number) for number in range(good))
    return TeamFile("offline.csv", "Mavis's offline spreadsheet", body, dict(accepted), skipped=1)


def _semicolons(people: _People, today: date, good: int = 4, bad: int = 0) -> TeamFile:
    """Make a file as Excel saves it where a comma is the decimal sign: semicolons, and Windows-1252."""
    programmes = ("flu", "flu", "mmrv", "mmrv")
    people.remember("Zéphyrine", "Fjörnsson")
    named = {"PERSON_FORENAME": "Zéphyrine", "PERSON_SURNAME": "Fjörnsson", "UUID": ""}  # what Windows-1252 can say
    rows = [
        _vaccination(PROGRAMMES[_nth(programmes, number)], 3 * number + 1, people, today) | named
        for number in range(good + bad)
    ]
    _spoil(rows, bad, "PERSON_SURNAME", "DATE_OF_VACCINATION", f"{today + timedelta(days=40):%Y%m%d}")
    accepted = Counter(_nth(programmes, number) for number in range(good))
    body = _table(_COLUMNS, rows, delimiter=";", encoding="cp1252")
    return TeamFile("semicolons.csv", "Excel with semicolons", body, dict(accepted))


def _table(columns: Sequence[str], rows: list[_Cells], *, delimiter: str = ",", encoding: str = "utf-8") -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter=delimiter, lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode(encoding)


def _line_of(place: int, rows: list[_Cells]) -> int:
    """Tell the line a row begins on: after the header, the instructions and the rows before it."""
    return 3 + sum(1 + row["NOTES"].count("\n") for row in rows[:place])


def _written(rows: list[_Cells]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, _COLUMNS, lineterminator="\r\n")
    writer.writeheader()
    writer.writerow(dict.fromkeys(_COLUMNS, "Optional") | {"ORGANISATION_CODE": "Required, your ODS code"})
    writer.writerows(rows)
    return text.getvalue().encode("utf-8-sig")


def _nhs_numbers(first: int) -> Iterator[str]:
    """Count through the NHS numbers that are valid and never issued, without their last digit."""
    for body in count(first):
        check = 11 - sum(int(digit) * weight for digit, weight in zip(str(body), range(10, 1, -1), strict=True)) % 11
        if check != 10:
            yield f"{body}{check % 11}"


def _spaced(number: str) -> str:
    return f"{number[:3]} {number[3:6]} {number[6:]}"


def _nth[T](things: Sequence[T], number: int) -> T:
    return things[number % len(things)]
