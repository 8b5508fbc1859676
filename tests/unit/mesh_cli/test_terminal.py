"""No command ends in a traceback: whatever is missing, a line or two say what to do, with the right exit code.

Each test runs every command of the app.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from datetime import UTC, datetime
from functools import cache
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import botocore.client
import botocore.endpoint
import botocore.hooks
import botocore.loaders
import botocore.session
import pytest
import typer.testing
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from local import stack as local_stack
from local.cloud import CloudError
from mesh_cli import setup
from mesh_cli.main import app
from mesh_cli.options import EXIT_CODES
from nhs_mesh import Unavailable
from tests.clocks import Clock
from tests.commands import COMMAND
from tests.unit.mesh_cli.commands import given, runnable
from tests.unit.mesh_cli.night import exports
from tests.unit.mesh_cli.test_deployment import LOCAL, OF_A_STACK
from tests.usecases.memory import MemoryBucket, MemoryLedger, MemoryQueue, MemoryRegister
from vaccinations.aws.clients import Clients
from vaccinations.wiring import Wiring

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

#: What works without a stack.
ALONE = {"csr", "ca-bundle check", "sample", "demo", "local up"}
#: What works on the stack of this machine only.
OF_THIS_MACHINE = {*ALONE, "local dps"}
#: What asks no more of AWS, once the stack is found.
ASKS_NO_MORE = {*OF_THIS_MACHINE, "stack"}
#: What opens the mailbox itself, and tells of nothing else.
MAILBOX = {"check-inbox", "get-message", "ack-message", "send-file", "track-message", "lookup"}
#: What reads the secret, and notes nothing before.
READ_THE_SECRET = MAILBOX - {"ack-message", "send-file"} | {"secret check"}


@pytest.fixture(scope="module")
def loader() -> Any:
    """What reads botocore's descriptions of services, each once for all commands."""
    return botocore.loaders.create_loader(botocore.session.Session().get_config_variable("data_path"))


