"""The nightly story, told from upload to acknowledgement on the stack of this machine.

Nothing is acted: the functions are the built ones under Lambda's emulator, MESH is NHS England's own sandbox over
mTLS, AWS is moto's server. Each step checks what it shows; the demo holds only if every step does.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from rich.panel import Panel

from mesh_cli.exports import exports_table, list_exports, processing_of, show_export_run, show_track_run
from mesh_cli.intake import put_upload, show_receipt, wait_for_receipt
from mesh_cli.output import data, print_json, table, talk
from mesh_cli.receiver import because, facts, show_files
from mesh_cli.refused import find_refused, show_refused, tell_refused
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.settings import Settings

if TYPE_CHECKING:
    from local.dps import Dps
    from local.stack import LocalCloud
    from nhs_mesh import MeshClient

__all__ = ["Demo"]

ORGANISATION = "R1L"
RECEIVER = "X26ABC3"
SECONDS_FOR_A_RECEIPT = 60


@dataclass
class Demo:
    """One telling of the story.

    Attributes
    ----------
    cloud
        The stack on this machine, up.
    as_json
        Tell it as one JSON document on stdout instead of in tables.
    """

    cloud: LocalCloud
    as_json: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    receipt: dict[str, Any] = field(default_factory=dict)

    def tell(self) -> bool:
        """Tell the whole story; say whether every step held."""
        from local.dps import Dps
        from local.sample import corrected_upload, sample_upload

        settings = Settings.from_environment()
        sample = sample_upload(datetime.now(ZoneInfo("Europe/London")).date())
        programmes = sorted(sample.accepted)
        total = sum(sample.accepted.values())
        receiver = self.cloud.sandbox.client(RECEIVER)
        disliked = dict(sample.to_refuse)
        dps = Dps(receiver, refuse=because(disliked))

        self._upload("A team uploads the day's vaccinations", settings, "monday.csv", sample.csv)
        self._check(
            {key: sum(actions.values()) for key, actions in self.receipt.get("accepted", {}).items()} == sample.accepted
            and self.receipt["unchanged"] == sample.duplicates
            and self.receipt["rejected"] == len(sample.bad_lines)
            and self.receipt["skipped"] == sample.skipped
        )
        self._validate()
        self._export("Night falls: the export runs", dict.fromkeys(programmes, ""), total)
        self._ledger("The ledger: MESH has taken every file", settings, "accepted", len(programmes))
        messages = self._inbox("DPS looks into its mailbox", receiver, len(programmes))
        self._first_rows(receiver, messages)
        self._dps("DPS takes the files up, refuses two rows, and answers", dps, total - 2, sample.to_refuse)
        self._track(len(programmes))
        self._collect(3 * len(programmes), total - 2, 2)
        self._ledger("The ledger: DPS has processed every file", settings, "acknowledged", len(programmes))
        self._refused("What DPS refused, and why", settings, disliked)

        self._upload("The same file is uploaded once more", settings, "monday-again.csv", sample.csv)
        self._check(self.receipt.get("accepted") == {} and self.receipt["unchanged"] == total + sample.duplicates)
        self._export("The night after: nothing to send", {}, 0)
        self._check(list(receiver.inbox()) == [])

        self._upload(
            "A corrected file: those two, one more row, and one withdrawn",
            settings,
            "tuesday.csv",
            corrected_upload(sample),
        )
        actions = list(self.receipt.get("accepted", {}).values())
        self._check(sorted(name for counts in actions for name in counts) == ["delete", "new", "new", "update"])
        disliked.clear()
        corrected = len(actions)
        self._export("The next night: the correction goes out", self.receipt.get("exports", {}), 4)
        messages = self._inbox("DPS finds the correction", receiver, corrected)
        self._corrections(receiver, messages)
        self._dps("DPS takes the correction up", dps, 4, {})
        self._track(corrected)
        self._collect(3 * corrected, 4, 0)
        self._ledger("The ledger in the end", settings, "acknowledged", len(programmes) + corrected)
        self._refused("Nothing is refused any more", settings, {})
        return self._end()

    # -- the steps

    def _upload(self, title: str, settings: Settings, name: str, body: bytes) -> None:
        self._step(title, f"mesh upload {name} --organisation {ORGANISATION}")
        key, version = put_upload(settings, name, body, ORGANISATION)
        self.receipt = wait_for_receipt(settings, key, version, SECONDS_FOR_A_RECEIPT) or {}
        self._result(self.receipt, held=self.receipt.get("status") == "taken in")
        if self.receipt and not self.as_json:
            show_receipt(self.receipt, settings)

    def _validate(self) -> None:
        self._step("Validate: MESH learns that the mailbox is alive", "mesh invoke validate")
        answer = self.cloud.invoke("ValidateFunction")
        self._result(answer, held=answer["status"] == "ok")
        self._say(f"Mailbox {answer.get('mailbox')}, certificate good for {answer.get('certificate_days_left')} days")

    def _export(self, title: str, exports: dict[str, str], records: int) -> None:
        self._step(title, "mesh invoke export")
        answer = self.cloud.invoke("ExportFunction", {})
        sent = [export for export in answer["exports"] if export["status"] == "accepted"]
        self._result(
            answer,
            held=answer["status"] == "ok"
            and sorted(export["programme"] for export in sent) == sorted(exports)
            and sum(export["records"] for export in sent) == records
            and sorted([*exports, *answer["nothing_to_send"]]) == sorted(PROGRAMMES),
        )
        if not self.as_json:
            show_export_run(answer)

    def _ledger(self, title: str, settings: Settings, status: str, number: int) -> None:
        self._step(title, "mesh exports")
        found = list_exports(settings)
        rows = [
            {
                "export_id": e.export_id,
                "status": str(e.status),
                "records": e.records,
                "filename": e.filename,
                "processing": processing_of(e),
            }
            for e in found
        ]
        self._result(rows, held=[row["status"] for row in rows] == [status] * number)
        if not self.as_json:
            data.print(exports_table(found))

    def _inbox(self, title: str, receiver: MeshClient, number: int) -> list[str]:
        self._step(title, f"MESH_MAILBOX={RECEIVER} MESH_PASSWORD=password mesh check-inbox")
        messages = list(receiver.inbox())
        self._result(messages, held=len(messages) == number)
        if not self.as_json:
            data.print(table(f"Inbox of {RECEIVER}", ["message id"], [[message] for message in messages]))
        return messages

    def _first_rows(self, receiver: MeshClient, messages: list[str]) -> None:
        self._step("The first rows of one file", f"MESH_MAILBOX={RECEIVER} … mesh get-message {messages[0]}")
        with receiver.download(messages[0]) as message:
            filename, body = message.filename, message.read()
        lines = body.decode().splitlines()
        rows = _rows(body)
        self._result(
            {"filename": filename, "rows": len(rows), "columns": len(rows[0])},
            held=all(row["ACTION_FLAG"] == "new" for row in rows) and len(rows[0]) == 34,
        )
        self._say(f"{filename}: {len(rows)} rows; the header and the first two:")
        if not self.as_json:
            for line in lines[:3]:
                data.print(line, markup=False, soft_wrap=True)

    def _corrections(self, receiver: MeshClient, messages: list[str]) -> None:
        self._step("What the correction says")
        found = []
        for message_id in messages:
            with receiver.download(message_id) as message:
                found += [
                    [message.filename or "", row["ACTION_FLAG"], row["UNIQUE_ID"]] for row in _rows(message.read())
                ]
        self._result(found, held=sorted(row[1] for row in found) == ["delete", "new", "new", "update"])
        if not self.as_json:
            data.print(table("Corrections", ["file", "action", "record"], found))

    def _dps(self, title: str, dps: Dps, taken: int, refused: dict[str, str]) -> None:
        self._step(title, " ".join(["mesh local dps", *(f"--refuse {record}=…" for record in refused)]))
        files = dps.work()
        self._result(
            [facts(file) for file in files],
            held=sum(file.taken for file in files) == taken
            and {row.row["UNIQUE_ID"]: row.refused for file in files for row in file.refused} == refused
            and not any(file.problem for file in files),
        )
        if not self.as_json:
            show_files(files)

    def _track(self, number: int) -> None:
        self._step("Track: did DPS pick them up?", "mesh invoke track")
        answer = self.cloud.invoke("TrackFunction")
        self._result(
            answer,
            held=answer["status"] == "ok" and [e["status"] for e in answer["exports"]] == ["acknowledged"] * number,
        )
        if not self.as_json:
            show_track_run(answer)

    def _collect(self, number: int, taken: int, refused: int) -> None:
        self._step("Collect: what does DPS say of each record?", "mesh invoke collect")
        answer = self.cloud.invoke("CollectFunction")
        heard = [message["answer"] or {} for message in answer["messages"]]
        self._result(
            answer,
            held=answer["status"] == "ok"
            and len(heard) == number
            and sum(told.get("taken", 0) for told in heard) == taken
            and sum(told.get("refused", 0) for told in heard) == refused,
        )
        if not self.as_json:
            rows = [
                [message["filename"], told["outcome"], told.get("taken"), told.get("refused")]
                for message, told in zip(answer["messages"], heard, strict=True)
            ]
            data.print(table("Collected", ["file", "outcome", "taken", "refused"], rows))
            data.print(f"Of {taken + refused} records DPS took {taken} and refused {refused}.")

    def _refused(self, title: str, settings: Settings, refused: dict[str, str]) -> None:
        self._step(title, "mesh refused --text")
        rows = tell_refused(settings, list(find_refused(settings)), text=True)
        self._result(rows, held={row["record"]: row["text"] for row in rows} == refused)
        if rows and not self.as_json:
            show_refused(rows)
        if not rows:
            self._say("DPS has refused no record as it was sent last.")

    # -- telling

    def _step(self, title: str, command: str = "") -> None:
        self.steps.append({"step": title, "held": True})
        if not self.as_json:
            data.print()
            data.rule(f"[bold]{len(self.steps)}. {title}", align="left")
            if command:
                data.print(f"$ {command}", style="dim", markup=False)

    def _say(self, text: str) -> None:
        if not self.as_json:
            data.print(text)

    def _result(self, result: Any, *, held: bool) -> None:
        self.steps[-1]["result"] = result
        self._check(held)

    def _check(self, held: bool) -> None:
        if not held:
            self.steps[-1]["held"] = False
            talk.print(f"[bold red]This step did not hold:[/] {self.steps[-1]['step']}")

    def _end(self) -> bool:
        held = all(step["held"] for step in self.steps)
        if self.as_json:
            print_json({"held": held, "steps": self.steps})
        elif held:
            data.print(Panel(f"All {len(self.steps)} steps held.", style="green", expand=False))
        else:
            broken = [step["step"] for step in self.steps if not step["held"]]
            data.print(Panel("Did not hold: " + "; ".join(broken), style="red", expand=False))
        return held


def _rows(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter="|"))
