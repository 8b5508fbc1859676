"""Promises of the bucket, in memory and on S3."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from tests.usecases.stores import on_moto
from vaccinations.aws.bucket import Bucket, NoSuchObject, receipt_key, receipts_prefix
from vaccinations.model.entry import age_of
from vaccinations.model.export import FileNames, Manifest, PartFacts
from vaccinations.ports import BatchGone, StoredMeanwhile, UploadGone
from vaccinations.results import Receipt, RejectedUpload, StoredIntake

if TYPE_CHECKING:
    from pathlib import Path

    from tests.clocks import Clock
    from tests.usecases.stores import Stores

pytestmark = pytest.mark.parametrize("clock", ["noon"], indirect=True)

RECEIPT = Receipt(
    batch_id="b",
    upload="incoming/R1L/monday.csv",
    version="1",
    uploaded_at="2026-11-24T12:00:00+00:00",
    rows=3,
    accepted={"hpv": {"new": 2}},
    overtaken=0,
    unchanged=1,
    skipped=0,
    rejected=0,
    rejects=None,
    assumed={"no dose is stated: the first": 1},
    assumed_in={"no dose is stated: the first": [2]},
    contradictions=1,
    contradicting=[[2, 3]],
    exports={"hpv": "hpv-1"},
    completed_at="2026-11-24T12:00:01+00:00",
)


def file_of(folder: Path, content: bytes) -> Path:
    file = folder / hashlib.sha256(content).hexdigest()
    file.write_bytes(content)
    return file


def test_each_version_of_an_upload_is_opened_as_it_was(stores: Stores) -> None:
    first = stores.upload("incoming/R1L/monday.csv", b"first")
    stores.clock.forward(hours=1)
    second = stores.upload("incoming/R1L/monday.csv", b"second")
    opened = [stores.bucket.open_upload("incoming/R1L/monday.csv", version) for version in (first, second, "")]
    assert [upload.body.read() for upload in opened] == [b"first", b"second", b"second"]
    assert [upload.version for upload in opened] == [first, second, ""]
    assert (opened[1].uploaded_at - opened[0].uploaded_at).total_seconds() == 3600
    assert opened[0].uploaded_at == stores.clock() - (opened[1].uploaded_at - opened[0].uploaded_at)


def test_of_versions_whose_times_go_back_and_forth_none_is_as_old_as_another(clock: Clock) -> None:
    """S3 lists versions in the order in which they came; one that came in parts bears the time at which it was begun.

    moto's S3 lists them by their times.
    """
    key = "incoming/R1L/monday.csv"
    times = {f"v{n}": clock() - timedelta(seconds=earlier) for n, earlier in enumerate((0, 1, 0, 1, 0))}
    listed = [{"Key": key, "VersionId": v, "LastModified": at} for v, at in reversed(times.items())]
    s3: Any = SimpleNamespace(
        get_object=lambda **asked: {"Body": io.BytesIO(), "LastModified": times[asked["VersionId"]], "Metadata": {}},
        get_paginator=lambda _: SimpleNamespace(
            paginate=lambda **_: [{"Versions": listed[:3]}, {"Versions": listed[3:]}]
        ),
    )
    uploads = [Bucket(s3, "bucket").open_upload(key, version) for version in times]
    ages = [age_of(upload.uploaded_at, key, upload.place) for upload in uploads]
    assert sorted(ages) == [ages[n] for n in (1, 3, 0, 2, 4)]
    assert len(set(ages)) == len(ages)


@pytest.mark.parametrize("version", ["", "99"])
def test_an_upload_that_is_not_there_is_said_to_be_gone(stores: Stores, version: str) -> None:
    with pytest.raises(UploadGone):
        stores.bucket.open_upload("incoming/R1L/gone.csv", version)


def test_a_batch_id_follows_from_the_object_and_differs_by_key_and_version(stores: Stores) -> None:
    ids = {stores.bucket.batch_id(key, version) for key in ("a", "ab") for version in ("1", "b1", "")}
    assert len(ids) == 6
    assert stores.bucket.batch_id("a", "1") in ids
    assert all(len(batch_id) == 32 for batch_id in ids)


def test_a_batch_is_read_line_by_line_and_its_rows_as_they_were_stored(stores: Stores, tmp_path: Path) -> None:
    lines = file_of(tmp_path, gzip.compress(b'{"a": 1}\n{"a": 2}\n'))
    stores.bucket.put_batch("hpv", "b", lines, lines)
    stores.bucket.put_batch("flu", "b", lines)
    assert list(stores.bucket.batch_lines("hpv", "b")) == [b'{"a": 1}\n', b'{"a": 2}\n']
    rows = stores.bucket.open_rows("hpv", "b")
    assert rows
    with closing(rows):
        assert rows.read() == lines.read_bytes()
    assert stores.bucket.open_rows("flu", "b") is None


def test_a_batch_takes_the_place_of_one_that_was_left_behind_and_of_no_other(stores: Stores, tmp_path: Path) -> None:
    left, ours = (file_of(tmp_path, gzip.compress(text)) for text in (b"left behind\n", b"ours\n"))
    stores.bucket.put_batch("hpv", "b", left, left)
    with pytest.raises(StoredMeanwhile):
        stores.bucket.put_batch("hpv", "b", ours, ours, may_replace=lambda: False)
    assert list(stores.bucket.batch_lines("hpv", "b")) == [b"left behind\n"]
    stores.bucket.put_batch("hpv", "b", ours, ours, may_replace=lambda: True)
    assert list(stores.bucket.batch_lines("hpv", "b")) == [b"ours\n"]


def test_a_batch_takes_the_place_of_none_that_another_run_stores_at_that_moment(stores: Stores, tmp_path: Path) -> None:
    left, theirs, ours = (file_of(tmp_path, gzip.compress(text)) for text in (b"left\n", b"theirs\n", b"ours\n"))
    stores.bucket.put_batch("hpv", "b", left)

    def another_is_faster() -> bool:
        stores.bucket.put_batch("hpv", "b", theirs, may_replace=lambda: True)
        return True

    with pytest.raises(StoredMeanwhile):
        stores.bucket.put_batch("hpv", "b", ours, may_replace=another_is_faster)
    assert list(stores.bucket.batch_lines("hpv", "b")) == [b"theirs\n"]


def test_a_batch_that_was_cleared_away_is_said_to_be_gone(stores: Stores) -> None:
    with pytest.raises(BatchGone):
        next(stores.bucket.batch_lines("hpv", "b"))


def test_an_intake_comes_back_as_it_was_stored(stores: Stores) -> None:
    intake = StoredIntake(upload="incoming/R1L/monday.csv", version="1", receipt=RECEIPT)
    stores.bucket.put_intake("b", intake)
    assert stores.bucket.intake("b") == intake


REJECTED = RejectedUpload(
    batch_id="b", upload=RECEIPT.upload, version="1", reason="it is empty", fix="fill it", completed_at="then"
)


@pytest.mark.parametrize("receipt", [RECEIPT, REJECTED], ids=["ingested", "rejected"])
def test_a_receipt_stands_beside_its_upload_as_json(stores: Stores, receipt: Receipt | RejectedUpload) -> None:
    key = stores.bucket.put_receipt("incoming/R1L/monday.csv", "b", receipt)
    assert key == receipt_key("incoming/R1L/monday.csv", "b") == "receipts/R1L/monday.csv/b.json"
    found = json.loads(stores.object(key))
    assert (found["status"], found["batch_id"]) == (receipt.status, "b")


def test_rejects_and_refusals_are_found_by_the_uploads_name(stores: Stores, tmp_path: Path) -> None:
    file = file_of(tmp_path, b"line,column\n")
    rejects = stores.bucket.put_rejects("incoming/R1L/monday.csv", "b", file)
    refusals = stores.bucket.put_refusals("incoming/R1L/monday.csv", "b", "hpv-1", file)
    assert rejects == "rejected/R1L/monday.csv/b.csv"
    assert refusals == "receipts/R1L/monday.csv/b-refused-hpv-1.csv"
    assert refusals.startswith(receipts_prefix("incoming/R1L/monday.csv"))
    assert stores.object(rejects) == stores.object(refusals) == file.read_bytes()


def test_the_longest_name_of_an_upload_leaves_room_for_its_receipt(stores: Stores) -> None:
    key = stores.bucket.put_receipt(f"incoming/R1L/{'ü' * 503}.csv", "b" * 32, REJECTED)
    assert len(key.encode()) <= 1024
    assert stores.object(key)


def test_parts_and_their_manifest_come_back_as_they_were_stored(stores: Stores, tmp_path: Path) -> None:
    assert stores.bucket.manifest("hpv", 3) is None
    stores.bucket.put_part("hpv", 3, 1, file_of(tmp_path, b"part one"))
    begun = Manifest("hpv-3", 1, ("b1", "b2"), (FileNames("a", "b"),), 5, (PartFacts(1, 5, 8, "digest"),), (0, 2))
    done = replace(begun, next=None)
    for manifest in (begun, done):
        stores.bucket.put_manifest("hpv", 3, manifest)
        assert stores.bucket.manifest("hpv", 3) == manifest
    with closing(stores.bucket.open_part("hpv", 3, 1)) as part:
        assert part.read() == b"part one"
    with pytest.raises(NoSuchObject):
        stores.bucket.open_part("hpv", 3, 2)


def test_a_message_is_kept_and_what_mesh_said_of_it_once_it_is_whole(stores: Stores) -> None:
    facts: dict[str, Any] = {"filename": "a.csv", "subject": "Tést\n", "status_code": None}
    assert stores.bucket.message("dps", "m") is None
    with _unsized(b"hello" * 9) as stream:
        key = stores.bucket.put_message("dps", "m", stream, facts)
    assert key == "inbox/dps/m"
    assert stores.bucket.message("dps", "m") is None
    stores.bucket.put_message_facts("dps", "m", facts)
    assert stores.bucket.message("dps", "m") == facts
    with closing(stores.bucket.open_message(key)) as body:
        assert body.read() == b"hello" * 9


def _unsized(content: bytes) -> io.FileIO:
    """Return a stream of which nobody knows the size beforehand."""
    reading, writing = os.pipe()
    os.write(writing, content)
    os.close(writing)
    return io.FileIO(reading)


@pytest.mark.parametrize(
    ("workflow_id", "message_id", "key"),
    [(None, "m", "inbox/none/m"), ("../x", "a/b", "inbox/%2E%2E%2Fx/a%2Fb"), ("x" * 999, "m", f"inbox/{'x' * 300}/m")],
)
def test_what_a_message_is_called_never_leads_out_of_its_folder(
    stores: Stores, workflow_id: str | None, message_id: str, key: str
) -> None:
    with _unsized(b"") as stream:
        assert stores.bucket.put_message(workflow_id, message_id, stream, {}) == key


@on_moto
def test_an_error_of_s3_that_is_no_absence_is_not_taken_for_one(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    from botocore.exceptions import ClientError

    def denied(*_: object, **__: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "GetObject")

    monkeypatch.setattr(stores.bucket._s3, "get_object", denied)
    with pytest.raises(ClientError):
        stores.bucket.open_upload("incoming/R1L/monday.csv", "")
    with pytest.raises(ClientError):
        stores.bucket.open_rows("hpv", "b")


def test_the_numbers_of_exports_of_which_anything_is_there_are_found(stores: Stores) -> None:
    for key in ("hpv/2/part-0001.csv.gz", "hpv/10/manifest.json", "hpv/2/manifest.json", "hpvx/3/m", "hpv/x/m"):
        stores.upload(f"exports/{key}", b"")
    assert stores.bucket.export_numbers("hpv") == [2, 10]
    assert stores.bucket.export_numbers("flu") == []


def test_the_messages_that_were_kept_whole_since_a_moment_come_oldest_first(stores: Stores) -> None:
    for name in ("b", "a", "c"):
        stores.bucket.put_message_facts("dps", name, {"message_id": name})
        stores.clock.forward(seconds=1)
    stores.upload("inbox/dps/d", b"its facts are not there yet")
    since = stores.clock() - timedelta(seconds=2)
    assert [facts["message_id"] for facts in stores.bucket.messages(since)] == ["a", "c"]
