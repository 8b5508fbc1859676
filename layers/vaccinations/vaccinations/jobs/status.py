"""Status: what became of last night, and what needs a person, as HTML for a custom widget of CloudWatch's dashboard.

The verdict comes first: of each programme how far the records got that were sealed in the last 24 hours. Then the
exports that need a person, with their section of the runbook; then the recent exports. It shows what the ledger knows,
which is nothing personal. What came from outside, such as MESH's description of an error, is escaped, and there is no
script.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from heapq import nlargest
from html import escape
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from vaccinations.model import lifecycle
from vaccinations.model.export import DPSExport, Processing, Status
from vaccinations.model.london import in_london
from vaccinations.model.programmes import PROGRAMMES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vaccinations.ports import Ledger

__all__ = ["ForPerson", "Night", "StatusPage", "Verdict", "processing_in_words"]

#: So many exports are shown unless the widget asks for another number, and at most.
_SHOWN, _MOST = 20, 100
#: A day has one nightly run.
_NIGHT = timedelta(days=1)
_VERDICT = ("programme", "sent", "accepted", "picked up", "processed", "refused")
#: The sections of docs/operations.md about an export that needs a person.
_SECTIONS = {
    Status.ACCEPTED: "export-unacknowledged",
    Status.FAILED: "export-failed",
    Status.UNCLEAR: "export-unclear",
    Status.UNDELIVERED: "export-undelivered",
}
_COLUMNS = (
    *("export", "programme", "records", "file and message id", "delivery", "DPS", "sealed", "sent", "picked up"),
    "attempt",
)
_STYLE = (
    "<style>.night,.exports,.todo{font:13px/1.4 system-ui,sans-serif}"
    ".night,.exports{border-collapse:collapse}.exports{width:100%}.night caption,.exports caption"
    "{text-align:left;font-weight:bold;padding:6px 0}"
    ".night th,.night td,.exports th,.exports td"
    "{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}"
    ".exports td{white-space:pre}.exports td:nth-child(5){white-space:normal}"
    ".night .number,.exports .number{text-align:right}.exports .person td,.todo{font-weight:bold}</style>"
)
_DESCRIPTION = f"""\
## Last night, and what needs a person

Of each programme the records of the exports sealed in the last 24 hours: how many were sent, accepted by MESH, picked
up, processed and refused by DPS. Then the exports that need a person, and what to do. Then the latest exports of all
programmes, newest first: what became of their delivery over MESH, and what DPS made of them. Times are London's.

### Parameters

| name | meaning |
|---|---|
| `limit` | how many exports to show, 1 to {_MOST}; {_SHOWN} where it is left out |
| `runbook` | where docs/operations.md can be read, https://...; what needs a person links to its section there |

### Example

