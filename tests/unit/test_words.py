"""Pages, help, messages, docstrings and comments are in plain British English: these words are not used in them."""

from __future__ import annotations

import re
import subprocess
import tokenize
from typing import TYPE_CHECKING

import pytest

from local.stack import PROJECT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: What is not said, and what is said in its place.
WORDS = {
    # The NHS service manual has plainer ones.
    r"utili[sz]\w*": "use",
    r"leverag\w*": "use",
    r"facilitat\w*": "help",
    r"in order to": "to",
    r"prior to": "before",
    r"subsequent(ly)? to": "after",
    r"commenc\w*": "begin",
    r"endeavou?r\w*": "try",
    r"in the event (of|that)": "if",
    r"whilst": "while",
    r"amongst": "among",
    r"via": "by, through",
    r"please": "nothing: say what to do",
    r"simply|obviously|of course|unfortunately": "nothing",
    r"e\.g\.|i\.e\.|etc": "for example, that is, and so on",
    r"seamless\w*|robust\w*|powerful\w*|cutting.edge": "what it does",
    r"click here": "what the link leads to",
    # The field has words of its own.
    r"(take|takes|taken|took|taking) in (an? |the )?(upload|file|row)s?": "ingest",
    r"mend(s|ed|ing)?": "fix",
    r"held at DPS": "on file at DPS",
    # British spelling.
    r"behavior\w*": "behaviour",
    r"recogniz\w*": "recognise",
    r"initializ\w*": "initialise",
    r"analyz\w*": "analyse",
}
UNWANTED = re.compile(rf"\b({'|'.join(WORDS)})(?!\w)", re.IGNORECASE)
_CODE = re.compile(r"```.*?```|`[^`\n]*`|\]\([^)]*\)|^    [^\n]*$", re.DOTALL | re.MULTILINE)
#: These name the words, or hold what others say.
LEFT_OUT = {"tests/unit/test_words.py"}
LISTED = subprocess.run(
    ["git", "ls-files", "*.md", "*.py", "*.yaml"], cwd=PROJECT, capture_output=True, text=True, check=True
).stdout.splitlines()


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Return what people read of a file, with its lines: not code, not names."""
    if path.suffix == ".py":
        with path.open("rb") as file:
            for token in tokenize.tokenize(file.readline):
                if token.type in {tokenize.COMMENT, tokenize.STRING, tokenize.FSTRING_MIDDLE} and " " in token.string:
                    yield token.start[0], token.string
        return
    text = path.read_text()
    if path.suffix == ".md":
        text = _CODE.sub(lambda code: "\n" * code[0].count("\n"), text)
    yield from enumerate(text.splitlines(), start=1)


def test_what_people_read_is_in_plain_words() -> None:
    files = [name for name in LISTED if name not in LEFT_OUT and "corpus" not in name]
    assert len(files) > 200
    found = {
        f"{name}:{line}": match[0]
        for name in files
        for line, text in prose(PROJECT / name)
        if (match := UNWANTED.search(text))
    }
    assert found == {}, "WORDS in this file says what to say instead"


@pytest.mark.parametrize("text", ["Utilise the command", "go via MESH", "please wait", "for codes, etc. and more"])
def test_a_word_that_is_not_used_is_found(text: str) -> None:
    assert UNWANTED.search(text)
