"""Each function's role allows what the function does, and nothing else.

Nothing enforces roles here, so a missing right would show in AWS only, at night. The functions run through their story
while moto records what they ask for, and that is compared with the roles of the template.
"""

from __future__ import annotations

import base64
import csv
import fnmatch
import io
import json
import re
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import pytest
import requests

from local.dps import Dps
from local.sample import corrected_upload, sample_upload
from local.stack import PROJECT, RECEIVER, SENDER, LocalCloud
from local.template import Template
from vaccinations.aws.bucket import receipt_key
from vaccinations.results import ParkedUpload, document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.sample import SampleUpload


#: An action and what it is done to, named by logical id: ("s3:GetObject", "Bucket/exports/hpv/1/manifest.json").
type Right = tuple[str, str]

TEMPLATE = Template.read(PROJECT / "template.yaml")
ROLES = {
    name: function["Properties"]["Role"]["Fn::GetAtt"][0]
    for name, function in TEMPLATE.resources("AWS::Lambda::Function").items()
}

#: What the story does not show, and why it is allowed all the same.
NOT_IN_THE_STORY = {
    "s3:AbortMultipartUpload": "a large upload that fails half-way is cleared away",
    "s3:ListBucket": "asked by S3 itself, for a key that is not there",
    "kms:Decrypt": "asked by the services on the function's behalf",
    "kms:GenerateDataKey": "asked by the services on the function's behalf",
    "logs:CreateLogStream": "done by Lambda",
    "logs:PutLogEvents": "done by Lambda",
    "sqs:ReceiveMessage": "done by Lambda",
    "sqs:DeleteMessage": "done by Lambda",
    "sqs:GetQueueAttributes": "done by Lambda",
    "sqs:ChangeMessageVisibility": "done where an upload fails",
    "xray:PutTraceSegments": "there is no X-Ray here",
    "xray:PutTelemetryRecords": "there is no X-Ray here",
}


@pytest.fixture(scope="module")
def used() -> dict[str, set[Right]]:
    """Run the functions through their story; return what each asked AWS for."""
    with LocalCloud(built=True) as cloud:
        requests.post(f"{cloud.endpoint_url}/moto-api/recorder/start-recording", timeout=10).raise_for_status()
        tell(cloud)
        return dict(recorded(cloud))


def tell(cloud: LocalCloud) -> None:
    sample = some_of(sample_upload(datetime.now(ZoneInfo("Europe/London")).date()))

    def upload(name: str, body: bytes, organisation: str = "R1L") -> None:
        time.sleep(1)  # nobody knows the order of uploads of one second
        bucket = cloud.outputs["BucketName"]
        cloud.client("s3").put_object(Bucket=bucket, Key=f"incoming/{organisation}/{name}", Body=body)
        cloud.drain()

    upload("nonsense.csv", b"\0\1\2")
    upload("monday.csv", sample.csv)
    upload("copied.csv", sample.csv, "RX1")  # is about another's records, and an older upload of theirs has no intake
    cloud.invoke("ValidateFunction")
    with wrong_password(cloud):
        assert {export["status"] for export in cloud.invoke("ExportFunction")["exports"]} == {"pending"}
    resumed = cloud.invoke("ExportFunction", {"resume_only": True})["exports"]
    assert {export["status"] for export in resumed} == {"accepted"}
    with cloud.sandbox.client(RECEIVER) as receiver:
        assert Dps(receiver, refuse=_refuse).work()
        receiver.send_file(SENDER, "letters", b"Dear sender", filename="letter.txt")
        receiver.send_file(SENDER, "letters", bytes(300), compress=False, chunk_size=200)
    assert cloud.invoke("TrackFunction")["exports"]
    assert cloud.invoke("CollectFunction")["messages"]
    upload("monday-again.csv", sample.csv)
    with restored(cloud):
        upload("tuesday.csv", corrected_upload(sample))
        cloud.invoke("ExportFunction")
    assert cloud.invoke("ReconcileFunction", {"restored": True})["exports"]
    assert cloud.invoke("CollectFunction", {"again": True})["messages"]
    cloud.drain()
    cloud.invoke("ExportFunction")
    requeue_an_undelivered_export(cloud)
    cloud.invoke("ExportFunction", {"dry_run": True})
    reconcile_an_upload_without_event(cloud)
    assert "hpv-2" in cloud.invoke("StatusFunction")


