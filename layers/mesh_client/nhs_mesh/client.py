"""The MESH client: one method for each endpoint (docs/mesh-protocol.md, "Endpoints")."""

from __future__ import annotations

import platform
import re
import uuid
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Self
from urllib.parse import quote, urlencode

from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from nhs_mesh.errors import ConfigurationError, MeshError, NotUnique, Refused, SendOutcomeUnknown, Unavailable
from nhs_mesh.messages import Mailbox, Message, Tracking
from nhs_mesh.parts import CHUNK_SIZE, Body, SentMessage
from nhs_mesh.tls import certificate_facts, ssl_context
from nhs_mesh.transport import NotSent, Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from urllib3 import BaseHTTPResponse
    from urllib3.util.url import Url

    from nhs_mesh.auth import Credentials
    from nhs_mesh.errors import Resume
    from nhs_mesh.parts import Part
    from nhs_mesh.transport import Retry

__all__ = ["INTEGRATION", "LIVE", "MeshClient"]

#: MESH's addresses (docs/mesh-protocol.md).
INTEGRATION = "https://msg.intspineservices.nhs.uk"
LIVE = "https://mesh-sync.spineservices.nhs.uk"

#: How long a header may be (the sandbox's own limits); 100 characters where it is not named here.
_HEADER_LIMITS = {"Mex-WorkflowID": 300, "Mex-FileName": 300, "Mex-LocalID": 300, "Mex-Subject": 500}
#: What people write, and therefore may hold a £ or an accent, which goes out as Latin-1, as other clients send it.
_WRITTEN = frozenset({"Mex-FileName", "Mex-Subject"})
_PAGE_SIZES = range(10, 501)
#: So many pages in a row without a new id are none of an inbox.
_EMPTY_PAGES = 1_000
_OCTETS = "application/octet-stream"
_LOCKED = 423


