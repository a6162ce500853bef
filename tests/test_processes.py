"""The processes of `executor="process"`, by themselves: they die and are ended one by one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, wait
from pathlib import Path
from textwrap import dedent
from typing import Any, NoReturn

import pytest

from portable_sched._processes import ProcessExecutor

each = pytest.mark.parametrize


@pytest.fixture(scope="module")
def shared() -> Iterator[ProcessExecutor]:
    """For what leaves its processes whole."""
    executor = ProcessExecutor(2)
    yield executor
    executor.shutdown()


@pytest.fixture
def executor() -> Iterator[ProcessExecutor]:
    executor = ProcessExecutor(2)
    yield executor
    executor.shutdown(cancel_futures=True)


def in_time(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.01)


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return sys.platform != "linux"


def pid() -> int:
    return os.getpid()


def fail() -> NoReturn:
    raise ValueError("no such row")


def die() -> NoReturn:
    os._exit(3)


def write(path: str) -> int:
    Path(path).write_text(str(os.getpid()))
    return os.getpid()


def write_and_wait(path: str, until: str) -> int:
    write(path)
    in_time(Path(until).exists)
    return os.getpid()


def interrupt() -> str:
    os.kill(os.getpid(), signal.SIGINT)
    return "it went on"


def held(executor: ProcessExecutor, folder: Path, name: str) -> tuple[Future[Any], Path]:
    """A call that is running, and the file that lets it go on."""
    began, until = folder / f"{name} began", folder / f"{name} may end"
    future = executor.submit(write_and_wait, str(began), str(until))
    in_time(began.exists)
    return future, until


def test_a_call_returns_and_raises_in_another_process(shared: ProcessExecutor) -> None:
    assert os.getpid() != shared.submit(pid).result()
    assert 1024 == shared.submit(pow, 2, 10).result()
    with pytest.raises(ValueError, match="no such row"):
        shared.submit(fail).result()


def test_arguments_go_by_name_too(shared: ProcessExecutor) -> None:
    assert 5 == shared.submit(int, "101", base=2).result()


def test_the_process_that_had_a_call_last_gets_the_next(shared: ProcessExecutor) -> None:
    first = shared.submit(pid).result()

    assert {first} == {shared.submit(pid).result() for _ in range(5)}


def test_there_are_no_more_processes_than_workers(shared: ProcessExecutor) -> None:
    futures = [shared.submit(pid) for _ in range(40)]

    assert 1 <= len({future.result() for future in futures}) <= 2


def test_calls_begin_in_their_order(executor: ProcessExecutor, tmp_path: Path) -> None:
    [(first, may_go), (second, may_go_too)] = [held(executor, tmp_path, name) for name in "ab"]
    ended: list[int] = []
    futures = [executor.submit(pid) for _ in range(6)]
    for number, future in enumerate(futures):
        future.add_done_callback(lambda _, number=number: ended.append(number))
    assert not any(future.running() for future in futures)
    may_go.touch()
    wait(futures, 60)

    assert [0, 1, 2, 3, 4, 5] == ended
    assert not second.done()
    may_go_too.touch()
    assert first.result() != second.result()


def test_a_call_that_waits_can_be_cancelled_and_one_that_runs_cannot(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    [(first, may_go), (_, may_go_too)] = [held(executor, tmp_path, name) for name in "ab"]
    waiting = executor.submit(write, str(tmp_path / "never"))

    assert (False, True) == (first.cancel(), waiting.cancel())
    may_go.touch()
    may_go_too.touch()
    assert executor.submit(pid).result()
    assert not (tmp_path / "never").exists()


def test_a_call_that_is_stopped_loses_its_process_and_others_go_on(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    [(first, _), (second, may_go)] = [held(executor, tmp_path, name) for name in "ab"]
    process = int((tmp_path / "a began").read_text())

    assert executor.stop(first)

    with pytest.raises(BrokenExecutor):
        first.result(60)
    in_time(lambda: not is_alive(process))
    may_go.touch()
    assert second.result(60) != process != executor.submit(pid).result(60)


def test_a_call_that_ends_while_it_is_stopped_has_ended_well(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    future, may_go = held(executor, tmp_path, "a")
    with executor._changed:
        [pool] = executor._busy.values()
        may_go.touch()
        in_time(lambda: not pool._pending_work_items)

        assert executor.stop(future)

    process = future.result(60)
    in_time(lambda: not is_alive(process))
    assert process != executor.submit(pid).result(60)


def test_what_does_not_run_is_not_stopped(executor: ProcessExecutor) -> None:
    future = executor.submit(pid)
    future.result()
    in_time(lambda: not executor._busy)

    assert not executor.stop(future)


@each("how", ["exit", "kill"])
def test_a_process_that_dies_breaks_its_own_call_alone(
    executor: ProcessExecutor, tmp_path: Path, how: str
) -> None:
    other, may_go = held(executor, tmp_path, "a")
    if how == "exit":
        future = executor.submit(die)
    else:
        future, _ = held(executor, tmp_path, "b")
        os.kill(int((tmp_path / "b began").read_text()), signal.SIGTERM)

    with pytest.raises(BrokenExecutor):
        future.result(60)
    may_go.touch()
    assert other.result(60)
    assert executor.submit(pid).result(60)


def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced(
    executor: ProcessExecutor,
) -> None:
    process = executor.submit(pid).result()
    os.kill(process, signal.SIGTERM)
    in_time(lambda: not is_alive(process))
    [idle] = executor._idle
    in_time(lambda: idle._broken)

    assert process != executor.submit(pid).result(60)


def test_what_a_call_prints_is_seen(tmp_path: Path) -> None:
    ran = run_program(
        tmp_path,
        """
        executor = ProcessExecutor(1)
        executor.submit(print, "from the worker", flush=True).result()
        executor.shutdown()
        """,
    )

    assert (0, "from the worker\n", "") == (ran.returncode, ran.stdout, ran.stderr)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_ctrl_c_is_for_the_program_to_deal_with(shared: ProcessExecutor) -> None:
    assert "it went on" == shared.submit(interrupt).result()


def test_no_process_and_no_thread_remains_after_shutdown() -> None:
    before = set(threading.enumerate())
    executor = ProcessExecutor(2)
    processes = {future.result() for future in [executor.submit(pid) for _ in range(20)]}

    executor.shutdown()

    assert not any(map(is_alive, processes))
    assert set() == set(threading.enumerate()) - before


def test_no_process_remains_after_one_has_been_stopped(tmp_path: Path) -> None:
    executor = ProcessExecutor(2)
    future, _ = held(executor, tmp_path, "a")
    executor.stop(future)

    executor.shutdown()

    assert future.done()
    assert not is_alive(int((tmp_path / "a began").read_text()))


def test_a_shutdown_waits_for_the_calls_that_there_are(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    first, may_go = held(executor, tmp_path, "a")
    second = executor.submit(pid)
    shutting = threading.Thread(target=executor.shutdown)
    shutting.start()
    in_time(lambda: executor._is_shut_down)
    assert shutting.is_alive()
    may_go.touch()
    shutting.join(60)

    assert first.result() == second.result()
    assert not is_alive(first.result())


def test_a_shutdown_need_not_wait(tmp_path: Path) -> None:
    executor = ProcessExecutor(1)
    first, may_go = held(executor, tmp_path, "a")
    second = executor.submit(pid)

    executor.shutdown(wait=False, cancel_futures=True)

    with pytest.raises(CancelledError):
        second.result()
    may_go.touch()
    process = first.result(60)
    in_time(lambda: not is_alive(process))


def test_there_are_no_calls_after_a_shutdown(executor: ProcessExecutor) -> None:
    executor.shutdown()

    with pytest.raises(RuntimeError, match="cannot schedule new futures after shutdown"):
        executor.submit(pid)


def test_several_threads_may_submit_at_once(executor: ProcessExecutor) -> None:
    futures: list[Future[Any]] = []

    def submit() -> None:
        futures.extend(executor.submit(pow, 2, number) for number in range(50))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    expected = sorted(2**number for number in range(50) for _ in range(4))
    assert expected == sorted(future.result(60) for future in futures)


@each(
    ("workers", "message"),
    [
        (0, "Expected workers to be a whole number of at least 1, got 0 (int)."),
        (2.5, "Expected workers to be a whole number of at least 1, got 2.5 (float)."),
    ],
)
def test_a_number_of_workers_that_is_none_is_refused(workers: Any, message: str) -> None:
    with pytest.raises((TypeError, ValueError)) as caught:
        ProcessExecutor(workers)

    assert message == str(caught.value)


def run_program(folder: Path, body: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, which uses a `ProcessExecutor`."""
    return subprocess.run(
        command(folder, body),
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def command(folder: Path, body: str) -> list[str]:
    head = f"""
        import os, sys, time
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        from test_processes import *
        if __name__ == "__main__":
        """
    path = folder / "program.py"
    indented = "".join(f"    {line}\n" for line in dedent(body).strip().splitlines())
    path.write_text(dedent(head).strip() + "\n" + indented)
    return [sys.executable, str(path)]


def test_a_program_that_forgets_the_shutdown_ends_and_leaves_nothing(tmp_path: Path) -> None:
    ran = run_program(tmp_path, "print(ProcessExecutor(1).submit(pid).result())")

    assert (0, "") == (ran.returncode, ran.stderr)
    in_time(lambda: not is_alive(int(ran.stdout)))


def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """Also where a call would go on for a minute."""
    began = tmp_path / "began"
    body = f"ProcessExecutor(1).submit(write_and_wait, {str(began)!r}, 'never').result()"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen(command(tmp_path, body), env=environment) as program:
        in_time(lambda: began.exists() and began.read_text())
        program.kill()

    in_time(lambda: not is_alive(int(began.read_text())))
