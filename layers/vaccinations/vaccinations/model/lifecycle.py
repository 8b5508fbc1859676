"""The life of a DPS export: one table of moves, and the functions that make them.

`MOVES` says which event brings an export from which state to which, by whom, and under which guard. Whatever asks what
may happen now, what a run does, or who has to act reads it there. docs/architecture.md shows the table; a test compares
the two.

What DPS makes of a file, `Processing`, is a fact of its own beside the state of the delivery. Its moves are `ANSWERS`.

Every function here takes an export and returns the changed one. None of them reads a clock or writes anything: a store
writes what they return only where nobody has written since (`vaccinations.ports.Ledger.change`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from vaccinations.model.export import Attempt, DPSExport, Failure, FileNames, Lease, Phase, Processing, Status

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from vaccinations.model.export import Arrival, Asked, Manifest

__all__ = [
    "ANSWERS",
    "MAX_ATTEMPTS",
    "MOVES",
    "Attention",
    "Event",
    "ImpossibleMove",
    "LeaseLost",
    "LeaseTaken",
    "Move",
    "Step",
    "Which",
    "Who",
    "accept",
    "acknowledge",
    "attention",
    "begin_sending",
    "behind",
    "changes_nothing",
    "find_message",
    "find_nothing",
    "hear",
    "in_the_way",
    "lose_answer",
    "mark_unclear",
    "may_be_sent",
    "name_message",
    "next_step",
    "note_arrival",
    "note_parts",
    "possible",
    "refuse",
    "release",
    "render",
    "requeue",
    "resend",
    "restore",
    "retry",
    "seal",
    "since",
    "take_lease",
    "todo",
    "undeliver",
    "waits_for",
    "went_further",
]

#: The nightly run makes at most this many attempts at an export; after that a person decides.
MAX_ATTEMPTS = 5
#: MESH gives up after five days; after three a person should ask DPS (docs/mesh-protocol.md).
_LONG = timedelta(days=3)


class ImpossibleMove(Exception):
    """`MOVES` or `ANSWERS` has no such move from the export's state, or its guard does not hold."""


class LeaseLost(Exception):
    """The run does not hold the export's lease, or not any more: it must not touch the export."""


class LeaseTaken(Exception):
    """Another run holds the export's lease."""


class Who(StrEnum):
    """Who makes a move."""

    NIGHTLY = "nightly run"
    RUN = "run"
    MESH = "MESH"
    DPS = "DPS"
    PERSON = "person"


class Event(StrEnum):
    """What happens to an export."""

    SEAL = "seal"
    RENDER = "render"
    BEGIN_SENDING = "begin sending"
    NAME_MESSAGE = "name the message"
    LOSE_ANSWER = "lose the answer"
    FIND_MESSAGE = "find the message"
    FIND_NOTHING = "find no message"
    MARK_UNCLEAR = "find several messages"
    ACCEPT = "accept"
    REFUSE = "refuse"
    RESEND = "resend"
    RETRY = "retry"
    ACKNOWLEDGE = "acknowledge"
    UNDELIVER = "undeliver"
    REQUEUE = "requeue"
    RESTORE = "restore"


@dataclass(frozen=True, slots=True)
class Guard:
    """What must hold of an export for a move."""

    text: str
    holds: Callable[[DPSExport], bool]


@dataclass(frozen=True, slots=True)
class Move:
    """One row of `MOVES`. States of a pending export are its phases."""

    event: Event
    origin: Status | Phase
    to: Status | Phase
    who: Who
    guard: Guard | None = None

    def may(self, export: DPSExport) -> bool:
        """Tell whether the move may be made now."""
        return export.state is self.origin and (self.guard is None or self.guard.holds(export))


