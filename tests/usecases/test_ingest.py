"""Promises of ingesting uploads."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.rows import HEADER, row, upload_of, uuid_of
from tests.usecases.stores import in_memory, on_every_database, on_moto
from vaccinations.jobs.ingest import MOST_LINES, Ingest
from vaccinations.model.assumed import Assumed
from vaccinations.model.entry import Refusal
from vaccinations.model.london import in_london
from vaccinations.model.outcome import OnFile, Outcome
from vaccinations.ports import BatchGone, UploadGone
from vaccinations.results import Receipt, RejectedUpload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.usecases.stores import Stores


def flags(rows: Iterable[dict[str, str]]) -> list[tuple[str, str, str]]:
    return [(r["UNIQUE_ID"], r["ACTION_FLAG"], r["BATCH_NUMBER"]) for r in rows]


def json_lines(*lines: dict[str, Any]) -> str:
    return "".join(json.dumps(line) + "\n" for line in lines)


def stated(n: int, **changes: Any) -> dict[str, Any]:
    """One vaccination as a JSON line states it."""
    return {
        "uuid": uuid_of(n),
        "programme": "hpv",
        "organisation_code": "R1L",
        "forename": "Quintessa",
        "surname": "Zephyrson",
        "date_of_birth": "2012-08-18",
        "gender": "female",
        "postcode": "SW1A 1AA",
        "vaccinated_at": "2026-10-01T10:00:00",
        "dose_sequence": 1,
    } | changes


# -- receipts and rejects


def test_a_receipt_counts_what_became_of_every_row(stores: Stores) -> None:
    receipt = stores.accept(
        row(1),
        row(2, "MenACWY"),
        row(1),  # the same again
        row(3, vaccinated="N"),  # never ingested
        row(4).replace("SW1A 1AA", "nonsense"),
    )
    assert receipt.status == "ingested"
    assert receipt.accepted == {"hpv": {"new": 1}, "menacwy": {"new": 1}}
    assert receipt.exports == {"hpv": "hpv-1", "menacwy": "menacwy-1"}
    assert (receipt.rows, receipt.unchanged, receipt.skipped, receipt.rejected) == (5, 1, 1, 1)


def test_an_uploader_finds_the_receipt_as_a_file(stores: Stores) -> None:
    uploaded = stores.uploaded(upload_of(row(1), row(2).replace("SW1A 1AA", "nonsense")), "monday.csv")
    stores.handle(uploaded)
    moment = stores.clock().astimezone(UTC).isoformat(timespec="seconds")
    batch_id = stores.bucket.batch_id(*uploaded)
    found = stores.receipt_file(uploaded)
    assert datetime.fromisoformat(found.pop("uploaded_at")).tzinfo
    assert found == {
        "status": "ingested",
        "batch_id": batch_id,
        "upload": "incoming/R1L/monday.csv",
        "version": uploaded[1],
        "completed_at": moment,
        "uploader": None,
        "asked": None,
        "rows": 2,
        "accepted": {"hpv": {"new": 1}},
        "unchanged": 0,
        "overtaken": 0,
        "skipped": 0,
        "rejected": 1,
        "rejects": f"rejected/R1L/monday.csv/{batch_id}.csv",
        "assumed": {"no time is stated: midnight": 1},
        "assumed_in": {"no time is stated: midnight": [2]},
        "contradictions": 0,
        "contradicting": [],
        "exports": {"hpv": "hpv-1"},
    }


def test_a_receipt_says_what_was_assumed_of_how_many_accepted_rows_and_in_which_lines(stores: Stores) -> None:
    brand = row(2).replace("Gardasil9", "Gardasil 9")
    receipt = stores.accept(row(1), brand, row(3).removesuffix("1"), brand.replace("SW1A 1AA", "nonsense"), row(2))
    time, vaccine, dose = Assumed.TIME, Assumed.VACCINE, Assumed.DOSE
    assert receipt.assumed == {time: 3, vaccine: 1, dose: 1}
    assert receipt.assumed_in == {time: [2, 3, 4], vaccine: [3], dose: [4]}
    assert not stores.accept(row(1), brand).assumed  # unchanged


def test_a_receipt_of_a_large_upload_names_the_first_lines_only(stores: Stores) -> None:
    rows = [row(n // 2, batch=f"AB{n % 2}") for n in range(100)]
    receipt = stores.accept(*rows)
    assert (receipt.assumed, receipt.contradictions) == ({Assumed.TIME: 100}, 50)
    assert receipt.assumed_in == {Assumed.TIME: [*range(2, 2 + MOST_LINES)]}
    assert receipt.contradicting == [[line, line + 1] for line in range(2, 2 + 2 * MOST_LINES, 2)]


@pytest.mark.parametrize("at_once", [1, 1000])
def test_rows_that_contradict_an_earlier_row_are_named_with_it_and_the_later_counts(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", at_once)
    stores.accept(row(1), row(2))
    receipt = stores.accept(
        row(1),  # unchanged
        row(1, batch="CD1234"),
        row(3),
        row(1, batch="CD1234"),  # says line 3 again
        row(3, vaccinated="N"),
        row(2, batch="CD1234"),
        row(1, vaccinated="N"),
        row(4, vaccinated="N"),
        row(4),
        row(5).replace("SW1A 1AA", "nonsense"),
        row(5),
    )
    assert (receipt.contradictions, receipt.contradicting) == (4, [[2, 3], [4, 6], [5, 8], [9, 10]])
    assert stores.register.get([uuid_of(1)])[uuid_of(1)].withdrawn
    assert not stores.register.get([uuid_of(4)])[uuid_of(4)].withdrawn
    assert stores.accept(row(2)).contradictions == 0  # another upload


def test_a_row_of_nobody_vaccinated_is_counted_as_skipped_and_nothing_is_registered(stores: Stores) -> None:
    nobody = row(1, vaccinated="N").replace(uuid_of(1), "").replace("HPV,Gardasil9", ",")
    receipt = stores.accept(nobody, row(2), nobody)
    assert (receipt.rows, receipt.skipped, receipt.rejected) == (3, 2, 0)
    assert receipt.accepted == {"hpv": {"new": 1}}


@pytest.mark.parametrize("name", ["monday.xlsx", "MONDAY.XLS"])
def test_a_workbook_is_rejected_with_the_way_to_save_it_as_csv(stores: Stores, name: str) -> None:
    receipt = stores.handle(stores.uploaded(b"PK", name))
    assert isinstance(receipt, RejectedUpload)
    assert (receipt.reason, receipt.fix) == (
        "this is an Excel workbook",
        "save it as CSV and upload that: File, Save as, CSV UTF-8",
    )


@on_moto
def test_a_file_in_an_archive_is_rejected_and_holds_up_nobody(stores: Stores, s3: Any) -> None:
    key, _ = stores.uploaded(upload_of(row(1)), "monday.csv")
    archived = {"Bucket": stores.bucket.bucket, "Key": key, "StorageClass": "GLACIER"}
    version = s3.put_object(**archived, Body=b"")["VersionId"]
    receipt = stores.handle((key, version))
    assert isinstance(receipt, RejectedUpload)
    assert receipt.fix == "upload it again with the storage class STANDARD"


@pytest.mark.usefixtures("far_away")
def test_a_receipt_tells_its_times_in_utc_wherever_the_machine_is(stores: Stores) -> None:
    receipt = stores.accept(row(1))
    assert receipt.uploaded_at == receipt.completed_at == f"{stores.clock():%Y-%m-%dT%H:%M:%S}+00:00"


def test_an_upload_without_accepted_rows_gets_a_receipt_and_is_in_no_export(stores: Stores) -> None:
    receipt = stores.accept(row(1, vaccinated="N"))
    assert (receipt.accepted, receipt.exports, receipt.skipped, receipt.rejects) == ({}, {}, 1, None)
    assert stores.register.unfinished() == []


def test_a_rejects_file_says_line_column_fault_and_fix_for_every_error(stores: Stores) -> None:
    bad = row(1).replace("SW1A 1AA", "nonsense").replace("2012-08-18", "18th of August")
    receipt = stores.accept(row(0), bad)
    rejects = stores.rejects(receipt)
    assert {(r["line"], r["column"]) for r in rejects} == {("3", "PERSON_POSTCODE"), ("3", "PERSON_DOB")}
    assert all(r["what is wrong"] and r["what would be right"] for r in rejects)
    assert "nonsense" not in str(rejects)
    assert receipt.accepted == {"hpv": {"new": 1}}


@pytest.mark.parametrize(("bad", "lines"), [(3, {1, 2, 3}), (4, {1, 2, 3, 4}), (20, {1, 2, 3, 4})])
def test_an_upload_that_is_bad_throughout_gets_a_rejects_file_of_bounded_size(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, bad: int, lines: set[int]
) -> None:
    monkeypatch.setattr("vaccinations.jobs.spool.MOST_REJECTS", 3)
    receipt = stores.ingest("{}\n" * bad, "bad.jsonl")
    assert isinstance(receipt, Receipt)
    rejects = stores.rejects(receipt)
    assert receipt.rejected == bad
    assert {int(r["line"]) for r in rejects} == lines
    more = (
        "",
        "only the first 3 rejected rows are listed; the receipt counts them all",
        "put these right and upload the file again",
    )
    told = [(r["column"], r["what is wrong"], r["what would be right"]) for r in rejects]
    assert told.count(more) == (bad > 3)


def timed(line: str, at: datetime) -> str:
    """Add a time column to a line of a CSV file, or its header."""
    return (
        f"{line},TIME_OF_VACCINATION"
        if line == HEADER
        else f"{line.replace('2026-10-01', f'{at:%Y-%m-%d}')},{at:%H:%M:%S}"
    )


@pytest.mark.parametrize("kind", ["csv", "jsonl", "jsonl.gz"])
def test_problems_bear_the_names_of_the_uploaders_own_columns(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    stores.accept(row(1, "HPV"), row(2, "HPV"))
    forget_batches(stores, monkeypatch)
    late = in_london(stores.clock()) + timedelta(minutes=1)
    if kind == "csv":
        rows = [row(1, "MenACWY"), row(2, vaccinated="N"), row(3)]
        body = "\n".join([timed(HEADER, late), *(f"{line}," for line in rows[:2]), timed(rows[2], late)]).encode()
        expected = {"PROGRAMME", "VACCINATED", "TIME_OF_VACCINATION"}
        withdrawal = "VACCINATED = No"
    else:
        lines = [
            stated(1, programme="menacwy"),
            {"uuid": uuid_of(2), "deleted": True},
            stated(3, vaccinated_at=late.isoformat()),
        ]
        body = json_lines(*lines).encode()
        expected = {"programme", "deleted", "vaccinated_at"}
        withdrawal = '"deleted": true'
    receipt = stores.ingest(gzip.compress(body) if kind.endswith("gz") else body, f"moved.{kind}")
    rejects = stores.rejects(receipt)
    assert {reject["column"] for reject in rejects} == expected
    [moved] = [reject for reject in rejects if "ingested under HPV" in reject["what is wrong"]]
    assert f"(upload it under HPV with {withdrawal})" in moved["what would be right"]


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
    stores: Stores, name: str, body: bytes
) -> None:
    uploaded = stores.uploaded(body, name)
    receipt = stores.handle(uploaded)
    assert isinstance(receipt, RejectedUpload)
    assert receipt.reason
    assert receipt.fix
    assert stores.receipt_file(uploaded) == {
        "status": "rejected",
        "batch_id": stores.bucket.batch_id(*uploaded),
        "upload": uploaded[0],
        "version": uploaded[1],
        "reason": receipt.reason,
        "fix": receipt.fix,
        "completed_at": stores.clock().astimezone(UTC).isoformat(timespec="seconds"),
        "uploader": None,
    }
    assert stores.register.unfinished() == []


@pytest.mark.parametrize("key", ["incoming/R-1/monday.csv", "incoming/monday.csv", "incoming//monday.csv"])
def test_an_upload_whose_folder_is_no_organisation_is_rejected_with_a_receipt(stores: Stores, key: str) -> None:
    uploaded = key, stores.upload(key, upload_of(row(1)).encode())
    assert isinstance(stores.handle(uploaded), RejectedUpload)
    told = stores.receipt_file(uploaded)
    assert told["reason"] == "the folder does not tell whose upload this is"
    assert told["fix"] == "upload it as incoming/{ODS code}/{name}, for example incoming/R1A/monday.csv"


#: How a name is written where some characters stand for others, as S3's own notifications write it.
ENCODED_NAMES = {
    "mon+tue.csv": "mon%2Btue.csv",
    "a%20b.csv": "a%2520b.csv",
    "half term.csv": "half+term.csv",
    'Y9\'s "new" list.csv': "Y9%27s+%22new%22+list.csv",
    "\U0001f489 100%.csv": "%F0%9F%92%89+100%25.csv",
}


@pytest.mark.parametrize("name", ENCODED_NAMES)
def test_an_event_that_names_an_upload_as_it_is_or_with_characters_encoded_is_understood(
    stores: Stores, name: str
) -> None:
    key, version = stores.uploaded(upload_of(row(1)), name)
    for named in (f"incoming/R1L/{ENCODED_NAMES[name]}", key):
        receipt = stores.handle((named, version))
        assert isinstance(receipt, Receipt)
        assert (receipt.upload, receipt.accepted) == (key, {"hpv": {"new": 1}})
    assert stores.receipt_file((key, version))["status"] == "ingested"
    assert len(stores.queued()) == 1


def test_where_both_readings_of_a_name_are_uploads_the_one_that_is_named_is_ingested(stores: Stores) -> None:
    stores.uploaded(upload_of(row(1)), "a b.csv")
    stores.uploaded(upload_of(row(2)), "a+b.csv")
    assert stores.handle(("incoming/R1L/a+b.csv", "")).upload == "incoming/R1L/a+b.csv"
    assert [queued["UNIQUE_ID"] for queued in stores.queued()] == [uuid_of(2)]


def test_where_both_readings_of_a_name_are_uploads_the_version_tells_which_is_meant(stores: Stores) -> None:
    stores.uploaded(upload_of(row(1)), "a+b.csv")
    stores.uploaded(upload_of(row(2)), "a b.csv")
    _, version = stores.uploaded(upload_of(row(3)), "a b.csv")
    assert stores.handle(("incoming/R1L/a+b.csv", version)).upload == "incoming/R1L/a b.csv"
    assert [queued["UNIQUE_ID"] for queued in stores.queued()] == [uuid_of(3)]


def test_a_repeated_event_of_an_upload_that_was_cleared_away_gives_the_same_receipt(stores: Stores) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "mon+tue.csv")
    receipt = stores.handle(uploaded)
    stores.delete(uploaded[0])
    assert stores.handle(("incoming/R1L/mon%2Btue.csv", uploaded[1])) == receipt


@pytest.mark.parametrize("name", ["gone.csv", "mon+tue.csv", "a%20b.csv"])
def test_an_upload_that_is_not_there_is_counted_and_fails_and_gets_no_receipt(
    stores: Stores, name: str, logged: Callable[[], str]
) -> None:
    """So its message goes to the dead-letter queue, which an alarm watches."""
    logged()
    with pytest.raises(UploadGone):
        stores.handle((f"incoming/R1L/{name}", ""))
    assert '"UploadsMissing":[1.0]' in logged().replace(" ", "")
    assert not stores.list_keys()


@pytest.mark.parametrize("name", ["MONDAY.CSV", "monday.JSONL", "monday.jsonl.gz"])
def test_the_end_of_a_name_tells_how_a_file_is_read_in_any_case(stores: Stores, name: str) -> None:
    text = upload_of(row(1)) if name.endswith("CSV") else json_lines(stated(1))
    body = gzip.compress(text.encode()) if name.endswith("gz") else text
    receipt = stores.ingest(body, name)
    assert isinstance(receipt, Receipt)
    assert receipt.accepted == {"hpv": {"new": 1}}


HOSTILE_NAMES = {
    # Not \n: moto's server has no such keys.
    "line breaks": "mon\rday\u2028Mex-To: x\x85.csv",
    "a tab": "\tmonday.csv",
    "bidirectional controls": "\u202evsc.yadnom\u2066.csv",
    "dots and slashes": "../../incoming/R1L/../%2e%2e/x.csv",
    "quotes and brackets": '",{"level":"ERROR"}[/red]\'$(id)`id`.csv',
    "a name": "Quintessa Zephyrson 9992686766.csv",
    "every byte that a key may have": "ü" * 503 + ".csv",
}


@pytest.mark.parametrize("name", HOSTILE_NAMES.values(), ids=HOSTILE_NAMES)
def test_whatever_a_file_is_called_it_is_ingested_and_its_name_is_in_no_log(
    stores: Stores, name: str, logged: Callable[[], str]
) -> None:
    receipt = stores.accept(row(1), row(2, vaccinated="maybe"), name=name)
    assert receipt.rejected == 1
    assert stores.rejects(receipt)[0]["column"] == "VACCINATED"
    written = logged()
    assert written
    for line in written.splitlines():
        json.loads(line)  # one line is one entry, whatever the name holds
    assert name[:20] not in written
    assert json.dumps(name)[1:20] not in written


@in_memory
def test_a_name_that_is_an_escape_sequence_is_in_no_log(stores: Stores, logged: Callable[[], str]) -> None:
    """moto's server cannot list the versions of such a key."""
    test_whatever_a_file_is_called_it_is_ingested_and_its_name_is_in_no_log(
        stores, "\t\x1b]0;title\x07\x1b[2J.csv", logged
    )


