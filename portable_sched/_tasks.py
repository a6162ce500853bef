"""What a task is: the definition, the decorator that makes it, the registry that keeps it."""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from math import inf
from random import random
from types import FunctionType, MethodType
from typing import Any, Final, TypeVar, overload

from ._checks import (
    NO_PLAIN_FUNCTION,
    as_resources,
    as_retry_on,
    bad_name,
    bad_priority,
    bad_retries,
    check_backoff,
    check_seconds,
    own_name,
    refuse_unusable,
    shown,
)
from ._errors import DuplicateTaskError, NoRetry, TaskCancelledError, full_name
from ._parameters import Parameter, callers_namespace, parameters_of, takes_nothing

F = TypeVar("F", bound=Callable[..., object])

# Where a decorated function keeps its definition. A wrapper would be simpler to explain, but it
# could not be sent to a process pool: it pickles under the name of the function it hides.
_NOTE: Final = "__portable_sched_task__"


class Priority(IntEnum):
    """How urgent a task is. Of the tasks that are ready, the most urgent one starts first."""

    HIGH = 1
    MEDIUM = 2
    LOW = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: longer each time.

    Attempt number n + 1 begins `initial * factor ** (n - 1)` seconds after attempt number n has
    failed, and never more than `maximum` seconds after it. Of that, a random part of up to
    `jitter` is left out, so that tasks which failed together do not all come back together.

    Attributes:
        initial: seconds before the second attempt.
        factor: what each wait is multiplied by for the next; at least 1.
        maximum: the longest wait, in seconds.
        jitter: part of the wait that is left to chance, from 0 to 1.

    Raises:
        ValueError: a number is out of its range.

    >>> from portable_sched import Backoff
    >>> [Backoff(initial=1, factor=2, maximum=5, jitter=0).delay(n) for n in (1, 2, 3, 4)]
    [1.0, 2.0, 4.0, 5.0]
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        for field, lowest, highest in (
            ("initial", 0, inf),
            ("factor", 1, inf),
            ("maximum", 0, inf),
            ("jitter", 0, 1),
        ):
            value = getattr(self, field)
            # Written so that NaN is refused too.
            if not (isinstance(value, (int, float)) and lowest <= value <= highest):
                range_of = f"from 0 to {highest}" if highest == 1 else f"of at least {lowest}"
                raise ValueError(
                    f"Backoff: expected {field} to be a number {range_of}, got {shown(value)}."
                )

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1, has failed."""
        # A large power overflows where the maximum would have been reached long before.
        power = min(attempt - 1, 1000 if self.factor < 2 else 60)  # noqa: PLR2004 - see above
        wait = min(self.initial * self.factor**power, self.maximum)
        return wait * (1 - self.jitter * random())  # noqa: S311 - it keeps no secret


RetryOn = type[BaseException] | tuple[type[BaseException], ...] | Callable[[BaseException], bool]
"""Which exceptions are worth another attempt: types, or a function that says so."""

BackoffLike = Backoff | Callable[[int, BaseException], float]
"""How long to wait: a `Backoff`, or a function of the attempt's number and its exception."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskDef:
    """A registered function and its settings.

    Attributes:
        name: unique in its registry and its graph; never empty.
        function: what is called, without arguments; `async def` runs in the event loop, a plain
            `def` in a worker thread.
        priority: of the tasks that are ready, the one with the highest priority starts first.
        retries: how many attempts the task has in total, at least 1.
        depends_on: names of the tasks that must have succeeded before this one starts, each once.
        after: names of the tasks that must have ended, however, before this one starts; without
            those that are in `depends_on` too.
        timeout: seconds that one attempt may take; None for as long as it likes.
        retry_on: the exceptions that are worth another attempt, as types or as a function of the
            exception.
        backoff: how long to wait before another attempt; None for not at all.
        resources: what the task holds while an attempt runs, as pairs of a name and its units.
        estimate: seconds that the task is expected to take; None where nobody knows.
        parameters: what the function asks for; worked out where it is left out.

    Raises:
        TypeError: a field is of a wrong type.
        ValueError: a field is of the right type and still impossible.
    """

    name: str
    function: Callable[..., Any]
    priority: Priority = Priority.MEDIUM
    retries: int = 1
    depends_on: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    timeout: float | None = None
    retry_on: RetryOn = Exception
    backoff: BackoffLike | None = None
    resources: tuple[tuple[str, int], ...] = ()
    estimate: float | None = None
    parameters: tuple[Parameter, ...] | None = None

    def __post_init__(self) -> None:  # noqa: C901, PLR0912 - a list of fields, not a tangle
        # The checks are written for the good case, since a graph may have a million tasks: one
        # comparison each, and what explains the bad case is far from here.
        name = self.name
        if type(name) is not str or not name:
            raise bad_name(name)
        function = self.function
        if type(function) is not FunctionType or function.__code__.co_flags & NO_PLAIN_FUNCTION:
            refuse_unusable(name, function)
        elif takes_nothing(function):
            # Said so that nobody looks again.
            object.__setattr__(self, "parameters", ())
        if self.parameters is None:
            object.__setattr__(self, "parameters", parameters_of(function))
        if type(self.priority) is not Priority:
            if self.priority not in (1, 2, 3) or type(self.priority) is not int:
                raise bad_priority(name, self.priority)
            object.__setattr__(self, "priority", Priority(self.priority))
        retries = self.retries
        if type(retries) is not int or retries < 1:
            raise bad_retries(name, retries)
        if self.depends_on != ():
            object.__setattr__(self, "depends_on", as_names(name, "depends_on", self.depends_on))
        if self.after != ():
            after = as_names(name, "after", self.after)
            after = tuple(one for one in after if one not in self.depends_on)
            object.__setattr__(self, "after", after)
        if self.timeout is not None:
            check_seconds(name, "timeout", self.timeout)
        if self.resources != ():
            object.__setattr__(self, "resources", as_resources(name, self.resources))
        if self.estimate is not None:
            check_seconds(name, "estimate", self.estimate)
        if self.retry_on is not Exception:
            object.__setattr__(self, "retry_on", as_retry_on(name, self.retry_on))
        if self.backoff is not None and not isinstance(self.backoff, Backoff):
            check_backoff(name, self.backoff)

    def is_worth_another_attempt(self, exception: BaseException) -> bool:
        """Whether `exception` is one of those that `retry_on` names. Of `NoRetry` it never is."""
        retry_on = self.retry_on
        if isinstance(exception, (NoRetry, TaskCancelledError)):
            return False
        if isinstance(retry_on, (type, tuple)):
            return isinstance(exception, retry_on)
        return isinstance(exception, Exception) and bool(retry_on(exception))

    def delay_after(self, attempt: int, exception: BaseException) -> float:
        """Seconds to wait before the next attempt, now that number `attempt` has failed."""
        backoff = self.backoff
        if backoff is None:
            return 0.0
        if isinstance(backoff, Backoff):
            return backoff.delay(attempt)
        delay = backoff(attempt, exception)
        if not (isinstance(delay, (int, float)) and 0 <= delay < inf):
            raise ValueError(
                f"Task {self.name!r}: expected backoff to return seconds of at least 0, got "
                f"{shown(delay)}."
            )
        return delay

    def is_lifetime(self) -> bool:
        """Whether the function yields once, so that it is open while others use what it yields."""
        return inspect.isasyncgenfunction(self._bare_function())

    def _bare_function(self) -> Callable[..., Any]:
        function = self.function
        while isinstance(function, partial):
            function = function.func
        return function

    def is_async(self) -> bool:
        """Whether calling the function gives something to await, so that it needs no thread."""
        function: Any = self._bare_function()
        return (
            inspect.iscoroutinefunction(function)
            or inspect.iscoroutinefunction(
                # Not `function.__call__`: that is a method of every function too.
                getattr(type(function), "__call__", None)  # noqa: B004 - not asking if it is callable
            )
            or inspect.isasyncgenfunction(function)
        )


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
        depends_on: Iterable[str | Callable[..., object]] = (),
        *,
        after: Iterable[str | Callable[..., object]] = (),
        timeout: float | None = None,
        retry_on: RetryOn = Exception,
        backoff: BackoffLike | None = None,
        resources: Mapping[str, int] | Iterable[str] = (),
        estimate: float | None = None,
    ) -> Callable[[F], F]: ...
    def task(
        self,
        name: str | Callable[..., object] | None = None,
        priority: Priority = Priority.MEDIUM,
        retries: int = 1,
        depends_on: Iterable[str | Callable[..., object]] = (),
        *,
        after: Iterable[str | Callable[..., object]] = (),
        timeout: float | None = None,
        retry_on: RetryOn = Exception,
        backoff: BackoffLike | None = None,
        resources: Mapping[str, int] | Iterable[str] = (),
        estimate: float | None = None,
    ) -> object:
        """Register a function as a task, and get the function itself back.

        As `@task`, `@task()` or `@task(...)`. The function can be called, awaited, inspected and
        pickled as before.

        Args:
            name: what the task is called; the function's own name where it is left out.
            priority: of the tasks that are ready, the one with the highest priority starts first.
            retries: how many attempts the task has in total; 1 means no second one.
            depends_on: names or decorated functions; all of them must have succeeded before this
                task starts.
            after: names or decorated functions; all of them must have ended, however they did,
                before this task starts: a clean-up, a notification.
            timeout: seconds that one attempt may take; then it is cancelled, and has failed with
                `TaskTimeoutError`. A thread cannot be cancelled: it is abandoned, and what it does
                in the end is of no account.
            retry_on: which exceptions are worth another attempt: a type, several, or a function
                that is given the exception.
            backoff: how long to wait before another attempt: a `Backoff`, or a function of the
                number of the attempt that has failed and its exception, which returns seconds.
            resources: what the task holds while an attempt runs: names, or a mapping of names to
                units. The scheduler says how many units there are.
            estimate: seconds that the task is expected to take. Of two tasks that are ready, the
                one with the longer way to go starts first.

        A parameter without a default that bears the name of a task takes that task's result, and
        makes it a dependency; `depends_on` is for order alone. See `ResultOf` for other names, and
        `TaskScheduler.run` for parameters that are filled by each run.

        Raises:
            TypeError, ValueError: an argument is not what it should be.
            DuplicateTaskError: the name belongs to another function. Defining the *same* function
                again (same module and qualified name, as when a notebook cell is run twice)
                replaces the task and keeps its place.

        >>> from portable_sched import Priority, task
        >>> @task(priority=Priority.HIGH)
        ... async def fetch() -> bytes:
        ...     return b"rows"
        >>> @task(name="load-rows", depends_on=[fetch], retries=3)
        ... async def load() -> None: ...
        """
        settings = {
            "priority": priority,
            "retries": retries,
            "depends_on": depends_on,
            "after": after,
            "timeout": timeout,
            "retry_on": retry_on,
            "backoff": backoff,
            "resources": resources,
            "estimate": estimate,
        }
        if name is None or isinstance(name, str):
            return partial(self._register, name, settings, 1)
        if not callable(name):
            # Whatever it is, it was meant as a name or as a function; the checks say which.
            if inspect.iscoroutine(name) or inspect.isgenerator(name):
                refuse_unusable("?", name)
            raise bad_name(name)
        return self._register(None, settings, 2, name)

    def _register(self, name: str | None, settings: dict[str, Any], depth: int, function: F) -> F:
        if name is None:
            name = own_name(function)
        if not (isinstance(function, FunctionType) and takes_nothing(function)):
            # Not where something is wrong with the function: that is for the definition to say.
            with suppress(TypeError):
                settings = settings | {
                    "parameters": parameters_of(function, callers_namespace(depth))
                }
        definition = TaskDef(name=name, function=function, **settings)
        existing = self._definitions.get(name)
        if existing is not None and not _is_same_function(existing.function, function):
            raise DuplicateTaskError.between(name, existing.function, function)
        self._definitions[name] = definition
        _leave_note(function, definition)
        return function

    def __getitem__(self, name: str) -> TaskDef:
        return self._definitions[name]

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
task = default_registry.task


