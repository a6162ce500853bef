"""Whether an argument is what it should be, and what to write instead.

The quick look for the good case is where the argument is taken, since a graph may have a million
tasks. What is here has found something wrong already, or looks at what is rare.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from math import isfinite
from typing import Any, Final

NO_PLAIN_FUNCTION: Final = inspect.CO_GENERATOR | inspect.CO_ASYNC_GENERATOR
"""Code flags of functions that do not return their result."""

Demand = tuple[tuple[str, int], ...]
"""What a task holds while it runs: resources and their units, sorted by name."""


def own_name(function: object) -> str:
    """The name that a function gives to its task."""
    name = getattr(function, "__name__", None)
    if callable(function) and (not isinstance(name, str) or name == "<lambda>"):
        raise TypeError(
            f"{shown(function)} has no name of its own. Give the task one: @task(name=...)."
        )
    return name if isinstance(name, str) else "?"


def as_plain_name(name: object) -> str:
    """The name of a string enum's member as a plain string; what is no name is refused."""
    if not isinstance(name, str) or not name:
        raise bad_name(name)
    # Not `str(name)`, which is "Name.MEMBER" for a member of `class Name(str, Enum)`.
    return str.__str__(name)


def bad_name(name: object) -> Exception:
    """What to raise for a name that is none."""
    if name == "":
        return ValueError("Expected a task name, got an empty string.")
    return TypeError(f"Expected a task name, a string, got {shown(name)}.")


def refuse_unusable(name: str, function: Any) -> None:
    """Say what is wrong with something that cannot be a task's function."""
    bare = function
    while isinstance(bare, partial):
        bare = bare.func
    if inspect.iscoroutine(bare) or inspect.isasyncgen(bare):
        what = "a coroutine" if inspect.iscoroutine(bare) else "an async generator"
        raise TypeError(
            f"Task {name!r}: expected a function, got {what} object. Pass the function "
            f"without calling it: {bare.__name__}, not {bare.__name__}()."
        )
    if inspect.isclass(bare):
        raise TypeError(
            f"Task {name!r}: expected a function, got the class {bare.__name__}. Write a function "
            "that makes the object and returns it."
        )
    # Of an object that is called, what counts is the method that this runs.
    called = (bare, getattr(type(bare), "__call__", None))  # noqa: B004 - not asking if it is callable
    if inspect.isgenerator(bare) or any(map(inspect.isgeneratorfunction, called)):
        raise TypeError(
            f"Task {name!r}: expected a function that returns its result, got a generator. "
            "Collect the values and return a list; a task that yields once is an async def."
        )
    if not callable(bare):
        raise TypeError(f"Task {name!r}: expected a function, got {shown(bare)}.")


def refuse_context_manager(name: str, function: Any) -> None:
    """Say that an async generator is a lifetime as it is, without `asynccontextmanager` around."""
    wrapped = getattr(function, "__wrapped__", None)
    if inspect.isasyncgenfunction(wrapped):
        raise TypeError(
            f"Task {name!r}: expected a function that yields once, got a context manager. Leave "
            "@asynccontextmanager out: what it yields is its result, and the rest its teardown."
        )


def bad_retries(name: str, retries: object) -> Exception:
    """What to raise for a number of attempts that is none."""
    message = (
        f"Task {name!r}: expected retries to be the number of attempts in total, a whole number "
        f"of at least 1, got {shown(retries)}."
    )
    return ValueError(message) if type(retries) is int else TypeError(message)


def checked_seconds(
    name: str, field: str, seconds: object, *, may_be_zero: bool = False
) -> float | None:
    """A number of seconds above 0, or of at least 0, or None."""
    if seconds is None:
        return None
    span = "of at least 0" if may_be_zero else "above 0"
    message = (
        f"Task {name!r}: expected {field} to be a number of seconds {span}, or None, got "
        f"{shown(seconds)}."
    )
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(message)
    if not (isfinite(seconds) and (seconds > 0 or (may_be_zero and seconds == 0))):
        raise ValueError(message)
    return seconds


def as_demand(name: str, resources: object) -> Demand:
    """What a task holds while it runs, as pairs of a resource and its units, sorted by name."""
    if resources is None:
        return ()
    if isinstance(resources, str):
        raise TypeError(
            f"Task {name!r}: expected resources to be a list of names or a mapping of names to "
            f"units, got the string {resources!r}. Write resources=[{resources!r}]."
        )
    pairs: tuple[Any, ...]
    if isinstance(resources, Mapping):
        pairs = tuple(resources.items())
    elif isinstance(resources, Iterable):
        pairs = tuple((one, 1) if isinstance(one, str) else one for one in resources)
    else:
        pairs = (resources,)
    for pair in pairs:
        # Of a definition made from another one they are pairs already.
        if not (isinstance(pair, tuple) and len(pair) == 2 and is_name(pair[0])):  # noqa: PLR2004 - a pair
            raise TypeError(
                f"Task {name!r}: expected resources to be a list of names or a mapping of names "
                f"to units, as in resources={{'db': 2}}, got {shown(resources)}."
            )
        check_units(f"Task {name!r}", *pair)
    units_of = dict(pairs)
    if len(units_of) < len(pairs):
        raise ValueError(
            f"Task {name!r}: expected resources to name each resource once, got "
            f"{shown(resources)}. For several units write resources={{'db': 2}}."
        )
    return tuple(sorted(units_of.items()))


