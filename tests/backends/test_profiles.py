"""What is kept of a probe, and what becomes of a profile by it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agentd.backends.catalog import ModelEntry
from agentd.backends.probe import Findings
from agentd.backends.profiles import Profiles, tuned
from agentd.clock import SystemClock
from agentd.store.db import Database
from agentd.types import ModelProfile

FOUND = Findings(
    dialect="xml", parse_rate=0.9, usable_context=4000, needles={"25": True, "95": False}, edit_format="whole"
)


@pytest.fixture
def profiles(tmp_path: Path) -> Iterator[Profiles]:
    db = Database(tmp_path / "agentd.db", clock=SystemClock(), ballast_mb=0)
    yield Profiles(db, SystemClock())
    db.close()


@pytest.fixture
def entry(tmp_path: Path) -> ModelEntry:
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    return ModelEntry(name="a", profile=ModelProfile(context=8000), file=tmp_path / "a.gguf")


def test_findings_are_kept(profiles: Profiles, entry: ModelEntry) -> None:
    assert profiles.get(entry) is None
    profiles.put(entry, FOUND)
    assert profiles.get(entry) == FOUND


def test_another_file_under_the_name_is_not_known(profiles: Profiles, entry: ModelEntry) -> None:
    profiles.put(entry, FOUND)
    assert entry.file is not None
    os.utime(entry.file, (1, 1))
    assert profiles.get(entry) is None


def test_a_model_on_another_server_is_not_known(profiles: Profiles, entry: ModelEntry) -> None:
    remote = replace(entry, file=None, backend="openai", server="one", model="m")
    profiles.put(remote, FOUND)
    assert profiles.get(remote) == FOUND
    assert profiles.get(replace(remote, server="two")) is None


def test_quality_is_what_it_got_right(profiles: Profiles, entry: ModelEntry) -> None:
    assert profiles.quality(entry) == 1.0
    profiles.put(entry, Findings(parse_rate=1.0, right_rate=0.5, edits={"whole": 0.0, "patch": 0.0}))
    assert profiles.quality(entry) == 0.5


def test_forgotten(profiles: Profiles, entry: ModelEntry) -> None:
    profiles.put(entry, FOUND)
    profiles.remove("a")
    assert profiles.get(entry) is None


def test_a_profile_takes_what_was_measured() -> None:
    made = tuned(ModelProfile(context=8000, think=True), replace(FOUND, thinks=False), local=True)
    assert (made.context, made.dialect, made.edit_format, made.compact, made.think) == (
        4000,
        "xml",
        "whole",
        False,
        False,
    )


def test_what_the_catalog_says_stays() -> None:
    made = tuned(ModelProfile(context=8000, compact=True, dialect="hermes"), FOUND, local=True)
    assert (made.compact, made.dialect) == (True, "hermes")


def test_a_context_that_was_fine_to_the_end_is_not_cut() -> None:
    fine = replace(FOUND, needles={"25": True, "95": True}, usable_context=7500)
    assert tuned(ModelProfile(context=8000), fine, local=True).context == 8000
    lost = replace(FOUND, needles={"25": False}, usable_context=0)
    assert tuned(ModelProfile(context=8000), lost, local=True).context == 8000


def test_a_model_that_cannot_call_is_read_with_scores_if_it_is_here() -> None:
    poor = replace(FOUND, parse_rate=0.2)
    assert tuned(ModelProfile(), poor, local=True).compact
    assert not tuned(ModelProfile(), poor, local=False).compact
    assert not tuned(ModelProfile(), None, local=True).compact
