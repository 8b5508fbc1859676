"""The README's examples run, in their order, against the sandbox."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nhs_mesh

if TYPE_CHECKING:
    import pytest

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient

README = Path(__file__).parents[2] / "layers" / "mesh_client" / "README.md"


def test_the_examples_run(
    sandbox: Sandbox,
    receiver: MeshClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = sandbox.certificates
    monkeypatch.chdir(tmp_path)
    Path("certificate.pem").write_text(made.certificate)
    Path("private-key.pem").write_text(made.private_key)
    Path("ca-bundle.pem").write_text(made.ca_bundle)
    Path("vaccinations.csv").write_bytes(b"hello|world\n")
    waiting = receiver.send_file("X26ABC1", "DPS_ACK", b"an answer", compress=False).message_id

    examples = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(examples) == 4
    names: dict[str, Any] = {}
    for example in examples:
        here = example.replace("https://msg.intspineservices.nhs.uk", sandbox.base_url)
        here = here.replace("the key's passphrase", made.passphrase)
        exec(compile(here, str(README), "exec"), names)
    names["client"].close()

    assert Path(waiting).read_bytes() == b"an answer"
    assert f"{names['sent'].message_id} accepted" in capsys.readouterr().out
    assert list(receiver.inbox()) == [names["sent"].message_id, names["message_id"]]


def test_the_readme_names_every_error() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", README.read_text(), re.MULTILINE))
    errors = {
        name
        for name, value in vars(nhs_mesh).items()
        if isinstance(value, type) and issubclass(value, nhs_mesh.MeshError) and value is not nhs_mesh.MeshError
    }
    assert named == errors
