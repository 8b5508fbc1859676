"""What a vaccination record promises: every rule kept, every fault found at once, nothing personal repeated."""

from __future__ import annotations

import unicodedata
from datetime import date, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from vaccinations.formats.batches import digest_of
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.record import VaccinationRecord, problems_of
from vaccinations.model.text import is_plain, plain

TODAY = date(2026, 3, 10)

STATED: dict[str, Any] = {
    "uuid": "496e37d8-d1ab-4e12-a3a3-9c2e136a0504",
    "organisation_code": "R1L",
    "nhs_number": "9992686766",
    "forename": "Brenton",
    "surname": "Waters",
    "date_of_birth": "2012-08-18",
    "gender": "not_known",
    "postcode": "UC0W 0JL",
    "vaccinated_at": "2025-06-09T10:15:00",
    "programme": "hpv",
    "vaccine": "gardasil_9",
    "batch_number": "CD5472",
    "expiry": "2026-09-30",
    "site": "left_arm_upper_position",
    "dose_sequence": 1,
    "school_urn": "123456",
}
REQUIRED = {
    "uuid",
    "organisation_code",
    "forename",
    "surname",
    "date_of_birth",
    "gender",
    "postcode",
    "programme",
    "vaccinated_at",
}


def record(**changes: Any) -> VaccinationRecord:
    return VaccinationRecord.model_validate(STATED | changes, context={"today": TODAY})


def faults(**changes: Any) -> dict[str, str]:
    """Return what is wrong with the record, by field."""
    with pytest.raises(ValidationError) as caught:
        record(**changes)
    return {problem.column: f"{problem.what}: {problem.fix}" for problem in problems_of(caught.value)}


def test_a_record_keeps_what_was_stated() -> None:
    kept = record()
    assert kept.uuid == UUID("496e37d8-d1ab-4e12-a3a3-9c2e136a0504")
    assert (kept.forename, kept.surname, kept.nhs_number) == ("Brenton", "Waters", "9992686766")
    assert kept.vaccinated_at == datetime(2025, 6, 9, 10, 15)  # noqa: DTZ001 - London time, as stated
    assert kept.route is None, "the route follows from the site, it was not stated"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("route", "intramuscular"),
        ("site", "right_thigh"),
        ("recorded_on", date(2026, 3, 1)),
        ("expiry", date(2027, 1, 31)),
        ("professional_forename", "Florence"),
        ("professional_surname", "Nightingale"),
        ("batch_number", "AB1234"),
        ("school_urn", "999999"),
        ("dose_sequence", 3),
    ],
)
def test_what_may_be_stated_is_kept_as_it_was_stated(field: str, value: object) -> None:
    assert getattr(record(**{field: value}), field) == value


def test_what_is_no_record_at_all_is_told_without_a_field() -> None:
    with pytest.raises(ValidationError) as caught:
        VaccinationRecord.model_validate([], context={"today": TODAY})
    [problem] = problems_of(caught.value)
    assert (problem.column, problem.what) == ("", "does not have the right form")


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        record().surname = "Rivers"


@pytest.mark.parametrize("field", sorted(REQUIRED))
@pytest.mark.parametrize("empty", [None, "", "  ", "left out"])
def test_a_required_field_may_not_be_missing(field: str, empty: str | None) -> None:
    stated = {name: value for name, value in STATED.items() if name != field}
    if empty != "left out":
        stated[field] = empty
    with pytest.raises(ValidationError) as caught:
        VaccinationRecord.model_validate(stated, context={"today": TODAY})
    [problem] = problems_of(caught.value)
    assert problem.column == field
    if empty in {None, "left out"}:
        assert problem.what == "is missing"


@pytest.mark.parametrize("field", sorted(set(VaccinationRecord.model_fields) - REQUIRED))
def test_an_optional_field_may_be_null_or_empty(field: str) -> None:
    assert getattr(record(**{field: None}), field) is None
    if field != "dose_sequence":
        assert getattr(record(**{field: ""}), field) is None


