"""Promises about what commands print for people."""

from __future__ import annotations

import io

from rich.console import Console

from mesh_cli.output import table


def test_a_terminal_obeys_nothing_that_stands_in_a_files_name() -> None:
    shown = io.StringIO()
    name = "\x1b]0;owned\x07\x1b[2J[red]a.csv\u202e"
    Console(file=shown, force_terminal=True, width=200).print(table("Uploads", ["upload"], [[name]]))
    assert r"\x1b]0;owned\x07\x1b[2J[red]a.csv\u202e" in shown.getvalue()
    assert "\x1b]" not in shown.getvalue()
