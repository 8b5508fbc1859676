"""The tables of names in docs/upload-format.md, made from what the readers of uploads use: ``make schemas``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from vaccinations.formats.upload_csv import COLUMNS
from vaccinations.model.programmes import GENDERS, PROGRAMMES, SITES, VACCINES, by_brand

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PAGE", "with_names"]

PAGE = Path(__file__).parents[1] / "docs" / "upload-format.md"
_BETWEEN = re.compile(r"(?<=<!-- names: make schemas -->\n).*(?=<!-- end of names -->)", re.DOTALL)


def with_names(page: str) -> str:
    """Return the page with its tables as they have to be."""
    brands = {vaccine.key: vaccine.brand for vaccine in by_brand().values()}
    tables = (
        _table(
            ("column", "other names of it"), ((first, "; ".join(more)) for first, *more in COLUMNS.values() if more)
        ),
        _table(
            ("PROGRAMME", "in JSON lines", "doses", "codes of doses"),
            (
                ("; ".join(p.upload_names), f"`{p.key}`", f"1 to {p.most_doses}", _codes(p.dose_codes.items()))
                for p in PROGRAMMES.values()
            ),
        ),
        _table(
            ("VACCINE_GIVEN", "in JSON lines", "brand", "programme", "given as"),
            (
                ("; ".join(v.upload_names), f"`{v.key}`", brands.get(v.key, ""), PROGRAMMES[v.programme].name, v.method)
                for v in VACCINES.values()
            ),
        ),
        _table(
            ("ANATOMICAL_SITE", "in JSON lines"), (("; ".join(s.upload_names), f"`{s.key}`") for s in SITES.values())
        ),
        _table(("gender", "in JSON lines"), (("; ".join(g.upload_names), f"`{g.key}`") for g in GENDERS.values())),
    )
    return _BETWEEN.sub(lambda _: "\n" + "\n".join(tables) + "\n", page)


def _codes(codes: Iterable[tuple[str, int]]) -> str:
    return ", ".join(f"{code} is {dose}" for code, dose in codes)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n".replace("|  |", "| |") for cells in lines)


if __name__ == "__main__":
    PAGE.write_text(with_names(PAGE.read_text()))
