"""What DPS is told about a record, what its refusal of that means, and whether the record is on file there after it.

Source: docs/dps-answers.md, "Texts of row refusals".
"""

from __future__ import annotations

import re
from enum import StrEnum

__all__ = ["OUTCOMES", "Action", "OnFile", "Outcome", "on_file_after"]


class Action(StrEnum):
    """What DPS is told to do with a record: the DPS file's ACTION_FLAG."""

    NEW = "new"
    UPDATE = "update"
    DELETE = "delete"


class OnFile(StrEnum):
    """Whether a record is on file at DPS, in whichever version, as far as is known."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


class Outcome(StrEnum):
    """Why DPS refused a row, as far as anything follows from it."""

    DUPLICATE = "duplicate"
    """A `new` of a record that is on file at DPS already, with whatever content."""
    UNKNOWN = "unknown"
    """An update or a delete of a record that is not on file at DPS."""
    NOT_PERMITTED = "not-permitted"
    """The sender may not do this."""
    INVALID = "invalid"
    """The row breaks DPS's rules."""
    UNHANDLED = "unhandled"
    """DPS failed at the row: it may have processed it or not."""
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
    (r"\W*an unhandled error occurred", Outcome.UNHANDLED),
)

_AS_IT_IS = "the record can be sent again as it is: ask for that where you ask about uploads"
_FIXES = {
    Outcome.DUPLICATE: "nothing: an update of the record follows by itself",
    Outcome.UNKNOWN: _AS_IT_IS,
    Outcome.NOT_PERMITTED: f"a permission that NHS England gives; then {_AS_IT_IS}",
    Outcome.INVALID: "correct the record and upload it again",
    Outcome.UNHANDLED: _AS_IT_IS,
    Outcome.OTHER: f"correct the record and upload it again; if nothing is wrong with it, {_AS_IT_IS}",
}


def on_file_after(sent: Action, answer: Outcome | None, before: OnFile = OnFile.YES) -> OnFile:
    """Tell whether a record is on file at DPS once DPS has answered a row about it.

    =========  ===================================  =============
    Sent       DPS's answer                         On file
    =========  ===================================  =============
    anything   none: the row was processed          yes
    new        duplicate                            yes
    new        unhandled                            unknown
    new        any other refusal                    no
    update     unknown                              no
    update     any other refusal                    as before
    delete     unknown                              no
    delete     any other refusal                    as before
    =========  ===================================  =============

    A record that DPS has deleted counts as on file: an `update` brings it back. One that is on file goes out as
    `update`, any other as `new`. That a `new` is a duplicate says that the record is on file, not with which content.

    Parameters
    ----------
    answer
        The class of the row's refusal; None where it was not refused.
    before
        Whether the record was on file before an `update` or `delete`.
    """
    if answer is None:
        return OnFile.YES
    if sent is Action.NEW:
        return _AFTER_NEW.get(answer, OnFile.NO)
    return OnFile.NO if answer is Outcome.UNKNOWN else before


_AFTER_NEW = {Outcome.DUPLICATE: OnFile.YES, Outcome.UNHANDLED: OnFile.UNKNOWN}
