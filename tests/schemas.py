"""The JSON schemas of what the use cases answer, store and publish, and of a line of an upload: ``make schemas``.

They are made from the classes; what the fields of a line mean is taken from their table in docs/upload-format.md.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from tests.names import PAGE
from vaccinations import results
from vaccinations.model.programmes import GENDERS, PROGRAMMES, ROUTES, SITES, VACCINES
from vaccinations.model.record import VaccinationRecord

__all__ = ["FOLDER", "UPLOAD_LINE", "schemas"]

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"
UPLOAD_LINE = "upload-line.schema.json"
_DIALECT = {"$schema": "https://json-schema.org/draft/2020-12/schema"}


def schemas() -> dict[str, str]:
    """Return each schema's text, by file name."""
    found = [value for name in results.__all__ if is_dataclass(value := getattr(results, name))]
    made = {f"{_kebab(cls.__name__)}.schema.json": _schema(cls) for cls in found} | {UPLOAD_LINE: _upload_line()}
    return {name: json.dumps(schema, indent=2) + "\n" for name, schema in made.items()}


def _schema(cls: Any) -> dict[str, Any]:
    schema = TypeAdapter(cls).json_schema(mode="serialization")
    _describe(schema, cls)
    for name, part in schema.get("$defs", {}).items():
        if is_dataclass(inner := getattr(results, name, None)):
            _describe(part, inner)
    return _DIALECT | schema


def _describe(schema: dict[str, Any], cls: Any) -> None:
    """Put what a class's docstring says into its schema. What is written is there in full, so all of it is required."""
    text = inspect.getdoc(cls) or ""
    schema["description"] = " ".join(text.partition("\n\n")[0].split())
    _, _, attributes = text.partition("Attributes\n----------\n")
    for names, said in re.findall(r"^(\S.*)\n((?:    .*\n?|\n)+)", attributes, re.MULTILINE):
        for name in names.split(", "):
            schema["properties"][name]["description"] = " ".join(said.replace("``", "`").split())
    for part in schema["properties"].values():
        part.pop("title", None)
        part.pop("default", None)
    schema["required"] = list(schema["properties"])


#: What a schema that pydantic makes does not say of a record, because a function checks it.
_KEYS = {"gender": GENDERS, "programme": PROGRAMMES, "vaccine": VACCINES, "site": SITES, "route": ROUTES}
_MOMENT = {"type": "string", "pattern": "^[0-9]{4}-[0-9]{2}-[0-9]{2}([T ]|$)"}
_NOTHING = {"enum": [None, ""]}
_STATED = {"type": "string", "minLength": 1}


def _upload_line() -> dict[str, Any]:
    """Make the schema of a line of an upload of JSON lines from the record that it states."""
    record = VaccinationRecord.model_json_schema()
    required = [name for name in record["required"] if name not in {"organisation_code", "postcode"}]
    properties = {}
    for name, part in record["properties"].items():
        form = part.get("anyOf", [part])[0]
        form.pop("title", None)
        if name in _KEYS:
            form["enum"] = list(_KEYS[name])
        elif name == "vaccinated_at":  # pydantic's "date-time" would want an offset, and refuse a date alone
            form = _MOMENT
        properties[name] = _STATED | form if name in required else {"anyOf": [form, _NOTHING]}
    for flag in ("vaccinated", "deleted"):
        properties[flag] = {"anyOf": [{"type": "boolean"}, _NOTHING]}
    meanings = _meanings()
    return _DIALECT | {
        "title": "UploadLine",
        "description": "One line of an upload of JSON lines: it states a vaccination record, or withdraws one.",
        "type": "object",
        "properties": {name: {"description": meanings[name], **part} for name, part in properties.items()},
        "required": ["uuid"],
        "additionalProperties": False,
        "if": {"anyOf": [_says("vaccinated", const=False), _says("deleted", const=True)]},
        "else": {"required": required, "anyOf": [_says("postcode", **_STATED), _says("nhs_number", **_STATED)]},
    }


def _says(field: str, **form: Any) -> dict[str, Any]:
    return {"properties": {field: form}, "required": [field]}


def _meanings() -> dict[str, str]:
    """Return what the table of JSON lines says of each field, without Markdown's links."""
    _, _, section = PAGE.read_text().partition("\n## JSON lines\n")
    rows = re.findall(r"^\| ([a-z_, ]+) \| (.+) \|$", section.partition("\n## ")[0], re.MULTILINE)
    return {name: re.sub(r"\[(.+?)\]\(.+?\)", r"\1", said) for names, said in rows for name in names.split(", ")}


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    for name, text in schemas().items():
        (FOLDER / name).write_text(text)
