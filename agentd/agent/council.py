"""The council: six roles say to the same words what they think, at once; what that comes to is arithmetic."""

from __future__ import annotations

import contextvars
import hashlib
import json
import shlex
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

from pydantic import TypeAdapter

from agentd.agent.calls import Record
from agentd.agent.context import fill, prompt, shorten
from agentd.agent.fold import WEIGHTS, check_words, fold
from agentd.backends.structured import ask
from agentd.errors import ModelError, ModelMissing
from agentd.events import EventKind
from agentd.plugins.forge import Commission
from agentd.plugins.spec import Spec
from agentd.types import (
    AccessLevel,
    Check,
    CheckKind,
    Effect,
    Journal,
    JsonObject,
    Message,
    Model,
    Opinion,
    Plan,
    Risk,
    Stance,
    Verdict,
)

ROLES = tuple(WEIGHTS)
SEAT = "critic"
"""The role of models that sits in every chair: the prefix that all are shown is read once, by one model."""
PLUGIN_ROLES = ("security", "reviewer")
MOST_RISKS = 5
MOST_CHECKS = 3
"""Of one role."""
FILES_SHOWN = 60
LONGEST_REASON = 300
LONGEST_CHECK = 1000
LONGEST_SUBJECT = 16_000
"""Characters of the plan, the diff or the question."""
LONGEST_PLUGIN = 60_000
"""Characters of spec and code; they are shown whole or not at all."""

