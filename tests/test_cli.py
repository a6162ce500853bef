"""The command line: what it finds, prints and answers, and how it takes wrong use."""

import errno
import io
import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portable_sched import __main__, _jobs, _options, clear_registry, demo
from portable_sched.cli import command_line

PIPELINE = """
    from portable_sched import Priority, task

    @task(retries=2, priority=Priority.HIGH)
    async def fetch(date: str) -> str:
        '''Get the rows.

        From where they are.
        '''
        return f"rows of {date}"

    @task(after=[fetch])
    def tidy() -> None: ...

    @task
    async def load(fetch: str) -> int:
        print("loaded", fetch)
        return len(fetch)
"""
SIMPLE = """
    from portable_sched import task

    @task
    async def fetch() -> int:
        return 1

    @task
    async def load(fetch: int) -> None:
        print("loaded", fetch)
"""
FAILING = """
    from portable_sched import task

    @task
    async def fetch() -> int:
        raise OSError("no network")

    @task
    async def load(fetch: int) -> None: ...

    @task
    async def other() -> None: ...
"""

Write = Callable[..., None]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; what is imported from it is forgotten at the end."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        file = getattr(sys.modules[name], "__file__", None)
        if file and Path(file).is_relative_to(tmp_path):
            del sys.modules[name]


@pytest.fixture
def write(folder: Path) -> Write:
    """Write files, by name; a name that has no suffix is one of Python."""

    def write_files(**files: str) -> None:
        for name, text in files.items():
            (folder / f"{name}.py").write_text(textwrap.dedent(text), "utf-8")

    return write_files


@pytest.fixture
def settle(folder: Path) -> Callable[[str], Path]:
    """Write what a project has settled."""

    def write_settings(text: str) -> Path:
        file = folder / "pyproject.toml"
        file.write_text(f"[tool.portable-sched]\n{textwrap.dedent(text)}", "utf-8")
        return file

    return write_settings


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def statuses(self) -> dict[str, str]:
        """Of a text report, each task's status."""
        return dict(re.findall(r"^(\S+) +([A-Z]{6,}) ", self.out, re.MULTILINE))


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """Carry out a command line in this process."""

    def carry_out(*arguments: str) -> Said:
        code = command_line(arguments)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return carry_out


# Running


def test_a_file_is_run_and_reported(write, say) -> None:
    write(pipeline=SIMPLE)
    said = say("run", "pipeline.py")

    assert ("", 0) == (said.err, said.code)
    assert said.out.startswith("loaded 1\nTask   Status     Attempts  Duration  Error\n")
    assert {"fetch": "COMPLETED", "load": "COMPLETED"} == said.statuses


def test_a_module_is_found_in_the_current_folder(write, say) -> None:
    write(some_pipeline=SIMPLE)

    assert 0 == say("run", "some_pipeline").code


@pytest.mark.parametrize("backend", ["asyncio", "trio", "uvloop"])
def test_it_runs_on_every_backend(write, say, backend) -> None:
    if backend == "uvloop" and sys.platform == "win32":
        pytest.skip("there is no uvloop for Windows")
    write(
        pipeline="""
            from anyio.lowlevel import current_token
            from portable_sched import task

            @task
            async def look() -> None:
                print(type(current_token().native_token).__module__)
        """
    )
    said = say("run", "pipeline.py", "--backend", backend)

    assert 0 == said.code
    assert said.out.startswith(backend)


def test_a_failed_task_is_exit_code_1(write, say) -> None:
    write(pipeline=FAILING)
    said = say("run", "pipeline.py")

    assert 1 == said.code
    assert {"fetch": "FAILED", "load": "FAILED", "other": "COMPLETED"} == said.statuses


def test_tracebacks_of_tasks_are_shown_where_they_are_asked_for(write, say) -> None:
    write(pipeline=FAILING)

    said = say("run", "pipeline.py")
    assert "Traceback" not in said.out
    assert "--traceback shows where tasks failed.\n" == said.err
    said = say("run", "pipeline.py", "--traceback")
    assert '    raise OSError("no network")\n' in said.out
    assert "Where the " in said.out
    assert "" == said.err


def test_targets_run_with_what_they_need(write, say) -> None:
    write(pipeline=FAILING)
    said = say("run", "pipeline.py", "other")

    assert ({"other": "COMPLETED"}, 0) == (said.statuses, said.code)


def test_inputs_are_text_or_json(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task
            async def show(date, count, empty) -> None:
                print([date, count, empty])
        """
    )
    said = say(
        "run", "pipeline.py", "--input=date=2026=01", "--input=count:=[1,2]", "--input=empty="
    )

    assert said.out.startswith("['2026=01', [1, 2], '']\n")


def test_limits_are_set(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task(resources=["db"])
            async def hold() -> None: ...
        """
    )
    options = ["-j3", "--resource", "db=2", "--resource=gpu=1", "--report=json"]
    run = json.loads(say("run", "pipeline.py", *options).out)

    assert (3, {"db": 2, "gpu": 1}) == (run["run"]["max_concurrency"], run["run"]["resources"])


@pytest.mark.parametrize(
    ("policy", "status"), [("continue", "COMPLETED"), ("DRAIN", "CANCELLED")], ids=str
)
def test_a_policy_is_set(write, say, policy, status) -> None:
    write(pipeline=FAILING)

    assert status == say("run", "pipeline.py", "-j1", "--on-failure", policy).statuses["other"]


def test_an_order_is_shuffled_and_can_be_repeated(write, say) -> None:
    write(pipeline=SIMPLE)

    assert "order: shuffle, seed 7" in say("run", "pipeline.py", "--shuffle=7").out
    assert "order: shuffle, seed 3" in say("run", "pipeline.py", "--seed=3").out
    assert re.search(r"order: shuffle, seed \d+", say("run", "pipeline.py", "--shuffle").out)