def test_all_faults_are_found_at_once() -> None:
    found = faults(
        uuid="17",
        organisation_code="R-1",
        nhs_number="9992686767",
        forename="",
        surname="W" * 36,
        date_of_birth="18/08/2012",
        gender="f",
        postcode="nowhere",
        programme="hepb",
        vaccine="calpol",
        site="elbow",
        route="oral",
        vaccinated_at="2026-03-11T00:00:00",
        recorded_on="2026-03-11",
        batch_number="A",
        expiry="2045-01-01",
        dose_sequence=10,
        school_urn="12345",
        professional_surname="Night\x1bingale",
        shoe_size=5,
    )
    assert list(found) == [
        "uuid",
        "organisation_code",
        "nhs_number",
        "forename",
        "surname",
        "date_of_birth",
        "gender",
        "postcode",
        "vaccine",
        "programme",
        "dose_sequence",
        "site",
        "route",
        "vaccinated_at",
        "recorded_on",
        "professional_surname",
        "batch_number",
        "expiry",
        "school_urn",
        "shoe_size",
    ]


def test_faults_between_fields_are_found_beside_others() -> None:
    found = faults(forename="", vaccine="fluenz", vaccinated_at="2012-08-17T23:00:00", school_urn="x")
    assert set(found) == {"forename", "programme", "site", "vaccinated_at", "school_urn"}


@pytest.mark.parametrize("number", ["9992686766", "999 268 6766", " 9992686766 ", "9434765919", "9990000107"])
def test_a_valid_nhs_number_is_accepted_with_or_without_spaces(number: str) -> None:
    kept = record(nhs_number=number).nhs_number
    assert kept == number.replace(" ", "")


@given(st.from_regex(r"[0-9]{9}", fullmatch=True))
def test_of_all_check_digits_at_most_one_is_right(body: str) -> None:
    weighted = sum(int(digit) * (10 - place) for place, digit in enumerate(body)) % 11
    valid = {0: {"0"}, 1: set()}.get(weighted, {str(11 - weighted)}) - ({body[0]} if body == body[0] * 9 else set())
    accepted = set()
    for digit in "0123456789":
        try:
            record(nhs_number=body + digit)
        except ValidationError:
            continue
        accepted.add(digit)
    assert accepted == valid


@pytest.mark.parametrize("number", ["999268676", "99926867666", "999-268-6766", "abcdefghij", "٩٩٩٢٦٨٦٧٦٦", 9992686766])
def test_what_is_not_ten_digits_is_no_nhs_number(number: object) -> None:
    assert list(faults(nhs_number=number)) == ["nhs_number"]


@pytest.mark.parametrize("digit", "0123456789")
def test_one_digit_ten_times_is_no_nhs_number_though_its_check_digit_matches(digit: str) -> None:
    right = "the NHS number as issued, or nothing where it is not known"
    assert faults(nhs_number=digit * 10)["nhs_number"] == f"is one digit ten times: {right}"


@pytest.mark.parametrize(
    ("written", "kept"),
    [
        ("sw1a1aa", "SW1A 1AA"),
        ("SW1A  1AA", "SW1A 1AA"),
        (" m1 1ae ", "M1 1AE"),
        ("gir0aa", "GIR 0AA"),
        ("zz993wz", "ZZ99 3WZ"),
        ("B338TH", "B33 8TH"),
        ("CR2\u00a06XH", "CR2 6XH"),
        ("uc0w0jl", "UC0W 0JL"),
    ],
)
def test_a_postcode_is_kept_in_one_form(written: str, kept: str) -> None:
    assert record(postcode=written).postcode == kept


@pytest.mark.parametrize("postcode", ["SW1A", "1AA SW1A", "SW1A 1A1", "SW1A-1AA", "ABC1 1AA", "D02 AF30", "SW1A 1AA1"])
def test_what_is_not_a_uk_postcode_is_rejected(postcode: str) -> None:
    assert list(faults(postcode=postcode)) == ["postcode"]


