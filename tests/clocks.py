"""A clock to turn, and the moments at which a day, an hour or a date is easily read wrongly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

if TYPE_CHECKING:
    from datetime import date

__all__ = ["MOMENTS", "NOON", "Clock"]

_LONDON = ZoneInfo("Europe/London")

#: An ordinary winter day: its date and its hour are the same in London as in UTC.
NOON = datetime(2027, 1, 13, 12, tzinfo=UTC)

#: Each with its name in a test's id.
MOMENTS = {
    "noon": NOON,
    # London is a day, and a month, further than UTC.
    "00:30 BST": datetime(2027, 6, 30, 23, 30, tzinfo=UTC),
    # London and UTC agree; whoever adds an hour in winter too is a day, and a year, further.
    "23:30 GMT": datetime(2027, 12, 31, 23, 30, tzinfo=UTC),
    # The years before and after it do not have this day.
    "29 February": datetime(2028, 2, 29, 12, tzinfo=UTC),
}


class Clock:
    """A clock that stands still until it is turned; calling it tells the time, in UTC.

    Attributes
    ----------
    now
        The time that it tells, with its offset.
    """

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    @property
    def today(self) -> date:
        """London's date."""
        return self.now.astimezone(_LONDON).date()

    def forward(self, **period: float) -> None:
        """Turn it forward, by what `timedelta` takes."""
        self.now += timedelta(**period)
