"""The ``mesh`` command in processes that have it loaded already: a fork for each, where a test runs it often.

Run as a program it is a fork server: it reads one command a line, as JSON, forks, and the fork does what the installed
script does. What a command says goes into files. `Forks` is the other end.
"""

from __future__ import annotations

import atexit
import gc
import json
import os
import subprocess
import sys
import traceback
from functools import cached_property
from typing import TYPE_CHECKING, Self

import boto3

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

__all__ = ["Forks"]


class Forks:
    """The fork server, up between ``with`` and its end.

    Parameters
    ----------
    environment
        What the command finds in its environment while it is loaded.
    folder
        Where it works, and where what it says is put.
    """

    def __init__(self, environment: Mapping[str, str], project: Path, folder: Path) -> None:
        self._given, self._said = folder / "in", (folder / "out", folder / "err")
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.e2e.forks"],
            cwd=project,
            env=dict(environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.communicate(timeout=10)

    def run(
        self, *arguments: str, given: str = "", folder: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run ``mesh`` with something on stdin, in a folder, with some more variables in its environment."""
        assert self._server.stdin
        assert self._server.stdout
        self._given.write_text(given)
        command = {
            "arguments": arguments,
            "environment": environment,
            "given": str(self._given),
            "folder": folder,
            "said": [str(path) for path in self._said],
        }
        self._server.stdin.write(json.dumps(command) + "\n")
        self._server.stdin.flush()
        ended = self._server.stdout.readline()
        assert ended, "the fork server has ended"
        out, err = (path.read_text() for path in self._said)
        return subprocess.CompletedProcess(["mesh", *arguments], int(ended), out, err)


def _serve() -> None:
    import vaccinations.wiring  # noqa: F401 - what the commands load later
    from mesh_cli.main import main

    _read_up()
    gc.freeze()  # no fork looks through what is loaded for garbage
    for line in sys.stdin:
        command = json.loads(line)
        if not (child := os.fork()):
            for number, path in enumerate(command["said"], start=1):
                os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            os.dup2(os.open(command["given"], os.O_RDONLY), 0)
            os.environ.update(command["environment"])
            if command["folder"]:
                os.chdir(command["folder"])
            sys.argv = ["mesh", *command["arguments"]]
            code = 1
            try:
                main()
                code = 0
            except SystemExit as ended:
                code = ended.code if isinstance(ended.code, int) else int(bool(ended.code))
            except BaseException:  # noqa: BLE001 - as Python does with what nobody catches
                traceback.print_exc()
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _read_up() -> None:
    """Read what botocore knows of the services, so that no fork has to."""
    import botocore.session
    from botocore.loaders import create_loader

    from vaccinations.aws.clients import Clients

    loader = create_loader(botocore.session.Session().get_config_variable("data_path"))
    vars(botocore.session)["create_loader"] = lambda _: loader
    services = Clients(boto3.Session("none", "none", region_name="eu-west-2"))
    for name, made in vars(Clients).items():
        if isinstance(made, cached_property):
            getattr(services, name)


if __name__ == "__main__":
    _serve()
