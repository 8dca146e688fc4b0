"""The plugins of a home: which versions there are, how they came to be, how they do, and which one works."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agentd.errors import BadInput, Conflict, NotFound, PluginRefused, StoreError, nearest
from agentd.events import EventKind
from agentd.plugins.arguments import arguments_flaw
from agentd.plugins.broker import permission_flaw
from agentd.plugins.folder import Package, PluginFolder
from agentd.plugins.spec import Evidence, Manifest, Spec
from agentd.plugins.standing import State, judged
from agentd.store.audit import Audit
from agentd.store.db import Database
from agentd.types import Clock, Emit

DAY = 86_400.0
_COUNTED = {True: "successes", False: "failures"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plugin:
    """One version. `successes` and `failures` are those that its state rests on; times are Unix seconds."""

    name: str
    version: int
    state: State
    reason: str
    """Why it is in this state."""
    digest: str
    spec: Spec
    evidence: Evidence
    proven_on: str
    """The language that its last proof was given in."""
    successes: int
    failures: int
    failed_now: int
    created: float
    used: float | None
    active: bool = False
    """The version that is called."""

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """How a version does when a certain model calls it; `model` is empty for a person."""

    model: str
    successes: int
    failures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is not as it should be in the folder: a `plugin` that was quarantined, or something that has no row."""

    plugin: str
    problem: str