def test_names_may_be_as_long_as_dps_takes_and_no_longer() -> None:
    assert record(forename="F" * 180, surname="S" * 35, professional_surname="P" * 300)
    assert set(faults(forename="F" * 181, surname="S" * 36, professional_surname="P" * 301)) == {
        "forename",
        "surname",
        "professional_surname",
    }
    assert "at most 180" in faults(forename="F" * 1000)["forename"]


@pytest.mark.parametrize(
    "name", ["Zoë", "O'Brien", "Łukasz", 'Ann "Annie"', "Smith|Jones", "张伟", "نور", "D\u2019Arcy", "a\u200cb"]
)
def test_names_of_all_writings_are_accepted(name: str) -> None:
    assert record(surname=name).surname == name


@pytest.mark.parametrize(
    "character",
    [*map(chr, {*range(32)} - {*b"\t\n\v\f\r"}), "\x7f", "\x85", "\x9f", "\u2028", "\u2029", "\u202e", "\u2066"],
)
def test_control_characters_do_not_go_out_inside_a_name(character: str) -> None:
    found = faults(forename=f"Ann{character}Marie")
    assert list(found) == ["forename"]
    assert "control character" in found["forename"]


@pytest.mark.parametrize(
    "character", ["\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u061c", "\ufeff", "\u200b", "\ud800"]
)
def test_what_hides_or_turns_text_does_not_go_out(character: str) -> None:
    assert list(faults(professional_forename=f"Ann{character}")) == ["professional_forename"]


def test_space_around_a_text_is_not_part_of_it() -> None:
    assert record(surname=" \tWaters\r\n").surname == "Waters"
    assert record(professional_forename="   ").professional_forename is None
    assert record(professional_forename="\u200d\u00a0").professional_forename is None


@pytest.mark.parametrize("between", ["  ", "\t", "\r\n", "\u00a0", " \u00a0\n ", " \u200d "])
def test_whatever_space_is_between_words_is_one_space(between: str) -> None:
    assert record(forename=f"Anne{between}Marie").forename == "Anne Marie"
    assert digest_of(record(forename=f"Anne{between}Marie")) == digest_of(record(forename="Anne Marie"))


def test_the_joiner_that_web_pages_put_into_numbers_is_left_out() -> None:
    assert record(nhs_number="999\u200d\u00a0268\u200d\u00a06766").nhs_number == "9992686766"
    assert record(forename="Chy\u200dna").forename == "Chyna"


@given(st.text(st.sampled_from(" \t\n\u00a0\u200dae\u0301\u00e9") | st.characters(), max_size=20))
def test_text_is_brought_into_one_form_once_and_for_all(text: str) -> None:
    kept = plain(text)
    assert plain(kept) == kept == kept.strip()
    assert not set(kept) & set("\t\n\v\f\r\u00a0\u200d")
    assert "  " not in kept
    assert plain(f" {text}\n") == kept
    if is_plain(text):
        assert kept == text.strip()


@given(st.text(max_size=40))
def test_no_text_gets_in_that_breaks_a_row(text: str) -> None:
    try:
        kept = record(forename=text).forename
    except ValidationError:
        return
    assert kept == kept.strip() != ""
    assert unicodedata.is_normalized("NFC", kept)
    assert not [character for character in kept if unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}]
    assert len(f"a{kept}b".splitlines()) == 1


@pytest.mark.parametrize(
    ("born", "right"),
    [("2026-03-09", True), ("2026-03-10", False), ("2030-01-01", False), ("1899-12-31", False), ("0012-08-18", False)],
)
def test_a_date_of_birth_is_in_the_past(born: str, *, right: bool) -> None:
    changes = {"date_of_birth": born, "vaccinated_at": "2026-03-10T09:00:00"}
    if right:
        assert record(**changes)
    else:
        assert list(faults(**changes)) == ["date_of_birth"]


