"""From threads to streams: generations run in threads of their own, one asynchronous listener hears them.

The listener may be slow: a generation gets no further ahead of it than `AHEAD` pieces. It may go away: then the
generations of its request are cancelled. More requests at once than there are seats are refused.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from typing import Protocol, TypeAlias, TypeVar

from agentd.api.auth import Receive
from agentd.errors import Busy, Cancelled, Stopping
from agentd.telemetry import get_logger
from agentd.types import Delta, ModelReply, ModelRequest, OnDelta

T = TypeVar("T")


class Speaker(Protocol):
    """Whatever replies; every `Model` does."""

    def chat(
        self, request: ModelRequest, on_delta: OnDelta | None = None, cancel: threading.Event | None = None
    ) -> ModelReply: ...


Job: TypeAlias = tuple[Speaker, ModelRequest]
Said: TypeAlias = Delta | ModelReply | Exception
"""A piece of a reply, then either all of it or what went wrong."""

AHEAD = 256
"""Pieces that may wait for a slow listener."""
PATIENCE = 60.0
"""Seconds after which a listener that takes nothing counts as gone."""
_POLL = 0.05
_RETRY_AFTER = 2.0

log = get_logger(__name__)


class Bridge:
    """The threads that wait for models. `seats`: how many requests may be answered at once."""

    def __init__(self, seats: int) -> None:
        self.seats = seats
        self.taken = 0
        self._live: set[Generation] = set()
        self._closed = False
        # Twice as many: a request may want several replies, and what is quick must not wait for what is slow.
        self._threads = ThreadPoolExecutor(max_workers=2 * seats, thread_name_prefix="reply")
        # Apart from those, so that whoever comes while all replies are slow is told so and does not wait.
        self._askers = ThreadPoolExecutor(max_workers=2 * seats, thread_name_prefix="ask")

    @contextmanager
    def seat(self) -> Iterator[None]:
        """Raises `Busy` when all are taken. Only for the thread of the event loop."""
        if self._closed:
            raise _stopping()
        if self.taken >= self.seats:
            raise self._busy()
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1

    def _busy(self) -> Busy:
        return Busy(
            f"{self.taken} replies are being made already",
            hint="try again later, or raise api.requests_at_once",
            retry_after=_RETRY_AFTER,
        )

    def close(self) -> None:
        """End what runs with an error that says why, because the daemon stops. For the thread of the event loop."""
        self._closed = True
        for generation in self._live:
            generation.stop()

    async def call(self, do: Callable[..., T], *args: object) -> T:
        """The result of something that blocks."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._askers, partial(copy_context().run, do, *args))

    @asynccontextmanager
    async def generate(self, jobs: Sequence[Job], receive: Receive, *, stream: bool) -> AsyncIterator[Generation]:
        """The jobs under way, until the block is left or `receive` says that the client has gone; then cancelled.

        Each job beyond the first takes a seat of its own, or `Busy` is raised; only one that is alone may have more.
        """
        more = len(jobs) - 1
        if more and self.taken > 1 and self.taken + more > self.seats:
            raise self._busy()
        self.taken += more
        try:
            async with self._under_way(jobs, receive, stream) as generation:
                yield generation
        finally:
            self.taken -= more

    @asynccontextmanager
    async def _under_way(self, jobs: Sequence[Job], receive: Receive, stream: bool) -> AsyncIterator[Generation]:
        generation = Generation(asyncio.get_running_loop())
        watcher = asyncio.create_task(generation.watch(receive))
        self._live.add(generation)
        for index, job in enumerate(jobs):
            self._threads.submit(copy_context().run, generation.run, index, job, stream)
        try:
            yield generation
        finally:
            self._live.discard(generation)
            generation.cancel.set()
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher


class Generation:
    """The replies to one request of a client, each with its index, while they come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.cancel = threading.Event()
        self.gone = False
        """Whether the client has gone away."""
        self.began: dict[int, float] = {}
        """Seconds that went by before the first piece of a reply that was streamed."""
        self._begun = time.monotonic()
        self._loop = loop
        self._said: asyncio.Queue[tuple[int, Said]] = asyncio.Queue()
        self._room = threading.Semaphore(AHEAD)

    async def next(self) -> list[tuple[int, Said]]:
        """All that was said since the last time; waits until there is something."""
        found = [await self._said.get()]
        while not self._said.empty():
            found.append(self._said.get_nowait())
        self._room.release(len(found))
        return found

    async def replies(self, count: int) -> list[ModelReply]:
        """The replies of all jobs, in their order. Raises what the first that failed raised."""
        found: dict[int, ModelReply] = {}
        while len(found) < count:
            for index, said in await self.next():
                if isinstance(said, Exception):
                    raise said
                if isinstance(said, ModelReply):
                    found[index] = said
        return [found[index] for index in range(count)]

    async def watch(self, receive: Receive) -> None:
        """Cancel as soon as the client has gone."""
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self.cancel.set()

    def stop(self) -> None:
        """The daemon stops."""
        self._said.put_nowait((0, _stopping()))
        self.cancel.set()

    def run(self, index: int, job: Job, stream: bool) -> None:
        """One job, in a thread."""
        model, request = job
        said: Said
        try:
            if self.cancel.is_set():
                raise Cancelled("the client has gone away")
            said = model.chat(request, partial(self._pass_on, index) if stream else None, self.cancel)
        except Exception as error:
            said = error
        self._post(index, said)

    def _pass_on(self, index: int, delta: Delta) -> None:
        self.began.setdefault(index, time.monotonic() - self._begun)
        until = time.monotonic() + PATIENCE
        while not self._room.acquire(timeout=_POLL):
            if time.monotonic() >= until:
                log.warning("a client reads nothing; its request is cancelled", seconds=PATIENCE)
                self.cancel.set()
            self._not_cancelled()
        self._not_cancelled()
        self._post(index, delta)

    def _not_cancelled(self) -> None:
        if self.cancel.is_set():
            raise Cancelled("the client has gone away, or reads nothing")

    def _post(self, index: int, said: Said) -> None:
        with suppress(RuntimeError):  # the loop has ended, and with it every client
            self._loop.call_soon_threadsafe(self._said.put_nowait, (index, said))


def _stopping() -> Stopping:
    return Stopping("the daemon stops", hint="ask again when it is back")
