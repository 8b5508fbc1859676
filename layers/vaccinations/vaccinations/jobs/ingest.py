"""Ingest an upload: check every row, remember what it says, queue what DPS has to be told.

The order of effects is what makes it safe to die anywhere and be run again:

1. every row is checked and decided on (`vaccinations.model.decide`), without writing anything to a store;
2. the batch objects (one a programme), the rejects file and the intake go to the bucket, complete;
3. the register notes the intake: from here on the batch objects are a write-ahead log;
4. the records are registered; each batch is attached to its programme's open export, in one transaction; where a
   request requeues an export, that is over now;
5. the receipt is written, and the intake is finished.

Dying before 3 leaves nothing that anybody refers to; dying after 3 leaves an unfinished intake, which the repeated
event, or the next upload, whichever comes first, finishes before it looks at the register. The queue hands over one
upload at a time.

A run that was frozen may wake up when others have done its work, and newer uploads have changed its records since. So
it asks before it stores its batches, and before each chunk of records that it registers, how far the intake is by now.
What another run has done it leaves alone, and what another has parked, too. Where any other upload was begun since it
looked at the register, it begins nothing: the upload is read anew.

An intake that cannot be completed, at three tries, is *parked*, and everybody else goes on. Its batches that are in no
export are never sent: of their records, what was known before the upload counts, and how old that is. What the upload
says that DPS knows already stays said. A person has the upload ingested afresh, as another intake, or abandons it.

Requests (`vaccinations.formats.requests`) go the same way.

Last, its team is told what became of an upload: once, when it has come to its end, and as best we can.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import batched
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from vaccinations.formats.batches import batch_line, entry_of, person_of, repeat_line
from vaccinations.formats.requests import ALREADY_SENT, REQUESTS, read_resend, requeued
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.jobs.spool import Spool
from vaccinations.model import entry as model
from vaccinations.model import lifecycle
from vaccinations.model.decide import (
    Absent,
    Columns,
    Known,
    Overtaken,
    Queue,
    Reject,
    Skip,
    Unchanged,
    UploadFacts,
    decide,
)
from vaccinations.model.entry import age_of
from vaccinations.model.export import Status
from vaccinations.model.lifecycle import Event, ImpossibleMove
from vaccinations.model.london import day_in_london
from vaccinations.model.outcome import OnFile
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.programmes import is_ods_code
from vaccinations.model.row import Faulty, Lost, Nobody, Row, SendAgain, Vaccinated, Withdrawn
from vaccinations.model.uploaders import Uploaders, uploader_of
from vaccinations.ports import BatchGone, IntakeGone, UploadGone
from vaccinations.prefetch import prefetch
from vaccinations.results import ENDED, ParkedUpload, Receipt, RejectedUpload, StoredIntake, UploadFinished
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from vaccinations.model.entry import Entry, Intake
    from vaccinations.model.export import Asked
    from vaccinations.ports import Bucket, Ledger, Register, StoredUpload, Upload
    from vaccinations.results import AnyReceipt, ForTeam, Uploader

__all__ = ["Ingest", "OlderParked", "rows_of"]

_INCOMING = "incoming/"
_ROWS_AT_ONCE = 1000
#: So many lines of each kind of remark are in a receipt; beyond that rows are only counted.
MOST_LINES = 20
#: So often it is tried to complete an intake before it is parked.
MOST_TRIES = 3


class OlderParked(Exception):
    """Whose a record is cannot be told before a person has settled an older upload, which is parked."""


@dataclass(frozen=True, slots=True)
class Ingest:
    """The use case, over its stores.

    Attributes
    ----------
    clock
        Tells the time, with its offset; for tests.
    uploaders
        Who may state for whom, and change whose records.
    tell
        Tells a team what became of its upload; it never raises.
    """

    bucket: Bucket
    register: Register
    ledger: Ledger
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    uploaders: Uploaders = field(default_factory=Uploaders)
    tell: Callable[[ForTeam], None] = lambda _: None

    def ingest(self, key: str, version: str, uploader: Uploader | None = None) -> AnyReceipt:
        """Ingest one upload, wherever an earlier try at it stopped; return its receipt.

        Parameters
        ----------
        key, version
            The object under ``incoming/`` as its event names it, and its version id, empty in a bucket without
            versions.
        uploader
            Who uploaded it, as its event says.

        Raises
        ------
        UploadGone
            There is no such object: the message goes to the dead-letter queue, for a person to look at.
        OlderParked
            A row is about another's record, and an older upload of either is parked: likewise.
        """
        key = self._key(key, version)
        return self._ingest(key, version, self.bucket.batch_id(key, version), uploader=uploader)

    def _ingest(
        self,
        key: str,
        version: str,
        batch_id: str,
        waiting: frozenset[str] = frozenset(),
        uploader: Uploader | None = None,
    ) -> AnyReceipt:
        logger.append_keys(batch_id=batch_id)
        intake = self.register.intake(batch_id)
        if intake and (intake.finished or intake.parked):
            logger.info("the upload was ingested before; nothing to do", extra={"parked": intake.parked})
            return self._receipt(key, version, batch_id)
        self._complete_others(batch_id)
        if intake is None:
            try:
                self._read(key, version, batch_id, waiting, uploader)
            except UnreadableUpload as unreadable:
                return self._reject(key, version, batch_id, unreadable, uploader)
        if self._complete_or_park(batch_id):
            return self.bucket.intake(batch_id).receipt
        return self._receipt(key, version, batch_id)

    def _receipt(self, key: str, version: str, batch_id: str) -> AnyReceipt:
        """Return the receipt of an intake that is finished or parked, as far as anything was stored of it."""
        try:
            stored = self.bucket.intake(batch_id)
        except IntakeGone:
            return replace(self._nameless(batch_id), upload=key, version=version)
        return stored.parked or stored.receipt

    @staticmethod
    def _nameless(batch_id: str) -> ParkedUpload:
        """Make the receipt of a parked upload of which nothing is stored."""
        return ParkedUpload(batch_id=batch_id, upload="", version="", parked_at="", exports={})

    # -- what a person does about a parked upload

    def retry(self, batch_id: str, reason: str, by: str = "") -> AnyReceipt:
        """Ingest a parked upload afresh, as another intake; return its receipt. Of others only the receipt is returned.

        Raises
        ------
        IntakeGone
            Nobody knows which upload it was: it has to be uploaded again.
        UploadGone
            Its file is no longer there. It stays parked, to be abandoned.
        """
        stored = self.bucket.intake(batch_id)
        if not self._waits(batch_id):
            return stored.parked or stored.receipt
        again = self.bucket.batch_id(stored.upload, stored.version, retry_of=batch_id)
        receipt = self._ingest(stored.upload, stored.version, again, frozenset({batch_id}), stored.receipt.uploader)
        logger.append_keys(batch_id=batch_id)
        self._settle(stored, status="retried", retried_as=again, reason=reason, by=by)
        return receipt

    def abandon(self, batch_id: str, reason: str, by: str = "") -> AnyReceipt:
        """End a parked upload: its rows that are in no export are never sent. Return its receipt.

        A retry of it that has died on the way ends with it. One that is complete counts.
        """
        if not self._waits(batch_id):
            return self._receipt("", "", batch_id)
        try:
            stored = self.bucket.intake(batch_id)
        except IntakeGone:
            self.register.finish(batch_id, parked=True)
            nameless = self._nameless(batch_id)
            return replace(nameless, status="abandoned", reason=reason, by=by, decided_at=self._now())
        again = self.bucket.batch_id(stored.upload, stored.version, retry_of=batch_id)
        begun = self.register.intake(again)
        if begun is None:
            return self._settle(stored, status="abandoned", reason=reason, by=by)
        if begun.finished and not begun.parked:
            return self._settle(stored, status="retried", retried_as=again, reason=reason, by=by)
        if not begun.finished:
            if not begun.parked:
                self.register.park(again)
            replace(self, tell=lambda _: None).abandon(again, reason, by)  # it is the same upload, and told of once
        exports = {**self._parked_upload(stored).exports, **self._parked_upload(self.bucket.intake(again)).exports}
        return self._settle(stored, status="abandoned", reason=reason, by=by, exports=exports)

    def _waits(self, batch_id: str) -> bool:
        """Tell whether an upload is parked and waits for a person."""
        if batch_id in self.register.parked():
            return True
        logger.warning("the upload is not parked; nothing to do", extra={"batch_id": batch_id})
        return False

    def _settle(self, stored: StoredIntake, **how: Any) -> ParkedUpload:
        """Write down what a person decided about a parked upload."""
        settled = replace(stored.parked or self._parked_upload(stored), decided_at=self._now(), **how)
        self.bucket.put_intake(settled.batch_id, replace(stored, parked=settled))
        receipt_key = self.bucket.put_receipt(settled.upload, settled.batch_id, settled)
        self.register.finish(settled.batch_id, parked=True)
        asked = {"asked_by": settled.by, "asked_because": settled.reason}
        extra = {"status": settled.status, "retried_as": settled.retried_as, **asked}
        logger.info("parked upload settled", extra=extra)
        if settled.status == "abandoned":
            self._tell_team(settled, receipt_key)
        return settled

    def _key(self, key: str, version: str) -> str:
        """Return the key of the object that an event names.

        EventBridge's events name it as it is. S3's own notifications write ``+`` and ``%`` for some characters; that
        reading counts only where there is no such object as named.
        """
        other = unquote_plus(key)
        if other == key or self._is_there(key, version) or not self._is_there(other, version):
            return key
        return other

    def _is_there(self, key: str, version: str) -> bool:
        """Tell whether there is an upload, or was one that has got as far as the register."""
        return self.bucket.has(key, version) or self.register.intake(self.bucket.batch_id(key, version)) is not None

    # -- steps 1 to 3

    def _read(self, key: str, version: str, batch_id: str, waiting: frozenset[str], uploader: Uploader | None) -> None:
        """Decide on every row; leave the batches, the rejects file and the intake behind.

        Where a row is about another's record, the uploads of both that are older and were never ingested come first:
        whose the record is may follow from them.

        Parameters
        ----------
        waiting
            The uploads that wait for this one to be ingested, by batch id.

        Raises
        ------
        UnreadableUpload
            Nothing of it can be ingested, and nothing is left behind.
        UploadGone
            It is not there.
        OlderParked
            One of those uploads is parked.
        """
        waiting |= {batch_id}
        while older := self._begin(key, version, batch_id, waiting, uploader):
            for older_id, upload in older.items():
                logger.warning("an older upload comes first", extra={"waiting": batch_id, "older": older_id})
                self._ingest(upload.key, upload.version, older_id, waiting)
            logger.append_keys(batch_id=batch_id)
            waiting |= older.keys()

    def _begin(
        self, key: str, version: str, batch_id: str, waiting: frozenset[str], uploader: Uploader | None
    ) -> Mapping[str, StoredUpload]:
        """Do so, or leave nothing behind and return the uploads that come first, by id. It raises what `_read` does."""
        source = self._source(key)
        begun = self.register.begun()
        with ExitStack() as stack:
            upload = self._open(key, version)
            stack.enter_context(closing(upload.body))
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            spool = stack.enter_context(Spool(directory, upload.uploaded_at, source.named))
            facts = self._facts(upload, batch_id, source)
            pass_ = _Pass(self.bucket, spool, facts, self.register.unsent(), frozenset(self.register.parked()))
            self._decide(source.rows(upload), pass_)
            spool.close()
            if older := self._older(pass_, waiting):
                return older
            if self.register.intake(batch_id):
                logger.warning("another run has ingested the upload meanwhile")
                return {}
            rejects = self._store(key, batch_id, spool)
            # What an upload says stays true if the run dies here; said again, it changes nothing.
            said_again = spool.seen.said_again(batch_id)
            if requeued(key):
                self.register.hear(replace(entry, on_file=OnFile.NO, refusal=None) for entry in said_again)
            else:
                self.register.renew(said_again)
        receipt = pass_.receipt(upload, uploader, rejects)
        stored = StoredIntake(upload=key, version=version, receipt=receipt, columns=source.named)
        self.bucket.put_intake(batch_id, stored, lambda: self.register.intake(batch_id) is None)
        batches = {programme: batch.actions.total() for programme, batch in spool.batches.items()}
        self.register.begin(batch_id, batches, begun, sends=not source.already_sent)
        return {}

    def _older(self, pass_: _Pass, waiting: frozenset[str]) -> dict[str, StoredUpload]:
        """Find the uploads that may tell whose the records are, were never ingested, and are older: the oldest first.

        Raises
        ------
        OlderParked
            One of them is parked.
        """
        if not pass_.contested:
            return {}
        folders = [folder for folder in self.bucket.folders() if folder.upper() in pass_.contested]
        stored = [each for folder in folders for each in self.bucket.uploads(folder)]
        there: dict[tuple[str, str], tuple[str, StoredUpload]] = {}
        places: Counter[tuple[str, datetime]] = Counter()
        for each in reversed(stored):  # the oldest version of each object first
            second = each.key, each.uploaded_at.replace(microsecond=0)
            age = age_of(each.uploaded_at, each.key, places[second])
            places[second] += 1
            if age < pass_.upload.stated_at and age <= pass_.owned_since:
                there[each.key, each.version] = age, each
        for parked in pass_.parked - waiting:
            key, version = self._upload_of(parked)
            if (key, version) in there and _source(key).organisation_code in pass_.doubtful:
                raise OlderParked(
                    f"an older upload, {parked}, is parked: see mesh uploads --status parked; then redrive this one"
                )
        in_order = [each for _, each in sorted(there.values(), key=itemgetter(0))]
        older = {self.bucket.batch_id(each.key, each.version): each for each in in_order}
        known = self.register.with_intake(older) | waiting
        return {i: each for i, each in older.items() if i not in known and not self._has_ended(each, i)}

    def _upload_of(self, batch_id: str) -> tuple[str, str]:
        """Return key and version of the upload of an intake; of one that nobody knows, nothing."""
        try:
            stored = self.bucket.intake(batch_id)
        except IntakeGone:
            return "", ""
        return stored.upload, stored.version

    def _has_ended(self, upload: StoredUpload, batch_id: str) -> bool:
        receipt = self.bucket.receipt(upload.key, batch_id)
        return receipt is not None and receipt.status in ENDED

    def _facts(self, upload: Upload, batch_id: str, source: _Source) -> UploadFacts:
        return UploadFacts(
            batch_id,
            upload.uploaded_at,
            model.ALREADY_SENT if source.already_sent else age_of(upload.uploaded_at, upload.key, upload.place),
            source.organisation_code,
            self.uploaders,
            source.columns,
            source.already_sent,
        )

    def _source(self, key: str) -> _Source:
        """Tell how an upload or a request is read.

        Raises
        ------
        UnreadableUpload
            Its key tells nothing of the kind; or it asks for what cannot be done.
        """
        if export := requeued(key):
            return _Source("", lambda _: self._lost(*export))
        return _source(key)

    def _lost(self, programme: str, number: int) -> Iterator[Row]:
        """Read the rows of an export that is to be requeued; none where it was before.

        Raises
        ------
        UnreadableUpload
            It is not to be requeued.
        """
        try:
            export = self.ledger.get(programme, number)
        except KeyError:
            raise UnreadableUpload(f"there is no export {programme}-{number}", "see: mesh exports") from None
        if export.status is Status.REQUEUED:
            return
        if not any(move.event is Event.REQUEUE for move in lifecycle.possible(export)):
            raise UnreadableUpload(
                f"{export.export_id} is {export.status}, and DPS has not refused it as a whole",
                "for records that DPS refused: mesh refused",
            )
        place = 0
        for batch_id in export.batches:
            try:
                with closing(self.bucket.batch_lines(programme, batch_id)) as lines:
                    for place, line in enumerate(lines, place + 1):  # noqa: B020 - rows are counted over all batches
                        entry = entry_of(line, batch_id)
                        yield Lost(place, entry.record_id, entry.statement, entry.action)
            except BatchGone:
                raise UnreadableUpload(
                    f"what {export.export_id} sent is no longer kept",
                    "upload its vaccinations once more, each with something corrected",
                ) from None

    def _open(self, key: str, version: str) -> Upload:
        try:
            return self.bucket.open_upload(key, version)
        except UploadGone:
            # No receipt: the event may name the object in a way that nobody here reads, and then not its uploader's.
            count("UploadsMissing")
            logger.error("the upload is not there; its message goes to the dead-letter queue")
            raise

    def _decide(self, rows: Iterator[Row], pass_: _Pass) -> None:
        """Decide on rows, while the register is asked for what it knows of the next ones."""
        chunks = prefetch(self._look_up, batched(rows, _ROWS_AT_ONCE), depth=1)
        with closing(chunks):
            for chunk, registered in chunks:
                pass_.decide(chunk, registered)

    def _look_up(self, rows: Sequence[Row]) -> tuple[Sequence[Row], dict[str, Entry]]:
        """Return rows, and what the register knows of their records."""
        return rows, self.register.get({row.record_id for row in rows if not isinstance(row, Faulty | Nobody)})

    def _store(self, key: str, batch_id: str, spool: Spool) -> str | None:
        """Store what a pass has left in files; return the key of the rejects file, where there is one."""
        for programme, batch in spool.batches.items():
            self.bucket.put_batch(
                programme, batch_id, batch.lines, batch.rows, lambda: self.register.intake(batch_id) is None
            )
        return self.bucket.put_rejects(key, batch_id, spool.rejects) if spool.rejected else None

    # -- steps 4 and 5

    def _complete_others(self, batch_id: str) -> None:
        """Complete the uploads that came before and were left unfinished."""
        for unfinished in self.register.unfinished():
            if unfinished != batch_id:
                logger.info("completing an earlier upload first", extra={"unfinished": unfinished})
                self._complete_or_park(unfinished)

    def _complete_or_park(self, batch_id: str) -> bool:
        """Complete an intake; park it where it could not be completed too often. Tell whether it is complete."""
        tried = self.register.count_try(batch_id)
        if tried <= MOST_TRIES:  # else the last ones died
            try:
                self._complete(batch_id)
            except Exception:
                if tried < MOST_TRIES:
                    raise
                logger.exception("the upload cannot be completed", extra={"unfinished": batch_id})
            else:
                return True
        self._park(batch_id)
        return False

    def _park(self, batch_id: str) -> None:
        """Give an intake up, and tell its uploader and whoever watches; unless another run has ended it meanwhile."""
        intake = self.register.intake(batch_id)
        if intake and (intake.parked or intake.finished):
            return
        try:
            stored = self.bucket.intake(batch_id)
            self.bucket.put_parked(self._parked_upload(stored))
        except Exception:  # noqa: BLE001 - what keeps it from being completed may be just this
            logger.exception("the uploader cannot be told that the upload is parked", extra={"parked": batch_id})
        self.register.park(batch_id)
        count("UploadsParked")
        logger.error("upload parked", extra={"parked": batch_id})

    def _parked_upload(self, stored: StoredIntake) -> ParkedUpload:
        intake = self.register.intake(stored.receipt.batch_id)
        return ParkedUpload(
            batch_id=stored.receipt.batch_id,
            upload=stored.upload,
            version=stored.version,
            parked_at=self._now(),
            exports=_exports(intake.attached if intake else {}),
            uploader=stored.receipt.uploader,
        )

    def _complete(self, batch_id: str) -> None:
        """Register, attach and write the receipt of an upload whose batches are complete."""
        intake = self._intake(batch_id)
        for programme in intake.unattached:
            self._register(programme, batch_id)
            if intake.sends:
                self._attach(programme, batch_id, intake.batches[programme])
        stored = self.bucket.intake(batch_id)
        intake = self._intake(batch_id)
        if intake.parked:
            raise _parked_meanwhile(batch_id)
        if export := requeued(stored.upload):
            self._end(*export, stored)
        if intake.finished:
            return
        receipt = replace(stored.receipt, exports=_exports(intake.attached), completed_at=self._now())
        self.bucket.put_intake(batch_id, replace(stored, receipt=receipt, parked=None))
        receipt_key = self.bucket.put_receipt(stored.upload, batch_id, receipt)
        self.register.finish(batch_id)
        _tell(receipt)
        self._tell_team(receipt, receipt_key)

    def _intake(self, batch_id: str) -> Intake:
        intake = self.register.intake(batch_id)
        if intake is None:
            raise LookupError(f"the intake of {batch_id} is not there")
        return intake

    def _register(self, programme: str, batch_id: str) -> None:
        """Register a batch's records, unless another run has: then they are registered, or changed since.

        Raises
        ------
        RuntimeError
            It is parked by now: it is never attached.
        """
        with closing(self.bucket.batch_lines(programme, batch_id)) as lines:
            for chunk in batched((entry_of(line, batch_id) for line in lines), _ROWS_AT_ONCE):
                intake = self._intake(batch_id)
                if intake.parked:
                    raise _parked_meanwhile(batch_id)
                if programme in intake.attached or intake.finished:
                    logger.warning("another run has registered the batch meanwhile", extra={"programme": programme})
                    return
                self.register.put(chunk)

    def _attach(self, programme: str, batch_id: str, records: int) -> None:
        number = self.ledger.attach(programme, batch_id, records)
        if number is not None:
            extra = {"export_id": f"{programme}-{number}", "records": records, "programme": programme}
            logger.info("batch attached", extra=extra)

    def _end(self, programme: str, number: int, stored: StoredIntake) -> None:
        """Note that an export is requeued, unless that was noted before."""
        now = self.clock()
        try:
            export = self.ledger.get(programme, number)
            request, asked = stored.upload, stored.receipt.asked
            self.ledger.change(export, lambda current: lifecycle.requeue(current, request, now, asked))
        except (KeyError, ImpossibleMove):
            logger.info("the export was requeued before", extra={"export_id": f"{programme}-{number}"})
        else:
            extra = {"export_id": export.export_id, "records": export.records}
            logger.warning("export requeued", extra=extra | _told(asked))
            count("ExportsRequeued", programme=programme)

    # -- receipts

    def _reject(
        self, key: str, version: str, batch_id: str, unreadable: UnreadableUpload, uploader: Uploader | None
    ) -> RejectedUpload:
        receipt = RejectedUpload(
            batch_id=batch_id,
            upload=key,
            version=version,
            reason=unreadable.reason,
            fix=unreadable.fix,
            completed_at=self._now(),
            uploader=uploader,
        )
        told = self.bucket.receipt(key, batch_id) is not None
        receipt_key = self.bucket.put_receipt(key, batch_id, receipt)
        count("UploadsRejected")
        logger.warning("upload rejected as a whole", extra={"reason": unreadable.reason})
        if not told:
            self._tell_team(receipt, receipt_key)
        return receipt

    def _tell_team(self, receipt: AnyReceipt, receipt_key: str) -> None:
        """Tell the team in whose folder an upload is what became of it; of requests nobody is told."""
        if organisation := uploader_of(receipt.upload):
            self.tell(_finished(receipt, receipt_key, organisation, self._now()))

    def _now(self) -> str:
        return _stamp(self.clock())


def _parked_meanwhile(batch_id: str) -> RuntimeError:
    return RuntimeError(f"another run has parked {batch_id} meanwhile")


def _exports(attached: Mapping[str, int]) -> dict[str, str]:
    """Name the export that each programme's batch is in."""
    return {programme: f"{programme}-{number}" for programme, number in attached.items()}


