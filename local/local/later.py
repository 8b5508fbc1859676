"""Lambda's own API, as far as the functions call it: one may be invoked later (``InvocationType="Event"``).

The answer to such a call is only that it was taken; the invocation follows by itself. As the functions here ask for no
retries, one that fails is not repeated.
"""

from __future__ import annotations

import json
import logging
import re
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from local.cloud import STACK_NAME

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Later"]

logger = logging.getLogger(__name__)

_PATH = re.compile(rf"/2015-03-31/functions/{STACK_NAME}-(\w+)/invocations")
_CALLER = re.compile(r"Credential=([^/]+)/")


class Later:
    """Takes invocations that are to follow later, over HTTP, and has them follow.

    Parameters
    ----------
    invoke
        Invokes a function by its logical id.

    Attributes
    ----------
    endpoint_url
        What ``AWS_ENDPOINT_URL_LAMBDA`` has to be.
    taken
        What was taken so far: who asked (the access key's id), for which function, with which event.
    """

    def __init__(self, invoke: Callable[[str, Any], Any]) -> None:
        self._invoke = invoke
        self._threads = ThreadPoolExecutor(thread_name_prefix="later")
        self._under_way: list[Future[None]] = []
        self.taken: list[tuple[str, str, Any]] = []
        later = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.send_response(later._take(self.path, self.headers, body))
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.endpoint_url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, name="later", daemon=True).start()

    def wait(self, timeout: float = 60) -> None:
        """Wait until all that was to follow has followed, and what followed from that.

        Raises
        ------
        TimeoutError
            Something still runs after ``timeout`` seconds.
        """
        waited_for = 0
        while waited_for < len(self._under_way):
            waited_for = len(self._under_way)
            if wait(self._under_way, timeout).not_done:
                raise TimeoutError(f"an invocation still runs after {timeout} seconds")

    def close(self) -> None:
        """Take no more."""
        self._server.shutdown()
        self._server.server_close()
        self._threads.shutdown(cancel_futures=True)

    def _take(self, path: str, headers: Any, body: bytes) -> int:
        """Take a request; return the status to answer with."""
        asked_for = _PATH.fullmatch(path)
        if not asked_for or headers.get("X-Amz-Invocation-Type") != "Event":
            return 400
        caller = _CALLER.search(headers.get("Authorization", ""))
        event = json.loads(body or b"{}")
        self.taken.append((caller[1] if caller else "", asked_for[1], event))
        self._under_way.append(self._threads.submit(self._follow, asked_for[1], event))
        return 202

    def _follow(self, function: str, event: Any) -> None:
        try:
            self._invoke(function, event)
        except Exception:
            logger.exception("an invocation of %s that was to follow failed", function)
