"""The boto3 clients, each made once, with the retries and time limits that this project wants."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_cloudformation import CloudFormationClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_ssm import SSMClient
    from mypy_boto3_sts import STSClient

__all__ = ["FUNCTION_SECONDS", "Clients"]

#: So long a function may run at most, in seconds (Lambda's own limit).
FUNCTION_SECONDS = 900


class Clients:
    """Clients of the services in use. Each is made when it is first asked for, and lives as long as this object.

    Parameters
    ----------
    session
        Region and credentials; those that boto3 finds by itself where it is left out.
    endpoint_url
        Where AWS is, if not at Amazon.
    functions_url
        Where its functions are invoked, if not there.
    attempts
        How often a request is made at most. A person at a terminal waits less long than a function.
    """

    def __init__(
        self,
        session: boto3.Session | None = None,
        endpoint_url: str | None = None,
        functions_url: str | None = None,
        *,
        attempts: int = 6,
    ) -> None:
        self._session = session or boto3.Session()
        self._endpoint_url = endpoint_url
        self._functions_url = functions_url or endpoint_url
        self._usual = _config(attempts=attempts)

    @cached_property
    def s3(self) -> S3Client:
        """The bucket's service."""
        return self._session.client("s3", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """The tables' service."""
        return self._session.client("dynamodb", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def events(self) -> EventBridgeClient:
        """The event bus's service. An export does not wait long for those who want to hear of it."""
        config = _config(attempts=2, read_timeout=5)
        return self._session.client("events", config=config, endpoint_url=self._endpoint_url)

    @cached_property
    def sqs(self) -> SQSClient:
        """The queue's service."""
        return self._session.client("sqs", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def secrets(self) -> SecretsManagerClient:
        """The secret's service."""
        return self._session.client("secretsmanager", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def parameters(self) -> SSMClient:
        """The service of the mesh_jobs flag."""
        return self._session.client("ssm", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def stacks(self) -> CloudFormationClient:
        """The service that knows a stack's outputs."""
        return self._session.client("cloudformation", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def identity(self) -> STSClient:
        """The service that tells whose credentials these are."""
        return self._session.client("sts", config=self._usual, endpoint_url=self._endpoint_url)

    @cached_property
    def functions(self) -> LambdaClient:
        """The functions' service. What may have run is not invoked again, and no function is given up early."""
        config = _config(attempts=1, read_timeout=FUNCTION_SECONDS + 60)
        return self._session.client("lambda", config=config, endpoint_url=self._functions_url)


def _config(*, attempts: int, read_timeout: int = 60) -> Config:
    return Config(
        tcp_keepalive=True,  # while a function runs nothing is said, and what stands between may forget the connection
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=read_timeout,
        max_pool_connections=20,
    )