_HAS_RECORDS = Guard("it has records", lambda export: export.records > 0)
_TRIES_LEFT = Guard(f"fewer than {MAX_ATTEMPTS} attempts", lambda export: len(export.attempts) < MAX_ATTEMPTS)
_REFUSED_WHOLE = Guard("DPS refused the whole file", lambda export: export.processing is Processing.REFUSED)
_NOT_PROCESSED = Guard("DPS has not processed the file", lambda export: export.processing is not Processing.PROCESSED)

#: Every move there is. The moves of one state are in order of precedence: the first that may be made is the one that
#: the export waits for.
MOVES: tuple[Move, ...] = (
    Move(Event.SEAL, Status.OPEN, Phase.TO_RENDER, Who.NIGHTLY, _HAS_RECORDS),
    Move(Event.RENDER, Phase.TO_RENDER, Phase.RENDERED, Who.RUN),
    Move(Event.BEGIN_SENDING, Phase.RENDERED, Phase.SENDING, Who.RUN),
    Move(Event.NAME_MESSAGE, Phase.SENDING, Phase.UPLOADING, Who.MESH),
    Move(Event.LOSE_ANSWER, Phase.SENDING, Phase.OUTCOME_UNKNOWN, Who.RUN),
    Move(Event.FIND_MESSAGE, Phase.SENDING, Phase.UPLOADING, Who.MESH),
    Move(Event.FIND_MESSAGE, Phase.OUTCOME_UNKNOWN, Phase.UPLOADING, Who.MESH),
    Move(Event.FIND_NOTHING, Phase.SENDING, Phase.RENDERED, Who.MESH),
    Move(Event.FIND_NOTHING, Phase.OUTCOME_UNKNOWN, Phase.RENDERED, Who.MESH),
    Move(Event.MARK_UNCLEAR, Phase.SENDING, Status.UNCLEAR, Who.MESH),
    Move(Event.MARK_UNCLEAR, Phase.OUTCOME_UNKNOWN, Status.UNCLEAR, Who.MESH),
    Move(Event.ACCEPT, Phase.SENDING, Status.ACCEPTED, Who.MESH),
    Move(Event.ACCEPT, Phase.UPLOADING, Status.ACCEPTED, Who.MESH),
    Move(Event.REFUSE, Phase.SENDING, Status.FAILED, Who.MESH),
    Move(Event.REFUSE, Phase.UPLOADING, Status.FAILED, Who.MESH),
    Move(Event.REQUEUE, Status.ACCEPTED, Status.REQUEUED, Who.PERSON, _REFUSED_WHOLE),
    Move(Event.REQUEUE, Status.ACKNOWLEDGED, Status.REQUEUED, Who.PERSON, _NOT_PROCESSED),
    Move(Event.REQUEUE, Status.UNDELIVERED, Status.REQUEUED, Who.RUN),
    Move(Event.ACKNOWLEDGE, Status.ACCEPTED, Status.ACKNOWLEDGED, Who.DPS),
    Move(Event.UNDELIVER, Status.ACCEPTED, Status.UNDELIVERED, Who.MESH),
    Move(Event.RETRY, Status.FAILED, Phase.RENDERED, Who.NIGHTLY, _TRIES_LEFT),
    Move(Event.RESEND, Status.FAILED, Phase.RENDERED, Who.PERSON),
    Move(Event.RESEND, Status.UNCLEAR, Phase.RENDERED, Who.PERSON),
    Move(Event.RESTORE, Status.OPEN, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Phase.TO_RENDER, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Phase.RENDERED, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Phase.SENDING, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Phase.OUTCOME_UNKNOWN, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Phase.UPLOADING, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Status.FAILED, Phase.OUTCOME_UNKNOWN, Who.PERSON),
    Move(Event.RESTORE, Status.UNCLEAR, Phase.OUTCOME_UNKNOWN, Who.PERSON),
)


class Which(StrEnum):
    """Which arrival of a file an InfAck has to be about for it to count."""

    ANY = "any"
    SAME = "the same"
    ANOTHER = "another"