def test_a_resource_is_added_to_those_that_a_scheduler_has(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskScheduler

            scheduler = TaskScheduler([], resources={"db": 1, "gpu": 2})
        """
    )
    run = json.loads(say("run", "pipeline.py", "--resource=db=4", "--report=json").out)

    assert {"db": 4, "gpu": 2} == run["run"]["resources"]


def test_a_task_may_ask_its_scheduler_how_things_stand(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry, TaskScheduler

            registry = TaskRegistry()

            @registry.task
            async def ask() -> None:
                print(dict(scheduler.status_snapshot())["ask"].name)
                scheduler.stop()

            @registry.task(depends_on=[ask])
            async def never() -> None: ...

            scheduler = TaskScheduler(registry)
        """
    )
    said = say("run", "pipeline.py", "-j1", "--on-failure=drain")

    assert said.out.startswith("RUNNING\n")
    assert "CANCELLED" == said.statuses["never"]


def test_progress_is_shown_where_it_is_asked_for(write, say) -> None:
    write(pipeline=SIMPLE)

    assert "2 tasks" in say("run", "pipeline.py", "--progress").err
    assert "" == say("run", "pipeline.py", "--no-progress").err


def test_a_task_may_run_its_scheduler_itself(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry, TaskScheduler

            registry = TaskRegistry()

            @registry.task
            async def inner() -> None: ...

            @registry.task
            async def outer() -> None:
                await scheduler.run([inner])

            scheduler = TaskScheduler(registry)
        """
    )
    said = say("run", "pipeline.py", "outer")

    assert {"outer": "COMPLETED"} == said.statuses
    assert 1 == said.out.count("wall time")


@pytest.mark.parametrize(
    ("ci", "terminal", "shown"),
    [("", True, True), ("false", True, True), ("true", True, False), ("", False, False)],
)
def test_without_a_word_a_person_at_a_terminal_sees_progress(
    monkeypatch, ci, terminal, shown
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    monkeypatch.setenv("CI", ci)

    assert shown is _options.wants_progress(None, {})
    assert _options.wants_progress(None, {"progress": True})
    assert not _options.wants_progress(False, {"progress": True})  # noqa: FBT003 - as the option has it


# Where the tasks are


def test_a_registry_a_scheduler_a_list_and_a_function_are_named(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry, TaskScheduler

            first, second = TaskRegistry(), TaskRegistry()

            @first.task
            async def one() -> None: ...

            @second.task
            async def two() -> None: ...

            @second.task
            async def three() -> None: ...

            both = [one, two]
            slow = TaskScheduler(second, max_concurrency=1)

            def make():
                return first

            class Holder:
                inner = second
        """
    )

    def tasks_of(name: str) -> set[str]:
        return set(say("run", f"pipeline.py:{name}").statuses)

    assert {"one"} == tasks_of("first")
    assert {"one", "two"} == tasks_of("both")
    assert {"two", "three"} == tasks_of("slow")
    assert {"one"} == tasks_of("make")
    assert {"two", "three"} == tasks_of("Holder.inner")


def test_the_only_registry_is_found_and_a_scheduler_counts_more(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry

            registry = again = TaskRegistry()

            @registry.task
            async def one() -> None: ...
        """,
        other="""
            from portable_sched import TaskScheduler
            from pipeline import registry

            scheduler = TaskScheduler(registry, max_concurrency=1)
        """,
    )

    assert {"one"} == set(say("run", "pipeline.py").statuses)
    assert {"one"} == set(say("run", "other.py").statuses)


def test_the_settings_of_a_scheduler_are_kept(write, say) -> None:
    write(
        pipeline="""
            import anyio
            from portable_sched import TaskRegistry, TaskScheduler

            registry = TaskRegistry()
            for name in "abc":
                @registry.task(name)
                async def rest() -> None:
                    await anyio.sleep(0)
            scheduler = TaskScheduler(registry, max_concurrency=1)
        """
    )

    assert "1 at once" in say("run", "pipeline.py").out


def test_a_schedulers_own_progress_is_enough(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskScheduler, task
            from portable_sched.progress import Progress

            @task
            async def fetch() -> None: ...

            scheduler = TaskScheduler(observers=[Progress()])
        """
    )

    assert 1 == say("run", "pipeline.py", "--progress").err.count("Run finished")


def test_what_a_file_defines_is_in_a_module_of_its_name(write, say) -> None:
    write(
        pipeline="""
            import pickle
            from portable_sched import task

            class Row: ...

            @task
            async def send() -> None:
                assert type(pickle.loads(pickle.dumps(Row()))) is Row
        """
    )

    assert 0 == say("run", "pipeline.py").code