class MeshClient:
    """A connection to MESH for one mailbox.

    Parameters
    ----------
    base_url
        MESH's address without a path: `INTEGRATION`, `LIVE`, or a sandbox's.
    credentials
        Mailbox id, password and shared key.
    certificate, private_key, passphrase, ca_bundle
        PEM texts of the client certificate, its key and the CA bundle, and the key's passphrase.
    verify
        False leaves the server's certificate unchecked, for a sandbox; refused for hosts of nhs.uk.
    proxy
        ``http://host:port`` of a proxy that connects to MESH (``CONNECT``), with ``user:password@`` where it wants
        them. What MESH and the client say to each other, the client certificate included, is not seen by it.
    timeout
        Seconds to connect, and seconds between two bytes of an answer.
    deadline
        Seconds that one call may take with all its tries, the resolving of the host's name included. While a body is
        sent or read, each block that goes over the wire for the first time has as long.
    tries
        How often a request is sent that may be sent again.
    pauses
        Seconds before the second try, and the most between two. They double, and vary at random.
    on_retry
        Called before each further try with a `Retry`. Each is logged as well, by the logger ``nhs_mesh``.

    Raises
    ------
    ConfigurationError
        The settings cannot work; nothing was sent.

    Examples
    --------
    >>> with MeshClient(INTEGRATION, Credentials("X26ABC1", password, shared_key), certificate=..., ...) as client:
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
        proxy: str | None = None,
        timeout: tuple[float, float] = (10.0, 60.0),
        deadline: float = 300.0,
        tries: int = 5,
        pauses: tuple[float, float] = (0.5, 20.0),
        on_retry: Callable[[Retry], None] | None = None,
    ) -> None:
        host = _host(base_url)
        _check(credentials)
        _check_proxy(proxy)
        if tries < 1 or min(*timeout, deadline) <= 0 or min(pauses) < 0:
            raise ConfigurationError("timeouts, deadline and tries must be more than 0, pauses not less")
        if not verify and (host == "nhs.uk" or host.endswith(".nhs.uk")):
            raise ConfigurationError(f"SSL verification cannot be switched off for {host}: only for a sandbox")
        context = ssl_context(
            certificate=certificate,
            private_key=private_key,
            passphrase=passphrase,
            ca_bundle=ca_bundle,
            verify=verify,
        )
        self.mailbox = credentials.mailbox.upper()
        self._base_url = base_url.rstrip("/")
        self._own = f"/messageexchange/{quote(self.mailbox, safe='')}"
        self._transport = Transport(
            base_url,
            credentials,
            context,
            certificate_facts(certificate).not_after,
            proxy=proxy,
            timeout=timeout,
            deadline=deadline,
            tries=tries,
            pauses=pauses,
            on_retry=on_retry,
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
        return f"<MeshClient {self.mailbox} at {self._base_url}>"

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
        from nhs_mesh import __version__

        headers = {
            "Mex-ClientVersion": f"nhs-mesh=={__version__}",
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

        Returns
        -------
        Iterator[str]
            Each id once, however MESH links its pages. Each ``next`` is one call, however many pages are empty.

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
        asked = {"max_results": str(page_size)} | ({"workflow_filter": workflow_filter} if workflow_filter else {})
        question = _question(asked)
        questions: set[str] = set()
        seen: set[str] = set()
        while question:
            new: list[str] = []
            # With a filter a page may be empty although more follow; all of them are one call.
            with self._transport.deadline():
                for _ in range(_EMPTY_PAGES):
                    if question in questions:
                        raise _unreadable("a page of the inbox leads back to one before it")
                    questions.add(question)
                    page = self._json(f"{self._own}/inbox?{question}")
                    # Where the message that a link names was acknowledged meanwhile, MESH begins again at the top.
                    new = [message_id for message_id in dict.fromkeys(_ids(page)) if message_id not in seen]
                    question = _next_question(page)
                    if new or not question:
                        break
                else:
                    raise _unreadable("the inbox has no end")
            seen.update(new)
            yield from new

    def count(self) -> int:
        """Count the messages that wait. MESH calls this deprecated; `inbox` tells more.

        Returns
        -------
        int
            How many there are.

        Raises
        ------
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.count()
        3
        """
        count = self._json(f"{self._own}/count").get("count")
        if not isinstance(count, int) or isinstance(count, bool):
            raise _unreadable("it has no count")
        return count

    def download(
        self, message_id: str, *, chunk: int | None = None, verify_checksum: bool = False, decode: bool = True
    ) -> Message:
        """Open a message of the inbox: its metadata at once, its body as it is read.

        Parameters
        ----------
        message_id
            As `inbox` lists it.
        chunk
            Only this chunk of it, from 1, so that a large message can be had chunk by chunk, each by another process
            if need be. How many there are says `Message.chunks`. By default all of them, one after the other.
        verify_checksum
            Compare the body with ``Mex-Content-Checksum``, where there is one: an MD5, SHA-1, SHA-256 or SHA-384 in
            hexadecimal, of the body or of its compressed bytes. It is of the whole message, so no chunk alone has one.
        decode
            False leaves gzip as it came over the wire, so that a body which is none can still be kept.

        Returns
        -------
        Message
            A binary file. Close it, or use it as a context manager.

        Raises
        ------
        NotFound, Expired
            It is not there, or no longer.
        Corrupted
            At once, or while it is read: it is incomplete, no valid gzip, not the message or chunk that was asked for,
            or not what its checksum says; or its checksum is of another form.
        Unavailable
            At once, or while it is read: MESH does not answer.
        ConfigurationError
            There is no such chunk, or its checksum cannot be compared.

        Examples
        --------
        >>> with client.download(message_id) as message, open(message_id, "wb") as file:
        ...     shutil.copyfileobj(message, file)
        """
        if chunk is not None and chunk < 1:
            raise ConfigurationError("chunks are counted from 1")
        if verify_checksum and (chunk is not None or not decode):
            raise ConfigurationError("a checksum is that of a whole message, decoded")
        path = f"{self._own}/inbox/{_segment(message_id)}"

        def fetch(number: int) -> BaseHTTPResponse:
            return self._transport.open(path if number == 1 else f"{path}/{number}", {"Accept-Encoding": "gzip"})

        return Message(
            message_id,
            fetch(chunk or 1),
            fetch,
            chunk=chunk,
            verify_checksum=verify_checksum,
            decode=decode,
            deadline=self._transport.deadline,
        )

    def acknowledge(self, message_id: str) -> None:
        """Tell MESH that a message was taken; it leaves the inbox, and its sender learns of it.

        Parameters
        ----------
        message_id
            As `inbox` lists it. A second time does no harm.

        Raises
        ------
        NotFound
            There is no such message.
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.acknowledge(message_id)
        """
        self._transport.request("PUT", f"{self._own}/inbox/{_segment(message_id)}/status/acknowledged")

    # -- sending

    def send(
        self,
        to: str,
        workflow_id: str,
        part: Part,
        *,
        parts: int = 1,
        filename: str | None = None,
        local_id: str | None = None,
        subject: str | None = None,
        content_type: str = _OCTETS,
        checksum: str | None = None,
        encrypted: bool = False,
        compressed: bool = False,
    ) -> SentMessage:
        """Send the first part of a message, or the whole of it.

        It is tried again only where the connection was never made, or MESH said at once that it takes nothing now,
        since a message sent twice is two messages.

        Parameters
        ----------
        to
            The receiver's mailbox id.
        workflow_id
            What kind of message it is.
        part
            The body.
        parts
            How many parts the message has; it is delivered once all of them have come, see `send_chunk`.
        filename, subject
            For the receiver; Latin-1, without personal data.
        local_id
            What to ask MESH by if the answer is lost; made up where left out. No personal data.
        content_type
            The type of the whole body.
        checksum
            ``Mex-Content-Checksum``, for the receiver to compare the body with.
        encrypted, compressed
            Tell the receiver that the file itself is so. The gzip of a part's ``content_encoding`` is undone on the
            way and is not meant.

        Returns
        -------
        SentMessage
            MESH's id of the message, and its local id.

        Raises
        ------
        Refused
            MESH did not take it; its code says why.
        ConfigurationError
            Something of it cannot stand in a header, or MESH could not be asked for the local id.
        SendOutcomeUnknown
            The answer was lost. Ask `track_by_local_id` before sending again.
        Unavailable
            The connection was never made, or MESH takes nothing now: nothing was sent.

        Examples
        --------
        >>> body = gzip.compress(b"hello|world")
        >>> part = Part(lambda: io.BytesIO(body), len(body), content_encoding="gzip")
        >>> client.send("X26ABC3", "DPS_EXPORT", part, local_id="export-1-1").message_id
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
            # A chunk has no type; that of the whole has a header of its own.
            "Mex-Content-Type": content_type if parts > 1 else None,
            "Content-Type": _OCTETS if parts > 1 else content_type,
        }
        try:
            answer = self._transport.request(
                "POST", f"{self._own}/outbox", headers=_checked(headers), part=part, once=True
            )
            return SentMessage(_id(answer.json().get("message_id")), parts, local_id)
        except NotSent as error:
            raise Unavailable(f"{error}; nothing was sent", retry_after=error.retry_after) from None
        except Unavailable as error:
            raise SendOutcomeUnknown(f"{error}; the message may have been sent", local_id=local_id) from None

    def send_chunk(self, message_id: str, number: int, parts: int, part: Part) -> None:
        """Send part ``number`` (2 onwards) of a message. Sending one again does no harm.

        Parameters
        ----------
        message_id
            As `send` returned it for the first part.
        number, parts
            Which part it is, and how many the message has.
        part
            Its body, compressed if the first part was.

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
        >>> sent = client.send("X26ABC3", "DPS_EXPORT", first, parts=2)
        >>> client.send_chunk(sent.message_id, 2, 2, second)
        """
        path = f"{self._own}/outbox/{_segment(message_id)}/{number}"
        headers = {"Mex-Chunk-Range": f"{number}:{parts}", "Content-Type": _OCTETS}
        # The last part completes the message: where the answer to it is lost, its second try finds it complete.
        self._transport.request("POST", path, headers=headers, part=part, arrived=_LOCKED if number == parts else None)

    def send_file(
        self,
        to: str,
        workflow_id: str,
        body: BinaryIO | bytes | Iterable[bytes],
        *,
        filename: str | None = None,
        local_id: str | None = None,
        subject: str | None = None,
        content_type: str = _OCTETS,
        checksum: str | None = None,
        encrypted: bool = False,
        compressed: bool = False,
        compress: bool = True,
        chunk_size: int = CHUNK_SIZE,
        on_progress: Callable[[int, int], None] | None = None,
        resume: Resume | None = None,
    ) -> SentMessage:
        """Send a body of any size: in one part if it fits, otherwise cut at fixed offsets.

        In memory there is never more than a block. A part that is compressed goes into a temporary file first, since
        MESH is told its length; so does a body that can be read only once.

        Parameters
        ----------
        to, workflow_id, filename, local_id, subject, content_type, checksum, encrypted, compressed
            As for `send`.
        body
            Bytes, a binary file from where it stands, or an iterable of bytes.
        compress
            Send it gzipped; the receiver's client undoes that.
        chunk_size
            How many bytes a part has at most.
        on_progress
            Called with how many bytes of the body have gone, and how many it has.
        resume
            Where an earlier send of the same body got stuck: ``error.resume`` of what was raised then. Nothing of the
            body but what is missing is sent, and all that describes the message stays as it was.

        Returns
        -------
        SentMessage
            MESH's id of the message, how many parts it has, and its local id.

        Raises
        ------
        Refused, SendOutcomeUnknown, Unavailable, NotFound
            As for `send` and `send_chunk`.
        ConfigurationError
            As for `send`; or the body is not the one that MESH has the first parts of, it changed while it was sent,
            or `chunk_size` is out of bounds. Of a body that changed no more than some parts has gone.

        Examples
        --------
        >>> with open("vaccinations.csv", "rb") as body:
        ...     client.send_file("X26ABC3", "DPS_EXPORT", body, local_id="export-1-1")
        SentMessage(message_id='20261123030618000000_ABCDEF', parts=1, local_id='export-1-1')
        """
        with Body.of(body) as whole:
            progress = partial(_report, on_progress, whole.size) if on_progress else None
            if resume:
                whole.cut_again(resume)
                sent = SentMessage(resume.message_id, resume.parts)
            else:
                parts = whole.cut(compress=compress, chunk_size=chunk_size)
                sent = self.send(
                    to,
                    workflow_id,
                    whole.part(1, progress),
                    parts=parts,
                    filename=filename,
                    local_id=local_id,
                    subject=subject,
                    content_type=content_type,
                    checksum=checksum,
                    encrypted=encrypted,
                    compressed=compressed,
                )
            for number in range(resume.part if resume else 2, sent.parts + 1):
                try:
                    self.send_chunk(sent.message_id, number, sent.parts, whole.part(number, progress))
                except (MeshError, OSError, KeyboardInterrupt) as error:
                    complete = isinstance(error, Refused) and error.status == _LOCKED
                    if complete and resume and number == sent.parts:
                        break  # the last part had arrived before; nothing but its answer was missing
                    error.resume = whole.resume(sent.message_id, number)  # type: ignore[union-attr]
                    raise
        return sent

    # -- tracking and lookup

    def track(self, message_id: str) -> Tracking:
        """Tell what has become of a message that was sent. MESH asks not to be polled for it often.

        Parameters
        ----------
        message_id
            MESH's, as `send` and `send_file` return it.

        Returns
        -------
        Tracking
            Its status, and what MESH knows of it.

        Raises
        ------
        NotFound
            This mailbox sent no such message.
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.track(message_id).status
        <TrackingStatus.ACKNOWLEDGED: 'acknowledged'>
        """
        return self._tracking(f"{self._own}/outbox/tracking?{_question({'messageID': message_id})}")

    def track_by_local_id(self, local_id: str) -> Tracking:
        """Tell whether a message that was sent under a local id has arrived, and what has become of it.

        Parameters
        ----------
        local_id
            The sender's own.

        Returns
        -------
        Tracking
            Its MESH id, its status, and what MESH knows of it.

        Raises
        ------
        NotFound
            MESH has none.
        NotUnique
            It has several.
        Unauthorised, Unavailable
            As for `handshake`.

        Examples
        --------
        >>> client.track_by_local_id("export-1-1").message_id
        '20261123030618000000_ABCDEF'
        """
        try:
            return self._tracking(f"{self._own}/outbox/tracking/{_segment(local_id)}")
        except NotUnique:
            raise NotUnique(local_id) from None

    def _tracking(self, path: str) -> Tracking:
        tracking = Tracking.from_json(self._json(path))
        # Without them it would seem that the message is there, or whole.
        if not tracking.message_id or not tracking.status:
            raise _unreadable("it says of no message where it is")
        return tracking

    def lookup(self, ods_code: str, workflow_id: str) -> list[Mailbox]:
        """Find the mailboxes of an organisation for a workflow.

        Parameters
        ----------
        ods_code, workflow_id
            The organisation's code, and what is to be sent.

        Returns
        -------
        list[Mailbox]
            None is an empty list.

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
        """Find the mailboxes that take a workflow, of whichever organisation.

        Parameters
        ----------
        workflow_id
            What is to be sent.

        Returns
        -------
        list[Mailbox]
            None is an empty list.

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
        results = self._json(f"/messageexchange/{path}").get("results")
        if not isinstance(results, list) or not all(isinstance(each, dict) for each in results):
            raise _unreadable("it has no results")
        return [Mailbox(_id(each.get("mailbox_id")), str(each.get("mailbox_name") or "")) for each in results]

    def _json(self, path: str) -> dict[str, Any]:
        return self._transport.request("GET", path).json()


