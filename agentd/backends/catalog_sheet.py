"""The form of `catalog.toml`: what may stand in it, checked, with file and line of what is wrong."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from agentd.backends.dialects import Dialect
from agentd.errors import ConfigError, nearest

ROLES = ("planner", "coder", "draft", "critic", "embed", "rerank")

Backend: TypeAlias = Literal["llama_cpp", "openai", "scripted"]
KvType: TypeAlias = Literal["f16", "q8_0"]

_ANY = {"backend", "context", "compact", "think", "dialect", "sampling", "price", "draft"}
_OWN = {
    "llama_cpp": {"file", "package", "gpu_layers", "sequences", "kv_type", "loras", "requantise", "embedding"},
    "openai": {"server", "model", "embedding"},
    "scripted": {"replies"},
}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:+-]{0,99}")
_TAKEN = "agentd"
_HINT = "compare with the entries of the default catalog"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _verify(value: object) -> object:
    if value is True or (isinstance(value, str) and value):
        return value
    raise ValueError("it is true, or the file with the certificate of who signed the server's")


def _base_url(text: str) -> str:
    """The address without a `/` at its end, and with `/v1` where it has no path."""
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.port == 0:  # reads the port, too
        raise ValueError("an address is http://HOST:PORT or https://HOST, with the path before /chat/completions")
    if parts.username or parts.password:
        raise ValueError("an address holds no password; put the key into the vault and name it with `key`")
    if parts.query or parts.fragment or re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ValueError("an address has neither ? nor # nor white space")
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path}"


def _proxy_url(text: str) -> str:
    parts = urlsplit(text)
    if parts.scheme not in ("http", "https", "socks5", "socks5h") or not parts.hostname or parts.port == 0:
        raise ValueError("a proxy is http://HOST:PORT, https://HOST:PORT or socks5://HOST:PORT")
    return text


_Url: TypeAlias = Annotated[str, AfterValidator(_base_url)]
_Price: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]
_Seconds: TypeAlias = Annotated[float, Field(gt=0, le=86_400)]


class SamplingForm(_Part):
    """What a request that says nothing of it takes."""

    temperature: Annotated[float, Field(ge=0, le=5)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=0, le=1_000_000)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Field(gt=0, le=10)] | None = None


class ModelForm(_Part):
    """One `[models.NAME]` as it is written."""

    backend: Backend = "llama_cpp"
    file: Annotated[str, Field(min_length=1)] | None = None
    package: Annotated[str, Field(min_length=1)] | None = None
    context: Annotated[int, Field(ge=256, le=10_000_000)] | None = None
    gpu_layers: Annotated[int, Field(ge=-1, le=1000)] | None = None
    sequences: Annotated[int, Field(ge=1, le=256)] | None = None
    kv_type: KvType | None = None
    compact: bool = False
    think: bool = False
    embedding: bool = False
    dialect: Dialect | None = None
    sampling: SamplingForm = SamplingForm()
    loras: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    requantise: Literal["Q4_0", "Q8_0"] | None = None
    server: str | None = None
    model: Annotated[str, Field(min_length=1, max_length=500)] | None = None
    price: _Price | None = None
    draft: str | None = None
    replies: Annotated[str, Field(min_length=1)] | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> ModelForm:
        known = _ANY | _OWN[self.backend]
        for name in type(self).model_fields:
            if name in self.model_fields_set and name not in known:
                raise ValueError(f"`{name}` means nothing for the backend {self.backend}")
        if self.backend == "llama_cpp" and (self.file is None) == (self.package is None):
            raise ValueError("a llama_cpp model has either `file` or `package`")
        if self.backend == "openai" and (self.server is None or self.model is None):
            raise ValueError("an openai model has `server`, a name of [servers], and `model`, its name there")
        if self.backend == "scripted" and self.replies is None:
            raise ValueError("a scripted model has `replies`")
        return self


class ServerForm(_Part):
    """One `[servers.NAME]` as it is written."""

    url: _Url | None = None
    urls: tuple[_Url, ...] = ()
    weights: tuple[Annotated[float, Field(gt=0, le=1e6)], ...] = ()
    key: Annotated[str, Field(pattern=f"^{_NAME.pattern}$")] | None = None
    timeout: _Seconds = 600.0
    connect_timeout: _Seconds = 5.0
    proxy: Annotated[str, AfterValidator(_proxy_url)] | None = None
    verify: Annotated[str | Literal[True], BeforeValidator(_verify)] = True
    price: _Price = 0.0

    @model_validator(mode="after")
    def _has_addresses(self) -> ServerForm:
        if (self.url is None) == (not self.urls):
            raise ValueError("a server has either `url` or `urls`")
        if self.weights and len(self.weights) != len(self.addresses):
            raise ValueError(f"{len(self.weights)} weights for {len(self.addresses)} addresses; give one for each")
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        return self.urls if self.url is None else (self.url,)


class Sheet(_Part):
    """The whole file."""

    roles: dict[str, tuple[str, ...]] = {}
    servers: dict[str, ServerForm] = {}
    models: dict[str, ModelForm] = {}

    def knows(self, name: str) -> bool:
        """Whether a role may name it: a model of the file, or `SERVER/MODEL-ID`."""
        server, slash, model = name.partition("/")
        return name in self.models or bool(slash and model and server in self.servers)


def read_sheet(path: Path) -> Sheet:
    """The sheet in a file. Raises `ConfigError` with file, line and hint."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="`agentd init` makes one") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
    return parse_sheet(path, text)


