"""How short the start order makes a run: its makespan over the least that any order could reach.

The engine runs each recorded workflow in virtual time, where a task sleeps the seconds that it
once took. So the figures are exact, and the next run prints the same.
"""

import asyncio
from argparse import Namespace
from collections.abc import Sequence
from statistics import mean

from anyio import sleep
from ours import task_names
from shapes import WORKFLOWS, Workflow, recorded
from tables import Score, print_table

from portable_sched import TaskRegistry, TaskScheduler
from portable_sched.testing import VirtualTimeLoop

SLOTS = (4, 16, 64)

MOST_ON_AVERAGE = {16: 1.05}

HEAD = (
    *("workflow", "tasks", "critical path", "work / slots"),
    *("registered first", "longest path in tasks", "longest path in seconds"),
)
LEGEND = """\
Critical path and work / slots in seconds; then the makespan over the larger of the two, for three
orders in which ready tasks start. No order is below 1; where tasks are few, none may come near it.

- registered first: as they were registered, for comparison. The same engine, without its order.
- longest path in tasks: our order where nothing is known about the tasks.
- longest path in seconds: our order where each task's `estimate` is the time it takes.
"""


class RegistrationOrder(TaskScheduler):
    """The baseline: the same engine, which starts ready tasks in the order of registration."""

    @property
    def graph(self):
        graph = super().graph
        return graph.reordered(graph.numbers[definition.name] for definition in self.tasks)


def report(_: Namespace) -> None:
    """Run every workflow in each order, and print a table for each number of slots."""
    score = Score()
    workflows = [recorded(file) for file in sorted(WORKFLOWS.glob("*.json"))]
    for slots in SLOTS:
        rows = []
        columns: list[list[float]] = []
        for workflow in workflows:
            path, share = critical_path(workflow), sum(workflow.seconds) / slots
            ratios = [span / max(path, share) for span in makespans(workflow, slots)]
            columns.append(ratios)
            rows.append(
                [
                    *(workflow.name, f"{len(workflow.graph)}", f"{path:,.1f}", f"{share:,.1f}"),
                    *(f"{ratio:.3f}" for ratio in ratios),
                ]
            )
        *others, with_estimates = map(mean, zip(*columns, strict=True))
        rows.append(["mean", "", "", "", *(f"{other:.3f}" for other in others)])
        if slots in MOST_ON_AVERAGE:
            rows[-1].append(score.against(with_estimates, MOST_ON_AVERAGE[slots], digits=3))
        else:
            rows[-1].append(f"{with_estimates:.3f}")
        print_table(f"### Makespan over its lower bound, {slots} slots", HEAD, rows)
    print(f"\n{LEGEND}\n{score}")


def critical_path(workflow: Workflow) -> float:
    """The seconds along the longest path: no number of slots makes a run shorter."""
    ends: list[float] = []
    for dependencies, seconds in zip(workflow.graph, workflow.seconds, strict=True):
        ends.append(seconds + max((ends[number] for number in dependencies), default=0))
    return max(ends)


def makespans(workflow: Workflow, slots: int) -> Sequence[float]:
    """Seconds from start to end, for each of the three orders."""
    unknown = register(workflow, [None] * len(workflow.seconds))
    known = register(workflow, list(workflow.seconds))
    return [
        makespan(RegistrationOrder(unknown, max_concurrency=slots)),
        makespan(TaskScheduler(unknown, max_concurrency=slots)),
        makespan(TaskScheduler(known, max_concurrency=slots)),
    ]


def register(workflow: Workflow, estimates: Sequence[float | None]) -> TaskRegistry:
    """A registry in which every task sleeps what it took when the workflow was recorded."""
    registry = TaskRegistry()
    names = task_names(len(workflow.graph))
    for name, dependencies, seconds, estimate in zip(
        names, workflow.graph, workflow.seconds, estimates, strict=True
    ):

        async def body(seconds: float = seconds) -> None:
            await sleep(seconds)

        depends_on = [names[number] for number in dependencies]
        registry.task(name=name, depends_on=depends_on, estimate=estimate)(body)
    return registry


def makespan(scheduler: TaskScheduler) -> float:
    """The seconds of one run, none of them waited for."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        results = runner.run(scheduler.run())
    results.raise_for_failures()
    return results.wall_time
