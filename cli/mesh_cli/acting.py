"""What a person does by a command is noted, before it is done and when it has ended: who, when, what, about what, why.

The notes are objects in the bucket (``audit/``) and events on the stack's bus. A command that dies in between leaves
the note that it began, without an outcome.
"""

from __future__ import annotations

import re
import uuid
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError

from mesh_cli.functions import FunctionFailed, NoAnswer
from mesh_cli.options import UNKNOWN, Json, Since, deployment
from mesh_cli.output import Table, data, print_json, talk
from nhs_mesh import SendOutcomeUnknown
from vaccinations.aws.bus import tell_of_act
from vaccinations.model.export import Asked
from vaccinations.results import PersonActed, document

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mesh_cli.deployment import Deployment

__all__ = ["NotYet", "Reason", "Why", "acting", "add_to"]

PANEL = "Setup"
#: S3 keeps 2 KB of what is said of an object, and a character may take 12 bytes of it.
LONGEST_REASON = 150
#: Ten digits, as NHS numbers are written; and ten with anything between them but letters.
_NHS_NUMBER = re.compile(r"(?<!\d)\d{3}[ -]?\d{3}[ -]?\d{4}(?!\d)")
_TEN_DIGITS = re.compile(r"(?<!\d)(?:\d[^\w\n]*){9}\d(?!\d)")


def _checked(reason: str | None) -> str | None:
    """Refuse a reason that is none, or may name a person: it is in logs."""
    if reason is None:
        return None
    if not reason.strip() or len(reason) > LONGEST_REASON or not reason.isprintable():
        raise typer.BadParameter(f"say why in one line of at most {LONGEST_REASON} characters")
    if _NHS_NUMBER.search(reason) or any(map(_is_nhs_number, _TEN_DIGITS.findall(reason))):
        raise typer.BadParameter("this looks like an NHS number; give a reason without personal data")
    return reason.strip()


def _is_nhs_number(text: str) -> bool:
    """Tell whether the last of ten digits is the check digit of the others (modulus 11)."""
    digits = [int(digit) for digit in text if digit.isdecimal()]
    return sum(weight * digit for weight, digit in zip(range(10, 0, -1), digits, strict=True)) % 11 == 0


_HELP = "Why. It is kept with what you do, and in logs: no personal data."
#: Why something is done that no schedule does.
Reason = Annotated[str, typer.Option("--reason", help=_HELP, metavar="TEXT", callback=_checked)]
#: Why something is done now that a schedule does anyway.
Why = Annotated[str | None, typer.Option("--reason", help=_HELP, metavar="TEXT", callback=_checked)]


class NotYet(typer.Exit):
    """Ends a command that has asked for something in the queue, and has not waited until it was done."""


@contextmanager
def acting(works_on: Deployment, what: str, about: str = "", reason: str | None = "") -> Iterator[Asked]:
    """Note what a person is about to do, and how it ended; give who and why, for those who do it.

    Parameters
    ----------
    what
        The command.
    about
        What it is about: identifiers, and no names of files, which may be personal.
    """
    now = datetime.now(UTC)
    act = PersonActed(
        act_id=f"{now:%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}",
        at=now.isoformat(timespec="milliseconds"),
        by=works_on.clients.identity.get_caller_identity()["Arn"],
        what=what,
        about=about,
        reason=reason or "",
    )
    _note(works_on, act)  # where this fails, nothing is done
    try:
        yield Asked(act.by, act.reason)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and not getattr(error, "__notes__", []):
            error.add_note("It may have been done all the same: look before you ask again.")
        _end(works_on, replace(act, outcome=_outcome(error)))
        raise
    _end(works_on, replace(act, outcome="done"))


def _end(works_on: Deployment, act: PersonActed) -> None:
    """Note how an act ended. What was done is done, whether or not that can be noted."""
    try:
        _note(works_on, act)
    except (BotoCoreError, ClientError) as error:
        talk.print(f"How this ended could not be noted for mesh audit: {error}", markup=False, soft_wrap=True)


def _note(works_on: Deployment, act: PersonActed) -> None:
    works_on.wiring.bucket().put_act(act)
    if bus := works_on.settings.event_bus:
        tell_of_act(works_on.clients.events, bus, act)


def _outcome(error: BaseException) -> Any:
    code = error.exit_code if isinstance(error, typer.Exit) else error.code if isinstance(error, FunctionFailed) else 1
    unknown = isinstance(error, NotYet | NoAnswer | SendOutcomeUnknown | KeyboardInterrupt) or code == UNKNOWN
    return "not known" if unknown else "failed" if code else "done"


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("audit", rich_help_panel=PANEL)(audit)


def audit(
    context: typer.Context,
    since: Since = None,
    limit: Annotated[int, typer.Option(help="The last so many.", min=1)] = 50,
    as_json: Json = False,
) -> None:
    """List what people did by commands, newest first: who, when, what, about what, why, and how it ended.

    For example: mesh audit --since 2026-09-01
    """
    bucket = deployment(context).wiring.bucket()
    found = list(bucket.acts((since or datetime(2000, 1, 1)).replace(tzinfo=UTC), limit))  # noqa: DTZ001 - it is UTC
    if as_json:
        print_json([document(act) for act in found])
    elif found:
        columns = ("at", "by", "what", "about", "reason", "outcome")
        rows = [[asdict(act)[column] for column in columns] for act in found]
        data.print(
            Table(
                "What people did",
                ["when", "who", "what", "about", "why", "outcome"],
                rows,
                prose=["why"],
                rank=["outcome"],
            )
        )
    else:
        talk.print("Nobody has done anything by a command.")
