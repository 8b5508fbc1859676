"""HTTP to MESH: every try with a token of its own, retries as the protocol allows, answers turned into errors.

What may be tried again (design, "MESH client rules"): GET, PUT, the handshake and parts 2 onwards, on connection
errors, 429 and 502 to 504. The first POST of a message only where the connection was never made.
"""

from __future__ import annotations

import random
import ssl
import time
import warnings
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, BinaryIO

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPSConnection

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nhs_mesh.auth import MeshAuth
    from nhs_mesh.messages import Part

__all__ = ["NotSent", "Transport"]

_AGAIN = frozenset({429, 502, 503, 504})
_TRIES = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 20.0
_SHORTEST_TIMEOUT = 0.1
#: What MESH says, in TLS's own words, where it does not take the client certificate; no request has reached it then.
_CERTIFICATE_ALERTS = ("CERTIFICATE", "UNKNOWN_CA", "HANDSHAKE_FAILURE", "ACCESS_DENIED")
#: MESH refuses tokens that are more than two hours off.
_CLOCK_MAY_BE_OFF = 2 * 3600


class NotSent(Unavailable):
    """The connection was never made, or MESH said at once that it takes nothing now: nothing was sent."""


class NotTrusted(NotSent):
    """One end does not take the other's certificate, which no second try changes."""


class Transport:
    """Sends signed requests over one pool of connections."""

    def __init__(
        self,
        context: ssl.SSLContext,
        auth: MeshAuth,
        *,
        timeout: tuple[float, float],
        deadline: float,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
    ) -> None:
        self._session = requests.Session()
        # Neither a netrc file nor the environment may put in its own credentials, CAs or proxies.
        self._session.trust_env = False
        # requests would otherwise have the context check certificates that it was told not to.
        self._session.verify = context.verify_mode is not ssl.CERT_NONE
        self._session.auth = auth
        self._session.headers["Accept"] = "application/vnd.mesh.v2+json"
        self._session.headers["Accept-Encoding"] = "identity"
        self._session.mount("https://", _Adapter(context))
        self._timeout = timeout
        self._deadline = deadline
        self._clock = clock
        self._sleep = sleep

    def close(self) -> None:
        """Close the pool."""
        self._session.close()

    def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        part: Part | None = None,
        once: bool = False,
        arrived: int | None = None,
        stream: bool = False,
    ) -> requests.Response:
        """Send a request until it is answered, and return a good answer.

        Parameters
        ----------
        part
            The body, opened anew for each try.
        once
            Never send it a second time once it may have arrived.
        arrived
            The status by which MESH says that an earlier try has arrived; good where that one's answer was lost.

        Raises
        ------
        NotSent
            The connection was never made.
        Unavailable
            No clear answer came.
        MeshError
            Whatever else MESH answered, see `nhs_mesh.errors`.
        """
        started = time.monotonic()
        lost = False
        for attempt in range(1, _TRIES + 1):
            if once:
                # On a connection that has idled, a reset could mean that MESH closed it or that it took the message.
                self._session.close()
            wait: float | None = None
            left = max(self._deadline - (time.monotonic() - started), _SHORTEST_TIMEOUT)
            try:
                response = self._try(method, url, headers or {}, params, part, stream=stream, left=left)
            except requests.RequestException as error:
                failure = _failure(error)
                if isinstance(failure, NotTrusted) or (once and not isinstance(failure, NotSent)):
                    raise failure from None
            else:
                if response.ok and response.status_code < 300:
                    return response
                failure, wait = self._refusal(response)
                if lost and response.status_code == arrived:
                    return response
                if response.status_code not in _AGAIN or (once and response.status_code != 429):
                    raise failure
            lost = lost or not isinstance(failure, NotSent)
            pause = self._pause(attempt, wait)
            if attempt == _TRIES or time.monotonic() - started + pause > self._deadline:
                raise failure
            self._sleep(pause)
        raise AssertionError("unreachable")

    def _try(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        params: Mapping[str, str] | None,
        part: Part | None,
        *,
        stream: bool,
        left: float,
    ) -> requests.Response:
        connect, read = self._timeout
        options: dict[str, Any] = {
            "params": params,
            "timeout": (min(connect, left), min(read, left)),
            "allow_redirects": False,
            "stream": stream,
        }
        if part is None:
            return self._session.request(method, url, headers=headers, **options)
        headers = {**headers, "Content-Length": str(part.size)}
        if part.content_encoding:
            headers["Content-Encoding"] = part.content_encoding
        with part.open() as body:
            return self._session.request(method, url, headers=headers, data=_Sized(body, part.size), **options)

    def _refusal(self, response: requests.Response) -> tuple[MeshError, float | None]:
        """Turn an answer that is no success into the error it stands for, and how long MESH asks to wait."""
        with response:
            status = response.status_code
            said = _said(response)
            if status == 300:
                return NotUnique(""), None
            if status == 403:
                return Unauthorised(self._why_unauthorised(response, said)), None
            if status == 404:
                return NotFound(f"MESH does not have it (404{_text(said)})"), None
            if status == 410:
                return Expired("MESH no longer keeps it (410)"), None
            if status == 429:
                return NotSent("MESH takes nothing more for now (429)"), self._retry_after(response)
            if status >= 500:
                return Unavailable(f"MESH answered {status}"), self._retry_after(response)
            return Refused(status, **said), None

    def _why_unauthorised(self, response: requests.Response, said: dict[str, str]) -> str:
        off = 0.0
        if date := _http_date(response.headers.get("Date", "")):
            off = (self._clock() - date).total_seconds()
        cause = "a wrong mailbox id, password or shared key"
        if abs(off) > _CLOCK_MAY_BE_OFF * 0.9:
            cause = f"the clock: this one is {abs(off) / 3600:.1f} hours {'ahead' if off > 0 else 'behind'} of MESH's"
        return f"MESH does not let the mailbox in (403{_text(said)}); it looks like {cause}"

    def _retry_after(self, response: requests.Response) -> float | None:
        value = response.headers.get("Retry-After", "").strip()
        if value.isdecimal():
            return float(value)
        date = _http_date(value)
        return max(0.0, (date - self._clock()).total_seconds()) if date else None

    def _pause(self, attempt: int, asked: float | None) -> float:
        longest = min(_FIRST_PAUSE * 2 ** (attempt - 1), _LONGEST_PAUSE)
        return max(asked or 0.0, random.uniform(longest / 2, longest))  # noqa: S311 - jitter, not a secret


