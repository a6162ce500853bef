"""What happens in a run, as traces and metrics of OpenTelemetry.

    from portable_sched.otel import Telemetry

    telemetry = Telemetry()
    scheduler = TaskScheduler(observers=[telemetry], attempt_hooks=[telemetry])

One object stands in both lists: as an observer it hears what begins and ends, and makes the spans;
as a hook it makes the span of an attempt current inside the function. So what the function adds to
the current span is in the right place, and so are the spans of whatever is instrumented: httpx,
SQLAlchemy. It needs the API of OpenTelemetry alone, and does nothing until the program has set up
an SDK.
"""

from collections import Counter
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from time import time_ns
from typing import Any, ClassVar, Final, overload

from portable_sched import (
    AttemptCancelled,
    AttemptCompleted,
    AttemptEnded,
    AttemptFailed,
    AttemptStarted,
    DependencyFailedError,
    Event,
    RunFinished,
    RunResults,
    RunStarted,
    TaskCancelled,
    TaskClosed,
    TaskCompleted,
    TaskDef,
    TaskEvent,
    TaskFailed,
    TaskResult,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
    TaskStatus,
)
from portable_sched._errors import error_text, full_name

try:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider, get_meter
    from opentelemetry.trace import (
        INVALID_SPAN,
        Link,
        Span,
        StatusCode,
        TracerProvider,
        get_tracer,
        set_span_in_context,
    )
except ImportError as _missing:
    raise ImportError(
        "portable_sched.otel needs opentelemetry-api, which is not installed: "
        "pip install 'portable_sched[otel]'"
    ) from _missing

from portable_sched._current_span import current

__all__ = ["Telemetry"]

_NAME: Final = "portable_sched"
_TASK_NAME: Final = "portable_sched.task.name"
_TASK_STATUS: Final = "portable_sched.task.status"
_ATTEMPT: Final = "portable_sched.task.attempt"
_ATTEMPT_STATUS: Final = "portable_sched.attempt.status"
_RUN_STATUS: Final = "portable_sched.run.status"
_ERROR_TYPE: Final = "error.type"

_WAITING: Final = {"portable_sched.task.state": "waiting"}
_RUNNING: Final = {"portable_sched.task.state": "running"}

# Seconds. The SDK's own are meant for milliseconds; tasks take from those to hours.
_BOUNDARIES: Final = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
    *(60, 120, 300, 600, 1800, 3600, 7200, 21600),
)