def test_nothing_personal_is_logged(stores: Stores, logged: Callable[[], str]) -> None:
    stores.accept(row(1), row(2).replace("SW1A 1AA", "nonsense"), name="Quintessa Zephyrson.csv")
    stores.ingest("Quintessa Zephyrson SW1A 1AA", "Quintessa.csv")
    written = logged()
    assert "ingested" in written
    assert "rejected" in written
    for personal in ("Quintessa", "Zephyrson", "SW1A", "2012-08-18", "nonsense"):
        assert personal not in written


def counted(written: str) -> dict[str, int]:
    """Return the metrics in what was written."""
    found: dict[str, int] = {}
    for line in map(json.loads, written.splitlines()):
        for metrics in line.get("_aws", {}).get("CloudWatchMetrics", []):
            found |= {
                m["Name"]: sum(v if isinstance((v := line[m["Name"]]), list) else [v]) for m in metrics["Metrics"]
            }
    return found


def test_every_upload_is_counted_once_with_its_rows(stores: Stores, logged: Callable[[], str]) -> None:
    bad = [row(n).replace("SW1A", "?") for n in (3, 4)]
    uploaded = stores.uploaded(upload_of(row(1), row(2, "MenACWY"), row(1), row(1), *bad), "monday.csv")
    stores.handle(uploaded)
    counts = {"RowsAccepted": 2, "RowsUnchanged": 2, "RowsOvertaken": 0, "RowsRejected": 2}
    assert counted(logged()) == {"Uploads": 1} | counts
    stores.handle(uploaded)
    assert counted(logged()) == {}
    stores.ingest("", "empty.csv")
    assert counted(logged()) == {"UploadsRejected": 1}