class Registry:
    """The only writer of plugins, in the database and on disk; safe to use from several threads."""

    def __init__(
        self,
        db: Database,
        audit: Audit,
        emit: Emit,
        clock: Clock,
        folder: PluginFolder,
        *,
        language: str = "",
        reserved: Collection[str] = (),
    ) -> None:
        """`language`: what plugins are written in here; a plugin that was proven in another has to be proven again.
        `reserved`: names that no plugin may have."""
        self.folder = folder
        self.language = language
        self._reserved = reserved
        self.changed: list[Callable[[], None]] = []
        """Called when another set of plugins may be called than before."""
        self._db = db
        self._audit = audit
        self._emit = emit
        self._clock = clock
        self._writing = threading.RLock()

    # what there is ----------------------------------------------------------------------------------------------------

    def all(self, name: str | None = None) -> list[Plugin]:
        """Every version (of one plugin), by name, the newest first."""
        where, params = ("WHERE name = ?", (name,)) if name is not None else ("", ())
        rows = self._db.rows(f"SELECT * FROM plugins {where} ORDER BY name, version DESC", params)
        pins = {row["name"]: row["version"] for row in self._db.rows("SELECT name, version FROM plugin_pins")}
        return _with_active([_plugin(row) for row in rows], pins)

    def active(self) -> list[Plugin]:
        """The versions that are called, one of each plugin that has one."""
        return [plugin for plugin in self.all() if plugin.active]

    def get(self, name: str, version: int | None = None) -> Plugin:
        """This version; without a number the one that is called, else the newest. Raises `NotFound`."""
        versions = self.all(name)
        if not versions:
            known = sorted({plugin.name for plugin in self.all()})
            raise NotFound(f"there is no plugin {name[:60]!r}", hint=nearest(name, known))
        if version is None:
            return next((plugin for plugin in versions if plugin.active), versions[0])
        found = next((plugin for plugin in versions if plugin.version == version), None)
        if found is None:
            there = ", ".join(str(plugin.version) for plugin in versions)
            raise NotFound(f"{name} has no version {version}", hint=f"there are {there}")
        return found

    def next_version(self, name: str) -> int:
        return 1 + max((plugin.version for plugin in self.all(name)), default=0)

    def models(self, plugin: Plugin) -> list[ModelRecord]:
        """All calls of a version, by model."""
        sql = "SELECT model, successes, failures FROM plugin_uses WHERE name = ? AND version = ? ORDER BY model"
        return [ModelRecord(**row) for row in self._db.rows(sql, (plugin.name, plugin.version))]

    # coming and going -------------------------------------------------------------------------------------------------

    def install(self, manifest: Manifest, files: Mapping[str, bytes], *, task: str = "") -> Plugin:
        """Sign a plugin, put it on disk and enter it, provisional. Its row is the last act: what a crash leaves before
        has none, is never loaded, and gives way to the next try. Raises `BadInput`, `Conflict`, `StoreError`."""
        name, version = manifest.spec.name, manifest.version
        self.refuse_unusable(manifest.spec)
        manifest = manifest.model_copy(update={"created": self._clock.now()})
        with self._writing:
            if any(plugin.version == version for plugin in self.all(name)):
                raise Conflict(f"there is a plugin {name} {version} already", hint=f"{self.next_version(name)} is free")
            package = self.folder.write(manifest, files, first=not self.all())
            with self._db.transaction():
                self._insert(package)
                if manifest.evidence.author == "person":
                    self._unpin(name)
                told = {"plugin": name, "version": version, "digest": package.digest}
                more = {"evidence": manifest.evidence.model_dump(mode="json")}
                self._tell("plugin.installed", EventKind.PLUGIN_INSTALLED, task, told, more)
        return self.get(name, version)

    def refuse_unusable(self, spec: Spec) -> None:
        """`BadInput` for a spec of which no tool could be made."""
        if spec.name in self._reserved:
            raise BadInput(f"{spec.name} is the name of a tool that is built in", hint="take another name")
        if flaw := arguments_flaw(spec) or permission_flaw(spec.permissions):
            raise BadInput(f"the spec of {spec.name} cannot be used: {flaw}")

    def remove(self, name: str, version: int | None = None) -> list[Plugin]:
        """Take a plugin (or one version) away; returns what is gone. Raises `NotFound`."""
        gone = self.all(name) if version is None else [self.get(name, version)]
        if not gone:
            self.get(name)
        with self._writing:
            with self._db.transaction():
                for plugin in gone:
                    row = (plugin.name, plugin.version)
                    self._db.execute("DELETE FROM plugins WHERE name = ? AND version = ?", row)
                    told = {"plugin": plugin.name, "version": plugin.version, "digest": plugin.digest}
                    self._tell("plugin.removed", EventKind.PLUGIN_REMOVED, "", told)
            for plugin in gone:
                self.folder.remove(plugin.name, plugin.version)
        return gone

    # life -------------------------------------------------------------------------------------------------------------

    def count(self, plugin: Plugin, ok: bool, *, model: str = "", task: str = "") -> None:
        """Note how a call ended; a record that is good or bad enough moves the plugin."""
        column, row = _COUNTED[ok], (plugin.name, plugin.version)
        with self._db.transaction():
            self._db.execute(
                f"UPDATE plugins SET {column} = {column} + 1, used = ?, failed_now = iif(?, 0, failed_now + 1) "
                "WHERE name = ? AND version = ?",
                (self._clock.now(), ok, *row),
            )
            found = next((each for each in self.all(plugin.name) if each.version == plugin.version), None)
            if found is None:
                return  # it was taken away while it ran
            self._db.execute(
                f"INSERT INTO plugin_uses (name, version, model, {column}) VALUES (?, ?, ?, 1) "
                f"ON CONFLICT DO UPDATE SET {column} = {column} + 1",
                (*row, model),
            )
            state, reason = judged(found.state, found.successes, found.failures, found.failed_now)
            self._move(found, state, reason, task=task)

    def trust(self, name: str, version: int | None = None) -> Plugin:
        """A person vouches for it: its record begins anew. Raises `PluginRefused` when it is not as it was signed."""
        plugin = self.get(name, version)
        self._check(plugin)
        with self._db.transaction():
            self._db.execute(
                "UPDATE plugins SET successes = 0, failures = 0, failed_now = 0, used = ? "
                "WHERE name = ? AND version = ?",
                (self._clock.now(), plugin.name, plugin.version),
            )
            self._move(plugin, State.TRUSTED, "a person trusts it")
        return self.get(name, plugin.version)

    def demote(self, name: str, version: int | None = None, reason: str = "a person took it out of use") -> Plugin:
        plugin = self.get(name, version)
        if plugin.state is not State.QUARANTINED:
            self._move(plugin, State.DEMOTED, reason)
        return self.get(name, plugin.version)

    def quarantine(self, plugin: Plugin, reason: str) -> None:
        """Take it out of use until a person has looked at it."""
        self._move(plugin, State.QUARANTINED, reason)

    def roll_back(self, name: str, version: int | None = None) -> Plugin:
        """Call this version from now on, or the one before the active one. Raises `NotFound`, `Conflict`."""
        current = self.get(name)
        older = [each for each in self.all(name) if each.version < current.version and each.state.loadable]
        if version is None and not older:
            raise Conflict(f"{name} has no version before {current.version} that works")
        chosen = self.get(name, version) if version is not None else older[0]
        if not chosen.state.loadable:
            raise Conflict(
                f"{chosen} is {chosen.state.value}: {chosen.reason}",
                hint=f"agentd plugin trust {name} {chosen.version}",
            )
        with self._db.transaction():
            self._unpin(name)
            self._db.execute("INSERT INTO plugin_pins (name, version) VALUES (?, ?)", (name, chosen.version))
            told = {"plugin": name, "version": chosen.version, "from": current.version}
            self._tell("plugin.rolled_back", EventKind.PLUGIN_ROLLED_BACK, "", told)
        return self.get(name, chosen.version)

    def must_be_proven(self, plugin: Plugin) -> bool:
        """Whether the language has changed since its last proof."""
        return self.language != self.get(plugin.name, plugin.version).proven_on

    def prove(self, plugin: Plugin, prove: Callable[[], None]) -> None:
        """Take it through the gate again; what does not pass is quarantined. Raises what `prove` raises."""
        try:
            prove()
        except PluginRefused as error:
            self.quarantine(plugin, f"it does not pass the gate any more: {error.message}")
            raise
        with self._db.transaction():
            row = (self.language, plugin.name, plugin.version)
            self._db.execute("UPDATE plugins SET proven_on = ? WHERE name = ? AND version = ?", row)
            self._audit.record("plugin.proven", "", {"plugin": plugin.name, "version": plugin.version, "on": row[0]})

    def archive_unused(self, days: float) -> list[Plugin]:
        """Put away what nobody has used for so long; returns it."""
        since = self._clock.now() - days * DAY
        by_name: dict[str, list[Plugin]] = {}
        for plugin in self.all():
            by_name.setdefault(plugin.name, []).append(plugin)
        old = [each for each in by_name.values() if max(plugin.used or plugin.created for plugin in each) < since]
        put_away = [plugin for versions in old for plugin in versions if plugin.state.loadable]
        with self._db.transaction():
            for plugin in put_away:
                self._move(plugin, State.ARCHIVED, f"nobody used it for {days:g} days")
        return put_away

    # integrity --------------------------------------------------------------------------------------------------------

    def load(self, plugin: Plugin) -> Package:
        """What it consists of, exactly as it was signed; else it is quarantined, and `PluginRefused` says why."""
        try:
            return self._check(plugin)
        except PluginRefused as error:
            self.quarantine(plugin, error.message)
            raise

    def verify(self, name: str | None = None) -> list[Fault]:
        """Look at every version (of one plugin); what is not as it was signed is quarantined, and told."""
        faults = []
        for plugin in self.all(name):
            try:
                self.load(plugin)
            except PluginRefused as error:
                faults.append(Fault(plugin=str(plugin), problem=error.message))
        return faults

    def recover(self) -> list[Fault]:
        """At the start of a daemon: sweep what a crash has left, verify all, and tell what lies there unknown."""
        self.folder.sweep()
        try:
            faults = self.verify()
        except StoreError as error:
            return [Fault(plugin="all", problem=error.message)]
        known = {(plugin.name, plugin.version) for plugin in self.all()}
        strangers = [each for each in self.folder.found() if each not in known]
        return faults + [
            Fault(plugin=f"{name} {version}", problem=f"{name}/{version} was never installed here, so it is not loaded")
            for name, version in strangers
        ]

    def _check(self, plugin: Plugin) -> Package:
        package = self.folder.read(plugin.name, plugin.version)
        if package.digest != plugin.digest:
            raise PluginRefused(
                f"{plugin.name}/{plugin.version}/manifest.json is signed, but is another than was installed",
                hint="nothing of it is run; `agentd plugin rm` takes it away",
            )
        return package

    # rows -------------------------------------------------------------------------------------------------------------

    def _insert(self, package: Package) -> None:
        spec, evidence = package.manifest.spec, package.manifest.evidence
        row = (spec.name, package.manifest.version, State.PROVISIONAL.value, "it is new", package.digest)
        more = (spec.model_dump_json(), evidence.model_dump_json(), self.language, package.manifest.created)
        self._db.execute(
            "INSERT INTO plugins (name, version, state, reason, digest, spec, evidence, proven_on, created) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (*row, *more),
        )

    def _unpin(self, name: str) -> None:
        self._db.execute("DELETE FROM plugin_pins WHERE name = ?", (name,))

    def _move(self, plugin: Plugin, state: State, reason: str, *, task: str = "") -> None:
        if state is plugin.state:
            return
        with self._db.transaction():
            row = (state.value, reason, plugin.name, plugin.version)
            self._db.execute("UPDATE plugins SET state = ?, reason = ? WHERE name = ? AND version = ?", row)
            told = {"plugin": plugin.name, "version": plugin.version, "from": plugin.state.value, "to": state.value}
            self._tell("plugin.judged", EventKind.PLUGIN_JUDGED, task, told | {"reason": reason})

    def _tell(
        self, kind: str, event: EventKind, task: str, told: Mapping[str, Any], more: Mapping[str, Any] | None = None
    ) -> None:
        self._audit.record(kind, task, {**told, **(more or {})})
        self._emit(event, task, told)
        self._db.after_commit(self._tell_change)

    def _tell_change(self) -> None:
        for listener in self.changed:
            listener()


def _with_active(plugins: Sequence[Plugin], pins: Mapping[str, int]) -> list[Plugin]:
    """Each plugin with the version marked that is called: the one a person went back to, else the newest that works."""
    chosen: dict[str, int] = {}
    for plugin in plugins:
        if plugin.state.loadable and (plugin.name not in chosen or pins.get(plugin.name) == plugin.version):
            chosen[plugin.name] = plugin.version
    return [replace(plugin, active=chosen.get(plugin.name) == plugin.version) for plugin in plugins]


def _plugin(row: Mapping[str, Any]) -> Plugin:
    return Plugin(
        **{
            **row,
            "state": State(row["state"]),
            "spec": Spec.model_validate(json.loads(row["spec"])),
            "evidence": Evidence.model_validate(json.loads(row["evidence"])),
        }
    )
