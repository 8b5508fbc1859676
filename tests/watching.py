"""Reads the dashboard and the saved queries of watching.yaml as CloudWatch does."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from local.template import Template

#: What CloudWatch knows a metric by: its name and its dimensions.
type Metric = tuple[str, frozenset[tuple[str, str]]]

#: The namespace of our own metrics.
OURS = "Vaccinations/local"

#: Stands for every value of a dimension that a search finds.
ANY = "*"

_PARAMETERS = {"Stack": "local", "AWS::Region": "eu-west-2"}
_SEARCH = re.compile(
    r"SEARCH\('\{\"([^\"]+)\",service,programme\} service=\"(\w+)\" MetricName=\"(\w+)\"', '\w+', \d+\)"
)


def dashboard(template: Template, *, production: bool) -> Any:
    """Return the dashboard's body; references to alarms stay as they are, ``${ExportFailedAlarm.Arn}``."""
    body = template.resources()["Dashboard"]["Properties"]["DashboardBody"]
    return json.loads(_resolve(body, {"IsProduction": production}))


def _resolve(value: Any, conditions: Mapping[str, bool]) -> str:
    match value:
        case {"Fn::If": [condition, yes, no]}:
            return _resolve(yes if conditions[condition] else no, conditions)
        case {"Fn::Sub": [text, variables]}:
            return _substitute(text, {name: _resolve(v, conditions) for name, v in variables.items()})
        case {"Fn::Sub": text}:
            return _substitute(text, {})
    assert isinstance(value, str)
    return value


def _substitute(text: str, variables: Mapping[str, str]) -> str:
    values = _PARAMETERS | dict(variables)
    return re.sub(r"\$\{([^}!]+)\}", lambda found: values.get(found[1], found[0]), text).replace("${!", "${")


def metrics(widget: Any) -> Iterator[list[str]]:
    """Return a widget's metrics as [namespace, name, dimension, value, ...], with abbreviations written out.

    A search is a metric whose programme is `ANY`.
    """
    above: list[str] = []
    for metric in widget["properties"].get("metrics", ()):
        if isinstance(metric[0], dict):
            found = _SEARCH.fullmatch(metric[0]["expression"])
            assert found, metric
            yield [found[1], found[3], "service", found[2], "programme", ANY]
            continue
        words = [word for word in metric if isinstance(word, str)]
        if words[0] == "...":
            words = above[: len(above) - len(words) + 1] + words[1:]
        above = [above[place] if word == "." else word for place, word in enumerate(words)]
        yield above


def of_alarms(template: Template) -> Iterator[tuple[str, Metric]]:
    """Return the namespace and the metric of each that an alarm looks at."""
    for alarm in template.resources("AWS::CloudWatch::Alarm").values():
        yield from of_alarm(alarm["Properties"])


def of_alarm(alarm: Any) -> Iterator[tuple[str, Metric]]:
    """Return the namespace and the metric of each that one alarm looks at."""
    looked_at = [m["MetricStat"]["Metric"] for m in alarm.get("Metrics", ()) if "MetricStat" in m]
    for metric in looked_at or [alarm]:
        values = ((d["Name"], json.dumps(d["Value"]).strip('"')) for d in metric["Dimensions"])
        yield _resolve(metric["Namespace"], {}), (metric["MetricName"], frozenset(values))


def of_dashboard(template: Template) -> Iterator[tuple[str, Metric]]:
    """Return the namespace and the metric of each that the dashboard shows."""
    for widget in dashboard(template, production=True)["widgets"]:
        for namespace, name, *dimensions in metrics(widget):
            yield namespace, (name, frozenset(zip(dimensions[::2], dimensions[1::2], strict=True)))


def queries(template: Template) -> Mapping[str, str]:
    """Return the saved queries' texts, by name."""
    found = {}
    for query in template.resources("AWS::Logs::QueryDefinition").values():
        found[_resolve(query["Properties"]["Name"], {})] = query["Properties"]["QueryString"]
    return found


def fields(query: str) -> set[str]:
    """Return the keys of log lines that a query names: neither CloudWatch's own (``@message``) nor its language."""
    query = re.sub(r"^ *#.*$", "", query, flags=re.MULTILINE)
    query = re.sub(r'"[^"]*"|/[^/]+/|\bas \w+|@\w+', " ", query)
    language = {"fields", "filter", "sort", "limit", "asc", "desc", "and", "or", "in", "like", "coalesce", "ispresent"}
    return set(re.findall(r"\b[a-z]\w*", query)) - language


def texts(query: str) -> set[str]:
    """Return the texts that a query compares with."""
    return set(re.findall(r'"([^"]*)"', query))
