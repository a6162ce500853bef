"""The report as one HTML file: a timeline, the graph, a table, what failed and why.

The page needs nothing but itself: style, program, layout library and data stand in it, and its own
policy forbids every request. What comes from the run goes in as JSON in ASCII, so nothing in it can
end the element that it stands in, and the page's program shows it as text alone.
"""

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from functools import cache
from hashlib import sha256
from html import escape
from math import isfinite, isnan
from pathlib import Path
from typing import Any, Final

from portable_sched._results import (
    CANCELLED,
    FAILED,
    PENDING,
    RUNNING,
    AttemptFailure,
    RunRecord,
    RunResults,
    TaskStatus,
)
from portable_sched._tasks import Priority
from portable_sched.analysis.breakdown import Breakdown, breakdown
from portable_sched.analysis.explanation import explain
from portable_sched.analysis.timeline import attempt_spans, last_moment, open_spans
from portable_sched.analysis.wording import counts_text

from .recorded import about
from .tracebacks import traceback_of

_ASSETS: Final = Path(__file__).with_name("assets")

_PROGRAM: Final = (
    *("base.js", "model.js", "surface.js", "timeline.js", "graph.js"),
    *("table.js", "details.js", "summary.js", "main.js"),
)
"""The parts of the page's program, in the order in which they build on each other."""

_STATUSES: Final = tuple(TaskStatus)

_LONGEST_ERROR: Final = 2_000
_LONGEST_SENTENCE: Final = 400
_LONGEST_TRACEBACK: Final = 20_000
"""Characters. A page of 10,000 failures that each repeat a response of a megabyte opens nowhere."""

_LONGEST_CHAIN: Final = 8
"""Tasks on the way to a root cause that a sentence names; beyond that the page draws the way."""

_MOST_WAITING: Final = 200
"""Tasks of a run under way that get a sentence: what a task waits for, all others may hold."""


def report(results: RunResults, title: str | None = None) -> str:
    """A page that shows the run: open the file in a browser, on paper or on a telephone.

    It is ASCII, so any encoding will do, and the same results give the same page. An empty graph
    gives a page that says so; a run that goes on is shown as it is at this moment.

    Args:
        results: of a run, over or not.
        title: what the page calls the run; "Run of 40 tasks" where it is left out.
    """
    heading = title or f"Run of {len(results):,} {'task' if len(results) == 1 else 'tasks'}"
    outcome = _as_html(f"{heading}: {counts_text(results.counts())}")
    style = _asset("report.css")
    program = _program()
    library = _library()
    parts = {
        "title": outcome,
        "outcome": outcome,
        "policy": _policy(styles=[style], scripts=[library, program]),
        "style": style,
        "library": library,
        "program": program,
        "data": _as_json(_data(results, heading)),
    }
    # In one pass, so that what stands in a part is never taken for a place of another.
    return re.sub(r"\{\{(\w+)\}\}", lambda place: parts[place[1]], _asset("page.html"))


@cache
def _asset(name: str) -> str:
    return (_ASSETS / name).read_text("utf-8")


@cache
def _program() -> str:
    """The page's program as one function, so that its names are its own."""
    return "\n".join(["(() => {", '"use strict";', *map(_asset, _PROGRAM), "})();\n"])


@cache
def _library() -> str:
    """The layout library with its licence, which asks to stand in every copy."""
    # What follows the code points to files that do not come along: a source map and the licence.
    code = _asset("dagre.min.js").partition("/*! For license")[0].rstrip()
    return f"/*!\ndagre 3.1.3, https://github.com/dagrejs/dagre\n\n{_asset('dagre.LICENSE')}*/\n{code}\n"


