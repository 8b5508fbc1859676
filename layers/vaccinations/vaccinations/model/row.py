"""The rows of an upload or a request, as its reader leaves them: each is one of six things.

======================  ==================================================================
`Vaccinated`            somebody was vaccinated: the record, checked
`Withdrawn`             nobody was vaccinated, or the record is to be deleted
`Nobody`                nobody was vaccinated, and no record is named
`SendAgain`             a record that DPS refused is to be sent again as it is
`Lost`                  a row of an export that DPS never got, or refused as a whole
`Faulty`                the row cannot be used: everything that is wrong with it
======================  ==================================================================
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from vaccinations.model.entry import Person

if TYPE_CHECKING:
    from vaccinations.model.assumed import Assumed
    from vaccinations.model.entry import Place
    from vaccinations.model.outcome import Action
    from vaccinations.model.problems import Problem
    from vaccinations.model.record import VaccinationRecord

__all__ = ["Faulty", "Lost", "Nobody", "Row", "SendAgain", "Vaccinated", "Withdrawn", "person_in"]


@dataclass(frozen=True, slots=True)
class Vaccinated:
    """A row that states a vaccination.

    Attributes
    ----------
    line
        The line of the upload where the row begins, from 1.
    record
        What it states.
    digest
        Of what it states, in hex (`vaccinations.formats.batches.digest_of`).
    assumed
        What was assumed where it does not state it.
    """

    line: int
    record: VaccinationRecord = field(repr=False)
    digest: str
    assumed: tuple[Assumed, ...] = ()

    @property
    def record_id(self) -> str:
        """The record's UUID, in lower case."""
        return str(self.record.uuid)


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A row that withdraws a record: nobody was vaccinated, or the record is to be deleted.

    Attributes
    ----------
    organisation_code
        The code that the row bears; empty where it bears none.
    person
        Whom it names; None where it names nobody.
    """

    line: int
    record_id: str
    organisation_code: str = ""
    person: Person | None = None


@dataclass(frozen=True, slots=True)
class Nobody:
    """A row that says that nobody was vaccinated, and names neither programme nor vaccine: it is about no record."""

    line: int


@dataclass(frozen=True, slots=True)
class SendAgain:
    """A row that asks for a record to be sent again as it was last stated."""

    line: int
    record_id: str


@dataclass(frozen=True, slots=True)
class Lost:
    """A row of an export that DPS never got, or refused as a whole.

    Attributes
    ----------
    line
        Its place in the export's file, from 1.
    statement
        What the row states of the record.
    action
        How it was to go to DPS.
    """

    line: int
    record_id: str
    statement: Place
    action: Action


@dataclass(frozen=True, slots=True)
class Faulty:
    """A row that cannot be used."""

    line: int
    problems: tuple[Problem, ...]


def person_in(record: VaccinationRecord) -> Person:
    """Tell whose vaccination a record is."""
    return Person(record.nhs_number, record.surname, record.date_of_birth.isoformat())


type Row = Vaccinated | Withdrawn | Nobody | SendAgain | Lost | Faulty
