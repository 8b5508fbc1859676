"""DPS in its moods: it refuses rows and whole files, does not know what it did, and does things twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from local.dps import Dps, FileStatus, JudgedRow, identifier

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from local.dps import Row, VaccinationFile

__all__ = ["UNHANDLED", "Heard", "Mood", "MoodyDps", "is_disliked"]

UNHANDLED = "An unhandled error occurred during batch processing"


@dataclass
class Mood:
    """What DPS does wrong with the files that it picks up now.

    Attributes
    ----------
    refuses_file
        Says of a file whether it refuses it as a whole.
    fails
        Says of a file whether DPS fails at its header: later ones of its type then wait until DPS clears that.
    crashes
        Says of a row whether DPS crashes at it: the file has failed, and what came before the row is processed.
    fails_at
        Says of a row whether DPS fails at it: before it was processed, or (``True``) after; None where it does not.
    twice
        Says of a file whether it processes its rows once more, and answers what comes of that.
    """

    refuses_file: Callable[[], bool] = lambda: False
    fails: Callable[[], bool] = lambda: False
    crashes: Callable[[], bool] = lambda: False
    fails_at: Callable[[], bool | None] = lambda: None
    twice: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Heard:
    """A row that DPS has heard, the first time that it processed it.

    Attributes
    ----------
    said
        The vaccine's batch number, or nothing where the record is withdrawn.
    refused
        Why it refused it; empty where it did not.
    stored
        Whether it is on file since, whatever DPS says.
    """

    file: str
    record_id: str
    action: str
    said: str
    refused: str
    stored: bool


def is_disliked(batch: str) -> bool:
    """Tell whether DPS refuses a vaccine's batch."""
    return batch.endswith("X")


def _dislike(row: Row) -> str | None:
    disliked = is_disliked(row["BATCH_NUMBER"]) and row["ACTION_FLAG"] != "delete"
    return "Validation errors: lotNumber is not a batch of this vaccine" if disliked else None


@dataclass
class _Now:
    file: str = ""
    again: bool = False


class MoodyDps(Dps):
    """DPS, which has moods, and remembers all that it heard.

    Attributes
    ----------
    mood
        What it does wrong now.
    heard
        Every row that it processed, in order.
    """

    def __init__(self, client: Any, clock: Callable[[], Any]) -> None:
        super().__init__(
            client,
            refuse=_dislike,
            refuse_file=self._refuse_as_a_whole,
            unhandled=self._fail,
            crashes=lambda _: self.mood.crashes(),
            clock=clock,
        )
        self.mood = Mood()
        self.heard: list[Heard] = []
        self._now = _Now()

    def _process(self, message_id: str) -> VaccinationFile:
        self._now = _Now(message_id)
        file = super()._process(message_id)
        if file.status is FileStatus.PROCESSED and self.mood.twice():
            self._now.again = True
            file.rows[:] = [JudgedRow(row.number, row.row, self._judge(row.row)) for row in file.rows]
        return file

    def _take_turn(self, file: VaccinationFile, header: tuple[str, ...], rows: Iterable[Row]) -> None:
        super()._take_turn(file, () if self.mood.fails() else header, rows)

    def _judge(self, row: Row) -> str:
        before = self.on_file.get(identifier(row))
        refused = super()._judge(row)
        if not self._now.again:
            said = "" if row["ACTION_FLAG"] == "delete" else row["BATCH_NUMBER"]
            stored = self.on_file.get(identifier(row)) is not before
            self.heard.append(Heard(self._now.file, row["UNIQUE_ID"], row["ACTION_FLAG"], said, refused, stored))
        return refused

    def _refuse_as_a_whole(self, _: str) -> str | None:
        return "it is refused as a whole" if self.mood.refuses_file() else None

    def _fail(self, _: Row) -> bool | None:
        return None if self._now.again else self.mood.fails_at()
