"""The JSON report: its schema, what is in it, and that reading it back gives the same run."""

import asyncio
import copy
import json
import pickle
import re
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from enum import IntEnum
from functools import partial
from importlib.resources import files
from math import inf, nan
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import jsonschema
import pytest
from hypothesis import example, given, reject, settings
from hypothesis import strategies as st

from portable_sched import (
    Backoff,
    CyclicDependencyError,
    DependencyFailedError,
    Event,
    FailurePolicy,
    Priority,
    RunResults,
    RunStarted,
    TaskRegistry,
    TaskScheduler,
    TaskStatus,
)
from portable_sched.analysis.breakdown import breakdown
from portable_sched.analysis.explanation import explain
from portable_sched.analysis.plan import planned, remaining
from portable_sched.analysis.timeline import attempt_spans, open_spans
from portable_sched.reporting import FORMATS, render
from portable_sched.reporting.json import report, results_from_json
from portable_sched.reporting.recorded import RecordedError, UnrecordedResult
from portable_sched.testing import VirtualTimeLoop, run_graph

SCHEMA = json.loads(files("portable_sched.reporting").joinpath("results.schema.json").read_text())
Validator = jsonschema.validators.validator_for(SCHEMA)
VALIDATOR = Validator(SCHEMA, format_checker=Validator.FORMAT_CHECKER)


class LoadError(Exception):
    """As a user's own."""


class Frozen:
    """A result that JSON has no place for."""


class Colour(IntEnum):
    RED = 1


