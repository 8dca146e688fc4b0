"""Which models there are, where, and which role takes which: `models/catalog.toml`, read again when it changes."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeAlias

from agentd.backends.catalog_sheet import (
    ROLES,
    Backend,
    KvType,
    ModelForm,
    ServerForm,
    Sheet,
    parse_sheet,
    read_sheet,
)
from agentd.errors import ConfigError, NotFound, nearest
from agentd.telemetry import get_logger
from agentd.types import ModelProfile

__all__ = ["CACHE", "FILE", "ROLES", "Catalog", "LiveCatalog", "ModelEntry", "Roles", "ServerEntry", "catalog_path"]

FILE = "catalog.toml"
CACHE = "requantised"
_SUFFIX = ".gguf"

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerEntry:
    """A server that speaks OpenAI's API, at one or several addresses that serve the same models."""

    name: str
    urls: tuple[str, ...]
    """Each with its path (`/v1`), without a `/` at the end."""
    weights: tuple[float, ...] = (1.0,)
    """One for each address: what share of the requests it gets."""
    key: str | None = None
    """The name of the key in the vault."""
    timeout: float = 600.0
    """Seconds for a whole reply."""
    connect_timeout: float = 5.0
    proxy: str | None = None
    verify: Path | None = None
    """The certificate that the server's is checked against; None for those that the system trusts."""
    price: float = 0.0
    """For a million tokens, in any one currency; for comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model of the catalog. None stands for: what this machine can bear."""

    name: str
    backend: Backend = "llama_cpp"
    profile: ModelProfile
    context: int | None = None
    """Tokens that prompt and reply of one conversation may have together. `profile.context` is this, or a modest
    number until it is known what fits."""
    gpu_layers: int | None = None
    """-1 for all."""
    sequences: int | None = None
    """How many requests are computed at once."""
    kv_type: KvType | None = None
    file: Path | None = None
    """The GGUF, or the replies of a scripted model; None for one inside a package or on a server."""
    package: str | None = None
    loras: tuple[Path, ...] = ()
    embedding: bool = False
    """Made for vectors, not for replies."""
    requantise: str | None = None
    """The format that is made of it once and kept in `cache`, because this machine reads it faster."""
    cache: Path | None = None
    server: str | None = None
    """For the backend openai: a name of `Catalog.servers`."""
    model: str | None = None
    """Its name on that server."""
    price: float = 0.0
    """For a million tokens, in any one currency."""
    draft: str | None = None
    """The name of a smaller model that is tried first, where what it says can be checked."""

    @property
    def available(self) -> Path | None:
        """The file to load, if it is there; None for a model on a server."""
        path = self.file if self.package is None else _inside(self.package)
        return path if path is not None and path.is_file() else None

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        if self.server is not None:
            return f"{self.model} on {self.server}"
        return f"package {self.package}" if self.package else str(self.file)


