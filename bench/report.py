"""What was measured, as tables on the terminal, as bench/results.md and as a plot; and what a night costs on AWS."""

from __future__ import annotations

import re
import textwrap
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rich.console import Console

__all__ = ["Results", "write_report"]

type Measured = dict[str, Any]

#: AWS's list prices for London (eu-west-2) in US dollars, as of 2025.
PRICES = {
    "Lambda, a GB-second (x86)": 0.0000166667,
    "Lambda, a million requests": 0.20,
    "DynamoDB on demand, a million write units": 0.7423,
    "DynamoDB on demand, a million read units": 0.1485,
    "S3, a thousand PUTs": 0.0053,
    "S3, a thousand GETs": 0.00042,
    "S3, a GB for a month": 0.024,
    "SQS FIFO, a million requests": 0.50,
    "EventBridge, a million S3 events": 1.00,
}
#: What a function has: its memory in GB, and the share of a core that comes with 1,024 MB.
GIGABYTES, CORE = 1.0, 1024 / 1769
#: What a connection to S3 or MESH is assumed to carry, in bytes a second.
CARRIED = 50e6
#: How many rows an upload is assumed to have, and what an invocation takes beside the work, in seconds.
ROWS_AN_UPLOAD, OVERHEAD = 1_000, 1.0
#: What a query asks for a page of 1 MB: half a read unit for each 4 KB.
PAGE_UNITS = 128
#: What a batch adds to its export's item, in bytes.
BATCH_ID = 35
NIGHTS = (10_000, 100_000, 1_000_000)


@dataclass
class Results:
    """Everything that was measured; times in seconds, sizes in bytes."""

    machine: str
    engine: str
    ours: dict[int, Measured] = field(default_factory=dict)
    rendering: dict[int, Measured] = field(default_factory=dict)
    otherwise: dict[int, Measured] = field(default_factory=dict)
    checking: dict[tuple[int, bool], Measured] = field(default_factory=dict)
    ingesting: Measured = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)

    @property
    def most(self) -> int:
        """How many records the largest export had."""
        return max(self.ours)


@dataclass(frozen=True)
class _Grid:
    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def markdown(self) -> str:
        lines = ["| " + " | ".join(self.head) + " |", "|" + "---|" + "---:|" * (len(self.head) - 1)]
        return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in self.rows)])

    def rich(self) -> Table:
        table = Table(title=self.title, title_justify="left")
        for number, name in enumerate(self.head):
            table.add_column(name, justify="right" if number else "left")
        for row in self.rows:
            table.add_row(*row)
        return table


