"""What probes found, kept by model; and what the step protocol makes of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, fields, replace
from typing import Any

from agentd.backends.catalog import ModelEntry, ServerEntry
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

    def put(self, entry: ModelEntry, findings: Findings, server: ServerEntry | None = None) -> None:
        self._db.execute(
            "INSERT OR REPLACE INTO model_profiles (model, fingerprint, probed, profile) VALUES (?, ?, ?, ?)",
            (entry.name, fingerprint(entry, server), self._clock.now(), json.dumps(asdict(findings))),
        )

    def get(self, entry: ModelEntry, server: ServerEntry | None = None) -> Findings | None:
        """What is known of this very file, or of this model on this server; None for nothing."""
        row = self._db.row("SELECT fingerprint, profile FROM model_profiles WHERE model = ?", (entry.name,))
        if row is None or row["fingerprint"] != fingerprint(entry, server):
            return None
        known = {each.name for each in fields(Findings)}
        found: dict[str, Any] = {name: value for name, value in json.loads(row["profile"]).items() if name in known}
        return Findings(**{**found, "stop_tokens": tuple(found.get("stop_tokens", ()))})

    def remove(self, name: str) -> None:
        self._db.execute("DELETE FROM model_profiles WHERE model = ?", (name,))


def fingerprint(entry: ModelEntry, server: ServerEntry | None = None) -> str:
    """Changes with the file, or with the server and the model's name there."""
    if entry.server is not None:
        told: list[Any] = [entry.server, entry.model, *(sorted(server.urls) if server else ())]
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
