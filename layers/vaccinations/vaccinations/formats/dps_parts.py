"""The parts of a DPS file: gzip streams, joined from members that were compressed once (docs/dps-parts.md).

Rows are rendered and compressed when a batch is written, into *members* of a gzip file (`RowsWriter`). An export reads
the members of its batches (`read_members`) and joins them to parts as they are (`write_part`), so that it costs no more
than copying.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from isal import isal_zlib
from isal.igzip_lib import IsalError

from vaccinations.formats.dps_columns import HEADER
from vaccinations.model.export import PartFacts

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["MEMBER_CHARACTERS", "PART_BYTES", "Member", "Members", "RowsWriter", "read_members", "write_part"]

#: How large a part may become, compressed: MESH takes 100 MB at a time.
PART_BYTES = 80_000_000
#: So many characters of rows are compressed to a member; parts are cut between members.
MEMBER_CHARACTERS = 2**20
_BLOCK = 256 * 1024
#: How a gzip stream begins here: deflate, no name, no time, system unknown (RFC 1952).
_GZIP = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_TAIL = 10
#: isal's fastest level: a tenth more bytes than zlib's default in a tenth of the time.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Member:
    """Some rows, compressed so that they can stand anywhere in a gzip stream.

    Attributes
    ----------
    deflated
        A run of deflate blocks which refers to nothing before it, ends on a byte and does not end the stream (RFC
        1951; what zlib calls a full flush).
    text
        The rows themselves.
    rows
        How many they are.
    """

    deflated: bytes
    text: bytes
    rows: int

    def gzip(self) -> bytes:
        """Return the member as a gzip file of its own."""
        return _GZIP + self.deflated + _trailer(isal_zlib.crc32(self.text), len(self.text))


class RowsWriter:
    """Writes rows, as they come, to a gzip file of members: what `read_members` reads and `write_part` joins.

    Parameters
    ----------
    file
        Where to; it is the caller's to close.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._rows: list[str] = []
        self._characters = 0

    def write(self, row: str) -> None:
        """Add a row."""
        self._rows.append(row)
        self._characters += len(row)
        if self._characters >= MEMBER_CHARACTERS:
            self.finish()

    def finish(self) -> None:
        """Write what is left."""
        if self._rows:
            self._file.write(_compressed("".join(self._rows).encode(), len(self._rows)).gzip())
            self._rows.clear()
            self._characters = 0


def read_members(stream: BinaryIO) -> Iterator[Member]:
    """Read what `RowsWriter` wrote, one member at a time, each checked against its checksum.

    Raises
    ------
    EOFError
        The object is cut off.
    OSError
        It was not written by `RowsWriter`, or is damaged.
    """
    block = b""
    while block := block or stream.read(_BLOCK):
        inflate = isal_zlib.decompressobj(wbits=31)
        blocks, texts = [block], [_inflated(inflate, block)]
        while not inflate.eof:
            if not (block := stream.read(_BLOCK)):
                raise EOFError("the rows of a batch are cut off")
            blocks.append(block)
            texts.append(_inflated(inflate, block))
        block = inflate.unused_data
        gzip = b"".join(blocks)
        gzip = gzip[: len(gzip) - len(block)]
        text = b"".join(texts)
        member = Member(gzip[len(_GZIP) : -_TAIL], text, text.count(b"\n"))
        if member.gzip() != gzip:
            raise OSError("the rows of a batch are damaged, or were not written here")
        yield member


class Members:
    """The members of several batches, one after another, with a look at the next.

    Parameters
    ----------
    batches
        The members of each batch, from batch ``batch`` on.
    batch, member
        Where to begin, both counted from 0.

    Attributes
    ----------
    next
        The member that comes next; None at the end.
    place
        Where that is, so that another may go on there: the numbers of its batch and of itself in the batch.
    """

    next: Member | None
    place: tuple[int, int]

    def __init__(self, batches: Iterable[Iterable[Member]], batch: int = 0, member: int = 0) -> None:
        self.place = (batch, member)
        self._rest = (
            (found, (b, m))
            for b, members in enumerate(batches, batch)
            for m, found in enumerate(members)
            if (b, m) >= (batch, member)
        )
        self.advance()

    def advance(self) -> None:
        """Go on to the member after the next."""
        self.next, self.place = next(self._rest, (None, self.place))


def write_part(number: int, members: Members, file: BinaryIO, *, part_bytes: int = PART_BYTES) -> PartFacts:
    """Put members together to a part of a DPS file, as many as it holds, in one gzip stream.

    The parts, uncompressed and put together, are the DPS file: the header is in part 1 only. What is compressed is
    not compressed again: the members' streams are joined, as they are, to one.

    Parameters
    ----------
    number
        The part's, from 1.
    part_bytes
        How large the part may become, compressed. It holds at least one member, even if that alone is larger.
    """
    part = _Part(file)
    if number == 1:
        part.write(_compressed(HEADER, 0))
    rows = 0
    while members.next and (not rows or part.has_room(members.next, part_bytes)):
        part.write(members.next)
        rows += members.next.rows
        members.advance()
    part.close()
    return PartFacts(number, rows, part.size, part.sha256.hexdigest())


class _Part:
    """A part being written: one gzip stream, joined of members."""

    def __init__(self, file: BinaryIO) -> None:
        self.size = 0
        self.sha256 = hashlib.sha256()
        self._file = file
        self._crc = 0
        self._length = 0
        self._put(_GZIP)

    def has_room(self, member: Member, limit: int) -> bool:
        return self.size + len(member.deflated) + _TAIL <= limit

    def write(self, member: Member) -> None:
        self._put(member.deflated)
        self._crc = isal_zlib.crc32(member.text, self._crc)
        self._length += len(member.text)

    def close(self) -> None:
        self._put(_trailer(self._crc, self._length))

    def _put(self, compressed: bytes) -> None:
        self._file.write(compressed)
        self.sha256.update(compressed)
        self.size += len(compressed)


def _inflated(inflate: Any, block: bytes) -> bytes:
    try:
        text: bytes = inflate.decompress(block)
    except cast("type[Exception]", IsalError):
        raise OSError("the rows of a batch are damaged") from None
    return text


def _compressed(text: bytes, rows: int) -> Member:
    compressor = isal_zlib.compressobj(_LEVEL, wbits=-15)
    return Member(compressor.compress(text) + compressor.flush(isal_zlib.Z_FULL_FLUSH), text, rows)


def _trailer(crc: int, length: int) -> bytes:
    """End a gzip stream: with an empty last block, the checksum and the length (RFC 1952)."""
    return b"\x03\x00" + struct.pack("<II", crc, length % 2**32)
