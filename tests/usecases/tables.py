"""DynamoDB in memory, as far as the ledger asks for it; tests/usecases/test_ledger.py holds it to what AWS's own does.

A read that is not consistent is as old as it may be: it does not know the last write.
"""

from __future__ import annotations

import copy
import operator
import re
from collections import defaultdict
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from vaccinations.aws.expressions import deserialise, serialise

if TYPE_CHECKING:
    from collections.abc import Iterator

    type Item = dict[str, Any]
    type Key = tuple[Any, ...]

OPERATORS = {"=": operator.eq, "<": operator.lt, ">": operator.gt, ">=": operator.ge}
CLAUSES = re.compile(r"(SET|REMOVE|ADD) ((?:(?! (?:SET|REMOVE|ADD) ).)+)")
#: A comma between two actions, not one between the arguments of a function.
COMMA = re.compile(r", (?![^(]*\))")


class ConditionalCheckFailed(Exception):
    """A condition did not hold."""


class TransactionCanceled(Exception):
    """The condition of one item of a transaction did not hold."""

    def __init__(self, codes: list[str]) -> None:
        super().__init__()
        self.response = {"CancellationReasons": [{"Code": code} for code in codes]}


class MemoryTables:
    """A client of DynamoDB whose tables are there without being made.

    Attributes
    ----------
    pages
        How many items each page had that was read.
    """

    exceptions = SimpleNamespace(
        ConditionalCheckFailedException=ConditionalCheckFailed, TransactionCanceledException=TransactionCanceled
    )

    def __init__(self) -> None:
        self._now: defaultdict[str, dict[Key, Item]] = defaultdict(dict)
        self._before = copy.deepcopy(self._now)
        self.pages: list[int] = []

    # -- reading

    def get_item(self, *, TableName: str, Key: Item, ConsistentRead: bool = False) -> Item:  # noqa: N803
        tables = self._now if ConsistentRead else self._before
        item = tables[TableName].get(_key(Key))
        return {"Item": serialise(item)} if item else {}

    def get_paginator(self, operation: str) -> SimpleNamespace:
        assert operation == "query"
        return SimpleNamespace(paginate=self._query)

    def _query(
        self,
        *,
        TableName: str,  # noqa: N803
        KeyConditionExpression: str,  # noqa: N803
        IndexName: str = "",  # noqa: N803
        ConsistentRead: bool = False,  # noqa: N803
        ScanIndexForward: bool = True,  # noqa: N803
        PaginationConfig: Item | None = None,  # noqa: N803
        **request: Any,
    ) -> Iterator[Item]:
        assert IndexName in {"", "by-status"}
        assert isinstance(ScanIndexForward, bool)
        limits = {"MaxItems": 10**9, "PageSize": 2} | (PaginationConfig or {})
        tables = self._now if ConsistentRead or IndexName else self._before
        expression = _Expression(request, KeyConditionExpression, request["ProjectionExpression"])
        sort = "updated_at" if IndexName else "number"
        found = [item for item in tables[TableName].values() if expression.holds(KeyConditionExpression, item)]
        found = sorted(found, key=lambda item: item[sort], reverse=not ScanIndexForward)[: limits["MaxItems"]]
        names = [expression.path(name)[0] for name in request["ProjectionExpression"].split(", ")]
        shown = [serialise({name: item[name] for name in names if name in item}) for item in found]
        for start in range(0, len(shown), limits["PageSize"]):
            page = shown[start : start + limits["PageSize"]]
            self.pages.append(len(page))
            yield {"Items": page}

    # -- writing

    def put_item(self, **request: Any) -> Item:
        return self._write({"Put": request})

    def delete_item(self, *, TableName: str, Key: Item) -> Item:  # noqa: N803
        self._keep()
        del self._now[TableName][_key(Key)]
        return {}

    def update_item(self, *, ReturnValues: str = "NONE", **request: Any) -> Item:  # noqa: N803
        changed = self._write({"Update": request})
        return {"Attributes": serialise(changed)} if ReturnValues == "ALL_NEW" else {}

    def _write(self, write: Item) -> Item:
        table, key, item = self._written(write)
        if item is None:
            raise ConditionalCheckFailed
        self._keep()
        self._now[table][key] = item
        return item

    def transact_write_items(self, *, TransactItems: list[Item]) -> None:  # noqa: N803
        written = [self._written(write) for write in TransactItems]
        assert len({(table, key) for table, key, _ in written}) == len(written), "an item comes twice"
        if not all(item is not None for _, _, item in written):
            raise TransactionCanceled(["None" if item else "ConditionalCheckFailed" for _, _, item in written])
        self._keep()
        for table, key, item in written:
            self._now[table][key] = item

    def _keep(self) -> None:
        self._before = copy.deepcopy(self._now)

    def _written(self, write: Item) -> tuple[str, Key, Any]:
        """Return which item a write makes, and the item; None where the condition does not hold."""
        [(verb, request)] = write.items()
        assert verb in {"Put", "Update"}
        expression = _Expression(request, request.get("ConditionExpression", ""), request.get("UpdateExpression", ""))
        key = _key(request["Item"] if verb == "Put" else request["Key"])
        before = self._now[request["TableName"]].get(key, {})
        assert isinstance(request["TableName"], str)
        if "ConditionExpression" in request and not expression.holds(request["ConditionExpression"], before):
            return request["TableName"], key, None
        if verb == "Put":
            return request["TableName"], key, deserialise(request["Item"])
        item = copy.deepcopy(before) or deserialise(request["Key"])
        expression.update(request["UpdateExpression"], item)
        return request["TableName"], key, item


