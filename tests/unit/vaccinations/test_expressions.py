from __future__ import annotations

import re
from enum import StrEnum
from types import SimpleNamespace
from typing import Any

import pytest

from vaccinations.aws import backoff
from vaccinations.aws.expressions import (
    any_of,
    below,
    deserialise,
    equals,
    exists,
    not_exists,
    put,
    serialise,
    shorter,
    transact,
    update,
)


class Colour(StrEnum):
    RED = "red"


def spelled_out(request: dict[str, Any], which: str) -> str:
    """Return an expression with what its aliases stand for."""
    meanings = request.get("ExpressionAttributeNames", {}) | {
        alias: repr(value) for alias, value in deserialise(request.get("ExpressionAttributeValues", {})).items()
    }
    return re.sub(r"[#:]\d+", lambda alias: meanings[alias[0]], request[which])


def test_an_update_says_everything_in_one_expression() -> None:
    request = update(
        "table",
        {"programme": "hpv", "number": 3},
        sets={"status": "open", ("attached", "td-ipv"): 7, ("attempts", 0, "error"): None},
        appends={"batches": ["b"]},
        adds={"records": 5},
        deletes={"ids": {"x"}},
        removes=("lease", "error"),
    )
    assert request["TableName"] == "table"
    assert request["Key"] == {"programme": {"S": "hpv"}, "number": {"N": "3"}}
    assert spelled_out(request, "UpdateExpression") == (
        "SET status = 'open', attached.td-ipv = 7, attempts[0].error = None, batches = list_append(batches, ['b']) "
        "REMOVE lease, error ADD records 5 DELETE ids {'x'}"
    )
    assert "ConditionExpression" not in request


def test_no_name_or_value_stands_in_an_expression_itself() -> None:
    request = update("table", {"id": "1"}, sets={"status": "SECRET"}, conditions=[equals("size", 1), not_exists("if")])
    assert re.fullmatch(r"SET #\d = :\d", request["UpdateExpression"])
    assert re.fullmatch(r"#\d = :\d AND attribute_not_exists\(#\d\)", request["ConditionExpression"])


def test_a_name_that_comes_twice_has_one_alias_and_equal_values_may_differ() -> None:
    request = update("table", {"id": "1"}, sets={"status": "a"}, conditions=[equals("status", "a")])
    assert request["ExpressionAttributeNames"] == {"#0": "status"}
    assert spelled_out(request, "UpdateExpression") == "SET status = 'a'"
    assert spelled_out(request, "ConditionExpression") == "status = 'a'"


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        (equals("status", Colour.RED), "status = 'red'"),
        (below("number", 3), "number < 3"),
        (shorter("batches", 9), "size(batches) < 9"),
        (exists("id"), "attribute_exists(id)"),
        (not_exists(("lease", "until")), "attribute_not_exists(lease.until)"),
        (any_of(not_exists("open"), below("open", 3)), "(attribute_not_exists(open) OR open < 3)"),
    ],
)
def test_a_condition_reads_as_it_is_named(condition: Any, text: str) -> None:
    assert spelled_out(update("t", {"id": "1"}, removes=["x"], conditions=[condition]), "ConditionExpression") == text


def test_a_request_without_values_or_names_leaves_them_out() -> None:
    """DynamoDB refuses empty ones."""
    assert "ExpressionAttributeValues" not in update("table", {"id": "1"}, removes=["x"])
    assert put("table", {"id": "1"}) == {"TableName": "table", "Item": {"id": {"S": "1"}}}


def test_a_put_can_depend_on_the_item_not_being_there() -> None:
    request = put("table", {"id": "1"}, conditions=[not_exists("id")])
    assert spelled_out(request, "ConditionExpression") == "attribute_not_exists(id)"


def test_plain_values_come_back_as_they_went_in() -> None:
    plain = {"text": "a", "number": 3, "yes": True, "none": None, "list": [1, {"deep": 2}], "set": {"a", "b"}}
    assert serialise({"a": [Colour.RED]}) == {"a": {"L": [{"S": "red"}]}}
    back = deserialise(serialise(plain))
    assert back == plain
    assert type(back["number"]) is int
    assert type(back["list"][1]["deep"]) is int


def test_a_transaction_tells_why_it_was_not_written() -> None:
    class Cancelled(Exception):
        response = {"CancellationReasons": [{"Code": "ConditionalCheckFailed"}, {}]}  # noqa: RUF012

    def cancel(TransactItems: list[Any]) -> None:  # noqa: N803 - boto3's name
        raise Cancelled

    exceptions = SimpleNamespace(TransactionCanceledException=Cancelled)
    cancelling: Any = SimpleNamespace(exceptions=exceptions, transact_write_items=cancel)
    written: list[Any] = []
    writing: Any = SimpleNamespace(exceptions=exceptions, transact_write_items=lambda **given: written.append(given))
    assert transact(cancelling, iter([1, 2])) == ["ConditionalCheckFailed", "None"]
    assert transact(writing, iter([1, 2])) == []
    assert written == [{"TransactItems": [1, 2]}]


def test_pauses_grow_up_to_the_longest_and_none_comes_before_the_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(backoff, "sleep", pauses.append)
    monkeypatch.setattr(backoff.random, "uniform", lambda _, high: high)
    assert next(backoff.tries(3)) == 0
    assert not pauses
    assert list(backoff.tries(6, first=0.5, longest=3)) == [0, 1, 2, 3, 4, 5]
    assert pauses == [0.5, 1, 2, 3, 3]


def test_pauses_vary(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(backoff, "sleep", pauses.append)
    list(backoff.tries(50, first=1, longest=1))
    assert len(set(pauses)) > 40
    assert all(0 <= pause <= 1 for pause in pauses)
