"""What is true, from the uploads alone: what was last uploaded of each record, by upload time, by its owner."""

from __future__ import annotations

from dataclasses import dataclass, field

from tests.usecases.rows import HEADER, row, uuid_of
from vaccinations.model.uploaders import Uploaders

__all__ = ["RECORDS", "UPLOADERS", "Record", "Truth", "Upload", "body_of"]

TEAM, SUCCESSOR, SUPPLIER, STRANGER = "R1L", "RX1", "V0V8L", "RY9"
UPLOADERS = Uploaders(
    states_for={SUPPLIER: frozenset("*")},
    succeeds={SUCCESSOR: frozenset({TEAM})},
)


@dataclass(frozen=True, slots=True)
class Record:
    """A record, and whose it is.

    Attributes
    ----------
    speaks
        The folders whose uploads about it count; it first arrives in the first of them.
    """

    number: int
    programme: str
    speaks: tuple[str, ...]

    @property
    def record_id(self) -> str:
        return uuid_of(self.number)

    @property
    def key(self) -> str:
        """Key of its programme."""
        return self.programme.lower()


RECORDS = tuple(
    Record(number, "MenACWY" if number % 2 else "HPV", speaks)
    for number, speaks in enumerate(
        [(TEAM, SUCCESSOR), (TEAM, SUCCESSOR), (TEAM, SUCCESSOR), (SUPPLIER,), (SUPPLIER,), (STRANGER,), (STRANGER,)]
    )
)


@dataclass(slots=True)
class Upload:
    """A file that was uploaded.

    Attributes
    ----------
    said
        What it says of records, in its order: the vaccine's batch number, or nothing where it is withdrawn. Rows that
        do not count are left out: another's record, another's code.
    rows
        How many rows it has.
    unsaid
        The programmes of which it says nothing in the end, since it was parked and a person abandoned it. But what it
        had said without anything being sent, since it was known already, may have counted all the same.
    """

    key: str
    version: str
    said: list[tuple[Record, str]]
    rows: int
    unsaid: frozenset[str] = frozenset()


@dataclass
class Truth:
    """The uploads, in the order of their upload times."""

    uploads: list[Upload] = field(default_factory=list)

    def ages(self, record: Record, said: str) -> list[int]:
        """Tell when something was said of a record, as places in the order of uploads."""
        return [place for place, upload in enumerate(self.uploads) if (record, said) in upload.said]

    def last(self, record: Record) -> set[str]:
        """Tell what was last said of a record: one thing, or what it may be; nothing at all is like a withdrawal."""
        found: set[str] = set()
        for upload in reversed(self.uploads):
            for about, said in reversed(upload.said):
                if about == record:
                    found.add(said)
                    if record.key not in upload.unsaid:
                        return found
                    break
        return found | {""}

    def earlier(self, record: Record) -> set[str]:
        """Tell everything that was ever said of a record."""
        return {said for upload in self.uploads for about, said in upload.said if about == record}


def body_of(rows: list[tuple[int, str, str]]) -> bytes:
    """Write an upload: of each row the record's number, what is said of it, and the code that it bears."""
    lines = [f"{HEADER},ORGANISATION_CODE"]
    for number, said, code in rows:
        programme = RECORDS[number].programme
        lines.append(f"{row(number, programme, 'Y' if said else 'N', said or 'AB1234')},{code}")
    return ("\n".join(lines) + "\n").encode()
