"""Answers what a plugin asks for: only what its manifest declares, then what policy allows, then for real."""

from __future__ import annotations

import base64
import binascii
import json
import stat
import threading
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any, Literal, Protocol, TypeAlias

from agentd.errors import Denied, NeedsApproval, ToolFailed
from agentd.plugins.fetch import fetch, server_of
from agentd.plugins.spec import Permissions
from agentd.policy.commands import fold
from agentd.policy.hosts import host_pattern, host_port
from agentd.policy.patterns import PatternError, path_pattern
from agentd.policy.sending import connecting_rule
from agentd.sandbox.job import RequestRefused
from agentd.tools.tool import ToolContext
from agentd.types import Action, JsonObject

MAX_ANSWER = 990_000
"""Characters of an answer as JSON; a frame has a million."""
MAX_STAGED = 32_000_000
"""Bytes that one call may write."""
MAX_NAMES = 2_000
MAX_SHOWN = 200
_ENCODINGS = frozenset({"utf-8", "utf8", "utf-8-sig", "ascii", "latin-1", "iso-8859-1", "cp1252", "utf-16"})

Kind: TypeAlias = Literal["file", "folder"]
Note: TypeAlias = Callable[[JsonObject], None]
"""Is told of every request: what was asked, of what, whether it was granted, and why not."""


class Place(Protocol):
    """Where a plugin's files are. Names are relative, after links; failures are `Denied` and `ToolFailed`."""

    def real(self, path: str) -> str: ...
    def allow(self, action: Action) -> None:
        """Raises `Denied` or `NeedsApproval` for what policy does not let happen."""
        ...

    def look(self, name: str) -> Kind | None: ...
    def read(self, name: str, most: int) -> bytes: ...
    def entries(self, name: str) -> list[str]: ...
    def write(self, name: str, data: bytes) -> None: ...


class WorkspacePlace:
    """The workspace of a call."""

    def __init__(self, ctx: ToolContext) -> None:
        self._ctx = ctx
        self._workspace = ctx.workspace

    def real(self, path: str) -> str:
        return self._workspace.real_name(path)

    def allow(self, action: Action) -> None:
        # What it would write is not known yet, so nobody can say yes to that.
        (self._ctx.require if action.kind == "fs.write" else self._ctx.ask)(action)

    def look(self, name: str) -> Kind | None:
        found = self._workspace.stat(name)
        return None if found is None else "folder" if stat.S_ISDIR(found.st_mode) else "file"

    def read(self, name: str, most: int) -> bytes:
        return self._workspace.read_bytes(name, most)

    def entries(self, name: str) -> list[str]:
        return [each.rstrip("/") for each in self._workspace.entries(name, MAX_NAMES)]

    def write(self, name: str, data: bytes) -> None:
        self._workspace.write_atomic(name, data, self._ctx.key)


class MemoryPlace:
    """Files that are nowhere but in memory, by their names; for trying a plugin out."""

    def __init__(self, files: Mapping[str, bytes] | None = None) -> None:
        self.files = dict(files or {})

    def real(self, path: str) -> str:
        name = PurePosixPath(path)
        if name.is_absolute() or ".." in name.parts or "\\" in path or "\0" in path:
            raise Denied(f"path {path!r} leads out of the workspace")
        return str(name)

    def allow(self, action: Action) -> None:
        return None

    def look(self, name: str) -> Kind | None:
        return "file" if name in self.files else "folder" if name == "." or self.entries(name) else None

    def read(self, name: str, most: int) -> bytes:
        if len(self.files[name]) > most:
            raise ToolFailed(f"{name} has {len(self.files[name])} bytes, more than {most}")
        return self.files[name]

    def entries(self, name: str) -> list[str]:
        start = "" if name == "." else f"{name}/"
        return sorted({each[len(start) :].split("/")[0] for each in self.files if each.startswith(start)})

    def write(self, name: str, data: bytes) -> None:
        self.files[name] = data


