"""What the register knows of a record: identifiers, digests and counts, nothing personal."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vaccinations.model.outcome import Outcome

__all__ = ["WITHDRAWN", "Action", "Entry", "Intake", "Refusal"]

#: Stands for the digest of a record that was withdrawn.
WITHDRAWN = "withdrawn"


class Action(StrEnum):
    """What DPS is told to do with a record: the DPS file's ACTION_FLAG."""

    NEW = "new"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Refusal:
    """DPS's refusal of a statement about a record. Why in words is in the answer only.

    Attributes
    ----------
    outcome
        The class of the reason.
    at
        When its answer was collected (ISO 8601, UTC).
    export_id, row
        The export, and the row of its file.
    answer
        Key of the answer in the bucket.
    """

    outcome: Outcome
    at: str
    export_id: str
    row: int
    answer: str


@dataclass(frozen=True, slots=True)
class Entry:
    """What the register knows of a record.

    Attributes
    ----------
    record_id
        The record's UUID.
    programme
        Key of the programme that it was ingested under.
    digest
        Of what was last stated about it, or `WITHDRAWN`.
    action
        How that went, or will go, to DPS.
    batch_id, line
        The batch that holds this statement, and the upload's line that it came from.
    on_file
        Whether the record is on file at DPS, in whichever version, as far as is known. What was sent counts as on
        file until DPS says otherwise.
    refusal
        DPS's refusal of this statement, where it refused it.
    """

    record_id: str
    programme: str
    digest: str
    action: Action
    batch_id: str
    line: int
    on_file: bool = True
    refusal: Refusal | None = None

    @property
    def statement(self) -> tuple[str, int]:
        """What tells this statement from others about the record."""
        return self.batch_id, self.line

    @property
    def withdrawn(self) -> bool:
        """Whether the record was last withdrawn."""
        return self.digest == WITHDRAWN


@dataclass(frozen=True, slots=True)
class Intake:
    """How far an upload has got.

    Attributes
    ----------
    batches
        How many rows each programme's batch holds.
    attached
        The number of the export that each programme's batch is in.
    """

    batch_id: str
    batches: Mapping[str, int]
    attached: Mapping[str, int]
    finished: bool
