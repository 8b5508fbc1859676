"""A small world for tests of the use cases: the rooms on moto's server, MESH on the sandbox, a clock to turn."""

from __future__ import annotations

import csv
import io
import json
import uuid
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from vaccinations.aws.bucket import receipt_key
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.export import Export, ExportRequest
from vaccinations.jobs.ingest import Ingest
from vaccinations.jobs.track import Track

if TYPE_CHECKING:
    from nhs_mesh import MeshClient
    from vaccinations.aws.bucket import Archive
    from vaccinations.aws.ledger import Ledger
    from vaccinations.aws.register import Register
    from vaccinations.settings import Settings


class Clock:
    """A clock that stands still at noon until it is turned: a day is the same in London then as in UTC."""

    def __init__(self) -> None:
        self.now = datetime.now(UTC).replace(hour=12, minute=0, second=0, microsecond=0)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, **period: float) -> None:
        """Turn it forward."""
        self.now += timedelta(**period)


@dataclass
class World:
    settings: Settings
    archive: Archive
    register: Register
    ledger: Ledger
    clock: Clock
    client: MeshClient
    receiver: MeshClient
    s3: Any
    seconds_left: float = 900.0
    uploads: list[tuple[str, str]] = field(default_factory=list)

    def upload(self, body: bytes | str, name: str = "monday.csv", organisation: str = "R1L") -> dict[str, Any]:
        """Put an upload into the bucket and take it in; return its receipt as the uploader finds it."""
        key = f"incoming/{organisation}/{name}"
        data = body.encode() if isinstance(body, str) else body
        answer = self.s3.put_object(Bucket=self.settings.bucket, Key=key, Body=data)
        self.uploads.append((key, answer.get("VersionId", "")))
        return self.take_in()

    def take_in(self, which: int = -1) -> dict[str, Any]:
        """Handle the event of an upload (again)."""
        key, version = self.uploads[which]
        Ingest(self.archive, self.register, self.ledger).take_in(key, version)
        receipt: dict[str, Any] = json.loads(self.object(receipt_key(key, self.archive.batch_id(key, version))))
        return receipt

    def object(self, key: str) -> bytes:
        body: bytes = self.s3.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read()
        return body

    def objects(self) -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket)
        return [item["Key"] for page in pages for item in page.get("Contents", [])]

    def rejects(self, receipt: dict[str, Any]) -> list[dict[str, str]]:
        """Read the rejects file that a receipt names."""
        text = self.object(receipt["rejects"]).decode()
        return list(csv.DictReader(io.StringIO(text, newline="")))

    def export_use_case(self, **changes: Any) -> Export:
        export = Export(
            self.settings,
            self.ledger,
            self.archive,
            connect=lambda: self.client,
            holder=str(uuid.uuid4()),
            seconds_left=lambda: self.seconds_left,
            clock=self.clock,
        )
        return replace(export, **changes)

    def export(self, **event: Any) -> dict[str, Any]:
        return self.export_use_case().run(ExportRequest.from_event(event))

    def next_night(self, **event: Any) -> dict[str, Any]:
        self.clock.forward(days=1)
        return self.export(**event)

    def track(self) -> dict[str, Any]:
        return Track(self.ledger, self.client, clock=self.clock).run()

    def collect(self) -> dict[str, Any]:
        rooms = (self.archive, self.ledger, self.register, self.client)
        return Collect(*rooms, seconds_left=lambda: self.seconds_left, clock=self.clock).run()

    def inbox(self) -> list[tuple[str, list[dict[str, str]]]]:
        """Read DPS's mailbox: file names and rows, in the order they arrived; nothing is acknowledged."""
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


HEADER = (
    "UUID,NHS_NUMBER,PERSON_FORENAME,PERSON_SURNAME,PERSON_DOB,PERSON_GENDER_CODE,PERSON_POSTCODE,"
    "VACCINATED,DATE_OF_VACCINATION,PROGRAMME,VACCINE_GIVEN,BATCH_NUMBER,ANATOMICAL_SITE,DOSE_SEQUENCE"
)


def row(
    n: int, programme: str = "HPV", vaccinated: str = "Y", batch: str = "AB1234", forename: str = "Quintessa"
) -> str:
    """One line of an upload, with an identifier that follows from ``n``."""
    vaccines = {
        "HPV": "Gardasil9",
        "Flu": "AstraZeneca Fluenz",
        "MenACWY": "MenQuadfi",
        "MMR": "Priorix",
        "Td/IPV": "Revaxis",
    }
    site = "nasal" if programme == "Flu" else "left upper arm"
    return (
        f"{uuid_of(n)},,{forename},Zephyrson,2012-08-18,female,SW1A 1AA,{vaccinated},2026-10-01,{programme},"
        f"{vaccines[programme]},{batch},{site},1"
    )


def uuid_of(n: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))


def upload_of(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"
