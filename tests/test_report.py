"""The report: one table compared whole, then what each kind of text does to it."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import anyio
import pytest

from portable_sched import Backoff, FailurePolicy, RunResults, TaskRegistry, TaskScheduler
from portable_sched.reporting.tracebacks import traceback_of
from portable_sched.testing import run_graph

pytestmark = pytest.mark.anyio


class LoadError(Exception):
    """As a user's own."""


def failing(error: BaseException) -> Callable[[], Any]:
    async def fail() -> None:
        raise error

    return fail


def report_of(errors: Mapping[str, str]) -> list[str]:
    """The lines of the report on tasks of these names that have failed with these texts."""
    registry = TaskRegistry()
    for name, text in errors.items():
        registry.task(name)(failing(LoadError(text)))
    scheduler = TaskScheduler(registry)
    return scheduler.report(asyncio.run(scheduler.run())).splitlines()


# The whole


@pytest.mark.virtual_time
async def test_the_report_is_this_table() -> None:
    registry = TaskRegistry()
    task = registry.task
    left = [ConnectionError("reset")]

    @task
    async def fetch() -> None:
        await anyio.sleep(1.5)

    @task(retries=2, depends_on=[fetch])
    async def transform() -> None:
        await anyio.sleep(0.25)
        if left:
            raise left.pop()

    @task("load-into-the-warehouse", depends_on=[transform], retries=12)
    async def load() -> None:
        await anyio.sleep(10)
        raise LoadError("no table\n  named 'rows'")

    @task(depends_on=[load])
    async def tell() -> None: ...

    @task(depends_on=[tell])
    async def archive() -> None: ...

    @task("検査", depends_on=[fetch])
    async def check() -> None:
        await anyio.sleep(100)

    scheduler = TaskScheduler(registry)
    results = await scheduler.run()

    assert """\
Task                     Status     Attempts   Duration  Error
-----------------------  ---------  --------  ---------  ------------------------------------------------------------------------------------------------------
fetch                    COMPLETED         1    1.5000s
transform                COMPLETED         2    0.5000s
load-into-the-warehouse  FAILED           12  120.0000s  LoadError: no table | named 'rows'
tell                     FAILED            0    0.0000s  Dependency 'load-into-the-warehouse' failed: LoadError: no table | named 'rows'
archive                  FAILED            0    0.0000s  Dependency 'tell' failed, because 'load-into-the-warehouse' failed: LoadError: no table | named 'rows'
検査                     COMPLETED         1  100.0000s
6 tasks: 3 completed, 3 failed; 122.0000s wall time, 2 at once""" == scheduler.report(results)  # noqa: E501 - a table is as wide as it is


@pytest.mark.virtual_time
async def test_the_report_of_a_cancelled_run_is_this_table() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> None:
        await anyio.sleep(10)

    @registry.task(depends_on=[fetch])
    async def load() -> None: ...

    scheduler = TaskScheduler(registry)
    with anyio.move_on_after(2):
        await scheduler.run()

    assert """\
Task   Status     Attempts  Duration  Error
-----  ---------  --------  --------  -----
fetch  CANCELLED         1   2.0000s
load   CANCELLED         0   0.0000s
2 tasks: 2 cancelled; 2.0000s wall time, 1 at once""" == scheduler.report()


async def test_the_report_during_a_run_shows_what_is_pending_and_running() -> None:
    registry = TaskRegistry()
    reports: list[str] = []

    @registry.task
    async def looks() -> None:
        reports.append(scheduler.report())

    @registry.task(depends_on=[looks])
    async def later() -> None: ...

    scheduler = TaskScheduler(registry)
    await scheduler.run()

    assert """\
Task   Status   Attempts  Duration  Error
-----  -------  --------  --------  -----
looks  RUNNING         1   0.0000s
later  PENDING         0   0.0000s
2 tasks: 1 pending, 1 running; 0.0000s wall time, 1 at once""" == reports[0]


def test_an_empty_graph_gives_the_summary_alone() -> None:
    scheduler = TaskScheduler([])
    summary = scheduler.report(asyncio.run(scheduler.run()))

    assert summary.startswith("0 tasks: nothing to run; 0.000")
    assert summary.endswith("s wall time, 0 at once")
    assert 1 == len(summary.splitlines())


def test_the_summary_of_one_task_is_in_the_singular() -> None:
    assert report_of({"fetch": ""})[-1].startswith("1 task: 1 failed; 0.")


