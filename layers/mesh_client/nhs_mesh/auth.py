"""The MESH authorisation token (mesh-protocol, "Every request")."""

from __future__ import annotations

import hashlib
import hmac
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from requests.auth import AuthBase

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests import PreparedRequest

__all__ = ["Credentials", "MeshAuth", "token"]


@dataclass(frozen=True, slots=True)
class Credentials:
    """Who a mailbox is: its id, its password, and the environment's shared key."""

    mailbox: str
    password: str = field(repr=False)
    shared_key: str = field(repr=False)


def token(credentials: Credentials, *, nonce: str, nonce_count: int, moment: datetime) -> str:
    """Make the value of an ``Authorization`` header.

    Parameters
    ----------
    nonce, nonce_count
        A UUID, and how often it was used before: a token is good for one request.
    moment
        With its offset; MESH refuses a token that is more than two hours off.
    """
    mailbox = credentials.mailbox.upper()
    timestamp = moment.astimezone(UTC).strftime("%Y%m%d%H%M")
    signed = f"{mailbox}:{nonce}:{nonce_count}:{credentials.password}:{timestamp}"
    digest = hmac.new(credentials.shared_key.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return f"NHSMESH {mailbox}:{nonce}:{nonce_count}:{timestamp}:{digest}"


class MeshAuth(AuthBase):
    """Signs each request that it is given anew, so that no token travels twice."""

    def __init__(self, credentials: Credentials, clock: Callable[[], datetime]) -> None:
        self._credentials = credentials
        self._clock = clock

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Put a fresh token on a request."""
        r.headers["Authorization"] = token(
            self._credentials, nonce=str(uuid.uuid4()), nonce_count=0, moment=self._clock()
        )
        return r
