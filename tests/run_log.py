"""Tasks that write down what happens to them: the lines of the log, and who writes them.

What a run did can be judged by its log, without a look at the engine: `run_checker` does that.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from types import CodeType
from typing import Any, Literal

import anyio
from anyio.lowlevel import cancel_shielded_checkpoint, checkpoint
from naive import defined, is_lifetime

from portable_sched import Event, NoRetry, TaskDef, TaskScheduler
from portable_sched._backend import loop_clock

# After so many turns of the loop everyone knows of a cancellation. trio takes two to cancel whoever
# is in a checkpoint; an attempt that ends before that, unhindered, is followed by the next one.
SETTLING = 3

# No random run takes as long as this; one that hangs is cancelled then, and virtual time gets there
# at once.
WATCHDOG = 10_000

# The input of a run, and the value of a parameter that nothing fills.
DAY = 7
DEFAULT = "as it is"

Ending = Literal["returned", "failed", "gave up", "cancelled itself", "was cancelled"]


@dataclass(frozen=True, slots=True)
class Entered:
    """`run()` is about to be called."""

    at: float


@dataclass(frozen=True, slots=True)
class Started:
    """An attempt begins.

    Attributes:
        name: name of the task.
        attempt: which attempt, from 1.
        at: when.
        given: the values of its parameters.
    """

    name: str
    attempt: int
    at: float
    given: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Ended:
    """An attempt ends; that of a lifetime, at its `yield`.

    Attributes:
        name: name of the task.
        how: it returned a result, raised something after which it may try again ("failed") or may
            not ("gave up"), raised a cancellation that came from nobody, or was cancelled.
        at: when.
        outcome: what it returned or raised.
        interrupted: it has been cancelled on the way, by a scope of its own, or in an async task of
            its own. The run needs a turn of the loop to know how it ended.
        late: its time was up.
    """

    name: str
    how: Ending
    at: float
    outcome: Any = None
    interrupted: bool = False
    late: bool = False


@dataclass(frozen=True, slots=True)
class Closing:
    """The teardown of a lifetime begins.

    Attributes:
        name: name of the task.
        at: when.
        broken: its `yield` has raised something.
    """

    name: str
    at: float
    broken: bool = False


@dataclass(frozen=True, slots=True)
class Closed:
    """The teardown of a lifetime ends, as an attempt does."""

    name: str
    how: Ending
    at: float
    outcome: Any = None


@dataclass(frozen=True, slots=True)
class Seen:
    """An observer has been told of something."""

    event: Event
    at: float


@dataclass(frozen=True, slots=True)
class Stopped:
    """Someone is about to call `stop()`."""

    at: float


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Someone has cancelled the run from outside; the event loop has not been through it yet."""

    at: float


@dataclass(frozen=True, slots=True)
class Settled:
    """The event loop has been through it: whatever waited has got its cancellation."""

    at: float


@dataclass(frozen=True, slots=True)
class Left:
    """`run()` has returned, or raised."""

    at: float


Line = Entered | Started | Ended | Closing | Closed | Seen | Stopped | Cancelled | Settled | Left

Step = Literal[
    "suspend", "sleep", "sleep long", "spawn", "nest", "interrupt", "clean up", "swallow", "stop"
]

Failing = Literal["error", "other error", "give up", "group", "no error", "cancellation"]


@dataclass(frozen=True)
class Body:
    """What a task's function does, attempt for attempt the same.

    Attributes:
        steps: what it goes through before it ends.
        failing: how many attempts fail, counted from the first.
        how: they fail by an `Exception`, by another one, by `NoRetry`, a group of them from a child
            task, something that is no `Exception`, or a cancellation that comes from nobody.
        teardown: what a lifetime goes through after its `yield`.
        fails_to_close: whether its teardown fails then.
        breaks: whether something in it fails after two seconds, while it is open.
        takes: of the tasks that it waits for, those of which it has a parameter.
        tacit: whether it depends on them by these parameters alone.
        by_keyword: whether the parameters are keyword-only.
        takes_input: whether it takes an input of the run.
        keeps_default: a task of which it has a parameter that nothing is to fill.
    """

    steps: tuple[Step, ...]
    failing: int
    how: Failing
    teardown: tuple[Step, ...] = ()
    fails_to_close: bool = False
    breaks: bool = False
    takes: frozenset[str] = frozenset()
    tacit: bool = False
    by_keyword: bool = False
    takes_input: bool = False
    keeps_default: str | None = None

    def taken_by(self, definition: TaskDef) -> frozenset[str]:
        """The tasks whose results the task takes."""
        return self.takes.intersection((*definition.depends_on, *definition.after))


