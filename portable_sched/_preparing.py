"""What a run needs before it begins: a state, and for each task what is called for an attempt."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ._dataflow import Source
from ._engine import Run
from ._events import Announcer, Observer
from ._executors import Argument, Entry, Fetched, entry_of, fetching, filled, with_results
from ._graph import Graph
from ._hooks import AttemptHook, hooked
from ._lifetimes import Lifetime
from ._resources import ResourceState, demands_of, executor_resource, with_threads
from ._results import RunRecord
from ._state import FailurePolicy, RunState
from ._watch import TELLING, states_that_tell

if TYPE_CHECKING:
    # Imported where there is a task for them: most programs have none.
    from ._pool import Pool
    from ._pools import Pools


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a scheduler was told about its runs; `TaskScheduler` says what each means."""

    max_concurrency: int | None
    resources: Mapping[str, int]
    on_failure: FailurePolicy
    inherit_priority: bool
    keep_results: bool
    executors: Mapping[str, Any]
    observers: tuple[Observer, ...]
    attempt_hooks: tuple[AttemptHook, ...]


def prepared(  # noqa: PLR0917 - its one caller passes what it has, each of a type of its own
    graph: Graph,
    settings: Settings,
    inputs: Mapping[str, object],
    targets: Collection[str],
    pools: "Pools | None",
    clock: Callable[[], float],
) -> Run:
    """A run that is yet to be carried out.

    Args:
        graph: what is to run.
        settings: of its scheduler.
        inputs: of the run.
        targets: of the run; their results are kept.
        pools: the executors; None where no task has one.
        clock: of the event loop.
    """
    capacity = _capacity(graph, settings.resources, pools)
    state = _state(graph, settings, targets, capacity, clock())
    record = state.record
    entries: list[Entry] = [definition.function for definition in graph.tasks]
    lifetimes: dict[int, Lifetime] = {}
    stay = _what_stays(graph) if graph.executors else set()
    fetched: Fetched = {}
    for number in graph.special:
        definition = graph.tasks[number]
        if pools is not None and stay:
            fetched = _fetched(graph, number, stay, pools)
        if definition.is_lifetime():
            lifetimes[number] = Lifetime(number, definition)
            entry = lifetimes[number].open
            entries[number] = fetching(entry, definition, fetched) if fetched else entry
        else:
            pool = None if pools is None else pools.of(definition)
            entries[number] = entry_of(definition, pool, keep=number in stay, fetched=fetched)
    for number, sources in graph.sources.items():
        entry = entries[number]
        if settings.keep_results and number in graph.rows:
            entries[number] = with_results(entry, graph.rows[number], record.results)
            continue
        arguments = _arguments(record, sources, inputs)
        given = None if settings.keep_results else partial(state.has_arguments, number)
        entries[number] = filled(entry, arguments, given)
    if settings.attempt_hooks:
        muted: set[int] = set()
        for number, definition in enumerate(graph.tasks):
            attempt = partial(record.attempt_of, number)
            hooks = settings.attempt_hooks
            entries[number] = hooked(entries[number], hooks, definition, attempt, muted)
    run = Run(state, entries, settings.max_concurrency or len(graph), clock, lifetimes)
    if pools is not None and isinstance(state, ResourceState):
        for pool in pools:
            if executor_resource(pool.name) not in settings.resources:
                pool.capacity.tell = partial(_resize, run, state, executor_resource(pool.name))
    return run


def _resize(run: Run, state: ResourceState, resource: str, units: int | None) -> None:
    """It is known by now how many calls an executor is to have at one time."""
    state.resize(resource, units or len(run.entries))
    run.look_around()


def _capacity(
    graph: Graph, resources: Mapping[str, int], pools: "Pools | None"
) -> Mapping[str, int]:
    """The units of all that can be held: what the scheduler was told, and the executors in use."""
    if pools is None:
        return resources
    units = {
        executor_resource(name): pools[name].capacity.workers or len(graph)
        for name in graph.executors
    }
    return {**units, **resources}


def _what_stays(graph: Graph) -> set[int]:
    """The tasks whose results another task of the same executor takes by name.

    And nobody as a `TaskResult`, in which there would be a handle.
    """
    tasks = graph.tasks
    stay: set[int] = set()
    whole: set[int] = set()
    for number, sources in graph.sources.items():
        executor = tasks[number].executor
        for source in sources:
            if source.task is None:
                continue
            if source.whole:
                whole.add(source.task)
            elif executor is not None and tasks[source.task].executor == executor:
                stay.add(source.task)
    return stay - whole


def _fetched(graph: Graph, number: int, stay: Collection[int], pools: "Pools") -> Fetched:
    """Of the arguments that may have stayed in another executor than the task's, where they are."""
    tasks = graph.tasks
    fetched: dict[int | str, tuple[Pool, str]] = {}
    for at, source in enumerate(graph.sources.get(number, ())):
        if source.task is None or source.task not in stay:
            continue
        pool = pools.of(tasks[source.task])
        if pool is not None and tasks[number].executor != pool.name:
            # By position or by name: those that come by position are the first in both.
            fetched[at] = fetched[source.parameter.name] = (pool, tasks[source.task].name)
    return fetched


def _state(
    graph: Graph,
    settings: Settings,
    targets: Collection[str],
    capacity: Mapping[str, int],
    began: float,
) -> RunState:
    options: dict[str, Any] = {"policy": settings.on_failure}
    if not settings.keep_results:
        options["keep"] = targets
    demands = demands_of(graph, capacity, settings.max_concurrency)
    plain: type[RunState] = RunState
    holding: type[ResourceState] = ResourceState
    announcer = Announcer(settings.observers) if settings.observers else None
    if announcer is not None:
        plain, holding = states_that_tell(announcer)
    state: RunState
    if demands is not None:
        state = holding(graph, began, demands, with_threads(capacity), **options)
    else:
        state = plain(graph, began, **options)
        state.record.capacity = settings.resources
    state.record.limit = settings.max_concurrency
    if announcer is not None and isinstance(state, TELLING):
        state.announcer = announcer
    return state


def _arguments(
    record: RunRecord, sources: Iterable[Source], inputs: Mapping[str, object]
) -> list[Argument]:
    """What gets the values of a task's parameters, in one run."""
    arguments: list[Argument] = []
    for source in sources:
        parameter = source.parameter
        value: Callable[[], object]
        if source.task is not None:
            get = record.result_of if source.whole else record.results.__getitem__
            value = partial(get, source.task)
        elif parameter.required:
            value = partial(inputs.__getitem__, parameter.name)
        else:
            value = partial(_as_it_is, parameter.default)
        arguments.append((None if parameter.by_position else parameter.name, value))
    return arguments


def _as_it_is(value: object) -> object:
    return value
