"""Seconds and names as sentences have them."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from portable_sched._results import TaskStatus

_MOST_NAMES = 5

# Not all that `str.isprintable` refuses: that is also what joins letters and emoji, every space but
# one, and whatever is newer than this Python's table of characters. These are controls, those that
# end a line or turn the direction of writing among them, halves of surrogate pairs, and the two
# that XML does not take.
_NOT_PRINTED = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


class Told:
    """What a notebook shows by its text."""

    __slots__ = ()

    def _repr_pretty_(self, printer: Any, _: object) -> None:
        printer.text(str(self))


def in_seconds(seconds: float) -> str:
    """A time as people say it: `0.021 s`, `4.1 s`, `38 s`, `12 min 5 s`."""
    if seconds < 0.9995:  # noqa: PLR2004 - what is not rounded up to one second
        digits = f"{seconds:.3f}".rstrip("0").rstrip(".")
        return f"{digits} s"
    if seconds < 9.95:  # noqa: PLR2004 - likewise, to ten
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:  # noqa: PLR2004 - 90 s is said, 150 s is not
        return f"{whole} s"
    minutes, left = divmod(whole, 60)
    if minutes < 60:  # noqa: PLR2004 - minutes of an hour
        return f"{minutes} min {left} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def listed(names: Sequence[str], most: int = _MOST_NAMES) -> str:
    """Names in quotes, the first few: `'a', 'b' and 7 more`."""
    shown = ", ".join(map(repr, names[:most]))
    left = len(names) - most
    return f"{shown} and {left} more" if left > 0 else shown


def tasks_text(count: int) -> str:
    """`1 task`, `40 tasks`."""
    return f"{count} task{'' if count == 1 else 's'}"


def counts_text(counts: Mapping[TaskStatus, int]) -> str:
    """How many tasks have which status: `9 completed, 3 failed`."""
    said = [f"{count} {status.name.lower()}" for status, count in counts.items()]
    return ", ".join(said) or "nothing to run"


def on_one_line(text: str) -> str:
    """A text with its line ends and control characters escaped: a name may hold any."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in text)


def both_ends(parts: Sequence[str], most: int, left_out: str = "… {} more …") -> list[str]:
    """All parts, or of many so many at each end, and how many there are between them."""
    left = len(parts) - 2 * most
    if left <= 0:
        return list(parts)
    return [*parts[:most], left_out.format(left), *parts[-most:]]


def printable(text: str) -> str:
    """Text on one line which tells a terminal nothing: what cannot be printed is marked."""
    return _NOT_PRINTED.sub("\N{REPLACEMENT CHARACTER}", text)


def resource_text(resource: str) -> str:
    """A resource as a sentence has it; the one without a name is the threads of the run."""
    if not resource:
        return "a thread"
    # As `_resources.executor_resource` calls it.
    kind, _, name = resource.partition(" ")
    return f"a place in the executor `{name}`" if kind == "executor" and name else f"`{resource}`"
