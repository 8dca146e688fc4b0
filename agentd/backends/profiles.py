"""What probes found, kept by model; and what the step protocol makes of it."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import asdict, fields, replace
from typing import Any

from agentd.backends.catalog import ModelEntry
from agentd.backends.probe import Findings
from agentd.store.db import Database
from agentd.types import Clock, ModelProfile

WORTH_CALLING = 0.5
"""Share of well-formed calls from which a model is trusted to follow the step protocol."""
SMALLEST_CONTEXT = 2048
"""Tokens below which a measured context is taken for a bad day of the probe, not for the truth."""


class Profiles:
    """The findings of one home; safe to use from several threads."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._lock = threading.Lock()
        self._read: dict[str, tuple[str, Findings] | None] = {}
        """Model -> fingerprint and findings, as the table has them."""

    def put(self, entry: ModelEntry, findings: Findings) -> None:
        row = (entry.name, fingerprint(entry), self._clock.now(), json.dumps(asdict(findings)))
        sql = "INSERT OR REPLACE INTO model_profiles (model, fingerprint, probed, profile) VALUES (?, ?, ?, ?)"
        self._db.execute(sql, row)
        self._forget(entry.name)

    def get(self, entry: ModelEntry) -> Findings | None:
        """What is known of this very file, or of this model on its server; None for nothing."""
        with self._lock:
            if entry.name not in self._read:
                self._read[entry.name] = self._row(entry.name)
            known = self._read[entry.name]
        return known[1] if known is not None and known[0] == fingerprint(entry) else None

    def remove(self, name: str) -> None:
        self._db.execute("DELETE FROM model_profiles WHERE model = ?", (name,))
        self._forget(name)

    def quality(self, entry: ModelEntry) -> float:
        """Mean of what it got right: calls of tools and edits, 0..1; 1 for a model that was not probed."""
        found = self.get(entry)
        rates = [] if found is None else [found.parse_rate, found.right_rate, max(found.edits.values(), default=None)]
        known = [rate for rate in rates if rate is not None]
        return sum(known) / len(known) if known else 1.0

    def tuned(self, entry: ModelEntry, profile: ModelProfile) -> ModelProfile:
        return tuned(profile, self.get(entry), local=entry.server is None)

    def _row(self, name: str) -> tuple[str, Findings] | None:
        row = self._db.row("SELECT fingerprint, profile FROM model_profiles WHERE model = ?", (name,))
        if row is None:
            return None
        known = {each.name for each in fields(Findings)}
        found: dict[str, Any] = {name: value for name, value in json.loads(row["profile"]).items() if name in known}
        return row["fingerprint"], Findings(**{**found, "stop_tokens": tuple(found.get("stop_tokens", ()))})

    def _forget(self, name: str) -> None:
        with self._lock:
            self._read.pop(name, None)


def fingerprint(entry: ModelEntry) -> str:
    """Changes with the file, or with the server and the model's name there."""
    if entry.server is not None:
        told: list[Any] = [entry.server, entry.model]
    else:
        path = entry.available
        status = path.stat() if path is not None else None
        told = [str(path), status.st_size, status.st_mtime_ns] if status else [str(path)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def tuned(profile: ModelProfile, findings: Findings | None, *, local: bool) -> ModelProfile:
    """The profile with what was measured. What the catalog says outright stays: `compact`, `think` as an upper bound, a
    dialect. Only a local model can be scored, so only a local one becomes compact for writing no calls."""
    if findings is None:
        return profile
    context = profile.context
    if findings.usable_context is not None and findings.usable_context >= SMALLEST_CONTEXT:
        # Beyond the largest fill that was tried nothing is known to be wrong.
        all_found = bool(findings.needles) and all(findings.needles.values())
        context = context if all_found else min(context, findings.usable_context)
    poor = findings.parse_rate is not None and findings.parse_rate < WORTH_CALLING
    return replace(
        profile,
        context=context,
        compact=profile.compact or (local and poor),
        think=profile.think and findings.thinks is not False,
        dialect=profile.dialect or (findings.dialect if findings.dialect != "native" else None),
        edit_format=findings.edit_format or profile.edit_format,
    )
