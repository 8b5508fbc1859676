"""One child's records erased by hand, as docs/information-governance.md says: nothing of the others is lost."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING

import pytest

from local.dps import Dps
from tests.usecases.restored import make_scene
from tests.usecases.rows import row, upload_of, uuid_of
from tests.usecases.test_last_statement import A, B, a_day, has
from vaccinations.formats.batches import read_batch

if TYPE_CHECKING:
    from tests.usecases.memory import MemoryRegister
    from tests.usecases.stores import Stores
    from tests.usecases.world import World

ERASED, WITHDRAWN, CORRECTED = 1, 2, 3
NAME = "Persephone"


@pytest.fixture
def dps(world: World) -> Dps:
    return Dps(world.receiver, clock=world.clock)


def text_of(world: World, key: str) -> bytes:
    body = world.stores.object(key)
    return gzip.decompress(body) if key.endswith(".gz") and not key.startswith("incoming/") else body


def erase(world: World, record_id: str, *, from_register: bool) -> None:
    """Do what the page says, of the objects that there are."""
    stores = world.stores
    for key in stores.list_keys():
        if key.startswith(("incoming/", "exports/", "inbox/")) and not key.endswith(".json"):
            stores.delete(key)
        elif key.endswith(".jsonl.gz") and record_id.encode() in text_of(world, key):
            lines = read_batch(world.bucket.open(key).body)
            stores.delete(key.replace(".jsonl.gz", ".v1.csv.gz"))
            stores.upload(key, gzip.compress(b"".join(line for line in lines if record_id.encode() not in line)))
    if from_register and stores.dynamodb:
        stores.dynamodb.delete_item(TableName=stores.tables[1], Key={"record_id": {"S": record_id}})
    elif from_register:
        register: MemoryRegister = world.register  # type: ignore[assignment]
        del register.entries[record_id]


@pytest.fixture
def withdrawn(world: World, dps: Dps) -> None:
    """Have three children on file, and the first withdrawn."""
    said = row(ERASED, batch=A, forename=NAME), row(WITHDRAWN, batch=A), row(CORRECTED, batch=A)
    world.upload(upload_of(*said))
    a_day(world, dps)
    world.upload(upload_of(row(ERASED, batch=A, vaccinated="N", forename=NAME)), "tuesday.csv")
    a_day(world, dps)
    assert [has(dps, n) for n in (ERASED, WITHDRAWN, CORRECTED)] == ["", A, A]


@pytest.mark.usefixtures("withdrawn")
def test_a_childs_records_are_erased_and_those_beside_them_are_corrected_and_withdrawn_as_ever(
    world: World, dps: Dps
) -> None:
    assert any(NAME.encode() in text_of(world, key) for key in world.stores.list_keys())
    erase(world, uuid_of(ERASED), from_register=True)
    kept = world.stores.list_keys()
    assert not [key for key in kept if NAME.encode() in text_of(world, key)]
    assert any(key.endswith(".jsonl.gz") for key in kept)
    assert world.next_night().exports == (), "nothing is sent again"

    world.upload(upload_of(row(WITHDRAWN, vaccinated="N"), row(CORRECTED, batch=B)), "wednesday.csv")
    [file] = a_day(world, dps)
    assert [(judged.row["ACTION_FLAG"], judged.refused) for judged in file.rows] == [("delete", ""), ("update", "")]
    assert [has(dps, n) for n in (ERASED, WITHDRAWN, CORRECTED)] == ["", "", B]


@pytest.mark.usefixtures("withdrawn")
def test_a_record_that_is_erased_here_counts_as_never_seen(world: World, dps: Dps) -> None:
    erase(world, uuid_of(ERASED), from_register=True)
    assert world.upload(upload_of(row(ERASED, batch=B)), "wednesday.csv").accepted == {"hpv": {"new": 1}}
    a_day(world, dps)
    assert has(dps, ERASED) == B


@pytest.mark.usefixtures("withdrawn")
def test_a_line_that_is_erased_while_the_register_knows_it_stops_the_next_upload_about_it(world: World) -> None:
    erase(world, uuid_of(ERASED), from_register=False)
    with pytest.raises(LookupError, match="lacks a record"):
        world.upload(upload_of(row(ERASED, batch=B)), "wednesday.csv")


def test_after_an_erasure_the_tables_are_restored_and_answers_are_heard_again(stores: Stores) -> None:
    scene = make_scene(stores)
    scene.world.upload(upload_of(row(ERASED, batch=A), row(CORRECTED, batch=A)))
    scene.remember()
    scene.night()
    scene.world.upload(upload_of(row(ERASED, batch=A, vaccinated="N")), "tuesday.csv")
    scene.night()
    erase(scene.world, uuid_of(ERASED), from_register=True)
    for key in scene.world.stores.list_keys():
        if key.endswith(".jsonl.gz") and not text_of(scene.world, key):
            scene.world.stores.delete(key)
    scene.put_back()
    assert scene.reconcile().status == "ok"
    assert scene.hear_again().status == "ok"
    scene.night()
    assert has(scene.dps, CORRECTED) == A
    assert has(scene.dps, ERASED) == ""
