"""Promises of sending where the caller, not MESH, is at fault, and of what a send that failed leaves to go on with."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from nhs_mesh import ConfigurationError, MeshClient, MeshError, Part, Refused, SendOutcomeUnknown, Unavailable
from tests.faults.nhs_mesh.proxy import LOSE_ANSWER, Proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from local.sandbox import Sandbox


@pytest.fixture
def proxy(sandbox: Sandbox) -> Iterator[Proxy]:
    with Proxy(sandbox) as running:
        yield running


@pytest.mark.parametrize("size", [5, 15])
def test_a_body_of_another_size_than_was_said_is_not_sent(sender: MeshClient, receiver: MeshClient, size: int) -> None:
    part = Part(open=lambda: io.BytesIO(b"0123456789"), size=size)
    with pytest.raises(ConfigurationError, match="than was said"):
        sender.send("X26ABC3", "w", part)
    assert list(receiver.inbox()) == []


class Breaking(io.BytesIO):
    """A body whose own source fails on the way."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise ConnectionResetError("the disk is on fire")
        return super().read(min(size or 3, 3))


def test_a_body_that_breaks_off_is_not_taken_for_a_lost_answer(sender: MeshClient, receiver: MeshClient) -> None:
    part = Part(open=lambda: Breaking(b"0123456789"), size=10)
    with pytest.raises(Unavailable, match=r"body broke off.*nothing was sent"):
        sender.send("X26ABC3", "w", part)
    assert list(receiver.inbox()) == []


def test_a_send_without_a_local_id_can_still_be_asked_for(sandbox: Sandbox, receiver: MeshClient, proxy: Proxy) -> None:
    with sandbox.client(base_url=proxy.base_url) as client:
        proxy.script = [LOSE_ANSWER]
        with pytest.raises(SendOutcomeUnknown) as caught:
            client.send_file("X26ABC3", "w", b"hello")
        assert [client.track_by_local_id(caught.value.local_id).message_id] == list(receiver.inbox())


def test_a_send_that_got_stuck_says_where_to_go_on(
    sender: MeshClient, receiver: MeshClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = os.urandom(5_000)
    whole = sender.send_chunk

    def stuck(message_id: str, number: int, parts: int, part: Part) -> None:
        if number == 3:
            raise Refused(417)
        whole(message_id, number, parts, part)

    with monkeypatch.context() as patch:
        patch.setattr(sender, "send_chunk", stuck)
        with pytest.raises(MeshError) as caught:
            sender.send_file("X26ABC3", "w", body, compress=False, chunk_size=1_000)
    assert caught.value.resume
    assert caught.value.resume.part == 3
    # The same bytes, in other pieces, are cut at the same places.
    pieces = (body[start : start + 7] for start in range(0, len(body), 7))
    sender.send_file("X26ABC3", "w", pieces, resume=caught.value.resume)
    with receiver.download(caught.value.resume.message_id) as message:
        assert message.read() == body


def test_a_send_does_not_go_on_with_another_body(
    sender: MeshClient, receiver: MeshClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stuck(*_: object) -> None:
        raise Unavailable("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(sender, "send_chunk", stuck)
        with pytest.raises(Unavailable) as caught:
            sender.send_file("X26ABC3", "w", b"yesterday's rows" * 100, compress=False, chunk_size=1_000)
    with pytest.raises(ConfigurationError, match="not the one that MESH has the first parts of"):
        sender.send_file("X26ABC3", "w", b"today's new rows" * 100, resume=caught.value.resume)
    assert list(receiver.inbox()) == []


def test_flags_about_the_file_itself_reach_the_receiver(sender: MeshClient, receiver: MeshClient) -> None:
    part = Part(open=lambda: io.BytesIO(b"PK"), size=2)
    flags = {"encrypted": True, "compressed": True}
    ids = [sender.send("X26ABC3", "w", part, **flags), sender.send_file("X26ABC3", "w", b"PK", **flags)]
    for sent in ids:
        with receiver.download(sent.message_id) as message:
            assert (message.encrypted, message.compressed) == (True, True)
            assert message.read() == b"PK"
    plain = sender.send("X26ABC3", "w", part)
    with receiver.download(plain.message_id) as message:
        assert not message.encrypted


def test_a_pound_and_an_accent_arrive_as_they_were_written(sender: MeshClient, receiver: MeshClient) -> None:
    sent = sender.send_file("X26ABC3", "w", b"x", subject="Fee: £5", filename="café.txt")
    with receiver.download(sent.message_id) as message:
        assert (message.subject, message.filename) == ("Fee: £5", "café.txt")
        assert message.mex_headers["mex-subject"] == "Fee: £5"


@pytest.mark.parametrize("chunk_size", [1_000, 100_000], ids=["chunked", "whole"])
def test_the_type_of_a_body_arrives_whether_or_not_it_is_chunked(
    sender: MeshClient, receiver: MeshClient, chunk_size: int
) -> None:
    body = os.urandom(3_000)
    sent = sender.send_file("X26ABC3", "w", body, content_type="application/pdf", chunk_size=chunk_size)
    with receiver.download(sent.message_id) as message:
        assert message.content_type == "application/pdf"


def test_every_header_of_mesh_can_be_read(sender: MeshClient, receiver: MeshClient) -> None:
    sent = sender.send_file("X26ABC3", "w", b"x")
    with receiver.download(sent.message_id) as message:
        assert message.mex_headers["mex-messageid"] == sent.message_id
        assert message.mex_headers["mex-addresstype"] == "ALL"


def test_the_local_id_that_was_made_up_is_returned(sender: MeshClient) -> None:
    part = Part(open=lambda: io.BytesIO(b"x"), size=1)
    for sent in (sender.send("X26ABC3", "w", part), sender.send_file("X26ABC3", "w", b"x")):
        assert sent.local_id
        assert sender.track_by_local_id(sent.local_id).message_id == sent.message_id


@pytest.mark.parametrize("size", [0, 9, 501])
def test_a_page_of_the_inbox_that_mesh_would_refuse_is_refused_at_once(sender: MeshClient, size: int) -> None:
    with pytest.raises(ConfigurationError, match="10 to 500"):
        sender.inbox(page_size=size)