class NoError(BaseException):
    """Neither an error nor a cancellation: there is no other attempt after it."""


@dataclass(frozen=True)
class Interference:
    """Who comes between: after so many seconds, and then so many turns of the loop.

    "native" is `asyncio.Task.cancel()`, as asyncio's own programs do it; trio knows scopes alone.
    "timeout" is a scope with a deadline, and for virtual time only.
    """

    what: Literal["stop", "scope", "native", "timeout"]
    moment: float
    turns: int = 0


class Theatre:
    """Tasks that do what their bodies say, and write it down.

    Attributes:
        log: what they wrote.
        sleep: how they sleep. Where no clock jumps, a nap is a few turns of the loop.
        clock: what the event loop goes by; threads may read it too.
        stops: the numbers, from 1, of the events at which the observer calls `stop()`.
    """

    def __init__(self, *, virtual_time: bool, stops: Iterable[int] = ()) -> None:
        self.log: list[Line] = []
        self.virtual_time = virtual_time
        self.sleep: Callable[[float], Awaitable[None]] = (
            anyio.sleep if virtual_time else _turns_of_the_loop
        )
        self.clock = loop_clock()
        self.stops = frozenset(stops)
        self.seen = 0
        self.scheduler: TaskScheduler | None = None

    def observe(self, event: Event) -> None:
        """An observer that writes down what it is told."""
        self.log.append(Seen(event, self.clock()))
        self.seen += 1
        if self.seen in self.stops:
            self.stop()

    def task(self, definition: TaskDef, body: Body) -> TaskDef:
        """The task, with an async function, or a lifetime, that does what the body says."""
        play = (_Lifetime if is_lifetime(definition) else _Attempts)(self, definition, body).play
        return _with_function(definition, body, play)

    def thread_task(self, definition: TaskDef, body: Body) -> TaskDef:
        """The task as a plain function, which runs in a thread."""
        return _with_function(definition, body, _Attempts(self, definition, body).play_in_thread)

    async def take(self, step: Step) -> None:
        if step == "suspend":
            await checkpoint()
        elif step == "sleep":
            await self.sleep(1)
        elif step == "sleep long":
            await self.sleep(5)
        elif step == "spawn":
            async with anyio.create_task_group() as group:
                group.start_soon(self.sleep, 2)
                group.start_soon(checkpoint)
        elif step == "nest":
            await self.nest()
        elif step == "interrupt":
            with anyio.CancelScope() as scope:
                scope.cancel()
                await checkpoint()
        elif step == "clean up":
            try:
                await self.sleep(3)
            finally:
                with anyio.CancelScope(shield=True):
                    await self.sleep(2)
        elif step == "stop":
            self.stop()
        else:
            try:
                await self.sleep(3)
            except anyio.get_cancelled_exc_class():
                pass

    async def nest(self) -> None:
        """A run inside a task."""
        inner = Theatre(virtual_time=self.virtual_time)
        a = inner.task(defined("a"), Body(("sleep",), 0, "error"))
        b = inner.task(defined("b", "a", retries=2), Body(("suspend",), 1, "error"))
        results = await TaskScheduler([a, b], max_concurrency=1).run()
        assert [("a", 1), ("b", 2)] == [result.result for result in results]

    def stop(self) -> None:
        if self.scheduler is not None and self.has_been_entered() and not self.has_been_left():
            self.log.append(Stopped(self.clock()))
            self.scheduler.stop()

    async def run(self, scheduler: TaskScheduler, **asked: Any) -> None:
        self.scheduler = scheduler
        self.log.append(Entered(self.clock()))
        try:
            await scheduler.run(**asked)
        finally:
            self.log.append(Left(self.clock()))

    async def run_with(
        self, scheduler: TaskScheduler, interferences: Iterable[Interference] = (), **asked: Any
    ) -> None:
        """Run it, while others come between. A run that hangs is a `TimeoutError`."""
        with anyio.fail_after(WATCHDOG if self.virtual_time else 60):
            async with anyio.create_task_group() as group:
                scope = anyio.CancelScope()
                cancel: Callable[[], object] = scope.cancel
                run = self.run(scheduler, **asked)
                on_asyncio = anyio.get_cancelled_exc_class() is asyncio.CancelledError
                runner: asyncio.Future[None] | None = None
                if on_asyncio and any(one.what == "native" for one in interferences):
                    runner = asyncio.ensure_future(run)
                    cancel = runner.cancel
                for one in interferences:
                    if one.what == "timeout":
                        scope.deadline = self.clock() + one.moment
                    else:
                        group.start_soon(self.interfere, one, cancel)
                if runner is not None:
                    await asyncio.wait([runner])
                    if not runner.cancelled():
                        runner.result()
                else:
                    with scope:
                        await run
                group.cancel_scope.cancel()
        self._write_deadline(scope.deadline)

    async def interfere(self, one: Interference, cancel: Callable[[], object]) -> None:
        await self.sleep(one.moment)
        await _turns_of_the_loop(one.turns)
        while not self.has_been_entered():
            await checkpoint()
        if one.what == "stop":
            self.stop()
            return
        if self.has_been_left():
            return
        self.log.append(Cancelled(self.clock()))
        cancel()
        for _ in range(SETTLING):
            await cancel_shielded_checkpoint()
        if not self.has_been_left():
            self.log.append(Settled(self.clock()))

    def has_been_entered(self) -> bool:
        return any(isinstance(line, Entered) for line in self.log)

    def has_been_left(self) -> bool:
        return any(isinstance(line, Left) for line in self.log)

    def _write_deadline(self, deadline: float) -> None:
        """Nobody writes when a deadline has passed; it was before all else of that moment."""
        for at, line in enumerate(self.log):
            if line.at >= deadline:
                self.log.insert(max(at, 1), Cancelled(deadline))
                return