def no_number(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def document_of(results: RunResults, **options: Any) -> Any:
    return json.loads(report(results, **options), parse_constant=no_number)


def task_of(results: RunResults, name: str = "task", **options: Any) -> Any:
    [task] = [one for one in document_of(results, **options)["tasks"] if one["name"] == name]
    return task


def run_of(function: Callable[..., Any], **settings: Any) -> RunResults:
    """A run of one task of this function, called "task"."""
    registry = TaskRegistry()
    registry.task("task", **settings)(function)
    return run_graph(registry)


def returning(value: object) -> RunResults:
    async def give() -> object:
        return value

    return run_of(give)


def raising(error: BaseException, **settings: Any) -> RunResults:
    async def fail() -> None:
        raise error

    return run_of(fail, **settings)


def read_back(results: RunResults) -> RunResults:
    return results_from_json(report(results))


def frozen(results: RunResults) -> RunResults:
    """A run as it is now, whatever becomes of it later."""
    record = copy.copy(results._record)
    for name in type(record).__slots__:
        if name not in {"graph", "tasks", "numbers"}:
            setattr(record, name, copy.copy(getattr(record, name)))
    record.failures = {number: list(failures) for number, failures in record.failures.items()}
    return RunResults(record)


# Runs of many kinds


def nothing() -> RunResults:
    return run_graph(TaskRegistry())


def all_went_well() -> RunResults:
    registry = TaskRegistry()

    @registry.task(priority=Priority.HIGH, estimate=2)
    async def fetch() -> dict[str, Any]:
        return {"rows": [1, 2.5, None, "ü", True]}

    @registry.task(timeout=60, estimate=0.25)
    def load(fetch: Any) -> object:
        """Load what was fetched."""
        return Frozen()

    return run_graph(registry, seconds={"fetch": 0.1, "load": 0.7}, max_concurrency=3)


def some_failed() -> RunResults:
    registry = TaskRegistry()
    left = [ConnectionError("reset"), ConnectionError("reset again")]

    @registry.task(retries=4, backoff=Backoff(initial=0.3))
    async def fetch() -> None:
        if left:
            raise left.pop()

    @registry.task(depends_on=[fetch], retries=2)
    async def load() -> None:
        try:
            _ = {}["rows"]  # type: ignore[var-annotated]
        except KeyError as error:
            failure = LoadError("no table\nnamed 'rows'")
            failure.add_note("try again tomorrow")
            raise failure from error

    @registry.task(depends_on=[load])
    async def tell() -> None: ...

    @registry.task(depends_on=[tell])
    async def archive() -> None: ...

    @registry.task(after=[tell, fetch])
    async def clean_up() -> None: ...

    return run_graph(registry, seconds={"fetch": 0.7, "load": 0.1, "clean_up": 1})


def stopped_by_a_failure(policy: FailurePolicy) -> RunResults:
    registry = TaskRegistry()

    @registry.task
    async def fails() -> None:
        raise LoadError("no")

    @registry.task(retries=3, backoff=Backoff(initial=100))
    async def pauses() -> None:
        raise LoadError("not now")

    @registry.task
    async def goes_on() -> None: ...

    @registry.task(depends_on=[goes_on])
    async def never() -> None: ...

    return run_graph(
        registry,
        seconds={"fails": 1.1, "pauses": 0.3, "goes_on": 5},
        on_failure=policy,
    )


def with_lifetimes() -> RunResults:
    registry = TaskRegistry()

    @registry.task
    async def pool() -> AsyncIterator[str]:
        yield "a pool"

    @registry.task
    async def leaks(pool: str) -> AsyncIterator[None]:
        yield
        raise LoadError("a leak")

    @registry.task(retries=2)
    async def never_opens(pool: str) -> AsyncIterator[None]:
        raise LoadError("closed")
        yield

    @registry.task(depends_on=[leaks])
    async def uses() -> None: ...

    @registry.task(after=[leaks])
    async def follows() -> None: ...

    return run_graph(registry, seconds={"pool": 0.1, "leaks": 0.2, "uses": 0.7, "follows": 0.3})


def with_limits() -> RunResults:
    registry = TaskRegistry()
    for at in range(6):
        units = {"db": 1 + at % 2, "disk": 1} if at % 3 else None

        @registry.task(f"export-{at}", resources=units, priority=Priority(1 + at % 3))
        async def export() -> None: ...

    seconds = {f"export-{at}": 0.1 * (at + 1) for at in range(6)}
    return run_graph(
        registry, seconds=seconds, resources={"db": 2, "disk": 7, "unused": 1}, max_concurrency=2
    )


def with_more_functions_than_threads() -> RunResults:
    registry = TaskRegistry()
    for at in range(41):
        registry.task(f"t{at}")(lambda: None)
    registry.task("coroutine", resources=["db"])(anyio.lowlevel.checkpoint)
    return run_graph(registry, resources={"db": 1}, virtual_time=False)


def registered_against_the_order() -> RunResults:
    registry = TaskRegistry()

    async def nothing() -> None: ...

    registry.task("last", depends_on=["first", "middle"], priority=Priority.HIGH)(nothing)
    # Of these two the first was registered first, and stands behind the other all the same.
    registry.task("late", depends_on=["first"], priority=Priority.LOW)(nothing)
    registry.task("even", priority=Priority.LOW)(nothing)
    registry.task("other")(nothing)
    registry.task("middle", depends_on=["first"], priority=Priority.LOW)(nothing)
    registry.task("first", priority=Priority.LOW)(nothing)
    return run_graph(registry, inherit_priority=True, max_concurrency=1)


def shuffled() -> RunResults:
    registry = TaskRegistry()
    for at in range(5):

        @registry.task(f"t{at}", priority=Priority(1 + at % 3))
        async def nothing() -> None: ...

    return run_graph(registry, order="shuffle", seed=7)


def with_odd_texts() -> RunResults:
    registry = TaskRegistry()
    texts = ["\x00\x1b[31m\x7f\x9b", "caf\udce9", "\u2028\ufeff\U0001f680", '"\\/', "</script>"]
    for text in texts:

        @registry.task(f"name {text}")
        async def fail(text: str = text) -> None:
            raise LoadError(text)

    return run_graph(registry)


def with_a_failure_of_a_run_within() -> RunResults:
    inner = some_failed()["archive"].exception
    assert inner is not None
    return raising(inner)


def under_way() -> RunResults:
    """As it is while one is in backoff, a lifetime is open, one runs, and others wait."""
    registry = TaskRegistry()
    live: list[RunResults] = []
    seen: list[RunResults] = []

    def notice(event: Event) -> None:
        if isinstance(event, RunStarted):
            live.append(event.results)

    @registry.task
    async def pool() -> AsyncIterator[int]:
        yield 1

    @registry.task(retries=3, backoff=Backoff(initial=20))
    async def fetch(pool: int) -> None:
        raise LoadError("not now")

    @registry.task
    async def slow() -> None: ...

    @registry.task(depends_on=[fetch], after=[slow])
    async def later() -> None: ...

    @registry.task(depends_on=[pool])
    async def looks() -> None:
        seen.append(frozen(live[0]))

    @registry.task(depends_on=[pool], priority=Priority.LOW, resources=["db"])
    async def waits() -> None: ...

    run_graph(
        registry,
        seconds={"fetch": 0.1, "slow": 60, "looks": 7.7},
        observers=[notice],
        max_concurrency=2,
        resources={"db": 1},
    )
    return seen[0]


def on_a_clock_that_has_gone_on() -> RunResults:
    registry = TaskRegistry()

    @registry.task(retries=2, backoff=Backoff(initial=0.1, jitter=0))
    async def fetch() -> None:
        await anyio.sleep(0.7)
        raise LoadError("no")

    @registry.task
    async def load() -> AsyncIterator[None]:
        await anyio.sleep(0.3)
        yield
        await anyio.sleep(0.1)

    async def main() -> RunResults:
        await anyio.sleep(45_678.901)
        return await TaskScheduler(registry).run()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(main())


RUNS: dict[str, Callable[[], RunResults]] = {
    "nothing": nothing,
    "all went well": all_went_well,
    "some failed": some_failed,
    "drained": partial(stopped_by_a_failure, FailurePolicy.DRAIN),
    "cancelled": partial(stopped_by_a_failure, FailurePolicy.CANCEL),
    "lifetimes": with_lifetimes,
    "limits": with_limits,
    "threads": with_more_functions_than_threads,
    "registered against the order": registered_against_the_order,
    "shuffled": shuffled,
    "odd texts": with_odd_texts,
    "a failure of a run within": with_a_failure_of_a_run_within,
    "under way": under_way,
    "a clock that has gone on": on_a_clock_that_has_gone_on,
}


@pytest.fixture(params=RUNS)
def results(request: pytest.FixtureRequest) -> RunResults:
    return RUNS[request.param]()


async def nothing_to_do() -> None: ...


@st.composite
def runs(draw: Callable[..., Any]) -> RunResults:
    """Runs of some tasks with dependencies, failures, limits, lifetimes."""
    registry = TaskRegistry()
    count = draw(st.integers(0, 7))
    names = [f"t{at}" for at in range(count)]
    durations = st.sampled_from([0, 0.1, 0.2, 0.7, 1.1, 1 / 3])

    async def opens() -> AsyncIterator[None]:
        await anyio.sleep(0.05)
        yield
        await anyio.sleep(0.1)

    for at, name in enumerate(names):
        earlier = st.lists(st.sampled_from(names[:at]), max_size=2) if at else st.just([])
        before = draw(earlier)
        registry.task(
            name,
            depends_on=before,
            after=[one for one in draw(earlier) if one not in before] if at % 3 == 0 else [],
            retries=draw(st.integers(1, 3)),
            backoff=draw(st.sampled_from([None, Backoff(initial=0.3)])),
            priority=draw(st.sampled_from(Priority)),
            resources=draw(st.sampled_from([None, ["db"]])),
        )(opens if draw(st.integers(0, 4)) == 0 else nothing_to_do)
    try:
        _ = TaskScheduler(registry, resources={"db": 1}).graph
    except CyclicDependencyError:
        # A task that comes after a lifetime, and one that another user of it needs.
        reject()
    return run_graph(
        registry,
        seconds={name: draw(durations) for name in names},
        fail={name: draw(st.sampled_from([[], [], [1], [1, 2, 3]])) for name in names},
        max_concurrency=draw(st.sampled_from([None, 1, 2])),
        resources={"db": 1},
        on_failure=draw(st.sampled_from(FailurePolicy)),
    )


# The schema


def objects_of(schema: Any) -> Any:
    """Every schema of an object within a schema."""
    if isinstance(schema, dict):
        if schema.get("type") == "object":
            yield schema
        for value in schema.values():
            yield from objects_of(value)


def test_a_report_is_what_the_schema_says(results) -> None:
    assert [] == list(VALIDATOR.iter_errors(document_of(results)))


def test_the_schema_is_one() -> None:
    Validator.check_schema(SCHEMA)

    assert "https://json-schema.org/draft/2020-12/schema" == SCHEMA["$schema"]


def test_the_schema_describes_every_property() -> None:
    described = [
        (name, bool(part.get("description")))
        for schema in objects_of(SCHEMA)
        for name, part in schema.get("properties", {}).items()
    ]

    assert 50 < len(described)
    assert [] == [name for name, is_described in described if not is_described]


def test_the_schema_allows_nothing_that_it_does_not_name() -> None:
    closed = [schema["additionalProperties"] for schema in objects_of(SCHEMA)]

    # Resources and counts have names that nobody knows beforehand, and nothing but numbers.
    assert 2 == sum(value is not False for value in closed)
    assert all(value is False or value["type"] == "integer" for value in closed)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["format"], "other.results"),
        (["version"], 2),
        (["extra"], 1),
        (["run", "date"], "yesterday"),
        (["run", "date"], "2026-01-31T12:00:00+01:00"),
        (["tasks", 0, "status"], "DONE"),
        (["tasks", 0, "duration"], -1),
        (["tasks", 0, "place"], None),
        (["tasks", 1, "result"], 1),
        (["tasks", 1, "failures", 0, "attempt"], 0),
    ],
    ids=lambda value: "-".join(map(str, value)) if isinstance(value, list) else None,
)
def test_the_schema_refuses_a_document_with_something_else(path, value) -> None:
    document = document_of(some_failed())
    at = document
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = value

    assert not VALIDATOR.is_valid(document)


