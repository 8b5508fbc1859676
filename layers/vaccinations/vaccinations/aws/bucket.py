"""The bucket: what came in, what was made of it, and the very bytes that went out.

=============================================  =====================================================
``incoming/{ODS code}/{name}``                 an upload, as it was put there
``batches/{programme}/{batch id}.jsonl.gz``    its accepted records of one programme, one JSON a line
``batches/{programme}/{batch id}.v1.csv.gz``   the same as rows of the DPS file, ready to be sent; 1 is their version
``batches/{batch id}.json``                    where the batches of an upload came from, and its receipt to be
``rejected/{ODS code}/{name}/{batch id}.csv``  what was wrong with the rest, for the uploader
``receipts/{ODS code}/{name}/{batch id}.json`` what became of the upload, for the uploader
``receipts/{ODS code}/{name}/{batch id}-refused-{export id}.csv``  which of its rows DPS refused, and why
``exports/{programme}/{number}/part-0001.csv.gz``  the bytes sent, and ``manifest.json`` about them
``inbox/{workflow id}/{message id}``           a message that came in, its body as it was before MESH zipped it
``inbox/{workflow id}/{message id}.json``      what MESH said of it; once that is there, so is the body
``audit/{time}-{id}.json``                     what a person did by a command
=============================================  =====================================================
"""

from __future__ import annotations

import hashlib
import io
import json
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import dropwhile, islice, takewhile
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import quote, unquote

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import ClientError

from vaccinations.formats.batches import read_batch
from vaccinations.formats.dps_columns import ROWS_VERSION
from vaccinations.formats.requests import REQUESTS
from vaccinations.model.export import Asked, FileNames, Manifest, PartFacts
from vaccinations.model.problems import UnreadableUpload
from vaccinations.ports import BatchGone, IntakeGone, MessageGone, StoredMeanwhile, StoredUpload, Upload, UploadGone
from vaccinations.results import ParkedUpload, PersonActed, Receipt, RejectedUpload, StoredIntake, Uploader, document

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
    from pathlib import Path

    from mypy_boto3_s3 import S3Client

    from vaccinations.results import AnyReceipt

__all__ = ["Bucket", "NoSuchObject", "StoredObject", "receipt_key", "receipts_prefix"]

INCOMING = "incoming/"
_AUDIT = "audit/"
#: A key of S3 has at most 1,024 bytes; that of a receipt is longer than its upload's.
_LONGEST_NAME = 900
#: A body of a size that nobody knows beforehand is stored in pieces of this size, one after the other: of at most
#: 10,000 of them.
_PIECE = 16 * 1024**2
_IN_PIECES = TransferConfig(multipart_threshold=_PIECE, multipart_chunksize=_PIECE, use_threads=False)
#: S3 keeps 2 KB of metadata; so long may one value be.
_LONGEST_VALUE = 180
_PRINTABLE = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
_ABSENT = frozenset({"NoSuchKey", "NoSuchVersion", "404"})
_NOT_SO = frozenset({"PreconditionFailed", "ConditionalRequestConflict"})
#: S3 has stored nothing before.
_EVER = datetime.min.replace(tzinfo=UTC)
_CSV, _JSON, _BYTES = "text/csv; charset=utf-8", "application/json", "application/octet-stream"


class NoSuchObject(Exception):
    """There is no object of this key, or not this version of it."""


@dataclass(frozen=True, slots=True)
class StoredObject:
    """An object that is open for streaming, when it was stored, and what was said of it then."""

    body: BinaryIO
    stored_at: datetime
    metadata: Mapping[str, str]


