"""The models on servers: one link for each address, made when it is first needed and again when its entry changes."""

from __future__ import annotations

import threading
from collections.abc import Callable

from agentd.backends.catalog import ModelEntry, ServerEntry
from agentd.backends.openai_http import Link, Record, RemoteModel
from agentd.errors import Denied, ModelError, ServerRefused
from agentd.policy.engine import PolicyEngine
from agentd.policy.sending import check_sending
from agentd.types import Model

_REACH_SECONDS = 5.0


class Remotes:
    """Makes remote models. `secret(name)` gives what is in the vault or None; `record` is the audit's."""

    def __init__(
        self, *, secret: Callable[[str], str | None], policy: PolicyEngine, record: Record | None = None
    ) -> None:
        self._secret = secret
        self._policy = policy
        self._record = record
        self._links: dict[tuple[str, str], Link] = {}
        self._lock = threading.Lock()

    def model(self, entry: ModelEntry, server: ServerEntry) -> Model:
        """The model of an entry on a server of one address."""
        return RemoteModel(self.link(server), entry.model or entry.name, name=entry.name, profile=entry.profile)

    def link(self, server: ServerEntry) -> Link:
        """The link to the first address of a server."""
        place = server.name, server.urls[0]
        with self._lock:
            known = self._links.get(place)
            if known is None or known.server != server:
                if known is not None:
                    known.close()
                known = self._links[place] = Link(
                    server, key=self._key_of(server), may_send=self._may_send, record=self._record
                )
            return known

    def reach(self, model: Model) -> None:
        """Returns when the server of a remote model answers at all. Raises `ModelError`."""
        if isinstance(model, RemoteModel):
            try:
                model.link.models(timeout=_REACH_SECONDS)
            except ServerRefused:
                return  # it does answer
            except Denied as error:
                raise ModelError(error.message, hint=error.hint) from None  # as good as away

    def close(self) -> None:
        with self._lock:
            links = list(self._links.values())
            self._links.clear()
        for link in links:
            link.close()

    def _may_send(self, host: str, port: int) -> None:
        check_sending(self._policy, host, port)

    def _key_of(self, server: ServerEntry) -> Callable[[], str | None]:
        return lambda: None if server.key is None else self._secret(server.key)
