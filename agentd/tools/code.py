"""`run_tests`: the project's own tests, and which of them passed."""

from __future__ import annotations

import json
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from agentd.errors import Denied, ToolFailed, ToolMisused
from agentd.sandbox.launch import Completed
from agentd.tools.programs import execute, must_end
from agentd.tools.tool import ToolContext, grounded, tool
from agentd.types import Action, Effect, Grounding, ToolResult

TIMEOUT = 300.0
"""Seconds."""
MAX_OUTPUT = 4_000_000
MAX_REPORT = 50_000_000
"""Bytes."""

_PYTEST = ("python", "-m", "pytest")
_NOTHING_FOUND = 5
_OUTCOMES = ("passed", "skipped", "failure", "error")
"""Tags of a JUnit report, from good to bad."""
_SETTINGS = ("pytest.ini", ".pytest.ini", "conftest.py")
_NAMED = 10
"""So many failed tests stand in the sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Node ids by outcome; an error is a test or file that could not be run."""

    passed: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()

    def __str__(self) -> str:
        bad = [*self.failed, *self.errors]
        total = len(self.passed) + len(bad) + len(self.skipped)
        named = ", ".join(bad[:_NAMED]) + (f" and {len(bad) - _NAMED} more" if len(bad) > _NAMED else "")
        counts = [(len(self.passed), "passed"), (len(self.skipped), "skipped"), (len(self.failed), "failed")]
        counts.append((len(self.errors), "with an error" if len(self.errors) == 1 else "with errors"))
        words = ", ".join(f"{number} {word}" for number, word in counts if number)
        return f"{total} test{'' if total == 1 else 's'}: {words}" + (f": {named}" if bad else ".")


def _actions(args: Any) -> Sequence[Action]:
    return [Action(kind="test.run", argv=(*_PYTEST, *filter(None, [args.target])))]


# A run that a crash cut off is run again: tests are made to be repeated, and what counts is how they end now.
@tool(
    actions=_actions,
    effect=Effect.IDEMPOTENT,
    examples=(
        "Run the tests",
        "Do the tests pass?",
        "Which tests fail?",
        "Run the tests in {target}",
        "Is everything green?",
        "Run the test suite and say what fails",
        "Are all tests passing?",
        "Test the project and tell me what is broken",
        "How many tests are there, and do they all succeed?",
    ),
)
def run_tests(
    ctx: ToolContext,
    target: Annotated[
        str, Field(max_length=1000), grounded(Grounding.PATH, "test file or folder, or file::test; empty: all")
    ] = "",
) -> ToolResult:
    """Run the project's tests and say which passed and which failed.

    Python tests run with pytest; in a project without them, `npm test` of package.json. They run as programs of the
    project, with a clean environment and a time limit.
    """
    if not target and _is_javascript(ctx):
        return _npm(ctx)
    if target:
        _check(ctx, target)
    with tempfile.TemporaryDirectory(prefix="agentd-tests-", ignore_cleanup_errors=True) as folder:
        report = Path(folder) / "report.xml"
        options = ("-q", "--color=no", "-o", "junit_family=xunit1", f"--junit-xml={report}")
        argv = (*_PYTEST, *options, *filter(None, [target]))
        done = execute(ctx, argv, timeout=TIMEOUT, max_output=MAX_OUTPUT, outputs=(Path(folder),))
        must_end(done, "pytest", TIMEOUT)
        results = _read(report)
    return _told(done, results, target)


def _told(done: Completed, results: Results | None, target: str) -> ToolResult:
    if done.code == _NOTHING_FOUND:
        text = f"There are no tests in {target}." if target else "There are no tests here."
        return ToolResult(ok=True, text=text, data={"green": False, "passed": [], "failed": [], "errors": []})
    output = "\n".join(filter(None, (done.stdout.strip(), done.stderr.strip())))
    if results is None or not (results.passed or results.failed or results.errors or results.skipped):
        told = [line for line in output.splitlines() if line.startswith(("ERROR", "E  ", "ImportError"))]
        why = (told or output.splitlines() or ["no output"])[0]
        raise ToolFailed(f"pytest could not run the tests (exit code {done.code}): {why}", hint=output[-1500:])
    green = done.code == 0
    data = {
        "green": green,
        "passed": list(results.passed),
        "failed": list(results.failed),
        "errors": list(results.errors),
        "skipped": list(results.skipped),
        "seconds": round(done.seconds, 2),
    }
    return ToolResult(ok=True, text=str(results) if green else f"{results}\n\n{output}", data=data)


def _read(report: Path) -> Results | None:
    """What pytest reported; None when there is no usable report. The tests may have written anything there."""
    if not report.is_file() or report.is_symlink() or report.stat().st_size > MAX_REPORT:
        return None
    try:
        cases = ElementTree.parse(report).getroot().iter("testcase")
    except (ElementTree.ParseError, OSError):
        return None
    worst: dict[str, int] = {}
    for case in cases:
        outcomes = [_OUTCOMES.index(child.tag) for child in case if child.tag in _OUTCOMES]
        name = _node_id(case.get("file", ""), case.get("classname", ""), case.get("name", ""))
        worst[name] = max([worst.get(name, 0), *outcomes])
    names = [tuple(name for name, outcome in worst.items() if outcome == kind) for kind in range(len(_OUTCOMES))]
    return Results(passed=names[0], skipped=names[1], failed=names[2], errors=names[3])


def _node_id(file: str, owner: str, name: str) -> str:
    """`tests/test_a.py::TestB::test_c`, as pytest takes it back as an argument."""
    file = file.replace("\\", "/")
    module = file.removesuffix(".py").replace("/", ".")
    if not owner and name == module:
        return file  # it could not be imported
    classes = [part for part in owner.removeprefix(module).split(".") if part]
    return "::".join([*filter(None, [file]), *classes, name])


def _check(ctx: ToolContext, target: str) -> None:
    path = target.split("::", 1)[0]
    if target.startswith("-"):
        raise ToolMisused(f"target {target!r} is an option", hint="name a test file, a folder, or file::test")
    if ctx.workspace.stat(path) is None:
        raise ctx.workspace.missing(path)


def _is_javascript(ctx: ToolContext) -> bool:
    """Whether package.json has a test script and there is no Python test."""
    for name in ctx.workspace.files():
        base = PurePosixPath(name).name
        if base in _SETTINGS or (base.endswith(".py") and (base.startswith("test_") or base.endswith("_test.py"))):
            return False
    if ctx.workspace.stat("package.json") is None:
        return False
    try:
        scripts = json.loads(ctx.workspace.read_bytes("package.json", 1_000_000)).get("scripts", {})
        return "no test specified" not in scripts.get("test", "no test specified")
    except (ValueError, AttributeError, TypeError, ToolFailed, Denied):
        return False


def _npm(ctx: ToolContext) -> ToolResult:
    done = execute(ctx, ("npm", "test", "--silent"), timeout=TIMEOUT, max_output=MAX_OUTPUT)
    must_end(done, "npm test", TIMEOUT)
    green = done.code == 0
    output = "\n".join(filter(None, (done.stdout.strip(), done.stderr.strip())))
    sentence = "npm test passed." if green else f"npm test failed with exit code {done.code}."
    data = {"green": green, "passed": [], "failed": [], "errors": [], "seconds": round(done.seconds, 2)}
    return ToolResult(ok=True, text=f"{sentence}\n\n{output}".rstrip(), data=data)
