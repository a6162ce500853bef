"""What a function asks for: its parameters, and the task or input that each is named after."""

import inspect
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import FunctionType, UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin


class ResultOf:
    """Marks a parameter that takes the result of a task of another name.

    It stands in the parameter's annotation, with the task's name or its function: for names that
    are no identifiers, to call the result something else, or to fill a parameter that has a
    default.

    Attributes:
        task: the task's name, or its decorated function.

    >>> from typing import Annotated
    >>> from portable_sched import ResultOf, task
    >>> @task(name="fetch-rows")
    ... async def fetch() -> list[str]:
    ...     return ["a", "b"]
    >>> @task
    ... async def count(rows: Annotated[list[str], ResultOf("fetch-rows")]) -> int:
    ...     return len(rows)
    """

    __slots__ = ("task",)

    def __init__(self, task: str | Callable[..., object]) -> None:
        if not callable(task) and not (isinstance(task, str) and task):
            raise TypeError(
                f"Expected ResultOf of a task's name or a decorated function, got {task!r}."
            )
        self.task: str | Callable[..., object] = task

    def __repr__(self) -> str:
        return f"ResultOf({self.task!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a task's function that a run may fill.

    Attributes:
        name: what it is called.
        by_position: whether it is positional-only; the others are passed by name.
        required: whether it has no default.
        default: its default; None where there is none.
        result_of: what `ResultOf` names; None where the parameter's own name counts.
        annotation: its type, without what `Annotated` adds; None where there is none.
    """

    name: str
    by_position: bool = False
    required: bool = True
    default: object = None
    result_of: str | Callable[..., object] | None = None
    annotation: object = None


# From 3.14 on annotations are evaluated when they are asked for, and names that only type checkers
# see raise then, unless a stand-in for them is asked for.
_STAND_INS: dict[str, Any] = {}
if sys.version_info >= (3, 14):  # pragma: no cover - coverage is complete without the newest
    from annotationlib import Format

    _STAND_INS["annotation_format"] = Format.FORWARDREF

DISGUISES: Final = frozenset({"__wrapped__", "__signature__"})
"""Attributes of a function that takes something else than its code says."""


def takes_nothing(function: object) -> bool:
    """Whether it is plain to see that the function has no parameters, as most tasks have none."""
    if type(function) is not FunctionType:
        return False
    code = function.__code__
    if code.co_argcount or code.co_kwonlyargcount:
        return False
    # A wrapper with `*args` shows the signature of what it wraps.
    own = function.__dict__
    return not own or DISGUISES.isdisjoint(own)


def parameters_of(
    function: Callable[..., object], namespace: Mapping[str, Any] | None = None
) -> tuple[Parameter, ...]:
    """The parameters of `function` that a run may fill; `*args` and `**kwargs` are never filled.

    Args:
        function: any callable. One that does not tell its signature (some builtins) is taken to
            have no parameters.
        namespace: names that string annotations may use beside the function's globals.

    Raises:
        TypeError: it is not callable.
        NameError, SyntaxError, ...: a string annotation that mentions `ResultOf` cannot be read.
    """
    try:
        signature = inspect.signature(function, **_STAND_INS)
    except ValueError:
        return ()
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            continue
        annotation = _evaluated(parameter.annotation, function, namespace or {})
        bare = get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation
        required = parameter.default is parameter.empty
        found.append(
            Parameter(
                name=parameter.name,
                by_position=parameter.kind is parameter.POSITIONAL_ONLY,
                required=required,
                default=None if required else parameter.default,
                result_of=_marked(annotation),
                annotation=None if bare is parameter.empty else bare,
            )
        )
    return tuple(found)


def returned_by(function: Callable[..., object]) -> object:
    """The type that `function` says to return or, if it yields, to yield; None if it does not say.

    A string that cannot be read says nothing.
    """
    try:
        annotation = inspect.signature(function, **_STAND_INS).return_annotation
    except (TypeError, ValueError):
        return None
    annotation = _evaluated(annotation, function, {})
    if annotation is inspect.Signature.empty or isinstance(annotation, str):
        return None
    called = _bare(function)
    if inspect.isasyncgenfunction(called):
        yielded = get_args(annotation)
        return yielded[0] if yielded else None
    # What a plain function returns is awaited if it can be, and then something else comes of it.
    returned = _as_class(annotation)
    if returned and issubclass(returned, Awaitable) and not inspect.iscoroutinefunction(called):
        return None
    return type(None) if annotation is None else annotation


def plainly_misfits(given: object, wanted: object) -> bool:
    """Whether a value of the type `given` can be none of the type `wanted`, as far as is plain.

    Of what is not plain (protocols, type variables, strings, what has type parameters inside) the
    answer is no. What is inside a container is not looked at.
    """
    if _is_union(given):
        return all(plainly_misfits(one, wanted) for one in get_args(given))
    if _is_union(wanted):
        return all(plainly_misfits(given, one) for one in get_args(wanted))
    one = _as_class(given)
    other = _as_class(wanted)
    # Of two abstract classes a third may well be both.
    if one is None or other is None or (inspect.isabstract(one) and inspect.isabstract(other)):
        return False
    # An int is welcome where a float is asked for, by the rules of typing (PEP 484).
    numbers: tuple[type, ...] = (int, float, complex)
    for rank, number in enumerate(numbers):
        if other in numbers and issubclass(one, number):
            return numbers.index(other) < rank
    try:
        # The other way round too: what says to return an `object` may return anything.
        return not (issubclass(one, other) or issubclass(other, one))
    except TypeError:
        return False


def _marked(annotation: object) -> str | Callable[..., object] | None:
    """What `ResultOf` names in an annotation, also in a member of a union, as before `| None`."""
    if get_origin(annotation) is Annotated:
        return next(
            (one.task for one in get_args(annotation)[1:] if isinstance(one, ResultOf)), None
        )
    members = get_args(annotation) if _is_union(annotation) else ()
    return next((mark for mark in map(_marked, members) if mark is not None), None)


def _is_union(annotation: object) -> bool:
    return get_origin(annotation) in {Union, UnionType}


def _as_class(annotation: object) -> type | None:
    if annotation is None:
        return type(None)
    origin = get_origin(annotation) or annotation
    # `Any` is a class too; and of a protocol anything may be an instance.
    if origin is Any or not isinstance(origin, type) or getattr(origin, "_is_protocol", False):
        return None
    return origin


def callers_namespace(depth: int) -> Mapping[str, Any]:
    """The local names of the caller that is `depth` calls above who asks."""
    return sys._getframe(depth + 1).f_locals  # noqa: SLF001 - documented, and inspect's is slower


def _evaluated(
    annotation: Any, function: Callable[..., object], namespace: Mapping[str, Any]
) -> Any:
    if not isinstance(annotation, str):
        return annotation
    globals_ = getattr(inspect.unwrap(_bare(function)), "__globals__", {})
    try:
        return eval(annotation, globals_, dict(namespace))  # noqa: S307 - the program's own text
    except Exception:
        # A name that only type checkers see is no business of ours, unless it hides a mark.
        if "ResultOf" in annotation:
            raise
        return annotation


def _bare(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    if not hasattr(function, "__globals__") and not hasattr(function, "__func__"):
        # An object that is called: what counts is the method that this runs.
        function = getattr(type(function), "__call__", function)  # noqa: B004 - as it says
    return getattr(function, "__func__", function)
