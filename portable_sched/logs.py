"""What happens in a run, as records of the standard `logging`, for whoever is on call.

>>> import asyncio, logging, sys
>>> from portable_sched import TaskRegistry, TaskScheduler
>>> from portable_sched.logs import LogObserver
>>> logger = logging.getLogger("nightly")
>>> logger.addHandler(logging.StreamHandler(sys.stdout))
>>> registry = TaskRegistry()
>>> @registry.task(retries=2)
... async def fetch() -> bytes:
...     raise OSError("no route to host")
>>> @registry.task
... async def load(fetch: bytes) -> int:
...     return len(fetch)
>>> scheduler = TaskScheduler(registry, observers=[LogObserver(logger)])
>>> results = asyncio.run(scheduler.run())  # doctest: +ELLIPSIS
Attempt 1 of task 'fetch' failed, another follows at once: OSError: no route to host
Task 'fetch' failed: OSError: no route to host
Traceback (most recent call last):
...
OSError: no route to host
Not started because task 'fetch' failed: 1 task
Run finished: 2 tasks in ...s: 0 completed, 2 failed, 0 cancelled
"""

from collections import Counter
from collections.abc import Mapping, MutableMapping
from logging import DEBUG, ERROR, INFO, WARNING, Logger, LoggerAdapter, getLogger
from typing import Any, ClassVar, TypeAlias

from portable_sched import (
    AttemptStarted,
    DependencyFailedError,
    Event,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskClosed,
    TaskCompleted,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
    TaskStatus,
)
from portable_sched._errors import error_text
from portable_sched.analysis.wording import on_one_line, tasks_text

__all__ = ["LogObserver"]

AnyLogger: TypeAlias = Logger | LoggerAdapter[Any]
"""What takes log records: a logger, or an adapter that adds something to its records."""


