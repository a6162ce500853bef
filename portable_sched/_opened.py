"""An executor between its opening and its end, and what it has meanwhile."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, Future
from itertools import count, repeat
from typing import Any, NamedTuple

from anyio import Event

from ._any_executor import end_processes, end_where_stuck, is_broken
from ._transport import is_far, pickling_of


class InFlight(NamedTuple):
    """A call that an executor has.

    Attributes:
        task: the task that it is of.
        is_over: set when there is nothing more to wait for.
    """

    task: str
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
        is_retired: whether it gets no more calls, and is to end with the last that it has.
        is_ended: whether its processes have been ended.
        running: the tasks that were there when it broke; None as long as it works.
    """

    __slots__ = (
        "_is_over",
        "_keys",
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
        self.is_retired = False
        self.is_ended = False
        self.running: tuple[str, ...] | None = None
        self._keys = map("{}-{}".format, repeat(os.urandom(8).hex()), count())
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
        return next(self._keys)

    def is_broken(self) -> bool:
        """Whether it has noticed itself that it is broken."""
        return is_broken(self.executor)

    def broke(self) -> tuple[str, ...]:
        """The tasks that were there when it broke, for the first and the last who asks."""
        if self.running is None:
            # What has ended well before that had nothing to do with it.
            self.running = tuple(
                call.task
                for future, call in self.in_flight.items()
                if not future.done() or _has_broken(future)
            )
            # Python 3.11 may forget calls that come while it breaks, and a process that it starts.
            if end_processes(self.executor):
                for call in self.in_flight.values():
                    call.is_over.set()
        return self.running


def _has_broken(future: Future[Any]) -> bool:
    return not future.cancelled() and isinstance(future.exception(), BrokenExecutor)
