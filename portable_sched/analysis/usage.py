"""When something that is counted, a resource or the slots of a run, was too scarce for an ask."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable


class Usage:
    """When something that is counted was so scarce that an ask for some units had to wait.

    Args:
        spans: start, end and units of each use.
        capacity: units that there are.
        asked: units that are asked for.

    Attributes:
        starts: when each stretch of want began.
        ends: when it was over.
    """

    def __init__(
        self, spans: Iterable[tuple[float, float, int]], capacity: int, asked: int
    ) -> None:
        changes: list[tuple[float, int]] = []
        for start, end, units in spans:
            changes.append((start, units))
            changes.append((end, -units))
        # What is given back goes first, or it would seem to be held twice at that moment.
        changes.sort()
        self.starts: list[float] = []
        self.ends: list[float] = []
        used = 0
        for at, change in changes:
            was_short = capacity - used < asked
            used += change
            is_short = capacity - used < asked
            if is_short and not was_short:
                if self.ends and self.ends[-1] == at:
                    # It was given from hand to hand.
                    self.ends.pop()
                else:
                    self.starts.append(at)
            elif was_short and not is_short:
                self.ends.append(at)
        self._until = [0.0]
        for start, end in zip(self.starts, self.ends, strict=True):
            self._until.append(self._until[-1] + end - start)

    def short_in(self, start: float, end: float) -> float:
        """Seconds between two moments in which it was short."""
        return self._short_until(end) - self._short_until(start)

    def last_short_in(self, start: float, end: float) -> float | None:
        """The end of the last stretch of want that reaches into a time, at most the time's end."""
        at = bisect_left(self.starts, end) - 1
        if at < 0 or self.ends[at] <= start:
            return None
        return min(self.ends[at], end)

    def _short_until(self, moment: float) -> float:
        at = bisect_right(self.starts, moment)
        if not at:
            return 0.0
        return self._until[at] - max(0.0, self.ends[at - 1] - moment)
