"""What a plugin has of the world: requests to the host, random numbers from a seed, and a place for what it prints."""

from __future__ import annotations

import io
import random
from collections.abc import Callable, Collection
from contextvars import ContextVar
from typing import Any, Protocol, TypeAlias

Ask: TypeAlias = Callable[[str, dict[str, Any]], Any]
"""Asks the host for a capability, such as `files.read_text` with `{"path": ...}`; raises what the host refuses with."""


class File(Protocol):
    def close(self) -> None: ...
    def discard(self) -> None: ...


class Outside:
    """Of one session. `loading`: while a module is loaded it asks for nothing and prints nothing."""

    def __init__(
        self, ask: Ask, grants: Collection[str], seed: int, print_characters: int, patience: float = 0.5
    ) -> None:
        self._ask = ask
        self.patience = patience
        """Seconds that one match of a pattern may compute."""
        self.grants = frozenset(grants)
        self.random = random.Random(seed)
        self.loading = True
        self.targets: list[Any] = []
        """Files that `print` writes to instead, the last one first."""
        self._files: list[File] = []
        self._printed = io.StringIO()
        self._room = print_characters

    def request(self, name: str, **parameters: Any) -> Any:
        grant = name.partition(".")[0]
        if grant not in self.grants:
            raise PermissionError(f"{name} is not granted to this plugin")
        if self.loading:
            raise PermissionError(f"{name} while the module is loaded: call it in a function")
        return self._ask(name, parameters)

    def print(self, text: str) -> None:
        if not self.loading:
            kept = text[: self._room]
            self._room -= len(kept)
            self._printed.write(kept)

    def take_printed(self) -> str:
        self.targets = []
        text = self._printed.getvalue()
        self._room += len(text)
        self._printed = io.StringIO()
        return text

    def keep(self, file: File) -> None:
        self._files.append(file)

    def close_files(self) -> None:
        """Send what was written to files that nobody closed."""
        files, self._files = self._files, []
        for file in files:
            file.close()

    def forget_files(self) -> None:
        """Write nothing of what a call that failed has left open, neither now nor when it is forgotten."""
        files, self._files = self._files, []
        for file in files:
            file.discard()


CURRENT: ContextVar[Outside] = ContextVar("outside")
"""Of the session whose plugin runs."""


def request(name: str, **parameters: Any) -> Any:
    return CURRENT.get().request(name, **parameters)
