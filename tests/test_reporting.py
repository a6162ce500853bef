"""The table of formats: what is written where, and what is said of a format that there is not."""

import re
from datetime import UTC, datetime
from pathlib import Path, PurePath

import pytest

from portable_sched import RunResults, TaskRegistry, TaskScheduler
from portable_sched.reporting import FORMATS, format_of, render
from portable_sched.testing import run_graph


@pytest.fixture
def registry() -> TaskRegistry:
    registry = TaskRegistry()

    @registry.task
    async def fetch() -> str:
        return "rows"

    @registry.task
    async def load(fetch: str) -> None:
        raise OSError("no disk")

    @registry.task(depends_on=[load])
    async def tell() -> None: ...

    return registry


@pytest.fixture
def results(registry: TaskRegistry) -> RunResults:
    return run_graph(registry, seconds={"fetch": 2})


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_tells_of_every_task(results, name) -> None:
    told = render(results, name)

    # A trace is of what took time.
    tasks = ["fetch", "load"] if name == "trace" else ["fetch", "load", "tell"]
    assert all(task in told for task in tasks)


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_is_made_of_a_run_of_nothing(name) -> None:
    assert isinstance(render(run_graph(TaskRegistry()), name), str)


@pytest.mark.parametrize(("name", "suffix"), FORMATS.items())
def test_a_file_has_the_format_that_its_name_says(results, tmp_path, name, suffix) -> None:
    path = results.save(tmp_path / f"run{suffix}")

    assert tmp_path / f"run{suffix}" == path
    assert render(results, name).removesuffix("\n") == path.read_text("utf-8").removesuffix("\n")
    assert path.read_bytes().endswith(b"\n")


def test_a_file_of_any_name_can_have_any_format(results, tmp_path) -> None:
    path = results.save(str(tmp_path / "report"), format="text", verbose=True)

    assert f"{render(results, 'text', verbose=True)}\n" == path.read_text("utf-8")


def test_a_file_is_replaced(results, tmp_path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("something longer than the report" * 100)
    results.save(path)

    assert f"{render(results)}\n" == path.read_text("utf-8")


def test_a_name_that_is_no_text_is_marked_and_the_report_written(tmp_path) -> None:
    registry = TaskRegistry()

    @registry.task("report-\udcff.csv")
    async def read() -> None: ...

    assert "report-" in run_graph(registry).save(tmp_path / "run.txt").read_text("utf-8")


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("run.json", "json"),
        ("RUN.HTML", "html"),
        ("run.trace.json", "trace"),
        ("my.run.xml", "junit"),
        ("graph.mmd", "mermaid"),
        ("graph.dot", "dot"),
        ("run.txt", "text"),
    ],
)
def test_the_longest_suffix_counts(file, name) -> None:
    assert name == format_of(PurePath("folder.json", file))


def test_a_suffix_that_no_format_has_is_refused() -> None:
    expected = (
        "Expected a file name that ends in .txt, .json, .html, .xml, .trace.json, .mmd, .dot, got "
        "'run.pdf'. Or say which format it is to have, as in format='text'."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        format_of(PurePath("run.pdf"))


def test_a_format_that_there_is_not_is_refused(registry, results) -> None:
    expected = (
        "Expected format to be one of 'text', 'json', 'html', 'junit', 'trace', 'mermaid', 'dot', "
        "got 'pdf'."
    )

    with pytest.raises(ValueError, match=f"^{re.escape(expected)}$"):
        TaskScheduler(registry).report(results, format="pdf")


def test_a_report_that_cannot_be_made_leaves_the_file_alone(results, tmp_path) -> None:
    path = tmp_path / "run.txt"
    path.write_text("before")
    with pytest.raises(ValueError, match="Expected format"):
        results.save(path, format="pdf")

    assert "before" == path.read_text()


def test_a_scheduler_reports_in_every_format(registry, results) -> None:
    scheduler = TaskScheduler(registry)

    assert render(results, "json") == scheduler.report(results, "json")
    assert render(results, "text", verbose=True) == scheduler.report(results, verbose=True)


# What a report has to know of the run


def test_results_know_their_run(registry) -> None:
    before = datetime.now(UTC)
    results = run_graph(registry, max_concurrency=2, resources={"db": 3})

    assert before <= results.date <= datetime.now(UTC)
    assert (2, {"db": 3}) == (results.max_concurrency, results.resources)
    assert ["fetch", "load", "tell"] == results.graph.order
    assert results["fetch"].started_at == results.started_at


def test_threads_are_no_resource_of_the_users() -> None:
    registry = TaskRegistry()
    for at in range(41):
        registry.task(f"t{at}", resources=["db"])(lambda: None)

    assert {"db": 50} == run_graph(registry, resources={"db": 50}).resources


def test_a_path_is_answered(results, tmp_path) -> None:
    assert isinstance(results.save(tmp_path / "run.txt"), Path)
