"""The log: who it is about, who may read it, and what never stands in it."""

from __future__ import annotations

import json
import logging
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentd import telemetry
from agentd.config import load_settings
from agentd.security.scan import Redactor


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Callable[..., list[dict[str, Any]]]]:
    """Log with the given level, then read what was written."""

    def read(level: str, write: Callable[[Any], None]) -> list[dict[str, Any]]:
        telemetry.configure(load_settings(tmp_path, {"AGENTD_LOG__LEVEL": level}))
        write(telemetry.get_logger("agentd.test"))
        text = (tmp_path / "state" / "logs" / "agentd.log").read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines()]

    yield read
    telemetry.close()


def test_lines_carry_the_task(lines: Callable[..., list[dict[str, Any]]]) -> None:
    def write(log: Any) -> None:
        with telemetry.task_context("t-1"):
            log.info("step done", step=2)
        log.info("outside")

    inside, outside = lines("info", write)
    assert (inside["task"], inside["event"], inside["step"]) == ("t-1", "step done", 2)
    assert "task" not in outside


def test_texts_of_files_stay_out(lines: Callable[..., list[dict[str, Any]]]) -> None:
    def write(log: Any) -> None:
        log.info("read", content="secret words", note="x" * 5000, path="a.txt")

    (record,) = lines("info", write)
    assert record["content"] == "<12 characters>"
    assert record["note"] == "<5000 characters>"
    assert record["path"] == "a.txt"
    assert lines("debug", write)[-1]["content"] == "secret words"


def test_less_important_messages_are_left_out(lines: Callable[..., list[dict[str, Any]]]) -> None:
    def write(log: Any) -> None:
        log.info("small")
        log.warning("big")
        logging.getLogger("somebody.else").warning("also %s", "big")

    assert [record["event"] for record in lines("warning", write)] == ["big", "also big"]


def test_errors_bring_their_traceback(lines: Callable[..., list[dict[str, Any]]]) -> None:
    def write(log: Any) -> None:
        try:
            raise ValueError("odd")
        except ValueError:
            log.exception("failed")

    assert "ValueError: odd" in lines("info", write)[0]["exception"]


@pytest.mark.skipif(os.name != "posix", reason="modes of POSIX")
def test_only_the_owner_can_read_it(tmp_path: Path, lines: Callable[..., list[dict[str, Any]]]) -> None:
    lines("info", lambda log: log.info("x"))
    logs = tmp_path / "state" / "logs"
    assert [stat.S_IMODE(path.stat().st_mode) for path in (logs, logs / "agentd.log")] == [0o700, 0o600]


def test_a_second_configure_takes_the_place_of_the_first(lines: Callable[..., list[dict[str, Any]]]) -> None:
    lines("info", lambda log: log.info("one"))
    assert len(lines("info", lambda log: log.info("two"))) == 2


@pytest.mark.parametrize("format", ["json", "text"])
def test_what_strangers_wrote_steers_no_terminal(tmp_path: Path, format: str) -> None:
    settings = load_settings(tmp_path, {"AGENTD_LOG__FORMAT": format})
    telemetry.configure(settings)
    telemetry.get_logger("agentd.test").info("a\x1b[2Jb", name="x\x9b\u202e\nagentd forged")
    telemetry.close()
    written = (settings.log_dir / "agentd.log").read_text(encoding="utf-8")
    assert set(written) & set("\x1b\x9b\u202e") == set()
    assert len(written.splitlines()) == 1


# secrets -------------------------------------------------------------------------------------------------------------

KEY = "ghp_" + "aB3dE5fG7h" * 3 + "Zx9Kq2"


@pytest.mark.parametrize("level", ["info", "debug"])
@pytest.mark.parametrize("secret", ["open sesame", KEY])
def test_no_line_holds_a_secret_whoever_writes_it(tmp_path: Path, level: str, secret: str) -> None:
    settings = load_settings(tmp_path, {"AGENTD_LOG__LEVEL": level})
    telemetry.configure(settings, clean=Redactor(lambda: ["open sesame"]).clean)
    log = telemetry.get_logger("agentd.test")
    log.warning(f"began {secret}", url=f"x {secret}", tried={"header": [secret]}, path=Path(secret), **{secret: 1})
    logging.getLogger("agentd.other").warning("foreign %s", secret)
    try:
        raise ValueError(secret)
    except ValueError as error:
        log.exception("failed", why=error)
        logging.getLogger("other").exception("failed too")
    telemetry.close()
    written = (settings.log_dir / "agentd.log").read_text(encoding="utf-8")
    assert secret not in written
    assert len(written.splitlines()) == 4
    assert written.count("[left out: ") == 9


def test_a_line_that_cannot_be_written_is_not_told_either(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def broken(value: object) -> object:
        raise RuntimeError("no")

    telemetry.configure(load_settings(tmp_path, {}), clean=broken)
    telemetry.get_logger("agentd.test").warning("open sesame")
    telemetry.close()
    assert capsys.readouterr().err == "a line of the log of agentd.test could not be written: RuntimeError('no')\n"
