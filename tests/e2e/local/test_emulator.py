"""Functions run here as they run in Lambda."""

from __future__ import annotations

import importlib.metadata
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from local.emulator import FunctionError
from local.stack import PROJECT, LocalCloud

if TYPE_CHECKING:
    from pathlib import Path


def test_a_function_has_the_memory_and_time_of_the_template(toy: LocalCloud) -> None:
    answer = toy.invoke("ExportFunction")
    assert answer["memory"] == "1024"
    assert 890 < answer["seconds_left"] <= 900


def test_a_function_sees_its_own_environment_and_not_the_developers(
    toy: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "my-own")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example")
    toy.emulator.kill("TrackFunction")
    environment = toy.invoke("TrackFunction")["environment"]
    given = toy.environment("TrackFunction")
    del given["AWS_ACCESS_KEY_ID"]  # each function has its own
    assert environment.items() >= given.items()
    assert not {"AWS_PROFILE", "HTTPS_PROXY", "VIRTUAL_ENV", "HOME"} & set(environment)


def test_a_function_finds_the_layers_and_awss_own_packages(toy: LocalCloud) -> None:
    assert toy.invoke("ExportFunction", {"import": "nhs_mesh"}).endswith("/MeshClientLayer/python/nhs_mesh.py")
    for name in ("boto3", "botocore", "awslambdaric"):
        assert "/runtime/" in toy.invoke("ExportFunction", {"import": name})


def test_a_function_finds_nothing_that_only_the_developer_has(toy: LocalCloud) -> None:
    for name in ("vaccinations", "mesh_cli", "local", "moto", "samcli", "pytest", "pip", "typer", "cryptography"):
        assert toy.invoke("ExportFunction", {"import": name}) is None


def test_what_is_edited_is_there_at_the_next_invocation(toy: LocalCloud, toy_project: Path) -> None:
    handler = toy_project / "functions" / "track" / "handler.py"
    before = handler.read_text()
    first = toy.invoke("TrackFunction")["process"]
    assert toy.invoke("TrackFunction")["process"] == first
    handler.write_text(before.replace('"memory":', '"edited": True, "memory":'))
    edited = toy.invoke("TrackFunction")
    assert (edited["edited"], edited["process"] != first) == (True, True)
    assert toy.invoke("TrackFunction")["process"] == edited["process"]
    handler.write_text(before)
    assert "edited" not in toy.invoke("TrackFunction")


def test_what_is_edited_wrongly_is_told_and_put_right_without_a_restart(toy: LocalCloud, toy_project: Path) -> None:
    handler = toy_project / "functions" / "track" / "handler.py"
    before = handler.read_text()
    handler.write_text(before + "\nthis is no Python\n")
    with pytest.raises(FunctionError, match="UserCodeSyntaxError"):
        toy.invoke("TrackFunction")
    handler.write_text(before)
    assert toy.invoke("TrackFunction")["process"]


def test_a_module_of_a_layer_comes_and_goes_with_its_source(toy: LocalCloud, toy_project: Path) -> None:
    added = toy_project / "layers" / "vaccinations" / "added.py"
    added.parent.mkdir(parents=True, exist_ok=True)
    assert toy.invoke("ExportFunction", {"import": "added"}) is None
    added.write_text("")
    assert toy.invoke("ExportFunction", {"import": "added"}) == str(added)
    added.unlink()
    assert toy.invoke("ExportFunction", {"import": "added"}) is None


@pytest.mark.parametrize(("package", "layer"), [("nhs_mesh", "MeshClientLayer"), ("vaccinations", "VaccinationsLayer")])
def test_the_built_layer_is_the_sources_and_what_they_need(package: str, layer: str) -> None:
    (source,) = (PROJECT / "layers").glob(f"*/{package}")
    built = PROJECT / ".aws-sam" / "build" / layer / "python"
    for file in source.rglob("*.py"):
        assert (built / package / file.relative_to(source)).read_bytes() == file.read_bytes()
    pinned = dict(re.findall(r"^([\w.-]+)==(\S+)", (source.parent / "requirements.txt").read_text(), re.MULTILINE))
    found = {d.name: d.version for d in importlib.metadata.distributions(path=[str(built)])}
    assert {_normal(name): version for name, version in found.items()} == pinned


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_what_is_built_runs_on_lambda() -> None:
    for library in (PROJECT / ".aws-sam" / "build").rglob("*.so"):
        assert re.search(r"\.(cpython-313-x86_64-linux-gnu|abi3)\.so$|^lib", library.name), library
    for package in ("boto3", "botocore"):
        assert not list((PROJECT / ".aws-sam" / "build").glob(f"*Layer/python/{package}"))


def test_a_function_that_raises_is_reported_with_its_error_and_where(toy: LocalCloud) -> None:
    with pytest.raises(FunctionError, match="ExportFunction: Disobedience: not today") as caught:
        toy.invoke("ExportFunction", {"fail": "not today"})
    assert caught.value.error_type == "Disobedience"
    assert caught.value.error_message == "not today"
    assert any("lambda_handler" in line for line in caught.value.stack_trace)


def test_a_function_whose_process_dies_is_reported_and_starts_afresh(toy: LocalCloud) -> None:
    before = toy.invoke("ExportFunction")["process"]
    with pytest.raises(FunctionError, match="exit status 3"):
        toy.invoke("ExportFunction", {"exit": 3})
    assert toy.invoke("ExportFunction")["process"] != before


def test_a_warm_function_serves_again(toy: LocalCloud) -> None:
    first = toy.invoke("ValidateFunction")["process"]
    assert toy.invoke("ValidateFunction")["process"] == first


def test_two_invocations_at_once_run_side_by_side(toy: LocalCloud) -> None:
    with ThreadPoolExecutor(2) as threads:
        answers = threads.map(lambda _: toy.invoke("ExportFunction", {"sleep": 1})["process"], range(2))
        assert len(set(answers)) == 2


def test_of_a_function_with_reserved_concurrency_a_second_invocation_waits_for_the_first(toy: LocalCloud) -> None:
    with ThreadPoolExecutor(2) as threads:
        began = time.monotonic()
        answers = threads.map(lambda _: toy.invoke("IngestFunction", {"sleep": 1})["process"], range(2))
        assert len(set(answers)) == 1
        assert time.monotonic() - began >= 2


def test_a_function_can_be_killed_in_the_middle_and_starts_afresh(toy: LocalCloud) -> None:
    killed: list[str] = []

    def invoke() -> None:
        try:
            toy.invoke("ExportFunction", {"say": "here I am", "sleep": 60})
        except FunctionError as error:
            killed.append(error.error_type)

    thread = threading.Thread(target=invoke)
    thread.start()
    until = time.monotonic() + 10
    while "here I am" not in toy.emulator.log("ExportFunction") and time.monotonic() < until:
        time.sleep(0.05)
    assert toy.emulator.kill("ExportFunction") >= 1
    thread.join(10)
    assert killed == ["Sandbox.Killed"]
    assert toy.invoke("ExportFunction")


def test_what_a_function_prints_is_in_its_log(toy: LocalCloud) -> None:
    toy.invoke("TrackFunction", {"say": "hello from the function"})
    assert "hello from the function" in toy.logs()["TrackFunction"]
    assert "hello from the function" not in toy.logs()["ValidateFunction"]


def test_the_developers_interpreter_is_left_as_it_is(toy: LocalCloud) -> None:
    toy.invoke("ExportFunction")
    assert not list((toy.directory / "runtime").glob("*.pth"))
    assert sys.prefix != sys.base_prefix
