"""A server that answers as MESH never should: with any bytes, at any pace."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from local.certificates import Certificates

#: Between two bytes of what drips. A client that only looks at the time between two bytes waits forever.
PAUSE = 0.02


@dataclass
class Line:
    """One request, and the connection that it came on.

    Attributes
    ----------
    request
        Its method and path.
    headers
        Its headers, their names in lower case.
    """

    connection: ssl.SSLSocket
    request: str
    headers: dict[str, str]
    rest: bytes
    server: FaultServer

    def read_body(self) -> bytes:
        """Read the request's body to its end."""
        wanted = int(self.headers.get("content-length", "0"))
        body = self.rest
        while len(body) < wanted and (block := self.connection.recv(1 << 16)):
            body += block
        return body

    def send(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.connection.sendall(piece)
            self.server.sent += len(piece)

    def drip(self, text: bytes) -> None:
        """Send a byte at a time, and the last one again and again, until the client has had enough."""
        with suppress(OSError):
            for position in range(10_000):
                self.send(text[position : position + 1] or text[-1:])
                if self.server.over.wait(PAUSE):
                    return


def head(status: int | str, *headers: str) -> bytes:
    """Make the head of an answer."""
    return "\r\n".join([f"HTTP/1.1 {status} Said", *headers, "", ""]).encode("latin-1")


def answer(status: int | str, body: bytes = b"", *headers: str, length: int | None = None) -> Callable[[Line], bool]:
    """Answer in good order; ``length`` is what is said of the body's length."""

    def act(line: Line) -> bool:
        line.read_body()
        line.send(head(status, *headers, f"Content-Length: {len(body) if length is None else length}") + body)
        return length is None

    return act


def raw(*pieces: bytes) -> Callable[[Line], None]:
    """Send bytes as they are, and close the connection."""

    def act(line: Line) -> None:
        line.read_body()
        line.send(*pieces)

    return act


def drip(text: bytes, before: bytes = b"") -> Callable[[Line], None]:
    """Send something, and then a byte at a time for ever."""

    def act(line: Line) -> None:
        line.read_body()
        line.send(before)
        line.drip(text)

    return act


class FaultServer:
    """Speaks TLS, and does to each request what the next of its faults says; the last one serves for the rest.

    Attributes
    ----------
    faults
        What is to be done. One that returns True leaves the connection open.
    requests
        The methods and paths that came.
    connections
        How many connections were made.
    sent
        How many bytes were sent.
    """

    def __init__(self, made: Certificates) -> None:
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(made.server_certificate_file, made.server_key_file)
        self.faults: list[Callable[[Line], bool | None]] = []
        self.on_accept: Callable[[socket.socket], None] | None = None
        self.over = threading.Event()

    def begin(self, *faults: Callable[[Line], bool | None]) -> None:
        """Forget what was, for the next test."""
        self.over.set()  # whatever still drips
        self.over = threading.Event()
        self.on_accept = None
        self.faults = list(faults)
        self.requests: list[str] = []
        self.connections = 0
        self.sent = 0

    def __enter__(self) -> Self:
        self.begin()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.base_url = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        plain.settimeout(5)
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with plain, suppress(OSError):
            if self.on_accept:
                self.on_accept(plain)
                return
            with self._context.wrap_socket(plain, server_side=True) as connection:
                while line := self._read(connection):
                    self.requests.append(line.request)
                    fault = self.faults.pop(0) if len(self.faults) > 1 else self.faults[0]
                    if not fault(line):
                        return

    def _read(self, connection: ssl.SSLSocket) -> Line | None:
        received = b""
        while b"\r\n\r\n" not in received:
            block = connection.recv(1 << 16)
            if not block:
                return None
            received += block
        text, _, rest = received.partition(b"\r\n\r\n")
        first, *lines = text.decode("latin-1").split("\r\n")
        headers = {each.partition(":")[0].lower(): each.partition(":")[2].strip() for each in lines}
        method, path, _ = first.split(" ")
        return Line(connection, f"{method} {path.removeprefix('/messageexchange')}", headers, rest, self)


def wait_until(happens: Callable[[], bool], seconds: float = 2) -> None:
    """Wait for what another thread does."""
    end = time.monotonic() + seconds
    while not happens() and time.monotonic() < end:
        time.sleep(0.01)
