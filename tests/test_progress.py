"""What a person sees of a run: a view in a terminal, an output of a notebook, lines of a log.

The terminal is a small one of our own, which does what it is told and shows what is to be seen. The
view is drawn when a test says so, on the clock of the run, except where the thread is what is
tested.
"""

# ruff: noqa: T201 - tasks print here: what is tested is where that stands

import gc
import io
import logging
import os
import re
import subprocess
import sys
import threading
import types
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import count
from textwrap import dedent
from typing import Any

import anyio
import pytest
from make_progress_picture import picture
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.live import Live

from portable_sched import (
    Backoff,
    Event,
    RunFinished,
    RunStarted,
    TaskRegistry,
    TaskScheduled,
    TaskScheduler,
    progress,
)
from portable_sched import _progress_places as places
from portable_sched.progress import Progress
from portable_sched.testing import run_graph

pytestmark = pytest.mark.anyio

each = pytest.mark.parametrize


class Terminal(io.StringIO):
    """A terminal without a keyboard: it keeps what it shows, and whether the cursor is there."""

    CODE = re.compile(r"\x1b\[(\??)(\d*)([A-Za-z])|\x1b\[[\d;]*m|(\r)|(\n)|([^\x1b\r\n]+)")

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self.lines = [""]
        self.row = self.column = 0
        self.cursor = True
        self.writes: list[str] = []
        self.with_encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.with_encoding

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        text.encode(self.with_encoding)
        self.writes.append(text)
        for found in self.CODE.finditer(text):
            private, number, letter, carriage_return, line_feed, printed = found.groups()
            if private and letter in "hl":
                self.cursor = letter == "h"
            elif letter == "A":
                self.row = max(0, self.row - int(number))
            elif letter == "K":
                self.lines[self.row] = ""
            elif carriage_return:
                self.column = 0
            elif line_feed:
                self.row, self.column = self.row + 1, 0
                self.lines += [""] * (self.row + 1 - len(self.lines))
            elif printed:
                line = self.lines[self.row].ljust(self.column)
                end = self.column + len(printed)
                self.lines[self.row] = line[: self.column] + printed + line[end:]
                self.column = end
        return len(text)

    @property
    def seen(self) -> list[str]:
        """The lines that are to be seen, without what is empty at their ends."""
        lines = [line.rstrip() for line in self.lines]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def console_on(terminal: Terminal, width: int = 60, height: int = 20) -> Console:
    return Console(
        file=terminal,
        force_terminal=True,
        color_system="truecolor",
        width=width,
        height=height,
        legacy_windows=False,
        _environ={},
    )


@pytest.fixture(autouse=True)
def _no_ci(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests run under CI too; and none leaves anything on the screen."""
    for name in ("CI", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    yield
    assert {} == progress._displays


@pytest.fixture
def terminal() -> Terminal:
    return Terminal()


@pytest.fixture
def console(terminal: Terminal) -> Console:
    return console_on(terminal)


class NoThread:
    """In the place of the thread that draws: nobody draws but the test."""

    def __init__(self, **settings: object) -> None: ...

    def start(self) -> None: ...

    def join(self) -> None: ...


@pytest.fixture
def draw(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What draws the view, at the time that it is by the clock of the run.

    A view is drawn in the event loop here, so that it may ask for the time.
    """
    monkeypatch.setattr(progress, "Thread", NoThread)
    monkeypatch.setattr(progress, "monotonic", anyio.current_time)
    monkeypatch.setattr(places, "monotonic", lambda: 0.0)

    def draw() -> None:
        for display in progress._displays.values():
            display.show()

    return draw


async def no_op() -> None: ...


def taking(seconds: float) -> Callable[[], Any]:
    async def body() -> None:
        await anyio.sleep(seconds)

    return body


def failing(seconds: float = 0, text: str = "no rows") -> Callable[[], Any]:
    async def body() -> None:
        if seconds:
            await anyio.sleep(seconds)
        raise ValueError(text)

    return body


class Looks:
    """A task that looks at the terminal at some moments of the run, in seconds."""

    def __init__(self, terminal: Terminal, draw: Callable[[], None], *moments: float) -> None:
        self.terminal = terminal
        self.draw = draw
        self.moments = moments
        self.seen: dict[float, list[str]] = {}

    async def __call__(self) -> None:
        began = anyio.current_time()
        for moment in self.moments:
            await anyio.sleep_until(began + moment)
            self.draw()
            self.seen[moment] = self.terminal.seen


def rows(seen: Sequence[str]) -> list[str]:
    """Of a view, what stands below the bar and the numbers."""
    return list(seen[2:])


# What a view shows

virtual_time = pytest.mark.virtual_time


@virtual_time
async def test_a_view_shows_how_far_it_is_and_what_is_running(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 0.1, 3.25)
    registry.task("looks", estimate=5)(looks)
    registry.task("fetch", estimate=2)(taking(2))
    registry.task("transform", estimate=4, depends_on=["fetch"])(taking(4))
    registry.task("load", estimate=4, depends_on=["transform"])(taking(4))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        "╍╍╍╍╍╍╍╍╍╍╍╍╍╍───────────────  0 of 4  0:00  about 10 s left",
        "2 running  2 waiting",
        "  looks  0.1 s",
        "  fetch  0.1 s",
    ] == looks.seen[0.1]
    assert [
        "━━━━━━━╍╍╍╍╍╍╍╍╍╍╍╍╍╍╍────────  1 of 4  0:03  about 7 s left",
        "1 completed  2 running  1 waiting",
        "  looks      3.2 s",
        "  transform  1.2 s",
    ] == looks.seen[3.25]
    assert [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  4 of 4  0:10",
        "4 completed",
    ] == terminal.seen


