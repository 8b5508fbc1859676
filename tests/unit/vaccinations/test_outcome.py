"""What DPS's refusal of a row means: its class, and whether the record is on file at DPS after it."""

from __future__ import annotations

import pytest

from vaccinations.model.outcome import Outcome, on_file_after


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
        ("An unhandled error occurred during batch processing", Outcome.OTHER),
        ("said: the provided identifier: x is duplicated", Outcome.OTHER),
        ("", Outcome.OTHER),
    ],
)
def test_an_outcome_has_a_class(text: str, outcome: Outcome) -> None:
    assert Outcome.of(text) is outcome


def test_whether_a_record_is_on_file_follows_from_what_dps_refused() -> None:
    every = {(action, outcome) for action in ("new", "update", "delete") for outcome in Outcome}
    not_on_file = {(action, outcome) for action, outcome in every if not on_file_after(action, outcome)}
    assert not_on_file == {
        *(("new", outcome) for outcome in Outcome if outcome is not Outcome.DUPLICATE),
        ("update", Outcome.UNKNOWN),
        ("delete", Outcome.UNKNOWN),
    }


@pytest.mark.parametrize("outcome", Outcome)
def test_every_outcome_says_what_would_be_right(outcome: Outcome) -> None:
    assert outcome.fix
