"""The MESH secret, from Secrets Manager, and the ``mesh_jobs`` flag, from Parameter Store."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.utilities.parameters import GetParameterError, SecretsProvider, TransformParameterError
from botocore.exceptions import ClientError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_ssm import SSMClient

__all__ = ["SECRET_FIELDS", "MeshSecret", "MeshSecrets", "SecretIncomplete", "jobs_enabled"]

#: A secret that was read serves a warm function for so many seconds; a rotated password is picked up after that.
SECRET_MAX_AGE = 300


class SecretIncomplete(ValueError):
    """The MESH secret lacks fields; the message names them, never their contents."""


@dataclass(frozen=True, slots=True)
class MeshSecret:
    """What opens the mailbox. It never shows what is in it.

    Attributes
    ----------
    mailbox, password
        The mailbox's id and its password.
    shared_key
        The environment's key, with which each request is signed.
    private_key, private_key_passphrase, certificate
        Our side of the TLS connection, as PEM.
    ca_bundle
        Whom we believe on the other side: the root CA first, then its sub CA, as PEM.
    """

    mailbox: str = field(repr=False)
    password: str = field(repr=False)
    shared_key: str = field(repr=False)
    private_key: str = field(repr=False)
    private_key_passphrase: str = field(repr=False)
    certificate: str = field(repr=False)
    ca_bundle: str = field(repr=False)


#: What the secret's JSON document must hold.
SECRET_FIELDS = tuple(one.name for one in fields(MeshSecret))


class MeshSecrets:
    """Reading the MESH secret.

    Parameters
    ----------
    client
        A boto3 client of Secrets Manager.
    name
        Name or ARN of the secret.
    """

    def __init__(self, client: SecretsManagerClient, name: str) -> None:
        self._provider = SecretsProvider(boto3_client=client)
        self._name = name

    def read(self) -> MeshSecret:
        """Return the secret, at most `SECRET_MAX_AGE` seconds old.

        Raises
        ------
        SecretIncomplete
            It was never filled, a field is missing or empty, or it is no JSON object.
        """
        try:
            document: Any = self._provider.get(self._name, max_age=SECRET_MAX_AGE, transform="json")
        except TransformParameterError:
            # `from None`: the parser's own error may quote the text it could not read.
            raise SecretIncomplete("the MESH secret is not a JSON document; fill it with: mesh secret put") from None
        except GetParameterError as error:
            if not _is(error.__context__, "ResourceNotFoundException"):
                raise
            document = {}  # a new stack's secret has no version
        found: dict[str, str] = document if isinstance(document, dict) else {}
        if missing := [name for name in SECRET_FIELDS if not found.get(name)]:
            raise SecretIncomplete(f"the MESH secret lacks {', '.join(missing)}; fill it with: mesh secret put")
        return MeshSecret(**{name: found[name] for name in SECRET_FIELDS})


def jobs_enabled(client: SSMClient, parameter: str) -> bool | None:
    """Tell whether the ``mesh_jobs`` flag is on; None where nobody has switched it yet, which counts as off.

    Asked anew each time, so that switching it off acts at once. No deployment makes the parameter, and so none changes
    it (docs/operations.md, "Switching the jobs off and on").
    """
    try:
        value = client.get_parameter(Name=parameter)["Parameter"]["Value"]
    except ClientError as error:
        if not _is(error, "ParameterNotFound"):
            raise
        return None
    return value.strip().lower() == "enabled"


def _is(error: BaseException | None, code: str) -> bool:
    return isinstance(error, ClientError) and error.response["Error"]["Code"] == code
