"""Results as a JSON document of a fixed, versioned form, and back.

`results.schema.json`, beside this module, is its JSON Schema. Whatever is added to it, or means
something else one day, raises `VERSION`.
"""

import json
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from math import isfinite, isnan
from typing import Any, Final

from portable_sched._checks import shown
from portable_sched._errors import DependencyFailedError, TaskError
from portable_sched._graph import Graph
from portable_sched._resources import THREAD, held_by
from portable_sched._results import (
    COMPLETED,
    FAILED,
    PENDING,
    RUNNING,
    AttemptFailure,
    RunRecord,
    RunResults,
    TaskStatus,
)
from portable_sched._tasks import Priority, TaskDef

from .document import Part, parsed, refused
from .recorded import (
    UnrecordedResult,
    about,
    kind_of,
    origin_of,
    placeholder,
    recorded_error,
    result_type_of,
    type_name,
)
from .tracebacks import traceback_of

FORMAT: Final = "portable_sched.results"
"""What a document says that it is."""

VERSION: Final = 1
"""The version of the form that is written here, and the latest that is read."""

_SURROGATE: Final = re.compile("[\ud800-\udfff]")

# What JSON would let stand, and editors, terminals and JavaScript take for something else.
_UNSAFE: Final = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ud800-\udfff]")

# Deeper ones are refused by readers of JSON, and a list may contain itself.
_MOST_LEVELS: Final = 100

# Some 600 digits. Python itself refuses to read many more, and may be told to refuse more than 640.
_MOST_BITS: Final = 2_000

_CODES: Final = {status.name: code for code, status in enumerate(TaskStatus)}


def report(results: RunResults, *, indent: int | None = 2, keep_results: bool = True) -> str:
    """All that is known of a run, as a JSON document; `results_from_json` reads it back.

    Times are seconds, those of tasks since the run began. It tells of a run under way as far as it
    has come: `wall_time` is null then, as is what has not happened. What a task returned is there
    where JSON holds it exactly: None, booleans, whole and finite numbers, text, and lists and
    dicts with text for keys of all that. The type of a result is always there.

    Names and messages may hold what is no Unicode text, such as the undecodable bytes of a file
    name. They are written as escapes, so that they come back as they were.

    Args:
        results: of a run, over or not.
        indent: spaces for each level; None for all on one line.
        keep_results: whether what tasks returned is written.
    """
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    document = {
        "format": FORMAT,
        "version": VERSION,
        "run": _run(results, record),
        "tasks": [_task(record, number, keep_results) for number in range(len(record.tasks))],
    }
    text = json.dumps(document, indent=indent, ensure_ascii=False, allow_nan=False)
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def results_from_json(text: str) -> RunResults:
    """The results that a report in JSON tells of.

    Every other report of them is what it was of the run itself. Exceptions come back as
    `RecordedError`, of a class that bears the name of theirs, and results that JSON does not hold
    as `UnrecordedResult`. The functions of the graph are placeholders, which raise when called.

    Args:
        text: what `scheduler.report(format="json")` has made, or a file that
            `results.save("run.json")` has written.

    Raises:
        TypeError: it is no text.
        ValueError: it is no such report, or one of a newer version.

    >>> from portable_sched import TaskRegistry
    >>> from portable_sched.reporting.json import report, results_from_json
    >>> from portable_sched.testing import run_graph
    >>> registry = TaskRegistry()
    >>> @registry.task
    ... async def count() -> int:
    ...     return 42
    >>> results_from_json(report(run_graph(registry)))["count"].result
    42
    """
    document = Part(parsed(text), "the document")
    _check_version(document)
    run = Part(document.take("run", "an object"), "run")
    tasks = [Part(task, f"tasks[{at}]") for at, task in enumerate(document.take("tasks", "a list"))]
    graph = _graph(run, tasks)
    record = RunRecord(graph, run.take("clock", "a number"))
    _fill_run(record, run)
    _fill_limits(record, run)
    for task in tasks:
        _fill_task(record, graph.numbers[task.take("name", "a string")], task)
    _check_root_causes(record)
    return RunResults(record)


