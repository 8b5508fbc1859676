"""Export: every night one DPS file for each programme with unsent records, over MESH, each exactly once.

For each programme, oldest export first: what is unfinished is finished, what failed is tried again (nightly runs only),
and then the open export is sealed and sent (nightly runs only). A later export waits until every earlier one of its
programme was accepted at least once, so that no `update` overtakes its `new`. One programme's trouble never stops
another's.

A run that is near its time limit stops between two parts. The hourly run goes on.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

from nhs_mesh import (
    CertificateExpired,
    ConfigurationError,
    MeshError,
    NotUnique,
    Refused,
    SendOutcomeUnknown,
    Unauthorised,
)
from vaccinations.jobs.render import RunTime
from vaccinations.jobs.transfer import Transfer
from vaccinations.model import lifecycle
from vaccinations.model.export import Asked, Failure, Phase, Status
from vaccinations.model.lifecycle import ImpossibleMove, LeaseLost, LeaseTaken, Step
from vaccinations.model.problems import ASKED, TRUE_OR_FALSE, InvalidEvent, check_event
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.ports import LedgerConflict
from vaccinations.results import ExportOutcome, ExportRun
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vaccinations.model.export import DPSExport, FileNames
    from vaccinations.model.programmes import Programme
    from vaccinations.ports import Bucket, Ledger, Mesh

__all__ = ["Export", "ExportRequest"]

#: How long after the function's own end its lease runs out.
LEASE_MARGIN = timedelta(seconds=60)
#: What the ledger calls errors that leave an export pending.
_CODES: dict[type[MeshError], str] = {
    Unauthorised: "unauthorised",
    CertificateExpired: "certificate-expired",
    ConfigurationError: "configuration",
    MeshError: "unavailable",
}


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
    resend
        Id of an export that failed or is unclear: send that again, and go on with what is pending of its programme.
    asked
        The person who asks for it, and why; None where a schedule does.
    """

    programme: str | None = None
    resume_only: bool = False
    dry_run: bool = False
    resend: str | None = None
    asked: Asked | None = None

    @classmethod
    def from_event(cls, event: Mapping[str, Any]) -> Self:
        """Read a request from a Lambda event.

        Raises
        ------
        InvalidEvent
            A key is unknown or its value is not allowed.
        """
        programme = (
            lambda value: isinstance(value, str) and value in PROGRAMMES,
            f"must be one of: {', '.join(PROGRAMMES)}",
        )
        export_id = (
            lambda value: isinstance(value, str) and _export(value)[0] in PROGRAMMES,
            "must be the id of an export, such as hpv-17",
        )
        rules = {
            "programme": programme,
            "resume_only": TRUE_OR_FALSE,
            "dry_run": TRUE_OR_FALSE,
            "resend": export_id,
            "asked": ASKED,
        }
        check_event(event, rules)
        asked = Asked(**event["asked"]) if "asked" in event else None
        if event.get("resend") and event.keys() - {"resend", "asked"}:
            raise InvalidEvent("'resend' says everything: no other key goes with it")
        return cls(**{**event, "asked": asked})

    @property
    def programmes(self) -> list[Programme]:
        """The programmes that it is about, in the order of the reference data."""
        only = _export(self.resend)[0] if self.resend else self.programme
        return [p for key, p in PROGRAMMES.items() if only in {None, key}]

    @property
    def nightly(self) -> bool:
        """Whether it seals what is open, and tries again what failed."""
        return not (self.resume_only or self.resend)


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The use case, on its ports.

    Attributes
    ----------
    connect
        Makes the MESH client; called only when there is something to send.
    names
        Makes what names a programme's files (`vaccinations.formats.dps_names`).
    recipient, workflow_id
        DPS's mailbox, and what its messages are sent under.
    holder
        Names this run in leases: the request id.
    seconds_left
        Tells how many seconds the function may still run.
    clock
        Tells the time, with its offset.
    """

    ledger: Ledger
    bucket: Bucket
    connect: Callable[[], Mesh]
    names: Callable[[Programme], Callable[[datetime, int], FileNames]]
    recipient: str
    workflow_id: str
    holder: str
    seconds_left: Callable[[], float]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    _time: RunTime = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_time", RunTime(self.seconds_left))

    def run(self, request: ExportRequest) -> ExportRun:
        """Do one run.

        Raises
        ------
        ImpossibleMove
            What is to be sent again is not an export that failed or is unclear.
        KeyError
            It is not there.
        """
        if request.resend:
            self._resend(*_export(request.resend), request.asked)
        outcomes: list[ExportOutcome] = []
        nothing_to_send: list[str] = []
        left: list[str] = []
        for programme in request.programmes:
            out_of_time = self._time.is_up()
            if out_of_time:
                left.append(programme.key)
            before = len(outcomes)
            try:
                for outcome in self._programme(programme, request, send=not out_of_time):
                    outcomes.append(outcome)  # noqa: PERF402 - what was done counts even where the rest fails
            except Exception as error:  # noqa: BLE001 - one programme's trouble never stops another's
                outcomes.append(_failed(programme, error))
            if len(outcomes) == before and not out_of_time:
                nothing_to_send.append(programme.key)
                if request.nightly:
                    logger.info(f"No vaccination records to export for programme {programme.key}")
        complete = not left and all(outcome.status == Status.ACCEPTED for outcome in outcomes)
        return ExportRun(
            status="dry run" if request.dry_run else "ok" if complete else "incomplete",
            exports=tuple(outcomes),
            nothing_to_send=tuple(nothing_to_send),
            left=tuple(left),
        )

    def _programme(self, programme: Programme, request: ExportRequest, *, send: bool) -> Iterator[ExportOutcome]:
        """Go through a programme's exports, oldest first, until one is in the way of the rest.

        Parameters
        ----------
        send
            Whether there is time to send. Where there is not, what is to be sent is made pending all the same: sealing
            takes no time, and the hourly run, which seals nothing, goes on with it.
        """
        for export in self.ledger.exports(programme.key):
            step = lifecycle.next_step(export, nightly=request.nightly)
            if request.dry_run:
                if step:
                    yield _outcome(export, would=step)
            elif step:
                export = self._take(programme, export, step, send=send)  # noqa: PLW2901 - the same export, moved on
                yield _outcome(export)
            elif lifecycle.in_the_way(export) and export.status is not Status.OPEN:
                yield _outcome(export)
            if lifecycle.in_the_way(export) and not (request.dry_run and step):
                return

    def _take(self, programme: Programme, export: DPSExport, step: Step, *, send: bool) -> DPSExport:
        """Bring an export to pending where it is not yet, and send it."""
        try:
            if step is not Step.SEND:
                export = self._begin_attempt(programme, export, step)
            return self._send(export) if send else export
        except (ImpossibleMove, LeaseLost, LeaseTaken, LedgerConflict):
            logger.info("another run has this export", extra={"export_id": export.export_id})
            return self.ledger.get(export.programme, export.number)

    def _resend(self, programme: str, number: int, asked: Asked | None) -> None:
        """Begin another attempt at an export, as a person has asked."""
        now = self.clock()
        export = self.ledger.begin_attempt(
            self.ledger.get(programme, number),
            lambda export, names: lifecycle.resend(export, names, now, asked),
            self.names(PROGRAMMES[programme]),
        )
        extra = {"export_id": export.export_id, "attempt": len(export.attempts), "records": export.records}
        logger.info("export to be sent again", extra=extra | export.names[-1].told())

    def _begin_attempt(self, programme: Programme, export: DPSExport, step: Step) -> DPSExport:
        begin = lifecycle.seal if step is Step.SEAL else lifecycle.retry
        now = self.clock()
        export = self.ledger.begin_attempt(
            export, lambda export, names: begin(export, names, now), self.names(programme)
        )
        extra = {"export_id": export.export_id, "attempt": len(export.attempts), "records": export.records}
        extra |= export.names[-1].told()
        logger.info("export sealed" if step is Step.SEAL else "export to be tried again", extra=extra)
        return export

    def _send(self, export: DPSExport) -> DPSExport:
        """Send a pending export as far as that goes, and note what comes of it."""
        transfer = self._transfer(export)
        export = transfer.export
        extra: dict[str, Any] = {
            "export_id": export.export_id,
            "local_id": export.local_id,
            "records": export.records,
            **export.names[-1].told(),
        }
        try:
            transfer.run()
        except Refused as refused:
            error = Failure(refused.code or str(refused.status), refused.description or "")
            said = {"code": error.code, "description": error.description}
            logger.exception("MESH refused the export", extra=extra | said)
            count("ExportsFailed", programme=export.programme)
            transfer.fail(error)
        except NotUnique:
            logger.exception("export is unclear: a person has to look", extra=extra)
            count("ExportsUnclear", programme=export.programme)
            description = f"MESH knows several messages by the local id {export.local_id}"
            transfer.mark_unclear(Failure("not-unique", description))
        except SendOutcomeUnknown as unknown:
            logger.warning("outcome of the send unknown; the next run asks MESH", extra=extra)
            transfer.lose_answer(Failure("outcome-unknown", str(unknown)))
        except MeshError as error:
            code = next(code for kind, code in _CODES.items() if isinstance(error, kind))
            logger.exception("export stays pending", extra=extra | {"code": code})
            count("ExportsDelayed", programme=export.programme)
            transfer.release(Failure(code, str(error)))
        except LeaseLost:
            raise
        except BaseException:
            # Not MESH's doing. Where the first part was on its way the lease is kept, so that MESH gets its time.
            if transfer.export.state is not Phase.SENDING:
                with suppress(LeaseLost, LedgerConflict):
                    transfer.release()
            raise
        return transfer.export

    def _transfer(self, export: DPSExport) -> Transfer:
        """Take the export's lease and connect to MESH."""
        now = self.clock()
        until = now + timedelta(seconds=self.seconds_left()) + LEASE_MARGIN
        self.ledger.change(export, lambda export: lifecycle.take_lease(export, self.holder, until, now))
        return Transfer(
            self.ledger.get(export.programme, export.number),  # with its batches
            self.ledger,
            self.bucket,
            self.connect,
            recipient=self.recipient,
            workflow_id=self.workflow_id,
            holder=self.holder,
            time=self._time,
            clock=self.clock,
        )


def _export(export_id: str) -> tuple[str, int]:
    """Return an export's programme and number; no programme where it is no id."""
    programme, _, number = export_id.rpartition("-")
    return (programme, int(number)) if number.isdecimal() else ("", 0)


def _failed(programme: Programme, error: Exception) -> ExportOutcome:
    logger.exception("export of programme failed", extra={"programme": programme.key})
    count("ExportErrors", programme=programme.key)
    return ExportOutcome(programme=programme.key, status="error", error_code=type(error).__name__)


def _outcome(export: DPSExport, would: str | None = None) -> ExportOutcome:
    attempt = export.attempt
    error = attempt.error if attempt else None
    return ExportOutcome(
        programme=export.programme,
        status=str(export.status),
        export_id=export.export_id,
        records=export.records,
        filename=attempt.filename if attempt else "",
        mesh_filename=attempt.mesh_filename if attempt else "",
        message_id=export.message_id,
        error_code=error.code if error else "",
        error_description=error.description if error else "",
        would=would,
    )
