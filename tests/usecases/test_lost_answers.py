"""Promises of the export where MESH, or the way to it, fails: exactly one message is delivered each time."""

from __future__ import annotations

import io
import json
from functools import partial
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import Part
from tests.faults.nhs_mesh.proxy import FORWARD, LOSE_ANSWER, LOSE_REQUEST, Action, Proxy, answer
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.stores import on_sandbox
from vaccinations.formats.dps_parts import write_part
from vaccinations.jobs.export import ExportRequest
from vaccinations.model.export import Status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.sandbox import Sandbox
    from tests.usecases.world import World
    from vaccinations.results import ExportOutcome

pytestmark = on_sandbox
#: More failures in a row than the client has tries.
TRIES = 10


@pytest.fixture(scope="module")
def running_proxy(sandbox: Sandbox) -> Iterator[Proxy]:
    with Proxy(sandbox) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: Proxy) -> Proxy:
    running_proxy.begin()
    return running_proxy


@pytest.fixture
def broken(world: World, proxy: Proxy, sandbox: Sandbox) -> Iterator[World]:
    """The world with the proxy on the way to MESH; the receiver has a way of its own."""
    with sandbox.client(base_url=proxy.base_url, pauses=(0.0, 0.0)) as client:
        world.client = client
        yield world


def export(world: World, *actions: Action, proxy: Proxy, **event: bool) -> ExportOutcome:
    proxy.script[:] = actions
    answered = world.export(**event)
    proxy.script.clear()
    [outcome] = answered.exports
    return outcome


def delivered(world: World) -> list[list[str]]:
    return [[r["UNIQUE_ID"] for r in rows] for _, rows in world.inbox()]


def next_hour(world: World, proxy: Proxy) -> ExportOutcome:
    world.clock.forward(hours=1)
    return export(world, proxy=proxy, resume_only=True)


@pytest.mark.parametrize(
    "lost",
    [LOSE_ANSWER, Action(status=500), Action(status=503), LOSE_REQUEST],
    ids=["the answer is lost", "500 after taking it", "503 after taking it", "the request is lost"],
)
def test_a_first_part_whose_outcome_is_unknown_is_delivered_once(broken: World, proxy: Proxy, lost: Action) -> None:
    broken.upload(upload_of(row(1), row(2)))
    outcome = export(broken, lost, proxy=proxy)
    assert (outcome.status, outcome.error_code) == ("pending", "outcome-unknown")
    assert next_hour(broken, proxy).status == "accepted"
    assert delivered(broken) == [[uuid_of(1), uuid_of(2)]]


def in_parts(world: World, monkeypatch: pytest.MonkeyPatch, rows: int = 200) -> None:
    monkeypatch.setattr("vaccinations.jobs.render.write_part", partial(write_part, part_bytes=2_000))
    monkeypatch.setattr("vaccinations.formats.dps_parts.MEMBER_CHARACTERS", 5_000)
    world.upload(upload_of(*map(row, range(rows))))


def parts_sent(proxy: Proxy) -> list[str]:
    """The parts that went over the wire, by the chunk range of each."""
    return [request.headers["mex-chunk-range"] for request in proxy.requests if "mex-chunk-range" in request.headers]


@pytest.mark.parametrize("times", [1, TRIES])
def test_a_last_part_whose_answer_is_lost_is_delivered_once(
    broken: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, times: int
) -> None:
    in_parts(broken, monkeypatch)
    with monkeypatch.context() as patch:
        whole = broken.client.send_chunk

        def send_chunk(message_id: str, number: int, parts: int, part: Part) -> None:
            if number == parts:
                proxy.script[:] = [LOSE_ANSWER] * times
            whole(message_id, number, parts, part)

        patch.setattr(broken.client, "send_chunk", send_chunk)
        outcome = export(broken, proxy=proxy)
    if outcome.status == "pending":
        outcome = next_hour(broken, proxy)
    assert outcome.status == "accepted"
    assert delivered(broken) == [[uuid_of(n) for n in range(200)]]


