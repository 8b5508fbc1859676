"""The commands of docs/operations.md do what it says: they are run, in its order, on the stack of this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from local.stack import PROJECT, LocalCloud
from tests.e2e.shell import shell_on
from tests.pages import blocks
from tests.usecases.rows import row, upload_of, uuid_of

if TYPE_CHECKING:
    from pathlib import Path

BLOCKS = blocks(PROJECT / "docs" / "operations.md")


def test_each_block_of_commands_is_run_or_says_why_not(tmp_path: Path) -> None:
    (tmp_path / "monday.csv").write_text(upload_of(row(1), row(2), row(3, "MenACWY")))
    ran = 0
    with LocalCloud() as cloud, shell_on(cloud, tmp_path) as shell:
        shell.variables["RECORD"] = uuid_of(2)
        for block in BLOCKS:
            for command in block.commands if not block.reason else ():
                done = shell.run(command)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                ran += 1
    assert ran > 15
