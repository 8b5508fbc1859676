"""Alarms, dashboard and saved queries look at what the functions really write.

The functions run through everything that those are about, and what they write is compared with watching.yaml:
metrics in CloudWatch's embedded metric format by name, dimensions and namespace, other lines by their keys.
"""

from __future__ import annotations

import copy
import json
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps, JudgedRow
from local.emulator import Emulator, FunctionError
from local.stack import PROJECT, RECEIVER, SENDER, LocalCloud
from local.template import Template
from tests import watching
from tests.usecases.rows import row, upload_of
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.watching import Metric

TEMPLATE = Template.read(PROJECT / "template.yaml")
WATCHING = Template.read(PROJECT / "watching.yaml")


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> str:
    with LocalCloud() as cloud:
        return tell(cloud, tmp_path_factory.mktemp("broken"))


@pytest.fixture(scope="module")
def emitted(log: str) -> set[Metric]:
    return set(metrics(log))


@pytest.fixture(scope="module")
def lines(log: str) -> list[dict[str, Any]]:
    """Return what the logger wrote."""
    return [json.loads(line) for line in log.splitlines() if line.startswith('{"level"')]


def tell(cloud: LocalCloud, folder: Path) -> str:
    """Have everything happen that alarms are about; return what the functions wrote."""
    bucket, s3 = cloud.outputs["BucketName"], cloud.client("s3")

    def upload(name: str, body: str) -> None:
        s3.put_object(Bucket=bucket, Key=f"incoming/R1A/{name}", Body=body.encode())
        cloud.drain()

    def export(programme: str, **event: Any) -> str:
        answer = cloud.invoke("ExportFunction", {"programme": programme, **event})
        return str(answer["exports"][0]["status"])

    cloud.invoke("ValidateFunction")
    bad = row(9).replace("SW1A 1AA", "nonsense")
    upload("monday.csv", upload_of(row(1), row(2, "MenACWY"), row(3, "Flu"), row(4, "MMR"), row(5, "Td/IPV"), bad))
    # An intake whose batches are gone was tried often enough: the next upload parks it.
    lost = {
        "batches": {"M": {"flu": {"N": "1"}}},
        "attached": {"M": {}},
        "finished": {"BOOL": False},
        "sends": {"BOOL": True},
    }
    for item in (
        {"record_id": {"S": "batch#lost"}, "tries": {"SS": ["1", "2", "3"]}, **lost},
        {"record_id": {"S": "unfinished"}, "batch_ids": {"SS": ["lost"]}},
    ):
        cloud.client("dynamodb").put_item(TableName=cloud.outputs["VaccinationRecordsTableName"], Item=item)
    upload("monday.xlsx", "not a kind of file that is ingested")

    # MESH refuses flu's file, and EventBridge cannot be reached.
    broken = {"DPS_MAILBOX": "X26NOBODY", "AWS_ENDPOINT_URL_EVENTBRIDGE": "http://127.0.0.1:9"}
    environments = {name: cloud.environment(name) | broken for name in TEMPLATE.functions()}
    environments["CollectFunction"]["BUCKET"] = "no-such-bucket"
    emulator = Emulator(PROJECT, folder, TEMPLATE.functions(), environments, cloud.endpoint_url)
    [refused] = emulator.invoke("ExportFunction", {"programme": "flu"})["exports"]
    assert refused["status"] == "failed"

    # An upload is not there.
    detail = {"bucket": {"name": bucket}, "object": {"key": "incoming/R1A/gone.csv", "version-id": ""}}
    with pytest.raises(FunctionError):
        emulator.invoke("IngestFunction", {"Records": [{"messageId": "1", "body": json.dumps({"detail": detail})}]})

    # HPV's file is sent by somebody else under the same local id, after a run died right after sending it.
    assert export("hpv") == "accepted"
    with cloud.sandbox.client(SENDER) as sender:
        sender.send_file(RECEIVER, "dps export", b"the same", local_id="hpv-1-1")
    cloud.client("dynamodb").update_item(
        TableName=cloud.outputs["DpsExportsTableName"],
        Key={"programme": {"S": "hpv"}, "number": {"N": "1"}},
        UpdateExpression="SET #status = :pending REMOVE message_id",
        ExpressionAttributeNames={"#status": "status"},
        ExpressionAttributeValues={":pending": {"S": "pending"}},
    )
    assert export("hpv", resume_only=True) == "unclear"

    # MenACWY's batch is lost, and DPS does not fetch MMR's file.
    for batch in s3.list_objects_v2(Bucket=bucket, Prefix="batches/menacwy/")["Contents"]:
        s3.delete_object(Bucket=bucket, Key=batch["Key"])
    assert export("menacwy") == "error"
    assert export("mmr") == "accepted"
    with unknown_to_mesh(cloud, "mmr"):
        assert emulator.invoke("TrackFunction")["status"] == "incomplete"
    with cloud.sandbox.client(SENDER) as sender:
        lost = sender.track_by_local_id("mmr-1-1").message_id
    about = {"code": "14", "description": "Message not collected", "subject": "NDR"}
    names = {"mailbox_id": SENDER, "workflow_id": "dps export", "local_id": "", "file_name": ""}
    for linked in (lost, "20240823200000000000_UNKNOWN"):
        report = {**about, **names, "linked_message_id": linked}
        cloud.sandbox.admin("POST", "/messageexchange/admin/report", report)
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    assert emulator.invoke("TrackFunction")["reports"] == 2
    key = "requests/mmr-1.requeue"
    version = s3.head_object(Bucket=bucket, Key=key)["VersionId"]
    request = {"bucket": {"name": bucket}, "object": {"key": key, "version-id": version}}
    emulator.invoke("IngestFunction", {"Records": [{"messageId": "2", "body": json.dumps({"detail": request})}]})
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={"EventBridgeConfiguration": {}})

    # DPS refuses Td/IPV's file, and flu's row; it answers a row and a file that there never were, and nonsense.
    assert export("flu") == "accepted"
    with wrong_password(cloud):
        assert export("td_ipv") == "pending"
    assert export("td_ipv") == "accepted"
    with cloud.sandbox.client(RECEIVER) as receiver:
        dps = Dps(receiver, refuse=lambda _: "Unable to determine diagnostics issue")
        *_, flu, td_ipv = dps.pick_up()
        cloud.invoke("TrackFunction")
        flu.rows.append(JudgedRow(2, flu.rows[0].row, "Validation errors: lotNumber"))
        td_ipv.problem = "its headers are missing or wrong"
        # That of Td/IPV it says again once it has processed the rows.
        for file in (flu, td_ipv, td_ipv, replace(flu, name="Unheard-of.csv")):
            dps.answer(file, formats={"csv"})
        name = f"{td_ipv.name.rpartition('.')[0]}_InfAck_20240823T20000000.csv"
        receiver.send_file(SENDER, "dps export ack", b"nonsense", filename=name)
    assert emulator.invoke("CollectFunction")["status"] == "incomplete"
    # What DPS says is kept, and nobody hears of it on EventBridge.
    environments["CollectFunction"]["BUCKET"] = bucket
    emulator.kill("CollectFunction")
    assert emulator.invoke("CollectFunction")["status"] == "ok"
    cloud.invoke("CollectFunction")

    # The event of an upload never arrives.
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.put_object(Bucket=bucket, Key="incoming/R1A/lost.csv", Body=b"")
    assert cloud.invoke("ReconcileFunction", {"minutes": 0})["queued"] == 1

    # The jobs are off: switched off by somebody, and never switched on.
    flag, ssm = cloud.outputs["MeshJobsParameterName"], cloud.client("ssm")
    jobs = ("ValidateFunction", "ExportFunction", "TrackFunction", "CollectFunction")
    ssm.put_parameter(Name=flag, Value="disabled", Overwrite=True)
    for function in jobs:
        cloud.invoke(function)
    ssm.delete_parameter(Name=flag)
    for function in jobs:
        cloud.invoke(function)
    written = [*cloud.logs().values(), *(emulator.log(name) for name in TEMPLATE.functions())]
    emulator.close()
    return "\n".join(written)