def parse_sheet(path: Path, text: str) -> Sheet:
    """The sheet that a text of `path` is. Raises `ConfigError` with file, line and hint."""
    try:
        sheet = Sheet.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: {error}", hint="it must be TOML") from None
    except ValidationError as error:
        raise _error(path, text, error.errors()[0]) from None
    _check_names(path, text, sheet)
    _check_roles(path, text, sheet)
    _check_links(path, text, sheet)
    return sheet


def _error(path: Path, text: str, wrong: Any) -> ConfigError:
    place = [str(part) for part in wrong["loc"]]
    where = f"{path}:{_line(text, place)}: {'.'.join(place)}"
    if wrong["type"] != "extra_forbidden":
        return ConfigError(f"{where}: {wrong['msg'].removeprefix('Value error, ')}", hint=_HINT)
    forms: dict[str, type[BaseModel]] = {"models": ModelForm, "servers": ServerForm}
    form = forms[place[0]] if len(place) > 2 else Sheet
    known = list((SamplingForm if len(place) > 3 else form).model_fields)
    return ConfigError(f"{where}: unknown key; there are {', '.join(known)}", hint=nearest(place[-1], known))


def _check_names(path: Path, text: str, sheet: Sheet) -> None:
    for kind, names in (("models", sheet.models), ("servers", sheet.servers)):
        for name in names:
            where = f"{path}:{_line(text, [kind, name])}"
            if not _NAME.fullmatch(name):
                raise ConfigError(
                    f"{where}: {name!r} is no name for one of the {kind}",
                    hint="a name has at most 100 letters, digits and . _ : + -; a / follows the name of a server only",
                )
            if name.casefold() == _TAKEN:
                raise ConfigError(f"{where}: {name!r} is the agent's own name", hint="choose another")


def _check_roles(path: Path, text: str, sheet: Sheet) -> None:
    for role, names in sheet.roles.items():
        where = f"{path}:{_line(text, ['roles', role])}"
        if role not in ROLES:
            raise ConfigError(
                f"{where}: unknown role {role!r}; there are {', '.join(ROLES)}", hint=nearest(role, ROLES)
            )
        for name in names:
            _check_known(f"{where}: role {role}", name, sheet)
    if missing := [role for role in ROLES if not sheet.roles.get(role)]:
        raise ConfigError(
            f"{path}:{_line(text, ['roles'])}: no model for {', '.join(missing)}", hint="every role needs a model"
        )


def _check_links(path: Path, text: str, sheet: Sheet) -> None:
    """Servers and drafts that a model names are there."""
    for name, form in sheet.models.items():
        if form.server is not None and form.server not in sheet.servers:
            raise ConfigError(
                f"{path}:{_line(text, ['models', name, 'server'])}: models.{name}: there is no server {form.server!r}",
                hint=nearest(form.server, sheet.servers),
            )
        if form.draft is not None:
            where = f"{path}:{_line(text, ['models', name, 'draft'])}: models.{name}: draft"
            _check_known(where, form.draft, sheet)
            if form.draft == name:
                raise ConfigError(f"{where} names the model itself", hint="name a smaller one")


def _check_known(where: str, name: str, sheet: Sheet) -> None:
    if sheet.knows(name):
        return
    server, slash, _ = name.partition("/")
    if slash:
        raise ConfigError(
            f"{where} names {name!r}, and there is no server {server!r} in this file",
            hint=nearest(server, sheet.servers),
        )
    known = ", ".join(sheet.models) or "none"
    raise ConfigError(
        f"{where} names {name!r}, which is no model of this file; there are {known}", hint=nearest(name, sheet.models)
    )


def _line(text: str, place: list[str]) -> int:
    """The line, from 1, of the deepest part of a path like [models, NAME, key] that is found."""
    best, section = 1, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            section = header[1].replace('"', "").replace("'", "")
            if section == ".".join(place[: section.count(".") + 1]) or section == ".".join(place):
                best = number
        elif key := re.match(r"""\s*["']?([^"'=\s]+)["']?\s*=""", line):
            name = f"{section}.{key[1]}" if section else key[1]
            if ".".join(place) == name or ".".join(place).startswith(f"{name}."):
                return number
    return best
