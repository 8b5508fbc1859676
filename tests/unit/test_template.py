"""What the stack promises about security, durability and order, read from the translated templates."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

import nhs_mesh
from local.stack import PROJECT
from local.template import Template
from tests import watching
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from pathlib import Path

TEMPLATE = Template.read(PROJECT / "template.yaml")
WATCHING = Template.read(PROJECT / "watching.yaml")
PEOPLE = Template.read(PROJECT / "people.yaml")
UPLOADER = Template.read(PROJECT / "uploader.yaml")
SAMCONFIG = tomllib.loads((PROJECT / "samconfig.toml").read_text())

#: Statements of roles that may name the resource "*", and why.
ANY_RESOURCE = {
    "Trace": "X-Ray has no resources to name for what is sent to it",
    "LookAtAlarms": "CloudWatch finds alarms that are made of others in no narrower scope",
}

#: What holds data, and where each type says which key encrypts it.
KEYS = {
    "AWS::DynamoDB::Table": lambda p: p["SSESpecification"]["KMSMasterKeyId"],
    "AWS::Logs::LogGroup": lambda p: p["KmsKeyId"],
    "AWS::S3::Bucket": lambda p: p["BucketEncryption"]["ServerSideEncryptionConfiguration"][0][
        "ServerSideEncryptionByDefault"
    ]["KMSMasterKeyID"],
    "AWS::SQS::Queue": lambda p: p["KmsMasterKeyId"],
    "AWS::SecretsManager::Secret": lambda p: p["KmsKeyId"],
    "AWS::SNS::Topic": lambda p: p["KmsMasterKeyId"],
}


def resources(type_: str, template: Template = TEMPLATE) -> list[Any]:
    found = template.resources(type_)
    assert found, f"the template has no {type_}"
    return [pytest.param(name, resource, id=name) for name, resource in found.items()]


def as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def statements(document: Any) -> list[Any]:
    return as_list(document["Statement"])


def properties(name: str, template: Template = TEMPLATE) -> Any:
    return template.resources()[name]["Properties"]


# --- Roles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "role"), resources("AWS::IAM::Role"))
def test_a_role_names_each_action_and_each_resource(name: str, role: Any) -> None:
    assert "ManagedPolicyArns" not in role["Properties"], "AWS's managed policies allow more than the function does"
    for policy in role["Properties"]["Policies"]:
        for statement in statements(policy["PolicyDocument"]):
            assert statement["Effect"] == "Allow"
            assert "NotAction" not in statement
            assert "NotResource" not in statement
            assert not [action for action in as_list(statement["Action"]) if "*" in action], statement["Sid"]
            if "*" in as_list(statement["Resource"]):
                assert statement["Sid"] in ANY_RESOURCE


def test_each_function_has_a_role_of_its_own() -> None:
    roles = [f["Properties"]["Role"]["Fn::GetAtt"][0] for f in TEMPLATE.resources("AWS::Lambda::Function").values()]
    assert len(set(roles)) == len(roles)


@pytest.mark.parametrize("role", ["ValidateRole", "ExportRole", "TrackRole", "IngestRole"])
def test_a_functions_role_can_be_taken_by_lambda_only(role: str) -> None:
    (statement,) = statements(properties(role)["AssumeRolePolicyDocument"])
    assert statement["Principal"] == {"Service": "lambda.amazonaws.com"}


def test_only_the_jobs_that_speak_to_mesh_may_read_its_secret() -> None:
    readers = {
        name
        for name, role in TEMPLATE.resources("AWS::IAM::Role").items()
        for policy in role["Properties"]["Policies"]
        for statement in statements(policy["PolicyDocument"])
        if "secretsmanager:GetSecretValue" in as_list(statement["Action"])
    }
    assert readers == {"ValidateRole", "ExportRole", "TrackRole", "CollectRole"}


def test_nothing_may_delete_data() -> None:
    for name, role in TEMPLATE.resources("AWS::IAM::Role").items():
        for policy in role["Properties"]["Policies"]:
            for statement in statements(policy["PolicyDocument"]):
                deleting = [a for a in as_list(statement["Action"]) if a.partition(":")[2].startswith("Delete")]
                assert deleting in ([], ["sqs:DeleteMessage"]), name


# --- Encryption, transport, access -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", KEYS)
def test_all_data_is_encrypted_with_the_stacks_own_key(type_: str) -> None:
    found = TEMPLATE.resources(type_) | WATCHING.resources(type_)
    assert found
    for name, resource in found.items():
        assert KEYS[type_](resource["Properties"]) in ({"Ref": "Key"}, {"Fn::GetAtt": ["Key", "Arn"]}), name


def test_what_watches_encrypts_with_the_stacks_own_key() -> None:
    assert properties("Watching")["Parameters"]["Key"] == {"Fn::GetAtt": ["Key", "Arn"]}


def test_the_key_is_rotated() -> None:
    assert properties("Key")["EnableKeyRotation"] is True


def test_services_may_use_the_key_for_this_stack_only() -> None:
    for statement in statements(properties("Key")["KeyPolicy"]):
        if "Service" in statement["Principal"]:
            assert statement["Condition"], statement["Sid"]
            assert "kms:*" not in as_list(statement["Action"])


def tls_only(document: Any) -> set[str]:
    """Return what a policy forbids everybody to do without TLS, as JSON of the resources."""
    return {
        json.dumps(resource)
        for statement in statements(document)
        if statement["Effect"] == "Deny"
        and statement["Principal"] == "*"
        and statement["Action"] in {"s3:*", "sqs:*", "sns:Publish"}
        and statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
        for resource in as_list(statement["Resource"])
    }


@pytest.mark.parametrize(("name", "bucket"), resources("AWS::S3::Bucket"))
def test_a_bucket_is_spoken_to_over_tls_only(name: str, bucket: Any) -> None:
    (policy,) = [
        p["Properties"]["PolicyDocument"]
        for p in TEMPLATE.resources("AWS::S3::BucketPolicy").values()
        if p["Properties"]["Bucket"] == {"Ref": name}
    ]
    whole = json.dumps({"Fn::GetAtt": [name, "Arn"]})
    objects = json.dumps({"Fn::Sub": f"${{{name}.Arn}}/*"})
    assert tls_only(policy) == {whole, objects}


@pytest.mark.parametrize(("name", "queue"), resources("AWS::SQS::Queue"))
def test_a_queue_is_spoken_to_over_tls_only(name: str, queue: Any) -> None:
    (policy,) = [
        p["Properties"]["PolicyDocument"]
        for p in TEMPLATE.resources("AWS::SQS::QueuePolicy").values()
        if {"Ref": name} in p["Properties"]["Queues"]
    ]
    assert tls_only(policy) == {json.dumps({"Fn::GetAtt": [name, "Arn"]})}


@pytest.mark.parametrize(("name", "bucket"), resources("AWS::S3::Bucket"))
def test_a_bucket_can_not_be_made_public(name: str, bucket: Any) -> None:
    assert bucket["Properties"]["PublicAccessBlockConfiguration"] == {
        "BlockPublicAcls": True,
        "BlockPublicPolicy": True,
        "IgnorePublicAcls": True,
        "RestrictPublicBuckets": True,
    }
    assert bucket["Properties"]["OwnershipControls"]["Rules"] == [{"ObjectOwnership": "BucketOwnerEnforced"}]


def test_no_policy_of_a_resource_allows_everybody() -> None:
    for type_ in ("AWS::S3::BucketPolicy", "AWS::SNS::TopicPolicy", "AWS::SQS::QueuePolicy"):
        for name, policy in (TEMPLATE.resources(type_) | WATCHING.resources(type_)).items():
            for statement in statements(policy["Properties"]["PolicyDocument"]):
                assert statement["Effect"] == "Deny" or "*" not in json.dumps(statement["Principal"]), name


def test_no_function_has_a_url_or_permission_for_the_outside() -> None:
    assert not TEMPLATE.resources("AWS::Lambda::Url")
    assert not TEMPLATE.resources("AWS::Lambda::Permission")


def test_a_deployment_has_nothing_to_write_over_what_a_person_put_into_the_secret() -> None:
    assert set(properties("MeshSecret")) == {"Description", "KmsKeyId"}


def test_no_secret_is_in_an_environment_or_a_parameter() -> None:
    for function in TEMPLATE.functions().values():
        variables = json.dumps(function.variables)
        assert "resolve:" not in variables, "a dynamic reference would put the secret itself there"
        assert not [name for name in function.variables if re.search("PASSWORD|PASSPHRASE|PRIVATE|SHARED_KEY", name)]
    assert not [name for name in TEMPLATE.parameters if re.search("(?i)password|passphrase|shared|secret", name)]


# --- Logs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "group"), resources("AWS::Logs::LogGroup"))
def test_a_log_is_kept_for_a_stated_time(name: str, group: Any) -> None:
    assert group["Properties"]["RetentionInDays"] == {"Ref": "LogRetentionDays"}


@pytest.mark.parametrize(("name", "function"), resources("AWS::Lambda::Function"))
def test_a_function_writes_to_the_log_that_its_role_allows(name: str, function: Any) -> None:
    group = function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"]
    role = properties(function["Properties"]["Role"]["Fn::GetAtt"][0])
    (statement,) = [s for s in statements(role["Policies"][0]["PolicyDocument"]) if s["Sid"] == "WriteOwnLog"]
    assert statement["Resource"] == {"Fn::GetAtt": [group, "Arn"]}


# --- Nothing lost ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "table"), resources("AWS::DynamoDB::Table"))
def test_a_table_can_be_put_back_to_any_minute_and_is_not_deleted_by_mistake(name: str, table: Any) -> None:
    assert table["Properties"]["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["Properties"]["DeletionProtectionEnabled"] == {"Ref": "DeletionProtection"}
    assert TEMPLATE.parameters["DeletionProtection"]["Default"] == "true"
    assert table["Properties"]["BillingMode"] == "PAY_PER_REQUEST"


@pytest.mark.parametrize(
    "type_",
    [
        "AWS::DynamoDB::Table",
        "AWS::KMS::Key",
        "AWS::Logs::LogGroup",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SecretsManager::Secret",
    ],
)
def test_data_outlives_the_stack_but_not_a_stack_that_could_not_be_made(type_: str) -> None:
    for name, resource in TEMPLATE.resources(type_).items():
        policies = resource["DeletionPolicy"], resource["UpdateReplacePolicy"]
        assert policies == ("RetainExceptOnCreate", "Retain"), name


def test_an_overwritten_object_can_be_had_back() -> None:
    assert properties("Bucket")["VersioningConfiguration"] == {"Status": "Enabled"}


def test_s3_writes_down_who_read_what_where_a_bucket_is_named_for_that() -> None:
    condition, there, nothing = properties("Bucket")["LoggingConfiguration"]["Fn::If"]
    assert TEMPLATE.document["Conditions"][condition] == {"Fn::Not": [{"Fn::Equals": [{"Ref": "AccessLogBucket"}, ""]}]}
    assert there["DestinationBucketName"] == {"Ref": "AccessLogBucket"}
    assert nothing == {"Ref": "AWS::NoValue"}


#: The longest time back to which the tables can be put (point-in-time recovery), in days.
RESTORED = 35
#: How long an upload waits in the queue, and then in the dead-letter queue, in days.
QUEUED = 14 + 14

KEPT = {
    "incoming/": "UploadRetentionDays",
    "requests/": "UploadRetentionDays",
    "receipts/": "UploadRetentionDays",
    "rejected/": "UploadRetentionDays",
    "batches/": "BatchRetentionDays",
    "exports/": "ExportRetentionDays",
    "inbox/": "InboxRetentionDays",
}


def lifecycle_rules() -> dict[str, Any]:
    return {rule.get("Prefix", ""): rule for rule in properties("Bucket")["LifecycleConfiguration"]["Rules"]}


def test_how_long_what_holds_children_is_kept_is_a_parameter() -> None:
    rules = lifecycle_rules()
    ends = {prefix: rule["ExpirationInDays"] for prefix, rule in rules.items() if "ExpirationInDays" in rule}
    assert ends.pop("chunks/") == 30
    assert ends == {prefix: {"Ref": name} for prefix, name in KEPT.items()}
    assert rules[""]["NoncurrentVersionExpiration"] == {"NoncurrentDays": {"Ref": "VersionRetentionDays"}}
    assert {rule["Status"] for rule in rules.values()} == {"Enabled"}


def test_no_rule_deletes_who_did_what() -> None:
    assert not [prefix for prefix in lifecycle_rules() if prefix and "audit/".startswith(prefix)]
    assert "ExpirationInDays" not in lifecycle_rules()[""]


@pytest.mark.parametrize("name", sorted({*KEPT.values(), "VersionRetentionDays"}))
def test_nothing_ends_while_a_restore_or_the_queue_may_still_ask_for_it(name: str) -> None:
    parameter = TEMPLATE.parameters[name]
    assert parameter["MinValue"] >= max(RESTORED, QUEUED) + 7, "and a week to act"
    assert parameter["MinValue"] <= parameter["Default"] <= parameter["MaxValue"]


def test_cheaper_storage_comes_before_the_end_as_s3_demands() -> None:
    for prefix, rule in lifecycle_rules().items():
        for transition in rule.get("Transitions", []):
            assert TEMPLATE.parameters[KEPT[prefix]]["MinValue"] >= transition["TransitionInDays"] + 30


def test_what_corrections_withdrawals_and_sending_again_read_is_kept_longest() -> None:
    batches, *others = (TEMPLATE.parameters[f"{what}RetentionDays"] for what in ("Batch", "Upload", "Export", "Inbox"))
    assert batches["Default"] > max(each["Default"] for each in others)
    assert batches["MinValue"] >= 2 * 365


# --- The way of an upload --------------------------------------------------------------------------------------------


def test_an_upload_or_request_and_nothing_else_reaches_the_queue() -> None:
    rule = properties("UploadsRule")
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {
            "bucket": {"name": [{"Ref": "Bucket"}]},
            "object": {"key": [{"prefix": "incoming/"}, {"prefix": "requests/"}]},
        },
    }
    notifications = properties("Bucket")["NotificationConfiguration"]
    assert notifications == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    assert [target["Arn"] for target in rule["Targets"]] == [{"Fn::GetAtt": ["UploadsQueue", "Arn"]}]


def test_only_the_rule_may_put_uploads_into_the_queue() -> None:
    (statement,) = [s for s in statements(properties("UploadsQueuePolicy")["PolicyDocument"]) if s["Effect"] == "Allow"]
    assert statement["Principal"] == {"Service": "events.amazonaws.com"}
    assert statement["Action"] == "sqs:SendMessage"
    assert statement["Condition"] == {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["UploadsRule", "Arn"]}}}


def test_uploads_are_ingested_one_at_a_time_in_order() -> None:
    queue = properties("UploadsQueue")
    assert queue["FifoQueue"] is True
    assert queue["ContentBasedDeduplication"] is True, "EventBridge sends to no other FIFO queue"
    groups = {target["SqsParameters"]["MessageGroupId"] for target in properties("UploadsRule")["Targets"]}
    assert groups == {"uploads"}
    assert properties("IngestFunctionUploads")["BatchSize"] == 1


def test_an_upload_is_not_offered_again_while_it_may_still_be_ingested() -> None:
    timeout = TEMPLATE.functions()["IngestFunction"].timeout
    # Not much longer either: all other uploads wait for one that failed.
    assert timeout < properties("UploadsQueue")["VisibilityTimeout"] < 2 * timeout


def test_an_upload_that_fails_again_and_again_is_set_aside_and_kept() -> None:
    redrive = properties("UploadsQueue")["RedrivePolicy"]
    assert redrive["deadLetterTargetArn"] == {"Fn::GetAtt": ["UploadsDeadLetterQueue", "Arn"]}
    assert properties("UploadsDeadLetterQueue")["FifoQueue"] is True
    assert redrive["maxReceiveCount"] == 5, "AWS asks for five: fewer, and a throttled function costs an upload"
    for queue in ("UploadsQueue", "UploadsDeadLetterQueue", "UndeliveredQueue"):
        assert properties(queue)["MessageRetentionPeriod"] == 14 * 24 * 60 * 60


# --- Schedules -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "schedule"), resources("AWS::Scheduler::Schedule"))
def test_a_schedule_goes_by_london_time_and_its_time_is_a_parameter(name: str, schedule: Any) -> None:
    assert schedule["Properties"]["ScheduleExpressionTimezone"] == "Europe/London"
    assert schedule["Properties"]["ScheduleExpression"]["Ref"] in TEMPLATE.parameters


@pytest.mark.parametrize(("name", "schedule"), resources("AWS::Scheduler::Schedule"))
def test_two_stacks_in_one_account_do_not_share_a_schedule(name: str, schedule: Any) -> None:
    assert "Name" not in schedule["Properties"]


def test_each_job_runs_when_it_should() -> None:
    runs = {}
    for schedule in TEMPLATE.resources("AWS::Scheduler::Schedule").values():
        properties = schedule["Properties"]
        target = properties["Target"]
        expression = TEMPLATE.parameters[properties["ScheduleExpression"]["Ref"]]["Default"]
        runs[target["Arn"]["Ref"].removesuffix("Aliaslive"), target["Input"]] = expression
    assert runs == {
        ("ValidateFunction", "{}"): "cron(0 6 * * ? *)",
        ("ExportFunction", "{}"): "cron(0 19 * * ? *)",
        ("ExportFunction", '{"resume_only": true}'): "cron(30 * * * ? *)",
        ("TrackFunction", "{}"): "cron(45 * * * ? *)",
        ("CollectFunction", "{}"): "cron(50 * * * ? *)",
        ("ReconcileFunction", "{}"): "cron(0 5 * * ? *)",
    }


def test_what_eventbridge_cannot_deliver_is_set_aside() -> None:
    undelivered = {"Arn": {"Fn::GetAtt": ["UndeliveredQueue", "Arn"]}}
    assert [target["DeadLetterConfig"] for target in properties("UploadsRule")["Targets"]] == [undelivered]
    for name, schedule in TEMPLATE.resources("AWS::Scheduler::Schedule").items():
        assert schedule["Properties"]["Target"]["DeadLetterConfig"] == undelivered, name
    assert "FifoQueue" not in properties("UndeliveredQueue"), "EventBridge sets nothing aside in a FIFO queue"


@pytest.mark.parametrize("function", ["ExportFunction", "TrackFunction", "CollectFunction"])
def test_a_run_that_failed_is_not_repeated_at_once(function: str) -> None:
    (config,) = [
        c["Properties"]
        for c in TEMPLATE.resources("AWS::Lambda::EventInvokeConfig").values()
        if c["Properties"]["FunctionName"] == {"Ref": function}
    ]
    assert config["MaximumRetryAttempts"] == 0


# --- Staged deployment -----------------------------------------------------------------------------------------------

STAGED = Template.read(PROJECT / "template.yaml", {"StagedDeployment": "true"})
SCHEDULED = {"ValidateFunction", "ExportFunction", "TrackFunction", "CollectFunction", "ReconcileFunction"}


def aliases(template: Template = TEMPLATE) -> dict[str, Any]:
    """Return the alias of each function that has one."""
    found = template.resources("AWS::Lambda::Alias").values()
    return {alias["Properties"]["FunctionName"]["Ref"]: alias for alias in found}


def refs(value: Any, template: Template = TEMPLATE) -> set[str]:
    """Return the parameters that a value is made of."""
    match value:
        case {"Ref": name}:
            return {name} & set(template.parameters)
        case {"Fn::Sub": str(text)}:
            return {name for name in re.findall(r"\$\{([\w:]+)\}", text) if name in template.parameters}
        case {"Fn::If": [condition, yes, no]}:
            return refs(template.document["Conditions"][condition]) | refs(yes) | refs(no)
        case dict():
            return set().union(*(refs(each) for each in value.values())) if value else set()
        case list():
            return set().union(*(refs(each) for each in value)) if value else set()
    return set()


def test_what_is_scheduled_is_invoked_by_its_alias_on_schedule_and_by_commands() -> None:
    assert set(aliases()) == SCHEDULED
    names = {f"{function}Aliaslive" for function in SCHEDULED}
    schedules = TEMPLATE.resources("AWS::Scheduler::Schedule").values()
    assert {schedule["Properties"]["Target"]["Arn"]["Ref"] for schedule in schedules} == names
    for function in SCHEDULED:
        assert TEMPLATE.outputs[f"{function}Name"]["Value"] == {"Ref": f"{function}Aliaslive"}


def test_a_staged_deployment_goes_back_where_an_alarm_of_the_functions_rings() -> None:
    groups = STAGED.resources("AWS::CodeDeploy::DeploymentGroup")
    shifted = {
        alias["UpdatePolicy"]["CodeDeployLambdaAliasUpdate"]["DeploymentGroupName"]["Ref"]
        for alias in aliases(STAGED).values()
    }
    assert shifted == set(groups)
    there = {alarm["AlarmName"]["Fn::Sub"].removeprefix("${Stack}-") for alarm in ALARMS.values()}
    for group in groups.values():
        said = group["Properties"]
        alarms = [alarm["Name"]["Fn::Sub"] for alarm in said["AlarmConfiguration"]["Alarms"]]
        named = {alarm.removeprefix("${AWS::StackName}-") for alarm in alarms}
        assert "function-errors" in named
        assert named <= there
        assert "DEPLOYMENT_STOP_ON_ALARM" in said["AutoRollbackConfiguration"]["Events"]
        assert said["ServiceRoleArn"] == {"Fn::GetAtt": ["DeploymentRole", "Arn"]}


def test_nothing_is_staged_unless_that_is_asked_for() -> None:
    assert not TEMPLATE.resources("AWS::CodeDeploy::DeploymentGroup")
    assert not any("UpdatePolicy" in alias for alias in aliases().values())


@pytest.mark.parametrize("function", sorted(SCHEDULED))
def test_a_parameter_that_changes_a_function_makes_a_new_version_of_it(function: str) -> None:
    environment = properties(function)["Environment"]["Variables"]
    version = aliases()[function]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
    # CloudFormation makes another version of another description. Nothing else may be in it: Lambda makes no version of
    # a function that has not changed, and the deployment would fail.
    assert refs(properties(version)["Description"]) == refs(environment)


def test_the_description_of_a_version_is_never_longer_than_lambda_allows() -> None:
    longest = {"MeshBaseUrl": 64, "MeshWorkflowId": 64, "EventBus": 64, "DpsMailbox": 20, "DpsSupplierOdsCode": 10}
    longest |= {"LogLevel": 7, "MeshDisableSslVerification": 5, "DpsFilenameStyle": 8}
    version = aliases()["ExportFunction"]["Properties"]["FunctionVersion"]["Fn::GetAtt"][0]
    separator, parts = properties(version)["Description"]["Fn::Join"]
    assert sum(longest.values()) + len(separator) * (len(parts) - 1) <= 256
    assert refs(parts) - {"Environment"} == set(longest)
    for name, length in longest.items():
        parameter = TEMPLATE.parameters[name]
        if "AllowedValues" in parameter:
            assert max(map(len, parameter["AllowedValues"])) <= length
        else:
            too_long = len(re.findall(parameter["AllowedPattern"], "A" * (length + 1))) == 0
            assert too_long or parameter["MaxLength"] <= length


@pytest.mark.parametrize("layer", ["MeshClientLayer", "VaccinationsLayer"])
def test_a_layer_that_changes_makes_new_versions_of_the_functions(layer: str, tmp_path: Path) -> None:
    text = (PROJECT / "template.yaml").read_text()
    changed = tmp_path / "template.yaml"
    head, here, tail = text.partition(f"  {layer}:\n")
    changed.write_text(head + here + tail.replace("Description: The package", "Description: Another package", 1))
    before, after = (
        {each["Properties"]["FunctionVersion"]["Fn::GetAtt"][0] for each in aliases(template).values()}
        for template in (TEMPLATE, Template.read(changed))
    )
    assert not before & after


# --- What watches over it --------------------------------------------------------------------------------------------

#: The names of functions and logs, as watching.yaml says them.
FUNCTION_NAMES = {
    function["Properties"]["FunctionName"]["Fn::Sub"].replace("${AWS::StackName}", "${Stack}")
    for function in TEMPLATE.resources("AWS::Lambda::Function").values()
}
LOG_GROUPS = {
    group["Properties"]["LogGroupName"]["Fn::Sub"].replace("${AWS::StackName}", "${Stack}")
    for group in TEMPLATE.resources("AWS::Logs::LogGroup").values()
}


@pytest.mark.parametrize(("name", "nested"), [("Watching", WATCHING), ("People", PEOPLE)])
def test_a_nested_application_is_given_each_of_its_parameters_and_no_others(name: str, nested: Template) -> None:
    application = properties(name)
    assert application["TemplateURL"] == f"{name.lower()}.yaml"
    assert set(application["Parameters"]) == set(nested.parameters)
    assert application["Parameters"]["Stack"] == {"Ref": "AWS::StackName"}


@pytest.mark.parametrize("name", sorted(name for name in WATCHING.parameters if name in TEMPLATE.parameters))
def test_a_parameter_that_is_passed_on_is_limited_in_both_templates_alike(name: str) -> None:
    assert properties("Watching")["Parameters"][name] == {"Ref": name}
    given, taken = TEMPLATE.parameters[name], WATCHING.parameters[name]
    limits = {"Type", "MinValue", "MaxValue", "AllowedPattern", "AllowedValues"}
    assert {limit: given.get(limit) for limit in limits} == {limit: taken.get(limit) for limit in limits}


def test_a_function_and_its_log_have_names_that_end_alike() -> None:
    for function in TEMPLATE.resources("AWS::Lambda::Function").values():
        name = function["Properties"]["FunctionName"]["Fn::Sub"].removeprefix("${AWS::StackName}-")
        group = properties(function["Properties"]["LoggingConfig"]["LogGroup"]["Ref"])["LogGroupName"]["Fn::Sub"]
        assert group == f"/aws/lambda/${{AWS::StackName}}/{name}"
        assert function["Properties"]["Environment"]["Variables"]["POWERTOOLS_SERVICE_NAME"] == name


# --- Alarms ----------------------------------------------------------------------------------------------------------

RUNBOOK = (PROJECT / "docs" / "operations.md").read_text()


#: What other alarms are made of, and what keeps them quiet: nobody is told of these by themselves.
SIGNALS = {"JobsAreOff", "MailboxSilence", "TrackSilence"}
COMPOSITES = WATCHING.resources("AWS::CloudWatch::CompositeAlarm")
ALARMS = {
    name: alarm["Properties"]
    for name, alarm in (WATCHING.resources("AWS::CloudWatch::Alarm") | COMPOSITES).items()
    if name not in SIGNALS
}
each_alarm = pytest.mark.parametrize("alarm", ALARMS.values(), ids=ALARMS)


def section_of(alarm: Any) -> str:
    return str(alarm["AlarmDescription"]["Fn::Sub"].rpartition(" ${RunbookUrl}#")[2])


@each_alarm
def test_an_alarm_says_what_it_means_and_leads_to_its_section_of_the_runbook(alarm: Any) -> None:
    section = section_of(alarm)
    assert alarm["AlarmName"]["Fn::Sub"].removeprefix("${Stack}-").startswith(section)
    meaning = alarm["AlarmDescription"]["Fn::Sub"].rpartition(" ")[0]
    assert len(meaning) > 80
    assert len(meaning) < 800, "CloudWatch takes 1,024 characters, the link among them"
    text = RUNBOOK.partition(f"\n### {section}\n")[2].partition("\n### ")[0]
    assert "**What happened.**" in text
    assert "**Do.**" in text


def test_the_runbook_is_about_alarms_that_there_are() -> None:
    sections = re.findall(r"^### (.+)$", RUNBOOK.partition("\n## Runbook\n")[2], re.MULTILINE)
    assert sorted(sections) == sorted({section_of(alarm) for alarm in ALARMS.values()})


@each_alarm
def test_an_alarm_rings_where_somebody_listens(alarm: Any) -> None:
    assert alarm["AlarmActions"] == [{"Ref": "AlarmsTopic"}]
    subscription = WATCHING.resources()["AlarmsByEmail"]
    assert subscription["Condition"] == "TellsByEmail"
    assert subscription["Properties"]["Endpoint"] == {"Ref": "AlarmEmail"}
    assert subscription["Properties"]["TopicArn"] == {"Ref": "AlarmsTopic"}


def test_a_signal_rings_nowhere_and_is_part_of_an_alarm() -> None:
    for name in SIGNALS:
        assert "AlarmActions" not in properties(name, WATCHING)
    rules = {name: alarm["Properties"]["AlarmRule"] for name, alarm in COMPOSITES.items()}
    assert rules == {
        "MailboxNotValidatedAlarm": {"Fn::Sub": 'ALARM("${MailboxSilence}")'},
        "TrackSilentAlarm": {"Fn::Sub": 'ALARM("${TrackSilence}")'},
    }


def test_the_silence_of_a_stack_that_is_new_or_switched_off_is_no_alarm() -> None:
    for name, alarm in COMPOSITES.items():
        assert alarm["Properties"]["ActionsSuppressor"] == {"Ref": "JobsAreOff"}, name
        # Track, which says each hour that it was skipped, has to be given the time to say it.
        assert TEMPLATE.parameters["TrackSchedule"]["Default"] == "cron(45 * * * ? *)"
        assert 3_600 < alarm["Properties"]["ActionsSuppressorWaitPeriod"] <= 7_200
    counted = {metric["MetricName"] for metric in looked_at(properties("JobsAreOff", WATCHING))}
    assert counted == {"JobsSkipped", "JobsNotYetEnabled"}
    # Every other alarm needs something to have happened.
    for name, alarm in ALARMS.items():
        assert name in COMPOSITES or alarm["TreatMissingData"] in {"notBreaching", "ignore"}, name


def looked_at(alarm: Any) -> list[Any]:
    """Return the metrics that an alarm looks at."""
    if "Metrics" in alarm:
        return [m["MetricStat"]["Metric"] for m in alarm["Metrics"] if "MetricStat" in m]
    return [alarm] if "MetricName" in alarm else []


def test_a_certificate_that_ends_is_told_of_a_month_a_week_and_a_day_before() -> None:
    days = [alarm["Threshold"] for alarm in ALARMS.values() if alarm.get("MetricName") == "CertificateDaysLeft"]
    assert days == [30, 7, 1]


def test_ingest_near_its_time_limit_is_an_alarm() -> None:
    limit = TEMPLATE.functions()["IngestFunction"].timeout * 1_000
    assert 0.7 * limit < ALARMS["UploadsSlowAlarm"]["Threshold"] < 0.9 * limit


def test_what_eventbridge_could_not_deliver_is_an_alarm_whether_it_was_set_aside_or_not() -> None:
    watched = {
        (name, json.dumps(metric["Dimensions"][0]["Value"]))
        for alarm in ALARMS.values()
        for metric in looked_at(alarm)
        if (name := metric["MetricName"]).endswith(("Invocations", "Dlq", "Visible"))
    }
    assert ("FailedInvocations", '{"Ref": "UploadsRule"}') in watched
    assert ("InvocationsFailedToBeSentToDlq", '{"Ref": "UploadsRule"}') in watched
    assert ("ApproximateNumberOfMessagesVisible", '{"Ref": "UndeliveredQueue"}') in watched
    assert properties("Watching")["Parameters"]["UploadsRule"] == {"Ref": "UploadsRule"}


def test_the_output_names_the_topic_of_the_alarms() -> None:
    name = properties("AlarmsTopic", WATCHING)["TopicName"]["Fn::Sub"].replace("${Stack}", "${AWS::StackName}")
    assert TEMPLATE.outputs["AlarmsTopicArn"]["Value"]["Fn::Sub"].endswith(f":{name}")


def test_alarms_may_publish_to_the_encrypted_topic_and_nobody_else_may() -> None:
    # Without a right to the key, CloudWatch drops what it should tell, and says so nowhere but in the alarm's history.
    [topic] = [
        s for s in statements(properties("AlarmsTopicPolicy", WATCHING)["PolicyDocument"]) if s["Effect"] == "Allow"
    ]
    [key] = [s for s in statements(properties("Key")["KeyPolicy"]) if s["Sid"] == "LetAlarmsUseTheTopic"]
    assert topic["Principal"] == key["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert topic["Condition"] == key["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}
    assert key["Action"] == ["kms:Decrypt", "kms:GenerateDataKey*"]
    assert tls_only(properties("AlarmsTopicPolicy", WATCHING)["PolicyDocument"]) == {json.dumps({"Ref": "AlarmsTopic"})}


@pytest.mark.parametrize(("name", "alarm"), resources("AWS::CloudWatch::Alarm", WATCHING))
def test_an_alarm_looks_back_no_further_than_cloudwatch_allows(name: str, alarm: Any) -> None:
    alarm = alarm["Properties"]
    period = alarm.get("Period") or {m["MetricStat"]["Period"] for m in alarm["Metrics"] if "MetricStat" in m}.pop()
    longest = 7 * 86_400 if period >= 3_600 else 86_400
    assert period * alarm["EvaluationPeriods"] <= longest
    assert alarm["TreatMissingData"] in {"breaching", "notBreaching", "ignore"}


def test_silence_is_an_alarm_of_its_own() -> None:
    breaching = {
        name
        for name, alarm in WATCHING.resources("AWS::CloudWatch::Alarm").items()
        if alarm["Properties"]["TreatMissingData"] == "breaching"
    }
    assert breaching == {"MailboxSilence", "TrackSilence"}


@pytest.mark.parametrize("metric", ["Errors", "Throttles"])
def test_every_function_is_watched(metric: str) -> None:
    watched = {
        m["MetricStat"]["Metric"]["Dimensions"][0]["Value"]["Fn::Sub"]
        for alarm in WATCHING.resources("AWS::CloudWatch::Alarm").values()
        for m in alarm["Properties"].get("Metrics", ())
        if m.get("MetricStat", {}).get("Metric", {}).get("MetricName") == metric
    }
    assert watched == FUNCTION_NAMES


def test_jobs_that_were_switched_off_are_an_alarm_in_production_only() -> None:
    assert WATCHING.resources()["JobsOffAlarm"]["Condition"] == "IsProduction"
    assert WATCHING.document["Conditions"]["IsProduction"] == {"Fn::Equals": [{"Ref": "Environment"}, "production"]}
    assert properties("Watching")["Parameters"]["Environment"] == {"Ref": "Environment"}
    counted = {metric["MetricName"] for metric in looked_at(ALARMS["JobsOffAlarm"])}
    assert counted == {"JobsSkipped"}, "a new stack, which was never switched on, is quiet"


# --- Dashboard and saved queries -------------------------------------------------------------------------------------

DASHBOARD = watching.dashboard(WATCHING, production=True)
WIDGETS = DASHBOARD["widgets"]


def on_dashboard(namespace: str, name: str) -> set[str]:
    """Return the values of a metric's only dimension that the dashboard shows."""
    found = (metric for widget in WIDGETS for metric in watching.metrics(widget))
    return {value for space, metric, _, value, *_ in found if (space, metric) == (namespace, name)}


