"""What a task is: its definition, and how it is referred to."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import IntEnum
from functools import partial
from types import FunctionType, MethodType
from typing import Any, Final, TypeAlias, TypeVar

from ._checks import (
    NO_PLAIN_FUNCTION,
    Demand,
    as_demand,
    as_plain_name,
    bad_retries,
    check_executor,
    checked_seconds,
    refuse_context_manager,
    refuse_unusable,
    shown,
)
from ._errors import (
    full_name,
)
from ._parameters import Parameter, parameters_of, takes_nothing
from ._retries import BackoffLike, RetryOn, as_retry_on, check_backoff

F = TypeVar("F", bound=Callable[..., object])

# Where a decorated function keeps its definition, or two where it has several names. A wrapper
# would be simpler to explain, but it could not be sent to a process pool: it pickles under the name
# of the function it hides.
_NOTE: Final = "__portable_sched_task__"


_COROUTINE: Final = inspect.CO_COROUTINE

THREAD: Final = "thread"
"""The executor that is this process's own threads."""


class Priority(IntEnum):
    """How urgent a task is. Of the tasks that are ready, the most urgent one starts first."""

    HIGH = 1
    MEDIUM = 2
    LOW = 3


TaskLike: TypeAlias = "str | TaskDef | Callable[..., object]"
"""How a task is referred to: its name, its definition, or its decorated function."""


