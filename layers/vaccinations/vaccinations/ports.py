"""What the use cases ask of the world: Protocols that `vaccinations.aws` and nhs_mesh fulfil, and tests in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager
    from datetime import datetime
    from pathlib import Path

    from nhs_mesh import Message, Part, SentMessage, Tracking
    from vaccinations.model.entry import Entry, Intake
    from vaccinations.model.export import Asked, DPSExport, FileNames, Manifest, Status
    from vaccinations.results import AnyReceipt, ParkedUpload, StoredIntake

__all__ = [
    "BatchGone",
    "Bucket",
    "IntakeGone",
    "Ledger",
    "LedgerConflict",
    "Mesh",
    "Queue",
    "Register",
    "StoredMeanwhile",
    "StoredUpload",
    "Upload",
    "UploadGone",
]


class UploadGone(Exception):
    """There is no such uploaded object, or there is none any more."""


class BatchGone(Exception):
    """A batch object is not there; only one that was attached long ago may have been cleared away."""


class MessageGone(Exception):
    """The body of a message is not there any more: it was kept long enough, or was erased."""


class IntakeGone(Exception):
    """What was stored of an upload's intake is not there; somebody has deleted it."""


class StoredMeanwhile(Exception):
    """Another run has stored an object since this one began; the upload has to be read anew."""


class LedgerConflict(Exception):
    """Others changed the export again and again; try later."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One version of one object under ``incoming/``.

    Attributes
    ----------
    uploaded_at
        When S3 stored it, with its offset.
    place
        How many versions of the object S3 stored before it in the same second.
    asked
        Of a request, who made it and why; None where nobody did.
    """

    key: str
    version: str
    uploaded_at: datetime
    place: int
    body: BinaryIO
    asked: Asked | None = None


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """One version of one object under ``incoming/``, as it is listed."""

    key: str
    version: str
    uploaded_at: datetime


class Ledger(Protocol):
    """Each DPSExport and the state that it is in."""

    def get(self, programme: str, number: int) -> DPSExport:
        """Return an export with its batches, as it is now.

        Raises
        ------
        KeyError
            There is none.
        """

    def exports(self, programme: str) -> Iterator[DPSExport]:
        """Iterate over a programme's exports, oldest first, without their batches, as they are now."""

    def latest(self, programme: str, limit: int) -> Iterator[DPSExport]:
        """Iterate over a programme's last so many exports, newest first, without their batches."""

    def by_status(self, status: Status, since: datetime | None = None) -> Iterator[DPSExport]:
        """Iterate over every programme's exports in a state, longest in it first; they may be a moment old.

        Parameters
        ----------
        since
            Only those that came into it, or got further in it, since then.
        """

    def find(self, stem: str) -> tuple[DPSExport, int] | None:
        """Find the export and the number of the attempt that bore a file name on MESH; None where there is none.

        Parameters
        ----------
        stem
            The name without its extension, in any case.
        """

    def attach(self, programme: str, batch_id: str, records: int) -> int | None:
        """Attach a batch to the programme's open export, and mark that in its intake: both, or neither.

        Parameters
        ----------
        records
            How many rows the batch adds.

        Returns
        -------
        int | None
            The export's number; None where the batch was attached before.
        """

    def change(self, export: DPSExport, how: Callable[[DPSExport], DPSExport]) -> DPSExport:
        """Change an export, whatever others do to it meanwhile.

        Parameters
        ----------
        how
            Makes the changed export from the present one (`vaccinations.model.lifecycle`). Where somebody else has
            written first it is asked again, with what they wrote; what it raises is raised, and nothing is written.

        Raises
        ------
        LedgerConflict
            Others were always faster.
        """

    def highest(self, programme: str) -> int:
        """Return the highest number that a programme has used, or has passed over; 0 where it has none."""

    def put_back(self, programme: str, changes: Sequence[tuple[DPSExport | None, DPSExport]], highest: int) -> None:
        """Write exports of a programme, and which attempts bore their file names; pass over numbers: all, or nothing.

        Parameters
        ----------
        changes
            Each export as it was read, None where it is not there, and as it is from now on.
        highest
            The next export that gathers batches has a higher number.

        Raises
        ------
        LedgerConflict
            Somebody else has written meanwhile.
        """

    def begin_attempt(
        self,
        export: DPSExport,
        how: Callable[[DPSExport, FileNames], DPSExport],
        name: Callable[[datetime, int], FileNames],
    ) -> DPSExport:
        """Change an export so that it has another attempt, and use up a file name for it: both, or neither.

        Parameters
        ----------
        how
            As in `change`, with the attempt's names.
        name
            Makes the names from a moment and a sequence number: 1 for the programme's first file on that day.
        """


