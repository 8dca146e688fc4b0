"""Serving, beside llama-cpp-python's own server on the same GGUF in the same run; ratios against the limits we hold.

Both servers are asked over HTTP for raw completions at temperature 0, with texts that neither has seen before.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from agentd.backends.catalog import ROLES, Catalog
from agentd.config import init_home
from agentd.home import Home, defaults_dir

CLIENTS = 8
CONTEXT = 2048
"""Tokens of one conversation."""
PATIENCE = 600.0
VOCABULARY = """
time year people way day thing woman life child world school family student group country problem hand part place week
company program question work number night point home water room mother area money story fact month right book eye job
business issue side house service friend father power hour game line end law car city name president team minute idea
body face level office door health art war history party result change morning reason moment air teacher garden river
mountain window table paper letter market street bridge castle engine signal harbor forest desert island village kitchen
library museum station theatre factory airport hospital blue green yellow silver golden quiet sudden narrow gentle
"""
LIST = {"type": "array", "items": {"type": "string", "maxLength": 12}, "minItems": 60, "maxItems": 60}


class Heard(NamedTuple):
    """One streamed reply: seconds to the first token and to the last, tokens, and the text."""

    first: float
    whole: float
    tokens: int
    text: str


@dataclass(frozen=True)
class Server:
    """One that speaks OpenAI's protocol. `seed` keeps its texts apart from those of other scenarios."""

    name: str
    url: str
    model: str
    headers: dict[str, str] = field(default_factory=dict)

    def complete(self, prompt: str, tokens: int, **more: Any) -> Heard:
        body = {"prompt": prompt, "max_tokens": tokens} | more
        return self._stream("/v1/completions", body, lambda choice: choice["text"])

    def chat(self, prompt: str, tokens: int, **more: Any) -> Heard:
        body = {"messages": [{"role": "user", "content": prompt}], "max_tokens": tokens} | more
        return self._stream("/v1/chat/completions", body, lambda choice: choice["delta"].get("content") or "")

    def _stream(self, path: str, body: dict[str, Any], text_of: Callable[[dict[str, Any]], str]) -> Heard:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=PATIENCE)
        started = time.perf_counter()
        asked = {
            "model": self.model,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
        } | body
        headers = {"Content-Type": "application/json", "Cache-Control": "no-cache"} | self.headers
        connection.request("POST", path, json.dumps(asked), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise ConnectionError(f"{self.name} answered {answer.status}: {answer.read()[:500].decode()}")
        first, parts, counted = 0.0, [], 0
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            piece = json.loads(line[6:])
            counted = (piece.get("usage") or {}).get("completion_tokens", counted)
            text = text_of(piece["choices"][0]) if piece.get("choices") else ""
            if text:
                first = first or time.perf_counter() - started
                parts.append(text)
        connection.close()
        # A server that does not count sends a piece for each token.
        return Heard(first, time.perf_counter() - started, counted or len(parts), "".join(parts))


def text(tokens: int, seed: object) -> str:
    """About so many tokens of a text that nobody has seen."""
    chance = random.Random(str(seed))
    words = VOCABULARY.split()
    return " ".join(chance.choice(words) for _ in range(tokens))  # each of these words is one token


def at_once(jobs: Sequence[Callable[[], Heard]]) -> tuple[list[Heard], float]:
    """The replies, and the seconds that all together took."""
    found: dict[int, Heard] = {}

    def work(number: int) -> None:
        found[number] = jobs[number]()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(jobs))]
    started = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if len(found) < len(jobs):
        sys.exit("a request failed")
    return [found[number] for number in range(len(jobs))], time.perf_counter() - started


# scenarios ------------------------------------------------------------------------------------------------------------


def one_client(server: Server, run: object) -> float:
    """Tokens a second of one reply after a short prompt."""
    heard = server.complete(text(60, f"one {run}"), 128)
    return heard.tokens / heard.whole


def conversations(server: Server, run: object, turns: int) -> float:
    """Tokens a second of eight conversations together: 1,000 tokens at first, and 100 more every turn."""

    def talk(number: int) -> Heard:
        said, tokens = text(1000, f"conversation {run} {number}"), 0
        for turn in range(turns):
            heard = server.complete(said, 40)
            tokens += heard.tokens
            said += heard.text + "\n" + text(60, f"turn {run} {number} {turn}")
        return Heard(0.0, 0.0, tokens, said)

    heard, seconds = at_once([lambda number=number: talk(number) for number in range(CLIENTS)])
    return sum(each.tokens for each in heard) / seconds


