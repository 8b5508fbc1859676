"""docs/alarms.md, which lists what each alarm looks at and where each metric is heard: ``make schemas``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from local.stack import PROJECT
from local.template import Template
from tests import watching

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["PAGE", "page", "told"]

PAGE = PROJECT / "docs" / "alarms.md"
_INTRODUCTION = """\
# Alarms and metrics

Made from `watching.yaml` by `make schemas`; a test holds the two together, and another compares the metrics with those
that the code emits.

## What each alarm looks at

"Nothing" is what an hour, or whatever the period is, without a measurement means to the alarm.
"""
_METRICS = """
## Where each metric of ours is heard

"""
_COMPARISONS = {
    "GreaterThanOrEqualToThreshold": "at least",
    "GreaterThanThreshold": "more than",
    "LessThanThreshold": "less than",
}
_NOTHING = {"breaching": "bad", "notBreaching": "good", "ignore": "changes nothing"}


def page() -> str:
    """Return the page as it has to be."""
    template = Template.read(PROJECT / "watching.yaml")
    alarms = _table(("alarm", "metric", "rings at", "nothing is", "runbook"), _alarms(template))
    metrics = _table(("metric", "of", "alarm", "on the dashboard in"), _heard(template))
    return f"{_INTRODUCTION}\n{alarms}{_METRICS}{metrics}"


def told(template: Template) -> Iterator[tuple[dict[str, Any], list[dict[str, Any]]]]:
    """Yield the alarms that somebody is told of, each with those that look at metrics for it: itself, or its parts."""
    alarms = {name: one["Properties"] for name, one in template.resources("AWS::CloudWatch::Alarm").items()}
    for alarm in alarms.values():
        if "AlarmActions" in alarm:
            yield alarm, [alarm]
    for resource in template.resources("AWS::CloudWatch::CompositeAlarm").values():
        alarm = resource["Properties"]
        yield alarm, [alarms[name] for name in re.findall(r"\$\{(\w+)\}", alarm["AlarmRule"]["Fn::Sub"])]


def _alarms(template: Template) -> Iterator[tuple[str, ...]]:
    for alarm, parts in told(template):
        section = alarm["AlarmDescription"]["Fn::Sub"].rpartition("#")[2]
        for part in parts:
            stats = [m["MetricStat"] for m in part.get("Metrics", ()) if "MetricStat" in m]
            period = stats[0]["Period"] if stats else part["Period"]
            threshold = part["Threshold"]
            limit = threshold["Ref"] if isinstance(threshold, dict) else f"{threshold:,}"
            times = part["EvaluationPeriods"]
            yield (
                alarm["AlarmName"]["Fn::Sub"].removeprefix("${Stack}-"),
                _names(name for _, (name, _) in watching.of_alarm(part)),
                f"{_COMPARISONS[part['ComparisonOperator']]} {limit} in {_time(period)}"
                + (f", {times} times running" if times > 1 else ""),
                _NOTHING[part["TreatMissingData"]],
                f"[{section}](operations.md#{section})",
            )


def _heard(template: Template) -> Iterator[tuple[str, ...]]:
    by_alarm: dict[str, list[str]] = {}
    services: dict[str, set[str]] = {}
    shown: dict[str, list[str]] = {}
    for alarm, parts in told(template):
        for namespace, (name, dimensions) in (metric for part in parts for metric in watching.of_alarm(part)):
            if namespace == watching.OURS:
                by_alarm.setdefault(name, []).append(alarm["AlarmName"]["Fn::Sub"].removeprefix("${Stack}-"))
                services.setdefault(name, set()).add(dict(dimensions)["service"])
    for widget in watching.dashboard(template, production=True)["widgets"]:
        for namespace, name, *dimensions in watching.metrics(widget):
            if namespace == watching.OURS:
                shown.setdefault(name, []).append(widget["properties"]["title"])
                services.setdefault(name, set()).add(dimensions[1])
    for name in sorted(services):
        places = (", ".join(dict.fromkeys(found.get(name, ()))) for found in (by_alarm, shown))
        yield (f"`{name}`", ", ".join(sorted(services[name])), *places)


def _names(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))


def _time(seconds: int) -> str:
    return {300: "5 minutes", 3_600: "an hour", 86_400: "a day"}[seconds]


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(page())
