"""States that tell what they decide, since everything that happens to a task goes through them.

What is noted in the middle of a decision is told at its end, so that an observer finds the run in
order, and may stop it. A run without observers has a plain state: it does not even ask whether
anyone is watching. Nor does a task that succeeds where nobody wants to be told of that.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from ._errors import error_text
from ._events import (
    Announcer,
    AttemptCancelled,
    AttemptCompleted,
    AttemptFailed,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskClosed,
    TaskCompleted,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
)
from ._resources import ResourceState
from ._results import CANCELLED, FAILED, PENDING, RunResults
from ._state import NOTHING, RunState

_WHAT_GOES_WELL: Final[tuple[type[Event], ...]] = (
    TaskScheduled,
    TaskStarted,
    AttemptStarted,
    AttemptCompleted,
    TaskCompleted,
)


class _Guarded(RunState):
    """What the classes below share; they have its slot, or they could not have two bases.

    It tells all but what a task that succeeds goes through.
    """

    __slots__ = ()

    announcer: Announcer

    def begin(self) -> None:
        self._note_beginning()
        self.announcer.tell()

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        # Asked first, here and below: what nobody wants is not made. One failure may end a million
        # tasks, and a million may fail.
        if self.announcer.audience(AttemptFailed):
            attempt, duration = self._attempt(number, now)
            self.announcer.note(
                AttemptFailed(
                    at=now,
                    task=self._name(number),
                    attempt=attempt,
                    exception=exception,
                    duration=duration,
                )
            )
        super().failed(number, exception, now)
        self.announcer.tell()

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        attempt, duration = self._attempt(number, now)
        self.announcer.note(
            AttemptCancelled(at=now, task=self._name(number), attempt=attempt, duration=duration)
        )
        super().cancelled(number, exception, now)
        self.announcer.tell()

    def closed(self, number: int, exception: BaseException | None, now: float) -> None:
        self.announcer.note(TaskClosed(at=now, task=self._name(number)))
        super().closed(number, exception, now)
        self.announcer.tell()

    def drain(self, now: float, status: int = FAILED) -> None:
        super().drain(now, status)
        self.announcer.tell()

    def cancel_running(self, now: float) -> None:
        super().cancel_running(now)
        self.announcer.tell()

    def finish(self, now: float) -> None:
        super().finish(now)
        self.announcer.note(RunFinished(at=now, results=RunResults(self.record)))
        self.announcer.tell()

    def _note_beginning(self) -> None:
        names = tuple([definition.name for definition in self.record.tasks])
        results = RunResults(self.record)
        self.announcer.note(RunStarted(at=self.record.began, tasks=names, results=results))

    def _try_again(self, number: int, delay: float, now: float) -> None:
        next_attempt = self.record.attempt_of(number) + 1
        super()._try_again(number, delay, now)
        self.announcer.note(
            TaskRetrying(
                at=now,
                task=self._name(number),
                attempt=next_attempt,
                delay=delay,
                exception=self.record.failures[number][-1].exception,
            )
        )

    def _end(self, number: int, status: int, now: float) -> None:
        # Before what follows from it.
        if status == CANCELLED:
            if self.announcer.audience(TaskCancelled):
                self.announcer.note(TaskCancelled(at=now, task=self._name(number)))
        elif self.announcer.audience(TaskFailed):
            name = self._name(number)
            exception = self.record.exception_of(number)
            error = error_text(exception)
            self.announcer.note(TaskFailed(at=now, task=name, error=error, exception=exception))
        super()._end(number, status, now)

    def _name(self, number: int) -> str:
        return self.record.tasks[number].name


class _Watched(_Guarded):
    """It tells what a task that succeeds goes through as well."""

    __slots__ = ()

    def take(self, now: float) -> int:
        number = super().take(now)
        if number != NOTHING:
            attempt = self.record.attempt_of(number)
            name = self._name(number)
            if attempt == 1:
                self.announcer.note(TaskStarted(at=now, task=name))
            self.announcer.note(AttemptStarted(at=now, task=name, attempt=attempt))
            self.announcer.tell()
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        name = self._name(number)
        attempt, duration = self._attempt(number, now)
        self.announcer.note(AttemptCompleted(at=now, task=name, attempt=attempt, duration=duration))
        since_start = now - self.record.started[number]
        self.announcer.note(TaskCompleted(at=now, task=name, duration=since_start))
        released = self._last_waiting(self._dependents[number])
        # Now what comes of it, followers included.
        self._note_scheduled(released, now)
        super().completed(number, result, now)
        self.announcer.tell()

    def _note_beginning(self) -> None:
        super()._note_beginning()
        ready = [at for at, left in enumerate(self.waiting) if not left]
        self._note_scheduled(ready, self.record.began)

    def _is_over(self, number: int, now: float) -> None:
        if not self.draining:
            self._note_scheduled(self._last_waiting(self._followers.get(number, ())), now)
        super()._is_over(number, now)

    def _last_waiting(self, numbers: Sequence[int]) -> list[int]:
        """Those that wait for nothing but the task that is ending now."""
        status = self.record.status
        return [at for at in numbers if self.waiting[at] == 1 and status[at] == PENDING]

    def _note_scheduled(self, numbers: Iterable[int], now: float) -> None:
        for number in numbers:
            self.announcer.note(TaskScheduled(at=now, task=self._name(number)))


class GuardedState(_Guarded):
    """A `RunState` that tells of the run as a whole, and of what does not go well."""

    __slots__ = ("announcer",)


class GuardedResourceState(_Guarded, ResourceState):
    """A `ResourceState` that tells the same."""

    __slots__ = ("announcer",)


class WatchedState(_Watched):
    """A `RunState` that tells everything."""

    __slots__ = ("announcer",)


class WatchedResourceState(_Watched, ResourceState):
    """A `ResourceState` that tells everything."""

    __slots__ = ("announcer",)


TELLING: Final = (GuardedState, GuardedResourceState, WatchedState, WatchedResourceState)
"""Those that have an announcer."""


def states_that_tell(announcer: Announcer) -> tuple[type[RunState], type[ResourceState]]:
    """The states, without resources and with them, that tell as much as somebody wants to hear."""
    if any(map(announcer.audience, _WHAT_GOES_WELL)):
        return WatchedState, WatchedResourceState
    return GuardedState, GuardedResourceState
