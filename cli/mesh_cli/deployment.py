"""Which deployment a command works on.

In this order:

1. ``--stack NAME`` (or ``MESH_STACK``): the outputs of that CloudFormation stack, with the caller's AWS credentials;
2. the environment: the same variables that the functions have, where ``DPS_EXPORTS_TABLE`` is set;
3. the local stack, where ``mesh local up`` is running: the environment file that it wrote.

``MESH_MAILBOX`` and ``MESH_PASSWORD`` in the environment take the place of the secret's in every case.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError

from vaccinations.aws.clients import Clients
from vaccinations.settings import COMMAND, Settings
from vaccinations.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Deployment", "NoDeployment", "find_deployment", "local_deployment", "local_environments"]

#: The file in which a running local stack says what is where, under the project's folder.
LOCAL_ENVIRONMENT = Path(".local/environment")


class NoDeployment(Exception):
    """No deployment to work on was found; the message says how to name one."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """A deployment that a command works on.

    Attributes
    ----------
    where
        What it is called: ``the stack NAME``, ``the environment's stack`` or ``the stack on this machine``.
    """

    where: str
    wiring: Wiring

    @property
    def settings(self) -> Settings:
        """Its settings."""
        return self.wiring.settings

    @property
    def clients(self) -> Clients:
        """The boto3 clients that reach it."""
        return self.wiring.clients


def find_deployment(stack: str | None, environ: Mapping[str, str]) -> Deployment:
    """Find the deployment to work on.

    Raises
    ------
    NoDeployment
        There is none, or the stack cannot be read.
    vaccinations.settings.SettingsError
        It is there, but a setting is missing.
    """
    if stack:
        clients = Clients()
        return _deployment(f"the stack {stack}", {**environ, **_outputs(clients, stack)}, clients)
    if environ.get("DPS_EXPORTS_TABLE"):
        return _deployment("the environment's stack", environ, Clients())
    return local_deployment({**environ, **_local_environment()})


def local_deployment(variables: Mapping[str, str]) -> Deployment:
    """Return the stack on this machine, by the variables of its functions."""
    session = boto3.Session(
        variables["AWS_ACCESS_KEY_ID"],
        variables["AWS_SECRET_ACCESS_KEY"],
        variables["AWS_SESSION_TOKEN"],
        variables["AWS_DEFAULT_REGION"],
    )
    return _deployment("the stack on this machine", variables, Clients(session, variables["AWS_ENDPOINT_URL"]))


def _deployment(where: str, variables: Mapping[str, str], clients: Clients) -> Deployment:
    instead = {"mailbox": variables.get("MESH_MAILBOX"), "password": variables.get("MESH_PASSWORD")}
    settings = Settings.of(COMMAND, variables)
    return Deployment(
        where, Wiring(settings, clients, instead={name: value for name, value in instead.items() if value})
    )


def _outputs(clients: Clients, stack: str) -> Mapping[str, str]:
    """Read a stack's outputs as the environment variables of its functions."""
    try:
        stacks = clients.stacks.describe_stacks(StackName=stack)["Stacks"]
    except (BotoCoreError, ClientError) as error:
        raise NoDeployment(f"the stack {stack!r} cannot be read: {error}") from None
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stacks[0].get("Outputs", [])}
    return {name: outputs[key] for name, key in OUTPUTS.items() if key in outputs}


def _local_environment() -> Mapping[str, str]:
    for folder in (Path.cwd(), *Path.cwd().parents):
        file = folder / LOCAL_ENVIRONMENT
        if file.is_file():
            lines = (line.partition("=") for line in file.read_text().splitlines() if "=" in line)
            return {name: value for name, _, value in lines if not name.startswith("#")}
    raise NoDeployment(
        "no deployment to work on. Start one on this machine with: mesh local up\n"
        "or name a deployed one with: --stack NAME"
    )


def local_environments(what: str) -> dict[str, Any]:
    """Return the functions' environment variables on the stack that `mesh local up` has running, by logical id.

    Parameters
    ----------
    what
        What is done there, for the message.

    Raises
    ------
    NoDeployment
        It is not up.
    """
    from local.stack import PROJECT

    variables = PROJECT / ".local" / "env.json"
    if not variables.is_file():
        raise NoDeployment(f"{what} on the stack of this machine; start it with: mesh local up")
    environments: dict[str, Any] = json.loads(variables.read_text())
    return environments


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
