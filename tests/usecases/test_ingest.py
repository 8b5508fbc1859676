"""Promises of the intake, on moto's server."""

from __future__ import annotations

import gzip
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.world import World, row, upload_of, uuid_of
from vaccinations.aws.ledger import Status

if TYPE_CHECKING:
    from collections.abc import Callable

    from vaccinations.aws.register import Register
    from vaccinations.settings import Settings


def test_a_receipt_counts_what_became_of_every_row(world: World) -> None:
    receipt = world.upload(
        upload_of(
            row(1),
            row(2, "MenACWY"),
            row(1),  # the same again
            row(3, vaccinated="N"),  # never taken in
            row(4).replace("SW1A 1AA", "nonsense"),
        )
    )
    assert receipt["status"] == "taken in"
    assert receipt["accepted"] == {"hpv": {"new": 1}, "menacwy": {"new": 1}}
    assert receipt["exports"] == {"hpv": "hpv-1", "menacwy": "menacwy-1"}
    assert (receipt["rows"], receipt["unchanged"], receipt["skipped"], receipt["rejected"]) == (5, 1, 1, 1)


def test_a_rejects_file_says_line_column_fault_and_mend_for_every_error(world: World) -> None:
    bad = row(1).replace("SW1A 1AA", "nonsense").replace("2012-08-18", "18th of August")
    receipt = world.upload(upload_of(row(0), bad))
    rejects = world.rejects(receipt)
    assert {(r["line"], r["column"]) for r in rejects} == {("3", "PERSON_POSTCODE"), ("3", "PERSON_DOB")}
    assert all(r["what is wrong"] and r["what would be right"] for r in rejects)
    assert "nonsense" not in str(rejects)
    assert receipt["accepted"] == {"hpv": {"new": 1}}


def test_the_same_upload_again_changes_nothing(world: World) -> None:
    world.upload(upload_of(row(1), row(2)))
    receipt = world.upload(upload_of(row(1), row(2)), name="again.csv")
    assert (receipt["accepted"], receipt["unchanged"]) == ({}, 2)
    assert world.ledger.get("hpv", 1).records == 2


def test_a_repeated_event_changes_nothing_and_gives_the_same_receipt(world: World) -> None:
    first = world.upload(upload_of(row(1), row(2, vaccinated="N")))
    again = world.take_in()
    assert again == first
    assert world.ledger.get("hpv", 1).records == 1


def test_a_corrected_record_goes_out_as_an_update(world: World) -> None:
    world.upload(upload_of(row(1), row(2)))
    world.export()
    receipt = world.upload(upload_of(row(1, batch="XY9999"), row(2)), name="corrected.csv")
    assert (receipt["accepted"], receipt["unchanged"]) == ({"hpv": {"update": 1}}, 1)
    world.export()
    (_, _), (_, rows) = world.inbox()
    assert [(r["UNIQUE_ID"], r["ACTION_FLAG"], r["BATCH_NUMBER"]) for r in rows] == [(uuid_of(1), "update", "XY9999")]


def test_a_withdrawn_record_goes_out_as_a_delete_with_its_columns_as_last_known(world: World) -> None:
    world.upload(upload_of(row(1, batch="XY9999"), row(2)))
    world.export()
    withdrawal = row(1, vaccinated="N").replace("2026-10-01", "").replace("Gardasil9", "")
    assert world.upload(upload_of(withdrawal), name="withdrawn.csv")["accepted"] == {"hpv": {"delete": 1}}
    world.export()
    (_, _), (_, rows) = world.inbox()
    assert [(r["UNIQUE_ID"], r["ACTION_FLAG"], r["BATCH_NUMBER"]) for r in rows] == [(uuid_of(1), "delete", "XY9999")]
    assert rows[0]["DATE_AND_TIME"].startswith("20261001")


