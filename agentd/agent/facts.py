"""Checks that look at what a task changed: where, whether it gives secrets away, and whether the docs still hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import islice

from agentd.agent.contract import outside
from agentd.agent.surface import changed_names
from agentd.agent.work import Work
from agentd.errors import Denied, ToolFailed
from agentd.security.scan import secrets_of
from agentd.types import Check, CheckKind, CheckResult, Effect, JsonObject
from agentd.workspace.paths import Workspace

_PAGE = re.compile(r"\.(?:md|rst|adoc|txt)$", re.IGNORECASE)
_PAGES_SEEN = 20_000
"""Files of the workspace."""
_PAGE_BYTES = 1_000_000
_MOST_TOLD = 10


def _within(work: Work, check: Check) -> CheckResult:
    def look() -> tuple[list[str], str]:
        changed = dict.fromkeys([*work.changed, *(change.path for change in work.changes())])
        away = [f"{path} was changed" for path in changed if path not in work.restored and outside([check], path)]
        return away, f"{len(changed)} changed paths lie inside"

    return _found(work, check, look)


def _no_secrets(work: Work, check: Check) -> CheckResult:
    """Only what was added counts; what it is stays unsaid."""

    def look() -> tuple[list[str], str]:
        changes = work.changes()
        found = secrets_of("".join(change.diff for change in changes), work.redactor.known())
        return [f"{path}:{line}: {kind}" for path, line, kind in found], f"{len(changes)} changed files looked at"

    return _found(work, check, look)


def _docs_hold(work: Work, check: Check) -> CheckResult:
    """A page that names something public which is gone or different, and was not changed with it, may be wrong now."""

    def look() -> tuple[list[str], str]:
        changes = work.changes()
        names, touched = changed_names(changes), {change.path for change in changes}
        pages = [path for path in islice(work.workspace.files(), _PAGES_SEEN) if _PAGE.search(path)] if names else []
        stale = (
            f"{page} still speaks of {name}, which changed in {names[name]}"
            for page in pages
            if page not in touched
            for name in _named_in(work.workspace, page, names)
        )
        return list(islice(stale, _MOST_TOLD)), f"{len(names)} public names changed, {len(pages)} pages looked at"

    return _found(work, check, look)


def _named_in(workspace: Workspace, page: str, names: Iterable[str]) -> list[str]:
    try:
        text = workspace.read_bytes(page, _PAGE_BYTES).decode("utf-8", "replace")
    except (ToolFailed, Denied):
        return []
    return [name for name in names if re.search(rf"`[^`\n]*\b{name}\b[^`\n]*`|\b{name}\(", text)]


def _found(work: Work, check: Check, look: Callable[[], tuple[list[str], str]]) -> CheckResult:
    """What `look` finds wrong, or the words for nothing; journalled, and on record like a command's result."""

    def do() -> JsonObject:
        wrong, fine = look()
        detail = "; ".join(wrong) or fine
        return {"passed": not wrong, "detail": detail, "sha256": sha256(detail.encode()).hexdigest()}

    def record(found: JsonObject) -> None:
        facts = {"check": check.kind.value, "by": check.by, "passed": found["passed"], "sha256": found["sha256"]}
        work.record("check.run", work.task.id, facts)

    return CheckResult(check=check, **work.scope.journal.once(work.key(), Effect.PURE, do, record=record))


FACTS: Mapping[CheckKind, Callable[[Work, Check], CheckResult]] = {
    CheckKind.BOUNDARIES: _within,
    CheckKind.SECRETS: _no_secrets,
    CheckKind.DOCS: _docs_hold,
}


def describe(results: Sequence[CheckResult]) -> str:
    """One line a check: what it was, whether it passed, and why not."""
    return "\n".join(
        f"check {result.check}: {'passed' if result.passed else 'failed: ' + result.detail}" for result in results
    )
