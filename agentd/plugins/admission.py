"""How a plugin that a person wrote comes in: the same gate, then signed and entered."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import version

from agentd.plugins.folder import CODE
from agentd.plugins.proof import Proof
from agentd.plugins.registry import Plugin, Registry
from agentd.plugins.spec import Evidence, Manifest, Spec


class Admission:
    """The gate is the `proof`: the static check, and every example of the spec."""

    def __init__(self, registry: Registry, proof: Proof) -> None:
        self._registry = registry
        self._proof = proof

    def admit(self, spec: Spec, files: Mapping[str, bytes]) -> Plugin:
        """Prove and install the next version, provisional. Raises `BadInput`, `PluginRefused`, `SandboxUnavailable`."""
        self._registry.refuse_unusable(spec)
        self._proof.hold(spec, files.get(CODE, b""))
        evidence = Evidence(
            author="person",
            cases=len(spec.examples),
            sandbox=self._proof.level,
            python=platform.python_version(),
            restricted_python=version("RestrictedPython"),
        )
        number = self._registry.next_version(spec.name)
        return self._registry.install(Manifest(version=number, spec=spec, evidence=evidence), files)

    def prove_again(self, plugin: Plugin) -> None:
        """Through the gate once more; raises `PluginRefused` for what does not pass, which is quarantined."""
        package = self._registry.load(plugin)
        self._registry.prove(plugin, lambda: self._proof(package))
