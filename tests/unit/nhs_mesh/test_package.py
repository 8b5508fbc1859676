"""The client is a package of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[3] / "layers" / "mesh_client"


@pytest.mark.server  # pip asks the package registry for what builds it
def test_it_installs_and_imports_by_itself(tmp_path: Path) -> None:
    target = tmp_path / "site"
    # The README and the sources alone make it up: it is built from a copy, so that nothing is left beside them.
    copy = tmp_path / "copy"
    (copy / "nhs_mesh").mkdir(parents=True)
    for file in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        *(f"nhs_mesh/{path.name}" for path in PACKAGE.glob("nhs_mesh/*.*")),
    ):
        (copy / file).write_bytes((PACKAGE / file).read_bytes())
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(copy)], check=True, timeout=120)
    assert (target / "nhs_mesh" / "py.typed").exists()

    # -I leaves out the environment and the working directory; what it requires comes from this environment.
    code = f"""
import json, sys
sys.path.insert(0, {str(target)!r})
import nhs_mesh
others = [name for name in ("vaccinations", "local", "mesh_cli", "boto3") if name in sys.modules]
print(json.dumps({{"where": nhs_mesh.__file__, "names": sorted(nhs_mesh.__all__), "others": others}}))
"""
    said = json.loads(
        subprocess.run([sys.executable, "-I", "-c", code], check=True, capture_output=True, text=True).stdout
    )
    assert said["where"] == str(target / "nhs_mesh" / "__init__.py")
    assert said["others"] == []
    assert "MeshClient" in said["names"]


def test_it_requires_nothing_of_this_repository() -> None:
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    assert [requirement.partition(">")[0] for requirement in project["dependencies"]] == ["cryptography", "urllib3"]


def test_all_that_it_offers_is_there_and_documented() -> None:
    import nhs_mesh

    for name in nhs_mesh.__all__:
        offered = getattr(nhs_mesh, name)
        assert name == "CHUNK_SIZE" or (offered.__doc__ or "").strip(), name
