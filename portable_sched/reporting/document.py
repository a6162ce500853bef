"""A JSON document that is read with care: what a part has to be, and what is said if it is not."""

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from portable_sched._checks import shown

# Compared with it and not by `isfinite`, which fails for whole numbers that no float can hold.
_HUGE: Final = 1e300


def parsed(text: object) -> Any:
    """What a JSON document says.

    Raises:
        TypeError: `text` is no text.
        ValueError: it is no JSON.
    """
    if not isinstance(text, str):
        raise TypeError(
            f"Expected the text of a report, got {shown(text)}. Read the file first, as in "
            "results_from_json(path.read_text('utf-8'))."
        )
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise refused(f"a report in JSON, got what cannot be read as such: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def refused(expected: str) -> ValueError:
    """What to raise for a document that is not what it should be, with what to do about it."""
    return ValueError(
        f"Expected {expected}. Take a report that results.save('run.json') has written, as it is."
    )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and type(value) is not bool and -_HUGE < value < _HUGE


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


_FITS: Final[dict[str, Callable[[Any], bool]]] = {
    "anything": lambda _: True,
    "a string": lambda value: isinstance(value, str),
    "a string or null": lambda value: value is None or isinstance(value, str),
    "true or false": lambda value: isinstance(value, bool),
    "a number": _is_number,
    "a number or null": lambda value: value is None or _is_number(value),
    "a whole number of at least 0": _is_count,
    "a whole number of at least 1": lambda value: _is_count(value) and value > 0,
    "a whole number of at least 1, or null": lambda value: (
        value is None or (_is_count(value) and value > 0)
    ),
    "a list": lambda value: isinstance(value, list),
    "a list of strings": _is_texts,
    "an object": lambda value: isinstance(value, dict),
    "an object of whole numbers": lambda value: (
        isinstance(value, dict) and all(map(_is_count, value.values()))
    ),
}


class Part:
    """An object of the document, and where it stands there.

    Args:
        value: what should be one.
        where: how an error message calls it.

    Raises:
        ValueError: it is something else.
    """

    __slots__ = ("_values", "_where")

    def __init__(self, value: object, where: str) -> None:
        """An object, or a `ValueError`."""
        if not isinstance(value, dict):
            raise refused(f"{where} to be an object, got {shown(value)}")
        self._values: Mapping[str, Any] = value
        self._where = where

    def __contains__(self, key: str) -> bool:
        """Whether it has such a key."""
        return key in self._values

    def take(self, key: str, expected: str) -> Any:
        """The value of a key, which has to be there and to be what is expected.

        Raises:
            ValueError: it is not.
        """
        if key not in self._values:
            raise refused(f"{self._where} to have {key!r}, got {shown(list(self._values))}")
        value = self._values[key]
        if not _FITS[expected](value):
            raise self.refused(key, expected)
        return value

    def member(self, key: str, names: Mapping[str, Any]) -> Any:
        """What a name that is the value of a key stands for."""
        name = self.take(key, "a string")
        if name not in names:
            raise self.refused(key, f"one of {', '.join(names)}")
        return names[name]

    def task(self, key: str, numbers: Mapping[str, int]) -> int | None:
        """The number of the task whose name is the value of a key; None for null."""
        name = self.take(key, "a string or null")
        if name is not None and name not in numbers:
            raise self.refused(key, "the name of a task")
        return None if name is None else numbers[name]

    def refused(self, key: str, expected: str) -> ValueError:
        """What to raise where the value of a key is something else."""
        return refused(f"{self._where}.{key} to be {expected}, got {shown(self._values[key])}")
