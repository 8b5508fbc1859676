"""The stand-in for DPS follows the receiver's rules and answers as DPS does, over MESH."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from local.dps import Dps
from tests.usecases.rows import uuid_of
from vaccinations.formats.dps_columns import COLUMNS, HEADER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient

URI = "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
DUPLICATED = f"The provided identifier: {URI}#{uuid_of(1)} is duplicated"
DOES_NOT_EXIST = f"Immunization resource does not exist. ID: {URI}#{uuid_of(1)}"


@pytest.fixture
def sender(sandbox: Sandbox, clean_mailboxes: None) -> Iterator[MeshClient]:
    with sandbox.client("X26ABC1") as client:
        yield client


@pytest.fixture
def receiver(sandbox: Sandbox) -> Iterator[MeshClient]:
    with sandbox.client("X26ABC3") as client:
        yield client


def dps_of(receiver: MeshClient, **options: Any) -> Dps:
    return Dps(receiver, clock=lambda: NOW, **options)


def row(n: int, action: str, batch: str = "AB1234") -> bytes:
    cells = dict.fromkeys(COLUMNS, "") | {"UNIQUE_ID": uuid_of(n), "UNIQUE_ID_URI": URI}
    cells |= {"ACTION_FLAG": action, "BATCH_NUMBER": batch, "PERSON_SURNAME": 'Quade|"Zed"'}
    text = io.StringIO()
    csv.DictWriter(text, COLUMNS, delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(cells)
    return text.getvalue().encode()


def send(
    sender: MeshClient, *rows: bytes, name: str = "Vaccinations-HPV-2026-05-03.csv", header: bytes = HEADER
) -> None:
    sender.send_file("X26ABC3", "dps export", header + b"".join(rows), filename=name)


def answers(sender: MeshClient) -> dict[str, bytes]:
    """Read the answers that the sender has got, by file name."""
    found = {}
    for message_id in list(sender.inbox(workflow_filter="dps export ack")):
        with sender.download(message_id) as message:
            found[str(message.filename)] = message.read()
        sender.acknowledge(message_id)
    return found


def test_a_file_of_which_a_row_is_refused_is_answered_byte_by_byte_as_dps_does(
    sender: MeshClient, receiver: MeshClient
) -> None:
    dps = dps_of(
        receiver,
        refuse=lambda row: "Validation errors:\n a.b is  wrong | c" if row["UNIQUE_ID"] == uuid_of(2) else None,
    )
    send(sender, row(1, "new"), row(2, "new"), row(3, "New"))
    [file] = dps.work()
    stem = "Vaccinations-HPV-2026-05-03"
    answered = answers(sender)
    assert list(answered) == [
        f"{stem}_InfAck_20260504T03020100.csv",
        f"{stem}_BusAck_20260504T03020100.csv",
        f"{stem}_BusAck_20260504T03020100.json",
    ]
    inf_ack, bus_ack, bus_ack_json = answered.values()
    assert (
        inf_ack
        == (
            b"MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|"
            b"RESPONSE_CODE|RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|MESSAGE_DELIVERY\r\n"
            b"%s|Success|Information|OK|20013|Technical|20013|Success|20260504T03020100|||True\r\n"
        )
        % file.file_id.encode()
    )
    assert bus_ack == (
        b"MESSAGE_HEADER_ID|HEADER_RESPONSE_CODE|ISSUE_SEVERITY|ISSUE_CODE|ISSUE_DETAILS_CODE|RESPONSE_TYPE|"
        b"RESPONSE_CODE|RESPONSE_DISPLAY|RECEIVED_TIME|MAILBOX_FROM|LOCAL_ID|IMMS_ID|OPERATION_OUTCOME|"
        b"MESSAGE_DELIVERY\n"
        b"%s^2|Fatal Error|Fatal|Fatal Error|30002|Business|30002|Business Level Response Value - Processing Error|"
        b"20260504T03020100||%s^%s||Validation errors: a.b is wrong | c|False\n"
    ) % (file.file_id.encode(), uuid_of(2).encode(), URI.encode())
    assert json.loads(bus_ack_json) == {
        "system": "Immunisation FHIR API Batch Report",
        "version": 1,
        "generatedDate": "2026-05-04T03:02:01.000Z",
        "provider": "X26ABC1",
        "filename": stem,
        "messageHeaderId": file.file_id,
        "summary": {
            "totalRecords": 3,
            "succeeded": 2,
            "failed": 1,
            "ingestionTime": {"start": int(NOW.timestamp()), "end": int(NOW.timestamp())},
        },
        "failures": [
            {
                "rowId": 2,
                "responseCode": "30002",
                "responseDisplay": "Business Level Response Value - Processing Error",
                "severity": "Fatal",
                "localId": f"{uuid_of(2)}^{URI}",
                "operationOutcome": "Validation errors: a.b is wrong | c",
            }
        ],
    }
    assert (file.processed, [refused.number for refused in file.refused]) == (2, [2])
    assert set(dps.on_file) == {f"{URI}#{uuid_of(1)}", f"{URI}#{uuid_of(3)}"}
    assert dps.on_file[f"{URI}#{uuid_of(3)}"].row["PERSON_SURNAME"] == 'Quade|"Zed"'


def test_a_file_of_which_every_row_is_processed_has_a_bus_ack_with_a_header_alone(
    sender: MeshClient, receiver: MeshClient
) -> None:
    send(sender, row(1, "new"))
    dps_of(receiver).work()
    _, bus_ack, bus_ack_json = answers(sender).values()
    assert bus_ack.count(b"\n") == 1
    assert json.loads(bus_ack_json)["failures"] == []


@pytest.mark.parametrize(
    ("actions", "refused", "deleted"),
    [
        pytest.param(["new", "NEW"], ["", DUPLICATED], False, id="new twice is a duplicate"),
        pytest.param(["new", "update", "update"], ["", "", ""], False, id="updates follow a new"),
        pytest.param(["update", "new"], [DOES_NOT_EXIST, ""], False, id="no update before its new"),
        pytest.param(["delete"], [DOES_NOT_EXIST], None, id="no delete without a new"),
        pytest.param(["new", "delete", "delete"], ["", "", DOES_NOT_EXIST], True, id="no delete twice"),
        pytest.param(["new", "delete", "new"], ["", "", ""], False, id="a new reinstates what was deleted"),
        pytest.param(["new", "delete", "update"], ["", "", ""], False, id="an update reinstates what was deleted"),
        pytest.param(
            ["create", "new"],
            ["Invalid ACTION_FLAG - ACTION_FLAG must be 'NEW', 'UPDATE' or 'DELETE'", ""],
            False,
            id="there are three actions",
        ),
    ],
)
def test_rows_are_judged_in_file_order(
    sender: MeshClient, receiver: MeshClient, actions: list[str], refused: list[str], deleted: bool | None
) -> None:
    send(sender, *(row(1, action, f"B{n}") for n, action in enumerate(actions)))
    dps = dps_of(receiver)
    [file] = dps.pick_up()
    assert [judged.refused for judged in file.rows] == refused
    record = dps.on_file.get(f"{URI}#{uuid_of(1)}")
    assert (record and record.deleted) is deleted
    if record:
        last = max(n for n, why in enumerate(refused) if not why)
        assert record.row["BATCH_NUMBER"] == f"B{last}"


def test_a_name_seen_before_in_whatever_case_is_not_processed(sender: MeshClient, receiver: MeshClient) -> None:
    dps = dps_of(receiver)
    send(sender, row(1, "new"), name="HPV_Vaccinations_v5_R1L_20260504T03020101.csv")
    send(sender, row(2, "new"), name="hpv_vaccinations_V5_r1l_20260504T03020101.CSV")
    [first, second] = dps.work()
    assert (first.problem, first.processed) == ("", 1)
    assert (second.problem, second.rows) == ("a file of this name was processed before", [])
    assert set(dps.on_file) == {f"{URI}#{uuid_of(1)}"}
    name = "hpv_vaccinations_V5_r1l_20260504T03020101_InfAck_20260504T03020100.csv"
    assert (
        answers(sender)[name].splitlines()[1]
        == (
            b"%s|Failure|Fatal|Fatal Error|10001|Technical|10002|"
            b"Infrastructure Level Response Value - Processing Error|20260504T03020100|||False"
        )
        % second.file_id.encode()
    )


@pytest.mark.parametrize(
    "header",
    [b"", b"NHS_NUMBER\n", HEADER.replace(b'"NHS_NUMBER"|', b""), HEADER.replace(b"NHS_NUMBER", b"Nhs_Number")],
    ids=["nothing at all", "another header", "a column is missing", "a column in another case"],
)
def test_wrong_headers_are_answered_with_a_failure_and_no_more(
    sender: MeshClient, receiver: MeshClient, header: bytes
) -> None:
    dps = dps_of(receiver)
    send(sender, *([row(1, "new")] if header else []), header=header)
    dps.work()
    [(name, body)] = answers(sender).items()
    assert "_InfAck_" in name
    assert b"|Failure|" in body
    assert dps.on_file == {}


def test_a_file_without_rows_is_received_and_never_processed(sender: MeshClient, receiver: MeshClient) -> None:
    send(sender)
    dps_of(receiver).work()
    [(name, body)] = answers(sender).items()
    assert "_InfAck_" in name
    assert b"|Success|" in body


def test_each_file_is_acknowledged_and_other_mail_is_left_alone(sender: MeshClient, receiver: MeshClient) -> None:
    letter = sender.send_file("X26ABC3", "letters", b"Dear DPS", filename="letter.txt")
    send(sender, row(1, "new"), name="1.csv")
    send(sender, row(2, "new"), name="2.csv")
    dps = dps_of(receiver)
    [first, second] = list(receiver.inbox(workflow_filter="dps export"))
    assert [file.message_id for file in dps.pick_up(leave={second})] == [first]
    assert sender.track(first).status == "acknowledged"
    assert list(receiver.inbox()) == [letter.message_id, second]
    assert dps.pick_up()[0].message_id == second


def test_what_is_on_file_outlasts_the_process(sender: MeshClient, receiver: MeshClient, tmp_path: Path) -> None:
    dps = dps_of(receiver)
    send(sender, row(1, "new"), row(2, "new"), row(2, "delete"), name="1.csv")
    dps.pick_up()
    dps.save(tmp_path / "dps.json")
    later = dps_of(receiver)
    later.load(tmp_path / "none.json")
    assert later.on_file == {}
    later.load(tmp_path / "dps.json")
    assert later.on_file == dps.on_file
    send(sender, row(1, "new"), row(2, "update"), name="1.CSV")
    send(sender, row(1, "new"), row(2, "update"), name="2.csv")
    [again, anew] = later.pick_up()
    assert again.problem
    assert [judged.refused for judged in anew.rows] == [DUPLICATED, ""]
