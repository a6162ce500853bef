"""For tests of your own graphs: run them without waiting, with failures and durations as planned.

>>> from portable_sched import TaskRegistry
>>> from portable_sched.testing import Recorder, run_graph
>>> registry = TaskRegistry()
>>> @registry.task(retries=3)
... async def fetch() -> bytes:
...     raise OSError("no network in tests")
>>> @registry.task
... async def load(fetch: bytes) -> int:
...     return len(fetch)
>>> recorder = Recorder()
>>> results = run_graph(
...     registry,
...     replace={"fetch": lambda: b"rows"},
...     fail={"fetch": [1, 2]},
...     seconds={"fetch": 3600},
...     observers=[recorder],
... )
>>> results[load].result, results[fetch].attempts, results.wall_time
(4, 3, 10800.0)
>>> assert recorder.ended_before("fetch", "load")
"""

import asyncio
import inspect
import selectors
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import replace as changed
from functools import partial
from math import inf
from typing import Any, Literal

import anyio
from anyio.lowlevel import current_token

from portable_sched import (
    Backoff,
    Event,
    Parameter,
    RunResults,
    TaskCancelled,
    TaskCompleted,
    TaskDef,
    TaskEvent,
    TaskFailed,
    TaskScheduler,
    TaskStarted,
)
from portable_sched._contract import ExecutorReport, check_executor
from portable_sched._tasks import TaskLike, as_names

__all__ = [
    "ExecutorReport",
    "Finding",
    "PlannedFailure",
    "Recorder",
    "VirtualTimeLoop",
    "check_executor",
    "run_graph",
]


class PlannedFailure(Exception):  # noqa: N818 - it is no error, it is the plan
    """What an attempt raises that was planned to fail.

    Attributes:
        task: name of the task.
        attempt: which attempt it was, from 1.
    """

    def __init__(self, task: str, attempt: int) -> None:
        super().__init__(task, attempt)
        self.task = task
        self.attempt = attempt

    def __str__(self) -> str:
        return f"Attempt {self.attempt} of task {self.task!r} was planned to fail."


@dataclass(frozen=True, slots=True, repr=False)
class Finding:
    """What a `Recorder` answers: true or false in an `assert`, and telling where it fails.

    Attributes:
        holds: whether it is so.
        seen: what was seen, as a sentence.
    """

    holds: bool
    seen: str

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return f"<{'Yes' if self.holds else 'No'}: {self.seen}>"


