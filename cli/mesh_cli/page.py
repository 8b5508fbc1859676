"""The page of the stack on this machine: what the dashboard's widget shows, and the uploads with their files."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import islice
from typing import TYPE_CHECKING, Self
from urllib.parse import quote, unquote

from mesh_cli.intake import stored_uploads
from vaccinations.aws.bucket import INCOMING, NoSuchObject, receipt_key
from vaccinations.jobs.status import ShownUpload, page

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from vaccinations.aws.bucket import Bucket

__all__ = ["StatusServer"]

#: So many uploads are shown.
_UPLOADS = 50
#: What may be read of the bucket: what uploaders are told.
_READABLE = ("receipts/", "rejected/")


class StatusServer:
    """Serves the page between ``__enter__`` and ``__exit__``, to browsers of this machine.

    A request that names another host is refused: so a page of somewhere else, whose name leads here, reads nothing.

    Parameters
    ----------
    show
        Answers what the widget shows.
    bucket
        Where the uploads are.

    Attributes
    ----------
    url
        Where the page is.
    """

    def __init__(self, show: Callable[[], str], bucket: Bucket) -> None:
        class Handler(_Handler):
            shows = staticmethod(show)
            holds = bucket

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/"

    def __enter__(self) -> Self:
        """Begin to serve."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), name="page", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    shows: Callable[[], str]
    holds: Bucket

    def do_GET(self) -> None:
        """Serve the page, or a file that an uploader is given."""
        port = self.connection.getsockname()[1]
        key = unquote(self.path.removeprefix("/"))
        if self.headers.get("Host") not in {f"127.0.0.1:{port}", f"localhost:{port}"}:
            self._answer(403, "text/plain; charset=utf-8", b"This page is for this machine only.")
        elif not key:
            shown = page(self.shows(), [*islice(_uploads(self.holds), _UPLOADS)], datetime.now(UTC))
            self._answer(200, "text/html; charset=utf-8", shown.encode())
        elif key.startswith(_READABLE):
            self._file(key)
        else:
            self._nothing()

    def _file(self, key: str) -> None:
        try:
            body = self.holds.open(key).body.read()
        except NoSuchObject:
            self._nothing()
        else:
            kind = "text/csv" if key.endswith(".csv") else "text/plain"
            self._answer(200, f"{kind}; charset=utf-8", body)

    def _nothing(self) -> None:
        self._answer(404, "text/plain; charset=utf-8", b"There is nothing here.")

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        for name, value in (
            ("Content-Type", kind),
            ("Content-Length", str(len(body))),
            ("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"),
            ("X-Content-Type-Options", "nosniff"),
            ("Referrer-Policy", "no-referrer"),
            ("Cache-Control", "no-store"),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing: paths bear the names of uploads."""


def _uploads(bucket: Bucket) -> Iterator[ShownUpload]:
    """Tell of the uploads, newest first, with links to what their uploaders are given."""
    for row in sorted(stored_uploads(bucket, ""), key=lambda row: str(row["uploaded_at"]), reverse=True):
        upload, batch_id = row["upload"], row["batch_id"]
        files = [] if row["status"] == "waiting" else [("receipt", receipt_key(upload, batch_id))]
        files += [("rejects", row["rejects"])] if row["rejects"] else []
        files += [("refusals", key) for key in bucket.refusals(upload, batch_id)]
        yield ShownUpload(
            name=upload.removeprefix(INCOMING),
            status=row["status"],
            uploaded_at=datetime.fromisoformat(row["uploaded_at"]),
            rows=row["rows"],
            accepted=row["accepted"],
            rejected=row["rejected"],
            files=[(kind, f"/{quote(key)}") for kind, key in files],
        )
