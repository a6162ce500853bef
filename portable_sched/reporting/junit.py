"""Results as JUnit XML, which continuous integration shows as a table of tests."""

import re
from collections.abc import Iterator
from typing import Final
from xml.etree import ElementTree as ET

from portable_sched._errors import error_text
from portable_sched._results import AttemptFailure, RunResults, TaskResult, TaskStatus
from portable_sched.analysis.explanation import explain
from portable_sched.analysis.wording import in_seconds

from .recorded import origin_of, type_name
from .tracebacks import traceback_of

# What XML 1.0 does not allow, not even as a character reference.
_FORBIDDEN: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def report(results: RunResults, *, suite: str = "portable_sched") -> str:
    """One test suite, a test for each task, as Jenkins, GitLab and reporters on GitHub read it.

    A task that failed by itself is a failure, with its traceback. One that was not started, was
    cancelled or has not ended yet is skipped, and says why. Attempts that failed before the last
    one stand in the output of their test. The class of a test is the module of the task's function.

    The structure is that of Jenkins' `junit-10.xsd`, which is what Maven's Surefire writes.
    Characters that XML does not allow become U+FFFD.

    Args:
        results: of a run, over or not.
        suite: name of the suite, for a build that runs several graphs.
    """
    cases = [_case(results, result) for result in results]
    counted = {
        "tests": str(len(cases)),
        "failures": str(sum(case.find("failure") is not None for case in cases)),
        "errors": "0",
    }
    named = {"name": _allowed(suite), "time": _decimal(results.wall_time)}
    root = ET.Element("testsuites", {**named, **counted})
    element = ET.SubElement(
        root,
        "testsuite",
        {
            **named,
            **counted,
            "skipped": str(sum(case.find("skipped") is not None for case in cases)),
            # In UTC: the format has no time zones.
            "timestamp": f"{results.date:%Y-%m-%dT%H:%M:%S}",
        },
    )
    properties = ET.SubElement(element, "properties")
    for name, value in _properties(results):
        ET.SubElement(properties, "property", name=_allowed(name), value=_allowed(value))
    element.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _properties(results: RunResults) -> Iterator[tuple[str, str]]:
    limit = results.max_concurrency
    yield "max_concurrency", "none" if limit is None else str(limit)
    yield "most_running", str(results.most_running)
    yield "order", results.order or "priority"
    for resource, units in results.resources.items():
        yield f"resource {resource}", str(units)


def _case(results: RunResults, result: TaskResult[object]) -> ET.Element:
    definition = results.graph.tasks[results.graph.numbers[result.task_name]]
    module, _ = origin_of(definition.function)
    case = ET.Element(
        "testcase",
        {
            "classname": _allowed(module),
            "name": _allowed(result.task_name),
            "time": _decimal(result.duration),
        },
    )
    earlier = result.failures
    if result.status is TaskStatus.FAILED and result.exception is not None and result.attempts:
        earlier = earlier[:-1]
        failure = ET.SubElement(
            case,
            "failure",
            type=_allowed(type_name(type(result.exception))),
            message=_allowed(result.error or ""),
        )
        failure.text = _allowed(traceback_of(result.exception))
    elif not result.ok:
        ET.SubElement(case, "skipped", message=_allowed(_reason(results, result)))
    if earlier:
        texts = [_attempt_text(failure, definition.retries) for failure in earlier]
        ET.SubElement(case, "system-out").text = _allowed("\n".join(texts))
    return case


def _reason(results: RunResults, result: TaskResult[object]) -> str:
    if result.status is TaskStatus.CANCELLED:
        return explain(results, result.task_name).text
    # The chain of each of ten thousand tasks to the root cause would be longer than the rest.
    return result.error or f"{result.status.name}: it had not ended when this report was written."


def _attempt_text(failure: AttemptFailure, retries: int) -> str:
    return (
        f"Attempt {failure.attempt} of {retries} failed after {in_seconds(failure.duration)}: "
        f"{error_text(failure.exception)}\n{traceback_of(failure.exception)}"
    )


def _decimal(seconds: float) -> str:
    """Seconds without an exponent, which is no decimal in XML."""
    return f"{seconds:.6f}"


def _allowed(text: str) -> str:
    return _FORBIDDEN.sub("\N{REPLACEMENT CHARACTER}", text)