class Recorder:
    """An observer that keeps what happened, and answers what a test would ask.

    Give it to a scheduler, or to `run_graph`, as `observers=[recorder]`. It records one run at a
    time; a new one for each run is the simplest.

    Attributes:
        events: everything that happened, in order.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        self.events.append(event)

    @property
    def started(self) -> list[str]:
        """The names of the tasks that were started, in their order."""
        return [event.task for event in self.events if isinstance(event, TaskStarted)]

    @property
    def ended(self) -> list[str]:
        """The names of the tasks that have ended, however and started or not, in their order."""
        ends = (TaskCompleted, TaskFailed, TaskCancelled)
        return list(dict.fromkeys(event.task for event in self.events if isinstance(event, ends)))

    def of(self, task: TaskLike) -> list[TaskEvent]:
        """What happened to one task, in order."""
        name = _name(task)
        return [
            event for event in self.events if isinstance(event, TaskEvent) and event.task == name
        ]

    def started_before(self, one: TaskLike, other: TaskLike) -> Finding:
        """Whether `one` was started before `other`, or `other` not at all."""
        return _before("started", self.started, _name(one), _name(other))

    def ended_before(self, one: TaskLike, other: TaskLike) -> Finding:
        """Whether `one` had ended, however, before `other` was started."""
        name, later = _name(one), _name(other)
        moments = [
            f"{event.task} {'started' if isinstance(event, TaskStarted) else 'ended'}"
            for event in self.events
            if isinstance(event, (TaskStarted, TaskCompleted, TaskFailed, TaskCancelled))
        ]
        return _in_order(moments, f"{name} ended", f"{later} started")

    def overlapped(self, one: TaskLike, other: TaskLike) -> Finding:
        """Whether the two tasks were RUNNING at the same time."""
        first, second = _name(one), _name(other)
        if not (first in self.started and second in self.started):
            return Finding(holds=False, seen=f"{first!r} and {second!r} were not both started")
        apart = self.ended_before(first, second) or self.ended_before(second, first)
        return Finding(
            holds=not apart,
            seen=apart.seen if apart else f"{first!r} and {second!r} ran at the same time",
        )


def run_graph(
    tasks: Iterable[TaskDef | Callable[..., object]] | None = None,
    *,
    targets: Iterable[TaskLike] | None = None,
    inputs: Mapping[str, object] | None = None,
    order: Literal["priority", "reverse", "shuffle"] = "priority",
    seed: int | None = None,
    replace: Mapping[Any, Callable[..., object]] | None = None,
    fail: Mapping[Any, Iterable[int] | Mapping[int, BaseException]] | None = None,
    seconds: Mapping[Any, float] | None = None,
    virtual_time: bool = True,
    backend: Literal["asyncio", "trio"] = "asyncio",
    **settings: Any,
) -> RunResults:
    """Run a graph for a test, and return its results: a plain function, for any kind of test.

    In virtual time nothing waits: whenever everything sleeps, the clock jumps to whatever is due
    next, so an hour of backoff takes no time, and the durations in the results are exact. Two such
    runs of one graph on one backend go the same way; a `Backoff` has no jitter. Plain functions are
    called in the event loop, one at a time, since a clock that jumps waits for no thread. Tasks
    with an executor run as if they had none.

    It may also be called from inside an async test: it runs in a thread of its own then.

    Args:
        tasks: as for `TaskScheduler`.
        targets: as for `TaskScheduler.run`; and so `inputs`, `order` and `seed`.
        inputs: see there.
        order: see there.
        seed: see there.
        replace: functions to call in place of those of some tasks, by name or decorated function.
            Everything else about the tasks stays as it is, what they depend on included; a
            replacement takes any of the parameters, or none.
        fail: for some tasks the attempts that fail, from 1: a list of them, which fail with
            `PlannedFailure`, or a mapping to what they raise, as in `{1: ConnectionError()}`, for
            tasks that say with `retry_on` what is worth another attempt.
        seconds: for some tasks how long each attempt takes, before its function is called.
        virtual_time: whether the clock jumps.
        backend: which event loop it runs in.
        settings: what else `TaskScheduler` takes.

    Raises:
        KeyError: `replace`, `fail` or `seconds` names a task that there is not.
    """
    given = TaskScheduler(tasks, **settings)
    scheduler = TaskScheduler([changed(one, executor=None) for one in given.tasks], **settings)
    plan = _Plan(
        replace=_by_name("replace", replace, scheduler),
        fail={
            name: _as_attempts(name, given)
            for name, given in _by_name("fail", fail, scheduler).items()
        },
        seconds={
            name: _as_seconds(name, given)
            for name, given in _by_name("seconds", seconds, scheduler).items()
        },
        virtual=virtual_time,
    )
    planned = TaskScheduler(plan.of(scheduler), **settings)
    if inputs is not None:
        # What only replaced functions took is given all the same, as in production.
        dropped = scheduler.graph.inputs.keys() - planned.graph.inputs.keys()
        inputs = {name: value for name, value in inputs.items() if name not in dropped}
    main = partial(planned.run, targets, inputs=inputs, order=order, seed=seed)
    run = partial(_run_on, backend, main, virtual_time=virtual_time)
    try:
        current_token()
        in_event_loop = True
    except RuntimeError:
        in_event_loop = False
    # Not in the handler, or all that tasks raise would get it as its context.
    if not in_event_loop:
        return run()
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(run).result()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What `run_graph` was told about the tasks."""

    replace: Mapping[str, Callable[..., object]]
    fail: Mapping[str, Mapping[int, BaseException]]
    seconds: Mapping[str, float]
    virtual: bool

    def of(self, scheduler: TaskScheduler) -> list[TaskDef]:
        """The definitions that go by the plan."""
        graph = scheduler.graph
        planned = []
        for definition in scheduler.tasks:
            other = self.replace.get(definition.name)
            if other is None:
                planned.append(self._planned(definition))
                continue
            needed = graph.dependencies[graph.numbers[definition.name]]
            names = tuple([graph.tasks[number].name for number in needed])
            planned.append(self._planned(_replaced(definition, other, names)))
        return planned

    def _planned(self, definition: TaskDef) -> TaskDef:
        name = definition.name
        if self.virtual and isinstance(definition.backoff, Backoff):
            definition = changed(definition, backoff=changed(definition.backoff, jitter=0))
        in_thread = not (definition.is_async() or definition.is_lifetime())
        if not (name in self.fail or name in self.seconds or (in_thread and self.virtual)):
            return definition
        function = definition.function
        step = _Step(self.fail.get(name, {}), self.seconds.get(name, 0))
        if definition.is_lifetime():
            lifetime = _planned_lifetime(step, function)
            return changed(definition, function=lifetime)

        if in_thread and not self.virtual:

            def plain(*args: Any, **kwargs: Any) -> Any:
                time.sleep(step.seconds)
                step.fail_as_planned()
                return function(*args, **kwargs)

            return changed(definition, function=plain)

        async def planned(*args: Any, **kwargs: Any) -> Any:
            await step.take()
            returned = function(*args, **kwargs)
            return await returned if inspect.isawaitable(returned) else returned

        return changed(definition, function=planned)


