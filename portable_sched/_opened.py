"""An executor between its opening and its end, and what it has meanwhile."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from itertools import count
from time import sleep
from typing import Any, Final, NamedTuple

from anyio import Event

from ._any_executor import (
    end_processes,
    end_where_stuck,
    forget_calls,
    futures_in,
    has_news,
    is_broken,
    processes_of,
    workers_of,
)
from ._transport import is_far, pickling_of

# Seconds in which another thread has its turn.
_TURN: Final = 0.001


class InFlight(NamedTuple):
    """A call that an executor has.

    Attributes:
        task: the task that it is of.
        number: how many came before it.
        is_over: set when there is nothing more to wait for.
    """

    task: str
    number: int
    is_over: Event


class Opened:
    """An executor between its opening and its end.

    Attributes:
        executor: itself.
        submit: how it is given a call.
        keep: how it is given one whose result may stay there.
        dumps: by what the values of its calls are packed; None where they go as they are.
        is_local: whether its workers are on this machine, and get a copy of each call.
        prefetches: whether it may take a call out of its queue, on this machine, before it begins.
        is_far: whether its workers may know nothing of this program's `__main__`.
        look_ahead: how many calls more than workers it is to have; None where it does not say.
        in_flight: the calls that it has.
        passed_on: those of them that it has not begun, and that are to begin elsewhere.
        is_retired: whether it gets no more calls, and is to end with the last that it has.
        is_ended: whether its processes have been ended.
        running: the tasks that were there when it broke; None as long as it works.
    """

    __slots__ = (
        "_given_up",
        "_is_over",
        "_numbers",
        "_prefix",
        "_watch",
        "dumps",
        "executor",
        "in_flight",
        "is_ended",
        "is_far",
        "is_local",
        "is_retired",
        "keep",
        "look_ahead",
        "passed_on",
        "prefetches",
        "running",
        "submit",
    )

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.submit: Callable[..., Future[Any]] = executor.submit
        self.keep: Callable[..., Future[Any]] = getattr(executor, "keep", executor.submit)
        self.dumps = pickling_of(executor)
        # One that says itself how it pickles may be a cluster.
        self.is_local = self.dumps is not None and not hasattr(executor, "dumps")
        self.prefetches = self.is_local and not getattr(executor, "isolates", False)
        self.is_far = is_far(executor)
        self.look_ahead: int | None = getattr(executor, "look_ahead", None)
        self.in_flight: dict[Future[Any], InFlight] = {}
        self.passed_on: set[Future[Any]] = set()
        self._numbers = count()
        self._given_up: dict[Future[Any], InFlight] = {}
        self.is_retired = False
        self.is_ended = False
        self.running: tuple[str, ...] | None = None
        self._prefix = os.urandom(8).hex()
        self._is_over = threading.Event()
        self._watch: threading.Thread | None = None
        if hasattr(executor, "_processes"):
            self._watch = threading.Thread(
                target=end_where_stuck,
                args=(executor, self._is_over),
                name="portable_sched process watch",
                daemon=True,
            )
            self._watch.start()

    def let_go(self) -> None:
        """It is not in use any more."""
        self._is_over.set()
        if self._watch is not None:
            self._watch.join()

    def key(self) -> str:
        """What no other call has, in this program or another."""
        return f"{self._prefix}-{next(self._numbers)}"

    def note(self, future: Future[Any], task: str) -> None:
        """It has taken a call."""
        self.in_flight[future] = InFlight(task, next(self._numbers), Event())

    def give_up(self, future: Future[Any]) -> None:
        """It has a call that cannot be stopped: it is to end, and what has not begun is let go of.

        Args:
            future: of that call.
        """
        self.is_retired = True
        self._given_up[future] = self.in_flight[future]
        self.passed_on.update(other for other in self.in_flight if other.cancel())
        forget_calls(self.executor, cancelled=True)
        if self._is_at_nothing_else():
            # If one has ended, another one has begun. The pool's own thread may be about to say so.
            sleep(_TURN)
            if self._is_at_nothing_else():
                self.end_at_once()

    def _is_at_nothing_else(self) -> bool:
        """Whether nobody waits for any of the calls that it is carrying out.

        They begin in the order in which they came. So of those that have not ended the first ones
        have begun, as many as there are workers, and the others wait for them.
        """
        calls = self._given_up | self.in_flight
        left = sorted((call.number, future) for future, call in calls.items() if not future.done())
        have_begun = {future for _, future in left[: workers_of(self.executor)]}
        return have_begun <= self._given_up.keys() and not has_news(self.executor)

    def end_at_once(self) -> None:
        """End its processes, if it has no calls of others: nobody waits for what they do."""
        if processes_of(self.executor) and not self.is_shared():
            self.is_ended = True
            forget_calls(self.executor, cancelled=False)
            end_processes(self.executor)
            self._tell_all()

    def has_given_up(self) -> bool:
        """Whether it still has a call that nobody waits for."""
        return not all(future.done() for future in self._given_up)

    def is_shared(self) -> bool:
        """Whether it has calls of others, as one that is shared by a whole program."""
        return not futures_in(self.executor) <= {*self._given_up, *self.in_flight}

    def _tell_all(self) -> None:
        # Python 3.11 may forget calls that come while it breaks.
        for call in self.in_flight.values():
            call.is_over.set()

    def is_broken(self) -> bool:
        """Whether it has noticed itself that it is broken."""
        return is_broken(self.executor)

    def broke(self) -> tuple[str, ...]:
        """The tasks that were there when it broke, for the first and the last who asks."""
        if self.running is None:
            # What has ended well before that had nothing to do with it. What was given up has not.
            self.running = tuple(
                call.task
                for future, call in (self._given_up | self.in_flight).items()
                if not future.done() or _has_broken(future)
            )
            # Python 3.11 may forget a process that it starts while it breaks.
            if end_processes(self.executor):
                self._tell_all()
        return self.running


def _has_broken(future: Future[Any]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)
