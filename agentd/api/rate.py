"""How many requests a client may make: a bucket of tokens for each key, filled as time goes by."""

from __future__ import annotations

import hashlib
import math
from collections import OrderedDict
from collections.abc import Callable

from agentd.api.auth import AsgiApp, Message, Receive, Send
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
        limit = self._limit()
        wait = self._take(_client(scope), limit) if limit and scope["type"] == "http" else 0.0
        if wait <= 0:
            await self._app(scope, receive, send)
            return
        await self._refuse(RateLimited(limit, math.ceil(wait)))(scope, receive, send)

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
    """The key that the request carries, digested."""
    headers = dict(scope["headers"])
    shown = bytes(headers.get(b"authorization", b"") or headers.get(b"x-api-key", b""))
    return hashlib.sha256(shown).digest()
