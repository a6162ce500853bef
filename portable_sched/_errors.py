"""What can go wrong, and what the reader is told.

TaskError
├── DependencyError          a graph refers to what is not there           (before anything runs)
│   ├── ParameterError       nothing fills a parameter of a function       (before anything runs)
│   ├── InputError           a run is given an input that nobody can take  (before anything runs)
│   ├── ResourceError        a task asks for a resource that is not enough (before anything runs)
│   ├── UnknownExecutorError a task is to run in an executor there is not  (before anything runs)
│   └── UnknownTargetError   run() is to end with a task that there is not (before anything runs)
├── CyclicDependencyError    tasks wait for each other                     (before anything runs)
├── DuplicateTaskError       two functions want one name                   (at decoration)
├── TaskTimeoutError         an attempt took longer than it may            (in the results)
├── DependencyFailedError    not started: what it depends on has failed    (in the results)
├── LifetimeError            an async generator did not yield exactly once (in the results)
├── TaskCancelledError       the function raised a cancellation by itself  (in the results)
├── RemoteTaskError          what a worker raised could not be sent        (in the results)
├── WorkerDiedError          a worker died while it ran the function       (in the results)
├── NotPicklableError        what is to go to a worker or back cannot      (in the results)
├── ExecutorError            an executor did not take or finish a call     (in the results)
└── NoRetry                  raised by a function: another attempt is no use

Wrong arguments are `TypeError` and `ValueError`, as everywhere in Python. The parts of each
message are attributes too, and every error survives pickling.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, Self


class TaskError(Exception):
    """Whatever portable_sched raises by itself."""


class DependencyError(TaskError):
    """A task depends on a name that nothing bears.

    Attributes:
        task: name of the task that asks.
        dependency: the name that is not registered.
        nearest: registered names that look like it, best first; may be empty.
    """

    def __init__(self, task: str, dependency: str, nearest: Sequence[str] = ()) -> None:
        super().__init__(task, dependency, tuple(nearest))
        self.task = task
        self.dependency = dependency
        self.nearest: tuple[str, ...] = tuple(nearest)

    def __str__(self) -> str:
        message = f"Task {self.task!r} depends on {self.dependency!r}, which is not registered."
        return message + did_you_mean(self.nearest)


class ParameterError(DependencyError):
    """Nothing fills a parameter of a task's function.

    Attributes:
        task: name of the task.
        parameter: name of the parameter.
        dependency: likewise.
        nearest: names of tasks and inputs that look like it, best first; may be empty.
    """

    @property
    def parameter(self) -> str:
        return self.dependency

    def __str__(self) -> str:
        message = (
            f"Task {self.task!r} has a parameter {self.parameter!r} that nothing fills: no task "
            "and no input of this run has that name, and it has no default."
        )
        if self.nearest:
            return message + did_you_mean(self.nearest)
        return (
            f"{message} Give it by run(inputs={{{self.parameter!r}: ...}}), or name a task with "
            "ResultOf."
        )


class ResourceError(DependencyError):
    """A task asks for a resource that the scheduler has not, or for more than it has.

    Attributes:
        task: name of the task that asks.
        dependency: name of the resource.
        asked: units that the task asks for.
        available: units that there are; None where the resource is unknown.
        nearest: names of resources that look like it, best first; may be empty.
    """

    def __init__(
        self,
        task: str,
        resource: str,
        asked: int,
        available: int | None = None,
        nearest: Sequence[str] = (),
    ) -> None:
        super().__init__(task, resource, nearest)
        # What it is made from again where it is unpickled.
        Exception.__init__(self, task, resource, asked, available, self.nearest)
        self.asked = asked
        self.available = available

    def __str__(self) -> str:
        if self.available is None:
            message = (
                f"Task {self.task!r} asks for the resource {self.dependency!r}, which the "
                "scheduler does not have."
            )
            if self.nearest:
                return message + did_you_mean(self.nearest)
            return f"{message} Write TaskScheduler(resources={{{self.dependency!r}: ...}})."
        return (
            f"Task {self.task!r} asks for {self.asked} of the resource {self.dependency!r}, and "
            f"the scheduler has {self.available}, so it could never start."
        )


class UnknownExecutorError(DependencyError):
    """A task is to run in an executor that the scheduler has not.

    Attributes:
        task: name of the task.
        dependency: name of the executor.
        known: names of the executors that there are.
        nearest: those that look like it, best first; may be empty.
    """

    def __init__(
        self, task: str, executor: str, known: Sequence[str], nearest: Sequence[str] = ()
    ) -> None:
        super().__init__(task, executor, nearest)
        # What it is made from again where it is unpickled.
        Exception.__init__(self, task, executor, tuple(known), self.nearest)
        self.known: tuple[str, ...] = tuple(known)

    def __str__(self) -> str:
        message = (
            f"Task {self.task!r} is to run in the executor {self.dependency!r}, which the "
            f"scheduler does not have; it has {', '.join(map(repr, self.known))}."
        )
        if self.nearest:
            return message + did_you_mean(self.nearest)
        if self.dependency == "interpreter":
            # Where it is not among the known ones.
            return f"{message} Interpreters need Python 3.14 or newer."
        return f"{message} Write TaskScheduler(executors={{{self.dependency!r}: ...}})."


class InputError(DependencyError, ValueError):
    """A run was given an input that it cannot use.

    Attributes:
        task: who gives it, which is `run()`.
        dependency: name of the input.
        is_task: whether a task has that name, so that nobody could tell which is meant; otherwise
            no parameter takes the input.
        nearest: names of inputs that look like it, best first; may be empty.
    """

    def __init__(self, name: str, *, is_task: bool = False, nearest: Sequence[str] = ()) -> None:
        super().__init__("run()", name, nearest)
        self.is_task = is_task

    def __reduce__(self) -> tuple[Any, ...]:
        return partial(type(self), is_task=self.is_task, nearest=self.nearest), (self.dependency,)

    def __str__(self) -> str:
        if self.is_task:
            return (
                f"The input {self.dependency!r} has the name of a task. Give one of them another "
                "name."
            )
        message = (
            f"The input {self.dependency!r} is taken by no parameter of a task; one with a default "
            "keeps that."
        )
        return message + did_you_mean(self.nearest)


class UnknownTargetError(DependencyError):
    """A run was asked for a task that is not in the graph.

    Attributes:
        task: what asks, which is `run()`.
        dependency: the name that is not registered.
        nearest: registered names that look like it, best first; may be empty.
    """

    def __init__(self, target: str, nearest: Sequence[str] = ()) -> None:
        super().__init__("run()", target, nearest)
        # What it is made from again where it is unpickled.
        Exception.__init__(self, target, self.nearest)

    def __str__(self) -> str:
        message = f"The target {self.dependency!r} is not registered."
        return message + did_you_mean(self.nearest)


class CyclicDependencyError(TaskError):
    """Tasks depend on each other in a circle, so none of them can be the first.

    Attributes:
        path: names of the tasks on the cycle and nothing else, each depending on the next; the
            first is repeated as the last.
    """

    def __init__(self, path: Sequence[str]) -> None:
        super().__init__(tuple(path))
        self.path: tuple[str, ...] = tuple(path)

    def __str__(self) -> str:
        return f"Tasks form a cycle: {' -> '.join(self.path)}."


class DuplicateTaskError(TaskError):
    """Two different functions were registered under one name.

    Attributes:
        task: the name.
        existing: the function that has it, as `module.qualified_name`.
        refused: the function that asked for it, likewise.
    """

    def __init__(self, task: str, existing: str, refused: str) -> None:
        super().__init__(task, existing, refused)
        self.task = task
        self.existing = existing
        self.refused = refused

    @classmethod
    def between(cls, task: str, existing: object, refused: object) -> Self:
        """The error for two functions that want the name `task`."""
        return cls(task, full_name(existing), full_name(refused))

    def __str__(self) -> str:
        return (
            f"Task name {self.task!r} belongs to {self.existing} already, so {self.refused} cannot "
            "have it. Give one of them another name: @task(name=...)."
        )


class TaskTimeoutError(TaskError, TimeoutError):
    """An attempt was still running when its time was up.

    Attributes:
        task: name of the task.
        timeout: how long the attempt was allowed to take, in seconds.
        remark: what else there is to know, as a sentence: that a thread goes on, that it was the
            teardown; may be empty.
    """

    def __init__(self, task: str, timeout: float, remark: str = "") -> None:
        super().__init__(task, timeout, remark)
        self.task = task
        self.timeout = timeout
        self.remark = remark

    def __str__(self) -> str:
        message = f"Task {self.task!r} took longer than its timeout of {self.timeout:g} s."
        return f"{message} {self.remark}" if self.remark else message


class LifetimeError(TaskError):
    """A task that is an async generator did not yield exactly once.

    Attributes:
        task: name of the task.
        problem: what it did instead.
    """

    def __init__(self, task: str, problem: str) -> None:
        super().__init__(task, problem)
        self.task = task
        self.problem = problem

    def __str__(self) -> str:
        return (
            f"Task {self.task!r} is an async generator and {self.problem}. It has to yield once: "
            "what comes before is its set-up, what it yields its result, the rest its teardown."
        )


class DependencyFailedError(TaskError):
    """A task was not started, because something it depends on has failed.

    Attributes:
        task: name of the task that was not started.
        dependency: the direct dependency that did not succeed.
        root_cause: the task whose own failure began it; may be `dependency` itself.
        reason: error text of the root cause, as in `TaskResult.error`.
    """

    def __init__(self, task: str, dependency: str, root_cause: str, reason: str) -> None:
        super().__init__(task, dependency, root_cause, reason)
        self.task = task
        self.dependency = dependency
        self.root_cause = root_cause
        self.reason = reason

    def __str__(self) -> str:
        if self.dependency == self.root_cause:
            return f"Dependency {self.dependency!r} failed: {self.reason}"
        return (
            f"Dependency {self.dependency!r} failed, because {self.root_cause!r} failed: "
            f"{self.reason}"
        )


class TaskCancelledError(TaskError):
    """The function raised the backend's cancellation although nobody had cancelled the run.

    It awaited something that others had cancelled, or cancelled itself. The cancellation is the
    `__cause__`.

    Attributes:
        task: name of the task.
    """

    def __init__(self, task: str) -> None:
        super().__init__(task)
        self.task = task

    def __str__(self) -> str:
        return (
            f"Task {self.task!r} was cancelled from within: it cancelled itself, or awaited "
            "something that was cancelled."
        )


class RemoteTaskError(TaskError):
    """What a function raised in a worker, where the exception itself could not be sent.

    It cannot be pickled, or it is one that ends a program (`SystemExit`, `KeyboardInterrupt`) and
    is to end no more than its attempt.

    Attributes:
        task: name of the task.
        kind: the exception's type, as `module.qualified_name`, or the bare name of one of Python's
            own.
        text: what `str()` made of it.
        traceback: what Python would have printed there.
    """

    def __init__(self, task: str, kind: str, text: str, traceback: str) -> None:
        super().__init__(task, kind, text, traceback)
        self.task = task
        self.kind = kind
        self.text = text
        self.traceback = traceback

    def __str__(self) -> str:
        what = f"{self.kind}: {self.text}" if self.text else self.kind
        return f"Task {self.task!r} raised in a worker: {what}"


class WorkerDiedError(TaskError):
    """A worker died while it ran the task: killed, out of memory, crashed, or ended by itself.

    Attributes:
        task: name of the task.
        executor: name of the executor.
        running: names of the tasks that were there when it died, as far as can be told; the task
            itself among them.
        remark: what else there is to know, as a sentence; may be empty.
    """

    def __init__(self, task: str, executor: str, running: Sequence[str], remark: str = "") -> None:
        super().__init__(task, executor, tuple(running), remark)
        self.task = task
        self.executor = executor
        self.running: tuple[str, ...] = tuple(running)
        self.remark = remark

    def __str__(self) -> str:
        names = ", ".join(self.running)
        message = f"A worker of the executor {self.executor!r} died while running: {names}."
        return f"{message} {self.remark}" if self.remark else message


class NotPicklableError(TaskError):
    """Something that should have gone to a worker, or come back, cannot be pickled.

    Attributes:
        task: name of the task.
        executor: name of the executor.
        part: what it is: "the function", "the parameter 'rows'" or "the result".
        reason: what pickling it raised.
        remark: what to do, as a sentence.
    """

    def __init__(self, task: str, executor: str, part: str, reason: str, remark: str) -> None:
        super().__init__(task, executor, part, reason, remark)
        self.task = task
        self.executor = executor
        self.part = part
        self.reason = reason
        self.remark = remark

    def __str__(self) -> str:
        return (
            f"Task {self.task!r} runs in the executor {self.executor!r}, and {self.part} cannot "
            f"get there or back by pickling: {self.reason}. {self.remark}"
        )


class ExecutorError(TaskError):
    """An executor could not be opened, did not take a call, gave it up, or has lost a result.

    Attributes:
        task: name of the task whose attempt it was.
        executor: name of the executor; of a lost result, the one that had it.
        reason: what happened, as a sentence.
    """

    def __init__(self, task: str, executor: str, reason: str) -> None:
        super().__init__(task, executor, reason)
        self.task = task
        self.executor = executor
        self.reason = reason

    def __str__(self) -> str:
        return (
            f"Task {self.task!r} could not run, because of the executor {self.executor!r}: "
            f"{self.reason}"
        )


class NoRetry(TaskError):  # noqa: N818 - an order, not an accident
    """Raise it in a task's function to fail at once, whatever attempts are left.

    It ends the attempt like any exception, also inside an exception group. Raise it `from` the
    exception that says why: that one stays its `__cause__`.

    >>> from portable_sched import NoRetry, task
    >>> @task(retries=5)
    ... async def fetch() -> None:
    ...     raise NoRetry("the account is closed")
    """


def did_you_mean(nearest: Sequence[str]) -> str:
    """The sentence that offers `nearest`, with a space before it; empty where there is none."""
    if not nearest:
        return ""
    return f" Did you mean {' or '.join(repr(name) for name in nearest)}?"


def nearest_names(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """Up to three of the `known` names that look like `name`, best first."""
    # Here, because it takes a third of our import time, and most programs never need it.
    import difflib  # noqa: PLC0415

    return tuple(difflib.get_close_matches(name, known))


def full_name(function: object) -> str:
    """A function as an error message names it: `module.qualified_name`."""
    name = getattr(function, "__qualname__", None)
    # Some callables of Python's own have a name and no module: `iter([]).__next__`.
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if name and module else repr(function)


def error_text(exception: BaseException) -> str:
    """One exception as a report shows it: `ValueError: text`.

    A dependency's failure speaks for itself, without the name of our class before it.
    """
    try:
        text = str(exception)
    except (Exception, SystemExit):  # noqa: BLE001 - the user's own __str__; the task has failed all the same
        text = "<exception str() failed>"
    if isinstance(exception, DependencyFailedError):
        return text
    name = type(exception).__name__
    return f"{name}: {text}" if text else name
