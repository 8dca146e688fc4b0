"""Which models there are and which role takes which: `models/catalog.toml`."""

from __future__ import annotations

import difflib
import importlib.util
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from agentd.errors import ConfigError, NotFound
from agentd.types import ModelProfile

FILE = "catalog.toml"
CACHE = "requantised"
ROLES = ("planner", "coder", "draft", "critic", "embed", "rerank")


class _Form(BaseModel):
    """One `[models.NAME]` as it is written."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    backend: Literal["llama_cpp", "scripted"] = "llama_cpp"
    file: str | None = None
    package: str | None = None
    context: Annotated[int, Field(ge=256, le=10_000_000)] = 8192
    gpu_layers: Annotated[int, Field(ge=-1, le=1000)] = 0
    compact: bool = False
    think: bool = False
    lora: str | None = None
    replies: str | None = None
    requantise: Literal["Q4_0", "Q8_0"] | None = None

    @model_validator(mode="after")
    def _has_one_source(self) -> _Form:
        if self.backend == "scripted":
            if self.replies is None or self.file or self.package or self.lora or self.requantise:
                raise ValueError(
                    "a scripted model has `replies`, and neither `file`, `package`, `lora` nor `requantise`"
                )
        elif (self.file is None) == (self.package is None) or self.replies:
            raise ValueError("a llama_cpp model has either `file` or `package`, and no `replies`")
        return self


class _Sheet(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    roles: dict[str, list[str]] = {}
    models: dict[str, _Form] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelEntry:
    """One model of the catalog. `gpu_layers`: -1 for all; `context` in tokens."""

    name: str
    backend: Literal["llama_cpp", "scripted"] = "llama_cpp"
    profile: ModelProfile
    gpu_layers: int = 0
    file: Path | None = None
    """The GGUF, or the replies of a scripted model; None for one inside a package."""
    package: str | None = None
    lora: Path | None = None
    requantise: str | None = None
    """The format that is made of it once and kept in `cache`, because this machine reads it faster."""
    cache: Path | None = None

    @property
    def available(self) -> Path | None:
        """The file to load, if it is there."""
        path = self.file if self.package is None else _inside(self.package)
        return path if path is not None and path.is_file() else None

    @property
    def source(self) -> str:
        """Where it comes from, for people."""
        return f"package {self.package}" if self.package else str(self.file)


Roles: TypeAlias = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalog:
    """Roles with the names of their candidates, the best first; and the models by name."""

    roles: Roles
    models: Mapping[str, ModelEntry]

    @classmethod
    def load(cls, folder: Path, package_default: Path) -> Catalog:
        """The catalog of `folder`, else that of `package_default`; files are looked for in `folder`.

        Raises `ConfigError` with file, line and hint.
        """
        path = folder / FILE if (folder / FILE).exists() else package_default / FILE
        try:
            text = path.read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"{path} cannot be read: {error.strerror}", hint="`agentd init` makes one") from None
        except UnicodeDecodeError:
            raise ConfigError(f"{path} is not UTF-8 text", hint="save it as UTF-8") from None
        sheet = _parse(path, text)
        _check_roles(path, text, sheet)
        models = {name: _entry(name, form, folder) for name, form in sheet.models.items()}
        return cls(roles={role: tuple(names) for role, names in sheet.roles.items()}, models=models)

    def candidates(self, role: str) -> list[ModelEntry]:
        """The models of a role, the best first. Raises `NotFound` for an unknown role."""
        if role not in self.roles:
            raise NotFound(f"no model has the role {role!r}", hint=f"there are {', '.join(self.roles)}")
        return [self.models[name] for name in self.roles[role]]

    def entry(self, name: str) -> ModelEntry:
        """Raises `NotFound`."""
        if name not in self.models:
            raise NotFound(f"there is no model {name!r}", hint=_nearest(name, self.models))
        return self.models[name]

    def only(self, name: str) -> Catalog:
        """The same models, with this one in every role. Raises `NotFound`."""
        self.entry(name)
        return replace(self, roles=dict.fromkeys(ROLES, (name,)))


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


def _parse(path: Path, text: str) -> _Sheet:
    try:
        return _Sheet.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}", hint="it must be TOML") from None
    except ValidationError as error:
        raise _error(path, text, error.errors()[0]) from None


def _error(path: Path, text: str, wrong: Any) -> ConfigError:
    place = [str(part) for part in wrong["loc"]]
    where = f"{path}:{_line(text, place)}: {'.'.join(place)}"
    if wrong["type"] != "extra_forbidden":
        return ConfigError(f"{where}: {wrong['msg']}", hint="compare with the entries of the default catalog")
    known = list(_Form.model_fields if len(place) > 2 else _Sheet.model_fields)
    return ConfigError(f"{where}: unknown key; there are {', '.join(known)}", hint=_nearest(place[-1], known))


def _check_roles(path: Path, text: str, sheet: _Sheet) -> None:
    for role, names in sheet.roles.items():
        where = f"{path}:{_line(text, ['roles', role])}"
        if role not in ROLES:
            raise ConfigError(
                f"{where}: unknown role {role!r}; there are {', '.join(ROLES)}", hint=_nearest(role, ROLES)
            )
        for name in names:
            if name not in sheet.models:
                known = ", ".join(sheet.models) or "none"
                raise ConfigError(
                    f"{where}: role {role} names {name!r}, which is no model of this file; there are {known}",
                    hint=_nearest(name, sheet.models),
                )
    if missing := [role for role in ROLES if not sheet.roles.get(role)]:
        raise ConfigError(
            f"{path}:{_line(text, ['roles'])}: no model for {', '.join(missing)}", hint="every role needs a model"
        )


def _entry(name: str, form: _Form, folder: Path) -> ModelEntry:
    file = form.replies if form.backend == "scripted" else form.file
    return ModelEntry(
        name=name,
        backend=form.backend,
        profile=ModelProfile(context=form.context, compact=form.compact, think=form.think),
        gpu_layers=form.gpu_layers,
        file=None if file is None else folder / Path(file).expanduser(),
        package=form.package,
        lora=None if form.lora is None else folder / Path(form.lora).expanduser(),
        requantise=form.requantise,
        cache=folder / CACHE if form.requantise else None,
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


def _nearest(name: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}"
