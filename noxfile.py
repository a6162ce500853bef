"""Everything a developer runs: `nox` does what CI does, `nox -s NAME` one part of it.

What stands after `--` goes to pytest: `nox -s "tests-3.13(trio)" -- -k retries`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nox
from python_discovery import get_interpreter  # comes with nox, which finds its Pythons by it

nox.needs_version = ">=2026.8.10"  # the first that brings python_discovery
nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_venv = "yes"
nox.options.download_python = "never"  # running tests is no permission to install Pythons
nox.options.sessions = [
    *("tests", "executors", "lowest", "lint", "types", "examples", "wheel", "coverage"),
]

PROJECT = nox.project.load_toml("pyproject.toml")
PYTHONS = nox.project.python_versions(PROJECT)
BACKENDS = ["asyncio", "trio"] if sys.platform == "win32" else ["asyncio", "uvloop", "trio"]

ANYIO_ALONE = """
import asyncio, importlib.util
from portable_sched import TaskScheduler, task

@task
async def one():
    return 1

assert importlib.util.find_spec("trio") is None
assert [result.result for result in asyncio.run(TaskScheduler().run())] == [1]
"""


def let_pyenv_run_all_it_has() -> None:
    """Choose every supported Python of pyenv, whose shims run only what is chosen."""
    pyenv = shutil.which("pyenv")
    if pyenv is None or "PYENV_VERSION" in os.environ or sys.platform == "win32":
        return
    listing = subprocess.check_output([pyenv, "versions", "--bare"], text=True)
    supported = tuple(f"{version}." for version in PYTHONS)
    chosen = [version for version in listing.split() if version.startswith(supported)]
    if chosen:
        os.environ["PYENV_VERSION"] = ":".join(chosen)


let_pyenv_run_all_it_has()
if "GITHUB_ACTIONS" not in os.environ:
    # The workflow installs them all: there, a missing one is an error and not a smaller matrix.
    found = [version for version in PYTHONS if get_interpreter(version)]
    PYTHONS = found or ["{}.{}".format(*sys.version_info)]


def install(session: nox.Session, group: str, *options: str) -> None:
    """Install the package and a dependency group.

    Editable, so that coverage sees the same paths everywhere; `wheel` tests what is built.
    """
    session.install("-e", ".", *nox.project.dependency_groups(PROJECT, group), *options)


@nox.session(python=PYTHONS)
@nox.parametrize("backend", BACKENDS, ids=BACKENDS)
def tests(session: nox.Session, backend: str) -> None:
    """Run the tests on one Python and one backend, and record coverage."""
    data_file = Path(f".coverage.{session.python}-{backend}")
    for stale in Path().glob(f"{data_file}.*"):
        stale.unlink()
    install(session, "test")
    session.run(
        *("coverage", "run", f"--data-file={data_file}", "-m", "pytest"),
        *(f"--backend={backend}", "-m", "not examples and not executors", *session.posargs),
    )


@nox.session(python=PYTHONS[-1])
def executors(session: nox.Session) -> None:
    """Run the tests on a Dask cluster and on loky, on all backends, and record coverage."""
    data_file = Path(".coverage.executors")
    for stale in Path().glob(f"{data_file}.*"):
        stale.unlink()
    install(session, "executors")
    session.run(
        *("coverage", "run", f"--data-file={data_file}", "-m", "pytest"),
        *("-m", "executors", *session.posargs),
    )


@nox.session(python=PYTHONS[0])
def lowest(session: nox.Session) -> None:
    """Run the tests with the oldest requirements that pyproject.toml allows."""
    extras = PROJECT["project"]["optional-dependencies"]
    optional = [
        one
        for each in ("trio", "uvloop", "rich", "otel", "cloudpickle", "cli")
        for one in extras[each]
    ]
    requirements = [*PROJECT["project"]["dependencies"], *optional]
    install(session, "test", *(each.replace(">=", "==") for each in requirements))
    session.run("pytest", "-m", "not examples and not executors", *session.posargs)


@nox.session(python=PYTHONS[-1])
def newest(session: nox.Session) -> None:
    """Run the tests with the newest requirements, pre-releases too. May fail; no part of CI."""
    install(session, "test", "--upgrade", "--pre")
    session.run("pytest", "-m", "not examples and not executors", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and format, and the workflow's syntax and security."""
    session.install(*nox.project.dependency_groups(PROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    workflow = ".github/workflows/ci.yml"
    session.run("check-jsonschema", "--builtin-schema=vendor.github-workflows", workflow)
    session.run("zizmor", "--offline", "--no-progress", "--persona=pedantic", workflow)


@nox.session
def types(session: nox.Session) -> None:
    """Check the types of the package and of tests/typing, by mypy and pyright."""
    install(session, "types")
    session.run("mypy")
    session.run("pyright")
    session.run("pyright", "--verifytypes=portable_sched", "--ignoreexternal")


@nox.session
def examples(session: nox.Session) -> None:
    """Run every program of examples/ on each backend."""
    install(session, "examples")
    session.run("pytest", "-m", "examples and not executors", *session.posargs)


@nox.session(reuse_venv=False)
def wheel(session: nox.Session) -> None:
    """Build sdist and wheel; test the wheel away from the source, first with anyio alone."""
    session.install("build")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        session.run("python", "-m", "build", f"--outdir={folder}")
        [built] = folder.glob("*.whl")
        [sdist] = folder.glob("*.tar.gz")
        # The tests come out of the sdist, which shows that it holds all they need.
        shutil.unpack_archive(sdist, folder)
        unpacked = folder / sdist.name.removesuffix(".tar.gz")
        shutil.rmtree(unpacked / "portable_sched")
        with session.chdir(unpacked):
            session.install(str(built))
            session.run("python", "-W", "error", "-c", ANYIO_ALONE)
            session.install(*nox.project.dependency_groups(PROJECT, "examples"))
            session.run("pytest", "-m", "not executors", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Join what every `tests` session recorded, and ask for all of it."""
    recorded = list(Path().glob(".coverage.*"))
    if not recorded and not Path(".coverage").exists():
        session.skip("nothing was recorded: run `tests` first")
    session.install("coverage")
    if recorded:
        session.run("coverage", "combine")
    session.run("coverage", "report")


@nox.session(python=PYTHONS[-1])
def bench(session: nox.Session) -> None:
    """Measure time and memory per task, or `-- executors`, beside the baselines. No part of CI."""
    install(session, "bench")
    session.run("python", "tests/benchmarks", *session.posargs)
