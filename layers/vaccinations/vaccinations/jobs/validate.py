"""Validate: the daily handshake, so that MESH knows the mailbox is alive, and a look at the certificate."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from nhs_mesh import certificate_facts
from vaccinations.results import Validation
from vaccinations.telemetry import count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vaccinations.ports import Mesh

__all__ = ["Validate"]


@dataclass(frozen=True, slots=True)
class Validate:
    """The use case.

    Attributes
    ----------
    connect
        Connects to MESH.
    certificate
        The certificate that the mailbox is opened with, as PEM.
    clock
        Tells the time, with its offset.
    """

    connect: Callable[[], Mesh]
    certificate: str = field(repr=False)
    clock: Callable[[], datetime]

    def run(self) -> Validation:
        """Shake hands with MESH and count the days that the certificate has left.

        Raises
        ------
        nhs_mesh.MeshError
            MESH did not answer, or does not let us in.
        """
        days = certificate_facts(self.certificate).days_left(self.clock())
        gauge("CertificateDaysLeft", days)  # first: with one that has expired there is no connection
        mesh = self.connect()
        mesh.handshake()
        count("MailboxValidated")
        logger.info("mailbox validated", extra={"mailbox": mesh.mailbox, "certificate_days_left": days})
        return Validation(mailbox=mesh.mailbox, certificate_days_left=days)
