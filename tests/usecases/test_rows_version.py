"""What a change of columns promises: no file has rows of an earlier release, or of two kinds (docs/dps-parts.md)."""

from __future__ import annotations

import gzip
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.formats.dps_columns import render_row
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.export import ExportRequest
from vaccinations.model.export import Status

if TYPE_CHECKING:
    from tests.usecases.world import World

PART_1 = "exports/hpv/1/part-0001.csv.gz"


def earlier_release(patch: pytest.MonkeyPatch) -> None:
    """Let rows look as an earlier release made them look."""
    for module in ("aws.bucket", "jobs.render"):
        patch.setattr(f"vaccinations.{module}.ROWS_VERSION", 0)
    for module in ("jobs.spool", "jobs.render"):
        patch.setattr(f"vaccinations.{module}.render_row", lambda line: f'"earlier"|{render_row(line)}')


def arrived(world: World) -> list[str]:
    [(_, rows)] = world.inbox()
    return [r["UNIQUE_ID"] for r in rows]


def test_rows_that_an_earlier_release_stored_are_rendered_anew(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        earlier_release(patch)
        world.upload(upload_of(row(1), row(2)))
    world.upload(upload_of(row(3)), name="later.csv")
    world.export()
    assert arrived(world) == [uuid_of(n) for n in (1, 2, 3)]


def test_a_file_that_an_earlier_release_began_is_made_anew_so_that_its_rows_are_alike(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=2_000))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", 2_000)
    with pytest.MonkeyPatch.context() as patch:
        earlier_release(patch)
        world.upload(upload_of(*map(row, range(200))))
        world.export_use_case(seconds_left=lambda: 1.0).run(ExportRequest())
    assert b'"earlier"|' in gzip.decompress(world.object(PART_1))
    world.export()
    assert arrived(world) == [uuid_of(n) for n in range(200)]


def test_a_file_whose_parts_are_all_made_is_sent_as_it_is(world: World) -> None:
    """MESH may have a part of it already."""
    with pytest.MonkeyPatch.context() as patch:
        earlier_release(patch)
        world.upload(upload_of(row(1)))
        world.export_use_case(seconds_left=lambda: 1.0).run(ExportRequest())
    before = world.object(PART_1)
    world.export()
    assert world.ledger.get("hpv", 1).status is Status.ACCEPTED
    assert world.object(PART_1) == before