#: Every move of `Processing` there is. Answers come in any order and more than once. One that would lead anywhere else
#: says again what is known, or contradicts it, and changes nothing.
#:
#: A file may arrive twice, and DPS refuses the second while it goes on with the first; or it processes the second,
#: having refused the first. So of two arrivals the one that was received counts, and of one arrival the refusal. DPS
#: says of rows what it has processed: that counts against any refusal.
ANSWERS: Mapping[tuple[Processing | None, Processing], Which] = {
    (None, Processing.RECEIVED): Which.ANY,
    (None, Processing.REFUSED): Which.ANY,
    (None, Processing.PROCESSED): Which.ANY,
    (Processing.RECEIVED, Processing.REFUSED): Which.SAME,
    (Processing.RECEIVED, Processing.PROCESSED): Which.ANY,
    (Processing.REFUSED, Processing.RECEIVED): Which.ANOTHER,
    (Processing.REFUSED, Processing.PROCESSED): Which.ANY,
}


# -- what the table tells


class Step(StrEnum):
    """What a run does with an export."""

    SEND = "send"
    SEAL = "seal and send"
    RETRY = "send again"


class Attention(StrEnum):
    """What an export asks of people."""

    DONE = "done"
    PARTLY = "partly"
    """DPS processed the file, but refused rows of it: somebody has to look at them."""
    WAITING = "waiting"
    """It goes on by itself."""
    PERSON = "person"
    """A person has to act; `todo` says how."""


_STEPS = {Event.SEAL: Step.SEAL, Event.RETRY: Step.RETRY}


def possible(export: DPSExport) -> list[Move]:
    """Return the moves that may be made now, in order of precedence."""
    return [move for move in MOVES if move.may(export)]


def next_step(export: DPSExport, *, nightly: bool) -> Step | None:
    """Tell what a run does with an export, if anything.

    Parameters
    ----------
    nightly
        Whether it is the nightly run. Any other goes on with what is pending and does nothing else.
    """
    if export.status is Status.PENDING:
        return Step.SEND
    return next((_STEPS[m.event] for m in possible(export) if nightly and m.who is Who.NIGHTLY), None)


def may_be_sent(export: DPSExport) -> bool:
    """Tell whether MESH may have the attempt without our knowing: then MESH is asked before anything is sent."""
    return any(move.event is Event.FIND_MESSAGE for move in possible(export))


def in_the_way(export: DPSExport) -> bool:
    """Tell whether later exports of the programme wait for this one: MESH never had it whole."""
    return export.accepted_at is None


def waits_for(export: DPSExport) -> Who | None:
    """Tell who makes the export's next move; None where its life has ended, or it gathers its first records.

    While an export is pending, a run has to go on with it, whatever it then waits for. None waits for a restore, nor,
    where DPS has picked the file up and not refused it, for a requeue.
    """
    if export.status is Status.PENDING:
        return Who.RUN
    awaited = (move for move in possible(export) if move.event is not Event.RESTORE)
    who = next((move.who for move in awaited), None)
    return None if export.status is Status.ACKNOWLEDGED and export.processing is not Processing.REFUSED else who


def since(export: DPSExport) -> datetime:
    """Return since when an export has waited in its state."""
    attempt = export.attempt
    if attempt is None:
        return export.created_at
    return (attempt.sent_at if export.status is Status.ACCEPTED else None) or attempt.begun_at


def todo(export: DPSExport, now: datetime) -> str:
    """Tell what a person has to do about an export; nothing where it goes on by itself."""
    command = f"mesh export resend {export.export_id}"
    if waits_for(export) is Who.PERSON:
        if export.processing is Processing.REFUSED:
            return f"ask DPS why, and to clear it, for later files may wait behind it; then {command}"
        if export.status is Status.UNCLEAR:
            return f"ask MESH whether it arrived, then {command}"
        return f"tried {len(export.attempts)} times; put the cause right, then {command}"
    if export.status is Status.ACCEPTED and now - since(export) > _LONG:
        return "ask DPS why nobody picks it up"
    return ""


