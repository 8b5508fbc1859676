"""Which deployment a command works on: always a stack, known by its CloudFormation outputs.

In this order:

1. ``--stack NAME`` or ``MESH_STACK``, with the caller's AWS credentials;
2. the stack on this machine, where ``mesh local up`` is running: the environment file that it wrote says where AWS is;
3. the developer's own stack that ``samconfig.toml`` names (``default.deploy.parameters``).

The region is ``AWS_REGION``'s, else ``AWS_DEFAULT_REGION``'s, else the profile's, else what samconfig.toml says of the
stack. ``MESH_MAILBOX`` and ``MESH_PASSWORD`` in the environment take the place of the secret's in every case.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnection

from vaccinations.aws.clients import Clients
from vaccinations.settings import COMMAND, Settings
from vaccinations.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "EXPORTED",
    "FUNCTIONS",
    "LOCAL_ENVIRONMENT",
    "Deployment",
    "NoDeployment",
    "find_deployment",
    "find_file",
    "local_deployment",
    "local_environment",
]

#: The file in which a running local stack says what is where, under the project's folder.
LOCAL_ENVIRONMENT = Path(".local/environment")
#: The file in which SAM is told how each stack is deployed.
SAMCONFIG = Path("samconfig.toml")
ON_THIS_MACHINE = "the stack on this machine"
#: A person waits no longer than this many tries.
ATTEMPTS = 3


class NoDeployment(Exception):
    """No deployment to work on was found; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment that a command works on.

    Attributes
    ----------
    where
        What it is called: ``the stack NAME in REGION`` or ``the stack on this machine``.
    outputs
        The stack's outputs.
    reached_by
        The environment variables by which the commands, and the AWS CLI, find it.
    """

    where: str
    wiring: Wiring
    outputs: Mapping[str, str]
    reached_by: Mapping[str, str]

    @property
    def functions(self) -> dict[str, str]:
        """The name of each function, by job: ``export``."""
        return {job: self.outputs[key] for job, key in FUNCTIONS.items()}

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables that the commands of docs/operations.md use."""
        return {**self.reached_by, **{name: self.outputs[key] for name, key in EXPORTED.items()}}

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self.wiring.settings

    @property
    def clients(self) -> Clients:
        """The boto3 clients that reach it."""
        return self.wiring.clients


def find_deployment(
    stack: str | None, environ: Mapping[str, str], tell: Callable[[str], object] = lambda _: None
) -> Deployment:
    """Find the deployment to work on.

    Parameters
    ----------
    stack
        The stack's name, where it is given.
    tell
        Told what it is called, before it is reached, since that may take its time.

    Raises
    ------
    NoDeployment
        There is none.
    botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
        AWS cannot be reached, or does not let these credentials in.
    """
    if not stack and (variables := local_environment()):
        tell(ON_THIS_MACHINE)
        return local_deployment({**environ, **variables})
    samconfig = _samconfig()
    named = stack or _parameters(samconfig.get("default"), "deploy").get("stack_name")
    if not named:
        raise NoDeployment(
            "no deployment to work on. Start one on this machine with: mesh local up\n"
            "or name a deployed one with: --stack NAME"
        )
    try:
        said = environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or boto3.Session().region_name
    except BotoCoreError as error:  # a profile that there is not
        raise NoDeployment(f"{error}; name another with AWS_PROFILE") from None
    region = said or _region(samconfig, named)
    if not region:
        raise NoDeployment(f"in which region is the stack {named!r}? Say so with AWS_REGION or a profile")
    where = f"the stack {named} in {region}"
    tell(where)
    clients = Clients(boto3.Session(region_name=region), attempts=ATTEMPTS)
    try:
        reached_by = {"MESH_STACK": named, "AWS_REGION": region}
        return _deployment(where, reached_by, clients, environ)
    except NoDeployment as error:
        if stack:
            raise
        raise NoDeployment(
            f"{error}\nsamconfig.toml names it. Name another with: --stack NAME\n"
            "or start one on this machine with: mesh local up"
        ) from None


def local_deployment(variables: Mapping[str, str]) -> Deployment:
    """Return the stack on this machine, by the variables of `local.stack.LocalCloud.environment_of_commands`."""
    session = boto3.Session(
        variables["AWS_ACCESS_KEY_ID"],
        variables["AWS_SECRET_ACCESS_KEY"],
        variables["AWS_SESSION_TOKEN"],
        variables["AWS_DEFAULT_REGION"],
    )
    endpoint, functions = variables["AWS_ENDPOINT_URL"], variables["AWS_ENDPOINT_URL_LAMBDA"]
    clients = Clients(session, endpoint, functions, attempts=ATTEMPTS)
    reached_by = {name: value for name, value in variables.items() if name.startswith("AWS_") or name == "MESH_STACK"}
    try:
        return _deployment(ON_THIS_MACHINE, reached_by, clients, variables)
    except (HTTPClientError, NoConnection):
        raise NoDeployment(
            "the stack on this machine does not answer: start it again with: mesh local up\n"
            "or name a deployed one with: --stack NAME"
        ) from None


