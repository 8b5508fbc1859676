"""Commands about the MESH mailbox itself."""

from __future__ import annotations

import shlex
import shutil
import uuid
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from mesh_cli.acting import Why, acting
from mesh_cli.functions import have_done
from mesh_cli.options import Json, deployment
from mesh_cli.output import Table, counted, data, fraction, print_json, raw, talk, transfer
from nhs_mesh import MeshError, Resume
from vaccinations.results import CollectRun, Validation

if TYPE_CHECKING:
    from collections.abc import Iterator

PANEL = "Mailbox"
MessageId = Annotated[str, typer.Argument(metavar="ID", help="Message id, as check-inbox lists it.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("validate-mailbox", rich_help_panel=PANEL)(validate_mailbox)
    app.command("check-inbox", rich_help_panel=PANEL)(check_inbox)
    app.command("get-message", rich_help_panel=PANEL)(get_message)
    app.command("ack-message", rich_help_panel=PANEL)(ack_message)
    app.command("collect", rich_help_panel=PANEL)(collect)
    app.command("send-file", rich_help_panel=PANEL)(send_file)
    app.command("track-message", rich_help_panel=PANEL)(track_message)
    app.command("lookup", rich_help_panel=PANEL)(lookup)


def validate_mailbox(context: typer.Context, reason: Why = None, as_json: Json = False) -> None:
    """Shake hands with MESH, so that it knows the mailbox is alive.

    For example: mesh validate-mailbox
    """
    works_on = deployment(context)
    with acting(works_on, "validate-mailbox", reason=reason) as asked:
        validation = have_done(works_on, "validate", Validation, asked=asked, as_json=as_json)
    if not as_json:
        days = validation.certificate_days_left
        data.print(f"Mailbox {validation.mailbox} validated; the certificate has {days} days left")


def check_inbox(
    context: typer.Context,
    as_json: Json = False,
    workflow: Annotated[str | None, typer.Option(help="Only messages of this workflow id.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(help="Stop after so many messages; 0 lists all.", min=0)] = 0,
) -> None:
    """List the messages that wait in the inbox.

    For example: mesh check-inbox --limit 10
    """
    client = deployment(context).wiring.mesh()
    messages = []
    for message_id in client.inbox(workflow_filter=workflow):
        messages.append(message_id)
        if limit and len(messages) == limit:
            break
    if as_json:
        print_json({"mailbox": client.mailbox, "messages": messages})
    elif messages:
        data.print(Table(f"Inbox of {client.mailbox}", ["message id"], [[message] for message in messages]))
        talk.print("Read one with: mesh get-message ID")
    else:
        talk.print(f"The inbox of {client.mailbox} is empty.")


def get_message(
    context: typer.Context,
    message_id: MessageId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the body to this file.", metavar="FILE")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the message's metadata as JSON, not its body.")
    ] = False,
) -> None:
    """Print a message's body of any size, decompressed; it stays in the inbox until it is acknowledged.

    For example: mesh get-message 20261123030618000000_ABCDEF -o answer.csv
    """
    with deployment(context).wiring.mesh().download(message_id) as message, ExitStack() as stack:
        if as_json:
            print_json(_metadata(message))
            if output is None:
                return
        target = stack.enter_context(_whole(output) if output else raw())
        chunks = f" in {message.chunks} chunks" if message.chunks > 1 else ""
        progress, task = fraction(f"Downloading {message.filename or message_id}{chunks}")
        with progress:
            while block := message.read(1 << 20):
                target.write(block)
                progress.update(task, completed=message.progress)
    if output:
        talk.print(f"Written to {output}", markup=False)


@contextmanager
def _whole(file: Path) -> Iterator[BinaryIO]:
    """Write a file beside its place, which it takes once it is whole; until then what was there stays."""
    place = file.resolve()
    if place.exists() and not place.is_file():  # a pipe, or a device
        with place.open("wb") as target:
            yield target
        return
    beside = place.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with beside.open("wb") as target:
            yield target
        if place.exists():
            shutil.copymode(place, beside)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)


def _metadata(message: Any) -> dict[str, Any]:
    names = (
        "message_id",
        "message_type",
        "sender",
        "recipient",
        "workflow_id",
        "filename",
        "local_id",
        "subject",
        "content_type",
        "chunks",
        "linked_message_id",
        "status_code",
        "status_description",
    )
    return {name: getattr(message, name) for name in names}


def ack_message(context: typer.Context, message_id: MessageId, reason: Why = None, as_json: Json = False) -> None:
    """Acknowledge a message: MESH removes it from the inbox and tells the sender.

    For example: mesh ack-message 20261123030618000000_ABCDEF
    """
    works_on = deployment(context)
    with acting(works_on, "ack-message", message_id, reason):
        works_on.wiring.mesh().acknowledge(message_id)
    if as_json:
        print_json({"message_id": message_id, "status": "acknowledged"})
    else:
        data.print(f"Message {message_id} acknowledged", markup=False)


def collect(
    context: typer.Context,
    again: Annotated[
        bool, typer.Option("--again", help="Hear the answers in the bucket once more, after the tables were restored.")
    ] = False,
    reason: Why = None,
    as_json: Json = False,
) -> None:
    """Bring every message that waits into the bucket, and apply what DPS answers, as the hourly run does.

    For example: mesh collect
    """
    works_on = deployment(context)
    with acting(works_on, "collect", reason=reason) as asked:
        event = {"again": True} if again else {}
        run = have_done(works_on, "collect", CollectRun, event, asked, as_json=as_json)
        if not as_json:
            show_collect_run(run)
        if run.status == "incomplete":
            raise typer.Exit(1)


def show_collect_run(run: CollectRun) -> None:
    """Show what a run of collect has found."""
    if run.messages:
        rows = [[message.workflow_id, message.filename, message.key] for message in run.messages]
        data.print(Table("Collected", ["workflow", "file", "stored as"], rows, rank=["workflow", "stored as"]))
        for answer in (message.answer for message in run.messages if message.answer):
            counts = "" if answer.processed is None else f": {answer.processed} processed, {answer.refused} refused"
            talk.print(f"{answer.kind} about {answer.export_id or 'no export'}: {answer.outcome}{counts}")
    else:
        talk.print("No message waits.")
    if run.left:
        talk.print(f"{counted(run.left, 'message')} had to be left for the next run.")


def send_file(
    context: typer.Context,
    to: Annotated[str, typer.Argument(metavar="TO", help="Mailbox id of the receiver.")],
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, readable=True, metavar="FILE")],
    workflow: Annotated[
        str | None, typer.Option(help="Workflow id; the deployment's own where left out.", metavar="ID")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Subject; no personal data.")] = None,
    local_id: Annotated[
        str | None, typer.Option(help="What to ask MESH by if the answer is lost; made up where left out.")
    ] = None,
    compress: Annotated[bool, typer.Option(help="Send it gzipped.")] = True,
    resume: Annotated[
        str | None,
        typer.Option(help="Go on with a send of the same file that got stuck; it said with what.", metavar="PLACE"),
    ] = None,
    reason: Why = None,
    as_json: Json = False,
) -> None:
    """Send a file of any size to a mailbox; a large one goes in several parts, and goes on where it got stuck.

    For example: mesh send-file X26ABC3 letter.pdf --workflow LETTERS
    """
    works_on = deployment(context)
    stuck_at = Resume.parse(resume) if resume else None
    local_id = local_id or f"mesh-command-{uuid.uuid4()}"
    progress, task = transfer(f"Sending {file.name}", None)
    with file.open("rb") as body, acting(works_on, "send-file", to, reason), progress:
        try:
            sent = works_on.wiring.mesh().send_file(
                to,
                workflow or works_on.settings.workflow_id,
                body,
                filename=file.name,
                subject=subject,
                local_id=local_id,
                compress=compress,
                on_progress=lambda done, total: progress.update(task, completed=done, total=total),
                resume=stuck_at,
            )
        except (MeshError, OSError, KeyboardInterrupt) as error:
            place: Resume | None = getattr(error, "resume", None)
            mesh = f"mesh --stack {shlex.quote(context.obj)}" if context.obj else "mesh"
            hints: list[str] = []
            if place:
                again = f"{mesh} send-file {shlex.quote(to)} {shlex.quote(str(file))} --resume {place}"
                hints = [f"Part {place.part} of {place.parts} did not arrive. Go on with:", again]
            elif isinstance(error, KeyboardInterrupt) and not stuck_at:
                asked = f"{mesh} track-message {shlex.quote(local_id)} --local"
                hints = ["The message may have been sent. Before you send it again, ask MESH:", asked]
            for hint in hints:
                talk.print(hint, soft_wrap=True, markup=False)
            raise
    if as_json:
        print_json({"message_id": sent.message_id, "parts": sent.parts, "local_id": sent.local_id})
    else:
        parts = f", {sent.parts} parts" if sent.parts > 1 else ""
        data.print(f"Sent to {to}: message {sent.message_id}{parts}", markup=False)
        talk.print(f"See what becomes of it with: mesh track-message {sent.message_id}")


