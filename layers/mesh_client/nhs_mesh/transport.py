"""HTTP to MESH: every try with a token of its own, retries as the protocol allows, answers turned into errors.

What may be tried again (docs/mesh-protocol.md, "What may be tried again"): GET, PUT, the handshake and parts 2 onwards,
on connection errors, 425, 429 and 502 to 504. The first POST of a message only where the connection was never made, or
where MESH said at once that it takes nothing now.

It is urllib3 alone, since a layer above it reads bodies that nobody asked for (of a redirect, or of an error) to their
end, and sends a header again that is good only once.
"""

from __future__ import annotations

import base64
import http.client
import itertools
import json
import logging
import os
import platform
import queue
import random
import re
import socket
import ssl
import threading
import time
import uuid
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar, cast
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPSConnection
from urllib3.util import parse_url

from nhs_mesh.auth import token
from nhs_mesh.errors import (
    ConfigurationError,
    Expired,
    MeshError,
    NotFound,
    NotUnique,
    Refused,
    Unauthorised,
    Unavailable,
)
from nhs_mesh.tls import check_not_expired

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from urllib3 import BaseHTTPResponse

    from nhs_mesh.auth import Credentials
    from nhs_mesh.parts import Part

__all__ = ["Answer", "Deadline", "NotSent", "Retry", "Transport"]

_T = TypeVar("_T")

_TURNED_AWAY = frozenset({425, 429})
_AGAIN = _TURNED_AWAY | {502, 503, 504}
#: A connection that has idled for longer may be about to be closed by MESH: what is sent on it then may be lost.
_TRUSTED_SECONDS = 2.0
#: MESH refuses tokens that are more than two hours off.
_CLOCK_MAY_BE_OFF = 2 * 3600
#: How many bytes of an answer are read at most: an error's words, and a document.
_LONGEST_ERROR, _LONGEST_ANSWER = 1 << 16, 1 << 24
#: How many characters of MESH's own words an error shows.
_LONGEST_WORDS = 200
#: How many bytes of a body are handed to TLS at once.
_BLOCK = 1 << 17
#: What MESH says, in TLS's own words, where it does not take the client certificate; no request has reached it then.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")

_log = logging.getLogger("nhs_mesh")
_log.addHandler(logging.NullHandler())  # who logs, and where to, is up to the application
# Names of their own, so that a test can stop the time.
_sleep = time.sleep


def _now() -> datetime:
    return datetime.now(UTC)


class NotSent(Unavailable):
    """The connection was never made, or MESH said at once that it takes nothing now: nothing was sent."""


class NotTrusted(NotSent):
    """One end does not take the other's certificate, which no second try changes."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A try that failed and is made again.

    Attributes
    ----------
    method, path
        The request's; the path begins with the mailbox.
    tries
        How many tries were made so far.
    pause
        Seconds until the next one.
    error
        Why it failed.
    """

    method: str
    path: str
    tries: int
    pause: float
    error: MeshError


class Deadline:
    """When a call has to be over. Only a part of a body that has never gone over the wire before sets it anew.

    Parameters
    ----------
    seconds
        How long the call, and each block, may take.
    patience
        Seconds between two bytes.
    """

    def __init__(self, seconds: float, patience: float) -> None:
        self._seconds = seconds
        self._patience = patience
        self._furthest = 0
        self._until = time.monotonic() + seconds

    def reached(self, offset: int) -> None:
        """Count from now on, where no earlier try came that far into the body."""
        if offset > self._furthest:
            self._furthest = offset
            self._until = time.monotonic() + self._seconds

    @property
    def left(self) -> float:
        """How many seconds are left."""
        return self._until - time.monotonic()

    def wait(self) -> float:
        """Return how many seconds may be waited for the next byte.

        Raises
        ------
        TimeoutError
            The deadline has passed.
        """
        left = self.left
        if left <= 0:
            raise TimeoutError("the deadline has passed")
        return min(left, self._patience)


#: The deadline of the call that is going on; its sockets look at it.
_deadline: ContextVar[Deadline | None] = ContextVar("deadline", default=None)


