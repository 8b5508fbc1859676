"""Bodies of any size, both ways, to the byte."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nhs_mesh import Corrupted, NotFound, Part, Refused, TrackingStatus, Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from local.sandbox import Sandbox
    from nhs_mesh import MeshClient

SIZES = st.integers(0, 20_000)


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    body=st.one_of(
        SIZES.map(lambda size: random.Random(size).randbytes(size)),
        st.builds(lambda text, size: text * (size // len(text)), st.binary(min_size=1, max_size=30), SIZES),
    ).filter(bool),
    chunk_size=st.integers(1_000, 25_000),
    compress=st.booleans(),
)
def test_what_was_sent_is_what_is_received(
    sender: MeshClient, receiver: MeshClient, body: bytes, chunk_size: int, compress: bool
) -> None:
    sent = sender.send_file("X26ABC3", "DPS", body, compress=compress, chunk_size=chunk_size)
    with receiver.download(sent.message_id) as message:
        assert message.chunks == sent.parts
        assert message.read() == body
    receiver.acknowledge(sent.message_id)


def test_a_message_reads_like_a_file(sender: MeshClient, receiver: MeshClient) -> None:
    lines = [b"row|%d\n" % number for number in range(5_000)]
    sent = sender.send_file("X26ABC3", "DPS", lines, chunk_size=5_000)
    assert sent.parts > 1
    with receiver.download(sent.message_id) as message:
        assert message.readable()
        assert not message.seekable()
        assert message.read(10) == b"".join(lines)[:10]
        assert message.readline() == b"".join(lines)[10:].partition(b"\n")[0] + b"\n"
        assert list(message) == lines[2:]
    with receiver.download(sent.message_id) as message:
        text = io.TextIOWrapper(message, "ascii")
        assert text.read() == b"".join(lines).decode()
    with receiver.download(sent.message_id) as message:
        pieces = list(iter(lambda: message.read(4_096), b""))
        assert {len(piece) for piece in pieces[:-1]} == {4_096}
        assert b"".join(pieces) == b"".join(lines)


def test_a_message_can_be_had_chunk_by_chunk(sender: MeshClient, receiver: MeshClient) -> None:
    body = random.Random(1).randbytes(35_000)
    sent = sender.send_file("X26ABC3", "DPS", body, chunk_size=10_000)
    assert sent.parts == 4
    read = []
    for chunk in (4, 2, 1, 3):
        with receiver.download(sent.message_id, chunk=chunk) as message:
            assert (message.chunk, message.chunks) == (chunk, 4)
            read.append((chunk, message.read()))
    assert b"".join(piece for _, piece in sorted(read)) == body
    with pytest.raises(NotFound):
        receiver.download(sent.message_id, chunk=5)


def test_a_message_says_how_much_of_it_has_come(sender: MeshClient, receiver: MeshClient) -> None:
    sent = sender.send_file("X26ABC3", "DPS", random.Random(1).randbytes(350_000), chunk_size=100_000)
    with receiver.download(sent.message_id) as message:
        seen = [message.progress]
        while message.read(10_000):
            seen.append(message.progress)
    assert seen[0] == 0
    assert seen == sorted(seen)
    assert seen[-1] == 1
    assert len(set(seen)) > 4


def test_an_empty_body_is_refused_by_mesh_or_arrives_empty(sender: MeshClient, receiver: MeshClient) -> None:
    with pytest.raises(Refused):
        sender.send_file("X26ABC3", "DPS", b"", compress=False)
    sent = sender.send_file("X26ABC3", "DPS", b"")
    with receiver.download(sent.message_id) as message:
        assert message.read() == b""


@pytest.mark.parametrize("part", [2, 3, 4])
def test_a_send_goes_on_at_the_part_where_it_ended(
    sender: MeshClient, receiver: MeshClient, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = random.Random(part).randbytes(35_000)
    send_chunk = type(sender).send_chunk

    def fail(self: MeshClient, message_id: str, number: int, *rest: object) -> None:
        if number == part:
            raise Unavailable(message_id)
        send_chunk(self, message_id, number, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(type(sender), "send_chunk", fail)
        with pytest.raises(Unavailable) as ended:
            sender.send_file("X26ABC3", "DPS", body, chunk_size=10_000)
    message_id = str(ended.value)
    assert sender.track(message_id).status is TrackingStatus.UPLOADING

    progress: list[tuple[int, int]] = []
    sent = sender.send_file(
        "X26ABC3",
        "DPS",
        body,
        resume=ended.value.resume,
        on_progress=lambda *step: progress.append(step),
    )
    assert (sent.message_id, sent.parts) == (message_id, 4)
    assert progress[0][0] > (part - 1) * 9_000
    assert progress[-1][0] == progress[-1][1]
    with receiver.download(message_id) as message:
        assert message.read() == body


@pytest.mark.parametrize("compress", [True, False])
def test_progress_grows_to_the_total(sender: MeshClient, compress: bool) -> None:
    progress: list[tuple[int, int]] = []
    body = random.Random(1).randbytes(100_000)
    sender.send_file(
        "X26ABC3",
        "DPS",
        body,
        compress=compress,
        chunk_size=30_000,
        on_progress=lambda *step: progress.append(step),
    )
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)
    (total,) = {total for _, total in progress}
    assert progress[-1][0] == total
    assert total == len(body)


@pytest.mark.parametrize(
    ("algorithm", "prefix"),
    [("sha256", ""), ("sha256", "SHA-256 "), ("sha256", "sha256:"), ("md5", ""), ("md5", "MD5:"), ("sha1", "SHA1 ")],
)
def test_a_checksum_is_checked_when_that_is_asked(
    sender: MeshClient, receiver: MeshClient, algorithm: str, prefix: str
) -> None:
    body = random.Random(2).randbytes(50_000)
    right = hashlib.new(algorithm, body).hexdigest()
    sent = sender.send_file("X26ABC3", "DPS", body, checksum=prefix + right.upper(), chunk_size=20_000)
    with receiver.download(sent.message_id, verify_checksum=True) as message:
        assert message.read() == body

    wrong = hashlib.new(algorithm, body + b"!").hexdigest()
    sent = sender.send_file("X26ABC3", "DPS", body, checksum=prefix + wrong)
    with (
        receiver.download(sent.message_id, verify_checksum=True) as message,
        pytest.raises(Corrupted, match="does not match its checksum"),
    ):
        message.read()
    with receiver.download(sent.message_id) as message:
        assert message.read() == body


def test_a_checksum_of_an_unknown_kind_is_said_and_not_passed_over(sender: MeshClient, receiver: MeshClient) -> None:
    for checksum in ("0123", "not hexadecimal but 32 characters", "z" * 32, f"MD5 {'0' * 64}"):
        sent = sender.send_file("X26ABC3", "DPS", b"body", checksum=checksum)
        with pytest.raises(Corrupted, match="no form that can be verified"):
            receiver.download(sent.message_id, verify_checksum=True)
        with receiver.download(sent.message_id) as message:
            assert (message.checksum, message.read()) == (checksum, b"body")


def test_a_message_without_a_checksum_has_nothing_to_compare(sender: MeshClient, receiver: MeshClient) -> None:
    sent = sender.send_file("X26ABC3", "DPS", b"body")
    with receiver.download(sent.message_id, verify_checksum=True) as message:
        assert (message.checksum, message.read()) == (None, b"body")


def test_a_checksum_may_be_that_of_the_compressed_bytes(sender: MeshClient, receiver: MeshClient) -> None:
    packed = gzip.compress(b"body")
    for of, whole in ((packed, True), (b"body", True), (packed + b"!", False), (b"", False)):
        part = Part(lambda: io.BytesIO(packed), len(packed), "gzip")
        sent = sender.send("X26ABC3", "DPS", part, checksum=hashlib.sha256(of).hexdigest())
        with receiver.download(sent.message_id, verify_checksum=True) as message:
            if whole:
                assert message.read() == b"body"
            else:
                with pytest.raises(Corrupted, match="does not match"):
                    message.read()


def test_a_body_that_cannot_be_read_sends_nothing(sender: MeshClient) -> None:
    def broken() -> object:
        yield b"begins"
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        sender.send_file("X26ABC3", "DPS", broken(), local_id="export-1-1")  # type: ignore[arg-type]
    with pytest.raises(NotFound):
        sender.track_by_local_id("export-1-1")


# A process of its own, since only the most that a process ever had can be asked for. It sends a body that is made as
# it is read, then receives it, and says what each added to the memory it had when it was connected.
_STREAM = """
import hashlib, json, sys
from nhs_mesh import Credentials, MeshClient