def _key(item: Item) -> Key:
    plain = deserialise(item)
    key = (plain["record_id"],) if "record_id" in plain else (plain["programme"], plain["number"])
    assert [type(value) for value in key] in ([str], [str, int]), "a key is of another type"
    return key


class _Expression:
    """What the aliases of a request stand for; each of them has to be used."""

    def __init__(self, request: Item, *texts: str) -> None:
        self._names = request.get("ExpressionAttributeNames", {})
        self._values = deserialise(request.get("ExpressionAttributeValues", {}))
        used = set(re.findall(r"[#:]\w+", " ".join(texts)))
        assert used == {*self._names, *self._values}, "an alias is not used, or not told"

    def path(self, text: str) -> list[str]:
        return [self._names.get(step, step) for step in text.split(".")]

    def value(self, text: str, item: Item) -> Any:
        if text.startswith(":"):
            return self._values[text]
        if text.startswith("size("):
            return len(self.value(text[5:-1], item))
        found: Any = item
        for step in self.path(text):
            found = found.get(step) if found else None
        return found

    def holds(self, condition: str, item: Item) -> bool:
        return all(self._holds(part, item) for part in condition.split(" AND "))

    def _holds(self, condition: str, item: Item) -> bool:
        if called := re.fullmatch(r"attribute_(not_)?exists\((.+)\)", condition):
            return (self.value(called[2], item) is None) == bool(called[1])
        left, sign, right = condition.split(" ")
        one, other = self.value(left, item), self.value(right, item)
        return one is not None and bool(OPERATORS[sign](one, other))

    def update(self, text: str, item: Item) -> None:
        for verb, actions in CLAUSES.findall(text):
            for action in COMMA.split(actions):
                self._act(verb, action, item)

    def _act(self, verb: str, action: str, item: Item) -> None:
        path, _, what = action.partition(" ")
        *outer, name = self.path(path)
        for step in outer:
            item = item[step]
        if verb == "REMOVE":
            item.pop(name, None)
        elif verb == "ADD":
            more = self.value(what, item)
            item[name] = item.get(name, set()) | more if isinstance(more, set) else item.get(name, 0) + more
        elif appended := re.fullmatch(r"= list_append\((.+), (.+)\)", what):
            item[name] = [*self.value(appended[1], item), *self.value(appended[2], item)]
        else:
            item[name] = self.value(what.removeprefix("= "), item)
