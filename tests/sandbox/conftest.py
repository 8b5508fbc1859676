"""Clients of the sandbox's mailboxes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient


@pytest.fixture
def sender(sandbox: Sandbox, clean_mailboxes: None) -> Iterator[MeshClient]:
    with sandbox.client("X26ABC1") as client:
        yield client


@pytest.fixture
def receiver(sandbox: Sandbox, clean_mailboxes: None) -> Iterator[MeshClient]:
    with sandbox.client("X26ABC3") as client:
        yield client
