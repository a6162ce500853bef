"""What a task costs, beside the programs one would write without us, on every shape and backend.

Building and validating the graph count as ours; decorating and reading the results come after.
"""

from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

from backends import BACKENDS, BODIES_OF_RESULTS, another_no_op, installed_backends, no_op
from baselines import async_dag, bare_task_group, find_async_dag, obvious_asyncio, obvious_trio
from measure import Work, cpu_seconds, cpu_seconds_on, interleaved_medians
from ours import build_and_run, register, task_names
from shapes import SHAPES, Graph
from tables import Score, print_table

from portable_sched import TaskRegistry, TaskScheduler

BIG = 20_000
SMALL = 5_000

# They take several times as long as we do: more readings would take a minute and decide nothing.
READ_ONCE = ("T", "G")

MOST_OF_TRIO_PROGRAM = 1.0
MOST_OF_ASYNCIO = 1.3
MOST_TO_DECORATE = 3.0
MOST_TO_BUILD = 1.5
MOST_TO_READ = 1.0

HEAD = (
    *("tasks", "body", "shape", "backend", "ours", "O", "T", "A", "G"),
    *("ours / O", "ours / A", "ours / T", "to asyncio"),
)
LEGEND = """\
CPU µs per task, medians of {repeats} interleaved runs; a body that "suspends" gives way once.

- ours: building, validating and running the graph.
- O: a coroutine and an asyncio.Event per task under gather, keeping the same results. The rows of
  trio are held against O on asyncio.
- T: a trio nursery and a trio.Event per task, keeping the same results; read once.
- A: the package async-dag, building and sorting included. It has no limits, retries or report.
- G: an anyio task group that spawns the bodies and waits for no dependency, read once.
"""

Contender: TypeAlias = tuple[str, str]
"""Which program, on which backend: `("O", "uvloop")`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One graph with one kind of body, timed on all backends together."""

    size: int
    body: str
    shape: str

    def usual_backends(self) -> Sequence[str]:
        """All at the size that counts; the smaller is there for O and A, who are best there."""
        return installed_backends() if self.size == BIG else ["asyncio"]

    def most_of_obvious(self, backend: str) -> float:
        """How much of O we may take at most."""
        if self.body == "no-op":
            if self.size == SMALL:
                return 0.6
            return 0.4 if self.shape == "layered" else 0.35
        if self.size == SMALL:
            return 0.85
        return 0.5 if backend == "trio" else 0.45

    def most_of_async_dag(self) -> float | None:
        """How much of A we may take at most; None at the size where it is not at its best."""
        if self.size != SMALL:
            return None
        return 0.67 if self.body == "no-op" else 1.0


def report(options: Namespace) -> None:
    """Time every case and print the two tables of this module."""
    if find_async_dag() is None:
        print("\nasync-dag (A) is not installed: skipped.")
    score = Score()
    rows: list[list[str]] = []
    warm_up(options.backends or installed_backends())
    for case in cases(options.shapes):
        backends = options.backends or case.usual_backends()
        micros = time_case(case, backends, options.repeats)
        rows.extend(row_of(case, backend, micros, score) for backend in backends)
    print_table("### What a task costs", HEAD, rows)
    print(f"\n{LEGEND.format(repeats=options.repeats)}\n{score}")
    report_parts(options)


def warm_up(backends: Sequence[str]) -> None:
    """Run everything once, untimed: the interpreter is slower where it has not been yet."""
    for body in BODIES_OF_RESULTS:
        time_case(Case(size=1_000, body=body, shape="layered"), backends, repeats=1)


def cases(shapes: Sequence[str]) -> list[Case]:
    """Every size and body with each of `shapes`, the largest first."""
    return [
        Case(size=size, body=body, shape=shape)
        for size in (BIG, SMALL)
        for body in BODIES_OF_RESULTS
        for shape in shapes
    ]


def time_case(case: Case, backends: Sequence[str], repeats: int) -> dict[Contender, float]:
    """CPU µs per task of every contender that can run this case."""
    names = task_names(case.size)
    graph = SHAPES[case.shape](case.size)
    contenders: dict[Contender, Callable[[], float]] = {}
    for backend in backends:
        contenders |= contenders_on(backend, case, names, graph)
    slow = {key: contenders.pop(key) for key in list(contenders) if key[0] in READ_ONCE}
    seconds = interleaved_medians(contenders, repeats) | interleaved_medians(slow, 1)
    return {contender: value / case.size * 1e6 for contender, value in seconds.items()}