def write_report(results: Results, folder: Path, console: Console) -> None:
    """Print the tables; write results.md and results.png."""
    exports, ratios, goals = _exports(results), _ratios(results), _goals(results)
    alone = _alone(results)
    grids = [exports, ratios, goals, _intake(results), _starts(results), _night(results), alone]
    for grid in grids:
        console.print(grid.rich())
    _plot(results, folder / "results.png")
    last = results.ours[results.most]
    first = results.ours[10_000]
    most, rendering = max(results.otherwise), max(results.rendering)

    def ratio(name: str, ours: dict[int, Measured] = results.ours) -> float:
        return float(results.otherwise[most][name] / ours[most][name])

    text = f"""# What it costs

Written by `make bench`, which runs on one machine alone. Each subject is a process of its own on one core; the MESH
sandbox, moto's server (S3) and {results.engine} (DynamoDB) have the others. Where a subject is run several times, its
fastest run is shown, which other work on the machine disturbed least; seconds of CPU stand beside seconds on the clock.
Times vary with the machine. The ratios are the result.

Here: {results.machine}.

## In short

- {results.most:,} records, from S3 until MESH has accepted them: {last["wall"]:.1f} s,
  {_rate(last["records"], last["wall"])} records/s; {last["cpu"]:.1f} s of that are the process's own CPU.
- At most {_mb(last["peak"])} of memory, {last["peak"] / first["peak"]:.2f} times that for ten thousand records.
- {rendering:,} records whose rows are rendered in the same run, not when they were ingested:
  {_rate(rendering, results.rendering[rendering]["wall"])} records/s, {_mb(results.rendering[rendering]["peak"])}.
- Of {most:,} records, side by side with what one would write otherwise: {ratio("own"):.0f} times as fast
  ({ratio("own", results.rendering):.0f} times, rendering), in 1/{ratio("cpu"):.0f} of the CPU time
  (1/{ratio("cpu", results.rendering):.0f}, rendering) and 1/{ratio("peak"):.1f} of the memory.

## Goals

{goals.markdown()}

{_remarks(results)}

## Exports

{exports.markdown()}

![Time and memory against the number of records](results.png)

*ours*: the function's own use case; records lie in S3 as ingest has left them, rendered and compressed, and are joined
to parts, stored and sent. *otherwise*: `Table.query` with boto3's resource over items of 34 attributes, `csv.writer`,
and `send_message(compress=True)` of NHS England's `mesh-client`; it leaves no copy of what was sent and does not know
of crashes. An emulator stands in for DynamoDB and is much slower at large queries, so the time spent waiting for those
does not count against it: rates and ratios are without. *otherwise* sends fewer bytes: mesh-client's
zlib packs tighter, and slower, than isal.

Rendering is part of *otherwise*, and not of *ours*, which has had it done when the records were ingested (what that
costs there is under [Ingesting](#ingesting)); *ours, rendering* does all of it in the export, as for batches whose rows
were not stored. Importing and connecting are not in the seconds, but they are in the memory.

All rows are measured, none is extrapolated. *otherwise* ends at {most:,} records: the emulator's
time for its queries grows with the square of their number, so that a million would take hours.

## Ratios

{ratios.markdown()}

## Sending alone

See [the client, side by side with NHS England's](clients.md).

## Ingesting

{_intake(results).markdown()}

*checked* is the work of one core: parse, validate, digest, write the batch line. *and rendered* adds the row of the DPS
file, compressed. *ingested* is all of it with S3 and the register: a read for each hundred records, a write for each 25
({_calls(results.ingesting["calls"])}).
How long that takes on the clock says how fast {results.engine} is.

## Starts

CPU seconds to import a built function's handler, as Lambda does when it starts one; the least of fifteen, without
compiling.

{_starts(results).markdown()}

Ingest loads pydantic, which checks the rows; the others load neither pydantic nor, before they connect, cryptography.

## A night on AWS

{_night(results).markdown()}

{_arithmetic(results)}

### The export alone

{alone.markdown()}

*otherwise* as above: {OVERHEAD:.0f} s + its CPU / {CORE:.2f} + its bytes once at {CARRIED / 1e6:.0f} MB/s, and for each
page of a query {PAGE_UNITS} read units (1 MB, eventually consistent). Of ours, the Lambda seconds, the requests for
each part, 9 writes and 20 reads, and a GET for each upload's rows. What the items cost to write is in neither.
"""
    (folder / "results.md").write_text(_wrapped(text))
    console.print(f"written: {folder / 'results.md'}")


def _goals(results: Results) -> _Grid:
    last, first = results.ours[results.most], results.ours[10_000]
    rows = max(rows for rows, _ in results.checking)
    checked = results.checking[rows, False]
    base = results.starts["boto3 and requests"]
    speed, growth = last["records"] / last["wall"], last["peak"] / first["peak"]
    rendering = max(results.rendering)
    slower = rendering / results.rendering[rendering]["wall"]
    parsing = checked["records"] / checked["cpu"]
    goals = [
        (f"an export of {results.most:,}: records/s", "≥ 150,000", f"{speed:,.0f}", speed >= 150_000),
        (f"… of {rendering:,}, rendering its rows as well", "≥ 150,000", f"{slower:,.0f}", slower >= 150_000),
        (f"peak memory of {results.most:,}", "≤ 128 MB", _mb(last["peak"]), last["peak"] <= 128 * 2**20),
        ("… against that of 10,000 records", "≤ 1.20", f"{growth:.2f}", growth <= 1.2),
        ("ingesting: rows/s of CPU work", "≥ 20,000", f"{parsing:,.0f}", parsing >= 20_000),
    ]
    for name, seconds in results.starts.items():
        if seconds != base:
            ratio = round(seconds / base, 2)
            goals.append((f"import of {name} against boto3 and requests", "≤ 1.25", f"{ratio:.2f}", ratio <= 1.25))
    return _Grid(
        "Goals",
        ("what", "goal", "measured", "reached"),
        [(what, goal, measured, "yes" if reached else "**no**") for what, goal, measured, reached in goals],
    )


