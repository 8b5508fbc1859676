"""The bucket: what came in, what was made of it, and the very bytes that went out.

=============================================  =====================================================
``incoming/{ODS code}/{name}``                 an upload, as it was put there
``batches/{programme}/{batch id}.jsonl.gz``    its valid records of one programme, one JSON a line
``batches/{programme}/{batch id}.csv.gz``      the same as rows of the DPS file, ready to be sent
``batches/{batch id}.json``                    where the batches of an upload came from, and its receipt to be
``rejected/{ODS code}/{name}/{batch id}.csv``  what was wrong with the rest, for the uploader
``receipts/{ODS code}/{name}/{batch id}.json`` what became of the upload, for the uploader
``receipts/{ODS code}/{name}/{batch id}-refused-{export id}.csv``  which of its rows DPS refused, and why
``exports/{programme}/{number}/part-0001.csv.gz``  the bytes sent, and ``manifest.json`` about them
``inbox/{workflow id}/{message id}``           a message that came in, its body as it was before MESH zipped it
``inbox/{workflow id}/{message id}.json``      what MESH said of it; once that is there, so is the body
=============================================  =====================================================
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from vaccinations.formats.dps_columns import PartFacts, read_batch

if TYPE_CHECKING:
    from collections.abc import Generator
    from datetime import datetime
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

__all__ = ["Archive", "BatchGone", "Manifest", "Upload", "UploadGone", "receipt_key", "receipts_prefix"]

INCOMING = "incoming/"
#: A key of S3 has at most 1,024 bytes; that of a receipt is longer than its upload's.
_LONGEST_NAME = 900
#: A body of a size that nobody knows beforehand is stored in pieces of this size, one after the other: of at most
#: 10,000 of them.
_PIECE = 16 * 1024**2
_IN_PIECES = TransferConfig(multipart_threshold=_PIECE, multipart_chunksize=_PIECE, use_threads=False)
#: S3 keeps 2 KB of metadata; so long may one value be.
_LONGEST_VALUE = 180
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")


class UploadGone(Exception):
    """The uploaded object was deleted before it could be taken in."""


class BatchGone(Exception):
    """A batch object is not there; only one that was attached long ago may have been cleared away."""


@dataclass(frozen=True, slots=True)
class Upload:
    """One version of one object under ``incoming/``."""

    key: str
    version: str
    uploaded_at: datetime
    body: BinaryIO


@dataclass(frozen=True, slots=True)
class Manifest:
    """What the parts of an export hold. It is written after each part, so where that is named, it is there.

    Attributes
    ----------
    records
        How many rows the parts have.
    next
        Where a part that is still to be made begins (`Members.place`); None once all are there.
    """

    export_id: str
    records: int = 0
    parts: tuple[PartFacts, ...] = ()
    next: tuple[int, int] | None = (0, 0)


class Archive:
    """The bucket's layout, and reading and writing it in streams."""

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    # -- what comes in

    def batch_id(self, key: str, version: str) -> str:
        """Derive an upload's batch id from the object's identity, so that a repeated event bears the same one."""
        return hashlib.sha256("\0".join((self.bucket, key, version)).encode()).hexdigest()[:32]

    def open_upload(self, key: str, version: str) -> Upload:
        """Open one version of an uploaded object for streaming.

        Raises
        ------
        UploadGone
            It is not there any more.
        """
        options: dict[str, Any] = {"VersionId": version} if version else {}
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=key, **options)
        except ClientError as error:
            if error.response["Error"]["Code"] in {"NoSuchKey", "NoSuchVersion", "404"}:
                raise UploadGone(key) from None
            raise
        return Upload(key, version, answer["LastModified"], cast("BinaryIO", answer["Body"]))

    def put_batch(self, programme: str, batch_id: str, lines: Path, rows: Path | None = None) -> None:
        """Store the records of one programme from one upload, as batch lines and, so that they are ready, as rows."""
        self._put_file(_batch_key(programme, batch_id), lines)
        if rows:
            self._put_file(_rows_key(programme, batch_id), rows)

    def batch_lines(self, programme: str, batch_id: str) -> Generator[bytes]:
        """Stream the lines of a batch object, each one JSON document.

        Raises
        ------
        BatchGone
            There is no such batch.
        """
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=_batch_key(programme, batch_id))
        except self._s3.exceptions.NoSuchKey:
            raise BatchGone(f"{programme}/{batch_id}") from None
        with contextlib.closing(answer["Body"]) as body:
            yield from read_batch(cast("BinaryIO", body))

    def open_rows(self, programme: str, batch_id: str) -> BinaryIO | None:
        """Open the rows of a batch for streaming; None where they were not stored."""
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=_rows_key(programme, batch_id))
        except self._s3.exceptions.NoSuchKey:
            return None
        return cast("BinaryIO", answer["Body"])

    def put_intake(self, batch_id: str, intake: dict[str, Any]) -> None:
        """Store what is known of an upload once its batches are complete: its key and its receipt to be."""
        self._put_json(_intake_key(batch_id), intake)

    def intake(self, batch_id: str) -> dict[str, Any]:
        """Return what `put_intake` stored."""
        document: dict[str, Any] = self._json(_intake_key(batch_id))
        return document

    def put_rejects(self, upload_key: str, batch_id: str, file: Path) -> str:
        """Store the rejects file of an upload; return its key."""
        key = f"rejected/{_name(upload_key)}/{batch_id}.csv"
        self._put_file(key, file, ContentType="text/csv; charset=utf-8")
        return key

    def put_receipt(self, upload_key: str, batch_id: str, receipt: dict[str, Any]) -> str:
        """Store the receipt of an upload; return its key."""
        key = receipt_key(upload_key, batch_id)
        self._put_json(key, receipt)
        return key

    def put_refusals(self, upload_key: str, batch_id: str, export_id: str, file: Path) -> str:
        """Store which rows of an upload DPS refused, in the form of a rejects file; return its key."""
        key = f"{receipts_prefix(upload_key)}{batch_id}-refused-{export_id}.csv"
        self._put_file(key, file, ContentType="text/csv; charset=utf-8")
        return key

    # -- what goes out

    def put_part(self, programme: str, number: int, part: int, file: Path) -> None:
        """Store one part of an export as it will be sent."""
        self._put_file(_part_key(programme, number, part), file)

    def open_part(self, programme: str, number: int, part: int) -> BinaryIO:
        """Open one part of an export for streaming."""
        answer = self._s3.get_object(Bucket=self.bucket, Key=_part_key(programme, number, part))
        return cast("BinaryIO", answer["Body"])

    def put_manifest(self, programme: str, number: int, manifest: Manifest) -> None:
        """Store the manifest of an export, once the parts that it names are there."""
        self._put_json(_manifest_key(programme, number), asdict(manifest))

    def manifest(self, programme: str, number: int) -> Manifest | None:
        """Return the manifest of an export; None where no part is there yet."""
        try:
            document = self._json(_manifest_key(programme, number))
        except self._s3.exceptions.NoSuchKey:
            return None
        following = document.get("next")
        return Manifest(
            document["export_id"],
            document["records"],
            tuple(PartFacts(**part) for part in document["parts"]),
            (following[0], following[1]) if following else None,
        )

    # -- what came over MESH

    def put_message(self, workflow_id: str | None, message_id: str, body: io.RawIOBase, facts: dict[str, Any]) -> str:
        """Store the body of a message, in a stream of whatever size; return its key.

        What MESH says of it becomes the object's metadata as well, as far as S3 takes it: percent-encoded where it is
        not printable ASCII, and cut.
        """
        key = _message_key(workflow_id, message_id)
        metadata = {
            name.replace("_", "-"): quote(str(value), safe=_PRINTABLE)[:_LONGEST_VALUE].strip()
            for name, value in facts.items()
            if value
        }
        # Buffered, because a raw stream may give less than it is asked for before its end.
        self._s3.upload_fileobj(
            cast("BinaryIO", io.BufferedReader(body)), self.bucket, key, {"Metadata": metadata}, Config=_IN_PIECES
        )
        return key

    def put_message_facts(self, workflow_id: str | None, message_id: str, facts: dict[str, Any]) -> None:
        """Store what MESH said of a message, once its body is there."""
        self._put_json(f"{_message_key(workflow_id, message_id)}.json", facts)

    def message(self, workflow_id: str | None, message_id: str) -> dict[str, Any] | None:
        """Return what MESH said of a message that was stored whole; None where none was."""
        try:
            facts: dict[str, Any] = self._json(f"{_message_key(workflow_id, message_id)}.json")
        except self._s3.exceptions.NoSuchKey:
            return None
        return facts

    def message_filename(self, key: str) -> str:
        """Return the file name that a stored message bore."""
        return str(self._json(f"{key}.json")["filename"])

    def open_message(self, key: str) -> BinaryIO:
        """Open the body of a message for streaming."""
        return cast("BinaryIO", self._s3.get_object(Bucket=self.bucket, Key=key)["Body"])

    def _put_file(self, key: str, file: Path, **options: Any) -> None:
        """Store a file in one request, in a stream: S3 takes up to 5 GB so, and no file here comes near that."""
        with file.open("rb") as body:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **options)

    def _json(self, key: str) -> Any:
        return json.loads(self._s3.get_object(Bucket=self.bucket, Key=key)["Body"].read())

    def _put_json(self, key: str, document: dict[str, Any]) -> None:
        self._s3.put_object(
            Bucket=self.bucket,
            Key=key,
            Body=json.dumps(document, indent=2).encode(),
            ContentType="application/json",
        )


