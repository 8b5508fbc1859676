"""Read an upload of JSON lines, plain or gzipped: one vaccination record, or one withdrawal, a line."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO
from uuid import UUID  # noqa: TC003 - pydantic reads annotations at run time

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from vaccinations.formats.batches import digest_of
from vaccinations.formats.upload_lines import MAX_LINE_BYTES, lines_of, unzipped
from vaccinations.model.assumed import Assumed, assumed_of, fill_in
from vaccinations.model.problems import Problem, UnreadableUpload
from vaccinations.model.record import VaccinationRecord, problems_of
from vaccinations.model.row import Faulty, Row, Vaccinated, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import date

__all__ = ["read_jsonl"]

_TOO_LONG = Problem("(line)", f"is longer than {MAX_LINE_BYTES // 1024} KB", "one record on one line")
_NOT_JSON = Problem("(line)", "is not a JSON object", "one JSON object in UTF-8 on one line")


class _Withdrawal(BaseModel):
    """A record is withdrawn by its identifier; whatever else the line says goes nowhere."""

    model_config = ConfigDict(hide_input_in_errors=True)

    uuid: UUID


def read_jsonl(stream: BinaryIO, *, organisation_code: str, today: date) -> Iterator[Row]:
    """Read an upload of JSON lines.

    Parameters
    ----------
    organisation_code
        The uploader's own, for lines that give none.
    today
        London's date on the day of the upload.

    Raises
    ------
    UnreadableUpload
        The file as a whole cannot be ingested. Rows read before that do not count.
    """
    empty = True
    for number, line in enumerate(lines_of(unzipped(stream)), start=1):
        if line is None or not line.isspace():
            empty = False
            yield _row(number, line, organisation_code, today)
    if empty:
        raise UnreadableUpload("the file is empty", "upload a file with at least one record")


def _row(number: int, line: bytes | None, organisation_code: str, today: date) -> Row:
    if line is None:
        return Faulty(number, (_TOO_LONG,))
    try:
        values = orjson.loads(line)
    except orjson.JSONDecodeError:
        return Faulty(number, (_NOT_JSON,))
    if not isinstance(values, dict):
        return Faulty(number, (_NOT_JSON,))

    flags = {name: values.pop(name, None) for name in ("vaccinated", "deleted")}
    problems = [
        Problem(name, "is neither true nor false", "true or false, without quotes")
        for name, value in flags.items()
        if not (value is None or value == "" or isinstance(value, bool))
    ]
    try:
        row: Row
        if flags["vaccinated"] is False or flags["deleted"] is True:
            row = Withdrawn(number, str(_Withdrawal.model_validate(values).uuid))
        else:
            values["organisation_code"] = values.get("organisation_code") or organisation_code
            if values.get("dose_sequence") == "":  # the other fields take empty text for nothing themselves
                values["dose_sequence"] = None
            assumed = fill_in(values)
            record = VaccinationRecord.model_validate(values, context={"today": today})
            if len(values["vaccinated_at"]) == len("YYYY-MM-DD"):
                assumed.append(Assumed.TIME)
            assumed += assumed_of(record.programme, record.dose_sequence, stated=values["programme"])
            row = Vaccinated(number, record, digest_of(record), tuple(assumed))
    except ValidationError as error:
        problems += problems_of(error)
    return Faulty(number, tuple(problems)) if problems else row