def strangers(server: Server, run: object) -> tuple[float, float]:
    """Eight prompts of 500 tokens that have nothing in common: mean seconds to the first token; tokens a second."""
    jobs = [
        lambda number=number: server.complete(text(500, f"stranger {run} {number}"), 48) for number in range(CLIENTS)
    ]
    heard, seconds = at_once(jobs)
    return statistics.mean(each.first for each in heard), sum(each.tokens for each in heard) / seconds


def council(server: Server, run: object) -> float:
    """How often the time of one opinion of 60 tokens six of them take, on one prefix of 1,500 tokens each time."""
    prefixes = [text(1500, f"council {run} {size}") for size in (1, 6)]
    _, one = at_once([lambda: server.complete(prefixes[0] + "\nThe critic says:", 60)])
    roles = ("architect", "security", "tester", "critic", "user", "owner")
    _, six = at_once([lambda role=role: server.complete(f"{prefixes[1]}\nThe {role} says:", 60) for role in roles])
    return six / one


def grammar(server: Server, run: object) -> float:
    """How often the time a token of a free reply one takes that is held to a JSON schema."""
    prompt = f"Write a JSON list of sixty short words about {text(3, f'grammar {run}')}."
    form = {"type": "json_schema", "json_schema": {"name": "list", "schema": LIST}}
    free = server.chat(prompt, 160, ignore_eos=True)
    held = server.chat(prompt, 160, response_format=form)
    return _each(held) / _each(free)


def _each(heard: Heard) -> float:
    return (heard.whole - heard.first) / max(1, heard.tokens - 1)


def growing(server: Server, run: object) -> float:
    """First token of step 10 over that of step 2 of a task whose prompt only grows."""
    said, first = text(600, f"task {run}"), []
    for step in range(10):
        heard = server.complete(said, 30)
        first.append(heard.first)
        said += heard.text + "\n" + text(80, f"step {run} {step}")
    return first[9] / first[1]


# servers --------------------------------------------------------------------------------------------------------------


@contextmanager
def ours(gguf: Path, requantise: str = "") -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        init_home(home.home)
        home.config_path.write_text("[api]\ntcp = true\nport = 0\n", encoding="utf-8")
        roles = "\n".join(f'{role} = ["bench"]' for role in ROLES)
        entry = f"[models.bench]\nfile = {json.dumps(str(gguf))}\ncontext = {CONTEXT}\n"
        entry += f'requantise = "{requantise}"\n' if requantise else ""
        (home.models_dir / "catalog.toml").write_text(f"[roles]\n{roles}\n{entry}", encoding="utf-8")
        with _running([sys.executable, "-m", "agentd.daemon", "--home", str(home.home)], Path(folder) / "log"):
            url = _wait_for(lambda: home.url_path.read_text(encoding="utf-8").strip())
            token = home.token_path.read_text(encoding="utf-8").strip()
            server = Server("agentd", url, "bench", {"Authorization": f"Bearer {token}"})
            _wait_for(lambda: server.complete("Hello", 2))
            yield server


@contextmanager
def peer(gguf: Path) -> Iterator[Server]:
    """llama-cpp-python's server."""
    port = _free_port()
    argv = [sys.executable, "-m", "llama_cpp.server", "--model", str(gguf), "--n_ctx", str(CONTEXT)]
    # As it comes, a new request breaks off the one that is being answered, and says nothing of it.
    argv += ["--port", str(port), "--host", "127.0.0.1", "--interrupt_requests", "false"]
    yield from _with_log(argv, Server("llama_cpp.server", f"http://127.0.0.1:{port}", "bench"))


@contextmanager
def llama_server(gguf: Path, program: str) -> Iterator[Server]:
    """llama.cpp's own server, with as many places as there are clients."""
    port = _free_port()
    argv = [program, "-m", str(gguf), "-c", str(CONTEXT * CLIENTS), "-np", str(CLIENTS)]
    argv += ["--host", "127.0.0.1", "--port", str(port)]
    yield from _with_log(argv, Server("llama-server", f"http://127.0.0.1:{port}", "bench"))


