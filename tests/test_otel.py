"""Traces and metrics: what is exported of a run, and what is current inside its functions."""

import gc
import logging
import subprocess
import sys
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import asynccontextmanager
from contextvars import copy_context
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from opentelemetry import baggage, context, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    NumberDataPoint,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider, sampling
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span, SpanKind, StatusCode

from portable_sched import (
    Backoff,
    Event,
    FailurePolicy,
    Priority,
    RunResults,
    TaskDef,
    TaskRegistry,
    TaskScheduler,
)
from portable_sched import otel as module
from portable_sched._events import Announcer
from portable_sched._graph import Graph
from portable_sched._watch import WatchedState
from portable_sched.otel import Telemetry

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize
virtual_time = pytest.mark.virtual_time


async def no_op() -> None: ...


class Exported:
    """A telemetry, and what it has exported."""

    def __init__(self, **settings: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self._meters = MeterProvider([self._reader], shutdown_on_exit=False)
        self.telemetry = Telemetry(self.tracers, self._meters, **settings)

    async def run(self, registry: TaskRegistry, **settings: Any) -> RunResults:
        return await self.scheduler(registry, **settings).run()

    def scheduler(self, registry: TaskRegistry, **settings: Any) -> TaskScheduler:
        mine = {"observers": [self.telemetry], "attempt_hooks": [self.telemetry]}
        return TaskScheduler(registry, **{**mine, **settings})

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """In the order in which they have ended."""
        return self._exporter.get_finished_spans()

    @property
    def names(self) -> list[str]:
        return [span.name for span in self.spans]

    def all(self, name: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> ReadableSpan:
        [span] = self.all(name)
        return span

    def metrics(self) -> dict[str, Any]:
        data = self._reader.get_metrics_data()
        return {
            metric.name: metric
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }

    def values(self, name: str) -> dict[tuple[str, ...], float]:
        """What a metric has by now, by the values of its attributes; of histograms the sums."""
        values = {}
        for point in self.metrics()[f"portable_sched.{name}"].data.data_points:
            assert isinstance(point, NumberDataPoint | HistogramDataPoint)
            key = tuple(str(point.attributes[key]) for key in sorted(point.attributes or ()))
            values[key] = point.value if isinstance(point, NumberDataPoint) else point.sum
        return values


@pytest.fixture
def exported() -> Exported:
    return Exported()


@pytest.fixture(scope="module")
def workers() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture
def virtual_wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wall clock goes as the event loop's does."""
    monkeypatch.setattr(module, "time_ns", lambda: round(anyio.current_time() * 1e9))


def failing(error: BaseException, seconds: float = 0) -> Callable[[], Any]:
    async def fail() -> None:
        await anyio.sleep(seconds)
        raise error

    return fail


def is_child(child: Any, parent: Any) -> bool:
    parent_context = parent.get_span_context()
    return (child.parent and child.parent.span_id, child.get_span_context().trace_id) == (
        parent_context.span_id,
        parent_context.trace_id,
    )


def seconds(span: ReadableSpan, since: ReadableSpan | None = None) -> tuple[float, float]:
    """When a span began and ended, after the begin of another one; else how long it took."""
    assert span.start_time is not None
    assert span.end_time is not None
    zero = span.start_time if since is None else since.start_time
    assert zero is not None
    return (span.start_time - zero) / 1e9, (span.end_time - zero) / 1e9


def span_id(span: Any) -> int:
    return int(span.get_span_context().span_id)


def current_id() -> int:
    return span_id(trace.get_current_span())


# Spans: how they hang together


async def test_a_run_a_task_and_an_attempt_are_spans_inside_each_other(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(no_op)
    await exported.run(registry)

    assert ["attempt fetch", "run fetch", "run graph"] == exported.names
    attempt, task, run = exported.spans
    assert is_child(attempt, task)
    assert is_child(task, run)
    assert run.parent is None
    assert {SpanKind.INTERNAL} == {span.kind for span in exported.spans}


async def test_the_span_of_the_run_is_a_child_of_what_is_current_and_leaves_it_current(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(no_op)
    with exported.tracers.get_tracer("mine").start_as_current_span("request") as request:
        await exported.run(registry)
        assert request is trace.get_current_span()

    assert is_child(exported.one("run graph"), request)
    assert not trace.get_current_span().get_span_context().is_valid


async def test_the_span_of_a_task_links_to_those_of_what_it_waited_for(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(no_op)
    registry.task("stamp")(failing(ValueError()))
    registry.task("load", depends_on=["fetch"], after=["stamp"])(no_op)
    await exported.run(registry)

    links = exported.one("run load").links
    assert [
        (span_id(exported.one("run fetch")), {"portable_sched.task.name": "fetch"}),
        (span_id(exported.one("run stamp")), {"portable_sched.task.name": "stamp"}),
    ] == [(link.context.span_id, dict(link.attributes or {})) for link in links]
    assert [] == [link for span in exported.spans if span.name != "run load" for link in span.links]


async def test_what_was_not_started_has_no_span_and_no_link_to_it(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(failing(ValueError()))
    registry.task("load", depends_on=["fetch"])(no_op)
    registry.task("tell", after=["load"])(no_op)
    await exported.run(registry)

    assert {"run fetch", "run tell"} == {
        name for name in exported.names if name.startswith("run ") and name != "run graph"
    }
    assert () == tuple(exported.one("run tell").links)


@virtual_time
async def test_spans_begin_and_end_when_the_results_say_so(
    registry: TaskRegistry, exported: Exported, virtual_wall_clock: None
) -> None:
    left = [ValueError()]

    @registry.task(retries=2, backoff=Backoff(initial=10, jitter=0))
    async def fetch() -> None:
        await anyio.sleep(1.5)
        if left:
            raise left.pop()

    @registry.task(depends_on=[fetch])
    async def load() -> None:
        await anyio.sleep(0.25)

    results = await exported.run(registry)

    run = exported.one("run graph")
    assert (0.0, results.wall_time) == seconds(run)
    assert (0.0, 13.0) == seconds(exported.one("run fetch"), run)
    assert [(0.0, 1.5), (11.5, 13.0)] == [
        seconds(span, run) for span in exported.all("attempt fetch")
    ]
    assert (13.0, 13.25) == seconds(exported.one("run load"), run)


async def test_what_is_made_inside_a_span_begins_and_ends_inside_it(
    registry: TaskRegistry, exported: Exported
) -> None:
    """So by the wall clock: that of an event loop may stand still while a function goes on."""
    tracer = exported.tracers.get_tracer("httpx")

    @registry.task
    async def fetch() -> None:
        with tracer.start_as_current_span("GET"):
            await checkpoint()

    with tracer.start_as_current_span("request"):
        await exported.run(registry)

    nested = ["request", "run graph", "run fetch", "attempt fetch", "GET"]
    times = [exported.one(name).start_time for name in nested]
    times += [exported.one(name).end_time for name in reversed(nested)]
    assert sorted(time or 0 for time in times) == times


# Spans: what is on them


class Loader:
    async def __call__(self) -> None: ...


async def test_attributes_say_what_a_span_is_about(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch", priority=Priority.HIGH, retries=3)(no_op)
    await exported.run(registry, max_concurrency=4)

    function = f"{__name__}.no_op"
    assert {
        "portable_sched.task.name": "fetch",
        "portable_sched.task.attempt": 1,
        "portable_sched.attempt.status": "COMPLETED",
        "code.function.name": function,
    } == dict(exported.one("attempt fetch").attributes or {})
    assert {
        "portable_sched.task.name": "fetch",
        "portable_sched.task.priority": "HIGH",
        "portable_sched.task.retries": 3,
        "portable_sched.task.attempts": 1,
        "portable_sched.task.status": "COMPLETED",
        "code.function.name": function,
    } == dict(exported.one("run fetch").attributes or {})
    assert {
        "portable_sched.run.tasks": 1,
        "portable_sched.run.max_concurrency": 4,
        "portable_sched.run.status": "COMPLETED",
        "portable_sched.run.completed": 1,
        "portable_sched.run.failed": 0,
        "portable_sched.run.cancelled": 0,
    } == dict(exported.one("run graph").attributes or {})
    assert {StatusCode.UNSET} == {span.status.status_code for span in exported.spans}


@each(
    ("function", "name"),
    [
        (partial(partial(no_op)), "no_op"),
        (Loader(), "Loader"),
        (Loader().__call__, "Loader.__call__"),
    ],
    ids=["partial", "object", "method"],
)
async def test_a_function_in_disguise_is_named_too(
    registry: TaskRegistry, exported: Exported, function: Callable[[], Any], name: str
) -> None:
    registry.task("fetch")(function)
    await exported.run(registry)

    attributes = exported.one("run fetch").attributes
    assert attributes is not None
    assert f"{__name__}.{name}" == attributes["code.function.name"]


async def test_attributes_that_a_sampler_may_want_are_there_from_the_start(
    registry: TaskRegistry,
) -> None:
    seen: list[dict[str, Any]] = []

    class Sampler(sampling.Sampler):
        def should_sample(self, *args: Any, **kwargs: Any) -> Any:
            seen.append(dict(kwargs.get("attributes") or args[4] or {}))
            return sampling.SamplingResult(sampling.Decision.DROP)

        def get_description(self) -> str:
            return "drops all"

    telemetry = Telemetry(TracerProvider(Sampler(), shutdown_on_exit=False))
    registry.task("fetch")(no_op)
    await TaskScheduler(registry, observers=[telemetry], attempt_hooks=[telemetry]).run()

    assert [None, "fetch", "fetch"] == [one.get("portable_sched.task.name") for one in seen]


# Failures


async def test_a_failed_attempt_has_its_exception_and_a_failed_task_its_error(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(failing(ValueError("no rows")))
    registry.task("load", depends_on=["fetch"])(no_op)
    await exported.run(registry)

    attempt, task, run = exported.spans
    assert (StatusCode.ERROR, "ValueError: no rows") == (
        attempt.status.status_code,
        attempt.status.description,
    )
    [event] = attempt.events
    assert "exception" == event.name
    assert event.attributes is not None
    assert ("ValueError", "no rows") == (
        event.attributes["exception.type"],
        event.attributes["exception.message"],
    )
    assert "in fail" in str(event.attributes["exception.stacktrace"])
    assert attempt.end_time == event.timestamp
    assert (StatusCode.ERROR, "ValueError: no rows", ()) == (
        task.status.status_code,
        task.status.description,
        tuple(task.events),
    )
    assert (StatusCode.ERROR, "2 of 2 tasks have failed.") == (
        run.status.status_code,
        run.status.description,
    )
    assert ["ValueError"] * 3 == [
        span.attributes and span.attributes["error.type"] for span in exported.spans
    ]


class LoadError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


async def test_an_error_type_is_a_full_name_and_an_exception_without_text_does_no_harm(
    registry: TaskRegistry, exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    registry.task("load")(failing(LoadError()))
    await exported.run(registry)

    attempt, task, _ = exported.spans
    assert attempt.attributes is not None
    assert f"{__name__}.LoadError" == attempt.attributes["error.type"]
    assert "LoadError: <exception str() failed>" == attempt.status.description
    assert "LoadError: <exception str() failed>" == task.status.description
    assert [] == caplog.records


@virtual_time
async def test_a_retry_is_an_event_of_a_task_that_has_not_failed(
    registry: TaskRegistry, exported: Exported, virtual_wall_clock: None
) -> None:
    left = [ValueError()]

    @registry.task(retries=2, backoff=Backoff(initial=10, jitter=0))
    async def fetch() -> None:
        if left:
            raise left.pop()

    await exported.run(registry)

    first, second, task, run = exported.spans
    assert [StatusCode.ERROR, *[StatusCode.UNSET] * 3] == [
        span.status.status_code for span in exported.spans
    ]
    assert [1, 2] == [
        span.attributes and span.attributes["portable_sched.task.attempt"]
        for span in (first, second)
    ]
    assert is_child(first, task)
    assert is_child(second, task)
    [event] = task.events
    assert (
        "portable_sched.task.retrying",
        {"portable_sched.task.attempt": 2, "portable_sched.task.delay": 10.0},
        first.end_time,
    ) == (event.name, dict(event.attributes or {}), event.timestamp)
    assert task.attributes is not None
    assert 2 == task.attributes["portable_sched.task.attempts"]
    assert "error.type" not in task.attributes
    assert run.attributes is not None
    assert "error.type" not in run.attributes


async def test_what_no_attempt_has_raised_is_on_the_span_of_the_task(
    registry: TaskRegistry, exported: Exported
) -> None:
    @registry.task
    async def db() -> AsyncIterator[None]:
        yield
        raise ValueError("no rows")

    await exported.run(registry)

    attempt, task, _ = exported.spans
    assert (StatusCode.UNSET, ()) == (attempt.status.status_code, tuple(attempt.events))
    assert (StatusCode.ERROR, "ValueError: no rows", ["exception"]) == (
        task.status.status_code,
        task.status.description,
        [event.name for event in task.events],
    )


@virtual_time
async def test_what_was_cancelled_says_so_and_is_no_error(
    registry: TaskRegistry, exported: Exported, virtual_wall_clock: None
) -> None:
    @registry.task
    async def fetch() -> None:
        await anyio.sleep_forever()

    registry.task("load", depends_on=[fetch])(no_op)
    with anyio.move_on_after(2):
        await exported.run(registry)

    attempt, task, run = exported.spans
    assert [
        ("CANCELLED", StatusCode.UNSET, (0.0, 2.0)),
        ("CANCELLED", StatusCode.UNSET, (0.0, 2.0)),
        ("CANCELLED", StatusCode.UNSET, (0.0, 2.0)),
    ] == [
        (
            span.attributes and span.attributes[f"portable_sched.{kind}.status"],
            span.status.status_code,
            seconds(span),
        )
        for span, kind in ((attempt, "attempt"), (task, "task"), (run, "run"))
    ]
    assert run.attributes is not None
    assert 2 == run.attributes["portable_sched.run.cancelled"]


# What is current


async def test_the_span_of_the_attempt_is_current_in_an_async_function(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: list[int] = []

    @registry.task(retries=2)
    async def fetch() -> None:
        seen.append(current_id())
        await checkpoint()
        seen.append(current_id())
        if len(seen) == 2:
            raise ValueError

    await exported.run(registry)

    first, second = exported.all("attempt fetch")
    assert [span_id(first)] * 2 + [span_id(second)] * 2 == seen


async def test_the_span_of_the_attempt_is_current_in_a_thread(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(current_id)
    results = await exported.run(registry)

    assert span_id(exported.one("attempt fetch")) == results["fetch"].result


def current_and_baggage() -> tuple[int, int, object]:
    found = trace.get_current_span().get_span_context()
    return found.trace_id, found.span_id, baggage.get_baggage("tenant")


async def current_in_a_coroutine() -> tuple[int, int, object]:
    return current_and_baggage()


@each("function", [current_and_baggage, current_in_a_coroutine])
async def test_the_span_of_the_attempt_and_the_baggage_are_current_in_another_process(
    registry: TaskRegistry, exported: Exported, workers: ProcessPoolExecutor, function: Any
) -> None:
    registry.task("fetch", executor="cpu")(function)
    token = context.attach(baggage.set_baggage("tenant", "north"))
    try:
        results = await exported.run(registry, executors={"cpu": workers})
    finally:
        context.detach(token)

    span = exported.one("attempt fetch")
    assert span.context is not None
    expected = (span.context.trace_id, span_id(span), "north")
    assert expected == results["fetch"].result


async def test_nothing_stays_current_in_a_worker(
    registry: TaskRegistry, exported: Exported, workers: ProcessPoolExecutor
) -> None:
    registry.task("fetch", executor="cpu")(no_op)
    await exported.run(registry, executors={"cpu": workers})

    assert (0, 0, None) == workers.submit(current_and_baggage).result()


async def test_the_span_of_the_task_is_current_in_a_lifetime_from_start_to_end(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: list[int] = []

    @registry.task
    async def db() -> AsyncIterator[None]:
        seen.append(current_id())
        await checkpoint()
        yield
        assert trace.get_current_span().is_recording()
        seen.append(current_id())
        await checkpoint()

    registry.task("load", depends_on=[db])(no_op)
    await exported.run(registry)

    assert [span_id(exported.one("run db"))] * 2 == seen
    assert ["attempt db", "attempt load", "run load", "run db", "run graph"] == exported.names


async def test_what_is_current_is_so_for_one_task_alone(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: dict[str, int] = {}
    both = anyio.Event()

    def looking(name: str) -> Callable[[], Any]:
        async def look() -> None:
            if seen:
                both.set()
            seen[name] = 0
            await both.wait()
            seen[name] = current_id()

        return look

    for name in ("one", "other"):
        registry.task(name)(looking(name))
    await exported.run(registry)

    assert {
        "one": span_id(exported.one("attempt one")),
        "other": span_id(exported.one("attempt other")),
    } == seen


async def test_a_service_that_a_task_calls_is_told_of_its_trace(
    registry: TaskRegistry, exported: Exported
) -> None:
    @registry.task
    async def fetch() -> str:
        headers: dict[str, str] = {}
        propagate.inject(headers)
        return headers["traceparent"]

    results = await exported.run(registry)

    attempt = exported.one("attempt fetch").get_span_context()
    assert attempt is not None
    assert f"00-{attempt.trace_id:032x}-{attempt.span_id:016x}" == results["fetch"].result[:52]


async def test_what_other_hooks_put_into_the_context_stays(
    registry: TaskRegistry, exported: Exported
) -> None:
    @asynccontextmanager
    async def with_baggage(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        token = context.attach(baggage.set_baggage("customer", "7"))
        yield
        context.detach(token)

    @registry.task
    async def fetch() -> tuple[object, int]:
        return baggage.get_baggage("customer"), current_id()

    results = await exported.run(registry, attempt_hooks=[with_baggage, exported.telemetry])

    assert ("7", span_id(exported.one("attempt fetch"))) == results["fetch"].result


async def test_a_hook_around_it_finds_what_was_current_before(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: list[int] = []

    @asynccontextmanager
    async def looks(definition: TaskDef, attempt: int) -> AsyncIterator[None]:
        seen.append(current_id())
        yield
        seen.append(current_id())

    registry.task("fetch")(no_op)
    with exported.tracers.get_tracer("mine").start_as_current_span("request") as request:
        await exported.run(registry, attempt_hooks=[looks, exported.telemetry])

    assert [span_id(request)] * 2 == seen


# Several runs


async def test_runs_at_once_keep_to_themselves(registry: TaskRegistry, exported: Exported) -> None:
    tracer = exported.tracers.get_tracer("mine")
    registry.task("fetch")(checkpoint)
    registry.task("load", depends_on=["fetch"])(checkpoint)
    scheduler = exported.scheduler(registry)

    async def serve(name: str) -> None:
        with tracer.start_as_current_span(name):
            await scheduler.run()

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(serve, f"request {number}")

    assert 3 * 6 == len(exported.spans)
    for number in range(3):
        request = exported.one(f"request {number}")
        spans = [
            span for span in exported.spans if span.context.trace_id == request.context.trace_id
        ]
        [run] = [span for span in spans if span.name == "run graph"]
        [fetch] = [span for span in spans if span.name == "run fetch"]
        [load] = [span for span in spans if span.name == "run load"]
        [attempt] = [span for span in spans if span.name == "attempt load"]
        assert is_child(run, request)
        assert is_child(fetch, run)
        assert is_child(load, run)
        assert is_child(attempt, load)
        assert [span_id(fetch)] == [link.context.span_id for link in load.links]


async def test_a_run_inside_a_task_is_a_child_of_its_attempt(
    registry: TaskRegistry, exported: Exported
) -> None:
    inner = TaskRegistry()
    inner.task("load")(no_op)
    seen: list[int] = []

    @registry.task
    async def load() -> None:
        await exported.run(inner)
        seen.append(current_id())

    await exported.run(registry)

    inner_run, outer_run = exported.all("run graph")
    inner_task, outer_task = exported.all("run load")
    _, outer_attempt = exported.all("attempt load")
    assert is_child(inner_task, inner_run)
    assert is_child(inner_run, outer_attempt)
    assert is_child(outer_attempt, outer_task)
    assert is_child(outer_task, outer_run)
    assert [span_id(outer_attempt)] == seen


async def test_several_telemetries_of_one_run_each_tell_it_all(registry: TaskRegistry) -> None:
    one, other = Exported(), Exported()
    registry.task("fetch")(no_op)
    telemetries = [one.telemetry, other.telemetry]
    scheduler = TaskScheduler(registry, observers=telemetries, attempt_hooks=telemetries)
    await scheduler.run()
    await scheduler.run()

    assert ["attempt fetch", "run fetch", "run graph"] * 2 == one.names
    assert one.names == other.names
    for exported in (one, other):
        for at in (0, 3):
            attempt, task, run = exported.spans[at : at + 3]
            assert is_child(attempt, task)
            assert is_child(task, run)
            assert run.parent is None


async def test_nothing_of_a_run_is_current_when_it_is_over(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(no_op)
    await exported.run(registry)

    assert module._CURRENT.get() is None
    assert context.Context() == context.get_current()


async def test_what_a_task_leaves_behind_does_not_keep_the_run(
    registry: TaskRegistry, exported: Exported
) -> None:
    class Rows: ...

    left: list[Any] = []

    @registry.task
    async def fetch() -> Rows:
        left.append(copy_context())
        return Rows()

    results = await exported.run(registry)
    rows = weakref.ref(results["fetch"].result)
    del results
    gc.collect()

    assert rows() is None
    assert left[0].run(exported.telemetry._run) is None


# `stop()`, from everywhere


@virtual_time
async def test_a_task_that_stop_ends_in_its_backoff_has_ended_then(
    registry: TaskRegistry, exported: Exported, virtual_wall_clock: None
) -> None:
    registry.task("fetch", retries=2, backoff=Backoff(initial=60))(failing(ValueError("no rows")))

    @registry.task
    async def stops() -> None:
        await anyio.sleep(1)
        scheduler.stop()
        await anyio.sleep(1)

    scheduler = exported.scheduler(registry)
    await scheduler.run()

    task = exported.one("run fetch")
    assert (0.0, 1.0) == seconds(task)
    assert "ValueError: no rows" == task.status.description
    assert {("running",): 0, ("waiting",): 0} == exported.values("task.active")


@virtual_time
@each("where", ["outside", "in a run of the same names"])
async def test_a_task_that_is_ended_by_others_has_ended_then(
    registry: TaskRegistry, exported: Exported, virtual_wall_clock: None, where: str
) -> None:
    """Then events come in the context of whoever has called `stop()`."""
    tasks = registry.task
    tasks("fetch", retries=2, backoff=Backoff(initial=60))(failing(ValueError("no rows")))
    tasks("waits")(partial(anyio.sleep, 3))
    tasks("ready", priority=Priority.LOW)(no_op)
    scheduler = exported.scheduler(registry, max_concurrency=1)

    others = TaskRegistry()

    @others.task
    async def stops() -> None:
        await anyio.sleep(1)
        scheduler.stop()
        await anyio.sleep(5)

    for name in ("fetch", "waits", "ready"):
        others.task(name, priority=Priority.LOW)(partial(anyio.sleep, 5))

    async with anyio.create_task_group() as group:
        group.start_soon(scheduler.run)
        await (stops() if where == "outside" else exported.run(others))

    run = min(exported.all("run graph"), key=lambda span: span.end_time or 0)
    mine = [span for span in exported.spans if span.context.trace_id == run.context.trace_id]
    [fetch] = [span for span in mine if span.name == "run fetch"]
    assert (0.0, 1.0) == seconds(fetch, run)
    assert "ValueError: no rows" == fetch.status.description
    assert (0.0, 3.0) == seconds(run)
    assert 5 == len(mine)
    assert {("running",): 0, ("waiting",): 0} == exported.values("task.active")
    ended = {("CANCELLED",): 1, ("COMPLETED",): 1, ("ValueError", "FAILED"): 1}
    assert {**ended, ("COMPLETED",): 1 if where == "outside" else 5} == exported.values(
        "task.ended"
    )


async def test_an_attempt_whose_end_nobody_tells_ends_with_its_task(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch", retries=2)(no_op)
    state = WatchedState(Graph(registry), 0.0)
    state.announcer = Announcer([exported.telemetry])
    state.begin()
    number = state.take(1.0)
    state.failed(number, ValueError(), 2.0)
    state.take(3.0)
    state.finish(6.0)

    _, attempt, _, _ = exported.spans
    assert attempt.attributes is not None
    assert "CANCELLED" == attempt.attributes["portable_sched.attempt.status"]
    assert 3.0 == exported.values("attempt.duration")["CANCELLED",]
    assert {("running",): 0, ("waiting",): 0} == exported.values("task.active")


# Metrics


@virtual_time
async def test_metrics_tell_how_tasks_and_runs_have_ended(
    registry: TaskRegistry, exported: Exported
) -> None:
    left = [OSError()]

    @registry.task(retries=2, backoff=Backoff(initial=10, jitter=0))
    async def fetch() -> None:
        await anyio.sleep(2)
        if left:
            raise left.pop()

    registry.task("load", depends_on=[fetch])(failing(ValueError(), 4))
    registry.task("tell", depends_on=["load"])(no_op)
    await exported.run(registry)

    skipped = ("portable_sched.DependencyFailedError", "FAILED")
    assert {("COMPLETED",): 1, ("ValueError", "FAILED"): 1, skipped: 1} == exported.values(
        "task.ended"
    )
    assert {("COMPLETED",): 14.0, ("ValueError", "FAILED"): 4.0} == exported.values("task.duration")
    assert {
        ("COMPLETED",): 2.0,
        ("OSError", "FAILED"): 2.0,
        ("ValueError", "FAILED"): 4.0,
    } == exported.values("attempt.duration")
    assert {("ValueError", "FAILED"): 18.0} == exported.values("run.duration")


@virtual_time
async def test_metrics_tell_what_waits_and_what_is_running(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: list[dict[tuple[str, ...], float]] = []

    async def look() -> None:
        await anyio.sleep(1)
        seen.append(exported.values("task.active"))

    registry.task("one", priority=Priority.HIGH)(look)
    registry.task("other")(look)
    registry.task("again", retries=2, priority=Priority.LOW, backoff=lambda *_: 60)(
        failing(ValueError())
    )
    registry.task("last", priority=Priority.LOW, depends_on=["other"])(partial(anyio.sleep, 5))
    registry.task("looks", depends_on=["last"])(look)
    await exported.run(registry, max_concurrency=1)

    assert [
        {("running",): 1, ("waiting",): 2},
        {("running",): 1, ("waiting",): 1},
        # In its backoff.
        {("running",): 1, ("waiting",): 1},
    ] == seen
    assert {("running",): 0, ("waiting",): 0} == exported.values("task.active")


@virtual_time
async def test_what_is_ready_and_never_started_waits_no_more(
    registry: TaskRegistry, exported: Exported
) -> None:
    seen: list[dict[tuple[str, ...], float]] = []

    @registry.task
    async def stops() -> None:
        scheduler.stop()
        seen.append(exported.values("task.active"))

    registry.task("ready")(no_op)
    scheduler = exported.scheduler(registry, max_concurrency=1)
    await scheduler.run()

    assert [{("running",): 1, ("waiting",): 0}] == seen
    assert {("CANCELLED",): 1, ("COMPLETED",): 1} == exported.values("task.ended")


async def test_names_of_tasks_are_in_metrics_where_that_was_asked_for(
    registry: TaskRegistry,
) -> None:
    exported = Exported(metrics_by_task=True)
    registry.task("fetch")(no_op)
    registry.task("load")(no_op)
    await exported.run(registry)

    by_task = {("COMPLETED", "fetch"), ("COMPLETED", "load")}
    assert {frozenset(one) for one in by_task} == {
        frozenset(one) for one in exported.values("task.duration")
    }
    assert by_task == set(exported.values("attempt.duration"))


async def test_a_histogram_of_seconds_has_limits_for_seconds(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(no_op)
    await exported.run(registry)

    for name in ("run", "task", "attempt"):
        metric = exported.metrics()[f"portable_sched.{name}.duration"]
        [point] = metric.data.data_points
        assert "s" == metric.unit
        assert (0.005, 21600) == (point.explicit_bounds[0], point.explicit_bounds[-1])


# How it is set up


async def test_without_a_provider_nothing_is_made_and_nothing_breaks(
    registry: TaskRegistry,
) -> None:
    @registry.task
    async def fetch() -> Span:
        return trace.get_current_span()

    telemetry = Telemetry()
    results = await TaskScheduler(registry, observers=[telemetry], attempt_hooks=[telemetry]).run()

    span = results["fetch"].unwrap()
    assert not span.is_recording()
    assert not span.get_span_context().is_valid


def test_providers_that_are_set_later_are_used() -> None:
    """In a process of its own, since they can be set only once."""
    program = """
import asyncio
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from portable_sched import TaskScheduler, task
from portable_sched.otel import Telemetry

@task
async def fetch(): ...

telemetry = Telemetry()
scheduler = TaskScheduler(observers=[telemetry], attempt_hooks=[telemetry])
exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
tracers = TracerProvider()
tracers.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(tracers)
metrics.set_meter_provider(MeterProvider([reader]))
asyncio.run(scheduler.run())
print(*[span.name for span in exporter.get_finished_spans()], sep=", ")
[resource] = reader.get_metrics_data().resource_metrics
print(*sorted(metric.name for metric in resource.scope_metrics[0].metrics), sep=", ")
"""
    assert [
        "attempt fetch, run fetch, run graph",
        (
            "portable_sched.attempt.duration, portable_sched.run.duration, "
            "portable_sched.task.active, portable_sched.task.duration, portable_sched.task.ended"
        ),
    ] == output_of(program).splitlines()


def test_without_opentelemetry_the_import_says_what_to_run() -> None:
    program = """
import sys
sys.modules["opentelemetry"] = None
try:
    import portable_sched.otel
except ImportError as error:
    print(error)
"""
    assert (
        "portable_sched.otel needs opentelemetry-api, which is not installed: "
        "pip install 'portable_sched[otel]'\n"
    ) == output_of(program)


def test_it_needs_the_api_alone() -> None:
    program = """
import sys
sys.modules["opentelemetry.sdk"] = None
from portable_sched.otel import Telemetry
print(Telemetry.__name__)
"""
    assert "Telemetry\n" == output_of(program)


def output_of(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    ).stdout


async def test_the_scope_is_the_package_and_its_version(
    registry: TaskRegistry, exported: Exported
) -> None:
    await exported.run(registry)

    scope = exported.one("run graph").instrumentation_scope
    assert scope is not None
    assert ("portable_sched", version("portable_sched")) == (scope.name, scope.version)


async def test_a_package_that_is_not_installed_has_no_version(
    registry: TaskRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_NAME", "portable_sched.not_installed")
    exported = Exported()
    await exported.run(registry)

    scope = exported.one("run graph").instrumentation_scope
    assert scope is not None
    assert not scope.version


async def test_without_the_hook_there_are_spans_of_which_none_is_current(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(current_id)
    results = await exported.run(registry, attempt_hooks=[])

    assert ["attempt fetch", "run fetch", "run graph"] == exported.names
    assert 0 == results["fetch"].result


async def test_without_the_observer_the_log_says_what_to_write(
    registry: TaskRegistry, exported: Exported, caplog: pytest.LogCaptureFixture
) -> None:
    registry.task("fetch")(no_op)
    results = await exported.run(registry, observers=[])

    assert results.ok
    assert () == exported.spans
    [record] = caplog.records
    assert record.exc_info is not None
    assert (
        "Telemetry is in attempt_hooks and not in observers, so that it does not know of the run. "
        "Write TaskScheduler(observers=[telemetry], attempt_hooks=[telemetry])."
    ) == str(record.exc_info[1])


def test_an_event_that_it_does_not_know_is_passed_over(exported: Exported) -> None:
    exported.telemetry(Event(at=0.0))

    assert () == exported.spans


# Where it breaks


class Broken(trace.Tracer):
    """A tracer that raises at spans of one kind, and passes the others on."""

    def __init__(self, tracer: trace.Tracer, start: str) -> None:
        self._tracer = tracer
        self._start = start

    def start_span(self, name: str, *args: Any, **kwargs: Any) -> Span:
        if name.startswith(self._start):
            raise RuntimeError("no span")
        return self._tracer.start_span(name, *args, **kwargs)

    def start_as_current_span(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


@each("start", ["run graph", "run fetch", "attempt", ""])
async def test_a_tracer_that_raises_is_logged_and_the_run_goes_on(
    registry: TaskRegistry, exported: Exported, caplog: pytest.LogCaptureFixture, start: str
) -> None:
    left = [ValueError()]

    @registry.task(retries=2)
    async def fetch() -> None:
        if left:
            raise left.pop()

    registry.task("load", depends_on=[fetch])(failing(ValueError()))
    exported.telemetry._tracer = Broken(exported.telemetry._tracer, start)
    results = await exported.run(registry)

    assert [(2, True), (1, False)] == [(result.attempts, result.ok) for result in results]
    assert [logging.ERROR] == [record.levelno for record in caplog.records]
    assert not [name for name in exported.names if name.startswith(start)]
    assert {("running",): 0, ("waiting",): 0} == {
        ("running",): 0,
        **exported.values("task.active"),
    }
    assert 2 == sum(exported.values("task.ended").values())
    assert module._CURRENT.get() is None


async def test_where_an_attempt_has_no_span_that_of_the_task_is_current(
    registry: TaskRegistry, exported: Exported
) -> None:
    registry.task("fetch")(current_id)
    exported.telemetry._tracer = Broken(exported.telemetry._tracer, "attempt")
    results = await exported.run(registry)

    assert span_id(exported.one("run fetch")) == results["fetch"].result


@each(("broken", "error_type"), [("nothing", "ValueError"), ("run load", "_OTHER")])
async def test_the_error_of_a_run_is_that_of_the_first_task_that_failed(
    registry: TaskRegistry, exported: Exported, broken: str, error_type: str
) -> None:
    registry.task("load-rows")(failing(ValueError()))
    registry.task("load-more", after=["load-rows"])(failing(KeyError()))
    exported.telemetry._tracer = Broken(exported.telemetry._tracer, broken)
    await exported.run(registry)

    run = exported.one("run graph")
    assert run.attributes is not None
    assert error_type == run.attributes["error.type"]


@each("policy", list(FailurePolicy))
async def test_what_goes_up_comes_down(
    registry: TaskRegistry, exported: Exported, policy: FailurePolicy
) -> None:
    """Lifetimes, threads, retries, failures, and what is skipped, drained and cancelled."""

    @registry.task
    async def db() -> AsyncIterator[None]:
        await checkpoint()
        yield
        await checkpoint()

    registry.task("thread")(lambda: None)
    registry.task("load", depends_on=[db], retries=3)(failing(ValueError()))
    registry.task("skipped", depends_on=["load"])(no_op)
    registry.task("after", after=["load"])(no_op)
    registry.task("sleeps")(partial(anyio.sleep, 0.001))
    results = await exported.run(registry, on_failure=policy, max_concurrency=2)

    assert {("running",): 0, ("waiting",): 0} == exported.values("task.active")
    assert len(results) == sum(exported.values("task.ended").values())
    started = [result for result in results if result.attempts]
    assert {f"run {result.task_name}" for result in started} | {"run graph"} == {
        name for name in exported.names if name.startswith("run ")
    }
    assert sum(result.attempts for result in results) == sum(
        name.startswith("attempt ") for name in exported.names
    )
