"""Puts the parts together: `build(settings)` makes the one `App` of a daemon."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from agentd import telemetry
from agentd.agent.council import on_plugin
from agentd.agent.rehearsal import Rehearsal
from agentd.agent.runner import Runner
from agentd.agent.sittings import Sittings
from agentd.backends.cache import ReplyCache
from agentd.backends.catalog import LiveCatalog
from agentd.backends.pool import Pool
from agentd.backends.prober import Prober
from agentd.backends.profiles import Profiles
from agentd.backends.pull import Puller
from agentd.backends.remotes import Remotes
from agentd.backends.router import Router
from agentd.clock import SystemClock
from agentd.config import SandboxSettings, Settings
from agentd.config_file import LiveSettings
from agentd.events import Bus
from agentd.home import defaults_dir
from agentd.plugins.admission import Admission
from agentd.plugins.folder import PluginFolder
from agentd.plugins.forge import Forge
from agentd.plugins.judge import Judge
from agentd.plugins.language import language
from agentd.plugins.loader import Loader
from agentd.plugins.proof import CheckingExecutor, Proof
from agentd.plugins.registry import Registry
from agentd.plugins.skills import TOOL as READ_SKILL
from agentd.plugins.trial_run import TrialRuns
from agentd.policy.approvals import Approvals
from agentd.policy.engine import PolicyEngine
from agentd.sandbox.confine import walls_of
from agentd.sandbox.job import Limits
from agentd.sandbox.os_executor import OsExecutor
from agentd.sandbox.wasm_executor import WasmExecutor
from agentd.security.keys import ApiKeys
from agentd.security.scan import Redactor
from agentd.security.signing import Signer
from agentd.security.vault import Vault
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.store.eventlog import EventLog
from agentd.store.outputs import Outputs
from agentd.tasks.inbox import Inbox
from agentd.tasks.journal import TaskJournal
from agentd.tasks.queue import Queue
from agentd.tasks.request import Defaults
from agentd.tasks.undo import Undo
from agentd.tasks.worker import Worker
from agentd.tools.apply import apply_tool
from agentd.tools.catalog import builtin
from agentd.tools.checks import checks
from agentd.tools.gate import Gate
from agentd.tools.outputs import read_output_tool
from agentd.tools.own_places import OwnPlaces
from agentd.tools.start_files import WATCHES, settle_all
from agentd.tools.toolbox import Toolbox
from agentd.types import AccessLevel, Budget, Clock, Journal, Report, Task
from agentd.workspace.previews import Previews
from agentd.workspace.retention import Housekeeper
from agentd.workspace.shadow import Shadows
from agentd.workspace.snapshots import Ledger

log = telemetry.get_logger(__name__)

_WORDS = ("health", "sandbox", "try", "verify")
"""Stand in addresses where the name of a plugin could."""


@dataclass(frozen=True, kw_only=True)
class App:
    """The parts of one daemon."""

    live: LiveSettings
    clock: Clock
    db: Database
    audit: Audit
    bus: Bus
    events: EventLog
    outputs: Outputs
    ledger: Ledger
    undo: Undo
    housekeeper: Housekeeper
    keys: ApiKeys
    vault: Vault
    redactor: Redactor
    """Knows what is in the vault."""
    remotes: Remotes
    policy: PolicyEngine
    tools: Toolbox
    gate: Gate
    catalog: LiveCatalog
    models: Router
    replies: ReplyCache
    prober: Prober
    puller: Puller
    trial_runs: TrialRuns
    plugins: Registry
    loader: Loader
    admission: Admission
    queue: Queue
    approvals: Approvals
    inbox: Inbox
    previews: Previews
    shadows: Shadows
    runner: Runner
    worker: Worker

    @property
    def settings(self) -> Settings:
        """As they stand now."""
        return self.live.current

    def change_settings(self, changes: Mapping[str, Any]) -> list[str]:
        """Write settings to the home's file and take up what can change live; see `LiveSettings.change`."""
        waiting = self.live.change(changes)
        telemetry.set_level(self.settings.log.level)
        return waiting

    def start(self) -> None:
        """Look whether the plugins are what was signed, queue again what the last daemon left unfinished, and begin."""
        for fault in self.plugins.recover():
            log.warning("a plugin is not loaded", plugin=fault.plugin, problem=fault.problem)
        self.plugins.archive_unused(self.settings.plugins.archive_days)
        self.loader.refresh()
        for restored in settle_all(self.settings.state_dir / WATCHES):
            self.audit.record("start_files.restored", "", asdict(restored))
            log.warning("a program that was cut off had touched files that make programs run", **asdict(restored))
        self.queue.recover()
        self.shadows.sweep()
        self.worker.start()
        self.prober.start()
        self.trial_runs.get_ready()
        self.housekeeper.start()

    def stop(self) -> None:
        """Put back what runs, give the models' memory back, and close the database."""
        self.worker.stop()
        self.prober.stop()
        self.housekeeper.stop()
        self.models.close()
        self.remotes.close()
        self.trial_runs.close()
        self.db.close()


