"""Promises to teams: each is told once what became of its upload, and which of its rows DPS refused."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from moto.events.models import EventPattern

from local.dps import Dps
from local.stack import PROJECT
from local.template import Template
from tests.schemas import FOLDER
from tests.usecases.rows import HEADER, row, upload_of, uuid_of
from vaccinations.aws.bus import FOR_TEAMS, SOURCE, team_teller
from vaccinations.jobs.collect import Collect
from vaccinations.jobs.ingest import MOST_TRIES
from vaccinations.results import RowsRefused, UploadFinished, document

if TYPE_CHECKING:
    from tests.usecases.stores import Stores
    from tests.usecases.world import World
    from vaccinations.results import ForTeam

in_memory = pytest.mark.parametrize("world", ["memory"], indirect=True)
stores_in_memory = pytest.mark.parametrize("stores", ["memory"], indirect=True)
#: A team's name of its file, which tells of a child.
NAME = "Ada Byron.csv"


class Broken(Exception):
    """Stands for whatever makes it impossible to complete an upload."""


def ingest(stores: Stores, uploaded: tuple[str, str]) -> list[ForTeam]:
    """Handle the event of an upload; return what its team is told."""
    told: list[ForTeam] = []
    replace(stores.ingesting, tell=told.append).ingest(*uploaded)
    return told


@stores_in_memory
def test_a_team_is_told_once_of_each_upload_that_was_ingested(stores: Stores) -> None:
    uploaded = stores.uploaded(upload_of(row(1), row(2), row(3).replace("SW1A 1AA", "nonsense")), NAME, "r1l")
    batch_id = stores.bucket.batch_id(*uploaded)
    [told] = ingest(stores, uploaded)
    assert isinstance(told, UploadFinished)
    assert (told.organisation, told.batch_id, told.status) == ("R1L", batch_id, "ingested")
    assert (told.rows, told.accepted, told.rejected, told.unchanged) == (3, 2, 1, 0)
    assert stores.object(told.receipt)
    assert told.rejects
    assert stores.object(told.rejects)
    assert told.summary.startswith("3 rows: 2 accepted, 0 unchanged, 0 overtaken, 0 skipped, 1 rejected. ")
    assert f"rejected/R1L/(name of your file)/{batch_id}.csv" in told.summary
    jsonschema.validate(document(told), json.loads((FOLDER / "upload-finished.schema.json").read_text()))
    assert ingest(stores, uploaded) == []


@stores_in_memory
def test_a_team_is_told_once_of_a_file_that_was_rejected_as_a_whole(stores: Stores) -> None:
    uploaded = stores.uploaded("nonsense", "monday.xlsx")
    [told] = ingest(stores, uploaded)
    assert isinstance(told, UploadFinished)
    assert (told.status, told.rows, told.rejects) == ("rejected", None, None)
    assert "Excel workbook" in told.summary
    assert "save it as CSV" in told.summary
    jsonschema.validate(document(told), json.loads((FOLDER / "upload-finished.schema.json").read_text()))
    assert ingest(stores, uploaded) == []


@stores_in_memory
def test_a_team_is_told_of_a_parked_upload_when_a_person_has_ended_it_and_of_a_retry_as_of_any(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(*_: Any) -> None:
        raise Broken

    told: list[ForTeam] = []
    use_case = replace(stores.ingesting, tell=told.append)
    parked = []
    with monkeypatch.context() as broken:
        broken.setattr(stores.ledger, "attach", failing)
        for name in ("monday.csv", "tuesday.csv"):
            uploaded = stores.uploaded(upload_of(row(len(parked) + 1)), name)
            for _ in range(MOST_TRIES - 1):
                with pytest.raises(Broken):
                    use_case.ingest(*uploaded)
            assert use_case.ingest(*uploaded).status == "parked"
            parked.append(stores.bucket.batch_id(*uploaded))
    assert told == []
    retried = use_case.retry(parked[0], "it is well again")
    for _ in range(2):
        use_case.abandon(parked[1], "the team has sent another")
    assert [(each.batch_id, each.status) for each in told if isinstance(each, UploadFinished)] == [
        (retried.batch_id, "ingested"),
        (parked[1], "abandoned"),
    ]


@stores_in_memory
def test_of_requests_and_lists_for_the_cut_over_no_team_is_told(stores: Stores) -> None:
    for name in ("already-sent/R1L/mavis.csv", "nonsense"):
        assert ingest(stores, stores.bucket.put_request(name, upload_of(row(1)).encode())) == []


@stores_in_memory
def test_rejects_open_in_excel_and_name_columns_as_the_team_does(stores: Stores) -> None:
    header = HEADER.replace("PERSON_DOB", "Date of birth").replace("PERSON_POSTCODE", "person postcode")
    bad = row(1).replace("SW1A 1AA", "nonsense").replace("2012-08-18", "18th of August")
    receipt = stores.ingest("\n".join([header, row(0), bad]), NAME)
    body = stores.object(getattr(receipt, "rejects", ""))
    assert body.startswith(b"\xef\xbb\xbf")
    to_do, _, *faulty = csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""))
    assert to_do[0].startswith("What to do: ")
    [[line, columns, *_]] = faulty
    assert (line, set(columns.split("\n"))) == ("3", {"Date of birth", "person postcode"})


@in_memory
def test_a_team_is_told_once_which_of_its_rows_dps_refused_under_the_names_of_its_own_columns(world: World) -> None:
    header = HEADER.replace("PERSON_FORENAME", "First name")
    receipt = world.upload("\n".join([header, row(1), row(2)]), NAME)
    world.upload(upload_of(row(3)), "tuesday.csv", "R2L")
    world.next_night()
    refusing = Dps(world.receiver, refuse=lambda found: said(found["UNIQUE_ID"]), clock=world.clock)
    [file] = refusing.pick_up()
    refusing.answer(file)
    refusing.answer(file)
    told: list[ForTeam] = []
    ports = (world.bucket, world.ledger, world.register, world.client)
    Collect(*ports, lambda: 900.0, clock=world.clock, tell=told.append).run()
    [of_first] = told
    assert isinstance(of_first, RowsRefused)
    assert (of_first.organisation, of_first.batch_id, of_first.export_id) == ("R1L", receipt.batch_id, "hpv-1")
    assert (of_first.rows, of_first.programme) == (1, "hpv")
    assert of_first.summary.startswith("DPS refused 1 row of your upload.")
    assert "Ada" not in of_first.summary
    jsonschema.validate(document(of_first), json.loads((FOLDER / "rows-refused.schema.json").read_text()))
    body = world.object(of_first.refusals)
    assert body.startswith(b"\xef\xbb\xbfWhat to do: DPS refused these rows")
    [fault] = world.stores.faults(of_first.refusals)
    assert (fault["line"], fault["column"]) == ("3", "First name")


def said(unique_id: str) -> str | None:
    return (
        "Validation errors: contained[?(@.resourceType=='Patient')].name[0].given is a mandatory field"
        if unique_id == uuid_of(2)
        else None
    )


@stores_in_memory
@pytest.mark.parametrize(
    "trouble",
    [
        EndpointConnectionError(endpoint_url="https://events"),
        ClientError({"Error": {"Code": "Throttled"}}, "PutEvents"),
        None,
    ],
)
def test_an_upload_is_ingested_though_its_team_cannot_be_told(
    stores: Stores, capsys: pytest.CaptureFixture[str], trouble: Exception | None
) -> None:
    class Events:
        def put_events(self, **_: Any) -> dict[str, Any]:
            if trouble:
                raise trouble
            return {"FailedEntryCount": 1, "Entries": [{"ErrorCode": "InternalFailure"}]}

    events: Any = Events()
    uploaded = stores.uploaded(upload_of(row(1)), NAME)
    receipt = replace(stores.ingesting, tell=team_teller(events, "default")).ingest(*uploaded)
    assert receipt.status == "ingested"
    printed = capsys.readouterr().out
    assert '"EventsNotPublished":[1.0]' in printed
    assert "Ada" not in printed


@stores_in_memory
def test_what_a_person_reads_of_an_upload_never_bears_the_name_of_its_file(stores: Stores) -> None:
    for body in (upload_of(row(1), "x"), "nonsense"):
        [told] = ingest(stores, stores.uploaded(body, NAME))
        assert "Ada" in getattr(told, "receipt", "")
        assert "Ada" not in told.summary


# --- by e-mail, as uploader.yaml has it ------------------------------------------------------------------------------

RULE = Template.read(PROJECT / "uploader.yaml").resources()["TeamRule"]["Properties"]


def email(told: ForTeam, of: str) -> str | None:
    """Return what an organisation's address is sent of an event; None where nothing is."""
    event = {"source": SOURCE, "detail-type": FOR_TEAMS[type(told)], "detail": document(told)}
    pattern = EventPattern.load(json.dumps(RULE["EventPattern"]).replace('{"Ref": "OdsCode"}', json.dumps(of)))
    if not pattern.matches_event(event):
        return None
    [target] = RULE["Targets"]
    transformer = target["InputTransformer"]
    text: str = transformer["InputTemplate"]["Fn::Sub"]
    for name, path in transformer["InputPathsMap"].items():
        found: Any = event
        for step in path.removeprefix("$.").split("."):
            found = found[step]
        text = text.replace(f"<{name}>", str(found).replace('"', '\\"'))
    assert all(line.startswith('"') and line.endswith('"') for line in text.splitlines())
    return text.replace("${OdsCode}", of)


@stores_in_memory
def test_an_organisation_gets_its_own_emails_with_counts_and_where_to_look_and_no_file_name(stores: Stores) -> None:
    bad = row(1).replace("SW1A 1AA", "nonsense")
    for body in (upload_of(row(2), bad), "nonsense"):
        [told] = ingest(stores, stores.uploaded(body, NAME))
        text = email(told, "R1L")
        assert text
        assert told.batch_id in text
        assert "receipts/R1L/(name of your file)/" in text
        assert ("2 rows: 1 accepted" in text) is (body != "nonsense")
        assert "Ada" not in text
        assert "<" not in text
        assert email(told, "RX1") is None


def test_an_email_tells_of_rows_that_dps_refused() -> None:
    told = RowsRefused(
        organisation="R1L",
        batch_id="b1",
        export_id="hpv-1",
        programme="hpv",
        rows=2,
        refusals=f"receipts/R1L/{NAME}/b1-refused-hpv-1.csv",
        refused_at="2026-11-30T21:00:00+00:00",
        summary="DPS refused 2 rows of your upload.",
    )
    text = email(told, "R1L")
    assert text
    assert "DPS refused 2 rows" in text
    assert "Ada" not in text