def _remarks(results: Results) -> str:
    """Say what the goals' table leaves out, and what stands in the way where a goal is not reached."""
    rendering, rows = max(results.rendering), max(rows for rows, _ in results.checking)
    rendered, both, whole = results.rendering[rendering], results.checking[rows, True], results.ingesting
    base = results.starts["boto3 and requests"]
    slow = [name for name, seconds in results.starts.items() if round(seconds / base, 2) > 1.25]
    text = f"""Two of these depend on what is counted:

- The export joins rows that were rendered and compressed when they were ingested. Rendering them in the export, as it
  does for a batch whose rows were not stored, makes {_rate(rendering, rendered["wall"])} records/s
  ({_rate(rendering, rendered["cpu"])} for each second of CPU); making the rows of the batch's JSON takes most of
  that.
- Ingesting means parsing, validating, digesting and writing the batch line. With the row, rendered and compressed, it
  is {_rate(both["records"], both["cpu"])} rows/s of CPU. With S3 and the register as well, it is
  {_rate(whole["records"], whole["cpu"])}; the requests to both, and keeping count of what the upload has
  had, take the rest."""
    if slow:
        text += f"""

Not reached by {", ".join(slow)}. Of the difference, what all functions have in common is Powertools' logger and metrics
and this project's own modules; ingest adds pydantic and its models. Between runs these ratios vary by a few
hundredths."""
    return text


def _exports(results: Results) -> _Grid:
    head = (
        "records",
        "way",
        "seconds",
        "waiting for queries",
        "records/s",
        "CPU s",
        "peak memory",
        "bytes sent",
        "parts",
        "DynamoDB calls",
    )
    rows = []
    for count in results.ours:
        ways = {"ours": results.ours, "ours, rendering": results.rendering, "otherwise": results.otherwise}
        for way, runs in ways.items():
            if found := runs.get(count):
                rows.append(
                    (
                        f"{count:,}",
                        way,
                        f"{found['wall']:.2f}",
                        f"{found['waited']:.2f}" if "waited" in found else "",
                        _rate(count, found["own"]),
                        f"{found['cpu']:.2f}",
                        _mb(found["peak"]),
                        f"{found['wire']:,}",
                        str(found.get("parts", "")),
                        str(len(found["calls"])),
                    )
                )
    return _Grid("Exports", head, rows)


def _ratios(results: Results) -> _Grid:
    rows = [
        (f"{count:,}", way, *(f"{found[name] / runs[count][name]:.1f}" for name in ("own", "cpu", "peak", "wire")))
        for count, found in results.otherwise.items()
        for way, runs in (("ours", results.ours), ("ours, rendering", results.rendering))
    ]
    return _Grid("Ratios", ("records", "otherwise to", "time", "CPU", "peak memory", "bytes sent"), rows)


def _intake(results: Results) -> _Grid:
    rows = [
        (
            "checked and rendered" if with_rows else "checked",
            f"{found['records']:,}",
            f"{found['cpu']:.2f}",
            _rate(found["records"], found["cpu"]),
            f"{found['wall']:.2f}",
            _mb(found["peak"]),
        )
        for (_, with_rows), found in results.checking.items()
    ]
    whole = results.ingesting
    rows.append(
        (
            "ingested",
            f"{whole['records']:,}",
            f"{whole['cpu']:.2f}",
            _rate(whole["records"], whole["cpu"]),
            f"{whole['wall']:.2f}",
            _mb(whole["peak"]),
        )
    )
    return _Grid("Ingesting", ("what", "records", "CPU s", "records/s of CPU", "seconds", "peak memory"), rows)


def _starts(results: Results) -> _Grid:
    base = results.starts["boto3 and requests"]
    rows = [(name, f"{seconds:.3f}", f"{seconds / base:.2f}") for name, seconds in results.starts.items()]
    return _Grid("Starts", ("import", "CPU s", "ratio"), rows)


