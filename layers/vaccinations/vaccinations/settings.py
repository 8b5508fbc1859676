"""What a deployment is told from outside: the environment, the secret and the ``mesh_jobs`` flag.

The environment names things; Secrets Manager holds what must not be seen; an SSM parameter switches the jobs on
and off without a deployment.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache, wraps
from typing import TYPE_CHECKING, Any, Self

import boto3
from aws_lambda_powertools.utilities import parameters
from botocore.config import Config

from vaccinations.telemetry import count, logger

# The rooms that a function does not open, it does not load.
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from nhs_mesh import MeshClient
    from vaccinations.aws.bucket import Archive
    from vaccinations.aws.ledger import Ledger
    from vaccinations.aws.register import Register
    from vaccinations.telemetry import Handler

__all__ = [
    "FilenameStyle",
    "SecretIncomplete",
    "Settings",
    "SettingsError",
    "connect",
    "invoke_later",
    "skipped_when_off",
]

#: What the secret's JSON document must hold.
SECRET_FIELDS = (
    "mailbox",
    "password",
    "shared_key",
    "private_key",
    "private_key_passphrase",
    "certificate",
    "ca_bundle",
)
#: ``Mex-WorkflowID`` of an export where nothing else was agreed with DPS.
DEFAULT_WORKFLOW_ID = "dps export"
#: A secret read once serves a warm function this many seconds; a rotated password is picked up after that.
SECRET_MAX_AGE = 300


class SettingsError(ValueError):
    """A setting is missing or has a value that means nothing; the message names it and what it may be."""


class SecretIncomplete(SettingsError):
    """The MESH secret lacks fields; the message names them, never their contents."""


class FilenameStyle(StrEnum):
    """How ``Mex-FileName`` is formed (dps-csv, "File names")."""

    GUIDE = "guide"
    BATCH_V5 = "batch-v5"


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one deployment.

    Attributes
    ----------
    exports_table, records_table, bucket
        Names of the ledger's table, the register's table and the bucket.
    mesh_secret, mesh_jobs_parameter
        Name or ARN of the secret, name of the SSM parameter.
    mesh_base_url
        MESH's address without the path, for example ``https://msg.intspineservices.nhs.uk``.
    dps_mailbox, workflow_id
        ``Mex-To`` and ``Mex-WorkflowID`` of every export.
    verify_ssl
        False only towards a sandbox; the client refuses it for hosts of nhs.uk.
    filename_style, ods_code
        How files are named on MESH; the ODS code is part of the ``batch-v5`` name.
    event_bus
        Name or ARN of the EventBridge bus that exports' changes of state are published on; none where empty.
    """

    exports_table: str
    records_table: str
    bucket: str
    mesh_secret: str
    mesh_jobs_parameter: str
    mesh_base_url: str
    dps_mailbox: str
    workflow_id: str = DEFAULT_WORKFLOW_ID
    verify_ssl: bool = True
    filename_style: FilenameStyle = FilenameStyle.GUIDE
    ods_code: str = ""
    event_bus: str = ""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Read the settings from environment variables.

        Raises
        ------
        SettingsError
            Variables are missing or hold a value that is not allowed; all missing ones are named at once.
        """
        env = os.environ if environ is None else environ
        required = {
            "exports_table": "DPS_EXPORTS_TABLE",
            "records_table": "VACCINATION_RECORDS_TABLE",
            "bucket": "BUCKET",
            "mesh_secret": "MESH_SECRET",
            "mesh_jobs_parameter": "MESH_JOBS_PARAMETER",
            "mesh_base_url": "MESH_BASE_URL",
            "dps_mailbox": "DPS_MAILBOX",
        }
        if missing := [name for name in required.values() if not env.get(name)]:
            raise SettingsError(f"missing from the environment: {', '.join(missing)}")
        style = _one_of(env, "DPS_FILENAME_STYLE", [str(style) for style in FilenameStyle])
        ods_code = env.get("DPS_ODS_CODE", "")
        if style == FilenameStyle.BATCH_V5 and not ods_code:
            raise SettingsError("DPS_FILENAME_STYLE=batch-v5 needs DPS_ODS_CODE, the sender's ODS code")
        return cls(
            **{field: env[name] for field, name in required.items()},
            workflow_id=env.get("MESH_WORKFLOW_ID") or DEFAULT_WORKFLOW_ID,
            verify_ssl=_one_of(env, "MESH_DISABLE_SSL_VERIFICATION", ["false", "true"]) == "false",
            filename_style=FilenameStyle(style),
            ods_code=ods_code,
            event_bus=env.get("EVENT_BUS", ""),
        )

    def archive(self) -> Archive:
        """Open the bucket."""
        from vaccinations.aws.bucket import Archive

        return Archive(_aws("s3"), self.bucket)

    def ledger(self) -> Ledger:
        """Open the ledger; changes of state are published where there is a bus for them."""
        from vaccinations.aws.bus import publisher
        from vaccinations.aws.ledger import Ledger

        if not self.event_bus:
            return Ledger(_aws("dynamodb"), self.exports_table)
        # An export does not wait long for those who want to hear of it.
        events = _aws("events", attempts=2, read_timeout=5)
        return Ledger(_aws("dynamodb"), self.exports_table, changed=publisher(events, self.event_bus))

    def register(self) -> Register:
        """Open the register."""
        from vaccinations.aws.register import Register

        return Register(_aws("dynamodb"), self.records_table)


@cache
def _aws(service: Any, *, attempts: int = 6, read_timeout: int = 60) -> Any:
    """Make a boto3 client once; it lives as long as the function's process."""
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout,
        max_pool_connections=20,
    )
    return boto3.client(service, config=config)


