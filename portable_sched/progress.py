"""A live view of a run, in a terminal or a notebook; lines where the output is a log.

    from portable_sched.progress import Progress

    scheduler = TaskScheduler(observers=[Progress()])

A thread draws it, ten times a second at most, and reads from the columns of the run what it draws:
a run that is shown makes no events but those of its start and its end. If events drew it, the time
would stand still while a long task runs, and events alone cost several times what a short task
takes. The thread writes nothing that the run reads, so it may read in the middle of a decision: all
that it finds then is a task without a time, which it leaves out. Beside a busy event loop it waits
5 ms for its turn and keeps it for 2.
"""

import atexit
import os
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from heapq import nlargest, nsmallest
from math import ceil, isnan
from threading import Event as Signal
from threading import RLock, Thread
from time import monotonic, thread_time
from typing import ClassVar, Final, Generic, TypeVar

try:
    from rich.cells import cell_len
    from rich.console import Console
    from rich.text import Text
except ImportError as _missing:
    raise ImportError(
        "portable_sched.progress needs rich, which is not installed: "
        "pip install 'portable_sched[rich]'"
    ) from _missing

from portable_sched import Event, RunFinished, RunResults, RunStarted
from portable_sched._checks import shown
from portable_sched._errors import error_text
from portable_sched._log import logger
from portable_sched._progress_places import Place, fitted, open_place
from portable_sched._results import CANCELLED, COMPLETED, FAILED, PENDING, RUNNING, RunRecord
from portable_sched.analysis.plan import known_seconds, remaining
from portable_sched.analysis.timeline import is_in_function
from portable_sched.analysis.wording import in_seconds, on_one_line, tasks_text

__all__ = ["Progress"]

T = TypeVar("T")

# What may be worked out now and then takes this part of the time at most, and drawing this.
_SHARE: Final = 0.02
_DRAWING_SHARE: Final = 0.05
# A first guess at what the simulation of what is left takes, in seconds for each task.
_SIMULATION: Final = 10e-6
# Seconds between two estimates: one that changes ten times a second cannot be read.
_CALM: Final = 0.5
# The last failures in a view, and those that are told at one time where lines are.
_FAILURES, _FAILURE_LINES = 3, 10
# In a log the first lines come so many seconds apart, and the last so many at most.
_FIRST_LINES, _LAST_LINES = 5.0, 60.0
# Rows that are kept at hand; no terminal is higher.
_MOST_ROWS: Final = 200
# The text of an exception may be a page; it is read in the report.
_MOST_TEXT: Final = 500
_SHORTEST_BAR: Final = 10
# Up to when a time is in tenths of a second, an estimate in seconds, and one in minutes.
_TENTHS_UNTIL, _SECONDS_UNTIL, _MINUTES_UNTIL = 99.95, 90, 90

# The statuses in the order in which the bar has them, with word and colour.
_PARTS: Final = (
    (COMPLETED, "completed", "green"),
    (FAILED, "failed", "red"),
    (CANCELLED, "cancelled", "yellow"),
    (RUNNING, "running", "cyan"),
    (PENDING, "waiting", "bright_black"),
)
# What has not ended is drawn in another shape too, since not every terminal has colours.
_SHAPES: Final = {RUNNING: "╍", PENDING: "─"}


class Progress:
    """An observer that shows how a run goes on.

    Give it to a scheduler as `observers=[Progress()]`. In a terminal there is a bar with how many
    tasks have each status, the time, and an estimate of what remains, from a simulation of what is
    left; the tasks that are running, those first that began first, with their attempts; and the
    last failures. What else the program prints or logs stands above it. In a notebook it is one
    output, which is updated. Where the output is no terminal, or under CI, it is a line now and
    then and one for each failure. In each of them the end is summed up.

    It serves any number of runs, also at once: all that are shown on one console stand below each
    other. A program that has a live display of rich of its own passes the console of that. What
    other processes write to the terminal is beyond it.

    Args:
        console: where to; standard error where it is left out.
        seconds: what tasks are known to take, for the estimate: the results of an earlier run, or
            seconds by task name. Of others the `estimate` counts, and the average of those that
            have completed where there is none.

    Raises:
        TypeError, ValueError: an argument is not what it should be.
    """

    wants: ClassVar[tuple[type[Event], ...]] = (RunStarted, RunFinished)

    def __init__(
        self,
        console: Console | None = None,
        *,
        seconds: RunResults | Mapping[str, float] | None = None,
    ) -> None:
        if console is not None and not isinstance(console, Console):
            raise TypeError(f"Expected console to be a rich.console.Console, got {shown(console)}.")
        self._console = console
        self._seconds = known_seconds(seconds)

    def __call__(self, event: Event) -> None:
        if isinstance(event, RunStarted):
            _begin(_Run(event.results, event.at, self._seconds), self._console)
        elif isinstance(event, RunFinished):
            _end(event.results, self._console)


