"""What DPS is told about a record, what its refusal of that means, and whether the record is on file there after it.

Source: docs/dps-answers.md, "Texts of row refusals".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OUTCOMES", "Action", "Meaning", "OnFile", "Outcome", "on_file_after"]


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
    """Why DPS refused a row, as far as anything follows from it. What each means is in `OUTCOMES`."""

    DUPLICATE = "duplicate"
    """A `new` of a record that is on file at DPS already, with whatever content."""
    UNKNOWN = "unknown"
    """An update or a delete of a record that is not on file at DPS."""
    CONCURRENT = "concurrent"
    """DPS changed the record at the same moment: nobody knows which of the two it has."""
    COLLISION = "collision"
    """DPS gave the record an id of its own that it had already."""
    NOT_PERMITTED = "not-permitted"
    """The sender may not do this."""
    INVALID = "invalid"
    """The row breaks DPS's rules."""
    UNHANDLED = "unhandled"
    """DPS failed at the row: it may have processed it or not."""
    OTHER = "other"
    """Something that is not known to us: nothing is concluded from it, and an alarm says so."""

    @classmethod
    def of(cls, text: str) -> Outcome:
        """Tell the class of an OPERATION_OUTCOME."""
        match = _CLASSES.match(text)
        return cls[match.lastgroup] if match and match.lastgroup else cls.OTHER

    @property
    def fix(self) -> str:
        """What would be right, for the team that uploaded the record."""
        return OUTCOMES[self].fix


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a class of refusals looks like, and what follows from it.

    Attributes
    ----------
    patterns
        How DPS's texts of the class begin, as regular expressions for any case.
    after_new, after_others
        Whether the record is on file at DPS after a `new`, and after an `update` or a `delete`, that was refused so;
        None where that is as it was before the row.
    fix
        What would be right, for the team that uploaded the record.
    """

    patterns: tuple[str, ...]
    after_new: OnFile
    after_others: OnFile | None
    fix: str


_AS_IT_IS = "the record can be sent again as it is: ask for that where you ask about uploads"
_CORRECT = "correct the record and upload it again"

#: What each class of refusals means, in the order in which a text is compared with their patterns. A text is looked at
#: from its beginning, since one of several faults may quote what the row holds.
OUTCOMES: Mapping[Outcome, Meaning] = {
    Outcome.DUPLICATE: Meaning(
        (r"the provided identifier: .* is duplicated",),
        OnFile.YES,
        None,
        "nothing: an update of the record follows by itself",
    ),
    # DPS's own id stands in place of the record's identifier, {uri}#{id}.
    Outcome.CONCURRENT: Meaning(
        (r"immunization resource does not exist\. id: immunization#",), OnFile.UNKNOWN, OnFile.UNKNOWN, _AS_IT_IS
    ),
    Outcome.UNKNOWN: Meaning((r"immunization resource does not exist",), OnFile.NO, OnFile.NO, _AS_IT_IS),
    Outcome.COLLISION: Meaning((r"immunization resource does exist",), OnFile.NO, None, _AS_IT_IS),
    Outcome.NOT_PERMITTED: Meaning(
        (r"no permissions? for requested operation",),
        OnFile.NO,
        None,
        f"a permission that NHS England gives; then {_AS_IT_IS}",
    ),
    Outcome.INVALID: Meaning(
        (
            r"(?:[0-9]+ )?validation errors?\b",
            r"invalid action_flag\b",
            r"unique_id or unique_id_uri is missing",
            r"\S+ is a mandatory field",
            r"none\W+is not a valid value for",
        ),
        OnFile.NO,
        None,
        _CORRECT,
    ),
    Outcome.UNHANDLED: Meaning((r"an unhandled error occurred",), OnFile.UNKNOWN, None, _AS_IT_IS),
    Outcome.OTHER: Meaning((), OnFile.UNKNOWN, OnFile.UNKNOWN, f"{_CORRECT}; if nothing is wrong with it, {_AS_IT_IS}"),
}


#: All of their patterns, each class a group of its name.
_GROUPS = "|".join(f"(?P<{each.name}>{'|'.join(means.patterns)})" for each, means in OUTCOMES.items() if means.patterns)
_CLASSES = re.compile(rf"\W*(?:{_GROUPS})", re.IGNORECASE)


def on_file_after(sent: Action, answer: Outcome | None) -> OnFile | None:
    """Tell whether a record is on file at DPS once DPS has answered a row about it; None where that is as before.

    It is where the row was processed; else `OUTCOMES` says. A record that DPS has deleted counts as on file: an
    `update` brings it back. One that is on file goes out as `update`, any other as `new`. That a `new` is a duplicate
    says that the record is on file, not with which content.

    Parameters
    ----------
    answer
        The class of the row's refusal; None where it was not refused.
    """
    if answer is None:
        return OnFile.YES
    meaning = OUTCOMES[answer]
    return meaning.after_new if sent is Action.NEW else meaning.after_others
