"""Sending and receiving with this MESH client and NHS England's, side by side: ``python -m bench.clients``.

Each measurement is a process of its own; both clients take turns, and the least of the rounds counts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from argparse import ArgumentParser
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from local.sandbox import Sandbox
from local.stack import PROJECT

if TYPE_CHECKING:
    from collections.abc import Callable

#: How many messages of a size are sent or received in one measurement.
SIZES = {"1 KB": (1_000, 200), "1 GB": (1_000_000_000, 1)}
CLIENTS = ("nhs-mesh", "mesh-client")
#: How far a figure may be behind.
MARGIN = 1.05
BLOCK = 1 << 20


def main() -> None:
    """Measure, and write clients.md; or, in a process of its own, do what the job on stdin says."""
    parser = ArgumentParser(prog="python -m bench.clients", description=main.__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--sizes", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--job", action="store_true")
    options = parser.parse_args()
    if options.job:
        work(json.load(sys.stdin))
        return
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))  # the sandbox inherits it
    with tempfile.TemporaryDirectory(prefix="bench-") as made, Sandbox(Path(made, "sandbox")) as sandbox:
        found = {
            (way, size, packing): measure(
                sandbox, Path(made), cores[0], options.rounds, way, size, compress=packing == "gzip"
            )
            for size, way, packing in product(options.sizes, ("send", "receive"), ("plain", "gzip"))
        }
    report = written(found, options.rounds)
    print(report)
    if list(options.sizes) == list(SIZES):
        Path(__file__).with_name("clients.md").write_text(report)


def measure(
    sandbox: Sandbox, folder: Path, core: int, rounds: int, way: str, size: str, *, compress: bool
) -> dict[str, dict[str, float]]:
    """Have both clients do the same, in turns; return the least seconds and CPU seconds of each, and its memory."""
    count_bytes, times = SIZES[size]
    body = folder / "body"
    if not body.exists() or body.stat().st_size != count_bytes:
        make_body(body, count_bytes)
    made = sandbox.certificates
    files = {}
    for name in ("certificate", "private_key", "ca_bundle"):
        files[name] = str(folder / name)
        Path(files[name]).write_text(getattr(made, name))
    job = {
        "core": core,
        "base_url": sandbox.base_url,
        "files": files,
        "passphrase": made.passphrase,
        "way": way,
        "times": times,
        "body": str(body),
        "compress": compress,
    }
    if way == "receive":
        with sandbox.client() as sender, body.open("rb") as opened:
            job["message_id"] = sender.send_file(
                "X26ABC3", "BENCH", opened, compress=compress, chunk_size=75_000_000
            ).message_id
    runs: dict[str, list[dict[str, float]]] = {client: [] for client in CLIENTS}
    for _, client in product(range(rounds), CLIENTS):
        ran = subprocess.run(
            [sys.executable, "-m", "bench.clients", "--job"],
            input=json.dumps(job | {"client": client}),
            capture_output=True,
            text=True,
            check=False,
            cwd=PROJECT,
            timeout=900,
        )
        if ran.returncode:
            raise RuntimeError(f"{client} failed:\n{ran.stderr[-3000:]}")
        runs[client].append(json.loads(ran.stdout))
        if way == "send":
            sandbox.reset()
    sandbox.reset()
    print(f"{way} {size} {'gzip' if compress else 'plain'}: done", file=sys.stderr)
    return {
        client: {what: min(run[what] for run in found) for what in ("wall", "cpu", "peak")}
        for client, found in runs.items()
    }


def make_body(file: Path, size: int) -> None:
    """Write rows as they might be in a file for DPS."""
    rows = "".join(
        f"{9_000_000_000 + 7919 * n % 999_999_999}|2026{1 + n % 12:02}{1 + n % 28:02}T12{n % 60:02}|"
        f"{n * 2654435761 % 2**32:08x}|Given|{n % 97}|R1L{n % 13}|LS{n * 48271 % 99_991:05} {n % 9}AB\n"
        for n in range(200_000)
    ).encode()
    with file.open("wb") as body:
        while (left := size - body.tell()) > 0:
            body.write(rows[:left])


def work(job: dict[str, Any]) -> None:
    """Do a job, and say what it took."""
    os.sched_setaffinity(0, {job["core"]})
    act = {"nhs-mesh": ours, "mesh-client": theirs}[job["client"]](job)
    began, used = time.monotonic(), time.process_time()
    for _ in range(job["times"]):
        act()
    wall, cpu = time.monotonic() - began, time.process_time() - used
    status = Path("/proc/self/status").read_text()
    peak = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"wall": wall / job["times"], "cpu": cpu / job["times"], "peak": peak * 1024}))


def ours(job: dict[str, Any]) -> Callable[[], object]:
    """Prepare this project's client."""
    from nhs_mesh import Credentials, MeshClient

    pems: dict[str, Any] = {name: Path(file).read_text() for name, file in job["files"].items()}
    credentials = Credentials("X26ABC1" if job["way"] == "send" else "X26ABC3", "password", "TestKey")
    client = MeshClient(job["base_url"], credentials, passphrase=job["passphrase"], **pems)
    client.handshake()

    def send() -> None:
        with Path(job["body"]).open("rb") as body:
            client.send_file("X26ABC3", "BENCH", body, filename="bench.csv", compress=job["compress"])

    def receive() -> None:
        with client.download(job["message_id"]) as message:
            while message.read(BLOCK):
                pass

    return send if job["way"] == "send" else receive