def test_a_registry_without_tasks_does_not_stand_in_the_way(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry

            unused, used = TaskRegistry(), TaskRegistry()

            @used.task
            async def one() -> None: ...
        """,
        other="from portable_sched import TaskRegistry\nunused = TaskRegistry()\n"
        f"{textwrap.dedent(SIMPLE)}",
    )

    assert {"one"} == set(say("run", "pipeline.py").statuses)
    assert {"fetch", "load"} == set(say("run", "other.py").statuses)


def test_a_file_in_a_package_is_a_part_of_it(write, say, folder) -> None:
    package = folder / "company" / "jobs"
    package.mkdir(parents=True)
    (folder / "company" / "__init__.py").touch()
    (package / "__init__.py").touch()
    (package / "rows.py").write_text("ROWS = [1, 2]\n")
    (package / "nightly.py").write_text(
        "from portable_sched import TaskRegistry\n"
        "from .rows import ROWS\n"
        "registry = TaskRegistry()\n"
        "@registry.task\n"
        "async def count() -> None:\n"
        "    print(__name__, len(ROWS))\n"
    )
    path = str(Path("company", "jobs", "nightly.py"))

    assert say("run", path).out.startswith("company.jobs.nightly 2\n")
    assert 0 == say("run", "company.jobs.nightly").code
    assert 0 == say("run", path).code
    assert "Expected tasks" in say("run", str(Path("company", "jobs", "__init__.py"))).err
    assert "company.jobs" in sys.modules


def test_a_file_with_the_name_of_another_module_is_refused(write, say, folder) -> None:
    write(pipeline=SIMPLE, calendar=SIMPLE)
    (folder / "below").mkdir()
    (folder / "below" / "pipeline.py").write_text("")

    assert (
        "portable-sched: Python itself has a module 'calendar'. Give 'calendar.py' another name.\n"
    ) == say("run", "calendar.py").err
    assert 0 == say("run", "pipeline.py").code
    second = str(Path("below/pipeline.py"))
    assert (
        f"portable-sched: Expected module 'pipeline' to be {second!r}, but it is "
        f"{folder / 'pipeline.py'}. Give one of them another name.\n"
    ) == say("run", "below/pipeline.py").err


REFUSED_PLACES = {
    "nothing": (
        [],
        (
            "Expected a module or a file, as in portable-sched run "
            "pipeline.py, got none. Or settle it: "
            "target = 'pipeline.py' under [tool.portable-sched] in pyproject.toml."
        ),
    ),
    "no such file": (["pipelin.py"], "No file 'pipelin.py'. Did you mean 'pipeline.py'?"),
    "no such folder": (["nowhere/x.py"], f"No file {str(Path('nowhere/x.py'))!r}."),
    "no such module": (
        ["nowhere"],
        (
            "No module 'nowhere' in the current folder or installed, and no "
            "file of that name. Write a "
            "file with its suffix, as in pipeline.py."
        ),
    ),
    "no tasks": (
        ["empty.py"],
        (
            "Expected tasks in empty.py, found none. Decorate a function with @task, or name the "
            "registry, as in empty.py:registry."
        ),
    ),
    "no such name": (
        ["several.py:frist"],
        "No 'frist' in several.py. Did you mean 'first'?",
    ),
    "no such name in it": (["several.py:first.x"], "No 'x' in several.py."),
    "several registries": (
        ["several.py"],
        (
            "Expected one registry or scheduler in several.py, found first, "
            "second. Say which, as in "
            "several.py:first."
        ),
    ),
    "an empty registry": (["several.py:first"], "Expected tasks in several.py:first, found none."),
    "a number": (
        ["several.py:number"],
        (
            "Expected several.py:number to be a TaskRegistry, a TaskScheduler, "
            "a list of tasks, or a "
            "function that returns one of these, got int."
        ),
    ),
    "a list of numbers": (
        ["several.py:numbers"],
        (
            "several.py:numbers: Expected tasks to be a TaskRegistry or a list "
            "of decorated functions, "
            "got 1 (int) in the list. Pass the function itself, or registry[name]."
        ),
    ),
    "a task": (
        ["pipeline.py:load"],
        (
            "Expected pipeline.py:load to be what has tasks, got the task 'load'. Write it after a "
            "space, as in portable-sched run pipeline.py load."
        ),
    ),
    "an async function": (
        ["several.py:make"],
        (
            "Expected several.py:make to be a TaskRegistry, a TaskScheduler, a list of tasks, or a "
            "function that returns one of these, got coroutine."
        ),
    ),
    "an empty name": (
        ["a..b"],
        "Expected the name of a module, or a file that is there, got 'a..b'.",
    ),
    "a file with two dots": (
        ["two.dots.py"],
        "Expected a file of Python, with one dot in its name, got 'two.dots.py'.",
    ),
    "a text file": (
        ["notes.txt"],
        "Expected a file of Python, with one dot in its name, got 'notes.txt'.",
    ),
    "no such target": (
        ["pipeline.py", "lod"],
        "The target 'lod' is not registered. Did you mean 'load'?",
    ),
    "a policy": (
        ["pipeline.py", "--on-failure=stop"],
        (
            "Invalid value for '--on-failure': 'stop' is not one of 'continue', 'drain', 'cancel'. "
            "Try portable-sched run --help."
        ),
    ),
    "a backend": (
        ["pipeline.py", "--backend=curio"],
        (
            "Invalid value for '--backend': 'curio' is not one of 'asyncio', 'trio', 'uvloop'. "
            "Try portable-sched run --help."
        ),
    ),
    "a resource": (
        ["pipeline.py", "--resource=db=0"],
        "Expected --resource to be a name and its units, as in db=4, got 'db=0'.",
    ),
    "an input without a value": (
        ["pipeline.py", "--input=date"],
        "Expected --input to be a name and a text, as in date=2026-01-01, got 'date'.",
    ),
    "an input that is no JSON": (
        ["pipeline.py", "--input=date:=x"],
        "Expected JSON after := of --input 'date:=x': Expecting value: line 1 column 1 (char 0)",
    ),
    "an input that nobody takes": (
        ["pipeline.py", "--input=dat=x"],
        "The input 'dat' is taken by no parameter of a task; one with a default keeps that.",
    ),
    "a format": (
        ["pipeline.py", "--report=pdf"],
        (
            "Expected --report to be one of text, json, html, junit, trace, "
            "mermaid, dot, or a file "
            "name that ends in one of .txt, .json, .html, .xml, .trace.json, .mmd, .dot, got 'pdf'."
        ),
    ),
    "a format of a file": (
        ["pipeline.py", "--report=pdf=run.pdf"],
        "Expected --report to be one of text, json, html, junit, trace, mermaid, dot, got 'pdf'.",
    ),
    "a file without a name": (
        ["pipeline.py", "--report=html="],
        "Expected the name of a file after --report html=, got none.",
    ),
    "a file in no folder": (
        ["pipeline.py", "--report=nowhere/run.html"],
        "Expected a file in a folder that is there after --report, got 'nowhere/run.html'.",
    ),
    "two reports to be printed": (
        ["pipeline.py", "--report=json", "--report=html"],
        (
            "Expected one report to be printed, got json and html. Write the "
            "others to files, as in "
            "--report html=run.html."
        ),
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED_PLACES.values(), ids=REFUSED_PLACES)
def test_wrong_use_is_told_in_one_line(write, say, folder, arguments, message) -> None:
    write(
        pipeline=SIMPLE,
        empty="",
        several="""
            from portable_sched import TaskRegistry

            first, second = TaskRegistry(), TaskRegistry()
            number, numbers = 3, [1, 2]

            async def make(): ...
        """,
    )
    (folder / "notes.txt").write_text("nothing")
    (folder / "two.dots.py").write_text("")
    said = say("run", *arguments)

    assert ("", f"portable-sched: {message}\n", 2) == (said.out, said.err, said.code)


def test_a_graph_that_cannot_be_run_is_told_in_one_line(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task(depends_on=["b"])
            async def a() -> None: ...

            @task(depends_on=["a"])
            async def b() -> None: ...
        """
    )
    expected = "portable-sched: Tasks form a cycle: a -> b -> a.\n"

    for command in ["run", "check", "graph", "list", "plan"]:
        said = say(command, "pipeline.py")
        assert (expected, 2) == (said.err, said.code)


