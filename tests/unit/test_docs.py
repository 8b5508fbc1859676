"""What the documentation tells people to type can be typed, and is tried by a test or says why not."""

from __future__ import annotations

import re

import pytest

from local.stack import PROJECT
from mesh_cli.deployment import EXPORTED
from tests.pages import PAGES, blocks

OPERATIONS = PROJECT / "docs" / "operations.md"
_USED = re.compile(r"\$\{?([A-Z][A-Z_]+)\}?")
_SET = re.compile(r"(?:^|export |\s)([A-Z][A-Z_]+)=")
BLOCKS = [block for page in PAGES for block in blocks(page)]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.name)
def test_no_command_uses_a_variable_that_nothing_sets(page: object) -> None:
    known: set[str] = set()
    for block in (block for block in BLOCKS if block.page == page):
        for command in block.commands:
            if "mesh stack --export" in command:
                known |= EXPORTED.keys()
            unset = set(_USED.findall(command)) - known
            assert not unset, f"{block.section}: {command}"
            known |= set(_SET.findall(command))


def test_each_variable_that_the_stack_is_asked_for_is_used_by_a_command() -> None:
    used = {name for block in BLOCKS for command in block.commands for name in _USED.findall(command)}
    assert EXPORTED.keys() <= used
