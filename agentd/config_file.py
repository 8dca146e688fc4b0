"""Changes settings in `agentd.toml`, with its comments kept; a running daemon takes up what it can at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tomlkit

from agentd.config import FILE, Settings, find_setting, parse_settings
from agentd.errors import BadInput, ConfigError, Conflict
from agentd.whole_file import replace_text


class LiveSettings:
    """The settings that a daemon goes by: those of its start, and what was changed since and may change live."""

    def __init__(self, settings: Settings) -> None:
        self._current = settings
        self._lock = threading.Lock()

    @property
    def current(self) -> Settings:
        return self._current

    def change(self, changes: Mapping[str, Any]) -> list[str]:
        """Like the function `change`; returns the changed settings that wait for the next start of the daemon."""
        with self._lock:
            written = change(self._current.home, changes)
            live = [path for path in changes if find_setting(path).live]
            self._current = _with(self._current, {path: written.get(path) for path in live})
            return [path for path in changes if path not in live and written.get(path) != self._current.get(path)]


def _with(settings: Settings, values: Mapping[str, Any]) -> Settings:
    sections: dict[str, dict[str, Any]] = {}
    for path, value in values.items():
        section, _, key = path.partition(".")
        sections.setdefault(section, {})[key] = value
    made = {name: getattr(settings, name).model_copy(update=given) for name, given in sections.items()}
    return settings.model_copy(update=made)


def change(home: Path, changes: Mapping[str, Any], environ: Mapping[str, str] = os.environ) -> Settings:
    """Write `{"agent.steps": 50}` and return the settings as they are then; None gives a setting its default back.

    Raises `NotFound` for an unknown setting, `BadInput` for a wrong value, `Conflict` for one that the environment
    overrules; nothing was written then. `ConfigError`, `DiskFull` when the file itself is wrong or cannot be written.
    """
    for path in changes:
        _refuse_overruled(path, environ)
    file = home / FILE
    before = file.read_text(encoding="utf-8") if file.exists() else ""
    parse_settings(home, before, environ)  # what is wrong already is not the fault of this change
    after = _edited(before, changes)
    try:
        settings = parse_settings(home, after, environ)
    except ConfigError as error:
        raise BadInput(error.message.removeprefix(f"{file}:").lstrip("0123456789: "), hint=error.hint) from None
    replace_text(file, after)
    return settings


def _refuse_overruled(path: str, environ: Mapping[str, str]) -> None:
    name = find_setting(path).env
    if name in (key.upper() for key in environ):
        raise Conflict(f"{path} is set by {name} in the environment", hint="unset it there and start the daemon again")


def _edited(text: str, changes: Mapping[str, Any]) -> str:
    document = tomlkit.parse(text)
    for path, value in changes.items():
        section, _, key = path.partition(".")
        if value is None:
            if section in document:
                document[section].pop(key, None)
            continue
        if section not in document:
            document.add(section, tomlkit.table())
        try:
            document[section][key] = value
        except (ValueError, TypeError):
            raise BadInput(
                f"{path} = {value!r} has no form in TOML", hint="a number, text, true, false or list"
            ) from None
    return tomlkit.dumps(document)
