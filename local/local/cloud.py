"""AWS on this machine: moto's server, and in it the stack of template.yaml.

moto's CloudFormation creates what it knows. What it does not know is created through the services' own APIs from the
template's properties, as is what it ignores silently (a bucket's versioning and notifications). Functions are not
created there: `local.emulator` runs them. The nested applications (alarms and dashboard, rights of people) are
left out.
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.config import Config

from local import children
from local.session import session

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from local.template import Template

__all__ = ["STACK_NAME", "Aws", "CloudError", "EventSource", "Stack"]

STACK_NAME = "local"

#: What moto's CloudFormation creates well enough. Roles and policies are left out, since nothing enforces IAM here;
#: logs are files.
_CREATED_BY_MOTO = {
    "AWS::DynamoDB::Table",
    "AWS::Events::Rule",
    "AWS::KMS::Key",
    "AWS::S3::Bucket",
    "AWS::SQS::Queue",
}

#: An output added to the stack, in which moto returns, resolved, what the template says about other resources.
_RESOLVED = "Resolved"


class CloudError(Exception):
    """The cloud on this machine did not start; the message says what to do or where to look."""


@dataclass(frozen=True, slots=True)
class EventSource:
    """A queue whose messages a function gets."""

    queue_arn: str
    function: str
    batch_size: int


@dataclass(frozen=True, slots=True)
class Stack:
    """The stack as it was created.

    Attributes
    ----------
    outputs
        The template's outputs.
    environments
        Each function's environment variables, by the function's logical id.
    event_sources
        The queues whose messages functions get.
    """

    outputs: Mapping[str, str]
    environments: Mapping[str, Mapping[str, str]]
    event_sources: tuple[EventSource, ...]


class Aws:
    """moto's server, as a child process.

    Parameters
    ----------
    directory
        Where it writes its log.
    host
        The address it listens on.

    Attributes
    ----------
    endpoint_url
        The value for ``AWS_ENDPOINT_URL``.
    """

    def __init__(self, directory: Path, host: str) -> None:
        self._log = directory / "aws.log"
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self._host = host
        self._port = children.free_port(host)
        self.endpoint_url = f"http://{host}:{self._port}"
        self._session = session()

    def start(self) -> None:
        """Start the server, without waiting for it."""
        self._process = children.start(
            [sys.executable, "-m", "local.moto", "-H", self._host, "-p", str(self._port)],
            log=self._log,
            environment={
                "PATH": os.defpath,
                "HOME": str(self._directory),
                "TMPDIR": str(self._directory),
                "MOTO_RECORDER_FILEPATH": str(self._directory / "requests.jsonl"),  # written only on request
            },
        )

    def close(self) -> None:
        """Stop the server; everything in it is lost."""
        if self._process is not None:
            children.stop(self._process)

    def client(self, service: Any) -> Any:
        """Return a boto3 client of the server, for example ``client("s3")``."""
        return self._session.client(service, endpoint_url=self.endpoint_url, config=Config(proxies={}))

    def wait(self) -> None:
        """Wait until the server answers.

        Raises
        ------
        CloudError
            It has stopped, or does not answer in time.
        """
        if self._process is None or not children.listens(self._process, self._port, self._host):
            raise CloudError(f"moto's server does not answer:\n{self._log.read_text()[-2000:]}")
        # moto loads its CloudFormation, which takes two seconds, before it is needed.
        self.client("cloudformation").list_stacks()

    def deploy(self, template: Template, parameters: Mapping[str, str], secrets: Mapping[str, str]) -> Stack:
        """Create the stack.

        Parameters
        ----------
        parameters
            Values of the template's parameters, where they differ from the defaults.
        secrets
            What is put into the template's secrets, which are deployed empty, by logical id.
        """
        made = {name: f"{STACK_NAME}-{name}" for name in template.resources()}
        for name in template.resources("AWS::SecretsManager::Secret"):
            secret = self.client("secretsmanager").create_secret(Name=made[name], SecretString=secrets[name])
            made[name] = secret["ARN"]

        for name, alias in template.resources("AWS::Lambda::Alias").items():
            made[name] = f"{made[alias['Properties']['FunctionName']['Ref']]}:{alias['Properties']['Name']}"

        document, values = _for_moto(template, made)
        cloudformation = self.client("cloudformation")
        cloudformation.create_stack(
            StackName=STACK_NAME,
            TemplateBody=json.dumps(document),
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value} for name, value in (values | dict(parameters)).items()
            ],
        )
        stack = cloudformation.describe_stacks(StackName=STACK_NAME)["Stacks"][0]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        resolved = json.loads(outputs.pop(_RESOLVED))
        for bucket in resolved["buckets"]:
            self._finish_bucket(bucket["name"], bucket["properties"])
        return Stack(
            outputs=outputs,
            environments=resolved["environments"],
            event_sources=tuple(EventSource(**source) for source in resolved["event_sources"]),
        )

    def _finish_bucket(self, name: str, properties: Mapping[str, Any]) -> None:
        """Apply the properties of a bucket that matter here and that moto's CloudFormation ignores."""
        s3 = self.client("s3")
        if "VersioningConfiguration" in properties:
            s3.put_bucket_versioning(Bucket=name, VersioningConfiguration=properties["VersioningConfiguration"])
        if "EventBridgeConfiguration" in properties.get("NotificationConfiguration", {}):
            s3.put_bucket_notification_configuration(
                Bucket=name, NotificationConfiguration={"EventBridgeConfiguration": {}}
            )


def _for_moto(template: Template, made: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str]]:
    """Reduce the template to what moto creates.

    Every other resource becomes a parameter, whose value is what was ``made`` for it.

    Returns
    -------
    The template, and the values of the parameters that were added.
    """
    resources: dict[str, Any] = {}
    values: dict[str, str] = {}
    for name, resource in template.resources().items():
        if resource["Type"] in _CREATED_BY_MOTO:
            properties = dict(resource["Properties"])
            if properties.get("FifoQueue"):
                properties.setdefault("QueueName", f"{name}.fifo")  # AWS adds the ending itself, moto does not
            resources[name] = {"Type": resource["Type"], "Properties": properties}
        else:
            values[name] = made[name]

    resolved = {
        "environments": {name: dict(function.variables) for name, function in template.functions().items()},
        "event_sources": [
            {
                "queue_arn": mapping["Properties"]["EventSourceArn"],
                "function": mapping["Properties"]["FunctionName"]["Ref"],
                "batch_size": mapping["Properties"].get("BatchSize", 10),
            }
            for mapping in template.resources("AWS::Lambda::EventSourceMapping").values()
        ],
        "buckets": [
            {"name": {"Ref": name}, "properties": bucket["Properties"]}
            for name, bucket in template.resources("AWS::S3::Bucket").items()
        ],
    }
    applications = template.resources("AWS::CloudFormation::Stack")
    outputs = {
        name: output
        for name, output in template.outputs.items()
        if not (isinstance(output["Value"], dict) and output["Value"].get("Fn::GetAtt", [""])[0] in applications)
    }
    document = {
        "Parameters": {**template.parameters, **{name: {"Type": "String"} for name in values}},
        "Mappings": template.document.get("Mappings", {}),
        "Conditions": template.document.get("Conditions", {}),
        "Resources": resources,
        "Outputs": {**outputs, _RESOLVED: {"Value": {"Fn::ToJsonString": resolved}}},
    }
    return document, values
