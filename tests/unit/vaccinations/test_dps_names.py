"""What the names of DPS files promise: safe characters, London's day, and what the national service takes."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest

from vaccinations.formats.dps_names import FilenameStyle, file_names
from vaccinations.model.programmes import PROGRAMMES

SUMMER = datetime(2024, 8, 23, 22, 15, 9, tzinfo=UTC)
WINTER = datetime(2024, 12, 23, 22, 15, 9, tzinfo=UTC)


def test_a_file_name_holds_only_safe_characters_and_the_london_day() -> None:
    name = file_names(PROGRAMMES["td_ipv"], FilenameStyle.GUIDE)
    assert name(datetime(2024, 8, 23, 22, 59, tzinfo=UTC), 1).filename == "Vaccinations-Td-IPV-2024-08-23.csv"
    assert name(datetime(2024, 8, 23, 23, 0, tzinfo=UTC), 1).filename == "Vaccinations-Td-IPV-2024-08-24.csv"


def test_further_files_of_a_day_are_numbered() -> None:
    name = file_names(PROGRAMMES["hpv"], FilenameStyle.GUIDE)
    assert [name(SUMMER, number).filename for number in (1, 2, 13)] == [
        "Vaccinations-HPV-2024-08-23.csv",
        "Vaccinations-HPV-2024-08-23-2.csv",
        "Vaccinations-HPV-2024-08-23-13.csv",
    ]


def test_in_the_guides_style_a_file_bears_the_same_name_on_mesh() -> None:
    names = file_names(PROGRAMMES["hpv"], FilenameStyle.GUIDE)(SUMMER, 2)
    assert names.mesh_filename == names.filename


def test_the_batch_service_gets_the_names_that_it_takes() -> None:
    name = file_names(PROGRAMMES["td_ipv"], FilenameStyle.BATCH_V5, "v0v8l")
    assert name(SUMMER, 1).mesh_filename == "3IN1_Vaccinations_v5_V0V8L_20240823T23150901.csv"
    assert name(WINTER, 1).mesh_filename == "3IN1_Vaccinations_v5_V0V8L_20241223T22150900.csv"
    assert name(WINTER, 2).filename == "Vaccinations-Td-IPV-2024-12-23-2.csv"


@pytest.mark.parametrize("programme", PROGRAMMES.values(), ids=lambda programme: programme.key)
def test_every_programme_has_a_type_that_the_batch_service_knows(programme: object) -> None:
    """docs/dps-file.md, "File names"."""
    name = file_names(programme, FilenameStyle.BATCH_V5, "V0V8L")(SUMMER, 1).mesh_filename  # type: ignore[arg-type]
    assert re.fullmatch(r"(FLU|HPV|MENACWY|MMR|MMRV|3IN1)_Vaccinations_v5_V0V8L_[0-9]{8}T[0-9]{6}0[01]\.csv", name)