_VERDICT = TypeAdapter(Verdict)
_TITLES = {
    "plan": "A plan, before it is followed",
    "change": "A change, before it counts",
    "question": "A question",
    "plugin": "A new tool, before it is installed",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Matter:
    """What a council is asked about: the same for every role."""

    about: Literal["plan", "change", "question", "plugin"]
    goal: str
    subject: str
    """The plan or the diff in words; of a question nothing."""
    workspace: str
    files: Sequence[str] = ()
    tools: Sequence[str] = ()
    level: AccessLevel = AccessLevel.READ_ONLY
    checks: Sequence[Check] = ()
    risk: Risk | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Proposed:
    """A check as a model gives it."""

    kind: Literal["command", "file_exists", "file_absent", "file_contains"] = "command"
    target: str
    text: str = ""

    @property
    def check(self) -> Check:
        return Check(kind=CheckKind(self.kind), target=self.target.strip(), text=self.text, by="council")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    """An opinion as a model gives it."""

    decision: Stance
    because: str
    risks: tuple[str, ...] = ()
    checks: tuple[_Proposed, ...] = ()
    confidence: int = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Minutes:
    """Where a council is kept: its verdict and its opinions under keys that begin with `key`."""

    task: str
    key: str
    journal: Journal
    record: Record
    emit: Record


def convene(
    matter: Matter,
    minutes: Minutes,
    model: Callable[[Callable[[], str]], Model],
    cancel: threading.Event | None = None,
) -> Verdict:
    """Hear every role and fold what they say; once given, a verdict stands. `model(key)` is asked under these keys."""

    def do() -> JsonObject:
        kept: JsonObject = _VERDICT.dump_python(_held(matter, minutes, model, cancel), mode="json")
        return kept

    def record(kept: JsonObject) -> None:
        minutes.journal.verdict_given(minutes.key, _VERDICT.validate_python(kept))
        minutes.record("council.verdict", minutes.task, _facts(kept))
        data = {name: kept[name] for name in ("about", "decision", "because", "vetoed", "absent", "checklist")}
        minutes.emit(EventKind.VERDICT_GIVEN, minutes.task, data | {"opinions": _decisions(kept)})

    return _VERDICT.validate_python(minutes.journal.once(f"{minutes.key}-verdict", Effect.PURE, do, record=record))


def no_council(why: str) -> ModelMissing:
    """A small model's opinions are worth nothing, so it has no seat."""
    return ModelMissing(
        f"no council could be held: {why}",
        hint=f"give the role {SEAT} a larger model: `agentd model pull`, `agentd setup`",
    )


def on_plugin(commission: Commission, spec: Spec, code: str) -> list[Opinion]:
    """Security's and the Reviewer's, one after the other: each call takes the next key of the task. None to code that
    is too long to be shown whole: what nobody has seen is not accepted."""
    manifest = json.dumps(spec.model_dump(mode="json"), ensure_ascii=False, indent=1)
    subject = f"What it is to do, and what it may:\n{manifest}\n\nIts code:\n{code}"
    if len(subject) > LONGEST_PLUGIN:
        return []
    matter = Matter(
        about="plugin",
        goal=commission.goal,
        subject=subject,
        workspace="any; a plugin is code in a sandbox that reaches only what its permissions name",
        level=commission.level,
    )
    shared = shared_words(matter)
    heard = [_opinion(shared, role, commission.model(SEAT), None) for role in PLUGIN_ROLES]
    return [each for each in heard if isinstance(each, Opinion)]


def hear(matter: Matter, models: Mapping[str, Model], cancel: threading.Event | None = None) -> list[Opinion | str]:
    """What the roles say to their models' words, at once; in the place of an opinion that cannot be used, why not.

    A failure of a model that may pass leaves as an exception.
    """
    shared = shared_words(matter)
    with ThreadPoolExecutor(len(models), thread_name_prefix="council") as pool:
        waiting = [
            pool.submit(contextvars.copy_context().run, _opinion, shared, role, model, cancel)
            for role, model in models.items()
        ]
    return [each.result() for each in waiting]


def shared_words(matter: Matter) -> str:
    """What every role is shown, to the byte the same, so that a model reads it once."""
    subject = matter.subject or matter.goal
    risk = matter.risk
    return fill(
        "council",
        about=_TITLES[matter.about],
        workspace=matter.workspace,
        level=f"{int(matter.level)} ({matter.level.name.lower().replace('_', ' ')})",
        tools=", ".join(matter.tools) or "none",
        files=shorten(", ".join(matter.files), 2000) or "none",
        risk=f"{risk.score} of 100: {'; '.join(risk.reasons) or 'nothing stands out'}" if risk else "not measured",
        checks="\n".join(f"- {check_words(check)}" for check in matter.checks) or "none",
        most_risks=MOST_RISKS,
        most_checks=MOST_CHECKS,
        mark=hashlib.sha256(f"{matter.goal}\0{subject}".encode("utf-8", "surrogatepass")).hexdigest()[:12],
        goal=shorten(matter.goal, 6000),
        subject=shorten(matter.subject, LONGEST_PLUGIN if matter.about == "plugin" else LONGEST_SUBJECT) or "as above",
    )


def plan_words(plan: Plan) -> str:
    lines = [plan.note] if plan.note else []
    for number, step in enumerate(plan.steps, 1):
        checks = "".join(f"; check: {check_words(check)}" for check in step.checks)
        lines.append(f"{number}. {step.intent}" + (f" (expected: {step.expect})" if step.expect else "") + checks)
    return "\n".join(lines)


def _held(
    matter: Matter, minutes: Minutes, model: Callable[[Callable[[], str]], Model], cancel: threading.Event | None
) -> Verdict:
    # Each role has its keys, whichever is the first to speak.
    models = {role: model(map(f"{minutes.key}-{role}-{{}}".format, count(1)).__next__) for role in ROLES}
    heard = hear(matter, models, cancel)
    verdict = fold(each for each in heard if isinstance(each, Opinion))
    why = next((each for each in heard if isinstance(each, str)), "")
    because = f"{verdict.because} ({shorten(why, LONGEST_REASON)})" if why else verdict.because
    return replace(verdict, about=matter.about, because=because)


def _opinion(shared: str, role: str, model: Model, cancel: threading.Event | None) -> Opinion | str:
    words = f"{shared}\n\n{prompt(f'roles/{role}').strip()}"
    try:
        said = ask(model, [Message(role="user", content=words)], _Said, max_tokens=1024, cancel=cancel, check=_wrong)
    except ModelError as error:
        if error.retryable:
            raise
        return error.message
    return Opinion(
        role=role,
        decision=said.decision,
        because=shorten(" ".join(said.because.split()), LONGEST_REASON),
        risks=tuple(shorten(" ".join(risk.split()), LONGEST_REASON) for risk in said.risks if risk.strip()),
        checks=tuple(proposed.check for proposed in said.checks),
        confidence=said.confidence,
    )


def _wrong(said: _Said) -> str:
    """What is wrong with an opinion, as a model should be told; empty when nothing is."""
    if not said.because.strip():
        return "because: expected a reason, got an empty text"
    if not 0 <= said.confidence <= 10:
        return f"confidence: expected 0 to 10, got {said.confidence}"
    if len(said.risks) > MOST_RISKS or len(said.checks) > MOST_CHECKS:
        return f"expected at most {MOST_RISKS} risks and {MOST_CHECKS} checks"
    return next(filter(None, map(_wrong_check, said.checks)), "")


def _wrong_check(check: _Proposed) -> str:
    if not check.target.strip() or len(check.target) + len(check.text) > LONGEST_CHECK:
        return f"checks: expected 1 to {LONGEST_CHECK} characters, got {check.target[:80]!r}"
    if not (check.target + check.text.replace("\n", "")).isprintable():
        return f"checks: expected plain text, got {check.target[:80]!r}"
    if check.kind == "file_contains" and not check.text:
        return f"checks: expected the text that {check.target[:80]} must contain"
    if check.kind != "command":
        return ""
    try:
        return "" if shlex.split(check.target) else "checks: expected a command line"
    except ValueError as error:
        return f"checks: {check.target[:80]!r} is no command line: {error}"


def _facts(kept: JsonObject) -> JsonObject:
    """For the audit log: who decided what, and the hash of what was said."""
    said = [
        {"role": each["role"], "decision": each["decision"], "sha256": _sha256(repr(each))} for each in kept["opinions"]
    ]
    names = ("about", "decision", "vetoed", "absent")
    return {name: kept[name] for name in names} | {"because_sha256": _sha256(kept["because"]), "opinions": said}


def _decisions(kept: JsonObject) -> dict[str, Any]:
    return {each["role"]: each["decision"] for each in kept["opinions"]}


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