def test_the_schema_asks_for_the_type_of_a_result() -> None:
    document = document_of(all_went_well())
    del document["tasks"][0]["result_type"]

    assert not VALIDATOR.is_valid(document)


# What is in it


def test_the_report_of_a_run_is_this_document() -> None:
    registry = TaskRegistry()

    @registry.task(estimate=2)
    async def fetch() -> list[int]:
        return [1, 2]

    @registry.task(priority=Priority.HIGH, retries=2, resources=["db"], backoff=Backoff(initial=1))
    async def load(fetch: list[int]) -> None:
        raise LoadError("no table")

    @registry.task(depends_on=[load], timeout=5)
    async def tell() -> None: ...

    @registry.task(after=[tell])
    async def close() -> tuple[int]:
        """Close the books.

        And the windows.
        """
        return (1,)

    results = run_graph(registry, resources={"db": 3}, seconds={"tell": 1}, max_concurrency=4)
    document = document_of(results)
    date = document["run"].pop("date")
    tracebacks = [
        failure["exception"].pop("traceback")
        for task in document["tasks"]
        for failure in task["failures"]
    ]
    here = "test_the_report_of_a_run_is_this_document.<locals>"
    plain = {
        "closed_at": None,
        "error": None,
        "failed_dependency": None,
        "root_cause": None,
        "failures": [],
        "kind": "async",
        "about": None,
        "depends_on": [],
        "after": [],
        "priority": "MEDIUM",
        "retries": 1,
        "timeout": None,
        "resources": {},
        "executor": None,
        "estimate": None,
    }
    failure = {
        "duration": 0.0,
        "exception": {
            "type": "test_report_json.LoadError",
            "message": "no table",
            "notes": [],
        },
    }

    assert results.date == datetime.fromisoformat(date)
    assert all("in load\n" in text and "LoadError: no table\n" in text for text in tracebacks)
    assert {
        "format": "portable_sched.results",
        "version": 1,
        "run": {
            "clock": 0.0,
            "wall_time": 1.0,
            "ok": False,
            "counts": {"PENDING": 0, "RUNNING": 0, "COMPLETED": 2, "FAILED": 2, "CANCELLED": 0},
            "most_running": 1,
            "max_concurrency": 4,
            "resources": {"db": 3},
            "threads": None,
            "order": "",
            "inherit_priority": False,
            "stopped_at": None,
            "stopped_by": None,
        },
        "tasks": [
            {
                **plain,
                "name": "fetch",
                "status": "COMPLETED",
                "attempts": 1,
                "started_at": 0.0,
                "last_attempt_at": 0.0,
                "ended_at": 0.0,
                "duration": 0.0,
                "function": {"module": __name__, "name": f"{here}.fetch"},
                "place": 1,
                "estimate": 2,
                "result_type": "list",
                "result": [1, 2],
            },
            {
                **plain,
                "name": "load",
                "status": "FAILED",
                "attempts": 2,
                "started_at": 0.0,
                "last_attempt_at": 1.0,
                "ended_at": 1.0,
                "duration": 1.0,
                "error": "LoadError: no table",
                "failures": [
                    {**failure, "attempt": 1, "started_at": 0.0, "backoff": 1.0},
                    {**failure, "attempt": 2, "started_at": 1.0, "backoff": 0.0},
                ],
                "function": {"module": __name__, "name": f"{here}.load"},
                "depends_on": ["fetch"],
                "priority": "HIGH",
                "place": 0,
                "retries": 2,
                "resources": {"db": 1},
            },
            {
                **plain,
                "name": "tell",
                "status": "FAILED",
                "attempts": 0,
                "started_at": None,
                "last_attempt_at": None,
                "ended_at": 1.0,
                "duration": 0.0,
                "error": "Dependency 'load' failed: LoadError: no table",
                "failed_dependency": "load",
                "root_cause": "load",
                "function": {
                    "module": "portable_sched.testing",
                    "name": "_Plan._planned.<locals>.planned",
                },
                "depends_on": ["load"],
                "place": 2,
                "timeout": 5,
            },
            {
                **plain,
                "name": "close",
                "status": "COMPLETED",
                "attempts": 1,
                "started_at": 1.0,
                "last_attempt_at": 1.0,
                "ended_at": 1.0,
                "duration": 0.0,
                "function": {"module": __name__, "name": f"{here}.close"},
                "about": "Close the books.",
                "after": ["tell"],
                "place": 3,
                "result_type": "tuple",
            },
        ],
    } == document