def _host(base_url: str) -> str:
    """Return the host of MESH's address; refuse an address that is more, or less, than a host."""
    url = _url(base_url)
    # Of other scripts' letters and dots some mean the same as ASCII's; a host has to look like what it is.
    if url is None or url.scheme != "https" or not base_url.isascii() or url.auth is not None:
        raise ConfigurationError("MESH's address must be https://host, without a path")
    return (url.host or "").rstrip(".")


def _url(text: str) -> Url | None:
    """Read the address of a host; return None where it is none, or more than that."""
    try:
        url = parse_url(text)
    except (LocationParseError, ValueError):
        return None
    host = re.fullmatch(r"\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z._-]+", url.host or "")
    return url if host and not (url.path or "").strip("/") and url.query is None and url.fragment is None else None


def _check(credentials: Credentials) -> None:
    """Refuse what a slip of the pen puts into a secret, and what MESH would only call a wrong password."""
    mailbox = credentials.mailbox.replace("-", "").replace("_", "")
    if not mailbox.isascii() or not mailbox.isalnum():
        raise ConfigurationError("the mailbox id must be letters and digits")
    for name, secret in (("password", credentials.password), ("shared key", credentials.shared_key)):
        if not secret or "\n" in secret or "\r" in secret:
            raise ConfigurationError(f"the {name} is empty or contains a line break")


