"""Who may state what: for which organisations an uploader speaks besides itself, and whose records it may change."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from vaccinations.model.programmes import is_ods_code

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Uploaders", "uploader_of"]

_EVERY = "*"
_WHAT_IT_IS = 'an object of ODS codes, such as {"R1L": {"states_for": ["U1"]}, "RX1": {"succeeds": ["R1L"]}}'


@dataclass(frozen=True, slots=True)
class Uploaders:
    """What folders under ``incoming/`` may do beyond an organisation's own records (docs/upload-format.md).

    Attributes
    ----------
    states_for
        Which organisations' codes the rows in a folder may bear besides its own; ``*`` stands for every code.
    succeeds
        Which organisations' records a folder's organisation may change, since it took their place.
    """

    states_for: Mapping[str, frozenset[str]] = field(default_factory=dict)
    succeeds: Mapping[str, frozenset[str]] = field(default_factory=dict)

    @classmethod
    def from_document(cls, text: str) -> Self:
        """Read the deployment's parameter.

        Parameters
        ----------
        text
            JSON: ODS codes, each with ``states_for`` (a list of ODS codes, or ``"*"``), ``succeeds`` (a list), or both.

        Raises
        ------
        ValueError
            It is something else; the message says what and where.
        """
        try:
            document = json.loads(text)
        except json.JSONDecodeError:
            raise ValueError(f"is not JSON; right is {_WHAT_IT_IS}") from None
        if not isinstance(document, dict) or not all(isinstance(may, dict) for may in document.values()):
            raise ValueError(f"is not {_WHAT_IT_IS}")
        for folder, may in document.items():
            if unknown := set(may) - {"states_for", "succeeds"}:
                raise ValueError(f"says of {folder} what means nothing: {', '.join(sorted(unknown))}")
        of_folder = {_code(folder): may for folder, may in document.items()}
        if len(of_folder) < len(document):
            raise ValueError("names a folder twice")
        return cls(
            {folder: _codes(may["states_for"], every=True) for folder, may in of_folder.items() if "states_for" in may},
            {folder: _codes(may["succeeds"], every=False) for folder, may in of_folder.items() if "succeeds" in may},
        )

    def may_state_for(self, folder: str, code: str) -> bool:
        """Tell whether a row in a folder may bear an organisation's code.

        Whoever succeeds an organisation may: the records that it took over bear the old code.
        """
        named = self.states_for.get(folder, frozenset())
        return code == folder or code in named or _EVERY in named or code in self.succeeds.get(folder, ())

    def may_change(self, folder: str, owner: str) -> bool:
        """Tell whether a row in a folder may be about a record that first arrived in the owner's."""
        return owner == folder or owner in self.succeeds.get(folder, ())


def uploader_of(key: str) -> str:
    """Return the ODS code of the organisation in whose folder an upload is; of a request, and elsewhere, nothing."""
    folder, _, rest = key.partition("/")
    code, _, name = rest.partition("/")
    return code.upper() if folder == "incoming" and name and is_ods_code(code) else ""


def _codes(value: Any, *, every: bool) -> frozenset[str]:
    if every and value == _EVERY:
        return frozenset(_EVERY)
    if isinstance(value, list):
        return frozenset(map(_code, value))
    raise ValueError(f"has something in place of a list of ODS codes{' or "*"' if every else ''}")


def _code(value: Any) -> str:
    if isinstance(value, str) and is_ods_code(value):
        return value.upper()
    raise ValueError(f"has something in place of an ODS code; right is {_WHAT_IT_IS}")
