"""The trace: the events of a small run one by one, and what holds for those of any run.

The format is that of Chrome's trace viewer, as its "Trace Event Format" describes it and Perfetto's
importer reads it.
"""

import json
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from test_report_json import RUNS, LoadError, no_number, nothing_to_do, runs, under_way

from portable_sched import (
    Backoff,
    FailurePolicy,
    Priority,
    RunResults,
    TaskRegistry,
    TaskStatus,
)
from portable_sched.analysis.timeline import attempt_spans, ready_at
from portable_sched.reporting.trace import report
from portable_sched.testing import run_graph

Event = dict[str, Any]

# What the format asks for, and what else these events have, by their phase.
FIELDS = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "cat", "name", "ts", "dur", "args"},
    "s": {"ph", "pid", "tid", "cat", "name", "id", "ts"},
    "f": {"ph", "pid", "tid", "cat", "name", "id", "ts", "bp"},
    "b": {"ph", "pid", "tid", "cat", "name", "id", "ts", "args"},
    "e": {"ph", "pid", "tid", "cat", "name", "id", "ts"},
    "C": {"ph", "pid", "tid", "name", "ts", "args"},
}


def events_of(results: RunResults) -> list[Event]:
    events: list[Event] = json.loads(report(results), parse_constant=no_number)["traceEvents"]
    return events


def of_phase(events: list[Event], phase: str) -> list[Event]:
    return [event for event in events if event["ph"] == phase]


def nanoseconds(microseconds: float) -> int:
    return round(microseconds * 1000)


def flaky_and_limited() -> RunResults:
    registry = TaskRegistry()

    @registry.task(priority=Priority.HIGH)
    async def pool() -> AsyncIterator[int]:
        yield 1

    registry.task("fetch", depends_on=["pool"], retries=2, backoff=Backoff(initial=1))(
        nothing_to_do
    )
    registry.task("load", after=["fetch"])(nothing_to_do)
    return run_graph(
        registry,
        seconds={"pool": 0.5, "fetch": 2, "load": 0.25},
        fail={"fetch": {1: LoadError("reset")}},
        max_concurrency=1,
    )


# One by one


def test_the_events_of_a_run_are_these() -> None:
    slot = {"pid": 1, "tid": 2}
    arrow = {**slot, "cat": "dependency", "name": "dependency", "id": "0x1"}
    after = {**slot, "cat": "after", "name": "after", "id": "0x2"}
    attempt = {"ph": "X", **slot, "cat": "attempt"}
    backoff = {**slot, "cat": "backoff", "id": "0x3"}
    opened = {**slot, "cat": "open", "id": "0x4"}
    tasks = {"ph": "C", **slot, "name": "tasks"}
    well = {"attempt": 1, "status": "COMPLETED", "waiting": 0.0}
    failed = {"attempt": 1, "status": "FAILED", "waiting": 0.0, "error": "LoadError: reset"}

    assert [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "portable_sched"}},
        {"ph": "M", **slot, "name": "thread_name", "args": {"name": "slot 1"}},
        {"ph": "M", **slot, "name": "thread_sort_index", "args": {"sort_index": 0}},
        {**attempt, "name": "pool", "ts": 0, "dur": 500_000, "args": well},
        {**tasks, "ts": 0, "args": {"running": 1, "waiting": 0}},
        {"ph": "s", **arrow, "ts": 499_999.999},
        {**attempt, "name": "fetch", "ts": 500_000, "dur": 2_000_000, "args": failed},
        {"ph": "f", "bp": "e", **arrow, "ts": 500_000},
        {"ph": "b", **opened, "name": "open", "ts": 500_000, "args": {}},
        {"ph": "b", **opened, "name": "pool", "ts": 500_000, "args": {}},
        {**tasks, "ts": 500_000, "args": {"running": 1, "waiting": 0}},
        {"ph": "b", **backoff, "name": "backoff", "ts": 2_500_000, "args": {}},
        {"ph": "b", **backoff, "name": "fetch", "ts": 2_500_000, "args": {}},
        {**tasks, "ts": 2_500_000, "args": {"running": 0, "waiting": 0}},
        {
            **attempt,
            "name": "fetch",
            "ts": 3_500_000,
            "dur": 2_000_000,
            "args": {**well, "attempt": 2},
        },
        {"ph": "e", **backoff, "name": "fetch", "ts": 3_500_000},
        {"ph": "e", **backoff, "name": "backoff", "ts": 3_500_000},
        {**tasks, "ts": 3_500_000, "args": {"running": 1, "waiting": 0}},
        {"ph": "s", **after, "ts": 5_499_999.999},
        {**attempt, "name": "load", "ts": 5_500_000, "dur": 250_000, "args": well},
        {"ph": "f", "bp": "e", **after, "ts": 5_500_000},
        {"ph": "e", **opened, "name": "pool", "ts": 5_500_000},
        {"ph": "e", **opened, "name": "open", "ts": 5_500_000},
        {**tasks, "ts": 5_500_000, "args": {"running": 1, "waiting": 0}},
        {**tasks, "ts": 5_750_000, "args": {"running": 0, "waiting": 0}},
    ] == events_of(flaky_and_limited())


