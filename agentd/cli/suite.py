"""Task suites: what a YAML file may say, and how a task is judged by what it expects alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from agentd.cli.follow import ENDED
from agentd.errors import BadInput, nearest
from agentd.sandbox import launch

DEFAULT_LEVEL = 3
DEFAULT_STATES = ("verified", "claimed")
COMMAND_SECONDS = 300.0

_STATES = ENDED | {"waiting"}
_GIT_ENV = {
    "GIT_CONFIG_GLOBAL": os.devnull,
    "GIT_CONFIG_NOSYSTEM": "1",
    "GIT_AUTHOR_DATE": "2026-01-01T00:00:00Z",
    "GIT_COMMITTER_DATE": "2026-01-01T00:00:00Z",
}
# What running the code of a task leaves behind, which no suite means by "others".
_BY_PRODUCTS = frozenset({".git", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FileExpectation:
    equals: str | None = None
    contains: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    absent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """Everything must hold for the task to pass."""

    state: tuple[str, ...] = DEFAULT_STATES
    answer_contains: tuple[str, ...] = ()
    answer_lacks: tuple[str, ...] = ()
    answer_matches: str | None = None
    files: Mapping[str, FileExpectation] = field(default_factory=dict)
    unchanged: tuple[str, ...] = ()
    others: bool = False
    """Also every file that neither `files` nor `unchanged` names."""
    command: str | None = None
    plugin: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteTask:
    id: str
    kind: str
    goal: str
    files: Mapping[str, str] = field(default_factory=dict)
    git: bool = False
    setup: str | None = None
    level: int = DEFAULT_LEVEL
    expect: Expectation = field(default_factory=Expectation)


# reading --------------------------------------------------------------------------------------------------------------


def load_suite(path: Path) -> list[SuiteTask]:
    """The tasks of a suite file, in its order. `BadInput` names the file, the task's id, the key and what is wrong."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        entries = YAML(typ="safe", pure=True).load(text)
    except FileNotFoundError:
        raise BadInput(f"there is no suite {path}", hint="name a YAML file with a list of tasks") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"the suite {path} cannot be read: {error}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 1
        raise BadInput(f"{path}:{line}: not YAML: {error.problem or error.context}") from None
    except YAMLError as error:
        raise BadInput(f"{path}: not YAML: {error}") from None
    if not isinstance(entries, list) or not entries:
        raise BadInput(f"{path}: a suite is a list of tasks that is not empty", hint="begin each with `- id: …`")
    tasks = [_task(_Part(f"{path}: task {_name(entry, number)}", entry)) for number, entry in enumerate(entries, 1)]
    _refuse_twins(path, tasks)
    return tasks


def _name(entry: object, number: int) -> str:
    named = entry.get("id") if isinstance(entry, dict) else None
    return repr(named) if isinstance(named, str) else f"number {number}"


def _refuse_twins(path: Path, tasks: Sequence[SuiteTask]) -> None:
    seen: set[str] = set()
    for task in tasks:
        if task.id in seen:
            raise BadInput(f"{path}: the id {task.id!r} is there twice", hint="give each task an id of its own")
        seen.add(task.id)


