"""What happened, as facts in the past tense, and who is told.

An observer is any callable that takes an event. It is called at once and in order, from inside
the run, so it should be quick and must not block. What it raises is logged, once, and the run goes
on; what it costs is its own, and a run without observers pays nothing for them.

All times are seconds on the event loop's clock.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from ._results import RunResults

_logger: Final = logging.getLogger("portable_sched")


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run.

    Attributes:
        at: when.
    """

    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A run has begun, with all its tasks PENDING.

    Attributes:
        tasks: their names, in topological order.
    """

    tasks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """A run is over, and every task has ended.

    Attributes:
        results: how each of them ended.
    """

    results: RunResults


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEvent(Event):
    """Something that happened to one task.

    Attributes:
        task: its name.
    """

    task: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskScheduled(TaskEvent):
    """Everything that the task waited for is there; it waits for a slot and its resources."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStarted(TaskEvent):
    """The task is RUNNING; its first attempt begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptStarted(TaskEvent):
    """An attempt begins.

    Attributes:
        attempt: which one, from 1.
    """

    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCompleted(TaskEvent):
    """An attempt has succeeded.

    Attributes:
        attempt: which one, from 1.
        duration: seconds that it took.
    """

    attempt: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptCancelled(TaskEvent):
    """An attempt was ended by the cancellation of the run.

    Attributes:
        attempt: which one, from 1.
        duration: seconds that it took.
    """

    attempt: int
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(TaskEvent):
    """An attempt has failed.

    Attributes:
        attempt: which one, from 1.
        exception: what it raised.
        duration: seconds that it took.
    """

    attempt: int
    exception: BaseException
    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetrying(TaskEvent):
    """Another attempt is to come.

    Attributes:
        attempt: which one it will be.
        delay: seconds until it competes for a slot.
    """

    attempt: int
    delay: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCompleted(TaskEvent):
    """The task has succeeded. One that yields is open from now on.

    Attributes:
        duration: seconds since its first attempt began.
    """

    duration: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskFailed(TaskEvent):
    """The task has FAILED: its last attempt has, or something that it depends on.

    Attributes:
        error: as in `TaskResult.error`.
    """

    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskCancelled(TaskEvent):
    """The task is CANCELLED, started or not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskClosed(TaskEvent):
    """A task that yields is over, its teardown included; `TaskFailed` follows if that failed."""


Observer = Callable[[Event], object]
"""Who is told: any callable that takes an event."""


class Announcer:
    """Tells every observer, and keeps what they raise away from the run."""

    __slots__ = ("_mute", "_observers")

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = observers
        self._mute: set[int] = set()

    def __call__(self, event: Event) -> None:
        for at, observer in enumerate(self._observers):
            try:
                observer(event)
            except Exception:
                if at not in self._mute:
                    self._mute.add(at)
                    _logger.exception(
                        "Observer %r raised at %r; what else it raises in this run is not logged.",
                        observer,
                        event,
                    )
