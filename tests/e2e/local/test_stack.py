"""The stack on this machine is that of the template, and leaves nothing behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from local.cloud import CloudError
from local.stack import PROJECT, LocalCloud, docker_bridge
from local.template import Template

if TYPE_CHECKING:
    from collections.abc import Iterator


def processes_of(directory: Path) -> list[str]:
    """Return the command lines of all processes that were told about a folder, by argument, environment or cwd."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal() or process.name == str(os.getpid()):
            continue
        try:
            told = (process / "cmdline").read_bytes() + (process / "environ").read_bytes()
            told += str((process / "cwd").readlink()).encode()
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if str(directory).encode() in told:
            found.append((process / "cmdline").read_text().replace("\0", " "))
    return found


def wait_until_gone(directory: Path, seconds: float = 10) -> list[str]:
    until = time.monotonic() + seconds
    while (left := processes_of(directory)) and time.monotonic() < until:
        time.sleep(0.1)
    return left


def test_the_functions_speak_to_mesh_over_mutual_tls(cloud: LocalCloud) -> None:
    answer = cloud.invoke("ValidateFunction")
    assert answer["status"] == "ok"
    assert answer["mailbox"] == "X26ABC1"


def test_every_output_has_a_value(cloud: LocalCloud) -> None:
    of_people = {"OperatorPolicyArn", "ReaderPolicyArn", "SecretKeeperPolicyArn"}  # nothing enforces IAM here
    assert set(cloud.outputs) == set(Template.read(PROJECT / "template.yaml").outputs) - of_people
    assert not [name for name, value in cloud.outputs.items() if not value]


def test_a_functions_environment_is_the_templates_with_this_stacks_names(cloud: LocalCloud) -> None:
    environment = cloud.environment("ExportFunction")
    assert environment["DPS_EXPORTS_TABLE"] == cloud.outputs["DpsExportsTableName"]
    assert environment["BUCKET"] == cloud.outputs["BucketName"]
    assert environment["MESH_SECRET"] == cloud.outputs["MeshSecretArn"]
    assert environment["MESH_BASE_URL"] == cloud.sandbox.base_url
    assert environment["MESH_WORKFLOW_ID"] == "dps export"
    assert environment["POWERTOOLS_SERVICE_NAME"] == "export"
    assert environment["AWS_ENDPOINT_URL"] == cloud.endpoint_url


def test_the_ledger_can_be_asked_by_status(cloud: LocalCloud) -> None:
    table = cloud.client("dynamodb").describe_table(TableName=cloud.outputs["DpsExportsTableName"])["Table"]
    (index,) = table["GlobalSecondaryIndexes"]
    assert index["IndexName"] == "by-status"
    assert [key["AttributeName"] for key in index["KeySchema"]] == ["status", "updated_at"]


def test_an_overwritten_upload_keeps_its_version(cloud: LocalCloud) -> None:
    versioning = cloud.client("s3").get_bucket_versioning(Bucket=cloud.outputs["BucketName"])
    assert versioning["Status"] == "Enabled"


def test_the_jobs_are_enabled_and_the_secret_is_filled(cloud: LocalCloud) -> None:
    flag = cloud.client("ssm").get_parameter(Name=cloud.outputs["MeshJobsParameterName"])["Parameter"]["Value"]
    assert flag == "enabled"
    secret = cloud.client("secretsmanager").get_secret_value(SecretId=cloud.outputs["MeshSecretArn"])["SecretString"]
    assert all(json.loads(secret).values())


def test_the_commands_find_the_stack_by_its_outputs_as_they_would_in_aws(cloud: LocalCloud) -> None:
    (stack,) = cloud.client("cloudformation").describe_stacks(StackName="local")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    assert outputs.items() >= cloud.outputs.items()