def clear_registry() -> None:
    """Forget every task of the default registry, so that tests do not see each other's."""
    default_registry.clear()


def definition_of(function: object) -> TaskDef:
    """The definition that decorating `function` has made.

    Raises:
        TypeError: it was never decorated, or under several names.
    """
    noted = getattr(function, _NOTE, None)
    if isinstance(noted, TaskDef):
        return noted
    if noted is not None:
        raise TypeError(
            f"Function {full_name(function)} is registered as {' and '.join(map(repr, noted))}: "
            "say which task is meant by its name."
        )
    if callable(function):
        raise TypeError(
            f"Function {full_name(function)} is not a task yet. Decorate it with @task before "
            "referring to it, or give the task's name."
        )
    raise TypeError(f"Expected a task's name or a decorated function, got {shown(function)}.")


def _leave_note(function: Any, definition: TaskDef) -> None:
    # Builtins and objects with slots have no room for a note, and a method shows that of its
    # function, which is another callable. They are all referred to by name.
    notes = None if type(function) is MethodType else getattr(function, "__dict__", None)
    if notes is None:
        return
    noted = notes.get(_NOTE)
    # `functools.wraps` copies notes too: that of another function says nothing of this one.
    if isinstance(noted, tuple):
        return
    if noted is None or noted.name == definition.name or noted.function is not function:
        notes[_NOTE] = definition
    else:
        notes[_NOTE] = (noted.name, definition.name)


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