def attention(export: DPSExport, now: datetime) -> Attention:
    """Tell what an export asks of people."""
    if todo(export, now):
        return Attention.PERSON
    if export.status is Status.REQUEUED:
        return Attention.DONE
    if export.attempts and export.attempts[-1].rows_refused:
        return Attention.PARTLY
    return Attention.DONE if export.status is Status.ACKNOWLEDGED else Attention.WAITING


# -- attempts


def seal(export: DPSExport, names: FileNames, now: datetime) -> DPSExport:
    """Seal an open export for its first attempt: from now on its records do not change."""
    return replace(_begin(export, Event.SEAL, names, now), sealed_at=now)


def retry(export: DPSExport, names: FileNames, now: datetime) -> DPSExport:
    """Begin the next attempt at an export that MESH refused: the nightly run's part."""
    return _begin(export, Event.RETRY, names, now)


def resend(export: DPSExport, names: FileNames, now: datetime, asked: Asked | None = None) -> DPSExport:
    """Begin the next attempt at an export: a person's part."""
    return _begin(export, Event.RESEND, names, now, asked)


def _begin(export: DPSExport, event: Event, names: FileNames, now: datetime, asked: Asked | None = None) -> DPSExport:
    attempt = Attempt(number=len(export.attempts) + 1, **names._asdict(), begun_at=now, asked=asked)
    return _move(replace(export, attempts=(*export.attempts, attempt)), event, now, origin=export)


# -- after the ledger was put back to an earlier moment


def went_further(export: DPSExport, manifest: Manifest) -> bool:
    """Tell from an export's manifest whether MESH may have more of it than the ledger knows of.

    Nothing is sent before the manifest is complete and names the attempt. Where the ledger knows that the attempt may
    have been sent, MESH is asked anyway.
    """
    attempts = len(export.attempts)
    unsent = {Phase.TO_RENDER, Phase.RENDERED, Phase.UPLOADING}
    return manifest.complete and (
        len(manifest.names) > attempts or (len(manifest.names) == attempts and export.state in unsent)
    )


def restore(export: DPSExport, manifest: Manifest, now: datetime) -> DPSExport:
    """Put an export back as its manifest shows it: MESH is asked whether it has the last attempt.

    What an open one has gathered that the manifest does not name is no longer in it.
    """
    later = enumerate(manifest.names[len(export.attempts) :], start=len(export.attempts) + 1)
    attempts = (*export.attempts, *(Attempt(number=n, **names._asdict(), begun_at=now) for n, names in later))
    put_back = replace(
        export,
        attempts=attempts,
        batches=manifest.batches,
        records=manifest.records,
        parts=len(manifest.parts),
        sealed_at=export.sealed_at or now,
        lease=None,
    )
    return _move(put_back, Event.RESTORE, now, origin=export)


# -- the lease


def take_lease(export: DPSExport, holder: str, until: datetime, now: datetime) -> DPSExport:
    """Give a run the right to send a pending export until a point in time, once.

    Raises
    ------
    LeaseTaken
        Another run has it.
    ImpossibleMove
        The export is not pending (any more).
    """
    if export.status is not Status.PENDING:
        raise ImpossibleMove(f"{export.export_id}: {export.status} cannot be sent")
    if export.lease and export.lease.until >= now:
        raise LeaseTaken(export.export_id)
    return replace(export, lease=Lease(holder, until), updated_at=now)


def release(
    export: DPSExport, holder: str, now: datetime, *, parts_sent: int | None = None, error: Failure | None = None
) -> DPSExport:
    """Give the lease back. The export stays pending, and another run goes on with it where this one stopped."""
    facts: dict[str, Any] = {"error": error} if error else {}
    if parts_sent is not None:
        facts["parts_sent"] = parts_sent
    return replace(_noted(_leased(export, holder), now, **facts), lease=None)


