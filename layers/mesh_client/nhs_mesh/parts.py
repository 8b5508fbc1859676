"""What goes out: a body of any size, cut into the parts that MESH takes.

A body that fits into one request goes in one, since some receivers cannot take more. A larger one is cut at fixed
offsets, before it is compressed, so that the same body is always cut at the same places
(docs/mesh-protocol.md, "Message size").
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zlib
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Self, cast

from nhs_mesh.errors import ConfigurationError, Resume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["CHUNK_SIZE", "Body", "Part", "SentMessage"]

#: One request carries at most 100 MB after compression (docs/mesh-protocol.md, "Message size").
CHUNK_SIZE = 100_000_000
_BLOCK = 1 << 20
_LEVEL = 6
#: A part of at most so many bytes stays in memory when it is compressed; a larger one goes into a temporary file.
_IN_MEMORY = 1 << 20
_SMALLEST_CHUNK = 128


@dataclass(frozen=True, slots=True)
class Part:
    """A body to be sent: the whole message, or one chunk of it.

    Attributes
    ----------
    open
        Opens the body from its beginning; called once a try.
    size
        How many bytes go over the wire.
    content_encoding
        ``gzip`` where the bytes are compressed.
    """

    open: Callable[[], BinaryIO]
    size: int
    content_encoding: str | None = None


@dataclass(frozen=True, slots=True)
class SentMessage:
    """What MESH made of a message that was sent.

    Attributes
    ----------
    message_id
        MESH's id of it.
    parts
        How many parts it has.
    local_id
        The id that the sender gave it, or that was made up. None where a send was resumed, which tells of none.
    """

    message_id: str
    parts: int
    local_id: str | None = None


class Body:
    """A body as a file that can be read again, and how it is cut.

    Attributes
    ----------
    size
        Its bytes.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = file.tell()
        self.size = file.seek(0, io.SEEK_END) - self._start
        self._state = self._look()
        self._step = self.size
        self._packed: Part | None = None
        self._compressed = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - see close
        self._compress = False
        self._parts = 1

    @classmethod
    @contextmanager
    def of(cls, body: BinaryIO | bytes | Iterable[bytes]) -> Iterator[Self]:
        """Make one of whatever holds bytes. What can be read only once is copied to a temporary file first."""
        with ExitStack() as stack:
            if isinstance(body, (bytes, bytearray, memoryview)):
                file = cast("BinaryIO", io.BytesIO(body))
            elif hasattr(body, "seekable") and body.seekable():
                file = cast("BinaryIO", body)
            else:
                file = cast("BinaryIO", stack.enter_context(tempfile.TemporaryFile()))
                read = getattr(body, "read", None)
                for block in iter(lambda: read(_BLOCK), b"") if read else iter(body):
                    file.write(block)
                file.seek(0)
            whole = cls(file)
            stack.callback(whole.close)
            yield whole

    def close(self) -> None:
        """Remove what was compressed. The body itself stays open."""
        self._compressed.close()

    def cut(self, *, compress: bool, chunk_size: int) -> int:
        """Decide where it is cut; return how many parts it makes.

        Raises
        ------
        ConfigurationError
            MESH or gzip cannot have parts of that size.
        """
        if not _SMALLEST_CHUNK <= chunk_size <= CHUNK_SIZE:
            raise ConfigurationError(f"a part must have {_SMALLEST_CHUNK} to {CHUNK_SIZE} bytes")
        self._compress = compress
        # What cannot be compressed becomes a little larger by it.
        step = chunk_size - chunk_size // 1000 - 64 if compress else chunk_size
        if compress and self.size > step:
            self._packed = self._pack(0, self.size, limit=chunk_size)
        self._step = self.size if self._packed else step
        self._parts = 1 if self._packed else max(1, -(-self.size // step))
        return self._parts

    def cut_again(self, resume: Resume) -> None:
        """Decide that it is cut as it was before.

        Raises
        ------
        ConfigurationError
            It is not the body of which MESH has the first parts.
        """
        self._compress, self._parts = resume.compress, resume.parts
        if not 2 <= resume.part <= resume.parts or resume.offset % (resume.part - 1) or not resume.offset:
            raise ConfigurationError("this does not say where a send goes on")
        self._step = resume.offset // (resume.part - 1)
        if -(-self.size // self._step) != resume.parts or self._digest() != resume.digest:
            raise ConfigurationError("the body is not the one that MESH has the first parts of; send it anew")

    def part(self, number: int, progress: Callable[[int], None] | None) -> Part:
        """Make a part.

        Parameters
        ----------
        number
            From 1.
        progress
            Called with how many bytes of the body have gone.

        Raises
        ------
        ConfigurationError
            The body has changed since it was cut; also raised as the part is read, before its last block goes.
        """
        start = (number - 1) * self._step
        size = min(self._step, self.size - start)
        part = self._packed or (self._pack(start, size) if self._compress else self._slice(start, size))
        if part is None or not progress:
            return part or self._slice(start, size)
        return Part(lambda: cast("BinaryIO", _Told(part, start, size, progress)), part.size, part.content_encoding)

    def resume(self, message_id: str, number: int) -> Resume | None:
        """Say where the send goes on, unless the body has changed since."""
        try:
            digest = self._digest()
            self._check()
        except (OSError, ConfigurationError):
            return None
        return Resume(message_id, number, self._parts, (number - 1) * self._step, digest, self._compress)

    def _check(self) -> None:
        if self._look() != self._state:
            raise ConfigurationError("the body changed while it was sent; send it anew")

    def _look(self) -> tuple[int, int] | None:
        """Look at what shows that a file was changed."""
        try:
            stat = os.fstat(self._file.fileno())
        except (OSError, AttributeError):
            return None
        return stat.st_size, stat.st_mtime_ns

    def _blocks(self, start: int, size: int) -> Iterator[bytes]:
        self._file.seek(self._start + start)
        while size:
            if not (block := self._file.read(min(_BLOCK, size))):
                raise ConfigurationError(f"the body became {size} bytes shorter while it was sent; send it anew")
            size -= len(block)
            yield block
        self._check()

    def _digest(self) -> str:
        digest = hashlib.sha256()
        for block in self._blocks(0, self.size):
            digest.update(block)
        return digest.hexdigest()

    def _slice(self, start: int, size: int) -> Part:
        return Part(lambda: cast("BinaryIO", _Slice(self._file, self._start + start, size, self._check)), size)

    def _pack(self, start: int, size: int, *, limit: int | None = None) -> Part | None:
        """Compress a piece of the body, in the place of the one before; return None where it is over the limit."""
        self._compressed.close()
        self._compressed = packed = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY)  # noqa: SIM115 - see close
        packer = zlib.compressobj(_LEVEL, wbits=31)
        for block in self._blocks(start, size):
            packed.write(packer.compress(block))
            if limit and packed.tell() > limit:
                return None
        packed.write(packer.flush())
        written = packed.tell()
        if limit and written > limit:
            return None
        return Part(lambda: cast("BinaryIO", _Slice(cast("BinaryIO", packed), 0, written, _unchanged)), written, "gzip")


def _unchanged() -> None:
    """Take what was compressed as it is: nobody else can change it."""


class _Slice:
    """So many bytes of a file, which stays open, and which is checked once the last of them are read."""

    def __init__(self, file: BinaryIO, start: int, size: int, check: Callable[[], None]) -> None:
        self._file = file
        self._left = size
        self._check = check
        file.seek(start)

    def read(self, size: int = -1) -> bytes:
        block = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(block)
        if not self._left:
            self._check()
        return block

    def close(self) -> None:
        """Leave the file open: it is read again for the next try, or the next part."""


class _Told:
    """A part that tells how far it was read, in bytes of the body that it was made of."""

    def __init__(self, part: Part, start: int, size: int, progress: Callable[[int], None]) -> None:
        self._body = part.open()
        self._wire = part.size
        self._read = 0
        self._start, self._size, self._progress = start, size, progress

    def read(self, size: int = -1) -> bytes:
        block = self._body.read(size)
        self._read += len(block)
        if block:
            self._progress(self._start + self._size * self._read // self._wire)
        return block

    def close(self) -> None:
        self._body.close()
