"""The exceptions: their tree, their words, their parts, and that they travel."""

import copy
import pickle
from typing import Any

import pytest

from portable_sched import (
    CyclicDependencyError,
    DependencyError,
    DependencyFailedError,
    DuplicateTaskError,
    ExecutorError,
    InputError,
    LifetimeError,
    NoRetry,
    NotPicklableError,
    ParameterError,
    RemoteTaskError,
    ResourceError,
    TaskCancelledError,
    TaskError,
    TaskScheduler,
    TaskTimeoutError,
    UnknownExecutorError,
    UnknownTargetError,
    WorkerDiedError,
)

# One line for each message there is: the error, its text, its parts.
ERRORS: list[tuple[TaskError, str, dict[str, Any]]] = [
    (
        DependencyError("load", "other"),
        "Task 'load' depends on 'other', which is not registered.",
        {"task": "load", "dependency": "other", "nearest": ()},
    ),
    (
        DependencyError("load", "fetsh", ["fetch"]),
        "Task 'load' depends on 'fetsh', which is not registered. Did you mean 'fetch'?",
        {"task": "load", "dependency": "fetsh", "nearest": ("fetch",)},
    ),
    (
        DependencyError("load", "fetsh", ["fetch", "fetch2"]),
        (
            "Task 'load' depends on 'fetsh', which is not registered. "
            "Did you mean 'fetch' or 'fetch2'?"
        ),
        {"task": "load", "dependency": "fetsh", "nearest": ("fetch", "fetch2")},
    ),
    (
        CyclicDependencyError(["a", "b", "c", "a"]),
        "Tasks form a cycle: a -> b -> c -> a.",
        {"path": ("a", "b", "c", "a")},
    ),
    (
        DuplicateTaskError("load", "app.files.load", "app.tables.load"),
        (
            "Task name 'load' belongs to app.files.load already, so app.tables.load cannot have "
            "it. Give one of them another name: @task(name=...)."
        ),
        {"task": "load", "existing": "app.files.load", "refused": "app.tables.load"},
    ),
    (
        UnknownExecutorError("load", "cpus", ["process", "cpu"], ["cpu"]),
        (
            "Task 'load' is to run in the executor 'cpus', which the scheduler does not have; it "
            "has 'process', 'cpu'. Did you mean 'cpu'?"
        ),
        {
            "task": "load",
            "dependency": "cpus",
            "known": ("process", "cpu"),
            "nearest": ("cpu",),
        },
    ),
    (
        UnknownExecutorError("load", "farm", ["process", "thread"]),
        (
            "Task 'load' is to run in the executor 'farm', which the scheduler does not have; it "
            "has 'process', 'thread'. Write TaskScheduler(executors={'farm': ...})."
        ),
        {"task": "load", "dependency": "farm", "known": ("process", "thread"), "nearest": ()},
    ),
    (
        UnknownExecutorError("load", "interpreter", ["process", "thread"]),
        (
            "Task 'load' is to run in the executor 'interpreter', which the scheduler does not "
            "have; it has 'process', 'thread'. Interpreters need Python 3.14 or newer."
        ),
        {
            "task": "load",
            "dependency": "interpreter",
            "known": ("process", "thread"),
            "nearest": (),
        },
    ),
    (
        RemoteTaskError("load", "app.Odd", "no such row", "Traceback ..."),
        "Task 'load' raised in a worker: app.Odd: no such row",
        {"task": "load", "kind": "app.Odd", "text": "no such row", "traceback": "Traceback ..."},
    ),
    (
        RemoteTaskError("load", "SystemExit", "", ""),
        "Task 'load' raised in a worker: SystemExit",
        {"task": "load", "kind": "SystemExit", "text": "", "traceback": ""},
    ),
    (
        WorkerDiedError("load", "cpu", ["load"]),
        "A worker of the executor 'cpu' died while running: load.",
        {"task": "load", "executor": "cpu", "running": ("load",), "remark": ""},
    ),
    (
        WorkerDiedError("load", "cpu", ["load", "fetch"], "It is broken now."),
        "A worker of the executor 'cpu' died while running: load, fetch. It is broken now.",
        {
            "task": "load",
            "executor": "cpu",
            "running": ("load", "fetch"),
            "remark": "It is broken now.",
        },
    ),
    (
        NotPicklableError("load", "cpu", "the result", "TypeError: no", "Return plain data."),
        (
            "Task 'load' runs in the executor 'cpu', and the result cannot get there or back by "
            "pickling: TypeError: no. Return plain data."
        ),
        {
            "task": "load",
            "executor": "cpu",
            "part": "the result",
            "reason": "TypeError: no",
            "remark": "Return plain data.",
        },
    ),
    (
        ExecutorError("load", "cpu", "it was shut down."),
        "Task 'load' could not run, because of the executor 'cpu': it was shut down.",
        {"task": "load", "executor": "cpu", "reason": "it was shut down."},
    ),
    (
        TaskTimeoutError("load", 1.5),
        "Task 'load' took longer than its timeout of 1.5 s.",
        {"task": "load", "timeout": 1.5, "remark": ""},
    ),
    (
        TaskTimeoutError("load", 60.0),
        "Task 'load' took longer than its timeout of 60 s.",
        {"task": "load", "timeout": 60.0, "remark": ""},
    ),
    (
        TaskTimeoutError("load", 60.0, "It was in its teardown."),
        "Task 'load' took longer than its timeout of 60 s. It was in its teardown.",
        {"task": "load", "timeout": 60.0, "remark": "It was in its teardown."},
    ),
    (
        ParameterError("load", "fetsh", ["fetch"]),
        (
            "Task 'load' has a parameter 'fetsh' that nothing fills: no task and no input of this "
            "run has that name, and it has no default. Did you mean 'fetch'?"
        ),
        {"task": "load", "dependency": "fetsh", "nearest": ("fetch",)},
    ),
    (
        ParameterError("load", "rows"),
        (
            "Task 'load' has a parameter 'rows' that nothing fills: no task and no input of this "
            "run has that name, and it has no default. Give it by run(inputs={'rows': ...}), or "
            "name a task with ResultOf."
        ),
        {"task": "load", "dependency": "rows", "nearest": ()},
    ),
    (
        ResourceError("load", "gpu", 1),
        (
            "Task 'load' asks for the resource 'gpu', which the scheduler does not have. "
            "Write TaskScheduler(resources={'gpu': ...})."
        ),
        {"task": "load", "dependency": "gpu", "asked": 1, "available": None, "nearest": ()},
    ),
    (
        ResourceError("load", "bd", 2, nearest=["db"]),
        (
            "Task 'load' asks for the resource 'bd', which the scheduler does not have. "
            "Did you mean 'db'?"
        ),
        {"task": "load", "dependency": "bd", "asked": 2, "available": None, "nearest": ("db",)},
    ),
    (
        ResourceError("load", "db", 5, 4),
        (
            "Task 'load' asks for 5 of the resource 'db', and the scheduler has 4, so it could "
            "never start."
        ),
        {"task": "load", "dependency": "db", "asked": 5, "available": 4, "nearest": ()},
    ),
    (
        InputError("dat", nearest=["date"]),
        (
            "The input 'dat' is taken by no parameter of a task; one with a default keeps that. "
            "Did you mean 'date'?"
        ),
        {"task": "run()", "dependency": "dat", "is_task": False, "nearest": ("date",)},
    ),
    (
        InputError("fetch", is_task=True),
        "The input 'fetch' has the name of a task. Give one of them another name.",
        {"task": "run()", "dependency": "fetch", "is_task": True, "nearest": ()},
    ),
    (
        UnknownTargetError("repport", ["report"]),
        "The target 'repport' is not registered. Did you mean 'report'?",
        {"task": "run()", "dependency": "repport", "nearest": ("report",)},
    ),
    (
        LifetimeError("load", "did not yield"),
        (
            "Task 'load' is an async generator and did not yield. It has to yield once: what "
            "comes before is its set-up, what it yields its result, the rest its teardown."
        ),
        {"task": "load", "problem": "did not yield"},
    ),
    (NoRetry("closed"), "closed", {}),
    (
        DependencyFailedError("load", "fetch", "fetch", "ValueError: no rows"),
        "Dependency 'fetch' failed: ValueError: no rows",
        {
            "task": "load",
            "dependency": "fetch",
            "root_cause": "fetch",
            "reason": "ValueError: no rows",
        },
    ),
    (
        DependencyFailedError("load", "transform", "fetch", "ValueError: no rows"),
        "Dependency 'transform' failed, because 'fetch' failed: ValueError: no rows",
        {
            "task": "load",
            "dependency": "transform",
            "root_cause": "fetch",
            "reason": "ValueError: no rows",
        },
    ),
    (
        TaskCancelledError("load"),
        (
            "Task 'load' was cancelled from within: it cancelled itself, or awaited something that "
            "was cancelled."
        ),
        {"task": "load"},
    ),
]

