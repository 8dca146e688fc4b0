"""The tools as they stand now: those that are built in, and those that come and go while the daemon runs."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping, ValuesView

from agentd.tools.tool import Tool


class Toolbox(Mapping[str, Tool]):
    """A mapping that threads may read while it changes: its table is replaced as a whole, never altered.

    A name that is built in stays what it is. `under`: another box, whose tools are here as well.
    """

    def __init__(self, fixed: Mapping[str, Tool], under: Toolbox | None = None) -> None:
        self._fixed = dict(fixed)
        self._table = self._fixed
        self._under = under

    def put(self, added: Mapping[str, Tool]) -> None:
        """From now on these tools are there beside the built-in ones, in place of those put before."""
        self._table = {**self._fixed, **{name: tool for name, tool in added.items() if name not in self._fixed}}

    def now(self) -> dict[str, Tool]:
        """The tools of this moment."""
        return {**(self._under.now() if self._under is not None else {}), **self._table}

    def __getitem__(self, name: str) -> Tool:
        table = self._table
        if name not in table and self._under is not None:
            return self._under[name]
        return table[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.now())

    def items(self) -> ItemsView[str, Tool]:
        return self.now().items()

    def values(self) -> ValuesView[Tool]:
        return self.now().values()

    def __len__(self) -> int:
        return len(self.now())
