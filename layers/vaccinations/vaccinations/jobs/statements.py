"""Batch lines at hand: what was last stated of records, found by batch and line, however many are asked for.

A withdrawal repeats a record's last statement, and a correction is compared with it. A file of either may name many
records of one batch, in any order. So each batch is read once, and its lines are kept on disk in small compressed
blocks.
"""

from __future__ import annotations

import os
from array import array
from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING

import orjson
from isal import igzip

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

__all__ = ["Statements"]

#: So many lines are compressed together.
_BLOCK = 32


class Statements:
    """The lines of batches, in one file.

    Parameters
    ----------
    path
        Where the file is put; the caller removes it.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("w+b", buffering=0)
        self._end = 0
        self._batches: defaultdict[tuple[str, str], _Batch] = defaultdict(_Batch)

    def __contains__(self, batch: tuple[str, str]) -> bool:
        return batch in self._batches

    def add(self, batch: tuple[str, str], lines: Iterable[bytes]) -> None:
        """Add lines to a batch (its programme and id), in the order of the upload's lines that they came from."""
        into = self._batches[batch]
        for line in lines:
            into.waiting.append(line)
            if len(into.waiting) == _BLOCK:
                self._write(into)

    def find(self, batch: tuple[str, str], places: dict[str, int]) -> dict[str, bytes]:
        """Return the lines of a batch that state records.

        Parameters
        ----------
        places
            The upload's line that each record's statement came from.

        Raises
        ------
        LookupError
            The batch lacks one of them.
        """
        of_batch = self._batches[batch]
        self._write(of_batch)
        blocks: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
        for record_id, line in places.items():
            blocks[of_batch.block_of(line)].append((record_id, line))
        return {
            record_id: _line(block, record_id, line)
            for number in sorted(blocks)
            for block in (self._read(of_batch, number),)
            for record_id, line in blocks[number]
        }

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, batch: _Batch) -> None:
        """Write the lines that wait as a block."""
        if batch.waiting:
            block = igzip.compress(b"".join(batch.waiting), 1)
            batch.first.append(orjson.loads(batch.waiting[0])["line"])
            batch.offset.append(self._end)
            batch.size.append(self._file.write(block))
            self._end += len(block)
            batch.waiting.clear()

    def _read(self, batch: _Batch, number: int) -> bytes:
        stored = os.pread(self._file.fileno(), batch.size[number], batch.offset[number])
        block: bytes = igzip.decompress(stored)
        return block


class _Batch:
    """Where a batch's blocks are: the upload's line that each begins with, its offset and size in the file."""

    def __init__(self) -> None:
        self.first = array("Q")
        self.offset = array("Q")
        self.size = array("Q")
        self.waiting: list[bytes] = []

    def block_of(self, line: int) -> int:
        """Return the block that a line is in, if it is in any.

        Raises
        ------
        LookupError
            It comes before the first.
        """
        block = bisect_right(self.first, line) - 1
        if block < 0:
            raise _lacks()
        return block


def _line(block: bytes, record_id: str, line: int) -> bytes:
    """Return the line of a block that states a record."""
    # To read each line as JSON would take most of the time. In a text of JSON's no quote stands without a backslash.
    # But a line may also hold from which line an earlier statement came.
    place = -1
    while (place := block.find(b'"line":%d,' % line, place + 1)) >= 0:
        found = block[block.rfind(b"\n", 0, place) + 1 : block.find(b"\n", place) + 1]
        fields = orjson.loads(found)
        if (fields["uuid"], fields["line"]) == (record_id, line):
            return found
    raise _lacks()


def _lacks() -> LookupError:
    return LookupError("a batch lacks a record that the register knows")