# -- what a night costs


def _costs(results: Results, records: int) -> dict[str, float]:
    """Return what each service asks for a night, in dollars."""
    uploads = -(-records // ROWS_AN_UPLOAD)
    export = results.ours[records]
    parts = export["parts"]
    price = PRICES
    ingest_seconds = uploads * OVERHEAD + records * _checking_seconds(results) / CORE
    writes = records + uploads * (10 + 4 * _export_item(uploads)) + 9
    reads = records + uploads * 4 + 20
    return {
        "Lambda, ingesting": ingest_seconds * GIGABYTES * price["Lambda, a GB-second (x86)"]
        + uploads * price["Lambda, a million requests"] / 1e6,
        "Lambda, export": _export_seconds(export) * GIGABYTES * price["Lambda, a GB-second (x86)"],
        "DynamoDB": writes * price["DynamoDB on demand, a million write units"] / 1e6
        + reads * price["DynamoDB on demand, a million read units"] / 1e6,
        "S3": (uploads * 5 + 2 * parts) * price["S3, a thousand PUTs"] / 1e3
        + (uploads * 4 + parts) * price["S3, a thousand GETs"] / 1e3,
        "SQS and EventBridge": uploads * 3 * price["SQS FIFO, a million requests"] / 1e6
        + uploads * price["EventBridge, a million S3 events"] / 1e6,
    }


def _export_item(uploads: int) -> float:
    """Return how many write units the export's item takes at a time, while it comes to list so many batches."""
    return sum(1 + (300 + BATCH_ID * listed) // 1024 for listed in range(uploads)) / uploads


def _checking_seconds(results: Results) -> float:
    """Return the CPU seconds that one record takes to be ingested."""
    whole = results.ingesting
    return float(whole["cpu"] / whole["records"])


def _alone(results: Results) -> _Grid:
    price, rows = PRICES, []
    for records in results.otherwise:
        if records not in NIGHTS:
            continue
        mine, theirs = results.ours[records], results.otherwise[records]
        ours = (
            _export_seconds(mine) * GIGABYTES * price["Lambda, a GB-second (x86)"]
            + 2 * mine["parts"] * price["S3, a thousand PUTs"] / 1e3
            + (mine["parts"] + records / ROWS_AN_UPLOAD) * price["S3, a thousand GETs"] / 1e3
            + 9 * price["DynamoDB on demand, a million write units"] / 1e6
            + 20 * price["DynamoDB on demand, a million read units"] / 1e6
        )
        seconds = OVERHEAD + theirs["cpu"] / CORE + theirs["wire"] / CARRIED
        otherwise = (
            seconds * GIGABYTES * price["Lambda, a GB-second (x86)"]
            + len(theirs["calls"]) * PAGE_UNITS * price["DynamoDB on demand, a million read units"] / 1e6
        )
        rows.append((f"{records:,}", f"${ours:.5f}", f"${otherwise:.5f}", f"{otherwise / ours:.1f}"))
    return _Grid("The export alone, on AWS", ("records", "ours", "otherwise", "ratio"), rows)


def _export_seconds(export: Measured) -> float:
    """Return how long an export is assumed to have a function: what it carries goes out of S3, into S3, into MESH."""
    return float(OVERHEAD + export["cpu"] / CORE + 3 * export["wire"] / CARRIED)


def _nights(results: Results) -> list[int]:
    return [records for records in NIGHTS if records in results.ours]


def _night(results: Results) -> _Grid:
    costs = {records: _costs(results, records) for records in _nights(results)}
    rows = [
        (service, *(f"${costs[records][service]:.4f}" for records in _nights(results)))
        for service in next(iter(costs.values()))
    ]
    rows.append(("together", *(f"${sum(costs[records].values()):.4f}" for records in _nights(results))))
    return _Grid("A night on AWS", ("service", *(f"{records:,} records" for records in _nights(results))), rows)


def _arithmetic(results: Results) -> str:
    each = _checking_seconds(results)
    export = results.ours[results.most]
    seconds = _export_seconds(export)
    prices = "\n".join(f"| {name} | ${price:.10f}".rstrip("0").rstrip(".") + " |" for name, price in PRICES.items())
    return f"""List prices for London, in US dollars, without free tiers; look them up again before you rely on them:

| what | price |
|---|---:|
{prices}

How they are put together, for *n* records in *u* = n / {ROWS_AN_UPLOAD:,} uploads of one programme and *p* parts:

- Lambda, ingesting: u × {OVERHEAD:.0f} s + n × {each * 1e6:.0f} µs of CPU ("ingested" above) / {CORE:.2f}, the share of
  a core that 1,024 MB have; × 1 GB × the price of a GB-second; + u requests.
- Lambda, export: {OVERHEAD:.0f} s + its CPU / {CORE:.2f} + its bytes three times (out of S3, into S3, into MESH) at
  {CARRIED / 1e6:.0f} MB/s. For a million:
  {OVERHEAD:.0f} + {export["cpu"]:.1f} / {CORE:.2f} + 3 × {export["wire"] / 1e6:.0f} / {CARRIED / 1e6:.0f}
  = {seconds:.1f} s.
- DynamoDB: a write and a consistent read unit for each record. For each upload 4 reads; 10 writes for its beginning,
  its end and its mark (transactions count twice); and its batch's place in the export's item, twice for the transaction
  and twice for the index. That item is a unit for each KB and grows by {BATCH_ID} bytes a batch: in the mean
  {_export_item(NIGHTS[-1] // ROWS_AN_UPLOAD):.1f} units over {NIGHTS[-1] // ROWS_AN_UPLOAD:,} uploads. For the export 9
  writes and 20 reads.
- S3: for each upload 5 PUTs (itself, lines, rows, intake, receipt) and 4 GETs (itself, lines, intake, rows); for each
  part 2 PUTs and a GET. What is kept is {export["wire"] / 1e6 * 2.5:.0f} MB for a million records, \
${export["wire"] / 1e9 * 2.5 * PRICES["S3, a GB for a month"]:.4f} a month.
- SQS: 3 requests for each upload; EventBridge: one event.

Not in it: what a deployment costs while nothing happens (KMS key, secret, alarms, logs, polling of the queue),
requests to KMS, and
`/tmp` beyond 512 MB, which comes to less than a hundredth of the memory's price."""


# -- forms


def _wrapped(page: str) -> str:
    """Break the lines of a page's paragraphs and lists anew."""
    blocks = []
    for block in page.strip().split("\n\n"):
        if block.startswith(("|", "#", "!")):
            blocks.append(block)
            continue
        items = re.split(r"\n(?=- )", block)
        indents = ("  " if item.startswith("- ") else "" for item in items)
        wrap = partial(textwrap.fill, width=120, break_long_words=False, break_on_hyphens=False)
        blocks.append(
            "\n".join(wrap(" ".join(item.split()), subsequent_indent=i) for item, i in zip(items, indents, strict=True))
        )
    return "\n\n".join(blocks) + "\n"


def _rate(count: int, seconds: float) -> str:
    return f"{count / seconds:,.0f}"


def _mb(size: float) -> str:
    return f"{size / 2**20:,.0f} MB"


def _calls(calls: Sequence[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in Counter(calls).most_common())


def _plot(results: Results, file: Path) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(11, 4.2), layout="constrained")
    for panel, name, unit, label in (
        (panels[0], "own", 1.0, "seconds, without waiting for queries"),
        (panels[1], "peak", float(2**20), "peak memory, MB"),
    ):
        for way, found, colour in (
            ("ours", results.ours, "tab:blue"),
            ("ours, rendering", results.rendering, "tab:cyan"),
            ("otherwise", results.otherwise, "tab:orange"),
        ):
            panel.plot(list(found), [run[name] / unit for run in found.values()], "o-", color=colour, label=way)
        panel.set(xscale="log", xlabel="records", ylabel=label)
        panel.grid(visible=True, which="both", alpha=0.25)
    panels[0].set_yscale("log")
    panels[0].legend()
    panels[1].set_ylim(bottom=0)
    figure.suptitle("An export, from the records at rest until MESH has accepted it")
    figure.savefig(file, dpi=130)
