"""Where everything is put together: the one place that knows stores, use cases and MESH client by their classes.

Functions, command and tests ask a `Wiring` for what they need. Modules are imported where they are used, so that a
function loads no more than its use case: ingest no MESH client, export no pydantic.
"""

from __future__ import annotations

import os
import uuid
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache, wraps
from typing import TYPE_CHECKING, Any

from vaccinations.aws.clients import Clients
from vaccinations.results import Skipped, document
from vaccinations.settings import Settings
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from nhs_mesh import MeshClient
    from vaccinations.aws.bucket import Bucket
    from vaccinations.aws.ledger import Ledger
    from vaccinations.aws.parameters import MeshSecret, MeshSecrets
    from vaccinations.aws.queue import Queue
    from vaccinations.aws.register import Register
    from vaccinations.jobs.collect import Collect
    from vaccinations.jobs.export import Export
    from vaccinations.jobs.ingest import Ingest
    from vaccinations.jobs.reconcile import Reconcile
    from vaccinations.jobs.status import StatusPage
    from vaccinations.jobs.track import Track
    from vaccinations.jobs.validate import Validate
    from vaccinations.model.export import FileNames
    from vaccinations.model.programmes import Programme
    from vaccinations.results import ForTeam
    from vaccinations.telemetry import Handler

__all__ = ["Wiring", "skipped_when_off", "wire"]


def _now() -> datetime:
    return datetime.now(UTC)


