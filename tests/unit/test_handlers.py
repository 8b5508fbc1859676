"""Handlers are scripts, which import-linter does not see: their imports are looked at here."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

HANDLERS = sorted((Path(__file__).parents[2] / "functions").glob("*/handler.py"))


def imports_of(handler: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(handler.read_text())))
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return names | {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.parent.name)
def test_a_handler_knows_wiring_and_what_its_job_is_asked_and_answers(handler: Path) -> None:
    ours = {name for name in imports_of(handler) if name.startswith(("vaccinations", "nhs_mesh"))}
    job = f"vaccinations.jobs.{handler.parent.name}"
    assert {"vaccinations.wiring", job} <= ours, "a use case is loaded while Lambda starts its function"
    assert ours <= {"vaccinations.wiring", "vaccinations.telemetry", "vaccinations.results", job}


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.parent.name)
def test_a_handler_makes_no_client_of_its_own(handler: Path) -> None:
    assert not {name for name in imports_of(handler) if name.partition(".")[0] in {"boto3", "botocore", "os"}}
