"""Which tasks a command line means: the module or file, and what in it has the tasks."""

import importlib
import importlib.util
import sys
import traceback
from collections.abc import Callable, Iterable
from inspect import iscoroutine, signature
from pathlib import Path
from types import ModuleType
from typing import Any, Final

from portable_sched import TaskDef, TaskRegistry, TaskScheduler, task
from portable_sched._errors import TaskError, did_you_mean, error_text, nearest_names


class UsageError(Exception):
    """Something that was asked for cannot be done as it was asked for.

    Attributes:
        details: what `--traceback` shows: the user's own traceback; empty where there is none.
    """

    def __init__(self, message: str, details: str = "") -> None:
        super().__init__(message)
        self.details = details


# The names under which files were loaded: a file may be loaded again.
_FILES: Final[set[str]] = set()


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
        return _as_scheduler(target, _named(module, name))
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
    """Whether there is a file or a module of that name."""
    place, _ = _split(target)
    if _is_file(place):
        return True
    _look_in_current_folder()
    # Of what stands in a package the package is imported, which may fail in any way.
    package, _, _ = place.partition(".")
    return package.isidentifier() and importlib.util.find_spec(package) is not None


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
    except Exception as error:
        raise _broken(place, error) from error


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        near = path.parent if path.parent.is_dir() else Path()
        nearest = nearest_names(path.name, [each.name for each in near.glob("*.py")])
        raise UsageError(f"No file {str(path)!r}.{did_you_mean(nearest)}")
    folder = str(path.resolve().parent)
    package = _package_of(path.resolve())
    if package is not None:
        # As a part of its package, or its relative imports would fail.
        root, name = package
        if root not in sys.path:
            sys.path.insert(0, root)
        return importlib.import_module(name)
    # It would take the place of `json` or `rich` for everybody, us included.
    if path.stem in sys.modules and path.stem not in {*_FILES, "__main__"}:
        raise UsageError(
            f"{path} has the name of a module that is in use, {path.stem!r}. Name the file "
            "otherwise."
        )
    _FILES.add(path.stem)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    # Under its own name, or what it defines could not be sent to another process.
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"Expected a file of Python, whose name ends in .py, got {str(path)!r}.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[path.stem]
        raise
    return module


def _package_of(path: Path) -> tuple[str, str] | None:
    """The folder of the outermost package that a file is in, and its dotted name; None for none."""
    # A package itself is what its __init__.py is: under that name it would run twice.
    names = [] if path.stem == "__init__" else [path.stem]
    folder = path.parent
    while (folder / "__init__.py").is_file():
        names.insert(0, folder.name)
        folder = folder.parent
    return (str(folder), ".".join(names)) if folder != path.parent else None


def _from_module(name: str) -> ModuleType:
    _look_in_current_folder()
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


def _look_in_current_folder() -> None:
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _broken(place: str, error: Exception) -> UsageError:
    """What a module raised while it was imported, with the place where it did."""
    # Without the frames that led to it: ours, and those of the import.
    frames = traceback.extract_tb(error.__traceback__)
    own = [at for at, frame in enumerate(frames) if not _is_of_the_import(frame.filename)]
    text = error_text(error)
    where = place
    if isinstance(error, SyntaxError):
        where = f"{error.filename or place}, line {error.lineno}"
        text = f"SyntaxError: {error.msg}"
    elif own:
        # Where the user's code called us, if it is one of our refusals.
        last = [at for at in own if not _is_ours(frames[at].filename)][-1:] or own[-1:]
        where = f"{frames[last[0]].filename}, line {frames[last[0]].lineno}"
        if isinstance(error, (TaskError, TypeError, ValueError)) and _is_ours(frames[-1].filename):
            text = str(error)
    details = "".join(
        [
            "Traceback (most recent call last):\n",
            *traceback.format_list([frames[at] for at in own]),
            *traceback.format_exception_only(error),
        ]
    )
    return UsageError(f"{where}: {text}", details)


def _is_of_the_import(filename: str) -> bool:
    return (
        filename == __file__
        or filename.startswith("<frozen importlib")
        or (Path(filename).parent == Path(importlib.__file__).parent)
    )


def _is_ours(filename: str) -> bool:
    return Path(__file__).parent in Path(filename).parents


def _candidates(module: ModuleType) -> dict[str, Any]:
    """The registries and schedulers at the top of a module, by name; schedulers count more."""
    shared = getattr(task, "__self__", None)
    found = {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, (TaskScheduler, TaskRegistry)) and value is not shared
    }
    schedulers = {name: one for name, one in found.items() if isinstance(one, TaskScheduler)}
    # One object may have several names.
    by_identity = {id(one): name for name, one in reversed((schedulers or found).items())}
    return {name: found[name] for name in reversed(by_identity.values())}


def _named(module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            nearest = did_you_mean(nearest_names(part, [*vars(value)] if value is module else []))
            raise UsageError(f"No {part!r} in {module.__name__}.{nearest}")
        value = getattr(value, part)
    return value


def _as_scheduler(target: str, found: Any) -> TaskScheduler:
    if callable(found) and not isinstance(found, (TaskRegistry, TaskDef)):
        found = _called(target, found)
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


def _called(target: str, function: Callable[..., Any]) -> Any:
    try:
        signature(function).bind()
    except (TypeError, ValueError) as error:
        raise UsageError(
            f"Expected {target} to be a function without parameters that returns a registry, a "
            f"scheduler or a list: {error}. To run one task, write its name after a space."
        ) from error
    try:
        found = function()
    except Exception as error:
        raise _broken(target, error) from error
    if iscoroutine(found):
        found.close()
        raise UsageError(
            f"Expected {target} to be a function that returns a registry, a scheduler or a list, "
            "got an async function. To run one task, write its name after a space."
        )
    return found
