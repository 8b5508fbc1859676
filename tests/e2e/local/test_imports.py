"""A built function loads nothing heavy that it does not use, since each of its starts would pay for it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from typing import TYPE_CHECKING

import pytest

from local import children
from local.emulator import BUILD, check_build, python_path, runtime
from local.stack import PROJECT
from local.template import Template
from vaccinations.settings import READS

if TYPE_CHECKING:
    from pathlib import Path

#: Values of variables that only some words are good for.
WORDS = {"DPS_FILENAME_STYLE": "guide", "MESH_DISABLE_SSL_VERIFICATION": "false", "UPLOADERS": "{}"}
FUNCTIONS = Template.read(PROJECT / "template.yaml").functions()
#: What takes long to load, and which functions need it before MESH or AWS is asked anything.
HEAVY = {
    "pydantic": {"IngestFunction"},
    "requests": set(),
    "cryptography": set(),  # loaded when a connection to MESH is made
    "aws_xray_sdk": set(),  # loaded when X-Ray samples an invocation
    "csv": {"IngestFunction", "CollectFunction"},  # they write files for uploaders
}


@pytest.fixture(scope="module")
def aws_part(tmp_path_factory: pytest.TempPathFactory) -> Path:
    check_build(PROJECT)
    return runtime(tmp_path_factory.mktemp("aws"))


def run(function: str, aws_part: Path, program: str, *arguments: str, **environment: str) -> str:
    """Run a program in a built function's place."""
    ran = subprocess.run(
        [children.python(), "-S", "-c", program, *arguments],
        env={
            "PATH": os.defpath,
            "PYTHONPATH": python_path(PROJECT / BUILD, FUNCTIONS[function], aws_part),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LAMBDA_TASK_ROOT": "/var/task",
            **environment,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout


#: Puts a function's use case together as its handler does, without a mailbox.
PUT_TOGETHER = """
import json, sys
import handler
from vaccinations.aws.parameters import MeshSecret
from vaccinations.wiring import Wiring, wire

Wiring.secret = lambda self: MeshSecret(*["nothing"] * 7)
Wiring.mesh = lambda self: None
job, arguments = sys.argv[1], {"export": ("holder", float), "collect": (float,), "reconcile": (float,)}
getattr(wire(job), job)(*arguments.get(job, ()))
print(json.dumps(list(sys.modules)))
"""


@pytest.mark.parametrize("function", sorted(FUNCTIONS))
def test_a_function_loads_what_is_heavy_only_where_it_needs_it(function: str, aws_part: Path) -> None:
    job = function.removesuffix("Function").lower()
    variables = {"AWS_DEFAULT_REGION": "eu-west-2", **dict.fromkeys(READS[job], "something")}
    variables |= {name: value for name, value in WORDS.items() if name in variables}
    loaded = json.loads(run(function, aws_part, PUT_TOGETHER, job, **variables))
    assert f"vaccinations.jobs.{job}" in loaded
    needed = {module for module, functions in HEAVY.items() if function in functions}
    assert {module for module in HEAVY if module in loaded} == needed


INVOCATION = """
from types import SimpleNamespace
from vaccinations.telemetry import observed

@observed
def lambda_handler(event, context):
    return {"name": "Quintessa"}

names = ("function_name", "memory_limit_in_mb", "invoked_function_arn", "aws_request_id")
print(lambda_handler({}, SimpleNamespace(**dict.fromkeys(names, "1"))))
"""


@pytest.mark.parametrize("sampled", [True, False])
def test_an_invocation_is_traced_where_x_ray_wants_that_and_without_its_answer(
    aws_part: Path, *, sampled: bool
) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as daemon:
        daemon.bind(("127.0.0.1", 0))
        daemon.setblocking(False)
        answer = run(
            "ExportFunction",
            aws_part,
            INVOCATION,
            AWS_XRAY_DAEMON_ADDRESS=f"127.0.0.1:{daemon.getsockname()[1]}",
            _X_AMZN_TRACE_ID=f"Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled={sampled:d}",
        )
        assert "Quintessa" in answer
        if sampled:
            trace = daemon.recv(65536).decode()
            assert "lambda_handler" in trace
            assert "Quintessa" not in trace
        else:
            with pytest.raises(BlockingIOError):
                daemon.recv(65536)
