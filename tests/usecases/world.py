"""A small world for tests of the use cases: the stores, two mailboxes on MESH, a clock to turn, what people do."""

from __future__ import annotations

import csv
import io
import uuid
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from vaccinations.formats.dps_names import FilenameStyle, file_names
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.export import Export, ExportRequest
from vaccinations.jobs.track import Track
from vaccinations.model import lifecycle
from vaccinations.results import Receipt, document

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clocks import Clock
    from tests.usecases.stores import Stores
    from vaccinations.model.export import Attempt, DPSExport
    from vaccinations.model.programmes import Programme
    from vaccinations.ports import Bucket, Ledger, Register
    from vaccinations.results import CollectRun, ExportRun, RejectedUpload, TrackRun

#: Our mailbox, and DPS's, as the sandbox has them; what files are sent under.
OURS, DPS, WORKFLOW = "X26ABC1", "X26ABC3", "dps export"
#: What DPS knows the supplier by.
SUPPLIER = "V0V8L"


@dataclass
class World:
    """What the use cases work on.

    Attributes
    ----------
    client, receiver
        Our mailbox and DPS's.
    report
        Makes MESH report that a message was not collected.
    recipient
        Whom exports go to.
    answers_from
        The mailbox that answers come from, where that is known.
    """

    stores: Stores
    client: Any
    receiver: Any
    report: Callable[[str], object]
    recipient: str = DPS
    answers_from: str = ""
    style: FilenameStyle = FilenameStyle.BATCH_V5
    seconds_left: float = 900.0
    uploads: list[tuple[str, str]] = field(default_factory=list)

    @property
    def bucket(self) -> Bucket:
        return self.stores.bucket

    @property
    def register(self) -> Register:
        return self.stores.register

    @property
    def ledger(self) -> Ledger:
        return self.stores.ledger

    @property
    def clock(self) -> Clock:
        return self.stores.clock

    # -- what a team does

    def upload(self, body: bytes | str, name: str = "monday.csv", organisation: str = "R1L") -> Receipt:
        """Put an upload into the bucket and ingest it; return its receipt, which is not a rejection."""
        receipt = self.try_upload(body, name, organisation)
        assert isinstance(receipt, Receipt), receipt
        return receipt

    def try_upload(
        self, body: bytes | str, name: str = "monday.csv", organisation: str = "R1L"
    ) -> Receipt | RejectedUpload:
        """Put an upload into the bucket and ingest it; return its receipt."""
        self.uploads.append(self.stores.uploaded(body, name, organisation))
        return self.ingest()

    def ingest(self, which: int = -1) -> Receipt | RejectedUpload:
        """Handle the event of an upload (again); its uploader finds the receipt that is answered."""
        receipt = self.stores.handle(self.uploads[which])
        assert self.stores.receipt_file(self.uploads[which]) == document(receipt)
        return receipt

    def rejects(self, receipt: Receipt) -> list[dict[str, str]]:
        """Read the rejects file that a receipt names."""
        return self.stores.rejects(receipt)

    def request(self, name: str, body: str = "") -> Receipt:
        """Put a request into the bucket and do it; return its receipt."""
        self.clock.forward(seconds=1)
        receipt = self.stores.handle(self.bucket.put_request(name, body.encode()))
        assert isinstance(receipt, Receipt), receipt
        return receipt

    def do_requests(self) -> None:
        """Handle the events of whatever is in the bucket and was not handled yet, in the order in which it came."""
        for stored in sorted(self.bucket.uploads(), key=lambda stored: stored.uploaded_at):
            batch_id = self.bucket.batch_id(stored.key, stored.version)
            if not self.register.intake(batch_id) and not self.bucket.receipt(stored.key, batch_id):
                self.stores.handle((stored.key, stored.version))

    # -- what the schedules do

    def names(self, programme: Programme) -> Any:
        return file_names(programme, self.style, SUPPLIER)

    def export_use_case(self, **changes: Any) -> Export:
        export = Export(
            ledger=self.ledger,
            bucket=self.bucket,
            connect=lambda: self.client,
            names=self.names,
            recipient=self.recipient,
            workflow_id=WORKFLOW,
            holder=str(uuid.uuid4()),
            seconds_left=lambda: self.seconds_left,
            clock=self.clock,
        )
        return replace(export, **changes)

    def export(self, **event: Any) -> ExportRun:
        return self.export_use_case().run(ExportRequest.from_event(event))

    def next_night(self, **event: Any) -> ExportRun:
        self.clock.forward(days=1)
        return self.export(**event)

    def track(self) -> TrackRun:
        return Track(self.ledger, self.bucket, self.client, clock=self.clock).run()

    def collect(self) -> CollectRun:
        ports = (self.bucket, self.ledger, self.register, self.client)
        return Collect(*ports, lambda: self.seconds_left, self.answers_from, self.clock).run()

    # -- what a person does

    def resend(self, export_id: str) -> DPSExport:
        """Begin another attempt at an export: `mesh export resend`."""
        programme, _, number = export_id.rpartition("-")
        return resend(self.ledger, self.ledger.get(programme, int(number)), self.names, self.clock)

    # -- what is there

    def attempt(self, programme: str = "hpv", number: int = 1) -> Attempt:
        """Return the current attempt at an export."""
        return self.ledger.get(programme, number).attempts[-1]

    def object(self, key: str) -> bytes:
        return self.stores.object(key)

    def objects(self) -> list[str]:
        return self.stores.list_keys()

    def inbox(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Read DPS's mailbox: file names and rows, in the order in which they arrived; nothing is acknowledged."""
        found = []
        for message_id in self.receiver.inbox():
            with self.receiver.download(message_id) as message:
                text = message.read().decode()
                rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter="|"))
                found.append((message.filename or "", rows))
        return found

    def acknowledge(self) -> None:
        for message_id in list(self.receiver.inbox()):
            self.receiver.acknowledge(message_id)


def resend(ledger: Ledger, export: DPSExport, names: Callable[[Programme], Any], clock: Clock) -> DPSExport:
    """Begin another attempt at an export, as a person asks for it."""
    from vaccinations.model.programmes import PROGRAMMES

    begin = partial(lifecycle.resend, now=clock())
    return ledger.begin_attempt(export, begin, names(PROGRAMMES[export.programme]))
