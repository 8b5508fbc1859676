"""Reconcile: every day, find the uploads that were forgotten, and queue them.

An upload is announced by an event. Where that never arrives, the upload lies in the bucket and nobody notices. So each
version under ``incoming/`` that has been there for an hour is looked up: it has an intake in the register, or a receipt
if it was rejected as a whole. One that has neither is put into the queue, as its event would have done. That does no
harm to one that waits there already, or is a dead letter: an upload is ingested once.

After the tables were put back to an earlier moment (``restored``) the ledger and the register are put right first
(`vaccinations.jobs.restoring`). Then every upload without an intake is queued, however young, also where it has the
receipt of one that was ingested: the register has forgotten that. One that was rejected as a whole, or that a person
has abandoned, stays so. Uploads that were under way are gone on with, and what people have decided since about parked
ones is asked for again.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import batched
from typing import TYPE_CHECKING, Any, Self

from vaccinations.jobs.restoring import Restoring
from vaccinations.model.problems import ASKED, TRUE_OR_FALSE, check_event
from vaccinations.ports import IntakeGone
from vaccinations.results import ENDED, QueuedUpload, ReconcileRun
from vaccinations.telemetry import MetricUnit, count, gauge, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vaccinations.ports import Bucket, Ledger, Queue, Register, StoredUpload
    from vaccinations.results import ParkedUpload

__all__ = ["Reconcile", "ReconcileRequest"]

#: So many uploads are looked for at once.
AT_ONCE = 500
#: A run ends while so many seconds of the function's time are left.
SECONDS_TO_END = 30.0
#: So many of the uploads that were queued are named in the answer.
MOST_NAMED = 100


@dataclass(frozen=True, slots=True)
class ReconcileRequest:
    """What a run is asked to do.

    Attributes
    ----------
    dry_run
        Only say what would be queued.
    minutes
        How old an upload has to be to count as forgotten.
    restored
        Whether the tables were put back to an earlier moment.
    """

    dry_run: bool = False
    minutes: int = 60
    restored: bool = False

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read a request from a Lambda event.

        Raises
        ------
        InvalidEvent
            A key is unknown or its value is not allowed.
        """
        minutes = (lambda value: type(value) is int and value >= 0, "must be a whole number, 0 or more")
        rules = {"dry_run": TRUE_OR_FALSE, "minutes": minutes, "restored": TRUE_OR_FALSE, "asked": ASKED}
        check_event(event, rules)
        return cls(**{name: value for name, value in event.items() if name != "asked"})


