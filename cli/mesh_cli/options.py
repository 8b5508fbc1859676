"""What several commands share: options, exit codes, the deployment to work on."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mesh_cli.deployment import Deployment, find_deployment
from mesh_cli.output import talk

__all__ = ["FAILED", "REFUSED", "UNKNOWN", "WRONG_USE", "Json", "deployment"]

#: Exit codes.
FAILED, WRONG_USE, REFUSED, UNKNOWN = 1, 2, 3, 4

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def deployment(context: typer.Context) -> Deployment:
    """Find the deployment that the command line or the environment names, and say which it is.

    Parameters
    ----------
    context
        Of the command; its object is what ``--stack`` says.
    """
    stack: str | None = context.obj
    found = find_deployment(stack, os.environ)
    talk.print(f"Working on {found.where}", style="dim", markup=False, soft_wrap=True)
    return found
