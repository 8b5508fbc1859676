"""The commands of docs/operations.md do what it says: they are run, in its order, on the stack of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.stack import ODS_CODE, PROJECT, SENDER, LocalCloud
from tests.pages import blocks
from tests.usecases.rows import row, upload_of, uuid_of

if TYPE_CHECKING:
    from collections.abc import Iterator

BIN = Path(sys.executable).parent
BLOCKS = blocks(PROJECT / "docs" / "operations.md")


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Run a command as an operator would, in a folder with what NHS England has sent."""
    folder = tmp_path_factory.mktemp("operator")
    with LocalCloud() as cloud:
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
            "monday.csv": upload_of(row(1), row(2), row(3, "MenACWY")),
        }
        for name, text in files.items():
            (folder / name).write_text(text)
        environment = {
            **os.environ,
            **cloud.environment_of_commands(),
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "MAILBOX": SENDER,
            "ODS_CODE": ODS_CODE,
            "RECORD": uuid_of(2),
        }

        def run(command: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", command],
                cwd=folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
            )

        yield run


def test_each_block_of_commands_is_run_or_says_why_not(shell: Any) -> None:
    ran = 0
    for block in BLOCKS:
        for command in block.commands if not block.reason else ():
            done = shell(command)
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            ran += 1
    assert ran > 15
