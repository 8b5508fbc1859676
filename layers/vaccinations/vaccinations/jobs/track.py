"""Track: every hour, learn whether DPS has picked up what MESH accepted.

Each accepted export is asked for by its message id. Then the own inbox is read for MESH's error reports, which come
where a message could not be delivered (mesh-protocol, "Life of a message"). Other messages are left alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from nhs_mesh import Expired, MeshError, NotFound, TrackingStatus, Unauthorised
from vaccinations.aws.ledger import DPSExport, LedgerConflict, Status
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.telemetry import MetricUnit, count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from nhs_mesh import MeshClient, Message
    from vaccinations.aws.ledger import Ledger

__all__ = ["Track"]

_NOT_ACKNOWLEDGED = [status for status in Status if status is not Status.ACKNOWLEDGED]
#: In which metric it is told how long the oldest export has been in a state, in hours.
_AGES = {
    Status.OPEN: "OldestWaitingHours",
    Status.PENDING: "OldestPendingHours",
    Status.ACCEPTED: "OldestUnacknowledgedHours",
}


@dataclass(frozen=True, slots=True)
class Track:
    """The use case, over the rooms it works with.

    Attributes
    ----------
    clock
        Tells the time, with its offset; for tests.
    """

    ledger: Ledger
    client: MeshClient
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, Any]:
        """Do one run.

        Returns
        -------
        dict
            ``{"status": "ok", "exports": [{"export_id", "programme", "status", "message_id"}], "reports": n}``:
            every export that was waiting, with the state it is in now, and how many reports were read. The status
            is ``incomplete`` where an export or a message could not be asked for.

        Raises
        ------
        nhs_mesh.Unauthorised
            MESH does not let us in: nothing can be learned from it at all.
        """
        try:
            return self._run()
        finally:
            self._measure()  # whether or not MESH answers

    def _run(self) -> dict[str, Any]:
        waiting = [export for export in self.ledger.by_status(Status.ACCEPTED) if export.message_id]
        complete = True
        exports = []
        for export in waiting:
            try:
                export = self._track(export)  # noqa: PLW2901 - the same export, moved on
            except Unauthorised:
                raise
            except MeshError as error:
                complete = False
                extra = {"export_id": export.export_id, "message_id": export.message_id}
                logger.warning(f"cannot be tracked now: {error}", extra=extra)
                count("TrackErrors")
            exports.append(export)
        # Read the ledger again: a report may concern an export that was accepted a moment ago.
        reports, unread = self._read_reports()
        summary = [
            {
                "export_id": export.export_id,
                "programme": export.programme,
                "status": str(self.ledger.get(export.programme, export.number).status),
                "message_id": export.message_id,
            }
            for export in exports
        ]
        complete = complete and not unread
        return {"status": "ok" if complete else "incomplete", "exports": summary, "reports": reports}

    def _measure(self) -> None:
        """Say how much waits, and how long the oldest of it; what nobody waits for is 0."""
        now = self.clock()
        waiting = dict.fromkeys(PROGRAMMES, 0)
        for status in _NOT_ACKNOWLEDGED:
            exports = list(self.ledger.by_status(status))
            if metric := _AGES.get(status):
                oldest = min((_since(export) or now for export in exports), default=now)
                gauge(metric, (now - oldest) / timedelta(hours=1))
            if status is not Status.ACCEPTED:
                for export in exports:
                    waiting[export.programme] += export.records
        for programme, records in waiting.items():
            gauge("RecordsWaiting", records, MetricUnit.Count, programme=programme)

    def _track(self, export: DPSExport) -> DPSExport:
        tracking = self.client.track(export.message_id)
        if tracking.status == TrackingStatus.ACKNOWLEDGED:
            return self._move(export, Status.ACKNOWLEDGED)
        if tracking.status in {TrackingStatus.UNDELIVERABLE, TrackingStatus.ERROR}:
            error = {
                "code": tracking.status_code or "",
                "description": tracking.status_description or str(tracking.status),
            }
            return self._move(export, Status.UNDELIVERED, error)
        return export

    def _read_reports(self) -> tuple[int, int]:
        """Read, apply and acknowledge the reports in the inbox; return how many, and how many could not be read."""
        read = unread = 0
        for message_id in list(self.client.inbox()):
            try:
                with self.client.download(message_id) as message:
                    if not message.is_report:
                        continue
                    self._apply(message)
                self.client.acknowledge(message_id)
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

    def _apply(self, report: Message) -> None:
        """Mark the export that a report is about."""
        about = report.linked_message_id
        extra = {
            "message_id": report.message_id,
            "linked_message_id": about,
            "code": report.status_code,
            "description": report.status_description,
        }
        export = _by_message_id(self.ledger.by_status(Status.ACCEPTED), about)
        if export is None:
            logger.warning("report about a message that no accepted export waits for", extra=extra)
            count("ReportsUnmatched")
            return
        error = {"code": report.status_code or "", "description": report.status_description or ""}
        self._move(export, Status.UNDELIVERED, error)

    def _move(self, export: DPSExport, to: Status, error: dict[str, str] | None = None) -> DPSExport:
        try:
            if to is Status.ACKNOWLEDGED:
                export = self.ledger.acknowledge(export)
            else:
                export = self.ledger.undeliver(export, error or {})
        except LedgerConflict:
            logger.info("another run has heard this before", extra={"export_id": export.export_id})
            return self.ledger.get(export.programme, export.number)
        extra = {"export_id": export.export_id, "message_id": export.message_id, **(error or {})}
        if to is Status.ACKNOWLEDGED:
            logger.info("DPS has picked the export up", extra=extra)
            count("ExportsAcknowledged", programme=export.programme)
        else:
            logger.error("export was not delivered", extra=extra)
            count("ExportsUndelivered", programme=export.programme)
        return export


def _since(export: DPSExport) -> datetime | None:
    """Return when an export came into one of the states of `_AGES`."""
    return export.sent_at if export.status is Status.ACCEPTED else export.pending_since or export.created_at


def _by_message_id(exports: Iterable[DPSExport], message_id: str | None) -> DPSExport | None:
    return next((export for export in exports if message_id and export.message_id == message_id), None)
