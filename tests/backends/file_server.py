"""A web server on loopback that misbehaves as it is told: a hub of models, and the host that its files lie on."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class FileServer:
    """Serves `files` by path. Each request takes the first entry of `breaks` (bytes after which the connection ends)
    and of `answers` (a status with headers instead of the file)."""

    files: dict[str, bytes] = field(default_factory=dict)
    breaks: list[int] = field(default_factory=list)
    answers: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    etag: str | None = '"one"'
    ranges: bool = True
    obeys_if_range: bool = True
    tells_length: int | None = 0
    """Added to the true Content-Length; None sends none, so that the end of the connection is the end of the file."""
    headers: dict[str, str] = field(default_factory=dict)
    seen: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """Path and headers of each request."""
    pause: threading.Event | None = None
    """When set to an event, the second half of each file waits for it."""
    url: str = ""

    def add_repository(self, name: str, files: dict[str, bytes], *, checksums: bool = True) -> None:
        """A repository of the hub at this server."""
        told = []
        for path, content in files.items():
            entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            if checksums:
                entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
            told.append(entry)
            self.files[f"/{name}/resolve/main/{path}"] = content
        told.append({"type": "directory", "path": "more", "size": 0})
        self.files[f"/api/models/{name}/tree/main?recursive=true"] = json.dumps(told).encode()

    @property
    def ranges_asked(self) -> list[str | None]:
        return [headers.get("range") for _, headers in self.seen]


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            server.seen.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.close_connection = True
            if server.answers:
                status, headers = server.answers.pop(0)
                self._head(status, {"Content-Length": "0"} | headers)
            elif self.path in server.files:
                self._file(server.files[self.path])
            else:
                self._head(404, {"Content-Length": "0"})

        def _file(self, content: bytes) -> None:
            start, status = 0, 200
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            same = self.headers.get("If-Range") in (None, server.etag) or not server.obeys_if_range
            if asked and server.ranges and same:
                start, status = int(asked[1]), 206
            headers = dict(server.headers)
            if status == 206:
                headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
                if start >= len(content):
                    self._head(416, {"Content-Range": f"bytes */{len(content)}", "Content-Length": "0"})
                    return
            if server.etag is not None:
                headers["ETag"] = server.etag
            if server.tells_length is not None:
                headers["Content-Length"] = str(len(content) - start + server.tells_length)
            self._head(status, headers)
            self._body(content[start:])

        def _body(self, content: bytes) -> None:
            end = server.breaks.pop(0) if server.breaks else len(content)
            half = len(content) // 2 if server.pause is not None else len(content)
            try:
                self.wfile.write(content[: min(half, end)])
                self.wfile.flush()
                if server.pause is not None:
                    server.pause.wait(30)
                    self.wfile.write(content[half:end])
                if end < len(content):
                    self.connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # the client has gone, as some tests want it

        def _head(self, status: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            return None

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            listening.shutdown()
            thread.join()
