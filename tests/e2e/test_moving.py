"""The cut-over of docs/moving.md, step by step, on the stack of this machine: DPS says what is right in the end."""

from __future__ import annotations

import os
import re
import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from local.dps import Dps, identifier
from local.stack import PROJECT, RECEIVER, LocalCloud
from tests.e2e.forks import Forks
from tests.usecases.rows import row, upload_of, uuid_of
from vaccinations.model.programmes import URIS

if TYPE_CHECKING:
    from pathlib import Path

PAGE = (PROJECT / "docs" / "moving.md").read_text()
STEP = re.compile(r"^### (\d+)\. (.+?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
BLOCK = re.compile(r"```console\n(.+?)```", re.DOTALL)

SENT, CORRECTED, NEW = 1, 2, 3


def commands() -> dict[int, list[str]]:
    """Return the commands of each step."""
    return {
        int(number): [line.removeprefix("$ ") for block in BLOCK.findall(step) for line in block.splitlines()]
        for number, step in STEP.findall(PAGE)
    }


def test_after_the_cut_over_dps_gets_what_is_new_and_what_was_corrected_and_nothing_twice(tmp_path: Path) -> None:
    steps = commands()
    with LocalCloud() as cloud, cloud.sandbox.client(RECEIVER) as receiver, ExitStack() as undo:
        environment = {**os.environ, **cloud.environment_of_commands(), "PYTHONPATH": str(PROJECT), "COLUMNS": "200"}
        forks = undo.enter_context(Forks(environment, tmp_path, tmp_path))

        def run(step: int) -> str:
            said = ""
            for command in steps.pop(step):
                mesh, *arguments = shlex.split(command)
                assert mesh == "mesh"
                done = forks.run(*arguments)
                assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
                said += done.stdout
            return said

        def upload(name: str, text: str) -> None:
            bucket = cloud.outputs["BucketName"]
            cloud.client("s3").put_object(Bucket=bucket, Key=f"incoming/R1L/{name}", Body=text)
            cloud.drain()

        flag = cloud.outputs["MeshJobsParameterName"]
        cloud.client("ssm").put_parameter(Name=flag, Value="disabled", Type="String", Overwrite=True)
        dps = Dps(receiver)
        old = [{"UNIQUE_ID": uuid_of(n), "UNIQUE_ID_URI": URIS["vaccination_record"]} for n in (SENT, CORRECTED)]
        for record in old:
            dps.take(record)

        assert "disabled" in run(1)
        (tmp_path / "sent-before.csv").write_text(upload_of(row(SENT), row(CORRECTED)))
        run(5)
        upload("monday.csv", upload_of(row(SENT), row(CORRECTED, batch="CD5678"), row(NEW)))
        run(6)
        assert cloud.invoke("ExportFunction")["status"] == "skipped", "nothing goes out before step 7"
        assert "hpv-1" in run(7)

        sent: Any = cloud.invoke("ExportFunction")["exports"]
        assert [(export["export_id"], export["status"]) for export in sent] == [("hpv-1", "accepted")]
        [file] = dps.work()
        judged = {one.row["UNIQUE_ID"]: (one.row["ACTION_FLAG"].lower(), one.refused) for one in file.rows}
        assert judged == {uuid_of(CORRECTED): ("update", ""), uuid_of(NEW): ("new", "")}
        assert len(dps.on_file) == 3
        assert dps.on_file[identifier(old[1])].row["BATCH_NUMBER"] == "CD5678"

        cloud.invoke("TrackFunction")
        cloud.invoke("CollectFunction")
        assert "acknowledged" in run(8)
        assert not any(steps.values()), "a step's commands that nobody has run"
        assert cloud.invoke("ExportFunction")["exports"] == []
