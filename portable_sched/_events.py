"""What happened, as facts in the past tense, and who is told.

An observer is any callable that takes an event. It is called at once and in order, from inside
the run, so it should be quick and must not block. What it raises is logged, once, and the run goes
on; what it costs is its own, and a run without observers pays nothing for them.

To make the five events of a task that succeeds takes some 6 µs, several times what the task itself
takes. An observer that can do without them says so, in an attribute or property of its class:
`wants = (RunStarted, TaskFailed, RunFinished)`. It is told these and their subclasses alone, and a
run of which nobody wants to know what goes well does not make those events.

All times are seconds on the event loop's clock.

Event
├── RunStarted, RunFinished
└── TaskEvent
    ├── TaskScheduled, TaskStarted, TaskRetrying
    ├── TaskCompleted, TaskFailed, TaskCancelled, TaskClosed
    └── AttemptEvent
        ├── AttemptStarted
        └── AttemptEnded
            └── AttemptCompleted, AttemptFailed, AttemptCancelled
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ._log import logger
from ._results import RunResults


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
        results: what is known of them, at any moment of the run; it knows the graph too.
    """

    tasks: tuple[str, ...]
    results: RunResults


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


class TaskScheduled(TaskEvent):
    """Everything that the task waited for is there; it waits for a slot and its resources."""

    __slots__ = ()


class TaskStarted(TaskEvent):
    """The task is RUNNING; its first attempt begins."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRetrying(TaskEvent):
    """Another attempt is to come.

    Attributes:
        attempt: which one it will be.
        delay: seconds until it competes for a slot.
        exception: what the attempt before it has raised.
    """

    attempt: int
    delay: float
    exception: BaseException


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
        exception: as in `TaskResult.exception`.
    """

    error: str
    exception: BaseException


class TaskCancelled(TaskEvent):
    """The task is CANCELLED, started or not."""

    __slots__ = ()


class TaskClosed(TaskEvent):
    """A task that yields is over, its teardown included; `TaskFailed` follows if that failed."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEvent(TaskEvent):
    """Something that happened to one attempt of a task.

    Attributes:
        attempt: which one, from 1.
    """

    attempt: int


class AttemptStarted(AttemptEvent):
    """An attempt begins."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded(AttemptEvent):
    """An attempt has ended, one way or another.

    Attributes:
        duration: seconds that it took.
    """

    duration: float


class AttemptCompleted(AttemptEnded):
    """An attempt has succeeded."""

    __slots__ = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFailed(AttemptEnded):
    """An attempt has failed.

    Attributes:
        exception: what it raised.
    """

    exception: BaseException


class AttemptCancelled(AttemptEnded):
    """An attempt was ended by the cancellation of the run."""

    __slots__ = ()


Observer = Callable[[Event], object]
"""Who is told: any callable that takes an event."""


def wanted_by(observer: Observer) -> tuple[type[Event], ...]:
    """The events that an observer is to be told: what its `wants` says, or else all.

    Raises:
        TypeError: `wants` is no tuple of events.
    """
    # Of the class, since a `Mock` has any attribute that it is asked for.
    if not hasattr(type(observer), "wants"):
        return (Event,)
    wants: Any = observer.wants  # type: ignore[attr-defined]
    if not isinstance(wants, tuple) or not all(map(_is_kind_of_event, wants)):
        raise TypeError(
            f"Expected wants of observer {observer!r} to be a tuple of events, as in "
            f"wants = (RunStarted, TaskFailed), got {wants!r}."
        )
    return wants


def _is_kind_of_event(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Event)


class Announcer:
    """Tells every observer, and keeps what they raise away from the run.

    What an observer brings about while it is told, by `scheduler.stop()` for instance, is told
    when everybody has heard of what came before.

    Args:
        observers: they are asked here what they want to be told.
    """

    __slots__ = ("_audience", "_mute", "_observers", "_telling", "_to_tell")

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = [(at, one, wanted_by(one)) for at, one in enumerate(observers)]
        # Of each kind of event, who is told. Filled as they come.
        self._audience: dict[type[Event], list[tuple[int, Observer]]] = {}
        self._mute: set[int] = set()
        self._to_tell: deque[Event] = deque()
        self._telling = False

    def audience(self, kind: type[Event]) -> list[tuple[int, Observer]]:
        """Who wants to be told events of a kind, in order, and the place of each in that order."""
        audience = self._audience.get(kind)
        if audience is None:
            audience = [(at, one) for at, one, wants in self._observers if issubclass(kind, wants)]
            self._audience[kind] = audience
        return audience

    def note(self, event: Event) -> None:
        """Keep an event, to be told when the state of the run is in order again."""
        self._to_tell.append(event)

    def tell(self) -> None:
        """Tell what was noted, in order.

        Raises:
            BaseException: an observer raised it, and it is no `Exception`; all the same, the others
                were told. What is still to tell is told the next time.
        """
        if self._telling:
            return
        self._telling = True
        try:
            while self._to_tell:
                self._tell_all(self._to_tell.popleft())
        finally:
            self._telling = False

    def _tell_all(self, event: Event) -> None:
        leaving: BaseException | None = None
        for at, observer in self.audience(type(event)):
            try:
                observer(event)
            except Exception:  # noqa: BLE001 - the observer's own, and logged
                if at not in self._mute:
                    self._mute.add(at)
                    logger().exception(
                        "Observer %r raised at %r; what else it raises in this run is not logged.",
                        observer,
                        event,
                    )
            except BaseException as error:  # noqa: BLE001 - raised when all were told
                leaving = error
        if leaving is not None:
            try:
                raise leaving
            finally:
                del leaving