@pytest.mark.parametrize(
    "value", ["2012-02-30", "20120818", "18/08/2012", "", 1345248000, "1345248000", True, "2012-08-18T00:00"]
)
def test_what_is_not_a_date_is_rejected(value: object) -> None:
    assert list(faults(date_of_birth=value)) == ["date_of_birth"]


@pytest.mark.parametrize(
    "value",
    ["yesterday", "2025-02-30T10:00:00", 1718000000, "", "2025-06-09T10:00:00+00:00:30", "9999-12-31T23:59:59-12:00"],
)
def test_what_is_not_a_moment_is_rejected(value: object) -> None:
    assert list(faults(vaccinated_at=value)) == ["vaccinated_at"]


@pytest.mark.parametrize(
    ("moment", "right"),
    [
        ("2026-03-10T23:59:59", True),
        ("2026-03-11T00:00:00", False),
        ("2026-03-10T23:30:00-05:00", False),  # the eleventh in London
        ("2026-03-11T03:00:00+09:00", True),  # the tenth in London
        ("2012-08-18T00:00:00", True),
        ("2012-08-17T23:59:59", False),
    ],
)
def test_a_vaccination_is_neither_in_the_future_nor_before_birth(moment: str, *, right: bool) -> None:
    if right:
        assert record(vaccinated_at=moment)
    else:
        assert list(faults(vaccinated_at=moment)) == ["vaccinated_at"]


def test_a_record_is_checked_against_the_day_that_is_given_never_the_clocks() -> None:
    with pytest.raises(KeyError, match="today"):
        VaccinationRecord.model_validate(STATED)


@pytest.mark.parametrize(
    ("expiry", "right"),
    [("2041-01-01", True), ("2041-01-02", False), ("2011-01-01", True), ("2010-12-31", False), ("2024-02-29", True)],
)
def test_an_expiry_date_is_between_new_years_days_fifteen_years_away(expiry: str, *, right: bool) -> None:
    if right:
        assert record(expiry=expiry)
    else:
        assert list(faults(expiry=expiry)) == ["expiry"]


def test_somebody_born_in_1900_may_be_vaccinated() -> None:
    assert record(date_of_birth="1900-01-01")


@pytest.mark.parametrize("letter", ["N", "Ñ"])
def test_a_text_of_three_hundred_characters_is_kept(letter: str) -> None:
    assert record(professional_surname=letter * 300).professional_surname == letter * 300


def test_what_was_given_on_new_years_eve_in_london_may_bear_the_next_year_elsewhere() -> None:
    stated = STATED | {"vaccinated_at": "2027-01-01T08:00:00+09:00"}
    assert VaccinationRecord.model_validate(stated, context={"today": date(2026, 12, 31)})


def test_a_record_is_not_recorded_in_the_future() -> None:
    assert record(recorded_on="2026-03-10")
    assert list(faults(recorded_on="2026-03-11")) == ["recorded_on"]


@pytest.mark.parametrize("number", ["A", "A B", "AB-1", "É1", "A" * 101])
def test_a_batch_number_is_letters_and_digits(number: str) -> None:
    assert list(faults(batch_number=number)) == ["batch_number"]
    assert record(batch_number="A" * 100)


@pytest.mark.parametrize("dose", [0, 10, -1, 1.5, "1", "1P", True])
def test_a_dose_is_a_whole_number_from_one_to_nine(dose: object) -> None:
    assert list(faults(dose_sequence=dose)) == ["dose_sequence"]


@pytest.mark.parametrize("programme", PROGRAMMES.values(), ids=lambda programme: programme.key)
def test_no_dose_is_past_the_last_of_its_programme(programme: Any) -> None:
    changes = {"programme": programme.key, "vaccine": None, "site": None}
    assert record(**changes, dose_sequence=programme.most_doses).dose_sequence == programme.most_doses
    told = faults(**changes, dose_sequence=programme.most_doses + 1)
    assert told == {"dose_sequence": f"is past the last dose: at most {programme.most_doses} for {programme.name}"}


