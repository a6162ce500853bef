"""A state that tells what it decides: everything that happens to a task goes through it anyway.

A run without observers has the plain state, so it does not even ask whether anyone is watching.
"""

from collections.abc import Callable, Sequence

from ._events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
)
from ._results import CANCELLED, PENDING, RunResults
from ._state import NEVER, NOTHING, ResourceState, RunState


class _Watched(RunState):
    """What the two classes below share; they have its slot, or they could not have two bases."""

    __slots__ = ()

    announce: Callable[[Event], None]

    def watch(self, announce: Callable[[Event], None]) -> None:
        """Tell of everything from now on; called before the first task is taken."""
        self.announce = announce
        began = self.record.began
        announce(RunStarted(at=began, tasks=tuple(task.name for task in self.record.tasks)))
        for number, left in enumerate(self.waiting):
            if not left:
                announce(TaskScheduled(at=began, task=self._name(number)))

    def take(self, now: float) -> int:
        number = super().take(now)
        if number != NOTHING:
            attempt = self.record.attempts.get(number, 1)
            if attempt == 1:
                self.announce(TaskStarted(at=now, task=self._name(number)))
            self.announce(AttemptStarted(at=now, task=self._name(number), attempt=attempt))
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        released = self._last_waiting(self._dependents[number])
        duration = now - self.record.started[number]
        # First the end of the one, then what comes of it, followers included.
        self.announce(TaskCompleted(at=now, task=self._name(number), duration=duration))
        super().completed(number, result, now)
        self._tell_scheduled(released, now)

    def failed(self, number: int, exception: BaseException, now: float) -> float:
        attempt = self.record.attempts.get(number, 1)
        began = self._attempt_began.get(number, self.record.started[number])
        self.announce(
            AttemptFailed(
                at=now,
                task=self._name(number),
                attempt=attempt,
                exception=exception,
                duration=now - began,
            )
        )
        delay = super().failed(number, exception, now)
        if delay != NEVER:
            self.announce(
                TaskRetrying(at=now, task=self._name(number), attempt=attempt + 1, delay=delay)
            )
        return delay

    def finish(self, now: float) -> None:
        super().finish(now)
        self.announce(RunFinished(at=now, results=RunResults(self.record)))

    def _end(self, number: int, status: int, now: float) -> None:
        super()._end(number, status, now)
        if status == CANCELLED:
            self.announce(TaskCancelled(at=now, task=self._name(number)))
        else:
            error = self.record.result_of(number).error or ""
            self.announce(TaskFailed(at=now, task=self._name(number), error=error))

    def _release_followers(self, number: int, now: float) -> None:
        released = self._last_waiting(self._followers.get(number, ()))
        super()._release_followers(number, now)
        self._tell_scheduled(released, now)

    def _last_waiting(self, numbers: Sequence[int]) -> list[int]:
        """Those that wait for nothing but the task that is ending now."""
        status = self.record.status
        return [at for at in numbers if self.waiting[at] == 1 and status[at] == PENDING]

    def _tell_scheduled(self, numbers: list[int], now: float) -> None:
        for number in numbers:
            self.announce(TaskScheduled(at=now, task=self._name(number)))

    def _name(self, number: int) -> str:
        return self.record.tasks[number].name


class WatchedState(_Watched):
    """A `RunState` that tells."""

    __slots__ = ("announce",)


class WatchedResourceState(_Watched, ResourceState):
    """A `ResourceState` that tells."""

    __slots__ = ("announce",)
