"""Whatever is uploaded or answered, ingest and collect stay far below the memory of their functions."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import BUS_ACK_COLUMNS
from local.sample import make_batch_lines
from tests.usecases.stores import on_moto, on_sandbox
from vaccinations.formats.batches import entry_of
from vaccinations.formats.dps_columns import local_id_of
from vaccinations.model import lifecycle
from vaccinations.model.export import FileNames, Processing
from vaccinations.model.outcome import Outcome
from vaccinations.results import Receipt, StoredIntake

if TYPE_CHECKING:
    from pathlib import Path

    from local.sandbox import Sandbox
    from tests.usecases.stores import Stores
    from tests.usecases.world import World

#: Ingests one upload and tells how much memory that took at most, in KB, and what the receipt says.
INGEST = """
import json, sys
import boto3
from vaccinations.aws.bucket import Bucket
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.jobs.ingest import Ingest
from vaccinations.results import document

endpoint, key, bucket, exports, records = sys.argv[1:]
session = boto3.Session("testing", "testing", region_name="eu-west-2")
s3, dynamodb = (session.client(name, endpoint_url=endpoint) for name in ("s3", "dynamodb"))
ledger = Ledger(dynamodb, exports, records_table=records)
receipt = document(Ingest(Bucket(s3, bucket), Register(dynamodb, records), ledger).ingest(key, ""))
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"peak": int(peak), "receipt": receipt}), file=sys.stderr)
"""
GOOD: dict[str, Any] = {
    "forename": "Quintessa",
    "surname": "Zephyrson",
    "date_of_birth": "2012-08-18",
    "gender": "female",
    "postcode": "SW1A 1AA",
    "vaccinated_at": "2025-06-09T10:15:00+01:00",
    "programme": "hpv",
}


def zeros(megabytes: int) -> bytes:
    """Zip many bytes, never all in memory, on one line."""
    return gzip.compress(b"0" * 2**20) * megabytes


def many(line: dict[str, Any], times: int) -> bytes:
    return gzip.compress((json.dumps(line) + "\n").encode() * times, compresslevel=1)


UPLOADS = {
    "a gzip bomb without a line break": (lambda: zeros(1200), {"status": "rejected"}),
    "rows that are all bad in every field": (lambda: many(dict.fromkeys(GOOD, "?"), 60_000), {"rejected": 60_000}),
    "rows of thousands of unknown fields": (
        lambda: many({f"f{n}": 0 for n in range(5000)}, 1000),
        {"rejected": 1000},
    ),
    "rows as long as they may be": (lambda: many(GOOD | {"surname": "x" * 65_000}, 3000), {"rejected": 3000}),
}


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory from /proc")
@on_moto
@pytest.mark.parametrize(("body", "expected"), UPLOADS.values(), ids=UPLOADS)
def test_the_worst_uploads_stay_below_a_quarter_of_the_functions_memory(
    stores: Stores, endpoint: str, resources: dict[str, Any], body: Any, expected: dict[str, Any]
) -> None:
    key, _ = stores.uploaded(body(), "upload.jsonl")
    said = run(INGEST, endpoint, key, stores.bucket.bucket, *stores.tables)
    assert said["receipt"] | expected == said["receipt"]
    assert said["peak"] / 1024 < resources["IngestFunction"]["Properties"]["MemorySize"] / 4


def run(code: str, *arguments: str, told: str = "") -> dict[str, Any]:
    """Run code in a process of its own; return what it says at its end."""
    ran = subprocess.run(
        [sys.executable, "-c", code, *arguments], input=told, capture_output=True, text=True, check=False, timeout=300
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said: dict[str, Any] = json.loads(ran.stderr.splitlines()[-1])
    return said


#: Collects what waits and tells how much memory that took at most, in KB, and what it said.
COLLECT = """
import json, sys
import boto3
from nhs_mesh import Credentials, MeshClient
from vaccinations.aws.bucket import Bucket
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.jobs.collect import Collect
from vaccinations.results import document

