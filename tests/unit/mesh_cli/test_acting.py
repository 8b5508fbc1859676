"""Promises about the notes of what people do: there before it is done, with the outcome once there is one."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest
import typer
from botocore.exceptions import EndpointConnectionError

from mesh_cli.acting import NotYet, acting
from mesh_cli.functions import FunctionFailed, NoAnswer
from vaccinations.model.export import Asked

if TYPE_CHECKING:
    from mesh_cli.deployment import Deployment
    from vaccinations.results import PersonActed

ME = "arn:aws:sts::123456789012:assumed-role/operator/jo"


class Stack:
    """Keeps the notes; nobody listens on its bus, which does not answer either."""

    def __init__(self) -> None:
        self.notes: list[PersonActed] = []
        bucket = SimpleNamespace(put_act=self.notes.append)
        identity = SimpleNamespace(get_caller_identity=lambda: {"Arn": ME})
        self.wiring = SimpleNamespace(bucket=lambda: bucket)
        self.clients = SimpleNamespace(identity=identity, events=SimpleNamespace(put_events=self._unheard))
        self.settings = SimpleNamespace(event_bus="default")

    @staticmethod
    def _unheard(**_: object) -> None:
        raise EndpointConnectionError(endpoint_url="https://events")

    @property
    def deployment(self) -> Deployment:
        return cast("Deployment", self)


def test_an_act_is_noted_before_it_is_done_and_a_command_that_dies_in_it_leaves_that_note() -> None:
    stack = Stack()
    with acting(stack.deployment, "export resend", "hpv-17", "it is well again") as asked:
        assert asked == Asked(ME, "it is well again")
        [note] = stack.notes
        told = (note.by, note.what, note.about, note.reason, note.outcome)
        assert told == (ME, "export resend", "hpv-17", "it is well again", "")
    _, ended = stack.notes
    assert (ended.act_id, ended.at, ended.outcome) == (note.act_id, note.at, "done")


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (typer.Exit(0), "done"),
        (typer.Exit(1), "failed"),
        (typer.Exit(3), "failed"),
        (typer.Exit(4), "not known"),
        (NotYet(0), "not known"),
        (NotYet(1), "not known"),
        (NoAnswer("no answer"), "not known"),
        (KeyboardInterrupt(), "not known"),
        (FunctionFailed("export", "1", {"errorType": "Refused"}), "failed"),
        (FunctionFailed("export", "1", {"errorType": "SendOutcomeUnknown"}), "not known"),
        (RuntimeError("anything else"), "failed"),
    ],
)
def test_how_an_act_ended_is_noted(error: BaseException, outcome: str) -> None:
    stack = Stack()
    with pytest.raises(type(error)), acting(stack.deployment, "track"):
        raise error
    assert [note.outcome for note in stack.notes] == ["", outcome]


def test_what_was_done_stays_done_where_only_its_outcome_cannot_be_noted(capsys: pytest.CaptureFixture[str]) -> None:
    stack = Stack()

    def unreachable(_: PersonActed) -> None:
        raise EndpointConnectionError(endpoint_url="https://s3")

    with acting(stack.deployment, "jobs disable"):
        stack.wiring.bucket().put_act = unreachable
    with pytest.raises(RuntimeError, match="the act itself"), acting(Stack().deployment, "jobs disable"):
        raise RuntimeError("the act itself")
    assert "could not be noted for mesh audit" in capsys.readouterr().err
    assert [note.outcome for note in stack.notes] == [""]
