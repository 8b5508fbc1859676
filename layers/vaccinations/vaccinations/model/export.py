"""A DPS export and its attempts, as values. How they change is told in `vaccinations.model.lifecycle`."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "Arrival",
    "Asked",
    "Attempt",
    "DPSExport",
    "Failure",
    "FileNames",
    "Lease",
    "Manifest",
    "PartFacts",
    "Phase",
    "Processing",
    "Status",
]


class Status(StrEnum):
    """What has become of an export's delivery over MESH."""

    OPEN = "open"
    """Gathers batches."""
    PENDING = "pending"
    """Sealed; a run sends it, or will. How far that has got is its `Phase`."""
    ACCEPTED = "accepted"
    """MESH has every part."""
    ACKNOWLEDGED = "acknowledged"
    """DPS has picked the file up."""
    FAILED = "failed"
    """MESH refused it."""
    UNDELIVERED = "undelivered"
    """MESH had it, but DPS did not pick it up, or MESH reported an error later: it is being requeued."""
    REQUEUED = "requeued"
    """What DPS must be told of its records goes out in another export."""
    UNCLEAR = "unclear"
    """MESH knows several messages by this attempt's local id: a person has to look."""


class Phase(StrEnum):
    """How far sending a pending export has got."""

    TO_RENDER = "to render"
    """Its parts are not all in the bucket yet."""
    RENDERED = "rendered"
    """Every part is in the bucket; MESH has none of them."""
    SENDING = "sending"
    """The first part is on its way: from here on MESH may have the attempt."""
    OUTCOME_UNKNOWN = "outcome unknown"
    """MESH's answer to the first part was lost: whoever goes on asks MESH by local id."""
    UPLOADING = "uploading"
    """MESH has the first part and has named the message; the others follow."""


class Processing(StrEnum):
    """What DPS has made of an attempt's file; nothing where it has not answered."""

    RECEIVED = "received"
    """DPS has received the file, and not yet said anything of its rows."""
    REFUSED = "refused"
    """DPS has refused the file as a whole."""
    PROCESSED = "processed"
    """DPS has said which rows it refused."""


class FileNames(NamedTuple):
    """An attempt's file name in the ledger, and its name on MESH."""

    filename: str
    mesh_filename: str

    def told(self) -> dict[str, str]:
        """Return what a log line says of them: ``filename`` is a word of the logger's own."""
        return {"file": self.filename, "mesh_file": self.mesh_filename}


@dataclass(frozen=True, slots=True)
class Arrival:
    """Which arrival of a file at DPS an InfAck is about. A file that arrives twice is answered twice.

    Attributes
    ----------
    header_id
        DPS's id of it (MESSAGE_HEADER_ID); empty where DPS does not know it.
    received_time
        When it arrived, as DPS writes that (RECEIVED_TIME).
    """

    header_id: str
    received_time: str

    def is_another(self, than: Arrival) -> bool:
        """Tell whether this is another arrival of the file: by DPS's ids, or by time where it does not give both."""
        if self.header_id and than.header_id:
            return self.header_id != than.header_id
        return self.received_time != than.received_time


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asked for something to be done, and why.

    Attributes
    ----------
    by
        The person, by the ARN of their credentials.
    reason
        Why, in their words.
    """

    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Failure:
    """What was last wrong with an attempt; both words are MESH's own where MESH said them."""

    code: str
    description: str


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to send an export until a point in time."""

    holder: str
    until: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt at sending an export. MESH knows it by its local id, ``{export_id}-{number}``.

    Attributes
    ----------
    number
        1 for the first.
    filename, mesh_filename
        The file's name in the ledger, and on MESH. No two attempts bear the same.
    begun_at
        When the attempt became pending.
    phase
        How far sending has got; what it says counts while the export is pending.
    parts_sent
        How many parts MESH has.
    sending_at
        When the first part was about to go.
    message_id
        MESH's id of the message; empty until known.
    sent_at, acknowledged_at
        When MESH had every part, and when DPS had picked the file up.
    error
        What was last wrong with it.
    processing
        What DPS has made of the file.
    arrival
        Which arrival of the file at DPS that is about, as the InfAck says; None before there is one.
    received_at, processed_at
        When it was heard that DPS had received or refused the file, and that it had processed it.
    rows_processed, rows_refused
        How many rows DPS has on file of it and how many it refused; None until it has processed the file. A row that
        was refused because the record is on file already counts as processed.
    refusal
        DPS's codes where it refused the file as a whole.
    asked
        Who asked for the attempt, and why; None where a run began it.
    """

    number: int
    filename: str
    mesh_filename: str
    begun_at: datetime
    phase: Phase = Phase.TO_RENDER
    parts_sent: int = 0
    sending_at: datetime | None = None
    message_id: str = ""
    sent_at: datetime | None = None
    acknowledged_at: datetime | None = None
    error: Failure | None = None
    processing: Processing | None = None
    arrival: Arrival | None = None
    received_at: datetime | None = None
    processed_at: datetime | None = None
    rows_processed: int | None = None
    rows_refused: int | None = None
    refusal: str = ""
    asked: Asked | None = None

    @property
    def file_names(self) -> tuple[str, ...]:
        """The file's name in the ledger, and its name on MESH where that is another."""
        return tuple(dict.fromkeys((self.filename, self.mesh_filename)))