def test_however_many_records_are_withdrawn_their_batch_is_read_once(world: World) -> None:
    world.upload(upload_of(*(row(n) for n in range(60))))
    read: list[str] = []

    def note(params: dict[str, Any], **_: Any) -> None:
        read.append(params["Key"].partition("/")[0])

    world.s3.meta.events.register("provide-client-params.s3.GetObject", note)
    receipt = world.upload(upload_of(*(row(n, vaccinated="N") for n in range(10, 60))), "tuesday.csv")
    world.s3.meta.events.unregister("provide-client-params.s3.GetObject", note)
    assert receipt["accepted"] == {"hpv": {"delete": 50}}
    # Once for what is known of the records, and once, of its own, to register them.
    assert read.count("batches") <= 3
    world.export()
    [(_, rows)] = world.inbox()
    assert [r["UNIQUE_ID"] for r in rows[60:]] == [uuid_of(n) for n in range(10, 60)]
    assert {r["ACTION_FLAG"] for r in rows[60:]} == {"delete"}


def test_a_record_withdrawn_twice_is_deleted_once(world: World) -> None:
    world.upload(upload_of(row(1)))
    world.upload(upload_of(row(1, vaccinated="N")), name="2.csv")
    receipt = world.upload(upload_of(row(1, vaccinated="N")), name="3.csv")
    assert (receipt["accepted"], receipt["unchanged"]) == ({}, 1)


def test_a_withdrawn_record_that_comes_back_goes_out_as_an_update(world: World) -> None:
    for name, vaccinated in (("1.csv", "Y"), ("2.csv", "N"), ("3.csv", "Y")):
        receipt = world.upload(upload_of(row(1, vaccinated=vaccinated)), name=name)
    assert receipt["accepted"] == {"hpv": {"update": 1}}


def test_a_record_that_is_corrected_within_one_upload_keeps_its_order(world: World) -> None:
    receipt = world.upload(upload_of(row(1), row(1, batch="XY9999"), row(2), row(1, vaccinated="N")))
    assert receipt["accepted"] == {"hpv": {"new": 2, "update": 1, "delete": 1}}
    world.export()
    [(_, rows)] = world.inbox()
    assert [(r["UNIQUE_ID"], r["ACTION_FLAG"], r["BATCH_NUMBER"]) for r in rows] == [
        (uuid_of(1), "new", "AB1234"),
        (uuid_of(1), "update", "XY9999"),
        (uuid_of(2), "new", "AB1234"),
        (uuid_of(1), "delete", "XY9999"),
    ]


def test_a_record_known_under_another_programme_is_rejected_with_the_way_to_put_it_right(world: World) -> None:
    world.upload(upload_of(row(1, "HPV")))
    receipt = world.upload(upload_of(row(1, "MenACWY")), name="moved.csv")
    assert (receipt["accepted"], receipt["rejected"]) == ({}, 1)
    [reject] = world.rejects(receipt)
    assert (reject["column"], reject["what is wrong"]) == ("PROGRAMME", "this record was taken in under HPV before")
    assert "VACCINATED = No" in reject["what would be right"]


def test_a_vaccination_later_than_the_upload_is_rejected(world: World) -> None:
    line = {
        "uuid": uuid_of(1),
        "programme": "hpv",
        "organisation_code": "R1L",
        "forename": "Quintessa",
        "surname": "Zephyrson",
        "date_of_birth": "2012-08-18",
        "gender": "female",
        "postcode": "SW1A 1AA",
        "vaccinated_at": "2026-10-01T10:00:00",
        "dose_sequence": 1,
    }
    late = {**line, "uuid": uuid_of(2), "vaccinated_at": f"{world.clock():%Y-%m-%d}T23:59:59-12:00"}
    receipt = world.upload("\n".join(map(json.dumps, (line, late))), name="records.jsonl")
    assert (receipt["accepted"], receipt["rejected"]) == ({"hpv": {"new": 1}}, 1)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("empty.csv", b""),
        ("rubbish.csv", bytes(range(256)) * 50),
        ("columns.csv", b"UUID,PROGRAMME\n1,HPV\n"),
        ("truncated.jsonl", gzip.compress(b'{"uuid": 1}\n' * 1000, mtime=0)[:40]),
        ("letter.docx", b"PK\x03\x04"),
    ],
    ids=["empty", "rubbish", "columns missing", "truncated gzip", "another format"],
)
def test_a_file_that_cannot_be_read_is_rejected_whole_with_one_clear_reason(
    world: World, name: str, body: bytes
) -> None:
    receipt = world.upload(body, name=name)
    assert receipt["status"] == "rejected"
    assert receipt["reason"]
    assert receipt["mend"]
    assert world.register.unfinished() == []