class _Part:
    """A mapping of the file; each getter refuses a value of the wrong form, and names where it stands."""

    def __init__(self, where: str, content: object) -> None:
        self.where = where
        if not isinstance(content, dict):
            raise BadInput(f"{where} must be a mapping, not {content!r:.60}")
        self.content: dict[Any, Any] = content

    def only(self, known: Collection[str]) -> None:
        for key in self.content:
            if key not in known:
                raise BadInput(f"{self.where}: unknown key {key!r}", hint=nearest(str(key), known))

    def fail(self, key: str, wanted: str) -> BadInput:
        return BadInput(f"{self.where}: {key} must be {wanted}, not {self.content.get(key)!r:.60}")

    def text(self, key: str) -> str | None:
        value = self.content.get(key)
        if value is not None and not isinstance(value, str):
            raise self.fail(key, "a text (in quotes)")
        return value

    def required(self, key: str) -> str:
        value = self.text(key)
        if value is None or not value.strip():
            raise BadInput(f"{self.where}: {key} is missing")
        return value

    def flag(self, key: str) -> bool:
        value = self.content.get(key, False)
        if not isinstance(value, bool):
            raise self.fail(key, "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.content.get(key, ())
        values = [value] if isinstance(value, str) else value
        if not isinstance(values, list | tuple) or not all(isinstance(entry, str) for entry in values):
            raise self.fail(key, "a text or a list of texts (in quotes)")
        return tuple(values)

    def part(self, key: str) -> _Part:
        return _Part(f"{self.where}: {key}", self.content.get(key, {}))


def _task(part: _Part) -> SuiteTask:
    part.only(("id", "kind", "goal", "files", "git", "setup", "level", "expect"))
    files = part.part("files")
    for name in files.content:
        _check_path(files.where, name)
        if files.text(name) is None:
            raise files.fail(name, "a text (in quotes)")
    level = part.content.get("level", DEFAULT_LEVEL)
    if isinstance(level, bool) or level not in range(5):
        raise part.fail("level", "0 to 4")
    return SuiteTask(
        id=part.required("id"),
        kind=part.required("kind"),
        goal=part.required("goal"),
        files=files.content,
        git=part.flag("git"),
        setup=part.text("setup"),
        level=level,
        expect=_expectation(part.part("expect")),
    )


def _expectation(part: _Part) -> Expectation:
    part.only(("state", "answer", "files", "unchanged", "others", "command", "plugin"))
    state = part.texts("state") or DEFAULT_STATES
    if unknown := [each for each in state if each not in _STATES]:
        raise BadInput(f"{part.where}: unknown state {unknown[0]!r}", hint=f"there are {', '.join(sorted(_STATES))}")
    answer = part.part("answer")
    answer.only(("contains", "lacks", "matches"))
    unchanged, others = _unchanged(part)
    files = part.part("files")
    return Expectation(
        state=state,
        answer_contains=answer.texts("contains"),
        answer_lacks=answer.texts("lacks"),
        answer_matches=_regex(answer, "matches"),
        files={_check_path(files.where, name): _file(files.part(name)) for name in files.content},
        unchanged=unchanged,
        others=others,
        command=part.text("command"),
        plugin=part.flag("plugin"),
    )


def _unchanged(part: _Part) -> tuple[tuple[str, ...], bool]:
    """Paths, and whether all others count too: `others: true` beside them, among them, or in their place."""
    others = part.flag("others")
    value = part.content.get("unchanged", [])
    entries = value if isinstance(value, list) else [value]
    paths = []
    for entry in entries:
        if isinstance(entry, dict):
            inner = _Part(f"{part.where}: unchanged", entry)
            inner.only(("others",))
            others = inner.flag("others") or others
        elif isinstance(entry, str):
            paths.append(_check_path(f"{part.where}: unchanged", entry))
        else:
            raise part.fail("unchanged", "a list of paths")
    return tuple(paths), others


def _file(part: _Part) -> FileExpectation:
    part.only(("equals", "contains", "lacks", "absent"))
    return FileExpectation(
        equals=part.text("equals"),
        contains=part.texts("contains"),
        lacks=part.texts("lacks"),
        absent=part.flag("absent"),
    )


def _regex(part: _Part, key: str) -> str | None:
    pattern = part.text(key)
    try:
        re.compile(pattern or "")
    except re.error as error:
        raise BadInput(f"{part.where}: {key} is no regular expression: {error}") from None
    return pattern


def _check_path(where: str, name: object) -> str:
    """A path below the workspace, with forward slashes."""
    if not isinstance(name, str) or not name or "\0" in name:
        raise BadInput(f"{where}: {name!r} is no path")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in path.parts[0]:
        raise BadInput(f"{where}: the path {name!r} leaves the workspace", hint="paths are relative to it")
    return name


# workspaces -----------------------------------------------------------------------------------------------------------


@contextmanager
def fresh_workspace(task: SuiteTask) -> Iterator[Path]:
    """A new folder with the task's files, committed and set up as it says; removed afterwards."""
    root = Path(tempfile.mkdtemp(prefix="agentd-eval-")).resolve()
    try:
        for name, text in task.files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="")
        if task.git:
            _commit_all(root)
        if task.setup:
            _run_line(task.setup, root, "setup")
        yield root
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _commit_all(root: Path) -> None:
    identity = ("-c", "user.name=suite", "-c", "user.email=suite@localhost", "-c", "commit.gpgsign=false")
    for arguments in (
        ("init", "-q", "-b", "main"),
        ("add", "-A"),
        (*identity, "commit", "-q", "--allow-empty", "-m", "Start"),
    ):
        done = launch.run(["git", *arguments], cwd=root, env=launch.clean_env() | _GIT_ENV, timeout=60)
        if done.code != 0:
            raise BadInput(
                f"git {arguments[0]} failed in a fresh workspace: {done.stderr.strip()}", hint="is git installed?"
            )


