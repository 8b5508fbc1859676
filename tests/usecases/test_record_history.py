"""`mesh record find` tells a record's whole history, from its identifier, a row of an upload, or an NHS number."""

from __future__ import annotations

import json
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any
from unittest.mock import Mock

import pytest
from rich.console import Console
from typer.testing import CliRunner

from local.dps import Dps
from mesh_cli.main import app
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.jobs.ingest import MOST_TRIES

if TYPE_CHECKING:
    from collections.abc import Callable

    from click.testing import Result

    from tests.usecases.world import World

#: What the stores themselves do is tried elsewhere; the command on AWS, in tests/e2e/test_commands.py.
pytestmark = pytest.mark.parametrize("world", ["memory"], indirect=True)

NUMBER = "9990000026"
INVALID = "Validation errors: lotNumber of Zephyrson"


@pytest.fixture
def refusals() -> dict[str, str]:
    return {}


@pytest.fixture
def dps(world: World, refusals: dict[str, str]) -> Dps:
    return Dps(world.receiver, refuse=lambda found: refusals.get(found["UNIQUE_ID"]), clock=world.clock)


@pytest.fixture
def mesh(world: World, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command on the world's stores."""
    stores = world.stores
    wiring = SimpleNamespace(
        bucket=lambda: stores.bucket,
        register=lambda: stores.register,
        ledger=lambda: stores.ledger,
        settings=SimpleNamespace(bucket="bucket"),
    )
    monkeypatch.setattr("mesh_cli.records.deployment", lambda _: SimpleNamespace(wiring=wiring))

    monkeypatch.setattr("mesh_cli.records.data", Console(highlight=False, width=250))

    def run(*arguments: str, given: str | None = None) -> Result:
        return CliRunner().invoke(app, ["record", "find", *arguments], input=given)

    return run


def find(mesh: Callable[..., Result], *arguments: str, given: str | None = None) -> Any:
    done = mesh(*arguments, "--json", given=given)
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def nightly(world: World, dps: Dps, *rows: str, name: str = "monday.csv", organisation: str = "R1L") -> None:
    """Have rows uploaded, sent, picked up and answered."""
    world.upload(upload_of(*rows), name, organisation)
    world.next_night()
    dps.work()
    world.track()
    world.collect()


def with_number(n: int, number: str = NUMBER, **changes: str) -> str:
    return row(n, **changes).replace(f"{uuid_of(n)},,", f"{uuid_of(n)},{number},")


def test_the_whole_history_is_told_from_the_first_statement_on(
    world: World, dps: Dps, refusals: dict[str, str], mesh: Callable[..., Result]
) -> None:
    nightly(world, dps, row(1), row(2))
    refusals[uuid_of(2)] = INVALID
    nightly(world, dps, row(2, batch="XY1"), name="tuesday.csv")
    refusals.clear()
    nightly(world, dps, row(2, batch="XY2"), name="wednesday.csv")
    world.upload(upload_of(row(2, vaccinated="N")), "thursday.csv")
    [story] = find(mesh, uuid_of(2))
    facts = ("upload", "line", "action", "export_id", "dps")
    assert (story["programme"], story["owner"]) == ("hpv", "R1L")
    assert [[statement[fact] for fact in facts] for statement in story["statements"]] == [
        ["incoming/R1L/monday.csv", 3, "new", "hpv-1", "processed"],
        ["incoming/R1L/tuesday.csv", 2, "update", "hpv-2", "refused: invalid"],
        ["incoming/R1L/wednesday.csv", 2, "update", "hpv-3", "processed"],
        ["incoming/R1L/thursday.csv", 2, "delete", "hpv-4", "not sent yet"],
    ]
    assert story["on_file"] == "not known yet: DPS has not processed its deletion"
    shown = mesh(uuid_of(2))
    assert shown.exit_code == 0
    for name in ("monday", "tuesday", "wednesday", "thursday"):
        assert f"R1L/{name}.csv" in shown.stdout
    assert "Zephyrson" not in shown.stdout + json.dumps(story)


def test_the_last_refusal_is_told_with_its_class_and_its_row(
    world: World, dps: Dps, refusals: dict[str, str], mesh: Callable[..., Result]
) -> None:
    refusals[uuid_of(2)] = INVALID
    nightly(world, dps, row(1), row(2))
    [story] = find(mesh, uuid_of(2))
    [statement] = story["statements"]
    assert (statement["dps"], statement["row"], story["on_file"]) == ("refused: invalid", 2, "no")
    assert statement["refusals"].endswith("-refused-hpv-1.csv")
    shown = mesh(uuid_of(2))
    assert "s3://bucket/receipts/R1L/monday.csv/" in shown.stdout


def test_what_is_on_file_at_dps_is_told_by_its_answers_alone(
    world: World, dps: Dps, refusals: dict[str, str], mesh: Callable[..., Result]
) -> None:
    def on_file() -> str:
        return str(find(mesh, uuid_of(1))[0]["on_file"])

    world.upload(upload_of(row(1)))
    assert on_file() == "not known yet: DPS has not processed the last statement"
    refusals[uuid_of(1)] = INVALID
    nightly(world, dps)
    assert on_file() == "no"
    refusals.clear()
    nightly(world, dps, row(1, batch="XY1"), name="tuesday.csv")
    assert on_file() == "yes"
    nightly(world, dps, row(1, vaccinated="N"), name="wednesday.csv")
    assert on_file() == "no, deleted"


def test_where_the_uploader_is_no_longer_told_what_dps_refused_nobody_says_that_it_was_processed(
    world: World, dps: Dps, refusals: dict[str, str], mesh: Callable[..., Result]
) -> None:
    refusals[uuid_of(1)] = INVALID
    for day, batch in (("monday", "XY0"), ("tuesday", "XY1"), ("wednesday", "XY2")):
        world.upload(upload_of(row(1, batch=batch)), f"{day}.csv")
        world.next_night()
    dps.work()
    world.track()
    world.collect()
    told = [statement["dps"] for statement in find(mesh, uuid_of(1))[0]["statements"]]
    assert [each.partition(":")[0] for each in told] == ["refused"] * 3
    for key in world.stores.list_keys():
        if "-refused-" in key:
            world.stores.delete(key)
    told = [statement["dps"] for statement in find(mesh, uuid_of(1))[0]["statements"]]
    assert told[0] == "processed or refused: no longer known which"
    assert told[-1] == "refused: invalid"


def test_what_was_parked_is_told_as_never_sent(
    world: World, mesh: Callable[..., Result], monkeypatch: pytest.MonkeyPatch
) -> None:
    world.upload(upload_of(row(1)))
    with monkeypatch.context() as broken:
        broken.setattr(world.ledger, "attach", Mock(side_effect=ConnectionError))
        world.uploads.append(world.stores.uploaded(upload_of(row(1, batch="XY1")), "tuesday.csv", "R1L"))
        for _ in range(MOST_TRIES):
            with suppress(ConnectionError):
                world.ingest()
    world.upload(upload_of(row(1, batch="XY2")), "wednesday.csv")
    [story] = find(mesh, uuid_of(1))
    told = [(statement["upload"].rpartition("/")[2], statement["dps"]) for statement in story["statements"]]
    assert told == [
        ("monday.csv", "not sent yet"),
        ("tuesday.csv", "never sent: its upload was parked"),
        ("wednesday.csv", "not sent yet"),
    ]


def test_a_record_that_a_request_sends_again_names_the_request(
    world: World, dps: Dps, refusals: dict[str, str], mesh: Callable[..., Result]
) -> None:
    refusals[uuid_of(1)] = INVALID
    nightly(world, dps, row(1))
    world.request("again.resend", f"{uuid_of(1)}\n")
    [story] = find(mesh, uuid_of(1))
    told = [(statement["upload"], statement["sent_again_by"]) for statement in story["statements"]]
    assert told == [("incoming/R1L/monday.csv", ""), ("incoming/R1L/monday.csv", "requests/again.resend")]


@pytest.mark.parametrize("upload", ["R1L/monday.csv", "incoming/R1L/monday.csv", "R1L/2026/monday.csv"])
def test_a_row_leads_to_its_record_and_says_what_became_of_it(
    world: World, mesh: Callable[..., Result], upload: str
) -> None:
    name = upload.removeprefix("incoming/").removeprefix("R1L/")
    world.upload(upload_of(row(1), row(2)), name)
    world.upload(upload_of(row(1), row(2, batch="XY1"), row(3).replace("SW1A 1AA", "nonsense")), name)
    [first] = find(mesh, f"{upload}:2")
    assert (first["record"], len(first["statements"])) == (uuid_of(1), 1)
    assert first["asked_row"].startswith("queued nothing")
    [second] = find(mesh, f"{upload}:3")
    assert (second["record"], second["asked_row"], len(second["statements"])) == (uuid_of(2), "was accepted", 2)
    rejected = mesh(f"{upload}:4")
    assert rejected.exit_code == 1
    assert "was rejected: PERSON_POSTCODE" in rejected.stdout
    assert "nonsense" not in rejected.output
    none = mesh(f"{upload}:99")
    assert (none.exit_code, none.stdout) == (2, "")
    assert "no row of this upload begins at line 99" in none.output


def test_a_row_of_an_earlier_version_is_found_by_its_batch_id(world: World, mesh: Callable[..., Result]) -> None:
    earlier = world.upload(upload_of(row(1), row(2)))
    world.upload(upload_of(row(3)))
    [story] = find(mesh, f"{earlier.batch_id}:3")
    assert (story["record"], story["asked_row"]) == (uuid_of(2), "was accepted")
    assert mesh("R1L/monday.csv:3").exit_code == 2
    assert mesh(f"{'0' * 32}:3").exit_code == 2


def test_a_row_about_anothers_record_says_why_it_was_rejected_and_tells_the_record(
    world: World, mesh: Callable[..., Result]
) -> None:
    world.upload(upload_of(row(1)))
    world.clock.forward(minutes=1)
    world.upload(upload_of(row(1, batch="XY1")), organisation="RX1")
    [story] = find(mesh, "RX1/monday.csv:2")
    assert story["asked_row"].startswith("was rejected: ")
    assert [statement["upload"] for statement in story["statements"]] == ["incoming/R1L/monday.csv"]


@pytest.mark.parametrize("typed", [NUMBER, "999 000 0026", "999-000-0026\n"])
def test_records_are_found_by_an_nhs_number_that_is_never_told(
    world: World, mesh: Callable[..., Result], typed: str, caplog: pytest.LogCaptureFixture
) -> None:
    world.upload(upload_of(with_number(1), with_number(2, "9990000034"), row(3)))
    world.upload(upload_of(with_number(4, programme="MMR")), "tuesday.csv")
    world.upload(upload_of(with_number(1, "9990000034")), "wednesday.csv")  # put right since
    done = mesh("--nhs-number", "--json", given=typed)
    assert done.exit_code == 0, done.output
    assert {story["record"] for story in json.loads(done.stdout)} == {uuid_of(1), uuid_of(4)}
    shown = mesh("--nhs-number", given=typed)
    for told in (done.output, shown.output, caplog.text):
        assert NUMBER not in told.replace(" ", "").replace("-", "")


def test_an_nhs_number_that_is_none_or_of_nobody_is_not_repeated(world: World, mesh: Callable[..., Result]) -> None:
    world.upload(upload_of(with_number(1)))
    for given, code in (("9990000027", 2), ("99900000261", 2), ("", 2), ("9990000034", 1)):
        done = mesh("--nhs-number", given=given)
        assert (done.exit_code, done.stdout) == (code, ""), done.output
        assert not given or given not in done.output


def test_an_nhs_number_on_the_command_line_is_refused_and_not_repeated(mesh: Callable[..., Result]) -> None:
    for arguments in ((NUMBER,), ("--nhs-number", NUMBER), ("--nhs-number", "999", "000", "0026"), ()):
        done = mesh(*arguments)
        assert (done.exit_code, done.stdout) == (2, "")
        assert "or --nhs-number and the number on stdin" in " ".join(done.output.replace("│", " ").split())
        assert "999" not in done.output
