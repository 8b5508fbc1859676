"""What finding batch lines again promises."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vaccinations.jobs.statements import Statements

if TYPE_CHECKING:
    from pathlib import Path

HPV, FLU = ("hpv", "b1"), ("flu", "b1")


def batch_line(n: int, line: int, surname: str = "Zephyrson") -> bytes:
    fields: dict[str, Any] = {"surname": surname, "uuid": record_id(n), "line": line, "digest": "d1"}
    # Statements of before may have stood in any line, that of an earlier or a later record, too.
    fields["before"] = {"batch_id": "b0", "line": line + (1 if n % 2 else -1), "digest": "d0"}
    return orjson.dumps(fields, option=orjson.OPT_APPEND_NEWLINE)


def record_id(n: int) -> str:
    return str(uuid.UUID(int=n))


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("statements")


@given(
    st.lists(st.tuples(st.integers(1, 5), st.text(max_size=9) | st.just('x"line":7,')), min_size=1, max_size=120),
    st.data(),
)
def test_each_line_of_a_batch_is_found_whatever_it_holds_and_in_whatever_order_lines_are_asked_for(
    directory: Path, said: list[tuple[int, str]], data: st.DataObject
) -> None:
    with closing(Statements(directory / "statements")) as statements:
        the_lines_are_found(statements, said, data)


def the_lines_are_found(statements: Statements, said: list[tuple[int, str]], data: st.DataObject) -> None:
    lines: dict[int, bytes] = {}
    number = 0
    for n, (step, surname) in enumerate(said):
        number += step
        lines[number] = batch_line(n, number, surname)
    half = len(lines) // 2
    statements.add(HPV, list(lines.values())[:half])
    statements.add(FLU, [batch_line(999, 1)])
    assert statements.find(HPV, {}) == {}  # a block ends here
    statements.add(HPV, list(lines.values())[half:])
    places = {record_id(n): line for n, line in enumerate(lines)}
    wanted = data.draw(st.lists(st.sampled_from(list(places)), unique=True))
    assert statements.find(HPV, {i: places[i] for i in wanted}) == {i: lines[places[i]] for i in wanted}
    assert (HPV in statements, FLU in statements, ("flu", "b2") in statements) == (True, True, False)


@pytest.mark.parametrize(("n", "line"), [(1, 1), (1, 3), (1, 99), (2, 2)])
def test_a_batch_that_lacks_a_statement_is_an_error(directory: Path, n: int, line: int) -> None:
    with closing(Statements(directory / "statements")) as statements:
        statements.add(HPV, [batch_line(1, 2)])
        with pytest.raises(LookupError, match="lacks a record"):
            statements.find(HPV, {record_id(n): line})
