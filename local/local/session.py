"""How the cloud on this machine is reached: its region and credentials."""

from __future__ import annotations

import boto3
import botocore.session

__all__ = ["CREDENTIALS", "REGION", "session"]

REGION = "eu-west-2"

#: What the SDK needs before it makes a request; moto looks at the region only.
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "local",
    "AWS_SECRET_ACCESS_KEY": "local",
    "AWS_SESSION_TOKEN": "local",
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}


def session() -> boto3.Session:
    """Return a session for the cloud on this machine, whatever AWS profile the developer uses."""
    return boto3.Session(
        aws_access_key_id=CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        botocore_session=botocore.session.Session({"profile": (None, None, None, None)}),
    )
