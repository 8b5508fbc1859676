"""Whatever is uploaded or answered, ingest and collect stay far below the memory of their functions."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import BUS_ACK_COLUMNS
from local.sample import make_batch_lines
from vaccinations.aws.ledger import Processing
from vaccinations.aws.register import Entry
from vaccinations.formats.acknowledgements import Outcome
from vaccinations.formats.dps_columns import local_id_of

if TYPE_CHECKING:
    from pathlib import Path

    from local.sandbox import Sandbox
    from tests.usecases.world import World
    from vaccinations.settings import Settings

#: Takes one upload in and tells how much memory that took at most, in KB, and what the receipt says.
TAKE_IN = """
import json, sys
import boto3
from vaccinations.aws.bucket import Archive
from vaccinations.jobs.ingest import Ingest
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.settings import Settings

endpoint, key, settings = sys.argv[1], sys.argv[2], Settings(**json.loads(sys.argv[3]))
session = boto3.Session("testing", "testing", region_name="eu-west-2")
s3, dynamodb = (session.client(name, endpoint_url=endpoint) for name in ("s3", "dynamodb"))
archive = Archive(s3, settings.bucket)
ingest = Ingest(archive, Register(dynamodb, settings.records_table), Ledger(dynamodb, settings.exports_table))
receipt = ingest.take_in(key, "")
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
@pytest.mark.parametrize(("body", "expected"), UPLOADS.values(), ids=UPLOADS)
def test_the_worst_uploads_stay_below_a_quarter_of_the_functions_memory(
    endpoint: str, s3: Any, settings: Settings, resources: dict[str, Any], body: Any, expected: dict[str, Any]
) -> None:
    key = "incoming/R1L/upload.jsonl"
    s3.put_object(Bucket=settings.bucket, Key=key, Body=body())
    ran = subprocess.run(
        [sys.executable, "-c", TAKE_IN, endpoint, key, json.dumps(asdict(settings))],
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = json.loads(ran.stderr.splitlines()[-1])
    assert said["receipt"] | expected == said["receipt"]
    assert said["peak"] / 1024 < resources["IngestFunction"]["Properties"]["MemorySize"] / 4


#: Collects what waits and tells how much memory that took at most, in KB, and what it said.
COLLECT = """
import json, sys
import boto3
from vaccinations.aws.bucket import Archive
from vaccinations.jobs.collect import Collect
from vaccinations.aws.ledger import Ledger
from vaccinations.aws.register import Register
from vaccinations.settings import Settings
from nhs_mesh import Credentials, MeshClient

told = json.load(sys.stdin)
settings = Settings(**told["settings"])
session = boto3.Session("testing", "testing", region_name="eu-west-2")
s3, dynamodb = (session.client(name, endpoint_url=told["endpoint"]) for name in ("s3", "dynamodb"))
ledger, register = Ledger(dynamodb, settings.exports_table), Register(dynamodb, settings.records_table)
client = MeshClient(told["base_url"], Credentials(*told["credentials"]), **told["mesh"])
answer = Collect(Archive(s3, settings.bucket), ledger, register, client, seconds_left=lambda: 900.0).run()
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(json.dumps({"peak": int(peak), "answer": answer}), file=sys.stderr)
"""
#: How many rows the large answer refuses; each but so many of them as a duplicate.
ANSWERED, INVALID = int(os.environ.get("ANSWERED", "150000")), 100


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
            entry = Entry.of_line(line, "large")
            why = f"The provided identifier: x#{entry.record_id} is duplicated"
            if number % (ANSWERED // INVALID) == 0:
                refused.append(entry)
                why = "Validation errors: lotNumber"
            told.write(f"file^{number}|{codes}|{local_id_of(entry.record_id)}||{why}|False\n")
    world.archive.put_batch("hpv", "large", lines)
    world.archive.put_intake("large", {"upload": "incoming/R1L/large.csv"})
    world.register.begin("large", {"hpv": ANSWERED})
    world.ledger.attach("hpv", "large", ANSWERED, lambda number: world.register.attaching("large", "hpv", number))
    world.register.put(refused)
    export = world.ledger.seal(world.ledger.get("hpv", 1), lambda *_: ("large.csv", "large.csv"))
    with answer.open("rb") as body:
        world.receiver.send_file("X26ABC1", "acks", body, filename="large_BusAck_20261123T12000000.csv")

    certificates = sandbox.certificates
    names = ("certificate", "private_key", "passphrase", "ca_bundle")
    setup = {
        "settings": asdict(world.settings),
        "endpoint": endpoint,
        "base_url": sandbox.base_url,
        "credentials": ["X26ABC1", sandbox.password, sandbox.shared_key],
        "mesh": {name: getattr(certificates, name) for name in names},
    }
    ran = subprocess.run(
        [sys.executable, "-c", COLLECT],
        input=json.dumps(setup),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    said = json.loads(ran.stderr.splitlines()[-1])
    [message] = said["answer"]["messages"]
    counts = {"taken": ANSWERED - len(refused), "refused": len(refused), "not_believed": 0}
    assert message["answer"] | counts == message["answer"]
    assert world.ledger.get("hpv", export.number).processing is Processing.PROCESSED
    entries = world.register.get(entry.record_id for entry in refused)
    assert {entry.refused and entry.refused.outcome for entry in entries.values()} == {Outcome.INVALID}
    assert said["peak"] / 1024 < resources["CollectFunction"]["Properties"]["MemorySize"] / 8