@pytest.mark.parametrize("letter", ["A", "b"])
def test_a_school_number_is_kept_without_the_letter_of_a_site(letter: str) -> None:
    assert record(school_urn=f"110158{letter}").school_urn == "110158"


@pytest.mark.parametrize(
    "urn", ["12345", "1234567", "12345a", "123456ab", "a123456", 123456, "\uff11\uff12\uff13\uff14\uff15\uff16"]
)
def test_a_school_number_is_six_digits(urn: object) -> None:
    assert list(faults(school_urn=urn)) == ["school_urn"]


@pytest.mark.parametrize("code", ["U1", "R1L", "r1l", "0123456789"])
def test_an_organisation_code_is_kept_in_upper_case(code: str) -> None:
    assert record(organisation_code=code).organisation_code == code.upper()


@pytest.mark.parametrize("code", ["U", "R 1", "R-1", "R" * 11, "Ŕ1L", 17])
def test_what_is_not_an_ods_code_names_no_organisation(code: object) -> None:
    assert list(faults(organisation_code=code)) == ["organisation_code"]


@pytest.mark.parametrize(
    ("programme", "vaccine", "kept"),
    [
        ("mmr", "pro_quad", "mmrv"),
        ("mmr", "priorix_tetra", "mmrv"),
        ("mmr", "priorix", "mmr"),
        ("mmrv", "pro_quad", "mmrv"),
        ("mmrv", None, "mmrv"),
        ("mmrv", "priorix", "mmr"),
        ("hpv", "fluenz", None),
    ],
)
def test_programme_and_vaccine_agree(programme: str, vaccine: str | None, kept: str | None) -> None:
    changes = {"programme": programme, "vaccine": vaccine, "site": None}
    if kept:
        assert record(**changes).programme == kept
    else:
        assert list(faults(**changes)) == ["programme"]


@pytest.mark.parametrize(
    ("programme", "vaccine", "site", "route", "wrong"),
    [
        ("flu", "fluenz", "nose", None, set()),
        ("flu", "fluenz", "nose", "nasal_spray", set()),
        ("flu", "fluenz", None, None, set()),
        ("flu", "fluenz", "left_thigh", None, {"site"}),
        ("flu", "fluenz", None, "intramuscular", {"route"}),
        ("flu", "fluenz", "nose", "intramuscular", {"route"}),
        ("flu", "vaxigrip", "nose", None, {"site"}),
        ("flu", "vaxigrip", "left_thigh", "subcutaneous", set()),
        ("flu", None, "nose", None, set()),
        ("flu", None, "left_thigh", "nasal_spray", {"route"}),
        ("hpv", None, "nose", None, {"site"}),
        ("hpv", None, None, "nasal_spray", {"route"}),
        ("hpv", None, "left_thigh", None, set()),
    ],
)
def test_site_and_route_suit_the_vaccine(
    programme: str, vaccine: str | None, site: str | None, route: str | None, wrong: set[str]
) -> None:
    changes = {"programme": programme, "vaccine": vaccine, "site": site, "route": route}
    if wrong:
        assert set(faults(**changes)) == wrong
    else:
        assert record(**changes)


VALUES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.lists(st.integers(), max_size=2)
)


@given(st.dictionaries(st.sampled_from([*VaccinationRecord.model_fields, "other", "NHS 9992686766"]), VALUES))
def test_whatever_a_record_holds_it_is_accepted_or_its_faults_are_told(changes: dict[str, Any]) -> None:
    try:
        record(**changes)
    except ValidationError as error:
        problems = problems_of(error)
        assert problems
        assert all(problem.column and problem.what and problem.fix for problem in problems)


