"""Handlers are scripts, which import-linter does not see: their imports are looked at here."""

from __future__ import annotations

import ast
import importlib.util
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from vaccinations.results import CollectRun, RejectedUpload, Uploader

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


# -- Ingest: what is asked of it, and what follows a failure


class Ingesting:
    """Stands for the use case and the queue: notes what is asked of them, and fails for a key that is broken."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def ingest(self, *upload: Any) -> Any:
        if not upload:
            return self
        self.asked.append(("ingest", *upload))
        if "broken" in upload[0]:
            raise RuntimeError("broken")
        return RejectedUpload(
            batch_id="b", upload=upload[0], version=upload[1], reason="why", fix="how", completed_at="now"
        )

    def retry(self, *request: str) -> Any:
        self.asked.append(("retry", *request))
        return self.ingest("retried", "")

    def abandon(self, *request: str) -> Any:
        self.asked.append(("abandon", *request))
        return self.ingest("abandoned", "")

    def queue(self) -> Ingesting:
        return self

    def offer_again_soon(self, receipt_handle: str) -> None:
        self.asked.append(("offer again soon", receipt_handle))


def handler_of(function: str) -> ModuleType:
    path = next(handler for handler in HANDLERS if handler.parent.name == function)
    spec = importlib.util.spec_from_file_location(f"{function}_handler", path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def ingesting(monkeypatch: pytest.MonkeyPatch) -> Ingesting:
    module = handler_of("ingest")
    stand_in = Ingesting()
    monkeypatch.setattr(module, "wire", lambda _: stand_in)
    monkeypatch.setattr(stand_in, "handle", lambda event: module.lambda_handler(event, CONTEXT), raising=False)
    return stand_in


#: Who uploads here.
SOMEBODY = Uploader(requester="123456789012", source_address="192.0.2.7")
CONTEXT = SimpleNamespace(
    function_name="ingest", memory_limit_in_mb=512, invoked_function_arn="arn", aws_request_id="request"
)


def message(body: Any, handle: str = "handle") -> dict[str, Any]:
    return {"body": json.dumps(body), "receiptHandle": handle}


def created(key: str) -> dict[str, Any]:
    who = {"requester": "123456789012", "source-ip-address": "192.0.2.7"}
    return {"detail-type": "Object Created", "detail": {"object": {"key": key, "version-id": "v1"}, **who}}


def test_an_upload_that_fails_is_offered_again_soon_and_the_failure_is_lambdas(ingesting: Any) -> None:
    with pytest.raises(RuntimeError, match="broken"):
        ingesting.handle({"Records": [message(created("incoming/R1L/broken.csv"), "this one")]})
    assert ingesting.asked == [("ingest", "incoming/R1L/broken.csv", "v1", SOMEBODY), ("offer again soon", "this one")]


def test_an_upload_that_is_ingested_is_not_offered_again(ingesting: Any) -> None:
    answer = ingesting.handle({"Records": [message(created("incoming/R1L/monday.csv"))]})
    assert [upload["upload"] for upload in answer["uploads"]] == ["incoming/R1L/monday.csv"]
    assert ingesting.asked == [("ingest", "incoming/R1L/monday.csv", "v1", SOMEBODY)]


def test_an_event_that_does_not_tell_who_uploaded_is_ingested_all_the_same(ingesting: Any) -> None:
    event = created("incoming/R1L/monday.csv")
    del event["detail"]["requester"]
    ingesting.handle(event)
    assert ingesting.asked == [("ingest", "incoming/R1L/monday.csv", "v1", None)]


@pytest.mark.parametrize("what", ["retry", "abandon"])
@pytest.mark.parametrize("through_the_queue", [True, False])
def test_what_a_person_asks_for_about_a_parked_upload_is_done(
    ingesting: Any, what: str, through_the_queue: bool
) -> None:
    request = {what: {"batch_id": "b1", "reason": "it is well again", "by": "me"}}
    ingesting.handle({"Records": [message(request)]} if through_the_queue else request)
    assert ingesting.asked[0] == (what, "b1", "it is well again", "me")


# -- Collect: hears again while the jobs are off


def test_answers_are_heard_again_while_the_jobs_are_off_and_nothing_is_collected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = handler_of("collect")
    heard = SimpleNamespace(again=lambda: CollectRun(status="ok", messages=(), left=7))
    wiring = SimpleNamespace(collect=lambda _: heard, jobs_enabled=lambda: False)
    monkeypatch.setattr(module, "wire", lambda _: wiring)
    monkeypatch.setattr("vaccinations.wiring.wire", lambda _: wiring)
    context = SimpleNamespace(**vars(CONTEXT), get_remaining_time_in_millis=lambda: 1)
    assert module.lambda_handler({"again": True}, context)["left"] == 7
    assert module.lambda_handler({}, context) == {"status": "skipped"}