def _stamp(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def _told(asked: Asked | None) -> dict[str, str]:
    """Return what a log line says of who asked for something, and why."""
    return {"asked_by": asked.by, "asked_because": asked.reason} if asked else {}


def _tell(receipt: Receipt) -> None:
    """Log and count what became of an upload."""
    accepted = {programme: sum(actions.values()) for programme, actions in receipt.accepted.items()}
    extra = {
        "accepted": accepted,
        "exports": receipt.exports,
        "rows": receipt.rows,
        "unchanged": receipt.unchanged,
        "overtaken": receipt.overtaken,
        "skipped": receipt.skipped,
        "rejected": receipt.rejected,
    }
    logger.info("upload ingested", extra=extra | _told(receipt.asked))
    count("Uploads")
    count("RowsAccepted", sum(accepted.values()))
    count("RowsUnchanged", receipt.unchanged)
    count("RowsOvertaken", receipt.overtaken)
    count("RowsRejected", receipt.rejected)


def _finished(receipt: AnyReceipt, receipt_key: str, organisation: str, now: str) -> UploadFinished:
    """Make what a team is told of an upload that has come to its end."""
    status: Any = receipt.status
    counts: dict[str, int | None] = dict.fromkeys(("rows", *_COUNTED))
    rejects = None
    match receipt:
        case Receipt():
            accepted = sum(sum(actions.values()) for actions in receipt.accepted.values())
            counts = {"rows": receipt.rows, "accepted": accepted}
            counts |= {name: getattr(receipt, name) for name in _COUNTED if name != "accepted"}
            rejects = receipt.rejects
            told = ", ".join(f"{counts[name]} {name}" for name in _COUNTED)
            summary = f"{receipt.rows} {'row' if receipt.rows == 1 else 'rows'}: {told}. "
            place = f"rejected/{organisation}/(name of your file)/{receipt.batch_id}.csv"
            summary += f"What is wrong with the rejected rows, and what to do: {place}" if rejects else "Nothing to do."
        case RejectedUpload():
            summary = f"The file was rejected as a whole: {receipt.reason}. What to do: {receipt.fix}."
        case _:
            summary = (
                "The file was ended by a person before all its rows were queued. Its receipt says why, and which rows "
                "are sent all the same. Ask those who run the service whether to upload it again."
            )
    return UploadFinished(
        organisation=organisation,
        batch_id=receipt.batch_id,
        status=status,
        **counts,
        receipt=receipt_key,
        rejects=rejects,
        finished_at=now,
        summary=summary,
    )


#: What a team is told the number of, of an upload's rows.
_COUNTED = ("accepted", "unchanged", "overtaken", "skipped", "rejected")


# -- whose upload it is, and how it is read


#: A request names records and nothing else.
_NO_COLUMNS = Columns("", "", "", "", "", "")


@dataclass(frozen=True, slots=True)
class _Source:
    """Whose upload it is, how it is read, and what the uploader calls the columns.

    Attributes
    ----------
    organisation_code
        The folder's; empty for a request that is nobody's upload.
    already_sent
        Whether another system has sent to DPS what it holds.
    named
        What its header calls columns, where that is not as we do; filled in once rows are read.
    """

    organisation_code: str
    rows: Callable[[Upload], Iterator[Row]]
    columns: Columns = _NO_COLUMNS
    already_sent: bool = False
    named: dict[str, str] = field(default_factory=dict)


#: By what a name ends in: how such an upload is read, and what its columns are called.
_CSV_COLUMNS = Columns("UUID", "ORGANISATION_CODE", "TIME_OF_VACCINATION", "PROGRAMME", "VACCINATED", "VACCINATED = No")
_JSON_COLUMNS = Columns("uuid", "organisation_code", "vaccinated_at", "programme", "deleted", '"deleted": true')
_KINDS: Mapping[str, tuple[Callable[..., Iterator[Row]], Columns]] = {
    ".csv": (read_csv, _CSV_COLUMNS),
    ".jsonl": (read_jsonl, _JSON_COLUMNS),
    ".jsonl.gz": (read_jsonl, _JSON_COLUMNS),
}


def _source(key: str) -> _Source:
    """Tell from an object's key whose upload it is and how it is read.

    Raises
    ------
    UnreadableUpload
        The key is not ``incoming/{ODS code}/{name}``, or the name does not end as one of the kinds does.
    """
    if key.startswith(REQUESTS) and not key.startswith(ALREADY_SENT):
        if key.endswith(".resend"):
            return _Source("", lambda upload: read_resend(upload.body))
        raise UnreadableUpload("this is no request", f"see what may stand in {REQUESTS}: docs/architecture.md")
    already_sent = key.startswith(ALREADY_SENT)
    organisation_code, _, name = key.removeprefix(ALREADY_SENT if already_sent else _INCOMING).partition("/")
    if not name or not is_ods_code(organisation_code):
        raise UnreadableUpload(
            "the folder does not tell whose upload this is",
            "upload it as incoming/{ODS code}/{name}, for example incoming/R1A/monday.csv",
        )
    for ending, (read, columns) in _KINDS.items():
        if name.lower().endswith(ending):
            named: dict[str, str] = {}
            read_named = partial(read, columns=named) if read is read_csv else read
            rows = partial(_rows, read_named, organisation_code)
            return _Source(organisation_code.upper(), rows, columns, already_sent, named)
    if name.lower().endswith((".xlsx", ".xls")):
        raise UnreadableUpload("this is an Excel workbook", "save it as CSV and upload that: File, Save as, CSV UTF-8")
    raise UnreadableUpload(
        "the name does not tell what kind of file this is", "give it a name ending in .csv or .jsonl"
    )


def rows_of(upload: Upload) -> Iterator[Row]:
    """Read the rows of an upload, or of a request that names records.

    Raises
    ------
    UnreadableUpload
        It is neither.
    """
    return _source(upload.key).rows(upload)


def _rows(read: Callable[..., Iterator[Row]], organisation_code: str, upload: Upload) -> Iterator[Row]:
    return read(upload.body, organisation_code=organisation_code.upper(), today=day_in_london(upload.uploaded_at))


# -- one pass over the rows


@dataclass(slots=True)
class _Pass:
    """One pass over an upload: decides on its rows, spools what is accepted or rejected, and counts.

    Attributes
    ----------
    unsent
        The batches, by programme and id, that are never sent, since their intakes were parked.
    parked
        The ids of the batches of which a person has not decided yet.
    known
        What is known of the records of the rows at hand, as the upload changes it.
    last
        Batch lines of their last statements, where rows only name or change them, as far as these are kept.
    gone
        The batches, by programme and id, that were asked for and are no longer kept.
    noted
        The records of the rows at hand of which something is to be noted that is no statement: that they are not on
        file at DPS after all, or arrived earlier.
    contested
        The folders of which an older upload may tell whose a record is that a row is about.
    doubtful
        Of these, the folders of which one that is parked may change what becomes of the row.
    owned_since
        A newer upload than that cannot tell whose these records are.
    said_in
        The lines of this upload that said last what it says of the records of the rows at hand.
    assumed, assumed_in
        What was assumed of how many accepted rows, and the first lines of which it was.
    contradictions, contradicting
        How many rows contradict an earlier one, and the lines of the first such rows and of those that they contradict.
    """

    bucket: Bucket
    spool: Spool
    upload: UploadFacts
    unsent: frozenset[tuple[str, str]]
    parked: frozenset[str]
    rows: int = 0
    unchanged: int = 0
    overtaken: int = 0
    skipped: int = 0
    known: dict[str, Entry] = field(default_factory=dict)
    last: dict[str, bytes] = field(default_factory=dict)
    gone: set[tuple[str, str]] = field(default_factory=set)
    noted: set[str] = field(default_factory=set)
    contested: set[str] = field(default_factory=set)
    doubtful: set[str] = field(default_factory=set)
    owned_since: str = ""
    said_in: dict[str, int] = field(default_factory=dict)
    assumed: Counter[str] = field(default_factory=Counter)
    assumed_in: defaultdict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    contradictions: int = 0
    contradicting: list[list[int]] = field(default_factory=list)

    def decide(self, rows: Sequence[Row], registered: Mapping[str, Entry]) -> None:
        """Decide on rows, of whose records the register knows what is given.

        Raises
        ------
        LookupError
            A batch lacks a record that the register knows.
        """
        ids = {row.record_id for row in rows if not isinstance(row, Faulty | Nobody)}
        said, self.said_in = self.spool.seen.get(ids)
        self.known = {**self._sent(registered.values()), **said}
        self.last.clear()
        self.noted.clear()
        self._look_back(rows)
        for row in rows:
            self._decide(row)
        says = (entry for entry in self.known.values() if self._says(entry))
        self.spool.seen.put((entry, self.said_in.get(entry.record_id, entry.line)) for entry in says)

    def _sent(self, registered: Iterable[Entry]) -> dict[str, Entry]:
        """Put in the place of statements that are never sent what was known before them.

        While the upload waits for a person, the record stays its owner's.
        """
        return {entry.record_id: entry for entry in map(self._counts, registered) if entry}

    def _counts(self, entry: Entry) -> Entry | None:
        counts = entry.counting(self.unsent)
        return entry.waiting() if counts is not entry and entry.batch_id in self.parked else counts

    def _decide(self, row: Row) -> None:
        self.rows += 1
        known = self._known(row)
        if known and known.entry.owner != self.upload.folder and not isinstance(row, SendAgain | Lost):
            self._contest(known.entry)
        match decide(row, known, self.upload):
            case Queue(entry):
                self._compare(row, entry)
                self._queue(row, entry)
            case Unchanged(entry):
                self.unchanged += 1
                self.said_in[entry.record_id] = row.line
                self.known[entry.record_id] = entry
            case Skip(entry):
                self.skipped += 1
                if entry:
                    self.said_in[entry.record_id] = row.line
                    self.known[entry.record_id] = entry
            case Absent(entry):
                self.unchanged += 1
                self.known[entry.record_id] = entry
                self.noted.add(entry.record_id)
            case Overtaken(entry):
                self.overtaken += 1
                self._arrived(entry)
            case Reject(problems):
                self.spool.reject(row.line, problems)

    def _contest(self, entry: Entry) -> None:
        """Note that a row is about a record that is not its folder's, as far as is known."""
        folder, uploaders = self.upload.folder, self.upload.uploaders
        folders = {entry.owner, folder, *uploaders.succeeds.get(entry.owner, ()), *uploaders.succeeds.get(folder, ())}
        self.contested |= folders
        self.owned_since = max(self.owned_since, entry.owned_since)
        self.doubtful |= {folder} if uploaders.may_change(folder, entry.owner) else folders

    def _arrived(self, entry: Entry) -> None:
        """Note where and when a record arrived, where that was earlier than is known."""
        if entry != self.known[entry.record_id]:
            self.known[entry.record_id] = entry
            self.noted.add(entry.record_id)

    def _says(self, entry: Entry) -> bool:
        """Tell whether what is known of a record is what this upload says of it."""
        said = self.upload.batch_id == entry.batch_id or self.upload.stated_at == entry.stated_at
        return said or entry.record_id in self.noted

    def _known(self, row: Row) -> Known | None:
        entry = None if isinstance(row, Faulty | Nobody) else self.known.get(row.record_id)
        if entry is None:
            return None
        last = self.last.get(entry.record_id)
        # To read a line takes time: only a row that names somebody is compared with it.
        names = isinstance(row, Vaccinated) or (isinstance(row, Withdrawn) and row.person)
        who = person_of(last) if last and names else None
        return Known(entry, kept=last is not None, person=who)

    def _compare(self, row: Row, entry: Entry) -> None:
        """Note what was assumed of a row that is accepted, and whether an earlier row says something else."""
        if isinstance(row, Vaccinated):
            for assumed in row.assumed:
                self.assumed[assumed] += 1
                if len(lines := self.assumed_in[assumed]) < MOST_LINES:
                    lines.append(row.line)
        if isinstance(row, Vaccinated | Withdrawn):
            if earlier := self.said_in.get(entry.record_id):
                self.contradictions += 1
                if len(self.contradicting) < MOST_LINES:
                    self.contradicting.append([earlier, row.line])
            self.said_in[entry.record_id] = row.line

    def _queue(self, row: Row, entry: Entry) -> None:
        if isinstance(row, Vaccinated):
            line = batch_line(row.record, entry, today=self.upload.uploaded_at.astimezone(UTC).date())
        else:
            line = repeat_line(self.last[entry.record_id], entry)
        self.spool.add(entry, line)
        self.known[entry.record_id] = entry
        self.last[entry.record_id] = line

    def _look_back(self, rows: Iterable[Row]) -> None:
        """Find the last statements of records that rows only name, or change."""
        wanted: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        for row in rows:
            if entry := self._to_look_back_at(row):
                wanted[entry.programme, entry.batch_id][entry.record_id] = entry.line
        for batch, places in wanted.items():
            if self._at_hand(batch):
                self.last |= self.spool.statements.find(batch, places)

    def _to_look_back_at(self, row: Row) -> Entry | None:
        """Return what is known of a row's record where its last statement counts: where something may be queued."""
        if isinstance(row, Faulty | Nobody) or (entry := self.known.get(row.record_id)) is None or entry.unstated:
            return None
        return entry if isinstance(decide(row, Known(entry, kept=True), self.upload), Queue) else None

    def _at_hand(self, batch: tuple[str, str]) -> bool:
        """Have a batch's lines at hand: each is read once in a pass; tell whether it is still kept."""
        if batch not in self.spool.statements and batch not in self.gone:
            try:
                with closing(self.bucket.batch_lines(*batch)) as lines:
                    self.spool.statements.add(batch, lines)
            except BatchGone:
                self.gone.add(batch)
        return batch not in self.gone

    def receipt(self, upload: Upload, uploader: Uploader | None, rejects: str | None) -> Receipt:
        """Make the upload's receipt, but for what comes after."""
        return Receipt(
            batch_id=self.upload.batch_id,
            upload=upload.key,
            version=upload.version,
            uploaded_at=_stamp(upload.uploaded_at),
            rows=self.rows,
            accepted={programme: dict(batch.actions) for programme, batch in self.spool.batches.items()},
            unchanged=self.unchanged,
            overtaken=self.overtaken,
            skipped=self.skipped,
            rejected=self.spool.rejected,
            rejects=rejects,
            assumed=dict(self.assumed),
            assumed_in=dict(self.assumed_in),
            contradictions=self.contradictions,
            contradicting=self.contradicting,
            exports={},
            completed_at="",
            uploader=uploader,
            asked=upload.asked,
        )
