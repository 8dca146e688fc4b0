"""Plugins as tools: loaded while the daemon runs, called in a sandbox, gone as soon as they are taken out of use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from agentd.backends.json_schema import problems
from agentd.errors import InDoubt, StoreError, ToolFailed
from agentd.plugins.arguments import arguments_model, given
from agentd.plugins.broker import Broker, WorkspacePlace
from agentd.plugins.folder import Package
from agentd.plugins.registry import Plugin, Registry
from agentd.plugins.skills import skill_tool, skills
from agentd.plugins.spec import Spec
from agentd.plugins.warm import WarmWorkers, Worker
from agentd.policy.commands import fold
from agentd.policy.patterns import path_pattern
from agentd.sandbox.job import Ended, Executor, Limits, Program
from agentd.tools.tool import Tool, ToolContext
from agentd.tools.toolbox import Toolbox
from agentd.types import Action, Annotations, Clock, Effect, Grounding, JsonObject, ToolResult

Record: TypeAlias = Callable[[str, str, JsonObject], Any]
Prove: TypeAlias = Callable[[Package], None]
"""Takes a plugin through the gate again; raises `PluginRefused`."""

_PATHS = (Grounding.FILE, Grounding.FOLDER, Grounding.PATH, Grounding.NEW_PATH)


class Loader:
    """Keeps a toolbox as the registry is. `executor()` gives what runs plugins, or raises `SandboxUnavailable`."""

    def __init__(
        self,
        registry: Registry,
        toolbox: Toolbox,
        *,
        executor: Callable[[], Executor],
        prove: Prove,
        record: Record,
        clock: Clock,
        limits: Callable[[], Limits] = Limits,
    ) -> None:
        self._registry = registry
        self._toolbox = toolbox
        self._executor = executor
        self._prove = prove
        self._record = record
        self._clock = clock
        self._limits = limits
        self._made: dict[tuple[str, int, str], Tool] = {}
        self._warm = WarmWorkers()
        self._refreshing = threading.Lock()
        registry.changed.append(self.refresh)

    def refresh(self) -> None:
        """Offer the plugins that are active now, and the skills, and no others."""
        with self._refreshing:
            active = {(plugin.name, plugin.version, plugin.digest): plugin for plugin in self._registry.active()}
            # A tool that stays is the same object, so that what was learnt about the tools stays as well.
            self._made = {key: self._made.get(key) or self.tool(plugin) for key, plugin in active.items()}
            tools = {tool.name: tool for tool in self._made.values()}
            reading = skill_tool(skills(self._registry.folder.root))
            self._toolbox.put(tools | ({reading.name: reading} if reading else {}))
            self._warm.only(frozenset(digest for _, _, digest in active))

    def end(self, task: str) -> None:
        """The task has ended, or waits: none of its sandboxes is kept."""
        self._warm.end(task)

    def tool(self, plugin: Plugin) -> Tool:
        """The plugin as a tool; nothing of it is read or run before it is called."""
        spec = plugin.spec
        writes, effect = bool(spec.permissions.write), _effect(spec)
        return Tool(
            name=spec.name,
            description=spec.purpose,
            guide=guide_of(spec),
            examples=spec.requests,
            arguments=arguments_model(spec),
            annotations=Annotations(
                read_only=not writes,
                idempotent=effect in (Effect.PURE, Effect.IDEMPOTENT),
                open_world=bool(spec.permissions.http),
            ),
            effect=effect,
            run=lambda ctx, **args: self.call(plugin, ctx, given(spec, args)),
            actions=lambda args: _actions(plugin, args),
            before=_before(spec) if effect is Effect.PROBEABLE else None,
            probe=_probe(spec) if effect is Effect.PROBEABLE else None,
        )

    def call(self, plugin: Plugin, ctx: ToolContext, args: JsonObject) -> ToolResult:
        """One call, counted. Raises `PluginRefused` for what is not as it was signed or does not pass the gate,
        `SandboxUnavailable`, `Cancelled`; what the plugin itself does wrong is a result."""
        package = self._package(plugin)
        executor = self._executor()
        limits = self._within(ctx)
        worker = self._warm.take(ctx.task, plugin.digest, limits)
        told = {"plugin": plugin.name, "version": plugin.version, "key": ctx.key}
        told |= {"executor": executor.name, "sandbox": executor.level, "warm": worker is not None}
        broker = Broker(
            plugin.spec.permissions,
            WorkspacePlace(ctx),
            note=lambda asked: self._record("plugin.request", ctx.task, {**told, **asked}),
            cancel=ctx.cancel,
        )
        if worker is None:
            program = Program(source=package.code, grants=plugin.spec.permissions.grants)
            worker = Worker(sandbox=executor.open(program, limits), limits=limits)
        wrong, ended = self._called(worker, plugin, ctx, args, broker)
        changed = [] if wrong else broker.commit()
        facts = {"ok": not wrong, "limit": ended.limit, "seconds": round(ended.seconds, 4), "model": ctx.model}
        self._record("plugin.called", ctx.task, {**told, **facts, "refused": len(broker.refused)})
        if not (wrong and _excused(broker, args)):
            self._registry.count(plugin, not wrong, model=ctx.model, task=ctx.task)
        if wrong:
            return ToolResult(ok=False, text=f"the plugin {plugin.name} failed: {wrong}")
        data = {"result": ended.result, "version": plugin.version, "sandbox": executor.level}
        return ToolResult(ok=True, text=_text(ended.result), data=data, changed=tuple(changed))

    def _package(self, plugin: Plugin) -> Package:
        try:
            package = self._registry.load(plugin)
        except StoreError as error:
            raise ToolFailed(error.message, hint=error.hint) from None
        if self._registry.must_be_proven(plugin):
            self._registry.prove(plugin, lambda: self._prove(package))
        return package

    def _called(
        self, worker: Worker, plugin: Plugin, ctx: ToolContext, args: JsonObject, broker: Broker
    ) -> tuple[str, Ended]:
        """What is wrong with the call, and how it ended. The sandbox waits for the next one if nothing is."""
        seed, behaved = int.from_bytes(hashlib.sha256(ctx.key.encode()).digest()[:4], "big"), False
        try:
            ended = worker.sandbox.call(plugin.name, args, broker=broker, cancel=ctx.cancel, seed=seed)
            wrong = _wrong(plugin.spec, ended)
            behaved = not wrong and not broker.refused
        finally:
            if not behaved:
                worker.sandbox.close()
        if behaved:
            spent = replace(worker, seconds=worker.seconds + ended.seconds)
            self._warm.keep(ctx.task, plugin.digest, spent)
        return wrong, ended

    def _within(self, ctx: ToolContext) -> Limits:
        """The limits, and no more than the task has left."""
        limits = self._limits()
        if ctx.deadline is None:
            return limits
        left = max(0.1, min(limits.seconds, ctx.deadline - self._clock.now()))
        return replace(limits, seconds=left)


def guide_of(spec: Spec) -> str:
    """What a spec says beyond its purpose, for who is to call the plugin."""
    parts = {"Before": spec.preconditions, "After": spec.postconditions}
    lines = [f"{when}: {'; '.join(texts)}." for when, texts in parts.items() if texts]
    if spec.side_effects:
        lines.append(spec.side_effects)
    example = spec.examples[0]
    lines.append(f"For example {json.dumps(example.args)} gives {json.dumps(example.result)[:300]}.")
    return "\n".join(lines)


def _wrong(spec: Spec, ended: Ended) -> str:
    """Why a call is a failure; empty when it is none."""
    if not ended.ok:
        return f"{ended.error} ({ended.limit})" if ended.limit else ended.error or "it gave no result"
    found = problems(ended.result, spec.output)
    return f"its result is not what it promises: {found[0]}" if found else ""


def _excused(broker: Broker, args: JsonObject) -> bool:
    """What the arguments themselves name is not there, or is not to be touched: no fault of the plugin."""
    return any(about in args.values() for about in broker.refused)


def _text(result: Any) -> str:
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, indent=1)


# what a call touches --------------------------------------------------------------------------------------------------


def _named(spec: Spec, args: Any) -> list[str]:
    """The paths that the arguments of a call name."""
    fields = spec.input["properties"]
    names = [name for name, field in fields.items() if field.get("x-grounding") in _PATHS]
    values = [args.get(name) if isinstance(args, dict) else getattr(args, name) for name in names]
    return [value for value in values if isinstance(value, str) and value]


def _actions(plugin: Plugin, args: Any) -> Sequence[Action]:
    """The call itself, what is imported for it, and what its arguments name as far as it may touch that; all else is
    judged when it is asked."""
    spec = plugin.spec
    found = [Action(kind="plugin.call", target=spec.name)]
    found += [Action(kind="import", target=module) for module in plugin.evidence.imports]
    for kind, globs in (("fs.read", spec.permissions.read), ("fs.write", spec.permissions.write)):
        if globs:
            declared = path_pattern(globs)
            found += [Action(kind=kind, target=path) for path in _named(spec, args) if declared.fullmatch(fold(path))]
    return found


def _effect(spec: Spec) -> Effect:
    """Writes come all at the end of a call, so a crash leaves none of them or is seen in the files that were named."""
    if spec.permissions.write:
        named = any(field.get("x-grounding") in _PATHS for field in spec.input["properties"].values())
        return Effect.PROBEABLE if named else Effect.UNSAFE
    return Effect.IDEMPOTENT if spec.permissions.http else Effect.PURE


def _before(spec: Spec) -> Callable[[ToolContext, Any], JsonObject]:
    def before(ctx: ToolContext, args: Any) -> JsonObject:
        return {path: ctx.workspace.sha256(path) for path in _named(spec, args)}

    return before


def _probe(spec: Spec) -> Callable[[ToolContext, Any, JsonObject], ToolResult | None]:
    def probe(ctx: ToolContext, args: Any, before: JsonObject) -> ToolResult | None:
        changed = [path for path, digest in before.items() if ctx.workspace.sha256(path) != digest]
        if changed:
            raise InDoubt(
                f"{', '.join(changed)} changed while {spec.name} was cut off, so it may have done its work",
                hint="look whether it did, then retry the task or cancel it",
            )
        return None

    return probe