def test_widgets_fit_the_grid_and_leave_each_other_room() -> None:
    taken = [
        (x, y)
        for widget in WIDGETS
        for x in range(widget["x"], widget["x"] + widget["width"])
        for y in range(widget["y"], widget["y"] + widget["height"])
    ]
    assert len(taken) == len(set(taken))
    assert max(x for x, _ in taken) < 24


def test_the_dashboard_is_in_characters_that_cloudformation_keeps() -> None:
    assert json.dumps(DASHBOARD, ensure_ascii=False).isascii()
    assert properties("Dashboard", WATCHING)["DashboardName"] == {"Ref": "Stack"}


def test_the_dashboard_shows_the_state_of_every_alarm_that_there_is() -> None:
    def shown(*, production: bool) -> list[str]:
        [widget] = [w for w in watching.dashboard(WATCHING, production=production)["widgets"] if w["type"] == "alarm"]
        return sorted(widget["properties"]["alarms"])

    alarms = sorted(f"${{{name}.Arn}}" for name in ALARMS)
    assert shown(production=True) == alarms
    assert shown(production=False) == [alarm for alarm in alarms if alarm != "${JobsOffAlarm.Arn}"]


@pytest.mark.parametrize("metric", ["Invocations", "Errors", "Throttles", "Duration"])
def test_every_function_is_on_the_dashboard(metric: str) -> None:
    assert on_dashboard("AWS/Lambda", metric) == {name.replace("${Stack}", "local") for name in FUNCTION_NAMES}


