"""Promises about invoking a function: once, for as long as it may take, and what is said where it went wrong."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from mesh_cli.functions import FunctionFailed, NoAnswer, invoke
from vaccinations.aws.clients import FUNCTION_SECONDS, Clients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mesh_cli.deployment import Deployment


@dataclass
class Lambda:
    """Plays Lambda: it counts who comes, and answers as it is told; where it is told nothing it hangs up."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def lambda_() -> Iterator[Lambda]:
    told = Lambda()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            told.asked.append((self.path, json.loads(self.rfile.read(int(self.headers["Content-Length"])))))
            if not told.status:
                self.close_connection = True
                return
            body = json.dumps(told.body).encode()
            self.send_response(told.status)
            for header, value in {**told.headers, "Content-Length": str(len(body))}.items():
                self.send_header(header, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        told.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield told
        server.shutdown()


def on(url: str) -> Deployment:
    clients = Clients(boto3.Session("testing", "testing", region_name="eu-west-2"), url)
    return cast("Deployment", SimpleNamespace(clients=clients, functions={"export": "stack-export"}))


def test_the_answer_is_the_functions(lambda_: Lambda) -> None:
    lambda_.status, lambda_.body = 200, {"status": "ok"}
    assert invoke(on(lambda_.url), "export", {"dry_run": True}).document == {"status": "ok"}
    assert lambda_.asked == [("/2015-03-31/functions/stack-export/invocations", {"dry_run": True})]


@pytest.mark.parametrize("status", [0, 500, 502, 503, 504])
def test_what_may_have_run_is_not_invoked_again_and_not_said_to_have_failed(lambda_: Lambda, status: int) -> None:
    lambda_.status, lambda_.body = status, {"Message": "Internal server error"}
    with pytest.raises(NoAnswer, match=r"no answer has come from Export .* it may have done its work"):
        invoke(on(lambda_.url), "export", {})
    assert len(lambda_.asked) == 1


def test_what_was_turned_away_is_said_to_be(lambda_: Lambda) -> None:
    lambda_.status, lambda_.body = 429, {"Message": "Rate Exceeded."}
    lambda_.headers = {"x-amzn-ErrorType": "TooManyRequestsException"}
    with pytest.raises(ClientError, match="TooManyRequestsException"):
        invoke(on(lambda_.url), "export", {})
    assert len(lambda_.asked) == 1


def test_what_cannot_be_reached_has_not_run() -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        url = f"http://127.0.0.1:{server.server_port}"
    with pytest.raises(EndpointConnectionError):
        invoke(on(url), "export", {})


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        *(("Refused", 3), ("Unauthorised", 3), ("SecretIncomplete", 2), ("InvalidEvent", 2), ("SendOutcomeUnknown", 4)),
        *(("ClientError", 1), ("Sandbox.Timedout", 1)),
    ],
)
def test_a_failure_has_the_exit_code_that_it_had_here_and_one_line(lambda_: Lambda, kind: str, code: int) -> None:
    lambda_.status, lambda_.body = 200, {"errorType": kind, "errorMessage": f"{'no ' * 200}\nand\nmore"}
    lambda_.headers = {"X-Amz-Function-Error": "Unhandled", "x-amzn-RequestId": "the-request"}
    with pytest.raises(FunctionFailed, match=rf"^Export failed: {kind}: (no )+.*\(request id the-request\)$") as caught:
        invoke(on(lambda_.url), "export", {})
    assert caught.value.code == code
    assert len(str(caught.value)) < 400


def test_no_function_is_given_up_before_its_own_time_is_up() -> None:
    assert on("http://localhost").clients.functions.meta.config.read_timeout > FUNCTION_SECONDS
