"""DPS's part, played on this machine: the command ``mesh local dps``, and how its work is shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mesh_cli.deployment import LOCAL_ENVIRONMENT, NoDeployment, find_file, local_deployment, local_environment
from mesh_cli.options import Json
from mesh_cli.output import Table, data, print_json, talk

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.dps import VaccinationFile

__all__ = ["play_dps"]


def play_dps(
    refuse: Annotated[
        list[str] | None,
        typer.Option("--refuse", help="Refuse this record, for that reason; may be repeated.", metavar="UUID=TEXT"),
    ] = None,
    refuse_files: Annotated[
        str | None, typer.Option("--refuse-files", help="Refuse each file as a whole, for that reason.", metavar="TEXT")
    ] = None,
    clear: Annotated[
        str | None,
        typer.Option("--clear", help="First clear the failed file that holds back those of a type.", metavar="TYPE"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Play DPS on the stack of this machine: pick up the files that have arrived, process them, and answer each.

    Names and rows are judged by DPS's rules; what was processed is remembered while the stack is up. A file that fails
    as a whole holds back later ones of its type (such as HPV) until it is cleared. The answers, InfAck and BusAck
    files, arrive in the sender's inbox.

    For example: mesh local dps --clear HPV
    """
    from local.dps import Dps
    from local.sandbox import Sandbox
    from local.stack import RECEIVER

    reasons = dict(_reason(text) for text in refuse or ())
    environment = find_file(LOCAL_ENVIRONMENT)
    if not environment or not (variables := local_environment()):
        raise NoDeployment("DPS plays on the stack of this machine; start it with: mesh local up")
    receiver = {"MESH_MAILBOX": RECEIVER, "MESH_PASSWORD": Sandbox.password}
    works_on = local_deployment({**variables, **receiver})
    dps = Dps(
        works_on.wiring.mesh(),
        refuse=_because(reasons),
        refuse_file=lambda _: refuse_files,
    )
    on_file = environment.with_name("dps.json")
    dps.load(on_file)
    files = dps.clear(clear.upper()) if clear else []
    for file in files:
        dps.answer(file)
    files += dps.work()
    dps.save(on_file)
    if as_json:
        print_json([_facts(file) for file in files])
    elif files:
        _show_files(files)
    else:
        talk.print("Nothing has arrived for DPS.")


def _reason(text: str) -> tuple[str, str]:
    record, _, why = text.partition("=")
    if not (record and why):
        raise typer.BadParameter(f"{text!r} is not of the form UUID=TEXT", param_hint="--refuse")
    return record.lower(), why


def _because(reasons: dict[str, str]) -> Callable[[dict[str, str]], str | None]:
    """Make what tells DPS why a row is refused, from the reasons by record."""
    return lambda row: reasons.get(row["UNIQUE_ID"].lower())


def _facts(file: VaccinationFile) -> dict[str, Any]:
    """Tell what became of a file."""
    return {
        "filename": file.name,
        "message_id": file.message_id,
        "status": str(file.status),
        "problem": file.problem or None,
        "processed": file.processed,
        "refused": [
            {"row": row.number, "record": row.row["UNIQUE_ID"], "outcome": row.refused} for row in file.refused
        ],
        "answers": [name for name, _ in file.answers()],
    }


def _show_files(files: list[VaccinationFile]) -> None:
    """Show what DPS processed and refused."""
    rows = [[file.name, file.status, file.processed, len(file.refused)] for file in files]
    data.print(Table("DPS has picked up", ["file", "status", "processed", "refused"], rows))
    refused = [[row.row["UNIQUE_ID"], row.refused] for file in files for row in file.refused]
    if refused:
        data.print(Table("and refused", ["record", "why"], refused))
    for file in files:
        if file.problem:
            talk.print(f"{file.name}: {file.problem}", markup=False)
    talk.print(f"{sum(len(list(file.answers())) for file in files)} answers sent.")