@contextmanager
def unknown_to_mesh(cloud: LocalCloud, programme: str) -> Iterator[None]:
    """Have the ledger ask about a message that MESH does not know."""
    key = {"programme": {"S": programme}, "number": {"N": "1"}}
    table, dynamodb = cloud.outputs["DpsExportsTableName"], cloud.client("dynamodb")
    item = dynamodb.get_item(TableName=table, Key=key)["Item"]
    asking = copy.deepcopy(item)
    asking["attempts"]["L"][-1]["M"]["message_id"] = {"S": "20240823200000000000_UNKNOWN"}
    dynamodb.put_item(TableName=table, Item=asking)
    yield
    dynamodb.put_item(TableName=table, Item=item)


@contextmanager
def wrong_password(cloud: LocalCloud) -> Iterator[None]:
    """Have MESH let nobody in."""
    secrets, arn = cloud.client("secretsmanager"), cloud.outputs["MeshSecretArn"]
    right = secrets.get_secret_value(SecretId=arn)["SecretString"]
    cloud.emulator.kill("ExportFunction")  # a function that keeps running reads the secret again after five minutes
    secrets.put_secret_value(SecretId=arn, SecretString=json.dumps(json.loads(right) | {"password": "wrong"}))
    yield
    secrets.put_secret_value(SecretId=arn, SecretString=right)
    cloud.emulator.kill("ExportFunction")


