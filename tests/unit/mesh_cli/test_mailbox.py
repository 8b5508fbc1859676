"""Promises about a message on its way to a file, and a file on its way to MESH: nothing half, and what to do next."""

from __future__ import annotations

import io
import os
import shlex
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import typer
from rich.console import Console

from mesh_cli import mailbox, output
from nhs_mesh import Corrupted, MeshError, Resume, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BODY = b"NHS_NUMBER|...\n" * 1_000
RESUME = Resume("20261123030618000000_ABCDEF", 2, 3, 1_000, "0" * 64, compress=True)


class Message(io.BytesIO):
    """A message of the inbox, which breaks off at its end where it is told to."""

    chunks, progress = 1, 0.5

    def __init__(self, filename: str = "a.csv", breaks: Exception | None = None) -> None:
        super().__init__(BODY)
        self.filename = filename
        self.breaks = breaks

    def read(self, size: int | None = -1) -> bytes:
        block = super().read(size)
        if not block and self.breaks:
            raise self.breaks
        return block


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a person reads who sits at a terminal."""
    shown = io.StringIO()
    talk = Console(file=shown, force_terminal=True, width=400, highlight=False)
    monkeypatch.setattr(output, "talk", talk)
    monkeypatch.setattr(mailbox, "talk", talk)
    return shown


@pytest.fixture
def context(monkeypatch: pytest.MonkeyPatch) -> Callable[..., typer.Context]:
    """Make what a command is given, with a client of which one method is played."""

    def make(stack: str | None = None, **methods: Any) -> typer.Context:
        bucket = SimpleNamespace(put_act=lambda _: None)
        wiring = SimpleNamespace(mesh=lambda: SimpleNamespace(**methods), bucket=lambda: bucket)
        identity = SimpleNamespace(get_caller_identity=lambda: {"Arn": "arn:aws:iam::123456789012:user/jo"})
        settings = SimpleNamespace(workflow_id="DPS_EXPORT", event_bus="")
        works_on = SimpleNamespace(wiring=wiring, settings=settings, clients=SimpleNamespace(identity=identity))
        monkeypatch.setattr(mailbox, "deployment", lambda _: works_on)
        return typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)), obj=stack)

    return make


@pytest.mark.parametrize("name", ["a[/x].csv", "[link=file:///x]a[red]b.csv", "{task.id}.csv"])
def test_a_name_is_shown_as_its_sender_wrote_it(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path, name: str
) -> None:
    (tmp_path / "to[").mkdir()
    file = tmp_path / "to[" / "o].csv"
    mailbox.get_message(context(download=lambda _: Message(name)), "ONE", file, as_json=False)
    assert file.read_bytes() == BODY
    assert f"Downloading {name}" in terminal.getvalue()
    assert f"Written to {file}" in terminal.getvalue()


def test_a_file_is_written_over_only_by_a_whole_message(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path
) -> None:
    file = tmp_path / "wanted.csv"
    file.write_bytes(b"what was there before")
    file.chmod(0o640)
    broken = Message(breaks=Corrupted("the message is not whole"))
    with pytest.raises(Corrupted):
        mailbox.get_message(context(download=lambda _: broken), "ONE", file, as_json=False)
    assert file.read_bytes() == b"what was there before"
    assert "Written" not in terminal.getvalue()
    mailbox.get_message(context(download=lambda _: Message()), "ONE", file, as_json=False)
    assert file.read_bytes() == BODY
    assert file.stat().st_mode & 0o777 == 0o640
    assert [each.name for each in tmp_path.iterdir()] == ["wanted.csv"]


def test_a_link_or_a_pipe_stays_what_it_is(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path
) -> None:
    file, link, pipe = (tmp_path / name for name in ("file", "link", "pipe"))
    link.symlink_to(file)
    mailbox.get_message(context(download=lambda _: Message()), "ONE", link, as_json=False)
    assert (link.is_symlink(), file.read_bytes()) == (True, BODY)
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    mailbox.get_message(context(download=lambda _: Message()), "ONE", pipe, as_json=False)
    reader.join(5)
    assert (pipe.is_fifo(), read) == (True, [BODY])


def send(context: typer.Context, file: Path) -> None:
    mailbox.send_file(context, "X26ABC3", file, None, None, "letter-1", compress=True, resume=None, as_json=False)


@pytest.mark.parametrize("error", [Unavailable("no answer"), OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_send_that_got_stuck_says_on_which_stack_it_goes_on(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path, error: BaseException
) -> None:
    def stuck(*_: object, **__: object) -> None:
        error.resume = RESUME  # type: ignore[attr-defined]
        raise error

    file = tmp_path / "a [red] scan.bin"
    file.write_bytes(BODY)
    with pytest.raises(type(error)):
        send(context("the stack", send_file=stuck), file)
    assert "Part 2 of 3 did not arrive" in terminal.getvalue()
    [said] = (line for line in terminal.getvalue().splitlines() if "--resume" in line)
    expected = ["mesh", "--stack", "the stack", "send-file", "X26ABC3", str(file), "--resume", str(RESUME)]
    assert shlex.split(said.replace("\x1b[2K", "")) == expected


def test_a_send_that_a_person_interrupts_says_how_to_find_out_whether_it_arrived(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "letter.txt"
    file.write_bytes(BODY)
    with pytest.raises(KeyboardInterrupt):
        send(context(send_file=interrupted), file)
    assert "may have been sent" in terminal.getvalue()
    assert "mesh track-message letter-1 --local" in terminal.getvalue()


def test_a_send_that_mesh_refuses_says_nothing_of_going_on(
    context: Callable[..., typer.Context], terminal: io.StringIO, tmp_path: Path
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise MeshError("no")

    file = tmp_path / "letter.txt"
    file.write_bytes(BODY)
    with pytest.raises(MeshError):
        send(context(send_file=refused), file)
    assert "mesh " not in terminal.getvalue()
