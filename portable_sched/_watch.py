"""States that tell what they decide, since everything that happens to a task goes through them.

A run without observers has a plain state, so it does not even ask whether anyone is watching.
"""

from collections.abc import Callable, Iterable, Sequence

from ._errors import error_text
from ._events import (
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
from ._results import CANCELLED, PENDING, RunResults
from ._state import NOTHING, RunState


class _Watched(RunState):
    """What the two classes below share; they have its slot, or they could not have two bases."""

    __slots__ = ()

    announce: Callable[[Event], None]

    def begin(self) -> None:
        began = self.record.began
        self.announce(RunStarted(at=began, tasks=tuple([task.name for task in self.record.tasks])))
        self._tell_scheduled([at for at, left in enumerate(self.waiting) if not left], began)

    def take(self, now: float) -> int:
        number = super().take(now)
        if number != NOTHING:
            attempt = self.record.attempt_of(number)
            name = self._name(number)
            if attempt == 1:
                self.announce(TaskStarted(at=now, task=name))
            self.announce(AttemptStarted(at=now, task=name, attempt=attempt))
        return number

    def completed(self, number: int, result: object, now: float) -> None:
        name = self._name(number)
        attempt, duration = self._attempt(number, now)
        self.announce(AttemptCompleted(at=now, task=name, attempt=attempt, duration=duration))
        since_start = now - self.record.started[number]
        self.announce(TaskCompleted(at=now, task=name, duration=since_start))
        released = self._last_waiting(self._dependents[number])
        # Now what comes of it, followers included.
        self._tell_scheduled(released, now)
        super().completed(number, result, now)

    def failed(self, number: int, exception: BaseException, now: float) -> None:
        attempt, duration = self._attempt(number, now)
        self.announce(
            AttemptFailed(
                at=now,
                task=self._name(number),
                attempt=attempt,
                exception=exception,
                duration=duration,
            )
        )
        super().failed(number, exception, now)

    def cancelled(self, number: int, exception: BaseException | None, now: float) -> None:
        attempt, duration = self._attempt(number, now)
        self.announce(
            AttemptCancelled(at=now, task=self._name(number), attempt=attempt, duration=duration)
        )
        super().cancelled(number, exception, now)

    def closed(self, number: int, exception: BaseException | None, now: float) -> None:
        self.announce(TaskClosed(at=now, task=self._name(number)))
        super().closed(number, exception, now)

    def finish(self, now: float) -> None:
        super().finish(now)
        self.announce(RunFinished(at=now, results=RunResults(self.record)))

    def _try_again(self, number: int, delay: float, now: float) -> None:
        next_attempt = self.record.attempt_of(number) + 1
        super()._try_again(number, delay, now)
        self.announce(
            TaskRetrying(at=now, task=self._name(number), attempt=next_attempt, delay=delay)
        )

    def _end(self, number: int, status: int, now: float) -> None:
        # Told first what it means: what follows from its end comes after it.
        name = self._name(number)
        if status == CANCELLED:
            self.announce(TaskCancelled(at=now, task=name))
        else:
            error = error_text(self.record.exception_of(number))
            self.announce(TaskFailed(at=now, task=name, error=error))
        super()._end(number, status, now)

    def _is_over(self, number: int, now: float) -> None:
        if not self.draining:
            self._tell_scheduled(self._last_waiting(self._followers.get(number, ())), now)
        super()._is_over(number, now)

    def _attempt(self, number: int, now: float) -> tuple[int, float]:
        """Which attempt it is, and how long it has taken by now."""
        began = self._attempt_began.get(number, self.record.started[number])
        return self.record.attempt_of(number), now - began

    def _last_waiting(self, numbers: Sequence[int]) -> list[int]:
        """Those that wait for nothing but the task that is ending now."""
        status = self.record.status
        return [at for at in numbers if self.waiting[at] == 1 and status[at] == PENDING]

    def _tell_scheduled(self, numbers: Iterable[int], now: float) -> None:
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
