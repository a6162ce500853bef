"""Run dependency graphs of decorated functions under asyncio or trio, from the same code.

The modules stand in the order of time: define, decide, carry out, show. Imports go one way, from
each to those above it (`tests/test_architecture.py` holds the table).

    _errors      the exception tree, and every message
    _checks      whether an argument is what it should be
    _retries     which failures are worth another attempt, and when
    _parameters  what a function asks for
    _tasks       what a task is: `TaskDef`
    _registry    where tasks are registered: `@task`, `TaskRegistry`
    _dataflow    what fills the parameters: results of other tasks, inputs of the run
    _sorting     the topological order of names
    _formats     which formats there are of graphs and results
    _graph       what depends on what: validated, sorted, ranked
    _results     what came out: `TaskStatus`, `TaskResult`, `RunResults`
    _log         what is logged, which is little
    _events      what happened, as facts, and who is told
    _state       what may start next; pure, no event loop
    _resources   the same where tasks hold resources
    analysis     what results mean: where the time went, why a task waits, what a run would take
    _watch       the same where someone is watching
    reporting    graphs and results as text, a module for each format
    _failures    what an attempt raised, made fit for the results
    _timeouts    the time that one attempt may take
    _backend     the one place that knows asyncio and trio apart
    _lifetimes   a task that yields once: open until nobody uses it
    _pickling    how values become bytes
    _remote_failures     how a worker tells what went wrong
    _envelope    what is sent to a worker, and how it is carried out there
    _transport   the way there: packing it, and saying what cannot be packed
    _any_executor        what can be asked of any executor
    _processes           the processes of `executor="process"`
    _standard_executors  the executors that need no set-up
    _opened      an executor between its opening and its end
    _supply      the executors of one name, one after another: made, replaced, and ended
    _capacity    how many calls an executor is to have at one time
    _pool        an executor as one run uses it: given calls, and suspected
    _pools       the executors of one run
    _executors   where an attempt runs: the event loop, a thread, an executor
    _hooks       what is entered around each attempt
    _engine      carries it out; the only module that spawns
    _preparing   what a run needs before it begins
    _scheduler   `TaskScheduler`, the face of it all
    dask         attempts on a Dask cluster; imported by name alone, as are the next ones
    logs         what happens, as log records
    otel         what happens, as traces and metrics of OpenTelemetry, with `_current_span`
    progress     a live view of a run; `_progress_places` is where it is drawn
    cli          the command line, with `_jobs`, `_options`, `_loading`, `_settings` and `demo`
    testing      for the tests of your own graphs, and, with `_contract`, of executors
"""

from ._dataflow import ResultTypeWarning
from ._envelope import carry
from ._errors import (
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
    TaskTimeoutError,
    UnknownExecutorError,
    UnknownTargetError,
    WorkerDiedError,
)
from ._events import (
    AttemptCancelled,
    AttemptCompleted,
    AttemptEnded,
    AttemptEvent,
    AttemptFailed,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskClosed,
    TaskCompleted,
    TaskEvent,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
)
from ._graph import Graph
from ._parameters import Parameter, ResultOf
from ._registry import TaskRegistry, clear_registry, task
from ._results import AttemptFailure, RunResults, TaskResult, TaskStatus
from ._retries import Backoff
from ._scheduler import TaskScheduler
from ._state import FailurePolicy
from ._tasks import Priority, TaskDef

__all__ = [
    "AttemptCancelled",
    "AttemptCompleted",
    "AttemptEnded",
    "AttemptEvent",
    "AttemptFailed",
    "AttemptFailure",
    "AttemptStarted",
    "Backoff",
    "CyclicDependencyError",
    "DependencyError",
    "DependencyFailedError",
    "DuplicateTaskError",
    "Event",
    "ExecutorError",
    "FailurePolicy",
    "Graph",
    "InputError",
    "LifetimeError",
    "NoRetry",
    "NotPicklableError",
    "Parameter",
    "ParameterError",
    "Priority",
    "RemoteTaskError",
    "ResourceError",
    "ResultOf",
    "ResultTypeWarning",
    "RunFinished",
    "RunResults",
    "RunStarted",
    "TaskCancelled",
    "TaskCancelledError",
    "TaskClosed",
    "TaskCompleted",
    "TaskDef",
    "TaskError",
    "TaskEvent",
    "TaskFailed",
    "TaskRegistry",
    "TaskResult",
    "TaskRetrying",
    "TaskScheduled",
    "TaskScheduler",
    "TaskStarted",
    "TaskStatus",
    "TaskTimeoutError",
    "UnknownExecutorError",
    "UnknownTargetError",
    "WorkerDiedError",
    "carry",
    "clear_registry",
    "task",
]

# Tracebacks, reprs and pickles name what users import, not the private module it stands in.
for _name in __all__:
    _public = globals()[_name]
    if isinstance(_public, type) or _public in (carry, clear_registry):
        _public.__module__ = __name__