def test_the_dashboard_tells_the_memory_of_every_function() -> None:
    [widget] = [widget for widget in WIDGETS if widget["type"] == "log"]
    groups = set(re.findall(r"SOURCE '([^']+)'", widget["properties"]["query"]))
    assert groups == {name.replace("${Stack}", "local") for name in LOG_GROUPS}
    assert "max(@maxMemoryUsed" in widget["properties"]["query"]


@pytest.mark.parametrize("queue", ["UploadsQueue", "UploadsDeadLetterQueue", "UndeliveredQueue"])
def test_every_queue_is_on_the_dashboard(queue: str) -> None:
    assert f"${{{queue}}}" in on_dashboard("AWS/SQS", "ApproximateNumberOfMessagesVisible")


@pytest.mark.parametrize("name", ["template.yaml", "watching.yaml", "people.yaml", "uploader.yaml"])
def test_a_new_programme_needs_no_line_in_the_templates(name: str) -> None:
    words = set(re.findall(r"\w+", (PROJECT / name).read_text().lower()))
    assert not words & ({*PROGRAMMES, *(programme.name.lower() for programme in PROGRAMMES.values())} - {"hpv"})


def test_what_is_shown_of_programmes_is_labelled_with_the_programme() -> None:
    searches = [m[0] for w in WIDGETS for m in w["properties"].get("metrics", ()) if isinstance(m[0], dict)]
    assert len(searches) == 12
    assert all(search["label"].startswith("${PROP('Dim.programme')}") for search in searches)


