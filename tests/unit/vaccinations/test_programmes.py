"""What the reference data promises: valid codes, and a name for everything an upload may say."""

from __future__ import annotations

from itertools import chain

import pytest

from tests.receiver import verhoeff_holds
from vaccinations.model.programmes import (
    DOSE_UNIT,
    GENDERS,
    PROGRAMMES,
    ROUTES,
    SITES,
    URIS,
    VACCINES,
    Concept,
    by_upload_name,
    is_ods_code,
    method_of,
    route_of,
)

CONCEPTS: list[Concept] = [
    *chain.from_iterable(listed for p in PROGRAMMES.values() for listed in p.procedures.values()),
    *(vaccine.product for vaccine in VACCINES.values()),
    *(site.concept for site in SITES.values()),
    *ROUTES.values(),
    DOSE_UNIT,
]


def test_the_check_itself_knows_right_from_wrong() -> None:
    assert verhoeff_holds("78421000")
    assert not verhoeff_holds("78421001")
    assert not verhoeff_holds("74821000")


@pytest.mark.parametrize("concept", CONCEPTS, ids=lambda concept: concept.code)
def test_every_code_is_a_snomed_identifier_with_a_term(concept: Concept) -> None:
    assert concept.code.isdigit()
    assert 6 <= len(concept.code) <= 18
    assert verhoeff_holds(concept.code)
    assert concept.term


def test_nothing_in_the_reference_data_needs_quoting() -> None:
    texts = [text for concept in CONCEPTS for text in (concept.code, concept.term)]
    texts += [v.manufacturer for v in VACCINES.values()] + list(URIS.values()) + [g.code for g in GENDERS.values()]
    assert not [text for text in texts if set(text) & set('"\r\n')]


@pytest.mark.parametrize("things", [PROGRAMMES, VACCINES, SITES, GENDERS])
def test_no_two_things_share_a_name(things: dict[str, object]) -> None:
    names = [name.casefold() for thing in things.values() for name in thing.upload_names]  # type: ignore[attr-defined]
    assert len(names) == len(set(names))
    assert set(by_upload_name(things.values())) == set(names)  # type: ignore[type-var]


def test_every_vaccine_has_a_procedure_in_its_programme() -> None:
    for vaccine in VACCINES.values():
        assert vaccine.method in PROGRAMMES[vaccine.programme].procedures
        assert float(vaccine.dose_volume_ml) > 0


@pytest.mark.parametrize(
    ("programme", "method", "dose", "code"),
    [
        ("flu", "injection", 1, "985151000000100"),
        ("flu", "injection", 2, "985171000000109"),
        ("flu", "injection", 9, "985171000000109"),
        ("flu", "nasal", 1, "884861000000100"),
        ("flu", "nasal", 2, "884881000000109"),
        ("mmr", "injection", 2, "170433008"),
        ("mmrv", "injection", None, "432636005"),
        ("hpv", "injection", 3, "761841000"),
        ("td_ipv", "injection", 5, "414619005"),
    ],
)
def test_the_procedure_follows_from_method_and_dose(programme: str, method: str, dose: int | None, code: str) -> None:
    assert PROGRAMMES[programme].procedure(method, dose).code == code  # type: ignore[arg-type]


def test_an_unstated_dose_is_the_first_for_flu_and_hpv_only() -> None:
    assert {key: programme.dose(None) for key, programme in PROGRAMMES.items()} == {
        "flu": 1,
        "hpv": 1,
        "menacwy": None,
        "mmr": None,
        "mmrv": None,
        "td_ipv": None,
    }
    assert PROGRAMMES["hpv"].dose(2) == 2


def test_the_vaccine_tells_the_method_before_the_site_does() -> None:
    assert method_of("fluenz", None, None) == "nasal"
    assert method_of("vaxigrip", None, None) == "injection"
    assert method_of(None, "nose", None) == "nasal"
    assert method_of(None, None, "nasal_spray") == "nasal"
    assert method_of(None, "left_thigh", None) == "injection"
    assert method_of(None, None, None) == "injection"


def test_the_site_tells_the_route() -> None:
    assert {route_of(site) for site in SITES if site != "nose"} == {"intramuscular"}
    assert route_of("nose") == "nasal_spray"
    assert route_of(None) is None


@pytest.mark.parametrize("code", ["U1", "R1L", "v0v8l", "0123456789"])
def test_an_ods_code_is_two_to_ten_letters_and_digits_in_any_case(code: str) -> None:
    assert is_ods_code(code)


@pytest.mark.parametrize("text", ["", "R", "R" * 11, "R-1", "R1L\n", " R1L", "Ŕ1L", "R\u0661L"])
def test_what_has_another_form_is_no_ods_code(text: str) -> None:
    assert not is_ods_code(text)
