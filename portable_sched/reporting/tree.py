"""The graph as a tree of text, for a terminal."""

from portable_sched._graph import Graph
from portable_sched._results import RunResults

from .picture import lines_of, task_label

_SEEN = " (above)"

# From here on, what is deeper is not moved further to the right: a chain of a thousand tasks would
# leave the screen.
_DEEPEST = 20


def draw(graph: Graph, results: RunResults | None = None) -> str:
    """What each task needs, below it: first the tasks that no other needs, then what they wait for.

    A task that several need is drawn with what it needs once, and is marked `(above)` where it
    comes again. What a task merely comes `after` is marked `(after)`. Beyond the twentieth level
    lines are not moved further to the right, and each has its level.

    Args:
        graph: what is drawn.
        results: of a run of it, over or not; then each task's status and duration are told.
    """
    lines: list[str] = []
    seen: set[int] = set()
    ends = [
        number
        for number in range(len(graph))
        if not graph.dependents[number] and number not in graph.followers
    ]
    # Each with its level, the bars before it, whether it is the last of its parent, and a remark.
    waiting = [(number, 0, "", True, "") for number in reversed(ends)]
    while waiting:
        number, level, bars, is_last, remark = waiting.pop()
        branch = bars + ("└─ " if is_last else "├─ ") if level else ""
        if level > _DEEPEST:
            branch = f"{'   ' * _DEEPEST}[{level}] "
        again = number in seen and bool(graph.waits_for(number))
        label = ": ".join(" | ".join(lines_of(part)) for part in task_label(graph, number, results))
        lines.append(f"{branch}{label}{remark}{_SEEN if again else ''}")
        if number in seen:
            continue
        seen.add(number)
        dependencies = set(graph.dependencies[number])
        below = bars + ("   " if is_last else "│  ") if 0 < level < _DEEPEST else bars
        earlier = graph.waits_for(number)
        waiting += [
            (
                one,
                level + 1,
                below,
                at == len(earlier) - 1,
                "" if one in dependencies else " (after)",
            )
            for at, one in reversed(list(enumerate(earlier)))
        ]
    return "\n".join(lines)