@dataclass(frozen=True, slots=True)
class Answer:
    """A good answer, read whole."""

    status: int
    body: bytes

    def json(self) -> dict[str, Any]:
        """Return the JSON object that it is.

        Raises
        ------
        Unavailable
            It is none. MESH took the request; what is not clear is its answer.
        """
        try:
            document = json.loads(self.body)
        except (ValueError, RecursionError):
            document = None
        if not isinstance(document, dict):
            raise Unavailable("MESH's answer cannot be read")
        return document


class Transport:
    """Sends signed requests over one pool of connections."""

    def __init__(
        self,
        base_url: str,
        credentials: Credentials,
        context: ssl.SSLContext,
        valid_until: datetime,
        *,
        proxy: str | None,
        timeout: tuple[float, float],
        deadline: float,
        tries: int,
        pauses: tuple[float, float],
        on_retry: Callable[[Retry], None] | None,
    ) -> None:
        from nhs_mesh import __version__

        context.sslsocket_class = _TlsSocket
        url = parse_url(base_url)
        self._host, self._port = url.host or "", url.port or 443
        self._credentials = credentials
        self._context = context
        self._valid_until = valid_until
        self._proxy = proxy
        self._connect_timeout, self._patience = timeout
        self._seconds = deadline
        self._tries = tries
        self._first_pause, self._longest_pause = pauses
        self._on_retry = on_retry
        self._headers = {
            "Accept": "application/vnd.mesh.v2+json",
            "User-Agent": f"nhs-mesh/{__version__} Python/{platform.python_version()}",
        }
        self._pool = self._make_pool()

    def _make_pool(self) -> urllib3.HTTPSConnectionPool:
        options: dict[str, Any] = {"ssl_context": self._context, "blocksize": _BLOCK, "maxsize": 10}
        if self._proxy is None:
            return _Pool(self._host, self._port, **options)
        proxy = parse_url(self._proxy)
        headers = {}
        if proxy.auth:
            user, _, password = proxy.auth.partition(":")
            named = f"{unquote(user)}:{unquote(password)}"
            headers["Proxy-Authorization"] = f"Basic {base64.b64encode(named.encode()).decode()}"
        manager = urllib3.ProxyManager(f"http://{proxy.host}:{proxy.port or 80}", proxy_headers=headers, **options)
        manager.pool_classes_by_scheme = {"https": _Pool}
        pool = manager.connection_from_host(self._host, self._port, "https")
        assert isinstance(pool, _Pool)  # noqa: S101 - it is the only class there
        return pool

    def close(self) -> None:
        """Close the connections; the next request makes new ones."""
        self._pool.close()
        self._pool = self._make_pool()

    @contextmanager
    def deadline(self) -> Iterator[Deadline]:
        """Set the deadline of a call, unless it is part of one that has its deadline."""
        outer = _deadline.get()
        deadline = outer or Deadline(self._seconds, self._patience)
        before = _deadline.set(deadline)
        try:
            yield deadline
        finally:
            _deadline.reset(before)

    def request(
        self,
        method: str,
        path: str,
        *,
        headers: Mapping[str, str] | None = None,
        part: Part | None = None,
        once: bool = False,
        arrived: int | None = None,
    ) -> Answer:
        """Send a request until it is answered, and return a good answer.

        Parameters
        ----------
        path
            What follows MESH's address, with the question.
        part
            The body, opened anew for each try.
        once
            Never send it a second time once it may have arrived.
        arrived
            The status by which MESH says that an earlier try has arrived; good where that one's answer was lost.

        Returns
        -------
        Answer
            One with a status of 200 to 299, or with that of ``arrived``.

        Raises
        ------
        NotSent
            The connection was never made.
        Unavailable
            No clear answer came.
        MeshError
            Whatever else MESH answered, see `nhs_mesh.errors`.
        """
        return self._call(method, path, headers or {}, part, _answer, once=once, arrived=arrived)

    def open(self, path: str, headers: Mapping[str, str]) -> BaseHTTPResponse:
        """Ask for something until it is answered, and return a good answer whose body is still to be read.

        Raises
        ------
        MeshError
            As for `request`.
        """
        return self._call("GET", path, headers, None, lambda response: response)

    def _call(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        part: Part | None,
        take: Callable[[BaseHTTPResponse], _T],
        *,
        once: bool = False,
        arrived: int | None = None,
    ) -> _T:
        lost = False
        with self.deadline() as deadline:
            for tries in itertools.count(1):
                body = _Sized(part, deadline) if part else None
                try:
                    response = self._try(method, path, headers, body, deadline)
                    if 200 <= response.status < 300 or (lost and response.status == arrived):
                        return take(response)
                    failure = self._refusal(response)
                    again = response.status in _AGAIN
                except MeshError:
                    raise
                except Exception as error:  # noqa: BLE001 - a server's bytes make the libraries raise anything
                    if body and body.error:
                        raise body.error from None
                    failure = _failure(error)
                    again = not isinstance(failure, NotTrusted)
                if not again or (once and not isinstance(failure, NotSent)):
                    raise failure
                lost = lost or not isinstance(failure, NotSent)
                pause = self._pause(tries, failure)
                if tries >= self._tries or pause >= deadline.left:
                    raise failure
                self._tell(
                    Retry(method, path.removeprefix("/messageexchange/").partition("?")[0], tries, pause, failure)
                )
                _sleep(pause)
        raise AssertionError("unreachable")

    def _try(
        self, method: str, path: str, headers: Mapping[str, str], body: _Sized | None, deadline: Deadline
    ) -> BaseHTTPResponse:
        moment = _now()
        check_not_expired(self._valid_until, moment)
        authorization = token(self._credentials, nonce=str(uuid.uuid4()), nonce_count=0, moment=moment)
        headers = {**self._headers, **headers, "Authorization": authorization}
        if body:
            headers |= {"Content-Length": str(body.size)}
            if body.content_encoding:
                headers["Content-Encoding"] = body.content_encoding
        wait = deadline.wait()
        try:
            response = self._pool.urlopen(
                method,
                path,
                body=cast("BinaryIO", body),
                headers=headers,
                retries=False,
                redirect=False,
                timeout=urllib3.Timeout(connect=min(self._connect_timeout, wait), read=wait),
                preload_content=False,
                decode_content=False,
            )
        finally:
            if body:
                body.close()
        if body and body.left and response.status < 300:
            response.close()
            raise Unavailable("MESH answered before it had the whole body")
        return response

    def _tell(self, retry: Retry) -> None:
        _log.warning("%s %s failed (%s); trying again in %.1f s", retry.method, retry.path, retry.error, retry.pause)
        if self._on_retry:
            self._on_retry(retry)

    def _refusal(self, response: BaseHTTPResponse) -> MeshError:
        """Turn an answer that is no success into the error it stands for."""
        status = response.status
        said = _said(_first(response, _LONGEST_ERROR))
        if status == 300:
            return NotUnique("")
        if status == 403:
            return Unauthorised(self._why_unauthorised(response, said))
        if status == 404:
            return NotFound(f"MESH does not have it (404{_text(said)})")
        if status == 410:
            return Expired("MESH no longer keeps it (410)")
        if status in _TURNED_AWAY:
            return NotSent(f"MESH takes nothing more for now ({status})", retry_after=_retry_after(response))
        if status >= 500:
            return Unavailable(f"MESH answered {status}", retry_after=_retry_after(response))
        return Refused(status, **said)

    def _why_unauthorised(self, response: BaseHTTPResponse, said: dict[str, str]) -> str:
        off = 0.0
        if date := _http_date(response.headers.get("Date", "")):
            off = (_now() - date).total_seconds()
        cause = "a wrong mailbox id, password or shared key"
        if abs(off) > _CLOCK_MAY_BE_OFF * 0.9:
            cause = f"the clock: this one is {abs(off) / 3600:.1f} hours {'ahead' if off > 0 else 'behind'} of MESH's"
        return f"MESH does not let the mailbox in (403{_text(said)}); it looks like {cause}"

    def _pause(self, tries: int, failure: MeshError) -> float:
        longest = min(self._first_pause * 2.0 ** min(tries - 1, 100), self._longest_pause)
        asked = failure.retry_after if isinstance(failure, Unavailable) else None
        return max(asked or 0.0, random.uniform(longest / 2, longest))  # noqa: S311 - jitter, not a secret