def metrics(log: str) -> Iterator[Metric]:
    """Read a log's lines in embedded metric format as CloudWatch does."""
    for line in log.splitlines():
        if line.startswith('{"_aws"'):
            written = json.loads(line)
            for directive in written["_aws"]["CloudWatchMetrics"]:
                assert directive["Namespace"] == watching.OURS
                for metric in directive["Metrics"]:
                    for names in directive["Dimensions"]:
                        yield metric["Name"], frozenset((name, written[name]) for name in names)


def of_alarms() -> Iterator[Metric]:
    """Return the metrics of ours that alarms look at."""
    return (metric for namespace, metric in watching.of_alarms(WATCHING) if namespace == watching.OURS)


def missing(wanted: Iterable[Metric], emitted: set[Metric]) -> set[str]:
    return {name for name, dimensions in wanted if (name, dimensions) not in emitted}


def test_every_metric_that_an_alarm_looks_at_is_one_that_the_functions_emit(emitted: set[Metric]) -> None:
    assert len(list(of_alarms())) > 15
    assert not missing(of_alarms(), emitted)


def test_every_metric_on_the_dashboard_is_one_that_the_functions_emit(emitted: set[Metric]) -> None:
    shown = set(of_dashboard())
    assert len(shown) > 25
    assert not missing(shown, emitted | {(name, of_any_programme(dimensions)) for name, dimensions in emitted})


def test_every_metric_that_the_functions_emit_is_heard_by_an_alarm_or_shown(emitted: set[Metric]) -> None:
    heard = {name for name, _ in (*of_alarms(), *of_dashboard())}
    assert {name for name, _ in emitted} - heard == set()


def test_a_programme_is_named_by_the_key_of_the_reference_data(emitted: set[Metric]) -> None:
    programmes = {programme for _, dimensions in emitted if (programme := of_programme(dimensions))}
    assert {"flu", "hpv"} <= programmes <= set(PROGRAMMES)


def of_dashboard() -> Iterator[Metric]:
    """Return the metrics of ours that the dashboard shows."""
    return (metric for namespace, metric in watching.of_dashboard(WATCHING) if namespace == watching.OURS)


def of_programme(dimensions: frozenset[tuple[str, str]]) -> str | None:
    return dict(dimensions).get("programme")


def of_any_programme(dimensions: frozenset[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    return frozenset((name, watching.ANY if name == "programme" else value) for name, value in dimensions)


def test_every_metric_that_the_functions_emit_by_programme_is_on_the_dashboard(emitted: set[Metric]) -> None:
    elsewhere = {"ExportErrors", "ExportsUnclear", "ExportsDelayed"}  # shown for all programmes together
    by_programme = {name for name, dimensions in emitted if of_programme(dimensions)}
    assert {name for name, dimensions in of_dashboard() if of_programme(dimensions)} == by_programme - elsewhere


@pytest.mark.parametrize(("name", "query"), watching.queries(WATCHING).items())
def test_a_saved_query_asks_for_keys_and_texts_that_log_lines_have(
    name: str, query: str, lines: list[dict[str, Any]]
) -> None:
    services = {"uploads": {"ingest"}, "night": {"export"}, "answers": {"collect"}}.get(name.removeprefix("local/"))
    asked = [line for line in lines if services is None or line["service"] in services]
    assert watching.fields(query) <= {key for line in asked for key in line}
    assert watching.texts(query) <= {v for line in asked for v in line.values() if isinstance(v, str)} | {"CRITICAL"}
