"""What is assumed where a statement leaves something out, so that its uploader can object: the receipt says it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from vaccinations.model.programmes import PROGRAMMES
from vaccinations.model.text import plain

__all__ = ["ADDRESS_NOT_KNOWN", "Assumed", "assumed_of", "fill_in"]

#: The postcode of an address that is not known.
ADDRESS_NOT_KNOWN = "ZZ99 3WZ"


class Assumed(StrEnum):
    """One thing that is assumed, in the words of the receipt."""

    POSTCODE = f"no postcode is stated: {ADDRESS_NOT_KNOWN}, address not known"
    DOSE = "no dose is stated: the first"
    TIME = "no time is stated: midnight"
    VACCINE = "a brand is stated in place of the vaccine's name: the vaccine of that brand"
    PROGRAMME = "the programme stated is not known, or not the vaccine's: the vaccine's programme"
    TYPE = "the vaccination type says something else than the programme, vaccine or dose stated: what the type says"
    SCHOOL = "the school's code is not a URN: school not known"
    SEMICOLONS = "the cells of the file are separated by semicolons"
    TABS = "the cells of the file are separated by tabs"
    WINDOWS = "the row is not in UTF-8: Windows-1252"


def fill_in(values: dict[str, Any]) -> list[Assumed]:
    """Fill in the postcode of somebody who has an NHS number, where none is stated; tell what was filled in."""
    if _is_empty(values.get("postcode")) and not _is_empty(values.get("nhs_number")):
        values["postcode"] = ADDRESS_NOT_KNOWN
        return [Assumed.POSTCODE]
    return []


def assumed_of(programme: str, dose: int | None, *, stated: object) -> list[Assumed]:
    """Tell what a record's programme and dose leave to be assumed.

    Parameters
    ----------
    stated
        The programme that was stated.
    """
    assumed = []
    if dose is None and PROGRAMMES[programme].dose(None):
        assumed.append(Assumed.DOSE)
    if programme != stated:
        assumed.append(Assumed.PROGRAMME)
    return assumed


def _is_empty(value: object) -> bool:
    return value is None or (isinstance(value, str) and not plain(value))