def test_an_upload_without_an_organisation_is_rejected_with_a_receipt(world: World) -> None:
    assert world.upload(upload_of(row(1)), organisation="R-1")["status"] == "rejected"


def test_an_upload_that_was_deleted_meanwhile_gets_a_receipt(world: World) -> None:
    world.uploads.append(("incoming/R1L/gone.csv", ""))
    assert world.take_in()["reason"] == "the file is not there any more"


HOSTILE_NAMES = {
    # Not \n: moto's server has no such keys.
    "line breaks": "mon\rday\u2028Mex-To: x\x85.csv",
    "a tab and an escape sequence": "\t\x1b]0;title\x07\x1b[2J.csv",
    "bidirectional controls": "\u202evsc.yadnom\u2066.csv",
    "dots and slashes": "../../incoming/R1L/../%2e%2e/x.csv",
    "quotes and brackets": '",{"level":"ERROR"}[/red]\'$(id)`id`.csv',
    "a name": "Quintessa Zephyrson 9992686766.csv",
    "every byte that a key may have": "ü" * 503 + ".csv",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_whatever_a_file_is_called_it_is_taken_in_and_its_name_is_in_no_log(
    world: World, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    receipt = world.upload(upload_of(row(1), row(2, vaccinated="maybe")), name)
    assert (receipt["status"], receipt["rejected"]) == ("taken in", 1)
    assert world.rejects(receipt)[0]["column"] == "VACCINATED"
    assert world.export()["status"] == "ok"
    written = capsys.readouterr().out
    for line in written.splitlines():
        json.loads(line)  # one line is one entry, whatever the name holds
    assert name[:20] not in written
    assert json.dumps(name)[1:20] not in written


def test_nothing_personal_is_kept_in_dynamodb(world: World, table_text: Callable[[], str]) -> None:
    world.upload(upload_of(row(1), row(2)), name="Quintessa Zephyrson.csv")
    world.export()
    text = table_text()
    assert uuid_of(1) in text
    for personal in ("Quintessa", "Zephyrson", "SW1A", "2012-08-18", "20120818"):
        assert personal not in text


def test_an_upload_that_is_bad_throughout_gets_a_rejects_file_of_bounded_size(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaccinations.jobs.ingest._MOST_REJECTS", 3)
    receipt = world.upload("{}\n" * 20, name="bad.jsonl")
    assert receipt["rejected"] == 20
    assert {int(r["line"]) for r in world.rejects(receipt)} == {1, 2, 3, 4}
    assert "only the first 3 rejected rows are listed" in world.rejects(receipt)[-1]["what is wrong"]


def test_problems_bear_the_names_of_the_uploaders_own_fields(world: World) -> None:
    world.upload(upload_of(row(1, "HPV")))
    line = {"uuid": uuid_of(1), "programme": "menacwy", "organisation_code": "R1L", "forename": "Quintessa"}
    line |= {"surname": "Zephyrson", "date_of_birth": "2012-08-18", "gender": "female", "postcode": "SW1A 1AA"}
    receipt = world.upload(json.dumps(line | {"vaccinated_at": "2026-10-01"}) + "\n", name="moved.jsonl")
    [reject] = world.rejects(receipt)
    assert reject["column"] == "programme"
    assert '"deleted": true' in reject["what would be right"]


class Died(BaseException):
    """Stands for the end of the process at some point."""


def dying(world: World, monkeypatch: pytest.MonkeyPatch, room: str, method: str, after: int = 0) -> None:
    """Make the process die at the n-th call of a method."""
    target = getattr(world, room)
    whole = getattr(target, method)
    calls = iter(range(1000))

    def die(*args: Any, **options: Any) -> Any:
        if next(calls) == after:
            raise Died
        return whole(*args, **options)

    monkeypatch.setattr(target, method, die)


@pytest.mark.parametrize("when", ["put_batch", "put_rejects", "put_intake", "put_receipt"])
@pytest.mark.parametrize("redelivered", [True, False])
def test_an_upload_that_died_on_the_way_to_s3_arrives_once(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, redelivered: bool
) -> None:
    _dies_and_arrives_once(world, monkeypatch, "archive", when, 0, redelivered)


@pytest.mark.parametrize(("when", "after"), [("begin", 0), ("put", 0), ("put", 1), ("attaching", 0), ("finish", 0)])
@pytest.mark.parametrize("redelivered", [True, False])
def test_an_upload_that_died_on_the_way_to_the_register_arrives_once(
    world: World, monkeypatch: pytest.MonkeyPatch, when: str, after: int, redelivered: bool
) -> None:
    _dies_and_arrives_once(world, monkeypatch, "register", when, after, redelivered)


def _dies_and_arrives_once(
    world: World, monkeypatch: pytest.MonkeyPatch, room: str, when: str, after: int, redelivered: bool
) -> None:
    body = upload_of(row(1), row(2), row(3, "MenACWY"), row(4).replace("SW1A 1AA", "nonsense"))
    dying(world, monkeypatch, room, when, after)
    with pytest.raises(Died):
        world.upload(body)
    monkeypatch.undo()
    if redelivered:
        world.take_in()
    # The team uploads it again under another name; then the dead letter is redriven.
    world.upload(body, name="again.csv")
    world.take_in(0)
    world.export()
    assert sorted((r["UNIQUE_ID"], r["ACTION_FLAG"]) for _, rows in world.inbox() for r in rows) == sorted(
        (uuid_of(n), "new") for n in (1, 2, 3)
    )
    assert world.register.unfinished() == []
    assert {e.status for p in ("hpv", "menacwy") for e in world.ledger.exports(p)} == {Status.ACCEPTED}


def test_a_record_costs_one_read_and_one_write_of_the_register(world: World, dynamodb: Any, settings: Settings) -> None:
    """As far as the requests go: of at most 100 keys and 25 items each."""
    reads: list[int] = []
    writes: list[int] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name == "BatchGetItem":
            reads.append(len(params["RequestItems"][settings.records_table]["Keys"]))
        elif model.name == "BatchWriteItem":
            writes.append(len(params["RequestItems"][settings.records_table]))

    dynamodb.meta.events.register("provide-client-params.dynamodb", note)
    try:
        receipt = world.upload(upload_of(*map(row, range(1250))))
    finally:
        dynamodb.meta.events.unregister("provide-client-params.dynamodb", note)
    assert receipt["accepted"] == {"hpv": {"new": 1250}}
    assert sorted(reads) == [50, *[100] * 12]
    assert writes == [25] * 50


def test_what_dynamodb_leaves_undone_is_asked_for_again(
    world: World, register: Register, monkeypatch: pytest.MonkeyPatch, dynamodb: Any
) -> None:
    left = {"BatchGetItem": "UnprocessedKeys", "BatchWriteItem": "UnprocessedItems"}
    halved: list[str] = []
    call = dynamodb._make_api_call

    def half(operation: str, params: dict[str, Any]) -> Any:
        """Do the first half of a large request, as DynamoDB does when it is busy."""
        if operation not in left:
            return call(operation, params)
        ((table, request),) = params["RequestItems"].items()
        items = request["Keys"] if operation == "BatchGetItem" else request
        some, rest = items[: -(len(items) // 2) or None], items[len(items) - len(items) // 2 :]

        def of(these: Any) -> Any:
            return {table: {**request, "Keys": these} if operation == "BatchGetItem" else these}

        answer = call(operation, {"RequestItems": of(some)})
        if rest:
            halved.append(operation)
            answer[left[operation]] = of(rest)
        return answer

    monkeypatch.setattr(dynamodb, "_make_api_call", half)
    monkeypatch.setattr("vaccinations.aws.register._pause", lambda _: None)
    receipt = world.upload(upload_of(*map(row, range(130))))
    assert receipt["accepted"] == {"hpv": {"new": 130}}
    assert set(halved) == set(left)
    assert world.upload(upload_of(*map(row, range(130))), name="again.csv")["unchanged"] == 130
    assert len(register.get(map(uuid_of, range(130)))) == 130


def test_an_upload_of_one_record_many_times_leaves_what_was_said_last(world: World, register: Register) -> None:
    """However many requests it takes to write it all."""
    rows = [row(n % 60, batch=f"AB{n:04}") for n in range(2400)]
    receipt = world.upload(upload_of(*rows))
    assert receipt["accepted"] == {"hpv": {"new": 60, "update": 2340}}
    assert {entry.line for entry in register.get(map(uuid_of, range(60))).values()} == set(range(2342, 2402))
