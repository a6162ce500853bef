"""The processes of `executor="process"`, by themselves: they die and are ended one by one."""

import multiprocessing
import os
import pickle
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, CancelledError, Future, ProcessPoolExecutor, wait
from functools import partial
from pathlib import Path
from textwrap import dedent
from typing import Any, NoReturn

import pytest

from portable_sched._processes import ProcessExecutor, _do_nothing

each = pytest.mark.parametrize
with_signals = pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")


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


def die_of(number: int) -> NoReturn:
    signal.raise_signal(number)
    raise AssertionError("the signal was ignored")


def die_once_there(path: str, until: str) -> NoReturn:
    write_and_wait(path, until)
    os._exit(3)


def die_while_sending() -> NoReturn:
    """As one does that is killed for its memory while its large result is on its way."""
    frame: Any = sys._getframe()
    while "result_queue" not in frame.f_locals:
        frame = frame.f_back
    pipe = frame.f_locals["result_queue"]._writer.fileno()
    os.write(pipe, struct.pack("!i", 1_000_000) + b"the beginning")
    os._exit(3)


def refuse(process: int) -> NoReturn:
    raise LookupError(f"not to be had outside of {process}")


class Rooted:
    """It can be sent, and not be received."""

    def __reduce__(self) -> tuple[Any, ...]:
        return refuse, (os.getpid(),)


def rooted_and_deaf(path: str) -> Rooted:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    write(path)
    return Rooted()


def broken_by_itself() -> NoReturn:
    raise BrokenExecutor("one of my own")


def say_and_wait(text: str, path: str) -> None:
    print(text)  # noqa: T201 - it is what the test is about
    write_and_wait(path, "never")


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


def held(
    executor: ProcessExecutor,
    folder: Path,
    name: str,
    function: Callable[[str, str], Any] = write_and_wait,
) -> tuple[Future[Any], Path]:
    """A call that is running, and the file that lets it go on."""
    began, until = folder / f"{name} began", folder / f"{name} may end"
    future = executor.submit(function, str(began), str(until))
    in_time(lambda: began.exists() and began.read_text())
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
    # They are told after whoever waits for the futures.
    in_time(lambda: len(ended) == 6)

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


@with_signals
def test_a_call_can_be_stopped_whose_arguments_are_on_their_way(executor: ProcessExecutor) -> None:
    process = executor.submit(pid).result()
    os.kill(process, signal.SIGSTOP)
    future = executor.submit(len, bytes(10_000_000))

    assert executor.stop(future)

    with pytest.raises(BrokenExecutor):
        future.result(60)
    assert process != executor.submit(pid).result(60)


