"""The nightly story, told from upload to acknowledgement on the stack of this machine.

Nothing is acted: the functions are the built ones under Lambda's emulator, MESH is NHS England's own sandbox over
mTLS, AWS is moto's server. Each step checks what it shows; the demo succeeds only if every step does.
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from rich.panel import Panel

from mesh_cli.exports import exports_table, list_exports, show_export_run, show_track_run
from mesh_cli.functions import have_done
from mesh_cli.intake import show_receipt, wait_for_receipt
from mesh_cli.output import Table, data, print_json, talk
from mesh_cli.receiver import because, facts, show_files
from mesh_cli.refused import find_refused, show_refused, tell_refused
from vaccinations.jobs.status import processing_in_words
from vaccinations.model.london import day_in_london
from vaccinations.model.programmes import PROGRAMMES
from vaccinations.results import CollectRun, ExportRun, Receipt, TrackRun, Validation, document

if TYPE_CHECKING:
    from collections.abc import Iterable

    from local.dps import Dps
    from local.stack import LocalCloud
    from mesh_cli.deployment import Deployment
    from nhs_mesh import MeshClient
    from vaccinations.results import AnyReceipt

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
    works_on
        The same as the commands see it.
    as_json
        Tell it as one JSON document on stdout instead of in tables.
    """

    cloud: LocalCloud
    works_on: Deployment
    as_json: bool = False
    steps: list[dict[str, Any]] = field(default_factory=list)
    receipt: AnyReceipt | None = None

    def tell(self) -> bool:
        """Tell the whole story; say whether every step succeeded."""
        from local.dps import Dps
        from local.sample import corrected_upload, sample_upload

        sample = sample_upload(day_in_london(datetime.now(UTC)))
        programmes = sorted(sample.accepted)
        monday = sum(sample.accepted.values())
        total = monday + sum(sum(file.accepted.values()) for file in sample.others)
        receiver = self.cloud.sandbox.client(RECEIVER)
        disliked = dict(sample.to_refuse)
        dps = Dps(receiver, refuse=because(disliked))

        self._upload("A team uploads the day's vaccinations", "monday.csv", sample.csv)
        self._check(
            isinstance(self.receipt, Receipt)
            and {key: sum(actions.values()) for key, actions in self.receipt.accepted.items()} == sample.accepted
            and self.receipt.unchanged == sample.duplicates
            and self.receipt.rejected == len(sample.bad_lines)
            and self.receipt.skipped == sample.skipped
        )
        for file in sample.others:
            self._upload(f"A file as it comes from {file.system}", file.name, file.csv)
            self._check(
                isinstance(self.receipt, Receipt)
                and {key: sum(actions.values()) for key, actions in self.receipt.accepted.items()} == file.accepted
                and (self.receipt.skipped, self.receipt.rejected) == (file.skipped, 0)
            )
        self._validate()
        self._export("Night falls: the export runs", programmes, total)
        self._ledger("The ledger: MESH has accepted every file", "accepted", len(programmes))
        messages = self._inbox("DPS looks into its mailbox", receiver, len(programmes))
        self._first_rows(receiver, messages)
        self._dps("DPS picks the files up, refuses two rows, and answers", dps, total - 2, sample.to_refuse)
        self._track(len(programmes))
        self._collect(3 * len(programmes), total - 2, 2)
        self._ledger("The ledger: DPS has processed every file", "acknowledged", len(programmes))
        self._refused("What DPS refused, and why", disliked)

        self._upload("The same file is uploaded once more", "monday-again.csv", sample.csv)
        self._check(
            isinstance(self.receipt, Receipt)
            and not self.receipt.accepted
            and self.receipt.unchanged == monday + sample.duplicates
        )
        self._export("The night after: nothing to send", [], 0)
        self._check(list(receiver.inbox()) == [])

        self._upload(
            "A corrected file: those two, one more row, and one withdrawn",
            "tuesday.csv",
            corrected_upload(sample),
        )
        accepted = self.receipt.accepted if isinstance(self.receipt, Receipt) else {}
        actions = sorted(name for counts in accepted.values() for name in counts)
        self._check(actions == ["delete", "new", "new", "update"])
        disliked.clear()
        corrected = len(accepted)
        self._export("The next night: the correction goes out", accepted, 4)
        messages = self._inbox("DPS finds the correction", receiver, corrected)
        self._corrections(receiver, messages)
        self._dps("DPS picks the correction up", dps, 4, {})
        self._track(corrected)
        self._collect(3 * corrected, 4, 0)
        self._ledger("The ledger in the end", "acknowledged", len(programmes) + corrected)
        self._refused("Nothing is refused any more", {})
        return self._end()

    # -- the steps

    def _upload(self, title: str, name: str, body: bytes) -> None:
        self._step(title, f"mesh upload {name} --organisation {ORGANISATION}")
        bucket = self.works_on.wiring.bucket()
        key, version = bucket.put_upload(ORGANISATION, name, body)
        self.receipt = wait_for_receipt(bucket, key, version, SECONDS_FOR_A_RECEIPT)
        self._result(
            document(self.receipt) if self.receipt else None,
            ok=self.receipt is not None and self.receipt.status == "ingested",
        )
        if self.receipt and not self.as_json:
            show_receipt(self.receipt, bucket)

    def _validate(self) -> None:
        self._step("Validate: MESH learns that the mailbox is alive", "mesh validate-mailbox")
        validation = self._invoke("validate", Validation)
        self._result(document(validation), ok=validation.status == "ok")
        self._say(f"Mailbox {validation.mailbox}, certificate good for {validation.certificate_days_left} days")

    def _export(self, title: str, programmes: Iterable[str], records: int) -> None:
        self._step(title, "mesh dps-export")
        run = self._invoke("export", ExportRun)
        sent = [outcome for outcome in run.exports if outcome.status == "accepted"]
        self._result(
            document(run),
            ok=run.status == "ok"
            and sorted(outcome.programme for outcome in sent) == sorted(programmes)
            and sum(outcome.records or 0 for outcome in sent) == records
            and sorted([*programmes, *run.nothing_to_send]) == sorted(PROGRAMMES),
        )
        if not self.as_json:
            show_export_run(run)

    def _ledger(self, title: str, status: str, number: int) -> None:
        self._step(title, "mesh exports")
        found = list_exports(self.works_on.wiring.ledger())
        rows = [
            {
                "export_id": e.export_id,
                "status": str(e.status),
                "records": e.records,
                "filename": e.attempt and e.attempt.filename,
                "mesh_filename": e.attempt and e.attempt.mesh_filename,
                "processing": processing_in_words(e),
            }
            for e in found
        ]
        self._result(rows, ok=[row["status"] for row in rows] == [status] * number)
        if not self.as_json:
            data.print(exports_table(found))

    def _inbox(self, title: str, receiver: MeshClient, number: int) -> list[str]:
        self._step(title, f"MESH_MAILBOX={RECEIVER} MESH_PASSWORD=password mesh check-inbox")
        messages = list(receiver.inbox())
        self._result(messages, ok=len(messages) == number)
        if not self.as_json:
            data.print(Table(f"Inbox of {RECEIVER}", ["message id"], [[message] for message in messages]))
        return messages

    def _first_rows(self, receiver: MeshClient, messages: list[str]) -> None:
        self._step("The first rows of one file", f"MESH_MAILBOX={RECEIVER} … mesh get-message {messages[0]}")
        with receiver.download(messages[0]) as message:
            filename, body = message.filename, message.read()
        lines = body.decode().splitlines()
        rows = _rows(body)
        self._result(
            {"filename": filename, "rows": len(rows), "columns": len(rows[0])},
            ok=all(row["ACTION_FLAG"] == "new" for row in rows) and len(rows[0]) == 34,
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
        self._result(found, ok=sorted(row[1] for row in found) == ["delete", "new", "new", "update"])
        if not self.as_json:
            data.print(Table("Corrections", ["file", "action", "record"], found))

    def _dps(self, title: str, dps: Dps, processed: int, refused: dict[str, str]) -> None:
        self._step(title, " ".join(["mesh local dps", *(f"--refuse {record}=…" for record in refused)]))
        files = dps.work()
        self._result(
            [facts(file) for file in files],
            ok=sum(file.processed for file in files) == processed
            and {row.row["UNIQUE_ID"]: row.refused for file in files for row in file.refused} == refused
            and not any(file.problem for file in files),
        )
        if not self.as_json:
            show_files(files)

    def _track(self, number: int) -> None:
        self._step("Track: did DPS pick them up?", "mesh track")
        run = self._invoke("track", TrackRun)
        tracked = [export.status for export in run.exports]
        self._result(document(run), ok=run.status == "ok" and tracked == ["acknowledged"] * number)
        if not self.as_json:
            show_track_run(run)

    def _collect(self, number: int, processed: int, refused: int) -> None:
        self._step("Collect: what does DPS say of each record?", "mesh collect")
        run = self._invoke("collect", CollectRun)
        answers = [message.answer for message in run.messages if message.answer]
        self._result(
            document(run),
            ok=run.status == "ok"
            and len(run.messages) == number
            and sum(answer.processed or 0 for answer in answers) == processed
            and sum(answer.refused or 0 for answer in answers) == refused,
        )
        if not self.as_json:
            rows = [
                [
                    m.answer.export_id if m.answer else "",
                    f"{m.answer.kind}, {m.filename.rpartition('.')[2]}" if m.answer else m.filename,
                    m.answer.outcome if m.answer else "kept",
                    m.answer and m.answer.processed,
                    m.answer and m.answer.refused,
                ]
                for m in run.messages
            ]
            data.print(Table("Collected", ["export", "answer", "outcome", "processed", "refused"], rows))
            data.print(f"DPS processed {processed} of {processed + refused} records and refused {refused}.")

    def _refused(self, title: str, refused: dict[str, str]) -> None:
        self._step(title, "mesh refused --text")
        wiring = self.works_on.wiring
        found = tell_refused(wiring.bucket(), list(find_refused(wiring.register())), text=True)
        texts = {one.record: one.text for one in found}
        self._result(texts, ok=texts == refused)
        if found and not self.as_json:
            show_refused(found)
        if not found:
            self._say("DPS has refused no record as it was sent last.")

    def _invoke[T](self, job: str, answers: type[T]) -> T:
        """Invoke a function; return its answer as the use case gave it."""
        return have_done(self.works_on, job, answers, as_json=False)

    # -- telling

    def _step(self, title: str, command: str = "") -> None:
        self.steps.append({"step": title, "ok": True})
        if not self.as_json:
            data.print()
            data.rule(f"[bold]{len(self.steps)}. {title}", align="left")
            if command:
                data.print(f"$ {command}", style="dim", markup=False)

    def _say(self, text: str) -> None:
        if not self.as_json:
            data.print(text)

    def _result(self, result: Any, *, ok: bool) -> None:
        self.steps[-1]["result"] = result
        self._check(ok)

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


def _rows(body: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(body.decode(), newline=""), delimiter="|"))
