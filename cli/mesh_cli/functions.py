"""How a command has a function of the stack do its work, on AWS and on this machine alike, and tells where that failed.

So the mesh_jobs flag, leases, logs and metrics are the function's, and whoever runs the command needs the right to
invoke it, and no key.
"""

from __future__ import annotations

import base64
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import typer
from botocore.exceptions import ClientError, ConnectionClosedError, ReadTimeoutError
from pydantic import TypeAdapter

from mesh_cli.options import FAILED, REFUSED, UNKNOWN, WRONG_USE, goes_on
from mesh_cli.output import print_json, talk

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mesh_cli.deployment import Deployment
    from vaccinations.model.export import Asked

__all__ = ["Answer", "FunctionFailed", "NoAnswer", "have_done", "invoke"]

#: The exit code for what a function raised; 1 for everything else.
_CODES = {
    **dict.fromkeys(("Refused", "Unauthorised", "NotFound", "Expired"), REFUSED),
    **dict.fromkeys(
        ("SecretIncomplete", "SettingsError", "ConfigurationError", "TlsError", "CertificateExpired", "InvalidEvent"),
        WRONG_USE,
    ),
    "SendOutcomeUnknown": UNKNOWN,
}
#: Where it is seen what a function has done.
_SHOWN = {
    "validate": "mesh secret check",
    "export": "mesh exports",
    "track": "mesh exports",
    "collect": "mesh exports",
    "reconcile": "mesh uploads",
}
#: So much of a function's own words is shown.
_LENGTH = 300


class FunctionFailed(Exception):
    """A function failed; the message says how, and names the request id by which its log is found.

    Attributes
    ----------
    code
        The exit code.
    log
        The end of its log, where it was asked for.
    """

    def __init__(self, job: str, request_id: str, answer: Mapping[str, Any], log: str = "") -> None:
        kind, said = answer.get("errorType", ""), str(answer.get("errorMessage", "")).strip().partition("\n")[0]
        super().__init__(f"{job.capitalize()} failed: {kind}: {said[:_LENGTH]} (request id {request_id})")
        self.code = _CODES.get(kind, FAILED)
        self.log = log


class NoAnswer(Exception):
    """It is not known whether a function has run, or still runs: no answer has come."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a function answered.

    Attributes
    ----------
    document
        Its answer.
    log
        The end of its log, where it was asked for.
    """

    document: Any
    log: str


def invoke(works_on: Deployment, job: str, event: Any, *, log: bool = False) -> Answer:
    """Invoke a function once and wait for its answer.

    Parameters
    ----------
    job
        A function of the stack: ``export``.
    log
        Whether the end of its log is wanted (https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html, 4 KB).

    Raises
    ------
    FunctionFailed
        It raised, or ran out of time or memory.
    NoAnswer
        The connection broke, or AWS failed, while it may have run. It is not invoked again.
    botocore.exceptions.ClientError
        It was not invoked: it is not there, may not be, or too many run already.
    """
    try:
        answer = works_on.clients.functions.invoke(
            FunctionName=works_on.functions[job], Payload=json.dumps(event).encode(), LogType="Tail" if log else "None"
        )
        text = answer["Payload"].read()
    except (ReadTimeoutError, ConnectionClosedError) as error:
        raise _no_answer(job, type(error).__name__) from None
    except ClientError as error:
        if error.response["ResponseMetadata"].get("HTTPStatusCode", 0) >= 500:
            raise _no_answer(job, error.response["Error"]["Code"]) from None
        raise
    document = json.loads(text)
    tail = base64.b64decode(answer.get("LogResult", "")).decode(errors="replace")
    if answer.get("FunctionError"):
        raise FunctionFailed(job, answer["ResponseMetadata"]["RequestId"], document, tail)
    return Answer(document, tail)


def _no_answer(job: str, why: str) -> NoAnswer:
    return NoAnswer(f"no answer has come from {job.capitalize()} ({why}): it may have done its work, or still be at it")


def have_done[T](
    works_on: Deployment,
    job: str,
    answers: type[T],
    event: Mapping[str, Any] | None = None,
    asked: Asked | None = None,
    *,
    as_json: bool,
) -> T:
    """Invoke a function; print its answer where that is wanted as JSON, and return it as the use case gave it.

    Parameters
    ----------
    answers
        The type of its answer: `vaccinations.results.ExportRun`.
    asked
        Who has it do so, and why, for its log and what it writes.

    Raises
    ------
    typer.Exit
        With 1: it did nothing, since mesh_jobs is off.
    """
    with (
        talk.status(f"{job.capitalize()} is at work"),
        goes_on(f"{job.capitalize()} goes on without you. See: {_SHOWN[job]}"),
    ):
        told = {"asked": asdict(asked)} if asked else {}
        document = invoke(works_on, job, {**(event or {}), **told}).document
    if as_json:
        print_json(document)
    if document.get("status") == "skipped":
        talk.print(
            f"{job.capitalize()} did nothing, for mesh_jobs is off. Switch it on with: mesh jobs enable --reason …"
        )
        raise typer.Exit(FAILED)
    return TypeAdapter(answers).validate_python(document)
