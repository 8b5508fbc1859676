"""The ``mesh`` command: what operators and developers do by hand, the rake tasks' successor.

Exit codes: 0 done; 1 failed; 2 wrong use; 3 refused by MESH; 4 outcome of a send unknown.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import BotoCoreError, ClientError
from rich.markup import escape

from mesh_cli import acting, exports, intake, local, mailbox, refused, setup
from mesh_cli.deployment import NoDeployment
from mesh_cli.functions import FunctionFailed, NoAnswer
from mesh_cli.options import FAILED, REFUSED, UNKNOWN, WRONG_USE
from mesh_cli.output import data, talk
from nhs_mesh import (
    ConfigurationError,
    Expired,
    MeshError,
    NotFound,
    Refused,
    SendOutcomeUnknown,
    Unauthorised,
    __version__,
)
from vaccinations.aws.parameters import SecretIncomplete
from vaccinations.settings import SettingsError
from vaccinations.telemetry import silence

__all__ = ["app", "main"]

app = typer.Typer(
    name="mesh",
    help="Vaccination records to DPS over MESH: the mailbox, uploads, exports, and the stack on this machine.",
    epilog="Commands work on --stack NAME, else on the stack that MESH_STACK names, else on the one that "
    "`mesh local up` has running, else on the one of samconfig.toml, and say on which. Results go to stdout, "
    "everything else to stderr. Exit codes: 0 done, 1 failed, 2 wrong use, 3 refused by MESH, 4 outcome unknown.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(asked: bool) -> None:
    if asked:
        data.print(f"mesh {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    stack: Annotated[
        str | None,
        typer.Option(help="CloudFormation stack to work on.", envvar="MESH_STACK", metavar="NAME"),
    ] = None,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Take the options that every command has."""
    context.obj = stack


for module in (mailbox, exports, refused, intake, setup, acting, local):
    module.add_to(app)


def main() -> None:
    """Run the command and turn what goes wrong into one line and an exit code."""
    silence()
    try:
        app()
    except (NoDeployment, SettingsError, SecretIncomplete, ConfigurationError) as error:
        _end(error, WRONG_USE)
    except FunctionFailed as error:
        _end(error, error.code, "Its log says more: the saved query errors, or this request id in CloudWatch Logs.")
    except NoAnswer as error:
        _end(error, UNKNOWN, "See what it has done before you ask again: mesh exports, mesh uploads.")
    except SendOutcomeUnknown as error:
        _end(error, UNKNOWN, f"Before sending it again, ask MESH: mesh track-message {error.local_id} --local")
    except Unauthorised as error:
        _end(error, REFUSED, "Check the mailbox id, its password and the shared key, and this machine's clock.")
    except (Refused, NotFound, Expired) as error:
        _end(error, REFUSED)
    except GetParameterError as error:
        _end(error, FAILED, "The mailbox itself is opened with the stack's secret: may these credentials read it?")
    except (BotoCoreError, ClientError) as error:
        _end(error, FAILED, "Is the stack up, and are these credentials for it?")
    except (MeshError, OSError) as error:
        _end(error, FAILED)


def _end(error: BaseException, code: int, *hints: str) -> None:
    # Not broken into lines: an id is copied from it.
    talk.print(f"[bold red]error:[/] {escape(str(error) or type(error).__name__)}", soft_wrap=True)
    for hint in hints:
        talk.print(hint, markup=False, soft_wrap=True)
    sys.exit(code)