# What is shown at this moment, by process and console: a forked process has no thread of ours.
_displays: Final[dict[tuple[int, Console | None], "_Display"]] = {}
# Held while runs begin and end there: event loops may run in several threads.
_opening: Final = RLock()


def _begin(run: "_Run", console: Console | None) -> None:
    place = os.getpid(), console
    with _opening:
        if place not in _displays:
            _displays[place] = _Display(console)
        _displays[place].begin(run)


def _end(results: RunResults, console: Console | None) -> None:
    place = os.getpid(), console
    with _opening:
        display = _displays.get(place)
        run = None if display is None else display.run_of(results)
        if display is not None and run is not None:
            if display.runs == [run]:
                del _displays[place]
            display.end(run)


class _Display:
    """The runs that are shown in one place, and the thread that shows them.

    Attributes:
        runs: those under way, in the order in which they began.
    """

    def __init__(self, console: Console | None) -> None:
        self.runs: list[_Run] = []
        self._place: Place = open_place(console)
        self._done = Signal()
        # Held while something is shown.
        self._lock = RLock()
        # For a run that never comes to its end, as its event loop has not.
        atexit.register(self._place.stop)
        name = "portable_sched progress"
        self._thread = Thread(target=self._keep_showing, name=name, daemon=True)
        self._thread.start()

    def begin(self, run: "_Run") -> None:
        with self._lock:
            self.runs.append(run)
            if not self._place.is_live:
                self._place.say([Text(f"Run started: {tasks_text(run.total)}")])

    def run_of(self, results: RunResults) -> "_Run | None":
        """The run that results are of, if it is shown here."""
        return next((run for run in self.runs if run.is_of(results)), None)

    def end(self, run: "_Run") -> None:
        """A run is over. With the last one the display is."""
        with self._lock:
            self.runs.remove(run)
            if self.runs:
                self._say_how_it_ended(run)
                return
        try:
            self._done.set()
            self._thread.join()
        finally:
            atexit.unregister(self._place.stop)
            self._place.stop()
        self._say_how_it_ended(run)

    def show(self) -> None:
        """Show how things stand."""
        with self._lock:
            if not self._place.is_live:
                for run in self.runs:
                    self._place.say(list(run.news()))
            elif self.runs:
                width, height = self._place.size
                each = height // len(self.runs)
                self._place.show([line for run in self.runs for line in run.view(width, each)])

    def _say_how_it_ended(self, run: "_Run") -> None:
        self._place.say(run.end(self._place.size[0]) if self._place.is_live else run.last_news())

    def _keep_showing(self) -> None:
        pause = 0.0
        try:
            while not self._done.wait(max(pause, self._place.pause)):
                before = thread_time()
                self.show()
                pause = (thread_time() - before) / _DRAWING_SHARE
        except Exception:  # noqa: BLE001 - a terminal that is gone, for instance; the run is not
            logger().exception("Progress is not shown any more.")


