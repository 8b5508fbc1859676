"""What the documentation tells people to type can be typed, and is tried by a test or says why not."""

from __future__ import annotations

import re
import shlex
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from local.stack import PROJECT
from mesh_cli.deployment import EXPORTED
from mesh_cli.main import app
from tests import awscli
from tests.pages import PAGES, Block, blocks, inline, normal

if TYPE_CHECKING:
    from pathlib import Path

OPERATIONS, INVOKE, MOVING, DEMO = (
    PROJECT / "docs" / f"{name}.md" for name in ("operations", "invoke", "moving", "demo")
)
#: Every block of these is run in its order, unless it says why not.
RUN = {
    OPERATIONS: "tests/e2e/test_operations.py",
    INVOKE: "tests/e2e/test_invoke.py",
    MOVING: "tests/e2e/test_moving.py",
    DEMO: "tests/e2e/test_story.py",
}
#: Where tests type commands: their words are looked for there.
TYPED = [
    path.read_text() for folder in ("e2e", "usecases", "unit/mesh_cli") for path in PROJECT.glob(f"tests/{folder}/*.py")
]
BLOCKS = [block for page in PAGES for block in blocks(page)]
MESH = get_command(app)
_USED = re.compile(r"\$\{?([A-Z][A-Z_]+)\}?")
_SET = re.compile(r"(?:^|export |\s)([A-Z][A-Z_]+)=")
#: CloudFormation's deploy is the AWS CLI's own, and no operation of the service.
_THE_CLIS_OWN = "aws cloudformation deploy"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_no_command_uses_a_variable_that_nothing_sets(page: Path) -> None:
    known: set[str] = set()
    for block in blocks(page):
        for command in block.commands:
            if "mesh stack --export" in command:
                known |= EXPORTED.keys()
            assert not set(_USED.findall(command)) - known, f"{block.section}: {command}"
            known |= set(_SET.findall(command))


def test_each_variable_that_the_stack_is_asked_for_is_used_by_a_command() -> None:
    used = {name for block in BLOCKS for command in block.commands for name in _USED.findall(command)}
    assert EXPORTED.keys() <= used


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page.name}: {block.commands[0][:60]}")
def test_a_block_of_commands_is_run_by_a_test_or_says_why_not(block: Block) -> None:
    """A test that it names runs each of its commands of ours."""
    if not block.reason:
        assert block.page in RUN, "no test runs this page's commands: <!-- not run: why; which test does -->"
        return
    for test in re.findall(r"tests/[\w/]+\.py", block.reason):
        assert (PROJECT / test).exists(), test


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_the_pages_whose_commands_are_run_are_read_by_their_tests(page: Path) -> None:
    assert f'"{page.name}"' in (PROJECT / RUN[page]).read_text()


def test_the_readme_tells_in_two_screens_lines_of_the_story_as_the_demo_does() -> None:
    text = (PROJECT / "README.md").read_text()
    assert len(text.splitlines()) <= 100
    [story] = re.findall(r"```text\n(.+?)```", text, re.DOTALL)
    told = normal(DEMO.read_text())
    assert [line for line in normal(story).splitlines() if line not in told] == []


def commands_of_ours() -> list[tuple[Path, str]]:
    """Return each command of ours that a page names, wherever it stands."""
    found = [(page, command) for page in PAGES for command in inline(page)]
    for block in BLOCKS:
        found += [(block.page, c[c.index("mesh ") :]) for c in block.commands if re.search(r"(^|\()mesh ", c)]
    return list(dict.fromkeys(found))


@pytest.mark.parametrize(("page", "command"), commands_of_ours(), ids=lambda value: getattr(value, "name", value))
def test_a_command_that_a_page_names_is_there_with_its_options_and_a_test_runs_it(page: Path, command: str) -> None:
    names, options = understood(command)
    for option in re.findall(r"(?<!\S)(--[a-z][a-z-]+)", command):
        assert option in options, f"{page.name}: {command}"
    assert is_typed(names), f"{page.name}: no test runs mesh {' '.join(names)}"


@pytest.mark.parametrize("wrong", ["mesh frobnicate", "mesh export frobnicate hpv-1"])
def test_a_command_that_there_is_not_is_not_understood(wrong: str) -> None:
    with pytest.raises(LookupError):
        understood(wrong)


def test_a_command_that_no_test_types_is_told() -> None:
    assert is_typed(("export", "show"))
    assert not is_typed(("export", "frobnicate"))


def understood(command: str) -> tuple[tuple[str, ...], set[str]]:
    """Return the words that name a command, and the options that it takes.

    Raises
    ------
    LookupError
        There is no such command.
    """
    found: Any = MESH
    names: list[str] = []
    options = {option for parameter in found.params for option in parameter.opts}
    for word in command.replace(")", " ").replace('"', " ").split()[1:]:
        if not hasattr(found, "commands") or not re.fullmatch(r"[a-z][a-z-]+", word):
            break
        if word not in found.commands:
            raise LookupError(f"there is no command {word!r} in: {command}")
        found = found.commands[word]
        names.append(word)
        options |= {option for parameter in found.params for option in (*parameter.opts, *parameter.secondary_opts)}
    return tuple(names), options | {"--help", "--version"}


@cache
def is_typed(names: tuple[str, ...]) -> bool:
    """Tell whether a test types a command: as words of a call, or in a block that is run."""
    call = re.compile(r'\((?:"--stack", [^,]+, )?' + ", ".join(f'"{name}"' for name in names))
    run = (command for block in BLOCKS if block.page in RUN and not block.reason for command in block.commands)
    typed = f"mesh {' '.join(names)}"
    return any(call.search(text) or typed in text for text in TYPED) or any(typed in command for command in run)


@pytest.mark.parametrize(
    "command",
    [c for block in BLOCKS for c in block.commands if re.search(r"(^|\()aws ", c) and not c.startswith(_THE_CLIS_OWN)],
)
def test_a_command_of_aws_is_one_with_those_options(command: str) -> None:
    for one in re.findall(r"aws (?:[^$()]|\$[A-Z])+", command.replace('"', "")):
        words = shlex.split(one)[1:]
        if words[-1].startswith("--"):  # its value is what another command answers
            words.append("value")
        awscli.parse(words)
