"""Fixtures that all tests share."""

from __future__ import annotations

import os
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import boto3
import pytest
from hypothesis import HealthCheck, settings

from local.sandbox import Sandbox
from tests import chromium as browser
from tests import dynamodb_local as engine
from tests.clocks import MOMENTS, Clock

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What tests count, each with ``record_property``, and the end of the report adds up.
TOTALS = ("crash points tried", "interleavings run", "bad inputs tried")
TESTS = Path(__file__).parent
#: Its folders, those with the longest tests first.
FOLDERS = ("faults", "e2e", "sandbox", "usecases", "unit")
#: What begins so says what happened in interleavings in memory; it is added up in one line.
OF_INTERLEAVINGS = "interleavings: "
#: The folders with tests that need no server, but for those that ask for one of the servers below.
SERVERLESS = tuple(TESTS / name for name in ("unit", "usecases"))
#: Fixtures that start a server, and what the parameters of fixtures that choose one are called.
SERVERS = {"sandbox", "endpoint", "dynamodb_local", "chromium", "moto", "DynamoDB Local"}

# How quickly examples come depends on the machine and on what else it does.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("fast", settings.get_profile("any machine"), max_examples=25)  # make test-fast
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def sandbox() -> Iterator[Sandbox]:
    """NHS England's MESH sandbox over mutual TLS, one for each worker."""
    with Sandbox() as running:
        yield running


@pytest.fixture
def clean_mailboxes(sandbox: Sandbox) -> None:
    """Begin with empty mailboxes."""
    sandbox.reset()


@pytest.fixture(scope="session")
def dynamodb_local() -> Iterator[Any]:
    """Make a client of DynamoDB Local, one for each worker; skip where it cannot be had, unless it must be."""
    if why := engine.missing():
        (pytest.fail if os.environ.get("REQUIRE_DYNAMODB_LOCAL") == "1" else pytest.skip)(why)
    with engine.DynamoDBLocal() as running:
        session = boto3.Session("testing", "testing", region_name="eu-west-2")
        yield session.client("dynamodb", endpoint_url=running.endpoint)


@pytest.fixture(scope="session")
def chromium() -> None:
    """Make sure that there is a Chromium; skip where it cannot be had, unless it must be."""
    if why := browser.missing():
        (pytest.fail if os.environ.get("REQUIRE_CHROMIUM") == "1" else pytest.skip)(why)


@pytest.fixture(params=MOMENTS)
def clock(request: pytest.FixtureRequest) -> Clock:
    """Make a clock that stands at one of the moments of `tests.clocks`: a test that takes it runs at each of them.

    A test that needs a server takes its time, so it runs at one of them only, always the same.
    """
    return Clock(MOMENTS[request.param])


@pytest.fixture
def far_away(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the machine's local time be New Zealand's."""
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--one-clock", action="store_true", help="run each test at one of its clocks, not at all four")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, and keep one of the clocks for each of these.

    A test that runs in memory too, with all its parameters, keeps one set of them for each server. What takes long
    comes first, so that the workers end together, though the tests of a file stay on one.
    """
    same: defaultdict[str, list[pytest.Item]] = defaultdict(list)
    in_memory = {function_of(item) for item in items if "memory" in chosen(item)}
    for item in items:
        server = needs_server(item)
        if server:
            item.add_marker("server")
        moment = str(params_of(item).get("clock"))
        if server and function_of(item) in in_memory:
            same[f"{function_of(item)} {sorted(chosen(item) & SERVERS)}"].append(item)
        elif moment in MOMENTS and (server or config.getoption("one_clock")):
            same[item.nodeid.replace(moment, "")].append(item)
    kept = {name: found[crc32(name.encode()) % len(found)] for name, found in same.items()}
    dropped = {item for name, found in same.items() for item in found if item is not kept[name]}
    kept_items = [item for item in items if item not in dropped]
    items[:] = sorted(kept_items, key=lambda item: FOLDERS.index(item.path.relative_to(TESTS).parts[0]))


def needs_server(item: pytest.Item) -> bool:
    """Tell it from a test's folder, the fixtures that it takes and the parameters of these."""
    if not any(item.path.is_relative_to(folder) for folder in SERVERLESS):
        return True
    return not SERVERS.isdisjoint({*getattr(item, "fixturenames", ()), *chosen(item)})


def params_of(item: pytest.Item) -> Mapping[str, object]:
    """Return a test's parameters by their names."""
    return item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}


def chosen(item: pytest.Item) -> set[str]:
    """Return those of a test's parameters that are texts, such as the name of a server."""
    return {value for value in params_of(item).values() if isinstance(value, str)}


def function_of(item: pytest.Item) -> str:
    """Return a test's name without its parameters."""
    return item.nodeid.partition("[")[0]


def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest) -> None:
    """Let no server be started for a test that seemed not to need one."""
    if fixturedef.argname in SERVERS and request.config.option.markexpr == "not server":
        pytest.fail(
            f"the test does not say, by a fixture or a parameter of that name, that it needs {fixturedef.argname}"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how much was tried."""
    totals: Counter[str] = Counter()
    for report in terminalreporter.getreports(""):
        if report.when == "teardown":
            totals.update(
                {
                    str(name): int(str(n))
                    for name, n in report.user_properties
                    if name in TOTALS or str(name).startswith(OF_INTERLEAVINGS)
                }
            )
    for name in TOTALS:
        if totals[name]:
            terminalreporter.write_line(f"{name}: {totals[name]}")
    happened = {name.removeprefix(OF_INTERLEAVINGS): total for name, total in totals.items() if name not in TOTALS}
    if happened:
        terminalreporter.write_line(f"in memory: {', '.join(f'{name} {n}' for name, n in sorted(happened.items()))}")
