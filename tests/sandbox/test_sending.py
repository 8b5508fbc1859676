"""Promises of sending where the caller, not MESH, is at fault, and of what a send that failed leaves to go on with."""

from __future__ import annotations

import hashlib
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
        sender.send(part, to="X26ABC3", workflow_id="w")
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
        sender.send(part, to="X26ABC3", workflow_id="w")
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
    assert caught.value.resume[1] == 3
    # The same bytes, in other pieces, are cut at the same places.
    pieces = (body[start : start + 7] for start in range(0, len(body), 7))
    sender.send_file("X26ABC3", "w", pieces, compress=False, chunk_size=1_000, resume=caught.value.resume)
    with receiver.download(caught.value.resume[0]) as message:
        assert message.read() == body


def test_flags_about_the_file_itself_reach_the_receiver(sender: MeshClient, receiver: MeshClient) -> None:
    part = Part(open=lambda: io.BytesIO(b"PK"), size=2)
    sender.send(part, to="X26ABC3", workflow_id="w", encrypted=True, compressed=True)
    [message_id] = receiver.inbox()
    with receiver.download(message_id) as message:
        assert message.read() == b"PK"


@pytest.mark.parametrize("compress", [True, False])
def test_a_checksum_that_was_asked_for_is_sent_and_verified(
    sender: MeshClient, receiver: MeshClient, compress: bool
) -> None:
    body = os.urandom(5_000)
    sent = sender.send_file("X26ABC3", "w", body, compress=compress, chunk_size=1_000, checksum=True)
    with receiver.download(sent.message_id, verify_checksum=True) as message:
        assert message.checksum == hashlib.sha256(body).hexdigest()
        assert message.read() == body


@pytest.mark.parametrize("size", [0, 9, 501])
def test_a_page_of_the_inbox_that_mesh_would_refuse_is_refused_at_once(sender: MeshClient, size: int) -> None:
    with pytest.raises(ConfigurationError, match="10 to 500"):
        sender.inbox(page_size=size)