@dataclass(frozen=True, slots=True)
class Reconcile:
    """The use case, on its ports.

    Attributes
    ----------
    seconds_left
        Tells how many seconds it may still run.
    clock
        Tells the time, with its offset.
    """

    bucket: Bucket
    register: Register
    ledger: Ledger
    queue: Queue
    seconds_left: Callable[[], float]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self, request: ReconcileRequest) -> ReconcileRun:
        """Do one run."""
        plan = self._restoring.plan() if request.restored else []
        complete = request.dry_run or self._restoring.apply(plan, self._is_up)
        looked_at = 0
        found: list[tuple[QueuedUpload, Callable[[], None]]] = []
        for uploads in batched(self._old(request), AT_ONCE):
            if not complete or self._is_up():
                complete = False
                break
            looked_at += len(uploads)
            found += ((upload, partial(self._queue, upload)) for upload in self._forgotten(uploads, request))
        if complete and request.restored:
            found += self._begun(dry_run=request.dry_run)
        # The oldest first: a record is whose it was first.
        found.sort(key=lambda each: each[0].uploaded_at)
        for _, queue in () if request.dry_run else found:
            queue()
        run = ReconcileRun(
            status="ok" if complete else "incomplete",
            dry_run=request.dry_run,
            looked_at=looked_at,
            queued=len(found),
            uploads=tuple(upload for upload, _ in found[:MOST_NAMED]),
            exports=tuple(export for put_back in plan for export in put_back.report()),
            passed_over={each.programme: each.highest for each in plan if each.highest > each.passed},
        )
        self._tell(run)
        return run

    def _tell(self, run: ReconcileRun) -> None:
        for export in run.exports:
            extra = {"export_id": export.export_id, "was": export.was, "attempt": export.attempt, "moved": export.moved}
            logger.warning("an export went further than the ledger knew", extra=extra | {"dry_run": run.dry_run})
        complete = run.status == "ok"
        extra = {"looked_at": run.looked_at, "queued": run.queued, "dry_run": run.dry_run, "complete": complete}
        (logger.info if complete else logger.warning)("uploads reconciled", extra=extra)
        if not run.dry_run:
            count("UploadsQueuedAgain", run.queued)
            gauge("UploadsStillParked", len(self.register.parked()), MetricUnit.Count)

    @property
    def _restoring(self) -> Restoring:
        return Restoring(self.bucket, self.register, self.ledger, self.clock)

    def _is_up(self) -> bool:
        return self.seconds_left() < SECONDS_TO_END

    def _old(self, request: ReconcileRequest) -> Iterator[StoredUpload]:
        before = self.clock() - timedelta(minutes=0 if request.restored else request.minutes)
        return (upload for upload in self.bucket.uploads() if upload.uploaded_at <= before)

    def _forgotten(self, uploads: Sequence[StoredUpload], request: ReconcileRequest) -> Iterator[QueuedUpload]:
        """Return those of some uploads that have no intake, and no receipt that tells why."""
        by_id = {self.bucket.batch_id(upload.key, upload.version): upload for upload in uploads}
        known = self.register.with_intake(by_id)
        for batch_id, upload in by_id.items():
            if batch_id in known:
                continue
            receipt = self.bucket.receipt(upload.key, batch_id)
            if receipt is None or (request.restored and receipt.status not in ENDED):
                uploaded_at = upload.uploaded_at.astimezone(UTC).isoformat(timespec="seconds")
                yield QueuedUpload(
                    batch_id=batch_id, upload=upload.key, version=upload.version, uploaded_at=uploaded_at
                )

    def _begun(self, *, dry_run: bool) -> Iterator[tuple[QueuedUpload, Callable[[], None]]]:
        """Return uploads that are under way or parked and that nobody would go on with, and what has Ingest do it.

        For a parked one that is what a person has decided since, or to ingest afresh what the run has put back.
        """
        for batch_id in (*self.register.unfinished(), *self.register.parked()):
            with suppress(IntakeGone):
                stored = self.bucket.intake(batch_id)
                upload = QueuedUpload(
                    batch_id=batch_id,
                    upload=stored.upload,
                    version=stored.version,
                    uploaded_at=stored.receipt.uploaded_at,
                )
                if stored.parked is None or stored.parked.status != "parked":
                    if stored.parked and batch_id not in self.register.parked() and not dry_run:
                        self.register.park(batch_id)  # before anything is ingested, and this completed
                    yield upload, partial(self._go_on, upload, stored.parked)

    def _go_on(self, upload: QueuedUpload, parked: ParkedUpload | None) -> None:
        if parked and parked.status == "abandoned":
            self.queue.ask("abandon", upload.batch_id, parked.reason, parked.by)
        elif upload.batch_id in self.register.parked():
            reason, by = (parked.reason, parked.by) if parked else ("the tables were restored", "")
            self.queue.ask("retry", upload.batch_id, reason, by)
        else:
            self.queue.announce(upload.upload, upload.version, upload.batch_id)

    def _queue(self, upload: QueuedUpload) -> None:
        self.queue.announce(upload.upload, upload.version, upload.batch_id)
        logger.warning(
            "a forgotten upload is queued", extra={"batch_id": upload.batch_id, "uploaded_at": upload.uploaded_at}
        )
