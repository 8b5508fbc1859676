"""No counter without an ear: each metric that the code emits has an alarm or a place on the dashboard, and both look at
none that nothing emits.

What the code emits is read from its source. That the functions really write it, with the dimensions that are looked
at, is in tests/e2e/local/test_watching.py.
"""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING

from local.stack import PROJECT
from local.template import Template
from tests import alarms, watching
from vaccinations.settings import READS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PACKAGE = PROJECT / "layers" / "vaccinations" / "vaccinations"
WATCHING = Template.read(PROJECT / "watching.yaml")

#: Which functions run a module that belongs to none by its name.
SERVICES = {
    "transfer": {"export"},
    "wiring": {name for name, reads in READS.items() if "MESH_JOBS_PARAMETER" in reads},
    "bus": {name for name, reads in READS.items() if "EVENT_BUS" in reads},
}
#: What need not be heard of a function, and why.
ENOUGH = {
    ("JobsNotYetEnabled", "validate"): "Track says the same every hour",
    ("JobsNotYetEnabled", "collect"): "Track says the same every hour",
}


def emitted() -> set[tuple[str, str]]:
    """Return the metrics that the code emits, each with the function that does."""
    return {
        (name, service)
        for path in PACKAGE.rglob("*.py")
        if path.stem != "telemetry"
        for name in names(path)
        for service in SERVICES.get(path.stem) or {path.stem}
    }


def names(path: Path) -> Iterator[str]:
    """Yield what a module gives to `count` and `gauge`: texts, or the texts of the module's tables."""
    tree = ast.parse(path.read_text())
    tables = [node for node in ast.walk(tree) if isinstance(node, ast.Dict)]
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"count", "gauge"}:
            told = [node.args[0]] if any(texts(node.args[0])) else [v for table in tables for v in table.values if v]
            found = [text for one in told for text in texts(one)]
            assert found, f"{path.name}:{node.lineno}: which metric is it?"
            yield from found


def texts(node: ast.AST) -> Iterator[str]:
    for one in ast.walk(node):
        if isinstance(one, ast.Constant) and isinstance(one.value, str) and re.fullmatch(r"([A-Z][a-z]+)+", one.value):
            yield one.value


def heard() -> set[tuple[str, str]]:
    """Return the metrics of ours that an alarm or the dashboard looks at, each with its function."""
    looked_at = (*watching.of_alarms(WATCHING), *watching.of_dashboard(WATCHING))
    return {(name, dict(d)["service"]) for namespace, (name, d) in looked_at if namespace == watching.OURS}


def test_what_the_code_emits_is_found() -> None:
    assert len(emitted()) > 50
    assert {
        ("OldestWaitingHours", "track"),
        ("CollectErrors", "collect"),
        ("EventsNotPublished", "ingest"),
    } <= emitted()
    assert {service for _, service in emitted()} <= set(READS)


def test_every_metric_that_the_code_emits_is_heard_by_an_alarm_or_shown_on_the_dashboard() -> None:
    assert emitted() - heard() == set(ENOUGH)


def test_every_metric_that_is_looked_at_is_one_that_the_code_emits() -> None:
    assert heard() - emitted() == set()


def test_trouble_is_heard_by_an_alarm_or_is_on_the_dashboard_as_out_of_the_ordinary() -> None:
    ringing = {name for _, (name, _) in watching.of_alarms(WATCHING)}
    [widget] = [
        widget
        for widget in watching.dashboard(WATCHING, production=True)["widgets"]
        if widget["properties"].get("title") == "Out of the ordinary"
    ]
    shown = {metric[1] for metric in watching.metrics(widget)}
    trouble = re.compile(
        "Error|Fail|Unclear|Undelivered|Reject|Refus|Park|Missing|NotPub|NotBel|NotUnd|Unmatch|Unread|Delay"
    )
    uploads = {"UploadsMissing"}  # among the uploads, beside those that were ingested
    assert {name for name, _ in emitted() if trouble.search(name)} - ringing - shown - uploads == set()


def test_the_page_of_alarms_and_metrics_is_what_the_template_says() -> None:
    assert alarms.PAGE.read_text() == alarms.page(), "make it with: make schemas"
