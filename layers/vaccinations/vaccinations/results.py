"""What the use cases answer, what an uploader is given, and what is published: plain values, written as JSON.

docs/schemas/ has a JSON schema of each, made from these classes (`make schemas`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence  # noqa: TC003 - the schemas are made from what these are annotated with
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from vaccinations.model.export import Asked, Processing, Status  # noqa: TC001

__all__ = [
    "ENDED",
    "Answer",
    "AnyReceipt",
    "CollectRun",
    "CollectedMessage",
    "ExportChanged",
    "ExportOutcome",
    "ExportRun",
    "ForTeam",
    "IngestRun",
    "ParkedUpload",
    "PersonActed",
    "QueuedUpload",
    "Receipt",
    "ReconcileRun",
    "RejectedUpload",
    "RestoredExport",
    "RowsRefused",
    "Skipped",
    "StoredIntake",
    "TrackRun",
    "TrackedExport",
    "UploadFinished",
    "Uploader",
    "Validation",
    "document",
]


#: What the receipt of an upload says that was never ingested, and need not be.
ENDED = frozenset({"rejected", "abandoned"})


def document(result: Any) -> dict[str, Any]:
    """Return a result as what JSON can hold. What is not known is null."""
    return asdict(result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A scheduled run that did nothing, because mesh_jobs is off."""

    status: Literal["skipped"] = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """The daily handshake.

    Attributes
    ----------
    mailbox
        The mailbox that MESH knows to be in use.
    certificate_days_left
        For how many days our certificate is still valid.
    """

    mailbox: str
    certificate_days_left: int
    status: Literal["ok"] = "ok"


