"""Commands about the stack on this machine."""

from __future__ import annotations

import json
import signal
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from mesh_cli import functions
from mesh_cli.acting import Why, acting
from mesh_cli.demo import Demo
from mesh_cli.deployment import FUNCTIONS, local_deployment
from mesh_cli.options import Json, deployment, goes_on
from mesh_cli.output import Table, print_json, talk
from mesh_cli.page import StatusServer
from mesh_cli.receiver import play_dps

if TYPE_CHECKING:
    from local.stack import LocalCloud

PANEL = "Local"
local = typer.Typer(help="The whole stack on this machine.\n\nFor example: mesh local up", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    local.command("dps")(play_dps)
    app.add_typer(local, name="local", rich_help_panel=PANEL)
    app.command("demo", rich_help_panel=PANEL)(demo)
    app.command("invoke", rich_help_panel=PANEL)(invoke)


@local.command("up")
def up(
    containers: Annotated[
        bool, typer.Option("--containers", help="Let Docker's containers reach it, for `sam local invoke`.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Bring the stack up and keep it up until Ctrl-C; the other commands then work on it.

    A browser shows, at the address named page, what the dashboard shows on AWS, and the uploads.

    With --containers everything listens on the address of Docker's bridge in place of the loopback one, so that
    `sam local invoke ExportFunction -e events/export.json --env-vars .local/env.json` works on it, too.

    For example: mesh local up
    """
    done = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: done.set())
    with ExitStack() as undo:
        cloud = _cloud(undo, publish=True, containers=containers)
        bucket = local_deployment(cloud.environment_of_commands()).wiring.bucket()
        page = undo.enter_context(StatusServer(lambda: str(cloud.invoke("StatusFunction", {})), bucket))
        where = {"page": page.url, "AWS": cloud.endpoint_url, "MESH": cloud.sandbox.base_url, **cloud.outputs}
        if as_json:
            print_json(where)
            sys.stdout.flush()
        else:
            talk.print(Table("The stack on this machine", ["what", "where"], list(where.items())))
            talk.print("The functions are the sources: what you edit is there at the next invocation.")
            talk.print("Other terminals find it through .local/environment: try `mesh validate-mailbox`.")
            talk.print("Ctrl-C takes it down.")
        told = ""
        while not done.wait(1):
            if (changed := cloud.outdated()) != told:
                told = changed
                talk.print(f"{changed} has changed: Ctrl-C, make build and mesh local up bring it in.", soft_wrap=True)
    talk.print("Taken down; nothing is left running.")


def demo(context: typer.Context, as_json: Json = False) -> None:
    """Tell the nightly story on a stack of its own: upload, export over MESH, acknowledgement, correction.

    For example: mesh demo
    """
    with ExitStack() as undo:
        cloud = _cloud(undo)
        works_on = local_deployment(cloud.environment_of_commands())
        ok = Demo(cloud, works_on, context.find_root().command, as_json=as_json).tell()
    if not ok:
        raise typer.Exit(1)


def complete_functions(incomplete: str) -> list[str]:
    """Complete the name of a function."""
    return [job for job in FUNCTIONS if job.startswith(incomplete)]


def complete_events(context: typer.Context, incomplete: str) -> list[str]:
    """Complete an event of this project, those of the function that is named first."""
    function = str(context.params.get("function") or "").removesuffix("Function").lower()
    found = sorted(map(str, Path("events").glob("*.json")), key=lambda name: (f"events/{function}" not in name, name))
    return [name for name in found if name.startswith(incomplete)]


def invoke(
    context: typer.Context,
    function: Annotated[
        str,
        typer.Argument(
            metavar="FUNCTION",
            help="Its logical id, such as ExportFunction, or just: export.",
            autocompletion=complete_functions,
        ),
    ],
    event: Annotated[
        Path | None,
        typer.Option(
            "--event",
            "-e",
            exists=True,
            dir_okay=False,
            readable=True,
            help="JSON file.",
            metavar="EVENT",
            autocompletion=complete_events,
        ),
    ] = None,
    reason: Why = None,
    as_json: Annotated[bool, typer.Option("--json", help="The answer is JSON in any case.")] = True,  # noqa: ARG001
) -> None:
    """Invoke a function with an event, on AWS, or as its sources are on the stack of this machine.

    The end of the function's log goes to stderr, its answer, as JSON, to stdout.

    For example: mesh invoke export -e events/export.json
    """
    job = function.removesuffix("Function").lower()
    if job not in FUNCTIONS:
        raise typer.BadParameter(f"{function!r} is not one of: {', '.join(FUNCTIONS)}", param_hint="FUNCTION")
    given = _event(event)
    works_on = deployment(context)
    try:
        with acting(works_on, "invoke", job, reason), goes_on(f"{job.capitalize()} goes on without you."):
            answer = functions.invoke(works_on, job, given, log=True)
    except functions.FunctionFailed as error:
        talk.print(error.log, markup=False, end="", soft_wrap=True)
        raise
    talk.print(answer.log, markup=False, end="", soft_wrap=True)
    print_json(answer.document)


def _event(file: Path | None) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file else {}
    except ValueError:
        raise typer.BadParameter(f"{file} is not a JSON document", param_hint="--event") from None


def _cloud(undo: ExitStack, *, publish: bool = False, containers: bool = False) -> LocalCloud:
    from local.cloud import CloudError
    from local.stack import LOOPBACK, LocalCloud, docker_bridge

    try:
        with talk.status("Bringing up the MESH sandbox, AWS and the functions on this machine…"):
            host = docker_bridge() if containers else LOOPBACK
            return undo.enter_context(LocalCloud(publish=publish, host=host))
    except CloudError as error:
        talk.print(f"[bold red]error:[/] {escape(str(error))}")
        raise typer.Exit(1) from None
