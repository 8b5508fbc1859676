"""Mutation testing (docs/mutants.md): change the rules in thousands of small ways, and see whether a test notices.

    python -m tests.mutants [group ...]

mutmut makes the changes and runs the tests, for each group of modules in a folder of its own, .cache/mutants/{group}.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "layers" / "vaccinations" / "vaccinations"
FOLDER = ROOT / ".cache" / "mutants"
PYTHON = [sys.executable, "-m"]
UNIT, USECASES = "tests/unit/vaccinations/test_{}.py", "tests/usecases/test_{}.py"

#: Of each group: its modules, and the tests that may notice.
GROUPS: dict[str, tuple[list[str], list[str]]] = {
    "lifecycle": (
        ["model/lifecycle.py", "model/export.py"],
        [UNIT.format("lifecycle"), *map(USECASES.format, ("transfer", "ledger", "status", "restoring"))],
    ),
    "decide": (
        ["model/decide.py", "model/entry.py", "model/row.py", "model/uploaders.py"],
        [
            *map(UNIT.format, ("decide", "entry", "uploaders")),
            *map(USECASES.format, ("statements", "ingest", "parked", "last_statement", "what_comes_together")),
        ],
    ),
    "export": (
        ["jobs/export.py", "jobs/transfer.py", "jobs/render.py"],
        [USECASES.format("transfer"), USECASES.format("export")],
    ),
    "ledger": (["aws/ledger.py"], [USECASES.format("ledger"), USECASES.format("restoring")]),
    "ingest": (
        ["jobs/ingest.py", "jobs/spool.py", "jobs/statements.py"],
        [
            *map(
                USECASES.format, ("ingest", "statements", "parked", "frozen_ingest", "kept_statements", "hearing_back")
            ),
            *map(USECASES.format, ("last_statement", "what_comes_together")),
        ],
    ),
    "record": (["model/record.py"], [UNIT.format("record"), UNIT.format("londons_day")]),
    "data": (
        ["model/programmes.py", "model/london.py", "model/outcome.py", "model/problems.py"],
        [*map(UNIT.format, ("programmes", "london", "outcome", "dps_columns", "dps_names", "upload_csv"))],
    ),
}
#: Tests that need no server, at one clock.
SELECTED = "not (moto or Local or sandbox or 00:30 or 23:30 or February)"
OPTIONS = ["-p", "no:cacheprovider", "-p", "no:xdist", "--hypothesis-profile=fast", "--timeout=15"]
#: What is said in the log is no promise, but for the sentences of the guide, which tests look for.
LOG = [r"^\s*logger\.(info|warning|error|exception|append_keys)\(", r"^\s*extra(: .*)? = ", r"^\s*extra="]
#: Groups with functions that run while a module is loaded. mutmut's processes have it loaded already.
LOADED = {"record", "data"}
#: mutmut's exit codes where a test failed, and where none came to an end: a mutant that hangs is noticed.
FAILED, HUNG = {1, 3}, {24, 36, 152, 255, -24}


def run(group: str) -> None:
    """Make a group's mutants and try them."""
    modules, tests = GROUPS[group]
    folder = FOLDER / group
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCE, folder / "src" / "vaccinations")
    shutil.copytree(ROOT / "tests", folder / "tests")
    shutil.copytree(ROOT / "docs", folder / "docs")
    shutil.copy(ROOT / "template.yaml", folder)
    for module in modules:
        source = folder / "src" / "vaccinations" / module
        source.write_text(undecorate(source.read_text()))
    settings = {
        "source_paths": ["src"],
        "only_mutate": [f"src/vaccinations/{module}" for module in modules],
        "also_copy": ["docs", "template.yaml"],
        "do_not_mutate_patterns": LOG,
        "pytest_add_cli_args": OPTIONS,
        "pytest_add_cli_args_test_selection": [*(test for test in tests if (ROOT / test).exists()), "-k", SELECTED],
        "timeout_constant": 5.0,
        "use_git_change_detection": False,
        "track_dependencies": False,
    }
    lines = [f"{name} = {json.dumps(value)}" for name, value in settings.items()]
    project = (ROOT / "pyproject.toml").read_text()
    (folder / "pyproject.toml").write_text("\n".join([project, "[tool.mutmut]", *lines, ""]))
    subprocess.run([*PYTHON, "mutmut", "run", "--max-children", "1"], cwd=folder, check=True)
    if group in LOADED:
        retry(folder, tests)


def undecorate(source: str) -> str:
    """Decorate methods after they are defined: those that are decorated mutmut leaves alone."""
    lines = source.splitlines()
    functions = [
        node
        for cls in ast.parse(source).body
        if isinstance(cls, ast.ClassDef)
        for node in cls.body
        if isinstance(node, ast.FunctionDef) and node.decorator_list
    ]
    for function in reversed(functions):
        decorated = function.name
        for decorator in reversed(function.decorator_list):
            decorated = f"{ast.unparse(decorator)}({decorated})"
        lines.insert(function.end_lineno or 0, f"{' ' * function.col_offset}{function.name} = {decorated}")
        del lines[function.decorator_list[0].lineno - 1 : function.lineno - 1]
    return "\n".join(lines) + "\n"


def retry(folder: Path, tests: list[str]) -> None:
    """Try the survivors once more, each in a Python of its own."""
    selected = [*(test for test in tests if test.startswith("tests/unit") and (ROOT / test).exists()), "-k", SELECTED]
    command = [*PYTHON, "pytest", "-x", "-q", "-n0", "-p", "no:randomly", "--hypothesis-profile=fast", *selected]
    path = f"src{os.pathsep}{os.environ['PYTHONPATH']}"
    for meta in folder.glob("mutants/src/**/*.meta"):
        found = json.loads(meta.read_text())
        for name, code in found["exit_code_by_key"].items():
            if code not in FAILED | HUNG:
                mutated = os.environ | {"PYTHONPATH": path, "MUTANT_UNDER_TEST": name}
                tried = subprocess.run(command, cwd=folder / "mutants", env=mutated, capture_output=True, check=False)
                # What cannot be loaded is noticed, too.
                found["exit_code_by_key"][name] = min(tried.returncode, 1)
        meta.write_text(json.dumps(found, indent=4))


def tell() -> None:
    """Print the table and the survivors in Markdown."""
    from mutmut.mutation.diff_apply import get_diff_for_mutant

    survivors: list[str] = []
    totals: Counter[str] = Counter()
    print("| Module | Mutants | Killed | Survived |\n|---|---|---|---|")
    for meta in sorted(FOLDER.glob("*/mutants/src/**/*.meta")):
        codes: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
        checked = {name: code for name, code in codes.items() if code is not None}
        left = [name for name, code in checked.items() if code not in FAILED | HUNG]
        folder, _, path = str(meta).removesuffix(".meta").partition("/mutants/src/")
        os.chdir(folder)
        for name in left:
            difference = get_diff_for_mutant(name, path=Path("src") / path).splitlines()
            survivors += ["", name, *(line for line in difference[3:] if line[:1] in {"+", "-"})]
        counted = {"mutants": len(checked), "killed": len(checked) - len(left), "survived": len(left)}
        totals.update(counted)
        if checked:
            print(f"| {path.removeprefix('vaccinations/')} | {' | '.join(map(str, counted.values()))} |")
    print(f"| all | {' | '.join(map(str, totals.values()))} |", *survivors, sep="\n")


if __name__ == "__main__":
    for name in sys.argv[1:] or GROUPS:
        if name != "tell":
            run(name)
    tell()
