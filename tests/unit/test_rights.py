"""Who may do what: policies of roles, people, uploaders, and of key, queues, topic and bucket, evaluated as IAM does.

That each role allows what its function really asks AWS for is in tests/e2e/local/test_roles.py. What it takes of the
key for that is derived here, since AWS's services ask for it on the function's behalf and no record shows it.
"""

from __future__ import annotations

import json
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import pytest

from local.stack import PROJECT
from local.template import Template
from mesh_cli.deployment import EXPORTED
from tests.pages import blocks
from tests.policies import ACCOUNT, Request, allows, as_list, plain, statements_of, without_a_part

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

TEMPLATE = Template.read(PROJECT / "template.yaml")
WATCHING = Template.read(PROJECT / "watching.yaml")
PEOPLE = Template.read(PROJECT / "people.yaml")
UPLOADER = Template.read(PROJECT / "uploader.yaml")

#: What the services ask of the key on the behalf of whoever does something to encrypted data. From AWS's guides:
#: S3 ("Using server-side encryption with AWS KMS keys"; a multipart upload decrypts, too), DynamoDB ("Authorizing
#: DynamoDB to use your KMS key"), SQS ("Key management": producers and consumers), and Secrets Manager ("Secret
#: encryption and decryption": permissions for the KMS key).
ASKS_OF_THE_KEY = {
    "s3:GetObject*": {"kms:Decrypt"},
    "s3:PutObject": {"kms:Decrypt", "kms:GenerateDataKey"},
    "dynamodb:*": {"kms:Decrypt"},
    "sqs:ReceiveMessage": {"kms:Decrypt"},
    "sqs:SendMessage": {"kms:Decrypt", "kms:GenerateDataKey"},
    "secretsmanager:GetSecretValue": {"kms:Decrypt"},
    "secretsmanager:PutSecretValue": {"kms:Decrypt", "kms:GenerateDataKey"},
}
OURS = {"aws:SourceAccount": ACCOUNT}
ELSEWHERE = {"aws:SourceAccount": "999999999999"}
PLAIN_HTTP = {"aws:SecureTransport": "false"}

ROLES = TEMPLATE.resources("AWS::IAM::Role")
POLICIES = PEOPLE.resources("AWS::IAM::ManagedPolicy") | UPLOADER.resources("AWS::IAM::ManagedPolicy")


def asked_of_the_key(statements: Iterable[Any]) -> set[tuple[str, str]]:
    """Return what the services ask of the key so that statements can be made use of, with the service that asks."""
    return {
        (right, action.partition(":")[0])
        for statement in statements
        for action in as_list(statement["Action"])
        for pattern, rights in ASKS_OF_THE_KEY.items()
        if fnmatchcase(action, pattern)
        for right in rights
    }


def refused_by_the_key(statements: list[Any]) -> set[tuple[str, str]]:
    """Return what the services would ask of the key in vain."""
    return {
        (right, service)
        for right, service in asked_of_the_key(statements)
        if not allows(
            statements, Request(right, "Key", context={"kms:ViaService": f"{service}.eu-west-2.amazonaws.com"})
        )
    }


def of_the_key(statements: Iterable[Any]) -> set[str]:
    return {
        action
        for statement in statements
        if plain(statement["Resource"]) == "Key"
        for action in as_list(statement["Action"])
    }


each_holder = pytest.mark.parametrize(
    "holder",
    [pytest.param(one, id=name) for name, one in (ROLES | POLICIES).items() if name != "DeploymentRole"],
)


@each_holder
def test_whoever_reads_or_writes_encrypted_data_may_use_the_key_for_it_and_for_no_more(holder: Any) -> None:
    statements = statements_of(holder)
    assert refused_by_the_key(statements) == set()
    assert of_the_key(statements) == {right for right, _ in asked_of_the_key(statements)}


@each_holder
def test_a_right_to_the_key_that_is_taken_away_is_missed(holder: Any) -> None:
    statements = statements_of(holder)
    taken = [less for what, less in without_a_part(statements) if " without kms:" in what]
    assert taken
    assert all(refused_by_the_key(less) for less in taken)


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_people_use_the_key_through_the_services_only(policy: Any) -> None:
    statements = statements_of(policy)
    assert not any(allows(statements, Request(right, "Key")) for right in of_the_key(statements))
    for elsewhere in ("lambda", "ssm", "ec2"):
        context = {"kms:ViaService": f"{elsewhere}.eu-west-2.amazonaws.com"}
        assert not allows(statements, Request("kms:Decrypt", "Key", context=context))


