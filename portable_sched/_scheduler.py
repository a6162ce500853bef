"""`TaskScheduler`: the face of it all."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import Final, Self

from anyio import Event

from ._engine import Run, loop_clock
from ._executors import entries_of
from ._graph import Graph, distinct
from ._results import RunRecord, RunResults, TaskStatus
from ._state import RunState, ThreadedState
from ._tasks import TaskDef, TaskRegistry, default_registry, definition_of, shown

_MOST_THREADS: Final = 40
"""Threads of one run where `max_concurrency` does not say."""


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
    ) -> None:
        self._tasks = _snapshot(tasks)
        self._limit = _checked_limit(max_concurrency)
        self._graph: Graph | None = None
        self._record: RunRecord | None = None
        self._runs: dict[Run, Event] = {}

    @property
    def graph(self) -> Graph:
        """What would run: the validated graph, worked out when it is first asked for.

        Raises:
            DependencyError: a task depends on a name that no task bears.
            CyclicDependencyError: tasks depend on each other in a circle.
        """
        if self._graph is None:
            self._graph = Graph(self._tasks)
        return self._graph

    async def run(self) -> RunResults:
        """Run every task, and return how each of them ended.

        Tasks that fail do not make it raise: what they raised is in the results. An empty graph
        gives empty results. If the run is cancelled from outside, running tasks are cancelled,
        the cancellation goes on, and `results` has what there is by then.

        Raises:
            DependencyError, CyclicDependencyError: the graph cannot be run; nothing was started.
            KeyboardInterrupt, SystemExit: a task raised it; the other tasks were cancelled.
        """
        graph = self.graph
        entries, needs_thread = entries_of(graph.tasks)
        clock = loop_clock()
        # Where the limit covers threads too, there is nothing more to count.
        if self._limit is None and sum(needs_thread) > _MOST_THREADS:
            state: RunState = ThreadedState(graph, clock(), needs_thread, _MOST_THREADS)
        else:
            state = RunState(graph, clock())
        run = Run(state, entries, self._limit or len(graph), clock)
        self._record = state.record
        self._runs[run] = Event()
        try:
            await run.carry_out()
        finally:
            self._runs.pop(run).set()
        return RunResults(state.record)

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
                f"Expected the results of a run, got {shown(results)}. Pass what scheduler.run() "
                "returned."
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
        """Cancel the runs that are still under way, and wait for their end."""
        for run in self._runs:
            run.cancel()
        for ended in list(self._runs.values()):
            await ended.wait()


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
