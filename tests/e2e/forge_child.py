"""One life of a daemon that kills itself (kill -9) in the forge, at the first place at which no earlier life has died.

Lives are orders on stdin, one a line of JSON: `home`, and `died`, the places so far. Each is lived in a child of its
own and answered with the place of its death, or with null when it lived until its task had ended.

Places are found and not listed: inside every transaction, after its commit, and before and after every act on the
folder of plugins, as long as the forge is at work. A place is named by the calls that lead to it, since the last entry
of the journal.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw

import agentd
from agentd import app as parts
from agentd.config import load_settings
from agentd.home import defaults_dir
from agentd.plugins import (
    controls,  # noqa: F401 - not by every life anew
    folder,
    forge,
)
from agentd.policy.engine import PolicyEngine
from agentd.store.db import Database
from agentd.tasks.journal import TaskJournal

PACKAGE = str(Path(agentd.__file__).parent)
SECONDS = 60.0


class Fate:
    """Knows where others died; `tell` is told the place before this life ends there."""

    def __init__(self, died: list[str], tell: Callable[[str], object]) -> None:
        self._died = frozenset(died)
        self._tell = tell
        self.key = ""
        self._passed: Counter[str] = Counter()

    def entry(self, key: str) -> None:
        """The journal is asked for this entry from here on."""
        self.key = key
        self._passed.clear()

    def point(self, what: str) -> None:
        way = _way()
        if way is None:
            return
        place = f"{self.key} {what} {way}"
        self._passed[place] += 1
        place = f"{place} #{self._passed[place]}"
        if place not in self._died:
            self._tell(place)
            os.kill(os.getpid(), signal.SIGKILL)


def _way() -> str | None:
    """The calls of the package that lead here from the forge; None when it is not at work."""
    names, frame = [], sys._getframe(2)
    while frame is not None:
        code = frame.f_code
        if code.co_filename.startswith(PACKAGE):
            names.append(f"{Path(code.co_filename).stem}.{code.co_name}:{frame.f_lineno}")
        if code.co_filename == forge.__file__ and code.co_name == "make":
            return " < ".join(names)
        frame = frame.f_back  # type: ignore[assignment]
    return None


def live(order: dict[str, Any], policy: PolicyEngine, tell: Callable[[str], object]) -> None:
    fate = Fate(order["died"], tell)
    _mark(fate)
    app = parts.build(load_settings(Path(order["home"]), {}), policy=policy)
    app.start()
    (task,) = app.queue.list()
    until = time.monotonic() + SECONDS
    while not app.queue.get(task.id).state.ended and time.monotonic() < until:
        time.sleep(0.01)
    app.stop()


def _mark(fate: Fate) -> None:
    """Put the places into what writes."""

    class Dying(Database):
        @contextmanager
        def transaction(self) -> Iterator[apsw.Connection]:
            outer = not self.connection().in_transaction
            with super().transaction() as connection:
                yield connection
                if outer:
                    fate.point("uncommitted")
            if outer:
                fate.point("committed")

    class Journal(TaskJournal):
        def once(self, key: str, *args: Any, **more: Any) -> Any:
            fate.entry(key)
            return super().once(key, *args, **more)

    def around(what: str, act: Callable[..., Any]) -> Callable[..., Any]:
        def acted(*args: Any, **more: Any) -> Any:
            fate.point(f"before {what}")
            result = act(*args, **more)
            fate.point(f"after {what}")
            return result

        return acted

    def half(path: Path, content: bytes) -> None:
        path.write_bytes(content[: len(content) // 2])
        fate.point(f"half of {path.name}")
        path.unlink()
        whole(path, content)

    whole = folder._write
    parts.Database = Dying  # type: ignore[misc]
    parts.TaskJournal = Journal  # type: ignore[misc]
    folder._write = around("a file", half)
    os.rename = around("a rename", os.rename)
    folder.shutil = SimpleNamespace(rmtree=around("a removal", shutil.rmtree))  # type: ignore[assignment]


def fork(order: dict[str, Any], policy: PolicyEngine) -> str | None:
    """The place of its death. Raises RuntimeError for a life that ends in another way."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            live(order, policy, lambda place: os.write(writing, place.encode()))
            code = 0
        finally:
            os._exit(code)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        place = pipe.read()
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status) and place:
        return place
    if status != 0:
        raise RuntimeError(f"a life ended with {status}")
    return None


def main() -> None:
    policy = PolicyEngine.load(defaults_dir() / "policies")
    for line in sys.stdin:
        print(json.dumps(fork(json.loads(line), policy)), flush=True)


if __name__ == "__main__":
    main()