# --- What the stack's own resources let others do --------------------------------------------------------------------

KEY_POLICY = TEMPLATE.resources()["Key"]["Properties"]["KeyPolicy"]["Statement"]


def of_services() -> list[Request]:
    """Return what AWS's services do with the key by themselves, derived from what is encrypted with it."""

    def requests(service: str, actions: Iterable[str], context: Mapping[str, str]) -> list[Request]:
        return [Request(f"kms:{action}", "Key", service, context) for action in actions]

    asked = []
    targets = [t for rule in TEMPLATE.resources("AWS::Events::Rule").values() for t in rule["Properties"]["Targets"]]
    queues = [plain(arn) for t in targets for arn in (t["Arn"], t["DeadLetterConfig"]["Arn"])]
    assert all(TEMPLATE.resources()[queue]["Properties"]["KmsMasterKeyId"] == {"Ref": "Key"} for queue in queues)
    asked += requests("events.amazonaws.com", ("Decrypt", "GenerateDataKey"), OURS)
    assert WATCHING.resources()["AlarmsTopic"]["Properties"]["KmsMasterKeyId"] == {"Ref": "Key"}
    asked += requests("cloudwatch.amazonaws.com", ("Decrypt", "GenerateDataKey"), OURS)
    for group in TEMPLATE.resources("AWS::Logs::LogGroup").values():
        name = plain(group["Properties"]["LogGroupName"])
        arn = f"arn:aws:logs:eu-west-2:{ACCOUNT}:log-group:{name}"
        actions = ("Encrypt", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "GenerateDataKey", "DescribeKey")
        asked += requests("logs.eu-west-2.amazonaws.com", actions, {"kms:EncryptionContext:aws:logs:arn": arn})
    return asked


def test_the_key_lets_the_services_do_what_the_stack_needs_of_them() -> None:
    assert [request for request in of_services() if not allows(KEY_POLICY, request)] == []


def test_any_right_of_a_service_that_is_taken_from_the_key_is_missed() -> None:
    taken = [(what, less) for what, less in without_a_part(KEY_POLICY) if "AccountsRoles" not in what]
    assert len(taken) == 9
    for what, less in taken:
        assert [request for request in of_services() if not allows(less, request)], what


def test_the_key_lets_nobody_else_in() -> None:
    other_log = {
        "kms:EncryptionContext:aws:logs:arn": f"arn:aws:logs:eu-west-2:{ACCOUNT}:log-group:/aws/lambda/other/export"
    }
    for who, context in (
        ("events.amazonaws.com", ELSEWHERE),
        ("events.amazonaws.com", {}),
        ("cloudwatch.amazonaws.com", ELSEWHERE),
        ("logs.eu-west-2.amazonaws.com", other_log),
        ("s3.amazonaws.com", OURS),
        ("lambda.amazonaws.com", OURS),
        ("arn:aws:iam::999999999999:root", {}),
    ):
        assert not allows(KEY_POLICY, Request("kms:Decrypt", "Key", who, context)), who
    # AWS's default: the account's own policies say who of it may. Without that the key could not be administered.
    assert allows(KEY_POLICY, Request("kms:PutKeyPolicy", "Key", f"arn:aws:iam::{ACCOUNT}:root"))


def document(name: str, template: Template = TEMPLATE) -> Any:
    return template.resources()[name]["Properties"]["PolicyDocument"]


RULE = {"aws:SourceArn": "UploadsRule"}
TO_QUEUES = [
    # the queue's policy, the queue, the rule that sends, whether it may
    ("UploadsQueuePolicy", "UploadsQueue", RULE, True),
    ("UploadsQueuePolicy", "UploadsQueue", {"aws:SourceArn": "AnotherRule"}, False),
    ("UploadsQueuePolicy", "UploadsQueue", {}, False),
    ("UploadsQueuePolicy", "UploadsQueue", RULE | PLAIN_HTTP, False),
    ("UndeliveredQueuePolicy", "UndeliveredQueue", RULE, True),
    ("UndeliveredQueuePolicy", "UndeliveredQueue", {"aws:SourceArn": "AnotherRule"}, False),
    ("UndeliveredQueuePolicy", "UndeliveredQueue", RULE | PLAIN_HTTP, False),
    ("UploadsDeadLetterQueuePolicy", "UploadsDeadLetterQueue", RULE, False),
]