def test_a_trace_of_nothing_has_a_process_and_no_lanes() -> None:
    assert [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": "portable_sched"}},
        {
            "ph": "C",
            "pid": 1,
            "tid": 2,
            "name": "tasks",
            "ts": 0,
            "args": {"running": 0, "waiting": 0},
        },
    ] == events_of(run_graph(TaskRegistry()))


def test_a_trace_is_an_object_with_the_date_and_an_event_a_line() -> None:
    results = run_graph(TaskRegistry(), order="shuffle", seed=7)
    text = report(results)
    trace = json.loads(text)

    assert {"displayTimeUnit", "otherData", "traceEvents"} == trace.keys()
    assert "ms" == trace["displayTimeUnit"]
    assert {"date": results.date.isoformat(), "order": "shuffle, seed 7"} == trace["otherData"]
    assert len(trace["traceEvents"]) + 2 == len(text.splitlines())


def test_whole_microseconds_are_whole_numbers() -> None:
    text = report(flaky_and_limited())

    assert '"ts": 500000, "dur": 2000000,' in text
    assert '"ts": 499999.999}' in text


def waits_of(results: RunResults) -> list[tuple[str, str, float, float]]:
    """Group, task, beginning and end of each span beside the lanes, in seconds."""
    events = events_of(results)
    ends = {
        (event["cat"], event["id"], event["name"]): event["ts"] for event in of_phase(events, "e")
    }
    return [
        (
            event["cat"],
            event["name"],
            event["ts"] / 1e6,
            ends[event["cat"], event["id"], event["name"]] / 1e6,
        )
        for event in of_phase(events, "b")
        if event["name"] != event["cat"]
    ]


def test_a_task_that_waits_for_a_slot_is_seen_waiting() -> None:
    registry = TaskRegistry()
    for name in ["a", "b", "c"]:
        registry.task(name)(nothing_to_do)
    results = run_graph(registry, seconds={"a": 1, "b": 2, "c": 3}, max_concurrency=1)

    assert [("waiting", "b", 0.0, 1.0), ("waiting", "c", 0.0, 3.0)] == waits_of(results)
    assert [0.0, 1.0, 3.0] == [
        event["args"]["waiting"] for event in of_phase(events_of(results), "X")
    ]


def test_a_task_that_waits_for_a_slot_after_its_backoff_is_seen_waiting_again() -> None:
    registry = TaskRegistry()
    registry.task("a", retries=2, backoff=Backoff(initial=1))(nothing_to_do)
    registry.task("b")(nothing_to_do)
    results = run_graph(registry, seconds={"a": 1, "b": 4}, fail={"a": [1]}, max_concurrency=1)

    assert [
        ("backoff", "a", 1.0, 2.0),
        ("waiting", "a", 2.0, 5.0),
        ("waiting", "b", 0.0, 1.0),
    ] == sorted(waits_of(results), key=lambda wait: wait[1])


def test_a_task_that_waited_in_vain_is_seen_waiting() -> None:
    registry = TaskRegistry()

    @registry.task(priority=Priority.HIGH)
    async def fails() -> None:
        raise LoadError("no")

    registry.task("ready")(nothing_to_do)
    registry.task("never", depends_on=["ready"])(nothing_to_do)
    results = run_graph(
        registry, seconds={"fails": 2}, max_concurrency=1, on_failure=FailurePolicy.DRAIN
    )

    assert [("waiting", "ready", 0.0, 2.0)] == waits_of(results)


def test_a_backoff_that_the_end_of_the_run_cut_short_is_seen_as_long_as_it_was() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fails() -> None:
        raise LoadError("no")

    registry.task("pauses", retries=2, backoff=Backoff(initial=60))(nothing_to_do)
    results = run_graph(
        registry,
        seconds={"fails": 3, "pauses": 1},
        fail={"pauses": [1]},
        on_failure=FailurePolicy.CANCEL,
    )

    assert [("backoff", "pauses", 1.0, 3.0)] == waits_of(results)


def test_a_wait_of_less_than_a_microsecond_is_none() -> None:
    results = run_graph(registry_of("a"), seconds={"a": 1})
    record = results._record
    record.started[0] += 9e-7
    before = waits_of(results)
    record.started[0] += 2e-7

    assert ([], ["waiting"]) == (before, [wait[0] for wait in waits_of(results)])


