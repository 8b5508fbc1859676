"""What each command of the app has to be given in a test; a command that is added is found by itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.commands import commands
from tests.usecases.rows import row, upload_of, uuid_of

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["given", "runnable"]


def runnable() -> list[tuple[tuple[str, ...], Any]]:
    """Return the commands that do something when nothing stands behind them."""
    return [(words, each) for words, each in commands() if words and not each.no_args_is_help]


def given(words: tuple[str, ...], command: Any, folder: Path) -> list[str]:
    """Return a command line with everything that the command needs, and nobody has to be asked for."""
    line = list(words)
    for parameter in command.params:
        wanted = parameter.required or parameter.name in {
            "which",
            "yes",
            "reason",
            "wait",
            "passphrase_file",
            "directory",
        }
        if not wanted:
            continue
        if parameter.name not in _GIVEN:
            pytest.fail(f"mesh {' '.join(words)} needs {parameter.name!r}: say in {__file__} what tests give it")
        value = _GIVEN[parameter.name]
        if value in _FILES:
            (folder / value).write_text(_FILES[value])
            value = str(folder / value)
        if parameter.param_type_name == "argument":
            line.append(value)
        else:
            line += [parameter.opts[0], *([value] if value else [])]
    return line


_FILES = {"monday.csv": upload_of(row(1)), "passphrase.txt": "a long passphrase"}
#: What a parameter is given, by its name.
_GIVEN = {
    "directory": ".",
    "export_id": "hpv-1",
    "file": "monday.csv",
    "function": "export",
    "key": "R1L/monday.csv",
    "mailbox": "X26ABC1",
    "message_id": "20261123030618000000_ABCDEF",
    "ods_code": "R1L",
    "organisation": "R1L",
    "outcome": "unknown",
    "passphrase_file": "passphrase.txt",
    "programme": "hpv",
    "reason": "the test wants it",
    "record_id": uuid_of(1),
    "to": "X26ABC3",
    "upload_key": "R1L/monday.csv",
    "wait": "0",
    "which": uuid_of(1),
    "workflow_id": "DPS_EXPORT",
    "yes": "",
}
