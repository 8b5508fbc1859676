"""The stand-in for DPS: picks vaccination files up, applies the receiver's rules to them, answers as DPS does.

It models the national Immunisation API's batch service as far as a sender can tell: which files and rows are processed
and which refused, and the InfAck and BusAck files that say so (`that service's public code
<https://github.com/NHSDigital/immunisation-fhir-api>`_, May 2026). Names and rows are judged by `local.rules`; its user
says what is refused beyond that, and where DPS fails.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from local.rules import PERMISSIONS, crashes_at, faults_of, type_and_supplier
from vaccinations.formats.dps_columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping
    from pathlib import Path

    from nhs_mesh import MeshClient

__all__ = [
    "BUS_ACK_COLUMNS",
    "INF_ACK_COLUMNS",
    "Dps",
    "FileStatus",
    "JudgedRow",
    "RecordOnFile",
    "VaccinationFile",
    "identifier",
]

type Row = dict[str, str]
"""A row of a vaccination file, by column."""

INF_ACK_COLUMNS = (
    "MESSAGE_HEADER_ID",
    "HEADER_RESPONSE_CODE",
    "ISSUE_SEVERITY",
    "ISSUE_CODE",
    "ISSUE_DETAILS_CODE",
    "RESPONSE_TYPE",
    "RESPONSE_CODE",
    "RESPONSE_DISPLAY",
    "RECEIVED_TIME",
    "MAILBOX_FROM",
    "LOCAL_ID",
    "MESSAGE_DELIVERY",
)
BUS_ACK_COLUMNS = (*INF_ACK_COLUMNS[:11], "IMMS_ID", "OPERATION_OUTCOME", "MESSAGE_DELIVERY")

_FATAL = "Business Level Response Value - Processing Error"
#: The letter of the permission that each action needs.
_ACTIONS = {"NEW": "C", "UPDATE": "U", "DELETE": "D"}
#: So long a name is remembered, and so long a file waits behind a refused one.
_NAMES_KEPT, _LONGEST_WAIT = timedelta(days=60), timedelta(days=4)


class FileStatus(StrEnum):
    """What became of a file that arrived."""

    PROCESSED = "processed"
    IGNORED = "ignored"
    """Its message has no file name: DPS neither processes nor answers it."""
    BAD_NAME = "bad name"
    UNAUTHORISED = "unauthorised"
    """Its supplier may do nothing with its type."""
    DUPLICATE = "duplicate"
    """DPS has processed a file of this name."""
    EMPTY = "empty"
    """It has no rows."""
    FAILED = "failed"
    """Its header is wrong, or DPS crashed at a row. Later files of its type wait until DPS has cleared it."""
    WAITING = "waiting"
    """An earlier file of its type has failed."""
    DROPPED = "dropped"
    """It waited for longer than DPS's queue keeps it: nobody is told."""


@dataclass(frozen=True, slots=True)
class JudgedRow:
    """A row, and what became of it.

    Attributes
    ----------
    number
        Its place in the file; the first data row is 1.
    refused
        Why it was refused (what DPS calls OPERATION_OUTCOME); empty where it was processed.
    """

    number: int
    row: Row = field(repr=False)
    refused: str

    @property
    def local_id(self) -> str:
        """How the answers name the record."""
        return f"{self.row.get('UNIQUE_ID', '')}^{self.row.get('UNIQUE_ID_URI', '')}"


