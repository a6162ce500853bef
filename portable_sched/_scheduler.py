"""`TaskScheduler`: the face of it all."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import compress
from types import TracebackType
from typing import Any, Final, Self

from ._checks import check_units, shown
from ._engine import Run, loop_clock
from ._errors import DuplicateTaskError, ParameterError, ResourceError, did_you_mean, nearest_names
from ._events import Announcer, Observer
from ._executors import Argument, AttemptHook, entries_of, fill, hooked
from ._graph import Graph
from ._results import RunRecord, RunResults, TaskStatus
from ._state import Demand, FailurePolicy, ResourceState, RunState
from ._tasks import TaskDef, TaskRegistry, as_names, default_registry, definition_of
from ._watch import WatchedResourceState, WatchedState

_MOST_THREADS: Final = 40
"""Threads of one run where `max_concurrency` does not say."""

# Threads are a resource like others, under a name that no user can give.
_THREAD: Final = ""


class TaskScheduler:
    """Runs a graph of tasks, with as much concurrency as the graph allows.

    It takes a snapshot of the tasks when it is built; what is registered later is not part of it.
    It can run any number of times, also at once, in any event loop: each run has a state of its
    own. With several runs under way, `results` and `status_snapshot()` show the one begun last.

    Args:
        tasks: a registry, or definitions and decorated functions; everything in the default
            registry where it is left out.
        max_concurrency: how many tasks may be inside their functions at one time; None for as
            many as are ready. Plain functions run in threads, of which a run without a limit
            uses 40.
        on_failure: what a task that has failed for good means for the rest: CONTINUE runs
            everything that does not depend on it, DRAIN starts nothing new, CANCEL cancels what
            is running too.
        resources: how many units there are of each thing that tasks hold while they run, as in
            `{"db": 4, "gpu": 1}`.
        observers: callables that are told what happens, event by event, at once and in order.
        attempt_hooks: callables of a task's definition and the number of an attempt; each returns
            an async context manager that is entered around that attempt.
        inherit_priority: whether what a more urgent task needs counts as that urgent.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
        DuplicateTaskError: `tasks` has two definitions of one name.

    >>> import asyncio
    >>> from portable_sched import TaskRegistry, TaskScheduler
    >>> registry = TaskRegistry()
    >>> @registry.task
    ... async def greet() -> str:
    ...     return "hello"
    >>> results = asyncio.run(TaskScheduler(registry).run())
    >>> results[greet].result
    'hello'
    """

    def __init__(
        self,
        tasks: Iterable[TaskDef | Callable[..., object]] | None = None,
        *,
        max_concurrency: int | None = None,
        on_failure: FailurePolicy = FailurePolicy.CONTINUE,
        inherit_priority: bool = False,
        resources: Mapping[str, int] | None = None,
        observers: Iterable[Observer] = (),
        attempt_hooks: Iterable[AttemptHook] = (),
    ) -> None:
        self._tasks = _snapshot(tasks)
        self._policy = _checked_policy(on_failure)
        self._observers = _checked_callables("observers", observers)
        self._hooks = _checked_callables("attempt_hooks", attempt_hooks)
        self._resources = _checked_resources(resources)
        self._inherit_priority = _checked_flag("inherit_priority", inherit_priority)
        self._limit = _checked_limit(max_concurrency)
        self._graph: Graph | None = None
        self._record: RunRecord | None = None
        self._runs: set[Run] = set()

    @property
    def graph(self) -> Graph:
        """What would run: the validated graph, worked out when it is first asked for.

        Raises:
            DependencyError: a task depends on a name that no task bears.
            CyclicDependencyError: tasks depend on each other in a circle.
        """
        if self._graph is None:
            self._graph = Graph(self._tasks, inherit_priority=self._inherit_priority)
        return self._graph

    async def run(
        self,
        targets: Iterable[str | Callable[..., object]] | None = None,
        *,
        inputs: Mapping[str, object] | None = None,
    ) -> RunResults:
        """Run every task, and return how each of them ended.

        Tasks that fail do not make it raise: what they raised is in the results. An empty graph
        gives empty results. If the run is cancelled from outside, running tasks are cancelled,
        the cancellation goes on, and `results` has what there is by then.

        Args:
            targets: names or decorated functions; only these tasks run, and what they need.
            inputs: values for parameters that no task fills, by their name, for this run alone.

        Raises:
            DependencyError, CyclicDependencyError: the graph cannot be run; nothing was started.
                `ParameterError` where a parameter stays unfilled.
            ValueError: an input has the name of a task, or no parameter takes it.
            KeyboardInterrupt, SystemExit: a task raised it; the other tasks were cancelled.

        >>> import asyncio
        >>> from portable_sched import TaskRegistry, TaskScheduler
        >>> registry = TaskRegistry()
        >>> @registry.task
        ... async def fetch(date: str) -> str:
        ...     return f"rows of {date}"
        >>> @registry.task
        ... async def count(fetch: str) -> int:
        ...     return len(fetch)
        >>> scheduler = TaskScheduler(registry)
        >>> results = asyncio.run(scheduler.run(inputs={"date": "2026-01-01"}))
        >>> results[count].result
        18
        """
        graph = self.graph
        if targets is not None:
            needed = graph.needed_for(as_names("run()", "targets", targets))
            graph = Graph(needed, inherit_priority=self._inherit_priority)
        values = _checked_inputs(graph, inputs)
        clock = loop_clock()
        entries, needs_thread, lifetimes = entries_of(graph.tasks)
        demands, capacity = self._demands(graph, needs_thread)
        state: RunState
        if self._observers:
            watched = (
                WatchedResourceState(graph, clock(), demands, capacity, self._policy)
                if demands
                else WatchedState(graph, clock(), self._policy)
            )
            watched.watch(Announcer(self._observers))
            state = watched
        elif demands:
            state = ResourceState(graph, clock(), demands, capacity, self._policy)
        else:
            state = RunState(graph, clock(), self._policy)
        for number, arguments in _arguments(graph, state.record, values).items():
            entries[number] = fill(entries[number], arguments)
        if self._hooks:
            muted: set[AttemptHook] = set()
            for number, definition in enumerate(graph.tasks):
                attempt = partial(state.record.attempt_of, number)
                entries[number] = hooked(entries[number], self._hooks, definition, attempt, muted)
        run = Run(state, entries, self._limit or len(graph), clock, lifetimes)
        self._record = state.record
        self._runs.add(run)
        try:
            await run.carry_out()
        finally:
            self._runs.discard(run)
        return RunResults(state.record)

    def _demands(
        self, graph: Graph, needs_thread: list[bool]
    ) -> tuple[list[Demand], dict[str, int]]:
        """What each task holds while it runs, and how much there is; nothing if none holds any."""
        demands: list[Demand] = [definition.resources for definition in graph.tasks]
        # Where there is a limit, it covers threads too, and there is nothing more to count.
        count_threads = self._limit is None and any(needs_thread)
        if demands.count(()) == len(demands) and not count_threads:
            return [], {}
        for definition in graph.tasks:
            for resource, units in definition.resources:
                available = self._resources.get(resource)
                if available is None:
                    nearest = nearest_names(resource, list(self._resources))
                    raise ResourceError(definition.name, resource, units, nearest=nearest)
                if units > available:
                    raise ResourceError(definition.name, resource, units, available)
        if count_threads:
            for number in compress(range(len(demands)), needs_thread):
                demands[number] = (*demands[number], (_THREAD, 1))
        return demands, {**self._resources, _THREAD: _MOST_THREADS}

    def stop(self) -> None:
        """Let the runs under way come to an end: nothing new starts, what is running ends.

        What has not started is CANCELLED, and a task that waits for another attempt has FAILED.
        At the second call what is still running is cancelled. Call it from the event loop's
        thread; a task may call it too. Without a run under way it does nothing.
        """
        for run in self._runs:
            run.stop()

    @property
    def results(self) -> RunResults:
        """The results of the run begun last, also while it goes on and after it was cancelled.

        Raises:
            RuntimeError: nothing has been run yet.
        """
        if self._record is None:
            raise RuntimeError(
                "Expected results of a run, but nothing has been run yet. Await scheduler.run() "
                "first."
            )
        return RunResults(self._record)

    def status_snapshot(self) -> Iterator[tuple[str, TaskStatus]]:
        """Each task's name and status, of the run begun last, in topological order.

        It can be asked at any moment, also from inside a task. Before the first run every task is
        PENDING.

        >>> from portable_sched import TaskRegistry, TaskScheduler
        >>> registry = TaskRegistry()
        >>> @registry.task
        ... async def fetch() -> None: ...
        >>> list(TaskScheduler(registry).status_snapshot())
        [('fetch', TaskStatus.PENDING)]
        """
        if self._record is not None:
            yield from self._record.statuses()
        else:
            for definition in self.graph.tasks:
                yield definition.name, TaskStatus.PENDING

    def report(self, results: RunResults | None = None) -> str:
        """A plain-text table of what ran: name, status, attempts, duration in seconds, error.

        Args:
            results: what `run()` returned; the results of the run begun last where left out.

        Raises:
            TypeError: `results` is something else.
        """
        # Here, because a program that prints no report should not pay for importing one.
        from .reporting.text import text_report  # noqa: PLC0415

        if results is None:
            results = self.results
        if inspect.iscoroutine(results):
            results.close()
            raise TypeError(
                "Expected the results of a run, got a coroutine: run() was called and not "
                "awaited. Write results = await scheduler.run(), or "
                "results = asyncio.run(scheduler.run())."
            )
        if not isinstance(results, RunResults):
            raise TypeError(
                f"Expected the results of a run, got {type(results).__name__}. Pass what "
                "scheduler.run() returned."
            )
        return text_report(results)

    async def __aenter__(self) -> Self:
        """Validate the graph, so that a wrong one is refused before the block begins.

        Raises:
            DependencyError, CyclicDependencyError: the graph cannot be run.
        """
        _ = self.graph
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Cancel the runs that are still under way: nothing outlives the block."""
        for run in self._runs:
            run.cancel()


