"""The ``mesh`` command: what operators and developers do by hand, the rake tasks' successor.

No command ends in a traceback: `_Commands` turns whatever goes wrong into a line or two that say what to do, and an
exit code (`mesh_cli.options.EXIT_CODES`).
"""

from __future__ import annotations

import logging
import os
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from aws_lambda_powertools.utilities.parameters.exceptions import GetParameterError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as NoConnection
from rich.markup import escape
from typer.core import TyperGroup

from mesh_cli import acting, exports, intake, local, mailbox, refused, setup
from mesh_cli.deployment import NoDeployment
from mesh_cli.functions import FunctionFailed, NoAnswer
from mesh_cli.options import EXIT_CODES, FAILED, INTERRUPTED, REFUSED, UNKNOWN, WRONG_USE
from mesh_cli.output import data, talk
from nhs_mesh import (
    ConfigurationError,
    Expired,
    MeshError,
    NotFound,
    Refused,
    SendOutcomeUnknown,
    Unauthorised,
    Unavailable,
    __version__,
)
from vaccinations.aws.parameters import SecretIncomplete
from vaccinations.ports import LedgerConflict
from vaccinations.settings import SettingsError
from vaccinations.telemetry import silence

__all__ = ["app", "main"]

#: What AWS says where credentials are none, or not any more.
_NOT_LET_IN = {
    *("ExpiredToken", "ExpiredTokenException", "InvalidClientTokenId", "UnrecognizedClientException"),
    *("InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure", "RequestExpired"),
}
_MAY_NOT = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation"}
_OF_MAILBOX = "The mailbox itself is opened with the stack's secret: may these credentials read it?"
_SIGN_IN = "Sign in to AWS, for example with `aws sso login`, or name a profile with AWS_PROFILE; then ask again."


class _Commands(TyperGroup):
    """The commands, none of which ends in a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command; turn what goes wrong into a line or two, and an exit code."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            _say("interrupted", *getattr(error, "__notes__", ["Nothing goes on without you."]))
            code = INTERRUPTED
        except typer.Abort as error:
            talk.print()  # after the question
            _say("nothing was changed")
            code = INTERRUPTED if isinstance(error.__context__, KeyboardInterrupt) else FAILED
        except typer.Exit:
            raise
        except typer.TyperException as error:
            code = _tell_of_wrong_use(error)
        except Exception as error:  # noqa: BLE001 - that is what this is for
            code, *hints = _explain(error)
            if hints:
                _say(str(error) or type(error).__name__, *filter(None, hints))
            else:
                _tell_of_fault(error)
        raise typer.Exit(code)


#: What goes wrong, the exit code, and what to do. The first line that fits counts.
_ERRORS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], int, str], ...] = (
    ((NoDeployment, SettingsError, SecretIncomplete, ConfigurationError), WRONG_USE, ""),
    (NoAnswer, UNKNOWN, "See what it has done before you ask again: mesh exports, mesh uploads."),
    (Unauthorised, REFUSED, "Check the mailbox id, its password and the shared key, and this machine's clock."),
    ((Refused, NotFound, Expired), REFUSED, ""),
    (Unavailable, FAILED, "MESH is out of reach: check this machine's network, and ask again later."),
    (LedgerConflict, FAILED, "Others change the same export at this moment: ask again."),
    ((MeshError, OSError), FAILED, ""),
)


def _explain(error: Exception) -> tuple[int, str] | tuple[int]:
    """Tell the exit code and what to do; no word of that where nobody has thought of the error."""
    match error:
        case FunctionFailed():
            return error.code, "Its log says more: the saved query errors, or this request id in CloudWatch Logs."
        case SendOutcomeUnknown():
            return UNKNOWN, f"Before sending it again, ask MESH: mesh track-message {error.local_id} --local"
        case GetParameterError():
            cause = error.__context__
            return _of_aws(cause, _OF_MAILBOX) if isinstance(cause, BotoCoreError | ClientError) else (FAILED,)
        case BotoCoreError() | ClientError():
            return _of_aws(error, "These credentials may not do that. docs/operations.md says which role may do what.")
    return next(((code, hint) for kinds, code, hint in _ERRORS if isinstance(error, kinds)), (FAILED,))


def _of_aws(error: BotoCoreError | ClientError, where_it_may_not: str) -> tuple[int, str]:
    """Tell the exit code and what to do where AWS does not do what it was asked."""
    code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
    no_credentials = (NoCredentialsError, PartialCredentialsError, ProfileNotFound, SSOError, TokenRetrievalError)
    if isinstance(error, no_credentials) or code in _NOT_LET_IN:
        return WRONG_USE, _SIGN_IN
    if isinstance(error, HTTPClientError | NoConnection):
        return FAILED, "AWS is out of reach: check this machine's network and the region, and ask again."
    if code in _MAY_NOT:
        return FAILED, where_it_may_not
    return FAILED, "Is the stack up, and are these credentials for it?"


def _tell_of_wrong_use(error: Any) -> int:
    """Tell what of the command line is wrong, in a line: typer's box would break ids."""
    if type(error).__name__ == "NoArgsIsHelpError":
        raise error
    where = getattr(getattr(error, "ctx", None), "command_path", "mesh")
    _say(error.format_message(), f"See: {where} --help")
    code: int = error.exit_code
    return code


def _tell_of_fault(error: Exception) -> None:
    """Tell of a fault of the command itself, without its text, which may be personal."""
    if os.environ.get("MESH_TRACEBACK"):
        raise error
    place = traceback.extract_tb(error.__traceback__)[-1]
    _say(
        f"this is a fault of the command: {type(error).__name__} at {Path(place.filename).name}:{place.lineno}",
        "Report it with this line. MESH_TRACEBACK=1 shows where it came from; its text may be personal.",
    )


def _say(what: str, *hints: str) -> None:
    # Not broken into lines: an id is copied from it.
    talk.print(f"[bold red]error:[/] {escape(what)}", soft_wrap=True)
    for hint in hints:
        talk.print(hint, markup=False, soft_wrap=True)


app = typer.Typer(
    name="mesh",
    cls=_Commands,
    help="Vaccination records to DPS over MESH: the mailbox, uploads, exports, and the stack on this machine."
    "\n\nFor example: mesh status",
    epilog="Commands work on --stack NAME, else on the stack that MESH_STACK names, else on the one that "
    "`mesh local up` has running, else on the one of samconfig.toml, and say on which. Results go to stdout, "
    "everything else to stderr. On a narrow terminal a table leaves out columns or becomes cards, and breaks no id; "
    "in a pipe it has no width: a line for each row. A reader "
    "that leaves early, such as head, is no failure. Exit codes: "
    + "; ".join(f"{code} {meaning}" for code, meaning in EXIT_CODES.items())
    + ".",
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


class _Retries(logging.Handler):
    """Says that MESH is tried again, so that nobody waits in silence."""

    def emit(self, record: logging.LogRecord) -> None:
        talk.print(f"MESH: {record.getMessage()}", style="dim", markup=False, soft_wrap=True)


def main() -> None:
    """Run the command of the command line."""
    silence()
    logging.getLogger("nhs_mesh").addHandler(_Retries())
    app()
