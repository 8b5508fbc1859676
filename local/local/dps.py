"""The stand-in for DPS: picks vaccination files up, applies the receiver's rules to them, answers as DPS does.

It models the national Immunisation API's batch service as far as a sender can tell: which files and rows are processed
and which refused, and the InfAck and BusAck files that say so (`that service's public code
<https://github.com/NHSDigital/immunisation-fhir-api>`_, May 2026). It does not check
rows for what DPS calls validation; its user says which rows are refused, and why.
"""

from __future__ import annotations

import csv
import io
import json
import uuid
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from vaccinations.formats.dps_columns import COLUMNS

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator
    from pathlib import Path

    from nhs_mesh import MeshClient

__all__ = ["BUS_ACK_COLUMNS", "INF_ACK_COLUMNS", "Dps", "JudgedRow", "RecordOnFile", "VaccinationFile", "identifier"]

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
_ACTIONS = {"NEW", "UPDATE", "DELETE"}


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
        Its rows in file order; none where it was refused.
    """

    file_id: str
    message_id: str
    sender: str
    name: str
    received_at: datetime
    problem: str = ""
    rows: list[JudgedRow] = field(default_factory=list)

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

        There is no BusAck to a file without rows: it was refused, or ended as "not processed - empty file".
        """
        stem = self.name.rpartition(".")[0] or self.name
        yield f"{stem}_InfAck_{self._received_time}.csv", self._inf_ack()
        if self.rows:
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
        for row in self.refused:
            header_id = f"{self.file_id}^{row.number}"
            rest = [self._received_time, "", row.local_id, "", row.refused, "False"]
            lines.append("|".join([header_id, *codes, *rest]))
        return "".join(line + "\n" for line in lines).encode()

    def _bus_ack_json(self, stem: str) -> bytes:
        moment = self.received_at.astimezone(UTC)
        document = {
            "system": "Immunisation FHIR API Batch Report",
            "version": 1,
            "generatedDate": f"{moment:%Y-%m-%dT%H:%M:%S}.000Z",
            "provider": self.sender,
            "filename": stem,
            "messageHeaderId": self.file_id,
            "summary": {
                "totalRecords": len(self.rows),
                "succeeded": self.processed,
                "failed": len(self.refused),
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
        Given a file's name, says why the file is refused as a whole, or None.
    unhandled
        Given a row, says whether DPS fails at it, once it is processed (true) or before (false); None where it does not
        fail.
    workflow_id
        The workflow id of vaccination files. Messages of other workflows stay in the mailbox.
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
        workflow_id: str = "dps export",
        answers_workflow_id: str = "dps export ack",
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.files: list[VaccinationFile] = []
        self.on_file: dict[str, RecordOnFile] = {}
        self._client = client
        self._refuse = refuse
        self._refuse_file = refuse_file
        self._unhandled = unhandled
        self._workflow_id = workflow_id
        self._answers_workflow_id = answers_workflow_id
        self._clock = clock
        self._names: set[str] = set()

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
        for message_id in list(self._client.inbox(workflow_filter=self._workflow_id)):
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

    def _process(self, message_id: str) -> VaccinationFile:
        with self._client.download(message_id) as message:
            name = message.filename or f"{message_id}.csv"
            file = VaccinationFile(str(uuid.uuid4()), message_id, message.sender or "", name, self._clock())
            if name.casefold() in self._names:
                file.problem = "a file of this name was processed before"
                return file
            if problem := self._refuse_file(name):
                file.problem = problem
                return file
            self._names.add(name.casefold())
            text = io.TextIOWrapper(io.BufferedReader(message), encoding="utf-8", newline="")
            reader = csv.DictReader(text, delimiter="|", restval="")
            if tuple(reader.fieldnames or ()) != COLUMNS:
                file.problem = "its headers are missing or wrong"
                return file
            for number, row in enumerate(reader, 1):
                file.rows.append(JudgedRow(number, row, self._judge(row)))
        return file

    def _judge(self, row: Row) -> str:
        """Process a row, or say why it is refused, by DPS's rules on `new`, `update` and `delete`."""
        action = row["ACTION_FLAG"].upper()
        if action not in _ACTIONS:
            return "Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'"
        if refused := self._refuse(row):
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
        """Write down what is on file and which names it has seen."""
        on_file = {identifier: asdict(record) for identifier, record in self.on_file.items()}
        path.write_text(json.dumps({"names": sorted(self._names), "on_file": on_file}))

    def load(self, path: Path) -> None:
        """Load what `save` wrote, where there is such a file."""
        if path.exists():
            known: dict[str, Any] = json.loads(path.read_text())
            self._names = set(known["names"])
            self.on_file = {identifier: RecordOnFile(**record) for identifier, record in known["on_file"].items()}