def test_the_dashboard_begins_with_the_verdict_and_single_numbers_are_last() -> None:
    in_order = sorted(WIDGETS, key=lambda widget: (widget["y"], widget["x"]))
    kinds = [widget["properties"].get("view", widget["type"]) for widget in in_order]
    assert kinds[:6] == ["text", "custom", "alarm", "table", "table", "table"]
    assert set(kinds[6:-5]) == {"table", "timeSeries"}
    assert set(kinds[-5:]) == {"singleValue"}
    [verdict] = [widget["properties"] for widget in WIDGETS if widget["type"] == "custom"]
    assert verdict["endpoint"] == "${StatusFunction}"
    assert properties("Watching")["Parameters"]["StatusFunction"] == {"Fn::GetAtt": ["StatusFunction", "Arn"]}
    assert verdict["updateOn"]["refresh"]
    assert verdict["params"] == {"runbook": "${RunbookUrl}"}


def test_the_dashboard_leads_to_sections_of_the_runbook_that_there_are() -> None:
    [text] = [widget["properties"]["markdown"] for widget in WIDGETS if widget["type"] == "text"]
    anchors = {heading.lower().replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", RUNBOOK, re.MULTILINE)}
    sections = re.findall(r"\(\$\{RunbookUrl\}#([^)]+)\)", text)
    assert len(sections) == 3
    assert set(sections) <= anchors


def test_saved_queries_are_in_a_folder_of_the_stack_and_errors_are_looked_for_everywhere() -> None:
    assert {name.partition("/")[0] for name in watching.queries(WATCHING)} == {"local"}
    assert {group["Fn::Sub"] for group in properties("ErrorsQuery", WATCHING)["LogGroupNames"]} == LOG_GROUPS
    for query in WATCHING.resources("AWS::Logs::QueryDefinition").values():
        assert {group["Fn::Sub"] for group in query["Properties"]["LogGroupNames"]} <= LOG_GROUPS


def test_the_runbook_lists_the_saved_queries_and_names_no_others() -> None:
    queries = {name.removeprefix("local/") for name in watching.queries(WATCHING)}
    assert set(re.findall(r"^\| \*(\w+)\* \|", RUNBOOK, re.MULTILINE)) == queries
    assert set(re.findall(r"saved query \*(\w+)\*", RUNBOOK)) <= queries


# --- Functions and layers --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "function"), resources("AWS::Lambda::Function"))
def test_a_function_runs_on_python_313_and_is_traced(name: str, function: Any) -> None:
    assert function["Properties"]["Runtime"] == "python3.13"
    assert function["Properties"]["Architectures"] == ["x86_64"]
    assert function["Properties"]["TracingConfig"] == {"Mode": "Active"}


@pytest.mark.parametrize("layer", ["mesh_client", "vaccinations"])
def test_a_layer_is_pinned_and_leaves_boto3_to_the_runtime(layer: str) -> None:
    requirements = (PROJECT / "layers" / layer / "requirements.txt").read_text()
    names = re.findall(r"^([\w.-]+)==\S+", requirements, re.MULTILINE)
    assert names
    assert len(names) == len(re.findall(r"^[^\s#]", requirements, re.MULTILINE)), "each requirement is pinned"
    assert not {"boto3", "botocore", "s3transfer"} & set(names)
    assert "://" not in requirements


@pytest.mark.parametrize("function", TEMPLATE.functions().values(), ids=lambda f: f.name)
def test_a_function_logs_and_measures_under_its_own_name(function: Any) -> None:
    assert function.variables["POWERTOOLS_SERVICE_NAME"] == function.name.removesuffix("Function").lower()
    assert function.variables["POWERTOOLS_METRICS_NAMESPACE"] == {"Fn::Sub": "Vaccinations/${AWS::StackName}"}
    assert function.variables["POWERTOOLS_LOG_LEVEL"] == {"Ref": "LogLevel"}


@pytest.mark.parametrize("function", TEMPLATE.functions().values(), ids=lambda f: f.name)
def test_a_function_is_told_of_the_data_that_its_role_allows_and_of_nothing_else(function: Any) -> None:
    role = properties(properties(function.name)["Role"]["Fn::GetAtt"][0])
    allowed = json.dumps([s["Resource"] for p in role["Policies"] for s in statements(p["PolicyDocument"])])
    data = {"Bucket", "DpsExportsTable", "MeshSecret", "VaccinationRecordsTable", "mesh_jobs"}
    told = {value["Ref"] for value in function.variables.values() if isinstance(value, dict) and "Ref" in value}
    if "MESH_JOBS_PARAMETER" in function.variables:
        told.add("mesh_jobs")
    assert told & data == {name for name in data if re.search(rf"\b{name}\b", allowed)}


# --- Parameters and deployment ---------------------------------------------------------------------------------------


def test_no_deployment_touches_the_flag_so_a_new_stack_does_not_speak_to_mesh() -> None:
    flag = {"Fn::Sub": "/${AWS::StackName}/mesh_jobs"}
    assert TEMPLATE.outputs["MeshJobsParameterName"]["Value"] == flag
    told = {f.name for f in TEMPLATE.functions().values() if f.variables.get("MESH_JOBS_PARAMETER") == flag}
    assert told == {"ValidateFunction", "ExportFunction", "TrackFunction", "CollectFunction"}
    for template in (TEMPLATE, WATCHING, PEOPLE, UPLOADER):
        assert not template.resources("AWS::SSM::Parameter")


@pytest.mark.parametrize(
    "parameter",
    [
        pytest.param(parameter, id=f"{file}-{name}")
        for file, template in (
            ("template", TEMPLATE),
            ("watching", WATCHING),
            ("people", PEOPLE),
            ("uploader", UPLOADER),
        )
        for name, parameter in template.parameters.items()
    ],
)
def test_a_parameter_says_what_it_is_for_and_refuses_nonsense(parameter: Any) -> None:
    assert parameter["Description"]
    assert {"AllowedValues", "AllowedPattern", "MinValue"} & set(parameter)
    if "AllowedPattern" in parameter:
        assert parameter["ConstraintDescription"].startswith("must be")
        if "Default" in parameter:
            assert re.search(parameter["AllowedPattern"], parameter["Default"])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MeshBaseUrl", "http://msg.intspineservices.nhs.uk"),
        ("MeshBaseUrl", "https://msg.intspineservices.nhs.uk/"),
        ("MeshBaseUrl", "https://msg.intspineservices.nhs.uk/messageexchange"),
        ("MeshBaseUrl", "https://user:pass@msg.intspineservices.nhs.uk"),
        ("DpsMailbox", "x26abc3"),
        ("DpsMailbox", ""),
        ("DpsSupplierOdsCode", "r1"),
        ("MeshWorkflowId", " dps export"),
        ("MeshWorkflowId", ""),
        ("ExportSchedule", "0 19 * * ? *"),
        ("AlarmEmail", "on-call"),
        ("RunbookUrl", "https://example.org/operations.md#top"),
        ("RunbookUrl", "http://example.org/operations.md"),
        ("PermissionsBoundary", "boundary"),
        ("AccessLogBucket", "s3://logs"),
    ],
)
def test_a_mistyped_parameter_is_refused_before_anything_is_deployed(name: str, value: str) -> None:
    assert not re.search(TEMPLATE.parameters[name]["AllowedPattern"], value)