@pytest.mark.parametrize(("policy", "queue", "context", "allowed"), TO_QUEUES)
def test_the_rule_of_uploads_and_no_other_sends_to_its_queues(
    policy: str, queue: str, context: dict[str, str], *, allowed: bool
) -> None:
    request = Request("sqs:SendMessage", queue, "events.amazonaws.com", context)
    assert allows(document(policy), request) is allowed
    for action in ("sqs:ReceiveMessage", "sqs:PurgeQueue"):
        assert not allows(document(policy), Request(action, queue, "events.amazonaws.com", context))


def test_each_target_and_dead_letter_queue_of_the_rule_is_one_that_it_may_send_to() -> None:
    for target in TEMPLATE.resources()["UploadsRule"]["Properties"]["Targets"]:
        for arn in (target["Arn"], target["DeadLetterConfig"]["Arn"]):
            request = Request("sqs:SendMessage", plain(arn), "events.amazonaws.com", RULE)
            assert allows(document(f"{plain(arn)}Policy"), request)


@pytest.mark.parametrize(
    "name", ["BucketPolicy", "UploadsQueuePolicy", "UploadsDeadLetterQueuePolicy", "UndeliveredQueuePolicy"]
)
def test_without_tls_even_the_account_itself_is_refused(name: str) -> None:
    resource = name.removesuffix("Policy")
    action = "s3:GetObject" if name == "BucketPolicy" else "sqs:ReceiveMessage"
    resources = [resource, f"{resource}/inbox/1"] if name == "BucketPolicy" else [resource]
    everything = {"Sid": "All", "Effect": "Allow", "Principal": "*", "Action": "*", "Resource": "*"}
    for one in resources:
        statements = [everything, *document(name)["Statement"]]
        assert allows(statements, Request(action, one, "somebody"))
        assert not allows(statements, Request(action, one, "somebody", PLAIN_HTTP))


@pytest.mark.parametrize(
    ("who", "context", "allowed"),
    [
        ("cloudwatch.amazonaws.com", OURS, True),
        ("cloudwatch.amazonaws.com", ELSEWHERE, False),
        ("cloudwatch.amazonaws.com", OURS | PLAIN_HTTP, False),
        ("events.amazonaws.com", OURS, False),
    ],
)
def test_alarms_of_this_account_and_nobody_else_ring_at_the_topic(
    who: str, context: dict[str, str], *, allowed: bool
) -> None:
    policy = document("AlarmsTopicPolicy", WATCHING)
    assert allows(policy, Request("sns:Publish", "AlarmsTopic", who, context)) is allowed


def test_the_schedules_may_invoke_what_they_are_for_and_set_aside_what_fails() -> None:
    role = TEMPLATE.resources()["SchedulesRole"]
    statements = statements_of(role)
    schedules = [s["Properties"]["Target"] for s in TEMPLATE.resources("AWS::Scheduler::Schedule").values()]
    invoked = {plain(target["Arn"]) for target in schedules}
    functions = set(TEMPLATE.functions())
    aliases = set(TEMPLATE.resources("AWS::Lambda::Alias"))
    assert {f for f in functions | aliases if allows(statements, Request("lambda:InvokeFunction", f))} == invoked
    assert invoked == {f"{f}Aliaslive" for f in functions - {"IngestFunction", "StatusFunction"}}
    for target in schedules:
        assert plain(target["RoleArn"]) == "SchedulesRole"
        assert allows(statements, Request("sqs:SendMessage", plain(target["DeadLetterConfig"]["Arn"])))
    assert not allows(statements, Request("sqs:SendMessage", "UploadsQueue"))


@pytest.mark.parametrize("name", ROLES)
def test_a_role_is_taken_on_by_its_service_only(name: str) -> None:
    trust = ROLES[name]["Properties"]["AssumeRolePolicyDocument"]
    service = {"SchedulesRole": "scheduler", "DeploymentRole": "codedeploy"}.get(name, "lambda")
    takers = {
        who
        for who in ("lambda", "scheduler", "codedeploy", "events", "ec2")
        if allows(trust, Request("sts:AssumeRole", name, f"{who}.amazonaws.com", OURS))
    }
    assert takers == {service}
    if service != "lambda":
        assert not allows(trust, Request("sts:AssumeRole", name, f"{service}.amazonaws.com", ELSEWHERE))


