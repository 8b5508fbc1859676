"""DynamoDB Local, AWS's own, as a process of its own; `make dynamodb-local` fetches it."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Self

from local import children

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ["DynamoDBLocal", "missing"]

_JARS = Path(__file__).parents[1] / ".cache" / "dynamodb-local"


def missing() -> str:
    """Tell what it lacks to be started; empty where nothing."""
    if not shutil.which("java"):
        return "DynamoDB Local needs Java, which is not installed"
    if not any(_JARS.glob("DynamoDBLocal-*.jar")):
        return "DynamoDB Local is not there; fetch it with: make dynamodb-local"
    return ""


class DynamoDBLocal:
    """It is up between ``with`` and its end, holding everything in memory.

    Parameters
    ----------
    heap
        How much memory Java may take: what a query reads has to fit.
    """

    def __init__(self, heap: str = "256m") -> None:
        self._heap = heap
        self._stack = ExitStack()
        self.endpoint = ""

    def __enter__(self) -> Self:
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="dynamodb-local-")))
        log = folder / "dynamodb-local.log"
        port = children.free_port()
        process = children.start(
            [
                str(shutil.which("java")),
                *(f"-Xmx{self._heap}", f"-Djava.library.path={_JARS}", "-DDDB_LOCAL_TELEMETRY=0", "-cp", f"{_JARS}/*"),
                "software.amazon.dynamodb.services.local.main.ServerRunner",
                *("-inMemory", "-disableTelemetry", "-port", str(port)),
            ],
            log=log,
            # Java does not bear a clock that is set; no test depends on this one's.
            environment={"PATH": "", "DDB_LOCAL_TELEMETRY": "0", "LD_PRELOAD": ""},
            folder=folder,
        )
        self._stack.callback(children.stop, process)
        if not children.listens(process, port):
            said = log.read_text()[-2000:]
            self._stack.close()
            raise RuntimeError(f"DynamoDB Local did not start:\n{said}")
        self.endpoint = f"http://127.0.0.1:{port}"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
