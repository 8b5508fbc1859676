"""A process that can be made to die anywhere: one invocation of a use case, killed at a chosen call.

Run as a program it is a fork server: it reads one job a line, as JSON, forks, and the fork does the job with boto3
and MESH clients that were made beforehand. Every HTTP request to AWS or MESH is a *point*, numbered from 1; at the
point that the job names, the fork kills itself with SIGKILL, so that nothing of it can tidy up. What it says in answer
is one line: the points it came to, how it ended, and what the use case answered.

`Victim` is the other end.
"""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from local.sandbox import Sandbox
    from vaccinations.settings import Settings

__all__ = ["SIDES", "Death", "Run", "Victim"]

#: Where at a point it may die: before the request is made, half-way through a body, or once the answer is there.
SIDES = ("before", "during", "after")
#: Before which requests nobody freezes, by use case: so little time passes between them and what was asked before.
SPARED = {"export": ("mesh POST", "s3 GetObject"), "ingest": ("dynamodb BatchWriteItem",)}


@dataclass(frozen=True, slots=True)
class Death:
    """Where to die: at a point (from 1; only those whose names begin so count), on one of its `SIDES`.

    On the side ``lost`` nothing dies, but the answer never comes. On the side ``frozen`` nothing dies, but it stops
    before the request, or before the next one that is not `SPARED`, until it is thawed.
    """

    point: int
    side: str
    among: str = ""


@dataclass(frozen=True, slots=True)
class Run:
    """How an invocation went.

    Attributes
    ----------
    points
        The calls it came to, in order, such as ``dynamodb UpdateItem`` or ``mesh POST``.
    killed
        Whether it died by SIGKILL.
    answer
        What the use case answered; None where it died.
    error
        What was raised, with its traceback.
    frozen
        Where it is frozen: what `Victim.thaw` and `Victim.kill` want to know; empty where it is not.
    """

    points: tuple[str, ...]
    killed: bool
    answer: Any
    error: str
    frozen: str = ""