def contenders_on(
    name: str, case: Case, names: Sequence[str], graph: Graph
) -> dict[Contender, Callable[[], float]]:
    """The programs that can run this case on one backend, each ready to be timed."""
    backend = BACKENDS[name]
    body = backend.bodies[case.body]
    works: dict[str, Work] = {"ours": partial(build_and_run, register(names, graph, body))}
    if name == "trio":
        works["T"] = partial(obvious_trio, names, graph, body)
    else:
        works["O"] = partial(obvious_asyncio, names, graph, body)
        if package := find_async_dag():
            works["A"] = partial(async_dag, package, graph, BODIES_OF_RESULTS[case.body])
    if case.shape == "wide":
        works["G"] = partial(bare_task_group, case.size, body)
    return {
        (program, name): partial(cpu_seconds_on, backend, work) for program, work in works.items()
    }


def row_of(case: Case, backend: str, micros: dict[Contender, float], score: Score) -> list[str]:
    """One line of the table: what everyone took, and our part of it against the target."""
    asyncio_like = "asyncio" if backend == "trio" else backend
    ours = micros["ours", backend]

    def ratio(contender: Contender, most: float | None) -> str:
        if contender not in micros:
            return "-"
        part = ours / micros[contender]
        return f"{part:.2f}" if most is None else score.against(part, most)

    programs = ("ours", "O", "T", "A", "G")
    taken = [micros.get((program, backend)) for program in programs]
    return [
        *(f"{case.size:,}", case.body, case.shape, backend),
        *("-" if value is None else f"{value:.2f}" for value in taken),
        ratio(("O", asyncio_like), case.most_of_obvious(backend)),
        ratio(("A", backend), case.most_of_async_dag()),
        ratio(("T", backend), MOST_OF_TRIO_PROGRAM),
        ratio(("ours", "asyncio"), MOST_OF_ASYNCIO) if backend == "trio" else "-",
    ]


def report_parts(options: Namespace) -> None:
    """Time what comes before and after a run, and print it."""
    score = Score()
    rows = []
    for shape in options.shapes:
        names = task_names(BIG)
        graph = SHAPES[shape](BIG)
        seconds = interleaved_medians(
            {
                "decorate": partial(seconds_to_decorate, names, graph),
                "build": partial(seconds_to_build, names, graph),
                "read": partial(seconds_to_read, names, graph),
            },
            options.repeats,
        )
        micros = {part: value / BIG * 1e6 for part, value in seconds.items()}
        rows.append(
            [
                shape,
                score.against(micros["decorate"], MOST_TO_DECORATE),
                score.against(micros["build"], MOST_TO_BUILD),
                score.against(micros["read"], MOST_TO_READ),
            ]
        )
    head = ("shape", "decorating", "building and validating", "list(results)")
    print_table(f"### Before and after a run: CPU µs per task, {BIG:,} tasks", head, rows)
    print(f"\n{score}")


def seconds_to_decorate(names: Sequence[str], graph: Graph) -> float:
    """The CPU time of registering every task, each with a function of its own."""
    definitions = [
        (name, [names[number] for number in dependencies], another_no_op())
        for name, dependencies in zip(names, graph, strict=True)
    ]

    def decorate() -> TaskRegistry:
        registry = TaskRegistry()
        for name, depends_on, body in definitions:
            registry.task(name=name, depends_on=depends_on)(body)
        return registry

    return cpu_seconds(decorate)


def seconds_to_build(names: Sequence[str], graph: Graph) -> float:
    """The CPU time of taking the snapshot and building and validating the graph."""
    registry = register(names, graph, no_op)

    def build() -> TaskScheduler:
        scheduler = TaskScheduler(registry)
        _ = scheduler.graph  # built when first asked for
        return scheduler

    return cpu_seconds(build)


def seconds_to_read(names: Sequence[str], graph: Graph) -> float:
    """The CPU time of making all `TaskResult` objects of a run on asyncio."""
    registry = register(names, graph, no_op)

    async def run_and_read() -> float:
        _, results = await build_and_run(registry)
        return cpu_seconds(partial(list, results))

    return BACKENDS["asyncio"].run(run_and_read)
