"""Whatever is uploaded, ingest stays far below the memory of its function."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from dps.settings import Settings

#: Takes one upload in and tells how much memory that took at most, in KB, and what the receipt says.
TAKE_IN = """
import json, sys
import boto3
from dps.archive import Archive
from dps.ingest import Ingest
from dps.ledger import Ledger
from dps.register import Register
from dps.settings import Settings

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