@pytest.mark.parametrize("template", [TEMPLATE, UPLOADER], ids=["template", "uploader"])
def test_a_permissions_boundary_limits_every_role(template: Template) -> None:
    for name, role in template.resources("AWS::IAM::Role").items():
        boundary = role["Properties"]["PermissionsBoundary"]
        limited = plain(boundary, {"HasPermissionsBoundary": "yes", "PermissionsBoundary": "arn:boundary"})
        assert limited == "arn:boundary", name
        assert plain(boundary) == "AWS::NoValue", name
    assert template.document["Conditions"]["HasPermissionsBoundary"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "PermissionsBoundary"}, ""]}]
    }


# --- People ----------------------------------------------------------------------------------------------------------

LOGS = f"arn:aws:logs:eu-west-2:{ACCOUNT}:log-group:/aws/lambda/stack/ingest:*"
FLAG = f"arn:aws:ssm:eu-west-2:{ACCOUNT}:parameter/stack/mesh_jobs"
INGEST = f"arn:aws:lambda:eu-west-2:{ACCOUNT}:function:stack-ingest"
STATUS = f"arn:aws:lambda:eu-west-2:{ACCOUNT}:function:stack-status"
#: What matters of a stack, and which of its people may do it.
RIGHTS = [
    ("lambda:InvokeFunction", INGEST, {"Operator"}),
    ("lambda:InvokeFunction", STATUS, {"Operator", "Reader"}),
    ("lambda:InvokeFunction", f"arn:aws:lambda:eu-west-2:{ACCOUNT}:function:other-ingest", set()),
    ("lambda:UpdateFunctionCode", INGEST, set()),
    ("dynamodb:Query", "DpsExportsTable", {"Operator", "Reader"}),
    ("dynamodb:Query", "DpsExportsTable/index/by-status", {"Operator", "Reader"}),
    ("dynamodb:GetItem", "VaccinationRecordsTable", {"Operator", "Reader"}),
    ("dynamodb:PutItem", "VaccinationRecordsTable", set()),
    ("dynamodb:UpdateItem", "DpsExportsTable", set()),
    ("s3:GetObject", "Bucket/batches/hpv/1.jsonl.gz", {"Operator"}),
    ("s3:GetObject", "Bucket/incoming/R1L/monday.csv", {"Operator"}),
    ("s3:GetObjectVersion", "Bucket/incoming/R1L/monday.csv", {"Operator"}),
    ("s3:GetObject", "Bucket/rejected/R1L/monday.csv/1.csv", {"Operator"}),
    ("s3:GetObject", "Bucket/receipts/R1L/monday.csv/1-refused-hpv-1.csv", {"Operator"}),
    ("s3:ListBucket", "Bucket", {"Operator"}),
    ("s3:PutObject", "Bucket/requests/hpv-1.requeue", {"Operator"}),
    ("s3:PutObject", "Bucket/audit/1.json", {"Operator", "SecretKeeper"}),
    ("s3:DeleteObject", "Bucket/audit/1.json", set()),
    ("events:PutEvents", f"arn:aws:events:eu-west-2:{ACCOUNT}:event-bus/EventBus", {"Operator", "SecretKeeper"}),
    ("s3:PutObject", "Bucket/incoming/R1L/monday.csv", set()),
    ("s3:DeleteObject", "Bucket/exports/hpv/1/manifest.json", set()),
    ("logs:FilterLogEvents", LOGS, {"Operator", "Reader"}),
    ("logs:DeleteLogGroup", LOGS, set()),
    ("ssm:GetParameter", FLAG, {"Operator", "Reader"}),
    ("ssm:PutParameter", FLAG, {"Operator"}),
    ("ssm:PutParameter", f"arn:aws:ssm:eu-west-2:{ACCOUNT}:parameter/other/mesh_jobs", set()),
    ("secretsmanager:PutSecretValue", "MeshSecret", {"SecretKeeper"}),
    ("secretsmanager:GetSecretValue", "MeshSecret", set()),
    ("secretsmanager:UpdateSecret", "MeshSecret", set()),
    ("sqs:StartMessageMoveTask", "UploadsDeadLetterQueue", {"Operator"}),
    ("sqs:SendMessage", "UploadsQueue", {"Operator"}),
    ("sqs:PurgeQueue", "UploadsQueue", set()),
    ("cloudwatch:DescribeAlarms", "*", {"Operator", "Reader"}),
    (
        "cloudformation:DescribeStacks",
        f"arn:aws:cloudformation:eu-west-2:{ACCOUNT}:stack/stack/1",
        {"Operator", "Reader", "SecretKeeper"},
    ),
    ("iam:PassRole", "IngestRole", set()),
]


