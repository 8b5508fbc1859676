"""The last statement wins, and only its owner's: by the time of the upload, whenever its event comes."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.clocks import Clock
from tests.usecases.conftest import memory_stores
from tests.usecases.rows import HEADER, row, upload_of, uuid_of
from tests.usecases.stores import on_every_database
from vaccinations.model.entry import Refusal, age_of
from vaccinations.model.outcome import Outcome
from vaccinations.model.uploaders import Uploaders
from vaccinations.ports import BatchGone
from vaccinations.results import Receipt, RejectedUpload

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.usecases.stores import Stores


def ingested(stores: Stores, *uploads: tuple[str, str]) -> list[Receipt]:
    """Handle the events of uploads, in this order."""
    receipts = [stores.handle(uploaded) for uploaded in uploads]
    assert all(isinstance(receipt, Receipt) for receipt in receipts)
    return [receipt for receipt in receipts if isinstance(receipt, Receipt)]


def sent(stores: Stores, *, other_programmes: Iterable[str] = ()) -> list[tuple[str, str, str]]:
    """Return what DPS is told, in order: which record, what becomes of it, and the vaccine's batch."""
    rows = [each for programme in ("hpv", *other_programmes) for each in stores.queued(programme)]
    return [(each["UNIQUE_ID"], each["ACTION_FLAG"], each["BATCH_NUMBER"]) for each in rows]


# -- the order of uploads


def test_what_was_uploaded_later_stands_though_its_event_came_earlier(stores: Stores) -> None:
    monday = stores.uploaded(upload_of(row(1), row(2)), "monday.csv")
    tuesday = stores.uploaded(upload_of(row(1, batch="XY9999")), "tuesday.csv")
    later, earlier = ingested(stores, tuesday, monday)
    assert later.accepted == {"hpv": {"new": 1}}
    assert (earlier.accepted, earlier.overtaken) == ({"hpv": {"new": 1}}, 1)
    assert sent(stores) == [(uuid_of(1), "new", "XY9999"), (uuid_of(2), "new", "AB1234")]
    assert stores.receipt_file(monday)["overtaken"] == 1


@on_every_database
def test_of_two_versions_of_one_object_in_one_second_the_later_one_stands(stores: Stores) -> None:
    key = "incoming/R1L/monday.csv"
    versions = []
    for n in range(4):
        stores.clock.forward(milliseconds=1)
        versions.append(stores.upload(key, upload_of(row(1, batch=f"AB000{n}")).encode()))
    # Another object, whose key begins like this one's.
    stores.upload(f"{key}.csv", upload_of(row(9)).encode())
    receipts = ingested(stores, *((key, versions[n]) for n in (1, 3, 0, 2)))
    assert [receipt.overtaken for receipt in receipts] == [0, 0, 1, 1]
    assert sent(stores) == [(uuid_of(1), "new", "AB0001"), (uuid_of(1), "update", "AB0003")]


def test_a_dead_letter_that_is_redriven_after_a_correction_changes_nothing(stores: Stores) -> None:
    dead = stores.uploaded(upload_of(row(1)), "monday.csv")
    stores.accept(row(1, batch="XY9999"), name="corrected.csv")
    [receipt] = ingested(stores, dead)
    assert (receipt.accepted, receipt.overtaken) == ({}, 1)
    assert sent(stores) == [(uuid_of(1), "new", "XY9999")]


def test_a_record_that_was_withdrawn_does_not_come_back_with_an_older_upload(stores: Stores) -> None:
    stores.accept(row(1))
    older = stores.uploaded(upload_of(row(1, batch="XY9999")), "older.csv")
    stores.accept(row(1, vaccinated="N"), name="withdrawn.csv")
    assert ingested(stores, older)[0].overtaken == 1
    assert sent(stores)[-1] == (uuid_of(1), "delete", "AB1234")


