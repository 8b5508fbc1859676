"""The stores that the use cases work on, in memory or on a server, with the same promises."""

from __future__ import annotations

import csv
import io
import json
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.rows import upload_of
from vaccinations.aws.bucket import receipt_key
from vaccinations.formats.dps_columns import HEADER
from vaccinations.formats.dps_parts import read_members
from vaccinations.formats.rejects import HEADER as HEADING
from vaccinations.formats.rejects import read_rejects
from vaccinations.jobs.ingest import Ingest
from vaccinations.model.uploaders import Uploaders
from vaccinations.results import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.clocks import Clock
    from vaccinations.aws.bucket import Bucket
    from vaccinations.ports import Ledger, Register
    from vaccinations.results import AnyReceipt

__all__ = ["STORES", "WORLDS", "Stores", "in_memory", "on_every_database", "on_moto", "on_sandbox"]

#: What the fixture `stores` is, one after the other, where a test does not say.
STORES = ["memory", "moto"]
#: What the fixture `world` is, likewise; its MESH is in memory, too, or the sandbox.
WORLDS = ["memory", "moto"]
#: For tests in which it matters what DynamoDB itself does.
on_every_database = pytest.mark.parametrize("stores", [*STORES, "DynamoDB Local"], indirect=True)
#: For tests of what the servers cannot do.
in_memory = pytest.mark.parametrize("stores", ["memory"], indirect=True)
#: For tests that look at what DynamoDB is asked for.
on_moto = pytest.mark.parametrize("stores", ["moto"], indirect=True)
#: For tests about MESH itself.
on_sandbox = pytest.mark.parametrize("world", ["moto"], indirect=True)


@dataclass
class Stores:
    """Bucket, register and ledger that belong together, and what a test does from outside.

    Attributes
    ----------
    upload
        Stores an object as an uploader does; returns its version.
    list_keys
        Lists the bucket's keys.
    delete
        Deletes an object.
    uploaders
        Who may state for whom, and change whose records.
    dynamodb
        The client of the tables, where they are on a server; None in memory.
    tables
        The names of the tables of exports and of records, likewise.
    """

    bucket: Bucket
    register: Register
    ledger: Ledger
    clock: Clock
    upload: Callable[[str, bytes], str]
    list_keys: Callable[[], list[str]]
    delete: Callable[[str], object]
    uploaders: Uploaders = field(default_factory=Uploaders)
    dynamodb: Any = None
    tables: tuple[str, str] = ("", "")

    def ingest(self, body: bytes | str, name: str = "monday.csv", organisation: str = "R1L") -> AnyReceipt:
        """Upload a file and ingest it; return its receipt."""
        return self.handle(self.uploaded(body, name, organisation))

    def uploaded(self, body: bytes | str, name: str, organisation: str = "R1L") -> tuple[str, str]:
        """Upload a file, a second after what went before; return its key and version."""
        self.clock.forward(seconds=1)
        key = f"incoming/{organisation}/{name}"
        return key, self.upload(key, body.encode() if isinstance(body, str) else body)

    def handle(self, uploaded: tuple[str, str]) -> AnyReceipt:
        """Handle the event of an upload, perhaps again."""
        return self.ingesting.ingest(*uploaded)

    @property
    def ingesting(self) -> Ingest:
        """What ingests uploads."""
        return Ingest(self.bucket, self.register, self.ledger, self.clock, self.uploaders)

    def accept(self, *rows: str, name: str = "monday.csv") -> Receipt:
        """Ingest a CSV file of rows, which is no such that is rejected as a whole."""
        receipt = self.ingest(upload_of(*rows), name)
        assert isinstance(receipt, Receipt)
        return receipt

    def receipt_file(self, uploaded: tuple[str, str]) -> dict[str, Any]:
        """Return an upload's receipt as its uploader finds it."""
        found: dict[str, Any] = json.loads(self.object(receipt_key(uploaded[0], self.bucket.batch_id(*uploaded))))
        return found

    def rejects(self, receipt: AnyReceipt) -> list[dict[str, str]]:
        """Read the rejects file that a receipt names."""
        assert isinstance(receipt, Receipt)
        assert receipt.rejects
        return self.faults(receipt.rejects)

    def faults(self, key: str) -> list[dict[str, str]]:
        """Read a rejects file, or a file of refusals: one fault each."""
        return [
            dict(zip(HEADING, (str(line), each.column, each.what, each.fix), strict=True))
            for line, problems in read_rejects(io.StringIO(self.object(key).decode(), newline=""))
            for each in problems
        ]

    def queued(self, programme: str = "hpv", number: int = 1) -> list[dict[str, str]]:
        """Return the rows that wait to be sent in an export, as DPS will have them."""
        text = HEADER.decode()
        for batch_id in self.ledger.get(programme, number).batches:
            rows = self.bucket.open_rows(programme, batch_id)
            assert rows
            with closing(rows):
                text += b"".join(member.text for member in read_members(rows)).decode()
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="|"))

    def object(self, key: str) -> bytes:
        """Return the content of an object."""
        return self.bucket.open(key).body.read()
