"""The API page of the MESH client, made from its docstrings: ``make schemas``."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import nhs_mesh

__all__ = ["PAGE", "api"]

PAGE = Path(__file__).parents[1] / "layers" / "mesh_client" / "docs" / "api.md"
#: In which order a reader wants them.
_FIRST = (
    "MeshClient",
    "Credentials",
    "Message",
    "SentMessage",
    "Part",
    "Resume",
    "Retry",
    "Tracking",
    "TrackingStatus",
)


def api() -> str:
    """Return the page's text."""
    names = sorted((name for name in nhs_mesh.__all__ if name != "__version__"), key=_order)
    intro = "Made from the docstrings by `make schemas`. Everything is imported from `nhs_mesh`."
    return "\n".join(["# API", "", intro, "", *(line for name in names for line in _entry(name))]).rstrip() + "\n"


def _order(name: str) -> tuple[int, int, str]:
    value = getattr(nhs_mesh, name)
    error = inspect.isclass(value) and issubclass(value, nhs_mesh.MeshError)
    place = _FIRST.index(name) if name in _FIRST else len(_FIRST)
    return (2 if error else 0 if name in _FIRST else 1, place, name)


def _entry(name: str) -> list[str]:
    value = getattr(nhs_mesh, name)
    if not callable(value):
        return [f"## {name}", "", f"`{value!r}`", ""]
    lines = [f"## {name}", "", *_signature(name, value), *_text(value)]
    if inspect.isclass(value):
        for method, function in vars(value).items():
            plain = getattr(function, "__func__", function)
            if not method.startswith("_") and inspect.isfunction(plain):
                lines += [f"### {name}.{method}", "", *_signature(method, plain), *_text(plain)]
    return lines


def _signature(name: str, value: Any) -> list[str]:
    """Write how it is called, an argument a line, for those that people call."""
    kept_to_itself = inspect.isclass(value) and (value is nhs_mesh.Message or issubclass(value, (str, Exception)))
    if kept_to_itself:
        return []
    parameters = [each for each in inspect.signature(value).parameters.values() if each.name not in {"self", "cls"}]
    shown = [f"    {str(each).replace(str(each.annotation), _plain(each.annotation))}," for each in parameters]
    shown = [
        line.replace(repr(each.annotation), _plain(each.annotation))
        for line, each in zip(shown, parameters, strict=True)
    ]
    keyword = next((n for n, each in enumerate(parameters) if each.kind is inspect.Parameter.KEYWORD_ONLY), None)
    if keyword is not None:
        shown.insert(keyword, "    *,")
    return ["```python", *([f"{name}(", *shown, ")"] if shown else [f"{name}()"]), "```", ""]


def _plain(annotation: Any) -> str:
    return annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))


def _text(value: Any) -> list[str]:
    """Turn a docstring's sections into paragraphs and lists."""
    lines = inspect.cleandoc(value.__doc__ or "").split("\n")
    found: list[str] = []
    section = ""
    for number, line in enumerate(lines):
        following = lines[number + 1] if number + 1 < len(lines) else ""
        if line and set(line) == {"-"}:
            continue
        if following and set(following) == {"-"}:
            if section == "Examples":
                found += ["```", ""]
            section = line
            found += [f"**{line}**", ""] + (["```python"] if line == "Examples" else [])
        elif section in {"", "Examples"}:
            found.append(line)
        elif line.startswith("    "):
            found.append(f"  {line.strip()}")
        elif line:
            found.append(f"- `{line}`:" if following.startswith("    ") else f"- {line}")
        else:
            found.append("")
    while found and not found[-1]:
        found.pop()
    text = "\n".join([*found, "```"] if section == "Examples" else found)
    text = re.sub(r"\n+(```\n\n)", r"\n\1", re.sub(r"(?<!`)``([^`]+)``(?!`)", r"`\1`", text))
    return [*text.split("\n"), ""]


if __name__ == "__main__":
    PAGE.write_text(api())