def build(
    settings: Settings,
    *,
    role_model: str | None = None,
    clock: Clock | None = None,
    policy: PolicyEngine | None = None,
) -> App:
    """Every part over the settings' home; nothing runs yet.

    `role_model` takes every role instead of the models that the catalog names; `policy` stands in for the home's rules.
    Raises `StoreError`, `PolicyError` or `ConfigError` for a home that cannot be used, `NotFound` for an unknown model.
    """
    policy = policy or PolicyEngine.load(settings.policies_dir)
    catalog = LiveCatalog(settings.models_dir, defaults_dir() / "models", only=role_model)
    base = _base(settings, clock or SystemClock())
    live, clock, db, record, emit = base.live, base.clock, base.db, base.audit.record, base.events.emit
    ledger = Ledger(db, clock, settings=lambda: live.current.snapshots, record=record, emit=emit)
    vault, redactor = base.vault, base.redactor
    approvals = Approvals(
        db, base.audit, emit, clock, hours=lambda: live.current.approvals.expire_hours, redact=redactor
    )
    read_output = read_output_tool(base.outputs)
    previews = Previews(db, clock, redactor)
    tools = Toolbox(builtin() | {read_output.name: read_output})
    gate = _gate(base, policy, tools, ledger, approvals, previews)
    remotes = Remotes(secret=vault.get, policy=policy, record=record)
    replies, profiles = ReplyCache(db, clock, lambda: live.current.cache), Profiles(db, clock)
    models = _router(base, catalog, remotes, replies, profiles)
    prober = Prober(
        catalog=catalog.current,
        models=models,
        profiles=profiles,
        bus=base.bus,
        enabled=lambda: live.current.models.probe,
    )
    workshop = _workshop(base, policy, tools, {*gate.tools, READ_SKILL, *_WORDS})
    queue = _queue(base, approvals)
    shadows = Shadows(
        settings.copies_dir,
        max_mb=lambda: live.current.tasks.copy_mb,
        spare=(settings.state_dir, settings.models_dir),
        active=queue.under_way,
    )
    runner = Runner(
        models=models,
        gate=gate,
        tools=tools,
        record=record,
        emit=emit,
        clock=clock,
        ledger=ledger,
        repeats=lambda: live.current.agent.loop_repeats,
        sittings=Sittings(above=lambda: live.current.policy.council_above, ledger=ledger, approvals=approvals),
        redactor=redactor,
        approvals=approvals,
        forge=workshop.forge,
    )
    rehearsal = Rehearsal(work=runner.run, gate=gate, shadows=shadows, previews=previews, clock=clock)

    def work(task: Task, journal: Journal, cancel: threading.Event) -> Report:
        try:
            return rehearsal.run(task, journal, cancel)
        finally:
            workshop.loader.end(task.id)

    return App(
        live=live,
        clock=clock,
        db=db,
        audit=base.audit,
        bus=base.bus,
        events=base.events,
        outputs=base.outputs,
        ledger=ledger,
        undo=Undo(queue, ledger, previews),
        housekeeper=Housekeeper(ledger.retention, ledger.blobs),
        keys=ApiKeys(db, clock),
        vault=vault,
        redactor=redactor,
        remotes=remotes,
        policy=policy,
        tools=tools,
        gate=gate,
        catalog=catalog,
        models=models,
        replies=replies,
        prober=prober,
        puller=Puller(catalog.folder, defaults_dir() / "models"),
        trial_runs=workshop.trial_runs,
        plugins=workshop.registry,
        loader=workshop.loader,
        admission=workshop.admission,
        queue=queue,
        approvals=approvals,
        inbox=Inbox(db, queue, approvals),
        previews=previews,
        shadows=shadows,
        runner=runner,
        worker=Worker(
            queue, lambda task: TaskJournal(db, task, clock, redactor), work, clock, count=settings.tasks.workers
        ),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Base:
    """What every other part stands on."""

    live: LiveSettings
    clock: Clock
    db: Database
    audit: Audit
    bus: Bus
    events: EventLog
    outputs: Outputs
    vault: Vault
    redactor: Redactor


def _base(settings: Settings, clock: Clock) -> _Base:
    live, bus = LiveSettings(settings), Bus()
    db = Database(settings.db_path, clock=clock, ballast_mb=settings.store.ballast_mb)
    vault = Vault(db, clock, settings.vault_key_path)
    redactor = Redactor(vault.values)
    return _Base(
        live=live,
        clock=clock,
        db=db,
        audit=Audit(db, clock, redactor.clean),
        bus=bus,
        events=EventLog(db, bus, clock, redactor.clean),
        outputs=Outputs(db, clock),
        vault=vault,
        redactor=redactor,
    )


def _gate(
    base: _Base,
    policy: PolicyEngine,
    tools: Toolbox,
    ledger: Ledger,
    approvals: Approvals,
    previews: Previews,
) -> Gate:
    """The door to the agent's tools, and to those that no model is shown: the checks of the owner, and `apply`."""
    settings, applying = base.live.current, apply_tool(previews)
    return Gate(
        Toolbox(checks() | {applying.name: applying}, tools),
        policy,
        base.audit,
        base.events.emit,
        base.outputs,
        base.clock,
        own=OwnPlaces.of(settings),
        walls=walls_of(settings, settings.sandbox),
        ledger=ledger,
        approvals=approvals,
        ask_above=lambda: base.live.current.policy.ask_above,
        redactor=base.redactor,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Workshop:
    """What plugins are made, proven, kept and called with."""

    registry: Registry
    forge: Forge
    admission: Admission
    loader: Loader
    trial_runs: TrialRuns


def _workshop(base: _Base, policy: PolicyEngine, tools: Toolbox, reserved: Collection[str]) -> _Workshop:
    """`tools`: where plugins in use are put; `reserved`: names that none may have."""
    live, record = base.live, base.audit.record
    executors = _executors(live.current)
    executor = executors[live.current.sandbox.chosen]

    def limits() -> Limits:
        return _limits(live.current.sandbox)

    registry, proof = _registry(base, reserved), Proof(lambda: executor, limits)
    return _Workshop(
        registry=registry,
        forge=_forge(base, registry, executor, policy, limits),
        admission=Admission(registry, Judge(lambda: executor, limits), proof),
        loader=Loader(
            registry,
            tools,
            executor=lambda: executor,
            prove=proof,
            record=record,
            clock=base.clock,
            limits=limits,
        ),
        trial_runs=TrialRuns(executors, record, limits, preferred=executor.name),
    )


def _registry(base: _Base, reserved: Collection[str]) -> Registry:
    """The plugins of the home; `reserved` are names that none may have."""
    settings = base.live.current
    return Registry(
        base.db,
        base.audit,
        base.events.emit,
        base.clock,
        PluginFolder(settings.plugins_dir, Signer(settings.plugin_key_path)),
        language=language(),
        reserved=reserved,
    )


def _forge(
    base: _Base, plugins: Registry, executor: CheckingExecutor, policy: PolicyEngine, limits: Callable[[], Limits]
) -> Forge:
    live = base.live
    return Forge(
        plugins,
        executor=lambda: executor,
        policy=policy,
        record=base.audit.record,
        emit=base.events.emit,
        limits=limits,
        attempts=lambda: live.current.plugins.attempts,
        best_of=lambda: live.current.plugins.best_of,
        council=on_plugin,
        council_always=lambda: live.current.plugins.council,
    )


def _queue(base: _Base, approvals: Approvals) -> Queue:
    return Queue(
        base.db,
        base.audit,
        base.events.emit,
        base.clock,
        defaults=lambda: _defaults(base.live.current),
        lease_seconds=base.live.current.tasks.lease_seconds,
        approvals=approvals,
        redactor=base.redactor,
    )


def _executors(settings: Settings) -> dict[str, CheckingExecutor]:
    """What plugins can run in, by name; nothing is started before it is used."""
    return {"os": OsExecutor(), "wasm": WasmExecutor(settings.state_dir / "wasm")}


def _limits(sandbox: SandboxSettings) -> Limits:
    """Of one call of a plugin."""
    return Limits(seconds=sandbox.seconds, memory_mb=sandbox.memory_mb, output_bytes=sandbox.output_kb * 1000)


def _router(base: _Base, catalog: LiveCatalog, remotes: Remotes, replies: ReplyCache, profiles: Profiles) -> Router:
    """Every model: those of this machine, and those on servers."""
    live, emit = base.live, base.events.emit
    pool = Pool(
        catalog.current, lambda: live.current.models, emit=emit, states=live.current.state_dir / "conversations"
    )
    return Router(
        pool,
        catalog.current,
        clock=base.clock,
        settings=lambda: live.current.router,
        remote=remotes.model,
        reach=remotes.reach,
        cache=replies,
        emit=emit,
        quality=profiles.quality,
        tuned=profiles.tuned,
    )


def _defaults(settings: Settings) -> Defaults:
    limits = settings.agent
    return Defaults(
        level=AccessLevel(settings.policy.default_level),
        max_level=AccessLevel(settings.policy.max_level),
        budget=Budget(steps=limits.steps, tokens=limits.tokens, seconds=limits.seconds, retries=limits.retries),
    )
