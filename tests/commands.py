"""docs/commands.md: every help page once, made by the command itself: ``make schemas``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import typer
import typer.rich_utils
from typer.testing import CliRunner

from mesh_cli.main import app

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["COMMAND", "PAGE", "commands", "help_of", "page"]

PAGE = Path(__file__).parents[1] / "docs" / "commands.md"
#: So many columns a page of help has here, whatever the terminal.
WIDTH = 100
#: The app as a command, made once.
COMMAND: Any = typer.main.get_command(app)


def commands() -> Iterator[tuple[tuple[str, ...], Any]]:
    """Iterate over the commands and what typer knows of each, those first that have commands within them."""
    yield from _within((), COMMAND)


def _within(words: tuple[str, ...], command: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, each in getattr(command, "commands", {}).items():
        yield from _within((*words, name), each)


def help_of(*words: str) -> str:
    """Return a page of help, as it is at `WIDTH`, without colours."""
    looks = {"MAX_WIDTH": WIDTH, "COLOR_SYSTEM": None, "FORCE_TERMINAL": False}
    with patch.multiple(typer.rich_utils, **looks), patch("typer.testing._get_command", lambda _: COMMAND):
        shown = CliRunner().invoke(app, [*words, "--help"], prog_name="mesh")
    assert shown.exit_code == 0, shown.output
    return "\n".join(line.rstrip() for line in shown.output.strip("\n").splitlines())


def page() -> str:
    """Return the page's text."""
    lines = ["# Commands", "", "Every help page, made by the command itself with `make schemas`.", ""]
    for words, _ in commands():
        lines += [f"## {' '.join(('mesh', *words))}", "", "```text", help_of(*words), "```", ""]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).rstrip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