def test_what_a_module_raises_is_told_with_its_place(write, say, folder) -> None:
    write(
        pipeline="import below\n",
        below="""
            def divide():
                return 1 / 0

            divide()
        """,
    )
    place = "below.py, line 3: ZeroDivisionError: division by zero"
    said = say("run", "pipeline.py")

    assert (f"portable-sched: {place} (--traceback shows where)\n", 2) == (said.err, said.code)
    said = say("run", "pipeline.py", "--traceback")
    assert said.err.startswith("Traceback (most recent call last):\n")
    assert said.err.endswith(f"ZeroDivisionError: division by zero\nportable-sched: {place}\n")
    assert "importlib" not in said.err
    assert "_loading" not in said.err


def test_what_a_module_raises_is_told_with_what_led_to_it(write, say) -> None:
    write(
        pipeline="""
            try:
                import below
            except KeyError as error:
                raise ValueError("two\\nlines") from error
        """,
        below="{}['x']\n",
    )
    said = say("run", "pipeline.py", "--traceback").err

    assert said.endswith("\nportable-sched: pipeline.py, line 5: ValueError: two lines\n")
    assert "    raise ValueError(" in said
    assert "KeyError: 'x'\n\nThe above exception was the direct cause" in said
    assert "importlib" not in said


def test_an_error_within_a_library_is_told_where_the_users_code_called_it(write, say) -> None:
    write(pipeline="import json\nx = 1\njson.loads('{')\n")

    assert say("run", "pipeline.py").err.startswith(
        "portable-sched: pipeline.py, line 3: JSONDecodeError: "
    )


def test_a_syntax_error_of_no_file_is_told_where_it_is_raised(write, say) -> None:
    write(pipeline="import ast\nast.parse('x = (')\n")

    assert say("run", "pipeline.py").err.startswith(
        "portable-sched: pipeline.py, line 2: SyntaxError: "
    )


def test_a_module_that_leaves_is_told(write, say) -> None:
    write(pipeline="import sys\nsys.exit(0)\n", make="def tasks():\n    raise SystemExit(3)\n")

    assert (
        "portable-sched: pipeline.py, line 2: SystemExit: 0 (--traceback shows where)\n"
        == say("run", "pipeline.py").err
    )
    assert 2 == say("run", "make.py:tasks").code


def test_ctrl_c_while_a_module_is_imported_interrupts(write, say) -> None:
    write(pipeline="raise KeyboardInterrupt\n")
    said = say("run", "pipeline.py")

    assert ("", "", 130) == (said.out, said.err, said.code)


def test_a_function_that_wants_something_makes_no_tasks(write, say) -> None:
    write(pipeline="def make(day): ...\n")

    assert (
        "portable-sched: Expected pipeline.py:make to be a function without parameters that "
        "returns a registry, a scheduler or a list: missing a required argument: 'day'.\n"
    ) == say("run", "pipeline.py:make").err