def some_of(sample: SampleUpload) -> SampleUpload:
    """Leave out most rows that nothing in particular happens to: moto takes its time over each."""
    header, instructions, *rows = csv.reader(io.StringIO(sample.csv.decode("utf-8-sig"), newline=""))
    wanted = {sample.to_update, sample.to_withdraw, *sample.to_refuse}
    some = io.StringIO(newline="")
    csv.writer(some).writerows(
        [header, instructions, *(row for n, row in enumerate(rows) if n % 10 == 0 or wanted & set(row))]
    )
    return replace(sample, csv=some.getvalue().encode("utf-8-sig"))


def _refuse(row: dict[str, str]) -> str:
    duplicate = row["DOSE_SEQUENCE"] != "1"
    return "The provided identifier: it is duplicated" if duplicate else "Validation errors: lotNumber"


def requeue_an_undelivered_export(cloud: LocalCloud) -> None:
    with cloud.sandbox.client(RECEIVER) as receiver:
        lost = list(receiver.inbox())[-1]
    about = {"code": "14", "description": "Message not collected by recipient after 5 days", "subject": "NDR"}
    names = {"workflow_id": "dps export", "local_id": "", "file_name": "", "linked_message_id": lost}
    cloud.sandbox.admin("POST", "/messageexchange/admin/report", {"mailbox_id": SENDER, **about, **names})
    assert cloud.invoke("TrackFunction")["reports"] == 1
    park_the_request(cloud)
    assert cloud.invoke("TrackFunction")["reports"] == 0
    cloud.drain()
    cloud.invoke("ExportFunction")


def park_the_request(cloud: LocalCloud) -> None:
    """Leave the receipt of a request to requeue an export that could not be completed."""
    bucket, s3 = cloud.outputs["BucketName"], cloud.client("s3")
    stored = s3.list_objects_v2(Bucket=bucket, Prefix="requests/")["Contents"]
    [request] = [each["Key"] for each in stored if each["Key"].endswith(".requeue")]
    parked = ParkedUpload(batch_id="parked", upload=request, version="", parked_at="", exports={})
    s3.put_object(Bucket=bucket, Key=receipt_key(request, "parked"), Body=json.dumps(document(parked)).encode())


def reconcile_an_upload_without_event(cloud: LocalCloud) -> None:
    bucket, s3 = cloud.outputs["BucketName"], cloud.client("s3")
    s3.put_bucket_notification_configuration(Bucket=bucket, NotificationConfiguration={})
    s3.put_object(Bucket=bucket, Key="incoming/R1L/lost.csv", Body=b"")
    assert cloud.invoke("ReconcileFunction", {"minutes": 0})["queued"] == 1
    cloud.drain()


@contextmanager
def restored(cloud: LocalCloud) -> Iterator[None]:
    """Put the tables back to what they were before."""
    dynamodb = cloud.client("dynamodb")
    tables = [cloud.outputs["DpsExportsTableName"], cloud.outputs["VaccinationRecordsTableName"]]
    before = {table: dynamodb.scan(TableName=table)["Items"] for table in tables}
    yield
    for table, items in before.items():
        keys = [each["AttributeName"] for each in dynamodb.describe_table(TableName=table)["Table"]["KeySchema"]]
        for item in dynamodb.scan(TableName=table)["Items"]:
            dynamodb.delete_item(TableName=table, Key={key: item[key] for key in keys})
        for item in items:
            dynamodb.put_item(TableName=table, Item=item)


@contextmanager
def wrong_password(cloud: LocalCloud) -> Iterator[None]:
    """Have MESH refuse Export, whose runs then make their parts and do not send them."""
    secrets, arn = cloud.client("secretsmanager"), cloud.outputs["MeshSecretArn"]
    right = secrets.get_secret_value(SecretId=arn)["SecretString"]
    secrets.put_secret_value(SecretId=arn, SecretString=json.dumps(json.loads(right) | {"password": "wrong"}))
    yield
    secrets.put_secret_value(SecretId=arn, SecretString=right)
    cloud.emulator.kill("ExportFunction")  # a function that keeps running reads the secret again after five minutes


def recorded(cloud: LocalCloud) -> dict[str, set[Right]]:
    stack = cloud.client("cloudformation").describe_stack_resources(StackName="local")["StackResources"]
    names = {resource["PhysicalResourceId"]: resource["LogicalResourceId"] for resource in stack}
    names[cloud.outputs["MeshSecretArn"]] = "MeshSecret"
    used: dict[str, set[Right]] = defaultdict(set)
    for request in documents((cloud.directory / "requests.jsonl").read_text()):
        credential = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/", request["headers"].get("Authorization", ""))
        if credential and credential[1] in ROLES:
            used[credential[1]] |= set(rights(credential[2], request, names))
    return used


