"""The house itself: who may import whom, what is public, and what an import costs."""

import ast
import enum
import io
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import portable_sched

PACKAGE = Path(portable_sched.__file__).parent

# Imports go one way, from a module to those above it.
MAY_IMPORT: dict[str, set[str]] = {
    "_errors": set(),
    "_checks": set(),
    "_retries": {"_checks", "_errors"},
    "_parameters": set(),
    "_tasks": {"_checks", "_errors", "_parameters", "_retries"},
    "_registry": {"_checks", "_errors", "_parameters", "_retries", "_tasks"},
    "_dataflow": {"_errors", "_parameters", "_tasks"},
    "_sorting": {"_errors"},
    "_formats": set(),
    "_graph": {"_checks", "_dataflow", "_errors", "_formats", "_sorting", "_tasks"},
    "_results": {"_checks", "_errors", "_formats", "_graph", "_tasks"},
    "_log": set(),
    "_events": {"_log", "_results"},
    "_state": {"_graph", "_results", "_retries"},
    "_resources": {"_checks", "_graph", "_state", "_tasks"},
    "analysis": set(),
    "analysis.wording": {"_results"},
    "analysis.timeline": {"_results"},
    "analysis.plan": {
        *("_checks", "_graph", "_resources", "_results", "_state"),
        *("analysis.timeline", "analysis.wording"),
    },
    "analysis.explanation": {"_errors", "_results", "analysis.timeline", "analysis.wording"},
    "analysis.usage": set(),
    "analysis.breakdown": {
        *("_checks", "_resources", "_results"),
        *("analysis.plan", "analysis.timeline", "analysis.usage", "analysis.wording"),
    },
    "_watch": {"_errors", "_events", "_resources", "_results", "_state"},
    "_failures": {"_errors"},
    "_timeouts": {"_errors"},
    "_backend": set(),
    "_lifetimes": {"_backend", "_errors", "_tasks", "_timeouts"},
    "_pickling": set(),
    "_remote_failures": {"_errors", "_failures", "_pickling"},
    "_envelope": {"_backend", "_pickling", "_remote_failures"},
    "_transport": {"_envelope", "_errors", "_pickling", "_remote_failures", "_tasks"},
    "_any_executor": {"_log"},
    "_processes": {"_any_executor", "_checks"},
    "_standard_executors": {"_processes"},
    "_opened": {"_any_executor", "_transport"},
    "_supply": {
        *("_any_executor", "_backend", "_checks", "_errors", "_failures", "_log", "_opened"),
    },
    "_capacity": set(),
    "_pool": {
        *("_any_executor", "_backend", "_capacity", "_checks", "_envelope", "_errors", "_log"),
        *(
            "_opened",
            "_pickling",
            "_remote_failures",
            "_supply",
            "_tasks",
            "_timeouts",
            "_transport",
        ),
    },
    "_pools": {
        *("_backend", "_capacity", "_log", "_pool", "_standard_executors", "_supply", "_tasks"),
    },
    "_executors": {"_backend", "_envelope", "_log", "_pool", "_tasks", "_timeouts"},
    "_hooks": {"_executors", "_log", "_tasks"},
    "_engine": {"_backend", "_executors", "_failures", "_lifetimes", "_results", "_state"},
    "reporting.tracebacks": set(),
    "reporting.text": {
        *("_results", "analysis.breakdown", "analysis.explanation", "analysis.wording"),
        "reporting.tracebacks",
    },
    "reporting.recorded": {"_errors", "_tasks"},
    "reporting.document": {"_checks"},
    "reporting.json": {
        *("_checks", "_errors", "_graph", "_resources", "_results", "_tasks"),
        *("reporting.document", "reporting.recorded", "reporting.tracebacks"),
    },
    "reporting": {"_formats", "reporting.json"},
    "reporting.junit": {
        *("_errors", "_results", "analysis.explanation", "analysis.wording"),
        *("reporting.recorded", "reporting.tracebacks"),
    },
    "reporting.trace": {"_errors", "_results", "analysis.timeline"},
    "reporting.html": {
        *("_results", "_tasks", "analysis.breakdown", "analysis.explanation"),
        *("analysis.timeline", "analysis.wording", "reporting.recorded", "reporting.tracebacks"),
    },
    "reporting.picture": {"_graph", "_results", "analysis.breakdown", "analysis.wording"},
    "reporting.mermaid": {"_graph", "_results", "reporting.picture"},
    "reporting.dot": {"_graph", "_results", "reporting.picture"},
    "reporting.tree": {"_graph", "_results", "reporting.picture"},
    "reporting.notebook": {
        *("_graph", "_results", "reporting", "reporting.dot", "reporting.mermaid"),
        *("analysis.wording", "reporting.picture"),
    },
    "_preparing": {
        *("_dataflow", "_engine", "_events", "_executors", "_graph", "_hooks", "_lifetimes"),
        *("_pool", "_pools", "_resources", "_results", "_state", "_tasks", "_watch"),
    },
    "_scheduler": {
        *("_backend", "_checks", "_dataflow", "_engine", "_errors", "_events", "_formats"),
        *("_graph", "_hooks", "_pools", "_preparing", "_registry", "_resources", "_results"),
        *("_standard_executors", "_state", "_tasks"),
        *("analysis.breakdown", "analysis.explanation", "analysis.plan"),
    },
    "": {
        *("_dataflow", "_envelope", "_errors", "_events", "_graph", "_parameters", "_registry"),
        *("_results", "_retries", "_scheduler", "_state", "_tasks"),
    },
    "dask": {"_pickling", "_remote_failures"},
    "_contract": {"", "_any_executor", "_checks", "_envelope"},
    "testing": {"", "_contract", "_tasks"},
    "logs": {"", "_errors", "analysis.wording"},
    "_progress_places": set(),
    "progress": {
        *("", "_checks", "_errors", "_log", "_progress_places", "_results"),
        *("analysis.plan", "analysis.timeline", "analysis.wording"),
    },
    "demo": {""},
    "_loading": {"", "_errors"},
    "_settings": {"_errors", "_loading"},
    "_jobs": {"", "_backend", "_formats", "_loading", "analysis.wording", "progress"},
    "_options": {"", "_formats", "_jobs", "_loading", "_settings"},
    "cli": {
        *("", "_errors", "_formats", "_jobs", "_loading", "_options", "_settings"),
        *("analysis.explanation", "analysis.wording", "demo", "reporting"),
    },
    "__main__": {"cli"},
    "_current_span": {""},
    "otel": {"", "_current_span", "_errors"},
}