class _NoConnection(urllib3.exceptions.NewConnectionError):
    """A connection was not made, TLS included; ``cause`` says why."""

    def __init__(self, connection: HTTPSConnection, cause: Exception) -> None:
        super().__init__(connection, "no connection was made")
        self.cause = cause


class _Connection(HTTPSConnection):
    """Tells a handshake that failed, when nothing can have been sent, from a connection that broke later."""

    def connect(self) -> None:
        try:
            super().connect()
        except (OSError, urllib3.exceptions.HTTPError) as error:
            self.close()
            raise _NoConnection(self, error) from None


class _Pool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _Connection


class _Adapter(HTTPAdapter):
    """Uses our TLS context and nothing beside it."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self._context = context
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **options)
        self.poolmanager.pool_classes_by_scheme = {"https": _Pool}

    def cert_verify(self, *_: Any) -> None:
        """Add no certificates: requests would put the public CAs beside the NHS's."""

    def send(self, *args: Any, **options: Any) -> requests.Response:
        if self._context.verify_mode is not ssl.CERT_NONE:
            return super().send(*args, **options)
        with warnings.catch_warnings():
            # Switching it off was asked for by name; no need to say so at each request.
            warnings.simplefilter("ignore", urllib3.exceptions.InsecureRequestWarning)
            return super().send(*args, **options)


class _Sized:
    """A body whose length requests can tell, so that it goes out with a Content-Length, in blocks."""

    def __init__(self, body: BinaryIO, size: int) -> None:
        self._body = body
        self._left = size

    def __len__(self) -> int:
        return self._left

    def read(self, size: int = -1) -> bytes:
        wanted = self._left if size < 0 else min(size, self._left)
        block = self._read(wanted)
        self._left -= len(block)
        # Cut short, the request is none: MESH would wait for the rest, and nothing was sent.
        if wanted and not block:
            raise ConfigurationError(f"the body is {self._left} bytes shorter than was said")
        if wanted and not self._left and self._read(1):
            raise ConfigurationError("the body is longer than was said")
        return block

    def _read(self, size: int) -> bytes:
        try:
            return self._body.read(size)
        except (OSError, urllib3.exceptions.HTTPError):
            # It must not be taken for the connection to MESH.
            raise NotSent("the body broke off while it was read") from None


def _failure(error: requests.RequestException) -> MeshError:
    """Tell a connection that was never made from one that broke."""
    causes = list(_causes(error))
    tls = next((cause for cause in causes if isinstance(cause, ssl.SSLError)), None)
    if isinstance(tls, ssl.SSLCertVerificationError):
        return NotTrusted("MESH's certificate does not belong to the CA bundle, or to this host")
    if tls and "ALERT" in (tls.reason or "") and any(word in tls.reason for word in _CERTIFICATE_ALERTS):
        return NotTrusted("MESH does not take the client certificate; is it this environment's?")
    if any(isinstance(cause, urllib3.exceptions.NewConnectionError) for cause in causes):
        return NotSent("MESH cannot be reached: no connection was made")
    if isinstance(error, requests.Timeout):
        return Unavailable("MESH did not answer in time")
    return Unavailable("the connection to MESH broke")


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Go through an error and those it was made from, by what the libraries put into them.

    Not by ``__context__``, where an error may be that the caller is just handling.
    """
    yield error
    for inner in (*error.args, getattr(error, "reason", None), getattr(error, "cause", None)):
        if isinstance(inner, BaseException):
            yield from _causes(inner)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _said(response: requests.Response) -> dict[str, str]:
    """Read MESH's own words from the body of an error, whichever version it is in; XML and rubbish say nothing."""
    try:
        body = response.json()
    except (ValueError, requests.RequestException):
        return {}
    if not isinstance(body, dict):
        return {}
    detail = body.get("detail")
    first = detail[0] if isinstance(detail, list) and detail and isinstance(detail[0], dict) else {}
    found = {
        "code": first.get("code") or body.get("errorCode"),
        "description": first.get("msg") or body.get("errorDescription"),
        "event": first.get("event") or body.get("errorEvent"),
        "message_id": body.get("message_id") or body.get("messageID"),
    }
    return {name: str(value) for name, value in found.items() if value}


def _text(said: Mapping[str, str]) -> str:
    return "".join(f" {said[name]}" for name in ("code", "description") if name in said)
