"""What several commands share: options, exit codes, the deployment to work on."""

from __future__ import annotations

import os
from contextlib import contextmanager
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from mesh_cli.deployment import Deployment, find_deployment
from mesh_cli.output import talk

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "EXIT_CODES",
    "FAILED",
    "INTERRUPTED",
    "REFUSED",
    "UNKNOWN",
    "WRONG_USE",
    "Json",
    "Limit",
    "Since",
    "View",
    "Watch",
    "Wide",
    "deployment",
    "goes_on",
]

#: Exit codes; `EXIT_CODES` says what they mean, and ``mesh --help`` shows it.
FAILED, WRONG_USE, REFUSED, UNKNOWN, INTERRUPTED = 1, 2, 3, 4, 130
EXIT_CODES = {
    0: "done",
    FAILED: "failed, or not all was done",
    WRONG_USE: "wrong use, or not set up: no stack, region or credentials, an incomplete secret",
    REFUSED: "refused by MESH",
    UNKNOWN: "outcome unknown: look before you ask again",
    INTERRUPTED: "interrupted",
}

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


Since = Annotated[
    datetime | None,
    typer.Option(
        "--since",
        help="Only what came since then (UTC): 2026-09-01 or 2026-09-01T19:00:00.",
        metavar="TIME",
        formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"],
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", help="The first so many.", min=1, metavar="N")]


class View(StrEnum):
    """How much of a table is shown."""

    WIDE = "wide"


Wide = Annotated[
    View | None, typer.Option("--output", "-o", help="All columns, however wide the terminal is.", show_default=False)
]
Watch = Annotated[bool, typer.Option("--watch", help="Show it anew every 5 s, until Ctrl-C.")]


@contextmanager
def goes_on(what: str) -> Iterator[None]:
    """Have a person who interrupts the command told what goes on without them.

    Parameters
    ----------
    what
        A sentence, with the command that shows what has become of it.
    """
    try:
        yield
    except KeyboardInterrupt as error:
        error.add_note(what)
        raise


def deployment(context: typer.Context) -> Deployment:
    """Find the deployment that the command line or the environment names, and say which it is before it is reached.

    Parameters
    ----------
    context
        Of the command; its object is what ``--stack`` says.
    """
    stack: str | None = context.obj

    def tell(where: str) -> None:
        talk.print(f"Working on {where}", style="dim", markup=False, soft_wrap=True)

    return find_deployment(stack, os.environ, tell)
