"""However a body is cut, its parts make up the body, and none is over the limit."""

from __future__ import annotations

import gzip
import io
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhs_mesh.client import _cut, _reader

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

SMALLEST = 128


def incompressible(size: int) -> bytes:
    return random.Random(size).randbytes(size)


bodies = st.one_of(
    st.binary(max_size=2000),
    st.integers(0, 30_000).map(incompressible),
    st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 3000)).map(lambda made: made[0] * made[1]),
    st.tuples(st.integers(0, 5000), st.integers(0, 50_000)).map(lambda made: incompressible(made[0]) + bytes(made[1])),
)


def parts_of(body: BinaryIO | bytes | Iterable[bytes], *, limit: int, compress: bool) -> list[bytes]:
    with tempfile.TemporaryDirectory() as folder:
        return [file.read_bytes() for file in _cut(_reader(body), Path(folder), compress=compress, limit=limit)]


@settings(max_examples=150, deadline=None)
@given(bodies, st.integers(SMALLEST, 40_000))
def test_compressed_parts_each_unpack_and_make_up_the_body(body: bytes, limit: int) -> None:
    parts = parts_of(body, limit=limit, compress=True)
    assert b"".join(map(gzip.decompress, parts)) == body
    assert max(map(len, parts)) <= limit


@settings(max_examples=100, deadline=None)
@given(bodies, st.integers(SMALLEST, 40_000))
def test_plain_parts_make_up_the_body_and_are_as_few_as_can_be(body: bytes, limit: int) -> None:
    parts = parts_of(body, limit=limit, compress=False)
    assert b"".join(parts) == body
    assert max(map(len, parts)) <= limit
    assert len(parts) == max(1, -(-len(body) // limit))


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(SMALLEST, 400), st.booleans())
def test_an_iterable_may_yield_nothing_in_between(blocks: list[bytes], limit: int, compress: bool) -> None:
    parts = parts_of(blocks, limit=limit, compress=compress)
    unpacked = map(gzip.decompress, parts) if compress else parts
    assert b"".join(unpacked) == b"".join(blocks)


@pytest.mark.parametrize("compress", [True, False])
def test_files_bytes_and_views_are_cut_alike(compress: bool) -> None:
    body = b"some text, " * 1000
    given_as: list[Any] = [body, bytearray(body), memoryview(body), io.BytesIO(body), [body]]
    cut = [parts_of(each, limit=500, compress=compress) for each in given_as]
    assert all(parts == cut[0] for parts in cut)


def test_an_empty_body_is_one_part() -> None:
    assert parts_of(b"", limit=SMALLEST, compress=False) == [b""]
    assert [gzip.decompress(part) for part in parts_of(b"", limit=SMALLEST, compress=True)] == [b""]


@pytest.mark.parametrize("size", [3_000_000, 5_000_000])
def test_large_parts_come_close_to_the_limit(size: int) -> None:
    body = incompressible(size)
    parts = parts_of(body, limit=2_000_000, compress=True)
    assert b"".join(map(gzip.decompress, parts)) == body
    assert all(1_900_000 < len(part) <= 2_000_000 for part in parts[:-1])
