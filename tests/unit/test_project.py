"""Promises about the project's own files."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from nhs_mesh import __version__

PROJECT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    path
    for path in PROJECT.rglob("*.md")
    if not any(part.startswith(".") or part == "node_modules" for part in path.relative_to(PROJECT).parts)
)
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)


def read(name: str) -> Any:
    return yaml.safe_load((PROJECT / name).read_text())


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in HEADING.findall(text)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("https://"):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", ["docs/safety.md", "docs/threat-model.md", "SECURITY.md"])
def test_a_test_or_file_that_a_page_of_safety_names_is_there(page: str) -> None:
    text = (PROJECT / page).read_text()
    named = set(re.findall(r"`([\w.-]+(?:/[\w.-]*)*\.(?:py|md|yaml|json|lock))(?:::(\w+))?`", text))
    assert named
    for path, test in named:
        [file] = [PROJECT / path] if "/" in path else [*PROJECT.glob(path), *PROJECT.glob(f"layers/*/*/**/{path}")]
        assert file.exists(), path
        assert not test or re.search(rf"^def {test}\(", file.read_text(), re.MULTILINE), f"{path}::{test}"


def test_each_hazard_is_told_in_full_and_has_its_line_of_ratings() -> None:
    page = (PROJECT / "docs/safety.md").read_text()
    _, *hazards = re.split(r"^### ", page.partition("\n## The hazards\n")[2].partition("\n## ")[0], flags=re.MULTILINE)
    assert hazards
    assert re.findall(r"^\| \[(H\d+)\]", page, re.MULTILINE) == [hazard.split()[0] for hazard in hazards]
    for hazard in hazards:
        told = [part for part in re.findall(r"^\*\*(.+?)\.\*\*", hazard, re.MULTILINE) if part != "To be filled in"]
        assert told == ["Causes", "Effect on a child", "What remains"], hazard
        _, *shown = re.findall(r"^\| .+ \| (.+) \|$", hazard, re.MULTILINE)
        assert shown, hazard
        assert all("`tests/" in test for test in shown), hazard


def test_each_threat_has_a_control_and_the_test_that_shows_it() -> None:
    page = (PROJECT / "docs/threat-model.md").read_text()
    threats = re.findall(r"^\| ([STRIDE]\d+) \| .+? \| .+? \| (.+?) \| ", page, re.MULTILINE)
    ids = [id_ for id_, _ in threats]
    assert ids == list(dict.fromkeys(ids)) == re.findall(r"^\| ([STRIDE]\d+) ", page, re.MULTILINE)
    assert {id_[0] for id_ in ids} == set("STRIDE")
    assert all("`tests/" in shown for _, shown in threats)


def test_the_version_stands_in_one_place() -> None:
    for distribution in ("nhs-mesh", "vaccinations", "nhs-mesh-cli", "nhs-mesh-local"):
        assert importlib.metadata.version(distribution) == __version__
    for file in PROJECT.glob("*/**/pyproject.toml"):
        if {".venv", ".aws-sam", ".cache"}.isdisjoint(file.parts):
            assert tomllib.loads(file.read_text())["project"].get("dynamic") == ["version"], file


def test_a_released_version_is_in_the_changelog_with_notes_on_upgrading() -> None:
    for page in ("CHANGELOG.md", "docs/upgrading.md"):
        headings = HEADING.findall((PROJECT / page).read_text())
        assert any(heading.startswith(("Unreleased", __version__)) for heading in headings), page


def test_the_workflow_runs_the_gate_with_the_least_rights_and_pinned_actions() -> None:
    workflow = read(".github/workflows/ci.yml")
    assert workflow["permissions"] == {"contents": "read"}
    [job] = workflow["jobs"].values()
    assert job["steps"][-1] == {"run": ".ci/run"}
    for step in job["steps"][:-1]:
        assert re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", step["uses"])


@pytest.mark.parametrize("path", sorted((PROJECT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_has_no_right_by_default_that_it_does_not_need_and_pins_its_actions(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] in ({}, {"contents": "read"})
    for job in workflow["jobs"].values():
        assert job["timeout-minutes"]
        for step in job["steps"]:
            assert "uses" not in step or re.fullmatch(r"[\w/-]+@[0-9a-f]{40}", step["uses"]), step


@pytest.mark.parametrize("path", sorted((PROJECT / ".github" / "workflows").glob("*.yml")), ids=lambda path: path.stem)
def test_a_workflow_runs_targets_of_make_that_there_are(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    for job in yaml.safe_load(path.read_text())["jobs"].values():
        for run in (step["run"] for step in job["steps"] if step.get("run", "").startswith("make ")):
            assert set(run.split()[1:]) <= targets, run


def test_a_release_is_gated_audited_and_comes_with_its_bill_of_materials() -> None:
    workflow = read(".github/workflows/release.yml")
    runs = [step.get("run", "") for step in workflow["jobs"]["build"]["steps"]]
    assert runs.index(".ci/run") < runs.index("make audit") < runs.index("make release")
    assert workflow["jobs"]["publish"]["needs"] == "build"
    assert "dist/*.cdx.json" in workflow["jobs"]["publish"]["steps"][-1]["run"]
    makefile = (PROJECT / "Makefile").read_text()
    assert "$(AUDIT) --strict" in makefile, "a version that the registry does not know fails the release"


def test_dependencies_and_actions_are_kept_up_to_date() -> None:
    assert {update["package-ecosystem"] for update in read(".github/dependabot.yml")["updates"]} == {
        "uv",
        "github-actions",
    }


def test_commits_are_checked_with_the_projects_own_tools() -> None:
    [repository] = read(".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    targets = (PROJECT / "Makefile").read_text()
    for hook in repository["hooks"]:
        program, *arguments = hook["entry"].split()
        assert f"{arguments[-1]}:" in targets if program == "make" else (PROJECT / program).exists()
