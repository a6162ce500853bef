# /// script
# requires-python = ">=3.11"
# dependencies = ["httpx", "portable_sched[trio]"]
# [tool.uv.sources]
# portable_sched = { path = ".." }
# ///
"""A web service that runs a graph for each request, and clients that it has to cope with.

    pip install httpx
    python examples/service.py
    python examples/service.py --backend trio

A page about a city is made of what five sources say, and asks three of them at a time. If one of
them fails or takes too long, there is no page: the other calls are cancelled. So they are when the
client goes away. All requests share one scheduler, and each is a run of its own.

The service, the sources and the clients are all in this program, and talk HTTP to each other.
"""

import argparse
import json
from contextlib import suppress
from contextvars import ContextVar
from functools import partial
from textwrap import indent

import anyio
import httpx
from anyio.abc import SocketAttribute, SocketStream
from anyio.streams.buffered import BufferedByteReceiveStream

from portable_sched import Event, FailurePolicy, RunFinished, TaskScheduler, TaskTimeoutError, task

# Seconds that each source takes. Atlantis has no museums, and the trains to Venice take for ever.
SOURCES = {"weather": 0.05, "hotels": 0.25, "trains": 0.1, "museums": 0.12, "concerts": 0.15}

request_path = ContextVar[str]("request_path")


# The graph: a task for each source, and one that makes the page of all their results.


def add_source(source: str) -> None:
    """A call of one source. While it waits for the answer, it holds one of the calls there are."""

    @task(name=source, resources=["calls"], timeout=1.0, estimate=SOURCES[source])
    async def call(city: str, client: httpx.AsyncClient) -> str:
        answer = await client.get(f"/{source}/{city}")
        if answer.is_error:
            raise LookupError(f"no {source} in {city}")
        return answer.text


for name in SOURCES:
    add_source(name)


@task
async def page(
    *, city: str, weather: str, hotels: str, trains: str, museums: str, concerts: str
) -> str:
    """The page. `city` is an input of the run, the rest are results of the tasks above."""
    return json.dumps({"city": city, "parts": [weather, hotels, trains, museums, concerts]})


def log(event: Event) -> None:
    """Tell of each run that is over. It is called in the context of who awaits the run."""
    if isinstance(event, RunFinished):
        print(f"    log: {request_path.get()} took {event.results.wall_time:.2f} s")
        if not event.results.ok:
            print(indent(pages.report(event.results), "    "))


pages = TaskScheduler(resources={"calls": 3}, on_failure=FailurePolicy.CANCEL, observers=[log])


# The service, with the sources beside it.


async def serve(client: httpx.AsyncClient, stream: SocketStream) -> None:
    """Answer the one request of a connection, unless it is closed before there is an answer."""
    closed = (anyio.EndOfStream, anyio.IncompleteRead, anyio.BrokenResourceError)

    async def leave_when_closed() -> None:
        with suppress(*closed):
            await stream.receive()
        group.cancel_scope.cancel()

    async with stream:
        response = b""
        with suppress(*closed):
            request = await BufferedByteReceiveStream(stream).receive_until(b"\r\n\r\n", 65536)
            async with anyio.create_task_group() as group:
                group.start_soon(leave_when_closed)
                response = await answer(request.split()[1].decode(), client)
                group.cancel_scope.cancel()
            await stream.send(response)


async def answer(path: str, client: httpx.AsyncClient) -> bytes:
    """What the service answers, or one of the sources."""
    _, asked, city = path.split("/")
    status, text = 200, f"{asked} in {city}"
    if asked == "page":
        request_path.set(path)
        results = await pages.run(inputs={"city": city, "client": client})
        if results.ok:
            text = results[page].unwrap()
        else:
            cause = next(result for result in results.failed if result.attempts)
            status = 504 if isinstance(cause.exception, TaskTimeoutError) else 502
            text = f"{cause.error}"
    elif (asked, city) == ("museums", "Atlantis"):
        status = 404
    else:
        await anyio.sleep(60 if (asked, city) == ("trains", "Venice") else SOURCES[asked])
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(text.encode())}\r\nConnection: close"
    return f"{head}\r\n\r\n{text}".encode()


# The clients.


async def visit(client: httpx.AsyncClient, city: str, patience: float = 60) -> None:
    """Ask for a page, and go away when it takes too long."""
    with anyio.move_on_after(patience) as scope:
        response = await client.get(f"/page/{city}")
        print(f"{city}: {response.status_code} {response.text}")
    if scope.cancelled_caught:
        print(f"{city}: the client goes away")


async def main() -> None:
    """Start the service, and send it clients."""
    listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
    here = f"http://127.0.0.1:{listener.extra(SocketAttribute.local_port)}"  # noqa: S610 - anyio's, not Django's
    async with (
        httpx.AsyncClient(base_url=here, trust_env=False) as client,
        listener,
        anyio.create_task_group() as service,
    ):
        service.start_soon(listener.serve, partial(serve, client))
        print("Three clients at once")
        async with anyio.create_task_group() as clients:
            for city in ("Oslo", "Lima", "Cairo"):
                clients.start_soon(visit, client, city)
        print("\nA source that fails at once")
        await visit(client, "Atlantis")
        print("\nA source that takes too long")
        await visit(client, "Venice")
        print("\nA client that does not wait")
        await visit(client, "Quito", patience=0.2)
        await anyio.sleep(0.1)  # for the service to notice
        service.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A web service that runs a graph per request.")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    anyio.run(main, backend=parser.parse_args().backend)