def entries(written: str) -> list[dict[str, Any]]:
    """Return the log lines in what was written."""
    return [line for line in map(json.loads, written.splitlines()) if "message" in line]


def test_the_log_tells_what_became_of_an_upload_by_its_batch_id(stores: Stores, logged: Callable[[], str]) -> None:
    uploaded = stores.uploaded(upload_of(row(1), row(1), row(2, vaccinated="N"), row(3, vaccinated="?")), "monday.csv")
    receipt = stores.handle(uploaded)
    attached, ingested = entries(logged())
    expected = {"message": "batch attached", "export_id": "hpv-1", "programme": "hpv", "records": 1}
    assert attached | expected | {"batch_id": receipt.batch_id} == attached
    counts = {
        "rows": 4,
        "unchanged": 1,
        "skipped": 1,
        "rejected": 1,
        "accepted": {"hpv": 1},
        "exports": {"hpv": "hpv-1"},
    }
    assert ingested | counts | {"message": "upload ingested", "batch_id": receipt.batch_id} == ingested
    stores.handle(uploaded)
    assert [line["message"] for line in entries(logged())] == ["the upload was ingested before; nothing to do"]


def test_the_log_tells_why_an_upload_was_rejected_as_a_whole(stores: Stores, logged: Callable[[], str]) -> None:
    receipt = stores.ingest("PK", "letter.docx")
    [rejected] = entries(logged())
    why = {"reason": "the name does not tell what kind of file this is", "batch_id": receipt.batch_id}
    assert rejected | {"level": "WARNING", "message": "upload rejected as a whole"} | why == rejected
    assert isinstance(receipt, RejectedUpload)
    assert receipt.fix == "give it a name ending in .csv or .jsonl"


