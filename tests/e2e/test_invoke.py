"""docs/invoke.md is a transcript: its commands are run, and say what it says.

With TRANSCRIPT=write in the environment the page is written anew.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.stack import PROJECT, LocalCloud
from local.template import Template
from tests.pages import normal
from tests.usecases.rows import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = PROJECT / "docs" / "invoke.md"
BLOCK = re.compile(r"(?<=```console\n).+?(?=```)", re.DOTALL)
# The command as installed, but for a project of its own, so that several stacks can be up at the same time.
COMMAND = """\
#!{python}
import sys
from pathlib import Path
import local.stack
local.stack.PROJECT = Path({project!r})
from mesh_cli.main import app
sys.argv[0] = "mesh"
app()
"""


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    project = tmp_path_factory.mktemp("project")
    for name in (".aws-sam", "events", "functions", "layers", "template.yaml"):
        (project / name).symlink_to(PROJECT / name)
    (project / "vaccinations.csv").write_text(upload_of(row(1), row(2, "MenACWY"), row(3).replace("SW1A 1AA", "?")))
    commands = tmp_path_factory.mktemp("bin")
    (commands / "mesh").write_text(COMMAND.format(python=sys.executable, project=str(project)))
    (commands / "mesh").chmod(0o755)
    with LocalCloud(project=project, publish=True) as cloud:
        environment = {
            **os.environ,
            **cloud.environment_of_commands(),
            "PATH": f"{commands}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "COLUMNS": "120",
        }

        def run(command: str) -> str:
            done = subprocess.run(
                ["/bin/bash", "-euo", "pipefail", "-c", command],
                cwd=project,
                env=environment,
                stdout=subprocess.PIPE,
                text=True,
                timeout=120,
                check=True,
            )
            return done.stdout

        yield run


def test_the_transcript_is_what_the_functions_say(shell: Any) -> None:
    def run_anew(block: re.Match[str]) -> str:
        commands = [line for line in block[0].splitlines() if line.startswith("$ ")]
        return "".join(f"{command}\n{shell(command.removeprefix('$ '))}" for command in commands)

    page = PAGE.read_text()
    anew = BLOCK.sub(run_anew, page)
    if os.environ.get("TRANSCRIPT") == "write":
        PAGE.write_text(anew)
    assert normal(anew).splitlines() == normal(PAGE.read_text()).splitlines()


def test_no_day_and_no_hour_is_compared() -> None:
    """The page was written at some hour of some day, and its commands are run at another."""
    page = BLOCK.findall(PAGE.read_text())
    dated = re.findall(
        r".*(?:\d\d:\d\d|20\d\d|(?:Mon|Tues?|Wed|Thu|Fri|Sat|Sun)[a-z]* \d).*", "".join(map(normal, page))
    )
    assert dated == []


def test_every_function_and_every_example_event_is_in_the_transcript() -> None:
    page = PAGE.read_text()
    invoked = {name.replace("-", "") for name in re.findall(r"\$ mesh invoke ([\w-]+)", page)}
    assert invoked == {
        name.removesuffix("Function").lower() for name in Template.read(PROJECT / "template.yaml").functions()
    }
    assert set(re.findall(r"-e (events/\S+)", page)) == {f"events/{p.name}" for p in (PROJECT / "events").iterdir()}