class Bucket:
    """The bucket's layout, and reading and writing it in streams (`vaccinations.ports.Bucket`).

    Everything goes through `open`, `uploads`, `_tag`, `_place`, `_put`, `_put_over`, `_put_stream`, `_folders` and
    `_keys`.
    """

    def __init__(self, s3: S3Client, bucket: str) -> None:
        self._s3 = s3
        self.bucket = bucket

    # -- objects

    def open(self, key: str, version: str = "") -> StoredObject:
        """Open an object, or one version of it, for streaming.

        Raises
        ------
        NoSuchObject
            It is not there.
        """
        which: dict[str, Any] = {"VersionId": version} if version else {}
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=key, **which)
        except ClientError as error:
            if error.response["Error"]["Code"] in _ABSENT:
                raise NoSuchObject from None
            raise
        return StoredObject(cast("BinaryIO", answer["Body"]), answer["LastModified"], answer["Metadata"])

    def has(self, key: str, version: str = "") -> bool:
        """Tell whether there is an object, in this version."""
        return self._tag(key, version) != ""

    def _tag(self, key: str, version: str = "") -> str:
        """Return what tells an object's content from others; nothing where there is no object, or not this version."""
        which: dict[str, Any] = {"VersionId": version} if version else {}
        try:
            return self._s3.head_object(Bucket=self.bucket, Key=key, **which)["ETag"]
        except ClientError as error:
            # An answer to HEAD has no body that says more than this number.
            if error.response["Error"]["Code"] in _ABSENT:
                return ""
            raise

    def _put(self, key: str, body: bytes | BinaryIO, content_type: str = _BYTES) -> None:
        """Store bytes or a file in one request: S3 takes up to 5 GB so, and no file here comes near that."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type)

    def _put_over(self, key: str, body: bytes | BinaryIO, tag: str, content_type: str = _BYTES) -> bool:
        """Store something in place of the object that has a tag; without one, where there is none. Tell whether it was.

        Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
        """
        condition: dict[str, Any] = {"IfMatch": tag} if tag else {"IfNoneMatch": "*"}
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, **condition)
        except ClientError as error:
            if error.response["Error"]["Code"] in _NOT_SO | _ABSENT:
                return False
            raise
        return True

    def _put_new(
        self, key: str, body: bytes | BinaryIO, may_replace: Callable[[], bool], content_type: str = _BYTES
    ) -> None:
        """Store something where nothing is, or what is there may be replaced and nobody has replaced it meanwhile.

        Raises
        ------
        StoredMeanwhile
            It is otherwise.
        """
        if not self._put_over(key, body, "", content_type):
            tag = self._tag(key)
            if not isinstance(body, bytes):
                body.seek(0)
            if not may_replace() or not self._put_over(key, body, tag, content_type):
                raise StoredMeanwhile("another run has read the upload meanwhile")

    def _put_stream(self, key: str, body: BinaryIO, metadata: Mapping[str, str]) -> None:
        """Store a stream of whatever size."""
        self._s3.upload_fileobj(body, self.bucket, key, {"Metadata": dict(metadata)}, Config=_IN_PIECES)

    def _put_file(self, key: str, file: Path, content_type: str = _BYTES) -> None:
        with file.open("rb") as body:
            self._put(key, body, content_type)

    def _put_json(self, key: str, content: Any) -> None:
        self._put(key, _in_json(content), _JSON)

    def _json(self, key: str) -> dict[str, Any]:
        with closing(self.open(key).body) as body:
            content: dict[str, Any] = json.load(body)
        return content

    # -- what comes in

    def batch_id(self, key: str, version: str, retry_of: str = "") -> str:
        """Derive an upload's batch id from the object's identity, so that a repeated event bears the same one.

        Parameters
        ----------
        retry_of
            The batch id that it had before, where it is ingested afresh.
        """
        identity = (self.bucket, key, version, *([retry_of] if retry_of else ()))
        return hashlib.sha256("\0".join(identity).encode()).hexdigest()[:32]

    def put_request(self, name: str, body: BinaryIO | bytes = b"", asked: Asked | None = None) -> tuple[str, str]:
        """Store a request (`vaccinations.formats.requests`), whose event is then queued; return key and version.

        Parameters
        ----------
        asked
            The person who makes it, and why.
        """
        metadata = {name: quote(value, safe=_PRINTABLE) for name, value in asdict(asked).items()} if asked else {}
        return self._put_object(f"{REQUESTS}{name}", body, metadata)

    def request_waits(self, name: str) -> bool:
        """Tell whether a request was stored, and there is no receipt of it yet, or it is parked."""
        key = f"{REQUESTS}{name}"
        try:
            found = self.open(key)
        except NoSuchObject:
            return False
        found.body.close()
        receipt = self._latest_receipt(key, found.stored_at)
        return receipt is None or receipt.status == "parked"

    def uploads(self, organisation: str = "") -> Iterator[StoredUpload]:
        """Iterate over every version of every upload and request, newest first of each, without deleted objects'.

        Parameters
        ----------
        organisation
            Only those in its folder.
        """
        for prefix in [f"{INCOMING}{organisation}/"] if organisation else [INCOMING, REQUESTS]:
            yield from self._versions(prefix)

    def versions(self, key: str) -> Iterator[StoredUpload]:
        """Iterate over the versions of one upload or request, newest first; none where it was deleted."""
        return (version for version in self._versions(key) if version.key == key)

    def folders(self) -> list[str]:
        """Return the names of the folders in which organisations upload, as they are written."""
        return sorted(self._folders(INCOMING))

    def _versions(self, prefix: str) -> Iterator[StoredUpload]:
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix)
        last_deleted = ""
        for page in pages:
            # A deleted object's latest version is a marker. It comes before the others, perhaps on the page before.
            deleted = {marker["Key"] for marker in page.get("DeleteMarkers", ()) if marker["IsLatest"]} | {last_deleted}
            for found in page.get("Versions", ()):
                if found["Key"] not in deleted:
                    version = "" if found["VersionId"] == "null" else found["VersionId"]
                    yield StoredUpload(found["Key"], version, found["LastModified"])
            last_deleted = max(deleted)

    def open_upload(self, key: str, version: str) -> Upload:
        """Open one version of an uploaded object for streaming.

        Raises
        ------
        UploadGone
            It is not there any more.
        UnreadableUpload
            It is in an archive.
        """
        try:
            found = self.open(key, version)
        except NoSuchObject:
            raise UploadGone from None
        except ClientError as error:
            if error.response["Error"]["Code"] != "InvalidObjectState":
                raise
            raise UnreadableUpload(
                "the file was put into an archive of S3, where it cannot be read",
                "upload it again with the storage class STANDARD",
            ) from None
        said = {name: unquote(value) for name, value in found.metadata.items()}
        # An uploader may say anything of an upload: only of a request it counts.
        asked = Asked(said["by"], said.get("reason", "")) if key.startswith(REQUESTS) and said.get("by") else None
        return Upload(key, version, found.stored_at, self._place(key, version, found.stored_at), found.body, asked)

    def _place(self, key: str, version: str, stored_at: datetime) -> int:
        """Count the versions of an object that S3 stored before this one in the same second."""
        if not version:
            return 0
        pages = self._s3.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=key)
        # S3 lists an object's versions newest first, and before those of objects whose keys only begin like its own.
        listed = takewhile(
            lambda each: each["Key"] == key, (each for page in pages for each in page.get("Versions", ()))
        )
        older = islice(dropwhile(lambda each: each["VersionId"] != version, listed), 1, None)
        # Not only until another second comes: a version that came in parts bears the time at which it was begun.
        second = stored_at.replace(microsecond=0)
        return sum(each["LastModified"].replace(microsecond=0) == second for each in older)

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
        with lines.open("rb") as body:
            self._put_new(_batch_key(programme, batch_id), body, may_replace)
        if rows:
            with rows.open("rb") as body:
                self._put_new(_rows_key(programme, batch_id), body, may_replace)

    def batch_lines(self, programme: str, batch_id: str) -> Generator[bytes]:
        """Stream the lines of a batch object, each one JSON document.

        Raises
        ------
        BatchGone
            There is no such batch.
        """
        try:
            found = self.open(_batch_key(programme, batch_id))
        except NoSuchObject:
            raise BatchGone(f"{programme}/{batch_id}") from None
        with closing(found.body) as body:
            yield from read_batch(body)

    def open_rows(self, programme: str, batch_id: str) -> BinaryIO | None:
        """Open the rows of a batch for streaming; None where none of this version were stored."""
        try:
            return self.open(_rows_key(programme, batch_id)).body
        except NoSuchObject:
            return None

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
        key, content = _intake_key(batch_id), asdict(intake)
        if may_replace:
            self._put_new(key, _in_json(content), may_replace, _JSON)
        else:
            self._put_json(key, content)

    def put_parked(self, parked: ParkedUpload) -> None:
        """Store that an upload is parked, and its receipt; each unless somebody has written down more meanwhile."""
        key = _intake_key(parked.batch_id)
        tag = self._tag(key)
        stored = self.intake(parked.batch_id)
        if not stored.parked:
            self._put_over(key, _in_json(asdict(replace(stored, parked=parked))), tag, _JSON)
        self._put_over(receipt_key(parked.upload, parked.batch_id), _in_json(document(parked)), "", _JSON)

    def intake(self, batch_id: str) -> StoredIntake:
        """Return what `put_intake` stored.

        Raises
        ------
        IntakeGone
            It is not there.
        """
        try:
            content = self._json(_intake_key(batch_id))
        except NoSuchObject:
            raise IntakeGone(batch_id) from None
        parked = content.get("parked")
        parts = {"receipt": _receipt(content["receipt"]), "parked": _receipt(parked) if parked else None}
        return StoredIntake(**content | parts)

    def put_rejects(self, upload_key: str, batch_id: str, file: Path) -> str:
        """Store the rejects file of an upload; return its key."""
        key = f"rejected/{_name(upload_key)}/{batch_id}.csv"
        self._put_file(key, file, _CSV)
        return key

    def put_receipt(self, upload_key: str, batch_id: str, receipt: AnyReceipt) -> str:
        """Store the receipt of an upload; return its key."""
        key = receipt_key(upload_key, batch_id)
        self._put_json(key, document(receipt))
        return key

    def put_refusals(self, upload_key: str, batch_id: str, export_id: str, file: Path) -> str:
        """Store which rows of an upload DPS refused, in the form of a rejects file; return its key."""
        key = f"{receipts_prefix(upload_key)}{batch_id}-refused-{export_id}.csv"
        self._put_file(key, file, _CSV)
        return key

    # -- what goes out

    def put_part(self, programme: str, number: int, part: int, file: Path) -> None:
        """Store one part of an export as it will be sent."""
        self._put_file(_part_key(programme, number, part), file)

    def open_part(self, programme: str, number: int, part: int) -> BinaryIO:
        """Open one part of an export for streaming."""
        return self.open(_part_key(programme, number, part)).body

    def put_manifest(self, programme: str, number: int, manifest: Manifest) -> None:
        """Store the manifest of an export, once the parts that it names are there."""
        self._put_json(_manifest_key(programme, number), asdict(manifest))

    def manifest(self, programme: str, number: int) -> Manifest | None:
        """Return the manifest of an export; None where no part is there yet."""
        try:
            content = self._json(_manifest_key(programme, number))
        except NoSuchObject:
            return None
        return Manifest(
            content["export_id"],
            content["rows_version"],
            tuple(content["batches"]),
            tuple(FileNames(*names) for names in content["names"]),
            content["records"],
            tuple(PartFacts(**part) for part in content["parts"]),
            tuple(content["next"]) if content["next"] else None,
        )

    def export_numbers(self, programme: str) -> list[int]:
        """Return the numbers of a programme's exports of which anything is in the bucket, in order."""
        return sorted(int(name) for name in self._folders(f"exports/{programme}/") if name.isdecimal())

    def _folders(self, prefix: str) -> set[str]:
        """Return the names of the folders in a folder, whose name ends with a slash."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix, Delimiter="/")
        found = (each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ()))
        return {name.removeprefix(prefix).rstrip("/") for name in found}

    # -- what came over MESH

    def put_message(self, workflow_id: str | None, message_id: str, body: BinaryIO, facts: dict[str, Any]) -> str:
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
        self._put_stream(key, body, metadata)
        return key

    def has_chunk(self, workflow_id: str | None, message_id: str, name: str) -> bool:
        """Tell whether a chunk of a message was stored whole."""
        return self.has(_chunk_key(workflow_id, message_id, name))

    def put_chunk(self, workflow_id: str | None, message_id: str, name: str, body: BinaryIO) -> None:
        """Store a chunk of a message, until all of them are there."""
        self._put_stream(_chunk_key(workflow_id, message_id, name), body, {})

    def join_chunks(self, workflow_id: str | None, message_id: str, names: Sequence[str], facts: dict[str, Any]) -> str:
        """Store the body of a message, put together from its chunks; return its key."""
        bodies = (self.open(_chunk_key(workflow_id, message_id, name)).body for name in names)
        with io.BufferedReader(_Joined(bodies)) as body:
            return self.put_message(workflow_id, message_id, body, facts)

    def put_message_facts(self, workflow_id: str | None, message_id: str, facts: dict[str, Any]) -> None:
        """Store what MESH said of a message, once its body is there."""
        self._put_json(f"{_message_key(workflow_id, message_id)}.json", facts)

    def message(self, workflow_id: str | None, message_id: str) -> dict[str, Any] | None:
        """Return what MESH said of a message that was stored whole; None where none was."""
        try:
            return self._json(f"{_message_key(workflow_id, message_id)}.json")
        except NoSuchObject:
            return None

    def open_message(self, key: str) -> BinaryIO:
        """Open the body of a message for streaming.

        Raises
        ------
        MessageGone
            It is not there any more.
        """
        try:
            return self.open(key).body
        except NoSuchObject:
            raise MessageGone(key) from None

    def messages(self, since: datetime) -> Iterator[dict[str, Any]]:
        """Iterate over what MESH said of each message that was stored whole since then, oldest first."""
        for key in self._keys("inbox/", ".json", since):
            yield self._json(key)

    def _keys(self, prefix: str, suffix: str, since: datetime) -> list[str]:
        """Return the keys of a folder's objects with a suffix that were stored since then, in the order of that."""
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        listed = ((each["LastModified"], each["Key"]) for page in pages for each in page.get("Contents", ()))
        return [key for at, key in sorted(listed) if at >= since and key.endswith(suffix)]

    # -- what the command asks for

    def put_upload(self, organisation: str, name: str, body: BinaryIO | bytes) -> tuple[str, str]:
        """Store an upload of an organisation; return its key and version."""
        return self._put_object(f"{INCOMING}{organisation}/{name}", body)

    def _put_object(
        self, key: str, body: BinaryIO | bytes, metadata: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        answer = self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, Metadata=metadata or {})
        return key, answer.get("VersionId", "")

    def receipt(self, upload_key: str, batch_id: str) -> AnyReceipt | None:
        """Return the receipt of an upload; None where it is not there yet."""
        try:
            found: AnyReceipt = _receipt(self._json(receipt_key(upload_key, batch_id)))
        except NoSuchObject:
            return None
        return found

    def outcome(self, upload_key: str, batch_id: str) -> AnyReceipt | None:
        """Return the receipt of an upload, of one ingested afresh the last; None where it is not there yet."""
        receipt = self.receipt(upload_key, batch_id)
        return self._at_last(upload_key, receipt) if receipt else None

    def latest_receipt(self, upload_key: str) -> tuple[AnyReceipt, list[str]] | None:
        """Return the latest receipt of an upload's name, and the keys of the files of what DPS refused of it."""
        receipt = self._latest_receipt(upload_key, _EVER)
        return (receipt, self.refusals(upload_key, receipt.batch_id)) if receipt else None

    def refusals(self, upload_key: str, batch_id: str) -> list[str]:
        """Return the keys of the files of what DPS refused of an upload, one for each export."""
        return sorted(self._keys(f"{receipts_prefix(upload_key)}{batch_id}-refused-", ".csv", _EVER))

    def batches(self, programme: str) -> list[str]:
        """Return the ids of a programme's batches, the oldest first."""
        folder, ending = f"batches/{programme}/", ".jsonl.gz"
        return [key.removeprefix(folder).removesuffix(ending) for key in self._keys(folder, ending, _EVER)]

    def _latest_receipt(self, upload_key: str, since: datetime) -> AnyReceipt | None:
        """Return the latest receipt of an upload's name that was stored since then; None where there is none."""
        keys = self._keys(receipts_prefix(upload_key), ".json", since)
        return self._at_last(upload_key, _receipt(self._json(keys[-1]))) if keys else None

    def _at_last(self, upload_key: str, receipt: AnyReceipt) -> AnyReceipt:
        """Return the receipt itself; of an upload that was ingested afresh, perhaps more than once, the last one."""
        while isinstance(receipt, ParkedUpload) and receipt.retried_as:
            again = self.receipt(upload_key, receipt.retried_as)
            if again is None:
                break
            receipt = again
        return receipt

    def open_rejects(self, key: str) -> BinaryIO:
        """Open a rejects file for streaming."""
        return self.open(key).body

    def put_act(self, act: PersonActed) -> None:
        """Note what a person does; noted again, the earlier note stays as a version of the object."""
        self._put_json(f"{_AUDIT}{act.act_id}.json", document(act))

    def acts(self, since: datetime, limit: int) -> Iterator[PersonActed]:
        """Iterate over the last so many acts of persons that were noted since then, newest first."""
        keys = self._keys(_AUDIT, ".json", since)
        for key in sorted(keys, reverse=True)[:limit]:
            yield PersonActed(**self._json(key))