def test_what_the_library_refuses_is_told_where_the_users_code_says_it(write, say, folder) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task(retries=0)
            async def fetch() -> None: ...
        """
    )

    assert say("run", "pipeline.py").err.startswith(
        "portable-sched: pipeline.py, line 4: Task 'fetch': expected retries to be"
    )


def test_a_syntax_error_is_told_with_its_line(write, say, folder) -> None:
    write(pipeline="x = 1\ndef broken(:\n    pass\n")

    assert (
        "portable-sched: pipeline.py, line 2: SyntaxError: invalid syntax "
        "(--traceback shows where)\n"
    ) == say("run", "pipeline.py").err


def test_what_a_module_cannot_import_is_its_own_affair(write, say, folder) -> None:
    write(pipeline="import no_such_library\n")

    for name in ["pipeline.py", "pipeline"]:
        assert (
            "portable-sched: pipeline.py, line 1: ModuleNotFoundError: No module named "
            "'no_such_library' (--traceback shows where)\n"
        ) == say("run", name).err


def test_what_a_function_raises_that_should_make_tasks_is_told(write, say, folder) -> None:
    write(pipeline="def make():\n    raise LookupError('no plan')\n")

    assert (
        "portable-sched: pipeline.py, line 2: LookupError: no plan (--traceback shows where)\n"
    ) == say("run", "pipeline.py:make").err


def test_what_a_function_of_python_itself_raises_is_told(write, say) -> None:
    write(pipeline="make = iter([]).__next__\n")

    assert ("portable-sched: pipeline.py:make: StopIteration (--traceback shows where)\n") == say(
        "run", "pipeline.py:make"
    ).err


# Reports


def test_reports_are_written_to_files_and_the_text_is_printed(write, say, folder) -> None:
    write(pipeline=SIMPLE)
    said = say("run", "pipeline.py", "--report", "json=out.txt", "--report", "run.xml")

    assert {"fetch": "COMPLETED", "load": "COMPLETED"} == said.statuses
    assert "wrote out.txt\nwrote run.xml\n" == said.err
    assert "load" in [
        task["name"] for task in json.loads((folder / "out.txt").read_text())["tasks"]
    ]
    assert "testsuite" in (folder / "run.xml").read_text()


def test_another_report_can_be_printed_instead(write, say) -> None:
    write(pipeline=FAILING)
    said = say("run", "pipeline.py", "--report", "mermaid")

    assert said.out.startswith("flowchart TD\n")


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            "nowhere/run.html",
            "Expected a file in a folder that is there after --report, got 'nowhere/run.html'.",
        ),
        ("html=.", "Expected a file after --report, got the folder '.'."),
    ],
)
def test_a_place_where_no_report_can_be_is_refused_before_anything_runs(
    write, say, place, message
) -> None:
    write(pipeline="raise AssertionError")

    assert f"portable-sched: {message}\n" == say("run", "pipeline.py", "--report", place).err


def test_of_reports_that_cannot_be_written_the_others_are(write, say, folder) -> None:
    write(
        pipeline="""
            from pathlib import Path
            from portable_sched import task

            @task
            async def stand_in_the_way() -> None:
                Path("run.html").mkdir()
        """
    )
    said = say("run", "pipeline.py", "--report", "run.html", "--report", "run.json")

    assert ({"stand_in_the_way": "COMPLETED"}, 2) == (said.statuses, said.code)
    assert said.err.startswith("wrote run.json\nportable-sched: The report cannot be written: ")
    assert "stand_in_the_way" in (folder / "run.json").read_text()


def test_who_reads_no_further_costs_no_file(write, folder, monkeypatch) -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(errno.EPIPE, "closed")

    write(pipeline=FAILING)
    monkeypatch.setattr(sys, "stdout", Closed())
    arguments = ["run", "pipeline.py", "--report", "text", "--report", "run.json"]

    assert 1 == command_line(arguments)
    assert "fetch" in (folder / "run.json").read_text()


def test_a_program_without_an_output_writes_its_files(write, folder, monkeypatch) -> None:
    write(pipeline=FAILING)
    monkeypatch.setattr(sys, "stdout", None)

    assert 1 == command_line(["run", "pipeline.py", "--report", "run.json"])
    assert "fetch" in (folder / "run.json").read_text()


def test_a_name_that_the_terminal_cannot_write_is_marked(write, monkeypatch, tmp_path) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task("größe")
            async def measure() -> None: ...
        """
    )
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "argv", ["portable-sched", "run", "pipeline.py"])
        assert 0 == __main__.main()

    assert "gr??e" in (tmp_path / "out").read_text("ascii")


def test_what_ends_the_program_leaves_the_reports_behind(write, say, folder) -> None:
    write(
        pipeline="""
            import sys
            from portable_sched import task

            @task
            async def leave() -> None:
                sys.exit(7)
        """
    )
    said = say("run", "pipeline.py", "--report", "run.json")

    assert ({"leave": "CANCELLED"}, 7) == (said.statuses, said.code)
    assert "leave" in (folder / "run.json").read_text()


def test_what_a_task_says_as_it_leaves_is_said(write, say) -> None:
    write(
        pipeline="""
            import sys
            from portable_sched import task

            @task
            async def leave() -> None:
                sys.exit("the disk is full")
        """
    )
    said = say("run", "pipeline.py")

    assert ("the disk is full\n", 1) == (said.err, said.code)


@pytest.mark.parametrize("code", ["", "0", "False"])
def test_a_task_that_leaves_has_not_completed(write, say, code) -> None:
    write(
        pipeline=f"""
            import sys
            from portable_sched import task

            @task
            async def leave() -> None:
                sys.exit({code})
        """
    )
    said = say("run", "pipeline.py")

    assert ("", 1) == (said.err, said.code)


def test_a_task_that_raises_a_keyboard_interrupt_interrupts(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task
            async def leave() -> None:
                raise KeyboardInterrupt
        """
    )
    said = say("run", "pipeline.py")

    assert ({"leave": "CANCELLED"}, 130) == (said.statuses, said.code)


# Looking


def test_tasks_are_listed(write, say) -> None:
    write(pipeline=PIPELINE)

    assert [
        "Task   Priority  Attempts  Depends on     What it does",
        "fetch  HIGH      2                        Get the rows.",
        "tidy   MEDIUM    1         fetch (after)",
        "load   MEDIUM    1         fetch",
    ] == say("list", "pipeline.py").out.splitlines()
    # What a target comes after is no need of it.
    assert ["tidy  MEDIUM    1"] == say("list", "pipeline.py", "tidy").out.splitlines()[1:]


def test_a_partial_is_listed_with_what_its_function_says(write, say) -> None:
    write(
        pipeline="""
            from functools import partial
            from portable_sched import task

            def measure(at):
                '''Measure it.'''

            task("north")(partial(measure, 1))
        """
    )

    assert (
        "north  MEDIUM    1                     Measure it."
        == (say("list", "pipeline.py").out.splitlines()[1])
    )


def test_a_list_fits_a_terminal(write, say, monkeypatch) -> None:
    write(pipeline=PIPELINE)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "30")

    told = re.sub(r"\x1b\[\d*m", "", say("list", "pipeline.py").out)
    assert 30 >= max(map(len, told.splitlines()))


def test_names_mean_nothing_to_the_terminal(write, say, monkeypatch) -> None:
    write(
        pipeline=r"""
            from portable_sched import task

            @task("[bold]x\x1b[2J :smile:")
            async def measure() -> None: ...
        """
    )

    assert "[bold]x�[2J :smile:" in say("list", "pipeline.py").out
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "[bold]x�[2J :smile:" in say("list", "pipeline.py").out


def test_a_graph_is_checked_without_being_run(write, say) -> None:
    write(pipeline=PIPELINE)
    said = say("check", "pipeline.py")

    assert [
        "3 tasks, 1 dependency",
        "levels: 2; longest path: fetch -> load",
        "input: date, of fetch",
    ] == said.out.splitlines()
    assert ("", 0) == (said.err, said.code)


def test_what_is_missing_is_said_as_the_command_line_has_it(write, say) -> None:
    write(pipeline=PIPELINE, other=FAILING.replace("@task", '@task(resources=["gpu"])'))

    assert say("run", "pipeline.py").err.endswith(" Here an input is --input NAME=TEXT.\n")
    clear_registry()
    assert say("run", "other.py").err.endswith(" Here that is --resource NAME=UNITS.\n")


def test_types_that_do_not_fit_are_told_once_and_the_run_goes_on(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task
            async def fetch() -> int: ...

            @task
            async def load(fetch: str) -> None: ...
        """
    )
    said = say("run", "pipeline.py", "load")

    assert 1 == said.err.count("warning: ") == len(said.err.splitlines())
    assert 0 == said.code


