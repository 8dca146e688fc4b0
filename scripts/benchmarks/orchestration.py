"""CPU a turn of our own code, with a model that answers at once; beside it, in the same run, a bare HTTP request."""

from __future__ import annotations

import argparse
import http.client
import http.server
import itertools
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from agentd.app import App, build
from agentd.config import init_home, load_settings
from agentd.tasks.journal import TaskJournal
from agentd.types import (
    Budget,
    Model,
    ModelProfile,
    ModelReply,
    ModelRequest,
    Score,
    TaskRequest,
    TaskState,
)

LIMIT = 3.0
"""Milliseconds of CPU a turn."""


class AtOnce:
    """Reads another file every turn, and answers after the last; notes the CPU time at which each turn begins."""

    name = "at-once"
    profile = ModelProfile()

    def __init__(self, turns: int) -> None:
        self.turns = turns
        self.begun: list[float] = []

    def chat(self, request: ModelRequest, on_delta: object = None, cancel: object = None) -> ModelReply:
        return ModelReply(text=self._reply(request), model=self.name, prompt_tokens=0, completion_tokens=0, seconds=0.0)

    def _reply(self, request: ModelRequest) -> str:
        if request.choices:
            self.begun.append(time.process_time())
            return "answer" if len(self.begun) > self.turns else "read_file"
        if request.schema is None:
            return "done"
        fields = request.schema.get("properties", {})
        if "steps" in fields:
            return json.dumps({"steps": [{"intent": "read files"}]})
        if "done" in fields:
            return json.dumps({"done": True})
        return json.dumps({"path": f"f{len(self.begun) % 50}.txt", "start": len(self.begun)})

    def score(self, pairs: Sequence[tuple[str, str]], **_: object) -> list[Score]:
        return [Score(logprob=0.0, tokens=1) for _ in pairs]

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        return [[0.0] for _ in texts]

    def count(self, text: str) -> int:
        return len(text) // 4

    def for_role(self, role: str) -> Model:
        return self


def run_task(app: App, model: AtOnce, workspace: Path) -> None:
    runner = replace(app.runner, models=model)
    budget = Budget(steps=model.turns + 5, tokens=10**9, seconds=3600)
    app.queue.submit(TaskRequest(goal="read the files", workspace=str(workspace), budget=budget))
    task = app.queue.claim("bench")
    assert task is not None
    report = runner.run(task, TaskJournal(app.db, task, app.clock), threading.Event())
    assert report.state is TaskState.CLAIMED, report


def around(begun: Sequence[float], turn: int, width: int = 10) -> float:
    """Median milliseconds of the turns around `turn`."""
    costs = [1000 * (b - a) for a, b in itertools.pairwise(begun)]
    middle = min(max(turn, width), len(costs) - width)
    return statistics.median(costs[middle - width : middle + width])


class Echo(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def bare_http(requests: int = 300) -> float:
    """Median milliseconds of CPU for a request and its answer, client and server in this process."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port)
    body = json.dumps({"messages": [{"role": "user", "content": "x" * 2000}]})
    return 1000 * statistics.median(_timed(lambda: _post(connection, body)) for _ in range(requests))


def _post(connection: http.client.HTTPConnection, body: str) -> None:
    connection.request("POST", "/", body)
    connection.getresponse().read()


def _timed(do: Callable[[], None]) -> float:
    before = time.process_time()
    do()
    return time.process_time() - before


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--turns", type=int, default=200)
    turns = parser.parse_args().turns
    with tempfile.TemporaryDirectory() as folder:
        home, workspace = Path(folder) / "home", Path(folder) / "work"
        init_home(home)
        workspace.mkdir()
        for number in range(50):
            (workspace / f"f{number}.txt").write_text("".join(f"line {n} of {number}\n" for n in range(turns + 60)))
        app = build(load_settings(home))
        model = AtOnce(turns)
        run_task(app, model, workspace)
        app.stop()
    early, late, bare = around(model.begun, 10), around(model.begun, turns), bare_http()
    print(f"turn 10: {early:.2f} ms CPU ({early / LIMIT:.2f} of the limit of {LIMIT:.0f} ms)")
    print(f"turn {turns}: {late:.2f} ms CPU ({late / LIMIT:.2f} of the limit, {late / early:.2f} of turn 10)")
    print(f"bare HTTP request: {bare:.2f} ms CPU; a turn costs {early / bare:.1f} of it")


if __name__ == "__main__":
    main()