IDS = [f"{type(error).__name__}-{number}" for number, (error, _, _) in enumerate(ERRORS)]

each_error = pytest.mark.parametrize("error", [error for error, _, _ in ERRORS], ids=IDS)


def parts_of(error: BaseException) -> dict[str, Any]:
    return {name: part for name, part in vars(error).items() if name != "__notes__"}


@pytest.mark.parametrize(("error", "text"), [(error, text) for error, text, _ in ERRORS], ids=IDS)
def test_an_error_says(error: TaskError, text: str) -> None:
    assert text == str(error)


@pytest.mark.parametrize(
    ("error", "parts"), [(error, parts) for error, _, parts in ERRORS], ids=IDS
)
def test_the_parts_of_the_message_are_attributes(error: TaskError, parts: dict[str, Any]) -> None:
    assert parts == parts_of(error)


@each_error
def test_every_error_is_a_task_error(error: TaskError) -> None:
    assert isinstance(error, TaskError)
    assert issubclass(type(error).__bases__[0], TaskError)


def test_every_error_stands_in_the_table_above() -> None:
    direct = TaskError.__subclasses__()
    all_of_them = {*direct, *(each for one in direct for each in one.__subclasses__())}

    assert {each for each in all_of_them if each.__module__ == "portable_sched"} == {
        type(error) for error, _, _ in ERRORS
    }