@virtual_time
async def test_those_that_began_first_stand_first_and_as_many_as_fit(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("last", depends_on=["short"])(taking(9))
    registry.task("short")(taking(0.5))
    registry.task("looks")(looks)
    for name in "abcdef":
        registry.task(name)(taking(9))
    progress = Progress(console_on(terminal, height=7))
    await TaskScheduler(registry, observers=[progress]).run()

    # Of the seven rows one stays free, for the terminal would scroll.
    assert [
        "  looks  1.0 s",
        "  a      1.0 s",
        "  b      1.0 s",
        "  and 5 more",
    ] == rows(looks.seen[1])


@virtual_time
async def test_what_just_fits_is_shown_without_a_line_about_more(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    for name in "abc":
        registry.task(name)(taking(9))
    await TaskScheduler(registry, observers=[Progress(console_on(terminal, height=7))]).run()

    assert ["  looks  1.0 s", "  a      1.0 s", "  b      1.0 s", "  c      1.0 s"] == rows(
        looks.seen[1]
    )


@virtual_time
async def test_a_task_has_its_attempt_and_in_backoff_the_one_it_waits_for(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1, 3, 6)
    registry.task("looks")(looks)
    registry.task("fetch", retries=3, backoff=Backoff(initial=3, jitter=0))(failing(seconds=2))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert ["  looks  1.0 s", "  fetch  1.0 s"] == rows(looks.seen[1])
    assert ["  looks  3.0 s", "  fetch  3.0 s  waits for attempt 2 of 3"] == rows(looks.seen[3])
    assert ["  looks  6.0 s", "  fetch  6.0 s  attempt 2 of 3"] == rows(looks.seen[6])


@virtual_time
async def test_the_last_failures_stand_below_the_last_one_first(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    """Those that failed by themselves; the numbers count the others too."""
    looks = Looks(terminal, draw, 5)
    registry.task("looks")(looks)
    for number in range(1, 5):
        registry.task(f"fails-{number}", retries=2)(failing(number / 2, f"number {number}"))
    registry.task("skipped", depends_on=["fails-1"])(no_op)
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        "5 failed  1 running",
        "  looks  5.0 s",
        "failed fails-4 at attempt 2: ValueError: number 4",
        "failed fails-3 at attempt 2: ValueError: number 3",
        "failed fails-2 at attempt 2: ValueError: number 2",
    ] == looks.seen[5][1:]


@virtual_time
async def test_in_a_low_terminal_failures_leave_room_for_what_is_running(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    for number in range(4):
        registry.task(f"fails-{number}")(failing())
        registry.task(f"works-{number}")(taking(9))
    await TaskScheduler(registry, observers=[Progress(console_on(terminal, height=6))]).run()

    assert ["  looks  1.0 s", "  and 4 more", "failed fails-0: ValueError: no rows"] == rows(
        looks.seen[1]
    )


@each("height", [1, 2, 3, 4])
@virtual_time
async def test_in_the_lowest_terminal_the_bar_is_left(
    height: int, registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    registry.task("fetch")(taking(9))
    await TaskScheduler(registry, observers=[Progress(console_on(terminal, height=height))]).run()

    assert height >= len(looks.seen[1])
    assert "0 of 2" in looks.seen[1][0]


@virtual_time
async def test_when_all_tasks_have_ended_the_view_shows_what_is_to_close(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def opening(seconds: float) -> Callable[[], AsyncIterator[None]]:
        async def opens() -> AsyncIterator[None]:
            yield
            await anyio.sleep(seconds)
            draw()
            seen.append(terminal.seen)

        return opens

    registry.task("db")(opening(3))
    registry.task("log")(opening(0))
    registry.task("load", depends_on=["db"])(taking(2))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        ["  load  0.0 s"],
        [
            "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  3 of 3  0:05",
            "3 completed",
            "  db    closes",
        ],
    ] == [rows(seen[0]), seen[1]]


@virtual_time
async def test_an_empty_graph_is_done_at_once(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  0 of 0  0:00",
        "no tasks",
    ] == terminal.seen


@virtual_time
async def test_long_times_are_told_as_clocks_tell_them(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 99.9, 100, 7325)
    registry.task("looks")(looks)
    await TaskScheduler(registry, observers=[Progress(console)]).run()
    times = [
        (seen[0].split("1  ")[1][:8].strip(), seen[2].split()[1:]) for seen in looks.seen.values()
    ]

    assert [("1:39  ti", ["99.9", "s"]), ("1:40  ti", ["1:40"]), ("2:02:05", ["2:02:05"])] == times


@virtual_time
async def test_before_anything_has_started_everything_waits(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def looks(event: Event) -> None:
        if isinstance(event, RunStarted):
            draw()
            seen.append(terminal.seen)

    registry.task("fetch")(no_op)
    await TaskScheduler(registry, observers=[Progress(console), looks]).run()

    assert ["1 waiting"] == seen[0][1:]


@virtual_time
async def test_of_very_many_tasks_those_that_run_are_looked_for_now_and_then(
    registry: TaskRegistry,
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As it takes its time; meanwhile those that have ended are left out."""
    used = count(0.0, 0.05)
    monkeypatch.setattr(progress, "thread_time", lambda: next(used))
    looks = Looks(terminal, draw, 1, 2, 4)
    registry.task("looks")(looks)
    registry.task("ends")(taking(1.5))
    registry.task("comes", depends_on=["ends"])(taking(9))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        ["  looks  1.0 s", "  ends   1.0 s"],
        ["  looks  2.0 s"],
        ["  looks  4.0 s", "  comes  2.5 s"],
    ] == [rows(looks.seen[moment]) for moment in (1, 2, 4)]


# What names and errors are made of


@virtual_time
async def test_no_name_and_no_error_can_do_anything_to_the_terminal(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    registry.task("[bold]\x1b[2J\n:boom:")(taking(9))
    registry.task("fails\r")(failing(text="two\nlines \x1b[31m[red]"))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert [
        r"  looks                  1.0 s",
        r"  [bold]\x1b[2J\n:boom:  1.0 s",
        r"failed fails\r: ValueError: two\nlines \x1b[31m[red]",
    ] == rows(looks.seen[1])


@virtual_time
async def test_wide_characters_take_two_columns(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    registry.task("数据")(taking(9))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert ["  looks  1.0 s", "  数据   1.0 s"] == rows(looks.seen[1])


@virtual_time
async def test_what_is_too_long_is_cut_at_the_edge(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    looks = Looks(terminal, draw, 1)
    registry.task("looks")(looks)
    registry.task("a name that is far too long")(taking(9))
    registry.task("fails")(failing(text="a text that is far too long for that"))
    await TaskScheduler(registry, observers=[Progress(console_on(terminal, width=24))]).run()

    assert [
        "  1 of 3  0:01  time le…",
        "1 failed  2 running",
        "  looks         1.0 s",
        "  a name that…  1.0 s",
        "failed fails: ValueErro…",
    ] == looks.seen[1]


@virtual_time
async def test_characters_that_the_terminal_lacks_are_replaced(
    registry: TaskRegistry, draw: Callable[[], None]
) -> None:
    terminal = Terminal(encoding="ascii")
    looks = Looks(terminal, draw, 1)
    registry.task("looks", estimate=1)(looks)
    registry.task("zählt", estimate=3)(taking(3))
    registry.task("later", estimate=1, depends_on=["zählt"])(no_op)
    await TaskScheduler(registry, observers=[Progress(console_on(terminal))]).run()

    assert [
        ">>>>>>>>>>>>>>>>>>>>----------  0 of 3  0:01  about 3 s left",
        "  looks  1.0 s",
        "  z?hlt  1.0 s",
    ] == [looks.seen[1][0], *rows(looks.seen[1])]
    assert "##############################################  3 of 3  0:03" == terminal.seen[0]


@virtual_time
async def test_a_terminal_without_colours_gets_none(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    registry.task("looks")(Looks(terminal, draw, 1))
    console = Console(file=terminal, force_terminal=True, color_system=None, width=60, height=20)
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert set() == set(re.findall(r"\x1b\[[\d;]*m", "".join(terminal.writes)))


@virtual_time
async def test_the_view_takes_the_size_that_the_terminal_has(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    class Resizes(Looks):
        async def __call__(self) -> None:
            await super().__call__()
            console.size = (45, 5)  # type: ignore[assignment]
            self.draw()
            self.seen[2] = self.terminal.seen

    looks = Resizes(terminal, draw, 1)
    registry.task("looks")(looks)
    for name in "abcd":
        registry.task(name)(taking(9))
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert 7 == len(looks.seen[1])
    assert [
        "╍╍╍╍╍╍╍╍╍╍╍╍  0 of 5  0:01  time left unknown",
        "5 running",
        "  looks  1.0 s",
        "  and 4 more",
    ] == looks.seen[2]


# What is left


def what_is_left(seen: Sequence[str]) -> str:
    return re.split(r"\d:\d\d  ", seen[0])[1]


async def seen_left(
    terminal: Terminal,
    draw: Callable[[], None],
    moments: Sequence[float],
    *,
    seconds: Any = None,
    estimates: Sequence[float | None] = (None, None),
) -> list[str]:
    """What was said to be left at some moments, of two tasks in a row that take 4 s each."""
    registry = TaskRegistry()
    looks = Looks(terminal, draw, *moments)
    registry.task("looks", estimate=1)(looks)
    first, second = estimates
    registry.task("first", estimate=first)(taking(4))
    registry.task("second", estimate=second, depends_on=["first"])(taking(4))
    progress = Progress(console_on(terminal), seconds=seconds)
    await TaskScheduler(registry, observers=[progress]).run()
    return [what_is_left(seen) for seen in looks.seen.values()]


@virtual_time
async def test_what_is_left_is_unknown_until_something_has_completed(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    assert ["time left unknown", "about 3 s left"] == await seen_left(terminal, draw, [3, 5])


@virtual_time
async def test_what_is_left_follows_from_estimates(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    assert ["about 7 s left"] == await seen_left(terminal, draw, [3], estimates=[5, 5])


@virtual_time
async def test_what_is_left_follows_from_seconds_that_are_known(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    seconds = {"first": 4, "second": 60}

    assert ["about 61 s left"] == await seen_left(terminal, draw, [3], seconds=seconds)


@virtual_time
async def test_what_is_left_follows_from_an_earlier_run(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    registry = TaskRegistry()
    registry.task("first")(taking(4))
    registry.task("second")(taking(4))
    earlier = await TaskScheduler(registry).run()

    assert ["about 5 s left"] == await seen_left(terminal, draw, [3], seconds=earlier)


@virtual_time
async def test_what_takes_longer_than_was_thought_is_said_to(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    seconds = {"first": 1, "second": 1}

    assert ["about 1 s left", "longer than expected"] == await seen_left(
        terminal, draw, [3, 6], seconds=seconds
    )


@each(
    "left, said",
    [
        (89, "about 89 s left"),
        (90, "about 2 min left"),
        (5400, "about 1 h 30 min left"),
        (5280, "about 88 min left"),
    ],
)
@virtual_time
async def test_a_long_time_left_is_no_more_exact_than_it_can_be(
    left: int, said: str, terminal: Terminal, draw: Callable[[], None]
) -> None:
    seconds = {"first": left, "second": 0.5}

    assert [said] == await seen_left(terminal, draw, [0.5], seconds=seconds)


@virtual_time
async def test_between_two_estimates_the_time_goes_on(
    terminal: Terminal, draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For half a second at least: what changes ten times a second cannot be read."""
    asked: list[float] = []

    def remaining(results: object, now: float, seconds: object) -> float:
        asked.append(round(now, 2))
        return 10.0

    monkeypatch.setattr(progress, "remaining", remaining)
    moments = [0.1, 0.3, 0.5, 0.7, 0.9]
    seen = await seen_left(terminal, draw, moments)

    assert [0.1, 0.7] == asked
    assert ["about 10 s left"] * 5 == seen


@virtual_time
async def test_an_estimate_that_is_no_number_is_unknown(
    terminal: Terminal, draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is worked out while the run goes on, and may find a task without its time."""
    monkeypatch.setattr(progress, "remaining", lambda *arguments: float("nan"))

    assert ["time left unknown"] == await seen_left(terminal, draw, [1])


def test_a_value_is_worked_out_so_seldom_that_it_takes_a_fiftieth_of_the_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = [0.0]
    monkeypatch.setattr(progress, "thread_time", lambda: used[0])
    value = progress._Sparingly[float](cost=0.1)
    worked_out: list[float] = []

    def work(moment: float) -> float:
        used[0] += 0.2
        worked_out.append(moment)
        return moment

    moments = [0.0, 4.9, 5.0, 14.9, 15.0, 24.0]
    values = [value.at(moment, partial(work, moment)) for moment in moments]

    assert [None, None, 5.0, 5.0, 15.0, 15.0] == values
    assert [5.0, 15.0] == worked_out


# Several runs


@virtual_time
async def test_one_after_the_other(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    registry.task("fetch")(taking(1))
    scheduler = TaskScheduler(registry, observers=[Progress(console)])
    await scheduler.run()
    await scheduler.run()

    assert ["1 completed", "1 completed"] == terminal.seen[1::2]
    assert terminal.cursor


@each("observers", [1, 2])
@virtual_time
async def test_two_at_once_stand_below_each_other(
    observers: int,
    registry: TaskRegistry,
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
) -> None:
    """Also where each has an observer of its own, on one console."""
    looks = Looks(terminal, draw, 1, 3)
    registry.task("looks")(looks)
    other = TaskRegistry()
    other.task("fetch")(taking(2))
    one = Progress(console)
    two = one if observers == 1 else Progress(console)
    async with anyio.create_task_group() as group:
        group.start_soon(TaskScheduler(registry, observers=[one]).run)
        group.start_soon(TaskScheduler(other, observers=[two]).run)

    assert {("1 running", "  looks  1.0 s"), ("1 running", "  fetch  1.0 s")} == {
        tuple(looks.seen[1][1:3]),
        tuple(looks.seen[1][4:6]),
    }
    # The end of the first stands for good, above what the second is doing.
    assert ["1 completed", "1 running", "  looks  3.0 s"] == [
        *looks.seen[3][1:4:2],
        looks.seen[3][4],
    ]
    assert ["1 completed", "1 completed"] == terminal.seen[1::2]
    assert terminal.cursor


async def test_the_end_of_a_run_that_it_did_not_see_begin_is_nothing_to_it(
    terminal: Terminal, console: Console
) -> None:
    results = run_graph(TaskRegistry())
    Progress(console)(RunFinished(at=0.0, results=results))

    assert [] == terminal.writes


async def test_events_that_it_does_not_want_are_nothing_to_it(
    terminal: Terminal, console: Console
) -> None:
    Progress(console)(TaskScheduled(at=0.0, task="fetch"))

    assert [] == terminal.writes


# How it ends


@virtual_time
async def test_a_run_that_is_cancelled_ends_with_what_there_is(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    registry.task("fetch")(taking(1))
    registry.task("load")(taking(9))
    with anyio.move_on_after(3):
        await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert "1 completed  1 cancelled" == terminal.seen[1]
    assert terminal.cursor


@virtual_time
def test_a_run_that_raises_ends_with_what_there_is(
    registry: TaskRegistry,
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    run_on_backend: Callable[..., Any],
) -> None:
    @registry.task
    async def quits() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_on_backend(TaskScheduler(registry, observers=[Progress(console)]).run)

    assert "1 cancelled" == terminal.seen[1]
    assert terminal.cursor


@virtual_time
async def test_of_many_failures_the_first_stay(
    registry: TaskRegistry, terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    for number in range(12):
        registry.task(f"fails-{number}")(failing())
    await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert ["12 failed", "failed fails-0: ValueError: no rows"] == terminal.seen[1:3]
    assert ["failed fails-9: ValueError: no rows", "and 2 more"] == terminal.seen[11:]


@virtual_time
async def test_nothing_of_a_run_is_kept_when_it_is_over(
    registry: TaskRegistry, console: Console, terminal: Terminal, draw: Callable[[], None]
) -> None:
    """Without the collector: the results may be large."""

    class Rows: ...

    kept: list[weakref.ref[Rows]] = []

    @registry.task
    async def fetch() -> Rows:
        rows = Rows()
        kept.append(weakref.ref(rows))
        return rows

    registry.task("looks", depends_on=[fetch])(Looks(terminal, draw, 1))
    registry.task("fails")(failing())
    observer = Progress(console)
    scheduler = TaskScheduler(registry, observers=[observer])
    gc.disable()
    try:
        await scheduler.run()
        del scheduler

        assert [None] == [one() for one in kept]
    finally:
        gc.enable()


def test_it_wants_no_more_events_than_the_first_and_the_last() -> None:
    """All others cost more than a short task does."""
    assert (RunStarted, RunFinished) == Progress.wants


# What else is printed


@contextmanager
def standard(stdout: Any, stderr: Any) -> Iterator[None]:
    """Streams in the place of those of pytest, which it changes between a fixture and a test."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = stdout, stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


async def run_one(body: Callable[[], object], *observers: Any) -> None:
    """Run one task, beside another that is there to be seen."""
    registry = TaskRegistry()

    @registry.task
    async def prints() -> None:
        await anyio.sleep(1)
        body()

    registry.task("waits")(taking(9))
    await TaskScheduler(registry, observers=observers).run()


END = ["━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━  2 of 2  0:09", "2 completed"]


@virtual_time
async def test_what_is_printed_stands_above_the_view_as_it_is(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def prints() -> None:
        draw()
        print("[bold]one[/bold] :boom:")
        print("long " * 20, file=sys.stderr)
        sys.stdout.writelines(["two\n", "three\n"])
        draw()
        seen.append(terminal.seen)

    with standard(terminal, terminal):
        await run_one(prints, Progress(console))
    printed = ["[bold]one[/bold] :boom:", ("long " * 20).strip(), "two", "three"]

    assert [*printed, "2 running"] == [*seen[0][:4], seen[0][5]]
    assert [*printed, *END] == terminal.seen


@virtual_time
async def test_a_line_that_is_not_finished_stands_above_the_view_until_it_is(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def prints() -> None:
        print("0 %", end="", flush=True)
        draw()
        seen.append(terminal.seen)
        print("\r50 %", end="\r", flush=True)
        draw()
        seen.append(terminal.seen)
        print("done")

    with standard(terminal, terminal):
        await run_one(prints, Progress(console))

    assert ["0 %", "50 %"] == [each[0] for each in seen]
    assert {"2 running"} == {each[2] for each in seen}
    assert ["done", *END] == terminal.seen
    # What was begun anew is let go of: a progress bar may do so a million times.
    assert "0 %\r50 %" not in "".join(terminal.writes)


@virtual_time
async def test_a_line_that_is_never_finished_is_finished_at_the_end(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    with standard(terminal, terminal):
        await run_one(lambda: print("half", end=""), Progress(console))

    assert ["half", *END] == terminal.seen


@virtual_time
async def test_an_unfinished_line_leaves_room_for_itself(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def prints() -> None:
        print("half", end="")
        draw()
        seen.append(terminal.seen)

    with standard(terminal, terminal):
        await run_one(prints, Progress(console_on(terminal, height=5)))

    [[first, *_, last]] = seen
    assert ("half", "  prints  1.0 s", 4) == (first, last, len(seen[0]))


@virtual_time
async def test_many_lines_are_printed_together(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    """Each time the view is drawn anew, so that would take long for each of a thousand lines."""
    writes: list[int] = []

    def prints() -> None:
        before = len(terminal.writes)
        for number in range(1000):
            print(number)
        draw()
        writes.append(len(terminal.writes) - before)

    with standard(terminal, terminal):
        await run_one(prints, Progress(console))

    assert 4 > writes[0]
    assert [*map(str, range(1000)), *END] == terminal.seen


@virtual_time
async def test_a_line_after_a_while_is_printed_at_once(
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(places, "monotonic", anyio.current_time)
    seen: list[str] = []

    def prints() -> None:
        print("one")
        print("two")
        seen.append("".join(terminal.writes))

    with standard(terminal, terminal):
        await run_one(prints, Progress(console))

    assert ["one" in seen[0], "two" in seen[0]] == [True, False]
    assert ["one", "two", *END] == terminal.seen


@virtual_time
async def test_a_log_handler_that_holds_the_stream_logs_above_the_view(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    logger = logging.getLogger("tests.progress.of_old")
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    seen: list[list[str]] = []

    def logs() -> None:
        draw()
        logger.error("it went wrong")
        draw()
        seen.append(terminal.seen)

    try:
        with standard(terminal, terminal):
            await run_one(logs, Progress(console))
        logger.error("and again")
    finally:
        logger.removeHandler(handler)

    assert ["it went wrong", "2 running"] == seen[0][0:3:2]
    assert ["it went wrong", *END, "and again"] == terminal.seen
    assert handler.stream is terminal


@virtual_time
async def test_a_log_handler_that_got_another_stream_keeps_it(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    logger = logging.getLogger("tests.progress.of_old")
    handler = logging.StreamHandler(terminal)
    logger.addHandler(handler)
    other = io.StringIO()
    try:
        with standard(terminal, terminal):
            await run_one(lambda: handler.setStream(other), Progress(console))  # type: ignore[arg-type]
    finally:
        logger.removeHandler(handler)

    assert handler.stream is other


@virtual_time
async def test_the_streams_are_as_they_were_when_it_is_over(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    streams: list[Any] = []
    with standard(terminal, terminal):
        await run_one(lambda: streams.extend([sys.stdout, sys.stderr]), Progress(console))
        streams += [sys.stdout, sys.stderr]

    assert [False, False, True, True] == [one is terminal for one in streams]


@virtual_time
async def test_a_stream_that_somebody_else_has_replaced_stays_theirs(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    other = io.StringIO()
    with standard(terminal, terminal):
        await run_one(lambda: setattr(sys, "stdout", other), Progress(console))
        streams = [sys.stdout, sys.stderr]

    assert [other, terminal] == streams


@virtual_time
async def test_who_keeps_the_stand_in_writes_to_the_stream_when_it_is_over(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    kept: list[Any] = []
    with standard(terminal, terminal):
        await run_one(lambda: kept.append(sys.stdout), Progress(console))
    print("later", file=kept[0], flush=True)

    assert [*END, "later"] == terminal.seen


def test_what_was_about_to_be_printed_when_it_ends_is_printed(
    terminal: Terminal, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another thread, that had asked just before whether the view is there."""
    monkeypatch.setattr(places, "monotonic", lambda: 0.0)
    place = places.Terminal(console)
    place.stop()
    place.write_above("late\n")

    assert ["late"] == terminal.seen


@virtual_time
async def test_a_forked_process_writes_to_the_stream(
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has no thread that would print it, and somebody may hold the lock for ever."""
    seen: list[str] = []

    def forks() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(os, "getpid", lambda: -1)
            print("from the child", flush=True)
        seen.append(terminal.writes[-2])

    with standard(terminal, terminal):
        await run_one(forks, Progress(console))

    assert ["from the child"] == seen


@virtual_time
async def test_a_stand_in_is_asked_what_the_stream_is_asked(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[object] = []

    def asks() -> None:
        seen.extend([sys.stdout.encoding, sys.stdout.isatty(), sys.stdout.write("three\n")])
        with pytest.raises(TypeError):
            sys.stdout.write(b"bytes")  # type: ignore[arg-type]
        with pytest.raises(AttributeError):
            sys.stdout.nothing  # type: ignore[attr-defined]  # noqa: B018

    with standard(terminal, terminal):
        await run_one(asks, Progress(console))

    assert ["utf-8", True, 6] == seen


@virtual_time
async def test_a_stream_that_leads_elsewhere_is_left_alone(
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = io.StringIO()
    with standard(file, terminal):
        await run_one(lambda: print("kept"), Progress(console))

    assert "kept\n" == file.getvalue()
    assert END == terminal.seen


@virtual_time
async def test_where_the_console_leads_elsewhere_the_streams_are_left_alone(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=60, _environ={})
    with standard(terminal, terminal):
        await run_one(lambda: print("kept"), Progress(console))

    assert ["kept"] == terminal.seen
    assert "2 of 2" in file.getvalue()


@virtual_time
async def test_a_process_may_have_no_streams(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    """On Windows, one without a console has none."""
    with standard(None, None):
        await run_one(lambda: None, Progress(console))

    assert END == terminal.seen


@virtual_time
async def test_what_another_console_prints_stands_above_the_view(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    """`rich.print` has one of its own."""

    def prints() -> None:
        draw()
        Console(width=60).print("[bold]one")
        draw()

    with standard(terminal, terminal):
        await run_one(prints, Progress())

    assert ["one", "2 of 2"] == [terminal.seen[0], terminal.seen[1][-12:-6]]
    assert "2 completed" == terminal.seen[2]


@virtual_time
async def test_what_the_console_itself_prints_stands_above_the_view(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    with standard(terminal, terminal):
        console = Console(width=60)

        def prints() -> None:
            draw()
            console.print("[bold]one")
            draw()

        await run_one(prints, Progress(console))

    assert ["one", *END] == terminal.seen


# Other live displays


@virtual_time
async def test_beside_another_live_display_of_its_console_both_are_seen(
    terminal: Terminal, console: Console, draw: Callable[[], None]
) -> None:
    seen: list[list[str]] = []

    def looks() -> None:
        draw()
        seen.append(terminal.seen)

    with standard(terminal, terminal), Live("theirs", console=console, auto_refresh=False):
        await run_one(looks, Progress(console))

    assert ["theirs", "2 running"] == seen[0][0:3:2]
    assert [*END, "theirs"] == terminal.seen


@virtual_time
async def test_above_a_live_display_of_another_console_lines_are_printed(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    with (
        standard(terminal, terminal),
        Live("theirs", console=console_on(terminal), auto_refresh=False),
    ):
        assert isinstance(sys.stderr, FileProxy)
        await run_one(lambda: None, Progress())

    assert ["Run started: 2 tasks", "theirs"] == terminal.seen[:: len(terminal.seen) - 1]


# Lines of a log


class Ticks(Looks):
    """As `Looks`, where there are lines: those that came since the look before."""

    async def __call__(self) -> None:
        began = anyio.current_time()
        for moment in self.moments:
            await anyio.sleep_until(began + moment)
            before = len(self.terminal.seen)
            self.draw()
            self.seen[moment] = self.terminal.seen[before:]


def log_on(terminal: Terminal) -> Console:
    return Console(file=terminal, force_terminal=False, width=60, _environ={})


@virtual_time
async def test_in_a_log_there_is_a_line_now_and_then(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    ticks = Ticks(terminal, draw, 4, 6, 10, 11, 60, 65, 66, 1000, 1059, 1061)
    registry.task("ticks", estimate=1200)(ticks)
    registry.task("fetch", retries=2, estimate=8)(failing(seconds=4.8))
    registry.task("load", estimate=30)(taking(9))
    await TaskScheduler(registry, observers=[Progress(log_on(terminal))]).run()

    assert {
        4: [],
        6: ["After 0:06: 3 running, longest ticks 6.0 s, about 20 min left"],
        10: ["failed fetch at attempt 2: ValueError: no rows"],
        11: [
            "After 0:11: 1 completed, 1 failed, 1 running, longest ticks 11.0 s, about 20 min left"
        ],
    } == {moment: lines for moment, lines in ticks.seen.items() if moment < 12}
    assert [60, 66, 1000, 1061] == [
        moment for moment, lines in ticks.seen.items() if lines and moment > 12
    ]
    assert ["Run started: 3 tasks"] == terminal.seen[:1]
    assert ["Run finished: 3 tasks in 17 min 41 s: 2 completed, 1 failed, 0 cancelled"] == (
        terminal.seen[-1:]
    )


@virtual_time
async def test_in_a_log_each_failure_is_told_once_and_as_it_happens(
    registry: TaskRegistry, terminal: Terminal, draw: Callable[[], None]
) -> None:
    ticks = Ticks(terminal, draw, 1, 2, 3)
    registry.task("ticks")(ticks)
    registry.task("early")(failing())
    registry.task("skipped", depends_on=["early"])(no_op)
    registry.task("late")(failing(seconds=9))
    for number in range(12):
        registry.task(f"number-{number}")(failing(seconds=2.5 + number / 100))
    await TaskScheduler(registry, observers=[Progress(log_on(terminal))]).run()

    assert [["failed early: ValueError: no rows"], []] == [ticks.seen[1], ticks.seen[2]]
    assert ["failed number-0: ValueError: no rows"] == ticks.seen[3][:1]
    assert (11, "and 2 more have failed") == (len(ticks.seen[3]), ticks.seen[3][-1])
    assert [
        "failed late: ValueError: no rows",
        "Run finished: 16 tasks in 9.0 s: 1 completed, 15 failed, 0 cancelled",
    ] == terminal.seen[-2:]


@virtual_time
async def test_in_a_log_two_runs_at_once_are_both_told(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    observer = Progress(log_on(terminal))
    async with anyio.create_task_group() as group:
        for seconds in (1, 2):
            registry = TaskRegistry()
            registry.task("fetch")(taking(seconds))
            group.start_soon(TaskScheduler(registry, observers=[observer]).run)

    finished = "Run finished: 1 task in {} s: 1 completed, 0 failed, 0 cancelled"
    assert [
        "Run started: 1 task",
        "Run started: 1 task",
        finished.format("1.0"),
        finished.format("2.0"),
    ] == terminal.seen


# Where it is shown

STARTED = "Run started: 2 tasks"


@virtual_time
async def test_without_a_console_it_is_shown_on_standard_error(
    terminal: Terminal, draw: Callable[[], None]
) -> None:
    with standard(io.StringIO(), terminal):
        await run_one(lambda: None, Progress())

    assert ["2 completed"] == terminal.seen[1:]
    assert terminal.cursor


@virtual_time
async def test_where_standard_error_is_no_terminal_lines_are_printed_there(
    draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if colours are asked for: a log may have them, and no cursor."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    file = io.StringIO()
    with standard(io.StringIO(), file):
        await run_one(lambda: None, Progress())

    assert [
        STARTED,
        "Run finished: 2 tasks in 9.0 s: 2 completed, 0 failed, 0 cancelled",
    ] == file.getvalue().splitlines()


@virtual_time
async def test_characters_that_standard_error_lacks_are_replaced(
    registry: TaskRegistry, draw: Callable[[], None]
) -> None:
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    registry.task("zählt")(failing())
    with standard(file, file):
        await TaskScheduler(registry, observers=[Progress()]).run()
    file.seek(0)

    assert "failed z?hlt: ValueError: no rows\n" == file.readlines()[1]


@virtual_time
async def test_where_there_is_no_standard_error_nothing_is_shown(draw: Callable[[], None]) -> None:
    file = io.StringIO()
    with standard(file, None):
        await run_one(lambda: None, Progress())

    assert "" == file.getvalue()


@each("name, value", [("CI", "true"), ("CI", "1"), ("TERM", "dumb"), ("TTY_INTERACTIVE", "0")])
@virtual_time
async def test_there_are_lines_where_nobody_looks_at_the_terminal(
    name: str,
    value: str,
    terminal: Terminal,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(name, value)
    with standard(terminal, terminal):
        await run_one(lambda: None, Progress())

    assert STARTED == terminal.seen[0]


@virtual_time
async def test_a_console_that_is_passed_is_no_view_under_ci_either(
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "true")
    await run_one(lambda: None, Progress(console))

    assert STARTED == terminal.seen[0]


@virtual_time
async def test_ci_may_be_denied(
    terminal: Terminal,
    console: Console,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI", "false")
    await run_one(lambda: None, Progress(console))

    assert END == terminal.seen


# Notebooks


class Output:
    """What IPython gives back for an output that can be updated, and the function that gives it."""

    def __init__(self) -> None:
        self.shown: list[dict[str, str]] = []

    def display(self, data: dict[str, str], *, raw: bool, display_id: bool) -> "Output":
        assert raw
        assert display_id
        self.shown.append(data)
        return self

    def update(self, data: dict[str, str], *, raw: bool) -> None:
        assert raw
        self.shown.append(data)

    @property
    def texts(self) -> list[list[str]]:
        return [data["text/plain"].splitlines() for data in self.shown]


@pytest.fixture
def notebook(monkeypatch: pytest.MonkeyPatch) -> Output:
    """The part of IPython that is asked for, as it is in a notebook."""
    output = Output()
    module: Any = types.ModuleType("IPython.display")
    module.display = output.display
    monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
    monkeypatch.setitem(sys.modules, "IPython.display", module)
    return output


@each("given", ["a console", "none"])
@virtual_time
async def test_in_a_notebook_one_output_is_updated(
    given: str,
    registry: TaskRegistry,
    notebook: Output,
    draw: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    file = Terminal()
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    registry.task("looks")(Looks(file, draw, 1))
    registry.task("<b>")(failing())
    streams: list[Any] = []
    registry.task("prints")(taking(0))
    with standard(file, file):
        observer = (
            Progress(Console(file=file, force_jupyter=True)) if given == "a console" else Progress()
        )
        await TaskScheduler(registry, observers=[observer]).run()
        streams += [sys.stdout]

    first, view, last = notebook.texts
    assert [] == first
    assert ["1 completed  1 failed  1 running", "  looks  1.0 s"] == [
        line.rstrip() for line in view[1:3]
    ]
    assert ["2 completed  1 failed", "failed <b>: ValueError: no rows"] == [
        line.rstrip() for line in last[1:]
    ]
    assert "&lt;b&gt;" in notebook.shown[-1]["text/html"]
    assert [] == file.writes
    assert [file] == streams


@virtual_time
async def test_in_a_notebook_the_end_of_a_run_stays_above_the_next(
    notebook: Output, draw: Callable[[], None]
) -> None:
    observer = Progress(Console(file=io.StringIO(), force_jupyter=True))
    async with anyio.create_task_group() as group:
        for seconds in (1, 2):
            registry = TaskRegistry()
            registry.task(f"takes-{seconds}")(taking(seconds))
            group.start_soon(TaskScheduler(registry, observers=[observer]).run)

    assert ["1 completed", "1 completed"] == [line.rstrip() for line in notebook.texts[-1][1::2]]


@each("given", ["a console", "none"])
@virtual_time
async def test_in_a_notebook_without_ipython_there_are_lines(
    given: str, draw: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "IPython.display", None)
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    file = io.StringIO()
    with standard(io.StringIO(), file):
        await run_one(
            lambda: None, Progress(Console(force_jupyter=True) if given == "a console" else None)
        )

    assert STARTED == file.getvalue().splitlines()[0]


# The thread


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what a thread does: it can set no event of the loop."""
    while not is_so():  # noqa: ASYNC110 - see above
        await anyio.sleep(0.01)


async def test_the_view_is_drawn_while_nothing_happens(
    registry: TaskRegistry, terminal: Terminal, console: Console
) -> None:
    """By a thread: there is no event between the two."""

    @registry.task
    async def waits() -> None:
        await until(lambda: "0.2 s" in "".join(terminal.writes))

    results = await TaskScheduler(registry, observers=[Progress(console)]).run()

    assert results.ok
    assert [] == [one for one in threading.enumerate() if one.name == "portable_sched progress"]


async def test_a_terminal_that_is_gone_is_logged_and_the_run_goes_on(
    registry: TaskRegistry, terminal: Terminal, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    write = terminal.write

    def broken(text: str) -> int:
        raise OSError("gone")

    @registry.task
    async def waits() -> None:
        terminal.write = broken  # type: ignore[method-assign]
        await until(lambda: bool(caplog.records))
        terminal.write = write  # type: ignore[method-assign]

    results = await TaskScheduler(registry, observers=[Progress(console)]).run()
    [record] = caplog.records

    assert results.ok
    assert ("portable_sched", "Progress is not shown any more.") == (
        record.name,
        record.getMessage(),
    )
    assert terminal.cursor


def test_it_is_drawn_ten_times_a_second_or_as_seldom_as_is_cheap(
    terminal: Terminal, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A twentieth of the time at most."""
    monkeypatch.setattr(progress, "Thread", NoThread)
    used = iter([0.0, 0.001, 1.0, 1.5])
    monkeypatch.setattr(progress, "thread_time", lambda: next(used))
    pauses: list[float] = []

    class Signal:
        def wait(self, pause: float) -> bool:
            pauses.append(pause)
            return len(pauses) == 3

    display = progress._Display(console)
    display._done = Signal()  # type: ignore[assignment]
    display._keep_showing()
    display._place.stop()

    assert [0.1, 0.1, 10.0] == pauses


# A real terminal

PROGRAM = """
import sys
import anyio
from portable_sched import TaskRegistry, TaskScheduler
from portable_sched.progress import Progress

registry = TaskRegistry()

@registry.task
async def fetch():
    print("printed by the task")
    await anyio.sleep_forever()

scheduler = TaskScheduler(registry, observers=[Progress()])
try:
    anyio.run(scheduler.run, backend=sys.argv[1])
except KeyboardInterrupt:
    print("interrupted", scheduler.results["fetch"].status.name)
"""

NEVER_ENDED = """
import asyncio
from portable_sched import TaskRegistry, TaskScheduler
from portable_sched.progress import Progress

registry = TaskRegistry()

@registry.task
async def fetch():
    await asyncio.Event().wait()

loop = asyncio.new_event_loop()
run = loop.create_task(TaskScheduler(registry, observers=[Progress()]).run())
loop.run_until_complete(asyncio.wait([run], timeout=0.3))
asyncio.kept = loop, run  # or the collector would end it
"""


# What is to be interrupted by its terminal has to take it for its own first.
IN_TERMINAL = """
import fcntl, os, struct, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 20, 60, 0, 0))
os.execv(sys.executable, [sys.executable, "-W", "error", "-c", *sys.argv[1:]])
"""


def output_of(program: str, *arguments: str, interrupt_at: bytes | None = None) -> bytes:
    """What a program prints in a terminal of its own, which may be interrupted from there."""
    if sys.platform == "win32":
        pytest.skip("there are no pseudo-terminals")
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", IN_TERMINAL, program, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    output = b""
    while True:
        try:
            read = os.read(ours, 65536)
        except OSError:  # on Linux this is how it ends
            break
        if not read:
            break
        output += read
        if interrupt_at is not None and interrupt_at in output:
            interrupt_at = None
            os.write(ours, b"\x03")
    os.close(ours)
    assert 0 == process.wait()
    return output


@each("backend", ["asyncio", "trio"])
def test_ctrl_c_leaves_a_terminal_in_order(backend: str) -> None:
    output = output_of(PROGRAM, backend, interrupt_at=b"1 running")
    terminal = Terminal()
    terminal.write(output.decode().replace("^C", ""))

    assert terminal.cursor
    assert output.count(b"\x1b[?25h") == output.count(b"\x1b[?25l")
    assert ["printed by the task", "1 cancelled", "interrupted CANCELLED"] == [
        terminal.seen[0],
        *terminal.seen[2:],
    ]
    assert " 1 of 1  0:0" in terminal.seen[1]


def test_a_program_that_never_ends_its_run_leaves_a_cursor() -> None:
    output = output_of(NEVER_ENDED)

    assert output.rindex(b"\x1b[?25h") > output.rindex(b"\x1b[?25l")


# The picture in the README


def test_the_picture_shows_a_run_and_takes_nothing_from_the_network() -> None:
    drawn = picture()

    assert "waits&#160;for&#160;attempt&#160;2&#160;of&#160;3<" in drawn
    assert [] == re.findall(r"(?:url|href)\W+https?:", drawn)


# What it takes


@each(
    "console, message",
    [
        ("stderr", "Expected console to be a rich.console.Console, got 'stderr' (str)."),
        (None, ""),
    ],
)
def test_what_is_no_console_is_refused(console: Any, message: str) -> None:
    if not message:
        Progress(console)
        return
    with pytest.raises(TypeError) as caught:
        Progress(console)

    assert message == str(caught.value)


def test_what_is_no_seconds_is_refused() -> None:
    with pytest.raises(TypeError) as caught:
        Progress(seconds=[1.0])  # type: ignore[arg-type]

    assert (
        "Expected seconds to be the results of a run, or a mapping of task names to seconds, got "
        "[1.0] (list)."
    ) == str(caught.value)


def test_without_rich_the_import_says_what_to_run() -> None:
    program = dedent("""
        import sys
        sys.modules["rich"] = None
        try:
            import portable_sched.progress
        except ImportError as error:
            print(error)
    """)
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True
    ).stdout

    assert (
        "portable_sched.progress needs rich, which is not installed: "
        "pip install 'portable_sched[rich]'\n"
    ) == output
