"""The examples of the client's README and its recipes run, in their order, against the sandbox."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import nhs_mesh
from nhs_mesh import Unavailable

if TYPE_CHECKING:
    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient

PACKAGE = Path(__file__).parents[2] / "layers" / "mesh_client"


def examples(page: str) -> list[str]:
    return re.findall(r"```python\n(.*?)```", (PACKAGE / page).read_text(), re.DOTALL)


@pytest.fixture
def names(sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Give the names that the examples make, none yet; put down what they read, and let them connect to the sandbox."""
    made = sandbox.certificates
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nhs_mesh, "INTEGRATION", sandbox.base_url)
    Path("certificate.pem").write_text(made.certificate)
    Path("private-key.pem").write_text(made.private_key)
    Path("ca-bundle.pem").write_text(made.ca_bundle)
    Path("vaccinations.csv").write_bytes(b"hello|world\n")
    return {}


def run(example: str, names: dict[str, Any], sandbox: Sandbox) -> None:
    here = example.replace("the key's passphrase", sandbox.certificates.passphrase)
    exec(compile(here, "an example", "exec"), names)


def test_the_examples_of_the_readme_run(
    names: dict[str, Any], sandbox: Sandbox, receiver: MeshClient, capsys: pytest.CaptureFixture[str]
) -> None:
    waiting = receiver.send_file("X26ABC1", "DPS_ACK", b"an answer", compress=False).message_id
    found = examples("README.md")
    assert len(found) == 3
    for example in found:
        run(example, names, sandbox)
    names["client"].close()
    assert Path(waiting).read_bytes() == b"an answer"
    assert f"{names['sent'].message_id} accepted" in capsys.readouterr().out
    assert list(receiver.inbox()) == [names["sent"].message_id]


def test_the_recipes_run(
    names: dict[str, Any],
    sandbox: Sandbox,
    receiver: MeshClient,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for example in examples("README.md")[:1]:
        run(example, names, sandbox)
    scans = random.Random(1).randbytes(300_000)
    Path("scans.zip").write_bytes(scans)
    found = examples("docs/recipes.md")
    assert len(found) == 8
    stuck = [True]
    send_chunk = nhs_mesh.MeshClient.send_chunk

    def once(self: MeshClient, *arguments: Any) -> None:
        if stuck.pop() if stuck else False:
            raise Unavailable("MESH does not answer")
        send_chunk(self, *arguments)

    for shown in found:
        example = shown.replace('"SCANS", body, on', '"SCANS", body, chunk_size=100_000, on')
        if "inbox(" in example:  # what the next one looks for
            receiver.send_file("X26ABC1", "LETTERS", b"Dear sender\nhello\n")
        if 'inbox(workflow_filter="SCANS")' in example:
            receiver.send_file("X26ABC1", "SCANS", scans, chunk_size=100_000, compress=False)
        with monkeypatch.context() as patch:
            if "Resume" in example:
                patch.setattr(nhs_mesh.MeshClient, "send_chunk", once)
            run(example, names, sandbox)
    for name in ("client", "behind_a_proxy", "patient"):
        names[name].close()
    said = capsys.readouterr().out
    assert "Dear sender" in said
    assert "99836 of 300000 bytes" in said
    assert stuck == []
    sent = list(receiver.inbox())
    assert len(sent) == 3
    with receiver.download(sent[1]) as message:
        assert (message.chunks, message.read()) == (4, scans)
    assert names["message_id"] == sent[-1]
    pieces = sorted(Path().glob("*-?"), key=lambda file: file.name[-1])
    assert b"".join(piece.read_bytes() for piece in pieces) == scans
