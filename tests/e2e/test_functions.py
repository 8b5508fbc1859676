"""Promises of the functions as such: what they do when something is switched off, wrong or missing."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from local.emulator import FunctionError
from local.stack import LocalCloud
from tests.usecases.rows import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        yield running


def put_upload(cloud: LocalCloud, name: str, body: str) -> None:
    cloud.client("s3").put_object(Bucket=cloud.outputs["BucketName"], Key=f"incoming/R1L/{name}", Body=body.encode())
    cloud.drain()


def everything(cloud: LocalCloud) -> str:
    """All that is in the tables, the bucket and the receiver's mailbox."""
    dynamodb, s3 = cloud.client("dynamodb"), cloud.client("s3")
    tables = [cloud.outputs[f"{name}TableName"] for name in ("DpsExports", "VaccinationRecords")]
    items = [dynamodb.scan(TableName=table)["Items"] for table in tables]
    objects = s3.list_objects_v2(Bucket=cloud.outputs["BucketName"]).get("Contents", [])
    with cloud.sandbox.client("X26ABC3") as receiver:
        return str([items, [item["Key"] for item in objects], list(receiver.inbox())])


@pytest.fixture
def jobs_off(cloud: LocalCloud) -> Iterator[None]:
    def switch(value: str) -> None:
        name = cloud.outputs["MeshJobsParameterName"]
        cloud.client("ssm").put_parameter(Name=name, Value=value, Type="String", Overwrite=True)

    switch("disabled")
    yield
    switch("enabled")


@pytest.mark.parametrize("job", ["validate", "export", "track", "collect"])
def test_while_mesh_jobs_is_off_a_job_says_so_counts_it_and_touches_nothing(
    cloud: LocalCloud, jobs_off: None, job: str
) -> None:
    put_upload(cloud, f"before-{job}.csv", upload_of(row(1)))
    before = everything(cloud)
    function = f"{job.capitalize()}Function"
    assert cloud.invoke(function) == {"status": "skipped"}
    assert everything(cloud) == before
    log = cloud.logs()[function]
    assert "skipped: mesh_jobs is off" in log
    assert '"JobsSkipped":[1.0]' in log


def test_two_programmes_may_be_exported_at_the_same_time(cloud: LocalCloud) -> None:
    put_upload(cloud, "both.csv", upload_of(row(200), row(201, "MenACWY"), row(202)))
    with ThreadPoolExecutor() as threads:
        runs = [threads.submit(cloud.invoke, "ExportFunction", {"programme": key}) for key in ("hpv", "menacwy")]
        [hpv], [menacwy] = (run.result()["exports"] for run in runs)
    assert (hpv["status"], menacwy["status"]) == ("accepted", "accepted")
    assert menacwy["records"] == 1
    with cloud.sandbox.client("X26ABC3") as receiver:
        arrived = list(receiver.inbox())
    assert {hpv["message_id"], menacwy["message_id"]} <= set(arrived)
    assert len(arrived) == len(set(arrived))


def test_uploads_are_ingested_while_mesh_jobs_is_off(cloud: LocalCloud, jobs_off: None) -> None:
    put_upload(cloud, "off.csv", upload_of(row(100)))
    assert "receipts/R1L/off.csv/" in everything(cloud)


def test_an_event_with_an_unknown_key_is_refused_by_its_name(cloud: LocalCloud) -> None:
    with pytest.raises(FunctionError, match="unknown key 'programm' in the event") as caught:
        cloud.invoke("ExportFunction", {"programm": "hpv"})
    assert caught.value.error_type == "InvalidEvent"


def test_a_secret_that_lacks_a_field_is_named_without_showing_any(cloud: LocalCloud) -> None:
    manager, name = cloud.client("secretsmanager"), cloud.outputs["MeshSecretArn"]
    whole = manager.get_secret_value(SecretId=name)["SecretString"]
    broken = json.loads(whole) | {"shared_key": ""}
    manager.put_secret_value(SecretId=name, SecretString=json.dumps(broken))
    try:
        with pytest.raises(FunctionError, match="the MESH secret lacks shared_key") as caught:
            cloud.invoke("ValidateFunction")
    finally:
        manager.put_secret_value(SecretId=name, SecretString=whole)
    shown = str(caught.value) + "".join(caught.value.stack_trace) + cloud.logs()["ValidateFunction"]
    for field in ("password", "private_key_passphrase"):
        assert broken[field] not in shown.replace("private_key_passphrase", "").replace('"password"', "")


def test_a_file_for_nobody_gets_its_receipt_too(cloud: LocalCloud) -> None:
    s3, bucket = cloud.client("s3"), cloud.outputs["BucketName"]
    s3.put_object(Bucket=bucket, Key="incoming/lost.csv", Body=b"anything")
    cloud.drain()
    [receipt] = s3.list_objects_v2(Bucket=bucket, Prefix="receipts/lost.csv/")["Contents"]
    document = json.loads(s3.get_object(Bucket=bucket, Key=receipt["Key"])["Body"].read())
    assert (document["status"], document["reason"]) == ("rejected", "the folder does not tell whose upload this is")
