"""What depends on what: sorted, numbered, ranked, and refused where it cannot be run."""

import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from naive import (
    acyclic_tasks,
    any_tasks,
    by_name,
    cycle_lengths,
    defined,
    examples,
    idle,
    remaining_path,
    start_order,
    topological_order,
)

from portable_sched import (
    CyclicDependencyError,
    DependencyError,
    DuplicateTaskError,
    Graph,
    Priority,
    TaskDef,
)

MANY = 100_000


def names(graph: Graph) -> list[str]:
    return [definition.name for definition in graph.tasks]


def names_in_start_order(graph: Graph) -> list[str]:
    return [graph.tasks[number].name for number in graph.by_place]


def cycle_of(*tasks: TaskDef) -> tuple[str, ...]:
    with pytest.raises(CyclicDependencyError) as caught:
        Graph(tasks)
    return caught.value.path


# Sorting


def test_an_empty_graph_has_no_tasks() -> None:
    graph = Graph([])

    assert 0 == len(graph)
    assert () == graph.tasks
    assert [] == graph.by_place
    assert [] == graph.remaining_path()


def test_a_graph_says_how_many_tasks_it_has() -> None:
    graph = Graph([defined("a"), defined("b", "a")])

    assert 2 == len(graph)
    assert "<Graph of 2 tasks>" == repr(graph)


def test_a_graph_can_be_made_of_a_generator() -> None:
    graph = Graph(defined(name) for name in "ab")

    assert ["a", "b"] == names(graph)


def test_tasks_written_in_order_keep_it() -> None:
    tasks = (defined("z"), defined("y"), defined("x", "z"), defined("w", "y"))

    assert tasks == Graph(tasks).tasks


def test_a_task_registered_before_what_it_depends_on_comes_right_after_it() -> None:
    graph = Graph([defined("a", "d"), defined("b"), defined("c"), defined("d"), defined("e")])

    assert ["b", "c", "d", "a", "e"] == names(graph)


@given(tasks=acyclic_tasks())
@examples(100)
def test_tasks_keep_the_order_of_registration_as_far_as_dependencies_allow(tasks) -> None:
    assert topological_order(tasks) == names(Graph(tasks))


@given(tasks=acyclic_tasks())
@examples(100)
def test_numbers_and_edges_say_what_the_definitions_say(tasks) -> None:
    graph = Graph(tasks)

    assert {name: at for at, name in enumerate(names(graph))} == graph.numbers
    for number, definition in enumerate(graph.tasks):
        needed = [graph.tasks[other].name for other in graph.dependencies[number]]
        needing = [graph.tasks[other].name for other in graph.dependents[number]]
        assert list(definition.depends_on) == needed
        assert {one.name for one in tasks if definition.name in one.depends_on} == set(needing)
        assert len(needing) == len(set(needing))


def test_a_dependency_named_twice_is_one_edge() -> None:
    graph = Graph([defined("a"), defined("b", "a", "a")])

    assert [(), (0,)] == graph.dependencies
    assert [1] == graph.dependents[0]


# The start order


def test_the_remaining_path_counts_the_tasks_to_the_farthest_end() -> None:
    graph = Graph([defined("a"), defined("b", "a"), defined("c", "b"), defined("d", "a")])

    assert [3, 2, 1, 1] == graph.remaining_path()


@given(tasks=acyclic_tasks())
@examples(100)
def test_the_remaining_path_is_the_longest_of_all_paths(tasks) -> None:
    graph = Graph(tasks)

    assert [remaining_path(name, tasks) for name in names(graph)] == graph.remaining_path()


def test_the_start_order_goes_by_priority_first() -> None:
    graph = Graph(
        [
            defined("low", priority=Priority.LOW),
            defined("medium"),
            defined("after low", "low", priority=Priority.LOW),
            defined("high", priority=Priority.HIGH),
        ]
    )

    assert ["high", "medium", "low", "after low"] == names_in_start_order(graph)


def test_the_start_order_goes_by_the_longest_remaining_path_next() -> None:
    graph = Graph([defined("short"), defined("long"), defined("end", "long")])

    assert ["long", "short", "end"] == names_in_start_order(graph)