# -- sockets that look at the deadline, and connections that say how far they came


class _Watched:
    """Lets each wait for the other end last no longer than the deadline allows."""

    def _watch(self) -> None:
        deadline = _deadline.get()
        # Mostly it stays as it is, and setting it is a call to the system for each 16 KB of a body.
        if deadline and (wait := deadline.wait()) != self.gettimeout():  # type: ignore[attr-defined]
            self.settimeout(wait)  # type: ignore[attr-defined]

    def recv_into(self, *args: Any, **options: Any) -> int:
        self._watch()
        received: int = super().recv_into(*args, **options)  # type: ignore[misc]
        return received


class _PlainSocket(_Watched, socket.socket):
    """A connection before TLS, to MESH or to a proxy."""


class _TlsSocket(_Watched, ssl.SSLSocket):
    """A connection to MESH."""

    def do_handshake(self, block: bool = False) -> None:
        if deadline := _deadline.get():
            self.settimeout(min(self.gettimeout() or deadline.left, deadline.wait()))
        super().do_handshake(block)

    def send(self, *args: Any, **options: Any) -> int:
        self._watch()
        try:
            return super().send(*args, **options)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError):
            # As without TLS: MESH may have said why before it closed the connection, which urllib3 then reads.
            raise BrokenPipeError("MESH closed the connection") from None


