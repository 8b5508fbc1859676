"""Status: what became of last night, and what needs a person, as HTML for a custom widget of CloudWatch's dashboard.

What needs a person comes first, with what to do and the section of the runbook. Then the verdict: of each programme how
far the records got that were sealed in the last 24 hours. Then the last 14 nights, a bar each, by programme; then the
recent exports. It shows what the ledger knows, which is nothing personal.

`page` makes a page of its own of it, with the uploads, whose names may be personal: for the stack on this machine, and
not for the dashboard, whose readers see nothing of the bucket.

What came from outside, such as MESH's description of an error, is escaped. There is no script. Pictures say nothing
that is not in the text beside them, for screen readers.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import astuple, dataclass, field
from datetime import UTC, date, datetime, timedelta
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

__all__ = ["ForPerson", "Night", "ShownUpload", "StatusPage", "Verdict", "page", "processing_in_words"]

#: So many exports are shown unless the widget asks for another number, and at most.
_SHOWN, _MOST = 20, 100
#: A day has one nightly run.
_NIGHT = timedelta(days=1)
#: So many nights have a bar, and so many exports of each programme are looked at for them: three a night.
_NIGHTS = 14
_LOOKED_AT = 3 * _NIGHTS
#: What is sealed before noon belongs to the night that began the evening before.
_NOON = timedelta(hours=12)
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
_UPLOADS = ("upload", "what became of it", "uploaded", "rows", "accepted", "rejected", "files")
#: The height of a bar, in pixels, and its width.
_HEIGHT, _WIDTH = 36, 22
_STYLE = (
    "<style>.night,.nights,.exports,.uploads,.todo,.verdict{font:13px/1.4 system-ui,sans-serif}"
    ".night,.nights,.exports,.uploads{border-collapse:collapse;margin-bottom:12px}.exports,.uploads{width:100%}"
    "caption{text-align:left;font-weight:bold;padding:6px 0}"
    ".night th,.night td,.nights th,.nights td,.exports th,.exports td,.uploads th,.uploads td"
    "{padding:3px 10px 3px 0;text-align:left;vertical-align:top;border-bottom:1px solid #8884}"
    ".exports td{white-space:pre}.exports td:nth-child(4){white-space:pre-line;overflow-wrap:anywhere;min-width:15em}"
    ".exports td:nth-child(5){white-space:normal}.uploads td{overflow-wrap:anywhere}"
    ".nights th,.nights td{padding:3px 4px 3px 0;vertical-align:bottom;text-align:center;white-space:nowrap}"
    ".nights th:first-child{text-align:left;padding-right:10px}.nights td svg{display:block;margin:0 auto}"
    ".nights td{min-width:42px}"
    ".night .number,.exports .number,.uploads .number,.night th:nth-child(n+2),.exports th:nth-child(3),"
    ".exports th:nth-child(10),.uploads th:nth-child(n+4):nth-child(-n+6){text-align:right}"
    ".exports .person td,.todo,.nights b{font-weight:bold}.todo{border-left:6px solid #d5281b;padding-left:24px}"
    ".words{position:absolute;width:1px;height:1px;overflow:hidden;clip-path:inset(50%);white-space:nowrap}"
    "@media(max-width:1100px){.exports td{white-space:pre-line}.exports td,.exports th{padding-right:6px}}"
    "@media print{tr{break-inside:avoid}.night,.nights,.exports,.uploads,.todo,.verdict{font-size:9px}"
    ".exports td{white-space:pre-line}.exports td:nth-child(4){min-width:11em}"
    ".exports td,.exports th,.uploads td,.uploads th{padding-right:4px}}</style>"
)
_PAGE = (
    '<!DOCTYPE html><html lang="en-GB"><head><meta charset="utf-8"><title>Vaccinations to DPS</title>'
    '<meta name="viewport" content="width=device-width,initial-scale=1">'
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none';style-src 'unsafe-inline'\">"
    "<style>body{margin:16px;background:#fff;color:#212b32;font:13px/1.4 system-ui,sans-serif}a{color:#005eb8}"
    "a:focus{outline:3px solid #212b32;outline-offset:2px}h1{font-size:20px}@media print{body{margin:0}}</style>"
    "</head><body><main><h1>Vaccinations to DPS</h1>"
)
_DESCRIPTION = f"""\
## Last night, and what needs a person