def theirs(job: dict[str, Any]) -> Callable[[], object]:
    """Prepare NHS England's client."""
    import mesh_client

    files = job["files"]
    client: Any = mesh_client.MeshClient(
        job["base_url"],
        "X26ABC1" if job["way"] == "send" else "X26ABC3",
        "password",
        shared_key=b"TestKey",
        cert=(files["certificate"], files["private_key"], job["passphrase"]),
        verify=files["ca_bundle"],
    )
    client.handshake()

    def send() -> None:
        with Path(job["body"]).open("rb") as body:
            client.send_message("X26ABC3", body, workflow_id="BENCH", filename="bench.csv", compress=job["compress"])

    def receive() -> None:
        message: Any = client.retrieve_message(job["message_id"])
        while message.read(BLOCK):
            pass
        message.close()

    return send if job["way"] == "send" else receive


def written(found: dict[tuple[str, str, str], dict[str, dict[str, float]]], rounds: int) -> str:
    """Write the table, and which figures are behind."""
    versions = f"nhs-mesh {version('nhs-mesh')} and mesh-client {version('mesh-client')}"
    lines = [
        "# The client, side by side with NHS England's",
        "",
        f"Written by `make bench-clients`: {versions}, in turns, each in a process of its own",
        f"on one core; the MESH sandbox has the others. The least of {rounds} rounds counts. Figures are of one",
        "message; connecting is not in the times.",
        "",
        "| | message | | nhs-mesh | mesh-client | ratio |",
        "|---|---|---|---:|---:|---:|",
    ]
    behind = []
    for (way, size, packing), clients in found.items():
        for what, unit in (("wall", "time"), ("cpu", "CPU"), ("peak", "memory")):
            mine, other = (clients[client][what] for client in CLIENTS)
            ratio = mine / other
            show = _megabytes if what == "peak" else _seconds
            lines.append(f"| {way} | {size}, {packing} | {unit} | {show(mine)} | {show(other)} | {ratio:.2f} |")
            if ratio > MARGIN:
                behind.append(f"{way} {size} {packing} ({unit}: {ratio:.2f})")
    lines += ["", f"Behind by more than 5 %: {', '.join(behind) if behind else 'nothing'}.", ""]
    return "\n".join(lines)


def _seconds(value: float) -> str:
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def _megabytes(value: float) -> str:
    return f"{value / 1e6:.0f} MB"


if __name__ == "__main__":
    main()
