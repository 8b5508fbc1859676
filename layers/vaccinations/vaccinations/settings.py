"""What a deployment is told from outside: the environment's variables, and which of them each function reads."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from vaccinations.formats.dps_names import FilenameStyle
from vaccinations.model.programmes import is_ods_code
from vaccinations.model.uploaders import Uploaders

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["COMMAND", "READS", "Settings", "SettingsError"]

#: What speaking to MESH takes, and the flag that switches that off.
_MESH = ("MESH_BASE_URL", "MESH_SECRET", "MESH_DISABLE_SSL_VERIFICATION", "MESH_JOBS_PARAMETER")

#: The variables that each function reads; the template gives it these and no others.
READS: Mapping[str, tuple[str, ...]] = {
    "validate": _MESH,
    "ingest": ("BUCKET", "VACCINATION_RECORDS_TABLE", "DPS_EXPORTS_TABLE", "UPLOADERS", "UPLOADS_QUEUE", "EVENT_BUS"),
    "export": (
        *_MESH,
        "DPS_EXPORTS_TABLE",
        "BUCKET",
        "DPS_MAILBOX",
        "MESH_WORKFLOW_ID",
        "DPS_FILENAME_STYLE",
        "DPS_SUPPLIER_ODS_CODE",
        "EVENT_BUS",
    ),
    "track": (*_MESH, "BUCKET", "DPS_EXPORTS_TABLE", "EVENT_BUS"),
    "collect": (
        *_MESH,
        "BUCKET",
        "DPS_EXPORTS_TABLE",
        "VACCINATION_RECORDS_TABLE",
        "DPS_ANSWERS_MAILBOX",
        "EVENT_BUS",
    ),
    "reconcile": ("BUCKET", "VACCINATION_RECORDS_TABLE", "DPS_EXPORTS_TABLE", "UPLOADS_QUEUE"),
    "status": ("DPS_EXPORTS_TABLE",),
}
#: What stands for the ``mesh`` command in place of a function: it reads everything.
COMMAND = "command"

#: Variables that may be left out, and what is meant then.
_DEFAULTS = {
    "MESH_WORKFLOW_ID": "dps export",
    "MESH_DISABLE_SSL_VERIFICATION": "false",
    "DPS_ANSWERS_MAILBOX": "",
    "DPS_FILENAME_STYLE": "batch-v5",
    "DPS_SUPPLIER_ODS_CODE": "",
    "EVENT_BUS": "",
    "UPLOADERS": "{}",
}


class SettingsError(ValueError):
    """A setting is missing or has a value that means nothing; the message names it and what it may be."""


#: Variables that are one of a few words.
_WORDS = {
    "MESH_DISABLE_SSL_VERIFICATION": ("false", "true"),
    "DPS_FILENAME_STYLE": tuple(str(style) for style in FilenameStyle),
}


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings that one function, or the command, reads. `of` makes them.

    Reading one that the function does not have on AWS raises `SettingsError`.

    Attributes
    ----------
    job
        The function, or `COMMAND`.
    values
        The value of each variable that it reads.
    """

    job: str
    values: Mapping[str, str] = field(repr=False)

    @classmethod
    def of(cls, job: str, environ: Mapping[str, str]) -> Self:
        """Read the settings from environment variables, and check them.

        Parameters
        ----------
        job
            A function of `READS`, or `COMMAND`.

        Raises
        ------
        SettingsError
            Variables are missing or hold a value that is not allowed; all missing ones are named at once.
        """
        reads = {name for names in READS.values() for name in names} if job == COMMAND else READS[job]
        values = {name: environ.get(name) or _DEFAULTS.get(name) for name in sorted(reads)}
        if missing := [name for name, value in values.items() if value is None]:
            raise SettingsError(f"missing from the environment: {', '.join(missing)}")
        settings = cls(job, {name: value or "" for name, value in values.items()})
        for name, words in _WORDS.items():
            if name in reads and settings[name].lower() not in words:
                raise SettingsError(f"{name} must be one of: {', '.join(words)}")
        if "UPLOADERS" in reads:
            _ = settings.uploaders
        if (
            "DPS_FILENAME_STYLE" in reads
            and settings.filename_style is FilenameStyle.BATCH_V5
            and not is_ods_code(settings.supplier_ods_code)
        ):
            raise SettingsError("DPS_FILENAME_STYLE=batch-v5 needs DPS_SUPPLIER_ODS_CODE, the supplier's ODS code")
        return settings

    def __getitem__(self, name: str) -> str:
        try:
            return self.values[name]
        except KeyError:
            raise SettingsError(f"{self.job} does not read {name}; READS in settings.py says what it does") from None

    @property
    def exports_table(self) -> str:
        """Name of the ledger's table."""
        return self["DPS_EXPORTS_TABLE"]

    @property
    def records_table(self) -> str:
        """Name of the register's table."""
        return self["VACCINATION_RECORDS_TABLE"]

    @property
    def bucket(self) -> str:
        """Name of the bucket."""
        return self["BUCKET"]

    @property
    def uploads_queue(self) -> str:
        """URL of the queue of uploads."""
        return self["UPLOADS_QUEUE"]

    @property
    def mesh_secret(self) -> str:
        """Name or ARN of the secret."""
        return self["MESH_SECRET"]

    @property
    def mesh_jobs_parameter(self) -> str:
        """Name of the SSM parameter that switches the jobs on and off."""
        return self["MESH_JOBS_PARAMETER"]

    @property
    def mesh_base_url(self) -> str:
        """MESH's address without the path, for example ``https://msg.intspineservices.nhs.uk``."""
        return self["MESH_BASE_URL"]

    @property
    def verify_ssl(self) -> bool:
        """False only towards a sandbox; the client refuses it for hosts of nhs.uk."""
        return self["MESH_DISABLE_SSL_VERIFICATION"].lower() == "false"

    @property
    def dps_mailbox(self) -> str:
        """``Mex-To`` of every export."""
        return self["DPS_MAILBOX"]

    @property
    def answers_mailbox(self) -> str:
        """``Mex-From`` of DPS's answers; empty where that is not known."""
        return self["DPS_ANSWERS_MAILBOX"]

    @property
    def workflow_id(self) -> str:
        """``Mex-WorkflowID`` of every export."""
        return self["MESH_WORKFLOW_ID"]

    @property
    def filename_style(self) -> FilenameStyle:
        """How files are named on MESH."""
        return FilenameStyle(self["DPS_FILENAME_STYLE"].lower())

    @property
    def supplier_ods_code(self) -> str:
        """The ODS code that DPS knows the supplier of this system by, part of the ``batch-v5`` name, or empty."""
        return self["DPS_SUPPLIER_ODS_CODE"]

    @property
    def uploaders(self) -> Uploaders:
        """Who may state for whom, and change whose records.

        Raises
        ------
        SettingsError
            The variable is not such a document.
        """
        try:
            return Uploaders.from_document(self["UPLOADERS"])
        except ValueError as error:
            raise SettingsError(f"UPLOADERS {error}") from None

    @property
    def event_bus(self) -> str:
        """Name or ARN of the bus that exports' changes of state are published on; empty where there is none."""
        return self["EVENT_BUS"]