@dataclass(frozen=True, slots=True, kw_only=True)
class DPSExport:
    """One DPS file of one programme.

    While it is *open* it gathers batches of records; at night it is sealed, and from then on its records never change.

    Attributes
    ----------
    programme, number
        The key. ``export_id`` joins them: ``hpv-17``.
    status
        Its state.
    records
        How many rows the file has.
    created_at, updated_at
        When it was opened, and when it last changed its state or got further in it.
    batches
        Ids of the batches in it, in the order of its rows. Read only for one export at a time.
    attempts
        The attempts at sending it, in order; the last is the current one.
    parts
        How many parts the file has; 0 until that is known.
    sealed_at
        When it was sealed.
    accepted_at
        When MESH had it whole. Later exports of the programme wait for this.
    request
        Key of the request that requeued it; empty where none did.
    asked
        Who asked for that, and why; None where nobody did.
    lease
        Who may send it now.
    revision
        How often it was written: a write takes place only where nobody else has written since it was read.
    """

    programme: str
    number: int
    status: Status
    records: int
    created_at: datetime
    updated_at: datetime
    batches: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    parts: int = 0
    sealed_at: datetime | None = None
    accepted_at: datetime | None = None
    request: str = ""
    asked: Asked | None = None
    lease: Lease | None = field(default=None, repr=False)
    revision: int = 1

    @property
    def export_id(self) -> str:
        """The export's name for people: ``hpv-17``."""
        return f"{self.programme}-{self.number}"

    @property
    def attempt(self) -> Attempt | None:
        """The current attempt; None while the export is open."""
        return self.attempts[-1] if self.attempts else None

    @property
    def local_id(self) -> str:
        """``Mex-LocalID`` of the current attempt: ``hpv-17-1``."""
        return f"{self.export_id}-{len(self.attempts)}"

    @property
    def message_id(self) -> str:
        """MESH's id of the current attempt's message; empty where there is none."""
        return self.attempts[-1].message_id if self.attempts else ""

    @property
    def processing(self) -> Processing | None:
        """What DPS has made of the current attempt's file."""
        return self.attempts[-1].processing if self.attempts else None

    @property
    def names(self) -> tuple[FileNames, ...]:
        """The names of each attempt."""
        return tuple(FileNames(attempt.filename, attempt.mesh_filename) for attempt in self.attempts)

    @property
    def state(self) -> Status | Phase:
        """Its status, or for a pending export its phase: what `vaccinations.model.lifecycle.MOVES` speaks of."""
        return self.attempts[-1].phase if self.status is Status.PENDING else self.status


@dataclass(frozen=True, slots=True)
class PartFacts:
    """What is known of a part of a DPS file.

    Attributes
    ----------
    number
        Counted from 1.
    rows
        Records in it; the header is not counted.
    size
        Compressed size in bytes.
    sha256
        Of the compressed bytes, in hex.
    """

    number: int
    rows: int
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the parts of an export hold. It is written after each part, so where it names a part, that is there.

    It outlives a ledger that is put back to an earlier moment: nothing is sent that it does not name.

    Attributes
    ----------
    batches
        Ids of the batches in it, in the order of its rows.
    names
        The names of each attempt that may have been sent, in order. An attempt's are here before its first part goes.
    rows_version
        What the rows in the parts look like (`vaccinations.formats.dps_columns.ROWS_VERSION`). All parts of a file
        are of one version.
    records
        How many rows the parts have.
    next
        Where a part that is still to be made begins: the numbers of a batch and of a member in it. None once all
        parts are there.
    """

    export_id: str
    rows_version: int
    batches: tuple[str, ...]
    names: tuple[FileNames, ...]
    records: int = 0
    parts: tuple[PartFacts, ...] = ()
    next: tuple[int, int] | None = (0, 0)

    @property
    def complete(self) -> bool:
        """Whether all parts are there. Before that nothing is sent."""
        return self.next is None
