"""The whole stack on this machine: MESH sandbox, AWS, the functions, and the queue of uploads.

    with LocalCloud() as cloud:
        cloud.invoke("ValidateFunction")

It is one process tree, which ends with this process. Everything it writes is in the project's folder .local, under a
name of its own, so that several stacks can run at once.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import socket
import struct
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local.cloud import STACK_NAME, Aws, CloudError
from local.emulator import Emulator, check_build
from local.invocations import Invocations
from local.queue import Poller
from local.sandbox import Sandbox
from local.session import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from local.cloud import Stack

__all__ = ["LOOPBACK", "PROJECT", "LocalCloud", "docker_bridge"]

#: The project's folder.
PROJECT = Path(__file__).resolve().parents[2]

#: The address that only this machine reaches.
LOOPBACK = "127.0.0.1"

#: The sandbox's mailbox of the stack's secret, and the one that stands in for DPS.
SENDER = "X26ABC1"
RECEIVER = "X26ABC3"
#: The organisation of the sandbox that has the sender's mailbox.
ODS_CODE = "X26"
#: What the stand-in for DPS, as DPS itself, knows the supplier Mavis by.
SUPPLIER = "V0V8L"


class LocalCloud:
    """The stack of template.yaml on this machine, which runs between ``__enter__`` and ``__exit__``.

    Parameters
    ----------
    publish
        Whether to tell other programs where everything is, in ``.local/environment`` (for the commands) and
        ``.local/env.json`` (for ``sam local invoke --env-vars``). Only one running stack can do so.
    host
        The address of this machine on which AWS and the sandbox listen. Containers reach an address of their network.
    project
        The project's folder.
    built
        Whether the functions are those of the build; else they are the sources, as they are when they are invoked.

    Attributes
    ----------
    endpoint_url
        Where AWS is.
    outputs
        The template's outputs, with the values of this stack.
    sandbox
        The MESH sandbox.
    emulator
        Runs the functions.
    pollers
        Give the queues' messages to functions.
    directory
        Where logs and the like are while the stack runs.
    """

    endpoint_url: str
    outputs: Mapping[str, str]
    sandbox: Sandbox
    emulator: Emulator
    pollers: list[Poller]
    directory: Path

    def __init__(
        self, *, publish: bool = False, host: str = LOOPBACK, project: Path = PROJECT, built: bool = False
    ) -> None:
        self._host = host
        self._publish = publish
        self._project = project
        self._built = built
        self._aws: Aws
        self._stack: Stack
        self._invocations: Invocations
        self.pollers = []
        self._undo = ExitStack()

    def __enter__(self) -> Self:
        """Start it.

        Raises
        ------
        local.cloud.CloudError
            The functions are not built, or what they depend on has changed since; a part did not start; or another
            stack has published itself already.
        """
        check_build(self._project, dependencies=not self._built)
        self._began = time.time()
        if self._publish:
            self._refuse_a_second()
        with ExitStack() as undo:
            self._bring_up(undo)
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop it."""
        self._undo.close()

    def client(self, service: Any) -> Any:
        """Return a boto3 client of AWS here, for example ``client("s3")``."""
        return self._aws.client(service)

    def invoke(self, function: str, event: Any = None) -> Any:
        """Invoke a function by its logical id and return its answer.

        Raises
        ------
        local.emulator.FunctionError
            The function raised, ran out of time, or its process ended.
        """
        return self.emulator.invoke(function, event)

    def drain(self, timeout: float = 60) -> None:
        """Wait until every upload was ingested, or is in the dead-letter queue.

        Raises
        ------
        TimeoutError
            Some still wait after ``timeout`` seconds; the function's last error is the cause, where there is one.
        """
        for poller in self.pollers:
            poller.drain(timeout)

    def environment(self, function: str) -> dict[str, str]:
        """Return the environment variables of a function, the SDK's among them."""
        return {**self._stack.environments[function], "AWS_ENDPOINT_URL": self.endpoint_url, **CREDENTIALS}

    def environment_of_commands(self) -> dict[str, str]:
        """Return the environment variables with which the project's commands, and the AWS CLI, work on this stack."""
        return {
            **CREDENTIALS,
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ENDPOINT_URL_LAMBDA": self._invocations.endpoint_url,
            "MESH_STACK": STACK_NAME,
        }

    def outdated(self) -> str:
        """Name a file that has changed since the stack came up and is not read again; empty where there is none."""
        for path in (self._project / "template.yaml", *self._project.glob("layers/*/requirements.txt")):
            if path.stat().st_mtime > self._began:
                return str(path.relative_to(self._project))
        return ""

    def logs(self) -> dict[str, str]:
        """Return what each function has written, by logical id."""
        return {function: self.emulator.log(function) for function in self._stack.environments}

    def _bring_up(self, undo: ExitStack) -> None:
        self.directory = _make_directory(self._project / ".local")
        undo.callback(shutil.rmtree, self.directory, ignore_errors=True)

        # Three slow starts side by side: moto (four seconds), the translator and the sandbox.
        self._aws = Aws(self.directory, self._host)
        undo.callback(self._aws.close)
        self._aws.start()
        with ThreadPoolExecutor() as threads:
            aws_is_up = threads.submit(self._aws.wait)
            self.sandbox = undo.enter_context(Sandbox(self.directory / "sandbox", host=self._host))
            from local.template import Template

            template = Template.read(self._project / "template.yaml")
            aws_is_up.result()

        self.endpoint_url = self._aws.endpoint_url
        self._stack = self._aws.deploy(
            template,
            parameters={
                "MeshBaseUrl": self.sandbox.base_url,
                "DpsMailbox": RECEIVER,
                "DpsSupplierOdsCode": SUPPLIER,
                "DeletionProtection": "false",
            },
            secrets={"MeshSecret": json.dumps(self._secret())},
        )
        self.outputs = self._stack.outputs
        flag = self.outputs["MeshJobsParameterName"]
        self.client("ssm").put_parameter(Name=flag, Value="enabled", Type="String")
        self.emulator = Emulator(
            self._project,
            self.directory,
            template.functions(),
            self._stack.environments,
            self.endpoint_url,
            built=self._built,
        )
        self._invocations = Invocations(self.emulator, self._host, self.pollers)
        self._invocations.start()
        undo.callback(self._invocations.close)
        for source in self._stack.event_sources:
            poller = Poller(self.client("sqs"), source, self.invoke)
            poller.start()
            undo.callback(poller.stop)
            self.pollers.append(poller)
        undo.callback(self.emulator.close)  # before the pollers, which wait for an invocation under way
        if self._publish:
            self._write_environment(undo)

    def _secret(self) -> dict[str, str]:
        """Return what opens the sandbox's mailbox, in the form of the stack's secret."""
        certificates = self.sandbox.certificates
        return {
            "mailbox": SENDER,
            "password": self.sandbox.password,
            "shared_key": self.sandbox.shared_key,
            "private_key": certificates.private_key,
            "private_key_passphrase": certificates.passphrase,
            "certificate": certificates.certificate,
            "ca_bundle": certificates.ca_bundle,
        }

    def _refuse_a_second(self) -> None:
        other = _process_of(self._project / ".local" / "environment")
        if other is not None and _is_running(other):
            raise CloudError(f"the stack is running already, in process {other}")

    def _write_environment(self, undo: ExitStack) -> None:
        environment = self._project / ".local" / "environment"
        lines = [f"# process {os.getpid()}"]
        lines += [f"{name}={value}" for name, value in sorted(self.environment_of_commands().items())]
        environment.write_text("\n".join(lines) + "\n")
        undo.callback(environment.unlink, missing_ok=True)

        variables = environment.with_name("env.json")
        variables.write_text(
            json.dumps({function: self.environment(function) for function in self._stack.environments}, indent=2)
        )
        undo.callback(variables.unlink, missing_ok=True)

        # What `mesh local dps` has on file came from this stack's mailboxes.
        on_file = environment.with_name("dps.json")
        on_file.unlink(missing_ok=True)
        undo.callback(on_file.unlink, missing_ok=True)


