"""What comes in: messages, and what tracking says of those that were sent."""

from __future__ import annotations

import hashlib
import io
import re
import zlib
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Self

from nhs_mesh.errors import Corrupted, MeshError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from urllib3 import BaseHTTPResponse

    from nhs_mesh.transport import Deadline

__all__ = ["Mailbox", "Message", "MessageType", "Tracking", "TrackingStatus"]

_BLOCK = 1 << 17
_TRIES = 3
_GZIP_HEAD = 10
#: Which checksum has so many hexadecimal digits.
_ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384"}
#: What two answers have in common that bring the same body, beside all that MESH says of the message.
_VALIDATORS = frozenset({"content-encoding", "content-length", "etag", "last-modified"})


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox as the endpoint lookup names it."""

    mailbox_id: str
    mailbox_name: str


class TrackingStatus(StrEnum):
    """Where a message is on its way (docs/mesh-protocol.md, "Life of a message")."""

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
            return str(value) if value and isinstance(value, (str, int)) else None

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


class Message(io.BufferedReader):
    """A message from the inbox: its metadata, and its body as an ordinary binary file that is read once.

    gzip is undone unless told not to, and chunks follow each other by themselves. Reading raises `Corrupted` where
    the message is not whole or does not match the checksum that was asked to be checked, and `Unavailable` where MESH
    stops answering; after either it is not read on: `MeshClient.download` opens it anew. Close it, or use it as a
    context manager; what was not read is not fetched.

    Attributes
    ----------
    message_id, message_type, sender, recipient, workflow_id, filename, local_id, subject
        What its sender, or MESH, said of it; None where nothing was said.
    content_type
        The type that the sender gave it (``Mex-Content-Type``), also where it came in chunks.
    content_encoding
        How it came over the wire: ``gzip``, or None.
    encrypted, compressed
        Whether the sender, or MESH, said that the file itself is so.
    checksum
        What the sender said that its checksum is.
    linked_message_id, status_event, status_code, status_description, status_timestamp
        Of a report: which message it is about, and what happened to that.
    chunk, chunks
        Which chunk it begins with, and how many the message has.
    mex_headers
        Every header that begins with ``Mex-``, by its name in lower case.

    Examples
    --------
    >>> with client.download(message_id) as message:
    ...     for line in io.TextIOWrapper(message, "utf-8"):
    ...         print(line)
    """

    def __init__(
        self,
        message_id: str,
        response: BaseHTTPResponse,
        fetch: Callable[[int], BaseHTTPResponse],
        *,
        chunk: int | None = None,
        verify_checksum: bool = False,
        decode: bool = True,
        deadline: Callable[[], AbstractContextManager[Deadline | None]] = nullcontext,
    ) -> None:
        self.message_id = message_id
        header = response.headers.get
        self.message_type = MessageType.REPORT if header("Mex-MessageType") == "REPORT" else MessageType.DATA
        self.sender = header("Mex-From")
        self.recipient = header("Mex-To")
        self.workflow_id = header("Mex-WorkflowID")
        self.filename = header("Mex-FileName")
        self.local_id = header("Mex-LocalID")
        self.subject = header("Mex-Subject")
        self.checksum = header("Mex-Content-Checksum")
        self.content_type = header("Mex-Content-Type") or header("Content-Type")
        self.content_encoding = header("Content-Encoding")
        self.encrypted = _yes(header("Mex-Content-Encrypted"))
        self.compressed = _yes(header("Mex-Content-Compressed"))
        self.linked_message_id = header("Mex-LinkedMsgID")
        self.status_event = header("Mex-StatusEvent")
        self.status_code = header("Mex-StatusCode")
        self.status_description = header("Mex-StatusDescription")
        self.status_timestamp = _moment(header("Mex-StatusTimestamp"))
        self.mex_headers: Mapping[str, str] = {
            name.lower(): value for name, value in response.headers.items() if name.lower().startswith("mex-")
        }
        self.chunk = chunk or 1
        checksum = _Checksum(message_id, self.checksum) if verify_checksum and self.checksum else None
        self._body = _Body(
            message_id,
            response,
            fetch,
            first=self.chunk,
            alone=chunk is not None,
            empty=self.is_report,
            checksum=checksum,
            decode=decode,
            deadline=deadline,
        )
        self.chunks = self._body.chunks
        super().__init__(self._body, _BLOCK)

    @property
    def is_report(self) -> bool:
        """Whether MESH itself reports on a message that was sent."""
        return self.message_type is MessageType.REPORT

    @property
    def progress(self) -> float:
        """How much of the message has come, from 0 to 1, as far as MESH says how long it is."""
        return self._body.progress


class _Body(io.RawIOBase):
    """The body of a message: one chunk after the other, each checked to be what was asked for, and whole.

    Parameters
    ----------
    fetch
        Asks for a chunk.
    first, alone
        Which chunk ``response`` is, and whether the body ends with it.
    empty
        Whether it may be empty although it says that it is compressed.
    """

    def __init__(
        self,
        message_id: str,
        response: BaseHTTPResponse,
        fetch: Callable[[int], BaseHTTPResponse],
        *,
        first: int,
        alone: bool,
        empty: bool,
        checksum: _Checksum | None,
        decode: bool,
        deadline: Callable[[], AbstractContextManager[Deadline | None]],
    ) -> None:
        super().__init__()
        self._message_id = message_id
        self._response = response
        self._fetch = fetch
        self._alone = alone
        self._empty = empty
        self._checksum = checksum
        self._decode = decode
        self._deadline = deadline
        self._ready = memoryview(b"")
        self._error: MeshError | None = None
        self._chunk = first
        try:
            self.chunks = self._chunks(response)
            self._begin(response)
        except MeshError:
            response.close()
            raise

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()

    @property
    def progress(self) -> float:
        part = self._wire / self._length if self._length else 0.0
        return 1.0 if self._over else min((self._chunk - 1 + part) / self.chunks, 1.0)

    def readinto(self, buffer: Any) -> int:
        # What it could not give before it can never give: nothing may seem to be its end.
        if self._error:
            raise self._error
        try:
            with self._deadline() as deadline:
                while not self._ready:
                    if not self._more(deadline):
                        self._over = True
                        if self._checksum:
                            self._checksum.check()
                        return 0
        except MeshError as error:
            self._error = error
            self._response.close()
            raise
        taken = min(len(buffer), len(self._ready))
        buffer[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def _begin(self, response: BaseHTTPResponse) -> None:
        """Begin a chunk."""
        said = response.headers.get("Content-Length", "")
        length = int(said) if re.fullmatch(r"[0-9]{1,18}", said) else None
        if length is None and "Transfer-Encoding" not in response.headers:
            # It would end wherever the connection does.
            raise self._corrupted("does not say how long it is")
        self._response = response
        self._length = length or 0
        self._same = _validator(response)
        self._wire = 0  # bytes of this chunk taken off the wire
        self._sum = 0  # their CRC-32
        self._broken = False  # whether the connection broke, so that the chunk has to be asked for again
        self._over = False
        encoding = (response.headers.get("Content-Encoding") or "identity").strip().lower()
        if encoding not in {"gzip", "identity"}:
            raise self._corrupted("is encoded in a way that was not asked for")
        self._packed = encoding == "gzip"
        self._gzip: Any = zlib.decompressobj(wbits=31) if self._decode and self._packed else None

    def _chunks(self, response: BaseHTTPResponse, of: int | None = None) -> int:
        """Check that a chunk is the one that was asked for; return how many there are."""
        of_message = response.headers.get("Mex-MessageID")
        if of_message and of_message.upper() != self._message_id.upper():
            raise self._corrupted("is said to be of another message")
        said = (response.headers.get("Mex-Chunk-Range") or "").strip()
        found = re.fullmatch(r"([0-9]{1,6}):([0-9]{1,6})", said)
        if not said and response.status == 200 and self._chunk == 1 and of is None:
            return 1
        if not found:
            raise self._corrupted("is not said to be a chunk of so many")
        number, total = int(found[1]), int(found[2])
        if self._empty and total == 0:
            total = 1  # a report has no body
        # The last chunk, or the only one, has status 200, every other 206.
        if number != self._chunk or total != (of or total) or not 1 <= number <= total:
            raise self._corrupted("is said to be another chunk than was asked for")
        if response.status != (200 if number == total else 206):
            raise self._corrupted(f"has the status {response.status}, which does not fit chunk {number} of {total}")
        return total

    def _more(self, deadline: Deadline | None) -> bool:
        """Make the next bytes ready, which may be none yet; tell whether there may be more."""
        if self._gzip and (self._gzip.unconsumed_tail or (self._gzip.eof and self._gzip.unused_data)):
            # What the last block still holds comes before the next one.
            self._give(self._unpack(self._gzip.unconsumed_tail))
            return True
        if block := self._block(deadline):
            if self._checksum and self._packed:
                self._checksum.packed(block)
            self._give(self._unpack(block) if self._gzip else block)
            return True
        if self._gzip and not self._gzip.eof and not (self._empty and not self._wire):
            raise self._corrupted("ends before its gzip stream does")
        if self._alone or self._chunk >= self.chunks:
            return False
        self._response.close()
        self._response = self._fetch(self._chunk + 1)
        self._chunk += 1
        self._chunks(self._response, self.chunks)
        self._begin(self._response)
        return True

    def _give(self, block: bytes) -> None:
        if self._checksum:
            self._checksum.body(block)
        self._ready = memoryview(block)

    def _unpack(self, block: bytes) -> bytes:
        """Undo gzip, a bounded piece at a time, so that a small block which holds gigabytes never stands in memory."""
        if self._gzip.eof:
            block = self._gzip.unused_data + block
            self._gzip = zlib.decompressobj(wbits=31)  # the next member of the gzip stream
        try:
            unpacked: bytes = self._gzip.decompress(block, _BLOCK * 4)
        except zlib.error:
            raise self._corrupted("is not valid gzip") from None
        return unpacked

    def _block(self, deadline: Deadline | None) -> bytes:
        """Read from the wire; where the connection breaks, ask for the chunk again and go on where it broke."""
        for _ in range(_TRIES):
            try:
                if self._broken:
                    self._ask_again(deadline)
                block: bytes = self._response.read(_BLOCK, decode_content=False)
            except MeshError:
                raise
            except Exception:  # noqa: BLE001 - the libraries raise whatever a server's bytes make them
                self._broken = True
                if deadline and deadline.left <= 0:
                    break
            else:
                self._sum = self._summed(block, self._wire, self._sum)
                self._wire += len(block)
                return block
        raise Unavailable(f"message {self._message_id}: the connection broke while chunk {self._chunk} was read")

    def _ask_again(self, deadline: Deadline | None) -> None:
        """Ask for the chunk a second time, pass over what was taken of it, and make sure that it is the same."""
        self._response.close()
        self._response = self._fetch(self._chunk)
        if _validator(self._response) != self._same:
            raise self._corrupted("has become another one while it was read")
        passed = found = 0
        while passed < self._wire:
            block = self._response.read(min(_BLOCK, self._wire - passed), decode_content=False)
            found = self._summed(block, passed, found)
            passed += len(block)
            # Where the connection breaks again the read raises; where the chunk ends, it has become shorter.
            if not block or (passed == self._wire and found != self._sum):
                raise self._corrupted("has become another one while it was read")
            if deadline:
                deadline.reached(passed)
        self._broken = False

    def _summed(self, block: bytes, start: int, before: int) -> int:
        """Go on with a CRC-32, which costs little, of what came over the wire, but not of the head of a gzip stream.

        That holds the time at which MESH made it, which is another one each time.
        """
        head = max(0, _GZIP_HEAD - start) if self._packed else 0
        return zlib.crc32(memoryview(block)[head:], before)

    def _corrupted(self, why: str) -> Corrupted:
        return Corrupted(f"message {self._message_id}: chunk {self._chunk} {why}")


class _Checksum:
    """Checks a body against its sender's checksum, which may be that of the body or of its compressed bytes.

    Raises
    ------
    Corrupted
        Of no form that is known: nothing can be verified.
    """

    def __init__(self, message_id: str, said: str) -> None:
        name, _, digits = said.strip().replace(":", " ").rpartition(" ")
        algorithm = _ALGORITHMS.get(len(digits))
        named = name.strip().lower().replace("-", "")
        if not algorithm or not re.fullmatch(r"[0-9a-fA-F]+", digits) or named not in {"", algorithm}:
            raise Corrupted(f"message {message_id}: its checksum is of no form that can be verified")
        self._message_id = message_id
        self._digest = digits.lower()
        self._algorithm = algorithm
        self._of_body = hashlib.new(algorithm, usedforsecurity=False)
        self._of_packed: hashlib._Hash | None = None

    def body(self, block: bytes) -> None:
        """Take a piece of the body."""
        self._of_body.update(block)

    def packed(self, block: bytes) -> None:
        """Take a piece of what came over the wire, compressed."""
        self._of_packed = self._of_packed or hashlib.new(self._algorithm, usedforsecurity=False)
        self._of_packed.update(block)

    def check(self) -> None:
        """Compare, at the end."""
        found = {each.hexdigest() for each in (self._of_body, self._of_packed) if each}
        if self._digest not in found:
            raise Corrupted(f"message {self._message_id} does not match its checksum")


def _validator(response: BaseHTTPResponse) -> tuple[Any, ...]:
    """Return what is the same of two answers with the same body."""
    said = ((name.lower(), value) for name, value in response.headers.items())
    return (response.status, *sorted(each for each in said if each[0] in _VALIDATORS or each[0].startswith("mex-")))


def _yes(value: str | None) -> bool:
    return (value or "").strip().upper() in {"Y", "TRUE"}