def test_the_report_of_a_run_is_that_of_its_results() -> None:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> None: ...

    scheduler = TaskScheduler(registry)
    first: RunResults = asyncio.run(scheduler.run())
    before = scheduler.report(first)
    asyncio.run(scheduler.run())

    assert before == scheduler.report(first)


# Plain text


def test_no_line_ends_in_spaces() -> None:
    lines = report_of({"fetch": "", "load": "no such table"})

    assert [line.rstrip() for line in lines] == lines


def test_the_report_ends_without_a_line_end() -> None:
    scheduler = TaskScheduler([])
    asyncio.run(scheduler.run())

    assert not scheduler.report().endswith("\n")


# Widths. These were looked up and not worked out, so they do not share a mistake with the package.

WIDTHS = [
    ("fetch", 5),
    ("a" * 200, 200),
    ("naïve", 5),
    ("nai\N{COMBINING DIAERESIS}ve", 5),
    ("e" + "\N{COMBINING ACUTE ACCENT}" * 5, 1),
    ("データ", 6),
    ("ﾃﾞｰﾀ", 4),
    ("\N{FULLWIDTH LATIN SMALL LETTER A}" * 3, 6),
    ("抓取数据", 8),
    ("한글", 4),
    ("\u1112\u1161\u11ab\u1100\u1173\u11af", 4),
    ("загрузка", 8),
    ("φόρτωση", 7),
    ("שָׁלוֹם", 4),
    ("zero\N{ZERO WIDTH SPACE}width", 9),
    ("🚀 launch", 9),
    # A terminal that does not join the parts of a family, or does not colour a thumb, shows them.
    ("👨\N{ZERO WIDTH JOINER}👩\N{ZERO WIDTH JOINER}👧", 6),
    ("👍\N{EMOJI MODIFIER FITZPATRICK TYPE-4}", 4),
]

each_width = pytest.mark.parametrize(
    ("text", "columns"), WIDTHS, ids=[f"{text[:10]!a}" for text, _ in WIDTHS]
)


@each_width
def test_the_status_column_is_aligned_beside(text, columns) -> None:
    header, rule, short, wide, _ = report_of({"ab": "", text: ""})
    start = 2 + max(columns, len("Task"))

    assert start == header.index("Status")
    assert "-" * (start - 2) == rule.split()[0]
    assert start == short.index("FAILED")
    assert wide.startswith(text)
    assert start == columns + wide.index("FAILED") - len(text)


@each_width
def test_the_rule_is_as_long_as_an_error_of(text, columns) -> None:
    rule = report_of({"load": text})[1]

    assert columns + len("LoadError: ") == len(rule.split()[-1])


def test_attempts_and_durations_stand_to_the_right() -> None:
    header, _, row, _ = report_of({"load": "no"})

    assert "Task  Status  Attempts  Duration  Error" == header
    assert "load  FAILED         1   " == row[:25]
    assert header.index("  Error") == row.index("s  LoadError") + 1


# Text that would break the table


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("two\nlines", "two | lines"),
        ("two\r\nlines", "two | lines"),
        ("an empty\n\n   \nline", "an empty | line"),
        ("not\n    indented  \n", "not | indented"),
        ("a\N{LINE SEPARATOR}b\N{PARAGRAPH SEPARATOR}c\vd\fe\x85f", "a | b | c | d | e | f"),
        ("a\ttab", "a tab"),
        ("\x1b[31mred\x1b[0m", "\ufffd[31mred\ufffd[0m"),
        (
            "bell\a, null\0, backspace\b, delete\x7f",
            "bell\ufffd, null\ufffd, backspace\ufffd, delete\ufffd",
        ),
        ("an 8-bit control\x9b31m", "an 8-bit control\ufffd31m"),
        ("a file name: caf\udce9", "a file name: caf\ufffd"),
        ("a | b", "a | b"),
        ("100 % of {them}", "100 % of {them}"),
    ],
    ids=[
        "two lines",
        "carriage return",
        "empty lines",
        "indented lines",
        "other line ends",
        "tab",
        "escape sequences",
        "control characters",
        "8-bit controls",
        "lone surrogates",
        "our own bar",
        "format characters",
    ],
)
def test_an_error_is_shown_on_one_line(text, shown) -> None:
    lines = report_of({"load": text})
    start = lines[0].index("Error")

    assert 4 == len(lines)
    assert f"LoadError: {shown}" == lines[2][start:]


def test_a_name_of_two_lines_is_shown_on_one() -> None:
    lines = report_of({"fetch\nrows\x1b[2J": ""})

    assert 4 == len(lines)
    assert lines[2].startswith("fetch | rows\ufffd[2J  FAILED")