@dataclass(frozen=True, slots=True, init=False)
class TaskDef:
    """A registered function and its settings.

    Attributes:
        name: unique in its registry and its graph; never empty.
        function: what is called; `async def` runs in the event loop, a plain `def` in a worker
            thread, and an async generator is open from its `yield` until nobody uses it any more.
            With an `executor` it runs there.
        priority: of the tasks that are ready, the one with the highest priority starts first.
        retries: how many attempts the task has in total, at least 1.
        depends_on: names of the tasks that must have succeeded before this one starts, each once;
            those whose results it takes by parameter may be left out.
        after: names of the tasks that must have ended, however, before this one starts; without
            those that are in `depends_on` too.
        timeout: seconds that one attempt may take; None for as long as it likes.
        retry_on: the exceptions that are worth another attempt, as types or as a function of the
            exception.
        backoff: how long to wait before another attempt; None for not at all.
        resources: what the task holds while an attempt runs, as pairs of a name and its units.
        executor: name of the executor that attempts run in; None for the event loop and threads.
        estimate: seconds that the task is expected to take; None where nobody knows.
        parameters: what the function asks for; worked out where it is left out.
        is_simple: whether the task is a plain `async def` that asks for nothing and has neither
            `after`, `timeout`, `resources`, `executor` nor `estimate`: most are, and need no second
            look.

    Raises:
        TypeError: a field is of a wrong type.
        ValueError: a field is of the right type and still impossible.
    """

    name: str
    function: Callable[..., Any]
    priority: Priority
    retries: int
    depends_on: tuple[str, ...]
    after: tuple[str, ...]
    timeout: float | None
    retry_on: RetryOn
    backoff: BackoffLike | None
    resources: Demand
    executor: str | None
    estimate: float | None
    parameters: tuple[Parameter, ...]
    is_simple: bool = field(init=False, repr=False, compare=False)

    # By hand, because a graph may have a million tasks: what is generated takes twice as long. The
    # checks are written for the good case, one comparison each; what explains the bad case is far
    # from here.
    def __init__(
        self,
        *,
        name: str,
        function: Callable[..., Any],
        priority: Priority = Priority.MEDIUM,
        retries: int = 1,
        depends_on: Iterable[TaskLike] = (),
        after: Iterable[TaskLike] = (),
        timeout: float | None = None,
        retry_on: RetryOn = Exception,
        backoff: BackoffLike | None = None,
        resources: Mapping[str, int] | Iterable[str] | Demand | None = (),
        executor: str | None = None,
        estimate: float | None = None,
        parameters: tuple[Parameter, ...] | None = None,
    ) -> None:
        if type(name) is not str or not name:
            name = as_plain_name(name)
        flags = function.__code__.co_flags if type(function) is FunctionType else NO_PLAIN_FUNCTION
        if flags & NO_PLAIN_FUNCTION:
            refuse_unusable(name, function)
        elif not flags & _COROUTINE:
            refuse_context_manager(name, function)
        if type(priority) is not Priority:
            priority = _as_priority(name, priority)
        if type(retries) is not int or retries < 1:
            raise bad_retries(name, retries)
        if depends_on != ():
            depends_on = as_names(f"Task {name!r}", "depends_on", depends_on)
        _set_name(self, name)
        _set_function(self, function)
        _set_priority(self, priority)
        _set_retries(self, retries)
        _set_depends_on(self, depends_on)
        _set_is_simple(self, flags & _COROUTINE != 0)
        # What is rare stays empty where it is as it mostly is, for `__getattr__` to answer.
        if retry_on is not Exception:
            _set_rare(self, "retry_on", as_retry_on(name, retry_on))
        if backoff is not None:
            check_backoff(name, backoff)
            _set_rare(self, "backoff", backoff)
        if parameters is None:
            parameters = () if takes_nothing(function) else parameters_of(function)
        if (
            parameters
            or after != ()
            or resources != ()
            or not (timeout is None and estimate is None and executor is None)
        ):
            _set_is_simple(self, False)  # noqa: FBT003 - it is a setter
            after = as_names(f"Task {name!r}", "after", after)
            _set_rare(self, "after", tuple([one for one in after if one not in depends_on]))
            _set_rare(self, "timeout", checked_seconds(name, "timeout", timeout))
            _set_rare(self, "resources", as_demand(name, resources))
            if executor is not None:
                check_executor(name, executor, is_lifetime=self.is_lifetime())
            _set_rare(self, "executor", executor)
            _set_rare(
                self, "estimate", checked_seconds(name, "estimate", estimate, may_be_zero=True)
            )
            _set_rare(self, "parameters", _with_names(name, parameters))

    def __getattr__(self, name: str) -> Any:
        try:
            return _MOSTLY[name]
        except KeyError:
            raise AttributeError(
                f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self
            ) from None

    def is_async(self) -> bool:
        """Whether calling the function gives a coroutine, so that it needs no thread."""
        if type(self.function) is FunctionType and self.function.__code__.co_flags & _COROUTINE:
            return True
        return self._is_any(inspect.iscoroutinefunction)

    def is_lifetime(self) -> bool:
        """Whether the function is an async generator, so that it is open while others use it."""
        if type(self.function) is FunctionType:
            return self.function.__code__.co_flags & inspect.CO_ASYNC_GENERATOR != 0
        return self._is_any(inspect.isasyncgenfunction)

    def needs_thread(self) -> bool:
        """Whether an attempt holds one of the run's threads."""
        if self.executor is not None:
            return self.executor == THREAD
        return not (self.is_async() or self.is_lifetime())

    def _is_any(self, kind: Callable[[object], bool]) -> bool:
        function: Any = self.function
        while isinstance(function, partial):
            function = function.func
        # Not `function.__call__`: that is a method of every function too.
        return kind(function) or kind(getattr(type(function), "__call__", None))  # noqa: B004 - not asking if it is callable


(_set_name, _set_function, _set_priority, _set_retries, _set_depends_on, _set_is_simple) = (
    getattr(TaskDef, slot).__set__
    for slot in ("name", "function", "priority", "retries", "depends_on", "is_simple")
)
_set_rare: Final = object.__setattr__

_MOSTLY: Final[dict[str, object]] = {
    "after": (),
    "timeout": None,
    "retry_on": Exception,
    "backoff": None,
    "resources": (),
    "executor": None,
    "estimate": None,
    "parameters": (),
}