def test_what_looks_like_a_misspelt_dependency_is_said(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task
            async def fetch() -> int: ...

            @task
            async def load(fetsh: int) -> None: ...
        """
    )

    assert "input: fetsh, of load. Did you mean 'fetch'?\n" in say("check", "pipeline.py").out


def test_a_long_path_is_told_by_its_ends(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            for at in range(30):
                @task(f"t{at}", depends_on=[f"t{at - 1}"] if at else [])
                async def step() -> None: ...
        """
    )

    assert (
        "longest path: t0 -> t1 -> t2 -> t3 -> t4 -> t5 -> … 18 more … -> t24 -> t25"
        in say("check", "pipeline.py").out
    )


def test_types_that_do_not_fit_are_a_warning(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task
            async def fetch() -> int: ...

            @task
            async def load(fetch: str) -> None: ...
        """
    )
    for command in ["check", "run", "plan"]:
        said = say(command, "pipeline.py")
        assert re.fullmatch("warning: .*\n", said.err)
        assert 0 == said.code


def test_a_resource_that_there_is_not_is_found_by_a_check(write, say) -> None:
    write(
        pipeline="""
            from portable_sched import task

            @task(resources=["db"])
            async def load() -> None: ...
        """
    )

    assert 2 == say("check", "pipeline.py").code
    assert 0 == say("check", "pipeline.py", "--resource=db=1", "-j3").code


def test_a_check_can_be_of_nothing(write, say) -> None:
    write(pipeline="from portable_sched import TaskScheduler\nnone = TaskScheduler([])\n")

    assert "0 tasks, 0 dependencies\n" == say("check", "pipeline.py:none").out


def test_a_graph_is_drawn(write, say) -> None:
    write(pipeline=PIPELINE)

    assert "tidy\n└─ fetch (after)\nload\n└─ fetch\n" == say("graph", "pipeline.py").out
    assert say("graph", "pipeline.py", "--format=mermaid").out.startswith("flowchart TD\n")
    assert say("graph", "pipeline.py", "load", "--format", "DOT").out.startswith("digraph {\n")


def test_a_graph_is_coloured_by_an_earlier_run(write, say) -> None:
    write(pipeline=FAILING)
    say("run", "pipeline.py", "--report", "run.json")

    assert "load: failed\n" in say("graph", "--results", "run.json").out
    assert "load: failed\n" in say("graph", "pipeline.py", "--results", "run.json").out
    assert (
        "portable-sched: Expected no targets with --results, which has the graph of its run.\n"
    ) == say("graph", "pipeline.py", "load", "--results", "run.json").err


def test_a_format_of_graphs_is_refused_if_there_is_none(write, say) -> None:
    write(pipeline=SIMPLE)

    assert (
        "portable-sched: Expected format to be one of 'tree', 'mermaid', 'dot', 'svg', got 'png'.\n"
    ) == say("graph", "pipeline.py", "--format", "png").err


def test_a_graph_is_drawn_to_a_file_or_the_lack_of_graphviz_is_told(
    write, say, folder, monkeypatch
) -> None:
    write(pipeline=SIMPLE)
    monkeypatch.setattr("portable_sched.reporting.dot.which", lambda name: None)
    said = say("graph", "pipeline.py", "--svg", "graph.svg")

    assert said.err.startswith("portable-sched: Expected the program `dot` of Graphviz")
    monkeypatch.setattr("portable_sched.reporting.dot.svg", lambda graph, results: "<svg/>")
    assert "wrote graph.svg\n" == say("graph", "pipeline.py", "--svg", "graph.svg").err
    assert "<svg/>" == (folder / "graph.svg").read_text()


def test_a_run_is_planned(write, say) -> None:
    write(pipeline=SIMPLE)

    assert "max_concurrency  takes  at least  busy" in say("plan", "pipeline.py").out
    lines = say("plan", "pipeline.py", "--limits", "3, none").out.splitlines()
    assert ["3", "none"] == [line.split()[0] for line in lines[1:3]]


def test_a_plan_takes_the_seconds_of_an_earlier_run(write, say) -> None:
    write(pipeline=SIMPLE)
    say("run", "pipeline.py", "--report", "run.json")

    assert "for want of" in say("plan", "pipeline.py").out
    assert "for want of" not in say("plan", "pipeline.py", "--seconds", "run.json").out


@pytest.mark.parametrize("limits", ["", "0", "4,x", "-1"])
def test_limits_that_are_none_are_refused(write, say, limits) -> None:
    write(pipeline=SIMPLE)

    assert (
        "portable-sched: Expected --limits to be whole numbers of at least 1, or none, as in "
        f"4,8,none, got {limits!r}.\n"
    ) == say("plan", "pipeline.py", f"--limits={limits}").err


def test_a_file_that_is_no_report_is_refused(write, say, folder) -> None:
    write(pipeline=SIMPLE)
    (folder / "run.json").write_text("[]")

    assert say("plan", "pipeline.py", "--seconds", "run.json").err.startswith(
        "portable-sched: run.json: "
    )
    assert 2 == say("explain", "load", "nowhere.json").code


def test_a_task_of_an_earlier_run_is_explained(write, say) -> None:
    write(pipeline=FAILING)
    say("run", "pipeline.py", "--report", "run.json")

    assert (
        "'load' was not started: it depends on 'fetch', which failed: OSError: no network\n"
    ) == say("explain", "load", "run.json").out
    assert (
        "portable-sched: run.json: No task 'lod' in these results. Did you mean 'load'?\n"
    ) == say("explain", "lod", "run.json").err


# What a project has settled


def test_a_project_settles_what_is_run_and_how(write, say, settle, folder, monkeypatch) -> None:
    write(
        pipeline="""
            import anyio
            from anyio.lowlevel import current_token
            from portable_sched import task

            for name in "abc":
                @task(name, resources=["db"])
                async def hold() -> None:
                    await anyio.sleep(0)

            @task(depends_on=list("abc"))
            async def look() -> None:
                print(type(current_token().native_token).__module__)
                raise ValueError

            @task(depends_on=list("abc"))
            async def late() -> None: ...
        """
    )
    settle(
        """
        target = "pipeline.py"
        backend = "trio"
        max-concurrency = 1
        on-failure = "drain"
        resources = { db = 2 }
        report = ["text", "run.json"]
        progress = false
        """
    )
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")
    said = say("run")

    assert said.out.startswith("trio")
    assert "1 at once" in said.out
    assert "CANCELLED" == said.statuses["late"]
    # Beside the settings, as the target is.
    assert said.err.startswith(f"wrote {folder / 'run.json'}\n")


def test_the_command_line_counts_more(write, say, settle) -> None:
    write(pipeline=SIMPLE, other=FAILING)
    settle('target = "other.py"\non-failure = "drain"')

    assert {"fetch": "COMPLETED", "load": "COMPLETED"} == say("run", "pipeline.py").statuses
    clear_registry()
    assert "COMPLETED" == say("run", "--on-failure=continue", "-j1").statuses["other"]


def test_with_a_settled_place_the_words_are_tasks(write, say, settle) -> None:
    write(pipeline=FAILING)
    settle('target = "pipeline.py"')

    assert {"fetch", "load"} == set(say("run", "load").statuses)
    assert {"fetch", "load", "other"} == set(say("run", "load", "other").statuses)
    assert 2 == say("run", "lo-ad").code
    assert "fetch\n" in say("graph").out


def test_with_a_settled_place_one_word_is_a_task_whatever_modules_there_are(
    write, say, settle, folder
) -> None:
    write(
        pipeline="""
            from portable_sched import TaskRegistry

            registry = TaskRegistry()

            @registry.task
            async def test() -> None: ...

            @registry.task
            async def other() -> None: ...
        """
    )
    (folder / "below").mkdir()
    (folder / "below" / "jobs.py").write_text("from pipeline import registry\n")
    settle('target = "pipeline.py"')

    assert {"test"} == set(say("run", "test").statuses)
    assert {"test", "other"} == set(say("run", "below.jobs").statuses)
    assert {"test", "other"} == set(say("run", "pipeline:registry").statuses)


def test_a_settled_module_is_found_from_below(write, say, settle, folder, monkeypatch) -> None:
    write(some_jobs=SIMPLE)
    settle('target = "some_jobs"\nreport = ["html=run.html", "json"]')
    (folder / "below").mkdir()
    monkeypatch.chdir(folder / "below")

    assert 0 == say("run").code
    assert (folder / "run.html").exists()


def test_a_settled_report_without_a_file_is_refused(write, say, settle) -> None:
    settle('target = "pipeline.py"\nreport = ["html="]')
    write(pipeline=SIMPLE)

    assert "after --report html=, got none" in say("run").err


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("max-concurrency", "0", "a whole number of at least 1, got 0"),
        ("target", "3", "a module or file, as in 'pipeline.py', got 3"),
        ("backend", "'curio'", "'asyncio', 'trio' or 'uvloop', got 'curio'"),
        ("on-failure", "'stop'", "'continue', 'drain' or 'cancel', got 'stop'"),
        (
            "resources",
            "{ db = 'x' }",
            "a table of whole numbers, as in { db = 4 }, got {'db': 'x'}",
        ),
        ("report", "'html'", "a list of formats, as in ['html=run.html'], got 'html'"),
        ("progress", "1", "true or false, got 1"),
    ],
)
def test_settings_that_are_none_are_refused(say, settle, key, value, message) -> None:
    settle(f"{key} = {value}")
    said = say("run", "pipeline.py")

    assert (
        f"portable-sched: pyproject.toml: expected {key} of [tool.portable-sched] to be {message}."
        "\n"
    ) == said.err
    assert 2 == said.code


def test_an_unknown_setting_is_answered_with_the_nearest(say, settle) -> None:
    settle("max_concurrency = 3")

    assert (
        "portable-sched: pyproject.toml: [tool.portable-sched] has no setting 'max_concurrency'. "
        "Did you mean 'max-concurrency'?\n"
    ) == say("run", "pipeline.py").err


def test_a_file_of_settings_that_is_none_is_refused(say, folder) -> None:
    file = folder / "pyproject.toml"
    file.write_text("[tool")
    assert say("run").err.startswith("portable-sched: pyproject.toml: ")

    file.write_bytes(b"# \xff")
    assert say("run").err.startswith("portable-sched: pyproject.toml: 'utf-8' codec")

    file.write_text("[tool]\nportable-sched = 3\n")
    assert (
        "portable-sched: pyproject.toml: expected [tool.portable-sched] to be a table.\n"
        == say("run").err
    )


@pytest.mark.parametrize("text", ["[project]\nname = 'x'\n", "tool = 3\n", "[tool.other]\n"])
def test_a_pyproject_without_settings_settles_nothing(write, say, folder, text) -> None:
    (folder / "pyproject.toml").write_text(text)
    write(pipeline=SIMPLE)

    assert 0 == say("run", "pipeline.py").code


# The demo


@pytest.fixture
def small_library(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of three packages."""
    library = folder / "lib"
    for name, source in {
        "big/one.py": "class A:\n    def f(self): ...\n",
        "big/two.py": "async def g(): ...\n" * 3,
        "big/test/three.py": "x\n" * 100,
        "small.py": "x = 1\n",
        "broken.py": "x = (\n",
        "site-packages/other.py": "",
        "notes.txt": "",
    }.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(source)
    monkeypatch.setattr(demo.sysconfig, "get_path", lambda name: str(library))
    return library


def test_the_demo_counts_and_reports(small_library, say, folder) -> None:
    said = say("demo", "--report", "run.json", "--no-progress")

    assert 0 == said.code
    lines = [line.split() for line in said.out.splitlines() if not line.startswith("The standard")]
    assert ["package", "modules", "lines", "functions", "classes"] in lines
    assert ["big", "2", "5", "4", "1"] in lines
    assert ["all", "3", "3", "6", "4", "1"] in lines
    assert "4 tasks: 4 completed;" in said.out
    assert "\nWhere the " in said.out
    assert {} == said.statuses
    assert "big" in (folder / "run.json").read_text()
    assert "To see its timeline" not in said.out


def test_a_demo_without_a_report_tells_of_one(small_library, say) -> None:
    assert say("demo", "--no-progress").out.endswith(
        "\nTo see its timeline: portable-sched demo --report census.html\n"
    )


def test_a_demo_that_fails_has_no_tables(small_library, say, monkeypatch) -> None:
    def fail(*_: object) -> None:
        raise OSError("unreadable")

    monkeypatch.setattr(demo, "_read_package", fail)
    said = say("demo", "--no-progress", "--report", "text")

    assert 1 == said.code
    assert "OSError: unreadable" in said.out
    assert "package" not in said.out


# The command itself


def test_the_version_is_told(say) -> None:
    assert re.fullmatch(r"portable_sched \d+\.\d+\.\d+\n", say("--version").out)


def test_help_has_examples_and_exit_codes(say) -> None:
    told = say("--help")

    assert 0 == told.code
    assert "130 interrupted" in told.out
    assert "run pipeline.py" in say("run", "--help").out


def test_without_a_command_there_is_help_and_it_is_wrong_use(say) -> None:
    told = say()

    assert 2 == told.code
    assert told.out == say("--help").out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rn"], "No such command 'rn'. Did you mean 'run'? Try portable-sched --help."),
        (["explain", "x"], "Missing argument 'FILE'. Try portable-sched explain --help."),
        (["run", "--shuffle=x"], "Expected --shuffle=SEED to have a whole number, got 'x'."),
        (["run", "--shuffle="], "Expected --shuffle=SEED to have a whole number, got ''."),
    ],
)
def test_what_is_not_understood_is_told_in_one_line(say, arguments, message) -> None:
    said = say(*arguments)

    assert ("", f"portable-sched: {message}\n", 2) == (said.out, said.err, said.code)