# -- ingest


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploader:
    """Who stored an upload, as far as S3's event tells.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html

    Attributes
    ----------
    requester
        The AWS account, or the service, whose credentials it was stored with.
    source_address
        The IP address that it came from; empty where S3 does not tell.
    """

    requester: str
    source_address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What became of an upload, for its uploader.

    Attributes
    ----------
    batch_id
        Names the upload in logs and in the bucket.
    upload, version
        The object under ``incoming/``, and its version.
    uploaded_at, completed_at
        When S3 stored it, and when it was ingested (ISO 8601, UTC).
    rows
        How many rows it has.
    accepted
        How many rows were accepted, by programme and action.
    unchanged, overtaken, skipped, rejected
        How many rows say what was known already, are older than what is known, withdraw what was never known, or were
        rejected.
    rejects
        Key of the file that says what was wrong; None where nothing was.
    assumed
        What was assumed of accepted rows where they do not state it, and of how many; to object, state it and upload
        them again.
    assumed_in
        The first lines of which that was assumed.
    contradictions
        How often a row says something else of a record than an earlier row of the upload; the later row counts.
    contradicting
        The lines of the first such rows: the earlier and the later.
    exports
        In which export the accepted rows of each programme are.
    uploader
        Who uploaded it; null where it was ingested without its event.
    asked
        Of a request, who made it and why; null where nobody did.
    """

    batch_id: str
    upload: str
    version: str
    uploaded_at: str
    rows: int
    accepted: Mapping[str, Mapping[str, int]]
    unchanged: int
    overtaken: int
    skipped: int
    rejected: int
    rejects: str | None
    assumed: Mapping[str, int]
    assumed_in: Mapping[str, Sequence[int]]
    contradictions: int
    contradicting: Sequence[Sequence[int]]
    exports: Mapping[str, str]
    completed_at: str
    uploader: Uploader | None = None
    asked: Asked | None = None
    status: Literal["ingested"] = "ingested"


@dataclass(frozen=True, slots=True, kw_only=True)
class RejectedUpload:
    """What is told the uploader of a file that was rejected as a whole.

    Attributes
    ----------
    batch_id
        Names the upload in logs and in the bucket.
    upload, version
        The object under ``incoming/``, and its version.
    reason, fix
        Why, and what to do.
    completed_at
        When that was found (ISO 8601, UTC).
    uploader
        Who uploaded it; null where it was looked at without its event.
    """

    batch_id: str
    upload: str
    version: str
    reason: str
    fix: str
    completed_at: str
    uploader: Uploader | None = None
    status: Literal["rejected"] = "rejected"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParkedUpload:
    """What became of an upload that could not be completed: its rows are not on their way to DPS.

    Attributes
    ----------
    status
        ``parked`` while a person has to decide; then ``retried`` or ``abandoned``.
    batch_id
        Names the upload in logs and in the bucket.
    upload, version
        The object under ``incoming/``, and its version.
    parked_at
        When it was given up (ISO 8601, UTC).
    exports
        In which export the rows of a programme are all the same, since they were queued before.
    retried_as
        Names the upload since it was ingested afresh; null where it was not.
    reason, by
        Why a person retried or abandoned it, in their words, and who did, by the ARN of their credentials.
    decided_at
        When they did (ISO 8601, UTC); null as long as nobody has.
    uploader
        Who uploaded it; null where that is not known.
    """

    batch_id: str
    upload: str
    version: str
    parked_at: str
    exports: Mapping[str, str]
    retried_as: str | None = None
    reason: str = ""
    by: str = ""
    decided_at: str | None = None
    uploader: Uploader | None = None
    status: Literal["parked", "retried", "abandoned"] = "parked"


type AnyReceipt = Receipt | RejectedUpload | ParkedUpload


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredIntake:
    """What the bucket keeps of an upload once its batches are complete.

    Attributes
    ----------
    upload, version
        The object under ``incoming/``, and its version.
    receipt
        Its receipt; until the upload is attached, without what comes after.
    parked
        What became of it where it could not be completed; null where it could.
    columns
        What its header calls columns, by their first names, where it calls them otherwise.
    """

    upload: str
    version: str
    receipt: Receipt
    parked: ParkedUpload | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngestRun:
    """A run of Ingest.

    Attributes
    ----------
    uploads
        The receipt of each upload in its event.
    """

    uploads: tuple[AnyReceipt, ...]
    status: Literal["ok"] = "ok"


# -- reconcile


@dataclass(frozen=True, slots=True, kw_only=True)
class QueuedUpload:
    """An upload that had been forgotten.

    Attributes
    ----------
    batch_id
        Names the upload in logs and in the bucket.
    upload, version
        The object under ``incoming/``, and its version.
    uploaded_at
        When S3 stored it (ISO 8601, UTC).
    """

    batch_id: str
    upload: str
    version: str
    uploaded_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoredExport:
    """An export that the bucket shows to have gone further than the ledger knew; MESH is asked whether it has it.

    Attributes
    ----------
    export_id, programme
        The export, and the key of its programme.
    was
        The state that the ledger had it in; ``forgotten`` where it had no such export.
    attempt
        The number of the attempt that MESH is asked about.
    records
        How many rows its file has.
    moved
        How many batches it had gathered that are not in the file, and go into the next export.
    """

    export_id: str
    programme: str
    was: str
    attempt: int
    records: int
    moved: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconcileRun:
    """A run of Reconcile.

    Attributes
    ----------
    status
        ``incomplete`` where the time was up before everything was looked at.
    dry_run
        Whether it was only to say what it finds.
    looked_at
        How many uploads it looked at.
    queued
        How many uploads were forgotten, and were queued again, or would be.
    uploads
        The first hundred of those.
    exports
        The exports that were put back, or would be, after the tables were put back to an earlier moment.
    passed_over
        For each programme some of whose numbers the ledger had forgotten, the last of those: the next export has a
        higher one.
    """

    status: Literal["ok", "incomplete"]
    dry_run: bool
    looked_at: int
    queued: int
    uploads: tuple[QueuedUpload, ...]
    exports: tuple[RestoredExport, ...] = ()
    passed_over: Mapping[str, int] = field(default_factory=dict)


# -- export


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOutcome:
    """What became of one export in a run.

    Attributes
    ----------
    programme
        Key of the programme.
    export_id, records
        The export, and how many rows it has; None where the programme failed before an export was known.
    status
        The export's, or ``error``.
    filename, mesh_filename
        Its file's name in the ledger, and on MESH; empty while it is open.
    message_id
        MESH's id of its message; empty where there is none.
    error_code, error_description
        Why it is not accepted; empty where it is.
    would
        What a run that is not dry would do with it.
    """

    programme: str
    status: str
    export_id: str | None = None
    records: int | None = None
    filename: str = ""
    mesh_filename: str = ""
    message_id: str = ""
    error_code: str = ""
    error_description: str = ""
    would: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportRun:
    """A run of Export.

    Attributes
    ----------
    status
        ``ok``; ``incomplete`` where an export is not accepted yet; ``dry run``.
    exports
        Every export that it sent, tried to send or found in the way.
    nothing_to_send
        Programmes with nothing to export.
    left
        Programmes that it had no time to send; the hourly run goes on with them.
    """

    status: Literal["ok", "incomplete", "dry run"]
    exports: tuple[ExportOutcome, ...]
    nothing_to_send: tuple[str, ...]
    left: tuple[str, ...] = ()


# -- track


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackedExport:
    """An export that waited to be picked up.

    Attributes
    ----------
    export_id, programme
        The export, and the key of its programme.
    status
        The state that it is in now.
    filename, mesh_filename
        Its file's name in the ledger, and on MESH.
    message_id
        MESH's id of the message that was asked about.
    """

    export_id: str
    programme: str
    status: Status
    filename: str
    mesh_filename: str
    message_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrackRun:
    """A run of Track.

    Attributes
    ----------
    status
        ``incomplete`` where an export or a message could not be asked for.
    exports
        Every export that was waiting.
    reports
        How many of MESH's error reports were read.
    """

    status: Literal["ok", "incomplete"]
    exports: tuple[TrackedExport, ...]
    reports: int


# -- collect


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer of DPS, and what it changed.

    Attributes
    ----------
    kind
        ``InfAck`` or ``BusAck``.
    outcome
        ``received``, ``refused``, ``processed``; or why it changed nothing: ``known already``, ``contradiction``,
        ``about an earlier attempt``, ``about another arrival``, ``unmatched``, ``unreadable``.
    export_id, attempt
        What it is about; None where that is not ours.
    code
        DPS's codes where it refused the file.
    problem
        Why it cannot be read.
    processed, refused, not_believed
        How many rows it says were processed and refused, and how many that it lists are not in the file, or are about
        another record there.
    """

    kind: str
    outcome: str
    export_id: str | None = None
    attempt: int | None = None
    code: str = ""
    problem: str = ""
    processed: int | None = None
    refused: int | None = None
    not_believed: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectedMessage:
    """A message that was brought to the bucket.

    Attributes
    ----------
    message_id, workflow_id, filename
        What MESH says of it; empty where MESH does not say.
    key
        Where it is.
    answer
        What it changed, where it is an answer of DPS.
    """

    message_id: str
    workflow_id: str
    filename: str
    key: str
    answer: Answer | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRun:
    """A run of Collect.

    Attributes
    ----------
    status
        ``incomplete`` where messages had to be left for the next run.
    messages
        Every message that it brought to the bucket.
    left
        How many it left.
    """

    status: Literal["ok", "incomplete"]
    messages: tuple[CollectedMessage, ...]
    left: int