class Register(Protocol):
    """Which record was ingested, at which statement; and how far each upload has got."""

    def get(self, record_ids: Iterable[str]) -> dict[str, Entry]:
        """Return what is known of the records, by record id; those never ingested are left out."""

    def put(self, entries: Iterable[Entry]) -> None:
        """Write entries; where a record comes twice, the later one counts. On return, all of them are written."""

    def renew(self, entries: Iterable[Entry]) -> None:
        """Note that newer uploads say the same again, or older ones whose a record is: each entry's owner and ages.

        They are noted where the record still is at that statement, and what is known of it gives way
        (`Entry.gives_way`). One that was withdrawn before it was ever stated (`Entry.unstated`) is written where
        nothing else is known of it.
        """

    def restate(self, entries: Iterable[Entry]) -> None:
        """Write entries of records of which nothing newer is known; of those as old as each other, the last."""

    def hear(self, entries: Iterable[Entry]) -> None:
        """Note DPS's refusals, and what is lost: what `Entry.hearing` says of each entry."""

    def refused(self, programme: str, since: str = "") -> Iterator[Entry]:
        """Iterate over a programme's records whose last statement DPS refused, longest ago first.

        Parameters
        ----------
        since
            Only those whose answer was collected then or later (ISO 8601, UTC, or the beginning of it).
        """

    def intake(self, batch_id: str) -> Intake | None:
        """Return how far an upload has got; None where its batches are not complete yet."""

    def unfinished(self) -> list[str]:
        """Return the batch ids of the intakes that are not finished, without those that are parked."""

    def parked(self) -> list[str]:
        """Return the batch ids of the intakes that are parked and wait for a person."""

    def unsent(self) -> frozenset[tuple[str, str]]:
        """Return the batches, by programme and id, of intakes that were parked before these were attached."""

    def with_intake(self, batch_ids: Iterable[str]) -> set[str]:
        """Return those of the batch ids whose uploads have an intake."""

    def begun(self) -> int:
        """Tell how many intakes were ever begun."""

    def begin(self, batch_id: str, batches: Mapping[str, int], begun: int, *, sends: bool = True) -> Intake:
        """Note that an upload's batch objects are complete; they will now be registered and attached.

        Parameters
        ----------
        begun
            How many intakes had been begun before the register was asked about the upload's records. Where another was
            begun since, nothing is noted, and `RuntimeError` is raised.
        sends
            Whether they are to be attached.
        """

    def put_back(self, batch_id: str, batches: Mapping[str, int], attached: Mapping[str, int]) -> None:
        """Note the intake of an upload that is no longer known, though exports have batches of it. It is parked.

        Parameters
        ----------
        attached
            The number of the export that each programme's batch is in.
        """

    def mark_attached(self, batch_id: str, programme: str, number: int) -> None:
        """Mark in an intake in which export a programme's batch is."""

    def count_try(self, batch_id: str) -> int:
        """Note that an intake is about to be completed; return how often that was noted."""

    def park(self, batch_id: str) -> None:
        """Give an intake up: it is no longer unfinished, and what it has not attached is never sent."""

    def finish(self, batch_id: str, *, parked: bool = False) -> None:
        """Note that everything about an upload is done, its receipt included; or about a parked one, by a person.

        Parameters
        ----------
        parked
            Whether it may be parked.
        """


