"""moto's server, made quick enough to stand in for AWS: it is run as ``python -m local.moto``, with moto's options.

A transaction in moto first copies each table that it writes to, whole, once for each of its writes. Here a copy of a
table has the same items, and what updates an item puts a copy of it into the table first. And moto looks through its
folder of services at each request; here once.
"""

from __future__ import annotations

import copy
from typing import Any

import moto.backends
from moto.dynamodb.models import DynamoDBBackend
from moto.dynamodb.models.dynamo_type import DynamoType
from moto.dynamodb.models.table import Table
from moto.server import main

__all__ = ["quicken"]

_update_item = DynamoDBBackend.update_item
_services = moto.backends.list_of_moto_modules


def quicken() -> None:
    """Let moto's server in this process be as described above."""
    services = list(_services())
    vars(moto.backends)["list_of_moto_modules"] = lambda: services
    setattr(Table, "__deepcopy__", _copy_of_table)  # noqa: B010 - mypy knows that moto's class has no such method
    setattr(DynamoDBBackend, "update_item", _update_a_copy)  # noqa: B010 - likewise, of assigning to a method


def _copy_of_table(table: Table, _memo: dict[int, Any]) -> Table:
    made = copy.copy(table)
    made.items = table.items.copy()
    for key, items in made.items.items():
        if isinstance(items, dict) and table.has_range_key:
            made.items[key] = items.copy()
    return made


def _update_a_copy(backend: DynamoDBBackend, table_name: str, key: dict[str, dict[str, Any]], **update: Any) -> Any:
    """Update an item as moto does, in place, but of a copy that no copy of the table has."""
    table = backend.get_table(table_name)
    items: Any = table.items
    at = DynamoType(key[table.hash_key_attr])
    if table.range_key_attr:
        items, at = items[at], DynamoType(key[table.range_key_attr])
    if at in items:
        items[at] = copy.deepcopy(items[at])
    return _update_item(backend, table_name, key, **update)


if __name__ == "__main__":
    quicken()
    main()