def test_the_date_is_in_utc_with_microseconds() -> None:
    date = document_of(nothing())["run"]["date"]

    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", date)
    assert datetime.now(UTC) - datetime.fromisoformat(date) < timedelta(minutes=5)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -(2**70),
        0.1,
        -0.0,
        1e300,
        "",
        "naïve \U0001f680 \x00\x7f\u2028",
        [],
        {},
        [[[None, {"a": [1, {"": 2.5}]}]]],
    ],
    ids=repr,
)
def test_a_result_is_there_where_json_holds_it(value) -> None:
    kept = read_back(returning(value))["task"].result

    assert repr(value) == repr(kept)
    assert repr(value) == repr(task_of(returning(value))["result"])


def test_a_list_as_deep_as_readers_of_json_like_is_there() -> None:
    value: list[Any] = []
    for _ in range(99):
        value = [value]

    assert value == task_of(returning(value))["result"]
    assert "result" not in task_of(returning([value]))


def itself() -> list[Any]:
    one: list[Any] = [1]
    one += [one, one]
    return one


INEXACT: dict[str, tuple[object, str]] = {
    "a tuple": ((1, 2), "tuple"),
    "NaN": (nan, "float"),
    "infinity": (inf, "float"),
    "a number of many digits": (10**700, "int"),
    "bytes": (b"rows", "bytes"),
    "numbers for keys": ({1: "a"}, "dict"),
    "a set within": ({"a": {2}}, "dict"),
    "a key that is no text": ({"caf\udce9": 1}, "dict"),
    "a tuple within": ([1, (2,)], "list"),
    "no text": ("caf\udce9", "str"),
    "a list that contains itself": (itself(), "list"),
    "a number by another name": (Colour.RED, "test_report_json.Colour"),
    "an object": (Frozen(), "test_report_json.Frozen"),
    "a date": (datetime(2026, 1, 31, tzinfo=UTC), "datetime.datetime"),
}


@pytest.mark.parametrize(("value", "name"), INEXACT.values(), ids=INEXACT)
def test_a_result_that_json_does_not_hold_is_told_by_its_type(value, name) -> None:
    task = task_of(returning(value))

    assert "result" not in task
    assert name == task["result_type"]
    assert UnrecordedResult(name) == read_back(returning(value))["task"].result


def test_results_can_be_left_out() -> None:
    task = task_of(returning("secret"), keep_results=False)

    assert ("str", False) == (task["result_type"], "result" in task)


def test_what_a_failed_lifetime_had_yielded_is_no_result() -> None:
    async def leaks() -> AsyncIterator[str]:
        yield "a pool"
        raise LoadError("a leak")

    task = task_of(run_of(leaks))

    assert ("FAILED", False, False) == (task["status"], "result" in task, "result_type" in task)


def noted(function: Any) -> Any:
    """With an attribute of its own, for which a `partial` of it keeps it as it is."""
    function.note = "ours"
    return function


@pytest.mark.parametrize(
    ("function", "module", "name"),
    [
        (nothing, __name__, "nothing"),
        (partial(noted(partial(returning)), 1), __name__, "returning"),
        ([].clear, "builtins", "list.clear"),
    ],
    ids=["function", "partial", "builtin"],
)
def test_a_function_is_told_by_where_it_comes_from(function, module, name) -> None:
    registry = TaskRegistry()
    registry.task("task")(function)
    told = task_of(run_graph(registry, virtual_time=False))

    assert ("thread", {"module": module, "name": name}) == (told["kind"], told["function"])


