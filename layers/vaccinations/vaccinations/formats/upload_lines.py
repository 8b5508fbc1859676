"""The lines of an upload, one at a time in flat memory, and how large an upload may be.

Uploads come from outside. Whatever they hold, reading one costs no more memory than a few chunks and takes no longer
than these limits allow.
"""

from __future__ import annotations

import codecs
import re
from io import BufferedReader
from typing import TYPE_CHECKING, BinaryIO, cast

from isal import igzip
from isal.igzip_lib import IsalError

from vaccinations.model.problems import UnreadableUpload

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import RawIOBase

__all__ = ["MAX_BYTES", "MAX_LINES", "MAX_LINE_BYTES", "Line", "lines_of", "unzipped"]

#: An upload's size, uncompressed.
MAX_BYTES = 1024**3
#: Its lines, and so its rows.
MAX_LINES = 2_000_000
#: A line's size, its line end included.
MAX_LINE_BYTES = 64 * 1024

_CHUNK = 256 * 1024
_GZIP = b"\x1f\x8b"
#: Byte-order marks, also such as have been taken for Windows-1252 and saved as the text ``ï»¿``.
_MARKS = re.compile(rb"\A(?:\xef\xbb\xbf|\xc3\xaf\xc2\xbb\xc2\xbf)+")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
#: How files begin that are often taken for text, and what to say about them.
_KINDS = {
    _GZIP: "a gzip file",
    b"PK\x03\x04": "an Excel workbook or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
    b"%PDF": "a PDF",
}
_AS_TEXT = "save it as text in UTF-8; in Excel: File, Save as, CSV UTF-8"
_SMALLER = "upload it in several smaller files"
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\r\f"))
_DAMAGED: tuple[type[Exception], ...] = (igzip.BadGzipFile, cast("type[Exception]", IsalError))

#: One line with its line end; None for one that is longer than `MAX_LINE_BYTES`, which is dropped.
type Line = bytes | None


def unzipped(stream: BinaryIO) -> BinaryIO:
    """Return a stream's content, unzipped if its first bytes say that it is gzip."""
    peekable = _peekable(stream)
    if not peekable.peek().startswith(_GZIP):
        return peekable
    return cast("BinaryIO", igzip.IGzipFile(fileobj=peekable, mode="rb"))


def lines_of(stream: BinaryIO) -> Iterator[Line]:
    r"""Read lines that end in ``\n``, ``\r\n`` or ``\r``. Byte-order marks are left out, also damaged ones.

    Raises
    ------
    UnreadableUpload
        The upload is not text, a damaged gzip file, or larger than `MAX_BYTES` or `MAX_LINES`.
    """
    for number, line in enumerate(_lines(_chunks(stream)), start=1):
        if number > MAX_LINES:
            raise UnreadableUpload(f"the file has more than {MAX_LINES} lines", _SMALLER)
        yield line


def _lines(chunks: Iterator[bytes]) -> Iterator[Line]:
    unfinished = b""
    dropping = False
    for chunk in chunks:
        lines = (unfinished + chunk).splitlines(keepends=True)
        # What does not end in \n may go on; \r may be the first half of \r\n.
        unfinished = lines.pop() if lines and not lines[-1].endswith(b"\n") else b""
        for line in lines:
            if dropping:
                dropping = False
            else:
                yield line if len(line) <= MAX_LINE_BYTES else None
        if len(unfinished) > MAX_LINE_BYTES and not dropping:
            dropping = True
            yield None
        if dropping:
            unfinished = b"\r" if unfinished.endswith(b"\r") else b""
    if unfinished and not dropping:
        yield unfinished


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    """Read a stream within the limits, after a look at how it begins; without byte-order marks, UTF-16 as UTF-8."""
    try:
        stream = _peekable(stream)
        utf_16 = None
        if stream.peek().startswith(_UTF_16):
            utf_16 = codecs.getincrementaldecoder("utf-16")()
        else:
            _check_text(stream.peek())
        size = 0
        while chunk := stream.read(_CHUNK):
            size += len(chunk)
            if size > MAX_BYTES:
                raise UnreadableUpload(f"the file holds more than {MAX_BYTES // 1024**2} MB", _SMALLER)
            text = utf_16.decode(chunk).encode() if utf_16 else chunk
            yield text if size > len(chunk) else _MARKS.sub(b"", text)
        if utf_16:
            utf_16.decode(b"", final=True)
    except UnicodeDecodeError:
        raise UnreadableUpload("the file is damaged text in UTF-16", _AS_TEXT) from None
    except EOFError:
        raise UnreadableUpload("the gzip file is cut off", "upload the whole file again") from None
    except _DAMAGED:
        raise UnreadableUpload("the gzip file is damaged", "make it anew and upload it again") from None


def _peekable(stream: BinaryIO) -> BufferedReader:
    """Let a stream be looked into: as far as a buffer goes, even where it comes in smaller pieces."""
    # A buffer is filled from a stream in one go; only another buffer gives all that it is asked for.
    return BufferedReader(BufferedReader(cast("RawIOBase", stream)))


def _check_text(beginning: bytes) -> None:
    """Look whether a file is text, by how it begins."""
    for magic, kind in _KINDS.items():
        if beginning.startswith(magic):
            raise UnreadableUpload(f"the file is {kind}, not plain text", _AS_TEXT)
    if len(beginning) - len(beginning.translate(None, _CONTROLS)) > len(beginning) // 20:
        raise UnreadableUpload("the file is binary, not text", _AS_TEXT)
