"""What DPS's refusal of a row means: its class, and whether the record is on file at DPS after it."""

from __future__ import annotations

import pytest

from vaccinations.model.outcome import Action, OnFile, Outcome, on_file_after


@pytest.mark.parametrize(
    ("text", "outcome"),
    [
        ("The provided identifier: https://uri#496e37d8 is duplicated", Outcome.DUPLICATE),
        ("Immunization resource does not exist. ID: https://uri#496e37d8", Outcome.UNKNOWN),
        ("No permissions for requested operation", Outcome.NOT_PERMITTED),
        ("no permission for requested operation", Outcome.NOT_PERMITTED),
        ("Validation errors: contained[?(@.resourceType=='Patient')].birthDate", Outcome.INVALID),
        ("1 validation error for Immunization occurrenceDateTime field required", Outcome.INVALID),
        ("2 validation errors for Immunization", Outcome.INVALID),
        ("UNIQUE_ID or UNIQUE_ID_URI is missing", Outcome.INVALID),
        ("Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'", Outcome.INVALID),
        ("Validation errors: 'Immunization resource does not exist' is no name", Outcome.INVALID),
        ("An unhandled error occurred during batch processing", Outcome.UNHANDLED),
        ("said: the provided identifier: x is duplicated", Outcome.OTHER),
        ("", Outcome.OTHER),
    ],
)
def test_an_outcome_has_a_class(text: str, outcome: Outcome) -> None:
    assert Outcome.of(text) is outcome


YES, NO, UNKNOWN = OnFile.YES, OnFile.NO, OnFile.UNKNOWN
#: What was sent, what DPS answered, and whether the record is on file then; None stands for: as before.
TABLE: list[tuple[Action, Outcome | None, OnFile | None]] = [
    (Action.NEW, None, YES),
    (Action.NEW, Outcome.DUPLICATE, YES),
    (Action.NEW, Outcome.UNHANDLED, UNKNOWN),
    (Action.NEW, Outcome.UNKNOWN, NO),
    (Action.NEW, Outcome.NOT_PERMITTED, NO),
    (Action.NEW, Outcome.INVALID, NO),
    (Action.NEW, Outcome.OTHER, NO),
    (Action.UPDATE, None, YES),
    (Action.UPDATE, Outcome.DUPLICATE, None),
    (Action.UPDATE, Outcome.UNHANDLED, None),
    (Action.UPDATE, Outcome.UNKNOWN, NO),
    (Action.UPDATE, Outcome.NOT_PERMITTED, None),
    (Action.UPDATE, Outcome.INVALID, None),
    (Action.UPDATE, Outcome.OTHER, None),
    (Action.DELETE, None, YES),  # deleted, and an update brings it back
    (Action.DELETE, Outcome.DUPLICATE, None),
    (Action.DELETE, Outcome.UNHANDLED, None),
    (Action.DELETE, Outcome.UNKNOWN, NO),
    (Action.DELETE, Outcome.NOT_PERMITTED, None),
    (Action.DELETE, Outcome.INVALID, None),
    (Action.DELETE, Outcome.OTHER, None),
]


@pytest.mark.parametrize(("sent", "answer", "after"), TABLE)
@pytest.mark.parametrize("before", OnFile)
def test_whether_a_record_is_on_file_follows_from_what_was_sent_and_what_dps_answered(
    sent: Action, answer: Outcome | None, after: OnFile | None, before: OnFile
) -> None:
    assert on_file_after(sent, answer, before) is (after or before)


def test_the_table_speaks_of_every_answer_to_every_action() -> None:
    assert {row[:2] for row in TABLE} == {(sent, answer) for sent in Action for answer in (None, *Outcome)}


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_says_what_would_be_right(outcome: Outcome) -> None:
    assert outcome.fix
