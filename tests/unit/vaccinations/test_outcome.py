"""What DPS's refusal of a row means: its class, and whether the record is on file at DPS after it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from vaccinations.model.outcome import OUTCOMES, Action, OnFile, Outcome, on_file_after

URI = "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records"
RECORD, THEIRS = f"{URI}#496e37d8-d1ab-4e12-a3a3-9c2e136a0504", "Immunization#0f9c7a3e-3a2f-4a63-8a4e-3c1d"

#: What DPS says of rows, word by word, and what it is.
TEXTS = [
    ("Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'", Outcome.INVALID),
    ("No permissions for requested operation", Outcome.NOT_PERMITTED),
    ("UNIQUE_ID or UNIQUE_ID_URI is missing", Outcome.INVALID),
    ("Validation errors: contained[?(@.resourceType=='Patient')].birthDate must not be in the future", Outcome.INVALID),
    ("Validation errors: lotNumber must be a string; recorded is a mandatory field", Outcome.INVALID),
    ("1 validation error for Immunization occurrenceDateTime field required (type=value_error)", Outcome.INVALID),
    ("2 validation errors for Immunization site -> coding -> 0 -> code string does not match", Outcome.INVALID),
    ("protocolApplied[0].targetDisease[0].coding[?(@.system=='x')].code is a mandatory field", Outcome.INVALID),
    ("'None' is not a valid value for protocolApplied[0].targetDisease", Outcome.INVALID),
    (f"The provided identifier: {RECORD} is duplicated", Outcome.DUPLICATE),
    (f"Immunization resource does not exist. ID: {RECORD}", Outcome.UNKNOWN),
    (f"Immunization resource does not exist. ID: {THEIRS}", Outcome.CONCURRENT),
    (f"Immunization resource does exist. ID: {THEIRS}", Outcome.COLLISION),
    ("An unhandled error occurred during batch processing", Outcome.UNHANDLED),
    ("Unable to determine diagnostics issue", Outcome.OTHER),
    # In other words, and where a fault quotes another.
    ("no permission for requested operation", Outcome.NOT_PERMITTED),
    ("Validation errors: 'Immunization resource does not exist' is no name", Outcome.INVALID),
    ("said: the provided identifier: x is duplicated", Outcome.OTHER),
    ("a name is a mandatory field", Outcome.OTHER),
    ("", Outcome.OTHER),
]


@pytest.mark.parametrize(("text", "outcome"), TEXTS)
def test_what_dps_says_of_a_row_has_a_class(text: str, outcome: Outcome) -> None:
    assert Outcome.of(text) is outcome
    assert Outcome.of(text.upper()) is outcome


def test_every_class_has_a_text() -> None:
    assert {outcome for _, outcome in TEXTS} == set(Outcome)


def test_the_docs_list_the_classes_and_what_follows_from_them() -> None:
    text = (Path(__file__).parents[3] / "docs" / "dps-answers.md").read_text()
    listed = re.findall(
        r"^\| `?([a-z-]+)`? \| .+ \| (yes|no|not known) \| (yes|no|not known|as before) \|$", text, re.MULTILINE
    )
    words = {OnFile.YES: "yes", OnFile.NO: "no", OnFile.UNKNOWN: "not known", None: "as before"}
    assert listed == [(str(o), words[m.after_new], words[m.after_others]) for o, m in OUTCOMES.items()]


YES, NO, UNKNOWN = OnFile.YES, OnFile.NO, OnFile.UNKNOWN
#: What was sent, what DPS answered, and whether the record is on file then; None stands for: as before.
TABLE: list[tuple[Action, Outcome | None, OnFile | None]] = [
    (Action.NEW, None, YES),
    (Action.NEW, Outcome.DUPLICATE, YES),
    (Action.NEW, Outcome.UNHANDLED, UNKNOWN),
    (Action.NEW, Outcome.CONCURRENT, UNKNOWN),
    (Action.NEW, Outcome.OTHER, UNKNOWN),
    (Action.NEW, Outcome.UNKNOWN, NO),
    (Action.NEW, Outcome.COLLISION, NO),
    (Action.NEW, Outcome.NOT_PERMITTED, NO),
    (Action.NEW, Outcome.INVALID, NO),
    *(
        (sent, *row)
        for sent in (Action.UPDATE, Action.DELETE)  # what was deleted is on file: an update brings it back
        for row in [
            (None, YES),
            (Outcome.DUPLICATE, None),
            (Outcome.UNHANDLED, None),
            (Outcome.CONCURRENT, UNKNOWN),
            (Outcome.OTHER, UNKNOWN),
            (Outcome.UNKNOWN, NO),
            (Outcome.COLLISION, None),
            (Outcome.NOT_PERMITTED, None),
            (Outcome.INVALID, None),
        ]
    ),
]


@pytest.mark.parametrize(("sent", "answer", "after"), TABLE)
def test_whether_a_record_is_on_file_follows_from_what_was_sent_and_what_dps_answered(
    sent: Action, answer: Outcome | None, after: OnFile | None
) -> None:
    assert on_file_after(sent, answer) is after


def test_the_table_speaks_of_every_answer_to_every_action() -> None:
    assert {row[:2] for row in TABLE} == {(sent, answer) for sent in Action for answer in (None, *Outcome)}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_says_what_would_be_right(outcome: Outcome) -> None:
    assert outcome.fix