def _leased(export: DPSExport, holder: str) -> DPSExport:
    if export.status is not Status.PENDING or export.lease is None or export.lease.holder != holder:
        raise LeaseLost(export.export_id)
    return export


# -- sending, by the run that holds the lease


def render(export: DPSExport, holder: str, parts: int, now: datetime) -> DPSExport:
    """Note that every part is in the bucket, and how many there are."""
    return replace(_move(_leased(export, holder), Event.RENDER, now), parts=parts)


def begin_sending(export: DPSExport, holder: str, now: datetime) -> DPSExport:
    """Note that the first part is about to go: from here on MESH may have this attempt."""
    return _move(_leased(export, holder), Event.BEGIN_SENDING, now, sending_at=now)


def name_message(export: DPSExport, holder: str, message_id: str, now: datetime) -> DPSExport:
    """Note that MESH has taken the first part of several, and the message's id."""
    return _move(_leased(export, holder), Event.NAME_MESSAGE, now, message_id=message_id, parts_sent=1)


def note_parts(export: DPSExport, holder: str, parts_sent: int, now: datetime) -> DPSExport:
    """Note how many parts MESH has."""
    return _noted(_leased(export, holder), now, parts_sent=parts_sent)


def lose_answer(export: DPSExport, holder: str, error: Failure, now: datetime) -> DPSExport:
    """Note that MESH's answer to the first part was lost. The lease stays until it ends: MESH gets time to finish."""
    return _move(_leased(export, holder), Event.LOSE_ANSWER, now, error=error)


def find_message(export: DPSExport, holder: str, message_id: str, parts_sent: int, now: datetime) -> DPSExport:
    """Note that MESH knows the attempt by its local id, and how many parts it surely has."""
    return _move(_leased(export, holder), Event.FIND_MESSAGE, now, message_id=message_id, parts_sent=parts_sent)


def find_nothing(export: DPSExport, holder: str, now: datetime) -> DPSExport:
    """Note that MESH does not know the attempt: its first part may be sent again."""
    return _move(_leased(export, holder), Event.FIND_NOTHING, now)


def accept(export: DPSExport, holder: str, message_id: str, now: datetime) -> DPSExport:
    """Note that MESH has every part."""
    facts: dict[str, Any] = {"message_id": message_id, "parts_sent": export.parts, "sent_at": now, "error": None}
    moved = _move(_leased(export, holder), Event.ACCEPT, now, **facts)
    return replace(moved, accepted_at=now, lease=None)


def refuse(export: DPSExport, holder: str, error: Failure, now: datetime) -> DPSExport:
    """Note that MESH refused the attempt."""
    return replace(_move(_leased(export, holder), Event.REFUSE, now, error=error), lease=None)


def mark_unclear(export: DPSExport, holder: str, error: Failure, now: datetime) -> DPSExport:
    """Note that only a person can tell whether the attempt was sent."""
    return replace(_move(_leased(export, holder), Event.MARK_UNCLEAR, now, error=error), lease=None)


# -- hearing back


def acknowledge(export: DPSExport, message_id: str, now: datetime) -> DPSExport:
    """Note that DPS has picked the file up."""
    return _move(_about(export, message_id), Event.ACKNOWLEDGE, now, acknowledged_at=now)


def undeliver(export: DPSExport, message_id: str, error: Failure, now: datetime) -> DPSExport:
    """Note that the attempt's message did not reach DPS."""
    return _move(_about(export, message_id), Event.UNDELIVER, now, error=error)


def requeue(export: DPSExport, request: str, now: datetime, asked: Asked | None = None) -> DPSExport:
    """Note that what DPS must be told of the export's records now is queued in another.

    Parameters
    ----------
    request
        Key of the request that asked for it.
    asked
        Who made that, and why, where it was a person.
    """
    return replace(_move(export, Event.REQUEUE, now), request=request, asked=asked)


