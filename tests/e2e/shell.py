"""Types the documentation's commands as an operator would: in one shell, in a folder with what NHS England sent."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from local.stack import ODS_CODE, PROJECT, SENDER
from tests.e2e.forks import Forks

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.stack import LocalCloud

__all__ = ["Shell", "shell_on"]

type Done = subprocess.CompletedProcess[str]

_BIN = Path(sys.executable).parent
_AWS = f'#!/bin/sh\nPYTHONPATH={PROJECT} exec {sys.executable} -m tests.awscli "$@"\n'


class Shell:
    """A shell that keeps its variables. ``mesh`` by itself is run in a fork, everything else by bash.

    Attributes
    ----------
    folder
        Where it works.
    variables
        Its environment.
    """

    def __init__(self, forks: Forks, folder: Path, variables: Mapping[str, str]) -> None:
        self._forks = forks
        self.folder = folder
        self.variables = dict(variables)

    def run(self, command: str) -> Done:
        """Run a command, and write down what was typed and what came of it."""
        simple = command.startswith("mesh ") and not set(command) & set("|<>`(")
        done = self._fork(command) if simple else self._bash(command)
        sys.stdout.write(f"$ {command}\n{done.stdout}{done.stderr}\n")
        return done

    @contextmanager
    def with_variables(self, **variables: str) -> Iterator[None]:
        """Set variables for a while."""
        before, self.variables = self.variables, self.variables | variables
        yield
        self.variables = before

    def _fork(self, command: str) -> Done:
        words = shlex.split(Template(command).substitute(self.variables))
        return self._forks.run(*words[1:], folder=str(self.folder), **self.variables)

    def _bash(self, command: str) -> Done:
        kept = self.folder / ".variables"
        done = subprocess.run(
            ["/bin/bash", "-euo", "pipefail", "-c", f"set -a\n{command}\nenv -0 > {kept}"],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode == 0:
            self.variables |= dict(each.split("=", 1) for each in kept.read_text().split("\0") if "=" in each)
        return done


@contextmanager
def shell_on(cloud: LocalCloud, folder: Path) -> Iterator[Shell]:
    """Open a shell that knows where the stack is, and nothing else of it."""
    certificates = cloud.sandbox.certificates
    root, sub, _ = certificates.ca_bundle.split("-----END CERTIFICATE-----\n")
    files = {
        "root-ca.pem": f"{root}-----END CERTIFICATE-----\n",
        "sub-ca.pem": f"{sub}-----END CERTIFICATE-----\n",
        "certificate.pem": certificates.certificate,
        "private_key.pem": certificates.private_key,
        "passphrase.txt": certificates.passphrase,
        "password.txt": cloud.sandbox.password,
        "shared-key.txt": cloud.sandbox.shared_key,
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    programs = folder / "bin"
    programs.mkdir()
    (programs / "aws").write_text(_AWS)
    (programs / "aws").chmod(0o755)
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MESH_", "DPS_"))}
    variables |= cloud.environment_of_commands()
    variables |= {"PATH": f"{programs}:{_BIN}:{os.environ['PATH']}", "COLUMNS": "400"}
    variables |= {"MAILBOX": SENDER, "ODS_CODE": ODS_CODE}
    with Forks(variables, PROJECT, folder) as forks:
        yield Shell(forks, folder, variables)