class LogObserver:
    """An observer that logs what happens.

    Give it to a scheduler as `observers=[LogObserver(logger)]`; it serves any number of runs, also
    at once. The level of a record says who is to look at it:

    | level     | what happened                                                                  |
    |-----------|--------------------------------------------------------------------------------|
    | `ERROR`   | a task has failed for good, with its traceback; a run in which one has is over |
    | `WARNING` | an attempt has failed and another will follow; a task that failed kept others  |
    |           | from starting, which is one record however many they are; a run is over in     |
    |           | which tasks were cancelled and none has failed                                 |
    | `INFO`    | a run has started; a run is over in which every task is completed              |
    | `DEBUG`   | what a task does when all is well; each one that was not started or was        |
    |           | cancelled                                                                      |

    Each record has attributes for programs, which a JSON formatter writes as fields. They are
    text and numbers, and have prefixes so as not to clash with those of others:

    | attribute         | of which records        | what                                          |
    |-------------------|-------------------------|-----------------------------------------------|
    | `task_event`      | all                     | the event: `TaskFailed`, `RunFinished`        |
    | `task_name`       | all of one task         | its name                                      |
    | `task_status`     | those but `TaskClosed`  | its status, as `FAILED`                       |
    | `task_attempt`    | `TaskRetrying`          | the attempt that has failed, from 1           |
    |                   | `AttemptStarted`        | the attempt that begins                       |
    | `task_delay`      | `TaskRetrying`          | seconds until the next attempt may begin      |
    | `task_duration`   | `TaskCompleted`         | seconds that it took, all attempts included   |
    | `task_error`      | `TaskRetrying`,         | what was raised, as `ValueError: text`        |
    |                   | `TaskFailed`            |                                               |
    | `task_root_cause` | `TaskFailed` of what    | the task whose own failure was the reason     |
    |                   | was not started         |                                               |
    | `run_tasks`       | `RunStarted`,           | how many tasks there are                      |
    |                   | `RunFinished`           |                                               |
    | `run_completed`,  | `RunFinished`           | how many of them ended so                     |
    | `run_failed`,     |                         |                                               |
    | `run_cancelled`   |                         |                                               |
    | `run_not_started` | the record of what a    | how many tasks it kept from starting          |
    |                   | failed task meant       |                                               |
    | `run_duration`    | `RunFinished`           | seconds that the run took                     |

    An observer is called in the context of the run, so what a filter of yours adds from context
    variables, such as the id of a request, is that of whoever called `run()`.

    Args:
        logger: where to, a `LoggerAdapter` too; the logger "portable_sched" where it is left out.

    Raises:
        TypeError: `logger` is something else.
    """

    def __init__(self, logger: AnyLogger | None = None) -> None:
        if logger is None:
            logger = getLogger("portable_sched")
        if not isinstance(logger, (Logger, LoggerAdapter)):
            raise TypeError(
                "Expected logger to be a logging.Logger, as in "
                f"LogObserver(logging.getLogger('nightly')), got {logger!r}."
            )
        self._logger: AnyLogger = logger

    @property
    def wants(self) -> tuple[type[Event], ...]:
        """The events that its logger would let through: a run asks when it begins.

        So a run whose logger is at `INFO` does not even make the events of what goes well, and one
        that is set to `DEBUG` while a run goes on tells the details of the next.
        """
        about = self._ABOUT.items()
        return tuple(event for event, (level, _) in about if self._logger.isEnabledFor(level))

    def __call__(self, event: Event) -> None:
        known = self._ABOUT.get(type(event))
        if known is not None:
            level, log = known
            # Again, for whoever calls it with all events, or turns it down while a run goes on.
            if self._logger.isEnabledFor(level):
                log(self, event)

    def _run_started(self, event: RunStarted) -> None:
        count = len(event.tasks)
        self._log(INFO, event, "Run started: %s", tasks_text(count), run_tasks=count)

    def _run_finished(self, event: RunFinished) -> None:
        results = event.results
        counts = results.counts()
        completed, failed, cancelled = (
            counts.get(status, 0)
            for status in (TaskStatus.COMPLETED, TaskStatus.FAILED, TaskStatus.CANCELLED)
        )
        if failed:
            self._say_what_was_not_started(event)
        self._log(
            ERROR if failed else WARNING if cancelled else INFO,
            event,
            "Run finished: %s in %.3f s: %d completed, %d failed, %d cancelled",
            tasks_text(len(results)),
            results.wall_time,
            completed,
            failed,
            cancelled,
            run_tasks=len(results),
            run_completed=completed,
            run_failed=failed,
            run_cancelled=cancelled,
            run_duration=results.wall_time,
        )

    def _say_what_was_not_started(self, event: RunFinished) -> None:
        """One record for each root cause: there may be ten thousand that come of it."""
        kept = Counter(
            result.exception.root_cause
            for result in event.results.failed
            if isinstance(result.exception, DependencyFailedError) and not result.attempts
        )
        for root_cause, count in kept.items():
            self._log(
                WARNING,
                event,
                "Not started because task %r failed: %s",
                root_cause,
                tasks_text(count),
                task_name=root_cause,
                task_status=TaskStatus.FAILED.value,
                run_not_started=count,
            )

    def _scheduled(self, event: TaskScheduled) -> None:
        self._log_task(DEBUG, event, TaskStatus.PENDING, "Task %r is ready")

    def _started(self, event: TaskStarted) -> None:
        self._log_task(DEBUG, event, TaskStatus.RUNNING, "Task %r started")

    def _attempt_started(self, event: AttemptStarted) -> None:
        # Of the first one `TaskStarted` has told.
        if event.attempt > 1:
            self._log_task(
                DEBUG,
                event,
                TaskStatus.RUNNING,
                "Task %r started attempt %d",
                event.attempt,
                task_attempt=event.attempt,
            )

    def _retrying(self, event: TaskRetrying) -> None:
        failed = event.attempt - 1
        error = error_text(event.exception)
        when = f"in {event.delay:.3f} s" if event.delay else "at once"
        self._log(
            WARNING,
            event,
            "Attempt %d of task %r failed, another follows %s: %s",
            failed,
            event.task,
            when,
            on_one_line(error),
            task_name=event.task,
            task_status=TaskStatus.RUNNING.value,
            task_attempt=failed,
            task_delay=event.delay,
            task_error=error,
        )

    def _completed(self, event: TaskCompleted) -> None:
        self._log_task(
            DEBUG,
            event,
            TaskStatus.COMPLETED,
            "Task %r completed in %.3f s",
            event.duration,
            task_duration=event.duration,
        )

    def _failed(self, event: TaskFailed) -> None:
        exception = event.exception
        if isinstance(exception, DependencyFailedError) and exception.task == event.task:
            self._log_task(
                DEBUG,
                event,
                TaskStatus.FAILED,
                "Task %r was not started: %s",
                on_one_line(event.error),
                task_error=event.error,
                task_root_cause=exception.root_cause,
            )
        else:
            self._log_task(
                ERROR,
                event,
                TaskStatus.FAILED,
                "Task %r failed: %s",
                on_one_line(event.error),
                exception=exception,
                task_error=event.error,
            )

    def _cancelled(self, event: TaskCancelled) -> None:
        self._log_task(DEBUG, event, TaskStatus.CANCELLED, "Task %r was cancelled")

    def _closed(self, event: TaskClosed) -> None:
        # Without a status: that of its failure, if its teardown failed, comes next.
        self._log(DEBUG, event, "Task %r closed", event.task, task_name=event.task)

    def _log_task(
        self,
        level: int,
        event: Any,
        status: TaskStatus,
        message: str,
        *args: object,
        exception: BaseException | None = None,
        **fields: object,
    ) -> None:
        self._log(
            level,
            event,
            message,
            event.task,
            *args,
            exception=exception,
            task_name=event.task,
            task_status=status.value,
            **fields,
        )

    def _log(
        self,
        level: int,
        event: Event,
        message: str,
        *args: object,
        exception: BaseException | None = None,
        **fields: object,
    ) -> None:
        extra = {"task_event": type(event).__name__, **fields}
        keywords: MutableMapping[str, Any] = {"exc_info": exception, "extra": extra}
        logger: Any = self._logger
        # By hand, since an adapter puts its own fields in the place of those that it is given.
        while isinstance(logger, LoggerAdapter):
            message, keywords = logger.process(message, keywords)
            keywords["extra"] = {**(keywords.get("extra") or {}), **extra}
            logger = logger.logger
        logger.log(level, message, *args, **keywords)

    # The highest level that there may be for each event, and what logs it.
    _ABOUT: ClassVar[Mapping[type[Event], tuple[int, Any]]] = {
        RunStarted: (INFO, _run_started),
        RunFinished: (ERROR, _run_finished),
        TaskScheduled: (DEBUG, _scheduled),
        TaskStarted: (DEBUG, _started),
        AttemptStarted: (DEBUG, _attempt_started),
        TaskRetrying: (WARNING, _retrying),
        TaskCompleted: (DEBUG, _completed),
        TaskFailed: (ERROR, _failed),
        TaskCancelled: (DEBUG, _cancelled),
        TaskClosed: (DEBUG, _closed),
    }
