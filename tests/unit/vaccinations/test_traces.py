"""Promises about traces: what X-Ray's daemon is sent of an invocation that X-Ray samples."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import suppress

INVOCATION = """
import contextlib, sqlite3
from types import SimpleNamespace
import boto3
from botocore.config import Config
from vaccinations.telemetry import observed

@observed
def lambda_handler(event, context):
    config = Config(retries={"total_max_attempts": 1})
    session = boto3.Session("id", "key", region_name="eu-west-2")
    with contextlib.suppress(Exception):
        s3 = session.client("s3", endpoint_url="http://127.0.0.1:9", config=config)
        s3.get_object(Bucket="bucket", Key="incoming/R1L/Quintessa.csv")
    sqlite3.connect(":memory:").execute("SELECT 'Quintessa'")

names = ("function_name", "memory_limit_in_mb", "invoked_function_arn", "aws_request_id")
lambda_handler({}, SimpleNamespace(**dict.fromkeys(names, "1")))
"""


def test_a_trace_holds_neither_keys_of_objects_nor_what_is_kept_on_disk_meanwhile() -> None:
    """A file's name may hold a child's. X-Ray's SDK would note the key of each object that S3 is asked for."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        there = {
            "AWS_XRAY_DAEMON_ADDRESS": f"127.0.0.1:{daemon.getsockname()[1]}",
            "_X_AMZN_TRACE_ID": "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            "LAMBDA_TASK_ROOT": "/var/task",
        }
        subprocess.run([sys.executable, "-c", INVOCATION], env=os.environ | there, check=True, timeout=60)
        traces = ""
        with suppress(BlockingIOError):
            while True:
                traces += daemon.recv(65536).decode()
    assert "lambda_handler" in traces
    assert "Quintessa" not in traces