@dataclass(slots=True)
class VaccinationFile:
    """A file that arrived, and what became of it.

    Attributes
    ----------
    file_id
        DPS's own id for it.
    message_id, sender, name
        MESH's id of the message, the mailbox it came from, its file name.
    received_at
        When it was picked up. All answers to it have this time.
    problem
        Why the file as a whole was refused; empty where it was not.
    rows
        Its rows in file order; none where it was refused. Where DPS crashed, those before.
    status
        What became of it.
    vaccine_type, supplier
        What its name says.
    acknowledged_twice
        Whether DPS's last step runs twice: it then lists each refused row twice as CSV, and counts it twice as JSON.
    """

    file_id: str
    message_id: str
    sender: str
    name: str
    received_at: datetime
    problem: str = ""
    rows: list[JudgedRow] = field(default_factory=list)
    status: FileStatus = FileStatus.PROCESSED
    vaccine_type: str = ""
    supplier: str = ""
    acknowledged_twice: bool = False

    @property
    def refused(self) -> list[JudgedRow]:
        """The rows that were refused."""
        return [row for row in self.rows if row.refused]

    @property
    def processed(self) -> int:
        """How many rows were processed."""
        return len(self.rows) - len(self.refused)

    # -- the answers

    def answers(self) -> Iterator[tuple[str, bytes]]:
        """Make the files that DPS answers with, in the order in which it sends them: names and contents.

        There is no answer to a file that is ignored, or whose turn has not come, and no BusAck to one without rows, or
        at which DPS crashed.
        """
        if self.status in {FileStatus.IGNORED, FileStatus.WAITING, FileStatus.DROPPED}:
            return
        stem = self.name.rpartition(".")[0] or self.name
        yield f"{stem}_InfAck_{self._received_time}.csv", self._inf_ack()
        if self.rows and self.status is FileStatus.PROCESSED:
            yield f"{stem}_BusAck_{self._received_time}.csv", self._bus_ack_csv()
            yield f"{stem}_BusAck_{self._received_time}.json", self._bus_ack_json(stem)

    @property
    def _received_time(self) -> str:
        return f"{self.received_at.astimezone(UTC):%Y%m%dT%H%M%S}00"

    def _inf_ack(self) -> bytes:
        if self.problem:
            display = "Infrastructure Level Response Value - Processing Error"
            codes = ["Failure", "Fatal", "Fatal Error", "10001", "Technical", "10002", display]
        else:
            codes = ["Success", "Information", "OK", "20013", "Technical", "20013", "Success"]
        row = [self.file_id, *codes, self._received_time, "", "", str(not self.problem)]
        return "".join("|".join(cells) + "\r\n" for cells in (INF_ACK_COLUMNS, row)).encode()

    def _bus_ack_csv(self) -> bytes:
        lines = ["|".join(BUS_ACK_COLUMNS)]
        codes = ["Fatal Error", "Fatal", "Fatal Error", "30002", "Business", "30002", _FATAL]
        for row in self.refused * (1 + self.acknowledged_twice):
            header_id = f"{self.file_id}^{row.number}"
            rest = [self._received_time, "", row.local_id, "", row.refused, "False"]
            lines.append("|".join([header_id, *codes, *rest]))
        return "".join(line + "\n" for line in lines).encode()

    def _bus_ack_json(self, stem: str) -> bytes:
        moment = self.received_at.astimezone(UTC)
        failed = len(self.refused) * (1 + self.acknowledged_twice)
        document = {
            "system": "Immunisation FHIR API Batch Report",
            "version": 1,
            "generatedDate": f"{moment:%Y-%m-%dT%H:%M:%S}.000Z",
            "provider": self.supplier,
            "filename": stem,
            "messageHeaderId": self.file_id,
            "summary": {
                "totalRecords": len(self.rows),
                "succeeded": len(self.rows) - failed,
                "failed": failed,
                "ingestionTime": {"start": int(moment.timestamp()), "end": int(moment.timestamp())},
            },
            "failures": [
                {
                    "rowId": row.number,
                    "responseCode": "30002",
                    "responseDisplay": _FATAL,
                    "severity": "Fatal",
                    "localId": row.local_id,
                    "operationOutcome": row.refused,
                }
                for row in self.refused
            ],
        }
        return json.dumps(document, indent=2).encode()


@dataclass(slots=True)
class RecordOnFile:
    """A record that is on file at DPS.

    Attributes
    ----------
    row
        The last row about it that was processed.
    deleted
        Whether that was a `delete`. A later `new` or `update` reinstates the record.
    """

    row: Row = field(repr=False)
    deleted: bool


def identifier(row: Row) -> str:
    """Return the identifier of a row's record, as DPS writes it."""
    return f"{row.get('UNIQUE_ID_URI', '')}#{row.get('UNIQUE_ID', '')}"