def test_the_start_order_goes_by_registration_last() -> None:
    graph = Graph([defined("z"), defined("a"), defined("m")])

    assert ["z", "a", "m"] == names_in_start_order(graph)


def test_registration_counts_also_where_dependencies_move_a_task_back() -> None:
    """Both tasks are as urgent and as far from the end; one was written first."""
    graph = Graph([defined("first", "base"), defined("second"), defined("base")])

    assert ["second", "base", "first"] == names(graph)
    assert ["base", "first", "second"] == names_in_start_order(graph)


@given(tasks=acyclic_tasks())
@examples(100)
def test_the_start_order_is_what_sorting_by_all_three_gives(tasks) -> None:
    assert start_order(tasks) == names_in_start_order(Graph(tasks))


@given(tasks=acyclic_tasks())
@examples(50)
def test_places_and_numbers_are_inverse(tasks) -> None:
    graph = Graph(tasks)

    assert list(range(len(tasks))) == [graph.place[number] for number in graph.by_place]
    assert list(range(len(tasks))) == [graph.by_place[place] for place in graph.place]


# What is refused


def test_an_unknown_name_is_refused_with_the_nearest_one() -> None:
    with pytest.raises(DependencyError) as caught:
        Graph([defined("fetch"), defined("load", "fetsh")])

    assert "Task 'load' depends on 'fetsh', which is not registered. Did you mean 'fetch'?" == str(
        caught.value
    )
    assert "load" == caught.value.task
    assert "fetsh" == caught.value.dependency
    assert ("fetch",) == caught.value.nearest


def test_several_near_names_are_offered_best_first() -> None:
    with pytest.raises(DependencyError) as caught:
        Graph([defined("fetches"), defined("fetch"), defined("load", "fetsh")])

    assert (
        "Task 'load' depends on 'fetsh', which is not registered. "
        "Did you mean 'fetch' or 'fetches'?" == str(caught.value)
    )


def test_an_unknown_name_like_no_other_is_refused_without_advice() -> None:
    with pytest.raises(DependencyError) as caught:
        Graph([defined("fetch"), defined("load", "xyz")])

    assert "Task 'load' depends on 'xyz', which is not registered." == str(caught.value)
    assert () == caught.value.nearest


def test_the_first_task_with_an_unknown_name_is_the_one_that_is_named() -> None:
    with pytest.raises(DependencyError) as caught:
        Graph([defined("a", "c"), defined("b", "one", "two"), defined("c", "three")])

    assert ("b", "one") == (caught.value.task, caught.value.dependency)


def test_an_unknown_name_is_told_before_a_cycle() -> None:
    with pytest.raises(DependencyError):
        Graph([defined("a", "b"), defined("b", "a"), defined("c", "nobody")])


def test_a_cycle_is_refused_with_its_path() -> None:
    with pytest.raises(CyclicDependencyError) as caught:
        Graph([defined("a", "b"), defined("b", "c"), defined("c", "a")])

    assert "Tasks form a cycle: a -> b -> c -> a." == str(caught.value)
    assert ("a", "b", "c", "a") == caught.value.path


@pytest.mark.parametrize("depends_on", [("a",), ("a", "a")], ids=["once", "twice"])
def test_a_task_that_depends_on_itself_is_a_cycle_of_one(depends_on) -> None:
    with pytest.raises(CyclicDependencyError) as caught:
        Graph([defined("a", *depends_on)])

    assert "Tasks form a cycle: a -> a." == str(caught.value)


def test_the_path_leaves_out_what_leads_to_the_cycle_and_away_from_it() -> None:
    path = cycle_of(
        defined("root"),
        defined("behind", "one"),
        defined("one", "root", "two"),
        defined("two", "one"),
        defined("far behind", "behind"),
    )

    assert {"one", "two"} == set(path)


def test_the_path_is_the_shortest_through_its_start() -> None:
    path = cycle_of(defined("a", "b", "d"), defined("b", "c"), defined("c", "a"), defined("d", "a"))

    assert ("a", "d", "a") == path