class Broker:
    """The requests of one call; see `job.Broker`. What is written waits here until `commit`: a plugin that fails on its
    way leaves no half results, and reads back what it has written itself."""

    def __init__(
        self,
        permissions: Permissions,
        place: Place,
        *,
        note: Note = lambda told: None,
        cancel: threading.Event | None = None,
    ) -> None:
        self._place = place
        self._note = note
        self._cancel = cancel
        self._reading, self._writing = _globs(permissions.read), _globs(permissions.write)
        self._hosts = _host_globs(permissions.http)
        self.read: dict[str, None] = {}
        """Names of files that were read, in order."""
        self.staged: dict[str, bytes] = {}
        self.hosts: dict[str, None] = {}
        self.refused: list[str] = []
        """What requests were about that were refused, as the plugin put it."""
        self.forbidden: list[str] = []
        """Of these, the paths that it may not touch."""

    def __call__(self, name: str, args: JsonObject) -> Any:
        """The answer, a JSON value. Raises `RequestRefused`, and `Cancelled`."""
        about = str(args.get("url" if name == "http.get" else "path", ""))
        told = {"request": name[:MAX_SHOWN], "about": about[:MAX_SHOWN]}
        try:
            answer = self._answer(name, args)
            if len(json.dumps(answer)) > MAX_ANSWER:
                raise RequestRefused(f"{about[:MAX_SHOWN]} is too large to be read at once", kind="OSError")
        except RequestRefused as refusal:
            self.refused.append(about)
            if refusal.kind == "PermissionError" and name.startswith("files."):
                self.forbidden.append(about)
            self._note(told | {"ok": False, "why": refusal.message[:MAX_SHOWN]})
            raise
        self._note(told | {"ok": True})
        return answer

    def commit(self) -> list[str]:
        """Write what waits; the names, in the order in which they were first written. Raises `ToolFailed`, `Denied`."""
        done: list[str] = []
        for name, data in self.staged.items():
            try:
                self._place.write(name, data)
            except (ToolFailed, Denied) as error:
                before = f"; written before it: {', '.join(done)}" if done else ""
                raise ToolFailed(f"{error.message}{before}", hint=error.hint) from None
            done.append(name)
        return done

    def _answer(self, name: str, args: JsonObject) -> Any:
        try:
            match name:
                case "files.read_text":
                    return _decoded(self._content(_path(args)), _encoding(args))
                case "files.read_bytes":
                    return base64.b64encode(self._content(_path(args))).decode("ascii")
                case "files.write_text":
                    return self._write(_path(args), _encoded(_text(args, "text"), _encoding(args)), args)
                case "files.write_bytes":
                    return self._write(_path(args), _unpacked(_text(args, "data")), args)
                case "files.exists":
                    return self._exists(_path(args))
                case "files.list":
                    return self._list(_path(args))
                case "http.get":
                    return self._get(_text(args, "url"), args.get("headers", {}))
        except (Denied, NeedsApproval) as error:
            raise RequestRefused(error.message) from None
        except ToolFailed as error:
            raise RequestRefused(error.message, kind="OSError") from None
        raise RequestRefused(f"{name[:MAX_SHOWN]!r} is nothing that could be asked for", kind="ValueError")

    # files ------------------------------------------------------------------------------------------------------------

    def _content(self, path: str) -> bytes:
        """What stands in a file now, for this plugin."""
        name = self._known(path, "fs.read")
        if name in self.staged:
            return self.staged[name]
        found = self._place.look(name)
        if found is None:
            raise RequestRefused(f"there is no {path}", kind="FileNotFoundError")
        if found == "folder":
            raise RequestRefused(f"{path} is a folder", kind="IsADirectoryError")
        data = self._place.read(name, MAX_ANSWER)
        self.read[name] = None
        return data

    def _write(self, path: str, data: bytes, args: JsonObject) -> int:
        name = self._known(path, "fs.write")
        if self._place.look(name) == "folder":
            raise RequestRefused(f"{path} is a folder", kind="IsADirectoryError")
        if args.get("append") is True:
            data = self._before(name) + data
        waiting = sum(map(len, self.staged.values())) - len(self.staged.get(name, b""))
        if waiting + len(data) > MAX_STAGED:
            raise RequestRefused(f"more than {MAX_STAGED} bytes were written in one call", kind="OSError")
        self.staged[name] = data
        return len(data)

    def _before(self, name: str) -> bytes:
        if name in self.staged:
            return self.staged[name]
        return self._place.read(name, MAX_STAGED) if self._there(name) else b""

    def _exists(self, path: str) -> bool:
        name = self._known(path, "fs.read")
        return name in self.staged or any(each.startswith(f"{name}/") for each in self.staged) or self._there(name)

    def _there(self, name: str) -> bool:
        return self._place.look(name) is not None

    def _list(self, path: str) -> list[str]:
        """The names in a folder that the plugin may read or write; it learns of no others."""
        name = self._known(path, "fs.read", folder=True)
        start = "" if name == "." else f"{name}/"
        mine = {each[len(start) :].split("/")[0] for each in self.staged if each.startswith(start)}
        if not mine and self._place.look(name) != "folder":
            kind = "NotADirectoryError" if self._there(name) else "FileNotFoundError"
            raise RequestRefused(f"there is no folder {path}", kind=kind)
        there = self._place.entries(name) if self._there(name) else []
        return sorted(mine | {each for each in there if self._declared(f"{start}{each}", "fs.read")})

    def _known(self, path: str, kind: Literal["fs.read", "fs.write"], *, folder: bool = False) -> str:
        """The name that a path really has, if the manifest declares it and policy allows it."""
        name = self._place.real(path)
        if not folder and not self._declared(name, kind):
            what = "read" if kind == "fs.read" else "write"
            raise RequestRefused(f"its manifest does not say that it would {what} {name}")
        self._place.allow(Action(kind=kind, target=name))
        return name

    def _declared(self, name: str, kind: str) -> bool:
        """A plugin may read back what it may write, so that it can change a file."""
        folded = fold(name)
        return bool(self._writing(folded) or (kind == "fs.read" and self._reading(folded)))

    # network ----------------------------------------------------------------------------------------------------------

    def _get(self, url: str, headers: Any) -> dict[str, Any]:
        if not isinstance(headers, dict) or not all(isinstance(name, str) for name in headers):
            raise RequestRefused("headers are an object of texts", kind="ValueError")
        host, port = server_of(url)
        try:
            target = host_port(host, port)
        except ValueError as error:
            raise RequestRefused(str(error), kind="ValueError") from None
        if not self._hosts(target):
            raise RequestRefused(f"its manifest does not say that it would reach {target}")
        try:
            self._place.allow(Action(kind="net.connect", target=target))
        except Denied as error:
            raise RequestRefused(f"{error.message} {connecting_rule(host, port)}") from None
        self.hosts[target] = None
        return fetch(url, headers, self._cancel)


