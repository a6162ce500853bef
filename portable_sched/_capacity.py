"""How many calls an executor is to have at one time. Pure: no event loop, no clock.

As many as it has workers: what is more would queue in it, where a more urgent task could not
overtake, and where time runs for nothing. But a worker that has done a short call waits for the
next one as long as it worked, until we have heard of it. So as long as calls are short, there are
as many again, on which the workers go on meanwhile. What looks further ahead where the way is
longer, has to know of priorities itself.
"""

from collections.abc import Callable
from typing import Final

# Seconds below which a call is short.
_SHORT: Final = 0.05


class Capacity:
    """How many calls an executor is to have at one time.

    Args:
        workers: how many it is thought to have until it can be asked.

    Attributes:
        workers: how many calls it carries out at one time; None where nobody knows.
        is_known: whether that is what it has said.
        tell: told how many calls it is to have at one time whenever that changes; None for any
            number.
    """

    __slots__ = ("_is_ahead", "_look_ahead", "_usual", "is_known", "tell", "workers")

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.is_known = False
        self.tell: Callable[[int | None], None] = nobody
        self._look_ahead: int | None = None
        # What calls have taken of late, in seconds, and whether that is short.
        self._usual: float | None = None
        self._is_ahead = False

    def is_said(self, workers: int | None, look_ahead: int | None) -> None:
        """The executor has said how many it has, and how many more; None where it does not say."""
        self.workers = workers
        self._look_ahead = look_ahead
        self.is_known = True
        self._tell()

    def note_that_it_took(self, seconds: float) -> None:
        """A call has ended."""
        if self.workers is None:
            return
        usual = seconds if self._usual is None else self._usual + (seconds - self._usual) / 4
        self._usual = usual
        # With others before them calls take longer, and a little more is no reason to go back.
        queued = 2 * self._furthest(self.workers) / self.workers if self._is_ahead else 1
        is_ahead = usual < _SHORT * queued
        if is_ahead is not self._is_ahead:
            self._is_ahead = is_ahead
            self._tell()

    def _furthest(self, workers: int) -> int:
        return workers + (workers if self._look_ahead is None else self._look_ahead)

    def _tell(self) -> None:
        workers = self.workers
        self.tell(self._furthest(workers) if self._is_ahead and workers is not None else workers)


def nobody(number: int | None) -> None:
    """Stands for who is told, where there is none."""
