"""Who may state for whom, and change whose records."""

from __future__ import annotations

import re

import pytest

from vaccinations.model.uploaders import Uploaders

DOCUMENT = '{"r1l": {"states_for": ["u1"]}, "V0V8L": {"states_for": "*"}, "RX1": {"succeeds": ["R1L"]}}'


def test_by_default_an_organisation_states_for_itself_and_changes_its_own_records() -> None:
    uploaders = Uploaders.from_document("{}")
    assert uploaders == Uploaders()
    assert uploaders.may_state_for("R1L", "R1L")
    assert uploaders.may_change("R1L", "R1L")
    assert not uploaders.may_state_for("R1L", "RX1")
    assert not uploaders.may_change("R1L", "RX1")


@pytest.mark.parametrize(
    ("folder", "code", "may_state", "may_change"),
    [
        ("R1L", "U1", True, False),
        ("R1L", "U2", False, False),
        ("U1", "R1L", False, False),
        ("V0V8L", "U2", True, False),
        ("RX1", "R1L", True, True),
        ("RX1", "U1", False, False),  # what one may that was succeeded does not pass on
        ("R1L", "RX1", False, False),
    ],
)
def test_a_folder_may_what_the_document_says_and_no_more(
    folder: str, code: str, *, may_state: bool, may_change: bool
) -> None:
    uploaders = Uploaders.from_document(DOCUMENT)
    assert (uploaders.may_state_for(folder, code), uploaders.may_change(folder, code)) == (may_state, may_change)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[]", "is not an object of ODS codes"),
        ('{"R1L": ["U1"]}', "is not an object of ODS codes"),
        ('{"R1L": {"state_for": ["U1"]}}', "says of R1L what means nothing: state_for"),
        ('{"R1L": {"state": [], "b": []}}', "says of R1L what means nothing: b, state"),
        ('{"R1L": {"states_for": "U1"}}', 'has something in place of a list of ODS codes or "*"'),
        ('{"R1L": {"states_for": ["*"]}}', "has something in place of an ODS code"),
        ('{"R1L": {"states_for": [1]}}', "has something in place of an ODS code"),
        ('{"R1L": {"succeeds": "*"}}', "has something in place of a list of ODS codes"),
        ('{"R-1": {"succeeds": ["U1"]}}', "has something in place of an ODS code"),
        ('{"R1L": {}, "r1l": {}}', "names a folder twice"),
    ],
)
def test_a_document_that_means_nothing_is_refused_with_what_is_wrong(text: str, says: str) -> None:
    # What would be right may follow.
    with pytest.raises(ValueError, match=f"^{re.escape(says)}(; right is|, such as|$)"):
        Uploaders.from_document(text)
