"""Results as a Chrome trace, which Perfetto shows along the time of the run."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import isnan
from typing import Any, Final

from portable_sched._errors import error_text
from portable_sched._results import FAILED, RunResults, TaskStatus
from portable_sched.analysis.timeline import (
    AttemptSpan,
    attempt_spans,
    last_moment,
    open_spans,
    ready_at,
)

_PROCESS: Final = 1

# To viewers, thread 0 is the idle one, and that of the process's own number the main one.
_FIRST_LANE: Final = 2

_SHORTEST_WAIT: Final = 1_000
"""Nanoseconds: what takes less is the scheduler passing on a slot, and nobody's wait."""

# A viewer may be written in C, where a text ends at the first of these, or is no text.
_UNPRINTABLE: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")

_Event = dict[str, Any]


def report(results: RunResults) -> str:
    """A run as trace events in JSON: open the file at ui.perfetto.dev.

    There is a lane for each slot, with the attempts that ran in it, and arrows along dependencies.
    Beside the lanes stand three groups of spans: `waiting`, of tasks that could have started, or
    gone on, and had to wait for a slot or a resource; `backoff`; and `open`, of lifetimes from
    their `yield` to the end of their teardown. Two counters tell how many tasks were running and
    waiting.

    Times are microseconds since the run began. What a run under way has not ended yet is cut off at
    the last moment that is known. An empty graph gives a trace without lanes.
    """
    trace = _Trace(results)
    # Stable: of events of one moment, an attempt comes before the arrows that are bound to it.
    events = [*trace.metadata(), *sorted(trace.events(), key=lambda event: event["ts"])]
    lines = ",\n".join(map(json.dumps, events))
    about = json.dumps({"date": results.date.isoformat(), "order": results.order or "priority"})
    return f'{{"displayTimeUnit": "ms", "otherData": {about}, "traceEvents": [\n{lines}\n]}}\n'


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pause:
    """A time in which a task was not in its function and had no one to wait for.

    Attributes:
        task_name: the task.
        attempt: which attempt came after it, or would have.
        kind: "waiting" or "backoff".
        start: its beginning, in seconds since the run began.
        end: its end, likewise.
        goes_on: whether it is only cut off there.
    """

    task_name: str
    attempt: int
    kind: str
    start: float
    end: float
    goes_on: bool


