"""Reads the commands that the documentation tells people to type: in ``console`` blocks, and in the text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from local.stack import PROJECT

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PAGES", "Block", "blocks", "inline", "normal", "section"]

#: The pages that tell people what to type.
PAGES = [
    PROJECT / "README.md",
    PROJECT / "CONTRIBUTING.md",
    PROJECT / "SECURITY.md",
    *sorted(PROJECT.glob("docs/*.md")),
]
#: What differs from one run to the next, and what stands in its place for the comparison.
_VOLATILE = {
    r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b": "UUID",
    r"(?<![0-9a-fA-F])([0-9a-f]{32}|[0-9A-F]{32})(?![0-9a-fA-F])": "ID",
    r"(?<!\d)\d{8}T\d{8}(?!\d)": "TIME",
    r"(?<!\d)\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d([.,]\d+)?(\+0000|\+00:00|Z)?": "TIME",
    r"(?<!\d)\d{4}-\d\d-\d\d(?!\d)": "DAY",
    r"\b[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d\d:\d\d\b": "TIME",
    r'("Timestamp":)\d+': r"\1TIME",
    r'("certificate_days_left": ?)\d+': r"\1DAYS",
    r'("CertificateDaysLeft":\[)\d+': r"\1DAYS",
    r"(local-bucket-)\w+": r"\1NAME",
    r"\b\d+ (s|min|h|d) ago\b": "AGE",
    r"\b\d+ days left": "DAYS left",
    r'("location":"\w+):\d+': r"\1",
}
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


def normal(text: str) -> str:
    """Return a transcript without what differs from one run to the next: times, ids, the width of their columns."""
    for pattern, stands_in in _VOLATILE.items():
        text = re.sub(pattern, stands_in, text)
    return re.sub("\u2500{2,}", "\u2500\u2500", re.sub(r"(?<=\S) {2,}", "  ", text))