def test_an_object_that_is_called_is_told_by_its_class() -> None:
    class Loader:
        """Says nothing of the task."""

        async def __call__(self) -> None: ...

    task = task_of(run_of(Loader()))

    assert {"module": __name__, "name": Loader.__qualname__} == task["function"]
    assert task["about"] is None


def test_an_exception_is_told_with_its_causes_and_notes() -> None:
    [failure] = [one for one in task_of(some_failed(), "load")["failures"] if one["attempt"] == 2]
    exception = failure["exception"]

    assert ["try again tomorrow"] == exception["notes"]
    assert "no table\nnamed 'rows'" == exception["message"]
    assert "KeyError: 'rows'" in exception["traceback"]
    assert exception["traceback"].endswith("named 'rows'\ntry again tomorrow\n")


def test_an_exception_that_cannot_say_what_it_is_is_told_all_the_same() -> None:
    class SpeechlessError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    task = task_of(raising(SpeechlessError()))

    assert "<exception str() failed>" == task["failures"][0]["exception"]["message"]
    assert "SpeechlessError: <exception str() failed>" == task["error"]


# The text


def test_a_report_is_indented_unless_it_is_to_be_on_one_line() -> None:
    results = all_went_well()

    assert report(results).startswith('{\n  "format": "portable_sched.results",\n  "version": 1,')
    assert report(results, indent=None).startswith('{"format": "portable_sched.results", "version"')
    assert "\n" not in report(results, indent=None)


def test_a_text_is_readable_and_free_of_what_breaks_terminals() -> None:
    text = report(raising(LoadError("检査 \x00\x1b\x7f\x9b\u2028\ufeff")))

    assert '"检査 \\u0000\\u001b\\u007f\\u009b\\u2028\\ufeff"' in text


def test_a_name_that_is_no_text_comes_back_from_a_file(tmp_path) -> None:
    path = with_odd_texts().save(tmp_path / "run.json")
    results = results_from_json(path.read_text("utf-8"))

    assert "LoadError: caf\udce9" == results["name caf\udce9"].error


# Reading it back


def test_a_report_of_what_was_read_is_the_same_text(results) -> None:
    assert report(results) == report(read_back(results))


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "json"])
def test_every_other_report_of_what_was_read_is_the_same(results, name) -> None:
    assert render(results, name) == render(read_back(results), name)


def test_the_verbose_text_of_what_was_read_is_the_same(results) -> None:
    assert render(results, verbose=True) == render(read_back(results), verbose=True)


def test_the_breakdown_of_what_was_read_is_the_same(results) -> None:
    assert breakdown(results) == breakdown(read_back(results))


def test_the_timeline_of_what_was_read_is_the_same(results) -> None:
    other = read_back(results)

    assert attempt_spans(results) == attempt_spans(other)
    assert open_spans(results) == open_spans(other)


def test_the_explanations_of_what_was_read_are_the_same(results) -> None:
    other = read_back(results)

    assert [explain(results, name) for name in results.graph.order] == [
        explain(other, name) for name in other.graph.order
    ]


def test_what_is_left_of_what_was_read_is_the_same() -> None:
    results = under_way()

    assert remaining(results, 8.0, {"later": 5.0}) == remaining(
        read_back(results), 8.0, {"later": 5.0}
    )


def test_the_graph_that_was_read_is_the_same(results) -> None:
    graph, other = results.graph, read_back(results).graph

    assert graph.numbers == other.numbers
    assert [*map(tuple, graph.dependencies)] == [*map(tuple, other.dependencies)]
    assert [*map(tuple, graph.dependents)] == [*map(tuple, other.dependents)]
    assert graph.followers == other.followers
    assert graph.lifetimes == other.lifetimes
    assert graph.levels() == other.levels()
    assert graph.critical_path() == other.critical_path()
    assert (graph.place, graph.by_place, graph.urgency) == (
        other.place,
        other.by_place,
        other.urgency,
    )


def test_the_definitions_that_were_read_have_the_same_settings(results) -> None:
    def settings(run: RunResults) -> list[Any]:
        return [
            (
                *(one.name, one.priority, one.retries, one.after, one.timeout, one.resources),
                *(one.estimate, one.is_async(), one.is_lifetime(), one.function.__module__),
                one.function.__qualname__,
            )
            for one in run.graph.tasks
        ]

    assert settings(results) == settings(read_back(results))


def test_a_plan_by_what_was_read_is_the_same() -> None:
    results = with_limits()
    other = read_back(results)

    assert planned(results.graph, [1, 2, None], results.resources, {}) == planned(
        other.graph, [1, 2, None], other.resources, {}
    )


def test_the_facts_of_the_run_that_was_read_are_the_same(results) -> None:
    def facts(run: RunResults) -> list[Any]:
        return [
            *(run.wall_time, run.most_running, run.order, run.started_at, run.date, run.ok),
            *(run.max_concurrency, run.resources, run.counts(), run._record.finished is None),
        ]

    assert facts(results) == facts(read_back(results))


def test_the_results_that_were_read_are_the_same_but_for_exceptions_and_values(results) -> None:
    def plain(run: RunResults) -> list[Any]:
        return [
            (
                *(one.task_name, one.status, one.error, one.attempts, one.duration),
                one.started_at,
                [
                    (each.attempt, each.duration, each.started_at, each.backoff)
                    for each in one.failures
                ],
            )
            for one in run
        ]

    assert plain(results) == plain(read_back(results))


