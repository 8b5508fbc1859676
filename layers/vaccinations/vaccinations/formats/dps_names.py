"""The names of DPS files (docs/dps-file.md, "File names")."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING

from vaccinations.model.export import FileNames
from vaccinations.model.london import day_in_london, in_london

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from vaccinations.model.programmes import Programme

__all__ = ["FilenameStyle", "file_names", "next_place"]


class FilenameStyle(StrEnum):
    """How a file is named on MESH (``Mex-FileName``)."""

    GUIDE = "guide"
    """As in the MESH guide: ``Vaccinations-HPV-2024-08-23.csv``."""
    BATCH_V5 = "batch-v5"
    """As the national batch service takes it: ``HPV_Vaccinations_v5_V0V8L_20240823T23150001.csv``."""


def file_names(programme: Programme, style: FilenameStyle, supplier: str = "") -> Callable[[datetime, int], FileNames]:
    """Make the function that names a programme's files in the ledger and on MESH.

    Parameters
    ----------
    style
        How they are named on MESH; in the ledger they bear the guide's names.
    supplier
        The ODS code that DPS knows the supplier by, which is part of the names in the style ``batch-v5``.

    Returns
    -------
    Callable
        Makes the names of a file from a moment and a sequence number: 1 for the programme's first file on that day in
        London, 2 for the second.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "-", programme.name)

    def name(moment: datetime, sequence: int) -> FileNames:
        local = in_london(moment)
        which = "" if sequence == 1 else f"-{sequence}"
        filename = f"Vaccinations-{plain}-{local:%Y-%m-%d}{which}.csv"
        if style is FilenameStyle.GUIDE:
            return FileNames(filename, filename)
        stamp = f"{local:%Y%m%dT%H%M%S}{'01' if local.utcoffset() else '00'}"
        return FileNames(filename, f"{programme.dps_vaccine_type}_Vaccinations_v5_{supplier.upper()}_{stamp}.csv")

    return name


def next_place(moment: datetime, last: datetime | None, sequence: int) -> tuple[datetime, int]:
    """Return the moment and the sequence number that name a programme's next file.

    File names may hold the time to the second, so no two of a programme are in the same one.

    Parameters
    ----------
    moment
        Now.
    last, sequence
        Those of the programme's last file; None and 0 where this is its first.
    """
    if last is None:
        return moment, 1
    moment = max(moment, last + timedelta(seconds=1))
    return moment, sequence + 1 if day_in_london(last) == day_in_london(moment) else 1
