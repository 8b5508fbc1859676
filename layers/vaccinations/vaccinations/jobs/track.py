"""Track: every hour, learn whether DPS has picked up what MESH accepted.

Each accepted export is asked for by its message id. Then the own inbox is read for MESH's error reports, which come
where a message could not be delivered (layers/mesh_client/docs/mesh-protocol.md, "Life of a message"). Other messages
are left alone.

An export that was not delivered never goes out again as it was: DPS may have processed later ones since. Track puts a
request into the bucket to requeue it, and Ingest queues what DPS must be told of each of its records now.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from nhs_mesh import Expired, MeshError, NotFound, TrackingStatus, Unauthorised
from vaccinations.formats.requests import requeue_name
from vaccinations.model import lifecycle
from vaccinations.model.export import DPSExport, Failure, Status
from vaccinations.model.lifecycle import ImpossibleMove
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.ports import LedgerConflict
from vaccinations.results import TrackedExport, TrackRun
from vaccinations.telemetry import MetricUnit, count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nhs_mesh import Message
    from vaccinations.ports import Bucket, Ledger, Mesh

__all__ = ["Track"]

_NOT_ACKNOWLEDGED = [status for status in Status if status not in {Status.ACKNOWLEDGED, Status.REQUEUED}]
#: In which metric it is told how long the oldest export has been in a state, in hours.
_AGES = {
    Status.OPEN: "OldestWaitingHours",
    Status.PENDING: "OldestPendingHours",
    Status.ACCEPTED: "OldestUnacknowledgedHours",
}


@dataclass(frozen=True, slots=True)
class Track:
    """The use case, on its ports.

    Attributes
    ----------
    clock
        Tells the time, with its offset.
    """

    ledger: Ledger
    bucket: Bucket
    mesh: Mesh
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> TrackRun:
        """Do one run.

        Raises
        ------
        nhs_mesh.Unauthorised
            MESH does not let us in: nothing can be learned from it at all.
        """
        try:
            return self._run()
        finally:
            # Whether or not MESH answers.
            self._requeue()
            self._measure()

    def _run(self) -> TrackRun:
        waiting = [export for export in self.ledger.by_status(Status.ACCEPTED) if export.message_id]
        complete = True
        for export in waiting:
            try:
                self._track(export)
            except Unauthorised:
                raise
            except MeshError as error:
                complete = False
                extra = {"export_id": export.export_id, "message_id": export.message_id}
                logger.warning(f"cannot be tracked now: {error}", extra=extra)
                count("TrackErrors")
        # The ledger is read again: a report may concern an export that was accepted a moment ago.
        reports, unread = self._read_reports()
        tracked = tuple(self._tracked(export) for export in waiting)
        return TrackRun(status="ok" if complete and not unread else "incomplete", exports=tracked, reports=reports)

    def _tracked(self, export: DPSExport) -> TrackedExport:
        """Tell which state an export that waited is in now."""
        now = self.ledger.get(export.programme, export.number)
        return TrackedExport(
            export_id=export.export_id,
            programme=export.programme,
            status=now.status,
            filename=export.attempts[-1].filename,
            mesh_filename=export.attempts[-1].mesh_filename,
            message_id=export.message_id,
        )

    def _measure(self) -> None:
        """Say how much waits, and how long the oldest of it; what nobody waits for is 0."""
        now = self.clock()
        waiting = dict.fromkeys(PROGRAMMES, 0)
        for status in _NOT_ACKNOWLEDGED:
            exports = list(self.ledger.by_status(status))
            if metric := _AGES.get(status):
                oldest = min(map(lifecycle.since, exports), default=now)
                gauge(metric, (now - oldest) / timedelta(hours=1))
            if status is not Status.ACCEPTED:
                for export in exports:
                    waiting[export.programme] += export.records
        for programme, records in waiting.items():
            gauge("RecordsWaiting", records, MetricUnit.Count, programme=programme)

    def _track(self, export: DPSExport) -> None:
        """Ask MESH about one export, and note what it says."""
        tracking = self.mesh.track(export.message_id)
        if tracking.status == TrackingStatus.ACKNOWLEDGED:
            self._acknowledge(export)
        elif tracking.status in {TrackingStatus.UNDELIVERABLE, TrackingStatus.ERROR}:
            description = tracking.status_description or str(tracking.status)
            self._undeliver(export, Failure(tracking.status_code or "", description))

    def _read_reports(self) -> tuple[int, int]:
        """Read, apply and acknowledge the reports in the inbox; return how many, and how many could not be read."""
        read = unread = 0
        for message_id in list(self.mesh.inbox()):
            try:
                with self.mesh.download(message_id) as message:
                    if not message.is_report:
                        continue
                    done = self._apply(message)
                if done:
                    self.mesh.acknowledge(message_id)
                    read += 1
            except Unauthorised:
                raise
            except (NotFound, Expired):
                logger.info("message has gone from the inbox", extra={"message_id": message_id})
            except MeshError as error:
                unread += 1
                logger.warning(f"message cannot be read now: {error}", extra={"message_id": message_id})
                count("TrackErrors")
        return read, unread

    def _apply(self, report: Message) -> bool:
        """Mark the export that a report is about; tell whether that is done.

        It is not where a run is still sending the export, or does not know yet that MESH has it: the report stays in
        the inbox until that is known.
        """
        about = report.linked_message_id
        extra = {
            "message_id": report.message_id,
            "linked_message_id": about,
            "code": report.status_code,
            "description": report.status_description,
        }
        # In this order, so that an export which is accepted in between is found.
        pending = [*self.ledger.by_status(Status.PENDING)]
        export = _by_message_id(self.ledger.by_status(Status.ACCEPTED), about)
        if export:
            self._undeliver(export, Failure(report.status_code or "", report.status_description or ""))
        elif any(_may_be_about(each, report) for each in pending):
            logger.info("report about an export that is still being sent; it is left for later", extra=extra)
            return False
        else:
            logger.warning("report about a message that no accepted export waits for", extra=extra)
            count("ReportsUnmatched")
        return True

    def _acknowledge(self, export: DPSExport) -> None:
        now = self.clock()
        if self._change(export, lambda current: lifecycle.acknowledge(current, export.message_id, now)):
            logger.info("DPS has picked the export up", extra=_named(export))
            count("ExportsAcknowledged", programme=export.programme)

    def _undeliver(self, export: DPSExport, error: Failure) -> None:
        now = self.clock()
        if self._change(export, lambda current: lifecycle.undeliver(current, export.message_id, error, now)):
            said = {"code": error.code, "description": error.description}
            logger.error("export was not delivered", extra=_named(export) | said)
            count("ExportsUndelivered", programme=export.programme)

    def _change(self, export: DPSExport, how: Callable[[DPSExport], DPSExport]) -> bool:
        """Change an export; tell whether that was news."""
        try:
            self.ledger.change(export, how)
        except (ImpossibleMove, LedgerConflict):
            logger.info("another run has heard this before", extra={"export_id": export.export_id})
            return False
        return True

    def _requeue(self) -> None:
        """Ask for each undelivered export to be requeued, unless that waits. What is lost on the way Reconcile finds.

        A request that was done before has come too early, or was forgotten since the tables were restored. One that is
        parked waits for a person.
        """
        for export in self.ledger.by_status(Status.UNDELIVERED):
            name = requeue_name(export.export_id)
            if not self.bucket.request_waits(name):
                self.bucket.put_request(name)
                logger.info("undelivered export to be requeued", extra={"export_id": export.export_id})


def _may_be_about(export: DPSExport, report: Message) -> bool:
    """Tell whether a report is about a pending export: by the message's id, or its local id while that is unknown."""
    if export.message_id:
        return export.message_id == report.linked_message_id
    return report.local_id in {None, "", export.local_id} and lifecycle.may_be_sent(export)


def _named(export: DPSExport) -> dict[str, str]:
    return {"export_id": export.export_id, "message_id": export.message_id, **export.names[-1].told()}


def _by_message_id(exports: Iterable[DPSExport], message_id: str | None) -> DPSExport | None:
    return next((export for export in exports if message_id and export.message_id == message_id), None)
