"""Reconcile: every day, find the uploads that were forgotten, and queue them.

An upload is announced by an event. Where that never arrives, the upload lies in the bucket and nobody notices. So each
version under ``incoming/`` that has been there for an hour is looked up: it has an intake in the register, or a receipt
if it was rejected as a whole. One that has neither is put into the queue, as its event would have done. That does no
harm to one that waits there already, or is a dead letter: an upload is ingested once.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import UTC, datetime, timedelta
from itertools import batched
from typing import TYPE_CHECKING, Any, Self

from vaccinations.model.problems import InvalidEvent
from vaccinations.results import QueuedUpload, ReconcileRun
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vaccinations.ports import Bucket, Queue, Register, StoredUpload

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
    """

    dry_run: bool = False
    minutes: int = 60

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read a request from a Lambda event.

        Raises
        ------
        InvalidEvent
            A key is unknown or its value is not allowed.
        """
        known = [f.name for f in fields(cls)]
        for key, value in event.items():
            if key not in known:
                raise InvalidEvent(f"unknown key {key!r} in the event; it may hold: {', '.join(known)}")
            if key == "dry_run" and not isinstance(value, bool):
                raise InvalidEvent("'dry_run' must be true or false")
            if key == "minutes" and (type(value) is not int or value < 0):
                raise InvalidEvent("'minutes' must be a whole number, 0 or more")
        return cls(**event)


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
    queue: Queue
    seconds_left: Callable[[], float]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self, request: ReconcileRequest) -> ReconcileRun:
        """Do one run."""
        looked_at = queued = 0
        named: list[QueuedUpload] = []
        complete = True
        for uploads in batched(self._old(request.minutes), AT_ONCE):
            if self.seconds_left() < SECONDS_TO_END:
                complete = False
                break
            looked_at += len(uploads)
            for upload in self._forgotten(uploads):
                queued += 1
                named += [upload] if len(named) < MOST_NAMED else []
                if not request.dry_run:
                    self._queue(upload)
        extra = {"looked_at": looked_at, "queued": queued, "dry_run": request.dry_run, "complete": complete}
        (logger.info if complete else logger.warning)("uploads reconciled", extra=extra)
        if not request.dry_run:
            count("UploadsQueuedAgain", queued)
        return ReconcileRun(
            status="ok" if complete else "incomplete",
            dry_run=request.dry_run,
            looked_at=looked_at,
            queued=queued,
            uploads=tuple(named),
        )

    def _old(self, minutes: int) -> Iterator[StoredUpload]:
        before = self.clock() - timedelta(minutes=minutes)
        return (upload for upload in self.bucket.uploads() if upload.uploaded_at <= before)

    def _forgotten(self, uploads: Sequence[StoredUpload]) -> Iterator[QueuedUpload]:
        """Return those of some uploads that have neither intake nor receipt."""
        by_id = {self.bucket.batch_id(upload.key, upload.version): upload for upload in uploads}
        known = self.register.with_intake(by_id)
        for batch_id, upload in by_id.items():
            if batch_id not in known and self.bucket.receipt(upload.key, batch_id) is None:
                uploaded_at = upload.uploaded_at.astimezone(UTC).isoformat(timespec="seconds")
                yield QueuedUpload(
                    batch_id=batch_id, upload=upload.key, version=upload.version, uploaded_at=uploaded_at
                )

    def _queue(self, upload: QueuedUpload) -> None:
        self.queue.announce(upload.upload, upload.version, upload.batch_id)
        logger.warning(
            "a forgotten upload is queued", extra={"batch_id": upload.batch_id, "uploaded_at": upload.uploaded_at}
        )