given = json.load(sys.stdin)
block = bytes(range(256)) * 4096
count = given["size"] // len(block)

def peak():
    # Not getrusage, which counts what the process was before it became this program: a copy of pytest.
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))

def connect(mailbox):
    return MeshClient(given["url"], Credentials(mailbox, "password", "TestKey"), **given["tls"])

sent, received = hashlib.sha256(), hashlib.sha256()

def body():
    for number in range(count):
        # Every block is another one.
        made = number.to_bytes(8, "big") + block[8:]
        sent.update(made)
        yield made

with connect("X26ABC1") as sender, connect("X26ABC3") as receiver:
    sender.handshake()
    receiver.handshake()
    before = peak()
    message = sender.send_file(
        "X26ABC3", "DPS", body(), compress=given["compress"], chunk_size=given["chunk_size"]
    )
    after_sending = peak()
    with receiver.download(message.message_id) as file:
        size = 0
        while piece := file.read(1 << 20):
            received.update(piece)
            size += len(piece)
    print(json.dumps({
        "parts": message.parts, "size": size, "same": sent.digest() == received.digest(),
        "sending": after_sending - before, "receiving": peak() - after_sending,
    }))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the most memory that the process had")
@pytest.mark.parametrize(
    ("size", "compress", "chunk_size"),
    [
        pytest.param(1 << 30, True, 100_000_000, id="1 GiB compressed"),
        pytest.param(256 << 20, False, 50_000_000, id="256 MiB plain"),
    ],
)
def test_a_large_body_streams_in_flat_memory(
    sandbox: Sandbox, clean_mailboxes: None, tmp_path: Path, size: int, compress: bool, chunk_size: int
) -> None:
    made = sandbox.certificates
    names = ("certificate", "private_key", "passphrase", "ca_bundle")
    ran = subprocess.run(
        [sys.executable, "-c", _STREAM],
        input=json.dumps(
            {
                "url": sandbox.base_url,
                "tls": {name: getattr(made, name) for name in names},
                "size": size,
                "compress": compress,
                "chunk_size": chunk_size,
            }
        ),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "TMPDIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    assert ran.returncode == 0, ran.stderr
    figures = json.loads(ran.stdout)
    assert figures["same"]
    assert figures["size"] == size
    assert figures["parts"] == (1 if compress else 6)
    assert 0 < figures["sending"] < 32 << 20, figures
    assert figures["receiving"] < 32 << 20, figures
