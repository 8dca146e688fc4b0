"""How far a fetch has come: one line on a terminal that is written over, and little elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from agentd.cli import output


class ProgressLine:
    """Shows the events of `model pull` and `model probe` on stderr."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = sys.stderr.isatty() and not quiet
        self._drawn = False

    def __enter__(self) -> ProgressLine:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._clear()

    def show(self, event: Mapping[str, Any]) -> None:
        if self._quiet:
            return
        what = event["event"]
        if what == "chosen":
            parts = f" in {event['parts']} parts" if event["parts"] > 1 else ""
            size = f", {event['size'] / 1e9:.2f} GB" if event["size"] else ""
            self._say(f"{event['file']}{size}{parts}")
        elif what == "retry":
            self._say(f"{event['problem']}; again in {output.duration(event['seconds'])}")
        elif what == "progress":
            self._draw(_progress(event))
        elif what == "checking":
            self._draw(f"{event['file']}: checking")
        elif what == "trying":
            self._draw(event["what"])

    def _say(self, text: str) -> None:
        self._clear()
        output.note(output.one_line(text))

    def _draw(self, text: str) -> None:
        if self._live:
            self._drawn = True
            sys.stderr.write(f"\r\x1b[K{output.one_line(text, 100)}")
            sys.stderr.flush()

    def _clear(self) -> None:
        if self._drawn:
            self._drawn = False
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _progress(event: Mapping[str, Any]) -> str:
    done, size, rate = event["done"], event["size"], event["rate"]
    if not size:
        return f"{event['file']}  {done / 1e6:,.0f} MB  {rate / 1e6:.1f} MB/s"
    so_far = f"{event['file']}  {100 * done / size:.0f}%  {done / 1e6:,.0f} of {size / 1e6:,.0f} MB"
    return f"{so_far}  {rate / 1e6:.1f} MB/s  {output.duration((size - done) / max(rate, 1.0))}"
