"""Validate: the daily handshake, so that MESH knows the mailbox is alive, and a look at the certificate."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from nhs_mesh import certificate_facts
from vaccinations.settings import connect, mesh_secret
from vaccinations.telemetry import count, gauge, logger

if TYPE_CHECKING:
    from vaccinations.settings import Settings

__all__ = ["validate"]


def validate(settings: Settings) -> dict[str, Any]:
    """Shake hands with MESH and count the days the certificate has left.

    Returns
    -------
    dict
        ``{"status": "ok", "mailbox", "certificate_days_left"}``

    Raises
    ------
    nhs_mesh.MeshError
        MESH did not answer, or does not let us in.
    """
    client = connect(settings)
    client.handshake()
    days = certificate_facts(mesh_secret(settings)["certificate"]).days_left(datetime.now(UTC))
    count("MailboxValidated")
    gauge("CertificateDaysLeft", days)
    extra = {"mailbox": client.mailbox, "certificate_days_left": days}
    logger.info("mailbox validated", extra=extra)
    return {"status": "ok", **extra}
