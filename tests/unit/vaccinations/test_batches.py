"""What batches promise: one line a record, read back as it was written, and a digest of what was stated."""

from __future__ import annotations

import gzip
import io
from datetime import date
from typing import Any

import orjson
import pytest

from local.sample import make_batch_lines
from tests.entries import STATED_AT, entry_for
from vaccinations.formats.batches import batch_line, digest_of, entry_of, read_batch, repeat_line
from vaccinations.model.entry import WITHDRAWN, Entry, Refusal
from vaccinations.model.outcome import Action, OnFile, Outcome
from vaccinations.model.record import VaccinationRecord

TODAY = date(2026, 3, 10)
UUID = "496e37d8-d1ab-4e12-a3a3-9c2e136a0504"


def record(**changes: Any) -> VaccinationRecord:
    stated = {
        "uuid": UUID,
        "organisation_code": "R1L",
        "forename": "Brenton",
        "surname": "Waters",
        "date_of_birth": "2012-08-18",
        "gender": "not_known",
        "postcode": "UC0W 0JL",
        "vaccinated_at": "2025-06-09T10:15:00",
        "programme": "hpv",
    }
    return VaccinationRecord.model_validate(stated | changes, context={"today": TODAY})


def line(**changes: Any) -> bytes:
    stated = record(**changes)
    return batch_line(stated, entry_for(stated, "update", 7), today=date(2024, 8, 22))


def test_a_batch_line_is_the_record_and_what_is_to_become_of_it() -> None:
    stated = record()
    entry = entry_for(stated, "update", 7, digest="d1")
    fields = orjson.loads(batch_line(stated, entry, today=date(2024, 8, 22)))
    assert (fields.pop("action"), fields.pop("line"), fields.pop("digest")) == ("update", 7, "d1")
    assert (fields.pop("owner"), fields.pop("owned_since"), fields.pop("stated_at")) == ("R1L", STATED_AT, STATED_AT)
    assert fields.pop("recorded_on") == "2024-08-22"
    assert VaccinationRecord.model_validate(fields, context={"today": TODAY}) == stated


def test_a_batch_line_is_one_line() -> None:
    text = line(surname='a"b\\c|d')
    assert text.endswith(b"}\n")
    assert text.count(b"\n") == 1


def test_a_batch_is_read_back_line_by_line_also_from_several_gzip_members() -> None:
    lines = list(make_batch_lines(300))
    body = gzip.compress(b"".join(lines[:100])) + gzip.compress(b"".join(lines[100:]))
    assert list(read_batch(io.BytesIO(body))) == lines


@pytest.mark.parametrize("cut", [1, 8, 9, 500])
def test_a_cut_off_batch_is_never_taken_for_a_whole_one(cut: int) -> None:
    body = gzip.compress(b"".join(make_batch_lines(300)))
    with pytest.raises(EOFError):
        list(read_batch(io.BytesIO(body[:-cut])))


def test_a_damaged_batch_is_noticed() -> None:
    body = bytearray(gzip.compress(b"".join(make_batch_lines(300))))
    body[-6] ^= 1  # in the checksum
    with pytest.raises(OSError, match="CRC"):
        list(read_batch(io.BytesIO(bytes(body))))


def test_a_batch_line_holds_the_digest_of_what_was_stated() -> None:
    assert orjson.loads(line())["digest"] == digest_of(record())


def test_a_statement_of_when_a_record_was_made_counts_before_the_day_of_the_upload() -> None:
    assert orjson.loads(line(recorded_on="2024-08-21"))["recorded_on"] == "2024-08-21"


def test_no_record_is_recorded_on_a_day_that_has_not_come_by_utc() -> None:
    assert orjson.loads(line(recorded_on="2024-08-23"))["recorded_on"] == "2024-08-22"
    assert orjson.loads(line())["recorded_on"] == "2024-08-22"


def test_the_register_learns_from_a_line_what_was_stated_and_where_it_is() -> None:
    assert entry_of(line(), "b1") == entry_for(record(), "update", 7)
    assert isinstance(entry_of(line(), "b1").action, Action)


def test_a_record_is_repeated_as_it_was_stated_but_for_what_becomes_of_it() -> None:
    entry = entry_for(record(), "new", 9, batch_id="b2")
    again = repeat_line(line(), entry)
    assert entry_of(again, "b2") == entry
    assert orjson.loads(again) == orjson.loads(line()) | {"action": "new", "line": 9}


@pytest.mark.parametrize("on_file", OnFile)
def test_a_withdrawal_repeats_the_record_and_what_is_known_to_be_on_file(*, on_file: OnFile) -> None:
    entry = entry_for(
        record(), "delete", 9, digest=WITHDRAWN, owner="RX1", stated_at="2025", on_file=on_file, batch_id="b2"
    )
    deleted = repeat_line(line(), entry)
    assert entry_of(deleted, "b2") == entry
    assert orjson.loads(deleted)["surname"] == "Waters"


@pytest.mark.parametrize(
    "refusal", [None, Refusal(Outcome.UNKNOWN, "2026-11-23T12:00:00+00:00", "hpv-1", 3, "inbox/a")]
)
def test_a_line_holds_what_was_known_before_its_upload_and_no_more(refusal: Refusal | None) -> None:
    since, stated_at = "2022-08-22T12:00:00+00:00 01234567 0000", "2023-08-22T12:00:00+00:00 01234567 0000"
    before = Entry(UUID, "hpv", "d1", Action.NEW, "b0", 3, "V0V8L", since, stated_at, OnFile.NO, refusal)
    stated = batch_line(record(), entry_for(record(), before=before), today=date(2024, 8, 22))
    assert entry_of(stated, "b1").before == before
    assert entry_of(repeat_line(stated, entry_for(record())), "b2").before is None
    assert entry_of(repeat_line(line(), entry_for(record(), before=before)), "b2").before == before


def test_that_a_record_is_on_file_takes_no_room() -> None:
    not_on_file = repeat_line(line(), entry_for(record(), on_file=OnFile.NO))
    assert b"on_file" in not_on_file
    assert b"on_file" not in repeat_line(not_on_file, entry_for(record()))
    assert b"on_file" not in line()
