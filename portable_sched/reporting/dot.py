"""The graph of a run in the language of Graphviz, and, where that is installed, as SVG."""

import subprocess
from shutil import which

from portable_sched._graph import Graph
from portable_sched._results import RunResults, TaskStatus

from .picture import edges_of, lines_of, path_of, task_label

_COLOURS = {
    TaskStatus.COMPLETED: ("#d3f2d9", "#1a7f37"),
    TaskStatus.FAILED: ("#ffdcd9", "#c62828"),
    TaskStatus.CANCELLED: ("#e8e8ea", "#6e7781"),
    TaskStatus.RUNNING: ("#d8e9ff", "#0969da"),
    TaskStatus.PENDING: ("#ffffff", "#8c959f"),
}

# Seconds: its layout of thousands of tasks takes minutes, of tens of thousands for ever.
_PATIENCE = 120


def report(results: RunResults) -> str:
    """The graph of a run, coloured by status, with the chain that set the wall time."""
    return draw(results.graph, results)


def draw(graph: Graph, results: RunResults | None = None) -> str:
    """A graph as DOT, top to bottom: arrows lead from a task to those that depend on it.

    A dashed arrow leads to a task that comes `after` another. A task that yields is an ellipse. The
    critical path is thick; with results, the chain of tasks that set the wall time.

    Args:
        graph: what is drawn.
        results: of a run of it, over or not.
    """
    path = path_of(graph, results)
    marked = set(path.tasks)
    lifetimes = set(graph.lifetimes)
    lines = [
        "digraph {",
        '  node [shape=box, style="rounded,filled", fillcolor="#ffffff", color="#8c959f"]',
        '  node [fontname="sans-serif", fontsize=11]',
        '  edge [color="#57606a"]',
    ]
    for number in range(len(graph)):
        label = "\\n".join(
            _escaped(line) for part in task_label(graph, number, results) for line in lines_of(part)
        )
        settings = [f'label="{label}"']
        if number in lifetimes:
            settings += ["shape=ellipse", "style=filled"]
        if results is not None:
            fill, line = _COLOURS[results[number].status]
            settings += [f'fillcolor="{fill}"', f'color="{line}"']
        if number in marked:
            settings.append("penwidth=3")
        lines.append(f"  t{number} [{', '.join(settings)}]")
    for before, number, is_after in edges_of(graph):
        settings = ["style=dashed"] if is_after else []
        settings += ["penwidth=3"] if (before, number) in path.edges else []
        shown = f" [{', '.join(settings)}]" if settings else ""
        lines.append(f"  t{before} -> t{number}{shown}")
    return "\n".join([*lines, "}"])


def svg(graph: Graph, results: RunResults | None = None, *, patience: float = _PATIENCE) -> str:
    """The same as SVG, drawn by the program `dot` of Graphviz.

    Args:
        graph: what is drawn.
        results: of a run of it, over or not.
        patience: seconds that it may take.

    Raises:
        FileNotFoundError: there is no such program.
        RuntimeError: it failed, or took longer than that.
    """
    program = which("dot")
    if program is None:
        raise FileNotFoundError(
            "Expected the program `dot` of Graphviz, which draws the picture, and found none. "
            "Install Graphviz, or take the format 'mermaid', which needs no program."
        )
    try:
        done = subprocess.run(  # noqa: S603 - Graphviz, which was asked for
            [program, "-Tsvg"],
            input=draw(graph, results).encode("utf-8", "replace"),
            capture_output=True,
            timeout=patience,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise RuntimeError(
            f"Expected Graphviz to draw {len(graph)} tasks within {patience} s, and it did not. "
            "Draw a part: graph.subset([...])."
        ) from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip()
        raise RuntimeError(f"Graphviz failed with exit code {done.returncode}: {said}")
    return done.stdout.decode("utf-8")


def _escaped(text: str) -> str:
    """Text within the quotes of a label."""
    # A backslash begins an escape, `&` an entity of HTML.
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("&", "&amp;")
