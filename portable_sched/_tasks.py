"""What a task is: the definition, the decorator that makes it, the registry that keeps it."""

import inspect
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum
from functools import partial
from types import AsyncGeneratorType, CoroutineType, FunctionType, GeneratorType, MethodType
from typing import Any, Final, TypeVar, overload

from ._errors import DuplicateTaskError, did_you_mean, full_name, nearest_names

F = TypeVar("F", bound=Callable[..., object])

# Where a decorated function keeps its definition, or two where it has several names. A wrapper
# would be simpler to explain, but it could not be sent to a process pool: it pickles under the name
# of the function it hides.
_NOTE: Final = "__portable_sched_task__"


class Priority(IntEnum):
    """How urgent a task is. Of the tasks that are ready, the most urgent one starts first."""

    HIGH = 1
    MEDIUM = 2
    LOW = 3


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

    Raises:
        TypeError: a field is of a wrong type.
        ValueError: a field is of the right type and still impossible.
    """

    name: str
    function: Callable[..., Any]
    priority: Priority = Priority.MEDIUM
    retries: int = 1
    depends_on: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # The checks are written for the good case, since a graph may have a million tasks: one
        # comparison each, and what explains the bad case is far from here.
        name = self.name
        if type(name) is not str or not name:
            object.__setattr__(self, "name", _as_plain_name(name))
        function = self.function
        if type(function) is not FunctionType or function.__code__.co_flags & _NO_PLAIN_FUNCTION:
            _refuse_unusable(name, function)
        if type(self.priority) is not Priority:
            object.__setattr__(self, "priority", _as_priority(name, self.priority))
        retries = self.retries
        if type(retries) is not int or retries < 1:
            raise _bad_retries(name, retries)
        if self.depends_on != ():
            object.__setattr__(self, "depends_on", _as_names(name, self.depends_on))

    def is_async(self) -> bool:
        """Whether calling the function gives a coroutine, so that it needs no thread."""
        function: Any = self.function
        while isinstance(function, partial):
            function = function.func
        return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
            # Not `function.__call__`: that is a method of every function too.
            getattr(type(function), "__call__", None)  # noqa: B004 - not asking if it is callable
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
    ) -> Callable[[F], F]: ...
    def task(
        self,
        name: str | Callable[..., object] | None = None,
        priority: Priority = Priority.MEDIUM,
        retries: int = 1,
        depends_on: Iterable[str | Callable[..., object]] = (),
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
        if name is None or isinstance(name, str):
            return partial(self._register, name, priority, retries, depends_on)
        if not callable(name):
            # Whatever it is, it was meant as a name or as a function; the checks say which.
            if isinstance(name, CoroutineType | GeneratorType | AsyncGeneratorType):
                _refuse_unusable(name.__name__, name)
            raise _bad_name(name)
        return self._register(None, priority, retries, depends_on, name)

    def _register(
        self,
        name: str | None,
        priority: Priority,
        retries: int,
        depends_on: Iterable[str | Callable[..., object]],
        function: F,
    ) -> F:
        if name is None:
            name = _own_name(function)
        definition = TaskDef(
            name=name,
            function=function,
            priority=priority,
            retries=retries,
            depends_on=depends_on,  # type: ignore[arg-type] # normalized by the definition
        )
        existing = self._definitions.get(definition.name)
        if existing is not None and not _is_same_function(existing.function, function):
            raise DuplicateTaskError.between(definition.name, existing.function, function)
        self._definitions[definition.name] = definition
        _leave_note(function, definition)
        return function

    def __getitem__(self, name: str) -> TaskDef:
        if not isinstance(name, str):
            raise _bad_name(name)
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


def _leave_note(function: Any, definition: TaskDef) -> None:
    # Builtins and objects with slots have no room for a note, and a method shows that of its
    # function, which is another callable. They are all referred to by name.
    notes = None if type(function) is MethodType else getattr(function, "__dict__", None)
    if notes is None:
        return
    if _NOTE not in notes:
        notes[_NOTE] = (definition,)
        return
    # `functools.wraps` copies notes too: those of another function say nothing of this one.
    others = [
        noted
        for noted in notes[_NOTE]
        if noted.function is function and noted.name != definition.name
    ]
    # Two are enough to say that there are several; a function may have any number of names.
    notes[_NOTE] = (*others[:1], definition)


def _own_name(function: object) -> str:
    name = getattr(function, "__name__", None)
    if callable(function) and (not isinstance(name, str) or name == "<lambda>"):
        raise TypeError(
            f"{shown(function)} has no name of its own. Give the task one: @task(name=...)."
        )
    return name if isinstance(name, str) else "?"


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


_NO_PLAIN_FUNCTION: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR


def _refuse_unusable(name: str, function: Any) -> None:
    """Say what is wrong with something that cannot be a task's function."""
    bare = function
    while isinstance(bare, partial):
        bare = bare.func
    if inspect.iscoroutine(bare):
        raise TypeError(
            f"Task {name!r}: expected a function, got a coroutine object. Pass the function "
            f"without calling it: {bare.__name__}, not {bare.__name__}()."
        )
    if inspect.isclass(bare):
        raise TypeError(
            f"Task {name!r}: expected a function, got the class {bare.__name__}. Write a function "
            "that makes the object and returns it."
        )
    # Of an object that is called, what counts is the method that this runs.
    called = (bare, getattr(type(bare), "__call__", None))  # noqa: B004 - as above
    if inspect.isgenerator(bare) or any(map(inspect.isgeneratorfunction, called)):
        raise TypeError(
            f"Task {name!r}: expected a function that returns its result, got a generator. "
            "Collect the values and return a list."
        )
    if inspect.isasyncgen(bare) or any(map(inspect.isasyncgenfunction, called)):
        raise TypeError(
            f"Task {name!r}: expected a function that returns its result, got an async "
            "generator. Collect the values and return a list."
        )
    if not callable(bare):
        raise TypeError(f"Task {name!r}: expected a function, got {shown(bare)}.")


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


