"""A download that breaks goes on where it broke; one that cannot be whole is never taken for whole."""

from __future__ import annotations

import gzip
import io
import random
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import ConfigurationError, Corrupted, Expired, NotFound, Part, Unavailable
from tests.faults.nhs_mesh.proxy import FORWARD, LOSE_ANSWER, STALL, Action, answer, cut_short

if TYPE_CHECKING:
    from nhs_mesh import MeshClient, Message
    from tests.faults.nhs_mesh.proxy import Proxy

BODY = random.Random(4).randbytes(400_000)


def send(client: MeshClient, body: bytes = BODY, *, compress: bool = True, chunk_size: int = 150_000) -> str:
    return client.send_file("X26ABC3", "DPS", body, compress=compress, chunk_size=chunk_size).message_id


def read_on(message: Message, read: bytearray) -> None:
    while block := message.read(10_000):
        read += block


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize("fault", [cut_short(100_000), cut_short(100_000, reset=True), cut_short(0), LOSE_ANSWER])
@pytest.mark.parametrize("chunk", [1, 2, 3])
def test_a_download_that_breaks_goes_on_to_the_whole_body(
    direct: MeshClient, receiver: MeshClient, proxy: Proxy, fault: Action, chunk: int, compress: bool
) -> None:
    message_id = send(direct, compress=compress)
    proxy.script = [*[FORWARD] * (chunk - 1), fault, fault]
    with receiver.download(message_id) as message:
        assert message.read() == BODY


def test_a_download_that_stalls_goes_on(direct: MeshClient, receiver: MeshClient, proxy: Proxy) -> None:
    message_id = send(direct)
    proxy.script = [FORWARD, STALL, FORWARD]
    with receiver.download(message_id) as message:
        assert message.read() == BODY


@pytest.mark.parametrize(
    ("faults", "said"),
    [([cut_short(100_000)] * 3, "the connection broke while chunk 1"), ([FORWARD, *[answer(503)] * 5], "503")],
)
def test_a_download_that_breaks_for_good_never_seems_to_end_there(
    direct: MeshClient, receiver: MeshClient, proxy: Proxy, faults: list[Action], said: str
) -> None:
    message_id = send(direct)
    proxy.script = list(faults)
    with receiver.download(message_id) as message:
        for _ in range(3):  # however often it is read on
            with pytest.raises(Unavailable, match=said):
                read_on(message, bytearray())
    # It is opened again, at the chunk that is missing.
    chunks = []
    for number in range(1, message.chunks + 1):
        with receiver.download(message_id, chunk=number) as chunk:
            chunks.append(chunk.read())
    assert b"".join(chunks) == BODY


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (410, Expired)])
def test_a_message_that_goes_away_between_parts_says_so(
    direct: MeshClient, receiver: MeshClient, proxy: Proxy, status: int, error: type[Exception]
) -> None:
    message_id = send(direct)
    proxy.script = [FORWARD, answer(status)]
    with receiver.download(message_id) as message, pytest.raises(error):
        message.read()


def test_an_expired_message_says_so(receiver: MeshClient, proxy: Proxy) -> None:
    proxy.script = [answer(410)]
    with pytest.raises(Expired):
        receiver.download("MESSAGE")


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(gzip.compress(BODY)[:-1], id="lacks a byte"),
        pytest.param(gzip.compress(BODY)[:-8], id="lacks its end"),
        pytest.param(gzip.compress(BODY)[:5], id="lacks nearly all"),
        pytest.param(gzip.compress(BODY)[:-8] + bytes(8), id="has a wrong sum"),
        pytest.param(b"no gzip at all", id="is none"),
        pytest.param(gzip.compress(BODY) + b"and more", id="goes on with rubbish"),
    ],
)
def test_gzip_that_is_not_whole_is_corrupted(receiver: MeshClient, proxy: Proxy, body: bytes) -> None:
    proxy.script = [answer(200, body, Content_Encoding="gzip")]
    with receiver.download("MESSAGE") as message:
        for _ in range(2):  # however often it is asked for
            with pytest.raises(Corrupted):
                message.read()


def test_gzip_of_several_members_is_one_body(receiver: MeshClient, proxy: Proxy) -> None:
    members = [gzip.compress(BODY[start : start + 70_000]) for start in range(0, len(BODY), 70_000)]
    proxy.script = [answer(200, b"".join(members), Content_Encoding="GZip")]
    with receiver.download("MESSAGE") as message:
        assert message.read() == BODY


def test_a_part_that_comes_back_shorter_is_corrupted(receiver: MeshClient, proxy: Proxy) -> None:
    whole = Action(forward=0, status=200, body=BODY, send=200_000)
    proxy.script = [whole, answer(200, BODY[:1000])]
    with receiver.download("MESSAGE") as message, pytest.raises(Corrupted, match="has become another one"):
        message.read()


@pytest.mark.parametrize("chunk_range", ["", "1:1"])
def test_a_message_that_is_not_chunked_is_one_chunk(receiver: MeshClient, proxy: Proxy, chunk_range: str) -> None:
    proxy.script = [answer(200, BODY, Mex_Chunk_Range=chunk_range)]
    with receiver.download("MESSAGE") as message:
        assert message.chunks == 1
        assert message.read() == BODY


def test_a_body_shorter_than_was_said_is_noticed_before_mesh_could_take_it(
    client: MeshClient, direct: MeshClient
) -> None:
    short = Part(lambda: io.BytesIO(b"short"), 100)
    with pytest.raises(ConfigurationError, match="95 bytes shorter"):
        client.send("X26ABC3", "DPS", short, local_id="export-1-1")
    with pytest.raises(NotFound):
        direct.track_by_local_id("export-1-1")


def test_a_body_that_is_no_gzip_can_still_be_had_as_it_came(direct: MeshClient, receiver: MeshClient) -> None:
    body = b"\x1f\x8bthis is no gzip"
    part = Part(lambda: io.BytesIO(body), len(body), content_encoding="gzip")
    message_id = direct.send("X26ABC3", "DPS", part).message_id
    with receiver.download(message_id) as message, pytest.raises(Corrupted):
        message.read()
    with receiver.download(message_id, decode=False) as message:
        assert message.read() == body
        assert message.content_encoding == "gzip"
