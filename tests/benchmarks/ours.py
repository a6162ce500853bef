"""The library under test, driven the way its users drive it."""

from collections.abc import Sequence

from backends import Body
from shapes import Graph

from portable_sched import RunResults, TaskRegistry, TaskScheduler


def task_names(size: int) -> list[str]:
    """A name for each task."""
    return [f"task-{number}" for number in range(size)]


def register(names: Sequence[str], graph: Graph, body: Body) -> TaskRegistry:
    """A registry in which every task of `graph` runs `body`."""
    registry = TaskRegistry()
    for name, dependencies in zip(names, graph, strict=True):
        registry.task(name=name, depends_on=[names[number] for number in dependencies])(body)
    return registry


async def build_and_run(registry: TaskRegistry) -> tuple[TaskScheduler, RunResults]:
    """Build, validate and run the graph; the scheduler comes too, or its end would be timed."""
    scheduler = TaskScheduler(registry)
    return scheduler, await scheduler.run()
