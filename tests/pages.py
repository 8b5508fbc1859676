"""Reads the commands that the documentation tells people to type: in ``console`` blocks, and in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.stack import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGES", "Block", "blocks", "inline", "section"]

#: The pages that tell people what to type.
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "SECURITY.md",
    *sorted(PROJECT.glob("docs/*.md")),
]
_BLOCK = re.compile(
    r"^#+ (?P<section>[^\n]+)$|(?:<!-- not run: (?P<reason>[^>]+?) -->\n)?```console\n(?P<text>.+?)```",
    re.DOTALL | re.MULTILINE,
)
_FENCED = re.compile(r"^```.*?^```", re.DOTALL | re.MULTILINE)
_INLINE = re.compile(r"`(mesh [a-z][^`]*)`")


@dataclass(frozen=True, slots=True)
class Block:
    """A block of commands.

    Attributes
    ----------
    section
        The heading that it stands under.
    reason
        Why no test runs it in the page's order, and which does; empty where that is done.
    commands
        What is typed.
    """

    page: Path
    section: str
    reason: str
    commands: tuple[str, ...]


def blocks(page: Path) -> list[Block]:
    """Return a page's blocks, in their order."""
    found, section = [], ""
    for match in _BLOCK.finditer(page.read_text()):
        if match["section"]:
            section = match["section"]
            continue
        typed = [line.removeprefix("$ ") for line in match["text"].splitlines() if line.startswith("$ ")]
        found.append(Block(page, section, match["reason"] or "", tuple(typed)))
    return found


def section(page: Path, heading: str) -> list[Block]:
    """Return the blocks of one section, without those of sections below it."""
    found = [block for block in blocks(page) if block.section == heading]
    assert found, f"{page.name} has no commands under {heading!r}"
    return found


def inline(page: Path) -> list[str]:
    """Return the commands in a page's text, as they are written."""
    text = _FENCED.sub("", page.read_text())
    return [" ".join(command.split()) for command in _INLINE.findall(text)]
