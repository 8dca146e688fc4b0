"""How a plugin that a person wrote comes in: the same gate, then signed and entered."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

from agentd.errors import PluginRefused
from agentd.plugins.folder import CODE, TESTS
from agentd.plugins.judge import Judge
from agentd.plugins.proof import Proof
from agentd.plugins.registry import Plugin, Registry
from agentd.plugins.spec import Evidence, Manifest, Spec


class Admission:
    """The gate is the one that the agent's own plugins pass."""

    def __init__(self, registry: Registry, judge: Judge, proof: Proof) -> None:
        self._registry = registry
        self._judge = judge
        self._proof = proof

    def admit(self, spec: Spec, files: Mapping[str, bytes]) -> Plugin:
        """Prove and install the next version, provisional. Raises `BadInput`, `PluginRefused`, `SandboxUnavailable`."""
        self._registry.refuse_unusable(spec)
        self._proof.hold(spec, files.get(CODE, b""))
        counts = self._judged(spec, _text(files, CODE), _text(files, TESTS))
        evidence = Evidence(
            author="person",
            sandbox=self._judge.level,
            python=platform.python_version(),
            restricted_python=version("RestrictedPython"),
            **counts,
        )
        number = self._registry.next_version(spec.name)
        return self._registry.install(Manifest(version=number, spec=spec, evidence=evidence), files)

    def _judged(self, spec: Spec, code: str, tests: str) -> dict[str, Any]:
        exam = self._judge.freeze(tests, spec)
        counts: dict[str, Any] = {}
        for judge in (
            partial(self._judge.of_tests, spec, exam),
            partial(self._judge.of_code, spec, code, exam),
            partial(self._judge.of_both, spec, code, exam),
        ):
            finding = judge()
            if finding.wrong:
                raise PluginRefused(finding.wrong, hint="mend the code, or make the tests stricter")
            counts |= finding.evidence
        return counts

    def prove_again(self, plugin: Plugin) -> None:
        """Through the gate once more; raises `PluginRefused` for what does not pass, which is quarantined."""
        package = self._registry.load(plugin)
        self._registry.prove(plugin, lambda: self._proof(package))


def _text(files: Mapping[str, bytes], name: str) -> str:
    try:
        return files.get(name, b"").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PluginRefused(f"{name} is no UTF-8 text: {error}") from None
