"""The MESH authorisation token (docs/mesh-protocol.md, "Every request")."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

__all__ = ["Credentials", "token"]


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
    credentials
        The mailbox's.
    nonce, nonce_count
        A UUID, and how often it was used before: a token is good for one request.
    moment
        With its offset; MESH refuses a token that is more than two hours off.

    Returns
    -------
    str
        The header's value, from ``NHSMESH`` on.
    """
    mailbox = credentials.mailbox.upper()
    timestamp = moment.astimezone(UTC).strftime("%Y%m%d%H%M")
    signed = f"{mailbox}:{nonce}:{nonce_count}:{credentials.password}:{timestamp}"
    digest = hmac.new(credentials.shared_key.encode(), signed.encode(), hashlib.sha256).hexdigest()
    return f"NHSMESH {mailbox}:{nonce}:{nonce_count}:{timestamp}:{digest}"
