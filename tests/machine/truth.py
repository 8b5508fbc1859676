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
    """A record: whose it is depends on who uploads it first.

    Attributes
    ----------
    home
        The folder that uploads it most often.
    """

    number: int
    programme: str
    home: str

    @property
    def record_id(self) -> str:
        return uuid_of(self.number)

    @property
    def key(self) -> str:
        """Key of its programme."""
        return self.programme.lower()


RECORDS = tuple(
    Record(number, "MenACWY" if number % 2 else "HPV", home)
    for number, home in enumerate([TEAM, TEAM, TEAM, SUPPLIER, SUPPLIER, STRANGER, STRANGER])
)


@dataclass(slots=True)
class Upload:
    """A file that was uploaded.

    Attributes
    ----------
    folder
        Whose it is.
    said
        What it says of records, in its order: the vaccine's batch number, or nothing where it is withdrawn. Rows with
        another's code are left out. A row counts where the record is the folder's, or that of one that it succeeds.
    rows
        How many rows it has.
    abandoned
        The programmes of which a person has abandoned it: a record that first arrived in it may be another's.
    unsaid
        The programmes of which it says nothing in the end, since it was parked and a person abandoned it. But what it
        had said without anything being sent, since it was known already, may have counted all the same.
    """

    folder: str
    key: str
    version: str
    said: list[tuple[Record, str]]
    rows: int
    abandoned: frozenset[str] = frozenset()
    unsaid: frozenset[str] = frozenset()


@dataclass
class Truth:
    """The uploads, in the order of their upload times."""

    uploads: list[Upload] = field(default_factory=list)

    def owners(self, record: Record) -> list[str]:
        """Tell whose a record is: the folder's in which it first arrived; or may be, where that was abandoned."""
        owners: list[str] = []
        for upload in self.uploads:
            if any(about == record for about, _ in upload.said):
                owners.append(upload.folder)
                if record.key not in upload.abandoned:
                    break
        return owners

    def ages(self, record: Record, said: str) -> list[int]:
        """Tell when something was said of a record by its owner, as places in the order of uploads."""
        folders = self._speaking(record)
        said_in = [upload.folder in folders and (record, said) in upload.said for upload in self.uploads]
        return [place for place, says in enumerate(said_in) if says]

    def is_said_by_others(self, record: Record, said: str) -> bool:
        """Tell whether anybody but its owner ever said something of a record."""
        folders = self._speaking(record)
        return any(upload.folder not in folders and (record, said) in upload.said for upload in self.uploads)

    def _speaking(self, record: Record) -> set[str]:
        return {folder for owner in self.owners(record) for folder in _speaking_for(owner)}

    def last(self, record: Record) -> set[str]:
        """Tell what was last said of a record: one thing, or what it may be; nothing at all is like a withdrawal."""
        return {said for owner in self.owners(record) for said in self._last(record, owner)} or {""}

    def _last(self, record: Record, owner: str) -> set[str]:
        found: set[str] = set()
        for upload in reversed(self.uploads):
            for about, said in reversed(upload.said):
                if about == record and upload.folder in _speaking_for(owner):
                    found.add(said)
                    if record.key not in upload.unsaid:
                        return found
                    break
        return found | {""}

    def earlier(self, record: Record) -> set[str]:
        """Tell everything that was ever said of a record, by anybody."""
        return {said for upload in self.uploads for about, said in upload.said if about == record}


def _speaking_for(owner: str) -> set[str]:
    """Tell the folders whose uploads about an owner's records count."""
    return {owner} | {folder for folder, owners in UPLOADERS.succeeds.items() if owner in owners}


def body_of(rows: list[tuple[int, str, str]]) -> bytes:
    """Write an upload: of each row the record's number, what is said of it, and the code that it bears."""
    lines = [f"{HEADER},ORGANISATION_CODE"]
    for number, said, code in rows:
        programme = RECORDS[number].programme
        lines.append(f"{row(number, programme, 'Y' if said else 'N', said or 'AB1234')},{code}")
    return ("\n".join(lines) + "\n").encode()