def _policy(*, styles: Sequence[str], scripts: Sequence[str]) -> str:
    """What the page may do: run and be styled by exactly what it brings, and ask nobody."""

    def hashes(texts: Iterable[str]) -> str:
        return " ".join(
            f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in texts
        )

    return (
        f"default-src 'none'; script-src {hashes(scripts)}; style-src {hashes(styles)}; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )


def _as_html(text: str) -> str:
    return escape(text).encode("ascii", "xmlcharrefreplace").decode()


def _as_json(data: object) -> str:
    """JSON that may stand in any element, as ASCII: a `<` in it is written as an escape."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


class _Strings:
    """Texts that many tasks share, each kept once: most lines of most tracebacks are the same."""

    def __init__(self) -> None:
        self._places: dict[str, int] = {}

    def place(self, text: str) -> int:
        """The place of a text in `all`."""
        return self._places.setdefault(text, len(self._places))

    def places(self, text: str) -> list[int]:
        """The places of its lines."""
        return [self.place(line) for line in text.rstrip("\n").split("\n")]

    def all(self) -> list[str]:
        """The texts, each at its place."""
        return list(self._places)


def _data(results: RunResults, heading: str) -> dict[str, Any]:
    """What the page shows, in columns by task number; times are seconds since the run began."""
    record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
    strings = _Strings()
    times = breakdown(results)
    return {
        "heading": heading,
        "run": _run(results, times),
        "statuses": [status.name for status in _STATUSES],
        "tasks": _tasks(results, times),
        "resources": [
            [number, [[name, _seconds(each)] for name, each in task.resources.items()]]
            for number, task in enumerate(times.tasks)
            if task.resources
        ],
        "after": _after(record),
        "settings": _settings(record, strings),
        "spans": _spans(results),
        "open": [
            [record.numbers[span.task_name], _seconds(span.start), _seconds(span.end)]
            for span in open_spans(results)
        ],
        "chain": [
            [
                *(record.numbers[link.task_name], link.reason, link.resource),
                *(_seconds(link.start), _seconds(link.end)),
            ]
            for link in times.chain
        ],
        "skipped": [
            [number, dependency, record.root_cause[number]]
            for number, dependency in record.failed_dependency.items()
        ],
        "errors": [
            [number, _cut(results[number].error or "", _LONGEST_ERROR)]
            for number, status in enumerate(record.status)
            if status == FAILED and number not in record.failed_dependency
        ],
        "failures": [
            [number, [_failure(each, record, strings) for each in failures]]
            for number, failures in sorted(record.failures.items())
        ],
        "explanations": _explanations(results),
        "strings": strings.all(),
    }


def _run(results: RunResults, times: Breakdown) -> dict[str, Any]:
    record = results._record  # noqa: SLF001 - as above
    return {
        "date": results.date.isoformat(timespec="seconds"),
        "wall_time": _seconds(last_moment(record)),
        "is_over": record.finished is not None,
        "most_running": results.most_running,
        "max_concurrency": results.max_concurrency,
        "resources": list(results.resources.items()),
        "order": results.order,
        "advice": None if times.advice is None else str(times.advice),
    }


def _tasks(results: RunResults, times: Breakdown) -> dict[str, list[Any]]:
    record = results._record  # noqa: SLF001 - as above
    begun = [not isnan(moment) for moment in record.started]
    return {
        "name": [definition.name for definition in record.tasks],
        "status": list(record.status),
        "attempts": [
            record.attempt_of(number) if was_begun else 0 for number, was_begun in enumerate(begun)
        ],
        "allowed": [definition.retries for definition in record.tasks],
        "start": [_seconds(moment - record.began) for moment in record.started],
        "end": [_seconds(moment - record.began) for moment in record.ended],
        "dependencies": [list(numbers) for numbers in record.graph.dependencies],
        "waited": [_seconds(task.dependencies) for task in times.tasks],
        "slot": [_seconds(task.slot) for task in times.tasks],
        "backoff": [_seconds(task.backoff) for task in times.tasks],
        "running": [_seconds(task.running) for task in times.tasks],
        "slack": [
            _seconds(task.slack) if was_begun else None
            for task, was_begun in zip(times.tasks, begun, strict=True)
        ],
    }


def _after(record: RunRecord) -> list[list[Any]]:
    """For the tasks that come after others, the numbers of those."""
    return [
        [number, [record.numbers[name] for name in record.tasks[number].after]]
        for number in record.graph.special
        if record.tasks[number].after
    ]


def _settings(record: RunRecord, strings: _Strings) -> list[list[Any]]:
    """What is worth saying of a task's definition, for the tasks that have something."""
    said = []
    for number, definition in enumerate(record.tasks):
        settings: dict[str, Any] = {}
        if definition.priority != Priority.MEDIUM:
            settings["priority"] = definition.priority.name
        if definition.resources:
            settings["resources"] = list(definition.resources)
        if definition.executor is not None:
            settings["executor"] = definition.executor
        if definition.timeout is not None:
            settings["timeout"] = _seconds(definition.timeout)
        told = about(definition.function)
        if told is not None:
            settings["about"] = strings.place(_cut(told, _LONGEST_SENTENCE))
        if settings:
            said.append([number, settings])
    return said


def _spans(results: RunResults) -> dict[str, list[Any]]:
    numbers = results.graph.numbers
    codes = {status: code for code, status in enumerate(_STATUSES)}
    spans = attempt_spans(results)
    return {
        "task": [numbers[span.task_name] for span in spans],
        "attempt": [span.attempt for span in spans],
        "slot": [span.slot for span in spans],
        "start": [_seconds(span.start) for span in spans],
        "end": [_seconds(span.end) for span in spans],
        "status": [codes[span.status] for span in spans],
    }


def _failure(failure: AttemptFailure, record: RunRecord, strings: _Strings) -> list[Any]:
    return [
        failure.attempt,
        _seconds(failure.started_at - record.began),
        _seconds(failure.duration),
        _seconds(failure.backoff),
        strings.places(_cut(traceback_of(failure.exception), _LONGEST_TRACEBACK)),
    ]


def _explanations(results: RunResults) -> list[list[Any]]:
    """For the tasks that have not completed, why."""
    record = results._record  # noqa: SLF001 - as above
    said: list[list[Any]] = []
    waiting = 0
    for number, status in enumerate(record.status):
        if status in {PENDING, RUNNING}:
            waiting += 1
            wanted = waiting <= _MOST_WAITING
        else:
            wanted = status == CANCELLED or (status == FAILED and _is_near(record, number))
        if wanted:
            text = explain(results, record.tasks[number].name).text
            said.append([number, _cut(text, _LONGEST_SENTENCE)])
    return said


def _is_near(record: RunRecord, number: int) -> bool:
    """Whether the root cause of a failure is so near that a sentence can tell the way to it."""
    for _ in range(_LONGEST_CHAIN):
        if number not in record.failed_dependency:
            return True
        number = record.failed_dependency[number]
    return False


def _seconds(seconds: float) -> float | None:
    """To the microsecond, which is what a page can show; None where nothing is known."""
    return round(seconds, 6) if isfinite(seconds) else None


def _cut(text: str, most: int) -> str:
    """A text of at most about so many characters: of a longer one the beginning and the end."""
    if len(text) <= most:
        return text
    head = most // 4
    left_out = len(text) - most
    return f"{text[:head]} [... {left_out:,} characters left out ...] {text[head - most :]}"
