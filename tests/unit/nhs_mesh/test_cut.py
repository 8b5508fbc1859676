"""However a body is cut, its parts make it up, none is over the limit, and it is always cut at the same places."""

from __future__ import annotations

import gzip
import io
import os
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nhs_mesh import CHUNK_SIZE, ConfigurationError, Resume
from nhs_mesh.parts import Body

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from nhs_mesh import Part

SMALLEST = 128


def incompressible(size: int) -> bytes:
    return random.Random(size).randbytes(size)


bodies = st.one_of(
    st.binary(max_size=2000),
    st.integers(0, 30_000).map(incompressible),
    st.tuples(st.binary(min_size=1, max_size=20), st.integers(1, 3000)).map(lambda made: made[0] * made[1]),
    st.tuples(st.integers(0, 5000), st.integers(0, 50_000)).map(lambda made: incompressible(made[0]) + bytes(made[1])),
)


def read(part: Part) -> bytes:
    """Read a part as it goes out, twice, since it may have to be sent again."""
    read = []
    for _ in range(2):
        body = part.open()
        read.append(b"".join(iter(lambda: body.read(1000), b"")))  # noqa: B023 - read at once
        body.close()
    assert read[0] == read[1]
    assert len(read[0]) == part.size
    return read[0]


def parts_of(body: BinaryIO | bytes | Iterable[bytes], *, limit: int, compress: bool) -> list[bytes]:
    with Body.of(body) as whole:
        count = whole.cut(compress=compress, chunk_size=limit)
        return [read(whole.part(number, None)) for number in range(1, count + 1)]


@settings(max_examples=150, deadline=None)
@given(bodies, st.integers(SMALLEST, 40_000))
def test_compressed_parts_each_unpack_and_make_up_the_body(body: bytes, limit: int) -> None:
    parts = parts_of(body, limit=limit, compress=True)
    assert b"".join(map(gzip.decompress, parts)) == body
    assert max(map(len, parts)) <= limit


@settings(max_examples=100, deadline=None)
@given(bodies, st.integers(SMALLEST, 40_000))
def test_a_body_that_fits_into_one_part_is_one(body: bytes, limit: int) -> None:
    assert len(parts_of(body, limit=max(limit, len(body)), compress=False)) == 1
    packed = parts_of(body, limit=CHUNK_SIZE, compress=True)
    assert len(parts_of(body, limit=max(limit, len(packed[0])), compress=True)) == 1


@settings(max_examples=100, deadline=None)
@given(bodies, st.integers(SMALLEST, 40_000))
def test_plain_parts_make_up_the_body_and_are_as_few_as_can_be(body: bytes, limit: int) -> None:
    parts = parts_of(body, limit=limit, compress=False)
    assert b"".join(parts) == body
    assert max(map(len, parts)) <= limit
    assert len(parts) == max(1, -(-len(body) // limit))


@settings(max_examples=50, deadline=None)
@given(bodies, st.integers(SMALLEST, 10_000), st.booleans())
def test_the_places_of_the_cuts_do_not_depend_on_what_is_in_the_body(body: bytes, limit: int, compress: bool) -> None:
    parts = parts_of(body, limit=limit, compress=compress)
    other = parts_of(incompressible(len(body)), limit=limit, compress=compress)
    if len(parts) > 1:
        unpacked = [[len(gzip.decompress(part)) for part in each] if compress else each for each in (parts, other)]
        assert [len(part) if isinstance(part, bytes) else part for part in unpacked[0]] == [
            len(part) if isinstance(part, bytes) else part for part in unpacked[1]
        ]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=50), max_size=40), st.integers(SMALLEST, 400), st.booleans())
def test_an_iterable_may_yield_nothing_in_between(blocks: list[bytes], limit: int, compress: bool) -> None:
    parts = parts_of(blocks, limit=limit, compress=compress)
    unpacked = map(gzip.decompress, parts) if compress else parts
    assert b"".join(unpacked) == b"".join(blocks)


class Pipe(io.RawIOBase):
    """A file that can be read only once."""

    def __init__(self, body: bytes) -> None:
        self._body = io.BytesIO(body)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._body.readinto(buffer)


@pytest.mark.parametrize("compress", [True, False])
def test_files_pipes_bytes_and_views_are_cut_alike(compress: bool) -> None:
    body = b"some text, " * 1000
    begun = io.BytesIO(b"not this" + body)
    begun.seek(8)
    given_as: list[Any] = [body, bytearray(body), memoryview(body), io.BytesIO(body), [body], Pipe(body), begun]
    cut = [parts_of(each, limit=500, compress=compress) for each in given_as]
    assert all(parts == cut[0] for parts in cut)