@on_every_database
def test_a_withdrawal_that_comes_before_what_it_withdraws_keeps_that_from_dps(stores: Stores) -> None:
    stated = stores.uploaded(upload_of(row(1), row(2)), "monday.csv")
    withdrawn = stores.uploaded(upload_of(row(1, vaccinated="N")), "tuesday.csv")
    later, earlier = ingested(stores, withdrawn, stated)
    assert (later.skipped, earlier.overtaken) == (1, 1)
    assert sent(stores) == [(uuid_of(2), "new", "AB1234")]
    assert stores.accept(row(1), name="wednesday.csv").accepted == {"hpv": {"new": 1}}


@on_every_database
def test_saying_the_same_again_is_a_statement_too(stores: Stores) -> None:
    """Stated, changed, changed back: the change comes last, and is overtaken all the same."""
    first = stores.uploaded(upload_of(row(1)), "monday.csv")
    changed = stores.uploaded(upload_of(row(1, batch="XY9999")), "tuesday.csv")
    changed_back = stores.uploaded(upload_of(row(1)), "wednesday.csv")
    receipts = ingested(stores, first, changed_back, changed)
    assert [(receipt.unchanged, receipt.overtaken) for receipt in receipts] == [(0, 0), (1, 0), (0, 1)]
    assert sent(stores) == [(uuid_of(1), "new", "AB1234")]


@on_every_database
def test_skipping_a_row_again_makes_it_newer(stores: Stores) -> None:
    first, stated, again = (
        stores.uploaded(upload_of(row(1, vaccinated=vaccinated)), f"{n}.csv") for n, vaccinated in enumerate("NYN")
    )
    receipts = ingested(stores, first, again, stated)
    assert [(receipt.skipped, receipt.overtaken) for receipt in receipts] == [(1, 0), (1, 0), (0, 1)]


