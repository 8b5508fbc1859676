"""The stand-in for DPS follows the receiver's rules and answers as DPS does."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from local.dps import Dps, FileStatus
from local.rules import faults_of, type_and_supplier
from tests import receiver as checker
from tests.clocks import Clock
from tests.usecases.memory import MemoryMailbox, MemoryMesh
from tests.usecases.rows import uuid_of
from vaccinations.formats.dps_columns import COLUMNS, HEADER

if TYPE_CHECKING:
    from pathlib import Path

URI = "https://manage-vaccinations-in-schools.nhs.uk/vaccination-records"
ODS_URI = "https://fhir.nhs.uk/Id/ods-organization-code"
NOW = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)
NAME = "HPV_Vaccinations_v5_V0V8L_20260503T19000001.csv"
DUPLICATED = f"The provided identifier: {URI}#{uuid_of(1)} is duplicated"
DOES_NOT_EXIST = f"Immunization resource does not exist. ID: {URI}#{uuid_of(1)}"
GOOD = dict.fromkeys(COLUMNS, "") | {
    "NHS_NUMBER": "9992686766",
    "PERSON_FORENAME": "Ann",
    "PERSON_SURNAME": 'Quade|"Zed"',
    "PERSON_DOB": "20120818",
    "PERSON_GENDER_CODE": "2",
    "PERSON_POSTCODE": "ZZ99 3WZ",
    "DATE_AND_TIME": "20260430T10000001",
    "SITE_CODE": "R1L",
    "SITE_CODE_TYPE_URI": ODS_URI,
    "UNIQUE_ID_URI": URI,
    "RECORDED_DATE": "20260503",
    "PRIMARY_SOURCE": "TRUE",
    "VACCINATION_PROCEDURE_CODE": "761841000",
    "LOCATION_CODE": "X99999",
    "LOCATION_CODE_TYPE_URI": ODS_URI,
}


@pytest.fixture
def mesh() -> MemoryMesh:
    return MemoryMesh("X26ABC1", "X26ABC3")


@pytest.fixture
def sender(mesh: MemoryMesh) -> MemoryMailbox:
    return mesh.mailbox("X26ABC1")


@pytest.fixture
def receiver(mesh: MemoryMesh) -> MemoryMailbox:
    return mesh.mailbox("X26ABC3")


def dps_of(receiver: Any, **options: Any) -> Dps:
    return Dps(receiver, **{"clock": lambda: NOW} | options)


def row(n: int, action: str, batch: str = "AB1234", **cells: str) -> bytes:
    text = io.StringIO()
    written = GOOD | {"UNIQUE_ID": uuid_of(n), "ACTION_FLAG": action, "BATCH_NUMBER": batch} | cells
    csv.DictWriter(text, COLUMNS, delimiter="|", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow(written)
    return text.getvalue().encode()


def named(n: int, vaccine_type: str = "HPV") -> str:
    return f"{vaccine_type}_Vaccinations_v5_V0V8L_20260503T19000{n}01.csv"


def send(sender: Any, *rows: bytes, name: str | None = NAME, header: bytes = HEADER) -> None:
    sender.send_file("X26ABC3", "dps export", header + b"".join(rows), filename=name)


def answers(sender: Any) -> dict[str, bytes]:
    """Read the answers that the sender has got, by file name."""
    found = {}
    for message_id in list(sender.inbox(workflow_filter="dps export ack")):
        with sender.download(message_id) as message:
            found[str(message.filename)] = message.read()
        sender.acknowledge(message_id)
    return found


def test_a_file_of_which_a_row_is_refused_is_answered_byte_by_byte_as_dps_does(sender: Any, receiver: Any) -> None:
    dps = dps_of(
        receiver,
        refuse=lambda row: "Validation errors:\n a.b is  wrong | c" if row["UNIQUE_ID"] == uuid_of(2) else None,
    )
    send(sender, row(1, "new"), row(2, "new"), row(3, "New"))
    [file] = dps.work()
    stem = NAME.removesuffix(".csv")
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
        "provider": "MAVIS",
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


def test_a_file_of_which_every_row_is_processed_has_a_bus_ack_with_a_header_alone(sender: Any, receiver: Any) -> None:
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
    sender: Any, receiver: Any, actions: list[str], refused: list[str], deleted: bool | None
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


# --- names


@pytest.mark.parametrize(
    ("name", "known"),
    [
        (NAME, ("HPV", "MAVIS")),
        (NAME.upper(), ("HPV", "MAVIS")),
        (NAME.lower(), ("HPV", "MAVIS")),
        (NAME.replace("csv", "dat"), ("HPV", "MAVIS")),
        (NAME.replace("HPV", "3IN1"), ("3IN1", "MAVIS")),
        (NAME.replace("V0V8L", "YGM41"), ("HPV", "EMIS")),
        (NAME.replace("01.csv", "01_2.csv"), ("HPV", "MAVIS")),
        (NAME.replace("2026", "2999"), ("HPV", "MAVIS")),  # it is not compared with the clock
        ("Vaccinations-HPV-2024-08-23.csv", None),
        (NAME.replace("V0V8L", "R1L"), None),  # a team's
        (NAME.replace("HPV", "TDIPV"), None),
        (NAME.replace("v5", "v4"), None),
        (NAME.replace("Vaccinations", "Vaccination"), None),
        (NAME.replace("01.csv", ".csv"), None),
        (NAME.replace("01.csv", "02.csv"), None),
        (NAME.replace("01.csv", "00123.csv"), None),
        (NAME.replace("0503", "0231"), None),
        (NAME.replace("csv", "csv.gz"), None),
        (NAME.replace("01.csv", "01.2.csv"), None),
        (NAME.replace(".csv", ""), None),
        ("", None),
    ],
)
def test_a_files_name_tells_its_type_and_supplier_or_is_refused(name: str, known: tuple[str, str] | None) -> None:
    assert type_and_supplier(name) == known
    assert checker.disease_of(name) == (known[0] if known else "")


@pytest.mark.parametrize("name", ["Vaccinations-HPV-2026-05-03.csv", NAME.replace("V0V8L", "R1L"), "letter.txt"])
def test_a_file_of_another_name_is_refused_as_a_whole_and_holds_nothing_back(
    sender: Any, receiver: Any, name: str
) -> None:
    dps = dps_of(receiver)
    send(sender, row(1, "new"), name=name)
    send(sender, row(1, "new"))
    assert [file.status for file in dps.work()] == [FileStatus.BAD_NAME, FileStatus.PROCESSED]
    first, *others = answers(sender).items()
    assert "_InfAck_" in first[0]
    assert (
        first[1].splitlines()[1].partition(b"|")[2]
        == b"Failure|Fatal|Fatal Error|10001|Technical|10002|Infrastructure Level Response Value - Processing Error|"
        b"20260504T03020100|||False"
    )
    assert len(others) == 3


@pytest.mark.parametrize("name", [None, f"today/{NAME}"])
def test_a_message_without_a_name_or_with_a_folder_in_it_is_acknowledged_and_never_answered(
    sender: Any, receiver: Any, mesh: MemoryMesh, name: str | None
) -> None:
    send(sender, row(1, "new"), name=name)
    [file] = dps_of(receiver).work()
    assert file.status is FileStatus.IGNORED
    assert answers(sender) == {}
    assert [message.status for message in mesh.messages.values()] == ["acknowledged"]


def test_a_name_is_compared_letter_by_letter(sender: Any, receiver: Any) -> None:
    dps = dps_of(receiver)
    for name in (NAME, NAME, NAME.lower()):
        send(sender, row(1, "update"), name=name)
    first, second, third = dps.work()
    assert (first.status, third.status) == (FileStatus.PROCESSED, FileStatus.PROCESSED)
    assert (second.status, second.rows) == (FileStatus.DUPLICATE, [])
    assert second.problem == "a file of this name was processed before"
    assert second.file_id != first.file_id


def test_a_name_may_come_again_after_a_file_that_was_empty_or_has_failed_or_after_sixty_days(
    sender: Any, receiver: Any
) -> None:
    clock = Clock(NOW)
    dps = dps_of(receiver, clock=clock)
    send(sender)
    send(sender, header=b"nonsense\n")
    assert [file.status for file in dps.work()] == [FileStatus.EMPTY, FileStatus.FAILED]
    dps.clear("HPV")
    send(sender, row(1, "new"))
    assert [file.status for file in dps.work()] == [FileStatus.PROCESSED]
    clock.forward(days=61)
    send(sender, row(2, "new"))
    assert [file.status for file in dps.work()] == [FileStatus.PROCESSED]


# --- the file as a whole


def test_a_supplier_without_any_permission_for_a_type_is_refused_and_holds_nothing_back(
    sender: Any, receiver: Any
) -> None:
    dps = dps_of(receiver)
    send(sender, row(1, "new"), name=named(1, "COVID"))
    send(sender, row(1, "new"), name=NAME.replace("V0V8L", "YGM41"))
    assert {file.status for file in dps.work()} == {FileStatus.UNAUTHORISED}
    assert dps.on_file == {}
    assert all(b"|Failure|" in body for body in answers(sender).values())


def test_a_row_needs_the_permission_of_its_action(sender: Any, receiver: Any) -> None:
    dps = dps_of(receiver, permissions={"MAVIS": {"HPV": "CD"}})
    send(sender, row(1, "new"), row(1, "update"), row(1, "delete"))
    [file] = dps.work()
    assert [judged.refused for judged in file.rows] == ["", "No permissions for requested operation", ""]


def crash(row: dict[str, str]) -> bool:
    return row["UNIQUE_ID"] == uuid_of(2)


@pytest.mark.parametrize(
    "failing",
    [
        {"header": b"nonsense\n"},
        {"header": HEADER.lower()},
        {"header": b"\xef\xbb\xbf" + HEADER},
        {"header": b"\n" + HEADER},
        {"header": HEADER.replace(b"\n", b"|\n")},
        {"rows": [row(1, "new", DOSE_AMOUNT="NaN")]},
        {"rows": [row(1, "new", VACCINE_MANUFACTURER="x" * 140_000)]},
    ],
    ids=["another", "lower case", "byte-order mark", "blank line", "bar at the end", "no number", "cell too long"],
)
def test_a_file_that_fails_holds_back_later_ones_of_its_type_until_it_is_cleared(
    sender: Any, receiver: Any, failing: dict[str, Any], tmp_path: Path
) -> None:
    dps = dps_of(receiver)
    send(sender, *failing.get("rows", [row(1, "new")]), name=named(1), header=failing.get("header", HEADER))
    send(sender, row(3, "new"), name=named(2))
    send(sender, row(4, "new"), name=named(3))
    send(sender, row(5, "new"), name=named(4, "MMR"))
    assert [file.status for file in dps.work()] == ["failed", "waiting", "waiting", "processed"]
    stems = [name.partition("_InfAck")[0] for name in answers(sender) if "InfAck" in name]
    assert stems == [named(1).removesuffix(".csv"), named(4, "MMR").removesuffix(".csv")]
    dps.save(tmp_path / "dps.json")
    later = dps_of(receiver)
    later.load(tmp_path / "dps.json")
    for each in (dps, later):
        assert [(file.name, file.status) for file in each.clear("HPV")] == [
            (named(2), FileStatus.PROCESSED),
            (named(3), FileStatus.PROCESSED),
        ]
        assert set(each.on_file) == {f"{URI}#{uuid_of(n)}" for n in (3, 4, 5)}


def test_what_waits_for_more_than_four_days_is_dropped_without_an_answer(sender: Any, receiver: Any) -> None:
    clock = Clock(NOW)
    dps = dps_of(receiver, clock=clock)
    send(sender, name=named(1), header=b"nonsense\n")
    send(sender, row(1, "new"), name=named(2))
    dps.work()
    answers(sender)
    clock.forward(days=5)
    [dropped] = dps.clear("HPV")
    dps.answer(dropped)
    assert dropped.status is FileStatus.DROPPED
    assert (answers(sender), dps.on_file) == ({}, {})


def test_a_crash_at_a_row_leaves_the_rows_before_it_processed_and_no_bus_ack(sender: Any, receiver: Any) -> None:
    dps = dps_of(receiver, crashes=crash)
    send(sender, row(1, "new"), row(2, "new"), row(3, "new"))
    [file] = dps.work()
    assert (file.status, set(dps.on_file)) == (FileStatus.FAILED, {f"{URI}#{uuid_of(1)}"})
    [(name, body)] = answers(sender).items()
    assert "_InfAck_" in name
    assert b"|Success|" in body


def test_what_dps_acknowledges_twice_is_listed_and_counted_twice(sender: Any, receiver: Any) -> None:
    send(sender, row(1, "new"), row(2, "update"))
    dps = dps_of(receiver)
    [file] = dps.pick_up()
    file.acknowledged_twice = True
    dps.answer(file)
    _, bus_ack, bus_ack_json = answers(sender).values()
    assert bus_ack.count(b"^2|") == 2
    document = json.loads(bus_ack_json)
    assert (document["summary"]["failed"], len(document["failures"])) == (2, 1)


@pytest.mark.parametrize(
    "header",
    [b"", b"NHS_NUMBER\n", HEADER.replace(b'"NHS_NUMBER"|', b""), HEADER.replace(b"NHS_NUMBER", b"Nhs_Number")],
    ids=["nothing at all", "another header", "a column is missing", "a column in another case"],
)
def test_wrong_headers_are_answered_with_a_failure_and_no_more(sender: Any, receiver: Any, header: bytes) -> None:
    dps = dps_of(receiver)
    send(sender, *([row(1, "new")] if header else []), header=header)
    dps.work()
    [(name, body)] = answers(sender).items()
    assert "_InfAck_" in name
    assert b"|Failure|" in body
    assert dps.on_file == {}


def test_a_file_without_rows_is_received_and_never_processed(sender: Any, receiver: Any) -> None:
    send(sender)
    dps_of(receiver).work()
    [(name, body)] = answers(sender).items()
    assert "_InfAck_" in name
    assert b"|Success|" in body


def test_each_file_is_acknowledged_whatever_it_was_sent_under(sender: Any, receiver: Any) -> None:
    send(sender, row(1, "new"), name=named(1))
    sender.send_file("X26ABC3", "another workflow", HEADER + row(2, "new"), filename=named(2))
    dps = dps_of(receiver)
    first, second = list(receiver.inbox())
    assert [file.message_id for file in dps.pick_up(leave={second})] == [first]
    assert sender.track(first).status == "acknowledged"
    assert list(receiver.inbox()) == [second]
    assert [file.status for file in dps.pick_up()] == [FileStatus.PROCESSED]


def test_what_is_on_file_outlasts_the_process(sender: Any, receiver: Any, tmp_path: Path) -> None:
    dps = dps_of(receiver)
    send(sender, row(1, "new"), row(2, "new"), row(2, "delete"), name=named(1))
    dps.pick_up()
    dps.save(tmp_path / "dps.json")
    later = dps_of(receiver)
    later.load(tmp_path / "none.json")
    assert later.on_file == {}
    later.load(tmp_path / "dps.json")
    assert later.on_file == dps.on_file
    send(sender, row(1, "new"), row(2, "update"), name=named(1))
    send(sender, row(1, "new"), row(2, "update"), name=named(2))
    [again, anew] = later.pick_up()
    assert again.problem
    assert [judged.refused for judged in anew.rows] == [DUPLICATED, ""]


# --- rows


def judged(sender: Any, receiver: Any, action: str = "new", **cells: str) -> str:
    send(sender, row(1, action, **cells))
    [file] = dps_of(receiver).work()
    [only] = file.rows
    return only.refused


@pytest.mark.parametrize("column", ["UNIQUE_ID", "UNIQUE_ID_URI"])
@pytest.mark.parametrize("action", ["new", "update", "delete"])
def test_a_row_without_an_identifier_is_refused(sender: Any, receiver: Any, action: str, column: str) -> None:
    assert judged(sender, receiver, action, **{column: ""}) == "UNIQUE_ID or UNIQUE_ID_URI is missing"


@pytest.mark.parametrize(
    ("cells", "refused"),
    [
        (
            {"PERSON_SURNAME": ""},
            "Validation errors: contained[?(@.resourceType=='Patient')].name[0].family is a mandatory",
        ),
        (
            {"NHS_NUMBER": "9992686767"},
            "Validation errors: contained[?(@.resourceType=='Patient')].identifier[0].value is",
        ),
        ({"DATE_AND_TIME": ""}, "1 validation error for Immunization occurrenceDateTime"),
        ({"DATE_AND_TIME": "20260504T04020201"}, "Validation errors: occurrenceDateTime must be a valid datetime"),
        ({"RECORDED_DATE": "20260505"}, "Validation errors: recorded must be a valid datetime"),
        ({"VACCINATION_PROCEDURE_CODE": "761841001"}, "Validation errors: extension[0]"),
        ({"ROUTE_OF_VACCINATION_CODE": "a  b", "DATE_AND_TIME": ""}, "2 validation errors for Immunization"),
        # What is wrong in form is said first, and alone.
        ({"PERSON_SURNAME": "", "DOSE_SEQUENCE": "10"}, "Validation errors: protocolApplied[0].doseNumberPositiveInt"),
    ],
)
def test_a_row_that_breaks_the_rules_is_refused_in_dpss_words(
    sender: Any, receiver: Any, cells: dict[str, str], refused: str
) -> None:
    assert judged(sender, receiver, **cells).startswith(refused)
    assert judged(sender, receiver, "delete", **cells) == DOES_NOT_EXIST


def test_a_row_of_more_or_fewer_cells_is_no_fault_of_the_file(sender: Any, receiver: Any) -> None:
    send(sender, row(1, "new").replace(b"\n", b'|"more"\n'), b'"9992686766"\n')
    [file] = dps_of(receiver).work()
    assert (file.status, [bool(judged.refused) for judged in file.rows]) == (FileStatus.PROCESSED, [False, True])


VALUES = {
    "NHS_NUMBER": ["", "9992686766", "9992686767", "999 268 6766", "x"],
    "PERSON_FORENAME": ["", " ", "Ann", "x" * 180, "x" * 181],
    "PERSON_SURNAME": ["", " ", "Lee", "x" * 35, "x" * 36],
    "PERSON_DOB": ["", "20120818", "2012-08-18", "20260504", "20260505", "20120231", "18/08/2012"],
    "PERSON_GENDER_CODE": ["", "0", "9", "3", "male", "Male", " "],
    "PERSON_POSTCODE": ["", " ", "SW1A 1AA"],
    "DATE_AND_TIME": [
        *("", "20260430T10000001", "20260504T03020100", "20260504T03020101", "20260504T04020101", "20260504T03020200"),
        *("20260430T100000", "20260430", "2026-04-30", "2026-04-30T10:00:00+01:00", "2026-04-30T10:00:00.123+00:00"),
        *("2026-04-30T10:00:00Z", "20260430T10000002", "20260430T10000000123", "2026-04-30T10:00:00+02:00"),
    ],
    "SITE_CODE": ["", " ", "R1L"],
    "ACTION_FLAG": ["new", "UPDATE"],
    "PERFORMING_PROFESSIONAL_SURNAME": ["", " ", "Lee"],
    "RECORDED_DATE": ["", "20260503", "2026-05-04", "20260505", "nonsense"],
    "PRIMARY_SOURCE": ["", "TRUE", "false", "1"],
    "VACCINATION_PROCEDURE_CODE": ["", "761841000", "761841001", "1", "761841000 "],
    "DOSE_SEQUENCE": ["", "1", "9", "0", "10", "x"],
    "VACCINE_PRODUCT_CODE": ["", "33493111000001108", "33493111000001109"],
    "BATCH_NUMBER": ["", " ", "AB1"],
    "EXPIRY_DATE": ["", "20300101", "20260230", "2030-01-01"],
    "ROUTE_OF_VACCINATION_CODE": ["", "78421000", "78421000 ", "a  b"],
    "DOSE_AMOUNT": ["", "0.5", "0,5", "x"],
    "LOCATION_CODE": ["", " ", "110158A"],
}


@given(st.fixed_dictionaries({column: st.sampled_from(values) for column, values in VALUES.items()}))
def test_it_refuses_the_rows_that_a_checker_refuses_that_knows_nothing_of_it(cells: dict[str, str]) -> None:
    """The checker that judges what we send is written apart from DPS's stand-in: each shows the other's mistakes."""
    row = GOOD | {"UNIQUE_ID": uuid_of(1)} | cells
    assert bool(faults_of(row, NOW)) == bool(checker.faults_of(row, NOW))


@given(
    st.text(max_size=60) | st.from_regex(r"[A-Z0-9]{3}_Vaccinations_v5_(V0V8L|X26|R1L)_[0-9]{8}T[0-9]{6}0[0-2].(csv|x)")
)
def test_it_refuses_the_names_that_the_checker_refuses(name: str) -> None:
    assert bool(type_and_supplier(name)) == bool(checker.disease_of(name))