class Wiring:
    """Stores, MESH client and use cases for some settings.

    Parameters
    ----------
    clients
        Where AWS is, and with which credentials.
    clock
        Tells the time, with its offset.
    instead
        What takes the place of fields of the secret, so that a developer can look into another mailbox of a sandbox.
    """

    def __init__(
        self,
        settings: Settings,
        clients: Clients,
        clock: Callable[[], datetime] = _now,
        *,
        instead: Mapping[str, str] | None = None,
    ) -> None:
        self.settings = settings
        self.clients = clients
        self._clock = clock
        self._instead = instead or {}
        self._secrets: MeshSecrets | None = None
        self._connection: tuple[MeshSecret, MeshClient] | None = None

    # -- stores

    def bucket(self) -> Bucket:
        """Open the bucket."""
        from vaccinations.aws.bucket import Bucket

        return Bucket(self.clients.s3, self.settings.bucket)

    def register(self) -> Register:
        """Open the register."""
        from vaccinations.aws.register import Register

        return Register(self.clients.dynamodb, self.settings.records_table)

    def ledger(self, records_table: str = "") -> Ledger:
        """Open the ledger; changes of state are published where there is a bus for them.

        Parameters
        ----------
        records_table
            Name of the register's table, for those who attach batches.
        """
        if not self.settings.event_bus:
            return self._quiet_ledger(records_table)
        from vaccinations.aws.bus import publisher
        from vaccinations.aws.ledger import Ledger

        changed = publisher(self.clients.events, self.settings.event_bus)
        table = self.settings.exports_table
        return Ledger(self.clients.dynamodb, table, records_table, changed=changed, clock=self._clock)

    def _team_teller(self) -> Callable[[ForTeam], None]:
        """Make what tells teams what became of their uploads, where there is a bus for that."""
        if not self.settings.event_bus:
            return lambda _: None
        from vaccinations.aws.bus import team_teller

        return team_teller(self.clients.events, self.settings.event_bus)

    def queue(self) -> Queue:
        """Open the queue of uploads."""
        from vaccinations.aws.queue import Queue

        return Queue(self.clients.sqs, self.settings.uploads_queue)

    def _quiet_ledger(self, records_table: str) -> Ledger:
        """Open the ledger for those who change no export's state."""
        from vaccinations.aws.ledger import Ledger

        return Ledger(self.clients.dynamodb, self.settings.exports_table, records_table, clock=self._clock)

    # -- MESH

    def secret(self) -> MeshSecret:
        """Read the MESH secret.

        Raises
        ------
        vaccinations.aws.parameters.SecretIncomplete
            It lacks fields.
        """
        from vaccinations.aws.parameters import MeshSecrets

        self._secrets = self._secrets or MeshSecrets(self.clients.secrets, self.settings.mesh_secret)
        return self._secrets.read()

    def mesh(self) -> MeshClient:
        """Connect to MESH. It is the same client while the secret stays the same, so that its connections are kept.

        Raises
        ------
        vaccinations.aws.parameters.SecretIncomplete
            The secret lacks fields.
        nhs_mesh.ConfigurationError
            The key, certificate or CA bundle in it cannot be used.
        """
        secret = replace(self.secret(), **self._instead)
        if self._connection is None or self._connection[0] != secret:
            self._connection = secret, _connect(self.settings, secret)
        return self._connection[1]

    def jobs_enabled(self) -> bool | None:
        """Tell whether the ``mesh_jobs`` flag is on; None where nobody has switched it yet."""
        from vaccinations.aws.parameters import jobs_enabled

        return jobs_enabled(self.clients.parameters, self.settings.mesh_jobs_parameter)

    # -- use cases

    def validate(self) -> Validate:
        """Make the daily handshake."""
        from vaccinations.jobs.validate import Validate

        return Validate(self.mesh, self.secret().certificate, self._clock)

    def ingest(self) -> Ingest:
        """Make what ingests uploads."""
        from vaccinations.jobs.ingest import Ingest

        ledger = self.ledger(self.settings.records_table)
        stores = self.bucket(), self.register(), ledger
        return Ingest(*stores, self._clock, self.settings.uploaders, self._team_teller())

    def export(self, holder: str, seconds_left: Callable[[], float]) -> Export:
        """Make what seals exports and sends them.

        Parameters
        ----------
        holder
            Names this run in leases and logs; what tells it from all others is added.
        seconds_left
            Tells how many seconds it may still run.
        """
        from vaccinations.jobs.export import Export

        return Export(
            ledger=self.ledger(),
            bucket=self.bucket(),
            connect=self.mesh,
            names=self.names,
            recipient=self.settings.dps_mailbox,
            workflow_id=self.settings.workflow_id,
            # Lambda gives an event that it delivers twice the same request id both times.
            holder=f"{holder}-{uuid.uuid4().hex[:8]}",
            seconds_left=seconds_left,
            clock=self._clock,
        )

    def names(self, programme: Programme) -> Callable[[datetime, int], FileNames]:
        """Make what names a programme's files."""
        from vaccinations.formats.dps_names import file_names

        return file_names(programme, self.settings.filename_style, self.settings.supplier_ods_code)

    def track(self) -> Track:
        """Make what learns whether each file was picked up."""
        from vaccinations.jobs.track import Track

        return Track(self.ledger(), self.bucket(), self.mesh(), self._clock)

    def collect(self, seconds_left: Callable[[], float]) -> Collect:
        """Make what brings messages to the bucket and reads DPS's answers.

        Parameters
        ----------
        seconds_left
            Tells how many seconds it may still run.
        """
        from vaccinations.jobs.collect import Collect

        stores = self.bucket(), self.ledger(), self.register()
        answers = self.settings.answers_mailbox
        return Collect(*stores, self.mesh(), seconds_left, answers, self._clock, self._team_teller())

    def reconcile(self, seconds_left: Callable[[], float]) -> Reconcile:
        """Make what finds forgotten uploads.

        Parameters
        ----------
        seconds_left
            Tells how many seconds it may still run.
        """
        from vaccinations.jobs.reconcile import Reconcile

        ledger = self._quiet_ledger("")
        return Reconcile(self.bucket(), self.register(), ledger, self.queue(), seconds_left, self._clock)

    def status(self) -> StatusPage:
        """Make the table of the dashboard."""
        from vaccinations.jobs.status import StatusPage

        return StatusPage(self._quiet_ledger(""), self._clock)


def _connect(settings: Settings, secret: MeshSecret) -> MeshClient:
    from nhs_mesh import Credentials, MeshClient

    return MeshClient(
        settings.mesh_base_url,
        Credentials(secret.mailbox, secret.password, secret.shared_key),
        certificate=secret.certificate,
        private_key=secret.private_key,
        passphrase=secret.private_key_passphrase,
        ca_bundle=secret.ca_bundle,
        verify=settings.verify_ssl,
    )


@cache
def wire(job: str) -> Wiring:
    """Return the wiring of the function in whose environment this runs, the same for each of its invocations."""
    return Wiring(Settings.of(job, os.environ), Clients())


def skipped_when_off(job: str) -> Callable[[Handler], Handler]:
    """Make a handler do nothing while ``mesh_jobs`` is off, saying so in the log, a metric and its answer."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def guarded(event: dict[str, Any], context: LambdaContext) -> Any:
            enabled = wire(job).jobs_enabled()
            if enabled:
                return handler(event, context)
            logger.info("skipped: mesh_jobs is off", extra={"job": job})
            # A stack that was never switched on is new; one that was switched off is an alarm in production.
            count("JobsNotYetEnabled" if enabled is None else "JobsSkipped", job=job)
            return document(Skipped())

        return guarded

    return decorate