class _Step:
    """What comes before the function of one task, attempt by attempt."""

    def __init__(self, fails: Mapping[int, BaseException], seconds: float) -> None:
        self._fails = fails
        self._attempt = 0
        self.seconds = seconds

    async def take(self) -> None:
        if self.seconds:
            await anyio.sleep(self.seconds)
        self.fail_as_planned()

    def fail_as_planned(self) -> None:
        self._attempt += 1
        if self._attempt in self._fails:
            raise self._fails[self._attempt]


def _planned_lifetime(step: _Step, function: Callable[..., Any]) -> Callable[..., Any]:
    """A lifetime that goes by the plan and is else, step by step, what `function` is."""

    async def lifetime(*args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        await step.take()
        body = function(*args, **kwargs)
        resumed = anext(body)
        while True:
            try:
                value = await resumed
            except StopAsyncIteration:
                return
            try:
                yield value
            except GeneratorExit:
                await body.aclose()
                raise
            except BaseException as error:  # noqa: BLE001 - the body's own
                resumed = body.athrow(error)
            else:
                resumed = anext(body)

    return lifetime


def _replaced(
    definition: TaskDef, function: Callable[..., object], depends_on: tuple[str, ...]
) -> TaskDef:
    """The definition with another function, which may take any of its parameters, or none."""
    marks = {parameter.name: parameter.result_of for parameter in definition.parameters}

    def as_before(parameter: Parameter) -> Parameter:
        mark = parameter.result_of or marks.get(parameter.name)
        return changed(parameter, result_of=mark) if mark is not None else parameter

    parameters = TaskDef(name=definition.name, function=function).parameters
    return changed(
        definition,
        function=function,
        depends_on=depends_on,
        parameters=tuple(map(as_before, parameters)),
    )


def _by_name(
    field: str, given: Mapping[Any, Any] | None, scheduler: TaskScheduler
) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(
            f"Expected {field} to be a mapping of tasks, by name or function, got {given!r}."
        )
    by_name = {_name(task): value for task, value in given.items()}
    known = [definition.name for definition in scheduler.tasks]
    for name in by_name:
        if name not in known:
            raise KeyError(f"run_graph: {field} names {name!r}, and there is no such task: {known}")
    return by_name


def _as_attempts(name: str, attempts: object) -> dict[int, BaseException]:
    message = (
        f"Task {name!r}: expected the attempts that fail to be a list of whole numbers from 1, as "
        f"in fail={{{name!r}: [1, 2]}}, or a mapping of them to exceptions, got {attempts!r}."
    )
    if isinstance(attempts, str | bytes) or not isinstance(attempts, Iterable):
        raise TypeError(message)
    numbers = list(attempts)
    if not all(type(number) is int for number in numbers):
        raise TypeError(message)
    if not all(number >= 1 for number in numbers):
        raise ValueError(message)
    if not isinstance(attempts, Mapping):
        return {number: PlannedFailure(name, number) for number in numbers}
    if not all(isinstance(failure, BaseException) for failure in attempts.values()):
        raise TypeError(message)
    return dict(attempts)


def _as_seconds(name: str, seconds: object) -> float:
    message = f"Task {name!r}: expected its seconds to be a number of at least 0, got {seconds!r}."
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        raise TypeError(message)
    if not 0 <= seconds < inf:
        raise ValueError(message)
    return seconds


def _name(task: TaskLike) -> str:
    [name] = as_names("testing", "task", [task])
    return name


def _before(what: str, names: list[str], one: str, other: str) -> Finding:
    return _in_order([f"{name} {what}" for name in names], f"{one} {what}", f"{other} {what}")


def _in_order(moments: list[str], one: str, other: str) -> Finding:
    if one not in moments:
        return Finding(holds=False, seen=f"{one!r} did not happen")
    if other not in moments:
        return Finding(holds=True, seen=f"{one!r} happened, and {other!r} did not")
    holds = moments.index(one) < moments.index(other)
    first, second = (one, other) if holds else (other, one)
    return Finding(holds=holds, seen=f"{first!r} came before {second!r}")


def _run_on(backend: str, main: Callable[[], Any], *, virtual_time: bool) -> RunResults:
    results: RunResults
    if backend == "asyncio":
        options = {"loop_factory": VirtualTimeLoop} if virtual_time else {}
        results = anyio.run(main, backend="asyncio", backend_options=options)
        return results
    if backend != "trio":
        raise ValueError(f"Expected backend to be 'asyncio' or 'trio', got {backend!r}.")
    try:
        import trio.testing  # noqa: PLC0415 - not everybody has it
    except ImportError as error:
        raise ImportError(
            "backend='trio' needs trio: pip install 'portable_sched[trio]'."
        ) from error
    # Not through anyio, whose older versions drop the options, and with them the clock.
    if not virtual_time:
        results = trio.run(main)
        return results
    with _without_chance(trio):
        results = trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))
    return results