class Victim:
    """The fork server, up between ``with`` and its end."""

    def __init__(self, endpoint: str, sandbox: Sandbox, folder: Path) -> None:
        certificates = sandbox.certificates
        self._log = (folder / "victim.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.victim"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
        )
        self._say(
            {
                "endpoint": endpoint,
                "mesh": {
                    "base_url": sandbox.base_url,
                    "certificate": certificates.certificate,
                    "private_key": certificates.private_key,
                    "passphrase": certificates.passphrase,
                    "ca_bundle": certificates.ca_bundle,
                },
                "credentials": [sandbox.mailboxes[0], sandbox.password, sandbox.shared_key],
            }
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()
        self._log.close()

    def run(
        self,
        use_case: str,
        settings: Settings,
        *,
        dynamodb: str,
        now: datetime,
        seconds_left: list[float] | None = None,
        death: Death | None = None,
        part_bytes: int | None = None,
        **options: Any,
    ) -> Run:
        """Do one invocation of ``ingest``, ``export``, ``track``, ``collect`` or ``reconcile``.

        Parameters
        ----------
        dynamodb
            Where the tables are.
        now
            What its clock says when it begins.
        seconds_left
            What an export hears, one after the other, when it asks how long it may still run; 900 from then on.
        death
            Where it dies; nowhere where None, or where it never gets there.
        part_bytes
            The size of an export's parts.
        options
            ``queue`` for ingest and reconcile, or ``message`` for ingest: what one message asks for; the event for
            export.
        """
        job = uuid.uuid4().hex
        self._say(
            {
                "job": job,
                "use_case": use_case,
                "settings": asdict(settings),
                "dynamodb": dynamodb,
                "now": now.isoformat(),
                "seconds_left": seconds_left or [],
                "die": asdict(death) if death else None,
                "part_bytes": part_bytes,
                "options": options,
            }
        )
        return self._answer(job)

    def thaw(self, frozen: str, now: datetime) -> Run:
        """Let a frozen invocation go on to its end; its clock then says what is given."""
        self._say({"thaw": frozen, "job": frozen, "now": now.isoformat()})
        return self._answer(frozen)

    def kill(self, frozen: str) -> None:
        """Let a frozen invocation never go on."""
        self._say({"thaw": frozen, "job": frozen, "now": ""})
        self._answer(frozen)

    def _answer(self, job: str) -> Run:
        assert self._process.stdout
        said: dict[str, Any] = {}
        # A test that was interrupted has left its answer unread.
        while said.get("job") != job:
            line = self._process.stdout.readline()
            if not line:
                raise RuntimeError(f"the fork server ended; see {self._log.name}")
            said = json.loads(line)
        frozen = job if said["frozen"] else ""
        return Run(tuple(said["points"]), said["signal"] == signal.SIGKILL, said["answer"], said["error"], frozen)

    def _say(self, document: Mapping[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(document).encode() + b"\n")
        self._process.stdin.flush()


class _Points:
    """Numbers the calls, tells of each, and dies at one of them."""

    def __init__(self) -> None:
        self.tell = self.hear = -1
        self.spared: tuple[str, ...] = ()
        self._ahead = timedelta()
        self.death: Death | None = None
        self._number = 0
        self._counts = False

    def before(self, name: str) -> None:
        self._counts = name.startswith(self.death.among if self.death else "")
        self._number += self._counts
        os.write(self.tell, json.dumps({"point": name}).encode() + b"\n")
        self.at("before")
        if self.death and self.death.side == "frozen" and self._is_past(name):
            self._freeze()

    def _is_past(self, name: str) -> bool:
        return self.death is not None and self._number >= self.death.point and not name.startswith(self.spared)

    def _freeze(self) -> None:
        self.death = None
        os.write(self.tell, json.dumps({"frozen": True}).encode() + b"\n")
        if not (now := os.read(self.hear, 100).decode()):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        self.set(datetime.fromisoformat(now))

    def set(self, now: datetime) -> None:
        """Let the clock say something else from now on."""
        self._ahead = now - datetime.now(UTC)

    def clock(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def is_here(self, side: str) -> bool:
        """Tell whether this point and side is the one."""
        death = self.death
        return death is not None and self._counts and (death.point, death.side) == (self._number, side)

    def at(self, side: str) -> None:
        if self.is_here(side):
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)


class _Torn:
    """A body of which one half is sent before the process dies."""

    def __init__(self, body: Any, points: _Points) -> None:
        self._body = body
        self._points = points
        self._rest: bytes | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._body, name)

    def __len__(self) -> int:
        return len(self._body)

    def read(self, size: int = -1) -> bytes:
        if self._rest is not None:
            self._points.at("during")
            rest, self._rest = self._rest, None
            return rest
        data: bytes = self._body.read(size)
        if len(data) < 2:
            return data
        self._rest = data[len(data) // 2 :]
        return data[: len(data) // 2]


def _watch_aws(session: Any, points: _Points) -> None:
    """Make every request of the session's clients to come a point."""
    from botocore.exceptions import EndpointConnectionError

    def before(event_name: str, **_: Any) -> None:
        points.before(" ".join(event_name.split(".")[1:]))

    def after(**_: Any) -> None:
        points.at("after")
        if points.is_here("lost"):
            raise EndpointConnectionError(endpoint_url="the answer was lost")

    session.events.register("before-send", before)
    session.events.register("response-received", after)


def _watch_mesh(points: _Points) -> None:
    """Make every request to MESH a point."""
    from nhs_mesh.transport import _Pool

    send = _Pool.urlopen

    def watched(self: _Pool, method: str, url: str, body: Any = None, **options: Any) -> Any:
        path = urlsplit(url).path.removeprefix("/messageexchange/").split("/")
        points.before(f"mesh {method} {'/'.join(path[1:2])}")
        if body is not None:
            body = _Torn(body, points)
        response = send(self, method, url, body=body, **options)
        points.at("after")
        if points.is_here("lost"):
            response.close()
            raise ConnectionResetError("the answer was lost")
        return response

    _Pool.urlopen = watched  # type: ignore[method-assign]


def _do(job: dict[str, Any], clients: dict[str, Any], mesh: Any, points: _Points) -> Any:
    """Do one invocation, as Lambda would."""
    # Imported by the fork server already.
    import vaccinations.aws.register
    import vaccinations.formats.dps_parts
    import vaccinations.jobs.ingest
    import vaccinations.jobs.reconcile
    import vaccinations.jobs.render
    from vaccinations.aws.queue import Queue
    from vaccinations.formats.dps_parts import write_part
    from vaccinations.jobs.export import ExportRequest
    from vaccinations.jobs.reconcile import ReconcileRequest
    from vaccinations.results import document
    from vaccinations.settings import Settings
    from vaccinations.wiring import Wiring

    points.set(datetime.fromisoformat(job["now"]))
    wiring = Wiring(Settings(**job["settings"]), SimpleNamespace(**clients), points.clock)  # type: ignore[arg-type]
    vars(wiring)["mesh"] = lambda: mesh
    options = job["options"]
    if job["part_bytes"]:
        vars(vaccinations.jobs.render)["write_part"] = partial(write_part, part_bytes=job["part_bytes"])
        vars(vaccinations.formats.dps_parts)["MEMBER_CHARACTERS"] = job["part_bytes"]
    for module in (vaccinations.jobs.render, vaccinations.jobs.ingest, vaccinations.aws.register):
        vars(module)["prefetch"] = _in_turn
    match job["use_case"]:
        case "ingest" if "message" in options:
            what, *about = options["message"]
            return document(getattr(wiring.ingest(), what)(*about, *(["as asked"] if what != "ingest" else [])))
        case "ingest":
            return _poll(wiring.ingest(), clients["sqs"], options["queue"])
        case "export":
            told = iter(job["seconds_left"])
            export = wiring.export(str(uuid.uuid4()), lambda: next(told, 900.0))
            return document(export.run(ExportRequest.from_event(options)))
        case "track":
            return document(wiring.track().run())
        case "collect":
            collect = wiring.collect(lambda: 900.0)
            return document(collect.again() if options.get("again") else collect.run())
        case "reconcile":
            vars(wiring)["queue"] = lambda: Queue(clients["sqs"], options["queue"])
            asked = ReconcileRequest(minutes=0, restored=bool(options.get("restored")))
            return document(wiring.reconcile(lambda: 900.0).run(asked))
    raise ValueError(job["use_case"])


def _in_turn(work: Callable[[Any], Any], items: Iterable[Any], *, depth: int) -> Iterator[Any]:
    """Do without threads, which would come to their points now in this order, now in that."""
    yield from map(work, items)


def _poll(ingest: Any, sqs: Any, queue: str) -> list[Any]:
    """Ingest what the queue's messages tell of, each deleted once it was, as Lambda's poller does."""
    from vaccinations.results import document

    answers = []
    while messages := sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=1).get("Messages"):
        for message in messages:
            told = json.loads(message["Body"])
            if "detail" in told:
                told = {"key": told["detail"]["object"]["key"], "version": told["detail"]["object"]["version-id"]}
            answers.append(document(ingest.ingest(**told)))
            sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])
    return answers