def _with_log(argv: list[str], server: Server) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder, _running(argv, Path(folder) / "log"):
        _wait_for(lambda: server.complete("Hello", 2))
        yield server


@contextmanager
def _running(argv: list[str], log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        child = subprocess.Popen(argv, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        yield
    finally:
        child.terminate()
        try:
            child.wait(15)
        except subprocess.TimeoutExpired:
            child.kill()


def _wait_for(get: Callable[[], Any]) -> Any:
    until = time.monotonic() + 120
    while True:
        try:
            return get()
        except (OSError, http.client.HTTPException):
            if time.monotonic() > until:
                sys.exit("a server did not start")
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


# the page -------------------------------------------------------------------------------------------------------------


def show(what: str, value: float, limit: str, good: bool, detail: str = "") -> bool:
    print(f"{'ok ' if good else 'BAD'} {what:<58} {value:6.2f}  ({limit}){'  ' + detail if detail else ''}", flush=True)
    return good


def measure(us: Server, them: Server, other: Server | None, *, runs: int, turns: int) -> bool:
    good = []
    pairs = [(one_client(us, run), one_client(them, run)) for run in range(runs)]
    mine, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    detail = f"{mine:.0f} and {theirs:.0f} tokens/s"
    good.append(show(f"one client, over {them.name}", mine / theirs, "at least 0.95", mine / theirs >= 0.95, detail))
    mine, theirs = conversations(us, "c", turns), conversations(them, "c", turns)
    detail = f"{mine:.1f} and {theirs:.1f} tokens/s"
    good.append(show("8 growing conversations, throughput", mine / theirs, "at least 3", mine / theirs >= 3, detail))
    for rival in filter(None, (them, other)):
        (first, speed), (their_first, their_speed) = strangers(us, rival.name), strangers(rival, rival.name)
        detail = f"{first:.1f} and {their_first:.1f} s"
        ratio = first / their_first
        good.append(show(f"8 strangers, first token, over {rival.name}", ratio, "at most 1.05", ratio <= 1.05, detail))
        detail = f"{speed:.1f} and {their_speed:.1f} tokens/s"
        ratio = speed / their_speed
        good.append(show(f"8 strangers, throughput, over {rival.name}", ratio, "at least 0.95", ratio >= 0.95, detail))
    for name, scenario, limit in (
        ("6 opinions on one prefix of 1,500 tokens, over one", council, 2.5),
        ("a token under a JSON schema, over a free one", grammar, 1.15),
        ("first token of step 10, over step 2", growing, 1.5),
    ):
        value = statistics.median(scenario(us, run) for run in range(runs))
        good.append(show(name, value, f"under {limit}", value < limit))
    return all(good)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench serving")
    parser.add_argument("--model", type=Path, help="a GGUF file; the one that comes with agentd when left out")
    found = shutil.which("llama-server")
    parser.add_argument(
        "--llama-server", metavar="PROGRAM", default=found, help="measure llama.cpp's own server as well"
    )
    parser.add_argument("--as-is", action="store_true", help="agentd reads the file as it came, too")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of the short scenarios")
    parser.add_argument("--turns", type=int, default=3, help="of each conversation")
    given = parser.parse_args()
    folder = defaults_dir() / "models"
    entry = Catalog.load(folder, folder).entry("smollm2-135m")
    gguf = given.model or entry.available
    if gguf is None:
        sys.exit("there is no model\nhint: scripts/setup dev, or --model FILE")
    made = "" if given.as_is or given.model else entry.requantise or ""
    how = f"; agentd makes {made} of it, as its catalog says" if made else ""
    print(f"{gguf.name}, {os.cpu_count()} cores{how}", flush=True)
    with ExitStack() as stack:
        us, them = stack.enter_context(ours(gguf, made)), stack.enter_context(peer(gguf))
        other = stack.enter_context(llama_server(gguf, given.llama_server)) if given.llama_server else None
        return 0 if measure(us, them, other, runs=given.runs, turns=given.turns) else 1


if __name__ == "__main__":
    sys.exit(main())