def test_a_call_that_is_about_to_tell_its_end_needs_no_stop(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    future, may_go = held(executor, tmp_path, "a")
    answers: list[bool] = []

    def hand_out() -> list[Callable[[], None]]:
        answers.append(executor.stop(future))
        return []

    monkeypatch.setattr(executor, "_hand_out", hand_out)
    may_go.touch()

    process = future.result(60)
    monkeypatch.undo()
    assert [True] == answers
    assert process == executor.submit(pid).result(60)


@pytest.mark.skipif(sys.platform != "linux", reason="it lists the open files of a process")
def test_processes_that_were_ended_leave_no_open_files(executor: ProcessExecutor) -> None:
    def end_one() -> int:
        future = executor.submit(pid)
        executor.stop(future)
        wait([future], 60)
        for thread in executor._threads:
            thread.join()
        return len(list(Path("/proc/self/fd").iterdir()))

    # What is left of the last one is cleared up with the next.
    before = max(end_one() for _ in range(3))

    assert max(end_one() for _ in range(20)) < before + 20


def test_what_does_not_run_is_not_stopped(executor: ProcessExecutor) -> None:
    future = executor.submit(pid)
    future.result()
    in_time(lambda: not executor._busy)

    assert not executor.stop(future)


@each(
    "death",
    [
        die,
        die_while_sending,
        pytest.param(partial(die_of, getattr(signal, "SIGKILL", 0)), marks=with_signals),
        pytest.param(partial(die_of, signal.SIGSEGV), marks=with_signals),
    ],
    ids=["exit", "while sending", "kill", "segfault"],
)
def test_a_process_that_dies_breaks_its_own_call_alone(
    executor: ProcessExecutor, tmp_path: Path, death: Callable[[], NoReturn]
) -> None:
    other, may_go = held(executor, tmp_path, "a")

    with pytest.raises(BrokenExecutor) as caught:
        executor.submit(death).result(60)

    # Nothing of how the pool came to know of it.
    assert caught.value.__cause__ is None
    may_go.touch()
    assert other.result(60)
    assert executor.submit(pid).result(60)


def test_a_result_that_cannot_be_loaded_breaks_its_own_call_alone(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    """And its process is ended, also where that is not to be had by asking."""
    other, may_go = held(executor, tmp_path, "a")

    with pytest.raises(BrokenExecutor) as caught:
        executor.submit(rooted_and_deaf, str(tmp_path / "rooted")).result(60)

    process = int((tmp_path / "rooted").read_text())
    assert f"not to be had outside of {process}" in str(caught.value.__cause__)
    in_time(lambda: not is_alive(process))
    may_go.touch()
    assert other.result(60)


def test_an_argument_that_cannot_be_sent_costs_no_process(executor: ProcessExecutor) -> None:
    process = executor.submit(pid).result()

    with pytest.raises((TypeError, pickle.PicklingError)):
        executor.submit(id, threading.Lock()).result(60)

    assert process == executor.submit(pid).result(60)


def test_a_function_may_raise_what_a_pool_raises_that_broke() -> None:
    executor = ProcessExecutor(1)
    with pytest.raises(BrokenExecutor, match="one of my own"):
        executor.submit(broken_by_itself).result(60)
    process = executor.submit(pid).result(60)

    executor.shutdown()

    assert not is_alive(process)


def test_a_process_that_dies_while_it_has_nothing_to_do_is_replaced(
    executor: ProcessExecutor,
) -> None:
    process = executor.submit(pid).result()
    os.kill(process, signal.SIGTERM)
    in_time(lambda: not is_alive(process))
    [idle] = executor._idle
    in_time(lambda: idle._broken)

    assert process != executor.submit(pid).result(60)


def test_a_process_that_has_died_gets_no_call_though_its_pool_has_not_noticed(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = executor.submit(pid).result()
    [idle] = executor._idle
    monkeypatch.setattr(idle, "submit", pytest.fail)
    [known] = idle._processes.values()
    os.kill(process, signal.SIGKILL)
    known.join(60)

    assert process != executor.submit(pid).result(60)


def test_a_call_that_is_taken_and_forgotten_while_its_process_dies_goes_to_another_one(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = executor.submit(pid).result()
    [idle] = executor._idle

    def take(_: object) -> Future[Any]:
        os.kill(process, signal.SIGTERM)
        in_time(lambda: idle._broken)
        return Future()

    monkeypatch.setattr(idle, "submit", take)

    assert process != executor.submit(pid).result(60)


@each("what", ["__init__", "_adjust_process_count", "_start_executor_manager_thread"])
def test_a_process_that_cannot_be_started_fails_the_calls_it_was_for(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Those that wait too; and what was there of it by then does not stay."""
    dying = [held(executor, tmp_path, name, die_once_there) for name in "ab"]
    waiting = [executor.submit(pid) for _ in range(3)]
    before = set(multiprocessing.active_children())

    def fail_to_start(*_: object, **__: object) -> NoReturn:
        raise OSError("no file is left")

    with monkeypatch.context() as patch:
        patch.setattr(ProcessPoolExecutor, what, fail_to_start)
        for _, may_go in dying:
            may_go.touch()
        errors = [future.exception(60) for future in waiting]
        wait([future for future, _ in dying], 60)

    assert ["no file is left"] * 3 == [str(error) for error in errors]
    in_time(lambda: set(multiprocessing.active_children()) <= before)
    assert executor.submit(pid).result(60)


def test_a_process_that_dies_before_it_gets_its_call_is_let_go_of(
    executor: ProcessExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit = ProcessPoolExecutor.submit

    def take_the_first(pool: ProcessPoolExecutor, function: Any) -> Any:
        if function is not _do_nothing:
            raise BrokenExecutor("it has died")
        return submit(pool, function)

    monkeypatch.setattr(ProcessPoolExecutor, "submit", take_the_first)

    assert "it has died" == str(executor.submit(pid).exception(60))
    assert 1 == len(executor._threads)


class Large:
    """A result that can be referred to weakly."""


def test_a_worker_does_not_hold_the_result_of_its_first_call(executor: ProcessExecutor) -> None:
    future = executor.submit(Large)
    result = weakref.ref(future.result(60))
    del future

    in_time(lambda: result() is None)


def test_who_hears_of_an_end_may_make_the_next_call(executor: ProcessExecutor) -> None:
    """Also in a thread that a broken pool still needs."""
    nexts: list[Future[Any]] = []
    for function in (pid, die):
        future: Future[Any] = executor.submit(function)
        future.add_done_callback(lambda _: nexts.append(executor.submit(pid)))
        wait([future], 60)
    in_time(lambda: len(nexts) == 2)

    assert all(future.result(60) for future in nexts)


def test_what_a_call_prints_is_seen(tmp_path: Path) -> None:
    """At once: the worker is ended afterwards."""
    began = str(tmp_path / "began")
    ran = run_program(
        tmp_path,
        f"""
        executor = ProcessExecutor(1)
        future = executor.submit(say_and_wait, "from the worker", {began!r})
        in_time(Path({began!r}).exists)
        executor.stop(future)
        executor.shutdown()
        """,
    )

    assert (0, "from the worker\n", "") == (ran.returncode, ran.stdout, ran.stderr)


@with_signals
def test_ctrl_c_is_for_the_program_to_deal_with(shared: ProcessExecutor) -> None:
    assert "it went on" == shared.submit(interrupt).result()


@with_signals
def test_ctrl_c_does_no_harm_while_a_process_starts(tmp_path: Path) -> None:
    ran = run_program(
        tmp_path,
        """
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, lambda *_: None)
        executor = ProcessExecutor(1)
        future = executor.submit(pid)
        while not future.done():
            os.killpg(0, signal.SIGINT)
        print(future.result() != os.getpid())
        executor.shutdown()
        """,
    )

    assert (0, "True\n", "") == (ran.returncode, ran.stdout, ran.stderr)


@with_signals
def test_what_processes_start_hears_of_signals(shared: ProcessExecutor) -> None:
    assert set() == shared.submit(signal.pthread_sigmask, signal.SIG_BLOCK, set()).result()
    assert set() == signal.pthread_sigmask(signal.SIG_BLOCK, set())


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


def test_a_shutdown_that_did_not_wait_can_be_followed_by_one_that_does(tmp_path: Path) -> None:
    executor = ProcessExecutor(2)
    future, may_go = held(executor, tmp_path, "a")
    idle = executor.submit(pid).result()
    executor.shutdown(wait=False)
    may_go.touch()

    executor.shutdown()

    assert future.done()
    assert [False, False] == [is_alive(process) for process in (idle, future.result())]


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
        env=environment(),
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def environment() -> dict[str, str]:
    there = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return there | {"PYTHONPATH": str(Path(__file__).parent.parent), "PYTHONWARNINGS": "ignore"}


def command(folder: Path, body: str) -> list[str]:
    head = f"""
        import concurrent.futures.process, os, sys, threading, time
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


@each("last", ["executor.submit(die).exception()", "executor.stop(executor.submit(pid))"])
def test_a_program_that_forgets_an_executor_whose_process_dies_ends(
    tmp_path: Path, last: str
) -> None:
    ran = run_program(
        tmp_path,
        f"""
        executor = ProcessExecutor(1)
        {last}
        executor.shutdown(wait=False)
        del executor
        """,
    )

    # Python 3.11 may wake a pool, as it ends, that has just closed what it is woken by.
    errors = "" if sys.version_info < (3, 12) and "thread_wakeup" in ran.stderr else ran.stderr
    assert (0, "") == (ran.returncode, errors)


def test_a_program_that_ends_fails_the_calls_that_wait(tmp_path: Path) -> None:
    """Or else whoever waits for them in a thread would keep it from ending."""
    began, until = str(tmp_path / "began"), tmp_path / "may end"
    ran = run_program(
        tmp_path,
        f"""
        executor = ProcessExecutor(1)
        executor.submit(write_and_wait, {began!r}, {str(until)!r})
        futures = [executor.submit(pid) for _ in range(200)]
        def look():
            in_time(lambda: concurrent.futures.process._global_shutdown)
            Path({str(until)!r}).touch()
            print(len(wait(futures).done))
        threading.Thread(target=look).start()
        """,
    )

    assert (0, "200\n", "") == (ran.returncode, ran.stdout, ran.stderr)


def test_a_program_that_is_killed_leaves_nothing(tmp_path: Path) -> None:
    """Also where a call would go on for a minute."""
    began = tmp_path / "began"
    body = f"ProcessExecutor(1).submit(write_and_wait, {str(began)!r}, 'never').result()"
    with subprocess.Popen(command(tmp_path, body), env=environment()) as program:
        in_time(lambda: began.exists() and began.read_text())
        program.kill()

    in_time(lambda: not is_alive(int(began.read_text())))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing is forked there")
def test_a_program_that_is_killed_leaves_nothing_beside_what_it_has_forked(tmp_path: Path) -> None:
    """A process that was forked keeps open what was, and so the program does not seem to end."""
    began, forked = tmp_path / "began", tmp_path / "forked"
    body = f"""
        future = ProcessExecutor(1).submit(write_and_wait, {str(began)!r}, "never")
        in_time(Path({str(began)!r}).exists)
        if not os.fork():
            write({str(forked)!r})
            time.sleep(3600)
        future.result()
        """
    with subprocess.Popen(command(tmp_path, body), env=environment()) as program:
        in_time(lambda: forked.exists() and forked.read_text() and began.read_text())
        program.kill()
    try:
        in_time(lambda: not is_alive(int(began.read_text())))
        assert is_alive(int(forked.read_text()))
    finally:
        os.kill(int(forked.read_text()), signal.SIGKILL)


def fork(path: str) -> None:
    """It leaves a child, which has all that it has open."""
    child = os.fork()
    if child == 0:
        time.sleep(3600)
        os._exit(0)
    Path(path).write_text(str(child))


def fork_and_wait(path: str) -> None:
    fork(path)
    time.sleep(3600)


def fork_and_die(path: str) -> None:
    fork(path)
    os.kill(os.getpid(), signal.SIGKILL)


def written(path: Path) -> int | None:
    text = path.read_text() if path.exists() else ""
    return int(text) if text else None


def test_what_a_function_has_started_ends_with_a_call_that_is_stopped(
    executor: ProcessExecutor, tmp_path: Path
) -> None:
    path = tmp_path / "child"
    future = executor.submit(fork_and_wait, str(path))
    in_time(lambda: written(path))

    assert executor.stop(future)

    assert isinstance(future.exception(60), BrokenExecutor)
    in_time(lambda: not is_alive(written(path) or 0))


def test_a_death_that_is_hidden_by_what_the_function_has_started_is_found_out(
    executor: ProcessExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portable_sched._any_executor._LOOK", 0.05)
    path = tmp_path / "child"
    future = executor.submit(fork_and_die, str(path))

    assert isinstance(future.exception(60), BrokenExecutor)
    in_time(lambda: not is_alive(written(path) or 0))
    assert executor.submit(pid).result(60)