class _Head:
    """The head of an answer, line by line; one that is no header makes all of it unreadable.

    The library stops at such a line, or takes an end of the connection for that of the head: headers that say what a
    body is would seem not to be there.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._before = b""

    def readline(self, most: int) -> bytes:
        line: bytes = self._file.readline(most)
        # A status line comes first, and again behind the blank line of a head with the status 100.
        if self._before.strip() and line not in {b"\r\n", b"\n"}:
            goes_on = line[:1] in {b" ", b"\t"} and not self._before.startswith(b"HTTP/")
            if not re.fullmatch(rb"[^\r\n\0]*\r?\n" if goes_on else rb"[!-9;-~]+:[^\r\n\0]*\r?\n", line):
                raise http.client.HTTPException("a header is none")
        self._before = line
        return line

    def close(self) -> None:
        self._file.close()


class _Response(http.client.HTTPResponse):
    """An answer that is read strictly: what two readers could understand differently is no answer."""

    def begin(self) -> None:
        file: Any = self.fp
        self.fp = cast("Any", _Head(file))
        try:
            super().begin()
        finally:
            self.fp = file
        if self.status < 200:
            # The answer itself is still to come, and would be taken for that to the next request.
            raise http.client.HTTPException("an answer that is not the last")
        if self.status in {204, 304}:
            self.will_close = True  # so would a body, which these have not
        headers = [(name, re.sub(r"\r?\n[ \t]+", " ", value).strip()) for name, value in self.headers.items()]
        for name in self.headers.keys():  # noqa: SIM118 - a message's own, not a dictionary's
            del self.headers[name]
        for name, value in headers:
            self.headers[name] = value
        encodings = self.headers.get_all("Transfer-Encoding", [])
        if encodings and (not self.chunked or len(encodings) > 1):
            # It is not undone here, and a body in it ends where the connection does: nothing says how long it is.
            self.will_close = True
            del self.headers["Transfer-Encoding"]
            del self.headers["Content-Length"]

    def _read_next_chunk_size(self) -> int:
        # The library takes whatever Python takes for a number, one below 0 included.
        line: bytes = self.fp.readline(1 << 16)
        found = re.fullmatch(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\r\n]*)?\r?\n", line)
        if not found:
            raise http.client.HTTPException("a chunk does not say how long it is")
        return int(found[1], 16)


class _NoConnection(urllib3.exceptions.NewConnectionError):
    """A connection was not made, TLS included; ``cause`` says why."""

    def __init__(self, connection: HTTPSConnection, cause: Exception) -> None:
        super().__init__(connection, "no connection was made")
        self.cause = cause


class _HungUp(ConnectionError):
    """MESH closed a new connection before it said anything."""


class _Connection(HTTPSConnection):
    """Tells a connection that was never made, when nothing can have been sent, from one that broke later."""

    response_class = _Response
    rested_at = 0.0
    process = 0
    _has_answered = False
    _plain: socket.socket | None = None

    def connect(self) -> None:
        self._has_answered = False
        self.process = os.getpid()
        try:
            super().connect()
        except Exception as error:  # noqa: BLE001 - whatever it was, nothing was sent
            self.close()
            # Before Python 3.12 the answer of a proxy that refuses holds on to it.
            if self._plain and (descriptor := self._plain.detach()) >= 0:
                socket.close(descriptor)
            raise _NoConnection(self, error) from None

    def _new_conn(self) -> socket.socket:
        """Try each of the host's addresses, all of them within the deadline."""
        failure: OSError = OSError("the host has no address")
        for family, kind, protocol, _, address in _addresses(self.host, self.port, self._wait()):
            self._plain = made = _PlainSocket(family, kind, protocol)
            try:
                for option in self.socket_options or ():
                    made.setsockopt(*option)
                made.settimeout(self._wait())
                made.connect(address)
            except OSError as error:
                failure = error
                made.close()
            else:
                return made
        raise failure

    def _wait(self) -> float | None:
        deadline = _deadline.get()
        return min(self.timeout or 0, deadline.wait()) if deadline else self.timeout

    def getresponse(self) -> Any:
        try:
            response = super().getresponse()
        except (ConnectionError, ssl.SSLEOFError) as error:
            if self._has_answered:
                raise
            raise _HungUp("the connection was closed before an answer") from error
        self._has_answered = True
        return response