@pytest.mark.parametrize("option", ["--frobnicate", "-jx", "-j0"])
def test_an_option_that_is_not_understood_is_told_in_one_line(say, option) -> None:
    said = say("run", option)

    assert 2 == said.code
    assert re.fullmatch(r"portable-sched: .*\. Try portable-sched run --help\.\n", said.err)


def test_a_shell_is_offered_the_names_of_tasks(write) -> None:
    write(pipeline=SIMPLE)

    class Context:
        def __init__(self, place: str) -> None:
            self.params = {"place": place}

    assert ["load"] == _options._task_names(Context("pipeline.py"), "lo")
    assert [] == _options._task_names(Context("nowhere.py"), "lo")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("run pipeline.py ", ["fetch", "load"]),
        ("run --backend t", ["trio"]),
        ("run --report h", ["html"]),
        ("graph --format m", ["mermaid"]),
    ],
)
def test_bash_is_offered_what_fits(write, monkeypatch, capsys, words, offered) -> None:
    write(pipeline=f"print('hello')\n{textwrap.dedent(SIMPLE)}")
    monkeypatch.setenv("_PORTABLE_SCHED_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", f"portable-sched {words}")
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" "))))

    assert 0 == command_line([])
    out, err = capsys.readouterr()
    assert (offered, "") == (out.split(), err)


