"""What the register is to know of a record, for tests that are about the record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vaccinations.formats.batches import digest_of
from vaccinations.model.entry import Entry
from vaccinations.model.outcome import Action

if TYPE_CHECKING:
    from vaccinations.model.record import VaccinationRecord

__all__ = ["STATED_AT", "entry_for"]

#: How old a statement is.
STATED_AT = "2024-08-22T12:00:00+00:00 01234567 0000"


def entry_for(record: VaccinationRecord, action: str = "new", line: int = 2, **changes: Any) -> Entry:
    """Make the entry of a record that was stated."""
    since = changes.get("stated_at", STATED_AT)
    values = {"digest": digest_of(record), "batch_id": "b1", "owner": "R1L", "owned_since": since, "stated_at": since}
    values |= changes
    return Entry(record_id=str(record.uuid), programme=record.programme, action=Action(action), line=line, **values)