def track_message(
    context: typer.Context,
    message_id: Annotated[str, typer.Argument(metavar="ID", help="Message id, or with --local a local id.")],
    local: Annotated[bool, typer.Option("--local", help="ID is the local id it was sent under.")] = False,
    as_json: Json = False,
) -> None:
    """Tell what has become of a message that was sent.

    For example: mesh track-message 20261123030618000000_ABCDEF
    """
    client = deployment(context).wiring.mesh()
    tracking = client.track_by_local_id(message_id) if local else client.track(message_id)
    found = {name: value for name, value in asdict(tracking).items() if value is not None}
    if as_json:
        print_json(found)
    else:
        rows = [[name.replace("_", " "), str(value)] for name, value in found.items()]
        data.print(Table("Message", ["what", "value"], rows))


def lookup(
    context: typer.Context,
    ods_code: Annotated[str, typer.Argument(metavar="ODS", help="ODS code of the organisation.")],
    workflow_id: Annotated[str, typer.Argument(metavar="WORKFLOW", help="Workflow id.")],
    as_json: Json = False,
) -> None:
    """Find the mailboxes of an organisation for a workflow.

    For example: mesh lookup R1L LETTERS
    """
    found = deployment(context).wiring.mesh().lookup(ods_code, workflow_id)
    if as_json:
        print_json([asdict(mailbox) for mailbox in found])
    elif found:
        rows = [[mailbox.mailbox_id, mailbox.mailbox_name] for mailbox in found]
        data.print(Table(f"Mailboxes of {ods_code}", ["mailbox", "name"], rows))
    else:
        talk.print(f"{ods_code} has no mailbox for the workflow {workflow_id}.", markup=False)
