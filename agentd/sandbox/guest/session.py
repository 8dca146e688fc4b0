"""A plugin that is loaded: its module level has run, and its functions can be called."""

from __future__ import annotations

import ast
import decimal
import json
import types
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from .builtin_names import BUILT_IN, GUARDS
from .guards import FILE, NAME, Unavailable
from .language import compiled
from .outside import CURRENT, Ask, Outside
from .patience import TooSlow
from .plain import TooLarge, to_json

MAX_MESSAGE = 2_000
PATIENCE = 0.5
"""Seconds of a match, or a fifth of what a call may take."""
FRAME = 200
"""Bytes that an answer has beside its result and what was printed."""


class Refused(SyntaxError):
    """The source says what the language of plugins does not have."""


class Session:
    """Runs the module level of `source`; `call` then answers, also when that failed.

    `grants` names the capability façades that it may import, `ask` does what it requests through them.
    """

    def __init__(
        self,
        source: str,
        grants: Sequence[str],
        ask: Ask,
        seed: int = 0,
        output_bytes: int = 1_000_000,
        seconds: float = 5.0,
    ) -> None:
        self._output_bytes = output_bytes
        self._outside = Outside(ask, grants, seed, output_bytes // 16, min(PATIENCE, seconds / 5))
        self._source = source
        self._code: types.CodeType | None = None
        self._load()

    def call(self, entry: str, args: dict[str, Any], seed: int | None = None) -> dict[str, Any]:
        """`{"ok": True, "result": JSON, "printed"}` or `{"ok": False, "error", "limit", "printed"}`; raises nothing.

        With a `seed` the module begins anew before, and draws from it: what earlier calls left in it is gone.
        `limit` is `output` or `memory` where one of these was met, `refused` for what is not given here, else None.
        """
        if seed is not None:
            self._outside.random.seed(seed)
            self._load()
        if self._failure is not None:
            return dict(self._failure)
        return self._within(lambda: self._entry(entry)(**args))

    def _load(self) -> None:
        self._globals: dict[str, Any] = {"__name__": NAME, "__builtins__": dict(BUILT_IN), **GUARDS}
        self._outside.loading = True
        decimal.setcontext(decimal.Context())
        loaded = self._within(self._run_module)
        self._outside.loading = False
        self._failure = None if loaded["ok"] else loaded

    def _run_module(self) -> None:
        if self._code is None:
            self._code = code_of(self._source)
        exec(self._code, self._globals)

    def _entry(self, entry: str) -> Callable[..., Any]:
        function = None if entry.startswith("_") else self._globals.get(entry)
        if isinstance(function, types.FunctionType):
            return function
        there = (name for name, value in self._globals.items() if isinstance(value, types.FunctionType))
        names = ", ".join(name for name in there if not name.startswith("_"))
        raise NameError(f"there is no function {entry[:100]!r}; there are {names or 'none'}")

    def _within(self, act: Callable[[], Any]) -> dict[str, Any]:
        token = CURRENT.set(self._outside)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return self._ended(act)
        finally:
            CURRENT.reset(token)

    def _ended(self, act: Callable[[], Any]) -> dict[str, Any]:
        try:
            value = act()
            self._outside.close_files()
            printed = self._outside.take_printed()
            result, _ = to_json(value, self._output_bytes - len(json.dumps(printed)) - FRAME)
            return {"ok": True, "result": result, "printed": printed}
        except BaseException as error:  # whatever a plugin raises, SystemExit too, is its answer
            return self._failed(error)

    def _failed(self, error: BaseException) -> dict[str, Any]:
        limit = next((name for kind, name in _LIMITS.items() if isinstance(error, kind)), None)
        self._outside.forget_files()
        return {"ok": False, "error": told(error), "limit": limit, "printed": self._outside.take_printed()}


_LIMITS: dict[type[BaseException], str] = {
    TooLarge: "output",
    TooSlow: "time",
    MemoryError: "memory",
    Unavailable: "refused",
    Refused: "refused",
    PermissionError: "refused",
    ImportError: "refused",
}


def code_of(source: str) -> types.CodeType:
    """The code of a module. Raises Refused with each line that is refused, and SyntaxError."""
    code, violations = compiled(ast.parse(source, FILE))
    if code is None:
        raise Refused("; ".join(f"line {found.line}: {found.message}" for found in violations))
    return code


def told(error: BaseException) -> str:
    """`ValueError: its words`, whatever the error does when it is asked for them."""
    try:
        words = str.__str__(str(error))  # not what a plugin's own kind of text says that it is
    except BaseException:
        words = "(its text could not be had)"
    return f"{type(error).__name__}: {words[:MAX_MESSAGE]}".encode("utf-8", "replace").decode()