def _check_proxy(proxy: str | None) -> None:
    """Refuse what is no address of a proxy, without showing it: it may hold a password."""
    if proxy is None:
        return
    url = _url(proxy)
    if url is None or url.scheme != "http":
        raise ConfigurationError("the proxy's address must be http://host:port, or http://user:password@host:port")


def _segment(name: str) -> str:
    """Quote an id for a path; refuse one that would name another path."""
    if name in {"", ".", ".."} or "/" in name or not name.isprintable():
        raise ConfigurationError(f"{name!r} is no id")
    return quote(name, safe="")


def _question(asked: dict[str, str]) -> str:
    """Make the question of a path; refuse what cannot stand in one."""
    if not all(value.isprintable() for value in asked.values()):
        raise ConfigurationError("an id or a filter must be printable")
    return urlencode(asked)


def _unreadable(why: str) -> Unavailable:
    """Make the error for an answer that MESH would not give."""
    return Unavailable(f"MESH's answer cannot be read: {why}")


def _id(value: object) -> str:
    """Check that something which MESH said is an id."""
    if not isinstance(value, str) or not re.fullmatch(r"[!-.0-~]{1,300}", value):
        raise _unreadable("it lacks an id")
    return value


def _ids(page: dict[str, Any]) -> list[str]:
    messages = page.get("messages")
    if not isinstance(messages, list):
        raise _unreadable("it has no messages")
    return [_id(each) for each in messages]