def test_an_exception_comes_back_as_its_text() -> None:
    error = read_back(some_failed())["load"].exception
    before = some_failed()["load"].exception

    assert isinstance(error, RecordedError)
    assert isinstance(before, LoadError)
    assert ("test_report_json.LoadError", str(before)) == (error.type_name, error.message)
    assert (str(before), before.__notes__) == (str(error), error.__notes__)
    assert (LoadError.__name__, LoadError.__module__) == (
        type(error).__name__,
        type(error).__module__,
    )
    assert "KeyError: 'rows'" in error.recorded_traceback


def test_an_exception_of_python_itself_comes_back_under_its_bare_name() -> None:
    error = read_back(raising(OSError("no disk")))["task"].exception

    assert isinstance(error, RecordedError)
    assert ("OSError", "builtins") == (error.type_name, type(error).__module__)


def test_what_came_back_is_raised_as_any_exception() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        read_back(some_failed()).raise_for_failures()
    [error] = caught.value.exceptions

    assert "no table\nnamed 'rows'" == str(error)
    assert ["try again tomorrow", "in task 'load', attempt 2 of 2"] == error.__notes__


def test_the_failure_of_a_dependency_comes_back_as_itself() -> None:
    error = read_back(some_failed())["archive"].exception

    assert type(error) is DependencyFailedError
    assert ("archive", "tell", "load") == (error.task, error.dependency, error.root_cause)
    assert "LoadError: no table\nnamed 'rows'" == error.reason


def test_the_failure_of_a_dependency_of_a_run_within_comes_back_as_one() -> None:
    result = read_back(with_a_failure_of_a_run_within())["task"]

    assert isinstance(result.exception, RecordedError)
    assert isinstance(result.exception, DependencyFailedError)
    assert ("archive", "tell", "load", "LoadError: no table\nnamed 'rows'") == (
        result.exception.task,
        result.exception.dependency,
        result.exception.root_cause,
        result.exception.reason,
    )


@pytest.mark.parametrize("run", ["some failed", "a failure of a run within"])
def test_an_exception_that_came_back_can_be_pickled(run) -> None:
    errors = [one.exception for result in read_back(RUNS[run]()) for one in result.failures]
    for error in errors:
        again = pickle.loads(pickle.dumps(error))

        assert type(error) is type(again)
        assert (error.args, error.__dict__) == (again.args, again.__dict__)


def test_an_unrecorded_result_says_what_it_was() -> None:
    expected = "<a result of type test_report_json.Frozen, which the report does not have>"

    assert expected == repr(read_back(all_went_well())["load"].result)


def test_tasks_that_were_read_fail_when_they_are_run() -> None:
    graph = read_back(with_lifetimes()).graph
    results = run_graph(
        [*graph.tasks, *read_back(with_more_functions_than_threads()).graph.tasks][:6]
    )

    assert all(one.status is TaskStatus.FAILED for one in results)
    assert (
        "RuntimeError: Task 'pool' was read from a report and cannot be run: its function was "
        "portable_sched.testing._planned_lifetime.<locals>.lifetime, of which a report has no more "
        "than the name."
    ) == results["pool"].error


@pytest.mark.parametrize("kind", ["async", "thread", "lifetime"])
def test_a_function_that_was_read_says_so_when_it_is_called(kind) -> None:
    document = document_of(returning(1))
    document["tasks"][0].update(kind=kind, function={"module": "shop.jobs", "name": "Jobs.load"})
    if kind == "lifetime":
        document["tasks"][0].update(closed_at=0.0)
    definition = results_from_json(json.dumps(document)).graph.tasks[0]
    results = run_graph([definition])

    assert (
        "RuntimeError: Task 'task' was read from a report and cannot be run: its function was "
        "shop.jobs.Jobs.load, of which a report has no more than the name."
    ) == results["task"].error
    assert ("shop.jobs", "Jobs.load", "load") == (
        definition.function.__module__,
        definition.function.__qualname__,
        definition.function.__name__,
    )


def test_tasks_may_be_listed_in_any_order() -> None:
    results = some_failed()
    document = document_of(results)
    document["tasks"].reverse()
    other = results_from_json(json.dumps(document))

    assert [one.error for one in results] == [other[one.task_name].error for one in results]


@given(
    began=st.floats(0, 1e7),
    moments=st.lists(st.floats(0, 1e5), min_size=3, max_size=3),
)
@example(began=31072.999999999985, moments=[100000.0, 31072.137390906195, 0.0])
def test_moments_come_back_to_the_last_digit(began, moments) -> None:
    """Also those that the clock holds less exactly than the time since the run began."""
    record = all_went_well()._record
    started, lasted, end = moments
    record.began = began
    record.finished = began + end
    for number in range(2):
        record.started[number] = began + started
        record.ended[number] = record.started[number] + lasted
    results = RunResults(record)
    other = read_back(results)

    assert report(results) == report(other)
    assert (results.wall_time, attempt_spans(results)) == (other.wall_time, attempt_spans(other))
    assert results.started_at == other.started_at


@given(runs())
@settings(deadline=None, max_examples=60)
def test_any_run_comes_back_whole(results) -> None:
    text = report(results)
    other = results_from_json(text)

    assert text == report(other)
    assert render(results, verbose=True) == render(other, verbose=True)
    assert breakdown(results) == breakdown(other)
    assert attempt_spans(results) == attempt_spans(other)
    assert VALIDATOR.is_valid(json.loads(text))


