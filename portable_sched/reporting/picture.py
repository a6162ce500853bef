"""What a picture of a graph shows, in whatever language it is drawn."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from portable_sched._graph import Graph
from portable_sched._results import RunResults, TaskStatus
from portable_sched.analysis.breakdown import breakdown
from portable_sched.analysis.wording import in_seconds, printable


@dataclass(frozen=True, slots=True)
class MarkedPath:
    """The tasks, and the arrows between them, that decide how long a run takes.

    Attributes:
        tasks: their numbers, first to last.
        edges: the pairs of numbers of which an arrow leads from one to the other.
    """

    tasks: tuple[int, ...]
    edges: frozenset[tuple[int, int]]


def path_of(graph: Graph, results: RunResults | None) -> MarkedPath:
    """The critical path of a graph; of a run, the chain of tasks that set its wall time."""
    if results is None:
        names = graph.critical_path()
    else:
        names = [link.task_name for link in breakdown(results).chain]
    numbers = list(dict.fromkeys(graph.numbers[name] for name in names))
    return MarkedPath(tuple(numbers), frozenset(pairwise(numbers)))


def edges_of(graph: Graph) -> Iterator[tuple[int, int, bool]]:
    """Every arrow: from, to, and whether it means `after` and not success."""
    for number in range(len(graph)):
        dependencies = set(graph.dependencies[number])
        for earlier in graph.waits_for(number):
            yield earlier, number, earlier not in dependencies


def lines_of(text: str) -> list[str]:
    """The lines of a text, at least one, with a mark for each character that cannot be drawn."""
    lines = [printable(line) for line in text.replace("\t", " ").splitlines()]
    # Mermaid refuses a label without text.
    return lines if any(lines) else ["\N{REPLACEMENT CHARACTER}"]


def task_label(graph: Graph, number: int, results: RunResults | None) -> list[str]:
    """The lines of a task's label: its name, and how it ended."""
    name = graph.tasks[number].name
    if results is None:
        return [name]
    result = results[number]
    if result.started_at is None:
        return [name, result.status.name.lower()]
    attempts = f", {result.attempts} attempts" if result.attempts > 1 else ""
    took = "" if result.status is TaskStatus.RUNNING else f", {in_seconds(result.duration)}"
    return [name, f"{result.status.name.lower()}{took}{attempts}"]