def holds(condition: Any, given: dict[str, str]) -> bool:
    match condition:
        case {"Fn::Equals": [{"Ref": name}, value]}:
            return given[name] == str(value)
        case {"Fn::Not": [negated]}:
            return not holds(negated, given)
    raise AssertionError(condition)


def refusals(**parameters: str) -> list[str]:
    """Return why CloudFormation refuses to deploy with some parameters, the others at their defaults."""
    given = {name: str(p["Default"]) for name, p in TEMPLATE.parameters.items() if "Default" in p} | parameters
    return [
        assertion["AssertDescription"]
        for rule in TEMPLATE.document["Rules"].values()
        if holds(rule["RuleCondition"], given)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], given)
    ]


@pytest.mark.parametrize(
    ("style", "code", "deployed"),
    [("batch-v5", "V0V8L", True), ("batch-v5", "", False), ("guide", "", True), ("guide", "V0V8L", True)],
)
def test_names_that_dps_takes_are_not_deployed_without_the_suppliers_code(
    style: str, code: str, deployed: bool
) -> None:
    refused = refusals(DpsFilenameStyle=style, DpsSupplierOdsCode=code)
    assert (refused == []) is deployed
    assert all("supplier" in why for why in refused)
    assert TEMPLATE.parameters["DpsFilenameStyle"]["Default"] == "batch-v5"


