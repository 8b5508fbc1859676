"""Rows of uploads for tests."""

from __future__ import annotations

import uuid

HEADER = (
    "UUID,NHS_NUMBER,PERSON_FORENAME,PERSON_SURNAME,PERSON_DOB,PERSON_GENDER_CODE,PERSON_POSTCODE,"
    "VACCINATED,DATE_OF_VACCINATION,PROGRAMME,VACCINE_GIVEN,BATCH_NUMBER,ANATOMICAL_SITE,DOSE_SEQUENCE"
)


def row(
    n: int, programme: str = "HPV", vaccinated: str = "Y", batch: str = "AB1234", forename: str = "Quintessa"
) -> str:
    """One line of an upload, with an identifier that follows from ``n``."""
    vaccines = {
        "HPV": "Gardasil9",
        "Flu": "AstraZeneca Fluenz",
        "MenACWY": "MenQuadfi",
        "MMR": "Priorix",
        "Td/IPV": "Revaxis",
    }
    site = "nasal" if programme == "Flu" else "left upper arm"
    return (
        f"{uuid_of(n)},,{forename},Zephyrson,2012-08-18,female,SW1A 1AA,{vaccinated},2026-10-01,{programme},"
        f"{vaccines[programme]},{batch},{site},1"
    )


def uuid_of(n: int) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_OID, str(n)))


def upload_of(*rows: str) -> str:
    return "\n".join([HEADER, *rows]) + "\n"
