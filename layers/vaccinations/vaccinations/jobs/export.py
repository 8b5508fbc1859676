"""Export: every night one DPS file for each programme with unsent records, over MESH, each exactly once.

For each programme, oldest export first: what is unfinished is finished, what failed is tried again (nightly runs
only), and then the open export is sealed and sent (nightly runs only). A later export waits until every earlier one
of its programme was accepted at least once, so that no ``update`` overtakes its ``new``. One programme's trouble
never stops another's.

Sending writes down every effect before the next: lease, parts rendered to S3, "about to send", message id, each
part. A run that finds an attempt which may already have been sent asks MESH by its local id before it sends
anything.
"""

from __future__ import annotations

import re
import tempfile
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Self, cast
from zoneinfo import ZoneInfo

from nhs_mesh import (
    ConfigurationError,
    MeshError,
    NotFound,
    NotUnique,
    Part,
    Refused,
    SendOutcomeUnknown,
    TrackingStatus,
    Unauthorised,
    Unavailable,
)
from vaccinations.aws.bucket import Manifest
from vaccinations.aws.ledger import MAX_ATTEMPTS, DPSExport, LeaseLost, LedgerConflict, Status
from vaccinations.formats.dps_columns import Members, RowsWriter, read_members, render_row, write_part
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.prefetch import ahead
from vaccinations.settings import FilenameStyle
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from nhs_mesh import MeshClient
    from vaccinations.aws.bucket import Archive
    from vaccinations.aws.ledger import Ledger
    from vaccinations.formats.dps_columns import Member
    from vaccinations.model.programmes import Programme
    from vaccinations.settings import Settings

__all__ = ["Export", "ExportRequest", "InvalidEvent", "RenderMismatch", "file_names"]

_LONDON = ZoneInfo("Europe/London")
#: MESH's answer to a part of a message that is complete already: the answer to the last part was lost.
_LOCKED = 423
#: A part is begun only while at least this much of the function's time is left: enough to send 80 MB and say so.
SECONDS_FOR_A_PART = 60.0
#: What stands in the ledger for errors that leave an export pending.
_CODES: dict[type[MeshError], str] = {Unauthorised: "unauthorised", ConfigurationError: "configuration"}
#: The batches of an export are opened so many ahead.
_BATCHES_AHEAD = 4
#: Parts are sent from the disk where this run has rendered them, so many of them; the others from S3.
_PARTS_KEPT = 10
#: How long after the function's own end its lease runs out.
LEASE_MARGIN = timedelta(seconds=60)


class InvalidEvent(ValueError):
    """The event holds a key or value that means nothing to the function; the message names it."""


class RenderMismatch(Exception):
    """The batches of an export do not hold as many records as the ledger says; nothing was sent."""


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """What an export run is asked to do.

    Attributes
    ----------
    programme
        Only this programme; every programme where None.
    resume_only
        Only go on with what is pending: nothing is sealed, nothing that failed is tried again.
    dry_run
        Only say what would be sealed and sent.
    """

    programme: str | None = None
    resume_only: bool = False
    dry_run: bool = False

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
            if key == "programme" and (not isinstance(value, str) or value not in PROGRAMMES):
                raise InvalidEvent(f"'programme' must be one of: {', '.join(PROGRAMMES)}")
            if key != "programme" and not isinstance(value, bool):
                raise InvalidEvent(f"{key!r} must be true or false")
        return cls(**event)

    @property
    def programmes(self) -> list[Programme]:
        """The programmes it is about, in the order of the reference data."""
        return [p for key, p in PROGRAMMES.items() if self.programme in {None, key}]