def test_an_empty_body_is_one_part() -> None:
    assert parts_of(b"", limit=SMALLEST, compress=False) == [b""]
    assert [gzip.decompress(part) for part in parts_of(b"", limit=SMALLEST, compress=True)] == [b""]


# -- going on


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("number", [2, 3, 5])
def test_a_body_goes_on_with_the_very_parts_that_are_missing(compress: bool, number: int) -> None:
    body = incompressible(4_500)
    with Body.of(body) as whole:
        assert whole.cut(compress=compress, chunk_size=1_000) == 5
        before = [read(whole.part(each, None)) for each in range(1, 6)]
        resume = whole.resume("MESSAGE", number)
    assert resume
    with Body.of([body[:7], body[7:]]) as again:
        again.cut_again(Resume.parse(str(resume)))
        assert [read(again.part(each, None)) for each in range(number, 6)] == before[number - 1 :]


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(b"X" + incompressible(4_500)[1:], id="of another beginning"),
        pytest.param(incompressible(4_500)[:-1] + b"X", id="of another end"),
        pytest.param(incompressible(4_500)[:-1_000], id="that is shorter"),
        pytest.param(incompressible(4_500) + bytes(1_000), id="that is longer"),
        pytest.param(b"", id="that is empty"),
    ],
)
def test_another_body_cannot_go_on(other: bytes) -> None:
    with Body.of(incompressible(4_500)) as whole:
        whole.cut(compress=False, chunk_size=1_000)
        resume = whole.resume("MESSAGE", 3)
    assert resume
    with Body.of(other) as again, pytest.raises(ConfigurationError, match="not the one that MESH has"):
        again.cut_again(resume)


def test_a_file_that_was_changed_while_it_was_sent_cannot_go_on(tmp_path: Path) -> None:
    file = tmp_path / "body"
    file.write_bytes(incompressible(4_500))
    with file.open("rb") as opened, Body.of(opened) as whole:
        whole.cut(compress=False, chunk_size=1_000)
        assert whole.resume("MESSAGE", 2)
        file.write_bytes(bytes(4_501))
        assert whole.resume("MESSAGE", 2) is None


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file that was last changed long ago."""
    made = tmp_path / "body"
    made.write_bytes(incompressible(4_500))
    os.utime(made, (0, 0))
    return made


@pytest.mark.parametrize("chunk_size", [1_000, 10_000])
def test_a_file_that_became_shorter_is_not_compressed_for_whole(file: Path, chunk_size: int) -> None:
    def compressed(whole: Body) -> bytes:
        parts = whole.cut(compress=True, chunk_size=chunk_size)
        return b"".join(gzip.decompress(read(whole.part(number, None))) for number in range(1, parts + 1))

    with file.open("rb", buffering=0) as opened, Body.of(opened) as whole:
        os.truncate(file, 500)
        with pytest.raises(ConfigurationError, match="4000 bytes shorter"):
            compressed(whole)


@pytest.mark.parametrize("compress", [True, False])
def test_no_part_goes_of_a_file_that_was_rewritten_after_the_first(file: Path, compress: bool) -> None:
    with file.open("rb", buffering=0) as opened, Body.of(opened) as whole:
        assert whole.cut(compress=compress, chunk_size=1_000) == 5
        read(whole.part(1, None))
        file.write_bytes(bytes(4_500))
        with pytest.raises(ConfigurationError, match="changed"):
            read(whole.part(2, None))


def test_a_part_never_goes_whole_of_a_file_that_is_rewritten_as_it_is_read(file: Path) -> None:
    with file.open("rb", buffering=0) as opened, Body.of(opened) as whole:
        assert whole.cut(compress=False, chunk_size=1_000) == 5
        part = whole.part(5, None).open()
        assert part.read(300)
        file.write_bytes(bytes(4_500))
        with pytest.raises(ConfigurationError, match="changed"):
            part.read(1_000)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "MESSAGE:2:3:1000",
        f"MESSAGE:2:3:{'9' * 5000}:{'0' * 64}:gzip",
        f"MESSAGE:2:3:1000:{'0' * 63}:gzip",
        f"MESSAGE:2:3:1000:{'0' * 64}:zip",
    ],
)
def test_what_does_not_say_where_to_go_on_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="does not say where"):
        Resume.parse(text)


@pytest.mark.parametrize(("part", "parts", "offset"), [(1, 5, 0), (6, 5, 1000), (2, 5, 0), (3, 5, 1001), (0, 5, 1000)])
def test_a_place_that_no_send_got_stuck_at_is_refused(part: int, parts: int, offset: int) -> None:
    with Body.of(bytes(5_000)) as whole, pytest.raises(ConfigurationError, match="does not say where"):
        whole.cut_again(Resume("MESSAGE", part, parts, offset, "0" * 64, compress=False))
