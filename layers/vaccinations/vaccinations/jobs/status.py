"""Status: a table of the recent exports for the dashboard, as HTML that a custom widget of CloudWatch shows.

It shows what the ledger knows, which is nothing personal. What came from outside, such as MESH's description of an
error, is escaped, and there is no script.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from heapq import nlargest
from html import escape
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from vaccinations.model import lifecycle
from vaccinations.model.export import DPSExport, Processing, Status
from vaccinations.model.london import in_london
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vaccinations.ports import Ledger

__all__ = ["StatusPage"]

#: So many exports are shown unless the widget asks for another number, and at most.
_SHOWN, _MOST = 20, 100
_COLUMNS = (
    *("export", "programme", "records", "file and message id", "delivery", "DPS", "sealed", "sent", "picked up"),
    "attempt",
)
_STYLE = (
    "<style>.exports{border-collapse:collapse;width:100%;font:13px/1.4 system-ui,sans-serif}"
    ".exports th,.exports td{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}"
    ".exports td{white-space:pre}.exports td:nth-child(5){white-space:normal}"
    ".exports .number{text-align:right}.exports .person td{font-weight:bold}</style>"
)
_DESCRIPTION = f"""\
## Recent exports

The latest exports of all programmes, newest first: what became of their delivery over MESH, and what DPS made of them.
Those that need a person are in bold and say what to do. Times are London's.

### Parameters

| name | meaning |
|---|---|
| `limit` | how many exports to show, 1 to {_MOST}; {_SHOWN} where it is left out |

### Example

``` yaml
limit: {_SHOWN}
```
"""


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The widget, over the ledger.

    Attributes
    ----------
    clock
        Tells the time, with its offset; for tests.
    """

    ledger: Ledger
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)

    def show(self, event: Mapping[str, Any]) -> str:
        """Answer what CloudWatch asks.

        Parameters
        ----------
        event
            The widget's parameters (``limit``) and CloudWatch's own ``widgetContext``; or ``{"describe": true}``.

        Returns
        -------
        str
            The table as HTML, or a sentence that says which parameter is wrong; for ``describe``, the widget's
            documentation in Markdown.
        """
        if event.get("describe"):
            return _DESCRIPTION
        parameters = {name: value for name, value in event.items() if name not in {"describe", "widgetContext"}}
        limit = parameters.pop("limit", _SHOWN)
        if parameters:
            return _sentence(f"Unknown parameter: {', '.join(parameters)}. There is one: limit.")
        if type(limit) is not int or not 1 <= limit <= _MOST:
            return _sentence(f"The parameter limit must be a whole number from 1 to {_MOST}.")
        latest = (export for key in PROGRAMMES for export in self.ledger.latest(key, limit))
        exports = nlargest(limit, latest, key=attrgetter("created_at"))
        if not exports:
            return _sentence("There are no exports yet.")
        header = "".join(f"<th>{name}</th>" for name in _COLUMNS)
        rows = "".join(map(self._row, exports))
        return f'{_STYLE}<table class="exports"><thead><tr>{header}</tr></thead><tbody>{rows}</tbody></table>'

    def _row(self, export: DPSExport) -> str:
        todo = lifecycle.todo(export, self.clock())
        attempt = export.attempt
        delivery = str(export.status)
        if attempt and attempt.error and export.status is not Status.ACKNOWLEDGED:
            delivery += f": {attempt.error.code} {attempt.error.description}"
        if todo:
            delivery += f" \u2014 {todo}"
        cells = (
            export.export_id,
            PROGRAMMES[export.programme].name,
            export.records,
            "\n".join(filter(None, (*attempt.file_names, attempt.message_id))) if attempt else "",
            delivery,
            processing_in_words(export),
            _when(export.sealed_at),
            _when(attempt.sent_at if attempt else None),
            _when(attempt.acknowledged_at if attempt else None),
            len(export.attempts) or "",
        )
        opening = '<tr class="person">' if todo else "<tr>"
        return opening + "".join(_cell(cell) for cell in cells) + "</tr>"


def processing_in_words(export: DPSExport) -> str:
    """Tell what DPS has made of an export's file."""
    attempt = export.attempt
    if attempt is None:
        return ""
    match attempt.processing:
        case Processing.PROCESSED:
            return f"processed {attempt.rows_processed} of {export.records}"
        case Processing.REFUSED:
            return f"refused the file ({attempt.refusal})"
    return str(attempt.processing or "")


def _when(moment: datetime | None) -> str:
    return f"{in_london(moment):%a %d %b %H:%M}" if moment else ""


def _cell(value: object) -> str:
    kind = ' class="number"' if isinstance(value, int) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _sentence(text: str) -> str:
    return f"<p>{escape(text)}</p>"