def _as_names(name: str, depends_on: object) -> tuple[str, ...]:
    """Dependencies as names, each once, from names and decorated functions."""
    if type(depends_on) is tuple or type(depends_on) is list:
        if len(depends_on) == 1 and type(depends_on[0]) is str:
            return (depends_on[0],)
    elif isinstance(depends_on, str):
        raise TypeError(
            f"Task {name!r}: expected depends_on to be a list of tasks, got the string "
            f"{depends_on!r}. Write depends_on=[{depends_on!r}]."
        )
    elif callable(depends_on):
        one = getattr(depends_on, "__name__", "function")
        raise TypeError(
            f"Task {name!r}: expected depends_on to be a list of tasks, got one function. "
            f"Write depends_on=[{one}]."
        )
    elif isinstance(depends_on, bytes) or not isinstance(depends_on, Iterable):
        raise TypeError(
            f"Task {name!r}: expected depends_on to be a list of task names and decorated "
            f"functions, got {shown(depends_on)}."
        )
    # A dict keeps the order and drops what is named twice.
    return tuple(
        dict.fromkeys([one if type(one) is str else _as_name(name, one) for one in depends_on])
    )


def _as_name(name: str, dependency: object) -> str:
    if isinstance(dependency, str):
        return _as_plain_name(dependency)
    if isinstance(dependency, TaskDef):
        return dependency.name
    try:
        return definition_of(dependency).name
    except TypeError as error:
        raise TypeError(f"Task {name!r}: depends_on: {error}") from None


def _as_plain_name(name: object) -> str:
    """The name of a string enum's member as a plain string; what is no name is refused."""
    if not isinstance(name, str) or not name:
        raise _bad_name(name)
    # Not `str(name)`, which is "Name.MEMBER" for a member of `class Name(str, Enum)`.
    return str.__str__(name)


def _bad_name(name: object) -> Exception:
    if name == "":
        return ValueError("Expected a task name, got an empty string.")
    return TypeError(f"Expected a task name, a string, got {shown(name)}.")


def _bad_retries(name: str, retries: object) -> Exception:
    message = (
        f"Task {name!r}: expected retries to be the number of attempts in total, a whole number "
        f"of at least 1, got {shown(retries)}."
    )
    return ValueError(message) if type(retries) is int else TypeError(message)


def shown(value: object) -> str:
    """A value as an error message shows it, with its type and never a page long."""
    text = repr(value)
    if len(text) > 60:  # noqa: PLR2004 - what fits beside the rest of a sentence
        text = f"{text[:57]}..."
    return f"{text} ({type(value).__name__})"
