"""The gate for code of plugins, whoever wrote it: static check, examples, exam, made-up inputs, wrong versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from agentd.errors import PluginRefused
from agentd.plugins import controls, fuzz
from agentd.plugins.exam import Exam, freeze
from agentd.plugins.proof import CheckingExecutor, Proof
from agentd.plugins.spec import Spec
from agentd.plugins.trial import Trial, Used
from agentd.sandbox.job import Limits

MUTANTS_KILLED = 0.8
"""Some changes change nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, in words for the author, or nothing; and the counts that become `spec.Evidence`."""

    wrong: str = ""
    evidence: Mapping[str, int] = field(default_factory=dict)


class Judge:
    """Nothing here is believed that a plugin or its tests say of themselves. Raises `SandboxUnavailable`."""

    def __init__(self, executor: Callable[[], CheckingExecutor], limits: Callable[[], Limits] = Limits) -> None:
        self._executor = executor
        self._limits = limits
        self._trial = Trial(executor, limits)
        self._proof = Proof(executor, limits)

    @property
    def level(self) -> str:
        return self._executor().level

    def freeze(self, source: str, spec: Spec) -> Exam:
        """Raises `PluginRefused` for tests that could not fail."""
        return freeze(source, spec, self._executor())

    def of_tests(self, spec: Spec, exam: Exam) -> Finding:
        """Whether the tests tell every version that does nothing, before there is one that does something."""
        stubs = list(controls.stubs(spec))
        for killed, stub in enumerate(stubs):
            if not self._trial.sit(spec, stub.source, exam, whole=False).failed:
                return Finding(wrong=stub.what, evidence={"controls": len(stubs), "controls_killed": killed})
        return Finding(evidence={"controls": len(stubs), "controls_killed": len(stubs)})

    def of_code(self, spec: Spec, code: str, exam: Exam) -> Finding:
        """The first thing that is wrong with the code."""
        try:
            self._proof.hold(spec, code.encode())
        except PluginRefused as error:
            return Finding(wrong=f"{error.message} ({error.hint})" if error.hint else error.message)
        verdict = self._trial.sit(spec, code, exam)
        if verdict.failed:
            case, why = next(iter(verdict.failed.items()))
            return Finding(wrong=f"{case} failed: {why}")
        seed = int(exam.digest[:8], 16)
        flaw, fuzzed = fuzz.flaw(spec, code, self._executor(), self._limits, seed)
        evidence = {"cases": verdict.passed, "fuzzed": fuzzed, "seed": seed}
        return Finding(wrong=flaw or _idle_permission(spec, verdict.used), evidence=evidence)

    def of_both(self, spec: Spec, code: str, exam: Exam) -> Finding:
        """Whether the tests tell the code from versions of it with one small thing wrong; names those that lived."""
        mutants = controls.mutants(code)
        alive = [mutant.what for mutant in mutants if self._lives(spec, mutant.source, exam)]
        killed = len(mutants) - len(alive)
        wrong = "" if killed >= MUTANTS_KILLED * len(mutants) else "; ".join(alive[:4])
        return Finding(wrong=wrong, evidence={"mutants": len(mutants), "mutants_killed": killed})

    def _lives(self, spec: Spec, mutant: str, exam: Exam) -> bool:
        try:
            self._proof.hold(spec, mutant.encode())
        except PluginRefused:
            return False
        return not self._trial.sit(spec, mutant, exam, whole=False).failed


def _idle_permission(spec: Spec, used: Used) -> str:
    """What is declared and was never seen to be needed is not given."""
    idle = []
    if spec.permissions.read and not used.read and not used.write:
        idle.append("read")
    if spec.permissions.write and not used.write:
        idle.append("write")
    return f"it never used its permission to {' and '.join(idle)}" if idle else ""