PRODUCTION = {
    "Environment": "production",
    "AlarmEmail": "on-call@example.org",
    "RunbookUrl": "https://example.org/operations.md",
    "DpsSupplierOdsCode": "V0V8L",
}


def test_production_is_deployed_with_all_that_makes_it_safe() -> None:
    assert refusals(**PRODUCTION) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AlarmEmail", ""),
        ("RunbookUrl", "docs/operations.md"),
        ("MeshDisableSslVerification", "true"),
        ("MeshBaseUrl", "https://sandbox.example.org"),
        ("DpsSupplierOdsCode", ""),
        ("DeletionProtection", "false"),
    ],
)
def test_production_is_refused_without_any_one_of_it_and_integration_is_not(name: str, value: str) -> None:
    given = PRODUCTION | {"DpsFilenameStyle": "guide", name: value}
    [why] = refusals(**given)
    assert why.startswith(name)
    assert refusals(**given | {"Environment": "integration"}) == []


def test_the_environment_chooses_meshs_address() -> None:
    chosen = {name: entry["BaseUrl"] for name, entry in TEMPLATE.document["Mappings"]["Mesh"].items()}
    assert chosen == {"integration": nhs_mesh.INTEGRATION, "production": nhs_mesh.LIVE}
    assert set(chosen) == set(TEMPLATE.parameters["Environment"]["AllowedValues"])
    assert TEMPLATE.parameters["Environment"]["Default"] == "integration"
    address = {
        "Fn::If": [
            "HasMeshBaseUrl",
            {"Ref": "MeshBaseUrl"},
            {"Fn::FindInMap": ["Mesh", {"Ref": "Environment"}, "BaseUrl"]},
        ]
    }
    addresses = [f.variables["MESH_BASE_URL"] for f in TEMPLATE.functions().values() if "MESH_BASE_URL" in f.variables]
    assert [*addresses, TEMPLATE.outputs["MeshBaseUrl"]["Value"]] == [address] * 5
    assert TEMPLATE.document["Conditions"]["HasMeshBaseUrl"] == {
        "Fn::Not": [{"Fn::Equals": [{"Ref": "MeshBaseUrl"}, ""]}]
    }