def _addresses(host: str, port: int | None, wait: float | None) -> list[Any]:
    """Resolve a name, in a thread of its own, since nothing else lets go of a resolver that does not answer."""
    found: queue.SimpleQueue[list[Any] | Exception] = queue.SimpleQueue()

    def resolve() -> None:
        try:
            found.put(socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 - told to the thread that waits
            found.put(error)

    threading.Thread(target=resolve, name="nhs_mesh-resolver", daemon=True).start()
    try:
        addresses = found.get(timeout=wait)
    except queue.Empty:
        raise TimeoutError("the host's name was not resolved in time") from None
    if isinstance(addresses, Exception):
        raise addresses
    return addresses


class _Pool(urllib3.HTTPSConnectionPool):
    """Hands out connections that have not idled too long, and that no other process has too."""

    ConnectionCls = _Connection

    def _get_conn(self, timeout: float | None = None) -> Any:
        connection: Any = super()._get_conn(timeout)
        # What a process had before it forked both have: each would read answers to the other. Closed, it goes on
        # being the other one's, since nothing is said to MESH then.
        if connection.process != os.getpid() or time.monotonic() - connection.rested_at > _TRUSTED_SECONDS:
            connection.close()
        return connection

    def _put_conn(self, conn: Any) -> None:
        if conn:
            conn.rested_at = time.monotonic()
        super()._put_conn(conn)

    def _validate_conn(self, conn: Any) -> None:
        # Without urllib3's warning at each request where the server goes unchecked: that was asked for by name.
        if conn.is_closed:
            conn.connect()


class _Sized:
    """The body of one try, of which exactly so many bytes as were said go out.

    Attributes
    ----------
    left
        How many bytes have not gone out.
    error
        What the body itself raised, which says nothing of the connection.
    """

    def __init__(self, part: Part, deadline: Deadline) -> None:
        self.size = self.left = part.size
        self.content_encoding = part.content_encoding
        self.error: Exception | None = None
        self._deadline = deadline
        try:
            self._body: BinaryIO = part.open()
        except ConfigurationError:
            raise
        except MeshError as error:
            raise _broke_off(error) from None

    def close(self) -> None:
        self._body.close()

    def read(self, size: int = -1) -> bytes:
        # The block before this one has gone.
        self._deadline.reached(self.size - self.left)
        wanted = self.left if size < 0 else min(size, self.left)
        block = self._read(wanted)
        self.left -= len(block)
        # Cut short, the request is none: MESH would wait for the rest, and nothing was sent.
        if wanted and not block:
            raise ConfigurationError(f"the body is {self.left} bytes shorter than was said")
        if wanted and not self.left and self._read(1):
            raise ConfigurationError("the body is longer than was said")
        return block

    def _read(self, size: int) -> bytes:
        try:
            return self._body.read(size)
        except (OSError, urllib3.exceptions.HTTPError):
            # It must not be taken for the connection to MESH.
            raise NotSent("the body broke off while it was read") from None
        except ConfigurationError:
            raise
        except MeshError as error:
            raise _broke_off(error) from None
        except Exception as error:
            self.error = error
            raise


def _broke_off(error: MeshError) -> NotSent:
    """Make the error for a body that is a message itself, and whose own error would be taken for this call's."""
    return NotSent(f"the body broke off while it was read: {error}")


# -- what an answer, or none, means


def _answer(response: BaseHTTPResponse) -> Answer:
    body = b"".join(_blocks(response, _LONGEST_ANSWER))
    # Read to its end, it has given its connection back already, and this closes nothing more.
    response.close()
    if len(body) >= _LONGEST_ANSWER:
        raise Unavailable("MESH's answer cannot be read: it is too long")
    return Answer(response.status, body)


def _first(response: BaseHTTPResponse, most: int) -> bytes:
    """Read the beginning of a body, if it comes."""
    body: list[bytes] = []
    with suppress(Exception):
        body.extend(_blocks(response, most))
    response.close()
    return b"".join(body)


def _blocks(response: BaseHTTPResponse, most: int) -> Iterator[bytes]:
    """Read a body, until there are as many bytes as there may be."""
    read = 0
    while read < most and (block := response.read(_BLOCK, decode_content=False)):
        read += len(block)
        yield block


def _failure(error: Exception) -> MeshError:
    """Tell a connection that was never made from one that broke, and that from an answer that is none."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return NotTrusted("MESH's certificate does not belong to the CA bundle, or to this host")
    if tls and "ALERT" in (tls.reason or "") and any(word in tls.reason for word in _CERTIFICATE_ALERTS):
        return NotTrusted("MESH does not take the client certificate; is it this environment's?")
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        tunnel = re.search(r"Tunnel connection failed: (\d{3})", " ".join(str(cause) for cause in causes))
        if tunnel:
            return NotSent(f"the proxy does not connect to MESH: it answered {tunnel[1]}")
        return NotSent("MESH cannot be reached: no connection was made")
    if any(isinstance(cause, (TimeoutError, urllib3.exceptions.TimeoutError)) for cause in causes):
        return Unavailable("MESH did not answer in time")
    if any(isinstance(cause, _HungUp) for cause in causes):
        return Unavailable(
            "MESH closed a new connection without an answer, as it does where it does not take the client "
            "certificate; is it this environment's?"
        )
    if any(isinstance(cause, (OSError, urllib3.exceptions.IncompleteRead)) for cause in causes):
        return Unavailable("the connection to MESH broke")
    return Unavailable("MESH's answer cannot be read")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and those it was made from, by what the libraries put into them.

    Not by ``__context__``, where an error may be that the caller is just handling.
    """
    yield error
    for inner in (*error.args, getattr(error, "reason", None), getattr(error, "cause", None)):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


def _retry_after(response: BaseHTTPResponse) -> float | None:
    value = response.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", value):
        return float(value)
    date = _http_date(value)
    return max(0.0, (date - _now()).total_seconds()) if date else None


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
        return date if date.tzinfo else date.replace(tzinfo=UTC)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None


def _said(body: bytes) -> dict[str, str]:
    """Read MESH's own words from the body of an error, whichever version it is in; XML and rubbish say nothing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    if not isinstance(document, dict):
        return {}
    detail = document.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    found = {
        "code": first.get("code") or document.get("errorCode"),
        "description": first.get("msg") or document.get("errorDescription"),
        "event": first.get("event") or document.get("errorEvent"),
        "message_id": document.get("message_id") or document.get("messageID"),
    }
    return {
        name: str(value)[:_LONGEST_WORDS] for name, value in found.items() if value and isinstance(value, (str, int))
    }


def _text(said: Mapping[str, str]) -> str:
    return "".join(f" {said[name]}" for name in ("code", "description") if name in said)