# What is no report

WHAT_TO_DO = "Take a report that results.save('run.json') has written, as it is."


def refusal_of(text: Any) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is what is tested
        results_from_json(text)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "Expecting value: line 1 column 1 (char 0)"),
        ("rows", "Expecting value: line 1 column 1 (char 0)"),
        ('{"format": NaN}', "NaN is no number in JSON"),
        ('{"format": -Infinity}', "-Infinity is no number in JSON"),
        ("1" * 5000, "Exceeds the limit (4300 digits)"),
        ("[" * 200_000, ": "),  # it says how deep the stack may be, in other words in each Python
    ],
    ids=["empty", "not quoted", "NaN", "Infinity", "many digits", "deep"],
)
def test_what_is_no_json_is_refused(text, problem) -> None:
    message = refusal_of(text)

    assert message.startswith("Expected a report in JSON, got what cannot be read as such: ")
    assert problem in message
    assert message.endswith(WHAT_TO_DO)


@pytest.mark.parametrize("text", [None, b"{}", Path("run.json")], ids=repr)
def test_what_is_no_text_is_refused(text) -> None:
    expected = (
        f"Expected the text of a report, got {text!r} ({type(text).__name__}). Read the file "
        "first, as in results_from_json(path.read_text('utf-8'))."
    )

    with pytest.raises(TypeError, match=f"^{re.escape(expected)}$"):
        results_from_json(text)


def test_a_newer_version_is_refused() -> None:
    document = document_of(nothing()) | {"version": 2}

    assert (
        "Expected version 1 of the format, got version 2, which a newer portable_sched has "
        "written. Update this one: pip install --upgrade portable_sched."
    ) == refusal_of(json.dumps(document))


