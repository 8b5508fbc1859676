"""A proxy before the sandbox that breaks things on purpose, one action for each request."""

from __future__ import annotations

import socket
import ssl
import struct
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from local.sandbox import Sandbox

_ALL = 1 << 30


@dataclass(frozen=True)
class Action:
    """What becomes of one request.

    Attributes
    ----------
    forward
        How often the sandbox gets it.
    status, headers, body
        Answered by the proxy itself where ``status`` is given.
    send
        How many bytes of the answer's body are sent before the connection ends; the whole answer where None.
    answer
        Whether anything is answered at all.
    reset
        Whether the connection ends by a reset rather than in good order.
    close
        Whether the connection is closed after the answer, without announcing it.
    stall
        Whether the client is left waiting, the connection open.
    """

    forward: int = 1
    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    send: int | None = None
    answer: bool = True
    reset: bool = False
    close: bool = False
    stall: bool = False


FORWARD = Action()
#: The request never reaches MESH.
LOSE_REQUEST = Action(forward=0, answer=False, reset=True)
#: MESH takes the request, but its answer is lost.
LOSE_ANSWER = Action(answer=False, reset=True)
STALL = Action(stall=True)
CLOSE_AFTERWARDS = Action(close=True)
#: The network delivers the request twice.
REPLAY = Action(forward=2)


def answer(status: int, body: bytes = b"", **headers: str) -> Action:
    """Answer without asking the sandbox; ``_`` in a header's name stands for ``-``."""
    return Action(
        forward=0, status=status, body=body, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


def cut_short(after: int, *, reset: bool = False) -> Action:
    """Send only so much of the answer's body."""
    return Action(send=after, reset=reset)


@dataclass(frozen=True)
class Request:
    """A request as it came over the wire."""

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes = field(repr=False)
    connection: int


class Proxy:
    """Ends TLS with the sandbox's certificate and demands the client's; real MESH's rule of one request a token holds.

    Attributes
    ----------
    script
        The actions still to come; afterwards every request is forwarded.
    requests
        All that came.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._done = threading.Event()
        self._release = threading.Event()
        self._threads: list[threading.Thread] = []
        self.begin()
        made = sandbox.certificates
        self._server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._server.load_cert_chain(made.server_certificate_file, made.server_key_file)
        self._server.load_verify_locations(made.ca_file)
        self._server.verify_mode = ssl.CERT_REQUIRED
        self._client = ssl.create_default_context(cadata=made.ca_bundle)
        with tempfile.NamedTemporaryFile("w") as certificate, tempfile.NamedTemporaryFile("w") as key:
            certificate.write(made.certificate)
            key.write(made.private_key)
            certificate.flush()
            key.flush()
            self._client.load_cert_chain(certificate.name, key.name, made.passphrase)

    def __enter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(0.01)
        self.base_url = f"https://localhost:{self._listener.getsockname()[1]}"
        self._start(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._release.set()
        for thread in list(self._threads):
            thread.join(10)
        self._listener.close()

    def begin(self) -> None:
        """Forget what was, for the next test."""
        self._release.set()
        self._release = threading.Event()
        self.script: list[Action] = []
        self.requests: list[Request] = []
        self.replayed: list[str] = []
        self._tokens: set[str] = set()
        self._connections = 0

    @property
    def tokens(self) -> list[str]:
        return [request.headers.get("authorization", "") for request in self.requests]

    @property
    def paths(self) -> list[str]:
        return [f"{request.method} {request.path.partition('/messageexchange')[2]}" for request in self.requests]

    def _start(self, target: object, *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._done.is_set():
            with suppress(TimeoutError):
                raw, _ = self._listener.accept()
                self._connections += 1
                self._start(self._serve, raw, self._connections)

    def _serve(self, raw: socket.socket, number: int) -> None:
        raw.settimeout(10)
        try:
            connection = self._server.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            return
        with connection, suppress(OSError):
            connection.settimeout(0.01)
            while request := self._read(connection, number):
                if not self._act(connection, request):
                    return

    def _read(self, connection: ssl.SSLSocket, number: int) -> Request | None:
        received = bytearray()
        wanted = _ALL
        while len(received) < wanted:
            try:
                block = connection.recv(1 << 16)
            except TimeoutError:
                if self._done.is_set():
                    return None
                continue
            if not block:
                return None
            received += block
            if wanted == _ALL and b"\r\n\r\n" in received:
                head = bytes(received).partition(b"\r\n\r\n")[0]
                first, *lines = head.decode("ascii").split("\r\n")
                headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
                wanted = len(head) + 4 + int(headers.get("content-length", "0"))
        method, path, _ = first.split(" ")
        return Request(method, path, headers, bytes(received), number)

    def _act(self, connection: ssl.SSLSocket, request: Request) -> bool:
        """Do as the script says; tell whether the connection stays."""
        self.requests.append(request)
        action = self.script.pop(0) if self.script else FORWARD
        token = request.headers.get("authorization", "")
        if token in self._tokens:
            self.replayed.append(token)
            action = answer(403)
        self._tokens.add(token)

        said = b""
        for _ in range(action.forward):
            said = self._forward(request)
        if action.status is not None:
            lines = "".join(f"{name}: {value}\r\n" for name, value in action.headers.items())
            said = f"HTTP/1.1 {action.status} Said\r\n{lines}Content-Length: {len(action.body)}\r\n\r\n".encode()
            said += action.body
        if action.stall:
            self._release.wait(20)
            return False
        if not action.answer:
            said = b""
        if action.send is not None:
            said = said[: said.index(b"\r\n\r\n") + 4 + action.send]
        connection.settimeout(10)
        connection.sendall(said)
        connection.settimeout(0.01)
        if action.reset:
            # Lingering for no time at all makes the system reset the connection.
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return action.answer and action.send is None and not action.close

    def _forward(self, request: Request) -> bytes:
        port = urlsplit(self._sandbox.base_url).port
        head, _, body = request.raw.partition(b"\r\n\r\n")
        lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        with (
            socket.create_connection(("127.0.0.1", port), timeout=20) as raw,
            self._client.wrap_socket(raw, server_hostname="localhost") as upstream,
        ):
            upstream.sendall(b"\r\n".join([*lines, b"Connection: close"]) + b"\r\n\r\n" + body)
            said = b""
            while block := upstream.recv(1 << 16):
                said += block
        head, _, body = said.partition(b"\r\n\r\n")
        kept = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
        return b"\r\n".join(kept) + b"\r\n\r\n" + body