# Writing


def _run(results: RunResults, record: RunRecord) -> dict[str, Any]:
    counts = results.counts()
    counted_threads = any(resource == THREAD for demand in record.demands for resource, _ in demand)
    by = record.drained_by
    return {
        "date": f"{results.date:%Y-%m-%dT%H:%M:%S.%f}Z",
        "clock": record.began,
        "wall_time": None if record.finished is None else results.wall_time,
        "ok": results.ok,
        "counts": {status.name: counts.get(status, 0) for status in TaskStatus},
        "most_running": record.most_running,
        "max_concurrency": record.limit,
        "resources": results.resources,
        "threads": record.capacity[THREAD] if counted_threads else None,
        "order": record.order,
        "inherit_priority": record.graph._inherit_priority,  # noqa: SLF001 - nobody else asks
        "stopped_at": None if record.drained is None else record.drained - record.began,
        "stopped_by": None if by is None else record.tasks[by].name,
    }


def _task(record: RunRecord, number: int, keep_results: bool) -> dict[str, Any]:  # noqa: FBT001 - the caller's own
    definition = record.tasks[number]
    result = record.result_of(number)
    module, function = origin_of(definition.function)

    def moment(at: float | None) -> float | None:
        return None if at is None or isnan(at) else at - record.began

    started, ended = moment(record.started[number]), moment(record.ended[number])

    def name(of: int | None) -> str | None:
        return None if of is None else record.tasks[of].name

    task = {
        "name": definition.name,
        "status": result.status.name,
        "attempts": result.attempts,
        "started_at": started,
        "last_attempt_at": moment(record.attempt_start_of(number)),
        "ended_at": ended,
        "closed_at": moment(record.closed.get(number)),
        # Of these very moments, so that it is the same once they have been read back: by the clock,
        # of which they are parts, it may differ in the last digit.
        "duration": 0.0 if started is None or ended is None else ended - started,
        "error": result.error,
        "failed_dependency": name(record.failed_dependency.get(number)),
        "root_cause": name(record.root_cause.get(number)),
        "failures": [_failure(failure, record.began) for failure in result.failures],
        "kind": kind_of(definition),
        "function": {"module": module, "name": function},
        "about": about(definition.function),
        "depends_on": [record.tasks[one].name for one in record.graph.dependencies[number]],
        "after": list(definition.after),
        "priority": definition.priority.name,
        "place": record.graph.place[number],
        "retries": definition.retries,
        "timeout": definition.timeout,
        "resources": dict(definition.resources),
        "executor": definition.executor,
        "estimate": definition.estimate,
    }
    if result.ok:
        task["result_type"] = result_type_of(result.result)
        if keep_results and _is_exact(result.result):
            task["result"] = result.result
    return task


def _failure(failure: AttemptFailure, began: float) -> dict[str, Any]:
    error = failure.exception
    exception: dict[str, Any] = {
        "type": type_name(type(error)),
        "message": _message(error),
        "notes": [str(note) for note in getattr(error, "__notes__", ())],
        "traceback": traceback_of(error),
    }
    if isinstance(error, DependencyFailedError):
        exception["dependency_failed"] = {part: getattr(error, part) for part in _DEPENDENCY_FAILED}
    return {
        "attempt": failure.attempt,
        "started_at": failure.started_at - began,
        "duration": failure.duration,
        "backoff": failure.backoff,
        "exception": exception,
    }


_DEPENDENCY_FAILED: Final = ("task", "dependency", "root_cause", "reason")


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the user's own __str__, and a report is no place to fail
        return "<exception str() failed>"


