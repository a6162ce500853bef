"""An executor as one run uses it: opened, given calls, replaced where it broke, and closed.

One way of waiting serves every `concurrent.futures.Executor` on every event loop: submit, have the
future's callback wake the loop, wait behind an event. No thread is held for a call in flight.

An executor has as many calls at one time as it has workers: what is more would queue in it, where
a more urgent task could not overtake, and where time runs for nothing. But a worker that has done a
short call waits for the next one as long as it worked, until we have heard of it. So as long as
calls are short, there are as many again, on which the workers go on meanwhile. What looks further
ahead where the way is longer, has to know of priorities itself.

What an executor may offer beyond `concurrent.futures.Executor` is looked for by name:

- `workers`, how many it has; of those that do not say (and say nothing that we know of), any number
  of calls is in flight.
- `look_ahead`, how many calls more it is to have while they are short; else as many as workers.
- `stop(future)`, to end a call that is running; it answers whether it could.
- `isolates`, whether a worker that dies breaks its own call alone.
- `keep(function, *args)`, as `submit`, for a result that stays where it is: what the future gives
  is a handle, which may be among the arguments of other calls; `fetch(handle)` brings the value.

A pool of processes breaks as a whole when one of them dies, and does not tell which call it was.
So those that were in flight are suspects: each of them is called once more, alone, which costs no
attempt. The one that kills its worker again is the culprit.

A call that was given up and cannot be stopped would keep its worker. So whoever made the executor
makes another, and the first one is ended with the last call in it that somebody waits for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from anyio import CapacityLimiter, Event, Lock, move_on_after, to_thread

from ._any_executor import end, end_processes, is_executor, workers_of
from ._backend import Waker, event_loop_is_gone, loop_clock
from ._checks import shown
from ._envelope import Call, carry_out, unpacked
from ._errors import ExecutorError, WorkerDiedError, error_text
from ._log import logger
from ._opened import InFlight, Opened
from ._remote_failures import RESULT, RemoteFailure
from ._standard_executors import executors_of
from ._tasks import THREAD, TaskDef
from ._transport import not_picklable, packed_call, part_name, what_cannot_go, what_went_wrong

# Seconds below which a call is short.
_SHORT: Final = 0.05

# Seconds that an executor may take to shut down at the end of a run.
_SHUTDOWN: Final = 30.0


class _Suspected(Exception):  # noqa: N818 - it says what is to be done, and never leaves this module
    """The executor broke, and the call was not the only one there."""


class Pool:
    """One executor, as one run uses it.

    Attributes:
        name: what tasks call it.
        workers: how many calls it carries out at one time; None where nobody knows.
        resize: told how many calls it is to have at one time whenever that changes; None for any
            number.
    """

    __slots__ = (
        "_alone",
        "_clock",
        "_closed",
        "_emptied",
        "_looks_ahead",
        "_make",
        "_old",
        "_opened",
        "_opening",
        "_suspects",
        "_unsuspected",
        "_usual",
        "_waker",
        "name",
        "resize",
        "workers",
    )

    def __init__(self, name: str, given: Any, workers: int | None) -> None:
        self.name = name
        self.workers = workers
        self.resize: Callable[[int | None], None] = _nobody
        self._make: Callable[[], Any] | None = None
        self._opened: Opened | None = None
        if is_executor(given):
            self._opened = Opened(given)
            self.workers = workers_of(given)
        else:
            self._make = given
        self._opening = Lock()
        self._waker = Waker()
        self._clock = loop_clock()
        # What calls have taken of late, in seconds, and whether that is short.
        self._usual: float | None = None
        self._looks_ahead = False
        self._old: list[Opened] = []
        self._closed = False
        # Suspects go one at a time with nothing else in flight, and others wait for their end.
        self._suspects = 0
        self._alone = Lock()
        self._emptied = Event()
        self._unsuspected = Event()

    async def call(
        self, call: Call, values: Sequence[Any], definition: TaskDef, *, keep: bool
    ) -> Any:
        """What a task's function returns, or the handle of that.

        Args:
            call: what to call.
            values: its arguments.
            definition: the task.
            keep: whether the result may stay where it is.

        Raises:
            Exception: what the function raised, or what went wrong on the way.
        """
        try:
            try:
                return await self._once(call, values, definition, keep=keep, alone=False)
            except _Suspected:
                # From here on nobody else begins a call.
                self._suspects += 1
            try:
                async with self._alone:
                    while self._opened is not None and self._opened.in_flight:
                        await self._emptied.wait()
                    return await self._once(call, values, definition, keep=keep, alone=True)
            finally:
                self._suspects -= 1
                if not self._suspects:
                    self._unsuspected.set()
                    self._unsuspected = Event()
        finally:
            del values

    async def fetch(self, handle: Any) -> Any:
        """The value that a handle stands for; what is no handle, as it is."""
        opened = self._opened
        if opened is None or not hasattr(opened.executor, "fetch"):
            return handle
        return await to_thread.run_sync(
            opened.executor.fetch, handle, abandon_on_cancel=True, limiter=CapacityLimiter(1)
        )

    async def close(self) -> None:
        """Shut down what the run has opened; what it was given goes on."""
        self._closed = True
        # It leads to the run.
        self.resize = _nobody
        executors = [(old.executor, True) for old in self._old]
        if self._make is not None and self._opened is not None:
            executors.append((self._opened.executor, False))
        if event_loop_is_gone():
            for executor, _ in executors:
                end(executor, wait=False, at_once=True)
            return
        for executor, at_once in executors:
            with move_on_after(_SHUTDOWN, shield=True) as scope:
                await to_thread.run_sync(
                    partial(end, executor, wait=True, at_once=at_once),
                    abandon_on_cancel=True,
                    limiter=CapacityLimiter(1),
                )
            if scope.cancelled_caught:
                logger().warning(
                    "The executor %r has not shut down within %d s, and goes on by itself.",
                    *(self.name, _SHUTDOWN),
                )

    async def _once(
        self, call: Call, values: Sequence[Any], definition: TaskDef, *, keep: bool, alone: bool
    ) -> Any:
        task = call.task
        opened: Opened | None = None
        future: Future[Any] | None = None
        has_refused = False
        while opened is None or future is None:
            opened = self._opened
            if opened is None or (self._suspects and not alone):
                # What is so now may be another thing after that.
                await self._can_begin(task, alone=alone)
                opened = None
                continue
            future = self._taken(
                opened, call, values, definition, keep=keep, has_refused=has_refused
            )
            # That others broke it says nothing of the next one.
            has_refused = has_refused or not opened.running
        error: BaseException | None = None
        began = self._clock()
        is_over = opened.in_flight[future].is_over
        future.add_done_callback(partial(self._waker, is_over))
        try:
            try:
                await is_over.wait()
            except BaseException:
                self._give_up(opened, future, task)
                raise
            self._note_that_it_took(self._clock() - began)
            if future.cancelled():
                raise ExecutorError(task, self.name, "it was shut down, and gave up the call.")
            error = future.exception() if future.done() else BrokenExecutor("It forgot the call.")
            if error is None:
                return self._loaded(future.result(), task)
            raise self._failure(opened, call, values, definition, error, alone=alone)
        finally:
            del opened.in_flight[future]
            if not opened.in_flight:
                self._has_emptied(opened)
            # An exception that knows a frame that knows the exception is a cycle.
            del values, future, error, call, opened

    def _loaded(self, result: Any, task: str) -> Any:
        """What a call has ended with."""
        try:
            return unpacked(result)
        except Exception as error:
            raise not_picklable(task, self.name, RESULT, error_text(error), error) from error

    def _has_emptied(self, opened: Opened) -> None:
        if opened.is_retired:
            opened.is_ended = end_processes(opened.executor)
        if self._suspects:
            self._emptied.set()
            self._emptied = Event()

    def _failure(
        self,
        opened: Opened,
        call: Call,
        values: Sequence[Any],
        definition: TaskDef,
        error: BaseException,
        *,
        alone: bool,
    ) -> BaseException:
        """What an attempt has failed with, by what its call has ended with."""
        if isinstance(error, RemoteFailure):
            raised = error.unpacked(call.task)
            if error.part is None:
                return raised
            part = part_name(error.part, call, definition)
            return not_picklable(call.task, self.name, part, error_text(raised), raised)
        if isinstance(error, BrokenExecutor):
            return self._of_broken(opened, call.task, error, alone=alone)
        return what_went_wrong(opened.executor, self.name, call, values, definition, error)

    async def _can_begin(self, task: str, *, alone: bool) -> None:
        """Wait until the executor is open, or until there are no suspects any more."""
        if self._suspects and not alone:
            await self._unsuspected.wait()
        else:
            await self._open(task)

    def _taken(
        self,
        opened: Opened,
        call: Call,
        values: Sequence[Any],
        definition: TaskDef,
        *,
        keep: bool,
        has_refused: bool,
    ) -> Future[Any] | None:
        """A call that the executor has taken; None where it is broken, and has been replaced."""
        if opened.is_far:
            call = call._replace(function=call.function.far())
        if opened.dumps is not None:
            call, values = packed_call(opened.dumps, self.name, call, values, definition)
        try:
            future = (opened.keep if keep else opened.submit)(carry_out, call, *values)
        except Exception as error:
            # Python 3.11 may stumble over what is closed already.
            is_broken = isinstance(error, BrokenExecutor) or opened.is_broken()
            # Under other calls, which will hear of it, or under none: that happens once.
            can_go_on = is_broken and self._make is not None
            if can_go_on and (opened.broke() or not has_refused):
                self._replace(opened)
                return None
            executor = opened.executor
            blamed = what_cannot_go(executor, self.name, call, values, definition, error)
            if blamed is None:
                reason = f"it did not take the call: {error_text(error)}"
                raise ExecutorError(call.task, self.name, reason) from error
            raise blamed from error
        opened.in_flight[future] = InFlight(call.task, Event())
        if opened.is_broken():
            # It broke meanwhile, and may say so to nobody.
            opened.broke()
        return future

    @property
    def _look_ahead(self) -> int:
        executor = None if self._opened is None else self._opened.executor
        look_ahead: int = getattr(executor, "look_ahead", self.workers or 0)
        return look_ahead

    def _note_that_it_took(self, seconds: float) -> None:
        if self.workers is None:
            return
        usual = seconds if self._usual is None else self._usual + (seconds - self._usual) / 4
        self._usual = usual
        # With others before them calls take longer, and a little more is no reason to go back.
        in_flight = self.workers + self._look_ahead
        queued = 2 * in_flight / self.workers if self._looks_ahead else 1
        looks_ahead = usual < _SHORT * queued
        if looks_ahead is not self._looks_ahead:
            self._looks_ahead = looks_ahead
            self.resize(in_flight if looks_ahead else self.workers)

    def _give_up(self, opened: Opened, future: Future[Any], task: str) -> None:
        """A call is to end that nobody waits for any more."""
        if future.cancel() or future.done():
            return
        stop: Callable[[Future[Any]], bool] | None = getattr(opened.executor, "stop", None)
        if stop is not None and stop(future):
            return
        what_now = "It goes on by itself."
        if self._make is not None:
            what_now = "It is replaced, and ended as soon as nobody waits for what it has."
            opened.is_retired = True
            self._replace(opened)
        logger().warning(
            "Task %r was cancelled, by its timeout or with its run, and is in the executor %r, "
            "which cannot stop it. %s",
            *(task, self.name, what_now),
        )

    async def _open(self, task: str) -> None:
        async with self._opening:
            if self._opened is None:
                # In a thread: it may start a cluster.
                try:
                    self.workers = await to_thread.run_sync(
                        self._make_one, limiter=CapacityLimiter(1)
                    )
                except Exception as error:
                    reason = f"opening it failed: {error_text(error)}"
                    raise ExecutorError(task, self.name, reason) from error
                self._usual = None
                self._looks_ahead = False
                self.resize(self.workers)

    def _make_one(self) -> int | None:
        make = self._make or _nothing
        executor = make()
        # One that is shared by a whole program may be the one that we have retired, and no other.
        known = [old for old in self._old if old.executor is executor and old.running is None]
        if known and known[0].is_ended:
            # It has not noticed yet. Then there is another one.
            self._old.remove(known.pop())
            end(executor, wait=True, at_once=True)
            executor = make()
        if not is_executor(executor):
            raise TypeError(f"expected a function that makes an executor, got {shown(executor)}")
        if known:
            self._old.remove(known[0])
            known[0].is_retired = False
        self._opened = known[0] if known else Opened(executor)
        if self._closed:
            # The run is over, and nobody else knows of it.
            end(executor, wait=False, at_once=True)
        return workers_of(executor)

    def _replace(self, opened: Opened) -> None:
        """Have another executor opened for the next call."""
        if self._opened is opened:
            self._opened = None
            self._old.append(opened)

    def _of_broken(
        self, opened: Opened, task: str, error: BrokenExecutor, *, alone: bool
    ) -> Exception:
        """What a call has failed with whose executor broke under it."""
        failure: Exception
        if getattr(opened.executor, "isolates", False):
            failure = WorkerDiedError(task, self.name, [task])
            failure.__cause__ = error
            return failure
        running = opened.broke()
        if self._make is None:
            remark = (
                "It is broken now. So that it can be replaced, give a function that makes it, as "
                f"in executors={{{self.name!r}: lambda: ProcessPoolExecutor(2)}}."
            )
            failure = WorkerDiedError(task, self.name, running, remark)
        else:
            self._replace(opened)
            is_suspect = len(running) > 1 and not alone
            failure = _Suspected() if is_suspect else WorkerDiedError(task, self.name, running)
        failure.__cause__ = error
        return failure


def _nothing() -> None:
    """Stands for what makes an executor, where there is one already."""


def _nobody(units: int | None) -> None:
    """Stands for who is told how many calls an executor is to have."""


class Pools:
    """The executors of one run, each there when it is first asked for, and closed at its end.

    Args:
        executors: they, or what makes them, by name, beside those that need no set-up.
        known: how many workers those have that earlier runs have opened; it is added to.
    """

    __slots__ = ("_executors", "_known", "_pools")

    def __init__(self, executors: Mapping[str, Any], known: dict[str, int | None]) -> None:
        self._executors = executors_of(executors)
        self._known = known
        self._pools: dict[str, Pool] = {}

    def __getitem__(self, name: str) -> Pool:
        pool = self._pools.get(name)
        if pool is None:
            # One at a time, until it has been opened and can be asked.
            workers = self._known.get(name, 1)
            pool = self._pools[name] = Pool(name, self._executors[name], workers)
        return pool

    def __iter__(self) -> Iterator[Pool]:
        return iter(self._pools.values())

    def of(self, definition: TaskDef) -> Pool | None:
        """Where the attempts of a task run; None for the event loop and its threads."""
        name = definition.executor
        return None if name is None or name == THREAD else self[name]

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pool in self:
            self._known[pool.name] = pool.workers
            await pool.close()
