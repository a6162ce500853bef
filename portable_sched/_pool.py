"""An executor as one run uses it: given calls, as many as it can have, until one breaks it.

One way of waiting serves every `concurrent.futures.Executor` on every event loop: submit, have the
future's callback wake the loop, wait behind an event. No thread is held for a call in flight.

What an executor may offer beyond `concurrent.futures.Executor` is looked for by name:

- `workers`, how many it has; of those that do not say (and say nothing that we know of), any number
  of calls is in flight.
- `look_ahead`, how many calls more it is to have while they are short; else as many as workers.
- `follow(told)`, to have `told` called with the number of workers whenever it changes; what it
  returns is called to end that.
- `stop(future)`, to end a call that is running; it answers whether it could.
- `isolates`, whether a worker that dies breaks its own call alone.
- `when_begun(told)` of its futures, to have `told` called once the call has begun, or will not any
  more: from then on its time counts.
- `dumps(value)`, by what arguments and results are pickled where we do not know it: they go as
  bytes then, but for those of which it makes None.
- `keep(function, *args)`, as `submit`, for a result that stays where it is: what the future gives
  is a handle, which may be among the arguments of other calls; `fetch(handle)` brings the value.

A pool of processes breaks as a whole when one of them dies, and does not tell which call it was.
So those that were in flight are suspects: each of them is called once more, alone, which costs no
attempt. The one that kills its worker again is the culprit.

A call that was given up and cannot be stopped would keep its worker. So whoever made the executor
makes another, in which begins what has not begun in the first; and that is ended with the last call
in it that somebody waits for.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, Future
from concurrent.futures.thread import BrokenThreadPool
from functools import partial
from time import monotonic
from typing import Any, Final

from anyio import CapacityLimiter, Event, Lock, move_on_after, to_thread

from ._any_executor import WorkerEnded
from ._backend import Waker, loop_clock
from ._capacity import Capacity
from ._checks import shown
from ._envelope import Call, carry_out
from ._errors import ExecutorError, WorkerDiedError, error_text
from ._log import logger
from ._opened import Opened
from ._pickling import Packed, unpacked
from ._remote_failures import FUNCTION, RESULT, RemoteFailure
from ._supply import Supply
from ._tasks import TaskDef
from ._timeouts import restart, time_left, time_stopped
from ._transport import not_picklable, packed_call, part_name, what_cannot_go, what_went_wrong

# Seconds that a worker may take to start; from then on that is part of the attempt's time.
_START: Final = 60.0

# Bytes from which on the event loop is not to wait for a result to be loaded.
_LARGE: Final = 1_000_000


class _Suspected(Exception):  # noqa: N818 - it says what is to be done, and never leaves this module
    """The executor broke, and the call was not the only one there."""


class _NotBegun(Exception):  # noqa: N818 - as above
    """It is to be called again, since it did not begin, or its function was not found there."""


class Pool:
    """One executor, as one run uses it.

    Args:
        name: what tasks call it.
        given: the executor, or what makes it.
        workers: how many it is thought to have until it can be asked.

    Attributes:
        name: as above.
        capacity: how many calls it is to have at one time.
        supply: where it comes from.
    """

    __slots__ = (
        "_alone",
        "_clock",
        "_emptied",
        "_suspects",
        "_unsuspected",
        "_waker",
        "capacity",
        "name",
        "supply",
    )

    def __init__(self, name: str, given: Any, workers: int | None) -> None:
        self.name = name
        self.capacity = Capacity(workers)
        self.supply = Supply(name, given, self.capacity.is_said)
        self._waker = Waker()
        self._clock = loop_clock()
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
                return await self._found(call, values, definition, keep=keep, alone=False)
            except _Suspected:
                # From here on nobody else begins a call.
                self._suspects += 1
            try:
                # Others may take long, and that is no time of this one's.
                with time_stopped(definition.timeout):
                    await self._alone.acquire()
                try:
                    with time_stopped(definition.timeout):
                        while self.supply.opened is not None and self.supply.opened.in_flight:
                            await self._emptied.wait()
                    return await self._found(call, values, definition, keep=keep, alone=True)
                finally:
                    self._alone.release()
            finally:
                self._suspects -= 1
                if not self._suspects:
                    self._unsuspected.set()
                    self._unsuspected = Event()
        finally:
            del values

    async def fetch(self, handle: Any, producer: str, task: str) -> Any:
        """The value that a handle stands for; what is no handle, as it is.

        Args:
            handle: it.
            producer: name of the task whose result that is.
            task: name of the task that takes it.

        Raises:
            ExecutorError: it cannot be had.
        """
        fetch = self.supply.fetch
        if fetch is None:
            return handle
        try:
            return await to_thread.run_sync(
                fetch, handle, abandon_on_cancel=True, limiter=CapacityLimiter(1)
            )
        except Exception as error:  # noqa: BLE001 - the executor's, or what working it out again has raised
            cause = error.unpacked(task) if isinstance(error, RemoteFailure) else error
            raise self._lost(producer, task, cause) from cause

    def _lost(self, producer: str | None, task: str, cause: BaseException) -> ExecutorError:
        """What a task has failed with that was to have the result of another."""
        reason = f"fetching the result of {producer!r} failed: {error_text(cause)}"
        failure = ExecutorError(task, self.name, reason)
        failure.__cause__ = cause
        return failure

    async def _found(
        self, call: Call, values: Sequence[Any], definition: TaskDef, *, keep: bool, alone: bool
    ) -> Any:
        try:
            while True:
                try:
                    return await self._once(call, values, definition, keep=keep, alone=alone)
                except _NotBegun:
                    restart(definition.timeout)
        finally:
            del values

    async def _once(
        self, call: Call, values: Sequence[Any], definition: TaskDef, *, keep: bool, alone: bool
    ) -> Any:
        task = call.task
        opened: Opened | None = None
        future: Future[Any] | None = None
        has_refused = False
        while opened is None or future is None:
            opened = await self._can_begin(definition, alone=alone)
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
                if definition.timeout is not None:
                    await self._begins(future, definition.timeout)
                await is_over.wait()
            except BaseException:
                self._give_up(opened, future, task)
                raise
            self.capacity.note_that_it_took(self._clock() - began)
            if future in opened.passed_on:
                raise _NotBegun
            if future.cancelled():
                raise ExecutorError(task, self.name, "it was shut down, and gave up the call.")
            error = future.exception() if future.done() else BrokenExecutor("It forgot the call.")
            if error is None:
                return await self._loaded(future.result(), task)
            raise self._failure(opened, call, values, definition, error, alone=alone)
        finally:
            del opened.in_flight[future]
            opened.passed_on.discard(future)
            if not opened.in_flight:
                self._has_emptied(opened)
            # An exception that knows a frame that knows the exception is a cycle.
            del values, future, error, call, opened

    async def _begins(self, future: Future[Any], seconds: float) -> None:
        """Wait until a call has begun, where the executor can tell, and its time begins."""
        when_begun = getattr(future, "when_begun", None)
        if when_begun is not None:
            has_begun = Event()
            when_begun(partial(self._waker, has_begun))
            has_worker = False
            with time_stopped(seconds):
                while not (has_worker or has_begun.is_set()):
                    has_worker = future.running()
                    with move_on_after(_START):
                        await has_begun.wait()

    async def _loaded(self, result: Any, task: str) -> Any:
        """What a call has ended with."""
        try:
            if type(result) is Packed and len(result) > _LARGE:
                return await to_thread.run_sync(
                    result.load, abandon_on_cancel=True, limiter=CapacityLimiter(1)
                )
            return unpacked(result)
        except (Exception, SystemExit) as error:
            raise not_picklable(task, self.name, RESULT, error_text(error), error) from error

    def _has_emptied(self, opened: Opened) -> None:
        if opened.is_retired and not opened.is_ended:
            opened.end_at_once()
        self.supply.bury(opened)
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
            return self._of_remote(call, definition, error)
        if isinstance(error, BrokenThreadPool):
            # No thread has died: they could not begin.
            self.supply.replace(opened)
            return ExecutorError(call.task, self.name, f"it is broken: {error_text(error)}")
        if isinstance(error, BrokenExecutor) and opened.is_ended:
            return _NotBegun()
        if isinstance(error, BrokenExecutor):
            return self._of_broken(opened, call.task, error, alone=alone)
        return what_went_wrong(opened.executor, self.name, call, values, definition, error)

    def _of_remote(self, call: Call, definition: TaskDef, error: RemoteFailure) -> Exception:
        """What a call has failed with that came to a worker."""
        raised = error.unpacked(call.task)
        if error.task not in {call.task, None}:
            return self._lost(error.task, call.task, raised)
        if error.part is None:
            return raised
        if error.part == FUNCTION and call.function.fall_back():
            # The worker has it not, as one under the guard of `__main__`: by value, then.
            return _NotBegun()
        part = part_name(error.part, call, definition)
        return not_picklable(call.task, self.name, part, error_text(raised), raised)

    async def _can_begin(self, definition: TaskDef, *, alone: bool) -> Opened:
        """The executor, once it is open and, but for suspects, there are none any more."""
        while True:
            if self._suspects and not alone:
                with time_stopped(definition.timeout):
                    await self._unsuspected.wait()
            elif self.supply.opened is None:
                await self.supply.open(definition.name)
                # It is there now, but what is so now may be another thing after that.
                restart(definition.timeout)
            else:
                return self.supply.opened

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
            call = call._replace(function=call.function.far(), key=opened.key())
        if opened.dumps is not None:
            if definition.timeout is not None and opened.prefetches:
                call = call._replace(expires=monotonic() + time_left())
            once = opened.is_local
            call, values = packed_call(
                opened.dumps, self.name, call, values, definition, keep=keep, once=once
            )
        try:
            future = (opened.keep if keep else opened.submit)(carry_out, call, *values)
        except Exception as error:
            # Python 3.11 may stumble over what is closed already.
            is_broken = isinstance(error, BrokenExecutor) or opened.is_broken()
            # Under other calls, which will hear of it, or under none: that happens once.
            can_go_on = is_broken and self.supply.can_replace
            if can_go_on and (opened.broke() or not has_refused):
                self.supply.replace(opened)
                return None
            executor = opened.executor
            blamed = what_cannot_go(executor, self.name, call, values, definition, error)
            if blamed is None:
                reason = f"it did not take the call: {error_text(error)}"
                if is_broken and not self.supply.can_replace:
                    reason = f"{reason} {self._stays_broken()}"
                raise ExecutorError(call.task, self.name, reason) from error
            raise blamed from error
        if not hasattr(future, "add_done_callback") or future in opened.in_flight:
            reason = (
                f"its submit() returned {shown(future)}, and has to return a Future of each call."
            )
            raise ExecutorError(call.task, self.name, reason)
        opened.note(future, call.task)
        if opened.is_broken():
            # It broke meanwhile, and may say so to nobody.
            opened.broke()
        return future

    def _stays_broken(self) -> str:
        return (
            "It is broken now. So that it can be replaced, give a function that makes it, as in "
            f"executors={{{self.name!r}: lambda: ProcessPoolExecutor(2)}}."
        )

    def _give_up(self, opened: Opened, future: Future[Any], task: str) -> None:
        """A call is to end that nobody waits for any more."""
        if future.cancel() or future.done():
            return
        stop: Callable[[Future[Any]], bool] | None = getattr(opened.executor, "stop", None)
        if stop is not None and stop(future):
            return
        what_now = "It goes on by itself."
        if self.supply.can_replace:
            what_now = "The executor is replaced, and shut down when nobody waits for what it has."
            self.supply.replace(opened)
            opened.give_up(future)
        logger().warning(
            "Task %r was cancelled, by its timeout or with its run, and is in the executor %r, "
            "which cannot stop it. %s",
            *(task, self.name, what_now),
        )

    def _of_broken(
        self, opened: Opened, task: str, error: BrokenExecutor, *, alone: bool
    ) -> Exception:
        """What a call has failed with whose executor broke under it."""
        failure: Exception
        if getattr(opened.executor, "isolates", False):
            is_told = isinstance(error, WorkerEnded)
            failure = WorkerDiedError(task, self.name, [task], str(error) if is_told else "")
            failure.__cause__ = error.__cause__ if is_told else error
            return failure
        running = opened.broke()
        if not self.supply.can_replace:
            failure = WorkerDiedError(task, self.name, running, self._stays_broken())
        else:
            self.supply.replace(opened)
            is_suspect = len(running) > 1 and not alone
            failure = _Suspected() if is_suspect else WorkerDiedError(task, self.name, running)
        failure.__cause__ = error
        return failure
