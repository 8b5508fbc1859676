"""What can go wrong with MESH, as a tree, and where a send that got stuck goes on.

::

    MeshError
     ├─ ConfigurationError      nothing was sent: the settings cannot work
     │   └─ TlsError            key, passphrase, certificate or CA bundle
     │       └─ CertificateExpired
     ├─ Refused                 MESH said no (4xx), with its code and description
     ├─ Unauthorised            403: MESH does not let this mailbox in
     ├─ NotFound                404: there is no such message, for this mailbox
     ├─ Expired                 410: the message is no longer kept
     ├─ NotUnique               300: several messages bear this local id
     ├─ Unavailable             no answer, none that can be read, or 425, 429 or 5xx, however often it was tried
     ├─ Corrupted               a message is not whole, or does not match its checksum
     └─ SendOutcomeUnknown      a message may or may not have been sent: ask by local id

No exception text holds a token, a password, a key or a header.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Self

__all__ = [
    "CertificateExpired",
    "ConfigurationError",
    "Corrupted",
    "Expired",
    "MeshError",
    "NotFound",
    "NotUnique",
    "Refused",
    "Resume",
    "SendOutcomeUnknown",
    "TlsError",
    "Unauthorised",
    "Unavailable",
]


class MeshError(Exception):
    """Anything that went wrong between this client and MESH.

    Attributes
    ----------
    resume
        Where `MeshClient.send_file` got stuck after MESH had taken its first part: give it back as ``resume``, and the
        send goes on there. Otherwise None. An OSError or a KeyboardInterrupt has it too where one ended the send then.
    """

    resume: Resume | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are otherwise made again from their text, which is not what these are made from.
        return _again, (type(self), *self.args), self.__dict__


def _again(kind: type[MeshError], *args: object) -> MeshError:
    """Make an error again that was copied or pickled; what else it has is then put into it."""
    return kind.__new__(kind, *args)


class ConfigurationError(MeshError):
    """The settings cannot work; the message says what to do. Nothing was sent."""


class TlsError(ConfigurationError):
    """Private key, passphrase, certificate or CA bundle cannot be used."""


class CertificateExpired(TlsError):
    """The client certificate has expired: nothing can be sent or asked before there is another one."""


class Refused(MeshError):
    """MESH refused the request.

    Attributes
    ----------
    status
        HTTP status: 417 mostly; 413 for a part that is too large; 423 where a message is complete already.
    code, description, event
        MESH's own, such as ``12``, ``Unregistered to address``, ``SEND``; empty where it gave none.
    message_id
        The message it is about, where MESH named one.
    """

    def __init__(
        self, status: int, *, code: str = "", description: str = "", event: str = "", message_id: str = ""
    ) -> None:
        said = " ".join(part for part in (code, description) if part)
        super().__init__(f"MESH refused the request with {status}{f': {said}' if said else ''}")
        self.status = status
        self.code = code
        self.description = description
        self.event = event
        self.message_id = message_id


class Unauthorised(MeshError):
    """MESH does not let this mailbox in; the message says whether clock or credentials look wrong."""


class NotFound(MeshError):
    """There is no such message for this mailbox."""


class Expired(MeshError):
    """The message was there once and is no longer kept."""


class NotUnique(MeshError):
    """Several messages bear this local id, so that MESH cannot say which is meant."""

    def __init__(self, local_id: str) -> None:
        super().__init__(f"MESH knows several messages by the local id {local_id}")
        self.local_id = local_id


class Unavailable(MeshError):
    """MESH could not be reached, or gave no answer that can be read, however often it was tried.

    Attributes
    ----------
    retry_after
        Seconds after which MESH asks to be tried again, where it said so (``Retry-After``). Otherwise None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Corrupted(MeshError):
    """A message is not whole: its body or what MESH says of it is incomplete, or does not match its checksum."""


class SendOutcomeUnknown(MeshError):
    """A message was on its way and no clear answer came: it may have been sent, or not.

    Attributes
    ----------
    local_id
        What to ask MESH by, with `MeshClient.track_by_local_id`, before sending again.
    """

    def __init__(self, message: str, *, local_id: str) -> None:
        super().__init__(message)
        self.local_id = local_id


@dataclass(frozen=True, slots=True)
class Resume:
    """Where a send goes on. As text (``str(resume)``) it can be kept, and read again by `parse`.

    Attributes
    ----------
    message_id
        MESH's id of the message.
    part, parts
        The part to go on with, from 2, and how many there are.
    offset
        Where in the body that part begins.
    digest
        SHA-256 of the whole body, so that nothing else is sent after what MESH has, or taken for it.
    compress
        Whether the parts are compressed.
    """

    message_id: str
    part: int
    parts: int
    offset: int
    digest: str
    compress: bool

    def __str__(self) -> str:
        how = "gzip" if self.compress else "plain"
        return f"{self.message_id}:{self.part}:{self.parts}:{self.offset}:{self.digest}:{how}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text of a `Resume`.

        Parameters
        ----------
        text
            As ``str`` makes it.

        Returns
        -------
        Resume
            Where the send goes on.

        Raises
        ------
        ConfigurationError
            It is none.
        """
        found = re.fullmatch(r"([^:]+):([0-9]{1,9}):([0-9]{1,9}):([0-9]{1,18}):([0-9a-f]{64}):(gzip|plain)", text)
        if not found:
            raise ConfigurationError("this does not say where a send goes on")
        message_id, part, parts, offset, digest, how = found.groups()
        return cls(message_id, int(part), int(parts), int(offset), digest, how == "gzip")
