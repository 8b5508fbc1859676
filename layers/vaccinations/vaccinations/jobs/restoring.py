"""Put ledger and register right after the tables were put back to an earlier moment: part of Reconcile.

The bucket is as it is now, and an export's manifest outlives the ledger: it names the batches of the file, and each
attempt before it is sent. An export of which the manifest tells more than the ledger went further: MESH is asked by
local id whether it has the last attempt, and what MESH does not know is sent, the very same bytes. An export whose
manifest is not complete was not sent: it stays as the ledger has it, and its parts are made anew.

The order of effects makes it safe to die anywhere and be run again:

1. the register learns the statements that those files hold, as far as it knows nothing newer;
2. uploads that it has forgotten, though such files hold batches of them, get an intake again: a parked one, so that
   they are ingested afresh as another intake, which finds unchanged what was sent;
3. exports that the ledger has forgotten are written, then those that went further; last of each programme its open
   exports, together with the number from which it goes on and what they had gathered that was not sent.
"""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vaccinations.formats.batches import entry_of
from vaccinations.model import lifecycle
from vaccinations.model.export import DPSExport, Status
from vaccinations.model.lifecycle import Event
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.ports import BatchGone
from vaccinations.results import RestoredExport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from vaccinations.ports import Bucket, Ledger, Register

__all__ = ["PutBack", "Restoring"]


@dataclass(frozen=True, slots=True)
class PutBack:
    """What is done about the exports of one programme.

    Attributes
    ----------
    changes
        Each export that went further as the ledger has it, None where it has forgotten it, and as it is then.
    passed
        The highest number that the ledger knows of.
    highest
        The highest that there is anything of, in the ledger or in the bucket: the next open export is above it.
    """

    programme: str
    changes: tuple[tuple[DPSExport | None, DPSExport], ...]
    passed: int
    highest: int

    def report(self) -> Iterator[RestoredExport]:
        """Tell what is done about each export."""
        for known, export in self.changes:
            yield RestoredExport(
                export_id=export.export_id,
                programme=self.programme,
                was=str(known.state) if known else "forgotten",
                attempt=len(export.attempts),
                records=export.records,
                moved=len(_left_over(known, export)),
            )


@dataclass(frozen=True, slots=True)
class Restoring:
    """Puts the ledger and the register right, by the bucket."""

    bucket: Bucket
    register: Register
    ledger: Ledger
    clock: Callable[[], datetime]

    def plan(self) -> list[PutBack]:
        """Find out what is to be done, without doing it."""
        return [self._plan(programme) for programme in PROGRAMMES]

    def apply(self, plan: list[PutBack], is_up: Callable[[], bool]) -> bool:
        """Do it, unless the time is up before the ledger is written; tell whether it is done."""
        attached: defaultdict[str, dict[str, int]] = defaultdict(dict)
        for put_back in plan:
            for known, export in put_back.changes:
                for batch_id in export.batches:
                    if known is None or batch_id not in known.batches:
                        attached[batch_id][export.programme] = export.number
        for batch_id, exports in attached.items():
            for programme in exports:
                if is_up():
                    return False
                # One that is gone was erased, with every record in it.
                with suppress(BatchGone), closing(self.bucket.batch_lines(programme, batch_id)) as lines:
                    self.register.restate(entry_of(line, batch_id) for line in lines)
        for batch_id, exports in attached.items():
            self._mark(batch_id, exports)
        for put_back in plan:
            self._write(put_back)
            self._point_to_open(put_back.programme)
        return True

    # -- planning

    def _plan(self, programme: str) -> PutBack:
        passed = self.ledger.highest(programme)
        exports = {export.number: export for export in self.ledger.exports(programme)}
        numbers = self.bucket.export_numbers(programme)
        found = (
            self._change(programme, number, exports.get(number))
            for number in numbers
            if number > passed or (number in exports and _may_be_put_back(exports[number]))
        )
        return PutBack(programme, tuple(change for change in found if change), passed, max([passed, *numbers]))

    def _change(
        self, programme: str, number: int, listed: DPSExport | None
    ) -> tuple[DPSExport | None, DPSExport] | None:
        """Tell how an export changes; None where it does not."""
        manifest = self.bucket.manifest(programme, number)
        if manifest is None:
            return None
        now = self.clock()
        known = self.ledger.get(programme, number) if listed else None
        export = known or _open(programme, number, (), 0, now)
        return (known, lifecycle.restore(export, manifest, now)) if lifecycle.went_further(export, manifest) else None

    # -- doing

    def _mark(self, batch_id: str, exports: dict[str, int]) -> None:
        """Mark in an upload's intake which exports have batches of it; put the intake back where it is forgotten."""
        intake = self.register.intake(batch_id)
        if intake is None:
            accepted = self.bucket.intake(batch_id).receipt.accepted
            batches = {programme: sum(actions.values()) for programme, actions in accepted.items()}
            self.register.put_back(batch_id, batches, exports)
            return
        for programme, number in exports.items():
            if intake.attached.get(programme) != number:
                self.register.mark_attached(batch_id, programme, number)

    def _write(self, put_back: PutBack) -> None:
        programme = put_back.programme
        gathering = [each for each in put_back.changes if each[0] and each[0].status is Status.OPEN]
        for change in put_back.changes:
            if change not in gathering:
                self.ledger.put_back(programme, [change], 0)
        left_over = tuple(batch_id for change in gathering for batch_id in _left_over(*change))
        if left_over:
            records = sum(self._records(programme, batch_id) for batch_id in left_over)
            number = put_back.highest + 1
            opened = _open(programme, number, left_over, records, self.clock())
            self.ledger.put_back(programme, [*gathering, (None, opened)], number)
        else:
            self.ledger.put_back(programme, gathering, put_back.highest)

    def _records(self, programme: str, batch_id: str) -> int:
        intake = self.register.intake(batch_id)
        if intake is None:
            raise LookupError(f"the intake of {batch_id} is not there")
        return intake.batches[programme]

    def _point_to_open(self, programme: str) -> None:
        """Have the intakes of what waits in open exports say in which."""
        for listed in self.ledger.exports(programme):
            if listed.status is Status.OPEN:
                for batch_id in self.ledger.get(programme, listed.number).batches:
                    self._mark(batch_id, {programme: listed.number})


def _may_be_put_back(export: DPSExport) -> bool:
    return any(move.event is Event.RESTORE for move in lifecycle.possible(export))


def _left_over(known: DPSExport | None, export: DPSExport) -> list[str]:
    """Return what an export has gathered that is not in the file that was made of it."""
    return [batch_id for batch_id in known.batches if batch_id not in export.batches] if known else []


def _open(programme: str, number: int, batches: tuple[str, ...], records: int, now: datetime) -> DPSExport:
    return DPSExport(
        programme=programme,
        number=number,
        status=Status.OPEN,
        records=records,
        created_at=now,
        updated_at=now,
        batches=batches,
    )
