"""Who answers a request: the models of the catalog by role or by name, local ones through the pool."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable
from typing import Any

from agentd.backends.catalog import Catalog
from agentd.backends.pool import Pool
from agentd.errors import NotFound
from agentd.types import Model


class Router:
    """The `Models` of a daemon. Safe to use from several threads."""

    def __init__(self, pool: Pool, catalog: Callable[[], Catalog]) -> None:
        self._pool = pool
        self._catalog = catalog

    def for_role(self, role: str) -> Model:
        """The model of a role: the first of its candidates that is there and well.

        Raises `NotFound` for an unknown role, `ModelMissing` when none of its candidates is there.
        """
        return self._pool.for_role(role)

    def named(self, name: str) -> Model:
        """Exactly this model; or, where no model has this name, the model of the role with it.

        Raises `NotFound` with the nearest names.
        """
        catalog = self._catalog()
        if name in catalog.models:
            return self._pool.named(name)
        if name in catalog.roles:
            return self.for_role(name)
        raise NotFound(f"there is no model {name[:200]!r}", hint=_nearest(name, self.names()))

    def names(self) -> list[str]:
        """What can be asked for by name, in the order of the catalog: local models whose file is there, and remote
        ones. Roles are not listed, though `named` knows them."""
        return [name for name, entry in self._catalog().models.items() if entry.available is not None]

    def loaded(self) -> list[dict[str, Any]]:
        """What is in this machine's memory; see `Pool.loaded`."""
        return self._pool.loaded()

    def describe(self) -> list[dict[str, Any]]:
        """Every model of the catalog; see `Pool.describe`."""
        return self._pool.describe()

    def close(self) -> None:
        """End every local model's process; later requests are refused."""
        self._pool.close()


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name[:200], known, n=3, cutoff=0.5)
    if close:
        return f"did you mean {' or '.join(repr(each) for each in close)}?"
    return f"there are {', '.join(known[:20])}" if known else "`agentd model ls` lists the catalog"