def test_a_report_can_be_written_as_utf8_whatever_is_in_it() -> None:
    lines = report_of({"caf\udce9": "caf\udce9"})

    assert "\n".join(lines).encode("utf-8")


def test_an_error_without_text_is_its_name() -> None:
    lines = report_of({"load": ""})

    assert "LoadError" == lines[2][lines[0].index("Error") :]


# Everything that is known


@pytest.fixture
def verbose_report() -> str:
    registry = TaskRegistry()

    @registry.task(retries=2, backoff=Backoff(initial=4, jitter=0))
    async def fetch() -> str:
        return "rows"

    @registry.task
    async def load(fetch: str) -> None:
        error = LoadError("no table\n  named 'rows'")
        error.add_note("while it was loading")
        raise error from KeyError("rows")

    @registry.task(depends_on=[load])
    async def tell() -> None: ...

    results = run_graph(registry, seconds={"fetch": 1, "load": 2}, fail={"fetch": [1]})
    return TaskScheduler(registry).report(results, verbose=True)


def test_a_verbose_report_begins_with_the_table(verbose_report) -> None:
    assert "Task   Status     Attempts  Duration  Error" == verbose_report.splitlines()[0]


def test_it_has_every_attempt_that_failed_with_its_time_and_traceback(verbose_report) -> None:
    first, *_, last = verbose_report.partition("load, attempt 1: began after 6.0 s, took 2.0 s\n")

    assert "\nfetch, attempt 1: began after 0 s, took 1.0 s, the next one 4.0 s later\n" in first
    assert "PlannedFailure: Attempt 1 of task 'fetch' was planned to fail." in first
    assert "    KeyError: 'rows'\n" in last
    assert "    The above exception was the direct cause of the following exception:\n" in last
    assert "LoadError: no table\n      named 'rows'\n    while it was loading\n" in last


def test_it_says_why_a_task_did_not_run_and_where_the_time_went(verbose_report) -> None:
    why, *where = verbose_report.splitlines()[-5:]

    assert (
        "'tell' was not started: it depends on 'load', which failed: LoadError: no table | "
        "named 'rows'."
    ) == why
    assert [
        "",
        "Where the 8.0 s went: fetch (6.0 s) → load (2.0 s)",
        "All tasks together: 4.0 s in functions, 4.0 s in backoff.",
        "No limit was in the way: only shorter tasks in that chain save time.",
    ] == where


def test_of_many_tasks_that_did_not_run_the_first_are_explained() -> None:
    registry = TaskRegistry()
    registry.task("t0")(failing(LoadError("no table")))
    for at in range(1, 103):

        @registry.task(f"t{at}", depends_on=["t0"])
        async def no_op() -> None: ...

    lines = TaskScheduler(registry).report(run_graph(registry), verbose=True).splitlines()

    assert 100 == sum(" was not started: it depends on 't0'" in line for line in lines)
    assert "And 2 more were not started." in lines


def test_a_task_that_needed_several_attempts_is_followed_to_its_end(verbose_report) -> None:
    assert "\n\n'fetch' has completed in 6.0 s, at attempt 2.\n\n" in verbose_report
    # Of one that failed the traceback has told all.
    assert "'load' failed at" not in verbose_report


@pytest.mark.virtual_time
async def test_it_says_why_a_task_was_cancelled_on_the_way() -> None:
    registry = TaskRegistry()

    @registry.task
    async def slow() -> None:
        await anyio.sleep(10)

    @registry.task(depends_on=[slow])
    async def later() -> None: ...

    @registry.task
    async def fails() -> None:
        await anyio.sleep(2)
        raise LoadError

    scheduler = TaskScheduler(registry, on_failure=FailurePolicy.CANCEL)
    report = scheduler.report(await scheduler.run(), verbose=True)

    assert (
        "\n'slow' was cancelled during attempt 1, after 2.0 s: 'fails' had failed after 2.0 s.\n"
    ) in report
    assert 1 == report.count("'later' was not started")


def test_a_verbose_report_holds_no_character_that_acts_on_a_terminal() -> None:
    registry = TaskRegistry()
    registry.task("load")(failing(LoadError("\x1b[2J caf\udce9")))
    report = TaskScheduler(registry).report(run_graph(registry), verbose=True)

    assert "\n    test_report.LoadError: \ufffd[2J caf\ufffd\n" in report
    assert report.encode("utf-8")


def test_an_exception_from_a_file_has_the_traceback_that_was_written() -> None:
    error = ValueError("x")
    error.recorded_traceback = "Traceback as it was\n"

    assert "Traceback as it was\n" == traceback_of(error)