@pytest.mark.parametrize(("action", "resource", "who"), RIGHTS)
def test_people_may_do_what_they_are_there_for(action: str, resource: str, who: set[str]) -> None:
    people = PEOPLE.resources("AWS::IAM::ManagedPolicy")
    may = {n for n, policy in people.items() if allows(statements_of(policy), Request(action, resource))}
    assert {name.removesuffix("Policy") for name in may} == who


def commands_of_aws() -> list[tuple[str, str]]:
    """Return what the runbook's commands of AWS ask for, and of which resource; restoring is an administrator's."""
    found = []
    for block in blocks(PROJECT / "docs" / "operations.md"):
        for command in block.commands if block.section != "Restoring" else ():
            for service, operation, variable in re.findall(r"aws (sqs) ([a-z-]+)[^$]*?\"\$([A-Z_]+)", command):
                action = "".join(word.capitalize() for word in operation.split("-"))
                found.append((f"{service}:{action}", TEMPLATE.outputs[EXPORTED[variable]]["Value"]["Ref"]))
            if "start-message-move-task" in command:
                found.append(("sqs:StartMessageMoveTask", "UploadsDeadLetterQueue"))
    return found


def test_an_operator_may_do_what_the_runbook_tells_them_to_ask_aws_for() -> None:
    statements = statements_of(PEOPLE.resources()["OperatorPolicy"])
    asked = commands_of_aws()
    assert len(asked) >= 4
    assert [each for each in asked if not allows(statements, Request(*each))] == []


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_a_policy_of_people_names_each_action_and_each_resource(policy: Any) -> None:
    for statement in statements_of(policy):
        assert statement["Effect"] == "Allow"
        assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]
        assert "*" not in as_list(statement["Resource"]) or statement["Sid"] == "Watch"


def test_the_stack_says_which_policies_there_are() -> None:
    for name in PEOPLE.resources("AWS::IAM::ManagedPolicy"):
        assert TEMPLATE.outputs[f"{name}Arn"]["Value"] == {"Fn::GetAtt": ["People", f"Outputs.{name}Arn"]}
        assert PEOPLE.outputs[f"{name}Arn"]["Value"] == {"Ref": name}


# --- An organisation that uploads ------------------------------------------------------------------------------------

R1L = {"OdsCode": "R1L"}


@pytest.mark.parametrize(
    ("action", "resource", "allowed"),
    [
        ("s3:PutObject", "Bucket/incoming/R1L/monday.csv", True),
        ("s3:PutObject", "Bucket/incoming/RX1/monday.csv", False),
        ("s3:PutObject", "Bucket/incoming/R1L2/monday.csv", False),
        ("s3:PutObject", "Bucket/requests/already-sent/R1L/all.csv", False),
        ("s3:PutObject", "Bucket/receipts/R1L/monday.csv/1.json", False),
        ("s3:GetObject", "Bucket/receipts/R1L/monday.csv/1.json", True),
        ("s3:GetObject", "Bucket/receipts/R1L/monday.csv/1-refused-hpv-1.csv", True),
        ("s3:GetObject", "Bucket/rejected/R1L/monday.csv/1.csv", True),
        ("s3:GetObject", "Bucket/receipts/RX1/monday.csv/1.json", False),
        ("s3:GetObject", "Bucket/rejected/RX1/monday.csv/1.csv", False),
        ("s3:GetObject", "Bucket/incoming/R1L/monday.csv", False),
        ("s3:GetObject", "Bucket/batches/hpv/1.jsonl.gz", False),
        ("s3:DeleteObject", "Bucket/incoming/R1L/monday.csv", False),
    ],
)
def test_an_organisation_uploads_for_itself_and_reads_what_became_of_it(
    action: str, resource: str, *, allowed: bool
) -> None:
    statements = statements_of(UPLOADER.resources()["UploaderPolicy"])
    assert allows(statements, Request(action, resource), R1L) is allowed


