"""Which span is current around a task's function, here and in the worker of an executor.

A module of its own, because workers import it: all they need of OpenTelemetry is the API.
"""

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager

from opentelemetry.context import attach, detach
from opentelemetry.propagate import extract, inject
from opentelemetry.trace import Span, set_span_in_context

from portable_sched import carry


@asynccontextmanager
async def current(span: Span, *, goes_far: bool) -> AsyncIterator[None]:
    """Makes a span current.

    Args:
        span: that one.
        goes_far: whether the function runs in an executor, so that what is current has to be sent
            there: as `traceparent`, and what else the propagators that are set up make of it.
    """
    # In what is current by now: another hook may have put baggage there.
    token = attach(set_span_in_context(span))
    if goes_far:
        headers: dict[str, str] = {}
        inject(headers)
        carry(_received, headers)
    try:
        yield
    finally:
        detach(token)


@contextmanager
def _received(headers: Mapping[str, str]) -> Iterator[None]:
    """In the worker: makes current what was current where the call came from."""
    token = attach(extract(headers))
    try:
        yield
    finally:
        detach(token)
