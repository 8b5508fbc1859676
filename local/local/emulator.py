"""Runs the functions as Lambda does: under AWS's runtime interface emulator, which comes with aws-sam-cli.

An execution environment is one emulator process. It starts the function's interpreter, receives invocations over HTTP
and ends those that run out of time. As in Lambda it serves one invocation at a time, is kept for the next, and is
replaced when it dies; an invocation that finds none free gets a new one. Where a function has reserved concurrency, no
more invocations run at once than that; Lambda turns others away, and whoever invokes it tries again: here they wait.

The interpreter sees what it would see in AWS and nothing else: the function's folder, its layers, and AWS's own part
(awslambdaric and boto3 as locked), not the developer's environment. Functions and layers are the sources as they are at
that moment, and what the layers depend on is the build's; or all is the build's, where that is what is looked at.
"""

from __future__ import annotations

import http.client
import importlib.metadata
import importlib.util
import json
import os
import platform
import shutil
import sys
import threading
import uuid
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.requirements import Requirement

from local import children
from local.cloud import STACK_NAME, CloudError
from local.session import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from subprocess import Popen

    from local.template import Function

    #: Of each source its path, when it was written, and its size.
    type _Version = tuple[tuple[Path, int, int], ...]

__all__ = ["BUILD", "Emulator", "FunctionError", "check_build", "python_path", "runtime"]

#: Where the build is in the project's folder.
BUILD = Path(".aws-sam", "build")

#: What AWS puts beside a function: these distributions, and their dependencies.
_RUNTIME = ("awslambdaric", "boto3")


class FunctionError(Exception):
    """An invocation failed.

    Attributes
    ----------
    function
        The function's logical id.
    error_type, error_message
        What Lambda answers: the exception's name and text, or ``Sandbox.Timedout`` and the like.
    stack_trace
        The lines of the function's traceback, where it raised.
    """

    def __init__(self, function: str, error_type: str, error_message: str, stack_trace: tuple[str, ...] = ()) -> None:
        super().__init__(f"{function}: {error_type}: {error_message}")
        self.function = function
        self.error_type = error_type
        self.error_message = error_message
        self.stack_trace = stack_trace


def check_build(project: Path, *, dependencies: bool = False) -> None:
    """Check that the functions were built from the sources as they are now.

    Parameters
    ----------
    dependencies
        Whether only what the layers depend on has to be as it is now.

    Raises
    ------
    CloudError
        There is no build, or a source is newer than it.
    """
    built = project / BUILD / "template.yaml"
    if not built.exists():
        raise CloudError("the functions are not built yet; build them with: make build")
    time_built = built.stat().st_mtime
    for source in project.glob("layers/*/requirements.txt") if dependencies else _sources(project):
        if source.stat().st_mtime > time_built:
            raise CloudError(
                f"{source.relative_to(project)} is newer than the built functions; build them again with: make build"
            )


def _sources(project: Path) -> Iterator[Path]:
    yield project / "template.yaml"
    for folder in ("functions", "layers"):
        for path in (project / folder).rglob("*"):
            if path.is_file() and path.suffix not in {".pyc", ".md"}:
                yield path