def local_environment() -> dict[str, str]:
    """Return the variables by which a running local stack is reached; none where there is none."""
    lines = (_text_of(LOCAL_ENVIRONMENT) or "").splitlines()
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def _deployment(where: str, reached_by: Mapping[str, str], clients: Clients, environ: Mapping[str, str]) -> Deployment:
    stack = reached_by["MESH_STACK"]
    try:
        stacks = clients.stacks.describe_stacks(StackName=stack)["Stacks"]
    except ClientError as error:
        if error.response["Error"]["Code"] != "ValidationError":
            raise
        raise NoDeployment(f"{where} is not there: the name, the region or the account is another") from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    if missing := [key for key in (*OUTPUTS.values(), *FUNCTIONS.values(), *EXPORTED.values()) if key not in outputs]:
        raise NoDeployment(f"the stack {stack!r} is not one of this project: it lacks the outputs {', '.join(missing)}")
    settings = Settings.of(COMMAND, {name: outputs[key] for name, key in OUTPUTS.items()})
    instead = {"mailbox": environ.get("MESH_MAILBOX"), "password": environ.get("MESH_PASSWORD")}
    wiring = Wiring(settings, clients, instead={name: value for name, value in instead.items() if value})
    return Deployment(where, wiring, outputs, reached_by)


def _samconfig() -> dict[str, Any]:
    try:
        return tomllib.loads(_text_of(SAMCONFIG) or "")
    except tomllib.TOMLDecodeError as error:
        raise NoDeployment(f"samconfig.toml cannot be read: {error}") from None


def _parameters(environment: Any, command: str) -> dict[str, Any]:
    """Return what samconfig.toml says of a command in one of its environments."""
    tables = environment if isinstance(environment, dict) else {}
    parameters: dict[str, Any] = tables.get(command, {}).get("parameters", {})
    return parameters


def _region(samconfig: Mapping[str, Any], stack: str) -> str | None:
    """Return the region in which samconfig.toml says that a stack is deployed; else the default one."""
    of_stack = (each for each in samconfig.values() if _parameters(each, "deploy").get("stack_name") == stack)
    region: str | None = _parameters(next(of_stack, samconfig.get("default")), "global").get("region")
    return region


def find_file(file: Path) -> Path | None:
    """Find a file in this folder or one above it; None where there is no such file."""
    return next((folder / file for folder in (Path.cwd(), *Path.cwd().parents) if (folder / file).is_file()), None)


def _text_of(file: Path) -> str | None:
    found = find_file(file)
    return found.read_text() if found else None


#: Environment variables of the functions, and the stack's outputs that hold the same.
OUTPUTS = {
    "DPS_EXPORTS_TABLE": "DpsExportsTableName",
    "VACCINATION_RECORDS_TABLE": "VaccinationRecordsTableName",
    "BUCKET": "BucketName",
    "UPLOADS_QUEUE": "UploadsQueueUrl",
    "MESH_SECRET": "MeshSecretArn",
    "MESH_JOBS_PARAMETER": "MeshJobsParameterName",
    "MESH_BASE_URL": "MeshBaseUrl",
    "DPS_MAILBOX": "DpsMailbox",
    "MESH_WORKFLOW_ID": "MeshWorkflowId",
    "MESH_DISABLE_SSL_VERIFICATION": "MeshDisableSslVerification",
    "DPS_FILENAME_STYLE": "DpsFilenameStyle",
    "DPS_SUPPLIER_ODS_CODE": "DpsSupplierOdsCode",
    "EVENT_BUS": "EventBusName",
}

#: The functions, by job, and the stack's outputs that hold their names.
FUNCTIONS = {
    "validate": "ValidateFunctionName",
    "ingest": "IngestFunctionName",
    "export": "ExportFunctionName",
    "track": "TrackFunctionName",
    "collect": "CollectFunctionName",
    "reconcile": "ReconcileFunctionName",
    "status": "StatusFunctionName",
}

#: What docs/operations.md calls the outputs that its commands use beside those of `mesh` itself.
EXPORTED = {
    "BUCKET": "BucketName",
    "KEY": "KeyArn",
    "LEDGER": "DpsExportsTableName",
    "REGISTER": "VaccinationRecordsTableName",
    "INGEST_FUNCTION": "IngestFunctionName",
    "UPLOADS_QUEUE_URL": "UploadsQueueUrl",
    "DEAD_LETTER_QUEUE_URL": "UploadsDeadLetterQueueUrl",
    "UNDELIVERED_QUEUE_URL": "UndeliveredQueueUrl",
}