def test_a_file_that_is_rejected_as_a_whole_states_nothing(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    stores.accept(row(1))
    changed = stores.uploaded(upload_of(row(1, batch="XY9999")), "tuesday.csv")
    with monkeypatch.context() as patched:
        patched.setattr("vaccinations.formats.upload_lines.MAX_LINES", 2)
        assert isinstance(stores.ingest(upload_of(row(1), row(2)), "too-long.csv"), RejectedUpload)
    assert ingested(stores, changed)[0].accepted == {"hpv": {"update": 1}}


def test_a_record_is_sent_again_as_last_stated_and_a_correction_from_before_that_still_counts(stores: Stores) -> None:
    """The request states nothing new."""
    stores.accept(row(1))
    correction = stores.uploaded(upload_of(row(1, batch="XY9999")), "correction.csv")
    refuse(stores, 1)
    stores.handle(stores.bucket.put_request("1.resend", uuid_of(1).encode()))
    assert ingested(stores, correction)[0].accepted == {"hpv": {"update": 1}}
    assert [batch for *_, batch in sent(stores)] == ["AB1234", "AB1234", "XY9999"]


def refuse(stores: Stores, n: int) -> None:
    """Let DPS refuse the last statement of a record."""
    entry = stores.register.get([uuid_of(n)])[uuid_of(n)]
    refusal = Refusal(Outcome.INVALID, "2026-11-24T12:00:00+00:00", "hpv-1", 1, "inbox/answer")
    stores.register.hear([replace(entry, refusal=refusal)])


# -- whose record it is


def test_another_organisation_neither_rewrites_nor_withdraws_a_record(stores: Stores) -> None:
    stores.accept(row(1))
    for n, stranger in enumerate((row(1), row(1, batch="XY9999"), row(1, "MenACWY"), row(1, vaccinated="N"))):
        receipt = stores.ingest(upload_of(stranger), f"{n}.csv", "RX1")
        assert isinstance(receipt, Receipt)
        assert (receipt.accepted, receipt.rejected) == ({}, 1)
        [reject] = stores.rejects(receipt)
        assert (reject["column"], reject["what is wrong"]) == ("UUID", "this record is another organisation's")
        assert "R1L" not in str(reject)
        assert "HPV" not in str(reject)
    assert sent(stores) == [(uuid_of(1), "new", "AB1234")]


def coded(code: str, *rows: str) -> str:
    return "\n".join([f"ORGANISATION_CODE,{HEADER}", *(f"{code},{each}" for each in rows)]) + "\n"


def test_a_row_bears_its_folders_code_or_one_that_the_folder_may_state_for(stores: Stores) -> None:
    stores.uploaders = Uploaders.from_document('{"R1L": {"states_for": ["U1"]}, "V0V8L": {"states_for": "*"}}')
    accepted = {}
    for n, (folder, code) in enumerate([("R1L", "r1l"), ("R1L", "U1"), ("R1L", "U2"), ("V0V8L", "U2"), ("U1", "R1L")]):
        receipt = stores.ingest(coded(code, row(n), row(n + 10, vaccinated="N")), f"{n}.csv", folder)
        assert isinstance(receipt, Receipt)
        accepted[folder, code] = (bool(receipt.accepted), receipt.skipped, receipt.rejected)
    assert accepted == {
        ("R1L", "r1l"): (True, 1, 0),
        ("R1L", "U1"): (True, 1, 0),
        ("R1L", "U2"): (False, 0, 2),
        ("V0V8L", "U2"): (True, 1, 0),
        ("U1", "R1L"): (False, 0, 2),
    }


def test_an_organisation_that_succeeds_another_states_about_its_records(stores: Stores) -> None:
    stores.accept(row(1), row(2))
    stores.uploaders = Uploaders.from_document('{"RX1": {"succeeds": ["R1L"]}}')
    receipt = stores.ingest(coded("R1L", row(1, batch="XY9999"), row(2, vaccinated="N")), "merged.csv", "RX1")
    assert isinstance(receipt, Receipt)
    assert receipt.accepted == {"hpv": {"update": 1, "delete": 1}}
    assert {entry.owner for entry in stores.register.get(map(uuid_of, (1, 2))).values()} == {"R1L"}


# -- which child it is of


def of_child(n: int, surname: str, born: str, number: str = "") -> str:
    text = row(n).replace("Zephyrson", surname).replace("2012-08-18", born)
    return text.replace(f"{uuid_of(n)},", f"{uuid_of(n)},{number}", 1)


def test_under_a_known_uuid_another_child_is_rejected_and_a_correction_of_the_same_is_not(stores: Stores) -> None:
    stores.accept(*(of_child(n, "Zephyrson", "2012-08-18", "9990000018") for n in (1, 2, 3, 4, 5)))
    corrections = stores.accept(
        of_child(1, "Hollow", "2013-01-02", "9990000026"),
        of_child(2, "ZEPHYRSON", "2013-01-02", "9990000026"),
        of_child(3, "Hollow", "2012-08-18", "9990000026"),
        of_child(4, "Hollow", "2013-01-02", "9990000018"),
        of_child(5, "Hollow", "2013-01-02"),
        name="corrections.csv",
    )
    assert (corrections.accepted, corrections.rejected) == ({"hpv": {"update": 3}}, 2)
    rejects = stores.rejects(corrections)
    assert [(reject["line"], reject["column"]) for reject in rejects] == [("2", "UUID"), ("6", "UUID")]
    assert "another child" in rejects[0]["what is wrong"]
    assert "Zephyrson" not in str(rejects)


def test_another_child_within_one_upload_is_rejected_however_few_rows_are_looked_at_at_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 2)
    receipt = stores.accept(row(1), row(2), row(3), of_child(1, "Hollow", "2013-01-02"))
    assert (receipt.accepted, receipt.rejected) == ({"hpv": {"new": 3}}, 1)


def test_a_withdrawn_record_does_not_come_back_as_another_child(stores: Stores) -> None:
    stores.accept(row(1))
    stores.accept(row(1, vaccinated="N"), name="withdrawn.csv")
    assert stores.accept(of_child(1, "Hollow", "2013-01-02"), name="other.csv").rejected == 1
    assert stores.accept(of_child(1, "Hollow", "2012-08-18"), name="same.csv").accepted == {"hpv": {"update": 1}}


