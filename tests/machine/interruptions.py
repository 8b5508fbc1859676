"""An invocation of a use case that is interrupted at one of its calls: it dies, fails, loses an answer, or freezes.

Every port that the use case is given is wrapped. Each call of a method of theirs is a *point*, counted from 1.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from nhs_mesh import SendOutcomeUnknown, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["HOW", "AnswerLost", "Calls", "Interruption", "Invocation"]

#: What may happen at a call: the process is killed; the call raises, without effect or with it; the process stops, and
#: goes on later.
HOW = ("dies", "fails", "loses the answer", "freezes")

#: What does no I/O.
_NO_CALLS = {"batch_id", "mailbox"}


class _Died(BaseException):
    """The process was killed: nothing of it may tidy up."""


class AnswerLost(Exception):
    """AWS did not answer; whether the call had its effect the caller does not know."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """What interrupts an invocation, and where.

    Attributes
    ----------
    how
        One of `HOW`.
    call
        At which of its calls, from 1; nowhere where it makes fewer.
    after
        Whether it dies or freezes after the call has had its effect, not before.
    among
        Only calls whose names begin so are counted, such as ``mesh`` or ``register.put``.
    """

    how: str
    call: int
    after: bool = False
    among: str = ""


@dataclass
class Calls:
    """The calls of one invocation.

    Attributes
    ----------
    spares
        Where an invocation is not frozen: before these calls (``<``) and after those (``>``). It then is at the next.
    made
        How many calls there were.
    done
        Whether the interruption has come.
    """

    interruption: Interruption | None
    freeze: Callable[[], None]
    spares: frozenset[str] = frozenset()
    made: int = 0
    done: bool = False
    _counted: int = 0
    _dead: bool = False

    def port(self, name: str, target: Any) -> Any:
        """Wrap a port."""
        return _Port(name, target, self)

    def make(self, name: str, call: Callable[[], Any]) -> Any:
        """Make a call, or what becomes of it."""
        self._end_if_dead()
        self.made += 1
        here = self._is_here(name)
        if here is None or (here.how == "freezes" and f"{'>' if here.after else '<'}{name}" in self.spares):
            return call()
        self.done = True
        if here.how == "fails":
            raise _lost(name)
        if not here.after and here.how in {"dies", "freezes"}:
            self._stop(here)
            return call()
        answer = call()
        if here.how == "loses the answer":
            raise _lost(name)
        self._stop(here)
        return answer

    def _is_here(self, name: str) -> Interruption | None:
        what = self.interruption
        if what is None or self.done or not name.startswith(what.among):
            return None
        self._counted += 1
        return what if self._counted >= what.call else None

    def _stop(self, here: Interruption) -> None:
        if here.how == "freezes":
            self.freeze()
            self._end_if_dead()
        else:
            self.kill()
            self._end_if_dead()

    def kill(self) -> None:
        """Let the process be dead: no call of it has an effect any more."""
        self._dead = True

    def _end_if_dead(self) -> None:
        if self._dead:
            raise _Died


def _lost(name: str) -> Exception:
    if name == "mesh.send":
        return SendOutcomeUnknown("the answer was lost", local_id="")
    return Unavailable("the answer was lost") if name.startswith("mesh.") else AnswerLost(name)


class _Port:
    """A port whose calls are counted."""

    def __init__(self, name: str, target: Any, calls: Calls) -> None:
        self._name = name
        self._target = target
        self._calls = calls

    def __getattr__(self, method: str) -> Any:
        found = getattr(self._target, method)
        if method in _NO_CALLS:
            return found
        return lambda *args, **options: self._calls.make(f"{self._name}.{method}", partial(found, *args, **options))


@dataclass
class Invocation:
    """One invocation. One that may freeze is in a thread of its own; never do two run at the same time.

    Attributes
    ----------
    work
        Does it, given its calls.
    how
        ``ended``, ``died``, ``raised`` or ``frozen``.
    answer, error
        What it answered, or raised.
    about
        What it was to do, for whoever keeps it frozen.
    """

    work: Callable[[Calls], Any]
    interruption: Interruption | None = None
    spares: frozenset[str] = frozenset()
    how: str = ""
    answer: Any = None
    about: Any = None
    error: Exception | None = None
    calls: Calls = field(init=False)
    _stopped: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    _goes_on: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))

    def __post_init__(self) -> None:
        self.calls = Calls(self.interruption, self._freeze, self.spares)

    def run(self) -> Invocation:
        """Run it to its end, or until it freezes."""
        if self.interruption and self.interruption.how == "freezes":
            threading.Thread(target=self._run_and_tell, daemon=True).start()
            self._stopped.acquire()
        else:
            self._run()
        return self

    def thaw(self) -> None:
        """Let a frozen one go on to its end."""
        self._goes_on.release()
        self._stopped.acquire()

    def kill(self) -> None:
        """Let a frozen one never go on."""
        self.calls.kill()
        self.thaw()

    def _run_and_tell(self) -> None:
        self._run()
        self._stopped.release()

    def _freeze(self) -> None:
        self.how = "frozen"
        self._stopped.release()
        self._goes_on.acquire()

    def _run(self) -> None:
        try:
            self.answer = self.work(self.calls)
            self.how = "ended"
        except _Died:
            self.how = "died"
        except Exception as error:  # noqa: BLE001 - whoever looks at it decides
            self.how, self.error = "raised", error
