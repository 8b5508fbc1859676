"""Promises of collecting, in memory, and on moto's server and NHS England's sandbox."""

from __future__ import annotations

import gzip
import io
import json
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from nhs_mesh import Part, Unavailable
from tests.usecases.stores import on_sandbox
from vaccinations.results import CollectedMessage, CollectRun

if TYPE_CHECKING:
    from tests.usecases.world import World

LARGE = random.Random(7).randbytes(3_000_000)


def facts(world: World, key: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(world.object(f"{key}.json"))
    return found


def watch_writes(world: World, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """List the keys of the objects that are written from now on."""
    written: list[str] = []
    for name in ("_put", "_put_stream"):
        put = getattr(world.bucket, name)

        def noted(key: str, *args: Any, put: Any = put, **options: Any) -> None:
            written.append(key)
            put(key, *args, **options)

        monkeypatch.setattr(world.bucket, name, noted)
    return written


def test_a_message_is_kept_with_what_mesh_said_of_it_and_leaves_the_mailbox(world: World) -> None:
    sent = world.receiver.send_file(
        "X26ABC1", "letters", b"Dear sender", filename="letter.txt", subject="A letter", local_id="letter-1"
    )
    answer = world.collect()
    key = f"inbox/letters/{sent.message_id}"
    message = CollectedMessage(
        message_id=sent.message_id, workflow_id="letters", filename="letter.txt", key=key, answer=None
    )
    assert answer == CollectRun(status="ok", messages=(message,), left=0)
    assert world.object(key) == b"Dear sender"
    assert facts(world, key) | {"sender": "X26ABC3", "subject": "A letter", "local_id": "letter-1"} == facts(world, key)
    assert list(world.client.inbox()) == []
    assert world.receiver.track(sent.message_id).status == "acknowledged"


@on_sandbox
def test_what_mesh_said_of_a_message_is_the_objects_metadata_too(world: World, s3: Any) -> None:
    sent = world.receiver.send_file("X26ABC1", "letters", b"Dear sender", filename="100% of it.txt")
    world.collect()
    bucket: Any = world.bucket
    kept = s3.head_object(Bucket=bucket.bucket, Key=f"inbox/letters/{sent.message_id}")["Metadata"]
    assert kept["sender"] == "X26ABC3"
    assert kept["filename"] == "100%25 of it.txt"


@on_sandbox
@pytest.mark.parametrize("compress", [True, False])
def test_a_message_of_many_parts_is_kept_whole(world: World, compress: bool) -> None:
    sent = world.receiver.send_file("X26ABC1", "letters", LARGE, compress=compress, chunk_size=700_000)
    assert sent.parts > 4
    world.collect()
    assert world.object(f"inbox/letters/{sent.message_id}") == LARGE


@on_sandbox
@pytest.mark.parametrize("compress", [True, False])
def test_a_message_that_is_too_large_for_a_run_is_gone_on_with_by_the_next(world: World, compress: bool) -> None:
    sent = world.receiver.send_file("X26ABC1", "letters", LARGE, compress=compress, chunk_size=700_000)
    assert sent.parts == 5
    download = world.client.download
    fetched: list[int] = []

    def slowly(message_id: str, *, chunk: int | None = None, **options: Any) -> object:
        if chunk:
            fetched.append(chunk)
            world.seconds_left -= 350.0
        return download(message_id, chunk=chunk, **options)

    runs = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(world.client, "download", slowly)
        while not runs or runs[-1].left:
            world.seconds_left = 900.0
            assert [m for run in runs for m in run.messages] == []
            assert list(world.client.inbox()) == [sent.message_id]  # not acknowledged before it is whole
            runs.append(world.collect())
    assert [run.status for run in runs] == ["incomplete", "ok"]
    assert fetched == [1, 2, 3, 4, 5]  # each of them once
    assert world.object(f"inbox/letters/{sent.message_id}") == LARGE
    assert list(world.client.inbox()) == []


@on_sandbox
def test_a_chunk_whose_gzip_is_broken_leaves_the_message_as_it_came(world: World) -> None:
    parts = [gzip.compress(b"Dear sender"), b"\x1f\x8bthis is no gzip"]
    first, second = (Part(partial(io.BytesIO, body), len(body), content_encoding="gzip") for body in parts)
    sent = world.receiver.send("X26ABC1", "letters", first, parts=2)
    world.receiver.send_chunk(sent.message_id, 2, 2, second)
    assert len(world.collect().messages) == 1
    assert world.object(f"inbox/letters/{sent.message_id}") == b"".join(parts)
    assert "chunk 2 is not valid gzip" in facts(world, f"inbox/letters/{sent.message_id}")["problem"]
    assert list(world.client.inbox()) == []


def test_a_body_larger_than_a_piece_is_stored_piece_by_piece(world: World) -> None:
    body = LARGE * 7
    sent = world.receiver.send_file("X26ABC1", "letters", body)
    world.collect()
    assert world.object(f"inbox/letters/{sent.message_id}") == body


def test_an_empty_message_is_kept_too(world: World) -> None:
    sent = world.receiver.send_file("X26ABC1", "letters", b"")
    world.collect()
    assert world.object(f"inbox/letters/{sent.message_id}") == b""
    assert list(world.client.inbox()) == []


def test_messages_of_any_workflow_are_kept_apart_by_name(world: World) -> None:
    names = ["dps export ack", "A/../B", "percent%2Fsign", "x" * 300]
    ids = [world.receiver.send_file("X26ABC1", name, name.encode()).message_id for name in names]
    world.collect()
    keys = [key for key in world.objects() if not key.endswith(".json")]
    assert {world.object(key).decode() for key in keys} == set(names)
    assert all(key.count("/") == 2 and ".." not in key for key in keys)
    assert f"inbox/dps export ack/{ids[0]}" in keys


def test_a_message_whose_gzip_is_broken_is_kept_as_it_came_reported_and_does_not_stop_the_rest(
    world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = Part(lambda: io.BytesIO(b"\x1f\x8bthis is no gzip"), 17, content_encoding="gzip")
    first = world.receiver.send("X26ABC1", "letters", broken, filename="broken.txt").message_id
    second = world.receiver.send_file("X26ABC1", "letters", b"Dear sender").message_id
    assert len(world.collect().messages) == 2
    assert world.object(f"inbox/letters/{first}") == b"\x1f\x8bthis is no gzip"
    assert "is not valid gzip" in facts(world, f"inbox/letters/{first}")["problem"]
    assert facts(world, f"inbox/letters/{first}")["content_encoding"] == "gzip"
    assert world.object(f"inbox/letters/{second}") == b"Dear sender"
    assert list(world.client.inbox()) == []
    assert '"MessagesUnreadable":[1.0]' in capsys.readouterr().out


def test_reports_are_left_for_track(world: World) -> None:
    world.report("some message")
    assert world.collect().messages == ()
    assert len(list(world.client.inbox())) == 1


def test_a_message_that_cannot_be_fetched_stays_in_the_mailbox_and_the_others_are_collected(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = [world.receiver.send_file("X26ABC1", "letters", b"Dear sender").message_id for _ in range(3)]
    download = world.client.download

    def breaks(message_id: str, **options: bool) -> object:
        if message_id == ids[1]:
            raise Unavailable("MESH does not answer")
        return download(message_id, **options)

    with monkeypatch.context() as patch:
        patch.setattr(world.client, "download", breaks)
        answer = world.collect()
    assert (answer.status, answer.left) == ("incomplete", 1)
    assert [m.message_id for m in answer.messages] == [ids[0], ids[2]]
    assert list(world.client.inbox()) == [ids[1]]
    assert world.collect().status == "ok"
    assert list(world.client.inbox()) == []


def test_what_is_in_the_bucket_already_is_not_written_a_second_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = watch_writes(world, monkeypatch)
    sent = world.receiver.send_file("X26ABC1", "letters", b"Dear sender")

    def breaks(message_id: str) -> None:
        raise Unavailable("MESH does not answer")

    with monkeypatch.context() as patch:
        patch.setattr(world.client, "acknowledge", breaks)
        assert world.collect().left == 1
    assert world.collect().status == "ok"
    key = f"inbox/letters/{sent.message_id}"
    assert written == [key, f"{key}.json"]
    assert list(world.client.inbox()) == []


def test_a_run_that_is_out_of_time_leaves_the_rest_for_the_next(world: World) -> None:
    world.receiver.send_file("X26ABC1", "letters", b"Dear sender")
    world.seconds_left = 10
    assert world.collect() == CollectRun(status="incomplete", messages=(), left=1)
    world.seconds_left = 900
    assert len(world.collect().messages) == 1
