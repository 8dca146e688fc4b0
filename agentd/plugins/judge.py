"""The gate for code of plugins, whoever wrote it: static check, examples, exam, made-up inputs, wrong versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from agentd.errors import PluginRefused
from agentd.plugins import fuzz
from agentd.plugins.exam import MIN_CASES, Exam, freeze
from agentd.plugins.proof import CheckingExecutor, Proof
from agentd.plugins.spec import Spec
from agentd.plugins.trial import Pulse, Trial, Used, nothing
from agentd.sandbox.job import Limits

MUTANTS_KILLED = 0.8
"""Some changes change nothing."""
MOST_USED = 20
"""Names that stand in the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What is wrong, in words for the author, or nothing; and what becomes `spec.Evidence`."""

    wrong: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)


class Judge:
    """Nothing here is believed that a plugin or its tests say of themselves. Raises `SandboxUnavailable`, and what a
    `pulse` raises."""

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

    def of_tests(self, spec: Spec, exam: Exam, pulse: Pulse = nothing) -> Finding:
        """Whether the tests tell every version that does nothing, before there is one that does something; and whether
        as many as there have to be can fail at all."""
        from agentd.plugins import controls  # its parser takes a tenth of the start of a daemon, and few make tools

        stubs = list(controls.stubs(spec))
        could: set[str] = set()
        for killed, stub in enumerate(stubs):
            whole = len(could) < MIN_CASES
            failed = self._trial.sit(spec, stub.source, exam, whole=whole, pulse=pulse).failed
            evidence = {"controls": len(stubs), "controls_killed": killed}
            if not failed:
                return Finding(wrong=f"a version that does nothing passes the tests: {stub.what}", evidence=evidence)
            could |= failed.keys()
        idle = [case for case in exam.cases if case not in could]
        wrong = f"{', '.join(idle)} passes whatever the function does" if len(could) < MIN_CASES else ""
        return Finding(wrong=wrong, evidence={"controls": len(stubs), "controls_killed": len(stubs)})

    def of_code(self, spec: Spec, code: str, exam: Exam, pulse: Pulse = nothing) -> Finding:
        """The first thing that is wrong with the code."""
        try:
            imports = self._proof.hold(spec, code.encode())
        except PluginRefused as error:
            return Finding(wrong=f"{error.message} ({error.hint})" if error.hint else error.message)
        verdict = self._trial.sit(spec, code, exam, pulse=pulse)
        if verdict.failed:
            case, why = next(iter(verdict.failed.items()))
            return Finding(wrong=f"{case} failed: {why}")
        seed = int(exam.digest[:8], 16)
        flaw, fuzzed = fuzz.flaw(spec, code, self._executor(), self._limits, seed)
        used = {"read": list(verdict.used.read)[:MOST_USED], "write": list(verdict.used.write)[:MOST_USED]}
        evidence = {"cases": verdict.passed, "fuzzed": fuzzed, "seed": seed, "used": used, "imports": imports}
        evidence["seconds"] = round(verdict.used.seconds, 4)
        return Finding(wrong=flaw or _permissions_flaw(spec, verdict.used), evidence=evidence)

    def of_both(self, spec: Spec, code: str, exam: Exam, pulse: Pulse = nothing) -> Finding:
        """Whether the tests tell the code from versions of it with one small thing wrong; names those that lived."""
        from agentd.plugins import controls  # as above

        mutants = controls.mutants(code)
        alive = [mutant.what for mutant in mutants if self._lives(spec, mutant.source, exam, pulse)]
        killed = len(mutants) - len(alive)
        told = f"wrong versions pass the tests: {'; '.join(alive[:4])}"
        wrong = told if killed < MUTANTS_KILLED * len(mutants) else ""
        return Finding(wrong=wrong, evidence={"mutants": len(mutants), "mutants_killed": killed})

    def _lives(self, spec: Spec, mutant: str, exam: Exam, pulse: Pulse) -> bool:
        pulse()
        try:
            self._proof.hold(spec, mutant.encode())
        except PluginRefused:
            return False
        return not self._trial.sit(spec, mutant, exam, whole=False, pulse=pulse).failed


def _permissions_flaw(spec: Spec, used: Used) -> str:
    """What was seen to be asked for is what is declared: nothing beyond it, and nothing that was never needed."""
    if used.beyond:
        return f"it reached for {next(iter(used.beyond))!r:.200}, which its permissions do not name"
    idle = []
    if spec.permissions.read and not used.read and not used.write:
        idle.append("read")
    if spec.permissions.write and not used.write:
        idle.append("write")
    return f"it never used its permission to {' and '.join(idle)}" if idle else ""
