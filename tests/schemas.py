"""The JSON schemas of what the use cases answer, store and publish, made from their classes: ``make schemas``."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vaccinations import results

__all__ = ["FOLDER", "schemas"]

FOLDER = Path(__file__).parents[1] / "docs" / "schemas"


def schemas() -> dict[str, str]:
    """Return each schema's text, by file name."""
    found = [value for name in results.__all__ if is_dataclass(value := getattr(results, name))]
    return {f"{_kebab(cls.__name__)}.schema.json": json.dumps(_schema(cls), indent=2) + "\n" for cls in found}


def _schema(cls: Any) -> dict[str, Any]:
    schema = TypeAdapter(cls).json_schema(mode="serialization")
    _describe(schema, cls)
    for name, part in schema.get("$defs", {}).items():
        if is_dataclass(inner := getattr(results, name, None)):
            _describe(part, inner)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


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


def _kebab(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for file in FOLDER.iterdir():
        file.unlink()
    for name, text in schemas().items():
        (FOLDER / name).write_text(text)
