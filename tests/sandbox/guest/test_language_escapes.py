"""The language alone, without the gate and without the operating system, lets nobody out."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from agentd.sandbox.guest.session import Session
from tests.plugins.corpus.language_escapes import ESCAPES, MARK

LEAKS = (MARK, "canary", "<module", "'__builtins__'", "<frame", "<code", "<class 'type'>", "agentd", "site-packages")


@pytest.fixture
def host_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AGENTD_TEST_CANARY", MARK)
    path = tmp_path / "secret.ini"
    path.write_text(f"[{MARK}]\n")
    return path


def refusing(name: str, parameters: dict[str, object]) -> object:
    raise PermissionError(name)


@pytest.mark.parametrize("name", ESCAPES)
def test_no_way_leads_out(name: str, host_file: Path) -> None:
    before = host_file.read_bytes()
    session = Session(f"PATH = {str(host_file)!r}\n{ESCAPES[name]}", ["files"], refusing)
    answer = session.call("run", {})
    assert not (answer["ok"] and any(leak in str(answer["result"]) for leak in LEAKS)), answer
    assert host_file.read_bytes() == before


def test_an_escape_is_told_from_a_failure_by_what_it_gives() -> None:
    """With the guard off, the same source does get out: the corpus asks for what there is."""
    names: dict[str, object] = {}
    exec(ESCAPES["format_globals"], names)
    run = names["run"]
    assert isinstance(run, types.FunctionType)
    assert "'__builtins__'" in run()
