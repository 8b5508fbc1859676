"""Promises about the environment: each function reads its own variables, and says what is wrong with them."""

from __future__ import annotations

from pathlib import Path

import pytest

from local.template import Template
from vaccinations.model.uploaders import Uploaders
from vaccinations.settings import COMMAND, READS, FilenameStyle, Settings, SettingsError

TEMPLATE = Path(__file__).parents[3] / "template.yaml"
#: Variables of libraries, which are not ours to read.
LIBRARIES = ("POWERTOOLS_", "AWS_")
MESH = {"MESH_BASE_URL": "https://localhost", "MESH_SECRET": "mesh", "MESH_JOBS_PARAMETER": "/mesh_jobs"}
EXPORT = {
    **MESH,
    "DPS_EXPORTS_TABLE": "exports",
    "BUCKET": "bucket",
    "DPS_MAILBOX": "X26ABC3",
    "DPS_SUPPLIER_ODS_CODE": "V0V8L",
}


def test_the_template_gives_each_function_the_variables_that_it_reads_and_no_others() -> None:
    functions = Template.read(TEMPLATE).functions()
    given = {
        name.removesuffix("Function").lower(): {v for v in function.variables if not v.startswith(LIBRARIES)}
        for name, function in functions.items()
    }
    assert given == {job: set(variables) for job, variables in READS.items()}


def test_all_missing_variables_are_named_at_once() -> None:
    with pytest.raises(
        SettingsError, match=r"missing from the environment: BUCKET, UPLOADS_QUEUE, VACCINATION_RECORDS_TABLE$"
    ):
        Settings.of("ingest", {"DPS_EXPORTS_TABLE": "exports", "BUCKET": ""})


def test_a_function_does_not_need_what_it_does_not_read() -> None:
    assert Settings.of("status", {"DPS_EXPORTS_TABLE": "exports"}).exports_table == "exports"


def test_a_setting_that_the_function_does_not_read_cannot_be_had_even_where_it_is_in_the_environment() -> None:
    settings = Settings.of("track", {**EXPORT, "BUCKET": "bucket", "UPLOADS_QUEUE": "q"})
    with pytest.raises(SettingsError, match="track does not read UPLOADS_QUEUE"):
        _ = settings.uploads_queue


def test_the_command_reads_everything() -> None:
    with pytest.raises(SettingsError) as caught:
        Settings.of(COMMAND, {})
    for name in ("BUCKET", "DPS_EXPORTS_TABLE", "DPS_MAILBOX", "MESH_SECRET", "VACCINATION_RECORDS_TABLE"):
        assert name in str(caught.value)


def test_what_is_left_out_means_what_the_guide_says_and_names_that_dps_takes() -> None:
    settings = Settings.of("export", EXPORT)
    assert (settings.workflow_id, settings.filename_style) == ("dps export", FilenameStyle.BATCH_V5)
    assert (settings.verify_ssl, settings.event_bus) == (True, "")


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("MESH_DISABLE_SSL_VERIFICATION", "yes", "MESH_DISABLE_SSL_VERIFICATION must be one of: false, true"),
        ("DPS_FILENAME_STYLE", "v6", "DPS_FILENAME_STYLE must be one of: guide, batch-v5"),
    ],
)
def test_a_value_that_means_nothing_is_named_with_what_it_may_be(name: str, value: str, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        Settings.of("export", {**EXPORT, name: value})


@pytest.mark.parametrize("code", ["", "V", "V0V8L-1"])
def test_the_names_that_dps_takes_need_the_suppliers_ods_code(code: str) -> None:
    with pytest.raises(SettingsError, match="needs DPS_SUPPLIER_ODS_CODE"):
        Settings.of("export", {**EXPORT, "DPS_SUPPLIER_ODS_CODE": code})
    assert Settings.of("export", EXPORT).supplier_ods_code == "V0V8L"


def test_the_names_of_the_guide_need_no_ods_code() -> None:
    guide = {**EXPORT, "DPS_FILENAME_STYLE": "guide", "DPS_SUPPLIER_ODS_CODE": ""}
    assert Settings.of("export", guide).filename_style is FilenameStyle.GUIDE


@pytest.mark.parametrize(("value", "verified"), [("true", False), ("True", False), ("false", True)])
def test_certificates_are_checked_unless_the_deployment_says_otherwise(value: str, *, verified: bool) -> None:
    assert Settings.of("track", {**EXPORT, "MESH_DISABLE_SSL_VERIFICATION": value}).verify_ssl is verified


def test_settings_do_not_show_their_values() -> None:
    assert "X26ABC3" not in repr(Settings.of("export", EXPORT))


def test_uploaders_are_read_and_what_is_no_such_document_is_named_when_the_function_starts() -> None:
    ingest = dict.fromkeys(READS["ingest"], "set") | {"UPLOADERS": ""}
    assert Settings.of("ingest", ingest).uploaders == Uploaders()
    merged = Settings.of("ingest", {**ingest, "UPLOADERS": '{"RX1": {"succeeds": ["R1L"]}}'}).uploaders
    assert merged.may_change("RX1", "R1L")
    with pytest.raises(SettingsError, match="UPLOADERS is not JSON"):
        Settings.of("ingest", {**ingest, "UPLOADERS": "R1L"})
