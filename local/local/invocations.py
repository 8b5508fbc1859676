"""Lambda's API on this machine, as far as it is used.

By Invoke an AWS client reaches the emulator's functions; what feeds them from queues is listed, stopped and started.

https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
https://docs.aws.amazon.com/lambda/latest/api/API_UpdateEventSourceMapping.html
"""

from __future__ import annotations

import base64
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote

from local.cloud import STACK_NAME
from local.emulator import FunctionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from local.emulator import Emulator
    from local.queue import Poller

__all__ = ["Invocations"]

#: The end of the log that an answer bears has so many bytes at most. AWS gives 4 KB.
LOG_TAIL = 32_768
_PREFIX, _ENDING = "/2015-03-31/functions/", "/invocations"
_MAPPINGS = "/2015-03-31/event-source-mappings"


class Invocations:
    """The API, served by threads of this process between `start` and `close`.

    Parameters
    ----------
    host
        The address it listens on.
    pollers
        What feeds functions from queues.

    Attributes
    ----------
    endpoint_url
        The value for ``AWS_ENDPOINT_URL_LAMBDA``.
    """

    def __init__(self, emulator: Emulator, host: str, pollers: Sequence[Poller] = ()) -> None:
        class Handler(_Handler):
            functions = emulator
            feeding = pollers

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self.endpoint_url = f"http://{host}:{self._server.server_port}"

    def start(self) -> None:
        """Begin to answer."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="invocations", daemon=True).start()

    def close(self) -> None:
        """Answer no more; invocations under way end with their functions."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one invocation."""

    functions: Emulator
    feeding: Sequence[Poller]
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Invoke the function that the path names."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        name = unquote(self.path.removeprefix(_PREFIX).removesuffix(_ENDING)).removeprefix(f"{STACK_NAME}-")
        name = name.partition(":")[0]  # its alias has no other version here
        request_id = str(uuid.uuid4())
        try:
            before = len(self.functions.log(name))
            answer, failed = self.functions.invoke(name, json.loads(body or b"{}"), request_id), False
        except KeyError:
            headers = {"x-amzn-ErrorType": "ResourceNotFoundException"}
            self._answer(404, {"Type": "User", "Message": f"Function not found: {name}"}, request_id, headers)
            return
        except FunctionError as error:
            answer = {
                "errorMessage": error.error_message,
                "errorType": error.error_type,
                "requestId": request_id,
                "stackTrace": list(error.stack_trace),
            }
            failed = True
        log = self.functions.log(name)[before:].encode()[-LOG_TAIL:]
        headers = {"X-Amz-Function-Error": "Unhandled"} if failed else {}
        if self.headers.get("X-Amz-Log-Type") == "Tail":
            headers["X-Amz-Log-Result"] = base64.b64encode(log).decode()
        self._answer(200, answer, request_id, headers)

    def do_GET(self) -> None:
        """List what feeds a function."""
        path, _, query = self.path.partition("?")
        name = parse_qs(query).get("FunctionName", [""])[0]
        found = [_mapping(each) for each in self.feeding if name in {"", f"{STACK_NAME}-{each.source.function}"}]
        known = path.rstrip("/") == _MAPPINGS
        self._answer(200 if known else 404, {"EventSourceMappings": found if known else []}, str(uuid.uuid4()), {})

    def do_PUT(self) -> None:
        """Stop or start what feeds a function."""
        asked = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        which = self.path.removeprefix(_MAPPINGS).strip("/")
        for poller in self.feeding:
            if _mapping(poller)["UUID"] == which:
                poller.enabled = asked.get("Enabled", poller.enabled)
                self._answer(202, _mapping(poller), str(uuid.uuid4()), {})
                return
        headers = {"x-amzn-ErrorType": "ResourceNotFoundException"}
        self._answer(404, {"Type": "User", "Message": "there is no such mapping"}, str(uuid.uuid4()), headers)

    def _answer(self, status: int, answer: Any, request_id: str, headers: dict[str, str]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        fixed = {"x-amzn-RequestId": request_id, "Content-Type": "application/json", "Content-Length": str(len(body))}
        for header, value in (fixed | headers).items():
            self.send_header(header, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that it has
        """Say nothing: the functions' logs say it."""


def _mapping(poller: Poller) -> dict[str, Any]:
    source = poller.source
    return {
        "UUID": str(uuid.uuid5(uuid.NAMESPACE_URL, source.queue_arn)),
        "EventSourceArn": source.queue_arn,
        "FunctionArn": f"{STACK_NAME}-{source.function}",
        "State": "Enabled" if poller.enabled else "Disabled",
    }
