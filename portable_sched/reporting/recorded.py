"""What a report keeps of functions, values and exceptions, and what stands for them when read."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from inspect import isroutine
from typing import Any

from portable_sched._errors import DependencyFailedError
from portable_sched._tasks import TaskDef


class RecordedError(Exception):
    """An exception of a run that was read from a file: what is left of it is its text.

    Its class bears the name of the one that was raised, so that it reads alike everywhere.

    Attributes:
        type_name: the class that was raised, as `module.qualified_name`, or the bare name of one
            of Python's own.
        message: what `str()` made of it.
        recorded_traceback: what Python would have printed, causes included.
    """

    def __init__(self, type_name: str, message: str, traceback: str) -> None:
        """What is left of an exception; its notes are added as to any other."""
        # Not by `super()`, which in the class below would be another one.
        Exception.__init__(self, type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.recorded_traceback = traceback

    def __str__(self) -> str:
        """The text of what was raised."""
        return self.message

    def __reduce__(self) -> tuple[Any, ...]:
        """By its parts: its class is made when it is needed, and stands nowhere by its name."""
        return recorded_error, self.args, self.__dict__


class _RecordedDependencyFailedError(RecordedError, DependencyFailedError):
    """Stands for a `DependencyFailedError` that a function raised, perhaps of a run within it."""

    def __init__(
        self, type_name: str, message: str, traceback: str, parts: tuple[str, str, str, str]
    ) -> None:
        super().__init__(type_name, message, traceback)
        self.args = (type_name, message, traceback, parts)
        self.task, self.dependency, self.root_cause, self.reason = parts


def recorded_error(
    type_name: str,
    message: str,
    traceback: str,
    parts: tuple[str, str, str, str] | None = None,
) -> RecordedError:
    """What stands for an exception of which the text is left.

    Args:
        type_name: name of its class, as `type_name` gives it.
        message: what `str()` made of it.
        traceback: what `traceback_of` made of it.
        parts: of a `DependencyFailedError` the attributes, in their order.
    """
    base, own = (RecordedError, ()) if parts is None else (_RecordedDependencyFailedError, (parts,))
    error: RecordedError = _class_named(type_name, base)(type_name, message, traceback, *own)
    return error


# A run may have failed ten thousand times, and mostly with a few kinds of exceptions.
@lru_cache(maxsize=256)
def _class_named(type_name: str, base: type[RecordedError]) -> Any:
    module, _, name = type_name.rpartition(".")
    return type(name, (base,), {"__module__": module or "builtins", "__qualname__": name})


def type_name(kind: type) -> str:
    """A class as `module.qualified_name`; without the module where it is one of Python's own."""
    name = kind.__qualname__
    return name if kind.__module__ == "builtins" else f"{kind.__module__}.{name}"


@dataclass(frozen=True, slots=True)
class UnrecordedResult:
    """Stands for the result of a task that a report could not hold.

    Attributes:
        type_name: the class of the result.
    """

    type_name: str

    def __repr__(self) -> str:
        """That it is missing, and what it was."""
        return f"<a result of type {self.type_name}, which the report does not have>"


def result_type_of(result: object) -> str:
    """The class of a result, also of one that was not recorded."""
    return result.type_name if isinstance(result, UnrecordedResult) else type_name(type(result))


def origin_of(function: Any) -> tuple[str, str]:
    """Where a task's function comes from: its module and its qualified name.

    Of an object that is called they are those of its class; of a `partial`, those of what it calls.
    """
    while isinstance(function, partial):
        function = function.func
    kind = type(function)
    module = getattr(function, "__module__", None) or kind.__module__
    name = getattr(function, "__qualname__", None) or kind.__qualname__
    return str(module), str(name)


def about(function: object) -> str | None:
    """The first line of a function's docstring; None where it has none."""
    # The docstring of an object that is called is that of its class, and says nothing of the task.
    told = (function.__doc__ or "").strip() if isroutine(function) else ""
    return told.split("\n")[0].rstrip() or None


def kind_of(definition: TaskDef) -> str:
    """How a task runs: "async", in the event loop; "thread"; or "lifetime", which yields once."""
    if definition.is_async():
        return "async"
    return "lifetime" if definition.is_lifetime() else "thread"


def placeholder(
    task: str, kind: str, module: str, name: str, docstring: str | None
) -> Callable[..., Any]:
    """What stands for the function of a task that was read from a file: it raises when called.

    Args:
        task: name of the task.
        kind: as `kind_of` answers.
        module: where the function was.
        name: its qualified name there.
        docstring: what `about` it was said.
    """
    function: Any = _UNABLE[kind](
        f"Task {task!r} was read from a report and cannot be run: its function was "
        f"{module}.{name}, of which a report has no more than the name."
    )
    function.__module__ = module
    function.__qualname__ = name
    function.__name__ = name.rpartition(".")[2]
    function.__doc__ = docstring
    unable: Callable[..., Any] = function
    return unable


def _unable_async(reason: str) -> Any:
    async def function(*_arguments: object, **_named: object) -> None:
        raise RuntimeError(reason)

    return function


def _unable_in_thread(reason: str) -> Any:
    def function(*_arguments: object, **_named: object) -> None:
        raise RuntimeError(reason)

    return function


def _unable_to_yield(reason: str) -> Any:
    async def function(*_arguments: object, **_named: object) -> AsyncIterator[None]:
        raise RuntimeError(reason)
        yield  # pragma: no cover - it makes this an async generator, and nobody comes here

    return function


_UNABLE = {
    "async": _unable_async,
    "thread": _unable_in_thread,
    "lifetime": _unable_to_yield,
}
