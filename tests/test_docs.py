"""Documentation runs: examples in docstrings, programs in the README, and its commands."""

import ast
import doctest
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import portable_sched

PACKAGE = Path(portable_sched.__file__).parent
# Beside the tests in a checkout and an sdist; they may also have been copied somewhere alone.
ROOT = Path(__file__).parent.parent

DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def beside_the_tests(name: str) -> str:
    """The text of a file of the checkout; the test is skipped where it is not there."""
    path = ROOT / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the tests")
    return path.read_text("utf-8")


# Docstrings


def examples() -> Iterator[doctest.DocTest]:
    """The examples of every docstring there is.

    Found by `ast`, because doctest's own finder passes over whatever says that it is at home in
    another module, as our public names do.
    """
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        module = module.removesuffix(".__init__")
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            docstring = ast.get_docstring(node) if isinstance(node, DOCUMENTED) else None
            if docstring and ">>>" in docstring:
                name = getattr(node, "name", "")
                yield doctest.DocTestParser().get_doctest(
                    docstring,
                    {"__name__": "__main__"},
                    f"{module}.{name}".strip("."),
                    str(path),
                    getattr(node, "lineno", 1),
                )


EXAMPLES = list(examples())


def test_there_are_examples_to_run() -> None:
    assert EXAMPLES


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.name}:{example.lineno}"
)
def test_the_example_in_a_docstring_runs_as_it_stands(example) -> None:
    lines: list[str] = []
    result = doctest.DocTestRunner().run(example, out=lines.append)

    assert 0 == result.failed, "".join(lines)
    assert result.attempted > 0


@pytest.mark.parametrize(
    "example", EXAMPLES, ids=lambda example: f"{example.name}:{example.lineno}"
)
def test_what_an_example_uses_it_imports_from_the_package(example) -> None:
    """So that it can be pasted."""
    source = "".join(each.source for each in example.examples)

    assert re.search(r"^from portable_sched(\.\w+)? import ", source, re.MULTILINE)


# The README

PROGRAM = re.compile(
    r"^```python\n(?P<source>.*?)^```\n(?:\n```text\n(?P<output>.*?)^```$)?",
    re.MULTILINE | re.DOTALL,
)
DURATION = re.compile(r"\d+\.\d{4}s")

README = (ROOT / "README.md").read_text("utf-8") if (ROOT / "README.md").is_file() else ""
PROGRAMS = [(found["source"], found["output"]) for found in PROGRAM.finditer(README)]

each_program = pytest.mark.parametrize(
    ("source", "output"), PROGRAMS, ids=[f"program-{number}" for number in range(len(PROGRAMS))]
)


def run_program(source: str, folder: Path) -> str:
    """What a program prints. It runs away from the checkout, and warnings are errors."""
    path = folder / "program.py"
    path.write_text(source, "utf-8")
    environment = os.environ | {"PYTHONIOENCODING": "utf-8", "PYTHONPATH": str(PACKAGE.parent)}
    finished = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        check=False,
        capture_output=True,
        encoding="utf-8",
        cwd=folder,
        env=environment,
    )

    assert "" == finished.stderr
    assert 0 == finished.returncode
    return finished.stdout


def on_trio(source: str) -> str:
    """The same program with trio where it has asyncio."""
    return re.sub(r"asyncio\.run\((.+?)\(\)\)", r"trio.run(\1)", source).replace(
        "import asyncio\n", "import trio\n"
    )


def without_durations(text: str) -> str:
    return DURATION.sub("0.0000s", text)


def test_the_readme_has_a_program() -> None:
    beside_the_tests("README.md")

    assert PROGRAMS


@each_program
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_program_in_the_readme_prints_what_stands_below_it(
    source, output, backend, tmp_path
) -> None:
    if "portable_sched.dask" in source:
        pytest.importorskip("distributed")
    if backend == "trio":
        source = on_trio(source)
        assert "asyncio" not in re.sub(r"#.*", "", source)
    printed = run_program(source, tmp_path)

    if output is not None:
        assert without_durations(output) == without_durations(printed)


def test_ci_runs_the_test_command_of_the_readme() -> None:
    command = beside_the_tests(".ci/run").splitlines()[-1]
    readme = beside_the_tests("README.md")
    blocks = re.findall(r"^```(?:console|sh|bash)\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)

    assert command in [block.strip() for block in blocks]


@pytest.mark.parametrize(
    "target", sorted(set(re.findall(r"\]\((?!https?://)([^)#]+)", README))), ids=str
)
def test_what_the_readme_links_to_is_there(target) -> None:
    # What is in the package may be installed, and not beside the tests.
    assert (ROOT / target).exists() or (PACKAGE.parent / target).exists()
