"""The settings: `agentd.toml` in the home, overruled by `AGENTD_SECTION__KEY` in the environment."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from agentd.errors import BadInput, ConfigError, NotFound, nearest
from agentd.home import Places, defaults_dir, find_home, make_private

__all__ = [
    "LIVE",
    "Setting",
    "Settings",
    "config_template",
    "describe",
    "find_home",
    "find_setting",
    "init_home",
    "load_settings",
    "parse_settings",
    "value_of",
]

FILE = "agentd.toml"
_ENV_PREFIX = "AGENTD_"
LIVE: Any = {"live": True}
"""Marks a setting that takes effect at once when it is changed while the daemon runs."""


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class ApiSettings(Section):
    """How front ends reach the daemon; the unix socket is always there."""

    tcp: bool = Field(False, description="Listen on TCP as well. Windows, which has no unix sockets, always does.")
    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on; keep it a loopback address.")
    port: int = Field(8765, ge=0, le=65535, description="TCP port; 0 lets the system choose a free one.")
    cors_origins: list[str] = Field(
        [], description="Web pages elsewhere that may call over TCP, such as http://localhost:3000; none by default."
    )
    workspace: str = Field(
        "",
        description="Folder for requests to the model agentd and to /tools that name none; empty for none.",
        json_schema_extra=LIVE,
    )
    detach: bool = Field(
        False,
        description="A task of the model agentd goes on when its client goes away, instead of being cancelled.",
        json_schema_extra=LIVE,
    )
    requests_per_minute: int = Field(
        6000,
        ge=0,
        description="Requests of one key over TCP in a minute, at once or spread; 0 for no limit.",
        json_schema_extra=LIVE,
    )
    requests_at_once: int = Field(
        128, ge=1, le=4096, description="Requests for replies that may run or wait at once; more get status 429."
    )
    unknown_model: str = Field(
        "",
        description="Model or role that answers requests for models which are not known here; empty to refuse them.",
        json_schema_extra=LIVE,
    )


class AgentSettings(Section):
    """What one task may use at most, unless the task says otherwise."""

    steps: int = Field(40, ge=1, le=10_000, description="Turns of the model.", json_schema_extra=LIVE)
    tokens: int = Field(200_000, ge=100, description="Prompt and completion tokens together.", json_schema_extra=LIVE)
    seconds: float = Field(1800.0, gt=0, description="Seconds of wall clock.", json_schema_extra=LIVE)
    retries: int = Field(
        2, ge=0, le=20, description="New attempts at one step after it failed.", json_schema_extra=LIVE
    )
    loop_repeats: int = Field(
        3,
        ge=2,
        le=100,
        description="The same call with the same result this many times over ends the task as looped.",
        json_schema_extra=LIVE,
    )


class PolicySettings(Section):
    """How much tasks may do."""

    default_level: int = Field(
        2,
        ge=0,
        le=4,
        description="Access level of a task that names none: 0 read, 1 write, 2 run tests, 3 commit, 4 more shell.",
        json_schema_extra=LIVE,
    )
    max_level: int = Field(
        3, ge=0, le=4, description="No task gets a higher access level than this.", json_schema_extra=LIVE
    )
    ask_above: int = Field(
        70,
        ge=0,
        le=100,
        description="A call of a tool with more risk than this (0 to 100) is asked about, though rules allow it.",
        json_schema_extra=LIVE,
    )
    council_above: int = Field(
        50,
        ge=0,
        le=100,
        description="A plan or a change with more risk than this (0 to 100) goes before the council.",
        json_schema_extra=LIVE,
    )


class ModelSettings(Section):
    """Language models in this machine's memory."""

    max_loaded: int = Field(
        0,
        ge=0,
        le=16,
        description="Models in memory at once, 0 for as many as fit; the one that is missed least goes.",
        json_schema_extra=LIVE,
    )
    threads: int = Field(0, ge=0, le=1024, description="Threads of a model; 0 takes all cores but one.")
    probe: bool = Field(
        True,
        description="Find out what a model can do after it was loaded for the first time, when nobody needs it.",
        json_schema_extra=LIVE,
    )
    hub: str = Field(
        "https://huggingface.co",
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#]*)?$",
        description="Where `agentd model pull` looks for ORG/REPO; HF_ENDPOINT overrules it.",
        json_schema_extra=LIVE,
    )
    disk_reserve_mb: int = Field(
        2048,
        ge=0,
        le=1_000_000,
        description="MiB of the disk that `agentd model pull` leaves free.",
        json_schema_extra=LIVE,
    )