SECRETS = {
    "uuid": "qzxsecret-uuid",
    "organisation_code": "qzxsecret/code",
    "nhs_number": "9434765910",
    "forename": "qzxsecret\x00",
    "surname": "qzxsecret" * 40,
    "date_of_birth": "19430318x",
    "gender": "qzxsecret",
    "postcode": "QZXSECRET",
    "vaccine": "qzxsecret",
    "programme": "qzxsecret",
    "site": "qzxsecret",
    "route": "qzxsecret",
    "vaccinated_at": "19430318x",
    "batch_number": "qzx-secret",
    "expiry": "19430318x",
    "dose_sequence": "qzxsecret",
    "school_urn": "qzxsecret",
    "qzxsecret 9434765910": 1,
}


def test_no_message_repeats_a_value() -> None:
    with pytest.raises(ValidationError) as caught:
        record(**SECRETS)
    problems = problems_of(caught.value)
    assert len(problems) == len(SECRETS)
    told = f"{problems}".lower()
    for value in ("qzx", "secret", "9434765910", "19430318", "1943"):
        assert value not in told
    assert "9434765910" not in str(caught.value).replace("qzxsecret 9434765910", "")


LONG = "text of at most 300 characters"
UNFIT = "holds a control character or an invisible one: plain text"
DATE = "is not a date: a date of the calendar as YYYY-MM-DD"
MOMENT = "is not a date and time: a date and time as 2024-09-30T10:15:00, with or without an offset"
OFFSET = "has an offset that no clock has: an offset in hours and minutes, such as +01:00"
DIGITS = "is not ten digits: the ten digits of an NHS number, or nothing where it is not known"
CHECK = "has a check digit that does not match: the NHS number as issued, or nothing"
ODS = "an ODS code of 2 to 10 letters and digits"
POSTCODE = "is not a UK postcode: a postcode such as SW1A 1AA; ZZ99 3WZ where the address is not known"
NO_POSTCODE = "a UK postcode; ZZ99 3WZ where the address is not known; nothing only with an NHS number"
CENTURY = "is before the year 1900: a date with all four digits of its year"
OTHER_WAY = "does not suit the vaccine: nasal for a nasal vaccine, any other for an injected one"
SITE_OR_ROUTE = "does not suit the site: nasal_spray for the nose, any other route for any other site"
EXPIRY = "is more than 15 years away: the expiry date as on the vaccine's package"
BATCH = "does not have the right form: 2 to 100 letters and digits without spaces, or nothing"
SCHOOL = "six digits, and a site's letter; 888888 for an unknown school, 999999 for home education"
URN = f"is not a school's number: {SCHOOL}"
WORDS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a name with a control character": ({"surname": "Wa\x1bters"}, {"surname": UNFIT}),
    "a long name": (
        {"forename": "F" * 181, "surname": "S" * 36},
        {
            "forename": "is too long: the given name, at most 180 characters",
            "surname": "is too long: the family name, at most 35 characters",
        },
    ),
    "a long text": ({"professional_surname": "P" * 301}, {"professional_surname": f"is too long: {LONG}"}),
    "a text that is none": (
        {"professional_surname": 5},
        {"professional_surname": f"does not have the right form: {LONG}"},
    ),
    "no date": ({"expiry": "30/09/2026"}, {"expiry": DATE}),
    "no date of the calendar": ({"date_of_birth": "2012-02-30"}, {"date_of_birth": DATE}),
    "no moment": ({"vaccinated_at": "yesterday"}, {"vaccinated_at": MOMENT}),
    "no moment at all": ({"vaccinated_at": ""}, {"vaccinated_at": "is missing: when the vaccine was given"}),
    "an offset of seconds": ({"vaccinated_at": "2025-06-09T10:00:00+00:00:30"}, {"vaccinated_at": OFFSET}),
    "no NHS number": ({"nhs_number": "123"}, {"nhs_number": DIGITS}),
    "a mistyped NHS number": ({"nhs_number": "9992686767"}, {"nhs_number": CHECK}),
    "no ODS code": ({"organisation_code": "R-1"}, {"organisation_code": f"is not an ODS code: {ODS}"}),
    "no postcode": ({"postcode": "nowhere"}, {"postcode": POSTCODE}),
    "no gender": ({"gender": "f"}, {"gender": "is not known: one of: not_known, male, female, not_specified"}),
    "born today": ({"date_of_birth": "2026-03-10"}, {"date_of_birth": "is not in the past: the date of birth"}),
    "born in another century": ({"date_of_birth": "1812-08-18"}, {"date_of_birth": CENTURY}),
    "recorded in another century": ({"recorded_on": "1812-08-18"}, {"recorded_on": CENTURY}),
    "vaccinated in another century": (
        {"vaccinated_at": "1812-08-18T10:00:00", "date_of_birth": None},
        {"vaccinated_at": CENTURY, "date_of_birth": "is missing: the date of birth"},
    ),
    "another programme's vaccine": (
        {"programme": "flu"},
        {"programme": "does not agree with the vaccine given: HPV, or a vaccine of the programme"},
    ),
    "another vaccine's site": ({"site": "nose"}, {"site": OTHER_WAY}),
    "another vaccine's route": ({"site": None, "route": "nasal_spray"}, {"route": OTHER_WAY}),
    "another programme's site": (
        {"site": "nose", "vaccine": None},
        {"site": "does not suit the programme: the place on the body where it was injected"},
    ),
    "another site's route": ({"route": "nasal_spray"}, {"route": SITE_OR_ROUTE}),
    "given tomorrow": (
        {"vaccinated_at": "2026-03-11T00:00:00"},
        {"vaccinated_at": "is in the future: the date the vaccine was given"},
    ),
    "given in a distant future": (
        {"vaccinated_at": "9999-12-31T23:59:59-12:00"},
        {"vaccinated_at": "is in the future: the date the vaccine was given"},
    ),
    "given before birth": (
        {"vaccinated_at": "2012-08-17T10:00:00"},
        {"vaccinated_at": "is before the date of birth: a date of vaccination not before the date of birth"},
    ),
    "recorded tomorrow": (
        {"recorded_on": "2026-03-11"},
        {"recorded_on": "is in the future: the date the record was made"},
    ),
    "an expiry date far away": ({"expiry": "2045-01-01"}, {"expiry": EXPIRY}),
    "no batch number": ({"batch_number": "A"}, {"batch_number": BATCH}),
    "no URN": ({"school_urn": "12345"}, {"school_urn": URN}),
    "no dose": ({"dose_sequence": 10}, {"dose_sequence": "does not have the right form: a whole number from 1 to 9"}),
    "no UUID": (
        {"uuid": "17"},
        {"uuid": "does not have the right form: a UUID such as 496e37d8-d1ab-4e12-a3a3-9c2e136a0504"},
    ),
    "what is missing": (
        {"forename": None, "vaccinated_at": None, "postcode": "", "organisation_code": None, "programme": ""},
        {
            "organisation_code": f"is missing: {ODS}",
            "forename": "is missing: the given name, at most 180 characters",
            "postcode": f"is missing: {NO_POSTCODE}",
            "programme": "is missing: one of: flu, hpv, menacwy, mmr, mmrv, td_ipv",
            "vaccinated_at": "is missing: when the vaccine was given",
        },
    ),
    "what is no field": ({"shoe_size": 5}, {"shoe_size": "is not a field of a vaccination record: leave it out"}),
    "what is no name of a field": (
        {"NHS 9992686766": 5},
        {"(unknown)": "is not a field of a vaccination record: leave it out"},
    ),
}