class Emulator:
    """Runs a template's functions.

    Parameters
    ----------
    project
        The project's folder, with the build in it.
    directory
        Where logs go, and what the functions write to /tmp.
    functions
        The functions, by logical id.
    environments
        Their environment variables.
    endpoint_url
        Where they find AWS.
    built
        Whether all of the functions is the build's, not only what their layers depend on.
    """

    def __init__(
        self,
        project: Path,
        directory: Path,
        functions: Mapping[str, Function],
        environments: Mapping[str, Mapping[str, str]],
        endpoint_url: str,
        *,
        built: bool = False,
    ) -> None:
        self._build = project / BUILD
        self._sources = None if built else project
        self._directory = directory
        self._functions = functions
        self._environments = environments
        self._endpoint_url = endpoint_url
        self._lock = threading.Lock()
        self._idle: dict[str, list[_ExecutionEnvironment]] = {name: [] for name in functions}
        self._busy: dict[str, set[_ExecutionEnvironment]] = {name: set() for name in functions}
        # No more invocations than that are ever under way here.
        self._slots = {name: threading.Semaphore(function.reserved or 1000) for name, function in functions.items()}
        self._closed = False
        self._binary = _emulator_binary(directory)
        self._runtime = runtime(directory)

    def configure(self, function: str, **variables: str) -> None:
        """Change some of a function's environment variables; it starts anew with them."""
        self._environments = {**self._environments, function: {**self._environments[function], **variables}}
        self.kill(function)

    def invoke(self, function: str, event: Any = None, request_id: str = "") -> Any:
        """Invoke a function and return its answer.

        Parameters
        ----------
        function
            Its logical id, for example ``ExportFunction``.
        event
            What it gets, by default ``{}``.
        request_id
            What its log names the invocation by; made up where left out.

        Raises
        ------
        FunctionError
            The function raised, ran out of time or memory, or its process ended.
        """
        with self._slots[function]:
            environment = self._acquire(function)
            try:
                return environment.invoke({} if event is None else event, request_id or str(uuid.uuid4()))
            finally:
                self._release(function, environment)

    def log(self, function: str) -> str:
        """Return everything a function has written so far, with the emulator's own lines among it."""
        path = self._log_path(function)
        return path.read_text(errors="replace") if path.exists() else ""

    def kill(self, function: str) -> int:
        """End a function's processes, in the middle of an invocation or not, and return how many.

        Callers that wait for an answer get a FunctionError. The next invocation starts a new process.
        """
        with self._lock:
            environments = [*self._idle[function], *self._busy[function]]
            self._idle[function].clear()
        for environment in environments:
            environment.close()
        return len(environments)

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            self._closed = True
            environments = [e for group in (self._idle, self._busy) for some in group.values() for e in some]
        children.stop(*(environment.process for environment in environments))

    def _acquire(self, function: str) -> _ExecutionEnvironment:
        version, old = self._version(function), []
        with self._lock:
            if self._closed:
                raise FunctionError(function, "Sandbox.Closed", "the cloud on this machine has stopped")
            while self._idle[function]:
                environment = self._idle[function].pop()
                if environment.version != version:
                    old.append(environment)
                elif environment.alive:
                    break
            else:
                environment = self._start(function, version)
            self._busy[function].add(environment)
        for each in old:
            each.close()
        return environment

    def _version(self, function: str) -> _Version:
        """Tell of the sources of a function what changes when one of them is edited, added or removed."""
        if not self._sources:
            return ()
        found = []
        for folder in self._functions[function].sources:
            for path in sorted((self._sources / folder).rglob("*.py")):
                with suppress(FileNotFoundError):  # removed at this moment
                    known = path.stat()
                    found.append((path, known.st_mtime_ns, known.st_size))
        return tuple(found)

    def _release(self, function: str, environment: _ExecutionEnvironment) -> None:
        with self._lock:
            self._busy[function].discard(environment)
            if environment.alive and not self._closed:
                self._idle[function].append(environment)

    def _log_path(self, function: str) -> Path:
        return self._directory / f"{function}.log"

    def _start(self, name: str, version: _Version) -> _ExecutionEnvironment:
        function = self._functions[name]
        code = self._sources / function.sources[0] if self._sources else self._build / name
        temporary = self._directory / "tmp" / name
        temporary.mkdir(parents=True, exist_ok=True)
        environment = {
            "PATH": os.defpath,
            "LANG": "en_US.UTF-8",
            "TZ": ":UTC",
            "LD_PRELOAD": "",  # the emulator's clock cannot be set, and it tells the function how much time it has
            "TMPDIR": str(temporary),
            "PYTHONPATH": python_path(self._build, function, self._runtime, sources=self._sources),
            "PYTHONDONTWRITEBYTECODE": "1",  # sources and build stay as they are
            "AWS_EXECUTION_ENV": "AWS_Lambda_python3.13",
            "AWS_LAMBDA_FUNCTION_NAME": f"{STACK_NAME}-{name}",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(function.timeout),
            "POWERTOOLS_TRACE_DISABLED": "true",  # there is no X-Ray here
            **self._environments[name],
            **CREDENTIALS,
            "AWS_ACCESS_KEY_ID": name,  # says whose a request is, where moto records them
            "AWS_ENDPOINT_URL": self._endpoint_url,
        }
        port, runtime_port = children.free_port(), children.free_port()
        process = children.start(
            [
                self._binary,
                "--runtime-interface-emulator-address",
                f"127.0.0.1:{port}",
                "--runtime-api-address",
                f"127.0.0.1:{runtime_port}",
                children.python(),
                "-S",  # without this, the interpreter would find the packages of the environment it belongs to
                "-m",
                "awslambdaric",
                function.handler,
            ],
            log=self._log_path(name),
            environment=environment,
            folder=code,
        )
        return _ExecutionEnvironment(name, version, process, port, function.timeout)