def check_executor(name: str, executor: object, *, is_lifetime: bool) -> None:
    """Refuse what is no name of an executor, and one for a task that stays open."""
    if not is_name(executor):
        raise TypeError(
            f"Task {name!r}: expected executor to be the name of one, as in executor='process', "
            f"got {shown(executor)}. The executor itself goes to TaskScheduler(executors=...)."
        )
    if is_lifetime:
        raise TypeError(
            f"Task {name!r}: expected a function that returns its result, got an async generator. "
            f"What is open while others use it cannot be in the executor {executor!r}: leave "
            "executor out."
        )


def check_units(asker: str, resource: str, units: object) -> None:
    """Refuse what is no number of units."""
    message = (
        f"{asker}: expected the units of the resource {resource!r} to be a whole number of at "
        f"least 1, got {shown(units)}."
    )
    if type(units) is not int:
        raise TypeError(message)
    if units < 1:
        raise ValueError(message)


def as_capacity(resources: object) -> dict[str, int]:
    """How many units there are of each resource of a scheduler."""
    if resources is None:
        return {}
    if not isinstance(resources, Mapping) or not all(map(is_name, resources)):
        raise TypeError(
            "Expected resources to be a mapping of names to units, as in resources={'db': 4}, got "
            f"{shown(resources)}."
        )
    for resource, units in resources.items():
        check_units("TaskScheduler", resource, units)
    return dict(resources)


def as_executors(executors: object) -> dict[str, Any]:
    """Executors and what makes them, by name."""
    if executors is None:
        return {}
    if not isinstance(executors, Mapping) or not all(map(is_name, executors)):
        raise TypeError(
            "Expected executors to be a mapping of names to executors, as in "
            f"executors={{'cpu': ProcessPoolExecutor(2)}}, got {shown(executors)}."
        )
    for name, executor in executors.items():
        if name == "thread":
            raise ValueError(
                "Expected executors to have names of their own, got 'thread', which is the threads "
                "of this process. Call yours something else."
            )
        if not callable(executor) and not is_executor(executor):
            raise TypeError(
                f"Expected the executor {name!r} to be an executor, as ProcessPoolExecutor(2) is, "
                "or a function that makes one, as in lambda: ProcessPoolExecutor(2), got "
                f"{shown(executor)}.{_of_client(executor)}"
            )
    return dict(executors)


def is_executor(given: object) -> bool:
    """Whether it is an executor, and not a function that makes one."""
    is_one = not isinstance(given, type) and callable(getattr(given, "submit", None))
    return is_one and not _of_client(given)


def as_made_executor(made: Any) -> Any:
    """What a function has returned that is to make an executor."""
    if is_executor(made):
        return made
    remark = _of_client(made)
    if inspect.iscoroutine(made):
        remark = " An async def cannot make one."
        made.close()
    raise TypeError(
        f"expected the function that makes it to return an executor, got {shown(made)}.{remark}"
    )


def _of_client(given: object) -> str:
    """What to do with Dask's client, which has a submit() with another meaning."""
    # To import the class would be a third of our import time.
    homes = {kind.__module__.partition(".")[0] for kind in type(given).__mro__}
    if "concurrent" in homes or not hasattr(given, "get_executor"):
        return ""
    return " Write DaskExecutor(client), from portable_sched.dask."


def as_limit(max_concurrency: object) -> int | None:
    """How many tasks may run at one time; None for no limit."""
    if max_concurrency is None:
        return None
    message = (
        "Expected max_concurrency to be a whole number of at least 1, or None for no limit, got "
        f"{max_concurrency!r}."
    )
    if type(max_concurrency) is not int:
        raise TypeError(message)
    if max_concurrency < 1:
        raise ValueError(message)
    return max_concurrency


def as_seconds(seconds: object) -> dict[str, float]:
    """What tasks take, by name."""
    if seconds is None:
        return {}
    if not isinstance(seconds, Mapping):
        raise TypeError(
            "Expected seconds to be the results of a run, or a mapping of task names to seconds, "
            f"got {shown(seconds)}."
        )
    for name, each in seconds.items():
        if checked_seconds(str(name), "seconds", each, may_be_zero=True) is None:
            raise TypeError(f"Expected the seconds of task {name!r} to be a number, got None.")
    return dict(seconds)


def as_callables(field: str, given: object) -> tuple[Callable[..., Any], ...]:
    """Functions in the order in which they were given."""
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise TypeError(
            f"Expected {field} to be a list of callables, got {shown(given)}. Write {field}=[...]."
        )
    callables = tuple(given)
    for one in callables:
        if not callable(one) or isinstance(one, type):
            raise TypeError(
                f"Expected {field} to be a list of callables, got {shown(one)} in the list."
            )
        if inspect.iscoroutinefunction(one):
            raise TypeError(
                f"Expected {field} to be a list of plain callables, got the async function "
                f"{one.__name__} in the list. Nobody would await it."
            )
    return callables


def as_flag(field: str, value: object) -> bool:
    """What is said by True or False, and by nothing else."""
    if not isinstance(value, bool):
        raise TypeError(f"Expected {field} to be True or False, got {shown(value)}.")
    return value


def is_name(value: object) -> bool:
    """Whether it is a string that can name something."""
    return isinstance(value, str) and value != ""


def shown(value: object) -> str:
    """A value as an error message shows it, with its type and never a page long."""
    text = repr(value)
    if len(text) > 60:  # noqa: PLR2004 - what fits beside the rest of a sentence
        text = f"{text[:57]}..."
    return f"{text} ({type(value).__name__})"
