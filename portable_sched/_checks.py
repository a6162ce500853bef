"""Whether an argument is what it should be, and what to write instead.

Every check here has found something wrong already, or nearly: the quick look for the good case is
where the argument is taken.
"""

import inspect
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Final


def own_name(function: object) -> str:
    """The name that a function gives to its task."""
    name = getattr(function, "__name__", None)
    if callable(function) and (not isinstance(name, str) or name == "<lambda>"):
        raise TypeError(
            f"{shown(function)} has no name of its own. Give the task one: @task(name=...)."
        )
    return name if isinstance(name, str) else "?"


# Code flags of functions that do not return their result when they are called or awaited.
NO_PLAIN_FUNCTION: Final = inspect.CO_GENERATOR


def refuse_unusable(name: str, function: Any) -> None:
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
    if inspect.isgenerator(bare) or inspect.isgeneratorfunction(bare):
        raise TypeError(
            f"Task {name!r}: expected a function that returns its result, got a generator. "
            "Collect the values and return a list; a task that yields once is an async def."
        )
    if inspect.isasyncgen(bare):
        raise TypeError(
            f"Task {name!r}: expected a function, got an async generator object. Pass the function "
            f"without calling it: {bare.__name__}, not {bare.__name__}()."
        )
    if not callable(bare):
        raise TypeError(f"Task {name!r}: expected a function, got {shown(bare)}.")


def bad_priority(name: str, priority: object) -> Exception:
    """What to raise for a priority that is none."""
    message = (
        f"Task {name!r}: expected priority to be Priority.HIGH, Priority.MEDIUM or Priority.LOW, "
        f"got {shown(priority)}."
    )
    return ValueError(message) if type(priority) is int else TypeError(message)


def check_seconds(name: str, field: str, seconds: object) -> None:
    """Refuse what is no number of seconds above 0."""
    message = (
        f"Task {name!r}: expected {field} to be seconds above 0, or None, got {shown(seconds)}."
    )
    if not isinstance(seconds, (int, float)) or isinstance(seconds, bool):
        raise TypeError(message)
    if not seconds > 0:  # NaN is not above 0 either
        raise ValueError(message)


def as_retry_on(name: str, retry_on: object) -> object:
    """Types as they are or as a tuple; a function as it is."""
    if isinstance(retry_on, list):
        retry_on = tuple(retry_on)
    types = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if all(isinstance(one, type) and issubclass(one, BaseException) for one in types):
        never = (KeyboardInterrupt, SystemExit, GeneratorExit)
        if types and not any(issubclass(BaseException, one) or one in never for one in types):
            return retry_on
    elif callable(retry_on) and not isinstance(retry_on, type):
        return retry_on
    raise TypeError(
        f"Task {name!r}: expected retry_on to be exception types, as in retry_on=[OSError], or a "
        f"function that is given the exception, got {shown(retry_on)}."
    )


def check_backoff(name: str, backoff: object) -> None:
    """Refuse what is neither a `Backoff` nor a function in its place."""
    if not callable(backoff) or isinstance(backoff, type):
        raise TypeError(
            f"Task {name!r}: expected backoff to be a Backoff, as in "
            "backoff=Backoff(initial=0.5), or a function of the attempt's number and its "
            f"exception, got {shown(backoff)}."
        )


def bad_name(name: object) -> Exception:
    """What to raise for a name that is none."""
    if name == "":
        return ValueError("Expected a task name, got an empty string.")
    return TypeError(f"Expected a task name, a string, got {shown(name)}.")


def bad_retries(name: str, retries: object) -> Exception:
    """What to raise for a number of attempts that is none."""
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


def as_resources(name: str, resources: object) -> tuple[tuple[str, int], ...]:
    """What a task holds while it runs, as pairs of a resource and its units."""
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
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str)):  # noqa: PLR2004
            raise TypeError(
                f"Task {name!r}: expected resources to be a list of names or a mapping of names "
                f"to units, as in resources={{'db': 2}}, got {shown(resources)}."
            )
        check_units(f"Task {name!r}", *pair)
    return tuple(sorted(dict(pairs).items()))


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
