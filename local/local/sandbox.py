"""Runs NHS England's MESH sandbox as a process of its own, over mutual TLS with full authentication."""

from __future__ import annotations

import json
import ssl
import sys
import tempfile
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from local import certificates, children
from nhs_mesh import Credentials, MeshClient

if TYPE_CHECKING:
    from types import TracebackType

    from local.certificates import Certificates

__all__ = ["Sandbox"]


class Sandbox:
    """The sandbox, which runs between ``with`` and its end.

    Parameters
    ----------
    folder
        Where its certificates, mailboxes and log go; by default a temporary folder.
    host
        The address it listens on. Containers reach an address of their network.
    """

    #: The sandbox's own mailboxes and their password.
    mailboxes = ("X26ABC1", "X26ABC2", "X26ABC3")
    password = "password"  # noqa: S105 - the sandbox's published one
    shared_key = "TestKey"

    def __init__(self, folder: Path | None = None, *, host: str = "127.0.0.1") -> None:
        self._folder = folder
        self._host = host
        self._stack = ExitStack()
        self.certificates: Certificates
        self.base_url = ""

    def __enter__(self) -> Self:
        folder = self._folder or Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mesh-sandbox-")))
        folder.mkdir(parents=True, exist_ok=True)
        self.certificates = certificates.make(folder, host=self._host)
        self.log_path = folder / "sandbox.log"
        port = children.free_port(self._host)
        process = children.start(
            [
                sys.executable,
                "-m",
                "uvicorn",
                "mesh_sandbox.api:app",
                *("--host", self._host, "--port", str(port), "--log-level", "warning"),
                *("--ssl-certfile", str(self.certificates.server_certificate_file)),
                *("--ssl-keyfile", str(self.certificates.server_key_file)),
                *("--ssl-ca-certs", str(self.certificates.ca_file), "--ssl-cert-reqs", str(int(ssl.CERT_REQUIRED))),
            ],
            log=self.log_path,
            environment={
                "AUTH_MODE": "full",
                "STORE_MODE": "file",
                "SHARED_KEY": self.shared_key,
                "MAILBOXES_DATA_DIR": str(folder / "mailboxes"),
                "PATH": "",
            },
        )
        self._stack.callback(children.stop, process)
        if not children.listens(process, port, self._host):
            log = self.log_path.read_text()[-2000:]
            self._stack.close()
            raise RuntimeError(f"the MESH sandbox did not start:\n{log}")
        self.base_url = f"https://{'localhost' if self._host == '127.0.0.1' else self._host}:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def client(self, mailbox: str = "X26ABC1", **options: Any) -> MeshClient:
        """Return a client of one of the mailboxes."""
        given = {
            "certificate": self.certificates.certificate,
            "private_key": self.certificates.private_key,
            "passphrase": self.certificates.passphrase,
            "ca_bundle": self.certificates.ca_bundle,
        } | options
        base_url = given.pop("base_url", self.base_url)
        return MeshClient(base_url, Credentials(mailbox, self.password, self.shared_key), **given)

    def admin(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Call the sandbox's admin API (reset mailboxes, add events, make reports), which real MESH does not have."""
        context = ssl.create_default_context(cadata=self.certificates.ca_bundle)
        certificate = self.certificates
        with tempfile.NamedTemporaryFile("w") as chain, tempfile.NamedTemporaryFile("w") as key:
            chain.write(certificate.certificate)
            key.write(certificate.private_key)
            chain.flush()
            key.flush()
            context.load_cert_chain(chain.name, key.name, certificate.passphrase)
        request = urllib.request.Request(  # noqa: S310 - always https
            f"{self.base_url}{path}",
            method=method,
            data=json.dumps(body).encode() if body is not None else None,
            headers={"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, context=context, timeout=30) as answer:  # noqa: S310 - always https
            return json.loads(answer.read() or b"null")

    def reset(self) -> None:
        """Empty every mailbox."""
        for mailbox in self.mailboxes:
            self.admin("DELETE", f"/messageexchange/admin/reset/{mailbox}")