def test_a_message_of_many_parts_goes_on_at_the_part_where_the_time_ran_out(
    broken: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts(broken, monkeypatch, rows=200)
    for _ in range(80):
        # Each run has time for one step: it makes a part, or sends one.
        use_case = broken.export_use_case(seconds_left=lambda: 1.0)
        resume_only = broken.ledger.get("hpv", 1).status is not Status.OPEN
        [outcome] = use_case.run(ExportRequest(resume_only=resume_only)).exports
        if outcome.status == "accepted":
            break
    parts = broken.ledger.get("hpv", 1).parts
    assert parts >= 10
    assert parts_sent(proxy) == [f"{number}:{parts}" for number in range(1, parts + 1)]
    assert delivered(broken) == [[uuid_of(n) for n in range(200)]]


@pytest.mark.parametrize("dies_after", ["a part in the middle", "the last part"])
def test_parts_that_were_sent_but_not_noted_do_no_harm(
    broken: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, dies_after: str
) -> None:
    in_parts(broken, monkeypatch, rows=200)
    whole = broken.client.send_chunk

    def send_chunk(message_id: str, number: int, parts: int, part: Part) -> None:
        whole(message_id, number, parts, part)
        if number == (parts if dies_after == "the last part" else parts // 2 - 1):
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(broken.client, "send_chunk", send_chunk)
        with pytest.raises(KeyboardInterrupt):
            broken.export()
    export = broken.ledger.get("hpv", 1)
    assert export.attempts[-1].parts_sent < len(set(parts_sent(proxy))) - 1, "more was sent than the ledger knows"
    assert broken.export(resume_only=True).exports[0].status == "accepted"
    assert delivered(broken) == [[uuid_of(n) for n in range(200)]]


def test_an_unfinished_message_that_mesh_has_dropped_is_sent_anew_the_next_night(
    broken: World, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_parts(broken, monkeypatch)
    assert export(broken, FORWARD, answer(404), proxy=proxy).status == "failed"
    broken.clock.forward(days=1)
    assert export(broken, proxy=proxy).status == "accepted"
    assert delivered(broken) == [[uuid_of(n) for n in range(200)]]


def test_an_attempt_that_mesh_knows_several_times_waits_for_a_person(
    broken: World, proxy: Proxy, capfd: pytest.CaptureFixture[str]
) -> None:
    broken.upload(upload_of(row(1)))
    export(broken, LOSE_REQUEST, proxy=proxy)
    for _ in range(2):
        part = Part(open=lambda: io.BytesIO(b"x"), size=1)
        broken.client.send("X26ABC2", "other", part, local_id="hpv-1-1")
    outcome = next_hour(broken, proxy)
    assert (outcome.status, outcome.error_code) == ("unclear", "not-unique")
    assert "hpv-1-1" in outcome.error_description
    assert '"ExportsUnclear":[1.0]' in capfd.readouterr().out
    broken.clock.forward(days=1)
    assert export(broken, proxy=proxy).status == "unclear"
    assert delivered(broken) == []
    # A person has looked, and has it sent again: under another name and another local id.
    assert broken.resend("hpv-1").local_id == "hpv-1-2"
    assert export(broken, proxy=proxy, resume_only=True).status == "accepted"
    assert delivered(broken) == [[uuid_of(1)]]


@pytest.mark.parametrize("code", ["02", "06", "07", "08", "11", "12", "14", "16", "17"])
def test_each_refusal_is_kept_with_its_code_and_tried_again_the_next_night(
    broken: World, proxy: Proxy, code: str
) -> None:
    broken.upload(upload_of(row(1)))
    body = json.dumps({"message_id": None, "detail": [{"event": "SEND", "code": code, "msg": "No, thank you"}]})
    outcome = export(broken, answer(417, body.encode(), Content_Type="application/json"), proxy=proxy)
    assert (outcome.status, outcome.error_code, outcome.error_description) == ("failed", code, "No, thank you")
    broken.clock.forward(days=1)
    assert export(broken, proxy=proxy).status == "accepted"
    assert delivered(broken) == [[uuid_of(1)]]


def test_a_mailbox_that_is_locked_out_loses_no_attempt(broken: World, proxy: Proxy) -> None:
    broken.upload(upload_of(row(1)))
    for _ in range(7):
        outcome = export(broken, answer(403), proxy=proxy)
        assert (outcome.status, outcome.error_code) == ("pending", "unauthorised")
        assert "password" in outcome.error_description
    assert export(broken, proxy=proxy, resume_only=True).status == "accepted"
    assert broken.attempt().number == 1
    assert delivered(broken) == [[uuid_of(1)]]


def test_a_night_without_mesh_is_made_up_for_when_it_is_back(broken: World, proxy: Proxy, sandbox: Sandbox) -> None:
    broken.upload(upload_of(row(1)))
    with sandbox.client(base_url="https://localhost:1", pauses=(0.0, 0.0)) as nobody:
        for _ in range(3):
            use_case = broken.export_use_case(connect=lambda: nobody)
            [outcome] = use_case.run(ExportRequest()).exports
            assert (outcome.status, outcome.error_code) == ("pending", "unavailable")
            broken.clock.forward(hours=1)
    broken.upload(upload_of(row(2)), name="tomorrow.csv")
    broken.next_night()
    assert delivered(broken) == [[uuid_of(1)], [uuid_of(2)]]