def docker_bridge(interface: str = "docker0") -> str:
    """Return this machine's address on Docker's default network, where containers reach it.

    Parameters
    ----------
    interface
        The name of Docker's bridge among this machine's network interfaces.

    Raises
    ------
    CloudError
        There is no such interface: Docker does not run.
    """
    siocgifaddr = 0x8915  # Linux: the address of a network interface
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        try:
            answer = fcntl.ioctl(asking, siocgifaddr, struct.pack("256s", interface.encode()))
        except OSError:
            raise CloudError(
                "Docker is not running; start it, or leave containers out (`mesh invoke` needs none)"
            ) from None
    return socket.inet_ntoa(answer[20:24])


def _make_directory(parent: Path) -> Path:
    """Make a folder that no other process uses, and remove those of processes that have ended."""
    parent.mkdir(exist_ok=True)
    for folder in parent.glob("cloud-*"):
        process = folder.name.split("-")[1]
        if process.isdecimal() and not _is_running(int(process)):
            shutil.rmtree(folder, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=f"cloud-{os.getpid()}-", dir=parent))


def _process_of(environment: Path) -> int | None:
    """Return the id of the process that wrote an environment file; None where there is no such file."""
    try:
        first = environment.read_text().partition("\n")[0]
    except FileNotFoundError:
        return None
    number = first.removeprefix("# process ")
    return int(number) if number.isdecimal() else None


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
