"""How the agent gives itself a tool: spec, frozen tests, code, proof, review, signature; each stage may say no."""

from __future__ import annotations

import platform
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Any, TypeAlias

from agentd.errors import BadReply, CapabilityMissing, Denied, ModelError, NeedsApproval, PluginRefused
from agentd.events import EventKind
from agentd.plugins import authors
from agentd.plugins.broker import Broker
from agentd.plugins.exam import Exam
from agentd.plugins.folder import CODE, GUIDE, TESTS
from agentd.plugins.judge import Finding, Judge
from agentd.plugins.loader import guide_of
from agentd.plugins.proof import CheckingExecutor
from agentd.plugins.registry import Plugin, Registry
from agentd.plugins.spec import Evidence, Example, Manifest, Spec
from agentd.plugins.trial import Pulse, TrialPlace, nothing
from agentd.policy.engine import PolicyEngine
from agentd.policy.taint import asked_install
from agentd.sandbox.guest.facades import FACADES
from agentd.sandbox.job import Limits, Program
from agentd.types import (
    AccessLevel,
    Action,
    Decision,
    Effect,
    Journal,
    JsonObject,
    Model,
    Opinion,
    Origin,
    Ruling,
    Stance,
)

Record: TypeAlias = Callable[[str, str, JsonObject], Any]

