"""Make the parts of an export's DPS file, once, and keep them in the bucket: the very bytes that MESH gets.

Rows were rendered and compressed when their batch was written (docs/dps-parts.md), so that making a part is copying.
After each part the manifest says where the next begins, so that another run can go on there.
"""

from __future__ import annotations

import tempfile
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, BinaryIO, cast

from vaccinations.formats.dps_columns import ROWS_VERSION, render_row
from vaccinations.formats.dps_parts import Members, RowsWriter, read_members, write_part
from vaccinations.model.export import Manifest
from vaccinations.prefetch import prefetch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from vaccinations.formats.dps_parts import Member
    from vaccinations.model.export import DPSExport
    from vaccinations.ports import Bucket

__all__ = ["RenderMismatch", "Renderer", "RunTime"]

#: A part is begun only while at least this much of the function's time is left: enough to send 80 MB and say so.
SECONDS_FOR_A_PART = 60.0
#: So many batches of an export are opened before they are needed.
_BATCHES_OPEN = 4
#: Parts are sent from the disk where this run has made them, so many of them; the others from the bucket.
_PARTS_KEPT = 10


class RenderMismatch(Exception):
    """The batches of an export do not hold what the ledger says; nothing of that was sent."""


@dataclass(slots=True)
class RunTime:
    """How long a run may still begin new parts. It does at least one step, so that every run gets on.

    Attributes
    ----------
    seconds_left
        Tells how many seconds the function may still run.
    """

    seconds_left: Callable[[], float]
    _done: bool = False

    def step_done(self) -> None:
        """Note that this run has got something done."""
        self._done = True

    def is_up(self) -> bool:
        """Tell whether no further part is to be begun."""
        return self._done and self.seconds_left() < SECONDS_FOR_A_PART


@dataclass(frozen=True, slots=True)
class Renderer:
    """Makes the parts of one export.

    Attributes
    ----------
    export
        The export, with its batches.
    files
        A folder in which this run keeps the parts that it has made.
    ensure_lease
        Raises where the run does not hold the export's lease any more.
    """

    export: DPSExport
    bucket: Bucket
    files: Path
    time: RunTime
    ensure_lease: Callable[[], None]

    def manifest(self) -> Manifest:
        """Return the export's manifest, after making what parts there are not yet, as far as the time allows.

        Raises
        ------
        RenderMismatch
            The parts do not hold exactly the export's records, or are not those that MESH was told of.
        """
        export = self.export
        manifest = self.bucket.manifest(export.programme, export.number)
        begun = Manifest(export.export_id, ROWS_VERSION, export.batches, export.names)
        if manifest is None or (manifest.next and not _goes_on(manifest, begun)):
            manifest = begun
        elif len(manifest.names) < len(export.names):
            manifest = replace(manifest, names=export.names)
            if manifest.complete:
                self.ensure_lease()
                self.bucket.put_manifest(export.programme, export.number, manifest)
        if manifest.next:
            manifest = self._make_parts(manifest, manifest.next)
        if manifest.complete:
            self._check_records(manifest)
            if export.parts and export.parts != len(manifest.parts):
                raise RenderMismatch(f"{export.export_id}: begun in {export.parts} parts, now {len(manifest.parts)}")
        return manifest

    def open_part(self, number: int) -> BinaryIO:
        """Open a part as this run has made it, or else as it is in the bucket."""
        made = self.files / str(number)
        if made.exists():
            return made.open("rb")
        return self.bucket.open_part(self.export.programme, self.export.number, number)

    def _make_parts(self, manifest: Manifest, place: tuple[int, int]) -> Manifest:
        """Make the parts from a place on, each of them stored and noted before the next is begun."""
        export = self.export
        batches = export.batches[place[0] :]
        opened = prefetch(partial(self.bucket.open_rows, export.programme), batches, depth=_BATCHES_OPEN)
        members = Members(map(self._members, batches, opened), *place)
        with closing(opened):
            while manifest.next and not self.time.is_up():
                manifest = self._make_part(manifest, members)
                self.time.step_done()
        return manifest

    def _make_part(self, manifest: Manifest, members: Members) -> Manifest:
        export = self.export
        number = len(manifest.parts) + 1
        file = self.files / str(number)
        with file.open("wb") as body:
            part = write_part(number, members, body)
        self.ensure_lease()
        self.bucket.put_part(export.programme, export.number, number, file)
        if number > _PARTS_KEPT:
            file.unlink()
        manifest = replace(
            manifest,
            records=manifest.records + part.rows,
            parts=(*manifest.parts, part),
            next=members.place if members.next else None,
        )
        if not manifest.next:
            self._check_records(manifest)
        self.bucket.put_manifest(export.programme, export.number, manifest)
        return manifest

    def _check_records(self, manifest: Manifest) -> None:
        if manifest.batches != self.export.batches:
            raise RenderMismatch(f"{self.export.export_id}: its parts are made of other batches than the ledger says")
        if manifest.records != self.export.records:
            raise RenderMismatch(
                f"{self.export.export_id}: {self.export.records} records in the ledger, {manifest.records} in its parts"
            )

    def _members(self, batch_id: str, rows: BinaryIO | None) -> Iterator[Member]:
        """Read a batch's rows, or render them where they were not stored with it."""
        if rows is not None:
            with closing(rows):
                yield from read_members(rows)
            return
        lines = self.bucket.batch_lines(self.export.programme, batch_id)
        with tempfile.TemporaryFile() as file, closing(lines):
            rendered = RowsWriter(file)
            for line in lines:
                rendered.write(render_row(line))
            rendered.finish()
            file.seek(0)
            yield from read_members(cast("BinaryIO", file))


def _goes_on(manifest: Manifest, begun: Manifest) -> bool:
    """Tell whether what was begun, and not sent, may be gone on with.

    Parts of one file look alike, so not where an earlier release has begun it; nor where the ledger was put back to an
    earlier moment since, and the export has gathered other batches.
    """
    return (manifest.rows_version, manifest.batches) == (begun.rows_version, begun.batches)