def test_an_upload_that_was_left_unfinished_is_named_in_the_log_of_the_one_that_completes_it(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    with monkeypatch.context() as dies:
        dying(stores.register, dies, "finish")
        with pytest.raises(Died):
            stores.accept(row(1))
    [unfinished] = stores.register.unfinished()
    logged()
    stores.accept(row(2), name="tuesday.csv")
    first, *_ = entries(logged())
    assert (first["message"], first["unfinished"]) == ("completing an earlier upload first", unfinished)


def test_an_upload_that_is_gone_on_with_is_no_earlier_one(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    with monkeypatch.context() as dies:
        dying(stores.register, dies, "finish")
        with pytest.raises(Died):
            stores.handle(uploaded)
    logged()
    stores.handle(uploaded)
    assert [line["message"] for line in entries(logged())] == ["upload ingested"]


@pytest.mark.parametrize("stores", ["memory"], indirect=True)
@pytest.mark.parametrize("name", ["monday.csv", "monday.jsonl"])
def test_an_upload_is_closed_once_it_is_read(stores: Stores, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    opened: list[Any] = []
    open_upload = stores.bucket.open_upload

    def noting(key: str, version: str) -> Any:
        upload = open_upload(key, version)
        opened.append(upload.body)
        return upload

    monkeypatch.setattr(stores.bucket, "open_upload", noting)
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 1)
    stores.ingest(upload_of(row(1), row(2)), name)  # as JSON lines, none of it makes sense
    [body] = opened
    assert body.closed


# -- what is queued for DPS


def test_the_same_upload_again_changes_nothing(stores: Stores) -> None:
    stores.accept(row(1), row(2))
    receipt = stores.accept(row(1), row(2), name="again.csv")
    assert (receipt.accepted, receipt.unchanged) == ({}, 2)
    assert len(stores.queued()) == 2


def test_a_repeated_event_changes_nothing_and_gives_the_same_receipt(stores: Stores) -> None:
    uploaded = stores.uploaded(upload_of(row(1), row(2, vaccinated="N")), "monday.csv")
    first, file = stores.handle(uploaded), stores.receipt_file(uploaded)
    stores.clock.forward(days=1)
    assert stores.handle(uploaded) == first
    assert stores.receipt_file(uploaded) == file
    assert len(stores.queued()) == 1


def test_a_corrected_record_goes_out_as_an_update(stores: Stores) -> None:
    stores.accept(row(1), row(2))
    receipt = stores.accept(row(1, batch="XY9999"), row(2), name="corrected.csv")
    assert (receipt.accepted, receipt.unchanged) == ({"hpv": {"update": 1}}, 1)
    assert flags(stores.queued()[2:]) == [(uuid_of(1), "update", "XY9999")]


def test_a_correction_of_a_record_that_is_not_on_file_at_dps_goes_out_as_new(stores: Stores) -> None:
    stores.accept(row(1))
    refuse(stores, 1, on_file=OnFile.NO)
    assert stores.accept(row(1, batch="XY9999"), name="corrected.csv").accepted == {"hpv": {"new": 1}}
    entry = stores.register.get([uuid_of(1)])[uuid_of(1)]
    assert (entry.on_file, entry.refusal) == (OnFile.YES, None)


def test_a_withdrawn_record_goes_out_as_a_delete_with_its_columns_as_last_stated(stores: Stores) -> None:
    stores.accept(row(1, batch="XY9999"), row(2))
    withdrawal = row(1, vaccinated="N").replace("2026-10-01", "").replace("Gardasil9", "")
    assert stores.accept(withdrawal, name="withdrawn.csv").accepted == {"hpv": {"delete": 1}}
    (*_, deleted) = stores.queued()
    assert flags([deleted]) == [(uuid_of(1), "delete", "XY9999")]
    assert deleted["DATE_AND_TIME"].startswith("20261001")


def test_a_record_withdrawn_while_it_is_not_on_file_at_dps_stays_so(stores: Stores) -> None:
    stores.accept(row(1))
    refuse(stores, 1, on_file=OnFile.NO)
    assert stores.accept(row(1, vaccinated="N"), name="withdrawn.csv").accepted == {"hpv": {"delete": 1}}
    assert stores.register.get([uuid_of(1)])[uuid_of(1)].on_file is OnFile.NO
    assert stores.accept(row(1), name="back.csv").accepted == {"hpv": {"new": 1}}


@pytest.fixture
def batches_read(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the ids of the batches that are read from here on."""
    read: list[str] = []
    batch_lines = stores.bucket.batch_lines

    def noting(programme: str, batch_id: str) -> Any:
        read.append(batch_id)
        return batch_lines(programme, batch_id)

    monkeypatch.setattr(stores.bucket, "batch_lines", noting)
    return read


def test_an_upload_that_changes_nothing_reads_no_batch(stores: Stores, batches_read: list[str]) -> None:
    stores.accept(row(1), row(2), row(2, vaccinated="N"))
    batches_read.clear()
    assert stores.accept(row(1), row(2, vaccinated="N"), name="again.csv").unchanged == 2
    assert batches_read == []


@pytest.mark.parametrize("at_once", [1000, 20, 1])
def test_however_many_records_are_withdrawn_their_batch_is_read_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, batches_read: list[str], at_once: int
) -> None:
    stores.accept(*(row(n) for n in range(60)))
    batches_read.clear()
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", at_once)
    receipt = stores.accept(*(row(n, vaccinated="N") for n in range(10, 60)), name="tuesday.csv")
    assert receipt.accepted == {"hpv": {"delete": 50}}
    # Once for what was stated of the records, and once, of its own, to register them.
    assert len(batches_read) == 2
    assert flags(stores.queued()[60:]) == [(uuid_of(n), "delete", "AB1234") for n in range(10, 60)]


def test_a_batch_that_is_no_longer_kept_is_asked_for_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, batches_read: list[str]
) -> None:
    stores.accept(*(row(n) for n in range(6)))
    for key in [key for key in stores.list_keys() if key.startswith("batches/hpv/")]:
        stores.delete(key)
    batches_read.clear()
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 2)
    assert stores.accept(*(row(n, vaccinated="N") for n in range(6)), name="withdrawn.csv").rejected == 6
    assert len(batches_read) == 1


def test_a_record_withdrawn_twice_is_deleted_once(stores: Stores) -> None:
    stores.accept(row(1))
    stores.accept(row(1, vaccinated="N"), name="2.csv")
    receipt = stores.accept(row(1, vaccinated="N"), name="3.csv")
    assert (receipt.accepted, receipt.unchanged) == ({}, 1)


def test_a_withdrawn_record_that_comes_back_goes_out_as_an_update(stores: Stores) -> None:
    for name, vaccinated in (("1.csv", "Y"), ("2.csv", "N"), ("3.csv", "Y")):
        receipt = stores.accept(row(1, vaccinated=vaccinated), name=name)
    assert receipt.accepted == {"hpv": {"update": 1}}


def test_a_record_that_is_corrected_within_one_upload_keeps_its_order(stores: Stores) -> None:
    receipt = stores.accept(row(1), row(1, batch="XY9999"), row(2), row(1, vaccinated="N"))
    assert receipt.accepted == {"hpv": {"new": 2, "update": 1, "delete": 1}}
    assert flags(stores.queued()) == [
        (uuid_of(1), "new", "AB1234"),
        (uuid_of(1), "update", "XY9999"),
        (uuid_of(2), "new", "AB1234"),
        (uuid_of(1), "delete", "XY9999"),
    ]


def test_a_record_stated_and_withdrawn_far_apart_in_one_upload_is_deleted_as_it_was_stated(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However few rows are looked at at once."""
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 2)
    rows = (*(row(n) for n in range(5)), row(1, vaccinated="N"), row(1, vaccinated="N"), row(0, batch="XY9999"))
    receipt = stores.accept(*rows)
    assert (receipt.accepted, receipt.unchanged) == ({"hpv": {"new": 5, "delete": 1, "update": 1}}, 1)
    assert flags(stores.queued()[5:]) == [(uuid_of(1), "delete", "AB1234"), (uuid_of(0), "update", "XY9999")]


def test_a_record_known_under_another_programme_is_rejected_with_the_way_to_put_it_right(stores: Stores) -> None:
    stores.accept(row(1, "HPV"))
    receipt = stores.accept(row(1, "MenACWY"), name="moved.csv")
    assert (receipt.accepted, receipt.rejected) == ({}, 1)
    [reject] = stores.rejects(receipt)
    assert (reject["column"], reject["what is wrong"]) == ("PROGRAMME", "this record was ingested under HPV before")
    assert "VACCINATED = No" in reject["what would be right"]


def test_a_vaccination_later_than_the_upload_is_rejected(stores: Stores) -> None:
    soon = stores.clock() + timedelta(hours=1)
    late = stated(2, vaccinated_at=soon.isoformat())
    receipt = stores.ingest(json_lines(stated(1), late), "records.jsonl")
    assert isinstance(receipt, Receipt)
    assert (receipt.accepted, receipt.rejected) == ({"hpv": {"new": 1}}, 1)


def test_a_record_that_does_not_say_when_it_was_made_was_made_on_the_day_of_its_upload_by_utc(stores: Stores) -> None:
    """DPS goes by UTC."""
    stores.accept(row(1))
    [queued] = stores.queued()
    assert queued["RECORDED_DATE"] == f"{stores.clock():%Y%m%d}"


def test_an_upload_of_one_record_many_times_leaves_what_was_said_last(stores: Stores) -> None:
    """However many requests it takes to write it all."""
    rows = [row(n % 60, batch=f"AB{n:04}") for n in range(2400)]
    assert stores.accept(*rows).accepted == {"hpv": {"new": 60, "update": 2340}}
    assert {e.line for e in stores.register.get(map(uuid_of, range(60))).values()} == set(range(2342, 2402))


# -- records to send again


def refuse(stores: Stores, *numbers: int, on_file: OnFile) -> None:
    """Let DPS refuse the last statements of records."""
    entries = stores.register.get(map(uuid_of, numbers)).values()
    why = Outcome.DUPLICATE if on_file is OnFile.YES else Outcome.UNKNOWN
    refusal = Refusal(why, "2026-11-24T12:00:00+00:00", "hpv-1", 1, "inbox/answer")
    stores.register.hear([replace(entry, refusal=refusal) for entry in entries])


def ask_for(stores: Stores, *numbers: int, name: str = "1.resend") -> Receipt:
    receipt = stores.handle(stores.bucket.put_request(name, "".join(uuid_of(n) + "\n" for n in numbers).encode()))
    assert isinstance(receipt, Receipt)
    return receipt


def test_a_refused_record_is_sent_again_as_it_was_stated_as_what_dps_would_process(stores: Stores) -> None:
    stores.accept(row(1, batch="XY9999"), row(2), row(3))
    stores.accept(row(3, vaccinated="N"), name="withdrawn.csv")
    refuse(stores, 1, on_file=OnFile.NO)
    refuse(stores, 2, 3, on_file=OnFile.YES)
    assert ask_for(stores, 1, 2, 3).accepted == {"hpv": {"new": 1, "update": 1, "delete": 1}}
    assert flags(stores.queued()[4:]) == [
        (uuid_of(1), "new", "XY9999"),
        (uuid_of(2), "update", "AB1234"),
        (uuid_of(3), "delete", "AB1234"),
    ]
    entries = stores.register.get(map(uuid_of, (1, 2, 3)))
    assert {(entry.on_file, entry.refusal) for entry in entries.values()} == {(OnFile.YES, None)}
    assert stores.accept(row(1, batch="XY9999"), name="same.csv").unchanged == 1


@pytest.mark.parametrize("at_once", [1000, 1])
def test_a_record_named_twice_is_sent_again_once(stores: Stores, monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", at_once)
    stores.accept(row(1))
    refuse(stores, 1, on_file=OnFile.YES)
    receipt = ask_for(stores, 1, 1)
    assert (receipt.accepted, receipt.unchanged) == ({"hpv": {"update": 1}}, 1)


def test_a_record_that_was_not_refused_or_never_ingested_is_not_sent_again(stores: Stores) -> None:
    stores.accept(row(1))
    receipt = ask_for(stores, 1, 2)
    assert (receipt.accepted, receipt.rejected) == ({}, 2)
    assert [r["line"] for r in stores.rejects(receipt)] == ["1", "2"]


def forget_batches(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the batches that there are be cleared away, as after a long time."""
    gone = {key.rpartition("/")[2].partition(".")[0] for key in stores.list_keys() if key.startswith("batches/hpv/")}
    batch_lines = stores.bucket.batch_lines

    def lines(programme: str, batch_id: str) -> Any:
        if batch_id in gone:
            raise BatchGone(batch_id)
        yield from batch_lines(programme, batch_id)

    monkeypatch.setattr(stores.bucket, "batch_lines", lines)


def test_what_is_no_longer_kept_is_neither_withdrawn_nor_sent_again_and_the_uploader_is_told(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.accept(row(1), row(2))
    refuse(stores, 2, on_file=OnFile.YES)
    forget_batches(stores, monkeypatch)
    withdrawn = stores.accept(row(1, vaccinated="N"), row(3), name="withdrawn.csv")
    assert (withdrawn.accepted, withdrawn.rejected) == ({"hpv": {"new": 1}}, 1)
    assert "no longer kept" in stores.rejects(withdrawn)[0]["what is wrong"]
    assert "no longer kept" in stores.rejects(ask_for(stores, 2))[0]["what is wrong"]


def test_a_batch_that_lacks_a_registered_record_stops_the_upload(stores: Stores) -> None:
    """Rather than being taken for one that was cleared away."""
    stores.accept(row(1))
    entry = stores.register.get([uuid_of(1)])[uuid_of(1)]
    stores.register.put([replace(entry, line=99)])
    with pytest.raises(LookupError, match=r"^a batch lacks a record that the register knows$"):
        stores.accept(row(1, vaccinated="N"), name="withdrawn.csv")


# -- dying on the way


class Died(BaseException):
    """Stands for the end of the process at some point."""


def dying(target: Any, monkeypatch: pytest.MonkeyPatch, method: str, after: int = 0) -> None:
    """Make the process die at the n-th call of a method."""
    whole = getattr(target, method)
    calls = iter(range(1000))

    def die(*args: Any, **options: Any) -> Any:
        if next(calls) == after:
            raise Died
        return whole(*args, **options)

    monkeypatch.setattr(target, method, die)


POINTS = [
    ("bucket", "put_batch", 0),
    ("bucket", "put_batch", 1),
    ("bucket", "put_rejects", 0),
    ("bucket", "put_intake", 0),
    ("register", "begin", 0),
    ("register", "put", 0),
    ("register", "put", 1),
    ("ledger", "attach", 0),
    ("ledger", "attach", 1),
    ("bucket", "put_intake", 1),
    ("bucket", "put_receipt", 0),
    ("register", "finish", 0),
]


@on_every_database
@pytest.mark.parametrize(("store", "method", "after"), POINTS)
@pytest.mark.parametrize("redelivered", [True, False])
def test_an_upload_that_died_on_the_way_arrives_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, store: str, method: str, after: int, redelivered: bool
) -> None:
    body = upload_of(row(1), row(2), row(3, "MenACWY"), row(4).replace("SW1A 1AA", "nonsense"))
    first = stores.uploaded(body, "monday.csv")
    with monkeypatch.context() as dies:
        dying(getattr(stores, store), dies, method, after)
        with pytest.raises(Died):
            stores.handle(first)
    if redelivered:
        stores.handle(first)
    # The team uploads it again under another name; then the dead letter is redriven.
    stores.ingest(body, "again.csv")
    receipt = stores.handle(first)
    queued = [*stores.queued("hpv"), *stores.queued("menacwy")]
    assert sorted(flags(queued)) == sorted((uuid_of(n), "new", "AB1234") for n in (1, 2, 3))
    assert isinstance(receipt, Receipt)
    assert receipt.rejected == 1
    assert stores.receipt_file(first)["batch_id"] == receipt.batch_id
    assert stores.register.unfinished() == []


@on_every_database
def test_an_upload_that_another_run_has_attached_meanwhile_is_in_its_receipt_and_counted_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, logged: Callable[[], str]
) -> None:
    """A run that was frozen wakes up when another has done its work."""
    uploaded = stores.uploaded(upload_of(row(1)), "monday.csv")
    put = stores.register.put

    def overtaken(entries: Any) -> None:
        put(entries)
        if stores.register.unfinished():
            monkeypatch.setattr(stores.register, "put", put)
            Ingest(stores.bucket, stores.register, stores.ledger, clock=stores.clock).ingest(*uploaded)

    monkeypatch.setattr(stores.register, "put", overtaken)
    logged()
    receipt = stores.handle(uploaded)
    assert isinstance(receipt, Receipt)
    assert receipt.exports == {"hpv": "hpv-1"}
    assert len(stores.queued()) == 1
    assert [line["message"] for line in entries(logged())].count("batch attached") == 1


# -- what it costs, and what is kept where


@on_moto
def test_nothing_personal_is_kept_in_dynamodb(stores: Stores) -> None:
    stores.accept(row(1), row(2), name="Quintessa Zephyrson.csv")
    tables = stores.dynamodb.list_tables()["TableNames"]
    text = str([stores.dynamodb.scan(TableName=table)["Items"] for table in tables])
    assert uuid_of(1) in text
    for personal in ("Quintessa", "Zephyrson", "SW1A", "2012-08-18", "20120818"):
        assert personal not in text


@on_moto
def test_a_record_costs_one_read_and_one_write_of_the_register(stores: Stores) -> None:
    """As far as the requests go: of at most 100 keys and 25 items each."""
    reads: list[int] = []
    writes: list[int] = []

    def note(params: dict[str, Any], model: Any, **_: Any) -> None:
        if model.name == "BatchGetItem":
            reads.extend([len(request["Keys"]) for request in params["RequestItems"].values()])
        elif model.name == "BatchWriteItem":
            writes.extend(len(request) for request in params["RequestItems"].values())

    stores.dynamodb.meta.events.register("provide-client-params.dynamodb", note)
    try:
        receipt = stores.accept(*map(row, range(1250)))
    finally:
        stores.dynamodb.meta.events.unregister("provide-client-params.dynamodb", note)
    assert receipt.accepted == {"hpv": {"new": 1250}}
    assert sorted(reads) == [50, *[100] * 12]
    assert writes == [25] * 50