@pytest.mark.parametrize(
    ("storage_class", "allowed"), [("STANDARD", True), ("GLACIER", False), ("DEEP_ARCHIVE", False)]
)
def test_an_organisation_puts_nothing_into_an_archive(storage_class: str, *, allowed: bool) -> None:
    statements = statements_of(UPLOADER.resources()["UploaderPolicy"])
    upload = Request("s3:PutObject", "Bucket/incoming/R1L/a.csv", context={"s3:x-amz-storage-class": storage_class})
    assert allows(statements, upload, R1L) is (storage_class == "STANDARD")


@pytest.mark.parametrize(
    ("prefix", "allowed"),
    [("receipts/R1L/monday.csv/", True), ("rejected/R1L/", True), ("receipts/RX1/", False), ("", False)],
)
def test_an_organisation_lists_its_own_folders_only(prefix: str, *, allowed: bool) -> None:
    statements = statements_of(UPLOADER.resources()["UploaderPolicy"])
    request = Request("s3:ListBucket", "Bucket", context={"s3:prefix": prefix})
    assert allows(statements, request, R1L) is allowed


def test_the_uploading_system_and_nobody_else_takes_the_uploaders_role_on() -> None:
    role = UPLOADER.resources()["UploaderRole"]["Properties"]
    assert role["ManagedPolicyArns"] == [{"Ref": "UploaderPolicy"}]
    system = "arn:aws:iam::123456789012:role/mavis"
    trust, given = role["AssumeRolePolicyDocument"], {"Principal": system}
    assert allows(trust, Request("sts:AssumeRole", "", system), given)
    assert not allows(trust, Request("sts:AssumeRole", "", "arn:aws:iam::123456789012:role/other"), given)
    given |= {"HasExternalId": "yes", "ExternalId": "agreed"}
    assert not allows(trust, Request("sts:AssumeRole", "", system), given)
    assert allows(trust, Request("sts:AssumeRole", "", system, {"sts:ExternalId": "agreed"}), given)


@pytest.mark.parametrize(
    ("who", "context", "allowed"),
    [
        ("events.amazonaws.com", {"aws:SourceArn": "TeamRule"}, True),
        ("events.amazonaws.com", {"aws:SourceArn": "AnotherRule"}, False),
        ("events.amazonaws.com", {"aws:SourceArn": "TeamRule"} | PLAIN_HTTP, False),
        ("cloudwatch.amazonaws.com", {"aws:SourceArn": "TeamRule"}, False),
    ],
)
def test_a_teams_own_rule_and_nobody_else_sends_to_its_topic(
    who: str, context: dict[str, str], *, allowed: bool
) -> None:
    policy = document("TeamTopicPolicy", UPLOADER)
    assert allows(policy, Request("sns:Publish", "TeamTopic", who, context)) is allowed
    assert UPLOADER.resources()["TeamTopic"]["Properties"]["KmsMasterKeyId"] == {"Ref": "Key"}
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert allows(KEY_POLICY, Request(action, "Key", "events.amazonaws.com", OURS))


def test_nobody_is_told_by_email_where_no_address_is_given() -> None:
    told = {name for name, resource in UPLOADER.resources().items() if resource.get("Condition") == "TellsTheTeam"}
    assert told == {"TeamTopic", "TeamTopicPolicy", "TeamByEmail", "TeamRule"}
    assert UPLOADER.parameters["TeamEmail"]["Default"] == ""


def test_the_uploaders_template_is_told_what_the_stack_says() -> None:
    assert TEMPLATE.outputs["EventBusName"]["Value"] == {"Ref": "EventBus"}
    assert UPLOADER.parameters["EventBus"]["Default"] == TEMPLATE.parameters["EventBus"]["Default"]
    assert TEMPLATE.outputs["BucketName"]["Value"] == {"Ref": "Bucket"}
    assert TEMPLATE.outputs["KeyArn"]["Value"] == {"Fn::GetAtt": ["Key", "Arn"]}
    assert "Default" not in json.dumps(
        [UPLOADER.parameters[name] for name in ("Bucket", "Key", "OdsCode", "Principal")]
    )
