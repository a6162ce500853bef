"""Run dependency graphs of decorated functions under asyncio or trio, from the same code.

The modules stand in the order of time: define, decide, carry out, show. Imports go one way, from
each to those above it (`tests/test_architecture.py` holds the table).

    _errors      the exception tree, and every message
    _tasks       what a task is: `@task`, `TaskDef`, `TaskRegistry`
    _graph       what depends on what: validated, sorted, ranked
    _results     what came out: `TaskStatus`, `TaskResult`, `RunResults`
    _state       what may start next; pure, no event loop
    _executors   where an attempt runs: the event loop, a thread
    _engine      carries it out; the only module that spawns
    reporting    results to text
    _scheduler   `TaskScheduler`, the face of it all
"""

from ._errors import (
    CyclicDependencyError,
    DependencyError,
    DependencyFailedError,
    DuplicateTaskError,
    LifetimeError,
    NoRetry,
    ParameterError,
    ResourceError,
    TaskCancelledError,
    TaskError,
    TaskTimeoutError,
    UnknownTargetError,
)
from ._events import (
    AttemptFailed,
    AttemptStarted,
    Event,
    RunFinished,
    RunStarted,
    TaskCancelled,
    TaskCompleted,
    TaskEvent,
    TaskFailed,
    TaskRetrying,
    TaskScheduled,
    TaskStarted,
)
from ._graph import Graph
from ._parameters import Parameter, ResultOf
from ._results import AttemptFailure, RunResults, TaskResult, TaskStatus
from ._scheduler import TaskScheduler
from ._state import FailurePolicy
from ._tasks import Backoff, Priority, TaskDef, TaskRegistry, clear_registry, task

__all__ = [
    "AttemptFailed",
    "AttemptFailure",
    "AttemptStarted",
    "Backoff",
    "CyclicDependencyError",
    "DependencyError",
    "DependencyFailedError",
    "DuplicateTaskError",
    "Event",
    "FailurePolicy",
    "Graph",
    "LifetimeError",
    "NoRetry",
    "Parameter",
    "ParameterError",
    "Priority",
    "ResourceError",
    "ResultOf",
    "RunFinished",
    "RunResults",
    "RunStarted",
    "TaskCancelled",
    "TaskCancelledError",
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
    "UnknownTargetError",
    "clear_registry",
    "task",
]

# Tracebacks, reprs and pickles name what users import, not the private module it stands in.
for _name in __all__:
    _public = globals()[_name]
    if isinstance(_public, type) or _public is clear_registry:
        _public.__module__ = __name__
del _name, _public
