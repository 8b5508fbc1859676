"""Promises about `mesh sample`: there is something to upload, in each form, with as many rows as are wanted."""

from __future__ import annotations

import io
import re
from collections import Counter
from datetime import date

import pytest
from typer.testing import CliRunner

from local.sample import Form, corrected_upload, sample_upload
from local.stack import PROJECT
from mesh_cli.main import app
from vaccinations.formats.upload_csv import read_csv
from vaccinations.formats.upload_jsonl import read_jsonl
from vaccinations.model.row import Faulty, Vaccinated

DAY = date(2026, 9, 14)


def sample(*options: str) -> bytes:
    done = CliRunner().invoke(app, ["sample", "--day", DAY.isoformat(), *options])
    assert done.exit_code == 0, done.output
    return done.stdout_bytes


def test_the_file_in_the_docs_is_what_the_command_prints() -> None:
    [options] = re.findall(r"mesh sample (.+) > docs/sample.csv", (PROJECT / "Makefile").read_text())
    done = CliRunner().invoke(app, ["sample", *options.split()])
    assert (PROJECT / "docs" / "sample.csv").read_bytes() == done.stdout_bytes, "make it anew with: make schemas"


@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize(("rows", "bad"), [(0, 1), (7, 0), (70, 12)])
def test_a_sample_has_the_good_and_the_bad_rows_that_are_asked_for(form: Form, rows: int, bad: int) -> None:
    read = read_jsonl if form == Form.JSONL else read_csv
    body = io.BytesIO(sample("--format", form, "--rows", str(rows), "--bad", str(bad)))
    found = list(read(body, organisation_code="R1L", today=DAY))
    good = {row.record_id for row in found if isinstance(row, Vaccinated)}
    assert (len(good), Counter(map(type, found))[Faulty]) == (rows, bad)


def test_the_samples_that_the_story_uploads_can_be_had_by_command() -> None:
    of_the_story = sample_upload(DAY)
    assert sample("--rows", "300") == of_the_story.csv
    assert sample("--rows", "300", "--corrected") == corrected_upload(of_the_story)


@pytest.mark.parametrize("options", [["--rows", "11"], ["--format", "jsonl"]])
def test_a_correction_that_cannot_be_made_is_refused(options: list[str]) -> None:
    done = CliRunner().invoke(app, ["sample", "--corrected", *options])
    assert (done.exit_code, done.stdout) == (2, "")
    assert "at least 12 rows" in done.stderr
