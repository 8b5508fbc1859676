"""The dashboard's widget as the function writes it, and the page of the stack on this machine around it."""

from __future__ import annotations

import re
from contextlib import closing
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from local.stack import LocalCloud
from mesh_cli.deployment import local_deployment
from mesh_cli.page import StatusServer
from tests.usecases.rows import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud() as running:
        body = upload_of(row(1), row(2), row(3).replace("SW1A 1AA", "nonsense"))
        key = "incoming/R1L/monday & tuesday.csv"
        running.client("s3").put_object(Bucket=running.outputs["BucketName"], Key=key, Body=body.encode())
        running.drain()
        running.invoke("ExportFunction")
        yield running


@pytest.fixture(scope="module")
def served(cloud: LocalCloud) -> Iterator[int]:
    """Serve the page as `mesh local up` does; return its port."""
    bucket = local_deployment(cloud.environment_of_commands()).wiring.bucket()
    with StatusServer(lambda: str(cloud.invoke("StatusFunction", {})), bucket) as server:
        yield int(server.url.rpartition(":")[2].strip("/"))


def get(port: int, path: str, host: str = "") -> tuple[int, str, dict[str, str]]:
    with closing(HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        connection.request("GET", path, headers={"Host": host or f"127.0.0.1:{port}"})
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.headers)


def test_the_widget_shows_what_the_ledger_knows(cloud: LocalCloud) -> None:
    shown = cloud.invoke("StatusFunction", {"widgetContext": {"theme": "light"}})
    assert "Last night 2 records were sent." in shown
    assert "<td>hpv-1</td>" in shown
    assert '<table class="nights">' in shown
    # Whoever sees the dashboard sees nothing of the bucket.
    assert "monday" not in shown


def test_the_widget_says_what_it_is_and_which_parameter_is_wrong(cloud: LocalCloud) -> None:
    assert cloud.invoke("StatusFunction", {"describe": True}).startswith("## Last night")
    assert cloud.invoke("StatusFunction", {"programme": "<b>"}) == (
        "<p>Unknown parameter: programme. There are two: limit, runbook.</p>"
    )


def test_the_page_shows_the_widget_and_uploads_and_leads_to_receipt_and_rejects(served: int) -> None:
    status, shown, headers = get(served, "/")
    assert status == 200
    assert headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert "Last night 2 records were sent." in shown
    assert "<td>R1L/monday &amp; tuesday.csv</td><td>ingested</td>" in shown
    receipt, rejects = re.findall(r'<a href="(/[^"]+)">', shown)
    status, body, _ = get(served, receipt)
    assert (status, '"rejected": 1' in body or '"rejected":1' in body) == (200, True)
    status, body, headers = get(served, rejects)
    assert (status, headers["Content-Type"]) == (200, "text/csv; charset=utf-8")
    assert body.startswith("\ufeffWhat to do")


@pytest.mark.parametrize(
    "path",
    [
        "/incoming/R1L/monday%20%26%20tuesday.csv",
        "/receipts/R1L/no.csv/1.json",
        "/receipts/../incoming/R1L/x",
        "/nothing",
    ],
)
def test_the_page_leads_to_nothing_that_an_uploader_is_not_given(served: int, path: str) -> None:
    assert get(served, path)[0] == 404


def test_a_page_of_elsewhere_whose_name_leads_here_reads_nothing(served: int) -> None:
    assert get(served, "/", host="rebound.example.org")[0] == 403
    assert get(served, "/", host=f"localhost:{served}")[0] == 200