@dataclass(frozen=True, slots=True)
class Export:
    """The use case, over the rooms it works with.

    Attributes
    ----------
    connect
        Makes the MESH client; called only when there is something to send.
    holder
        Names this run in leases: the request id.
    seconds_left
        Tells how many seconds the function may still run.
    hand_over
        Has another run begin, with an event of its own, where this one is out of time.
    clock
        Tells the time, with its offset; for tests.
    """

    settings: Settings
    ledger: Ledger
    archive: Archive
    connect: Callable[[], MeshClient]
    holder: str
    seconds_left: Callable[[], float]
    hand_over: Callable[[Mapping[str, Any]], None] = lambda _: None
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    #: What this run has got done.
    _steps: list[str] = field(default_factory=list, init=False)
    #: The programmes that another run has to go on with.
    _left: list[str] = field(default_factory=list, init=False)

    def run(self, request: ExportRequest) -> dict[str, Any]:
        """Do one run.

        Returns
        -------
        dict
            ``{"status": "ok", "exports": [{"export_id", "programme", "status", "records", "message_id"}],
            "nothing_to_send": [programme], "handed_over": [programme]}``. The status is ``incomplete`` where an export
            is not accepted yet; the export then says why, or its programme was handed over. A dry run answers with
            what it ``would`` do with each.
        """
        outcomes: list[dict[str, Any]] = []
        nothing_to_send: list[str] = []
        for programme in request.programmes:
            if self._out_of_time():
                self._left.append(programme.key)
                continue
            before = len(outcomes)
            try:
                for outcome in self._programme(programme, request):
                    outcomes.append(outcome)  # noqa: PERF402 - what was done counts even where the rest fails
            except Exception as error:  # noqa: BLE001 - one programme's trouble never stops another's
                logger.exception("export of programme failed", extra={"programme": programme.key})
                count("ExportErrors", programme=programme.key)
                outcomes.append({"programme": programme.key, "status": "error", "error": type(error).__name__})
            if len(outcomes) == before:
                nothing_to_send.append(programme.key)
                if not request.resume_only:
                    logger.info(f"No vaccination records to export for programme {programme.key}")
        if request.dry_run:
            return {"status": "dry run", "exports": outcomes, "nothing_to_send": nothing_to_send}
        complete = not self._left and all(outcome["status"] == Status.ACCEPTED for outcome in outcomes)
        return {
            "status": "ok" if complete else "incomplete",
            "exports": outcomes,
            "nothing_to_send": nothing_to_send,
            "handed_over": self._hand_over(request),
        }

    def _hand_over(self, request: ExportRequest) -> list[str]:
        """Have a run of its own begin for each programme that is left; return those for which that worked.

        It cannot go round for ever: there is something left only where this run has got something done.
        """
        handed_over = []
        for programme in self._left:
            try:
                self.hand_over({"programme": programme, "resume_only": request.resume_only})
            except Exception:  # noqa: BLE001 - what is under way waits for the hourly run then
                logger.exception("programme could not be handed over", extra={"programme": programme})
                count("HandOversFailed", programme=programme)
            else:
                handed_over.append(programme)
        if handed_over:
            logger.info("out of time; handed over", extra={"programmes": handed_over, "done": len(self._steps)})
        return handed_over

    def _programme(self, programme: Programme, request: ExportRequest) -> Iterator[dict[str, Any]]:
        """Go through a programme's exports, oldest first, until one is in the way of the rest."""
        for export in self.ledger.exports(programme.key):
            step = _next_step(export, nightly=not request.resume_only)
            if request.dry_run:
                if step:
                    yield _summary(export) | {"would": step}
            elif step:
                export = self._take(programme, export)  # noqa: PLW2901 - the same export, moved on
                yield _summary(export)
            elif export.status in {Status.FAILED, Status.UNCLEAR}:
                yield _summary(export)
            if not export.accepted_at and not (request.dry_run and step):
                return

    def _take(self, programme: Programme, export: DPSExport) -> DPSExport:
        """Bring an export to pending where it is not yet, and send it."""
        try:
            if export.status is Status.OPEN:
                export = self.ledger.seal(export, file_names(programme, self.settings))
                logger.info("export sealed", extra={"export_id": export.export_id, "records": export.records})
            elif export.status is not Status.PENDING:
                export = self.ledger.retry(export, file_names(programme, self.settings))
                logger.info(
                    "export to be tried again",
                    extra={"export_id": export.export_id, "attempt": export.attempt},
                )
            return self._send(export)
        except LedgerConflict:
            logger.info("another run has this export", extra={"export_id": export.export_id})
            return self.ledger.get(export.programme, export.number)

    # -- sending

    def _send(self, export: DPSExport) -> DPSExport:
        until = self.clock() + timedelta(seconds=self.seconds_left()) + LEASE_MARGIN
        leased = self.ledger.lease(export, self.holder, until)
        if leased is None:
            raise LedgerConflict(export.export_id)
        export = self.ledger.get(export.programme, export.number)  # with its batches
        extra = {"export_id": export.export_id, "local_id": export.local_id, "records": export.records}
        try:
            return self._transfer(export, self.connect())
        except Refused as refused:
            error = {"code": refused.code or str(refused.status), "description": refused.description or ""}
            logger.exception("MESH refused the export", extra=extra | error)
            count("ExportsFailed", programme=export.programme)
            return self.ledger.fail(self._reread(export), error)
        except NotUnique:
            description = f"MESH knows several messages by the local id {export.local_id}"
            logger.exception("export is unclear: a person has to look", extra=extra)
            count("ExportsUnclear", programme=export.programme)
            return self.ledger.doubt(self._reread(export), {"code": "not-unique", "description": description})
        except SendOutcomeUnknown as unknown:
            # The lease is kept: MESH gets its time to finish, and the next run but then asks by local id.
            logger.warning("outcome of the send unknown; the next run asks MESH", extra=extra)
            return self.ledger.note(self._reread(export), {"code": "outcome-unknown", "description": str(unknown)})
        except MeshError as error:
            code = _CODES.get(type(error), "unavailable")
            logger.exception("export stays pending", extra=extra | {"code": code})
            count("ExportsDelayed", programme=export.programme)
            return self.ledger.release(self._reread(export), error={"code": code, "description": str(error)})
        except LeaseLost:
            raise
        except BaseException:
            # Not MESH's doing; where a part was on its way, the next run asks MESH before it sends anything.
            with suppress(LedgerConflict):
                self.ledger.release(self._reread(export))
            raise

    def _reread(self, export: DPSExport) -> DPSExport:
        """Read a leased export again, with what this run has written since.

        Raises
        ------
        LeaseLost
            Another run has it by now.
        """
        current = self.ledger.get(export.programme, export.number)
        if current.lease is None or current.lease.holder != self.holder:
            raise LeaseLost(export.export_id)
        return current

    def _transfer(self, export: DPSExport, client: MeshClient) -> DPSExport:
        """Send what MESH has not got yet of a leased export."""
        if export.sending_at and not export.message_id:
            export, complete = self._find_out(export, client)
            if complete:
                return self._accepted(export, export.message_id)
        with tempfile.TemporaryDirectory() as directory:
            manifest = self._rendered(export, Path(directory))
            if manifest.next:
                return self._stop(export)
            return self._send_parts(export, manifest, Path(directory), client)

    def _send_parts(self, export: DPSExport, manifest: Manifest, files: Path, client: MeshClient) -> DPSExport:
        """Send the parts that MESH has not got yet.

        How far it got is written down after the first part, at each quarter of the way, and where it stops or fails,
        so that an export costs the same few writes however many parts it has. Should the process die in between, some
        parts travel again, which does no harm: MESH puts them in the place of those it has.
        """
        parts = len(manifest.parts)
        written_down = export.parts_sent
        try:
            while export.parts_sent < parts:
                if self._out_of_time():
                    return self._stop(export)
                number = export.parts_sent + 1
                part = self._part(export, manifest, number, files)
                if number == 1:
                    export = self.ledger.begin_sending(export, parts)
                    message_id, taken = self._first_part(export, parts, part, client), 1
                else:
                    message_id, taken = export.message_id, self._further_part(export, parts, number, part, client)
                self._steps.append(f"{export.export_id}: part {number} sent")
                export = replace(export, message_id=message_id, parts_sent=taken)
                if taken < parts and (number == 1 or 4 * number // parts > 4 * (number - 1) // parts):
                    export = self.ledger.sent(export, message_id, taken)
                    written_down = taken
        except MeshError:
            if export.parts_sent > written_down:
                self.ledger.sent(export, export.message_id, export.parts_sent)
            raise
        return self._accepted(export, export.message_id)

    def _out_of_time(self) -> bool:
        """Tell whether no further part is to be begun. A run does at least one step, so that every run gets on."""
        return bool(self._steps) and self.seconds_left() < SECONDS_FOR_A_PART

    def _stop(self, export: DPSExport) -> DPSExport:
        """Leave an export between two parts, to be gone on with by another run."""
        self._left.append(export.programme)
        extra = {"export_id": export.export_id, "parts_sent": export.parts_sent, "parts": export.parts}
        logger.info("out of time; another run goes on", extra=extra)
        return self.ledger.release(export)

    def _find_out(self, export: DPSExport, client: MeshClient) -> tuple[DPSExport, bool]:
        """Ask MESH by local id whether it has this attempt; tell also whether it has it whole."""
        try:
            tracking = client.track_by_local_id(export.local_id)
        except NotFound:
            logger.info("MESH does not have the export", extra={"export_id": export.export_id})
            return export, False
        except Refused as refused:
            # It is the question that was refused: that tells nothing about the export.
            raise Unavailable(f"MESH would not say whether it has {export.local_id}: {refused}") from None
        logger.info(
            "MESH has the export already",
            extra={"export_id": export.export_id, "message_id": tracking.message_id},
        )
        if tracking.status != TrackingStatus.UPLOADING:
            return self.ledger.sent(export, tracking.message_id, export.parts), True
        return self.ledger.sent(export, tracking.message_id, max(export.parts_sent, 1)), False

    def _first_part(self, export: DPSExport, parts: int, part: Part, client: MeshClient) -> str:
        """Send the first part; return the message's id."""
        self._holds(export)
        return client.send(
            part,
            to=self.settings.dps_mailbox,
            workflow_id=self.settings.workflow_id,
            parts=parts,
            filename=export.mesh_filename,
            local_id=export.local_id,
            content_type="text/csv",
        )

    def _further_part(self, export: DPSExport, parts: int, number: int, part: Part, client: MeshClient) -> int:
        """Send another part; return how many MESH has now."""
        self._holds(export)
        try:
            client.send_chunk(export.message_id, number, parts, part)
        except Refused as refused:
            if refused.status != _LOCKED:
                raise
            # It is complete: either this was the last part, or a run that died had sent more than it could write down.
            if number < parts and client.track(export.message_id).status == TrackingStatus.UPLOADING:
                raise
            return parts
        except NotFound:
            # MESH has dropped the unfinished message; nothing of it was delivered.
            raise Refused(404, description="MESH no longer knows the message") from None
        return number

    def _part(self, export: DPSExport, manifest: Manifest, number: int, files: Path) -> Part:
        """Return a part as this run has rendered it, or else as it is in S3."""
        rendered = files / str(number)

        def open_part() -> BinaryIO:
            if rendered.exists():
                return rendered.open("rb")
            return self.archive.open_part(export.programme, export.number, number)

        return Part(open=open_part, size=manifest.parts[number - 1].size, content_encoding="gzip")

    def _holds(self, export: DPSExport) -> None:
        """Make sure that the lease still holds, right before an effect that cannot be made conditional.

        Raises
        ------
        LeaseLost
            It ran out.
        """
        if export.lease is None or self.clock() >= export.lease.until:
            raise LeaseLost(export.export_id)

    def _accepted(self, export: DPSExport, message_id: str) -> DPSExport:
        export = self.ledger.accept(export, message_id)
        logger.info(
            f"DPS export ({export.export_id}) for programme ({export.programme}) sent: "
            f'202 - {{"message_id":"{message_id}"}}',
            extra={"export_id": export.export_id, "message_id": message_id, "records": export.records},
        )
        count("ExportsAccepted", programme=export.programme)
        count("RecordsExported", export.records, programme=export.programme)
        return export

    def _rendered(self, export: DPSExport, files: Path) -> Manifest:
        """Return the export's manifest, rendering to S3 what is not there yet, as far as the time allows.

        Raises
        ------
        RenderMismatch
            The parts do not hold exactly the export's records, or are not those that MESH was told of.
        """
        manifest = self.archive.manifest(export.programme, export.number) or Manifest(export.export_id)
        if manifest.next:
            manifest = self._render(export, manifest, manifest.next, files)
        if not manifest.next:
            _check_records(export, manifest)
            if export.sending_at and export.parts != len(manifest.parts):
                raise RenderMismatch(f"{export.export_id}: begun in {export.parts} parts, now {len(manifest.parts)}")
        return manifest

    def _render(self, export: DPSExport, manifest: Manifest, place: tuple[int, int], files: Path) -> Manifest:
        """Make the parts from a place on, each of them stored and written down before the next is begun."""
        batches = export.batches[place[0] :]
        opened = ahead(partial(self.archive.open_rows, export.programme), batches, depth=_BATCHES_AHEAD)
        members = Members(map(partial(self._members, export.programme), batches, opened), *place)
        with closing(opened):
            while manifest.next and not self._out_of_time():
                number = len(manifest.parts) + 1
                file = files / str(number)
                with file.open("wb") as body:
                    part = write_part(number, members, body)
                self._holds(export)
                self.archive.put_part(export.programme, export.number, number, file)
                if number > _PARTS_KEPT:
                    file.unlink()
                manifest = Manifest(
                    export.export_id,
                    manifest.records + part.rows,
                    (*manifest.parts, part),
                    members.place if members.next else None,
                )
                if not manifest.next:
                    _check_records(export, manifest)
                self.archive.put_manifest(export.programme, export.number, manifest)
                self._steps.append(f"{export.export_id}: part {number} rendered")
        return manifest

    def _members(self, programme: str, batch_id: str, rows: BinaryIO | None) -> Iterator[Member]:
        """Read a batch's rows, or render them where they were not stored with it."""
        if rows is not None:
            with closing(rows):
                yield from read_members(rows)
            return
        with tempfile.TemporaryFile() as file, closing(self.archive.batch_lines(programme, batch_id)) as lines:
            rendered = RowsWriter(file)
            for line in lines:
                rendered.write(render_row(line))
            rendered.finish()
            file.seek(0)
            yield from read_members(cast("BinaryIO", file))


def _check_records(export: DPSExport, manifest: Manifest) -> None:
    if manifest.records != export.records:
        raise RenderMismatch(
            f"{export.export_id}: {export.records} records in the ledger, {manifest.records} in its parts"
        )


def _next_step(export: DPSExport, *, nightly: bool) -> str | None:
    """Tell what a run does with an export, if anything."""
    match export.status:
        case Status.PENDING:
            return "send"
        case Status.OPEN if nightly and export.records:
            return "seal and send"
        case Status.FAILED | Status.UNDELIVERED if nightly and export.attempt < MAX_ATTEMPTS:
            return "send again"
    return None


def _summary(export: DPSExport) -> dict[str, Any]:
    summary: dict[str, Any] = {
        "export_id": export.export_id,
        "programme": export.programme,
        "status": str(export.status),
        "records": export.records,
    }
    if export.message_id:
        summary["message_id"] = export.message_id
    if export.error:
        summary["error"] = dict(export.error)
    return summary


def file_names(programme: Programme, settings: Settings) -> Callable[[datetime, int], tuple[str, str]]:
    """Make the function that names a programme's files in the ledger and on MESH (dps-csv, "File names").

    Examples
    --------
    ``Vaccinations-HPV-2024-08-23.csv`` for the first file of a day, ``Vaccinations-HPV-2024-08-23-2.csv`` for the
    second; on MESH the same, or ``HPV_Vaccinations_v5_N1G3B_20240823T23150001.csv`` in the style ``batch-v5``.
    """

    def name(moment: datetime, sequence: int) -> tuple[str, str]:
        local = moment.astimezone(_LONDON)
        which = "" if sequence == 1 else f"-{sequence}"
        plain = re.sub(r"[^A-Za-z0-9_-]+", "-", programme.name)
        filename = f"Vaccinations-{plain}-{local:%Y-%m-%d}{which}.csv"
        if settings.filename_style is FilenameStyle.GUIDE:
            return filename, filename
        offset = "01" if local.utcoffset() else "00"
        stamp = f"{local:%Y%m%dT%H%M%S}{offset}"
        return (
            filename,
            f"{programme.dps_vaccine_type}_Vaccinations_v5_{settings.ods_code.upper()}_{stamp}.csv",
        )

    return name