def _globs(globs: tuple[str, ...]) -> Callable[[str], object]:
    return path_pattern(globs).fullmatch if globs else lambda name: None


def _host_globs(hosts: tuple[str, ...]) -> Callable[[str], object]:
    return host_pattern([f"{host}:*" for host in hosts]).fullmatch if hosts else lambda target: None


def permission_flaw(permissions: Permissions) -> str:
    """What is wrong with the globs and hosts that a manifest names; empty when nothing is."""
    try:
        for glob in (*permissions.read, *permissions.write):
            if not glob or glob.startswith("/") or ".." in glob.split("/"):
                return f"permission {glob!r}: a glob is relative to the workspace"
            path_pattern([glob])
        for host in permissions.http:
            if host.startswith(("*:", "loopback")) or host == "*":
                return f"permission {host!r}: name the host"
            host_pattern([f"{host}:*"])
    except PatternError as error:
        return f"permission: {error}"
    return ""


def _path(args: JsonObject) -> str:
    return _text(args, "path") or "."


def _text(args: JsonObject, name: str) -> str:
    found = args.get(name)
    if not isinstance(found, str):
        raise RequestRefused(f"{name} is a text, not {type(found).__name__}", kind="TypeError")
    return found


def _encoding(args: JsonObject) -> str:
    found = str(args.get("encoding") or "utf-8").lower().replace("_", "-")
    if found not in _ENCODINGS:
        raise RequestRefused(f"there is no encoding {found[:40]!r}; take utf-8", kind="LookupError")
    return found


def _decoded(data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        words = f"it is no {encoding} text: {error.reason} at byte {error.start}"
        raise RequestRefused(words, kind="ValueError") from None


def _encoded(text: str, encoding: str) -> bytes:
    try:
        return text.encode(encoding)
    except UnicodeEncodeError as error:
        raise RequestRefused(f"{encoding} cannot hold it: {error.reason}", kind="ValueError") from None


def _unpacked(data: str) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise RequestRefused("the data is not base64", kind="ValueError") from None