@pytest.mark.parametrize("environment", ["default", "integration", "production"])
def test_the_settings_of_each_environment_are_ones_that_the_template_takes(environment: str) -> None:
    deploy = SAMCONFIG[environment]["deploy"]["parameters"]
    assert deploy["stack_name"].startswith("vaccinations-to-dps-")
    assert deploy["tags"]
    assert set(deploy["capabilities"].split()) == {"CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"}, (
        "for the nested applications"
    )
    given = dict(override.split("=", 1) for override in deploy["parameter_overrides"])
    assert set(given) <= set(TEMPLATE.parameters)
    for name, value in given.items():
        parameter = TEMPLATE.parameters[name]
        assert value in map(str, parameter.get("AllowedValues", [value]))
        assert re.search(parameter.get("AllowedPattern", ""), value)


def test_the_settings_of_production_deploy_once_what_only_the_organisation_knows_is_added() -> None:
    given = dict(o.split("=", 1) for o in SAMCONFIG["production"]["deploy"]["parameters"]["parameter_overrides"])
    assert given["Environment"] == "production"
    assert len(refusals(**given)) == 4  # of them the supplier's code twice
    assert refusals(**PRODUCTION | given) == []


def test_the_stack_tells_the_commands_where_everything_is() -> None:
    assert set(TEMPLATE.outputs) >= {
        "BucketName",
        "DpsExportsTableName",
        "VaccinationRecordsTableName",
        "MeshSecretArn",
        "MeshJobsParameterName",
        "UploadsQueueUrl",
        "UploadsDeadLetterQueueUrl",
        "ValidateFunctionName",
        "IngestFunctionName",
        "ExportFunctionName",
        "TrackFunctionName",
        "CollectFunctionName",
        "MeshBaseUrl",
        "MeshWorkflowId",
        "DpsMailbox",
    }
    assert all(output["Description"] for output in TEMPLATE.outputs.values())


# --- Events ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", sorted((PROJECT / "events").glob("*.json")), ids=lambda path: path.stem)
def test_an_example_event_belongs_to_a_function(path: Any) -> None:
    event = json.loads(path.read_text())
    assert isinstance(event, dict)
    assert f"{path.stem.partition('-')[0].title().replace('_', '')}Function" in TEMPLATE.functions()


def test_the_example_upload_is_one_that_the_rule_lets_through() -> None:
    (record,) = json.loads((PROJECT / "events" / "ingest.json").read_text())["Records"]
    event = json.loads(record["body"])
    pattern = properties("UploadsRule")["EventPattern"]
    assert [event["source"]] == pattern["source"]
    assert [event["detail-type"]] == pattern["detail-type"]
    prefixes = tuple(key["prefix"] for key in pattern["detail"]["object"]["key"])
    assert event["detail"]["object"]["key"].startswith(prefixes)