# Whose extra brings what; everything else needs anyio and the standard library alone.
FOREIGN = {
    "_envelope": {"cloudpickle"},
    "_pickling": {"cloudpickle"},
    "testing": {"trio"},  # it runs graphs under a backend's own virtual clock
    "progress": {"rich"},
    "dask": {"distributed", "tornado"},
    "_current_span": {"opentelemetry"},
    "otel": {"opentelemetry"},
    "_progress_places": {"rich"},
    "cli": {"rich", "typer"},
    "_options": {"typer"},
}

SPAWNING = {"create_task_group", "open_nursery", "start_soon", "create_task", "ensure_future"}

# More than this is no error in itself, and a reason to look for a seam.
MOST_LINES_OF_CODE = 350


def module_name(path: Path) -> str:
    """A module's name within the package: `reporting.text`; empty for the package itself."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda name: name or "portable_sched")


def tree_of(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text("utf-8"))


def imported_by(module: str) -> Iterator[str]:
    """Full names of what a module imports, wherever the import stands: in functions too."""
    package = ["portable_sched", *module.split(".")] if module else ["portable_sched"]
    if MODULES[module].name != "__init__.py":
        package.pop()
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            source = ".".join([*above, *filter(None, [node.module])])
            # `from . import _tasks` imports modules; `from ._tasks import task` does not.
            if source.removeprefix("portable_sched").strip(".") in {"", "reporting", "analysis"}:
                yield from (f"{source}.{alias.name}" for alias in node.names)
            else:
                yield source


def lines_of_code(source: str) -> int:
    """Lines that are neither empty, nor comment, nor docstring."""
    lines: set[int] = set()
    skipped = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        is_docstring = token.type == tokenize.STRING and token.line.lstrip().startswith('"""')
        if token.type not in skipped and not is_docstring:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines)


def run_python(program: str) -> str:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program], check=True, capture_output=True, text=True
    ).stdout


def modules_after(statement: str) -> set[str]:
    return set(run_python(f"import sys\n{statement}\nprint(*sys.modules)").split())


def is_part_of_anyio(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] == "anyio"


def anyio_in(modules: set[str]) -> str:
    """A statement that imports those of the modules that are anyio's."""
    return f"import {', '.join(name for name in modules if is_part_of_anyio(name))}"


# Imports


def test_every_module_stands_in_the_table() -> None:
    assert set(MAY_IMPORT) == set(MODULES)


@each_module
def test_a_module_imports_none_but_those_above_it(module) -> None:
    ours = {
        name.removeprefix("portable_sched").removeprefix(".")
        for name in imported_by(module)
        if name.split(".")[0] == "portable_sched"
    }
    # A public name of a package is no module of it.
    ours = {name if name in MODULES else name.rpartition(".")[0] for name in ours}

    assert set() == ours - MAY_IMPORT[module]


def test_the_table_has_no_circle() -> None:
    above: set[str] = set()
    for module, imported in MAY_IMPORT.items():
        assert set() == imported - above
        above.add(module)