@pytest.mark.parametrize(("changes", "words"), WORDS.values(), ids=WORDS)
def test_an_uploader_reads_what_is_wrong_and_what_would_be_right(
    changes: dict[str, Any], words: dict[str, str]
) -> None:
    assert faults(**changes) == words


def test_a_row_of_very_many_faults_is_told_of_fifty_and_that_there_are_more() -> None:
    for count in (49, 50, 51, 500):
        with pytest.raises(ValidationError) as caught:
            record(**{f"field_{n}": n for n in range(count)})
        problems = problems_of(caught.value)
        assert [problem.column for problem in problems[:50]] == [f"field_{n}" for n in range(min(count, 50))]
        more = ("(line)", "has more than 50 faults", "put those listed right first")
        assert [(problem.column, problem.what, problem.fix) for problem in problems[50:]] == [more] * (count > 50)


@pytest.mark.parametrize(
    ("key", "shown"),
    [("a" * 40, "a" * 40), ("a" * 41, "(unknown)"), ("_a", "(unknown)"), ("a_1", "a_1"), ("A", "(unknown)")],
)
def test_a_key_that_is_like_a_fields_name_is_repeated_and_no_other(key: str, shown: str) -> None:
    assert list(faults(**{key: 1})) == [shown]


def test_a_record_in_a_log_tells_nothing_personal() -> None:
    for text in (repr(record()), str(record())):
        assert "496e37d8-d1ab-4e12-a3a3-9c2e136a0504" in text
        assert not [value for value in ("Brenton", "Waters", "9992686766", "2012", "UC0W") if value in text]


