"""Which tasks a command line means: the module or file, and what in it has the tasks."""

import importlib
import importlib.util
import inspect
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from portable_sched import TaskRegistry, TaskScheduler, task
from portable_sched._errors import TaskError, did_you_mean, error_text, nearest_names

# Where Python and what is installed have their modules: whoever reads an error has written neither.
_LIBRARIES: Final = [
    Path(sysconfig.get_path(name)) for name in ("stdlib", "platstdlib", "purelib", "platlib")
]


class UsageError(Exception):
    """Something that was asked for cannot be done as it was asked for.

    Attributes:
        details: what `--traceback` shows: the user's own traceback; empty where there is none.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


def loaded(target: str) -> TaskScheduler:
    """A scheduler of the tasks that `MODULE_OR_FILE[:NAME]` names.

    Without a name: the one `TaskScheduler` or `TaskRegistry` at the top of the module; if there is
    none, all that was registered by `@task`. What is named may also be a list of tasks, or a
    function without parameters that returns one of these.

    Raises:
        UsageError: there is no such module, file or name, or there are no tasks; or the module
            raised an exception.
    """
    place, name = _split(target)
    module = _imported(place)
    if name:
        return _as_scheduler(target, _named(module, place, name))
    found = _candidates(module)
    if len(found) > 1:
        raise UsageError(
            f"Expected one registry or scheduler in {place}, found {', '.join(found)}. Say which, "
            f"as in {place}:{next(iter(found))}."
        )
    for candidate in found.values():
        return _as_scheduler(target, candidate)
    scheduler = TaskScheduler()
    if not scheduler.tasks:
        raise UsageError(
            f"Expected tasks in {place}, found none. Decorate a function with @task, or name the "
            f"registry, as in {place}:registry."
        )
    return scheduler


def names_a_place(target: str) -> bool:
    """Whether it is a file that there is, or a name with a dot or a colon that leads to a module.

    One word is none, since half the names of tasks are modules of Python's too: `test`, `copy`.
    """
    place, _ = _split(target)
    if _is_file(place):
        return True
    package, dot, _ = place.partition(".")
    if place == target and not dot:
        return False
    look_in(Path.cwd())
    # Of what stands in a package the package is imported, which may fail in any way.
    return package.isidentifier() and importlib.util.find_spec(package) is not None


def look_in(folder: Path) -> None:
    """Have modules looked for in a folder first."""
    if sys.path[:1] != [str(folder)]:
        sys.path.insert(0, str(folder))


def from_here(path: str) -> str:
    """A path as it is written in the current folder, if it leads to something there."""
    here = Path.cwd()
    return str(Path(path).relative_to(here)) if Path(path).is_relative_to(here) else path


def _split(target: str) -> tuple[str, str]:
    """The place and the name in it; a colon may also stand after the letter of a drive."""
    place, colon, name = target.rpartition(":")
    if not colon or not all(part.isidentifier() for part in name.split(".")):
        return target, ""
    return place, name


def _is_file(place: str) -> bool:
    return place.endswith(".py") or Path(place).is_file()


def _imported(place: str) -> ModuleType:
    if not _is_file(place) and not all(part.isidentifier() for part in place.split(".")):
        raise UsageError(f"Expected the name of a module, or a file that is there, got {place!r}.")
    try:
        return _from_file(Path(place)) if _is_file(place) else _from_module(place)
    except UsageError:
        raise
    except (Exception, SystemExit) as error:
        raise _broken(place, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = path.parent if path.parent.is_dir() else Path()
        nearest = nearest_names(path.name, [each.name for each in near.glob("*.py")])
        raise UsageError(f"No file {str(path)!r}.{did_you_mean(nearest)}")
    if path.suffix != ".py" or "." in path.stem:
        raise UsageError(f"Expected a file of Python, with one dot in its name, got {str(path)!r}.")
    folder, name = _as_module(path.resolve())
    if name.partition(".")[0] in sys.stdlib_module_names:
        # It would take the place of that one for everybody, us included.
        raise UsageError(
            f"Python itself has a module {name.partition('.')[0]!r}. Give {str(path)!r} another "
            "name."
        )
    look_in(folder)
    module = importlib.import_module(name)
    file = getattr(module, "__file__", None)
    if file is None or Path(file).resolve() != path.resolve():
        raise UsageError(
            f"Expected module {name!r} to be {str(path)!r}, but it is {file}. Give one of them "
            "another name."
        )
    return module


def _as_module(path: Path) -> tuple[Path, str]:
    """The folder in which to look for a file as a module, and the module's name.

    It is loaded under its own name, with that of its package if it has one: otherwise its relative
    imports would fail, and what it defines could not be sent to another process.
    """
    # A package itself is what its __init__.py is: under that name it would run twice.
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return folder, ".".join(names)


def _from_module(name: str) -> ModuleType:
    look_in(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        # What the module itself fails to import is its own affair.
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        raise UsageError(
            f"No module {name!r} in the current folder or installed, and no file of that name. "
            "Write a file with its suffix, as in pipeline.py."
        ) from None


def _broken(place: str, error: BaseException) -> UsageError:
    """What the user's code raised while it was imported or called, with the place where it did."""
    told = traceback.TracebackException.from_exception(error)
    ours = traceback.extract_tb(error.__traceback__)[-1:]
    # Without the frames that led to it: ours, and those of the import.
    own = [frame for frame in told.stack if not _is_of_the_import(frame.filename)]
    told.stack = traceback.StackSummary.from_list(own)
    text = " ".join(error_text(error).splitlines())
    if _is_ours(ours[0].filename) and isinstance(error, (TaskError, TypeError, ValueError)):
        # One of our refusals speaks for itself.
        text = str(error)
    where = place
    for frame in told.stack:
        # The last line that the user has written.
        if not _is_library(frame.filename) or where == place:
            where = f"{from_here(frame.filename)}, line {frame.lineno}"
    if isinstance(error, SyntaxError) and error.filename and Path(error.filename).is_file():
        where = f"{from_here(error.filename)}, line {error.lineno}"
        text = f"SyntaxError: {error.msg}"
    return UsageError(f"{where}: {text}", "".join(told.format()))