class Telemetry:
    """An observer and an attempt hook that traces and measures runs.

    Put it into both lists: `TaskScheduler(observers=[telemetry], attempt_hooks=[telemetry])`. One
    object serves any number of schedulers and of runs, also at once and inside each other.

    *Spans.* They are of kind INTERNAL.

    | name             | parent                        | links                                    |
    |------------------|-------------------------------|------------------------------------------|
    | `run graph`      | what is current at `run()`    |                                          |
    | `run {task}`     | the run                       | to what the task depends on or comes     |
    |                  |                               | after, each with its task name           |
    | `attempt {task}` | the task                      |                                          |

    Inside a function the span of its attempt is current, in threads and in the workers of
    executors too (as `traceparent`, by the propagators of OpenTelemetry). In a task that yields it
    is the span of the task, which goes on until the teardown is over. A run inside a task is a
    child of what is current there. A task that was not started has no span.

    An attempt that fails has the exception as an event, status ERROR and `error.type`; a task has
    the latter two only if it has failed for good, and a `portable_sched.task.retrying` event for
    each further attempt; a run has them if a task has failed. What was cancelled is no error.

    | attribute                                         | on                                     |
    |---------------------------------------------------|----------------------------------------|
    | `portable_sched.task.name`                        | tasks, attempts                        |
    | `portable_sched.task.attempt` (from 1)            | attempts, retrying events              |
    | `portable_sched.task.delay` (seconds)             | retrying events                        |
    | `portable_sched.task.priority` (`HIGH`)           | tasks                                  |
    | `portable_sched.task.retries`                     | tasks: how many attempts there may be  |
    | `portable_sched.task.attempts`                    | tasks: how many there were             |
    | `portable_sched.task.status` (`COMPLETED`,        | tasks; and so `...attempt.status` on   |
    | `FAILED`, `CANCELLED`)                            | attempts, `...run.status` on runs      |
    | `portable_sched.run.tasks`, `...run.completed`,   | runs                                   |
    | `...run.failed`, `...run.cancelled`               |                                        |
    | `portable_sched.run.max_concurrency`              | runs that have a limit                 |
    | `code.function.name`                              | tasks, attempts                        |
    | `error.type`                                      | whatever has failed                    |

    *Metrics.* Statuses and `error.type` are as above.

    | name, unit                            | what it is                       | attributes        |
    |---------------------------------------|----------------------------------|-------------------|
    | `portable_sched.task.active`, {task}  | up-down counter: tasks that wait | `...task.state`:  |
    |                                       | for a slot or another attempt,   | `waiting` or      |
    |                                       | and those in their function      | `running`         |
    | `portable_sched.task.ended`, {task}   | counter: tasks that have ended,  | status,           |
    |                                       | those that were not started too  | `error.type`      |
    | `portable_sched.task.duration`, s     | histogram: tasks that started    | the same          |
    | `portable_sched.attempt.duration`, s  | histogram                        | the same          |
    | `portable_sched.run.duration`, s      | histogram                        | the same          |

    Task names are part of the spans' names, so name tasks for what they do, and leave what differs
    from run to run to their inputs. They are no attributes of metrics unless you ask for it: each
    name is a time series more for every status.

    Args:
        tracer_provider: where spans go; the global provider where it is left out, also one that
            is set later.
        meter_provider: where metrics go, likewise.
        metrics_by_task: whether the durations of tasks and attempts have the name of the task as
            an attribute, for graphs whose names are few and stay the same.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        metrics_by_task: bool = False,
    ) -> None:
        self._by_task = metrics_by_task
        self._tracer = get_tracer(_NAME, _version(), tracer_provider)
        meter = get_meter(_NAME, _version() or "", meter_provider)
        self._active = meter.create_up_down_counter(
            "portable_sched.task.active", "{task}", "Tasks that wait for a slot, or have one."
        )
        self._ended = meter.create_counter(
            "portable_sched.task.ended", "{task}", "Tasks that have ended, started or not."
        )
        seconds = partial(meter.create_histogram, explicit_bucket_boundaries_advisory=_BOUNDARIES)
        self._task_duration = seconds("portable_sched.task.duration", "s", "What a task took.")
        self._attempt_duration = seconds("portable_sched.attempt.duration", "s", "One attempt.")
        self._run_duration = seconds("portable_sched.run.duration", "s", "What a run took.")

    @overload
    def __call__(self, event: Event, /) -> None: ...
    @overload
    def __call__(
        self, definition: TaskDef, attempt: int, /
    ) -> AbstractAsyncContextManager[None]: ...
    def __call__(self, given: Any, *_: int) -> AbstractAsyncContextManager[None] | None:
        if isinstance(given, TaskDef):
            return self._around(given)
        if isinstance(given, RunStarted):
            self._run_started(given)
            return None
        hear = self._ABOUT.get(type(given))
        run = self._run()
        # Without a run: `stop()` was called from outside all runs. What it has ended is found in
        # the results when the run is over.
        if hear is not None and run is not None:
            hear(self, run, given)
        return None

    def _run(self) -> "_Run | None":
        """The run that the current context belongs to, the innermost one."""
        run = _CURRENT.get()
        while run is not None and (run.owner is not self or run.is_over):
            run = run.outer
        return run

    def _around(self, definition: TaskDef) -> AbstractAsyncContextManager[None]:
        run = self._run()
        if run is None:
            raise RuntimeError(
                "Telemetry is in attempt_hooks and not in observers, so that it does not know of "
                "the run. Write TaskScheduler(observers=[telemetry], attempt_hooks=[telemetry])."
            )
        task = run.tasks.get(definition.name)
        span = run.span if task is None else task.inside
        return current(span, goes_far=definition.executor is not None)

    def _run_started(self, event: RunStarted) -> None:
        run = _Run(self, _not_over(_CURRENT.get()), event.results)
        # Workers are spawned from this context and attempts copy theirs: so the hook finds the run,
        # and so do we when we are told of it. It is set back at the end of the run.
        _CURRENT.set(run)
        attributes: dict[str, str | int] = {"portable_sched.run.tasks": len(event.tasks)}
        if event.results.max_concurrency is not None:
            attributes["portable_sched.run.max_concurrency"] = event.results.max_concurrency
        run.span = self._tracer.start_span("run graph", attributes=attributes, start_time=time_ns())
        run.context = set_span_in_context(run.span)

    def _run_finished(self, run: "_Run", event: RunFinished) -> None:
        try:
            for name in list(run.tasks):
                since = event.at - _end_of(run.results[name])
                self._end_task(run, name, time_ns() - round(since * 1e9))
            if run.waiting:
                self._active.add(-len(run.waiting), _WAITING)
            self._count_what_was_not_started(run)
            self._end_run(run)
        finally:
            run.forget()
            # Of several telemetries, the first to hear of the start is the first to hear of the
            # end too, so what is current may be another one's.
            _CURRENT.set(_not_over(_CURRENT.get()))

    def _count_what_was_not_started(self, run: "_Run") -> None:
        # Here, and not one by one: there may be ten thousand, and they end all at once.
        for status, count in run.results.counts().items():
            failed = DependencyFailedError if status is TaskStatus.FAILED else None
            if count > run.ended[status]:
                self._ended.add(count - run.ended[status], _outcome(_TASK_STATUS, status, failed))

    def _end_run(self, run: "_Run") -> None:
        counts = run.results.counts()
        # The worst of them, so the last one here that there is.
        ends = [TaskStatus.COMPLETED, TaskStatus.CANCELLED, TaskStatus.FAILED]
        status = [ends[0], *(one for one in ends if one in counts)][-1]
        attributes = {_RUN_STATUS: status.value}
        if status is TaskStatus.FAILED:
            attributes[_ERROR_TYPE] = run.error_type or "_OTHER"
            description = f"{counts[status]} of {len(run.results)} tasks have failed."
            run.span.set_status(StatusCode.ERROR, description)
        self._run_duration.record(run.results.wall_time, attributes, run.context)
        numbers = {f"{_NAME}.run.{one.value.lower()}": counts.get(one, 0) for one in ends}
        run.span.set_attributes({**attributes, **numbers})
        run.span.end(time_ns())

    def _scheduled(self, run: "_Run", event: TaskScheduled) -> None:
        run.waiting.add(event.task)
        self._active.add(1, _WAITING)

    def _started(self, run: "_Run", event: TaskStarted) -> None:
        graph = run.results.graph
        number = graph.numbers[event.task]
        definition = graph.tasks[number]
        attributes = {_TASK_NAME: event.task, "code.function.name": _function_name(definition)}
        span = self._tracer.start_span(
            f"run {event.task}",
            run.context,
            attributes={
                **attributes,
                "portable_sched.task.priority": definition.priority.name,
                "portable_sched.task.retries": definition.retries,
            },
            links=[run.links[at] for at in graph.waits_for(number) if at in run.links],
            start_time=time_ns(),
        )
        if graph.dependents[number] or number in graph.followers:
            run.links[number] = Link(span.get_span_context(), {_TASK_NAME: event.task})
        context = set_span_in_context(span, run.context)
        run.tasks[event.task] = _Task(span, context, attributes, definition.is_lifetime())

    def _attempt_started(self, run: "_Run", event: AttemptStarted) -> None:
        self._waits_no_more(run, event.task)
        task = run.tasks.get(event.task)
        if task is None:
            # Its span could not be made, and then whoever makes them has been logged already.
            return
        task.attempt, task.attempt_context = INVALID_SPAN, task.context
        task.attempt_began = event.at
        task.is_running = True
        self._active.add(1, _RUNNING)
        span = self._tracer.start_span(
            f"attempt {event.task}",
            task.context,
            attributes={**task.attributes, _ATTEMPT: event.attempt},
            start_time=time_ns(),
        )
        task.attempt, task.attempt_context = span, set_span_in_context(span, task.context)

    def _attempt_ended(self, run: "_Run", event: AttemptEnded) -> None:
        task = run.tasks.get(event.task)
        if task is None:
            return
        task.recorded = event.exception if isinstance(event, AttemptFailed) else None
        outcome = _outcome(_ATTEMPT_STATUS, _STATUS_OF[type(event)], task.recorded)
        now = time_ns()
        if task.recorded is not None:
            _record(task.attempt, task.recorded, now)
        self._end_attempt(task, now, event.duration, outcome)

    def _end_attempt(
        self, task: "_Task", now: int, duration: float, outcome: dict[str, str]
    ) -> None:
        task.is_running = False
        self._active.add(-1, _RUNNING)
        self._attempt_duration.record(duration, self._measured(outcome, task), task.attempt_context)
        task.attempt.set_attributes(outcome)
        task.attempt.end(now)

    def _retrying(self, run: "_Run", event: TaskRetrying) -> None:
        task = run.tasks.get(event.task)
        if task is not None:
            run.waiting.add(event.task)
            self._active.add(1, _WAITING)
            task.span.add_event(
                "portable_sched.task.retrying",
                {_ATTEMPT: event.attempt, "portable_sched.task.delay": event.delay},
                time_ns(),
            )

    def _completed_or_closed(self, run: "_Run", event: TaskCompleted | TaskClosed) -> None:
        task = run.tasks.get(event.task)
        # One that yields goes on until it is closed.
        if task is not None and task.is_lifetime is isinstance(event, TaskClosed):
            self._end_task(run, event.task, time_ns())

    def _failed_or_cancelled(self, run: "_Run", event: TaskFailed | TaskCancelled) -> None:
        # What was not started is counted at the end: it may be much, and a result is slow to make.
        if event.task not in run.tasks and event.task not in run.waiting:
            return
        # `stop()` may have been called from inside this run and be ending another one, which may
        # have a task of that name. Then that one's results tell it at its end.
        if run.results[event.task].status is not _STATUS_OF[type(event)]:
            return
        self._waits_no_more(run, event.task)
        if event.task in run.tasks:
            self._end_task(run, event.task, time_ns())

    def _waits_no_more(self, run: "_Run", name: str) -> None:
        if name in run.waiting:
            run.waiting.remove(name)
            self._active.add(-1, _WAITING)

    def _end_task(self, run: "_Run", name: str, now: int) -> None:
        """End the span of a task, with what its result says."""
        task = run.tasks.pop(name)
        result = run.results[name]
        if task.is_running:
            # Its worker was torn from it.
            outcome = {_ATTEMPT_STATUS: result.status.value}
            self._end_attempt(task, now, _end_of(result) - task.attempt_began, outcome)
        outcome = _outcome(_TASK_STATUS, result.status, result.exception)
        run.ended[result.status] += 1
        run.error_type = run.error_type or outcome.get(_ERROR_TYPE, "")
        self._ended.add(1, outcome)
        self._task_duration.record(result.duration, self._measured(outcome, task), task.context)
        span = task.span
        span.set_attributes({**outcome, "portable_sched.task.attempts": result.attempts})
        if result.exception is not None:
            span.set_status(StatusCode.ERROR, result.error)
            if result.exception is not task.recorded:
                # No attempt has raised it: a teardown has, or the task's own `retry_on`.
                _record(span, result.exception, now)
        span.end(now)

    def _measured(self, outcome: dict[str, str], task: "_Task") -> dict[str, str]:
        return {**outcome, _TASK_NAME: task.attributes[_TASK_NAME]} if self._by_task else outcome

    _ABOUT: ClassVar[Mapping[type[Event], Any]] = {
        RunFinished: _run_finished,
        TaskScheduled: _scheduled,
        TaskStarted: _started,
        AttemptStarted: _attempt_started,
        AttemptCompleted: _attempt_ended,
        AttemptFailed: _attempt_ended,
        AttemptCancelled: _attempt_ended,
        TaskRetrying: _retrying,
        TaskCompleted: _completed_or_closed,
        TaskFailed: _failed_or_cancelled,
        TaskCancelled: _failed_or_cancelled,
        TaskClosed: _completed_or_closed,
    }


_STATUS_OF: Final[Mapping[type[TaskEvent], TaskStatus]] = {
    AttemptCompleted: TaskStatus.COMPLETED,
    AttemptFailed: TaskStatus.FAILED,
    AttemptCancelled: TaskStatus.CANCELLED,
    TaskFailed: TaskStatus.FAILED,
    TaskCancelled: TaskStatus.CANCELLED,
}


@dataclass(slots=True, eq=False)
class _Run:
    """What one telemetry knows of one run.

    Attributes:
        owner: the telemetry.
        outer: the run that was current before, of whatever telemetry.
        results: live.
        span: of the run; an invalid one until it is made.
        context: the one with the span, for its children.
        tasks: those that have started and whose span has not ended, by name.
        links: links to the spans of tasks, ended too, for those that depend on them, by number.
        waiting: names of the tasks that wait for a slot or another attempt.
        ended: how many tasks have ended with each status, of those that were started.
        error_type: of the first task that failed by itself.
        is_over: the run has finished. Whatever a task has left behind may still find it.
    """

    owner: Telemetry
    outer: "_Run | None"
    results: RunResults
    span: Span = INVALID_SPAN
    context: Context | None = None
    tasks: "dict[str, _Task]" = field(default_factory=dict)
    links: dict[int, Link] = field(default_factory=dict)
    waiting: set[str] = field(default_factory=set)
    ended: Counter[TaskStatus] = field(default_factory=Counter)
    error_type: str = ""
    is_over: bool = False

    def forget(self) -> None:
        """The run is over, and a context may live on and know us: let go of everything."""
        self.is_over = True
        self.tasks.clear()
        self.links.clear()
        self.waiting.clear()
        del self.results


@dataclass(slots=True, eq=False)
class _Task:
    """A task that has started.

    Attributes:
        span: of the task.
        context: the one with the span, for its children.
        attributes: what the span of the task and those of its attempts have in common.
        is_lifetime: whether it yields.
        attempt: the span of the latest attempt; an invalid one until it is made.
        attempt_context: the one with that.
        attempt_began: its start, on the event loop's clock.
        is_running: whether an attempt is under way.
        recorded: what the latest attempt has raised, and its span has.
    """

    span: Span
    context: Context
    attributes: dict[str, str]
    is_lifetime: bool
    attempt: Span = INVALID_SPAN
    attempt_context: Context | None = None
    attempt_began: float = 0.0
    is_running: bool = False
    recorded: BaseException | None = None

    @property
    def inside(self) -> Span:
        """The span that is current inside the function."""
        # The body of a lifetime is in one context from start to end, and outlives the attempt.
        return self.span if self.is_lifetime or self.attempt is INVALID_SPAN else self.attempt


# The run that a context belongs to. A variable of ours, because what is current for OpenTelemetry
# is for the functions to change.
_CURRENT: Final[ContextVar[_Run | None]] = ContextVar("portable_sched.otel", default=None)


def _not_over(run: _Run | None) -> _Run | None:
    """A run that is still under way, the innermost one."""
    while run is not None and run.is_over:
        run = run.outer
    return run


def _outcome(
    key: str, status: TaskStatus, error: BaseException | type[BaseException] | None
) -> dict[str, str]:
    """The attributes that tell how something ended."""
    if error is None:
        return {key: status.value}
    kind = error if isinstance(error, type) else type(error)
    # As a traceback shows it, without a module for those of Python itself.
    name = kind.__qualname__ if kind.__module__ == "builtins" else full_name(kind)
    return {key: status.value, _ERROR_TYPE: name}


def _end_of(result: TaskResult[Any]) -> float:
    """When a task that has started has ended, on the event loop's clock."""
    return (result.started_at or 0.0) + result.duration


def _record(span: Span, exception: BaseException, now: int) -> None:
    span.set_status(StatusCode.ERROR, error_text(exception))
    # The exception's own `__str__` may raise.
    with suppress(Exception):
        span.record_exception(exception, timestamp=now)


def _function_name(definition: TaskDef) -> str:
    function: Any = definition.function
    while isinstance(function, partial):
        function = function.func
    return full_name(function if hasattr(function, "__qualname__") else type(function))


def _version() -> str | None:
    try:
        return version(_NAME)
    except PackageNotFoundError:
        # Run from a checkout.
        return None
