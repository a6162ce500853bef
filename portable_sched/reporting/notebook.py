"""What a notebook shows of a graph and of results: pictures and tables where others have a repr."""

from collections.abc import Sequence
from contextlib import suppress
from html import escape

from portable_sched._graph import Graph
from portable_sched._results import RunResults
from portable_sched.analysis.wording import counts_text, tasks_text

from . import dot, mermaid
from .picture import edges_of, lines_of

_MOST_ROWS = 200

# What Mermaid takes, unless it is told otherwise; above that it shows an error.
_MOST_TEXT, _MOST_ARROWS = 50_000, 500

# Graphviz draws as many in about a second; above that a notebook cell would seem to hang.
_MOST_DRAWN = 200

# Seconds: where each task depends on all those before it, sixty of them take more than a minute.
_PATIENCE = 3


def graph_bundle(graph: Graph) -> dict[str, str]:
    """A graph by the MIME types that notebooks know: SVG where Graphviz is there, Mermaid, text.

    JupyterLab draws Mermaid itself, from its version 4.1 on. Of a graph that is too large for a
    picture there is text alone.
    """
    bundle = {"text/plain": repr(graph)}
    picture = mermaid.draw(graph)
    if len(picture) <= _MOST_TEXT and sum(1 for _ in edges_of(graph)) <= _MOST_ARROWS:
        bundle["text/vnd.mermaid"] = picture
    if len(graph) <= _MOST_DRAWN:
        # Without Graphviz, or with one that cannot, the others do.
        with suppress(OSError, RuntimeError):
            bundle["image/svg+xml"] = dot.svg(graph, patience=_PATIENCE)
    return bundle


def results_table(results: RunResults) -> str:
    """Results as a table of HTML, the first two hundred of them, with the totals below."""
    headings = ("Task", "Status", "Attempts", "Duration", "Error")
    shown = results[:_MOST_ROWS]
    rows = [
        (
            result.task_name,
            result.status.name,
            str(result.attempts),
            f"{result.duration:.4f} s",
            result.error or "",
        )
        for result in shown
    ]
    total = len(results)
    left = total - len(shown)
    totals = (
        f"{tasks_text(total)}: {counts_text(results.counts())}; {results.wall_time:.4f} s wall time"
    )
    return "\n".join(
        [
            "<table>",
            f"<caption>{f'The first {len(shown)} of ' if left else ''}{escape(totals)}</caption>",
            f"<thead>{_row('th', headings)}</thead>",
            "<tbody>",
            *(_row("td", row) for row in rows),
            "</tbody>",
            "</table>",
        ]
    )


def _row(cell: str, values: Sequence[str]) -> str:
    # A lone surrogate, as in a file name that is no text, cannot be sent to a browser as UTF-8.
    cells = "".join(
        f"<{cell}>{escape(' '.join(lines_of(value)) if value else '')}</{cell}>" for value in values
    )
    return f"<tr>{cells}</tr>"
