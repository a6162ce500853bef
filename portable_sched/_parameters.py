"""What a function asks for: its parameters, and which task's result or input is to fill each."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Annotated, Any, get_args, get_origin


class ResultOf:
    """Marks a parameter that takes the result of a task of another name.

    It stands in the parameter's annotation, with the task's name or its function. For names that
    are no identifiers, to call the result something else, or to fill a parameter that has a
    default.

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
        self.task = task

    def __repr__(self) -> str:
        return f"ResultOf({self.task!r})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a task's function that a run may fill.

    Attributes:
        name: what it is called.
        by_position: whether it is positional-only; the others are passed by name.
        required: whether it has no default.
        result_of: what `ResultOf` names; None where the parameter's own name counts.
        annotation: its type as written, without what `Annotated` adds; None where there is none.
    """

    name: str
    by_position: bool
    required: bool
    result_of: str | Callable[..., object] | None
    annotation: object


def takes_nothing(function: FunctionType) -> bool:
    """Whether it is plain to see that the function has no parameters, as most tasks have none."""
    code = function.__code__
    return not (code.co_argcount or code.co_kwonlyargcount)


def parameters_of(
    function: Callable[..., object], namespace: Mapping[str, Any] | None = None
) -> tuple[Parameter, ...]:
    """The parameters of `function` that a run may fill; `*args` and `**kwargs` are never filled.

    Args:
        function: any callable. One that does not tell its signature (some builtins) is taken to
            have no parameters.
        namespace: names that string annotations may use beside the function's globals.

    Raises:
        NameError, SyntaxError, ...: a string annotation that mentions `ResultOf` cannot be read.
    """
    try:
        signature = inspect.signature(function)
    except ValueError:
        return ()
    globals_ = getattr(inspect.unwrap(_bare(function)), "__globals__", {})
    found = []
    for parameter in signature.parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        annotation = parameter.annotation
        if isinstance(annotation, str):
            annotation = _evaluated(annotation, globals_, namespace or {})
        marks = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
        result_of = next((mark.task for mark in marks if isinstance(mark, ResultOf)), None)
        bare = get_args(annotation)[0] if marks else annotation
        found.append(
            Parameter(
                name=parameter.name,
                by_position=parameter.kind is parameter.POSITIONAL_ONLY,
                required=parameter.default is parameter.empty,
                result_of=result_of,
                annotation=None if bare is parameter.empty else bare,
            )
        )
    return tuple(found)


def callers_namespace(depth: int) -> Mapping[str, Any]:
    """The local names of the caller that is `depth` calls above who asks."""
    return sys._getframe(depth + 1).f_locals  # noqa: SLF001 - documented, and inspect's is slower


def _bare(function: Any) -> Any:
    while hasattr(function, "func"):
        function = function.func
    return getattr(function, "__func__", function)


def _evaluated(annotation: str, globals_: dict[str, Any], namespace: Mapping[str, Any]) -> object:
    try:
        return eval(annotation, globals_, dict(namespace))  # noqa: S307 - the program's own text
    except Exception:
        # A name that only type checkers see is no business of ours, unless it hides a mark.
        if "ResultOf" in annotation:
            raise
        return annotation