def _is_exact(value: Any, levels: int = _MOST_LEVELS) -> bool:
    """Whether JSON holds a value in full, so that any reader gets the same one."""
    kind = type(value)
    if kind is list:
        return levels > 0 and all(_is_exact(one, levels - 1) for one in value)
    if kind is dict:
        return levels > 0 and all(
            type(key) is str and _is_exact(key) and _is_exact(one, levels - 1)
            for key, one in value.items()
        )
    fits = _EXACT.get(kind)
    return fits is not None and fits(value)


_EXACT: Final[dict[type, Callable[[Any], bool]]] = {
    type(None): lambda _: True,
    bool: lambda _: True,
    int: lambda value: value.bit_length() <= _MOST_BITS,
    float: isfinite,
    str: lambda value: _SURROGATE.search(value) is None,
}


# Reading


def _check_version(document: Part) -> None:
    if document.take("format", "a string") != FORMAT:
        raise refused(f"the format {FORMAT!r}, got {document.take('format', 'a string')!r}")
    version = document.take("version", "a whole number of at least 1")
    if version > VERSION:
        raise ValueError(
            f"Expected version {VERSION} of the format, got version {version}, which a newer "
            "portable_sched has written. Update this one: pip install --upgrade portable_sched."
        )


def _graph(run: Part, tasks: Sequence[Part]) -> Graph:
    inherit_priority = run.take("inherit_priority", "true or false")
    try:
        graph = Graph(map(_definition, tasks), inherit_priority=inherit_priority)
    except (TaskError, TypeError) as error:
        raise refused(f"tasks to make a graph, got these: {error}") from error
    places = {
        graph.numbers[task.take("name", "a string")]: task.take(
            "place", "a whole number of at least 0"
        )
        for task in tasks
    }
    if sorted(places.values()) != list(range(len(graph))):
        raise refused("tasks to have a place each, from 0, and got the same one twice")
    by_place = sorted(places, key=places.__getitem__)
    if by_place == graph.by_place:
        return graph
    # They were registered in another order than this, or started in another one than by priority.
    other = graph.reordered(by_place)
    if not run.take("order", "a string"):
        other.urgency = graph.urgency
    return other


def _definition(task: Part) -> TaskDef:
    name = task.take("name", "a string")
    kind = task.member("kind", {kind: kind for kind in ("async", "thread", "lifetime")})
    function = Part(task.take("function", "an object"), f"the function of {name!r}")
    module, qualified = function.take("module", "a string"), function.take("name", "a string")
    docstring = task.take("about", "a string or null")
    return TaskDef(
        name=name,
        function=placeholder(name, kind, module, qualified, docstring),
        priority=task.member("priority", Priority.__members__),
        retries=task.take("retries", "a whole number of at least 1"),
        depends_on=task.take("depends_on", "a list of strings"),
        after=task.take("after", "a list of strings"),
        timeout=task.take("timeout", "a number or null"),
        resources=task.take("resources", "an object of whole numbers"),
        executor=task.take("executor", "a string or null"),
        estimate=task.take("estimate", "a number or null"),
        parameters=(),
    )


def _fill_run(record: RunRecord, run: Part) -> None:
    wall_time = run.take("wall_time", "a number or null")
    stopped_at = run.take("stopped_at", "a number or null")
    record.date = _seconds_since_the_epoch(run)
    record.finished = None if wall_time is None else record.began + wall_time
    record.drained = None if stopped_at is None else record.began + stopped_at
    record.drained_by = run.task("stopped_by", record.numbers)
    record.most_running = run.take("most_running", "a whole number of at least 0")
    record.order = run.take("order", "a string")


def _seconds_since_the_epoch(run: Part) -> float:
    try:
        date = datetime.fromisoformat(run.take("date", "a string"))
    except ValueError:
        date = None
    if date is None or date.tzinfo is None:
        raise run.refused("date", "a date and time in UTC, as 2026-01-31T12:00:00Z")
    return date.timestamp()