@contextmanager
def _without_chance(trio: Any) -> Iterator[None]:
    """Keep trio from running what is due at one moment in random order.

    It has a switch for that, which is not public; where that has gone, only the order of events
    within one moment is left to chance.
    """
    inside: Any = getattr(trio._core, "_run", None)  # noqa: SLF001 - see above
    before = getattr(inside, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    if before is None:  # pragma: no cover - a trio that is yet to come
        yield
        return
    chance = inside._r.getstate()  # noqa: SLF001 - see above
    inside._ALLOW_DETERMINISTIC_SCHEDULING = True  # noqa: SLF001 - see above
    inside._r.seed(0)  # noqa: SLF001 - see above
    try:
        yield
    finally:
        inside._ALLOW_DETERMINISTIC_SCHEDULING = before  # noqa: SLF001 - see above
        inside._r.setstate(chance)  # noqa: SLF001 - see above


class _JumpingSelector(selectors.DefaultSelector):
    """Never sleeps: it moves the loop's clock on by what the loop wanted to sleep."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            # Nothing is due, so only another thread could wake the loop. Wait for it.
            return super().select(None)
        events = super().select(0)
        if not events:
            self.now += timeout
        return events


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """An asyncio event loop whose clock jumps to the next timer instead of waiting for it.

    Its time begins at 0. For tests that run the event loop themselves:
    `asyncio.Runner(loop_factory=VirtualTimeLoop)`.
    """

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made, most of them never waited for."""
        return self._jumping.now
