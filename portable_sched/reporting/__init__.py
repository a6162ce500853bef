"""Results and graphs as text, in one format or another: each is a module here."""

from portable_sched._formats import FORMATS, GRAPH_FORMATS, drawn, format_of, render

from .json import results_from_json

__all__ = ["FORMATS", "GRAPH_FORMATS", "drawn", "format_of", "render", "results_from_json"]
