"""The one form into which text of an upload is brought before anything looks at it (docs/upload-format.md, "Text")."""

from __future__ import annotations

import re
import unicodedata

__all__ = ["is_plain", "plain"]

_JOINER = "\u200d"
_SPACES = re.compile("[ \t\n\v\f\r\u00a0]+")


def plain(text: str) -> str:
    """Return a text as it is kept: without space around it, and each run of spaces, tabs and line breaks as one space.

    The zero-width joiner, which web pages put into NHS numbers, is left out. Two ways of writing é become one (NFC).
    """
    text = text.strip()
    if is_plain(text):
        return text
    return unicodedata.normalize("NFC", _SPACES.sub(" ", text.replace(_JOINER, "")).strip())


def is_plain(text: str) -> bool:
    """Tell, quickly, that a text is kept as it is but for space around it; of a few such texts it is not told."""
    # A tab, a no-break space and a joiner are not printable.
    return text.isprintable() and "  " not in text and unicodedata.is_normalized("NFC", text)