def test_a_stack_leaves_no_process_and_no_file_behind_nor_what_a_killed_process_left(
    toy_project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    left = toy_project / ".local" / f"cloud-{ended.pid}-left"
    left.mkdir(parents=True)
    # A developer's own profile and proxy are left out.
    monkeypatch.setenv("AWS_PROFILE", "a-profile-that-is-not-there")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    before = {path for path in toy_project.rglob("*") if "cloud-" not in str(path)}
    with LocalCloud(project=toy_project) as cloud:
        assert not left.exists()
        assert cloud.invoke("ExportFunction")
        directory = cloud.directory
        assert processes_of(directory)
    assert not processes_of(directory)
    assert not directory.exists()
    assert {path for path in toy_project.rglob("*") if "cloud-" not in str(path)} == before


UP = """
    import signal, sys
    from pathlib import Path
    from local.stack import LocalCloud
    # A shell's job in the background ignores Ctrl-C, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with LocalCloud(project=Path(sys.argv[1])) as cloud:
        cloud.invoke("ExportFunction")
        print(cloud.directory, flush=True)
        cloud.invoke("TrackFunction", {"sleep": 60})
"""


@pytest.fixture
def up(toy_project: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """Another process that has a stack up, in the middle of an invocation."""
    command = [sys.executable, "-c", textwrap.dedent(UP), str(toy_project)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout
        directory = Path(process.stdout.readline().strip())
        yield process, directory
        process.kill()
    shutil.rmtree(directory, ignore_errors=True)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a child whose parent was killed")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stack_goes_when_its_process_is_killed(
    up: tuple[subprocess.Popen[str], Path], number: signal.Signals
) -> None:
    process, directory = up
    assert len(processes_of(directory)) > 3
    process.send_signal(number)
    assert wait_until_gone(directory) == []


def test_ctrl_c_takes_a_stack_down_in_order(up: tuple[subprocess.Popen[str], Path]) -> None:
    process, directory = up
    process.send_signal(signal.SIGINT)
    process.wait(20)
    assert wait_until_gone(directory) == []
    assert not directory.exists()


def test_two_stacks_can_be_up_at_once(toy: LocalCloud, toy_project: Path) -> None:
    with LocalCloud(project=toy_project) as other:
        assert other.endpoint_url != toy.endpoint_url
        other.client("s3").put_object(Bucket=other.outputs["BucketName"], Key="incoming/R1A/a.csv", Body=b"")
        other.drain()
        buckets = toy.client("s3").list_buckets()["Buckets"]
        assert [bucket["Name"] for bucket in buckets] == [toy.outputs["BucketName"]]
    assert toy.invoke("ExportFunction")


def test_a_published_stack_says_where_it_is_while_it_runs(toy_project: Path) -> None:
    environment = toy_project / ".local" / "environment"
    variables = toy_project / ".local" / "env.json"
    with LocalCloud(project=toy_project, publish=True) as cloud:
        lines = dict(line.split("=", 1) for line in environment.read_text().splitlines() if not line.startswith("#"))
        assert lines == cloud.environment_of_commands()
        assert lines["AWS_ENDPOINT_URL"] == cloud.endpoint_url
        for function, given in json.loads(variables.read_text()).items():
            assert given == cloud.environment(function)
        with pytest.raises(CloudError, match="running already"), LocalCloud(project=toy_project, publish=True):
            pass
        assert environment.exists()
    assert not environment.exists()
    assert not variables.exists()


def test_functions_that_were_not_built_are_reported_with_the_command_to_build_them(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "template.yaml", tmp_path)
    with pytest.raises(CloudError, match="make build"), LocalCloud(project=tmp_path):
        pass


@pytest.mark.parametrize(
    ("changed", "built"), [("functions/export/handler.py", True), ("layers/vaccinations/requirements.txt", False)]
)
def test_a_build_that_is_older_than_what_is_taken_from_it_is_refused(changed: str, built: bool, tmp_path: Path) -> None:
    built = tmp_path / ".aws-sam" / "build" / "template.yaml"
    built.parent.mkdir(parents=True)
    shutil.copy(PROJECT / "template.yaml", tmp_path)
    built.write_text("")
    source = tmp_path / changed
    source.parent.mkdir(parents=True)
    source.write_text("")
    os.utime(source, (time.time() + 60, time.time() + 60))
    with (
        pytest.raises(CloudError, match=rf"{changed} is newer .* make build"),
        LocalCloud(project=tmp_path, built=built),
    ):
        pass


def test_the_stack_names_what_has_changed_and_is_not_read_again(toy: LocalCloud, toy_project: Path) -> None:
    template = toy_project / "template.yaml"
    assert toy.outdated() == ""
    before = template.stat()
    os.utime(template, (time.time() + 60, time.time() + 60))
    assert toy.outdated() == "template.yaml"
    os.utime(template, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_containers_reach_the_stack_at_an_address_that_is_not_the_loopback_one() -> None:
    address = "127.0.0.2"  # stands in for that of Docker's bridge
    with LocalCloud(host=address) as cloud:
        assert cloud.invoke("ValidateFunction")["status"] == "ok"
        told = cloud.environment("ValidateFunction")
        assert {told[name].split("//")[1].split(":")[0] for name in ("MESH_BASE_URL", "AWS_ENDPOINT_URL")} == {address}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Docker's bridge")
def test_the_address_of_dockers_bridge_is_that_of_its_interface() -> None:
    assert docker_bridge("lo") == "127.0.0.1"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has Docker's bridge")
def test_without_docker_the_message_says_what_to_do() -> None:
    with pytest.raises(CloudError, match="mesh invoke"):
        docker_bridge("no-bridge")