class _Trace:
    """The events of one run."""

    def __init__(self, results: RunResults) -> None:
        self._results = results
        self._record = results._record  # noqa: SLF001 - the columns are the data, and this reads them
        self._until = last_moment(self._record)
        self._spans = attempt_spans(results, self._until)
        # For each task that was started, where its attempts stand among the spans.
        self._of_task: dict[int, list[int]] = {}
        for at, span in enumerate(self._spans):
            self._of_task.setdefault(self._record.numbers[span.task_name], []).append(at)
        self._pauses = [
            pause
            for number in range(len(self._record.tasks))
            for pause in self._pauses_of(number)
            if _nanoseconds(pause.end) - _nanoseconds(pause.start) >= _SHORTEST_WAIT
        ]
        self._ids = count(1)

    def metadata(self) -> Iterator[_Event]:
        """The names of the process and its lanes."""
        yield _metadata("process_name", 0, {"name": "portable_sched"})
        for slot in range(1 + max((span.slot for span in self._spans), default=-1)):
            lane = _FIRST_LANE + slot
            yield _metadata("thread_name", lane, {"name": f"slot {slot + 1}"})
            yield _metadata("thread_sort_index", lane, {"sort_index": slot})

    def events(self) -> Iterator[_Event]:
        """All the others, in no order of time."""
        yield from self._attempts()
        for pause in self._pauses:
            yield from self._beside(pause.kind, pause.task_name, pause.start, pause.end)
        for span in open_spans(self._results, self._until):
            yield from self._beside(
                "open", span.task_name, span.start, span.end, **self._teardown(span.task_name)
            )
        yield from self._counters()

    def _attempts(self) -> Iterator[_Event]:
        """Each attempt, with the ends of the arrows that are bound to it."""
        waited = {
            (pause.task_name, pause.attempt): pause.end - pause.start
            for pause in self._pauses
            if pause.kind == "waiting"
        }
        incoming, outgoing = self._arrows()
        for at, span in enumerate(self._spans):
            start, end = _nanoseconds(span.start), _nanoseconds(span.end)
            lane = {"pid": _PROCESS, "tid": _FIRST_LANE + span.slot}
            args: dict[str, Any] = {
                "attempt": span.attempt,
                "status": span.status.name,
                "waiting": round(waited.get((span.task_name, span.attempt), 0.0), 6),
            }
            if span.status is TaskStatus.FAILED:
                args["error"] = self._error(span)
            yield {
                "ph": "X",
                **lane,
                "cat": "attempt",
                "name": _printable(span.task_name),
                "ts": _microseconds(start),
                "dur": _microseconds(end - start),
                "args": args,
            }
            for arrow in incoming.get(at, ()):
                # Bound to the attempt that it comes to, and not to whatever follows.
                yield {"ph": "f", "bp": "e", **lane, **arrow, "ts": _microseconds(start)}
            for arrow in outgoing.get(at, ()):
                # An arrow is bound to what is under way at its moment: at its end, nothing is.
                yield {"ph": "s", **lane, **arrow, "ts": _microseconds(max(start, end - 1))}

    def _arrows(self) -> tuple[dict[int, list[_Event]], dict[int, list[_Event]]]:
        """The arrows into the first attempt of each task, and those out of the last one."""
        incoming: dict[int, list[_Event]] = {}
        outgoing: dict[int, list[_Event]] = {}
        graph = self._record.graph
        for number, spans in self._of_task.items():
            dependencies = set(graph.dependencies[number])
            for earlier in graph.waits_for(number):
                if earlier in self._of_task:
                    kind = "dependency" if earlier in dependencies else "after"
                    arrow = {"cat": kind, "name": kind, "id": self._new_id()}
                    incoming.setdefault(spans[0], []).append(arrow)
                    outgoing.setdefault(self._of_task[earlier][-1], []).append(arrow)
        return incoming, outgoing

    def _pauses_of(self, number: int) -> Iterator[_Pause]:
        """What a task waited for beside others: before each attempt, and in vain after the last."""
        record = self._record
        ready = ready_at(record, number)
        if ready is None:
            return
        name = record.tasks[number].name
        has_ended = not isnan(record.ended[number])
        until = record.ended[number] - record.began if has_ended else self._until
        backoffs = {one.attempt: one.backoff for one in record.failures.get(number, ())}
        since = ready - record.began
        steps = [(span.start, span.end, False) for span in self._spans_of(number)]
        for before, (start, end, goes_on) in enumerate([*steps, (until, until, not has_ended)]):
            over = min(since + backoffs.get(before, 0.0), start)
            for kind, begin, stop in (("backoff", since, over), ("waiting", over, start)):
                yield _Pause(
                    task_name=name,
                    attempt=before + 1,
                    kind=kind,
                    start=begin,
                    end=stop,
                    goes_on=goes_on,
                )
            since = end

    def _spans_of(self, number: int) -> list[AttemptSpan]:
        return [self._spans[at] for at in self._of_task.get(number, ())]

    def _error(self, span: AttemptSpan) -> str:
        """What a failed attempt raised last: `retry_on` may have raised something about it too."""
        failures = self._record.failures[self._record.numbers[span.task_name]]
        errors = [one.exception for one in failures if one.attempt == span.attempt]
        return _printable(error_text(errors[-1]))

    def _teardown(self, name: str) -> dict[str, str]:
        """What went wrong between the `yield` of a lifetime and its end."""
        number = self._record.numbers[name]
        if self._record.status[number] != FAILED:
            return {}
        return {"error": _printable(error_text(self._record.exception_of(number)))}

    def _beside(
        self, kind: str, name: str, start: float, end: float, **args: str
    ) -> Iterator[_Event]:
        """A span outside the lanes, in its group: viewers name that after the outer one of two."""
        shared = {"pid": _PROCESS, "tid": _FIRST_LANE, "cat": kind, "id": self._new_id()}
        begins, ends = _microseconds(_nanoseconds(start)), _microseconds(_nanoseconds(end))
        inner = _printable(name)
        yield {"ph": "b", **shared, "name": kind, "ts": begins, "args": {}}
        yield {"ph": "b", **shared, "name": inner, "ts": begins, "args": args}
        yield {"ph": "e", **shared, "name": inner, "ts": ends}
        yield {"ph": "e", **shared, "name": kind, "ts": ends}

    def _counters(self) -> Iterator[_Event]:
        changes: dict[int, list[int]] = {0: [0, 0]}

        def change(seconds: float, which: int, by: int) -> None:
            changes.setdefault(_nanoseconds(seconds), [0, 0])[which] += by

        for span in self._spans:
            change(span.start, 0, 1)
            if span.status is not TaskStatus.RUNNING:
                change(span.end, 0, -1)
        for pause in self._pauses:
            if pause.kind == "waiting":
                change(pause.start, 1, 1)
                if not pause.goes_on:
                    change(pause.end, 1, -1)
        running = waiting = 0
        for moment in sorted(changes):
            running += changes[moment][0]
            waiting += changes[moment][1]
            yield {
                "ph": "C",
                "pid": _PROCESS,
                "tid": _FIRST_LANE,
                "name": "tasks",
                "ts": _microseconds(moment),
                "args": {"running": running, "waiting": waiting},
            }

    def _new_id(self) -> str:
        # Viewers read the id of an arrow as a hexadecimal number, that of a span as text.
        return f"{next(self._ids):#x}"


def _metadata(name: str, lane: int, args: _Event) -> _Event:
    return {"ph": "M", "pid": _PROCESS, "tid": lane, "name": name, "args": args}


def _nanoseconds(seconds: float) -> int:
    """Whole ones, since no float holds a sum of microseconds exactly: lanes must not overlap."""
    return max(0, round(seconds * 1e9))


def _microseconds(nanoseconds: int) -> float:
    whole, rest = divmod(nanoseconds, 1000)
    return nanoseconds / 1000 if rest else whole


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)