class _Attempts:
    """All attempts of one task."""

    def __init__(self, theatre: Theatre, definition: TaskDef, body: Body) -> None:
        self.theatre = theatre
        self.name = definition.name
        self.timeout = definition.timeout
        self.attempts = count(1)
        if self.timeout is not None and body.how in {"no error", "cancellation"}:
            # Those leave a task before it can be said to be late.
            body = replace(body, how="error")
        self.body = body

    def write(self, *lines: Line) -> None:
        self.theatre.log += lines

    def end(self, began: float, how: Ending, outcome: object = None) -> None:
        now = self.theatre.clock()
        late = False
        if self.timeout is not None:
            # Where the clock is real, whoever has a timeout waits for it.
            late = now >= began + self.timeout if self.theatre.virtual_time else True
        interrupted = (
            late
            or "interrupt" in self.body.steps
            or (how != "returned" and self.body.how in {"group", "cancellation"})
        )
        self.write(Ended(self.name, how, now, outcome, interrupted, late))

    async def play(self, given: Mapping[str, Any]) -> tuple[str, int]:
        attempt = next(self.attempts)
        began = self.theatre.clock()
        self.write(Started(self.name, attempt, began, given))
        await self.perform(attempt, began)
        self.end(began, "returned", (self.name, attempt))
        return self.name, attempt

    async def perform(self, attempt: int, began: float) -> None:
        body = self.body
        try:
            if self.timeout is not None and not self.theatre.virtual_time:
                await anyio.sleep_forever()
            for step in body.steps:
                await self.theatre.take(step)
            if attempt <= body.failing:
                await _fail(self.name, body.how)
        except anyio.get_cancelled_exc_class() as error:
            itself = attempt <= body.failing and body.how == "cancellation"
            self.end(began, "cancelled itself" if itself else "was cancelled", error)
            raise
        except NoRetry as error:
            self.end(began, "gave up", error)
            raise
        except Exception as error:
            self.end(began, "failed", error)
            raise
        except BaseException as error:
            self.end(began, "gave up", error)
            raise

    def play_in_thread(self, given: Mapping[str, Any]) -> tuple[str, int]:
        attempt = next(self.attempts)
        began = self.theatre.clock()
        self.write(Started(self.name, attempt, began, given))
        for _ in self.body.steps:
            # To keep the thread while the loop goes on with others.
            anyio.from_thread.run(checkpoint)
        if attempt > self.body.failing:
            self.end(began, "returned", (self.name, attempt))
            return self.name, attempt
        if self.body.how == "no error":
            error: BaseException = NoError(self.name)
            self.end(began, "gave up", error)
        else:
            error = ValueError(self.name)
            self.end(began, "failed", error)
        raise error


