"""A client for MESH, the NHS's Message Exchange for Social Care and Health."""

from nhs_mesh.auth import Credentials, token
from nhs_mesh.client import INTEGRATION, LIVE, MeshClient
from nhs_mesh.errors import (
    CertificateExpired,
    ConfigurationError,
    Corrupted,
    Expired,
    MeshError,
    NotFound,
    NotUnique,
    Refused,
    Resume,
    SendOutcomeUnknown,
    TlsError,
    Unauthorised,
    Unavailable,
)
from nhs_mesh.messages import Mailbox, Message, MessageType, Tracking, TrackingStatus
from nhs_mesh.parts import CHUNK_SIZE, Part, SentMessage
from nhs_mesh.tls import CertificateFacts, certificate_facts, check_ca_bundle, ssl_context
from nhs_mesh.transport import Retry

__all__ = [
    "CHUNK_SIZE",
    "INTEGRATION",
    "LIVE",
    "CertificateExpired",
    "CertificateFacts",
    "ConfigurationError",
    "Corrupted",
    "Credentials",
    "Expired",
    "Mailbox",
    "MeshClient",
    "MeshError",
    "Message",
    "MessageType",
    "NotFound",
    "NotUnique",
    "Part",
    "Refused",
    "Resume",
    "Retry",
    "SendOutcomeUnknown",
    "SentMessage",
    "TlsError",
    "Tracking",
    "TrackingStatus",
    "Unauthorised",
    "Unavailable",
    "__version__",
    "certificate_facts",
    "check_ca_bundle",
    "ssl_context",
    "token",
]

#: The version of the whole project; the packages' metadata take it from here.
__version__ = "0.1.0"
