"""Named keys."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agentd.errors import BadInput, Conflict, NotFound
from agentd.security.keys import ApiKeys
from agentd.store.db import Database


class Watch:
    at = 1000.0

    def now(self) -> float:
        return self.at

    def sleep(self, seconds: float) -> None:
        self.at += seconds


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def db(tmp_path: Path, watch: Watch) -> Iterator[Database]:
    found = Database(tmp_path / "agentd.db", clock=watch, ballast_mb=0)
    yield found
    found.close()


def test_a_key_is_known_until_it_is_taken_back(db: Database, watch: Watch) -> None:
    keys = ApiKeys(db, watch)
    key = keys.make("editor")
    assert keys.knows(key)
    assert not keys.knows(key + "x")
    keys.remove("editor")
    assert not keys.knows(key)


def test_another_daemon_knows_it_and_cannot_read_it(db: Database, watch: Watch) -> None:
    key = ApiKeys(db, watch).make("editor")
    assert ApiKeys(db, watch).knows(key)
    assert key not in str(db.rows("SELECT * FROM api_keys"))


def test_its_use_is_noted(db: Database, watch: Watch) -> None:
    keys = ApiKeys(db, watch)
    key = keys.make("editor")
    assert keys.all()[0].used is None
    watch.at = 2000.0
    keys.knows(key)
    watch.at = 2030.0
    keys.knows(key)
    assert [(each.name, each.created, each.used) for each in keys.all()] == [("editor", 1000.0, 2000.0)]


@pytest.mark.parametrize("name", ["", " ", "a b", "-x", "a/b", "x" * 65, "é", "a\n"])
def test_bad_names(db: Database, watch: Watch, name: str) -> None:
    with pytest.raises(BadInput, match="no name"):
        ApiKeys(db, watch).make(name)


def test_taken_and_missing_names(db: Database, watch: Watch) -> None:
    keys = ApiKeys(db, watch)
    keys.make("editor")
    with pytest.raises(Conflict, match="editor"):
        keys.make("editor")
    with pytest.raises(NotFound, match="nobody"):
        keys.remove("nobody")