_RECEIPTS: Mapping[str, Callable[..., AnyReceipt]] = {"ingested": Receipt, "rejected": RejectedUpload}


def _receipt(content: dict[str, Any]) -> Any:
    types: dict[str, Any] = {"uploader": Uploader, "asked": Asked}
    parts = {name: made(**content[name]) for name, made in types.items() if content.get(name)}
    return _RECEIPTS.get(content["status"], ParkedUpload)(**content | parts)


def _in_json(content: Any) -> bytes:
    return json.dumps(content, indent=2).encode()


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
    return f"batches/{programme}/{batch_id}.v{ROWS_VERSION}.csv.gz"


def _intake_key(batch_id: str) -> str:
    return f"batches/{batch_id}.json"


def _part_key(programme: str, number: int, part: int) -> str:
    return f"exports/{programme}/{number}/part-{part:04}.csv.gz"


def _message_key(workflow_id: str | None, message_id: str) -> str:
    """Return where a message is put. Both names come from outside: they make one folder and one name of it."""
    folder, name = (quote(part or "none", safe=" ")[: _LONGEST_NAME // 3].strip() for part in (workflow_id, message_id))
    return f"inbox/{folder.replace('..', '%2E%2E')}/{name}"


def _chunk_key(workflow_id: str | None, message_id: str, name: str) -> str:
    return f"chunks/{_message_key(workflow_id, message_id).removeprefix('inbox/')}/{name}"


class _Joined(io.RawIOBase):
    """Bodies one after the other, each opened when it is needed."""

    def __init__(self, bodies: Iterator[BinaryIO]) -> None:
        self._bodies = bodies
        self._body: BinaryIO | None = next(bodies, None)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while self._body:
            if block := self._body.read(len(buffer)):
                buffer[: len(block)] = block
                return len(block)
            self._body.close()
            self._body = next(self._bodies, None)
        return 0


def _manifest_key(programme: str, number: int) -> str:
    return f"exports/{programme}/{number}/manifest.json"