def invoke_later(function: str, event: Mapping[str, Any]) -> None:
    """Have a function invoked with an event, without waiting for it."""
    _aws("lambda").invoke(FunctionName=function, InvocationType="Event", Payload=json.dumps(event))


def _one_of(env: Mapping[str, str], name: str, allowed: list[str]) -> str:
    """Return the value of a variable, the first of ``allowed`` where it is unset."""
    value = (env.get(name) or allowed[0]).lower()
    if value not in allowed:
        raise SettingsError(f"{name} must be one of: {', '.join(allowed)}")
    return value


def connect(settings: Settings, *, environ: Mapping[str, str] | None = None) -> MeshClient:
    """Return a MESH client for the settings and the secret, the same one while these stay the same.

    ``MESH_MAILBOX`` and ``MESH_PASSWORD`` in the environment take the place of the secret's, so that a developer
    can look into another mailbox of the sandbox.

    Raises
    ------
    SecretIncomplete
        The secret is not a JSON object with every field of `SECRET_FIELDS`.
    nhs_mesh.ConfigurationError
        The key, certificate or CA bundle in it cannot be used.
    """
    secret = mesh_secret(settings)
    env = os.environ if environ is None else environ
    mailbox = env.get("MESH_MAILBOX") or secret["mailbox"]
    password = env.get("MESH_PASSWORD") or secret["password"]
    keys = tuple(secret[name] for name in SECRET_FIELDS if name not in {"mailbox", "password"})
    return _client(settings.mesh_base_url, settings.verify_ssl, mailbox, password, *keys)


@lru_cache(maxsize=1)
def _client(
    base_url: str,
    verify: bool,
    mailbox: str,
    password: str,
    shared_key: str,
    private_key: str,
    passphrase: str,
    certificate: str,
    ca_bundle: str,
) -> MeshClient:
    """Make the client once for a secret, so that its connections outlive an invocation."""
    from nhs_mesh import Credentials, MeshClient  # ingest has these settings, too, and never speaks to MESH

    return MeshClient(
        base_url,
        Credentials(mailbox, password, shared_key),
        certificate=certificate,
        private_key=private_key,
        passphrase=passphrase,
        ca_bundle=ca_bundle,
        verify=verify,
    )


def mesh_secret(settings: Settings) -> dict[str, str]:
    """Return the MESH secret's fields.

    Raises
    ------
    SecretIncomplete
        A field is missing or empty, or the secret is no JSON object.
    """
    try:
        secret = parameters.get_secret(settings.mesh_secret, transform="json", max_age=SECRET_MAX_AGE)
    except parameters.TransformParameterError:
        # `from None`: the parser's own error may quote the text it could not read.
        raise SecretIncomplete("the MESH secret is not a JSON document; fill it with: mesh secret put") from None
    fields: dict[str, str] = secret if isinstance(secret, dict) else {}
    if missing := [name for name in SECRET_FIELDS if not fields.get(name)]:
        raise SecretIncomplete(f"the MESH secret lacks {', '.join(missing)}; fill it with: mesh secret put")
    return fields


def jobs_enabled(settings: Settings) -> bool:
    """Tell whether the ``mesh_jobs`` flag is on. Asked anew each time, so that switching it off acts at once."""
    value = parameters.get_parameter(settings.mesh_jobs_parameter, force_fetch=True)
    return str(value).strip().lower() == "enabled"


def skipped_when_off(job: str) -> Callable[[Handler], Handler]:
    """Make a handler do nothing while ``mesh_jobs`` is off, saying so in the log, a metric and its answer."""

    def decorate(handler: Handler) -> Handler:
        @wraps(handler)
        def guarded(event: dict[str, Any], context: LambdaContext) -> Any:
            if jobs_enabled(Settings.from_environment()):
                return handler(event, context)
            logger.info("skipped: mesh_jobs is off", extra={"job": job})
            count("JobsSkipped", job=job)
            return {"status": "skipped"}

        return guarded

    return decorate
