"""The daemon as a process: one per home, private, on its socket and its port, gone when it is told to go."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import stat
import subprocess

import psutil
import pytest

from agentd.store.lock import DaemonLock
from tests.e2e.harness import Agentd, alive, wait_for

pytestmark = pytest.mark.e2e


def test_it_starts_answers_and_goes(fresh: Agentd) -> None:
    assert fresh.error("status", code=7)["code"] == "daemon.unreachable"
    fresh.ok("up")
    status = fresh.json("status")
    assert (status["home"], status["socket"]) == (str(fresh.home.home), str(fresh.home.socket_path))
    assert status["queue"]["running"] == 0
    assert status["models"] == []
    fresh.ok("up")
    assert fresh.pid == status["pid"]
    assert fresh.json("down") == {"stopped": True, "pid": status["pid"]}
    assert not alive(status["pid"])
    assert not fresh.home.socket_path.exists()
    assert fresh.json("down") == {"stopped": False, "pid": None}


def test_it_is_private_and_outlives_its_terminal(daemon: Agentd) -> None:
    modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (daemon.home.socket_path, daemon.home.state_dir)}
    assert list(modes.values()) == [0o600, 0o700]
    assert os.getsid(daemon.pid) == daemon.pid
    assert psutil.Process(daemon.pid).terminal() is None


def test_a_second_one_is_refused_by_the_pid_of_the_first(daemon: Agentd) -> None:
    before = sorted((path.name, path.stat().st_mtime_ns) for path in daemon.home.state_dir.iterdir())
    error = daemon.error("serve", code=9)
    assert error["code"] == "daemon.already_running"
    assert f"pid {daemon.pid}" in error["message"]
    after = sorted((path.name, path.stat().st_mtime_ns) for path in daemon.home.state_dir.iterdir())
    assert [each for each in after if each[0] != "agentd.db-shm"] == [
        each for each in before if each[0] != "agentd.db-shm"
    ]


def test_many_starts_at_once_give_one_daemon(fresh: Agentd) -> None:
    starts = [fresh.start("up") for _ in range(3)]
    assert [start.communicate() and start.returncode for start in starts] == [0, 0, 0]
    winner = fresh.pid
    wait_for(lambda: _daemons(fresh) == [winner])  # the others go once they have found the lock taken


def _daemons(of: Agentd) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = process.info["cmdline"] or []
        if "agentd.daemon" in words and str(of.home.home) in words:
            found.append(process.pid)
    return found


def test_after_a_kill_the_stale_socket_is_replaced(fresh: Agentd) -> None:
    fresh.ok("up")
    first = fresh.kill()
    assert fresh.home.socket_path.exists()
    assert fresh.error("ps", code=7)["code"] == "daemon.unreachable"
    fresh.ok("up")
    assert fresh.pid != first


def test_something_else_in_the_place_of_the_socket_is_left_alone(fresh: Agentd) -> None:
    fresh.home.socket_path.write_text("mine")
    error = fresh.error("up", code=1)
    assert "it is no socket" in error["message"]
    assert fresh.home.socket_path.read_text() == "mine"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_in_order(fresh: Agentd, number: signal.Signals) -> None:
    fresh.ok("up")
    pid = fresh.pid
    os.kill(pid, number)
    wait_for(lambda: not alive(pid))
    assert not fresh.home.socket_path.exists()
    assert DaemonLock.holder(fresh.home.state_dir) is None
    log = (fresh.home.log_dir / "agentd.log").read_text()
    assert "the daemon stops" in log
    assert "Traceback" not in log
    assert (fresh.home.log_dir / "daemon.err").read_text() == ""


def test_down_ends_one_that_does_not_answer(fresh: Agentd) -> None:
    """Something holds the lock of the home and listens nowhere."""
    code = (
        "import sys, time; from pathlib import Path; from agentd.store.lock import DaemonLock;"
        "lock = DaemonLock.acquire(Path(sys.argv[1])); print('held', flush=True); time.sleep(60)"
    )
    command = [str(psutil.Process().exe()), "-c", code, str(fresh.home.state_dir)]
    with subprocess.Popen(command, env=fresh.env, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert fresh.json("down") == {"stopped": True, "pid": holder.pid}


def test_a_wrong_setting_is_named_with_its_line(fresh: Agentd) -> None:
    fresh.home.config_path.write_text("[agent]\nstepps = 5\n")
    for command in ("up", "serve"):
        error = fresh.error(command, code=1)
        assert error["code"] == "config.invalid"
        assert f"{fresh.home.config_path}:2: unknown setting 'stepps'" in error["message"]
        assert "did you mean 'steps'" in error["hint"]
    done = fresh.run("config", "validate")
    assert done.returncode == 1
    assert "agentd.toml:2" in done.stderr


def test_a_policy_that_contradicts_itself_is_named_with_its_line(fresh: Agentd) -> None:
    rules = fresh.home.policies_dir / "default.yaml"
    rules.write_text(rules.read_text().replace("git push origin main", "git status", 1))
    error = fresh.error("up", code=1)
    assert error["code"] == "policy.invalid"
    assert "default.yaml:" in error["message"]


def test_a_file_that_is_no_database_is_left_as_it_is(fresh: Agentd) -> None:
    fresh.home.db_path.write_bytes(b"precious " * 1000)
    error = fresh.error("up", code=1)
    assert error["code"] == "store.unusable"
    assert str(fresh.home.db_path) in error["message"]
    assert fresh.home.db_path.read_bytes() == b"precious " * 1000


def test_a_reader_that_goes_away_is_no_error(daemon: Agentd) -> None:
    command = daemon.start("tool", "ls", "--json")
    assert command.stdout is not None
    command.stdout.close()
    assert command.stderr is not None
    assert "Traceback" not in command.stderr.read()
    assert command.wait(20) in (0, 1)
    command.stderr.close()


def test_serve_logs_to_stderr_and_stops_with_its_terminal(fresh: Agentd) -> None:
    with fresh.start("serve") as served:
        wait_for(lambda: fresh.run("status").returncode == 0)
        assert fresh.pid == served.pid
        served.send_signal(signal.SIGHUP)
        _, err = served.communicate(timeout=20)
    assert served.returncode == 0
    assert "the daemon has started" in err


# TCP ------------------------------------------------------------------------------------------------------------------

TCP = {"AGENTD_API__TCP": "true", "AGENTD_API__PORT": "0"}


def test_on_a_port_with_a_token(fresh: Agentd) -> None:
    fresh.ok("up", env=TCP)
    url, token = fresh.ok("url"), fresh.ok("token")
    assert url.startswith("http://127.0.0.1:")
    assert fresh.ok("token", "--url") == f"{url}/#token={token}"
    assert stat.S_IMODE(fresh.home.token_path.stat().st_mode) == 0o600
    assert fresh.json("--host", url, "status")["url"] == url
    assert fresh.error("--host", url, "status", code=4, env={"AGENTD_TOKEN": "wrong"})["code"] == "auth.required"
    host = url.removeprefix("http://")
    assert _status(host, {"Authorization": f"Bearer {token}"}) == 200
    assert _status(host, {}) == 401
    assert _status(host, {"Authorization": f"Bearer {token}", "Host": "evil.example"}) == 403
    assert _status(host, {"Authorization": f"Bearer {token}", "Origin": "http://evil.example"}) == 403
    fresh.ok("down")
    assert not fresh.home.url_path.exists()


def _status(host: str, headers: dict[str, str]) -> int:
    connection = http.client.HTTPConnection(host, timeout=10)
    try:
        connection.request("GET", "/api/status", headers=headers)
        reply = connection.getresponse()
        reply.read()
        return reply.status
    finally:
        connection.close()


def test_a_port_in_use_is_an_error_that_leaves_nothing_behind(fresh: Agentd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        error = fresh.error("up", code=1, env=TCP | {"AGENTD_API__PORT": port})
    assert f"port {port} of 127.0.0.1 is in use" in error["message"]
    assert "api.port" in error["hint"]
    assert not fresh.home.socket_path.exists()
    assert DaemonLock.holder(fresh.home.state_dir) is None


def test_it_listens_on_this_machine_alone(fresh: Agentd) -> None:
    error = fresh.error("up", code=1, env=TCP | {"AGENTD_API__HOST": "0.0.0.0"})
    assert "0.0.0.0" in error["message"]


def test_without_tcp_there_is_a_socket_and_no_port(daemon: Agentd) -> None:
    assert daemon.ok("url") == f"unix://{daemon.home.socket_path}"
    assert daemon.error("token", "--url", code=1)["hint"].startswith("set `tcp = true`")
    listening = [each for each in psutil.Process(daemon.pid).net_connections("inet") if each.status == "LISTEN"]
    assert listening == []
    assert daemon.json("--host", f"unix://{daemon.home.socket_path}", "status")["pid"] == daemon.pid


# commands that need no model ------------------------------------------------------------------------------------------


def test_a_tool_is_called_by_hand(daemon: Agentd) -> None:
    daemon.files({"notes.txt": "milk\nbread\n"})
    assert "milk" in daemon.ok("tool", "call", "read_file", "path=notes.txt")
    assert daemon.json("tool", "call", "write_file", '{"path": "a.txt", "content": "x"}')["changed"] == ["a.txt"]
    assert daemon.run("tool", "call", "read_file", "path=none.txt").returncode == 1
    assert daemon.error("tool", "call", "read_file", "path=../x", code=5)["code"] == "policy.denied"
    assert daemon.error("tool", "call", "read_file", "pth=x", code=1)["code"] == "tool.misused"
    assert daemon.error("tool", "show", "frob", code=1)["code"] == "input.not_found"
    assert "read_file(path" in daemon.ok("tool", "ls")
    assert "path" in daemon.json("tool", "show", "read_file")["schema"]["properties"]


def test_the_audit_log_is_read_and_verified(daemon: Agentd) -> None:
    daemon.ok("tool", "call", "list_dir")
    records = daemon.json("audit", "tail", "-n", "2")
    assert [record["kind"] for record in records] == ["tool.decided", "tool.finished"]
    assert daemon.json("audit", "verify")["ok"]
    assert daemon.ok("audit", "verify").startswith("ok: ")


def test_a_backup_is_a_database_that_opens(daemon: Agentd) -> None:
    target = daemon.workspace / "copy.db"
    target.unlink(missing_ok=True)
    assert daemon.json("backup", "copy.db")["path"] == str(target)
    assert target.read_bytes()[:15] == b"SQLite format 3"
    assert daemon.error("backup", "copy.db", code=9)["code"] == "conflict"


@pytest.mark.parametrize(
    ("command", "level", "code", "decision"),
    [
        ("git push --force", "4", 5, "deny"),
        ("git status", "2", 0, "allow"),
        ("fs.write src/a.py", "0", 5, "deny"),
        ("fs.write src/a.py", "1", 0, "allow"),
        ("curl http://example.org", "4", 5, "deny"),
    ],
)
def test_policy_is_asked_without_a_daemon(fresh: Agentd, command: str, level: str, code: int, decision: str) -> None:
    done = fresh.run("policy", "check", command, "--level", level, "--json")
    assert (done.returncode, json.loads(done.stdout)["decision"]) == (code, decision)


def test_policy_judges_line_by_line(fresh: Agentd) -> None:
    lines = fresh.ok("policy", "check", "-", "--level", "3", stdin='git push\n\ngit.commit\n"open\n').splitlines()
    judged = [json.loads(line) for line in lines]
    assert [(each["input"], each["decision"]) for each in judged] == [
        ("git push", "deny"),
        ("", "deny"),
        ("git.commit", "allow"),
        ('"open', "deny"),
    ]


def test_doctor_names_what_is_wrong(fresh: Agentd) -> None:
    findings = {finding["name"]: finding for finding in json.loads(fresh.run("doctor", "--json").stdout)}
    assert findings["python"]["state"] == findings["packages"]["state"] == findings["policies"]["state"] == "ok"
    assert "not running" in findings["daemon"]["text"]
    fresh.home.config_path.write_text("[agent]\nstepps = 5\n")
    done = fresh.run("doctor")
    assert done.returncode == 1
    assert "stepps" in done.stdout


def test_init_makes_a_home_and_keeps_what_is_there(fresh: Agentd) -> None:
    folder = fresh.workspace / "new"
    assert str(folder / "agentd.toml") in fresh.json("init", str(folder))["made"]
    (folder / "agentd.toml").write_text("# mine\n")
    assert fresh.json("init", str(folder))["made"] == []
    assert (folder / "agentd.toml").read_text() == "# mine\n"


def test_settings_are_read(fresh: Agentd) -> None:
    fresh.home.config_path.write_text("[agent]\nsteps = 7\n")
    assert fresh.ok("config", "path") == str(fresh.home.config_path)
    assert fresh.ok("config", "get", "agent.steps") == "7"
    assert fresh.json("config", "get", "agent")["steps"] == 7
    assert fresh.json("config", "get", env={"AGENTD_AGENT__STEPS": "9"})["agent.steps"]["value"] == 9
    assert "did you mean 'agent.steps'" in fresh.error("config", "get", "agent.stepps", code=1)["hint"]


def test_a_home_with_a_long_path_still_has_a_socket(fresh: Agentd, tmp_path_factory: pytest.TempPathFactory) -> None:
    long = tmp_path_factory.mktemp("x" * 100) / "home"
    fresh.ok("init", str(long))
    env = {"AGENTD_HOME": str(long)}
    fresh.ok("up", env=env)
    try:
        assert len(fresh.json("status", env=env)["socket"]) < 100
    finally:
        fresh.ok("down", env=env)
