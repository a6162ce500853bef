"""`TaskScheduler`: the face of it all."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from anyio import Event

from ._backend import loop_clock
from ._checks import as_callables, as_capacity, as_executors, as_flag, as_limit, shown
from ._dataflow import checked_inputs
from ._engine import Run
from ._errors import ResourceError, UnknownExecutorError, nearest_names
from ._events import Observer, wanted_by
from ._formats import render
from ._graph import Graph, distinct
from ._hooks import AttemptHook
from ._preparing import Settings, prepared
from ._registry import TaskRegistry, default_registry
from ._resources import executor_resource
from ._results import RunRecord, RunResults, TaskStatus
from ._state import FailurePolicy
from ._tasks import THREAD, TaskDef, TaskLike, as_names, definition_of

if TYPE_CHECKING:
    # Imported where they are needed: a program that does not ask should not pay for the answer.
    from concurrent.futures import Executor

    from ._pools import Pools
    from .analysis.breakdown import Breakdown
    from .analysis.explanation import Explanation
    from .analysis.plan import Plan

StartOrder = Literal["priority", "reverse", "shuffle"]
"""How ready tasks are started: by priority, or, to test a graph, backwards or at random."""


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
        resources: how many units there are of each thing that tasks hold while they run, as in
            `{"db": 4, "gpu": 1}`. Each run has as many for itself.
        on_failure: what a task that has failed for good means for the rest: CONTINUE runs
            everything that does not depend on it, DRAIN starts nothing new, CANCEL cancels what
            is running too.
        inherit_priority: whether what a more urgent task waits for counts as that urgent.
        executors: where tasks with an `executor` run, by name: any `concurrent.futures.Executor`,
            which stays yours, or a function that makes one, as in
            `{"cpu": lambda: ProcessPoolExecutor(4)}`. That one is opened when a run first needs it,
            replaced if it breaks, and shut down at the end of the run. "process", "interpreter"
            (from Python 3.14 on) and "thread" are there by themselves.
        keep_results: whether the results of all tasks are kept to the end. If not, the result of
            one that others take by parameter is let go as soon as the last of them has it.
        observers: callables that are told what happens, event by event, at once and in order; one
            whose class has an attribute `wants`, a tuple of events, is told these alone.
        attempt_hooks: callables of a task's definition and the number of an attempt; each returns
            an async context manager that is entered around that attempt.

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
        resources: Mapping[str, int] | None = None,
        on_failure: FailurePolicy = FailurePolicy.CONTINUE,
        inherit_priority: bool = False,
        keep_results: bool = True,
        executors: "Mapping[str, Executor | Callable[[], Executor]] | None" = None,
        observers: Iterable[Observer] = (),
        attempt_hooks: Iterable[AttemptHook] = (),
    ) -> None:
        self._tasks = _snapshot(tasks)
        self._settings = Settings(
            max_concurrency=as_limit(max_concurrency),
            resources=as_capacity(resources),
            on_failure=_as_policy(on_failure),
            inherit_priority=as_flag("inherit_priority", inherit_priority),
            keep_results=as_flag("keep_results", keep_results),
            executors=as_executors(executors),
            observers=as_callables("observers", observers),
            attempt_hooks=as_callables("attempt_hooks", attempt_hooks),
        )
        for observer in self.observers:
            wanted_by(observer)
        # Of the executors that have been opened before.
        self._known_workers: dict[str, int | None] = {}
        self._graph: Graph | None = None
        # The targets of the run begun last, and their graph: most programs ask for the same again.
        self._subset: tuple[tuple[str, ...], Graph] | None = None
        self._record: RunRecord | None = None
        self._runs: list[Run] = []
        # Set at the end of each, which is there once its executors are shut down.
        self._ends: list[Event] = []

    @property
    def resources(self) -> dict[str, int]:
        """How many units there are of each thing that tasks hold."""
        return dict(self._settings.resources)

    @property
    def observers(self) -> tuple[Observer, ...]:
        """Who is told of every event of a run."""
        return self._settings.observers

    def with_settings(
        self, *, observers: Iterable[Observer] = (), **changes: Any
    ) -> "TaskScheduler":
        """A new scheduler of the same tasks, with some settings changed.

        Args:
            observers: they are told in addition to those that it has.
            changes: other parameters of `TaskScheduler`, by name.

        Raises:
            TypeError, ValueError: a setting is not what it should be.

        >>> from portable_sched import TaskRegistry, TaskScheduler
        >>> scheduler = TaskScheduler(TaskRegistry(), resources={"db": 4})
        >>> slow = scheduler.with_settings(max_concurrency=1)
        """
        settings = {name: getattr(self._settings, name) for name in Settings.__slots__}
        told = (*self.observers, *as_callables("observers", observers))
        other = TaskScheduler(self._tasks, **{**settings, "observers": told, **changes})
        if changes.keys().isdisjoint({"inherit_priority", "resources", "executors"}):
            # Nothing that it was built by or checked against is another.
            other._graph = self._graph
        return other

    @property
    def tasks(self) -> tuple[TaskDef, ...]:
        """The tasks it was built with, in the order of their registration."""
        return self._tasks

    @property
    def graph(self) -> Graph:
        """What would run: the validated graph, worked out when it is first asked for.

        Its `order`, `levels()` and `critical_path()` tell how; `graph.subset(["report"])` is what
        `run(targets=["report"])` would run.

        Raises:
            DependencyError: a task depends on a name that no task bears, or asks for resources
                that there are not, or is to run in an executor that there is not.
            CyclicDependencyError: tasks depend on each other in a circle.
        """
        if self._graph is None:
            graph = Graph(self._tasks, inherit_priority=self._settings.inherit_priority)
            self._refuse_what_there_is_not(graph)
            self._graph = graph
        return self._graph

    async def run(
        self,
        targets: Iterable[TaskLike] | None = None,
        *,
        inputs: Mapping[str, object] | None = None,
        order: StartOrder = "priority",
        seed: int | None = None,
    ) -> RunResults:
        """Run every task, and return how each of them ended.

        Tasks that fail do not make it raise: what they raised is in the results. An empty graph
        gives empty results. If the run is cancelled from outside, running tasks are cancelled,
        the cancellation goes on, and `results` has what there is by then.

        Args:
            targets: names or decorated functions: only these tasks run, and what they need. What
                they come `after` is no need of theirs.
            inputs: values for parameters that no task fills, by their name, for this run alone.
            order: "priority", or, to find dependencies that nobody declared, "reverse" or
                "shuffle": then ready tasks start in another order, whatever their priority. What
                passes by priority and fails shuffled depends on more than it says.
            seed: makes "shuffle" repeatable; one is drawn where it is left out. The report has it.

        Raises:
            DependencyError, CyclicDependencyError: the graph cannot be run; nothing was started.
                `ParameterError` where nothing fills a parameter, `InputError` where an input is
                not asked for, `UnknownTargetError` where there is no such target.
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
        wanted: tuple[str, ...] = ()
        if targets is not None:
            wanted = as_names("run()", "targets", targets)
            if self._subset is None or self._subset[0] != wanted:
                self._subset = wanted, graph.subset(wanted)
            graph = self._subset[1]
        inputs = _as_inputs(inputs)
        checked_inputs(inputs, self.graph.numbers, self.graph.inputs, graph.inputs)
        graph, order_text = _reordered(graph, order, seed)
        clock = loop_clock()
        pools = self._pools_of(graph)
        run = prepared(graph, self._settings, inputs, wanted, pools, clock)
        self._record = record = run.state.record
        record.order = order_text
        over = Event()
        self._ends.append(over)
        try:
            async with pools or nullcontext():
                self._runs.append(run)
                try:
                    await run.carry_out()
                finally:
                    self._runs.remove(run)
        finally:
            self._ends.remove(over)
            over.set()
        return RunResults(record)

    def _pools_of(self, graph: Graph) -> "Pools | None":
        """The executors of a run; None where no task has one."""
        if not graph.executors:
            return None
        from ._pools import Pools  # noqa: PLC0415 - who does not ask does not pay
        from ._standard_executors import refuse_in_worker_that_starts  # noqa: PLC0415 - as above

        refuse_in_worker_that_starts()
        return Pools(self._settings.executors, self._known_workers)

    def _refuse_what_there_is_not(self, graph: Graph) -> None:
        self._refuse_unknown_executors(graph)
        for number in graph.special:
            definition = graph.tasks[number]
            for resource, units in definition.resources:
                available = self._settings.resources.get(resource)
                if available is None:
                    nearest = nearest_names(resource, list(self._settings.resources))
                    raise ResourceError(definition.name, resource, units, nearest=nearest)
                if units > available:
                    raise ResourceError(definition.name, resource, units, available)

    def _refuse_unknown_executors(self, graph: Graph) -> None:
        if not graph.executors:
            return
        from ._standard_executors import executors_of  # noqa: PLC0415 - who does not ask does not pay

        known = [*executors_of(self._settings.executors), THREAD]
        unknown = graph.executors - set(known)
        for definition in graph.tasks:
            if definition.executor in unknown:
                nearest = nearest_names(definition.executor, known)
                raise UnknownExecutorError(definition.name, definition.executor, known, nearest)

    def stop(self) -> None:
        """Let the runs under way come to an end: nothing new starts, what is running ends.

        What has not started is CANCELLED, and a task that waits for another attempt has FAILED.
        At the second call what is still running is cancelled. Call it from the event loop's
        thread; a task or an observer may do so too. Without a run under way it does nothing.
        """
        for run in list(self._runs):
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

    def report(
        self,
        results: RunResults | None = None,
        format: str = "text",  # noqa: A002 - what it is
        **options: Any,
    ) -> str:
        """What ran, as text: by default a table of name, status, attempts, duration, error.

        Args:
            results: what `run()` returned; the results of the run begun last where left out.
            format: "text", "json", "html", "junit", "trace", "mermaid" or "dot".
            options: what that format takes, as `verbose=True` for "text".

        Raises:
            TypeError: `results` is something else.
            ValueError: there is no such format.
        """
        return render(self._results_of(results), format, **options)

    def explain(self, task: TaskLike) -> "Explanation":
        """Why a task of the run begun last waits, did not run, or what it is doing; at any moment.

        `str()` makes a sentence of it.

        Args:
            task: its name or its decorated function.

        Raises:
            KeyError: the run has no task of that name.
            RuntimeError: nothing has been run yet.
        """
        from .analysis.explanation import explain  # noqa: PLC0415 - who does not ask does not pay

        results = self.results
        (name,) = as_names("explain()", "task", [task])
        live = [run for run in self._runs if run.state.record is self._record]
        now = live[0].clock() - results.started_at if live else None
        return explain(results, name, now)

    def breakdown(self, results: RunResults | None = None) -> "Breakdown":
        """Where the time of a run went: what each task waited for, and which set the wall time.

        `str()` makes a few lines of it, the last of which is advice.

        Args:
            results: what `run()` returned; the results of the run begun last where left out.

        Raises:
            TypeError: `results` is something else.
        """
        from .analysis.breakdown import breakdown  # noqa: PLC0415 - who does not ask does not pay

        return breakdown(self._results_of(results))

    def plan(
        self,
        max_concurrency: Iterable[int | None] | int | None = (1, 2, 4, 8, 16, None),
        *,
        seconds: RunResults | Mapping[str, float] | None = None,
        targets: Iterable[TaskLike] | None = None,
    ) -> "Plan":
        """What a run would take at each limit, by simulation: no task's function is called.

        Args:
            max_concurrency: the limits to try.
            seconds: the results of an earlier run, or seconds by task name. Of the other tasks the
                `estimate` counts, else the average of what is known, else one second.
            targets: as for `run()`.

        Raises:
            DependencyError, CyclicDependencyError: the graph cannot be run.
            TypeError, ValueError: an argument is not what it should be.

        >>> from portable_sched import TaskRegistry, TaskScheduler
        >>> registry = TaskRegistry()
        >>> for name in ["north", "east", "south"]:
        ...     @registry.task(name, estimate=10)
        ...     async def crawl() -> None: ...
        >>> print(TaskScheduler(registry).plan([1, 2, 3]))
        max_concurrency  takes  at least  busy
                      1   30 s      30 s   1.0
                      2   20 s      15 s   1.5
                      3   10 s      10 s   3.0  <- more gains less than 5 %
        longest path 10 s, work of all tasks 30 s
        """
        from .analysis.plan import known_seconds, planned  # noqa: PLC0415 - who does not ask does not pay

        graph = self.graph
        if targets is not None:
            graph = graph.subset(as_names("plan()", "targets", targets))
        limits = max_concurrency if isinstance(max_concurrency, Iterable) else [max_concurrency]
        known = known_seconds(seconds)
        known_units = {
            executor_resource(name): workers
            for name, workers in self._known_workers.items()
            if workers
        }
        capacity = {**known_units, **self._settings.resources}
        return planned(graph, list(map(as_limit, limits)), capacity, known)

    def _results_of(self, results: object) -> RunResults:
        """What was passed as results, if it is that; those of the run begun last if nothing was."""
        if results is None:
            return self.results
        if inspect.iscoroutine(results):
            results.close()
            raise TypeError(
                "Expected the results of a run, got a coroutine: run() was called and not "
                "awaited. Write results = await scheduler.run(), or "
                "results = asyncio.run(scheduler.run())."
            )
        if not isinstance(results, RunResults):
            raise TypeError(
                f"Expected the results of a run, got {shown(results)}. Pass what scheduler.run() "
                "returned."
            )
        return results

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
        """Cancel the runs that are still under way, and wait for their end."""
        for run in list(self._runs):
            run.cancel()
        for over in list(self._ends):
            await over.wait()


