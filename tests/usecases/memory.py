"""The ports in memory: bucket, register, ledger, and MESH with its mailboxes. No server, no network."""

from __future__ import annotations

import copy
import io
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from nhs_mesh import (
    Message,
    MessageType,
    NotFound,
    NotUnique,
    Part,
    Refused,
    SendOutcomeUnknown,
    SentMessage,
    Tracking,
    TrackingStatus,
    Unavailable,
)
from vaccinations.aws.bucket import Bucket, NoSuchObject, StoredObject
from vaccinations.formats.dps_names import next_place
from vaccinations.model.entry import Entry, Intake
from vaccinations.model.export import DPSExport, Status
from vaccinations.ports import LedgerConflict, StoredUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from urllib3 import BaseHTTPResponse

    from vaccinations.model.export import FileNames

    type Clock = Callable[[], datetime]


#: What MESH reports after five days.
NOT_COLLECTED = "Message not collected by recipient after 5 days"


class MemoryBucket(Bucket):
    """The bucket's layout over a dictionary: every version of every object, the latest last."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(cast("Any", None), "memory")
        self._clock = clock
        self.objects: defaultdict[str, list[tuple[bytes, datetime]]] = defaultdict(list)
        self.said: dict[tuple[str, str], Mapping[str, str]] = {}

    def store(self, key: str, body: bytes) -> str:
        """Store an object as somebody outside does; return its version."""
        self.objects[key].append((body, self._clock()))
        return str(len(self.objects[key]))

    def open(self, key: str, version: str = "") -> StoredObject:
        versions = self.objects.get(key, [])
        number = int(version or len(versions))
        if not 1 <= number <= len(versions):
            raise NoSuchObject
        body, stored_at = versions[number - 1]
        return StoredObject(io.BytesIO(body), stored_at, self.said.get((key, str(number)), {}))

    def _place(self, key: str, version: str, stored_at: datetime) -> int:
        earlier = self.objects[key][: int(version or 1) - 1]
        return sum(at.replace(microsecond=0) == stored_at.replace(microsecond=0) for _, at in earlier)

    def uploads(self, organisation: str = "") -> Iterator[StoredUpload]:
        for key in sorted(self.objects):
            if key.startswith(f"incoming/{organisation}/" if organisation else ("incoming/", "requests/")):
                versions = [(str(number), at) for number, (_, at) in enumerate(self.objects[key], start=1)]
                yield from (StoredUpload(key, version, at) for version, at in reversed(versions))

    def versions(self, key: str) -> Iterator[StoredUpload]:
        stored = enumerate(self.objects.get(key, []), start=1)
        return reversed([StoredUpload(key, str(number), at) for number, (_, at) in stored])

    def _folders(self, prefix: str) -> set[str]:
        inside = (key.removeprefix(prefix) for key in self.objects if key.startswith(prefix))
        return {name.partition("/")[0] for name in inside if "/" in name}

    def _keys(self, prefix: str, suffix: str, since: datetime) -> list[str]:
        stored = sorted((versions[-1][1], key) for key, versions in self.objects.items() if key.startswith(prefix))
        return [key for at, key in stored if at >= since and key.endswith(suffix)]

    def _put(self, key: str, body: bytes | BinaryIO, _: str = "") -> None:
        self.store(key, body if isinstance(body, bytes) else body.read())

    def _put_over(self, key: str, body: bytes | BinaryIO, tag: str, _: str = "") -> bool:
        if self._tag(key) == tag:
            self._put(key, body)
            return True
        return False

    def _tag(self, key: str, version: str = "") -> str:
        count = len(self.objects.get(key, []))
        return str(count) if 1 <= int(version or count) <= count else ""

    def _put_object(
        self, key: str, body: BinaryIO | bytes, metadata: Mapping[str, str] | None = None
    ) -> tuple[str, str]:
        version = self.store(key, body if isinstance(body, bytes) else body.read())
        self.said[key, version] = metadata or {}
        return key, version

    def _put_stream(self, key: str, body: BinaryIO, _: Mapping[str, str]) -> None:
        self.store(key, body.read())


class MemoryQueue:
    """The queue over lists: what was announced, what was asked for, and both, in order."""

    def __init__(self) -> None:
        self.announced: list[tuple[str, str]] = []
        self.asked: list[tuple[str, str, str]] = []
        self.messages: list[tuple[str, ...]] = []

    def announce(self, key: str, version: str, batch_id: str) -> None:  # noqa: ARG002 - nobody looks at the clock here
        self.announced.append((key, version))
        self.messages.append(("ingest", key, version))

    def ask(self, what: str, batch_id: str, reason: str, by: str = "") -> None:  # noqa: ARG002 - nobody looks at it
        self.asked.append((what, batch_id, reason))
        self.messages.append((what, batch_id))


class MemoryRegister:
    """The register over dictionaries."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.intakes: dict[str, Intake] = {}
        self.tries: Counter[str] = Counter()
        self.given_up: set[str] = set()
        self.never: set[tuple[str, str]] = set()
        self.ever_begun = 0

    def snapshot(self) -> object:
        """Return what `restore` puts back: a backup of the table."""
        return copy.deepcopy(
            {name: vars(self)[name] for name in ("entries", "intakes", "tries", "given_up", "never", "ever_begun")}
        )

    def restore(self, snapshot: object) -> None:
        """Put the register back to what it was when the snapshot was taken."""
        vars(self).update(copy.deepcopy(cast("dict[str, Any]", snapshot)))

    def get(self, record_ids: Iterable[str]) -> dict[str, Entry]:
        return {i: self.entries[i] for i in record_ids if i in self.entries}

    def put(self, entries: Iterable[Entry]) -> None:
        self.entries |= {entry.record_id: replace(entry, refusal=None) for entry in entries}

    def renew(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            known = self.entries.get(entry.record_id)
            if known and not known.unstated and known.statement != entry.statement:
                self.entries[entry.record_id] = replace(known, before=self._renewed(known.before, entry))
            elif renewed := self._renewed(known, entry):
                self.entries[entry.record_id] = renewed

    @staticmethod
    def _renewed(known: Entry | None, entry: Entry) -> Entry | None:
        if entry.unstated and (known is None or (known.unstated and known.gives_way(entry))):
            return entry
        if known and known.statement == entry.statement and known.gives_way(entry):
            return replace(known, owner=entry.owner, owned_since=entry.owned_since, stated_at=entry.stated_at)
        return known

    def restate(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            known = self.entries.get(entry.record_id)
            if known is None or (known.statement != entry.statement and not entry.gives_way(known)):
                self.put([entry])

    def hear(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            if known := self.entries.get(entry.record_id):
                self.entries[entry.record_id] = known.hearing(entry)

    def refused(self, programme: str, since: str = "") -> Iterator[Entry]:
        counts = [entry.counting(self.never) for entry in self.entries.values()]
        found = [(e.refusal.at, e) for e in counts if e and e.programme == programme and e.refusal]
        yield from (entry for at, entry in sorted(found, key=lambda each: each[0]) if at >= since)

    def intake(self, batch_id: str) -> Intake | None:
        return self.intakes.get(batch_id)

    def unfinished(self) -> list[str]:
        return sorted(i for i, intake in self.intakes.items() if not intake.finished and not intake.parked)

    def parked(self) -> list[str]:
        return sorted(self.given_up)

    def unsent(self) -> frozenset[tuple[str, str]]:
        return frozenset(self.never)

    def with_intake(self, batch_ids: Iterable[str]) -> set[str]:
        return {*batch_ids} & {*self.intakes}

    def count_try(self, batch_id: str) -> int:
        self.tries[batch_id] += 1
        if intake := self.intakes.get(batch_id):
            self.intakes[batch_id] = replace(intake, tries=self.tries[batch_id])
        return self.tries[batch_id]

    def park(self, batch_id: str) -> None:
        intake = self.intakes.get(batch_id)
        if intake and (intake.parked or intake.finished):
            raise RuntimeError(f"the intake of {batch_id} is being completed by another run")
        self.given_up.add(batch_id)
        if intake:
            self.never |= {(programme, batch_id) for programme in intake.unattached}
            self.intakes[batch_id] = replace(intake, parked=True)

    def begun(self) -> int:
        return self.ever_begun

    def begin(self, batch_id: str, batches: Mapping[str, int], begun: int, *, sends: bool = True) -> Intake:
        if batch_id in self.intakes or begun != self.ever_begun:
            raise RuntimeError(f"another intake was begun while {batch_id} was read; it has to be read anew")
        self.ever_begun += 1
        self.intakes[batch_id] = Intake(batch_id, dict(batches), {}, finished=False, sends=sends)
        return self.intakes[batch_id]

    def attach(self, batch_id: str, programme: str, number: int) -> bool:
        """Mark a batch as attached, as the ledger's transaction does; False where it was attached before."""
        intake = self.intakes.get(batch_id)
        if intake is None or intake.parked or programme in intake.attached:
            return False
        self.intakes[batch_id] = replace(intake, attached={**intake.attached, programme: number})
        return True

    def put_back(self, batch_id: str, batches: Mapping[str, int], attached: Mapping[str, int]) -> None:
        if batch_id in self.intakes:
            raise RuntimeError(f"the intake of {batch_id} was begun meanwhile")
        self.intakes[batch_id] = Intake(batch_id, dict(batches), dict(attached), finished=False)
        self.park(batch_id)

    def mark_attached(self, batch_id: str, programme: str, number: int) -> None:
        intake = self.intakes[batch_id]
        self.intakes[batch_id] = replace(intake, attached={**intake.attached, programme: number})

    def finish(self, batch_id: str, *, parked: bool = False) -> None:
        intake = self.intakes.get(batch_id)
        if intake is None or (intake.parked and not parked):
            raise RuntimeError(f"there is no intake of {batch_id} to finish")
        self.intakes[batch_id] = replace(intake, finished=True)
        self.given_up.discard(batch_id)


class MemoryLedger:
    """The ledger over dictionaries."""

    def __init__(
        self, register: MemoryRegister, clock: Clock, changed: Callable[[DPSExport], None] = lambda _: None
    ) -> None:
        self._register = register
        self._clock = clock
        self._changed = changed
        self._exports: dict[tuple[str, int], DPSExport] = {}
        self._open: dict[str, int] = {}
        self._files: dict[str, tuple[str, int, int]] = {}
        self._named: dict[str, tuple[datetime, int]] = {}

    def snapshot(self) -> object:
        """Return what `restore` puts back: a backup of the table. Exports are values, so that none is copied."""
        return {name: dict(vars(self)[name]) for name in ("_exports", "_open", "_files", "_named")}

    def restore(self, snapshot: object) -> None:
        """Put the ledger back to what it was when the snapshot was taken."""
        vars(self).update({name: dict(kept) for name, kept in cast("dict[str, dict[Any, Any]]", snapshot).items()})

    def get(self, programme: str, number: int) -> DPSExport:
        if (programme, number) not in self._exports:
            raise KeyError(f"{programme}-{number}")
        return self._exports[programme, number]

    def exports(self, programme: str) -> Iterator[DPSExport]:
        found = sorted(key for key in self._exports if key[0] == programme)
        yield from (replace(self._exports[key], batches=()) for key in found)

    def latest(self, programme: str, limit: int) -> Iterator[DPSExport]:
        yield from list(self.exports(programme))[::-1][:limit]

    def by_status(self, status: Status, since: datetime | None = None) -> Iterator[DPSExport]:
        found = [e for e in self._exports.values() if e.status is status and (since is None or e.updated_at >= since)]
        yield from (replace(export, batches=()) for export in sorted(found, key=lambda export: export.updated_at))

    def find(self, stem: str) -> tuple[DPSExport, int] | None:
        found = self._files.get(stem.lower())
        return (self.get(*found[:2]), found[2]) if found else None

    def attach(self, programme: str, batch_id: str, records: int) -> int | None:
        now = self._clock()
        number = self.highest(programme)
        known = self._exports.get((programme, number))
        if known is None or known.status is not Status.OPEN:
            number += 1
            known = DPSExport(
                programme=programme, number=number, status=Status.OPEN, records=0, created_at=now, updated_at=now
            )
        if not self._register.attach(batch_id, programme, number):
            return None
        self._open[programme] = number
        self._store(replace(known, batches=(*known.batches, batch_id), records=known.records + records, updated_at=now))
        return number

    def change(self, export: DPSExport, how: Callable[[DPSExport], DPSExport]) -> DPSExport:
        before = self.get(export.programme, export.number)
        after = self._store(how(before))
        if (before.status, before.processing) != (after.status, after.processing):
            self._changed(after)
        return after

    def begin_attempt(
        self,
        export: DPSExport,
        how: Callable[[DPSExport, FileNames], DPSExport],
        name: Callable[[datetime, int], FileNames],
    ) -> DPSExport:
        programme = export.programme
        last, sequence = self._named.get(programme, (None, 0))
        place = next_place(self._clock(), last, sequence)
        while _stem(names := name(*place)) in self._files:
            place = place[0] + timedelta(seconds=1), place[1] + 1
        changed = self._store(how(self.get(programme, export.number), names))
        self._named[programme] = place
        self._files[_stem(names)] = (*_key(changed), len(changed.attempts))
        self._changed(changed)
        return changed

    def highest(self, programme: str) -> int:
        return self._open.get(programme, 0)

    def put_back(self, programme: str, changes: Sequence[tuple[DPSExport | None, DPSExport]], highest: int) -> None:
        if any(self._exports.get(_key(changed)) != known for known, changed in changes):
            raise LedgerConflict(programme)
        self._open[programme] = max(highest, self.highest(programme))
        for _, changed in changes:
            self._store(changed)
            self._files |= {_stem(names): (*_key(changed), n) for n, names in enumerate(changed.names, 1)}

    def _store(self, export: DPSExport) -> DPSExport:
        self._exports[_key(export)] = stored = replace(export, revision=export.revision + 1)
        return stored


def _stem(names: FileNames) -> str:
    return names.mesh_filename.removesuffix(".csv").lower()


def _key(export: DPSExport) -> tuple[str, int]:
    return export.programme, export.number


# -- MESH


@dataclass
class Posted:
    """A message on its way, or in a mailbox.

    Attributes
    ----------
    chunks
        The bodies of its parts as they went over the wire, by their number.
    headers
        What the receiver is told of it.
    """

    message_id: str
    sender: str
    to: str
    local_id: str
    parts: int
    headers: dict[str, str]
    status: TrackingStatus = TrackingStatus.UPLOADING
    status_event: str | None = None
    status_code: str | None = None
    status_description: str | None = None
    chunks: dict[int, tuple[bytes, str | None]] = field(default_factory=dict)


@dataclass
class Fault:
    """What goes wrong at the next call of a method: before it has any effect, or once it has."""

    method: str
    error: Exception | None
    answer_lost: bool


class MemoryMesh:
    """MESH: messages between mailboxes, and what goes wrong on the way.

    Parameters
    ----------
    mailboxes
        Ids of the mailboxes that there are.

    Examples
    --------
    >>> mesh = MemoryMesh("X26ABC1", "X26ABC3")
    >>> mesh.lose_answer("send")
    >>> mesh.fail("track", Unavailable("no answer"))
    >>> mesh.mailbox("X26ABC1").send("X26ABC3", "W", part, local_id="hpv-1-1")
    """

    def __init__(self, *mailboxes: str) -> None:
        self.mailboxes = mailboxes
        self.messages: dict[str, Posted] = {}
        self.handshakes: list[str] = []
        self.calls: list[str] = []
        self._faults: list[Fault] = []
        self._posted = 0

    def mailbox(self, mailbox: str) -> MemoryMailbox:
        """Return a client of one mailbox."""
        return MemoryMailbox(self, mailbox)

    def fail(self, method: str, error: Exception, times: int = 1) -> None:
        """Let the next calls of a method fail before they have any effect."""
        self._faults += [Fault(method, error, answer_lost=False)] * times

    def lose_answer(self, method: str, times: int = 1) -> None:
        """Let the next calls of a method take effect, and their answers be lost."""
        self._faults += [Fault(method, None, answer_lost=True)] * times

    def next_fault(self, method: str) -> Fault | None:
        """Note a call of a method; return what goes wrong at it."""
        self.calls.append(method)
        fault = next((fault for fault in self._faults if fault.method == method), None)
        if fault:
            self._faults.remove(fault)
        return fault

    def post(self, sender: str, to: str, local_id: str, parts: int, headers: Mapping[str, str | None]) -> Posted:
        """Begin a message; its parts are still to come."""
        self._posted += 1
        message_id = f"20261123030618{self._posted:06}_ABCDEF"
        given = {name: value for name, value in headers.items() if value is not None}
        given |= {"Mex-From": sender, "Mex-To": to, "Mex-LocalID": local_id}
        posted = self.messages[message_id] = Posted(message_id, sender, to, local_id, parts, given)
        return posted

    def report(self, message_id: str, code: str = "14", description: str = NOT_COLLECTED) -> str:
        """Put MESH's own report on a message into its sender's inbox; return the report's id."""
        stranger = Posted(message_id, self.mailboxes[0], "", "", 1, {})
        about = self.messages.get(message_id, stranger)
        headers = {
            "Mex-MessageType": str(MessageType.REPORT),
            "Mex-WorkflowID": about.headers.get("Mex-WorkflowID"),
            "Mex-Subject": "NDR",
            "Mex-LinkedMsgID": message_id,
            "Mex-StatusEvent": "TRANSFER",
            "Mex-StatusCode": code,
            "Mex-StatusDescription": description,
        }
        report = self.post("", about.sender, about.local_id, 1, headers)
        report.chunks[1] = (b"", None)
        report.status = TrackingStatus.ACCEPTED
        return report.message_id


class MemoryMailbox:
    """One mailbox's client, as `nhs_mesh.MeshClient` is over the network (`vaccinations.ports.Mesh`)."""

    def __init__(self, mesh: MemoryMesh, mailbox: str) -> None:
        self._mesh = mesh
        self.mailbox = mailbox

    def handshake(self) -> None:
        self._before("handshake")
        self._mesh.handshakes.append(self.mailbox)

    def send(
        self,
        to: str,
        workflow_id: str,
        part: Part,
        *,
        parts: int = 1,
        filename: str | None = None,
        local_id: str | None = None,
        subject: str | None = None,
        content_type: str = "application/octet-stream",
        checksum: str | None = None,
    ) -> SentMessage:
        answer_lost = self._before("send")
        if to not in self._mesh.mailboxes:
            raise Refused(417, code="12", description="Unregistered to address", event="SEND")
        headers = {
            "Mex-WorkflowID": workflow_id,
            "Mex-FileName": filename,
            "Mex-Subject": subject,
            "Mex-Content-Checksum": checksum,
            "Content-Type": content_type,
        }
        body = _read(part)  # a body that is cut off makes no message
        posted = self._mesh.post(self.mailbox, to, local_id or "", parts, headers)
        _add(posted, 1, part, body)
        if answer_lost:
            raise SendOutcomeUnknown("the answer was lost", local_id=local_id or "")
        return SentMessage(posted.message_id, parts, local_id)

    def send_chunk(self, message_id: str, number: int, parts: int, part: Part) -> None:  # noqa: ARG002
        answer_lost = self._before("send_chunk")
        posted = self._own(message_id)
        if posted.status is not TrackingStatus.UPLOADING:
            raise Refused(423, message_id=message_id)
        _add(posted, number, part, _read(part))
        if answer_lost:
            raise Unavailable("the answer was lost")

    def send_file(self, to: str, workflow_id: str, body: bytes, **options: Any) -> SentMessage:
        """Send a whole message, as somebody else does."""
        part = Part(lambda: io.BytesIO(body), len(body))
        return self.send(to, workflow_id, part, **options)

    def track(self, message_id: str) -> Tracking:
        self._before("track")
        return _tracking(self._own(message_id))

    def track_by_local_id(self, local_id: str) -> Tracking:
        self._before("track_by_local_id")
        found = [m for m in self._mesh.messages.values() if m.local_id == local_id and m.sender == self.mailbox]
        if len(found) > 1:
            raise NotUnique(local_id)
        if not found:
            raise NotFound(f"there is no message of local id {local_id}")
        return _tracking(found[0])

    def inbox(self, *, workflow_filter: str | None = None) -> Iterator[str]:
        self._before("inbox")
        waiting = [
            posted.message_id
            for posted in self._mesh.messages.values()
            if posted.to == self.mailbox
            and posted.status is TrackingStatus.ACCEPTED
            and workflow_filter in {None, posted.headers.get("Mex-WorkflowID")}
        ]
        return iter(waiting)

    def download(self, message_id: str, *, chunk: int | None = None, decode: bool = True) -> Message:
        self._before("download")
        posted = self._received(message_id)

        def fetch(number: int) -> BaseHTTPResponse:
            return _response(posted, number)

        return Message(message_id, fetch(chunk or 1), fetch, chunk=chunk, decode=decode)

    def acknowledge(self, message_id: str) -> None:
        answer_lost = self._before("acknowledge")
        self._received(message_id).status = TrackingStatus.ACKNOWLEDGED
        if answer_lost:
            raise Unavailable("the answer was lost")

    def _before(self, method: str) -> bool:
        """Let a call fail where it is to; tell whether its answer is to be lost."""
        fault = self._mesh.next_fault(method)
        if fault and fault.error:
            raise fault.error
        return fault is not None

    def _own(self, message_id: str) -> Posted:
        posted = self._mesh.messages.get(message_id)
        if posted is None or posted.sender != self.mailbox:
            raise NotFound(f"there is no message {message_id}")
        return posted

    def _received(self, message_id: str) -> Posted:
        posted = self._mesh.messages.get(message_id)
        if posted is None or posted.to != self.mailbox or posted.status is TrackingStatus.UPLOADING:
            raise NotFound(f"there is no message {message_id}")
        return posted


def _read(part: Part) -> bytes:
    with part.open() as opened:
        body = opened.read()
    assert len(body) == part.size, "MESH is told another length than a part has"
    return body


def _add(posted: Posted, number: int, part: Part, body: bytes) -> None:
    posted.chunks[number] = (body, part.content_encoding)
    if number == posted.parts:
        posted.status = TrackingStatus.ACCEPTED


def _tracking(posted: Posted) -> Tracking:
    return Tracking(
        posted.message_id,
        posted.status,
        local_id=posted.local_id,
        workflow_id=posted.headers.get("Mex-WorkflowID"),
        filename=posted.headers.get("Mex-FileName"),
        recipient=posted.to,
        status_event=posted.status_event,
        status_code=posted.status_code,
        status_description=posted.status_description,
    )


class _Response(io.BytesIO):
    """An answer as urllib3 gives it."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        super().__init__(body)
        self.status = status
        self.headers = headers

    def read(self, size: int | None = -1, *, decode_content: bool = False) -> bytes:  # type: ignore[override]  # noqa: ARG002
        return super().read(size)


def _response(posted: Posted, number: int) -> BaseHTTPResponse:
    body, encoding = posted.chunks[number]
    headers = posted.headers | ({"Content-Encoding": encoding} if encoding else {})
    headers |= {"Mex-Chunk-Range": f"{number}:{posted.parts}", "Content-Length": str(len(body))}
    return cast("BaseHTTPResponse", _Response(200 if number == posted.parts else 206, headers, body))
