"""An export that is out of time has another run of itself begin, with the functions as built."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from local.stack import RECEIVER, LocalCloud
from tests.hurried import hurried_project
from tests.usecases.world import row, upload_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def hurried(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    """The stack with functions that have time for one step each."""
    with LocalCloud(project=hurried_project(tmp_path_factory.mktemp("hurried"))) as running:
        yield running


def test_runs_that_are_out_of_time_hand_over_until_everything_has_arrived_once(hurried: LocalCloud) -> None:
    records = [row(1), row(2, "MenACWY"), row(3), row(4, "Flu")]
    hurried.client("s3").put_object(
        Bucket=hurried.outputs["BucketName"], Key="incoming/R1L/monday.csv", Body=upload_of(*records).encode()
    )
    hurried.drain()
    answer = hurried.invoke("ExportFunction")
    # The first run made the part of the first programme; each of the others has a run of its own.
    assert [(export["programme"], export["status"]) for export in answer["exports"]] == [("flu", "pending")]
    assert answer["status"] == "incomplete"
    assert answer["handed_over"] == ["flu", "hpv", "menacwy", "mmr", "mmrv", "td_ipv"]

    hurried.emulator.later.wait()
    with hurried.sandbox.client(RECEIVER) as receiver:
        names = []
        for message_id in receiver.inbox():
            with receiver.download(message_id) as message:
                names.append(str(message.filename)[:18])
    assert sorted(names) == ["Vaccinations-Flu-2", "Vaccinations-HPV-2", "Vaccinations-MenAC"]
    asked = [(caller, function, event["programme"]) for caller, function, event in hurried.emulator.later.taken]
    assert {(caller, function) for caller, function, _ in asked} == {("ExportFunction", "ExportFunction")}
    # Flu's part was there already, and had but to be sent; the others had one made first. Nothing went on after that.
    handed_over = sorted(programme for _, _, programme in asked)
    assert handed_over == ["flu", "hpv", "hpv", "menacwy", "menacwy", "mmr", "mmrv", "td_ipv"]
    assert hurried.invoke("ExportFunction", {"resume_only": True})["exports"] == []