class Bucket(Protocol):
    """What came in, what was made of it, and the very bytes that went out (docs/architecture.md, "Bucket")."""

    def batch_id(self, key: str, version: str, retry_of: str = "") -> str:
        """Derive an upload's batch id from the object's identity, so that a repeated event bears the same one.

        Parameters
        ----------
        retry_of
            The batch id that it had before, where it is ingested afresh.
        """

    def uploads(self, organisation: str = "") -> Iterator[StoredUpload]:
        """Iterate over every version of every upload and request, newest first of each, without deleted objects'.

        Parameters
        ----------
        organisation
            Only those in its folder.
        """

    def folders(self) -> list[str]:
        """Return the names of the folders in which organisations upload, as they are written."""

    def put_request(self, name: str, body: BinaryIO | bytes = b"", asked: Asked | None = None) -> tuple[str, str]:
        """Store a request (`vaccinations.formats.requests`), whose event is then queued; return key and version."""

    def request_waits(self, name: str) -> bool:
        """Tell whether a request was stored, and there is no receipt of it yet, or it is parked."""

    def receipt(self, upload_key: str, batch_id: str) -> AnyReceipt | None:
        """Return the receipt of an upload; None where it is not there yet."""

    def has(self, key: str, version: str) -> bool:
        """Tell whether there is an object, in this version."""

    def open_upload(self, key: str, version: str) -> Upload:
        """Open one version of an uploaded object for streaming.

        Raises
        ------
        UploadGone
            It is not there any more.
        """

    def put_batch(
        self,
        programme: str,
        batch_id: str,
        lines: Path,
        rows: Path | None = None,
        may_replace: Callable[[], bool] = lambda: False,
    ) -> None:
        """Store the records of one programme from one upload, as batch lines and, so that they are ready, as rows.

        Parameters
        ----------
        may_replace
            Asked where there is one already: whether it may be replaced, for a run that died may have left it behind.

        Raises
        ------
        StoredMeanwhile
            It may not; or another run was faster.
        """

    def batch_lines(self, programme: str, batch_id: str) -> Generator[bytes]:
        """Stream the lines of a batch object, each one JSON document.

        Raises
        ------
        BatchGone
            There is no such batch.
        """

    def open_rows(self, programme: str, batch_id: str) -> BinaryIO | None:
        """Open the rows of a batch for streaming; None where they were not stored."""

    def put_intake(self, batch_id: str, intake: StoredIntake, may_replace: Callable[[], bool] | None = None) -> None:
        """Store what is known of an upload once its batches are complete.

        Parameters
        ----------
        may_replace
            As for `put_batch`; without it, one may always be replaced.

        Raises
        ------
        StoredMeanwhile
            Likewise.
        """

    def put_parked(self, parked: ParkedUpload) -> None:
        """Store that an upload is parked, and its receipt; each unless somebody has written down more meanwhile."""

    def intake(self, batch_id: str) -> StoredIntake:
        """Return what `put_intake` stored.

        Raises
        ------
        IntakeGone
            It is not there.
        """

    def put_rejects(self, upload_key: str, batch_id: str, file: Path) -> str:
        """Store the rejects file of an upload; return its key."""

    def put_receipt(self, upload_key: str, batch_id: str, receipt: AnyReceipt) -> str:
        """Store the receipt of an upload; return its key."""

    def put_refusals(self, upload_key: str, batch_id: str, export_id: str, file: Path) -> str:
        """Store which rows of an upload DPS refused, in the form of a rejects file; return its key."""

    def put_part(self, programme: str, number: int, part: int, file: Path) -> None:
        """Store one part of an export as it will be sent."""

    def open_part(self, programme: str, number: int, part: int) -> BinaryIO:
        """Open one part of an export for streaming."""

    def put_manifest(self, programme: str, number: int, manifest: Manifest) -> None:
        """Store the manifest of an export, once the parts that it names are there."""

    def manifest(self, programme: str, number: int) -> Manifest | None:
        """Return the manifest of an export; None where no part is there yet."""

    def export_numbers(self, programme: str) -> list[int]:
        """Return the numbers of a programme's exports of which anything is in the bucket, in order."""

    def put_message(self, workflow_id: str | None, message_id: str, body: BinaryIO, facts: dict[str, Any]) -> str:
        """Store the body of a message, in a stream of whatever size; return its key."""

    def has_chunk(self, workflow_id: str | None, message_id: str, name: str) -> bool:
        """Tell whether a chunk of a message was stored whole."""

    def put_chunk(self, workflow_id: str | None, message_id: str, name: str, body: BinaryIO) -> None:
        """Store a chunk of a message, until all of them are there."""

    def join_chunks(self, workflow_id: str | None, message_id: str, names: Sequence[str], facts: dict[str, Any]) -> str:
        """Store the body of a message, put together from its chunks; return its key."""

    def put_message_facts(self, workflow_id: str | None, message_id: str, facts: dict[str, Any]) -> None:
        """Store what MESH said of a message, once its body is there."""

    def message(self, workflow_id: str | None, message_id: str) -> dict[str, Any] | None:
        """Return what MESH said of a message that was stored whole; None where none was."""

    def open_message(self, key: str) -> BinaryIO:
        """Open the body of a message for streaming.

        Raises
        ------
        MessageGone
            It is not there any more.
        """

    def messages(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Iterate over what MESH said of each message that was stored whole since then, oldest first."""


class Queue(Protocol):
    """The queue that Ingest is fed from, one upload at a time."""

    def announce(self, key: str, version: str, batch_id: str) -> None:
        """Put an upload into the queue, as its event does; several times within five minutes count once."""

    def ask(self, what: str, batch_id: str, reason: str, by: str = "") -> None:
        """Ask for something to be done about a parked upload.

        Parameters
        ----------
        what
            ``retry`` or ``abandon``.
        reason, by
            Why, in a person's words, and who they are.
        """


class Mesh(Protocol):
    """The mailbox on MESH: what the use cases need of `nhs_mesh.MeshClient`."""

    @property
    def mailbox(self) -> str:
        """The mailbox's id."""

    def handshake(self) -> None:
        """Tell MESH that the mailbox is in use."""

    def send(
        self,
        to: str,
        workflow_id: str,
        part: Part,
        *,
        parts: int = 1,
        filename: str | None = None,
        local_id: str | None = None,
        content_type: str = "application/octet-stream",
    ) -> SentMessage:
        """Send a message's first part; return the message's id, among other things."""

    def send_chunk(self, message_id: str, number: int, parts: int, part: Part) -> None:
        """Send a further part of a message."""

    def track(self, message_id: str) -> Tracking:
        """Ask what has become of a message."""

    def track_by_local_id(self, local_id: str) -> Tracking:
        """Ask what has become of a message, by the id that its sender gave it."""

    def inbox(self) -> Iterator[str]:
        """Iterate over the ids of the messages that wait."""

    def download(
        self, message_id: str, *, chunk: int | None = None, decode: bool = True
    ) -> AbstractContextManager[Message]:
        """Open a message, or one chunk of it, for streaming."""

    def acknowledge(self, message_id: str) -> None:
        """Let MESH remove a message from the inbox."""