def test_where_the_last_statement_is_no_longer_kept_a_correction_is_accepted(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    stores.accept(row(1))

    def gone(programme: str, batch_id: str) -> Iterator[bytes]:
        raise BatchGone(batch_id)

    with monkeypatch.context() as patched:
        batch_lines = stores.bucket.batch_lines
        first = stores.register.get([uuid_of(1)])[uuid_of(1)].batch_id
        patched.setattr(stores.bucket, "batch_lines", lambda p, b: gone(p, b) if b == first else batch_lines(p, b))
        receipt = stores.accept(of_child(1, "Hollow", "2013-01-02"), name="other.csv")
    assert receipt.accepted == {"hpv": {"update": 1}}


@pytest.mark.parametrize("vaccinated", ["Y", "N"])
def test_however_many_records_are_changed_in_whatever_order_each_batch_is_read_once(
    stores: Stores, monkeypatch: pytest.MonkeyPatch, vaccinated: str
) -> None:
    """The first to register it, and once to look back."""
    monkeypatch.setattr("vaccinations.jobs.ingest._ROWS_AT_ONCE", 7)
    stores.accept(*(row(n) for n in range(200)))
    read: list[str] = []
    batch_lines = stores.bucket.batch_lines

    def noting(programme: str, batch_id: str) -> Any:
        read.append(batch_id)
        return batch_lines(programme, batch_id)

    monkeypatch.setattr(stores.bucket, "batch_lines", noting)
    changed = [row(n * 77 % 200, batch="XY9999", vaccinated=vaccinated) for n in range(200)]
    receipt = stores.accept(*changed, name="changed.csv")
    assert sum(receipt.accepted["hpv"].values()) == 200
    assert sorted(Counter(read).values()) == [1, 1]
    last = [(record, batch) for record, _, batch in sent(stores)[200:]]
    assert last == [(uuid_of(n * 77 % 200), "XY9999" if vaccinated == "Y" else "AB1234") for n in range(200)]


# -- in whatever order

#: What an upload says of a record: its number, and the vaccine's batch, or nothing where it is withdrawn.
SAYS = st.tuples(st.integers(1, 3), st.sampled_from(["AB0001", "AB0002", "AB0003", ""]))
UPLOADS = st.lists(
    st.tuples(
        st.sampled_from(["R1L", "R1L", "RX1"]),
        st.sampled_from(["a.csv", "b.csv"]),
        st.lists(SAYS, min_size=1, max_size=4),
        st.sampled_from([0, 1]),
    ),
    min_size=1,
    max_size=7,
)


@given(UPLOADS, st.data())
def test_in_whatever_order_uploads_are_ingested_dps_is_told_what_the_owner_uploaded_last(
    uploads: list[tuple[str, str, list[tuple[int, str]], int]], data: st.DataObject
) -> None:
    clock = Clock()
    stores = memory_stores(clock)
    uploaded: list[tuple[str, str]] = []
    ages: list[str] = []
    for folder, name, says, seconds in uploads:
        clock.forward(seconds=seconds)
        rows = [row(n, batch=batch or "AB1234", vaccinated="Y" if batch else "N") for n, batch in says]
        key = f"incoming/{folder}/{name}"
        uploaded.append((key, stores.upload(key, upload_of(*rows).encode())))
        ages.append(age_of(clock(), key, int(uploaded[-1][1])))
    order = data.draw(st.permutations(range(len(uploads))))
    redriven = data.draw(st.lists(st.sampled_from(range(len(uploads))), max_size=3))
    ingested(stores, *(uploaded[n] for n in (*order, *redriven)))

    owner: dict[int, str] = {}
    last: dict[int, str] = {}
    for n in sorted(order, key=lambda n: ages[n]):
        folder, _, says, _ = uploads[n]
        for record, _ in says:
            owner.setdefault(record, folder)
        last |= {record: batch for record, batch in says if owner[record] == folder}

    known = stores.register.get(map(uuid_of, last))
    assert {record: "" if known[uuid_of(record)].withdrawn else "stated" for record in last} == {
        record: "stated" if batch else "" for record, batch in last.items()
    }
    told = {record: (action, batch) for record, action, batch in (sent(stores) if any_queued(stores) else [])}
    at_dps = {record: batch for record, (action, batch) in told.items() if action != "delete"}
    assert at_dps == {uuid_of(record): batch for record, batch in last.items() if batch}


def any_queued(stores: Stores) -> bool:
    return any(True for _ in stores.ledger.exports("hpv"))
