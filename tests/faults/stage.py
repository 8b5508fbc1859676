"""Everything that the use cases work with, anew, and each of their invocations a process that may be made to die."""

from __future__ import annotations

import json
import uuid
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from local.dps import Dps
from tests.clocks import Clock
from tests.usecases.conftest import fresh_settings
from tests.usecases.rows import upload_of
from vaccinations.aws.bucket import Bucket
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.model.programmes import URIS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from local.dps import VaccinationFile
    from local.sandbox import Sandbox
    from tests.faults.victim import Death, Run, Victim
    from vaccinations.settings import Settings

__all__ = ["DISLIKED", "Sent", "Stage", "fresh_stage"]

#: A batch of vaccine of which DPS refuses to hear.
DISLIKED = "EF9012"

type Sent = tuple[str, str, str]
"""What DPS hears of a record: its identifier, the action, the vaccine's batch number."""


@dataclass
class Stage:
    """Tables, a bucket, a queue and mailboxes of their own; every invocation is the victim's."""

    victim: Victim
    dynamodb: str
    """Where the tables are."""
    tables: Any
    """A client of them."""
    settings: Settings
    queue: str
    sqs: Any
    s3: Any
    bucket: Bucket
    register: Register
    ledger: Ledger
    sandbox: Sandbox
    dps: Dps
    clock: Clock
    part_bytes: int | None = None
    uploads: list[dict[str, str]] = field(default_factory=list)
    lost: set[str] = field(default_factory=set)
    """Messages that MESH says were never collected."""

    @property
    def files(self) -> dict[str, list[Sent]]:
        """What DPS has picked up, by message id, in the order of arrival."""
        columns = ("UNIQUE_ID", "ACTION_FLAG", "BATCH_NUMBER")
        return {
            file.message_id: [tuple(judged.row[column] for column in columns) for judged in file.rows]  # type: ignore[misc]
            for file in self.dps.files
        }

    def settings_with(self, **variables: str) -> Settings:
        """Return the settings with some variables changed."""
        return replace(self.settings, values={**self.settings.values, **variables})

    def put(self, name: str, *rows: str, announced: bool = True) -> None:
        """Upload a file; its event goes into the queue, or is lost."""
        self.clock.forward(seconds=1)
        is_request = name.endswith(".resend")
        key = f"requests/{name}" if is_request else f"incoming/R1L/{name}"
        body = "\n".join(rows) if is_request else upload_of(*rows)
        answer = self.s3.put_object(Bucket=self.settings.bucket, Key=key, Body=body.encode())
        self.uploads.append({"key": key, "version": answer["VersionId"]})
        if announced:
            self.announce(-1)

    def announce(self, which: int) -> None:
        """Put the event of an upload into the queue (again)."""
        body = json.dumps(self.uploads[which])
        again = str(uuid.uuid4())
        self.sqs.send_message(
            QueueUrl=self.queue, MessageBody=body, MessageGroupId="uploads", MessageDeduplicationId=again
        )

    def run(self, use_case: str, death: Death | None = None, **options: Any) -> Run:
        """Do one invocation; a process that dies, or that raises, is what the tests of faults are about.

        What it asks for in the bucket is then in the queue, as EventBridge puts it there.

        Raises
        ------
        AssertionError
            It raised something.
        """
        if use_case in {"ingest", "reconcile"}:
            options["queue"] = self.queue
        ran = options.pop("victim", self.victim).run(
            use_case,
            options.pop("settings", self.settings),
            dynamodb=self.dynamodb,
            now=self.clock(),
            death=death,
            part_bytes=self.part_bytes,
            **options,
        )
        assert not ran.error, ran.error
        if use_case in {"track", "collect"}:
            self._announce_requests()
        return ran

    def _announce_requests(self) -> None:
        found = self.s3.list_object_versions(Bucket=self.settings.bucket, Prefix="requests/").get("Versions", [])
        for version in sorted(found, key=lambda each: each["LastModified"]):
            request = {"key": version["Key"], "version": version["VersionId"]}
            if request not in self.uploads:
                self.uploads.append(request)
                self.announce(-1)

    def collect(self) -> list[VaccinationFile]:
        """Pick up what has arrived, as DPS would."""
        return self.dps.pick_up(leave=self.lost)

    def on_file(self, record: str) -> tuple[bool, str] | None:
        """Tell what is on file at DPS of a record: whether it was deleted, and the vaccine's batch number."""
        found = self.dps.on_file.get(f"{URIS['vaccination_record']}#{record}")
        return (found.deleted, found.row["BATCH_NUMBER"]) if found else None

    def collected(self) -> list[str]:
        """Tell which of the messages to us are kept in the bucket, whole; none may be left in the mailbox."""
        with self.sandbox.client("X26ABC1") as client:
            assert list(client.inbox()) == []
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket, Prefix="inbox/")
        keys = {item["Key"] for page in pages for item in page.get("Contents", [])}
        assert {f"{key}.json" for key in keys if not key.endswith(".json")} == {k for k in keys if k.endswith(".json")}
        return sorted(key.rpartition("/")[2] for key in keys if not key.endswith(".json"))

    def refusals(self) -> list[str]:
        """Return the lines of all files that tell uploaders what DPS refused."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.settings.bucket, Prefix="receipts/")
        keys = [item["Key"] for page in pages for item in page.get("Contents", []) if "-refused-" in item["Key"]]
        bodies = [self.s3.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read().decode() for key in keys]
        return [line for body in bodies for line in body.splitlines()[2:]]

    def lose(self, message_id: str) -> None:
        """Let MESH report that a message was not collected."""
        self.lost.add(message_id)
        about = {"code": "14", "description": "Message not collected by recipient after 5 days", "subject": "NDR"}
        names = {"workflow_id": "dps export", "local_id": "", "file_name": "", "linked_message_id": message_id}
        self.sandbox.admin("POST", "/messageexchange/admin/report", {"mailbox_id": "X26ABC1", **about, **names})

    def receipt(self, upload: dict[str, str]) -> dict[str, Any]:
        batch_id = self.bucket.batch_id(**upload)
        key = f"receipts/{upload['key'].removeprefix('incoming/')}/{batch_id}.json"
        document: dict[str, Any] = json.loads(self.s3.get_object(Bucket=self.settings.bucket, Key=key)["Body"].read())
        return document


@contextmanager
def fresh_stage(
    victim: Victim,
    aws: Callable[[str], Any],
    dynamodb: Any,
    resources: dict[str, Any],
    sandbox: Sandbox,
    *,
    part_bytes: int | None = None,
) -> Iterator[Stage]:
    """Make a stage on which nothing has happened yet.

    Parameters
    ----------
    aws
        Makes a client of a service.
    dynamodb
        The client of DynamoDB, which may be another's.
    resources
        The template's, for the tables.
    """
    s3, sqs = aws("s3"), aws("sqs")
    sandbox.reset()
    queue = sqs.create_queue(
        QueueName=f"uploads-{uuid.uuid4().hex[:12]}.fifo",
        # A message that was not deleted is there again at once, rather than when its time is over.
        Attributes={"FifoQueue": "true", "VisibilityTimeout": "0"},
    )["QueueUrl"]
    clock = Clock()
    with (
        # moto's server is in this process: its S3 dates uploads by the stage's clock.
        patch("moto.s3.models.utcnow", lambda: clock().replace(tzinfo=None)),
        fresh_settings(dynamodb, s3, resources) as settings,
        sandbox.client("X26ABC3") as receiver,
    ):
        yield Stage(
            victim,
            dynamodb.meta.endpoint_url,
            dynamodb,
            settings,
            queue,
            sqs,
            s3,
            Bucket(s3, settings.bucket),
            Register(dynamodb, settings.records_table),
            Ledger(dynamodb, settings.exports_table, settings.records_table),
            sandbox,
            Dps(receiver, refuse=_dislike, clock=clock),
            clock,
            part_bytes=part_bytes,
        )
    sqs.delete_queue(QueueUrl=queue)


def _dislike(row: dict[str, str]) -> str | None:
    disliked = row["BATCH_NUMBER"] == DISLIKED and row["ACTION_FLAG"] != "delete"
    return "Validation errors: lotNumber is not a batch of this vaccine" if disliked else None
