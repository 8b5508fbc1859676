"""Child processes that never outlive this one, however it ends."""

from __future__ import annotations

import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

__all__ = ["free_port", "listens", "python", "start", "stop"]

# Asks Linux to end this process with its parent (prctl's PR_SET_PDEATHSIG), unless the parent, whose id is the first
# argument, has gone meanwhile; then becomes the command. Elsewhere a child ends with its parent only where the parent
# ends in good order. (A `preexec_fn` could do the same, but is not safe in a process with threads.)
_END_WITH_PARENT = f"""
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, {int(signal.SIGTERM)})
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[2:])
"""

#: Below those that systems give to connections of their own.
_PORTS = range(10_000, 32_000)
#: What sets a process's clock (`make test-clocks`) and its time zone: a test and what it starts go by the same.
_CLOCK = ("LD_PRELOAD", "CLOCK_AHEAD", "TZ")


def python() -> str:
    """Return the interpreter that the environment was made from, which knows nothing of the environment's packages."""
    return str(getattr(sys, "_base_executable", sys.executable))


@cache
def _nursery() -> ThreadPoolExecutor:
    """Return the one thread that starts all children.

    For Linux a child's parent is the thread that started it, not the process, so that thread has to stay.
    """
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="children")


def start(
    command: Sequence[str | Path], *, log: Path, environment: Mapping[str, str], folder: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start a command that writes what it says to the end of ``log``.

    It leaves the terminal's process group, so that Ctrl-C reaches only this process, which then takes it down in order.

    Parameters
    ----------
    command
        The program's path and its arguments.
    environment
        All of the child's environment variables: it inherits only what sets its clock (`_CLOCK`).
    folder
        The child's working directory.
    """

    def run() -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                [python(), "-S", "-c", _END_WITH_PARENT, str(os.getpid()), *command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={name: os.environ[name] for name in _CLOCK if name in os.environ} | dict(environment),
                cwd=folder,
                start_new_session=True,
            )

    return _nursery().submit(run).result()


def stop(*processes: subprocess.Popen[bytes], grace: float = 5) -> None:
    """End the processes, all at once; those that take longer than ``grace`` seconds are killed."""
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(grace)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_port(host: str = "127.0.0.1") -> int:
    """Return a TCP port of one of this machine's addresses that nobody listens on.

    It is none of those that connections are made from, one of which would take it before it is listened on.
    """
    while True:
        port = _PORTS[secrets.randbelow(len(_PORTS))]
        with socket.socket() as listener, suppress(OSError):
            listener.bind((host, port))
            return port


def listens(process: subprocess.Popen[bytes], port: int, host: str = "127.0.0.1", *, seconds: float = 60) -> bool:
    """Wait until the process listens on a port of this machine; False where it ends before, or takes too long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None:
        try:
            socket.create_connection((host, port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return True
    return False
