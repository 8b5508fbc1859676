"""The schemas in docs/schemas are those of the classes, and what is written keeps to them."""

from __future__ import annotations

import json

import jsonschema
import pytest

from tests.names import PAGE, with_names
from tests.schemas import FOLDER, schemas
from vaccinations.model.export import Status
from vaccinations.results import ExportChanged, document

EVENT = ExportChanged(
    export_id="hpv-17",
    programme="hpv",
    number=17,
    status=Status.ACCEPTED,
    attempt=1,
    records=298,
    filename="Vaccinations-HPV-2024-08-23.csv",
    mesh_filename="HPV_Vaccinations_v5_V0V8L_20240823T20000001.csv",
    message_id="3F5A532496B341798B698FD44A0155F7",
    processing=None,
    rows_processed=None,
    rows_refused=None,
    changed_at="2024-08-23T19:00:04.512000+00:00",
)


def test_the_schemas_in_the_docs_are_made_from_the_classes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.iterdir()} == schemas(), "make them with: make schemas"


def test_the_names_in_the_docs_are_those_that_are_read() -> None:
    page = PAGE.read_text()
    assert page.count("`gardasil_9`") == 1
    assert page == with_names(page), "make them with: make schemas"


def test_every_property_of_a_schema_is_described() -> None:
    for name, text in schemas().items():
        properties = json.loads(text)["properties"]
        bare = [key for key, part in properties.items() if "description" not in part and key != "status"]
        assert not bare, (name, bare)


def test_an_event_keeps_to_its_schema_and_one_that_lacks_something_does_not() -> None:
    schema = json.loads((FOLDER / "export-changed.schema.json").read_text())
    event = json.loads(json.dumps(document(EVENT)))
    jsonschema.validate(event, schema)
    for name in event:
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({key: value for key, value in event.items() if key != name}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(event | {"status": "sent"}, schema)
