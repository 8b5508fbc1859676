"""The MESH client: one method for each endpoint (mesh-protocol, "Endpoints")."""

from __future__ import annotations

import hashlib
import io
import itertools
import platform
import tempfile
import time
import uuid
import zlib
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast
from urllib.parse import quote, urlsplit

from nhs_mesh.auth import Credentials, MeshAuth
from nhs_mesh.errors import ConfigurationError, MeshError, NotUnique, SendOutcomeUnknown, Unavailable
from nhs_mesh.messages import Mailbox, Message, Part, SentMessage, Tracking
from nhs_mesh.tls import ssl_context
from nhs_mesh.transport import NotSent, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from requests import Response

__all__ = ["CHUNK_SIZE", "MeshClient"]

#: One request carries at most 100 MB after compression (mesh-protocol, "Message size").
CHUNK_SIZE = 100_000_000
_BLOCK = 1 << 20
#: How long a header may be (the sandbox's own limits); 100 characters where it is not named here.
_HEADER_LIMITS = {"Mex-WorkflowID": 300, "Mex-FileName": 300, "Mex-LocalID": 300, "Mex-Subject": 500}
_PAGE_SIZES = range(10, 501)
_GZIP_OVERHEAD = 64
_LEVEL = 6
#: A part that is compressed needs room for its frame.
_SMALLEST_CHUNK = 128
_LOCKED = 423