First the exports that need a person, and what to do. Then of each programme the records of the exports sealed in the
last 24 hours: how many were sent, accepted by MESH, picked up, processed and refused by DPS; and a bar for each of the
last {_NIGHTS} nights. Then the latest exports of all programmes, newest first: what became of their delivery over MESH,
and what DPS made of them. Times are London's.

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
    """Records of a programme that were sealed in one night, and how far they got.

    Attributes
    ----------
    programme
        Its name.
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
    nights
        The same of the last nights, by the day on which each began; of the programmes that had exports sealed then.
    """

    latest: Sequence[DPSExport]
    night: Sequence[Night]
    people: Sequence[ForPerson]
    nights: Mapping[date, Sequence[Night]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ShownUpload:
    """An upload, as `page` shows it.

    Attributes
    ----------
    name
        Its folder and name.
    status
        Its receipt's, or ``waiting``.
    uploaded_at
        When S3 stored it.
    rows, accepted, rejected
        How many rows there are of each; None where it was not ingested.
    files
        What there is to read of it, and where: the kind (``receipt``, ``rejects``, ``refusals``) and a link.
    """

    name: str
    status: str
    uploaded_at: datetime
    rows: int | None
    accepted: int | None
    rejected: int | None
    files: Sequence[tuple[str, str]]


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
        nights = _nights(verdict.nights, _evening(self.clock()))
        told = f"{_in_words(verdict)}{_for_a_person(verdict.people, runbook)}{_night(verdict.night)}"
        return f"{_STYLE}{told}{nights}{recent}"

    def verdict(self, limit: int = _SHOWN) -> Verdict:
        """Tell what became of last night, and what needs a person.

        Parameters
        ----------
        limit
            How many of each programme's latest exports are looked at, at least.
        """
        latest = [export for key in PROGRAMMES for export in self.ledger.latest(key, max(limit, _LOOKED_AT))]
        now = self.clock()
        sealed = [export for export in latest if export.sealed_at and export.sealed_at > now - _NIGHT]
        by_night: defaultdict[date, list[DPSExport]] = defaultdict(list)
        for export in latest:
            if export.sealed_at:
                by_night[_evening(export.sealed_at)].append(export)
        people = [
            ForPerson(export, todo, _section(export))
            for export in sorted(latest, key=attrgetter("created_at"))
            if (todo := lifecycle.todo(export, now))
        ]
        nights = {evening: _by_programme(exports) for evening, exports in by_night.items()}
        return Verdict(latest, _by_programme(sealed), people, nights)

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


def _in_words(verdict: Verdict) -> str:
    """Say the verdict in a sentence or two."""
    sent, processed, refused = (sum(getattr(each, name) for each in verdict.night) for name in _TOLD)
    people = len(verdict.people)
    person = f" {people} {'export needs' if people == 1 else 'exports need'} a person:" if people else ""
    night = f"Last night {sent} {'record was' if sent == 1 else 'records were'} sent."
    answered = f" DPS has processed {processed} and refused {refused}." if processed or refused else ""
    return f'<p class="verdict"><strong>{night if verdict.night else ""}{answered}{person}</strong></p>'


#: What the verdict says in words.
_TOLD = ("sent", "processed", "refused")


def _by_programme(exports: Sequence[DPSExport]) -> list[Night]:
    """Add up what became of exports' records, by programme."""
    return [
        Night(programme.name, *(sum(column) for column in zip(*counts, strict=True)))
        for programme in PROGRAMMES.values()
        if (counts := [_counts(export) for export in exports if export.programme == programme.key])
    ]


def _evening(moment: datetime) -> date:
    """Return the day, in London, on which the night began to which a moment belongs."""
    return (in_london(moment) - _NOON).date()


def _nights(nights: Mapping[date, Sequence[Night]], last: date) -> str:
    """Draw a bar for each of the last nights, by programme; each programme to a scale of its own."""
    evenings = [last - timedelta(days=ago) for ago in reversed(range(_NIGHTS))]
    of = {(each.programme, evening): each for evening in evenings for each in nights.get(evening, ())}
    rows = []
    for name in (programme.name for programme in PROGRAMMES.values()):
        its = [of.get((name, evening)) for evening in evenings]
        if any(its):
            most = max(night.sent for night in its if night)
            rows.append(f'<tr><th scope="row">{escape(name)}</th>{"".join(_bar(night, most) for night in its)}</tr>')
    if not rows:
        return ""
    header = "".join(f'<th scope="col">{evening:%a<br>%d}</th>' for evening in evenings)
    title = (
        f"Records sent in the last {_NIGHTS} nights: {_swatch('processed')} processed, {_swatch('refused')} refused, "
        f"{_swatch('waiting')} not answered. Each programme has its own scale."
    )
    head = f'<tr><th scope="col">programme</th>{header}</tr>'
    body = "".join(rows)
    return f'<table class="nights"><caption>{title}</caption><thead>{head}</thead><tbody>{body}</tbody></table>'


#: What part of a bar looks like: told apart without colours, too, and on paper.
_LOOKS = {
    "processed": 'fill="#005eb8" stroke="#005eb8"',
    "refused": 'fill="#d5281b" stroke="#212b32"',
    "waiting": 'fill="#fff" stroke="#4c6272" stroke-dasharray="2"',
}


def _swatch(kind: str) -> str:
    return f'<svg class="swatch" width="12" height="12" aria-hidden="true">{_part(kind, 1, 1, 10, 10)}</svg>'


def _part(kind: str, x: int, y: float, width: int, height: float) -> str:
    return f'<rect x="{x}" y="{y:.1f}" width="{width}" height="{height:.1f}" {_LOOKS[kind]}/>'


def _bar(night: Night | None, most: int) -> str:
    """Draw a night's bar, from below: processed, not answered, refused."""
    if night is None or not night.sent:
        return f"<td>{'0' if night else '<span class="words">none</span>'}</td>"
    waiting = max(night.sent - night.processed - night.refused, 0)
    parts, top = "", float(_HEIGHT)
    for kind, records in (("processed", night.processed), ("waiting", waiting), ("refused", night.refused)):
        if records:
            height = max(records / max(most, 1) * (_HEIGHT - 10), 5)
            top -= height
            parts += _part(kind, 1, top, _WIDTH - 2, height)
    refused = f"<br><b>{night.refused}<br>refused</b>" if night.refused else ""
    words = f'<span class="words"> sent, {night.processed} processed</span>'
    picture = f'<svg width="{_WIDTH}" height="{_HEIGHT + 1}" aria-hidden="true">{parts}</svg>'
    return f"<td>{picture}{night.sent}{words}{refused}</td>"


def page(shown: str, uploads: Sequence[ShownUpload], now: datetime) -> str:
    """Make a page of its own of what the widget shows, and of uploads.

    Parameters
    ----------
    shown
        What `StatusPage.show` answered.
    uploads
        Newest first.
    now
        When it is.
    """
    rows = (f"<tr>{''.join(map(_cell, _cells(each)))}<td>{_links(each)}</td></tr>" for each in uploads)
    table = _table("uploads", "Uploads", _UPLOADS, rows) if uploads else _sentence("There are no uploads yet.")
    at = _sentence(f"As of {in_london(now):%A %d %B %Y, %H:%M}, London's time. Load the page again to see it anew.")
    return f"{_PAGE}{at}{shown}{table}</main></body></html>"


def _cells(upload: ShownUpload) -> tuple[object, ...]:
    counts = ("" if count is None else count for count in (upload.rows, upload.accepted, upload.rejected))
    return (upload.name, upload.status, _when(upload.uploaded_at), *counts)


def _links(upload: ShownUpload) -> str:
    of = f'<span class="words"> of {escape(upload.name)}</span>'
    return "<br>".join(f'<a href="{escape(link)}">{escape(kind)}{of}</a>' for kind, link in upload.files)


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
    header = "".join(f'<th scope="col">{name}</th>' for name in columns)
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
