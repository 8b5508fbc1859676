"""A bad night's data: exports and uploads in every state that can occur, with names as long as they come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from vaccinations.model.export import Attempt, DPSExport, Failure, Phase, Processing, Status

__all__ = ["exports", "ids_of", "uploads"]

_FAILED = Failure("EPL-151", "No mailbox matched the recipient that the file was addressed to")


def exports(now: datetime | None = None) -> list[DPSExport]:
    """Return the exports, newest first; they were sealed in the last night."""
    last = (now or datetime.now(UTC)) - timedelta(hours=9)
    processed: dict[str, Any] = {"processing": Processing.PROCESSED}
    return [
        _export("menacwy", 1043, Status.OPEN, last),
        _export("hpv", 1042, Status.FAILED, last, attempts=5, error=_FAILED),
        _export("flu", 311, Status.ACCEPTED, last, processing=Processing.REFUSED, refusal="10-1: wrong header"),
        _export("td_ipv", 97, Status.ACKNOWLEDGED, last, **processed, rows_processed=408, rows_refused=4),
        _export("mmr", 12, Status.ACKNOWLEDGED, last, **processed, rows_processed=412, rows_refused=0),
        _export("mmrv", 3, Status.ACCEPTED, last),
        _export("mmrv", 2, Status.ACCEPTED, last, **processed, rows_processed=411, rows_refused=1),
        _export("menacwy", 1042, Status.UNCLEAR, last),
    ]


def _export(
    programme: str,
    number: int,
    status: Status,
    at: datetime,
    *,
    attempts: int = 1,
    error: Failure | None = None,
    **facts: Any,
) -> DPSExport:
    name = programme.replace("_", "").upper()
    sent = status in {Status.ACCEPTED, Status.ACKNOWLEDGED}
    made = tuple(
        Attempt(
            number=n,
            filename=f"Vaccinations-{name}-{at:%Y-%m-%d}.csv",
            mesh_filename=f"{name}_Vaccinations_v5_V0V8L_{at:%Y%m%d}T190000{n:02}.csv",
            begun_at=at,
            phase=Phase.UPLOADING,
            sending_at=at,
            message_id=f"{at:%Y%m%d}19000000{n:02}_{number:06X}" if sent else "",
            sent_at=at if sent else None,
            acknowledged_at=at if status is Status.ACKNOWLEDGED else None,
            error=error,
            **facts,
        )
        for n in range(1, attempts + 1)
    )
    opened = status is Status.OPEN
    return DPSExport(
        programme=programme,
        number=number,
        status=status,
        records=412,
        created_at=at - timedelta(hours=20),
        updated_at=at,
        attempts=() if opened else made,
        sealed_at=None if opened else at,
        accepted_at=at if sent else None,
    )


def uploads(now: datetime | None = None) -> list[dict[str, Any]]:
    """Return what is told of each upload, newest first."""
    at = (now or datetime.now(UTC)).isoformat(timespec="seconds")

    def upload(name: str, status: str, number: int, counts: tuple[int, int, int] | None = None) -> dict[str, Any]:
        rows, accepted, rejected = counts or (None, None, None)
        facts = {"rows": rows, "accepted": accepted, "rejected": rejected, "reason": ""}
        return {
            "upload": f"incoming/{name}",
            "status": status,
            "uploaded_at": at,
            **facts,
            "batch_id": UUID(int=number).hex,
        }

    return [
        upload("R1L/monday.csv", "waiting", 1),
        upload("RX1/St Mary's and All Saints year 9 second session.csv", "ingested", 2, (312, 311, 1)),
        upload("V0V8L/mavis-export-00000000-0000-4000-8000-000000000001.csv", "ingested", 3, (104_000, 104_000, 0)),
        upload("R1L/monday.xlsx", "rejected", 4),
        upload("RX1/stuck.csv", "parked", 5),
        upload("R1L/wrong folder.csv", "abandoned", 6),
    ]


def ids_of(*found: Any) -> set[str]:
    """Return the ids, file names and UUIDs of exports and uploads, none of which a table may break."""
    ids = set()
    for each in found:
        if isinstance(each, DPSExport):
            ids |= {each.export_id, each.message_id, *(name for names in each.names[-1:] for name in names)}
        else:
            ids |= {each["upload"].removeprefix("incoming/"), each["batch_id"]}
    return ids - {""}