AUTHORS = ("planner", "critic", "coder")
LIKE = 0.25
"""Of the words of two specs, from which on an older plugin is tried first."""
TRIED = 3
"""Older plugins, and calls of each."""
_WORD = re.compile(r"[a-z0-9]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Commission:
    """What is wanted, on whose behalf. `files`: texts of the workspace by path, shortened.

    `model(role)` and `remember(do)` are journalled, so that a task that was cut off comes to the same end; `pulse`
    raises when it is cancelled or has used up what it may.
    """

    task: str
    goal: str
    missing: str
    files: Mapping[str, str]
    level: AccessLevel
    origin: Origin
    journal: Journal
    key: Callable[[], str]
    model: Callable[[str], Model]
    pulse: Pulse = nothing
    owner: tuple[str, ...] = ()
    tainted: bool = False
    workspace: str = ""
    project: str = ""
    """See `types.Scope`."""

    def remember(self, do: Callable[[], JsonObject]) -> JsonObject:
        return self.journal.once(self.key(), Effect.PURE, do)


Council: TypeAlias = Callable[[Commission, Spec, str], Sequence[Opinion]]
"""`council(commission, spec, code)`: the opinions of Security and others; of whom none can be used, none."""
SECURITY = "security"


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """The plugin that serves now; `reused` when it was there before."""

    name: str
    version: int
    reused: bool = False


@dataclass(slots=True, kw_only=True)
class _Piece:
    """What is being made, and what was tried."""

    commission: Commission
    spec: Spec
    exam: Exam | None = None
    tried: list[str] = field(default_factory=list)
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """Code that passed everything up to the review."""

    code: str
    evidence: Mapping[str, Any]

    @property
    def worth(self) -> tuple[float, int, float]:
        """The largest is the best: tests tell more wrong versions from it, then it is shorter, then quicker."""
        killed = self.evidence["mutants_killed"] / max(1, self.evidence["mutants"])
        return round(killed, 2), -len(self.code), -self.evidence["seconds"]


class Forge:
    """Makes plugins for tasks. Raises `CapabilityMissing` with what was tried, and `Denied` or `NeedsApproval` where
    policy does not let it install one."""

    def __init__(
        self,
        registry: Registry,
        *,
        executor: Callable[[], CheckingExecutor],
        policy: PolicyEngine,
        record: Record,
        emit: Record,
        limits: Callable[[], Limits] = Limits,
        attempts: Callable[[], int] = lambda: 3,
        best_of: Callable[[], int] = lambda: 1,
        council: Council | None = None,
        council_always: Callable[[], bool] = lambda: False,
    ) -> None:
        """`best_of`: versions of the code of which the best is taken, where nobody waits. `council` gives opinions on
        a plugin that would write files or speak to hosts, or on any (`council_always`)."""
        self._registry = registry
        self._council = council
        self._council_always = council_always
        self._executor = executor
        self._policy = policy
        self._record = record
        self._emit = emit
        self._limits = limits
        self._attempts = attempts
        self._best_of = best_of
        self._judge = Judge(executor, limits)

    def make(self, commission: Commission) -> Made:
        """A plugin for what is missing: one that is there and does it, else a new one."""
        if any(commission.model(role).profile.compact for role in AUTHORS):
            raise CapabilityMissing(
                commission.missing,
                hint="the models here are too small to write a tool; name a larger one for planner, critic and coder",
            )
        try:
            return self._made(commission)
        except ModelError as error:
            if error.retryable:
                raise
            raise self._given_up(commission, [f"the model failed: {error.message}"]) from error

    def _made(self, commission: Commission) -> Made:
        piece = self._specified(commission)
        older = self._like(piece)
        if older is not None:
            self._tell(piece, "reused", True, f"{older.name} {older.version} does it")
            return Made(name=older.name, version=older.version, reused=True)
        self._refuse_if_forbidden(piece)
        self._examined(piece)
        code = self._coded(piece)
        return self._installed(piece, code)

    # stages -----------------------------------------------------------------------------------------------------------

    def _specified(self, commission: Commission) -> _Piece:
        try:
            spec = authors.write_spec(
                commission.model("planner"),
                goal=commission.goal,
                missing=commission.missing,
                given=commission.files,
                registry=self._registry,
            )
        except BadReply as error:
            raise self._given_up(commission, [f"spec: {error.message}"]) from None
        piece = _Piece(commission=commission, spec=spec)
        self._tell(piece, "spec", True, spec.purpose)
        return piece

    def _like(self, piece: _Piece) -> Plugin | None:
        """An older plugin for the same: it stands in the way of a new one unless it fails what is asked."""

        def find() -> JsonObject:
            does = (plugin for plugin in self._alike(piece.spec) if self._does(plugin, piece))
            found = next(does, None)
            return {"name": found.name, "version": found.version} if found else {}

        found = piece.commission.remember(find)
        return self._registry.get(found["name"], found["version"]) if found else None

    def _alike(self, spec: Spec) -> list[Plugin]:
        """The older plugins that speak of the same, the likest first."""
        words = _words(spec)
        likeness = {
            plugin.name: len(words & other) / len(words | other)
            for plugin in self._registry.active()
            for other in [_words(plugin.spec)]
        }
        alike = [plugin for plugin in self._registry.active() if likeness.get(plugin.name, 0) >= LIKE]
        return sorted(alike, key=lambda plugin: -likeness[plugin.name])[:TRIED]

    def _does(self, plugin: Plugin, piece: _Piece) -> bool:
        """Whether most of three example calls, and first of all that of the task, give with it what they should."""
        code = self._registry.load(plugin).code
        given = piece.commission.files
        examples = sorted(piece.spec.examples, key=lambda example: not example.files.keys() & given.keys())[:TRIED]
        right = [self._gives(plugin, code, example) for example in examples]
        return right[0] and 2 * sum(right) > len(right)

    def _gives(self, plugin: Plugin, code: str, example: Example) -> bool:
        place = TrialPlace({name: text.encode() for name, text in example.files.items()})
        broker = Broker(plugin.spec.permissions, place)
        sandbox = self._executor().open(Program(source=code, grants=plugin.spec.permissions.grants), self._limits())
        try:
            ended = sandbox.call(plugin.name, _as_called(plugin.spec, example.args), broker=broker)
        finally:
            sandbox.close()
        if not ended.ok or ended.result != example.result:
            return False
        broker.commit()
        return all(place.files.get(name) == text.encode() for name, text in example.files_after.items())

    def _examined(self, piece: _Piece, more: Sequence[str] = ()) -> None:
        """Tests by somebody who does not see the code, frozen once they tell every stub."""
        advice = list(more)
        for _ in range(self._attempts()):
            try:
                text = authors.write_tests(piece.commission.model("critic"), piece.spec, advice)
                exam = self._frozen(piece, text)
                wrong = self._found(piece, partial(self._judge.of_tests, piece.spec, exam))
                if not wrong:
                    piece.exam = exam
                    told = f"{len(exam.cases)} tests, frozen as {exam.digest[:12]}"
                    self._tell(piece, "tests", True, told)
                    return
                advice.append(wrong)
            except (BadReply, PluginRefused) as error:
                advice.append(error.message)
            self._tell(piece, "tests", False, advice[-1])
        raise self._given_up(piece.commission, piece.tried)

    def _frozen(self, piece: _Piece, text: str) -> Exam:
        def look() -> JsonObject:
            try:
                return {"cases": list(self._judge.freeze(text, piece.spec).cases)}
            except PluginRefused as error:
                return {"refused": error.message}

        found = piece.commission.remember(look)
        if "refused" in found:
            raise PluginRefused(found["refused"])
        return Exam(source=text, cases=tuple(found["cases"]))

    def _coded(self, piece: _Piece) -> str:
        """Code that passes everything; what was wrong with one version is told to the author of the next."""
        advice: list[str] = []
        for attempt in range(1, self._attempts() + 1):
            try:
                code = authors.write_code(piece.commission.model("coder"), piece.spec, ", ".join(FACADES), advice)
                wrong = self._wrong(piece, code) or self._barred(piece, piece.evidence)
                if not wrong:
                    self._strengthened(piece, code)
                    wrong = self._unreviewed(piece, code)
                if not wrong:
                    piece.evidence["attempts"] = attempt
                    self._tell(piece, "code", True, f"passed everything at attempt {attempt}")
                    return self._best(piece, code)
                advice.append(wrong)
            except BadReply as error:
                advice.append(error.message)
            except PluginRefused as error:
                self._tell(piece, "council", False, error.message)
                break
            self._tell(piece, "code", False, advice[-1])
        raise self._given_up(piece.commission, piece.tried)

    def _best(self, piece: _Piece, code: str) -> str:
        """The best of several versions, where nobody waits for the first that will do."""
        first = _Candidate(code=code, evidence=dict(piece.evidence))
        if piece.commission.origin.awaited or self._best_of() < 2:
            return code
        candidates = self._candidates(piece, first)
        best = first
        for each in sorted(candidates, key=lambda candidate: candidate.worth, reverse=True):
            piece.evidence = {**each.evidence, "candidates": len(candidates)}
            if each is first or self._liked(piece, each):
                best = each
                break
        self._tell(piece, "code", True, f"the best of {len(candidates)}")
        return best.code

    def _liked(self, piece: _Piece, candidate: _Candidate) -> bool:
        try:
            return not (self._barred(piece, candidate.evidence) or self._unreviewed(piece, candidate.code))
        except (BadReply, PluginRefused):
            return False

    def _candidates(self, piece: _Piece, first: _Candidate) -> list[_Candidate]:
        """The first, and further versions that pass the exam as it stands now."""
        found = {first.code: first}
        for number in range(2, self._best_of() + 1):
            code, judged = self._version(piece, number, found)
            if "ended" in judged:
                break
            if judged["wrong"]:
                self._tell(piece, "code", False, f"version {number}: {judged['wrong']}")
            else:
                found[code] = _Candidate(code=code, evidence={**first.evidence, **judged["evidence"]})
        return list(found.values())

    def _version(self, piece: _Piece, number: int, there: Collection[str]) -> tuple[str, JsonObject]:
        """Another version and what is found of it: `wrong` and `evidence`, or `ended` when the model has none.

        Whatever comes of it is one entry of the journal after the reply, so that a restarted task reads the same.
        """
        code, said = "", {}
        try:
            coder = piece.commission.model("coder")
            code = authors.write_code(coder, piece.spec, ", ".join(FACADES), [], number=number)
        except BadReply as error:
            said = {"wrong": error.message}
        except ModelError as error:
            said = {"ended": error.message}
        if code in there:
            said = {"wrong": "it is there already"}

        def judge() -> JsonObject:
            return said or self._judged(piece, code)

        return code, piece.commission.remember(judge)

    def _judged(self, piece: _Piece, code: str) -> JsonObject:
        assert piece.exam is not None
        pulse = piece.commission.pulse
        alone = self._judge.of_code(piece.spec, code, piece.exam, pulse)
        if alone.wrong:
            return asdict(alone)
        both = self._judge.of_both(piece.spec, code, piece.exam, pulse)
        return {"wrong": both.wrong, "evidence": {**alone.evidence, **both.evidence}}

    def _wrong(self, piece: _Piece, code: str) -> str:
        """The first thing that is wrong, for its author."""
        assert piece.exam is not None
        return self._found(piece, partial(self._judge.of_code, piece.spec, code, piece.exam))

    def _found(self, piece: _Piece, judge: Callable[[Pulse], Finding]) -> str:
        """What a judge finds wrong, the same again after a crash; its counts become evidence."""
        found = piece.commission.remember(lambda: asdict(judge(piece.commission.pulse)))
        piece.evidence |= found["evidence"]
        return str(found["wrong"])

    def _strengthened(self, piece: _Piece, code: str) -> None:
        """Tests that let too many wrong versions of the code live go back to their author."""
        for _ in range(self._attempts()):
            assert piece.exam is not None
            alive = self._found(piece, partial(self._judge.of_both, piece.spec, code, piece.exam))
            if not alive:
                return
            self._tell(piece, "tests", False, alive)
            self._examined(piece, [alive])
            if wrong := self._wrong(piece, code):
                raise BadReply(wrong)
        raise self._given_up(piece.commission, piece.tried)

    def _unreviewed(self, piece: _Piece, code: str) -> str:
        """Why a reviewer does not want it; a reviewer may refuse what tests let through, and not the other way."""
        said = authors.review(piece.commission.model("critic"), piece.spec, code)
        piece.evidence["review"] = said.reason[:500]
        return self._unheard(piece, code) if said.accept else f"the reviewer refuses it: {said.reason}"

    def _unheard(self, piece: _Piece, code: str) -> str:
        """What the council wants otherwise. Raises `PluginRefused` where Security has a veto."""
        asks = piece.spec.permissions
        if self._council is None or not (asks.write or asks.http or self._council_always()):
            return ""
        heard = self._council(piece.commission, piece.spec, code)
        against = [f"{each.role.capitalize()}: {each.because}" for each in heard if each.decision is not Stance.ACCEPT]
        if any(each.role == SECURITY and each.decision is Stance.REJECT for each in heard):
            raise PluginRefused(f"veto of the council: {'; '.join(against)}")
        if all(each.role != SECURITY for each in heard):
            against.append("Security gave no usable opinion")
        if not against:
            self._tell(piece, "council", True, f"accepted by {', '.join(each.role.capitalize() for each in heard)}")
        return f"the council does not accept it: {'; '.join(against)}" if against else ""

    def _barred(self, piece: _Piece, evidence: Mapping[str, Any]) -> str:
        """The first import that policy does not let be, for the author of the code."""
        for module in evidence.get("imports", ()):
            ruled = self._ruled(piece.commission, Action(kind="import", target=module))
            if ruled.ruling is not Ruling.ALLOW:
                return f"policy does not let a plugin import {module} here: {ruled.because}"
        return ""

    def _ruled(self, order: Commission, action: Action) -> Decision:
        return self._policy.narrowed(order.project).decide(
            action, level=order.level, origin=order.origin, workspace=order.workspace, tainted=order.tainted
        )

    def _refuse_if_forbidden(self, piece: _Piece) -> None:
        action = Action(kind="plugin.install", target=piece.spec.name)
        ruled = self._ruled(piece.commission, action)
        if ruled.ruling is Ruling.ALLOW and piece.commission.tainted:
            hosts = piece.spec.permissions.http
            ruled = asked_install(piece.commission.missing, hosts, piece.commission.owner) or ruled
        told = {"actions": [str(action)], "decision": ruled.ruling.value, "rule": ruled.rule, "because": ruled.because}
        self._record("plugin.decided", piece.commission.task, told | {"risk": ruled.risk})
        if ruled.ruling is Ruling.DENY:
            raise Denied(f"a new tool may not be installed: {ruled.because}", hint="a higher --level may")
        if ruled.ruling is Ruling.ASK:
            raise NeedsApproval(f"a new tool, {piece.spec.name}, wants to be installed: {ruled.because}")

    def _installed(self, piece: _Piece, code: str) -> Made:
        """Signed, on disk and in the registry; done twice after a crash, it is there once."""
        assert piece.exam is not None
        files = {CODE: code.encode(), TESTS: piece.exam.source.encode(), GUIDE: _guide(piece.spec).encode()}

        def install() -> JsonObject:
            for plugin in self._registry.all(piece.spec.name):
                if self._registry.load(plugin).files == files:
                    return {"name": plugin.name, "version": plugin.version}
            manifest = Manifest(
                version=self._registry.next_version(piece.spec.name),
                spec=piece.spec,
                evidence=self._evidence(piece),
            )
            made = self._registry.install(manifest, files, task=piece.commission.task)
            return {"name": made.name, "version": made.version}

        commission = piece.commission
        found = commission.journal.once(commission.key(), Effect.IDEMPOTENT, install)
        return Made(name=found["name"], version=found["version"])

    def _evidence(self, piece: _Piece) -> Evidence:
        return Evidence(
            model=piece.commission.model("coder").name,
            sandbox=self._executor().level,
            python=platform.python_version(),
            restricted_python=version("RestrictedPython"),
            **piece.evidence,
        )

    # words ------------------------------------------------------------------------------------------------------------

    def _tell(self, piece: _Piece, stage: str, ok: bool, what: str) -> None:
        if not ok:
            piece.tried.append(f"{stage}: {what[:300]}")
        told = {"plugin": piece.spec.name, "stage": stage, "ok": ok, "what": what[:500]}
        self._emit(EventKind.PLUGIN_FORGED, piece.commission.task, told)

    def _given_up(self, commission: Commission, tried: Sequence[str]) -> CapabilityMissing:
        lines = "\n".join(f"- {each}" for each in tried)
        return CapabilityMissing(f"{commission.missing}\nA tool for it was tried and not proven:\n{lines}")


def _words(spec: Spec) -> frozenset[str]:
    text = " ".join([spec.name.replace("_", " "), spec.purpose, *spec.requests])
    return frozenset(_WORD.findall(text.lower()))


def _as_called(spec: Spec, args: JsonObject) -> dict[str, Any]:
    """Arguments of another spec under the names that this one has for them: by name, else in their order."""
    names = list(spec.input["properties"])
    return dict(args) if args.keys() <= set(names) else dict(zip(names, args.values(), strict=False))


def _guide(spec: Spec) -> str:
    return f"# {spec.name}\n\n{spec.purpose}\n\n{guide_of(spec)}\n"
