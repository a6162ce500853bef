"""The formats of results and graphs: the next one is a module of `reporting`, and a line here."""

from importlib import import_module
from pathlib import PurePath
from typing import Any, Final

FORMATS: Final = {
    "text": ".txt",
    "json": ".json",
    "html": ".html",
    "junit": ".xml",
    "trace": ".trace.json",
    "mermaid": ".mmd",
    "dot": ".dot",
}
"""The formats of a report, each a module of that name with a function `report(results)`, and the
suffix of the files that have it."""

GRAPH_FORMATS: Final = {
    "tree": ("tree", "draw"),
    "mermaid": ("mermaid", "draw"),
    "dot": ("dot", "draw"),
    "svg": ("dot", "svg"),
}
"""The formats of a graph, each with its module and the function `draw(graph, results)` there."""


def render(results: Any, format: str = "text", **options: Any) -> str:  # noqa: A002 - what it is
    """The results of a run, over or not, as text.

    Args:
        results: `RunResults`.
        format: one of `FORMATS`.
        options: what the format's own `report` takes.

    Raises:
        ValueError: there is no such format.
    """
    if format not in FORMATS:
        raise ValueError(
            f"Expected format to be one of {', '.join(map(repr, FORMATS))}, got {format!r}."
        )
    text: str = _module(format).report(results, **options)
    return text


def drawn(graph: Any, format: str = "tree", results: Any = None) -> str:  # noqa: A002 - what it is
    """A graph as text.

    Args:
        graph: a `Graph`.
        format: one of `GRAPH_FORMATS`.
        results: of a run of it, whose statuses and durations are to be seen.

    Raises:
        ValueError: there is no such format.
        FileNotFoundError, RuntimeError: Graphviz, which makes the SVG, is not there or has failed.
    """
    if format not in GRAPH_FORMATS:
        raise ValueError(
            f"Expected format to be one of {', '.join(map(repr, GRAPH_FORMATS))}, got {format!r}."
        )
    module, function = GRAPH_FORMATS[format]
    text: str = getattr(_module(module), function)(graph, results)
    return text


def table_for_notebook(results: Any) -> str:
    """What a notebook shows of results: a table of HTML."""
    table: str = _module("notebook").results_table(results)
    return table


def pictures_for_notebook(graph: Any) -> dict[str, str]:
    """What a notebook shows of a graph: pictures, by MIME type."""
    pictures: dict[str, str] = _module("notebook").graph_bundle(graph)
    return pictures


def format_of(path: PurePath) -> str:
    """The format that a file of this name has, by its suffix; the longest one counts.

    Raises:
        ValueError: none has that suffix.
    """
    name = path.name.lower()
    fitting = [one for one, suffix in FORMATS.items() if name.endswith(suffix)]
    if not fitting:
        raise ValueError(
            f"Expected a file name that ends in {', '.join(FORMATS.values())}, got {path.name!r}. "
            "Or say which format it is to have, as in format='text'."
        )
    return max(fitting, key=lambda one: len(FORMATS[one]))


def _module(name: str) -> Any:
    # By its name, and not at the top: a program that prints one format should not pay for the
    # others, and they know graphs and results, which know these formats.
    return import_module(f"portable_sched.reporting.{name}")
