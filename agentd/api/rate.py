"""How many requests a client may make: a bucket of tokens for each key, filled as time goes by."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable

from agentd.api.auth import AsgiApp, Message, Receive, Send, shown_key
from agentd.errors import AgentdError

_MOST_CLIENTS = 1000


class RateLimited(AgentdError):
    """One client asks too often; after `retry_after` seconds it may again."""

    code = "api.rate_limited"

    def __init__(self, limit: int, retry_after: int) -> None:
        super().__init__(
            f"more than {limit} requests in a minute",
            hint=f"try again in {retry_after} s, or raise api.requests_per_minute",
        )
        self.retry_after = float(retry_after)


class RateLimit:
    """Lets at most `limit()` requests a minute of one key through, all at once or spread; 0 for no limit.

    A WebSocket counts when it opens, and each request over it when whoever reads it calls `scope["one_more"]`.
    `clock` gives seconds that only grow. Whoever asks too often gets 429 and the seconds to wait.
    """

    def __init__(
        self, app: AsgiApp, limit: Callable[[], int], clock: Callable[[], float], refuse: Callable[..., AsgiApp]
    ) -> None:
        self._app = app
        self._limit = limit
        self._clock = clock
        self._refuse = refuse
        self._buckets: OrderedDict[bytes, tuple[float, float]] = OrderedDict()
        """Client -> (tokens left, when that was); the one that asked least recently first."""

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            self._count(scope)
        except RateLimited as error:
            if scope["type"] == "websocket":
                # Closed before it was accepted: the server answers the handshake with 403.
                await send({"type": "websocket.close", "code": 1008, "reason": error.message})
            else:
                await self._refuse(error)(scope, receive, send)
            return
        await self._app({**scope, "one_more": lambda: self._count(scope)}, receive, send)

    def _count(self, scope: Message) -> None:
        """One more request of this client. Raises `RateLimited`."""
        limit = self._limit()
        if limit and (wait := self._take(_client(scope), limit)) > 0:
            raise RateLimited(limit, math.ceil(wait))

    def _take(self, client: bytes, limit: int) -> float:
        """Seconds until the next request may come; 0 when this one may."""
        now, speed = self._clock(), limit / 60
        left, then = self._buckets.pop(client, (float(limit), now))
        left = min(float(limit), left + (now - then) * speed)
        self._buckets[client] = (left - 1 if left >= 1 else left, now)
        while len(self._buckets) > _MOST_CLIENTS:
            self._buckets.popitem(last=False)
        return 0.0 if left >= 1 else (1 - left) / speed


def _client(scope: Message) -> bytes:
    """The key that the request carries, digested: however it is spelt around the key, it is the same client."""
    return hashlib.sha256(shown_key(scope)).digest()
