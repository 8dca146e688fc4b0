"""The plan of a running task, drawn again on the terminal with each change."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from agentd.cli.follow import plan_lines, tool_line

_STYLES = {"pending": "dim", "done": "green", "failed": "red"}


class LivePlan:
    """A plan with the state of each step and, below it, what was done last."""

    def __init__(self, console: Console | None = None) -> None:
        self._live = Live(console=console or Console(stderr=True, highlight=False), refresh_per_second=8)
        self._task: Mapping[str, Any] = {"state": "queued", "plan": None, "outcomes": ()}
        self._tool = ""
        self._spinner = Spinner("dots")

    def __enter__(self) -> LivePlan:
        self._draw()
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tool = ""
        if self._task["plan"] is None:
            self._live.transient = True
        self._draw()
        self._live.stop()

    def task(self, task: Mapping[str, Any]) -> None:
        self._task = task
        self._draw()

    def tool(self, event: Mapping[str, Any]) -> None:
        self._tool = tool_line(event)
        self._draw()

    def _draw(self) -> None:
        rows: list[Spinner | Text] = []
        for state, mark, words in plan_lines(self._task):
            if state == "running":
                self._spinner.update(text=Text(words, "bold", no_wrap=True, overflow="ellipsis"))
                rows.append(self._spinner)
            else:
                rows.append(Text(f"{mark} {words}", _STYLES.get(state, ""), no_wrap=True, overflow="ellipsis"))
        if not rows and self._task["state"] in ("queued", "running"):
            waiting = "waiting for its turn" if self._task["state"] == "queued" else "planning"
            self._spinner.update(text=Text(waiting, "dim"))
            rows.append(self._spinner)
        if self._tool:
            rows.append(Text(f"  {self._tool}", "dim", no_wrap=True, overflow="ellipsis"))
        self._live.update(Group(*rows), refresh=True)