def _next_question(page: dict[str, Any]) -> str:
    """Return what the next page is asked by; empty where this one is the last.

    A link is relative to the host. Only its question is taken, so that it cannot lead elsewhere.
    """
    links = page.get("links")
    following = links.get("next") if isinstance(links, dict) else None
    if not following:
        return ""
    question = following.partition("?")[2].partition("#")[0] if isinstance(following, str) else ""
    if not re.fullmatch(r"[!-~]{1,8000}", question):
        raise _unreadable("a page of the inbox leads nowhere")
    return str(question)


def _checked(headers: dict[str, str | None]) -> dict[str, str]:
    """Leave out what is not given; refuse what would break out of a header."""
    given = {name: value for name, value in headers.items() if value}
    for name, value in given.items():
        most = _HEADER_LIMITS.get(name, 100)
        written = name in _WRITTEN and all(character < "\u0100" for character in value)
        if not value.isprintable() or not (value.isascii() or written) or not 0 < len(value) <= most:
            kind = "Latin-1" if name in _WRITTEN else "ASCII"
            raise ConfigurationError(f"{name} must be printable {kind}, at most {most} characters")
        if value != value.strip():
            raise ConfigurationError(f"{name} must not begin or end with a space")
    return given


def _report(on_progress: Callable[[int, int], None], size: int, done: int) -> None:
    on_progress(done, size)