def _about(export: DPSExport, message_id: str) -> DPSExport:
    """Ensure that news is about the current attempt: another may be under way by now."""
    if export.message_id != message_id:
        raise ImpossibleMove(f"{export.export_id}: the message is an earlier attempt's")
    return export


def changes_nothing(attempt: Attempt, to: Processing, arrival: Arrival | None = None) -> str:
    """Tell why an answer of DPS changes nothing of what is known of an attempt's file; empty where it does.

    Parameters
    ----------
    arrival
        Which arrival of the file the answer is about, where it is an InfAck.
    """
    another = bool(arrival and attempt.arrival and arrival.is_another(attempt.arrival))
    if ANSWERS.get((attempt.processing, to)) in {Which.ANY, Which.ANOTHER if another else Which.SAME}:
        return ""
    if to is Processing.REFUSED and attempt.processing is not Processing.REFUSED:
        return "about another arrival" if another else "contradiction"
    return "known already"


def hear(
    export: DPSExport, number: int, to: Processing, now: datetime, arrival: Arrival | None = None, **facts: Any
) -> DPSExport:
    """Note what DPS has made of an attempt's file. The state of the delivery stays as it is.

    Parameters
    ----------
    number
        The attempt's.
    arrival
        Which arrival of the file the answer is about, where it is an InfAck.
    facts
        More of its attributes: ``refusal``; ``rows_processed`` and ``rows_refused``.

    Raises
    ------
    ImpossibleMove
        `ANSWERS` has no such move: it is known already, or contradicts what is known.
    """
    attempt = export.attempts[number - 1]
    if why := changes_nothing(attempt, to, arrival):
        raise ImpossibleMove(f"{export.export_id}: DPS's answer {attempt.processing} to {to}: {why}")
    facts = {"refusal": "", "arrival": arrival or attempt.arrival, **facts, "processing": to}
    facts["processed_at" if to is Processing.PROCESSED else "received_at"] = now
    return _with_attempt(export, replace(attempt, **facts))


def note_arrival(export: DPSExport, number: int, arrival: Arrival) -> DPSExport:
    """Note which arrival of an attempt's file an InfAck is about, where none has said that before."""
    attempt = export.attempts[number - 1]
    return export if attempt.arrival else _with_attempt(export, replace(attempt, arrival=arrival))


def _with_attempt(export: DPSExport, attempt: Attempt) -> DPSExport:
    before, after = export.attempts[: attempt.number - 1], export.attempts[attempt.number :]
    return replace(export, attempts=(*before, attempt, *after))


def behind(export: DPSExport, exports: Iterable[DPSExport]) -> list[DPSExport]:
    """Return the exports that DPS may leave waiting because it has refused this one's file as a whole.

    Parameters
    ----------
    exports
        The programme's. Those are meant that MESH had later, and that DPS has answered nothing to.
    """
    if export.processing is not Processing.REFUSED:
        return []
    return [each for each in exports if each.number > export.number and each.accepted_at and not each.processing]


# -- making a move


def _move(
    export: DPSExport, event: Event, now: datetime, *, origin: DPSExport | None = None, **facts: Any
) -> DPSExport:
    """Make a move of `MOVES`, and note facts of the current attempt.

    Parameters
    ----------
    origin
        The export as it was before, where ``export`` has another attempt already.

    Raises
    ------
    ImpossibleMove
        The table has no such move, or its guard does not hold.
    """
    before = origin or export
    move = next((m for m in MOVES if m.event is event and m.may(before)), None)
    if move is None:
        raise ImpossibleMove(f"{export.export_id}: {event} is not possible, it is {before.state}")
    if isinstance(move.to, Phase):
        return replace(_noted(export, now, phase=move.to, **facts), status=Status.PENDING)
    return replace(_noted(export, now, **facts), status=move.to)


def _noted(export: DPSExport, now: datetime, **facts: Any) -> DPSExport:
    attempts = (*export.attempts[:-1], replace(export.attempts[-1], **facts))
    return replace(export, attempts=attempts, updated_at=now)
