"""Reference data: programmes, vaccines, sites, routes, genders: the codes that DPS wants, the names that uploads use.

Everything but the form of an ODS code comes from ``programmes.json``. All of it is plain data: functions that only
render files import this without paying for a validation library. Keys (``hpv``, ``gardasil_9``, ``left_thigh``) are
what records hold; names are what people write, found by `by_upload_name` in any case.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "DOSE_UNIT",
    "GENDERS",
    "ODS_CODE_FIX",
    "PROGRAMMES",
    "ROUTES",
    "SITES",
    "URIS",
    "VACCINES",
    "Concept",
    "Gender",
    "Method",
    "Programme",
    "Site",
    "Vaccine",
    "by_brand",
    "by_upload_name",
    "is_ods_code",
    "method_of",
    "route_of",
]

type Method = Literal["injection", "nasal"]

#: What would be right where a text is not an ODS code.
ODS_CODE_FIX = "an ODS code of 2 to 10 letters and digits"
_ODS_CODE = re.compile(r"[A-Za-z0-9]{2,10}")
#: Programmes in which a dose that is not stated is the first one (docs/upload-format.md, DOSE_SEQUENCE).
_FIRST_DOSE_UNLESS_STATED = {"flu", "hpv"}


@dataclass(frozen=True, slots=True)
class Concept:
    """A SNOMED CT code and its term."""

    code: str
    term: str


@dataclass(frozen=True, slots=True)
class Programme:
    """A vaccination programme.

    Attributes
    ----------
    key, name
        What records hold (``td_ipv``) and what people read (``Td/IPV``).
    dps_vaccine_type
        What the receiving batch service calls it in file names.
    upload_names
        What uploads call it.
    dose_codes
        Dose codes of this programme, in upper case, and the dose each stands for.
    most_doses
        The highest dose.
    procedures
        By method the procedure of the first dose, the second, and so on.
    """

    key: str
    name: str
    dps_vaccine_type: str
    upload_names: tuple[str, ...]
    dose_codes: Mapping[str, int]
    most_doses: int
    procedures: Mapping[str, tuple[Concept, ...]]

    def dose(self, stated: int | None) -> int | None:
        """Tell which dose it was: the one stated; for flu and HPV the first where none was."""
        return 1 if stated is None and self.key in _FIRST_DOSE_UNLESS_STATED else stated

    def procedure(self, method: Method, dose: int | None) -> Concept:
        """Return the procedure for a dose: the last one listed for a dose past the end, the first for an unknown dose.

        Raises
        ------
        KeyError
            The programme has no vaccine that is given in this way.
        """
        procedures = self.procedures[method]
        return procedures[min(dose or 1, len(procedures)) - 1]


@dataclass(frozen=True, slots=True)
class Vaccine:
    """A vaccine product.

    Attributes
    ----------
    dose_volume_ml
        One dose, in millilitres, as a decimal.
    """

    key: str
    programme: str
    brand: str
    method: Method
    manufacturer: str
    upload_names: tuple[str, ...]
    dose_volume_ml: str
    discontinued: bool
    product: Concept


@dataclass(frozen=True, slots=True)
class Site:
    """A place on the body."""

    key: str
    concept: Concept
    upload_names: tuple[str, ...]

    @property
    def method(self) -> Method:
        """How a vaccine is given there."""
        return "nasal" if self.key == "nose" else "injection"


@dataclass(frozen=True, slots=True)
class Gender:
    """A gender and its code."""

    key: str
    code: str
    upload_names: tuple[str, ...]


class _Named[T](Protocol):
    @property
    def key(self) -> str: ...
    @property
    def upload_names(self) -> tuple[str, ...]: ...


def by_upload_name[T: _Named[Any]](things: Iterable[T]) -> dict[str, T]:
    """Index things by their upload names, casefolded."""
    return {name.casefold(): thing for thing in things for name in thing.upload_names}


def by_brand() -> dict[str, Vaccine]:
    """Index by their brands, casefolded, the vaccines whose brand is not one of their upload names."""
    names = by_upload_name(VACCINES.values())
    return {brand: vaccine for vaccine in VACCINES.values() if (brand := vaccine.brand.casefold()) not in names}


def is_ods_code(text: str) -> bool:
    """Tell whether a text, in any case, has the form of an ODS code (docs/upload-format.md, "ODS codes")."""
    return _ODS_CODE.fullmatch(text) is not None


def route_of(site: str | None) -> str | None:
    """Return the key of the route that a site implies; None for no site."""
    if site is None:
        return None
    return "nasal_spray" if SITES[site].method == "nasal" else "intramuscular"


def method_of(vaccine: str | None, site: str | None, route: str | None) -> Method:
    """Tell how it was given: the vaccine says so; without one the site or the route does; else it was injected."""
    if vaccine is not None:
        return VACCINES[vaccine].method
    return "nasal" if "nasal_spray" in {route_of(site), route} else "injection"


def _concept(item: Mapping[str, Any]) -> Concept:
    return Concept(item["code"], item["term"])


def _programme(item: Mapping[str, Any]) -> Programme:
    return Programme(
        key=item["key"],
        name=item["name"],
        dps_vaccine_type=item["dps_vaccine_type"],
        upload_names=tuple(item["upload_names"]),
        dose_codes=item["dose_codes"],
        most_doses=item["most_doses"],
        procedures={method: tuple(map(_concept, listed)) for method, listed in item["procedures"].items()},
    )


def _vaccine(item: Mapping[str, Any]) -> Vaccine:
    return Vaccine(
        key=item["key"],
        programme=item["programme"],
        brand=item["brand"],
        method=item["method"],
        manufacturer=item["manufacturer"],
        upload_names=tuple(item["upload_names"]),
        dose_volume_ml=str(item["dose_volume_ml"]),
        discontinued=item["discontinued"],
        product=Concept(item["snomed_product_code"], item["snomed_product_term"]),
    )


_data = json.loads(Path(__file__).with_name("programmes.json").read_bytes())

PROGRAMMES: Mapping[str, Programme] = {item["key"]: _programme(item) for item in _data["programmes"]}
VACCINES: Mapping[str, Vaccine] = {item["key"]: _vaccine(item) for item in _data["vaccines"]}
SITES: Mapping[str, Site] = {
    item["key"]: Site(item["key"], _concept(item), tuple(item["upload_names"])) for item in _data["sites"]
}
ROUTES: Mapping[str, Concept] = {item["key"]: _concept(item) for item in _data["routes"]}
GENDERS: Mapping[str, Gender] = {
    item["key"]: Gender(item["key"], item["code"], tuple(item["upload_names"])) for item in _data["genders"]
}
DOSE_UNIT = _concept(_data["dose_unit"])
#: Namespaces of identifiers: ``ods_organisation``, ``school_urn``, ``vaccination_record``.
URIS: Mapping[str, str] = _data["uris"]