def changed(*path: Any, to: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        document[path[-1]] = to

    return change


def without(*path: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for step in path[:-1]:
            document = document[step]
        del document[path[-1]]

    return change


# The tasks of `some_failed` are fetch, load, tell, archive, clean_up.
WRONG = {
    "another format": (
        changed("format", to="pytest.results"),
        "the format 'portable_sched.results', got 'pytest.results'",
    ),
    "no format": (
        without("format"),
        "the document to have 'format', got ['version', 'run', 'tasks'] (list)",
    ),
    "no version": (
        changed("version", to="1"),
        "the document.version to be a whole number of at least 1, got '1' (str)",
    ),
    "version 0": (
        changed("version", to=0),
        "the document.version to be a whole number of at least 1, got 0 (int)",
    ),
    "a run that is none": (
        changed("run", to=[]),
        "the document.run to be an object, got [] (list)",
    ),
    "tasks that are none": (
        changed("tasks", to={}),
        "the document.tasks to be a list, got {} (dict)",
    ),
    "a task that is none": (
        changed("tasks", 1, to="load"),
        "tasks[1] to be an object, got 'load' (str)",
    ),
    "a key that is missing": (
        without("run", "clock"),
        "run to have 'clock', got ['date', 'wall_time',",
    ),
    "a text for a number": (
        changed("tasks", 0, "ended_at", to="soon"),
        "tasks[0].ended_at to be a number or null, got 'soon' (str)",
    ),
    "a truth for a number": (
        changed("run", "clock", to=True),
        "run.clock to be a number, got True (bool)",
    ),
    "a number that no float holds": (
        changed("run", "clock", to=10**400),
        f"run.clock to be a number, got 1{'0' * 56}... (int)",
    ),
    "a fraction of an attempt": (
        changed("tasks", 0, "attempts", to=1.5),
        "tasks[0].attempts to be a whole number of at least 0, got 1.5 (float)",
    ),
    "less than no attempt": (
        changed("tasks", 0, "attempts", to=-1),
        "tasks[0].attempts to be a whole number of at least 0, got -1 (int)",
    ),
    "no flag": (
        changed("run", "inherit_priority", to=0),
        "run.inherit_priority to be true or false, got 0 (int)",
    ),
    "no limit": (
        changed("run", "max_concurrency", to=0),
        "run.max_concurrency to be a whole number of at least 1, or null, got 0 (int)",
    ),
    "a status that there is not": (
        changed("tasks", 0, "status", to="DONE"),
        (
            "tasks[0].status to be one of PENDING, RUNNING, COMPLETED, FAILED, "
            "CANCELLED, got 'DONE' (str)"
        ),
    ),
    "a priority that there is not": (
        changed("tasks", 0, "priority", to="URGENT"),
        "tasks[0].priority to be one of HIGH, MEDIUM, LOW, got 'URGENT' (str)",
    ),
    "a kind that there is not": (
        changed("tasks", 0, "kind", to="process"),
        "tasks[0].kind to be one of async, thread, lifetime, got 'process' (str)",
    ),
    "names that are none": (
        changed("tasks", 0, "depends_on", to=[1]),
        "tasks[0].depends_on to be a list of strings, got [1] (list)",
    ),
    "units that are none": (
        changed("tasks", 0, "resources", to={"db": 0.5}),
        "tasks[0].resources to be an object of whole numbers, got {'db': 0.5} (dict)",
    ),
    "a date that is none": (
        changed("run", "date", to="yesterday"),
        "run.date to be a date and time in UTC, as 2026-01-31T12:00:00Z, got 'yesterday' (str)",
    ),
    "a date of no time zone": (
        changed("run", "date", to="2026-01-31T12:00:00"),
        (
            "run.date to be a date and time in UTC, as 2026-01-31T12:00:00Z, got "
            "'2026-01-31T12:00:00' (str)"
        ),
    ),
    "a cycle": (
        changed("tasks", 0, "depends_on", to=["tell"]),
        "tasks to make a graph, got these: Tasks form a cycle: fetch -> tell -> load -> fetch.",
    ),
    "a dependency that there is not": (
        changed("tasks", 1, "depends_on", to=["fetsh"]),
        (
            "tasks to make a graph, got these: Task 'load' depends on 'fetsh', which is not "
            "registered. Did you mean 'fetch'?"
        ),
    ),
    "a name twice": (
        changed("tasks", 1, "name", to="fetch"),
        "tasks to make a graph, got these: Task name 'fetch' belongs to",
    ),
    "a place twice": (
        changed("tasks", 1, "place", to=0),
        "tasks to have a place each, from 0, and got the same one twice",
    ),
    "an unknown culprit": (
        changed("run", "stopped_by", to="nobody"),
        "run.stopped_by to be the name of a task, got 'nobody' (str)",
    ),
    "a dependency without a cause": (
        changed("tasks", 2, "root_cause", to=None),
        (
            "tasks[2].root_cause to be null where failed_dependency is, and else a task, got None "
            "(NoneType)"
        ),
    ),
    "a cause without a failure": (
        changed("tasks", 2, "root_cause", to="clean_up"),
        "'clean_up', for which 'tell' was not started, to have failures, got none",
    ),
    "a failure without an exception": (
        changed("tasks", 1, "failures", to=[]),
        "tasks[1].failures to be at least one, or failed_dependency to be a task, got [] (list)",
    ),
    "an exception without a text": (
        without("tasks", 1, "failures", 0, "exception", "message"),
        "an exception to have 'message', got ['type', 'notes', 'traceback'] (list)",
    ),
    "a start without an attempt": (
        changed("tasks", 0, "attempts", to=0),
        "tasks[0].attempts to be 0 where a task was not started, and else at least 1, got 0 (int)",
    ),
    "an attempt without a start": (
        changed("tasks", 2, "attempts", to=1),
        "tasks[2].attempts to be 0 where a task was not started, and else at least 1, got 1 (int)",
    ),
    "an end without a start": (
        changed("tasks", 2, "status", to="COMPLETED"),
        "tasks[2].started_at to be a number where a task was started, got None (NoneType)",
    ),
    "no end": (
        changed("tasks", 0, "ended_at", to=None),
        (
            "tasks[0].ended_at to be a number where a task has ended, and else null, got None "
            "(NoneType)"
        ),
    ),
    "an end of what goes on": (
        changed("tasks", 0, "status", to="RUNNING"),
        "tasks[0].ended_at to be a number where a task has ended, and else null, got 3.0 (float)",
    ),
    "a result without a type": (
        without("tasks", 0, "result_type"),
        "tasks[0] to have 'result_type', got ['name', 'status', 'attempts', 'started_at'",
    ),
    "more than there is": (
        changed("tasks", 0, "resources", to={"db": 2}),
        "run.resources to have what 'fetch' asks for, 2 of 'db', got {} (dict)",
    ),
}


@pytest.mark.parametrize(("change", "expected"), WRONG.values(), ids=WRONG)
def test_a_document_is_refused_that_has(change, expected) -> None:
    document = document_of(some_failed())
    change(document)
    message = refusal_of(json.dumps(document))

    assert message.startswith(f"Expected {expected}")
    assert message.endswith(WHAT_TO_DO)


@pytest.mark.parametrize(
    ("key", "value", "problem"),
    [
        ("name", "", "Expected a task name, got an empty string."),
        ("timeout", 0, "expected timeout to be a number of seconds above 0, or None, got 0"),
        ("estimate", -1, "expected estimate to be a number of seconds of at least 0, or None"),
    ],
)
def test_a_definition_that_could_not_be_made_is_refused(key, value, problem) -> None:
    document = document_of(returning(1))
    document["tasks"][0][key] = value

    assert problem in refusal_of(json.dumps(document))


def test_a_document_is_read_whatever_else_is_in_it() -> None:
    document = document_of(returning(1))
    document["tasks"][0]["comment"] = "ours"

    assert 1 == results_from_json(json.dumps(document))["task"].result


# Size


def test_a_report_of_ten_thousand_tasks_comes_back() -> None:
    registry = TaskRegistry()

    async def nothing() -> None: ...

    for at in range(10_000):
        registry.task(f"t{at}", depends_on=[f"t{at - 1}"] if at else [])(nothing)
    results = run_graph(registry)

    assert report(results) == report(read_back(results))


def test_places_in_an_executor_come_back() -> None:
    registry = TaskRegistry()
    registry.task("fetch", executor="cpu", resources=["db"])(monotonic)
    registry.task("load", executor="cpu")(monotonic)
    with ThreadPoolExecutor(3) as pool:
        scheduler = TaskScheduler(
            registry, executors={"cpu": pool}, resources={"db": 2, "executor cpu": 6}
        )
        results = asyncio.run(scheduler.run())

    read = results_from_json(report(results))

    assert {"executor cpu": 6, "db": 2} == read.resources
    assert ["cpu", "cpu"] == [definition.executor for definition in read.graph.tasks]
    demands = [read._record.demand_of(number) for number in range(2)]
    assert [(("db", 1), ("executor cpu", 1)), (("executor cpu", 1),)] == demands