def _is_of_the_import(filename: str) -> bool:
    return (
        filename == __file__
        or filename.startswith("<frozen importlib")
        or (Path(filename).parent == Path(importlib.__file__).parent)
    )


def _is_ours(filename: str) -> bool:
    return Path(filename).is_relative_to(Path(__file__).parent)


def _is_library(filename: str) -> bool:
    return _is_ours(filename) or any(map(Path(filename).is_relative_to, _LIBRARIES))


def _candidates(module: ModuleType) -> dict[str, Any]:
    """The registries and schedulers at the top of a module, by name.

    Schedulers count more than registries, and those that are empty count if there is nothing else.
    """
    shared = getattr(task, "__self__", ())
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, (TaskScheduler, TaskRegistry)) and value is not shared
    }
    schedulers = {name: one for name, one in found.items() if isinstance(one, TaskScheduler)}
    filled = {name: one for name, one in found.items() if isinstance(one, TaskRegistry) and one}
    if not (schedulers or filled) and shared:
        return {}
    # One object may have several names.
    by_identity = {id(one): name for name, one in reversed((schedulers or filled or found).items())}
    return {name: found[name] for name in reversed(by_identity.values())}


def _named(module: ModuleType, place: str, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            nearest = did_you_mean(nearest_names(part, [*vars(value)] if value is module else []))
            raise UsageError(f"No {part!r} in {place}.{nearest}")
        value = getattr(value, part)
    return value


def _as_scheduler(target: str, found: Any) -> TaskScheduler:
    name = _task_name(found)
    if name is not None:
        place, _ = _split(target)
        raise UsageError(
            f"Expected {target} to be what has tasks, got the task {name!r}. Write it after a "
            f"space, as in portable-sched run {place} {name}."
        )
    if callable(found) and not isinstance(found, TaskRegistry):
        found = _called(target, found)
    if inspect.iscoroutine(found):
        found.close()
    if isinstance(found, TaskScheduler):
        return found
    if isinstance(found, TaskRegistry) or (
        isinstance(found, Iterable) and not isinstance(found, (str, bytes))
    ):
        try:
            scheduler = TaskScheduler(found)
        except (TaskError, TypeError, ValueError) as error:
            raise UsageError(f"{target}: {error}") from error
        if not scheduler.tasks:
            raise UsageError(f"Expected tasks in {target}, found none.")
        return scheduler
    raise UsageError(
        f"Expected {target} to be a TaskRegistry, a TaskScheduler, a list of tasks, or a function "
        f"that returns one of these, got {type(found).__name__}."
    )


def _task_name(found: Any) -> str | None:
    """The name of a single task, or of a function that is decorated as one."""
    try:
        return TaskScheduler([found]).tasks[0].name
    except (TypeError, AttributeError):
        # Some callables of Python's own are in no module.
        return None


def _called(target: str, function: Callable[..., Any]) -> Any:
    try:
        inspect.signature(function).bind()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"Expected {target} to be a function without parameters that returns a registry, a "
            f"scheduler or a list: {error}."
        ) from error
    try:
        return function()
    except (Exception, SystemExit) as error:
        raise _broken(target, error) from error