def test_a_record_in_a_log_is_told_from_others_by_its_identifier_and_programme() -> None:
    assert repr(record()) == "VaccinationRecord(uuid='496e37d8-d1ab-4e12-a3a3-9c2e136a0504', programme='hpv')"


def test_a_columns_own_name_and_fix_are_used_where_the_upload_has_them() -> None:
    with pytest.raises(ValidationError) as caught:
        record(gender=None)
    (problem,) = problems_of(caught.value, {"gender": "PERSON_GENDER"}, {"gender": "male or female"})
    assert (problem.column, problem.what, problem.fix) == ("PERSON_GENDER", "is missing", "male or female")


# -- the digest


def test_the_digest_stays_the_same_between_releases() -> None:
    """A record that was ingested by an earlier release must still be known as unchanged."""
    assert digest_of(record()) == "37740ddcd61d9329353ce0254e1a9d574a1c6c165ac794181fcb02cd6c9461ad"


def test_the_order_of_fields_does_not_matter_to_the_digest() -> None:
    backwards = dict(reversed(STATED.items()))
    again = VaccinationRecord.model_validate(backwards, context={"today": TODAY})
    assert digest_of(again) == digest_of(record())


def test_two_ways_of_writing_the_same_are_the_same() -> None:
    def digest(**changes: Any) -> str:
        return digest_of(record(**changes))

    assert digest(forename="Zoe\u0308") == digest(forename="Zo\u00eb")
    assert digest(postcode="sw1a1aa") == digest(postcode="SW1A 1AA")
    assert digest(nhs_number="999 268 6766") == digest()
    assert digest(surname=" Waters ") == digest()
    assert digest(uuid=STATED["uuid"].upper()) == digest()
    assert digest(vaccinated_at="2025-06-09T10:15:00Z") == digest(vaccinated_at="2025-06-09T10:15:00+00:00")
    assert digest(recorded_on=None) == digest()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("forename", "Brentonn"),
        ("surname", "waters"),
        ("nhs_number", None),
        ("batch_number", None),
        ("recorded_on", "2025-06-09"),
        ("vaccinated_at", "2025-06-09T10:15:01"),
        ("vaccinated_at", "2025-06-09T10:15:00+01:00"),
        ("dose_sequence", 2),
        ("school_urn", "888888"),
        ("professional_surname", "Nightingale"),
    ],
)
def test_any_change_of_what_was_stated_changes_the_digest(field: str, value: object) -> None:
    assert digest_of(record(**{field: value})) != digest_of(record())


@given(st.integers(-23 * 60, 23 * 60))
def test_any_offset_can_be_stated(minutes: int) -> None:
    moment = datetime(2025, 6, 9, 12, tzinfo=timezone(timedelta(minutes=minutes)))
    kept = record(vaccinated_at=moment.isoformat())
    assert kept.vaccinated_at.utcoffset() == timedelta(minutes=minutes)
    assert digest_of(kept)