class _Lifetime(_Attempts):
    """All attempts of a lifetime."""

    def end(self, began: float, how: Ending, outcome: object = None) -> None:
        super().end(began, how, outcome)
        [*_, ended] = self.theatre.log
        # It is in an async task of its own, and the run hears of it when that has been resumed.
        self.theatre.log[-1] = replace(ended, interrupted=True)

    @asynccontextmanager
    async def play(self, given: Mapping[str, Any]) -> AsyncIterator[tuple[str, int]]:
        attempt = next(self.attempts)
        clock = self.theatre.clock
        began = clock()
        self.write(Started(self.name, attempt, began, given))
        await self.perform(attempt, began)
        with self.closing():
            async with self.breaking():
                self.end(began, "returned", (self.name, attempt))
                try:
                    yield self.name, attempt
                except BaseException:
                    self.write(Closing(self.name, clock(), broken=True))
                    raise
                self.write(Closing(self.name, clock()))
            for step in self.body.teardown:
                await self.theatre.take(step)
            if self.body.fails_to_close:
                raise ValueError(f"teardown of {self.name}")

    @contextmanager
    def closing(self) -> Iterator[None]:
        clock = self.theatre.clock
        try:
            yield
        except anyio.get_cancelled_exc_class() as error:
            self.write(Closed(self.name, "was cancelled", clock(), error))
            raise
        except BaseException as error:
            self.write(Closed(self.name, "failed", clock(), error))
            raise
        self.write(Closed(self.name, "returned", clock()))

    @asynccontextmanager
    async def breaking(self) -> AsyncIterator[None]:
        """A task group around the `yield`, with something in it that fails; or nothing."""
        if not self.body.breaks:
            yield
            return
        async with anyio.create_task_group() as group:
            group.start_soon(self.break_it)
            yield
            group.cancel_scope.cancel()

    async def break_it(self) -> None:
        await self.theatre.sleep(2)
        raise ValueError(f"something in {self.name}")


async def _turns_of_the_loop(seconds: float) -> None:
    for _ in range(int(seconds)):
        await checkpoint()


async def _fail(name: str, how: Failing) -> None:
    if how == "error":
        raise ValueError(name)
    if how == "other error":
        raise KeyError(name)
    if how == "give up":
        raise NoRetry(name)
    if how == "no error":
        raise NoError(name)
    if how == "cancellation":
        with anyio.CancelScope() as scope:
            scope.cancel()
            try:
                await checkpoint()
            except BaseException as error:
                kept = error
                raise
        raise kept
    async with anyio.create_task_group() as group:
        group.start_soon(_fail, name, "error")
        group.start_soon(anyio.sleep_forever)


# Parameters are found by their names, so a function with these parameters has to be written.
_SOURCES = {
    "async": "async def task({parameters}): return await play({given})",
    "lifetime": "async def task({parameters}):\n  async with play({given}) as value: yield value",
    "thread": "def task({parameters}): return play({given})",
}


@cache
def _code(kind: str, names: tuple[str, ...], default: str | None, *, by_keyword: bool) -> CodeType:
    parameters = [*names, *([f"{default}={DEFAULT!r}"] if default else [])]
    if by_keyword and parameters:
        parameters.insert(0, "*")
    named = [*names, *([default] if default else [])]
    given = f"dict({', '.join(f'{name}={name}' for name in named)})"
    source = _SOURCES[kind].format(parameters=", ".join(parameters), given=given)
    return compile(source, __file__, "exec")


def _with_function(
    definition: TaskDef,
    body: Body,
    play: Callable[[Mapping[str, Any]], Any | AbstractAsyncContextManager[Any]],
) -> TaskDef:
    """The task with a function that has the body's parameters and plays it."""
    taken = body.taken_by(definition)
    names = (*sorted(taken), *(["day"] if body.takes_input else []))
    default = body.keeps_default
    if default in names or default == definition.name:
        default = None
    kind = "async"
    if is_lifetime(definition):
        kind = "lifetime"
    elif getattr(play, "__func__", None) is _Attempts.play_in_thread:
        kind = "thread"
    namespace: dict[str, Any] = {"play": play, "__name__": __name__}
    exec(_code(kind, names, default, by_keyword=body.by_keyword), namespace)
    depends_on = definition.depends_on
    if body.tacit:
        depends_on = [name for name in depends_on if name not in taken]
    return replace(definition, function=namespace["task"], depends_on=depends_on, parameters=None)
