"""What DPS's refusal of a row means: the classes of its texts, and whether the record is on file at DPS after it.

Source: docs/dps-answers.md, "Texts of row refusals".
"""

from __future__ import annotations

import re
from enum import StrEnum

__all__ = ["OUTCOMES", "Outcome", "on_file_after"]


class Outcome(StrEnum):
    """Why DPS refused a row, as far as anything follows from it."""

    DUPLICATE = "duplicate"
    """The record is on file at DPS already: as good as processed."""
    UNKNOWN = "unknown"
    """An update or a delete of a record that is not on file at DPS."""
    NOT_PERMITTED = "not-permitted"
    """The sender may not do this."""
    INVALID = "invalid"
    """The row breaks DPS's rules."""
    OTHER = "other"

    @classmethod
    def of(cls, text: str) -> Outcome:
        """Tell the class of an OPERATION_OUTCOME."""
        return next((outcome for pattern, outcome in OUTCOMES if re.match(pattern, text, re.IGNORECASE)), cls.OTHER)

    @property
    def fix(self) -> str:
        """What would be right, for the team that uploaded the record."""
        return _FIXES[self]


#: What OPERATION_OUTCOME looks like for each class; the first that fits counts. An outcome of several faults may quote
#: what the row holds, so those that DPS states alone are looked for from the beginning.
OUTCOMES: tuple[tuple[str, Outcome], ...] = (
    (r"\W*the provided identifier: .* is duplicated", Outcome.DUPLICATE),
    (r"\W*immunization resource does not exist", Outcome.UNKNOWN),
    (r"\W*no permissions? for requested operation", Outcome.NOT_PERMITTED),
    (r"\W*([0-9]+ )?validation errors?\b", Outcome.INVALID),
    (r"\W*invalid action_flag\b", Outcome.INVALID),
    (r"\W*unique_id or unique_id_uri is missing", Outcome.INVALID),
)

_AS_IT_IS = "the record can be sent again as it is: ask for that where you ask about uploads"
_FIXES = {
    Outcome.DUPLICATE: "nothing: the record is on file at DPS",
    Outcome.UNKNOWN: _AS_IT_IS,
    Outcome.NOT_PERMITTED: f"a permission that NHS England gives; then {_AS_IT_IS}",
    Outcome.INVALID: "correct the record and upload it again",
    Outcome.OTHER: f"correct the record and upload it again; if nothing is wrong with it, {_AS_IT_IS}",
}


def on_file_after(action: str, outcome: Outcome) -> bool:
    """Tell whether a record is on file at DPS after DPS has refused a row about it.

    A record that is not on file must go out as `new`, one that is as `update`.
    """
    if action == "new":
        return outcome is Outcome.DUPLICATE
    return outcome is not Outcome.UNKNOWN