def _snapshot(tasks: object) -> tuple[TaskDef, ...]:
    if tasks is None:
        return tuple(default_registry)
    if isinstance(tasks, TaskRegistry):
        return tuple(tasks)
    if isinstance(tasks, str) or not isinstance(tasks, Iterable):
        raise TypeError(
            "Expected tasks to be a TaskRegistry or a list of decorated functions, got "
            f"{tasks!r} ({type(tasks).__name__})."
        )
    definitions: dict[str, TaskDef] = {}
    given: Any
    for given in tasks:
        definition = given if isinstance(given, TaskDef) else definition_of(given)
        existing = definitions.setdefault(definition.name, definition)
        if existing is not definition:
            raise DuplicateTaskError.between(
                definition.name, existing.function, definition.function
            )
    return tuple(definitions.values())


def _checked_inputs(graph: Graph, inputs: object) -> Mapping[str, object]:
    """The inputs of a run, once every parameter is filled and every input is taken."""
    if inputs is None:
        inputs = {}
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "Expected inputs to be a mapping of names to values, as in inputs={'date': d}, got "
            f"{shown(inputs)}."
        )
    for name in inputs:
        if name in graph.numbers:
            raise ValueError(
                f"The input {name!r} has the name of a task. Give one of them another name."
            )
        if name not in graph.inputs:
            nearest = did_you_mean(nearest_names(str(name), list(graph.inputs)))
            raise ValueError(f"The input {name!r} is taken by no parameter of a task.{nearest}")
    for name, asking in graph.inputs.items():
        if name not in inputs:
            raise ParameterError(asking[0], name, nearest_names(name, [*graph.numbers, *inputs]))
    return inputs


