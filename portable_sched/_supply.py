"""The executors of one name in one run, one after another: made, replaced, and ended."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from threading import Thread
from time import monotonic
from typing import Any, Final

from anyio import Event

from ._any_executor import end, workers_of
from ._backend import call_soon, context_outside
from ._checks import as_made_executor, is_executor
from ._errors import ExecutorError, error_text
from ._failures import without_our_steps
from ._log import logger
from ._opened import Opened

# Seconds for which others need not try again what could not be opened.
_FRESH: Final = 1.0


class _Opening:
    """An executor that is being made.

    Attributes:
        is_over: set when it is there, or has failed.
        made: it.
        workers: how many it has.
        error: what went wrong.
        thread: where that happens.
    """

    __slots__ = ("error", "is_over", "made", "thread", "workers")

    def __init__(self, make: Callable[["_Opening"], None]) -> None:
        self.is_over = Event()
        self.made: Opened | None = None
        self.workers: int | None = None
        self.error: BaseException | None = None
        # It may start a cluster. And who waits may be cancelled, or have no more time.
        self.thread = Thread(
            target=context_outside().run,
            args=(make, self),
            name="portable_sched opening",
            daemon=True,
        )
        self.thread.start()


class Supply:
    """The executors of one name in one run.

    Args:
        name: what tasks call it.
        given: the executor, or what makes one.
        told: told how many workers there are, and how many calls more they are to have, when that
            is known and whenever it changes; None where the executor does not say.

    Attributes:
        name: as above.
        opened: the one that is given calls; None where it is yet to be made.
        can_replace: whether there is what makes another.
        fetch: brings the value of a handle, if there was one that gives handles.
    """

    __slots__ = (
        "_burials",
        "_ending",
        "_failures",
        "_heard",
        "_is_over",
        "_make",
        "_old",
        "_opening",
        "_soon",
        "_told",
        "_unfollow",
        "can_replace",
        "fetch",
        "name",
        "opened",
    )

    def __init__(
        self, name: str, given: Any, told: Callable[[int | None, int | None], None]
    ) -> None:
        self.name = name
        self.opened: Opened | None = None
        self.can_replace = not is_executor(given)
        self.fetch: Callable[[Any], Any] | None = None
        self._make = given
        self._told = told
        self._soon = call_soon()
        self._old: list[Opened] = []
        # The threads in which broken ones end.
        self._burials: list[Thread] = []
        self._ending: Thread | None = None
        self._opening: _Opening | None = None
        # Why it could not be opened and when that was, since it was last; and for each task how
        # many of these it has been told.
        self._failures: list[tuple[BaseException, float]] = []
        self._heard: dict[str, int] = {}
        self._unfollow: Callable[[], None] = _nothing
        self._is_over = False
        if not self.can_replace:
            self._use(Opened(given), workers_of(given))

    def begin(self) -> None:
        """The run begins; of an executor that is there already there may be news."""
        if self.opened is not None:
            self._follow(self.opened)

    async def open(self, task: str) -> None:
        """Have an executor made, or wait for the one that is being made.

        Args:
            task: name of the task for which it is.

        Raises:
            ExecutorError: that failed.
        """
        heard = self._heard.get(task, 0)
        error: BaseException | None
        news = [
            number
            for number, (_, when) in enumerate(self._failures)
            if number >= heard and monotonic() < when + _FRESH
        ]
        if news:
            error = self._failures[news[0]][0]
            self._heard[task] = news[0] + 1
        else:
            error = await self._tried()
            self._heard[task] = len(self._failures)
        if error is None:
            return
        try:
            if not isinstance(error, Exception):
                raise error
            reason = f"opening it failed: {error_text(error)}"
            raise ExecutorError(task, self.name, reason) from error
        finally:
            # An exception that knows a frame that knows the exception is a cycle.
            del error

    async def _tried(self) -> BaseException | None:
        """Have it opened, or wait for that, and say what went wrong."""
        opening = self._opening
        if opening is None:
            opening = self._opening = _Opening(self._make_in_thread)
        await opening.is_over.wait()
        return opening.error

    def replace(self, opened: Opened) -> None:
        """Have another executor made for the next call."""
        if self.can_replace and self.opened is opened:
            self.opened = None
            self._old.append(opened)
            self.bury(opened)

    def bury(self, opened: Opened) -> None:
        """Shut down one that has broken or was ended, once nobody is in it: it has files open."""
        is_gone = opened.running is not None or opened.is_ended
        if not is_gone or opened.in_flight or opened not in self._old:
            return
        opened.let_go()
        if opened.running is not None:
            # The other one may yet come back from what makes them.
            self._old.remove(opened)
        thread = Thread(
            target=partial(end, opened.executor, wait=True, at_once=True),
            name="portable_sched ending",
            daemon=True,
        )
        thread.start()
        self._burials = [*filter(Thread.is_alive, self._burials), thread]

    def end(self, *, at_once: bool) -> Event:
        """The run is over: shut down what it has opened, in a thread; what it was given goes on.

        Args:
            at_once: whether nobody waits for what there still is.

        Returns:
            an event that is set when all has ended.
        """
        self._is_over = True
        try:
            self._unfollow()
        except Exception as error:  # noqa: BLE001 - the executor's, and the run is over
            logger().error("The executor %r raised after follow().", self.name, exc_info=error)
        if self.opened is not None and not self.can_replace:
            self.opened.let_go()
        is_over = Event()
        if self._opening is None and not self._to_end() and not self._burials:
            is_over.set()
        else:
            self._ending = Thread(
                target=self._end_in_thread,
                args=(is_over, at_once),
                name="portable_sched ending",
                daemon=True,
            )
            self._ending.start()
        return is_over

    def join(self) -> None:
        """All has ended but the thread that has said so; wait for that instant."""
        if self._ending is not None:
            self._ending.join()

    def is_opening(self) -> bool:
        """Whether an executor is being made."""
        return self._opening is not None and self._opening.thread.is_alive()

    def _make_in_thread(self, opening: _Opening) -> None:
        try:
            opening.made = self._made()
            opening.workers = workers_of(opening.made.executor)
        except BaseException as error:  # noqa: BLE001 - it is raised again in the event loop
            without_our_steps(error)
            opening.error = error
        # Or the event loop is gone.
        with suppress(RuntimeError):
            self._soon(partial(self._has_opened, opening))

    def _has_opened(self, opening: _Opening) -> None:
        if self._is_over:
            # It is seen to already.
            return
        self._opening = None
        if opening.error is not None:
            self._failures.append((opening.error, monotonic()))
        else:
            self._failures.clear()
            self._heard.clear()
        if opening.made is not None:
            self._use(opening.made, opening.workers)
            self._follow(opening.made)
        opening.is_over.set()

    def _use(self, opened: Opened, workers: int | None) -> None:
        self.opened = opened
        self.fetch = getattr(opened.executor, "fetch", None)
        self._told(workers, opened.look_ahead)

    def _follow(self, opened: Opened) -> None:
        follow = getattr(opened.executor, "follow", None)
        if follow is None:
            return
        try:
            self._unfollow()
            self._unfollow = follow(partial(self._note_workers, opened))
        except Exception as error:  # noqa: BLE001 - the executor's, which can do without
            logger().error("The executor %r raised in follow().", self.name, exc_info=error)

    def _note_workers(self, opened: Opened, workers: int) -> None:
        """In a thread of the executor: it has another number of workers now."""
        with suppress(RuntimeError):
            self._soon(partial(self._has_workers, opened, workers))

    def _has_workers(self, opened: Opened, workers: int) -> None:
        if self.opened is opened:
            self._told(workers, opened.look_ahead)

    def _made(self) -> Opened:
        executor = self._make()
        # One that is shared by a whole program may be the one that we have retired, and no other.
        known = [old for old in self._old if old.executor is executor and old.running is None]
        if known and known[0].is_ended:
            # It has not noticed yet. Then there is another one.
            self._old.remove(known.pop())
            for thread in self._burials:
                thread.join()
            executor = self._make()
        if not known:
            return Opened(as_made_executor(executor))
        self._old.remove(known[0])
        known[0].is_retired = False
        return known[0]

    def _to_end(self) -> list[Opened]:
        opened = self.opened if self.can_replace else None
        # Those that are ended are buried.
        old = [old for old in self._old if not old.is_ended]
        return [*old, *([] if opened is None else [opened])]

    def _end_in_thread(self, is_over: Event, at_once: bool) -> None:  # noqa: FBT001 - a thread passes its arguments by position
        old = [*self._old]
        left = self._to_end()
        if self._opening is not None:
            self._opening.thread.join()
            left += [] if self._opening.made is None else [self._opening.made]
        for thread in self._burials:
            thread.join()
        for opened in left:
            opened.let_go()
            is_given_up = (opened in old or opened.has_given_up()) and not opened.is_shared()
            end(opened.executor, wait=True, at_once=at_once or is_given_up)
        # Or the event loop is gone.
        with suppress(RuntimeError):
            self._soon(is_over.set)


def _nothing() -> None:
    """Stands for what ends following an executor that does not tell of its workers."""
