"""Conditional writes to DynamoDB, made from plain Python values: every name is aliased, every value bound.

`update` and `put` make what ``update_item(**…)`` and ``put_item(**…)`` take, and what ``{"Update": …}`` and
``{"Put": …}`` of a transaction do. An attribute is a name, or a path into maps and lists:
``("attempts", 2, "status")``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from boto3.dynamodb.types import TypeDeserializer, TypeSerializer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = [
    "CONDITION_FAILED",
    "Attribute",
    "Condition",
    "Item",
    "any_of",
    "below",
    "deserialise",
    "equals",
    "exists",
    "not_exists",
    "put",
    "serialise",
    "shorter",
    "transact",
    "update",
]

type Item = dict[str, Any]
type Attribute = str | tuple[str | int, ...]
#: Writes itself with the aliases of one request.
type Condition = Callable[[_Aliases], str]

#: The reason of `transact` that tells that an item's condition did not hold.
CONDITION_FAILED = "ConditionalCheckFailed"


class _Aliases:
    """The names and values of one request, and what stands for them in its expressions."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._values: dict[str, Any] = {}

    def name(self, attribute: Attribute) -> str:
        path = (attribute,) if isinstance(attribute, str) else attribute
        text = ""
        for step in path:
            if isinstance(step, int):
                text += f"[{step}]"
            else:
                alias = self._names.setdefault(step, f"#{len(self._names)}")
                text += f".{alias}" if text else alias
        return text

    def value(self, value: Any) -> str:
        alias = f":{len(self._values)}"
        self._values[alias] = value
        return alias

    def request(self) -> Item:
        """Return the parameters of the request that say what the aliases stand for. DynamoDB takes no empty ones."""
        names = {alias: name for name, alias in self._names.items()}
        return ({"ExpressionAttributeNames": names} if names else {}) | (
            {"ExpressionAttributeValues": serialise(self._values)} if self._values else {}
        )


# -- conditions


def equals(attribute: Attribute, value: Any) -> Condition:
    """Make the condition that an attribute has a value."""
    return lambda alias: f"{alias.name(attribute)} = {alias.value(value)}"


def below(attribute: Attribute, value: Any) -> Condition:
    """Make the condition that an attribute is less than a value."""
    return lambda alias: f"{alias.name(attribute)} < {alias.value(value)}"


def above(attribute: Attribute, value: Any) -> Condition:
    """Make the condition that an attribute is greater than a value."""
    return lambda alias: f"{alias.name(attribute)} > {alias.value(value)}"


def shorter(attribute: Attribute, size: int) -> Condition:
    """Make the condition that a list or text has fewer than so many elements or bytes."""
    return lambda alias: f"size({alias.name(attribute)}) < {alias.value(size)}"


def exists(attribute: Attribute) -> Condition:
    """Make the condition that there is an attribute; of the key: that there is an item."""
    return lambda alias: f"attribute_exists({alias.name(attribute)})"


def not_exists(attribute: Attribute) -> Condition:
    """Make the condition that there is no such attribute; of the key: that there is no item."""
    return lambda alias: f"attribute_not_exists({alias.name(attribute)})"


def any_of(*conditions: Condition) -> Condition:
    """Make the condition that at least one of several holds."""
    return lambda alias: f"({' OR '.join(condition(alias) for condition in conditions)})"


def all_of(*conditions: Condition) -> Condition:
    """Make the condition that several hold."""
    return lambda alias: f"({' AND '.join(condition(alias) for condition in conditions)})"


# -- writes


def update(
    table: str,
    key: Mapping[str, Any],
    *,
    sets: Mapping[Attribute, Any] | None = None,
    appends: Mapping[Attribute, list[Any]] | None = None,
    adds: Mapping[Attribute, Any] | None = None,
    deletes: Mapping[Attribute, Any] | None = None,
    removes: Iterable[Attribute] = (),
    conditions: Iterable[Condition] = (),
) -> Any:
    """Make an update of one item.

    Parameters
    ----------
    key
        The item's key, as plain values.
    sets
        New values of attributes.
    appends
        What is appended to lists, which have to be there.
    adds
        What is added to numbers and sets, which need not be there.
    deletes
        What is taken out of sets.
    removes
        Attributes that are taken away.
    conditions
        All of them have to hold, or nothing is written.
    """
    alias = _Aliases()
    assignments = [f"{alias.name(name)} = {alias.value(value)}" for name, value in (sets or {}).items()]
    for name, value in (appends or {}).items():
        assignments.append(f"{alias.name(name)} = list_append({alias.name(name)}, {alias.value(value)})")
    clauses = {
        "SET": assignments,
        "REMOVE": [alias.name(name) for name in removes],
        "ADD": [f"{alias.name(name)} {alias.value(value)}" for name, value in (adds or {}).items()],
        "DELETE": [f"{alias.name(name)} {alias.value(value)}" for name, value in (deletes or {}).items()],
    }
    return {
        "TableName": table,
        "Key": serialise(key),
        "UpdateExpression": " ".join(f"{verb} {', '.join(parts)}" for verb, parts in clauses.items() if parts),
        **_condition(alias, conditions),
        **alias.request(),
    }


def put(table: str, item: Mapping[str, Any], *, conditions: Iterable[Condition] = ()) -> Any:
    """Make a write of a whole item, which is given as plain values."""
    alias = _Aliases()
    return {"TableName": table, "Item": serialise(item), **_condition(alias, conditions), **alias.request()}


def _condition(alias: _Aliases, conditions: Iterable[Condition]) -> Item:
    text = " AND ".join(condition(alias) for condition in conditions)
    return {"ConditionExpression": text} if text else {}


def transact(dynamodb: DynamoDBClient, items: Iterable[Any]) -> list[str]:
    """Write all items or none.

    Returns
    -------
    list[str]
        Empty where they are written. Otherwise one code an item: `CONDITION_FAILED`, ``TransactionConflict``, …, or
        ``None`` (the word) for an item that is not the reason.
    """
    try:
        dynamodb.transact_write_items(TransactItems=[*items])
    except dynamodb.exceptions.TransactionCanceledException as error:
        return [reason.get("Code", "None") for reason in error.response["CancellationReasons"]]
    return []


# -- values

_serialise = TypeSerializer().serialize
_deserialise = TypeDeserializer().deserialize


def serialise(values: Mapping[str, Any]) -> Item:
    """Turn plain values into DynamoDB's: texts, whole numbers, booleans, None, and lists, sets and maps of them."""
    return {name: _serialise(_plain(value)) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """Turn words of an enumeration into plain texts, so that nobody sees which they were."""
    match value:
        case StrEnum():
            return str(value)
        case Mapping():
            return {name: _plain(element) for name, element in value.items()}
        case list() | tuple():
            return [_plain(element) for element in value]
    return value


def deserialise(item: Mapping[str, Any]) -> Item:
    """Turn DynamoDB's values into plain ones. Its numbers, all of them whole here, become ints."""
    return {name: _integers(_deserialise(value)) for name, value in item.items()}


def _integers(value: Any) -> Any:
    match value:
        case Decimal():
            return int(value)
        case list():
            return [_integers(element) for element in value]
        case dict():
            return {name: _integers(element) for name, element in value.items()}
    return value