@given(tasks=any_tasks())
@examples(300)
def test_a_graph_is_refused_exactly_if_it_has_a_cycle_and_shows_a_shortest_one(tasks) -> None:
    known = by_name(tasks)
    if len(topological_order(tasks)) == len(tasks):
        assert topological_order(tasks) == names(Graph(tasks))
        return

    path = cycle_of(*tasks)

    assert path[0] == path[-1]
    assert len(path) - 1 == len(set(path))
    for name, dependency in pairwise(path):
        assert dependency in known[name].depends_on
    assert min(cycle_lengths(path[0], known)) == len(path) - 1


@pytest.mark.parametrize(
    "depends_on", [(), ("b",)], ids=["tasks in order", "tasks that must be sorted"]
)
def test_two_tasks_of_one_name_are_refused(depends_on) -> None:
    async def other() -> None: ...

    with pytest.raises(DuplicateTaskError) as caught:
        Graph(
            [
                defined("a", *depends_on),
                defined("b"),
                TaskDef(name="a", function=other),
            ]
        )

    assert ("a", "naive.idle") == (caught.value.task, caught.value.existing)
    assert f"{other.__module__}.{other.__qualname__}" == caught.value.refused
    assert idle is not other


# Large graphs: nothing in a graph calls itself once a task.


def test_a_chain_of_100_000_tasks_is_sorted_and_ranked() -> None:
    chain = [defined("0"), *(defined(str(at), str(at - 1)) for at in range(1, MANY))]

    graph = Graph(chain)

    assert tuple(chain) == graph.tasks
    assert list(range(MANY, 0, -1)) == graph.remaining_path()
    assert list(range(MANY)) == graph.by_place


def test_a_chain_of_100_000_tasks_written_backwards_is_turned_round() -> None:
    chain = [defined("0"), *(defined(str(at), str(at - 1)) for at in range(1, MANY))]

    graph = Graph(reversed(chain))

    assert tuple(chain) == graph.tasks
    assert list(range(MANY)) == graph.by_place


def test_a_cycle_of_100_000_tasks_is_found_whole() -> None:
    path = cycle_of(*(defined(str(at), str((at + 1) % MANY)) for at in range(MANY)))

    assert (*map(str, range(MANY)), "0") == path


def test_a_cycle_at_the_end_of_a_long_chain_is_all_that_is_shown() -> None:
    chain = (defined(str(at), str(at + 1)) for at in range(MANY))

    path = cycle_of(*chain, defined(str(MANY), "last"), defined("last", str(MANY)))

    assert {str(MANY), "last"} == set(path)


# The same in every process


_DESCRIBE = """
from portable_sched import CyclicDependencyError, DependencyError, Graph, TaskDef
async def idle(): ...
def defined(name, *depends_on):
    return TaskDef(name=name, function=idle, depends_on=depends_on)
graph = Graph([defined(f"t{at}", *{f"t{at + 7}", f"t{at + 3}"} if at < 20 else ())
               for at in range(27)])
print([definition.name for definition in graph.tasks], graph.by_place)
animals = ("cat", "dog", "emu", "fox")
for tasks in (
    [defined(name, *sorted(set(animals) - {name})) for name in animals],
    [defined("one"), defined("ones"), defined("onee"), defined("two", "onex")],
):
    try:
        Graph(tasks)
    except (CyclicDependencyError, DependencyError) as error:
        print(error)
"""


def test_order_and_messages_do_not_depend_on_the_hash_seed(tmp_path: Path) -> None:
    described = {
        subprocess.run(  # nothing but this file's own text is run
            [sys.executable, "-c", _DESCRIBE],
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=tmp_path,
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("0", "1", "2", "3")
    }

    assert 1 == len(described)


def test_a_definition_may_be_of_a_class_of_ones_own() -> None:
    class Labelled(TaskDef):
        __slots__ = ()

    graph = Graph([Labelled(name="a", function=idle), Labelled(name="b", function=idle)])

    assert ["a", "b"] == [definition.name for definition in graph.tasks]