def _arguments(
    graph: Graph, record: RunRecord, inputs: Mapping[str, object]
) -> dict[int, list[Argument]]:
    """What fills the parameters of each task that has some, for one run."""
    arguments: dict[int, list[Argument]] = {}
    for number, sources in graph.sources.items():
        after = graph.tasks[number].after
        filled: list[Argument] = []
        for parameter, source in sources:
            keyword = None if parameter.by_position else parameter.name
            if source is None:
                filled.append((keyword, partial(inputs.__getitem__, parameter.name)))
            elif graph.tasks[source].name in after:
                filled.append((keyword, partial(record.result_of, source)))
            else:
                filled.append((keyword, partial(record.results.__getitem__, source)))
        arguments[number] = filled
    return arguments


def _checked_resources(resources: object) -> dict[str, int]:
    if resources is None:
        return {}
    if not isinstance(resources, Mapping) or not all(
        isinstance(resource, str) and resource for resource in resources
    ):
        raise TypeError(
            "Expected resources to be a mapping of names to units, as in resources={'db': 4}, got "
            f"{shown(resources)}."
        )
    for resource, units in resources.items():
        check_units("TaskScheduler", resource, units)
    return dict(resources)


def _checked_callables(field: str, given: object) -> tuple[Callable[..., Any], ...]:
    message = f"Expected {field} to be a list of callables, got {shown(given)}."
    if not isinstance(given, Iterable) or isinstance(given, str):
        raise TypeError(f"{message} Write {field}=[...].")
    callables = tuple(given)
    for one in callables:
        if not callable(one) or isinstance(one, type):
            raise TypeError(f"Expected {field} to be a list of callables, got {shown(one)} in it.")
    return callables


def _checked_flag(field: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"Expected {field} to be True or False, got {shown(value)}.")
    return value


def _checked_policy(on_failure: object) -> FailurePolicy:
    if not isinstance(on_failure, FailurePolicy):
        raise TypeError(
            "Expected on_failure to be FailurePolicy.CONTINUE, FailurePolicy.DRAIN or "
            f"FailurePolicy.CANCEL, got {on_failure!r}."
        )
    return on_failure


def _checked_limit(max_concurrency: object) -> int | None:
    if max_concurrency is None:
        return None
    message = (
        "Expected max_concurrency to be a whole number of at least 1, or None for no limit, got "
        f"{max_concurrency!r}."
    )
    if type(max_concurrency) is not int:
        raise TypeError(message)
    if max_concurrency < 1:
        raise ValueError(message)
    return max_concurrency