def test_the_package_is_a_program(write, monkeypatch, capsys) -> None:
    write(pipeline=SIMPLE)
    monkeypatch.setattr(sys, "argv", ["portable-sched", "check", "pipeline.py"])

    assert 0 == __main__.main()
    assert "2 tasks, 1 dependency" in capsys.readouterr().out


def test_the_output_may_be_a_stream_of_somebody_else(write, monkeypatch) -> None:
    write(pipeline=SIMPLE)
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "argv", ["portable-sched", "check", "pipeline.py"])

    assert 0 == __main__.main()
    assert "2 tasks, 1 dependency" in stream.getvalue()


def run_python(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=folder,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
        check=False,
    )


def test_it_runs_as_a_process(write, folder) -> None:
    write(pipeline=FAILING)
    done = run_python("-m", "portable_sched", "run", "pipeline.py", folder=folder)

    assert ("--traceback shows where tasks failed.\n", 1) == (done.stderr, done.returncode)
    assert "OSError: no network" in done.stdout


def test_without_typer_it_says_what_to_install(folder) -> None:
    program = (
        "import sys; sys.modules['typer'] = None; sys.argv[1:] = ['demo']\n"
        "from portable_sched.__main__ import main; sys.exit(main())"
    )
    done = run_python("-c", program, folder=folder)

    assert (
        "portable_sched.cli needs typer, which is not installed: "
        "pip install 'portable_sched[cli]'\n"
    ) == done.stderr
    assert 2 == done.returncode


def test_a_backend_that_is_not_installed_is_told(write, say, monkeypatch) -> None:
    write(pipeline=SIMPLE)

    def missing(*arguments: object, **options: object) -> None:
        raise ModuleNotFoundError("No module named 'trio'")

    monkeypatch.setattr(_jobs.anyio, "run", missing)
    said = say("run", "pipeline.py", "--backend", "trio")

    assert (
        "portable-sched: The backend 'trio' is not installed: pip install 'portable_sched[trio]'\n"
    ) == said.err