Roles: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Roles with the names of their candidates, the best first; models and servers by name."""

    roles: Roles
    models: Mapping[str, ModelEntry]
    servers: Mapping[str, ServerEntry] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path, package_default: Path) -> Catalog:
        """The catalog of `folder`, else that of `package_default`; files are looked for in `folder`.

        Raises `ConfigError` with file, line and hint.
        """
        return cls._of(read_sheet(catalog_path(folder, package_default)), folder)

    @classmethod
    def parse(cls, path: Path, text: str, folder: Path) -> Catalog:
        """The catalog that a text would be as the file `path`. Raises `ConfigError`."""
        return cls._of(parse_sheet(path, text), folder)

    @classmethod
    def _of(cls, sheet: Sheet, folder: Path) -> Catalog:
        servers = {name: _server(name, form, folder) for name, form in sheet.servers.items()}
        models = {name: _entry(name, form, folder, servers) for name, form in sheet.models.items()}
        return cls(roles=dict(sheet.roles), models=models, servers=servers)

    def candidates(self, role: str) -> list[ModelEntry]:
        """The models of a role, the best first. Raises `NotFound` for an unknown role."""
        if role not in self.roles:
            raise NotFound(f"no model has the role {role!r}", hint=f"there are {', '.join(self.roles)}")
        return [self.entry(name) for name in self.roles[role]]

    def entry(self, name: str) -> ModelEntry:
        """A model by its name, as `SERVER/MODEL-ID`, or as the whole path of a GGUF file. Raises `NotFound`."""
        if name in self.models:
            return self.models[name]
        server, slash, model = name.partition("/")
        if slash and model and server in self.servers:
            return _remote(self.servers[server], model)
        if name.lower().endswith(_SUFFIX) and "\0" not in name:
            return self._at(name)
        raise NotFound(f"there is no model {name[:200]!r}", hint=nearest(name, self.models))

    def server(self, name: str) -> ServerEntry:
        """Raises `NotFound`."""
        if name not in self.servers:
            raise NotFound(f"there is no server {name[:200]!r}", hint=nearest(name, self.servers))
        return self.servers[name]

    def only(self, name: str) -> Catalog:
        """The same models, with this one in every role. Raises `NotFound`."""
        self.entry(name)
        return replace(self, roles=dict.fromkeys(ROLES, (name,)))

    def _at(self, name: str) -> ModelEntry:
        """The model in a file: its entry if it has one, else one with nothing but the file."""
        path = Path(name).expanduser()
        if not path.is_absolute():
            raise NotFound(f"there is no model {name[:200]!r}", hint="name a GGUF file with its whole path")
        for entry in self.models.values():
            if entry.backend == "llama_cpp" and entry.file == path:
                return entry
        if not path.is_file():
            raise NotFound(f"there is no model file {name[:500]!r}", hint="`agentd model ls` lists the models")
        return ModelEntry(name=str(path), profile=ModelProfile(), file=path)


class LiveCatalog:
    """The catalog of a home as the file says now; a file that became wrong leaves the last good one. Thread-safe."""

    def __init__(self, folder: Path, package_default: Path, *, only: str | None = None) -> None:
        """`only` names a model that takes every role. Raises `ConfigError` and `NotFound` for what is wrong now."""
        self.folder = folder
        self._default = package_default
        self._only = only
        self._lock = threading.Lock()
        self._mark = self._look()
        self._catalog = self._load()
        self._problem: ConfigError | NotFound | None = None

    def current(self) -> Catalog:
        """The catalog; reads the file again only when it was written since."""
        with self._lock:
            mark = self._look()
            if mark != self._mark:
                self._mark = mark
                self._read()
            return self._catalog

    @property
    def problem(self) -> ConfigError | NotFound | None:
        """Why the file as it is now is not in force; None when it is."""
        self.current()
        return self._problem

    @property
    def path(self) -> Path:
        """The file that is read: the home's own, or the one that came with the package."""
        return catalog_path(self.folder, self._default)

    def _read(self) -> None:
        try:
            self._catalog, self._problem = self._load(), None
        except (ConfigError, NotFound) as error:
            self._problem = error
            log.error("the catalog is wrong; the last good one stays in force", problem=error.message, hint=error.hint)
        else:
            log.info("the catalog was read again", file=str(self.path), models=len(self._catalog.models))

    def _load(self) -> Catalog:
        catalog = Catalog.load(self.folder, self._default)
        return catalog if self._only is None else catalog.only(self._only)

    def _look(self) -> tuple[object, ...]:
        """Differs after every change of the file."""
        path = self.path
        try:
            found = path.stat()
        except OSError:
            return (path,)
        return path, found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def catalog_path(folder: Path, package_default: Path) -> Path:
    """The file that holds for `folder`: its own, else the default."""
    return folder / FILE if (folder / FILE).exists() else package_default / FILE


def _inside(package: str) -> Path | None:
    """The GGUF in a package's folder. The package is never imported: its code is none of ours."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return None
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        found = sorted(Path(folder).rglob("*.gguf"))
        if found:
            return found[0]
    return None


def _entry(name: str, form: ModelForm, folder: Path, servers: Mapping[str, ServerEntry]) -> ModelEntry:
    file = form.replies if form.backend == "scripted" else form.file
    price = servers[form.server].price if form.price is None and form.server is not None else form.price
    return ModelEntry(
        name=name,
        backend=form.backend,
        profile=ModelProfile(
            context=form.context or ModelProfile().context,
            compact=form.compact,
            think=form.think,
            dialect=form.dialect,
            sampling=form.sampling.model_dump(exclude_none=True),
        ),
        context=form.context,
        gpu_layers=form.gpu_layers,
        sequences=form.sequences,
        kv_type=form.kv_type,
        file=None if file is None else _below(folder, file),
        package=form.package,
        loras=tuple(_below(folder, lora) for lora in form.loras),
        embedding=form.embedding,
        requantise=form.requantise,
        cache=folder / CACHE if form.requantise else None,
        server=form.server,
        model=form.model,
        price=price or 0.0,
        draft=form.draft,
    )


def _server(name: str, form: ServerForm, folder: Path) -> ServerEntry:
    return ServerEntry(
        name=name,
        urls=form.addresses,
        weights=form.weights or (1.0,) * len(form.addresses),
        key=form.key,
        timeout=form.timeout,
        connect_timeout=form.connect_timeout,
        proxy=form.proxy,
        verify=None if form.verify is True else _below(folder, form.verify),
        price=form.price,
    )


def _remote(server: ServerEntry, model: str) -> ModelEntry:
    """A model of a server that has no entry of its own."""
    return ModelEntry(
        name=f"{server.name}/{model}",
        backend="openai",
        profile=ModelProfile(),
        server=server.name,
        model=model,
        price=server.price,
    )


def _below(folder: Path, text: str) -> Path:
    """A path of the catalog: whole, or from the folder of the models."""
    return folder / Path(text).expanduser()
