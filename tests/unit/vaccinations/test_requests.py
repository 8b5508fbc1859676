"""What requests promise: they name an export, or records, and nothing else."""

from __future__ import annotations

import gzip
import io

import pytest

from vaccinations.formats.requests import REQUESTS, read_resend, requeue_name, requeued
from vaccinations.model.problems import UnreadableUpload
from vaccinations.model.row import Faulty, Row, SendAgain

UUID = "496e37d8-d1ab-4e12-a3a3-9c2e136a0504"


def read(body: bytes) -> list[Row]:
    return list(read_resend(io.BytesIO(body)))


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_line_names_a_record_in_any_case(end: bytes) -> None:
    other = "00000000-0000-4000-8000-000000000001"
    body = end.join([UUID.upper().encode(), b"", f"  {other} ".encode()])
    assert read(body) == [SendAgain(1, UUID), SendAgain(3, other)]


def test_a_request_may_be_gzipped() -> None:
    assert read(gzip.compress(UUID.encode())) == [SendAgain(1, UUID)]


@pytest.mark.parametrize("line", [b"17", UUID.encode() + b" " + UUID.encode(), b"x" * 100_000, "\u00e9".encode()])
def test_a_line_that_names_no_record_is_told_and_not_repeated(line: bytes) -> None:
    wrong, right = read(line + b"\n" + UUID.encode())
    assert right == SendAgain(2, UUID)
    assert isinstance(wrong, Faulty)
    assert [problem.what for problem in wrong.problems] == ["is not a record's identifier"]


def test_what_is_no_text_is_rejected_whole() -> None:
    with pytest.raises(UnreadableUpload, match="Excel"):
        read(b"PK\x03\x04" + b"\0" * 50)


def test_the_name_of_a_request_tells_which_export_is_requeued() -> None:
    assert requeued(f"{REQUESTS}{requeue_name('td_ipv-17')}") == ("td_ipv", 17)


@pytest.mark.parametrize(
    "key",
    [
        "requests/hpv-0.requeue",
        "requests/hpv-017.requeue",
        "requests/hpv.requeue",
        "requests/hpv-17.requeue.requeue",
        "requests/hpv-17.requeue/x",
        "requests/x/hpv-17.requeue",
        "incoming/R1L/hpv-17.requeue",
        "requests/hpv-17.resend",
    ],
)
def test_another_name_requeues_nothing(key: str) -> None:
    assert requeued(key) is None