def definition_of(function: object) -> TaskDef:
    """The definition that decorating `function` has made.

    Raises:
        TypeError: it was never decorated, or under several names.
    """
    noted: tuple[TaskDef, ...] = getattr(function, _NOTE, ())
    if len(noted) == 1:
        return noted[0]
    if noted:
        names = " and ".join(repr(definition.name) for definition in noted)
        raise TypeError(
            f"Function {full_name(function)} is registered as {names}: say which task is meant by "
            "its name."
        )
    if callable(function):
        raise TypeError(
            f"Function {full_name(function)} is not a task yet. Decorate it with @task before "
            "referring to it, or give the task's name."
        )
    if inspect.iscoroutine(function):
        raise TypeError(
            "Expected a task's name or a decorated function, got a coroutine object. Pass the "
            f"function without calling it: {function.__name__}, not {function.__name__}()."
        )
    raise TypeError(f"Expected a task's name or a decorated function, got {shown(function)}.")


class _Notes(tuple[TaskDef, ...]):
    """What is noted on a function, and stays at home where the function is sent by value."""

    __slots__ = ()

    def __reduce__(self) -> tuple[Any, ...]:
        return tuple, ()


def leave_note(function: Any, definition: TaskDef) -> None:
    """Note on a decorated function which task it is."""
    # Builtins and objects with slots have no room for a note, and a method shows that of its
    # function, which is another callable. They are all referred to by name.
    notes = None if type(function) is MethodType else getattr(function, "__dict__", None)
    if notes is None:
        return
    if _NOTE not in notes:
        notes[_NOTE] = _Notes([definition])
        return
    # `functools.wraps` copies notes too: those of another function say nothing of this one.
    others = [
        noted
        for noted in notes[_NOTE]
        if noted.function is function and noted.name != definition.name
    ]
    # Two are enough to say that there are several; a function may have any number of names.
    notes[_NOTE] = _Notes([*others[:1], definition])


def _as_priority(name: str, priority: object) -> Priority:
    """The member for a plain 1, 2 or 3; anything else is refused."""
    wanted = "Priority.HIGH, Priority.MEDIUM or Priority.LOW"
    if type(priority) is not int:
        raise TypeError(f"Task {name!r}: expected priority to be {wanted}, got {shown(priority)}.")
    try:
        return Priority(priority)
    except ValueError:
        raise ValueError(
            f"Task {name!r}: expected priority to be {wanted}, got {priority}."
        ) from None


def as_names(asker: str, field: str, given: object) -> tuple[str, ...]:
    """Tasks as names, each once, from names and decorated functions."""
    if type(given) is tuple or type(given) is list:
        if len(given) == 1 and type(given[0]) is str:
            return (given[0],)
    elif isinstance(given, str):
        raise TypeError(
            f"{asker}: expected {field} to be a list of tasks, got the string {given!r}. "
            f"Write {field}=[{given!r}]."
        )
    elif callable(given):
        one = getattr(given, "__name__", "function")
        raise TypeError(
            f"{asker}: expected {field} to be a list of tasks, got one function. "
            f"Write {field}=[{one}]."
        )
    elif isinstance(given, bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"{asker}: expected {field} to be a list of task names and decorated functions, got "
            f"{shown(given)}."
        )
    # A dict keeps the order and drops what is named twice.
    return tuple(
        dict.fromkeys([one if type(one) is str else _as_name(asker, field, one) for one in given])
    )


def _with_names(name: str, parameters: tuple[Parameter, ...]) -> tuple[Parameter, ...]:
    """The parameters with a name wherever `ResultOf` was given a function."""

    # At once, as for `depends_on`: later the function may have other names in other registries.
    def named(parameter: Parameter) -> Parameter:
        if parameter.result_of is None:
            return parameter
        task = _as_name(f"Task {name!r}", "ResultOf", parameter.result_of)
        return replace(parameter, result_of=task)

    return tuple(map(named, parameters))


def _as_name(asker: str, field: str, given: object) -> str:
    if isinstance(given, str):
        return as_plain_name(given)
    if isinstance(given, TaskDef):
        return given.name
    try:
        return definition_of(given).name
    except TypeError as error:
        raise TypeError(f"{asker}: {field}: {error}") from None
