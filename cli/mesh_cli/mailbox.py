"""Commands about the MESH mailbox itself."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from dps.settings import connect
from dps.validate import validate
from mesh_cli.options import Json, deployment
from mesh_cli.output import data, print_json, table, talk

PANEL = "Mailbox"
MessageId = Annotated[str, typer.Argument(metavar="ID", help="Message id, as check-inbox lists it.")]


def add_to(app: typer.Typer) -> None:
    """Add these commands to the app."""
    app.command("validate-mailbox", rich_help_panel=PANEL)(validate_mailbox)
    app.command("check-inbox", rich_help_panel=PANEL)(check_inbox)
    app.command("get-message", rich_help_panel=PANEL)(get_message)
    app.command("ack-message", rich_help_panel=PANEL)(ack_message)


def validate_mailbox(as_json: Json = False) -> None:
    """Shake hands with MESH, so that it knows the mailbox is alive."""
    answer = validate(deployment())
    if as_json:
        print_json(answer)
        return
    data.print(
        f"Mailbox {answer['mailbox']} validated; the certificate has {answer['certificate_days_left']} days left"
    )


def check_inbox(
    as_json: Json = False,
    workflow: Annotated[str | None, typer.Option(help="Only messages of this workflow id.", metavar="ID")] = None,
    limit: Annotated[int, typer.Option(help="Stop after so many messages; 0 lists all.", min=0)] = 0,
) -> None:
    """List the messages that wait in the inbox."""
    client = connect(deployment())
    messages = []
    for message_id in client.inbox(workflow_filter=workflow):
        messages.append(message_id)
        if limit and len(messages) == limit:
            break
    if as_json:
        print_json({"mailbox": client.mailbox, "messages": messages})
    elif messages:
        data.print(table(f"Inbox of {client.mailbox}", ["message id"], [[message] for message in messages]))
        talk.print("Read one with: mesh get-message ID")
    else:
        talk.print(f"The inbox of {client.mailbox} is empty.")


def get_message(
    message_id: MessageId,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write the body to this file.", metavar="FILE")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the message's metadata as JSON, not its body.")
    ] = False,
) -> None:
    """Print a message's body, decompressed; it stays in the inbox until it is acknowledged."""
    with connect(deployment()).download(message_id) as message, ExitStack() as stack:
        if as_json:
            print_json(_metadata(message))
            if output is None:
                return
        target = stack.enter_context(output.open("wb")) if output else sys.stdout.buffer
        while block := message.read(1 << 20):
            target.write(block)
        target.flush()
    if output:
        talk.print(f"Written to {output}")


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
        "linked_message_id",
        "status_code",
        "status_description",
    )
    return {name: getattr(message, name) for name in names}


def ack_message(message_id: MessageId, as_json: Json = False) -> None:
    """Acknowledge a message: MESH removes it from the inbox and tells the sender."""
    connect(deployment()).acknowledge(message_id)
    if as_json:
        print_json({"message_id": message_id, "status": "acknowledged"})
    else:
        data.print(f"Message {message_id} acknowledged")
