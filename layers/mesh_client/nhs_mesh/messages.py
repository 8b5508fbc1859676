"""What is sent and received: parts going out, messages coming in, and what tracking says of them."""

from __future__ import annotations

import hashlib
import io
import string
import zlib
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, BinaryIO, Self

from nhs_mesh.errors import Corrupted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests import Response

__all__ = ["Mailbox", "Message", "MessageType", "Part", "SentMessage", "Tracking", "TrackingStatus"]

_BLOCK = 1 << 16
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Part:
    """A body to be sent: the whole message, or one chunk of it.

    Attributes
    ----------
    open
        Opens the body from its beginning; called once a try.
    size
        How many bytes go over the wire.
    content_encoding
        ``gzip`` where the bytes are compressed.
    """

    open: Callable[[], BinaryIO]
    size: int
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class SentMessage:
    """What MESH made of a message that was sent."""

    message_id: str
    parts: int


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox as the endpoint lookup names it."""

    mailbox_id: str
    mailbox_name: str


class TrackingStatus(StrEnum):
    """Where a message is on its way (mesh-protocol, "Life of a message")."""

    UPLOADING = "uploading"
    ACCEPTED = "accepted"
    ACKNOWLEDGED = "acknowledged"
    UNDELIVERABLE = "undeliverable"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Tracking:
    """What MESH says of a message that was sent, whichever version of the API answered.

    ``status`` is one of `TrackingStatus`, or a word that MESH has learned since.
    """

    message_id: str
    status: TrackingStatus | str
    local_id: str | None = None
    workflow_id: str | None = None
    filename: str | None = None
    recipient: str | None = None
    status_event: str | None = None
    status_code: str | None = None
    status_description: str | None = None
    status_timestamp: datetime | None = None
    upload_timestamp: datetime | None = None
    expiry_time: datetime | None = None

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Self:
        """Read a tracking answer: version 2 in snake_case, version 1 in camelCase."""

        def text(v2: str, v1: str) -> str | None:
            value = body.get(v2) or body.get(v1)
            return str(value) if value else None

        status = (text("status", "status") or "").lower()
        return cls(
            message_id=text("message_id", "messageId") or "",
            status=TrackingStatus(status) if status in set(TrackingStatus) else status,
            local_id=text("local_id", "localId"),
            workflow_id=text("workflow_id", "workflowId"),
            filename=text("filename", "fileName"),
            recipient=text("recipient", "recipient"),
            status_event=text("status_event", "statusEvent"),
            status_code=text("status_code", "statusCode"),
            status_description=text("status_description", "statusDescription"),
            status_timestamp=_moment(text("status_timestamp", "statusTimestamp")),
            upload_timestamp=_moment(text("upload_timestamp", "uploadTimestamp")),
            expiry_time=_moment(text("expiry_time", "expiryTime")),
        )


def _moment(text: str | None) -> datetime | None:
    """Read a time: ISO 8601 in version 2, ``yyyyMMddHHmmss`` in version 1; both UTC."""
    if not text:
        return None
    try:
        moment = datetime.fromisoformat(text) if "-" in text else datetime.strptime(text[:14], "%Y%m%d%H%M%S")  # noqa: DTZ007
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


class MessageType(StrEnum):
    """What kind of message is in an inbox."""

    DATA = "DATA"
    REPORT = "REPORT"


class Message(io.RawIOBase):
    """A message from the inbox: its metadata, and its body as a binary stream, with gzip undone unless told not to.

    Chunks follow each other by themselves. Reading raises `Corrupted` where the body is incomplete or does not match
    the checksum that was asked to be checked, and `Unavailable` where MESH stops answering. Close it, or use it as a
    context manager; what was not read is not fetched.
    """

    def __init__(
        self,
        message_id: str,
        response: Response,
        fetch: Callable[[int], Response],
        *,
        verify_checksum: bool = False,
        decode: bool = True,
    ) -> None:
        super().__init__()
        header = response.headers.get
        self.message_id = message_id
        self.message_type = MessageType.REPORT if header("Mex-MessageType") == "REPORT" else MessageType.DATA
        self.sender = header("Mex-From")
        self.recipient = header("Mex-To")
        self.workflow_id = header("Mex-WorkflowID")
        self.filename = header("Mex-FileName")
        self.local_id = header("Mex-LocalID")
        self.subject = header("Mex-Subject")
        self.checksum = header("Mex-Content-Checksum")
        self.content_type = header("Content-Type")
        self.content_encoding = header("Content-Encoding")
        self.linked_message_id = header("Mex-LinkedMsgID")
        self.status_event = header("Mex-StatusEvent")
        self.status_code = header("Mex-StatusCode")
        self.status_description = header("Mex-StatusDescription")
        self.status_timestamp = _moment(header("Mex-StatusTimestamp"))
        self.chunks = _chunks(header("Mex-Chunk-Range"))
        self._fetch = fetch
        self._decode = decode
        self._hash = _hash_for(self.checksum) if verify_checksum else None
        self._chunk = 1
        self._wire = 0  # bytes of this chunk taken off the wire
        self._ready = b""
        self._broken = False  # whether the connection broke, so that the chunk has to be asked for again
        self._begin(response)

    @property
    def is_report(self) -> bool:
        """Whether MESH itself reports on a message that was sent."""
        return self.message_type is MessageType.REPORT

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def close(self) -> None:
        """Give the connection back."""
        if not self.closed:
            self._response.close()
        super().close()

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with the next bytes of the body; 0 at its end."""
        while not self._ready:
            if not self._more():
                self._check()
                return 0
            if self._hash:
                self._hash.update(self._ready)
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _check(self) -> None:
        if self._hash and self._hash.hexdigest() != (self.checksum or "").rpartition(" ")[2].lower():
            raise Corrupted(f"message {self.message_id} does not match its checksum")

    def _begin(self, response: Response) -> None:
        self._response = response
        self._gzip: Any = zlib.decompressobj(wbits=31) if self._decode and _gzipped(response) else None

    def _more(self) -> bool:
        """Make the next bytes ready, which may be none yet; tell whether there may be more."""
        if self._gzip:
            # What the last block still holds comes before the next one.
            self._ready = self._unpack(self._gzip.unconsumed_tail)
            if self._ready:
                return True
        block = self._block()
        if block:
            self._wire += len(block)
            self._ready = self._unpack(block) if self._gzip else block
            return True
        if self._gzip and self._wire and not self._gzip.eof:
            raise Corrupted(f"message {self.message_id}: part {self._chunk} ends before its gzip stream does")
        if self._chunk >= self.chunks:
            return False
        self._response.close()
        response = self._fetch(self._chunk + 1)
        self._chunk += 1
        self._wire = 0
        self._begin(response)
        return True

    def _unpack(self, block: bytes) -> bytes:
        """Undo gzip, a bounded piece at a time, so that a small block which holds gigabytes never stands in memory."""
        if self._gzip.eof:
            block = self._gzip.unused_data + block
            if not block:
                return b""
            self._gzip = zlib.decompressobj(wbits=31)  # the next member of the gzip stream
        try:
            unpacked: bytes = self._gzip.decompress(block, _BLOCK * 4)
        except zlib.error:
            raise Corrupted(f"message {self.message_id}: part {self._chunk} is not valid gzip") from None
        return unpacked

    def _block(self) -> bytes:
        """Read from the wire; where the connection breaks, ask for the part again and go on where it broke."""
        import urllib3

        for _ in range(_TRIES):
            try:
                if self._broken:
                    self._ask_again()
                block: bytes = self._response.raw.read(_BLOCK, decode_content=False)
            except (urllib3.exceptions.HTTPError, OSError):
                self._broken = True
            else:
                return block
        self._response.close()
        raise Unavailable(f"message {self.message_id}: the connection broke while part {self._chunk} was read")

    def _ask_again(self) -> None:
        """Ask for the chunk a second time, and pass over what was taken of it."""
        self._response.close()
        self._response = self._fetch(self._chunk)
        left = self._wire
        while left:
            passed = self._response.raw.read(min(left, _BLOCK), decode_content=False)
            if not passed:
                raise Corrupted(f"message {self.message_id}: part {self._chunk} has become shorter")
            left -= len(passed)
        self._broken = False


def _gzipped(response: Response) -> bool:
    return bool(response.headers.get("Content-Encoding", "").strip().lower() == "gzip")


def _hash_for(checksum: str | None) -> Any:
    """Tell by its length which hash a checksum is; None where it is none that is known, or there is none."""
    digits = (checksum or "").rpartition(" ")[2]
    if not set(digits) <= set(string.hexdigits):
        return None
    algorithm = {32: hashlib.md5, 64: hashlib.sha256}.get(len(digits))
    return algorithm(usedforsecurity=False) if algorithm else None


def _chunks(chunk_range: str | None) -> int:
    """Read how many chunks ``Mex-Chunk-Range: 1:n`` announces."""
    _, _, total = (chunk_range or "1:1").partition(":")
    return int(total) if total.isdecimal() else 1
