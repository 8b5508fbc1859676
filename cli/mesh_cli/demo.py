"""The nightly story, told from upload to acknowledgement on the stack of this machine.

Nothing is acted: each step runs the commands that it names, as a person would type them. The functions run under
Lambda's emulator, MESH is NHS England's own sandbox over mTLS, AWS is moto's server. After each step the demo looks at
the bucket, the ledger, the register and the mailboxes, and succeeds only if all is there that should be.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
import subprocess
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.panel import Panel
from rich.text import Text

from local.sample import sample_upload
from mesh_cli.deployment import LOCAL_ENVIRONMENT
from mesh_cli.exports import list_exports
from mesh_cli.options import INTERRUPTED
from mesh_cli.output import data, print_json, talk
from mesh_cli.refused import find_refused, tell_refused
from vaccinations.aws.bucket import INCOMING
from vaccinations.model.export import Status
from vaccinations.model.london import day_in_london
from vaccinations.results import Receipt, document

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from local.stack import LocalCloud
    from mesh_cli.deployment import Deployment

__all__ = ["Demo"]

ORGANISATION = "R1L"
RECEIVER = "X26ABC3"
_AS_RECEIVER = f"MESH_MAILBOX={RECEIVER} MESH_PASSWORD=password"
#: The terminal of a telling that is kept.
_TERMINAL = (100, 50)


@dataclass
class Demo:
    """One telling of the story.

    Attributes
    ----------
    cloud
        The stack on this machine, up.
    works_on
        The same as the commands see it.
    mesh
        The command itself.
    as_json
        Tell it as one JSON document on stdout: of each step the commands, what they printed, and what came of them.
    """

    cloud: LocalCloud
    works_on: Deployment
    mesh: Any
    as_json: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)

    def tell(self) -> bool:
        """Tell the whole story; say whether every step succeeded."""
        with self._at_the_command_line():
            self._tell()
        return self._end()

    def _tell(self) -> None:
        sample = sample_upload(day_in_london(datetime.now(UTC)))
        programmes = sorted(sample.accepted)
        monday = sum(sample.accepted.values())
        total = monday + sum(sum(file.accepted.values()) for file in sample.others)

        receipt = self._upload("A team uploads the day's vaccinations", "monday.csv", f"--rows {monday}")
        self._check(
            _accepted(receipt) == sample.accepted
            and (receipt.unchanged, receipt.rejected) == (sample.duplicates, len(sample.bad_lines))
            and receipt.skipped == sample.skipped
        )
        for file in sample.others:
            form, rows = file.name.removesuffix(".csv"), sum(file.accepted.values())
            title = f"A file as it comes from {file.system}"
            receipt = self._upload(title, file.name, f"--format {form} --rows {rows} --bad 0")
            self._check(
                _accepted(receipt) == file.accepted and (receipt.skipped, receipt.rejected) == (file.skipped, 0)
            )
        self._step("Validate: MESH learns that the mailbox is alive", "mesh validate-mailbox")
        self._export("Night falls: the export runs", programmes, total)
        self._ledger("The ledger: MESH has accepted every file", Status.ACCEPTED, len(programmes))
        messages = self._inbox("DPS looks into its mailbox", len(programmes))
        self._first_rows(messages[0])
        self._dps("DPS picks the files up, refuses two rows, and answers", len(programmes), sample.to_refuse)
        self._step("Track: did DPS pick them up?", "mesh track")
        self._collect(total - 2, 2)
        self._ledger("The ledger: DPS has processed every file", Status.ACKNOWLEDGED, len(programmes))
        self._refused("What DPS refused, and why", sample.to_refuse)

        receipt = self._upload("The same file is uploaded once more", "monday.csv")
        self._check(not receipt.accepted and receipt.unchanged == monday + sample.duplicates)
        self._export("The night after: nothing to send", [], 0)

        title = "A corrected file: those two, one more row, and one withdrawn"
        receipt = self._upload(title, "tuesday.csv", f"--rows {monday} --corrected")
        actions = sorted(name for counts in receipt.accepted.values() for name in counts)
        self._check(actions == ["delete", "new", "new", "update"])
        corrected = len(receipt.accepted)
        self._export("The next night: the correction goes out", receipt.accepted, 4)
        self._corrections(self._inbox("DPS finds the correction", corrected))
        self._dps("DPS picks the correction up", corrected, {})
        self._step("Track: did DPS pick them up?", "mesh track")
        self._collect(total - 2 + 4, 2)
        self._ledger("The ledger in the end", Status.ACKNOWLEDGED, len(programmes) + corrected)
        self._refused("Nothing is refused any more", {})

    # -- the steps

    def _upload(self, title: str, name: str, sample: str = "") -> Receipt:
        made = [f"mesh sample {sample} > {name}"] if sample else []
        self._step(title, *made, f"mesh upload {name} --organisation {ORGANISATION}")
        found = self.works_on.wiring.bucket().latest_receipt(f"{INCOMING}{ORGANISATION}/{name}")
        if not found or not isinstance(found[0], Receipt):
            raise _NotTold
        self._result(document(found[0]))
        return found[0]

    def _export(self, title: str, programmes: Collection[str], records: int) -> None:
        self._step(title, "mesh dps-export")
        sent = [e for e in list_exports(self.works_on.wiring.ledger()) if e.status == Status.ACCEPTED]
        self._result(
            [
                {
                    "export_id": e.export_id,
                    "programme": e.programme,
                    "records": e.records,
                    "mesh_filename": e.attempt and e.attempt.mesh_filename,
                    "message_id": e.attempt and e.attempt.message_id,
                }
                for e in sent
            ]
        )
        self._check(
            sorted(e.programme for e in sent) == sorted(programmes) and sum(e.records or 0 for e in sent) == records
        )
        self._check(len(self._messages()) == len(sent))

    def _ledger(self, title: str, status: Status, number: int) -> None:
        self._step(title, "mesh exports")
        found = list_exports(self.works_on.wiring.ledger())
        self._result([{"export_id": e.export_id, "status": str(e.status)} for e in found])
        self._check([e.status for e in found] == [status] * number)

    def _inbox(self, title: str, number: int) -> list[str]:
        self._step(title, f"{_AS_RECEIVER} mesh check-inbox")
        messages = self._messages()
        self._result(messages)
        self._check(len(messages) == number)
        return messages

    def _first_rows(self, message: str) -> None:
        self._step(
            "The first rows of one file",
            f"{_AS_RECEIVER} mesh get-message {message} --output first.csv",
            "head -n 3 first.csv | cut -d '|' -f 1-7,10,12",
        )
        rows = _rows(self._folder / "first.csv")
        self._result({"rows": len(rows), "columns": len(rows[0])})
        self._check(all(row["ACTION_FLAG"] == "new" for row in rows) and len(rows[0]) == 34)

    def _corrections(self, messages: list[str]) -> None:
        names = [f"correction-{number}.csv" for number, _ in enumerate(messages, start=1)]
        self._step(
            "What the correction says",
            *(
                f"{_AS_RECEIVER} mesh get-message {message} --output {name}"
                for message, name in zip(messages, names, strict=True)
            ),
            "tail -q -n 1 correction-*.csv | cut -d '|' -f 10,12",
        )
        found = [[row["ACTION_FLAG"], row["UNIQUE_ID"]] for name in names for row in _rows(self._folder / name)]
        self._result(found)
        self._check(sorted(action for action, _ in found) == ["delete", "new", "new", "update"])

    def _dps(self, title: str, number: int, refused: dict[str, str]) -> None:
        refusals = [f"--refuse {shlex.quote(f'{record}={why}')}" for record, why in refused.items()]
        self._step(title, " ".join(["mesh local dps", *refusals]))
        answers = list(self.works_on.wiring.mesh().inbox())
        self._result(answers)
        self._check(len(answers) == 3 * number and not self._messages())

    def _collect(self, processed: int, refused: int) -> None:
        """Have DPS's answers heard; so many records were processed and refused from the first night on."""
        self._step("Collect: what does DPS say of each record?", "mesh collect")
        attempts = [e.attempt for e in list_exports(self.works_on.wiring.ledger()) if e.attempt]
        counts = [sum(a.rows_processed or 0 for a in attempts), sum(a.rows_refused or 0 for a in attempts)]
        self._result(dict(zip(("processed", "refused"), counts, strict=True)))
        self._check(counts == [processed, refused])

    def _refused(self, title: str, refused: dict[str, str]) -> None:
        self._step(title, "mesh refused --text")
        wiring = self.works_on.wiring
        found = tell_refused(wiring.bucket(), list(find_refused(wiring.register())), text=True)
        texts = {one.record: one.text for one in found}
        self._result(texts)
        self._check(texts == refused)

    def _messages(self) -> list[str]:
        """Return what waits for DPS."""
        with self.cloud.sandbox.client(RECEIVER) as receiver:
            return list(receiver.inbox())

    # -- telling

    @property
    def _folder(self) -> Path:
        return self.cloud.directory / "demo"

    @contextmanager
    def _at_the_command_line(self) -> Iterator[None]:
        """Work in a folder of the stack's own, from which the commands find this stack and no other."""
        environment = self._folder / LOCAL_ENVIRONMENT
        environment.parent.mkdir(parents=True)
        variables = self.cloud.environment_of_commands()
        environment.write_text("".join(f"{name}={value}\n" for name, value in variables.items()))
        theirs = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "MESH_"))}
        with _variables(theirs), chdir(self._folder):
            try:
                yield
            except _NotTold:
                self._check(False)

    def _step(self, title: str, *commands: str) -> None:
        self.steps.append({"step": title, "ok": True, "commands": []})
        if not self.as_json:
            data.print()
            data.rule(f"[bold]{len(self.steps)}. {title}", align="left")
        for command in commands:
            if self.as_json:
                code, printed = self._captured(command)
                self.steps[-1]["commands"].append({"command": command, "printed": printed})
            else:
                data.print(f"$ {command}", style="dim", markup=False, soft_wrap=True)
                code = self._run(command)
            self._check(code == 0)

    def _captured(self, command: str) -> tuple[int, str]:
        """Run a command as if on a terminal; return its exit code and what it printed."""
        kept = io.BytesIO()
        out, err = _Screen(kept, write_through=True), io.TextIOWrapper(kept, "utf-8", write_through=True)
        data.size = _TERMINAL
        with redirect_stdout(out), redirect_stderr(err):
            code = self._run(command)
        printed = Text.from_ansi(kept.getvalue().decode()).plain
        return code, "".join(f"{line.rstrip()}\n" for line in printed.splitlines() if line.strip())

    def _run(self, command: str) -> int:
        """Run a line as a shell does, but ours in this process, which has everything loaded; return its exit code."""
        words = shlex.split(command)
        with ExitStack() as undo:
            if words[-2] == ">":
                file = undo.enter_context((self._folder / words[-1]).open("w", encoding="utf-8"))
                undo.enter_context(redirect_stdout(file))
                del words[-2:]
            variables = dict(os.environ)
            while "=" in words[0]:
                name, _, value = words.pop(0).partition("=")
                variables[name] = value
            if words[0] != "mesh":
                shell = ["/bin/sh", "-c", command]
                done = subprocess.run(shell, capture_output=True, text=True, check=False)  # noqa: S603 - one of the above
                data.print(done.stdout, end="", markup=False, soft_wrap=True)
                return done.returncode
            undo.enter_context(_variables(variables))
            code = self.mesh.main(words[1:], prog_name="mesh", standalone_mode=False) or 0
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        return int(code)

    def _result(self, result: Any) -> None:
        self.steps[-1]["result"] = result

    def _check(self, ok: bool) -> None:
        if not ok:
            self.steps[-1]["ok"] = False
            talk.print(f"[bold red]This step did not hold:[/] {self.steps[-1]['step']}")

    def _end(self) -> bool:
        ok = all(step["ok"] for step in self.steps)
        if self.as_json:
            print_json({"ok": ok, "steps": self.steps})
        elif ok:
            data.print(Panel(f"All {len(self.steps)} steps succeeded.", style="green", expand=False))
        else:
            broken = [step["step"] for step in self.steps if not step["ok"]]
            data.print(Panel("Did not hold: " + "; ".join(broken), style="red", expand=False))
        return ok


class _NotTold(Exception):
    """The story cannot go on: an upload has no receipt."""


class _Screen(io.TextIOWrapper):
    """What is printed as on a terminal, and kept."""

    def isatty(self) -> bool:
        return True


@contextmanager
def _variables(variables: dict[str, str]) -> Iterator[None]:
    """Have these environment variables, and no others, for a while."""
    before = dict(os.environ)
    os.environ.clear()
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _accepted(receipt: Receipt) -> dict[str, int]:
    return {key: sum(actions.values()) for key, actions in receipt.accepted.items()}


def _rows(file: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"), newline=""), delimiter="|"))
