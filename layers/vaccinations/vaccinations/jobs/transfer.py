"""Send one export over MESH, from whichever phase it is in, so that dying anywhere loses nothing and doubles nothing.

Every effect is written down before the next: parts in the bucket, "about to send", the message's id, each quarter of
the parts. A run that finds an attempt which may already have been sent asks MESH by its local id before it sends
anything.
"""

from __future__ import annotations

import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from nhs_mesh import MeshError, NotFound, Part, Refused, TrackingStatus, Unavailable
from vaccinations.jobs.render import Renderer
from vaccinations.model import lifecycle
from vaccinations.model.export import Failure, Phase
from vaccinations.model.lifecycle import LeaseLost
from vaccinations.telemetry import count, logger

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vaccinations.jobs.render import RunTime
    from vaccinations.model.export import DPSExport, Manifest
    from vaccinations.ports import Bucket, Ledger, Mesh

__all__ = ["Transfer"]

#: MESH's answer to a part of a message that is complete already: the answer to the last part was lost.
_LOCKED = 423


class Transfer:
    """Sends one export, as the holder of its lease.

    Parameters
    ----------
    export
        The export, with its batches, leased by ``holder``.
    connect
        Makes the MESH client.
    recipient, workflow_id
        The mailbox that gets it, and what the message is sent under.

    Attributes
    ----------
    export
        The export as this run has last written it.
    """

    def __init__(
        self,
        export: DPSExport,
        ledger: Ledger,
        bucket: Bucket,
        connect: Callable[[], Mesh],
        *,
        recipient: str,
        workflow_id: str,
        holder: str,
        time: RunTime,
        clock: Callable[[], datetime],
    ) -> None:
        self.export = export
        self._ledger = ledger
        self._bucket = bucket
        self._connect = connect
        self._mesh: Mesh
        self._recipient = recipient
        self._workflow_id = workflow_id
        self._holder = holder
        self._time = time
        self._clock = clock

    def run(self) -> None:
        """Send what MESH has not got yet, as far as the time allows.

        Raises
        ------
        nhs_mesh.MeshError
            MESH refused it, or did not answer. What MESH has got by then is noted.
        RenderMismatch
            The parts are not what they should be.
        LeaseLost
            Another run has the export by now.
        """
        self._mesh = self._connect()
        if lifecycle.may_be_sent(self.export) and self._ask_mesh():
            self._accept(self.export.message_id)
            return
        with tempfile.TemporaryDirectory() as files:
            renderer = Renderer(self.export, self._bucket, Path(files), self._time, self._ensure_lease)
            manifest = renderer.manifest()
            if manifest.next:
                self._stop()
            else:
                self._send_parts(manifest, renderer)

    # -- each of these is one thing that is sent, asked or written

    def fail(self, error: Failure) -> None:
        """Note that MESH refused the attempt."""
        self._change(lifecycle.refuse, error)

    def mark_unclear(self, error: Failure) -> None:
        """Note that MESH knows several messages by the attempt's local id."""
        self._change(lifecycle.mark_unclear, error)

    def lose_answer(self, error: Failure) -> None:
        """Note that the answer to the first part was lost; the lease is kept."""
        self._change(lifecycle.lose_answer, error)

    def release(self, error: Failure | None = None) -> None:
        """Give the lease back, and note what was wrong."""
        now = self._clock()
        self.export = self._ledger.change(
            self.export, lambda export: lifecycle.release(export, self._holder, now, error=error)
        )

    def _ask_mesh(self) -> bool:
        """Ask MESH by local id whether it has this attempt; tell whether it has it whole."""
        local_id = self.export.local_id
        try:
            tracking = self._mesh.track_by_local_id(local_id)
        except NotFound:
            logger.info("MESH does not have the export", extra={"export_id": self.export.export_id})
            self._change(lifecycle.find_nothing)
            return False
        except Refused as refused:
            raise _unanswered(local_id, refused) from None
        extra = {"export_id": self.export.export_id, "message_id": tracking.message_id}
        logger.info("MESH has the export already", extra=extra)
        whole = tracking.status != TrackingStatus.UPLOADING
        self._change(lifecycle.find_message, tracking.message_id, self.export.parts if whole else 1)
        return whole

    def _send_parts(self, manifest: Manifest, renderer: Renderer) -> None:
        """Send the parts that MESH has not got yet.

        How far it got is noted after the first part, at each quarter of the way, and where it stops or fails, so that
        an export costs the same few writes however many parts it has. Should the process die in between, some parts
        travel again, which does no harm: MESH puts them in the place of those it has.
        """
        parts = len(manifest.parts)
        noted = sent = self.export.attempts[-1].parts_sent
        message_id = self.export.message_id
        if self.export.state is not Phase.UPLOADING:
            if self._time.is_up():
                self._stop(parts)
                return
            message_id, noted, sent = self._send_first(manifest, renderer), 1, 1
        try:
            while sent < parts:
                if self._time.is_up():
                    self._stop(parts, sent)
                    return
                number = sent + 1
                sent = self._send_further(number, manifest, renderer)
                if sent < parts and 4 * number // parts > 4 * (number - 1) // parts:
                    self._change(lifecycle.note_parts, sent)
                    noted = sent
        except MeshError:
            if sent > noted:
                self._change(lifecycle.note_parts, sent)
            raise
        self._accept(message_id)

    def _send_first(self, manifest: Manifest, renderer: Renderer) -> str:
        """Send the first part; return the message's id. Where more follow it is noted: else the acceptance notes it."""
        parts = len(manifest.parts)
        self._begin_sending(parts)
        self._ensure_lease()
        message_id = self._mesh.send(
            self._recipient,
            self._workflow_id,
            _part(manifest, 1, renderer),
            parts=parts,
            filename=self.export.attempts[-1].mesh_filename,
            local_id=self.export.local_id,
            content_type="text/csv",
        ).message_id
        self._time.step_done()
        if parts > 1:
            self._change(lifecycle.name_message, message_id)
        return message_id

    def _send_further(self, number: int, manifest: Manifest, renderer: Renderer) -> int:
        """Send a further part; return how many MESH has now."""
        parts = len(manifest.parts)
        message_id = self.export.message_id
        self._ensure_lease()
        try:
            self._mesh.send_chunk(message_id, number, parts, _part(manifest, number, renderer))
        except Refused as refused:
            if refused.status != _LOCKED:
                raise
            # It is complete: either this was the last part, or a run that died had sent more than it could note.
            if number < parts and not self._is_whole(message_id):
                raise
            return parts
        except NotFound:
            # MESH has dropped the unfinished message; nothing of it was delivered.
            raise Refused(404, description="MESH no longer knows the message") from None
        self._time.step_done()
        return number

    def _is_whole(self, message_id: str) -> bool:
        """Ask MESH whether it has every part of a message."""
        try:
            return self._mesh.track(message_id).status != TrackingStatus.UPLOADING
        except Refused as refused:
            raise _unanswered(message_id, refused) from None

    def _begin_sending(self, parts: int) -> None:
        now = self._clock()

        def begin(export: DPSExport) -> DPSExport:
            if export.state is Phase.TO_RENDER:
                export = lifecycle.render(export, self._holder, parts, now)
            return lifecycle.begin_sending(export, self._holder, now)

        self.export = self._ledger.change(self.export, begin)

    def _accept(self, message_id: str) -> None:
        self._change(lifecycle.accept, message_id)
        export = self.export
        logger.info(
            f"DPS export ({export.export_id}) for programme ({export.programme}) sent: "
            f'202 - {{"message_id":"{export.message_id}"}}',
            extra={
                "export_id": export.export_id,
                "message_id": export.message_id,
                "records": export.records,
                **export.names[-1].told(),
            },
        )
        count("ExportsAccepted", programme=export.programme)
        count("RecordsExported", export.records, programme=export.programme)

    def _stop(self, parts: int = 0, sent: int | None = None) -> None:
        """Leave the export between two parts, for another run to go on with."""
        now = self._clock()

        def stop(export: DPSExport) -> DPSExport:
            if parts and export.state is Phase.TO_RENDER:
                export = lifecycle.render(export, self._holder, parts, now)
            return lifecycle.release(export, self._holder, now, parts_sent=sent)

        self.export = self._ledger.change(self.export, stop)
        extra = {"export_id": self.export.export_id, "parts_sent": sent or 0, "parts": parts}
        logger.info("out of time; the hourly run goes on", extra=extra)

    def _change(self, how: Callable[..., DPSExport], *facts: object) -> None:
        """Make a move of the holder's."""
        now = self._clock()
        self.export = self._ledger.change(self.export, lambda export: how(export, self._holder, *facts, now))

    def _ensure_lease(self) -> None:
        """Ensure that the lease still holds, right before an effect that cannot be made conditional.

        Raises
        ------
        LeaseLost
            It ran out.
        """
        if self.export.lease is None or self._clock() >= self.export.lease.until:
            raise LeaseLost(self.export.export_id)


def _unanswered(asked: str, refused: Refused) -> Unavailable:
    """Make the error for a question that MESH refused: that tells nothing about the export."""
    return Unavailable(f"MESH would not say whether it has {asked}: {refused}")


def _part(manifest: Manifest, number: int, renderer: Renderer) -> Part:
    return Part(open=partial(renderer.open_part, number), size=manifest.parts[number - 1].size, content_encoding="gzip")
