"""Which failures are worth another attempt, and how long to wait before it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from inspect import iscoroutinefunction
from math import inf
from typing import Any

from ._checks import shown
from ._errors import NoRetry, TaskCancelledError


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """How long to wait before the next attempt: longer each time.

    The second attempt begins `initial` seconds after the first has failed, and every wait is
    `factor` times as long as the one before, up to `maximum`. Of each wait a random part of up to
    `jitter` is left out, so that tasks which failed together do not all come back together.

    Attributes:
        initial: seconds before the second attempt.
        factor: what each wait is multiplied by for the next; at least 1.
        maximum: the longest wait, in seconds.
        jitter: part of the wait that is left to chance, from 0 to 1.

    Raises:
        TypeError, ValueError: a field is no number, or out of its range.

    >>> from portable_sched import Backoff
    >>> backoff = Backoff(initial=1, factor=2, maximum=5, jitter=0)
    >>> [backoff.delay(attempt) for attempt in (1, 2, 3, 4)]
    [1.0, 2.0, 4.0, 5.0]
    """

    initial: float = 0.1
    factor: float = 2.0
    maximum: float = 60.0
    jitter: float = 0.5

    def __post_init__(self) -> None:
        self._check("initial", 0, inf)
        self._check("factor", 1, inf)
        self._check("maximum", 0, inf)
        self._check("jitter", 0, 1)

    def _check(self, name: str, lowest: float, highest: float) -> None:
        value = getattr(self, name)
        span = "from 0 to 1" if highest == 1 else f"of at least {lowest}"
        message = f"Backoff: expected {name} to be a number {span}, got {shown(value)}."
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            raise TypeError(message)
        # Written so that NaN is refused too.
        if not (lowest <= value <= highest and value < inf):
            raise ValueError(message)

    def delay(self, attempt: int) -> float:
        """Seconds to wait after attempt number `attempt`, counted from 1, has failed."""
        try:
            wait = min(self.initial * float(self.factor) ** (attempt - 1), self.maximum)
        except OverflowError:
            # So many times that no float can tell.
            wait = self.maximum if self.initial else 0.0
        if not self.jitter:
            return float(wait)
        # Here, because it takes a third of our import time, and most programs never wait.
        from random import random  # noqa: PLC0415

        return wait * (1 - self.jitter * random())  # noqa: S311 - it keeps no secret


RetryOn = type[Exception] | Iterable[type[Exception]] | Callable[[Exception], bool]
"""Which exceptions are worth another attempt: types, or a function that says so."""

BackoffLike = Backoff | Callable[[int, Exception], float]
"""How long to wait: a `Backoff`, or a function of the attempt's number and its exception."""


def is_worth_another_attempt(retry_on: Any, exception: BaseException) -> bool:
    """Whether `exception` is one of those that `retry_on` names.

    `NoRetry`, a cancellation that the function raised by itself, and what is no `Exception` are
    none of those, ever.
    """
    if isinstance(exception, BaseExceptionGroup) and exception.subgroup(NoRetry) is not None:
        return False
    if not isinstance(exception, Exception) or isinstance(exception, (NoRetry, TaskCancelledError)):
        return False
    if isinstance(retry_on, (type, tuple)):
        return isinstance(exception, retry_on)
    return bool(retry_on(exception))


def delay_after(backoff: BackoffLike | None, attempt: int, exception: Any) -> float:
    """Seconds to wait before the next attempt, now that number `attempt` has failed."""
    if backoff is None:
        return 0.0
    if isinstance(backoff, Backoff):
        return backoff.delay(attempt)
    delay = backoff(attempt, exception)
    is_number = isinstance(delay, (int, float)) and not isinstance(delay, bool)
    if not (is_number and 0 <= delay < inf):
        raise ValueError(
            f"Expected backoff to return seconds, a number of at least 0, got {shown(delay)}."
        )
    return delay


def as_retry_on(name: str, retry_on: object) -> Any:
    """Types as they are, or several as a tuple; a function as it is."""
    if isinstance(retry_on, (list, set, frozenset)):
        retry_on = tuple(retry_on)
    message = (
        f"Task {name!r}: expected retry_on to be exception types, as in retry_on=[OSError], or a "
        f"function that is given the exception, got {shown(retry_on)}."
    )
    types: tuple[Any, ...] = retry_on if isinstance(retry_on, tuple) else (retry_on,)
    if types and all(isinstance(one, type) and issubclass(one, BaseException) for one in types):
        for one in types:
            if not issubclass(one, Exception):
                raise ValueError(  # noqa: TRY004 - a type is what was asked for, only another one
                    f"{message} What is no Exception, as {one.__name__}, is never tried again."
                )
        return retry_on
    # A coroutine is always true: such a function would ask for another attempt every time.
    if not callable(retry_on) or isinstance(retry_on, type) or iscoroutinefunction(retry_on):
        raise TypeError(message)
    return retry_on


def check_backoff(name: str, backoff: object) -> None:
    """Refuse what is neither a `Backoff` nor a function in its place."""
    if isinstance(backoff, Backoff):
        return
    if not callable(backoff) or isinstance(backoff, type) or iscoroutinefunction(backoff):
        raise TypeError(
            f"Task {name!r}: expected backoff to be a Backoff, as in "
            "backoff=Backoff(initial=0.5), or a function of the attempt's number and its "
            f"exception, got {shown(backoff)}."
        )