def as_names(name: str, field: str, given: object) -> tuple[str, ...]:
    """Tasks as names, each once, from names and decorated functions."""
    if type(given) is tuple or type(given) is list:
        if len(given) == 1 and type(given[0]) is str:
            return (given[0],)
    elif isinstance(given, str):
        raise TypeError(
            f"{_asker(name)}: expected {field} to be a list of tasks, got the string "
            f"{given!r}. Write {field}=[{given!r}]."
        )
    elif callable(given):
        example = getattr(given, "__name__", "function")
        raise TypeError(
            f"{_asker(name)}: expected {field} to be a list of tasks, got one function. "
            f"Write {field}=[{example}]."
        )
    elif not isinstance(given, Iterable):
        raise TypeError(
            f"{_asker(name)}: expected {field} to be a list of tasks, got {shown(given)}."
        )
    # A dict keeps the order and drops what is named twice.
    return tuple(
        dict.fromkeys([one if type(one) is str else _as_name(name, field, one) for one in given])
    )


def _asker(name: str) -> str:
    return name if name == "run()" else f"Task {name!r}"


def _as_name(name: str, field: str, dependency: object) -> str:
    if isinstance(dependency, str):
        return str(dependency)
    if isinstance(dependency, TaskDef):
        return dependency.name
    try:
        return definition_of(dependency).name
    except TypeError as error:
        raise TypeError(f"{_asker(name)}: {field}: {error}") from None