told = json.load(sys.stdin)
session = boto3.Session("testing", "testing", region_name="eu-west-2")
s3, dynamodb = (session.client(name, endpoint_url=told["endpoint"]) for name in ("s3", "dynamodb"))
exports, records = told["tables"]
ledger, register = Ledger(dynamodb, exports, records_table=records), Register(dynamodb, records)
client = MeshClient(told["base_url"], Credentials(*told["credentials"]), **told["mesh"])
answer = document(Collect(Bucket(s3, told["bucket"]), ledger, register, client, seconds_left=lambda: 900.0).run())
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"peak": int(peak), "answer": answer}), file=sys.stderr)
"""


def intake_of(upload: str) -> StoredIntake:
    """Make what is stored of an upload of which only the name matters."""
    counts = dict.fromkeys(("rows", "unchanged", "overtaken", "skipped", "rejected", "contradictions"), 0)
    texts = dict.fromkeys(("batch_id", "version"), "")
    texts |= dict.fromkeys(("uploaded_at", "completed_at"), "2026-11-23T12:00:00+00:00")
    maps: dict[str, Any] = {name: {} for name in ("accepted", "assumed", "assumed_in", "exports")}
    receipt = Receipt(upload=upload, rejects=None, contradicting=[], **maps, **counts, **texts)  # type: ignore[arg-type]
    return StoredIntake(upload=upload, version="", receipt=receipt)


#: How many rows the large answer refuses; each but so many of them as a duplicate.
ANSWERED, INVALID = int(os.environ.get("ANSWERED", "150000")), 100


@on_sandbox
@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak of its memory from /proc")
def test_an_answer_about_every_row_of_a_large_file_stays_below_an_eighth_of_the_functions_memory(
    world: World, endpoint: str, sandbox: Sandbox, resources: dict[str, Any], tmp_path: Path
) -> None:
    lines, answer = tmp_path / "lines.gz", tmp_path / "answer.csv"
    refused = []
    codes = "Fatal Error|Fatal|Fatal Error|30002|Business|30002|Processing Error|20261123T12000000|"
    with gzip.open(lines, "wb", compresslevel=1) as batch, answer.open("w") as told:
        told.write("|".join(BUS_ACK_COLUMNS) + "\n")
        for number, line in enumerate(make_batch_lines(ANSWERED), start=1):
            batch.write(line)
            entry = entry_of(line, "large")
            why = f"The provided identifier: x#{entry.record_id} is duplicated"
            if number % (ANSWERED // INVALID) == 0:
                refused.append(entry)
                why = "Validation errors: lotNumber"
            told.write(f"file^{number}|{codes}|{local_id_of(entry.record_id)}||{why}|False\n")
    world.bucket.put_batch("hpv", "large", lines)
    world.bucket.put_intake("large", intake_of("incoming/R1L/large.csv"))
    world.register.begin("large", {"hpv": ANSWERED}, world.register.begun())
    world.ledger.attach("hpv", "large", ANSWERED)
    world.register.put(refused)
    sealing = partial(lifecycle.seal, now=world.clock())
    world.ledger.begin_attempt(world.ledger.get("hpv", 1), sealing, lambda *_: FileNames("large.csv", "large.csv"))
    with answer.open("rb") as body:
        world.receiver.send_file("X26ABC1", "acks", body, filename="large_BusAck_20261123T12000000.csv")

    certificates = sandbox.certificates
    names = ("certificate", "private_key", "passphrase", "ca_bundle")
    setup = {
        "bucket": world.stores.bucket.bucket,
        "tables": world.stores.tables,
        "endpoint": endpoint,
        "base_url": sandbox.base_url,
        "credentials": ["X26ABC1", sandbox.password, sandbox.shared_key],
        "mesh": {name: getattr(certificates, name) for name in names},
    }
    said = run(COLLECT, told=json.dumps(setup))
    [message] = said["answer"]["messages"]
    counts = {"processed": ANSWERED - len(refused), "refused": len(refused), "not_believed": 0}
    assert message["answer"] | counts == message["answer"]
    assert world.ledger.get("hpv", 1).processing is Processing.PROCESSED
    entries = world.register.get(entry.record_id for entry in refused)
    assert {entry.refusal and entry.refusal.outcome for entry in entries.values()} == {Outcome.INVALID}
    assert said["peak"] / 1024 < resources["CollectFunction"]["Properties"]["MemorySize"] / 8
