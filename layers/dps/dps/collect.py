"""Collect: every hour, bring what has come into the own mailbox to safety.

Each message is streamed to S3 with what MESH says of it, and acknowledged only then: it leaves the mailbox once it is
in the bucket. Messages of every workflow are kept, so that the mailbox can serve other purposes too. MESH's own
reports are Track's.

The order of effects is what makes it safe to die anywhere and be run again: body, then its facts (which say that the
body is there), then the acknowledgement.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dps.observability import count, logger
from mesh import Corrupted, Expired, NotFound, Unauthorised

if TYPE_CHECKING:
    from collections.abc import Callable

    from dps.archive import Archive
    from mesh import MeshClient, Message

__all__ = ["Collect"]

#: A message is begun only while so many seconds of the function's time are left.
SECONDS_FOR_A_MESSAGE = 60.0
#: What is kept of a message beside its body.
_FACTS = (
    "message_id",
    "sender",
    "recipient",
    "workflow_id",
    "filename",
    "local_id",
    "subject",
    "content_type",
    "checksum",
)


@dataclass(frozen=True, slots=True)
class Collect:
    """The use case, over the rooms it works with.

    Attributes
    ----------
    seconds_left
        Tells how many seconds the function may still run.
    clock
        Tells the time, with its offset; for tests.
    """

    archive: Archive
    client: MeshClient
    seconds_left: Callable[[], float]
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def run(self) -> dict[str, Any]:
        """Do one run.

        Returns
        -------
        dict
            ``{"status": "ok", "messages": [{"message_id", "workflow_id", "filename", "key"}], "left": n}``: what was
            collected, and where it is. The status is ``incomplete`` where messages had to be left for the next run.

        Raises
        ------
        mesh.Unauthorised
            MESH does not let us in: nothing can be collected at all.
        """
        collected: list[dict[str, Any]] = []
        left = 0
        for message_id in list(self.client.inbox()):
            if self.seconds_left() < SECONDS_FOR_A_MESSAGE:
                logger.info("time is running out; the next run goes on")
                left += 1
                break
            try:
                facts = self._keep(message_id)
                if facts is None:
                    continue
                self.client.acknowledge(message_id)
            except Unauthorised:
                raise
            except (NotFound, Expired):
                logger.info("message has gone from the inbox", extra={"message_id": message_id})
            except Exception as error:  # noqa: BLE001 - one message's trouble never stops the others
                left += 1
                logger.exception("message cannot be collected now", extra={"message_id": message_id})
                count("CollectErrors", error=type(error).__name__)
            else:
                count("MessagesCollected")
                collected.append({name: facts[name] for name in ("message_id", "workflow_id", "filename", "key")})
        return {"status": "incomplete" if left else "ok", "messages": collected, "left": left}

    def _keep(self, message_id: str) -> dict[str, Any] | None:
        """Bring a message to safety, unless it is there already; return its facts, or None where it is a report."""
        with self.client.download(message_id) as message:
            if message.is_report:
                return None
            if facts := self.archive.message(message.workflow_id, message_id):
                return facts
            facts = self._facts(message)
            try:
                facts["key"] = self.archive.put_message(message.workflow_id, message_id, message, facts)
            except Corrupted as error:
                facts |= {"problem": str(error), "content_encoding": message.content_encoding}
        if "problem" in facts:
            # What cannot be unzipped is kept as it came over the wire.
            with self.client.download(message_id, decode=False) as message:
                facts["key"] = self.archive.put_message(message.workflow_id, message_id, message, facts)
            logger.warning("message cannot be read; it is kept as it is", extra={"message_id": message_id})
            count("MessagesUnreadable")
        self.archive.put_message_facts(facts["workflow_id"], message_id, facts)
        logger.info("message collected", extra={"message_id": message_id})
        return facts

    def _facts(self, message: Message) -> dict[str, Any]:
        collected_at = self.clock().astimezone(UTC).isoformat(timespec="seconds")
        return {name: getattr(message, name) or "" for name in _FACTS} | {"collected_at": collected_at}