class _ExecutionEnvironment:
    """One emulator process and the function in it."""

    def __init__(self, function: str, version: _Version, process: Popen[bytes], port: int, timeout: int) -> None:
        self.version = version
        self.process = process
        self._function = function
        self._port = port
        self._timeout = timeout
        self._closed = False

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        """End the process; the emulator ends the function."""
        self._closed = True
        children.stop(self.process)

    def invoke(self, event: Any, request_id: str) -> Any:
        """Invoke the function; see `Emulator.invoke`."""
        try:
            text = self._post(json.dumps(event), request_id)
        except (OSError, http.client.HTTPException):
            self.close()
        if self._closed:
            # An emulator that is ended closes the connection, or still answers that the function ended.
            raise FunctionError(self._function, "Sandbox.Killed", "the function's process was ended")
        try:
            answer = json.loads(text)
        except json.JSONDecodeError:
            # The emulator answers in plain text that the function ran out of time.
            timed_out = text.startswith("Task timed out")
            raise FunctionError(self._function, "Sandbox.Timedout" if timed_out else "Sandbox.Failure", text) from None
        # Only the form of the answer tells failure from success.
        if isinstance(answer, dict) and "errorType" in answer and "errorMessage" in answer:
            raise FunctionError(
                self._function, answer["errorType"], answer["errorMessage"], tuple(answer.get("stackTrace") or ())
            )
        return answer

    def _post(self, event: str, request_id: str) -> str:
        if not children.listens(self.process, self._port):
            raise ConnectionRefusedError
        # The emulator ends the function in time; this timeout is for the case that it does not.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=self._timeout + 30)
        with closing(connection):
            path, headers = "/2015-03-31/functions/function/invocations", {"X-Amzn-RequestId": request_id}
            connection.request("POST", path, event.encode(), headers)
            return connection.getresponse().read().decode()


def _emulator_binary(directory: Path) -> Path:
    """Return the emulator; a copy that may be executed where the installed one may not."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        machine = f"{platform.system()} on {platform.machine()}"
        raise CloudError(f"the functions are built for Linux on x86_64 and do not run here, on {machine}")
    samcli = importlib.util.find_spec("samcli")
    if samcli is None or samcli.origin is None:
        raise CloudError("aws-sam-cli is not installed; install the environment with: make setup")
    installed = Path(samcli.origin).parent / "local" / "rapid" / "aws-lambda-rie-x86_64"
    if os.access(installed, os.X_OK):
        return installed
    copy = directory / installed.name
    shutil.copyfile(installed, copy)
    copy.chmod(0o755)
    return copy


def python_path(build: Path, function: Function, runtime: Path, *, sources: Path | None = None) -> str:
    """Return what ``PYTHONPATH`` is for a function: itself, its layers and AWS's part, nothing else.

    Parameters
    ----------
    sources
        The project, where the function and its layers are taken from their sources; else they are the build's.
    """
    code = [sources / folder for folder in function.sources] if sources else [build / function.name]
    layers = [build / layer / "python" for layer in function.layers]
    return os.pathsep.join(str(path) for path in (*code, *layers, runtime))


def runtime(directory: Path) -> Path:
    """Make a folder of links to the distributions that AWS puts beside a function, and to nothing else."""
    folder = directory / "runtime"
    folder.mkdir()
    seen: set[str] = set()
    wanted = list(_RUNTIME)
    while wanted:
        distribution = importlib.metadata.distribution(wanted.pop())
        if distribution.name in seen:
            continue
        seen.add(distribution.name)
        needs = map(Requirement, distribution.requires or ())
        wanted += [need.name for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]
        for top in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
            (folder / top).symlink_to(str(distribution.locate_file(top)))
    return folder