class RouterSettings(Section):
    """How a request finds a model, and what happens when a server fails."""

    prefer: Literal["order", "price", "quality"] = Field(
        "order",
        description="Which candidate of a role comes first: as the catalog says, the cheapest, or the best.",
        json_schema_extra=LIVE,
    )
    tries: int = Field(
        3,
        ge=1,
        le=10,
        description="How often a request is sent to one model before the next is asked.",
        json_schema_extra=LIVE,
    )
    pause: float = Field(
        0.25,
        ge=0,
        le=60,
        description="Seconds before it is sent again to the same server; doubled each time, and a little by chance.",
        json_schema_extra=LIVE,
    )
    patience: float = Field(
        5.0,
        ge=0,
        le=600,
        description="Most seconds to wait for a server that asks for time, when others are there.",
        json_schema_extra=LIVE,
    )
    failures: int = Field(
        3, ge=1, le=100, description="Failures in a row after which a server is left alone.", json_schema_extra=LIVE
    )
    rest: float = Field(
        5.0,
        ge=0.1,
        le=3600,
        description="Seconds for which it is left alone at first; doubled each time it fails again.",
        json_schema_extra=LIVE,
    )
    longest_rest: float = Field(
        120.0, ge=0.1, le=86_400, description="Most seconds for which it is left alone.", json_schema_extra=LIVE
    )
    hedge_after: float = Field(
        0.0,
        ge=0,
        le=600,
        description="Seconds after which a hedged request asks a second server; 0 takes what 95 % of the first's take.",
        json_schema_extra=LIVE,
    )
    draft_confidence: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Mean probability of its tokens from which a draft model's reply is taken.",
        json_schema_extra=LIVE,
    )


class CacheSettings(Section):
    """Replies of models that are kept and given again to exactly the same request at temperature 0."""

    enabled: bool = Field(True, description="Keep replies and give them again.", json_schema_extra=LIVE)
    max_mb: int = Field(
        64, ge=1, le=16_384, description="MiB of replies; those unused for the longest time go.", json_schema_extra=LIVE
    )
    max_age_days: float = Field(
        30.0, gt=0, le=3650, description="Days after which a reply is forgotten.", json_schema_extra=LIVE
    )


class SandboxSettings(Section):
    """How far code that is not trusted is shut in."""

    executor: Literal["auto", "os", "wasm"] = Field(
        "auto",
        description="What plugins run in: walls of this system, WebAssembly, or the first that holds.",
    )
    seconds: float = Field(
        5.0, ge=0.1, le=300, description="Most seconds of one call of a plugin.", json_schema_extra=LIVE
    )
    memory_mb: int = Field(
        256, ge=16, le=2048, description="MiB of memory that a plugin may have.", json_schema_extra=LIVE
    )
    output_kb: int = Field(
        1000,
        ge=1,
        le=1000,
        description="KB that one call of a plugin may give back, what it prints counted in.",
        json_schema_extra=LIVE,
    )
    commands: Literal["required", "off"] = Field(
        "required",
        description="Programs of a project (tests, commands, checks) run behind walls or not at all; off: without any.",
    )
    file_mb: int = Field(4096, ge=1, le=1_000_000, description="MiB of one file that such a program may write.")
    processes: int = Field(4096, ge=16, le=4_000_000, description="Processes that such a program may have.")

    @property
    def chosen(self) -> Literal["os", "wasm"]:
        """What plugins run in on this machine."""
        if self.executor != "auto":
            return self.executor
        return "os" if sys.platform == "linux" else "wasm"