@each_module
def test_a_module_imports_nothing_but_anyio_the_standard_library_and_its_extra(module) -> None:
    # The one of the standard library that only newer Pythons have.
    known = {*sys.stdlib_module_names, "annotationlib"}
    foreign = {name.split(".")[0] for name in imported_by(module)} - known

    assert set() == foreign - {"anyio", "portable_sched"} - FOREIGN.get(module, set())


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"testing"}))
def test_a_module_imports_neither_asyncio_nor_trio(module) -> None:
    assert set() == {name.split(".")[0] for name in imported_by(module)} & {"asyncio", "trio"}


@each_module
def test_none_but_the_engine_spawns(module) -> None:
    named = {
        name
        for node in ast.walk(tree_of(module))
        for name in [getattr(node, "attr", None), getattr(node, "id", None)]
        if name
    }

    assert (module == "_engine") is bool(named & SPAWNING)


def test_an_import_brings_in_nothing_but_anyio_and_the_standard_library() -> None:
    ours = modules_after("import portable_sched")
    anyio_alone = modules_after(anyio_in(ours))
    brought = {name.split(".")[0] for name in ours - anyio_alone}

    assert {"portable_sched"} == brought - sys.stdlib_module_names


@pytest.mark.parametrize(
    "module",
    [
        *("portable_sched.analysis", "portable_sched.reporting", "portable_sched.testing"),
        *("rich", "typer", "opentelemetry", "trio"),
        *("concurrent.futures", "difflib", "html", "json", "logging", "traceback", "xml"),
    ],
)
def test_an_import_does_not_bring_in_what_few_programs_need(module) -> None:
    ours = modules_after("import portable_sched")

    # What anyio needs is not for us to say; its older releases need more.
    assert module not in ours - modules_after(anyio_in(ours))


# Public names


def test_all_is_what_the_namespace_has() -> None:
    public = {
        name
        for name, value in vars(portable_sched).items()
        if not name.startswith("_") and not isinstance(value, type(portable_sched))
    }

    assert sorted(public) == sorted(portable_sched.__all__)


def test_all_is_sorted() -> None:
    assert sorted(portable_sched.__all__) == portable_sched.__all__


@pytest.mark.parametrize("name", portable_sched.__all__)
def test_a_public_name_is_at_home_in_the_package(name) -> None:
    value = getattr(portable_sched, name)
    # `task` is a method of the default registry, so its class is what has a home.
    home = getattr(value, "__self__", value)

    assert "portable_sched" == getattr(type(home) if home is not value else home, "__module__")  # noqa: B009 - mypy knows no __module__ of an object


@pytest.mark.parametrize("name", portable_sched.__all__)
def test_a_public_name_has_a_docstring_of_its_own(name) -> None:
    value = getattr(portable_sched, name)
    inherited = [base.__doc__ for base in getattr(value, "__mro__", [])[1:]]

    assert value.__doc__
    assert value.__doc__ not in inherited
    # A dataclass without a docstring gets its signature for one.
    assert not value.__doc__.startswith(f"{name}(")


def public_parts(definition: ast.ClassDef) -> Iterator[tuple[str, str | None]]:
    """Public methods and attributes of a class, each with its own docstring if it has one."""
    for node in definition.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            if node.name == "__init__":
                for assigned in ast.walk(node):
                    if isinstance(assigned, ast.Attribute) and isinstance(assigned.ctx, ast.Store):
                        yield assigned.attr, None
            is_overload = "overload" in [ast.unparse(each) for each in node.decorator_list]
            if not is_overload:
                yield node.name, ast.get_docstring(node)
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, None


@pytest.mark.parametrize(
    ("name", "part"),
    [
        pytest.param(node.name, part, id=f"{node.name}.{part[0]}")
        for module in MODULES
        for node in tree_of(module).body
        if isinstance(node, ast.ClassDef) and node.name in portable_sched.__all__
        for part in dict(public_parts(node)).items()
        if not part[0].startswith("_")
    ],
)
def test_a_public_part_of_a_public_class_is_documented(name, part) -> None:
    """By a docstring, or in the attributes of its class."""
    part_name, docstring = part

    assert docstring or f"{part_name}: " in getattr(portable_sched, name).__doc__


def test_enums_have_no_members_by_accident() -> None:
    assert ["HIGH", "MEDIUM", "LOW"] == list(portable_sched.Priority.__members__)
    assert issubclass(portable_sched.TaskStatus, enum.Enum)
    assert 5 == len(portable_sched.TaskStatus)
    assert ["CONTINUE", "DRAIN", "CANCEL"] == list(portable_sched.FailurePolicy.__members__)


# Modules


@each_module
def test_a_module_begins_with_its_idea_in_a_sentence(module) -> None:
    first_line = (ast.get_docstring(tree_of(module)) or "").splitlines()[0]

    assert first_line.endswith(".")


@each_module
def test_a_module_is_no_longer_than_one_idea(module) -> None:
    assert lines_of_code(MODULES[module].read_text("utf-8")) <= MOST_LINES_OF_CODE


def test_the_package_tells_type_checkers_that_it_has_types() -> None:
    assert (PACKAGE / "py.typed").is_file()