def receipt_key(upload_key: str, batch_id: str) -> str:
    """Return where the receipt of an upload is put."""
    return f"{receipts_prefix(upload_key)}{batch_id}.json"


def receipts_prefix(upload_key: str) -> str:
    """Return what the keys of all receipts of an upload's name begin with."""
    return f"receipts/{_name(upload_key)}/"


def _name(upload_key: str) -> str:
    """Return what of an upload's key stands in those of its receipt and rejects: of very long ones the beginning."""
    return upload_key.removeprefix(INCOMING).encode()[:_LONGEST_NAME].decode(errors="ignore")


def _batch_key(programme: str, batch_id: str) -> str:
    return f"batches/{programme}/{batch_id}.jsonl.gz"


def _rows_key(programme: str, batch_id: str) -> str:
    return f"batches/{programme}/{batch_id}.csv.gz"


def _intake_key(batch_id: str) -> str:
    return f"batches/{batch_id}.json"


def _part_key(programme: str, number: int, part: int) -> str:
    return f"exports/{programme}/{number}/part-{part:04}.csv.gz"


def _message_key(workflow_id: str | None, message_id: str) -> str:
    """Return where a message is put. Both names come from outside: they make one folder and one name of it."""
    folder, name = (quote(part or "none", safe=" ")[: _LONGEST_NAME // 3].strip() for part in (workflow_id, message_id))
    return f"inbox/{folder.replace('..', '%2E%2E')}/{name}"


def _manifest_key(programme: str, number: int) -> str:
    return f"exports/{programme}/{number}/manifest.json"
