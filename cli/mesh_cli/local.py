"""Commands about the stack on this machine."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import typer

from mesh_cli.demo import Demo
from mesh_cli.options import Json
from mesh_cli.output import print_json, table, talk

if TYPE_CHECKING:
    from local.stack import LocalCloud

PANEL = "Local"
local = typer.Typer(help="The whole stack on this machine.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.add_typer(local, name="local", rich_help_panel=PANEL)
    app.command("demo", rich_help_panel=PANEL)(demo)


@local.command("up")
def up(as_json: Json = False) -> None:
    """Bring the stack up and keep it up until Ctrl-C; the other commands then work on it."""
    with _cloud(publish=True) as cloud:
        where = {"AWS": cloud.endpoint_url, "MESH": cloud.sandbox.base_url, **cloud.outputs}
        if as_json:
            print_json(where)
        else:
            talk.print(table("The stack on this machine", ["what", "where"], list(where.items())))
            talk.print("Other terminals find it through .local/environment: try `mesh validate-mailbox`.")
            talk.print("Ctrl-C takes it down.")
        done = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: done.set())
        done.wait()
    talk.print("Taken down; nothing is left running.")


def demo(as_json: Json = False) -> None:
    """Tell the nightly story on a stack of its own: upload, export over MESH, acknowledgement, correction."""
    with _cloud(publish=False) as cloud:
        os.environ |= cloud.environment_of_commands()
        held = Demo(cloud, as_json=as_json).tell()
    if not held:
        raise typer.Exit(1)


def _cloud(*, publish: bool) -> LocalCloud:
    from local.stack import LocalCloud

    with talk.status("Bringing up the MESH sandbox, AWS and the functions on this machine…"):
        return LocalCloud(publish=publish)
