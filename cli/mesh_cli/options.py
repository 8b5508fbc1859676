"""What several commands share: options, exit codes, the deployment to work on."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from mesh_cli.deployment import find_deployment
from vaccinations.settings import Settings

__all__ = ["FAILED", "REFUSED", "UNKNOWN", "WRONG_USE", "Json", "deployment"]

#: Exit codes.
FAILED, WRONG_USE, REFUSED, UNKNOWN = 1, 2, 3, 4

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of a table.")]


def deployment() -> Settings:
    """Return the settings of the deployment that the command line or the environment names."""
    return find_deployment(os.environ.get("MESH_STACK"))