class MeshClient:
    """A connection to MESH for one mailbox.

    Parameters
    ----------
    base_url
        MESH's address without a path.
    credentials
        Mailbox id, password and shared key.
    certificate, private_key, passphrase, ca_bundle
        PEM texts of the client certificate, its key and the CA bundle, and the key's passphrase.
    verify
        False leaves the server's certificate unchecked, for a sandbox; refused for hosts of nhs.uk.
    timeout
        Seconds to connect, and seconds between two bytes of an answer.
    deadline
        Seconds that one call may take with all its tries, where the body is not counted.
    clock, sleep
        For tests.

    Raises
    ------
    ConfigurationError
        The settings cannot work; nothing was sent.

    Examples
    --------
    >>> with MeshClient(url, Credentials("X26ABC1", password, shared_key), certificate=..., ...) as client:
    ...     client.handshake()
    ...     for message_id in client.inbox():
    ...         with client.download(message_id) as message:
    ...             shutil.copyfileobj(message, file)
    ...         client.acknowledge(message_id)
    """

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        *,
        certificate: str,
        private_key: str,
        passphrase: str | None,
        ca_bundle: str,
        verify: bool = True,
        timeout: tuple[float, float] = (10.0, 60.0),
        deadline: float = 300.0,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        host = _host(base_url)
        _check(credentials)
        if not verify and (host == "nhs.uk" or host.endswith(".nhs.uk")):
            raise ConfigurationError(f"SSL verification cannot be switched off for {host}: only for a sandbox")
        context = ssl_context(
            certificate=certificate,
            private_key=private_key,
            passphrase=passphrase,
            ca_bundle=ca_bundle,
            verify=verify,
            now=clock(),
        )
        self.mailbox = credentials.mailbox.upper()
        self._root = f"{base_url.rstrip('/')}/messageexchange"
        self._own = f"{self._root}/{quote(self.mailbox, safe='')}"
        self._transport = Transport(
            context, MeshAuth(credentials, clock), timeout=timeout, deadline=deadline, clock=clock, sleep=sleep
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. The client may be used again, on new ones."""
        self._transport.close()

    def __repr__(self) -> str:
        return f"<MeshClient {self.mailbox} at {self._root}>"

    # -- the mailbox

    def handshake(self) -> None:
        """Tell MESH that the mailbox is in use; at least once every 24 hours.

        Raises
        ------
        Unauthorised
            MESH does not let this mailbox in.
        Unavailable
            MESH cannot be reached, or does not answer.

        Examples
        --------
        >>> client.handshake()
        """
        headers = {
            "Mex-ClientVersion": "nhs-mesh==0.1.0",
            "Mex-OSName": platform.system() or "unknown",
            "Mex-OSVersion": platform.release() or "unknown",
            "Mex-OSArchitecture": platform.machine() or "unknown",
        }
        self._transport.request("POST", self._own, headers=headers)

    def inbox(self, *, workflow_filter: str | None = None, page_size: int = 500) -> Iterator[str]:
        """Iterate over the ids of the messages that wait, page by page, each fetched when it is needed.

        Parameters
        ----------
        workflow_filter
            Only messages of this workflow id; ``*`` at either end matches anything, ``!`` in front turns it round.
        page_size
            How many ids a page, 10 to 500.

        Raises
        ------
        ConfigurationError
            There is no page of that size.
        Unauthorised, Unavailable
            While it is iterated over, not before.

        Examples
        --------
        >>> for message_id in client.inbox(workflow_filter="DPS*"):
        ...     print(message_id)
        """
        if page_size not in _PAGE_SIZES:
            raise ConfigurationError("a page of the inbox holds 10 to 500 ids")
        return self._pages(workflow_filter, page_size)

    def _pages(self, workflow_filter: str | None, page_size: int) -> Iterator[str]:
        url = f"{self._own}/inbox"
        params: dict[str, str] | None = {"max_results": str(page_size)}
        if workflow_filter:
            params = {"max_results": str(page_size), "workflow_filter": workflow_filter}
        while True:
            page = self._json(url, params=params)
            yield from _field(page, "messages")
            following = (page.get("links") or {}).get("next")
            # With a filter a page may be empty although more follow.
            if not following:
                return
            # The link is relative to the host; only its question is taken, so that it cannot lead elsewhere.
            before, url, params = url, f"{self._own}/inbox?{urlsplit(following).query}", None
            if url == before:
                raise Unavailable("MESH's answer cannot be read: a page of the inbox leads back to itself")

    def count(self) -> int:
        """Count the messages that wait. MESH calls this deprecated; `inbox` tells more.

        Raises
        ------
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.count()
        3
        """
        return int(_field(self._json(f"{self._own}/count"), "count"))

    def download(self, message_id: str, *, verify_checksum: bool = False, decode: bool = True) -> Message:
        """Open a message of the inbox: its metadata at once, its body as it is read.

        Parameters
        ----------
        verify_checksum
            Compare the body with ``Mex-Content-Checksum``, where that is a SHA-256 or MD5 in hexadecimal.
        decode
            False leaves gzip as it came over the wire, so that a body which is none can still be kept.

        Raises
        ------
        NotFound, Expired
            It is not there, or no longer.
        Corrupted
            While it is read: the body is incomplete, no valid gzip, or not what its checksum says.

        Examples
        --------
        >>> with client.download(message_id) as message, open(message_id, "wb") as file:
        ...     shutil.copyfileobj(message, file)
        """
        url = f"{self._own}/inbox/{_segment(message_id)}"

        def fetch(chunk: int) -> Any:
            where = url if chunk == 1 else f"{url}/{chunk}"
            return self._transport.request("GET", where, headers={"Accept-Encoding": "gzip"}, stream=True)

        return Message(message_id, fetch(1), fetch, verify_checksum=verify_checksum, decode=decode)

    def acknowledge(self, message_id: str) -> None:
        """Tell MESH that a message was taken; it leaves the inbox, and its sender learns of it.

        Raises
        ------
        NotFound
            There is no such message.

        Examples
        --------
        >>> client.acknowledge(message_id)
        """
        self._transport.request("PUT", f"{self._own}/inbox/{_segment(message_id)}/status/acknowledged")

    # -- sending

    def send(
        self,
        part: Part,
        *,
        to: str,
        workflow_id: str,
        parts: int = 1,
        filename: str | None = None,
        local_id: str | None = None,
        subject: str | None = None,
        content_type: str = "application/octet-stream",
        checksum: str | None = None,
        encrypted: bool = False,
        compressed: bool = False,
    ) -> str:
        """Send the first part of a message, or the whole of it; return MESH's message id.

        It is tried again only where the connection was never made, since a message sent twice is two messages.

        Parameters
        ----------
        parts
            How many parts the message has; it is delivered once all of them have come, see `send_chunk`.
        local_id
            What to ask MESH by if the answer is lost; made up where left out. No personal data.
        encrypted, compressed
            Tell the receiver that the file itself is so. The gzip of a part's ``content_encoding`` is undone on the
            way and is not meant.

        Raises
        ------
        Refused
            MESH did not take it; its code says why.
        ConfigurationError
            Something of it cannot stand in a header, or MESH could not be asked for the local id.
        SendOutcomeUnknown
            The answer was lost. Ask `track_by_local_id` before sending again.
        Unavailable
            The connection was never made, or MESH takes nothing now (429): nothing was sent.

        Examples
        --------
        >>> body = gzip.compress(b"hello|world")
        >>> part = Part(lambda: io.BytesIO(body), len(body), content_encoding="gzip")
        >>> client.send(part, to="X26ABC3", workflow_id="DPS_EXPORT", local_id="export-1-1")
        '20261123030618000000_ABCDEF'
        """
        local_id = local_id or str(uuid.uuid4())
        _segment(local_id)
        headers = {
            "Mex-To": to,
            "Mex-WorkflowID": workflow_id,
            "Mex-FileName": filename,
            "Mex-LocalID": local_id,
            "Mex-Subject": subject,
            "Mex-Content-Checksum": checksum,
            "Mex-Content-Encrypted": "Y" if encrypted else None,
            "Mex-Content-Compressed": "Y" if compressed else None,
            "Mex-Chunk-Range": f"1:{parts}" if parts > 1 else None,
            "Content-Type": content_type,
        }
        try:
            answer = self._transport.request(
                "POST", f"{self._own}/outbox", headers=_checked(headers), part=part, once=True
            )
            return str(_field(_body(answer), "message_id"))
        except NotSent as error:
            raise Unavailable(f"{error}; nothing was sent") from None
        except Unavailable as error:
            raise SendOutcomeUnknown(f"{error}; the message may have been sent", local_id=local_id) from None

    def send_chunk(self, message_id: str, number: int, parts: int, part: Part) -> None:
        """Send part ``number`` (2 onwards) of a message. Sending one again does no harm.

        Raises
        ------
        Refused
            With status 423 where the message is complete already.
        NotFound
            MESH does not know the message.
        Unavailable
            However often it was tried; it may be sent again later.

        Examples
        --------
        >>> message_id = client.send(first, to="X26ABC3", workflow_id="DPS_EXPORT", parts=2)
        >>> client.send_chunk(message_id, 2, 2, second)
        """
        url = f"{self._own}/outbox/{_segment(message_id)}/{number}"
        # The last part completes the message: where the answer to it is lost, its second try finds it complete.
        arrived = _LOCKED if number == parts else None
        self._transport.request(
            "POST", url, headers={"Mex-Chunk-Range": f"{number}:{parts}"}, part=part, arrived=arrived
        )

    def send_file(
        self,
        to: str,
        workflow_id: str,
        body: BinaryIO | bytes | Iterable[bytes],
        *,
        filename: str | None = None,
        local_id: str | None = None,
        subject: str | None = None,
        content_type: str = "application/octet-stream",
        compress: bool = True,
        checksum: str | bool = False,
        chunk_size: int = CHUNK_SIZE,
        on_progress: Callable[[int, int], None] | None = None,
        resume: tuple[str, int] | None = None,
    ) -> SentMessage:
        """Send a body of any size, cut into as many parts as it needs, each compressed on its own.

        The parts are made in temporary files first, since MESH is told their number with the first. In memory there
        is never more than a block.

        Parameters
        ----------
        checksum
            ``Mex-Content-Checksum``: True sends the SHA-256 of the whole body, which `download` can verify.
        on_progress
            Called with the bytes that have gone over the wire, and with how many there are in all.
        resume
            A message id and the part to go on with, for the same body cut in the same way.

        Raises
        ------
        Refused, SendOutcomeUnknown, Unavailable
            As for `send` and `send_chunk`.
        ConfigurationError
            The body does not have the part that is to be gone on with, or `chunk_size` is out of bounds.

        Examples
        --------
        >>> with open("vaccinations.csv", "rb") as body:
        ...     client.send_file("X26ABC3", "DPS_EXPORT", body, local_id="export-1-1")
        SentMessage(message_id='20261123030618000000_ABCDEF', parts=1)
        """
        if not _SMALLEST_CHUNK <= chunk_size <= CHUNK_SIZE:
            raise ConfigurationError(f"a part must have {_SMALLEST_CHUNK} to {CHUNK_SIZE} bytes")
        with tempfile.TemporaryDirectory() as directory:
            digest = hashlib.sha256()
            files = list(_cut(_hashed(_reader(body), digest), Path(directory), compress=compress, limit=chunk_size))
            if checksum is True:
                checksum = digest.hexdigest()
            if resume and not 2 <= resume[1] <= len(files):
                raise ConfigurationError(f"part {resume[1]} is none to go on with: the body makes {len(files)}")
            total = sum(file.stat().st_size for file in files)
            message_id, start = resume or ("", 1)
            done = sum(file.stat().st_size for file in files[: start - 1])
            for number, file in enumerate(files[start - 1 :], start):
                progress = partial(_report, on_progress, done, total) if on_progress else None
                part = _part(file, compressed=compress, progress=progress)
                if number == 1:
                    message_id = self.send(
                        part,
                        to=to,
                        workflow_id=workflow_id,
                        parts=len(files),
                        filename=filename,
                        local_id=local_id,
                        subject=subject,
                        content_type=content_type,
                        checksum=checksum or None,
                    )
                else:
                    try:
                        self.send_chunk(message_id, number, len(files), part)
                    except MeshError as error:
                        error.resume = (message_id, number)
                        raise
                done += part.size
        return SentMessage(message_id, len(files))

    # -- tracking and lookup

    def track(self, message_id: str) -> Tracking:
        """Tell what has become of a message that was sent. MESH asks not to be polled for it often.

        Raises
        ------
        NotFound
            This mailbox sent no such message.

        Examples
        --------
        >>> client.track(message_id).status
        <TrackingStatus.ACKNOWLEDGED: 'acknowledged'>
        """
        params = {"messageID": message_id}
        return Tracking.from_json(self._json(f"{self._own}/outbox/tracking", params=params))

    def track_by_local_id(self, local_id: str) -> Tracking:
        """Tell whether a message that was sent under a local id has arrived, and what has become of it.

        Raises
        ------
        NotFound
            MESH has none.
        NotUnique
            It has several.

        Examples
        --------
        >>> client.track_by_local_id("export-1-1").message_id
        '20261123030618000000_ABCDEF'
        """
        url = f"{self._own}/outbox/tracking/{_segment(local_id)}"
        try:
            return Tracking.from_json(self._json(url))
        except NotUnique:
            raise NotUnique(local_id) from None

    def lookup(self, ods_code: str, workflow_id: str) -> list[Mailbox]:
        """Find the mailboxes of an organisation for a workflow; none is an empty list.

        Raises
        ------
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.lookup("X26", "DPS_EXPORT")
        [Mailbox(mailbox_id='X26ABC3', mailbox_name='DPS')]
        """
        return self._mailboxes(f"endpointlookup/{_segment(ods_code)}/{_segment(workflow_id)}")

    def search_workflow(self, workflow_id: str) -> list[Mailbox]:
        """Find the mailboxes that take a workflow, of whichever organisation; none is an empty list.

        Raises
        ------
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.search_workflow("DPS_EXPORT")
        [Mailbox(mailbox_id='X26ABC3', mailbox_name='DPS')]
        """
        return self._mailboxes(f"workflowsearch/{_segment(workflow_id)}")

    def _mailboxes(self, path: str) -> list[Mailbox]:
        results = _field(self._json(f"{self._root}/{path}"), "results")
        return [Mailbox(_field(found, "mailbox_id"), found.get("mailbox_name") or "") for found in results]

    def _json(self, url: str, *, params: dict[str, str] | None = None) -> dict[str, Any]:
        return _body(self._transport.request("GET", url, params=params))


def _host(base_url: str) -> str:
    """Return the host of MESH's address; refuse an address that is more, or less, than a host."""
    try:
        url = urlsplit(base_url)
        host = (url.hostname or "").rstrip(".")
        # Of other scripts' letters and dots some mean the same as ASCII's; a host has to look like what it is.
        good = url.scheme == "https" and host.isascii() and host and (url.port or True)
    except ValueError:
        good = False
    if not good or url.path.strip("/") or url.query or url.fragment or "@" in url.netloc:
        raise ConfigurationError("MESH's address must be https://host, without a path")
    return host


def _check(credentials: Credentials) -> None:
    """Refuse what a slip of the pen puts into a secret, and what MESH would only call a wrong password."""
    mailbox = credentials.mailbox.replace("-", "").replace("_", "")
    if not mailbox.isascii() or not mailbox.isalnum():
        raise ConfigurationError("the mailbox id must be letters and digits")
    for name, secret in (("password", credentials.password), ("shared key", credentials.shared_key)):
        if not secret or "\n" in secret or "\r" in secret:
            raise ConfigurationError(f"the {name} is empty or contains a line break")


def _segment(name: str) -> str:
    """Quote an id for a URL's path; refuse one that would name another path."""
    if name in {"", ".", ".."} or "/" in name:
        raise ConfigurationError(f"{name!r} is no id")
    return quote(name, safe="")


def _body(response: Response) -> dict[str, Any]:
    """Read a JSON object. MESH took the request; what is not clear is its answer."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise Unavailable("MESH's answer cannot be read")
    return body


def _field(body: dict[str, Any], name: str) -> Any:
    if not isinstance(body, dict) or body.get(name) is None:
        raise Unavailable(f"MESH's answer cannot be read: it lacks {name}")
    return body[name]


def _checked(headers: dict[str, str | None]) -> dict[str, str]:
    """Leave out what is not given; refuse what would break out of a header."""
    given = {name: value for name, value in headers.items() if value}
    for name, value in given.items():
        most = _HEADER_LIMITS.get(name, 100)
        if not value.isprintable() or not value.isascii() or len(value) > most or value != value.strip():
            raise ConfigurationError(f"{name} must be printable ASCII, at most {most} characters")
    return given


def _reader(body: BinaryIO | bytes | Iterable[bytes]) -> Iterator[bytes]:
    if isinstance(body, (bytes, bytearray, memoryview)):
        body = io.BytesIO(body)
    read = getattr(body, "read", None)
    return iter(lambda: read(_BLOCK), b"") if read else _blocks(body)


def _blocks(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Put pieces together into blocks of one size, so that the same bytes are always cut at the same places."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        while len(waiting) >= _BLOCK:
            yield bytes(waiting[:_BLOCK])
            del waiting[:_BLOCK]
    if waiting:
        yield bytes(waiting)


def _hashed(blocks: Iterator[bytes], digest: hashlib._Hash) -> Iterator[bytes]:
    for block in blocks:
        digest.update(block)
        yield block


def _cut(blocks: Iterator[bytes], directory: Path, *, compress: bool, limit: int) -> Iterator[Path]:
    """Cut a stream into files whose sizes stay within the limit; there is always one."""
    rest = b""
    for number in itertools.count(1):
        file = directory / str(number)
        with file.open("wb") as raw:
            rest = (_fill_compressed if compress else _fill)(raw, rest, blocks, limit)
        yield file
        rest = rest or next(blocks, b"")
        if not rest:
            return


def _fill(raw: BinaryIO, rest: bytes, blocks: Iterator[bytes], limit: int) -> bytes:
    """Fill a file up to the limit; return what is left over."""
    while limit and (block := rest or next(blocks, b"")):
        raw.write(block[:limit])
        rest, limit = block[limit:], max(limit - len(block), 0)
    return rest


def _fill_compressed(raw: BinaryIO, rest: bytes, blocks: Iterator[bytes], limit: int) -> bytes:
    """Fill a file with gzip up to the limit; return what is left over.

    Each step may grow to a little more than its input; it is made so small that the limit holds even then.
    """
    packer = zlib.compressobj(_LEVEL, wbits=31)
    written = 0
    while block := rest or next(blocks, b""):
        step = min((limit - written - _GZIP_OVERHEAD) * 99 // 100, len(block))
        if step <= 0 and written:
            rest = block
            break
        step = max(step, 1)
        packed = packer.compress(block[:step])
        # What the compressor still holds back is let out where it could matter, so that `written` is the truth.
        if written + step + _BLOCK > limit:
            packed += packer.flush(zlib.Z_SYNC_FLUSH)
        raw.write(packed)
        written += len(packed)
        rest = block[step:]
    raw.write(packer.flush())
    return rest


def _report(on_progress: Callable[[int, int], None], before: int, total: int, read: int) -> None:
    on_progress(before + read, total)


def _part(file: Path, *, compressed: bool, progress: Callable[[int], None] | None) -> Part:
    def open_part() -> BinaryIO:
        body = file.open("rb")
        return cast("BinaryIO", _Watched(body, progress)) if progress else body

    return Part(open=open_part, size=file.stat().st_size, content_encoding="gzip" if compressed else None)


class _Watched:
    """A body that tells how far it was read."""

    def __init__(self, body: BinaryIO, progress: Callable[[int], None]) -> None:
        self._body = body
        self._progress = progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._body.close()

    def read(self, size: int = -1) -> bytes:
        block = self._body.read(size)
        self._progress(self._body.tell())
        return block
