"""What of the agent's own home no tool may touch, in whatever workspace it lies: its keys and what steers it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agentd.home import Places
from agentd.policy.engine import OWN_HOME
from agentd.types import Action, Decision

_READING = "fs.read"


@dataclass(frozen=True, slots=True)
class OwnPlaces:
    """`private`: nothing reads or writes there; `steering`: nothing writes there. Real paths, in one letter case."""

    private: tuple[Path, ...] = ()
    steering: tuple[Path, ...] = ()
    copies: Path | None = None
    """Where tasks work in copies of workspaces; private to all others."""

    @classmethod
    def of(cls, home: Places) -> OwnPlaces:
        steering = (home.config_path, home.home / "policies", home.models_dir, home.plugins_dir)
        copies = _real(home.copies_dir)
        private = (_real(home.state_dir), copies)
        return cls(private=private, steering=tuple(_real(place) for place in steering), copies=copies)

    def refusal(self, action: Action, root: Path) -> Decision | None:
        """The denial of an action in the workspace `root` that names such a place; None for every other.

        Of a command each argument counts that could be a path. What the program opens by itself is not known here.
        """
        base = _real(root)
        if self.copies is not None and base.is_relative_to(self.copies):
            return None  # nothing of the home is in a copy, and no path leads out of one
        if not any(place.is_relative_to(base) or base.is_relative_to(place) for place in self._all):
            return None
        return OWN_HOME if any(self._refuses(action.kind, _real(root / name)) for name in _named(action)) else None

    @property
    def _all(self) -> tuple[Path, ...]:
        return self.private + self.steering

    def _refuses(self, kind: str, path: Path) -> bool:
        closed = self.private if kind == _READING else self._all
        if any(path.is_relative_to(place) for place in closed):
            return True
        # A folder that is moved or deleted takes along what is in it.
        return kind in ("fs.write", "fs.delete") and any(place.is_relative_to(path) for place in self._all)


def _named(action: Action) -> Iterator[str]:
    if action.kind.startswith("fs."):
        yield action.target
    elif action.kind in ("shell.exec", "test.run"):  # not the checks that the owner typed
        for word in action.argv[1:]:
            yield word
            yield word.partition("=")[2] or word


def _real(path: Path) -> Path:
    try:
        return Path(os.path.realpath(path).casefold())
    except (OSError, ValueError):  # no path at all: the tool will say so
        return Path(str(path).casefold())