``` yaml
limit: {_SHOWN}
```
"""


@dataclass(frozen=True, slots=True)
class Night:
    """Records of a programme that were sealed in the last 24 hours, and how far they got.

    Attributes
    ----------
    sent, accepted, picked_up, processed, refused
        How many were sent, accepted by MESH, picked up by DPS, and processed or refused by it.
    """

    programme: str
    sent: int
    accepted: int
    picked_up: int
    processed: int
    refused: int


@dataclass(frozen=True, slots=True)
class ForPerson:
    """An export that needs a person.

    Attributes
    ----------
    todo
        What to do.
    section
        The section of docs/operations.md about it.
    """

    export: DPSExport
    todo: str
    section: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of last night, and what needs a person: what the dashboard and ``mesh status`` show.

    Attributes
    ----------
    latest
        The latest exports of each programme.
    night
        Of each programme that had exports sealed.
    people
        The exports that need a person, oldest first.
    """

    latest: Sequence[DPSExport]
    night: Sequence[Night]
    people: Sequence[ForPerson]


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
            The widget's parameters (``limit``, ``runbook``) and CloudWatch's own ``widgetContext``; or
            ``{"describe": true}``.

        Returns
        -------
        str
            The tables as HTML, or a sentence that says which parameter is wrong; for ``describe``, the widget's
            documentation in Markdown.
        """
        if event.get("describe"):
            return _DESCRIPTION
        parameters = {name: value for name, value in event.items() if name not in {"describe", "widgetContext"}}
        limit = parameters.pop("limit", _SHOWN)
        runbook = parameters.pop("runbook", "")
        if parameters:
            return _sentence(f"Unknown parameter: {', '.join(parameters)}. There are two: limit, runbook.")
        if type(limit) is not int or not 1 <= limit <= _MOST:
            return _sentence(f"The parameter limit must be a whole number from 1 to {_MOST}.")
        verdict = self.verdict(limit)
        if not verdict.latest:
            return _sentence("There are no exports yet.")
        exports = nlargest(limit, verdict.latest, key=attrgetter("created_at"))
        recent = _table("exports", "Recent exports", _COLUMNS, map(self._row, exports))
        return f"{_STYLE}{_night(verdict.night)}{_for_a_person(verdict.people, runbook)}{recent}"

    def verdict(self, limit: int = _SHOWN) -> Verdict:
        """Tell what became of last night, and what needs a person.

        Parameters
        ----------
        limit
            How many of each programme's latest exports are looked at, at least.
        """
        latest = [export for key in PROGRAMMES for export in self.ledger.latest(key, max(limit, _SHOWN))]
        now = self.clock()
        sealed = [export for export in latest if export.sealed_at and export.sealed_at > now - _NIGHT]
        night = []
        for programme in PROGRAMMES.values():
            if counts := [_counts(export) for export in sealed if export.programme == programme.key]:
                totals = (sum(column) for column in zip(*counts, strict=True))
                night.append(Night(programme.name, *totals))
        people = [
            ForPerson(export, todo, _section(export))
            for export in sorted(latest, key=attrgetter("created_at"))
            if (todo := lifecycle.todo(export, now))
        ]
        return Verdict(latest, night, people)

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


def _counts(export: DPSExport) -> tuple[int, ...]:
    """Count an export's records as `_VERDICT` has it."""
    attempt, records = export.attempts[-1], export.records
    refused = records if attempt.processing is Processing.REFUSED else attempt.rows_refused or 0
    picked_up = records if attempt.acknowledged_at else 0
    return (
        records if attempt.sending_at or export.accepted_at else 0,
        records if export.accepted_at else 0,
        picked_up,
        attempt.rows_processed or 0,
        refused,
    )


def _night(night: Sequence[Night]) -> str:
    """Show what became of the records of the last day, by programme."""
    if not night:
        return _sentence("In the last 24 hours no export was sealed.")
    rows = [f"<tr>{''.join(map(_cell, astuple(each)))}</tr>" for each in night]
    return _table("night", "Records of the last 24 hours", _VERDICT, rows)


def _for_a_person(people: Sequence[ForPerson], runbook: object) -> str:
    """List what needs a person, with the runbook's section."""
    items = [
        f"<li>{escape(each.export.export_id)}: {escape(each.todo)} ({_link(each.section, runbook)})</li>"
        for each in people
    ]
    return f'<ul class="todo">{"".join(items)}</ul>' if items else _sentence("No export needs a person.")


def _section(export: DPSExport) -> str:
    return "export-refused" if export.processing is Processing.REFUSED else _SECTIONS[export.status]


def _link(section: str, runbook: object) -> str:
    if isinstance(runbook, str) and runbook.startswith("https://"):
        return f'<a href="{escape(runbook)}#{section}">{section}</a>'
    return section


def _table(kind: str, title: str, columns: Iterable[str], rows: Iterable[str]) -> str:
    header = "".join(f"<th>{name}</th>" for name in columns)
    return (
        f'<table class="{kind}"><caption>{title}</caption><thead><tr>{header}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _when(moment: datetime | None) -> str:
    return f"{in_london(moment):%a %d %b %H:%M}" if moment else ""


def _cell(value: object) -> str:
    kind = ' class="number"' if isinstance(value, int) else ""
    return f"<td{kind}>{escape(str(value))}</td>"


def _sentence(text: str) -> str:
    return f"<p>{escape(text)}</p>"