class _Run:
    """What there is to say of one run.

    Args:
        results: of the run, as they are at any moment.
        at: the time by the clock of its event loop.
        seconds: what tasks are known to take.

    Attributes:
        total: how many tasks there are.
    """

    def __init__(self, results: RunResults, at: float, seconds: Mapping[str, float]) -> None:
        self._results = results
        self._record: RunRecord = results._record  # noqa: SLF001 - the columns are the data
        self._seconds = seconds
        # The clock of an event loop can be read in that loop's thread alone.
        self._ahead = at - monotonic()
        self.total = len(results)
        self._expected: _Sparingly[float | None] = _Sparingly(
            cost=self.total * _SIMULATION, calm=_CALM
        )
        self._longest: _Sparingly[list[int]] = _Sparingly()
        self._last_failures: _Sparingly[list[int]] = _Sparingly()
        self._told: set[int] = set()
        self._next_line = _FIRST_LINES

    def is_of(self, results: RunResults) -> bool:
        """Whether results are those of this run."""
        return results._record is self._record  # noqa: SLF001 - as above

    def view(self, width: int, height: int) -> Iterator[Text]:
        """What is shown of it while it goes on, in so many columns and rows."""
        elapsed = self._elapsed()
        counts = self._counts()
        yield _bar(counts, [_clock(elapsed), self._left_text(counts, elapsed)], width)
        yield _numbers(counts, width)
        failures = self._last_failures.at(elapsed, self._failed_last) or []
        failures = failures[: max(0, (height - 2) // 3)]
        rows = self._rows(elapsed)
        count = max(counts[RUNNING], len(rows))
        room = max(0, height - 2 - len(failures))
        # With room for one, that is a task: how many are running has been said.
        says_more = count > room > 1
        rows = rows[: room - says_more]
        yield from _table(rows, width)
        if says_more:
            yield Text(f"  and {count - len(rows)} more", style="bright_black")
        for number in failures:
            yield _cut(self._failure(number), width)

    def end(self, width: int) -> list[Text]:
        """What stays of it where there was a view."""
        counts = self._counts()
        lines = [_bar(counts, [_clock(self._results.wall_time)], width), _numbers(counts, width)]
        failed = self._failed_by_themselves()
        lines += [self._failure(number) for number in failed[:_FAILURE_LINES]]
        if len(failed) > _FAILURE_LINES:
            lines.append(Text(f"and {len(failed) - _FAILURE_LINES} more", style="red"))
        return lines

    def news(self) -> Iterator[Text]:
        """What there is to tell, line by line: what has failed, and how far it is now and then."""
        elapsed = self._elapsed()
        yield from self._new_failures()
        if elapsed >= self._next_line:
            self._next_line = elapsed + min(max(_FIRST_LINES, elapsed / 10), _LAST_LINES)
            yield Text(self._how_far(elapsed))

    def last_news(self) -> list[Text]:
        """The last of it, where there were lines."""
        counts = self._counts()
        ended = ", ".join(f"{counts[code]} {word}" for code, word, _ in _PARTS[:3])
        took = in_seconds(self._results.wall_time)
        line = Text(f"Run finished: {tasks_text(self.total)} in {took}: {ended}")
        return [*self._new_failures(), line]

    def _elapsed(self) -> float:
        return monotonic() + self._ahead - self._record.began

    def _counts(self) -> list[int]:
        """How many tasks have each status, by its code."""
        # One copy, or a task that goes on meanwhile would count twice or not at all.
        status = bytes(self._record.status)
        return [status.count(code) for code in range(len(_PARTS))]

    def _expected_end(self, elapsed: float) -> float | None:
        left = remaining(self._results, elapsed, self._seconds)
        return None if left is None or isnan(left) else elapsed + left

    def _left_text(self, counts: list[int], elapsed: float) -> str:
        """What is thought to be left; the end was worked out a while ago."""
        if not counts[RUNNING] + counts[PENDING]:
            return ""
        end = self._expected.at(elapsed, partial(self._expected_end, elapsed))
        if end is None:
            return "time left unknown"
        if end <= elapsed:
            return "longer than expected"
        return f"about {_roughly(end - elapsed)} left"

    def _running_longest(self) -> list[int]:
        started = self._record.started
        running = self._with_status(RUNNING)
        return nsmallest(_MOST_ROWS, running, key=started.__getitem__)

    def _with_status(self, code: int) -> Iterator[int]:
        status = self._record.status
        number = status.find(code)
        while number >= 0:
            yield number
            number = status.find(code, number + 1)

    def _rows(self, elapsed: float) -> list[tuple[str, str, str]]:
        """Name, time and remark of what goes on, the oldest first."""
        record = self._record
        rows = []
        for number in self._longest.at(elapsed, self._running_longest) or ():
            since = elapsed + record.began - record.started[number]
            # It may have ended meanwhile, and one that starts right now has no time yet.
            if record.status[number] == RUNNING and not isnan(since):
                rows.append((self._name(number), _time(since), self._remark(number)))
        return rows or self._closing()

    def _remark(self, number: int) -> str:
        attempt = self._record.attempt_of(number)
        most = self._record.tasks[number].retries
        if not is_in_function(self._record, number):
            return f"waits for attempt {attempt + 1} of {most}"
        return f"attempt {attempt} of {most}" if attempt > 1 else ""

    def _closing(self) -> list[tuple[str, str, str]]:
        """When all tasks have ended, the lifetimes that are still to close."""
        record = self._record
        if PENDING in record.status or RUNNING in record.status:
            return []
        return [
            (self._name(number), "", "closes")
            for number in record.graph.lifetimes
            if record.status[number] == COMPLETED and number not in record.closed
        ]

    def _failed_by_themselves(self) -> list[int]:
        """The tasks that have failed, but for those that were not started because of them."""
        record = self._record
        # A list of it all at once, since the run goes on.
        return [number for number in list(record.failures) if record.status[number] == FAILED]

    def _failed_last(self) -> list[int]:
        ended = self._record.ended
        return nlargest(_FAILURES, self._failed_by_themselves(), key=ended.__getitem__)

    def _new_failures(self) -> list[Text]:
        """A line for each failure that has not been told, if they are not too many."""
        new = [number for number in self._failed_by_themselves() if number not in self._told]
        self._told.update(new)
        lines = [self._failure(number) for number in new[:_FAILURE_LINES]]
        if len(new) > _FAILURE_LINES:
            lines.append(Text(f"and {len(new) - _FAILURE_LINES} more have failed", style="red"))
        return lines

    def _failure(self, number: int) -> Text:
        record = self._record
        attempt = record.attempt_of(number)
        which = f" at attempt {attempt}" if attempt > 1 else ""
        error = on_one_line(error_text(record.exception_of(number)))[:_MOST_TEXT]
        return Text.assemble(("failed ", "red"), (self._name(number), "bold"), f"{which}: {error}")

    def _how_far(self, elapsed: float) -> str:
        counts = self._counts()
        parts = [f"{counts[code]} {word}" for code, word, _ in _PARTS if counts[code]]
        for name, time, remark in self._rows(elapsed)[:1]:
            parts.append(f"longest {name} {' '.join(filter(None, [time, remark]))}")
        parts.append(self._left_text(counts, elapsed))
        return f"After {_clock(elapsed)}: {', '.join(filter(None, parts))}"

    def _name(self, number: int) -> str:
        return on_one_line(self._record.tasks[number].name)


class _Sparingly(Generic[T]):
    """A value that is worked out now and then: doing so takes 2 % of the time at most.

    Args:
        cost: seconds that it is thought to take the first time.
        calm: seconds for which a value stands at least.
    """

    def __init__(self, *, cost: float = 0.0, calm: float = 0.0) -> None:
        self._calm = calm
        self._due = cost / _SHARE
        self._value: T | None = None

    def at(self, elapsed: float, work: Callable[[], T]) -> T | None:
        """The value, which may be from a while ago; None before there is one.

        Args:
            elapsed: seconds since the run began.
            work: makes the value.
        """
        if elapsed >= self._due:
            before = thread_time()
            self._value = work()
            cost = thread_time() - before
            self._due = elapsed + max(self._calm, cost / _SHARE)
        return self._value


def _bar(counts: list[int], remarks: list[str], width: int) -> Text:
    """How much of it is done, in colours and as a number, with what else there is to say."""
    total = sum(counts)
    ended = total - counts[RUNNING] - counts[PENDING]
    words = "  ".join(["", f"{ended} of {total}", *filter(None, remarks)])
    room = width - len(words)
    line = Text(no_wrap=True)
    if room >= _SHORTEST_BAR:
        drawn = before = 0
        for code, _, colour in _PARTS:
            before += counts[code]
            until = room * before // total if total else room
            line.append(_SHAPES.get(code, "━") * (until - drawn), colour)
            drawn = until
    return _cut(line.append(words), width)


def _numbers(counts: list[int], width: int) -> Text:
    parts = [
        Text(f"{counts[code]} {word}", colour) for code, word, colour in _PARTS if counts[code]
    ]
    return _cut(Text("  ").join(parts or [Text("no tasks")]), width)


def _table(rows: list[tuple[str, str, str]], width: int) -> Iterator[Text]:
    names = min(max((cell_len(name) for name, _, _ in rows), default=0), width // 2)
    times = max((len(time) for _, time, _ in rows), default=0)
    for name, time, remark in rows:
        line = Text.assemble("  ", fitted(name, names), "  ", (time.rjust(times), "cyan"))
        yield _cut(line.append(f"  {remark}" if remark else "", "yellow"), width)


def _cut(line: Text, width: int) -> Text:
    line.no_wrap = True
    line.truncate(width, overflow="ellipsis")
    return line


def _clock(seconds: float) -> str:
    """A time as a clock shows it: `0:07`, `12:05`, `1:02:05`."""
    minutes, left = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{left:02}" if hours else f"{minutes}:{left:02}"


def _time(seconds: float) -> str:
    """A time that grows while it is looked at: in tenths of a second, then as a clock shows it."""
    return f"{max(seconds, 0.0):.1f} s" if seconds < _TENTHS_UNTIL else _clock(seconds)


def _roughly(seconds: float) -> str:
    """An estimate, no more exact than it can be."""
    if seconds < _SECONDS_UNTIL:
        return f"{ceil(seconds)} s"
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < _MINUTES_UNTIL else f"{minutes // 60} h {minutes % 60} min"
