"""The graph of a run as a Mermaid flowchart, which Markdown on many sites draws."""

from string import ascii_letters, digits

from portable_sched._graph import Graph
from portable_sched._results import RunResults, TaskStatus

from .picture import edges_of, lines_of, path_of, task_label

_COLOURS = {
    TaskStatus.COMPLETED: "fill:#d3f2d9,stroke:#1a7f37,color:#0b3d17",
    TaskStatus.FAILED: "fill:#ffdcd9,stroke:#c62828,color:#5f0f0f",
    TaskStatus.CANCELLED: "fill:#e8e8ea,stroke:#6e7781,color:#24292f",
    TaskStatus.RUNNING: "fill:#d8e9ff,stroke:#0969da,color:#0a3069",
    TaskStatus.PENDING: "fill:#ffffff,stroke:#8c959f,color:#24292f",
}

# Mermaid takes entities in quoted labels, written with `#` where HTML has `&`. What could mean
# something to it or to Markdown goes in by its number: quotes, brackets, backticks. Letters of
# other scripts mean nothing to them, and are left for people to read.
_PLAIN = frozenset(f"{ascii_letters}{digits} -_.,")


def report(results: RunResults) -> str:
    """The graph of a run, coloured by status, with durations and the chain that set the wall time.

    Mermaid itself draws up to 500 arrows, and 50,000 characters, unless whoever shows the text has
    set `maxEdges` and `maxTextSize` higher.
    """
    return draw(results.graph, results)


def draw(graph: Graph, results: RunResults | None = None) -> str:
    """A graph as Mermaid, top to bottom: arrows lead from a task to those that depend on it.

    A dotted arrow leads to a task that comes `after` another. A task that yields is a rounded box.
    The critical path is thick; with results, the chain of tasks that set the wall time.

    Args:
        graph: what is drawn.
        results: of a run of it, over or not.
    """
    path = path_of(graph, results)
    lifetimes = set(graph.lifetimes)
    lines = ["flowchart TD"]
    for number in range(len(graph)):
        label = "<br>".join(
            _escaped(line) for part in task_label(graph, number, results) for line in lines_of(part)
        )
        left, right = ("([", "])") if number in lifetimes else ("[", "]")
        lines.append(f'  t{number}{left}"{label}"{right}')
    thick: list[int] = []
    for at, (before, number, is_after) in enumerate(edges_of(graph)):
        lines.append(f"  t{before} {'-.->' if is_after else '-->'} t{number}")
        if (before, number) in path.edges:
            thick.append(at)
    if results is not None:
        lines += _coloured(results)
    if path.tasks:
        lines.append("  classDef critical stroke-width:4px")
        lines.append(f"  class {','.join(f't{number}' for number in path.tasks)} critical")
    if thick:
        lines.append(f"  linkStyle {','.join(map(str, thick))} stroke-width:4px")
    return "\n".join(lines)


def _coloured(results: RunResults) -> list[str]:
    by_status: dict[TaskStatus, list[str]] = {}
    for number, result in enumerate(results):
        by_status.setdefault(result.status, []).append(f"t{number}")
    lines: list[str] = []
    for status, nodes in by_status.items():
        name = status.name.lower()
        lines.append(f"  classDef {name} {_COLOURS[status]}")
        lines.append(f"  class {','.join(nodes)} {name}")
    return lines


def _escaped(text: str) -> str:
    return "".join(
        one if one in _PLAIN or (not one.isascii() and one.isalnum()) else f"#{ord(one)};"
        for one in text
    )