def documents(text: str) -> Iterator[Any]:
    """Read JSON documents, which are not always on lines of their own: moto answers several requests at once."""
    decoder = json.JSONDecoder()
    text = text.strip()
    while text:
        document, end = decoder.raw_decode(text)
        yield document
        text = text[end:].lstrip()


def rights(service: str, request: dict[str, Any], names: dict[str, str]) -> Iterator[Right]:  # noqa: C901 - a list of services
    """Return what IAM asks for, for one request."""
    if service == "s3":
        yield from rights_on_objects(request, names)
        return
    operation = request["headers"]["X-Amz-Target"].rpartition(".")[2]
    body = json.loads(base64.b64decode(request["body"]))
    if service == "sqs":
        yield f"sqs:{operation}", body["QueueUrl"].rpartition("/")[2].removesuffix(".fifo")
        return
    if service == "events":
        yield from ((f"events:{operation}", f"event-bus/{entry['EventBusName']}") for entry in body["Entries"])
        return
    match service, operation:
        case "dynamodb", "TransactWriteItems":
            for item in body["TransactItems"]:
                ((kind, what),) = item.items()
                action = "ConditionCheckItem" if kind == "ConditionCheck" else f"{kind}Item"
                yield f"dynamodb:{action}", names[what["TableName"]]
        case "dynamodb", "BatchGetItem" | "BatchWriteItem":
            for table in body["RequestItems"]:
                yield f"dynamodb:{operation}", names[table]
        case "dynamodb", _:
            index = f"/index/{body['IndexName']}" if "IndexName" in body else ""
            yield f"dynamodb:{operation}", names[body["TableName"]] + index
        case "secretsmanager", _:
            yield f"secretsmanager:{operation}", names[body["SecretId"]]
        case "ssm", _:
            yield f"ssm:{operation}", body["Name"]
        case _:
            pytest.fail(f"{service}:{operation} is not known here")


def rights_on_objects(request: dict[str, Any], names: dict[str, str]) -> Iterator[Right]:
    url = urlsplit(request["url"])
    bucket, _, key = unquote(url.path).lstrip("/").partition("/")
    query = parse_qs(url.query, keep_blank_values=True)
    actions = {"GET": "GetObject", "HEAD": "GetObject", "PUT": "PutObject", "POST": "PutObject"}
    if not key:
        yield ("s3:ListBucketVersions" if "versions" in query else "s3:ListBucket"), names[bucket]
    elif request["method"] == "DELETE":
        yield ("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject"), f"{names[bucket]}/{key}"
    else:
        version = "Version" if "versionId" in query else ""
        yield f"s3:{actions[request['method']]}{version}", f"{names[bucket]}/{key}"


def allowed(function: str) -> set[Right]:
    """Return what a function's role allows, with patterns for resources."""
    found = set()
    role = TEMPLATE.resources()[ROLES[function]]["Properties"]
    for policy in role["Policies"]:
        for statement in policy["PolicyDocument"]["Statement"]:
            for action in as_list(statement["Action"]):
                found |= {(action, logical(resource)) for resource in as_list(statement["Resource"])}
    return found


def logical(resource: Any) -> str:
    """Return a resource of a policy by its logical id."""
    match resource:
        case {"Fn::GetAtt": [name, "Arn"]} | {"Ref": name}:
            return str(name)
        case {"Fn::Sub": text}:
            text = re.sub(r"^arn:.*:(parameter(?=/)|(?=event-bus/))", "", text)
            text = text.replace("${EventBus}", TEMPLATE.parameters["EventBus"]["Default"])
            text = text.replace("${AWS::StackName}", "local")
            return re.sub(r"\$\{(\w+)(\.Arn)?\}", r"\1", text)
    return str(resource)


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def covers(right: Right, use: Right) -> bool:
    return right[0] == use[0] and fnmatch.fnmatchcase(use[1], right[1])


@pytest.mark.parametrize("function", ROLES)
def test_a_function_may_do_what_it_does(used: dict[str, set[Right]], function: str) -> None:
    refused = {use for use in used[function] if not any(covers(right, use) for right in allowed(function))}
    assert refused == set()


@pytest.mark.parametrize("function", ROLES)
def test_a_function_may_do_nothing_that_it_never_does(used: dict[str, set[Right]], function: str) -> None:
    rights = {right for right in allowed(function) if right[0] not in NOT_IN_THE_STORY}
    needed = {right for right in rights if any(covers(right, use) for use in used[function])}
    assert {action for action, _ in rights} == {action for action, _ in needed}
    assert {resource for _, resource in rights} == {resource for _, resource in needed}
