"""The project as built, with an Export that is always near its time limit."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from local.stack import PROJECT
from vaccinations.jobs.export import SECONDS_FOR_A_PART

if TYPE_CHECKING:
    from pathlib import Path


def hurried_project(folder: Path) -> Path:
    """Make a project whose template does not give Export the time for a second step, with this project's build.

    Each of its runs then does one step (makes a part, or sends one), and hands over.
    """
    built = PROJECT / ".aws-sam" / "build" / "template.yaml"
    template = folder / "template.yaml"
    text = (PROJECT / "template.yaml").read_text()
    before, export, after = text.partition("CodeUri: functions/export/")
    hurried = after.replace("Timeout: 900\n", f"Timeout: {SECONDS_FOR_A_PART:.0f}\n", 1)
    assert hurried.index("Timeout") < hurried.index("Type: AWS::Serverless::Function")
    template.write_text(before + export + hurried)
    os.utime(template, (built.stat().st_mtime,) * 2)
    (folder / ".aws-sam").symlink_to(PROJECT / ".aws-sam")
    for sources in ("functions", "layers"):
        (folder / sources).symlink_to(PROJECT / sources)
    return folder
