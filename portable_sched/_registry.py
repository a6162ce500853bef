"""Where tasks are registered: the decorator, and the registry that keeps what it makes."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import Any, Final, TypeVar, overload

from ._checks import bad_name, own_name, refuse_unusable
from ._errors import DuplicateTaskError, did_you_mean, nearest_names
from ._parameters import Parameter, callers_namespace, parameters_of, takes_nothing
from ._retries import BackoffLike, RetryOn
from ._tasks import Priority, TaskDef, TaskLike, leave_note

F = TypeVar("F", bound=Callable[..., object])


class TaskRegistry:
    """Named tasks, in the order of their registration.

    The module-level `task` registers into a registry that everybody shares. One of your own keeps
    the tasks of a library, a test or a notebook apart:

    >>> from portable_sched import TaskRegistry, TaskScheduler
    >>> nightly = TaskRegistry()
    >>> @nightly.task(retries=3)
    ... async def backup() -> None: ...
    >>> [definition.name for definition in nightly]
    ['backup']
    >>> scheduler = TaskScheduler(nightly)
    """

    __slots__ = ("_definitions",)

    def __init__(self) -> None:
        self._definitions: dict[str, TaskDef] = {}

    @overload
    def task(self, name: F, /) -> F: ...
    @overload
    def task(
        self,
        name: str | None = None,
        priority: Priority = Priority.MEDIUM,
        retries: int = 1,
        depends_on: Iterable[TaskLike] = (),
        *,
        after: Iterable[TaskLike] = (),
        timeout: float | None = None,
        retry_on: RetryOn = Exception,
        backoff: BackoffLike | None = None,
        resources: Mapping[str, int] | Iterable[str] | None = (),
        executor: str | None = None,
        estimate: float | None = None,
    ) -> Callable[[F], F]: ...
    def task(
        self,
        name: str | Callable[..., object] | None = None,
        priority: Priority = Priority.MEDIUM,
        retries: int = 1,
        depends_on: Iterable[TaskLike] = (),
        *,
        after: Iterable[TaskLike] = (),
        timeout: float | None = None,
        retry_on: RetryOn = Exception,
        backoff: BackoffLike | None = None,
        resources: Mapping[str, int] | Iterable[str] | None = (),
        executor: str | None = None,
        estimate: float | None = None,
    ) -> object:
        """Register a function as a task, and get the function itself back.

        As `@task`, `@task()` or `@task(...)`. The function can be called, awaited, inspected and
        pickled as before. A parameter without a default that bears the name of a task takes that
        task's result, and makes it a dependency; `depends_on` is then for order alone. `ResultOf`
        is for other names, and `TaskScheduler.run(inputs=...)` for what differs from run to run.

        Args:
            name: what the task is called; the function's own name where it is left out.
            priority: of the tasks that are ready, the one with the highest priority starts first.
            retries: how many attempts the task has in total; 1 means no second one.
            depends_on: names or decorated functions; all of them must have succeeded before this
                task starts.
            after: names or decorated functions; all of them must have ended, however they did,
                before this task starts: a clean-up, a notification. A parameter named after one
                takes its `TaskResult`.
            timeout: seconds that one attempt may take; then it is cancelled, and has failed with
                `TaskTimeoutError`. A thread cannot be cancelled: it is abandoned, and what comes
                of it is of no account.
            retry_on: which exceptions are worth another attempt: a type, several, or a function
                that is given the exception.
            backoff: how long to wait before another attempt: a `Backoff`, or a function of the
                number of the attempt that has failed and its exception, which returns seconds.
            resources: what the task holds while an attempt runs: names, or a mapping of names to
                units. `TaskScheduler(resources=...)` says how many units there are.
            executor: where attempts run: the name of one of `TaskScheduler(executors=...)`, or
                "process", "thread" or "interpreter". Arguments and results have to be picklable
                where it is another process. Else an `async def` runs in the event loop, and a
                plain `def` in a thread.
            estimate: seconds that the task is expected to take. Of equally urgent tasks that are
                ready, the one with the longest way to go starts first. A task without an estimate
                counts as one second.

        Raises:
            TypeError, ValueError: an argument is not what it should be.
            DuplicateTaskError: the name belongs to another function. Defining the *same* function
                again (same module and qualified name, as when a notebook cell is run twice)
                replaces the task and keeps its place.

        >>> from portable_sched import Priority, task
        >>> @task(priority=Priority.HIGH, retries=3, timeout=10)
        ... async def fetch() -> bytes:
        ...     return b"rows"
        >>> @task(name="load-rows")
        ... async def load(fetch: bytes) -> int:
        ...     return len(fetch)
        """
        rare: dict[str, Any] | None = None
        if (
            after != ()
            or resources != ()
            or retry_on is not Exception
            or not (timeout is None and backoff is None)
            or not (executor is None and estimate is None)
        ):
            rare = {
                "after": after,
                "timeout": timeout,
                "retry_on": retry_on,
                "backoff": backoff,
                "resources": resources,
                "executor": executor,
                "estimate": estimate,
            }
        if name is None or isinstance(name, str):
            return partial(self._register, name, priority, retries, depends_on, rare, 1)
        if not callable(name):
            # Whatever it is, it was meant as a name or as a function; the checks say which.
            if isinstance(name, CoroutineType | GeneratorType | AsyncGeneratorType):
                refuse_unusable(name.__name__, name)
            raise bad_name(name)
        return self._register(None, priority, retries, depends_on, rare, 2, name)

    def _register(  # noqa: PLR0917 - called by name through a partial, it would take twice as long
        self,
        name: str | None,
        priority: Priority,
        retries: int,
        depends_on: Iterable[TaskLike],
        rare: dict[str, Any] | None,
        depth: int,
        function: F,
    ) -> F:
        parameters: tuple[Parameter, ...] | None = ()
        if not takes_nothing(function):
            parameters = None
            # Not where something is wrong with the function: that is for the definition to say.
            with suppress(TypeError):
                parameters = parameters_of(function, callers_namespace(depth))
        definition = TaskDef(
            name=own_name(function) if name is None else name,
            function=function,
            priority=priority,
            retries=retries,
            depends_on=depends_on,
            parameters=parameters,
        )
        if rare is not None:
            # Not above, where even an empty dict would make the call take longer.
            definition = replace(definition, **rare)
        existing = self._definitions.get(definition.name)
        if existing is not None and not _is_same_function(existing.function, function):
            raise DuplicateTaskError.between(definition.name, existing.function, function)
        self._definitions[definition.name] = definition
        leave_note(function, definition)
        return function

    def __getitem__(self, name: str) -> TaskDef:
        if not isinstance(name, str):
            raise bad_name(name)
        definition = self._definitions.get(name)
        if definition is None:
            nearest = did_you_mean(nearest_names(name, list(self._definitions)))
            raise KeyError(f"No task {name!r} in this registry.{nearest}")
        return definition

    def __iter__(self) -> Iterator[TaskDef]:
        return iter(self._definitions.values())

    def __len__(self) -> int:
        return len(self._definitions)

    def __contains__(self, name: object) -> bool:
        return name in self._definitions

    def __repr__(self) -> str:
        return f"<TaskRegistry of {len(self)} tasks>"

    def clear(self) -> None:
        """Forget every task. Schedulers that were built before keep theirs."""
        self._definitions.clear()


default_registry: Final = TaskRegistry()
task: Final = default_registry.task


def clear_registry() -> None:
    """Forget every task of the default registry, so that tests do not see each other's."""
    default_registry.clear()


def _is_same_function(one: Any, other: Any) -> bool:
    """Whether `other` is `one` defined again: a notebook cell run twice, a module reloaded."""
    if one is other:
        return True
    name = getattr(one, "__qualname__", None)
    # Closures made in a loop share their qualified name and are still different functions.
    if name is None or "<locals>" in name or "<lambda>" in name:
        return False
    return bool(
        name == getattr(other, "__qualname__", None)
        and one.__module__ == getattr(other, "__module__", None)
        # Methods of two objects share everything but the object.
        and getattr(one, "__self__", None) is getattr(other, "__self__", None)
    )
