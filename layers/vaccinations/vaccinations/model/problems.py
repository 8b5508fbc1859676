"""What is wrong with an upload, one of its rows, or an event, and what would be right. Nothing here repeats a value."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["InvalidEvent", "Problem", "UnreadableUpload"]


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


class InvalidEvent(ValueError):
    """An event holds a key or value that means nothing to its function; the message names it."""
