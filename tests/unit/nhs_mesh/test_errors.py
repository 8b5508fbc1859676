"""An error says the same in another process as where it was raised."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import MeshError, NotFound, NotUnique, Refused, Resume, SendOutcomeUnknown, TlsError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

ERRORS = [
    Refused(417, code="12", description="Unregistered to address", event="SEND", message_id="ONE"),
    SendOutcomeUnknown("the answer was lost", local_id="export-1-1"),
    NotUnique("export-1-1"),
    Unavailable("MESH takes nothing more for now", retry_after=5.0),
    NotFound("MESH does not have it"),
    TlsError("the passphrase is wrong"),
]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda error: pickle.loads(pickle.dumps(error))])
@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_error_that_was_copied_or_pickled_says_the_same(
    error: MeshError, again: Callable[[MeshError], MeshError]
) -> None:
    error.resume = Resume("ONE", 2, 3, 1_000, "0" * 64, compress=True)
    same = again(error)
    assert type(same) is type(error)
    assert str(same) == str(error)
    assert vars(same) == vars(error)