def test_a_moment_that_rounding_puts_before_the_beginning_is_the_beginning() -> None:
    results = run_graph(registry_of("a"), seconds={"a": 1}, fail={"a": [1]})
    [failure] = results._record.failures[0]
    results._record.failures[0] = [replace(failure, started_at=-4e-9)]
    [attempt] = of_phase(events_of(results), "X")

    assert (0, 999_999.996) == (attempt["ts"], attempt["dur"])


def registry_of(*names: str) -> TaskRegistry:
    registry = TaskRegistry()
    for name in names:
        registry.task(name)(nothing_to_do)
    return registry


def test_a_lifetime_tells_what_went_wrong_in_its_teardown() -> None:
    registry = TaskRegistry()

    @registry.task
    async def pool() -> AsyncIterator[None]:
        yield
        await anyio.sleep(1)
        raise LoadError("a leak")

    events = events_of(run_graph(registry))
    [_, inner] = of_phase(events, "b")

    assert {"error": "LoadError: a leak"} == inner["args"]
    assert ["COMPLETED"] == [event["args"]["status"] for event in of_phase(events, "X")]


def test_what_retry_on_raised_is_the_error_of_the_attempt() -> None:
    registry = TaskRegistry()

    def judge(error: Exception) -> bool:
        raise ValueError("no judgement")

    @registry.task(retries=2, retry_on=judge)
    async def load() -> None:
        raise LoadError("no table")

    [attempt] = of_phase(events_of(run_graph(registry)), "X")

    assert "ValueError: no judgement" == attempt["args"]["error"]


def test_a_run_under_way_is_cut_off_and_its_counters_are_not() -> None:
    results = under_way()
    events = events_of(results)
    cut = max(event["ts"] for event in events if "ts" in event)
    going_on = {
        event["name"]
        for event in of_phase(events, "X")
        if event["args"]["status"] == "RUNNING" and event["ts"] + event["dur"] == cut
    }

    assert {one.task_name for one in results if one.status is TaskStatus.RUNNING} >= going_on
    assert len(going_on) == of_phase(events, "C")[-1]["args"]["running"]
    assert 1 == of_phase(events, "C")[-1]["args"]["waiting"]


def test_names_and_errors_have_no_characters_that_viewers_stumble_over() -> None:
    text = report(RUNS["odd texts"]())
    names = {event["name"] for event in of_phase(json.loads(text)["traceEvents"], "X")}

    assert text.isascii()
    assert "name \ufffd\ufffd[31m\ufffd\x9b" in names
    assert "name caf\ufffd" in names
    assert "name \u2028\ufeff\U0001f680" in names


# Of any run


def check(results: RunResults) -> None:
    events = events_of(results)
    check_fields(events)
    check_lanes(events)
    check_spans(results, events)
    check_arrows(results, events)
    check_beside(events)
    check_counters(results, events)


def check_fields(events: list[Event]) -> None:
    """Every event has the fields of its phase, and they come in the order of their time."""
    for event in events:
        assert FIELDS[event["ph"]] == event.keys()
        assert 1 == event["pid"]
        assert type(event["name"]) is str
        assert event["name"]
    timed = [event for event in events if event["ph"] != "M"]

    assert events[len(events) - len(timed) :] == timed
    assert all(0 <= one["ts"] <= other["ts"] for one, other in pairwise([{"ts": 0}, *timed]))


def check_lanes(events: list[Event]) -> None:
    """Lanes are named and sorted from the first to the last, and nothing overlaps in one."""
    names = {
        one["tid"]: one["args"] for one in of_phase(events, "M") if "thread_name" == one["name"]
    }
    order = [one for one in of_phase(events, "M") if "thread_sort_index" == one["name"]]
    lanes: dict[int, list[Event]] = {}
    for event in of_phase(events, "X"):
        lanes.setdefault(event["tid"], []).append(event)

    assert sorted(names) == sorted(lanes) == [one["tid"] for one in order]
    assert [*range(len(lanes))] == [one["args"]["sort_index"] for one in order]
    assert not {0, 1} & lanes.keys()
    for ran in lanes.values():
        for one, other in pairwise(ran):
            assert nanoseconds(one["ts"]) + nanoseconds(one["dur"]) <= nanoseconds(other["ts"])


def check_spans(results: RunResults, events: list[Event]) -> None:
    """Every attempt is there, with its status and, where it failed, its error."""
    spans = attempt_spans(results)
    attempts = of_phase(events, "X")

    assert len(spans) == len(attempts)
    for span, event in zip(spans, attempts, strict=True):
        args = event["args"]
        assert (span.attempt, span.status.name) == (args["attempt"], args["status"])
        assert span.task_name == event["name"] or "\ufffd" in event["name"]
    for event in of_phase(events, "X"):
        assert (event["args"]["status"] == "FAILED") is ("error" in event["args"])


