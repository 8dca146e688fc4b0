"""A server of models as others write them, in this process: well-behaved, or as bad as a test wants it."""

from __future__ import annotations

import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

Play = Callable[["Turn"], None]


@dataclass
class Request:
    """What came; `port` is the client's, which tells its connections apart."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    port: int


class Turn(BaseHTTPRequestHandler):
    """One request, and the ways to answer it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    request_seen: Request

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self._take("POST", body)

    def do_GET(self) -> None:
        self._take("GET", {})

    def _take(self, method: str, body: dict[str, Any]) -> None:
        request = Request(method, self.path, self.headers, body, self.client_address[1])
        self.request_seen = request
        owner = self.server.owner  # type: ignore[attr-defined]
        owner.requests.append(request)
        with suppress(OSError):  # whoever asked has gone
            owner.play(self)

    def log_message(self, format: str, *args: object) -> None:
        return

    def handle(self) -> None:
        owner = self.server.owner  # type: ignore[attr-defined]
        owner.connections.add(self.connection)
        with suppress(OSError):
            super().handle()
        owner.connections.discard(self.connection)

    @property
    def body(self) -> dict[str, Any]:
        return self.request_seen.body

    def head(self, status: int = 200, kind: str = "text/event-stream", **headers: str) -> None:
        """Of an answer that ends when the connection does, unless it says how long it is."""
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if "Content_Length" not in headers and "Transfer_Encoding" not in headers:
            self.close_connection = True

    def whole(self, text: str | bytes, status: int = 200, kind: str = "application/json", **headers: str) -> None:
        data = text.encode() if isinstance(text, str) else text
        self.head(status, kind, Content_Length=str(len(data)), **headers)
        self.wfile.write(data)

    def json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.whole(json.dumps(value), status, **headers)

    def events(self, events: Iterable[Any], *, done: bool = True) -> None:
        """Chunked, as servers do; a text is sent as it is."""
        self.head(Transfer_Encoding="chunked")
        for event in [*events, *(["[DONE]"] if done else [])]:
            self.event(event)
        self.wfile.write(b"0\r\n\r\n")

    def event(self, event: Any) -> None:
        text = event if isinstance(event, str) else json.dumps(event)
        data = f"data: {text}\n\n".encode()
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def cut(self) -> None:
        """Let go without a word."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(socket.SHUT_RDWR)


@dataclass
class OpenAiServer:
    """`play` answers every request; `with` starts and stops it."""

    play: Play
    tls: ssl.SSLContext | None = None
    requests: list[Request] = field(default_factory=list)
    connections: set[socket.socket] = field(default_factory=set)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Turn)
        self._server.daemon_threads = True
        self._server.owner = self  # type: ignore[attr-defined]
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._server.handle_error = lambda request, address: None  # type: ignore[method-assign]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                socket.socket.shutdown(connection, socket.SHUT_RDWR)

    @property
    def port(self) -> int:
        return int(self._server.server_port)

    @property
    def url(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://127.0.0.1:{self.port}/v1"

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """Of the requests that had one."""
        return [request.body for request in self.requests if request.method == "POST"]


def delta(text: str = "", finish: str | None = None, **more: Any) -> dict[str, Any]:
    """One event of a streamed chat."""
    part = ({"content": text} if text else {}) | more
    return {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": part, "finish_reason": finish}]}


def call_delta(index: int | None, name: str = "", arguments: str = "", id: str = "") -> dict[str, Any]:
    function = ({"name": name} if name else {}) | {"arguments": arguments}
    call = ({"id": id} if id else {}) | ({} if index is None else {"index": index})
    return delta(tool_calls=[call | {"type": "function", "function": function}])


def message(text: str | None, finish: str = "stop", **more: Any) -> dict[str, Any]:
    """A whole chat reply."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | more, "finish_reason": finish}
    return {"object": "chat.completion", "choices": [choice], "usage": {"prompt_tokens": 7, "completion_tokens": 3}}


def parameters(body: dict[str, Any]) -> set[str]:
    """What a server may not know; the type of its response_format among it."""
    return {*body, body.get("response_format", {}).get("type", "")}


@dataclass
class Good:
    """A server without a fault. `say` gives the text of a reply; `refuses` are parameters that it does not take."""

    say: Callable[[dict[str, Any]], str] = lambda body: "hello there"
    models: tuple[str, ...] = ("small", "large")
    owner: str = "llamacpp"
    refuses: tuple[str, ...] = ()
    key: str | None = None
    usage: bool = True

    def __call__(self, turn: Turn) -> None:
        if self.key is not None and turn.headers["Authorization"] != f"Bearer {self.key}":
            turn.json({"error": {"message": f"wrong key {turn.headers['Authorization']}", "code": 401}}, 401)
        elif turn.path == "/v1/models":
            turn.json({"object": "list", "data": [{"id": name, "owned_by": self.owner} for name in self.models]})
        elif wrong := [name for name in self.refuses if name in parameters(turn.body)]:
            turn.json({"error": {"message": f"{wrong[0]} is not supported", "type": "invalid_request_error"}}, 400)
        elif turn.path == "/v1/embeddings":
            rows = [{"index": n, "embedding": [float(len(t)), 1.0]} for n, t in enumerate(turn.body["input"])]
            turn.json({"data": list(reversed(rows))})
        elif turn.path == "/v1/completions":
            turn.json({"choices": [{"index": 0, "text": f"<{turn.body['prompt']}>", "finish_reason": "stop"}]})
        elif turn.path == "/v1/chat/completions":
            self.chat(turn)
        else:
            turn.json({"error": {"message": f"there is no {turn.path}"}}, 404)

    def chat(self, turn: Turn) -> None:
        body = turn.body
        if body["model"] not in self.models:
            turn.json({"error": {"message": f"model {body['model']!r} not found"}}, 404)
        elif "tools" in body and body["tool_choice"] != "auto":
            self.call(turn, body["tools"][0]["function"]["name"])
        elif body.get("stream"):
            words = self.say(body).split(" ")
            pieces = [word if n == 0 else f" {word}" for n, word in enumerate(words)]
            figures = {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(words)}}
            turn.events([*map(delta, pieces), delta(finish="stop"), *([figures] if self.usage else [])])
        else:
            turn.json(message(self.say(body)))

    def call(self, turn: Turn, name: str) -> None:
        arguments = self.say(turn.body) if name == "reply" else '{"city": "Paris"}'
        if turn.body.get("stream"):
            first, rest = arguments[:4], arguments[4:]
            begin = call_delta(0, name, first, id="call_1")
            turn.events([begin, call_delta(0, arguments=rest), delta(finish="tool_calls")])
        else:
            function = {"name": name, "arguments": arguments}
            turn.json(
                message(None, "tool_calls", tool_calls=[{"id": "call_1", "type": "function", "function": function}])
            )