def _snapshot(tasks: object) -> tuple[TaskDef, ...]:
    if tasks is None:
        return tuple(default_registry)
    if isinstance(tasks, TaskRegistry):
        return tuple(tasks)
    if isinstance(tasks, str | bytes) or not isinstance(tasks, Iterable):
        raise TypeError(
            "Expected tasks to be a TaskRegistry or a list of decorated functions, got "
            f"{shown(tasks)}."
        )
    return distinct(map(_as_definition, tasks))


def _as_definition(given: object) -> TaskDef:
    if isinstance(given, TaskDef):
        return given
    if not callable(given):
        raise TypeError(
            "Expected tasks to be a TaskRegistry or a list of decorated functions, got "
            f"{shown(given)} in the list. Pass the function itself, or registry[name]."
        )
    return definition_of(given)


def _as_policy(on_failure: object) -> FailurePolicy:
    if not isinstance(on_failure, FailurePolicy):
        raise TypeError(
            "Expected on_failure to be FailurePolicy.CONTINUE, FailurePolicy.DRAIN or "
            f"FailurePolicy.CANCEL, got {shown(on_failure)}."
        )
    return on_failure


def _as_inputs(inputs: object) -> Mapping[str, object]:
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "Expected inputs to be a mapping of names to values, as in inputs={'date': d}, got "
            f"{shown(inputs)}."
        )
    return dict(inputs)


def _reordered(graph: Graph, order: object, seed: object) -> tuple[Graph, str]:
    """The graph with the start order that was asked for, and how a report names that order."""
    if seed is not None and (type(seed) is not int or order != "shuffle"):
        raise TypeError(
            "Expected seed to be a whole number, together with order='shuffle', got "
            f"{shown(seed)} with order={order!r}."
        )
    if order == "priority":
        return graph, ""
    if order == "reverse":
        return graph.reordered(reversed(graph.by_place)), "reverse"
    if order == "shuffle":
        # Here for the sake of our import time, as in `Backoff.delay`.
        from random import Random  # noqa: PLC0415

        drawn = Random().randrange(2**32) if seed is None else seed  # noqa: S311 - it keeps no secret
        by_place = list(graph.by_place)
        Random(drawn).shuffle(by_place)  # noqa: S311 - it keeps no secret
        return graph.reordered(by_place), f"shuffle, seed {drawn}"
    raise ValueError(
        f"Expected order to be 'priority', 'reverse' or 'shuffle', got {shown(order)}."
    )