# -- events


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportChanged:
    """The event that tells that an export's state, or what DPS made of it, has changed (docs/events.md).

    Attributes
    ----------
    export_id, programme, number
        The export: one DPS file of one programme; the key of the programme, and the export's number in it.
    status
        The state of its delivery.
    attempt
        1 for the first time that it is sent.
    records
        How many rows the file has.
    filename, mesh_filename
        The file's name in the ledger, and on MESH; each attempt has its own.
    message_id
        MESH's id of this attempt's message; empty until MESH gave one.
    processing
        What DPS has made of this attempt's file; null where it has not answered.
    rows_processed, rows_refused
        How many rows DPS processed and refused; null until it has processed the file.
    changed_at
        When it came into the state, or DPS's answer was heard (ISO 8601, with its offset).
    """

    export_id: str
    programme: str
    number: int
    status: Status
    attempt: int
    records: int
    filename: str
    mesh_filename: str
    message_id: str
    processing: Processing | None
    rows_processed: int | None
    rows_refused: int | None
    changed_at: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadFinished:
    """The event that tells a team that its upload has come to its end (docs/events.md).

    Attributes
    ----------
    organisation
        The ODS code of the organisation in whose folder it is.
    batch_id
        Names the upload in its receipt.
    status
        ``ingested``; ``rejected`` as a whole; or ``abandoned`` by a person.
    rows
        How many rows it has; null where it was not ingested, as are the next five.
    accepted, unchanged, overtaken, skipped, rejected
        How many rows were accepted, say what was known already, are older than what is known, withdraw what was never
        known, or were rejected.
    receipt, rejects
        Keys of its receipt and of its rejects file, null where no row was rejected. They bear the upload's file name,
        which may be personal.
    finished_at
        When it came to its end (ISO 8601, UTC).
    summary
        The same in words, for a person, and what to do. Without the file name.
    """

    organisation: str
    batch_id: str
    status: Literal["ingested", "rejected", "abandoned"]
    rows: int | None
    accepted: int | None
    unchanged: int | None
    overtaken: int | None
    skipped: int | None
    rejected: int | None
    receipt: str
    rejects: str | None
    finished_at: str
    summary: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RowsRefused:
    """The event that tells a team that DPS refused rows of its upload (docs/events.md).

    Attributes
    ----------
    organisation
        The ODS code of the organisation in whose folder the upload is.
    batch_id
        Names the upload in its receipt.
    export_id, programme
        The export in which the rows were sent, and the key of its programme.
    rows
        How many rows of the upload DPS refused.
    refusals
        Key of the file that says which, and why. It bears the upload's file name, which may be personal.
    refused_at
        When DPS's answer was heard (ISO 8601, UTC).
    summary
        The same in words, for a person, and what to do. Without the file name.
    """

    organisation: str
    batch_id: str
    export_id: str
    programme: str
    rows: int
    refusals: str
    refused_at: str
    summary: str


type ForTeam = UploadFinished | RowsRefused


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonActed:
    """What a person did by a command: noted in the bucket and published before it is done, and again when it has ended.

    Attributes
    ----------
    act_id
        Names the act: when it began, and what tells it from others of that moment.
    at
        When it began (ISO 8601, UTC).
    by
        Who acted, by the ARN of their credentials.
    what
        The command.
    about
        What it was about: an export, a record, an upload's batch id, fields of the secret; empty where it is the stack.
    reason
        Why, in their words.
    outcome
        ``done``, ``failed`` or ``not known``; empty while it is under way, and for good where the command died.
    """

    act_id: str
    at: str
    by: str
    what: str
    about: str
    reason: str
    outcome: Literal["", "done", "failed", "not known"] = ""
