"""Changes to `catalog.toml` by commands: comments stay, and nothing is written that could not be read again."""

from __future__ import annotations

import re
import threading
import tomllib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Array

from agentd.backends.catalog import FILE, Catalog, catalog_path
from agentd.errors import BadInput, ConfigError, Conflict, NotFound
from agentd.whole_file import replace_text

_Tables: TypeAlias = MutableMapping[str, Any]

_HEADER = re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")


class CatalogFile:
    """The catalog of a home, to be changed. A home that goes by the default one gets a copy of its own first.

    Every method raises `BadInput` when the file would become wrong, `ConfigError` when it is wrong already, and
    `DiskFull`; the file is then as it was.
    """

    _lock = threading.Lock()

    def __init__(self, folder: Path, package_default: Path) -> None:
        self._folder = folder
        self._default = package_default

    def add_model(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write `[models.NAME]`; what stood there under this name is gone."""
        self._change(lambda tables: _set(tables, "models", name, fields))

    def check_model(self, name: str, fields: Mapping[str, Any]) -> None:
        """Whether `add_model` would go well; writes nothing."""
        self._change(lambda tables: _set(tables, "models", name, fields), write=False)

    def add_server(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write `[servers.NAME]`; what stood there under this name is gone."""
        self._change(lambda tables: _set(tables, "servers", name, fields))

    def add_candidate(self, role: str, name: str, *, first: bool = False) -> None:
        """Let a role take a model, before or after all its others; once, if it was among them."""

        def change(tables: _Tables) -> None:
            roles = tables.setdefault("roles", {})
            others = [each for each in roles.get(role, ()) if each != name]
            _order(roles, role, [name, *others] if first else [*others, name])

        self._change(change)

    def remove_model(self, name: str) -> None:
        """Take out a model, also from the roles. Raises `NotFound`; `Conflict` when something cannot do without it."""
        catalog = self._read()[1]
        if name not in catalog.models:
            raise NotFound(f"there is no model {name!r} in {self._path}", hint="`agentd model ls` lists the models")
        needed = [f"the role {role}" for role, names in catalog.roles.items() if set(names) == {name}]
        needed += [f"the draft of {entry.name}" for entry in catalog.models.values() if entry.draft == name]
        if needed:
            raise Conflict(f"{name} is {' and '.join(needed)}", hint=f"give {FILE} another model for it first")
        self._change(lambda tables: _remove_models(tables, {name}), gone=[("models", name)])

    def remove_server(self, name: str, *, with_users: bool = False) -> None:
        """Take out a server; `with_users` also its models, from the roles too. Raises `NotFound`, `Conflict`."""
        catalog = self._read()[1]
        if name not in catalog.servers:
            raise NotFound(f"there is no server {name!r} in {self._path}", hint="`agentd backend ls` lists them")
        users = {entry.name for entry in catalog.models.values() if entry.server == name}
        users |= {each for names in catalog.roles.values() for each in names if each.startswith(f"{name}/")}
        if users and not with_users:
            raise Conflict(f"{name} serves {', '.join(sorted(users))}", hint="take these out of the catalog as well")
        emptied = [role for role, names in catalog.roles.items() if set(names) <= users]
        if emptied:
            raise Conflict(
                f"{name} has the only models of {', '.join(emptied)}", hint=f"give {FILE} another model for it first"
            )

        def change(tables: _Tables) -> None:
            _remove_models(tables, users)
            _drop(tables, "servers", {name})

        gone = [("models", each) for each in users if each in catalog.models]
        self._change(change, gone=[*gone, ("servers", name)])

    @property
    def _path(self) -> Path:
        return catalog_path(self._folder, self._default)

    def _read(self) -> tuple[str, Catalog]:
        catalog = Catalog.load(self._folder, self._default)
        return self._path.read_text(encoding="utf-8"), catalog

    def _change(
        self, change: Callable[[_Tables], None], *, gone: Sequence[tuple[str, str]] = (), write: bool = True
    ) -> None:
        """`gone`: tables that the change takes out."""
        with self._lock:
            text, _ = self._read()
            changed = _edited(self._path, text, change, gone)
            target = self._folder / FILE
            try:
                Catalog.parse(target, changed, self._folder)
            except ConfigError as error:
                raise BadInput(_without_place(error.message, target), hint=error.hint) from None
            if write:
                replace_text(target, changed)


def _without_place(message: str, file: Path) -> str:
    """The line is one of a text that was never written."""
    return re.sub(rf"^{re.escape(str(file))}(:\d+)?: ", "", message)


def _set(tables: _Tables, kind: str, name: str, fields: Mapping[str, Any]) -> None:
    written = {}
    for key, value in fields.items():
        if isinstance(value, Mapping):
            written[key] = tomlkit.inline_table() | dict(value)
        elif value is not None:
            written[key] = value
    tables.setdefault(kind, {})[name] = written


def _order(roles: _Tables, role: str, names: list[str]) -> None:
    """Set the candidates of a role; an array over several lines, which may hold comments, is changed in its place."""
    there = roles.get(role)
    if not isinstance(there, Array) or "\n" not in there.as_string():
        roles[role] = names
        return
    for name in [each for each in there if each not in names]:
        there.remove(name)
    for place, name in enumerate(names):
        if place >= len(there) or there[place] != name:
            if name in there:
                there.remove(name)
            there.insert(place, name)


def _remove_models(tables: _Tables, names: set[str]) -> None:
    roles = tables.get("roles", {})
    for role, candidates in list(roles.items()):
        if names & set(candidates):
            _order(roles, role, [str(each) for each in candidates if each not in names])
    _drop(tables, "models", names & set(tables.get("models", {})))


def _drop(tables: _Tables, kind: str, names: set[str]) -> None:
    of_kind = tables.get(kind, {})
    for name in names & set(of_kind):
        del of_kind[name]
    if kind in tables and not tables[kind]:
        del tables[kind]


def _edited(path: Path, text: str, change: Callable[[_Tables], None], gone: Sequence[tuple[str, str]]) -> str:
    """The text after the change, which says what the same change makes of the plain values."""
    wanted = tomllib.loads(text)
    change(wanted)
    # tomlkit takes the comment above the next table for a part of the one before it; lines are cut first, therefore.
    for start in dict.fromkeys((_cut(text, gone), text)):
        try:
            document = tomlkit.parse(start)
            change(document)
            made = _spaced(text, tomlkit.dumps(document))
            if tomllib.loads(made) == wanted:
                return made
        except (TOMLKitError, tomllib.TOMLDecodeError):
            continue  # said below
    raise ConfigError(f"{path} is written in a way that no command can change", hint="change it by hand")


def _cut(text: str, gone: Sequence[tuple[str, str]]) -> str:
    """Without the lines of these tables and the comment right above each."""
    prefixes = {f"{kind}.{spelt}" for kind, name in gone for spelt in (name, f'"{name}"', f"'{name}'")}
    kept: list[str] = []
    loose: list[str] = []
    """Empty lines and comments inside a table, which may belong to what follows."""
    inside = False
    for line in text.splitlines(keepends=True):
        header = _HEADER.match(line)
        if header is not None:
            inside = any(header[1] == prefix or header[1].startswith(f"{prefix}.") for prefix in prefixes)
            if inside:
                while kept and kept[-1].startswith("#") and not loose:
                    kept.pop()
                loose.clear()
            kept += loose
            loose.clear()
        if not inside:
            kept.append(line)
        elif header is None and (not line.strip() or line.startswith("#")):
            loose.append(line)
        else:
            loose.clear()
    return "".join(kept)


def _spaced(old: str, new: str) -> str:
    """An empty line before each table that was added."""
    known = set(pairwise(old.splitlines()))
    lines = new.splitlines(keepends=True)
    made = lines[:1]
    for before, line in pairwise(lines):
        pair = (before.rstrip("\r\n"), line.rstrip("\r\n"))
        if line.startswith("[") and before.strip() and not before.startswith("#") and pair not in known:
            made.append("\n")
        made.append(line)
    return "".join(made)
