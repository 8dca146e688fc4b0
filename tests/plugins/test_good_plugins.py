"""Plugins in plain Python, as a model writes them: the gate accepts them, and they do in a session what Python does."""

from __future__ import annotations

import json
import types
from pathlib import Path
from typing import Any

import pytest

from agentd.sandbox.guest.gate import check
from agentd.sandbox.guest.session import Session

GOOD = sorted((Path(__file__).parent / "corpus" / "good").glob("*.py"))


def refusing(name: str, parameters: dict[str, Any]) -> Any:
    raise PermissionError(name)


def call_and_result(source: str) -> tuple[dict[str, Any], Any]:
    """Of the first line, `# ARGS -> RESULT`."""
    first, _, result = source.splitlines()[0].removeprefix("# ").rpartition(" -> ")
    return json.loads(first), json.loads(result)


def test_there_are_enough() -> None:
    assert len(GOOD) >= 50


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_plugin_is_accepted_and_does_what_it_does_in_python(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    args, expected = call_and_result(source)
    report = check(source.encode(), ())
    assert not report.violations
    answer = Session(source, (), refusing, seed=1).call(report.entries[-1], args)
    assert answer["ok"], answer
    assert answer["result"] == expected
    if "random" not in path.stem:
        assert answer["result"] == json.loads(json.dumps(plainly(source, report.entries[-1], args), default=str))


def plainly(source: str, entry: str, args: dict[str, Any]) -> Any:
    module = types.ModuleType("plain")
    exec(compile(source, "plain", "exec", dont_inherit=True), vars(module))
    return getattr(module, entry)(**args)
