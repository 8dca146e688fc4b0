"""Puts the parts together: `build(settings)` makes the one `App` of a daemon."""

from __future__ import annotations

import threading
from collections.abc import Mapping
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
from agentd.types import AccessLevel, Budget, Clock, Emit, Journal, Report, Task
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
    clock, live = clock or SystemClock(), LiveSettings(settings)
    db = Database(settings.db_path, clock=clock, ballast_mb=settings.store.ballast_mb)
    audit, bus, outputs = Audit(db, clock), Bus(), Outputs(db, clock)
    events = EventLog(db, bus, clock)
    ledger = Ledger(db, clock, settings=lambda: live.current.snapshots, record=audit.record, emit=events.emit)
    approvals = Approvals(db, audit, events.emit, clock, hours=lambda: live.current.approvals.expire_hours)
    read_output = read_output_tool(outputs)
    previews = Previews(db, clock)
    applying = apply_tool(previews)
    tools = Toolbox(builtin() | {read_output.name: read_output})
    vault = Vault(db, clock, settings.vault_key_path)
    redactor = Redactor(vault.values)
    gate = Gate(
        Toolbox(checks() | {applying.name: applying}, tools),
        policy,
        audit,
        events.emit,
        outputs,
        clock,
        own=OwnPlaces.of(settings),
        walls=walls_of(settings, settings.sandbox),
        ledger=ledger,
        approvals=approvals,
        ask_above=lambda: live.current.policy.ask_above,
        redactor=redactor,
    )
    remotes = Remotes(secret=vault.get, policy=policy, record=audit.record)
    replies, profiles = ReplyCache(db, clock, lambda: live.current.cache), Profiles(db, clock)
    models = _router(live, catalog, remotes, replies, profiles, events.emit, clock)
    prober = Prober(
        catalog=catalog.current,
        models=models,
        profiles=profiles,
        bus=bus,
        enabled=lambda: live.current.models.probe,
    )
    executors = _executors(settings)
    executor = executors[settings.sandbox.chosen]
    plugins = Registry(
        db,
        audit,
        events.emit,
        clock,
        PluginFolder(settings.plugins_dir, Signer(settings.plugin_key_path)),
        language=language(),
        reserved={*gate.tools, READ_SKILL, *_WORDS},
    )

    def limits() -> Limits:
        return _limits(live.current.sandbox)

    proof = Proof(lambda: executor, limits)
    queue = Queue(
        db,
        audit,
        events.emit,
        clock,
        defaults=lambda: _defaults(live.current),
        lease_seconds=settings.tasks.lease_seconds,
        approvals=approvals,
    )
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
        record=audit.record,
        emit=events.emit,
        clock=clock,
        ledger=ledger,
        repeats=lambda: live.current.agent.loop_repeats,
        sittings=Sittings(above=lambda: live.current.policy.council_above, ledger=ledger, approvals=approvals),
        redact=redactor,
        approvals=approvals,
        forge=Forge(
            plugins,
            executor=lambda: executor,
            policy=policy,
            record=audit.record,
            emit=events.emit,
            limits=limits,
            attempts=lambda: live.current.plugins.attempts,
            best_of=lambda: live.current.plugins.best_of,
            council=on_plugin,
            council_always=lambda: live.current.plugins.council,
        ),
    )
    loader = Loader(
        plugins,
        tools,
        executor=lambda: executor,
        prove=proof,
        record=audit.record,
        clock=clock,
        limits=limits,
    )

    rehearsal = Rehearsal(work=runner.run, gate=gate, shadows=shadows, previews=previews, clock=clock)

    def work(task: Task, journal: Journal, cancel: threading.Event) -> Report:
        try:
            return rehearsal.run(task, journal, cancel)
        finally:
            loader.end(task.id)

    return App(
        live=live,
        clock=clock,
        db=db,
        audit=audit,
        bus=bus,
        events=events,
        outputs=outputs,
        ledger=ledger,
        undo=Undo(queue, ledger, previews),
        housekeeper=Housekeeper(ledger.retention, ledger.blobs),
        keys=ApiKeys(db, clock),
        vault=vault,
        remotes=remotes,
        policy=policy,
        tools=tools,
        gate=gate,
        catalog=catalog,
        models=models,
        replies=replies,
        prober=prober,
        puller=Puller(catalog.folder, defaults_dir() / "models"),
        trial_runs=TrialRuns(executors, audit.record, limits, preferred=executor.name),
        plugins=plugins,
        loader=loader,
        admission=Admission(plugins, Judge(lambda: executor, limits), proof),
        queue=queue,
        approvals=approvals,
        inbox=Inbox(db, queue, approvals),
        previews=previews,
        shadows=shadows,
        runner=runner,
        worker=Worker(queue, lambda task: TaskJournal(db, task, clock), work, clock, count=settings.tasks.workers),
    )


def _executors(settings: Settings) -> dict[str, CheckingExecutor]:
    """What plugins can run in, by name; nothing is started before it is used."""
    return {"os": OsExecutor(), "wasm": WasmExecutor(settings.state_dir / "wasm")}


def _limits(sandbox: SandboxSettings) -> Limits:
    """Of one call of a plugin."""
    return Limits(seconds=sandbox.seconds, memory_mb=sandbox.memory_mb, output_bytes=sandbox.output_kb * 1000)


def _router(
    live: LiveSettings,
    catalog: LiveCatalog,
    remotes: Remotes,
    replies: ReplyCache,
    profiles: Profiles,
    emit: Emit,
    clock: Clock,
) -> Router:
    """Every model: those of this machine, and those on servers."""
    pool = Pool(
        catalog.current, lambda: live.current.models, emit=emit, states=live.current.state_dir / "conversations"
    )
    return Router(
        pool,
        catalog.current,
        clock=clock,
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