def check_arrows(results: RunResults, events: list[Event]) -> None:
    """An arrow has both ends, each within an attempt of its lane; there is one for each edge."""
    starts = {event["id"]: event for event in of_phase(events, "s")}
    ends = {event["id"]: event for event in of_phase(events, "f")}

    assert starts.keys() == ends.keys()
    assert len(starts) == len(of_phase(events, "s")) == len(of_phase(events, "f"))
    edges: Counter[tuple[str, str, str]] = Counter()
    for key, start in starts.items():
        end = ends[key]
        assert start["ts"] <= end["ts"]
        assert (start["cat"], start["name"], "e") == (end["cat"], end["name"], end["bp"])
        edges[bound(events, start), bound(events, end), start["cat"]] += 1
    graph = results.graph
    ran = {one.task_name for one in results if one.attempts}
    assert edges == Counter(
        (graph.order[earlier], name, kind)
        for number, name in enumerate(graph.order)
        for earlier in graph.waits_for(number)
        for kind in ["dependency" if earlier in graph.dependencies[number] else "after"]
        if {name, graph.order[earlier]} <= ran
    )


def bound(events: list[Event], end: Event) -> str:
    """The task of the attempt that an end of an arrow is bound to.

    It is the one that a viewer has begun last in that lane when it comes to the arrow.
    """
    begun: list[Event] = []
    for event in events:
        if event is end:
            break
        if event["ph"] == "X" and event["tid"] == end["tid"]:
            begun.append(event)
    last = begun[-1]
    assert last["ts"] <= end["ts"]
    assert nanoseconds(end["ts"]) <= nanoseconds(last["ts"]) + nanoseconds(last["dur"])
    return str(last["name"])


def check_beside(events: list[Event]) -> None:
    """Spans beside the lanes are pairs within pairs, each with an id of its own."""
    stacks: dict[tuple[str, str], list[Event]] = {}
    seen: Counter[tuple[str, str]] = Counter()
    for event in events:
        if event["ph"] == "b":
            key = (event["cat"], event["id"])
            seen[key] += 1
            stacks.setdefault(key, []).append(event)
        elif event["ph"] == "e":
            begun = stacks[event["cat"], event["id"]].pop()
            assert begun["name"] == event["name"]
            assert begun["ts"] <= event["ts"]

    assert not any(stacks.values())
    assert set(seen.values()) <= {2}
    assert {kind for kind, _ in seen} <= {"waiting", "backoff", "open"}


def check_counters(results: RunResults, events: list[Event]) -> None:
    """Counters are never below nothing, and end at nothing where the run has ended."""
    counted = [event["args"] for event in of_phase(events, "C")]

    assert all(one["running"] >= 0 and one["waiting"] >= 0 for one in counted)
    assert max((one["running"] for one in counted), default=0) <= max(results.most_running, 0)
    if results._record.finished is not None:
        assert {"running": 0, "waiting": 0} == counted[-1]


@pytest.mark.parametrize("run", RUNS)
def test_the_trace_is_one_that_viewers_read_of_a_run_with(run) -> None:
    check(RUNS[run]())


@given(runs())
@settings(deadline=None, max_examples=60)
def test_the_trace_of_any_run_is_one_that_viewers_read(results) -> None:
    check(results)


@given(runs())
@settings(deadline=None, max_examples=60)
def test_waiting_and_backoff_fill_the_time_from_ready_to_the_end(results) -> None:
    spent: Counter[str] = Counter()
    for kind, name, start, end in waits_of(results):
        spent[name] += 0 if kind == "open" else nanoseconds((end - start) * 1e6)
    for span in attempt_spans(results):
        spent[span.task_name] += nanoseconds(span.duration * 1e6)
    record = results._record
    for number, name in enumerate(results.graph.order):
        ready = ready_at(record, number)
        if ready is not None:
            # What it comes after may have been over only after it had been cancelled.
            took = max(0, nanoseconds((record.ended[number] - ready) * 1e6))

            # Each of a few parts is rounded to a nanosecond, and the shortest waits are left out.
            assert abs(took - spent[name]) <= 4_000


# Size


def test_a_trace_of_ten_thousand_tasks_has_them_all() -> None:
    registry = TaskRegistry()
    for at in range(10_000):
        registry.task(f"t{at}", depends_on=[f"t{at - 1}", f"t{at - 2}"] if at > 1 else [])(
            nothing_to_do
        )
    counts = Counter(event["ph"] for event in events_of(run_graph(registry)))

    assert (10_000, 2 * 9_998) == (counts["X"], counts["s"])