def _serve() -> None:
    import logging
    import traceback

    import boto3

    # What the forks need is loaded once, here.
    import vaccinations.aws.bucket
    import vaccinations.aws.ledger
    import vaccinations.aws.register
    import vaccinations.jobs.collect
    import vaccinations.jobs.export
    import vaccinations.jobs.ingest
    import vaccinations.jobs.reconcile
    import vaccinations.jobs.track
    import vaccinations.wiring  # noqa: F401
    from nhs_mesh import Credentials, MeshClient

    logging.disable(logging.CRITICAL)
    setup = json.loads(sys.stdin.readline())
    points = _Points()
    session = boto3.Session("testing", "testing", region_name="eu-west-2")
    _watch_aws(session, points)
    _watch_mesh(points)
    clients = {name: session.client(name, endpoint_url=setup["endpoint"]) for name in ("s3", "sqs", "events")}
    mesh = MeshClient(setup["mesh"].pop("base_url"), Credentials(*setup["credentials"]), **setup["mesh"])
    clients["s3"].can_paginate("list_objects_v2")  # reads that up
    tables: dict[str, Any] = {}
    gc.freeze()  # no fork looks through what is loaded for garbage
    frozen: dict[str, tuple[int, Any, int]] = {}
    for line in sys.stdin:
        job = json.loads(line)
        if "thaw" in job:
            child, pipe, speaking = frozen.pop(job["thaw"])
            os.write(speaking, job["now"].encode())
            os.close(speaking)
            _tell(job["job"], child, pipe)
            continue
        if job["dynamodb"] not in tables:
            tables[job["dynamodb"]] = session.client("dynamodb", endpoint_url=job["dynamodb"])
            tables[job["dynamodb"]].can_paginate("query")
        clients["dynamodb"] = tables[job["dynamodb"]]
        receiving, telling = os.pipe()
        hearing, speaking = os.pipe()
        if not (child := os.fork()):
            os.close(receiving)
            os.close(speaking)
            os.dup2(2, 1)  # metrics are written to standard output
            points.tell, points.hear, points.spared = telling, hearing, SPARED.get(job["use_case"], ())
            points.death = Death(**job["die"]) if job["die"] else None
            try:
                end = {"answer": _do(job, clients, mesh, points)}
            except BaseException:  # noqa: BLE001 - it is told
                end = {"error": traceback.format_exc()}
            os.write(telling, json.dumps(end, default=str).encode() + b"\n")
            os._exit(0)
        os.close(telling)
        os.close(hearing)
        pipe = os.fdopen(receiving)
        if _tell(job["job"], child, pipe):
            frozen[job["job"]] = child, pipe, speaking
        else:
            os.close(speaking)


def _tell(job: str, child: int, pipe: Any) -> bool:
    """Tell how an invocation went, once it has ended or is frozen; answer whether it is."""
    said: dict[str, Any] = {"job": job, "points": [], "answer": None, "error": "", "signal": 0, "frozen": False}
    for text in pipe:
        told = json.loads(text)
        if "point" in told:
            said["points"].append(told["point"])
        else:
            said |= told
        if said["frozen"]:
            break
    else:
        pipe.close()
        _, status = os.waitpid(child, 0)
        said["signal"] = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
    sys.stdout.write(json.dumps(said) + "\n")
    sys.stdout.flush()
    return bool(said["frozen"])


if __name__ == "__main__":
    _serve()
