"""What comes of a run: checked, without secrets, cut to what a model can read, stored and read again."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from agentd.errors import AgentdError, Denied, ToolFailed
from agentd.security.scan import Redactor
from agentd.store.outputs import Outputs
from agentd.types import JsonObject, ToolResult

MAX_TEXT = 8_000
"""Characters of a result that a model sees."""
MAX_TAIL = 2_000
"""Of these, the end of a longer one."""
MAX_DATA = 200_000
"""Characters of a result's data, and of the paths it changed, as JSON."""


@dataclass(frozen=True, slots=True)
class Results:
    """What the journal keeps and a model is shown; `outputs` has whole what is shown cut."""

    outputs: Outputs
    redactor: Redactor = field(default_factory=Redactor)

    def stored(self, result: ToolResult, task: str, denied: Denied | None = None) -> dict[str, Any]:
        """As JSON. `denied`: what the tool was refused while it ran, which `restored` raises again."""
        result = self._cut(result, task)
        stored: dict[str, Any] = {
            "ok": bool(result.ok),
            "text": result.text,
            "data": dict(result.data),
            "changed": [str(path) for path in result.changed],
            "handle": result.handle,
        }
        if denied is None:
            return stored
        return stored | {"denied": self.redactor.clean({"message": denied.message, "hint": denied.hint})}

    def _cut(self, result: ToolResult, task: str) -> ToolResult:
        """No secrets, and no more than a model can read."""
        text = self.redactor(result.text)
        result = replace(result, data=self.redactor.clean(result.data))
        if not text.isascii():
            # A lone surrogate (a byte of a file name that is no UTF-8) cannot be stored as it is.
            text = text.encode("utf-8", "backslashreplace").decode()
        if len(text) <= MAX_TEXT:
            return replace(result, text=text)
        handle = self.outputs.put(task, text)
        return replace(result, text=_head_and_tail(text, handle), handle=handle)


def restored(stored: JsonObject) -> ToolResult:
    """A stored result, or the denial that a tool met while it ran."""
    denied = stored.get("denied")
    if denied:
        raise Denied(denied["message"], hint=denied["hint"])
    return ToolResult(
        ok=stored["ok"],
        text=stored["text"],
        data=stored["data"],
        changed=tuple(stored["changed"]),
        handle=stored["handle"],
    )


def checked(tool: str, result: object) -> ToolResult:
    """What came back, if it has the right form; `ToolFailed` otherwise."""
    if isinstance(result, str):
        result = ToolResult(ok=True, text=result)
    if not isinstance(result, ToolResult) or not isinstance(result.text, str):
        raise ToolFailed(f"{tool} gave a {type(result).__name__} and no result")
    try:
        size = len(json.dumps([dict(result.data), list(result.changed)], allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ToolFailed(f"{tool} gave data that is not JSON: {error}") from None
    if size > MAX_DATA:
        result = replace(result, data={"left_out": f"{size} characters"}, changed=result.changed[:1000])
    return result


def failed(error: BaseException) -> ToolResult:
    return ToolResult(ok=False, text=told(error))


def told(error: BaseException) -> str:
    """An error as a model should read it; of one that nobody foresaw only its kind and its words."""
    if isinstance(error, AgentdError):
        return f"{error.message} ({error.hint})" if error.hint else error.message
    return f"{type(error).__name__}: {str(error)[:1000]}"


def _head_and_tail(text: str, handle: str) -> str:
    """Whole lines from both ends where lines are short enough, and how to read what is between them."""
    head, tail = text[: MAX_TEXT - MAX_TAIL - 200], text[-MAX_TAIL:]
    if "\n" in head[len(head) // 2 :]:
        head = head[: head.rindex("\n")]
    if "\n" in tail[: len(tail) // 2]:
        tail = tail[tail.index("\n") + 1 :]
    first = head.count("\n") + 2
    left = text.count("\n", len(head), len(text) - len(tail))
    what = f"{left - 1} lines" if left > 1 else f"{len(text) - len(head) - len(tail)} characters"
    return f'{head}\n… {what} left out; read_output(handle="{handle}", start={first}) …\n{tail}'