class StoreSettings(Section):
    """The database file."""

    ballast_mb: int = Field(
        8, ge=0, le=1024, description="MiB kept in reserve on the disk and given free when it is full; 0 for none."
    )


class SnapshotSettings(Section):
    """What stood in files before tasks changed them, kept so that it can be taken back."""

    keep_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="Days after which an ended task can no longer be undone.",
        json_schema_extra=LIVE,
    )
    max_mb: int = Field(
        2048,
        ge=16,
        le=1_000_000,
        description="MiB kept in all; when it is more, the ended tasks that lie back longest can no longer be undone.",
        json_schema_extra=LIVE,
    )
    survey_mb: int = Field(
        64,
        ge=0,
        le=100_000,
        description="MiB of files of one workspace kept before its programs run; what they change in others stays.",
        json_schema_extra=LIVE,
    )


class LogSettings(Section):
    """The log in `state/logs/agentd.log`."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        "info",
        description="Least important kind of message to keep; debug also logs texts of files and models.",
        json_schema_extra=LIVE,
    )
    format: Literal["json", "text"] = Field("json", description="One JSON object a line, or lines for people.")


class PluginSettings(Section):
    """Tools that were added to this home."""

    attempts: int = Field(
        3,
        ge=1,
        le=10,
        description="Attempts at the tests and at the code of a new one, each.",
        json_schema_extra=LIVE,
    )
    best_of: int = Field(
        3,
        ge=1,
        le=10,
        description="Versions of its code of which the best is taken, in tasks that nobody waits for.",
        json_schema_extra=LIVE,
    )
    council: bool = Field(
        False,
        description="The council hears every new one, not only those that write files or speak to hosts.",
        json_schema_extra=LIVE,
    )
    archive_days: float = Field(
        90.0,
        gt=0,
        le=3650,
        description="Days after which an unused plugin is put away.",
        json_schema_extra=LIVE,
    )


class ApprovalSettings(Section):
    """What waits for a person."""

    expire_hours: float = Field(
        24.0,
        gt=0,
        le=8760,
        description="Hours in which a request can be approved, and an approval used; later it is asked anew.",
        json_schema_extra=LIVE,
    )


class TaskSettings(Section):
    """The queue."""

    workers: int = Field(1, ge=1, le=64, description="Tasks worked on at the same time.")
    lease_seconds: float = Field(
        60.0, ge=1, description="Seconds after which a task whose worker gives no sign of life is taken over."
    )
    copy_mb: int = Field(
        4096,
        ge=1,
        description="MiB of a workspace of which a dry run or a shadow makes a copy; a larger one is refused.",
        json_schema_extra=LIVE,
    )


class Settings(Places, BaseModel):
    """Every setting of one home; made by `load_settings`, never changed after."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    home: Path = Field(description="Folder of state, policies, models and plugins.")
    api: ApiSettings = ApiSettings()
    agent: AgentSettings = AgentSettings()
    policy: PolicySettings = PolicySettings()
    models: ModelSettings = ModelSettings()
    router: RouterSettings = RouterSettings()
    cache: CacheSettings = CacheSettings()
    sandbox: SandboxSettings = SandboxSettings()
    store: StoreSettings = StoreSettings()
    snapshots: SnapshotSettings = SnapshotSettings()
    log: LogSettings = LogSettings()
    plugins: PluginSettings = PluginSettings()
    tasks: TaskSettings = TaskSettings()
    approvals: ApprovalSettings = ApprovalSettings()

    def get(self, path: str) -> Any:
        """The value at `agent.steps`, or a whole section as a dict; `NotFound` names the nearest."""
        if path in _sections():
            section: Section = getattr(self, path)
            return section.model_dump()
        find_setting(path)
        section_name, _, key = path.partition(".")
        return getattr(getattr(self, section_name), key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting, as the reference and `config` commands show it."""

    path: str
    kind: str
    default: Any
    allowed: str
    description: str
    live: bool
    """Whether a running daemon takes a change up at once; the others wait for its next start."""

    @property
    def env(self) -> str:
        return _ENV_PREFIX + self.path.replace(".", "__").upper()


@dataclass(frozen=True, slots=True)
class _Entry:
    """One value that somebody gave, and the place to name when it is wrong."""

    section: str
    key: str
    value: Any
    where: str


def load_settings(home: Path, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read the settings of `home`. Every unknown name and wrong value is reported at once, in one `ConfigError`."""
    if home.exists() and not home.is_dir():
        raise ConfigError(f"the home {home} is not a folder", hint="name a folder with --home or AGENTD_HOME")
    return parse_settings(home, _text_of(home / FILE), environ)


def parse_settings(home: Path, text: str, environ: Mapping[str, str]) -> Settings:
    """The settings that `text`, as the file of `home`, would give."""
    entries = [*_file_entries(home / FILE, text), *_environment_entries(environ)]
    values: dict[str, dict[str, Any]] = {}
    problems: list[tuple[str, str]] = []
    for entry in entries:
        try:
            values.setdefault(entry.section, {})[entry.key] = _checked(entry)
        except ConfigError as error:
            problems.append((error.message, error.hint))
    if len(problems) > 1:
        raise ConfigError("\n".join(f"{message} ({hint})" for message, hint in problems))
    if problems:
        raise ConfigError(problems[0][0], hint=problems[0][1])
    sections = _sections()
    settings = Settings(home=home, **{name: sections[name](**given) for name, given in values.items()})
    policy = settings.policy
    if policy.default_level > policy.max_level:
        raise ConfigError(
            f"policy.default_level = {policy.default_level} is above policy.max_level = {policy.max_level}",
            hint="lower default_level or raise max_level",
        )
    return settings


def describe() -> list[Setting]:
    """Every setting, in the order of the file."""
    return [_setting(name, key) for name, section in _sections().items() for key in section.model_fields]


def find_setting(path: str) -> Setting:
    """The setting at `agent.steps`; `NotFound` names the nearest."""
    known = {setting.path: setting for setting in describe()}
    if path not in known:
        raise NotFound(f"no setting {path!r}", hint=_nearest(path, [*known, *_sections()]))
    return known[path]


def config_template() -> str:
    """An `agentd.toml` in which every setting stands as a comment with its default."""
    lines = ["# The settings of this home. Take the # away from a line to change it; `agentd config validate` checks."]
    for name, section in _sections().items():
        lines += ["", f"[{name}]", f"# {section.__doc__}"]
        for setting in (_setting(name, key) for key in section.model_fields):
            allowed = f" ({setting.allowed})" if setting.allowed else ""
            lines += ["", f"# {setting.description}{allowed}"]
            lines += [f"# {setting.path.partition('.')[2]} = {json.dumps(setting.default)}"]
    return "\n".join(lines) + "\n"


def init_home(folder: Path) -> list[Path]:
    """Make `folder` a home; what is there already stays as it is. Returns what was made."""
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder} is a file", hint="name a folder that is new or empty")
    made = [path for path in (folder, folder / "state") if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    make_private(folder / "state")
    for name in ("policies", "models", "plugins_generated"):
        if not (folder / name).exists():
            (folder / name).mkdir()
            made.append(folder / name)
    made += _copy_missing(defaults_dir() / "policies", folder / "policies", "*.yaml")
    made += _copy_missing(defaults_dir() / "models", folder / "models", "catalog.toml")
    settings_file = folder / FILE
    if not settings_file.exists():
        settings_file.write_text(config_template(), encoding="utf-8")
        made.append(settings_file)
    return made


def _copy_missing(source: Path, target: Path, pattern: str) -> Iterator[Path]:
    for file in sorted(source.glob(pattern)):
        if not (target / file.name).exists():
            yield Path(shutil.copyfile(file, target / file.name))


def _sections() -> dict[str, type[Section]]:
    found = {}
    for name, field in Settings.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            found[name] = field.annotation
    return found


def _setting(section: str, key: str) -> Setting:
    schema = _sections()[section].model_json_schema()["properties"][key]
    limits = {"minimum": "at least", "exclusiveMinimum": "more than", "maximum": "at most"}
    allowed = [f"{words} {schema[name]}" for name, words in limits.items() if name in schema]
    if "enum" in schema:
        allowed = [", ".join(schema["enum"])]
    return Setting(
        path=f"{section}.{key}",
        kind=schema["type"],
        default=schema["default"],
        allowed=", ".join(allowed),
        description=schema["description"],
        live=schema.get("live", False),
    )


def _text_of(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return ""
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {error}", hint="it must be a readable UTF-8 text") from None


def _file_entries(path: Path, text: str) -> Iterator[_Entry]:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        where = f"{path}:{line[1]}" if line else str(path)
        raise ConfigError(f"{where}: not TOML: {error}", hint='write `key = value`, texts in "quotes"') from None
    for section, content in data.items():
        if not isinstance(content, dict):
            yield _Entry("", section, content, f"{path}:{_line_of(text, section)}")
            continue
        if section not in _sections():
            yield _Entry(section, "", None, f"{path}:{_line_of(text, section)}")
            continue
        for key, value in content.items():
            yield _Entry(section, key, value, f"{path}:{_line_of(text, f'{section}.{key}')}")


def _environment_entries(environ: Mapping[str, str]) -> Iterator[_Entry]:
    for name, raw in sorted(environ.items()):
        section, double, key = name.removeprefix(_ENV_PREFIX).partition("__")
        if name.startswith(_ENV_PREFIX) and double:
            yield _Entry(section.lower(), key.lower(), value_of(raw), name)


def value_of(raw: str) -> Any:
    """A value as TOML would read it (`8`, `1.5`, `true`), else the text itself."""
    try:
        return tomllib.loads(f"value = {raw}")["value"]
    except (tomllib.TOMLDecodeError, KeyError):
        return raw


def _checked(entry: _Entry) -> Any:
    """The entry's value, or `ConfigError` with place, what came, and what is allowed."""
    sections = _sections()
    if entry.section not in sections:
        raise _unknown_section(entry, sections)
    section = sections[entry.section]
    if entry.key not in section.model_fields:
        raise ConfigError(
            f"{entry.where}: unknown setting {entry.key!r}; [{entry.section}] has {', '.join(section.model_fields)}",
            hint=_nearest(entry.key, section.model_fields),
        )
    try:
        return getattr(section.model_validate({entry.key: entry.value}), entry.key)
    except ValidationError as error:
        setting = _setting(entry.section, entry.key)
        wanted = f"{setting.kind}, {setting.allowed}" if setting.allowed else setting.kind
        said = error.errors()[0]["msg"].removeprefix("Input ")
        raise ConfigError(
            f"{entry.where}: {setting.path} = {entry.value!r} {said}",
            hint=f"{setting.path} takes: {wanted}; default {json.dumps(setting.default)}",
        ) from None


def _unknown_section(entry: _Entry, sections: Mapping[str, type[Section]]) -> ConfigError:
    if entry.section:
        message = f"unknown section [{entry.section}]"
        hint = _nearest(entry.section, sections)
    else:
        message = f"{entry.key!r} stands outside a section"
        owners = [name for name, section in sections.items() if entry.key in section.model_fields]
        hint = f"it belongs below [{owners[0]}]" if owners else "put each setting below its [section]"
    return ConfigError(f"{entry.where}: {message}; there are {', '.join(sections)}", hint=hint)


def _line_of(text: str, path: str) -> int:
    """The line, from 1, on which `section` or `section.key` is set; 1 when it is written in some unusual way."""
    current = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if header := re.match(r"\s*\[\s*([^\]]+?)\s*\]", line):
            current = header[1]
            if current == path:
                return number
        elif key := re.match(r"""\s*["']?([\w.-]+)["']?\s*=""", line):
            name = f"{current}.{key[1]}" if current else key[1]
            if name == path or path.startswith(f"{name}."):
                return number
    return 1


def _nearest(name: str, known: Iterable[str]) -> str:
    return nearest(name, known, otherwise="`agentd config get` lists every setting")
