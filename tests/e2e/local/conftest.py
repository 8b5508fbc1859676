"""The cloud on this machine, with the project's own functions and with others that do as they are told."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from local.stack import PROJECT, LocalCloud
from local.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: A function that does what its event says.
OBEDIENT = """
import importlib
import json
import os
import time

import boto3


class Disobedience(Exception):
    pass


def lambda_handler(event, context):
    for record in event.get("Records", ()):
        upload = json.loads(record["body"])["detail"]
        if "bad" in upload["object"]["key"]:
            raise Disobedience("it was told to fail")
        copy = {**record, "body": upload}
        boto3.client("s3").put_object(
            Bucket=os.environ["BUCKET"],
            Key="receipts/" + upload["object"]["key"].removeprefix("incoming/"),
            Body=json.dumps(copy).encode(),
        )
    if "say" in event:
        print(event["say"])
    if "sleep" in event:
        time.sleep(event["sleep"])
    if "fail" in event:
        raise Disobedience(event["fail"])
    if "exit" in event:
        os._exit(event["exit"])
    if "import" in event:
        try:
            return importlib.import_module(event["import"]).__file__
        except ImportError:
            return None
    return {
        "process": os.getpid(),
        "environment": dict(os.environ),
        "seconds_left": context.get_remaining_time_in_millis() / 1000,
        "memory": context.memory_limit_in_mb,
    }
"""


@pytest.fixture(scope="session")
def cloud() -> Iterator[LocalCloud]:
    """The stack with the project's own functions."""
    with LocalCloud() as running:
        yield running


@pytest.fixture(scope="session")
def toy_project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's template, with functions that do as they are told."""
    project = tmp_path_factory.mktemp("toy")
    shutil.copy(PROJECT / "template.yaml", project)
    build = project / ".aws-sam" / "build"
    template = Template.read(project / "template.yaml")
    for function in template.functions().values():
        (project / function.sources[0]).mkdir(parents=True)
        (project / function.sources[0] / "handler.py").write_text(OBEDIENT)
        for layer in function.layers:
            (build / layer / "python").mkdir(parents=True, exist_ok=True)
    (build / "MeshClientLayer" / "python" / "nhs_mesh.py").write_text("")
    (build / "template.yaml").write_text("")
    return project


@pytest.fixture(scope="session")
def toy(toy_project: Path) -> Iterator[LocalCloud]:
    """The stack with functions that do as they are told."""
    with LocalCloud(project=toy_project) as running:
        yield running
