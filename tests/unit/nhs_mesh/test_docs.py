"""The client's pages say what is there."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

import nhs_mesh
from tests.api import PAGE, api

PACKAGE = Path(__file__).parents[3] / "layers" / "mesh_client"
PAGES = [PACKAGE / "README.md", *sorted((PACKAGE / "docs").glob("*.md"))]
FUNCTIONS: dict[str, Any] = {
    "MeshClient": nhs_mesh.MeshClient,
    **{f"MeshClient.{name}": each for name, each in vars(nhs_mesh.MeshClient).items() if inspect.isfunction(each)},
    "Resume.parse": nhs_mesh.Resume.parse,
    **{name: getattr(nhs_mesh, name) for name in ("token", "ssl_context", "certificate_facts", "check_ca_bundle")},
}
PROJECT: dict[str, Any] = tomllib.loads((PACKAGE / "pyproject.toml").read_text())
REPOSITORY = PROJECT["project"]["urls"]["Repository"]
PUBLIC = {name: each for name, each in FUNCTIONS.items() if not name.partition(".")[2].startswith("_")}


def section(value: Any, name: str) -> str:
    """Return a section of a docstring."""
    text = inspect.cleandoc(value.__doc__ or "")
    found = re.search(rf"^{name}\n-+\n(.*?)(?=\n\n\w[\w ]*\n---|\Z)", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


def test_the_api_page_is_what_the_docstrings_say() -> None:
    assert PAGE.read_text() == api(), "make it anew with: make schemas"


@pytest.mark.parametrize("name", PUBLIC)
def test_every_argument_and_result_is_described(name: str) -> None:
    signature = inspect.signature(PUBLIC[name])
    described = re.findall(r"\w+", " ".join(re.findall(r"^\S.*$", section(PUBLIC[name], "Parameters"), re.MULTILINE)))
    assert set(described) == {each for each in signature.parameters if each not in {"self", "cls"}}
    returns = signature.return_annotation
    if not inspect.isclass(PUBLIC[name]) and returns not in {"None", "Self"}:
        assert section(PUBLIC[name], "Returns"), f"{name} returns {returns}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_the_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, heading = link.partition("#")
        if path.startswith(REPOSITORY):
            path = str(PACKAGE.parents[1] / path.removeprefix(f"{REPOSITORY}/blob/main/"))
        if path.startswith("https:"):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        headings = {re.sub(r"[^\w -]", "", line.lstrip("# ")).lower().replace(" ", "-") for line in _headings(target)}
        assert not heading or heading in headings, link


def test_the_links_of_the_readme_lead_somewhere_from_wherever_it_is_shown() -> None:
    links = re.findall(r"\]\(([^)]+)\)", PAGES[0].read_text())
    assert all(link.startswith("https://") for link in links)
    assert sum(link.startswith(f"{REPOSITORY}/blob/main/") for link in links) == len(PAGES) - 1


def _headings(page: Path) -> list[str]:
    return [line for line in page.read_text().splitlines() if line.startswith("#")]


def test_sources_that_the_code_names_are_pages_of_the_package() -> None:
    headings = {line.lstrip("# ") for line in _headings(PACKAGE / "docs" / "mesh-protocol.md")}
    named = [
        name
        for file in (PACKAGE / "nhs_mesh").glob("*.py")
        for name in re.findall(r'docs/mesh-protocol\.md, "([^"]+)"', file.read_text())
    ]
    assert len(named) > 5
    assert set(named) <= headings


def test_the_recipes_name_every_error() -> None:
    named = set(re.findall(r"^\| `(\w+)` \|", (PACKAGE / "docs" / "recipes.md").read_text(), re.MULTILINE))
    errors = {
        name
        for name, value in vars(nhs_mesh).items()
        if isinstance(value, type) and issubclass(value, nhs_mesh.MeshError) and value is not nhs_mesh.MeshError
    }
    assert named == errors


def test_the_readme_fits_on_a_screen() -> None:
    assert len((PACKAGE / "README.md").read_bytes()) < 3_000


def test_the_package_tells_who_may_use_it_and_with_what() -> None:
    assert PROJECT["project"]["requires-python"] == ">=3.11"
    assert (PACKAGE / "LICENSE").read_text() == (PACKAGE.parents[1] / "LICENSE").read_text()


@pytest.mark.parametrize("built", ["wheel", "sdist"])
def test_the_package_is_built_with_metadata_that_can_be_published(built: str) -> None:
    # What publishes packages refuses 2.5 so far, which the newest hatchling writes by itself.
    assert PROJECT["tool"]["hatch"]["build"]["targets"][built]["core-metadata-version"] == "2.4"