@pytest.fixture(scope="module", autouse=True)
def _quick_sessions() -> Iterator[None]:
    """Let botocore work out once, not for each session, what its events are called and what hears them takes."""
    names = cache(botocore.hooks.EventAliaser(None)._alias_event_name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(botocore.hooks.EventAliaser, "_alias_event_name", lambda _, name: names(name))
        patch.setattr(botocore.hooks, "accepts_kwargs", cache(botocore.hooks.accepts_kwargs))
        yield


@pytest.fixture(autouse=True)
def _somewhere_else(loader: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Work in a folder with nothing in it, with no credentials and no stack."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "MESH_")):
            monkeypatch.delenv(name)
    for name in ("CONFIG_FILE", "SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(f"AWS_{name}", str(tmp_path / name))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(setup, "KEY_BITS", 1024)
    monkeypatch.setattr(local_stack, "LocalCloud", not_here)
    monkeypatch.setattr(botocore.endpoint, "time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setattr(botocore.session, "create_loader", lambda _: loader)
    monkeypatch.setattr(typer.testing, "_get_command", lambda _: COMMAND)
    monkeypatch.chdir(tmp_path)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


def not_here(*_: object, **__: object) -> None:
    raise CloudError("the stack is not brought up in this test")


def run_all(folder: Path, but: set[str] | None = None) -> dict[str, Any]:
    """Run every command; none ends in a traceback, takes many lines to say what is missing, or an unknown code."""
    said: dict[str, Any] = {}
    runner = CliRunner()
    for words, command in runnable():
        name = " ".join(words)
        if name in (but or set()):
            continue
        done = runner.invoke(app, given(words, command, folder))
        assert done.exception is None or isinstance(done.exception, SystemExit), (name, done.exception)
        assert "Traceback" not in done.output, (name, done.output)
        assert done.exit_code in EXIT_CODES, (name, done.exit_code)
        assert len(done.stderr.splitlines()) <= 4, (name, done.stderr)
        said[name] = done
    assert len(said) > 20
    return said


def each_says(said: dict[str, Any], code: int, text: str) -> None:
    told = {name: (done.exit_code, done.stderr) for name, done in said.items()}
    assert {name: t for name, t in told.items() if t[0] != code or text not in " ".join(t[1].split())} == {}


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and a region, and AWS at a port at which nobody listens."""
    for name, value in {
        "MESH_STACK": "theirs",
        "AWS_REGION": "eu-west-2",
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def made() -> dict[Any, Any]:
    """The clients, each made once for all commands."""
    return {}


@pytest.fixture
def stack(credentials: None, made: dict[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A stack that is there, and nothing else of AWS."""
    make = boto3.Session.client

    def client(session: boto3.Session, service: Any, **how: Any) -> Any:
        if service not in made:
            made[service] = make(session, service, **how)
        return made[service]

    monkeypatch.setattr(boto3.Session, "client", client)
    outputs = {key: value.lower().replace(" ", "-") for key, value in OF_A_STACK.items()}
    told = [{"OutputKey": key, "OutputValue": value.format(stack="theirs")} for key, value in outputs.items()]
    monkeypatch.setattr(Clients, "stacks", SimpleNamespace(describe_stacks=lambda **_: {"Stacks": [{"Outputs": told}]}))


def aws_says(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", fail)


def client_error(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "AWS says no"}, "ResponseMetadata": {}}, "DescribeIt")  # type: ignore[typeddict-item]


def test_without_a_stack_each_says_how_to_name_one(tmp_path: Path) -> None:
    each_says(run_all(tmp_path, OF_THIS_MACHINE), 2, "mesh local up")


def test_without_a_region_each_says_where_to_name_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STACK", "theirs")
    each_says(run_all(tmp_path, OF_THIS_MACHINE), 2, "AWS_REGION")


def test_without_credentials_each_says_to_sign_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STACK", "theirs")
    monkeypatch.setenv("AWS_REGION", "eu-west-2")
    each_says(run_all(tmp_path, OF_THIS_MACHINE), 2, "Sign in to AWS")


def test_with_a_profile_that_there_is_not_each_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_STACK", "theirs")
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    each_says(run_all(tmp_path, OF_THIS_MACHINE), 2, "AWS_PROFILE")


@pytest.mark.parametrize("there", ["credentials", "stack"])
def test_with_aws_out_of_reach_each_names_the_stack_first_and_then_says_so(
    there: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue(there)
    said = run_all(tmp_path, ASKS_NO_MORE)
    each_says(said, 1, "AWS is out of reach")
    assert {done.stderr.splitlines()[0] for done in said.values()} == {"Working on the stack theirs in eu-west-2"}


@pytest.mark.parametrize(
    ("code", "exit_code", "says"),
    [
        ("ExpiredToken", 2, "Sign in to AWS"),
        ("AccessDeniedException", 1, "may not do that"),
        ("Oddity", 1, "Is the"),
    ],
)
def test_where_aws_says_no_each_says_what_to_do(
    stack: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: str,
    exit_code: int,
    says: str,
) -> None:
    aws_says(monkeypatch, client_error(code))
    said = run_all(tmp_path, ASKS_NO_MORE)
    if code == "AccessDeniedException":
        assert "nothing was changed" in said.pop("secret put").stderr  # who may only write it is asked for all of it
        each_says({name: said.pop(name) for name in READ_THE_SECRET}, 1, "may these credentials read it")
    each_says(said, exit_code, says)


def test_a_fault_of_the_command_itself_is_told_by_its_place_and_not_by_its_words(
    stack: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws_says(monkeypatch, TypeError("Jo Bloggs, 9990001234"))
    said = run_all(tmp_path, ASKS_NO_MORE)
    each_says(said, 1, "a fault of the command:")
    assert not [name for name, done in said.items() if "Bloggs" in done.output]


@pytest.mark.parametrize("where", ["finding the stack", "at work"])
def test_ctrl_c_ends_each_with_a_word_on_what_goes_on(
    stack: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    if where == "finding the stack":

        def interrupted(**_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(Clients, "stacks", SimpleNamespace(describe_stacks=interrupted))
    else:
        aws_says(monkeypatch, KeyboardInterrupt())
    each_says(run_all(tmp_path, ASKS_NO_MORE), 130, "interrupted")


@pytest.fixture
def memory(stack: None, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A stack in memory, with nothing in it; its functions answer that they are switched off."""
    clock, register = Clock(), MemoryRegister()
    stores = SimpleNamespace(
        bucket=MemoryBucket(clock), register=register, ledger=MemoryLedger(register, clock), queue=MemoryQueue()
    )
    monkeypatch.setattr(Wiring, "_quiet_ledger", lambda *_: stores.ledger)
    for name, store in vars(stores).items():
        monkeypatch.setattr(Wiring, name, lambda *_, store=store: store)
    no_flag = ClientError({"Error": {"Code": "ParameterNotFound", "Message": ""}}, "GetParameter")
    clients = {
        "identity": SimpleNamespace(get_caller_identity=lambda: {"Arn": "arn:aws:iam::123456789012:user/jo"}),
        "events": SimpleNamespace(put_events=lambda **_: {"FailedEntryCount": 0, "Entries": []}),
        "parameters": SimpleNamespace(get_parameter=raises(no_flag)),
        "functions": SimpleNamespace(
            invoke=lambda **_: {"Payload": SimpleNamespace(read=lambda: json.dumps({"status": "skipped"}).encode())}
        ),
        "secrets": SimpleNamespace(
            get_secret_value=lambda **_: {"SecretString": "{}"}, put_secret_value=lambda **_: {}
        ),
    }
    for name, client in clients.items():
        monkeypatch.setattr(Clients, name, client)
    return stores


def raises(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_with_a_secret_that_lacks_fields_each_that_opens_the_mailbox_names_them(
    memory: SimpleNamespace, tmp_path: Path
) -> None:
    said = run_all(tmp_path, {"local dps", "secret put"})
    each_says({name: said[name] for name in MAILBOX}, 2, "lacks mailbox, password, shared_key")
    assert said["secret check"].exit_code == 1


def test_with_mesh_out_of_reach_each_that_opens_the_mailbox_says_so(
    memory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Wiring, "mesh", raises(Unavailable("no answer after 5 tries")))
    said = run_all(tmp_path, {"local dps", "secret put"})
    each_says({name: said[name] for name in MAILBOX}, 1, "MESH is out of reach")


def test_with_a_stack_of_this_machine_that_was_killed_each_says_to_start_it_again(
    credentials: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MESH_STACK")
    (tmp_path / ".local").mkdir()
    lines = "".join(f"{name}={value}\n" for name, value in LOCAL.items())
    (tmp_path / ".local" / "environment").write_text(lines)
    each_says(run_all(tmp_path, ALONE), 2, "does not answer: start it again with: mesh local up")


def test_ctrl_c_while_a_function_works_says_that_it_goes_on_and_where_that_is_seen(
    memory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Clients, "functions", SimpleNamespace(invoke=interrupted))
    names = {"validate-mailbox", "dps-export", "track", "collect", "reconcile", "invoke"}
    said = {name: done for name, done in run_all(tmp_path, {"local dps", "secret put"}).items() if name in names}
    assert set(said) == names
    each_says(said, 130, "goes on without you.")
    notes = {note.what: note.outcome for note in memory.bucket.acts(datetime.min.replace(tzinfo=UTC), 99)}
    assert {name: notes[name] for name in names} == dict.fromkeys(names, "not known")


def test_ctrl_c_while_a_receipt_is_waited_for_says_that_the_upload_is_not_lost(
    memory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mesh_cli.intake.time.sleep", raises(KeyboardInterrupt()))
    (tmp_path / "my monday.csv").write_text("")
    done = CliRunner().invoke(app, ["upload", str(tmp_path / "my monday.csv"), "-O", "R1L"])
    assert done.exit_code == 130
    assert "The upload is in the queue and is ingested without you." in done.stderr
    assert "mesh receipt 'R1L/my monday.csv'" in done.stderr


def test_what_is_not_there_is_said_not_to_be(memory: SimpleNamespace, tmp_path: Path) -> None:
    assert "there is no export hpv-1" in " ".join(
        run_all(tmp_path, {"local dps", "secret put"})["export show"].stderr.split()
    )


def test_a_reader_that_leaves_early_changes_nothing(
    memory: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    but = {"local dps", "secret put"}
    memory.ledger._exports = {(export.programme, export.number): export for export in exports()}
    codes = {name: done.exit_code for name, done in run_all(tmp_path, but).items()}
    for words, command in runnable():
        if (name := " ".join(words)) in but:
            continue
        reading, writing = os.pipe()
        os.close(reading)
        errors = tmp_path / "errors"
        (tmp_path / "private_key.pem").unlink(missing_ok=True)
        (tmp_path / "request.csr").unlink(missing_ok=True)
        with monkeypatch.context() as broken, os.fdopen(writing, "w") as stdout, errors.open("w") as stderr:
            broken.setattr(sys, "stdout", stdout)
            broken.setattr(sys, "stderr", stderr)
            with pytest.raises(SystemExit) as ended:
                COMMAND(given(words, command, tmp_path))
        assert (name, ended.value.code or 0) == (name, codes[name])
        assert "Traceback" not in errors.read_text(), name
        assert "pipe" not in errors.read_text().lower(), name


#: The command as installed. What runs in the background, as tests may, ignores Ctrl-C, and so would the command.
MESH = """
import signal, sys
from mesh_cli.__main__ import run
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["mesh", *sys.argv[1:]]
run()
"""


def test_a_person_who_waits_for_aws_sees_what_is_asked_and_may_interrupt_it(credentials: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with subprocess.Popen(
            [sys.executable, "-c", MESH, "exports"],
            env={**os.environ, "AWS_ENDPOINT_URL": url},
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stderr
            assert select.select([process.stderr], [], [], 10)[0], "no sign of life within 10 s"
            assert process.stderr.readline() == "Working on the stack theirs in eu-west-2\n"
            connection, _ = silent.accept()
            with connection:
                process.send_signal(signal.SIGINT)
                assert process.stderr.read() == "error: interrupted\nNothing goes on without you.\n"
    assert process.returncode == 130