def _fill_limits(record: RunRecord, run: Part) -> None:
    record.limit = run.take("max_concurrency", "a whole number of at least 1, or null")
    threads = run.take("threads", "a whole number of at least 1, or null")
    capacity = dict(run.take("resources", "an object of whole numbers"))
    demands = [held_by(definition, capacity) for definition in record.tasks]
    if threads is not None:
        capacity[THREAD] = threads
        for number, definition in enumerate(record.tasks):
            if definition.needs_thread():
                demands[number] = (*demands[number], (THREAD, 1))
    for task, demand in zip(record.tasks, demands, strict=True):
        for resource, units in demand:
            if units > capacity.get(resource, 0):
                raise refused(
                    f"run.resources to have what {task.name!r} asks for, {units} of {resource!r}, "
                    f"got {shown(capacity)}"
                )
    record.capacity = capacity
    if any(demands):
        record.demands = demands


def _fill_task(record: RunRecord, number: int, task: Part) -> None:
    began = record.began
    status = record.status[number] = task.member("status", _CODES)
    started, latest, ended, closed = (
        task.take(key, "a number or null")
        for key in ("started_at", "last_attempt_at", "ended_at", "closed_at")
    )
    attempts = task.take("attempts", "a whole number of at least 0")
    if (started is None, latest is None) != (not attempts, not attempts):
        raise task.refused("attempts", "0 where a task was not started, and else at least 1")
    if started is None and status in {RUNNING, COMPLETED}:
        raise task.refused("started_at", "a number where a task was started")
    if (ended is None) is not (status in {PENDING, RUNNING}):
        raise task.refused("ended_at", "a number where a task has ended, and else null")
    if started is not None:
        record.started[number] = began + started
    if attempts > 1:
        record.attempts[number] = attempts
        record.attempt_began[number] = began + latest
    if ended is not None:
        record.ended[number] = began + ended
    if closed is not None:
        record.closed[number] = began + closed
    if status == COMPLETED:
        record.results[number] = _result(task)
    _fill_failures(record, number, task)


def _result(task: Part) -> Any:
    result_type = task.take("result_type", "a string")
    return task.take("result", "anything") if "result" in task else UnrecordedResult(result_type)


def _fill_failures(record: RunRecord, number: int, task: Part) -> None:
    failures = list(_failures(task, record.began))
    if failures:
        record.failures[number] = failures
    dependency = task.task("failed_dependency", record.numbers)
    root = task.task("root_cause", record.numbers)
    if (dependency is None) is not (root is None):
        raise task.refused("root_cause", "null where failed_dependency is, and else a task")
    if dependency is not None and root is not None:
        record.failed_dependency[number] = dependency
        record.root_cause[number] = root
    elif record.status[number] == FAILED and not failures:
        raise task.refused("failures", "at least one, or failed_dependency to be a task")


def _failures(task: Part, began: float) -> Iterator[AttemptFailure]:
    for each in task.take("failures", "a list"):
        failure = Part(each, "a failure")
        yield AttemptFailure(
            attempt=failure.take("attempt", "a whole number of at least 1"),
            exception=_exception(Part(failure.take("exception", "an object"), "an exception")),
            duration=failure.take("duration", "a number"),
            started_at=began + failure.take("started_at", "a number"),
            backoff=failure.take("backoff", "a number"),
        )


def _exception(part: Part) -> BaseException:
    parts = None
    if "dependency_failed" in part:
        failed = Part(part.take("dependency_failed", "an object"), "dependency_failed")
        parts = tuple([failed.take(key, "a string") for key in _DEPENDENCY_FAILED])
    error = recorded_error(
        part.take("type", "a string"),
        part.take("message", "a string"),
        part.take("traceback", "a string"),
        parts,
    )
    for note in part.take("notes", "a list of strings"):
        error.add_note(note)
    return error


def _check_root_causes(record: RunRecord) -> None:
    for number, root in record.root_cause.items():
        if root not in record.failures:
            raise refused(
                f"{record.tasks[root].name!r}, for which {record.tasks[number].name!r} was not "
                "started, to have failures, got none"
            )