class Dps:
    """DPS, with all that it has on file, in memory. Messages are streamed; their rows are kept.

    Parameters
    ----------
    client
        The MESH client of DPS's own mailbox.
    refuse
        Given a row, says why it is refused (OPERATION_OUTCOME), or None. It is asked before the record is looked up,
        as DPS validates first.
    refuse_file
        Given a file's name, says why the file is refused as a whole, or None. Like a bad name it holds nothing back.
    unhandled
        Given a row, says whether DPS fails at it, once it is processed (true) or before (false); None where it does not
        fail.
    crashes
        Given a row, says whether DPS crashes at it: the file has failed, and what came before the row is processed.
    permissions
        For each supplier, the letters of what it may do with each type.
    answers_workflow_id
        The workflow id of the answers, on which sender and DPS agree.
    clock
        Tells the time at which a file is picked up.

    Attributes
    ----------
    files
        What was picked up, in order.
    on_file
        The records on file, by `identifier`.
    """

    def __init__(
        self,
        client: MeshClient,
        *,
        refuse: Callable[[Row], str | None] = lambda row: None,  # noqa: ARG005
        refuse_file: Callable[[str], str | None] = lambda name: None,  # noqa: ARG005
        unhandled: Callable[[Row], bool | None] = lambda row: None,  # noqa: ARG005
        crashes: Callable[[Row], bool] = crashes_at,
        permissions: Mapping[str, Mapping[str, str]] = PERMISSIONS,
        answers_workflow_id: str = "dps export ack",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.files: list[VaccinationFile] = []
        self.on_file: dict[str, RecordOnFile] = {}
        self._client = client
        self._refuse = refuse
        self._refuse_file = refuse_file
        self._unhandled = unhandled
        self._crashes = crashes
        self._permissions = permissions
        self._answers_workflow_id = answers_workflow_id
        self._clock = clock
        self._names: dict[str, datetime] = {}
        self._held_back: set[tuple[str, str]] = set()
        self._waiting: list[tuple[VaccinationFile, tuple[str, ...], list[Row]]] = []
        self._permitted = ""

    def work(self) -> list[VaccinationFile]:
        """Pick up every file that waits, and answer it."""
        picked_up = self.pick_up()
        for file in picked_up:
            self.answer(file)
        return picked_up

    def pick_up(self, leave: Container[str] = ()) -> list[VaccinationFile]:
        """Process the files that wait in the mailbox, in the order in which they came, and acknowledge each.

        Parameters
        ----------
        leave
            The ids of messages to leave in the mailbox.
        """
        picked_up = []
        for message_id in list(self._client.inbox()):
            if message_id in leave:
                continue
            file = self._process(message_id)
            self._client.acknowledge(message_id)
            self.files.append(file)
            picked_up.append(file)
        return picked_up

    def answer(self, file: VaccinationFile, formats: Container[str] = ("csv", "json")) -> list[str]:
        """Send the answers to a file to the mailbox it came from; return their message ids. A second call repeats them.

        Parameters
        ----------
        formats
            The formats of the BusAck.
        """
        return [
            self._client.send_file(file.sender, self._answers_workflow_id, body, filename=name).message_id
            for name, body in file.answers()
            if "_InfAck_" in name or name.rpartition(".")[2] in formats
        ]

    def clear(self, vaccine_type: str, supplier: str = "MAVIS") -> list[VaccinationFile]:
        """Clear the file that has failed, as DPS's operators do; return those whose turn has come, in order."""
        self._held_back.discard((vaccine_type, supplier))
        waiting, self._waiting = self._waiting, []
        for file, header, rows in waiting:
            if (file.vaccine_type, file.supplier) != (vaccine_type, supplier):
                self._waiting.append((file, header, rows))
            elif self._clock() - file.received_at > _LONGEST_WAIT:
                file.status = FileStatus.DROPPED
            else:
                self._take_turn(file, header, rows)
        return [file for file, _, _ in waiting if file.status is not FileStatus.WAITING]

    def _process(self, message_id: str) -> VaccinationFile:
        with self._client.download(message_id) as message:
            name = message.filename or ""
            file = VaccinationFile(str(uuid.uuid4()), message_id, message.sender or "", name, self._clock())
            if not name or "/" in name:
                file.status = FileStatus.IGNORED
                return file
            known = type_and_supplier(name)
            if known is None:
                return self._refuse_whole(file, FileStatus.BAD_NAME, "invalid file key format")
            file.vaccine_type, file.supplier = known
            if not self._permissions.get(file.supplier, {}).get(file.vaccine_type):
                return self._refuse_whole(file, FileStatus.UNAUTHORISED, "no permission for the vaccine type")
            text = io.TextIOWrapper(io.BufferedReader(message), encoding="utf-8", newline="")
            reader = csv.DictReader(text, delimiter="|", restval="")
            self._take_turn(file, tuple(reader.fieldnames or ()), reader)
        return file

    def _take_turn(self, file: VaccinationFile, header: tuple[str, ...], rows: Iterable[Row]) -> None:
        """Process a file, unless an earlier one of its type and supplier has failed."""
        queue = (file.vaccine_type, file.supplier)
        if queue in self._held_back:
            file.status = FileStatus.WAITING
            self._waiting.append((file, header, list(rows)))
            return
        if (before := self._names.get(file.name)) and self._clock() - before < _NAMES_KEPT:
            self._refuse_whole(file, FileStatus.DUPLICATE, "a file of this name was processed before")
        elif problem := self._refuse_file(file.name):
            self._refuse_whole(file, FileStatus.BAD_NAME, problem)
        elif header != COLUMNS:
            self._held_back.add(queue)
            self._refuse_whole(file, FileStatus.FAILED, "its headers are missing or wrong")
        else:
            self._permitted = self._permissions[file.supplier][file.vaccine_type]
            file.status = self._process_rows(file, rows)
            if file.status is FileStatus.FAILED:
                self._held_back.add(queue)
            elif file.rows:
                self._names[file.name] = file.received_at

    def _process_rows(self, file: VaccinationFile, rows: Iterable[Row]) -> FileStatus:
        """Process a file's rows, in order; tell what became of the file."""
        try:
            for number, row in enumerate(rows, 1):
                if self._crashes(row):
                    return FileStatus.FAILED
                file.rows.append(JudgedRow(number, row, self._judge(row)))
        except csv.Error:  # a cell that is too long
            return FileStatus.FAILED
        return FileStatus.PROCESSED if file.rows else FileStatus.EMPTY

    def _refuse_whole(self, file: VaccinationFile, status: FileStatus, problem: str) -> VaccinationFile:
        file.status, file.problem = status, problem
        return file

    def _judge(self, row: Row) -> str:
        """Process a row, or say why it is refused: by its action, what it holds, and what is on file."""
        row.pop(None, None)  # type: ignore[call-overload] # cells beyond the last column
        action = row["ACTION_FLAG"].upper()
        if action not in _ACTIONS:
            return "Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'"
        if _ACTIONS[action] not in self._permitted:
            return "No permissions for requested operation"
        if not (row["UNIQUE_ID"] and row["UNIQUE_ID_URI"]):
            return "UNIQUE_ID or UNIQUE_ID_URI is missing"
        faults = "" if action == "DELETE" else faults_of(row, self._clock())
        if refused := faults or self._refuse(row):
            return " ".join(refused.split())  # DPS puts it on one line
        record = identifier(row)
        known = self.on_file.get(record)
        if action == "NEW" and known and not known.deleted:
            return f"The provided identifier: {record} is duplicated"
        if (action == "UPDATE" and not known) or (action == "DELETE" and (not known or known.deleted)):
            return f"Immunization resource does not exist. ID: {record}"
        processed = self._unhandled(row)
        if processed is not False:
            self.on_file[record] = RecordOnFile(row, deleted=action == "DELETE")
        return "" if processed is None else "An unhandled error occurred during batch processing"

    def take(self, row: Row) -> None:
        """Have a record on file that came another way."""
        self.on_file[identifier(row)] = RecordOnFile(row, deleted=False)

    # -- from one run of a command to the next

    def save(self, path: Path) -> None:
        """Write down what is on file, which names it has seen, and what waits."""
        known: dict[str, Any] = {
            "names": {name: at.isoformat() for name, at in self._names.items()},
            "held_back": sorted(self._held_back),
            "waiting": [
                [{**asdict(file), "received_at": file.received_at.isoformat()}, header, rows]
                for file, header, rows in self._waiting
            ],
            "on_file": {identifier: asdict(record) for identifier, record in self.on_file.items()},
        }
        path.write_text(json.dumps(known))

    def load(self, path: Path) -> None:
        """Load what `save` wrote, where there is such a file."""
        if not path.exists():
            return
        known: dict[str, Any] = json.loads(path.read_text())
        self._names = {name: datetime.fromisoformat(at) for name, at in known["names"].items()}
        self._held_back = {(vaccine_type, supplier) for vaccine_type, supplier in known["held_back"]}
        for facts, header, rows in known["waiting"]:
            facts |= {
                "received_at": datetime.fromisoformat(facts["received_at"]),
                "status": FileStatus(facts["status"]),
            }
            self._waiting.append((VaccinationFile(**facts), tuple(header), rows))
        self.on_file = {identifier: RecordOnFile(**record) for identifier, record in known["on_file"].items()}
