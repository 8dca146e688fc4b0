"""What is printed, and which exit code goes with it."""

from __future__ import annotations

import io
import json

import pytest

from agentd.cli import output
from agentd.errors import (
    AgentdError,
    AlreadyRunning,
    BadInput,
    BudgetExceeded,
    ConfigError,
    Conflict,
    Denied,
    NeedsApproval,
    NotFound,
    Unauthorised,
    Unreachable,
)
from agentd.types import TaskState

CODES = {
    "verified": 0,
    "claimed": 0,
    "failed": 3,
    "looped": 3,
    "impossible": 3,
    "rolled_back": 3,
    "denied": 5,
    "waiting": 6,
    "budget": 8,
    "cancelled": 130,
}


@pytest.mark.parametrize("state", [state for state in TaskState if state not in ("queued", "running")])
def test_every_state_has_its_exit_code(state: TaskState) -> None:
    assert output.exit_code_for(state) == CODES[state]


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (AgentdError, 1),
        (NotFound, 1),
        (ConfigError, 1),
        (BadInput, 2),
        (Unauthorised, 4),
        (Denied, 5),
        (NeedsApproval, 6),
        (Unreachable, 7),
        (BudgetExceeded, 8),
        (Conflict, 9),
        (AlreadyRunning, 9),
    ],
)
def test_every_error_has_its_exit_code(kind: type[AgentdError], code: int) -> None:
    assert output.exit_code_of(kind("x")) == code


def test_an_error_says_what_failed_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    assert output.fail(NotFound("there is no task 'x'", hint="list them"), as_json=False) == 1
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "error: there is no task 'x'\nhint: list them\n")


def test_an_error_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    output.fail(Denied("no", hint="ask"), as_json=True)
    said = capsys.readouterr()
    assert json.loads(said.err) == {"error": {"code": "policy.denied", "message": "no", "hint": "ask"}}
    assert said.out == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("stream", "environ", "shown"),
    [
        (Terminal(), {"TERM": "xterm"}, "\x1b[31mx\x1b[0m"),
        (Terminal(), {"NO_COLOR": ""}, "\x1b[31mx\x1b[0m"),
        (io.StringIO(), {"TERM": "xterm"}, "x"),
        (Terminal(), {"NO_COLOR": "1"}, "x"),
        (Terminal(), {"TERM": "dumb"}, "x"),
    ],
)
def test_colours_only_on_a_terminal_that_wants_them(stream: io.StringIO, environ: dict[str, str], shown: str) -> None:
    assert output.paint("x", "red", stream, environ) == shown


def test_text_from_elsewhere_cannot_steer_the_terminal() -> None:
    assert output.harmless("a\x1b[2Jb\r\x9bc\td\n") == "a�[2Jb��c\td\n"


def test_a_table_is_as_wide_as_its_cells() -> None:
    assert output.table([("a", 10), ("bcd", "two\nlines")], ("X", "Y")) == "X    Y\na    10\nbcd  two lines"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59, "59 s"), (200, "3 min 20 s"), (7500, "2 h 5 min")]
)
def test_durations(seconds: float, text: str) -> None:
    assert output.duration(seconds) == text


def test_a_terminal_gets_our_colours_and_nothing_else_that_steers_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stdout", stream)
    output.data("\x1b[31mred\x1b[0m \x1b[8mhidden \x1b]0;title\x07 \x9b2J user\u202etxt.exe")
    assert stream.getvalue() == "\x1b[31mred\x1b[0m �[8mhidden �]0;title� �2J user�txt.exe\n"


def test_json_says_the_same_and_steers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr("sys.stdout", stream)
    value = {"a": "\x1b[2J \x9b \x7f \u202e \r é"}
    output.data_json(value)
    assert json.loads(stream.getvalue()) == value
    assert set(stream.getvalue()) & set("\x1b\x9b\x7f\u202e\r") == set()


def test_an_error_may_quote_a_stranger(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    output.fail(AgentdError("no file \x1b[2Jx", hint="\x1b]0;x\x07"), as_json=False)
    assert "\x1b[2J" not in stream.getvalue()
    assert "\x1b]" not in stream.getvalue()