def _run_line(line: str, root: Path, what: str) -> None:
    done = launch.run(["sh", "-c", line], cwd=root, env=_environment(), timeout=COMMAND_SECONDS)
    if done.code != 0:
        raise BadInput(f"{what} {line!r} failed: {_last_line(done)}")


def _environment() -> dict[str, str]:
    """Clean, with this very Python first, so that `python` in a suite means one that has pytest."""
    env = launch.clean_env()
    return env | {"PATH": os.pathsep.join([str(Path(sys.executable).parent), env.get("PATH", os.defpath)])}


def snapshot(root: Path) -> dict[str, bytes]:
    """The bytes of every file, by path; what running code leaves behind is left out."""
    found = {}
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(set(folders) - _BY_PRODUCTS)
        for name in sorted(names):
            path = Path(folder, name)
            if not path.is_symlink() and path.is_file():
                found[path.relative_to(root).as_posix()] = path.read_bytes()
    return found


# judging --------------------------------------------------------------------------------------------------------------


def judge(expect: Expectation, task: Mapping[str, Any], root: Path, before: Mapping[str, bytes]) -> list[str]:
    """Why the task did not do what was expected; empty when it did.

    `task` is what the daemon says of it at its end, `before` the snapshot from before it was submitted.
    """
    after = snapshot(root)
    return [
        *_state_faults(expect, task),
        *_answer_faults(expect, task["report"] or {}),
        *_file_faults(expect, after),
        *_unchanged_faults(expect, before, after),
        *_command_faults(expect, root),
        *_plugin_faults(expect, task["report"] or {}),
    ]


def _plugin_faults(expect: Expectation, report: Mapping[str, Any]) -> Iterator[str]:
    if expect.plugin and not report.get("made"):
        yield "no plugin was registered and used"


def _state_faults(expect: Expectation, task: Mapping[str, Any]) -> Iterator[str]:
    if task["state"] not in expect.state:
        reason = (task["report"] or {}).get("reason") or task["question"]
        yield f"ended as {task['state']}, not {' or '.join(expect.state)}" + (f" ({reason})" if reason else "")


def _answer_faults(expect: Expectation, report: Mapping[str, Any]) -> Iterator[str]:
    answer = report.get("answer", "")
    for part in expect.answer_contains:
        if part not in answer:
            yield f"the answer lacks {part!r}: {answer!r:.200}"
    for part in expect.answer_lacks:
        if part in answer or part in report.get("reason", ""):
            yield f"the answer has {part!r}"
    if expect.answer_matches is not None and not re.search(expect.answer_matches, answer):
        yield f"the answer does not match {expect.answer_matches!r}: {answer!r:.200}"


def _file_faults(expect: Expectation, after: Mapping[str, bytes]) -> Iterator[str]:
    for name, wanted in expect.files.items():
        content = after.get(_normal(name))
        if wanted.absent:
            if content is not None:
                yield f"{name} is still there"
            continue
        if content is None:
            yield f"{name} is not there"
            continue
        text = content.decode("utf-8", "replace")
        if wanted.equals is not None and content != wanted.equals.encode():
            yield f"{name} is {text!r:.200}, not {wanted.equals!r:.200}"
        for part in wanted.contains:
            if part not in text:
                yield f"{name} lacks {part!r}: {text!r:.200}"
        for part in wanted.lacks:
            if part in text:
                yield f"{name} has {part!r}"


def _unchanged_faults(expect: Expectation, before: Mapping[str, bytes], after: Mapping[str, bytes]) -> Iterator[str]:
    names = [_normal(name) for name in expect.unchanged]
    if expect.others:
        named = {_normal(name) for name in expect.files} | set(names)
        names += sorted((before.keys() | after.keys()) - named)
    for name in names:
        if before.get(name) != after.get(name):
            what = "was added" if name not in before else "was deleted" if name not in after else "was changed"
            yield f"{name} {what}"


def _command_faults(expect: Expectation, root: Path) -> Iterator[str]:
    if expect.command is None:
        return
    done = launch.run(["sh", "-c", expect.command], cwd=root, env=_environment(), timeout=COMMAND_SECONDS)
    if done.code != 0:
        yield f"`{expect.command}` did not exit 0: {_last_line(done)}"


def _last_line(done: launch.Completed) -> str:
    if done.timed_out:
        return f"stopped after {done.seconds:.0f} s"
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()
    return f"exit code {done.code}" + (f", {lines[-1][:200]}" if lines else "")


def _normal(name: str) -> str:
    return PurePosixPath(name).as_posix()