def test_a_timeout_of_ours_is_a_timeout_error_too() -> None:
    assert isinstance(TaskTimeoutError("load", 1.0), TimeoutError)


@each_error
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_survives_pickling(error: TaskError, protocol: int) -> None:
    unpickled = pickle.loads(pickle.dumps(error, protocol))

    assert type(error) is type(unpickled)
    assert str(error) == str(unpickled)
    assert parts_of(error) == parts_of(unpickled)


@each_error
@pytest.mark.parametrize("copied_by", [copy.copy, copy.deepcopy])
def test_an_error_survives_copying(error: TaskError, copied_by: Any) -> None:
    copied = copied_by(error)

    assert error is not copied
    assert type(error) is type(copied)
    assert str(error) == str(copied)
    assert parts_of(error) == parts_of(copied)


def test_notes_survive_pickling() -> None:
    error = TaskTimeoutError("load", 1.0)
    error.add_note("while the database was restarted")

    assert error.__notes__ == pickle.loads(pickle.dumps(error)).__notes__


class PathError(DependencyError):
    """As a user would add to what we raise."""

    def __init__(self, task: str, dependency: str, nearest: tuple[str, ...] = ()) -> None:
        super().__init__(task, dependency, nearest)
        self.path = f"{task}/{dependency}"

    def __str__(self) -> str:
        return f"{super().__str__()} Looked at {self.path}."


def test_an_error_can_be_subclassed_and_still_be_pickled() -> None:
    error = pickle.loads(pickle.dumps(PathError("load", "fetsh", ("fetch",))))

    assert (
        "Task 'load' depends on 'fetsh', which is not registered. Did you mean 'fetch'? "
        "Looked at load/fetsh." == str(error)
    )
    assert parts_of(PathError("load", "fetsh", ("fetch",))) == parts_of(error)


def test_a_duplicate_error_names_functions_by_module_and_qualified_name() -> None:
    error = DuplicateTaskError.between("load", test_an_error_says, parts_of)

    assert f"{__name__}.test_an_error_says" == error.existing
    assert f"{__name__}.parts_of" == error.refused


def test_a_duplicate_error_shows_objects_without_a_name_by_their_repr() -> None:
    error = DuplicateTaskError.between("load", {"an": "object"}, parts_of)

    assert "{'an': 'object'}" == error.existing


@each_error
def test_an_error_is_shown_in_tracebacks_as_users_import_it(error: TaskError) -> None:
    assert "portable_sched" == type(error).__module__


def test_a_callable_without_a_module_has_a_name_too() -> None:
    with pytest.raises(TypeError, match=r"^Function <method-wrapper .+> is not a task yet\."):
        TaskScheduler([iter([]).__next__])
