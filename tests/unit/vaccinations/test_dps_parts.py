"""What the parts of a DPS file promise: put together they are the file, and nothing is compressed twice."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import random
import zlib
from typing import TYPE_CHECKING

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vaccinations.formats.dps_parts
from local.sample import make_batch_lines
from vaccinations.formats.dps_columns import HEADER, render_row
from vaccinations.formats.dps_parts import Members, RowsWriter, read_members, write_part

if TYPE_CHECKING:
    from collections.abc import Iterable

    from vaccinations.model.export import PartFacts


def rows_file(lines: Iterable[bytes]) -> io.BytesIO:
    """Write the rows of a batch, as they are stored."""
    file = io.BytesIO()
    writer = RowsWriter(file)
    for text in lines:
        writer.write(render_row(text))
    writer.finish()
    file.seek(0)
    return file


def written(*batches: Iterable[bytes], **options: int) -> tuple[list[PartFacts], list[bytes]]:
    """Make a DPS file of batches; return its parts, and what is known of each."""
    members = Members(map(read_members, map(rows_file, batches)))
    facts: list[PartFacts] = []
    bodies: list[bytes] = []
    while members.next or not facts:
        body = io.BytesIO()
        facts.append(write_part(len(facts) + 1, members, body, **options))
        bodies.append(body.getvalue())
    return facts, bodies


@pytest.fixture
def small_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a member hold few rows."""
    monkeypatch.setattr(vaccinations.formats.dps_parts, "MEMBER_CHARACTERS", 3_000)


def noise(count: int, seed: int) -> list[bytes]:
    """Make batch lines that hardly compress."""
    chance = random.Random(seed)
    lines = []
    for fields in map(orjson.loads, itertools.islice(make_batch_lines(count), count)):
        fields["forename"] = "".join(chr(chance.randrange(0x4E00, 0x9FFF)) for _ in range(chance.randrange(180)))
        fields["batch_number"] = f"{chance.getrandbits(400):x}"
        lines.append(orjson.dumps(fields) + b"\n")
    return lines


@pytest.mark.usefixtures("small_members")
@pytest.mark.parametrize("part_bytes", [6_000, 12_000, 30_000, 200_000, 80_000_000])
@pytest.mark.parametrize("kind", ["alike", "noise"])
def test_parts_put_together_are_the_file_and_none_is_too_large(part_bytes: int, kind: str) -> None:
    lines = list(make_batch_lines(1500)) if kind == "alike" else noise(400, 7)
    facts, bodies = written(lines[:100], lines[100:], part_bytes=part_bytes)
    assert [fact.number for fact in facts] == list(range(1, len(facts) + 1))
    assert max(map(len, bodies)) <= part_bytes
    assert b"".join(map(gzip.decompress, bodies)) == HEADER + "".join(map(render_row, lines)).encode()
    assert sum(fact.rows for fact in facts) == len(lines)
    assert [fact.size for fact in facts] == [len(body) for body in bodies]
    assert [fact.sha256 for fact in facts] == [hashlib.sha256(body).hexdigest() for body in bodies]
    if part_bytes <= 30_000:
        assert len(facts) > 1


@pytest.mark.usefixtures("small_members")
def test_a_part_is_one_gzip_stream_since_some_receivers_read_no_further_than_the_first() -> None:
    _, bodies = written(make_batch_lines(400), make_batch_lines(300), part_bytes=20_000)
    for body in bodies:
        stream = zlib.decompressobj(wbits=31)
        assert stream.decompress(body)
        assert (stream.eof, stream.unused_data) == (True, b"")


@pytest.mark.usefixtures("small_members")
def test_every_part_ends_at_the_end_of_a_row_and_counts_its_rows() -> None:
    facts, bodies = written(make_batch_lines(2000), part_bytes=20_000)
    for fact, body in zip(facts, bodies, strict=True):
        text = gzip.decompress(body)
        assert text.endswith(b'"\n')
        assert text.count(b"\n") == fact.rows + (fact.number == 1)


def test_parts_are_about_as_large_as_they_may_be() -> None:
    facts, _ = written(make_batch_lines(24_000), part_bytes=600_000)
    assert len(facts) > 2
    assert all(fact.size > 520_000 for fact in facts[:-1])


def test_rendering_twice_makes_the_same_bytes() -> None:
    assert written(make_batch_lines(3000)) == written(make_batch_lines(3000))


@pytest.mark.usefixtures("small_members")
def test_going_on_at_a_place_makes_the_same_parts() -> None:
    batches = [list(make_batch_lines(n)) for n in (200, 1, 300)]
    facts, bodies = written(*batches, part_bytes=6_000)
    assert len(facts) > 4
    place, before = (0, 0), 0
    for fact, body in zip(facts, bodies, strict=True):
        members = Members((read_members(rows_file(batch)) for batch in batches[place[0] :]), *place)
        again = io.BytesIO()
        assert write_part(fact.number, members, again, part_bytes=6_000) == fact
        assert again.getvalue() == body
        place, before = members.place, before + fact.rows
    assert before == 501


def test_a_member_too_large_for_any_part_still_goes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vaccinations.formats.dps_parts, "MEMBER_CHARACTERS", 1)
    facts, bodies = written(noise(3, 1), part_bytes=100)
    assert [fact.rows for fact in facts] == [1, 1, 1]
    assert len(bodies) == 3


def test_no_records_make_one_part_with_the_header_alone() -> None:
    (fact,), (body,) = written([])
    assert fact.rows == 0
    assert gzip.decompress(body) == HEADER


def test_rows_are_read_one_member_after_another_not_held() -> None:
    file = rows_file(make_batch_lines(20_000))
    members = Members([read_members(file)])
    write_part(1, members, io.BytesIO(), part_bytes=200_000)
    assert file.tell() < len(file.getvalue()) / 2


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_cut_off_rows_are_never_taken_for_whole_ones(cut: int) -> None:
    with pytest.raises(EOFError):
        list(read_members(io.BytesIO(rows_file(make_batch_lines(300)).getvalue()[:-cut])))


@pytest.mark.parametrize("place", [0, 5, 12, 40, 5_000, -9, -6, -1])
def test_damaged_rows_are_noticed(place: int) -> None:
    body = bytearray(rows_file(make_batch_lines(300)).getvalue())
    body[place] ^= 1
    with pytest.raises((OSError, EOFError)):
        list(read_members(io.BytesIO(bytes(body))))


def test_rows_that_another_program_has_compressed_are_not_joined() -> None:
    text = "".join(map(render_row, make_batch_lines(300))).encode()
    with pytest.raises(OSError, match="not written here"):
        list(read_members(io.BytesIO(gzip.compress(text))))


@given(st.lists(st.integers(0, 20), max_size=4), st.integers(1_500, 20_000), st.integers(0, 10**6))
def test_any_records_in_parts_of_any_size_come_out_whole(counts: list[int], part_bytes: int, seed: int) -> None:
    batches = [noise(count, seed) for count in counts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vaccinations.formats.dps_parts, "MEMBER_CHARACTERS", 2_000)
        facts, bodies = written(*batches, part_bytes=part_bytes)
    whole = b"".join(map(gzip.decompress, bodies))
    assert whole == HEADER + "".join(render_row(text) for batch in batches for text in batch).encode()
    assert all(fact.size <= part_bytes or fact.rows <= 5 for fact in facts)
