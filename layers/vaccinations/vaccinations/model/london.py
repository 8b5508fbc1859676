"""London's time, the only local time there is here: the day, and how DPS wants a moment (docs/upload-format.md)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from zoneinfo import ZoneInfo

__all__ = ["LONDON", "day_in_london", "in_london", "uk_time"]

LONDON = ZoneInfo("Europe/London")
#: The offsets that DPS knows: GMT and BST.
_OFFSETS = (timedelta(0), timedelta(hours=1))


def in_london(moment: datetime) -> datetime:
    """Return a moment on London's clock. One without an offset is London's already."""
    return moment.astimezone(LONDON) if moment.tzinfo else moment.replace(tzinfo=LONDON)


def day_in_london(moment: datetime) -> date:
    """Return the day that it is in London at a moment."""
    return in_london(moment).date()


def uk_time(moment: datetime) -> datetime:
    """Turn a moment into one that DPS takes, which knows only GMT and BST.

    A moment at either offset keeps its clock time. One at another offset becomes London time. One without an offset is
    London time; where the clock shows the same hour twice, in autumn, it is the first of the two (BST).
    """
    if moment.tzinfo is None or moment.utcoffset() not in _OFFSETS:
        moment = in_london(moment)
    # London itself was at other offsets in the 1940s.
    return moment if moment.utcoffset() in _OFFSETS else moment.astimezone(UTC)
