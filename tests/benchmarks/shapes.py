"""The graphs that are run: a list with, for each task, the numbers of those it depends on.

A task's dependencies always come before it, so any contender can build it in one pass.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import TypeAlias

Graph: TypeAlias = list[list[int]]

WORKFLOWS = Path(__file__).parent / "workflows"
MONTAGE = WORKFLOWS / "montage-chameleon-dss-10d-001.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A recorded run of a real workflow: its graph, and how many seconds each task took."""

    name: str
    graph: Graph
    seconds: list[float]


def recorded(file: Path) -> Workflow:
    """The workflow in one of the files of `WORKFLOWS`."""
    content = json.loads(file.read_text(encoding="utf-8"))
    tasks = content["tasks"]
    numbers = {task["id"]: number for number, task in enumerate(tasks)}
    return Workflow(
        name=content["name"],
        graph=[[numbers[parent] for parent in task["parents"]] for task in tasks],
        seconds=[task["seconds"] for task in tasks],
    )


def chain(size: int) -> Graph:
    """Each task depends on the one before it: nothing can overlap."""
    return [[number - 1] if number else [] for number in range(size)]


def layered(size: int, width: int = 100, dependencies: int = 3) -> Graph:
    """Layers of `width` tasks, each on `dependencies` random tasks of the layer before."""
    random = Random(width)  # the same graph for every contender, today and next year
    graph: Graph = [[] for _ in range(min(size, width))]
    for number in range(width, size):
        layer_before = number - number % width - width
        graph.append(random.sample(range(layer_before, layer_before + width), dependencies))
    return graph


def wide(size: int) -> Graph:
    """No task depends on another: everything is ready at once."""
    return [[] for _ in range(size)]


def montage(size: int) -> Graph:
    """The recorded Montage run, repeated side by side; the last copy is cut where `size` ends."""
    copied = recorded(MONTAGE).graph
    graph: Graph = []
    for number in range(size):
        place = number % len(copied)
        graph.append([number - place + dependency for dependency in copied[place]])
    return graph


SHAPES: dict[str, Callable[[int], Graph]] = {
    "chain": chain,
    "layered": layered,
    "wide": wide,
    "montage": montage,
}
