"""What fills the parameters of a graph's tasks: results of other tasks, or inputs of the run."""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from operator import is_
from types import FunctionType
from typing import NamedTuple

from ._errors import InputError, ParameterError, nearest_names
from ._parameters import DISGUISES, Parameter, plainly_misfits, returned_by
from ._tasks import TaskDef


class ResultTypeWarning(UserWarning):
    """A task's result plainly cannot be what the parameter that takes it asks for.

    It goes by the annotations of the two functions, before the run; the run goes on.
    """


class Source(NamedTuple):
    """What fills one parameter.

    Attributes:
        parameter: the parameter.
        task: number of the task that it is filled from; None for an input of the run, or, where
            the parameter has one, for its default.
        whole: whether it takes the `TaskResult`, since the task comes `after` that one.
    """

    parameter: Parameter
    task: int | None = None
    whole: bool = False


def dependencies_of(definition: TaskDef, names: Collection[str]) -> tuple[str, ...]:
    """All that a task depends on: what `depends_on` says, and what its parameters ask for.

    Args:
        definition: the task.
        names: the tasks of the graph.
    """
    asked = dict.fromkeys(definition.depends_on)
    for parameter in definition.parameters:
        source = _task_of(parameter)
        if _takes_result(parameter, names) and source not in definition.after:
            asked[source] = None
    return tuple(asked)


def sources_of(definition: TaskDef, numbers: Mapping[str, int]) -> tuple[Source, ...]:
    """What fills the parameters of a task, in their order; those that keep their default left out.

    Args:
        definition: the task.
        numbers: name to number of the tasks of the graph.
    """
    sources: list[Source] = []
    for parameter in definition.parameters:
        name = _task_of(parameter)
        if _takes_result(parameter, numbers):
            sources.append(Source(parameter, numbers[name], name in definition.after))
        elif parameter.required or parameter.by_position:
            sources.append(Source(parameter))
    # A default that stands before a filled parameter has to be passed too; one after it has not.
    while sources and sources[-1].task is None and not sources[-1].parameter.required:
        sources.pop()
    return tuple(sources)


def results_in_a_row(definition: TaskDef, sources: Sequence[Source]) -> tuple[int, ...]:
    """The numbers of the tasks that fill a function which takes nothing but results, in its order.

    Empty where it takes something else too, or where it is not plain to see that the function takes
    them by position: passing them so costs half as much, and most tasks are like that.
    """
    function = definition.function
    # One that says that it wraps another, or has a signature written by hand, takes what it likes.
    if type(function) is not FunctionType or not DISGUISES.isdisjoint(function.__dict__):
        return ()
    in_order = all(map(is_, [source.parameter for source in sources], definition.parameters))
    if not in_order or len(sources) > function.__code__.co_argcount:
        return ()
    numbers = [source.task for source in sources if source.task is not None and not source.whole]
    return tuple(numbers) if len(numbers) == len(sources) else ()


def warn_of_misfits(tasks: Sequence[TaskDef], sources: Mapping[int, Iterable[Source]]) -> None:
    """Warn of each result that plainly cannot be what its taker asks for."""
    for number, filled in sources.items():
        for source in filled:
            wanted = source.parameter.annotation
            if source.task is None or source.whole or wanted is None:
                continue
            given = returned_by(tasks[source.task].function)
            if given is not None and plainly_misfits(given, wanted):
                warnings.warn(
                    f"Task {tasks[source.task].name!r} says to return {_named(given)}, and the "
                    f"parameter {source.parameter.name!r} of task {tasks[number].name!r}, which "
                    f"takes it, says to be {_named(wanted)}.",
                    ResultTypeWarning,
                    stacklevel=2,
                )


def checked_inputs(
    given: Mapping[str, object],
    names: Mapping[str, int],
    takers: Mapping[str, Sequence[str]],
    needed: Mapping[str, Sequence[str]],
) -> None:
    """Refuse inputs that do not match what is asked for.

    Args:
        given: the inputs of the run.
        names: the tasks of the whole graph.
        takers: for each input that some parameter of the whole graph takes, the tasks that do.
        needed: likewise of the tasks that are to run.

    Raises:
        InputError: an input has the name of a task, or no parameter takes it.
        ParameterError: nothing fills a parameter.
    """
    for name in given:
        if name in names:
            raise InputError(name, is_task=True)
        if name not in takers:
            raise InputError(name, nearest=nearest_names(str(name), list(takers)))
    for name, tasks in needed.items():
        if name not in given:
            raise ParameterError(tasks[0], name, nearest_names(name, [*names, *given]))


def _task_of(parameter: Parameter) -> str:
    """The name of the task that would fill it."""
    marked = parameter.result_of
    return marked if isinstance(marked, str) else parameter.name


def _takes_result(parameter: Parameter, names: Collection[str]) -> bool:
    """Whether a task fills it: the one it is marked with, or one of `names` that it is named after.

    A default is kept, whatever the parameter is named after.
    """
    return parameter.result_of is not None or (parameter.required and parameter.name in names)


def _named(annotation: object) -> str:
    return annotation.__name__ if isinstance(annotation, type) else str(annotation)
