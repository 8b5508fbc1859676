"""What is wrong with an upload, one of its rows, or an event, and what would be right. Nothing here repeats a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    #: What tells whether a value is allowed, and what it must be, in words.
    type Rule = tuple[Callable[[Any], bool], str]

__all__ = ["TRUE_OR_FALSE", "InvalidEvent", "Problem", "UnreadableUpload", "check_event"]

#: The rule of a value that switches something on or off.
TRUE_OR_FALSE: Rule = (lambda value: isinstance(value, bool), "must be true or false")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with a row.

    Attributes
    ----------
    column
        The upload's name of the column or field. Empty, ``(row)`` or ``(line)`` where it is about all of the row.
    what
        What is wrong, without the value.
    fix
        What would be right.
    """

    column: str
    what: str
    fix: str


class UnreadableUpload(Exception):
    """An upload that cannot be ingested at all.

    Attributes
    ----------
    reason
        Why not.
    fix
        What the uploader can do.
    """

    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(f"{reason}: {fix}")
        self.reason = reason
        self.fix = fix


def _is_asked(value: Any) -> bool:
    return (
        isinstance(value, dict) and value.keys() == {"by", "reason"} and all(isinstance(v, str) for v in value.values())
    )


#: The rule of who asked for an invocation, and why (`vaccinations.model.export.Asked`).
ASKED: Rule = (_is_asked, "must say by whom it was asked for and for what reason")


class InvalidEvent(ValueError):
    """An event holds a key or value that means nothing to its function; the message names it."""


def check_event(event: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check the keys and values of a function's event.

    Parameters
    ----------
    rules
        Every key that it may hold, and the rule of its value.

    Raises
    ------
    InvalidEvent
        A key is unknown or its value is not allowed.
    """
    for key, value in event.items():
        if key not in rules:
            raise InvalidEvent(f"unknown key {key!r} in the event; it may hold: {', '.join(rules)}")
        allowed, must = rules[key]
        if not allowed(value):
            raise InvalidEvent(f"{key!r} {must}")
