"""What is logged of a run: levels for whoever is on call, fields for programs."""

import json
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from portable_sched import (
    Backoff,
    DependencyFailedError,
    Event,
    RunFinished,
    RunResults,
    RunStarted,
    TaskFailed,
    TaskRegistry,
    TaskRetrying,
    TaskScheduler,
)
from portable_sched.logs import LogObserver

pytestmark = [pytest.mark.anyio, pytest.mark.virtual_time]

each = pytest.mark.parametrize


class Kept(logging.Handler):
    """A handler that keeps what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    @property
    def lines(self) -> list[str]:
        return [f"{record.levelname} {record.getMessage()}" for record in self.records]

    def at(self, level: int) -> list[str]:
        return [record.getMessage() for record in self.records if record.levelno == level]

    def one(self, event: str) -> logging.LogRecord:
        [record] = [one for one in self.records if fields_of(one)["task_event"] == event]
        return record


# What every record has, whoever made it.
PLAIN = set(vars(logging.makeLogRecord({}))) | {"message", "asctime"}


def fields_of(record: logging.LogRecord) -> dict[str, Any]:
    """What the record has beyond what every one has."""
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def logger(kept: Kept) -> Iterator[logging.Logger]:
    logger = logging.getLogger("nightly")
    logger.setLevel(logging.DEBUG)
    logger.addHandler(kept)
    yield logger
    logger.removeHandler(kept)


async def no_op() -> None: ...


def failing(error: BaseException, seconds: float = 0) -> Callable[[], Any]:
    async def fail() -> None:
        await anyio.sleep(seconds)
        raise error

    return fail


async def logged_run(registry: TaskRegistry, logger: Any, **settings: Any) -> RunResults:
    return await TaskScheduler(registry, observers=[LogObserver(logger)], **settings).run()


# What is logged, and how loudly


async def test_a_run_that_goes_well_is_two_lines_and_its_details_are_for_debugging(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    @registry.task
    async def fetch() -> None:
        await anyio.sleep(1.5)

    registry.task("load", depends_on=[fetch])(no_op)
    await logged_run(registry, logger)

    assert [
        "INFO Run started: 2 tasks",
        "DEBUG Task 'fetch' is ready",
        "DEBUG Task 'fetch' started",
        "DEBUG Task 'fetch' completed in 1.500 s",
        "DEBUG Task 'load' is ready",
        "DEBUG Task 'load' started",
        "DEBUG Task 'load' completed in 0.000 s",
        "INFO Run finished: 2 tasks in 1.500 s: 2 completed, 0 failed, 0 cancelled",
    ] == kept.lines


async def test_an_attempt_that_another_will_follow_is_a_warning_with_the_delay(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    left: list[Exception] = [OSError("reset"), OSError("refused")]

    @registry.task(retries=3, backoff=lambda attempt, _: 10 * (attempt - 1))
    async def fetch() -> None:
        if left:
            raise left.pop()

    await logged_run(registry, logger)

    assert [
        "Attempt 1 of task 'fetch' failed, another follows at once: OSError: refused",
        "Attempt 2 of task 'fetch' failed, another follows in 10.000 s: OSError: reset",
    ] == kept.at(logging.WARNING)
    assert [] == kept.at(logging.ERROR)
    assert "DEBUG Task 'fetch' started attempt 3" in kept.lines
    assert "DEBUG Task 'fetch' started attempt 1" not in kept.lines


async def test_a_task_that_fails_for_good_is_an_error_with_its_exception(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    error = ValueError("no rows")
    registry.task("fetch", retries=2)(failing(error))
    await logged_run(registry, logger)

    record = kept.one("TaskFailed")
    assert (logging.ERROR, "Task 'fetch' failed: ValueError: no rows") == (
        record.levelno,
        record.getMessage(),
    )
    assert record.exc_info is not None
    assert error is record.exc_info[1]
    assert "in fail" in logging.Formatter().format(record)


async def test_a_teardown_that_fails_is_an_error_with_its_exception(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    error = ValueError("no rows")

    @registry.task
    async def db() -> AsyncIterator[None]:
        yield
        raise error

    await logged_run(registry, logger)

    record = kept.one("TaskFailed")
    assert "DEBUG Task 'db' closed" in kept.lines
    assert logging.ERROR == record.levelno
    assert record.exc_info is not None
    assert error is record.exc_info[1]


async def test_what_a_failure_keeps_from_starting_is_one_warning_for_each_root_cause(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    registry.task("fetch")(failing(ValueError("no rows")))
    registry.task("stamp")(failing(KeyError("date")))
    for number in range(1000):
        registry.task(f"load-{number}", depends_on=["fetch"])(no_op)
    registry.task("print", depends_on=["stamp"])(no_op)
    await logged_run(registry, logger)

    assert [
        "Not started because task 'fetch' failed: 1000 tasks",
        "Not started because task 'stamp' failed: 1 task",
    ] == kept.at(logging.WARNING)
    assert [
        "Task 'fetch' failed: ValueError: no rows",
        "Task 'stamp' failed: KeyError: 'date'",
        "Run finished: 1003 tasks in 0.000 s: 0 completed, 1003 failed, 0 cancelled",
    ] == kept.at(logging.ERROR)
    assert (
        "DEBUG Task 'print' was not started: Dependency 'stamp' failed: KeyError: 'date'"
        in kept.lines
    )


async def test_a_task_that_passes_the_failure_of_another_on_has_failed_by_itself(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    error = DependencyFailedError("load", "fetch", "fetch", "ValueError: no rows")
    registry.task("publish")(failing(error))
    await logged_run(registry, logger)

    assert logging.ERROR == kept.one("TaskFailed").levelno
    assert [] == kept.at(logging.WARNING)


async def test_a_run_that_was_cut_short_is_a_warning(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    @registry.task
    async def fetch() -> None:
        await anyio.sleep_forever()

    registry.task("load", depends_on=[fetch])(no_op)
    with anyio.move_on_after(2):
        await logged_run(registry, logger)

    assert ["Run finished: 2 tasks in 2.000 s: 0 completed, 0 failed, 2 cancelled"] == kept.at(
        logging.WARNING
    )
    assert {"DEBUG Task 'fetch' was cancelled", "DEBUG Task 'load' was cancelled"} < set(kept.lines)


async def test_stopping_a_task_in_its_backoff_tells_what_it_failed_with(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    error = ValueError("no rows")
    registry.task("fetch", retries=2, backoff=Backoff(initial=60))(failing(error))

    @registry.task
    async def stops() -> None:
        await anyio.sleep(1)
        scheduler.stop()

    scheduler = TaskScheduler(registry, observers=[LogObserver(logger)])
    await scheduler.run()

    record = kept.one("TaskFailed")
    assert record.exc_info is not None
    assert error is record.exc_info[1]


# Fields


async def test_records_have_these_fields(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    @registry.task
    async def db() -> AsyncIterator[None]:
        await anyio.sleep(0.5)
        yield

    registry.task("fetch", retries=2, backoff=Backoff(initial=2, jitter=0))(
        failing(ValueError("no rows"), 1)
    )
    registry.task("load", depends_on=["fetch", db])(no_op)

    await logged_run(registry, logger)

    assert [
        {"task_event": "RunStarted", "run_tasks": 3},
        {"task_event": "TaskScheduled", "task_name": "db", "task_status": "PENDING"},
        {"task_event": "TaskScheduled", "task_name": "fetch", "task_status": "PENDING"},
        {"task_event": "TaskStarted", "task_name": "db", "task_status": "RUNNING"},
        {"task_event": "TaskStarted", "task_name": "fetch", "task_status": "RUNNING"},
        {
            "task_event": "TaskCompleted",
            "task_name": "db",
            "task_status": "COMPLETED",
            "task_duration": 0.5,
        },
        {
            "task_event": "TaskRetrying",
            "task_name": "fetch",
            "task_status": "RUNNING",
            "task_attempt": 1,
            "task_delay": 2.0,
            "task_error": "ValueError: no rows",
        },
        {
            "task_event": "AttemptStarted",
            "task_name": "fetch",
            "task_status": "RUNNING",
            "task_attempt": 2,
        },
        {
            "task_event": "TaskFailed",
            "task_name": "fetch",
            "task_status": "FAILED",
            "task_error": "ValueError: no rows",
        },
        {
            "task_event": "TaskFailed",
            "task_name": "load",
            "task_status": "FAILED",
            "task_error": "Dependency 'fetch' failed: ValueError: no rows",
            "task_root_cause": "fetch",
        },
        {"task_event": "TaskClosed", "task_name": "db"},
        {
            "task_event": "RunFinished",
            "task_name": "fetch",
            "task_status": "FAILED",
            "run_not_started": 1,
        },
        {
            "task_event": "RunFinished",
            "run_tasks": 3,
            "run_completed": 1,
            "run_failed": 2,
            "run_cancelled": 0,
            "run_duration": 4.0,
        },
    ] == [fields_of(record) for record in kept.records]


async def test_every_field_can_be_written_as_json(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    registry.task("caf\udce9", retries=2)(failing(ValueError("\x00\udce9\n")))
    registry.task("load", depends_on=["caf\udce9"])(no_op)
    await logged_run(registry, logger)

    written = [json.dumps(fields_of(record)) for record in kept.records]
    assert [fields_of(record) for record in kept.records] == [json.loads(one) for one in written]


# Text that would break a line


@each("name", ["100 % done", "%s %d", "two\nlines", "{braces}", "\x1b[31mred"])
async def test_a_name_is_logged_as_it_is_and_on_one_line(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept, name: str
) -> None:
    registry.task(name, retries=2)(failing(ValueError(name)))
    await logged_run(registry, logger)

    assert f"ERROR Task {name!r} failed: ValueError: {repr(name)[1:-1]}" in kept.lines
    assert all(line.isprintable() for line in kept.lines)
    assert name == fields_of(kept.one("TaskFailed"))["task_name"]
    assert f"ValueError: {name}" == fields_of(kept.one("TaskFailed"))["task_error"]


# Loggers


async def test_without_a_logger_it_is_that_of_the_package(
    registry: TaskRegistry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "portable_sched")
    await TaskScheduler(registry, observers=[LogObserver()]).run()

    assert ["portable_sched", "portable_sched"] == [record.name for record in caplog.records]


@each(
    ("level", "events"),
    [
        (logging.INFO, ["RunStarted", "TaskRetrying", "TaskFailed", "RunFinished", "RunFinished"]),
        (logging.WARNING, ["TaskRetrying", "TaskFailed", "RunFinished", "RunFinished"]),
        (logging.ERROR, ["TaskFailed", "RunFinished"]),
        (logging.CRITICAL, []),
    ],
)
async def test_a_logger_gets_what_its_level_lets_through(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept, level: int, events: list[str]
) -> None:
    registry.task("fetch", retries=2)(failing(ValueError("no rows")))
    registry.task("load", depends_on=["fetch"])(no_op)
    logger.setLevel(level)
    await logged_run(registry, logger)

    assert events == [fields_of(record)["task_event"] for record in kept.records]


async def test_what_is_not_logged_is_not_made(registry: TaskRegistry, kept: Kept) -> None:
    class Counting(logging.Logger):
        made = 0

        def log(self, *args: Any, **kwargs: Any) -> None:
            self.made += 1

    logger = Counting("nightly", logging.INFO)
    for number in range(10):
        registry.task(f"fetch-{number}")(no_op)
    # A method wants everything.
    await TaskScheduler(registry, observers=[LogObserver(logger).__call__]).run()

    assert 2 == logger.made


@each(
    ("level", "wanted"),
    [
        (logging.INFO, {RunStarted, RunFinished, TaskRetrying, TaskFailed}),
        (logging.WARNING, {RunFinished, TaskRetrying, TaskFailed}),
        (logging.ERROR, {RunFinished, TaskFailed}),
        (logging.CRITICAL, set()),
    ],
)
def test_it_wants_the_events_that_its_logger_lets_through(
    logger: logging.Logger, level: int, wanted: set[type[Event]]
) -> None:
    logger.setLevel(level)

    assert wanted == set(LogObserver(logger).wants)


async def test_the_level_is_that_of_when_a_run_begins(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    registry.task("fetch")(no_op)
    scheduler = TaskScheduler(registry, observers=[LogObserver(logger)])
    logger.setLevel(logging.WARNING)
    await scheduler.run()
    assert [] == kept.lines

    logger.setLevel(logging.DEBUG)
    await scheduler.run()
    assert "DEBUG Task 'fetch' started" in kept.lines


async def test_an_adapter_adds_to_the_fields_and_takes_none_away(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    await logged_run(registry, logging.LoggerAdapter(logger, {"request": 7, "task_event": "mine"}))

    assert {"task_event": "RunStarted", "run_tasks": 0, "request": 7} == fields_of(kept.records[0])


async def test_adapters_around_adapters_have_their_say(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    class Prefixed(logging.LoggerAdapter[Any]):
        def process(self, msg: Any, kwargs: Any) -> Any:
            return f"[{self.extra['from']}] {msg}", kwargs

    inner = Prefixed(logger, {"from": "inner"})
    between = logging.LoggerAdapter(inner, {"request": 7})
    await logged_run(registry, Prefixed(between, {"from": "outer"}))

    assert "INFO [inner] [outer] Run started: 0 tasks" == kept.lines[0]
    assert 7 == fields_of(kept.records[0])["request"]


async def test_a_filter_sees_the_context_of_whoever_called_run(
    registry: TaskRegistry, logger: logging.Logger, kept: Kept
) -> None:
    request: ContextVar[int] = ContextVar("request")

    def add_request(record: logging.LogRecord) -> bool:
        record.request = request.get()
        return True

    kept.addFilter(add_request)
    registry.task("fetch")(no_op)

    async def serve(number: int) -> None:
        request.set(number)
        await logged_run(registry, logger)

    async with anyio.create_task_group() as group:
        group.start_soon(serve, 1)
        group.start_soon(serve, 2)

    assert 10 == len(kept.records)
    assert [1] * 5 + [2] * 5 == sorted(fields_of(record)["request"] for record in kept.records)


@each("logger", ["nightly", logging, print])
def test_what_is_no_logger_is_refused(logger: Any) -> None:
    with pytest.raises(TypeError, match=r"^Expected logger to be a logging\.Logger, as in "):
        LogObserver(logger)


def test_an_event_of_which_there_is_nothing_to_say_is_passed_over(
    logger: logging.Logger, kept: Kept
) -> None:
    LogObserver(logger)(Event(at=0.0))

    assert [] == kept.records
